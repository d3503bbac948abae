"""Samples and the languages that the fine-tuning rows reason in -> the change in those languages and in the others, apart.

A gain in the languages trained on says nothing of the rest, and one mean over all hides a loss in either. The unit of inference stays
the problem: within a group it counts once, averaged over the group's languages.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

import pandas as pd

from bench.comparison import compare
from bench.records import Comparison

Group = Literal["trained", "not trained"]


class GroupChange(NamedTuple):
    """An arm against base in one group of languages."""

    group: Group
    languages: tuple[str, ...]
    comparison: Comparison


def compare_by_training(
    samples: pd.DataFrame, taught: Collection[str], *, arm: str, suite: str, split: str, effort: str, metric: str
) -> list[GroupChange]:
    """The arm minus base, in the trained languages and in the others; a group without samples is left out.

    `taught` holds language codes. A group that cannot be compared says why in its comparison's `invalid_because`.
    """
    here = samples[(samples["suite"] == suite) & (samples["split"] == split) & (samples["effort"] == effort)]
    here = here[here["arm"].isin(("base", arm))]
    is_taught = here["language"].isin(set(taught))
    found: list[GroupChange] = []
    groups: tuple[tuple[Group, pd.DataFrame], ...] = (("trained", here[is_taught]), ("not trained", here[~is_taught]))
    for group, rows in groups:
        if rows.empty:
            continue
        before, after = rows[rows["arm"] == "base"], rows[rows["arm"] == arm]
        comparison = compare(before, after, suite=suite, split=split, effort=effort, metric=metric)
        found.append(GroupChange(group, tuple(sorted(map(str, rows["language"].unique()))), comparison))
    return found
