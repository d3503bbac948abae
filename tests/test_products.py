"""Products on a CPU: the same as torch's, by whatever library, and the model as it was afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_slots import NEVER, tiny
from threadpoolctl import threadpool_info
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from bench.engines import Row, products
from bench.engines.products import CACHED_BYTES, FEW_ROWS, batch_product, linear, quick_products
from bench.engines.slots import SlotEngine


@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1])
@pytest.mark.parametrize("bias", [None, torch.arange(8.0)])
@pytest.mark.parametrize("out", [8, CACHED_BYTES // 16])  # four bytes a number: one weight at the limit's foot, one beyond it
def test_a_product_is_the_one_torch_makes(rows: int, bias: Tensor | None, out: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, states = torch.randn(out, 5, generator=generator), torch.randn(rows, 1, 5, generator=generator)
    bias = None if bias is None else bias.repeat(out // 8)
    assert torch.equal(linear(weight, bias)(states), functional.linear(states, weight, bias))


@pytest.mark.parametrize("is_abroad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 5])
def test_products_of_a_batch_are_torchs_but_for_rounding(
    is_abroad: bool, dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right one as attention has it: a part of longer slots, across."""
    monkeypatch.setattr(products, "mkl_is_abroad", lambda: is_abroad)
    generator = torch.Generator().manual_seed(0)
    left, slots = (torch.randn(6, size, 8, generator=generator).to(dtype) for size in (rows, 40))
    right = slots[:, :13].transpose(1, 2)
    made = batch_product(left, right)
    assert (made.dtype, made.shape) == (dtype, (6, rows, 13))
    torch.testing.assert_close(made, torch.bmm(left, right))


def test_numpy_gets_as_many_threads_as_torch_has_and_its_own_back() -> None:
    before = blas_threads()
    with quick_products(nn.Linear(2, 2)):
        assert blas_threads() == {torch.get_num_threads()}
    assert blas_threads() == before


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_layers_answer_as_before_once_they_are_given_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    with quick_products(model):
        assert "forward" in vars(model[0])
    with pytest.raises(RuntimeError, match="mat1 and mat2"), quick_products(model):
        model(torch.zeros(1, 5))
    assert "forward" not in vars(model[0])


def test_a_layer_whose_forward_is_somebodys_hook_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4))

    def hooked(states: Tensor) -> Tensor:
        return states + 1

    model[0].forward = hooked
    with quick_products(model):
        assert torch.equal(model(torch.zeros(1, 4)), torch.ones(1, 4))
    assert model[0].forward is hooked


class Counted(nn.Module):
    """A weight that is computed wherever it is read, as LoRA's on experts is."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.reads += 1
        return weight


def test_weights_of_experts_that_are_computed_are_computed_once_for_all_steps() -> None:
    model: Any = tiny("gpt-oss")
    experts, counted = model.model.layers[0].mlp.experts, Counted()
    parametrize.register_parametrization(experts, "gate_up_proj", counted)
    try:
        before = counted.reads
        list(SlotEngine(model, NEVER, 4).generate([Row((1, 2, 3), 6)] * 4))
        assert counted.reads - before == 1
        list(SlotEngine(model, NEVER, 4).generate([Row((1, 2, 3), 6)]))
        assert counted.reads - before == 2, "weights may have changed between two calls"
    finally:
        parametrize.remove_parametrizations(experts, "gate_up_proj")
