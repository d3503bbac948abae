"""How often the gate errs, through the real estimate and the real verdict, on answers simulated like a multilingual maths suite.

250 problems x 11 languages: logit p_before = mu_l + a_i + b_il, logit p_after = mu_l + delta + a_i + b_il + d_i + e_il, all
effects normal; mu_l gives language l its marginal accuracy, delta the true difference of the macro-average; a score is a
Binomial(K, p) count over K.
The table in docs/statistics.md is printed by `python tests/test_gate_simulation.py`; `tox -e stats` runs the tests.
"""

import dataclasses
from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from scipy import optimize, special
from scipy import stats as stats_of
from test_comparison import samples_of

from bench import stats
from bench.comparison import compare, paired_estimate
from bench.experiment import Gate
from bench.gate import judge, read
from bench.judging import is_to_be_extended
from bench.language_guard import judge_languages
from bench.records import Comparison, Look
from bench.stats import Interval

PROBLEMS, REPLICATES, MARGIN = 250, 4000, 0.02
TWO_LOOKS = 12_000
"""Replicates where the rate is so near 5 % that 4,000 could not tell."""
GUARDED, SELECTED = 2000, 2000
PROBLEM_SD, CELL_SD = 1.8, 1.0
MULTILINGUAL = (0.93, 0.91, 0.90, 0.90, 0.89, 0.88, 0.86, 0.85, 0.82, 0.78, 0.75)
GATE = Gate(name="accuracy", metric="accuracy", effort="high", margin=MARGIN)
GUARD = Gate(name="languages", metric="accuracy", effort="high", type="language_guard", margin=1e-6)
"""At the edge of its margin, an arm that changed nothing is what the guard must let through."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


class Regime(NamedTuple):
    """How answers change from before to after."""

    shift_sd: float
    """Of d_i: problems that get easier or harder in all languages at once."""
    noise_sd: float
    """Of e_il."""
    samples: int
    accuracies: tuple[float, ...] = MULTILINGUAL


REGIMES = {
    "mild K=1": Regime(0.3, 0.3, 1),
    "moderate K=1": Regime(0.8, 0.4, 1),
    "strong K=1": Regime(1.5, 0.4, 1),
    "mild K=4": Regime(0.3, 0.3, 4),
    "moderate K=4": Regime(0.8, 0.4, 4),
    "strong K=4": Regime(1.5, 0.4, 4),
    "ceiling K=1": Regime(0.8, 0.4, 1, (0.97,) * 11),
}


def marginal(location, sd):
    """Mean of the logistic function of normal effects, by Gauss-Hermite quadrature."""
    return special.expit(np.asarray(location)[..., None] + sd * NODES) @ WEIGHTS / WEIGHTS.sum()


def language_means(regime, true_difference):
    """Logits of the languages before and after."""
    sd_before = np.hypot(PROBLEM_SD, CELL_SD)
    sd_after = np.sqrt(sd_before**2 + regime.shift_sd**2 + regime.noise_sd**2)
    before = np.array([optimize.brentq(lambda mu, p=p: marginal(mu, sd_before) - p, -5, 15) for p in regime.accuracies])
    target = np.mean(regime.accuracies) + true_difference
    shift = optimize.brentq(lambda delta: marginal(before + delta, sd_after).mean() - target, -5, 5)
    return before, before + shift


def unchanged_languages(regime):
    """As `language_means`, with the same accuracy before and after in every single language."""
    sd_before = np.hypot(PROBLEM_SD, CELL_SD)
    sd_after = np.sqrt(sd_before**2 + regime.shift_sd**2 + regime.noise_sd**2)
    return [
        np.array([optimize.brentq(lambda mu, p=p, sd=sd: marginal(mu, sd) - p, -5, 15) for p in regime.accuracies])
        for sd in (sd_before, sd_after)
    ]


def simulate(regime, true_difference, replicates, seed):
    """Scores before and after, shape (replicates, problems, languages) each."""
    return simulate_looks(regime, true_difference, replicates, seed, (regime.samples,))[0]


def simulate_looks(regime, true_difference, replicates, seed, samples, means=None):
    """As `simulate`, a pair of arrays for each count of samples, ascending: later ones hold the earlier answers too."""
    rng = np.random.default_rng(seed)
    mu_before, mu_after = (mu.astype(np.float32) for mu in means or language_means(regime, true_difference))
    shape = (replicates, PROBLEMS, len(regime.accuracies))

    def normal(sd, size):
        return np.float32(sd) * rng.standard_normal(size, dtype=np.float32)

    base = normal(PROBLEM_SD, (*shape[:2], 1)) + normal(CELL_SD, shape)
    change = normal(regime.shift_sd, (*shape[:2], 1)) + normal(regime.noise_sd, shape)
    arms = []
    for logits in (mu_before + base, mu_after + base + change):
        p, right, scores = special.expit(logits), np.zeros(shape, np.float32), []
        for sample in range(1, samples[-1] + 1):
            right += rng.random(shape, dtype=np.float32) < p
            if sample in samples:
                scores.append(right / sample)
        arms.append(scores)
    return list(zip(*arms, strict=True))


TEMPLATE = Comparison(
    arm="r8",
    against="base",
    suite="stories",
    split="gate",
    effort="high",
    metric="accuracy",
    before=None,
    before_ci=None,
    after=None,
    after_ci=None,
    delta=None,
    ci=None,
    se=None,
    clusters=PROBLEMS,
    rows=PROBLEMS * len(MULTILINGUAL),
    languages=(),
    samples_per_item=4,
)


def comparison_of(before, after):
    """The comparison of two arrays of problem means, through the estimate that `compare` uses."""
    estimate = paired_estimate(before, after, is_share=True)
    return dataclasses.replace(
        TEMPLATE,
        before=estimate.before.mean,
        after=estimate.after.mean,
        delta=estimate.difference.mean,
        ci=tuple(estimate.difference.interval),
        se=estimate.difference.se,
        swing=estimate.swing,
    )


@cache
def rates(name, true_difference):
    """Shares of verdicts, of intervals that hold the truth, and of passes of naive gates, over all replicates of a regime."""
    counts = Counter()
    for chunk in range(4):  # in parts, to keep the memory small
        seed = [11, chunk, list(REGIMES).index(name), round(1000 * abs(true_difference))]
        before, after = simulate(REGIMES[name], true_difference, REPLICATES // 4, seed)
        counts.update(naive_gates(before, after, true_difference))
        for one_before, one_after in zip(before.mean(axis=2, dtype=float), after.mean(axis=2, dtype=float), strict=True):
            comparison = comparison_of(one_before, one_after)
            counts[judge(comparison, GATE).verdict] += 1
            counts["covered"] += comparison.ci[0] <= true_difference <= comparison.ci[1]
    return Counter({key: count / REPLICATES for key, count in counts.items()})


def answer_with_nine_arms(replicates, rng):
    """Problem means of base, shape (replicates, problems), and of nine arms that lose the margin, (9, replicates, problems)."""
    regime = REGIMES["moderate K=1"]
    mu_before, mu_after = language_means(regime, -MARGIN)
    shape = (replicates, PROBLEMS, len(regime.accuracies))

    def normal(problem_sd, cell_sd):
        return problem_sd * rng.standard_normal((*shape[:2], 1)) + cell_sd * rng.standard_normal(shape)

    def means(logits):
        return (rng.random(shape) < special.expit(logits)).mean(axis=2)

    base = normal(PROBLEM_SD, CELL_SD)
    return means(mu_before + base), np.array([means(mu_after + base + normal(regime.shift_sd, regime.noise_sd)) for _ in range(9)])


@cache
def rates_of_the_best_of_nine(chunk=100):
    """How often the best of nine arms passes, all of which lose the margin: on the answers that chose it, and on others.

    All are compared with the same answers of base, as in a run. `gained`: how much better the best one looks than it is.
    """
    counts, rng = Counter(), np.random.default_rng(43)
    for _ in range(SELECTED // chunk):
        (same_base, same_arms), (fresh_base, fresh_arms) = (answer_with_nine_arms(chunk, rng) for _ in range(2))
        for number, best in enumerate(same_arms.mean(axis=2).argmax(axis=0)):
            same = comparison_of(same_base[number], same_arms[best, number])
            counts["same"] += judge(same, GATE).verdict == "pass"
            counts["fresh"] += judge(comparison_of(fresh_base[number], fresh_arms[best, number]), GATE).verdict == "pass"
            counts["gained"] += same.delta + MARGIN
    return Counter({key: count / SELECTED for key, count in counts.items()})


@cache
def few_changes(problems, margin, gained_share, true_loss=None):
    """Chance that a gate passes, exactly: problems change in all their answers or in none, 85 % right before, a true loss of the margin.

    Single answers do, and so do languages that move together. Each problem is lost with chance margin + `gained_share` (`true_loss` in
    place of the margin, where it is given) and gained with `gained_share`. The second number is that of the t interval alone. By
    enumeration of all tables, through the verdict.
    """
    lost_share = gained_share + (margin if true_loss is None else true_loss)
    most = min(problems // 8, round(4 * problems * lost_share) + 12)
    gate, right = GATE.model_copy(update={"margin": margin}), round(0.85 * problems)
    passed = passed_by_t = 0.0
    for lost in range(most):
        for gained in range(most):
            chance = stats_of.binom.pmf(lost, problems, lost_share)
            chance *= stats_of.binom.pmf(gained, problems - lost, gained_share / (1 - lost_share))
            before = np.repeat([1.0, 1.0, 0.0, 0.0], [right - lost, lost, gained, problems - right - gained])
            after = np.repeat([1.0, 0.0, 1.0, 0.0], [right - lost, lost, gained, problems - right - gained])
            if chance < 1e-9:
                continue
            comparison = dataclasses.replace(comparison_of(before, after), clusters=problems)
            passed += chance * (judge(comparison, gate).verdict == "pass")
            passed_by_t += chance * (read(Interval(*comparison.ci), gate) == "pass")
    return passed, passed_by_t


def naive_gates(before, after, true_difference):
    """Passes of gates that look only at the estimate, take rows as independent, ignore pairing, or look for significance.

    `claims a regression` counts the arms that an interval over independent rows calls worse, whatever the margin.
    """
    rows = (after - before).reshape(len(before), -1).astype(float)
    mean = rows.mean(axis=1)
    row_half = stats.t_quantile(rows.shape[1] - 1) * rows.std(axis=1, ddof=1) / np.sqrt(rows.shape[1])
    row_se = np.hypot(*(arm.reshape(len(arm), -1).std(axis=1, dtype=float, ddof=1) / np.sqrt(rows.shape[1]) for arm in (before, after)))
    arm_se = np.hypot(*(arm.mean(axis=2, dtype=float).std(axis=1, ddof=1) / np.sqrt(PROBLEMS) for arm in (before, after)))
    return {
        "estimate within margin": int((mean >= -MARGIN).sum()),
        "after >= before": int((mean >= 0).sum()),
        "unclustered": int((mean - row_half > -MARGIN).sum()),
        "unclustered covered": int((abs(mean - true_difference) < row_half).sum()),
        "claims a regression": int((mean + row_half < 0).sum()),
        "unpaired": int((mean - 1.96 * arm_se > -MARGIN).sum()),
        "unpaired, unclustered": int((mean - 1.96 * row_se > -MARGIN).sum()),
        "no significant drop": int((mean + 1.96 * arm_se >= 0).sum()),
        "no significant drop, unclustered": int((mean + 1.96 * row_se >= 0).sum()),
    }


@cache
def rates_of_two_looks(true_difference, first=2, further=2):
    """Shares of verdicts where an inconclusive first look is followed by one more on all samples; moderate answers."""
    counts, chunks = Counter(), TWO_LOOKS // 1000
    for chunk in range(chunks):
        seed = [23, chunk, round(1000 * abs(true_difference))]
        looks = simulate_looks(REGIMES["moderate K=4"], true_difference, TWO_LOOKS // chunks, seed, (first, first + further))
        means = [[arm.mean(axis=2, dtype=float) for arm in pair] for pair in looks]
        for number in range(TWO_LOOKS // chunks):
            verdicts = [judge(comparison_of(before[number], after[number]), GATE, looks=2).verdict for before, after in means]
            is_extended = is_to_be_extended(Look(first, verdicts[0], {}, ""))
            counts["extended"] += is_extended
            counts[verdicts[1] if is_extended else verdicts[0]] += 1
    return Counter({key: count / TWO_LOOKS for key, count in counts.items()})


@cache
def rates_of_the_language_guard(name="moderate K=1"):
    """How often an unchanged arm is stopped because one of eleven languages seems worse: by the guard, and by tests on their own."""
    regime = REGIMES[name]
    before, after = simulate_looks(regime, 0.0, GUARDED, [31], (regime.samples,), unchanged_languages(regime))[0]
    changes = (after - before).astype(float)
    statistics = changes.mean(axis=1) / (changes.std(axis=1, ddof=1) / np.sqrt(PROBLEMS))
    uncorrected = float((statistics.min(axis=1) < special.stdtrit(PROBLEMS - 1, 0.05)).mean())
    languages = [f"l{number}" for number in range(len(MULTILINGUAL))]
    stopped = 0
    for one_before, one_after in zip(before.astype(float), after.astype(float), strict=True):
        whole = dataclasses.replace(comparison_of(one_before.mean(axis=1), one_after.mean(axis=1)), languages=tuple(languages))
        each = [
            dataclasses.replace(comparison_of(one_before[:, number], one_after[:, number]), languages=(language,))
            for number, language in enumerate(languages)
        ]
        stopped += judge_languages(whole, each, GUARD).verdict == "fail"
    return {"guard": stopped / GUARDED, "uncorrected": uncorrected}


def upper(rate, replicates=REPLICATES):
    """97.5 % upper bound of a measured rate."""
    return stats.clopper_pearson(round(rate * replicates), replicates).high


def lower(rate, replicates=REPLICATES):
    return stats.clopper_pearson(round(rate * replicates), replicates).low


@pytest.mark.parametrize("name", REGIMES)
def test_a_loss_of_the_margin_rarely_passes(name):
    assert upper(rates(name, -MARGIN)["pass"]) <= 0.05


@pytest.mark.parametrize("name", REGIMES)
def test_a_loss_of_the_margin_rarely_fails(name):
    """At the margin itself the arm is still acceptable by the gate's own words: `fail` claims a loss of more than the margin."""
    assert upper(rates(name, -MARGIN)["fail"]) <= 0.05


