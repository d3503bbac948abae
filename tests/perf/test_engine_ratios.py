"""Our engine against the others, in alternated rounds of fresh processes: `pytest -m bench tests/perf/test_engine_ratios.py`.

A ratio is one of tokens a second, in seconds of the processes' own time; the median of the rounds is held against its bar. lm-eval's
backend is taken at the batch size, of 1, 8 and 32, that is its best, and ours at 64 or 96 slots. How malloc is set matters to lm-eval,
whose cache is copied at every step: the bar is for malloc as it comes, and the ratio to the tuned one stands beside it in the JSON
(`--benchmark-json FILE`).
Idle, the whole takes about an hour; `-k 84` leaves out the sets of 300 rows.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.bench

SCRIPT = Path(__file__).with_name("one_engine.py")
ROUNDS = int(os.environ.get("EFFORTBENCH_ROUNDS", "3"))
TUNED = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**28), "MALLOC_ARENA_MAX": "1"}
THEIRS = ("lm-eval-1", "lm-eval-8", "lm-eval-32")
OURS = ("slots-64", "slots-96")


def tokens_per_s(engine: str, model: str, rows: int, **environment: str) -> float:
    command = [sys.executable, str(SCRIPT), engine, model, str(rows)]
    told = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True, check=True)
    measured = json.loads(told.stdout.splitlines()[-1])
    return float(measured["tokens"] / measured["cpu_s"])


@cache
def quickest(engines: tuple[str, ...], model: str, rows: int) -> str:
    """Which of them makes the most tokens a second, each tried once."""
    return max(engines, key=lambda engine: tokens_per_s(engine, model, rows))


def alternate(benchmark: Any, ours: str, theirs: dict[str, tuple[str, dict[str, str]]], model: str, rows: int) -> dict[str, float]:
    """Median ratio of our tokens a second to theirs, by name."""
    ratios: dict[str, list[float]] = {name: [] for name in theirs}

    def one_round() -> None:
        speed = tokens_per_s(ours, model, rows)
        for name, (engine, environment) in theirs.items():
            ratios[name].append(speed / tokens_per_s(engine, model, rows, **environment))

    benchmark.pedantic(one_round, rounds=ROUNDS)
    benchmark.extra_info.update(
        {"ours": ours, "theirs": {name: engine for name, (engine, _) in theirs.items()}, "model": model, "rows": rows}
    )
    benchmark.extra_info["ratios"] = {name: [round(ratio, 2) for ratio in each] for name, each in ratios.items()}
    return {name: statistics.median(each) for name, each in ratios.items()}


@pytest.mark.parametrize("model", ["6.8M", "embedded"])
@pytest.mark.parametrize(("rows", "bar"), [(84, 4.5), (300, 5.5)])
def test_slots_against_lm_evals_hf_backend_at_its_best_batch(model: str, rows: int, bar: float, benchmark: Any) -> None:
    ours, theirs = quickest(OURS, model, rows), quickest(THEIRS, model, 84)
    ratio = alternate(benchmark, ours, {"default malloc": (theirs, {}), "tuned malloc": (theirs, TUNED)}, model, rows)
    assert ratio["default malloc"] >= bar


@pytest.mark.parametrize("model", ["6.8M", "embedded"])
def test_slots_against_transformers_continuous_batching(model: str, benchmark: Any) -> None:
    ratio = alternate(benchmark, "slots-32", {"continuous": ("continuous-32", {})}, model, 84)
    assert ratio["continuous"] >= 4


@pytest.mark.parametrize("model", ["6.8M", "embedded"])
def test_one_slot_against_generate_at_batch_1(model: str, benchmark: Any) -> None:
    ratio = alternate(benchmark, "slots-1", {"generate": ("generate-1", {})}, model, 24)
    assert ratio["generate"] >= 1.3


@pytest.mark.parametrize("model", ["6.8M", "embedded"])
def test_batches_of_generate_are_no_slower_than_its_rows_one_by_one(model: str, benchmark: Any) -> None:
    """The way out where slots cannot be used; here its rows are given their lengths, so that batches of like limits waste little."""
    ratio = alternate(benchmark, "generate-32", {"one by one": ("generate-1", {})}, model, 84)
    assert ratio["one by one"] >= 1.0
