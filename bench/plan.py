"""What an experiment's gates can tell with the problems there are: power and sizes, before anything is run.

The spread of the problems' differences comes from a pilot run, else from an assumption that is said in words. The difference a pilot
found has no place here: power is that of an arm that changed nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench import stats
from bench.catalog import Suite, find_suite
from bench.comparison import TRAITS, compare
from bench.errors import ExperimentError, RunFolderError
from bench.experiment import Experiment, Gate
from bench.gate import CEILING_CLUSTERS, POWER, amount, gated_arm, is_near_ceiling, required_clusters
from bench.records import Comparison, Run

CHANGED = 0.16
"""Assumed share of single answers that change in either direction; a guess from multilingual grade-school maths."""
CORRELATION = 0.05
"""Assumed correlation of the differences of a problem's languages."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How much the problems' differences vary."""

    sd: float | None
    """Standard deviation, in the metric's unit. None where nothing is known of it."""
    source: str
    """Where it comes from, in words."""
    pilot: Comparison | None = None


@dataclass(frozen=True, slots=True)
class GatePlan:
    """What one gate can tell."""

    gate: Gate
    items: int
    languages: int
    spread: Spread
    power: float | None
    """Chance that an unchanged arm passes. None for a superiority gate, and where the spread is not known."""
    detectable: float | None
    """Non-inferiority: the smallest margin with 80 % power. Superiority: the smallest true gain that passes with 80 %."""
    needed: int | None
    """Problems for 80 %. None where no number is enough, or the spread is not known."""
    problem: str | None
    """Why the gate is under-powered, in one sentence; None where it is not."""

    @property
    def is_refused(self) -> bool:
        """Whether it is under-powered and the experiment does not allow that."""
        return self.problem is not None and not self.gate.allow_underpowered


def plan_gates(experiment: Experiment, pilot: Run | None = None, items: int | None = None) -> list[GatePlan]:
    """One plan a gate. Raises ExperimentError without gates, or where the number of problems is not known; UsageError on a bad pilot."""
    confirm = experiment.confirm
    if confirm is None or not experiment.gates:
        raise ExperimentError(f"experiment {experiment.name} has no gates: there is nothing to plan")
    suite = _find(experiment, confirm.suite)
    suite.check_split(confirm.split)
    languages = len(suite.choose_languages(experiment.evaluate.languages))
    available = items or suite.count_items(confirm.split, experiment.evaluate.data)
    if available is None:
        raise ExperimentError(f"how many problems {confirm.suite}@{confirm.split} holds cannot be told from local files: pass --items N")
    spreads = [pilot_spread(pilot, gate, experiment) if pilot else assumed_spread(gate, languages) for gate in experiment.gates]
    return [plan_gate(gate, available, languages, spread) for gate, spread in zip(experiment.gates, spreads, strict=True)]


def _find(experiment: Experiment, name: str) -> Suite:
    return find_suite(next(suite for suite in experiment.evaluate.suites if Path(suite).name == name))


# Spread -------------------------------------------------------------------------------------------------------------------------


def assumed_spread(gate: Gate, languages: int) -> Spread:
    """For want of a pilot: single answers of a share, of which 16 % change; at least the margin where a gain of it must be shown."""
    if not TRAITS[gate.metric].is_share:
        return Spread(None, f"nothing is known of how {gate.metric} varies: pass --pilot RUN")
    gain = gate.margin if gate.type == "superiority" else 0.0
    changed = max(CHANGED, gain)
    variance = (changed - gain**2) * (1 + (languages - 1) * CORRELATION) / languages
    return Spread(
        math.sqrt(variance),
        f"assumed, there being no pilot: {changed:.0%} of single answers change, and the changes of a problem's languages "
        f"correlate by {CORRELATION:g}",
    )


def pilot_spread(pilot: Run, gate: Gate, experiment: Experiment) -> Spread:
    """From the pilot's arm against its base. Raises RunFolderError where it did not measure the gate's metric at its effort."""
    arm = gated_arm(pilot)
    if arm is None:
        raise RunFolderError(f"{pilot.folder} is no pilot: it has no arm that was chosen, nor a single one beside base")
    found = _pilot_comparison(pilot, arm, gate, experiment)
    where = f"{gate.metric} at {gate.effort} effort"
    if found is None:
        raise RunFolderError(f"{pilot.folder} is no pilot for gate {gate.name}: base and {arm} were not both asked for {where}")
    if found.se is None:
        raise RunFolderError(f"{pilot.folder} is no pilot for gate {gate.name}: {'; '.join(found.invalid_because)}")
    languages = len(found.languages)
    source = f"from {arm} against base on {found.clusters} problems x {languages} languages of {found.suite}@{found.split} in the pilot"
    if found.se == 0:
        return Spread(None, f"every problem of the pilot differs by the same ({source}): it is too small to tell", found)
    return Spread(found.se * math.sqrt(found.clusters), source, found)


