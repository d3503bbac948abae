"""A comparison and a gate -> a verdict; samples and a selection rule -> the arm to judge. Pure: reads nothing, prints nothing.

One two-sided 95 % interval is held against one threshold: pass where all of it lies above, fail where all of it lies below,
otherwise inconclusive, which is an answer and passes no release. A guard that does not hold makes the verdict invalid, whatever
the interval. Each side has 97.5 % confidence: at 95 % the t interval passes a real loss a little more than 5 % of the time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bench import stats
from bench.comparison import TRAITS, compare
from bench.errors import UsageError
from bench.experiment import Gate, Select
from bench.records import EXIT_CODES, SEVERITY, Candidate, CellRecord, Comparison, Run, RunVerdict, Selection, Verdict, VerdictName
from bench.stats import Interval

ALPHA = 0.025
"""One-sided error of each limit."""
POWER = 0.8
"""Chance of a pass, nothing having changed, that an inconclusive gate's number of problems aims at."""
CEILING = 0.95
"""Above this share, losses are so rare and lopsided that the t interval needs more problems."""
CEILING_CLUSTERS = 250
TOLERANCE = 1e-9
"""Differences of selection values below this are rounding."""


# Judging ------------------------------------------------------------------------------------------------------------------------


def judge(comparison: Comparison, gate: Gate) -> Verdict:
    """What the gate says of the comparison: pass, fail, inconclusive or invalid, with the reasons in words.

    A pass is capped at inconclusive where it would not stand if the unscored answers were wrong after and right before. A fail is
    not softened by unscored answers: both arms had the same token limit, so not finishing is a loss too.
    """
    refusals = comparison.invalid_because or _refusals(comparison, gate)
    if refusals or comparison.ci is None:
        return _verdict(comparison, gate, "invalid", reasons=refusals or ("the comparison has no interval",))
    gain = _gain(comparison.ci, gate)
    name = read(gain, gate)
    if name == "pass" and comparison.worst_ci is not None and read(_gain(comparison.worst_ci, gate), gate) != "pass":
        return _verdict(comparison, gate, "inconclusive", flags=_flags(gain), reasons=(_unscored(comparison, gate),))
    reasons = (_finding(name, comparison, gate), *_remarks(name, gain, comparison, gate))
    return _verdict(comparison, gate, name, flags=_flags(gain), reasons=reasons)


def read(gain: Interval, gate: Gate) -> VerdictName:
    """Hold the interval of the gain (positive is better) against the gate's threshold; touching the threshold is not a pass."""
    threshold = -gate.margin if gate.type == "non_inferiority" else gate.margin
    if gain.low > threshold:
        return "pass"
    return "fail" if gain.high < threshold else "inconclusive"


def required_clusters(gate: Gate) -> int:
    """Fewest problems this gate can be judged on.

    Beyond `min_clusters`, a share's margin m needs ln(.025) / ln(1 - m) problems: fewer could all agree while a share m of the
    problems not asked is lost. Raises ValueError for a share whose margin is not below 1.
    """
    if gate.type == "superiority" or not TRAITS[gate.metric].is_share:
        return gate.min_clusters
    if not 0 < gate.margin < 1:
        raise ValueError(f"the margin of a share lies between 0 and 1, found {gate.margin}")
    return max(gate.min_clusters, math.ceil(math.log(ALPHA) / math.log1p(-gate.margin)))


def missing(gate: Gate, arm: str | None, reason: str, *, suite: str = "", split: str = "") -> Verdict:
    """Invalid, there being nothing to judge: the arm or base failed, no arm was eligible, or there is no baseline."""
    return Verdict(
        name=gate.name,
        arm=arm,
        against=gate.against,
        suite=suite,
        split=split,
        effort=gate.effort,
        metric=gate.metric,
        before=None,
        after=None,
        delta=None,
        ci=None,
        margin=gate.margin,
        clusters=0,
        verdict="invalid",
        reasons=(reason,),
    )


def run_verdict(verdicts: Iterable[Verdict]) -> RunVerdict:
    """The worst of the gates; no gate at all is invalid, not a pass."""
    gates = tuple(verdicts)
    worst = _worst(gates, "invalid")
    return RunVerdict(verdict=worst, exit_code=EXIT_CODES[worst], gates=gates)


def _worst(gates: Iterable[Verdict], of_none: VerdictName) -> VerdictName:
    return max((gate.verdict for gate in gates), key=SEVERITY.index, default=of_none)


def check_waivers(names: Sequence[str], reason: str | None, gates: Iterable[str]) -> None:
    """Raise UsageError unless every waived gate exists and a reason is given."""
    known = list(gates)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"--waive {unknown[0]}: no such gate; the experiment has {', '.join(known) or 'none'}")
    if names and not (reason or "").strip():
        raise UsageError(f"--waive {names[0]} needs a reason: add --reason TEXT, it is kept in verdict.json")
    if reason and not names:
        raise UsageError("--reason says why a gate is waived: name the gate with --waive")


