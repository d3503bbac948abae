"""What an experiment's gates can tell with the problems there are, and what they cost: power, sizes, tokens, hours, before a run.

The spread of the problems' differences comes from a pilot run, else from an assumption that is said in words. The difference a pilot
found has no place here: power is that of an arm that changed nothing. A language guard passes nothing and timing blocks are no
problems, so neither is planned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bench import stats
from bench.catalog import Suite, find_asked
from bench.comparison import TRAITS, compare
from bench.errors import ExperimentError, RunFolderError
from bench.experiment import Experiment, Gate, suite_name
from bench.gate import (
    CEILING_CLUSTERS,
    amount,
    gated_arm,
    is_near_ceiling,
    kept,
    planned_power,
    relative_difference,
    required_clusters,
    samples_needed,
)
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
    """With as many samples an item as the experiment asks for, where the pilot could tell."""


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
    """Non-inferiority: the smallest margin with the power that was asked for. Superiority: the smallest true gain that passes with it.
    In the unit of the gate's margin."""
    needed: int | None
    """Problems for the power that was asked for. None where no number is enough, or the spread is not known."""
    samples: int | None
    """Samples an item that would do instead, on the problems there are. None where no number would, or one sample cannot tell."""
    problem: str | None
    """Why the gate is under-powered, in one sentence; None where it is not."""

    @property
    def is_refused(self) -> bool:
        """Whether it is under-powered and the experiment does not allow that."""
        return self.problem is not None and not self.gate.allow_underpowered


def plan_gates(experiment: Experiment, pilot: Run | None = None, items: int | None = None) -> list[GatePlan]:
    """One plan a gate. Raises ExperimentError without gates, or where the number of problems is not known; UsageError on a bad pilot."""
    languages, available = _data(experiment, items)
    planned = [gate for gate in experiment.gates if gate.type != "language_guard" and not gate.needs_blocks]
    spreads = [_spread(gate, languages, experiment, pilot) for gate in planned]
    return [plan_gate(gate, available, languages, spread) for gate, spread in zip(planned, spreads, strict=True)]


def _data(experiment: Experiment, items: int | None) -> tuple[int, int]:
    """Languages and problems that judge the arm."""
    confirm = experiment.confirm
    if confirm is None or not experiment.gates:
        raise ExperimentError(f"experiment {experiment.name} has no gates: there is nothing to plan")
    suite = _find(experiment, confirm.suite)
    suite.check_split(confirm.split)
    languages = len(suite.choose_languages(experiment.evaluate.languages))
    available = items or suite.count_items(confirm.split, experiment.evaluate.data)
    if available is None:
        raise ExperimentError(f"how many problems {confirm.suite}@{confirm.split} holds cannot be told from local files: pass --items N")
    return languages, available


def refuse_underpowered(experiment: Experiment, limit: int | None = None) -> None:
    """Raise ExperimentError where a gate's own `planned_sd` promises less power than it asks for, SuiteError on an unknown split.

    A gate without `planned_sd` is not refused on an assumption, nor a run with a limit, which is a trial and judges nothing.
    """
    planned = [gate for gate in experiment.gates if gate.planned_sd is not None and not gate.allow_underpowered]
    if not planned or limit is not None or experiment.confirm is None:
        return
    suite = _find(experiment, experiment.confirm.suite)
    suite.check_split(experiment.confirm.split)
    items = suite.count_items(experiment.confirm.split, experiment.evaluate.data)
    for gate in planned:
        power = planned_power(gate, items, None) if items else None
        if power is not None and power < gate.min_planned_power:
            chance, asked = f"{100 * power:.0f} %", f"{100 * gate.min_planned_power:g} %"
            raise ExperimentError(
                f"gate {gate.name} is under-powered: with planned_sd {gate.planned_sd:g} an unchanged arm passes "
                f"{amount(gate.margin, gate)} in only {chance} of runs on {items:,} problems, and {asked} are asked for: "
                "ask more problems or samples, or set allow_underpowered: true (effortbench power says how many)"
            )


def _find(experiment: Experiment, name: str) -> Suite:
    return find_asked(next(suite for suite in experiment.evaluate.suites if suite_name(suite) == name), experiment.evaluate)


# Spread -------------------------------------------------------------------------------------------------------------------------


def _spread(gate: Gate, languages: int, experiment: Experiment, pilot: Run | None) -> Spread:
    if pilot is not None:
        return pilot_spread(pilot, gate, experiment)
    if gate.planned_sd is not None and not gate.relative:
        return Spread(gate.planned_sd, f"planned_sd of gate {gate.name}")
    return assumed_spread(gate, languages)


