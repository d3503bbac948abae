"""Claims about the history of releases: it is read from git, true steps are marked, and chance is not."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Browser
from fabricated import fabricate_run

from bench import cli
from bench.baseline import FILE, folder_of, of_run, promote
from bench.history import Line, Release, join_releases, peak_memory, read_history
from bench.records import Run
from bench.report import write_history
from bench.report.history import opening


@pytest.fixture(scope="module")
def run() -> Run:
    made = fabricate_run(Path("nowhere"), "pass", select_problems=2, gate_problems=120, gpu=True)
    return dataclasses.replace(made, suite_revisions={"stories": "abc"})


def released(run: Run, month: int, worse: float = 0.0, noise: int = 0) -> Run:
    """The run of another month; a share of the arm's right answers is wrong, and a few others are shuffled."""
    samples, rng = run.samples.copy(), np.random.default_rng(month)
    is_arm = (samples["arm"] == "r16-s200").to_numpy()
    spoilt = is_arm & (rng.random(len(samples)) < worse)
    score = np.where(spoilt, 0.0, samples["score"].to_numpy(dtype=float))
    for at in rng.choice(np.flatnonzero(is_arm), noise, replace=False):
        score[at] = 1 - score[at]
    samples["score"], samples["outcome"] = score, np.where(score == 1, "correct", "wrong")
    environment = dataclasses.replace(run.environment, started_at=f"2026-{month:02d}-01T00:00:00+00:00", git_commit=f"{month:02d}" * 20)
    return dataclasses.replace(run, samples=samples, environment=environment)


