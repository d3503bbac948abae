"""Norms that are asked in one operation: the same to the bit, or left as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from bench.engines.norms import quick_norms


def with_weights(norm: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    nn.init.normal_(norm.weight, mean=1.0, std=0.3)
    return nn.Sequential(norm).eval()


class Doubled(LlamaRMSNorm):
    """It has all that the others have, and says something else."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return 2 * super().forward(hidden_states)


@pytest.mark.parametrize("kind", [GptOssRMSNorm, LlamaRMSNorm, T5LayerNorm])
@pytest.mark.parametrize("rows", [1, 7])
def test_a_quick_norm_says_the_same_to_the_bit(kind: Any, rows: int) -> None:
    model = with_weights(kind(48, eps=1e-5))
    states = torch.randn(rows, 3, 48)
    before = model(states)
    with torch.inference_mode(), quick_norms(model):
        assert "forward" in vars(model[0])
        assert torch.equal(model(states), before)
    assert "forward" not in vars(model[0])


@pytest.mark.parametrize("norm", [Doubled(8), GemmaRMSNorm(8), nn.LayerNorm(8), nn.RMSNorm(8), nn.Linear(8, 8)], ids=repr)
def test_what_is_no_such_norm_is_left_alone(norm: nn.Module) -> None:
    model = nn.Sequential(norm)
    with quick_norms(model):
        assert "forward" not in vars(norm)


def test_a_norm_whose_forward_is_somebodys_hook_is_left_alone() -> None:
    norm: Any = LlamaRMSNorm(4)

    def hooked(states: Tensor) -> Tensor:
        return states + 1

    norm.forward = hooked
    with quick_norms(nn.Sequential(norm)):
        assert norm.forward is hooked
    assert norm.forward is hooked


def test_norms_are_given_back_after_an_error() -> None:
    model = with_weights(LlamaRMSNorm(4))
    with pytest.raises(RuntimeError), quick_norms(model):
        model(torch.zeros(1, 5))
    assert "forward" not in vars(model[0])
