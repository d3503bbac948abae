"""What passes, what does not, and every known way to slip a loss through the gate."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_comparison import samples_of

from bench import stats
from bench.comparison import compare
from bench.errors import UsageError
from bench.experiment import Gate, Select
from bench.gate import (
    in_order,
    judge,
    kept,
    missing,
    more_problems_needed,
    read,
    relative_difference,
    required_clusters,
    run_verdict,
    samples_needed,
    select_arm,
    waive,
)
from bench.records import Comparison
from bench.stats import Interval

ACCURACY = Gate(name="accuracy", metric="accuracy", effort="high", margin=0.02)
SUPERIORITY = Gate(name="helps", metric="accuracy", effort="high", type="superiority", margin=0.0)
FIDELITY = Gate(name="reasons-in-language", metric="reasoning_language_fidelity", effort="high", type="superiority", margin=0.5)
TOKENS = Gate(name="tokens", metric="output_tokens", effort="high", margin=10)
HIGH = {"suite": "stories", "split": "gate", "effort": "high", "metric": "accuracy"}


def comparison_of(delta, se, clusters=250, confidence=0.95, before=0.8, gate=ACCURACY, **others):
    """A comparison with this estimate, its interval Student's t."""
    half = stats.t_quantile(clusters - 1, confidence) * se
    fields = {
        "arm": "r8",
        "against": "base",
        "suite": "stories",
        "split": "gate",
        "effort": gate.effort,
        "metric": gate.metric,
        "before": before,
        "before_ci": (before - 0.03, before + 0.03),
        "after": before + delta,
        "after_ci": (before + delta - 0.03, before + delta + 0.03),
        "delta": delta,
        "ci": (delta - half, delta + half),
        "se": se,
        "clusters": clusters,
        "rows": clusters * 5,
        "languages": ("de", "en", "es", "fr", "it"),
        "samples_per_item": 1,
    }
    return Comparison(**(fields | others))


def judged(before, after, gate):
    comparison = compare(before, after, suite="stories", split="gate", effort=gate.effort, metric=gate.metric)
    return judge(comparison, gate)


# The rule


@pytest.mark.parametrize(
    ("delta", "se", "limit", "value", "verdict", "flags"),
    [
        (0, 0.009, 0, -0.017726, "pass", ()),
        (0, 0.011, 0, -0.021665, "inconclusive", ()),
        (-0.005, 0.0075, 0, -0.019772, "pass", ()),
        (-0.005, 0.0077, 0, -0.020165, "inconclusive", ()),
        (-0.04, 0.009, 1, -0.022274, "fail", ("regression_detected",)),
        (-0.04, 0.0105, 1, -0.019320, "inconclusive", ("regression_detected",)),
        (-0.010, 0.004, 0, -0.017878, "pass", ("regression_detected",)),
        (-0.010, 0.004, 1, -0.002122, "pass", ("regression_detected",)),
        (0.02, 0.009, 0, 0.002274, "pass", ("improvement_detected",)),
    ],
)
def test_verdict_reference_at_two_sided_95_percent(delta, se, limit, value, verdict, flags):
    comparison = comparison_of(delta, se)
    assert stats.t_quantile(249) == pytest.approx(1.969537, abs=5e-7)
    assert comparison.ci[limit] == pytest.approx(value, abs=5e-7)
    result = judge(comparison, ACCURACY)
    assert (result.verdict, result.flags) == (verdict, flags)


@pytest.mark.parametrize(
    ("delta", "se", "limit", "value", "verdict", "flags"),
    [
        (0, 0.009, 0, -0.014859, "pass", ()),
        (0, 0.015, 0, -0.024765, "inconclusive", ()),
        (-0.005, 0.009, 0, -0.019859, "pass", ()),
        (-0.005, 0.0091, 0, -0.020024, "inconclusive", ()),
        (-0.04, 0.009, 1, -0.025141, "fail", ("regression_detected",)),
        (-0.035, 0.0095, 1, -0.019316, "inconclusive", ("regression_detected",)),
        (-0.010, 0.004, 1, -0.003396, "pass", ("regression_detected",)),
        (0.02, 0.009, 0, 0.005141, "pass", ("improvement_detected",)),
    ],
)
def test_verdict_reference_at_two_sided_90_percent(delta, se, limit, value, verdict, flags):
    comparison = comparison_of(delta, se, confidence=0.90)
    assert comparison.ci[limit] == pytest.approx(value, abs=5e-7)
    result = judge(comparison, ACCURACY)
    assert (result.verdict, result.flags) == (verdict, flags)


def test_few_noisy_problems_are_inconclusive_and_refused_by_the_guard():
    comparison = comparison_of(0.03, 0.05, clusters=20, confidence=0.90)
    assert read(Interval(*comparison.ci), ACCURACY) == "inconclusive"
    assert judge(comparison, ACCURACY).verdict == "invalid"


def test_touching_the_margin_is_not_a_pass():
    assert read(Interval(-0.02, 0.01), ACCURACY) == "inconclusive"
    assert read(Interval(-0.04, -0.02), ACCURACY) == "inconclusive"
    assert read(Interval(0.0, 0.02), SUPERIORITY) == "inconclusive"


