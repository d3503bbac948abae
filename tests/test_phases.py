"""Segments of a training run -> phases: sums, peaks, and nothing made up."""

from __future__ import annotations

from bench.phases import largest, median, merge_phases, phase_records
from bench.records import TrainingPhase


def test_segments_of_a_phase_become_one() -> None:
    segments = [
        TrainingPhase("load", 3.0, peak_vram_bytes=5),
        TrainingPhase("steady", 2.0, steps=4, tokens=40, median_step_s=0.5, peak_vram_bytes=7, energy_j=1.5),
        TrainingPhase("save", 1.0, peak_vram_bytes=6),
        TrainingPhase("steady", 1.0, steps=1, tokens=10, median_step_s=1.0, peak_vram_bytes=9, energy_j=0.5),
    ]
    load, steady, save = merge_phases(segments)
    assert (load, save) == (segments[0], segments[2])
    assert steady == TrainingPhase("steady", 3.0, steps=5, tokens=50, median_step_s=0.5, peak_vram_bytes=9, energy_j=2.0)
    assert phase_records([steady])[0]["tokens_per_s"] == 50 / 3


def test_a_sum_with_an_unknown_part_is_unknown_and_a_peak_is_what_was_seen() -> None:
    (steady,) = merge_phases([TrainingPhase("steady", 2.0, tokens=1, peak_vram_bytes=3), TrainingPhase("steady", None, peak_vram_bytes=8)])
    assert (steady.wall_s, steady.tokens, steady.peak_vram_bytes, steady.peak_reserved_bytes) == (None, None, 8, None)
    assert steady.tokens_per_s is None


def test_nothing_has_no_peak_no_median_and_no_phases() -> None:
    assert largest([]) is largest([None]) is median([]) is None
    assert merge_phases([]) == []
