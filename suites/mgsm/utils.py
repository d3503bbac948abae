"""MGSM rows from a local folder or the hub, and the number in a reply. Named by the YAML files beside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.answers import extract_number
from bench.errors import SuiteError

HUB_ID = "juletxara/mgsm"
ROWS = 250
ANSWERS_SHA256 = "a98cc1ed3bf8ddbfb62b21c2f2c8b52437228b9955ab18af44f2010b52a2e2d8"
"""Of the 250 answers, one a line, the same in every language: what a download must contain."""
INVALID = "[invalid]"
"""Stands for "no number found", as in lm-eval's own filters; no target equals it."""


def load(language: str, data: Mapping[str, str | os.PathLike[str]] | None = None, **_metadata: Any) -> dict[str, Any]:
    """The test split of one language: item_id, question, target, language. Called by lm-eval.

    `data` comes from TaskManager(metadata={"data": {"mgsm": FOLDER}}); without it EFFORTBENCH_DATA/mgsm is read, then the hub.
    Raises SuiteError where none has the language.
    """
    from datasets import Dataset

    path = _find(language, (data or {}).get("mgsm"))
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


def _row(line: str, number: int, path: Path, language: str) -> dict[str, str]:
    question, tab, answer = line.rpartition("\t")
    # The files write 114,200 whatever the language.
    target = extract_number(answer, "en", whole=True)
    if not tab or not question or target is None:
        raise SuiteError(f"{path}, line {number + 1}: expected question<TAB>answer, found {line[:80]!r}")
    return {"item_id": f"mgsm-{number}", "question": question, "target": target, "language": language}


def _find(language: str, folder: str | os.PathLike[str] | None) -> Path:
    name = f"mgsm_{language}.tsv"
    if folder is not None:
        path = Path(folder) / name
        if not path.is_file():
            raise SuiteError(f"no {name} in {folder}: put it there, or leave out evaluate.data.mgsm to take {HUB_ID} from the hub")
        return path
    shared = os.environ.get("EFFORTBENCH_DATA")
    if shared and (path := Path(shared) / "mgsm" / name).is_file():
        return path
    return _download(name)


def _download(name: str) -> Path:
    import httpx
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        path = Path(hf_hub_download(HUB_ID, name, repo_type="dataset"))
    except (OSError, HfHubHTTPError, httpx.HTTPError) as error:
        raise SuiteError(
            f"no {name}: give a folder with it (evaluate.data.mgsm, or EFFORTBENCH_DATA with a folder mgsm), "
            f"or let {HUB_ID} be reached on the hub ({type(error).__name__})"
        ) from error
    answers = [line.rpartition("\t")[2] for line in path.read_text(encoding="utf-8").splitlines()]
    if hashlib.sha256("\n".join(answers).encode()).hexdigest() != ANSWERS_SHA256:
        raise SuiteError(f"{HUB_ID} on the hub has changed: {name} has other answers than the {ROWS} published; give a folder instead")
    return path
