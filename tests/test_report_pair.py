"""Claims about two runs on one page: the right arms are compared, on the same questions, and what differs is told."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from fabricated import fabricate_run
from test_store import write_run

from bench import cli
from bench.comparison import compare
from bench.errors import UsageError
from bench.records import Run
from bench.report import write_comparison
from bench.report.pair import differences, join_runs, prompt_lines


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    root = tmp_path_factory.mktemp("runs")
    before, after = (fabricate_run(root / name, verdict, 8, 60) for name, verdict in (("old", "pass"), ("new", "fail")))
    return before, dataclasses.replace(after, environment=dataclasses.replace(after.environment, python="3.12.1"))


def test_the_arms_under_test_are_compared_as_the_statistics_say(runs: tuple[Run, Run], tmp_path: Path) -> None:
    joined, pair = join_runs(*runs, tmp_path)
    assert (pair.before, pair.after, pair.runs) == ("A: r16-s200", "B: r16-s200", ("old", "new"))
    sides = [run.samples[run.samples["arm"] == "r16-s200"] for run in runs]
    expected = compare(*sides, suite="stories", split="gate", effort="high", metric="accuracy")
    keys = ("gate", "high", "accuracy", pair.after)
    found = next(one for one in joined.comparisons if (one.split, one.effort, one.metric, one.arm) == keys)
    assert found.against == "A: r16-s200"
    assert (found.delta, found.ci, found.clusters) == (expected.delta, expected.ci, expected.clusters)
    assert found.delta is not None
    assert found.delta < 0
    assert set(joined.samples["arm"]) == {"A: base", "A: r16-s200", "B: base", "B: r16-s200"}
    assert joined.verdict is None


def test_arms_can_be_named_and_must_have_answers(runs: tuple[Run, Run], tmp_path: Path) -> None:
    _, pair = join_runs(*runs, tmp_path, ("base", None))
    assert (pair.before, pair.after) == ("A: base", "B: r16-s200")
    with pytest.raises(UsageError, match=r"no answers of arm 'r99': it has base, r16-s200, .*r8-s40"):
        join_runs(*runs, tmp_path, ("r99", None))


def test_only_what_differs_is_told(runs: tuple[Run, Run]) -> None:
    assert differences(*runs) == [
        ("environment.python", "3.11.7", "3.12.1"),
    ]


def test_page_names_both_runs_and_says_that_nothing_is_judged(runs: tuple[Run, Run], tmp_path: Path) -> None:
    for run in runs:
        run.folder.mkdir(exist_ok=True)
        record = {"prompt_hash": "stories-gate-de-low-0000", "prompt": f"<|start|>user<|message|>Asked by {run.folder.name}<|end|>"}
        (run.folder / "prompts.jsonl").write_text(json.dumps(record) + "\n" + '{"prompt_hash": "shared"}\n' + "torn", encoding="utf-8")
    assert [json.loads(line)["prompt_hash"] for line in prompt_lines(runs)] == [
        "stories-gate-de-low-0000",
        "shared",
        "stories-gate-de-low-0000",
    ]
    page, compared = write_comparison(*runs, tmp_path / "out", (None, None))
    html = page.read_text(encoding="utf-8")
    assert [one.split for one in compared] == ["select"] * 3 + ["gate"] * 3
    assert "COMPARED" in html
    assert "A is old, B is new." in html
    assert "against A: r16-s200 (95" in html
    assert "nothing is judged" in html
    assert "environment.python" in html
    assert "minus A: r16-s200 on stories@gate" in html
    assert "PASS" not in html
    assert "against base" not in html


def test_runs_that_answered_other_questions_are_not_compared(runs: tuple[Run, Run], tmp_path: Path) -> None:
    before, after = runs
    fewer = dataclasses.replace(after, samples=after.samples[after.samples["item_id"] != "gate-0003"])
    page, compared = write_comparison(before, fewer, tmp_path / "out", (None, None))
    assert [one.split for one in compared if one.delta is None] == ["gate"] * 3
    assert "The two runs cannot be compared: the items differ" in page.read_text(encoding="utf-8")


def test_a_run_folder_is_not_written_over(runs: tuple[Run, Run], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="is a run folder: pass another --out"):
        write_comparison(*runs, tmp_path, (None, None))


def test_command_says_what_changed_and_fails_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = fabricate_run(tmp_path / "old", "pass", 2, 6)
    write_run(run, tmp_path / "old")
    write_run(run, tmp_path / "same")
    fewer = run.samples[run.samples["item_id"] != "gate-0003"]
    cells = tuple(dataclasses.replace(cell, samples=None) for cell in run.cells)
    write_run(dataclasses.replace(run, samples=fewer, cells=cells, comparisons=()), tmp_path / "fewer")

    def call(*names: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["effortbench", "compare", *names])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().out

    code, said = call("old", "same")
    assert code == 0
    assert "high effort: accuracy 0.0\u00a0points" in said
    assert (tmp_path / "reports" / "comparisons" / "old-same" / "report" / "index.html").is_file()
    code, said = call("old", "fewer")
    assert code == 4
    assert "the items differ" in said
