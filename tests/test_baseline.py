"""A baseline is made of a judged run only, comes back as it went in, and anything amiss with it is invalid, never a pass."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fabricated import ACCURACY, fabricate_environment, fabricate_experiment, fabricate_run, fabricate_samples
from test_store import write_run

from bench.baseline import BASELINES, FILE, SCORE_COLUMNS, check_path, find_baseline, folder_of, no_baseline, of_run, promote, read_baseline
from bench.catalog import find_suite
from bench.errors import BaselineError, RunFolderError
from bench.experiment import Experiment, load_experiment, parse_experiment
from bench.judging import judge_run
from bench.records import Baseline, Environment, Run

DRIFT = {"name": "drift", "metric": "accuracy", "effort": "high", "against": "baseline", "margin": 0.05}
OWN = {"name": "accuracy", "metric": "accuracy", "effort": "high", "margin": 0.05}
EARLIER = "2025-12-01T08:00:00+00:00"


def asked(*gates: dict[str, Any], **changes: Any) -> Experiment:
    data = fabricate_experiment().model_dump(mode="json")
    return parse_experiment({**data, "gates": list(gates), **changes}, "a test")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of today, with a gate of its own and one against the baseline, not judged."""
    made = fabricate_run(tmp_path_factory.mktemp("run") / "run", select_problems=2)
    return dataclasses.replace(made, experiment=asked(OWN, DRIFT), verdict=None, suite_revisions={"stories": "abc"})


def judged(run: Run) -> Run:
    return dataclasses.replace(run, verdict=judge_run(run))


def earlier(run: Run, **changes: Any) -> Run:
    """The same run, made at another time."""
    environment = dataclasses.replace(run.environment, started_at=EARLIER)
    return dataclasses.replace(run, **{"environment": environment, **changes})


@pytest.fixture
def root(run: Run, tmp_path: Path) -> Path:
    """A committed baseline of the same hardware."""
    promote(judged(earlier(run)), root=tmp_path)
    return tmp_path


def drift(run: Run, baseline: Baseline | str | None) -> tuple[str, str]:
    """Verdict and first reason of the gate against the baseline."""
    verdict = next(gate for gate in judge_run(run, baseline).gates if gate.name == "drift")
    return verdict.verdict, verdict.reasons[0]


def folder(run: Run, root: Path) -> Path:
    return folder_of(run, root)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


# --- making one


def test_a_promoted_run_comes_back_without_its_texts(run: Run, root: Path) -> None:
    baseline = read_baseline(folder(run, root))
    assert folder(run, root) == root / "embedded" / "cpu"
    assert (baseline.experiment, baseline.hardware, baseline.arm, baseline.suite_revision) == ("embedded", "cpu", "r16-s200", "abc")
    assert (baseline.suite, baseline.split, baseline.reason) == ("stories", "gate", None)
    assert set(baseline.samples["arm"]) == {"base", "r16-s200"}
    assert set(baseline.samples["split"]) == {"gate"}
    made = of_run(earlier(run))
    assert isinstance(made, Baseline)
    pd.testing.assert_frame_equal(baseline.samples, made.samples)
    assert dataclasses.replace(made, samples=None, promoted_at=None) == dataclasses.replace(baseline, samples=None, promoted_at=None)
    assert not {"completion", "answer", "error", "prompt"} & set(SCORE_COLUMNS)
    state = json.loads((folder(run, root) / FILE).read_text(encoding="utf-8"))
    assert (state["schema"], state["git_commit"]) == (1, run.environment.git_commit)
    assert "completion" not in json.dumps(state)
    assert sum(path.stat().st_size for path in folder(run, root).iterdir()) < 200_000


def test_a_run_that_is_unfinished_not_judged_or_invalid_is_refused(run: Run, tmp_path: Path) -> None:
    whole = judged(earlier(run))
    few = run.samples[~((run.samples["arm"] == "base") & (run.samples["item_id"] == "gate-0003"))]
    refused = {
        "is not finished": dataclasses.replace(whole, finished=False),
        "has not been judged": dataclasses.replace(whole, verdict=None),
        "gate accuracy is invalid": judged(dataclasses.replace(whole, samples=few)),
        "r16-s200 failed": judged(dataclasses.replace(whole, failed_arms={"r16-s200": "out of memory"})),
        "which revision of suite stories": dataclasses.replace(whole, suite_revisions={}),
        "holds 249 of 250 planned": dataclasses.replace(whole, samples=few),
    }
    for expected, each in refused.items():
        with pytest.raises(BaselineError, match=expected) as error:
            promote(each, root=tmp_path)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_first_baseline_can_be_made_though_the_gate_against_it_is_invalid(run: Run, tmp_path: Path) -> None:
    whole = judged(run)
    assert whole.verdict is not None
    assert [gate.verdict for gate in whole.verdict.gates] == ["pass", "invalid"]
    promote(whole, root=tmp_path)


