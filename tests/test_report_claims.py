"""Published claims beside a run's own measurements: only where the run trained what they are about."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fabricated import fabricate_experiment, fabricate_run

from bench.fabricate import SHAPES, _config
from bench.finetune.lora import expected_parameters
from bench.models import EMBEDDED, load_checked
from bench.phases import phase_records
from bench.records import Run, Training, TrainingPhase
from bench.report import references
from bench.report.cells import Cells
from bench.report.claims import Claim, _published, claims
from bench.report.focus import focus_on
from bench.report.page import sections

GIB = 2**30
NF4, BF16 = "nf4-per-expert", "bfloat16"


def trained(arm: str, method: str = "unsloth", rank: int = 8, steps: int = 30, gib: float | None = 14.57, **changes: Any) -> Training:
    """A training of gpt-oss-20b's shape on a GPU, on attention and experts."""
    changes = {"layout": NF4, "gradient_checkpointing": "unsloth", "step_s": 0.6, "targets": "attention+experts", **changes}
    step_s, targets = changes.pop("step_s"), changes.pop("targets")
    by_kind = expected_parameters(_config(changes.pop("shape", "gpt-oss-20b")), rank, targets)
    steps_cost = [TrainingPhase("first_step", 140.0, 1, 4096, 140.0), TrainingPhase("steady", 29 * step_s, 29, 4096, step_s)]
    return Training(
        arm=arm, status="trained", reason=None, rank=rank, steps=steps, seed=3407, alpha=16, method=method,
        trainable_parameters=sum(by_kind.values()), trainable_by_kind=by_kind,
        peak_reserved_bytes=None if gib is None else int(gib * GIB),
        phases=phase_records(steps_cost), **changes,
    )  # fmt: skip


@cache
def without_training() -> Run:
    block = {"dataset": {"id": "stories/train"}, "max_length": 1024}
    asked = fabricate_experiment(finetune=block, gates=False)
    made = fabricate_run(Path("nowhere"), verdict=None, select_problems=2, gate_problems=4, gpu=True, experiment=asked)
    return dataclasses.replace(made, training={})


def run_of(*trainings: Training) -> Run:
    return dataclasses.replace(without_training(), training={one.arm: one for one in trainings})


def both(**unsloth: Any) -> Run:
    """The same training by Unsloth and by plain TRL, as `method: [unsloth, trl]` makes it."""
    ours = trained("r8-s30", **{"layout": BF16, "gib": 40.69, "step_s": 0.511} | unsloth)
    return run_of(ours, trained("r8-s30-trl", "trl", gib=43.55, step_s=0.572, layout=BF16, gradient_checkpointing="plain"))


def measured(run: Run) -> dict[str, str]:
    """By what is claimed."""
    table = claims(run)
    return {row[0].text: row[1].text.replace("\u00a0", " ") for row in table.rows} if table else {}


def test_memory_of_a_4_bit_training_stands_beside_what_is_claimed_of_it() -> None:
    table = claims(run_of(trained("r8-s30")))
    assert table is not None
    claimed, here, conditions = next(row for row in table.rows if "14 GB" in row[0].text)
    assert claimed.small == "unsloth.ai/blog/gpt-oss, August 2025; 4-bit"
    assert (here.text, here.small, here.raw) == ("14.57\u00a0GiB", "15.64\u00a0GB", str(int(14.57 * GIB)))
    assert conditions.text == "r8-s30: nf4-per-expert, attention+experts, r=8"
    assert conditions.small == ("1 × 4 rows of at most 1,024 tokens a step, gradient checkpointing unsloth, NVIDIA H100 80GB HBM3")


def test_both_methods_of_one_run_answer_the_ratios() -> None:
    found = measured(both())
    assert found["70 % less VRAM"] == found["more than 35 % less VRAM"] == "6.6 % less"
    assert found["1.5 times as fast (post), twice as fast (README)"] == "1.12 times as fast"
    assert found["LoRA takes one GPU of more than 44 GB"] == "43.55 GiB"
    assert "LoRA training fits in 14 GB" not in found, "16-bit training answers no claim about 4 bits"


def test_more_memory_than_the_rival_is_said_as_it_is() -> None:
    assert measured(both(gib=50.0))["70 % less VRAM"] == "14.8 % more"


