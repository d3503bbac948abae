"""Numbers -> intervals, tests and sample sizes; knows nothing of models, suites or gates.

A cluster is a problem: all languages and samples of one problem move together, so the interval of a mean is taken over problem
means. Nothing here drops missing values: a NaN or an empty input raises ValueError, and the caller says what is left out and why.
Methods: Miller 2024 (arXiv 2411.00640), Newcombe 1998 and Tango 1998 (Statistics in Medicine 17), Fagerland et al. 2013 (BMC
Medical Research Methodology 13:91), Connor 1987 (Biometrics 43). `confidence` is two-sided throughout, `alpha` is one-sided.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy  # loads scipy.stats and the rest where first used: together they take over a second
from numpy.typing import ArrayLike, NDArray

EXACT_SIGNED_RANKS = 200
"""Up to this many pairs the signed-rank distribution is counted exactly; above it the normal approximation is used."""
EXACT_MANN_WHITNEY = 100
"""Up to this many values in all, without ties, the Mann-Whitney test is exact."""

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """Lower and upper limit, in the unit of what was measured."""

    low: float
    high: float


class MeanEstimate(NamedTuple):
    """A mean over clusters."""

    mean: float
    se: float
    """Standard error of the mean. NaN with one cluster."""
    interval: Interval
    """NaN, NaN with one cluster."""
    clusters: int


class McNemar(NamedTuple):
    """Two-sided p values of the 2x2 table of pairs."""

    exact: float
    """Conditional binomial; conservative."""
    mid_p: float
    """The recommended one."""


class Bootstrap(NamedTuple):
    """Percentile interval and standard error of a resampled mean."""

    se: float
    interval: Interval


class Ratio(NamedTuple):
    """After over before; 1 is no change."""

    ratio: float
    interval: Interval


class UnpairedShift(NamedTuple):
    """Location shift between two unrelated samples."""

    shift: float
    """Hodges-Lehmann: the median of all differences after - before."""
    u: float
    """Mann-Whitney U of `after`."""
    p_value: float
    """Two-sided; exact up to 100 values without ties, else asymptotic."""


class Ranks(NamedTuple):
    """1-based ranks of the order statistics that enclose a percentile. None: no observation is extreme enough."""

    low: int | None
    high: int | None


class Percentile(NamedTuple):
    """A percentile and its order-statistic interval."""

    value: float
    interval: Interval


class VarianceSplit(NamedTuple):
    """Where the noise of repeated samples comes from."""

    within: float
    """Mean variance of an item's samples: more samples buy this down."""
    between: float
    """Variance of the items' true means, at least 0: only more items buy this down."""
    mean_se: float
    """Standard error of the grand mean; it carries both."""


class Tost(NamedTuple):
    """Two one-sided p values of an equivalence test; equivalence is shown where both are below alpha."""

    p_lower: float
    """Against: the mean is at or below -margin."""
    p_upper: float
    """Against: the mean is at or above +margin."""


class DetectableEffect(NamedTuple):
    """Smallest true effect found with the asked power."""

    normal: float
    exact: float
    """With Student's t; a little larger."""


class Bounds(NamedTuple):
    """A difference of shares when every unscored answer goes one way or the other."""

    worst: float
    best: float


# One sample ---------------------------------------------------------------------------------------------------------------------


def mean(values: ArrayLike) -> float:
    """Arithmetic mean. Raises ValueError on no values or on NaN: the mean of nothing is not 0."""
    return float(np.mean(_vector(values)))


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a share, within [0, 1]; the default for one cell of independent items. Raises ValueError if n < 1."""
    return _binomial(successes, n, confidence, "wilson")


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact interval of a share: covers at least `confidence`, so it is wider than needed. Raises ValueError if n < 1."""
    return _binomial(successes, n, confidence, "exact")


def _binomial(successes: int, n: int, confidence: float, method: str) -> Interval:
    if n < 1:
        raise ValueError("a share needs at least one observation")
    limits = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method=method)
    return Interval(float(limits.low), float(limits.high))


