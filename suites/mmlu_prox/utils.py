"""MMLU-ProX rows from a local folder or the hub, and the letter in a reply. Named by the YAML files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import SuiteError
from bench.rows import Folder, check_answers, find_file, first_of_each, read_table
from bench.rows import final_letter as final_letter  # the YAML files name it here

LETTERS = "ABCDEFGHIJ"
OPTIONS = [f"option_{number}" for number in range(len(LETTERS))]
FEWEST = 2
"""A question has this many choices at least; the others may be empty."""


def load(
    language: str,
    data: Mapping[str, Folder] | None = None,
    subset: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The test split of one language, or its first `subset` rows of every category. Called by lm-eval.

    `data` is {"mmlu_prox": FOLDER}; without it EFFORTBENCH_DATA/mmlu_prox is read, then the hub: the data set, or the `variant` lite,
    at its pinned commit or at `revision`. Raises SuiteError.
    """
    from datasets import Dataset

    path = find_file(__file__, language, data, options)
    return {"test": Dataset.from_list(first_of_each(_read(path, language), "category", subset, "mmlu_prox.subset"))}


def _read(path: Path, language: str) -> list[dict[str, str]]:
    table = read_table(path, ["question_id", "question", "answer", "category"], OPTIONS)
    check_answers(path, table["answer"], LETTERS)
    return [_row(row, path, language) for row in table.to_dict("records")]


def _row(row: dict[Any, Any], path: Path, language: str) -> dict[str, str]:
    """Choices end at the first empty one."""
    texts = [row.get(option) for option in OPTIONS]
    count = next((number for number, text in enumerate(texts) if not text), len(texts))
    letters = LETTERS[:count]
    if count < FEWEST or row["answer"] not in letters:
        raise SuiteError(f"{path}: question {row['question_id']} has {count} choices and the answer {row['answer']}")
    return {
        "item_id": f"mmlu_prox-{row['question_id']}",
        "language": language,
        "question": row["question"],
        "choices": "\n".join(f"{letter}) {text}" for letter, text in zip(letters, texts, strict=False)),
        "letters": letters,
        "target": row["answer"],
        "category": row["category"],
    }
