"""An adapter trained on one linear an expert says the same on fused experts: against PEFT on a model that has those linears."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from bench.errors import ModelError
from bench.expert_adapters import fuse, is_per_expert
from bench.models import EMBEDDED, attach, load_checked, merged

IDS = torch.tensor([[5, 17, 200, 31, 8, 90, 44, 3, 120, 77]])


class Apart(torch.nn.Module):
    """Experts as Unsloth's 4-bit checkpoint has them, a linear each; the arithmetic is gpt-oss's."""

    def __init__(self, fused: Any):
        super().__init__()
        self.alpha, self.limit = fused.alpha, fused.limit
        self.gate_up_projs = linears(fused.gate_up_proj, fused.gate_up_proj_bias)
        self.down_projs = linears(fused.down_proj, fused.down_proj_bias)

    def forward(self, states: Any, router_indices: Any, routing_weights: Any) -> Any:
        rows = states.reshape(-1, states.shape[-1])
        out = torch.zeros_like(rows)
        for number, (gate_up, down) in enumerate(zip(self.gate_up_projs, self.down_projs, strict=True)):
            row, choice = (router_indices.reshape(len(rows), -1) == number).nonzero(as_tuple=True)
            made = gate_up(rows[row])
            gate, up = made[..., ::2].clamp(max=self.limit), made[..., 1::2].clamp(-self.limit, self.limit)
            weight = routing_weights.reshape(len(rows), -1)[
                row, choice if routing_weights.shape[-1] == router_indices.shape[-1] else number
            ]
            out.index_add_(0, row, down((up + 1) * gate * torch.sigmoid(gate * self.alpha)) * weight[:, None])
        return out.reshape(states.shape)


def linears(weights: Any, biases: Any) -> torch.nn.ModuleList:
    made = torch.nn.ModuleList()
    for weight, bias in zip(weights.detach(), biases.detach(), strict=True):
        linear = torch.nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = weight.T.contiguous(), bias.clone()
        made.append(linear)
    return made


def model_apart() -> Any:
    model = load_checked(EMBEDDED, "float32")
    for layer in model.model.layers:
        layer.mlp.experts = Apart(layer.mlp.experts)
    return model


@torch.inference_mode()
def logits(model: Any) -> Any:
    return model.eval()(input_ids=IDS).logits


@pytest.fixture(scope="module", params=["16", "rslora"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder written by PEFT, and what the model with that adapter says."""
    torch.manual_seed(11)
    experts = load_checked(EMBEDDED, "float32").config.num_local_experts
    names = [f"{matrix}.{number}" for matrix in ("gate_up_projs", "down_projs") for number in range(experts)]
    config = LoraConfig(
        r=4, lora_alpha=16, use_rslora=request.param == "rslora", init_lora_weights=False, target_modules=["q_proj", "o_proj", *names]
    )
    model = get_peft_model(model_apart(), config)
    folder = tmp_path_factory.mktemp("per-expert")
    model.save_pretrained(folder)
    return folder, logits(model)


def test_a_model_with_a_linear_an_expert_says_what_the_fused_one_says() -> None:
    torch.testing.assert_close(logits(model_apart()), logits(load_checked(EMBEDDED, "float32")), atol=1e-4, rtol=1e-4)


def test_an_adapter_of_single_experts_says_the_same_on_fused_ones_beside_and_merged(trained: tuple[Path, Any]) -> None:
    folder, wanted = trained
    adapted = attach(load_checked(EMBEDDED, "float32"), folder)
    alone = logits(load_checked(EMBEDDED, "float32"))
    assert (wanted - alone).abs().max() > 1
    torch.testing.assert_close(logits(adapted), wanted, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(logits(merged(adapted)), wanted, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("change", ["an expert left out", "a layer too many", "a matrix left out"])
def test_an_adapter_that_does_not_fit_is_refused(trained: tuple[Path, Any], tmp_path: Path, change: str) -> None:
    weights = load_file(trained[0] / "adapter_model.safetensors")
    if change == "a layer too many":
        weights |= {name.replace("layers.0.", "layers.99."): weight.clone() for name, weight in weights.items() if "layers.0." in name}
    else:
        gone = "gate_up_projs.3." if change == "an expert left out" else "layers.0.mlp.experts.down_projs."
        weights = {name: weight for name, weight in weights.items() if gone not in name}
    save_file(weights, tmp_path / "adapter_model.safetensors")
    config = json.loads((trained[0] / "adapter_config.json").read_text(encoding="utf-8"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="does not fit the base model"):
        attach(load_checked(EMBEDDED, "float32"), tmp_path)


def test_an_adapter_of_attention_alone_is_none_of_single_experts() -> None:
    assert not is_per_expert(["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"])
    assert fuse({}, 4) == {}