def assumed_spread(gate: Gate, languages: int) -> Spread:
    """For want of a pilot: single answers of a share, of which 16 % change; at least the margin where a gain of it must be shown."""
    if not TRAITS[gate.metric].is_share:
        return Spread(None, f"nothing is known of how {gate.metric} varies: pass --pilot RUN")
    if gate.relative:
        return Spread(None, f"a relative margin needs the level of {gate.metric} before: pass --pilot RUN")
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
    found, note = _with_samples(found, experiment.evaluate.samples_per_item)
    sd = _tested_sd(found, gate)
    if not sd:
        return Spread(None, f"every problem of the pilot differs by the same ({source}): it is too small to tell", found)
    return Spread(sd, source + note, found)


def _with_samples(found: Comparison, samples: int) -> tuple[Comparison, str]:
    """The pilot's comparison as it would be with so many samples an item, and what is to be said of it."""
    if found.samples_per_item == samples or found.clusters < 2:
        return found, ""
    asked = f", for {samples} samples an item in place of its {found.samples_per_item}"
    if found.within is None or found.between is None:
        return found, f" ({samples} samples an item are asked for; how much narrower that is, one sample cannot tell)"
    variance = found.between + found.within / samples
    return replace(found, se=math.sqrt(variance / found.clusters), samples_per_item=samples), asked


def _tested_sd(found: Comparison, gate: Gate) -> float | None:
    """Standard deviation of what the gate tests a problem: the difference, after - kept x before, or the log ratio."""
    if gate.type == "max_ratio":
        if found.ratio_ci is None:
            return None
        half = math.log(found.ratio_ci[1] / found.ratio_ci[0]) / 2
        return half / stats.t_quantile(found.clusters - 1) * math.sqrt(found.clusters)
    se = relative_difference(found, kept(gate)).se if gate.relative else found.se or 0.0
    return se * math.sqrt(found.clusters)


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
    """Power, detectable effect, problems and samples needed of one gate on `items` problems."""
    least = required_clusters(gate)
    if spread.pilot is not None and is_near_ceiling(spread.pilot, gate):
        least = max(least, CEILING_CLUSTERS)
    sd, margin = spread.sd, _tested_margin(gate, spread)
    if sd is None or margin is None or items < 2:
        why = f"{items} problem is no sample" if items < 2 else spread.source
        return GatePlan(gate, items, languages, spread, None, None, None, None, f"gate {gate.name} cannot be planned: {why}")
    asked = gate.min_planned_power
    effect = stats.minimum_detectable_effect(sd, items, power=asked).exact
    samples = None
    if gate.type == "superiority":
        power, detectable = None, margin + effect
        room = _largest_gain(gate, spread) - margin
        needed = None if room <= 0 else least if math.isinf(room) else stats.non_inferiority_sample_size(sd**2, room, power=asked)
        is_weak = effect > room
    else:
        swing = (spread.pilot.swing if spread.pilot else None) or 0.0
        power, detectable = stats.score_power(sd, items, swing, margin), effect
        needed = _problems_for(asked, sd, swing, margin)
        is_weak = power < asked
        if is_weak and spread.pilot is not None:
            samples = samples_needed(replace(spread.pilot, clusters=items), gate, asked)
    needed = None if needed is None else max(needed, least)
    problem = _problem(gate, items, least, power, needed, is_weak)
    return GatePlan(gate, items, languages, spread, power, _as_margin(detectable, gate, spread), needed, samples, problem)


def _problems_for(asked: float, sd: float, swing: float, margin: float) -> int:
    """Problems on which an unchanged arm passes with this power, by both intervals; without a swing by the t interval alone."""
    needed = stats.non_inferiority_sample_size(sd**2, margin, power=asked)
    while stats.score_power(sd, needed, swing, margin) < asked - 1e-9:
        needed = math.ceil(1.01 * needed)
    return needed


def _tested_margin(gate: Gate, spread: Spread) -> float | None:
    """The margin on the scale of the spread; None where a relative one has no level to be a share of."""
    if gate.type == "max_ratio":
        return math.log1p(gate.margin)
    if gate.relative:
        return gate.margin * spread.pilot.before if spread.pilot and spread.pilot.before else None
    return gate.margin


def _as_margin(size: float, gate: Gate, spread: Spread) -> float:
    """The reverse of `_tested_margin`."""
    if gate.type == "max_ratio":
        return math.expm1(size)
    return size / spread.pilot.before if gate.relative and spread.pilot and spread.pilot.before else size


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
    chance = f"{100 * power:.0f} %"
    return f"gate {gate.name} is under-powered: an unchanged arm passes {amount(gate.margin, gate)} in only {chance} of runs; {remedy}"


def describe(plan: GatePlan) -> str:
    """The plan of one gate in a line."""
    gate, asked = plan.gate, f"{100 * plan.gate.min_planned_power:g} %"
    parts = [f"{plan.items:,} problems x {plan.languages} languages, margin {amount(gate.margin, gate)}"]
    if plan.spread.sd is not None:
        parts.append(f"standard deviation of a problem's {_sd_words(plan.spread.sd, gate)}")
    if plan.power is not None:
        parts.append(f"an unchanged arm passes in {100 * plan.power:.0f} % of runs")
    if plan.detectable is not None:
        what = "a true gain" if gate.type == "superiority" else "a margin"
        parts.append(f"{asked} power for {what} of {amount(plan.detectable, gate, digits=3)}")
    if plan.needed is not None:
        parts.append(f"{asked} needs {plan.needed:,} problems" + (f", or {plan.samples} samples an item" if plan.samples else ""))
    return "; ".join(parts)


