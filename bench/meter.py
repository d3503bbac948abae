"""What a block of work cost: wall time, memory on the device and of the process, energy; and where it ran.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.errors import ArmError, is_out_of_memory
from bench.phases import largest
from bench.records import Environment, TrainingPhase

PACKAGES = (
    "effortbench", "unsloth", "unsloth_zoo", "torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "lm_eval",
    "accelerate", "tokenizers", "numpy", "scipy", "pandas", "triton", "xformers",
)  # fmt: skip
SAMPLING_INTERVAL_S = 0.5
"""Between two looks at what has no peak that could be reset. The thread that looks shares the interpreter with the work it measures."""


@dataclass
class Reading:
    """Cost of one block."""

    wall_s: float | None = None
    peak_vram_bytes: int | None = None
    """Peak allocated by this process on the current device."""
    peak_reserved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    """Highest resident memory of this process during the block, by the kernel's own mark; where that cannot be reset, as sampled."""
    peak_process_bytes: int | None = None
    """Highest device memory of this process that NVML saw, asked twice a second and at the end, when what torch has given back since
    its own peak is added: context and allocations of all libraries. None where NVML cannot tell."""
    peak_device_bytes: int | None = None
    """The same of the device, other processes included."""
    energy_j: float | None = None
    """Energy that the device took, other processes' work included, by NVML's counter."""


class _Sampler(threading.Thread):
    """Samples what has no peak that could be reset: what NVML sees, and resident memory where the kernel keeps no mark of it."""

    def __init__(self, device: _Device | None) -> None:
        super().__init__(daemon=True)
        self.device = device
        self.has_mark = _reset_resident_mark()
        self.rss_bytes = resident_bytes()
        self.process_bytes: int | None = None
        self.device_bytes: int | None = None
        self._ended = threading.Event()
        self._look()

    def run(self) -> None:
        while not self._ended.wait(SAMPLING_INTERVAL_S):
            self._look()

    def end(self, given_back: int) -> None:
        """Look once more. At its peak torch had reserved `given_back` bytes more than now, and a short peak lies between two looks."""
        self._ended.set()
        self.join()
        self._look(given_back)
        if self.has_mark:
            self.rss_bytes = max(self.rss_bytes, _resident_mark())

    def _look(self, given_back: int = 0) -> None:
        if not self.has_mark:
            self.rss_bytes = max(self.rss_bytes, resident_bytes())
        if self.device is not None:
            process_bytes, device_bytes = self.device.process_bytes(), self.device.used_bytes()
            self.process_bytes = largest((self.process_bytes, None if process_bytes is None else process_bytes + given_back))
            self.device_bytes = largest((self.device_bytes, None if device_bytes is None else device_bytes + given_back))


class _Device:
    """One GPU as NVML sees it; every reading is None where the driver does not give it."""

    def __init__(self, handle: Any):
        self._handle = handle

    @classmethod
    def current(cls) -> _Device | None:
        """Torch's current device; None without a GPU, or where NVML does not know it."""
        import torch

        if not torch.cuda.is_available():
            return None
        import pynvml

        uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", None)
        try:
            pynvml.nvmlInit()
            return cls(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
        except pynvml.NVMLError:
            return None

    def process_bytes(self) -> int | None:
        """None too inside a container with process ids of its own."""
        import pynvml

        running = self._ask(pynvml.nvmlDeviceGetComputeRunningProcesses) or []
        own = [process.usedGpuMemory for process in running if process.pid == os.getpid() and process.usedGpuMemory is not None]
        return sum(own) if own else None

    def used_bytes(self) -> int | None:
        import pynvml

        memory = self._ask(pynvml.nvmlDeviceGetMemoryInfo)
        return None if memory is None else int(memory.used)

    def energy_j(self) -> float | None:
        import pynvml

        counted_mj = self._ask(pynvml.nvmlDeviceGetTotalEnergyConsumption)
        return None if counted_mj is None else counted_mj / 1000

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        import pynvml

        try:
            return question(self._handle)
        except pynvml.NVMLError:
            return None


def resident_bytes() -> int:
    """Resident memory of this process now; its peak so far where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return _peak_resident_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _reset_resident_mark() -> bool:
    """Lower the kernel's mark of the highest resident memory to what is resident now; False where it has none that can be lowered."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc_pid_clear_refs(5), since Linux 4.0
    except OSError:
        return False
    return True


def _resident_mark() -> int:
    """The highest resident memory since the mark was last lowered."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _peak_resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Meter:
    """Measures from its making to `stop`, for blocks that are no `with`; synchronizes the device at both ends."""

    def __init__(self) -> None:
        self._on_gpu = _synchronize()
        if self._on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        self._device = _Device.current()
        self._energy_j = self._device.energy_j() if self._device else None
        self._sampler = _Sampler(self._device)
        self._sampler.start()
        self._started = time.perf_counter()

    def stop(self, *, failed: bool = False) -> Reading:
        """The block's cost; of a failed one the peaks it reached, without time and energy."""
        import torch

        reading = Reading()
        if not failed:
            _synchronize()
            reading.wall_s = time.perf_counter() - self._started
            energy_j = self._device.energy_j() if self._device else None
            reading.energy_j = energy_j - self._energy_j if energy_j is not None and self._energy_j is not None else None
        given_back = 0
        if self._on_gpu:
            reading.peak_vram_bytes, reading.peak_reserved_bytes = _torch_peaks()
            given_back = reading.peak_reserved_bytes - torch.cuda.memory_reserved()
        self._sampler.end(given_back)
        reading.peak_rss_bytes = self._sampler.rss_bytes
        reading.peak_process_bytes, reading.peak_device_bytes = self._sampler.process_bytes, self._sampler.device_bytes
        return reading


def _synchronize() -> bool:
    """Wait for the device's queued work; whether there is a device."""
    import torch

    if not torch.cuda.is_available():
        return False
    torch.cuda.synchronize()
    return True


def _torch_peaks() -> tuple[int, int]:
    import torch

    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


@contextmanager
def metered() -> Iterator[Reading]:
    """Measure one block; synchronizes the device before and after, so that the block's own work is counted and no other's."""
    reading = Reading()
    meter = Meter()
    try:
        yield reading
    except BaseException:
        meter.stop(failed=True)
        raise
    vars(reading).update(vars(meter.stop()))


@contextmanager
def memory_told(doing: str) -> Iterator[None]:
    """A block that may run out of memory; raises ArmError with the peaks since they were last reset where it does.

    Unlike a meter it leaves the device alone before the block, which may import what must come before the device's first use.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        allocated, reserved = _torch_peaks() if _synchronize() else (None, None)
        peaks = Reading(peak_vram_bytes=allocated, peak_reserved_bytes=reserved, peak_rss_bytes=_peak_resident_bytes())
        raise no_memory(doing, peaks, error) from error


def no_memory(doing: str, peaks: Reading | TrainingPhase, error: BaseException) -> ArmError:
    """What is told of work that ran out of memory: what it was, the peaks it reached, and whose words say so."""
    if peaks.peak_vram_bytes is None or peaks.peak_reserved_bytes is None:
        reached = f"with {(peaks.peak_rss_bytes or 0) / 2**30:.2f} GiB resident"
    else:
        reached = (
            f"with {peaks.peak_vram_bytes / 2**30:.2f} GiB allocated and {peaks.peak_reserved_bytes / 2**30:.2f} GiB reserved at the peak"
        )
    return ArmError(f"out of memory in {doing}, {reached}: {' '.join(str(error).split())[:200]}")


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
