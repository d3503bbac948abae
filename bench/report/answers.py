"""Samples -> what the page's browser of answers reads: an index of every answer, and their texts in compressed blocks.

Index and blocks are gzip in base64, so no text of a model can end a script or be markup; the page shows them as text only. Blocks are
opened one at a time, when one is looked at or searched. Those beyond INLINE_CHARS lie in script files beside the page, which a browser
also loads from file://. Long texts are cut and say so; the run folder keeps them whole.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.experiment import EFFORTS
from bench.records import OUTCOMES, Run
from bench.report import words
from bench.report.flips import prompt_records
from bench.report.focus import Focus

BLOCK_CHARS = 1_000_000
"""Texts in one block, about; a browser unpacks it in some 10 ms."""
INLINE_CHARS = 32_000_000
"""Base64 of blocks that the page itself carries."""
ALL_CHARS = 400_000_000
"""Completions in all blocks together, about: what a completion may hold shrinks with their number, down to SHORTEST."""
AT_ONCE, SLICE = 8, 10_000
"""Blocks and completions held unpacked."""
LONGEST, SHORTEST, LONGEST_PROMPT = 24_000, 2_000, 6_000
LONGEST_ANSWER = 200
LIGHT = ["outcome", "score", "answer", "target", "reasoning_language", "reasoning_tokens", "output_tokens", "prompt_hash"]
COMPRESSION = 4
"""Of gzip: near the best size at a third of its time on reasoning text."""

Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the browser reads, packed."""

    index: str
    """Base64 of gzip of JSON: names once, and one integer an answer in each column."""
    blocks: tuple[str, ...]
    """Base64 of gzip of JSON: texts of neighbouring answers and their prompts."""
    beside: dict[str, str] = field(default_factory=dict)
    """File name -> JavaScript, for the blocks that the page does not carry."""
    total: int = 0


@dataclass(frozen=True, slots=True)
class _Table:
    """Answers in the order shown: by data, language, effort, problem and sample, the arms of one question side by side."""

    samples: pd.DataFrame
    """Without completions, which are read from `completion` a slice at a time."""
    completion: pd.Series[Any]
    """In the run's own order."""
    order: Codes
    """Where each answer stands in it."""
    question: Codes
    """Number of each answer's question, from 0 and rising."""
    columns: dict[str, Codes]
    names: dict[str, list[str]]


def pack_answers(run: Run, focus: Focus) -> Answers:
    """Everything the browser of answers needs."""
    table = _sorted(run, focus)
    prompts = read_prompts(run.folder / "prompts.jsonl")
    starts: list[int] = []
    packed: list[str] = []
    blocks = _blocks(table, prompts)
    with ThreadPoolExecutor(2) as pool:  # zlib lets go of the interpreter
        while some := list(itertools.islice(blocks, AT_ONCE)):
            starts += [start for start, _ in some]
            packed += pool.map(_pack, [text for _, text in some])
    inline = sum(total <= INLINE_CHARS for total in itertools.accumulate(map(len, packed)))
    beside = {f"{number:04d}.js": f'effortbenchBlock({number},"{block}")\n' for number, block in enumerate(packed) if number >= inline}
    index = _index(run, focus, table) | {"starts": starts, "inline": inline}
    return Answers(_pack(_json(index)), tuple(packed[:inline]), beside, len(table.samples))


def _sorted(run: Run, focus: Focus) -> _Table:
    samples = run.samples
    places = [f"{suite}@{split}" for suite, split in focus.data]
    place = samples["suite"].astype(str) + "@" + samples["split"].astype(str)
    known = {
        "place": (place, places),
        "language": (samples["language"], sorted(samples["language"].astype(str).unique())),
        "effort": (samples["effort"], list(EFFORTS)),
        "item": (samples["item_id"], sorted(samples["item_id"].astype(str).unique())),
        "arm": (samples["arm"], list(focus.arms)),
    }
    codes = {name: _codes(values, names) for name, (values, names) in known.items()}
    codes["sample"] = samples["sample_index"].to_numpy(dtype=np.int64)
    keys = ("place", "language", "effort", "item", "sample")
    order = np.lexsort([codes[name] for name in ("arm", *reversed(keys))])
    codes = {name: values[order] for name, values in codes.items()}
    is_next = np.any([np.diff(codes[name], prepend=-1) != 0 for name in keys], axis=0)
    light = samples[LIGHT].iloc[order]
    return _Table(light, samples["completion"], order, np.cumsum(is_next) - 1, codes, {name: names for name, (_, names) in known.items()})


