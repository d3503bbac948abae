"""Lines of releases -> a page like the report's: accuracy, tokens, latency and memory per release, with intervals, steps marked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.experiment import EFFORTS, Vram
from bench.history import CONFIDENCE, LATENCY_STEP, Line, Release, peak_memory
from bench.report import words
from bench.report.cells import Cells, CellSummary
from bench.report.figures import Figure, Series, over_releases
from bench.report.tables import Column, Entry, Table, level_entry, once

TITLES = {
    "accuracy": "Accuracy",
    "reasoning_language_fidelity": "Reasoning in the asked language",
    "output_tokens": "Output tokens of an answer",
    "latency_s": "Latency of an answer, throughput mode",
}
METHOD = (
    "A step is marked where the paired change from the release before, clustered by problem, stands out at "
    f"{100 * CONFIDENCE:.0f}{words.NBSP}% after Bonferroni's correction over all changes of its line. "
    f"Latency is one pass a release: there a step must also exceed {100 * LATENCY_STEP:.0f}{words.NBSP}%. "
    "Memory is measured once a release, without interval: there a step is a change of more than "
    f"{100 * Vram().relative:g}{words.NBSP}% and {Vram().absolute_mib:g}{words.NBSP}MiB together."
)


@dataclass(frozen=True, slots=True)
class LinePart:
    """One line as the page shows it."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]


def line_parts(lines: Sequence[Line]) -> list[LinePart]:
    """Figures and tables of every line."""
    return [_part(number, line) for number, line in enumerate(lines)]


def opening(lines: Sequence[Line]) -> str:
    """The page's first sentence: how many releases, how many steps, and the last one's."""
    if not lines:
        return "There is no committed baseline yet, and no run was given: `effortbench baseline promote RUN` keeps the first release."
    releases = sum(len(line.releases) for line in lines)
    marked = [step for line in lines for made in line.steps for step in made.values() if step.is_marked]
    steps = len(marked) + sum(len(line.memory_steps) for line in lines)
    said = f"{words.plural(releases, 'release')} in {words.plural(len(lines), 'line')}, {words.plural(steps, 'step')} between them."
    lost = [step for step in marked if step.comparison.metric == "accuracy" and (step.comparison.delta or 0) < 0]
    return f"{said} Accuracy fell in {words.plural(len(lost), 'step')}." if lost else said


def _part(number: int, line: Line) -> LinePart:
    experiment, hardware, suite, split = line.key
    name = f"line-{number + 1}"
    cells = [Cells(release.baseline.samples) for release in line.releases]
    figures = [_figure(name, line, cells, metric) for metric in TITLES] + [_memory_figure(name, line)]
    tables = [_table(name, line, cells, metric) for metric in TITLES]
    title = words.harmless(f"{experiment} on {hardware}, {suite}@{split}", 200)
    return LinePart(
        name,
        title,
        tuple(figure for figure in figures if figure),
        (_overview(name, line), *(table for table in tables if table)),
    )


def _point(release: Release, cells: Cells, metric: str, effort: str) -> CellSummary | None:
    one = release.baseline
    return cells.overall(metric, one.arm, one.suite, one.split, effort)


def _labels(line: Line) -> list[str]:
    """Commits, or a run's name, told apart where two are the same."""
    shown: list[str] = []
    for release in line.releases:
        label = words.harmless(release.label, 24)
        shown.append(f"{label} ({shown.count(label) + 1})" if label in shown else label)
    return shown


def _figure(name: str, line: Line, cells: list[Cells], metric: str) -> Figure | None:
    series = []
    for effort in EFFORTS:
        points = tuple(_point(release, made, metric, effort) for release, made in zip(line.releases, cells, strict=True))
        found = [made.get((metric, effort)) for made in line.steps]
        steps = frozenset(place + 1 for place, step in enumerate(found) if step and step.is_marked)
        breaks = frozenset(place + 1 for place, step in enumerate(found) if step is None or step.comparison.delta is None)
        series.append(Series(f"{effort} effort", points, steps, breaks))
    return over_releases(f"{name}-{metric.replace('_', '-')}", TITLES[metric], metric, _labels(line), series)


def _memory_figure(name: str, line: Line) -> Figure | None:
    peaks = [peak_memory(release.baseline) for release in line.releases]
    points = tuple(CellSummary(peak / 2**30, None, None, 1, 1) if peak else None for peak in peaks)
    kind = _memory_name(line)
    return over_releases(
        f"{name}-memory", f"{kind} while evaluating", "memory", _labels(line), [Series(kind, points, line.memory_steps, frozenset())]
    )


