"""MGSM rows from a local folder or the hub, and the number in a reply. Named by the YAML files beside it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.answers import extract_number
from bench.errors import SuiteError
from bench.rows import INVALID, Folder, download, local_file, suite_of

ROWS = 250
ANSWERS_SHA256 = "a98cc1ed3bf8ddbfb62b21c2f2c8b52437228b9955ab18af44f2010b52a2e2d8"
"""Of the 250 answers, one a line, the same in every language: what a download must contain."""
PREFIXES = {
    "bn": "উত্তর",
    "de": "Antwort",
    "en": "Answer",
    "es": "Respuesta",
    "fr": "Réponse",
    "ja": "答え",
    "ru": "Ответ",
    "sw": "Jibu",
    "te": "సమాధానం",
    "th": "คำตอบ",
    "zh": "答案",
}
"""What announces an answer in simple-evals' scorer (openai/simple-evals, mgsm_eval.py, commit 0637982)."""
_SIMPLE_NUMBER = re.compile(r"\d+\.?\d*")


def load(language: str, data: Mapping[str, Folder] | None = None, **options: Any) -> dict[str, Any]:
    """The test split of one language: item_id, question, target, language. Called by lm-eval.

    `data` comes from TaskManager(metadata={"data": {"mgsm": FOLDER}}); without it EFFORTBENCH_DATA/mgsm is read, then the hub at its
    pinned commit or at `revision`. Raises SuiteError where none has the language.
    """
    from datasets import Dataset

    suite = suite_of(__file__)
    path = local_file(suite, language, data) or _download(language, options)
    rows = [_row(line, number, path, language) for number, line in enumerate(path.read_text(encoding="utf-8").splitlines())]
    if not rows:
        raise SuiteError(f"{path} is empty: expected question<TAB>answer rows")
    return {"test": Dataset.from_list(rows)}


def final_number(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """The number in each reply, in the form of the targets; INVALID where there is none. A filter of lm-eval."""
    return [
        [extract_number(reply, doc["language"], whole=True) or INVALID for reply in replies]
        for replies, doc in zip(resps, docs, strict=True)
    ]


def simple_evals_number(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """As simple-evals reads a reply; INVALID where it finds nothing. A filter of lm-eval."""
    return [[simple_evals(reply, doc["language"]) or INVALID for reply in replies] for replies, doc in zip(resps, docs, strict=True)]


def simple_evals(reply: str, language: str) -> str | None:
    """What the published scorer compares with the target: the last number behind the last prefix, its faults included.

    Commas go, zeros at the end of decimals go, a sign is not read, and digits keep their script, so that they equal no target. The
    prefix counts wherever it stands, in its own language and case alone. None where there is no prefix, or no digit behind it.
    """
    _, prefix, tail = reply.rpartition(PREFIXES[language])
    numbers = _SIMPLE_NUMBER.findall(tail.replace(",", "")) if prefix else []
    if not numbers:
        return None
    number = str(numbers[-1]).rstrip(".")
    return number.rstrip("0").rstrip(".") if "." in number else number


def _row(line: str, number: int, path: Path, language: str) -> dict[str, str]:
    question, tab, answer = line.rpartition("\t")
    # The files write 114,200 whatever the language.
    target = extract_number(answer, "en", whole=True)
    if not tab or not question or target is None:
        raise SuiteError(f"{path}, line {number + 1}: expected question<TAB>answer, found {line[:80]!r}")
    return {"item_id": f"mgsm-{number}", "question": question, "target": target, "language": language}


def _download(language: str, options: Mapping[str, Any]) -> Path:
    """From the hub; the published answers are checked, whatever commit was asked for."""
    suite = suite_of(__file__)
    path = download(suite, language, options)
    answers = [line.rpartition("\t")[2] for line in path.read_text(encoding="utf-8").splitlines()]
    if hashlib.sha256("\n".join(answers).encode()).hexdigest() != ANSWERS_SHA256:
        raise SuiteError(f"{path} has other answers than the {ROWS} published: give a folder instead (evaluate.data.mgsm)")
    return path
