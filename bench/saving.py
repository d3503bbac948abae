"""An arm of a run -> a folder that others can load: the adapter, or the model with it merged in, each with its model card.

A merged model counts as saved only once plain transformers has read it back, every weight as it was merged, and its greedy
continuations of the run's own prompts are those of base + adapter. Where rounding to 16 bits turns a near tie, the gap is measured and
bounded.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.card import CARD, adapter_folder, card, find_arm
from bench.errors import ArmError, ModelError, UsageError
from bench.experiment import ADAPTER_FILES, Arm
from bench.harmony import find_specials
from bench.models import attach, check_adapter, check_model, find_model, load_checked, load_tokenizer
from bench.records import Run
from bench.store import read_prompts, whole_folder, write_atomic

Format = Literal["adapter", "merged-16bit", "mxfp4", "gguf"]
ELSEWHERE = {
    "mxfp4": "llm-compressor (model_free_ptq, or oneshot with scheme MXFP4)",
    "gguf": "llama.cpp (convert_hf_to_gguf.py, then llama-quantize)",
}
"""Formats that other tools write, from a merged model."""
DTYPE = "bfloat16"
LEAST_PROMPTS = 20
NEW_TOKENS = 32
KEPT_TOKENS = 256
"""Most likely tokens whose log-probability is kept at each step."""
LARGEST_GAP = 0.3
"""Nats between the adapter's token and the merged model's, by the adapter, at which a difference is still rounding: logits between 16
and 32 have steps of 0.125 in bfloat16."""
VERIFICATION = "verification.json"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the merged model continued the prompts that base + adapter had continued."""

    prompts: int
    equal: int
    """Continuations that are the same to the last token."""
    near_ties: int
    """Those that part where the adapter itself holds both tokens to be about as likely."""
    largest_gap: float
    """Nats between the two at the worst parting; 0 where all are equal, infinity where the merged one's token was not even likely."""
    unlike_base: int
    """Continuations of base + adapter that base alone does not give: with none, the prompts do not show the adapter."""
    changed_weights: int
    """Weight tensors that the merge changed; small steps of an adapter can vanish in 16 bits."""


class Continuation(NamedTuple):
    """One greedy continuation."""

    tokens: tuple[int, ...]
    likely: tuple[dict[int, float], ...]
    """Log-probability of the likeliest tokens, at each step."""


def save_arm(run: Run, name: str, form: Format, out: Path, base: Path | None = None) -> Agreement | None:
    """Write the arm to `out`, a folder that is not there yet; None for an adapter, which is copied as it is.

    `base` is the base model in 16 bits, where the run's own is quantized. Raises UsageError, and ArmError where the merged model does
    not say what the adapter says.
    """
    if form in ELSEWHERE:
        raise UsageError(f"{form} is not written here: save as merged-16bit, then convert that folder with {ELSEWHERE[form]}")
    arm = find_arm(run, name)
    adapter = check_adapter(adapter_folder(run, arm))
    if out.exists():
        raise UsageError(f"{out} exists already: pass another --out")
    agreement = None
    with whole_folder(out) as temporary:
        if form == "adapter":
            for file in ADAPTER_FILES:
                shutil.copyfile(adapter / file, temporary / file)
        else:
            agreement = _merge(run, arm, adapter, check_model(base) if base else find_model(run.experiment.model), temporary)
        write_atomic(temporary / CARD, card(run, arm, "adapter" if form == "adapter" else "merged-16bit"))
    return agreement


def _merge(run: Run, arm: Arm, adapter: Path, base: Path, out: Path) -> Agreement:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "unknown")
        raise ModelError(f"{base} is quantized ({method}), and a merge needs 16-bit weights: pass --base with the same model in bfloat16")
    import torch

    tokenizer = load_tokenizer(base)
    prompts = _prompts(run, tokenizer)
    stop_ids = find_specials(tokenizer).stop_ids
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_checked(base, DTYPE, device)
    before = checksums(loaded)
    alone = continuations(loaded, prompts, stop_ids)
    adapted = attach(loaded, adapter)
    wanted = continuations(adapted, prompts, stop_ids)
    merged = adapted.merge_and_unload()
    after = checksums(merged)
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
    del loaded, adapted, merged
    gc.collect()
    reloaded = load_checked(out, DTYPE, device)
    changed = check_merge(before, after, checksums(reloaded))
    agreement = dataclasses.replace(agree(wanted, continuations(reloaded, prompts, stop_ids), alone), changed_weights=changed)
    write_atomic(out / VERIFICATION, json.dumps(dataclasses.asdict(agreement) | {"new_tokens": NEW_TOKENS, "dtype": DTYPE}) + "\n")
    if agreement.largest_gap > LARGEST_GAP:
        raise ArmError(
            f"the merged model of {arm.name} does not say what its adapter says: {agreement.equal} of {agreement.prompts} continuations "
            f"are equal, and the worst parts by {agreement.largest_gap:.2f} nats, at most {LARGEST_GAP} is rounding; nothing was saved"
        )
    return agreement


