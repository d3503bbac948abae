"""Root mean square norms as one operation of torch in place of seven: a fortieth of a small model's step on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.engines.products import answering


def quick_norms(model: Any) -> AbstractContextManager[None]:
    """Let the model's norms that say the same, to the bit, answer so, meanwhile."""
    return answering({norm: same for norm in model.modules() if (same := _as_one(norm)) is not None})


def _as_one(norm: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """The norm of torch where it equals the module's on a trial; None for any other module, and for one with a hook's forward."""
    weight, epsilon = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if not isinstance(weight, Tensor) or weight.dim() != 1 or not isinstance(epsilon, float) or "forward" in vars(norm):
        return None

    def same(states: Tensor) -> Tensor:
        return functional.rms_norm(states, weight.shape, weight, epsilon)

    trial = torch.linspace(-3, 5, 4 * len(weight), dtype=weight.dtype, device=weight.device).view(4, -1).sin()
    return same if torch.equal(norm(trial), same(trial)) else None
