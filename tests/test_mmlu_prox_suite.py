"""The mmlu_prox suite through lm-eval's own task manager and our adapter, on small made-up files of the documented columns."""

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

LANGUAGES = ("af", "ar", "bn", "cs", "de", "en", "es", "fr", "hi", "hu", "id", "it", "ja", "ko", "mr", "ne", "pt", "ru", "sr", "sw", "te")
LANGUAGES += ("th", "uk", "ur", "vi", "wo", "yo", "zh", "zu")


def table(rows: int = 6) -> pd.DataFrame:
    """Two categories in turn; odd rows have ten choices, even ones four. As on the hub: unused choices are null."""
    made = []
    for row in range(rows):
        count = 10 if row % 2 else 4
        options = {f"option_{n}": f"choice {n}" if n < count else None for n in range(10)}
        answer = "ABCDEFGHIJ"[9 - row if row % 2 else row]
        made.append(
            {
                "question_id": 70 + row,
                "question": f"Q{row}?",
                **options,
                "answer": answer,
                "answer_index": "ABCDEFGHIJ".index(answer),
                "cot_content": "",
                "category": ["law", "math"][row % 2],
                "src": "made up",
            }
        )
    return pd.DataFrame(made)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """German as parquet like the hub's, Bengali as JSON lines, Zulu as CSV."""
    table(4).to_parquet(tmp_path / "mmlu_prox_de.parquet")
    table(4).to_json(tmp_path / "mmlu_prox_bn.jsonl", orient="records", lines=True)
    table(4).to_csv(tmp_path / "mmlu_prox_zu.csv", index=False)
    return tmp_path


def evaluate(folder: Path | None, **changes: Any) -> Evaluate:
    data = {"mmlu_prox": folder} if folder else {}
    limits = {"low": 64, "high": 64}
    return Evaluate(**{"suites": ["mmlu_prox"], "efforts": ["low", "high"], "max_new_tokens": limits, "data": data, **changes})


def docs(folder: Path | None, *languages: str, **changes: Any) -> dict[str, list[dict[str, Any]]]:
    tasks = load_tasks(Ask("base", find_suite("mmlu_prox"), "test", languages, evaluate(folder, **changes)))
    return {language: list(task.test_docs()) for language, task in tasks.items()}


def test_all_29_languages_are_there() -> None:
    assert tuple(find_suite("mmlu_prox").languages) == LANGUAGES


def test_rows_are_the_same_in_every_format_and_shared_by_languages(folder: Path) -> None:
    loaded = docs(folder, "de", "bn", "zu")
    without = [[{key: value for key, value in row.items() if key != "language"} for row in rows] for rows in loaded.values()]
    assert without[0] == without[1] == without[2]
    assert [row["item_id"] for row in without[0]] == ["mmlu_prox-70", "mmlu_prox-71", "mmlu_prox-72", "mmlu_prox-73"]
    assert [row["letters"] for row in without[0]] == ["ABCD", "ABCDEFGHIJ", "ABCD", "ABCDEFGHIJ"]
    assert without[0][0]["choices"] == "A) choice 0\nB) choice 1\nC) choice 2\nD) choice 3"


def test_a_subset_is_the_first_rows_of_every_category(folder: Path) -> None:
    rows = docs(folder, "de", options={"mmlu_prox": {"subset": 1}})["de"]
    assert [(row["item_id"], row["category"]) for row in rows] == [("mmlu_prox-70", "law"), ("mmlu_prox-71", "math")]
    with pytest.raises(SuiteError, match="mmlu_prox.subset must be a number of rows above 0, found -1"):
        docs(folder, "de", options={"mmlu_prox": {"subset": -1}})


def test_letters_up_to_j_are_asked_and_scored_at_each_effort(folder: Path) -> None:
    """Targets are A, I, C, G; a letter that a question does not have is no answer."""
    samples: list[Sample] = []
    prompts: dict[str, str] = {}
    tokenizer = load_tokenizer(EMBEDDED)
    replies = ["Answer: A", "Die Antwort ist (I).", "Antwort: J", "**G**"] + ["Answer: B", "Answer: J", "Answer: C", "Keine."]
    engine = FakeEngine(tokenizer, [harmony("so", reply) for reply in replies])
    listener = Listener(lambda _: None, prompts.__setitem__, samples.append)
    run_pass(Ask("base", find_suite("mmlu_prox"), "test", ("de",), evaluate(folder)), engine, tokenizer, {}, listener)
    outcomes = {effort: [s.outcome for s in sorted(samples, key=lambda s: s.item_id) if s.effort == effort] for effort in ("low", "high")}
    assert outcomes["low"] == ["correct", "correct", "no_answer", "correct"]
    assert outcomes["high"] == ["wrong", "wrong", "correct", "no_answer"]
    assert "Q1?\n\nA) choice 0" in prompts[next(s.prompt_hash for s in samples if s.item_id == "mmlu_prox-71")]
    assert "J) choice 9<|end|>" in prompts[next(s.prompt_hash for s in samples if s.item_id == "mmlu_prox-71")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "K"}, r"expected rows with an answer A, B, C, D, E, F, G, H, I or J; row 0 has answer 'K'"),
        ({"option_1": None}, r"question 70 has 1 choices and the answer A"),
        ({"question": None}, r"expected a value in every column"),
    ],
)
def test_a_row_that_cannot_be_is_named(folder: Path, change: dict[str, Any], message: str) -> None:
    table(4).assign(**change).to_parquet(folder / "mmlu_prox_de.parquet")
    with pytest.raises(SuiteError, match=rf"mmlu_prox_de.parquet: {message}"):
        docs(folder, "de")


def test_another_file_names_the_columns(folder: Path) -> None:
    pd.DataFrame({"question": ["?"], "answer": ["A"]}).to_parquet(folder / "mmlu_prox_de.parquet")
    with pytest.raises(SuiteError, match=r"mmlu_prox_de.parquet: expected columns question_id, question, answer, category"):
        docs(folder, "de")
