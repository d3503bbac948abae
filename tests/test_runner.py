"""The whole conductor on a tiny experiment: real training, real generation, child processes, a kill in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fabricated import fabricate_environment

from bench.baseline import of_run
from bench.card import card, find_arm
from bench.catalog import SUITES, find_suite
from bench.executors import LocalExecutor
from bench.experiment import Experiment, parse_experiment
from bench.gate import incomplete
from bench.jobs import TrainJob
from bench.judging import judge_run
from bench.records import EXIT_CODES, Baseline, CellId, Run
from bench.runner import _conduct, _Conductor, _train, _training_jobs, preflight, run_experiment
from bench.store import RunFolder, cell_file, load_run, read_training

pytestmark = pytest.mark.slow

SAMPLE_FIELDS = (
    "arm suite split language effort item_id sample_index seed outcome score answer target prompt_tokens reasoning_tokens final_tokens "
    "output_tokens stop_reason latency_s ttft_s asked_reasoning_language reasoning_language prompt_hash completion error "
    "final_language"
).split()
"""As the run folder's contract names and orders them."""
TIMINGS = ["latency_s", "ttft_s"]
LIMITS = {"low": 24, "medium": 48}
LANGUAGES = ["en", "de"]
ITEMS = 2
ARM = "r4-s2"
PLACES = ("select", "dev")


class Silent:
    """A progress that keeps what it was told."""

    def __init__(self) -> None:
        self.summaries: list[str] = []
        self.warnings: list[str] = []

    def begin(self, title: str, total: int | None) -> None: ...

    def set_total(self, total: int) -> None: ...

    def advance(self, count: int = 1) -> None: ...

    def end(self, summary: str) -> None:
        self.summaries.append(summary)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def base_alone(**evaluate: Any) -> dict[str, Any]:
    """Base, asked the dev split."""
    asked = {"suites": ["stories"], "languages": LANGUAGES, "efforts": list(LIMITS), "max_new_tokens": LIMITS, "slots": 2}
    return {
        "name": "tiny",
        "model": {"id": "embedded", "load_in_4bit": False, "dtype": "float32"},
        "evaluate": {**asked, **evaluate},
    }


def whole(rows: Path, **finetune: Any) -> dict[str, Any]:
    """Base and one arm, selected on one split and judged on another."""
    settings = {
        "dataset": {"id": str(rows)},
        "ranks": [4],
        "steps": [2],
        "targets": "attention",
        "learning_rate": 1e-3,
        "schedule": "constant_with_warmup",
        "gradient_accumulation": 1,
        "gradient_checkpointing": False,
        "held_out_rows": 2,
    }
    return {
        **base_alone(),
        "finetune": {**settings, **finetune},
        "select": {"suite": "stories", "split": "select", "effort": "medium", "subject_to": {"accuracy_drop": 1}},
        "confirm": {"suite": "stories", "split": "dev"},
        "gates": [{"name": "accuracy", "metric": "accuracy", "effort": "medium", "margin": 0.5}],
    }


def experiment(data: dict[str, Any]) -> Experiment:
    return parse_experiment(data, "a test")


def run(data: dict[str, Any], out: Path, *, progress: Silent | None = None, resume: bool = False) -> Run:
    return run_experiment(experiment(data), out, progress=progress or Silent(), resume=resume, limit=ITEMS)


