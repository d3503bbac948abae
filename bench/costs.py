"""What the chosen arm costs -> a verdict: tokens by problem, seconds by timing block, memory by its highest peak. Pure.

A ratio is the geometric mean of after / before, one value a problem or block, with a t interval of its logarithm. Seconds of one
session share that session's luck: problems as units would claim a slowdown in four of ten equal pairs, so a block of the latency probe
(both arms in turn on the same requests) is the unit. Memory is a maximum, nearly without chance: the highest peak of each arm, measured
several times, each in a process of its own (the probe holds both arms, so its peak is neither's), and a peak that nobody measured is
invalid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import stats
from bench.comparison import MAX_ERROR_SHARE
from bench.experiment import VRAM, Gate, Vram
from bench.gate import confidence, missing, refuse, verdict_of
from bench.records import CellId, Comparison, MemoryPass, Phase, Run, TimingBlock, Verdict, VerdictName
from bench.stats import Interval, Ratio

if TYPE_CHECKING:
    import pandas as pd

MIB = 2**20


# Ratios -------------------------------------------------------------------------------------------------------------------------


def read_ratio(interval: Interval, gate: Gate) -> VerdictName:
    """Pass where the whole interval lies below 1 + margin, fail where all of it lies above; touching it is no pass."""
    limit = 1 + gate.margin
    if interval.high < limit:
        return "pass"
    return "fail" if interval.low > limit else "inconclusive"


def judge_ratio(comparison: Comparison, gate: Gate, looks: int = 1) -> Verdict:
    """A ratio over problems: for what a machine's mood does not change, such as tokens. `looks`: how many the experiment permits."""
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
    reasons = [_ratio_words(name, found, gate, f"{comparison.clusters} problems", looks)]
    if comparison.without_ratio:
        reasons.append(f"{comparison.without_ratio} items x languages have no {gate.metric} above zero and were left out")
    return verdict_of(comparison, gate, name, flags=_flags(found.interval), reasons=tuple(reasons))


def judge_blocks(
    arm: str | None, blocks: Sequence[TimingBlock], gate: Gate, place: tuple[str, str], comparison: Comparison | None
) -> Verdict:
    """A ratio over timing blocks, one value a block; without blocks a gate that is not required tells the ratio over problems.

    `comparison` is that of the run's own answers, other rows running beside each: its interval is too narrow for a promise.
    """
    timed = pair_blocks(blocks, arm, gate.metric, gate.effort, gate.concurrency)
    if len(timed) < max(2, gate.min_blocks):
        reason = f"{len(timed)} timing blocks are too few: a ratio of {gate.metric} needs at least {gate.min_blocks} (`timing` makes them)"
        if comparison is not None and comparison.ratio is not None and comparison.ratio_ci is not None:
            low, high = comparison.ratio_ci
            seen = f"{comparison.ratio:.3f} (95 % CI over problems {low:.3f} to {high:.3f})"
            reason += f"; within this one session the ratio was {seen}, which says nothing of the next"
        return missing(gate, arm, reason, suite=place[0], split=place[1])
    found = over_blocks(timed)
    name = read_ratio(found.ratio.interval, gate)
    side = "one at a time" if gate.concurrency == 1 else f"{gate.concurrency} side by side"
    verdict = missing(gate, arm, _ratio_words(name, found.ratio, gate, f"{len(timed)} blocks, {side}"), suite=place[0], split=place[1])
    known: dict[str, Any] = {
        "ratio": found.ratio.ratio,
        "ratio_ci": list(found.ratio.interval),
        "robust_ratio": found.robust,
        "total_ratio": found.of_totals,
        "without_ratio": found.without,
        "blocks": len(timed),
        "concurrency": gate.concurrency,
        "df": len(timed) - 1,
    }
    if gate.metric == "latency_s" and (tokens := pair_blocks(blocks, arm, "output_tokens", gate.effort, gate.concurrency)):
        known["token_ratio"] = over_blocks(tokens).ratio.ratio
    return replace(
        verdict,
        verdict=name,
        flags=_flags(found.ratio.interval),
        before=found.before,
        after=found.after,
        delta=found.after - found.before,
        clusters=len(timed),
        evidence=known,
    )


class BlockPairs(NamedTuple):
    """One block's values of base and an arm, request by request."""

    before: list[float]
    after: list[float]
    without: int
    """Requests left out because a side has no value above zero."""


class BlockRatio(NamedTuple):
    """A cost of an arm over base's, over blocks."""

    ratio: Ratio
    """Geometric mean over a block's requests, then over blocks; the interval is over blocks."""
    robust: float
    """Hodges-Lehmann, over blocks."""
    of_totals: float
    """Sum over sum: what the bill changes by."""
    before: float
    """Mean over requests."""
    after: float
    without: int


def pair_blocks(blocks: Sequence[TimingBlock], arm: str | None, metric: str, effort: str, concurrency: int) -> list[BlockPairs]:
    """The blocks in which both arms answered the same requests; those without a pair of values above zero are left out."""
    by_arm: dict[str, dict[int, TimingBlock]] = {"base": {}, str(arm): {}}
    for block in blocks:
        if block.arm in by_arm and (block.effort, block.concurrency) == (effort, concurrency):
            by_arm[block.arm][block.block] = block
    pairs = []
    for number, before in sorted(by_arm["base"].items()):
        after = by_arm[str(arm)].get(number)
        if after is None or _asked(before) != _asked(after):
            continue
        sides = zip(getattr(before, metric), getattr(after, metric), strict=True)
        known = [(one, other) for one, other in sides if one is not None and other is not None and one > 0 and other > 0]
        if known:
            pairs.append(BlockPairs([one for one, _ in known], [other for _, other in known], len(before.items) - len(known)))
    return pairs


