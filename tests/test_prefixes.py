"""Prompts that begin alike: what they share is read once, and nothing else changes."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_slots import CONFIGS, NEVER, forwards, tiny, tokens

from bench.engines import Row
from bench.engines.plain import GenerateEngine
from bench.engines.prefixes import FAMILY, common_length, find_families
from bench.engines.slots import SlotEngine

PROMPTS = st.lists(st.integers(0, 2), max_size=6).map(tuple)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@given(PROMPTS, PROMPTS)
def test_the_common_beginning_is_the_longest(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert common_length(one, other) == len(os.path.commonprefix([one, other]))


@given(st.lists(PROMPTS, max_size=60))
def test_families_are_large_and_their_members_have_a_next_of_kin(prompts: list[tuple[int, ...]]) -> None:
    families = find_families(prompts)
    assert len(families) == len(prompts)
    for family in set(families) - {0}:
        members = [prompt for prompt, its in zip(prompts, families, strict=True) if its == family]
        assert len(members) >= FAMILY
        for index, member in enumerate(members):
            others = members[:index] + members[index + 1 :]
            assert any(2 * common_length(member, other) >= min(len(member), len(other)) for other in others)


def test_prompts_of_one_beginning_are_one_family_and_strangers_none() -> None:
    shots = {"en": tuple(range(40)), "de": tuple(range(20, 60))}
    prompts = [(*shots[language], 61, number % 7, number) for number in range(20) for language in ("en", "de")]
    families = find_families([*prompts, (1, 2, 3), (9,)])
    assert {families[0], families[1]} == set(families) - {0}
    assert families[:-2] == [families[0], families[1]] * 20
    assert families[-2:] == [0, 0]


# --- exactness


def families_and_strangers(seed: int) -> list[Row]:
    """Prompts that share most, little or nothing, some of them equal, one the beginning of others."""
    draw = random.Random(seed)
    some = lambda least, most: tuple(draw.choices(range(64), k=draw.randint(least, most)))  # noqa: E731
    shots, header = some(30, 30), some(9, 9)
    prompts = [(*shots, *some(1, 6)) for _ in range(10)] + [shots, shots] + [shots[:20]]
    prompts += [(*header, *some(1, 20)) for _ in range(8)] + [some(1, 25) for _ in range(4)] + [header] * 9
    rows = [Row(prompt, draw.randint(1, 12)) for prompt in prompts]
    return draw.sample(rows, len(rows))


@pytest.mark.parametrize("name", CONFIGS)
def test_what_prompts_share_changes_no_answer(name: str) -> None:
    """Its beginning longer than the sliding windows of `gpt-oss` and `gemma2`."""
    model, rows = tiny(name), families_and_strangers(1)
    alone = tokens(GenerateEngine(model, NEVER), rows)
    for slots, prefill_tokens in ((1, 1024), (6, 1024), (32, 1024), (32, 64), (32, 16)):
        with forwards(model) as seen:
            assert tokens(SlotEngine(model, NEVER, slots, prefill_tokens=prefill_tokens), rows) == alone, (slots, prefill_tokens)
        assert slots == 1 or prefill_tokens == 1024 or any(length in (30, 29, 9, 8) and width == 1 for width, length in seen)


# --- what is read


def read(rows: Sequence[Row], slots: int = 64, **named: Any) -> list[tuple[int, int]]:
    """(rows, tokens a row) of every forward that reads prompts."""
    model = tiny("llama")
    engine = SlotEngine(model, NEVER, slots, **named)
    with forwards(model) as seen:
        assert len(tokens(engine, rows)) == len(rows)
    return seen


SHOTS = tuple(random.Random(3).choices(range(64), k=200))


def test_what_all_begin_with_is_read_once_and_held_for_those_that_come_later() -> None:
    rows = [Row((*SHOTS, number, 7), 1) for number in range(48)]
    seen = read(rows, slots=16)
    assert seen.count((1, 200)) == 1
    assert [(width, length) for width, length in seen if length != 200] == [(16, 2)] * 3


def test_a_prompt_that_is_asked_often_is_read_once() -> None:
    assert sorted(read([Row(SHOTS, 1)] * 32)) == [(1, 199), (32, 1)]


def test_more_rows_fit_a_prefill_that_begin_alike() -> None:
    rows = [Row((*SHOTS, number), 1) for number in range(60)]
    assert sorted(read(rows, prefill_tokens=400)) == [(1, 200), (60, 1)]


def test_what_is_not_worth_a_forward_is_read_with_each() -> None:
    few = [Row((1, 2, 3, number), 1) for number in range(8)]
    assert read(few) == [(8, 4)]
    assert read([Row(SHOTS, 1)]) == [(1, 200)]


def test_each_language_of_a_suite_with_examples_is_read_together() -> None:
    shots = {"en": SHOTS[:100], "de": SHOTS[100:]}
    rows = [Row((*shots[language], number, number), 1) for number in range(16) for language in ("en", "de")]
    seen = read(rows, slots=16)
    assert seen.count((1, 100)) == 2
    assert seen.count((16, 2)) == 2
