"""How busy this machine is: what is claimed in seconds holds on an idle one, and a test must not fail because of its neighbours."""

from __future__ import annotations

import time

WORK_S = 0.2


def slowdown() -> float:
    """How many times longer than its CPU time a piece of work takes just now; 1.0 on an idle machine."""
    began, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < WORK_S:
        pass
    return max(1.0, (time.perf_counter() - began) / WORK_S)


def allowed_s(idle_s: float, before: float) -> float:
    """What takes `idle_s` on an idle machine may take this long here, as busy as it was `before` or is now, whichever is more."""
    return idle_s * max(before, slowdown())
