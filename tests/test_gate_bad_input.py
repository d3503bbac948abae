"""`effortbench gate` on a run folder or a baseline that is not as it should be: invalid or bad input with the reason, never a pass.

Each test damages a folder whose run, left alone, passes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cli import call, record_finalists  # noqa: F401

BAD_INPUT, INVALID = 2, 4
CELL = "cells/r16-s200/stories@gate.de.high.jsonl"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run `new`, gated against base and against the baseline of the run `old`."""
    folder = tmp_path_factory.mktemp("sound")
    record_finalists(folder / "old", (0.2, 0.7, 0.98), against="baseline", year=2025)
    record_finalists(folder / "new", (0.2, 0.7, 0.98), against="baseline")
    return folder


@pytest.fixture
def gate(call: Any, sound: Path, tmp_path: Path) -> Callable[[], Any]:  # noqa: F811
    """Copies of both runs in the current folder, the older one promoted; the call judges the newer one."""
    for name in ("old", "new"):
        shutil.copytree(sound / name, tmp_path / name)
    call("gate", "old")
    assert call("baseline", "promote", "old").code == 0
    assert call("gate", "new").code == 0, "left alone it passes"
    return lambda: call("gate", "new")


def edit(path: str, change: Callable[[Any], Any]) -> None:
    state = json.loads(Path(path).read_text(encoding="utf-8"))
    Path(path).write_text(json.dumps(change(state) or state), encoding="utf-8")


def cut(path: str | Path) -> None:
    """As a copy that broke off."""
    Path(path).write_bytes(Path(path).read_bytes()[:900])


def lose_cell() -> None:
    edit_rows(lambda lines: [])
    Path("new", CELL).unlink()


def edit_rows(change: Callable[[list[str]], list[str]]) -> None:
    """Of one cell; the table of all samples is older than it and is no longer read."""
    lines = Path("new", CELL).read_text(encoding="utf-8").splitlines(keepends=True)
    Path("new", CELL).write_text("".join(change(lines)), encoding="utf-8")
    Path("new/samples.parquet").unlink()


def change_first(**fields: Any) -> Callable[[], None]:
    return lambda: edit_rows(lambda lines: [json.dumps(json.loads(lines[0]) | fields) + "\n", *lines[1:]])


def with_gate(**fields: Any) -> Callable[[], None]:
    return lambda: edit("new/run.json", lambda state: state["experiment"]["gates"][0].update(fields))


BAD_RUNS: dict[str, tuple[Callable[[], None], int, str]] = {
    "another item": (change_first(item_id="stories-gate-999"), INVALID, "the items differ: 1 rows only before, 1 only after"),
    "another prompt": (change_first(prompt_hash="other"), INVALID, "prompt_hash differs in 1 of 1250 rows"),
    "another target": (change_first(target="other"), INVALID, "target differs in 1 of 1250 rows"),
    "a sample twice": (lambda: edit_rows(lambda lines: [*lines, lines[0]]), INVALID, "holds 251 of 250 planned answers"),
    "a sample twice in place of another": (
        lambda: edit_rows(lambda lines: [*lines[:-1], lines[0]]), INVALID, "after holds 1 rows twice: the same item, language and sample",
    ),
    "a score that is no number": (change_first(score=float("nan")), INVALID, "1 of 1250 rows without a score"),
    "a score that is text": (change_first(score="right"), BAD_INPUT, "a sample's number is none"),
    "a score of two": (change_first(score=2.0), INVALID, "1 of 1250 rows whose accuracy is outside its range"),
    "an outcome nobody knows": (change_first(outcome="Correct"), INVALID, "1 of 1250 rows with an unknown outcome"),
    "an empty cell": (lambda: edit_rows(lambda lines: []), INVALID, "holds 0 of 250 planned answers"),
    "a cell that is gone": (lose_cell, INVALID, "holds 0 of 250 planned"),
    "a cell cut within a line": (lambda: edit_rows(lambda lines: [*lines[:-1], lines[-1][:40]]), INVALID, "holds 249 of 250 planned"),
    "a line cut in the middle": (lambda: edit_rows(lambda lines: [lines[0][:40] + "\n", *lines[1:]]), BAD_INPUT, "line 1 is damaged"),
    "a table that was cut": (lambda: cut("new/samples.parquet"), BAD_INPUT, "samples.parquet is damaged"),
    "a record that was cut": (lambda: cut("new/run.json"), BAD_INPUT, "run.json is damaged"),
    "a record of another schema": (lambda: edit("new/run.json", lambda state: state.update(schema=2)), BAD_INPUT, "has schema 2"),
    "a run that is not finished": (lambda: edit("new/run.json", lambda state: state.update(finished=False)), INVALID, "not finished"),
    "a margin of 0": (with_gate(margin=0), BAD_INPUT, "needs margin > 0"),
    "a margin of 2": (with_gate(margin=2), BAD_INPUT, "a margin of 2 decides nothing"),
    "a margin that is no number": (with_gate(margin=float("nan")), BAD_INPUT, "margin"),
    "a margin below 0": (with_gate(margin=-0.02), BAD_INPUT, "margin"),
    "no gates": (lambda: edit("new/run.json", lambda state: state["experiment"].update(gates=[])), INVALID, "nothing was judged"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_RUNS)
def test_a_run_that_is_not_as_it_should_be_never_passes(gate: Callable[[], Any], name: str) -> None:
    damage, code, reason = BAD_RUNS[name]
    damage()
    answer = gate()
    assert (answer.code, reason in answer.out + answer.err) == (code, True), answer.out + answer.err
    assert "Traceback" not in answer.err


HOME = "reports/baselines/embedded/cpu"


def scores() -> Path:
    return next(Path(HOME).glob("scores-*.parquet"))


def of_other_hardware() -> None:
    edit(f"{HOME}/baseline.json", lambda state: state.update(hardware="h100", environment=state["environment"] | {"gpu": "H100"}))


BAD_BASELINES: dict[str, tuple[Callable[[], None], str]] = {
    "none": (lambda: shutil.rmtree(HOME), "no baseline for embedded on cpu"),
    "of other hardware": (of_other_hardware, "the baseline is of another hardware: h100 there, cpu here"),
    "of another schema": (lambda: edit(f"{HOME}/baseline.json", lambda state: state.update(schema=2)), "has schema 2"),
    "of another suite revision": (
        lambda: edit(f"{HOME}/baseline.json", lambda state: state.update(suite_revision="abd")), "the baseline is of another suite stories",
    ),
    "whose scores were cut": (lambda: cut(scores()), "it is not the file that baseline.json describes"),
    "whose scores are gone": (lambda: scores().unlink(), "cannot be read"),
    "whose record was cut": (lambda: cut(f"{HOME}/baseline.json"), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_BASELINES)
def test_a_baseline_that_is_not_as_it_should_be_never_passes(gate: Callable[[], Any], name: str) -> None:
    damage, reason = BAD_BASELINES[name]
    damage()
    answer = gate()
    assert (answer.code, reason in answer.out) == (INVALID, True), answer.out + answer.err
