"""Power is told before a run, from a pilot's spread and never from its difference, or from an assumption that is said."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fabricated import fabricate_experiment, fabricate_run
from test_cli import Answer, assert_one_line, call  # noqa: F401
from test_store import write_run

from bench import stats
from bench.catalog import find_suite
from bench.comparison import compare
from bench.errors import ExperimentError, RunFolderError
from bench.experiment import Experiment, Gate, parse_experiment
from bench.gate import relative_difference
from bench.plan import (
    Cost,
    Spread,
    assumed_spread,
    describe,
    describe_cost,
    pilot_spread,
    plan_costs,
    plan_gate,
    plan_gates,
    refuse_underpowered,
)
from bench.records import Run

ACCURACY = Gate(name="accuracy", metric="accuracy", effort="high", margin=0.02)
HELPS = Gate(name="helps", metric="reasoning_language_fidelity", effort="high", type="superiority", margin=0.5)
TOKENS = Gate(name="tokens", metric="output_tokens", effort="high", margin=10)


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fabricate_run(tmp_path_factory.mktemp("pilot") / "run", select_problems=30, gate_problems=40)


def known(sd: float) -> Spread:
    return Spread(sd, "a test")


@pytest.mark.parametrize(("items", "is_weak"), [(784, True), (785, False)])
def test_the_table_of_sizes_is_the_plans(items: int, is_weak: bool) -> None:
    """One language, a tenth of single answers change, 2 points: 80 % need 1963 problems; sd .2 needs 785."""
    assert plan_gate(ACCURACY, 500, 1, known(math.sqrt(0.1))).needed == 1963
    plan = plan_gate(ACCURACY, items, 1, known(0.2))
    assert (plan.needed, plan.problem is not None, plan.is_refused) == (785, is_weak, is_weak)
    assert plan.power == pytest.approx(0.8, abs=0.001)
    assert plan.detectable == pytest.approx(0.02, rel=0.01)


def test_an_underpowered_gate_can_be_allowed() -> None:
    allowed = ACCURACY.model_copy(update={"allow_underpowered": True})
    plan = plan_gate(allowed, 250, 1, known(0.3))
    assert (plan.is_refused, plan.problem) == (
        False, "gate accuracy is under-powered: an unchanged arm passes 2 points in only 18 % of runs; it needs 1,766 problems",
    )  # fmt: skip


def test_too_few_problems_for_any_verdict_are_told_though_power_would_be_enough() -> None:
    plan = plan_gate(ACCURACY, 120, 1, known(0.01))
    assert (plan.power, plan.needed) == (pytest.approx(1.0), 183)
    assert plan.problem is not None
    assert "its verdict is invalid whatever they say; it needs 183 problems" in plan.problem


def test_a_gain_that_cannot_be_shown_is_told(pilot: Run) -> None:
    spread = pilot_spread(pilot, HELPS, pilot.experiment)
    assert spread.pilot is not None
    assert plan_gate(HELPS, 250, 5, spread).problem is None
    full = dataclasses.replace(spread, pilot=dataclasses.replace(spread.pilot, before=0.49))
    plan = plan_gate(HELPS, 250, 5, dataclasses.replace(full, sd=0.3))
    assert plan.problem is not None
    assert "even the largest possible gain may not pass 50 points" in plan.problem
    none = plan_gate(HELPS, 250, 5, dataclasses.replace(full, pilot=dataclasses.replace(spread.pilot, before=0.6)))
    assert (none.needed, "lower the margin" in str(none.problem)) == (None, True)


def test_the_pilot_gives_the_spread_and_not_the_difference(pilot: Run) -> None:
    sides = (pilot.samples[pilot.samples["arm"] == arm] for arm in ("base", "r16-s200"))
    found = compare(*sides, suite="stories", split="gate", effort="high", metric="accuracy")
    spread = pilot_spread(pilot, ACCURACY, pilot.experiment)
    assert found.se is not None
    assert spread.sd == pytest.approx(found.se * math.sqrt(40))
    assert "r16-s200 against base on 40 problems x 5 languages of stories@gate" in spread.source
    assert spread.pilot is not None
    moved = dataclasses.replace(spread, pilot=dataclasses.replace(spread.pilot, delta=-0.5, after=0.1))
    assert plan_gate(ACCURACY, 250, 5, moved).power == plan_gate(ACCURACY, 250, 5, spread).power


def test_a_pilot_of_which_few_problems_changed_asks_for_more(pilot: Run) -> None:
    """By the t interval alone 589 problems would do; where 3 % of them change whole, the score interval needs more."""
    spread = pilot_spread(pilot, ACCURACY, pilot.experiment)
    assert spread.pilot is not None
    plans = [
        plan_gate(ACCURACY, 1000, 1, dataclasses.replace(spread, sd=math.sqrt(0.03), pilot=dataclasses.replace(spread.pilot, swing=swing)))
        for swing in (0.2, 1.0)
    ]
    many, few = (plan.needed for plan in plans)
    assert stats.non_inferiority_sample_size(0.03, 0.02) == 589
    assert many is not None
    assert few is not None
    assert many <= 600 < 650 < few
    assert stats.score_power(math.sqrt(0.03), few, 1.0, 0.02) == pytest.approx(0.8, abs=0.005)


def test_a_pilot_of_another_split_serves_and_one_without_the_metric_does_not(pilot: Run) -> None:
    on_select = dataclasses.replace(pilot, samples=pilot.samples[pilot.samples["split"] == "select"])
    assert "30 problems x 5 languages of stories@select" in pilot_spread(on_select, ACCURACY, pilot.experiment).source
    no_high = dataclasses.replace(pilot, samples=pilot.samples[pilot.samples["effort"] == "low"])
    with pytest.raises(RunFolderError, match="were not both asked for accuracy at high effort"):
        pilot_spread(no_high, ACCURACY, pilot.experiment)
    untold = pilot.samples.assign(asked_reasoning_language=None, reasoning_language=None)
    with pytest.raises(RunFolderError, match="no pilot for gate helps: "):
        pilot_spread(dataclasses.replace(pilot, samples=untold), HELPS, pilot.experiment)


def test_a_pilot_at_the_ceiling_asks_for_as_many_problems_as_the_gate_does(pilot: Run) -> None:
    spread = pilot_spread(pilot, ACCURACY, pilot.experiment)
    assert spread.pilot is not None
    spread = Spread(0.01, "a test", dataclasses.replace(spread.pilot, before=0.97))
    assert plan_gate(ACCURACY, 249, 5, spread).needed == 250
    assert plan_gate(ACCURACY, 249, 5, spread).is_refused
    assert not plan_gate(ACCURACY, 250, 5, spread).is_refused


def test_a_pilot_without_any_spread_promises_nothing(pilot: Run) -> None:
    same = dataclasses.replace(pilot, samples=pilot.samples.assign(score=1.0, outcome="correct"))
    plan = plan_gate(ACCURACY, 250, 5, pilot_spread(same, ACCURACY, pilot.experiment))
    assert (plan.power, plan.is_refused) == (None, True)
    assert "too small to tell" in str(plan.problem)


def test_without_a_pilot_the_assumption_is_said_and_tokens_have_none() -> None:
    spread = assumed_spread(ACCURACY, 11)
    assert spread.sd == pytest.approx(math.sqrt(0.16 * 1.5 / 11))
    assert stats.problems_needed(0.16, 11, 0.05) == 1  # the same design effect, rounded up
    assert spread.source.startswith("assumed, there being no pilot: 16% of single answers change")
    assert assumed_spread(HELPS, 1).sd == pytest.approx(0.5)
    plan = plan_gate(TOKENS, 250, 5, assumed_spread(TOKENS, 5))
    assert (plan.is_refused, "pass --pilot RUN" in str(plan.problem)) == (True, True)


def test_problems_are_counted_in_the_suites_rows() -> None:
    for name in ("stories", "stories_plain"):
        assert find_suite(name).count_items("gate", {}) == 250
        assert find_suite(name).count_items("select", {}) == 60


def test_local_data_are_counted_and_unknown_ones_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EFFORTBENCH_DATA", raising=False)
    data = fabricate_experiment().model_dump(mode="json")
    evaluate = {**data["evaluate"], "suites": ["mgsm"]}
    mgsm = {**data, "evaluate": evaluate, "select": None, "confirm": {"suite": "mgsm", "split": "test"}}
    mgsm["finetune"] = {**data["finetune"], "ranks": [8], "steps": [40]}
    with pytest.raises(ExperimentError, match="pass --items N"):
        plan_gates(parse_experiment(mgsm, "a test"))
    assert plan_gates(parse_experiment(mgsm, "a test"), items=250)[0].languages == 11
    (tmp_path / "mgsm_de.tsv").write_text("q\t1\nq\t2\n", encoding="utf-8")
    mgsm["evaluate"] = {**evaluate, "data": {"mgsm": str(tmp_path)}}
    assert plan_gates(parse_experiment(mgsm, "a test"))[0].items == 2


def test_without_gates_there_is_nothing_to_plan() -> None:
    with pytest.raises(ExperimentError, match="has no gates"):
        plan_gates(fabricate_experiment(gates=False))


def test_the_command_says_power_and_exits_3_where_it_is_too_low(call: Any, pilot: Run, tmp_path: Path) -> None:  # noqa: F811
    answer = call("power", "embedded")
    assert answer.code == 0, answer.out
    assert "spread: assumed, there being no pilot" in answer.out
    assert "accuracy: 250 problems x 5 languages, margin 5 points" in answer.out
    weak = call("power", "embedded", "--items", "100", "--set", "gates=[{name: a, metric: accuracy, effort: high, margin: 0.03}]")
    assert weak.code == 3
    assert "refused gate a is under-powered: with 100 problems its verdict is invalid" in weak.out
    options = "gates=[{name: a, metric: accuracy, effort: high, margin: 0.02, allow_underpowered: true}]"
    assert call("power", "embedded", "--set", options).code == 0
    write_run(pilot, tmp_path / "pilot")
    piloted = call("power", "embedded", "--pilot", "pilot")
    assert "from r16-s200 against base on 40 problems" in piloted.out
    assert_one_line(call("power", "embedded", "--pilot", "nowhere"), "is not a run folder")
    assert_one_line(call("power", "embedded", "--set", "gates=[]"), "has no gates")


def test_a_plan_is_one_line() -> None:
    assert describe(plan_gate(ACCURACY, 250, 5, known(0.1))) == (
        "250 problems x 5 languages, margin 2 points; standard deviation of a problem's difference 10 points; "
        "an unchanged arm passes in 89 % of runs; 80 % power for a margin of 1.78 points; 80 % needs 197 problems"
    )


# --- other gates


RATIO = Gate(name="tokens", metric="output_tokens", effort="high", type="max_ratio", margin=0.1)


def planned(*gates: dict[str, Any]) -> Experiment:
    data = fabricate_experiment().model_dump(mode="json")
    return parse_experiment({**data, "gates": list(gates)}, "a test")


def test_a_ratio_is_planned_on_the_logarithms_of_the_pilots_problems(pilot: Run) -> None:
    spread = pilot_spread(pilot, RATIO, pilot.experiment)
    before, after = (pilot.samples[(pilot.samples["arm"] == arm) & (pilot.samples["split"] == "gate")] for arm in ("base", "r16-s200"))
    sides = [side[side["effort"] == "high"].set_index(["item_id", "language"])["output_tokens"] for side in (before, after)]
    logs = (sides[1] / sides[0]).map(math.log).groupby("item_id").mean()
    assert spread.sd == pytest.approx(logs.std())
    plan = plan_gate(RATIO, 250, 5, spread)
    assert plan.power == pytest.approx(stats.non_inferiority_power(logs.std() / math.sqrt(250), math.log(1.1)))
    assert plan.detectable == pytest.approx(math.expm1(stats.minimum_detectable_effect(float(logs.std()), 250).exact))
    assert "margin 10 %; standard deviation of a problem's log ratio" in describe(plan)


def test_a_relative_margin_is_planned_on_the_level_of_the_pilot(pilot: Run) -> None:
    gate = ACCURACY.model_copy(update={"relative": True, "margin": 0.02})
    spread = pilot_spread(pilot, gate, pilot.experiment)
    assert spread.pilot is not None
    sd = relative_difference(spread.pilot, 0.98).se * math.sqrt(40)
    assert spread.sd == pytest.approx(sd)
    assert spread.pilot.before is not None
    assert spread.pilot.swing is not None
    power = stats.score_power(sd, 250, spread.pilot.swing, 0.02 * spread.pilot.before)
    assert plan_gate(gate, 250, 5, spread).power == pytest.approx(power)
    assert "pass --pilot RUN" in str(plan_gate(gate, 250, 5, assumed_spread(gate, 5)).problem)


def test_the_experiments_own_spread_is_planned_with_where_there_is_no_pilot() -> None:
    own = {"name": "a", "metric": "accuracy", "effort": "high", "margin": 0.05, "planned_sd": 0.1}
    guard = {**own, "name": "b", "type": "language_guard", "planned_sd": None}
    experiment = planned(own, guard)
    (plan,) = plan_gates(experiment)
    assert (plan.spread.sd, plan.spread.source) == (0.1, "planned_sd of gate a")
    refuse_underpowered(experiment)
    weak = planned({**own, "margin": 0.02, "min_planned_power": 0.95})
    with pytest.raises(ExperimentError, match="in only 89 % of runs on 250 problems, and 95 % are asked for"):
        refuse_underpowered(weak)
    assert plan_gates(weak)[0].is_refused
    assert "95 % power for a margin of" in describe(plan_gates(weak)[0])


def repeated(pilot: Run) -> Run:
    """The pilot with a second sample of every item: half of them differ."""
    again = pilot.samples.assign(sample_index=1)
    turned = again["item_id"].str[-1].isin(list("02468")) & (again["arm"] != "base") & (again["language"] != "en")
    again.loc[turned, "score"] = 1 - again.loc[turned, "score"]
    return dataclasses.replace(pilot, samples=pd.concat([pilot.samples, again], ignore_index=True))


def test_more_samples_are_named_beside_more_problems_where_the_pilot_repeated_its_own(pilot: Run) -> None:
    twice = repeated(pilot)
    one = pilot_spread(twice, ACCURACY, pilot.experiment)
    assert one.pilot is not None
    assert one.pilot.within is not None
    assert one.pilot.between is not None
    assert one.sd == pytest.approx(math.sqrt(one.pilot.between + one.pilot.within))
    assert "for 1 samples an item in place of its 2" in one.source
    gate = ACCURACY.model_copy(update={"margin": 0.05})
    plan = plan_gate(gate, 250, 5, one)
    assert plan.samples is not None
    sd = math.sqrt(one.pilot.between + one.pilot.within / plan.samples)
    fewer = math.sqrt(one.pilot.between + one.pilot.within / (plan.samples - 1))
    powers = [stats.non_inferiority_power(each / math.sqrt(250), 0.05) for each in (fewer, sd)]
    assert powers[0] < 0.8 <= powers[1]
    assert f"or {plan.samples} samples an item" in describe(plan)


# --- cost


def test_costs_are_the_pilots_tokens_speed_and_training_time(pilot: Run) -> None:
    costs = {cost.step.split()[0]: cost for cost in plan_costs(pilot.experiment, pilot)}
    per_answer = pilot.samples.groupby("effort")["output_tokens"].mean()
    confirm = costs["confirm"]
    assert confirm.output_tokens is not None
    assert confirm.answers == 2 * 250 * 5 * 3
    assert confirm.output_tokens == pytest.approx(2 * 250 * 5 * per_answer.sum())
    assert confirm.hours == pytest.approx(confirm.output_tokens / 4000 / 3600)
    assert costs["select"].answers == 5 * 60 * 5 * 3
    assert costs["train"].hours == pytest.approx(2 * 200 * 0.19 / 3600)
    assert describe_cost(confirm).startswith("confirm on 250 problems: 7,500 answers, ")


def test_more_problems_and_an_extension_cost_more(pilot: Run) -> None:
    experiment = pilot.experiment
    evaluate = experiment.evaluate.model_copy(update={"temperature": 1.0, "samples_per_item": 2})
    longer = parse_experiment(
        {**experiment.model_dump(mode="json"), "evaluate": evaluate.model_dump(mode="json"), "extension": {"samples": 4}}, "a test"
    )
    weak = [dataclasses.replace(plan, needed=1000) for plan in plan_gates(longer, pilot)]
    found = {cost.step: cost.answers for cost in plan_costs(longer, pilot, plans=weak)}
    assert found["confirm on 250 problems"] == 2 * 250 * 5 * 3 * 2
    assert found["extend by 4 samples an item, if inconclusive"] == 2 * 250 * 5 * 4
    assert found["confirm on the 1,000 problems that are needed"] == 4 * found["confirm on 250 problems"]


def test_what_the_pilot_did_not_measure_is_unknown_and_not_zero(pilot: Run) -> None:
    silent = dataclasses.replace(pilot, samples=pilot.samples[pilot.samples["effort"] != "low"], phases=(), training={})
    costs = plan_costs(pilot.experiment, silent)
    assert {(cost.output_tokens, cost.hours) for cost in costs} == {(None, None)}
    assert (
        describe_cost(Cost("confirm", 10, None, None))
        == "confirm: 10 answers, tokens unknown: the pilot asked other efforts, hours unknown"
    )


def test_the_command_tells_costs_with_a_pilot(call: Any, pilot: Run, tmp_path: Path) -> None:  # noqa: F811
    write_run(pilot, tmp_path / "pilot")
    answer = call("power", "embedded", "--pilot", "pilot")
    assert "cost: train 160 steps: " in answer.out
    assert "cost: confirm on 250 problems: 7,500 answers, " in answer.out
    assert "process-hours" in answer.out
    assert "cost: " not in call("power", "embedded").out
