"""Changing one thing that can change a score asks exactly the cells it concerns again: a folder full of answers, gone on with changed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated import fabricate_environment, fabricate_training
from safetensors.numpy import save_file
from test_runner import base_alone, cell_files, comparable, run
from test_store import sample

from bench import runner
from bench.catalog import SUITES, find_suite
from bench.executors import LocalExecutor
from bench.experiment import Experiment, parse_experiment
from bench.jobs import EvaluateJob, TrainJob
from bench.models import EMBEDDED, fingerprint
from bench.records import CellId
from bench.runner import Plan, Progress, _Conductor, _evaluation_job, _training_jobs
from bench.store import RunFolder

SPLIT = "dev"
EVALUATE = {
    "suites": ["./stories", "stories_plain"],
    "languages": ["en", "de"],
    "efforts": ["low", "medium"],
    "max_new_tokens": {"low": 24, "medium": 48},
}
Cell = tuple[str, str, str]
"""Arm, suite, effort; a cell of each language."""
ALL = {(arm, suite, effort) for arm in ("base", "ours") for suite in ("stories", "stories_plain") for effort in ("low", "medium")}


@dataclass
class Place:
    """A model, a finished adapter and a suite of one's own, and what is asked of them."""

    folder: Path
    model: dict[str, Any]
    evaluate: dict[str, Any]
    limit: int | None = None

    @property
    def experiment(self) -> Experiment:
        adapters = [{"name": "ours", "path": str(self.folder / "ours")}]
        return parse_experiment({"name": "keys", "model": self.model, "evaluate": self.evaluate, "adapters": adapters}, "a test")

    @property
    def plan(self) -> Plan:
        suites = {suite.name: suite for suite in map(find_suite, self.evaluate["suites"])}
        return Plan(self.experiment, self.folder / "base", fingerprint(self.folder / "base"), suites, (), 1)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EMBEDDED, tmp_path / "base")
    shutil.copytree(SUITES / "stories", tmp_path / "stories")
    (tmp_path / "ours").mkdir()
    save_file({"lora": np.zeros(4, dtype=np.float32)}, tmp_path / "ours" / "adapter_model.safetensors")
    (tmp_path / "ours" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}', encoding="utf-8")
    return Place(tmp_path, {"id": "./base", "load_in_4bit": False, "dtype": "float32"}, dict(EVALUATE))


def jobs(place: Place, folder: RunFolder) -> list[EvaluateJob]:
    """What the conductor would have asked, one job an arm that is not done."""
    plan = place.plan
    conductor = _Conductor(plan, folder, LocalExecutor(1, place.folder / "logs"), Progress(), place.limit)
    places = [(name, SPLIT) for name in plan.suites]
    return [job for arm in plan.experiment.arms() if (job := _evaluation_job(conductor, arm, places)) is not None]


def fill(place: Place, path: Path) -> None:
    """A run folder in which every cell has the one answer that was planned."""
    with RunFolder.create(path, place.experiment, fabricate_environment(), "") as folder:
        assert len(jobs(place, folder)) == 2
        for cell in list(folder.cells):
            folder.add_sample(sample(0, cell))
        folder.add_prompt(sample(0).prompt_hash, "a question")
        folder.plan_cells(dict.fromkeys(folder.cells, 1))


def asked_again(place: Place, path: Path) -> set[Cell]:
    """The cells that a resumed run finds no answer of its own in."""
    with RunFolder.reopen(path, place.experiment, fabricate_environment(), "") as folder:
        made = jobs(place, folder)
        missing = {cell for cell in folder.asked if not (path / cell.file).exists()}
    kept = {CellId(*(row[name] for name in CellId._fields)) for job in made for spec in job.passes for row in spec.done}
    assert kept.isdisjoint(cell.id for cell in missing), "an answer of a cell that is asked again was handed on"
    assert {job.arm for job in made} == {cell.arm for cell in missing}
    by_language: dict[Cell, set[str]] = {}
    for cell in missing:
        by_language.setdefault((cell.arm, cell.suite, cell.effort), set()).add(cell.language)
    assert all(languages == {"en", "de"} for languages in by_language.values())
    return set(by_language)


