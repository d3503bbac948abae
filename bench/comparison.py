"""Samples -> tables of cells with intervals, and two arms on the same items -> a `Comparison`. Decides nothing; `gate` does.

The unit of inference is the problem (`item_id`): all its languages and samples count as one observation. Two arms are compared
only where they answered the very same prompts; rows are never matched quietly by what happens to be on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.experiment import METRICS
from bench.records import OUTCOMES, Comparison, Run
from bench.stats import Interval, MeanEstimate

MAX_ERROR_SHARE = 0.005
"""Largest share of rows lost to infrastructure errors, or otherwise without a value, that a comparison may leave out."""

UNSCORED = ("no_answer", "truncated", "malformed", "error")
"""Outcomes whose true score is not known: wrong by rule (`error`: left out), right at best."""

EFFORT_KEYS = ["arm", "suite", "split", "effort"]
CELL_KEYS = ["arm", "suite", "split", "language", "effort"]
ROW_KEYS = ["item_id", "language", "sample_index"]
ROUNDING = 1e-12
"""Standard errors of shares below this are zero but for floating point."""
MOST_WALSH = 2000
"""Items up to which the robust ratio is computed: it needs all pairs of them."""

Array = NDArray[np.float64]


class Trait(NamedTuple):
    """What kind of number a metric is."""

    more_is_better: bool
    is_share: bool
    """Between 0 and 1 for every row."""
    unit: str
    """On the page; a share is shown in percentage points."""


TRAITS: dict[str, Trait] = {
    "accuracy": Trait(True, True, "points"),
    "reasoning_language_fidelity": Trait(True, True, "points"),
    "truncation": Trait(False, True, "points"),
    "empty_analysis": Trait(False, True, "points"),
    "output_tokens": Trait(False, False, "tokens"),
    "reasoning_tokens": Trait(False, False, "tokens"),
    "latency_s": Trait(False, False, "s"),
    "ttft_s": Trait(False, False, "s"),
}
DESCRIBED: dict[str, Trait] = {
    "prompt_tokens": Trait(False, False, "tokens"),
    "final_tokens": Trait(False, False, "tokens"),
    "final_language_fidelity": Trait(True, True, "points"),
    **{f"{outcome}_share": Trait(outcome == "correct", True, "points") for outcome in OUTCOMES},
}
"""What tables tell of answers and no gate compares: `<outcome>_share` is of all answers, `final_language_fidelity` of the final texts
whose language can be told."""


class PairedEstimate(NamedTuple):
    """Before, after and their difference over the same problems; `MeanEstimate.interval` is 95 % two-sided."""

    before: MeanEstimate
    after: MeanEstimate
    difference: MeanEstimate
    swing: float
    """Of the difference, as in `stats.swing`."""


class _Pairs(NamedTuple):
    """Rows of both arms in the same order."""

    before: pd.DataFrame
    after: pd.DataFrame
    items: NDArray[np.intp]
    """Code of each row's problem."""
    samples_per_item: int


class _Refused(Exception):
    """Why two sets of samples cannot be compared."""


def more_is_better(metric: str) -> bool:
    """Whether a rise of this metric is good news. Raises ValueError on an unknown metric."""
    return _trait(metric).more_is_better


def metric_values(samples: pd.DataFrame, metric: str) -> pd.Series[float]:
    """One float a row, in the metric's unit, on the index of `samples`.

    NaN where there is no value: an infrastructure error or nothing measured. Fidelity is to the reasoning language asked for, where a
    missing one counts 0; where none was asked for, to the question's, and a missing one has no value. Names of DESCRIBED are known
    too. Raises ValueError on an unknown metric.
    """
    outcome = metric.removesuffix("_share")
    if metric in DESCRIBED and outcome in OUTCOMES:
        return pd.Series(_equals(samples["outcome"], outcome), index=samples.index, name=metric)
    _trait(metric, TRAITS | DESCRIBED)
    if metric == "accuracy":
        values = _floats(samples["score"])
    elif metric == "truncation":
        values = _equals(samples["outcome"], "truncated")
    elif metric == "empty_analysis":
        tokens = _floats(samples["reasoning_tokens"])
        values = np.where(np.isnan(tokens), np.nan, tokens == 0)
    elif metric == "reasoning_language_fidelity":
        asked, own, given = (samples[name].astype(object) for name in ("asked_reasoning_language", "language", "reasoning_language"))
        is_same = (asked.where(asked.notna(), own) == given).fillna(False).to_numpy(dtype=float)
        values = np.where(asked.notna() | given.notna(), is_same, np.nan)
    elif metric == "final_language_fidelity":
        own, given = (samples[name].astype(object) for name in ("language", "final_language"))
        values = np.where(given.notna(), (own == given).to_numpy(dtype=float), np.nan)
    else:
        values = _floats(samples[metric])
    known = np.where(_equals(samples["outcome"], "error") == 1, np.nan, values)
    return pd.Series(known, index=samples.index, name=metric)


