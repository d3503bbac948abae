"""Claims about the Pareto set: who is in it, and how sure that is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.pareto import pareto_points, undominated


def samples(points: dict[tuple[str, str], tuple[float, float]], problems: int = 200, seed: int = 1) -> pd.DataFrame:
    """One answer a problem; (accuracy, tokens) of each (arm, effort)."""
    rng, rows = np.random.default_rng(seed), []
    for (arm, effort), (accuracy, tokens) in points.items():
        for problem in range(problems):
            right = float(rng.random() < accuracy)
            outcome = "correct" if right else "wrong"
            spent = tokens + float(rng.integers(-3, 4))
            rows.append({"arm": arm, "effort": effort, "item_id": str(problem), "score": right, "outcome": outcome, "output_tokens": spent})
    return pd.DataFrame(rows)


def test_a_point_that_another_beats_in_both_is_not_in_the_set() -> None:
    accuracy, cost = np.array([[0.5, 0.8, 0.7, 0.8]]), np.array([[10.0, 20.0, 30.0, 20.0]])
    assert undominated(accuracy, cost).tolist() == [[True, True, False, True]]  # equal points stand side by side


def test_clear_points_are_sure_and_close_ones_are_not() -> None:
    made = samples({("a", "low"): (0.3, 10), ("a", "high"): (0.9, 50), ("b", "high"): (0.5, 90), ("c", "high"): (0.9, 50)})
    found = {(point.arm, point.effort): point for point in pareto_points(made, "output_tokens")}
    assert found["a", "low"].share == 1.0
    assert (found["b", "high"].is_member, found["b", "high"].share) == (False, 0.0)
    close = [found[arm, "high"].share for arm in "ac"]
    assert all(0.0 < share < 1.0 for share in close)
    assert sum(close) > 0.95
    assert found["a", "low"].problems == 200


def test_shares_do_not_depend_on_the_order_of_rows() -> None:
    made = samples({("a", "low"): (0.5, 10), ("b", "low"): (0.55, 10.5)})
    assert pareto_points(made, "output_tokens") == pareto_points(made.sample(frac=1, random_state=2), "output_tokens")


def test_only_problems_that_all_answered_count() -> None:
    made = samples({("a", "low"): (0.5, 10), ("b", "low"): (0.5, 20)}, problems=50)
    made.loc[(made["arm"] == "a") & (made["item_id"] == "7"), ["outcome", "score"]] = ["error", np.nan]
    assert {point.problems for point in pareto_points(made, "output_tokens")} == {49}


@pytest.mark.parametrize("kept", [0, 1])
def test_too_few_problems_give_no_points(kept: int) -> None:
    made = samples({("a", "low"): (0.5, 10)}, problems=2)
    assert pareto_points(made[made["item_id"].astype(int) < kept], "output_tokens") == []
