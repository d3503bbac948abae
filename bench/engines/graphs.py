"""Decode steps as recorded graphs: a step of the same shape is replayed instead of launched kernel by kernel.

Several steps run on end, each fed what the one before it chose, before the host looks at their tokens: within them nothing waits for it.
Rows and columns are rounded up to buckets, so that few shapes occur; rows that fill up a bucket write into free slots, where the next
prompt writes over them. Inputs lie in buffers that stay where they are. Slots that grow move, so their graphs are recorded anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bench.engines.base import Row
from bench.engines.sampling import Draws, next_tokens
from bench.engines.slot_cache import SlotCache

COLUMNS = 256
"""Columns of slots are rounded up to a multiple of this."""
STEPS = 4
"""Most steps on end. A row that stops within them takes its slot to their end: at 70 tokens an answer, 2 % of the steps."""

Step = Callable[[], Tensor]
Capture = Callable[[Step], Step]
"""Runs a step once or more, and gives back what repeats it on the same buffers. A step may be repeated: it writes the same again."""
Recorder = Callable[[], Capture]
"""What the recorded steps of one Capture share is freed with the last of them, so those recorded anew get a new one."""


class GraphedSteps:
    """Decode steps over the slots of one cache, once every layer has written to it."""

    def __init__(self, model: Any, cache: SlotCache, recorder: Recorder):
        self.model, self.cache, self.recorder = model, cache, recorder
        self.capture = recorder()
        self.ids = torch.zeros(cache.slots, 1, dtype=torch.long, device=model.device)
        self.last = torch.zeros(cache.slots, dtype=torch.long, device=model.device)
        self.recorded: dict[tuple[int, int], Step] = {}

    def __call__(self, rows: Sequence[Row], tokens: Sequence[Sequence[int]], most: int) -> list[list[int]]:
        """The next tokens of each live row, at most `most` of them: steps x rows. `tokens` are those it has behind its prompt."""
        live, steps = len(rows), min(STEPS, most)
        newest = [len(row.prompt) + len(made) - 1 for row, made in zip(rows, tokens, strict=True)]
        width, columns = self._bucket(live), -(-(max(newest) + steps) // COLUMNS) * COLUMNS
        if self.cache.reserve(columns):
            self.recorded.clear()
            self.capture = self.recorder()
        idle = [0] * (width - live)
        self.ids[:width].copy_(torch.tensor([*(made[-1] for made in tokens), *idle])[:, None])
        self.last[:width].copy_(torch.tensor([*newest, *idle]))
        draws = Draws.of(rows, [len(made) for made in tokens], self.ids.device, steps)
        if (step := self.recorded.get((width, columns))) is None:
            step = self.recorded[width, columns] = self.capture(lambda: self._run(width, columns))
        chosen = []
        for number in range(steps):
            chosen.append(next_tokens(step()[:live], draws, number))
            self.ids[:live, 0] = chosen[-1].clamp(min=0)
            self.last[:live] += 1
        made: list[list[int]] = torch.stack(chosen).tolist()
        return made

    def _bucket(self, rows: int) -> int:
        """The next power of two, or all slots."""
        return min(1 << (rows - 1).bit_length(), self.cache.slots)

    def _run(self, rows: int, columns: int) -> Tensor:
        last = self.last[:rows]
        self.cache.begin(0, last, 1, columns)
        logits: Tensor = self.model(
            input_ids=self.ids[:rows], position_ids=last[:, None], use_cache=False, logits_to_keep=1, slot_cache=self.cache
        ).logits
        return logits[:, -1]


@cache
def _beside() -> torch.cuda.Stream:
    """One stream for all recordings: cuBLAS keeps 32 MiB of work space for each stream that it ever ran on."""
    return torch.cuda.Stream()


def cuda_graphs() -> Capture:
    """Records CUDA graphs that share their memory: the logits of one last until the next is replayed."""
    pool = torch.cuda.graph_pool_handle()

    def capture(step: Step) -> Step:
        beside = _beside()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):  # what allocates or compiles on first use must do so before the recording
            step()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            logits = step()

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

    return capture