def flip(path: Path) -> None:
    """Change the last byte, so that neither name nor size tells."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def arms(*names: str) -> set[Cell]:
    return {cell for cell in ALL if cell[0] in names}


def of_suite(*names: str) -> set[Cell]:
    return {cell for cell in ALL if cell[1] in names}


def of_effort(*names: str) -> set[Cell]:
    return {cell for cell in ALL if cell[2] in names}


def swap_effort(place: Place) -> None:
    place.evaluate |= {"efforts": ["low", "high"], "max_new_tokens": {"low": 24, "high": 48}}


HIGH = {(arm, suite, "high") for arm, suite, _ in ALL}
CHANGES: dict[str, tuple[Callable[[Place], Any], set[Cell]]] = {
    "nothing": (lambda _: None, set()),
    "base weights": (lambda place: flip(place.folder / "base" / "model.safetensors"), ALL),
    "base config": (lambda place: append(place.folder / "base" / "config.json", " "), ALL),
    "template": (lambda place: append(place.folder / "base" / "chat_template.jinja", "{# #}"), ALL),
    "tokenizer": (lambda place: append(place.folder / "base" / "tokenizer.json", " "), ALL),
    "adapter weights": (lambda place: flip(place.folder / "ours" / "adapter_model.safetensors"), arms("ours")),
    "adapter config": (lambda place: append(place.folder / "ours" / "adapter_config.json", " "), arms("ours")),
    "effort": (swap_effort, HIGH),
    "limit of one effort": (lambda place: place.evaluate.update(max_new_tokens={"low": 24, "medium": 49}), of_effort("medium")),
    "temperature": (lambda place: place.evaluate.update(temperature=1.0), ALL),
    "seed of a greedy run": (lambda place: place.evaluate.update(seed=8), set()),
    "samples an item": (lambda place: place.evaluate.update(samples_per_item=2, temperature=1.0), ALL),
    "suite's rows": (lambda place: append(place.folder / "stories" / "dev.jsonl", "\n"), of_suite("stories")),
    "suite's code": (lambda place: append(place.folder / "stories" / "utils.py", "#\n"), of_suite("stories")),
    "suite's words for people": (lambda place: append(place.folder / "stories" / "README.md", "\n"), set()),
    "dtype": (lambda place: place.model.update(dtype="bfloat16"), ALL),
    "4-bit": (lambda place: place.model.update(load_in_4bit=True), ALL),
    "number of items": (lambda place: setattr(place, "limit", 5), ALL),
    "slots": (lambda place: place.evaluate.update(slots=3), set()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_one_change_asks_exactly_the_affected_cells_again(place: Place, what: str) -> None:
    change, expected = CHANGES[what]
    fill(place, place.folder / "run")
    change(place)
    assert asked_again(place, place.folder / "run") == expected


def test_another_engine_asks_everything_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(place, place.folder / "run")
    monkeypatch.setattr(runner, "ENGINE", "another")
    assert asked_again(place, place.folder / "run") == ALL


def test_a_sampled_runs_seed_is_part_of_the_key(place: Place) -> None:
    place.evaluate |= {"temperature": 1.0}
    fill(place, place.folder / "run")
    place.evaluate |= {"seed": 8}
    assert asked_again(place, place.folder / "run") == ALL


def test_local_data_are_part_of_their_suites_key_alone(place: Place) -> None:
    (place.folder / "rows").mkdir()
    for language in ("en", "de"):
        (place.folder / "rows" / f"mgsm_{language}.tsv").write_text("Zwei und zwei?\t4\n", encoding="utf-8")
    place.evaluate |= {"suites": ["./stories", "mgsm"], "data": {"mgsm": "rows"}}

    def keys() -> dict[str, str]:
        plan = place.plan
        return {name: runner.cell_key(plan, suite, "low", None, None) for name, suite in plan.suites.items()}

    before = keys()
    append(place.folder / "rows" / "mgsm_de.tsv", "Drei und drei?\t6\n")
    after = keys()
    assert before["mgsm"] != after["mgsm"]
    assert before["stories"] == after["stories"]


def test_a_change_that_is_taken_back_does_not_bring_old_answers_back(place: Place) -> None:
    """They were thrown away: what stands in the folder was asked under the key that stands beside it."""
    fill(place, place.folder / "run")
    flip(place.folder / "ours" / "adapter_model.safetensors")
    assert asked_again(place, place.folder / "run") == arms("ours")
    flip(place.folder / "ours" / "adapter_model.safetensors")
    assert asked_again(place, place.folder / "run") == arms("ours")


# --- trained arms


ROWS = [{"id": number} for number in range(4)]
FINETUNE = {
    "dataset": {"id": "stories/train"},
    "ranks": [4],
    "steps": [2],
    "targets": "attention",
    "schedule": "constant_with_warmup",
    "held_out_rows": 2,
}


def training_jobs(place: Place, **finetune: Any) -> list[TrainJob]:
    """What would be trained, in a folder whose arm r4-s2 was trained by `fill_trained`."""
    asked = {"name": "keys", "model": place.model, "evaluate": place.evaluate, "finetune": {**FINETUNE, **finetune}}
    experiment = parse_experiment(asked, "a test")
    plan = Plan(experiment, place.folder / "base", fingerprint(place.folder / "base"), {}, tuple(ROWS), 1)
    path = place.folder / "trained"
    opener = RunFolder.reopen if path.exists() else RunFolder.create
    with opener(path, experiment, fabricate_environment(), "") as folder:
        conductor = _Conductor(plan, folder, LocalExecutor(1, path / "logs"), Progress(), None)
        return [job for job in _training_jobs(conductor) if job.stops]


def fill_trained(place: Place) -> Path:
    """The arm's record and adapter, as its training leaves them; the adapter's weights."""
    (job,) = training_jobs(place)
    (stop,) = job.stops
    stop.adapter.mkdir(parents=True)
    weights = stop.adapter / "adapter_model.safetensors"
    save_file({"lora": np.ones(4, dtype=np.float32)}, weights)
    record = replace(fabricate_training("r4-s2"), key=stop.key, adapter_sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    with RunFolder.reopen(place.folder / "trained", job.experiment, fabricate_environment(), "") as folder:
        folder.save_training(record)
    return weights


TRAINED_ANEW: dict[str, dict[str, Any]] = {
    "learning rate": {"learning_rate": 3e-4},
    "alpha": {"alpha": "4r"},
    "channels": {"train_on": ["final"]},
    "targets": {"targets": "attention+experts"},
    "held-out rows": {"held_out_rows": 1},
}


def test_a_trained_arm_is_not_trained_again(place: Place) -> None:
    fill_trained(place)
    assert training_jobs(place) == []
    assert training_jobs(place, checkpoint_steps=1) == [], "what is saved on the way changes nothing"


@pytest.mark.parametrize("what", TRAINED_ANEW)
def test_an_arm_of_another_recipe_is_trained_anew(place: Place, what: str) -> None:
    fill_trained(place)
    (job,) = training_jobs(place, **TRAINED_ANEW[what])
    assert [stop.arm for stop in job.stops] == ["r4-s2"]


@pytest.mark.parametrize("file", ["model.safetensors", "chat_template.jinja"])
def test_an_arm_of_another_base_is_trained_anew(place: Place, file: str) -> None:
    fill_trained(place)
    flip(place.folder / "base" / file)
    assert len(training_jobs(place)) == 1


def test_an_arm_whose_adapter_is_another_is_trained_anew(place: Place) -> None:
    """As where a second recipe's training was killed after its adapter was saved, and before its record was."""
    flip(fill_trained(place))
    assert len(training_jobs(place)) == 1


