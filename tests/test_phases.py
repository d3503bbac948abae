"""Segments of a training run -> phases: sums, peaks, and nothing made up."""

from __future__ import annotations

from dataclasses import replace

from bench.phases import add_pass, largest, median, merge_phases, phase_records
from bench.records import Phase, TrainingPhase


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


PASS = Phase("base", "stories", "dev", 2.0, 1.5, 100, 7, 8, 9, "slots", 64, peak_process_bytes=10, energy_j=3.0, correct=4, halvings=1)


def test_a_pass_that_was_gone_on_with_is_one_pass() -> None:
    rest = replace(PASS, wall_s=1.0, model_s=0.5, output_tokens=50, peak_vram_bytes=6, peak_rss_bytes=11, energy_j=1.0, correct=1)
    other = replace(PASS, split="gate")
    (whole, untouched) = add_pass([PASS, other], rest)
    expected = replace(PASS, wall_s=3.0, model_s=2.0, output_tokens=150, peak_rss_bytes=11, energy_j=4.0, correct=5, halvings=2)
    assert (whole, untouched) == (expected, other)


def test_what_is_unknown_of_a_part_is_unknown_of_the_pass() -> None:
    """A peak too: a gate on memory must not take the smaller part's for the whole's."""
    (whole,) = add_pass([PASS], replace(PASS, model_s=None, peak_vram_bytes=None, energy_j=None, correct=None))
    assert (whole.model_s, whole.peak_vram_bytes, whole.energy_j, whole.correct) == (None, None, None, None)
    assert (whole.wall_s, whole.peak_reserved_bytes) == (4.0, 8)


def test_parts_on_other_engines_or_slots_stay_apart() -> None:
    for part in (replace(PASS, slots=32), replace(PASS, engine="generate"), replace(PASS, arm="r8-s40"), replace(PASS, suite="mgsm")):
        assert add_pass([PASS], part) == [PASS, part]
