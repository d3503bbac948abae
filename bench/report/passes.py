"""Evaluation passes -> tables: what they cost in time, memory and energy. Makes no statistics itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from bench.costs import cell_costs
from bench.records import Phase, Run
from bench.report import words
from bench.report.cost_tables import ONCE
from bench.report.focus import Focus
from bench.report.tables import Column, Entry, Table, field_hints, once

DEVICE_PEAKS = {
    "peak_vram_bytes": "allocated",
    "peak_reserved_bytes": "reserved",
    "peak_process_bytes": "process",
    "peak_device_bytes": "device",
}


def phases(run: Run) -> Table | None:
    """Time, memory and energy of each evaluation pass."""
    if not run.phases:
        return None
    gpu = run.environment.gpu is not None
    peaks, hints = DEVICE_PEAKS if gpu else {}, field_hints(Phase)
    rows = []
    for phase in run.phases:
        speed = phase.output_tokens / phase.wall_s if phase.wall_s else None
        outside = 1 - phase.model_s / phase.wall_s if phase.model_s is not None and phase.wall_s else None
        rows.append(
            (
                Entry(phase.arm),
                Entry(f"{phase.suite}@{phase.split}"),
                once(words.seconds(phase.wall_s), phase.wall_s),
                once(words.share(outside), outside),
                once(words.count(phase.output_tokens), phase.output_tokens, is_count=True),
                once(words.count(speed), speed),
                *(_known(words.size, getattr(phase, name)) for name in (*peaks, "peak_rss_bytes")),
                *([_known(words.count, phase.energy_j), _known(words.decimal, phase.joules_per_correct)] if gpu else []),
                Entry(phase.engine, small=_side_by_side(phase)),
            )
        )
    columns = (
        Column("arm", numeric=False),
        Column("data", numeric=False),
        Column("time"),
        Column("outside the model", "Share of the time not spent in model calls."),
        Column("output tokens"),
        Column("tokens a second"),
        *(Column(title, hints.get(name) or f"Peak {title} by torch on the device.") for name, title in peaks.items()),
        Column("host memory", "Peak resident memory of the process."),
        *(
            [Column("energy, J", hints.get("energy_j", "")), Column("J a right answer", "Energy of the pass over its right answers.")]
            if gpu
            else []
        ),
        Column("engine", numeric=False),
    )
    note = "One pass holds all languages and efforts of its data." + (
        "" if gpu else " Without a GPU there is no VRAM, and energy is unknown."
    )
    return Table("phases", "Evaluation: time, memory and energy", columns, tuple(rows), note, ONCE)


def energy(run: Run, focus: Focus) -> Table | None:
    """Energy by arm and effort of the focused data; None on a machine without a counter."""
    costs = cell_costs(run)
    here = costs[(costs["suite"] == focus.suite) & (costs["split"] == focus.split) & costs["energy_j"].notna()]
    rows = []
    for arm, effort in itertools.product(focus.compared, focus.efforts):
        cells = here[(here["arm"] == arm) & (here["effort"] == effort)]
        if len(cells):
            spent, correct = float(cells["energy_j"].sum()), int(cells["correct"].sum())
            each = (spent / cells["answers"].sum(), spent / correct if correct else None)
            rows.append((Entry(arm), Entry(effort), _known(words.count, spent), *(_known(words.decimal, value) for value in each)))
    if not rows:
        return None
    columns = (
        Column("arm", numeric=False),
        Column("effort", numeric=False),
        *map(Column, ("energy, J", "J an answer", "J a right answer")),
    )
    note = f"{focus.place}. A pass's energy by NVML's counter, shared out by output tokens: all its rows run side by side."
    return Table("energy", "Energy by effort", columns, tuple(rows), note, ONCE)


def _known(say: Callable[[float | None], str], value: float | None) -> Entry:
    """What a machine cannot tell is a dash, and an empty field in a copy."""
    return once(say(value) if words.known(value) else words.MISSING, value)


def _side_by_side(phase: Phase) -> str:
    """How many rows ran side by side, and what memory made of it."""
    rows = words.plural(phase.slots, "slot") if phase.engine == "slots" else f"batch {phase.slots:,}"
    return f"{rows}, out of memory {words.plural(phase.halvings, 'time')}" if phase.halvings else rows