# --- for real


def save_lora(folder: Path, seed: int) -> None:
    """An adapter of the embedded model that changes its answers."""
    import torch
    from peft import LoraConfig, get_peft_model

    from bench.models import load_checked

    torch.manual_seed(seed)
    model = get_peft_model(load_checked(EMBEDDED, "float32"), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    model.save_pretrained(str(folder))


@pytest.mark.slow
def test_answers_of_an_adapter_that_was_replaced_under_its_name_are_asked_anew(tmp_path: Path) -> None:
    """The resumed run ends as one that never saw the first adapter; base is not asked again."""
    asked = {
        **base_alone(languages=["en"], efforts=["low"], max_new_tokens={"low": 24}),
        "adapters": [{"name": "ours", "path": str(tmp_path / "ours")}],
    }
    save_lora(tmp_path / "ours", 1)
    first = run(asked, tmp_path / "run")
    old, files = comparable(first), cell_files(first.folder)
    shutil.rmtree(tmp_path / "ours")
    save_lora(tmp_path / "ours", 2)
    resumed, fresh = run(asked, tmp_path / "run", resume=True), run(asked, tmp_path / "fresh")
    assert comparable(resumed) == comparable(fresh) != old
    assert {path for path, state in cell_files(resumed.folder).items() if files[path] != state} == {"cells/ours/stories@dev.en.low.jsonl"}
    assert resumed.cells == fresh.cells
    assert len(resumed.phases) == 2, "what the first adapter cost says nothing of the second"
