"""Samples -> pairs that changed: right before and wrong after, and the other way round, to be read side by side."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records import Run
from bench.report import words
from bench.report.focus import Focus

SHOWN = 10
_PAIR = ["language", "item_id", "sample_index"]
_TOLD = ["outcome", "answer", "target", "output_tokens", "prompt_hash", "completion"]
_PART = re.compile(
    r"<\|channel\|>(?P<channel>[a-z]+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(?P<text>.*?)(?=<\|(?:end|return|call|start)\|>|$)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Reply:
    """One arm's answer to one question."""

    arm: str
    outcome: str
    answer: str
    tokens: str
    parts: tuple[tuple[str, str], ...]
    """(channel, text) in the order written; one part `raw` where the channels cannot be read."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One question and the two answers to it."""

    language: str
    item_id: str
    target: str
    question: str | None
    before: Reply
    after: Reply


@dataclass(frozen=True, slots=True)
class Flips:
    """A few pairs of one direction; `total` says how many there are."""

    total: int
    shown: tuple[Flip, ...]


def find_flips(run: Run, focus: Focus) -> tuple[Flips, Flips] | None:
    """(right to wrong, wrong to right) of the chosen arm at the focused effort; None where there is nothing to pair."""
    if focus.chosen is None or not {focus.reference, focus.chosen} <= set(focus.compared):
        return None
    samples = run.samples
    here = (samples["suite"] == focus.suite) & (samples["split"] == focus.split) & (samples["effort"] == focus.effort)
    scored = samples.loc[here & samples["score"].notna(), ["arm", "score", *_PAIR, *_TOLD]]
    before, after = (scored[scored["arm"] == arm] for arm in (focus.reference, focus.chosen))
    pairs = before.merge(after, on=_PAIR, suffixes=("_before", "_after"))
    was_right, is_right = pairs["score_before"] >= 1, pairs["score_after"] >= 1
    lost, gained = _pick(pairs[was_right & ~is_right]), _pick(pairs[~was_right & is_right])
    wanted = {str(row["prompt_hash_after"]) for rows, _ in (lost, gained) for row in rows}
    questions = read_questions(run.folder / "prompts.jsonl", wanted)
    return _flips(lost, focus, questions), _flips(gained, focus, questions)


def _pick(pairs: pd.DataFrame) -> tuple[list[dict[str, Any]], int]:
    """A few pairs in an order that nobody chose: by a hash of what names them."""
    keys = pairs["item_id"].astype(str) + "/" + pairs["language"].astype(str) + "/" + pairs["sample_index"].astype(str)
    order = keys.map(lambda key: (zlib.crc32(key.encode("utf-8", "replace")), key)).sort_values().index[:SHOWN]
    return [{str(name): value for name, value in row.items()} for row in pairs.loc[order].to_dict("records")], len(pairs)


def _flips(picked: tuple[list[dict[str, Any]], int], focus: Focus, questions: dict[str, str]) -> Flips:
    rows, total = picked
    return Flips(total, tuple(_flip(row, focus.reference, str(focus.chosen), questions) for row in rows))


def _flip(row: dict[str, Any], reference: str, arm: str, questions: dict[str, str]) -> Flip:
    return Flip(
        language=words.harmless(str(row["language"]), 40),
        item_id=words.harmless(str(row["item_id"]), 120),
        target=words.harmless(str(row["target_after"]), 400),
        question=questions.get(str(row["prompt_hash_after"])),
        before=_reply(row, reference, "before"),
        after=_reply(row, arm, "after"),
    )


def _reply(row: dict[str, Any], arm: str, side: str) -> Reply:
    answer, tokens = row[f"answer_{side}"], row[f"output_tokens_{side}"]
    return Reply(
        arm=arm,
        outcome=str(row[f"outcome_{side}"]).replace("_", " "),
        answer=words.harmless(str(answer), 400) if not pd.isna(answer) else "no answer found",
        tokens=words.plural(int(tokens), "token") if not pd.isna(tokens) else "unknown tokens",
        parts=channels(str(row[f"completion_{side}"] or "")),
    )


def channels(completion: str) -> tuple[tuple[str, str], ...]:
    """Raw Harmony text -> its channels, for reading only; scoring reads token ids and is not done here."""
    parts = [(match["channel"], words.harmless(match["text"].strip())) for match in _PART.finditer(completion[:200_000])]
    kept = tuple((name, text) for name, text in parts if text)
    return kept or (("raw", words.harmless(completion) or "(nothing was generated)"),)


def read_questions(path: Path, wanted: set[str]) -> dict[str, str]:
    """The last user message of each wanted prompt; a prompt without one is shown whole. Empty where the file cannot be read."""
    questions: dict[str, str] = {}
    try:
        for record in prompt_records(path, wanted):
            if record["prompt_hash"] in wanted:
                questions[record["prompt_hash"]] = words.harmless(question_of(record), 2000)
    except OSError:
        return {}
    return questions


def prompt_records(path: Path, wanted: set[str] | None = None) -> Iterator[dict[str, Any]]:
    """Lines of a prompts.jsonl that name a prompt, or of those only the ones that hold a wanted hash; a torn line is passed over."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if wanted is not None and not any(name in line for name in wanted):
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and isinstance(record.get("prompt_hash"), str):
                yield record


def question_of(record: dict[str, Any]) -> str:
    """From chat messages where they are kept, else from the rendered prompt."""
    messages = record.get("messages")
    if isinstance(messages, list):
        users = [message for message in messages if isinstance(message, dict) and message.get("role") == "user"]
        if users:
            return str(users[-1].get("content", ""))
    prompt = str(record.get("prompt") or record.get("text") or "")
    found = re.findall(r"<\|start\|>user<\|message\|>(.*?)(?:<\|end\|>|$)", prompt, re.S)
    return str(found[-1]).strip() if found else prompt
