"""What only a CUDA device can show: the slots against generate, and training, evaluation and failures in real worker processes.

Models are tiny, of random weights or the embedded one, so nearly all of the time is compilation: every training process is started at once.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from test_train import experiment, kill_at

from bench.catalog import SUITES
from bench.executors import Failure, LocalExecutor
from bench.experiment import Experiment, Model
from bench.fabricate import HUB_SUFFIX, SHAPES, Format, _config, fabricate
from bench.finetune.lora import expected_parameters
from bench.jobs import EvaluateJob, Event, Job, PassSpec, Stop, TrainJob
from bench.models import EMBEDDED
from bench.records import Canary, Phase, Run, Sample, Training

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # of libraries in other versions than those of the lock

LAYOUTS: dict[Format, str] = {"bf16": "bfloat16", "mxfp4": "mxfp4-packed", "bnb-4bit": "nf4-per-expert"}
"""Published layout -> how the experts lie in memory once Unsloth has loaded them on CUDA."""
EVALUATED: tuple[Format, ...] = ("bf16", "bnb-4bit")
RANK, STEPS, SEED = 8, 4, 3407
TOO_LARGE = 16
"""Rank of the arm that runs out of memory."""
ROWS = 28
ITEMS = 2
NO_ROOM = f"""
import bench.finetune.train as train
held, before_step = [], train._Course.before_step
def fill(course, tokens):
    before_step(course, tokens)
    if course.run.rank != {TOO_LARGE} or not course.losses: return
    import torch
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    for size in (2**24, 2**20, 2**16, 2**12):
        try:
            while True: held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError: pass
train._Course.before_step = fill
from bench.worker import main; main()
"""
"""A worker in which one rank, behind its first step, has no more memory than it holds."""


@pytest.fixture(autouse=True, scope="module")
def _on_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


# --- the slots against generate


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[Any, frozenset[int], list[Any]]]:
    """The embedded model on the device in float32, its stop tokens, and 40 questions."""
    import torch
    from test_slots import embedded

    model, stop_ids, rows = embedded(40)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # no TF32
    yield copy.deepcopy(model).to("cuda"), stop_ids, rows
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def one_by_one(asked: tuple[Any, frozenset[int], list[Any]]) -> list[tuple[int, ...]]:
    from bench.engines.canary import answer
    from bench.engines.plain import GenerateEngine

    model, stop_ids, rows = asked
    return answer(GenerateEngine(model, stop_ids), rows)


def slot_engine(model: Any, stop_ids: frozenset[int], slots: int, graphed: bool) -> Any:
    from bench.engines.graphs import cuda_graphs
    from bench.engines.slots import SlotEngine

    # transformers' default waits for the host in float32, which cannot be recorded; the other wants memory that only a tiny model leaves
    model.set_experts_implementation("batched_mm" if graphed else "grouped_mm")
    return SlotEngine(model, stop_ids, slots, recorder=cuda_graphs if graphed else None)


@pytest.mark.parametrize("slots", [8, 32])
@pytest.mark.parametrize("graphed", [False, True], ids=["steps", "graphs"])
def test_greedy_answers_of_slots_are_those_of_generate_one_by_one(asked: Any, one_by_one: Any, slots: int, graphed: bool) -> None:
    from bench.engines.canary import answer, differ

    model, stop_ids, rows = asked
    made = answer(slot_engine(model, stop_ids, slots, graphed), rows)
    difference = differ(model, rows, made, one_by_one)
    assert difference.differing == 0, difference
    assert difference.tokens > 10 * len(rows)


def test_sampled_answers_do_not_depend_on_the_number_of_slots_nor_on_graphs(asked: Any) -> None:
    from bench.engines.canary import answer

    model, stop_ids, greedy = asked
    rows = [dataclasses.replace(row, temperature=1.0, seed=number) for number, row in enumerate(greedy)]
    alone = answer(slot_engine(model, stop_ids, 1, graphed=False), rows)
    for slots, graphed in ((8, False), (32, False), (8, True), (32, True)):
        assert answer(slot_engine(model, stop_ids, slots, graphed), rows) == alone, (slots, graphed)
    assert alone != answer(slot_engine(model, stop_ids, 32, graphed=True), greedy)


def test_recording_anew_takes_no_more_memory_than_once(asked: Any) -> None:
    """As every pass of a process does: the peak of a later arm would be another's, too."""
    import torch

    from bench.engines.canary import answer

    model, stop_ids, rows = asked
    held = []
    for _ in range(3):
        answer(slot_engine(model, stop_ids, 32, graphed=True), rows)
        gc.collect()
        held.append(torch.cuda.memory_allocated())
    assert held[2] == held[1] == held[0], held