def test_a_ratio_says_the_conditions_of_both_sides() -> None:
    table = claims(both())
    assert table is not None
    _, here, conditions = next(row for row in table.rows if row[0].text.startswith("1.5 times"))
    assert here.small == "511\u00a0ms against 572\u00a0ms a step"
    assert conditions.text == "r8-s30 against r8-s30-trl: bfloat16, attention+experts, r=8"
    assert "gradient checkpointing unsloth against plain" in conditions.small


@pytest.mark.parametrize("change", [{"layout": NF4}, {"rank": 16}, {"steps": 60}, {"targets": "attention"}])
def test_sides_that_did_other_work_make_no_ratio(change: dict[str, Any]) -> None:
    assert measured(both(**change))["70 % less VRAM"] == "unknown"


def test_a_ratio_with_one_side_alone_is_unknown_and_says_what_is_missing() -> None:
    table = claims(run_of(trained("r8-s30")))
    assert table is not None
    ratios = {row[0].text: row[1] for row in table.rows if "less" in row[0].text or "fast" in row[0].text}
    assert {entry.text for entry in ratios.values()} == {"unknown"}
    assert ratios["70 % less VRAM"].small == "no like arm with method trl"
    assert ratios["30 % less VRAM through its gradient checkpointing"].small == (
        "no like arm with method unsloth, gradient checkpointing plain"
    )
    alone = claims(run_of(trained("r8-s30-trl", "trl", gib=43.55, layout=BF16)))
    assert alone is not None
    assert next(row for row in alone.rows if row[0].text == "70 % less VRAM")[1].small == "no like arm with method unsloth"


def test_kinds_of_gradient_checkpointing_are_compared_where_a_run_has_both() -> None:
    other = trained("r8-s30-plain", gib=13.904, gradient_checkpointing="plain")
    found = measured(run_of(trained("r8-s30", gib=14.568), other))
    assert found["30 % less VRAM through its gradient checkpointing"] == "4.8 % more"


def test_the_lowest_rank_answers_with_its_longest_training() -> None:
    grid = [trained(f"r{rank}-s{steps}", rank=rank, steps=steps, gib=10.0 + rank) for rank in (32, 8) for steps in (5, 60)]
    table = claims(run_of(*grid))
    assert table is not None
    assert table.rows[0][2].text.startswith("r8-s60: ")


@pytest.mark.parametrize(
    "change",
    [{"shape": "tiny"}, {"shape": "gpt-oss-120b"}, {"gib": None}, {"layout": "float32"}],
    ids=["tiny", "120b", "no GPU", "another layout alone"],
)
def test_a_run_that_can_answer_nothing_has_no_table(change: dict[str, Any]) -> None:
    assert claims(run_of(trained("r8-s30", **change))) is None


def test_a_failed_arm_answers_nothing() -> None:
    assert claims(run_of(dataclasses.replace(trained("r8-s30"), status="failed"))) is None


def test_the_embedded_model_is_never_held_against_a_claim_about_20b() -> None:
    config = load_checked(EMBEDDED, "float32").config
    by_kind = {targets: expected_parameters(config, 8, targets) for targets in ("attention", "attention+experts")}
    for counts in by_kind.values():
        small = dataclasses.replace(trained("r8-s30"), trainable_by_kind=counts, layout="bfloat16")
        assert claims(run_of(small, dataclasses.replace(small, arm="r8-s30-trl", method="trl"))) is None
    assert claims(fabricate_run(Path("nowhere"), select_problems=2, gate_problems=4, gpu=True)) is None


def test_the_shape_told_by_lora_is_gpt_oss_20bs_and_no_others() -> None:
    shape, known = _published()
    a_rank = {name: expected_parameters(_config(name), 1, "attention+experts") for name in SHAPES}
    assert [name for name, counts in a_rank.items() if counts == shape] == ["gpt-oss-20b"]
    assert len({one.claim for one in known}) == len(known)


def test_every_claim_asks_for_what_a_training_record_holds() -> None:
    fields = {field.name for field in dataclasses.fields(Training)}
    for one in _published()[1]:
        assert isinstance(one, Claim)
        assert set(one.of) | set(one.over or ()) <= fields
        assert (one.says == "size") == (one.over is None)
        assert one.measure in ("peak_reserved_bytes", "median_step_s")
        assert one.by


def test_claims_are_no_suites_published_figures() -> None:
    assert set(references._all()) == {"mmmlu"}


def test_the_page_shows_the_table_with_the_training() -> None:
    run = both()
    focus = focus_on(run)
    assert focus is not None
    shown = {section.name: [table.name for table in section.tables] for section in sections(run, focus, Cells(run.samples), {})}
    assert "claims" in shown["training"]
