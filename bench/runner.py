"""The conductor: check, train, select, confirm, compare. Decides nothing itself; every decision is a pure function elsewhere.

preflight -> train the grid -> all arms on the selection data -> the chosen arm and base on the confirmation data -> comparisons
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench.card import write_cards
from bench.catalog import Hub, Suite, TaskSuite, find_asked, find_suite, suite_names
from bench.errors import ModelError, SuiteError, UsageError
from bench.executors import Failure, LocalExecutor
from bench.experiment import ADAPTER_WEIGHTS, Adapter, Arm, Confirm, Experiment, Extension, Select, Steps, load_experiment
from bench.jobs import EvaluateJob, Event, Job, PassSpec, ProbeJob, Stop, TrainJob
from bench.models import check_adapter, find_model, fingerprint, load_tokenizer
from bench.phases import largest, merge_phases, phase_records
from bench.records import Canary, CellId, CellRecord, MemoryPass, Phase, Retry, Run, Sample, TimingBlock, Training, TrainingPhase
from bench.rows import is_cached
from bench.store import RunFolder, cell_file, load_run, read_samples, slug

RUNS = Path("reports") / "runs"
ENGINE = "slots"


class Progress:
    """Hears how far a run is; this one keeps it to itself."""

    def begin(self, title: str, total: int | None) -> None:
        """A new phase; `total` None while unknown."""

    def set_total(self, total: int) -> None:
        """What the phase will come to."""

    def advance(self, count: int = 1) -> None:
        """So much more is done."""

    def end(self, summary: str) -> None:
        """The phase is over."""

    def warn(self, message: str) -> None:
        """Something the user should see now."""


@dataclass(frozen=True)
class Plan:
    """A checked experiment: everything it names was found."""

    experiment: Experiment
    base: Path
    base_fingerprint: str
    suites: dict[str, Suite]
    training_rows: tuple[Any, ...]
    workers: int


@dataclass
class _Conductor:
    """One run in progress."""

    plan: Plan
    folder: RunFolder
    executor: LocalExecutor
    progress: Progress
    limit: int | None
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Of adapters, by arm."""


def run_experiment(
    experiment: Experiment | str,
    out: Path | None = None,
    *,
    progress: Progress | None = None,
    command: str = "",
    resume: bool = False,
    limit: int | None = None,
    verbose: bool = False,
) -> Run:
    """Run everything the experiment (or the shipped name or YAML path of one) asks for and return its record.

    A failed arm is recorded and the others go on. Raises UsageError before anything is written; `progress` None is silent.
    """
    from bench.meter import read_environment

    if isinstance(experiment, str):
        experiment = load_experiment(experiment)
    plan = preflight(experiment)
    environment = read_environment(Path(__file__).parent)
    path = (out or default_folder(experiment)).absolute()
    goes_on = resume and (path / "run.json").exists()
    opener = RunFolder.reopen if goes_on else RunFolder.create
    with opener(path, experiment, environment, command) as folder:
        executor = LocalExecutor(plan.workers, path / "logs", verbose=verbose)
        conductor = _Conductor(plan, folder, executor, progress or Progress(), limit)
        asked = experiment.evaluate
        folder.data_sources = {name: suite.data_source(asked.data, asked.options) for name, suite in plan.suites.items()}
        folder.suite_revisions = {name: _revision(suite, experiment) for name, suite in plan.suites.items()}
        try:
            _conduct(conductor)
        except UsageError:
            if not goes_on and not any((path / "cells").rglob("*.jsonl")) and not any((path / "adapters").glob("*")):
                shutil.rmtree(path)  # nothing was measured: leave nothing half-written behind
            raise
    done = load_run(path)
    write_cards(done)
    return done


def _revision(suite: Suite, experiment: Experiment) -> str:
    """Of its files and of the local data that it reads."""
    data = suite.data_revision(experiment.evaluate.data)
    return f"{suite.revision}+{data}" if data else suite.revision