def _pilot_comparison(pilot: Run, arm: str, gate: Gate, experiment: Experiment) -> Comparison | None:
    """On the gate's own data where the pilot asked them, else on the split with the most problems."""
    samples = pilot.samples[pilot.samples["effort"] == gate.effort]
    base, after = (samples[samples["arm"] == name] for name in ("base", arm))
    places = sorted(_places(base) & _places(after))
    if not places:
        return None
    confirm = experiment.confirm
    own = (confirm.suite, confirm.split) if confirm else None

    def weight(place: tuple[str, str]) -> tuple[bool, int]:
        here = (after["suite"] == place[0]) & (after["split"] == place[1])
        return place == own, int(after.loc[here, "item_id"].nunique())

    suite, split = max(places, key=weight)
    return compare(base, after, suite=suite, split=split, effort=gate.effort, metric=gate.metric)


def _places(samples: pd.DataFrame) -> set[tuple[str, str]]:
    return {(str(suite), str(split)) for suite, split in samples[["suite", "split"]].drop_duplicates().itertuples(index=False)}


# Power --------------------------------------------------------------------------------------------------------------------------


def plan_gate(gate: Gate, items: int, languages: int, spread: Spread) -> GatePlan:
    """Power, detectable effect and problems needed of one gate on `items` problems."""
    least = required_clusters(gate)
    if spread.pilot is not None and is_near_ceiling(spread.pilot, gate):
        least = max(least, CEILING_CLUSTERS)
    sd = spread.sd
    if sd is None or items < 2:
        problem = spread.source if sd is None else f"{items} problem is no sample"
        return GatePlan(gate, items, languages, spread, None, None, None, f"gate {gate.name} cannot be planned: {problem}")
    effect = stats.minimum_detectable_effect(sd, items, power=POWER).exact
    if gate.type == "superiority":
        power, detectable = None, gate.margin + effect
        room = _largest_gain(gate, spread) - gate.margin
        needed = None if room <= 0 else least if math.isinf(room) else stats.non_inferiority_sample_size(sd**2, room, power=POWER)
        is_weak = effect > room
    else:
        power, detectable = stats.non_inferiority_power(sd / math.sqrt(items), gate.margin), effect
        needed = stats.non_inferiority_sample_size(sd**2, gate.margin, power=POWER)
        is_weak = power < POWER
    needed = None if needed is None else max(needed, least)
    return GatePlan(gate, items, languages, spread, power, detectable, needed, _problem(gate, items, least, power, needed, is_weak))


def _largest_gain(gate: Gate, spread: Spread) -> float:
    """Beyond which nothing can improve: up to 1 for a share, down to 0 for tokens and seconds."""
    trait, before = TRAITS[gate.metric], spread.pilot.before if spread.pilot else None
    if before is None:
        return 1.0 if trait.is_share else math.inf
    return 1.0 - before if trait.more_is_better else before


def _problem(gate: Gate, items: int, least: int, power: float | None, needed: int | None, is_weak: bool) -> str | None:
    """Why a gate is under-powered, in one sentence."""
    remedy = f"it needs {needed:,} problems" if needed is not None else "no number of problems is enough: lower the margin"
    if items < least:
        return f"gate {gate.name} is under-powered: with {items:,} problems its verdict is invalid whatever they say; {remedy}"
    if not is_weak:
        return None
    if power is None:
        return f"gate {gate.name} is under-powered: even the largest possible gain may not pass {amount(gate.margin, gate)}; {remedy}"
    chance = f"{power:.0%}".replace("%", " %")
    return f"gate {gate.name} is under-powered: an unchanged arm passes {amount(gate.margin, gate)} in only {chance} of runs; {remedy}"


def describe(plan: GatePlan) -> str:
    """The plan of one gate in a line."""
    gate = plan.gate
    parts = [f"{plan.items:,} problems x {plan.languages} languages, margin {amount(gate.margin, gate)}"]
    if plan.spread.sd is not None:
        parts.append(f"standard deviation of a problem's difference {amount(plan.spread.sd, gate, digits=3)}")
    if plan.power is not None:
        parts.append(f"an unchanged arm passes in {100 * plan.power:.0f} % of runs")
    if plan.detectable is not None:
        what = "a true gain" if gate.type == "superiority" else "a margin"
        parts.append(f"80 % power for {what} of {amount(plan.detectable, gate, digits=3)}")
    if plan.needed is not None:
        parts.append(f"80 % needs {plan.needed:,} problems")
    return "; ".join(parts)
