"""A mixture of experts on a CPU, as transformers' ExpertsInterface calls it: `(hidden states, chosen experts, their weights) -> states`.

One matrix product per expert that was chosen is the fastest of those measured (docs/measurements.md), but where few tokens choose nearly
every expert: every expert is then asked about all of them in one product, whose extra rows cost less than many small products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.engines.products import linear

EXTRA_ROWS = 64
"""Most rows that experts may be asked about beyond those they were chosen for."""


class _Projection:
    """The linear maps of all experts of a module. The weights are read once: where LoRA wraps them, each access computes them."""

    def __init__(self, module: Any, name: str):
        weight, bias = getattr(module, name), getattr(module, f"{name}_bias") if module.has_bias else None
        self.weight: Tensor = weight if module.is_transposed else weight.transpose(1, 2)
        self.bias: Tensor | None = None if bias is None else bias[:, None]
        biases = [None] * len(weight) if bias is None else bias
        self.maps = [linear(*each) for each in zip(self.weight.transpose(1, 2), biases, strict=True)]

    def of_all(self, states: Tensor) -> Tensor:
        """(experts, rows, in) -> (experts, rows, out)."""
        return torch.bmm(states, self.weight) if self.bias is None else torch.baddbmm(self.bias, states, self.weight)

    def of_chosen(self, states: Tensor, experts: list[int], counts: list[int]) -> Tensor:
        """(rows, in) -> (rows, out), each of the experts taking its count of rows in turn."""
        return torch.cat([self.maps[expert](given) for expert, given in zip(experts, states.split(counts), strict=True)])


_held: dict[tuple[Any, str], _Projection] = {}
"""Projections by module and name, of the model that is being served."""


def release() -> None:
    """Let go of the weights."""
    _held.clear()


def grouped_experts(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """(tokens, hidden), (tokens, top k) and (tokens, top k) -> (tokens, hidden)."""
    tokens, top_k = top_k_index.shape
    if tokens * top_k >= self.num_experts and tokens * (self.num_experts - top_k) <= EXTRA_ROWS:
        states = _feed_forward(self, hidden_states.expand(self.num_experts, -1, -1), _Projection.of_all)
        places = top_k_index * tokens + torch.arange(tokens)[:, None]
        chosen = states.flatten(0, 1).index_select(0, places.flatten()).view(tokens, top_k, -1)
        return torch.bmm(top_k_weights[:, None].to(chosen.dtype), chosen)[:, 0]
    if tokens == 1:  # nothing to sort: every chosen expert gets the one token
        states = _of_chosen(self, hidden_states.expand(top_k, -1), top_k_index[0].tolist(), [1] * top_k)
        return torch.mm(top_k_weights.to(states.dtype), states)
    flat = top_k_index.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=self.num_experts).tolist()
    experts = [expert for expert, count in enumerate(counts) if count]
    states = _of_chosen(self, hidden_states.index_select(0, order // top_k), experts, [counts[expert] for expert in experts])
    states = states * top_k_weights.flatten().index_select(0, order)[:, None]
    return torch.empty_like(states).index_copy_(0, order, states).view(tokens, top_k, -1).sum(1)


def _of_chosen(module: Any, states: Tensor, experts: list[int], counts: list[int]) -> Tensor:
    return _feed_forward(module, states, lambda projection, given: projection.of_chosen(given, experts, counts))


def _feed_forward(module: Any, states: Tensor, project: Callable[[_Projection, Tensor], Tensor]) -> Tensor:
    if module.has_gate:
        states = module._apply_gate(project(_projection(module, "gate_up_proj"), states))
    else:
        states = module.act_fn(project(_projection(module, "up_proj"), states))
    return project(_projection(module, "down_proj"), states)


def _projection(module: Any, name: str) -> _Projection:
    held = _held.get((module, name))
    if held is None:
        held = _held[module, name] = _Projection(module, name)
    return held