def default_folder(experiment: Experiment) -> Path:
    """reports/runs/<experiment>-<UTC time>."""
    return RUNS / f"{experiment.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def preflight(experiment: Experiment) -> Plan:
    """Find everything the experiment names. Raises UsageError on the first thing that is missing."""
    from bench.finetune.data import load_rows, split_rows
    from bench.harmony import render

    base = find_model(experiment.model)
    found = [find_asked(name, experiment.evaluate) for name in experiment.evaluate.suites]
    suites = {suite.name: suite for suite in found}
    for suite in suites.values():
        _check_data(suite, suite.choose_languages(experiment.evaluate.languages), experiment)
    for block in (experiment.select, experiment.confirm):
        if block:
            suites[block.suite].check_split(block.split)
    if experiment.select and experiment.confirm:
        _check_apart(suites, experiment.select, experiment.confirm)
    for adapter in experiment.adapters:
        check_adapter(adapter.path)
        if experiment.gates and experiment.confirm:
            _check_selected_elsewhere(suites, adapter, experiment.confirm)
    rows = load_rows(experiment.finetune.dataset) if experiment.finetune else []
    if experiment.finetune:
        split_rows(rows, experiment.finetune.held_out_rows)
    tokenizer = load_tokenizer(base)
    for effort in experiment.evaluate.efforts:
        render(tokenizer, [{"role": "user", "content": "?"}], effort)
    return Plan(experiment, base, fingerprint(base), suites, tuple(rows), _workers(experiment))


def _check_apart(suites: dict[str, Suite], select: Select, confirm: Confirm) -> None:
    """Raise SuiteError where two suites, or two names of a split, lead to the same rows."""
    if _is_same_data(suites[select.suite], select.split, suites[confirm.suite], confirm.split):
        raise SuiteError(
            f"select ({select.suite}@{select.split}) and confirm ({confirm.suite}@{confirm.split}) are the same problems: "
            "an arm must not be judged on the data that chose it"
        )


def _check_selected_elsewhere(suites: dict[str, Suite], adapter: Adapter, confirm: Confirm) -> None:
    """Raise SuiteError where a finished adapter was chosen on the rows that judge it, under another suite's name."""
    for place in adapter.selected_on:
        name, _, split = place.rpartition("@")
        suite = suites.get(name) or (find_suite(name) if name in suite_names() else None)
        if suite is not None and split in suite.splits and _is_same_data(suite, split, suites[confirm.suite], confirm.split):
            raise SuiteError(
                f"adapter {adapter.name} was selected on {place}, the same problems as {confirm.suite}@{confirm.split}: "
                "an arm must not be judged on the data that chose it"
            )


def _is_same_data(first: Suite, first_split: str, second: Suite, second_split: str) -> bool:
    return not first.origins.isdisjoint(second.origins) and first.splits[first_split] == second.splits[second_split]


def _check_data(suite: Suite, languages: Sequence[str], experiment: Experiment) -> None:
    """Raise SuiteError where a suite's rows are neither in a local folder nor to be had from the hub."""
    suite.check_options(experiment.evaluate.options)
    suite.check_scorer(experiment.evaluate.scorer)
    if isinstance(suite, TaskSuite):  # nobody has looked at such a task before: load it now, and not after hours of training
        from bench.lm import Ask, load_tasks

        for split in suite.splits:
            load_tasks(Ask("base", suite, split, languages, experiment.evaluate))
        return
    if suite.task_files:
        from bench.lm import refuse_fetched_code

        for task in suite.task_files:
            refuse_fetched_code(task)
    if suite.local_files is None:
        return
    folder = suite.data_folder(experiment.evaluate.data)
    missing = [suite.local_file(language) for language in languages if folder is None or suite.find_local(folder, language) is None]
    hub = suite.find_hub(experiment.evaluate.options.get(suite.name, {}))
    if missing and suite.name not in experiment.evaluate.data and hub is not None and os.environ.get("HF_HUB_OFFLINE") == "1":
        missing = [suite.local_file(language) for language in languages if not _is_here(suite, folder, hub, language)]
    if missing and (suite.name in experiment.evaluate.data or os.environ.get("HF_HUB_OFFLINE") == "1"):
        raise SuiteError(
            f"suite {suite.name}: no {', '.join(missing)} in {folder or 'any local folder'}: give a folder that has them "
            f"(evaluate.data.{suite.name}, or EFFORTBENCH_DATA with a folder {suite.data_name}), or let the hub be reached"
        )


def _is_here(suite: Suite, folder: Path | None, hub: Hub, language: str) -> bool:
    """Whether a language's rows can be read offline: from the folder, or from an earlier download of the pinned commit."""
    return (folder is not None and suite.find_local(folder, language) is not None) or is_cached(hub, language)


