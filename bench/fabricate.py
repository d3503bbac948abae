"""Models of a true shape with random weights, to size a card and to try a pipeline before anything is downloaded.

They load, train and generate as the real ones do in time and memory; what they say means nothing.

Layouts of a folder, as they are published:
  bf16      transformers' fused experts, as unsloth/gpt-oss-20b-BF16
  mxfp4     the experts packed four bits a weight with a scale for every 32, as openai/gpt-oss-20b
  bnb-4bit  every expert a linear of its own, NF4 with double quantization, as unsloth/gpt-oss-20b-unsloth-bnb-4bit
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.errors import UsageError
from bench.meter import Reading, metered
from bench.models import EMBEDDED
from bench.store import whole_folder

Shape = Literal["gpt-oss-20b", "gpt-oss-120b", "tiny"]
Format = Literal["bf16", "mxfp4", "bnb-4bit"]
SHAPES: dict[str, dict[str, Any]] = {
    "gpt-oss-20b": {"num_hidden_layers": 24, "num_local_experts": 32},
    "gpt-oss-120b": {"num_hidden_layers": 36, "num_local_experts": 128},
    "tiny": {
        "num_hidden_layers": 2, "num_local_experts": 4, "num_experts_per_tok": 2, "hidden_size": 64, "intermediate_size": 64,
        "head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 32, "vocab_size": 320,
    },
}  # fmt: skip
"""What differs from transformers' GptOssConfig. Source: model card, arXiv 2508.10925, table 1."""
HUB_SUFFIX: dict[str, str] = {"bf16": "-BF16", "mxfp4": "", "bnb-4bit": "-unsloth-bnb-4bit"}
ADDED_TOKENS = 1090
"""Of gpt-oss's vocabulary, beyond o200k: Harmony's names and reserved places."""
HARMONY_TOKENS = {
    0: "<|startoftext|>", 1: "<|endoftext|>", 4: "<|return|>", 5: "<|constrain|>", 7: "<|channel|>",
    8: "<|start|>", 9: "<|end|>", 10: "<|message|>", 14: "<|call|>",
}  # fmt: skip
"""By place among the added tokens."""
O200K_SPLIT = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""How o200k cuts text before it merges; stated by tiktoken's o200k_base."""
TEMPLATE = EMBEDDED / "chat_template.jinja"
DEVIATION = 0.02
"""Of every random weight; transformers' initializer_range for gpt-oss."""
MXFP4_BLOCK = 32
MXFP4_SCALES = (119, 121)
"""Exponents, biased by 127: with random four-bit values the weights deviate by about 0.02."""
PROMPT_TOKENS, NEW_TOKENS = 1024, 64
_UNQUANTIZED = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
_EXPERTS = re.compile(r"(?P<place>.+\.mlp\.experts\.)(?P<matrix>gate_up_proj|down_proj)(?P<is_bias>_bias)?")
_ATTENTION_WEIGHT = re.compile(r".+\.self_attn\.[qkvo]_proj\.weight")


@dataclass(frozen=True, slots=True)
class Fabricated:
    """What was written."""

    folder: Path
    weights_bytes: int
    wall_s: float
    has_true_vocabulary: bool
    """False: a stand-in of single bytes, with Harmony's tokens at their true ids."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """What a bf16 model of the shape needs and gives on this device, measured."""

    device: str
    parameters: int
    weights_bytes: int
    build_s: float
    prefill_s: float
    """One prompt of 1,024 tokens, the second time."""
    decode_tokens_per_s: float
    """64 tokens at batch 1 through transformers' generate, after that prompt."""
    peak_vram_bytes: int | None
    """Allocated at most; None without a GPU."""


def find_vocabulary(shape: Shape) -> Path | None:
    """o200k_base.tiktoken under EFFORTBENCH_DATA/o200k, where it is there and fits the shape."""
    file = Path(os.environ.get("EFFORTBENCH_DATA", "")) / "o200k" / "o200k_base.tiktoken"
    return file if shape != "tiny" and file.is_file() else None


def fabricate(shape: Shape, layout: Format, out: Path, *, seed: int = 3407, vocabulary: Path | None = None) -> Fabricated:
    """Write a model folder, whole or not at all. `vocabulary` is o200k_base.tiktoken; without it text is spelled in bytes.

    Raises UsageError where the folder is not empty, or where its name would mislead: Unsloth tells layouts by the folder's name.
    """
    _check_folder(shape, layout, out)
    if vocabulary is not None and shape == "tiny":
        raise UsageError(f"shape tiny has a vocabulary of {SHAPES['tiny']['vocab_size']}: the true one does not fit")
    started = time.perf_counter()
    config = _config(shape)
    with whole_folder(out) as temporary:
        _write_config(config, layout, temporary)
        harmony_tokenizer(config.vocab_size, vocabulary, config.max_position_embeddings).save_pretrained(str(temporary))
        weights_bytes = _write_weights(config, layout, seed, temporary)
    return Fabricated(out, weights_bytes, time.perf_counter() - started, vocabulary is not None)


