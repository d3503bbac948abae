"""Claims about the run folders on this machine: all are listed, and nothing but a run is ever removed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fabricated import fabricate_environment, fabricate_experiment

from bench import cli
from bench.errors import RunFolderError
from bench.records import CellRecord
from bench.runs import find_run, list_runs, remove_run, size_of
from bench.store import RunFolder


def write_run(folder: Path, started_at: str, finished: bool = True, verdict: str | None = None) -> Path:
    environment = dataclasses.replace(fabricate_environment(), started_at=started_at)
    with RunFolder.create(folder, fabricate_experiment(), environment, "effortbench run embedded") as run:
        run.open_cells([CellRecord("base", "stories", "gate", "de", "low", "k", 7, "cells/x.jsonl")])
        run.finished = finished
        run.save()
    if verdict:
        (folder / "verdict.json").write_text(json.dumps({"verdict": verdict}), encoding="utf-8")
    return folder


def test_runs_are_listed_newest_first_with_their_state(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "2026-01-01T00:00:00+00:00", verdict="fail")
    write_run(tmp_path / "b", "2026-03-01T00:00:00+00:00", finished=False)
    write_run(tmp_path / "c", "2026-02-01T00:00:00+00:00")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text('{"schema": 1}')
    (tmp_path / "notes").mkdir()
    found = list_runs(tmp_path)
    assert [(one.folder.name, one.state) for one in found] == [
        ("b", "unfinished"),
        ("c", "not judged"),
        ("a", "fail"),
        ("damaged", "damaged"),
    ]
    assert [one.answers for one in found] == [7, 7, 7, None]
    assert list_runs(tmp_path / "nowhere") == []


def test_size_counts_every_file_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "run" / "cells").mkdir(parents=True)
    (tmp_path / "big").write_bytes(b"x" * 100_000)
    (tmp_path / "run" / "one").write_bytes(b"x" * 1000)
    (tmp_path / "run" / "cells" / "two").write_bytes(b"x" * 500)
    (tmp_path / "run" / "link").symlink_to(tmp_path / "big")
    assert 1500 < size_of(tmp_path / "run") < 2000


def test_only_a_run_folder_can_be_removed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "a", "2026-01-01T00:00:00+00:00")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "link").symlink_to(run)
    assert find_run(Path("a"), tmp_path / "runs") == run
    assert find_run(run, Path("elsewhere")) == run
    for name, why in (("notes", "not a run folder"), ("none", "not a run folder"), ("link", "is a link"), ("..", "not a run folder")):
        with pytest.raises(RunFolderError, match=why):
            find_run(Path(name), tmp_path / "runs")
    remove_run(run)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["link", "notes"]


def test_a_run_that_is_being_written_is_not_removed(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a", fabricate_experiment(), fabricate_environment(), "") as run:
        with pytest.raises(RunFolderError, match="in use by another effortbench"):
            remove_run(run.path)
        assert (run.path / "run.json").exists()


def test_a_linked_file_inside_a_run_survives_its_removal(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", "2026-01-01T00:00:00+00:00")
    (tmp_path / "kept").write_text("kept")
    (run / "adapters").symlink_to(tmp_path, target_is_directory=True)
    remove_run(run)
    assert (tmp_path / "kept").read_text() == "kept"


def test_commands_list_and_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    first = write_run(Path("reports/runs/a"), "2026-01-01T00:00:00+00:00", verdict="pass")
    write_run(Path("reports/runs/b"), "2026-02-01T00:00:00+00:00")

    def call(*arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["effortbench", "runs", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, "".join(capsys.readouterr())

    code, said = call("list")
    assert code == 0
    assert said.index("b ") < said.index("a ")
    assert "2\u00a0runs in reports/runs" in said
    asked = [sys.executable, "-m", "bench", "runs", "remove", "a"]
    assert subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 130  # no answer came
    assert first.exists()
    code, said = call("remove", "a", "nowhere", "--yes")
    assert code == 2
    assert first.exists(), "one bad name removes nothing"
    assert call("remove", "a", "--yes")[0] == 0
    assert not first.exists()
    shutil.rmtree("reports")
    assert call("list")[0] == 0
