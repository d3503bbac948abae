"""Model id -> folder, fingerprint, tokenizer and a loaded model whose every weight really came from the checkpoint.

Nothing remote is trusted: safetensors only, no remote code. A load that would leave weights randomly initialised is refused, whatever
transformers thinks of it.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import ModelError
from bench.experiment import ADAPTER_CONFIG, ADAPTER_FILES, ADAPTER_WEIGHTS, Model
from bench.expert_adapters import attach_per_expert, is_per_expert
from bench.harmony import find_specials

EMBEDDED = Path(__file__).parent / "embedded" / "model"
READ_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""All that a model is loaded from, in its own folder: openai/gpt-oss-20b holds its weights once more in `original/`, 13.8 GB."""
_CHUNK_BYTES = 1 << 20


def find_model(model: Model) -> Path:
    """The folder with config.json and weights: shipped, local, or a hub snapshot. Raises ModelError."""
    if model.id == "embedded":
        return EMBEDDED
    folder = Path(os.path.expanduser(model.id))
    if not os.path.isdir(folder) and model.id.count("/") == 1 and not model.id.startswith((".", "/", "~")):
        folder = _download(model)
    if not os.path.isdir(folder):  # unlike Path.is_dir, no error on a name too long to be one
        raise ModelError(f"no model {model.id!r}: expected `embedded`, a folder, or a hub id such as unsloth/gpt-oss-20b")
    check_model(folder)
    quantized = _read_json(folder / "config.json").get("quantization_config")
    if isinstance(quantized, dict) and quantized.get("quant_method") == "bitsandbytes" and not model.load_in_4bit:
        raise ModelError(
            f"{model.id}: a 4-bit checkpoint of bitsandbytes, and model.load_in_4bit is false: set it to true, on a CUDA GPU, or name the "
            "16-bit checkpoint of the same model"
        )
    return folder


def check_model(folder: Path) -> Path:
    """The folder, where it holds a model in safetensors that asks for no code of its own. Raises ModelError."""
    _read_json(folder / "config.json")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: no *.safetensors file; other weight formats can run code when loaded and are refused")
    for name in ("config.json", "tokenizer_config.json"):
        if name == "config.json" or (folder / name).exists():
            if _read_json(folder / name).get("auto_map"):
                raise ModelError(f"{folder}: {name} asks for remote code (auto_map); only classes of transformers are run")
    return folder


def _download(model: Model) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model.id, revision=model.revision, allow_patterns=list(READ_FILES), ignore_patterns=["*/*"]))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        commit = f" at {model.revision}" if model.revision else ""
        raise ModelError(
            f"model {model.id!r} is no folder and could not be had from the hub{commit} ({type(error).__name__}): "
            "give a local folder, or a hub id that can be reached or is in the local cache"
        ) from error


def check_adapter(folder: Path) -> Path:
    """The folder of a LoRA adapter in safetensors. Raises ModelError."""
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise ModelError(f"adapter {folder}: no {name}; expected a folder written by PEFT's save_pretrained")
    kind = _read_json(folder / ADAPTER_CONFIG).get("peft_type")
    if kind != "LORA":
        raise ModelError(f"adapter {folder}: peft_type is {kind!r}, expected LORA")
    return folder


def fingerprint(folder: Path) -> str:
    """Hash of all files that the weights, the tokenizer and the prompt are read from, 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and any(path.match(pattern) for pattern in READ_FILES):
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
    return digest.hexdigest()[:16]


def load_tokenizer(folder: Path) -> Any:
    """The model's tokenizer. Raises ModelError where transformers can read none, or where it lacks Harmony's special tokens."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever it is: tokenizers raises bare Exception
        raise ModelError(f"{folder}: no readable tokenizer: {_one_line(error)}") from error
    try:
        find_specials(tokenizer)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error
    return tokenizer


