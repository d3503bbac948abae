"""Experts on a CPU: every way they are asked gives what transformers' own loop gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import GptOssConfig, MixtralConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from bench.engines import experts
from bench.engines.experts import EXTRA_ROWS, grouped_experts

SHAPE = {"hidden_size": 24, "intermediate_size": 40, "num_local_experts": 4, "num_experts_per_tok": 2}


def module_of(kind: str) -> Any:
    """Of gpt-oss: transposed weights, biases, interleaved gates; of Mixtral: none of them."""
    torch.manual_seed(3)
    made: Any = GptOssExperts(GptOssConfig(**SHAPE)) if kind == "gpt-oss" else MixtralExperts(MixtralConfig(**SHAPE))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    made.config._experts_implementation = "eager"
    return made.eval()


def choices(tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States, chosen experts and their weights."""
    generator = torch.Generator().manual_seed(tokens)
    best = torch.rand(tokens, 4, generator=generator).topk(2)
    return torch.randn(tokens, 24, generator=generator), best.indices, best.values


@pytest.mark.parametrize("kind", ["gpt-oss", "mixtral"])
@pytest.mark.parametrize("tokens", [1, 2, 3, EXTRA_ROWS // 2, EXTRA_ROWS // 2 + 1, 150])
@torch.inference_mode()
def test_every_number_of_tokens_gets_what_the_loop_over_experts_gives(kind: str, tokens: int) -> None:
    module = module_of(kind)
    states, chosen, weights = choices(tokens)
    try:
        torch.testing.assert_close(grouped_experts(module, states, chosen, weights), module(states, chosen, weights), rtol=1e-4, atol=1e-5)
    finally:
        experts.release()


@torch.inference_mode()
def test_an_expert_that_nobody_chose_cannot_spoil_an_answer() -> None:
    """Though few tokens are asked of all experts: zero times what is no number is no number."""
    module = module_of("gpt-oss")
    states, _, weights = choices(3)
    chosen = torch.tensor([[0, 1], [1, 2], [2, 0]])
    expected = module(states, chosen, weights)
    module.down_proj_bias[3] = float("nan")
    try:
        torch.testing.assert_close(grouped_experts(module, states, chosen, weights), expected, rtol=1e-4, atol=1e-5)
    finally:
        experts.release()


@torch.inference_mode()
def test_few_tokens_are_asked_in_two_products_and_many_by_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    module, products = module_of("gpt-oss"), []
    monkeypatch.setattr(torch, "baddbmm", lambda *given, real=torch.baddbmm: products.append(given[1].shape) or real(*given))
    try:
        for tokens in (1, 2, EXTRA_ROWS // 2 + 1):
            grouped_experts(module, *choices(tokens))
    finally:
        experts.release()
    assert products == [(4, 2, 24), (4, 2, 40)]
