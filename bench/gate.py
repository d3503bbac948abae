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
from bench.comparison import ROUNDING, TRAITS, compare
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
NOT_TESTED = "not_tested"
"""Flag of a gate whose predecessor did not pass."""
MINUS = "\u2212"
COUNTS = {2: "two"}
MOST_SAMPLES = 1024
"""As many as an experiment may ask for."""
TOLERANCE = 1e-9
"""Differences of selection values below this are rounding."""


# Judging ------------------------------------------------------------------------------------------------------------------------


def judge(comparison: Comparison, gate: Gate, looks: int = 1) -> Verdict:
    """What a non-inferiority or superiority gate says of the comparison: pass, fail, inconclusive or invalid, with reasons in words.

    A pass is capped at inconclusive where it would not stand if the unscored answers were wrong after and right before, and, in a
    non-inferiority gate, where the score interval would not pass. A fail is not softened by unscored answers: both arms had the same
    token limit, so not finishing is a loss too. `looks` is how many the experiment permits.
    """
    refusals = comparison.invalid_because or refuse(comparison, gate)
    if refusals or comparison.ci is None:
        return verdict_of(comparison, gate, "invalid", reasons=refusals or ("the comparison has no interval",))
    gain, flags = _tested_gain(comparison, gate), _flags(_gain(comparison.ci, gate))
    name = read(gain, gate)
    if gate.fail_on == "any_regression" and "regression_detected" in flags and name != "fail":
        return verdict_of(comparison, gate, "fail", flags=flags, reasons=(_any_loss(comparison, gate, looks),))
    if name == "pass" and comparison.worst_ci is not None and read(_moved(comparison.worst_ci, comparison, gate), gate) != "pass":
        return verdict_of(comparison, gate, "inconclusive", flags=flags, reasons=(_unscored(comparison, gate),))
    score = score_interval(comparison) if name == "pass" and gate.type == "non_inferiority" else None
    if score is not None and read(_moved(score, comparison, gate), gate) != "pass":
        return verdict_of(comparison, gate, "inconclusive", flags=flags, reasons=(_lopsided(score, comparison, gate),))
    reasons = (_finding(name, comparison, gate, looks), *_remarks(name, flags, comparison, gate))
    return verdict_of(comparison, gate, name, flags=flags, reasons=reasons)


def read(gain: Interval, gate: Gate) -> VerdictName:
    """Hold the interval of the gain (positive is better) against the gate's threshold; touching the threshold is not a pass."""
    threshold = 0.0 if gate.relative else -gate.margin if gate.type == "non_inferiority" else gate.margin
    if gain.low > threshold:
        return "pass"
    return "fail" if gain.high < threshold else "inconclusive"


def _tested_gain(comparison: Comparison, gate: Gate) -> Interval:
    """The interval that is held against the threshold: the gain, or with a relative margin after - kept x before, turned likewise."""
    if not gate.relative:
        assert comparison.ci is not None
        return _gain(comparison.ci, gate)
    estimate = relative_difference(comparison, kept(gate))
    return _gain((estimate.interval.low, estimate.interval.high), gate)


def kept(gate: Gate) -> float:
    """The share of the reference's level that a relative margin asks for: .99 of an accuracy, 1.01 of a token count."""
    is_floor = TRAITS[gate.metric].more_is_better == (gate.type == "non_inferiority")
    return 1 - gate.margin if is_floor else 1 + gate.margin


def relative_difference(comparison: Comparison, share: float) -> stats.MeanEstimate:
    """Mean of after - share x before over problems, its t interval taken from the three standard errors of the pairs.

    Before is a measurement too, not a constant. Raises ValueError where the comparison has no standard errors.
    """
    before, after, both = comparison.before_se, comparison.after_se, comparison.se
    if before is None or after is None or both is None or comparison.before is None or comparison.after is None:
        raise ValueError("a relative margin needs the standard errors of both arms")
    variance = (1 - share) * after**2 + (share**2 - share) * before**2 + share * both**2
    half = stats.t_quantile(comparison.clusters - 1) * math.sqrt(max(0.0, variance))
    if both <= ROUNDING and TRAITS[comparison.metric].is_share:
        half += stats.unseen_share(comparison.clusters)
    mean = comparison.after - share * comparison.before
    return stats.MeanEstimate(mean, math.sqrt(max(0.0, variance)), Interval(mean - half, mean + half), comparison.clusters)


