"""Records -> figures: SVG for the page, PNG beside it. The only module of the report that imports matplotlib.

Every figure is narrow, so its text is readable at phone width. Colours in the SVG become CSS variables, so one drawing
serves light, dark and print; shapes, hatches and labels carry the same facts without colour. A figure without data is None.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from bench.records import OUTCOMES, Run
from bench.report import words
from bench.report.cells import Cells, CellSummary
from bench.report.focus import Focus

WIDTH = 4.3
INK, MUTED, GRID, CARD = "#1b2330", "#5a6474", "#e4e8ee", "#ffffff"
BASE, CHOSEN = "#6c7687", "#0a5fb8"
OTHERS = ("#b85c00", "#007a5e", "#a3428c", "#2f8fc4", "#8a6d00", "#c0392b", "#4f5fc4", "#3f7f2e")
"""Okabe-Ito's order of hues, darkened to 3:1 against white."""
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "*", "p")
COSTS = {"output_tokens": "tokens", "latency_s": "latency"}
SURE = 0.95
"""Share of draws above which a point is taken to be in the Pareto set."""
OUTCOME_STYLE = {
    "correct": ("#3d8fd1", ""),
    "wrong": ("#c3cad4", ""),
    "no_answer": ("#f0c24b", "...."),
    "truncated": ("#d2691e", "////"),
    "malformed": ("#a3428d", "xxxx"),
    "error": ("#1b2331", ""),
}
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--line", CARD: "--card", BASE: "--base", CHOSEN: "--chosen",
    **{colour: f"--arm-{position}" for position, colour in enumerate(OTHERS)},
    **{colour: f"--outcome-{outcome.replace('_', '-')}" for outcome, (colour, _) in OUTCOME_STYLE.items()},
}  # fmt: skip
STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"], "font.size": 9, "axes.titlesize": 9.5, "axes.labelsize": 9, "legend.fontsize": 8.5,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "text.color": INK, "axes.labelcolor": MUTED, "axes.titlecolor": INK,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.edgecolor": GRID,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8, "axes.axisbelow": True, "axes.spines.top": False,
    "axes.spines.right": False, "xtick.major.size": 0, "ytick.major.size": 0, "axes.facecolor": CARD, "figure.facecolor": CARD,
    "savefig.facecolor": CARD, "legend.frameon": False, "lines.linewidth": 1.6, "hatch.linewidth": 0.7, "svg.fonttype": "none",
    "axes.titlelocation": "left", "axes.titleweight": "bold", "text.parse_math": False,
    "figure.constrained_layout.w_pad": 0.09,  # inches; with less the longest label touches the rim
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """One finished figure."""

    name: str
    """File name without suffix."""
    title: str
    caption: str
    """How to read it; shown under the figure."""
    alt: str
    """The figure's facts in a sentence or two, for those who do not see it."""
    svg: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Look:
    """How an arm is drawn, the same in every figure."""

    colour: str
    marker: str
    filled: bool
    strong: bool
    """Base and the chosen arm stand out; the others are context."""


def draw_all(run: Run, focus: Focus, cells: Cells) -> dict[str, Figure]:
    """Every figure that has data, by name."""
    with matplotlib.rc_context(STYLE):
        drawn = [figure for figure in _figures(run, focus, cells) if figure is not None]
    return {figure.name: figure for figure in drawn}


def _figures(run: Run, focus: Focus, cells: Cells) -> Iterator[Figure | None]:
    from bench.report import maps  # draws with what is defined here

    for suite, split in focus.data:
        yield accuracy_by_effort(focus, cells, suite, split)
        yield accuracy_by_cost(focus, cells, suite, split, "output_tokens")
    yield accuracy_by_cost(focus, cells, focus.suite, focus.split, "latency_s")
    yield by_language(focus, cells, "accuracy", "accuracy-by-language", "Accuracy by language and effort")
    yield by_language(focus, cells, "reasoning_language_fidelity", "reasoning-language", "Reasoning in the asked language")
    yield maps.language_map(focus, cells)
    yield maps.against_published(run, focus, cells)
    yield outcomes(focus, cells)
    yield token_distribution(run, focus)
    yield maps.grid_map(run, focus, cells)
    yield training_loss(run, focus)
    yield maps.training_memory(run, focus)
    yield maps.phase_costs(run, focus)


