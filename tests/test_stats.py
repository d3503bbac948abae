"""Reference values to their printed precision, statsmodels and scipy as independent oracles, and properties that must hold.

The paired table 1, 1, 7, 12 is the airway example of Fagerland et al. 2013, https://doi.org/10.1186/1471-2288-13-91.
"""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats import contingency_tables, multitest, proportion, weightstats

from bench import stats

LATENCY_BEFORE = [812, 1040, 655, 2300, 978, 1510, 720, 3105, 890, 1275]
LATENCY_AFTER = [840, 1102, 640, 2450, 1001, 1633, 745, 3390, 905, 1222]
ELEVEN_P_VALUES = [0.001, 0.008, 0.012, 0.041, 0.049, 0.2, 0.04, 0.0301, 0.6, 0.9, 0.013]

counts = st.integers(0, 60)
means = st.lists(st.floats(-1, 1), min_size=2, max_size=60)


def toy() -> tuple[np.ndarray, np.ndarray]:
    """20 problems x 5 languages, before and after, 0 or 1."""
    i, j = np.arange(20)[:, None], np.arange(5)[None, :]
    before = ((7 * i**2 + 3 * j + i * j) % 11 < 8).astype(float)
    after = ((5 * i**2 + 4 * j + 2 * i * j + 3) % 13 < 9).astype(float)
    return before, after


def toy_differences() -> np.ndarray:
    before, after = toy()
    return (after - before).mean(axis=1)


def rows_and_clusters(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return table.ravel(), np.repeat(np.arange(table.shape[0]), table.shape[1])


# One sample


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (213, 250, 0.802666, 0.890680),
        (0, 10, 0, 0.277533),
        (10, 10, 0.722467, 1),
        (5, 10, 0.236593, 0.763407),
        (2340, 2750, 0.837108, 0.863731),
    ],
)
def test_wilson_reference(successes, n, low, high):
    assert stats.wilson(successes, n) == pytest.approx((low, high), abs=5e-7)


@pytest.mark.parametrize(("successes", "n", "low", "high"), [(213, 250, 0.804036, 0.891872), (5, 10, 0.223529, 0.776471)])
def test_jeffreys_reference(successes, n, low, high):
    assert stats.jeffreys(successes, n) == pytest.approx((low, high), abs=5e-7)


@pytest.mark.parametrize(("successes", "n", "low", "high"), [(213, 250, 0.801818, 0.893605), (5, 10, 0.187086, 0.812914)])
def test_clopper_pearson_reference(successes, n, low, high):
    assert stats.clopper_pearson(successes, n) == pytest.approx((low, high), abs=5e-7)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=60, deadline=None)
def test_share_intervals_agree_with_statsmodels(pair):
    successes, n = pair
    for ours, method in ((stats.wilson, "wilson"), (stats.clopper_pearson, "beta")):
        assert ours(successes, n) == pytest.approx(proportion.proportion_confint(successes, n, method=method), abs=1e-9)
    if 0 < successes < n:
        oracle = proportion.proportion_confint(successes, n, method="jeffreys")
        assert stats.jeffreys(successes, n) == pytest.approx(oracle, abs=1e-9)


def test_jeffreys_reaches_the_ends():
    assert stats.jeffreys(0, 10).low == 0
    assert stats.jeffreys(10, 10).high == 1


def test_toy_data_is_the_reference_data():
    before, after = toy()
    assert (before.mean(), after.mean(), (after - before).mean()) == pytest.approx((0.58, 0.74, 0.16))


@pytest.mark.parametrize(("which", "expected"), [("before", 0.05409543), ("after", 0.05047146), ("difference", 0.07622681)])
def test_clustered_se_reference(which, expected):
    before, after = toy()
    table = {"before": before, "after": after, "difference": after - before}[which]
    assert stats.clustered_se(*rows_and_clusters(table)) == pytest.approx(expected, abs=5e-9)
    # on balanced data the t interval of problem means is the same thing
    assert stats.mean_interval(table.mean(axis=1)).se == pytest.approx(expected, abs=5e-9)


