"""Train in several processes whose compilation overlaps while their timed steps do not.

A first step compiles for minutes and leaves the GPU idle. So several processes are started at once, as many as the card holds, each is
stopped (SIGSTOP) after its first loss, and then one after the other goes on to its end alone. Times of first steps, device-wide memory and
energy mean nothing here; median step times and a process's own peaks do.

  one_at_a_time.py PLAN ... [--at-once N] [--turn N] [--hold FILE] [--cores N]
                   --nf4 DIR [--bf16 DIR] [--mxfp4 DIR] --rows FILE --long-rows FILE --out FOLDER

With `--turn N` they go in turns of N steps, there and back (A B, B A, A B ...), so that what drifts on the machine meets all of them alike.
The step under way when a process is stopped counts the pause, and may share the GPU with what the process before had under way. Of 24 steps
that is one without turns and at most five from N = 5 on, so that no median is such a step's: it lies between the 12th and 13th of the 19
others instead of at their 10th, a little slower, on all sides alike. With `--hold FILE` nobody goes on behind its first loss while there is
such a file, as other work on the card may need. With `--cores N` all go on, behind their first losses, on the same N cores.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
LOSS = "'loss':"
QUICK = (
    "finetune.gradient_accumulation=1 finetune.held_out_rows=0 finetune.steps=[25] evaluate.languages=[en] "
    "evaluate.efforts=[low] evaluate.max_new_tokens={low: 1}"
)


class Training:
    """One process that trains; its log tells of every step's loss."""

    def __init__(self, name: str, command: list[str], log: Path, record: Path | None = None):
        self.name, self.command, self.log, self.record = name, command, log, record
        self.state = "waiting"

    def start(self, out: Path) -> None:
        self.state = "running"
        with (out / f"{self.name}.out").open("w") as file:
            self.process = subprocess.Popen(
                self.command,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},  # else the losses of a bare script stand in its log at its end
            )

    def members(self) -> list[int]:
        """The process and all it started."""
        found, parents = [self.process.pid], {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(stat.parent.name)] = int(fields[1])
        for child in sorted(parents):
            ancestor = child
            while ancestor in parents and ancestor != self.process.pid:
                ancestor = parents[ancestor]
            if ancestor == self.process.pid and child != ancestor:
                found.append(child)
        return found

    def signal(self, number: int) -> None:
        for member in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, number)

    def keep_to(self, cores: int) -> None:
        """All its threads to the first so many cores."""
        for member in self.members():
            for thread in Path(f"/proc/{member}/task").glob("*"):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), range(cores))

    def losses(self) -> int:
        return sum(log.read_text(errors="replace").count(LOSS) for log in self.log.parent.glob(self.log.name))

    def has_ended(self) -> bool:
        """Once the record of the training is there, what follows (the evaluation) is not waited for."""
        if self.record is not None and self.record.exists():
            record = json.loads(self.record.read_text())
            if record["status"] == "trained" or record["reason"] != "training has not ended":
                self.signal(signal.SIGKILL)
        return self.process.poll() is not None


def harness(asked: argparse.Namespace, name: str, model: Path, arm: str = "r8-s25", sets: str = "", rows: Path | None = None) -> Training:
    folder = asked.out / name
    pairs = [*shlex.split(QUICK.replace("{", "'{").replace("}", "}'")), *shlex.split(sets)]
    pairs += [f"model.id={model}", f"finetune.dataset.id={rows or asked.rows}"]
    command = [sys.executable, "-m", "bench", "run", "quick-test", "--limit", "1", "--out", str(folder)]
    command += [part for pair in pairs for part in ("--set", pair)]
    return Training(name, command, folder / "logs" / "train-*.log", folder / "training" / f"{arm}.json")


def bare(asked: argparse.Namespace, name: str) -> Training:
    fixed = ["--accumulation", "1", "--held-out", "0", "--steps", "25"]
    return Training(
        name, [sys.executable, str(HERE / "bare_unsloth.py"), str(asked.nf4), str(asked.rows), *fixed], asked.out / f"{name}.out"
    )


