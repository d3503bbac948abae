"""What a table is: columns with hints, cells with the text shown, the raw value to sort and copy, and a hint on hover.

No statistics are made here. Tables know nothing of HTML; page.py writes them. What stands in them: gate_tables, score_tables,
change_tables and cost_tables.
"""

from __future__ import annotations

import ast
import dataclasses
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
    interval: str = ""
    """Its 95 % interval, shown under it; `ends` are copied."""
    ends: tuple[float, float] | None = None
    n: int | None = None
    """How many of `counted` it rests on; None where that does not apply or stands in the table's note."""
    counted: str = "problem"
    small: str = ""
    """A further line: levels, or a warning."""
    hint: str = ""
    tone: str = ""
    """CSS class: better, worse, warn, chosen, or a verdict's name."""
    heat: float | None = None
    """0 to 1 for a level, -1 to 1 for a change; shades the cell."""

    @property
    def number(self) -> str:
        """What it rests on, in words; empty where that is not said cell by cell."""
        return words.plural(self.n, self.counted) if self.n is not None else ""

    @property
    def hover(self) -> str:
        """All that is known of the number: hint, interval, what it rests on."""
        return "; ".join(part for part in (self.hint, f"95 % interval {self.interval}" if self.interval else "", self.number) if part)


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table."""

    name: str
    """HTML id and file stem of a copy."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""
    rests_on: str = ""
    """What a number rests on whose cell does not say it: `One measurement, without interval.`"""
    says_numbers: bool = False
    """Whether rows already say how many problems their numbers rest on, so that no cell need."""

    @property
    def shared_number(self) -> str:
        """What every number rests on, where that is the same for all: it is then said once, under the table."""
        found = {entry.number for row in self.rows for entry in row if entry.number}
        return found.pop() if len(found) == 1 and not self.says_numbers else ""

    def beside(self, entry: Entry) -> str:
        """What a cell itself says it rests on: nothing where that is said elsewhere."""
        return "" if self.says_numbers or self.shared_number else entry.number

    @property
    def below(self) -> str:
        """The note, what all numbers rest on, and what those rest on that have no interval."""
        shared = f"Each number: {self.shared_number}." if self.shared_number else ""
        return " ".join(part for part in (self.note, shared, self.rests_on) if part)


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


def change_entry(metric: str, delta: float | None, ci: tuple[float, float] | None, n: int) -> Entry:
    """A change with its interval over `n` problems; toned only where its interval lies on one side of zero."""
    if not words.known(delta):
        return Entry(words.UNKNOWN)
    text = words.change(metric, delta)
    tone = direction(metric, ci) if text[0] in f"{words.MINUS}+" else ""  # what rounds to zero is nothing to praise or blame
    return Entry(text, raw(delta), words.change_interval(metric, ci), ci, n or None, tone=tone)


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
    metric, delta = comparison.metric, comparison.delta
    entry = change_entry(metric, delta, comparison.ci, comparison.clusters)
    if levels:
        before, after = (words.level(metric, value) for value in (comparison.before, comparison.after))
        return dataclasses.replace(entry, small=f"{before} \u2192 {after}")
    heat = delta if words.metric_words(metric).unit == "share" and words.known(delta) else None
    return dataclasses.replace(entry, text=words.change(metric, delta, unit=False), heat=heat)


def cell_entry(metric: str, cell: CellSummary | None, tone: str = "", heat: bool = False) -> Entry:
    """The level of a cell with its interval, and the truncated share where it is above TRUNCATION_NOTICE."""
    if cell is None:
        return Entry(words.MISSING, hint="not applicable or not measured", tone=tone)
    cut = cell.outcomes.get("truncated", 0.0) if metric == "accuracy" else 0.0
    warned = cut > TRUNCATION_NOTICE
    return dataclasses.replace(
        level_entry(metric, cell.mean, (cell.low, cell.high), cell.clusters),
        small=f"{words.share(cut)} truncated" if warned else "",
        hint=words.plural(cell.n, "answer"),
        tone=tone or ("warn" if warned else ""),
        heat=cell.mean if heat else None,
    )


def level_entry(metric: str, value: float | None, ci: tuple[float | None, float | None] | None = None, n: int | None = None) -> Entry:
    """A level with its interval over `n` problems, as far as they are known."""
    low, high = ci or (None, None)
    if not words.known(value):
        return Entry(words.UNKNOWN)
    if low is None or high is None:
        return Entry(words.level(metric, value), raw(value), "unknown" if ci else "", n=n)
    return Entry(words.level(metric, value), raw(value), words.level_interval(metric, low, high), (low, high), n)


def once(text: str, value: float | None, small: str = "", is_count: bool = False) -> Entry:
    """A number without an interval: measured once, or (`is_count`) a count or a setting."""
    hint = "not measured" if not words.known(value) else "exact" if is_count else "measured once, without interval"
    return Entry(text, raw(value), small=small, hint=hint)


def raw(value: float | None) -> str:
    """A number as it is sorted by and copied; empty where it is unknown."""
    return f"{value:.6g}" if isinstance(value, float) and words.known(value) else str(value) if words.known(value) else ""


def language_entry(focus: Focus, language: str) -> Entry:
    """Its code, and whether the fine-tuning rows reason in it: a model need not carry over what it learned in others."""
    if focus.taught is None:
        return Entry(language)
    return Entry(language, small="trained" if language in focus.taught else "not trained")
