"""Real training by Unsloth, in the worker's own process, of a few steps on the embedded model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from bench.catalog import SUITES
from bench.executors import WORKER, Failure, LocalExecutor, child_environment
from bench.experiment import Experiment, Method, parse_experiment
from bench.fabricate import fabricate
from bench.finetune import data
from bench.finetune.lora import RESPONSE, expected_parameters
from bench.finetune.train import COMMIT, find_checkpoint, held_out_loss, optimizer_name, save_adapter
from bench.harmony import decoder
from bench.jobs import Event, Job, Stop, TrainJob
from bench.models import EMBEDDED, load_checked, load_tokenizer
from bench.records import Training

DEVICE_READINGS = ("peak_vram_bytes", "peak_reserved_bytes", "peak_process_bytes", "peak_device_bytes", "energy_j")
pytestmark = pytest.mark.slow

ROWS = 28
HELD_OUT = 4
RANK = 4
WITHOUT_UNSLOTH = (sys.executable, "-c", "import sys; sys.modules['unsloth'] = None; from bench.worker import main; main()")
"""A worker in which importing unsloth fails."""


def experiment(rows: Path, **finetune: Any) -> Experiment:
    settings = {
        "dataset": {"id": str(rows)},
        "ranks": [RANK],
        "steps": [2, 4],
        "targets": "attention",
        "effort": "mixed",
        "learning_rate": 1e-3,
        "schedule": "constant_with_warmup",
        "warmup_steps": 1,
        "gradient_accumulation": 2,
        "max_length": 512,
        "gradient_checkpointing": False,
        "held_out_rows": HELD_OUT,
    }
    asked = {
        "name": "few-steps",
        "model": {"id": "embedded", "load_in_4bit": False, "dtype": "float32"},
        "finetune": {**settings, **finetune},
        "evaluate": {"suites": ["stories"], "max_new_tokens": {"low": 8, "medium": 8, "high": 8}},
    }
    return parse_experiment(asked, "a test")


class Trained:
    """What the training runs left: records and steps by run, adapters by arm."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows = folder / "rows.jsonl"
        lines = (SUITES / "stories" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:ROWS]
        self.rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
        jobs = [
            self.job("shared", (2, 4)),
            self.job("short", (2,)),
            self.job("experts", (2,), targets="attention+experts", train_on=["final"]),
            self.job("thoughts", (1,), train_on=["analysis"]),
        ]
        plain = [
            self.job("plain", (2, 4), "trl"),
            self.job("plain-experts", (2,), "trl", targets="attention+experts", train_on=["final"]),
            self.job("plain-thoughts", (1,), "trl", train_on=["analysis"]),
        ]
        self.trainings: dict[str, Training] = {}
        self.steps: dict[str, list[int]] = {job.name: [] for job in jobs + plain}
        self.phases: dict[str, list[str]] = {job.name: [] for job in jobs + plain}
        self.failures = LocalExecutor(2, folder / "logs").run(jobs, self.hear)
        self.failures |= LocalExecutor(2, folder / "logs", command=WITHOUT_UNSLOTH).run(plain, self.hear)

    def job(self, name: str, steps: tuple[int | str, ...], method: Method = "unsloth", **finetune: Any) -> TrainJob:
        stops = tuple(Stop(arm=f"{name}-{step}", steps=step, adapter=self.adapter(f"{name}-{step}"), key="k") for step in steps)
        return TrainJob(
            name=name,
            experiment=experiment(self.rows, **finetune),
            base=EMBEDDED,
            method=method,
            rank=RANK,
            seed=11,
            stops=stops,
            checkpoints=self.folder / "checkpoints" / name,
            key=name,
        )

    def hear(self, job: Job, event: Event) -> None:
        if event["event"] == "step":
            self.steps.setdefault(job.name, []).append(event["step"])
        elif event["event"] == "training_phase":
            self.phases.setdefault(job.name, []).append(event["phase"]["name"])
        elif event["event"] == "trained":
            self.trainings[event["training"]["arm"]] = Training.from_dict(event["training"])

    def adapter(self, arm: str) -> Path:
        return self.folder / "adapters" / arm

    def weights(self, arm: str) -> bytes:
        return (self.adapter(arm) / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    done = Trained(tmp_path_factory.mktemp("trained"))
    assert done.failures == {}
    return done


def supervised(rows: Path, train_on: set[str]) -> dict[str, int]:
    """Tokens with loss as they must be: contents of the channels, and as `format` their headers and ends.

    `<|start|>assistant` itself carries none, and a channel that is trained alone has its header in the marker.
    """
    tokenizer = load_tokenizer(EMBEDDED)
    lessons, _ = data.split_rows([json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()], HELD_OUT)

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    counts: Counter[str] = Counter()
    for text in map(decoder(tokenizer), data.lessons(lessons, tokenizer, "mixed")):
        _, thought, answer = text.split(RESPONSE)
        contents = {"analysis": thought.removesuffix("<|end|>"), "final": answer.removesuffix("<|return|>")}
        contents = {channel: message.removeprefix(f"<|channel|>{channel}<|message|>") for channel, message in contents.items()}
        counts.update({channel: count(contents[channel]) for channel in train_on})
        if train_on == {"analysis", "final"}:
            counts["format"] += count(thought) + count(answer) - sum(map(count, contents.values()))
        else:
            counts["format"] += 1  # the one token that closes the channel
    return dict(counts)


def test_the_record_says_what_was_trained(trained: Trained) -> None:
    short, long = trained.trainings["shared-2"], trained.trainings["shared-4"]
    config = load_checked(EMBEDDED, "float32").config
    for record, steps in ((short, 2), (long, 4)):
        assert (record.status, record.reason, record.rank, record.steps, record.seed, record.method) == (
            "trained",
            None,
            4,
            steps,
            11,
            "unsloth",
        )
        assert [point["step"] for point in record.losses] == list(range(1, steps + 1))
        assert all(0 < point["loss"] < 10 for point in record.losses)
        assert record.trainable_by_kind == expected_parameters(config, RANK, "attention")
        assert record.trainable_parameters == sum(record.trainable_by_kind.values())
        assert (record.rows_kept, record.rows_dropped) == (ROWS - HELD_OUT, 0)
        assert record.held_out_loss is not None
        assert 0 < record.held_out_loss < 10
        assert record.peak_vram_bytes is None
        assert record.peak_rss_bytes is not None
        assert record.peak_rss_bytes > 2**28
        assert (record.key, record.shared_run, record.alpha, record.optimizer) == ("k", "shared-4", 16, "adamw_torch_fused")
        assert record.languages
        assert record.adapter_bytes == len(trained.weights(record.arm))
        assert record.adapter_sha256 == hashlib.sha256(trained.weights(record.arm)).hexdigest()
    assert short.wall_s is not None
    assert long.wall_s is not None
    assert 0 < short.wall_s < long.wall_s
    assert trained.steps["shared"] == [1, 2, 3, 4]
    assert trained.trainings["short-2"].shared_run is None


def test_one_run_gives_at_a_stop_what_a_run_to_that_stop_gives(trained: Trained) -> None:
    """Bit for bit; it is also the proof that the same seed trains the same adapter twice."""
    assert trained.weights("shared-2") == trained.weights("short-2")
    assert trained.weights("shared-2") != trained.weights("shared-4")
    assert trained.trainings["shared-2"].losses == trained.trainings["short-2"].losses
    assert trained.trainings["shared-2"].held_out_loss == trained.trainings["short-2"].held_out_loss


def test_experts_are_reached_where_they_are_asked_for(trained: Trained) -> None:
    record = trained.trainings["experts-2"]
    assert record.trainable_by_kind == expected_parameters(load_checked(EMBEDDED, "float32").config, RANK, "attention+experts")
    assert record.trainable_by_kind["experts"] > record.trainable_by_kind["attention"]


@pytest.mark.parametrize("arm", ["shared-4", "experts-2"])
def test_the_adapter_loads_in_plain_peft_and_changes_the_output(arm: str, trained: Trained) -> None:
    import torch
    from peft import PeftModel

    prompt = torch.tensor([[5, 9, 11, 40, 7]])
    base = load_checked(EMBEDDED, "float32").eval()
    with torch.inference_mode():
        before = base(prompt).logits
        adapted = PeftModel.from_pretrained(base, str(trained.adapter(arm))).eval()
        after = adapted(prompt).logits
        assert not torch.equal(before, after)
        torch.testing.assert_close(adapted.merge_and_unload()(prompt).logits, after, rtol=1e-4, atol=1e-4)
    assert not (trained.adapter(arm) / "adapter_model.bin").exists()


def test_no_token_of_another_channel_is_supervised(trained: Trained) -> None:
    assert trained.trainings["experts-2"].supervised_tokens == supervised(trained.rows, {"final"})
    assert trained.trainings["thoughts-1"].supervised_tokens == supervised(trained.rows, {"analysis"})


def test_both_channels_are_supervised_and_each_row_ends_once(trained: Trained) -> None:
    assert trained.trainings["shared-4"].supervised_tokens == supervised(trained.rows, {"analysis", "final"})


def test_optimizers_of_one_class_name_are_told_apart() -> None:
    import torch
    from bitsandbytes.optim import AdamW
    from transformers.optimization import Adafactor

    weights = [torch.nn.Parameter(torch.zeros(4, 4))]
    found = [
        optimizer_name(optimizer)
        for optimizer in (
            AdamW(weights, optim_bits=8),
            torch.optim.AdamW(weights),
            torch.optim.AdamW(weights, fused=True),
            Adafactor(weights, lr=1e-3, relative_step=False, scale_parameter=False),
        )
    ]
    assert found == ["adamw_8bit", "adamw_torch", "adamw_torch_fused", "adafactor"]


# --- what a run cost


@pytest.mark.parametrize("arm", ["shared-4", "plain-4"])
def test_every_phase_has_its_cost(arm: str, trained: Trained) -> None:
    phases = {phase["name"]: phase for phase in trained.trainings[arm].phases}
    assert list(phases) == ["load", "lora", "first_step", "steady", "save"]
    assert [phase["steps"] for phase in phases.values()] == [0, 0, 1, 3, 0]
    for phase in phases.values():
        assert phase["wall_s"] > 0
        assert phase["peak_rss_bytes"] > 2**28
        assert {phase[name] for name in DEVICE_READINGS} == {None}
    for name in ("first_step", "steady"):
        assert phases[name]["tokens_per_s"] == phases[name]["tokens"] / phases[name]["wall_s"]
        assert 0 < phases[name]["median_step_s"] <= phases[name]["wall_s"]
    assert phases["load"]["tokens"] is phases["save"]["tokens_per_s"] is None


def test_tokens_of_the_steps_are_those_of_the_rows_they_saw(trained: Trained) -> None:
    """Twelve steps of two rows are one pass over the 24 rows; four are a third of it, the same for both trainers."""
    tokenizer = load_tokenizer(EMBEDDED)
    lessons, _ = data.split_rows([json.loads(line) for line in trained.rows.read_text(encoding="utf-8").splitlines()], HELD_OUT)
    whole = sum(map(len, data.lessons(lessons, tokenizer, "mixed")))
    seen = [sum(phase["tokens"] or 0 for phase in trained.trainings[arm].phases) for arm in ("shared-4", "plain-4")]
    assert seen[0] == seen[1]
    assert 0.25 * whole < seen[0] < 0.42 * whole


def test_phases_are_told_as_they_end(trained: Trained) -> None:
    assert trained.phases["shared"] == ["load", "lora", "first_step", "steady", "save", "steady", "save"]


def test_no_checkpoint_outlives_a_finished_run(trained: Trained) -> None:
    assert not list((trained.folder / "checkpoints").glob("*"))


# --- the yardstick


@pytest.mark.parametrize(("ours", "plain"), [("shared-4", "plain-4"), ("experts-2", "plain-experts-2"), ("thoughts-1", "plain-thoughts-1")])
def test_plain_trl_does_the_same_work(ours: str, plain: str, trained: Trained) -> None:
    """Same seed, rows, mask and targets: losses within 1e-6 (1.2e-7 was seen), in a process that cannot import unsloth."""
    one, other = trained.trainings[ours], trained.trainings[plain]
    assert (one.method, other.method) == ("unsloth", "trl")
    assert other.trainable_by_kind == one.trainable_by_kind
    assert other.supervised_tokens == one.supervised_tokens
    assert (other.rows_kept, other.rows_dropped, other.optimizer) == (one.rows_kept, one.rows_dropped, one.optimizer)
    assert [point["learning_rate"] for point in other.losses] == [point["learning_rate"] for point in one.losses]
    assert [point["loss"] for point in other.losses] == pytest.approx([point["loss"] for point in one.losses], abs=1e-6, rel=0)
    assert other.held_out_loss == pytest.approx(one.held_out_loss, abs=1e-6)


def test_the_yardstick_refuses_a_quantized_checkpoint(trained: Trained, tmp_path: Path) -> None:
    config = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))
    base = Path(shutil.copytree(EMBEDDED, tmp_path / "quantized"))
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "mxfp4"}}), encoding="utf-8")
    run = trained.job("quantized", (1,), "trl").model_copy(update={"base": base})
    failures = LocalExecutor(1, tmp_path / "logs").run([run], trained.hear)
    assert failures["quantized"].reason.startswith("method trl trains no mxfp4 checkpoint")


