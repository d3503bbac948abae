"""What a table is: columns with hints, cells with the text shown, the raw value to sort and copy, and a hint on hover.

No statistics are made here. Tables know nothing of HTML; page.py writes them. What stands in them: gate_tables, score_tables,
change_tables and cost_tables.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from dataclasses import dataclass

from bench.records import Comparison
from bench.report import words
from bench.report.cells import CellSummary
from bench.report.focus import Focus

TRUNCATION_NOTICE = 0.02
"""Truncated share above which a cell says so."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    title: str
    hint: str = ""
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """One cell of a table."""

    text: str
    raw: str = ""
    """What is sorted by and copied as CSV; empty: the text."""
    small: str = ""
    """A second line: the interval, or a warning."""
    hint: str = ""
    tone: str = ""
    """CSS class: better, worse, warn, chosen, or a verdict's name."""
    heat: float | None = None
    """0 to 1 for a level, -1 to 1 for a change; shades the cell."""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table."""

    name: str
    """HTML id and file stem of a copy."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""


@functools.cache
def field_hints(record: type) -> dict[str, str]:
    """Text under each field of a dataclass, so that a page's hints are written once. Empty where there is no source."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(record))).body[0]
    except (OSError, SyntaxError):
        return {}
    assert isinstance(body, ast.ClassDef)
    hints = {}
    for before, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(after, ast.Expr):
            if isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                hints[before.target.id] = " ".join(after.value.value.split())
    return hints


def change_entry(metric: str, delta: float | None, ci: tuple[float, float] | None) -> Entry:
    """A change with its interval; toned only where the interval lies on one side of zero."""
    if not words.known(delta):
        return Entry(words.UNKNOWN)
    interval = words.change_interval(metric, ci)
    return Entry(words.change(metric, delta), raw(delta), small=interval, hint=f"95 % interval {interval}", tone=direction(metric, ci))


def direction(metric: str, ci: tuple[float, float] | None) -> str:
    """`better` or `worse` where the interval lies on one side of zero, else nothing."""
    if ci is None or not (ci[0] > 0 or ci[1] < 0) or words.metric_words(metric).unit == "seconds":
        return ""  # one pass an arm cannot tell a faster arm from a quieter machine
    return "better" if (ci[0] > 0) == words.metric_words(metric).more_is_better else "worse"


def compared_entry(comparison: Comparison | None, levels: bool = False) -> Entry:
    """A comparison's change with its interval; `levels`: also both levels, in small print."""
    if comparison is None:
        return Entry(words.MISSING, hint="not applicable or not measured")
    if comparison.invalid_because:
        return Entry("not compared", hint="; ".join(comparison.invalid_because), tone="warn")
    entry = change_entry(comparison.metric, comparison.delta, comparison.ci)
    if not levels:
        share = words.metric_words(comparison.metric).unit == "share" and comparison.delta is not None
        heat = comparison.delta if share else None
        text = words.change(comparison.metric, comparison.delta, unit=False)
        return Entry(text, entry.raw, entry.small, f"{entry.hint}; {comparison.clusters:,} problems", entry.tone, heat)
    before, after = (words.level(comparison.metric, value) for value in (comparison.before, comparison.after))
    return Entry(entry.text, entry.raw, f"{before} \u2192 {after}; {entry.small}", f"{comparison.clusters:,} problems", entry.tone)


def cell_entry(metric: str, cell: CellSummary | None, tone: str = "", heat: bool = False) -> Entry:
    """The level of a cell with its interval, and the truncated share where it is above TRUNCATION_NOTICE."""
    if cell is None:
        return Entry(words.MISSING, hint="not applicable or not measured", tone=tone)
    interval = words.level_interval(metric, cell.low, cell.high)
    hint = f"95 % interval {interval}; {words.plural(cell.n, 'answer')} to {words.plural(cell.clusters, 'problem')}"
    cut = cell.outcomes.get("truncated", 0.0) if metric == "accuracy" else 0.0
    small = f"{interval}; {words.share(cut)} truncated" if cut > TRUNCATION_NOTICE else interval
    text = words.level(metric, cell.mean)
    return Entry(text, raw(cell.mean), small, hint, tone or ("warn" if cut > TRUNCATION_NOTICE else ""), cell.mean if heat else None)


def level_entry(metric: str, value: float | None) -> Entry:
    """A level of which no interval is known."""
    return Entry(words.level(metric, value), raw(value))


def raw(value: float | None) -> str:
    """A number as it is sorted by and copied; empty where it is unknown."""
    return f"{value:.6g}" if isinstance(value, float) and words.known(value) else str(value) if words.known(value) else ""


def language_entry(focus: Focus, language: str) -> Entry:
    """Its code, and whether the fine-tuning rows reason in it: a model need not carry over what it learned in others."""
    if focus.taught is None:
        return Entry(language)
    return Entry(language, small="trained" if language in focus.taught else "not trained")