@given(delta=st.floats(-0.1, 0.1), se=st.floats(1e-4, 0.05), margin=st.floats(0.02, 0.09))
@settings(max_examples=200, deadline=None)
def test_a_pass_rules_the_margin_out_and_a_fail_shows_it(delta, se, margin):
    gate = ACCURACY.model_copy(update={"margin": margin})
    comparison = comparison_of(delta, se)
    verdict = judge(comparison, gate).verdict
    low, high = comparison.ci
    assert (verdict == "pass") == (low > -margin)
    assert (verdict == "fail") == (high < -margin)


@given(delta=st.floats(-0.1, 0.1), worse=st.floats(0, 0.1), se=st.floats(1e-4, 0.05))
@settings(max_examples=200, deadline=None)
def test_a_worse_estimate_never_gets_a_better_verdict(delta, worse, se):
    order = ["fail", "inconclusive", "pass"]
    better, lower = (judge(comparison_of(value, se), ACCURACY).verdict for value in (delta, delta - worse))
    assert order.index(lower) <= order.index(better)


def test_superiority_needs_the_whole_interval_above_the_margin():
    for delta, verdict in [(0.8, "pass"), (0.52, "inconclusive"), (0.3, "fail")]:
        assert judge(comparison_of(delta, 0.02, before=0.2, gate=FIDELITY), FIDELITY).verdict == verdict


def test_no_difference_is_no_superiority():
    assert judge(comparison_of(0.0, 0.009), SUPERIORITY).verdict == "inconclusive"
    assert judge(comparison_of(0.0, 0.009), ACCURACY).verdict == "pass"


def test_more_tokens_are_a_loss():
    worse, better = (comparison_of(delta, 2.0, before=60, gate=TOKENS) for delta in (30, -30))
    assert judge(worse, TOKENS).verdict == "fail"
    assert judge(worse, TOKENS).flags == ("regression_detected",)
    assert judge(better, TOKENS).verdict == "pass"
    assert judge(better, TOKENS).flags == ("improvement_detected",)


def test_fewer_tokens_can_be_demanded():
    gate = Gate(name="shorter", metric="output_tokens", effort="high", type="superiority", margin=20)
    assert judge(comparison_of(-30, 2.0, before=60, gate=gate), gate).verdict == "pass"
    assert judge(comparison_of(-10, 2.0, before=60, gate=gate), gate).verdict == "fail"


# Guards


def test_required_clusters_reference():
    by_margin = {0.01: 368, 0.02: 183, 0.05: 100, 0.5: 100}
    for margin, needed in by_margin.items():
        assert required_clusters(ACCURACY.model_copy(update={"margin": margin})) == needed
    assert required_clusters(Gate(name="a", metric="accuracy", effort="low", margin=0.05, min_clusters=2)) == 72
    assert required_clusters(TOKENS) == 100
    assert required_clusters(FIDELITY) == 100


@pytest.mark.parametrize(("clusters", "verdict"), [(182, "invalid"), (183, "pass")])
def test_identical_outputs_on_too_few_problems_do_not_pass(clusters, verdict):
    samples = samples_of(np.tile([[1.0], [0.0]], (100, 2))[:clusters])
    assert judged(samples, samples.assign(arm="r8"), ACCURACY).verdict == verdict


def test_few_problems_cannot_be_judged_at_the_ceiling():
    few, enough = (comparison_of(0.0, 0.002, clusters=clusters, before=0.97) for clusters in (249, 250))
    assert judge(few, ACCURACY).verdict == "invalid"
    assert "at least 250" in judge(few, ACCURACY).reasons[0]
    assert judge(enough, ACCURACY).verdict == "pass"
    assert judge(comparison_of(0.0, 0.002, clusters=249, before=0.95), ACCURACY).verdict == "pass"


def test_a_better_arm_is_not_refused_where_a_worse_one_is_judged():
    assert judge(comparison_of(0.08, 0.005, clusters=200, before=0.90), ACCURACY).verdict == "pass"


def test_the_floor_of_a_rate_to_keep_low_is_a_ceiling_too():
    gate = Gate(name="finishes", metric="truncation", effort="high", margin=0.02)
    assert judge(comparison_of(0.0, 0.002, clusters=200, before=0.01, gate=gate), gate).verdict == "invalid"
    assert judge(comparison_of(0.0, 0.002, clusters=200, before=0.97, gate=gate), gate).verdict == "pass"


def test_gaining_what_was_absent_is_not_a_ceiling():
    assert judge(comparison_of(0.98, 0.005, clusters=120, before=0.0, gate=FIDELITY), FIDELITY).verdict == "pass"


@pytest.mark.parametrize("margin", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["non_inferiority", "superiority"])
def test_a_margin_of_a_whole_share_is_invalid(margin, kind):
    gate = ACCURACY.model_copy(update={"type": kind, "margin": margin})  # an experiment with it does not load
    result = judge(comparison_of(0.0, 0.001), gate)
    assert (result.verdict, result.reasons) == (
        "invalid",
        (f"a margin of {margin:g} decides nothing: accuracy lies between 0 and 1",),
    )


def test_a_margin_of_zero_is_refused_by_the_experiment():
    with pytest.raises(ValueError, match="margin > 0"):
        Gate(name="zero", metric="accuracy", effort="high", margin=0)


# Unscored answers