def test_layout_and_load_report_stand_in_the_record(trained: Trained) -> None:
    for arm in ("shared-4", "plain-4"):
        assert trained.trainings[arm].layout == "float32"
        assert trained.trainings[arm].load_report == {"missing": 0, "unexpected": 0, "mismatched": 0}
        assert trained.trainings[arm].gradient_checkpointing == "off"


# --- checkpoints of other layouts


def trained_on(base: Path, trained: Trained, logs: Path, dtype: str) -> tuple[dict[str, Failure], Training | None]:
    """One step by Unsloth on another base model, in a worker of its own: failures, and the arm's record."""
    name = f"{base.name}-{dtype}"
    run = trained.job(name, (1,), max_length=1024)
    model = run.experiment.model.model_copy(update={"id": str(base), "dtype": dtype})
    run = run.model_copy(update={"base": base, "experiment": run.experiment.model_copy(update={"model": model})})
    failures = LocalExecutor(1, logs).run([run], trained.hear)
    return failures, trained.trainings.get(f"{name}-1")


def test_packed_experts_are_unpacked_on_a_cpu_and_train_and_the_record_says_so(trained: Trained, tmp_path: Path) -> None:
    base = fabricate("tiny", "mxfp4", tmp_path / "tiny-mxfp4").folder
    failures, record = trained_on(base, trained, tmp_path / "logs", "bfloat16")
    assert failures == {}
    assert record is not None
    assert (record.status, record.layout, record.load_report) == ("trained", "bfloat16", dict.fromkeys(record.load_report, 0))
    assert record.trainable_by_kind == expected_parameters(load_checked(base, "bfloat16").config, RANK, "attention")


