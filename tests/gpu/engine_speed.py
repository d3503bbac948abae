"""Tokens a second, peak memory and differing rows of every way to generate, on one GPU: one line of JSON an engine.

  engine_speed.py bf16                       gpt-oss-20b's full shape, random weights, built on the device
  engine_speed.py FOLDER                     a 4-bit model as Unsloth loads it, such as `effortbench fabricate --format bnb-4bit` writes
  engine_speed.py FOLDER --flex-attention    the same with the attention that Unsloth puts in place, which the slots do not see

Engines, each with `:ROWS` behind it where they are not `--rows`, and `:ROWS/N` for rows of an Nth of the length: slots-N and graphs-N
(slots whose decode steps are CUDA graphs), batches-N (what stands in where slots cannot be used), given-N (left-padded batches in the order
of the rows, as one writes generate by hand). Rows are of three efforts; how many tokens each takes is forced and told to no engine
beforehand. An engine named twice is measured twice, in its place. One that fails tells so and the next one runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

EFFORTS = ((48, 12), (160, 60), (320, 150))
"""Limit of an answer and mean of what it takes; `:ROWS/N` divides both."""
DEFAULT = ["slots-32", "slots-64", "graphs-32", "graphs-64", "batches-32", "batches-64", "given-32", "given-64"]


def load(asked: argparse.Namespace) -> Any:
    if asked.model == "bf16":
        from bench.fabricate import fabricate_in_memory

        return fabricate_in_memory(asked.shape)
    if asked.flex_attention:
        os.environ["UNSLOTH_ENABLE_FLEX_ATTENTION"] = "1"
    import unsloth  # noqa: F401  # patches transformers on import, so it must come first in this process

    from bench.experiment import Model
    from bench.models import HeldBase

    return HeldBase().adapted(Path(asked.model), Model(id=asked.model, load_in_4bit=True, dtype="bfloat16"), None)


def make_rows(count: int, vocabulary: int, shorter: int) -> tuple[list[Any], list[int]]:
    """Rows limited by their effort, in no order, and how many tokens each will take."""
    from bench.engines import Row

    draw = random.Random(5)
    rows, lengths = [], []
    for _ in range(count):
        limit, mean = (each // shorter for each in draw.choice(EFFORTS))
        rows.append(Row(tuple(draw.choices(range(vocabulary), k=draw.randint(60, 120))), limit))
        lengths.append(min(limit, 4 + int(draw.expovariate(1 / mean))))
    return rows, lengths


def make_engine(name: str, model: Any, lengths: Sequence[int] | None) -> Any:
    """`lengths` forces where rows end; None lets them run to their limits."""
    from bench.engines.graphs import cuda_graphs
    from bench.engines.plain import GenerateEngine
    from bench.engines.slots import SlotEngine

    class Slots(SlotEngine):
        def _stop_reason(self, entry: Any) -> Any:
            if lengths is None:
                return super()._stop_reason(entry)
            return "stop" if len(entry.tokens) >= lengths[entry.index] else None

    class Batches(GenerateEngine):
        def _continue(self, indices: Any, rows: Any, limits: Any) -> Any:
            return super()._continue(indices, rows, limits if lengths is None else [lengths[index] for index in indices])

    class Given(Batches):
        def generate(self, rows: Any) -> Any:
            for start in range(0, len(rows), self.slots):
                indices = range(start, min(start + self.slots, len(rows)))
                batch = [rows[index] for index in indices]
                yield from self._continue(indices, batch, [row.max_new_tokens for row in batch])

    kind, _, width = name.rpartition("-")
    never = frozenset({10**6})  # no token
    if kind == "graphs":
        return Slots(model, never, int(width), recorder=cuda_graphs)
    return {"slots": Slots, "batches": Batches, "given": Given}[kind](model, never, int(width))


def canary_rows(model: Any, asked: argparse.Namespace) -> list[Any]:
    rows, _ = make_rows(asked.canary_rows, model.config.get_text_config().vocab_size, 1)
    return [dataclasses.replace(row, max_new_tokens=asked.canary_tokens) for row in rows]


def measure(asked_name: str, model: Any, asked: argparse.Namespace) -> dict[str, Any]:
    import torch

    from bench.engines.canary import answer, differ

    name, _, work = asked_name.partition(":")
    count, _, shorter = work.partition("/")
    few = canary_rows(model, asked)
    rows, lengths = make_rows(int(count or asked.rows), model.config.get_text_config().vocab_size, int(shorter or 1))
    started = time.perf_counter()
    told = answer(make_engine(name, model, None), few)  # the first calls compile
    first_s = time.perf_counter() - started
    difference = differ(model, few, told, asked.reference)
    again = differ(model, few, told, answer(make_engine(name, model, None), few))
    seconds = []
    for _ in range(asked.rounds):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        started = time.perf_counter()
        made = sum(len(generation.tokens) for generation in make_engine(name, model, lengths).generate(rows))
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        assert made == sum(lengths), f"{made} tokens of {sum(lengths)}"
    best = sum(lengths) / min(seconds)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    limit = int(name.rpartition("-")[2]) * asked.bandwidth * 1e9 / weights
    return {
        "engine": name,
        "rows": len(rows),
        "shorter": int(shorter or 1),
        "first_s": round(first_s, 1),
        "tokens": sum(lengths),
        "tokens_per_s": [round(sum(lengths) / each, 1) for each in seconds],
        "share_of_bandwidth_limit": round(best / limit, 3),  # every step reads every weight once, and nothing else
        "peak_allocated_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "peak_reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2),
        "against_batch_1": dataclasses.asdict(difference),
        "against_itself": dataclasses.asdict(again),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--shape", default="gpt-oss-20b")
    parser.add_argument("--flex-attention", action="store_true")
    parser.add_argument("--engines", nargs="+", default=DEFAULT)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--canary-rows", type=int, default=16)
    parser.add_argument("--canary-tokens", type=int, default=32)
    parser.add_argument("--bandwidth", type=float, default=3350, help="of the card's memory, GB/s; an H100 SXM's by default")
    asked = parser.parse_args()
    model = load(asked)
    import torch
    import transformers

    from bench.engines.canary import answer
    from bench.engines.padding import moved_by_batching
    from bench.engines.plain import GenerateEngine

    few = canary_rows(model, asked)
    loaded_s = time.perf_counter()
    asked.reference = answer(GenerateEngine(model, frozenset({10**6})), few)
    batch_1_s = time.perf_counter() - loaded_s
    device, versions = torch.cuda.get_device_name(), {"torch": torch.__version__, "transformers": transformers.__version__}
    print(
        json.dumps(
            {"device": device, **versions, "model": asked.model, "batch_1_s": batch_1_s, "moved_by_batching": moved_by_batching(model)}
        ),
        flush=True,
    )
    for name in asked.engines:
        try:
            print(json.dumps(measure(name, model, asked)), flush=True)
        except Exception as error:  # one engine after the other is tried: what fails is a finding
            traceback.print_exc()
            print(json.dumps({"engine": name, "failed": f"{type(error).__name__}: {error}"[:500]}), flush=True)


if __name__ == "__main__":
    main()
