"""What the conductor hands to a child process, and what it hears back: one JSON job in, JSON events out, one a line."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from bench.experiment import Experiment, Method, Steps, Timing

CONDUCTOR = "EFFORTBENCH_CONDUCTOR"
"""Environment variable of a child: the process id of who started it."""
ORDERS = "EFFORTBENCH_ORDERS"
"""Environment variable of a child that may do several jobs: descriptor from which it reads the orders behind its first, a line each."""
WHERE_SIGNAL = signal.SIGUSR1
"""Asks a child that seems to hang to write into its log where it is."""
START_S = 1800.0
"""Longest that a child may be silent before its first word and between two phases: a 20B from a slow disk takes minutes, its first
step compiles for minutes more, and a data set may come from the hub."""
S_PER_GENERATED_TOKEN = 0.5
S_PER_TRAINED_TOKEN = 0.1
"""Both slower by far than a device that anybody waits for: what is slower still has most likely stopped."""
Event = dict[str, Any]
"""`event` names it: plan, prompt, sample, canary, phase, timing, step, training_phase, training_known, trained, failed, done.
`done` says by `rests` whether the process waits for another order."""


class _Job(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Unique in a run; names the log file."""
    experiment: Experiment
    base: Path
    """Folder of the base model."""


class Stop(BaseModel):
    """A step at which a training run's adapter is an arm's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    steps: Steps
    """Optimizer steps, or passes over the rows, which the trainer counts once it knows the rows."""
    adapter: Path
    key: str


class TrainJob(_Job):
    """Train one rank and seed to its longest arm, saving every arm on the way."""

    kind: Literal["train"] = "train"
    method: Method = "unsloth"
    rank: int
    seed: int
    stops: tuple[Stop, ...]
    arms: dict[str, Steps] = {}
    """All arms of this run, those that an earlier process trained too, as its records name the longest; empty: those of the stops."""
    checkpoints: Path
    """Folder of what an interrupted run is gone on from; removed when the run is done."""
    key: str = ""
    """Hash of all that decides a step of this run, whatever its stops; a checkpoint of another key is thrown away."""


class PassSpec(BaseModel):
    """One split of one suite."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    split: str
    languages: tuple[str, ...]
    done: tuple[dict[str, Any], ...] = ()
    """Samples that an earlier run made under the same keys."""


class EvaluateJob(_Job):
    """Ask one arm the passes, one after the other, with one loaded model."""

    kind: Literal["evaluate"] = "evaluate"
    arm: str
    adapter: Path | None
    passes: tuple[PassSpec, ...]
    limit: int | None = None
    has_canaries: bool = True
    """Whether a few rows are asked in two ways first."""


class ProbeJob(_Job):
    """Time base and one arm in turn, with one loaded model."""

    kind: Literal["probe"] = "probe"
    arm: str
    adapter: Path
    timing: Timing
    asked: PassSpec
    """Where the requests are taken from."""
    limit: int | None = None


Job = TrainJob | EvaluateJob | ProbeJob


class Order(BaseModel):
    """A further job for a process that has done one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: Path
    """File of the job, which the process removes."""
    log: Path | None
    """Where its standard error goes from now on; None leaves it."""


def weights_of(job: Job) -> str | None:
    """What a process has in memory once it has done the job, and can serve another from; None where it is to end."""
    return f"{job.base} {job.experiment.model.model_dump_json()}" if isinstance(job, EvaluateJob) else None


def longest_silence_s(job: Job) -> float:
    """Seconds without an event after which a job hangs, by what it was asked to do.

    Training tells every optimizer step, and measures the held-out loss in between; an evaluation tells every answer, and the first may
    need as many steps as an answer has tokens at most; the probe tells every block, whose requests are answered one at a time.
    """
    if isinstance(job, TrainJob):
        finetune = job.experiment.finetune
        assert finetune is not None, "a training job without a finetune block"
        rows = finetune.batch_size * finetune.gradient_accumulation + finetune.held_out_rows
        return START_S + rows * finetune.max_length * S_PER_TRAINED_TOKEN
    evaluate = job.experiment.evaluate
    in_turn = job.timing.requests if isinstance(job, ProbeJob) else 1
    return START_S + in_turn * max(evaluate.max_new_tokens[effort] for effort in evaluate.efforts) * S_PER_GENERATED_TOKEN
