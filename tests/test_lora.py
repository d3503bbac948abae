"""What LoRA trains and which tokens carry loss: arithmetic, without a trainer."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import pytest

from bench.finetune.lora import (
    ANALYSIS,
    ATTENTION,
    EXPERT_LINEARS,
    EXPERT_PARAMETERS,
    FINAL,
    RESPONSE,
    USER,
    expected_parameters,
    markers,
    mask,
    supervised_tokens,
    targets,
    trainable_parameters,
)
from bench.harmony import CHANNELS, find_specials
from bench.models import EMBEDDED, load_tokenizer

THINKS = "<|start|>user<|message|>2+2?<|end|><|start|>assistant<|channel|>analysis<|message|>2 + 2 = 4<|end|>"
ANSWERS = "<|start|>assistant<|channel|>final<|message|>The answer is 4.<|return|>"


@cache
def tokenizer() -> Any:
    return load_tokenizer(EMBEDDED)


def ids(text: str) -> list[int]:
    found: list[int] = tokenizer()(text, add_special_tokens=False)["input_ids"]
    return found


def gpt_oss(**changes: int) -> Any:
    """The shape of gpt-oss-20b, without weights."""
    from transformers import GptOssConfig

    shape = {"num_hidden_layers": 24, "num_local_experts": 32, "hidden_size": 2880, "intermediate_size": 2880, "head_dim": 64}
    return GptOssConfig(**{**shape, "num_attention_heads": 64, "num_key_value_heads": 8, **changes})


@pytest.mark.parametrize("rank", [1, 8, 128])
def test_parameters_of_gpt_oss_20b_are_the_known_ones(rank: int) -> None:
    """497,664 r in attention and 11,059,200 r in the experts; r = 8 on both is the 92,454,912 that was seen on a GPU."""
    assert expected_parameters(gpt_oss(), rank, "attention") == {"attention": 497_664 * rank, "experts": 0}
    both = expected_parameters(gpt_oss(), rank, "attention+experts")
    assert both == {"attention": 497_664 * rank, "experts": 11_059_200 * rank}
    assert rank != 8 or sum(both.values()) == 92_454_912


@pytest.mark.parametrize("targets", ["attention", "attention+experts"])
def test_expected_parameters_are_those_that_peft_makes(targets: str) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from bench.finetune.lora import ATTENTION, EXPERT_PARAMETERS

    small = gpt_oss(
        num_hidden_layers=2, num_local_experts=4, hidden_size=48, intermediate_size=40, head_dim=8, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=32,
    )  # fmt: skip
    reached = {"target_parameters": EXPERT_PARAMETERS} if targets == "attention+experts" else {}
    model = get_peft_model(AutoModelForCausalLM.from_config(small), LoraConfig(r=3, target_modules=ATTENTION, lora_dropout=0.0, **reached))
    assert trainable_parameters(model.named_parameters()) == expected_parameters(small, 3, targets)


def test_parameters_that_belong_nowhere_are_counted_apart() -> None:
    import torch

    head = torch.nn.Linear(3, 5, bias=False)
    named = [(f"lm_head.{name}", parameter) for name, parameter in head.named_parameters()]
    assert trainable_parameters(named) == {"attention": 0, "experts": 0, "other": 15}
    assert trainable_parameters([]) == {"attention": 0, "experts": 0}


def test_markers_say_which_channels_carry_loss() -> None:
    assert markers(["analysis", "final"]) == markers(["final", "analysis"]) == (USER, RESPONSE)
    assert markers(["final"]) == (USER, FINAL)
    assert markers(["analysis"]) == (FINAL, ANALYSIS)


def count(labelled: list[tuple[str, bool]]) -> Counter[str]:
    """Supervised tokens of a text given in pieces, each with or without loss."""
    tokens = [(token, is_supervised) for text, is_supervised in labelled for token in ids(text)]
    first = {ids(name)[0]: name for name in CHANNELS}
    labels = [token if is_supervised else -100 for token, is_supervised in tokens]
    return supervised_tokens([token for token, _ in tokens], labels, find_specials(tokenizer()), first)


def test_supervised_tokens_are_counted_by_channel() -> None:
    counts = count([(THINKS + ANSWERS, True)])
    assert counts["analysis"] == len(ids("2 + 2 = 4"))
    assert counts["final"] == len(ids("The answer is 4."))
    assert sum(counts.values()) == len(ids(THINKS + ANSWERS))


def test_tokens_without_loss_are_not_counted() -> None:
    counts = count([(THINKS, False), (ANSWERS, True)])
    assert counts["analysis"] == 0
    assert counts["final"] == len(ids("The answer is 4."))
    assert counts["format"] == len(ids(ANSWERS)) - counts["final"]
    assert count([(THINKS + ANSWERS, False)]).total() == 0


def test_headers_and_the_prompt_are_format() -> None:
    before, after = THINKS.split("2 + 2 = 4")
    assert set(count([(before, True), ("2 + 2 = 4", False), (after, True)])) == {"format"}


@pytest.mark.parametrize(
    ("train_on", "supervised"),
    [
        (["analysis"], "2 + 2 = 4<|end|>"),
        (["final"], "The answer is 4.<|return|>"),
        (["analysis", "final"], "<|channel|>analysis<|message|>2 + 2 = 4<|end|><|channel|>final<|message|>The answer is 4.<|return|>"),
    ],
)
def test_the_mask_leaves_the_trained_channels(train_on: list[str], supervised: str) -> None:
    found = mask(ids(THINKS + ANSWERS), ids(markers(train_on).response_part), find_specials(tokenizer()).start)
    assert [label for label in found if label != -100] == ids(supervised)
    assert len(found) == len(ids(THINKS + ANSWERS))


def test_a_text_without_the_marker_carries_no_loss() -> None:
    assert set(mask(ids("<|start|>user<|message|>2+2?<|end|>"), ids(RESPONSE), find_specials(tokenizer()).start)) == {-100}
    assert mask([], ids(RESPONSE), 0) == []


def test_targets_follow_the_layout() -> None:
    fused, apart = ["model.layers.0.mlp.experts.gate_up_proj"], ["model.layers.0.mlp.experts.gate_up_projs.0.weight"]
    assert targets("attention", fused) == targets("attention", apart) == (ATTENTION, None)
    assert targets("attention+experts", fused) == (ATTENTION, EXPERT_PARAMETERS)
    assert targets("attention+experts", apart) == (ATTENTION + EXPERT_LINEARS, None)
