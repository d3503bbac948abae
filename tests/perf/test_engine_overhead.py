"""What an evaluation costs beside its model, and how the cost grows: `pytest -m bench tests/perf/test_engine_overhead.py`.

Seconds are the process's own, so that a busy machine hardly counts.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from one_engine import load
from test_lm import Pass, tokenizer

from bench.engines import Row
from bench.engines.slot_cache import SlotCache
from bench.engines.slots import SlotEngine
from bench.harmony import find_specials
from bench.models import EMBEDDED, load_checked

pytestmark = pytest.mark.bench

LANGUAGES = ("en", "de", "fr", "es", "it")
LIMITS = {"low": 48, "medium": 160, "high": 256}
MOST_OUTSIDE = 0.03
MOST_BEYOND_LINEAR = 0.10
MOST_GROWTH_BYTES = 64 * 2**20


class Stopwatch:
    """Adds up the seconds spent in the functions it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.process_time() - started

        return timed


@contextmanager
def timed_bookkeeping() -> Iterator[Stopwatch]:
    """Masks, layouts and moves of slots; storing a key and a value is the model's own cost, as in a cache of transformers."""
    watch, names = Stopwatch(), ("begin", "move", "_decode_layout", "_prefill_layout", "_reserve")
    originals = {name: getattr(SlotCache, name) for name in names}
    for name, original in originals.items():
        setattr(SlotCache, name, watch.around(original))
    try:
        yield watch
    finally:
        for name, original in originals.items():
            setattr(SlotCache, name, original)


@pytest.mark.parametrize("name", ["6.8M", "embedded"])
def test_time_outside_model_calls(name: str, benchmark: Any) -> None:
    """Over 2,100 rows of the stories, loading their tasks, rendering, scoring, and the slots' bookkeeping inside the forward included."""
    torch.set_num_threads(1)
    model = load(name)
    engine = SlotEngine(model, find_specials(tokenizer()).stop_ids, 64)
    inside = Stopwatch()
    model.forward = inside.around(model.forward)
    shares = {}

    def evaluate() -> None:
        with timed_bookkeeping() as bookkeeping:
            started = time.process_time()
            done = Pass(
                engine,
                languages=LANGUAGES,
                limit=140,
                split="gate",
                efforts=["low", "medium", "high"],
                max_new_tokens={"low": 48, "medium": 160, "high": 256},
            )
            seconds = time.process_time() - started
        assert len(done.samples) == 2100
        shares["outside"] = 1 - inside.seconds / seconds
        shares["bookkeeping"] = bookkeeping.seconds / seconds

    benchmark.pedantic(evaluate, rounds=1)
    benchmark.extra_info.update({name: round(share, 4) for name, share in shares.items()})
    print(shares)
    assert shares["outside"] + shares["bookkeeping"] <= MOST_OUTSIDE


def test_cost_grows_with_the_rows_and_memory_does_not(benchmark: Any) -> None:
    torch.set_num_threads(1)
    model = load_checked(EMBEDDED, "float32").eval()
    vocabulary = model.config.vocab_size
    few = [Row(tuple((7 * number + place) % vocabulary for place in range(40)), 8 + 8 * (number % 4)) for number in range(48)]
    engine = SlotEngine(model, frozenset({vocabulary}), 16)

    def seconds(times: int) -> float:
        started = time.process_time()
        assert sum(1 for _ in engine.generate(few * times)) == 48 * times
        return time.process_time() - started

    seconds(1)  # the first calls of a process are slower
    costs: dict[int, list[float]] = {1: [], 4: [], 16: []}
    peaks = {}

    def one_round() -> None:
        for times, found in costs.items():
            found.append(seconds(times) / times)
            peaks.setdefault(times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

    benchmark.pedantic(one_round, rounds=2)
    a_time = {times: min(found) for times, found in costs.items()}
    benchmark.extra_info.update({"seconds_per_48_rows": {times: round(cost, 3) for times, cost in a_time.items()}, "peaks": peaks})
    print(a_time, peaks)
    assert max(a_time[4], a_time[16]) <= (1 + MOST_BEYOND_LINEAR) * a_time[1]
    assert peaks[16] - peaks[1] <= MOST_GROWTH_BYTES