# --- the processes, all at once


@dataclasses.dataclass
class Heard:
    """What worker processes told, by job."""

    failures: dict[str, Failure] = dataclasses.field(default_factory=dict)
    trainings: dict[str, Training] = dataclasses.field(default_factory=dict)
    passes: dict[str, Phase] = dataclasses.field(default_factory=dict)
    canaries: dict[str, list[Canary]] = dataclasses.field(default_factory=dict)
    answers: dict[str, dict[tuple[str, str, str], str]] = dataclasses.field(default_factory=dict)
    """Completions by job, then by item, language and effort."""

    def hear(self, job: Job, event: Event) -> None:
        if event["event"] == "trained":
            self.trainings[job.name] = Training.from_dict(event["training"])
        elif event["event"] == "phase":
            self.passes[job.name] = Phase.from_dict(event["phase"])
        elif event["event"] == "sample":
            sample = Sample.from_dict(event["sample"])
            self.answers.setdefault(job.name, {})[sample.item_id, sample.language, sample.effort] = sample.completion
        elif event["event"] == "canary":
            self.canaries.setdefault(job.name, []).append(Canary.from_dict(event["canary"]))


def train_job(name: str, asked: Experiment, base: Path, folder: Path) -> TrainJob:
    stop = Stop(arm=name, steps=STEPS, adapter=folder / "adapters" / name, key="k")
    return TrainJob(
        name=name, experiment=asked, base=base, rank=RANK, seed=SEED, stops=(stop,), checkpoints=folder / "checkpoints" / name, key=name
    )


def write_rows(folder: Path) -> Path:
    lines = (SUITES / "stories" / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:ROWS]
    path = folder / "rows.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def train_and_evaluate_layouts(
    folder: Path, layouts: tuple[Format, ...] = tuple(LAYOUTS), evaluated: tuple[Format, ...] = EVALUATED
) -> Heard:
    """A tiny model of each layout, trained on attention and experts side by side; then two of the adapters, loaded back and asked."""
    heard, executor, jobs = Heard(), LocalExecutor(len(layouts), folder / "logs"), {}
    rows = write_rows(folder)
    for layout in layouts:
        base = fabricate("tiny", layout, folder / f"gpt-oss-20b{HUB_SUFFIX[layout]}").folder
        # a byte is a token, so rows are long
        whole = experiment(rows, targets="attention+experts", max_length=2048, gradient_checkpointing="unsloth", optimizer="adamw_8bit")
        model = Model(id=str(base), load_in_4bit=layout == "bnb-4bit", dtype="bfloat16")
        jobs[layout] = train_job(layout, whole.model_copy(update={"model": model}), base, folder)
    heard.failures = executor.run(list(jobs.values()), heard.hear)
    trained = [jobs[layout] for layout in evaluated if layout in heard.trainings]
    heard.failures |= executor.run([evaluate_job("evaluate", job) for job in trained], heard.hear)
    for job in trained:  # in one process: base, the arm, and both again
        turns = [evaluate_job(name, job, is_base="base" in name) for name in ("base", "turn", "base-again", "turn-again")]
        heard.failures |= LocalExecutor(1, folder / "logs").run(turns, heard.hear)
    return heard


def evaluate_job(name: str, trained: TrainJob, *, is_base: bool = False) -> EvaluateJob:
    return EvaluateJob(
        name=f"{name}-{trained.name}",
        experiment=trained.experiment,
        base=trained.base,
        arm="base" if is_base else trained.name,
        adapter=None if is_base else trained.stops[0].adapter,
        passes=(PassSpec(suite="stories", split="dev", languages=("de", "en")),),
        limit=ITEMS,
    )


