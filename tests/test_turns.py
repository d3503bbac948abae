"""Trainings that take turns on a GPU, told by processes that only print losses."""

import sys
import time
from itertools import groupby
from pathlib import Path

from gpu.one_at_a_time import Training, start, take_turns

TRAINING = """
import time
for _ in range(16):
    time.sleep(0.07)
    print({'loss': 1.0}, time.monotonic(), flush=True)
"""


def test_trainings_take_turns_there_and_back(tmp_path: Path) -> None:
    trainings = [Training(name, [sys.executable, "-S", "-c", TRAINING], tmp_path / f"{name}.out") for name in "AB"]
    told: list[tuple[str, float]] = []

    def tell(training: Training, what: str) -> None:
        told.append((f"{training.name} {what}", time.monotonic()))

    try:
        take_turns(start(trainings, tmp_path, tell), 5, tell)
    finally:
        for training in trainings:
            training.process.kill()
    firsts = [when for what, when in told if what.endswith("first loss")]
    steps = sorted((float(line.split()[-1]), each.name) for each in trainings for line in each.log.read_text().splitlines())
    alone = [name for when, name in steps if when > max(firsts)]
    assert len(firsts) == 2
    assert len(steps) == 32
    assert [name for name, _ in groupby(alone)] == ["A", "B", "A", "B"]
    assert [what for what, _ in told[-2:]] == ["A has ended", "B has ended"]
