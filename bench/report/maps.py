"""Records -> the figures that are maps and bars: languages, the grid, memory and time, and what others published.

Drawn with the means of figures.py. A cell's shade follows its number, which stands in it; where a change's interval leaves out zero it
is bold and boxed, so that nothing hangs on colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from bench.records import Phase, Run
from bench.report import words
from bench.report.cells import Cells
from bench.report.figures import BASE, CHOSEN, INK, MUTED, OTHERS, WIDTH, Figure, add_legend, finish, look_of, new_canvas
from bench.report.focus import Focus
from bench.report.references import find_published

HEAT_ROW, MOST_ROWS = 0.27, 40


@dataclass(frozen=True, slots=True)
class _Square:
    """One cell of a map."""

    text: str
    shade: float
    """-1 to 1: a level from 0, or a change."""
    strong: bool = False


def language_map(focus: Focus, cells: Cells) -> Figure | None:
    """Accuracy of the arm in question by language and effort, and its change; languages trained on apart from the others."""
    arm = focus.chosen or focus.compared[0]
    groups = [(title, languages) for title, languages in _language_groups(focus) if languages]
    rows = [language for _, languages in groups for language in languages]
    place = (focus.suite, focus.split)
    levels = [[_level(cells, arm, place, language, effort) for effort in focus.efforts] for language in rows]
    changes = [[_change(cells, arm, place, language, effort) for effort in focus.efforts] for language in rows] if focus.chosen else []
    if len(rows) > MOST_ROWS or not any(square for row in levels for square in row):
        return None
    panels = [(f"{arm}, %", levels), *([("change, points", changes)] if changes else [])]
    room = 0.7 if focus.taught is not None else 0.0
    canvas = Canvas(figsize=(WIDTH, 0.75 + HEAT_ROW * (len(rows) + room * len(groups))), layout="constrained")
    gaps = _places([len(languages) for _, languages in groups], room)
    for axes, (title, squares) in zip(canvas.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        _draw_map(axes, squares, gaps, focus.efforts)
        axes.set_title(title)
        axes.set_yticks(gaps, rows)
        axes.set_ylim(gaps[-1] + 0.5, gaps[0] - 0.5 - room)
        for (group, _), top in zip(groups, _tops(groups, gaps), strict=True):
            axes.text(-0.5, top - 0.54, group, color=MUTED, fontsize=8, va="bottom")
    told = "Languages that the fine-tuning rows reason in stand apart. " if focus.taught is not None else ""
    return finish(
        canvas,
        "language-map",
        f"Language by effort, {focus.place}",
        f"{told}Right: {focus.chosen} minus {focus.reference}; boxed and bold where the 95 % interval leaves out zero, one cell at a time."
        if changes
        else "Each cell is one language at one effort.",
        f"Accuracy of {arm} by language and effort. "
        + "; ".join(_row_words(row, squares) for row, squares in zip(rows, levels, strict=True))
        + ".",
    )


def _language_groups(focus: Focus) -> list[tuple[str, list[str]]]:
    if focus.taught is None:
        return [("", list(focus.languages))]
    trained = [language for language in focus.languages if language in focus.taught]
    return [("trained on", trained), ("not trained on", [language for language in focus.languages if language not in trained])]


def _places(sizes: list[int], room: float) -> list[float]:
    """Row centres, with room above each group."""
    places, at = [], 0.0
    for size in sizes:
        at += room
        places += [at + row for row in range(size)]
        at += size
    return places


def _tops(groups: Sequence[tuple[str, list[str]]], places: list[float]) -> list[float]:
    starts = np.cumsum([0, *(len(languages) for _, languages in groups)])[:-1]
    return [places[start] for start in starts]


def _level(cells: Cells, arm: str, place: tuple[str, str], language: str, effort: str) -> _Square | None:
    cell = cells.language("accuracy", arm, *place, language, effort)
    return _Square(f"{100 * cell.mean:.1f}", cell.mean) if cell else None


def _change(cells: Cells, arm: str, place: tuple[str, str], language: str, effort: str) -> _Square | None:
    found = cells.language_change("accuracy", arm, *place, language, effort)
    if found is None or found.delta is None or found.ci is None:
        return None
    sure = found.ci[0] > 0 or found.ci[1] < 0
    return _Square(words.change("accuracy", found.delta, unit=False), max(-1.0, min(1.0, 3 * found.delta)), sure)


def _row_words(name: str, squares: list[_Square | None]) -> str:
    return f"{name}: {', '.join(square.text if square else 'unknown' for square in squares)}"


def _draw_map(axes: Any, rows: list[list[_Square | None]], places: Sequence[float], columns: Sequence[str]) -> None:
    for at, row in zip(places, rows, strict=True):
        for column, square in enumerate(row):
            if square is None:
                axes.text(column, at, words.MISSING, ha="center", va="center", color=MUTED)
                continue
            colour = CHOSEN if square.shade >= 0 else OTHERS[0]
            axes.barh(at, 0.94, left=column - 0.47, height=0.92, color=colour, alpha=0.4 * abs(square.shade), linewidth=0)
            if square.strong:
                axes.barh(at, 0.94, left=column - 0.47, height=0.92, facecolor="none", edgecolor=INK, linewidth=1.2)
            axes.text(column, at, square.text, ha="center", va="center", fontsize=8.5, fontweight="bold" if square.strong else "normal")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(max(places) + 0.5, min(places) - 0.5)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)


def grid_map(run: Run, focus: Focus, cells: Cells) -> Figure | None:
    """Rank x steps: the selection's metric and accuracy on the selection's data. None unless ranks or steps were swept."""
    trained = [arm for arm in run.experiment.arms() if arm.kind == "trained"]
    ranks, steps = sorted({arm.rank or 0 for arm in trained}), sorted({arm.steps or 0 for arm in trained})
    if run.selection is None or len(trained) < 2 or len(trained) != len(ranks) * len(steps):
        return None
    place, names = run.selection, {(arm.rank, arm.steps): arm.name for arm in trained}
    metrics = [metric for metric in dict.fromkeys((place.metric, "accuracy")) if words.metric_words(metric).unit == "share"]
    canvas = Canvas(figsize=(WIDTH, 1.2 + 0.42 * len(ranks)), layout="constrained")
    spoken = []
    for axes, metric in zip(canvas.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        rows = []
        for rank in ranks:
            found = [
                (names[rank, step], cells.overall(metric, names[rank, step], place.suite, place.split, place.effort)) for step in steps
            ]
            rows.append([_Square(f"{100 * cell.mean:.1f}", cell.mean, arm == place.chosen) if cell else None for arm, cell in found])
            spoken.append(f"{words.metric_words(metric).name} at rank {_row_words(str(rank), rows[-1])}")
        _draw_map(axes, rows, range(len(ranks)), [f"{step:,}" for step in steps])
        axes.set_title(textwrap.fill(f"{words.metric_words(metric).name}, %", 24), fontsize=8.5)
        axes.set_xlabel("steps")
        axes.set_yticks(range(len(ranks)), [f"rank {rank}" for rank in ranks])
    return finish(
        canvas,
        "grid-map",
        f"Over the grid, {place.suite}@{place.split}, {place.effort} effort",
        f"Boxed: the chosen arm. Intervals and numbers of problems stand in the tables. Steps: {', '.join(f'{step:,}' for step in steps)}.",
        "; ".join(spoken) + ".",
    )


def training_memory(run: Run, focus: Focus) -> Figure | None:
    """Peak memory of each arm's training."""
    found = {arm: (one.peak_vram_bytes, one.peak_rss_bytes) for arm, one in run.training.items()}
    device = any(vram is not None for vram, _ in found.values())
    peaks = {arm: vram if device else host for arm, (vram, host) in found.items()}
    known = {arm: peak / 2**30 for arm, peak in peaks.items() if peak is not None}
    if not known:
        return None
    kind = "VRAM" if device else "host memory"
    canvas, axes = new_canvas(0.8 + 0.3 * len(known))
    for at, (arm, peak) in enumerate(known.items()):
        axes.barh(at, peak, height=0.6, color=look_of(focus, arm).colour, alpha=0.75)
        axes.text(peak, at, f" {peak:.2f}", va="center", fontsize=8.5)
    _rows(axes, list(known))
    axes.set_xlabel("GiB")
    axes.margins(x=0.12)
    return finish(
        canvas,
        "training-memory",
        f"Peak {kind} of training",
        "One process a training run: arms that one run served share its peak." if any(one.shared_run for one in run.training.values()) else
        "Of the training process.",
        f"Peak {kind} of training, GiB: " + ", ".join(f"{arm} {peak:.2f}" for arm, peak in known.items()) + ".",
    )  # fmt: skip