def with_unscored(comparison, worst, best, se=0.005):
    half = 1.97 * se
    return dataclasses.replace(
        comparison, worst=worst, worst_ci=(worst - half, worst + half), best=best, best_ci=(best - half, best + half)
    )


def test_a_pass_that_depends_on_unscored_items_is_inconclusive():
    comparison = with_unscored(comparison_of(0.0, 0.005), worst=-0.06, best=0.06)
    result = judge(comparison, ACCURACY)
    assert result.verdict == "inconclusive"
    assert result.reasons[0].startswith("the verdict depends on unscored items")
    assert "difference \u22126.00 points" in result.reasons[0]


def test_a_fail_is_not_softened_by_answers_that_never_ended():
    comparison = with_unscored(comparison_of(-0.06, 0.005), worst=-0.08, best=0.01)
    result = judge(comparison, ACCURACY)
    assert result.verdict == "fail"
    assert "truncated, malformed or missing" in result.reasons[1]


def test_a_few_truncated_answers_at_the_ceiling_do_not_block_a_pass():
    """The shipped model at high effort: everything right but for a handful of answers that ran into the token limit."""
    gate = ACCURACY.model_copy(update={"margin": 0.05})
    before, after = (np.ones((250, 5)) for _ in range(2))
    before[[3, 77], [0, 2]] = after[[3, 101, 102], [0, 1, 4]] = 0
    before, after = samples_of(before), samples_of(after, arm="r16")
    for frame in (before, after):
        frame.loc[frame["score"] == 0, "outcome"] = "truncated"
    result = judged(before, after, gate)
    assert result.verdict == "pass", result.reasons
    assert result.reasons[0].startswith("a loss of 5 points or more in accuracy is ruled out")


def test_truncating_everything_fails_at_the_ceiling():
    gate = ACCURACY.model_copy(update={"margin": 0.05})
    before, after = samples_of(np.ones((250, 5))), samples_of(np.zeros((250, 5)), arm="r16")
    result = judged(before, after.assign(outcome="truncated"), gate)
    assert (result.verdict, result.flags) == ("fail", ("regression_detected",))


# Ways to break the gate open


def test_swapped_arms_are_invalid():
    comparison = dataclasses.replace(comparison_of(0.05, 0.005), arm="base", against="r8")
    assert judge(comparison, ACCURACY).verdict == "invalid"
    assert judge(comparison, ACCURACY).reasons == ("the comparison is against r8, the gate asks for base",)


def test_base_against_itself_is_invalid():
    samples = samples_of(np.tile([[1.0], [0.0]], (125, 2)))
    result = judged(samples, samples, ACCURACY)
    assert (result.verdict, result.reasons) == ("invalid", ("base is compared with itself",))


def test_comparison_of_another_metric_or_effort_is_invalid():
    for change in ({"metric": "truncation"}, {"effort": "low"}):
        assert judge(dataclasses.replace(comparison_of(0.05, 0.005), **change), ACCURACY).verdict == "invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"ci": None},
        {"ci": (float("nan"), 0.1)},
        {"delta": float("nan")},
        {"se": None},
        {"before": None},
        {"ci": (-0.01, float("inf"))},
    ],
)
def test_a_comparison_without_numbers_is_invalid(change):
    assert judge(dataclasses.replace(comparison_of(0.05, 0.005), **change), ACCURACY).verdict == "invalid"


def test_reasons_of_an_invalid_comparison_are_kept():
    comparison = dataclasses.replace(comparison_of(0.05, 0.005), invalid_because=("the items differ",))
    result = judge(comparison, ACCURACY)
    assert (result.verdict, result.reasons, result.flags) == ("invalid", ("the items differ",), ())


def test_a_dropped_language_is_invalid():
    before, after = samples_of(np.ones((250, 3))), samples_of(np.ones((250, 3)), arm="r8")
    assert judged(before, after[after["language"] != "l2"], ACCURACY).verdict == "invalid"


def test_dropping_the_items_that_got_worse_is_invalid():
    rng = np.random.default_rng(2)
    before, after = (samples_of(rng.random((250, 3)) < 0.7, arm=arm) for arm in ("base", "r8"))
    lost = (before["score"] > after["score"]).to_numpy()
    assert judged(before, after[~lost], ACCURACY).verdict == "invalid"


def test_more_languages_do_not_make_up_for_missing_problems():
    samples = samples_of(np.tile([[1.0], [0.0]], (30, 11)))
    assert judged(samples, samples.assign(arm="r8"), ACCURACY).verdict == "invalid"


def test_missing_baseline_is_invalid():
    gate = ACCURACY.model_copy(update={"against": "baseline"})
    result = missing(gate, "r8", "no baseline for cpu", suite="stories", split="gate")
    assert (result.verdict, result.reasons, result.against) == ("invalid", ("no baseline for cpu",), "baseline")
    assert (result.delta, result.ci, result.clusters) == (None, None, 0)
    assert run_verdict([result]).exit_code == 4


def test_a_gate_of_nothing_is_invalid():
    assert (run_verdict([]).verdict, run_verdict([]).exit_code) == ("invalid", 4)


