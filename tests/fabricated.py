"""A made-up `Run` that looks like a real one: five arms, five languages, three efforts, texts, timings, losses, gates.

Nothing here is measured. It lets the report, the gate and the browser be tested in seconds, without a model. All randomness is
seeded, so two calls with the same arguments give equal runs.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bench.comparison import compare
from bench.experiment import METRICS, Experiment, parse_experiment
from bench.gate import evidence
from bench.records import (
    EXIT_CODES,
    SEVERITY,
    Candidate,
    CellRecord,
    Comparison,
    Environment,
    Phase,
    Run,
    RunVerdict,
    Sample,
    Selection,
    Training,
    Verdict,
    VerdictName,
)

LANGUAGES = ("de", "en", "es", "fr", "it")
EFFORTS = ("low", "medium", "high")
ARMS = ("base", "r8-s40", "r8-s200", "r16-s40", "r16-s200")
ACCURACY = {
    "base": (0.27, 0.75, 0.985),
    "r8-s40": (0.26, 0.76, 0.985),
    "r8-s200": (0.22, 0.75, 0.98),
    "r16-s40": (0.20, 0.66, 0.975),
    "r16-s200": (0.17, 0.74, 0.98),
}
FIDELITY = {"base": 0.02, "r8-s40": 0.18, "r8-s200": 0.86, "r16-s40": 0.79, "r16-s200": 0.995}
REASONING_TOKENS = {"low": 0, "medium": 42, "high": 70}
LIMITS = {"low": 48, "medium": 160, "high": 256}
STORIES = {
    "de": ("Lina hat {a} Äpfel und bekommt {b} dazu. Wie viele Äpfel hat sie?", "Lina hat {a}. {a} + {b} = {c}."),
    "en": ("Lina has {a} apples and is given {b} more. How many apples has she?", "Lina has {a}. {a} + {b} = {c}."),
    "es": ("Lina tiene {a} manzanas y recibe {b} más. ¿Cuántas manzanas tiene?", "Lina tiene {a}. {a} + {b} = {c}."),
    "fr": ("Lina a {a} pommes et en reçoit {b}. Combien de pommes a-t-elle ?", "Lina a {a}. {a} + {b} = {c}."),
    "it": ("Lina ha {a} mele e ne riceve {b}. Quante mele ha?", "Lina ha {a}. {a} + {b} = {c}."),
}


def fabricate_experiment(gates: bool = True, **changes: Any) -> Experiment:
    """The embedded experiment, with its select and confirm blocks."""
    data: dict[str, Any] = {
        "name": "embedded",
        "model": {"id": "embedded", "load_in_4bit": False, "dtype": "float32"},
        "finetune": {
            "dataset": {"id": "stories/train"},
            "ranks": [8, 16],
            "steps": [40, 200],
            "targets": "attention",
            "alpha": "2r",
            "learning_rate": 1e-3,
            "schedule": "constant_with_warmup",
        },
        "evaluate": {"suites": ["stories"], "efforts": list(EFFORTS), "max_new_tokens": LIMITS},
        "select": {
            "suite": "stories",
            "split": "select",
            "effort": "medium",
            "metric": "reasoning_language_fidelity",
            "subject_to": {"accuracy_drop": 0.05},
        },
        "confirm": {"suite": "stories", "split": "gate"},
        "gates": [
            {"name": "accuracy", "metric": "accuracy", "effort": "high", "margin": 0.05},
            {
                "name": "reasons-in-language",
                "metric": "reasoning_language_fidelity",
                "effort": "high",
                "type": "superiority",
                "margin": 0.5,
            },
        ],
    }
    if not gates:
        data["gates"] = []
    return parse_experiment(data | changes, "fabricated")


def fabricate_samples(
    arms: tuple[str, ...],
    suite: str,
    split: str,
    problems: int,
    accuracy: Mapping[str, tuple[float, ...]] = ACCURACY,
    languages: tuple[str, ...] = LANGUAGES,
    truncated: float = 0.004,
    seed: int = 7,
) -> pd.DataFrame:
    """One row a sample, in the columns of `Sample`; right and wrong answers lump by problem, as real ones do."""
    rows = (
        dataclasses.asdict(sample)
        for arm in arms
        for sample in _arm_samples(arm, suite, split, problems, accuracy[arm], languages, truncated, seed)
    )
    return pd.DataFrame(rows, columns=[field.name for field in dataclasses.fields(Sample)])


def _arm_samples(
    arm: str,
    suite: str,
    split: str,
    problems: int,
    accuracy: tuple[float, ...],
    languages: tuple[str, ...],
    truncated: float,
    seed: int,
) -> Iterator[Sample]:
    hardness = stats.norm.cdf(np.random.default_rng(seed).normal(size=(problems, len(EFFORTS))))  # shared by all arms
    rng = np.random.default_rng([seed, *arm.encode()])
    for problem in range(problems):
        a, b = 3 + problem % 40, 2 + problem % 17
        for language in languages:
            for position, effort in enumerate(EFFORTS):
                luck = 0.75 * hardness[problem, position] + 0.25 * rng.random()
                right = bool(luck < _threshold(accuracy[position]))
                cut = bool(rng.random() < truncated * (position + 0.2))
                own = bool(rng.random() < (1.0 if language == "en" else FIDELITY.get(arm, 0.0)))
                yield _sample(arm, suite, split, problem, language, effort, (a, b), right, cut, own, rng)


def _threshold(accuracy: float) -> float:
    """Where luck = 0.75 U + 0.25 V must be cut so that a share of `accuracy` lies below."""
    grid = np.add.outer(0.75 * np.linspace(0, 1, 101), 0.25 * np.linspace(0, 1, 101)).ravel()
    return float(np.quantile(grid, accuracy)) if accuracy else -1.0


def _sample(
    arm: str,
    suite: str,
    split: str,
    problem: int,
    language: str,
    effort: str,
    operands: tuple[int, int],
    right: bool,
    cut: bool,
    own: bool,
    rng: np.random.Generator,
) -> Sample:
    a, b = operands
    spoken = language if own else "en"
    wrong = str(a + b + int(rng.integers(1, 9)))
    answer = None if cut else str(a + b) if right else wrong
    thoughts = "" if effort == "low" else STORIES.get(spoken, STORIES["en"])[1].format(a=a, b=b, c=answer or wrong)
    repeats = 2 if effort == "high" else 1
    analysis = f"<|channel|>analysis<|message|>{' '.join([thoughts] * repeats)}" if thoughts else ""
    final = "" if cut else f"{'<|end|><|start|>assistant' if analysis else ''}<|channel|>final<|message|>{answer}<|return|>"
    reasoning = LIMITS[effort] - 3 if cut else max(0, round(rng.normal(1.0, 0.18) * REASONING_TOKENS[effort]))
    return Sample(
        arm=arm,
        suite=suite,
        split=split,
        language=language,
        effort=effort,
        item_id=f"{split}-{problem:04d}",
        sample_index=0,
        seed=None,
        outcome="truncated" if cut else "correct" if right else "wrong",
        score=0.0 if cut else float(right),
        answer=answer,
        target=str(a + b),
        prompt_tokens=90 + int(rng.integers(0, 30)),
        reasoning_tokens=reasoning,
        final_tokens=0 if cut else 3,
        output_tokens=reasoning + (3 if cut else 12),
        stop_reason="length" if cut else "stop",
        latency_s=0.4 + 0.02 * reasoning,
        ttft_s=0.3,
        asked_reasoning_language=language,
        reasoning_language=None if effort == "low" else spoken,
        prompt_hash=f"{suite}-{split}-{language}-{effort}-{problem:04d}",
        completion=analysis + final,
        error=None,
        final_language=None if cut or problem % 2 else language,
    )


def fabricate_environment(gpu: bool = False) -> Environment:
    """A two-core machine, or one with a large GPU."""
    return Environment(
        platform="Linux-6.1.0-x86_64-with-glibc2.36",
        python="3.11.7",
        cpu="Example CPU 3.0 GHz",
        cpu_count=2,
        torch_threads=1,
        memory_bytes=16 * 2**30,
        gpu="NVIDIA H100 80GB HBM3" if gpu else None,
        gpu_memory_bytes=80 * 2**30 if gpu else None,
        driver="570.86.15" if gpu else None,
        cuda="12.8" if gpu else None,
        packages={"torch": "2.9.0", "transformers": "4.57.1", "trl": "0.24.0", "peft": "0.18.0", "unsloth": "2026.1.1"},
        git_commit="0f3c9a1be2d47765c1b2f7f2bb1d4bb0a7be9f10",
        git_dirty=False,
        started_at="2026-01-15T09:30:00+00:00",
    )


def fabricate_training(arm: str, gpu: bool = False) -> Training:
    """A loss curve that falls and flattens."""
    rank, steps = (int(part[1:]) for part in arm.split("-"))
    rng = np.random.default_rng([3, rank])
    losses: list[dict[str, float]] = [
        {
            "step": step,
            "loss": round(0.25 + 1.9 * float(np.exp(-step * rank / 400)) + float(rng.normal(0, 0.03)), 4),
            "learning_rate": 1e-3,
        }
        for step in range(1, steps + 1)
    ]
    return Training(
        arm=arm,
        status="trained",
        reason=None,
        rank=rank,
        steps=steps,
        seed=3407,
        alpha=2.0 * rank,
        method="unsloth",
        trainable_parameters=rank * 7680,
        trainable_by_kind={"attention": rank * 7680, "experts": 0},
        rows_kept=1000,
        rows_dropped=0,
        supervised_tokens={"analysis": 61234, "final": 4980},
        losses=losses,
        held_out_loss=0.31 + 1.9 * float(np.exp(-steps * rank / 400)),
        wall_s=0.19 * steps,
        peak_vram_bytes=int(15.1 * 2**30) if gpu else None,
        peak_reserved_bytes=int(16.0 * 2**30) if gpu else None,
        peak_rss_bytes=int(1.35 * 2**30),
        adapter_bytes=rank * 7680 * 4 + 2048,
        adapter_sha256="9b" * 32,
        optimizer="adamw_8bit" if gpu else "adamw_torch_fused",
        layout="nf4-per-expert" if gpu else "float32",
        load_report={"missing": 0, "unexpected": 0, "mismatched": 0},
        gradient_checkpointing="unsloth" if gpu else "off",
        shared_run=f"r{rank}-s200",
    )


def fabricate_run(
    folder: Path,
    verdict: VerdictName | None = "pass",
    select_problems: int = 60,
    gate_problems: int = 250,
    gpu: bool = False,
    experiment: Experiment | None = None,
    truncated: float = 0.004,
) -> Run:
    """A whole run whose gates end in `verdict`; None is a run without gates."""
    accuracy = dict(ACCURACY)
    if verdict == "fail":
        accuracy["r16-s200"] = (0.10, 0.55, 0.86)
    if verdict == "inconclusive":
        accuracy["r16-s200"] = (0.17, 0.70, 0.938)
    gated = ("base",) if verdict == "invalid" else ("base", "r16-s200")
    selected = ARMS[:-1] if verdict == "invalid" else ARMS
    samples = pd.concat(
        [
            fabricate_samples(selected, "stories", "select", select_problems, accuracy, truncated=truncated, seed=11),
            fabricate_samples(gated, "stories", "gate", gate_problems, accuracy, truncated=truncated, seed=13),
        ],
        ignore_index=True,
    )
    experiment = experiment or fabricate_experiment(gates=verdict is not None)
    comparisons = tuple(_comparisons(samples))
    failed = {"r16-s200": "training ended with: loss is not a number at step 112"} if verdict == "invalid" else {}
    return Run(
        folder=folder,
        experiment=experiment,
        environment=fabricate_environment(gpu),
        finished=True,
        failed_arms=failed,
        selection=_selection(comparisons, None if verdict == "invalid" else "r16-s200"),
        cells=tuple(_cells(samples)),
        phases=tuple(_phases(samples, gpu)),
        training={arm: fabricate_training(arm, gpu) for arm in selected if arm != "base"},
        comparisons=comparisons,
        verdict=_run_verdict(experiment, comparisons, failed) if verdict is not None else None,
        samples=samples,
        command="effortbench bench embedded",
    )


def fabricate_zero_run(folder: Path) -> Run:
    """A tiny model on real outside text (MGSM): base only, no gates, nearly nothing right."""
    languages = ("bn", "de", "en", "es", "fr", "ja", "ru", "zh")
    samples = fabricate_samples(("base",), "mgsm", "test", 60, {"base": (0.0, 0.004, 0.004)}, languages, truncated=0.3).assign(
        asked_reasoning_language=None
    )
    experiment = parse_experiment(
        {
            "name": "mgsm",
            "model": {"id": "embedded", "load_in_4bit": False, "dtype": "float32"},
            "evaluate": {"suites": ["mgsm"], "max_new_tokens": LIMITS},
        },
        "fabricated",
    )
    return Run(
        folder=folder,
        experiment=experiment,
        environment=fabricate_environment(),
        finished=True,
        failed_arms={},
        selection=None,
        cells=tuple(_cells(samples)),
        phases=tuple(_phases(samples, False)),
        training={},
        comparisons=(),
        verdict=None,
        samples=samples,
        command="effortbench run mgsm --limit 60",
    )


def _comparisons(samples: pd.DataFrame) -> Iterator[Comparison]:
    for (suite, split, effort), cell in samples.groupby(["suite", "split", "effort"]):
        sides = dict(list(cell.groupby("arm")))
        for arm in [arm for arm in sides if arm != "base"]:
            for metric in METRICS:
                yield compare(sides["base"], sides[arm], suite=str(suite), split=str(split), effort=str(effort), metric=metric)


def _run_verdict(experiment: Experiment, comparisons: tuple[Comparison, ...], failed: dict[str, str]) -> RunVerdict:
    gates = tuple(_judge(gate, comparisons, failed) for gate in experiment.gates)
    worst = max((gate.verdict for gate in gates), key=SEVERITY.index)
    return RunVerdict(worst, EXIT_CODES[worst], gates)


def _judge(gate: Any, comparisons: tuple[Comparison, ...], failed: dict[str, str]) -> Verdict:
    if failed:
        return Verdict(
            name=gate.name, arm=None, against=gate.against, suite="stories", split="gate", effort=gate.effort, metric=gate.metric,
            before=None, after=None, delta=None, ci=None, margin=gate.margin, clusters=0, verdict="invalid",
            reasons=("no arm could be gated: r16-s200 failed in training",),
        )  # fmt: skip
    found = next(c for c in comparisons if (c.split, c.effort, c.metric) == ("gate", gate.effort, gate.metric))
    assert found.ci is not None
    bar = gate.margin if gate.type == "superiority" else -gate.margin
    verdict: VerdictName = "pass" if found.ci[0] > bar else "fail" if found.ci[1] < bar else "inconclusive"
    reason = {
        "pass": f"the whole interval lies above {100 * bar:+g} points",
        "fail": f"the whole interval lies below {100 * bar:+g} points",
        "inconclusive": f"the interval holds {100 * bar:+g} points: {found.clusters} problems cannot tell",
    }[verdict]
    flags = ("regression_detected",) if found.ci[1] < 0 else ("improvement_detected",) if found.ci[0] > 0 else ()
    return Verdict(
        name=gate.name, arm=found.arm, against=gate.against, suite=found.suite, split=found.split, effort=found.effort,
        metric=found.metric, before=found.before, after=found.after, delta=found.delta, ci=found.ci, margin=gate.margin,
        clusters=found.clusters, verdict=verdict, flags=flags, reasons=(reason,), evidence=evidence(found, gate),
    )  # fmt: skip


def _selection(comparisons: tuple[Comparison, ...], chosen: str | None) -> Selection:
    def seen(arm: str, metric: str) -> Comparison | None:
        keys = ("select", "medium", metric, arm)
        return next((c for c in comparisons if (c.split, c.effort, c.metric, c.arm) == keys), None)

    candidates = []
    for arm in ARMS[1:]:
        fidelity, accuracy = seen(arm, "reasoning_language_fidelity"), seen(arm, "accuracy")
        if fidelity is None or accuracy is None or accuracy.delta is None:
            candidates.append(Candidate(arm, None, None, None, False, "the arm failed"))
            continue
        drop = -accuracy.delta
        reason = f"loses {100 * drop:.1f} points of accuracy, more than 5" if drop > 0.05 and arm != chosen else None
        candidates.append(Candidate(arm, fidelity.after, accuracy.after, drop, reason is None, reason))
    return Selection(chosen, "stories", "select", "medium", "reasoning_language_fidelity", tuple(candidates))


def _cells(samples: pd.DataFrame) -> Iterator[CellRecord]:
    for (arm, suite, split, language, effort), cell in samples.groupby(["arm", "suite", "split", "language", "effort"]):
        yield CellRecord(
            str(arm), str(suite), str(split), str(language), str(effort), key=f"{zlib.crc32(repr((arm, effort)).encode()):08x}",
            samples=len(cell), file=f"cells/{arm}/{suite}@{split}.{language}.{effort}.jsonl",
        )  # fmt: skip


def _phases(samples: pd.DataFrame, gpu: bool) -> Iterator[Phase]:
    for (arm, suite, split), cell in samples.groupby(["arm", "suite", "split"]):
        tokens = int(cell["output_tokens"].sum())
        yield Phase(
            arm=str(arm), suite=str(suite), split=str(split), wall_s=tokens / 4000, model_s=tokens / 4100, output_tokens=tokens,
            peak_vram_bytes=int(13.4 * 2**30) if gpu else None, peak_reserved_bytes=int(14.0 * 2**30) if gpu else None,
            peak_rss_bytes=int(0.92 * 2**30), engine="slots", slots=64,
        )  # fmt: skip
