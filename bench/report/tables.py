"""Records -> tables: columns with hints, cells with the text shown, the raw value to sort and copy, and a hint on hover.

No statistics are made here. Tables know nothing of HTML; page.py and summary.py write them.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench import records
from bench.pareto import DRAWS, ParetoPoint
from bench.records import OUTCOMES, Comparison, Run, Training, TrainingPhase, Verdict
from bench.repeats import repeat_table
from bench.report import words
from bench.report.cells import Cells, CellSummary
from bench.report.focus import Focus, asked_gate, find_comparison
from bench.stats import MeanEstimate
from bench.transfer import compare_by_training

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
        Entry(f"{words.gated_metric(gate)}, {gate.effort} effort", small=question),
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
    return Entry(words.level(metric, value), _raw(value), interval, hint if words.known(value) else "")


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
    return _level_of(metric, value, found.after_ci, found.clusters) if found else _level(metric, value)


def _lost(run: Run, candidate: records.Candidate) -> Entry:
    """Base minus arm, with the interval of that."""
    drop, found = candidate.accuracy_drop, _on_selection(run, candidate, "accuracy")
    if drop is None:
        return Entry(words.MISSING)
    interval = words.change_interval("accuracy", (-found.ci[1], -found.ci[0])) if found and found.ci else ""
    return Entry(words.change("accuracy", drop), _raw(drop), interval, f"95 % interval {interval}" if interval else "")


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
            entries = [_cell(metric, cell, tone, heat=True) for cell, tone in zip(found, tones, strict=True)]
            rows.append((Entry(f"rank {rank}", str(rank)), *entries))
        title = f"{words.metric_words(metric).name.capitalize()} over the grid"
        columns = (Column("", numeric=False), *(Column(f"{step:,} steps" if isinstance(step, int) else step) for step in steps))
        note = f"{place.suite}@{place.split}, {place.effort} effort; the chosen arm is outlined."
        tables.append(Table(f"grid-{metric.replace('_', '-')}", title, columns, tuple(rows), note))
    return tables


def by_effort(focus: Focus, cells: Cells, metric: str, title: str, places: Iterable[tuple[str, str]] | None = None) -> Table | None:
    """Arm x effort, over all languages; one block of rows for each suite and split."""
    rows = []
    asked = list(places or focus.data)
    for suite, split in asked:
        for arm in focus.arms:
            found = [cells.overall(metric, arm, suite, split, effort) for effort in focus.efforts]
            if not any(found):
                continue
            where = [Entry(f"{suite}@{split}")] if len(asked) > 1 else []
            tone = "chosen" if arm == focus.chosen else ""
            rows.append((*where, Entry(arm, tone=tone), *(_cell(metric, cell) for cell in found)))
    if not rows:
        return None
    asked_of = ", ".join(f"{suite}@{split}: {words.plural(n, 'problem')}" for suite, split, n in _problems(focus, cells, metric, asked))
    data = [Column("data", numeric=False)] if len(asked) > 1 else []
    columns = (*data, Column("arm", numeric=False), *(Column(f"{effort} effort") for effort in focus.efforts))
    note = f"{asked_of}. {_intervals_note(focus)}" + (_silent_note(focus, cells) if metric == "reasoning_language_fidelity" else "")
    return Table(f"{metric.replace('_', '-')}-by-effort", title, columns, tuple(rows), note)


def _problems(focus: Focus, cells: Cells, metric: str, places: list[tuple[str, str]]) -> Iterator[tuple[str, str, int]]:
    """(suite, split, most problems that any arm was asked at any effort)."""
    for suite, split in places:
        found = [cells.overall(metric, arm, suite, split, effort) for arm in focus.arms for effort in focus.efforts]
        counts = [cell.clusters for cell in found if cell]
        if counts:
            yield suite, split, max(counts)


def _intervals_note(focus: Focus) -> str:
    over = words.plural(len(focus.languages), "language")
    return f"Small print: 95 % interval, clustered by problem; each problem counts once, averaged over {over} and repeated samples."


def _silent_note(focus: Focus, cells: Cells) -> str:
    """Names the efforts at which the compared arms hardly reason: nothing there can be in the asked language."""
    silent = []
    for effort in focus.efforts:
        found = [cells.overall("reasoning_tokens", arm, focus.suite, focus.split, effort) for arm in focus.compared]
        if any(found) and all(cell is None or cell.mean < 1 for cell in found):
            silent.append(effort)
    if not silent:
        return ""
    return f" At {words.listed(silent)} effort hardly anything is reasoned, which counts as not in the asked language."


def by_language(focus: Focus, cells: Cells, metric: str, name: str, title: str) -> Table | None:
    """Language x effort for the compared arms, shaded by value."""
    rows = []
    for language in focus.languages:
        for arm in focus.compared:
            found = [cells.language(metric, arm, focus.suite, focus.split, language, effort) for effort in focus.efforts]
            if any(found):
                rows.append(
                    (
                        _language(focus, language),
                        Entry(arm, tone="chosen" if arm == focus.chosen else ""),
                        *(_cell(metric, cell, heat=True) for cell in found),
                    )
                )
    if not rows:
        return None
    columns = (
        Column("language", numeric=False),
        Column("arm", numeric=False),
        *(Column(f"{effort} effort") for effort in focus.efforts),
    )
    return Table(name, title, columns, tuple(rows), f"{focus.place}.")


def final_languages(run: Run, focus: Focus) -> Table | None:
    """Language x effort for the compared arms: share of final answers in the question's language, of those that can be told."""
    if "final_language" not in run.samples:
        return None
    here = run.samples[(run.samples["suite"] == focus.suite) & (run.samples["split"] == focus.split) & (run.samples["outcome"] != "error")]
    told = here["final_language"].notna()
    followed = (here["final_language"].astype(object) == here["language"].astype(object)).where(told)
    frame = here[["arm", "language", "effort"]].assign(told=told, followed=followed.astype("float64"))
    if not told.any():
        return None
    means = frame.groupby(["language", "arm", "effort"], observed=True)[["told", "followed"]].mean().reset_index().to_dict("records")
    shares = {(str(row["language"]), str(row["arm"]), str(row["effort"])): (float(row["told"]), float(row["followed"])) for row in means}
    rows = []
    for language in focus.languages:
        for arm in focus.compared:
            found = [shares.get((language, arm, effort)) for effort in focus.efforts]
            if any(found):
                rows.append((_language(focus, language), Entry(arm), *(_final_language(one) for one in found)))
    columns = (Column("language", numeric=False), Column("arm", numeric=False), *(Column(f"{effort} effort") for effort in focus.efforts))
    note = f"{focus.place}. Of the final answers whose language can be told; small print: the share that is too short to tell."
    return Table("final-language", "Final answers in the question's language", columns, tuple(rows), note) if rows else None