def run_with_an_arm_too_large(folder: Path) -> Run:
    """The conductor's whole run of base and two ranks, one of which finds no memory, with as many processes as there is work."""
    from bench.meter import read_environment
    from bench.runner import Progress, _conduct, _Conductor, preflight
    from bench.store import RunFolder, load_run

    plan = preflight(experiment(write_rows(folder), ranks=[RANK, TOO_LARGE], steps=[STEPS]))
    with RunFolder.create(folder / "run", plan.experiment, read_environment(folder), "") as opened:
        executor = LocalExecutor(2, folder / "run" / "logs", command=(sys.executable, "-c", NO_ROOM))
        _conduct(_Conductor(plan, opened, executor, Progress(), ITEMS))
    return load_run(folder / "run")


def train_with_an_interruption(folder: Path) -> Heard:
    """The same training as the run's smaller arm, killed once it has told of its third step, and begun again."""
    heard, job = Heard(), train_job("interrupted", experiment(write_rows(folder), checkpoint_steps=1), EMBEDDED, folder)
    kill_at(3, job, folder / "log")
    assert any((job.checkpoints / "checkpoint-2").iterdir()), "a checkpoint of each step"
    heard.failures = LocalExecutor(1, folder / "logs").run([job], heard.hear)
    return heard


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Any]]]:
    works = (train_and_evaluate_layouts, run_with_an_arm_too_large, train_with_an_interruption)
    with ThreadPoolExecutor(len(works)) as pool:
        yield {work.__name__: pool.submit(work, tmp_path_factory.mktemp("work")) for work in works}


@pytest.fixture(scope="module")
def layouts(begun: dict[str, Future[Any]]) -> Heard:
    return begun["train_and_evaluate_layouts"].result()


@pytest.fixture(scope="module")
def run(begun: dict[str, Future[Any]]) -> Run:
    return begun["run_with_an_arm_too_large"].result()


@pytest.fixture(scope="module")
def interrupted(begun: dict[str, Future[Any]]) -> Heard:
    return begun["train_with_an_interruption"].result()


# --- training


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unsloth_trains_every_published_layout_as_it_is(layout: Format, layouts: Heard) -> None:
    assert layouts.failures.get(layout) is None
    record = layouts.trainings[layout]
    assert record.layout == LAYOUTS[layout]
    assert (record.load_report["missing"], record.load_report["mismatched"]) == (0, 0)
    assert record.trainable_by_kind == expected_parameters(_config("tiny"), RANK, "attention+experts")
    assert [point["step"] for point in record.losses] == list(range(1, STEPS + 1))
    # weights of random models say every token alike
    assert record.losses[0]["loss"] == pytest.approx(nats_of_nothing_known(), rel=0.1)
    assert record.gradient_checkpointing == "unsloth"


