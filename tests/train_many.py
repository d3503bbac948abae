"""A worker of several training jobs in one process, for tests: JSON list of jobs in, one JSON event a line out.

Also tells how often a decoder layer ran forward in training, which is how gradient checkpointing shows.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from bench.jobs import Event, TrainJob
from bench.worker import _take_stdout, run_training


class Layers:
    """Counts the decoder layers' forwards in training; those that a checkpoint computes again stop early, hence the hook before."""

    def __init__(self) -> None:
        self.forwards = 0

    def count(self, module: Any, *_: Any) -> None:
        self.forwards += module.training and type(module).__name__.endswith("DecoderLayer")


def main() -> None:
    protocol = _take_stdout()
    jobs = [TrainJob.model_validate(job) for job in json.load(sys.stdin)]
    if jobs[0].method == "unsloth":
        import unsloth  # noqa: F401
    import torch

    for job in jobs:
        layers = Layers()

        def emit(event: Event, job: TrainJob = job, layers: Layers = layers) -> None:
            protocol.write(json.dumps({"job": job.name, "layer_forwards": layers.forwards, **event}) + "\n")
            protocol.flush()

        hook = torch.nn.modules.module.register_module_forward_pre_hook(layers.count)
        run_training(job, emit)
        hook.remove()


if __name__ == "__main__":
    main()