def _moved(interval: tuple[float, float], comparison: Comparison, gate: Gate) -> Interval:
    """The interval of a difference as `_tested_gain`. With a relative margin a little too low: before counts as seen."""
    low, high = _gain(interval, gate)
    shift = (gate.margin if gate.type == "non_inferiority" else -gate.margin) * (comparison.before or 0.0) if gate.relative else 0.0
    return Interval(low + shift, high + shift)


def score_interval(comparison: Comparison, clusters: int | None = None) -> Interval | None:
    """`stats.score_interval` of the difference of a share; None elsewhere, and where no problem changed.

    The t interval alone passes a loss of the margin in 12 % of runs on 250 problems that are lost with that chance, in all languages,
    and never gained. Where no problem changed, the interval of what so many could have missed is exact already. `clusters`: as it
    would be if so many problems changed in the same way.
    """
    mean, se, asked = comparison.delta, comparison.se, comparison.clusters
    if not comparison.swing or mean is None or se is None or asked < 2:
        return None
    clusters = clusters or asked
    return stats.score_interval(mean, se * math.sqrt((asked - 1) / (clusters - 1)), clusters, comparison.swing)


def required_clusters(gate: Gate) -> int:
    """Fewest problems this gate can be judged on.

    Beyond `min_clusters`, a share's margin m needs ln(.025) / ln(1 - m) problems: fewer could all agree while a share m of the
    problems not asked is lost. Raises ValueError for a share whose margin is not below 1.
    """
    if gate.type != "non_inferiority" or not TRAITS[gate.metric].is_share or gate.relative:
        return gate.min_clusters
    if not 0 < gate.margin < 1:
        raise ValueError(f"the margin of a share lies between 0 and 1, found {gate.margin}")
    return max(gate.min_clusters, math.ceil(math.log(ALPHA) / math.log1p(-gate.margin)))


def missing(gate: Gate, arm: str | None, reason: str, *, suite: str = "", split: str = "", is_left_out: bool = False) -> Verdict:
    """Invalid, there being nothing to judge: the arm or base failed, no arm was eligible, or there is no baseline.

    `is_left_out`: the experiment does without the gate where there is no baseline, so it decides nothing.
    """
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
        flags=("no_baseline",) if is_left_out else (),
        reasons=(reason,),
        type=gate.type,
        required=gate.required and not is_left_out,
        tested_after=gate.after,
        margin_reason=gate.reason,
    )


def in_order(verdicts: Sequence[Verdict], gates: Sequence[Gate]) -> list[Verdict]:
    """Each gate that comes after one that did not pass is not tested: whatever its numbers, it claims nothing.

    Tested in a fixed order, each gate keeps the whole error rate; were it tested whatever came before, the chance that one of several
    passes a real loss would add up. An invalid gate stays invalid.
    """
    asked = {gate.name: gate for gate in gates}
    judged: dict[str, Verdict] = {}
    for verdict in verdicts:
        first = judged.get(verdict.tested_after) if verdict.tested_after else None
        if first is not None and first.verdict != "pass" and verdict.verdict != "invalid":
            seen = _shown(verdict.delta, verdict.ci, verdict.clusters, asked[verdict.name])
            reason = f"not tested: gate {first.name} did not pass before it {seen}"
            verdict = replace(verdict, verdict="inconclusive", flags=(*verdict.flags, NOT_TESTED), reasons=(reason,))
        judged[verdict.name] = verdict
    return list(judged.values())


def run_verdict(verdicts: Iterable[Verdict]) -> RunVerdict:
    """The worst of the required gates; no required gate at all is invalid, not a pass."""
    gates = tuple(verdicts)
    worst = _worst((gate for gate in gates if gate.required), "invalid")
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
    required = [gate for gate in gates if gate.required]
    worst = _worst((gate for gate in required if gate.waived is None), "pass" if required else "invalid")
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
    return f"arm {arm} failed: {run.failed_arms[arm]}" if arm in run.failed_arms else selected_on_the_same(run)


