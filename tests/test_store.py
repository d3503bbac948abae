"""The run folder: nothing is lost, nothing stands twice, and what is damaged is said to be."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fabricated import fabricate_environment, fabricate_experiment, fabricate_run, fabricate_training
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import RunFolderError
from bench.records import CellId, CellRecord, Phase, Run, Sample
from bench.store import (
    SAMPLE_FIELDS,
    RunFolder,
    cell_file,
    load_run,
    newest_unfinished,
    read_prompts,
    read_samples,
    read_training,
    slug,
    write_atomic,
)

EXPERIMENT = fabricate_experiment()
ENVIRONMENT = fabricate_environment()
CELL = CellId("base", "stories", "dev", "de", "high")
COMMAND = "effortbench run embedded"


def create(path: Path) -> RunFolder:
    return RunFolder.create(path, EXPERIMENT, ENVIRONMENT, COMMAND)


def reopen(path: Path) -> RunFolder:
    return RunFolder.reopen(path, EXPERIMENT, ENVIRONMENT, COMMAND)


def record(cell: CellId = CELL, key: str = "key", samples: int | None = None) -> CellRecord:
    return CellRecord(*cell, key=key, samples=samples, file=cell_file(cell))


def sample(number: int = 0, cell: CellId = CELL, **changes: Any) -> Sample:
    fields: dict[str, Any] = {
        "item_id": f"item-{number:03d}", "sample_index": 0, "seed": None, "outcome": "correct", "score": 1.0, "answer": "42",
        "target": "42", "prompt_tokens": 30, "reasoning_tokens": 12, "final_tokens": 5, "output_tokens": 20, "stop_reason": "stop",
        "latency_s": 0.1 + number / 3, "ttft_s": 0.01, "asked_reasoning_language": "de", "reasoning_language": "de",
        "final_language": "de", "prompt_hash": "abc",
        "completion": "<|channel|>final<|message|>Die Antwort ist 42.\u2028\r\x85\n<|return|>", "error": None,
    }  # fmt: skip
    return Sample(*cell, **(fields | changes))


def broken(number: int = 0, cell: CellId = CELL) -> Sample:
    """An infrastructure fault: all that can be unknown is."""
    return sample(
        number, cell, outcome="error", score=None, answer=None, reasoning_tokens=None, final_tokens=None, output_tokens=None,
        stop_reason="error", latency_s=None, ttft_s=None, reasoning_language=None, completion="", error="out of memory",
    )  # fmt: skip


def fill(path: Path, samples: list[Sample]) -> Path:
    """A folder with these samples in their cells; the path of the first one's file."""
    with create(path) as folder:
        folder.open_cells([record(cell) for cell in {sample.cell for sample in samples}])
        for each in samples:
            folder.add_sample(each)
    return path / cell_file(samples[0].cell)