def _sd_words(sd: float, gate: Gate) -> str:
    if gate.type == "max_ratio":
        return f"log ratio {sd:.3g}"
    return f"difference {amount(sd, gate.model_copy(update={'relative': False}), digits=3)}"


# Cost ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """What one step of the experiment takes."""

    step: str
    answers: int
    output_tokens: float | None
    """None where the pilot did not ask at one of the efforts."""
    hours: float | None
    """Of one process, loading left out, at the pilot's speed. None where that is not known."""


def plan_costs(experiment: Experiment, pilot: Run, items: int | None = None, plans: Sequence[GatePlan] = ()) -> list[Cost]:
    """Training, selection, confirmation, the extension if one is declared, and the confirmation on as many problems as are needed.

    Tokens an answer, tokens a second and seconds a training step are the pilot's. Answers to other suites are not counted.
    """
    languages, confirmed = _data(experiment, items)
    evaluate, confirm, select = experiment.evaluate, experiment.confirm, experiment.select
    assert confirm is not None, "gates without a confirm block pass no validation"
    efforts, samples, arms = list(evaluate.efforts), evaluate.samples_per_item, len(experiment.arms())
    costs = [_training_cost(experiment, pilot)]
    if select:
        suite = _find(experiment, select.suite)
        problems = suite.count_items(select.split, evaluate.data) or 0
        rows = arms * problems * len(suite.choose_languages(evaluate.languages)) * samples
        costs.append(_cost(f"select among {arms - 1} arms on {problems:,} problems", rows, efforts, pilot))
    costs.append(_cost(f"confirm on {confirmed:,} problems", 2 * confirmed * languages * samples, efforts, pilot))
    if experiment.extension:
        further = 2 * confirmed * languages * experiment.extension.samples
        costs.append(
            _cost(f"extend by {experiment.extension.samples} samples an item, if inconclusive", further, experiment.extended_efforts, pilot)
        )
    needed = max((plan.needed for plan in plans if plan.needed is not None), default=0)
    if needed > confirmed:
        costs.append(_cost(f"confirm on the {needed:,} problems that are needed", 2 * needed * languages * samples, efforts, pilot))
    return [cost for cost in costs if cost is not None]


def _cost(step: str, rows: int, efforts: Sequence[str], pilot: Run) -> Cost:
    """Of so many answers at each effort."""
    per_answer = pilot.samples.groupby("effort")["output_tokens"].mean()
    known = [float(per_answer[effort]) for effort in efforts if effort in per_answer and math.isfinite(per_answer[effort])]
    tokens = rows * sum(known) if len(known) == len(efforts) else None
    seconds = sum(phase.wall_s for phase in pilot.phases)
    speed = sum(phase.output_tokens for phase in pilot.phases) / seconds if seconds else 0.0
    return Cost(step, rows * len(efforts), tokens, tokens / speed / 3600 if tokens is not None and speed else None)


def _training_cost(experiment: Experiment, pilot: Run) -> Cost | None:
    """None where nothing is trained. A training run serves all its step counts, unless the schedule needs to know the last."""
    finetune = experiment.finetune
    if finetune is None:
        return None
    runs = len(finetune.ranks) * len(finetune.seeds) * len(finetune.methods)
    rows = max((done.rows_kept or 0 for done in pilot.training.values()), default=0)
    if not rows and any(isinstance(steps, str) for steps in finetune.steps):
        return Cost(f"train {runs} times, over epochs of a length the pilot does not tell", 0, None, None)
    counts = [finetune.count_steps(steps, rows) for steps in finetune.steps]
    steps = runs * (sum(counts) if finetune.schedule_needs_last_step else max(counts))
    timed = [(done.wall_s, done.steps) for done in pilot.training.values() if done.wall_s is not None and done.status == "trained"]
    hours = steps * sum(wall for wall, _ in timed) / sum(count for _, count in timed) / 3600 if timed else None
    return Cost(f"train {steps:,} steps", 0, None, hours)


def describe_cost(cost: Cost) -> str:
    """One step in a line."""
    parts = [f"{cost.answers:,} answers"] if cost.answers else []
    if cost.answers:
        parts.append(
            "tokens unknown: the pilot asked other efforts" if cost.output_tokens is None else f"{_round(cost.output_tokens)} tokens"
        )
    parts.append("hours unknown" if cost.hours is None else f"{cost.hours:.2g} process-hours")
    return f"{cost.step}: {', '.join(parts)}"


def _round(tokens: float) -> str:
    return f"{tokens / 1e6:.3g} million" if tokens >= 1e6 else f"{tokens:,.0f}"
