"""The local engine: rows enter and leave slots one by one, so that no row waits for the longest of its batch.

All efforts and languages of an arm stand in one queue, the longest first. Free slots are refilled together; when the queue is empty, the
last live row moves into the hole a finished one leaves, so that the step shrinks with the work. The model is transformers' own, unmodified.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.engines.base import Generation, Row
from bench.engines.graphs import GraphedSteps, Recorder
from bench.engines.limits import NO_MEMORY, NO_NUMBERS, LocalEngine, failed, plan
from bench.engines.prefixes import Prompt, common_length, find_families
from bench.engines.sampling import NOT_A_NUMBER, Draws, next_tokens
from bench.engines.slot_cache import SlotCache
from bench.engines.slot_functions import slot_functions
from bench.errors import is_out_of_memory
from bench.records import StopReason

PREFILL_TOKENS = {"cpu": 1024}
"""Most padded prompt tokens of one prefill, by device: on a CPU what its layers hand on stays in the cache."""
MOST_PREFILL_TOKENS = 8192
"""On any other device: bounds the memory of a prefill."""
FORWARD = 16
"""A forward of few tokens takes as long as this part of a prefill: one more, over what prompts share, must save as much."""


class SlotsUnsupportedError(Exception):
    """The model's layers do not all reach the slot attention; use another engine."""


def _tensor(numbers: Sequence[Any], device: Any) -> Tensor:
    """Whole numbers on the device; NumPy reads lists several times as fast as torch does."""
    return torch.from_numpy(np.array(numbers, dtype=np.int64)).to(device)


@dataclass(eq=False, slots=True)
class _Live:
    """A row in a slot."""

    index: int
    row: Row
    limit: int
    entered_s: float
    ttft_s: float = 0.0
    tokens: list[int] = field(default_factory=list)
    ended: StopReason | None = None

    @property
    def newest(self) -> int:
        """Position of its newest token."""
        return len(self.row.prompt) + len(self.tokens) - 1


