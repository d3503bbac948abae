"""A whole embedded run, training and report included, killed at random moments and gone on with until it is done: equal to one left alone.

`tox -e faults` runs this. The moments are seeded draws: half of them in time, half in files that the run makes, temporary ones too and the
first more often than the last, so that the short moments in which something is being written are met. Half of the kills meet the conductor
alone, half all of its processes. Each run has one core, as many run side by side as there are.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from test_executors import survivors
from test_runner import comparable, whole

from bench.catalog import SUITES
from bench.records import EXIT_CODES, Comparison, Run, Training
from bench.store import load_run, read_prompts

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("EFFORTBENCH_KILLS", "50"))
SEED = 8
ARM = "r4-s4"
ITEMS = 3
STAGES = {"start", "training", "evaluation", "report"}
MARK = "EFFORTBENCH_KILL_TEST"
PATIENCE_S = 600
"""A run, however slow the machine, that makes no end in this time hangs."""
DONE = EXIT_CODES["invalid"]
"""Three problems are too few for a verdict."""
TIMED = ("latency_s", "ttft_s")
MEASURED = {"wall_s", "peak_vram_bytes", "peak_reserved_bytes", "peak_rss_bytes", "phases", "resumed_from"}
"""What a training record says of how it went, and not of what came out."""

LAUNCHER = """
import json, os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
import matplotlib.backends.backend_agg, pandas, pyarrow.parquet, scipy.stats, torch
from transformers import AutoTokenizer
import bench.cli, bench.console, bench.finetune.data, bench.judging, bench.meter, bench.plan, bench.report, bench.report.page, bench.runner

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        pid, status = os.waitpid(order["wait"], os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    os.setsid()
    os.chdir(order["folder"])
    os.environ |= order["environment"]
    output = os.open(order["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1), os.dup2(output, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["effortbench", *order["arguments"]]
    try:
        bench.cli.main()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(ended.code)
"""
"""Command lines as forks of one process that has imported what they import, which is most of their time. Their children are real ones."""


class Launcher:
    """Starts `effortbench` again and again, on one core."""

    def __init__(self, core: int):
        self.codes: dict[int, int | None] = {}
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(core)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def _say(self, order: dict[str, Any]) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, folder: Path, out: Path, *, resume: bool) -> int:
        """Process id of a run that leads a session of its own; its output goes to a file that is shown when it fails."""
        arguments = ["bench", "tiny.yaml", "--out", out.name, "--limit", str(ITEMS), *(["--resume"] if resume else [])]
        environment = {MARK: mark(out), "TMPDIR": str(folder / "tmp")}
        order = {"folder": str(folder), "output": str(folder / f"{out.name}.out"), "arguments": arguments, "environment": environment}
        pid = int(self._say(order))
        self.codes[pid] = None
        return pid

    def poll(self, pid: int) -> int | None:
        """Its exit code, once it has ended; until this was told, the process id is nobody else's."""
        if self.codes.get(pid) is None:
            self.codes[pid] = self._say({"wait": pid})
        return self.codes[pid]

    def wait(self, pid: int, within_s: float = PATIENCE_S) -> int:
        deadline = time.monotonic() + within_s
        while (code := self.poll(pid)) is None:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                raise TimeoutError(f"no end within {within_s} s")
            time.sleep(0.02)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def mark(out: Path) -> str:
    return f"{out.parent}/{out.name}/"


def children(out: Path) -> list[int]:
    """The living processes that a run started, and those that they started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark(out)}\0".encode() in path.read_bytes() + b"\0":
                found.append(int(path.parent.name))
    return found


def files_seen(out: Path, seen: set[str]) -> int:
    """How many different files have been in the folder so far."""
    for parent, _, names in os.walk(out):
        seen.update(f"{parent}/{name}" for name in names)
    return len(seen)


def stage(out: Path) -> str:
    """How far the run is, by what lies in its folder."""
    if (out / "samples.parquet").exists() or (out / ".samples.parquet.tmp").exists():
        return "report"
    if any(out.glob("logs/evaluate-*")):
        return "evaluation"
    return "training" if any(out.glob("logs/train-*")) else "start"


@dataclass(frozen=True)
class Moment:
    """When to kill, and whom."""

    after_s: float | None
    after_files: int | None
    is_whole: bool
    """All processes of the run, or the conductor alone, whose children then end themselves."""

    @classmethod
    def draw(cls, rng: random.Random, took_s: float, files: int) -> Moment:
        if rng.random() < 0.5:
            return cls(rng.uniform(0, took_s), None, rng.random() < 0.5)
        return cls(None, round(files ** rng.random()), rng.random() < 0.5)

    def __str__(self) -> str:
        when = f"{self.after_s:.1f} s" if self.after_s is not None else f"{self.after_files} files"
        return f"after {when}, {'all processes' if self.is_whole else 'the conductor'}"


def kill_at(launcher: Launcher, pid: int, out: Path, moment: Moment) -> str | None:
    """Kill a run at the moment drawn; the stage it was in, or None where it ended before."""
    began, seen = time.monotonic(), set[str]()
    before = files_seen(out, seen)
    while launcher.poll(pid) is None:
        elapsed_s = time.monotonic() - began
        made = files_seen(out, seen) - before
        if elapsed_s > PATIENCE_S or (elapsed_s >= moment.after_s if moment.after_s is not None else made >= (moment.after_files or 0)):
            found = stage(out)
            for victim in children(out) if moment.is_whole else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            code = launcher.wait(pid)
            if elapsed_s > PATIENCE_S:
                raise TimeoutError(f"{out}: no end after {PATIENCE_S} s")
            return found if code == -signal.SIGKILL else None
        time.sleep(0.005)
    return None


def scores(comparisons: tuple[Comparison, ...]) -> list[Comparison]:
    return [made for made in comparisons if made.metric not in TIMED]


def outcome(training: Training) -> dict[str, Any]:
    return {name: value for name, value in asdict(training).items() if name not in MEASURED}


def check(killed: Run, alone: Run) -> Iterator[str]:
    """What differs from the run that nobody killed."""
    if not killed.finished or killed.failed_arms:
        yield f"finished {killed.finished}, failed {killed.failed_arms}"
    if comparable(killed) != comparable(alone):
        yield "samples differ"
    keys = ["arm", "suite", "split", "language", "effort", "item_id", "sample_index"]
    if killed.samples.duplicated(keys).any() or len(killed.samples) != len(alone.samples):
        yield f"{len(killed.samples)} samples, {int(killed.samples.duplicated(keys).sum())} of them twice"
    if killed.cells != alone.cells:
        yield "cells differ"
    if sorted(read_prompts(killed.folder)) != sorted(read_prompts(alone.folder)):
        yield "prompts differ"
    if outcome(killed.training[ARM]) != outcome(alone.training[ARM]):
        yield "the adapter or what is recorded of its training differs"
    if scores(killed.comparisons) != scores(alone.comparisons) or not scores(killed.comparisons):
        yield "comparisons differ"
    if killed.verdict is None or killed.verdict != alone.verdict:
        yield "verdicts differ"
    if (pages := {path.name for path in (killed.folder / "report").iterdir()}) != {
        path.name for path in (alone.folder / "report").iterdir()
    }:
        yield f"report/ holds {sorted(pages)}"
    passes = [(phase.arm, phase.suite, phase.split) for phase in killed.phases]
    if len(set(passes)) != len(passes):
        yield f"a pass has several records: {passes}"
    left = [path.relative_to(killed.folder) for path in killed.folder.rglob("*") if path.name.startswith((".", "checkpoint-"))]
    if left := [str(path) for path in left if path.name != ".lock"]:
        yield f"left behind: {left}"


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

    @property
    def is_enough(self) -> bool:
        return self.kills >= KILLS and self.stages.keys() >= STAGES

    def kill(self, out: Path, found: str, moment: Moment) -> None:
        with self.lock:
            self.stages[found] += 1
            self.moments.append(f"{out.name}: {found}, {moment}")

    def end(self, out: Path, problems: list[str]) -> None:
        with self.lock:
            self.runs += 1
            self.problems += [f"{out.name}: {problem}" for problem in problems]


def kill_runs(core: int, folder: Path, alone: Run, took_s: float, files: int, tally: Tally) -> None:
    """Runs one after the other on one core, each killed until it ends by itself, until there were kills enough."""
    launcher, number = Launcher(core), 0
    try:
        while not tally.is_enough and not tally.problems:
            rng, out = random.Random(f"{SEED}/{core}/{number}"), folder / f"run-{core}-{number}"
            code = kill_until_it_ends(launcher, folder, out, rng, took_s, files, tally)
            said = (folder / f"{out.name}.out").read_text(encoding="utf-8")[-2000:]
            tally.end(out, [f"exited with {code}: {said}"] if code != DONE else list(check(load_run(out), alone)))
            number += 1
    finally:
        launcher.close()


def kill_until_it_ends(launcher: Launcher, folder: Path, out: Path, rng: random.Random, took_s: float, files: int, tally: Tally) -> int:
    """The exit code of the start that was left to end."""
    is_first = True
    while True:
        pid, moment = launcher.start(folder, out, resume=not is_first), Moment.draw(rng, took_s, files)
        is_first = False
        found = kill_at(launcher, pid, out, moment) if not tally.is_enough else None
        if found is None:
            return launcher.wait(pid)
        tally.kill(out, found, moment)


def test_a_run_killed_at_random_moments_ends_as_one_that_was_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (SUITES / "stories" / "train.jsonl").read_text(encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("".join(text.splitlines(keepends=True)[:10]), encoding="utf-8")
    asked = {**whole(tmp_path / "rows.jsonl", steps=[4], checkpoint_steps=1), "select": None}  # selecting is evaluating once more
    (tmp_path / "tiny.yaml").write_text(json.dumps(asked), encoding="utf-8")
    (tmp_path / "tmp").mkdir()
    cores = sorted(os.sched_getaffinity(0))[:4]
    launcher = Launcher(cores[0])
    try:
        seen, began = set[str](), time.monotonic()
        pid = launcher.start(tmp_path, tmp_path / "alone", resume=False)
        while (code := launcher.poll(pid)) is None:
            files_seen(tmp_path / "alone", seen)
            time.sleep(0.005)
        took_s = time.monotonic() - began
    finally:
        launcher.close()
    assert code == DONE, (tmp_path / "alone.out").read_text(encoding="utf-8")
    alone, tally = load_run(tmp_path / "alone"), Tally()
    assert list(check(alone, alone)) == []

    def guarded(core: int) -> None:
        try:
            kill_runs(core, tmp_path, alone, took_s, len(seen), tally)
        except BaseException as error:  # a thread's exception would pass for success
            tally.problems.append(f"{type(error).__name__}: {error}")

    began = time.monotonic()
    threads = [threading.Thread(target=guarded, args=(core,)) for core in cores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with capsys.disabled():
        took = f"{(time.monotonic() - began) / 60:.1f} min; one run left alone took {took_s:.0f} s and made {len(seen)} files"
        print(f"\n{tally.kills} kills in {tally.runs} runs {dict(sorted(tally.stages.items()))}, {took}")
    assert tally.problems == [], "\n".join(tally.problems + tally.moments)
    assert tally.is_enough
    assert survivors(f"{MARK}={tmp_path}") == []
    shutil.rmtree(tmp_path)
