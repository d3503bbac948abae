"""Rows asked in two ways: what counts as noise, what fails an arm, and that a faulty engine is caught."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricated import fabricate_run
from test_slots import NEVER, tiny, tiny_rows

from bench.engines import Generation, Row
from bench.engines.canary import TIE_NATS, Difference, answer, differ, refuse_fault
from bench.engines.plain import GenerateEngine
from bench.engines.slots import SlotEngine
from bench.errors import ArmError
from bench.records import Canary
from bench.report.page import NO_CANARY, noise_floor


class Faulty:
    """The slots of a model whose attention is off by a position: rows with a neighbour forget their first token."""

    name, slots, model_s, halvings = "faulty", 8, 0.0, 0

    def __init__(self, model: Any):
        self.engine = SlotEngine(model, NEVER, 8)

    def generate(self, rows: Sequence[Row]) -> Iterator[Generation]:
        return self.engine.generate([Row(row.prompt[1:] or row.prompt, row.max_new_tokens) for row in rows])


def test_two_ways_that_agree_leave_nothing_to_refuse() -> None:
    rows = tiny_rows(6)
    ways = [answer(engine, rows) for engine in (SlotEngine(tiny("llama"), NEVER, 4), GenerateEngine(tiny("llama"), NEVER))]
    found = differ(tiny("llama"), rows, *ways)
    assert found == Difference(6, sum(row.max_new_tokens for row in rows), 0, None, None)
    refuse_fault("batch", found)


def test_a_faulty_engine_fails_the_arm() -> None:
    rows = tiny_rows(6)
    ways = [answer(engine, rows) for engine in (Faulty(tiny("llama")), GenerateEngine(tiny("llama"), NEVER))]
    found = differ(tiny("llama"), rows, *ways)
    assert found.differing > 0
    assert found.max_gap is not None
    assert found.max_gap > TIE_NATS
    with pytest.raises(ArmError, match=r"canary batch: rows generated side by side .* of 6 rows part, from token 0 on"):
        refuse_fault("batch", found)


def test_rows_that_part_over_a_tie_are_noise() -> None:
    """Two rows of the head's weights are made alike: which of the two tokens is the likeliest is rounding."""
    model, (row,) = tiny("llama"), [Row((3, 1, 4), 4)]
    (told,) = answer(GenerateEngine(model, NEVER), [row])
    twin = next(token for token in range(64) if token not in told)
    kept = model.lm_head.weight[twin].clone()
    with torch.no_grad():
        model.lm_head.weight[twin] = model.lm_head.weight[told[2]]
    try:
        found = differ(model, [row], [told], [(*told[:2], twin, told[3])])
    finally:
        with torch.no_grad():
            model.lm_head.weight[twin] = kept
    assert (found.differing, found.first_token) == (1, 2)
    assert found.max_gap == pytest.approx(0, abs=1e-6)
    refuse_fault("batch", found)


def test_the_gap_is_that_of_the_models_own_log_probabilities() -> None:
    model, row = tiny("llama"), Row((3, 1, 4), 3)
    with torch.inference_mode():
        chances = model(torch.tensor([[3, 1, 4, 7]])).logits[0, -1].log_softmax(-1)
    found = differ(model, [row], [(7, 5, 9)], [(7, 6, 9)])
    assert found.max_gap == pytest.approx(abs(float(chances[5] - chances[6])), rel=1e-4)


def test_an_answer_that_goes_on_where_the_other_ended_is_never_a_tie() -> None:
    found = differ(tiny("llama"), [Row((3, 1, 4), 3)], [(7, 5)], [(7, 5, 9)])
    assert (found.differing, found.first_token, found.max_gap) == (1, 2, float("inf"))
    with pytest.raises(ArmError):
        refuse_fault("repeat", found)


def test_the_report_tells_the_noise_floor_or_that_it_is_unknown(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path)
    assert noise_floor(run) == NO_CANARY
    quiet = Canary("base", "stories", "dev", "repeat", "slots", 64, "bfloat16", 6, 190, 0, None, None)
    noisy = dataclasses.replace(quiet, check="batch", differing=2, first_token=4, max_gap=0.03125)
    said = noise_floor(dataclasses.replace(run, canaries=(quiet, noisy))).replace("\xa0", " ")
    assert "side by side against one by one: 2 of 6 rows differ, from token 5 on" in said.lower()
    assert "0.031 nats" in said
    assert "asked twice: 0 of 6 rows differ" in said
    assert "float32" not in said
