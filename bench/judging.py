"""A run -> its verdict: each gate of the experiment on the confirmation data, in their order, then memory. Reads nothing from disk.

Which comparison a gate is about is decided here; what the comparison says is decided in gate.py, language_guard.py and costs.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.baseline import no_baseline, unlike
from bench.comparison import compare, compare_languages
from bench.costs import judge_blocks, judge_ratio, judge_vram
from bench.experiment import Gate
from bench.gate import gated_arm, in_order, incomplete, judge, missing, run_verdict, unfit
from bench.language_guard import judge_languages
from bench.records import Baseline, CellId, CellRecord, Look, Run, RunVerdict, Verdict

LOOKS = 2
"""Looks that an `extension` permits in all; each has its own one-sided error of 2.5 %, together at most 5 % (union bound)."""


def judge_run(run: Run, baseline: Baseline | str | None = None) -> RunVerdict:
    """The verdict on a whole run. `baseline` None: none was committed; in words: why the one there is cannot be used."""
    reason = _unlooked(run)
    judged = [_judge(run, gate, baseline, reason) for gate in run.experiment.gates]
    verdicts = in_order(judged, run.experiment.gates)
    if run.experiment.vram is not None:
        verdicts.append(_judge_vram(run))
    return run_verdict(replace(verdict, evidence={**verdict.evidence, **_circumstances(run)}) for verdict in verdicts)


def first_look(run: Run) -> RunVerdict:
    """The verdict on the samples that every run gets, before any extension; `run` need not be finished."""
    samples = run.experiment.evaluate.samples_per_item
    early = run.samples[run.samples["sample_index"] < samples]
    extended = run.samples.loc[run.samples["sample_index"] >= samples, list(CellId._fields)].drop_duplicates()
    cells = tuple(_unextended(cell, run) for cell in run.cells) if len(extended) else run.cells
    seen = replace(run, finished=True, samples=early, cells=cells, looks=(Look(samples, "inconclusive", {}, ""),))
    return judge_run(seen)


def _unextended(cell: CellRecord, run: Run) -> CellRecord:
    """What was planned for a cell before it was extended; another arm's new answers may be looked at beside it."""
    samples, extension = run.experiment.evaluate.samples_per_item, run.experiment.extension
    here = run.samples[(run.samples[list(CellId._fields)] == list(cell.id)).all(axis=1)]
    if extension is None or cell.samples is None or not (here["sample_index"] >= samples).any():
        return cell
    return replace(cell, samples=cell.samples * samples // (samples + extension.samples))


def is_to_be_extended(first: Look) -> bool:
    """Only where the data could not tell. A fail or an invalid run is not asked again, and a pass needs no more."""
    return first.verdict == "inconclusive"


def look(run: Run, verdict: RunVerdict) -> Look:
    """The record of a first look."""
    gates = {gate.name: gate.verdict for gate in verdict.gates}
    return Look(run.experiment.evaluate.samples_per_item, verdict.verdict, gates, looked_at(run.cells, gated_arm(run)))


def looked_at(cells: Sequence[CellRecord], arm: str | None) -> str:
    """Hash of the keys of base's and the arm's cells: other answers have other keys."""
    keys = sorted(f"{'/'.join(cell.id)} {cell.key}" for cell in cells if cell.arm in ("base", arm))
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]


def _unlooked(run: Run) -> str | None:
    """Why the looks of a run are not those it declared; None where they are."""
    extension = run.experiment.extension
    if extension is None:
        return f"the run was looked at {len(run.looks)} times, and its experiment declares no extension" if run.looks else None
    if not run.looks:
        return "the experiment declares an extension, and the run has no record of a first look: run it again"
    if _is_extended(run) and run.looks[0].verdict != "inconclusive":
        return f"the run was extended though its first look said {run.looks[0].verdict}: only an inconclusive one may be"
    return None


def _judge(run: Run, gate: Gate, baseline: Baseline | str | None, invalid: str | None) -> Verdict:
    confirm = run.experiment.confirm
    assert confirm is not None, "gates without a confirm block pass no validation"
    arm, place = gated_arm(run), (confirm.suite, confirm.split)
    reason = invalid or _why_not(run, gate, arm, baseline)
    if reason is not None:
        is_left_out = gate.against == "baseline" and baseline is None and not gate.needs_baseline
        return missing(gate, arm, reason, suite=confirm.suite, split=confirm.split, is_left_out=is_left_out)
    where: dict[str, Any] = {"suite": confirm.suite, "split": confirm.split, "effort": gate.effort, "metric": gate.metric}
    sides = _sides(run, gate, arm, baseline)
    if gate.metric == "inter_token_s":  # of the probe alone: an answer of the run tells no time between its tokens
        return judge_blocks(arm, run.timing, gate, place, None)
    comparison, looks = compare(*sides, **where), LOOKS if run.experiment.extension else 1
    if gate.type == "language_guard":
        return judge_languages(comparison, compare_languages(*sides, **where), gate, looks)
    if gate.needs_blocks:
        return judge_blocks(arm, run.timing, gate, place, comparison)
    if gate.type == "max_ratio":
        return judge_ratio(comparison, gate, looks)
    return judge(comparison, gate, looks)


def _sides(run: Run, gate: Gate, arm: str | None, baseline: Baseline | str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    after = run.samples[run.samples["arm"] == arm]
    if gate.against == "baseline" and isinstance(baseline, Baseline):
        return baseline.samples[baseline.samples["arm"] == baseline.arm].assign(arm="baseline"), after
    return run.samples[run.samples["arm"] == "base"], after


def _why_not(run: Run, gate: Gate, arm: str | None, baseline: Baseline | str | None) -> str | None:
    """Why nothing can be judged; None where it can."""
    confirm = run.experiment.confirm
    if (reason := unfit(run)) is not None or arm is None or confirm is None:
        return reason or "there is no arm to judge"
    where = (confirm.suite, confirm.split, gate.effort)
    if (reason := incomplete(run.cells, run.samples, ("base", arm), where)) is not None:
        return reason
    if gate.against == "base":
        return None
    if not isinstance(baseline, Baseline):
        return baseline or no_baseline(run)
    return unlike(run, gate, baseline)


def _judge_vram(run: Run) -> Verdict:
    vram = run.experiment.vram
    assert vram is not None, "the experiment has no vram gate"
    verdict = judge_vram(run, gated_arm(run), vram)
    reason = unfit(run)
    return verdict if reason is None else replace(verdict, verdict="invalid", reasons=(reason,))


def _circumstances(run: Run) -> dict[str, Any]:
    """What was tried and looked at before this verdict: it decides nothing, and a reader should know."""
    experiment = run.experiment
    found: dict[str, Any] = {
        "arms_tried": len(experiment.arms()) - 1,
        "looks": len(run.looks) + int(_is_extended(run)) if run.looks else 1,
        "looks_allowed": LOOKS if experiment.extension else 1,
        "training_seeds": len(experiment.finetune.seeds) if experiment.finetune else None,
        "selected_on": f"{run.selection.suite}@{run.selection.split}" if run.selection else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _is_extended(run: Run) -> bool:
    return bool(run.looks) and int(run.samples["sample_index"].max()) >= run.experiment.evaluate.samples_per_item
