"""transformers' own generate: one row at a time the yardstick for exactness, in batches the way out where slots cannot be used.

A batch is left-padded and made of rows with like limits, the longest first. Per-row limits, draws and faults go through generate's own
hooks, a LogitsProcessor and a StoppingCriteria, so that whoever has patched the model or its generate is patched still.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from bench.engines.base import Generation, Row
from bench.engines.limits import NO_MEMORY, NO_NUMBERS, LocalEngine, failed, plan
from bench.engines.padding import PAD, left_padded
from bench.engines.sampling import NOT_A_NUMBER, Draws, let_only, next_tokens
from bench.errors import is_out_of_memory


class GenerateEngine(LocalEngine):
    """Continues rows in batches of `slots`; the rows of a batch come together, once the longest has ended."""

    name = "generate"

    def __init__(self, model: Any, stop_ids: frozenset[int], slots: int = 1):
        super().__init__(model, stop_ids, slots)

    @torch.inference_mode()
    def generate(self, rows: Sequence[Row]) -> Iterator[Generation]:
        """Continue every row; a batch for which memory runs out is asked again as two."""
        limits, refused = plan(self.model, rows)
        yield from refused
        queue = sorted(limits, key=lambda index: (-limits[index], -len(rows[index].prompt)))
        while queue:
            batch = queue[: self.slots]
            try:
                ended = self._continue(batch, [rows[index] for index in batch], [limits[index] for index in batch])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                ended = None
            if ended is None and self._width.shrink():  # outside of the except block, whose traceback holds the batch's memory
                continue
            queue = queue[len(batch) :]
            yield from ended if ended is not None else [failed(batch[0], NO_MEMORY)]

    def _continue(self, indices: Sequence[int], rows: Sequence[Row], limits: Sequence[int]) -> list[Generation]:
        started = time.perf_counter()
        width, device = max(len(row.prompt) for row in rows), self.model.device
        hook = _Hook(rows, limits, width, device)
        output = self.model.generate(
            **left_padded([row.prompt for row in rows], device),
            max_new_tokens=max(limits),
            do_sample=False,  # rows that draw have drawn in the hook
            eos_token_id=sorted(self.stop_ids),
            pad_token_id=PAD,  # behind a row that ended; it is cut off
            logits_processor=LogitsProcessorList([hook]),
            stopping_criteria=StoppingCriteriaList([hook.criteria]),
        )
        generated, unsound = output[:, width:].tolist(), hook.unsound_at.tolist()
        self.model_s += time.perf_counter() - started
        return [self._cut(*row, hook, started) for row in zip(indices, generated, limits, unsound, strict=True)]

    def _cut(self, index: int, tokens: list[int], limit: int, unsound_at: int, hook: _Hook, started: float) -> Generation:
        """What of a row of the batch is its own."""
        stop = next((place for place, token in enumerate(tokens[:limit]) if token in self.stop_ids), None)
        own = tuple(tokens[: limit if stop is None else stop + 1])
        if 0 <= unsound_at < len(own):
            return failed(index, f"{NO_NUMBERS} at token {unsound_at + 1}", own[:unsound_at])
        first_s, last_s = hook.stepped_s[0], hook.stepped_s[len(own) - 1]
        return Generation(index, own, "length" if stop is None else "stop", last_s - started, first_s - started)


class _Hook(LogitsProcessor):
    """What generate does not know of a batch's rows; the device is never waited for."""

    def __init__(self, rows: Sequence[Row], limits: Sequence[int], width: int, device: Any):
        self.rows = rows
        self.width = width
        self.draws = any(row.temperature > 0 for row in rows)
        self.stepped_s: list[float] = []
        """When the logits of each token were there; on CUDA when they were asked for, until generate waits for them."""
        self.unsound_at = torch.full((len(rows),), -1, device=device)
        """Number of the first token, from 0, whose logits are no numbers; -1 where there is none."""
        self.criteria = _Criteria(torch.tensor(limits, device=device), self)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        number = input_ids.shape[1] - self.width
        tokens = next_tokens(scores, Draws.of(self.rows, [number] * len(self.rows), scores.device))
        self.unsound_at = torch.where((tokens == NOT_A_NUMBER) & (self.unsound_at < 0), number, self.unsound_at)
        self.stepped_s.append(time.perf_counter())
        if not self.draws:
            return scores
        return let_only(tokens.clamp(min=0), scores)


class _Criteria(StoppingCriteria):
    """Ends a row at its limit, and where it has no logits to go on by."""

    def __init__(self, limits: Tensor, hook: _Hook):
        self.limits = limits
        self.hook = hook

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return (self.limits <= input_ids.shape[1] - self.hook.width) | (self.hook.unsound_at >= 0)