def checksums(model: Any) -> dict[str, int]:
    """Sum of the bits of each weight, read as whole numbers, by name."""
    import torch

    wholes = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {
        name: int(weight.detach().contiguous().view(wholes[weight.element_size()]).sum(dtype=torch.int64))
        for name, weight in model.named_parameters()
    }


def check_merge(before: Mapping[str, int], merged: Mapping[str, int], reloaded: Mapping[str, int]) -> int:
    """How many weights the merge changed. Raises ArmError where it changed none, or where what was read back is not what was merged."""
    strange = sorted(name for name in merged.keys() | reloaded.keys() if merged.get(name) != reloaded.get(name))
    if strange:
        raise ArmError(f"{len(strange)} weights were read back otherwise than they were merged ({strange[0]}, ...); nothing was saved")
    changed = sum(merged[name] != before.get(name) for name in merged)
    if not changed:
        raise ArmError(f"the merge changed no weight: the adapter's steps are too small for {DTYPE}, or it was not applied")
    return changed


def _prompts(run: Run, tokenizer: Any) -> list[list[int]]:
    """Ids of prompts that the run asked, in the order of their hashes, which is none in particular."""
    texts = [text for _, text in sorted(read_prompts(run.folder))[: LEAST_PROMPTS + 4]]
    if len(texts) < LEAST_PROMPTS:
        raise UsageError(f"the run asked {len(texts)} prompts, and {LEAST_PROMPTS} are needed to verify a merge: evaluate more items")
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def continuations(model: Any, prompts: Sequence[Sequence[int]], stop_ids: frozenset[int]) -> list[Continuation]:
    """Greedy continuations by transformers' own generate, one prompt at a time: no padding, no engine of ours."""
    import torch

    model.eval()
    found = []
    for ids in prompts:
        prompt = torch.tensor([list(ids)], device=model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                eos_token_id=sorted(stop_ids),
                pad_token_id=min(stop_ids),
                output_logits=True,
                return_dict_in_generate=True,
            )
        steps = [logits[0].float().log_softmax(-1).topk(min(KEPT_TOKENS, logits.shape[-1])) for logits in output.logits]
        likely = tuple(dict(zip(step.indices.tolist(), step.values.tolist(), strict=True)) for step in steps)
        found.append(Continuation(tuple(output.sequences[0, len(ids) :].tolist()), likely))
    return found


def agree(wanted: Sequence[Continuation], found: Sequence[Continuation], alone: Sequence[Continuation]) -> Agreement:
    """Compare continuations prompt by prompt; `alone` are base's own. Of weights it knows nothing."""
    gaps = [gap(one, other) for one, other in zip(wanted, found, strict=True)]
    parted = [value for value in gaps if value is not None]
    return Agreement(
        prompts=len(wanted),
        equal=len(wanted) - len(parted),
        near_ties=sum(value <= LARGEST_GAP for value in parted),
        largest_gap=max(parted, default=0.0),
        unlike_base=sum(one.tokens != other.tokens for one, other in zip(wanted, alone, strict=True)),
        changed_weights=0,
    )


def gap(wanted: Continuation, found: Continuation) -> float | None:
    """Nats by which `wanted` prefers its own token to the other's where they part; None where they do not."""
    if wanted.tokens == found.tokens:
        return None
    for ours, theirs, likely in zip(wanted.tokens, found.tokens, wanted.likely, strict=False):
        if ours != theirs:
            return likely[ours] - likely[theirs] if theirs in likely else math.inf
    return math.inf  # one goes on where the other had ended
