"""The yardstick: the same work by plain TRL + PEFT, in a process that never imports Unsloth.

Same rows, mask, targets, seed and optimizer. It trains 16-bit (or float32) checkpoints alone: bitsandbytes leaves gpt-oss's fused
experts as they are, and packed MXFP4 takes no gradient, so there is no equal of Unsloth's quantized training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.errors import ArmError, DatasetError
from bench.experiment import Finetune
from bench.finetune import data, lora
from bench.harmony import find_specials
from bench.jobs import TrainJob
from bench.models import load_checked


def load(run: TrainJob, finetune: Finetune) -> tuple[Any, dict[str, int]]:
    """The base model on its device, every weight from the checkpoint. Raises ArmError on a quantized one, ModelError as `load_checked`."""
    import torch

    quantized = json.loads((run.base / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    if quantized is not None:
        raise ArmError(
            f"method trl trains no {quantized.get('quant_method', 'quantized')} checkpoint: plain PEFT cannot reach the same targets in "
            "it; give one in bfloat16"
        )
    model = load_checked(run.base, run.experiment.model.dtype, device="cuda" if torch.cuda.is_available() else "cpu")
    return model, dict.fromkeys(("missing", "unexpected", "mismatched"), 0)


def with_lora(run: TrainJob, finetune: Finetune, model: Any) -> Any:
    """The model with PEFT's LoRA on what the targets mean, its random start that of the seed.

    `prepare_model_for_kbit_training` is not for this model: it would cast the experts to float32.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    targets = lora.targets(finetune.targets, (name for name, _ in model.named_parameters()))
    if finetune.gradient_checkpointing:
        model.enable_input_require_grads()
    set_seed(run.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=run.rank,
        target_modules=targets.modules,
        target_parameters=targets.parameters,
        lora_alpha=finetune.lora_alpha(run.rank),
        lora_dropout=0.0,
        bias="none",
        use_rslora=finetune.alpha == "rslora",
    )
    return get_peft_model(model, config)


def checkpointing(finetune: Finetune) -> str:
    """Gradient checkpointing as it was asked of this trainer: plain or off; Unsloth's own is not to be had here."""
    return "plain" if finetune.gradient_checkpointing else "off"


def trainer(finetune: Finetune, model: Any, tokenizer: Any, rows: tuple[Sequence[Any], Sequence[Any]], arguments: dict[str, Any]) -> Any:
    """A trainer whose training and held-out rows carry loss on the trained channels alone. Raises DatasetError where none is left."""
    import torch
    from trl import SFTConfig, SFTTrainer

    on_gpu = torch.cuda.is_available()
    optimizer = finetune.optimizer
    if optimizer == "adamw_8bit" and not on_gpu:
        optimizer = "adamw_torch_fused"  # type: ignore[assignment]  # what Unsloth takes there
    train_set, held_out_set = (_masked(part, tokenizer, finetune) for part in rows)
    if train_set is None:
        raise DatasetError(data.nothing_left(finetune))
    return (SFTTrainer if on_gpu else _with_torchs_loss(SFTTrainer))(
        model=model,
        processing_class=tokenizer,
        train_dataset=train_set,
        eval_dataset=held_out_set,
        args=SFTConfig(
            **arguments,
            gradient_checkpointing=bool(finetune.gradient_checkpointing),
            gradient_checkpointing_kwargs={"use_reentrant": False} if finetune.gradient_checkpointing else None,
            optim=optimizer,
        ),
    )


def _masked(rows: Sequence[Any], tokenizer: Any, finetune: Finetune) -> Any:
    """Token ids and labels of the rows that keep a label; None where there are none."""
    from datasets import Dataset

    response = tokenizer(lora.markers(finetune.train_on).response_part, add_special_tokens=False)["input_ids"]
    start = find_specials(tokenizer).start
    kept = []
    for lesson in data.lessons(rows, tokenizer, finetune.effort):
        ids = lesson[: finetune.max_length]
        labels = lora.mask(ids, response, start)
        if any(label != -100 for label in labels):
            kept.append({"input_ids": ids, "labels": labels})
    return Dataset.from_list(kept) if kept else None


def _with_torchs_loss(trainer: type) -> type:
    """TRL's own loss is a Triton kernel, which a CPU has not: there the model computes its loss."""

    class TorchLossTrainer(trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            outputs = model(**inputs, use_cache=False, num_items_in_batch=num_items_in_batch)
            return (outputs.loss, outputs) if return_outputs else outputs.loss

    return TorchLossTrainer
