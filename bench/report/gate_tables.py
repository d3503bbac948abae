"""A run's judgement -> tables: its gates, the selection with every arm tried, arms that failed, the grid."""

from __future__ import annotations

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
        Column("problems", field_hints(Comparison).get("clusters", "")),
        Column("why", numeric=False),
    )
    return Table("gates", "What each gate asked and saw", columns, tuple(_gate_row(run, gate) for gate in run.verdict.gates))


def _gate_row(run: Run, gate: Verdict) -> tuple[Entry, ...]:
    asked = asked_gate(run, gate)
    place = f"{gate.arm or 'no arm'} against {gate.against}, {gate.suite}@{gate.split}"
    question = words.question(asked) if asked else f"margin {words.size_of(gate.metric, gate.margin)}"
    flags = ", ".join(flag.replace("_", " ") for flag in (*gate.flags, *(() if gate.required else ("not_required",))))
    found = next((one for one in run.comparisons if _is_of(one, gate)), None)
    return (
        Entry(gate.name, small=place),
        Entry(words.VERDICTS[gate.verdict], small=flags, tone=gate.verdict),
        Entry(f"{words.metric_words(gate.metric).name}, {gate.effort} effort", small=question),
        _level_of(gate.metric, gate.before, found.before_ci if found else None, gate.clusters),
        _level_of(gate.metric, gate.after, found.after_ci if found else None, gate.clusters),
        change_entry(gate.metric, gate.delta, gate.ci),
        Entry(words.count(gate.clusters) if gate.clusters else words.MISSING, str(gate.clusters)),
        Entry("; ".join(gate.reasons) or words.MISSING),
    )


def _is_of(one: Comparison, gate: Verdict) -> bool:
    """Whether a gate judged this comparison: a gate against the baseline judges another one, which is not in the run's record."""
    names = ("arm", "against", "suite", "split", "effort", "metric", "before", "after")
    return all(getattr(one, name) == getattr(gate, name) for name in names)


def _level_of(metric: str, value: float | None, ci: tuple[float, float] | None, clusters: int) -> Entry:
    """A level with its interval, where it is on record, and the number of problems."""
    interval = words.level_interval(metric, *ci) if ci else ""
    hint = "; ".join([*([f"95 % interval {interval}"] if interval else []), words.plural(clusters, "problem")])
    return Entry(words.level(metric, value), raw(value), interval, hint if words.known(value) else "")


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
    return _level_of(metric, value, found.after_ci, found.clusters) if found else level_entry(metric, value)


def _lost(run: Run, candidate: records.Candidate) -> Entry:
    """Base minus arm, with the interval of that."""
    drop, found = candidate.accuracy_drop, _on_selection(run, candidate, "accuracy")
    if drop is None:
        return Entry(words.MISSING)
    interval = words.change_interval("accuracy", (-found.ci[1], -found.ci[0])) if found and found.ci else ""
    return Entry(words.change("accuracy", drop), raw(drop), interval, f"95 % interval {interval}" if interval else "")


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