def test_the_worst_gate_wins():
    verdicts = {
        "pass": judge(comparison_of(0.0, 0.005), ACCURACY),
        "inconclusive": judge(comparison_of(0.0, 0.05), ACCURACY),
        "fail": judge(comparison_of(-0.2, 0.005), ACCURACY),
        "invalid": missing(ACCURACY, None, "base failed"),
    }
    assert {name: verdict.verdict for name, verdict in verdicts.items()} == {name: name for name in verdicts}
    names, codes = list(verdicts), {"pass": 0, "inconclusive": 3, "fail": 1, "invalid": 4}
    for worst, name in enumerate(names):
        for gates in (names[: worst + 1], names[worst::-1]):
            result = run_verdict(verdicts[gate] for gate in gates)
            assert (result.verdict, result.exit_code, len(result.gates)) == (name, codes[name], worst + 1)


@pytest.mark.parametrize(("arm", "against"), [("r8", "base"), ("base", "baseline")])
def test_a_gate_against_the_baseline_takes_no_other_comparison(arm, against):
    gate = ACCURACY.model_copy(update={"against": "baseline"})
    comparison = dataclasses.replace(comparison_of(0.05, 0.005), arm=arm, against=against)
    assert judge(comparison, gate).verdict == "invalid"
    assert judge(dataclasses.replace(comparison, arm="r8", against="baseline"), gate).verdict == "pass"


# Relative margins


RELATIVE = ACCURACY.model_copy(update={"relative": True, "margin": 0.01})


@pytest.mark.parametrize(
    ("metric", "kind", "share"),
    [
        ("accuracy", "non_inferiority", 0.99),
        ("accuracy", "superiority", 1.01),
        ("output_tokens", "non_inferiority", 1.01),
        ("output_tokens", "superiority", 0.99),
    ],
)
def test_a_relative_margin_keeps_a_share_of_the_reference(metric, kind, share):
    assert kept(RELATIVE.model_copy(update={"metric": metric, "type": kind})) == pytest.approx(share)


@given(seed=st.integers(0, 10_000), share=st.floats(0.8, 1.2))
@settings(max_examples=40, deadline=None)
def test_the_relative_interval_is_the_t_interval_of_after_minus_share_of_before(seed, share):
    """Before is measured, not a constant: its errors, and that they go with after's, are in the interval."""
    before, after = np.random.default_rng(seed).beta(4, 2, (2, 60, 3))
    comparison = compare(samples_of(before), samples_of(after, arm="r8"), suite="stories", split="gate", effort="high", metric="accuracy")
    expected = stats.mean_interval(after.mean(axis=1) - share * before.mean(axis=1))
    found = relative_difference(comparison, share)
    assert (found.mean, found.se, *found.interval) == pytest.approx((expected.mean, expected.se, *expected.interval), abs=1e-9)


def test_a_relative_margin_passes_and_fails_by_its_own_interval():
    rng = np.random.default_rng(7)
    before = (rng.random((400, 5)) < 0.9).astype(float)
    worse = before * (rng.random((400, 5)) < 0.9)
    same = judged(samples_of(before), samples_of(before, arm="r8"), RELATIVE.model_copy(update={"margin": 0.02}))
    assert (same.verdict, same.type, same.margin) == ("pass", "non_inferiority", 0.02)
    assert same.reasons[0].startswith("a loss of 2 % of base's level or more in accuracy is ruled out")
    assert judged(samples_of(before), samples_of(worse, arm="r8"), RELATIVE).verdict == "fail"
    lenient = RELATIVE.model_copy(update={"margin": 0.2})
    assert judged(samples_of(before), samples_of(worse, arm="r8"), lenient).verdict == "pass"


def test_equal_problems_have_width_under_a_relative_margin_too():
    ones = samples_of(np.ones((200, 2)))
    assert judged(ones, ones.assign(arm="r8"), RELATIVE.model_copy(update={"min_clusters": 100})).verdict == "invalid"  # the ceiling
    many = samples_of(np.ones((250, 2)))
    assert judged(many, many.assign(arm="r8"), RELATIVE).verdict == "inconclusive"
    fidelity = RELATIVE.model_copy(update={"metric": "reasoning_language_fidelity"})  # has no unscored answers that would stop it too
    assert judged(many, many.assign(arm="r8"), fidelity).reasons[0].startswith("cannot rule out")
    assert stats.unseen_share(250) > 0.01


# Few changes


def few_changed(right_before, lost, gained=0, clusters=250, languages=1):
    """Samples of base and r8: the first problems are right before, the first of these are lost and the last of the others gained."""
    before = np.zeros((clusters, languages))
    before[:right_before] = 1
    after = before.copy()
    after[:lost] = 0
    after[clusters - gained :] = 1
    return samples_of(before), samples_of(after, arm="r8")


def test_near_the_ceiling_the_score_interval_must_pass_too():
    """Tango's interval at 248 of 250 before, three lost: the t interval ends at -2.6 points, the score interval at -3.5."""
    pair, gate = few_changed(248, lost=3), ACCURACY.model_copy(update={"margin": 0.03})
    result = judged(*pair, gate)
    assert result.ci[0] > -0.03 > stats.tango_paired(245, 0, 3, 2).low
    assert result.evidence["score_ci"] == pytest.approx(stats.tango_paired(245, 0, 3, 2))
    assert result.verdict == "inconclusive"
    assert "the score interval of 3 lost and 0 gained is \u22123.47 to " in result.reasons[0]
    assert judged(*pair, gate.model_copy(update={"margin": 0.04})).verdict == "pass"