@pytest.mark.parametrize(("which", "expected"), [("before", 0.05272571), ("after", 0.04919350), ("difference", 0.07429670)])
def test_clustered_se_keeps_the_factor_the_paper_leaves_out(which, expected):
    before, after = toy()
    table = {"before": before, "after": after, "difference": after - before}[which]
    assert stats.clustered_se(*rows_and_clusters(table)) * math.sqrt(19 / 20) == pytest.approx(expected, abs=5e-9)


@pytest.mark.parametrize(("which", "wrong"), [("before", 0.04960450), ("after", 0.04408440), ("difference", 0.06774879)])
def test_rows_are_not_independent(which, wrong):
    before, after = toy()
    rows, clusters = rows_and_clusters({"before": before, "after": after, "difference": after - before}[which])
    assert stats.mean_interval(rows).se == pytest.approx(wrong, abs=5e-9)
    assert stats.clustered_se(rows, clusters) > wrong


clustered_rows = st.lists(st.tuples(st.integers(0, 8), st.floats(-1, 1)), min_size=3, max_size=80)


@given(clustered_rows.filter(lambda rows: len({cluster for cluster, _ in rows}) > 1))
@settings(max_examples=50, deadline=None)
def test_clustered_se_agrees_with_statsmodels_on_unbalanced_rows(rows):
    clusters, values = (np.array(column) for column in zip(*rows, strict=True))
    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False})
    n_clusters = len(set(clusters))
    expected = float(fit.bse[0]) * math.sqrt(n_clusters / (n_clusters - 1))
    assert stats.clustered_se(values, clusters) == pytest.approx(expected, abs=1e-9)


@given(means)
@settings(max_examples=50, deadline=None)
def test_clustered_is_plain_when_clusters_are_singletons(values):
    assert stats.clustered_se(values, np.arange(len(values))) == pytest.approx(stats.mean_interval(values).se, abs=1e-9)


def test_gate_interval_reference():
    estimate = stats.mean_interval(toy_differences(), confidence=0.90)
    assert stats.t_quantile(19, 0.90) == pytest.approx(1.729133, abs=5e-7)
    assert estimate.interval == pytest.approx((0.028194, 0.291806), abs=5e-7)
    assert estimate.clusters == 20
    oracle = weightstats.DescrStatsW(toy_differences()).tconfint_mean(alpha=0.10)
    assert estimate.interval == pytest.approx(oracle, abs=1e-12)


def test_one_problem_has_no_standard_error():
    estimate = stats.mean_interval([0.5])
    assert estimate.mean == 0.5
    assert math.isnan(estimate.se)
    assert math.isnan(estimate.interval.low)


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [math.inf]])
def test_mean_of_nothing_raises(values):
    for function in (stats.mean, stats.mean_interval):
        with pytest.raises(ValueError, match="value"):
            function(values)


def test_unseen_share_is_the_minimum_cluster_rule():
    assert stats.unseen_share(183) < 0.02 < stats.unseen_share(182)
    assert stats.unseen_share(72) < 0.05 < stats.unseen_share(71)
    assert stats.unseen_share(149, alpha=0.05) < 0.02 < stats.unseen_share(148, alpha=0.05)


def test_variance_split_adds_up():
    rng = np.random.default_rng(5)
    scores = (rng.random((400, 4)) < rng.beta(2, 1, size=(400, 1))).astype(float)
    split = stats.variance_split(scores)
    assert split.between + split.within / 4 == pytest.approx(scores.mean(axis=1).var(ddof=1))
    assert split.mean_se == pytest.approx(stats.mean_interval(scores.mean(axis=1)).se)
    # Beta(2, 1): variance of p is 1/18, mean of p(1 - p) is 1/6
    assert (split.within, split.between) == pytest.approx((1 / 6, 1 / 18), abs=0.02)


def test_variance_split_of_one_sample_is_refused():
    with pytest.raises(ValueError, match="2 samples"):
        stats.variance_split([[1.0], [0.0]])


