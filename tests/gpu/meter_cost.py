"""What metering costs a process that is busy launching work: the same work in turn with a meter at hand and without, in one process.

A step of a 4-bit model is bound by its launches, and the meter's thread shares the interpreter with them. Prints one JSON line: the median
of the ratios of neighbouring blocks, with and without, and its 95 % interval by bootstrap.

  meter_cost.py [PAIRS]
"""

import json
import random
import statistics
import sys
import time

import torch

from bench.meter import Meter, resident_bytes

LAUNCHES = 6000


def block(states: torch.Tensor) -> float:
    """Seconds that some thousand small operations take, launched one by one."""
    started = time.perf_counter()
    for _ in range(LAUNCHES):
        states = states * 0.5 + 1.0
    if states.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    torch.set_num_threads(1)
    states = torch.zeros(64, device="cuda" if torch.cuda.is_available() else "cpu")
    kept = [torch.zeros(2**20) for _ in range(500)]  # two gigabytes resident, as of a process that trains
    draw = random.Random(0)
    block(states)
    ratios, seconds = [], []
    for _ in range(pairs):
        order, taken = [True, False], {}
        draw.shuffle(order)
        for metered in order:
            meter = Meter() if metered else None
            taken[metered] = block(states)
            if meter:
                meter.stop()
        ratios.append(taken[True] / taken[False])
        seconds.append(taken[False])
    medians = sorted(statistics.median(draw.choices(ratios, k=pairs)) for _ in range(2000))
    told = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "resident_gib": round(resident_bytes() / 2**30, 1),
    }
    told |= {"pairs": pairs, "block_s": round(statistics.median(seconds), 3), "ratio": round(statistics.median(ratios), 4)}
    print(json.dumps(told | {"interval_95": [round(medians[50], 4), round(medians[1949], 4)], "kept": len(kept)}))


if __name__ == "__main__":
    main()
