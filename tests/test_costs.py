"""Tokens by problem, seconds by block, memory by its peak; what was not measured is invalid, never cheap."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated import fabricate_experiment, fabricate_run
from scipy import stats as scipy_stats
from test_comparison import samples_of
from test_stats import LATENCY_AFTER, LATENCY_BEFORE

from bench.comparison import compare
from bench.costs import MIB, judge_blocks, judge_ratio, judge_vram, over_blocks, pair_blocks, read_ratio
from bench.experiment import Experiment, Gate, Vram, parse_experiment
from bench.gate import run_verdict
from bench.judging import judge_run
from bench.records import Comparison, MemoryPass, Run, TimingBlock, Verdict
from bench.stats import Interval

TOKENS = Gate(name="tokens", metric="output_tokens", effort="high", type="max_ratio", margin=0.10)
LATENCY = Gate(name="latency", metric="latency_s", effort="high", type="max_ratio", margin=0.10)
WHERE: dict[str, Any] = {"suite": "stories", "split": "gate", "effort": "high"}
PLACE = ("stories", "gate")


def tokens_of(values: np.ndarray, arm: str) -> pd.DataFrame:
    """Samples with these token counts, shape (items, languages)."""
    return samples_of(np.ones(values.shape), arm=arm).assign(output_tokens=values.ravel().astype(float))


def compared(before: np.ndarray, after: np.ndarray) -> Comparison:
    return compare(tokens_of(before, "base"), tokens_of(after, "r8"), **WHERE, metric="output_tokens")


# --- ratios over problems


def test_the_ratio_is_the_paired_t_test_of_problems_mean_logarithms() -> None:
    rng = np.random.default_rng(3)
    before = rng.integers(20, 200, (120, 3)).astype(float)
    after = np.round(before * rng.lognormal(0.05, 0.3, before.shape)) + 1
    found = compared(before, after)
    logs = np.log(after / before).mean(axis=1)
    low, high = scipy_stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert found.ratio == pytest.approx(math.exp(logs.mean()))
    assert found.ratio_ci == pytest.approx((math.exp(low), math.exp(high)))
    assert found.total_ratio == pytest.approx(after.sum() / before.sum())
    assert found.robust_ratio == pytest.approx(found.ratio, rel=0.05)


def test_repeated_samples_are_averaged_before_the_ratio_is_taken() -> None:
    counts = np.stack([np.full((100, 2), 30.0), np.full((100, 2), 90.0)], axis=2)
    frames = [
        samples_of(np.ones(counts.shape), arm=arm).assign(output_tokens=counts.ravel() * times) for arm, times in (("base", 1), ("r8", 2))
    ]
    found = compare(*frames, **WHERE, metric="output_tokens")
    assert (found.ratio, found.total_ratio) == (pytest.approx(2), pytest.approx(2))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.9, 1.09, "pass"), (0.9, 1.1, "inconclusive"), (1.05, 1.2, "inconclusive"), (1.1, 1.2, "inconclusive"), (1.11, 1.2, "fail")],
)
def test_a_ratio_is_held_against_its_limit(low: float, high: float, verdict: str) -> None:
    assert read_ratio(Interval(low, high), TOKENS) == verdict


@pytest.mark.parametrize(
    ("factor", "verdict", "flags"), [(0.9, "pass", ("improvement_detected",)), (1.3, "fail", ("regression_detected",))]
)
def test_more_tokens_fail_and_fewer_pass(factor: float, verdict: str, flags: tuple[str, ...]) -> None:
    before = np.random.default_rng(4).integers(100, 300, (150, 2)).astype(float)
    judged = judge_ratio(compared(before, before * factor), TOKENS)
    assert (judged.verdict, judged.flags) == (verdict, flags)
    assert f"geometric mean ratio {factor:.3f}" in judged.reasons[0]


def test_answers_without_a_token_are_left_out_counted_and_too_many_are_invalid() -> None:
    before = np.full((200, 5), 100.0)
    few, many = before.copy(), before.copy()
    few[3, 2] = 0
    many[:10, :] = 0
    judged = judge_ratio(compared(before, few), TOKENS)
    assert (judged.verdict, judged.evidence["without_ratio"]) == ("pass", 1)
    assert judged.reasons[1].startswith("1 items x languages have no output_tokens above zero")
    refused = judge_ratio(compared(before, many), TOKENS)
    assert (refused.verdict, "50 of 1000 items x languages" in refused.reasons[0]) == ("invalid", True)


def test_too_few_problems_and_other_comparisons_have_no_ratio_verdict() -> None:
    assert judge_ratio(compared(np.full((99, 5), 100.0), np.full((99, 5), 100.0)), TOKENS).verdict == "invalid"
    other = dataclasses.replace(compared(np.full((200, 1), 9.0), np.full((200, 1), 9.0)), effort="low")
    assert judge_ratio(other, TOKENS).verdict == "invalid"


# --- seconds over blocks


def block_of(number: int, arm: str, latency_s: list[float], **changes: Any) -> TimingBlock:
    """One request of 21 tokens for each time given; a fifth of its time goes by before the first token."""
    n = len(latency_s)
    values: dict[str, Any] = {
        "block": number,
        "arm": arm,
        "effort": "high",
        "concurrency": 1,
        "engine": "slots",
        "adapter": "beside",
        "warm_up": 1,
        "wall_s": sum(latency_s),
        "energy_j": None,
        "items": [f"item-{number}-{at}" for at in range(n)],
        "languages": ["de"] * n,
        "prompt_tokens": [40] * n,
        "output_tokens": [21] * n,
        "ttft_s": [seconds / 5 for seconds in latency_s],
        "latency_s": latency_s,
    }
    return TimingBlock(**values | changes)


def blocks_of(before: list[float], after: list[float], **changes: Any) -> list[TimingBlock]:
    """A block for each pair, of one request."""
    pairs = enumerate(zip(before, after, strict=True))
    return [
        block_of(number, arm, [seconds], **changes) for number, pair in pairs for arm, seconds in zip(("base", "r8"), pair, strict=True)
    ]


def in_blocks(blocks: list[TimingBlock], gate: Gate = LATENCY) -> Verdict:
    measured = compare(samples_of(np.ones((120, 2))), samples_of(np.ones((120, 2)), arm="r8"), **WHERE, metric="latency_s")
    return judge_blocks("r8", blocks, gate, PLACE, measured)


def test_the_ratio_over_blocks_is_the_reference() -> None:
    judged = in_blocks(blocks_of([float(x) for x in LATENCY_BEFORE], [float(x) for x in LATENCY_AFTER]))
    assert judged.evidence["ratio"] == pytest.approx(1.03350703, abs=5e-9)
    assert judged.evidence["robust_ratio"] == pytest.approx(1.03460248, abs=5e-9)
    assert judged.evidence["total_ratio"] == pytest.approx(1.04840045, abs=5e-9)
    assert (judged.evidence["df"], judged.clusters, judged.verdict) == (9, 10, "pass")


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "pass"), (1.1, "inconclusive"), (1.3, "fail")])
def test_a_slower_arm_fails(factor: float, verdict: str) -> None:
    before = [1.0, 1.04, 0.97, 1.02, 0.99, 1.01]
    wobble = [1.01, 0.99, 1.0, 1.02, 0.98, 1.0]
    assert in_blocks(blocks_of(before, [factor * a * b for a, b in zip(before, wobble, strict=True)])).verdict == verdict


def test_few_blocks_are_invalid_whatever_a_single_session_says() -> None:
    judged = in_blocks(blocks_of([1.0] * 5, [0.5] * 5))
    assert judged.verdict == "invalid"
    assert judged.reasons[0].startswith("5 timing blocks are too few: a ratio of latency_s needs at least 6")
    assert "within this one session the ratio was 1.000" in judged.reasons[0]
    assert in_blocks([]).verdict == "invalid"


def test_only_blocks_in_which_both_arms_answered_the_same_requests_count() -> None:
    blocks = blocks_of([1.0] * 7, [1.0] * 7)
    lone = [block for block in blocks if (block.block, block.arm) != (2, "r8")]
    other = [dataclasses.replace(block, items=["another"]) if (block.block, block.arm) == (2, "base") else block for block in blocks]
    tongue = [dataclasses.replace(block, languages=["en"]) if (block.block, block.arm) == (2, "base") else block for block in blocks]
    silent = [dataclasses.replace(block, latency_s=[0.0]) if (block.block, block.arm) == (2, "base") else block for block in blocks]
    for kept in (lone, other, tongue, silent):
        assert in_blocks(kept).clusters == 6
    assert in_blocks(blocks_of([1.0] * 7, [1.0] * 7, effort="low")).verdict == "invalid"


def test_a_gate_is_judged_at_its_own_concurrency_alone() -> None:
    alone, busy = blocks_of([1.0] * 6, [1.0] * 6), blocks_of([2.0] * 6, [3.0] * 6, concurrency=8)
    side_by_side = LATENCY.model_copy(update={"concurrency": 8})
    assert (in_blocks(alone + busy).evidence["ratio"], in_blocks(alone + busy).verdict) == (pytest.approx(1), "pass")
    judged = in_blocks(alone + busy, side_by_side)
    assert (judged.evidence["ratio"], judged.evidence["concurrency"], judged.verdict) == (pytest.approx(1.5), 8, "fail")
    assert "6 blocks, 8 side by side" in judged.reasons[0]
    assert in_blocks(alone, side_by_side).verdict == "invalid"


def test_longer_answers_raise_the_time_of_an_answer_and_not_that_of_a_token() -> None:
    """Twice the tokens at the same pace: 0.2 s to the first token, 40 ms to each further one."""
    blocks = [
        block_of(number, arm, [0.2 + 0.04 * (tokens - 1)], ttft_s=[0.2], output_tokens=[tokens])
        for number in range(6)
        for arm, tokens in (("base", 26), ("r8", 51))
    ]
    whole, pace = (in_blocks(blocks, LATENCY.model_copy(update={"metric": metric})) for metric in ("latency_s", "inter_token_s"))
    assert (whole.verdict, whole.evidence["ratio"]) == ("fail", pytest.approx(2.2 / 1.2))
    assert whole.evidence["token_ratio"] == pytest.approx(51 / 26)
    assert (pace.verdict, pace.evidence["ratio"], pace.before) == ("pass", pytest.approx(1), pytest.approx(0.04))


def test_the_unit_is_the_block_however_many_requests_it_holds() -> None:
    """A session's luck is shared by its requests: 100 of them in six blocks give the interval of six values."""
    rng = np.random.default_rng(5)
    luck = rng.normal(0, 0.04, (6, 2))
    blocks = [
        block_of(number, arm, list(np.exp(luck[number, side] + rng.normal(0, 0.001, 100)))) for number in range(6) for side, arm in
        enumerate(("base", "r8"))
    ]  # fmt: skip
    found = over_blocks(pair_blocks(blocks, "r8", "latency_s", "high", 1))
    low, high = scipy_stats.ttest_1samp(luck[:, 1] - luck[:, 0], 0).confidence_interval(0.95)
    assert found.ratio.interval == pytest.approx((math.exp(low), math.exp(high)), rel=1e-3)


