"""Models: whatever is not wholly and safely a gpt-oss-like checkpoint is refused, in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench import models
from bench.errors import ModelError
from bench.experiment import Model
from bench.models import (
    EMBEDDED,
    HeldBase,
    check_adapter,
    expert_layout,
    find_model,
    fingerprint,
    load_checked,
    load_tokenizer,
    watch_loading,
)

WEIGHTS = "model.safetensors"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The embedded model, to be damaged."""
    return Path(shutil.copytree(EMBEDDED, tmp_path / "model"))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def model(identifier: str | Path, **changes: Any) -> Model:
    return Model.model_validate({"id": str(identifier), "load_in_4bit": False, "dtype": "float32"} | changes)


# --- finding


def test_embedded_is_the_shipped_folder_and_small() -> None:
    assert find_model(model("embedded")) == EMBEDDED
    assert (EMBEDDED / WEIGHTS).stat().st_size <= 8 * 2**20


def test_a_folder_is_taken_as_it_is(copied: Path) -> None:
    assert find_model(model(copied)) == copied


@pytest.mark.parametrize("name", ["nowhere", "./no/where", "/no/such/folder", "~nobody-here/x", "x" * 5000, "a\0b"])
def test_a_missing_folder_says_what_a_model_may_be(name: str) -> None:
    assert "expected `embedded`, a folder, or a hub id" in refusal(lambda: find_model(model(name)))


def test_a_file_is_no_model(copied: Path) -> None:
    assert "no model" in refusal(lambda: find_model(model(copied / WEIGHTS)))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl"])
def test_weights_as_pickle_are_refused(copied: Path, name: str) -> None:
    (copied / WEIGHTS).rename(copied / name)
    assert "no *.safetensors file; other weight formats can run code" in refusal(lambda: find_model(model(copied)))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(copied: Path, name: str) -> None:
    edit_json(copied / name, auto_map={"AutoModelForCausalLM": "modeling.Evil"})
    assert f"{name} asks for remote code (auto_map)" in refusal(lambda: find_model(model(copied)))


def test_a_folder_without_config_is_no_model(copied: Path) -> None:
    (copied / "config.json").unlink()
    assert "no config.json" in refusal(lambda: find_model(model(copied)))


def test_a_four_bit_checkpoint_is_not_taken_for_another(copied: Path) -> None:
    edit_json(copied / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    assert "model.load_in_4bit is false" in refusal(lambda: find_model(model(copied)))
    assert find_model(model(copied).model_copy(update={"load_in_4bit": True})) == copied


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 100_000])
def test_a_damaged_config_is_one_line(copied: Path, text: str) -> None:
    (copied / "config.json").write_text(text, encoding="utf-8")
    assert "config.json" in refusal(lambda: find_model(model(copied)))


# --- fingerprint


def test_a_copy_has_the_same_fingerprint(copied: Path) -> None:
    assert fingerprint(copied) == fingerprint(EMBEDDED)


