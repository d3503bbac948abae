"""A whole embedded run, training included, killed at random moments and gone on with until it is done: equal to one that was left alone.

`tox -e faults` runs this. Kill moments are seeded draws, half of them uniform in time, half uniform over the files that the run makes, so
that the short moments in which something is being written are met too. Each run has one core, as many run side by side as there are.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from test_executors import survivors
from test_runner import comparable, whole

from bench.catalog import SUITES
from bench.records import Run
from bench.store import load_run, read_prompts

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("EFFORTBENCH_KILLS", "50"))
SEED = 8
ARM = "r4-s4"
ITEMS = 3
STAGES = ("start", "training", "evaluation", "end")
MARK = "EFFORTBENCH_KILL_TEST"
PATIENCE_S = 600
"""A run, however slow the machine, that makes no end in this time hangs."""


def experiment(rows: Path) -> dict[str, Any]:
    """Base and one arm of four steps, a checkpoint after each; no selection, for that is another evaluation."""
    data = whole(rows, steps=[4], checkpoint_steps=1)
    return {**data, "select": None}


@dataclass
class Tally:
    """What was killed, over all runs together."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stages: Counter[str] = field(default_factory=Counter)
    moments: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    runs: int = 0

    @property
    def kills(self) -> int:
        return sum(self.stages.values())


