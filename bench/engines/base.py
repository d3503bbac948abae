"""What every engine takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.records import StopReason


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt to continue."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0
    """With the number of the token, the only source of this row's randomness: its neighbours do not matter."""


@dataclass(frozen=True, slots=True)
class Generation:
    """How one row was continued."""

    index: int
    """Position of its row in the sequence given to `generate`."""
    tokens: tuple[int, ...]
    """Generated ids, the stop token included."""
    stop_reason: StopReason
    latency_s: float
    """From entering the engine's slots to the last token."""
    ttft_s: float
    """From entering the engine's slots to the first token."""


class Engine(Protocol):
    """Continues rows. `name` stands in the record and in the cell key: another engine may round differently."""

    name: str
    slots: int
    model_s: float
    """Seconds spent inside model calls so far."""

    def generate(self, rows: Sequence[Row]) -> Iterator[Generation]:
        """Continue every row; each is yielded as soon as it ends."""
        ...