def _codes(values: pd.Series[Any], names: list[str]) -> Codes:
    return np.asarray(pd.Categorical(values.astype(str), categories=names).codes, dtype=np.int64)


def _index(run: Run, focus: Focus, table: _Table) -> dict[str, Any]:
    samples, columns = table.samples, table.columns
    first = np.flatnonzero(np.diff(table.question, prepend=-1))
    answers, spellings = _spellings(samples["answer"])
    targets, wanted = _spellings(samples["target"].iloc[first])
    spoken, tongues = _spellings(samples["reasoning_language"])
    return {
        "names": {name: [words.harmless(text, 200) for text in texts] for name, texts in table.names.items()},
        "outcomes": [outcome.replace("_", " ") for outcome in OUTCOMES],
        "answers": spellings,
        "targets": wanted,
        "tongues": tongues,
        "reference": focus.arms.index(focus.reference) if focus.reference in focus.arms else -1,
        "chosen": focus.arms.index(focus.chosen) if focus.chosen in focus.arms else -1,
        "questions": {name: columns[name][first].tolist() for name in ("place", "language", "effort", "item", "sample")}
        | {"target": targets},
        "samples": {
            "question": table.question.tolist(),
            "arm": columns["arm"].tolist(),
            "outcome": _codes(samples["outcome"], list(OUTCOMES)).tolist(),
            "score": _numbers(samples["score"]),
            "answer": answers,
            "reasoning": _numbers(samples["reasoning_tokens"]),
            "output": _numbers(samples["output_tokens"]),
            "tongue": spoken,
        },
    }


def _spellings(column: pd.Series[Any]) -> tuple[list[int], list[str]]:
    """(place of each value in the list, the list); -1 where there is none."""
    codes, values = pd.factorize(column.astype(object))
    return codes.tolist(), [words.harmless(str(value), LONGEST_ANSWER) for value in values]


def _numbers(column: pd.Series[Any]) -> list[int | float | None]:
    values = column.to_numpy(dtype=float, na_value=np.nan)
    return [None if value != value else int(value) if value == int(value) else value for value in values.tolist()]


def _blocks(table: _Table, prompts: dict[str, str]) -> Iterator[tuple[int, str]]:
    """(number of its first answer, JSON) of each block; a question's answers are never torn apart."""
    limit = max(SHORTEST, min(LONGEST, ALL_CHARS // max(1, len(table.samples))))
    rows = zip(table.question.tolist(), table.samples["prompt_hash"].tolist(), _completions(table), strict=True)
    start, size, asked, which, texts = 0, 0, dict[str, int](), list[int](), list[str]()
    before = -1
    for number, (question, prompt_hash, completion) in enumerate(rows):
        if size > BLOCK_CHARS and question != before:
            yield start, _block(asked, which, texts, prompts)
            start, size, asked, which, texts = number, 0, {}, [], []
        if prompt_hash not in asked:
            asked[prompt_hash] = len(asked)
            size += len(prompts.get(prompt_hash, ""))
        which.append(asked[prompt_hash])
        texts.append(shortened(completion or "", limit))
        size += len(texts[-1])
        before = question
    if texts:
        yield start, _block(asked, which, texts, prompts)


def _completions(table: _Table) -> Iterator[str | None]:
    for start in range(0, len(table.order), SLICE):
        yield from table.completion.iloc[table.order[start : start + SLICE]].tolist()


def _block(asked: Iterable[str], which: list[int], texts: list[str], prompts: dict[str, str]) -> str:
    return _json({"prompts": [prompts.get(prompt_hash) for prompt_hash in asked], "prompt": which, "texts": texts})


def shortened(text: str, limit: int) -> str:
    """Beginning and end of a long text: a reasoning model's answer comes last."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return f"{text[:head]} \u2026 ({len(text) - limit:,} characters left out) \u2026 {text[head - limit :]}"


def read_prompts(path: Path) -> dict[str, str]:
    """Text of every prompt by its hash, cut where it is long. Empty where the file cannot be read; a torn line is passed over."""
    try:
        return {record["prompt_hash"]: shortened(str(record.get("prompt", "")), LONGEST_PROMPT) for record in prompt_records(path)}
    except OSError:
        return {}


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _pack(text: str) -> str:
    data = gzip.compress(text.encode("utf-8", "replace"), COMPRESSION, mtime=0)
    return base64.b64encode(data).decode("ascii")
