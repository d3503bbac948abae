"""Claims about the tables of a page: every number says what it rests on, on hover and in text, and is copied with it."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chromium import Browser
from fabricated import fabricate_experiment, fabricate_run

from bench.comparison import effort_table
from bench.experiment import parse_experiment
from bench.history import Line, Release, join_releases
from bench.judging import judge_run
from bench.records import Baseline, Run
from bench.report import write_comparison, write_history, write_report
from bench.report.cells import Cells
from bench.report.cost_tables import pareto, tokens
from bench.report.evidence_tables import FACTS, SHOWN_ELSEWHERE, evidence, guarded_languages
from bench.report.focus import focus_on
from bench.report.score_tables import outcomes

GATES = [
    {"name": "accuracy", "metric": "accuracy", "effort": "high", "margin": 0.05},
    {"name": "languages", "metric": "accuracy", "effort": "high", "type": "language_guard", "margin": 0.08},
    {"name": "tokens", "metric": "output_tokens", "effort": "high", "type": "max_ratio", "margin": 0.10},
]
EXACT = ("exact", "measured once, without interval")
ROUNDING = 1e-5


@dataclasses.dataclass
class Cell:
    """One cell of a table as a browser gets it."""

    attributes: dict[str, str]
    text: str = ""


class Tables(HTMLParser):
    """Every table of a page: its id, cells and the note under it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: dict[str, list[list[Cell]]] = {}
        self.notes: dict[str, str] = {}
        self.table, self.inside = "", ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "table":
            self.table = attributes["id"]
            self.cells[self.table] = []
        elif tag == "tr":
            self.cells[self.table].append([])
        elif tag == "td":
            self.cells[self.table][-1].append(Cell(attributes))
            self.inside = "td"
        elif tag == "p" and attributes.get("class") == "note" and self.table:
            self.inside = "note"
        elif tag in ("section", "figure", "details"):
            self.table = ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag in ("td", "p") else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside == "td":
            self.cells[self.table][-1][-1].text += f" {data}"
        elif self.inside == "note":
            self.notes[self.table] = self.notes.get(self.table, "") + data


def judged(folder: Path) -> Run:
    asked = parse_experiment(fabricate_experiment().model_dump(mode="json") | {"gates": GATES}, "a test")
    made = dataclasses.replace(fabricate_run(folder, "pass", 10, 100, gpu=True), experiment=asked)
    return dataclasses.replace(made, verdict=judge_run(made), suite_revisions={"stories": "4f1c9a02"})


@pytest.fixture(scope="module")
def run() -> Run:
    return judged(Path("nowhere"))