def accuracy_by_effort(focus: Focus, cells: Cells, suite: str, split: str) -> Figure | None:
    """Every arm's accuracy at every effort, with its interval."""
    arms = [arm for arm in focus.arms if any(cells.overall("accuracy", arm, suite, split, effort) for effort in focus.efforts)]
    if not arms:
        return None
    canvas, axes = new_canvas(3.3)
    width = min(0.16, 0.7 / len(arms))
    for position, arm in enumerate(arms):
        look = look_of(focus, arm)
        offset = (position - (len(arms) - 1) / 2) * width
        found = [(x, cells.overall("accuracy", arm, suite, split, effort)) for x, effort in enumerate(focus.efforts)]
        _points(axes, [(x + offset, cell) for x, cell in found if cell], look, arm)
    axes.set_xticks(range(len(focus.efforts)), [f"{effort} effort" for effort in focus.efforts])
    axes.set_xlim(-0.5, len(focus.efforts) - 0.5)
    axes.grid(axis="x", visible=False)
    for edge in range(len(focus.efforts) - 1):
        axes.axvline(edge + 0.5, color=GRID, linewidth=0.8)
    _share_axis(axes, "y")
    add_legend(axes, len(arms))
    return finish(
        canvas,
        _named("accuracy-by-effort", focus, suite, split),
        f"Accuracy by effort, {suite}@{split}",
        "Mean over problems, with its 95 % interval clustered by problem.",
        f"Accuracy of {words.listed(arms)} on {suite}@{split}. "
        + _spoken(cells, "accuracy", _strong(focus, arms), suite, split, focus.efforts),
    )


def accuracy_by_cost(focus: Focus, cells: Cells, suite: str, split: str, cost: str) -> Figure | None:
    """Accuracy against what it costs, in tokens or time; one line an arm, one point an effort, the Pareto set ringed."""
    canvas, axes = new_canvas(3.3)
    drawn: list[str] = []
    for arm in focus.arms:
        pairs = [
            (effort, tokens, accuracy)
            for effort in focus.efforts
            if (tokens := cells.overall(cost, arm, suite, split, effort))
            and (accuracy := cells.overall("accuracy", arm, suite, split, effort))
        ]
        if not pairs:
            continue
        look = look_of(focus, arm)
        drawn.append(arm)
        axes.errorbar(
            [tokens.mean for _, tokens, _ in pairs],
            [accuracy.mean for _, _, accuracy in pairs],
            xerr=_errors([tokens for _, tokens, _ in pairs]),
            yerr=_errors([accuracy for _, _, accuracy in pairs]),
            label=arm,
            **_line(look),
        )
        if look.strong and arm == focus.compared[-1]:
            for effort, tokens, accuracy in pairs:
                place = (7, -12) if accuracy.mean > 0.15 else (5, 7)
                axes.annotate(effort, (tokens.mean, accuracy.mean), place, textcoords="offset points", color=MUTED, fontsize=8.5)
    if not drawn:
        return None
    members = _ring(axes, cells, suite, split, cost)
    axes.set_xlabel(
        "mean output tokens of an answer" if cost == "output_tokens" else "mean latency of an answer, seconds (throughput mode)"
    )
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.margins(x=0.1)
    axes.set_xlim(left=min(0, axes.get_xlim()[0]) if axes.get_xlim()[0] < 20 else None)
    _share_axis(axes, "y")
    add_legend(axes, len(drawn))
    return finish(
        canvas,
        _named(f"accuracy-by-{COSTS[cost]}", focus, suite, split),
        f"Accuracy against {COSTS[cost]}, {suite}@{split}",
        "Up and to the left is better. Each line joins one arm's efforts; bars are 95 % intervals clustered by problem. Ring: no other is "
        "both as accurate and as cheap in 95 % of 1,000 draws of the problems; dotted: in 5 % to 95 % of them.",
        f"Accuracy against mean {words.answers_metric(cost)} on {suite}@{split} for {words.listed(drawn)}. "
        + _spoken(cells, cost, _strong(focus, drawn), suite, split, focus.efforts)
        + (f" In the Pareto set: {members}." if members else ""),
    )