def _memory_name(line: Line) -> str:
    return "Peak VRAM" if any(release.baseline.environment.gpu for release in line.releases) else "Peak host memory"


def _overview(name: str, line: Line) -> Table:
    columns = (
        Column("release", "Commit of the code that was measured, or a run folder.", numeric=False),
        Column("measured", numeric=False),
        Column("arm", numeric=False),
        Column(_memory_name(line), "Of the arm's evaluation passes."),
        Column("problems"),
        Column("against the one before", numeric=False),
        Column("read from", numeric=False),
    )
    rows = []
    for place, (label, release) in enumerate(zip(_labels(line), line.releases, strict=True)):
        one = release.baseline
        problems = one.samples.loc[one.samples["arm"] == one.arm, "item_id"].nunique()
        peak = peak_memory(one)
        rows.append(
            (
                Entry(label),
                Entry(one.environment.started_at[:16].replace("T", " ")),
                Entry(one.arm),
                _peak_entry(line, place, peak),
                once(words.count(problems), problems, is_count=True),
                _summary_of_steps(line, place),
                Entry(release.source),
            )
        )
    note = "Memory is measured once a release and has no interval; it is unknown in baselines made before it was kept."
    return Table(f"{name}-releases", "Releases", columns, tuple(rows), note)


def _peak_entry(line: Line, place: int, peak: int | None) -> Entry:
    entry = once(words.size(peak), peak)
    if place not in line.memory_steps:
        return entry
    rise = _rise(line, place)
    return dataclasses.replace(
        entry, small=f"{words.change('peak_vram_bytes', rise)}, a step", tone="worse" if (rise or 0) > 0 else "better"
    )


def _rise(line: Line, place: int) -> int | None:
    before, after = (peak_memory(line.releases[at].baseline) for at in (place - 1, place))
    return after - before if before is not None and after is not None else None


def _summary_of_steps(line: Line, place: int) -> Entry:
    if place == 0:
        return Entry("the first")
    made = line.steps[place - 1]
    refused = [step.comparison.invalid_because[0] for step in made.values() if step.comparison.invalid_because]
    if refused:
        return Entry("not comparable", small=refused[0], tone="warn")
    marked = [step.comparison for step in made.values() if step.is_marked]
    said = [f"{words.answers_metric(one.metric)}, {one.effort}: {words.change(one.metric, one.delta)}" for one in marked]
    said += [f"{_memory_name(line)}: {words.change('peak_vram_bytes', _rise(line, place))}"] if place in line.memory_steps else []
    return Entry("; ".join(said) or "no step")


def _table(name: str, line: Line, cells: list[Cells], metric: str) -> Table | None:
    rows = list(_rows(line, cells, metric))
    if not any(entry.raw for row in rows for entry in row[1:]):
        return None
    columns = (Column("release", numeric=False), *(Column(f"{effort} effort") for effort in EFFORTS))
    note = "Small print: 95 % interval, and the paired change from the release before with its interval."
    return Table(f"{name}-{metric.replace('_', '-')}-table", TITLES[metric], columns, tuple(rows), note)


def _rows(line: Line, cells: list[Cells], metric: str) -> Iterator[tuple[Entry, ...]]:
    for place, (label, release, made) in enumerate(zip(_labels(line), line.releases, cells, strict=True)):
        entries = []
        for effort in EFFORTS:
            point = _point(release, made, metric, effort)
            step = line.steps[place - 1].get((metric, effort)) if place else None
            if point is None:
                entries.append(Entry(words.MISSING))
                continue
            small, tone = "", ""
            if step is not None and step.comparison.delta is not None:
                one = step.comparison
                small = f"{words.change(metric, one.delta)} ({words.change_interval(metric, one.ci)})"
                small += ", a step" if step.is_marked else ""
                rose = (one.delta or 0) > 0
                tone = "" if not step.is_marked else "better" if rose == words.metric_words(metric).more_is_better else "worse"
            level = level_entry(metric, point.mean, (point.low, point.high), point.clusters)
            entries.append(dataclasses.replace(level, small=small, tone=tone, hint=words.plural(point.n, "answer")))
        yield (Entry(label), *entries)
