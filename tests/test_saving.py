"""Saving an arm: a merged model must be read back by plain transformers and say what base + adapter says, or nothing is left."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from fabricated import fabricate_environment
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from bench import saving
from bench.catalog import SUITES
from bench.errors import ArmError, ModelError, UsageError
from bench.experiment import parse_experiment
from bench.harmony import find_specials, render
from bench.models import EMBEDDED, attach, load_checked, load_tokenizer
from bench.records import Run
from bench.saving import LARGEST_GAP, Continuation, agree, check_merge, checksums, continuations, gap, save_arm
from bench.store import RunFolder, load_run

PROMPTS = 24
SCALE = 16.0


def make_adapter(folder: Path, scale: float, experts: bool = True) -> Path:
    """A LoRA with random weights: it changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    config = LoraConfig(
        r=4,
        lora_alpha=scale,
        target_modules=["q_proj", "v_proj"],
        target_parameters=["mlp.experts.gate_up_proj"] if experts else None,
        init_lora_weights=False,
    )
    get_peft_model(load_checked(EMBEDDED, "float32"), config).save_pretrained(folder, save_embedding_layers=False)
    return folder


def make_run(folder: Path, adapter: Path, prompts: int = PROMPTS) -> Run:
    """A run of base and one finished adapter, with the prompts that it would have asked."""
    asked = {
        "name": "finished",
        "model": {"id": "embedded", "load_in_4bit": False, "dtype": "float32"},
        "adapters": [{"name": "ours", "path": str(adapter)}],
        "evaluate": {"suites": ["stories"], "max_new_tokens": {"low": 8, "medium": 8, "high": 8}},
    }
    tokenizer = load_tokenizer(EMBEDDED)
    rows = [json.loads(line) for line in (SUITES / "stories" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:prompts]]
    with RunFolder.create(folder, parse_experiment(asked, "a test"), fabricate_environment(), "effortbench run x") as made:
        for number, row in enumerate(rows):
            made.add_prompt(f"{number:04}", tokenizer.decode(render(tokenizer, [{"role": "user", "content": row["user"]}], "high")))
    return load_run(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("saving")
    return make_run(folder / "run", make_adapter(folder / "adapter", SCALE))


@pytest.mark.slow
def test_a_merged_model_is_read_back_and_says_what_the_adapter_says(run: Run, tmp_path: Path) -> None:
    agreement = save_arm(run, "ours", "merged-16bit", tmp_path / "merged")
    assert agreement is not None
    assert agreement.prompts == PROMPTS
    assert agreement.equal + agreement.near_ties == PROMPTS
    assert agreement.equal >= PROMPTS / 2
    assert agreement.unlike_base > PROMPTS / 4
    assert agreement.largest_gap <= LARGEST_GAP
    assert agreement.changed_weights > 4
    held = load_file(tmp_path / "merged" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in held.values()} == {"torch.bfloat16"}
    assert load_checked(tmp_path / "merged", "bfloat16").config.model_type == "gpt_oss"
    assert load_tokenizer(tmp_path / "merged").chat_template == load_tokenizer(EMBEDDED).chat_template
    recorded = json.loads((tmp_path / "merged" / "verification.json").read_text(encoding="utf-8"))
    assert recorded["equal"] == agreement.equal
    assert ModelCard.load(tmp_path / "merged" / "README.md").data.library_name == "transformers"


def test_weights_read_back_otherwise_are_no_saved_merge() -> None:
    base, other = load_checked(EMBEDDED, "bfloat16"), load_checked(EMBEDDED, "bfloat16")
    before = checksums(base)
    assert len(before) == len(load_file(EMBEDDED / "model.safetensors"))
    with pytest.raises(ArmError, match="the merge changed no weight"):
        check_merge(before, before, before)
    other.model.norm.weight.data[0] *= 1.01  # two steps of bfloat16
    merged = checksums(other)
    assert check_merge(before, merged, merged) == 1
    with pytest.raises(ArmError, match=r"1 weights were read back otherwise than they were merged \(model\.norm\.weight"):
        check_merge(before, merged, before)
    with pytest.raises(ArmError, match="read back otherwise"):
        check_merge(before, merged, merged | {"model.strange": 1})


@pytest.mark.slow
def test_continuations_are_greedy_and_end_at_a_stop_token(run: Run) -> None:
    tokenizer = load_tokenizer(EMBEDDED)
    stop_ids = find_specials(tokenizer).stop_ids
    prompts = [render(tokenizer, [{"role": "user", "content": "Tom has 2 apples."}], "low")]
    (found,) = continuations(load_checked(EMBEDDED, "float32"), prompts, stop_ids)
    assert all(token == max(likely, key=likely.__getitem__) for token, likely in zip(found.tokens, found.likely, strict=True))
    assert found.tokens[-1] in stop_ids or len(found.tokens) == saving.NEW_TOKENS
    changed = attach(load_checked(EMBEDDED, "float32"), run.experiment.adapters[0].path)
    assert continuations(changed, prompts, stop_ids)[0].likely != found.likely


def test_an_adapter_is_copied_as_it_is_with_its_card(run: Run, tmp_path: Path) -> None:
    assert save_arm(run, "ours", "adapter", tmp_path / "saved") is None
    source = run.experiment.adapters[0].path
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "saved" / name).read_bytes() == (source / name).read_bytes()
    assert ModelCard.load(tmp_path / "saved" / "README.md").data.library_name == "peft"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved"]


