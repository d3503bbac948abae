"""transformers' own generate, one row at a time: the yardstick for exactness, and the way out where slots cannot be used."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

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
        """Continue in the given order."""
        for index, row in enumerate(rows):
            clock = _FirstToken()
            started = time.perf_counter()
            tokens = self._continue(row, clock)
            latency_s = time.perf_counter() - started
            self.model_s += latency_s
            reason: StopReason = "stop" if tokens[-1] in self.stop_ids else "length"
            yield Generation(index, tuple(tokens), reason, latency_s, clock.first_s - started)

    def _continue(self, row: Row, clock: _FirstToken) -> list[int]:
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
            streamer=clock,
            **sampling,
        )
        tokens: list[int] = output[0, len(row.prompt) :].tolist()
        return tokens


class _FirstToken(BaseStreamer):
    """Notes when `generate` hands over the first token, which it copies to the host and so waits for."""

    def __init__(self) -> None:
        self.calls = 0
        self.first_s = 0.0

    def put(self, value: Any) -> None:
        """Called with the prompt, then with each token."""
        self.calls += 1
        if self.calls == 2:
            self.first_s = time.perf_counter()

    def end(self) -> None:
        """Called after the last token."""