def test_four_bit_experts_that_unsloth_would_leave_random_on_a_cpu_are_refused(trained: Trained, tmp_path: Path) -> None:
    """Unsloth loads such a folder with a warning: only its load report tells that every expert is a random one."""
    base = fabricate("tiny", "bnb-4bit", tmp_path / "tiny-nf4").folder
    failures, record = trained_on(base, trained, tmp_path / "logs", "bfloat16")
    (failure,) = failures.values()
    assert "missing keys on loading" in failure.reason
    assert "randomly initialised weights" in failure.reason
    assert (failure.exit_code, record) == (2, None)


def test_bfloat16_trains(trained: Trained, tmp_path: Path) -> None:
    failures, record = trained_on(EMBEDDED, trained, tmp_path / "logs", "bfloat16")
    assert failures == {}
    assert record is not None
    assert record.layout == "bfloat16"
    full = trained.trainings["shared-2"].losses[0]["loss"]
    assert record.losses[0]["loss"] == pytest.approx(full, rel=0.2)
    assert record.losses[0]["loss"] != full


# --- going on from a checkpoint


def kill_at(step: int, run: TrainJob, log: Path) -> None:
    """Start the run in a process of its own and end it by SIGKILL once it has told of this step."""
    environment = child_environment(os.environ) | {"UNSLOTH_COMPILE_LOCATION": str(log.with_suffix(".compiled"))}
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(WORKER, stdin=PIPE, stdout=PIPE, stderr=errors, text=True, env=environment)
        assert process.stdin
        assert process.stdout
        with process, process.stdin:
            process.stdin.write(run.model_dump_json())
            process.stdin.close()
            for line in process.stdout:
                event = json.loads(line)
                assert event["event"] in ("training_phase", "training_known", "step"), event
                if event.get("step") == step:
                    process.kill()
                    return
    raise AssertionError(f"the run ended before step {step}: {log.read_text(encoding='utf-8')[-500:]}")


