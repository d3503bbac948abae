"""A few rows asked in two ways -> how far the ways differ: the noise that every score of a run carries.

Three checks: `batch`, rows side by side against transformers' generate one by one; `repeat`, the same rows side by side twice; `merge`,
the adapter beside the weights against inside them. Where two answers part, one forward of the model, without engine or cache, says how
far apart it holds the two tokens: two that tie within rounding may fall either way, two that do not tell of a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.engines.base import Engine, Row
from bench.errors import ArmError

TIE_NATS = 1e-3
"""Two tokens whose log-probabilities are closer than this tie in float32: rounding moves them by some 1e-5, a fault by far more."""

Answers = list[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two ways of asking the same rows differ."""

    rows: int
    tokens: int
    """Of the first way."""
    differing: int
    """Rows whose tokens are not all the same."""
    first_token: int | None
    """Number of the first token that differs, from 0, the lowest over rows; None where none does."""
    max_gap: float | None
    """Largest difference of the log-probabilities of two tokens where answers part, in nats; None where none part, and infinite where
    one answer ends and the other goes on."""


def answer(engine: Engine, rows: Sequence[Row]) -> Answers:
    """Tokens of every row, in the order of the rows."""
    done = {generation.index: generation.tokens for generation in engine.generate(rows)}
    return [done[index] for index in range(len(rows))]


def differ(model: Any, rows: Sequence[Row], first: Answers, second: Answers) -> Difference:
    """Compare two ways; `model` says how far apart it holds the tokens where they part."""
    partings = [(row, one, _parting(one, other), other) for row, one, other in zip(rows, first, second, strict=True) if one != other]
    gaps = [_gap(model, row, one, place, other) for row, one, place, other in partings]
    return Difference(
        rows=len(rows),
        tokens=sum(map(len, first)),
        differing=len(partings),
        first_token=min((place for _, _, place, _ in partings), default=None),
        max_gap=max(gaps, default=None),
    )


def refuse_fault(check: str, difference: Difference) -> None:
    """Raise ArmError where float32 answers part over tokens that do not tie: the engine, or the merge, computes another model."""
    if difference.max_gap is None or difference.max_gap <= TIE_NATS:
        return
    ways = {
        "batch": "rows generated side by side are not those of transformers' generate one by one",
        "repeat": "the same rows asked twice are not answered alike",
        "merge": "the merged adapter does not answer as it does beside the weights",
    }[check]
    raise ArmError(
        f"canary {check}: {ways}: {difference.differing} of {difference.rows} rows part, from token {difference.first_token} on, by up to "
        f"{difference.max_gap:.3g} nats; in float32 at most {TIE_NATS:g} is rounding. Scores of this arm would not be the model's"
    )


def _parting(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (token, twin) in enumerate(pairs) if token != twin), min(len(one), len(other)))


@torch.inference_mode()
def _gap(model: Any, row: Row, one: tuple[int, ...], place: int, other: tuple[int, ...]) -> float:
    if place >= min(len(one), len(other)):
        return float("inf")
    before = torch.tensor([[*row.prompt, *one[:place]]], device=model.device)
    logits = model(input_ids=before, attention_mask=torch.ones_like(before), use_cache=False).logits[0, -1]
    chances = logits.double().log_softmax(-1)
    return abs(float(chances[one[place]] - chances[other[place]]))