def _workers(experiment: Experiment) -> int:
    """Processes side by side: one on a GPU, one a core without. Raises ModelError where the model cannot run here."""
    import torch

    if torch.cuda.is_available():
        return 1
    if experiment.model.load_in_4bit:
        raise ModelError(
            "model.load_in_4bit needs a CUDA GPU, and this machine has none: set it to false (with dtype float32 for a small model)"
        )
    return len(os.sched_getaffinity(0))


def _conduct(conductor: _Conductor) -> None:
    from bench.comparison import compare_with_base

    folder, experiment = conductor.folder, conductor.plan.experiment
    _train(conductor)
    arms = [arm for arm in experiment.arms() if arm.name not in folder.failed_arms]
    asked: set[tuple[str, str]] = set()
    if experiment.select:
        asked.add((experiment.select.suite, experiment.select.split))
        _evaluate(conductor, "Selecting", arms, [(experiment.select.suite, experiment.select.split)])
        _choose(conductor)
    finalists = _finalists(conductor)
    places = [(experiment.confirm.suite, experiment.confirm.split)] if experiment.confirm else []
    decided = {block.suite for block in (experiment.select, experiment.confirm) if block}
    places += [(name, suite.default_split) for name, suite in conductor.plan.suites.items() if name not in decided]
    if places := [place for place in places if place not in asked]:
        _evaluate(conductor, "Confirming" if experiment.confirm else "Evaluating", finalists, places)
    folder.forget_unasked()
    if experiment.confirm and experiment.gates:
        confirmed = (experiment.confirm.suite, experiment.confirm.split)
        _extend(conductor, finalists, confirmed)
    _measure(conductor, finalists, [*places, *asked][0])
    samples = read_samples(folder.path, folder.asked)
    folder.comparisons = compare_with_base(samples)
    folder.finish()


def _finalists(conductor: _Conductor) -> list[Arm]:
    """Base and the arm the selection chose; every arm that lives, where nothing was selected."""
    alive = [arm for arm in conductor.plan.experiment.arms() if arm.name not in conductor.folder.failed_arms]
    selection = conductor.folder.selection
    if conductor.plan.experiment.select is None:
        return alive
    return [arm for arm in alive if arm.kind == "base" or (selection and arm.name == selection.chosen)]


def _run_jobs(
    conductor: _Conductor, jobs: Sequence[Job], on_event: Callable[[Job, Event], None], again: Callable[[Job], Job | None]
) -> dict[str, Failure]:
    """Run jobs and return the failures by name. One whose process died, hung, or had done others is tried once more, on what was left.

    `again` makes that job from what was recorded; None where nothing was left to do.
    """
    failures = conductor.executor.run(jobs, on_event)
    for job in jobs:
        first = failures.get(job.name)
        if first is None or not first.may_differ:
            continue
        conductor.folder.add_retry(Retry(job.name, first.reason))
        conductor.progress.warn(f"{job.name}: {first.reason}; trying once more")
        del failures[job.name]
        left = again(job)
        if left is None:
            continue
        # alone: what died of too little memory may find more; under another name, for both logs are kept
        second = left.model_copy(update={"name": f"{job.name}-again"})
        for failure in conductor.executor.run([second], partial(_hear_as, job, on_event)).values():
            failures[job.name] = replace(failure, reason=f"tried twice; first: {first.reason}; then: {failure.reason}")
    return failures


def _hear_as(first: Job, on_event: Callable[[Job, Event], None], _: Job, event: Event) -> None:
    on_event(first, event)


# --- training


def _train(conductor: _Conductor) -> None:
    jobs = [job for job in _training_jobs(conductor) if job.stops]
    if not jobs:
        return
    finetune = conductor.plan.experiment.finetune
    assert finetune is not None
    rows = len(conductor.plan.training_rows) - finetune.held_out_rows
    conductor.progress.begin("Training", sum(max(finetune.count_steps(stop.steps, rows) for stop in job.stops) for job in jobs))
    records = {job.name: _Unfinished(conductor, job) for job in jobs}

    def on_event(job: Job, event: Event) -> None:
        if event["event"] == "step":
            conductor.progress.advance()
            records[job.name].losses.append({name: event[name] for name in ("step", "loss", "learning_rate")})
        elif event["event"] == "training_phase":
            records[job.name].add_phase(TrainingPhase.from_dict(event["phase"]))
        elif event["event"] == "training_known":
            records[job.name].learn(Training.from_dict(event["training"]))
        elif event["event"] == "trained":
            records[job.name].end(Training.from_dict(event["training"]))

    def again(job: Job) -> Job | None:
        left = next((left for left in _training_jobs(conductor) if left.name == job.name and left.stops), None)
        if left is not None:
            records[job.name].begin_again(left)
        return left

    failures = _run_jobs(conductor, jobs, on_event, again)
    for job in jobs:
        if job.name in failures:
            for arm in records[job.name].fail(failures[job.name].reason):
                _fail(conductor, arm, f"training: {failures[job.name].reason}")
    trained = sum(len(record.trained) for record in records.values())
    conductor.progress.end(f"{trained} arms trained in {len(jobs)} runs")


