"""effortbench: did fine-tuning make gpt-oss better or worse, in which language, at which reasoning effort, at what cost?

Three calls are public: `run_experiment` does the whole job, `load_run` reads a run folder back, `compare_runs` compares two of them.
Heavy libraries are imported by the call that needs them, so `import bench` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["compare_runs", "load_run", "run_experiment"]

_HOMES = {"run_experiment": "bench.runner", "load_run": "bench.store", "compare_runs": "bench.comparison"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
