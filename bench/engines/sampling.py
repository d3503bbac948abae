"""Logits of a step -> the next token of each row; a row's draw depends on its own seed and the number of the token alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.engines.base import Row

NOT_A_NUMBER = -1
"""Stands for the token of a row whose logits are NaN, or without a finite largest one."""


def let_only(tokens: Tensor, scores: Tensor) -> Tensor:
    """Scores, (rows, vocabulary), under which each row's own token is the only one that can follow. For generate's LogitsProcessor."""
    return torch.full_like(scores, float("-inf")).scatter_(1, tokens[:, None], 0.0)


def next_tokens(logits: Tensor, rows: Sequence[Row], numbers: Sequence[int]) -> Tensor:
    """The likeliest token of each row, or the one it draws, (rows,); `numbers` are how many tokens each row has already.

    logits: (rows, vocabulary). NOT_A_NUMBER where the model gave a row none to choose by. Waits for no device.
    """
    tokens = logits.argmax(-1)
    is_sound = logits.gather(-1, tokens[:, None])[:, 0].isfinite()  # NaN counts as the largest
    sampled = [place for place, row in enumerate(rows) if row.temperature > 0]
    if sampled:
        places = torch.tensor(sampled, device=logits.device)
        heat = torch.tensor([rows[place].temperature for place in sampled], dtype=torch.float64, device=logits.device)
        mass = torch.softmax(logits[places].double() / heat[:, None], -1).cumsum(-1)
        draws = [random.Random(f"{rows[place].seed}/{numbers[place]}").random() for place in sampled]
        level = torch.tensor(draws, dtype=torch.float64, device=logits.device)[:, None] * mass[:, -1:]
        tokens[places] = torch.searchsorted(mass, level, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    return tokens.where(is_sound, NOT_A_NUMBER)
