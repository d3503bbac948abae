"""Answers -> tables of what they scored: by effort, by language, repeated, and what became of every one."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

from bench.records import OUTCOMES, Run
from bench.repeats import repeat_table
from bench.report import words
from bench.report.cells import Cells, CellSummary
from bench.report.focus import Focus
from bench.report.tables import TRUNCATION_NOTICE, Column, Entry, Table, cell_entry, language_entry, level_entry, once
from bench.stats import MeanEstimate


def by_effort(focus: Focus, cells: Cells, metric: str, title: str, places: Iterable[tuple[str, str]] | None = None) -> Table | None:
    """Arm x effort, over all languages; one block of rows for each suite and split."""
    rows = []
    asked = list(places or focus.data)
    numbers = {place: _problems(focus, cells, metric, place) for place in asked}
    says_numbers = len(asked) > 1 and all(len(found) == 1 for found in numbers.values() if found)
    for suite, split in asked:
        for arm in focus.arms:
            found = [cells.overall(metric, arm, suite, split, effort) for effort in focus.efforts]
            if not any(found):
                continue
            small = words.plural(max(numbers[suite, split]), "problem") if says_numbers else ""
            where = [Entry(f"{suite}@{split}", small=small)] if len(asked) > 1 else []
            tone = "chosen" if arm == focus.chosen else ""
            rows.append((*where, Entry(arm, tone=tone), *(cell_entry(metric, cell) for cell in found)))
    if not rows:
        return None
    data = [Column("data", numeric=False)] if len(asked) > 1 else []
    columns = (*data, Column("arm", numeric=False), *(Column(f"{effort} effort") for effort in focus.efforts))
    data_words = "" if len(asked) > 1 else f"{asked[0][0]}@{asked[0][1]}. "
    note = f"{data_words}{_intervals_note(focus)}" + (_silent_note(focus, cells) if metric == "reasoning_language_fidelity" else "")
    return Table(f"{metric.replace('_', '-')}-by-effort", title, columns, tuple(rows), note, says_numbers=says_numbers)


def _problems(focus: Focus, cells: Cells, metric: str, place: tuple[str, str]) -> set[int]:
    """How many problems the cells of a suite and split hold: one number where all were asked the same."""
    found = [cells.overall(metric, arm, *place, effort) for arm in focus.arms for effort in focus.efforts]
    return {cell.clusters for cell in found if cell}


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
                        language_entry(focus, language),
                        Entry(arm, tone="chosen" if arm == focus.chosen else ""),
                        *(cell_entry(metric, cell, heat=True) for cell in found),
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


def final_languages(run: Run, focus: Focus, cells: Cells) -> Table | None:
    """Language x effort for the compared arms: share of final answers in the question's language, of those that can be told."""
    if "final_language" not in run.samples or run.samples["final_language"].isna().all():
        return None
    rows = []
    for language in focus.languages:
        for arm in focus.compared:
            at = [(arm, focus.suite, focus.split, language, effort) for effort in focus.efforts]
            told = [cells.language("final_language_fidelity", *place) for place in at]
            asked = [cells.language("accuracy", *place) for place in at]
            if any(asked):
                rows.append((language_entry(focus, language), Entry(arm), *map(_final_language, told, asked)))
    columns = (Column("language", numeric=False), Column("arm", numeric=False), *(Column(f"{effort} effort") for effort in focus.efforts))
    note = f"{focus.place}. Of the final answers whose language can be told; small print: the share that is too short to tell."
    return Table("final-language", "Final answers in the question's language", columns, tuple(rows), note) if rows else None


def _final_language(told: CellSummary | None, asked: CellSummary | None) -> Entry:
    """`asked`: all scored answers of the cell."""
    if told is None:
        small, hint = f"{words.share(1.0)} unknown", "no final text is long enough to tell its language"
        return Entry(words.UNKNOWN, small=small, hint=hint) if asked else Entry(words.MISSING)
    unknown = 1 - told.n / asked.n if asked else 0.0
    return dataclasses.replace(cell_entry("final_language_fidelity", told), small=f"{words.share(unknown)} unknown" if unknown else "")


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
    return level_entry("accuracy", estimate.mean, estimate.interval, estimate.clusters) if estimate else Entry(words.MISSING)


def outcomes(run: Run, focus: Focus, cells: Cells) -> Table | None:
    """Outcome shares by arm and effort, on the focused data; truncated ones by the channel in which they were cut."""
    in_final = _cut_in_final(run, focus)
    rows = []
    for arm in focus.compared:
        for effort in focus.efforts:
            cell = cells.overall("accuracy", arm, focus.suite, focus.split, effort)
            if cell is None:
                continue
            entries = [
                cell_entry(f"{outcome}_share", cells.overall(f"{outcome}_share", arm, focus.suite, focus.split, effort))
                for outcome in OUTCOMES
            ]
            truncated, position = cell.outcomes.get("truncated", 0.0), OUTCOMES.index("truncated")
            if truncated:
                final = truncated * in_final.get((arm, effort), 0.0)
                small = f"{words.share(truncated - final)} in analysis, {words.share(final)} in final"
                over = truncated > TRUNCATION_NOTICE
                small, tone = (f"over 2 %: {small}", "warn") if over else (small, "")
                entries[position] = dataclasses.replace(entries[position], small=small, tone=tone)
            rows.append((Entry(arm), Entry(effort), *entries, once(words.count(cell.n), cell.n, is_count=True)))
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