@pytest.mark.parametrize("name", [WEIGHTS, "chat_template.jinja", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_any_byte_of_weights_template_tokenizer_or_config_makes_another_model(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    for position in (0, len(content) // 2, len(content) - 1):
        content[position] ^= 1
        (copied / name).write_bytes(content)
        assert fingerprint(copied) != fingerprint(EMBEDDED)
        content[position] ^= 1
    (copied / name).write_bytes(content)
    assert fingerprint(copied) == fingerprint(EMBEDDED)


def test_bytes_moved_from_one_file_to_the_next_make_another_model(tmp_path: Path) -> None:
    for name, first, second in (("a", b"12", b"3"), ("b", b"1", b"23")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.safetensors").write_bytes(first)
        (tmp_path / name / "2.safetensors").write_bytes(second)
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")


def test_a_card_does_not_make_another_model(copied: Path) -> None:
    (copied / "CARD.md").write_text("other words", encoding="utf-8")
    assert fingerprint(copied) == fingerprint(EMBEDDED)


# --- tokenizers


def test_the_embedded_tokenizer_has_harmonys_tokens() -> None:
    assert load_tokenizer(EMBEDDED).convert_tokens_to_ids("<|channel|>") > 0


@pytest.mark.parametrize("token", ["<|channel|>", "<|return|>", "<|start|>"])
def test_a_tokenizer_that_lacks_a_harmony_token_is_refused(copied: Path, token: str) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (copied / name).read_text(encoding="utf-8")
        (copied / name).write_text(text.replace(token, token.replace("<|", "<:")), encoding="utf-8")
    message = refusal(lambda: load_tokenizer(copied))
    assert str(copied) in message
    assert f"tokenizer has no special token {token}" in message


@pytest.mark.parametrize("text", ["", "{", "{}", '{"version": "1.0"}'])
def test_a_damaged_tokenizer_is_one_line(copied: Path, text: str) -> None:
    (copied / "tokenizer.json").write_text(text, encoding="utf-8")
    assert "no readable tokenizer" in refusal(lambda: load_tokenizer(copied))


def test_a_folder_without_tokenizer_is_one_line(tmp_path: Path) -> None:
    assert "no readable tokenizer" in refusal(lambda: load_tokenizer(tmp_path))


# --- loading


def test_every_weight_comes_from_the_checkpoint() -> None:
    loaded = load_checked(EMBEDDED, "float32").state_dict()
    held = load_file(EMBEDDED / WEIGHTS)
    assert held.keys() <= loaded.keys()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in held.items())


def test_a_missing_tensor_is_refused_not_made_up(copied: Path) -> None:
    edit_weights(copied / WEIGHTS, lambda tensors: tensors.pop("model.norm.weight"))
    message = refusal(lambda: load_checked(copied, "float32"))
    assert "1 missing keys on loading (model.norm.weight" in message
    assert "randomly initialised" in message


def test_a_missing_expert_is_refused(copied: Path) -> None:
    edit_weights(copied / WEIGHTS, lambda tensors: tensors.pop("model.layers.0.mlp.experts.gate_up_proj"))
    assert "missing keys" in refusal(lambda: load_checked(copied, "float32"))


def test_a_strange_tensor_is_refused(copied: Path) -> None:
    edit_weights(copied / WEIGHTS, lambda tensors: tensors.update({"model.layers.0.strange": torch.zeros(2)}))
    assert "unexpected keys" in refusal(lambda: load_checked(copied, "float32"))


def test_a_tensor_of_another_shape_is_refused(copied: Path) -> None:
    edit_weights(copied / WEIGHTS, lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}))
    refusal(lambda: load_checked(copied, "float32"))


@pytest.mark.parametrize("keep", [0, 7, 5000, 5_000_000])
def test_a_torn_checkpoint_is_one_line(copied: Path, keep: int) -> None:
    (copied / WEIGHTS).write_bytes((copied / WEIGHTS).read_bytes()[:keep])
    assert "could not be loaded" in refusal(lambda: load_checked(copied, "float32"))


@pytest.mark.parametrize("changes", [{"model_type": "no-such-model"}, {"hidden_size": "wide"}, {"num_hidden_layers": 9}])
def test_a_config_that_does_not_fit_its_weights_is_refused(copied: Path, changes: dict[str, Any]) -> None:
    edit_json(copied / "config.json", **changes)
    refusal(lambda: load_checked(copied, "float32"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_four_bits_without_a_gpu_say_what_to_set() -> None:
    message = refusal(lambda: load_arm(EMBEDDED, model("embedded", load_in_4bit=True), None))
    assert "set model.load_in_4bit=false" in message


def load_by_another(folder: Path) -> None:
    """A loader that keeps transformers' report to itself."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def test_loads_of_other_loaders_are_listened_to() -> None:
    with watch_loading(EMBEDDED) as report:
        load_by_another(EMBEDDED)
    assert report == {"missing": 0, "unexpected": 0, "mismatched": 0}


def test_random_experts_of_another_loader_are_refused(copied: Path) -> None:
    def load() -> None:
        with watch_loading(copied):
            load_by_another(copied)

    edit_weights(copied / WEIGHTS, lambda tensors: tensors.pop("model.layers.0.mlp.experts.gate_up_proj"))
    assert "1 missing keys on loading (model.layers.0.mlp.experts.gate_up_proj" in refusal(load)


def test_keys_without_a_place_are_counted(copied: Path) -> None:
    edit_weights(copied / WEIGHTS, lambda tensors: tensors.update({"model.layers.0.strange": torch.zeros(2)}))
    with watch_loading(copied) as report:
        load_by_another(copied)
    assert report == {"missing": 0, "unexpected": 1, "mismatched": 0}


def test_a_loader_that_told_nothing_is_not_trusted_and_transformers_is_left_as_it_was() -> None:
    from transformers import PreTrainedModel

    def load() -> None:
        with watch_loading(EMBEDDED):
            pass

    before = PreTrainedModel.__dict__["from_pretrained"]
    assert "did not tell which keys it found" in refusal(load)
    assert PreTrainedModel.__dict__["from_pretrained"] is before


class Named:
    """Parameters by name, as a model gives them."""

    def __init__(self, **parameters: Any):
        self.parameters = {name.replace("__", "."): parameter for name, parameter in parameters.items()}

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        return iter(self.parameters.items())


def test_layouts_of_the_experts_are_told_apart() -> None:
    from bitsandbytes.nn import Params4bit

    assert expert_layout(load_checked(EMBEDDED, "float32")) == "float32"
    assert expert_layout(load_checked(EMBEDDED, "bfloat16")) == "bfloat16"
    four_bit, packed = Params4bit(torch.zeros(4, 4), requires_grad=False), torch.zeros(4, dtype=torch.uint8)
    assert expert_layout(Named(layers__0__mlp__experts__gate_up_proj=four_bit)) == "nf4-fused"
    assert expert_layout(Named(layers__0__mlp__experts__gate_up_projs__3__weight=four_bit)) == "nf4-per-expert"
    assert expert_layout(Named(layers__0__mlp__experts__gate_up_proj_blocks=packed)) == "mxfp4-packed"
    assert expert_layout(Named(layers__0__self_attn__q_proj__weight=four_bit)) is None


# --- adapters


@cache
def lora(rank: int, experts: bool) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(rank)
    config = LoraConfig(
        r=rank,
        target_modules=["q_proj", "v_proj"],
        target_parameters=["mlp.experts.gate_up_proj"] if experts else None,
        init_lora_weights=False,
    )
    return get_peft_model(load_checked(EMBEDDED, "float32"), config)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA on the embedded model's attention, with random weights."""
    lora(4, False).save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    return tmp_path / "adapter"


def load_arm(folder: Path, asked: Model, adapter: Path | None) -> Any:
    """As the passes get it."""
    base = HeldBase()
    base.adapted(folder, asked, adapter)
    return base.merged()


def logits(loaded: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = loaded(torch.arange(20, 40)[None]).logits
    return found


@pytest.mark.parametrize("experts", [False, True], ids=["attention", "attention and experts"])
def test_an_adapter_is_merged_and_changes_what_the_model_says(tmp_path: Path, experts: bool) -> None:
    lora(4, experts).save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    loaded = load_arm(EMBEDDED, model("embedded"), tmp_path / "adapter")
    assert not loaded.training
    assert torch.allclose(logits(loaded), logits(lora(4, experts).eval()).to(loaded.device), atol=1e-3)
    assert not torch.allclose(logits(loaded), logits(load_arm(EMBEDDED, model("embedded"), None)), atol=1e-1)


@pytest.fixture
def adapters(tmp_path: Path) -> dict[str, Path | None]:
    """Base, and adapters of two ranks and kinds."""
    for name, asked in {"r4": (4, False), "r2-experts": (2, True)}.items():
        lora(*asked).save_pretrained(tmp_path / name, save_embedding_layers=False)
    return {"base": None, "r4": tmp_path / "r4", "r2-experts": tmp_path / "r2-experts"}


ARMS = ["base", "r4", "r2-experts", "base", "r2-experts", "r4", "r4", "base"]


def test_arms_that_take_turns_on_one_base_are_those_of_a_base_of_their_own(
    adapters: dict[str, Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, and the weights are read once."""
    asked = model("embedded")
    alone = {name: logits(HeldBase().adapted(EMBEDDED, asked, path)) for name, path in adapters.items()}
    loads = []
    monkeypatch.setattr(models, "load_checked", lambda *named: loads.append(named) or load_checked(*named))
    base = HeldBase()
    for name in ARMS:
        assert torch.equal(logits(base.adapted(EMBEDDED, asked, adapters[name])), alone[name]), name
    assert len(loads) == 1


def four_bit_llama(folder: Path) -> Any:
    """A tiny random model in NF4, as bitsandbytes quantizes it."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

    if not folder.exists():
        config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=128)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantized, dtype=torch.float32, device_map={"": "cpu"}).eval()


def test_adapters_come_off_four_bit_weights_without_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA: a CPU with AVX-512 for bfloat16 has them packed at an answer and unpacked, rounded, at a change."""
    import bitsandbytes
    from peft import LoraConfig, get_peft_model

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: False)
    monkeypatch.setattr(models, "_load_base", lambda *_: four_bit_llama(tmp_path / "llama"))
    folders: dict[str, Path | None] = {"base": None, "one": tmp_path / "one", "other": tmp_path / "other"}
    for seed, (_, folder) in enumerate(folders.items()):
        if folder is not None:
            torch.manual_seed(seed)
            config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "gate_proj"], init_lora_weights=False)
            get_peft_model(four_bit_llama(tmp_path / "llama"), config).save_pretrained(folder)
    asked = model("any")
    alone = {name: logits(HeldBase().adapted(tmp_path, asked, folder)) for name, folder in folders.items()}
    assert not torch.allclose(alone["one"], alone["other"], atol=1e-1)
    base = HeldBase()
    for name in ("base", "one", "other", "base", "one"):
        assert torch.equal(logits(base.adapted(tmp_path, asked, folders[name])), alone[name]), name


def test_merged_arms_leave_nothing_behind_in_the_next_ones_weights(adapters: dict[str, Path | None]) -> None:
    asked, base = model("embedded"), HeldBase()
    alone = {name: logits(load_arm(EMBEDDED, asked, path)) for name, path in adapters.items()}
    for name in ARMS:
        base.adapted(EMBEDDED, asked, adapters[name])
        assert torch.equal(logits(base.merged()), alone[name]), name


def test_another_model_is_read_where_another_is_asked_for(copied: Path) -> None:
    edit_weights(copied / WEIGHTS, lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"] * 2}))
    base = HeldBase()
    before = logits(base.adapted(EMBEDDED, model("embedded"), None))
    assert not torch.equal(logits(base.adapted(copied, model(copied), None)), before)
    assert torch.equal(logits(base.adapted(EMBEDDED, model("embedded"), None)), before)
    assert base.adapted(EMBEDDED, model("embedded", dtype="bfloat16"), None).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_that_lacks_a_file_is_refused(adapter: Path, name: str) -> None:
    (adapter / name).rename(adapter / f"{name}.bin")
    assert f"no {name}" in refusal(lambda: check_adapter(adapter))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"peft_type": "IA3"}'])
def test_an_adapter_of_another_kind_is_refused(adapter: Path, text: str) -> None:
    (adapter / "adapter_config.json").write_text(text, encoding="utf-8")
    assert "adapter" in refusal(lambda: check_adapter(adapter))


def load_adapter(adapter: Path) -> str:
    message = refusal(lambda: load_arm(EMBEDDED, model("embedded"), adapter))
    assert "does not fit the base model" in message
    return message


def test_an_adapter_that_lacks_weights_is_refused_not_run_without_them(adapter: Path) -> None:
    edit_weights(adapter / "adapter_model.safetensors", lambda tensors: tensors.pop(sorted(tensors)[0]))
    assert "1 weights without a place or a value" in load_adapter(adapter)


def deepen(tensors: dict[str, torch.Tensor]) -> None:
    tensors.update({name.replace("layers.0.", "layers.77."): tensor.clone() for name, tensor in tensors.items() if "layers.0." in name})


def test_an_adapter_of_a_deeper_base_is_refused(adapter: Path) -> None:
    edit_weights(adapter / "adapter_model.safetensors", deepen)
    assert "layers.77" in load_adapter(adapter)


def test_an_adapter_of_a_wider_base_is_refused(adapter: Path) -> None:
    edit_weights(adapter / "adapter_model.safetensors", lambda t: t.update({name: torch.cat([x, x], -1) for name, x in t.items()}))
    load_adapter(adapter)


def test_a_torn_adapter_is_refused(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    load_adapter(adapter)