@pytest.mark.parametrize("languages", [1, 5])
def test_a_few_problems_lost_do_not_pass_far_from_the_ceiling_either(languages):
    """Two lost of 250 and none gained: the t interval ends at -1.91 points, and a true loss of 2 points often looks like this."""
    result = judged(*few_changed(212, lost=2, languages=languages), ACCURACY)
    assert result.ci[0] == pytest.approx(-0.0191, abs=5e-5)
    assert (result.verdict, result.flags) == ("inconclusive", ())
    assert result.reasons[0].startswith("cannot rule out a loss of 2 points in accuracy where so few problems change: the score interval")


def test_a_few_problems_that_lose_half_their_languages_do_not_pass_either():
    before = np.ones((250, 4))
    before[200:] = 0
    after = before.copy()
    after[:4, :2] = 0
    result = judged(samples_of(before), samples_of(after, arm="r8"), ACCURACY.model_copy(update={"margin": 0.017}))
    assert result.ci[0] > -0.017 > result.evidence["score_ci"][0] == pytest.approx(stats.tango_paired(246, 0, 4, 0).low / 2)
    assert result.verdict == "inconclusive"


def test_many_problems_that_change_pass_by_both_intervals():
    result = judged(*few_changed(800, lost=12, gained=12, clusters=1000), ACCURACY)
    assert result.verdict == "pass"
    assert result.evidence["score_ci"] == pytest.approx(result.ci, abs=8e-4)


def test_no_change_at_all_is_judged_by_what_could_have_been_missed():
    result = judged(*few_changed(150, lost=0, clusters=183), ACCURACY)
    assert (result.verdict, "score_ci" in result.evidence) == ("pass", False)


def test_a_fail_and_a_superiority_gate_need_no_score_interval():
    assert judged(*few_changed(212, lost=40), ACCURACY).verdict == "fail"
    result = judged(*few_changed(200, lost=0, gained=6), SUPERIORITY)
    assert (result.verdict, "score_ci" in result.evidence) == ("pass", False)


def test_the_score_interval_of_a_rate_to_keep_low_is_that_of_its_rise():
    before, after = few_changed(250, lost=2)
    gate = Gate(name="finishes", metric="truncation", effort="high", margin=0.02)
    before, after = before.assign(outcome="wrong"), after.assign(outcome=np.where(after["score"] == 0, "truncated", "wrong"))
    result = judged(before, after, gate)
    assert result.verdict == "inconclusive"
    assert stats.tango_paired(248, 0, 2, 0) == pytest.approx((-0.0287, 0.0073), abs=5e-5)
    assert "cannot rule out a rise of 2 points in truncation" in result.reasons[0]
    assert "the score interval is \u22120.73 to +2.87, wider than difference +0.80 points" in result.reasons[0]


def test_a_relative_margin_is_held_against_the_score_interval_too():
    gate = ACCURACY.model_copy(update={"relative": True, "margin": 0.025})
    few = judged(*few_changed(212, lost=2), gate)
    assert relative_difference(compare(*few_changed(212, lost=2), **HIGH), 0.975).interval.low > 0
    assert (few.verdict, "where so few problems change" in few.reasons[0]) == ("inconclusive", True)
    assert judged(*few_changed(212, lost=2), gate.model_copy(update={"margin": 0.04})).verdict == "pass"


def test_a_relative_gain_that_depends_on_unscored_items_is_inconclusive():
    """The bound is moved down by the gain that is asked, not up by it: at worst a gain of 5 points, where 16 are asked."""
    gate = SUPERIORITY.model_copy(update={"relative": True, "margin": 0.2})
    comparison = comparison_of(0.19, 0.005, before=0.8, before_se=0.01, after_se=0.01)
    assert judge(comparison, gate).verdict == "pass"
    assert judge(with_unscored(comparison, worst=0.05, best=0.2), gate).verdict == "inconclusive"


def test_the_problems_that_the_score_interval_lacks_are_named():
    """As many as would pass if others changed likewise."""
    result = judged(*few_changed(212, lost=2), ACCURACY)
    assert result.reasons[0].endswith("; needs about 280 more problems")
    too_few, enough = (stats.tango_paired(0.992 * clusters, 0, 0.008 * clusters, 0).low for clusters in (500, 530))
    assert too_few < -0.02 < enough
    assert judged(*few_changed(450, lost=4, clusters=530), ACCURACY).verdict == "pass"


# Planned power


@pytest.mark.parametrize(("allowed", "verdict"), [(False, "invalid"), (True, "pass")])
def test_an_underpowered_design_is_invalid_unless_it_is_allowed(allowed, verdict):
    gate = ACCURACY.model_copy(update={"planned_sd": 0.2, "allow_underpowered": allowed})
    result = judge(comparison_of(0.01, 0.005), gate)
    assert result.verdict == verdict
    assert ("underpowered design" in result.reasons[0]) == (not allowed)
    assert result.evidence["planned_power"] == pytest.approx(stats.non_inferiority_power(0.2 / 250**0.5, 0.02))
    assert judge(comparison_of(0.01, 0.005), gate.model_copy(update={"planned_sd": 0.1})).verdict == "pass"