def test_an_unchanged_arm_passes():
    assert lower(rates("moderate K=4", 0.0)["pass"]) >= 0.86
    assert rates("moderate K=4", 0.0)["fail"] == 0


@pytest.mark.parametrize("true_difference", [0.0, -MARGIN])
def test_the_interval_covers_as_often_as_it_says(true_difference):
    assert rates("moderate K=4", true_difference)["covered"] == pytest.approx(0.95, abs=0.012)
    assert rates("moderate K=4", true_difference)["invalid"] == 0


def test_two_looks_pass_a_loss_of_the_margin_rarely_too():
    """Each look at 2.5 %: at most 5 % together, and one inconclusive run in a few is asked again."""
    assert upper(rates_of_two_looks(-MARGIN)["pass"], TWO_LOOKS) <= 0.05
    assert upper(rates_of_two_looks(-MARGIN)["fail"], TWO_LOOKS) <= 0.05


def test_a_second_look_lets_more_unchanged_arms_through():
    """As many as four samples from the start would, of which most were never needed."""
    unchanged = rates_of_two_looks(0.0)
    assert lower(unchanged["pass"], TWO_LOOKS) >= 0.86
    assert upper(unchanged["extended"], TWO_LOOKS) <= 0.35


def test_the_language_guard_rarely_stops_an_unchanged_arm_and_single_tests_often_do():
    found = rates_of_the_language_guard()
    assert upper(found["guard"], GUARDED) <= 0.05
    assert lower(found["uncorrected"], GUARDED) > 0.35


