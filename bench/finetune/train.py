"""Train one LoRA: one process a run, because Unsloth patches classes for good.

Where the learning rate does not depend on the last step, one run serves every step count of its rank and seed: the adapter is saved on
the way. What LoRA reached is counted and checked, whoever trains. Whatever is known is told at once, so that a crash loses nothing of it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.errors import ArmError, is_out_of_memory
from bench.experiment import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Finetune
from bench.finetune import data, lora
from bench.harmony import CHANNELS, find_specials
from bench.jobs import Stop, TrainJob
from bench.meter import Meter, Reading, memory_told, no_memory
from bench.models import expert_layout, load_tokenizer
from bench.phases import largest, median, merge_phases, phase_records
from bench.records import LossPoint, Training, TrainingPhase
from bench.store import sha256_of, sync_folder, whole_folder, write_atomic

COMMIT = "effortbench.json"
"""Written into a checkpoint last: one without it is not whole."""
PLACES_AT_ONCE = 128
"""Whose logits held-out loss holds side by side: 0.1 GB in float32, with a vocabulary of 200,000."""
PhaseName = Literal["load", "lora", "first_step", "steady", "save"]


class Listener(NamedTuple):
    """Hears what a training run tells on its way."""

    on_step: Callable[[LossPoint], None]
    on_phase: Callable[[TrainingPhase], None]
    on_known: Callable[[Training], None]
    """What is known of every arm before its first step, once: it has no arm, steps and rows yet."""
    on_trained: Callable[[Training], None]


def train(run: TrainJob, listener: Listener) -> None:
    """Train, save every stop's adapter and tell its record. Raises ArmError where memory did not suffice or LoRA missed its targets."""
    if run.method == "unsloth":  # before torch's other users: it patches them
        from bench.finetune import unsloth as method
    else:
        from bench.finetune import trl as method  # type: ignore[no-redef]
    from transformers import set_seed

    finetune = run.experiment.finetune
    assert finetune is not None, "a training job of an experiment without a finetune block"
    tokenizer = load_tokenizer(run.base)
    all_rows = data.load_rows(finetune.dataset)
    rows = data.split_rows(all_rows, finetune.held_out_rows)
    phases = _Phases(listener.on_phase)
    set_seed(run.seed)
    with phases.measured("load"):
        base, report = method.load(run, finetune)
    layout = expert_layout(base)
    with phases.measured("lora"):
        model = method.with_lora(run, finetune, base)
    by_kind = _check_trainable(run, finetune, model)
    known = Training(
        arm="",
        status="trained",
        reason=None,
        rank=run.rank,
        steps=0,
        seed=run.seed,
        alpha=finetune.lora_alpha(run.rank),
        method=run.method,
        trainable_parameters=sum(by_kind.values()),
        trainable_by_kind=by_kind,
        languages=data.languages_of(rows[0]),
        layout=layout,
        load_report=report,
        gradient_checkpointing=method.checkpointing(finetune),
    )
    listener.on_known(known)
    trainer = method.trainer(finetune, model, tokenizer, rows, _arguments(run, finetune))
    kept = len(trainer.train_dataset)
    supervised = _count_supervised(trainer.train_dataset, tokenizer)
    known = dataclasses.replace(
        known, rows_kept=kept, rows_dropped=len(rows[0]) - kept, supervised_tokens=supervised, shared_run=_longest(run, finetune, kept)
    )
    course = _Course(run, {stop.arm: finetune.count_steps(stop.steps, kept) for stop in run.stops}, known, trainer, phases, listener)
    course.go(finetune.checkpoint_steps)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def _check_trainable(run: TrainJob, finetune: Finetune, model: Any) -> dict[str, int]:
    """Trainable parameters by kind. Raises ArmError where they are not what the targets mean on this architecture."""
    found = lora.trainable_parameters(model.named_parameters())
    expected = lora.expected_parameters(model.config, run.rank, finetune.targets)
    if found != expected:
        raise ArmError(f"LoRA reached {found} trainable parameters, expected {expected}: the targets mean something else on this model")
    return found


def _longest(run: TrainJob, finetune: Finetune, rows: int) -> str | None:
    """The longest of the arms that the run serves, whichever of them are left to train; None where it serves one alone."""
    arms = run.arms or {stop.arm: stop.steps for stop in run.stops}
    return max(arms, key=lambda arm: finetune.count_steps(arms[arm], rows)) if len(arms) > 1 else None