def test_power_is_told_beside_the_verdict():
    result = judge(comparison_of(0.0, 0.01), ACCURACY)
    assert "an unchanged arm passes in 52 % of runs; 80 % would pass a margin of 2.8 points" in result.reasons[1]
    assert result.evidence["power"] == pytest.approx(0.516, abs=0.001)


def test_more_samples_are_named_where_repeats_can_tell():
    comparison = dataclasses.replace(comparison_of(0.0, 0.0105), within=0.016, between=0.009, samples_per_item=1)
    assert samples_needed(comparison, ACCURACY) == 5
    assert "needs about 300 more problems, or 5 samples an item in place of 1" in judge(comparison, ACCURACY).reasons[0]
    assert samples_needed(dataclasses.replace(comparison, between=0.02), ACCURACY) is None


# A fixed order


def chain(*verdicts, required=(True, True, True)):
    """Gates a, b after a, c after b, with these verdicts of their own."""
    gates = [ACCURACY.model_copy(update={"name": name, "after": first}) for name, first in (("a", None), ("b", "a"), ("c", "b"))]
    gates = [gate.model_copy(update={"required": needed}) for gate, needed in zip(gates, required, strict=True)]
    numbers = {"pass": (0.0, 0.005), "fail": (-0.2, 0.005), "inconclusive": (0.0, 0.05)}
    made = [
        missing(gate, "r8", "no samples") if verdict == "invalid" else judge(comparison_of(*numbers[verdict]), gate)
        for gate, verdict in zip(gates, verdicts, strict=True)
    ]
    return in_order(made, gates)


@pytest.mark.parametrize(
    ("alone", "in_turn", "tested"),
    [
        (("pass", "pass", "pass"), ("pass", "pass", "pass"), (True, True, True)),
        (("inconclusive", "pass", "pass"), ("inconclusive", "inconclusive", "inconclusive"), (True, False, False)),
        (("fail", "pass", "fail"), ("fail", "inconclusive", "inconclusive"), (True, False, False)),
        (("pass", "fail", "pass"), ("pass", "fail", "inconclusive"), (True, True, False)),
        (("fail", "invalid", "pass"), ("fail", "invalid", "inconclusive"), (True, True, False)),
    ],
)
def test_a_gate_after_one_that_did_not_pass_claims_nothing(alone, in_turn, tested):
    found = chain(*alone)
    assert tuple(gate.verdict for gate in found) == in_turn
    assert tuple("not_tested" not in gate.flags for gate in found) == tested
    if not tested[2]:
        assert found[2].reasons[0].startswith("not tested: gate b did not pass before it (difference ")


def test_a_required_gate_that_was_not_tested_blocks_though_the_one_before_is_not_required():
    found = run_verdict(chain("pass", "inconclusive", "pass", required=(True, False, True)))
    assert (found.verdict, found.exit_code) == ("inconclusive", 3)


def test_a_gate_that_is_not_required_decides_nothing():
    assert run_verdict(chain("pass", "pass", "fail", required=(True, True, False))).exit_code == 0
    assert run_verdict(chain("pass", "pass", "pass", required=(False, False, False))).verdict == "invalid"


# Waivers


def four_gates():
    gates = {name: ACCURACY.model_copy(update={"name": name}) for name in ("good", "unsure", "bad", "none")}
    return run_verdict(
        [
            judge(comparison_of(0.0, 0.005), gates["good"]),
            judge(comparison_of(0.0, 0.05), gates["unsure"]),
            judge(comparison_of(-0.2, 0.005), gates["bad"]),
            missing(gates["none"], None, "base failed"),
        ]
    )


@pytest.mark.parametrize(
    ("names", "exit_code"),
    [([], 4), (["good"], 4), (["bad"], 4), (["none"], 1), (["none", "bad"], 3), (["none", "bad", "unsure"], 0)],
)
def test_a_waiver_changes_the_exit_code_and_never_the_verdict(names, exit_code):
    before = four_gates()
    after = waive(before, names, " agreed with the owner " if names else None)
    assert (after.verdict, after.exit_code) == ("invalid", exit_code)
    assert [gate.verdict for gate in after.gates] == [gate.verdict for gate in before.gates]
    assert {gate.name: gate.waived for gate in after.gates if gate.waived} == dict.fromkeys(names, "agreed with the owner")
    assert [dataclasses.replace(gate, waived=None) for gate in after.gates] == list(before.gates)


@pytest.mark.parametrize(
    ("names", "reason", "expected"),
    [
        (["bda"], "so", "--waive bda: no such gate; the experiment has good, unsure, bad, none"),
        (["bad"], None, "--waive bad needs a reason"),
        (["bad"], "  ", "--waive bad needs a reason"),
        ([], "so", "name the gate with --waive"),
    ],
)
def test_a_waiver_names_a_gate_and_a_reason(names, reason, expected):
    with pytest.raises(UsageError, match=expected):
        waive(four_gates(), names, reason)


def test_no_gate_at_all_cannot_be_waived():
    assert waive(run_verdict([]), [], None).exit_code == 4
    with pytest.raises(UsageError, match="no such gate; the experiment has none"):
        waive(run_verdict([]), ["accuracy"], "so")