def test_the_best_of_nine_arms_is_not_judged_on_what_chose_it():
    found = rates_of_the_best_of_nine()
    assert lower(found["same"], SELECTED) > 0.1
    assert upper(found["fresh"], SELECTED) <= 0.05


@pytest.mark.parametrize("gained_share", [0.0, 0.01, 0.03])
@pytest.mark.parametrize(("problems", "margin"), [(183, 0.02), (250, 0.02), (100, 0.05), (250, 0.05)])
def test_a_loss_of_the_margin_by_whole_problems_rarely_passes_however_lopsided(problems, margin, gained_share):
    assert few_changes(problems, margin, gained_share)[0] <= 0.025


def test_the_t_interval_alone_would_pass_one_in_eight_lopsided_losses():
    assert few_changes(250, 0.02, 0.0)[1] > 0.12


@pytest.mark.parametrize(("problems", "margin", "gained_share"), [(250, 0.02, 0.01), (250, 0.05, 0.025), (500, 0.03, 0.025)])
def test_the_power_that_is_planned_knows_the_score_interval(problems, margin, gained_share):
    by_both, by_t = few_changes(problems, margin, gained_share, true_loss=0.0)
    planned = stats.score_power(np.sqrt(2 * gained_share), problems, 1.0, margin)
    assert planned == pytest.approx(by_both, abs=0.04)
    assert planned < by_t


