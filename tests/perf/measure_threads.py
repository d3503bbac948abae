"""What torch threads inside one process are worth on a CPU: the same rows in slots, with one thread and with two, in turn.

    python tests/perf/measure_threads.py [ROUNDS] [ITEMS]

Prints wall seconds, CPU seconds and tokens of every turn; asserts nothing. On a busy machine the second thread waits, spinning.
"""

from __future__ import annotations

import sys
import time

import torch

from bench.catalog import find_suite
from bench.engines.choose import choose_engine
from bench.experiment import load_experiment
from bench.lm import Ask, list_requests
from bench.models import EMBEDDED, load_checked, load_tokenizer


def main(rounds: int, items: int) -> None:
    tokenizer, model = load_tokenizer(EMBEDDED), load_checked(EMBEDDED, "float32").eval()
    ask = Ask("base", find_suite("stories"), "dev", ["en"], load_experiment("embedded").evaluate, items)
    rows = [one.row for one in list_requests(ask, tokenizer)]
    print(f"torch {torch.__version__}, {len(rows)} rows in 64 slots")
    for number in range(rounds):
        for threads in (1, 2) if number % 2 else (2, 1):
            torch.set_num_threads(threads)
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            tokens = sum(len(one.tokens) for one in choose_engine(model, tokenizer, 64).generate(rows))
            wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
            print(f"{threads} threads: {wall_s:.1f} s, {cpu_s:.1f} s of CPU time, {tokens:,} tokens", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, int(sys.argv[2]) if len(sys.argv) > 2 else 12)
