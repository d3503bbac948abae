"""Cells as the report reads them: one summary a metric x arm x data x effort, over all languages or in one.

The numbers are bench.comparison's; this only makes them quick to look up and computes each table once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd

from bench.comparison import cell_table, compare, effort_table
from bench.pareto import ParetoPoint, pareto_points
from bench.records import OUTCOMES, Comparison

ALL = "\x00all"
"""Stands for all languages together; no language is named so."""

PARETO_COLUMNS = ["arm", "effort", "item_id", "score", "outcome", "output_tokens", "latency_s"]

Key = tuple[str, str, str, str, str]
"""arm, suite, split, language or ALL, effort."""


@dataclass(frozen=True, slots=True)
class CellSummary:
    """One metric of one cell."""

    mean: float
    low: float | None
    """Ends of the 95 % interval; None where there are too few problems for one."""
    high: float | None
    n: int
    """Answers."""
    clusters: int
    """Problems."""
    outcomes: dict[str, float] = field(default_factory=dict)
    """Share of each outcome."""


class Cells:
    """All cells of a run's samples. A cell without any value of a metric is None."""

    def __init__(self, samples: pd.DataFrame, reference: str = "base") -> None:
        """Keep the samples; nothing is computed before it is asked for. Changes are against the arm `reference`."""
        self._samples = samples
        self._reference = reference
        self._overall: dict[str, dict[Key, CellSummary]] = {}
        self._by_language: dict[str, dict[Key, CellSummary]] = {}
        self._groups: dict[Key, pd.DataFrame] = {}
        self._pareto: dict[tuple[str, str, str], list[ParetoPoint]] = {}

    def overall(self, metric: str, arm: str, suite: str, split: str, effort: str) -> CellSummary | None:
        """Over all languages: the mean over problems of each problem's mean."""
        if metric not in self._overall:
            self._overall[metric] = _summaries(effort_table(self._samples, metric).assign(language=ALL))
        return self._overall[metric].get((arm, suite, split, ALL, effort))

    def language(self, metric: str, arm: str, suite: str, split: str, language: str, effort: str) -> CellSummary | None:
        """In one language."""
        return self._languages(metric).get((arm, suite, split, language, effort))

    def has(self, metric: str, arm: str, suite: str, split: str) -> bool:
        """Whether any cell of this arm on this data has the metric."""
        return any(key[:3] == (arm, suite, split) for key in self._languages(metric))

    def language_change(self, metric: str, arm: str, suite: str, split: str, language: str, effort: str) -> Comparison | None:
        """The arm against the reference in one language, paired by problem; None where either has no such cell."""
        before, after = (self._group((name, suite, split, language, effort)) for name in (self._reference, arm))
        if before is None or after is None:
            return None
        return compare(before, after, suite=suite, split=split, effort=effort, metric=metric)

    def pareto(self, cost: str, suite: str, split: str) -> list[ParetoPoint]:
        """Every arm and effort on this data, by accuracy and `cost`; drawn again once, for figure and table alike."""
        key = (cost, suite, split)
        if key not in self._pareto:
            here = (self._samples["suite"] == suite) & (self._samples["split"] == split)
            self._pareto[key] = pareto_points(self._samples.loc[here, PARETO_COLUMNS], cost)
        return self._pareto[key]

    def _group(self, key: Key) -> pd.DataFrame | None:
        if not self._groups:
            grouped = self._samples.groupby(["arm", "suite", "split", "language", "effort"], observed=True, sort=False)
            self._groups = {_key(*map(str, names)): group for names, group in grouped}
        return self._groups.get(key)

    def _languages(self, metric: str) -> dict[Key, CellSummary]:
        if metric not in self._by_language:
            self._by_language[metric] = _summaries(cell_table(self._samples, metric))
        return self._by_language[metric]


def _key(arm: str, suite: str, split: str, language: str, effort: str) -> Key:
    return arm, suite, split, language, effort


def _summaries(table: pd.DataFrame) -> dict[Key, CellSummary]:
    found: dict[Key, CellSummary] = {}
    for row in table.to_dict("records"):
        if not math.isfinite(row["mean"]):
            continue
        key = _key(*(str(row[name]) for name in ("arm", "suite", "split", "language", "effort")))
        shares: dict[str, float] = {outcome: float(row[outcome]) for outcome in OUTCOMES}
        low, high = _end(row["low"]), _end(row["high"])
        found[key] = CellSummary(float(row["mean"]), low, high, int(row["n"]), int(row["clusters"]), shares)
    return found


def _end(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