def test_planned_power_is_the_measured_power():
    befores, afters = simulate(REGIMES["moderate K=4"], 0.0, 200, seed=4)
    differences = (afters - befores).mean(axis=2, dtype=float)
    se = np.sqrt(differences.var(axis=1, ddof=1).mean() / PROBLEMS)
    assert rates("moderate K=4", 0.0)["pass"] == pytest.approx(stats.non_inferiority_power(se, MARGIN), abs=0.02)


def test_naive_gates_err_on_the_same_answers():
    at_margin, unchanged = rates("moderate K=4", -MARGIN), rates("moderate K=4", 0.0)
    assert at_margin["estimate within margin"] > 0.45
    assert lower(at_margin["unclustered"]) > 0.05
    assert upper(at_margin["unclustered covered"]) < 0.90
    assert lower(at_margin["no significant drop"]) > 0.05
    assert lower(at_margin["no significant drop, unclustered"]) > 0.05
    assert lower(unchanged["claims a regression"]) > 0.05
    assert upper(unchanged["unpaired"]) < lower(unchanged["pass"])
    assert upper(unchanged["after >= before"]) < 0.6


@pytest.mark.parametrize("name", REGIMES)
def test_the_simulation_has_the_true_difference_it_claims(name):
    before, after = (scores.mean(dtype=float) for scores in simulate(REGIMES[name], -MARGIN, 400, seed=3))
    assert before == pytest.approx(np.mean(REGIMES[name].accuracies), abs=0.004)
    assert after - before == pytest.approx(-MARGIN, abs=0.0025)


