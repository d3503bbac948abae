"""Samples -> did effort take effect, and does an arm still think? Pure; what is found is a warning, and a gate only where one asks.

More effort should write more tokens, in every arm. And a fine-tuned model must not have lost its thought: an analysis channel that is
empty more often than base's, at the same effort, is the best known way for a gpt-oss fine-tune to break.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from bench.comparison import PairedEstimate, metric_values, paired_estimate
from bench.experiment import EFFORTS
from bench.records import Comparison


class EffortStep(NamedTuple):
    """Output tokens at one effort and at the next higher one that was asked, paired by problem."""

    arm: str
    suite: str
    split: str
    lower: str
    higher: str
    tokens: PairedEstimate
    """`before` is the lower effort's."""

    @property
    def rises(self) -> bool:
        """Whether the 95 % interval of the difference lies above 0."""
        return self.tokens.difference.interval.low > 0


def effort_steps(samples: pd.DataFrame) -> list[EffortStep]:
    """Every step of effort of every arm, suite and split; those with fewer than two problems at both efforts are left out."""
    keys = ["arm", "suite", "split"]
    frame = samples[[*keys, "effort", "item_id"]].assign(value=metric_values(samples, "output_tokens"))
    means = frame.groupby([*keys, "item_id", "effort"], observed=True)["value"].mean().unstack("effort")
    asked = [effort for effort in EFFORTS if effort in means.columns]
    steps = []
    for (arm, suite, split), table in means.groupby(level=keys, observed=True):
        seen = [effort for effort in asked if table[effort].notna().any()]
        for lower, higher in itertools.pairwise(seen):
            both = table[[lower, higher]].dropna()
            if len(both) > 1:
                tokens = paired_estimate(both[lower].to_numpy(), both[higher].to_numpy(), is_share=False)
                steps.append(EffortStep(str(arm), str(suite), str(split), lower, higher, tokens))
    return steps


def flat_steps(samples: pd.DataFrame) -> list[EffortStep]:
    """Steps of effort after which no more tokens are written, the worst first."""
    flat = [step for step in effort_steps(samples) if not step.rises]
    return sorted(flat, key=lambda step: step.tokens.difference.mean)


def emptied(comparisons: Iterable[Comparison], reference: str = "base") -> list[Comparison]:
    """Where the share of empty analysis channels has risen against the reference by more than chance, the worst first."""
    asked = (made for made in comparisons if made.metric == "empty_analysis" and made.against == reference)
    risen = [made for made in asked if made.ci and made.ci[0] > 0]
    return sorted(risen, key=lambda made: -(made.delta or 0.0))