def selected_on_the_same(run: Run) -> str | None:
    """Why the arm was chosen on data that judge it: the same split, or a prompt that both splits ask; None where it was not."""
    confirm, selection = run.experiment.confirm, run.selection
    if confirm is None or selection is None:
        return None
    if (selection.suite, selection.split) == (confirm.suite, confirm.split):
        return f"the arm was selected on {selection.suite}@{selection.split}, which also judges it"
    prompts = [
        set(run.samples.loc[(run.samples["suite"] == place[0]) & (run.samples["split"] == place[1]), "prompt_hash"].unique())
        for place in ((selection.suite, selection.split), (confirm.suite, confirm.split))
    ]
    shared = len(prompts[0] & prompts[1])
    return (
        f"{shared} prompts of {confirm.suite}@{confirm.split} were also asked to select the arm: it is judged on other problems only"
        if shared
        else None
    )


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


def verdict_of(comparison: Comparison, gate: Gate, name: VerdictName, *, flags: tuple[str, ...] = (), reasons: tuple[str, ...]) -> Verdict:
    """A verdict with the comparison's numbers."""
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
        type=gate.type,
        required=gate.required,
        tested_after=gate.after,
        margin_reason=gate.reason,
        evidence=evidence(comparison, gate),
    )


def evidence(comparison: Comparison, gate: Gate) -> dict[str, Any]:
    """The numbers behind a verdict that have no field of their own, by name; what is not known is left out."""
    clusters, se = comparison.clusters, comparison.se
    found: dict[str, Any] = {
        "se": se,
        "df": clusters - 1 if clusters else None,
        "rows": comparison.rows,
        "languages": len(comparison.languages),
        "samples_per_item": comparison.samples_per_item,
        "before_ci": comparison.before_ci,
        "after_ci": comparison.after_ci,
        "excluded": comparison.excluded,
        "score_ci": score_interval(comparison) if gate.type == "non_inferiority" else None,
        "worst": comparison.worst,
        "best": comparison.best,
        "gained": comparison.gained,
        "lost": comparison.lost,
        "variance_within": comparison.within,
        "variance_between": comparison.between,
        "design_effect": comparison.design_effect,
        "icc": _icc(comparison),
        "ratio": comparison.ratio,
        "ratio_ci": comparison.ratio_ci,
        "robust_ratio": comparison.robust_ratio,
        "total_ratio": comparison.total_ratio,
        "without_ratio": comparison.without_ratio if comparison.ratio is not None else None,
        "planned_power": planned_power(gate, clusters, comparison.before) if clusters else None,
        **_power(comparison, gate),
        **{f"{outcome}_share": shares for outcome, shares in comparison.outcomes.items()},
    }
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
    return {name: value for name, value in plain.items() if value is not None and not _is_nan(value)}


def _is_nan(value: Any) -> bool:
    return any(isinstance(number, float) and math.isnan(number) for number in (value if isinstance(value, list) else [value]))


def _icc(comparison: Comparison) -> float | None:
    """Correlation of the differences of a problem's languages; it may be a little below zero. None with one language."""
    per_problem = comparison.rows / comparison.clusters if comparison.clusters else 1
    if comparison.design_effect is None or per_problem <= 1:
        return None
    return (comparison.design_effect - 1) / (per_problem - 1)


def _power(comparison: Comparison, gate: Gate) -> dict[str, float]:
    """Of an unchanged arm at the spread that was seen, and the margin that 80 % would have passed; the estimate has no part in it."""
    se = comparison.se
    if gate.type != "non_inferiority" or gate.relative or not se or not math.isfinite(se) or comparison.clusters < 2:
        return {}
    sd, swing = se * math.sqrt(comparison.clusters), comparison.swing or 0.0
    power = stats.score_power(sd, comparison.clusters, swing, gate.margin, ALPHA)
    return {"power": power, "detectable": stats.z_sum(ALPHA, POWER) * se}