def test_a_verdict_is_plain_json():
    before, after = samples_of(np.tile([[1.0], [0.0]], (125, 2))), samples_of(np.ones((250, 2)), arm="r8")
    data = json.loads(run_verdict([judged(before, after, ACCURACY)]).to_json())
    assert data["gates"][0]["verdict"] == "pass"
    assert data["gates"][0]["ci"][0] > 0


# Words


def test_wording_of_a_pass():
    result = judge(comparison_of(-0.003, 0.005), ACCURACY)
    assert result.reasons == (
        "a loss of 2 points or more in accuracy is ruled out at 97.5 % one-sided confidence "
        "(difference \u22120.30 points, 95 % CI \u22121.28 to +0.68, 250 problems)",
        "with this spread an unchanged arm passes in 98 % of runs; 80 % would pass a margin of 1.4 points",
    )


def test_a_pass_with_a_real_loss_says_so():
    assert judge(comparison_of(-0.010, 0.004), ACCURACY).reasons[1] == "the loss is statistically real, but within the margin"


def test_a_gate_that_fails_on_any_regression_does_so_within_the_margin_too():
    strict = ACCURACY.model_copy(update={"fail_on": "any_regression"})
    assert judge(comparison_of(-0.010, 0.004), ACCURACY).verdict == "pass"
    result = judge(comparison_of(-0.010, 0.004), strict)
    assert result.verdict == "fail"
    assert "and this gate fails on any (difference \u22121.00 points" in result.reasons[0]
    assert judge(comparison_of(-0.010, 0.0075), strict).verdict == "inconclusive"
    assert judge(comparison_of(0.0, 0.004), strict).verdict == "pass"
    with pytest.raises(ValueError, match="fail_on belongs to non_inferiority"):
        Gate(name="a", metric="accuracy", effort="high", type="superiority", margin=0, fail_on="any_regression")


def test_inconclusive_says_how_many_problems_are_missing():
    result = judge(comparison_of(0.0, 0.011), ACCURACY)
    needed = stats.non_inferiority_sample_size(0.011**2 * 250, 0.02)
    assert f"{needed - 250}" == "344"
    assert result.reasons[0] == (
        "cannot rule out a loss of 2 points in accuracy (difference 0.00 points, 95 % CI \u22122.17 to +2.17, 250 problems); "
        "needs about 350 more problems"
    )


def test_the_number_of_missing_problems_ignores_the_observed_difference():
    assert more_problems_needed(comparison_of(0.001, 0.011), ACCURACY) == 350
    assert more_problems_needed(comparison_of(-0.015, 0.011), ACCURACY) == 350


def test_an_estimate_at_the_margin_promises_no_number():
    assert more_problems_needed(comparison_of(-0.0199, 0.006), ACCURACY) is None
    assert "unlikely" in judge(comparison_of(-0.0199, 0.006), ACCURACY).reasons[0]
    assert 0 < more_problems_needed(comparison_of(-0.015, 0.006), ACCURACY) < 10_000


def test_superiority_asks_for_the_problems_its_observed_gain_needs():
    comparison = comparison_of(0.015, 0.009)
    more = more_problems_needed(comparison, SUPERIORITY)
    larger = comparison_of(0.015, 0.009 * (250 / (250 + more)) ** 0.5, clusters=250 + more)
    assert stats.non_inferiority_power(larger.se, 0.015) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("gate", "delta", "se", "before", "start"),
    [
        (ACCURACY, -0.06, 0.005, 0.8, "a loss of more than 2 points in accuracy is shown at 97.5 % one-sided confidence (diff"),
        (TOKENS, 1.0, 2.0, 60, "a rise of 10 tokens or more in output_tokens is ruled out at 97.5 % one-sided confidence (diff"),
        (TOKENS, 30.0, 2.0, 60, "a rise of more than 10 tokens in output_tokens is shown at 97.5 %"),
        (FIDELITY, 0.8, 0.02, 0.2, "a gain of more than 50 points in reasoning_language_fidelity is shown at 97.5 %"),
        (FIDELITY, 0.3, 0.02, 0.2, "a gain of more than 50 points in reasoning_language_fidelity is ruled out at 97.5 %"),
        (SUPERIORITY, 0.03, 0.009, 0.8, "a gain in accuracy is shown at 97.5 %"),
        (SUPERIORITY, -0.03, 0.009, 0.8, "a gain in accuracy is ruled out at 97.5 %"),
        (SUPERIORITY, 0.01, 0.009, 0.8, "cannot show a gain in accuracy (difference +1.00 points"),
        (ACCURACY.model_copy(update={"margin": 0.01}), 0.0, 0.004, 0.8, "368"),
    ],
)
def test_wording(gate, delta, se, before, start):
    result = judge(comparison_of(delta, se, before=before, gate=gate), gate)
    assert result.reasons[0].startswith(start) or (start == "368" and "at least 368" in result.reasons[0])
    assert not any("no regression" in reason for reason in result.reasons)


def test_one_point_is_singular_and_seconds_have_four_decimals():
    one = judge(comparison_of(0.0, 0.004, clusters=400), ACCURACY.model_copy(update={"margin": 0.01}))
    assert "a loss of 1 point or more" in one.reasons[0]
    gate = Gate(name="fast", metric="ttft_s", effort="high", margin=0.05)
    assert "a rise of 0.05 s or more in ttft_s is ruled out" in judge(comparison_of(0, 0.01, before=0.3, gate=gate), gate).reasons[0]


