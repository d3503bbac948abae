"""Belebele rows from a local folder or the hub, and the letter in a reply. Named by the YAML files beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.rows import Folder, check_answers, find_file, first_of_each, read_table
from bench.rows import final_letter as final_letter  # the YAML files name it here

CHOICES = {"mc_answer1": "a", "mc_answer2": "b", "mc_answer3": "c", "mc_answer4": "d"}
LETTERS = dict(zip("1234", "ABCD", strict=True))
"""The data number the choices from 1."""


def load(
    language: str,
    data: Mapping[str, Folder] | None = None,
    subset: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The questions of one language in an order that all languages share, or the first `subset` of them. Called by lm-eval.

    `data` is {"belebele": FOLDER}; without it EFFORTBENCH_DATA/belebele is read, then the hub at its pinned commit or at `revision`.
    Raises SuiteError.
    """
    from datasets import Dataset

    path = find_file(__file__, language, data, options)
    return {"test": Dataset.from_list(first_of_each(_read(path, language), "language", subset, "belebele.subset"))}


def _read(path: Path, language: str) -> list[dict[str, str]]:
    """Sorted by item: the files hold the same questions, and nobody promises in which order."""
    table = read_table(path, ["link", "question_number", "flores_passage", "question", *CHOICES, "correct_answer_num"])
    check_answers(path, table["correct_answer_num"], list(LETTERS))
    return sorted((_row(row, language) for row in table.to_dict("records")), key=lambda row: row["item_id"])


def _row(row: dict[Any, Any], language: str) -> dict[str, str]:
    """A passage, named by its link, and the number of the question name the problem; a hash keeps the name short."""
    passage = hashlib.sha256(row["link"].encode()).hexdigest()[:10]
    return {
        "item_id": f"belebele-{passage}-{row['question_number']}",
        "language": language,
        "passage": row["flores_passage"],
        "question": row["question"],
        **{name: row[column] for column, name in CHOICES.items()},
        "target": LETTERS[row["correct_answer_num"]],
    }