def planned_power(gate: Gate, clusters: int, before: float | None) -> float | None:
    """Chance that an unchanged arm passes on so many problems, by the experiment's own `planned_sd`; None where it names none.

    A superiority gate has none without a true gain, and a language guard cannot pass anything.
    """
    if gate.planned_sd is None or gate.type not in ("non_inferiority", "max_ratio"):
        return None
    if gate.relative and not before:
        return None
    margin = math.log1p(gate.margin) if gate.type == "max_ratio" else gate.margin * (before or 0.0) if gate.relative else gate.margin
    return stats.non_inferiority_power(gate.planned_sd / math.sqrt(clusters), margin, ALPHA)


# Guards -------------------------------------------------------------------------------------------------------------------------


def refuse(comparison: Comparison, gate: Gate) -> tuple[str, ...]:
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
    power = planned_power(gate, comparison.clusters, comparison.before)
    if power is not None and power < gate.min_planned_power and not gate.allow_underpowered:
        return (
            f"underpowered design: at the planned standard deviation of {gate.planned_sd:g} an unchanged arm passes in "
            f"{100 * power:.0f} % of runs on {comparison.clusters} problems, and {100 * gate.min_planned_power:g} % were asked for: "
            "ask more problems or samples, or set allow_underpowered",
        )
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
    if gate.type != "non_inferiority" or not trait.is_share or comparison.before is None:
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


def _finding(name: VerdictName, comparison: Comparison, gate: Gate, looks: int = 1) -> str:
    """One sentence: what was shown."""
    loss, gain = ("loss", "gain") if TRAITS[gate.metric].more_is_better else ("rise", "reduction")
    margin, sure = amount(gate.margin, gate), confidence(looks)
    shown = _shown(comparison.delta, comparison.ci, comparison.clusters, gate)
    if gate.type == "non_inferiority":
        sentences = {
            "pass": f"a {loss} of {margin} or more in {gate.metric} is ruled out {sure} {shown}",
            "fail": f"a {loss} of more than {margin} in {gate.metric} is shown {sure} {shown}",
            "inconclusive": f"cannot rule out a {loss} of {margin} in {gate.metric} {shown}; {_advice(comparison, gate)}",
        }
        return sentences[name]
    more = f"a {gain} of more than {margin}" if gate.margin else f"a {gain}"
    sentences = {
        "pass": f"{more} in {gate.metric} is shown {sure} {shown}",
        "fail": f"{more} in {gate.metric} is ruled out {sure} {shown}",
        "inconclusive": f"cannot show {more} in {gate.metric} {shown}; {_advice(comparison, gate)}",
    }
    return sentences[name]


def _any_loss(comparison: Comparison, gate: Gate, looks: int) -> str:
    loss = "loss" if TRAITS[gate.metric].more_is_better else "rise"
    shown = _shown(comparison.delta, comparison.ci, comparison.clusters, gate)
    return f"a {loss} in {gate.metric} is shown {confidence(looks)}, and this gate fails on any {shown}"


def confidence(looks: int) -> str:
    """How sure a pass or a fail is, in words."""
    each = f"at {100 * (1 - ALPHA):g} % one-sided confidence"
    return each if looks == 1 else f"{each} per look ({100 * (1 - looks * ALPHA):g} % over the {COUNTS[looks]} permitted looks)"


def _shown(delta: float | None, ci: tuple[float, float] | None, clusters: int, gate: Gate) -> str:
    return f"({_estimate(delta, ci, gate)}, {clusters} problems)"