def _final_language(found: tuple[float, float] | None) -> Entry:
    if found is None:
        return Entry(words.MISSING)
    told, followed = found
    unknown = f"{words.share(1 - told)} unknown" if told < 1 else ""
    return Entry(words.share(followed) if told else words.UNKNOWN, _raw(followed if told else None), small=unknown)


def changes_by_language(focus: Focus, cells: Cells, metric: str, title: str) -> Table | None:
    """Language x effort: change of the chosen arm against the reference, paired by problem."""
    if focus.chosen is None:
        return None
    rows = []
    for language in focus.languages:
        found = [cells.language_change(metric, focus.chosen, focus.suite, focus.split, language, effort) for effort in focus.efforts]
        if any(comparison and comparison.delta is not None for comparison in found):
            rows.append((_language(focus, language), *(_compared(comparison) for comparison in found)))
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
                entries = (_compared(found.get(effort), levels=True) for effort in focus.efforts)
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


def _language(focus: Focus, language: str) -> Entry:
    """Its code, and whether the fine-tuning rows reason in it: a model need not carry over what it learned in others."""
    if focus.taught is None:
        return Entry(language)
    return Entry(language, small="trained" if language in focus.taught else "not trained")


def changes_by_effort(run: Run, focus: Focus) -> Table | None:
    """Every metric's change of the chosen arm at every effort, on the focused data."""
    metrics = [metric for metric in words.METRICS if any(find_comparison(run, focus, metric, effort) for effort in focus.efforts)]
    if focus.chosen is None or not metrics:
        return None
    rows = []
    for metric in metrics:
        found = [find_comparison(run, focus, metric, effort) for effort in focus.efforts]
        rows.append((Entry(words.answers_metric(metric)), *(_compared(comparison, levels=True) for comparison in found)))
    columns = (Column("metric", numeric=False), *(Column(f"{effort} effort") for effort in focus.efforts))
    note = (
        f"{focus.chosen} minus {focus.reference} on {focus.place}; small print: before \u2192 after, and the 95 % interval of the change."
    )
    if "latency_s" in metrics:
        note += " Times are of one pass an arm, other answers being generated beside it (throughput mode): their intervals leave out how a "
        note += "machine drifts between passes."
    return Table("changes", "What changed", columns, tuple(rows), note)


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