def test_pure_sampling_noise_has_no_between_variance():
    assert stats.variance_split([[0, 1], [1, 0], [0, 1]]).between == 0


# Pairs


@pytest.mark.parametrize(
    ("b", "c", "exact", "mid_p", "asymptotic"),
    [
        (1, 7, 0.0703125, 0.0390625, 0.03389485),
        (9, 3, 0.14599609, 0.09228516, 0.08326452),
        (15, 15, 1, 0.92776778, 1),
        (0, 5, 0.0625, 0.03125, 0.02534732),
    ],
)
def test_mcnemar_reference(b, c, exact, mid_p, asymptotic):
    ours = stats.mcnemar(b, c)
    assert ours == pytest.approx((exact, mid_p), abs=5e-9)
    assert stats.mcnemar(c, b) == pytest.approx(ours)
    table = [[1, b], [c, 1]]
    assert contingency_tables.mcnemar(table, exact=True).pvalue == pytest.approx(ours.exact, abs=1e-12)
    assert contingency_tables.mcnemar(table, exact=False, correction=False).pvalue == pytest.approx(asymptotic, abs=5e-9)


def test_mcnemar_without_discordant_pairs_finds_nothing():
    assert stats.mcnemar(0, 0) == (1, 1)


@pytest.mark.parametrize(
    ("table", "newcombe", "tango"),
    [
        ((1, 1, 7, 12), (-0.506920, -0.025559), (-0.517232, -0.026003)),
        ((200, 13, 9, 28), (-0.022378, 0.054994), (-0.022326, 0.055990)),
        ((240, 0, 0, 10), (-0.015949, 0.015949), (-0.015133, 0.015133)),
    ],
)
def test_paired_difference_reference(table, newcombe, tango):
    assert stats.newcombe_paired(*table) == pytest.approx(newcombe, abs=5e-7)
    assert stats.tango_paired(*table) == pytest.approx(tango, abs=5e-7)


@pytest.mark.parametrize(
    ("table", "wald"), [((1, 1, 7, 12), (-0.519709, -0.051720)), ((240, 0, 0, 10), (0.0, 0.0))], ids=["few", "nothing changed"]
)
def test_wald_is_what_these_intervals_replace(table, wald):
    """Its width is zero where nothing changed; both of ours have one."""
    both, first, second, neither = table
    n, difference = sum(table), (first - second) / sum(table)
    half = 1.959964 * math.sqrt((first + second) / n - difference**2) / math.sqrt(n)
    assert (difference - half, difference + half) == pytest.approx(wald, abs=5e-7)
    for interval in (stats.newcombe_paired(*table), stats.tango_paired(*table)):
        assert interval.low < interval.high
        assert interval != pytest.approx(wald, abs=1e-3)


@given(st.tuples(counts, counts, counts, counts).filter(lambda table: sum(table) > 0))
@settings(max_examples=200, deadline=None)
def test_paired_intervals_hold_the_estimate_stay_in_range_and_mirror(table):
    both, first, second, neither = table
    estimate = (first - second) / sum(table)
    for interval in (stats.newcombe_paired, stats.tango_paired):
        low, high = interval(both, first, second, neither)
        assert -1 - 1e-9 <= low <= estimate + 1e-9
        assert estimate - 1e-9 <= high <= 1 + 1e-9
        assert low < high
        assert interval(both, second, first, neither) == pytest.approx((-high, -low), abs=1e-7)


