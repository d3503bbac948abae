"""One language may not collapse behind a mean that holds; eleven tests do not stop an unchanged arm."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from test_comparison import samples_of

from bench import stats
from bench.comparison import compare, compare_languages
from bench.experiment import Gate
from bench.language_guard import judge_languages, p_value
from bench.records import Verdict

GUARD = Gate(name="languages", metric="accuracy", effort="high", type="language_guard", margin=0.08)
WHERE = {"suite": "stories", "split": "gate", "effort": "high"}
PROBLEMS, LANGUAGES = 250, 11


def guarded(before: pd.DataFrame, after: pd.DataFrame, gate: Gate = GUARD) -> Verdict:
    where = {**WHERE, "metric": gate.metric}
    return judge_languages(compare(before, after, **where), compare_languages(before, after, **where), gate)


def answers(seed: int, fall: dict[int, float] | None = None) -> np.ndarray:
    """Right with 85 %, less in the languages of `fall`."""
    share = np.full(LANGUAGES, 0.85)
    for language, lost in (fall or {}).items():
        share[language] -= lost
    return (np.random.default_rng(seed).random((PROBLEMS, LANGUAGES)) < share).astype(float)


def test_a_collapsed_language_fails_though_the_mean_holds() -> None:
    before, after = samples_of(answers(1)), samples_of(answers(2, {4: 0.25}), arm="r8")
    verdict = guarded(before, after)
    assert verdict.verdict == "fail"
    assert verdict.reasons[0].startswith("a loss of more than 8 points in accuracy is shown in l4 \u2212")
    assert verdict.delta is not None
    assert verdict.delta > -0.04
    table = verdict.evidence["by_language"]
    assert [language for language, row in table.items() if row["holm_p"] < 0.025] == ["l4"]


def test_an_unchanged_arm_is_not_stopped_and_nothing_is_claimed_for_it() -> None:
    verdict = guarded(samples_of(answers(1)), samples_of(answers(2), arm="r8"))
    assert verdict.verdict == "pass"
    assert "no language is shown to have a loss of more than 8 points" in verdict.reasons[0]
    assert "this rules nothing out" in verdict.reasons[0]


def test_p_values_are_the_t_tests_and_adjusted_by_holm() -> None:
    before, after = answers(3), answers(4, {0: 0.13})
    verdict = guarded(samples_of(before), samples_of(after, arm="r8"))
    raw = [scipy_stats.ttest_1samp(after[:, n] - before[:, n], -0.08, alternative="less").pvalue for n in range(LANGUAGES)]
    found = {language: row["holm_p"] for language, row in verdict.evidence["by_language"].items()}
    assert found == pytest.approx({f"l{n}": p for n, p in enumerate(stats.holm(raw))})


def test_a_loss_that_only_an_uncorrected_test_would_call_one_does_not_fail() -> None:
    """The lowest of eleven raw p values lies below 2.5 %: by chance one does in every fourth unchanged arm."""
    before, after = answers(5), answers(6, {0: 0.16})
    verdict = guarded(samples_of(before), samples_of(after, arm="r8"))
    raw = min(scipy_stats.ttest_1samp(after[:, n] - before[:, n], -0.08, alternative="less").pvalue for n in range(LANGUAGES))
    assert raw < 0.025 < 11 * raw
    assert verdict.verdict == "pass"


def test_a_rise_of_what_should_stay_low_counts_as_a_loss() -> None:
    gate = GUARD.model_copy(update={"metric": "truncation"})
    before, after = samples_of(np.ones((PROBLEMS, 2))), samples_of(np.ones((PROBLEMS, 2)), arm="r8")
    cut = after.assign(outcome=np.where(after["language"] == "l1", "truncated", after["outcome"]))
    assert guarded(before, cut, gate).verdict == "fail"
    assert guarded(cut.assign(arm="base"), before.assign(arm="r8"), gate).verdict == "pass"


def test_problems_that_all_agree_have_the_p_value_of_what_they_could_hide() -> None:
    comparison = compare(samples_of(np.ones((100, 1))), samples_of(np.zeros((100, 1)), arm="r8"), **WHERE, metric="accuracy")
    assert comparison.se == 0
    assert p_value(comparison, 0.08) == pytest.approx(0.08**100)
    edge = stats.unseen_share(100)
    shifted = dataclasses.replace(comparison, delta=-0.08 - edge)
    assert p_value(shifted, 0.08) == pytest.approx(0.025)
    assert p_value(dataclasses.replace(comparison, delta=-0.08), 0.08) == 1


def test_a_language_that_is_missing_or_too_small_is_invalid() -> None:
    before, after = samples_of(answers(1)), samples_of(answers(2), arm="r8")
    assert guarded(before, after[after["language"] != "l3"]).verdict == "invalid"
    few = [frame[~((frame["language"] == "l3") & (frame["item_id"] >= "i0050"))] for frame in (before, after)]
    verdict = guarded(*few)
    assert (verdict.verdict, verdict.reasons) == ("invalid", ("l3: 50 problems are too few: this gate needs at least 100",))


def test_a_comparison_that_was_not_made_in_each_language_is_invalid() -> None:
    before, after = samples_of(answers(1)), samples_of(answers(2), arm="r8")
    each = compare_languages(before, after, **WHERE, metric="accuracy")
    whole = compare(before, after, **WHERE, metric="accuracy")
    assert judge_languages(whole, each[1:], GUARD).verdict == "invalid"
    assert judge_languages(whole, [], GUARD).verdict == "invalid"