class HeldBase:
    """The base model of a process, for one arm after the other.

    An adapter that lay beside the weights is taken off again. One that was merged has used them up, and they are read anew: to take it out
    would round them, and to keep a second copy would double the memory.
    """

    def __init__(self) -> None:
        self._model: Any = None
        self._adapted: Any = None
        self._of: tuple[Path, Model] | None = None

    def adapted(self, folder: Path, model: Model, adapter: Path | None) -> Any:
        """The base in eval mode, with the adapter beside its weights as training left it, or alone. Raises ModelError."""
        if self._adapted is not None:
            self._model, self._adapted = self._adapted.unload(), None
        if self._of != (folder, model):
            self._model = None
        _free_memory()  # of the arm before
        if self._model is None:
            self._model, self._of = _load_base(folder, model), (folder, model)
        if adapter is None:
            return self._model
        self._adapted = _beside(self._model, model, adapter)
        return self._adapted

    def merged(self) -> Any:
        """The arm last asked for, its adapter added to the weights. 4-bit weights are let be, for merging would round them again."""
        assert self._of is not None, "no arm was asked for"
        if self._adapted is None:
            return self._model
        if self._of[1].load_in_4bit:
            return self._adapted
        adapted, self._adapted, self._model = self._adapted, None, None
        return merged(adapted)


def load_unmerged(folder: Path, model: Model, adapter: Path) -> Any:
    """The base in eval mode with an adapter beside its weights. Raises ModelError."""
    return _beside(_load_base(folder, model), model, adapter)


def _load_base(folder: Path, model: Model) -> Any:
    """On CUDA with load_in_4bit as Unsloth loads it, everywhere else as transformers does, in `model.dtype`."""
    import torch

    if model.load_in_4bit and torch.cuda.is_available():
        return _load_four_bit(folder, model)
    if model.load_in_4bit:
        raise ModelError("load_in_4bit needs a CUDA GPU, found none: set model.load_in_4bit=false, with dtype float32 on a CPU")
    return load_checked(folder, model.dtype).to(_device()).eval()


def _beside(base: Any, model: Model, adapter: Path) -> Any:
    adapted = attach(base, adapter)
    if model.load_in_4bit:
        from unsloth import FastLanguageModel

        FastLanguageModel.for_inference(adapted)
    return adapted.to(_device()).eval()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _free_memory() -> None:
    import torch

    gc.collect()  # engines and models hold one another
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def merged(model: Any) -> Any:
    """The base model with the adapter added to its weights; the adapted model is used up."""
    return model.merge_and_unload().eval()


def attach(model: Any, adapter: Path) -> Any:
    """The model with the adapter on it, every weight of it in its place. Raises ModelError, as for an adapter of another base."""
    from peft import LoraConfig, PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    check_adapter(adapter)
    is_fused = any(name.endswith(".experts.gate_up_proj") for name, _ in model.named_parameters())
    try:
        weights = load_file(adapter / ADAPTER_WEIGHTS)
        if is_fused and is_per_expert(weights):
            return attach_per_expert(model, LoraConfig.from_pretrained(str(adapter)), weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of keys it did not find; they are refused below
            adapted = PeftModel.from_pretrained(model, str(adapter))
    except Exception as error:  # peft, torch and safetensors each raise their own kinds
        raise ModelError(f"adapter {adapter} does not fit the base model: {_one_line(error)}") from error
    held = set(weights)
    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if held != expected:
        strange = sorted(held ^ expected)
        raise ModelError(
            f"adapter {adapter} does not fit the base model: {len(strange)} weights without a place or a value ({strange[0]}, ...); "
            "was it trained on another base?"
        )
    return adapted


@contextmanager
def adapter_taken_off(adapted: Any) -> Iterator[None]:
    """The base's own layers stand where the adapter's stood; afterwards the adapter is back, whatever happened.

    Layers of an adapter that is merely disabled are called all the same, and quick ways that libraries have for plain layers pass them
    by: Unsloth's one product of all 4-bit experts, for one, from 256 tokens on.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    parents = [module for module in adapted.modules() if not isinstance(module, BaseTunerLayer)]
    layers = [(parent, name, layer) for parent in parents for name, layer in parent.named_children() if isinstance(layer, BaseTunerLayer)]
    try:
        for parent, name, layer in layers:
            setattr(parent, name, layer.get_base_layer())
        yield
    finally:
        for parent, name, layer in layers:
            setattr(parent, name, layer)


def load_checked(folder: Path, dtype: str, device: str = "cpu") -> Any:
    """Transformers' causal model of the folder, every weight from the checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        loaded, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **({} if device == "cpu" else {"device_map": {"": 0}}),
        )
    except Exception as error:  # transformers, safetensors and the config's own checks each raise their own kinds
        raise ModelError(f"{folder} could not be loaded: {_one_line(error)}") from error
    refuse_random_weights(folder, report)
    return loaded


