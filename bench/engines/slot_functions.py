"""The two functions that an unmodified transformers model calls while it runs in slots.

They are registered through transformers' own extension points (AttentionInterface, ExpertsInterface); an extra keyword of the model's
forward, `slot_cache`, reaches the attention function. As no mask function is registered under the name, transformers builds no mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.moe import ExpertsInterface

from bench.engines.products import Linear, batch_product, linear, quick_products
from bench.engines.slot_cache import SlotCache

NAME = "effortbench_slots"


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    slot_cache: SlotCache | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Grouped-query attention over slots, without repeating keys: (rows, queries, heads, dim)."""
    if slot_cache is None:
        raise RuntimeError(f"attention {NAME!r} works inside the slot engine only")
    key, value, mask = slot_cache.extend(module.layer_idx, key, value, sliding_window)
    rows, heads, queries, dim = query.shape
    groups, columns = key.shape[1:3]
    scores = batch_product(query.reshape(rows * groups, -1, dim) * scaling, key.flatten(0, 1).transpose(1, 2))
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    by_head = scores.view(rows, groups, heads // groups, queries, columns)
    if mask is not None:
        by_head += mask
    by_head[..., 0] = float("-inf") if s_aux is None else s_aux.to(scores.dtype).view(groups, heads // groups, 1)
    output = batch_product(torch.softmax(scores, dim=-1), value.flatten(0, 1))
    return output.view(rows, heads, queries, -1).transpose(1, 2), None


def grouped_experts(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Mixture of experts as one matrix product per expert that was chosen; on a CPU the fastest of those measured."""
    top_k = top_k_index.shape[-1]
    if len(hidden_states) == 1:  # nothing to sort: every chosen expert gets the one token
        experts = top_k_index[0].tolist()
        states = _feed_forward(self, hidden_states.expand(top_k, -1), experts, [1] * top_k)
        return torch.mm(top_k_weights.to(states.dtype), states)
    chosen = top_k_index.flatten()
    order = chosen.argsort(stable=True)
    counts = torch.bincount(chosen, minlength=self.num_experts).tolist()
    experts = [expert for expert, count in enumerate(counts) if count]
    states = _feed_forward(self, hidden_states.index_select(0, order // top_k), experts, [counts[expert] for expert in experts])
    states = states * top_k_weights.flatten().index_select(0, order)[:, None]
    return torch.empty_like(states).index_copy_(0, order, states).view(*top_k_index.shape, -1).sum(1)


def _feed_forward(module: Any, states: Tensor, experts: list[int], counts: list[int]) -> Tensor:
    """Rows of `states` through the experts, each taking its count of them in turn."""
    if module.has_gate:
        states = module._apply_gate(_project(module, "gate_up_proj", states, experts, counts))
    else:
        states = module.act_fn(_project(module, "up_proj", states, experts, counts))
    return _project(module, "down_proj", states, experts, counts)


def _project(module: Any, name: str, states: Tensor, experts: list[int], counts: list[int]) -> Tensor:
    linears = _held.get((module, name))
    if linears is None:
        linears = _held[module, name] = _linears(module, name)
    return torch.cat([linears[expert](given) for expert, given in zip(experts, states.split(counts), strict=True)])


def _linears(module: Any, name: str) -> list[Linear]:
    """A linear map an expert. The weights are read once: where LoRA wraps them, they are computed at each access."""
    weight = getattr(module, name)
    if module.is_transposed:
        weight = weight.transpose(1, 2)
    biases = getattr(module, f"{name}_bias") if module.has_bias else [None] * len(weight)
    return [linear(*each) for each in zip(weight, biases, strict=True)]


_held: dict[tuple[Any, str], list[Linear]] = {}
"""Linear maps of the experts, by module and projection, of the model that is being served."""


AttentionInterface.register(NAME, slot_attention)
ExpertsInterface.register(NAME, grouped_experts)


@contextmanager
def slot_functions(model: Any) -> Iterator[None]:
    """Let the model call the functions above, and give it back as it was."""
    attention, experts = model.config._attn_implementation, model.config._experts_implementation
    try:
        model.set_attn_implementation(NAME)
        if model.device.type != "cpu":  # transformers' grouped products are better there, and need no host round trip
            yield
            return
        model.set_experts_implementation(NAME)
        with quick_products(model):
            yield
    finally:
        _held.clear()
        model.set_attn_implementation(attention)
        model.set_experts_implementation(experts)