def _ring(axes: Axes, cells: Cells, suite: str, split: str, cost: str) -> str:
    """Ring the points that may be in the Pareto set; their names and shares of draws."""
    found = [point for point in cells.pareto(cost, suite, split) if point.share >= 1 - SURE]
    for sure, style in ((True, "solid"), (False, (0, (1, 1.5)))):
        ringed = [point for point in found if (point.share >= SURE) == sure]
        axes.scatter(
            [point.cost for point in ringed], [point.accuracy for point in ringed],
            s=150, marker="o", facecolors="none", edgecolors=INK, linewidths=1.2, linestyles=style, zorder=4,
        )  # fmt: skip
    return ", ".join(f"{point.arm} at {point.effort} effort ({words.share(point.share, 0)})" for point in found)


def by_language(focus: Focus, cells: Cells, metric: str, name: str, title: str) -> Figure | None:
    """A panel an effort, a row a language, base against the chosen arm."""
    arms = [arm for arm in focus.compared if cells.has(metric, arm, focus.suite, focus.split)]
    efforts = [effort for effort in focus.efforts if any(_language_cells(focus, cells, metric, arm, effort) for arm in arms)]
    if not arms or not efforts:
        return None
    height = 1.15 + (0.1 + 0.11 * min(len(arms), 4)) * len(focus.languages)
    canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
    panels = canvas.subplots(1, len(efforts), sharey=True, squeeze=False)[0]
    for axes, effort in zip(panels, efforts, strict=True):
        for position, arm in enumerate(arms):
            offset = (position - (len(arms) - 1) / 2) * min(0.26, 0.7 / len(arms))
            found = _language_cells(focus, cells, metric, arm, effort)
            _points(axes, [(row + offset, cell) for row, cell in found], look_of(focus, arm), arm, sideways=True)
        axes.set_title(f"{effort} effort")
        axes.grid(axis="y", visible=False)
        _share_axis(axes, "x", compact=True)
    panels[0].set_yticks(range(len(focus.languages)), focus.languages)
    panels[0].set_ylim(len(focus.languages) - 0.5, -0.5)
    handles, labels = panels[-1].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower left", ncols=min(len(arms), 4), handletextpad=0.3, columnspacing=1.4)
    return finish(
        canvas,
        name,
        title,
        f"{focus.place}; 95 % interval of each cell. Languages are a fixed set, not a sample of all languages.",
        f"{title} on {focus.place}. " + _spoken(cells, metric, arms, focus.suite, focus.split, tuple(efforts)),
    )


def outcomes(focus: Focus, cells: Cells) -> Figure | None:
    """What became of every answer, one bar an arm and effort."""
    rows = [
        (f"{arm}, {effort}", cell)
        for effort in focus.efforts
        for arm in focus.compared
        if (cell := cells.overall("accuracy", arm, focus.suite, focus.split, effort))
    ]
    if not rows:
        return None
    canvas, axes = new_canvas(1.0 + 0.3 * len(rows))
    left = np.zeros(len(rows))
    for outcome in OUTCOMES:
        shares = np.array([cell.outcomes.get(outcome, 0.0) for _, cell in rows])
        if not shares.any():
            continue
        colour, hatch = OUTCOME_STYLE[outcome]
        axes.barh(
            range(len(rows)), shares, left=left, height=0.68, color=colour, hatch=hatch, edgecolor=CARD, linewidth=0.6,
            label=outcome.replace("_", " "),
        )  # fmt: skip
        left += shares
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    add_legend(axes, len(OUTCOMES))
    return finish(
        canvas,
        "outcomes",
        f"What became of every answer, {focus.place}",
        "Truncated, malformed and missing answers score 0 but are told apart from wrong ones.",
        f"Outcome shares on {focus.place}: "
        + "; ".join(f"{label}: {words.share(cell.outcomes.get('truncated', 0.0))} truncated" for label, cell in rows)
        + ".",
    )


