"""Model cards: what the hub reads back is what the run measured, and nothing else stands there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fabricated import fabricate_run
from huggingface_hub import ModelCard

from bench.card import CARD, adapter_folder, card, find_arm, is_hub_id, write_cards
from bench.errors import UsageError
from bench.records import Run

ARM = "r16-s200"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = fabricate_run(tmp_path_factory.mktemp("run"))
    assert ARM in made.training
    return made


def test_the_hub_reads_the_runs_own_results_back(run: Run) -> None:
    results = ModelCard(card(run, find_arm(run, ARM), "adapter")).data.eval_results
    found = {(r.dataset_type, r.dataset_split, r.dataset_args["reasoning_effort"], r.metric_type): r.metric_value for r in results}
    measured = {
        (item.suite, item.split, item.effort, item.metric): item.after
        for item in run.comparisons
        if item.arm == ARM and item.metric in ("accuracy", "reasoning_language_fidelity")
    }
    assert found == measured
    assert len(found) >= 4


def test_every_result_names_its_problems_and_languages(run: Run) -> None:
    for result in ModelCard(card(run, find_arm(run, ARM), "adapter")).data.eval_results:
        assert result.dataset_args["problems"] > 1
        assert result.dataset_args["languages"]


def test_an_adapter_and_a_merged_model_name_their_libraries(run: Run) -> None:
    arm = find_arm(run, ARM)
    assert ModelCard(card(run, arm, "adapter")).data.library_name == "peft"
    assert ModelCard(card(run, arm, "merged-16bit")).data.library_name == "transformers"


def test_the_card_says_how_the_arm_was_trained_and_what_changed(run: Run) -> None:
    text = card(run, find_arm(run, ARM), "adapter")
    training = run.training[ARM]
    assert f"| rank, alpha | {training.rank}, {training.alpha:g} |" in text
    assert f"| held-out loss | {training.held_out_loss:.4f} |" in text
    item = next(item for item in run.comparisons if (item.arm, item.metric, item.effort) == (ARM, "accuracy", "high"))
    assert item.delta is not None
    assert f"{100 * item.delta:+.1f} points" in text


def test_no_path_of_this_machine_stands_in_a_card(run: Run, tmp_path: Path) -> None:
    model = run.experiment.model.model_copy(update={"id": str(tmp_path / "secret-place" / "gpt-oss-20b")})
    local = dataclasses.replace(run, experiment=run.experiment.model_copy(update={"model": model}))
    text = card(local, find_arm(local, ARM), "adapter")
    assert "secret-place" not in text
    assert "`gpt-oss-20b`" in text
    assert "base_model" not in text


@pytest.mark.parametrize("name", ["unsloth/gpt-oss-20b", "HuggingFaceH4/Multilingual-Thinking", "Qwen/Qwen2.5-7B", "a/b_c"])
def test_owner_and_name_are_a_hub_id(name: str) -> None:
    assert is_hub_id(name)


@pytest.mark.parametrize(
    "name",
    ["data/rows.jsonl", "data/rows.parquet", "stories/train", "embedded", "./a", "../a", "~/a", "/a/b", "a/b/c", "a/", "a/..", "a/b\n"],
)
def test_a_path_a_file_and_a_suites_split_are_no_hub_id(name: str) -> None:
    assert not is_hub_id(name)


def test_a_relative_folder_that_is_there_is_no_hub_id(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders take the folder; the card told the hub that the adapter's base was somebody's `models`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "gpt-oss-20b").mkdir(parents=True)
    (tmp_path / "rows" / "german").mkdir(parents=True)
    assert run.experiment.finetune is not None
    dataset = run.experiment.finetune.dataset.model_copy(update={"id": "rows/german"})
    changes = {
        "model": run.experiment.model.model_copy(update={"id": "models/gpt-oss-20b"}),
        "finetune": run.experiment.finetune.model_copy(update={"dataset": dataset}),
    }
    local = dataclasses.replace(run, experiment=run.experiment.model_copy(update=changes))
    data = ModelCard(card(local, find_arm(local, ARM), "adapter")).data
    assert (data.base_model, data.datasets) == (None, None)
    assert "A LoRA adapter for `gpt-oss-20b`." in card(local, find_arm(local, ARM), "adapter")


def test_an_arm_that_was_asked_nothing_claims_nothing(run: Run) -> None:
    unasked = dataclasses.replace(run, comparisons=())
    text = card(unasked, find_arm(run, ARM), "adapter")
    assert ModelCard(text).data.eval_results is None
    assert "the run asked this arm no suite" in text


@pytest.mark.parametrize("name", ["base", "r999-s1", ""])
def test_an_arm_without_an_adapter_names_those_that_have_one(run: Run, name: str) -> None:
    with pytest.raises(UsageError, match=f"no arm '{name}' with an adapter: expected .*{ARM}"):
        find_arm(run, name)


def test_a_failed_arm_is_not_given_away(run: Run) -> None:
    with pytest.raises(UsageError, match="out of memory"):
        find_arm(dataclasses.replace(run, failed_arms={ARM: "out of memory"}), ARM)


def test_a_card_lies_beside_every_adapter_of_the_run(run: Run) -> None:
    for name in run.training:
        adapter_folder(run, find_arm(run, name)).mkdir(parents=True)
    write_cards(run)
    for name in run.training:
        assert (adapter_folder(run, find_arm(run, name)) / CARD).read_text(encoding="utf-8") == card(run, find_arm(run, name), "adapter")