def cell_table(samples: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row a cell (arm, suite, split, language, effort), sorted by these.

    Further columns: `mean` over problems of the problem's mean; `low`, `high` its 95 % interval; `n` samples with a value;
    `clusters` problems with a value; `rows` all samples; and the share of each outcome among `rows`, named as the outcome.
    NaN: no value at all, or fewer than two problems of a metric that is no share. The interval is Wilson's where every problem
    has one value that is 0 or 1, else Student's t on problem means within the metric's range. Where all problem means are equal
    it is Wilson's on the number of problems: no spread seen is not no spread.
    """
    return _table(samples, metric, CELL_KEYS)


def effort_table(samples: pd.DataFrame, metric: str) -> pd.DataFrame:
    """As `cell_table` over all languages together: one row per arm, suite, split and effort, clustered by problem."""
    return _table(samples, metric, EFFORT_KEYS)


def compare(before: pd.DataFrame, after: pd.DataFrame, *, suite: str, split: str, effort: str, metric: str) -> Comparison:
    """After minus before on the same items, of one arm each. Raises ValueError on an unknown metric.

    Where the two sides did not answer the same prompts, or a side is empty, holds several arms, repeats a row or lost more than
    0.5 % of its rows, the comparison has no numbers and says why in `invalid_because`.
    """
    _trait(metric)
    sides = [_select(frame, suite, split, effort) for frame in (before, after)]
    unmeasured = Comparison(
        arm=_arm_name(after, sides[1]),
        against=_arm_name(before, sides[0]),
        suite=suite,
        split=split,
        effort=effort,
        metric=metric,
        before=None,
        before_ci=None,
        after=None,
        after_ci=None,
        delta=None,
        ci=None,
        se=None,
        clusters=0,
        rows=0,
        languages=(),
        samples_per_item=0,
    )
    try:
        return _measured(unmeasured, _pair(sides[0], sides[1], f"{suite}@{split} at {effort} effort"))
    except _Refused as refusal:
        return replace(unmeasured, invalid_because=(str(refusal),))


def compare_languages(before: pd.DataFrame, after: pd.DataFrame, *, suite: str, split: str, effort: str, metric: str) -> list[Comparison]:
    """`compare` in each language of either side, sorted by language; a language that only one side has is invalid there."""
    sides = [_select(frame, suite, split, effort) for frame in (before, after)]
    languages = sorted({str(language) for side in sides for language in side["language"].unique()})
    where: dict[str, Any] = {"suite": suite, "split": split, "effort": effort, "metric": metric}
    one = [[side[side["language"] == language] for side in sides] for language in languages]
    return [replace(compare(*pair, **where), languages=(language,)) for language, pair in zip(languages, one, strict=True)]


def compare_with_base(samples: pd.DataFrame) -> list[Comparison]:
    """Every other arm against base wherever both were asked, in every metric that was measured there."""
    by_arm = {str(arm): frame for arm, frame in samples.groupby("arm", sort=False)}
    base = by_arm.pop("base", None)
    return [] if base is None else [comparison for arm in by_arm.values() for comparison in _compare_everywhere(base, arm)]


def compare_runs(before: Run, after: Run) -> list[Comparison]:
    """Every arm that both runs have, the earlier run's as `<arm> before`, wherever both were asked."""
    earlier = {str(arm): frame for arm, frame in before.samples.groupby("arm", sort=False)}
    later = {str(arm): frame for arm, frame in after.samples.groupby("arm", sort=False)}
    pairs = [(earlier[arm].assign(arm=f"{arm} before"), frame) for arm, frame in later.items() if arm in earlier]
    return [comparison for pair in pairs for comparison in _compare_everywhere(*pair)]


def _compare_everywhere(before: pd.DataFrame, after: pd.DataFrame) -> list[Comparison]:
    """In every suite, split and effort of `after`; a metric that was not measured is left out, accuracy never is."""
    found = []
    for suite, split, effort in after[["suite", "split", "effort"]].drop_duplicates().itertuples(index=False):
        compared = [compare(before, after, suite=suite, split=split, effort=effort, metric=metric) for metric in METRICS]
        found += [comparison for comparison in compared if comparison.delta is not None or comparison.metric == "accuracy"]
    return found


def paired_estimate(before: Array, after: Array, *, is_share: bool) -> PairedEstimate:
    """Estimate from problem means, shape (G,), the same problem at the same place. Raises ValueError on no values or NaN.

    A difference of shares that is the same for every problem gets the interval of what G problems could have missed,
    `stats.unseen_share`, in place of one without width.
    """
    return PairedEstimate(
        _within_range(stats.mean_interval(before), is_share),
        _within_range(stats.mean_interval(after), is_share),
        _with_width(stats.mean_interval(after - before), is_share),
        stats.swing(after - before),
    )


def share_estimate(values: Array) -> MeanEstimate:
    """Mean of a share over problems, shape (G,), its interval within [0, 1]. Raises ValueError on no values or NaN."""
    return _within_range(stats.mean_interval(values), is_share=True)


# Tables -------------------------------------------------------------------------------------------------------------------------


def _table(samples: pd.DataFrame, metric: str, keys: list[str]) -> pd.DataFrame:
    columns = [*keys, "mean", "low", "high", "n", "clusters", "rows", *OUTCOMES]
    if samples.empty:
        return pd.DataFrame(columns=columns)
    values = metric_values(samples, metric)
    frame = samples[[*keys, "item_id", "outcome"]].assign(value=values, is_binary=values.isna() | values.isin([0.0, 1.0]))
    by_item = frame.groupby([*keys, "item_id"], observed=True)["value"].agg(["mean", "count"]).reset_index()
    cells = frame.groupby(keys, observed=True).agg(rows=("value", "size"), n=("value", "count"), is_binary=("is_binary", "all"))
    cells = cells.join(by_item.groupby(keys, observed=True)["mean"].agg(mean="mean", sd="std", clusters="count"))
    is_share = _trait(metric, TRAITS | DESCRIBED).is_share
    is_single = is_share & cells["is_binary"] & (cells["n"] == cells["clusters"])
    numbers = zip(cells["mean"], cells["sd"], cells["clusters"], is_single, strict=True)
    intervals = [_cell_interval(mean, sd, clusters, is_share, single) for mean, sd, clusters, single in numbers]
    cells["low"], cells["high"] = [interval.low for interval in intervals], [interval.high for interval in intervals]
    outcomes = frame.groupby([*keys, "outcome"], observed=True).size().unstack("outcome").reindex(columns=list(OUTCOMES))
    shares = outcomes.fillna(0).div(cells["rows"], axis=0)
    return cells.join(shares).reset_index()[columns]


def _cell_interval(mean: float, sd: float, clusters: int, is_share: bool, is_single: bool) -> Interval:
    if clusters == 0:
        return Interval(math.nan, math.nan)
    if is_single:
        return stats.wilson(round(mean * clusters), clusters)
    se = sd / math.sqrt(clusters)
    half = stats.t_quantile(clusters - 1) * se if clusters > 1 else math.nan
    return _within_range(MeanEstimate(mean, se, Interval(mean - half, mean + half), clusters), is_share).interval


def _within_range(estimate: MeanEstimate, is_share: bool) -> MeanEstimate:
    """For a share: its interval cut to [0, 1], and Wilson's on the number of problems where the t interval has no width."""
    if not is_share:
        return estimate
    if estimate.se > ROUNDING:
        low, high = estimate.interval
        return estimate._replace(interval=Interval(max(low, 0.0), min(high, 1.0)))
    successes = estimate.mean * estimate.clusters
    low = stats.wilson(math.floor(successes + 1e-9), estimate.clusters).low
    high = stats.wilson(math.ceil(successes - 1e-9), estimate.clusters).high
    return estimate._replace(interval=Interval(low, high))


def _with_width(estimate: MeanEstimate, is_share: bool) -> MeanEstimate:
    """For a difference of shares: cut to [-1, 1], and as wide as unseen problems allow where all problems agree."""
    if not is_share or math.isnan(estimate.se):
        return estimate
    low, high = estimate.interval
    if estimate.se <= ROUNDING:
        unseen = stats.unseen_share(estimate.clusters)
        low, high = low - unseen, high + unseen
    return estimate._replace(interval=Interval(max(low, -1.0), min(high, 1.0)))


# Pairing ------------------------------------------------------------------------------------------------------------------------


def _select(samples: pd.DataFrame, suite: str, split: str, effort: str) -> pd.DataFrame:
    light = samples.drop(columns="completion", errors="ignore")  # long texts, copied for nothing
    return light[(light["suite"] == suite) & (light["split"] == split) & (light["effort"] == effort)]


def _arm_name(whole: pd.DataFrame, selected: pd.DataFrame) -> str:
    """The arms a side holds, joined; empty where it has no rows at all."""
    return ", ".join(sorted(map(str, (selected if len(selected) else whole)["arm"].unique())))


def _pair(before: pd.DataFrame, after: pd.DataFrame, where: str) -> _Pairs:
    """Both sides sorted by problem, language and sample. Raises _Refused unless they hold the same prompts, each once."""
    for side, frame in (("before", before), ("after", after)):
        _refuse_other_than_one_arm(frame, side, where)
    keys = pd.concat([before[ROW_KEYS], after[ROW_KEYS]], ignore_index=True)
    rows, items, pairs = _codes(keys)
    split = len(before)
    _refuse_other_rows(rows[:split], rows[split:], keys)
    samples = np.unique(np.unique(pairs[:split], return_counts=True)[1])
    if len(samples) > 1:
        raise _Refused(f"items have between {samples[0]} and {samples[-1]} samples; expected the same number each")
    order_before, order_after = np.argsort(rows[:split]), np.argsort(rows[split:])
    paired = _Pairs(before.iloc[order_before], after.iloc[order_after], items[:split][order_before], int(samples[0]))
    for column in ("prompt_hash", "target", "asked_reasoning_language"):
        _refuse_other_values(paired, column)
    return paired


def _refuse_other_than_one_arm(frame: pd.DataFrame, side: str, where: str) -> None:
    if frame.empty:
        raise _Refused(f"{side} has no samples of {where}")
    if frame["arm"].nunique() != 1:
        raise _Refused(f"{side} holds {frame['arm'].nunique()} arms ({_arm_name(frame, frame)}); expected one")
    unknown = ~frame["outcome"].isin(OUTCOMES).to_numpy(dtype=bool)
    if unknown.any():
        raise _Refused(f"{side} has {_count(unknown)} with an unknown outcome; expected one of {', '.join(OUTCOMES)}")


def _refuse_other_rows(before: NDArray[np.intp], after: NDArray[np.intp], keys: pd.DataFrame) -> None:
    """Raise _Refused unless both sides hold the same row codes, each once; `keys` names the codes, before first."""
    for side, codes in (("before", before), ("after", after)):
        repeated = len(codes) - len(np.unique(codes))
        if repeated:
            raise _Refused(f"{side} holds {repeated} rows twice: the same item, language and sample index")
    lost, extra = np.setdiff1d(before, after), np.setdiff1d(after, before)
    if len(lost) or len(extra):
        first = np.flatnonzero(np.concatenate([before, after]) == np.concatenate([lost, extra])[0])[0]
        item, language, index = keys.iloc[int(first)]
        example = f"item {item}, language {language}, sample {index}"
        raise _Refused(f"the items differ: {len(lost)} rows only before, {len(extra)} only after (first: {example})")


def _codes(keys: pd.DataFrame) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Codes of each row, of its problem and of its problem x language; sorted, so that the order of rows does not matter."""
    items, languages, samples = (pd.factorize(keys[column].astype(str), sort=True)[0] for column in ROW_KEYS)
    pairs = items * (languages.max() + 1) + languages
    return pairs * (samples.max() + 1) + samples, items, pairs


def _refuse_other_values(pairs: _Pairs, column: str) -> None:
    """Raise _Refused if a column that must be equal in both arms is not."""
    before, after = (side[column].astype(object).where(side[column].notna(), "").to_numpy() for side in (pairs.before, pairs.after))
    other = before != after
    if other.any():
        item = pairs.before["item_id"].iloc[int(np.argmax(other))]
        raise _Refused(f"{column} differs in {_count(other)} (first: item {item}); compare the same suite revision")


# Measuring ----------------------------------------------------------------------------------------------------------------------


def _measured(unmeasured: Comparison, pairs: _Pairs) -> Comparison:
    """The comparison with its numbers. Raises _Refused where too many values are missing."""
    metric = unmeasured.metric
    before, after = (_checked_values(side, metric, name) for side, name in ((pairs.before, "before"), (pairs.after, "after")))
    kept = np.isfinite(before) & np.isfinite(after)
    items = pairs.items[kept]
    is_share = _trait(metric).is_share
    if len(np.unique(items)) < 2:
        raise _Refused(f"{len(np.unique(items))} problems have a value of {metric}; an interval needs at least two")
    estimate = paired_estimate(_item_means(before[kept], items), _item_means(after[kept], items), is_share=is_share)
    languages = pairs.before["language"].to_numpy(dtype=object)[kept]
    cells = items * len(languages) + pd.factorize(languages)[0]
    worst, best = _bounds(pairs) if metric == "accuracy" else (None, None)
    gained, lost = _discordant(before[kept], after[kept]) if metric == "accuracy" and pairs.samples_per_item == 1 else (None, None)
    split = _variance_split(after[kept] - before[kept], items, pairs.samples_per_item) if kept.all() else None
    measured = replace(
        unmeasured,
        before=estimate.before.mean,
        before_ci=_limits(estimate.before),
        after=estimate.after.mean,
        after_ci=_limits(estimate.after),
        delta=estimate.difference.mean,
        ci=_limits(estimate.difference),
        se=estimate.difference.se,
        clusters=estimate.difference.clusters,
        rows=len(np.unique(cells)),
        languages=tuple(sorted(set(map(str, languages)))),
        samples_per_item=pairs.samples_per_item,
        worst=worst.mean if worst else None,
        best=best.mean if best else None,
        worst_ci=_limits(worst) if worst else None,
        best_ci=_limits(best) if best else None,
        gained=gained,
        lost=lost,
        excluded=_missing(pairs, metric, kept),
        before_se=estimate.before.se,
        after_se=estimate.after.se,
        swing=estimate.swing if is_share else None,
        within=split.within if split else None,
        between=split.between if split else None,
        design_effect=_design_effect(_group_means(after[kept] - before[kept], cells), estimate.difference),
        outcomes=_outcome_shares(pairs) if metric == "accuracy" else {},
    )
    return measured if is_share else _with_ratios(measured, before[kept], after[kept], items, cells)


def _variance_split(differences: Array, items: NDArray[np.intp], samples_per_item: int) -> stats.VarianceSplit | None:
    """Of the problems' differences, over their samples; rows are sorted by problem, language and sample, and none is missing."""
    if samples_per_item < 2 or len(np.unique(np.bincount(items))) > 1:
        return None
    table = differences.reshape(len(np.unique(items)), -1, samples_per_item)
    return stats.variance_split(table.mean(axis=1))


def _design_effect(cell_means: Array, difference: MeanEstimate) -> float | None:
    """Variance of the mean over that of as many independent cells (problem x language)."""
    independent = stats.mean_interval(cell_means).se
    return None if not independent > ROUNDING else float(difference.se**2 / independent**2)


def _outcome_shares(pairs: _Pairs) -> dict[str, list[float]]:
    shares = [side["outcome"].value_counts(normalize=True) for side in (pairs.before, pairs.after)]
    return {outcome: [float(share.get(outcome, 0.0)) for share in shares] for outcome in OUTCOMES}


def _with_ratios(comparison: Comparison, before: Array, after: Array, items: NDArray[np.intp], cells: NDArray[np.intp]) -> Comparison:
    """With the ratios of after to before: of a problem's, per language the mean over samples, then the mean logarithm over languages."""
    first, second = _group_means(before, cells), _group_means(after, cells)
    owners = items[np.unique(cells, return_index=True)[1]]
    positive = (first > 0) & (second > 0)
    comparison = replace(comparison, without_ratio=int((~positive).sum()))
    if len(np.unique(owners[positive])) < 2:
        return comparison
    logs = _group_means(np.log(second[positive] / first[positive]), owners[positive])
    ones, ratios = np.ones(len(logs)), np.exp(logs)
    mean = stats.geometric_mean_ratio(ones, ratios)
    return replace(
        comparison,
        ratio=mean.ratio,
        ratio_ci=(mean.interval.low, mean.interval.high),
        robust_ratio=stats.hodges_lehmann_ratio(ones, ratios).ratio if len(logs) <= MOST_WALSH else None,
        total_ratio=stats.ratio_of_totals(first[positive], second[positive]),
    )


def _checked_values(side: pd.DataFrame, metric: str, name: str) -> Array:
    """Values of one side. Raises _Refused if they cannot be: too many missing, or outside the metric's range."""
    values = metric_values(side, metric).to_numpy()
    errors = _equals(side["outcome"], "error") == 1
    if errors.mean() > MAX_ERROR_SHARE:
        raise _Refused(f"{name} lost {_count(errors)} to infrastructure errors; at most {MAX_ERROR_SHARE:.1%} may be")
    unknown = np.isnan(values) & ~errors
    if metric == "accuracy" and unknown.any():
        raise _Refused(f"{name} has {_count(unknown)} without a score though the outcome is not `error`")
    if metric == "reasoning_language_fidelity":
        asked = side["asked_reasoning_language"].notna().to_numpy()
        if not asked.any() and np.isnan(values).all():
            raise _Refused("no reasoning language was asked for, and that of no analysis can be told")
        unknown &= asked
    if unknown.mean() > MAX_ERROR_SHARE:
        raise _Refused(f"{name} has {_count(unknown)} without a value of {metric}; at most {MAX_ERROR_SHARE:.1%} may be")
    highest = 1.0 if _trait(metric).is_share else np.finfo(float).max
    outside = ~np.isnan(values) & ~((values >= 0) & (values <= highest))
    if outside.any():
        raise _Refused(f"{name} has {_count(outside)} whose {metric} is outside its range (first: {values[outside][0]:g})")
    return np.asarray(values, dtype=float)


def _missing(pairs: _Pairs, metric: str, kept: NDArray[np.bool_]) -> int:
    """Row pairs left out for want of a value; those whose language was not asked for and cannot be told are not missing."""
    wanted = pairs.before["asked_reasoning_language"].notna().to_numpy() if metric == "reasoning_language_fidelity" else True
    return int((~kept & wanted).sum())


def _bounds(pairs: _Pairs) -> tuple[MeanEstimate, MeanEstimate]:
    """Difference in accuracy if all unscored answers were wrong after and right before, and the reverse."""
    low_before, high_before = (_item_means(_filled(pairs.before, value), pairs.items) for value in (0.0, 1.0))
    low_after, high_after = (_item_means(_filled(pairs.after, value), pairs.items) for value in (0.0, 1.0))
    worst, best = stats.mean_interval(low_after - high_before), stats.mean_interval(high_after - low_before)
    return _with_width(worst, is_share=True), _with_width(best, is_share=True)


def _filled(side: pd.DataFrame, value: float) -> Array:
    """Scores of one side with `value` for every answer whose score is not known."""
    return np.where(side["outcome"].isin(UNSCORED).to_numpy(dtype=bool), value, _floats(side["score"]))


def _discordant(before: Array, after: Array) -> tuple[int, int] | tuple[None, None]:
    """Pairs gained and lost; None where scores are not all 0 or 1."""
    if not np.isin(np.concatenate([before, after]), (0.0, 1.0)).all():
        return None, None
    return int((after > before).sum()), int((after < before).sum())


def _item_means(values: Array, items: NDArray[np.intp]) -> Array:
    """Mean of each problem's rows, shape (G,), in the order of the problems' codes."""
    counts = np.bincount(items)
    present = counts > 0
    return np.asarray(np.bincount(items, weights=values)[present] / counts[present])


def _group_means(values: Array, groups: NDArray[np.intp]) -> Array:
    """Mean of each group's rows, in the order of the groups' codes, which may be far apart."""
    codes = np.unique(groups, return_inverse=True)[1]
    return _item_means(values, codes)


def _limits(estimate: MeanEstimate) -> tuple[float, float]:
    return estimate.interval.low, estimate.interval.high


def _trait(metric: str, known: Mapping[str, Trait] = TRAITS) -> Trait:
    if metric not in known:
        raise ValueError(f"unknown metric {metric!r}; expected one of {', '.join(known)}")
    return known[metric]


def _floats(column: pd.Series) -> Array:
    return np.asarray(column.to_numpy(dtype=float, na_value=np.nan))


def _equals(column: pd.Series, value: str) -> Array:
    """1.0 where equal, else 0.0, also where missing."""
    return np.asarray((column == value).fillna(False).to_numpy(dtype=float))


def _count(mask: NDArray[np.bool_]) -> str:
    return f"{int(mask.sum())} of {len(mask)} rows"
