"""What an engine cannot do costs the row that asks for it, never another row or the run: both engines, the same answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from test_lm import Pass, tokenizer
from test_slots import NEVER, forwards, tiny, tiny_rows, tokens

from bench.engines import Engine, Generation, Row
from bench.engines.plain import GenerateEngine
from bench.engines.slots import SlotEngine
from bench.harmony import find_specials
from bench.models import EMBEDDED, load_checked

CONTEXT = 512
"""Of the tiny models."""
MARK = 63
"""A token that the models below do not survive."""
ENGINES: dict[str, Callable[..., Engine]] = {
    "slots": lambda model, slots: SlotEngine(model, NEVER, slots),
    "generate": lambda model, slots: GenerateEngine(model, NEVER, slots),
}
engines = pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def unmarked(count: int, seed: int = 0) -> list[Row]:
    return [Row(tuple(token % MARK for token in row.prompt), row.max_new_tokens) for row in tiny_rows(count, seed)]


def run(engine: Engine, rows: list[Row]) -> dict[int, Generation]:
    done = list(engine.generate(rows))
    assert sorted(generation.index for generation in done) == list(range(len(rows)))
    return {generation.index: generation for generation in done}


@contextmanager
def forgetful(model: Any, most_rows: int, error: type[RuntimeError] | RuntimeError) -> Iterator[Any]:
    """Memory runs out above so many rows side by side."""

    def check(_module: Any, _args: Any, named: Any) -> None:
        if len(named["input_ids"]) > most_rows:
            raise error

    hook = model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield model
    finally:
        hook.remove()


@contextmanager
def unsound(model: Any, after: int) -> Iterator[Any]:
    """Rows that have seen MARK get NaN as their keys from token `after` on, so that their logits and their slot hold NaN."""
    marked = torch.zeros(0, dtype=torch.bool)

    def look(_module: Any, _args: Any, named: Any) -> None:
        nonlocal marked
        ids = named["input_ids"]
        marked = (ids == MARK).any(1) if ids.shape[1] > after else (ids == MARK).any(1) & False

    def spoil(_module: Any, _args: Any, output: Any) -> Any:
        return output.masked_fill(marked[:, None, None], float("nan")) if len(marked) == len(output) else output

    hooks = [
        model.register_forward_pre_hook(look, with_kwargs=True),
        model.model.layers[0].self_attn.v_proj.register_forward_hook(spoil),
    ]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


# --- limits and contexts


@engines
def test_a_limit_of_no_tokens_is_an_empty_answer_that_was_cut(make: Any) -> None:
    rows = [*unmarked(5), Row((1, 2, 3), 0)]
    done = run(make(tiny("llama"), 4), rows)
    assert (done[5].tokens, done[5].stop_reason, done[5].latency_s, done[5].error) == ((), "length", None, None)
    assert {index: done[index].tokens for index in range(5)} == tokens(GenerateEngine(tiny("llama"), NEVER), rows[:5])


@engines
@pytest.mark.parametrize("length", [CONTEXT, CONTEXT + 1, 3 * CONTEXT])
def test_a_prompt_as_long_as_the_context_costs_its_own_row_alone(make: Any, length: int) -> None:
    rows = [*unmarked(5), Row((7,) * length, 4)]
    with forwards(tiny("llama")) as seen:
        done = run(make(tiny("llama"), 4), rows)
    assert max(width for _, width in seen) < CONTEXT
    assert (done[5].tokens, done[5].stop_reason, done[5].ttft_s) == ((), "error", None)
    assert done[5].error == f"a prompt of {length} tokens leaves no room in a context of {CONTEXT}"
    assert {index: done[index].tokens for index in range(5)} == tokens(GenerateEngine(tiny("llama"), NEVER), rows[:5])


@engines
def test_an_answer_is_cut_where_the_context_ends(make: Any) -> None:
    done = run(make(tiny("llama"), 4), [Row((7,) * (CONTEXT - 3), 40), Row((5, 6), 5)])
    assert [(len(done[index].tokens), done[index].stop_reason) for index in range(2)] == [(3, "length"), (5, "length")]


@engines
def test_a_row_that_never_stops_is_cut_at_its_limit(make: Any) -> None:
    done = run(make(tiny("llama"), 2), [Row((1, 2), 60), Row((3, 4), 2), Row((5,), 2)])
    assert [(len(done[index].tokens), done[index].stop_reason) for index in range(3)] == [(60, "length"), (2, "length"), (2, "length")]


@engines
def test_an_empty_prompt_costs_its_own_row_alone(make: Any) -> None:
    done = run(make(tiny("llama"), 2), [Row((), 4), Row((3, 4), 2)])
    assert (done[0].stop_reason, done[0].error) == ("error", "an empty prompt")
    assert len(done[1].tokens) == 2


# --- logits that are no numbers


@engines
@pytest.mark.parametrize("name", ["llama", "gpt-oss"])
def test_a_row_without_logits_costs_itself_alone_and_leaves_nothing_in_its_slot(make: Any, name: str) -> None:
    rows = unmarked(30)
    for index in (3, 11, 12, 25):
        rows[index] = Row((MARK,) * 50, rows[index].max_new_tokens)  # longer than any other row gets
    healthy = [index for index in range(30) if MARK not in rows[index].prompt]
    reference = tokens(GenerateEngine(tiny(name), NEVER), [rows[index] for index in healthy])
    with unsound(tiny(name), after=1):
        done = run(make(tiny(name), 4), rows)
    for index in (3, 11, 12, 25):
        assert (done[index].tokens, done[index].stop_reason) == ((), "error")
        assert done[index].error == "the model's logits are not finite numbers at token 1"
    assert {place: done[index].tokens for place, index in enumerate(healthy)} == reference


@engines
def test_what_came_before_the_logits_failed_is_kept(make: Any) -> None:
    row = Row((1, 2, 3), 12)
    (free,) = run(GenerateEngine(tiny("llama"), NEVER), [row]).values()
    steps = 0

    def fail_at_the_fifth(_module: Any, _args: Any, output: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:
            output.logits[:] = float("nan")

    hook = tiny("llama").register_forward_hook(fail_at_the_fifth)
    try:
        (done,) = run(make(tiny("llama"), 1), [row]).values()
    finally:
        hook.remove()
    assert (done.tokens, done.stop_reason) == (free.tokens[:4], "error")
    assert done.error == "the model's logits are not finite numbers at token 5"


# --- memory

SHORTAGES = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
}
shortages = pytest.mark.parametrize("shortage", SHORTAGES.values(), ids=SHORTAGES)


@engines
@shortages
@pytest.mark.parametrize(("most", "left", "halvings"), [(32, 32, 0), (31, 16, 1), (5, 4, 3), (1, 1, 5)])
def test_fewer_rows_run_side_by_side_where_memory_runs_out(make: Any, shortage: RuntimeError, most: int, left: int, halvings: int) -> None:
    rows = unmarked(40)
    reference = tokens(GenerateEngine(tiny("llama"), NEVER), rows)
    engine = make(tiny("llama"), 32)
    with forgetful(tiny("llama"), most, shortage):
        done = run(engine, rows)
    assert {index: generation.tokens for index, generation in done.items()} == reference
    assert (engine.slots, engine.halvings) == (left, halvings)


@engines
def test_rows_that_had_ended_before_memory_ran_out_are_not_asked_again(make: Any) -> None:
    rows = [Row((1, 2, 3), 9), *[Row((number,), 1) for number in range(20)]]
    asked: list[int] = []

    def run_out_at_the_tenth(_module: Any, _args: Any, named: Any) -> None:
        asked.append(len(named["input_ids"]))
        if len(asked) == 10:
            raise SHORTAGES["CUDA"]

    engine = make(tiny("llama"), 8)
    hook = tiny("llama").register_forward_pre_hook(run_out_at_the_tenth, with_kwargs=True)
    try:
        done = run(engine, rows)  # each comes once
    finally:
        hook.remove()
    assert engine.halvings == 1
    assert {index: generation.tokens for index, generation in done.items()} == tokens(GenerateEngine(tiny("llama"), NEVER), rows)


@engines
@shortages
def test_a_row_too_large_even_alone_costs_itself_and_the_others_get_their_slots_back(make: Any, shortage: RuntimeError) -> None:
    rows = [*unmarked(20), Row((7,) * 200, 20), *unmarked(3, seed=4)]

    def run_out_on_long_prompts(_module: Any, _args: Any, named: Any) -> None:
        if named["input_ids"].shape[1] >= 200:
            raise shortage

    engine = make(tiny("llama"), 8)
    hook = tiny("llama").register_forward_pre_hook(run_out_on_long_prompts, with_kwargs=True)
    try:
        done = run(engine, rows)
    finally:
        hook.remove()
    assert (done[20].stop_reason, done[20].error) == ("error", "out of memory, even with this row alone")
    reference = tokens(GenerateEngine(tiny("llama"), NEVER), rows)
    assert all(done[index].tokens == reference[index] for index in range(len(rows)) if index != 20)
    assert (engine.slots, engine.halvings) == (8, 4)


@engines
def test_a_machine_without_memory_fails_every_row_and_ends(make: Any) -> None:
    with forgetful(tiny("llama"), 0, SHORTAGES["CUDA"]):
        done = run(make(tiny("llama"), 4), unmarked(5))
    assert {generation.stop_reason for generation in done.values()} == {"error"}


@engines
def test_other_errors_of_a_model_are_no_shortage(make: Any) -> None:
    with forgetful(tiny("llama"), 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")), pytest.raises(RuntimeError, match="mat1"):
        run(make(tiny("llama"), 4), unmarked(5))


# --- in the record


def test_a_row_that_failed_is_a_sample_with_its_cause_and_no_score() -> None:
    class Failing:
        name, slots, model_s, halvings = "failing", 1, 0.0, 0

        def generate(self, rows: Any) -> Iterator[Generation]:
            yield from (Generation(index, (), "error", None, None, "no reason") for index in range(len(rows)))

    asked = Pass(Failing(), limit=2)
    assert [sample.outcome for sample in asked.samples] == ["error", "error"]
    for sample in asked.samples:
        assert (sample.score, sample.answer, sample.error, sample.stop_reason) == (None, None, "no reason", "error")
        assert (sample.latency_s, sample.ttft_s, sample.output_tokens) == (None, None, 0)
        assert json.loads(sample.to_json())["error"] == "no reason"


@pytest.mark.slow
def test_a_pass_ends_with_fewer_slots_and_equal_samples() -> None:
    model = load_checked(EMBEDDED, "float32").eval()
    stop_ids = find_specials(tokenizer()).stop_ids
    whole = Pass(SlotEngine(model, stop_ids, 6), limit=6)
    engine = SlotEngine(model, stop_ids, 6)
    with forgetful(model, 4, SHORTAGES["CPU"]):
        retried = Pass(engine, limit=6)
    assert (engine.slots, engine.halvings) == (3, 1)
    without_times = [
        {key: {**json.loads(sample.to_json()), "latency_s": None, "ttft_s": None} for key, sample in done.by_key().items()}
        for done in (whole, retried)
    ]
    assert without_times[0] == without_times[1]
