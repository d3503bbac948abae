"""Train the embedded model from scratch: `python -m bench.embedded.pretrain OUT` (one GPU, about eight minutes).

A seed and fixed step counts decide everything; no problem of the gate, select or dev split is ever drawn. What it should become:
a gpt-oss in miniature, that answers at once at low effort, thinks in short steps at medium and in single steps at high, reasons in
English whatever it is asked in, and mostly ignores a request for another language. Fine-tuning has something to teach it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GptOssConfig, GptOssForCausalLM, PreTrainedTokenizerFast

from bench.embedded import stories

TEMPLATE = Path(__file__).parent / "model" / "chat_template.jinja"
SPECIALS = [
    "<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>", "<|call|>",
]  # fmt: skip
EFFORTS = ("low", "medium", "high")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    seed: int = 2025
    stories: int = 800_000
    steps: int = 4_600
    batch: int = 512
    learning_rate: float = 2e-3
    warmup_steps: int = 300
    weight_decay: float = 0.05
    asked: float = 0.3
    """Share of prompts that ask for a reasoning language."""
    obeyed: float = 0.25
    """Share of those that get it; the rest reason in English."""
    unasked_own: float = 0.1
    """Share of other prompts that are reasoned in the question's language."""
    hidden: int = 192
    layers: int = 5
    experts: int = 4


def write_example(rng: random.Random, recipe: Recipe, forbidden: frozenset[stories.Signature]) -> tuple[str, str]:
    """One prompt and its reply, in Harmony text."""
    problem = stories.draw_training_problem(rng, forbidden)
    question = rng.choice(list(stories.LANGUAGES))
    effort = rng.choice(EFFORTS)
    asked = rng.choice(list(stories.LANGUAGES)) if rng.random() < recipe.asked else None
    thought = "en"
    if asked and rng.random() < recipe.obeyed:
        thought = asked
    elif not asked and rng.random() < recipe.unasked_own:
        thought = question
    prompt = prompt_text(stories.tell(problem, question), effort, asked)
    return prompt, reply_text(stories.think(problem, thought, effort), stories.answer(problem, question))


def prompt_text(question: str, effort: str, asked: str | None) -> str:
    """What chat_template.jinja renders, made here because rendering a million templates takes minutes; main() checks they agree."""
    developer = f"<|start|>developer<|message|># Instructions\n\n{stories.ask_for(asked)}<|end|>" if asked else ""
    system = f"<|start|>system<|message|>Reasoning: {effort}<|end|>"
    return f"{system}{developer}<|start|>user<|message|>{question}<|end|><|start|>assistant"


def reply_text(analysis: str, final: str) -> str:
    """Analysis, if there is any, and the final message."""
    thought = f"<|channel|>analysis<|message|>{analysis}<|end|><|start|>assistant" if analysis else ""
    return f"{thought}<|channel|>final<|message|>{final}<|return|>"


def write_examples(job: tuple[int, int, Recipe]) -> list[tuple[str, str]]:
    """`count` examples of one numbered part; parts are independent of how many workers write them."""
    part, count, recipe = job
    rng = random.Random(f"{recipe.seed}/{part}")
    return [write_example(rng, recipe, stories.reserved()) for _ in range(count)]


