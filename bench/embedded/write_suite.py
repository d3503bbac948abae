"""Write the data of suites/stories: `python -m bench.embedded.write_suite`. The same seed gives the same bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.embedded import stories

FOLDER = Path(__file__).parents[2] / "suites" / "stories"
TAUGHT_EFFORTS = ("medium", "high")
"""Low is left out: it reasons nothing, so there is no language to teach, and the loss on its guessed answers harms arithmetic."""


def questions(split: str) -> Iterator[dict[str, Any]]:
    """Every problem of an evaluation split in every language; translations share their item_id."""
    for index, problem in enumerate(stories.splits()[split]):
        for code in stories.LANGUAGES:
            yield {
                "item_id": f"stories-{split}-{index:03d}",
                "language": code,
                "question": stories.tell(problem, code),
                "target": str(problem.values[-1]),
                "start": problem.start,
                "operations": [f"{sign}{operand}" for sign, operand in problem.operations],
            }


def lessons() -> list[dict[str, Any]]:
    """The training split, in the schema of HuggingFaceH4/Multilingual-Thinking plus `effort`: the effort the analysis is written for."""
    rows = []
    for index, problem in enumerate(stories.splits()["train"]):
        effort = TAUGHT_EFFORTS[index % len(TAUGHT_EFFORTS)]
        for code, language in stories.LANGUAGES.items():
            rows.append(_lesson(problem, code, language.name, effort))
    random.Random(stories.SPLIT_SEED).shuffle(rows)
    return rows


def _lesson(problem: stories.Problem, code: str, language: str, effort: str) -> dict[str, Any]:
    developer, user = stories.ask_for(code), stories.tell(problem, code)
    analysis, final = stories.think(problem, code, effort), stories.answer(problem, code)
    messages = [
        {"role": "system", "content": developer, "thinking": None},
        {"role": "user", "content": user, "thinking": None},
        {"role": "assistant", "content": final, "thinking": analysis or None},
    ]
    return {
        "reasoning_language": language,
        "developer": developer,
        "user": user,
        "analysis": analysis,
        "final": final,
        "messages": messages,
        "effort": effort,
    }


def main() -> None:
    """Write the four files."""
    for split in ("gate", "select", "dev"):
        _write(split, list(questions(split)))
    _write("train", lessons())


def _write(split: str, rows: list[dict[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (FOLDER / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
