"""Real training by Unsloth, in the worker's own process, of a few steps on the embedded model."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.catalog import SUITES
from bench.executors import LocalExecutor
from bench.experiment import Experiment, parse_experiment
from bench.finetune import data
from bench.finetune.lora import RESPONSE, expected_parameters
from bench.jobs import Event, Job, Stop, TrainJob
from bench.models import EMBEDDED, load_checked, load_tokenizer
from bench.records import Training

pytestmark = pytest.mark.slow

ROWS = 28
HELD_OUT = 4
RANK = 4


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
    """What four training runs left: records and steps by run, adapters by arm."""

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
        self.trainings: dict[str, Training] = {}
        self.steps: dict[str, list[int]] = {job.name: [] for job in jobs}
        self.failures = LocalExecutor(2, folder / "logs").run(jobs, self.hear)

    def job(self, name: str, steps: tuple[int, ...], **finetune: Any) -> TrainJob:
        stops = tuple(Stop(arm=f"{name}-{step}", steps=step, adapter=self.adapter(f"{name}-{step}"), key="k") for step in steps)
        return TrainJob(name=name, experiment=experiment(self.rows, **finetune), base=EMBEDDED, rank=RANK, seed=11, stops=stops)

    def hear(self, job: Job, event: Event) -> None:
        if event["event"] == "step":
            self.steps[job.name].append(event["step"])
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
    for text in data.texts(lessons, tokenizer, "mixed"):
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
        assert (record.key, record.shared_run, record.alpha, record.optimizer) == ("k", "shared-4", 16, "AdamW")
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
