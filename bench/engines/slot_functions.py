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
    scores = torch.matmul(query.reshape(rows, groups, -1, dim) * scaling, key.transpose(2, 3))
    scores = scores.view(rows, groups, heads // groups, queries, columns)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores += mask
    if s_aux is not None:
        scores[..., 0] = s_aux.to(scores.dtype).view(groups, heads // groups, 1)
    weights = torch.softmax(scores, dim=-1).view(rows, groups, -1, columns)
    return torch.matmul(weights, value).view(rows, heads, queries, -1).transpose(1, 2), None


def grouped_experts(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Mixture of experts as one matrix product per expert that was chosen; on a CPU the fastest of those measured."""
    chosen = top_k_index.flatten()
    order = chosen.argsort(stable=True)
    counts = torch.bincount(chosen, minlength=self.num_experts).tolist()
    states = hidden_states.index_select(0, order // top_k_index.shape[-1])
    if self.has_gate:
        states = self._apply_gate(_project(self, "gate_up_proj", states, counts))
    else:
        states = self.act_fn(_project(self, "up_proj", states, counts))
    states = _project(self, "down_proj", states, counts) * top_k_weights.flatten().index_select(0, order)[:, None]
    return torch.empty_like(states).index_copy_(0, order, states).view(*top_k_index.shape, -1).sum(1)


def _project(module: Any, name: str, states: Tensor, counts: list[int]) -> Tensor:
    weight = getattr(module, name)  # read once: a LoRA-wrapped weight is computed at each access
    if not module.is_transposed:
        weight = weight.transpose(1, 2)
    bias = getattr(module, f"{name}_bias") if module.has_bias else None
    output = states.new_empty(len(states), weight.shape[-1])
    end = 0
    for expert, count in enumerate(counts):
        if count:
            start, end = end, end + count
            part = output[start:end]
            torch.mm(states[start:end], weight[expert], out=part)
            if bias is not None:
                part += bias[expert]
    return output


AttentionInterface.register(NAME, slot_attention)
ExpertsInterface.register(NAME, grouped_experts)


@contextmanager
def slot_functions(model: Any) -> Iterator[None]:
    """Let the model call the functions above, and give it back as it was."""
    attention, experts = model.config._attn_implementation, model.config._experts_implementation
    try:
        model.set_attn_implementation(NAME)
        if model.device.type == "cpu":  # on CUDA transformers' grouped products are better, and need no host round trip
            model.set_experts_implementation(NAME)
        yield
    finally:
        model.set_attn_implementation(attention)
        model.set_experts_implementation(experts)
