"""A run's judgement -> tables: its gates, the selection with every arm tried, arms that failed, the grid."""

from __future__ import annotations

import dataclasses

from bench import records
from bench.records import Comparison, Run, Verdict
from bench.report import words
from bench.report.cells import Cells
from bench.report.focus import Focus, asked_gate
from bench.report.tables import Column, Entry, Table, cell_entry, change_entry, field_hints, level_entry, raw


def gates(run: Run) -> Table | None:
    """What each gate asked, saw and says."""
    if run.verdict is None or not run.verdict.gates:
        return None
    columns = (
        Column("gate", "Its name in the experiment file.", False),
        Column("verdict", numeric=False),
        Column("asks", "The question and its margin, fixed before the run.", False),
        Column("before"),
        Column("after"),
        Column("change", "After minus before, paired by problem; two-sided 95 % interval clustered by problem."),
        Column("why", numeric=False),
    )
    return Table("gates", "What each gate asked and saw", columns, tuple(_gate_row(run, gate) for gate in run.verdict.gates))


def _gate_row(run: Run, gate: Verdict) -> tuple[Entry, ...]:
    asked = asked_gate(run, gate)
    place = f"{gate.arm or 'no arm'} against {gate.against}, {gate.suite}@{gate.split}"
    question = words.question(asked) if asked else f"margin {words.size_of(gate.metric, gate.margin)}"
    flags = ", ".join(flag.replace("_", " ") for flag in (*gate.flags, *(() if gate.required else ("not_required",))))
    return (
        Entry(gate.name, small=place),
        Entry(words.VERDICTS[gate.verdict], small=flags, tone=gate.verdict),
        Entry(f"{words.gated_metric(gate)}, {gate.effort} effort", small=question),
        _side(gate, gate.before, "before_ci"),
        _side(gate, gate.after, "after_ci"),
        _change(gate),
        Entry(words.spoken("; ".join(gate.reasons)) or words.MISSING),
    )


def _side(gate: Verdict, value: float | None, name: str) -> Entry:
    """One arm's level with its interval, where the gate has kept one."""
    if not words.known(value):
        return Entry(words.MISSING, hint="no comparison was made")
    return _counted(level_entry(gate.metric, value, gate.evidence.get(name)), gate)


def _change(gate: Verdict) -> Entry:
    """The difference with its interval; of timing blocks and memory, which have no interval of their own, the ratio's."""
    if not words.known(gate.delta):
        return Entry(words.MISSING, hint="no comparison was made")
    if gate.ci is not None:
        return change_entry(gate.metric, gate.delta, gate.ci, gate.clusters)
    ratio, ends = gate.evidence.get("ratio"), gate.evidence.get("ratio_ci")
    small = f"ratio {ratio:.3f}, 95 % interval {ends[0]:.3f} to {ends[1]:.3f}" if ratio is not None and ends is not None else ""
    return _counted(Entry(words.change(gate.metric, gate.delta), raw(gate.delta), small=small), gate)


def _counted(entry: Entry, gate: Verdict) -> Entry:
    """With what the number rests on: problems, pairs of timing blocks, or measurements of memory."""
    measured = gate.evidence.get("measurements")
    counted = "measurement" if measured else "timing block" if "blocks" in gate.evidence else "problem"
    return dataclasses.replace(entry, n=measured or gate.clusters or None, counted=counted)


