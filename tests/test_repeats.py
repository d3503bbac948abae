"""pass@k against counting by hand, and the majority's vote with ties, silence and faults."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from bench.repeats import majority_votes, pass_at_k, repeat_table


def samples(answers: dict[str, list[str | None]], target: str = "7", **columns: str) -> pd.DataFrame:
    """One question an entry, with these answers in order."""
    rows = [
        {
            "arm": "base",
            "suite": "sums",
            "split": "test",
            "language": "en",
            "effort": "high",
            "item_id": item,
            "sample_index": index,
            "outcome": "no_answer" if answer is None else "correct" if answer == target else "wrong",
            "score": float(answer == target),
            "answer": answer,
            **columns,
        }
        for item, given in answers.items()
        for index, answer in enumerate(given)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("n", "right"), [(4, 0), (4, 1), (4, 2), (4, 4), (6, 3)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n: int, right: int) -> None:
    outcomes = [1] * right + [0] * (n - right)
    for k in range(1, n + 1):
        draws = list(itertools.combinations(outcomes, k))
        assert pass_at_k(np.array([n]), np.array([right]), k)[0] == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_more_than_was_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="pass@5 needs at least 5 samples a question; found 4"):
        pass_at_k(np.array([8, 4]), np.array([1, 1]), 5)
    with pytest.raises(ValueError, match="pass@0"):
        pass_at_k(np.array([4]), np.array([1]), 0)


def test_the_majority_is_of_readable_answers() -> None:
    frame = samples(
        {
            "most": ["7", "7", "8", "9"],
            "outvoted": ["7", "8", "8", "8"],
            "tied": ["7", "8", "7", "8"],
            "one voice": [None, None, None, "7"],
            "silent": [None, None, None, None],
        }
    )
    votes = {item: float(score) for (*_, item, _language), score in majority_votes(frame).items()}
    assert votes == {"most": 1.0, "outvoted": 0.0, "tied": 0.5, "one voice": 1.0, "silent": 0.0}


def test_the_table_is_by_arm_and_effort_over_problems() -> None:
    answers: dict[str, list[str | None]] = {"a": ["7", "7", "7"], "b": ["7", "8", "8"], "c": ["8", None, "9"]}
    frame = pd.concat([samples(answers), samples({item: given[:1] * 3 for item, given in answers.items()}, arm="r8")])
    base, arm = repeat_table(frame)
    assert (base.arm, base.effort, base.samples, list(base.pass_at)) == ("base", "high", 3, [1, 2, 3])
    assert [base.pass_at[k].mean for k in (1, 2, 3)] == pytest.approx([4 / 9, 5 / 9, 2 / 3])
    assert base.majority.mean == pytest.approx(1 / 3)
    assert base.majority.clusters == 3
    assert arm.pass_at[1].mean == arm.pass_at[3].mean == pytest.approx(2 / 3)
    for estimate in (*base.pass_at.values(), base.majority):
        assert 0 <= estimate.interval.low <= estimate.mean <= estimate.interval.high <= 1


def test_faults_are_no_samples_and_single_samples_make_no_table() -> None:
    frame = samples({"a": ["7", "7", "8"], "b": ["8", "8", "8"]})
    frame.loc[0, ["outcome", "score"]] = ["error", None]
    (made,) = repeat_table(frame)
    assert (made.samples, made.pass_at[1].mean) == (2, 0.25)
    assert repeat_table(samples({"a": ["7"], "b": ["8"]})) == []
    assert repeat_table(frame.iloc[:0]) == []
