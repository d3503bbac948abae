"""Did effort take effect, and does an arm still think: on made-up samples where the answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.comparison import compare, metric_values, more_is_better
from bench.experiment import METRICS, Gate
from bench.gate import judge
from bench.records import Comparison
from bench.sanity import effort_steps, emptied, flat_steps

MEANS = {"low": 12.0, "medium": 60.0, "high": 300.0}


def samples(means: dict[str, float], arm: str = "base", problems: int = 40, empty: float = 0.0, seed: int = 1) -> pd.DataFrame:
    """Two languages a problem; `empty` is the share of answers without a thought."""
    rng = np.random.default_rng(seed)
    rows = []
    for effort, mean in means.items():
        for problem in range(problems):
            for language in ("de", "en"):
                tokens = max(1, round(rng.normal(mean, 0.2 * mean)))
                without = bool(rng.random() < empty)
                rows.append(
                    {
                        "arm": arm,
                        "suite": "sums",
                        "split": "test",
                        "language": language,
                        "effort": effort,
                        "item_id": f"{problem:03d}",
                        "sample_index": 0,
                        "outcome": "correct",
                        "score": 1.0,
                        "target": "1",
                        "reasoning_tokens": 0 if without else tokens,
                        "output_tokens": tokens,
                        "asked_reasoning_language": None,
                        "reasoning_language": None,
                        "prompt_hash": f"{problem}-{language}-{effort}",
                    }
                )
    return pd.DataFrame(rows)


def emptiness(before: pd.DataFrame, after: pd.DataFrame, effort: str = "medium") -> Comparison:
    return compare(before, after, suite="sums", split="test", effort=effort, metric="empty_analysis")


# --- effort


def test_tokens_that_rise_with_effort_are_no_warning() -> None:
    frame = pd.concat([samples(MEANS), samples(MEANS, "r8-s40", seed=2)])
    steps = effort_steps(frame)
    assert [(step.arm, step.lower, step.higher) for step in steps] == [
        (arm, *step) for arm in ("base", "r8-s40") for step in (("low", "medium"), ("medium", "high"))
    ]
    assert flat_steps(frame) == []
    difference = steps[0].tokens.difference
    wide = frame[frame["arm"] == "base"].groupby(["effort", "item_id"])["output_tokens"].mean().unstack("effort")
    assert difference.mean == pytest.approx((wide["medium"] - wide["low"]).mean())
    assert difference.clusters == 40


def test_a_step_that_adds_nothing_is_named_and_the_worst_comes_first() -> None:
    sunk = samples({"low": 60.0, "medium": 60.0, "high": 20.0}, "r8-s40")
    found = flat_steps(pd.concat([samples(MEANS), sunk]))
    assert [(step.arm, step.lower, step.higher) for step in found] == [("r8-s40", "medium", "high"), ("r8-s40", "low", "medium")]


def test_a_rise_within_chance_is_not_a_rise() -> None:
    assert len(flat_steps(samples({"low": 60.0, "high": 61.0}, problems=6))) == 1


def test_equal_tokens_everywhere_are_flat_and_an_equal_rise_is_one() -> None:
    frame = samples({"low": 10.0, "high": 10.0}).assign(output_tokens=10)
    assert [step.rises for step in effort_steps(frame)] == [False]
    frame.loc[frame["effort"] == "high", "output_tokens"] = 11
    assert [step.rises for step in effort_steps(frame)] == [True]


def test_an_effort_that_was_not_asked_is_stepped_over() -> None:
    (step,) = effort_steps(samples({"low": 10.0, "high": 100.0}))
    assert (step.lower, step.higher) == ("low", "high")


def test_where_nothing_can_be_told_nothing_is_said() -> None:
    assert effort_steps(samples(MEANS, problems=1)) == []
    assert effort_steps(samples({"low": 10.0})) == []
    assert effort_steps(samples(MEANS).iloc[:0]) == []
    faults = samples(MEANS).assign(outcome="error")
    assert effort_steps(faults) == []


# --- empty analysis


def test_empty_analysis_is_a_share_that_should_not_rise() -> None:
    assert "empty_analysis" in METRICS
    assert not more_is_better("empty_analysis")
    frame = samples(MEANS).head(4).assign(reasoning_tokens=[0, 5, None, 0], outcome=["correct", "wrong", "truncated", "error"])
    assert metric_values(frame, "empty_analysis").tolist()[:2] == [1.0, 0.0]
    assert metric_values(frame, "empty_analysis").isna().tolist() == [False, False, True, True]


def test_a_lost_thought_is_told_and_low_effort_that_never_thought_is_not() -> None:
    silent = samples({"low": 12.0}, empty=1.0)
    base, arm = (
        pd.concat([silent.assign(arm=name), samples({"medium": 60.0}, name, empty=share)]) for name, share in (("base", 0), ("r8", 0.4))
    )
    made = [emptiness(base, arm, effort) for effort in ("low", "medium")]
    assert [found.effort for found in emptied(made)] == ["medium"]


def test_a_rise_of_empty_channels_within_its_interval_is_not_told() -> None:
    base, arm = samples(MEANS, empty=0.05), samples(MEANS, "r8", empty=0.05, seed=3)
    assert emptied([emptiness(base, arm)]) == []


def test_a_gate_can_ask_that_the_model_still_thinks() -> None:
    gate = Gate(name="thinks", metric="empty_analysis", effort="medium", margin=0.1)
    base = samples(MEANS, problems=260)
    verdicts = [judge(emptiness(base, samples(MEANS, "r8", problems=260, empty=share)), gate).verdict for share in (0.0, 0.4)]
    assert verdicts == ["pass", "fail"]
