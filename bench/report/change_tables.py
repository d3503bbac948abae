"""Comparisons -> tables of what an arm changed: by metric, by language, in the languages trained on and the others, between two runs."""

from __future__ import annotations

from bench.records import Comparison, Run
from bench.report import words
from bench.report.cells import Cells
from bench.report.focus import Focus, find_comparison
from bench.report.tables import Column, Entry, Table, compared_entry, language_entry
from bench.transfer import compare_by_training


def changes_by_effort(run: Run, focus: Focus) -> Table | None:
    """Every metric's change of the chosen arm at every effort, on the focused data."""
    metrics = [metric for metric in words.METRICS if any(find_comparison(run, focus, metric, effort) for effort in focus.efforts)]
    if focus.chosen is None or not metrics:
        return None
    rows = []
    for metric in metrics:
        found = [find_comparison(run, focus, metric, effort) for effort in focus.efforts]
        rows.append((Entry(words.answers_metric(metric)), *(compared_entry(comparison, levels=True) for comparison in found)))
    columns = (Column("metric", numeric=False), *(Column(f"{effort} effort") for effort in focus.efforts))
    note = (
        f"{focus.chosen} minus {focus.reference} on {focus.place}; small print: the 95 % interval of the change, and before \u2192 after."
    )
    if "latency_s" in metrics:
        note += " Times are of one pass an arm, other answers being generated beside it (throughput mode): their intervals leave out how a "
        note += "machine drifts between passes."
    return Table("changes", "What changed", columns, tuple(rows), note)


def changes_by_language(focus: Focus, cells: Cells, metric: str, title: str) -> Table | None:
    """Language x effort: change of the chosen arm against the reference, paired by problem."""
    if focus.chosen is None:
        return None
    rows = []
    for language in focus.languages:
        found = [cells.language_change(metric, focus.chosen, focus.suite, focus.split, language, effort) for effort in focus.efforts]
        if any(comparison and comparison.delta is not None for comparison in found):
            rows.append((language_entry(focus, language), *(compared_entry(comparison) for comparison in found)))
    if not rows:
        return None
    columns = (Column("language", numeric=False), *(Column(f"{effort} effort") for effort in focus.efforts))
    looks = len(rows) * len(focus.efforts)
    note = f"{focus.chosen} minus {focus.reference} on {focus.place}, in points; not corrected for looking at {looks} cells at once."
    return Table(f"{metric.replace('_', '-')}-change", title, columns, tuple(rows), note)


def by_training(run: Run, focus: Focus) -> Table | None:
    """Change against base in the languages trained on and in the others; None unless both were asked."""
    if focus.chosen is None or not focus.taught or focus.taught.issuperset(focus.languages):
        return None
    here, rows = run.samples[run.samples["suite"] == focus.suite], []
    for metric in ("accuracy", "reasoning_language_fidelity"):
        made: dict[tuple[str, tuple[str, ...]], dict[str, Comparison]] = {}
        for effort in focus.efforts:
            place = {"arm": focus.chosen, "suite": focus.suite, "split": focus.split, "effort": effort, "metric": metric}
            for change in compare_by_training(here, focus.taught, **place):
                made.setdefault((change.group, change.languages), {})[effort] = change.comparison
        for (group, languages), found in made.items():
            if any(comparison.delta is not None for comparison in found.values()):
                entries = (compared_entry(found.get(effort), levels=True) for effort in focus.efforts)
                rows.append((Entry(words.metric_words(metric).name), Entry(group, small=", ".join(languages)), *entries))
    if not rows:
        return None
    columns = (
        Column("metric", numeric=False),
        Column("languages", numeric=False),
        *(Column(f"{effort} effort") for effort in focus.efforts),
    )
    note = f"{focus.chosen} minus base on {focus.place}. Each problem counts once in a group; not corrected for looking at several groups."
    return Table("by-training", "Languages trained on, and the others", columns, tuple(rows), note)


def differences(focus: Focus) -> Table | None:
    """What is not the same in two runs that are compared."""
    if focus.pair is None:
        return None
    columns = (
        Column("what", numeric=False),
        Column(f"A, {focus.pair.runs[0]}", numeric=False),
        Column(f"B, {focus.pair.runs[1]}", numeric=False),
    )
    rows = tuple(tuple(map(Entry, row)) for row in focus.pair.differences)
    note = "" if rows else "Nothing: the same settings, suites, packages and machine."
    return Table("differences", "How the two runs differ", columns, rows, note)