@pytest.mark.parametrize(("method", "same_as"), [("unsloth", "shared-4"), ("trl", "plain-4")])
def test_a_killed_run_goes_on_from_its_checkpoint_bit_for_bit(method: Method, same_as: str, trained: Trained, tmp_path: Path) -> None:
    arms = {f"killed-{method}-{step}": step for step in (2, 4)}  # the first of which an earlier process had trained
    run = trained.job(f"killed-{method}", (4,), method, checkpoint_steps=1).model_copy(update={"arms": arms})
    kill_at(3, run, tmp_path / "log")
    (torn := run.checkpoints / "checkpoint-3").mkdir(exist_ok=True)  # as where it was being written
    (torn / COMMIT).unlink(missing_ok=True)
    assert LocalExecutor(1, tmp_path / "logs").run([run], trained.hear) == {}
    record, whole = trained.trainings[f"killed-{method}-4"], trained.trainings[same_as]
    assert record.resumed_from == 2
    assert record.shared_run == f"killed-{method}-4"
    assert trained.weights(record.arm) == trained.weights(same_as)
    assert (record.losses, record.held_out_loss) == (whole.losses, whole.held_out_loss)
    assert sum(phase["steps"] for phase in record.phases) == 4
    assert sum(phase["tokens"] or 0 for phase in record.phases) == sum(phase["tokens"] or 0 for phase in whole.phases)
    assert not run.checkpoints.exists()


