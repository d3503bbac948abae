"""What a run takes from the hub: tests/local_hub.py serves it over real HTTP, huggingface_hub and datasets are the real ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from local_hub import LocalHub, serve

from bench.catalog import find_suite
from bench.experiment import Model
from bench.models import EMBEDDED, find_model, fingerprint
from bench.store import load_run

ROOT = Path(__file__).parents[1]
MODEL_COMMIT, DATA_COMMIT = "a" * 40, "b" * 40
EXPERIMENT = {
    "name": "from-the-hub",
    "model": {"id": "acme/tiny", "revision": MODEL_COMMIT, "load_in_4bit": False, "dtype": "float32"},
    "finetune": {"dataset": {"id": "acme/thinking", "revision": DATA_COMMIT}, "ranks": [2], "steps": [1], "optimizer": "adamw_torch"},
    "evaluate": {"suites": ["stories"], "languages": ["en"], "efforts": ["low"], "max_new_tokens": {"low": 24}},
}


def environment(folder: Path, hub: LocalHub | None) -> dict[str, str]:
    """Online with a hub, offline without one; an empty cache of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    where = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"} if hub else {"HF_HUB_OFFLINE": "1"}
    return {**kept, **where, "HF_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}


def python(*arguments: str, cwd: Path, hub: LocalHub | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment(cwd, hub), capture_output=True, text=True, check=False, timeout=400
    )


def model_repository(folder: Path) -> Path:
    """The embedded model as OpenAI lays out its own: the weights once more in other formats, in folders below."""
    repository = Path(shutil.copytree(EMBEDDED, folder / "model"))
    for name in ("original/model.safetensors", "original/config.json", "metal/model.bin", "pytorch_model.bin"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_bytes(b"not to be fetched")
    return repository


def data_repository(folder: Path) -> Path:
    import pandas as pd

    lines = (ROOT / "suites" / "stories" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    (folder / "thinking" / "data").mkdir(parents=True)
    pd.DataFrame([json.loads(line) for line in lines]).to_parquet(folder / "thinking" / "data" / "train-00000-of-00001.parquet")
    return folder / "thinking"


@pytest.mark.slow
def test_a_whole_run_takes_model_and_rows_at_their_commits_and_needs_no_hub_again(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT), encoding="utf-8")
    repositories = {
        ("models", "acme/tiny"): (model_repository(tmp_path), MODEL_COMMIT),
        ("datasets", "acme/thinking"): (data_repository(tmp_path), DATA_COMMIT),
    }
    with serve(repositories) as hub:
        online = python("-m", "bench", "run", "e.yaml", "--limit", "2", "--out", "run", cwd=tmp_path, hub=hub)
    assert online.returncode == 0, online.stderr
    read = {path.name for path in EMBEDDED.iterdir()} - {"CARD.md"}
    assert sorted(hub.files()) == sorted([*read, "data/train-00000-of-00001.parquet"])
    assert all(MODEL_COMMIT in line or DATA_COMMIT in line for line in hub.asked if "/resolve/" in line)

    samples = load_run(tmp_path / "run").samples
    assert set(samples["arm"]) == {"base", "r2-s1"}
    assert len(samples) == 4

    again = """
from bench.experiment import load_experiment
from bench.finetune.data import load_rows
from bench.models import find_model, fingerprint
experiment = load_experiment("e.yaml")
print(fingerprint(find_model(experiment.model)), len(load_rows(experiment.finetune.dataset)))
"""
    offline = python("-c", again, cwd=tmp_path, hub=None)
    assert offline.stdout.split() == [fingerprint(find_model(Model(id="embedded"))), "40"], offline.stderr


@pytest.mark.parametrize("part", ["model", "finetune.dataset"])
def test_a_commit_that_the_hub_lacks_is_one_clear_error(tmp_path: Path, part: str) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT), encoding="utf-8")
    repositories = {
        ("models", "acme/tiny"): (model_repository(tmp_path), MODEL_COMMIT),
        ("datasets", "acme/thinking"): (data_repository(tmp_path), DATA_COMMIT),
    }
    with serve(repositories) as hub:
        done = python("-m", "bench", "run", "e.yaml", "--out", "run", "--set", f"{part}.revision={'c' * 40}", cwd=tmp_path, hub=hub)
    assert done.returncode == 2, done.stderr
    assert f"could not be had from the hub at {'c' * 40}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_each_suite_of_the_hub_takes_every_language_at_its_pinned_commit(tmp_path: Path) -> None:
    suites = [find_suite(name) for name in ("mgsm", "mmmlu", "mmlu_prox", "belebele")]
    repositories = {}
    for suite in suites:
        assert suite.hub
        for language in suite.languages:
            file = tmp_path / suite.name / suite.hub.file_of(language)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{suite.name} {language}", encoding="utf-8")
        repositories["datasets", suite.hub.id] = (tmp_path / suite.name, suite.hub.revision)
    fetch = """
import sys
from bench.catalog import find_suite
from bench.rows import download
for suite in map(find_suite, sys.argv[1:]):
    for language in suite.languages:
        assert download(suite, language, {}).read_text() == f"{suite.name} {language}", (suite.name, language)
        print(suite.name, language)
"""
    with serve(repositories) as hub:
        done = python("-c", fetch, *(suite.name for suite in suites), cwd=tmp_path, hub=hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [f"{suite.name} {language}" for suite in suites for language in suite.languages]
