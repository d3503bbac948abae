"""What the conductor hands to a child process, and what it hears back: one JSON job in, JSON events out, one a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from bench.experiment import Experiment, Method, Steps, Timing

CONDUCTOR = "EFFORTBENCH_CONDUCTOR"
"""Environment variable of a child: the process id of who started it."""
Event = dict[str, Any]
"""`event` names it: plan, prompt, sample, canary, phase, timing, step, training_phase, trained, failed, done."""


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