class _Unfinished:
    """A training run as far as it is known: arms without an end have a record that says so, and what their run has cost until then."""

    def __init__(self, conductor: _Conductor, job: TrainJob):
        self.folder, self.job = conductor.folder, job
        self.losses: list[dict[str, float]] = []
        self.phases: list[TrainingPhase] = []
        self.trained: set[str] = set()
        self.known: Training | None = None

    def begin_again(self, left: TrainJob) -> None:
        """Its process died; a checkpoint tells the steps and phases before it anew."""
        self.job = left
        self.losses.clear()
        self.phases.clear()

    def add_phase(self, phase: TrainingPhase) -> None:
        self.phases.append(phase)
        self.fail("training has not ended")

    def learn(self, known: Training) -> None:
        self.known = known
        self.fail("training has not ended")

    def end(self, training: Training) -> None:
        self.trained.add(training.arm)
        self.folder.save_training(training)

    def fail(self, reason: str) -> list[str]:
        """Record the arms that have no end yet as failed; returns their names."""
        left = [stop for stop in self.job.stops if stop.arm not in self.trained]
        for stop in left:
            self.folder.save_training(unfinished_training(self.job, stop, reason, self.phases, self.losses, self.known))
        return [stop.arm for stop in left]


def unfinished_training(
    job: TrainJob,
    stop: Stop,
    reason: str,
    phases: Sequence[TrainingPhase],
    losses: Sequence[dict[str, float]],
    known: Training | None,
) -> Training:
    """Record of an arm whose training did not reach its last step, with the peaks that were reached; `known` is what its run had told."""
    finetune = job.experiment.finetune
    assert finetune is not None
    whole = merge_phases(phases)
    asked = Training(
        arm=stop.arm,
        status="failed",
        reason=reason,
        rank=job.rank,
        steps=0,
        seed=job.seed,
        alpha=finetune.lora_alpha(job.rank),
        method=job.method,
        trainable_parameters=None,
    )
    return replace(
        known or asked,
        arm=stop.arm,
        status="failed",
        reason=reason,
        steps=stop.steps if isinstance(stop.steps, int) else len(losses),
        losses=list(losses),
        peak_vram_bytes=largest(phase.peak_vram_bytes for phase in whole),
        peak_reserved_bytes=largest(phase.peak_reserved_bytes for phase in whole),
        peak_rss_bytes=largest(phase.peak_rss_bytes for phase in whole),
        phases=phase_records(whole),
        key=stop.key,
    )


def _training_jobs(conductor: _Conductor) -> list[TrainJob]:
    """One job a training run; arms whose training is already done under the same key are left out."""
    from bench.finetune.data import recipe_key

    plan, finetune = conductor.plan, conductor.plan.experiment.finetune
    if finetune is None:
        return []
    model = {
        "fingerprint": plan.base_fingerprint,
        **plan.experiment.model.model_dump(mode="json", include={"load_in_4bit", "dtype"}),
    }
    runs: dict[tuple[Any, ...], list[Stop]] = {}
    served: dict[tuple[Any, ...], dict[str, Steps]] = {}
    for arm in plan.experiment.arms():
        if arm.rank is None or arm.steps is None or arm.seed is None or arm.method is None:
            continue
        key = recipe_key(finetune, arm.rank, arm.steps, arm.seed, model, plan.training_rows, arm.method)
        run = (arm.method, arm.rank, arm.seed, arm.steps if finetune.schedule_needs_last_step else None)
        stops = runs.setdefault(run, [])
        served.setdefault(run, {})[arm.name] = arm.steps
        if conductor.folder.find_training(arm.name, key) is None:
            stops.append(Stop(arm=arm.name, steps=arm.steps, adapter=conductor.folder.adapter(arm.name), key=key))
    return [
        TrainJob(
            name=(name := f"train-{'-'.join(str(part) for part in run if part is not None)}"),
            experiment=plan.experiment,
            base=plan.base,
            method=run[0],
            rank=run[1],
            seed=run[2],
            stops=tuple(stops),
            arms=served[run],
            checkpoints=conductor.folder.checkpoints(name),
            key=recipe_key(finetune, run[1], run[3], run[2], model, plan.training_rows, run[0]),
        )
        for run, stops in runs.items()
    ]


