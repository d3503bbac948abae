"""Disks that fill up, folders that cannot be written, clocks that jump, two runs at once: real commands, one clear line, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_cli import effortbench, record_finalists, samples_in
from test_runner import ARM, ITEMS, base_alone, comparable, whole

from bench.catalog import SUITES
from bench.store import load_run

pytestmark = pytest.mark.faults

TESTS = Path(__file__).parent


def has_namespaces() -> bool:
    """Whether a process may mount a small disk of its own here."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False).returncode == 0


needs_small_disk = pytest.mark.skipif(not has_namespaces(), reason="needs mount namespaces")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench", *arguments, "--limit", str(ITEMS)]


def assert_one_line(code: int, err: str, *expected: str) -> None:
    """Exit code 2 and one line, which is no traceback."""
    assert code == 2, err
    lines = [line for line in err.splitlines() if line.strip()]
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in err
    assert all(part in lines[-1] for part in expected), err


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of base alone that nothing befell, and its experiment beside it."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "tiny.yaml").write_text(json.dumps(base_alone()), encoding="utf-8")
    done = subprocess.run(command("run", "tiny.yaml", "--out", "run"), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def here(alone: Path, tmp_path: Path) -> Path:
    shutil.copy(alone.parent / "tiny.yaml", tmp_path)
    return tmp_path


# --- a full disk

FILL = """
import shutil, subprocess, sys
sys.path.insert(0, sys.argv[1])
from test_store import *
for free_kib in range(4, 84, 4):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={free_kib}k", "none", "disk"], check=True)
    path = Path("disk/run")
    wanted = [sample(number, completion="x" * 900) for number in range(16)]
    failed, told = "", 0
    for attempt in range(2):
        try:
            with (reopen if (path / "run.json").exists() else create)(path) as folder:
                kept = folder.open_cells([record()])
                assert told <= len(kept) and kept == wanted[: len(kept)], "an answer that was told to be kept is lost"
                for number in range(len(kept), len(wanted)):
                    folder.add_prompt(str(number), "y" * 300)
                    folder.add_sample(wanted[number])
                    told = number + 1
                folder.add_phase(Phase("base", "stories", "dev", 1.0, 0.9, 100, None, None, 10**9, "slots", 64))
                folder.finish()
        except RunFolderError as error:
            failed = str(error)
        assert attempt == 0 or load_run(path).finished
        subprocess.run(["mount", "-o", "remount,size=10m", "disk"], check=True)
    assert plain(load_run(path).samples) == [dataclasses.asdict(one) for one in wanted]
    print(json.dumps([free_kib, failed]), flush=True)
    subprocess.run(["umount", "disk"], check=True)
"""


@needs_small_disk
def test_a_disk_that_is_full_after_any_number_of_bytes_loses_nothing_that_was_told(tmp_path: Path) -> None:
    """Twenty disks of 4 to 80 KiB: the first fill before run.json stands, the last hold the whole run."""
    (tmp_path / "disk").mkdir()
    script = ["unshare", "-Urm", sys.executable, "-c", FILL, str(TESTS)]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line)[1] for line in done.stdout.splitlines()]
    assert len(said) == 20
    full = [reason for reason in said if reason]
    assert 10 <= len(full) < 20
    assert all("No space left on device" in reason and "\n" not in reason for reason in full)
    assert len({reason.split(" cannot be ")[0] for reason in full}) >= 3, "the disk should have been full in several files"


SMALL_DISK = """
mount -t tmpfs -o size=$1k none disk || exit 99
"$0" -m bench run tiny.yaml --out disk/run --limit $2 > first.out 2> first.err; echo $? > first.code
cp -r disk/run first
mount -o remount,size=50m disk
"$0" -m bench run tiny.yaml --out disk/run --limit $2 --resume > second.out 2> second.err; echo $? > second.code
cp -r disk/run second
"""