def start(folder: Path, out: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    """`effortbench run` as the leader of a process group of its own; its output goes to a file that is kept when it fails."""
    command = [sys.executable, "-m", "bench", "run", str(folder / "tiny.yaml"), "--out", str(out), "--limit", str(ITEMS)]
    environment = {**os.environ, MARK: str(folder), "TMPDIR": str(folder / "tmp")}
    with (folder / f"{out.name}.out").open("ab") as output:
        return subprocess.Popen(
            command + ["--resume"] * resume, cwd=folder, stdout=output, stderr=output, env=environment, start_new_session=True
        )


def files_seen(out: Path, seen: set[str]) -> int:
    """How many different files have been in the folder so far; temporary ones count, for they are what a kill should meet."""
    for parent, _, names in os.walk(out):
        seen.update(f"{parent}/{name}" for name in names)
    return len(seen)


def stage(out: Path) -> str:
    """How far the run is, by what lies in its folder."""
    if (out / "samples.parquet").exists() or (out / ".samples.parquet.tmp").exists():
        return "end"
    if any(out.glob("logs/evaluate-*")):
        return "evaluation"
    return "training" if any(out.glob("logs/train-*")) else "start"


def kill_at(process: subprocess.Popen[bytes], out: Path, after_s: float | None, after_files: int | None) -> str | None:
    """Kill the whole process group at the moment drawn; the stage it was in, or None where the run had ended before."""
    began, seen = time.monotonic(), set[str]()
    before = files_seen(out, seen)
    while process.poll() is None:
        elapsed_s = time.monotonic() - began
        is_due = elapsed_s >= after_s if after_s is not None else files_seen(out, seen) - before >= (after_files or 0)
        if is_due:
            found = stage(out)
            os.killpg(process.pid, signal.SIGKILL)
            return found if process.wait() == -signal.SIGKILL else None
        if elapsed_s > PATIENCE_S:
            os.killpg(process.pid, signal.SIGKILL)
            raise TimeoutError(f"{out}: no end after {PATIENCE_S} s")
        time.sleep(0.005)
    return None


def check(killed: Run, whole_run: Run) -> Iterator[str]:
    """What differs from the run that nobody killed."""
    if not killed.finished or killed.failed_arms:
        yield f"finished {killed.finished}, failed {killed.failed_arms}"
    if comparable(killed) != comparable(whole_run):
        yield "samples differ"
    keys = ["arm", "suite", "split", "language", "effort", "item_id", "sample_index"]
    if killed.samples.duplicated(keys).any() or len(killed.samples) != len(whole_run.samples):
        yield f"{len(killed.samples)} samples, {int(killed.samples.duplicated(keys).sum())} of them twice"
    if killed.cells != whole_run.cells:
        yield "cells differ"
    if sorted(read_prompts(killed.folder)) != sorted(read_prompts(whole_run.folder)):
        yield "prompts differ"
    mine, theirs = killed.training[ARM], whole_run.training[ARM]
    if mine.adapter_sha256 != theirs.adapter_sha256 or mine.losses != theirs.losses or mine.status != "trained":
        yield "the adapter or its losses differ"
    if killed.comparisons != whole_run.comparisons:
        yield "comparisons differ"
    passes = [(phase.arm, phase.suite, phase.split) for phase in killed.phases]
    if len(set(passes)) != len(passes):
        yield f"a pass has several records: {passes}"
    if left := [path.name for path in killed.folder.rglob("*") if path.name.endswith(".tmp") or path.name.startswith("checkpoint-")]:
        yield f"left behind: {left}"


def kill_runs(core: int, folder: Path, whole_run: Run, took_s: float, files: int, tally: Tally) -> None:
    """Runs one after the other on one core, each killed until it ends by itself, until there were kills enough."""
    os.sched_setaffinity(0, {core})  # of this thread, and of all that it starts
    number = 0
    while tally.kills < KILLS and not tally.problems:
        draw = random.Random(f"{SEED}/{core}/{number}")
        out = folder / f"run-{core}-{number}"
        died, kills = 0, 0
        while True:
            process = start(folder, out, resume=kills > 0)
            by_time = draw.random() < 0.5
            after_s, after_files = draw.uniform(0, took_s), draw.randint(1, files)
            is_enough = tally.kills >= KILLS
            found = kill_at(process, out, after_s if by_time else None, None if by_time else after_files) if not is_enough else None
            if found is None:
                died = process.wait(PATIENCE_S)
                break
            kills += 1
            with tally.lock:
                tally.stages[found] += 1
                tally.moments.append(f"{out.name}: {found}, " + (f"after {after_s:.1f} s" if by_time else f"after {after_files} files"))
        with tally.lock:
            tally.runs += 1
            if died:
                tally.problems.append(f"{out.name} exited with {died}: " + (folder / f"{out.name}.out").read_text("utf-8")[-2000:])
            else:
                tally.problems += [f"{out.name}: {problem}" for problem in check(load_run(out), whole_run)]
        number += 1


def test_a_run_killed_at_random_moments_ends_as_one_that_was_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join((SUITES / "stories" / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:10]), encoding="utf-8"
    )
    (tmp_path / "tiny.yaml").write_text(json.dumps(experiment(rows)), encoding="utf-8")
    (tmp_path / "tmp").mkdir()
    cores = sorted(os.sched_getaffinity(0))[:4]
    began = time.monotonic()
    os.sched_setaffinity(0, {cores[0]})
    seen = set[str]()
    try:
        process = start(tmp_path, tmp_path / "whole", resume=False)
        while process.poll() is None:
            files_seen(tmp_path / "whole", seen)
            time.sleep(0.005)
    finally:
        os.sched_setaffinity(0, cores)
    took_s = time.monotonic() - began
    assert process.returncode == 0, (tmp_path / "whole.out").read_text(encoding="utf-8")
    whole_run, tally = load_run(tmp_path / "whole"), Tally()

    def guarded(core: int) -> None:
        try:
            kill_runs(core, tmp_path, whole_run, took_s, len(seen), tally)
        except BaseException as error:  # a thread's exception would pass for success
            tally.problems.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=guarded, args=(core,)) for core in cores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with capsys.disabled():
        took = (time.monotonic() - began) / 60
        print(f"\n{tally.kills} kills of {tally.runs} runs {dict(tally.stages)}, {took:.1f} min; one run left alone took {took_s:.0f} s")
    assert tally.problems == [], "\n".join(tally.problems + tally.moments)
    assert tally.kills >= KILLS
    assert {"start", "training", "evaluation"} <= tally.stages.keys(), tally.stages
    assert survivors(f"{MARK}={tmp_path}") == []