def plain(samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with None where nothing is known."""
    rows = samples.astype(object).where(samples.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


# --- the folder


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path: Path) -> None:
    fill(tmp_path / "run", [sample()])
    with pytest.raises(RunFolderError, match="exists already: pass --resume"):
        create(tmp_path / "run")


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(RunFolderError, match="is no run folder: pass another --out"):
        create(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunFolderError, match="pass another --out"):
        create(tmp_path / "file")
    with pytest.raises(RunFolderError, match="cannot be made"):
        create(tmp_path / "file" / "run")


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    with create(tmp_path):
        pass
    assert (tmp_path / "run.json").exists()


def test_what_a_start_killed_at_once_left_behind_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("", encoding="utf-8")
    (tmp_path / ".run.json.tmp").write_text('{"schema"', encoding="utf-8")
    with create(tmp_path):
        pass
    assert load_run(tmp_path).experiment == EXPERIMENT


def test_another_experiment_cannot_go_on_with_a_run(tmp_path: Path) -> None:
    fill(tmp_path / "run", [sample()])
    other = EXPERIMENT.model_copy(update={"name": "other"})
    with pytest.raises(RunFolderError, match="holds experiment 'embedded', not 'other'"):
        RunFolder.reopen(tmp_path / "run", other, ENVIRONMENT, COMMAND)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "is not a run folder: it has no run.json"),
        ("", "is damaged"),
        ("{", "is damaged"),
        ("[]", "has schema None, this effortbench reads 1"),
        ("{}", "has schema None"),
        ('{"schema": 2}', "has schema 2"),
        ('{"schema": 1}', "is damaged, or from another effortbench"),
        ('{"schema": 1, "experiment": {"name": "embedded"}, "cells": [{}], "phases": []}', "is damaged"),
        ('{"schema": 1, "experiment": 3}', "is damaged"),
        ("[" * 100_000, "is damaged"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_folder_without_a_whole_run_json_is_a_clear_error(tmp_path: Path, text: str | None, expected: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text, encoding="utf-8")
    for use in (load_run, reopen):
        with pytest.raises(RunFolderError) as caught:
            use(tmp_path)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_path_that_is_no_folder_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for path in (tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(RunFolderError, match="is not a run folder"):
            load_run(path)


def test_two_writers_in_one_process_exclude_each_other(tmp_path: Path) -> None:
    with create(tmp_path / "run"):
        with pytest.raises(RunFolderError, match=f"in use by process {os.getpid()}"), reopen(tmp_path / "run"):
            pass
    with reopen(tmp_path / "run"):
        pass


HOLD = """
import sys
from pathlib import Path
from fabricated import fabricate_environment, fabricate_experiment
from bench.store import RunFolder
with RunFolder.create(Path(sys.argv[1]), fabricate_experiment(), fabricate_environment(), "x"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_keeps_us_out_until_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        before = (path / "run.json").read_bytes()
        with pytest.raises(RunFolderError, match=f"in use by process {other.pid}: wait for it, or pass another --out"), reopen(path):
            pass
        assert (path / "run.json").read_bytes() == before
        other.kill()
    with reopen(path):
        pass


def test_a_run_that_ended_while_we_waited_is_not_overwritten_by_what_we_read_before(tmp_path: Path) -> None:
    fill(tmp_path / "run", [sample()])
    late = reopen(tmp_path / "run")
    other = CellId("base", "stories", "dev", "fr", "high")
    with reopen(tmp_path / "run") as first:
        first.open_cells([record(other)])
        first.add_sample(sample(cell=other))
    with late:
        assert late.open_cells([record(other)]) == [sample(cell=other)]


def test_of_two_that_start_in_one_folder_the_second_is_refused_even_after_the_first_has_ended(tmp_path: Path) -> None:
    late = create(tmp_path / "run")
    fill(tmp_path / "run", [sample()])
    with pytest.raises(RunFolderError, match="exists already"), late:
        pass


# --- samples


def test_a_sample_is_on_disk_before_the_next_one(tmp_path: Path) -> None:
    with create(tmp_path / "run") as folder:
        folder.open_cells([record()])
        for number in range(3):
            folder.add_sample(sample(number))
            lines = (tmp_path / "run" / cell_file(CELL)).read_text(encoding="utf-8").split("\n")
            assert [Sample.from_dict(json.loads(line)) for line in lines[:-1]] == [sample(n) for n in range(number + 1)]


def test_samples_of_the_same_key_are_kept_and_of_another_thrown_away(tmp_path: Path) -> None:
    other = CellId("base", "stories", "dev", "fr", "high")
    fill(tmp_path / "run", [sample(0), sample(1), sample(0, other)])
    with reopen(tmp_path / "run") as folder:
        assert folder.open_cells([record(key="new"), record(other)]) == [sample(0, other)]
        assert folder.cells[CELL].key == "new"
    assert not (tmp_path / "run" / cell_file(CELL)).exists()
    assert len(load_run(tmp_path / "run").samples) == 1


def test_thrown_away_samples_do_not_come_back_from_an_older_parquet(tmp_path: Path) -> None:
    other = CellId("base", "stories", "dev", "fr", "high")
    fill(tmp_path / "run", [sample(0), sample(0, other)])
    with reopen(tmp_path / "run") as folder:
        folder.finish()
    with reopen(tmp_path / "run") as folder:
        folder.open_cells([record(key="new"), record(other)])
        assert plain(read_samples(folder.path, list(folder.cells.values()))) == [dataclasses.asdict(sample(0, other))]
    run = load_run(tmp_path / "run")
    assert not run.finished
    assert len(run.samples) == 1


def test_a_clock_that_jumps_back_loses_no_sample(tmp_path: Path) -> None:
    file = fill(tmp_path / "run", [sample(0)])
    with reopen(tmp_path / "run") as folder:
        folder.finish()
    with reopen(tmp_path / "run") as folder:
        folder.open_cells([record()])
        folder.add_sample(sample(1))
        os.utime(file, (0, 0))
    assert len(load_run(tmp_path / "run").samples) == 2


@pytest.mark.parametrize("torn", [b"{", b'{"arm": "base"', b"\0\0\0\0", b"\xff", sample(9).to_json().encode()])
def test_a_torn_last_line_is_dropped_and_appending_goes_on_cleanly(tmp_path: Path, torn: bytes) -> None:
    file = fill(tmp_path / "run", [sample(0), sample(1)])
    with file.open("ab") as stream:
        stream.write(torn)
    assert len(load_run(tmp_path / "run").samples) == 2
    with reopen(tmp_path / "run") as folder:
        assert folder.open_cells([record()]) == [sample(0), sample(1)]
        folder.add_sample(sample(2))
    assert plain(load_run(tmp_path / "run").samples) == [dataclasses.asdict(sample(number)) for number in range(3)]


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"7", b"{}", b'{"arm": "base"}', b"\xff\xfe", b"\0" * 50, b"[" * 100_000])
def test_a_damaged_middle_line_is_named_and_nothing_is_changed(tmp_path: Path, garbage: bytes) -> None:
    file = fill(tmp_path / "run", [sample(0), sample(1)])
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + garbage + b"\n" + lines[1])
    before = file.read_bytes()
    with pytest.raises(RunFolderError, match="line 2 is damaged") as caught:
        load_run(tmp_path / "run")
    assert "\n" not in str(caught.value)
    with pytest.raises(RunFolderError, match="line 2 is damaged"), reopen(tmp_path / "run") as folder:
        folder.open_cells([record()])
    assert file.read_bytes() == before


