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

from bench.engines import experts
from bench.engines.norms import quick_norms
from bench.engines.products import batch_product, quick_products
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


AttentionInterface.register(NAME, slot_attention)
ExpertsInterface.register(NAME, experts.grouped_experts)


@contextmanager
def slot_functions(model: Any) -> Iterator[None]:
    """Let the model call the functions above, and give it back as it was."""
    before = model.config._attn_implementation, model.config._experts_implementation
    try:
        model.set_attn_implementation(NAME)
        if model.device.type != "cpu":  # transformers' grouped products are better there, and need no host round trip
            yield
            return
        model.set_experts_implementation(NAME)
        with quick_products(model), quick_norms(model):
            yield
    finally:
        experts.release()
        model.set_attn_implementation(before[0])
        model.set_experts_implementation(before[1])
