"""The mmmlu suite through lm-eval's own task manager and our adapter, on a small made-up folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fakes import FakeEngine, harmony

from bench.catalog import find_suite
from bench.errors import SuiteError
from bench.experiment import Evaluate, parse_experiment
from bench.lm import Ask, Listener, load_tasks, run_pass
from bench.models import EMBEDDED, load_tokenizer
from bench.records import Sample
from bench.runner import _check_data

LANGUAGES = ("ar", "bn", "de", "es", "fr", "hi", "id", "it", "ja", "ko", "pt", "sw", "yo", "zh")


def table(rows: int = 6) -> pd.DataFrame:
    """Two subjects in turn; the answers go round."""
    subjects = ["anatomy", "virology"]
    made = [
        {
            "Question": f"Q{row}, really?",
            "A": "None",
            "B": "NA",
            "C": "3",
            "D": '"four"',
            "Answer": "ABCD"[row % 4],
            "Subject": subjects[row % 2],
        }
        for row in range(rows)
    ]
    return pd.DataFrame(made)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All languages, most as CSV with an index column as on the hub, Chinese as parquet."""
    for language in LANGUAGES[:-1]:
        table().to_csv(tmp_path / f"mmmlu_{language}.csv")
    table().to_parquet(tmp_path / "mmmlu_zh.parquet")
    return tmp_path


def evaluate(folder: Path | None, **changes: Any) -> Evaluate:
    data = {"mmmlu": folder} if folder else {}
    return Evaluate(**{"suites": ["mmmlu"], "efforts": ["low"], "max_new_tokens": {"low": 64}, "data": data, **changes})


def docs(folder: Path | None, *languages: str, **changes: Any) -> dict[str, list[dict[str, Any]]]:
    tasks = load_tasks(Ask("base", find_suite("mmmlu"), "test", languages, evaluate(folder, **changes)))
    return {language: list(task.test_docs()) for language, task in tasks.items()}


def test_rows_are_shared_by_all_languages_in_both_formats(folder: Path) -> None:
    loaded = docs(folder, *LANGUAGES)
    assert tuple(find_suite("mmmlu").languages) == LANGUAGES == tuple(loaded)
    for language, rows in loaded.items():
        assert [row["item_id"] for row in rows] == [f"mmmlu-{number}" for number in range(6)]
        assert [row["target"] for row in rows] == list("ABCDAB")
        assert (rows[0]["language"], rows[0]["a"], rows[0]["b"], rows[0]["d"]) == (language, "None", "NA", '"four"')


def test_a_subset_is_the_first_rows_of_every_subject(folder: Path) -> None:
    loaded = docs(folder, "de", "zh", options={"mmmlu": {"subset": 2}})
    for rows in loaded.values():
        assert [row["item_id"] for row in rows] == ["mmmlu-0", "mmmlu-1", "mmmlu-2", "mmmlu-3"]
    with pytest.raises(SuiteError, match="subset must be a number of rows above 0, found 0"):
        docs(folder, "de", options={"mmmlu": {"subset": 0}})


def test_letters_are_read_and_scored(folder: Path) -> None:
    samples: list[Sample] = []
    tokenizer = load_tokenizer(EMBEDDED)
    replies = ["Antwort: A", "Answer: **B**", "Antwort: B", "Keine davon.", "答案：A", "B", "答案是 C", "A"]
    engine = FakeEngine(tokenizer, [harmony(None, reply) for reply in replies])
    ask = Ask("base", find_suite("mmmlu"), "test", ("de", "zh"), evaluate(folder), limit=4)
    prompts: dict[str, str] = {}
    run_pass(ask, engine, tokenizer, {}, Listener(lambda _: None, prompts.__setitem__, samples.append))
    outcomes = {(sample.language, sample.item_id): sample.outcome for sample in samples}
    assert [outcomes["de", f"mmmlu-{row}"] for row in range(4)] == ["correct", "correct", "wrong", "no_answer"]
    assert [outcomes["zh", f"mmmlu-{row}"] for row in range(4)] == ["correct", "correct", "correct", "wrong"]
    assert "Q0, really?\n\nA) None\nB) NA\nC) 3\nD)" in prompts[samples[-1].prompt_hash]


def test_what_is_no_mmmlu_is_named(folder: Path) -> None:
    table().drop(columns="Subject").to_csv(folder / "mmmlu_de.csv")
    with pytest.raises(SuiteError, match=r"mmmlu_de.csv: expected columns Question, A, B, C, D, Answer, Subject"):
        docs(folder, "de")
    table().assign(Answer="E").to_csv(folder / "mmmlu_fr.csv")
    with pytest.raises(SuiteError, match=r"mmmlu_fr.csv: expected rows with an answer A, B, C or D; row 0 has answer 'E'"):
        docs(folder, "fr")
    (folder / "mmmlu_it.csv").unlink()
    with pytest.raises(SuiteError, match=r"no mmmlu_it.csv or mmmlu_it.parquet in .*evaluate.data.mmmlu.*hub"):
        docs(folder, "it")


def test_no_data_at_all_names_both_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("EFFORTBENCH_DATA", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SuiteError, match=r"no mmmlu_zh.csv or mmmlu_zh.parquet: .*evaluate.data.mmmlu, or EFFORTBENCH_DATA.*on the hub"):
        docs(None, "zh")


def test_options_are_checked_before_anything_runs(folder: Path) -> None:
    suite = find_suite("mmmlu")

    def check(asked: Evaluate) -> None:
        model = {"id": "embedded", "load_in_4bit": False, "dtype": "float32"}
        _check_data(suite, LANGUAGES, parse_experiment({"name": "x", "model": model, "evaluate": asked.model_dump(mode="json")}, "a test"))

    check(evaluate(folder, options={"mmmlu": {"subset": 2}}))
    with pytest.raises(SuiteError, match="suite mmmlu has no option subsett: it has subset, revision"):
        check(evaluate(folder, options={"mmmlu": {"subsett": 2}}))
    before = suite.data_revision({"mmmlu": folder})
    table(5).to_parquet(folder / "mmmlu_zh.parquet")
    assert suite.data_revision({"mmmlu": folder}) != before
