"""What the chosen arm costs -> a verdict: tokens by problem, seconds by timing block, memory by its highest peak. Pure.

A ratio is the geometric mean of after / before, one value a problem or block, with a t interval of its logarithm. Seconds of one
session share that session's luck: problems as units would claim a slowdown in four of ten equal pairs, so a block (both arms in turn,
each in a process of its own) is the unit. Memory is a maximum, nearly without chance: the highest peak of each arm, measured several
times, and a peak that nobody measured is invalid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench import stats
from bench.comparison import MAX_ERROR_SHARE
from bench.experiment import VRAM, Gate, Vram
from bench.gate import ALPHA, missing, refuse, verdict_of
from bench.records import Comparison, Phase, Run, TimingBlock, Verdict, VerdictName
from bench.stats import Interval, Ratio

MIB = 2**20


# Ratios -------------------------------------------------------------------------------------------------------------------------


def read_ratio(interval: Interval, gate: Gate) -> VerdictName:
    """Pass where the whole interval lies below 1 + margin, fail where all of it lies above; touching it is no pass."""
    limit = 1 + gate.margin
    if interval.high < limit:
        return "pass"
    return "fail" if interval.low > limit else "inconclusive"


def judge_ratio(comparison: Comparison, gate: Gate) -> Verdict:
    """A ratio over problems: for what a machine's mood does not change, such as tokens."""
    refusals = comparison.invalid_because or refuse(comparison, gate)
    if not refusals and comparison.without_ratio > MAX_ERROR_SHARE * (comparison.rows or 1):
        refusals = (
            f"{comparison.without_ratio} of {comparison.rows} items x languages have no {gate.metric} above zero: a ratio leaves them "
            f"out, and at most {MAX_ERROR_SHARE:.1%} may be",
        )
    if refusals or comparison.ratio is None or comparison.ratio_ci is None:
        return verdict_of(comparison, gate, "invalid", reasons=refusals or (f"no ratio of {gate.metric} could be taken",))
    found = Ratio(comparison.ratio, Interval(*comparison.ratio_ci))
    name = read_ratio(found.interval, gate)
    reasons = [_ratio_words(name, found, gate, f"{comparison.clusters} problems")]
    if comparison.without_ratio:
        reasons.append(f"{comparison.without_ratio} items x languages have no {gate.metric} above zero and were left out")
    return verdict_of(comparison, gate, name, flags=_flags(found.interval), reasons=tuple(reasons))


def judge_blocks(arm: str | None, blocks: Sequence[TimingBlock], gate: Gate, place: tuple[str, str], comparison: Comparison) -> Verdict:
    """A ratio over timing blocks, one value a block; without blocks a gate that is not required tells the ratio over problems.

    `comparison` is that of the run's own answers, other rows running beside each: its interval is too narrow for a promise.
    """
    pairs = block_pairs(blocks, arm, gate)
    if len(pairs) < max(2, gate.min_blocks):
        reason = f"{len(pairs)} timing blocks are too few: a ratio of {gate.metric} needs at least {gate.min_blocks} (`timing` makes them)"
        if comparison.ratio is not None and comparison.ratio_ci is not None:
            low, high = comparison.ratio_ci
            seen = f"{comparison.ratio:.3f} (95 % CI over problems {low:.3f} to {high:.3f})"
            reason += f"; within this one session the ratio was {seen}, which says nothing of the next"
        return missing(gate, arm, reason, suite=place[0], split=place[1])
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    found = stats.geometric_mean_ratio(before, after)
    name = read_ratio(found.interval, gate)
    seconds = [sum(values) / len(values) for values in (before, after)]
    verdict = missing(gate, arm, _ratio_words(name, found, gate, f"{len(pairs)} blocks"), suite=place[0], split=place[1])
    known: dict[str, Any] = {
        "ratio": found.ratio,
        "ratio_ci": list(found.interval),
        "robust_ratio": stats.hodges_lehmann_ratio(before, after).ratio,
        "total_ratio": stats.ratio_of_totals(before, after),
        "blocks": len(pairs),
        "df": len(pairs) - 1,
    }
    return replace(
        verdict,
        verdict=name,
        flags=_flags(found.interval),
        before=seconds[0],
        after=seconds[1],
        delta=seconds[1] - seconds[0],
        clusters=len(pairs),
        evidence=known,
    )


def block_pairs(blocks: Sequence[TimingBlock], arm: str | None, gate: Gate) -> list[tuple[float, float]]:
    """Seconds of base and the arm in each block where both were timed on the same rows at the gate's effort."""
    by_arm: dict[str, dict[int, TimingBlock]] = {"base": {}, str(arm): {}}
    for block in blocks:
        if block.arm in by_arm and block.effort == gate.effort:
            by_arm[block.arm][block.block] = block
    pairs = []
    for number, before in sorted(by_arm["base"].items()):
        after = by_arm[str(arm)].get(number)
        values = [getattr(side, gate.metric) for side in (before, after) if side is not None]
        if after is not None and before.rows == after.rows and all(value is not None and value > 0 for value in values):
            pairs.append((values[0], values[1]))
    return pairs


def _flags(interval: Interval) -> tuple[str, ...]:
    if interval.low > 1:
        return ("regression_detected",)
    return ("improvement_detected",) if interval.high < 1 else ()