def test_a_flipped_byte_inside_a_text_is_damage_not_another_text(tmp_path: Path) -> None:
    file = fill(tmp_path / "run", [sample(answer="größer"), sample(1)])
    file.write_bytes(file.read_bytes().replace("ö".encode(), b"\xc3\x28", 1))
    with pytest.raises(RunFolderError, match="line 1 is damaged"):
        load_run(tmp_path / "run")


def test_a_number_that_is_none_is_damage(tmp_path: Path) -> None:
    file = fill(tmp_path / "run", [sample()])
    file.write_text(file.read_text(encoding="utf-8").replace('"output_tokens": 20', '"output_tokens": "many"'), encoding="utf-8")
    with pytest.raises(RunFolderError, match="damaged"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize("garbage", [b"{", b"[]", b"{}", b"\0" * 50, b'{"prompt_hash": "a"}'])
def test_a_damaged_prompt_is_named_and_nothing_is_changed(tmp_path: Path, garbage: bytes) -> None:
    with create(tmp_path / "run") as folder:
        folder.add_prompt("abc", "a question")
    file = tmp_path / "run" / "prompts.jsonl"
    file.write_bytes(garbage + b"\n" + file.read_bytes())
    before = file.read_bytes()
    with (
        pytest.raises(RunFolderError, match=r"prompts.jsonl, line 1 is damaged .*: delete the file and --resume"),
        reopen(tmp_path / "run"),
    ):
        pass
    assert file.read_bytes() == before


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_prefix_of_a_cell_file_is_readable_and_yields_exactly_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    texts = data.draw(st.lists(st.text(max_size=20), min_size=1, max_size=4))
    samples = [sample(number, completion=text) for number, text in enumerate(texts)]
    path = tmp_path_factory.mktemp("prefix") / "run"
    file = fill(path, samples)
    whole = file.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    file.write_bytes(whole[:cut])
    kept = samples[: whole[:cut].count(b"\n")]
    assert plain(load_run(path).samples) == [dataclasses.asdict(each) for each in kept]
    with reopen(path) as folder:
        assert folder.open_cells([record()]) == kept
        for each in samples[len(kept) :]:
            folder.add_sample(each)
    assert file.read_bytes() == whole


def test_a_cell_is_complete_when_it_holds_what_was_planned(tmp_path: Path) -> None:
    with create(tmp_path / "run") as folder:
        folder.open_cells([record()])
        assert not folder.are_complete([record()], [])
        folder.plan_cells({CELL: 2})
        assert not folder.are_complete([record()], [sample(0)])
        assert not folder.are_complete([record()], [sample(0), sample(1)]), "their prompt is not on record"
        folder.add_prompt("abc", "a question")
        assert folder.are_complete([record()], [sample(0), sample(1)])


def test_a_prompt_is_kept_once_also_across_a_resume_with_a_torn_line(tmp_path: Path) -> None:
    with create(tmp_path / "run") as folder:
        folder.add_prompt("a", "first\u2028\n")
        folder.add_prompt("a", "first\u2028\n")
    with (tmp_path / "run" / "prompts.jsonl").open("ab") as file:
        file.write(b'{"prompt_hash": "b')
    with reopen(tmp_path / "run") as folder:
        folder.add_prompt("a", "first\u2028\n")
        folder.add_prompt("b", "second")
    assert list(read_prompts(tmp_path / "run")) == [("a", "first\u2028\n"), ("b", "second")]


def test_a_full_disk_is_one_clear_line_and_keeps_what_was_written(tmp_path: Path) -> None:
    with create(tmp_path / "run") as folder:
        folder.open_cells([record()])
        folder.add_sample(sample(0))
    program = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import *
with reopen(Path({str(tmp_path / "run")!r})) as folder:
    folder.open_cells([record()])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    for number in range(1, 100):
        folder.add_sample(sample(number))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "RunFolderError" in done.stderr.splitlines()[-1]
    assert "cannot be written: File too large" in done.stderr.splitlines()[-1]
    kept = plain(load_run(tmp_path / "run").samples)
    assert kept == [dataclasses.asdict(sample(number)) for number in range(len(kept))]
    with reopen(tmp_path / "run") as folder:
        assert len(folder.open_cells([record()])) == len(kept) >= 1
        folder.add_sample(sample(len(kept)))
    assert len(load_run(tmp_path / "run").samples) == len(kept) + 1


# --- records


def test_run_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_atomic(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(RunFolderError, match="cannot be written"):
            write_atomic(path, "new" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_text(encoding="utf-8") == "old"


def test_a_reader_never_sees_half_a_run_json(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_atomic(path, json.dumps(["x"] * 2000))
    program = "import json\nfrom pathlib import Path\nfrom bench.store import write_atomic\n"
    program += f"for n in range(2000, 2200): write_atomic(Path({str(path)!r}), json.dumps(['x'] * n))"
    with subprocess.Popen([sys.executable, "-c", program]) as writer:
        reads = 0
        while writer.poll() is None:
            assert set(json.loads(path.read_text(encoding="utf-8"))) == {"x"}
            reads += 1
            time.sleep(0.001)
    assert writer.returncode == 0
    assert reads


def write_run(run: Run, path: Path) -> None:
    """A made-up run, as the conductor would have recorded it."""
    with RunFolder.create(path, run.experiment, run.environment, run.command) as folder:
        folder.open_cells([dataclasses.replace(cell, file=cell_file(cell.id)) for cell in run.cells])
        for row in plain(run.samples):
            for name in ("seed", "reasoning_tokens", "final_tokens", "output_tokens"):
                row[name] = None if row[name] is None else int(row[name])
            folder.add_sample(Sample.from_dict(row))
        for training in run.training.values():
            folder.save_training(training)
        for phase in run.phases:
            folder.add_phase(phase)
        folder.failed_arms = dict(run.failed_arms)
        folder.selection = run.selection
        folder.comparisons = list(run.comparisons)
        if run.verdict:
            folder.save_verdict(run.verdict)
        folder.finish()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small made-up run, in its folder too."""
    run = fabricate_run(tmp_path_factory.mktemp("recorded") / "run", select_problems=3, gate_problems=4)
    write_run(run, run.folder)
    return run


def test_a_run_comes_back_from_its_folder_as_it_went_in(made: Run) -> None:
    read = load_run(made.folder)
    for field in ("experiment", "environment", "finished", "failed_arms", "selection", "phases", "comparisons", "verdict", "command"):
        assert getattr(read, field) == getattr(made, field), field
    assert read.training == made.training
    order = ["arm", "suite", "split", "language", "effort", "item_id", "sample_index"]
    assert plain(read.samples) == plain(made.samples.sort_values(order))
    assert [cell.id for cell in read.cells] == [cell.id for cell in made.cells]


def test_samples_parquet_equals_the_lines(made: Run, tmp_path: Path) -> None:
    recorded = made.folder
    cells = list(load_run(recorded).cells)
    from_parquet = read_samples(recorded, cells)
    (recorded / "samples.parquet").rename(tmp_path / "samples.parquet")
    try:
        from_lines = read_samples(recorded, cells)
    finally:
        (tmp_path / "samples.parquet").rename(recorded / "samples.parquet")
    assert list(from_lines.columns) == SAMPLE_FIELDS
    pd.testing.assert_frame_equal(from_parquet, from_lines)


@pytest.mark.parametrize(
    "samples",
    [
        [sample(0), broken(1)],
        [broken(0), broken(1)],
        [sample(0, seed=2**31), sample(1, seed=2**53 - 1)],
        [sample(0, seed=1), broken(0, CellId("base", "stories", "dev", "en", "low"))],
        [sample(0, completion="\ud800".encode("utf-8", "replace").decode(), answer="", error="")],
    ],
    ids=["one broken", "all broken", "large seeds", "a broken cell", "empty texts"],
)
def test_unknown_is_unknown_and_numbers_are_numbers_from_parquet_and_lines_alike(tmp_path: Path, samples: list[Sample]) -> None:
    fill(tmp_path / "run", samples)
    from_lines = load_run(tmp_path / "run").samples
    with reopen(tmp_path / "run") as folder:
        folder.finish()
    from_parquet = load_run(tmp_path / "run").samples
    pd.testing.assert_frame_equal(from_parquet, from_lines)
    assert sorted(plain(from_lines), key=str) == sorted(map(dataclasses.asdict, samples), key=str)
    assert from_lines["output_tokens"].dtype == "float64"


def test_a_run_without_samples_has_no_rows_and_all_columns(tmp_path: Path) -> None:
    with create(tmp_path / "run") as folder:
        folder.finish()
    run = load_run(tmp_path / "run")
    assert run.finished
    assert list(run.samples.columns) == SAMPLE_FIELDS
    assert run.samples.empty


def test_a_damaged_parquet_is_a_clear_error(tmp_path: Path) -> None:
    fill(tmp_path / "run", [sample()])
    (tmp_path / "run" / "samples.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(RunFolderError, match=r"samples.parquet is damaged"):
        load_run(tmp_path / "run")


def test_a_training_is_found_only_under_its_own_key_and_with_its_own_adapter(tmp_path: Path) -> None:
    """A record whose adapter is gone, torn or another's says nothing about what lies there."""
    saved = hashlib.sha256(b"weights").hexdigest()
    training = dataclasses.replace(fabricate_training("r8-s40", False), key="mine", adapter_sha256=saved)
    with create(tmp_path / "run") as folder:
        assert folder.find_training("r8-s40", "mine") is None
        folder.save_training(training)
        assert folder.find_training("r8-s40", "mine") is None
        weights = folder.adapter("r8-s40") / "adapter_model.safetensors"
        weights.parent.mkdir(parents=True)
        for content in (b"", b"weigh", b"Weights"):
            weights.write_bytes(content)
            assert folder.find_training("r8-s40", "mine") is None
        weights.write_bytes(b"weights")
        assert folder.find_training("r8-s40", "mine") == training
        assert folder.find_training("r8-s40", "other") is None
        folder.save_training(dataclasses.replace(training, status="failed", reason="no memory"))
        assert folder.find_training("r8-s40", "mine") is None


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"arm": "r8-s40"}'])
def test_a_damaged_training_record_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "r8-s40.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"r8-s40.json is damaged"):
        read_training(tmp_path, "r8-s40")


def test_phases_survive_a_resume(tmp_path: Path) -> None:
    phase = Phase("base", "stories", "dev", 1.0, 0.9, 100, None, None, 10**9, "slots", 64)
    with create(tmp_path / "run") as folder:
        folder.add_phase(phase)
    with reopen(tmp_path / "run") as folder:
        assert folder.phases == [phase]


def test_a_pass_that_is_asked_anew_costs_what_it_costs_now(tmp_path: Path) -> None:
    """The peak of a model that was thrown away is no measurement of the one that took its place."""
    stale = Phase("base", "stories", "dev", 1.0, 0.9, 100, 10**12, None, 10**9, "slots", 64)
    other = dataclasses.replace(stale, split="gate")
    fill(tmp_path / "run", [sample(0)])
    with reopen(tmp_path / "run") as folder:
        folder.add_phase(stale)
        folder.add_phase(other)
    with reopen(tmp_path / "run") as folder:
        folder.open_cells([record()])
        assert folder.phases == [stale, other]
        folder.open_cells([record(key="new")])
        assert folder.phases == [other]


def test_a_pass_that_was_gone_on_with_has_one_record(tmp_path: Path) -> None:
    part = Phase("base", "stories", "dev", 1.0, 0.9, 100, None, None, 10**9, "slots", 64)
    with create(tmp_path / "run") as folder:
        folder.add_phase(part)
    with reopen(tmp_path / "run") as folder:
        folder.add_phase(part)
        assert [(phase.wall_s, phase.output_tokens) for phase in folder.phases] == [(2.0, 200)]


def test_what_is_recorded_as_done_lies_on_the_disk_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of power right after run.json was replaced: it must not speak of answers that only a cache held."""
    synced: dict[str, int] = {}
    claims: list[str] = []
    path = tmp_path / "run"
    cells = [CELL, CellId("base", "stories", "dev", "fr", "high")]
    sync = os.fsync

    def watch(handle: int) -> None:
        sync(handle)
        file = Path(f"/proc/self/fd/{handle}").resolve()
        synced[str(file.relative_to(path))] = os.fstat(handle).st_size
        if file.name != ".run.json.tmp":
            return
        state = json.loads(file.read_text(encoding="utf-8"))
        claimed = [cell_file(cell) for cell in cells] + ["prompts.jsonl"] if state["phases"] or state["finished"] else []
        claimed += [".samples.parquet.tmp"] if state["finished"] else []
        sizes = {name: (path / name.removeprefix(".").removesuffix(".tmp")).stat().st_size for name in claimed}
        assert {name: synced.get(name) for name in claimed} == sizes
        assert all(str(Path(name).parent) in synced for name in claimed)
        claims.extend(claimed)

    monkeypatch.setattr(os, "fsync", watch)
    with create(path) as folder:
        folder.open_cells([record(cell) for cell in cells])
        for number in range(3):
            folder.add_prompt(str(number), "a question")
            for cell in cells:
                folder.add_sample(sample(number, cell))
        folder.add_phase(Phase("base", "stories", "dev", 1.0, 0.9, 100, None, None, 10**9, "slots", 64))
        folder.add_sample(sample(3))
        folder.finish()
    assert len(claims) == 3 + 4


def test_the_newest_unfinished_run_of_an_experiment_is_found_beside_damaged_ones(tmp_path: Path) -> None:
    assert newest_unfinished(tmp_path, "embedded") is None
    assert newest_unfinished(tmp_path / "nowhere", "embedded") is None
    for name, day in (("one", 1), ("two", 3), ("three", 2), ("four", 9)):
        environment = dataclasses.replace(ENVIRONMENT, started_at=f"2025-11-0{day}T00:00:00+00:00")
        with RunFolder.create(tmp_path / name, EXPERIMENT, environment, COMMAND) as folder:
            if name == "four":
                folder.finish()
    for name, text in (("broken", "{"), ("foreign", '{"schema": 9}'), ("partial", '{"schema": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text, encoding="utf-8")
    assert newest_unfinished(tmp_path, "embedded") == tmp_path / "two"
    assert newest_unfinished(tmp_path, "other") is None


# --- names


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_different_names_have_different_slugs_that_are_safe_file_names(one: str, other: str) -> None:
    for name in (one, other):
        assert set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert slug(name)[0] not in ".-"
        assert slug(name)[-1] != "."
    assert (slug(one) == slug(other)) == (one == other)


@pytest.mark.parametrize("name", ["r16-s80", "ours-v3.1", "stories_plain", "base"])
def test_a_safe_name_is_its_own_slug(name: str) -> None:
    assert slug(name) == name


@pytest.mark.parametrize("name", ["..", "../..", "/etc/passwd", ".lock", "a/b", "a\\b", "a\0b", "mmmlu@test", ""])
def test_a_hostile_name_stays_inside_the_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / cell_file(CellId(name, name, name, name, "low"))
    assert path.resolve().is_relative_to(tmp_path / "cells")
    assert path.parent.parent == tmp_path / "cells"


def test_a_record_that_points_outside_its_folder_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "run", [sample()])
    (tmp_path / "secret.jsonl").write_text(sample(7).to_json() + "\n", encoding="utf-8")
    state = tmp_path / "run" / "run.json"
    state.write_text(state.read_text(encoding="utf-8").replace(cell_file(CELL), "../secret.jsonl"), encoding="utf-8")
    assert list(load_run(tmp_path / "run").samples["item_id"]) == ["item-000"]


def test_a_run_of_an_earlier_version_is_read_with_an_unknown_final_language(tmp_path: Path) -> None:
    file = fill(tmp_path / "run", [sample(0), sample(1)])
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    kept = [json.dumps({name: value for name, value in row.items() if name != "final_language"}) for row in rows]
    file.write_text("\n".join([*kept, ""]), encoding="utf-8")
    samples = read_samples(tmp_path / "run", [record()])
    assert len(samples) == 2
    assert samples["final_language"].isna().all()


def test_half_a_surrogate_pair_is_written_as_a_replacement_character(tmp_path: Path) -> None:
    hostile = sample(completion="\ud83d <script>\x00", answer="\udc00", target="\U0001f986")
    fill(tmp_path / "run", [hostile])
    (row,) = plain(read_samples(tmp_path / "run", [record()]))
    assert (row["completion"], row["answer"], row["target"]) == ("\ufffd <script>\x00", "\ufffd", "\U0001f986")