def jeffreys(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Equal-tailed interval of the posterior Beta(x + 1/2, n - x + 1/2); low is 0 at x = 0, high is 1 at x = n."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, found {successes} of {n}")
    tail = (1 - confidence) / 2
    posterior = scipy.stats.beta(successes + 0.5, n - successes + 0.5)
    return Interval(
        0.0 if successes == 0 else float(posterior.ppf(tail)),
        1.0 if successes == n else float(posterior.ppf(1 - tail)),
    )


def mean_interval(cluster_means: ArrayLike, confidence: float = 0.95) -> MeanEstimate:
    """Mean of cluster means, shape (G,), with a t interval on G - 1 degrees of freedom.

    On balanced data the same as the CR1 clustered error of all rows and, given paired differences, as the paired t test.
    The interval has no width where all means are equal; see `unseen_share` for what may then be said. Raises ValueError on none.
    """
    values = _vector(cluster_means)
    clusters = values.size
    centre = float(values.mean())
    if clusters < 2:
        return MeanEstimate(centre, math.nan, Interval(math.nan, math.nan), clusters)
    se = float(values.std(ddof=1)) / math.sqrt(clusters)
    half = t_quantile(clusters - 1, confidence) * se
    return MeanEstimate(centre, se, Interval(centre - half, centre + half), clusters)


def t_quantile(df: int, confidence: float = 0.95) -> float:
    """Half width of a two-sided t interval, in standard errors. Raises ValueError unless df >= 1 and 0 < confidence < 1."""
    if df < 1 or not 0 < confidence < 1:
        raise ValueError(f"expected df >= 1 and 0 < confidence < 1, found {df} and {confidence}")
    return float(scipy.special.stdtrit(df, (1 + confidence) / 2))


def unseen_share(n: int, alpha: float = 0.025) -> float:
    """Largest share of problems that may behave otherwise though none of n did, at one-sided `alpha`: 1 - alpha ** (1 / n)."""
    if n < 1:
        raise ValueError("expected at least one problem")
    return -math.expm1(math.log(alpha) / n)


def clustered_se(values: ArrayLike, clusters: ArrayLike) -> float:
    """CR1 standard error of the mean of all rows, shape (N,), `clusters` naming each row's cluster.

    Miller 2024, appendix A, with the factor G / (G - 1) that the paper leaves out. Raises ValueError with fewer than 2 clusters.
    """
    rows = _vector(values)
    names, codes = np.unique(np.asarray(clusters), return_inverse=True)
    if codes.size != rows.size:
        raise ValueError(f"{rows.size} values but {codes.size} cluster names")
    if names.size < 2:
        raise ValueError("a clustered error needs at least two clusters")
    sums = np.bincount(codes, weights=rows - rows.mean())
    return math.sqrt(names.size / (names.size - 1) * float(sums @ sums)) / rows.size


