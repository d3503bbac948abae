"""Committed baselines and given runs -> one line of releases for each experiment, hardware and data, with the steps between them.

A baseline is replaced in place, so its earlier versions are read from git. Two neighbours are compared as a gate would compare them, on
the same problems; a step is a change that stands out after Bonferroni's correction for every look in its line.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import stats
from bench.baseline import BASELINES, FILE, of_run, read_baseline
from bench.comparison import compare
from bench.errors import BaselineError
from bench.experiment import EFFORTS, Vram
from bench.records import Baseline, Comparison
from bench.store import load_run

METRICS = ("accuracy", "reasoning_language_fidelity", "output_tokens", "latency_s")
CONFIDENCE = 0.95
"""Of all steps of one line together: at most 5 % of lines without any true change show one."""
LATENCY_STEP = 0.10
"""Relative change below which a step of latency is not marked: one pass an arm cannot tell it from the machine's mood."""

Key = tuple[str, str, str, str]
"""experiment, hardware, suite, split."""


@dataclass(frozen=True, slots=True)
class Release:
    """One point of a line."""

    label: str
    """Commit of the code that was measured, or the run folder's name."""
    source: str
    """Where it was read from: a commit of this repository, the working tree, or a run folder."""
    baseline: Baseline


@dataclass(frozen=True, slots=True)
class Step:
    """The change from the release before, in one metric at one effort."""

    comparison: Comparison
    is_marked: bool


@dataclass(frozen=True, slots=True)
class Line:
    """Releases that can be laid side by side, oldest first. `steps[n]` leads to `releases[n + 1]`."""

    key: Key
    releases: tuple[Release, ...]
    steps: tuple[dict[tuple[str, str], Step], ...]
    """By (metric, effort)."""
    looks: int
    """Comparisons that the correction counts."""
    memory_steps: frozenset[int] = frozenset()
    """Releases whose peak memory differs from the one before by more than a `vram` gate allows unless told otherwise."""


def read_history(runs: list[Path], root: Path = BASELINES) -> tuple[list[Line], list[str]]:
    """Every line, and sentences on what could not be read. Raises RunFolderError where a given run cannot be."""
    releases, problems = _committed(root)
    for folder in runs:
        baseline = of_run(load_run(folder))
        if isinstance(baseline, str):
            problems.append(f"{folder} is left out: {baseline}")
        else:
            releases.append(Release(folder.resolve().name, f"run {folder}", baseline))
    lines: dict[Key, list[Release]] = {}
    for release in releases:
        one = release.baseline
        lines.setdefault((one.experiment, one.hardware, one.suite, one.split), []).append(release)
    return [join_releases(key, found) for key, found in sorted(lines.items())], problems


def join_releases(key: Key, releases: list[Release]) -> Line:
    """One line of releases, oldest first, each once, with the steps between them."""
    unique: dict[tuple[str, str], Release] = {}
    for release in releases:  # a run and the baseline it became are one release
        unique.setdefault((release.baseline.environment.started_at, release.baseline.arm), release)
    ordered = sorted(unique.values(), key=lambda release: (release.baseline.environment.started_at, release.label))
    compared = [_compared(earlier.baseline, later.baseline) for earlier, later in zip(ordered, ordered[1:], strict=False)]
    looks = sum(one.delta is not None for made in compared for one in made.values())
    steps = tuple({key: Step(one, _is_step(one, looks)) for key, one in made.items()} for made in compared)
    return Line(key, tuple(ordered), steps, looks, _memory_steps([peak_memory(release.baseline) for release in ordered]))


def peak_memory(baseline: Baseline) -> int | None:
    """Bytes, of the arm's evaluation passes: VRAM where there is a GPU, else host memory. None where it is not on record."""
    gpu = baseline.environment.gpu is not None
    phases = [phase for phase in baseline.phases if phase.arm == baseline.arm]
    peaks = [phase.peak_vram_bytes if gpu else phase.peak_rss_bytes for phase in phases]
    known = [peak for peak in peaks if peak is not None]
    return max(known) if known and len(known) == len(peaks) else None


