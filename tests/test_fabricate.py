"""Fabricated models: of the true shape, loadable in the layouts that transformers reads, whole or not there at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench.errors import ModelError, UsageError
from bench.experiment import Model
from bench.fabricate import SHAPES, Format, _config, fabricate, fabricate_in_memory, find_vocabulary, harmony_tokenizer, size_up
from bench.models import find_model, load_checked, load_tokenizer

DATA = os.environ.get("EFFORTBENCH_DATA")
needs_vocabulary = pytest.mark.skipif(DATA is None, reason="EFFORTBENCH_DATA is unset: no o200k vocabulary to build from")


def keys(folder: Path) -> dict[str, torch.Size]:
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    found = {}
    for file in set(index["weight_map"].values()):
        with safe_open(folder / file, "pt") as tensors:
            found |= {key: torch.Size(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    assert found.keys() == index["weight_map"].keys()
    return found


def generate(model: Any) -> Any:
    prompt = torch.tensor([[5, 6, 7]])
    return model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False, pad_token_id=0)


@pytest.mark.parametrize("layout", ["bf16", "mxfp4"])
def test_every_weight_of_a_fabricated_folder_is_loaded_and_generates(tmp_path: Path, layout: Format) -> None:
    made = fabricate("tiny", layout, tmp_path / "model")
    assert find_model(Model(id=str(made.folder))) == made.folder
    model = load_checked(made.folder, "bfloat16")  # raises where a key is missing or strange
    experts = model.model.layers[0].mlp.experts.gate_up_proj.float()
    assert 0.01 < experts.std() < 0.04, "random, and of a size that trains"
    assert generate(model).shape[1] > 3


def test_mxfp4_weights_take_four_bits_and_a_quarter(tmp_path: Path) -> None:
    packed = keys(fabricate("tiny", "mxfp4", tmp_path / "mxfp4").folder)
    whole = keys(fabricate("tiny", "bf16", tmp_path / "bf16").folder)
    experts = "model.layers.0.mlp.experts.gate_up_proj"
    bits = 8 * (packed[f"{experts}_blocks"].numel() + packed[f"{experts}_scales"].numel())
    assert bits / whole[experts].numel() == 4.25


def test_four_bit_folder_names_every_expert_and_is_refused_where_it_would_load_random_ones(tmp_path: Path) -> None:
    made = fabricate("tiny", "bnb-4bit", tmp_path / "model")
    shapes = keys(made.folder)
    experts = {key.split(".experts.")[1].rsplit(".", 1)[0] for key in shapes if ".experts." in key and key.endswith("weight")}
    assert experts == {f"{matrix}s.{expert}" for matrix in ("gate_up_proj", "down_proj") for expert in range(4)}
    assert "model.layers.0.mlp.router.linear.weight" in shapes
    assert shapes["model.layers.0.mlp.experts.gate_up_projs.0.weight"].numel() == 64 * 128 // 2
    with pytest.raises(ModelError, match="randomly initialised"):
        load_checked(made.folder, "bfloat16")


@pytest.mark.parametrize("part", ["gate_up_proj_scales", "down_proj_blocks"])
def test_packed_experts_without_their_scales_are_refused(tmp_path: Path, part: str) -> None:
    folder, name = fabricate("tiny", "mxfp4", tmp_path / "model").folder, f"model.layers.0.mlp.experts.{part}"
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    shard = folder / index["weight_map"].pop(name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    save_file({key: tensor for key, tensor in load_file(shard).items() if key != name}, shard, {"format": "pt"})
    with pytest.raises(ModelError):
        load_checked(folder, "bfloat16")


def test_same_seed_gives_the_same_folder_and_another_seed_another(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> bytes:
        folder = fabricate("tiny", "bf16", tmp_path / name, seed=seed).folder
        return b"".join(file.read_bytes() for file in sorted(folder.glob("*.safetensors")))

    assert weights("a", 1) == weights("b", 1) != weights("c", 2)


@pytest.mark.parametrize(("shape", "billions"), [("gpt-oss-20b", 20.91), ("gpt-oss-120b", 116.83)])
def test_shapes_have_the_published_parameter_counts(shape: str, billions: float) -> None:
    from transformers import AutoModelForCausalLM

    config = _config(shape)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (199998, 200002, 199999)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.005)


@needs_vocabulary
def test_true_vocabulary_spells_text_as_the_published_tokenizer_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = find_vocabulary("gpt-oss-20b")
    assert vocabulary is not None
    harmony_tokenizer(201088, vocabulary, 4096).save_pretrained(str(tmp_path))
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == 201088
    monkeypatch.setenv("TIKTOKEN_ENCODINGS_BASE", str(vocabulary.parent))
    from openai_harmony import HarmonyEncodingName, load_harmony_encoding

    official = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    text = "<|start|>user<|message|>Wie viele Äpfel? 1,234 × ৭৮ ราคา\n\n  'we’ll' see<|end|>"
    assert tokenizer(text)["input_ids"] == official.encode(text, allowed_special="all")


def test_tiny_spells_any_text_in_bytes(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(fabricate("tiny", "bf16", tmp_path / "model").folder)
    text = "<|start|>user<|message|>৭৮ 𝄞<|end|>"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert max(ids) < SHAPES["tiny"]["vocab_size"]


def test_file_that_is_no_vocabulary_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("no vocabulary at all\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no vocabulary of tiktoken"):
        fabricate("gpt-oss-20b", "bf16", tmp_path / "gpt-oss-20b-BF16", vocabulary=tmp_path / "words.txt")
    assert not (tmp_path / "gpt-oss-20b-BF16").exists()


def test_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("dear", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        fabricate("tiny", "bf16", tmp_path / "model")
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["mine"]


@pytest.mark.parametrize(("layout", "name"), [("bnb-4bit", "gpt-oss-20b"), ("mxfp4", "gpt-oss-20b-BF16"), ("bf16", "model")])
def test_name_that_misleads_unsloth_is_refused(tmp_path: Path, layout: Format, name: str) -> None:
    with pytest.raises(UsageError, match="as on the hub"):
        fabricate("gpt-oss-20b", layout, tmp_path / name)


def test_model_in_memory_equals_one_from_disk_in_all_but_its_draw(tmp_path: Path) -> None:
    from_disk = load_checked(fabricate("tiny", "bf16", tmp_path / "model").folder, "bfloat16")
    in_memory = fabricate_in_memory("tiny", device="cpu")
    assert {name: (value.shape, value.dtype) for name, value in in_memory.state_dict().items()} == {
        name: (value.shape, value.dtype) for name, value in from_disk.state_dict().items()
    }
    in_memory.load_state_dict(from_disk.state_dict())  # what is computed and not stored must be right too
    prompt = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(in_memory(prompt).logits, from_disk(prompt).logits)


def test_sizing_counts_parameters_and_knows_no_vram_without_a_gpu() -> None:
    sizing = size_up("tiny")
    assert sizing.weights_bytes == 2 * sizing.parameters
    assert (sizing.peak_vram_bytes is None) == (not torch.cuda.is_available())
    assert sizing.decode_tokens_per_s > 0


SIZED_TWICE = "from bench.fabricate import size_up; print(*(size_up('tiny').build_s for _ in range(2)))"


def test_building_in_memory_is_timed_without_the_imports_it_needs() -> None:
    """A tiny model took 4.5 s in a fresh process, and 0.02 s the second time."""
    done = subprocess.run([sys.executable, "-c", SIZED_TWICE], capture_output=True, text=True, check=True)
    first_s, second_s = map(float, done.stdout.split())
    assert first_s < second_s + 1
