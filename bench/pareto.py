"""Which combinations of arm and effort no other beats in both accuracy and cost, and how sure that is.

A point is in the Pareto set where no other is at least as accurate and at least as cheap, and better in one of the two. Its uncertainty
is that of the problems: they are drawn again with replacement, all points on the same draw, and the share of draws that have the point
in the set is reported.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.comparison import metric_values, share_estimate
from bench.stats import Interval

DRAWS, AT_ONCE, SEED = 1000, 50, 20_250_805

Array = NDArray[np.float64]


class ParetoPoint(NamedTuple):
    """One arm at one effort."""

    arm: str
    effort: str
    accuracy: float
    """Mean over the problems that every point answered, each problem once."""
    cost: float
    """Of an answer, over the same problems, in the metric's unit."""
    is_member: bool
    """Whether it is in the set, as measured."""
    share: float
    """Of the draws that have it in the set."""
    problems: int
    accuracy_ci: Interval
    """95 %, over the same problems."""
    cost_ci: Interval


def pareto_points(samples: pd.DataFrame, cost: str) -> list[ParetoPoint]:
    """Every arm x effort of samples of one suite and split. Empty where fewer than two problems were answered by all of them."""
    keys = ["item_id", "arm", "effort"]
    frame = samples[keys].assign(accuracy=metric_values(samples, "accuracy"), cost=metric_values(samples, cost))
    right, spent = (
        frame.pivot_table(index="item_id", columns=["arm", "effort"], values=name, observed=True) for name in ("accuracy", "cost")
    )
    points = [point for point in right.columns if point in spent.columns]
    whole = right.index[right[points].notna().all(axis=1)].intersection(spent.index[spent[points].notna().all(axis=1)])
    if not points or len(whole) < 2:
        return []
    accuracy, price = (table.loc[whole, points].to_numpy(dtype=float) for table in (right, spent))
    member = undominated(accuracy.mean(axis=0)[None], price.mean(axis=0)[None])[0]
    shares = _shares(accuracy, price)
    found = []
    for at, (arm, effort) in enumerate((str(point[0]), str(point[1])) for point in points):
        right_here, spent_here = share_estimate(accuracy[:, at]), stats.mean_interval(price[:, at])
        found.append(
            ParetoPoint(
                arm,
                effort,
                right_here.mean,
                spent_here.mean,
                bool(member[at]),
                float(shares[at]),
                len(whole),
                right_here.interval,
                spent_here.interval,
            )  # fmt: skip
        )
    return found


def undominated(accuracy: Array, cost: Array) -> NDArray[np.bool_]:
    """Shape (draws, points) each; True where no other point of the draw is as good in both and better in one."""
    as_good = (accuracy[:, None, :] >= accuracy[:, :, None]) & (cost[:, None, :] <= cost[:, :, None])
    better = (accuracy[:, None, :] > accuracy[:, :, None]) | (cost[:, None, :] < cost[:, :, None])
    return np.asarray(~(as_good & better).any(axis=2))


def _shares(accuracy: Array, cost: Array) -> Array:
    rng, problems = np.random.default_rng(SEED), len(accuracy)
    found = np.zeros(accuracy.shape[1])
    for _ in range(DRAWS // AT_ONCE):
        weights = rng.multinomial(problems, np.full(problems, 1 / problems), size=AT_ONCE) / problems
        found += undominated(weights @ accuracy, weights @ cost).sum(axis=0)
    return found / DRAWS
