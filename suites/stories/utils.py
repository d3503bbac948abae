"""Rows of the stories and the number in a reply. Named by the YAML files beside it and in stories_plain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.answers import extract_number

INVALID = "[invalid]"
"""Stands for "no number found", as in lm-eval's own filters; no target equals it."""


def load(language: str, **_metadata: Any) -> dict[str, Any]:
    """The splits dev, select and gate of one language: item_id, question, target, language. Called by lm-eval."""
    from datasets import Dataset

    return {split: Dataset.from_list(_rows(split, language)) for split in ("dev", "select", "gate")}


def final_number(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """The number in each reply; INVALID where there is none. A filter of lm-eval."""
    return [
        [extract_number(reply, doc["language"], whole=True) or INVALID for reply in replies]
        for replies, doc in zip(resps, docs, strict=True)
    ]


def _rows(split: str, language: str) -> list[dict[str, Any]]:
    lines = (Path(__file__).parent / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["language"] == language]