def waive(verdict: RunVerdict, names: Sequence[str], reason: str | None) -> RunVerdict:
    """The same verdict with an exit code that waived gates no longer decide. Raises UsageError as `check_waivers` does."""
    check_waivers(names, reason, (gate.name for gate in verdict.gates))
    if not names or reason is None:
        return verdict
    gates = tuple(replace(gate, waived=reason.strip()) if gate.name in names else gate for gate in verdict.gates)
    worst = _worst((gate for gate in gates if gate.waived is None), "pass")
    return replace(verdict, gates=gates, exit_code=EXIT_CODES[worst])


def gated_arm(run: Run) -> str | None:
    """The arm that is judged: the chosen one, or the only one there is besides base."""
    if run.experiment.select:
        return run.selection.chosen if run.selection else None
    others = [arm.name for arm in run.experiment.arms() if arm.kind != "base"]
    return others[0] if len(others) == 1 else None


def unfit(run: Run) -> str | None:
    """Why nothing of a run can be judged; None where it can."""
    if not run.finished:
        return "the run is not finished: continue it with --resume"
    if "base" in run.failed_arms:
        return f"base failed: {run.failed_arms['base']}"
    arm = gated_arm(run)
    if arm is None:
        return "no arm was eligible: none stayed within the selection rule, or all failed"
    return f"arm {arm} failed: {run.failed_arms[arm]}" if arm in run.failed_arms else None


def incomplete(cells: Iterable[CellRecord], samples: pd.DataFrame, arms: Sequence[str], where: tuple[str, str, str]) -> str | None:
    """Why the arms' cells in a (suite, split, effort) are not what was planned; None where they are.

    Two sides that lost the same cell or the same answers would be compared without a word: only the plan tells.
    """
    keys = ["arm", "suite", "split", "effort", "language"]
    asked = samples[samples["arm"].isin(arms)]
    held = Counter(zip(*(asked[key].astype(str) for key in keys), strict=True))
    planned = {(cell.arm, cell.suite, cell.split, cell.effort, cell.language): cell.samples for cell in cells}
    languages = {str(key[4]) for key in [*planned, *held] if key[1:3] == where[:2] and key[0] in arms}
    for arm in arms:
        for language in sorted(languages):
            key = (arm, *where, language)
            cell = f"{arm}, {where[0]}@{where[1]}, {language}, {where[2]} effort"
            if planned.get(key) is None:
                return f"the cell {cell} was never planned"
            if held[key] != planned[key]:
                return f"the cell {cell} holds {held[key]} of {planned[key]} planned answers"
    return None


def _verdict(comparison: Comparison, gate: Gate, name: VerdictName, *, flags: tuple[str, ...] = (), reasons: tuple[str, ...]) -> Verdict:
    return Verdict(
        name=gate.name,
        arm=comparison.arm or None,
        against=comparison.against,
        suite=comparison.suite,
        split=comparison.split,
        effort=comparison.effort,
        metric=comparison.metric,
        before=comparison.before,
        after=comparison.after,
        delta=comparison.delta,
        ci=comparison.ci,
        margin=gate.margin,
        clusters=comparison.clusters,
        verdict=name,
        flags=flags,
        reasons=reasons,
    )


# Guards -------------------------------------------------------------------------------------------------------------------------


def _refusals(comparison: Comparison, gate: Gate) -> tuple[str, ...]:
    """Why this comparison cannot answer this gate; empty where it can."""
    if (comparison.metric, comparison.effort) != (gate.metric, gate.effort):
        found = f"{comparison.metric} at {comparison.effort} effort"
        return (f"the comparison is of {found}, the gate asks for {gate.metric} at {gate.effort} effort",)
    if comparison.against != gate.against:
        return (f"the comparison is against {comparison.against}, the gate asks for {gate.against}",)
    if comparison.arm == "base":
        return ("base is compared with itself" if gate.against == "base" else "base is not the arm that is judged",)
    numbers = (comparison.before, comparison.after, comparison.delta, comparison.se, *(comparison.ci or (None,)))
    if not all(number is not None and math.isfinite(number) for number in numbers):
        return ("the comparison has no numbers",)
    if TRAITS[gate.metric].is_share and gate.margin >= 1:
        return (f"a margin of {gate.margin:g} decides nothing: {gate.metric} lies between 0 and 1",)
    return _too_few_problems(comparison, gate)