def test_requests_of_one_token_have_no_pace_and_are_counted() -> None:
    blocks = [
        block_of(number, arm, [1.0, 1.0, 1.0], output_tokens=[21, 1, 21] if arm == "r8" else [21, 21, 21])
        for number in range(6)
        for arm in ("base", "r8")
    ]
    judged = in_blocks(blocks, LATENCY.model_copy(update={"metric": "inter_token_s"}))
    assert (judged.verdict, judged.evidence["without_ratio"]) == ("pass", 6)


# --- memory


def experiment(**changes: Any) -> Experiment:
    return parse_experiment(fabricate_experiment().model_dump(mode="json") | changes, "a test")


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which each arm's peak was measured three times."""
    made = fabricate_run(tmp_path_factory.mktemp("gpu") / "run", select_problems=2, gate_problems=2, gpu=True)
    return dataclasses.replace(made, experiment=experiment(vram={}), memory=tuple(peaks_of(13_000, 13_100)))


def peaks_of(before: float | None, after: float | None, reserved: float = 14_000, wobble: float = 0) -> list[MemoryPass]:
    """Three processes an arm whose peaks stand in MiB; the last is `wobble` higher."""
    made = []
    for number in range(3):
        for arm, peak in (("base", before), ("r16-s200", after)):
            size = None if peak is None else round((peak + (wobble if number == 2 else 0)) * MIB)
            made.append(MemoryPass(number, arm, 16, size, round(reserved * MIB)))
    return made


