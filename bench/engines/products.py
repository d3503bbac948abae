"""Matrix products on a CPU, the same numbers as torch's but for rounding, where torch's are slow.

- Few rows wait for the weight they meet: a decode step meets every weight of the model and none twice, so that each comes from memory, and
  MKL's product of few rows walks over it in strips, too far apart for the processor to fetch ahead. Reading the weight from end to end
  first, at a multiple of that pace, leaves it in the core's own cache.
- A decode step's attention is many products of two or three rows. On processors of AMD, where MKL leaves the wide registers idle,
  OpenBLAS, which NumPy's wheels bring, reads keys and values at up to twice the pace, and half as fast again row by row: a product with
  a vector copies nothing beforehand.

Measured (docs/measurements.md): a linear layer takes half to four fifths of its time; a step of 64 rows 85 to 90 % of its own by NumPy, and
of that 92 to 95 % row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional

FEW_ROWS = 128
"""Above, a product takes long enough to fetch its weight by the way."""
CACHED_BYTES = 2**19
"""Largest weight that is read first: half the cache of a core, as server processors have them; a larger one would not stay there."""

VECTOR_ROWS = 3
"""Most rows whose product is quicker row by row."""

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


def batch_product(left: Tensor, right: Tensor) -> Tensor:
    """torch.bmm without gradients: (batch, n, k) x (batch, k, m)."""
    if left.device.type != "cpu" or left.dtype != torch.float32 or not mkl_is_abroad():
        return torch.bmm(left, right)
    rows, matrices = left.numpy(), right.numpy()
    return torch.from_numpy(np.vecmat(rows, matrices[:, None]) if rows.shape[1] <= VECTOR_ROWS else np.matmul(rows, matrices))


@cache
def mkl_is_abroad() -> bool:
    """Whether torch's products are MKL's on a processor of AMD: told by what the machine is, so that all runs on it round alike."""
    processor = Path("/proc/cpuinfo")
    return torch.backends.mkl.is_available() and processor.exists() and "AuthenticAMD" in processor.read_text(encoding="utf-8")


@contextmanager
def answering(stand_ins: Mapping[nn.Module, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Let other functions answer for modules, and give these back as they were."""
    try:
        for module, stand_in in stand_ins.items():
            module.forward = stand_in
        yield
    finally:
        for module in stand_ins:
            vars(module).pop("forward", None)


@contextmanager
def quick_products(model: Any) -> Iterator[None]:
    """Let the model's plain linear layers answer so, meanwhile. NumPy gets as many threads as torch has."""
    layers = [module for module in model.modules() if type(module) is nn.Linear and "forward" not in vars(module)]  # else a hook's
    with (
        answering({layer: linear(layer.weight, layer.bias) for layer in layers}),
        threadpool_limits(torch.get_num_threads(), user_api="blas"),
    ):
        yield
