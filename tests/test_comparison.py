"""Pairing is strict, the problem is the unit, and no interval claims certainty."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated import fabricate_run
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats import weightstats

from bench import stats
from bench.comparison import (
    TRAITS,
    cell_table,
    compare,
    compare_runs,
    effort_table,
    metric_values,
    more_is_better,
    paired_estimate,
)
from bench.experiment import METRICS, SHARES
from bench.records import OUTCOMES, Sample

WHERE = {"suite": "stories", "split": "gate", "effort": "high"}
SAMPLE = Sample(
    arm="base",
    suite="stories",
    split="gate",
    language="en",
    effort="high",
    item_id="0",
    sample_index=0,
    seed=None,
    outcome="correct",
    score=1.0,
    answer="7",
    target="7",
    prompt_tokens=40,
    reasoning_tokens=50,
    final_tokens=4,
    output_tokens=60,
    stop_reason="stop",
    latency_s=0.5,
    ttft_s=0.1,
    asked_reasoning_language="en",
    reasoning_language="en",
    prompt_hash="h",
    completion="",
    error=None,
)


def samples_of(scores, arm="base", languages=None, **columns):
    """Samples of one arm from an array of scores, shape (items, languages) or (items, languages, samples); NaN is an error."""
    scores = np.asarray(scores, dtype=float)
    scores = scores[..., None] if scores.ndim == 2 else scores
    names = np.array(languages or [f"l{number}" for number in range(scores.shape[1])])
    item, language, index = (axis.ravel() for axis in np.indices(scores.shape))
    values = scores.ravel()
    frame = pd.DataFrame([SAMPLE]).drop(columns=["arm", "item_id", "language", "sample_index", "score", "outcome", "prompt_hash"])
    frame = frame.loc[frame.index.repeat(len(values))].reset_index(drop=True)
    frame["arm"], frame["item_id"], frame["language"] = arm, [f"i{number:04d}" for number in item], names[language]
    frame["sample_index"], frame["score"] = index, values
    frame["outcome"] = np.where(np.isnan(values), "error", np.where(values == 1, "correct", "wrong"))
    frame["prompt_hash"] = [f"h{number}-{tongue}" for number, tongue in zip(item, language, strict=True)]
    for name, value in columns.items():
        frame[name] = value
    return frame[list(Sample.__dataclass_fields__)]


def two_arms(n_items=40, n_languages=3, n_samples=1, seed=0):
    rng = np.random.default_rng(seed)
    before, after = (rng.random((2, n_items, n_languages, n_samples)) < 0.7).astype(float)
    return samples_of(before), samples_of(after, arm="r8")


def accuracy(before, after):
    return compare(before, after, **WHERE, metric="accuracy")


def reason(before, after, metric="accuracy"):
    comparison = compare(before, after, **WHERE, metric=metric)
    numbers = (comparison.before, comparison.after, comparison.delta, comparison.ci, comparison.se, comparison.worst)
    assert numbers == (None,) * 6, "an invalid comparison has no numbers"
    assert comparison.clusters == 0
    assert len(comparison.invalid_because) == 1
    return comparison.invalid_because[0]


# Values of metrics


def test_every_metric_of_the_experiment_has_a_direction():
    assert set(TRAITS) == set(METRICS)
    assert {name for name, trait in TRAITS.items() if trait.is_share} == set(SHARES)
    assert [name for name in METRICS if more_is_better(name)] == ["accuracy", "reasoning_language_fidelity"]


def test_unknown_metric_is_an_error_not_a_zero():
    before, after = two_arms()
    for call in (
        lambda: metric_values(before, "bleu"),
        lambda: compare(before, after, **WHERE, metric="bleu"),
        lambda: cell_table(before, "bleu"),
        lambda: more_is_better("bleu"),
    ):
        with pytest.raises(ValueError, match="unknown metric 'bleu'"):
            call()


@pytest.mark.parametrize("dtype", ["object", "str", "string", "category"])
def test_fidelity_is_to_the_asked_language_else_to_the_questions(dtype):
    frame = samples_of(np.ones((6, 1)))
    frame["language"] = pd.Series(["en", "en", "en", "fr", "fr", "fr"], dtype=dtype)
    frame["asked_reasoning_language"] = pd.Series(["de", "de", "de", None, None, None], dtype=dtype)
    frame["reasoning_language"] = pd.Series(["de", "en", None, "fr", "en", None], dtype=dtype)
    values = metric_values(frame, "reasoning_language_fidelity")
    assert values.tolist()[:5] == [1, 0, 0, 1, 0]
    assert np.isnan(values.iloc[5]), "not asked for and too short to tell: unknown, not broken"


def test_fidelity_is_unknown_where_nothing_was_asked_and_nothing_can_be_told():
    frame = samples_of(np.ones((3, 1)), asked_reasoning_language=np.nan, reasoning_language=None)
    assert metric_values(frame, "reasoning_language_fidelity").isna().all()


def test_truncation_is_the_outcome_and_costs_are_the_columns():
    frame = samples_of(np.ones((3, 1)), output_tokens=[10, 20, None], latency_s=[0.1, 0.2, 0.3])
    frame.loc[1, "outcome"] = "truncated"
    assert metric_values(frame, "truncation").tolist() == [0, 1, 0]
    assert metric_values(frame, "output_tokens").tolist()[:2] == [10, 20]
    assert math.isnan(metric_values(frame, "output_tokens").iloc[2])
    assert metric_values(frame, "latency_s").tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("metric", METRICS)
def test_an_infrastructure_error_has_no_value_in_any_metric(metric):
    frame = samples_of([[1.0], [np.nan]])
    assert metric_values(frame, metric).isna().tolist() == [False, True]


def test_values_keep_the_index():
    frame = samples_of(np.ones((4, 1))).iloc[[2, 0]]
    assert metric_values(frame, "accuracy").index.tolist() == [2, 0]


# Comparing


def test_comparison_is_the_paired_t_test_on_problem_means():
    before, after = two_arms()
    comparison = accuracy(before, after)
    differences = after.groupby("item_id")["score"].mean().to_numpy() - before.groupby("item_id")["score"].mean().to_numpy()
    assert comparison.ci == pytest.approx(weightstats.DescrStatsW(differences).tconfint_mean())
    assert comparison.delta == pytest.approx(comparison.after - comparison.before) == pytest.approx(differences.mean())
    assert (comparison.arm, comparison.against, comparison.metric) == ("r8", "base", "accuracy")
    assert (comparison.clusters, comparison.rows, comparison.samples_per_item) == (40, 120, 1)
    assert comparison.languages == ("l0", "l1", "l2")
    assert comparison.invalid_because == ()


def test_standard_error_is_clustered_by_problem():
    before, after = two_arms(n_samples=2)
    rows = after["score"].to_numpy() - before["score"].to_numpy()
    comparison = accuracy(before, after)
    assert comparison.se == pytest.approx(stats.clustered_se(rows, before["item_id"]))
    assert comparison.before_ci == pytest.approx(stats.mean_interval(before.groupby("item_id")["score"].mean()).interval)
    assert (comparison.rows, comparison.samples_per_item) == (120, 2)


def test_repeating_every_row_in_another_language_adds_no_certainty():
    rng = np.random.default_rng(1)
    before, after = (rng.random((2, 60, 1)) < 0.6).astype(float)
    once = accuracy(samples_of(before), samples_of(after, arm="r8"))
    eleven = accuracy(samples_of(np.repeat(before, 11, axis=1)), samples_of(np.repeat(after, 11, axis=1), arm="r8"))
    assert eleven.rows == 11 * once.rows
    assert eleven.ci == pytest.approx(once.ci)


def test_the_order_of_rows_does_not_matter():
    before, after = two_arms(n_samples=2)
    shuffled = accuracy(before.sample(frac=1, random_state=1), after.sample(frac=1, random_state=2))
    assert shuffled == accuracy(before, after)


def test_swapping_the_arms_swaps_the_sign():
    before, after = two_arms()
    forth, back = accuracy(before, after), accuracy(after, before)
    assert back.delta == pytest.approx(-forth.delta)
    assert back.ci == pytest.approx((-forth.ci[1], -forth.ci[0]))
    assert (back.gained, back.lost) == (forth.lost, forth.gained)
    assert (back.worst, back.best) == pytest.approx((-forth.best, -forth.worst))


def test_other_suites_splits_and_efforts_do_not_leak_in():
    before, after = two_arms()
    noise = [after.assign(score=0.0, outcome="wrong", **{column: "other"}) for column in ("suite", "split", "effort")]
    assert accuracy(before, pd.concat([after, *noise])) == accuracy(before, after)


def test_gained_and_lost_are_counted_for_single_answers_only():
    before = samples_of([[1, 1], [0, 0], [0, 1]])
    after = samples_of([[1, 0], [1, 1], [0, 1]], arm="r8")
    comparison = accuracy(before, after)
    assert (comparison.gained, comparison.lost) == (2, 1)
    repeated = accuracy(*two_arms(n_samples=2))
    assert (repeated.gained, repeated.lost) == (None, None)
    partial = accuracy(samples_of([[0.5], [1]]), samples_of([[1], [0]], arm="r8"))
    assert (partial.gained, partial.lost) == (None, None)


def test_bounds_reference():
    before = samples_of(np.repeat([1, 0], [210, 40])[:, None])
    after = samples_of(np.repeat([1, 0], [205, 45])[:, None], arm="r8")
    before.loc[before.index[-5:], "outcome"] = "truncated"
    after.loc[after.index[-12:], "outcome"] = ["truncated"] * 6 + ["malformed"] * 3 + ["no_answer"] * 3
    comparison = accuracy(before, after)
    assert (comparison.worst, comparison.delta, comparison.best) == pytest.approx((-0.040, -0.020, 0.028))
    assert comparison.worst_ci[0] < comparison.worst < comparison.worst_ci[1]


def test_bounds_are_the_difference_where_everything_was_scored():
    comparison = accuracy(*two_arms())
    assert comparison.worst == comparison.best == comparison.delta
    assert comparison.worst_ci == comparison.best_ci == comparison.ci


def test_other_metrics_have_no_bounds():
    comparison = compare(*two_arms(), **WHERE, metric="output_tokens")
    assert (comparison.worst, comparison.best, comparison.gained) == (None, None, None)


def test_costs_are_compared_in_their_own_unit():
    before, after = two_arms()
    comparison = compare(before.assign(output_tokens=50), after.assign(output_tokens=80), **WHERE, metric="output_tokens")
    assert (comparison.before, comparison.after, comparison.delta, comparison.ci) == (50, 80, 30, (30, 30))


def test_identical_answers_still_leave_an_interval():
    before, _ = two_arms(n_items=250)
    comparison = accuracy(before, before.assign(arm="r8"))
    assert (comparison.delta, comparison.se) == (0, 0)
    assert comparison.ci == pytest.approx((-stats.unseen_share(250), stats.unseen_share(250)))
    # Tango's and Newcombe's intervals for one language without discordant pairs are about as wide
    assert comparison.ci[1] == pytest.approx(stats.tango_paired(240, 0, 0, 10).high, rel=0.05)


def test_perfect_accuracy_is_not_certain():
    comparison = accuracy(samples_of(np.ones((100, 5))), samples_of(np.zeros((100, 5)), arm="r8"))
    assert comparison.before_ci == pytest.approx(stats.wilson(100, 100))
    assert comparison.after_ci == pytest.approx(stats.wilson(0, 100))
    assert comparison.ci == pytest.approx((-1, -1 + stats.unseen_share(100)))


@given(
    before=st.lists(st.floats(0, 1), min_size=2, max_size=30),
    after=st.lists(st.floats(0, 1), min_size=30, max_size=30),
)
@settings(max_examples=100, deadline=None)
def test_intervals_hold_their_estimate_and_stay_in_range(before, after):
    before, after = np.array(before), np.array(after[: len(before)])
    estimate = paired_estimate(before, after, is_share=True)
    for side in (estimate.before, estimate.after):
        assert 0 <= side.interval.low <= side.mean + 1e-12
        assert side.mean - 1e-12 <= side.interval.high <= 1
        assert side.interval.low < side.interval.high
    assert -1 <= estimate.difference.interval.low < estimate.difference.interval.high <= 1


# What is refused


def test_missing_item_is_refused_not_joined_away():
    before, after = two_arms()
    without = after[after["item_id"] != "i0007"]
    assert reason(before, without).startswith("the items differ: 3 rows only before, 0 only after (first: item i0007, language l0")
    assert "0 rows only before, 3 only after" in reason(without.assign(arm="base"), after)


def test_dropped_language_is_refused():
    before, after = two_arms()
    assert "the items differ: 40 rows only before" in reason(before, after[after["language"] != "l1"])


def test_other_items_of_the_same_number_are_refused():
    before, after = two_arms()
    assert "the items differ: 120 rows only before, 120" in reason(before, after.assign(item_id="x" + after["item_id"]))


def test_missing_sample_is_refused():
    before, after = two_arms(n_samples=2)
    assert "the items differ" in reason(before, after.iloc[:-1])
    assert "between 1 and 2 samples" in reason(before.iloc[:-1], after.iloc[:-1])


def test_duplicate_sample_is_refused():
    before, after = two_arms()
    assert "after holds 1 rows twice" in reason(before, pd.concat([after, after.iloc[[5]]]))
    assert "before holds 120 rows twice" in reason(pd.concat([before, before]), pd.concat([after, after]))


@pytest.mark.parametrize("column", ["prompt_hash", "target", "asked_reasoning_language"])
def test_another_question_under_the_same_name_is_refused(column):
    before, after = two_arms()
    after.loc[7, column] = "other"
    assert f"{column} differs in 1 of 120 rows (first: item i0002)" in reason(before, after)


def test_a_language_asked_of_one_arm_only_is_refused():
    before, after = two_arms()
    assert "asked_reasoning_language differs" in reason(before.assign(asked_reasoning_language=None), after)


def test_an_empty_side_is_refused():
    before, after = two_arms()
    assert reason(before.iloc[:0], after) == "before has no samples of stories@gate at high effort"
    assert reason(before, after.assign(effort="low")) == "after has no samples of stories@gate at high effort"
    assert compare(before, after.assign(effort="low"), **WHERE, metric="accuracy").arm == "r8"


def test_a_side_with_two_arms_is_refused():
    before, after = two_arms()
    assert reason(pd.concat([before, after]), after) == "before holds 2 arms (base, r8); expected one"


def test_more_than_half_a_percent_of_infrastructure_errors_is_refused():
    before, after = two_arms(n_items=200, n_languages=1)
    after.loc[:1, ["outcome", "score"]] = ["error", None]
    assert reason(before, after) == "after lost 2 of 200 rows to infrastructure errors; at most 0.5% may be"
    assert "infrastructure" in reason(before, after, metric="output_tokens")


def test_a_rare_infrastructure_error_is_left_out_counted_and_bounded():
    before, after = two_arms(n_items=200, n_languages=1)
    expected = accuracy(before.iloc[1:], after.iloc[1:])
    before.loc[0, "outcome"], before.loc[0, "score"] = "correct", 1.0
    after.loc[0, "outcome"], after.loc[0, "score"] = "error", np.nan
    comparison = accuracy(before, after)
    assert (comparison.clusters, comparison.excluded) == (199, 1)
    assert (comparison.delta, comparison.ci) == (expected.delta, expected.ci)
    assert comparison.worst == pytest.approx((199 * comparison.delta - 1) / 200)
    assert comparison.best == pytest.approx(199 * comparison.delta / 200)


def test_a_score_that_is_nan_without_an_error_is_refused():
    before, after = two_arms(n_items=400)
    after.loc[0, "score"] = np.nan
    assert "1 of 1200 rows without a score" in reason(before, after)


@pytest.mark.parametrize("score", [1.5, -0.1, math.inf])
def test_a_score_outside_its_range_is_refused(score):
    before, after = two_arms()
    after.loc[3, "score"] = score
    assert "1 of 120 rows whose accuracy is outside its range" in reason(before, after)


@pytest.mark.parametrize("outcome", ["Correct", None])
def test_an_unknown_outcome_is_refused(outcome):
    before, after = two_arms()
    after.loc[3, "outcome"] = outcome
    assert "unknown outcome" in reason(before, after)


def test_a_metric_that_was_not_measured_is_refused():
    before, after = two_arms()
    assert "120 of 120 rows without a value of ttft_s" in reason(before, after.assign(ttft_s=None), metric="ttft_s")


def test_fidelity_without_a_request_and_without_a_language_is_refused():
    before, after = (frame.assign(asked_reasoning_language=None, reasoning_language=None) for frame in two_arms())
    refused = "no reasoning language was asked for, and that of no analysis can be told"
    assert reason(before, after, metric="reasoning_language_fidelity") == refused


def test_fidelity_without_a_request_is_to_the_language_of_the_question():
    before, after = (frame.assign(asked_reasoning_language=None) for frame in two_arms())
    before, after = before.assign(reasoning_language="l0"), after.assign(reasoning_language=after["language"])
    comparison = compare(before, after, **WHERE, metric="reasoning_language_fidelity")
    assert (comparison.before, comparison.after) == (pytest.approx(1 / 3), 1.0)


def test_fidelity_is_measured_on_the_rows_that_asked():
    before, after = two_arms()
    before, after = (frame.assign(reasoning_language=np.where(frame["language"] == "l0", None, "en")) for frame in (before, after))
    asked = np.where(before["language"] == "l0", None, "en")
    before, after = (frame.assign(asked_reasoning_language=asked) for frame in (before, after))
    comparison = compare(before, after, **WHERE, metric="reasoning_language_fidelity")
    assert (comparison.languages, comparison.rows, comparison.excluded) == (("l1", "l2"), 80, 0)


def test_one_problem_is_refused():
    assert "1 problems have a value" in reason(samples_of([[1, 0]]), samples_of([[1, 1]], arm="r8"))


@pytest.mark.parametrize("dtype", ["object", "category"])
def test_column_types_do_not_change_the_numbers(dtype):
    before, after = two_arms()
    texts = ["arm", "suite", "split", "language", "effort", "item_id", "outcome", "prompt_hash", "target"]
    converted = [frame.astype(dict.fromkeys(texts, dtype)) for frame in (before, after)]
    assert accuracy(*converted) == accuracy(before, after)
    pd.testing.assert_frame_equal(
        cell_table(converted[0], "accuracy").astype({key: object for key in texts[:5]}),
        cell_table(before, "accuracy").astype({key: object for key in texts[:5]}),
    )


def test_comparing_leaves_the_samples_alone():
    before, after = two_arms()
    copies = before.copy(), after.copy()
    accuracy(before, after)
    cell_table(before, "accuracy")
    pd.testing.assert_frame_equal(before, copies[0])
    pd.testing.assert_frame_equal(after, copies[1])


# Tables


def test_cells_of_single_answers_have_wilson_intervals():
    before, after = two_arms()
    table = cell_table(pd.concat([before, after]), "accuracy")
    assert table["arm"].tolist() == ["base"] * 3 + ["r8"] * 3
    for row in table.itertuples():
        assert (row.n, row.clusters, row.rows) == (40, 40, 40)
        assert (row.low, row.high) == pytest.approx(stats.wilson(round(row.mean * 40), 40))


def test_efforts_over_languages_are_clustered_by_problem():
    before, _ = two_arms()
    (row,) = effort_table(before, "accuracy").itertuples()
    expected = stats.mean_interval(before.groupby("item_id")["score"].mean())
    assert (row.mean, row.low, row.high) == pytest.approx((expected.mean, *expected.interval))
    assert (row.n, row.clusters) == (120, 40)
    assert "language" not in row._fields


def test_cells_with_several_samples_are_clustered_by_problem():
    before, _ = two_arms(n_languages=1, n_samples=4)
    (row,) = cell_table(before, "accuracy").itertuples()
    expected = stats.mean_interval(before.groupby("item_id")["score"].mean())
    assert (row.low, row.high) == pytest.approx(expected.interval)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_table_never_claims_certainty_at_the_ends(share):
    (row,) = effort_table(samples_of(np.full((30, 5), share)), "accuracy").itertuples()
    assert (row.low, row.high) == pytest.approx(stats.wilson(round(30 * share), 30))


def test_problems_that_all_score_a_half_do_not_make_a_certain_half():
    (row,) = effort_table(samples_of(np.tile([1.0, 0.0], (31, 1))), "accuracy").itertuples()
    assert row.mean == 0.5
    assert row.low == stats.wilson(15, 31).low
    assert row.high == stats.wilson(16, 31).high


def test_outcome_shares_add_up_to_one_with_errors_counted():
    frame = samples_of([[1.0], [0.0], [np.nan], [0.0]])
    frame.loc[3, "outcome"] = "truncated"
    (row,) = cell_table(frame, "accuracy").to_dict("records")
    assert {name: row[name] for name in OUTCOMES} == {
        "correct": 0.25,
        "wrong": 0.25,
        "no_answer": 0,
        "truncated": 0.25,
        "malformed": 0,
        "error": 0.25,
    }
    assert (row["rows"], row["n"], row["mean"]) == (4, 3, pytest.approx(1 / 3))


def test_a_cell_without_values_is_unknown_not_zero():
    frame = samples_of(np.ones((3, 1)), asked_reasoning_language=None, reasoning_language=None)
    (row,) = cell_table(frame, "reasoning_language_fidelity").itertuples()
    assert (row.n, row.clusters) == (0, 0)
    assert all(math.isnan(value) for value in (row.mean, row.low, row.high))


def test_tokens_have_a_plain_t_interval_and_none_with_one_problem():
    frame = samples_of(np.ones((4, 1)), output_tokens=[10, 20, 30, 40])
    (row,) = cell_table(frame, "output_tokens").itertuples()
    assert (row.mean, row.low, row.high) == pytest.approx((25, *stats.mean_interval([10, 20, 30, 40]).interval))
    (single,) = cell_table(frame.iloc[:1], "output_tokens").itertuples()
    assert single.mean == 10
    assert math.isnan(single.low)


def test_no_samples_give_an_empty_table_with_its_columns():
    table = cell_table(samples_of(np.ones((2, 1))).iloc[:0], "accuracy")
    assert table.empty
    assert {"arm", "language", "mean", "low", "high", "n", "clusters", "truncated"} <= set(table.columns)


def test_a_run_compared_with_itself_has_changed_nothing(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, select_problems=4, gate_problems=4)
    comparisons = compare_runs(run, run)
    assert {comparison.arm for comparison in comparisons} == set(run.samples["arm"])
    assert {comparison.against for comparison in comparisons} == {f"{arm} before" for arm in set(run.samples["arm"])}
    assert all(comparison.delta == 0 for comparison in comparisons if not comparison.invalid_because)
