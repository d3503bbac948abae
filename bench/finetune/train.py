"""Train one LoRA with Unsloth: one process a run, because Unsloth patches classes for good.

Where the learning rate does not depend on the last step, one run serves every step count of its rank and seed: the adapter is saved on
the way. The CPU and the CUDA path of Unsloth are different programs behind one interface, so what LoRA reached is counted and checked.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.errors import ArmError, DatasetError
from bench.experiment import Finetune
from bench.finetune import data, lora
from bench.harmony import CHANNELS, find_specials
from bench.jobs import TrainJob
from bench.meter import metered
from bench.models import load_tokenizer
from bench.records import Training

ADAPTER_WEIGHTS = "adapter_model.safetensors"


def train(run: TrainJob, on_step: Callable[[int, float], None]) -> list[Training]:
    """Train, save every stop's adapter and return its record; `on_step` hears each step and its loss."""
    # unsloth patches transformers and trl on import, so it must come first in this process
    import unsloth  # noqa: F401
    from transformers import set_seed

    tokenizer = load_tokenizer(run.base)
    rows = data.load_rows(_recipe(run).dataset)
    training_rows, held_out_rows = data.split_rows(rows, _recipe(run).held_out_rows)
    set_seed(run.seed)
    model = _with_lora(run, _load(run))
    by_kind = _check_trainable(run, model)
    trainer = _trainer(run, model, tokenizer, training_rows, held_out_rows)
    supervised = _count_supervised(trainer.train_dataset, tokenizer)
    log = _StepLog(run, trainer, on_step)
    trainer.add_callback(log.callback())
    with metered() as reading:
        trainer.train()
    return [
        Training(
            arm=stop.arm,
            status="trained",
            reason=None,
            rank=run.rank,
            steps=stop.steps,
            seed=run.seed,
            alpha=_recipe(run).lora_alpha(run.rank),
            method=_recipe(run).method,
            trainable_parameters=sum(by_kind.values()),
            trainable_by_kind=by_kind,
            rows_kept=len(trainer.train_dataset),
            rows_dropped=len(training_rows) - len(trainer.train_dataset),
            supervised_tokens=supervised,
            losses=log.losses[: stop.steps],
            held_out_loss=log.held_out[stop.steps],
            wall_s=log.wall_s[stop.steps],
            peak_vram_bytes=reading.peak_vram_bytes,
            peak_reserved_bytes=reading.peak_reserved_bytes,
            peak_rss_bytes=reading.peak_rss_bytes,
            adapter_bytes=(stop.adapter / ADAPTER_WEIGHTS).stat().st_size,
            adapter_sha256=hashlib.sha256((stop.adapter / ADAPTER_WEIGHTS).read_bytes()).hexdigest(),
            optimizer=type(_innermost(trainer.optimizer)).__name__,
            key=stop.key,
            shared_run=run.stops[-1].arm if len(run.stops) > 1 else None,
            languages=data.languages_of(training_rows),
        )
        for stop in run.stops
    ]


def _recipe(run: TrainJob) -> Finetune:
    assert run.experiment.finetune is not None, "a training job of an experiment without a finetune block"
    return run.experiment.finetune


def _load(run: TrainJob) -> Any:
    import torch
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(run.base),
        max_seq_length=_recipe(run).max_length,
        dtype=getattr(torch, run.experiment.model.dtype),
        load_in_4bit=run.experiment.model.load_in_4bit,
        full_finetuning=False,
        local_files_only=True,
    )
    return model


def _with_lora(run: TrainJob, model: Any) -> Any:
    from unsloth import FastLanguageModel

    reaches_experts = _recipe(run).targets == "attention+experts"
    is_fused = any(name.endswith("mlp.experts.gate_up_proj") for name, _ in model.named_parameters())
    modules = lora.ATTENTION + (lora.EXPERT_LINEARS if reaches_experts and not is_fused else [])
    return FastLanguageModel.get_peft_model(
        model,
        r=run.rank,
        target_modules=modules,
        target_parameters=lora.EXPERT_PARAMETERS if reaches_experts and is_fused else None,
        lora_alpha=_recipe(run).lora_alpha(run.rank),
        lora_dropout=0,
        bias="none",
        use_rslora=_recipe(run).alpha == "rslora",
        use_gradient_checkpointing="unsloth" if _recipe(run).gradient_checkpointing else False,
        random_state=run.seed,
    )


def _check_trainable(run: TrainJob, model: Any) -> dict[str, int]:
    """Trainable parameters by kind. Raises ArmError where they are not what the targets mean on this architecture."""
    found = lora.trainable_parameters(model.named_parameters())
    expected = lora.expected_parameters(model.config, run.rank, _recipe(run).targets)
    if found != expected:
        raise ArmError(f"LoRA reached {found} trainable parameters, expected {expected}: the targets mean something else on this model")
    return found


