"""MMMLU rows from a local folder or the hub, and the letter in a reply. Named by the YAML files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.rows import Folder, check_answers, find_file, first_of_each, read_table
from bench.rows import final_letter as final_letter  # the YAML files name it here

COLUMNS = {"Question": "question", "A": "a", "B": "b", "C": "c", "D": "d", "Answer": "target", "Subject": "subject"}


def load(
    language: str,
    data: Mapping[str, Folder] | None = None,
    subset: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The test split of one language, or its first `subset` rows of every subject. Called by lm-eval.

    `data` is {"mmmlu": FOLDER}; without it EFFORTBENCH_DATA/mmmlu is read, then the hub at its pinned commit or at `revision`.
    Raises SuiteError.
    """
    from datasets import Dataset

    path = find_file(__file__, language, data, options)
    rows = [{"item_id": f"mmmlu-{number}", "language": language, **row} for number, row in enumerate(_read(path))]
    return {"test": Dataset.from_list(first_of_each(rows, "subject", subset, "mmmlu.subset"))}


def _read(path: Path) -> list[dict[str, str]]:
    table = read_table(path, list(COLUMNS)).rename(columns=COLUMNS)
    check_answers(path, table["target"], "ABCD")
    return [{str(name): str(value) for name, value in row.items()} for row in table.to_dict("records")]
