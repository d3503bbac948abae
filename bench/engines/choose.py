"""Slots where the model lets them see every layer; transformers' generate where it does not, in batches if padding changes nothing."""

from __future__ import annotations

from typing import Any

from bench.engines.base import Engine, Row
from bench.engines.graphs import Recorder, cuda_graphs
from bench.engines.padding import padding_is_harmless
from bench.engines.plain import GenerateEngine
from bench.engines.slots import SlotEngine, SlotsUnsupportedError
from bench.harmony import find_specials


def choose_engine(model: Any, tokenizer: Any, slots: int, *, may_graph: bool = True) -> Engine:
    """Try two tokens in slots; the name of the engine, and how many rows it runs side by side, go into the record.

    On CUDA decode steps are graphs where the model's can be recorded, and `may_graph` allows it: their tokens come several at once, so
    whoever times single answers does not.
    """
    stop_ids = find_specials(tokenizer).stop_ids
    recorder = cuda_graphs if may_graph and model.device.type == "cuda" else None
    try:
        if recorder is not None and not _runs(model, slots, recorder):
            recorder = None
        if recorder is None:
            _try(model, 1, None)
    except SlotsUnsupportedError:
        return GenerateEngine(model, stop_ids, slots if slots > 1 and padding_is_harmless(model) else 1)
    return SlotEngine(model, stop_ids, slots, recorder=recorder)


def _runs(model: Any, slots: int, recorder: Recorder) -> bool:
    """Whether steps can be recorded: one that waits for the host, as experts that are counted there do, cannot."""
    try:
        _try(model, slots, recorder)
    except RuntimeError:
        return False
    return True


def _try(model: Any, slots: int, recorder: Recorder | None) -> None:
    """Raises SlotsUnsupportedError where the model bypasses the slots."""
    list(SlotEngine(model, frozenset(), slots, recorder=recorder).generate([Row(prompt=(0,), max_new_tokens=2)] * slots))
