"""Which comparison a gate is about, in which order, after how many looks; and what a run must not have been chosen on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fabricated import ACCURACY, fabricate_experiment, fabricate_run, fabricate_samples
from test_baseline import EARLIER
from test_cli import Answer, assert_one_line, call  # noqa: F401

from bench.baseline import of_run
from bench.errors import ExperimentError, SuiteError
from bench.experiment import Experiment, Extension, Gate, Timing, Vram, parse_experiment
from bench.judging import first_look, is_to_be_extended, judge_run, look, looked_at
from bench.records import OUTCOMES, Baseline, Look, Run, RunVerdict
from bench.runner import preflight
from bench.store import read_verdict, write_verdict

OWN = {"name": "accuracy", "metric": "accuracy", "effort": "high", "margin": 0.05}
MEDIUM = {"name": "medium", "metric": "accuracy", "effort": "medium", "margin": 0.05, "after": "accuracy"}
LOW = {"name": "low", "metric": "accuracy", "effort": "low", "margin": 0.30, "after": "medium", "required": False}
LANGUAGES = {"name": "languages", "metric": "accuracy", "effort": "high", "type": "language_guard", "margin": 0.08}
TOKENS = {"name": "tokens", "metric": "output_tokens", "effort": "high", "type": "max_ratio", "margin": 0.10}
LATENCY = {"name": "latency", "metric": "latency_s", "effort": "high", "type": "max_ratio", "margin": 0.10, "required": False}
DRIFT = {"name": "drift", "metric": "accuracy", "effort": "high", "margin": 0.05, "against": "baseline"}


def asked(*gates: dict[str, Any], **changes: Any) -> Experiment:
    return parse_experiment(fabricate_experiment().model_dump(mode="json") | {"gates": list(gates)} | changes, "a test")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = fabricate_run(tmp_path_factory.mktemp("run") / "run", select_problems=2)
    return dataclasses.replace(made, experiment=asked(OWN), verdict=None, suite_revisions={"stories": "abc"})


def judged(run: Run, *gates: dict[str, Any], baseline: Baseline | str | None = None, **changes: Any) -> RunVerdict:
    return judge_run(dataclasses.replace(run, experiment=asked(*gates), **changes), baseline)


def names_and_verdicts(verdict: RunVerdict) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in verdict.gates}


def worse(**accuracy: tuple[float, float, float]) -> Any:
    return fabricate_samples(("base", "r16-s200"), "stories", "gate", 250, {**ACCURACY, **{"r16-s200": accuracy["arm"]}}, seed=13)


# --- many gates


def test_every_kind_of_gate_is_judged_in_the_order_of_the_file(run: Run) -> None:
    verdict = judged(run, OWN, MEDIUM, LOW, LANGUAGES, TOKENS, LATENCY)
    assert names_and_verdicts(verdict) == {
        "accuracy": "pass", "medium": "pass", "low": "pass", "languages": "pass", "tokens": "pass", "latency": "invalid",
    }  # fmt: skip
    assert (verdict.verdict, verdict.exit_code) == ("pass", 0)


def test_a_first_gate_that_does_not_pass_leaves_the_others_untested(run: Run) -> None:
    verdict = judged(run, OWN, MEDIUM, LOW, samples=worse(arm=(0.17, 0.75, 0.80)))
    assert names_and_verdicts(verdict) == {"accuracy": "fail", "medium": "inconclusive", "low": "inconclusive"}
    alone = judged(run, OWN, {**MEDIUM, "after": None}, samples=worse(arm=(0.17, 0.75, 0.80)))
    assert names_and_verdicts(alone)["medium"] == "pass"


def test_a_gate_that_fails_and_is_not_required_blocks_nothing(run: Run) -> None:
    verdict = judged(run, OWN, {**MEDIUM, "required": False}, samples=worse(arm=(0.17, 0.30, 0.98)))
    assert names_and_verdicts(verdict) == {"accuracy": "pass", "medium": "fail"}
    assert verdict.exit_code == 0


def test_the_circumstances_stand_beside_the_numbers(run: Run) -> None:
    evidence = judged(run, {**OWN, "reason": "agreed with the owner"}).gates[0].evidence
    assert (evidence["arms_tried"], evidence["selected_on"], evidence["training_seeds"]) == (4, "stories@select", 1)
    assert (evidence["looks"], evidence["looks_allowed"], evidence["df"], evidence["languages"]) == (1, 1, 249, 5)
    assert {"se", "power", "detectable", "design_effect", "icc", "truncated_share", "gained", "lost", "worst", "best"} <= set(evidence)
    assert judged(run, {**OWN, "reason": "agreed with the owner"}).gates[0].margin_reason == "agreed with the owner"


def test_a_verdict_comes_back_from_its_file_and_another_schema_is_refused(run: Run, tmp_path: Path) -> None:
    verdict = judged(run, OWN, LANGUAGES, TOKENS, LATENCY)
    write_verdict(tmp_path, verdict)
    assert read_verdict(tmp_path) == verdict
    state = json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))
    assert list(state) == ["schema", "verdict", "exit_code", "gates"]
    (tmp_path / "verdict.json").write_text(json.dumps({**state, "schema": 2}), encoding="utf-8")
    with pytest.raises(Exception, match="verdict.json has schema 2, this effortbench reads 1: delete it and judge again"):
        read_verdict(tmp_path)


# --- the baseline


def test_a_gate_that_can_do_without_a_baseline_is_left_out_where_there_is_none(run: Run) -> None:
    verdict = judged(run, OWN, {**DRIFT, "needs_baseline": False})
    assert names_and_verdicts(verdict) == {"accuracy": "pass", "drift": "invalid"}
    assert (verdict.exit_code, verdict.gates[1].required, verdict.gates[1].flags) == (0, False, ("no_baseline",))
    assert judged(run, OWN, DRIFT).exit_code == 4


def test_a_gate_that_can_do_without_a_baseline_uses_the_one_there_is(run: Run) -> None:
    environment = dataclasses.replace(run.environment, started_at=EARLIER)
    baseline = of_run(dataclasses.replace(run, environment=environment))
    assert isinstance(baseline, Baseline)
    lenient = {**DRIFT, "needs_baseline": False}
    assert judged(run, OWN, lenient, baseline=baseline).gates[1].verdict == "pass"
    lost = judged(run, {**OWN, "margin": 0.5}, lenient, baseline=baseline, samples=worse(arm=(0.17, 0.75, 0.80)))
    assert (names_and_verdicts(lost), lost.exit_code) == ({"accuracy": "pass", "drift": "fail"}, 1)
    for unusable in ("it is damaged", dataclasses.replace(baseline, suite_revision="def")):
        assert judged(run, OWN, lenient, baseline=unusable).exit_code == 4


def test_an_invalid_gate_against_base_is_never_left_out(run: Run) -> None:
    verdict = judged(run, OWN, {**MEDIUM, "after": None, "min_clusters": 251, "needs_baseline": False})
    assert (names_and_verdicts(verdict), verdict.exit_code) == ({"accuracy": "pass", "medium": "invalid"}, 4)
    unfinished = judged(run, {**OWN, "needs_baseline": False}, finished=False)
    assert (unfinished.exit_code, unfinished.gates[0].required) == (4, True)


# --- the selection's data


def test_an_arm_is_not_judged_on_what_selected_it(run: Run) -> None:
    assert run.selection is not None
    same = dataclasses.replace(run.selection, split="gate")
    verdict = judged(run, OWN, selection=same)
    assert (verdict.verdict, "was selected on stories@gate" in verdict.gates[0].reasons[0]) == ("invalid", True)


def test_a_prompt_that_both_splits_ask_is_found_out(run: Run) -> None:
    samples = run.samples.copy()
    selecting = samples.index[samples["split"] == "select"][:3]
    samples.loc[selecting, "prompt_hash"] = samples.loc[samples["split"] == "gate", "prompt_hash"].iloc[:3].to_numpy()
    verdict = judged(run, OWN, samples=samples)
    assert verdict.verdict == "invalid"
    assert "3 prompts of stories@gate were also asked to select the arm" in verdict.gates[0].reasons[0]


def test_an_adapter_that_was_chosen_on_the_gates_data_is_refused() -> None:
    adapter = {"name": "ours", "path": "ours", "selected_on": ["stories@select", "stories@gate"]}
    with pytest.raises(ExperimentError, match="adapter ours was selected on stories@gate"):
        asked(OWN, adapters=[adapter], finetune=None, select=None)
    asked(OWN, adapters=[{**adapter, "selected_on": ["stories@select"]}], finetune=None, select=None)


def test_an_adapter_that_was_chosen_on_the_same_problems_under_another_suites_name_is_refused(tmp_path: Path) -> None:
    """stories_plain asks the problems of stories without a word on the reasoning language."""
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}', encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    data = fabricate_experiment().model_dump(mode="json") | {"model": {"id": "embedded", "load_in_4bit": False, "dtype": "float32"}}
    adapter = {"name": "ours", "path": str(tmp_path)}
    changes: dict[str, Any] = {"finetune": None, "select": None, "model": data["model"]}
    with pytest.raises(SuiteError, match="adapter ours was selected on stories_plain@gate, the same problems as stories@gate"):
        preflight(asked(OWN, adapters=[{**adapter, "selected_on": ["theirs@gate", "stories_plain@gate"]}], **changes))
    preflight(asked(OWN, adapters=[{**adapter, "selected_on": ["theirs@gate", "stories_plain@select"]}], **changes))


# --- looks


SAMPLED: dict[str, Any] = {"temperature": 1.0}


def looked(run: Run, margin: float = 0.05, extended: bool = False, looks: tuple[Look, ...] | None = None, **changes: Any) -> Run:
    """The run as of an experiment with an extension of one sample; `extended`: with that sample."""
    data = fabricate_experiment().model_dump(mode="json")
    evaluate = {**data["evaluate"], **SAMPLED}
    experiment = asked({**OWN, "margin": margin}, evaluate=evaluate, extension={"samples": 1})
    samples, cells = run.samples, run.cells
    if extended:
        import pandas as pd

        again = samples[samples["split"] == "gate"].assign(sample_index=1)
        samples = pd.concat([samples, again], ignore_index=True)
        cells = tuple(dataclasses.replace(cell, samples=2 * (cell.samples or 0)) if cell.split == "gate" else cell for cell in cells)
    made = dataclasses.replace(run, experiment=experiment, samples=samples, cells=cells, **changes)
    return dataclasses.replace(made, looks=looks if looks is not None else (look(made, first_look(made)),))


def test_a_pass_over_two_permitted_looks_says_how_sure_it_is(run: Run) -> None:
    gate = judge_run(looked(run)).gates[0]
    assert gate.verdict == "pass"
    assert "is ruled out at 97.5 % one-sided confidence per look (95 % over the two permitted looks) (difference" in gate.reasons[0]
    assert (gate.evidence["looks"], gate.evidence["looks_allowed"]) == (1, 2)


def test_every_gate_on_answers_says_that_its_confidence_is_that_of_one_look(run: Run) -> None:
    declared = looked(run)
    gates = [*declared.experiment.gates, Gate(**LANGUAGES), Gate(**TOKENS)]
    twice = dataclasses.replace(declared, experiment=declared.experiment.model_copy(update={"gates": gates}))
    _, languages, tokens = judge_run(twice).gates
    assert "one-sided 2.5 % per look; " in languages.reasons[0]
    assert "one-sided confidence per look (95 % over the two permitted looks)" in tokens.reasons[0]
    _, languages, tokens = judged(run, OWN, LANGUAGES, TOKENS).gates
    assert "per look" not in languages.reasons[0] + tokens.reasons[0]


def test_the_first_look_does_not_see_later_samples(run: Run) -> None:
    plain, extended = looked(run), looked(run, extended=True)
    assert first_look(extended).gates[0].ci == first_look(plain).gates[0].ci
    assert first_look(extended).gates[0].evidence["samples_per_item"] == 1


def test_two_looks_are_pooled_and_told(run: Run) -> None:
    first = (Look(1, "inconclusive", {"accuracy": "inconclusive"}, "x"),)
    gate = judge_run(looked(run, extended=True, looks=first)).gates[0]
    assert (gate.evidence["samples_per_item"], gate.evidence["looks"]) == (2, 2)


@pytest.mark.parametrize("said", ["pass", "fail", "invalid"])
def test_a_run_that_was_extended_without_need_is_invalid(run: Run, said: Any) -> None:
    verdict = judge_run(looked(run, extended=True, looks=(Look(1, said, {}, "x"),)))
    assert (verdict.verdict, f"though its first look said {said}" in verdict.gates[0].reasons[0]) == ("invalid", True)


def test_a_declared_look_that_was_not_recorded_is_invalid_and_so_is_one_not_declared(run: Run) -> None:
    assert "no record of a first look" in judge_run(looked(run, looks=())).gates[0].reasons[0]
    verdict = judged(run, OWN, looks=(Look(1, "inconclusive", {}, "x"),))
    assert (verdict.verdict, "declares no extension" in verdict.gates[0].reasons[0]) == ("invalid", True)


@pytest.mark.parametrize(("said", "extends"), [("pass", False), ("fail", False), ("invalid", False), ("inconclusive", True)])
def test_only_an_inconclusive_look_is_followed_by_more_samples(said: Any, extends: bool) -> None:
    assert is_to_be_extended(Look(1, said, {}, "x")) == extends


def test_other_answers_are_another_look(run: Run) -> None:
    cells = tuple(dataclasses.replace(cell, key="other") if cell.arm == "base" else cell for cell in run.cells)
    assert looked_at(run.cells, "r16-s200") == looked_at(run.cells[::-1], "r16-s200") != looked_at(cells, "r16-s200")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"extension": {"samples": 4}}, "extension needs temperature > 0"),
        ({"extension": {"samples": 4}, "gates": []}, "extension needs `gates`"),
        ({"extension": {"samples": 0}}, "extension.samples"),
        ({"extension": {"samples": 4, "max": 3}}, "extension.max: unknown key"),
        ({"gates": [{**OWN, "after": "medium"}, {**MEDIUM, "after": None}]}, "comes after 'medium': expected a gate that stands before it"),
        ({"gates": [{**OWN, "after": "accuracy"}]}, "cannot come after itself"),
        ({"gates": [{**OWN, "required": False}]}, "no gate is required"),
        ({"gates": [{**OWN, "type": "max_ratio"}]}, "max_ratio compares tokens or seconds"),
        ({"gates": [{**TOKENS, "type": "language_guard"}]}, "a language_guard looks at a share"),
        ({"gates": [{**TOKENS, "relative": True}]}, "has no use for it"),
        ({"gates": [{**LANGUAGES, "margin": 0}]}, "a language_guard gate needs margin > 0"),
        ({"gates": [{**OWN, "relative": True, "margin": 1.0}]}, "a relative margin is a share"),
        ({"gates": [OWN, {**LATENCY, "required": True}]}, "gate latency needs 6 timing blocks"),
        ({"gates": [OWN, {**LATENCY, "required": True}], "timing": {"effort": "high", "blocks": 5}}, "needs 6 timing blocks"),
        ({"gates": [OWN, LATENCY], "timing": {"effort": "low"}}, "asks for high effort, timing measures low"),
        ({"gates": [OWN, {**LATENCY, "against": "baseline"}]}, "another session's"),
        ({"gates": [OWN, {**LATENCY, "concurrency": 4}], "timing": {"effort": "high"}}, "concurrency 4, timing measures 1 and 8"),
        ({"timing": {"effort": "high", "requests": 7}}, "7 requests a block never run 8 side by side"),
        ({"gates": [{**OWN, "concurrency": 8}]}, "concurrency belongs to a max_ratio of seconds"),
        ({"gates": [{**OWN, "metric": "inter_token_s"}]}, "inter_token_s is measured by the probe alone"),
        ({"timing": {"effort": "high", "adapter": "merged"}, "model": {"id": "embedded"}}, "merging would round the 4-bit weights again"),
        ({"vram": {"repeats": 1}, "gates": []}, "vram needs `gates`"),
        ({"vram": {"repeats": 1}, "gates": [{**OWN, "name": "vram"}]}, "is taken by the `vram` block"),
        ({"vram": {"max": 1}}, "vram.max: unknown key"),
        ({"gates": [{**OWN, "min_planned_power": 1}]}, "min_planned_power"),
    ],
)
def test_what_does_not_fit_together_is_refused_when_it_loads(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ExperimentError, match="a test: ") as error:
        asked(*changes.pop("gates", [OWN]), **changes)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_an_extension_cannot_ask_a_baseline_again() -> None:
    evaluate = {**fabricate_experiment().model_dump(mode="json")["evaluate"], **SAMPLED}
    with pytest.raises(ExperimentError, match="a committed baseline cannot be asked again"):
        asked(OWN, DRIFT, evaluate=evaluate, extension={"samples": 1})


# --- before anything is run


class _StoppedError(Exception):
    """Where training would begin."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise _StoppedError

    monkeypatch.setattr("bench.cli._run", stop)


