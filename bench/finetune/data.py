"""Fine-tuning rows -> conversations -> token ids to train on.

Rows have the schema of HuggingFaceH4/Multilingual-Thinking: developer, user, analysis, final, reasoning_language, messages. A column
`effort`, where there is one, names the effort a row's analysis was written for.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.catalog import SUITES, suite_names
from bench.errors import DatasetError
from bench.experiment import EFFORTS, Dataset, Finetune
from bench.harmony import PINNED_DATE, render_lesson

COLUMNS = ("user", "final")
OPTIONAL_COLUMNS = ("developer", "analysis")
_SURROGATE = re.compile("[\ud800-\udfff]")
SHUFFLE_SEED = 3407


def load_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """All rows whose reasoning language is wanted, in the source's order. Raises DatasetError."""
    rows = _read(dataset)
    if dataset.languages is not None:
        known = {row.get("reasoning_language") for row in rows}
        unknown = [name for name in dataset.languages if name not in known]
        if unknown:
            names = ", ".join(sorted(map(str, known)))
            raise DatasetError(f"dataset {dataset.id!r} has no reasoning_language {', '.join(unknown)}: it has {names}")
        rows = [row for row in rows if row.get("reasoning_language") in dataset.languages]
    for number, row in enumerate(rows):
        problem = _fault(row)
        if problem is not None:
            raise DatasetError(
                f"dataset {dataset.id!r}, row {number}: {problem}; expected the columns of "
                "HuggingFaceH4/Multilingual-Thinking (developer, user, analysis, final, reasoning_language, messages)"
            )
    if not rows:
        raise DatasetError(f"dataset {dataset.id!r} has no rows")
    return rows


def _fault(row: dict[str, Any]) -> str | None:
    """Why a row is no lesson; None where it is one."""
    if row.get("effort") not in (None, *EFFORTS):
        return f"effort is {str(row['effort'])[:40]!r}, not {', '.join(EFFORTS)}"
    missing = [column for column in COLUMNS if not _is_text(row.get(column))]
    if not missing:
        wrong = [column for column in OPTIONAL_COLUMNS if row.get(column) is not None and not _is_text(row[column])]
        return f"{', '.join(wrong)} is no text" if wrong else None
    messages = row.get("messages")
    if not messages:
        return f"no text in {', '.join(missing)}"
    if not isinstance(messages, list) or not all(map(_is_message, messages)):
        return "messages are no list of {role, content, thinking}"
    return None if messages[-1]["role"] == "assistant" else "the last message is not the assistant's"


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict) or not _is_text(message.get("role")) or not _is_text(message.get("content")):
        return False
    return message.get("thinking") is None or _is_text(message["thinking"])


def _is_text(value: Any) -> bool:
    """A string that can be encoded: JSON lets half a surrogate pair through."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def _read(dataset: Dataset) -> list[dict[str, Any]]:
    suite, _, split = dataset.id.partition("/")
    if suite in suite_names() and split == "train":
        if not (SUITES / suite / "train.jsonl").is_file():
            raise DatasetError(f"suite {suite} has no training split: expected {', '.join(_taught_suites())}, a hub id, a folder or a file")
        return list(_read_jsonl(SUITES / suite / "train.jsonl"))
    path = Path(os.path.expanduser(dataset.id))
    if os.path.isdir(path):  # unlike Path.is_dir, no error on a name too long to be one
        files = sorted([*path.glob("**/*.jsonl"), *path.glob("**/*.parquet")])
        if not files:
            raise DatasetError(f"{path}: no *.jsonl or *.parquet file")
        return [row for file in files for row in _read_file(file)]
    if path.suffix in (".jsonl", ".parquet"):
        return list(_read_file(path))
    return _download(dataset)


def _taught_suites() -> list[str]:
    return [f"{name}/train" for name in suite_names() if (SUITES / name / "train.jsonl").is_file()]


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    return _read_jsonl(path) if path.suffix == ".jsonl" else _read_parquet(path)


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise DatasetError(f"no dataset {path}: expected a file or folder that is there") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise DatasetError(f"{path}, line {number}: expected a JSON object")
            yield row


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield from pyarrow.parquet.read_table(path).to_pylist()
    except FileNotFoundError as error:
        raise DatasetError(f"no dataset {path}: expected a file or folder that is there") from error
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read as parquet: {error}") from error


def _download(dataset: Dataset) -> list[dict[str, Any]]:
    from datasets import load_dataset

    try:
        return list(load_dataset(dataset.id, revision=dataset.revision, split="train"))
    except (OSError, ValueError, RuntimeError) as error:
        commit = f" at {dataset.revision}" if dataset.revision else ""
        raise DatasetError(
            f"dataset {dataset.id!r} could not be had from the hub{commit} ({type(error).__name__}): give a folder or a .jsonl or "
            ".parquet file, or `SUITE/train` for a suite's own training split"
        ) from error


def conversation(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages of one row, thinking in the last one."""
    if isinstance(row.get("user"), str) and isinstance(row.get("final"), str):
        developer = [{"role": "developer", "content": row["developer"]}] if row.get("developer") else []
        answer = {"role": "assistant", "content": row["final"], "thinking": row.get("analysis") or None}
        return [*developer, {"role": "user", "content": row["user"]}, answer]
    return [dict(message) for message in row["messages"]]


def languages_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Values of `reasoning_language`, sorted."""
    return sorted({row["reasoning_language"] for row in rows if _is_text(row.get("reasoning_language")) and row["reasoning_language"]})


def lessons(rows: Sequence[dict[str, Any]], tokenizer: Any, effort: str) -> list[list[int]]:
    """Token ids of each row, in Harmony; under `mixed` a row's own effort is named, or the three take turns."""
    return [render_lesson(tokenizer, conversation(row), _effort(row, index, effort)) for index, row in enumerate(rows)]


def _effort(row: dict[str, Any], index: int, effort: str) -> str:
    if effort != "mixed":
        return effort
    return str(row.get("effort") or EFFORTS[index % len(EFFORTS)])


def split_rows(rows: Sequence[Any], held_out: int) -> tuple[list[Any], list[Any]]:
    """(training rows, held-out rows), shuffled the same way for every arm. Raises DatasetError where nothing would be left."""
    if held_out >= len(rows):
        raise DatasetError(f"held_out_rows is {held_out}, but the dataset has {len(rows)} rows: nothing would be left to train on")
    shuffled = random.Random(SHUFFLE_SEED).sample(list(rows), len(rows))
    return shuffled[held_out:], shuffled[:held_out]


def nothing_left(finetune: Finetune) -> str:
    """What is wrong with rows that keep no token with loss."""
    return (
        f"no row keeps a token of {' or '.join(finetune.train_on)} within max_length {finetune.max_length}: raise it, or check that the "
        "dataset has those channels"
    )


def recipe_key(
    finetune: Finetune, rank: int, steps: int | str | None, seed: int, model: dict[str, Any], rows: Sequence[Any], method: str = "unsloth"
) -> str:
    """Hash of all that decides an adapter, 16 hex digits; with steps None of all that decides a run on its way to any step."""
    shared = finetune.model_dump(mode="json", exclude={"ranks", "steps", "seeds", "dataset", "checkpoint_steps"}) | {"method": method}
    whole = {
        "finetune": shared,
        "rank": rank,
        "steps": steps,
        "seed": seed,
        "model": model,
        "rows": list(rows),
        "date": PINNED_DATE.isoformat(),  # in the text of every row, where the model's template prints one
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:16]
