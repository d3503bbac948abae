"""Ways to break a gate open: each is made in a copy of the code, and the test named beside it must fail there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


class Mutation(NamedTuple):
    what: str
    file: str
    code: str
    broken: str
    test: str


MUTATIONS = [
    Mutation(
        "swap the arms", "comparison", "_item_means(before[kept], items), _item_means(after[kept], items)",
        "_item_means(after[kept], items), _item_means(before[kept], items)", "test_comparison.py::test_comparison_is_the_paired_t_test_on_",
    ),
    Mutation(
        "join what is on both sides", "comparison", "    if len(lost) or len(extra):", "    if False:",
        "test_gate.py::test_dropping_the_items_that_got_worse_is_invalid",
    ),
    Mutation(
        "count rows, not problems", "comparison", "items[:split][order_before]", "rows[:split][order_before]",
        "test_gate.py::test_more_languages_do_not_make_up_for_missing_problems",
    ),
    Mutation(
        "halve the fewest problems", "gate", "    needed = required_clusters(gate)", "    needed = required_clusters(gate) // 2",
        "test_gate.py::test_identical_outputs_on_too_few_problems_do_not_pass",
    ),
    Mutation(
        "let a touched margin pass", "gate", "if gain.low > threshold:", "if gain.low >= threshold:",
        "test_gate.py::test_touching_the_margin_is_not_a_pass",
    ),
    Mutation(
        "let the best gate win", "gate", "return max((gate.verdict for", "return min((gate.verdict for",
        "test_gate.py::test_the_worst_gate_wins",
    ),
    Mutation(
        "let a waiver turn the verdict", "gate", "replace(verdict, gates=gates,", 'replace(verdict, verdict="pass", gates=gates,',
        "test_gate.py::test_a_waiver_changes_the_exit_code_and_never_the_verdict",
    ),
    Mutation(
        "take any comparison", "gate", "if comparison.against != gate.against:", "if False:",
        "test_gate.py::test_swapped_arms_are_invalid",
    ),
    Mutation(
        "forget what was planned", "gate", "if held[key] != planned[key]:", "if False:",
        "test_baseline.py::test_a_cell_lost_on_both_sides_is_invalid",
    ),
    Mutation(
        "compare with the baseline's base", "judging", '== baseline.arm].assign(arm="baseline")', '== "base"].assign(arm="baseline")',
        "test_baseline.py::test_equal_scores_pass_and_a_loss_against_the_baseline_fails",
    ),
    Mutation(
        "do without a baseline", "judging", "return baseline or no_baseline(run)", "return None",
        "test_baseline.py::test_without_a_baseline_the_verdict_is_invalid",
    ),
    Mutation(
        "take any machine's baseline", "baseline", '("hardware", baseline.hardware, run.environment.hardware)', '("", "", "")',
        "test_baseline.py::test_another_machine_has_another_baseline",
    ),
    Mutation(
        "take any suite's baseline", "baseline", "baseline.suite_revision, revision)", "revision, revision)",
        "test_baseline.py::test_what_was_asked_otherwise_is_invalid",
    ),
    Mutation(
        "trust damaged scores", "baseline", '!= scores["sha256"]', "== 0",
        "test_baseline.py::test_scores_that_were_cut_changed_or_swapped_are_invalid",
    ),
    Mutation(
        "read any schema", "baseline", "if schema != SCHEMA:", "if False:", "test_baseline.py::test_a_damaged_record_is_invalid",
    ),
    Mutation(
        "let a run be its own baseline", "baseline", "if baseline.environment == run.environment and", "if False and",
        "test_baseline.py::test_a_run_is_not_its_own_baseline",
    ),
    Mutation(
        "promote an invalid run", "baseline", "        if reasons:\n", "        if False:\n",
        "test_baseline.py::test_a_run_that_is_unfinished_not_judged_or_invalid_is_refused",
    ),
    Mutation(
        "skip the order of the gates", "gate", 'if first is not None and first.verdict != "pass" and', "if False and",
        "test_gate.py::test_a_gate_after_one_that_did_not_pass_claims_nothing",
    ),
    Mutation(
        "pass without a required gate", "gate", 'if gate.required), "invalid")', 'if gate.required), "pass")',
        "test_gate.py::test_a_gate_that_is_not_required_decides_nothing",
    ),
    Mutation(
        "take before for a constant", "gate", "(share**2 - share) * before**2 + share * both**2", "0.0",
        "test_gate.py::test_the_relative_interval_is_the_t_interval_of_after_minus_share_of_before",
    ),
    Mutation(
        "forget the score interval", "gate", 'read(_moved(score, comparison, gate), gate) != "pass"', "False",
        "test_gate.py::test_near_the_ceiling_the_score_interval_must_pass_too",
    ),
    Mutation(
        "trust the t interval of a few losses", "comparison", "swing=estimate.swing if is_share else None", "swing=None",
        "test_gate.py::test_a_few_problems_lost_do_not_pass_far_from_the_ceiling_either",
    ),
    Mutation(
        "forget what truncated answers hide", "gate", 'read(_moved(comparison.worst_ci, comparison, gate), gate) != "pass"', "False",
        "test_gate.py::test_a_pass_that_depends_on_unscored_items_is_inconclusive",
    ),
    Mutation(
        "move a relative gain the wrong way", "gate", "else -gate.margin) * (comparison", "else gate.margin) * (comparison",
        "test_gate.py::test_a_relative_gain_that_depends_on_unscored_items_is_inconclusive",
    ),
    Mutation(
        "let an adapter be judged on what chose it", "runner", "_check_selected_elsewhere(suites, adapter, experiment.confirm)", "pass",
        "test_judging.py::test_an_adapter_that_was_chosen_on_the_same_problems_under_another_suites_name",
    ),
    Mutation(
        "forget the planned power", "gate", "if power is not None and power < gate.min_planned_power and", "if power is None and False and",
        "test_gate.py::test_an_underpowered_design_is_invalid_unless_it_is_allowed",
    ),
    Mutation(
        "judge on the selection's problems", "gate", "len(prompts[0] & prompts[1])", "0",
        "test_judging.py::test_a_prompt_that_both_splits_ask_is_found_out",
    ),
    Mutation(
        "drop Holm", "language_guard", "stats.holm([p_value(each, gate.margin) for each in languages])",
        "[p_value(each, gate.margin) for each in languages]",
        "test_language_guard.py::test_a_loss_that_only_an_uncorrected_test_would_call_one_does_not_fail",
    ),
    Mutation(
        "overlook a language", "language_guard", "not refusals and sorted(overall.languages)", "False and sorted(overall.languages)",
        "test_language_guard.py::test_a_comparison_that_was_not_made_in_each_language_is_invalid",
    ),
    Mutation(
        "take unmeasured memory for none", "costs", '"invalid", f"peak memory was not measured', '"pass", f"peak memory was not measured',
        "test_costs.py::test_memory_that_rises_or_was_not_measured_does_not_pass",
    ),
    Mutation(
        "overlook a pass whose memory was not measured", "costs", "if known and len(known) == len(passes) else", "if known else",
        "test_costs.py::test_one_measurement_is_that_of_every_pass_over_the_gates_data",
    ),
    Mutation(
        "take the arm's memory for base's", "costs", "if phase.arm == arm and (phase.suite,", "if (phase.suite,",
        "test_costs.py::test_one_measurement_is_that_of_every_pass_over_the_gates_data",
    ),
    Mutation(
        "believe one measurement of memory", "costs", 'if numbers["measured"] < vram.repeats:', "if False:",
        "test_costs.py::test_memory_that_rises_or_was_not_measured_does_not_pass",
    ),
    Mutation(
        "let a touched ratio pass", "costs", "if interval.high < limit:", "if interval.high <= limit:",
        "test_costs.py::test_a_ratio_is_held_against_its_limit",
    ),
    Mutation(
        "believe a single session's seconds", "costs", "if len(timed) < max(2, gate.min_blocks):", "if len(timed) < 2:",
        "test_costs.py::test_few_blocks_are_invalid_whatever_a_single_session_says",
    ),
    Mutation(
        "leave out what wrote nothing", "costs", "not refusals and comparison.without_ratio", "False and comparison.without_ratio",
        "test_costs.py::test_answers_without_a_token_are_left_out_counted_and_too_many_are_invalid",
    ),
    Mutation(
        "look until it is green", "judging", 'if _is_extended(run) and run.looks[0].verdict != "inconclusive":', "if False:",
        "test_judging.py::test_a_run_that_was_extended_without_need_is_invalid",
    ),
    Mutation(
        "ask a failed run again", "judging", 'return first.verdict == "inconclusive"', 'return first.verdict != "pass"',
        "test_judging.py::test_only_an_inconclusive_look_is_followed_by_more_samples",
    ),
    Mutation(
        "look at samples to come", "judging", 'run.samples[run.samples["sample_index"] < samples]', "run.samples",
        "test_judging.py::test_the_first_look_does_not_see_later_samples",
    ),
    Mutation(
        "leave out what cannot be judged", "judging", 'is_left_out = gate.against == "baseline" and baseline', "is_left_out = baseline",
        "test_judging.py::test_an_invalid_gate_against_base_is_never_left_out",
    ),
    Mutation(
        "take a damaged baseline for none", "judging", "baseline is None and not gate.needs_baseline", "not gate.needs_baseline",
        "test_judging.py::test_a_gate_that_can_do_without_a_baseline_uses_the_one_there_is",
    ),
]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_a_gate_broken_open_fails_a_test(mutation: Mutation, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "suites").symlink_to(ROOT / "suites")
    path = tmp_path / "bench" / f"{mutation.file}.py"
    code = path.read_text(encoding="utf-8")
    assert code.count(mutation.code) == 1, "the mutation no longer fits the code"
    path.write_text(code.replace(mutation.code, mutation.broken), encoding="utf-8")
    file, _, name = mutation.test.partition("::")
    assert f"def {name}" in (ROOT / "tests" / file).read_text(encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "-k", name]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command += ["-c", str(ROOT / "pyproject.toml"), str(ROOT / "tests" / file)]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, ran.stdout[-2000:]
    assert "failed" in ran.stdout
