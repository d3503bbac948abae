"""How a CPU's cores are used best: torch threads inside a process, and processes side by side. Prints a table; asserts nothing.

    python tests/perf/measure_processes.py [ROUNDS]

Conditions alternate within a round, so that a machine's mood meets all of them. CPU seconds are those of the process and its children.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.catalog import find_suite
from bench.engines.choose import choose_engine
from bench.executors import LocalExecutor
from bench.experiment import load_experiment
from bench.jobs import EvaluateJob, PassSpec
from bench.lm import Ask, list_requests
from bench.models import EMBEDDED, load_checked, load_tokenizer

ITEMS = 6
ALONE = {"select": None, "confirm": None, "gates": [], "timing": None, "finetune": None}


def main(rounds: int) -> None:
    experiment = load_experiment("embedded").model_copy(update=ALONE)
    tokenizer, model = load_tokenizer(EMBEDDED), load_checked(EMBEDDED, "float32").eval()
    suite = find_suite("stories")
    asked = list_requests(Ask("base", suite, "dev", list(suite.languages), experiment.evaluate, ITEMS), tokenizer)
    rows = [one.row for one in asked]

    def generate(threads: int) -> Callable[[], int]:
        def work() -> int:
            torch.set_num_threads(threads)
            return sum(len(one.tokens) for one in choose_engine(model, tokenizer, 64).generate(rows))

        return work

    def evaluate(workers: int, arms: int) -> Callable[[], int]:
        def work() -> int:
            spec = PassSpec(suite=suite.source, split="dev", languages=tuple(suite.languages))
            jobs = [
                EvaluateJob(name=f"arm-{arm}", experiment=experiment, base=EMBEDDED, arm="base", adapter=None, passes=(spec,), limit=ITEMS)
                for arm in range(arms)
            ]
            tokens: list[int] = []
            with tempfile.TemporaryDirectory() as logs:
                failures = LocalExecutor(workers, Path(logs)).run(
                    jobs, lambda _, event: tokens.append(event["phase"]["output_tokens"]) if event["event"] == "phase" else None
                )
            assert not failures, failures
            return sum(tokens)

        return work

    conditions = {
        f"{len(rows)} rows in 64 slots, 1 torch thread": generate(1),
        f"{len(rows)} rows in 64 slots, 2 torch threads": generate(2),
        f"2 arms of {len(rows)} rows, 1 worker process": evaluate(1, 2),
        f"2 arms of {len(rows)} rows, 2 worker processes": evaluate(2, 2),
    }
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in conditions}
    for number in range(rounds + 1):
        for name, work in conditions.items():
            wall_s, cpu_s = time.perf_counter(), _cpu_s()
            tokens = work()
            wall_s, cpu_s = time.perf_counter() - wall_s, _cpu_s() - cpu_s
            if number:  # the first round warms up
                measured[name].append((wall_s, cpu_s, tokens / wall_s))
    cores = len(os.sched_getaffinity(0))
    print(f"torch {torch.__version__}, {cores} cores, {rounds} rounds: medians of seconds, CPU seconds, tokens a second")
    for name, values in measured.items():
        print(f"{name:50} " + " ".join(f"{statistics.median(column):9.1f}" for column in zip(*values, strict=True)))


def _cpu_s() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
