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
    """Fewer where the model's context ends before."""
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
    latency_s: float | None
    """From entering the engine's slots to the last token; None where nothing was generated, or `error` says why the row did not end."""
    ttft_s: float | None
    """From entering the engine's slots to the first token; None as above."""
    error: str | None = None
    """Why the row could not be continued to its end, where stop_reason is `error`: no fault of one row is raised."""


class Engine(Protocol):
    """Continues rows. `name` and `slots` stand in the record: other engines, and other numbers of rows, may round otherwise."""

    name: str
    model_s: float
    """Seconds spent so far in model calls and in choosing tokens by what they say; on CUDA until the tokens are on the host."""

    @property
    def slots(self) -> int:
        """Rows side by side at most; fewer than were asked for once memory has run out."""
        ...

    @property
    def halvings(self) -> int:
        """How often memory ran out, and half the rows were run side by side from then on."""
        ...

    def generate(self, rows: Sequence[Row]) -> Iterator[Generation]:
        """Continue every row; each is yielded as soon as it ends."""
        ...