def plan(asked: argparse.Namespace, name: str) -> list[Training]:
    def rank(number: int, targets: str) -> str:
        return f"finetune.ranks=[{number}] finetune.targets={targets}"

    both, attention, bf16 = "attention+experts", "attention", "model.load_in_4bit=false"
    if name == "pair":
        return sum([[harness(asked, f"harness{turn}", asked.nf4), bare(asked, f"bare{turn}")] for turn in (1, 2, 3)], [])
    if name == "matrix":
        return [
            *(harness(asked, f"nf4-attention-r{number}", asked.nf4, f"r{number}-s25", rank(number, attention)) for number in (8, 32, 128)),
            harness(asked, "nf4-r32", asked.nf4, "r32-s25", rank(32, both)),
            harness(asked, "nf4-4096", asked.nf4, sets="finetune.max_length=4096", rows=asked.long_rows),
            harness(asked, "mxfp4", asked.mxfp4),
            bare(asked, "bare"),
            harness(asked, "nf4-r128", asked.nf4, "r128-s25", rank(128, both)),
        ]
    plain = "finetune.gradient_checkpointing=true"
    if name == "checkpointing":
        ways = {"plain": plain, "off": "finetune.gradient_checkpointing=false"}  # `unsloth` is the pair's
        return [harness(asked, f"nf4-{way}", asked.nf4, sets=sets) for way, sets in ways.items()]
    if name == "bf16":
        return [
            harness(asked, "bf16-unsloth", asked.bf16, sets=f"{bf16} {plain}"),
            harness(asked, "bf16-trl", asked.bf16, sets=f"{bf16} {plain} finetune.method=trl"),
        ]
    off = "finetune.gradient_checkpointing=false"
    return [
        harness(asked, "bf16-unsloth-off", asked.bf16, sets=f"{bf16} {off}"),
        harness(asked, "bf16-trl-off", asked.bf16, sets=f"{bf16} {off} finetune.method=trl"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", nargs="+", choices=["pair", "matrix", "checkpointing", "bf16", "bf16-off"])
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--turn", type=int, default=sys.maxsize, help="steps; to the end by default")
    parser.add_argument("--cores", type=int, default=None)
    for name in ("nf4", "bf16", "mxfp4", "rows", "long-rows", "hold", "out"):
        parser.add_argument(f"--{name}", type=Path)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    trainings = sum((plan(asked, name) for name in asked.plan), [])

    def tell(training: Training, what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {training.name} {what}", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for first in range(0, len(trainings), asked.at_once):
            stopped = start(trainings[first : first + asked.at_once], asked.out, tell)
            while asked.hold is not None and asked.hold.exists():
                time.sleep(0.1)
            for training in stopped if asked.cores else ():
                training.keep_to(asked.cores)
            take_turns(stopped, asked.turn, tell)
    finally:  # each leads a session of its own and would go on, holding its memory
        for training in trainings:
            if training.state != "waiting":
                training.signal(signal.SIGKILL)


def start(trainings: list[Training], out: Path, tell: Callable[[Training, str], None]) -> list[Training]:
    """All to their first loss, behind which those that come so far are stopped."""
    for training in trainings:
        training.start(out)
    while any(training.state == "running" for training in trainings):
        for training in trainings:
            if training.state == "running" and training.losses():
                training.signal(signal.SIGSTOP)
                training.state = "stopped"
                tell(training, "has its first loss")
            elif training.state == "running" and training.has_ended():
                training.state = "ended"
                tell(training, f"ended before its first loss, exit code {training.process.returncode}")
        time.sleep(0.1)
    return [training for training in trainings if training.state == "stopped"]


def take_turns(trainings: list[Training], turn: int, tell: Callable[[Training, str], None]) -> None:
    """Stopped ones to their ends; a turn ends at the same step for all, however far one came before it was stopped."""
    goal = 1
    while trainings:
        goal += turn
        for training in trainings:
            training.signal(signal.SIGCONT)
            while not training.has_ended() and training.losses() < goal:
                time.sleep(0.05)
            if training.has_ended():
                training.process.wait()
                training.state = "ended"
                tell(training, "has ended")
            else:
                training.signal(signal.SIGSTOP)
                tell(training, f"is stopped after step {training.losses()}")
        trainings = [training for training in reversed(trainings) if training.state == "stopped"]


if __name__ == "__main__":
    main()