def _trainer(run: TrainJob, model: Any, tokenizer: Any, training_rows: Sequence[Any], held_out_rows: Sequence[Any]) -> Any:
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    finetune = _recipe(run)
    on_gpu = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(run.stops[-1].adapter.with_name(f".{run.stops[-1].adapter.name}.trainer")),
        dataset_text_field="text",
        max_length=finetune.max_length,
        packing=False,
        per_device_train_batch_size=finetune.batch_size,
        gradient_accumulation_steps=finetune.gradient_accumulation,
        gradient_checkpointing=finetune.gradient_checkpointing,
        max_steps=run.stops[-1].steps,
        warmup_steps=finetune.warmup_steps,
        learning_rate=finetune.learning_rate,
        lr_scheduler_type=finetune.schedule,
        optim=finetune.optimizer,
        weight_decay=finetune.weight_decay,
        seed=run.seed,
        data_seed=run.seed,
        bf16=on_gpu and run.experiment.model.dtype == "bfloat16",
        fp16=on_gpu and run.experiment.model.dtype == "float16",
        use_cpu=not on_gpu,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataset_num_proc=1,
        # TRL takes the config's coefficient when this is unset: 0.9 for gpt-oss, which swamps the loss
        router_aux_loss_coef=0.0,
    )
    sets = [
        Dataset.from_dict({"text": data.texts(rows, tokenizer, finetune.effort)}) if rows else None
        for rows in (training_rows, held_out_rows)
    ]
    trainer = SFTTrainer(model=model, processing_class=tokenizer, train_dataset=sets[0], eval_dataset=sets[1], args=arguments)
    return _mask(trainer, finetune)


def _mask(trainer: Any, finetune: Finetune) -> Any:
    """Leave loss on the trained channels alone; rows without any are dropped. Raises DatasetError where none is left."""
    from unsloth.chat_templates import train_on_responses_only

    try:
        masked = train_on_responses_only(trainer, **lora.markers(finetune.train_on)._asdict(), num_proc=1)
    except ValueError as error:  # how unsloth refuses a dataset that it has masked altogether
        raise DatasetError(
            f"no row keeps a token of {' or '.join(finetune.train_on)} within max_length {finetune.max_length}: raise it, or check "
            f"that the dataset has those channels ({str(error).splitlines()[0]})"
        ) from error
    return masked


def _count_supervised(rows: Any, tokenizer: Any) -> dict[str, int]:
    specials = find_specials(tokenizer)
    first = {tokenizer(name, add_special_tokens=False)["input_ids"][0]: name for name in CHANNELS}
    counts: Counter[str] = Counter()
    for row in rows:
        counts += lora.supervised_tokens(row["input_ids"], row["labels"], specials, first)
    return dict(counts)


class _StepLog:
    """Follows a run: losses by step, and at each stop the adapter, the held-out loss and the time so far."""

    def __init__(self, run: TrainJob, trainer: Any, on_step: Callable[[int, float], None]):
        self.run, self.trainer, self.on_step = run, trainer, on_step
        self.losses: list[dict[str, float]] = []
        self.held_out: dict[int, float | None] = {}
        self.wall_s: dict[int, float] = {}
        self.started = 0.0

    def callback(self) -> Any:
        """A transformers TrainerCallback."""
        from transformers import TrainerCallback

        log = self

        class Callback(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                log.started = time.perf_counter()

            def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
                if logs and "loss" in logs:
                    log.add_loss(state.global_step, float(logs["loss"]), float(logs["learning_rate"]))

            def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
                log.at_step(state.global_step)

        return Callback()

    def add_loss(self, step: int, loss: float, learning_rate: float) -> None:
        self.losses.append({"step": step, "loss": loss, "learning_rate": learning_rate})
        self.on_step(step, loss)

    def at_step(self, step: int) -> None:
        for stop in self.run.stops:
            if stop.steps == step:
                self.wall_s[step] = time.perf_counter() - self.started
                paused = time.perf_counter()
                save_adapter(self.trainer.model, stop.adapter)
                self.held_out[step] = held_out_loss(self.trainer.model, self.trainer.eval_dataset)
                self.started += time.perf_counter() - paused  # saving and measuring are not training


def save_adapter(model: Any, folder: Path) -> None:
    """Write an adapter as a whole: a reader finds all of it or nothing."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    model.save_pretrained(str(temporary))
    if folder.exists():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    os.replace(temporary, folder)


def held_out_loss(model: Any, rows: Any) -> float | None:
    """Mean negative log-likelihood of the supervised tokens of the rows, in nats; None where there are none.

    Runs the forward alone, so the run's random state is the same with or without it.
    """
    import torch

    if rows is None or not len(rows):
        return None
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row["input_ids"]], device=model.device)
            labels = torch.tensor(row["labels"][1:], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum").item()
            tokens += int((labels != -100).sum())
    model.train(was_training)
    return total / tokens if tokens else None


def _innermost(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer)
