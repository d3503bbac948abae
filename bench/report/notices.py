"""A run -> what a reader must not miss beside the verdict: losses nobody gated, cut answers, faults, unfinished work."""

from __future__ import annotations

from collections.abc import Iterator

from bench.records import Run
from bench.report import words
from bench.report.cells import Cells, CellSummary
from bench.report.focus import Focus, find_comparison
from bench.report.tables import TRUNCATION_NOTICE
from bench.sanity import emptied, flat_steps

NEAR_ZERO = 0.05


def notices(run: Run, focus: Focus | None, cells: Cells) -> list[str]:
    """Sentences, the gravest first."""
    return [*_state_of_run(run), *(_what_was_seen(run, focus, cells) if focus else ())]


def _state_of_run(run: Run) -> Iterator[str]:
    if not run.finished:
        yield "This run is not finished: all numbers are of the answers so far."
    for arm, reason in run.failed_arms.items():
        yield f"Arm {arm} failed: {reason}"
    for retry in run.retries:
        yield f"The process {retry.job} ended before its work did and was begun once more: {retry.reason}"
    for suite, scorer in run.experiment.evaluate.scorer.items():
        yield f"Answers of {suite} are scored by its filter {scorer}, which evaluate.scorer names, and not by the suite's first."
    unpinned = [suite for suite, source in run.data_sources.items() if source.endswith(", unpinned")]
    if unpinned:
        yield (
            f"The data of {words.listed(unpinned)} come from the hub at no named commit: another day may bring other rows "
            "(evaluate.options.<suite>.revision pins them)."
        )
    if run.environment.git_dirty:
        yield "The code had uncommitted changes, so the commit alone does not reproduce this run."


def _what_was_seen(run: Run, focus: Focus, cells: Cells) -> Iterator[str]:
    yield from _losses_not_gated(run, focus)
    yield from _near_zero(focus, cells)
    yield from _truncated(focus, cells)
    yield from _emptied(run, focus.reference)
    yield from _effort_without_effect(run)
    faults = int((run.samples["outcome"] == "error").sum())
    if faults:
        yield f"{words.plural(faults, 'answer')} ended in a fault of the machinery and scored nothing: not wrong, but missing."


def _losses_not_gated(run: Run, focus: Focus) -> Iterator[str]:
    gated = {(gate.metric, gate.effort) for gate in run.experiment.gates}
    ending = ", and no gate looks at it." if gated else "."
    for effort in focus.efforts:
        found = find_comparison(run, focus, "accuracy", effort)
        if found is None or found.ci is None or found.ci[1] >= 0 or ("accuracy", effort) in gated:
            continue
        fall = words.change("accuracy", -(found.delta or 0.0)).lstrip("+")
        interval = f"95{words.NBSP}% interval of the change {words.change_interval('accuracy', found.ci)}"
        yield f"Accuracy at {effort} effort fell by {fall} ({interval}){ending}"


def _near_zero(focus: Focus, cells: Cells) -> Iterator[str]:
    means = [cell.mean for _, _, cell in _compared(focus, cells)]
    if means and max(means) < NEAR_ZERO:
        how_much = f"Nearly nothing (at most {words.share(max(means))})" if max(means) else "Nothing"
        yield (
            f"{how_much} on {focus.place} was answered correctly: the model is too weak for these questions, or its answers "
            "cannot be read. Where there is nothing to lose, no loss can be seen."
        )


def _truncated(focus: Focus, cells: Cells) -> Iterator[str]:
    """Every cell is looked at, in one language each: a mean over languages can hide the one that is cut."""
    cut = [
        (cell.outcomes.get("truncated", 0.0), f"{arm}, {suite}@{split}, {language}, {effort} effort")
        for suite, split in focus.data
        for arm in focus.arms
        for language in focus.languages
        for effort in focus.efforts
        if (cell := cells.language("accuracy", arm, suite, split, language, effort))
    ]
    over = [one for one in cut if one[0] > TRUNCATION_NOTICE]
    if over:
        worst, where = max(over)
        yield (
            f"More than {words.share(TRUNCATION_NOTICE, 0)} of the answers were cut at the token limit in {len(over)} of "
            f"{words.plural(len(cut), 'cell')} (most: {words.share(worst)}, {where}). Cut answers score 0."
        )


def _emptied(run: Run, reference: str) -> Iterator[str]:
    risen = emptied(run.comparisons, reference)
    if risen:
        worst = risen[0]
        before, after = words.share(worst.before), words.share(worst.after)
        interval = words.change_interval("empty_analysis", worst.ci)
        yield (
            f"{worst.arm} thinks less often than {worst.against}: its analysis channel is empty in {after} of the answers on "
            f"{worst.suite}@{worst.split} at {worst.effort} effort, {worst.against}'s in {before} (95{words.NBSP}% interval of the "
            f"change {interval}){_elsewhere(len(risen) - 1)}."
        )


def _effort_without_effect(run: Run) -> Iterator[str]:
    flat = flat_steps(run.samples)
    if flat:
        worst = flat[0]
        lower, higher = (words.decimal(side.mean) for side in worst.tokens[:2])
        interval = words.change_interval("output_tokens", worst.tokens.difference.interval)
        yield (
            f"Effort does not show in tokens: {worst.arm} writes {higher} output tokens an answer at {worst.higher} effort on "
            f"{worst.suite}@{worst.split}, and {lower} at {worst.lower} (95{words.NBSP}% interval of the difference {interval})"
            f"{_elsewhere(len(flat) - 1)}."
        )


def _elsewhere(others: int) -> str:
    return f"; the same in {words.plural(others, 'other combination')} of arm, suite and effort" if others else ""


def _compared(focus: Focus, cells: Cells) -> list[tuple[str, str, CellSummary]]:
    found = [
        (arm, effort, cells.overall("accuracy", arm, focus.suite, focus.split, effort))
        for arm in focus.compared
        for effort in focus.efforts
    ]
    return [(arm, effort, cell) for arm, effort, cell in found if cell]