def pareto(focus: Focus, cells: Cells) -> Table | None:
    """Accuracy and cost of every arm at every effort on the focused data, and how surely no other beats it in both."""
    asked = (focus.suite, focus.split)
    costs = {cost: {(one.arm, one.effort): one for one in cells.pareto(cost, *asked)} for cost in ("output_tokens", "latency_s")}
    rows = []
    for arm, effort in itertools.product(focus.arms, focus.efforts):
        tokens, latency = (found.get((arm, effort)) for found in costs.values())
        if tokens is None:
            continue
        rows.append(
            (
                Entry(arm, tone="chosen" if arm == focus.chosen else ""),
                Entry(effort),
                _level("accuracy", tokens.accuracy),
                _level("output_tokens", tokens.cost),
                _member(tokens),
                _level("latency_s", latency.cost if latency else None),
                _member(latency),
            )
        )
    if not rows:
        return None
    columns = (
        Column("arm", numeric=False),
        Column("effort", numeric=False),
        Column("accuracy"),
        Column("tokens"),
        Column("in the set by tokens", "Share of draws of the problems in which no other is as accurate and as cheap."),
        Column("latency, throughput mode", field_hints(records.Sample).get("latency_s", "")),
        Column("in the set by latency", "Share of draws of the problems in which no other is as accurate and as fast."),
    )
    problems = next(iter(costs["output_tokens"].values())).problems
    note = (
        f"{focus.place}, {words.plural(problems, 'problem')} that all of them answered. The Pareto set holds what no other beats in both; "
        f"small print: whether it does as measured. Draws: {DRAWS:,}, with replacement. Latency is of one pass an arm."
    )
    return Table("pareto", "Worth its cost: the Pareto set", columns, tuple(rows), note)


def _member(point: ParetoPoint | None) -> Entry:
    if point is None:
        return Entry(words.MISSING)
    return Entry(words.share(point.share, 0), _raw(point.share), small="as measured: yes" if point.is_member else "as measured: no")


def repeats(run: Run, focus: Focus) -> Table | None:
    """pass@k and the majority's vote by arm and effort; None where every question was asked once."""
    if run.experiment.evaluate.samples_per_item == 1:
        return None
    here = run.samples[(run.samples["suite"] == focus.suite) & (run.samples["split"] == focus.split)]
    made = {(one.arm, one.effort): one for one in repeat_table(here[here["arm"].isin(focus.compared)])}
    steps = sorted({k for one in made.values() for k in one.pass_at})
    rows = []
    for arm, effort in itertools.product(focus.compared, focus.efforts):
        if one := made.get((arm, effort)):
            estimates = [one.pass_at.get(k) for k in steps] + [one.majority]
            rows.append((Entry(arm, tone="chosen" if arm == focus.chosen else ""), Entry(effort), *map(_estimate, estimates)))
    if not rows:
        return None
    shown = (*(Column(f"pass@{k}", f"Chance that at least one of {words.plural(k, 'answer')} is right.") for k in steps),)
    columns = (Column("arm", numeric=False), Column("effort", numeric=False), *shown, Column("majority", "The answer given most often."))
    note = f"{focus.place}, {words.plural(run.experiment.evaluate.samples_per_item, 'sample')} a question. {_intervals_note(focus)}"
    return Table("repeats", "Repeated samples: pass@k and majority vote", columns, tuple(rows), note)


