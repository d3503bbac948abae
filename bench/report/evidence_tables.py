"""A verdict's evidence -> tables: the numbers behind each gate beside its interval, and a language guard's language by language.

The names are bench.gate's; docs/gates.md says what each is computed from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from bench import stats
from bench.records import OUTCOMES, Run, Verdict
from bench.report import words
from bench.report.tables import Column, Entry, Table, change_entry, raw

Kind = Literal["change", "width", "number", "count", "share", "bytes", "text"]


class _Fact(NamedTuple):
    """How one name of the evidence is shown."""

    title: str
    kind: Kind
    """change and width are in the metric's own unit; share is a percentage."""
    hint: str = ""


FACTS: dict[str, _Fact] = {
    "se": _Fact("standard error of the change", "width", "Clustered by problem."),
    "df": _Fact("degrees of freedom", "count"),
    "rows": _Fact("pairs of answers", "count", "Problems x languages."),
    "languages": _Fact("languages", "count"),
    "samples_per_item": _Fact("samples a question", "count"),
    "excluded": _Fact("pairs left out", "count", "One side is an error of the machinery."),
    "worst": _Fact("change at worst", "change", "If every answer without a score were wrong after and right before."),
    "best": _Fact("change at best", "change", "If every answer without a score were right after and wrong before."),
    "score_ci": _Fact("change, by the score test", "change", "95 % interval that holds where few problems change; a pass needs it too."),
    "gained": _Fact("wrong to right", "count"),
    "lost": _Fact("right to wrong", "count"),
    "variance_within": _Fact("variance between samples", "number", "More samples a question buy it down."),
    "variance_between": _Fact("variance between problems", "number", "Only more problems buy it down."),
    "design_effect": _Fact("design effect", "number", "Variance of the change over that of as many unrelated questions."),
    "icc": _Fact("correlation of a problem's languages", "number"),
    "planned_power": _Fact("power that was planned", "share", "Chance that an unchanged arm passes, by the planned spread."),
    "power": _Fact("power as seen", "share", "Chance that an unchanged arm passes, by the spread that was seen."),
    "detectable": _Fact("margin that 80 % would pass", "width"),
    "ratio": _Fact("geometric mean ratio", "number", "After over before."),
    "ratio_ci": _Fact("its 95 % interval", "number"),
    "robust_ratio": _Fact("Hodges-Lehmann ratio", "number"),
    "total_ratio": _Fact("ratio of totals", "number", "What the bill changes by."),
    "without_ratio": _Fact("pairs without a ratio", "count"),
    "blocks": _Fact("timing blocks", "count"),
    "reserved_bytes": _Fact("most memory reserved", "bytes"),
    "allowed_rise_bytes": _Fact("rise that is allowed", "bytes"),
    "measurements": _Fact("measurements", "count"),
    **{f"{outcome}_share": _Fact(f"{outcome.replace('_', ' ')}, before and after", "share") for outcome in OUTCOMES},
    "arms_tried": _Fact("arms tried", "count"),
    "training_seeds": _Fact("training seeds", "count"),
    "selected_on": _Fact("arm selected on", "text"),
    "looks": _Fact("looks at the data", "count"),
    "looks_allowed": _Fact("looks that were planned", "count"),
}
NO_INTERVAL = "Without interval."
SHOWN_ELSEWHERE = ("before_ci", "after_ci", "by_language")


def evidence(run: Run) -> Table | None:
    """One row a number, one column a gate; None where no gate has kept any."""
    gates = run.verdict.gates if run.verdict else ()
    names = [name for name in [*FACTS, *_unnamed(gates)] if any(name in gate.evidence for gate in gates)]
    if not names:
        return None
    columns = (Column("number", numeric=False), *(Column(gate.name, f"{gate.metric}, {gate.effort} effort") for gate in gates))
    rows = []
    for name in names:
        fact = FACTS.get(name, _Fact(name.replace("_", " "), "text"))
        rows.append((Entry(fact.title, hint=fact.hint), *(_entry(fact, gate, name) for gate in gates)))
    note = "What does not apply to a gate is left empty."
    rests_on = "These numbers explain the intervals and have none of their own."
    return Table("evidence", "Evidence behind each verdict", columns, tuple(rows), note, rests_on)


def guarded_languages(run: Run) -> list[Table]:
    """For each guard, every language with its change, interval and adjusted p value."""
    gates = run.verdict.gates if run.verdict else ()
    return [_guarded(gate, number) for number, gate in enumerate(gates, start=1) if gate.evidence.get("by_language")]


def _guarded(gate: Verdict, number: int) -> Table:
    found: Mapping[str, Mapping[str, float | None]] = gate.evidence["by_language"]
    rows = []
    for language, one in sorted(found.items()):
        delta, se, p = (one.get(name) for name in ("delta", "se", "holm_p"))
        half = stats.t_quantile(gate.clusters - 1) * se if se and gate.clusters > 1 else None
        ends = (delta - half, delta + half) if delta is not None and half is not None else None
        change = change_entry(gate.metric, delta, ends, gate.clusters)
        adjusted = Entry(f"{p:.2g}" if p is not None else words.UNKNOWN, raw(p), n=gate.clusters or None, hint=NO_INTERVAL)
        rows.append((Entry(language), change, adjusted))
    columns = (
        Column("language", numeric=False),
        Column("change", "After minus before, paired by problem."),
        Column("p, by Holm", "Of having lost no more than the margin; adjusted for all languages."),
    )
    note = "Small print: 95 % interval of each language alone, by Student's t; unknown where all problems changed alike."
    return Table(f"guard-{number}", f"Gate {gate.name}: each language", columns, tuple(rows), note)


def _unnamed(gates: tuple[Verdict, ...]) -> list[str]:
    """Names of a later version, or another's, are shown as they are."""
    known = {*FACTS, *SHOWN_ELSEWHERE}
    return sorted({name for gate in gates for name in gate.evidence} - known)


def _entry(fact: _Fact, gate: Verdict, name: str) -> Entry:
    value = gate.evidence.get(name)
    if value is None:
        return Entry("", hint="does not apply")
    values = value if isinstance(value, list | tuple) else [value]
    joint = f"{words.NBSP}\u2192{words.NBSP}" if fact.kind == "share" else f"{words.NBSP}to{words.NBSP}"
    text = joint.join(_shown(fact.kind, gate.metric, one) for one in values)
    number = raw(value) if isinstance(value, int | float) else ""
    if fact.kind == "count":
        return Entry(text, number, hint=f"{fact.hint} Exact.".strip())
    n, counted = (gate.evidence.get("measurements"), "measurement") if fact.kind == "bytes" else (gate.clusters or None, "problem")
    return Entry(text, number, n=n, counted=counted, hint=f"{fact.hint} {NO_INTERVAL}".strip())


def _shown(kind: Kind, metric: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    match kind:
        case "change":
            return words.change(metric, value)
        case "width":
            return words.change(metric, value).lstrip("+")
        case "share":
            return words.share(value)
        case "bytes":
            return words.size(value)
        case "count":
            return words.count(value)
    shown = f"{value:.3f}" if abs(value) >= 0.001 or not value else f"{value:.2g}"
    return shown.replace("-", words.MINUS)
