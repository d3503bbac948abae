"""Does a row in a left-padded batch get the probabilities it gets alone? Not every model heeds the attention mask; this asks it.

A few rows of random tokens are continued by the same given tokens, side by side and alone, through transformers' generate. The longest
are not padded: what changes for them is what batching changes by rounding alone, and padding may not change much more.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from bench.engines.sampling import let_only

PAD = 0
"""Any token would do: the mask hides it."""
LENGTHS = (24, 24, 5, 12)
STEPS = 3
"""The first behind the prompt, the others behind the cache."""
FLOAT32_SHARE, LOWER_SHARE = 1e-3, 0.05
"""Probability (total variation) that padding may move: rounding moves some 1e-6 of it in float32, and some 1e-2 in 16 bits."""
TIMES_ROUNDING = 3


def left_padded(prompts: Sequence[Sequence[int]], device: Any) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` of a batch, (rows, longest prompt)."""
    width = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[PAD] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device),
        "attention_mask": torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device),
    }


def padding_is_harmless(model: Any) -> bool:
    """Whether padded rows of a batch are told from rows alone by rounding only."""
    unpadded, padded = moved_by_batching(model)
    share = FLOAT32_SHARE if model.dtype == torch.float32 else LOWER_SHARE
    return bool(padded <= max(share, TIMES_ROUNDING * unpadded))


@torch.inference_mode()
def moved_by_batching(model: Any) -> tuple[float, float]:
    """Most probability that moved, 0 to 1, at a step of a row without padding and of one with it; NaN counts as all of it."""
    draw = random.Random(0)
    vocabulary = range(model.config.get_text_config().vocab_size)
    rows = [draw.choices(vocabulary, k=length + STEPS) for length in LENGTHS]
    together = _probabilities(model, rows)
    alone = torch.cat([_probabilities(model, [row]) for row in rows])
    moved: list[float] = ((together - alone).abs().sum(-1) / 2).amax(-1).nan_to_num(nan=1.0).tolist()
    is_whole = [length == max(LENGTHS) for length in LENGTHS]
    return max(itertools.compress(moved, is_whole)), max(itertools.compress(moved, [not whole for whole in is_whole]))


def _probabilities(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """Of every token at every step, (rows, STEPS, vocabulary); the last STEPS tokens of a row are its given continuation."""
    told = _Told(torch.tensor([row[-STEPS:] for row in rows], device=model.device))
    model.generate(
        **left_padded([row[:-STEPS] for row in rows], model.device),
        max_new_tokens=STEPS,
        do_sample=False,
        eos_token_id=model.config.get_text_config().vocab_size,  # no token: a given one must not end a row
        pad_token_id=PAD,
        logits_processor=LogitsProcessorList([told]),
    )
    return torch.stack(told.seen, 1)


class _Told(LogitsProcessor):
    """Keeps the probabilities of each step and lets the given token follow."""

    def __init__(self, tokens: Tensor):
        self.tokens = tokens
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = self.tokens[:, len(self.seen)]
        self.seen.append(scores.double().softmax(-1))
        return let_only(tokens, scores)