def _too_few_problems(comparison: Comparison, gate: Gate) -> tuple[str, ...]:
    needed = required_clusters(gate)
    if comparison.clusters < needed:
        return (f"{comparison.clusters} problems are too few: this gate needs at least {needed}",)
    if is_near_ceiling(comparison, gate) and comparison.clusters < CEILING_CLUSTERS:
        return (
            f"{comparison.clusters} problems are too few where {gate.metric} is {comparison.before:.1%} before: "
            f"within 5 points of the best possible, losses are rare and a gate needs at least {CEILING_CLUSTERS}",
        )
    return ()


def is_near_ceiling(comparison: Comparison, gate: Gate) -> bool:
    """Whether `before` is so near the best possible share that few problems can tell of a loss.

    Only `before` counts: it is known when the gate is planned, and a better arm must not be refused where a worse one is judged.
    """
    trait = TRAITS[gate.metric]
    if gate.type == "superiority" or not trait.is_share or comparison.before is None:
        return False
    return (comparison.before if trait.more_is_better else 1 - comparison.before) > CEILING


# Words --------------------------------------------------------------------------------------------------------------------------


def _gain(interval: tuple[float, float], gate: Gate) -> Interval:
    """The interval turned so that positive is better."""
    low, high = interval
    return Interval(low, high) if TRAITS[gate.metric].more_is_better else Interval(-high, -low)


def _flags(gain: Interval) -> tuple[str, ...]:
    if gain.high < 0:
        return ("regression_detected",)
    return ("improvement_detected",) if gain.low > 0 else ()


def _finding(name: VerdictName, comparison: Comparison, gate: Gate) -> str:
    """One sentence: what was shown."""
    loss, gain = ("loss", "gain") if TRAITS[gate.metric].more_is_better else ("rise", "reduction")
    margin = amount(gate.margin, gate)
    shown = f"({_estimate(comparison.delta, comparison.ci, gate)}, {comparison.clusters} problems)"
    if gate.type == "non_inferiority":
        sentences = {
            "pass": f"a {loss} of {margin} or more in {gate.metric} is ruled out at 97.5 % one-sided confidence {shown}",
            "fail": f"a {loss} of more than {margin} in {gate.metric} is shown at 97.5 % one-sided confidence {shown}",
            "inconclusive": f"cannot rule out a {loss} of {margin} in {gate.metric} {shown}; {_advice(comparison, gate)}",
        }
        return sentences[name]
    more = f"a {gain} of more than {margin}" if gate.margin else f"a {gain}"
    sentences = {
        "pass": f"{more} in {gate.metric} is shown at 97.5 % one-sided confidence {shown}",
        "fail": f"{more} in {gate.metric} is ruled out at 97.5 % one-sided confidence {shown}",
        "inconclusive": f"cannot show {more} in {gate.metric} {shown}; {_advice(comparison, gate)}",
    }
    return sentences[name]


def _remarks(name: VerdictName, gain: Interval, comparison: Comparison, gate: Gate) -> tuple[str, ...]:
    """Further sentences that change how the finding is to be read."""
    remarks = []
    if name == "pass" and gain.high < 0:
        remarks.append("the loss is statistically real, but within the margin")
    if name == "fail" and comparison.best_ci is not None and read(_gain(comparison.best_ci, gate), gate) != "fail":
        remarks.append(
            "part of the loss is answers that were truncated, malformed or missing: were they right after and wrong before, "
            f"it would be {_estimate(comparison.best, comparison.best_ci, gate)}"
        )
    if comparison.se == 0 and TRAITS[gate.metric].is_share:
        remarks.append(f"every problem differs by the same; the interval is what {comparison.clusters} problems could have missed")
    if comparison.excluded:
        remarks.append(f"{comparison.excluded} pairs of samples have no value, mostly infrastructure errors, and were left out")
    return tuple(remarks)


def _unscored(comparison: Comparison, gate: Gate) -> str:
    return (
        f"the verdict depends on unscored items: counted as wrong they leave {_estimate(comparison.delta, comparison.ci, gate)}, "
        f"but if they were wrong after and right before it would be {_estimate(comparison.worst, comparison.worst_ci, gate)}; "
        "raise max_new_tokens or look at the truncated, malformed and missing answers"
    )


def _advice(comparison: Comparison, gate: Gate) -> str:
    more = more_problems_needed(comparison, gate)
    if more is None:
        return "the estimate lies so near the threshold or beyond it that more problems are unlikely to turn it into a pass"
    return f"needs about {more} more problems"