def nats_of_nothing_known() -> float:
    from math import log

    return log(SHAPES["tiny"]["vocab_size"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_phase_of_training_has_its_energy_and_its_own_peaks(layout: Format, layouts: Heard) -> None:
    phases = {phase["name"]: phase for phase in layouts.trainings[layout].phases}
    assert list(phases) == ["load", "lora", "first_step", "steady", "save"]
    for phase in phases.values():
        assert phase["energy_j"] >= 0
        assert 0 < phase["peak_vram_bytes"] <= phase["peak_reserved_bytes"] < phase["peak_device_bytes"]
    assert phases["first_step"]["energy_j"] > 0
    for name in ("load", "lora", "save"):  # without activations, so a peak that was not reset would show in `save`
        assert phases[name]["peak_vram_bytes"] < phases["steady"]["peak_vram_bytes"]


def test_memory_of_the_process_is_known_where_the_driver_tells_it(layouts: Heard) -> None:
    import torch

    from bench.meter import _Device

    torch.zeros(1, device="cuda")
    device = _Device.current()
    assert device is not None
    if device.process_bytes() is None:
        pytest.skip("needs a CUDA device whose driver tells processes apart: in a container with process ids of its own it does not")
    costs = [phase for record in layouts.trainings.values() for phase in record.phases]
    costs += [dataclasses.asdict(done) for done in layouts.passes.values()]
    assert all(cost["peak_process_bytes"] > cost["peak_reserved_bytes"] for cost in costs)


def test_device_memory_that_is_held_for_less_than_a_look_is_seen() -> None:
    import torch

    from bench.meter import metered

    torch.zeros(1, device="cuda")
    with metered() as reading:
        held = torch.empty(2**30, dtype=torch.uint8, device="cuda")
        del held
        torch.cuda.empty_cache()
    assert reading.peak_reserved_bytes is not None
    assert reading.peak_device_bytes is not None
    assert 2**30 <= reading.peak_reserved_bytes < reading.peak_device_bytes


def test_an_interrupted_training_goes_on_from_its_checkpoint(interrupted: Heard, run: Run) -> None:
    """As the same training without interruption went, within what CUDA's kernels do not repeat."""
    assert interrupted.failures == {}
    record, whole = interrupted.trainings["interrupted"], run.training[f"r{RANK}-s{STEPS}"]
    assert record.resumed_from in (2, 3)
    assert [point["step"] for point in record.losses] == list(range(1, STEPS + 1))
    assert sum(phase["steps"] for phase in record.phases) == STEPS
    assert [point["loss"] for point in record.losses] == pytest.approx([point["loss"] for point in whole.losses], rel=0.05)
    assert record.held_out_loss == pytest.approx(whole.held_out_loss, rel=0.05)


def test_an_arm_without_memory_fails_with_its_peak_and_the_others_go_on(run: Run) -> None:
    large, small = f"r{TOO_LARGE}-s{STEPS}", f"r{RANK}-s{STEPS}"
    assert set(run.failed_arms) == {large}
    assert run.failed_arms[large].startswith("training: out of memory in steady, with ")
    record = run.training[large]
    phases = {phase["name"]: phase for phase in record.phases}
    assert (record.status, len(record.losses)) == ("failed", 1)
    assert phases["first_step"]["wall_s"] > 0
    assert phases["steady"]["wall_s"] is None
    assert 0 < phases["steady"]["peak_vram_bytes"] <= record.peak_vram_bytes
    assert run.training[small].status == "trained"
    assert set(run.samples["arm"]) == {"base", small}
    assert run.finished


# --- evaluation


@pytest.mark.parametrize("layout", EVALUATED)
def test_a_trained_adapter_is_loaded_back_and_asked_in_graphed_slots(layout: Format, layouts: Heard) -> None:
    name = f"evaluate-{layout}"
    assert layouts.failures.get(name) is None
    done = layouts.passes[name]
    assert (done.engine, done.slots, done.halvings) == ("graphed slots", 64, 0)
    assert done.output_tokens > 0
    assert done.energy_j is not None
    assert 0 < done.peak_vram_bytes <= done.peak_reserved_bytes < done.peak_device_bytes
    checks = {"batch", "repeat"} if layout == "bnb-4bit" else {"batch", "repeat", "merge"}
    assert {canary.check for canary in layouts.canaries[name]} == checks
    assert {canary.precision for canary in layouts.canaries[name]} == {"4-bit" if layout == "bnb-4bit" else "bfloat16"}


@pytest.mark.parametrize("layout", EVALUATED)
def test_arms_that_take_turns_in_one_process_answer_as_in_one_of_their_own(layout: Format, layouts: Heard) -> None:
    """In 4-bit on the same weights, which another adapter lay beside before."""
    assert {name: failure for name, failure in layouts.failures.items() if name.endswith(layout)} == {}
    answers = {name.removesuffix(f"-{layout}"): found for name, found in layouts.answers.items() if name.endswith(layout)}
    assert answers["turn"] == answers["turn-again"] == answers["evaluate"]
    assert answers["base"] == answers["base-again"]
    assert layouts.passes[f"base-again-{layout}"].peak_vram_bytes == pytest.approx(
        layouts.passes[f"base-{layout}"].peak_vram_bytes, rel=0.02
    )


def test_every_arm_of_a_run_has_its_canaries(run: Run) -> None:
    """In float32 a fault would have failed the arm; the steps of its experts cannot be recorded."""
    small = f"r{RANK}-s{STEPS}"
    made = {(canary.arm, canary.check) for canary in run.canaries}
    assert made == {(arm, check) for arm in ("base", small) for check in ("batch", "repeat")} | {(small, "merge")}
    assert {(canary.engine, canary.precision) for canary in run.canaries} == {("slots", "float32")}
    assert {phase.engine for phase in run.phases} == {"slots"}
    stored = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    assert len(stored["canaries"]) == len(run.canaries) == 5
    assert run.environment.gpu