def _estimate(estimate: MeanEstimate | None) -> Entry:
    if estimate is None:
        return Entry(words.MISSING)
    low, high = estimate.interval
    return Entry(words.share(estimate.mean), _raw(estimate.mean), small=words.level_interval("accuracy", low, high))


def outcomes(run: Run, focus: Focus, cells: Cells) -> Table | None:
    """Outcome shares by arm and effort, on the focused data; truncated ones by the channel in which they were cut."""
    in_final = _cut_in_final(run, focus)
    rows = []
    for arm in focus.compared:
        for effort in focus.efforts:
            cell = cells.overall("accuracy", arm, focus.suite, focus.split, effort)
            if cell is None:
                continue
            shares = (cell.outcomes.get(outcome, 0.0) for outcome in OUTCOMES)
            entries = [Entry(words.share(value), _raw(value), hint=f"of {words.plural(cell.n, 'answer')}") for value in shares]
            truncated, position = cell.outcomes.get("truncated", 0.0), OUTCOMES.index("truncated")
            if truncated:
                final = truncated * in_final.get((arm, effort), 0.0)
                small = f"{words.share(truncated - final)} in analysis, {words.share(final)} in final"
                over = truncated > TRUNCATION_NOTICE
                small, tone = (f"over 2 %: {small}", "warn") if over else (small, "")
                entries[position] = dataclasses.replace(entries[position], small=small, tone=tone)
            rows.append((Entry(arm), Entry(effort), *entries, Entry(words.count(cell.n), str(cell.n))))
    if not rows:
        return None
    columns = (
        Column("arm", numeric=False),
        Column("effort", numeric=False),
        *(Column(outcome.replace("_", " ")) for outcome in OUTCOMES),
        Column("answers"),
    )
    note = f"{focus.place}. Truncated, malformed and missing answers score 0; an error is a fault of the machinery, without a score."
    return Table("outcome-shares", "What became of every answer", columns, tuple(rows), note)


def _cut_in_final(run: Run, focus: Focus) -> dict[tuple[str, str], float]:
    """Share of the truncated answers of an arm and effort that had begun their final channel; one without a token there had not."""
    here = run.samples[(run.samples["suite"] == focus.suite) & (run.samples["split"] == focus.split)]
    cut = here[here["outcome"] == "truncated"]
    began = cut.assign(began=cut["final_tokens"].astype("float64") > 0).groupby(["arm", "effort"], observed=True)["began"].mean()
    return {(str(row["arm"]), str(row["effort"])): float(row["began"]) for row in began.reset_index().to_dict("records")}


def tokens(run: Run, focus: Focus, cells: Cells) -> Table | None:
    """Mean tokens an answer by arm and effort."""
    here = run.samples[(run.samples["suite"] == focus.suite) & (run.samples["split"] == focus.split)]
    means = here.groupby(["arm", "effort"], observed=True)[["prompt_tokens", "final_tokens"]].mean().to_dict("index")
    rows = []
    for arm in focus.compared:
        for effort in focus.efforts:
            output = cells.overall("output_tokens", arm, focus.suite, focus.split, effort)
            if output is None and (arm, effort) not in means:
                continue
            reasoning = cells.overall("reasoning_tokens", arm, focus.suite, focus.split, effort)
            latency = cells.overall("latency_s", arm, focus.suite, focus.split, effort)
            prompt, final = (means[arm, effort][name] for name in ("prompt_tokens", "final_tokens"))
            rows.append(
                (
                    Entry(arm, tone="chosen" if arm == focus.chosen else ""),
                    Entry(effort),
                    _level("output_tokens", prompt),
                    _cell("reasoning_tokens", reasoning),
                    _level("output_tokens", final),
                    _cell("output_tokens", output),
                    _cell("latency_s", latency),
                )
            )
    if not rows:
        return None
    hints = field_hints(records.Sample)
    columns = (
        Column("arm", numeric=False),
        Column("effort", numeric=False),
        Column("prompt"),
        Column("reasoning", hints.get("reasoning_tokens", "")),
        Column("final", hints.get("final_tokens", "")),
        Column("output", hints.get("output_tokens", "")),
        Column("latency, throughput mode", hints.get("latency_s", "")),
    )
    return Table("tokens", "Mean tokens of an answer", columns, tuple(rows), f"{focus.place}; counted from token ids, not from text.")