def run_on_a_small_disk(here: Path, size_kib: int) -> tuple[int, str]:
    """Exit code and errors of a run on a disk of this size; it leaves the folders `first`, and `second` once there was room."""
    (here / "disk").mkdir()
    subprocess.run(["unshare", "-Urm", "sh", "-c", SMALL_DISK, sys.executable, str(size_kib), str(ITEMS)], cwd=here, check=True)
    assert (here / "second.code").read_text() == "0\n", (here / "second.err").read_text(encoding="utf-8")
    return int((here / "first.code").read_text()), (here / "first.err").read_text(encoding="utf-8")


@needs_small_disk
def test_a_run_on_a_full_disk_says_so_and_goes_on_once_there_is_room(alone: Path, here: Path) -> None:
    code, err = run_on_a_small_disk(here, 32)
    assert_one_line(code, err, "cannot be written: ", "No space left on device")
    assert not load_run(here / "first").finished
    assert comparable(load_run(here / "second")) == comparable(load_run(alone))


@needs_small_disk
def test_an_adapter_that_finds_no_room_fails_its_arm_alone_and_is_trained_once_there_is(tmp_path: Path) -> None:
    """All that is written fits, but the adapter's weights."""
    rows = (SUITES / "stories" / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:10]
    (tmp_path / "rows.jsonl").write_text("".join(rows), encoding="utf-8")
    asked = {**whole(tmp_path / "rows.jsonl"), "select": None}
    (tmp_path / "tiny.yaml").write_text(json.dumps(asked), encoding="utf-8")
    code, err = run_on_a_small_disk(tmp_path, 120)
    assert code == 0, err
    failed, done = load_run(tmp_path / "first"), load_run(tmp_path / "second")
    assert list(failed.failed_arms) == [ARM]
    assert "No space left on device" in failed.failed_arms[ARM]
    assert failed.training[ARM].status == "failed"
    assert not list((failed.folder / "adapters").glob("*")), "half an adapter was left behind"
    assert set(failed.samples["arm"]) == {"base"}
    assert (done.failed_arms, done.training[ARM].status) == ({}, "trained")
    assert [row for row in comparable(done) if row["arm"] == "base"] == comparable(failed)
    assert len(done.samples) == 2 * len(failed.samples)


# --- a folder that cannot be written


WITHOUT_OVERRIDE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""Root, too, may write only where the mode says so: PR_CAPBSET_DROP takes CAP_DAC_OVERRIDE from it. It fails for those who never had it."""


def unprivileged(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", WITHOUT_OVERRIDE, sys.executable, "-m", "bench", *arguments]
    return subprocess.run(program, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Takes write permission from a folder and all in it, until the test ends."""
    taken: list[Path] = []

    def take(folder: Path) -> Path:
        paths = [folder, *folder.rglob("*")]
        taken.extend(paths)
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        return folder

    yield take
    for path in taken:
        path.chmod(0o755 if path.is_dir() else 0o644)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_in_a_read_only_folder_is_one_line_and_leaves_it_as_it_was(
    alone: Path, here: Path, read_only: Callable[[Path], Path]
) -> None:
    shutil.copytree(alone, here / "there" / "run")
    before = contents(here / "there")
    read_only(here / "there")
    for arguments, expected in (
        (["--out", "there/new"], "there/new cannot be made: Permission denied; pass another --out"),
        (["--out", "there/run", "--resume"], "there/run cannot be written: Permission denied"),
        (["--out", "there/run"], "there/run exists already"),
    ):
        done = unprivileged("run", "tiny.yaml", *arguments, "--limit", str(ITEMS), cwd=here)
        assert_one_line(done.returncode, done.stderr, expected)
    assert contents(here / "there") == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["gate", "run"], "run/verdict.json cannot be written: Permission denied"),
        (["report", "run"], "run/report cannot be written: Permission denied"),
        (["export", "run", "--format", "jsonl", "--out", "run/all.jsonl"], "run/all.jsonl cannot be written: Permission denied"),
    ],
    ids=["gate", "report", "export"],
)
def test_a_read_only_run_can_be_read_and_what_would_be_written_into_it_is_one_line(
    tmp_path: Path, read_only: Callable[[Path], Path], arguments: list[str], expected: str
) -> None:
    record_finalists(tmp_path / "run", (0.2, 0.7, 0.98))
    before = contents(read_only(tmp_path / "run"))
    done = unprivileged(*arguments, cwd=tmp_path)
    assert_one_line(done.returncode, done.stderr, expected)
    assert contents(tmp_path / "run") == before
    assert effortbench("export", "run", "--out", "all.jsonl", cwd=tmp_path).returncode == 0


