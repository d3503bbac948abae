"""Which language a text is in: sure on the shipped stories, silent where it cannot know."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from bench.embedded import stories
from bench.languages import FEWEST_LETTERS, identify

STORIES = tuple(stories.LANGUAGES)
MGSM = ("bn", "de", "en", "es", "fr", "ja", "ru", "zh")
DATA = os.environ.get("EFFORTBENCH_DATA")


@pytest.mark.parametrize("effort", ["medium", "high"])
@pytest.mark.parametrize("code", STORIES)
def test_every_analysis_of_the_stories_is_told_apart(code: str, effort: str) -> None:
    for split in ("dev", "select", "gate"):
        for problem in stories.splits()[split]:
            text = stories.think(problem, code, effort)
            assert identify(text, STORIES) == code, text


@pytest.mark.parametrize(
    "text",
    [None, "", "   ", "42", "1 + 2 = 3. 3 * 4 = 12.", "१२३ ৪২ ١٢", "!?…—«»", "x = 7", "Also 7", "abc def", "🙂🙂🙂🙂🙂🙂🙂🙂🙂"],
)
def test_what_holds_too_few_letters_is_in_no_language(text: str | None) -> None:
    assert identify(text, STORIES) is None


def test_latex_is_in_no_language() -> None:
    assert identify("\\[\\boxed{\\text{18}} \\quad \\displaystyle\\frac{36}{2}\\]", STORIES) is None


def test_the_fewest_letters_are_counted_without_spaces_and_digits() -> None:
    letters = "geradeaus"[: FEWEST_LETTERS - 1]
    assert identify(f"{letters} 12 34 56", STORIES) is None
    assert identify(f"{letters}e", STORIES) in STORIES


def test_numbers_do_not_change_the_language() -> None:
    sentence = "Wir beginnen mit"
    assert identify(f"{sentence} {'12 + 34 = 46. ' * 200}", STORIES) == "de"


def test_only_the_given_languages_are_candidates() -> None:
    text = "Wir beginnen mit der Anzahl der Äpfel und rechnen Schritt für Schritt."
    assert identify(text, ["en", "fr"]) in ("en", "fr")
    assert identify(text, ["en", "de"]) == "de"


def test_languages_that_nobody_knows_are_no_candidates() -> None:
    text = "Wir beginnen mit der Anzahl der Äpfel."
    assert identify(text, []) is None
    assert identify(text, ["xx", "tlh"]) is None
    assert identify(text, ["xx", "de"]) is None  # one candidate is no choice
    assert identify(text, ["xx", "de", "en"]) == "de"


def test_answers_do_not_depend_on_what_was_asked_before_or_in_which_order() -> None:
    text = "Nous commençons avec les pommes de la corbeille."
    assert identify(text, ["fr", "en"]) == identify(text, ["en", "fr", "de"]) == identify(text, iter(["de", "fr"])) == "fr"


@pytest.mark.skipif(DATA is None, reason="EFFORTBENCH_DATA is unset: no MGSM to read")
@pytest.mark.parametrize("code", MGSM)
def test_real_sentences_of_eight_languages_are_told_apart(code: str) -> None:
    with (Path(DATA or "") / "mgsm" / f"mgsm_{code}.tsv").open(encoding="utf-8", newline="") as file:
        questions = [row[0] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    found = [identify(question, MGSM) for question in questions]
    assert len(found) == 250
    assert found.count(code) >= 249, {text: other for text, other in zip(questions, found, strict=True) if other != code}