def _remarks(name: VerdictName, flags: tuple[str, ...], comparison: Comparison, gate: Gate) -> tuple[str, ...]:
    """Further sentences that change how the finding is to be read."""
    remarks = []
    if name == "pass" and "regression_detected" in flags:
        remarks.append("the loss is statistically real, but within the margin")
    if name == "fail" and comparison.best_ci is not None and not gate.relative and read(_gain(comparison.best_ci, gate), gate) != "fail":
        remarks.append(
            "part of the loss is answers that were truncated, malformed or missing: were they right after and wrong before, "
            f"it would be {_estimate(comparison.best, comparison.best_ci, gate)}"
        )
    if comparison.se == 0 and TRAITS[gate.metric].is_share:
        remarks.append(f"every problem differs by the same; the interval is what {comparison.clusters} problems could have missed")
    if comparison.excluded:
        remarks.append(f"{comparison.excluded} pairs of samples have no value, mostly infrastructure errors, and were left out")
    if power := _power(comparison, gate):
        remarks.append(
            f"with this spread an unchanged arm passes in {100 * power['power']:.0f} % of runs; "
            f"80 % would pass a margin of {amount(power['detectable'], gate, digits=3)}"
        )
    return tuple(remarks)


def _lopsided(score: Interval, comparison: Comparison, gate: Gate) -> str:
    low, high = (_number(limit, gate) for limit in score)
    loss = "loss" if TRAITS[gate.metric].more_is_better else "rise"
    changed = f" of {comparison.lost} lost and {comparison.gained} gained" if comparison.lost is not None else ""
    more = _more_problems_by_score(comparison, gate)
    return (
        f"cannot rule out a {loss} of {amount(gate.margin, gate)} in {gate.metric} where so few problems change: the score interval"
        f"{changed} is {low} to {high}, wider than {_estimate(comparison.delta, comparison.ci, gate)}; "
        + (f"needs about {more} more problems" if more else "more problems are unlikely to turn it into a pass")
    )


def _more_problems_by_score(comparison: Comparison, gate: Gate) -> int | None:
    """Problems that the score interval lacks for a pass if others change likewise, rounded up to two digits; None beyond ten times."""
    for clusters in (math.ceil(comparison.clusters * tenths / 10) for tenths in range(11, 101)):
        score = score_interval(comparison, clusters)
        if score is not None and read(_moved(score, comparison, gate), gate) == "pass":
            return _round_up(clusters - comparison.clusters)
    return None


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
    samples = samples_needed(comparison, gate)
    instead = f", or {samples} samples an item in place of {comparison.samples_per_item}" if samples else ""
    return f"needs about {more} more problems{instead}"


def samples_needed(comparison: Comparison, gate: Gate, power: float = POWER) -> int | None:
    """Samples an item with which an unchanged arm passes with this power on the same problems.

    None where no number is enough, where one sample an item cannot tell, and for other gates than non-inferiority.
    """
    within, between = comparison.within, comparison.between
    if within is None or between is None or gate.type != "non_inferiority" or gate.relative or comparison.clusters < 2:
        return None
    affordable = comparison.clusters * (gate.margin / stats.z_sum(ALPHA, power)) ** 2 - between
    if affordable <= 0 or not within:
        return None
    samples = math.ceil(within / affordable)
    return samples if comparison.samples_per_item < samples <= MOST_SAMPLES else None


def more_problems_needed(comparison: Comparison, gate: Gate) -> int | None:
    """Problems an inconclusive comparison lacks, rounded up to two digits; None where no number is likely to bring a pass.

    Non-inferiority: for 80 % power if nothing changed, the observed difference left aside; where that many were asked already,
    for the interval to clear the margin if the difference stays. Superiority: for 80 % power if the gain is as observed.
    """
    if not comparison.se or comparison.delta is None or comparison.clusters < 2 or gate.relative:
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
    """Signed with a true minus as on the pages, in their unit, two decimals (seconds: four)."""
    trait = TRAITS[gate.metric]
    number = f"{100 * value:+.2f}" if trait.is_share else f"{value:+.4f}" if trait.unit == "s" else f"{value:+.2f}"
    return number.replace("-", MINUS) if number.strip("+-0.") else number.lstrip("+-")


def amount(margin: float, gate: Gate, digits: int = 6) -> str:
    """A margin with its unit, as in `2 points`; a relative one as in `1 % of base's level`."""
    if gate.type == "max_ratio":
        return f"{100 * margin:.{digits}g} %"
    if gate.relative:
        return f"{100 * margin:.{digits}g} % of {gate.against if gate.against == 'base' else 'the baseline'}'s level"
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
