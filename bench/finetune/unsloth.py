"""The trainer under test: Unsloth, on CPU and CUDA alike. Must be imported before torch, transformers and trl.

The CPU and the CUDA path of Unsloth are different programs behind one interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# unsloth patches transformers and trl on import, so it must come first in this process
import unsloth as _patches  # noqa: F401

from bench.errors import DatasetError
from bench.experiment import Finetune
from bench.finetune import data, lora
from bench.jobs import TrainJob
from bench.models import watch_loading


def load(run: TrainJob, finetune: Finetune) -> tuple[Any, dict[str, int]]:
    """The base model and how many keys its loading missed. Raises ModelError where weights stay random."""
    import torch
    from unsloth import FastLanguageModel

    with watch_loading(run.base) as report:
        model, _ = FastLanguageModel.from_pretrained(
            model_name=str(run.base),
            max_seq_length=finetune.max_length,
            dtype=getattr(torch, run.experiment.model.dtype),
            load_in_4bit=run.experiment.model.load_in_4bit,
            full_finetuning=False,
            local_files_only=True,
        )
    return model, report


def with_lora(run: TrainJob, finetune: Finetune, model: Any) -> Any:
    """The model with LoRA on what the targets mean in its layout."""
    from unsloth import FastLanguageModel

    checkpointing = finetune.gradient_checkpointing
    targets = lora.targets(finetune.targets, (name for name, _ in model.named_parameters()))
    return FastLanguageModel.get_peft_model(
        model,
        r=run.rank,
        target_modules=targets.modules,
        target_parameters=targets.parameters,
        lora_alpha=finetune.lora_alpha(run.rank),
        lora_dropout=0,
        bias="none",
        use_rslora=finetune.alpha == "rslora",
        use_gradient_checkpointing=checkpointing,
        random_state=run.seed,
    )


def checkpointing(finetune: Finetune) -> str:
    """Gradient checkpointing as it was asked of this trainer: unsloth, plain or off."""
    return {"unsloth": "unsloth", True: "plain", False: "off"}[finetune.gradient_checkpointing]


def trainer(finetune: Finetune, model: Any, tokenizer: Any, rows: tuple[Sequence[Any], Sequence[Any]], arguments: dict[str, Any]) -> Any:
    """A trainer whose training and held-out rows carry loss on the trained channels alone. Raises DatasetError where none is left."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from unsloth.chat_templates import train_on_responses_only

    def tokenized(part: Sequence[Any]) -> Any:
        ids = data.lessons(part, tokenizer, finetune.effort)
        return Dataset.from_dict({"input_ids": [row[: finetune.max_length] for row in ids]}) if ids else None

    train_set, held_out_set = map(tokenized, rows)
    made = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=train_set,
        eval_dataset=held_out_set,
        args=SFTConfig(**arguments, gradient_checkpointing=bool(finetune.gradient_checkpointing), optim=finetune.optimizer),
    )
    try:
        return train_on_responses_only(made, **lora.markers(finetune.train_on)._asdict(), num_proc=1)
    except ValueError as error:  # how unsloth refuses a dataset that it has masked altogether
        raise DatasetError(f"{data.nothing_left(finetune)} ({str(error).splitlines()[0]})") from error
