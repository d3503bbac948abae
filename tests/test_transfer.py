"""Languages that the fine-tuning rows reason in, and the others: two changes, each of its own languages alone."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from fabricated import fabricate_run

from bench.comparison import compare
from bench.transfer import GroupChange, compare_by_training

PLACE = {"arm": "r16-s200", "suite": "stories", "split": "gate", "effort": "high", "metric": "accuracy"}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return fabricate_run(tmp_path_factory.mktemp("run"), None, 20, 60).samples


def by_group(samples: pd.DataFrame, taught: set[str], **changes: Any) -> dict[str, GroupChange]:
    return {change.group: change for change in compare_by_training(samples, taught, **{**PLACE, **changes})}


def test_each_group_is_the_comparison_of_its_languages_alone(samples: pd.DataFrame) -> None:
    found = by_group(samples, {"de", "fr"})
    assert list(found) == ["trained", "not trained"]
    for group, languages in (("trained", ("de", "fr")), ("not trained", ("en", "es", "it"))):
        rows = samples[samples["language"].isin(languages)]
        sides = [rows[rows["arm"] == arm] for arm in ("base", "r16-s200")]
        alone = compare(*sides, suite="stories", split="gate", effort="high", metric="accuracy")
        assert found[group].languages == languages
        assert found[group].comparison == alone
        assert alone.delta is not None
        assert alone.clusters == 60


def test_a_loss_in_the_others_does_not_hide_behind_a_gain_in_the_trained(samples: pd.DataFrame) -> None:
    arm, taught = samples["arm"] == "r16-s200", samples["language"].isin(["de", "fr"])
    moved = samples.assign(score=samples["score"].mask(arm & taught, 1.0).mask(arm & ~taught, 0.0))
    found = by_group(moved, {"de", "fr"}, effort="low")
    trained, others = found["trained"].comparison, found["not trained"].comparison
    assert trained.ci is not None
    assert others.ci is not None
    assert trained.ci[0] > 0.5
    assert others.ci[1] < -0.1


@pytest.mark.parametrize(("taught", "groups"), [({"de", "en", "es", "fr", "it", "sw"}, ["trained"]), (set(), ["not trained"])])
def test_a_group_without_samples_is_left_out(samples: pd.DataFrame, taught: set[str], groups: list[str]) -> None:
    assert list(by_group(samples, taught)) == groups


def test_a_group_that_lost_rows_says_why_and_the_other_is_still_compared(samples: pd.DataFrame) -> None:
    gone = (samples["arm"] == "r16-s200") & (samples["language"] == "es")
    found = by_group(samples[~gone], {"de", "fr"})
    assert found["trained"].comparison.delta is not None
    assert "the items differ" in found["not trained"].comparison.invalid_because[0]