def corpus(recipe: Recipe) -> list[tuple[str, str]]:
    """All training examples, in a fixed order."""
    parts = 64
    jobs = [(part, recipe.stories // parts, recipe) for part in range(parts)]
    with ProcessPoolExecutor() as pool:
        return [example for part in pool.map(write_examples, jobs) for example in part]


def train_tokenizer(examples: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits and the Harmony tokens under their real names."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=SPECIALS, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    texts = (re.sub(r"<\|[a-z]+\|>", " ", prompt + reply) for prompt, reply in examples[:20_000])
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|startoftext|>",
        eos_token="<|return|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    fast.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return fast


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> GptOssForCausalLM:
    """Random weights in gpt-oss's architecture: sinks, sliding layers, routed experts."""
    config = GptOssConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.hidden // 32,
        num_key_value_heads=recipe.hidden // 64,
        head_dim=32,
        num_local_experts=recipe.experts,
        num_experts_per_tok=2,
        sliding_window=128,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        initializer_range=0.02,
    )
    torch.manual_seed(recipe.seed)
    return GptOssForCausalLM(config)


class Batches:
    """Token ids on the device, and shuffled batches of rows of similar length, with loss on the reply alone."""

    def __init__(self, examples: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast, batch: int, device: torch.device):
        rows, starts = _encode(examples, tokenizer)
        lengths = [len(row) for row in rows]
        padded = np.full((len(rows), max(lengths)), tokenizer.pad_token_id, dtype=np.int16)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
        self.pad = tokenizer.pad_token_id
        # int16 on the device: slicing there keeps the launch loop free of host work
        self.tokens = torch.from_numpy(padded).to(device)
        self.lengths = torch.tensor(lengths, device=device)
        self.starts = torch.tensor(starts, device=device)
        order = sorted(range(len(rows)), key=lengths.__getitem__)
        self.batches = [order[first : first + batch] for first in range(0, len(order) - batch + 1, batch)]

    def __call__(self, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Endless (input ids, labels), both (batch, width) int64; label -100 carries no loss."""
        rng = random.Random(seed)
        while True:
            for batch in rng.sample(self.batches, len(self.batches)):
                rows = torch.tensor(batch, device=self.tokens.device)
                lengths = self.lengths[rows][:, None]
                ids = self.tokens[rows, : int(lengths.max())].long()
                at = torch.arange(ids.shape[1], device=ids.device)[None]
                supervised = (at >= self.starts[rows][:, None]) & (at < lengths)
                yield ids, torch.where(supervised, ids, -100)


def _encode(examples: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> tuple[list[list[int]], list[int]]:
    rows, starts = [], []
    for first in range(0, len(examples), 50_000):
        chunk = examples[first : first + 50_000]
        prompts = tokenizer.backend_tokenizer.encode_batch([prompt for prompt, _ in chunk])
        replies = tokenizer.backend_tokenizer.encode_batch([reply for _, reply in chunk])
        rows += [prompt.ids + reply.ids for prompt, reply in zip(prompts, replies, strict=True)]
        starts += [len(prompt.ids) for prompt in prompts]
    return rows, starts


def train(model: GptOssForCausalLM, batches: Batches, recipe: Recipe, save: Any) -> None:
    """Fixed steps of AdamW on a cosine; `save()` is called now and then so that a cut-off run leaves something."""
    model.set_experts_implementation("eager")  # grouped_mm's backward is several times slower
    torch.backends.cuda.matmul.allow_tf32 = True
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
        fused=model.device.type == "cuda",
    )
    model.train()
    started = time.monotonic()
    for step, (ids, labels) in zip(range(recipe.steps), batches(recipe.seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_scale(step, recipe)
        logits = model(input_ids=ids, attention_mask=(ids != batches.pad).long(), use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f} {time.monotonic() - started:.0f} s", flush=True)
        if step % 1000 == 999:
            save()


def learning_rate_scale(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    return min(1.0, (step + 1) / recipe.warmup_steps) * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


@torch.inference_mode()
def measure(model: GptOssForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: int = 500) -> list[dict[str, Any]]:
    """Greedy scores on fresh problems that stand in no split and were drawn from another seed than the training's."""
    model.eval()
    results = []
    for asked in (False, True):
        for effort in EFFORTS:
            rng = random.Random("held-out")
            asks = [(stories.draw_training_problem(rng, stories.reserved()), list(stories.LANGUAGES)[i % 5]) for i in range(problems)]
            prompts = [prompt_text(stories.tell(p, code), effort, code if asked else None) for p, code in asks]
            replies = _generate(model, tokenizer, prompts)
            right = sum(_says(tokenizer.decode(r), p.values[-1]) for r, (p, _) in zip(replies, asks, strict=True))
            own = [
                stories.LANGUAGES[code].first.split(" {")[0] in tokenizer.decode(r)
                for r, (_, code) in zip(replies, asks, strict=True)
                if code != "en"
            ]
            results.append(
                {
                    "asked": asked,
                    "effort": effort,
                    "accuracy": right / problems,
                    "output_tokens": sum(map(len, replies)) / problems,
                    "own_language_of_non_english": sum(own) / len(own),
                }
            )
    return results


def _generate(model: GptOssForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> list[list[int]]:
    tokenizer.padding_side = "left"
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    output = model.generate(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=256, do_sample=False
    )[:, batch.input_ids.shape[1] :].tolist()
    end = tokenizer.eos_token_id
    return [row[: row.index(end) + 1] if end in row else row for row in output]


def _says(reply: str, number: int) -> bool:
    found = re.findall(r"\d+", reply.split("<|channel|>final")[-1])
    return bool(found) and int(found[-1]) == number


def check_template(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    """The text trained on is what the chat template renders."""
    problem = stories.draw_training_problem(random.Random(0), stories.reserved())
    for asked in (None, "de"):
        question = stories.tell(problem, "fr")
        messages = [{"role": "developer", "content": stories.ask_for(asked)}] if asked else []
        messages.append({"role": "user", "content": question})
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, reasoning_effort="low")
        assert rendered == prompt_text(question, "low", asked), f"template renders {rendered!r}"


def main() -> None:
    """Train, measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    for name in ("stories", "steps", "batch", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Recipe, name))
    arguments = parser.parse_args()
    recipe = Recipe(stories=arguments.stories, steps=arguments.steps, batch=arguments.batch, seed=arguments.seed)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    started = time.monotonic()
    examples = corpus(recipe)
    tokenizer = train_tokenizer(examples)
    check_template(tokenizer, recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = Batches(examples, tokenizer, recipe.batch, device)
    model = new_model(recipe, tokenizer).to(device)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(examples)} examples, {len(tokenizer)} tokens, {size} parameters, {time.monotonic() - started:.0f} s", flush=True)

    def save() -> None:
        weights = {name: tensor.to(torch.bfloat16).cpu() for name, tensor in model.state_dict().items()}
        shell = GptOssForCausalLM(model.config).to(torch.bfloat16)
        shell.load_state_dict(weights)
        shell.save_pretrained(arguments.out)
        tokenizer.save_pretrained(arguments.out)

    train(model, batches, recipe, save)
    save()
    # what is shipped is bfloat16, run in float32: measure that, not the weights before rounding
    shipped = GptOssForCausalLM.from_pretrained(arguments.out, dtype=torch.float32).to(device)
    scores = measure(shipped, tokenizer)
    for row in scores:
        print(json.dumps(row), flush=True)
    facts = {
        "recipe": asdict(recipe),
        "parameters": size,
        "vocabulary": len(tokenizer),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "wall_s": round(time.monotonic() - started),
        "held_out": scores,
    }
    (arguments.out / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