# --- evaluation


def _evaluate(
    conductor: _Conductor, title: str, arms: Iterable[Arm], places: Sequence[tuple[str, str]], extension: Extension | None = None
) -> None:
    """Ask every arm every place (suite, split), one process an arm."""
    asked = list(arms)
    jobs = [job for arm in asked if (job := _evaluation_job(conductor, arm, places, extension)) is not None]
    if not jobs:
        return
    conductor.progress.begin(title, None)
    already = {job.name: sum(len(spec.done) for spec in job.passes) for job in jobs}
    planned: Counter[str] = Counter()
    answers = 0

    def on_event(job: Job, event: Event) -> None:
        nonlocal answers
        if event["event"] == "plan":
            planned[job.name] += sum(count for *_, count in event["cells"])
            conductor.folder.plan_cells({CellId(*cell): count for *cell, count in event["cells"]})
            # the arms that have not started yet are asked the same questions
            expected = planned.total() * len(jobs) // len(planned)
            conductor.progress.set_total(max(answers, expected - sum(already.values())))
        elif event["event"] == "prompt":
            conductor.folder.add_prompt(event["prompt_hash"], event["prompt"])
        elif event["event"] == "sample":
            conductor.folder.add_sample(Sample.from_dict(event["sample"]))
            answers += 1
            conductor.progress.advance()
        elif event["event"] == "canary":
            conductor.folder.add_canary(Canary.from_dict(event["canary"]))
        elif event["event"] == "phase":
            conductor.folder.add_phase(Phase.from_dict(event["phase"]))

    def again(job: Job) -> Job | None:
        assert isinstance(job, EvaluateJob)
        planned[job.name] = 0
        return next(_evaluation_job(conductor, arm, places, extension) for arm in asked if arm.name == job.arm)

    failures = _run_jobs(conductor, jobs, on_event, again)
    for job in jobs:
        if job.name in failures:
            _fail_evaluation(conductor, job, failures[job.name])
    conductor.progress.end(f"{answers:,} answers from {len(jobs)} arms")


def _evaluation_job(
    conductor: _Conductor, arm: Arm, places: Sequence[tuple[str, str]], extension: Extension | None = None
) -> EvaluateJob | None:
    """None where all its cells are complete under the same keys; an extension asks the same cells for more samples."""
    plan = conductor.plan
    adapter = _adapter(conductor, arm)
    if adapter is not None:
        conductor.fingerprints[arm.name] = fingerprint(adapter)
        conductor.folder.adapter_bytes[arm.name] = (adapter / ADAPTER_WEIGHTS).stat().st_size
    experiment = _extended(plan.experiment, extension) if extension else plan.experiment
    passes, titles = [], []
    for suite_name, split in places:
        suite = plan.suites[suite_name]
        languages = suite.choose_languages(plan.experiment.evaluate.languages)
        efforts = experiment.evaluate.efforts
        records = [_cell_record(conductor, arm, suite, split, code, effort) for code in languages for effort in efforts]
        done = conductor.folder.open_cells(records)
        is_extended = any(sample.sample_index >= plan.experiment.evaluate.samples_per_item for sample in done)
        if not conductor.folder.are_complete(records, done) or (extension and not is_extended):
            kept = tuple(json.loads(sample.to_json()) for sample in done)
            passes.append(PassSpec(suite=suite.source, split=split, languages=tuple(languages), done=kept))
            titles.append(f"{slug(suite.name)}@{split}")
    if not passes:
        return None
    title = "-".join(titles)
    return EvaluateJob(
        name=f"{'extend' if extension else 'evaluate'}-{arm.name}-{title}",
        experiment=experiment,
        base=plan.base,
        arm=arm.name,
        adapter=adapter.absolute() if adapter else None,
        passes=tuple(passes),
        limit=conductor.limit,
    )


