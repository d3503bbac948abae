"""Several samples an item -> pass@k and the majority's vote. Pure.

pass@k is the chance that at least one of k answers is right, estimated without bias from n >= k samples (Chen et al. 2021,
arXiv 2107.03374). The majority's vote takes the answer given most often; an answer that could not be read does not vote.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.comparison import EFFORT_KEYS, share_estimate
from bench.stats import Array, MeanEstimate

ASKED = [*EFFORT_KEYS, "item_id", "language"]
"""What names a question; its samples are repeats."""


class Repeats(NamedTuple):
    """One arm, suite, split and effort, over all languages; intervals are clustered by problem."""

    arm: str
    suite: str
    split: str
    effort: str
    samples: int
    """Samples a question: the fewest that any has, faults left out."""
    pass_at: dict[int, MeanEstimate]
    majority: MeanEstimate


def pass_at_k(n: Array, right: Array, k: int) -> Array:
    """1 - C(n - right, k) / C(n, k), for each question. Raises ValueError where a question has fewer than k samples."""
    n, right = np.asarray(n, dtype=float), np.asarray(right, dtype=float)
    if k < 1 or (n < k).any():
        raise ValueError(f"pass@{k} needs at least {max(k, 1)} samples a question; found {n.min():g}")
    missed = np.ones(n.shape)
    for drawn in range(k):
        missed *= np.maximum(n - right - drawn, 0) / (n - drawn)
    return np.asarray(1 - missed)


def majority_votes(samples: pd.DataFrame) -> pd.Series[float]:
    """Score of the answer given most often, by question; the mean where several are tied, 0 where no answer could be read."""
    votes = samples[samples["answer"].notna()].groupby([*ASKED, "answer"], observed=True)["score"].agg(["size", "mean"])
    most = votes.groupby(level=ASKED, observed=True)["size"].transform("max")
    winners = votes.loc[votes["size"] == most, "mean"].groupby(level=ASKED, observed=True).mean()
    asked = samples.groupby(ASKED, observed=True).size().index
    return winners.reindex(asked, fill_value=0.0)


def repeat_table(samples: pd.DataFrame) -> list[Repeats]:
    """For every arm, suite, split and effort whose questions were asked more than once; k is 1, 2, 4, ... and all samples."""
    scored = samples[samples["outcome"] != "error"]
    questions = scored.assign(right=scored["score"] == 1).groupby(ASKED, observed=True)["right"].agg(["size", "sum"])
    if questions.empty or questions["size"].max() < 2:
        return []
    questions["majority"] = majority_votes(scored)
    made = []
    for (arm, suite, split, effort), group in questions.groupby(level=EFFORT_KEYS, observed=True):
        fewest = int(group["size"].min())
        if fewest > 1:
            steps = sorted({2**power for power in range(fewest.bit_length())} | {fewest})
            sizes, right = (group[name].to_numpy(dtype=float) for name in ("size", "sum"))
            pass_at = {k: _over_problems(group, pass_at_k(sizes, right, k)) for k in steps}
            majority = _over_problems(group, group["majority"].to_numpy(dtype=float))
            made.append(Repeats(str(arm), str(suite), str(split), str(effort), fewest, pass_at, majority))
    return made


def _over_problems(group: pd.DataFrame, values: Array) -> MeanEstimate:
    by_problem = pd.Series(values, index=group.index).groupby(level="item_id", observed=True).mean()
    return share_estimate(np.asarray(by_problem, dtype=np.float64))
