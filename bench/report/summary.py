"""A run -> Markdown for a pull request comment or a job summary: the verdict, one small table, one picture."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.gate import NOT_TESTED
from bench.records import Run, Verdict
from bench.report import words
from bench.report.cells import Cells
from bench.report.focus import Focus, asked_gate, find_comparison
from bench.report.headline import Headline, headline
from bench.report.notices import notices
from bench.transfer import compare_by_training

MARKS = {"pass": "\u2705", "fail": "\u274c", "inconclusive": "\u2754", "invalid": "\u26a0\ufe0f", None: "\u2796"}
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~!&])")


def render_summary(run: Run, focus: Focus | None, cells: Cells, pictures: set[str]) -> str:
    """The whole file. `pictures` are the names of the PNGs in report/."""
    first = headline(run, focus, cells)
    parts = [
        f"## {MARKS[first.verdict]} {first.word}: {plain(run.experiment.name)}",
        plain(first.sentence),
        plain(first.second),
        _gates(run),
        "\n".join(f"- {plain(waiver)}" for waiver in waivers(run)),
        _numbers(run, focus, cells, first),
        "\n".join(f"- {plain(notice)}" for notice in notices(run, focus, cells)),
        "![Accuracy by effort and arm](report/accuracy-by-effort.png)" if "accuracy-by-effort" in pictures else "",
        "Full report: `report/index.html`. Intervals are 95 %, clustered by problem.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def waivers(run: Run) -> list[str]:
    """Who lets what through, and why."""
    gates = run.verdict.gates if run.verdict else ()
    return [f"Gate {gate.name} is waived, its verdict stays {gate.verdict}: {gate.waived}" for gate in gates if gate.waived is not None]


def _gates(run: Run) -> str:
    if run.verdict is None or not run.verdict.gates:
        return ""
    rows = [
        (
            plain(gate.name),
            f"{MARKS[gate.verdict]} {words.VERDICTS[gate.verdict]}{_standing(gate)}",
            f"{words.gated_metric(gate)}, {gate.effort}",
            words.level(gate.metric, gate.before),
            words.level(gate.metric, gate.after),
            _change(gate.metric, gate.delta, gate.ci),
            words.margin_of(asked_gate(run, gate), gate.metric, gate.margin),
        )
        for gate in run.verdict.gates
    ]
    return _table(("gate", "verdict", "metric, effort", "before", "after", "change (interval)", "margin"), rows)


def _standing(gate: Verdict) -> str:
    """Why a gate that looks bad does not block, or one that looks good was not tested."""
    notes = [
        (gate.waived is not None, "waived"),
        (not gate.required, "not required"),
        (NOT_TESTED in gate.flags, "not tested"),
    ]
    return "".join(f", {note}" for holds, note in notes if holds)


def _numbers(run: Run, focus: Focus | None, cells: Cells, first: Headline) -> str:
    """Accuracy and tokens by effort: the change where there is an arm to judge, else the levels; and the peak memory."""
    memory = first.tiles[-1]
    peak = f"{memory.title}: {' '.join(part for part in (memory.number, memory.unit) if part)} ({plain(memory.detail)})."
    if focus is None:
        return peak
    rows = [_effort_row(run, focus, cells, effort) for effort in focus.efforts]
    subject = f"{focus.chosen} against {focus.reference}" if focus.chosen else focus.compared[0]
    head = (f"{plain(subject)}, {plain(focus.place)}", "accuracy", "output tokens")
    return "\n\n".join(part for part in (_table(head, rows), _by_training(run, focus), peak) if part)


def _by_training(run: Run, focus: Focus) -> str:
    """Accuracy at the effort that matters, in the languages trained on and in the others; empty unless both were asked."""
    if focus.chosen is None or not focus.taught or focus.taught.issuperset(focus.languages):
        return ""
    place = {"arm": focus.chosen, "suite": focus.suite, "split": focus.split, "effort": focus.effort, "metric": "accuracy"}
    said = []
    for group, languages, comparison in compare_by_training(run.samples, focus.taught, **place):
        change = _change("accuracy", comparison.delta, comparison.ci)
        said.append(f"{change} in the languages {group} on ({', '.join(map(plain, languages))})")
    return f"Accuracy at {focus.effort} effort: {'; '.join(said)}."


def _effort_row(run: Run, focus: Focus, cells: Cells, effort: str) -> tuple[str, ...]:
    entries = [f"{effort} effort"]
    for metric in ("accuracy", "output_tokens"):
        found = find_comparison(run, focus, metric, effort)
        cell = cells.overall(metric, focus.compared[0], focus.suite, focus.split, effort)
        if found is not None and found.delta is not None:
            levels = f"{words.level(metric, found.before)} \u2192 {words.level(metric, found.after)}"
            entries.append(f"{levels}: {_change(metric, found.delta, found.ci)}")
        elif focus.chosen is None and cell is not None:
            entries.append(f"{words.level(metric, cell.mean)} ({words.level_interval(metric, cell.low, cell.high)})")
        else:
            entries.append(words.UNKNOWN)
    return tuple(entries)


def _change(metric: str, delta: float | None, ci: tuple[float, float] | None) -> str:
    return f"{words.change(metric, delta)} ({words.change_interval(metric, ci)})" if words.known(delta) else words.UNKNOWN


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def plain(text: str) -> str:
    """Untrusted text as Markdown that shows it and does nothing: one line, no links, no HTML, no mentions."""
    shown = " ".join(words.harmless(text, 600).split())
    return _SPECIAL.sub(r"\\\1", shown).replace("@", "@\u200b").replace("://", ":\u200b//")