def variance_split(scores: ArrayLike) -> VarianceSplit:
    """Split the variance of repeated samples, shape (n items, K samples). Raises ValueError unless n >= 2 and K >= 2."""
    table = np.asarray(scores, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"expected at least 2 items x 2 samples, found shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("scores hold a value that is not finite")
    items, samples = table.shape
    within = float(table.var(axis=1, ddof=1).mean())
    of_means = float(table.mean(axis=1).var(ddof=1))
    return VarianceSplit(within, max(0.0, of_means - within / samples), math.sqrt(of_means / items))


# Pairs --------------------------------------------------------------------------------------------------------------------------


def mcnemar(only_before: int, only_after: int) -> McNemar:
    """Test of no difference in a single-language, one-sample comparison; both counts 0 gives p = 1.

    Mid-p after Fagerland et al. 2013. Wrong on rows pooled over languages: those of one problem are correlated.
    """
    n = only_before + only_after
    if min(only_before, only_after) < 0:
        raise ValueError(f"counts must not be negative, found {only_before} and {only_after}")
    if n == 0:
        return McNemar(1.0, 1.0)
    exact = float(scipy.stats.binomtest(only_before, n).pvalue)
    observed = float(scipy.stats.binom.pmf(only_before, n, 0.5))
    return McNemar(exact, exact - (observed / 2 if only_before == only_after else observed))


def newcombe_paired(both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95) -> Interval:
    """Interval of the difference first - second of two paired shares; Newcombe 1998, method 10: Wilson limits and correlation."""
    _check_pairs(both, only_first, only_second, neither)
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    difference = (only_first - only_second) / n
    low_1, high_1 = (abs(limit - first / n) for limit in wilson(first, n, confidence))
    low_2, high_2 = (abs(limit - second / n) for limit in wilson(second, n, confidence))
    phi = _corrected_phi(both, only_first, only_second, neither)
    return Interval(
        difference - math.sqrt(low_1**2 - 2 * phi * low_1 * high_2 + high_2**2),
        difference + math.sqrt(high_1**2 - 2 * phi * high_1 * low_2 + low_2**2),
    )


def _corrected_phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Correlation of the two columns with Newcombe's continuity correction, 0 where a margin is empty."""
    n = both + only_first + only_second + neither
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if margins == 0:
        return 0.0
    product = both * neither - only_first * only_second
    return (product if product < 0 else max(product - n / 2, 0)) / math.sqrt(margins)


def tango_paired(both: float, only_first: float, only_second: float, neither: float, confidence: float = 0.95) -> Interval:
    """Score interval of the difference first - second of two paired shares; Tango 1998. Holds its size near 0 and 1.

    Counts need not be whole: `score_interval` has weighted ones.
    """
    _check_pairs(both, only_first, only_second, neither)
    n = both + only_first + only_second + neither
    z_squared = float(scipy.special.ndtri((1 + confidence) / 2)) ** 2
    estimate = (only_first - only_second) / n

    def excess(difference: float) -> float:
        """Squared score minus its critical value; negative inside the interval."""
        variance = _constrained_variance(n, only_first, only_second, difference)
        return float((only_first - only_second - n * difference) ** 2 - z_squared * variance)

    step = 1e-9
    low = -1.0 if estimate - step <= -1 else float(scipy.optimize.brentq(excess, -1, estimate - step, xtol=1e-14))
    high = 1.0 if estimate + step >= 1 else float(scipy.optimize.brentq(excess, estimate + step, 1, xtol=1e-14))
    return Interval(low, high)


def _constrained_variance(n: float, only_first: float, only_second: float, difference: float) -> float:
    """Variance of only_first - only_second in n pairs whose true difference is this one, the rest as likely as can be (Tango 1998)."""
    linear = (2 * n - only_first + only_second) * difference - only_first - only_second
    constant = -only_second * difference * (1 - difference)
    second_share = (math.sqrt(max(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    return n * (2 * second_share + difference * (1 - difference))


def swing(differences: ArrayLike) -> float:
    """Size of a change such that problems that rise or fall by just it have the mean absolute and the mean squared difference of these.

    Shape (G,); the sum of squares over the sum of absolute values, 0 where nothing changed. 1 for single answers, right or wrong.
    """
    values = _vector(differences)
    total = float(np.abs(values).sum())
    return float(values @ values) / total if total else 0.0


def score_interval(mean: float, se: float, clusters: int, swing: float, confidence: float = 0.95) -> Interval:
    """Interval of the mean difference of two shares by Tango's score test, where few of the problems change and mostly one way.

    The t interval is too narrow there: it takes its spread from the few changes that were seen. The table that is tested has the same
    mean, variance (`se` that of `mean_interval`) and mean absolute difference as the problems: some rise and some fall by `swing`.
    Of single answers it is `tango_paired` itself, and where many problems change it tends to the t interval. Raises ValueError unless
    swing > 0.
    """
    if swing <= 0 or clusters < 2:
        raise ValueError(f"expected swing > 0 and at least two problems, found {swing} and {clusters}")
    net = clusters * mean / swing
    changed = clusters * ((clusters - 1) * se**2 + mean**2) / swing**2
    rose, fell = max(0.0, changed + net) / 2, max(0.0, changed - net) / 2
    low, high = tango_paired(max(0.0, clusters - rose - fell), rose, fell, 0.0, confidence)
    return Interval(swing * low, swing * high)


def _check_pairs(*counts: float) -> None:
    if min(counts) < 0 or sum(counts) == 0:
        raise ValueError(f"expected counts >= 0 and at least one pair, found {counts}")


def cluster_bootstrap(differences: ArrayLike, rng: np.random.Generator, replicates: int = 10_000, confidence: float = 0.95) -> Bootstrap:
    """Resample whole problems of the per-problem differences, shape (G,); percentile interval of their mean.

    Too narrow below about 50 problems: prefer `mean_interval`; this is for checking it, and for statistics without a formula.
    Its standard error tends to sqrt((G - 1) / G) of the formula's.
    """
    values = _vector(differences)
    size = values.size
    weights = rng.multinomial(size, np.full(size, 1 / size), size=replicates)
    means = weights @ values / size
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Bootstrap(float(means.std(ddof=1)), Interval(float(low), float(high)))


def tost_paired(differences: ArrayLike, margin: float) -> Tost:
    """Equivalence of paired problem means, shape (G,), within -margin .. +margin. Raises ValueError if margin <= 0 or G < 2.

    NaN where all differences are equal: there is no t statistic.
    """
    values = _vector(differences)
    if margin <= 0 or values.size < 2:
        raise ValueError(f"expected margin > 0 and at least two problems, found {margin} and {values.size}")
    lower = scipy.stats.ttest_1samp(values, -margin, alternative="greater")
    upper = scipy.stats.ttest_1samp(values, margin, alternative="less")
    return Tost(float(lower.pvalue), float(upper.pvalue))


def difference_bounds(before_right: int, before_unscored: int, after_right: int, after_unscored: int, n: int) -> Bounds:
    """Difference after - before of two shares of n: worst has unscored answers wrong after and right before, best the reverse."""
    if n < 1 or before_right + before_unscored > n or after_right + after_unscored > n:
        raise ValueError(f"right and unscored answers exceed n = {n}")
    worst = (after_right - before_right - before_unscored) / n
    best = (after_right + after_unscored - before_right) / n
    return Bounds(worst, best)


# Many tests ---------------------------------------------------------------------------------------------------------------------


def holm(p_values: ArrayLike) -> Array:
    """Adjusted p values in the order given, shape (m,): below alpha means rejected with family-wise error alpha (Holm 1979)."""
    p = _p_values(p_values)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return adjusted


def benjamini_hochberg(p_values: ArrayLike) -> Array:
    """Adjusted p values in the order given, shape (m,): below q means rejected with false discovery rate q."""
    return np.asarray(scipy.stats.false_discovery_control(_p_values(p_values), method="bh"), dtype=float)


def _p_values(p_values: ArrayLike) -> Array:
    p = _vector(p_values)
    if p.min() < 0 or p.max() > 1:
        raise ValueError("p values lie between 0 and 1")
    return p


# Ratios of costs ----------------------------------------------------------------------------------------------------------------


def geometric_mean_ratio(before: ArrayLike, after: ArrayLike, confidence: float = 0.95) -> Ratio:
    """The exponential of the mean paired log ratio, shape (G,) each, with its t interval. Raises ValueError on values <= 0."""
    estimate = mean_interval(_log_ratios(before, after), confidence)
    return Ratio(math.exp(estimate.mean), Interval(*(math.exp(limit) for limit in estimate.interval)))


def hodges_lehmann_ratio(before: ArrayLike, after: ArrayLike, confidence: float = 0.95) -> Ratio:
    """The exponential of the median Walsh average of the paired log ratios: robust companion of `geometric_mean_ratio`.

    The interval inverts the signed-rank test; NaN, NaN where there are too few pairs for the confidence (fewer than 6 at 95 %).
    Needs memory for G * (G + 1) / 2 numbers. Raises ValueError on values <= 0.
    """
    logs = _log_ratios(before, after)
    rows, columns = np.triu_indices(logs.size)
    walsh = np.sort((logs[rows] + logs[columns]) / 2)
    rank = _signed_rank_cut(logs.size, (1 - confidence) / 2)
    low, high = (walsh[rank - 1], walsh[walsh.size - rank]) if rank >= 1 else (math.nan, math.nan)
    return Ratio(math.exp(float(np.median(walsh))), Interval(math.exp(low), math.exp(high)))


def ratio_of_totals(before: ArrayLike, after: ArrayLike) -> float:
    """Sum after over sum before: what the bill changes by; long items weigh most. Raises ValueError if before sums to 0."""
    total_before, total_after = float(_vector(before).sum()), float(_vector(after).sum())
    if total_before <= 0:
        raise ValueError(f"expected a positive total before, found {total_before}")
    return total_after / total_before


def unpaired_shift(before: ArrayLike, after: ArrayLike) -> UnpairedShift:
    """Hodges-Lehmann shift and Mann-Whitney test, for samples that cannot be paired. Blunt where pairing is possible."""
    first, second = _vector(before), _vector(after)
    pooled = np.concatenate([first, second])
    is_exact = pooled.size <= EXACT_MANN_WHITNEY and np.unique(pooled).size == pooled.size
    test = scipy.stats.mannwhitneyu(second, first, method="exact" if is_exact else "asymptotic")
    return UnpairedShift(float(np.median(second[:, None] - first[None, :])), float(test.statistic), float(test.pvalue))


def _log_ratios(before: ArrayLike, after: ArrayLike) -> Array:
    first, second = _vector(before), _vector(after)
    if first.size != second.size:
        raise ValueError(f"pairs expected, found {first.size} values before and {second.size} after")
    if first.min() <= 0 or second.min() <= 0:
        raise ValueError("a ratio needs values above 0: leave out items where nothing was generated, and count them")
    return np.asarray(np.log(second / first), dtype=float)


def _signed_rank_cut(n: int, alpha: float) -> int:
    """Number k such that the k-th smallest and largest Walsh averages bound the median; 0 where none do."""
    if n > EXACT_SIGNED_RANKS:
        deviation = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return max(0, math.floor(n * (n + 1) / 4 - float(scipy.special.ndtri(1 - alpha)) * deviation))
    probabilities = np.ones(1)
    for rank in range(1, n + 1):
        probabilities = (np.pad(probabilities, (0, rank)) + np.pad(probabilities, (rank, 0))) / 2
    return int(np.searchsorted(np.cumsum(probabilities), alpha, side="right"))


# Percentiles --------------------------------------------------------------------------------------------------------------------


def minimum_n(share: float, confidence: float = 0.95) -> int:
    """Fewest independent requests for a percentile: with this confidence at least two observations lie beyond it.

    8 for p50, 46 for p90, 93 for p95, 473 for p99; MLPerf's early stopping is the same rule at 99 %.
    """
    if not 0 < share < 1:
        raise ValueError(f"expected 0 < share < 1, found {share}")
    beyond = min(share, 1 - share)
    n = 2
    while scipy.stats.binom.cdf(1, n, beyond) > 1 - confidence:
        n += max(1, round(0.01 / beyond))
    while scipy.stats.binom.cdf(1, n - 1, beyond) <= 1 - confidence:
        n -= 1
    return n


def percentile_ranks(n: int, share: float, confidence: float = 0.95) -> Ranks:
    """Ranks of the order statistics that bound a percentile of n sorted independent values, whatever their distribution."""
    if n < 1:
        raise ValueError("expected at least one value")
    low, high = scipy.stats.quantile_test(np.arange(1.0, n + 1), p=share).confidence_interval(confidence)
    return Ranks(None if math.isnan(low) else int(low), None if math.isnan(high) else int(high))


def percentile_interval(values: ArrayLike, share: float, confidence: float = 0.95) -> Percentile | None:
    """Percentile of independent values with an order-statistic interval; None below `minimum_n` values: print "n too small"."""
    ordered = np.sort(_vector(values))
    if ordered.size < minimum_n(share, confidence):
        return None
    ranks = percentile_ranks(ordered.size, share, confidence)
    if ranks.low is None or ranks.high is None:  # only at a confidence where minimum_n's one-sided rule is the weaker one
        return None
    limits = Interval(float(ordered[ranks.low - 1]), float(ordered[ranks.high - 1]))
    return Percentile(float(np.quantile(ordered, share)), limits)


# Planning -----------------------------------------------------------------------------------------------------------------------


def minimum_detectable_effect(sd: float, n: int, alpha: float = 0.025, power: float = 0.8) -> DetectableEffect:
    """Smallest true mean difference of n problems found with `power`; `sd` is of the per-problem differences, same unit."""
    if sd < 0 or n < 2:
        raise ValueError(f"expected sd >= 0 and n >= 2, found {sd} and {n}")
    se = sd / math.sqrt(n)
    critical = t_quantile(n - 1, 1 - 2 * alpha)

    def shortfall(effect_in_se: float) -> float:
        return float(scipy.stats.nct.sf(critical, n - 1, effect_in_se)) - power

    return DetectableEffect(z_sum(alpha, power) * se, float(scipy.optimize.brentq(shortfall, 0, critical + 40)) * se)


def non_inferiority_power(se: float, margin: float, alpha: float = 0.025) -> float:
    """Chance, 0 to 1, that an unchanged arm passes a gate of this margin; the observed difference has no place in it."""
    if se < 0 or margin <= 0:
        raise ValueError(f"expected se >= 0 and margin > 0, found {se} and {margin}")
    return 1.0 if se == 0 else float(scipy.special.ndtr(margin / se - scipy.special.ndtri(1 - alpha)))


def score_power(sd: float, clusters: int, swing: float, margin: float, alpha: float = 0.025) -> float:
    """As `non_inferiority_power` of a gate that asks for `score_interval` too, `sd` that of the problems' differences.

    Under the margin more is lost than gained, so the spread that the score test sees is wider than that of an unchanged arm. Within 4
    percentage points of enumeration, mostly below it, from 5 changed problems on.
    """
    se = sd / math.sqrt(clusters)
    by_t = non_inferiority_power(se, margin, alpha)
    if se == 0 or swing <= 0 or margin >= swing:
        return by_t
    each_way = clusters * (sd / swing) ** 2 / 2
    null_se = swing * math.sqrt(_constrained_variance(clusters, each_way, each_way, -margin / swing)) / clusters
    return min(by_t, float(scipy.special.ndtr((margin - float(scipy.special.ndtri(1 - alpha)) * null_se) / se)))


def non_inferiority_sample_size(variance: float, margin: float, alpha: float = 0.025, power: float = 0.8) -> int:
    """Independent pairs needed for an unchanged arm to pass with `power`.

    `variance` is that of one difference: for single answers the discordance, the share of pairs that differ.
    """
    if variance <= 0 or margin <= 0:
        raise ValueError(f"expected variance > 0 and margin > 0, found {variance} and {margin}")
    return math.ceil(z_sum(alpha, power) ** 2 * variance / margin**2)


def superiority_sample_size(discordance: float, difference: float, alpha: float = 0.025, power: float = 0.8) -> int:
    """Independent pairs needed to find a true `difference` of two shares; Connor 1987. Below 10 discordant pairs, enumerate."""
    if not 0 < abs(difference) <= discordance <= 1:
        raise ValueError(f"expected 0 < difference <= discordance <= 1, found {difference} and {discordance}")
    z_alpha, z_power = float(scipy.special.ndtri(1 - alpha)), float(scipy.special.ndtri(power))
    root = z_alpha * math.sqrt(discordance) + z_power * math.sqrt(discordance - difference**2)
    return math.ceil(root**2 / difference**2)


def problems_needed(pairs: float, languages: int, icc: float) -> int:
    """Problems in `languages` translations that weigh as much as `pairs` independent ones; `icc` is that of the differences."""
    if languages < 1:
        raise ValueError("expected at least one language")
    return math.ceil(pairs * (1 + (languages - 1) * icc) / languages)


def z_sum(alpha: float, power: float) -> float:
    """Standard errors that an effect must measure to be found with `power` at one-sided `alpha`."""
    return float(scipy.special.ndtri(1 - alpha) + scipy.special.ndtri(power))


def _vector(values: ArrayLike) -> Array:
    """Values as a one-dimensional float array. Raises ValueError if there are none or one is not finite."""
    vector = np.asarray(values, dtype=float)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"expected at least one value in one dimension, found shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError("values hold NaN or infinity: leave unknown values out and count them")
    return vector