def checkpoint(folder: Path, step: int, **state: Any) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / COMMIT).write_text(json.dumps({"key": "k", "step": step} | state), encoding="utf-8")
    return path


def test_only_a_whole_checkpoint_of_the_same_recipe_before_the_first_stop_is_gone_on_from(tmp_path: Path) -> None:
    good, earlier = checkpoint(tmp_path, 8), checkpoint(tmp_path, 4)
    checkpoint(tmp_path, 9, key="other")
    checkpoint(tmp_path, 10)
    (tmp_path / "checkpoint-7").mkdir()
    (checkpoint(tmp_path, 6) / COMMIT).write_text("{", encoding="utf-8")
    assert find_checkpoint(tmp_path, "k", before=10) == good
    assert sorted(tmp_path.iterdir()) == sorted([good, earlier])
    assert find_checkpoint(tmp_path / "nowhere", "k", before=10) is None


# --- out of memory


def test_a_run_without_memory_says_where_and_tells_the_peak_reached(trained: Trained, tmp_path: Path) -> None:
    """The child may have a third of a gigabyte more than it holds after its imports, and is given a batch that takes more."""
    limited = (
        "import resource, psutil, bench.finetune.train as train\n"
        "begin = train._Course.go\n"
        "def go(self, *arguments):\n"
        "    limit = psutil.Process().memory_info().vms + 2**28\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "    begin(self, *arguments)\n"
        "train._Course.go = go\n"
        "from bench.worker import main; main()"
    )
    run = trained.job("large", (1,), "trl", batch_size=24)
    told: list[Event] = []
    failures = LocalExecutor(1, tmp_path / "logs", command=(sys.executable, "-c", limited)).run([run], lambda _, event: told.append(event))
    assert failures["large"].reason.startswith("out of memory in first_step, with ")
    (known,) = [Training.from_dict(event["training"]) for event in told if event["event"] == "training_known"]
    assert known.layout == "float32"
    assert known.load_report == {"missing": 0, "unexpected": 0, "mismatched": 0}
    assert known.trainable_by_kind == expected_parameters(load_checked(EMBEDDED, "float32").config, RANK, "attention")
    assert (told[-1]["phase"]["name"], told[-1]["phase"]["wall_s"]) == ("first_step", None)
    assert told[-1]["phase"]["peak_rss_bytes"] > 2**28