def _asked(block: TimingBlock) -> list[tuple[str, str]]:
    return list(zip(block.items, block.languages, strict=True))


def over_blocks(pairs: Sequence[BlockPairs]) -> BlockRatio:
    """The ratio of two blocks or more: one value a block, since the requests of a block share its luck."""
    first, second = ([_geometric_mean(getattr(pair, side)) for pair in pairs] for side in ("before", "after"))
    before, after = ([value for pair in pairs for value in getattr(pair, side)] for side in ("before", "after"))
    return BlockRatio(
        ratio=stats.geometric_mean_ratio(first, second),
        robust=stats.hodges_lehmann_ratio(first, second).ratio,
        of_totals=stats.ratio_of_totals(before, after),
        before=sum(before) / len(before),
        after=sum(after) / len(after),
        without=sum(pair.without for pair in pairs),
    )


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _flags(interval: Interval) -> tuple[str, ...]:
    if interval.low > 1:
        return ("regression_detected",)
    return ("improvement_detected",) if interval.high < 1 else ()


def _ratio_words(name: VerdictName, found: Ratio, gate: Gate, units: str, looks: int = 1) -> str:
    limit = f"{100 * gate.margin:.6g} %"
    shown = f"(geometric mean ratio {found.ratio:.3f}, 95 % CI {found.interval.low:.3f} to {found.interval.high:.3f}, {units})"
    sure = confidence(looks)
    return {
        "pass": f"a rise of {limit} or more in {gate.metric} is ruled out {sure} {shown}",
        "fail": f"a rise of more than {limit} in {gate.metric} is shown {sure} {shown}",
    }.get(name, f"cannot rule out a rise of {limit} in {gate.metric} {shown}; ask more of them")


# Energy -------------------------------------------------------------------------------------------------------------------------


def cell_costs(run: Run) -> pd.DataFrame:
    """Each cell's answers, right answers, output tokens, `energy_j` and `joules_per_correct`; energy is None where it is unknown.

    The rows of a pass run side by side, so no counter can tell one cell's energy: the pass's is shared out by output tokens. It stays
    unknown where the passes on record did not make just the answers that are there, as after a cell was asked anew.
    """
    import pandas as pd

    made = run.samples.assign(correct=run.samples["outcome"] == "correct")
    columns = list(CellId._fields)
    grouped = made.groupby(columns, observed=True, sort=True)
    cells = grouped.agg(answers=("item_id", "size"), correct=("correct", "sum"), output_tokens=("output_tokens", "sum")).reset_index()
    totals: dict[Any, float] = cells.groupby(columns[:3], observed=True)["output_tokens"].sum().to_dict()
    energy_j = [
        _share_of_energy(run.phases, (row["arm"], row["suite"], row["split"]), row["output_tokens"], totals)
        for row in cells.to_dict("records")
    ]
    each = [spent / correct if spent is not None and correct else None for spent, correct in zip(energy_j, cells["correct"], strict=True)]
    return cells.assign(energy_j=pd.Series(energy_j, dtype="float64"), joules_per_correct=pd.Series(each, dtype="float64"))


def _share_of_energy(
    phases: Sequence[Phase], place: tuple[str, str, str], tokens: float, totals: Mapping[tuple[str, str, str], float]
) -> float | None:
    passes = [phase for phase in phases if (phase.arm, phase.suite, phase.split) == place]
    known = [phase.energy_j for phase in passes if phase.energy_j is not None]
    total = totals[place]
    if not known or len(known) != len(passes) or not total or sum(phase.output_tokens for phase in passes) != total:
        return None
    return sum(known) * tokens / total


# Memory -------------------------------------------------------------------------------------------------------------------------


def peaks(phases: Sequence[Phase], repeats: Sequence[MemoryPass], arm: str | None, place: tuple[str, str]) -> list[int | None]:
    """Every measurement of an arm's allocated peak, in bytes; None where the machine did not tell one.

    Passes made for it do the same work in fresh processes, so each is a measurement. Without them the passes over the confirmation data
    are one together: a pass that went on where another stopped did only part of the work.
    """
    if measured := [repeat.peak_vram_bytes for repeat in repeats if repeat.arm == arm]:
        return list(measured)
    passes = [phase.peak_vram_bytes for phase in phases if phase.arm == arm and (phase.suite, phase.split) == place]
    known = [peak for peak in passes if peak is not None]
    return [max(known) if known and len(known) == len(passes) else None]


def reserved_peak(phases: Sequence[Phase], repeats: Sequence[MemoryPass], arm: str | None) -> int | None:
    """The most memory the arm's process ever reserved while it was evaluated; None where any measurement is missing."""
    found = [phase.peak_reserved_bytes for phase in phases if phase.arm == arm]
    found += [repeat.peak_reserved_bytes for repeat in repeats if repeat.arm == arm]
    known = [value for value in found if value is not None]
    return max(known) if known and len(known) == len(found) else None


def judge_vram(run: Run, arm: str | None, vram: Vram) -> Verdict:
    """The arm's highest peak against base's and against the card; what was not measured is invalid."""
    confirm = run.experiment.confirm
    assert confirm is not None, "gates without a confirm block pass no validation"
    place = (confirm.suite, confirm.split)
    first, second = (peaks(run.phases, run.memory, name, place) for name in ("base", arm))
    known = [[value for value in side if value is not None] for side in (first, second)]
    reserved = reserved_peak(run.phases, run.memory, arm)
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
        return "invalid", f"peak memory was measured {times} an arm, {vram.repeats} are asked for: run it again, or lower vram.repeats"
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