@pytest.fixture(scope="module")
def pages(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tables")
    runs = [dataclasses.replace(made, folder=root / name) for name, made in (("report", run), ("later", run))]
    for made in runs:
        made.folder.mkdir()
    return {
        "report": write_report(runs[0]),
        "compared": write_comparison(*runs, root / "compared", (None, None))[0],
        "history": write_history([line_of(run)], [], root / "history"),
    }


def line_of(run: Run) -> Line:
    """Two releases of the same scores."""
    samples = run.samples[run.samples["split"] == "gate"]
    releases = []
    for month in (1, 2):
        environment = dataclasses.replace(run.environment, started_at=f"2026-{month:02d}-01T00:00:00+00:00", git_commit=f"{month:02d}" * 20)
        one = Baseline("embedded", "h100", "stories", "gate", "abc", "r16-s200", {}, (), environment, samples, phases=run.phases)
        releases.append(Release(f"r{month}", "", one))
    return join_releases(("embedded", "h100", "stories", "gate"), releases)


@pytest.mark.parametrize("name", ["report", "compared", "history"])
def test_every_number_says_what_it_rests_on_on_hover_and_in_text(name: str, pages: dict[str, Path]) -> None:
    found = Tables(pages[name].read_text(encoding="utf-8"))
    seen = 0
    for table, rows in found.cells.items():
        note = found.notes.get(table, "")
        for row in rows:
            said = " ".join(cell.text for cell in row)
            for cell in row:
                if "num" not in cell.attributes["class"].split() or "data-raw" not in cell.attributes or table == "cell-keys-table":
                    continue
                seen += 1
                hover, where = cell.attributes.get("title", "").lower(), f"{table}: {cell.text.strip()}"
                if any(words in hover for words in EXACT):
                    assert "exact" in hover or "measured once" in note, where
                    continue
                number = f"{int(cell.attributes['data-n']):,}\u00a0{cell.attributes['data-of']}"
                assert number in hover, where
                assert number in note or number in said, where
                if "data-low" in cell.attributes:
                    assert re.search(r"95 % interval \S+.*\sto\s\S+", hover), where
                    assert re.search(r"\S\sto\s\S", cell.text), where
                    low, value, high = (float(cell.attributes[f"data-{name}"]) for name in ("low", "raw", "high"))
                    assert low - ROUNDING <= value <= high + ROUNDING, where
                else:
                    assert "without interval" in hover, where
    assert seen > 25


def test_copies_have_interval_and_number_in_columns_of_their_own(browser: Browser, pages: dict[str, Path], run: Run) -> None:
    browser.open(pages["report"], 1280)
    browser.evaluate("navigator.clipboard.writeText = async text => { window.copied = text }")
    browser.evaluate("document.querySelector('#accuracy-by-effort button[data-copy=csv]').click()")
    rows = list(csv.DictReader(io.StringIO(browser.evaluate("window.copied"))))
    table = effort_table(run.samples, "accuracy").set_index(["split", "arm", "effort"])
    for row in rows:
        for effort in ("low", "medium", "high"):
            one = table.loc[row["data"].partition("@")[2], row["arm"], effort]
            copied = [float(row[f"{effort} effort{name}"]) for name in ("", ", 95 % from", ", 95 % to")]
            assert copied == pytest.approx([one["mean"], one["low"], one["high"]], rel=1e-5)
            assert int(row[f"{effort} effort, problems"]) == one["clusters"]
    browser.evaluate("document.querySelector('#accuracy-by-effort button[data-copy=md]').click()")
    lines = browser.evaluate("window.copied").splitlines()
    assert "high effort | high effort, 95 % interval | high effort, problems |" in lines[0]
    assert re.search(r"\| \d+\.\d % \| \d+\.\d to \d+\.\d \| 100 \|", lines[2])
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert browser.complaints() == []


def test_all_evidence_of_every_gate_is_shown(run: Run) -> None:
    table = evidence(run)
    assert table is not None
    assert run.verdict is not None
    names = {name for gate in run.verdict.gates for name in gate.evidence} - set(SHOWN_ELSEWHERE)
    assert names <= set(FACTS), "a new name of the evidence has no words"
    rows = {row[0].text: row[1:] for row in table.rows}
    assert set(rows) == {FACTS[name].title for name in names}
    for name in names:
        for entry, gate in zip(rows[FACTS[name].title], run.verdict.gates, strict=True):
            assert bool(entry.text) == (gate.evidence.get(name) is not None), (name, gate.name)


def test_a_guard_shows_every_language_with_its_interval(run: Run) -> None:
    (table,) = guarded_languages(run)
    assert [row[0].text for row in table.rows] == ["de", "en", "es", "fr", "it"]
    for _, change, _ in table.rows:
        assert change.n == 100
        if change.ends:
            assert change.ends[0] <= float(change.raw) <= change.ends[1]


def test_levels_of_the_pareto_set_and_of_tokens_have_intervals(run: Run) -> None:
    focus, cells = focus_on(run), Cells(run.samples)
    assert focus is not None
    tables = [pareto(focus, cells), tokens(focus, cells), outcomes(run, focus, cells)]
    for table, columns in zip(tables, ((2, 3, 5), range(2, 7), range(2, 8)), strict=True):
        assert table is not None
        for row in table.rows:
            for entry in (row[at] for at in columns):
                assert entry.ends is not None, (table.name, entry)
                assert entry.ends[0] - ROUNDING <= float(entry.raw) <= entry.ends[1] + ROUNDING
                assert entry.n == 100


def test_outcome_shares_of_a_row_add_up_to_one(run: Run) -> None:
    focus, cells = focus_on(run), Cells(run.samples)
    assert focus is not None
    table = outcomes(run, focus, cells)
    assert table is not None
    for row in table.rows:
        assert sum(float(entry.raw) for entry in row[2:8]) == pytest.approx(1, abs=1e-4)


def test_provenance_names_seeds_hashes_command_noise_and_what_no_interval_covers(pages: dict[str, Path], run: Run) -> None:
    html = pages["report"].read_text(encoding="utf-8")
    provenance = html[html.index('id="provenance"') :]
    rows = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", provenance))
    assert rows["hash of stories"] == "4f1c9a02"
    assert rows["evaluation seed"] == str(run.experiment.evaluate.seed)
    assert run.experiment.finetune is not None
    assert rows["training seeds"] == str(run.experiment.finetune.seeds[0])
    assert rows["commit"] == run.environment.git_commit
    assert rows["torch"] == run.environment.packages["torch"]
    assert all(cell.key in provenance for cell in run.cells)
    assert run.command in provenance
    assert 'download="embedded.yaml"' in provenance
    for title in ("Noise floor", "What the intervals do not cover"):
        assert re.search(rf"<h3>{title}</h3>\s*<(p|ul)[^>]*>.{{40}}", provenance), title


def test_a_ratio_is_drawn_against_its_margin_on_the_first_screen(pages: dict[str, Path]) -> None:
    html = pages["report"].read_text(encoding="utf-8")
    assert re.search(r'<svg class="strip"[^>]*aria-label="interval [^"]*, margin at \+10\.0\s%"', html)
    assert re.search(r"<title>interval [^<]*, margin at \+10\.0\s%; 100\sproblems</title>", html)
    assert "output_tokens" not in html[html.index("<main>") : html.index('id="details"')]