def _arguments(run: TrainJob, finetune: Finetune) -> dict[str, Any]:
    """What both trainers are told alike. `max_steps` is set once the rows are counted."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(run.checkpoints),
        "max_length": finetune.max_length,
        "packing": False,
        "per_device_train_batch_size": finetune.batch_size,
        "gradient_accumulation_steps": finetune.gradient_accumulation,
        "max_steps": 1,
        "warmup_steps": finetune.warmup_steps,
        "learning_rate": finetune.learning_rate,
        "lr_scheduler_type": finetune.schedule,
        "weight_decay": finetune.weight_decay,
        "seed": run.seed,
        "data_seed": run.seed,
        "bf16": on_gpu and run.experiment.model.dtype == "bfloat16",
        "fp16": on_gpu and run.experiment.model.dtype == "float16",
        "use_cpu": not on_gpu,
        "logging_steps": 1,
        "include_num_input_tokens_seen": "non_padding",
        "save_strategy": "no",  # the course says when
        "report_to": "none",
        "disable_tqdm": True,
        "dataset_num_proc": 1,
        # TRL takes the config's coefficient when this is unset: 0.9 for gpt-oss, which swamps the loss
        "router_aux_loss_coef": 0.0,
    }


def _count_supervised(rows: Any, tokenizer: Any) -> dict[str, int]:
    specials = find_specials(tokenizer)
    first = {tokenizer(name, add_special_tokens=False)["input_ids"][0]: name for name in CHANNELS}
    counts: Counter[str] = Counter()
    for row in rows:
        counts += lora.supervised_tokens(row["input_ids"], row["labels"], specials, first)
    return dict(counts)


class _Phases:
    """Measures the phases, one at a time, and tells each segment as it ends."""

    def __init__(self, on_phase: Callable[[TrainingPhase], None]):
        self.segments: list[TrainingPhase] = []
        self._on_phase = on_phase
        self._name: PhaseName | None = None
        self._meter: Meter | None = None
        self._step_s: list[float] = []
        self._step_began = 0.0
        self._tokens_before: int = 0

    @property
    def is_measuring(self) -> bool:
        """Whether a phase is under way."""
        return self._name is not None

    @contextmanager
    def measured(self, name: PhaseName) -> Iterator[None]:
        """One phase as a block. Raises ArmError where memory did not suffice."""
        self.begin(name)
        with self.watched():
            yield
        self.end()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A failure inside ends the phase under way with the peaks it reached. Raises ArmError where memory did not suffice."""
        try:
            yield
        except Exception as error:
            failed = self._fail()
            if failed is None or not is_out_of_memory(error):
                raise
            raise no_memory(failed.name, failed, error) from error

    def begin(self, name: PhaseName, tokens: int = 0) -> None:
        """`tokens` is how many were seen before."""
        assert self._name is None, f"{self._name} is still under way"
        self._name, self._step_s, self._tokens_before = name, [], tokens
        self._meter = Meter()

    def begin_step(self) -> None:
        _wait_for_device()
        self._step_began = time.perf_counter()

    def end_step(self) -> None:
        _wait_for_device()
        self._step_s.append(time.perf_counter() - self._step_began)

    def end(self, tokens: int | None = None) -> None:
        """The phase is over; `tokens` is how many were seen by now, None where none are counted."""
        assert self._meter is not None
        self._add(self._meter.stop(), None if tokens is None else tokens - self._tokens_before)

    def _fail(self) -> TrainingPhase | None:
        if self._meter is None:
            return None
        return self._add(self._meter.stop(failed=True), None)

    def _add(self, reading: Reading, tokens: int | None) -> TrainingPhase:
        assert self._name is not None
        taken = TrainingPhase(self._name, None, steps=len(self._step_s), tokens=tokens, median_step_s=median(self._step_s))
        segment = dataclasses.replace(taken, **vars(reading))
        self._name = self._meter = None
        self.segments.append(segment)
        self._on_phase(segment)
        return segment


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _Course:
    """A run's steps: measures them, saves an adapter at every stop and a checkpoint in between, and goes on from one."""

    def __init__(self, run: TrainJob, steps: dict[str, int], known: Training, trainer: Any, phases: _Phases, listener: Listener):
        self.run, self.steps, self.known, self.trainer = run, steps, known, trainer
        self.phases, self.listener = phases, listener
        self.last_step = max(steps.values())
        self.losses: list[LossPoint] = []
        self.began_steady = False
        self.resumed_from: int | None = None
        self.checkpoint_steps: int | None = None

    def go(self, checkpoint_steps: int | None) -> None:
        """Train to the last stop."""
        self.checkpoint_steps = checkpoint_steps
        self.trainer.args.max_steps = self.last_step
        self.trainer.add_callback(self._callback())
        checkpoint = find_checkpoint(self.run.checkpoints, self.run.key, before=min(self.steps.values()))
        if checkpoint is not None:
            self._recall(checkpoint)
        with self.phases.watched():
            self.trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    def _callback(self) -> Any:
        """A transformers TrainerCallback."""
        from transformers import TrainerCallback

        course = self

        class Callback(TrainerCallback):
            def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
                course.before_step(state.num_input_tokens_seen)

            def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
                control.should_save = course.after_step(state.global_step, state.num_input_tokens_seen)
                control.should_log = True

            def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
                if logs and "loss" in logs:
                    course.after_loss(LossPoint(state.global_step, float(logs["loss"]), float(logs["learning_rate"])))

            def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
                course.commit(state.global_step)

        return Callback()

    def before_step(self, tokens: int) -> None:
        if not self.phases.is_measuring:
            self.phases.begin("steady" if self.began_steady else "first_step", tokens)
            self.began_steady = True
        self.phases.begin_step()

    def after_step(self, step: int, tokens: int) -> bool:
        """Ends the phase where something else than training comes next; whether a checkpoint is due."""
        self.phases.end_step()
        is_stop = step in self.steps.values()
        is_due = self.checkpoint_steps is not None and step % self.checkpoint_steps == 0 and step < self.last_step
        if len(self.losses) == (self.resumed_from or 0) or is_stop or is_due:
            self.phases.end(tokens)
        return is_due

    def after_loss(self, point: LossPoint) -> None:
        """The loss comes after the step's end, and all that is recorded of a stop needs it."""
        self.losses.append(point)
        self.listener.on_step(point)
        for stop in self.run.stops:
            if self.steps[stop.arm] == point.step:
                self._stop(stop, point.step)

    def _stop(self, stop: Stop, step: int) -> None:
        with self.phases.measured("save"):
            save_adapter(self.trainer.model, stop.adapter)
        weights = stop.adapter / ADAPTER_WEIGHTS
        phases = merge_phases(self.phases.segments)
        training = [phase for phase in phases if phase.steps]
        training_s = [phase.wall_s for phase in training if phase.wall_s is not None]
        self.listener.on_trained(
            dataclasses.replace(
                self.known,
                arm=stop.arm,
                steps=step,
                losses=[dataclasses.asdict(point) for point in self.losses],
                held_out_loss=self._held_out_loss(),
                wall_s=sum(training_s) if training_s else None,
                peak_vram_bytes=largest(phase.peak_vram_bytes for phase in training),
                peak_reserved_bytes=largest(phase.peak_reserved_bytes for phase in training),
                peak_rss_bytes=largest(phase.peak_rss_bytes for phase in training),
                adapter_bytes=weights.stat().st_size,
                adapter_sha256=sha256_of(weights),
                optimizer=optimizer_name(self.trainer.optimizer),
                key=stop.key,
                phases=phase_records(phases),
                resumed_from=self.resumed_from,
            )
        )

    def _held_out_loss(self) -> float | None:
        """None too where there is no memory for it: the adapter is saved by then, and is worth more."""
        import torch

        found = None
        try:
            with memory_told("held-out loss"):
                found = held_out_loss(self.trainer.model, self.trainer.eval_dataset)
        except ArmError as error:
            logging.getLogger(__name__).warning("%s: %s; it stays unknown", self.run.name, error)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what was cached for it would stand in the next phase's reserved peak
        return found

    def commit(self, step: int) -> None:
        """Declare the checkpoint that was just written whole, then remove those before it."""
        checkpoint = self.run.checkpoints / f"checkpoint-{step}"
        state = {
            "key": self.run.key,
            "step": step,
            "losses": [dataclasses.asdict(point) for point in self.losses],
            "phases": [dataclasses.asdict(segment) for segment in self.phases.segments],
        }
        sync_folder(checkpoint, files=True)
        write_atomic(checkpoint / COMMIT, json.dumps(state) + "\n")
        for other in self.run.checkpoints.glob("checkpoint-*"):
            if other != checkpoint:
                shutil.rmtree(other)

    def _recall(self, checkpoint: Path) -> None:
        state = json.loads((checkpoint / COMMIT).read_text(encoding="utf-8"))
        self.resumed_from = state["step"]
        self.losses = [LossPoint(**point) for point in state["losses"]]
        earlier = [TrainingPhase.from_dict(phase) for phase in state["phases"]]
        self.phases.segments[:0] = earlier
        for point in self.losses:
            self.listener.on_step(point)
        for segment in earlier:
            self.listener.on_phase(segment)


