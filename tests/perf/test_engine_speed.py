"""Throughput of our own hot paths. Run them alone with `pytest -m bench`, and with `--benchmark-json FILE` to keep the figures.

Engines are compared as a ratio inside one run, in alternated rounds on the same forced lengths: the machine's mood then cancels out.
Bars are far below what an idle machine shows; they catch a lost algorithm, not a busy afternoon.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from bench.answers import extract_number
from bench.engines import Engine, Row
from bench.harmony import decoder, find_specials, parse, render
from bench.models import EMBEDDED, load_checked, load_tokenizer

pytestmark = pytest.mark.bench

DEV = Path(__file__).parents[2] / "suites" / "stories" / "dev.jsonl"
ROWS = 32
ROUNDS = 3
FASTER_THAN_GENERATE = 3.0


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(EMBEDDED)


def tokens_per_s(engine: Engine, rows: list[Row]) -> float:
    started = time.perf_counter()
    tokens = sum(len(generation.tokens) for generation in engine.generate(rows))
    return tokens / (time.perf_counter() - started)


def test_slots_are_faster_than_generate_row_by_row(benchmark: Any, tokenizer: Any) -> None:
    import torch

    from bench.engines.plain import GenerateEngine
    from bench.engines.slots import SlotEngine

    torch.set_num_threads(1)
    questions = [json.loads(line)["question"] for line in DEV.read_text(encoding="utf-8").splitlines()[:ROWS]]
    prompts = [tuple(render(tokenizer, [{"role": "user", "content": question}], "medium")) for question in questions]
    rows = [Row(prompt, 4 + 3 * (number % 4)) for number, prompt in enumerate(prompts)]  # 4 to 13 tokens, all forced
    model, never = load_checked(EMBEDDED, "float32").eval(), frozenset({len(tokenizer)})
    slots, plain = SlotEngine(model, never, ROWS), GenerateEngine(model, never)
    tokens_per_s(slots, rows[:4])  # the first calls of a process are slower
    tokens_per_s(plain, rows[:1])
    ratios = []

    def one_round() -> None:
        reference = tokens_per_s(plain, rows)
        ratios.append(tokens_per_s(slots, rows) / reference)

    benchmark.pedantic(one_round, rounds=ROUNDS)
    benchmark.extra_info["times_generate"] = [round(ratio, 2) for ratio in ratios]
    assert statistics.median(ratios) > FASTER_THAN_GENERATE


def test_replies_are_parsed_by_the_thousand(benchmark: Any, tokenizer: Any) -> None:
    thought = "We start with 17. Now 17 + 25 = 42. " * 8
    text = f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant<|channel|>final<|message|>The answer is 42.<|return|>"
    ids, specials, decode = tokenizer(text, add_special_tokens=False)["input_ids"], find_specials(tokenizer), decoder(tokenizer)
    assert benchmark(parse, ids, specials, decode).form == "complete"
    benchmark.extra_info["output_tokens"] = len(ids)
    assert benchmark.stats["median"] < 2e-3


@pytest.mark.parametrize(
    ("language", "text"), [("en", "Answer: $1,234.50"), ("bn", "উত্তর: ৪২"), ("zh", "答案：二千一百二十五")], ids=["en", "bn", "zh"]
)
def test_numbers_are_read_by_the_thousand(language: str, text: str, benchmark: Any) -> None:
    worked = "She sells 16 - 3 - 4 = 9 eggs, so 9 * 2 = 18 dollars a day.\n" * 4 + text
    assert benchmark(extract_number, worked, language, whole=True) is not None
    assert benchmark.stats["median"] < 2e-3