def memory(run: Run, vram: Vram | None = None, **changes: Any) -> Verdict:
    return judge_vram(dataclasses.replace(run, **changes), "r16-s200", vram or Vram())


def test_memory_within_the_allowed_rise_passes(on_gpu: Run) -> None:
    judged = memory(on_gpu)
    assert judged.verdict == "pass"
    assert (judged.delta, judged.margin) == (100 * MIB, pytest.approx((0.02 * 13_000 + 256) * MIB))
    assert judged.reasons == ("peak memory stays within the allowed rise (peak 13,000 MiB before, 13,100 MiB after, 14,336 MiB reserved; 516 MiB more are allowed)",)  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("repeats", "vram", "verdict", "expected"),
    [
        (peaks_of(13_000, 13_516), Vram(), "pass", "within the allowed rise"),
        (peaks_of(13_000, 13_517), Vram(), "fail", "peak memory rises by 517 MiB"),
        (peaks_of(13_000, 13_000), Vram(limit_mib=14_000), "fail", "more memory is reserved than the limit of 14,000 MiB"),
        (peaks_of(13_000, 13_000, reserved=90_000), Vram(), "fail", "more memory is reserved than the limit of 81,920 MiB"),
        (peaks_of(13_000, 13_000, wobble=600), Vram(), "invalid", "varies by 600 MiB, more than the allowed rise"),
        (peaks_of(13_000, 13_000)[:4], Vram(), "invalid", "measured 2 times an arm, 3 are asked for"),
        (peaks_of(13_000, None), Vram(), "invalid", "was not measured of every pass"),
        (peaks_of(None, 13_000), Vram(), "invalid", "was not measured of every pass"),
        ([], Vram(repeats=1), "pass", "within the allowed rise"),
        ([], Vram(), "invalid", "measured 1 time an arm"),
    ],
)
def test_memory_that_rises_or_was_not_measured_does_not_pass(
    on_gpu: Run, repeats: list[MemoryPass], vram: Vram, verdict: str, expected: str
) -> None:
    judged = memory(on_gpu, vram, memory=tuple(repeats))
    assert (judged.verdict, expected in judged.reasons[0]) == (verdict, True), judged.reasons


