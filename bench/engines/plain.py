"""transformers' own generate, one row at a time: the yardstick for exactness, and the way out where slots cannot be used."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from bench.engines.base import Generation, Row
from bench.records import StopReason


class GenerateEngine:
    """Continues rows one after the other."""

    name = "generate"
    slots = 1

    def __init__(self, model: Any, stop_ids: frozenset[int]):
        self.model = model
        self.stop_ids = stop_ids
        self.model_s = 0.0

    @torch.inference_mode()
    def generate(self, rows: Sequence[Row]) -> Iterator[Generation]:
        """Continue in the given order. The time to the first token cannot be seen from outside: it is reported as the whole latency."""
        for index, row in enumerate(rows):
            started = time.perf_counter()
            tokens = self._continue(row)
            latency_s = time.perf_counter() - started
            self.model_s += latency_s
            reason: StopReason = "stop" if tokens[-1] in self.stop_ids else "length"
            yield Generation(index, tuple(tokens), reason, latency_s, latency_s)

    def _continue(self, row: Row) -> list[int]:
        prompt = torch.tensor([row.prompt], device=self.model.device)
        sampling: dict[str, Any] = {"do_sample": False}
        if row.temperature > 0:
            torch.manual_seed(row.seed)
            sampling = {"do_sample": True, "temperature": row.temperature, "top_k": 0, "top_p": 1.0}
        output = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=row.max_new_tokens,
            eos_token_id=sorted(self.stop_ids),
            pad_token_id=min(self.stop_ids),
            **sampling,
        )
        tokens: list[int] = output[0, len(row.prompt) :].tolist()
        return tokens