def _ratio_words(name: VerdictName, found: Ratio, gate: Gate, units: str) -> str:
    limit = f"{100 * gate.margin:.6g} %"
    shown = f"(geometric mean ratio {found.ratio:.3f}, 95 % CI {found.interval.low:.3f} to {found.interval.high:.3f}, {units})"
    sure = f"at {100 * (1 - ALPHA):g} % one-sided confidence"
    return {
        "pass": f"a rise of {limit} or more in {gate.metric} is ruled out {sure} {shown}",
        "fail": f"a rise of more than {limit} in {gate.metric} is shown {sure} {shown}",
    }.get(name, f"cannot rule out a rise of {limit} in {gate.metric} {shown}; ask more of them")


# Memory -------------------------------------------------------------------------------------------------------------------------


def peaks(phases: Sequence[Phase], blocks: Sequence[TimingBlock], arm: str | None, place: tuple[str, str]) -> list[int | None]:
    """Every measurement of an arm's allocated peak, in bytes; None where the machine did not tell one.

    Timing blocks do the same work in fresh processes, so each is a measurement. Without them the passes over the confirmation data
    are one together: a pass that went on where another stopped did only part of the work.
    """
    if timed := [block.peak_vram_bytes for block in blocks if block.arm == arm]:
        return list(timed)
    passes = [phase.peak_vram_bytes for phase in phases if phase.arm == arm and (phase.suite, phase.split) == place]
    known = [peak for peak in passes if peak is not None]
    return [max(known) if known and len(known) == len(passes) else None]


def reserved_peak(phases: Sequence[Phase], blocks: Sequence[TimingBlock], arm: str | None) -> int | None:
    """The most memory the arm's process ever reserved while it was evaluated; None where any measurement is missing."""
    found = [phase.peak_reserved_bytes for phase in phases if phase.arm == arm]
    found += [block.peak_reserved_bytes for block in blocks if block.arm == arm]
    known = [value for value in found if value is not None]
    return max(known) if known and len(known) == len(found) else None


def judge_vram(run: Run, arm: str | None, vram: Vram) -> Verdict:
    """The arm's highest peak against base's and against the card; what was not measured is invalid."""
    confirm = run.experiment.confirm
    assert confirm is not None, "gates without a confirm block pass no validation"
    place = (confirm.suite, confirm.split)
    first, second = (peaks(run.phases, run.timing, name, place) for name in ("base", arm))
    known = [[value for value in side if value is not None] for side in (first, second)]
    reserved = reserved_peak(run.phases, run.timing, arm)
    unmeasured = any(len(each) != len(side) or not each for each, side in zip(known, (first, second), strict=True))
    if unmeasured or reserved is None:
        device = run.environment.gpu or "a machine without a GPU"
        return _vram_verdict(run, arm, vram, "invalid", f"peak memory was not measured of every pass of base and {arm} ({device})")
    before, after = max(known[0]), max(known[1])
    allowed = vram.relative * before + vram.absolute_mib * MIB
    numbers = {"before": before, "after": after, "allowed": allowed, "reserved": reserved, "measured": min(map(len, known))}
    name, reason = _read_vram(run, vram, numbers, max(max(side) - min(side) for side in known))
    verdict = _vram_verdict(run, arm, vram, name, reason)
    evidence = {"reserved_bytes": reserved, "allowed_rise_bytes": round(allowed), "measurements": numbers["measured"]}
    delta = float(after - before)
    return replace(verdict, before=float(before), after=float(after), delta=delta, margin=allowed, evidence=evidence)


def _read_vram(run: Run, vram: Vram, numbers: dict[str, Any], spread: int) -> tuple[VerdictName, str]:
    before, after, allowed = numbers["before"], numbers["after"], numbers["allowed"]
    if numbers["measured"] < vram.repeats:
        times = f"{numbers['measured']} time{'s' if numbers['measured'] > 1 else ''}"
        return "invalid", f"peak memory was measured {times} an arm, {vram.repeats} are asked for: raise timing.blocks or lower repeats"
    if spread > allowed:
        return "invalid", f"peak memory of one arm varies by {_mib(spread)}, more than the allowed rise of {_mib(allowed)}"
    limit = vram.limit_mib * MIB if vram.limit_mib else run.environment.gpu_memory_bytes
    if limit is None:
        return "invalid", "how much memory the card has is not known: name it with vram.limit_mib"
    shown = f"peak {_mib(before)} before, {_mib(after)} after, {_mib(numbers['reserved'])} reserved; {_mib(allowed)} more are allowed"
    if numbers["reserved"] > limit:
        return "fail", f"more memory is reserved than the limit of {_mib(limit)} ({shown})"
    if after > before + allowed:
        return "fail", f"peak memory rises by {_mib(after - before)} ({shown})"
    return "pass", f"peak memory stays within the allowed rise ({shown})"


def _vram_verdict(run: Run, arm: str | None, vram: Vram, name: VerdictName, reason: str) -> Verdict:
    confirm = run.experiment.confirm
    assert confirm is not None, "gates without a confirm block pass no validation"
    return Verdict(
        name=VRAM,
        arm=arm,
        against="base",
        suite=confirm.suite,
        split=confirm.split,
        effort="all",
        metric="peak_vram_bytes",
        before=None,
        after=None,
        delta=None,
        ci=None,
        margin=vram.absolute_mib * MIB,
        clusters=0,
        verdict=name,
        reasons=(reason,),
        type=VRAM,
        required=vram.required,
    )


def _mib(size: float) -> str:
    return f"{size / MIB:,.0f} MiB"