def test_a_run_too_small_for_the_gate_against_the_baseline_makes_none(run: Run, tmp_path: Path) -> None:
    large = asked(OWN, {**DRIFT, "min_clusters": 251})
    with pytest.raises(BaselineError, match="gate drift is invalid .250 problems are too few"):
        promote(judged(dataclasses.replace(run, experiment=large)), root=tmp_path)


def test_an_older_baseline_is_replaced_only_with_a_reason(run: Run, root: Path) -> None:
    better = judged(dataclasses.replace(run, samples=run.samples.assign(output_tokens=1)))
    before = {path.name: path.read_bytes() for path in folder(run, root).iterdir()}
    for reason in (None, "", "  "):
        with pytest.raises(BaselineError, match="--reason TEXT"):
            promote(better, reason, root)
    assert {path.name: path.read_bytes() for path in folder(run, root).iterdir()} == before
    promote(better, " release 2 ", root)
    baseline = read_baseline(folder(run, root))
    assert (baseline.reason, set(baseline.samples["output_tokens"])) == ("release 2", {1})
    assert len(list(folder(run, root).iterdir())) == 2


def test_a_promotion_that_breaks_off_leaves_the_old_baseline(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = read_baseline(folder(run, root))
    monkeypatch.setattr("bench.baseline.write_atomic", full)
    with pytest.raises(BaselineError, match="No space left"):
        promote(judged(dataclasses.replace(run, samples=run.samples.assign(output_tokens=1))), "new", root)
    after = read_baseline(folder(run, root))
    assert (after.promoted_at, len(after.samples)) == (before.promoted_at, len(before.samples))


# --- judging against one


def test_equal_scores_pass_and_a_loss_against_the_baseline_fails(run: Run, root: Path) -> None:
    baseline = find_baseline(run, None, root)
    assert drift(run, baseline)[0] == "pass"
    worse = fabricate_samples(("base", "r16-s200"), "stories", "gate", 250, {**ACCURACY, "r16-s200": (0.1, 0.5, 0.8)}, seed=13)
    verdict = judge_run(dataclasses.replace(run, samples=worse), baseline)
    assert [gate.verdict for gate in verdict.gates] == ["fail", "fail"]
    assert [gate.against for gate in verdict.gates] == ["base", "baseline"]
    assert verdict.gates[1].before == pytest.approx(judge_run(run).gates[0].after)


def test_a_loss_against_the_baseline_fails_though_base_is_no_better(run: Run, root: Path) -> None:
    """Comparing with this run's own base would let this through."""
    low = {**ACCURACY, "base": (0.1, 0.5, 0.8), "r16-s200": (0.1, 0.5, 0.8)}
    samples = fabricate_samples(("base", "r16-s200"), "stories", "gate", 250, low, seed=13)
    verdict = judge_run(dataclasses.replace(run, samples=samples), find_baseline(run, None, root))
    assert [gate.verdict for gate in verdict.gates] == ["pass", "fail"]


def test_without_a_baseline_the_verdict_is_invalid(run: Run, tmp_path: Path) -> None:
    found = find_baseline(run, None, tmp_path)
    assert found is None
    assert drift(run, found) == ("invalid", no_baseline(run))
    assert drift(run, None)[1].startswith("no baseline for embedded on cpu: ")
    assert str(BASELINES / "embedded" / "cpu") in drift(run, None)[1]
    assert judge_run(run, found).exit_code == 4


def test_another_machine_has_another_baseline(run: Run, root: Path) -> None:
    gpu = dataclasses.replace(run, environment=fabricate_environment(gpu=True))
    assert drift(gpu, find_baseline(gpu, None, root))[1].startswith("no baseline for embedded on nvidia-h100-80gb-hbm3: ")
    given = find_baseline(gpu, folder(run, root), root)
    assert drift(gpu, given)[0] == "invalid"
    assert "another hardware: cpu there, nvidia-h100-80gb-hbm3 here" in drift(gpu, given)[1]


def test_what_was_asked_otherwise_is_invalid(run: Run, root: Path) -> None:
    baseline = find_baseline(run, None, root)
    asking = run.experiment.evaluate.model_dump(mode="json")
    limits = {**asking["max_new_tokens"], "high": 512}
    other = {
        "another suite stories: abc there, def here": {"suite_revisions": {"stories": "def"}},
        "abc there, an unknown revision here": {"suite_revisions": {}},
        "another experiment: embedded there, other here": {"experiment": asked(OWN, DRIFT, name="other")},
        "max_new_tokens is 256 there and 512 here": {"experiment": asked(OWN, DRIFT, evaluate={**asking, "max_new_tokens": limits})},
        "another scorer of stories: its own there, answer here": {
            "experiment": asked(OWN, DRIFT, evaluate={**asking, "scorer": {"stories": "answer"}})
        },
        "temperature is 0.0 there and 1.0 here": {"experiment": asked(OWN, DRIFT, evaluate={**asking, "temperature": 1.0})},
    }
    for expected, changes in other.items():
        verdict, reason = drift(dataclasses.replace(run, **changes), baseline)
        assert (verdict, expected in reason) == ("invalid", True), reason


def test_other_items_prompts_or_targets_than_the_baselines_are_invalid(run: Run, root: Path) -> None:
    baseline = find_baseline(run, None, root)
    for column in ("item_id", "prompt_hash", "target"):
        changed = run.samples.assign(**{column: run.samples[column].astype(str) + "x"})
        assert drift(dataclasses.replace(run, samples=changed), baseline)[0] == "invalid", column


def test_a_run_is_not_its_own_baseline(run: Run, tmp_path: Path) -> None:
    promote(judged(run), root=tmp_path)
    assert drift(run, find_baseline(run, None, tmp_path)) == ("invalid", "the baseline is this very run: it says nothing about itself")


def test_a_cell_lost_on_both_sides_is_invalid(run: Run, root: Path) -> None:
    baseline = find_baseline(run, None, root)
    assert isinstance(baseline, Baseline)
    lost_here = run.samples[run.samples["language"] != "de"]
    lost_there = baseline.samples[baseline.samples["language"] != "de"]
    both = dataclasses.replace(run, samples=lost_here), dataclasses.replace(baseline, samples=lost_there)
    assert drift(*both) == ("invalid", "the cell base, stories@gate, de, high effort holds 0 of 250 planned answers")
    assert drift(run, both[1]) == ("invalid", "the cell r16-s200, stories@gate, de, high effort holds 0 of 250 planned answers")
    assert [gate.verdict for gate in judge_run(both[0], baseline).gates] == ["invalid", "invalid"]


def test_problems_lost_on_both_sides_or_a_cell_without_a_plan_are_invalid(run: Run) -> None:
    hardest = run.samples["item_id"].isin([f"gate-{number:04d}" for number in range(50)])
    assert judge_run(dataclasses.replace(run, samples=run.samples[~hardest])).gates[0].verdict == "invalid"
    unplanned = tuple(dataclasses.replace(cell, samples=None) if cell.language == "fr" else cell for cell in run.cells)
    for cells in (unplanned, tuple(cell for cell in run.cells if cell.language != "fr"), ()):
        verdict = judge_run(dataclasses.replace(run, cells=cells)).gates[0]
        assert (verdict.verdict, "was never planned" in verdict.reasons[0]) == ("invalid", True)
    at_high = [cell for cell in run.cells if (cell.language, cell.effort) == ("fr", "high")]
    dropped = ~((run.samples["language"] == "fr") & (run.samples["effort"] == "high"))
    forgotten = dataclasses.replace(run, samples=run.samples[dropped], cells=tuple(cell for cell in run.cells if cell not in at_high))
    assert judge_run(forgotten).gates[0].verdict == "invalid"


# --- what is damaged


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schema": 2}, "has schema 2, this effortbench reads 1"),
        ({"schema": None}, "has schema None"),
        ({"arm": 7}, "is damaged: ValueError arm is no text"),
        ({"cells": None}, "is damaged: TypeError"),
        ({"environment": {}}, "is damaged: TypeError"),
        ({"hardware": "nvidia-h100-80gb-hbm3"}, "was measured on cpu"),
        ({"scores": {"file": "../../secret.parquet", "sha256": "", "rows": 1}}, "it names scores"),
        ({"scores": {"file": "scores-0.parquet", "sha256": "", "rows": 1}}, "cannot be read"),
        ({"scores": None}, "is damaged: TypeError"),
    ],
)
def test_a_damaged_record_is_invalid(run: Run, root: Path, changes: dict[str, Any], expected: str) -> None:
    edit(folder(run, root) / FILE, **changes)
    verdict, reason = drift(run, find_baseline(run, None, root))
    assert verdict == "invalid"
    assert expected in reason


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}", "[" * 100_000])
def test_a_record_that_is_no_record_is_invalid(run: Run, root: Path, text: str) -> None:
    (folder(run, root) / FILE).write_text(text, encoding="utf-8")
    assert drift(run, find_baseline(run, None, root))[0] == "invalid"


def test_scores_that_were_cut_changed_or_swapped_are_invalid(run: Run, root: Path) -> None:
    path = next(folder(run, root).glob("*.parquet"))
    data = path.read_bytes()
    for damaged in (b"", data[:-100], data[:500] + bytes([data[500] ^ 1]) + data[501:]):
        path.write_bytes(damaged)
        assert "it is not the file that baseline.json describes" in drift(run, find_baseline(run, None, root))[1]
    for damaged, rows in ((b"PAR1", 1), (pd.DataFrame({"score": [1.0]}).to_parquet(), 1)):
        path.write_bytes(damaged)
        edit(folder(run, root) / FILE, scores={"file": path.name, "sha256": hashlib.sha256(damaged).hexdigest(), "rows": rows})
        verdict, reason = drift(run, find_baseline(run, None, root))
        assert (verdict, "is damaged" in reason) == ("invalid", True)


def test_scores_edited_with_their_hash_still_need_all_planned_rows(run: Run, root: Path) -> None:
    path = next(folder(run, root).glob("*.parquet"))
    scores = pd.read_parquet(path)
    asked_at_high = scores[(scores["arm"] == "r16-s200") & (scores["effort"] == "high")]
    scores.drop(index=asked_at_high.index[7]).to_parquet(path, index=False)
    rows = len(scores) - 1
    edit(folder(run, root) / FILE, scores={"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "rows": rows})
    verdict, reason = drift(run, find_baseline(run, None, root))
    assert (verdict, "holds 249 of 250 planned answers" in reason) == ("invalid", True)


def test_a_path_that_is_no_baseline_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        for look in (lambda path=path: find_baseline(run, path), lambda path=path: check_path(path)):
            with pytest.raises(BaselineError, match="neither a baseline nor a run folder") as error:
                look()
            assert error.value.exit_code == 2
    (tmp_path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunFolderError, match="is damaged"):
        find_baseline(run, tmp_path)


def test_a_run_folder_serves_as_a_baseline(run: Run, tmp_path: Path) -> None:
    short = earlier(run, samples=run.samples[run.samples["split"] == "gate"], training={})
    short = dataclasses.replace(short, cells=tuple(cell for cell in run.cells if cell.split == "gate"))
    write_run(short, tmp_path / "old")
    assert "older effortbench" in drift(run, find_baseline(run, tmp_path / "old"))[1]  # write_run records no revision
    state = json.loads((tmp_path / "old" / "run.json").read_text(encoding="utf-8"))
    (tmp_path / "old" / "run.json").write_text(json.dumps({**state, "suite_revisions": {"stories": "abc"}}), encoding="utf-8")
    assert drift(run, find_baseline(run, tmp_path / "old"))[0] == "pass"
    (tmp_path / "old" / "run.json").write_text(json.dumps({**state, "finished": False}), encoding="utf-8")
    assert drift(run, find_baseline(run, tmp_path / "old")) == (
        "invalid", f"{tmp_path / 'old'} cannot be a baseline: the run is not finished: continue it with --resume",
    )  # fmt: skip


def test_hardware_names_stay_inside_the_folder(run: Run, tmp_path: Path) -> None:
    strange: Environment = dataclasses.replace(run.environment, gpu="../../x / y")
    assert folder_of(dataclasses.replace(run, environment=strange), tmp_path).parent == tmp_path / "embedded"


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[1] / BASELINES).glob(f"*/*/{FILE}")), ids=lambda file: file.parent.name)
def test_our_own_committed_baseline_is_of_the_suite_and_decoding_that_we_ship(file: Path) -> None:
    """Else `tox -e bench` ends invalid: whoever changes a suite's files promotes a run of them."""
    baseline, experiment = read_baseline(file.parent), load_experiment(file.parents[1].name)
    assert experiment.confirm is not None
    assert (baseline.suite, baseline.split) == (experiment.confirm.suite, experiment.confirm.split)
    assert baseline.suite_revision == find_suite(baseline.suite).revision
    asked = experiment.evaluate.model_dump(mode="json")
    assert {name: asked[name] for name in baseline.decoding if name in asked} == {k: v for k, v in baseline.decoding.items() if k in asked}
