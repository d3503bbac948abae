"""The belebele suite through lm-eval's own task manager and our adapter, on small made-up files of the documented columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fakes import FakeEngine, harmony

from bench.catalog import find_suite
from bench.errors import SuiteError
from bench.experiment import Evaluate
from bench.lm import Ask, Listener, load_tasks, run_pass
from bench.models import EMBEDDED, load_tokenizer
from bench.records import Sample


def table(language: str) -> pd.DataFrame:
    """Two passages with two questions each; the second choice of the first, the third of the next, and so on is right."""
    made = [
        {
            "link": f"https://example.org/{passage}",
            "question_number": number,
            "flores_passage": f"Passage {passage} ({language}).",
            "question": f"Question {number} of {passage}?",
            **{f"mc_answer{choice}": f"choice {choice}" for choice in range(1, 5)},
            "correct_answer_num": str(1 + (2 * passage + number) % 4),
            "dialect": language,
            "ds": "2023-05-03",
        }
        for passage in (0, 1)
        for number in (1, 2)
    ]
    return pd.DataFrame(made)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """German as JSON lines like the hub's; Chinese in another order and as parquet."""
    table("de").to_json(tmp_path / "belebele_de.jsonl", orient="records", lines=True, force_ascii=False)
    table("zh").iloc[::-1].to_parquet(tmp_path / "belebele_zh.parquet")
    return tmp_path


def evaluate(folder: Path | None, **changes: Any) -> Evaluate:
    data = {"belebele": folder} if folder else {}
    limits = {"low": 64, "high": 64}
    return Evaluate(**{"suites": ["belebele"], "efforts": ["low", "high"], "max_new_tokens": limits, "data": data, **changes})


def docs(folder: Path | None, *languages: str, **changes: Any) -> dict[str, list[dict[str, Any]]]:
    tasks = load_tasks(Ask("base", find_suite("belebele"), "test", languages, evaluate(folder, **changes)))
    return {language: list(task.test_docs()) for language, task in tasks.items()}


def test_an_item_has_one_name_and_one_place_in_every_language(folder: Path) -> None:
    loaded = docs(folder, "de", "zh")
    names = [[row["item_id"] for row in rows] for rows in loaded.values()]
    assert names[0] == names[1] == sorted(set(names[0]))
    assert [(row["question"], row["target"]) for row in loaded["de"]] == [(row["question"], row["target"]) for row in loaded["zh"]]
    assert {row["passage"] for row in loaded["zh"]} == {"Passage 0 (zh).", "Passage 1 (zh)."}


def test_a_subset_is_the_same_problems_in_every_language(folder: Path) -> None:
    whole, part = docs(folder, "de", "zh"), docs(folder, "de", "zh", options={"belebele": {"subset": 2}})
    assert {language: rows[:2] for language, rows in whole.items()} == part


def test_letters_are_asked_and_scored_at_each_effort(folder: Path) -> None:
    samples: list[Sample] = []
    prompts: dict[str, str] = {}
    tokenizer = load_tokenizer(EMBEDDED)
    right = {row["question"]: row["target"] for row in docs(folder, "de")["de"]}

    def reply(prompt: str, row: Any) -> str:
        (letter,) = {letter for question, letter in right.items() if question in prompt}
        return harmony("thinking", f"Antwort: {letter}" if "Reasoning: high" in prompt else "Ich weiß es nicht.")

    listener = Listener(lambda _: None, prompts.__setitem__, samples.append)
    ask = Ask("base", find_suite("belebele"), "test", ("de",), evaluate(folder))
    results = run_pass(ask, FakeEngine(tokenizer, reply), tokenizer, {}, listener)
    assert {(sample.effort, sample.outcome) for sample in samples} == {("low", "no_answer"), ("high", "correct")}
    assert {name: metrics["exact_match,answer"] for name, metrics in results["results"].items()} == {
        "belebele_de@low": 0,
        "belebele_de@high": 1,
    }
    assert any("Passage 1 (de).\n\nQuestion 2 of 1?\n\nA) choice 1\nB)" in prompt for prompt in prompts.values())


def test_a_row_that_cannot_be_is_named(folder: Path) -> None:
    table("de").assign(correct_answer_num="5").to_json(folder / "belebele_de.jsonl", orient="records", lines=True)
    with pytest.raises(SuiteError, match=r"belebele_de.jsonl: expected rows with an answer 1, 2, 3 or 4; row 0 has answer '5'"):
        docs(folder, "de")
    (folder / "belebele_de.jsonl").write_text('{"question": "?"}\n', encoding="utf-8")
    with pytest.raises(SuiteError, match=r"belebele_de.jsonl: expected columns link, question_number, flores_passage"):
        docs(folder, "de")
    (folder / "belebele_de.jsonl").write_text("not JSON\n", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"belebele_de.jsonl: expected columns link"):
        docs(folder, "de")


def test_every_language_has_a_code_on_the_hub() -> None:
    suite = find_suite("belebele")
    assert suite.hub is not None
    assert set(suite.hub.codes) == set(suite.languages)
    assert suite.hub.file_of("zh") == "data/zho_Hans.jsonl"
    assert len(set(suite.hub.codes.values())) == 30
