"""Latency as a user feels it: base and one arm answer the same requests in turn, in one process, one at a time and side by side.

A switch of the adapter makes the one model of the other, so both share weights, caches, clocks and the machine's mood. The order
alternates from block to block (ABBA); a block is the unit of every interval (bench/costs.py). Every request is timed by the engine at the
moment its token is on the host, so nothing is queued on the device when a clock is read.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from bench.jobs import ProbeJob
from bench.models import adapter_taken_off, load_tokenizer, load_unmerged
from bench.records import TimingBlock

if TYPE_CHECKING:
    from bench.engines import Engine, Generation
    from bench.lm import Request

WARM_UP_REQUESTS = 3
WARM_UP_TOKENS = 32
"""Most tokens of a request that is dropped: compilation, caches and autotuning happen in the first."""
WARM_UP_ROUNDS = 5
STEADY = 0.02
"""Two rounds of warm-up whose medians are this close, as a share, end it."""


@dataclass
class _Side:
    """One arm at one concurrency."""

    arm: str
    is_on: bool
    """Whether the adapter is."""
    engine: Engine
    dropped: int = 0


def probe(job: ProbeJob, on_block: Callable[[TimingBlock], None]) -> None:
    """Time both arms in every block and tell each arm's share of it. Where the engine takes no rows side by side, each alone only."""
    from bench.catalog import find_asked
    from bench.lm import Ask, list_requests
    from bench.meter import memory_told

    timing, spec = job.timing, job.asked
    with memory_told("load"):
        model = load_unmerged(job.base, job.experiment.model, job.adapter)
    tokenizer = load_tokenizer(job.base)
    needed = timing.blocks * timing.requests
    evaluate, limit = job.experiment.evaluate, min(needed, job.limit or needed)
    ask = Ask(job.arm, find_asked(spec.suite, evaluate), spec.split, spec.languages, evaluate, limit)
    blocks = draw(list_requests(ask, tokenizer), timing.blocks, timing.requests, evaluate.seed)
    pairs = [_sides(job, model, tokenizer, concurrency) for concurrency in (1, timing.concurrency)]
    pairs = [pair for pair, concurrency in zip(pairs, (1, timing.concurrency), strict=True) if pair[0].engine.slots == concurrency]
    for side in (side for pair in pairs for side in pair):
        with served(model, is_on=side.is_on, how=timing.adapter):
            side.dropped = warm_up(side.engine, blocks[0])
    for number, requests in enumerate(blocks):
        for pair in pairs:
            for side in pair if number % 2 == 0 else pair[::-1]:
                with served(model, is_on=side.is_on, how=timing.adapter):
                    on_block(_measure(job, number, side, requests))


def _sides(job: ProbeJob, model: Any, tokenizer: Any, concurrency: int) -> list[_Side]:
    """Base and the arm, each with an engine of its own: whatever an engine keeps of the model, it keeps of one arm."""
    from bench.engines.choose import choose_engine

    sides = []
    for arm, is_on in (("base", False), (job.arm, True)):
        with served(model, is_on=is_on, how=job.timing.adapter):
            sides.append(_Side(arm, is_on, choose_engine(model, tokenizer, concurrency, may_graph=False)))
    return sides


@contextmanager
def served(model: Any, *, is_on: bool, how: Literal["beside", "merged"]) -> Iterator[None]:
    """The adapted model as base or as the arm; afterwards the adapter lies beside the weights, switched on, as before."""
    if not is_on:
        with adapter_taken_off(model):
            yield
    elif how == "beside":
        yield
    else:
        model.merge_adapter()
        try:
            yield
        finally:
            model.unmerge_adapter()


def draw(asked: Sequence[Request], blocks: int, requests: int, seed: int) -> list[list[Request]]:
    """Which requests each block asks: problems in a seeded order, each in one language in turn, before any comes again in another.

    A block never asks a request twice; where there are too few, later blocks ask again what earlier ones asked.
    """
    by_item: dict[str, list[Request]] = {}
    for request in asked:
        by_item.setdefault(request.item_id, []).append(request)
    problems = [by_item[item] for item in sorted(by_item)]
    random.Random(seed).shuffle(problems)
    turns = max(map(len, problems))
    order = [found[(at + turn) % len(found)] for turn in range(turns) for at, found in enumerate(problems) if turn < len(found)]
    size = min(requests, len(order))
    return [[order[(number * size + at) % len(order)] for at in range(size)] for number in range(blocks)]


def warm_up(engine: Engine, requests: Sequence[Request]) -> int:
    """Ask a few short requests until two rounds take the same time a token, at most `WARM_UP_ROUNDS`; returns how many were asked."""
    rows = [replace(one.row, max_new_tokens=min(WARM_UP_TOKENS, one.row.max_new_tokens)) for one in requests]
    rows = rows[: max(WARM_UP_REQUESTS, engine.slots)]
    medians: list[float] = []
    while len(medians) < WARM_UP_ROUNDS:
        paces = [one.latency_s / len(one.tokens) for one in engine.generate(rows) if one.tokens and one.latency_s]
        medians.append(statistics.median(paces) if paces else 0.0)
        if len(medians) > 1 and abs(medians[-1] - medians[-2]) <= STEADY * medians[-2]:
            break
    return len(medians) * len(rows)


def _measure(job: ProbeJob, number: int, side: _Side, requests: Sequence[Request]) -> TimingBlock:
    """Ask the block's requests; what a switch of the adapter left cold is warmed by a first one, which is dropped."""
    from bench.meter import metered

    rows = [one.row for one in requests]
    first = [replace(row, max_new_tokens=min(WARM_UP_TOKENS, row.max_new_tokens)) for row in rows[: side.engine.slots]]
    dropped, side.dropped = side.dropped + len(list(side.engine.generate(first))), 0
    with metered() as reading:
        found: list[Generation] = sorted(side.engine.generate(rows), key=lambda one: one.index)
    assert reading.wall_s is not None
    return TimingBlock(
        block=number,
        arm=side.arm,
        effort=job.experiment.evaluate.efforts[0],
        concurrency=side.engine.slots,
        engine=side.engine.name,
        adapter=job.timing.adapter,
        warm_up=dropped,
        wall_s=reading.wall_s,
        energy_j=reading.energy_j,
        items=[one.item_id for one in requests],
        languages=[one.language for one in requests],
        prompt_tokens=[len(row.prompt) for row in rows],
        output_tokens=[len(one.tokens) for one in found],
        ttft_s=[_rounded(one.ttft_s) for one in found],
        latency_s=[_rounded(one.latency_s) for one in found],
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