def find_checkpoint(folder: Path, key: str, before: int) -> Path | None:
    """The last whole checkpoint of a run with this key before a step; None where there is none. All others are removed."""
    found: list[tuple[int, Path]] = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            state = json.loads((checkpoint / COMMIT).read_text(encoding="utf-8"))
            is_ours = state["key"] == key and state["step"] < before
        except (OSError, ValueError, KeyError, TypeError):  # it was being written when the process ended
            is_ours = False
        if is_ours:
            found.append((state["step"], checkpoint))
        else:
            shutil.rmtree(checkpoint)
    return max(found)[1] if found else None


def save_adapter(model: Any, folder: Path) -> None:
    """Write an adapter as a whole: a reader finds all of it or nothing. Equal adapters are equal files."""
    with whole_folder(folder) as temporary:
        model.save_pretrained(str(temporary))
        _sort_targets(temporary / ADAPTER_CONFIG)
        sync_folder(temporary, files=True)  # the record that says it was saved is
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(folder.parent)


def _sort_targets(config: Path) -> None:
    """PEFT writes sets in an order that differs from process to process, and the cell key hashes this file."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    lists = {name: sorted(settings[name]) for name in ("target_modules", "modules_to_save") if isinstance(settings.get(name), list)}
    write_atomic(config, json.dumps(settings | lists, indent=2, sort_keys=True))


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
    try:
        with torch.inference_mode():
            for row in rows:
                following = torch.tensor(row["labels"][1:], device=model.device)
                places = (following != -100).nonzero()[:, 0]
                if len(places):
                    total += _negative_log_likelihood(model, row["input_ids"], places, following[places])
                    tokens += len(places)
    finally:
        model.train(was_training)
    return total / tokens if tokens else None


def _negative_log_likelihood(model: Any, input_ids: list[int], places: Any, wanted: Any) -> float:
    """Sum over the row's `places` of that of the `wanted` next tokens.

    Logits are made where the model calls its head, of a few places at a time: all of a row's over a vocabulary of 200,000 would be the
    largest tensor of the whole run.
    """
    import torch

    losses: list[float] = []

    def add(logits_of: Callable[[Any], Any]) -> None:
        for some, tokens in zip(places.split(PLACES_AT_ONCE), wanted.split(PLACES_AT_ONCE), strict=True):
            losses.append(torch.nn.functional.cross_entropy(logits_of(some).float(), tokens, reduction="sum").item())

    def before_head(head: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = inputs[0]
        add(lambda some: head.forward(hidden[0, some]))
        return (hidden[:, -1:],)  # the model's own call has one place left

    hook = model.get_output_embeddings().register_forward_pre_hook(before_head)
    try:
        logits = model(input_ids=torch.tensor([input_ids], device=model.device), use_cache=False).logits
    finally:
        hook.remove()
    if not losses:  # a forward that was compiled before does not see the hook
        add(lambda some: logits[0, some])
    return sum(losses)


def optimizer_name(optimizer: Any) -> str:
    """What runs, told by the optimizer itself in the experiment's words: adamw_8bit, adamw_torch, adamw_torch_fused, adafactor.

    What was asked for does not tell: Unsloth takes another one where there is no GPU, and the classes of all three are called AdamW.
    """
    import torch

    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    name = type(inner).__name__.lower().removesuffix("8bit")
    if type(inner).__module__.startswith("bitsandbytes."):
        return f"{name}_{inner.args.optim_bits}bit"
    if isinstance(inner, torch.optim.AdamW):
        return f"{name}_torch_fused" if any(group.get("fused") for group in inner.param_groups) else f"{name}_torch"
    return name
