"""Claims about the report's maps and bars: what they show, what they refuse to show, and that nothing hangs on colour."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
from fabricated import LIMITS, fabricate_run, fabricate_samples, fabricate_zero_run

from bench.catalog import find_suite
from bench.experiment import EFFORTS, parse_experiment
from bench.records import Run
from bench.report.cells import Cells
from bench.report.figures import Figure, draw_all
from bench.report.focus import focus_on
from bench.report.references import find_published

CARD_AVERAGE = {"low": 67.0, "medium": 73.5, "high": 75.7}
"""MMMLU, gpt-oss-20b, over fourteen languages: the card's own row beside its languages."""

BOLD = "font-weight: 700; font-size: 8.5px; font-family: var(--font); text-anchor: middle"
"""A number in a map that stands out."""


@functools.cache
def made_up() -> Run:
    return fabricate_run(Path("nowhere"), "fail", select_problems=10, gate_problems=60)


def figures(run: Run) -> dict[str, Figure]:
    focus = focus_on(run)
    assert focus is not None
    return draw_all(run, focus, Cells(run.samples))


def asked_mmmlu(model: str) -> Run:
    samples = fabricate_samples(("base",), "mmmlu", "test", 12, {"base": (0.6, 0.7, 0.75)}, tuple(find_suite("mmmlu").languages))
    data = {"name": "mmmlu", "model": {"id": model}, "evaluate": {"suites": ["mmmlu"], "max_new_tokens": LIMITS}}
    experiment = parse_experiment(data, "fabricated")
    return dataclasses.replace(fabricate_zero_run(Path("nowhere")), experiment=experiment, samples=samples, phases=())


def test_every_figure_of_a_full_run_is_drawn_with_words_for_those_who_do_not_see_it() -> None:
    made = figures(made_up())
    expected = (
        "accuracy-by-effort accuracy-by-tokens accuracy-by-latency accuracy-by-language language-map reasoning-language outcomes "
        "token-distribution grid-map training-loss training-memory phase-costs"
    ).split()
    assert set(expected) <= set(made)
    for figure in made.values():
        assert len(figure.alt) > 40
        assert "nan" not in figure.alt.lower().split()
        assert figure.png.startswith(b"\x89PNG")


def test_trained_languages_stand_apart_only_where_the_rows_name_them() -> None:
    run = made_up()
    assert "not trained on" not in figures(run)["language-map"].svg
    training = {arm: dataclasses.replace(one, languages=["German", "French"]) for arm, one in run.training.items()}
    svg = figures(dataclasses.replace(run, training=training))["language-map"].svg
    order = [svg.index(f">{text}<") for text in ("de", "fr", "en", "es", "it")]
    assert order == sorted(order)
    assert svg.count(">trained on<") == 2
    assert svg.count(">not trained on<") == 2


def test_sure_changes_are_bold_as_well_as_coloured() -> None:
    run = made_up()
    focus = focus_on(run)
    assert focus is not None
    cells = Cells(run.samples)
    changes = [
        cells.language_change("accuracy", "r16-s200", "stories", "gate", language, effort)
        for language in focus.languages
        for effort in focus.efforts
    ]
    sure = sum(bool(one and one.ci and (one.ci[0] > 0 or one.ci[1] < 0)) for one in changes)
    bold = figures(run)["language-map"].svg.count(BOLD)
    assert sure > 3
    assert bold == sure


def test_the_chosen_arm_is_marked_in_the_grid() -> None:
    assert figures(made_up())["grid-map"].svg.count(BOLD) == 2  # once a metric
    one_arm = made_up().experiment.model_copy(update={"select": None})
    assert "grid-map" not in figures(dataclasses.replace(made_up(), experiment=one_arm, selection=None))


def test_memory_nobody_measured_is_unknown_and_no_bar() -> None:
    run = made_up()
    phases = tuple(dataclasses.replace(phase, peak_rss_bytes=None) for phase in run.phases)
    training = {arm: dataclasses.replace(one, peak_rss_bytes=None) for arm, one in run.training.items()}
    made = figures(dataclasses.replace(run, phases=phases, training=training))
    assert "training-memory" not in made
    assert "base, gate: unknown" in made["phase-costs"].alt
    assert "0 B" not in made["phase-costs"].alt


def test_published_figures_stand_only_beside_the_same_model_on_the_same_suite() -> None:
    made = figures(asked_mmmlu("unsloth/gpt-oss-20b-unsloth-bnb-4bit"))
    assert "sw at high: " in made["against-published"].alt
    assert "60.7\u00a0% published" in made["against-published"].alt
    assert "arXiv 2508.10925" in made["against-published"].caption
    assert "against-published" not in figures(asked_mmmlu("openai/gpt-oss-120b"))
    assert "against-published" not in figures(made_up())


@pytest.mark.parametrize("effort", EFFORTS)
def test_published_languages_average_to_the_published_average(effort: str) -> None:
    run = asked_mmmlu("openai/gpt-oss-20b")
    focus = focus_on(run)
    assert focus is not None
    published = find_published(run, focus)
    assert published is not None
    values = [value for (_, at), value in published.values.items() if at == effort]
    assert {language for language, _ in published.values} == set(find_suite("mmmlu").languages)
    assert 100 * np.mean(values) == pytest.approx(CARD_AVERAGE[effort], abs=0.06)