def _adapter(conductor: _Conductor, arm: Arm) -> Path | None:
    return arm.adapter or (conductor.folder.adapter(arm.name) if arm.kind == "trained" else None)


def _cell_record(conductor: _Conductor, arm: Arm, suite: Suite, split: str, language: str, effort: str) -> CellRecord:
    cell = CellId(arm.name, suite.name, split, language, effort)
    key = cell_key(conductor.plan, suite, effort, conductor.fingerprints.get(arm.name), conductor.limit)
    return CellRecord(*cell, key=key, samples=None, file=cell_file(cell))


def cell_key(plan: Plan, suite: Suite, effort: str, adapter: str | None, limit: int | None) -> str:
    """Hash of all that can change a score, 16 hex digits: weights, adapter, template, effort, decoding, suite, engine, dtype."""
    evaluate, model = plan.experiment.evaluate, plan.experiment.model
    parts = {
        "base": plan.base_fingerprint,
        "adapter": adapter,
        "effort": effort,
        "max_new_tokens": evaluate.max_new_tokens[effort],  # type: ignore[index]
        "temperature": evaluate.temperature,
        "samples_per_item": evaluate.samples_per_item,
        "seed": evaluate.seed if evaluate.temperature > 0 else None,
        "suite": suite.revision,
        "data": suite.data_revision(evaluate.data),
        "options": evaluate.options.get(suite.name),
        "scorer": evaluate.scorer.get(suite.name),
        "limit": limit,
        "engine": ENGINE,
        "dtype": model.dtype,
        "load_in_4bit": model.load_in_4bit,
    }
    if plan.experiment.extension:  # another extension, or none, is another design: its answers are asked anew
        parts["extension"] = plan.experiment.extension.samples
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _fail_evaluation(conductor: _Conductor, job: EvaluateJob, failure: Failure) -> None:
    """Record it; but where base cannot even be asked, for a reason the user can mend, the whole run is a usage error."""
    if job.arm == "base" and failure.exit_code == UsageError.exit_code:
        raise UsageError(failure.reason)
    _fail(conductor, job.arm, f"evaluation: {failure.reason}")


def _fail(conductor: _Conductor, arm: str, reason: str) -> None:
    conductor.folder.failed_arms[arm] = reason
    conductor.folder.save()
    conductor.progress.warn(f"arm {arm} failed: {reason}")


# --- after the confirmation


def _extend(conductor: _Conductor, finalists: Sequence[Arm], place: tuple[str, str]) -> None:
    """Look once; where the answers cannot tell, ask for the declared further samples. The look is recorded before they are asked."""
    from bench.gate import gated_arm
    from bench.judging import first_look, is_to_be_extended, look, looked_at

    folder, extension = conductor.folder, conductor.plan.experiment.extension
    if extension is None:
        folder.looks = []
        return
    run = load_run(folder.path)
    if [known.cells for known in folder.looks] != [looked_at(run.cells, gated_arm(run))]:
        folder.looks = [look(run, first_look(run))]
        folder.save()
    if is_to_be_extended(folder.looks[0]):
        alive = [arm for arm in finalists if arm.name not in folder.failed_arms]
        _evaluate(conductor, "Extending", alive, [place], extension)


def _extended(experiment: Experiment, extension: Extension) -> Experiment:
    """What is asked in an extension: more samples of every item, at the efforts that are gated."""
    samples = experiment.evaluate.samples_per_item + extension.samples
    return _asking(experiment, samples_per_item=samples, efforts=experiment.extended_efforts)


def _asking(experiment: Experiment, **evaluate: Any) -> Experiment:
    """The same experiment asking otherwise; what it decides is left out, for it is not decided there."""
    asked = experiment.evaluate.model_copy(update=evaluate)
    undecided: dict[str, Any] = {"select": None, "confirm": None, "gates": [], "vram": None, "timing": None, "extension": None}
    return experiment.model_copy(update={"evaluate": asked, **undecided})