# --- damage


def test_prompts_that_are_damaged_and_deleted_as_told_are_asked_for_again(alone: Path, here: Path) -> None:
    """No answer is given again for it."""
    run = Path(shutil.copytree(alone, here / "run"))
    prompts = (run / "prompts.jsonl").read_bytes()
    (run / "prompts.jsonl").write_bytes(b"{\n" + prompts)
    cells = {path: path.stat().st_mtime_ns for path in run.rglob("cells/*/*.jsonl")}
    done = subprocess.run(command("run", "tiny.yaml", "--out", "run", "--resume"), cwd=here, capture_output=True, text=True, check=False)
    assert_one_line(done.returncode, done.stderr, "prompts.jsonl, line 1 is damaged", "delete the file and --resume")
    (run / "prompts.jsonl").unlink()
    done = subprocess.run(command("run", "tiny.yaml", "--out", "run", "--resume"), cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted((run / "prompts.jsonl").read_bytes().splitlines()) == sorted(prompts.splitlines())
    assert {path: path.stat().st_mtime_ns for path in run.rglob("cells/*/*.jsonl")} == cells


# --- clocks

BACKWARDS = """
import atexit, itertools, os, pathlib, time
began, seen = time.time(), itertools.count()
time.time = lambda: began - 86_400 * next(seen)
atexit.register(lambda: (pathlib.Path(__file__).parent / f"read-{os.getpid()}").write_text(str(next(seen))))
"""


def test_a_clock_that_only_jumps_back_changes_no_answer_and_no_duration(alone: Path, here: Path) -> None:
    """In every process of the run, each look at the wall clock finds it a day earlier."""
    (here / "clock").mkdir()
    (here / "clock" / "sitecustomize.py").write_text(BACKWARDS, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here / "clock"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        command("run", "tiny.yaml", "--out", "run"), cwd=here, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert len([path for path in (here / "clock").glob("read-*") if path.read_text() != "0"]) >= 2, "conductor and worker"
    run = load_run(here / "run")
    assert comparable(run) == comparable(load_run(alone))
    assert (run.samples["latency_s"] > 0).all()
    assert all(phase.wall_s > 0 and phase.model_s is not None and 0 < phase.model_s < phase.wall_s for phase in run.phases)


# --- two at once


def test_a_second_run_in_the_same_folder_is_told_who_holds_it_and_the_first_ends_well(alone: Path, here: Path) -> None:
    with subprocess.Popen(command("run", "tiny.yaml", "--out", "run"), cwd=here, stderr=subprocess.PIPE, text=True) as first:
        deadline = time.monotonic() + 200
        while not samples_in(here / "run") and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)  # else it might end before the second has come that far
        second = subprocess.run(
            command("run", "tiny.yaml", "--out", "run", "--resume"), cwd=here, capture_output=True, text=True, check=False
        )
        first.send_signal(signal.SIGCONT)
        _, err = first.communicate(timeout=200)
    assert_one_line(second.returncode, second.stderr, f"in use by process {first.pid}: wait for it, or pass another --out")
    assert first.returncode == 0, err
    assert comparable(load_run(here / "run")) == comparable(load_run(alone))