def git(folder: Path, *arguments: str) -> None:
    person = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *person, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def checkout(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with four releases: two alike, one that got worse, one more like it."""
    root = tmp_path_factory.mktemp("checkout")
    git(root, "init", "-q")
    for month, worse in ((1, 0.0), (2, 0.0), (3, 0.2), (4, 0.2)):
        made = released(run, month, noise=6)
        made = released(made, month, worse) if month < 4 else dataclasses.replace(made, samples=released(run, 3, worse).samples)
        promote(made, None if month == 1 else "a newer release", root / "reports" / "baselines")
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", f"release {month}")
    return root


@pytest.fixture
def lines(checkout: Path) -> list[Line]:
    found, problems = read_history([], checkout / "reports" / "baselines")
    assert problems == []
    return found


def test_every_committed_release_is_read_from_git_once(lines: list[Line]) -> None:
    assert [line.key for line in lines] == [("embedded", "nvidia-h100-80gb-hbm3", "stories", "gate")]
    assert [release.label for release in lines[0].releases] == ["01" * 5, "02" * 5, "03" * 5, "04" * 5]


def test_a_true_step_is_marked_and_chance_is_not(lines: list[Line]) -> None:
    marked = [sorted(key for key, step in made.items() if step.is_marked) for made in lines[0].steps]
    assert marked[0] == []
    assert ("accuracy", "high") in marked[1]
    assert ("accuracy", "medium") in marked[1]
    assert all(metric == "accuracy" for metric, _ in marked[1])
    assert marked[2] == []
    assert "Accuracy fell in" in opening(lines)


def test_steps_are_corrected_for_every_look(run: Run, tmp_path: Path) -> None:
    """Twelve releases that differ by chance alone."""
    runs = []
    for number in range(12):
        made = dataclasses.replace(released(run, number + 1, noise=60), folder=tmp_path / f"{number:02d}")
        runs.append(made)
    releases = [Release(f"r{number}", "", of_run(made)) for number, made in enumerate(runs)]  # type: ignore[arg-type]
    line = join_releases(("embedded", "gpu", "stories", "gate"), releases)
    assert line.looks > 100
    assert sum(step.is_marked for made in line.steps for step in made.values()) == 0


def test_memory_is_kept_with_a_baseline_and_unknown_in_old_ones(lines: list[Line], run: Run) -> None:
    release = lines[0].releases[0]
    peaks = [phase.peak_vram_bytes for phase in run.phases if (phase.arm, phase.split) == ("r16-s200", "gate")]
    assert peak_memory(release.baseline) == max(peak for peak in peaks if peak is not None)
    old = dataclasses.replace(release, baseline=dataclasses.replace(release.baseline, phases=()))
    assert peak_memory(old.baseline) is None


def test_a_step_of_memory_is_marked_where_a_gate_would_not_allow_it(run: Run, tmp_path: Path) -> None:
    gib, releases = 2**30, []
    for month, peak in enumerate((16 * gib, 16.5 * gib, 17.2 * gib, None, 17.2 * gib), start=1):
        phases = tuple(dataclasses.replace(phase, peak_vram_bytes=int(peak) if peak else None) for phase in run.phases)
        made = of_run(dataclasses.replace(released(run, month), phases=phases))
        assert not isinstance(made, str)
        releases.append(Release(f"r{month}", "", made))
    line = join_releases(("embedded", "gpu", "stories", "gate"), releases)
    assert line.memory_steps == {2}  # 0.5 GiB is within 2 % and 256 MiB, 0.7 GiB is not; from unknown to known is no step
    page = write_history([line], [], tmp_path).read_text(encoding="utf-8")
    assert "Peak VRAM: +717\u00a0MiB" in page


def test_a_damaged_version_is_told_and_left_out(checkout: Path, run: Run, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", str(checkout), str(tmp_path / "copy")], check=True)
    root = tmp_path / "copy" / "reports" / "baselines"
    baseline = folder_of(run, root) / FILE
    baseline.write_text("{}", encoding="utf-8")
    git(tmp_path / "copy", "commit", "-q", "-am", "damage")
    found, problems = read_history([], root)
    assert [len(line.releases) for line in found] == [4]
    assert len(problems) == 2
    assert "has schema None" in problems[0]


def test_a_shallow_clone_is_told(checkout: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--depth", "1", checkout.as_uri(), str(tmp_path / "copy")], check=True)
    found, problems = read_history([], tmp_path / "copy" / "reports" / "baselines")
    assert [len(line.releases) for line in found] == [1]
    assert "this clone is shallow" in problems[0]


def test_without_git_the_working_tree_is_the_history(run: Run, tmp_path: Path) -> None:
    promote(run, None, tmp_path)
    found, problems = read_history([], tmp_path)
    assert ([len(line.releases) for line in found], problems) == ([1], [])


def test_another_suite_revision_is_not_compared(run: Run, tmp_path: Path) -> None:
    other = released(run, 5)
    other = dataclasses.replace(other, samples=other.samples.assign(prompt_hash=other.samples["prompt_hash"] + "-reworded"))
    promote(run, None, tmp_path)
    found, _ = read_history([], tmp_path)
    baseline = of_run(other)
    assert not isinstance(baseline, str)
    line = join_releases(found[0].key, [*found[0].releases, Release("later", "", baseline)])
    assert line.looks == 0
    page = write_history([line], [], tmp_path / "out").read_text(encoding="utf-8")
    assert "not comparable" in page
    assert "prompt_hash differs" in page


def test_page_opens_in_a_browser_and_tells_steps(browser: Browser, lines: list[Line], tmp_path: Path) -> None:
    page = write_history(lines, ["<script>x</script> is left out"], tmp_path)
    for width in (390, 1280):
        browser.open(page, width)
        assert browser.complaints() == []
        assert browser.requests() == [page.as_uri()]
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
    text = browser.evaluate("document.body.innerText")
    assert "<script>x</script> is left out" in text
    assert re.search(r"accuracy, high: −\d+\.\d\spoints", text)
    assert "a step" in text
    assert len(list(tmp_path.glob("line-1-*.png"))) == 5
    assert browser.evaluate("[...document.querySelectorAll('svg[role=img]')].every((one) => one.getAttribute('aria-label').length > 20)")


def test_command_writes_the_page_and_leaves_unjudged_runs_out(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(sys, "argv", ["effortbench", "history"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said: Any = capsys.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    assert "4\u00a0releases in 1\u00a0line" in said.out
    assert (checkout / "reports" / "history" / "index.html").is_file()


def test_no_release_at_all_is_said(tmp_path: Path) -> None:
    page = write_history([], [], tmp_path).read_text(encoding="utf-8")
    assert "There is no committed baseline yet" in page