class SlotEngine(LocalEngine):
    """Continues rows side by side in `slots` slots. Greedy float32 output equals transformers' generate at batch 1."""

    name = "slots"

    def __init__(
        self, model: Any, stop_ids: frozenset[int], slots: int, *, prefill_tokens: int | None = None, recorder: Recorder | None = None
    ):
        super().__init__(model, stop_ids, slots)
        self.prefill_tokens = prefill_tokens or PREFILL_TOKENS.get(model.device.type, MOST_PREFILL_TOKENS)
        self._device, self._layers = model.device, model.config.get_text_config().num_hidden_layers
        self.recorder = recorder
        """How decode steps are recorded, to be replayed; None runs each as it comes."""
        if recorder is not None:
            self.name = "graphed slots"

    @torch.inference_mode()
    def generate(self, rows: Sequence[Row]) -> Iterator[Generation]:
        """Continue every row; those in the slots begin anew where memory runs out, and what had ended stays.

        Raises SlotsUnsupportedError at the first forward where the model bypasses the slots, or keeps a state beside them.
        """
        if self.model._is_stateful:
            raise SlotsUnsupportedError("the model has recurrent layers, whose state the slots do not hold")
        limits, refused = plan(self.model, rows)
        yield from refused
        families = find_families([row.prompt for row in rows])
        while limits:
            # pop() takes from the end: the longest limit first, prompts that begin alike together, or else those of like length
            order = sorted(limits, key=lambda index: (limits[index], families[index], len(rows[index].prompt)))
            try:
                for generation in self._serve(rows, limits, list(order)):
                    del limits[generation.index]
                    yield generation
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return
            if not self._width.shrink():  # outside of the except block, whose traceback holds the slots' memory
                alone = next(index for index in reversed(order) if index in limits)
                del limits[alone]
                yield failed(alone, NO_MEMORY)

    def _serve(self, rows: Sequence[Row], limits: Mapping[int, int], queue: list[int]) -> Iterator[Generation]:
        """Run the queue through fresh slots."""
        cache = SlotCache(self.slots)
        graphed = GraphedSteps(self.model, cache, self.recorder) if self.recorder else None
        live: list[_Live] = []
        with slot_functions(self.model):
            while queue or live:
                if self._should_refill(len(queue), len(live)):
                    new, shared = self._take(queue, rows, limits, self.slots - len(live))
                    made = self._read(cache, len(live), new, shared)
                    live += new
                elif graphed is None:
                    new, made = live, self._step(cache, 0, live)
                else:
                    new, made = live, self._replay(graphed, live)
                if self._append(new, made):
                    yield from self._release(cache, live)

    def _should_refill(self, waiting: int, live: int) -> bool:
        """Once an eighth of the slots is free (or all that waits fits): prefills are dearer than steps."""
        free = self.slots - live
        return waiting > 0 and free >= min(max(1, self.slots // 8), waiting)

    def _take(self, queue: list[int], rows: Sequence[Row], limits: Mapping[int, int], free: int) -> tuple[list[_Live], int]:
        """The rows of the next prefill, and how many tokens their prompts begin with alike; each has at least one more."""
        now = time.perf_counter()
        taken: list[_Live] = []
        first = rows[queue[-1]].prompt
        width, shared = 0, len(first)
        while queue and len(taken) < free:
            prompt = rows[queue[-1]].prompt
            wider = max(width, len(prompt))
            left = min(common_length(prompt, first[:shared]), len(prompt) - 1)
            if taken and (len(taken) + 1) * (wider - left) > self.prefill_tokens:
                break
            width, shared, index = wider, left, queue.pop()
            taken.append(_Live(index, rows[index], limits[index], now))
        return taken, shared

    def _read(self, cache: SlotCache, first: int, entries: list[_Live], alike: int) -> list[list[int]]:
        """Read the entries' prompts, which begin with `alike` equal tokens, and choose the first token of each: 1 x rows."""
        started = time.perf_counter()
        shared = self._share(cache, entries[0].row.prompt[:alike], len(entries))
        self.model_s += time.perf_counter() - started
        return self._step(cache, first, entries, shared)

    def _share(self, cache: SlotCache, alike: Prompt, rows: int) -> int:
        """How many of the tokens that all rows begin with lie beside the slots, once they were read where that is worth a forward."""
        held = common_length(cache.prefix, alike)
        if rows * (len(alike) - held) <= len(alike) + self.prefill_tokens // FORWARD:
            return held
        cache.begin_prefix(alike, self._device)
        ids, positions = _tensor([alike], self._device), torch.arange(len(alike), device=self._device)[None]
        self.model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=1, slot_cache=cache)
        return len(alike)

    def _step(self, cache: SlotCache, first: int, entries: list[_Live], shared: int = 0) -> list[list[int]]:
        """The next token of each entry: 1 x rows. New entries are read, but for the `shared` tokens that their prompts begin with."""
        started = time.perf_counter()
        logits = self._forward(cache, first, entries, shared)
        draws = Draws.of([entry.row for entry in entries], [len(entry.tokens) for entry in entries], logits.device)
        tokens: list[int] = next_tokens(logits, draws).tolist()
        self.model_s += time.perf_counter() - started
        return [tokens]

    def _forward(self, cache: SlotCache, first: int, entries: list[_Live], shared: int) -> Tensor:
        """Logits of the next token, (rows, vocabulary)."""
        newest = [entry.newest for entry in entries]
        last = _tensor(newest, self._device)
        if entries[0].tokens:
            width = 1
            ids, positions = _tensor([entry.tokens[-1] for entry in entries], self._device)[:, None], last[:, None]
        else:
            prompts = [entry.row.prompt[shared:] for entry in entries]
            width = max(map(len, prompts))
            ids = _tensor([(0,) * (width - len(prompt)) + prompt for prompt in prompts], self._device)
            positions = (last[:, None] + torch.arange(1 - width, 1, device=self._device)).clamp(min=0)
        cache.begin(first, last, width, max(newest) + 1, min(newest) + 1, shared)
        logits: Tensor = self.model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=1, slot_cache=cache).logits[
            :, -1
        ]
        if len(cache.layers) != self._layers:
            raise SlotsUnsupportedError(f"{len(cache.layers)} of {self._layers} layers reached the slots")
        return logits

    def _replay(self, graphed: GraphedSteps, entries: list[_Live]) -> list[list[int]]:
        """The next tokens of each entry, none beyond its limit: steps x rows."""
        started = time.perf_counter()
        most = min(entry.limit - len(entry.tokens) for entry in entries)
        made = graphed([entry.row for entry in entries], [entry.tokens for entry in entries], most)
        self.model_s += time.perf_counter() - started
        return made

    def _append(self, entries: list[_Live], steps: list[list[int]]) -> bool:
        """Whether any entry ended."""
        now, has_ended = time.perf_counter(), False
        for entry, tokens in zip(entries, zip(*steps, strict=True), strict=True):
            if not entry.tokens:
                entry.ttft_s = now - entry.entered_s
            for token in tokens:
                entry.tokens.append(token)
                entry.ended = self._stop_reason(entry)
                if entry.ended is not None:
                    has_ended = True
                    break
        return has_ended

    def _release(self, cache: SlotCache, live: list[_Live]) -> Iterator[Generation]:
        """Yield the rows that ended and close the holes they leave."""
        now = time.perf_counter()
        ended = []
        for slot in reversed(range(len(live))):
            entry = live[slot]
            if entry.ended is None:
                continue
            if entry.ended == "error":
                cache.clear(slot)
                ended.append(failed(entry.index, f"{NO_NUMBERS} at token {len(entry.tokens)}", tuple(entry.tokens[:-1])))
            else:
                ended.append(Generation(entry.index, tuple(entry.tokens), entry.ended, now - entry.entered_s, entry.ttft_s))
            moved = live.pop()
            if slot < len(live):
                live[slot] = moved
                cache.move(len(live), slot, moved.newest + 1)
        yield from ended

    def _stop_reason(self, entry: _Live) -> StopReason | None:
        if entry.tokens[-1] in self.stop_ids:
            return "stop"
        if entry.tokens[-1] == NOT_A_NUMBER:
            return "error"
        return "length" if len(entry.tokens) >= entry.limit else None
