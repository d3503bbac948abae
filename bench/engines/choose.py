"""Slots where the model lets them see every layer; transformers' generate where it does not, in batches if padding changes nothing."""

from __future__ import annotations

from typing import Any

from bench.engines.base import Engine, Row
from bench.engines.padding import padding_is_harmless
from bench.engines.plain import GenerateEngine
from bench.engines.slots import SlotEngine, SlotsUnsupportedError
from bench.harmony import find_specials


def choose_engine(model: Any, tokenizer: Any, slots: int) -> Engine:
    """Try one token in slots; the name of the engine, and how many rows it runs side by side, go into the record."""
    stop_ids = find_specials(tokenizer).stop_ids
    probe = SlotEngine(model, stop_ids, slots=1)
    try:
        list(probe.generate([Row(prompt=tuple(sorted(stop_ids))[:1], max_new_tokens=1)]))
    except SlotsUnsupportedError:
        return GenerateEngine(model, stop_ids, slots if slots > 1 and padding_is_harmless(model) else 1)
    return SlotEngine(model, stop_ids, slots)