def passes(run: Run, **changes: Any) -> Run:
    """The run whose own passes are its one measurement: 13,000 MiB each on the gate's data, but for the arm's second one."""
    one = next(phase for phase in run.phases if phase.split == "gate")
    level = {"peak_vram_bytes": 13_000 * MIB, "peak_reserved_bytes": 14_000 * MIB}
    base, arm = (dataclasses.replace(one, arm=name, **level) for name in ("base", "r16-s200"))
    return dataclasses.replace(run, memory=(), phases=(base, arm, dataclasses.replace(arm, **changes)))


@pytest.mark.parametrize(
    ("second", "verdict", "expected"),
    [
        ({}, "pass", "within the allowed rise"),
        ({"peak_vram_bytes": 13_600 * MIB}, "fail", "peak memory rises by 600 MiB"),
        ({"peak_vram_bytes": None}, "invalid", "was not measured of every pass"),
        ({"peak_reserved_bytes": None}, "invalid", "was not measured of every pass"),
        ({"split": "select", "peak_vram_bytes": 20_000 * MIB}, "pass", "within the allowed rise"),
        ({"split": "select", "peak_reserved_bytes": 90_000 * MIB}, "fail", "more memory is reserved than the limit"),
    ],
)
def test_one_measurement_is_that_of_every_pass_over_the_gates_data(
    on_gpu: Run, second: dict[str, Any], verdict: str, expected: str
) -> None:
    judged = memory(passes(on_gpu, **second), Vram(repeats=1))
    assert (judged.verdict, expected in judged.reasons[0]) == (verdict, True), judged.reasons


def test_a_card_of_unknown_size_needs_a_limit(on_gpu: Run) -> None:
    unknown = dataclasses.replace(on_gpu.environment, gpu_memory_bytes=None)
    judged = memory(on_gpu, environment=unknown)
    assert (judged.verdict, "name it with vram.limit_mib" in judged.reasons[0]) == ("invalid", True)
    assert memory(on_gpu, Vram(limit_mib=80_000), environment=unknown).verdict == "pass"


def test_the_probes_process_holds_both_arms_and_is_no_measurement_of_either(on_gpu: Run) -> None:
    judged = memory(on_gpu, timing=tuple(blocks_of([1.0] * 6, [1.0] * 6)), memory=())
    assert (judged.verdict, "measured 1 time an arm" in judged.reasons[0]) == ("invalid", True)


def test_a_machine_without_a_gpu_has_no_memory_verdict(tmp_path: Path) -> None:
    made = fabricate_run(tmp_path / "run", select_problems=2, gate_problems=2)
    run = dataclasses.replace(made, experiment=experiment(vram={"repeats": 1}))
    verdict = judge_run(run)
    assert (verdict.gates[-1].name, verdict.gates[-1].verdict) == ("vram", "invalid")
    assert "a machine without a GPU" in verdict.gates[-1].reasons[0]


def test_memory_counts_in_the_runs_verdict_unless_it_is_not_required(on_gpu: Run) -> None:
    heavy = tuple(peaks_of(13_000, 20_000))
    for required, code in ((True, 1), (False, 0)):
        asked = experiment(vram={"required": required})
        verdict = judge_run(dataclasses.replace(on_gpu, experiment=asked, memory=heavy)).gates[-1]
        assert (verdict.name, verdict.verdict, verdict.required) == ("vram", "fail", required)
        good = dataclasses.replace(verdict, name="accuracy", verdict="pass", required=True)
        assert run_verdict([good, verdict]).exit_code == code
