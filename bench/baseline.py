"""What later runs are compared with: an earlier run's scores, without questions and answers, small enough to commit.

    reports/baselines/<experiment>/<hardware>/baseline.json           what it is, and the name and hash of its scores
                                              scores-<hash>.parquet   one row an answer, of base and the gated arm

baseline.json is replaced last and as a whole, so a reader sees the old baseline or the new one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.comparison import compare
from bench.errors import BaselineError
from bench.experiment import Gate
from bench.gate import gated_arm, incomplete, refuse, unfit
from bench.records import SCHEMA, Baseline, CellRecord, Environment, Phase, Run
from bench.store import load_run, slug, write_atomic

if TYPE_CHECKING:
    import pandas as pd

BASELINES = Path("reports") / "baselines"
FILE = "baseline.json"
SCORE_COLUMNS = (
    "arm suite split language effort item_id sample_index outcome score target reasoning_tokens output_tokens latency_s ttft_s "
    "asked_reasoning_language reasoning_language prompt_hash"
).split()
"""What a comparison needs of a sample; its prompt, answer and completion stay in the run folder."""
DECODING = ("max_new_tokens", "temperature", "samples_per_item", "seed")


# Making -------------------------------------------------------------------------------------------------------------------------


def promote(run: Run, reason: str | None = None, root: Path = BASELINES) -> Path:
    """Make a judged run the baseline of its experiment and hardware; the folder written. Raises BaselineError where it must not be."""
    _refuse_unjudged(run)
    baseline = of_run(run)
    if isinstance(baseline, str):
        raise BaselineError(f"{run.folder} cannot become a baseline: {baseline}")
    folder = folder_of(run, root)
    reason = (reason or "").strip() or None
    if (folder / FILE).exists() and reason is None:
        raise BaselineError(f"{folder} holds a baseline already: say with --reason TEXT why it is replaced")
    _write(dataclasses.replace(baseline, reason=reason, promoted_at=datetime.now(UTC).isoformat(timespec="seconds")), folder)
    return folder


def of_run(run: Run) -> Baseline | str:
    """A run as a baseline, or why it cannot be one."""
    arm, confirm = gated_arm(run), run.experiment.confirm
    if confirm is None:
        return "its experiment has no `confirm` block, so no arm is judged"
    if (reason := unfit(run)) is not None or arm is None:
        return reason or "there is no arm to judge"
    if confirm.suite not in run.suite_revisions:
        return f"it does not say which revision of suite {confirm.suite} was asked: an older effortbench recorded it, run it again"
    samples = run.samples[run.samples["arm"].isin(["base", arm])]
    samples = samples[(samples["suite"] == confirm.suite) & (samples["split"] == confirm.split)]
    for effort in run.experiment.evaluate.efforts:
        reason = incomplete(run.cells, samples, ("base", arm), (confirm.suite, confirm.split, effort))
        if reason is not None:
            return reason
    place = (confirm.suite, confirm.split)
    return Baseline(
        experiment=run.experiment.name,
        hardware=run.environment.hardware,
        suite=confirm.suite,
        split=confirm.split,
        suite_revision=run.suite_revisions[confirm.suite],
        arm=arm,
        decoding=_decoding(run),
        cells=tuple(cell for cell in run.cells if cell.arm in ("base", arm) and (cell.suite, cell.split) == place),
        environment=run.environment,
        samples=samples[SCORE_COLUMNS].reset_index(drop=True),
        phases=tuple(phase for phase in run.phases if phase.arm in ("base", arm) and (phase.suite, phase.split) == place),
    )


def folder_of(run: Run, root: Path = BASELINES) -> Path:
    """Where the baseline of the run's experiment and hardware lies."""
    return _folder(run.experiment.name, run.environment.hardware, root)


def _folder(experiment: str, hardware: str, root: Path) -> Path:
    return root / slug(experiment) / slug(hardware)


def _decoding(run: Run) -> dict[str, Any]:
    return run.experiment.evaluate.model_dump(mode="json", include=set(DECODING)) | {"scorer": _scorer(run)}


def _scorer(run: Run) -> str | None:
    """What scores the confirmation data, where the experiment names it."""
    return run.experiment.evaluate.scorer.get(run.experiment.confirm.suite) if run.experiment.confirm else None


