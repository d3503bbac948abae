"""A run and one of its arms -> the arm's model card, README.md with `model-index` results, from the run's own measurements alone.

Nothing is claimed that the run did not measure, and no path of this machine stands in it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from bench.errors import UsageError
from bench.experiment import Arm
from bench.records import Comparison, Run, Training
from bench.store import slug, write_atomic

CARD = "README.md"
SHOWN = ("accuracy", "reasoning_language_fidelity")
"""Metrics of a card, where the run has them."""
_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
LANGUAGE_CODES = {"English": "en", "French": "fr", "German": "de", "Italian": "it", "Spanish": "es"}
"""Reasoning languages of the usual rows that the hub's metadata knows by code."""


def find_arm(run: Run, name: str) -> Arm:
    """The arm with an adapter of that name. Raises UsageError where the run has none, or where it failed."""
    with_adapter = {arm.name: arm for arm in run.experiment.arms() if arm.kind != "base"}
    if name not in with_adapter:
        raise UsageError(f"the run has no arm {name!r} with an adapter: expected {', '.join(with_adapter) or 'a run that trained one'}")
    if name in run.failed_arms:
        raise UsageError(f"arm {name} failed: {run.failed_arms[name]}")
    return with_adapter[name]


def adapter_folder(run: Run, arm: Arm) -> Path:
    """Where the arm's adapter lies."""
    return arm.adapter if arm.adapter is not None else run.folder / "adapters" / slug(arm.name)


def write_cards(run: Run) -> None:
    """Put a card beside every adapter that the run trained."""
    for name, training in run.training.items():
        folder = run.folder / "adapters" / slug(name)
        if training.status == "trained" and name not in run.failed_arms and folder.is_dir():
            write_atomic(folder / CARD, card(run, find_arm(run, name), "adapter"))


def card(run: Run, arm: Arm, form: Literal["adapter", "merged-16bit"]) -> str:
    """Text of README.md: metadata for the hub, then the same for people."""
    training = run.training.get(arm.name)
    compared = [item for item in run.comparisons if item.arm == arm.name and item.metric in SHOWN and item.after is not None]
    return f"---\n{_metadata(run, arm, form, training, compared)}\n---\n\n{_body(run, arm, form, training, compared)}"


def _base(run: Run) -> str:
    """The base model's hub id, or the last part of a local folder's name: no path of this machine."""
    name = run.experiment.model.id
    return name if is_hub_id(name) else Path(os.path.abspath(os.path.expanduser(name))).name


def _metadata(run: Run, arm: Arm, form: str, training: Training | None, compared: list[Comparison]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    finetune = run.experiment.finetune
    known = {
        "base_model": _base(run) if is_hub_id(run.experiment.model.id) else None,
        "library_name": "peft" if form == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "gpt-oss", *([training.method] if training else [])],
        "datasets": [finetune.dataset.id] if finetune and arm.kind == "trained" and is_hub_id(finetune.dataset.id) else None,
        "language": [code for name, code in LANGUAGE_CODES.items() if training and name in training.languages] or None,
    }
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=item.suite,
            dataset_name=item.suite,
            dataset_config=f"{item.effort} effort",  # results of one dataset, config and split are one entry to the hub
            dataset_split=item.split,
            dataset_revision=run.suite_revisions.get(item.suite),
            dataset_args={"reasoning_effort": item.effort, "languages": list(item.languages), "problems": item.clusters},
            metric_type=item.metric,
            metric_name=f"{item.metric}, {item.effort} effort",
            metric_value=item.after,
        )
        for item in compared
    ]
    results = [result for result in results if math.isfinite(result.metric_value)]
    named: dict[str, Any] = {"model_name": f"{run.experiment.name}-{arm.name}", "eval_results": results} if results else {}
    return str(ModelCardData(**{key: value for key, value in known.items() if value}, **named).to_yaml())


def is_hub_id(name: str) -> bool:
    """Whether a model's or data set's name means OWNER/NAME on the hub, and nothing nearer, which is what loaders look for first.

    Nearer are a path that is there, a file of rows, and a suite's split.
    """
    from bench.catalog import suite_names

    is_repository = _REPOSITORY.fullmatch(name) is not None and not name.endswith((".jsonl", ".parquet"))
    return is_repository and not os.path.exists(name) and name.partition("/")[0] not in suite_names()


def _body(run: Run, arm: Arm, form: str, training: Training | None, compared: list[Comparison]) -> str:
    what = "A LoRA adapter for" if form == "adapter" else "A LoRA merged into"
    parts = [f"# {run.experiment.name}-{arm.name}\n\n{what} `{_base(run)}`.", *_trained(run, training), *_measured(compared)]
    environment = run.environment
    where = environment.gpu or environment.cpu
    versions = ", ".join(
        f"{name} {environment.packages[name]}" for name in ("unsloth", "torch", "transformers") if name in environment.packages
    )
    parts.append(f"Measured by effortbench on {where} ({versions}), {environment.started_at}.")
    return "\n\n".join(parts) + "\n"


def _trained(run: Run, training: Training | None) -> Iterator[str]:
    finetune = run.experiment.finetune
    if training is None or finetune is None:
        return
    channels = ", ".join(f"{name} {count:,}" for name, count in training.supervised_tokens.items())
    rows = [
        ("trainer", training.method),
        ("rank, alpha", f"{training.rank}, {training.alpha:g}{' (rsLoRA)' if finetune.alpha == 'rslora' else ''}"),
        ("targets", ", ".join(f"{kind} ({count:,} parameters)" for kind, count in training.trainable_by_kind.items() if count)),
        ("optimizer steps", f"{training.steps:,} of {finetune.batch_size * finetune.gradient_accumulation} rows"),
        ("learning rate", f"{finetune.learning_rate:g}, {finetune.schedule}, {finetune.warmup_steps} steps of warm-up"),
        ("optimizer", f"{training.optimizer}, weight decay {finetune.weight_decay:g}"),
        ("effort in the training prompt", finetune.effort),
        ("seed", str(training.seed)),
        ("tokens with loss, all rows", channels),
        ("held-out loss", "unknown" if training.held_out_loss is None else f"{training.held_out_loss:.4f}"),
        ("adapter", f"{training.adapter_bytes or 0:,} bytes"),
    ]
    yield "## How it was trained\n\n| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _measured(compared: list[Comparison]) -> Iterator[str]:
    if not compared:
        yield "## What was measured\n\nNothing: the run asked this arm no suite."
        return
    rows = [
        f"| {item.suite}@{item.split} | {item.effort} | {item.metric.replace('_', ' ')} | {_share(item.before)} | {_share(item.after)} | "
        f"{_points(item)} | {item.clusters} | {', '.join(item.languages)} |"
        for item in compared
    ]
    head = "| data | effort | metric | base | this model | change (95 % CI) | problems | languages |\n|---|---|---|---|---|---|---|---|\n"
    yield "## What was measured\n\n" + head + "\n".join(rows)


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


def _points(item: Comparison) -> str:
    if item.delta is None:
        return "not comparable"
    interval = f" ({100 * item.ci[0]:+.1f} to {100 * item.ci[1]:+.1f})" if item.ci else ""
    return f"{100 * item.delta:+.1f} points{interval}"