def selection(run: Run) -> Table | None:
    """Every arm that was tried, and why it was or was not taken."""
    chosen_by = run.selection
    if chosen_by is None:
        return None
    metric = words.metric_words(chosen_by.metric).name
    columns = (
        Column("arm", numeric=False),
        Column(metric, f"Decides, on {chosen_by.suite}@{chosen_by.split} at {chosen_by.effort} effort."),
        *([Column("accuracy")] if chosen_by.metric != "accuracy" else []),
        Column("accuracy lost", field_hints(records.Candidate).get("accuracy_drop", "")),
        Column("taken", numeric=False),
        Column("why not", numeric=False),
    )
    rows = []
    for candidate in chosen_by.candidates:
        taken = candidate.arm == chosen_by.chosen
        rows.append(
            (
                Entry(candidate.arm, tone="chosen" if taken else ""),
                _candidate_level(run, candidate, chosen_by.metric, candidate.value),
                *([_candidate_level(run, candidate, "accuracy", candidate.accuracy)] if chosen_by.metric != "accuracy" else []),
                _lost(run, candidate),
                Entry(_taken_words(candidate, taken), tone="chosen" if taken else ""),
                Entry(candidate.reason or ("another arm is better, or as good and cheaper" if candidate.eligible and not taken else "")),
            )
        )
    limit = run.experiment.select.subject_to.accuracy_drop if run.experiment.select else None
    rule = f"Rule: best {metric} at {chosen_by.effort} effort on {chosen_by.suite}@{chosen_by.split}"
    rule += f" among arms that lose at most {words.size_of('accuracy', limit)} of accuracy" if limit is not None else ""
    note = f"{rule}; ties go to the cheaper arm. These problems chose the arm, so they do not judge it."
    return Table("selection", "Which arm goes to the gate", columns, tuple(rows), note)


def _candidate_level(run: Run, candidate: records.Candidate, metric: str, value: float | None) -> Entry:
    found = _on_selection(run, candidate, metric)
    return level_entry(metric, value, found.after_ci, found.clusters) if found else level_entry(metric, value)


def _lost(run: Run, candidate: records.Candidate) -> Entry:
    """Base minus arm, with the interval of that."""
    drop, found = candidate.accuracy_drop, _on_selection(run, candidate, "accuracy")
    if drop is None:
        return Entry(words.MISSING)
    ends = (-found.ci[1], -found.ci[0]) if found and found.ci else None
    return dataclasses.replace(change_entry("accuracy", drop, ends, found.clusters if found else 0), tone="")


def _on_selection(run: Run, candidate: records.Candidate, metric: str) -> Comparison | None:
    """The candidate against base on the data that chose."""
    place = run.selection
    assert place is not None
    wanted = (candidate.arm, "base", place.suite, place.split, place.effort, metric)
    return next((c for c in run.comparisons if (c.arm, c.against, c.suite, c.split, c.effort, c.metric) == wanted), None)


def _taken_words(candidate: records.Candidate, taken: bool) -> str:
    return "chosen" if taken else "eligible" if candidate.eligible else "not eligible"


def failed_arms(run: Run) -> Table | None:
    """Arms that crashed, with their reason."""
    if not run.failed_arms:
        return None
    rows = tuple((Entry(arm), Entry(reason, tone="warn")) for arm, reason in run.failed_arms.items())
    note = "A failed arm counts as tried; if it is base or the gated arm, the verdict is invalid."
    return Table("failed-arms", "Arms that failed", (Column("arm", numeric=False), Column("reason", numeric=False)), rows, note)


def grid(run: Run, focus: Focus, cells: Cells) -> list[Table]:
    """Rank x steps maps of the selection's two numbers; nothing where the grid is a line or a point."""
    trained = [arm for arm in run.experiment.arms() if arm.kind == "trained"]
    ranks, steps = sorted({arm.rank or 0 for arm in trained}), list(dict.fromkeys(arm.steps or 0 for arm in trained))
    if run.selection is None or len(ranks) < 2 or len(steps) < 2 or len(trained) != len(ranks) * len(steps):
        return []
    names = {(arm.rank, arm.steps): arm.name for arm in trained}
    place = run.selection
    tables = []
    for metric in dict.fromkeys((place.metric, "accuracy")):
        rows = []
        for rank in ranks:
            found = [cells.overall(metric, names[rank, step], place.suite, place.split, place.effort) for step in steps]
            tones = ["chosen" if names[rank, step] == place.chosen else "" for step in steps]
            entries = [cell_entry(metric, cell, tone, heat=True) for cell, tone in zip(found, tones, strict=True)]
            rows.append((Entry(f"rank {rank}", str(rank)), *entries))
        title = f"{words.metric_words(metric).name.capitalize()} over the grid"
        columns = (Column("", numeric=False), *(Column(f"{step:,} steps" if isinstance(step, int) else step) for step in steps))
        note = f"{place.suite}@{place.split}, {place.effort} effort; the chosen arm is outlined."
        tables.append(Table(f"grid-{metric.replace('_', '-')}", title, columns, tuple(rows), note))
    return tables