def training(run: Run) -> Table | None:
    """How each arm was trained and what it cost."""
    if not run.training:
        return None
    hints = field_hints(Training)
    columns = (
        Column("arm", numeric=False),
        Column("rank"),
        Column("steps"),
        Column("trained", "Trainable parameters."),
        Column("loss", "First and last logged."),
        Column("held-out loss", hints.get("held_out_loss", "")),
        Column("supervised", hints.get("supervised_tokens", "")),
        Column("time", hints.get("wall_s", "")),
        Column("peak memory", hints.get("peak_rss_bytes", "")),
        Column("adapter"),
    )
    chosen = run.selection.chosen if run.selection else None
    rows = tuple(_training_row(item, item.arm == chosen) for item in run.training.values())
    note = words.listed(sorted({f"{item.method}, {item.optimizer or 'optimizer unknown'}" for item in run.training.values()}))
    shared = sorted({item.shared_run for item in run.training.values() if item.shared_run})
    note += f"; one training run served several step counts ({', '.join(shared)})" if shared else ""
    return Table("training", "How each arm was trained", columns, rows, f"{note}.")


def _training_row(item: Training, chosen: bool) -> tuple[Entry, ...]:
    name = Entry(item.arm, small="failed" if item.status == "failed" else "", tone="chosen" if chosen else "")
    kinds = {kind: number for kind, number in item.trainable_by_kind.items() if number}
    losses = [point.get("loss") for point in item.losses]
    channels = ", ".join(f"{channel}{words.NBSP}{number:,}" for channel, number in item.supervised_tokens.items())
    total = sum(item.supervised_tokens.values()) if item.supervised_tokens else None
    memory = item.peak_vram_bytes if item.peak_vram_bytes is not None else item.peak_rss_bytes
    kind = "VRAM" if item.peak_vram_bytes is not None else "host" if memory is not None else ""
    return (
        name,
        Entry(words.count(item.rank), str(item.rank), small=f"alpha{words.NBSP}{item.alpha:g}"),
        Entry(words.count(item.steps), str(item.steps)),
        Entry(words.count(item.trainable_parameters), _raw(item.trainable_parameters), small=_kinds_words(kinds)),
        Entry(words.first_to_last(losses), _raw(losses[-1]) if losses else ""),
        Entry(words.decimal(item.held_out_loss, 3), _raw(item.held_out_loss)),
        Entry(words.count(total), _raw(total), small=channels),
        Entry(words.seconds(item.wall_s), _raw(item.wall_s)),
        Entry(words.size(memory), _raw(memory), small=kind),
        Entry(words.size(item.adapter_bytes), _raw(item.adapter_bytes)),
    )


def _kinds_words(kinds: dict[str, int]) -> str:
    """One kind is named, several also say how many parameters each has."""
    return ", ".join(kinds) if len(kinds) == 1 else ", ".join(f"{kind}{words.NBSP}{number:,}" for kind, number in kinds.items())


PHASE_NAMES = {"load": "load", "lora": "LoRA", "first_step": "first step", "steady": "steady steps", "save": "save"}


