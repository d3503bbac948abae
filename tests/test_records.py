"""Claims about a run read back into a notebook: frames of all records, and a safe view of what was judged."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fabricated import fabricate_run
from test_store import write_run

import bench
from bench.records import Comparison, Run, Verdict


@pytest.fixture(scope="module")
def run() -> Run:
    return fabricate_run(Path("nowhere"), "fail", select_problems=2, gate_problems=20)


def test_every_kind_of_record_is_a_frame_with_its_fields(run: Run) -> None:
    comparisons = run.frame("comparisons")
    assert list(comparisons.columns) == [part.name for part in dataclasses.fields(Comparison)]
    assert len(comparisons) == len(run.comparisons)
    assert comparisons["delta"].iloc[0] == run.comparisons[0].delta
    assert list(run.frame("training")["arm"]) == list(run.training)
    assert (len(run.frame("cells")), len(run.frame("phases"))) == (len(run.cells), len(run.phases))
    assert list(run.frame("gates")["verdict"]) == [gate.verdict for gate in run.verdict.gates] if run.verdict else False
    empty = dataclasses.replace(run, verdict=None).frame("gates")
    assert (len(empty), list(empty.columns)) == (0, [part.name for part in dataclasses.fields(Verdict)])
    with pytest.raises(ValueError, match="unknown records 'arms'; expected one of comparisons, gates"):
        run.frame("arms")  # type: ignore[arg-type]


def test_a_notebook_shows_the_verdict_and_escapes_what_it_quotes(run: Run) -> None:
    assert run.verdict is not None
    gate = dataclasses.replace(run.verdict.gates[0], name="<img src=x onerror=alert(1)>", delta=None)
    html = dataclasses.replace(run, verdict=dataclasses.replace(run.verdict, gates=(gate,)))._repr_html_()
    assert f"embedded: {run.verdict.verdict.upper()}; 750 answers" in html
    assert "&lt;img src=x" in html
    assert "<td>unknown</td>" in html
    tags: set[str] = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)

    Tags().feed(html)
    assert tags == {"p", "b", "table", "tr", "td"}
    assert "NO VERDICT" in dataclasses.replace(run, verdict=None)._repr_html_()


def test_load_run_gives_frames_and_a_view(tmp_path: Path) -> None:
    write_run(fabricate_run(tmp_path / "run", None, 2, 4), tmp_path / "run")
    loaded = bench.load_run(tmp_path / "run")
    assert {"arm", "score", "completion"} <= set(loaded.samples.columns)
    assert "NO VERDICT" in loaded._repr_html_()
    assert len(loaded.frame("cells")) == len(loaded.cells) > 0
