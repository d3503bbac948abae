"""Products of few rows with a weight, on a CPU: the weight is read through once before it is multiplied with.

A decode step meets every weight of the model and none twice, so that each comes from memory. MKL's product of few rows walks over the
weight in strips, too far apart for the processor to fetch ahead, and waits for each; reading it from end to end first, at a multiple of
that pace, leaves it in the core's own cache. Measured (docs/measurements.md): half to four fifths of the time of a linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

FEW_ROWS = 128
"""Above, a product takes long enough to fetch its weight by the way."""
CACHED_BYTES = 2**19
"""Largest weight that is read first: half the cache of a core, as server processors have them; a larger one would not stay there."""

Linear = Callable[[Tensor], Tensor]
"""(..., in) -> (..., out)."""


def linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """The map by a weight, (out, in), that lies where it is for as long as the map is used."""
    if weight.numel() * weight.element_size() > CACHED_BYTES:
        return lambda states: functional.linear(states, weight, bias)
    most = FEW_ROWS * weight.shape[1]

    def read_first(states: Tensor) -> Tensor:
        if states.numel() <= most:
            weight.sum()
        return functional.linear(states, weight, bias)

    return read_first


@contextmanager
def small_products(model: Any) -> Iterator[None]:
    """Let the model's plain linear layers answer so, and give them back as they were."""
    layers = [module for module in model.modules() if type(module) is nn.Linear and "forward" not in vars(module)]  # else a hook's
    try:
        for layer in layers:
            layer.forward = linear(layer.weight, layer.bias)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