@given(st.tuples(counts, counts, counts, counts).filter(lambda table: table[1] + table[2] > 0))
@settings(max_examples=100, deadline=None)
def test_tango_limits_score_exactly_the_critical_value(table):
    """At a limit inside (-1, 1) the score test with the constrained estimate, found here by search, has p = .05."""
    both, first, second, neither = table
    n = sum(table)
    for limit in stats.tango_paired(*table):
        if abs(limit) > 0.999:
            continue
        shares = np.linspace(max(0, -limit), (1 - limit) / 2, 200_001)[1:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = (both + neither) * np.log(1 - limit - 2 * shares)
            likelihood += (first * np.log(shares + limit) if first else 0) + (second * np.log(shares) if second else 0)
        share = shares[np.nanargmax(likelihood)]
        score = abs(first - second - n * limit) / math.sqrt(n * (2 * share + limit - limit**2))
        assert score == pytest.approx(1.959964, rel=5e-3)


def score_interval_of(differences):
    estimate = stats.mean_interval(differences)
    return stats.score_interval(estimate.mean, estimate.se, estimate.clusters, stats.swing(differences))


@given(st.tuples(counts, counts, counts).filter(lambda table: table[0] + table[1] > 0 and sum(table) > 1))
@settings(max_examples=100, deadline=None)
def test_the_score_interval_of_single_answers_is_tangos(table):
    gained, lost, same = table
    differences = np.repeat([1.0, -1.0, 0.0], [gained, lost, same])
    assert stats.swing(differences) == pytest.approx(1)
    assert score_interval_of(differences) == pytest.approx(stats.tango_paired(same, gained, lost, 0), abs=1e-6)
    assert score_interval_of(differences / 4) == pytest.approx([limit / 4 for limit in stats.tango_paired(same, gained, lost, 0)], abs=1e-6)


@given(means.filter(lambda values: max(map(abs, values)) > 1e-3))
@settings(max_examples=100, deadline=None)
def test_the_score_interval_holds_the_estimate_and_mirrors(values):
    low, high = score_interval_of(values)
    mean = float(np.mean(values))
    assert -1 - 1e-9 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1 + 1e-9
    assert score_interval_of([-value for value in values]) == pytest.approx((-high, -low), abs=1e-6)


def test_the_score_interval_is_the_t_interval_where_many_problems_change():
    differences = np.random.default_rng(3).normal(-0.01, 0.15, size=5000).clip(-1, 1)
    assert score_interval_of(differences) == pytest.approx(stats.mean_interval(differences).interval, abs=2e-5)


def test_the_score_interval_of_a_few_losses_is_wider_where_it_matters():
    differences = np.repeat([-1.0, 0.0], [2, 248])
    assert score_interval_of(differences).low < -0.02 < stats.mean_interval(differences).interval.low


@pytest.mark.parametrize(("swing", "clusters"), [(0.0, 10), (1.0, 1)])
def test_no_change_has_no_score_interval(swing, clusters):
    assert stats.swing(np.zeros(10)) == 0
    with pytest.raises(ValueError, match="swing > 0"):
        stats.score_interval(0.0, 0.1, clusters, swing)


def test_cluster_bootstrap_reference():
    result = stats.cluster_bootstrap(toy_differences(), np.random.default_rng(1), replicates=50_000, confidence=0.90)
    assert result.se == pytest.approx(0.07429670, abs=5e-4)
    assert result.interval == pytest.approx((0.03, 0.28), abs=0.01)


def test_cluster_bootstrap_repeats_with_the_same_generator_seed():
    first, second = (stats.cluster_bootstrap(toy_differences(), np.random.default_rng(7), 500) for _ in range(2))
    assert first == second


def test_tost_reference():
    result = stats.tost_paired(toy_differences(), 0.15)
    assert result == pytest.approx((0.00032888, 0.55149692), abs=5e-9)
    before, after = toy()
    _, lower, upper = weightstats.ttost_paired(after.mean(axis=1), before.mean(axis=1), -0.15, 0.15)
    assert result == pytest.approx((lower[1], upper[1]), abs=1e-12)


def test_bounds_reference():
    bounds = stats.difference_bounds(before_right=210, before_unscored=5, after_right=205, after_unscored=12, n=250)
    assert bounds == pytest.approx((-0.040, 0.028))


def test_bounds_of_more_answers_than_items_are_refused():
    with pytest.raises(ValueError, match="exceed"):
        stats.difference_bounds(before_right=8, before_unscored=3, after_right=1, after_unscored=0, n=10)


# Many tests


def test_holm_reference():
    expected = [0.011, 0.08, 0.108, 0.24, 0.24, 0.6, 0.24, 0.2107, 1, 1, 0.108]
    assert stats.holm(ELEVEN_P_VALUES) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=10, deadline=None)
