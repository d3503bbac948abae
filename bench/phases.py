"""The phases of a training run, and the parts of an evaluation pass, as they were measured -> each once. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from bench.records import Phase, TrainingPhase


def merge_phases(segments: Sequence[TrainingPhase]) -> list[TrainingPhase]:
    """Each phase once, in the order of its first segment: times, steps, tokens and energy add up, peaks are the highest.

    The median of a phase in several segments is that of its longest. A sum is None where a part of it is unknown.
    """
    names = dict.fromkeys(segment.name for segment in segments)
    return [_merge([segment for segment in segments if segment.name == name]) for name in names]


def _merge(segments: Sequence[TrainingPhase]) -> TrainingPhase:
    return TrainingPhase(
        name=segments[0].name,
        wall_s=_total(segment.wall_s for segment in segments),
        steps=sum(segment.steps for segment in segments),
        tokens=_total(segment.tokens for segment in segments),
        median_step_s=max(segments, key=lambda segment: segment.steps).median_step_s,
        peak_vram_bytes=largest(segment.peak_vram_bytes for segment in segments),
        peak_reserved_bytes=largest(segment.peak_reserved_bytes for segment in segments),
        peak_process_bytes=largest(segment.peak_process_bytes for segment in segments),
        peak_device_bytes=largest(segment.peak_device_bytes for segment in segments),
        peak_rss_bytes=largest(segment.peak_rss_bytes for segment in segments),
        energy_j=_total(segment.energy_j for segment in segments),
    )


def add_pass(known: Sequence[Phase], part: Phase) -> list[Phase]:
    """The passes with one more part. What went on with a pass, on the same engine with as many slots, is added to it.

    Times, tokens and energy add up, peaks are the highest; each is None where a part of it is unknown.
    """
    earlier = next((phase for phase in known if _is_same_work(phase, part)), None)
    if earlier is None:
        return [*known, part]
    return [_joined(phase, part) if phase is earlier else phase for phase in known]


def _is_same_work(one: Phase, other: Phase) -> bool:
    return (one.arm, one.suite, one.split, one.engine, one.slots) == (other.arm, other.suite, other.split, other.engine, other.slots)


def _joined(earlier: Phase, later: Phase) -> Phase:
    sums = ("wall_s", "model_s", "output_tokens", "energy_j", "correct", "halvings")
    peaks = ("peak_vram_bytes", "peak_reserved_bytes", "peak_rss_bytes", "peak_process_bytes", "peak_device_bytes")
    both = {name: (getattr(earlier, name), getattr(later, name)) for name in (*sums, *peaks)}
    joined: dict[str, Any] = {name: _total(both[name]) for name in sums}
    joined |= {name: None if None in both[name] else largest(both[name]) for name in peaks}
    return dataclasses.replace(later, **joined)


def _total(values: Iterable[Any]) -> Any:
    known = list(values)
    return None if any(value is None for value in known) else sum(known)


def largest(values: Iterable[int | None]) -> int | None:
    """The largest known value; None where none is known."""
    return max((value for value in values if value is not None), default=None)


def median(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return statistics.median(values) if values else None


def phase_records(phases: Iterable[TrainingPhase]) -> list[dict[str, Any]]:
    """As they stand in a training record."""
    return [dataclasses.asdict(phase) | {"tokens_per_s": phase.tokens_per_s} for phase in phases]