def gates_option(*gates: dict[str, Any]) -> list[str]:
    return ["--set", f"gates={json.dumps(gates)}"]


def test_a_missing_baseline_is_told_before_anything_is_trained(call: Any, started: None) -> None:  # noqa: F811
    for needs, is_told in ((True, True), (False, False)):
        answer = call("bench", "embedded", *gates_option(OWN, {**DRIFT, "needs_baseline": needs}))
        told = "warning: gate drift will be invalid: no baseline for embedded on "
        assert (told in answer.err) == is_told
        assert answer.code == 70  # _StoppedError: it did go on


def test_an_underpowered_design_is_refused_before_anything_is_trained(call: Any, started: None) -> None:  # noqa: F811
    weak = {**OWN, "margin": 0.02, "planned_sd": 0.2}
    assert_one_line(call("bench", "embedded", *gates_option(weak)), "gate accuracy is under-powered: with planned_sd 0.2", "35 %")
    assert call("bench", "embedded", *gates_option({**weak, "allow_underpowered": True})).code == 70
    assert call("bench", "embedded", *gates_option({**weak, "planned_sd": 0.1})).code == 70
    assert call("bench", "embedded", "--limit", "5", *gates_option(weak)).code == 70


# --- the page that says all this


def documented() -> str:
    return (Path(__file__).parent.parent / "docs" / "gates.md").read_text(encoding="utf-8")


def test_the_documented_example_loads_and_every_key_is_documented() -> None:
    example = yaml.safe_load(documented().split("```yaml")[1].split("```")[0])
    data = fabricate_experiment().model_dump(mode="json")
    one_arm = {**data["finetune"], "ranks": [8], "steps": [40]}
    experiment = parse_experiment({**data, "select": None, "finetune": one_arm, **example}, "docs/gates.md")
    assert {gate.type for gate in experiment.gates} == {"non_inferiority", "max_ratio", "language_guard"}
    for block in (Gate, Vram, Timing, Extension):
        for key in block.model_fields:
            assert f"\n| `{key}` |" in documented(), key


def test_every_name_of_the_evidence_is_documented(run: Run) -> None:
    gates = judged(run, OWN, LANGUAGES, TOKENS).gates
    for name in {name for gate in gates for name in gate.evidence} - {f"{outcome}_share" for outcome in OUTCOMES}:
        assert f"`{name}`" in documented(), name