def training_phases(run: Run) -> Table | None:
    """Time, memory and energy of each phase of each arm's training; an arm that failed shows what it had reached."""
    gpu = run.environment.gpu is not None
    rows = []
    for training in run.training.values():
        for phase in training.phases:
            memory = ("peak_vram_bytes", "peak_reserved_bytes", "peak_process_bytes", "peak_device_bytes") if gpu else ()
            rows.append(
                (
                    Entry(training.arm, small="" if training.status == "trained" else "failed"),
                    Entry(training.method),
                    Entry(PHASE_NAMES.get(phase["name"], phase["name"])),
                    Entry(words.seconds(phase["wall_s"]), _raw(phase["wall_s"])),
                    Entry(words.seconds(phase["median_step_s"]) if phase["steps"] else words.MISSING, _raw(phase["median_step_s"])),
                    Entry(words.count(phase["tokens_per_s"]) if phase["steps"] else words.MISSING, _raw(phase["tokens_per_s"])),
                    *(Entry(words.size(phase[name]), _raw(phase[name])) for name in (*memory, "peak_rss_bytes")),
                    *([Entry(words.count(phase["energy_j"]), _raw(phase["energy_j"]))] if gpu else []),
                )
            )
    if not rows:
        return None
    hints = field_hints(TrainingPhase)
    on_gpu = (
        Column("allocated", hints.get("peak_vram_bytes", "")),
        Column("reserved", hints.get("peak_reserved_bytes", "")),
        Column("process", hints.get("peak_process_bytes", "")),
        Column("device", hints.get("peak_device_bytes", "")),
    )
    columns = (
        Column("arm", numeric=False),
        Column("trainer", numeric=False),
        Column("phase", hints.get("name", ""), numeric=False),
        Column("time"),
        Column("step", hints.get("median_step_s", "")),
        Column("tokens a second", hints.get("tokens_per_s", "")),
        *(on_gpu if gpu else ()),
        Column("host memory", "Peak resident memory of the training process."),
        *([Column("energy, J", hints.get("energy_j", ""))] if gpu else []),
    )
    note = "Arms of one training run share its load, LoRA and first step. Peaks are the phase's own."
    return Table("training-phases", "Training: time and memory of each phase", columns, tuple(rows), note)


def hashes(run: Run) -> Table | None:
    """The key of every cell: the hash of all that can change a score."""
    if not run.cells:
        return None
    rows = tuple(
        tuple(map(Entry, (cell.arm, f"{cell.suite}@{cell.split}", cell.language, cell.effort, str(cell.samples), cell.key)))
        for cell in run.cells
    )
    titles = ("arm", "data", "language", "effort", "answers", "key")
    columns = tuple(Column(title, numeric=title == "answers") for title in titles)
    note = "Same key: the same weights, adapter, template, decoding, suite, engine and dtype."
    return Table("cell-keys", "Cell keys", columns, rows, note)


def change_entry(metric: str, delta: float | None, ci: tuple[float, float] | None) -> Entry:
    """A change with its interval; toned only where the interval lies on one side of zero."""
    if not words.known(delta):
        return Entry(words.UNKNOWN)
    interval = words.change_interval(metric, ci)
    return Entry(words.change(metric, delta), _raw(delta), small=interval, hint=f"95 % interval {interval}", tone=direction(metric, ci))


def direction(metric: str, ci: tuple[float, float] | None) -> str:
    """`better` or `worse` where the interval lies on one side of zero, else nothing."""
    if ci is None or not (ci[0] > 0 or ci[1] < 0) or words.metric_words(metric).unit == "seconds":
        return ""  # one pass an arm cannot tell a faster arm from a quieter machine
    return "better" if (ci[0] > 0) == words.metric_words(metric).more_is_better else "worse"


def _compared(comparison: Comparison | None, levels: bool = False) -> Entry:
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


def _cell(metric: str, cell: CellSummary | None, tone: str = "", heat: bool = False) -> Entry:
    if cell is None:
        return Entry(words.MISSING, hint="not applicable or not measured", tone=tone)
    interval = words.level_interval(metric, cell.low, cell.high)
    hint = f"95 % interval {interval}; {words.plural(cell.n, 'answer')} to {words.plural(cell.clusters, 'problem')}"
    cut = cell.outcomes.get("truncated", 0.0) if metric == "accuracy" else 0.0
    small = f"{interval}; {words.share(cut)} truncated" if cut > TRUNCATION_NOTICE else interval
    text = words.level(metric, cell.mean)
    return Entry(text, _raw(cell.mean), small, hint, tone or ("warn" if cut > TRUNCATION_NOTICE else ""), cell.mean if heat else None)


def _level(metric: str, value: float | None) -> Entry:
    return Entry(words.level(metric, value), _raw(value))


def _raw(value: float | None) -> str:
    return f"{value:.6g}" if isinstance(value, float) and words.known(value) else str(value) if words.known(value) else ""