def test_adjusted_p_values_agree_with_statsmodels(p_values):
    assert stats.holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1], abs=1e-12)
    assert stats.benjamini_hochberg(p_values) == pytest.approx(multitest.multipletests(p_values, method="fdr_bh")[1], abs=1e-12)


def test_impossible_p_values_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.holm([0.2, 1.2])


# Ratios


def test_latency_reference():
    assert stats.geometric_mean_ratio(LATENCY_BEFORE, LATENCY_AFTER).ratio == pytest.approx(1.03350703, abs=5e-9)
    interval = stats.geometric_mean_ratio(LATENCY_BEFORE, LATENCY_AFTER, confidence=0.90).interval
    assert interval == pytest.approx((1.008707, 1.058916), abs=5e-7)
    assert stats.hodges_lehmann_ratio(LATENCY_BEFORE, LATENCY_AFTER).ratio == pytest.approx(1.03460248, abs=5e-9)
    assert stats.ratio_of_totals(LATENCY_BEFORE, LATENCY_AFTER) == pytest.approx(1.04840045, abs=5e-9)
    assert scipy_stats.wilcoxon(np.log(LATENCY_AFTER), np.log(LATENCY_BEFORE)).pvalue == pytest.approx(0.04882812, abs=5e-9)


def test_unpaired_reference_misses_what_pairing_finds():
    result = stats.unpaired_shift(LATENCY_BEFORE, LATENCY_AFTER)
    assert (result.shift, result.u) == (26.5, 53)
    assert result.p_value == pytest.approx(0.85342831, abs=5e-9)
    assert stats.hodges_lehmann_ratio(LATENCY_BEFORE, LATENCY_AFTER).interval.low > 1


@given(st.lists(st.floats(-0.5, 0.8), min_size=6, max_size=25, unique=True).filter(lambda x: len({abs(v) for v in x}) == len(x)))
@settings(max_examples=60, deadline=None)
def test_hodges_lehmann_interval_is_the_inverted_signed_rank_test(logs):
    logs = np.array(logs)
    walsh = (logs[:, None] + logs[None, :])[np.triu_indices(len(logs))]
    if np.min(np.abs(walsh)) < 1e-9 or len(set(np.abs(logs).round(9))) < len(logs):
        return
    low, high = stats.hodges_lehmann_ratio(np.ones(len(logs)), np.exp(logs)).interval
    p_value = scipy_stats.wilcoxon(logs, method="exact").pvalue
    assert (low > 1 or high < 1) == (p_value <= 0.05)


def test_hodges_lehmann_large_sample_cut_meets_the_exact_one():
    exact = stats._signed_rank_cut(200, 0.025)
    approximate = math.floor(200 * 201 / 4 - 1.959964 * math.sqrt(200 * 201 * 401 / 24))
    assert abs(exact - approximate) <= 3
    assert stats._signed_rank_cut(201, 0.025) > exact


def test_hodges_lehmann_of_five_pairs_has_no_interval():
    result = stats.hodges_lehmann_ratio([1, 2, 3, 4, 5], [2, 3, 4, 5, 6])
    assert result.ratio > 1
    assert math.isnan(result.interval.low)


@pytest.mark.parametrize("function", [stats.geometric_mean_ratio, stats.hodges_lehmann_ratio])
def test_zero_tokens_have_no_ratio(function):
    with pytest.raises(ValueError, match="above 0"):
        function([10, 20], [0, 20])


# Percentiles


@pytest.mark.parametrize(
    ("n", "share", "low", "high"),
    [
        (250, 0.50, 110, 141),
        (250, 0.95, 230, 245),
        (250, 0.99, 244, None),
        (1000, 0.50, 469, 532),
        (1000, 0.95, 936, 964),
        (1000, 0.99, 983, 997),
    ],
)
def test_percentile_ranks_reference(n, share, low, high):
    assert stats.percentile_ranks(n, share) == (low, high)