def _refuse_unjudged(run: Run) -> None:
    """Raise BaselineError unless the run's gates were judged and are valid.

    A gate against the baseline is invalid before there is one, or after the suite has changed; then the run must be one that this
    gate could be judged against.
    """
    if not run.finished:
        raise BaselineError(f"{run.folder} cannot become a baseline: the run is not finished, continue it with --resume")
    if run.verdict is None or not run.verdict.gates:
        raise BaselineError(f"{run.folder} cannot become a baseline: it has not been judged (effortbench gate {run.folder})")
    gates = {gate.name: gate for gate in run.experiment.gates}
    for verdict in run.verdict.gates:
        if verdict.verdict != "invalid":
            continue
        gate = gates.get(verdict.name)
        reasons: tuple[str, ...] = verdict.reasons
        if gate is not None and gate.against == "baseline":
            reasons = _against_itself(run, gate)
        if reasons:
            raise BaselineError(f"{run.folder} cannot become a baseline: its gate {verdict.name} is invalid ({reasons[0]})")


def _against_itself(run: Run, gate: Gate) -> tuple[str, ...]:
    """Why this gate could not be judged even against the run's own scores; empty where it could."""
    baseline = of_run(run)
    if isinstance(baseline, str):
        return (baseline,)
    after = baseline.samples[baseline.samples["arm"] == baseline.arm]
    where = {"suite": baseline.suite, "split": baseline.split, "effort": gate.effort}
    comparison = compare(after.assign(arm="baseline"), after, **where, metric=gate.metric)
    return comparison.invalid_because or refuse(comparison, gate)


def _write(baseline: Baseline, folder: Path) -> None:
    scores = baseline.samples.to_parquet(index=False, compression="zstd")
    digest = hashlib.sha256(scores).hexdigest()
    name = f"scores-{digest[:12]}.parquet"
    older = _scores_name(folder)
    state = {
        "schema": SCHEMA,
        **{key: getattr(baseline, key) for key in ("experiment", "hardware", "suite", "split", "suite_revision", "arm", "reason")},
        "git_commit": baseline.environment.git_commit,
        "promoted_at": baseline.promoted_at,
        "scores": {"file": name, "sha256": digest, "rows": len(baseline.samples)},
        "decoding": baseline.decoding,
        "environment": dataclasses.asdict(baseline.environment),
        "phases": [dataclasses.asdict(phase) for phase in baseline.phases],
        "cells": [dataclasses.asdict(cell) for cell in baseline.cells],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}.tmp"
        temporary.write_bytes(scores)
        temporary.replace(folder / name)
        write_atomic(folder / FILE, json.dumps(state, ensure_ascii=False, indent=1) + "\n")
        if older is not None and older != name:
            (folder / older).unlink(missing_ok=True)
    except OSError as error:
        raise BaselineError(f"{folder} cannot be written: {error.strerror or error}") from error