def fabricate_in_memory(shape: Shape, *, seed: int = 3407, device: str | None = None) -> Any:
    """The bf16 model on the device (a GPU where there is one), in eval mode; nothing touches the disk."""
    import torch
    from transformers import AutoModelForCausalLM

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    config = _config(shape)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _fill(name, parameter, generator)
        for module in model.modules():  # rotary frequencies are computed, not stored: to_empty left them blank
            if hasattr(module, "inv_freq"):
                with torch.device(device):
                    made = type(module)(config)
                for buffer, value in made.named_buffers():
                    setattr(module, buffer, value)
    return model.eval()


def size_up(shape: Shape, *, seed: int = 3407) -> Sizing:
    """Build the bf16 model in memory, read one prompt and write one answer. Raises torch.OutOfMemoryError where it does not fit."""
    import torch
    from transformers import AutoModelForCausalLM, GptOssForCausalLM  # noqa: F401  # what the build imports, before its clock starts

    with metered() as build:
        model = fabricate_in_memory(shape, seed=seed)
    prompt = torch.randint(model.config.vocab_size, (1, PROMPT_TOKENS), device=model.device)
    prefills = [_generate(model, prompt, 1) for _ in range(2)]
    answers = [_generate(model, prompt, NEW_TOKENS + 1) for _ in range(2)]
    prefill_s, answer_s = (min(reading.wall_s or math.inf for reading in readings) for readings in (prefills, answers))
    peaks = [reading.peak_vram_bytes for reading in (build, *prefills, *answers)]
    parameters = list(model.parameters())
    assert build.wall_s is not None
    return Sizing(
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        parameters=sum(parameter.numel() for parameter in parameters),
        weights_bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        build_s=build.wall_s,
        prefill_s=prefill_s,
        decode_tokens_per_s=NEW_TOKENS / max(answer_s - prefill_s, 1e-9),
        peak_vram_bytes=max((peak for peak in peaks if peak is not None), default=None),
    )


def _generate(model: Any, prompt: Any, new_tokens: int) -> Reading:
    with metered() as reading:
        model.generate(
            prompt, attention_mask=prompt.new_ones(prompt.shape), do_sample=False, pad_token_id=0, eos_token_id=None,
            max_new_tokens=new_tokens, min_new_tokens=new_tokens,
        )  # fmt: skip
    return reading


def _check_folder(shape: str, layout: str, out: Path) -> None:
    if shape != "tiny":
        name = shape + HUB_SUFFIX[layout]
        others = [suffix for suffix in HUB_SUFFIX.values() if suffix and suffix != HUB_SUFFIX[layout]]
        if name not in out.name or any(suffix in out.name for suffix in others):
            raise UsageError(f"Unsloth tells layouts by the folder's name: call it {name}, as on the hub, found {out.name}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there and not empty: name a new folder")


# Configuration and tokenizer -----------------------------------------------------------------------------------------------------


def _config(shape: str) -> Any:
    from transformers import GptOssConfig

    added = _added_from(SHAPES[shape].get("vocab_size", GptOssConfig().vocab_size))
    ids = {name: added + place for place, name in HARMONY_TOKENS.items()}
    return GptOssConfig(
        **SHAPES[shape],
        architectures=["GptOssForCausalLM"],
        dtype="bfloat16",
        bos_token_id=ids["<|startoftext|>"],
        eos_token_id=ids["<|return|>"],
        pad_token_id=ids["<|endoftext|>"],
    )


def _added_from(vocab_size: int) -> int:
    """Id of the first added token: 199,998 in the true vocabulary."""
    return vocab_size - ADDED_TOKENS if vocab_size > ADDED_TOKENS else vocab_size - 64


def _write_config(config: Any, layout: str, folder: Path) -> None:
    data = config.to_dict()
    if layout == "mxfp4":
        data["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": _UNQUANTIZED}
    if layout == "bnb-4bit":
        data["quantization_config"] = {
            "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "_load_in_4bit": True,
            "_load_in_8bit": False, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8", "llm_int8_threshold": 6.0,
            "llm_int8_has_fp16_weight": False, "llm_int8_enable_fp32_cpu_offload": False,
            "llm_int8_skip_modules": ["lm_head", "router"],
        }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(data, indent=2), encoding="utf-8")
    first = _added_from(config.vocab_size)
    stops = [first + place for place, name in HARMONY_TOKENS.items() if name in ("<|return|>", "<|endoftext|>", "<|call|>")]
    generation = {"bos_token_id": config.bos_token_id, "pad_token_id": config.pad_token_id, "eos_token_id": stops, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2), encoding="utf-8")