def token_distribution(run: Run, focus: Focus) -> Figure | None:
    """Spread of output tokens by effort: the middle half, the middle 90 %, and the median."""
    samples = run.samples
    here = samples[(samples["suite"] == focus.suite) & (samples["split"] == focus.split) & samples["output_tokens"].notna()]
    if here.empty:
        return None
    lengths = {names: group.to_numpy(dtype=float) for names, group in here.groupby(["effort", "arm"], observed=True)["output_tokens"]}
    rows = [(effort, arm) for effort in focus.efforts for arm in focus.compared if (effort, arm) in lengths]
    if not rows:
        return None
    canvas, axes = new_canvas(0.9 + 0.3 * len(rows))
    spoken = []
    for position, (effort, arm) in enumerate(rows):
        low, lower, middle, upper, high = np.quantile(lengths[effort, arm], [0.05, 0.25, 0.5, 0.75, 0.95])
        colour = look_of(focus, arm).colour
        axes.plot([low, high], [position, position], color=colour, linewidth=1.4, solid_capstyle="round")
        axes.barh(position, upper - lower, left=lower, height=0.46, color=colour, alpha=0.35, edgecolor=colour, linewidth=1.2)
        axes.plot([middle], [position], marker="|", markersize=12, markeredgewidth=2.4, color=INK)
        spoken.append(f"{arm} at {effort} effort: median {middle:.0f}, 5 % to 95 %: {low:.0f} to {high:.0f}")
    axes.set_yticks(range(len(rows)), [f"{arm}, {effort}" for effort, arm in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(left=0)
    axes.set_xlabel("output tokens of an answer")
    return finish(
        canvas,
        "token-distribution",
        f"How long answers are, {focus.place}",
        "Tick: median. Box: middle half. Line: middle 90 %.",
        "Output tokens. " + "; ".join(spoken) + ".",
    )


def training_loss(run: Run, focus: Focus) -> Figure | None:
    """Loss by optimizer step, one line a training run's arm, smoothed; held-out loss as a last point."""
    arms = [arm for arm, training in run.training.items() if len(training.losses) > 1]
    if not arms:
        return None
    canvas, axes = new_canvas(3.1)
    for arm in sorted(arms, key=lambda arm: arm == focus.chosen):
        training, look = run.training[arm], look_of(focus, arm)
        steps = np.array([point["step"] for point in training.losses])
        losses = np.array([point["loss"] for point in training.losses], dtype=float)
        if training.shared_run not in arms or training.shared_run == arm:  # else the longer arm's curve is this one's too
            axes.plot(steps, losses, color=look.colour, linewidth=0.6, alpha=0.3)
            axes.plot(steps, _smooth(losses), color=look.colour, linewidth=2.0 if look.strong else 1.2)
        held_out = training.held_out_loss if training.held_out_loss is not None else float("nan")
        axes.plot(
            [steps[-1]],
            [held_out],
            linestyle="none",
            marker=look.marker,
            color=look.colour,
            markersize=7,
            markeredgecolor=CARD,
            label=arm,
        )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("training loss")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    add_legend(axes, len(arms))
    ends = [f"{arm} {words.first_to_last([point['loss'] for point in run.training[arm].losses])}" for arm in arms]
    return finish(
        canvas,
        "training-loss",
        "Training loss",
        "Thin: as logged. Thick: running mean. Markers: each arm's loss on held-out rows after its last step.",
        f"Training loss: {'; '.join(ends)}.",
    )


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a figure over releases."""

    label: str
    points: tuple[CellSummary | None, ...]
    """One a release; None where it was not measured."""
    steps: frozenset[int]
    """Releases that differ from the one before by more than chance."""
    breaks: frozenset[int]
    """Releases that cannot be compared with the one before: the line is interrupted there."""


def over_releases(name: str, title: str, metric: str, labels: list[str], series: list[Series]) -> Figure | None:
    """A metric from release to release, a line an effort, steps ringed; None where nothing was measured."""
    shown = [one for one in series if any(one.points)]
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        canvas, axes = new_canvas(3.0)
        colours = (OTHERS[0], OTHERS[1], CHOSEN)
        for position, one in enumerate(shown):
            colour, marker = colours[position % len(colours)], MARKERS[1 + position]
            _release_line(axes, one, colour, marker)
        axes.set_xticks(range(len(labels)), labels, rotation=0 if len(labels) < 5 else 40, ha="center" if len(labels) < 5 else "right")
        axes.set_xlim(-0.4, len(labels) - 0.6)
        if words.metric_words(metric).unit == "share" and metric != "memory":
            _share_axis(axes, "y")
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _amount(metric, value)))
        add_legend(axes, len(shown))
        ends = [f"{one.label}: {_ends(metric, one)}" for one in shown]
        return finish(
            canvas,
            name,
            title,
            "One measurement a release, without interval. Ring: a step from the release before."
            if metric == "memory"
            else "Bars: 95 % interval, clustered by problem. Ring: a step from the release before. A gap: not comparable with it.",
            f"{title}, {words.plural(len(labels), 'release')}, first to last. {'; '.join(ends)}.",
        )


def _amount(metric: str, value: float) -> str:
    return f"{value:.2f} GiB" if metric == "memory" else words.level(metric, value)


def _ends(metric: str, one: Series) -> str:
    means = [point.mean for point in one.points if point]
    steps = f", {words.plural(len(one.steps), 'step')}" if one.steps else ""
    return f"{_amount(metric, means[0])} to {_amount(metric, means[-1])}{steps}"


def _release_line(axes: Axes, one: Series, colour: str, marker: str) -> None:
    found = [(place, point) for place, point in enumerate(one.points) if point]
    places, means = [place for place, _ in found], [point.mean for _, point in found]
    bars: dict[str, Any] = {"linestyle": "none", "marker": marker, "color": colour, "markersize": 6, "elinewidth": 1.4}
    axes.errorbar(places, means, yerr=_errors([point for _, point in found]), label=one.label, **bars)
    for (left, before), (right, after) in zip(found, found[1:], strict=False):
        if right not in one.breaks:
            axes.plot([left, right], [before.mean, after.mean], color=colour, linewidth=1.4)
    ringed = [(place, point.mean) for place, point in found if place in one.steps]
    axes.plot(
        [place for place, _ in ringed], [mean for _, mean in ringed],
        linestyle="none", marker="o", markersize=14, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4,
    )  # fmt: skip


def new_canvas(height: float) -> tuple[Canvas, Axes]:
    """One panel, WIDTH wide; `height` in inches."""
    canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
    return canvas, canvas.subplots()


def look_of(focus: Focus, arm: str) -> Look:
    """Reference grey and hollow, chosen blue and round, the others by their place in the grid."""
    if arm == focus.reference:
        return Look(BASE, "s", False, True)
    if arm == focus.chosen:
        return Look(CHOSEN, "o", True, True)
    position = [name for name in focus.arms if name not in (focus.reference, focus.chosen)].index(arm) if arm in focus.arms else 0
    return Look(OTHERS[position % len(OTHERS)], MARKERS[1 + position % (len(MARKERS) - 1)], True, False)


def _strong(focus: Focus, arms: list[str]) -> list[str]:
    return [arm for arm in arms if look_of(focus, arm).strong] or arms


def _line(look: Look) -> dict[str, Any]:
    return {
        "color": look.colour,
        "marker": look.marker,
        "markerfacecolor": look.colour if look.filled else CARD,
        "markeredgecolor": look.colour,
        "markersize": 6.5 if look.strong else 4.5,
        "markeredgewidth": 1.5 if look.strong else 0.8,
        "linewidth": 1.8 if look.strong else 1.0,
        "elinewidth": 1.5 if look.strong else 0.9,
        "alpha": 1.0 if look.strong else 0.85,
        "zorder": 3 if look.strong else 2,
    }


def _points(axes: Axes, found: list[tuple[float, CellSummary]], look: Look, label: str, sideways: bool = False) -> None:
    """Points with intervals; `sideways` puts the value on x."""
    if not found:
        return
    places, summaries = [place for place, _ in found], [cell for _, cell in found]
    means = [cell.mean for cell in summaries]
    style = _line(look) | {"linestyle": "none", "label": label}
    if sideways:
        axes.errorbar(means, places, xerr=_errors(summaries), **style | {"markersize": 4.5, "markeredgewidth": 1.2})
    else:
        axes.errorbar(places, means, yerr=_errors(summaries), **style)


def _errors(cells: list[CellSummary]) -> list[list[float]]:
    """Lengths below and above the mean; NaN draws none."""
    nan = float("nan")
    below = [max(0.0, cell.mean - cell.low) if cell.low is not None else nan for cell in cells]
    above = [max(0.0, cell.high - cell.mean) if cell.high is not None else nan for cell in cells]
    return [below, above]


def _language_cells(focus: Focus, cells: Cells, metric: str, arm: str, effort: str) -> list[tuple[int, CellSummary]]:
    found = [(row, cells.language(metric, arm, focus.suite, focus.split, language, effort)) for row, language in enumerate(focus.languages)]
    return [(row, cell) for row, cell in found if cell]


def _share_axis(axes: Axes, which: str, compact: bool = False) -> None:
    axis = axes.yaxis if which == "y" else axes.xaxis
    setter = axes.set_ylim if which == "y" else axes.set_xlim
    setter(-0.09, 1.09) if compact else setter(-0.04, 1.04)
    axis.set_ticks([0, 0.5, 1] if compact else [0, 0.25, 0.5, 0.75, 1])
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}" if compact else f"{100 * value:.0f} %"))
    if compact:
        axes.set_xlabel("%")


def add_legend(axes: Axes, entries: int) -> None:
    """Above the panel, in one line where it fits."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=min(entries, 5),
        handletextpad=0.3,
        columnspacing=1.2,
        handlelength=1.4,
        borderaxespad=0.2,
    )


def _smooth(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Centred running mean over about a tenth of the curve; windows shrink at the ends and stay centred."""
    index = np.arange(len(values))
    half = np.minimum(max(1, len(values) // 20), np.minimum(index, index[::-1]))
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((total[index + half + 1] - total[index - half]) / (2 * half + 1))


def _spoken(cells: Cells, metric: str, arms: list[str], suite: str, split: str, efforts: tuple[str, ...]) -> str:
    """The overall values of a few arms as text."""
    parts = []
    for arm in arms[:4]:
        found = [(effort, cells.overall(metric, arm, suite, split, effort)) for effort in efforts]
        values = [f"{words.level(metric, cell.mean)} at {effort}" for effort, cell in found if cell]
        if values:
            parts.append(f"{arm}: {', '.join(values)}")
    return "; ".join(parts) + "." if parts else ""


def _named(name: str, focus: Focus, suite: str, split: str) -> str:
    """The focused data's figure has the plain name; the others carry their data."""
    if (suite, split) == focus.data[0]:
        return name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{name}-{suite}-{split}")


def finish(canvas: Canvas, name: str, title: str, caption: str, alt: str) -> Figure:
    """Both pictures of a drawn canvas."""
    png, svg = io.BytesIO(), io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # names may be in any script
        canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        canvas.suptitle(title, x=0.012, ha="left", fontsize=10, fontweight="bold")  # in the page, HTML carries the title
        canvas.savefig(png, format="png", dpi=220, metadata={"Software": None})
    return Figure(
        name,
        title,
        caption,
        alt,
        inline_svg(words.harmless(svg.getvalue(), 10_000_000), name, words.harmless(alt)),
        png.getvalue(),
    )


def inline_svg(svg: str, name: str, alt: str) -> str:
    """A standalone SVG -> one to stand inside a page: own ids, colours as CSS variables, no namespaces or network addresses."""
    body = svg[svg.index("<svg") :]
    view = re.search(r'viewBox="([^"]+)"', body)
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)  # its style sheet would reach the whole page
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"\bDejaVu Sans\b", "var(--font)", body).replace("'var(--font)'", "var(--font)")
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    box = view.group(1) if view else "0 0 360 240"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(alt)}" stroke-linejoin="round" stroke-linecap="butt">{body}'
