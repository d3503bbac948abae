"""Logits of a step -> the next token of each row; a row's draw depends on its own seed and the number of the token alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.engines.base import Row

NOT_A_NUMBER = -1
"""Stands for the token of a row whose logits are NaN, or without a finite largest one."""


def let_only(tokens: Tensor, scores: Tensor) -> Tensor:
    """Scores, (rows, vocabulary), under which each row's own token is the only one that can follow. For generate's LogitsProcessor."""
    return torch.full_like(scores, float("-inf")).scatter_(1, tokens[:, None], 0.0)


@dataclass(frozen=True, slots=True)
class Draws:
    """What the rows of a batch that sample draw their next tokens by; made beforehand, so that no step waits for the host."""

    places: Tensor
    """Of these rows in the batch, (sampled,)."""
    temperatures: Tensor
    """(sampled, 1)."""
    levels: Tensor
    """Uniform in [0, 1), (sampled, steps)."""

    @classmethod
    def of(cls, rows: Sequence[Row], numbers: Sequence[int], device: Any, steps: int = 1) -> Draws | None:
        """For the next `steps` tokens of each row, of which it has `numbers` already; None where every row is greedy."""
        sampled = [place for place, row in enumerate(rows) if row.temperature > 0]
        if not sampled:
            return None
        levels = [
            [random.Random(f"{rows[place].seed}/{number}").random() for number in range(numbers[place], numbers[place] + steps)]
            for place in sampled
        ]
        temperatures = [[rows[place].temperature] for place in sampled]
        return cls(
            torch.tensor(sampled, device=device),
            torch.tensor(temperatures, dtype=torch.float64, device=device),
            torch.tensor(levels, dtype=torch.float64, device=device),
        )


def _likeliest(logits: Tensor) -> Tensor:
    """Place of each row's largest logit; NOT_A_NUMBER where that is no finite number, (rows,)."""
    if logits.device.type == "cpu" and logits.dtype != torch.bfloat16:  # NumPy is nine times as fast as torch there, and has no bfloat16
        values = logits.numpy()
        places = values.argmax(-1)
        is_sound = np.isfinite(values[np.arange(len(values)), places])
        return torch.from_numpy(places if is_sound.all() else np.where(is_sound, places, NOT_A_NUMBER))
    tokens = logits.argmax(-1)  # the first NaN's, where there is one
    return tokens.where(logits.gather(-1, tokens[:, None])[:, 0].isfinite(), NOT_A_NUMBER)


def next_tokens(logits: Tensor, draws: Draws | None, step: int = 0) -> Tensor:
    """The likeliest token of each row, or the one it draws, (rows,); `step` counts the steps that `draws` was made for.

    logits: (rows, vocabulary). NOT_A_NUMBER where the model gave a row none to choose by. Waits for no device.
    """
    tokens = _likeliest(logits)
    if draws is None:
        return tokens
    mass = torch.softmax(logits[draws.places].double() / draws.temperatures, -1).cumsum(-1)
    level = draws.levels[:, step : step + 1] * mass[:, -1:]
    drawn = torch.searchsorted(mass, level, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    is_sound = tokens[draws.places] != NOT_A_NUMBER
    tokens[draws.places] = drawn.where(is_sound, NOT_A_NUMBER)
    return tokens
