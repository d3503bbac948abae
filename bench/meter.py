"""What a block of work cost: wall time, peak memory on the device, peak resident memory of the process, and where it ran.

Readings are None until the block has ended well, and where the machine cannot tell: a failed block has no cost.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.records import Environment

PACKAGES = (
    "effortbench", "unsloth", "unsloth_zoo", "torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "lm_eval",
    "accelerate", "tokenizers", "numpy", "scipy", "pandas", "triton", "xformers",
)  # fmt: skip
SAMPLING_INTERVAL_S = 0.05


@dataclass
class Reading:
    """Cost of one block."""

    wall_s: float | None = None
    peak_vram_bytes: int | None = None
    """Peak allocated by this process on the current device."""
    peak_reserved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    """Highest resident memory of this process seen during the block, sampled every 50 ms."""


class _ResidentPeak(threading.Thread):
    """Samples resident memory: getrusage's own peak cannot be reset between blocks."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = resident_bytes()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLING_INTERVAL_S):
            self.peak_bytes = max(self.peak_bytes, resident_bytes())

    def end(self) -> int:
        self._ended.set()
        self.join()
        return max(self.peak_bytes, resident_bytes())


def resident_bytes() -> int:
    """Resident memory of this process now; its peak so far where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def metered() -> Iterator[Reading]:
    """Measure one block; synchronizes the device before and after, so that the block's own work is counted and no other's."""
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    reading = Reading()
    resident = _ResidentPeak()
    resident.start()
    started = time.perf_counter()
    try:
        yield reading
        if on_gpu:
            torch.cuda.synchronize()
            reading.peak_vram_bytes = torch.cuda.max_memory_allocated()
            reading.peak_reserved_bytes = torch.cuda.max_memory_reserved()
        reading.wall_s = time.perf_counter() - started
    finally:
        peak_bytes = resident.end()
    reading.peak_rss_bytes = peak_bytes


def read_environment(source: Path) -> Environment:
    """Where we are; `source` is a folder in the project's git checkout, if it is one. Imports torch."""
    import torch

    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    commit, is_dirty = _git_state(source)
    return Environment(
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        cpu=_cpu_name(),
        cpu_count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        torch_threads=1 if gpu is None else torch.get_num_threads(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=gpu.name if gpu else None,
        gpu_memory_bytes=gpu.total_memory if gpu else None,
        driver=_driver_version() if gpu else None,
        cuda=torch.version.cuda if gpu else None,
        packages=_package_versions(),
        git_commit=commit,
        git_dirty=is_dirty,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _package_versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _driver_version() -> str | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def _git_state(source: Path) -> tuple[str | None, bool | None]:
    """Commit and whether tracked files differ from it; (None, None) outside a checkout."""
    try:
        commit = _git(source, "rev-parse", "HEAD")
        return commit, bool(_git(source, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(source: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(source), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