def test_the_simulated_path_is_the_real_one():
    """Samples given to `compare` as a table get the numbers and the verdict of the arrays above."""
    befores, afters = simulate(REGIMES["moderate K=4"], 0.0, 2, seed=5)
    for before, after in zip(befores, afters, strict=True):
        arrays = comparison_of(before.mean(axis=1, dtype=float), after.mean(axis=1, dtype=float))
        where = {"suite": "stories", "split": "gate", "effort": "high", "metric": "accuracy"}
        samples = compare(samples_of(before), samples_of(after, arm="r8"), **where)
        assert samples.ci == pytest.approx(arrays.ci, abs=1e-12)
        assert (samples.clusters, samples.rows) == (arrays.clusters, arrays.rows)
        assert judge(samples, GATE).verdict == judge(arrays, GATE).verdict


def table(*cells):
    print("| " + " | ".join(f"{100 * cell:.1f}" if isinstance(cell, float) else cell for cell in cells) + " |")


if __name__ == "__main__":
    for name in REGIMES:
        at_margin, unchanged = rates(name, -MARGIN), rates(name, 0.0)
        table(name, *map(float, (at_margin["pass"], at_margin["fail"], unchanged["pass"], at_margin["covered"])))
    naive = [
        *("unclustered", "unpaired", "unpaired, unclustered", "no significant drop", "no significant drop, unclustered"),
        *("estimate within margin", "after >= before"),
    ]
    for name in [name for name in REGIMES if "ceiling" not in name]:
        for gate in ["pass", *naive]:
            table(name, gate, float(rates(name, -MARGIN)[gate]), float(rates(name, 0.0)[gate]))
        table(name, "unclustered covers", float(rates(name, -MARGIN)["unclustered covered"]))
        table(name, "unclustered claims a regression", float(rates(name, 0.0)["claims a regression"]))
    for true_difference in (-MARGIN, 0.0):
        found = rates_of_two_looks(true_difference)
        table(f"two looks at {true_difference:+.2f}", *(float(found[key]) for key in ("pass", "fail", "extended")))
    table("language guard", *rates_of_the_language_guard().values())
    table("best of nine", *(float(rates_of_the_best_of_nine()[key]) for key in ("same", "fresh", "gained")))
    for problems, margin in ((183, 0.02), (250, 0.02), (100, 0.05), (250, 0.05)):
        for gained_share in (0.0, 0.01, 0.03):
            table(
                f"{problems} problems that change whole, margin {margin:g}, gained {gained_share:g}",
                *few_changes(problems, margin, gained_share),
            )