def test_left_out_samples_are_named():
    comparison = dataclasses.replace(comparison_of(0.0, 0.005), excluded=3)
    assert judge(comparison, ACCURACY).reasons[1].startswith("3 pairs of samples have no value")


# Selection

ARMS = ("base", "r8-s40", "r8-s200", "r16-s40")
SELECT = Select(
    suite="stories",
    split="gate",
    effort="high",
    metric="reasoning_language_fidelity",
    subject_to={"accuracy_drop": 0.05},
)


def sweep(**arms):
    """Samples of base and of arms given as (share right, share in the asked language) of 100 problems."""
    frames = []
    for arm, (right, followed) in {"base": (0.8, 0.2), **{name.replace("_", "-"): value for name, value in arms.items()}}.items():
        frame = samples_of((np.arange(100) < round(100 * right))[:, None], arm=arm)
        frames.append(frame.assign(reasoning_language=np.where(np.arange(100) < round(100 * followed), "en", "de")))
    return pd.concat(frames, ignore_index=True)


def chosen(samples, select=SELECT, failed=None):
    return select_arm(samples, select, ARMS, failed or {})


def test_the_best_arm_within_the_allowed_accuracy_drop_is_chosen():
    selection = chosen(sweep(r8_s40=(0.8, 0.4), r8_s200=(0.78, 0.9), r16_s40=(0.7, 1.0)))
    assert selection.chosen == "r8-s200"
    assert [candidate.arm for candidate in selection.candidates] == list(ARMS[1:])
    assert [candidate.eligible for candidate in selection.candidates] == [True, True, False]
    last = selection.candidates[-1]
    assert (last.value, last.accuracy, last.accuracy_drop) == pytest.approx((1.0, 0.7, 0.1))
    assert last.reason == "accuracy is 10.00 points below base; at most 5 are allowed"


def test_a_drop_of_exactly_what_is_allowed_is_eligible():
    assert chosen(sweep(r8_s40=(0.8, 0.4), r8_s200=(0.75, 0.9), r16_s40=(0.74, 1.0))).chosen == "r8-s200"


def test_a_tie_goes_to_the_cheaper_arm():
    assert chosen(sweep(r8_s40=(0.8, 0.3), r8_s200=(0.8, 0.9), r16_s40=(0.8, 0.9))).chosen == "r8-s200"


def test_base_is_never_a_candidate():
    selection = chosen(sweep(r8_s40=(0.8, 0.1), r8_s200=(0.8, 0.15), r16_s40=(0.8, 0.0)))
    assert selection.chosen == "r8-s200"
    assert "base" not in {candidate.arm for candidate in selection.candidates}


def test_no_eligible_arm_means_no_choice():
    assert chosen(sweep(r8_s40=(0.1, 1), r8_s200=(0.1, 1), r16_s40=(0.1, 1))).chosen is None


def test_a_failed_arm_is_listed_and_not_chosen():
    selection = chosen(sweep(r8_s40=(0.8, 0.4), r8_s200=(0.8, 0.5), r16_s40=(0.8, 1)), failed={"r16-s40": "out of memory"})
    assert selection.chosen == "r8-s200"
    assert selection.candidates[2].reason == "out of memory"
    assert (selection.candidates[2].value, selection.candidates[2].accuracy) == (None, None)


def test_a_failed_base_leaves_nothing_to_choose():
    selection = chosen(sweep(r8_s40=(0.8, 0.4), r8_s200=(0.8, 0.5), r16_s40=(0.8, 1)), failed={"base": "out of memory"})
    assert selection.chosen is None
    assert {candidate.reason for candidate in selection.candidates} == {"base failed: out of memory"}


def test_an_arm_with_unfinished_answers_is_not_eligible():
    samples = sweep(r8_s40=(0.8, 0.4), r8_s200=(0.8, 0.5), r16_s40=(0.8, 1))
    selection = chosen(samples.drop(samples.index[-1]))
    assert selection.chosen == "r8-s200"
    assert "the items differ" in selection.candidates[2].reason
    assert not chosen(samples[samples["arm"] != "r8-s40"]).candidates[0].eligible


def test_selection_sees_its_own_split_and_effort_only():
    samples = sweep(r8_s40=(0.8, 0.4), r8_s200=(0.8, 0.9), r16_s40=(0.8, 0.5))
    elsewhere = sweep(r8_s40=(0.8, 1.0), r8_s200=(0.1, 0.0), r16_s40=(0.8, 1.0)).assign(split="other")
    assert chosen(pd.concat([samples, elsewhere])) == chosen(samples)
    assert chosen(elsewhere).chosen is None


def test_fewer_tokens_are_chosen_where_tokens_are_the_metric():
    samples = sweep(r8_s40=(0.8, 0.4), r8_s200=(0.8, 0.5), r16_s40=(0.8, 1))
    samples["output_tokens"] = samples["arm"].map({"base": 50, "r8-s40": 60, "r8-s200": 40, "r16-s40": 45})
    assert chosen(samples, SELECT.model_copy(update={"metric": "output_tokens"})).chosen == "r8-s200"
