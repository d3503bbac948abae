"""One engine over one set of rows, in a process of its own; prints what it took as JSON. `test_engine_ratios.py` alternates engines.

  one_engine.py ENGINE MODEL ROWS      ENGINE: slots-N, generate-N, lm-eval-N (its hf backend), continuous-N; N rows side by side
                                       MODEL: embedded (the shipped model), or 6.8M (that many random weights, the same tokenizer)

Every engine continues the same prompts by the same forced numbers of tokens, skewed as reasoning is. None is told them beforehand: our
engine and lm-eval's know the effort's limit and find a stop token; only transformers' continuous batching and generate-1, whose rows do
not wait for one another, are given the number as a limit. Seconds are the process's own on all its threads, so that a busy machine
hardly counts; loading and a warm-up are left out, lm-eval's tokenizing and ours are not.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.engines import Row
from bench.engines.plain import GenerateEngine
from bench.engines.slots import SlotEngine
from bench.harmony import render
from bench.models import EMBEDDED, load_checked, load_tokenizer

ROOT = Path(__file__).parents[2]
EFFORTS = {"low": (48, 8), "medium": (160, 45), "high": (320, 130)}
"""Limit of an answer and mean of what it takes; one in some thirty runs into its limit."""
NEVER = 10**6


def load(name: str) -> Any:
    if name == "embedded":
        return load_checked(EMBEDDED, "float32").eval()
    from transformers import AutoModelForCausalLM, GptOssConfig

    torch.manual_seed(1)
    shape = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4}
    config = GptOssConfig(**shape, head_dim=32, num_local_experts=4, num_experts_per_tok=2, sliding_window=128, vocab_size=1744)
    config.max_position_embeddings, config.rope_parameters = 4096, {"rope_type": "default", "rope_theta": 10000.0}
    return AutoModelForCausalLM.from_config(config).float().eval()


def make_rows(tokenizer: Any, count: int) -> tuple[list[str], list[Row], list[int]]:
    """Prompts, as text and as rows limited by their effort, and how many tokens each will take."""
    draw = random.Random(5)
    texts, rows, lengths = [], [], []
    questions = [json.loads(line)["question"] for line in (ROOT / "suites/stories/dev.jsonl").read_text("utf-8").splitlines()]
    for number in range(count):
        effort = tuple(EFFORTS)[number % 3]
        limit, mean = EFFORTS[effort]
        prompt = render(tokenizer, [{"role": "user", "content": questions[number // 3 % len(questions)]}], effort)
        texts.append(tokenizer.decode(prompt) + f"{number}.")  # no two alike: lm-eval's rows are told apart by them
        rows.append(Row(tuple(tokenizer(texts[-1], add_special_tokens=False)["input_ids"]), limit))
        lengths.append(min(limit, 4 + int(draw.expovariate(1 / mean))))
    return texts, rows, lengths


# --- engines: each returns a function that continues everything and tells how many tokens it made


def slots(width: int, model: Any, tokenizer: Any, texts: list[str], rows: list[Row], lengths: list[int]) -> Callable[[], int]:
    class Forced(SlotEngine):
        def _stop_reason(self, entry: Any) -> Any:
            return "stop" if len(entry.tokens) >= lengths[entry.index] else None

    def run() -> int:
        asked = [
            Row(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), row.max_new_tokens)
            for text, row in zip(texts, rows, strict=True)
        ]
        made = 0
        for generation in Forced(model, frozenset({NEVER}), width).generate(asked):
            tokenizer.decode(generation.tokens)
            made += len(generation.tokens)
        return made

    return run


def generate(width: int, model: Any, tokenizer: Any, texts: list[str], rows: list[Row], lengths: list[int]) -> Callable[[], int]:
    limited = [Row(row.prompt, length) for row, length in zip(rows, lengths, strict=True)]

    def run() -> int:
        return sum(len(generation.tokens) for generation in GenerateEngine(model, frozenset({NEVER}), width).generate(limited))

    return run


def lm_eval(width: int, model: Any, tokenizer: Any, texts: list[str], rows: list[Row], lengths: list[int]) -> Callable[[], int]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import LogitsProcessor, LogitsProcessorList

    wanted = {row.prompt: length for row, length in zip(rows, lengths, strict=True)}
    made = 0

    class Stopping(LogitsProcessor):
        """The stop token comes where the row is to end, and not before."""

        def __init__(self, context: Any, mask: Any):
            prompts = [tuple(ids[kept.bool()].tolist()) for ids, kept in zip(context, mask, strict=True)]
            self.lengths = torch.tensor([wanted[prompt] for prompt in prompts])
            self.width = context.shape[1]

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            is_last = input_ids.shape[1] - self.width + 1 >= self.lengths
            scores[:, tokenizer.eos_token_id] = torch.where(is_last, float("inf"), float("-inf"))
            return scores

    class Forced(HFLM):
        def _model_generate(self, context: Any, max_length: int, stop: Any, **named: Any) -> Any:
            nonlocal made
            processor = Stopping(context, named["attention_mask"])
            made += int(processor.lengths.sum())
            return super()._model_generate(context, max_length, stop, logits_processor=LogitsProcessorList([processor]), **named)

    lm = Forced(pretrained=model, tokenizer=tokenizer, batch_size=width, max_length=4096, add_bos_token=False)
    stop = tokenizer.decode([tokenizer.eos_token_id])
    requests = [
        Instance("generate_until", {}, (text, {"until": [stop], "max_gen_toks": row.max_new_tokens, "do_sample": False}), number)
        for number, (text, row) in enumerate(zip(texts, rows, strict=True))
    ]

    def run() -> int:
        nonlocal made
        made = 0
        lm.generate_until(requests, disable_tqdm=True)
        return made

    return run


def continuous(width: int, model: Any, tokenizer: Any, texts: list[str], rows: list[Row], lengths: list[int]) -> Callable[[], int]:
    from transformers import ContinuousBatchingConfig, GenerationConfig
    from transformers.generation.continuous_batching.utils import WorkloadHints

    model.set_attn_implementation("paged|eager")
    config = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=max(lengths))
    hints = WorkloadHints(max_prompt_length=max(len(row.prompt) for row in rows), max_generated_length=max(lengths), num_requests=len(rows))
    batching = ContinuousBatchingConfig(block_size=32, num_blocks=16 * width, max_batch_tokens=2048, max_requests_per_batch=width)

    def run() -> int:
        made = 0
        with model.continuous_batching_context_manager(config, continuous_batching_config=batching, workload_hints=hints) as manager:
            for row, length in zip(rows, lengths, strict=True):
                manager.add_request(list(row.prompt), max_new_tokens=length)
            for _ in rows:
                while (result := manager.get_result(timeout=1)) is None or not result.is_finished():
                    assert manager.is_running(), "continuous batching ended early"
                made += len(result.generated_tokens)
        return made

    return run


ENGINES = {"slots": slots, "generate": generate, "lm-eval": lm_eval, "continuous": continuous}


def main() -> None:
    engine, model_name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)
    kind, _, width = engine.rpartition("-")
    model, tokenizer = load(model_name), load_tokenizer(EMBEDDED)
    texts, rows, lengths = make_rows(tokenizer, count)
    with torch.no_grad():
        few = slice(0, 3)
        ENGINES[kind](int(width), model, tokenizer, texts[few], rows[few], [3, 3, 3])()  # the first calls of a process are slower
        run = ENGINES[kind](int(width), model, tokenizer, texts, rows, lengths)
        wall, cpu = time.perf_counter(), time.process_time()
        made = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert made == sum(lengths), f"{engine} made {made} tokens of {sum(lengths)}"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"engine": engine, "parameters": parameters, "rows": count, "tokens": made, "cpu_s": cpu, "wall_s": wall}))


if __name__ == "__main__":
    main()