def harmony_tokenizer(vocab_size: int, vocabulary: Path | None, max_length: int) -> Any:
    """Transformers' tokenizer of o200k_base.tiktoken, or of single bytes, with Harmony's tokens behind and our chat template.

    Raises UsageError where the file is no such vocabulary, or one of another size.
    """
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    first = _added_from(vocab_size)
    added = [HARMONY_TOKENS.get(place, f"<|reserved_{first + place}|>") for place in range(vocab_size - first)]
    tokenizer = _true_tokenizer(vocabulary) if vocabulary is not None else _byte_tokenizer(first)
    if tokenizer.get_vocab_size() != first:
        raise UsageError(f"{vocabulary} holds {tokenizer.get_vocab_size():,} tokens, expected the {first:,} of o200k_base")
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in added])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|startoftext|>", eos_token="<|return|>", pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False, model_max_length=max_length,
    )  # fmt: skip
    wrapped.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return wrapped


def _byte_tokenizer(size: int) -> Any:
    """Every byte a token; the rest of the ids up to `size` decode to a placeholder and are never encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = letters + [f"~{index}" for index in range(len(letters), size)]
    tokenizer = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _true_tokenizer(vocabulary: Path) -> Any:
    """The tokenizer of a file of tiktoken's: a token in base 64 and its rank, one a line."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
            """Without the package tiktoken, which nothing else here needs."""
            try:
                lines = [line.split() for line in Path(tiktoken_url).read_bytes().splitlines() if line.strip()]
                return {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
            except (OSError, ValueError) as error:
                raise UsageError(f"{tiktoken_url} is no vocabulary of tiktoken's (base64 token, rank): {error}") from error

    return Converter(vocab_file=str(vocabulary), pattern=O200K_SPLIT).converted()


# Weights -------------------------------------------------------------------------------------------------------------------------


def _write_weights(config: Any, layout: str, seed: int, folder: Path) -> int:
    """One file a layer and one for the rest; drawn on the GPU where there is one. Returns the tensors' bytes."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    groups: dict[str, list[tuple[str, Any]]] = {}
    for name, parameter in model.named_parameters():
        layer = re.match(r"model\.layers\.\d+\.", name)
        groups.setdefault(layer[0] if layer else "", []).append((name, parameter))
    index: dict[str, str] = {}
    total = 0
    for number, parameters in enumerate(groups.values(), 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors = {
            key: tensor.cpu().contiguous()
            for name, parameter in parameters
            for key, tensor in _tensors(name, tuple(parameter.shape), layout, generator)
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    listing = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listing), encoding="utf-8")
    return total


def _tensors(name: str, shape: tuple[int, ...], layout: str, generator: Any) -> Iterator[tuple[str, Any]]:
    """The tensors that stand for one parameter of transformers' model in a checkpoint of the layout."""
    experts = _EXPERTS.fullmatch(name)
    if layout == "mxfp4" and experts and not experts["is_bias"]:
        yield from _packed(name, shape, generator)
    elif layout == "bnb-4bit" and experts:
        yield from _expert_linears(experts, shape, generator)
    elif layout == "bnb-4bit" and _ATTENTION_WEIGHT.fullmatch(name):
        yield from _four_bit(name, _random(name, shape, generator))
    elif layout == "bnb-4bit" and ".mlp.router." in name:
        yield name.replace(".mlp.router.", ".mlp.router.linear."), _random(name, shape, generator)
    else:
        yield name, _random(name, shape, generator)


def _packed(name: str, shape: tuple[int, ...], generator: Any) -> Iterator[tuple[str, Any]]:
    import torch

    experts, inputs, outputs = shape  # transformers' order; the packed layout has outputs first
    blocks = (experts, outputs, inputs // MXFP4_BLOCK)
    draw = {"generator": generator, "device": generator.device, "dtype": torch.uint8}
    yield f"{name}_blocks", torch.randint(0, 256, (*blocks, MXFP4_BLOCK // 2), **draw)
    yield f"{name}_scales", torch.randint(*MXFP4_SCALES, blocks, **draw)


def _expert_linears(found: re.Match[str], shape: tuple[int, ...], generator: Any) -> Iterator[tuple[str, Any]]:
    for expert in range(shape[0]):
        linear = f"{found['place']}{found['matrix']}s.{expert}"
        if found["is_bias"]:
            yield f"{linear}.bias", _random(found[0], shape[1:], generator)
        else:
            yield from _four_bit(f"{linear}.weight", _random(found[0], shape[:0:-1], generator))


def _four_bit(name: str, weight: Any) -> Iterator[tuple[str, Any]]:
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    yield name, packed
    for key, value in state.as_dict(packed=True).items():
        yield f"{name}.{key}", value


def _random(name: str, shape: tuple[int, ...], generator: Any) -> Any:
    import torch

    tensor = torch.empty(shape, dtype=torch.bfloat16, device=generator.device)
    _fill(name, tensor, generator)
    return tensor


def _fill(name: str, tensor: Any, generator: Any) -> None:
    """Ones for norms, else normal: what transformers would draw, and biases too, so that no term is idle."""
    if name.endswith("norm.weight"):
        tensor.fill_(1.0)
    else:
        tensor.normal_(0.0, DEVIATION, generator=generator)
