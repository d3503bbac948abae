"""What cannot be done as it was asked: rows that the context, or their own limit, leaves no room, and a machine without memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bench.engines.base import Generation, Row

NO_NUMBERS = "the model's logits are not finite numbers"
NO_MEMORY = "out of memory, even with this row alone"


def context_of(model: Any) -> int | None:
    """Most tokens, prompt included, that the model's config knows positions for; None where it names no bound."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def room(row: Row, context: int | None) -> int:
    """How many tokens the row may get: its own limit, or what its prompt leaves of the context."""
    return row.max_new_tokens if context is None else min(row.max_new_tokens, context - len(row.prompt))


def plan(model: Any, rows: Sequence[Row]) -> tuple[dict[int, int], list[Generation]]:
    """Tokens that each row may get, by its place; and the ends of those that need no model, which are not among them.

    These are rows of which nothing is asked, or whose prompt leaves no room.
    """
    context, refused = context_of(model), []
    for index, row in enumerate(rows):
        if not row.prompt or (row.max_new_tokens > 0 and room(row, context) <= 0):
            why = f"a prompt of {len(row.prompt)} tokens leaves no room in a context of {context}" if row.prompt else "an empty prompt"
            refused.append(failed(index, why))
        elif row.max_new_tokens <= 0:
            refused.append(Generation(index, (), "length", None, None))
    ended = {generation.index for generation in refused}
    return {index: room(row, context) for index, row in enumerate(rows) if index not in ended}, refused


def failed(index: int, why: str, tokens: tuple[int, ...] = ()) -> Generation:
    """A row that could not be continued to its end."""
    return Generation(index, tokens, "error", None, None, why)


class Width:
    """How many rows run side by side: halved when memory runs out, and whole again once the row that it is too little for is known."""

    def __init__(self, asked: int):
        self.asked = self.now = asked
        self.halvings = 0

    def shrink(self) -> bool:
        """Free what memory can be freed and halve; False, and back to what was asked, where one row alone was too much."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.halvings += 1
        was_alone = self.now == 1
        self.now = self.asked if was_alone else self.now // 2
        return not was_alone


class LocalEngine:
    """What the engines of this machine have in common."""

    def __init__(self, model: Any, stop_ids: frozenset[int], slots: int):
        self.model = model
        self.stop_ids = stop_ids
        self.model_s = 0.0
        self._width = Width(slots)

    @property
    def slots(self) -> int:
        """Rows side by side at most."""
        return self._width.now

    @property
    def halvings(self) -> int:
        """How often memory ran out."""
        return self._width.halvings