def _measure(conductor: _Conductor, finalists: Sequence[Arm], place: tuple[str, str]) -> None:
    """Seconds and memory of base and the one arm that was chosen; a run that goes on measures all of it anew."""
    folder = conductor.folder
    folder.timing, folder.memory = [], []
    alive = [arm for arm in finalists if arm.name not in folder.failed_arms]
    if [arm.kind == "base" for arm in alive] == [True, False]:
        _time(conductor, alive[1], place)
        _measure_memory(conductor, alive, place)


def _time(conductor: _Conductor, arm: Arm, place: tuple[str, str]) -> None:
    """Time base and the chosen arm in turn, in one process beside which nothing else runs."""
    plan, folder, timing = conductor.plan, conductor.folder, conductor.plan.experiment.timing
    adapter = _adapter(conductor, arm)
    if timing is None or adapter is None:
        return
    job = ProbeJob(
        name=f"time-{arm.name}",
        experiment=_asking(plan.experiment, samples_per_item=1, efforts=[plan.experiment.timed_effort]),
        base=plan.base,
        arm=arm.name,
        adapter=adapter.absolute(),
        timing=timing,
        asked=_whole(conductor, place),
        limit=conductor.limit,
    )
    conductor.progress.begin("Timing", None)

    def on_event(_: Job, event: Event) -> None:
        if event["event"] == "timing":
            folder.timing.append(TimingBlock.from_dict(event["block"]))
            conductor.progress.advance()

    def again(job: Job) -> Job:
        folder.timing = []
        return job

    failures = _run_jobs(conductor, [job], on_event, again)
    folder.save()
    if job.name in failures:
        conductor.progress.warn(f"timing of {arm.name} failed: {failures[job.name].reason}")
    asked = sum(len(block.items) for block in folder.timing)
    conductor.progress.end(f"{asked:,} requests in {timing.blocks} blocks")


def _whole(conductor: _Conductor, place: tuple[str, str]) -> PassSpec:
    suite = conductor.plan.suites[place[0]]
    return PassSpec(
        suite=suite.source, split=place[1], languages=tuple(suite.choose_languages(conductor.plan.experiment.evaluate.languages))
    )


def _measure_memory(conductor: _Conductor, arms: Sequence[Arm], place: tuple[str, str]) -> None:
    """Measure each arm's peak again, in processes of their own: what one process left behind is no part of another's peak."""
    plan, folder, vram = conductor.plan, conductor.folder, conductor.plan.experiment.vram
    if vram is None or vram.repeats == 1:
        return
    conductor.progress.begin("Measuring memory", vram.repeats * len(arms))
    spec = _whole(conductor, place)
    for repeat, arm in itertools.product(range(vram.repeats), arms):
        adapter = _adapter(conductor, arm)
        job = EvaluateJob(
            name=f"memory-{arm.name}-{repeat}",
            experiment=_asking(plan.experiment, samples_per_item=1),
            base=plan.base,
            arm=arm.name,
            adapter=adapter.absolute() if adapter else None,
            passes=(spec,),
            limit=min(vram.items, conductor.limit or vram.items),
            has_canaries=False,  # the passes of the same arm had theirs
        )
        answers: list[Event] = []
        phases: list[Phase] = []

        def on_event(_: Job, event: Event, answers: list[Event] = answers, phases: list[Phase] = phases) -> None:
            if event["event"] == "sample":
                answers.append(event)
            elif event["event"] == "phase":
                phases.append(Phase.from_dict(event["phase"]))

        def again(job: Job, answers: list[Event] = answers, phases: list[Phase] = phases) -> Job:
            answers.clear()
            phases.clear()
            return job

        failures = _run_jobs(conductor, [job], on_event, again)
        if job.name in failures or not phases:
            conductor.progress.warn(f"memory of {arm.name} was not measured: {failures[job.name].reason if failures else 'no answers'}")
            return
        peaks = (phases[0].peak_vram_bytes, phases[0].peak_reserved_bytes)
        folder.memory.append(MemoryPass(repeat, arm.name, len(answers), *peaks))
        folder.save()
        conductor.progress.advance()
    conductor.progress.end(f"{vram.repeats} processes an arm")


# --- decisions


def _choose(conductor: _Conductor) -> None:
    from bench.gate import select_arm

    folder, select = conductor.folder, conductor.plan.experiment.select
    assert select is not None
    samples = read_samples(folder.path, folder.asked)
    names = [arm.name for arm in conductor.plan.experiment.arms()]
    folder.selection = select_arm(samples, select, names, folder.failed_arms)
    folder.save()
