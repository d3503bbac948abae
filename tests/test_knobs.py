"""Every setting of the finetune block bites: a run differs from the plain one in just the way the setting promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import cos, pi
from pathlib import Path
from typing import Any

import pytest

from bench.catalog import SUITES
from bench.executors import child_environment
from bench.experiment import Method, parse_experiment
from bench.finetune import data, lora
from bench.finetune.train import held_out_loss
from bench.harmony import find_specials
from bench.jobs import Stop, TrainJob
from bench.models import EMBEDDED, load_checked, load_tokenizer
from bench.records import Training

pytestmark = pytest.mark.slow

ROWS, HELD_OUT = 12, 2
LAYERS = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
PLAIN: dict[str, Any] = {
    "ranks": [4],
    "targets": "attention",
    "effort": "medium",
    "alpha": 16,
    "learning_rate": 1e-3,
    "schedule": "constant_with_warmup",
    "warmup_steps": 0,
    "batch_size": 1,
    "gradient_accumulation": 2,
    "optimizer": "adamw_torch",
    "weight_decay": 0,
    "max_length": 512,
    "gradient_checkpointing": False,
    "held_out_rows": HELD_OUT,
}
KNOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "again": {},
    "rank": {"rank": 2},
    "alpha 2r": {"alpha": "2r"},
    "alpha 8": {"alpha": 8},
    "rslora": {"alpha": "rslora"},
    "alpha 32": {"alpha": 32},
    "effort low": {"effort": "low"},
    "effort mixed": {"effort": "mixed"},
    "learning rate": {"learning_rate": 5e-4},
    "linear": {"schedule": "linear", "warmup_steps": 1, "steps": 4},
    "cosine": {"schedule": "cosine", "warmup_steps": 1, "steps": 4},
    "adafactor": {"optimizer": "adafactor"},
    "weight decay": {"weight_decay": 0.5},
    "batch": {"batch_size": 2},
    "batch for accumulation": {"batch_size": 2, "gradient_accumulation": 1},
    "checkpointing": {"gradient_checkpointing": True},
    "max length": {"max_length": 80},
    "seed": {"seed": 12},
    "epochs": {"steps": ("epoch", "2epochs"), "gradient_accumulation": 4},
    "whole": {"steps": "epoch", "gradient_accumulation": 16},
    "languages": {"languages": ["German"], "steps": 1},
}
ALL: dict[str, Any] = {
    "rank": 2,
    "alpha": "rslora",
    "targets": "attention+experts",
    "train_on": ["final"],
    "effort": "mixed",
    "learning_rate": 5e-4,
    "schedule": "cosine",
    "warmup_steps": 1,
    "batch_size": 2,
    "gradient_accumulation": 3,
    "optimizer": "adamw_8bit",
    "weight_decay": 0.5,
    "max_length": 200,
    "seed": 12,
    "steps": 3,
}
"""Everything set otherwise, for both trainers."""


class Runs:
    """What the runs left, by the name of the run."""

    def __init__(self, folder: Path):
        self.folder = folder
        lines = (SUITES / "stories" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:ROWS]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.rows = [json.loads(line) for line in lines]
        self.trainings: dict[str, Training] = {}
        self.layer_forwards: dict[str, int] = {}
        self.run([self.job(name, "trl", **knob) for name, knob in KNOBS.items()] + [self.job("all trl", "trl", **ALL)])
        self.run([self.job("all unsloth", "unsloth", **ALL, gradient_checkpointing="unsloth")])

    def job(
        self,
        name: str,
        method: Method,
        *,
        rank: int = 4,
        seed: int = 11,
        steps: int | str | tuple[int | str, ...] = 2,
        languages: list[str] | None = None,
        **finetune: Any,
    ) -> TrainJob:
        stops = steps if isinstance(steps, tuple) else (steps,)
        asked = {
            "name": "knobs",
            "model": {"id": "embedded", "load_in_4bit": False, "dtype": "float32"},
            "finetune": {**PLAIN, "dataset": {"id": str(self.folder / "rows.jsonl"), "languages": languages}, **finetune},
            "evaluate": {"suites": ["stories"], "max_new_tokens": {"low": 8, "medium": 8, "high": 8}},
        }
        arms = [name if stop == stops[-1] else f"{name} {stop}" for stop in stops]
        return TrainJob(
            name=name,
            experiment=parse_experiment(asked, "a test"),
            base=EMBEDDED,
            method=method,
            rank=rank,
            seed=seed,
            stops=tuple(Stop(arm=arm, steps=stop, adapter=self.adapter(arm), key="k") for arm, stop in zip(arms, stops, strict=True)),
            checkpoints=self.folder / "checkpoints" / name,
        )

    def adapter(self, arm: str) -> Path:
        return self.folder / "adapters" / arm

    def run(self, jobs: list[TrainJob]) -> None:
        script = Path(__file__).with_name("train_many.py")
        order = json.dumps([job.model_dump(mode="json") for job in jobs])
        environment = child_environment(os.environ) | {"UNSLOTH_COMPILE_LOCATION": str(self.folder / "compiled")}
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
        done = subprocess.run([sys.executable, str(script)], input=order, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        for event in map(json.loads, done.stdout.splitlines()):
            if event["event"] == "trained":
                self.trainings[event["training"]["arm"]] = Training.from_dict(event["training"])
                self.layer_forwards[event["job"]] = event["layer_forwards"]

    def losses(self, name: str) -> list[float]:
        return [point["loss"] for point in self.trainings[name].losses]

    def rates(self, name: str) -> list[float]:
        return [point["learning_rate"] for point in self.trainings[name].losses]

    def tokens(self, name: str) -> int:
        return sum(phase["tokens"] or 0 for phase in self.trainings[name].phases)

    def weights(self, name: str) -> bytes:
        return (self.adapter(name) / "adapter_model.safetensors").read_bytes()

    def config(self, name: str) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.adapter(name) / "adapter_config.json").read_text(encoding="utf-8"))
        return config

    def lessons(self) -> list[dict[str, Any]]:
        return data.split_rows(self.rows, HELD_OUT)[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("knobs"))


def test_the_same_settings_train_the_same_adapter(runs: Runs) -> None:
    """Without this no difference below would mean anything."""
    assert runs.weights("again") == runs.weights("plain")


def test_rank(runs: Runs) -> None:
    assert runs.trainings["rank"].trainable_by_kind["attention"] * 2 == runs.trainings["plain"].trainable_by_kind["attention"]
    assert len(runs.weights("rank")) < 0.6 * len(runs.weights("plain"))


def test_alpha_as_a_multiple_of_the_rank_is_that_number(runs: Runs) -> None:
    assert runs.weights("alpha 2r") == runs.weights("alpha 8") != runs.weights("plain")


def test_rslora_scales_by_the_root_of_the_rank(runs: Runs) -> None:
    """16 / sqrt(4) = 32 / 4."""
    assert runs.weights("rslora") == runs.weights("alpha 32") != runs.weights("plain")
    assert runs.config("rslora")["use_rslora"]


@pytest.mark.parametrize("name", ["effort low", "effort mixed"])
def test_effort_of_the_training_prompt_changes_what_is_learned(name: str, runs: Runs) -> None:
    assert runs.losses(name)[0] != runs.losses("plain")[0]
    assert runs.tokens(name) == runs.tokens("plain")


def test_learning_rate(runs: Runs) -> None:
    assert (runs.rates("learning rate"), runs.rates("plain")) == ([5e-4] * 2, [1e-3] * 2)
    assert runs.losses("learning rate")[0] == runs.losses("plain")[0]
    assert runs.losses("learning rate")[1] != runs.losses("plain")[1]


def test_schedules_after_one_step_of_warm_up(runs: Runs) -> None:
    assert runs.rates("linear") == pytest.approx([0, 1e-3, 1e-3 * 2 / 3, 1e-3 / 3])
    assert runs.rates("cosine") == pytest.approx([0] + [1e-3 * (1 + cos(pi * step / 3)) / 2 for step in range(3)])


def test_optimizer(runs: Runs) -> None:
    assert (runs.trainings["adafactor"].optimizer, runs.trainings["plain"].optimizer) == ("adafactor", "adamw_torch")
    assert (runs.trainings["all unsloth"].optimizer, runs.trainings["all trl"].optimizer) == ("adamw_torch_fused", "adamw_torch_fused")
    assert runs.weights("adafactor") != runs.weights("plain")


def test_weight_decay_shrinks_the_adapter(runs: Runs) -> None:
    from safetensors.torch import load_file

    sizes = []
    for name in ("weight decay", "plain"):
        tensors = load_file(runs.adapter(name) / "adapter_model.safetensors")
        sizes.append(sum(tensor.norm().item() for key, tensor in tensors.items() if "lora_A" in key))
    assert 0.998 < sizes[0] / sizes[1] < 0.9995  # two steps of 1 - 1e-3 * 0.5


def test_rows_of_a_batch_and_of_its_accumulation_are_the_same_rows(runs: Runs) -> None:
    assert runs.tokens("batch for accumulation") == runs.tokens("plain")
    assert runs.losses("batch for accumulation") == pytest.approx(runs.losses("plain"), abs=1e-6)
    assert 1.5 < runs.tokens("batch") / runs.tokens("plain") < 2.5


def test_gradient_checkpointing_computes_layers_twice_and_nothing_else(runs: Runs) -> None:
    once = runs.layer_forwards["plain"]
    assert once == LAYERS * 4  # two steps of two rows
    assert runs.layer_forwards["checkpointing"] == 2 * once
    assert runs.losses("checkpointing") == pytest.approx(runs.losses("plain"), abs=1e-6)
    assert runs.trainings["checkpointing"].gradient_checkpointing == "plain"
    assert runs.trainings["all unsloth"].gradient_checkpointing == "unsloth"
    assert runs.layer_forwards["all unsloth"] == 2 * runs.layer_forwards["all trl"]


def test_max_length_cuts_rows_and_drops_those_left_without_loss(runs: Runs) -> None:
    short, plain = runs.trainings["max length"], runs.trainings["plain"]
    assert sum(short.supervised_tokens.values()) < sum(plain.supervised_tokens.values())
    assert (plain.rows_dropped, plain.rows_kept) == (0, ROWS - HELD_OUT)
    assert short.rows_dropped
    assert (short.rows_kept or 0) + short.rows_dropped == ROWS - HELD_OUT
    assert runs.tokens("max length") <= 4 * 80


def test_another_seed_is_another_start_and_another_order(runs: Runs) -> None:
    assert runs.losses("seed")[0] != runs.losses("plain")[0]
    assert runs.weights("seed") != runs.weights("plain")


def test_an_epoch_is_every_row_once_and_rows_are_not_packed(runs: Runs) -> None:
    """Ten rows, four a step: three steps, of which the last has two rows."""
    whole = sum(map(len, data.lessons(runs.lessons(), load_tokenizer(EMBEDDED), "medium")))
    assert (runs.trainings["epochs epoch"].steps, runs.trainings["epochs"].steps) == (3, 6)
    assert (runs.tokens("epochs epoch"), runs.tokens("epochs")) == (whole, 2 * whole)
    assert runs.trainings["epochs epoch"].shared_run == "epochs"


def test_the_loss_is_that_of_the_labels_alone_without_the_routers(runs: Runs) -> None:
    """One step over all rows, before anything is learned: the base model's own mean negative log-likelihood."""
    tokenizer = load_tokenizer(EMBEDDED)
    response, start = tokenizer(lora.RESPONSE, add_special_tokens=False)["input_ids"], find_specials(tokenizer).start
    ids = data.lessons(runs.lessons(), tokenizer, "medium")
    rows = [{"input_ids": row, "labels": lora.mask(row, response, start)} for row in ids]
    assert runs.losses("whole") == pytest.approx([held_out_loss(load_checked(EMBEDDED, "float32"), rows)], abs=1e-5)


def test_rows_are_chosen_by_their_reasoning_language(runs: Runs) -> None:
    german = [row for row in runs.rows if row["reasoning_language"] == "German"]
    assert 0 < len(german) < ROWS
    assert runs.trainings["languages"].languages == ["German"]
    assert runs.trainings["languages"].rows_kept == len(german) - HELD_OUT


def test_all_knobs_together_mean_the_same_to_both_trainers(runs: Runs) -> None:
    ours, plain = runs.trainings["all unsloth"], runs.trainings["all trl"]
    assert runs.losses("all unsloth") == pytest.approx(runs.losses("all trl"), abs=1e-6)
    assert runs.rates("all unsloth") == runs.rates("all trl")
    assert runs.tokens("all unsloth") == runs.tokens("all trl")
    assert (ours.trainable_by_kind, ours.supervised_tokens, ours.rows_kept) == (
        plain.trainable_by_kind,
        plain.supervised_tokens,
        plain.rows_kept,
    )
    for name in ("r", "lora_alpha", "use_rslora", "target_parameters"):
        assert runs.config("all unsloth")[name] == runs.config("all trl")[name]
    assert set(runs.config("all unsloth")["target_modules"]) == set(runs.config("all trl")["target_modules"])
