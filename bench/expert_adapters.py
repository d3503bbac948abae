"""An adapter with a LoRA for each expert's linear -> the same adapter on fused experts.

Unsloth's 4-bit gpt-oss has a linear an expert (`experts.gate_up_projs.3`), transformers' own two fused matrices a layer
(`experts.gate_up_proj`, experts x inputs x outputs: each expert's linear, transposed). PEFT keeps a LoRA of fused matrices as one A and
one B: A holds the experts' A below one another, B the experts' columns side by side, expert by expert within each rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_EXPERT = re.compile(r"(?P<experts>.*\.experts)\.(?P<matrix>gate_up|down)_projs\.(?P<number>\d+)\.lora_(?P<part>[AB])\.weight")
_PLAIN = re.compile(r"(?P<module>.*)\.lora_[AB]\.weight")
Key = tuple[str, str, str]
"""(experts' module, `gate_up_proj` or `down_proj`, A or B)"""


def is_per_expert(keys: Iterable[str]) -> bool:
    """Whether an adapter's weights are those of one linear an expert."""
    return any(_EXPERT.fullmatch(key) for key in keys)


def fuse(weights: Mapping[str, Any], experts: int) -> dict[Key, Any]:
    """The LoRA weights of each layer's fused matrices. Raises ValueError where an expert has none: a fused LoRA has all or none."""
    apart: dict[Key, dict[int, Any]] = {}
    for name, weight in weights.items():
        if found := _EXPERT.fullmatch(name):
            key = (found["experts"], f"{found['matrix']}_proj", found["part"])
            apart.setdefault(key, {})[int(found["number"])] = weight
    for (module, matrix, part), by_expert in apart.items():
        if sorted(by_expert) != list(range(experts)):
            raise ValueError(f"{module}.{matrix} has a LoRA {part} for {len(by_expert)} of {experts} experts")
    return {key: _joined(key[2], [by_expert[number] for number in range(experts)]) for key, by_expert in apart.items()}


def _joined(part: str, weights: list[Any]) -> Any:
    import torch

    if part == "A":
        return torch.cat(weights)
    return torch.stack(weights, dim=-1).flatten(1)


def attach_per_expert(model: Any, config: Any, weights: Mapping[str, Any]) -> Any:
    """The model with fused experts, carrying the adapter of a model with a linear an expert. Raises ValueError where it does not fit.

    `config` is the adapter's LoraConfig; `weights` its safetensors.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    fused = fuse(weights, model.config.num_local_experts)
    plain = {name: weight for name, weight in weights.items() if not _EXPERT.fullmatch(name)}
    modules = sorted({found["module"].rpartition(".")[2] for name in plain if (found := _PLAIN.fullmatch(name))})
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=config.r,
            lora_alpha=config.lora_alpha,
            use_rslora=config.use_rslora,
            target_modules=modules or None,
            target_parameters=sorted({f"mlp.experts.{matrix}" for _, matrix, _ in fused}),
            bias="none",
        ),
    )
    state = plain | {_peft_name(adapted, key): weight for key, weight in fused.items()}
    result = set_peft_model_state_dict(adapted, state)
    if result.unexpected_keys:
        raise ValueError(f"{len(result.unexpected_keys)} weights have no place ({sorted(result.unexpected_keys)[0]}, ...)")
    left = [name for name in result.missing_keys if ".lora_" in name]
    if left:
        raise ValueError(f"{len(left)} LoRA weights have no value ({sorted(left)[0]}, ...)")
    return adapted.eval()


def _peft_name(adapted: Any, key: Key) -> str:
    """What PEFT calls a fused weight: a wrapper a matrix, the second around the first (`experts.base_layer`)."""
    module, matrix, part = key
    name = module
    wrapper = adapted.get_submodule(name)
    while getattr(wrapper, "parameter_name", matrix) != matrix:
        name += ".base_layer"
        wrapper = wrapper.base_layer
    return f"{name}.lora_{part}.weight"
