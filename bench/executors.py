"""Jobs -> child processes on this machine. Every event is handed to one listener, in one thread, in the order it came."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.jobs import Event, Job

LOG_TAIL_LINES = 5
QUIET = {
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "UNSLOTH_AUTO_INSTALL": "0",
    "UNSLOTH_DISABLE_LLM_COMPRESSOR_AUTOINSTALL": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_DISABLED": "true",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "PYTHONUNBUFFERED": "1",
}
"""Nothing reports home, nothing installs itself, and logs come at once."""


@dataclass(frozen=True)
class Failure:
    """Why a job did not end well."""

    reason: str
    exit_code: int
    """Of the error class, 70 where the process died without a word."""


class LocalExecutor:
    """Runs up to `workers` jobs side by side, each in its own process, with its standard error in a log file."""

    def __init__(self, workers: int, logs: Path, *, verbose: bool = False):
        self.workers = workers
        self.logs = logs
        self.verbose = verbose
        self._processes: set[subprocess.Popen[str]] = set()

    def run(self, jobs: Sequence[Job], on_event: Callable[[Job, Event], None]) -> dict[str, Failure]:
        """Run all jobs; returns the failures by job name. On any exception, children are ended before it goes on."""
        self.logs.mkdir(parents=True, exist_ok=True)
        events: queue.Queue[tuple[Job, Event]] = queue.Queue()
        waiting = deque(jobs)
        failures: dict[str, Failure] = {}
        running = 0
        try:
            while waiting or running:
                while waiting and running < self.workers:
                    job = waiting.popleft()
                    threading.Thread(target=self._follow, args=(job, events), daemon=True).start()
                    running += 1
                job, event = events.get()
                if event["event"] == "failed":
                    failures[job.name] = Failure(event["reason"], event["exit_code"])
                elif event["event"] == "ended":
                    running -= 1
                    if event["returncode"] and job.name not in failures:
                        failures[job.name] = Failure(self._obituary(job, event["returncode"]), 70)
                else:
                    on_event(job, event)
        finally:
            self._end_children()
        return failures

    def log(self, job: Job) -> Path:
        """Where a job's standard error goes."""
        return self.logs / f"{job.name}.log"

    def _start(self, job: Job, cache: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if self.verbose else self.log(job).open("w", encoding="utf-8"),
            text=True,
            encoding="utf-8",
            env=child_environment(os.environ) | {"UNSLOTH_COMPILE_LOCATION": cache},
            start_new_session=True,  # Ctrl-C reaches the conductor alone, which ends its children itself
        )
        self._processes.add(process)
        return process

    def _follow(self, job: Job, events: queue.Queue[tuple[Job, Event]]) -> None:
        """One child's life, in a thread of its own; whatever happens, the last event says that it ended."""
        returncode = 1
        try:
            # Unsloth writes compiled code; each process gets a folder of its own
            with tempfile.TemporaryDirectory(prefix="effortbench-") as cache:
                process = self._start(job, cache)
                _send(process, job.model_dump_json())
                assert process.stdout
                for line in process.stdout:
                    events.put((job, json.loads(line)))
                returncode = process.wait()
                self._processes.discard(process)
        finally:
            events.put((job, {"event": "ended", "returncode": returncode}))

    def _obituary(self, job: Job, returncode: int) -> str:
        if returncode < 0:
            how = f"was ended by {signal.Signals(-returncode).name}"
            if returncode == -signal.SIGKILL:
                how += " (out of memory, or killed by hand)"
        else:
            how = f"exited with {returncode}"
        return f"the process {how}{self._log_tail(job)}"

    def _log_tail(self, job: Job) -> str:
        if self.verbose or not self.log(job).exists():
            return ""
        lines = [line.strip() for line in self.log(job).read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return "; its log ends: " + " | ".join(lines[-LOG_TAIL_LINES:])[-600:] if lines else ""

    def _end_children(self) -> None:
        for process in list(self._processes):
            process.terminate()
        for process in list(self._processes):
            try:
                process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                process.kill()


def _send(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin
    try:
        process.stdin.write(text)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died before it could read; its exit code says so


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Ours, with third parties quiet and one thread a process where nothing else was asked for."""
    threads = {} if "OMP_NUM_THREADS" in environment else {"OMP_NUM_THREADS": "1"}
    return {**environment, **QUIET, **threads}
