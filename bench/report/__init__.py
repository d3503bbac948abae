"""Records -> a report people decide from: HTML page, PNG figures, Markdown summary, JUnit XML.

Reads what `Run` holds (and prompts.jsonl beside it, to quote questions); reads no model, imports no torch, makes no statistics of
its own. Everything is rendered before the first file is written, each file is replaced whole, and the page comes last.
"""

from __future__ import annotations

from pathlib import Path

from bench.errors import UsageError
from bench.history import Line
from bench.records import Comparison, Run
from bench.report.cells import Cells
from bench.report.focus import Pair, focus_on
from bench.store import write_atomic, writing

__all__ = ["write_comparison", "write_history", "write_report"]


def write_report(run: Run, pair: Pair | None = None) -> Path:
    """Write report/index.html, report/*.png, summary.md and junit.xml into the run folder; return the page's path.

    `pair`: the run is two runs that `bench.report.pair` joined.
    """
    from bench.report.answers import pack_answers
    from bench.report.figures import draw_all  # imports matplotlib
    from bench.report.junit import render_junit
    from bench.report.page import render_page
    from bench.report.summary import render_summary

    focus, cells = focus_on(run, pair), Cells(run.samples, pair.before if pair else "base")
    figures = draw_all(run, focus, cells) if focus else {}
    answers = pack_answers(run, focus) if focus else None
    beside = answers.beside if answers else {}
    files = {
        run.folder / "summary.md": render_summary(run, focus, cells, set(figures)).encode(),
        run.folder / "junit.xml": render_junit(run).encode(),
        run.folder / "report" / "index.html": render_page(run, focus, cells, figures, answers).encode(),
    }

    folder = run.folder / "report"
    _make(folder)
    for figure in figures.values():
        write_atomic(folder / f"{figure.name}.png", figure.png)
    for stale in set(folder.glob("*.png")) - {folder / f"{name}.png" for name in figures}:
        stale.unlink()
    for stale in set(folder.glob("answers/*.js")) - {folder / "answers" / name for name in beside}:
        stale.unlink()
    if beside:
        _make(folder / "answers")
    for name, script in beside.items():
        write_atomic(folder / "answers" / name, script.encode())
    for path, data in files.items():
        write_atomic(path, data)
    return folder / "index.html"


def write_comparison(before: Run, after: Run, folder: Path, arms: tuple[str | None, str | None]) -> tuple[Path, list[Comparison]]:
    """The same page over an arm of each of two runs (None: the one under test, or base); its path and the changes of accuracy.

    Raises UsageError where a run has no answers of its arm, or the folder is a run's own.
    """
    from bench.report.pair import join_runs, prompt_lines

    if (folder / "run.json").exists():
        raise UsageError(f"{folder} is a run folder: pass another --out")
    joined, pair = join_runs(before, after, folder, arms)
    _make(folder)
    write_atomic(folder / "prompts.jsonl", "".join(prompt_lines((before, after))).encode())
    compared = [made for made in joined.comparisons if made.metric == "accuracy" and made.arm == pair.after]
    return write_report(joined, pair), compared


def write_history(lines: list[Line], problems: list[str], folder: Path) -> Path:
    """Write index.html and a PNG a figure into the folder; the page's path."""
    from bench.report.history import METHOD, line_parts, opening
    from bench.report.page import render_history

    parts = line_parts(lines)
    page = render_history(opening(lines), METHOD, problems, parts)
    _make(folder)
    figures = {folder / f"{figure.name}.png": figure.png for part in parts for figure in part.figures}
    for stale in set(folder.glob("line-*.png")) - set(figures):
        stale.unlink()
    for path, data in figures.items():
        write_atomic(path, data)
    write_atomic(folder / "index.html", page.encode())
    return folder / "index.html"


def _make(folder: Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