def _scores_name(folder: Path) -> str | None:
    """Name of the scores of the baseline that is there; None where there is none, or it is damaged."""
    try:
        name = json.loads((folder / FILE).read_text(encoding="utf-8"))["scores"]["file"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return name if _is_scores_name(name) else None


def _is_scores_name(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name and name.startswith("scores-") and name.endswith(".parquet")


# Finding ------------------------------------------------------------------------------------------------------------------------


def find_baseline(run: Run, given: Path | None = None, root: Path = BASELINES) -> Baseline | str | None:
    """The given baseline or run folder, else the committed one; in words why that cannot be used; None where none was committed.

    Raises BaselineError where the given path is neither, RunFolderError where it is a run folder that cannot be read.
    """
    folder = given or folder_of(run, root)
    if given is None and not (folder / FILE).exists():
        return None
    if given is not None:
        check_path(given)
    if not (folder / FILE).exists():
        baseline = of_run(load_run(folder))
        return f"{folder} cannot be a baseline: {baseline}" if isinstance(baseline, str) else baseline
    try:
        return read_baseline(folder)
    except BaselineError as error:
        return str(error)


def check_path(path: Path) -> None:
    """Raise BaselineError unless the path looks like a baseline or a run folder."""
    if not (path / FILE).is_file() and not (path / "run.json").is_file():
        raise BaselineError(f"{path} is neither a baseline nor a run folder: it has no {FILE} and no run.json")


def no_baseline(run: Run, root: Path = BASELINES) -> str:
    """Why a gate against the baseline is invalid where there is none."""
    return _no_baseline(run.experiment.name, run.environment.hardware, root)


def no_baseline_yet(experiment: str, hardware: str, root: Path = BASELINES) -> str | None:
    """The same before a run; None where one was committed."""
    is_there = (_folder(experiment, hardware, root) / FILE).exists()
    return None if is_there else _no_baseline(experiment, hardware, root)


def _no_baseline(experiment: str, hardware: str, root: Path) -> str:
    make = f"`effortbench baseline promote RUN` makes {_folder(experiment, hardware, root)}"
    return f"no baseline for {experiment} on {hardware}: {make}, or pass --baseline DIR"


def read_baseline(folder: Path) -> Baseline:
    """A baseline folder. Raises BaselineError where anything in it is missing, damaged or of another schema."""
    path = folder / FILE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        schema = state.get("schema")
        if schema != SCHEMA:
            raise BaselineError(f"{path} has schema {schema}, this effortbench reads {SCHEMA}")
        samples = _read_scores(folder, state["scores"])
        baseline = Baseline(
            **{key: _text(state, key) for key in ("experiment", "hardware", "suite", "split", "suite_revision", "arm")},
            decoding=dict(state["decoding"]),
            cells=tuple(CellRecord.from_dict(cell) for cell in state["cells"]),
            environment=Environment.from_dict(state["environment"]),
            samples=samples,
            reason=state["reason"],
            promoted_at=state["promoted_at"],
            phases=tuple(Phase.from_dict(phase) for phase in state.get("phases", [])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaselineError(f"{path} is damaged: {type(error).__name__} {error}") from error
    if baseline.hardware != baseline.environment.hardware:
        raise BaselineError(f"{path} is damaged: it is of {baseline.hardware}, and was measured on {baseline.environment.hardware}")
    return baseline


def _text(state: dict[str, Any], key: str) -> str:
    if not isinstance(state[key], str):
        raise ValueError(f"{key} is no text")
    return str(state[key])


def _read_scores(folder: Path, scores: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd
    import pyarrow

    name = scores["file"]
    if not _is_scores_name(name):
        raise BaselineError(f"{folder / FILE} is damaged: it names scores {name!r}")
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise BaselineError(f"{folder / name} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != scores["sha256"]:
        raise BaselineError(f"{folder / name} is damaged: it is not the file that {FILE} describes")
    try:
        samples = pd.read_parquet(BytesIO(data))
    except (OSError, pyarrow.ArrowException) as error:
        raise BaselineError(f"{folder / name} is damaged: {error}") from error
    if list(samples.columns) != SCORE_COLUMNS or len(samples) != scores["rows"]:
        raise BaselineError(f"{folder / name} is damaged: expected {scores['rows']} rows of {', '.join(SCORE_COLUMNS)}")
    return samples


# Comparing ----------------------------------------------------------------------------------------------------------------------


def unlike(run: Run, gate: Gate, baseline: Baseline) -> str | None:
    """Why a run must not be compared with this baseline; None where it may be."""
    confirm = run.experiment.confirm
    assert confirm is not None, "gates without a confirm block pass no validation"
    revision = run.suite_revisions.get(confirm.suite, "an unknown revision")
    pairs = (
        ("experiment", baseline.experiment, run.experiment.name),
        ("hardware", baseline.hardware, run.environment.hardware),
        ("confirmation data", f"{baseline.suite}@{baseline.split}", f"{confirm.suite}@{confirm.split}"),
        (f"suite {confirm.suite}", baseline.suite_revision, revision),
        (f"scorer of {confirm.suite}", baseline.decoding.get("scorer") or "its own", _scorer(run) or "its own"),
    )
    for what, before, after in pairs:
        if before != after:
            return f"the baseline is of another {what}: {before} there, {after} here; promote a run of this one"
    if (difference := _other_decoding(baseline.decoding, _decoding(run), gate.effort)) is not None:
        return f"the baseline was decoded otherwise: {difference}"
    if baseline.environment == run.environment and baseline.arm == gated_arm(run):
        return "the baseline is this very run: it says nothing about itself"
    return incomplete(baseline.cells, baseline.samples, (baseline.arm,), (confirm.suite, confirm.split, gate.effort))


def _other_decoding(before: dict[str, Any], after: dict[str, Any], effort: str) -> str | None:
    for name in DECODING:
        if name == "seed" and after["temperature"] == 0:
            continue
        there, here = (side.get(name) for side in (before, after))
        if name == "max_new_tokens":
            there, here = (limits.get(effort) if isinstance(limits, dict) else None for limits in (there, here))
        if there != here:
            return f"{name} is {there} there and {here} here"
    return None