@pytest.mark.parametrize(("form", "tool"), [("mxfp4", "llm-compressor"), ("gguf", "llama.cpp")])
def test_formats_of_other_tools_are_refused_by_name(run: Run, tmp_path: Path, form: saving.Format, tool: str) -> None:
    with pytest.raises(UsageError, match=f"{form} is not written here: save as merged-16bit, then convert that folder with {tool}"):
        save_arm(run, "ours", form, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_written_into(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        save_arm(run, "ours", "adapter", tmp_path)


def test_a_quantized_base_asks_for_the_16_bit_one(run: Run, tmp_path: Path) -> None:
    config = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))
    shutil.copytree(EMBEDDED, tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "mxfp4"}}), "utf-8")
    with pytest.raises(ModelError, match=r"quantized \(mxfp4\).*pass --base"):
        save_arm(run, "ours", "merged-16bit", tmp_path / "x", tmp_path / "base")
    assert not (tmp_path / "x").exists()


def test_a_base_of_ones_own_is_checked_as_the_runs_is(run: Run, tmp_path: Path) -> None:
    """A wrong path ended in a traceback, and pickled weights or remote code were refused later or not at all."""
    pickled = shutil.copytree(EMBEDDED, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    remote = shutil.copytree(EMBEDDED, tmp_path / "remote")
    config = json.loads((remote / "config.json").read_text(encoding="utf-8"))
    (remote / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "theirs.Model"}}), "utf-8")
    refused = {tmp_path / "nowhere": "no config.json", pickled: "other weight formats can run code", remote: "asks for remote code"}
    for base, expected in refused.items():
        with pytest.raises(ModelError, match=expected):
            save_arm(run, "ours", "merged-16bit", tmp_path / "x", base)
    assert not (tmp_path / "x").exists()


def test_too_few_prompts_verify_nothing(run: Run, tmp_path: Path) -> None:
    few = make_run(tmp_path / "run", run.experiment.adapters[0].path, prompts=19)
    with pytest.raises(UsageError, match="asked 19 prompts, and 20 are needed"):
        save_arm(few, "ours", "merged-16bit", tmp_path / "x")


# --- the arithmetic


def said(*tokens: int, likely: dict[int, float] | None = None) -> Continuation:
    return Continuation(tokens, tuple((likely or {}) | {token: -0.5} for token in tokens))


def test_the_gap_is_the_adapters_own_preference_where_the_two_part() -> None:
    assert gap(said(1, 2, 3), said(1, 2, 3)) is None
    assert gap(said(1, 2, 3, likely={9: -0.6}), said(1, 9, 4)) == pytest.approx(0.1)
    assert gap(said(1, 2, 3, likely={9: -7.5}), said(1, 9, 4)) == 7
    assert gap(said(1, 2), said(1, 8)) == math.inf
    assert gap(said(1, 2), said(1, 2, 3)) == math.inf


def test_agreement_counts_equals_ties_and_what_shows_the_adapter() -> None:
    wanted = [said(1), said(2, likely={3: -0.6}), said(4)]
    found = agree(wanted, [said(1), said(3), said(4)], [said(1), said(7), said(7)])
    assert (found.prompts, found.equal, found.near_ties, found.unlike_base) == (3, 2, 1, 2)
    assert found.largest_gap == pytest.approx(0.1)
    assert agree([said(1)], [said(1)], [said(1)]).largest_gap == 0