def test_an_arm_that_is_saved_outlives_a_lack_of_memory_for_its_held_out_loss(trained: Trained, tmp_path: Path) -> None:
    forgetful = (
        "import torch, bench.finetune.train as train\n"
        "train.held_out_loss = lambda *_: torch.empty(2**60)\n"
        "from bench.worker import main; main()"
    )
    run = trained.job("unmeasured", (1,), "trl")
    executor = LocalExecutor(1, tmp_path / "logs", command=(sys.executable, "-c", forgetful))
    assert executor.run([run], trained.hear) == {}
    record = trained.trainings["unmeasured-1"]
    assert (record.status, record.held_out_loss) == ("trained", None)
    log = (tmp_path / "logs" / "unmeasured.log").read_text(encoding="utf-8")
    assert "unmeasured: out of memory in held-out loss, with " in log


# --- held-out loss


def test_held_out_loss_is_that_of_all_logits_without_making_them() -> None:
    """By the places with a label, a few at a time; a row without any adds nothing."""
    import torch

    model = load_checked(EMBEDDED, "float32")
    ids = torch.randint(500, (300,), generator=torch.Generator().manual_seed(3)).tolist()
    labels = [token if place > 40 and place % 7 else -100 for place, token in enumerate(ids)]
    made: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda _, __, logits: made.append(logits.shape[1]))
    found = held_out_loss(model, [{"input_ids": ids, "labels": labels}, {"input_ids": ids[:9], "labels": [-100] * 9}])
    hook.remove()
    with torch.inference_mode():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits.double(), torch.tensor(labels[1:]))  # in float32 the mean is 1e-6 off by itself
    assert found == pytest.approx(expected.item(), abs=1e-6)
    assert made == [1]
    assert held_out_loss(model, [{"input_ids": ids[:9], "labels": [-100] * 9}]) is None


SAVE = """
import sys
from pathlib import Path
import torch
from peft import LoraConfig, get_peft_model
from bench.finetune.train import save_adapter
torch.manual_seed(0)
names = ["q_proj", "k_proj", "v_proj", "o_proj"]
model = torch.nn.Sequential(torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in names}))
save_adapter(get_peft_model(model, LoraConfig(r=2, target_modules=names)), Path(sys.argv[1]))
"""


def test_equal_adapters_are_equal_files_whatever_the_process_hashes(tmp_path: Path) -> None:
    """PEFT writes its sets in the order of the process; two equal trainings would have cells of different keys."""
    saved = []
    for seed in ("1", "2"):
        folder = tmp_path / seed / "adapter"
        subprocess.run(
            [sys.executable, "-c", SAVE, str(folder)], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        )
        saved.append({path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".md"})
    assert saved[0] == saved[1]
    assert set(saved[0]) == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads(saved[0]["adapter_config.json"])["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]


class Full:
    """A model whose weights find no room."""

    def save_pretrained(self, folder: str) -> None:
        (Path(folder) / "adapter_config.json").write_text("{}", encoding="utf-8")
        raise OSError(28, "No space left on device")


def test_an_adapter_that_finds_no_room_leaves_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "r4-s2"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"before")
    with pytest.raises(OSError, match="No space left"):
        save_adapter(Full(), folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["r4-s2", "adapter_model.safetensors"]
