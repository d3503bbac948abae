"""What metering costs a process that is busy launching work: the same work in turn with a meter at hand and without, in one process.

A step of a 4-bit model is bound by its launches, and the meter's thread shares the interpreter with them. One JSON line for each interval
between two looks of the meter: the median of the ratios to the unmetered block of the same turn, with its 95 % interval by bootstrap.

  meter_cost.py TURNS INTERVAL_S ...
"""

import json
import random
import statistics
import sys
import time

import torch

from bench import meter
from bench.meter import resident_bytes

LAUNCHES = 25_000


def block(states: torch.Tensor) -> float:
    """Seconds that many small operations take, launched one by one."""
    started = time.perf_counter()
    for _ in range(LAUNCHES):
        states = states * 0.5 + 1.0
    if states.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    turns, intervals = int(sys.argv[1]), [float(text) for text in sys.argv[2:]]
    torch.set_num_threads(1)
    states = torch.zeros(64, device="cuda" if torch.cuda.is_available() else "cpu")
    resident = [torch.zeros(2**20) for _ in range(500)]  # two gigabytes, as of a process that trains
    draw = random.Random(0)
    block(states)
    ratios: dict[float, list[float]] = {interval: [] for interval in intervals}
    for _ in range(turns):
        taken: dict[float | None, float] = {}
        for interval in draw.sample([None, *intervals], len(intervals) + 1):
            if interval is not None:
                meter.SAMPLING_INTERVAL_S = interval
                with meter.metered():
                    taken[interval] = block(states)
            else:
                taken[interval] = block(states)
        for interval in intervals:
            ratios[interval].append(taken[interval] / taken[None])
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    told = {"device": where, "resident_gib": round(resident_bytes() / 2**30, 1), "turns": turns, "block_s": round(taken[None], 3)}
    for interval, found in ratios.items():
        medians = sorted(statistics.median(draw.choices(found, k=turns)) for _ in range(2000))
        seen = {"interval_s": interval, "ratio": round(statistics.median(found), 4)}
        print(json.dumps(told | seen | {"interval_95": [round(medians[50], 4), round(medians[1949], 4)]}))
    assert len(resident) == 500


if __name__ == "__main__":
    main()
