"""Belebele rows from a local folder or the hub, and the letter in a reply. Named by the YAML files beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.answers import extract_choice
from bench.rows import Folder, check_answers, download, first_of_each, local_file, read_table, suite_of

CHOICES = {"mc_answer1": "a", "mc_answer2": "b", "mc_answer3": "c", "mc_answer4": "d"}
LETTERS = dict(zip("1234", "ABCD", strict=True))
"""The data number the choices from 1."""
INVALID = "[invalid]"
"""Stands for "no letter found", as in lm-eval's own filters; no target equals it."""


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

    suite = suite_of(__file__)
    path = local_file(suite, language, data) or download(suite, language, options)
    return {"test": Dataset.from_list(first_of_each(_read(path, language), "language", subset, "belebele.subset"))}


def final_letter(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """The letter in each reply; INVALID where there is none. A filter of lm-eval."""
    return [[extract_choice(reply, doc["language"]) or INVALID for reply in replies] for replies, doc in zip(resps, docs, strict=True)]


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