def _memory_steps(peaks: list[int | None]) -> frozenset[int]:
    """Places of peaks that are more than the gate's rise above or below the one before; an unknown one is no step."""
    pairs = enumerate(zip(peaks, peaks[1:], strict=False), start=1)
    rise = Vram()
    return frozenset(
        place
        for place, (before, after) in pairs
        if before is not None and after is not None and abs(after - before) > rise.relative * before + rise.absolute_mib * 2**20
    )


def _compared(before: Baseline, after: Baseline) -> dict[tuple[str, str], Comparison]:
    sides = [one.samples[one.samples["arm"] == one.arm] for one in (before, after)]
    efforts = [effort for effort in EFFORTS if effort in set(after.samples["effort"])]
    found = {}
    for metric in METRICS:
        for effort in efforts:
            made = compare(*sides, suite=after.suite, split=after.split, effort=effort, metric=metric)
            if made.delta is not None or metric == "accuracy":
                found[metric, effort] = made
    return found


def _is_step(one: Comparison, looks: int) -> bool:
    """Whether the change stands out among all of its line's; where no problem differs from another, whether its interval leaves out 0."""
    if one.delta is None or one.ci is None or not (one.ci[0] > 0 or one.ci[1] < 0):
        return False
    if one.metric == "latency_s" and one.before and abs(one.delta) / one.before < LATENCY_STEP:
        return False
    if not one.se:
        return True
    return abs(one.delta) / one.se > stats.t_quantile(one.clusters - 1, 1 - (1 - CONFIDENCE) / max(1, looks))


# Reading ------------------------------------------------------------------------------------------------------------------------


def _committed(root: Path) -> tuple[list[Release], list[str]]:
    """Every version of every baseline, from git where there is one, and from the working tree."""
    releases, problems = [], []
    for folder in sorted(path.parent for path in root.glob(f"*/*/{FILE}")):
        problems += _unseen(folder)
        for commit in _commits(folder):
            with tempfile.TemporaryDirectory() as copy:
                try:
                    releases.append(_release(_check_out(commit, folder, Path(copy)), f"commit {commit[:10]}"))
                except BaselineError as error:
                    problems.append(f"{folder} of commit {commit[:10]} is left out: {str(error).replace(copy, '...')}")
        try:
            releases.append(_release(folder, f"{folder}"))
        except BaselineError as error:
            problems.append(f"{folder} is left out: {error}")
    return releases, problems


def _release(folder: Path, source: str) -> Release:
    baseline = read_baseline(folder)
    return Release((baseline.environment.git_commit or "unknown")[:10], source, baseline)


def _commits(folder: Path) -> list[str]:
    """Commits that changed the baseline, oldest first; none where this is no git checkout, or git is not there."""
    return (_git(folder, "log", "--reverse", "--format=%H", "--", FILE) or b"").decode().split()


def _unseen(folder: Path) -> list[str]:
    """Why git does not show the whole history; empty where it does, and outside any checkout."""
    if not any((parent / ".git").exists() for parent in folder.resolve().parents):
        return []
    shallow = _git(folder, "rev-parse", "--is-shallow-repository")
    if shallow is None:
        return [f"earlier versions of {folder} are left out: git does not read this checkout"]
    if shallow.strip() == b"true":
        return [f"earlier versions of {folder} may be left out: this clone is shallow, `git fetch --unshallow` completes it"]
    return []


def _check_out(commit: str, folder: Path, copy: Path) -> Path:
    """The baseline's files as they were. Raises BaselineError where git does not have them."""
    for name in _names(commit, folder):
        data = _git(folder, "show", f"{commit}:./{name}")
        if data is None:
            raise BaselineError(f"git cannot show {name}")
        (copy / name).write_bytes(data)
    return copy


def _names(commit: str, folder: Path) -> Iterator[str]:
    listed = (_git(folder, "ls-tree", "--name-only", "-z", commit, "./") or b"").decode().split("\0")
    yield from (name for name in map(lambda one: Path(one).name, listed) if name == FILE or name.startswith("scores-"))


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None where it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