def more_problems_needed(comparison: Comparison, gate: Gate) -> int | None:
    """Problems an inconclusive comparison lacks, rounded up to two digits; None where no number is likely to bring a pass.

    Non-inferiority: for 80 % power if nothing changed, the observed difference left aside; where that many were asked already,
    for the interval to clear the margin if the difference stays. Superiority: for 80 % power if the gain is as observed.
    """
    if not comparison.se or comparison.delta is None or comparison.clusters < 2:
        return None
    variance = comparison.se**2 * comparison.clusters
    gain = comparison.delta if TRAITS[gate.metric].more_is_better else -comparison.delta
    gap = gain - gate.margin if gate.type == "superiority" else gain + gate.margin
    if gate.type == "non_inferiority":
        planned = stats.non_inferiority_sample_size(variance, gate.margin, ALPHA, POWER)
        if planned > comparison.clusters:
            return _round_up(planned - comparison.clusters)
    power = POWER if gate.type == "superiority" else 0.5
    if gap <= 0.1 * comparison.se:
        return None
    needed = stats.non_inferiority_sample_size(variance, gap, ALPHA, power)
    return _round_up(max(1, needed - comparison.clusters))


def _round_up(count: int) -> int:
    """To two significant digits."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return math.ceil(count / step) * step


def _estimate(delta: float | None, interval: tuple[float, float] | None, gate: Gate) -> str:
    if delta is None or interval is None:
        return "difference unknown"
    low, high = (_number(limit, gate) for limit in interval)
    return f"difference {_number(delta, gate)} {TRAITS[gate.metric].unit}, 95 % CI {low} to {high}"


def _number(value: float, gate: Gate) -> str:
    """Signed, in the unit of the page, two decimals (seconds: four)."""
    trait = TRAITS[gate.metric]
    if trait.is_share:
        return f"{100 * value:+.2f}"
    return f"{value:+.4f}" if trait.unit == "s" else f"{value:+.2f}"


def amount(margin: float, gate: Gate, digits: int = 6) -> str:
    """A margin with its unit, as in `2 points`."""
    trait = TRAITS[gate.metric]
    number = f"{100 * margin if trait.is_share else margin:.{digits}g}"
    unit = {"points": "point", "tokens": "token"}.get(trait.unit, trait.unit) if number == "1" else trait.unit
    return f"{number} {unit}"


# Selecting ----------------------------------------------------------------------------------------------------------------------


def select_arm(samples: pd.DataFrame, select: Select, arms: Sequence[str], failed: Mapping[str, str]) -> Selection:
    """The arm to be judged: the best `select.metric` among those within `subject_to`, seen on the selection's data only.

    `arms` has base first, then the candidates, cheaper ones before dearer: a tie goes to the earlier. `failed` has the reason of
    each arm without complete results. An arm that did not answer base's items is not eligible.
    """
    base, *others = arms
    is_selection = (samples["suite"] == select.suite) & (samples["split"] == select.split) & (samples["effort"] == select.effort)
    by_arm = dict(tuple(samples[is_selection].groupby("arm", observed=True)))
    nothing = samples.iloc[:0]
    candidates = []
    for arm in others:
        if arm in failed or base in failed:
            reason = failed[arm] if arm in failed else f"base failed: {failed[base]}"
            candidates.append(Candidate(arm, value=None, accuracy=None, accuracy_drop=None, eligible=False, reason=reason))
        else:
            candidates.append(_candidate(arm, by_arm.get(base, nothing), by_arm.get(arm, nothing), select))
    return Selection(
        chosen=_best(candidates, select),
        suite=select.suite,
        split=select.split,
        effort=select.effort,
        metric=select.metric,
        candidates=tuple(candidates),
    )


def _candidate(arm: str, base_samples: pd.DataFrame, arm_samples: pd.DataFrame, select: Select) -> Candidate:
    where: dict[str, Any] = {"suite": select.suite, "split": select.split, "effort": select.effort}
    accuracy = compare(base_samples, arm_samples, **where, metric="accuracy")
    value = accuracy if select.metric == "accuracy" else compare(base_samples, arm_samples, **where, metric=select.metric)
    drop = None if accuracy.delta is None else -accuracy.delta
    reason = "; ".join(dict.fromkeys(accuracy.invalid_because + value.invalid_because)) or _too_costly(drop, select)
    return Candidate(arm, value=value.after, accuracy=accuracy.after, accuracy_drop=drop, eligible=not reason, reason=reason)


def _too_costly(drop: float | None, select: Select) -> str | None:
    allowed = select.subject_to.accuracy_drop
    if allowed is None or drop is None or drop <= allowed + TOLERANCE:
        return None
    return f"accuracy is {100 * drop:.2f} points below base; at most {100 * allowed:g} are allowed"


def _best(candidates: Sequence[Candidate], select: Select) -> str | None:
    """Name of the best eligible candidate, the earliest among equals; None where none is eligible."""
    sign = 1 if TRAITS[select.metric].more_is_better else -1
    best: tuple[float, str] | None = None
    for candidate in candidates:
        if candidate.eligible and candidate.value is not None and (best is None or sign * candidate.value > best[0] + TOLERANCE):
            best = (sign * candidate.value, candidate.arm)
    return best[1] if best else None