def phase_costs(run: Run, focus: Focus) -> Figure | None:
    """Peak memory and latency of every evaluation pass."""
    if not run.phases:
        return None
    device = run.environment.gpu is not None
    canvas = Canvas(figsize=(WIDTH, 0.95 + 0.3 * len(run.phases)), layout="constrained")
    left, right = canvas.subplots(1, 2, sharey=True)
    grouped = {names: group for names, group in run.samples.groupby(["arm", "suite", "split"], observed=True)["latency_s"]}
    spoken = []
    for at, phase in enumerate(run.phases):
        colour = look_of(focus, phase.arm).colour
        peak = phase.peak_vram_bytes if device else phase.peak_rss_bytes
        if peak is not None:
            left.barh(at, peak / 2**30, height=0.6, color=colour, alpha=0.75)
        left.text((peak or 0) / 2**30, at, f" {peak / 2**30:.2f}" if peak is not None else " unknown", va="center", fontsize=8)
        times = grouped.get((phase.arm, phase.suite, phase.split))
        known = times.dropna().to_numpy(dtype=float) if times is not None else np.array([])
        said = "latency unknown"
        if len(known):
            low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
            right.plot([low, high], [at, at], color=colour, linewidth=2.4, solid_capstyle="butt")
            right.plot([middle], [at], marker="|", markersize=11, markeredgewidth=2.4, color=INK)
            said = f"median latency in throughput mode {words.seconds(middle)}, 95 % below {words.seconds(high)}"
        spoken.append(f"{_pass_name(phase)}: {words.size(peak)}, {said}")
    _rows(left, [_pass_name(phase) for phase in run.phases])
    left.set_title("peak VRAM, GiB" if device else "peak host memory, GiB", fontsize=8.5)
    right.set_title("latency, s", fontsize=8.5)
    right.grid(axis="y", visible=False)
    left.margins(x=0.3)
    right.margins(x=0.1)
    right.set_xlim(left=0)
    return finish(
        canvas,
        "phase-costs",
        "Memory and latency of each evaluation pass",
        "Latency in throughput mode, other answers being generated beside it: tick is the median, line the middle 90 % over all "
        "languages and efforts.",
        "; ".join(spoken) + ".",
    )