LOADING_FAULTS = ("missing_keys", "mismatched_keys", "unexpected_keys")


def refuse_random_weights(folder: Path, report: Any, kinds: Sequence[str] = LOADING_FAULTS) -> None:
    """Raise ModelError where a loading report shows weights that the checkpoint did not fill."""
    for kind in kinds:
        keys = sorted(map(str, _report_keys(report, kind)))
        if keys:
            raise ModelError(
                f"{folder}: {len(keys)} {kind.replace('_', ' ')} on loading ({', '.join(keys[:3])}, ...): the model would run "
                "with randomly initialised weights. Is the checkpoint's layout one that this device can load?"
            )


@contextmanager
def watch_loading(folder: Path) -> Iterator[dict[str, int]]:
    """Hear what transformers reports of every load inside the block, for loaders that keep the report to themselves, as Unsloth does.

    Yields how many `missing`, `unexpected` and `mismatched` keys there were, filled when the block ends. Raises ModelError where weights
    were left random, or where nothing was heard: then nobody can tell.
    """
    from transformers import PreTrainedModel

    reports: list[Any] = []
    original = PreTrainedModel.__dict__["from_pretrained"]

    def listening(cls: Any, /, *arguments: Any, output_loading_info: bool = False, **options: Any) -> Any:
        model, report = original.__func__(cls, *arguments, output_loading_info=True, **options)
        reports.append(report)
        return (model, report) if output_loading_info else model

    PreTrainedModel.from_pretrained = classmethod(listening)
    counts: dict[str, int] = {}
    try:
        yield counts
    finally:
        PreTrainedModel.from_pretrained = original
    if not reports:
        raise ModelError(f"{folder}: the loader did not tell which keys it found, so its weights could be random")
    for report in reports:
        refuse_random_weights(folder, report, kinds=("missing_keys", "mismatched_keys"))
    for kind in ("missing", "unexpected", "mismatched"):
        counts[kind] = sum(len(_report_keys(report, f"{kind}_keys")) for report in reports)


def expert_layout(model: Any) -> str | None:
    """How the experts lie in memory: nf4-per-expert, nf4-fused, mxfp4-packed, or their dtype; None where there are no experts."""
    for name, parameter in model.named_parameters():
        if ".experts." not in name or "bias" in name or "lora_" in name:
            continue
        kind = type(parameter).__name__
        if kind == "Params4bit":
            is_numbered = any(part.isdigit() for part in name.rpartition(".experts.")[2].split("."))
            return "nf4-per-expert" if is_numbered else "nf4-fused"
        if "blocks" in name or "scales" in name or str(parameter.dtype) == "torch.uint8":
            return "mxfp4-packed"
        return str(parameter.dtype).removeprefix("torch.")
    return None


def _report_keys(report: Any, kind: str) -> Any:
    return report.get(kind, ()) if isinstance(report, dict) else getattr(report, kind, ())


def _load_four_bit(folder: Path, model: Model) -> Any:
    import torch

    # In eval mode Unsloth's attention computes what transformers' does, out of the slots' reach. Off, transformers' own is called
    os.environ.setdefault("UNSLOTH_ENABLE_FLEX_ATTENTION", "0")
    # unsloth patches transformers on import, so it must come first in this process
    from unsloth import FastLanguageModel

    with watch_loading(folder):
        loaded, _ = FastLanguageModel.from_pretrained(
            model_name=str(folder), max_seq_length=4096, dtype=getattr(torch, model.dtype), load_in_4bit=True, local_files_only=True
        )
    FastLanguageModel.for_inference(loaded)
    return loaded.eval()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent}: no {path.name}; expected the folder of a transformers model") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return data