@pytest.mark.parametrize(
    ("share", "confidence", "n"),
    [(0.5, 0.95, 8), (0.9, 0.95, 46), (0.95, 0.95, 93), (0.99, 0.95, 473), (0.9, 0.99, 64), (0.99, 0.99, 662)],
)
def test_minimum_n_reference(share, confidence, n):
    assert stats.minimum_n(share, confidence) == n


@pytest.mark.parametrize(("share", "n"), [(0.5, 8), (0.95, 93), (0.99, 473)])
def test_too_few_values_give_no_percentile(share, n):
    values = np.arange(1.0, n + 1)
    assert stats.percentile_interval(values[:-1], share) is None
    result = stats.percentile_interval(values, share)
    assert result.interval.low <= result.value <= result.interval.high


def test_percentile_interval_picks_the_ranked_values():
    shuffled = np.random.default_rng(3).permutation(np.arange(1.0, 1001))
    assert stats.percentile_interval(shuffled, 0.95).interval == (936, 964)


# Planning


def test_detectable_effect_reference():
    assert stats.minimum_detectable_effect(0.14, 250, alpha=0.05) == pytest.approx((0.022016, 0.022076), abs=5e-7)
    assert stats.minimum_detectable_effect(0.40, 250, alpha=0.05) == pytest.approx((0.062903, 0.063075), abs=5e-7)


@pytest.mark.parametrize(
    ("discordance", "difference", "n_80", "n_90"),
    [
        (0.05, 0.01, 3923, 5250),
        (0.05, 0.02, 979, 1310),
        (0.10, 0.02, 1960, 2623),
        (0.10, 0.05, 312, 417),
        (0.15, 0.10, 116, 154),
        (0.30, 0.01, 23545, 31519),
        (0.30, 0.10, 234, 312),
    ],
)
def test_superiority_sample_sizes_reference(discordance, difference, n_80, n_90):
    assert stats.superiority_sample_size(discordance, difference, power=0.8) == n_80
    assert stats.superiority_sample_size(discordance, difference, power=0.9) == n_90


@pytest.mark.parametrize(
    ("discordance", "margin", "n_80", "n_90"),
    [
        (0.05, 0.01, 3092, 4282),
        (0.05, 0.10, 31, 43),
        (0.10, 0.02, 1546, 2141),
        (0.15, 0.05, 371, 514),
        (0.30, 0.01, 18548, 25692),
        (0.30, 0.10, 186, 257),
    ],
)
def test_non_inferiority_sample_sizes_reference(discordance, margin, n_80, n_90):
    assert stats.non_inferiority_sample_size(discordance, margin, alpha=0.05, power=0.8) == n_80
    assert stats.non_inferiority_sample_size(discordance, margin, alpha=0.05, power=0.9) == n_90


@pytest.mark.parametrize(("icc", "problems"), [(0, 225), (0.05, 338), (0.10, 450), (0.20, 675)])
def test_translations_of_a_problem_are_worth_less_than_problems(icc, problems):
    pairs = stats.non_inferiority_sample_size(0.16, 0.02, alpha=0.05)
    assert stats.problems_needed(pairs, 11, icc) == problems


def test_the_score_intervals_power_is_the_t_intervals_where_many_problems_change():
    by_t = stats.non_inferiority_power(0.15 / math.sqrt(1000), 0.013)
    assert stats.score_power(0.15, 1000, 0.2, 0.013) == pytest.approx(by_t, abs=0.02)
    assert stats.score_power(0.15, 1000, 0.0, 0.013) == by_t
    assert stats.score_power(0.0, 1000, 0.2, 0.013) == 1
    assert stats.score_power(math.sqrt(0.02), 250, 1.0, 0.02) == pytest.approx(0.407, abs=5e-4)  # .61 by the t interval


def test_power_at_the_detectable_effect_is_the_asked_power():
    effect = stats.minimum_detectable_effect(0.14, 250, alpha=0.025, power=0.8)
    assert stats.non_inferiority_power(0.14 / math.sqrt(250), effect.normal) == pytest.approx(0.8)
    assert stats.non_inferiority_power(0.0, 0.02) == 1