def _pass_name(phase: Phase) -> str:
    return f"{phase.arm}, {phase.split}"


def _rows(axes: Any, labels: list[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(left=0)


def against_published(run: Run, focus: Focus, cells: Cells) -> Figure | None:
    """Base's accuracy by language beside published figures of the same model, suite and effort; None where there are none."""
    published = find_published(run, focus)
    if published is None:
        return None
    languages = [one for one in focus.languages if any((one, effort) in published.values for effort in focus.efforts)]
    canvas = Canvas(figsize=(WIDTH, 1.2 + 0.27 * len(languages)), layout="constrained")
    spoken = []
    panels = canvas.subplots(1, len(focus.efforts), sharey=True, squeeze=False)[0]
    for axes, effort in zip(panels, focus.efforts, strict=True):
        ours = [(at, cells.language("accuracy", "base", focus.suite, focus.split, one, effort)) for at, one in enumerate(languages)]
        found = [(at, cell) for at, cell in ours if cell]
        axes.errorbar(
            [100 * cell.mean for _, cell in found],
            [at for at, _ in found],
            xerr=[
                [100 * (cell.mean - (cell.low if cell.low is not None else cell.mean)) for _, cell in found],
                [100 * ((cell.high if cell.high is not None else cell.mean) - cell.mean) for _, cell in found],
            ],
            linestyle="none", marker="s", color=BASE, markerfacecolor="none", markersize=5, label="base, measured here",
        )  # fmt: skip
        known = [(at, published.values[one, effort]) for at, one in enumerate(languages) if (one, effort) in published.values]
        axes.plot(
            [100 * value for _, value in known], [at for at, _ in known],
            linestyle="none", marker="D", markersize=5, color=OTHERS[0], label="published",
        )  # fmt: skip
        axes.set_title(f"{effort} effort")
        axes.set_xlim(-9, 109)  # a marker at the end is drawn whole
        axes.set_xticks([0, 50, 100])
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("%")
        for at, cell in found:
            theirs = words.share(published.values.get((languages[at], effort)))
            spoken.append(f"{languages[at]} at {effort}: {words.share(cell.mean)} here, {theirs} published")
    panels[0].set_yticks(range(len(languages)), languages)
    panels[0].set_ylim(len(languages) - 0.5, -0.5)
    if len(panels) == 1:
        add_legend(panels[0], 2)
    else:
        handles, labels = panels[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower left", ncols=2)
    return finish(
        canvas,
        "against-published",
        f"Ours against published figures, {focus.place}",
        f"Published: {published.source}. {published.differs} Bars: our 95 % interval; the published figures come without one.",
        "; ".join(spoken) + ".",
    )
