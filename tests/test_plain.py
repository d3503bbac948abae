"""Batches through transformers' generate against the same generate row by row, token for token, in float32."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from test_slots import BYPASSING, CONFIGS, NEVER, embedded, embedded_reference, forwards, tiny, tiny_rows, tokens

from bench.engines import Row
from bench.engines.choose import choose_engine
from bench.engines.padding import moved_by_batching, padding_is_harmless
from bench.engines.plain import GenerateEngine
from bench.engines.slots import SlotEngine
from bench.harmony import find_specials
from bench.models import EMBEDDED, load_tokenizer


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", [*CONFIGS, *BYPASSING])
def test_greedy_output_in_batches_is_that_of_batch_1(name: str) -> None:
    count = 33 if name in CONFIGS else 12  # what CUDA kernels do for the others is slow without them
    rows = tiny_rows(count)
    reference = tokens(GenerateEngine(tiny(name), NEVER), rows)
    for slots in (4, 32):
        assert tokens(GenerateEngine(tiny(name), NEVER, slots), rows) == reference
    order = random.Random(1).sample(range(count), count)
    shuffled = tokens(GenerateEngine(tiny(name), NEVER, 8), [rows[index] for index in order])
    assert {order[place]: generated for place, generated in shuffled.items()} == reference


@pytest.mark.slow
def test_greedy_output_of_the_embedded_model_in_batches_is_that_of_batch_1() -> None:
    model, stop_ids, rows = embedded()
    assert tokens(GenerateEngine(model, stop_ids, 5), rows) == embedded_reference()


def test_a_batch_draws_what_its_rows_draw_alone_and_in_slots() -> None:
    rows = [Row(row.prompt, row.max_new_tokens, number % 3, seed=number) for number, row in enumerate(tiny_rows(24))]  # a third greedy
    alone = tokens(GenerateEngine(tiny("llama"), NEVER), rows)
    assert tokens(GenerateEngine(tiny("llama"), NEVER, 8), rows) == alone
    assert tokens(SlotEngine(tiny("llama"), NEVER, 8), rows) == alone
    others = [Row(row.prompt, row.max_new_tokens, row.temperature, row.seed + 100) for row in rows]
    assert tokens(GenerateEngine(tiny("llama"), NEVER, 8), others) != alone


def test_rows_of_a_batch_end_at_their_own_stop_token_or_limit() -> None:
    rows = [Row(row.prompt, 12 + number % 12) for number, row in enumerate(tiny_rows(20))]
    free = tokens(GenerateEngine(tiny("llama"), NEVER), rows)
    stop = frozenset({free[0][3], free[7][10]})
    ended = {generation.index: generation for generation in GenerateEngine(tiny("llama"), stop, 8).generate(rows)}
    assert ended.keys() == free.keys()
    assert {generation.stop_reason for generation in ended.values()} == {"stop", "length"}
    for index, generation in ended.items():
        cut = next((number for number, token in enumerate(free[index], 1) if token in stop), None)
        assert (generation.tokens, generation.stop_reason) == (free[index][:cut], "length" if cut is None else "stop")


def test_a_batch_is_of_like_limits_and_ends_with_its_longest_row() -> None:
    rows = [Row((1, 2, 3), limit) for limit in (2, 9, 2, 9, 2)]
    with forwards(tiny("llama")) as seen:
        ended = [generation.index for generation in GenerateEngine(tiny("llama"), NEVER, 2).generate(rows)]
    assert ended == [1, 3, 0, 2, 4]
    assert [width for width, _ in seen] == [2] * 9 + [2] * 2 + [1] * 2


def test_a_finished_batch_comes_before_the_next_is_begun() -> None:
    with forwards(tiny("llama")) as seen:
        next(GenerateEngine(tiny("llama"), NEVER, 2).generate([Row((1, 2, 3), 4)] * 6))
    assert len(seen) == 4


def test_times_are_those_of_the_row_in_its_batch() -> None:
    rows = [Row((1, 2, 3), limit) for limit in (20, 2)]
    long, short = GenerateEngine(tiny("llama"), NEVER, 2).generate(rows)
    assert long.ttft_s == short.ttft_s
    assert 0 < short.ttft_s < short.latency_s < long.latency_s  # type: ignore[operator]


# --- models that do not heed the padding


@contextmanager
def deaf_to_padding(model: Any) -> Iterator[Any]:
    """The model sees its padding as if it were text."""

    def drop_mask(_module: Any, args: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**named, "attention_mask": None, "position_ids": None}

    hook = model.register_forward_pre_hook(drop_mask, with_kwargs=True)
    try:
        yield model
    finally:
        hook.remove()


@pytest.mark.parametrize("name", [*CONFIGS, *BYPASSING])
def test_padding_is_harmless_where_the_model_heeds_the_mask(name: str) -> None:
    assert padding_is_harmless(tiny(name))
    assert max(moved_by_batching(tiny(name))) < 1e-5


def test_padding_is_found_out_where_the_model_sees_it() -> None:
    with deaf_to_padding(tiny("llama")) as model:
        unpadded, padded = moved_by_batching(model)
        assert unpadded < 1e-5
        assert padded > 0.05
        assert not padding_is_harmless(model)


def test_in_16_bits_rounding_is_told_from_padding() -> None:
    model = tiny("llama").to(torch.bfloat16)
    try:
        assert padding_is_harmless(model)
        with deaf_to_padding(model):
            assert not padding_is_harmless(model)
    finally:
        model.float()
    # the weights have been rounded, but are the same for all that follows
    assert padding_is_harmless(model)


def test_a_model_that_bypasses_the_slots_runs_in_batches_of_as_many_rows() -> None:
    engine = choose_engine(tiny(next(iter(BYPASSING))), load_tokenizer(EMBEDDED), slots=8)
    assert (engine.name, engine.slots) == ("generate", 8)


def test_a_model_that_sees_its_padding_runs_row_by_row_and_the_record_says_so() -> None:
    with deaf_to_padding(tiny(next(iter(BYPASSING)))) as model:
        engine = choose_engine(model, load_tokenizer(EMBEDDED), slots=8)
        assert (engine.name, engine.slots) == ("generate", 1)
        rows = tiny_rows(6)
        assert tokens(engine, rows) == tokens(GenerateEngine(model, find_specials(load_tokenizer(EMBEDDED)).stop_ids), rows)
