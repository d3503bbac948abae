"""What LoRA trains, how many parameters that must be, and which tokens carry loss. Pure.

The same names mean the same weights on a CPU and on CUDA: `attention` is the four projections; `attention+experts` adds the experts'
two fused matrices, or their per-expert linears where the checkpoint has those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bench.harmony import Specials

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERT_LINEARS = ["gate_proj", "up_proj", "down_proj"]
EXPERT_PARAMETERS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]

RESPONSE = "<|start|>assistant"
ANALYSIS = "<|start|>assistant<|channel|>analysis<|message|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"
USER = "<|start|>user<|message|>"


class Markers(NamedTuple):
    """Where unsloth's train_on_responses_only stops and starts to supervise."""

    instruction_part: str
    response_part: str


def markers(train_on: Iterable[str]) -> Markers:
    """Markers for the channels that carry loss.

    The well-known notebook's `<|start|>assistant<|channel|>final<|message|>` trains the final channel alone: the reasoning gets no loss.
    """
    channels = set(train_on)
    if channels == {"final"}:
        return Markers(USER, FINAL)
    if channels == {"analysis"}:
        return Markers(FINAL, ANALYSIS)
    return Markers(USER, RESPONSE)


class Targets(NamedTuple):
    """What PEFT is asked to adapt."""

    modules: list[str]
    parameters: list[str] | None


def targets(named: str, parameter_names: Iterable[str]) -> Targets:
    """Modules and parameters that the experiment's `targets` means in a model with these parameter names."""
    if named == "attention":
        return Targets(ATTENTION, None)
    if any(name.endswith("mlp.experts.gate_up_proj") for name in parameter_names):
        return Targets(ATTENTION, EXPERT_PARAMETERS)
    return Targets(ATTENTION + EXPERT_LINEARS, None)


def mask(ids: Sequence[int], response: Sequence[int], start: int) -> list[int]:
    """Labels: a message's tokens after the `response` marker, -100 elsewhere. A message ends before the next `start` token.

    The same as unsloth's train_on_responses_only with `markers`, for a process without unsloth.
    """
    labels, position, is_response = [-100] * len(ids), 0, False
    while position < len(ids):
        if list(ids[position : position + len(response)]) == list(response):
            is_response = True
            position += len(response)
            continue
        is_response = is_response and ids[position] != start
        if is_response:
            labels[position] = ids[position]
        position += 1
    return labels


def expected_parameters(config: Any, rank: int, targets: str) -> dict[str, int]:
    """Trainable parameters by kind that LoRA must have on a gpt-oss config: rank x (inputs + outputs) of every matrix."""
    hidden, layers = config.hidden_size, config.num_hidden_layers
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    attention = layers * rank * ((hidden + queries) + 2 * (hidden + keys) + (queries + hidden))
    if targets == "attention":
        return {"attention": attention, "experts": 0}
    inner = config.intermediate_size
    experts = layers * config.num_local_experts * rank * ((hidden + 2 * inner) + (inner + hidden))
    return {"attention": attention, "experts": experts}


def trainable_parameters(named_parameters: Iterable[tuple[str, Any]]) -> dict[str, int]:
    """Parameters that require a gradient, by kind."""
    counts: Counter[str] = Counter(attention=0, experts=0)
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            counts["experts" if ".experts" in name else "attention" if ".self_attn." in name else "other"] += parameter.numel()
    return dict(counts)


def supervised_tokens(input_ids: Sequence[int], labels: Sequence[int], specials: Specials, channels: Mapping[int, str]) -> Counter[str]:
    """Tokens of one row that carry loss, by the channel they stand in; `format` are Harmony's own tokens and headers.

    `channels` maps the first token after <|channel|> to the channel's name.
    """
    counts: Counter[str] = Counter()
    channel, in_content = "format", False
    for position, (token, label) in enumerate(zip(input_ids, labels, strict=True)):
        if token in specials.ids:
            in_content = token == specials.message
            if token == specials.channel and position + 1 < len(input_ids):
                channel = channels.get(input_ids[position + 1], "format")
            if token == specials.start:
                channel = "format"
        if label != -100:
            counts[channel if in_content and token not in specials.ids else "format"] += 1
    return counts
