"""Jobs -> child processes on this machine. Every event is handed to one listener, in one thread, in the order it came.

Whatever a child does (exit, segfault, hang, write rubbish, leave processes of its own behind), it ends in one `Failure` or in none, and
no child outlives `run`. A child that tells nothing for longer than its job can take is asked where it is, for its log, and ended. One
that has done its job and holds the weights which the next one needs is given that too: imports and loading cost more than many a job.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bench.errors import EffortbenchError
from bench.jobs import CONDUCTOR, ORDERS, WHERE_SIGNAL, Event, Job, Order, longest_silence_s, weights_of
from bench.redaction import redact

WORKER = (sys.executable, "-m", "bench.worker")
INTERNAL = EffortbenchError.exit_code
LOG_TAIL_LINES = 5
GRACE_S = 1.0
"""Between asking children to end and ending them: Ctrl-C is done within 2 s."""
LISTEN_S = 0.2
"""Longest wait for an event: Python acts on a signal that comes just before a wait only when that wait ends."""
EXIT_S = 60.0
"""How long a child may take to exit once it has said that it is done, or why it failed."""
LONGEST_TURN_S = 1.0
"""Most that one turn of listening counts as silence: a conductor that was itself stopped, or busy, blames no child for it."""
PIPE_GRACE_S = 5.0
"""How long a dead child's last words are waited for, where a process that left its group holds the pipe open."""
QUIET = {
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "UNSLOTH_AUTO_INSTALL": "0",
    "UNSLOTH_DISABLE_LLM_COMPRESSOR_AUTOINSTALL": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
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
    """Of the error class; 70 where the process died without a word."""
    may_differ: bool = False
    """Whether another try may end otherwise: a signal ended the process, or it hung, or it had done other jobs before, which may have
    left something behind."""


class _Watch:
    """How long each running job has been silent."""

    def __init__(self, longest_s: Callable[[Job], float]):
        self._longest_s = longest_s
        self._limits_s: dict[str, float] = {}
        self._silent_s: dict[str, float] = {}
        self._counted = time.monotonic()

    def begin(self, job: Job) -> None:
        self._limits_s[job.name], self._silent_s[job.name] = self._longest_s(job), 0.0

    def hear(self, job: Job, *, is_last: bool) -> None:
        """It said something; after its last word it has only to exit."""
        self._silent_s[job.name] = 0.0
        if is_last:
            self._limits_s[job.name] = min(EXIT_S, self._limits_s[job.name])

    def end(self, job: Job) -> float | None:
        """The seconds beyond which it hung; None where it did not."""
        limit_s, silent_s = self._limits_s.pop(job.name), self._silent_s.pop(job.name)
        return limit_s if silent_s > limit_s else None

    def find_hanging(self) -> dict[str, float]:
        """Seconds beyond its limit, by name, of every job that is."""
        now = time.monotonic()
        turn_s, self._counted = min(now - self._counted, LONGEST_TURN_S), now
        for name in self._silent_s:
            self._silent_s[name] += turn_s
        over = {name: silent - self._limits_s[name] for name, silent in self._silent_s.items()}
        return {name: over_s for name, over_s in over.items() if over_s > 0}


@dataclass(eq=False)
class _Child:
    """A process, and the jobs it was given."""

    process: subprocess.Popen[str]
    scratch: Path
    orders: int | None
    """Descriptor to write further orders to; None where it takes none."""
    jobs: list[Job]
    """The last is the one under way, or was."""
    has_ended: bool = False

    @property
    def job(self) -> Job:
        return self.jobs[-1]


class LocalExecutor:
    """Runs up to `workers` jobs side by side, one at a time in a process, with each job's standard error in a log file.

    `command` reads a job on standard input and writes events; tests run other programs than the worker. `silence_s` says how long a
    job may tell nothing before it is taken to hang.
    """

    def __init__(
        self,
        workers: int,
        logs: Path,
        *,
        verbose: bool = False,
        command: Sequence[str] = WORKER,
        silence_s: Callable[[Job], float] = longest_silence_s,
    ):
        assert workers >= 1, "no worker, no work"
        self.workers = workers
        self.logs = logs
        self.verbose = verbose
        self.command = tuple(command)
        self.silence_s = silence_s
        self._lock = threading.Lock()
        """Guards the two below, and what job a child does: none may start once they are being ended, and none be given to one that has."""
        self._children: dict[str, _Child] = {}
        """By the name of the job under way, or the last."""
        self._is_ending = False
        self._asked_where: set[str] = set()
        """Names of jobs that seemed to hang."""

    def run(self, jobs: Sequence[Job], on_event: Callable[[Job, Event], None]) -> dict[str, Failure]:
        """Run all jobs; returns the failures by job name. On any exception, children are ended before it goes on."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self._is_ending = False
        self._asked_where.clear()
        events: queue.Queue[tuple[Job, Event]] = queue.Queue()
        waiting = deque(jobs)
        running: set[str] = set()
        resting: list[_Child] = []
        threads: list[threading.Thread] = []
        failures: dict[str, Failure] = {}
        done: set[str] = set()
        given: set[str] = set()
        """Jobs of processes that had done others."""
        watch = _Watch(self.silence_s)
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    job = waiting.popleft()
                    running.add(job.name)
                    if resting and self._give(resting.pop(), job):
                        given.add(job.name)
                    else:
                        threads.append(threading.Thread(target=self._follow, args=(job, events), daemon=True))
                        threads[-1].start()
                    watch.begin(job)
                while resting:  # nothing waits for them
                    _signal(resting.pop().process, signal.SIGKILL)
                try:
                    job, event = events.get(timeout=LISTEN_S)
                except queue.Empty:
                    self._end_hanging(watch.find_hanging())
                    continue
                if job.name not in running:
                    continue  # a word that came after its end
                if event["event"] != "ended":
                    watch.hear(job, is_last=event["event"] in ("failed", "done"))
                self._end_hanging(watch.find_hanging())
                if event["event"] == "failed":
                    failures.setdefault(job.name, Failure(redact(event["reason"], os.environ), event["exit_code"], job.name in given))
                elif event["event"] == "done":
                    done.add(job.name)
                    if event.get("rests") is True:
                        running.remove(job.name)
                        watch.end(job)
                        resting += filter(None, [self._children.get(job.name)])  # none where it has ended meanwhile
                elif event["event"] == "ended":
                    running.remove(job.name)
                    hung_after_s = watch.end(job)
                    if job.name not in failures and (failure := self._judge(job, event["returncode"], job.name in done, hung_after_s)):
                        failures[job.name] = replace(failure, may_differ=failure.may_differ or job.name in given)
                elif job.name not in failures:
                    on_event(job, event)
        finally:
            self._end_children()
            deadline = time.monotonic() + GRACE_S / 2
            for thread in threads:
                if thread.is_alive():
                    thread.join(max(0.0, deadline - time.monotonic()))  # it removes its child's temporary folder
        return failures

    def log(self, job: Job) -> Path:
        """Where a job's standard error goes."""
        return self.logs / f"{job.name}.log"

    def _follow(self, job: Job, events: queue.Queue[tuple[Job, Event]]) -> None:
        """One child's life, in a thread of its own; whatever happens, the last event says that it ended, and in which of its jobs."""
        returncode = 1
        try:
            # Unsloth writes compiled code; each process gets a folder of its own
            with tempfile.TemporaryDirectory(prefix="effortbench-", ignore_cleanup_errors=True) as scratch:
                child = self._start(job, Path(scratch))
                reader = threading.Thread(target=_read, args=(child, events), daemon=True)
                reader.start()
                os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
                _signal(child.process, signal.SIGKILL)  # what it left behind would keep the pipe open
                returncode = child.process.wait()
                reader.join(PIPE_GRACE_S)
                job = self._bury(child)
                for each in child.jobs:
                    self._redact_log(each)
        except (OSError, ValueError) as error:
            events.put((job, {"event": "failed", "reason": f"the process could not be started: {error}", "exit_code": INTERNAL}))
        finally:
            events.put((job, {"event": "ended", "returncode": returncode}))

    def _bury(self, child: _Child) -> Job:
        """Let a process that has ended be given nothing more; returns the job that it ended in."""
        with self._lock:
            child.has_ended = True
            self._children.pop(child.job.name)
            if child.orders is not None:
                os.close(child.orders)
            return child.job

    def _give(self, child: _Child, job: Job) -> bool:
        """Let a process that has done its job do another; False, and its end, where it cannot."""
        with self._lock:
            if child.orders is not None and not child.has_ended and weights_of(job) == weights_of(child.job) is not None:
                order = Order(job=_write(job, child.scratch), log=None if self.verbose else self.log(job).absolute())
                self._children[job.name] = self._children.pop(child.job.name)
                child.jobs.append(job)
                with suppress(BrokenPipeError):  # it is ending, which its thread will tell of this job
                    os.write(child.orders, f"{order.model_dump_json()}\n".encode())
                return True
        _signal(child.process, signal.SIGKILL)  # for its memory
        return False

    def _start(self, job: Job, scratch: Path) -> _Child:
        order = _write(job, scratch)
        log = None if self.verbose else self.log(job).open("w", encoding="utf-8")
        theirs, ours = (None, None) if weights_of(job) is None else os.pipe()
        try:
            with order.open(encoding="utf-8") as stdin, self._lock:
                if self._is_ending:
                    raise InterruptedError("the run is being ended")
                process = subprocess.Popen(
                    self.command,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    env=child_environment(os.environ)
                    | {CONDUCTOR: str(os.getpid()), "UNSLOTH_COMPILE_LOCATION": str(scratch / "compiled")}
                    | ({} if theirs is None else {ORDERS: str(theirs)}),
                    pass_fds=() if theirs is None else (theirs,),
                    start_new_session=True,  # Ctrl-C reaches the conductor alone, which ends its children itself
                )
                child = self._children[job.name] = _Child(process, scratch, ours, [job])
        except BaseException:
            if ours is not None:
                os.close(ours)
            raise
        finally:
            order.unlink()  # who reads it holds it open
            if log:
                log.close()
            if theirs is not None:
                os.close(theirs)
        return child

    def _end_hanging(self, over_s: Mapping[str, float]) -> None:
        """Ask those that hang where they are, which their logs then tell, and a second later end them."""
        for name, seconds in over_s.items():
            child = self._children.get(name)  # None where it is being started
            if child is None:
                continue
            if seconds > GRACE_S:
                _signal(child.process, signal.SIGKILL)
            elif name not in self._asked_where:
                self._asked_where.add(name)
                _signal(child.process, WHERE_SIGNAL, os.kill)

    def _judge(self, job: Job, returncode: int, is_done: bool, hung_after_s: float | None) -> Failure | None:
        """What a process's end means; None where its work was done."""
        if is_done and (returncode == 0 or hung_after_s is not None):
            return None  # where it could not exit, its work is no less done
        if hung_after_s is None:
            return Failure(self._obituary(job, returncode), INTERNAL, may_differ=returncode < 0)
        reason = f"the process told nothing for {hung_after_s:,.4g} s, more than its work can take, and was ended"
        return Failure(f"{reason}{self._log_tail(job)}", INTERNAL, may_differ=True)

    def _obituary(self, job: Job, returncode: int) -> str:
        if returncode == 0:
            how = "ended without saying that its job was done"
        elif returncode < 0:
            how = f"was ended by {_signal_name(-returncode)}"
            if returncode == -signal.SIGKILL:
                how += " (out of memory, or killed by hand)"
        else:
            how = f"exited with {returncode}"
        return f"the process {how}{self._log_tail(job)}"

    def _redact_log(self, job: Job) -> None:
        """Libraries wrote it: a key that one of them printed is taken out as soon as nobody writes any more."""
        if self.verbose or not self.log(job).exists():
            return
        text = self.log(job).read_text(encoding="utf-8", errors="surrogateescape")
        clean = redact(text, os.environ)
        if clean != text:
            self.log(job).write_text(clean, encoding="utf-8", errors="surrogateescape")

    def _log_tail(self, job: Job) -> str:
        if self.verbose or not self.log(job).exists():
            return ""
        lines = [line.strip() for line in self.log(job).read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return "; its log ends: " + " | ".join(lines[-LOG_TAIL_LINES:])[-600:] if lines else ""

    def _end_children(self) -> None:
        """Ask all to end, give them a second together, then end them."""
        with self._lock:
            self._is_ending = True
            alive = [child.process for child in self._children.values() if child.process.returncode is None]
        for process in alive:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while any(process.returncode is None for process in alive) and time.monotonic() < deadline:
            time.sleep(0.01)  # the threads that follow them collect their exit codes
        for process in alive:
            if process.returncode is None:
                _signal(process, signal.SIGKILL)


def _write(job: Job, folder: Path) -> Path:
    """The job as a file, for a pipe would block where the child does not read."""
    path = folder / "job.json"
    path.write_text(job.model_dump_json(), encoding="utf-8")
    return path


def _read(child: _Child, events: queue.Queue[tuple[Job, Event]]) -> None:
    """Hand on a child's events as those of its job; one that writes anything else is ended."""
    assert child.process.stdout
    with child.process.stdout:
        for line in child.process.stdout:
            event = _parse(line)
            if event is None:
                reason = f"the process wrote something that is no event: {line.strip()[:80]!r}"
                events.put((child.job, {"event": "failed", "reason": reason, "exit_code": INTERNAL}))
                _signal(child.process, signal.SIGKILL)
                return
            events.put((child.job, event))


def _parse(line: str) -> Event | None:
    """An event that a child may send; None where the line is none."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str) or event["event"] == "ended":
        return None
    says_why = isinstance(event.get("reason"), str) and isinstance(event.get("exit_code"), int)
    return event if event["event"] != "failed" or says_why else None


def _signal(process: subprocess.Popen[str], number: signal.Signals, send: Callable[[int, signal.Signals], None] = os.killpg) -> None:
    """To a child that is not yet collected, and to all it started, as each leads a group of its own; `os.kill` reaches it alone."""
    if process.returncode is None:
        try:
            send(process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Ours, with third parties quiet and one thread a process where nothing else was asked for."""
    threads = {} if "OMP_NUM_THREADS" in environment else {"OMP_NUM_THREADS": "1"}
    return {**environment, **QUIET, **threads}