def comparable(run: Run, effort: str = "") -> list[dict[str, Any]]:
    """What must be equal in equal runs: all samples, of one effort if it is named, sorted and without timings."""
    rows = [json.loads(line) for path in run.folder.rglob("cells/*/*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [{name: row[name] for name in row if name not in TIMINGS} for row in rows if effort in ("", row["effort"])]
    return sorted(kept, key=lambda row: [row[name] for name in (*CellId._fields, "item_id", "sample_index")])


def cell_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time of the last change and content, by path."""
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("cells/*/*.jsonl"))}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text(
        "".join((SUITES / "stories" / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:10]), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def finished(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny experiment, run in one go."""
    return run(whole(rows), tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of base alone; tests work on copies."""
    return run(base_alone(), tmp_path_factory.mktemp("base") / "run").folder


@pytest.fixture
def base_run(base_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_folder, tmp_path / "run"))  # copy2: the times of last change come along


# --- a run in one go


def test_a_run_ends_with_the_contracts_files(finished: Run) -> None:
    efforts = [f"{language}.{effort}" for language in LANGUAGES for effort in LIMITS]
    cells = {f"cells/{arm}/stories@{split}.{cell}.jsonl" for arm in ("base", ARM) for split in PLACES for cell in efforts}
    files = {str(path.relative_to(finished.folder)) for path in finished.folder.rglob("*") if path.is_file()}
    files = {path for path in files if not path.startswith(("logs/", "."))}
    adapter = {path for path in files if path.startswith(f"adapters/{ARM}/")}
    assert {f"adapters/{ARM}/adapter_config.json", f"adapters/{ARM}/adapter_model.safetensors"} <= adapter
    assert files - adapter == cells | {"run.json", "prompts.jsonl", "samples.parquet", f"training/{ARM}.json"}
    assert {record.file for record in finished.cells} == cells


def test_every_sample_line_has_the_contracts_fields(finished: Run) -> None:
    prompts = [json.loads(line) for line in (finished.folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    known = {prompt["prompt_hash"] for prompt in prompts}
    for record in finished.cells:
        lines = (finished.folder / record.file).read_text(encoding="utf-8").splitlines()
        assert len(lines) == record.samples == ITEMS
        for line in lines:
            sample = json.loads(line)
            assert list(sample) == SAMPLE_FIELDS
            assert cell_file(CellId(*[sample[name] for name in CellId._fields])) == record.file
            assert sample["prompt_hash"] in known
            assert sample["asked_reasoning_language"] == sample["language"]
            assert sample["output_tokens"] <= LIMITS[sample["effort"]]
    assert len(known) == len(prompts) == ITEMS * len(LANGUAGES) * len(LIMITS) * len(PLACES)
    assert list(finished.samples.columns) == SAMPLE_FIELDS


def test_a_run_records_what_was_chosen_compared_and_spent(finished: Run) -> None:
    assert finished.finished
    assert finished.failed_arms == {}
    assert finished.selection is not None
    assert finished.selection.chosen == ARM
    assert [candidate.arm for candidate in finished.selection.candidates if candidate.eligible] == [ARM]
    assert finished.training[ARM].status == "trained"
    assert finished.training[ARM].steps == 2
    accuracy = [(made.arm, made.against, made.split, made.effort) for made in finished.comparisons if made.metric == "accuracy"]
    assert sorted(accuracy) == sorted((ARM, "base", split, effort) for split in PLACES for effort in LIMITS)
    assert {(phase.arm, phase.split) for phase in finished.phases} == {(arm, split) for arm in ("base", ARM) for split in PLACES}
    for phase in finished.phases:
        made = finished.samples[(finished.samples["arm"] == phase.arm) & (finished.samples["split"] == phase.split)]
        assert (phase.engine, phase.slots, phase.output_tokens) == ("slots", 2, made["output_tokens"].sum())
        assert phase.model_s is not None
        assert 0 < phase.model_s < phase.wall_s


def test_a_run_keeps_its_suites_revision_and_all_it_planned(finished: Run) -> None:
    suite = find_suite("stories")
    assert finished.suite_revisions == {"stories": suite.revision}
    assert incomplete(finished.cells, finished.samples, ("base", ARM), ("stories", "dev", "medium")) is None
    assert isinstance(of_run(finished), Baseline)


def test_arms_and_efforts_have_keys_of_their_own(finished: Run) -> None:
    keys = {(record.arm, record.effort): record.key for record in finished.cells}
    assert len(set(keys.values())) == len(keys) == 4


def test_two_items_are_too_few_for_a_verdict(finished: Run) -> None:
    verdict = judge_run(finished)
    assert (verdict.verdict, verdict.exit_code) == ("invalid", 4)
    assert [(gate.arm, gate.against, gate.split, gate.clusters) for gate in verdict.gates] == [(ARM, "base", "dev", ITEMS)]
    assert verdict.gates[0].reasons == ("2 problems are too few: this gate needs at least 100",)


# --- killed, resumed, changed


def lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("cells/*/*.jsonl"))


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ
    )


@pytest.fixture(scope="module")
def resumed(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, int]:
    """The tiny experiment by the command line, its conductor killed while it selects, then resumed; and the exit code."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "tiny.yaml").write_text(json.dumps(whole(rows)), encoding="utf-8")
    command = ["bench", "tiny.yaml", "--out", "run", "--limit", str(ITEMS)]
    killed = start(command, folder)
    deadline = time.monotonic() + 200
    while not lines(folder) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert 0 < lines(folder) < 2 * ITEMS * len(LANGUAGES) * len(LIMITS)
    again = start([*command, "--resume"], folder)
    output, _ = again.communicate(timeout=200)
    assert again.returncode == EXIT_CODES["invalid"], output.decode()  # as two items are too few for a verdict
    return load_run(folder / "run"), again.returncode


def test_a_killed_run_ends_with_equal_samples(finished: Run, resumed: tuple[Run, int]) -> None:
    """Two runs, each with a training of its own, one of them cut in two: the same answers, nothing lost, nothing twice."""
    run, _ = resumed
    assert comparable(run) == comparable(finished)
    assert lines(run.folder) == len(run.samples) == len(finished.samples)
    assert run.finished
    assert run.selection == finished.selection
    assert run.training[ARM].adapter_sha256 == finished.training[ARM].adapter_sha256


def test_the_command_bench_leaves_verdict_and_report(resumed: tuple[Run, int]) -> None:
    run, exit_code = resumed
    assert run.verdict is not None
    assert (run.verdict, exit_code) == (judge_run(run), run.verdict.exit_code)
    for name in ("verdict.json", "junit.xml", "summary.md", "report/index.html"):
        assert (run.folder / name).stat().st_size > 0, name
    assert list((run.folder / "report").glob("*.png"))


def test_a_finished_run_is_not_asked_again(base_run: Path) -> None:
    before, progress = cell_files(base_run), Silent()
    again = run(base_alone(), base_run, progress=progress, resume=True)
    assert again.finished
    assert cell_files(base_run) == before
    assert progress.summaries == []


def test_a_resumed_run_asks_only_what_is_missing(base_run: Path) -> None:
    samples = comparable(load_run(base_run))
    torn = base_run / cell_file(CellId("base", "stories", "dev", "de", "medium"))
    kept = torn.read_bytes().splitlines(keepends=True)[0]
    torn.write_bytes(kept + b'{"arm": "base", "sui')  # half of the cell, and a line that was being written
    (base_run / cell_file(CellId("base", "stories", "dev", "en", "low"))).unlink()
    before = cell_files(base_run)
    again = run(base_alone(), base_run, resume=True)
    assert comparable(again) == samples
    after = cell_files(base_run)
    assert after[str(torn.relative_to(base_run))][1].startswith(kept)
    assert sorted(path for path, state in after.items() if before.get(path) != state) == [
        "cells/base/stories@dev.de.medium.jsonl",
        "cells/base/stories@dev.en.low.jsonl",
    ]


def test_another_limit_asks_the_cells_of_that_effort_anew(base_run: Path) -> None:
    low, before = comparable(load_run(base_run), "low"), cell_files(base_run)
    again = run(base_alone(max_new_tokens={**LIMITS, "medium": 8}), base_run, resume=True)
    changed = {path for path, state in cell_files(base_run).items() if before[path] != state}
    assert changed == {path for path in before if path.endswith(".medium.jsonl")}
    assert [(row["output_tokens"], row["outcome"]) for row in comparable(again, "medium")] == [(8, "truncated")] * ITEMS * len(LANGUAGES)
    assert comparable(again, "low") == low


# --- failures


def test_an_arm_that_cannot_be_trained_is_recorded_and_invalid(rows: Path, tmp_path: Path) -> None:
    progress = Silent()
    failed = run({**whole(rows, max_length=1), "select": None}, tmp_path / "run", progress=progress)
    assert failed.finished
    assert list(failed.failed_arms) == [ARM]
    assert "no row keeps a token of analysis or final within max_length 1: raise it" in failed.failed_arms[ARM]
    assert failed.training[ARM].status == "failed"
    assert failed.training[ARM].reason in failed.failed_arms[ARM]
    assert len(progress.warnings) == 1
    assert not (failed.folder / "adapters" / ARM).exists()
    assert set(failed.samples["arm"]) == {"base"}
    assert len(failed.samples) == ITEMS * len(LANGUAGES) * len(LIMITS)
    verdict = judge_run(failed)
    assert (verdict.verdict, verdict.exit_code) == ("invalid", 4)
    assert verdict.gates[0].reasons[0].startswith(f"arm {ARM} failed: training: no row keeps")


def test_a_finished_adapter_is_evaluated_without_training_and_its_size_recorded(finished: Run, tmp_path: Path) -> None:
    """The arm of another run, under its own name: the same adapter gives the same answers."""
    adapter = finished.folder / "adapters" / ARM
    done = run({**base_alone(), "adapters": [{"name": "ours", "path": str(adapter)}]}, tmp_path / "run")
    assert done.adapter_bytes == {"ours": (adapter / "adapter_model.safetensors").stat().st_size}
    assert finished.adapter_bytes[ARM] == done.adapter_bytes["ours"] == finished.training[ARM].adapter_bytes
    assert done.training == {}
    assert (adapter / "README.md").read_text(encoding="utf-8") == card(finished, find_arm(finished, ARM), "adapter")
    before = finished.samples[(finished.samples["arm"] == ARM) & (finished.samples["split"] == "dev")]
    after = done.samples[done.samples["arm"] == "ours"]
    assert after["completion"].tolist() == before["completion"].tolist()


# --- a training run that dies


DYING_WORKER = """
import json, os, sys
job = json.load(sys.stdin)
def tell(**event): print(json.dumps(event), flush=True)
if job["kind"] == "evaluate" or job["rank"] == 2:
    sys.exit(3)
tell(event="training_phase", phase={"name": "load", "wall_s": 1.5, "peak_vram_bytes": 100})
known = {"status": "trained", "reason": None, "rank": 4, "steps": 2}
known |= {"seed": 3407, "alpha": 16, "method": "unsloth", "trainable_parameters": 7}
told = {"arm": "", "trainable_by_kind": {"attention": 7}, "layout": "float32", "load_report": {"missing": 0, "unexpected": 3}}
tell(event="training_known", training=known | told)
for step in (1, 2):
    tell(event="step", step=step, loss=1.0, learning_rate=0.5)
tell(event="trained", training=known | {"arm": job["stops"][0]["arm"], "key": job["stops"][0]["key"]})
tell(event="training_phase", phase={"name": "steady", "wall_s": None, "peak_vram_bytes": 900, "peak_rss_bytes": 5})
tell(event="failed", reason="out of memory in steady", exit_code=70)
sys.exit(1)
"""


def test_a_run_that_dies_keeps_what_was_known_and_the_other_arms_go_on(rows: Path, tmp_path: Path) -> None:
    """Two stops of rank 4, the second of which runs out of memory; rank 2 says nothing at all."""
    data = {**base_alone(), "finetune": {**whole(rows)["finetune"], "ranks": [4, 2], "steps": [2, 4]}}
    plan = preflight(experiment(data))
    progress = Silent()
    with RunFolder.create(tmp_path / "run", plan.experiment, fabricate_environment(), "") as folder:
        executor = LocalExecutor(1, tmp_path / "logs", command=(sys.executable, "-c", DYING_WORKER))
        _train(_Conductor(plan, folder, executor, progress, None))
        found = {arm: read_training(folder.path, arm) for arm in ("r4-s2", "r4-s4", "r2-s2", "r2-s4")}
    assert {arm: training.status for arm, training in found.items() if training} == dict.fromkeys(found, "failed") | {"r4-s2": "trained"}
    died = found["r4-s4"]
    assert died is not None
    assert (died.reason, died.peak_vram_bytes, died.peak_rss_bytes) == ("out of memory in steady", 900, 5)
    assert [(phase["name"], phase["wall_s"]) for phase in died.phases] == [("load", 1.5), ("steady", None)]
    assert [point["loss"] for point in died.losses] == [1.0, 1.0]
    assert (died.steps, died.trainable_by_kind, died.layout) == (4, {"attention": 7}, "float32")
    assert died.load_report == {"missing": 0, "unexpected": 3}
    silent = found["r2-s4"]
    assert silent is not None
    assert (silent.rank, silent.layout, silent.trainable_parameters) == (2, None, None)
    assert set(folder.failed_arms) == {"r4-s4", "r2-s2", "r2-s4"}
    assert any("r4-s4 failed: training: out of memory in steady" in warning for warning in progress.warnings)


CRASHING_WORKER = """
import json, os, signal, sys
job = json.loads(text := sys.stdin.read())
import bench.worker, io
sys.stdin = io.StringIO(text)
class Killed:
    def __init__(self, protocol): self.protocol, self.lines = protocol, 0
    def flush(self): self.protocol.flush()
    def write(self, line):
        self.protocol.write(line)
        self.lines += json.loads(line)["event"] in ("sample", "step")
        if self.lines == 2:
            self.protocol.flush()
            print("the driver crashed", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
take = bench.worker._take_stdout
bench.worker._take_stdout = lambda: take() if job["name"].endswith("-again") else Killed(take())
bench.worker.main()
"""


@pytest.mark.faults
def test_a_run_whose_every_process_crashes_once_ends_like_any_other(rows: Path, finished: Run, tmp_path: Path) -> None:
    """Each at its second step or answer: what it had told is not asked again, what it had trained is gone on with."""
    plan = preflight(experiment(whole(rows, checkpoint_steps=1)))
    progress = Silent()
    with RunFolder.create(tmp_path / "run", plan.experiment, fabricate_environment(), "") as folder:
        executor = LocalExecutor(2, folder.path / "logs", command=(sys.executable, "-c", CRASHING_WORKER))
        _conduct(_Conductor(plan, folder, executor, progress, ITEMS))
    done = load_run(tmp_path / "run")
    assert comparable(done) == comparable(finished)
    assert (done.finished, done.failed_arms) == (True, {})
    crashed = {retry.job for retry in done.retries}
    assert crashed == {path.stem for path in folder.path.glob("logs/*.log") if not path.stem.endswith("-again")}
    assert {f"{name}-again" for name in crashed} == {path.stem for path in folder.path.glob("logs/*-again.log")}
    assert all("was ended by SIGSEGV; its log ends: " in retry.reason for retry in done.retries)
    assert len(progress.warnings) == len(done.retries) == 5
    assert done.training[ARM].status == "trained"
    assert done.training[ARM].losses == finished.training[ARM].losses


DYING_ONCE = """
import json, os, sys
job = json.load(sys.stdin)
def tell(**event): print(json.dumps(event), flush=True)
is_first = not job["name"].endswith("-again")
tell(event="training_phase", phase={"name": "load", "wall_s": 1.0 if is_first else 2.0})
known = {"status": "trained", "reason": None, "rank": 4, "seed": 3407, "alpha": 16, "method": "unsloth", "trainable_parameters": 7}
for step, stop in zip((2, 4)[-len(job["stops"]):], job["stops"]):
    tell(event="step", step=step, loss=1.0, learning_rate=0.5)
    told = {"arm": stop["arm"], "key": stop["key"], "steps": step, "shared_run": " ".join(job["arms"])}
    tell(event="trained", training=known | told)
    if is_first: os.kill(os.getpid(), 9)
tell(event="done")
"""


def test_a_training_run_that_is_killed_between_two_stops_is_tried_again_for_the_second_alone(rows: Path, tmp_path: Path) -> None:
    data = {**base_alone(), "finetune": {**whole(rows)["finetune"], "steps": [2, 4]}}
    plan, progress = preflight(experiment(data)), Silent()
    with RunFolder.create(tmp_path / "run", plan.experiment, fabricate_environment(), "") as folder:
        executor = LocalExecutor(1, tmp_path / "logs", command=(sys.executable, "-S", "-c", DYING_ONCE))
        _train(_Conductor(plan, folder, executor, progress, None))
        found = [read_training(folder.path, arm) for arm in ("r4-s2", "r4-s4")]
    assert [(training.status, training.steps) for training in found if training] == [("trained", 2), ("trained", 4)]
    assert {training.shared_run for training in found if training} == {"r4-s2 r4-s4"}  # the second process hears of both
    assert folder.failed_arms == {}
    assert [retry.job for retry in folder.retries] == ["train-unsloth-4-3407"]
    assert progress.summaries == ["2 arms trained in 1 runs"]
    assert (tmp_path / "logs" / "train-unsloth-4-3407-again.log").is_file()


DYING_BASE = """
import json, os, sys
name = json.load(sys.stdin)["arm"]
if name == "base": os.kill(os.getpid(), 9)
sys.exit(3)
"""


def test_what_dies_twice_fails_with_both_reasons_and_what_ends_by_itself_is_not_tried_again(finished: Run, tmp_path: Path) -> None:
    plan = preflight(experiment({**base_alone(), "adapters": [{"name": "ours", "path": str(finished.folder / "adapters" / ARM)}]}))
    with RunFolder.create(tmp_path / "run", plan.experiment, fabricate_environment(), "") as folder:
        executor = LocalExecutor(2, folder.path / "logs", command=(sys.executable, "-S", "-c", DYING_BASE))
        _conduct(_Conductor(plan, folder, executor, Silent(), ITEMS))
    failed = load_run(tmp_path / "run")
    killed = "the process was ended by SIGKILL (out of memory, or killed by hand)"
    assert failed.failed_arms["base"] == f"evaluation: tried twice; first: {killed}; then: {killed}"
    assert failed.failed_arms["ours"] == "evaluation: the process exited with 3"
    assert [retry.job for retry in failed.retries] == ["evaluate-base-stories@dev"]


def jobs(rows: Path, folder: Path, **finetune: Any) -> list[TrainJob]:
    data = {**base_alone(), "finetune": {**whole(rows)["finetune"], "ranks": [4], "steps": [2, 4], **finetune}}
    plan = preflight(experiment(data))
    with RunFolder.create(folder, plan.experiment, fabricate_environment(), "") as made:
        return _training_jobs(_Conductor(plan, made, LocalExecutor(1, folder / "logs"), Silent(), None))


def test_one_run_serves_all_step_counts_only_where_the_schedule_allows(rows: Path, tmp_path: Path) -> None:
    (shared,) = jobs(rows, tmp_path / "a")
    assert [stop.steps for stop in shared.stops] == [2, 4]
    assert [[stop.steps for stop in job.stops] for job in jobs(rows, tmp_path / "b", schedule="linear")] == [[2], [4]]


def test_every_seed_and_method_is_a_run_of_its_own_with_its_own_checkpoints(rows: Path, tmp_path: Path) -> None:
    made = jobs(rows, tmp_path / "a", seeds=[1, 2], method=["unsloth", "trl"])
    assert {(job.method, job.seed) for job in made} == {("unsloth", 1), ("unsloth", 2), ("trl", 1), ("trl", 2)}
    assert len({job.key for job in made}) == len({job.checkpoints for job in made}) == len({job.name for job in made}) == 4
    assert len({stop.key for job in made for stop in job.stops}) == 8


# --- after the confirmation


@pytest.fixture(scope="module")
def extended(rows: Path, finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Sampled answers that cannot tell on the first look, an extension that is declared, and timing blocks."""
    data = whole(rows)
    data["evaluate"] = {**data["evaluate"], "languages": ["en"], "temperature": 1.0}
    data |= {"select": None, "finetune": None, "adapters": [{"name": ARM, "path": str(finished.folder / "adapters" / ARM)}]}
    data["gates"] = [{"name": "accuracy", "metric": "accuracy", "effort": "medium", "margin": 0.5, "min_clusters": 2}]
    latency = {"name": "latency", "metric": "latency_s", "effort": "low", "type": "max_ratio", "margin": 0.5, "min_blocks": 2}
    data["gates"].append({**latency, "required": False})
    data |= {"extension": {"samples": 2}, "timing": {"effort": "low", "blocks": 2, "requests": 2, "concurrency": 2}}
    data["vram"] = {"required": False, "repeats": 2, "items": 1}
    return run_experiment(experiment(data), tmp_path_factory.mktemp("extended") / "run", progress=Silent(), limit=EXTENDED_ITEMS)


EXTENDED_ITEMS = 6


def test_an_inconclusive_run_is_asked_once_for_the_samples_it_declared(extended: Run) -> None:
    assert [look.verdict for look in extended.looks] == ["inconclusive"]
    assert extended.looks[0].gates["accuracy"] == "inconclusive"
    held = extended.samples.groupby(["arm", "effort"])["sample_index"].max().to_dict()
    assert held == {(arm, effort): last for arm in ("base", ARM) for effort, last in (("low", 0), ("medium", 2))}
    assert len(extended.samples) == 2 * EXTENDED_ITEMS * (1 + 3)
    verdict = judge_run(extended)
    accuracy = verdict.gates[0]
    assert (accuracy.clusters, accuracy.evidence["samples_per_item"]) == (EXTENDED_ITEMS, 3)
    assert (accuracy.evidence["looks"], accuracy.evidence["looks_allowed"]) == (2, 2)


def test_the_probe_times_both_arms_on_the_same_requests_in_an_order_that_alternates(extended: Run) -> None:
    order = [(block.block, block.concurrency, block.arm) for block in extended.timing]
    assert order == [(0, 1, "base"), (0, 1, ARM), (0, 2, "base"), (0, 2, ARM), (1, 1, ARM), (1, 1, "base"), (1, 2, ARM), (1, 2, "base")]
    asked = {block.block: (block.items, block.languages) for block in extended.timing}
    assert all((block.items, block.languages) == asked[block.block] for block in extended.timing)
    assert len(set(asked[0][0] + asked[1][0])) == 4
    for block in extended.timing:
        assert (block.effort, block.engine, block.adapter, block.energy_j) == ("low", "slots", "beside", None)
        assert all(0 < first < whole < block.wall_s for first, whole in zip(block.ttft_s, block.latency_s, strict=True))
        assert block.warm_up >= block.concurrency
    latency = judge_run(extended).gates[1]
    assert (latency.type, latency.clusters, latency.required) == ("max_ratio", 2, False)
    assert latency.evidence["ratio"] > 0


def test_requests_timed_one_at_a_time_do_not_overlap(extended: Run) -> None:
    for block in extended.timing:
        overlaps = sum(block.latency_s) > block.wall_s
        assert overlaps == (block.concurrency > 1), block


def test_memory_is_measured_in_processes_of_its_own(extended: Run) -> None:
    assert [(one.repeat, one.arm) for one in extended.memory] == [(0, "base"), (0, ARM), (1, "base"), (1, ARM)]
    assert {one.rows for one in extended.memory} == {2}  # one problem, one language, two efforts
    assert (extended.folder / "logs" / f"memory-{ARM}-1.log").exists()


def test_an_extended_run_that_goes_on_is_not_looked_at_again(extended: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(extended.folder, tmp_path / "run"))
    before, asked = (
        cell_files(folder),
        extended.experiment.model_copy(update={"timing": None, "vram": None, "gates": extended.experiment.gates[:1]}),
    )
    again = run_experiment(asked, folder, progress=Silent(), resume=True, limit=EXTENDED_ITEMS)
    assert cell_files(folder) == before
    assert again.looks == extended.looks
    unlooked = json.loads((folder / "run.json").read_text(encoding="utf-8")) | {"looks": []}
    (folder / "run.json").write_text(json.dumps(unlooked), encoding="utf-8")
    assert judge_run(load_run(folder)).verdict == "invalid"


def test_an_extension_that_was_cut_off_goes_on_to_the_same_samples(extended: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(extended.folder, tmp_path / "run"))
    cell = folder / cell_file(CellId("base", "stories", "dev", "en", "medium"))
    rows = cell.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [row for row in rows if json.loads(row)["sample_index"] == 0]
    cell.write_text("".join([*kept, next(row for row in rows if json.loads(row)["sample_index"] == 2)]), encoding="utf-8")
    asked = extended.experiment.model_copy(update={"timing": None, "vram": None, "gates": extended.experiment.gates[:1]})
    again = run_experiment(asked, folder, progress=Silent(), resume=True, limit=EXTENDED_ITEMS)
    assert again.looks == extended.looks
    assert comparable(again) == comparable(extended)


# --- canaries


def test_every_arm_is_asked_a_few_rows_in_two_ways(finished: Run) -> None:
    made = {(canary.arm, canary.split, canary.check) for canary in finished.canaries}
    assert made == {(arm, split, check) for arm in ("base", ARM) for split in PLACES for check in ("batch", "repeat")} | {
        (ARM, split, "merge") for split in PLACES
    }
    for canary in finished.canaries:
        assert (canary.engine, canary.slots, canary.precision, canary.rows) == ("slots", 2, "float32", 6)
        assert canary.tokens > canary.rows
        assert canary.differing == 0 or canary.max_gap is not None


def test_a_pass_counts_its_right_answers_and_has_no_energy_without_a_counter(finished: Run) -> None:
    for phase in finished.phases:
        made = finished.samples[(finished.samples["arm"] == phase.arm) & (finished.samples["split"] == phase.split)]
        assert phase.correct == (made["outcome"] == "correct").sum()
        assert finished.environment.gpu or (phase.energy_j, phase.joules_per_correct, phase.peak_process_bytes) == (None, None, None)
