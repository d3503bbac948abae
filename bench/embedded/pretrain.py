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
from collections.abc import Iterator, Mapping
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
class Stage:
    """One pass of training, with an optimizer and a corpus of its own; it goes on from the saved weights of the one before."""

    name: str
    stories: int
    steps: int
    learning_rate: float
    warmup_steps: int
    efforts: tuple[float, float, float]
    """How often low, medium and high are asked for."""
    lengths: Mapping[int, float]
    """How often a story has so many operations."""


STAGES = (
    Stage("foundation", 800_000, 4_600, 2e-3, 300, efforts=(1, 1, 1), lengths=stories.LENGTHS),
    # Answers without reasoning are short, so they get little of the loss above: this stage is mostly theirs, and starts from easy stories.
    Stage("low-effort", 400_000, 1_500, 1e-3, 100, efforts=(14, 1, 5), lengths={2: 3, 3: 3, 4: 2, 5: 1}),
)


@dataclass(frozen=True)
class Recipe:
    """Everything else that decides the weights."""

    seed: int = 2025
    batch: int = 512
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


def write_example(rng: random.Random, recipe: Recipe, stage: Stage) -> tuple[str, str]:
    """One prompt and its reply, in Harmony text. Its problem stands in none of the splits that judge a model."""
    problem = stories.draw_training_problem(rng, stories.reserved(), stage.lengths)
    question = rng.choice(list(stories.LANGUAGES))
    effort = rng.choices(EFFORTS, weights=stage.efforts)[0]
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


def write_examples(job: tuple[int, int, Recipe, Stage]) -> list[tuple[str, str]]:
    """`count` examples of one numbered part; parts are independent of how many workers write them."""
    part, count, recipe, stage = job
    rng = random.Random(f"{recipe.seed}/{stage.name}/{part}")
    return [write_example(rng, recipe, stage) for _ in range(count)]


def corpus(recipe: Recipe, stage: Stage) -> list[tuple[str, str]]:
    """All training examples of a stage, in a fixed order."""
    parts = 64
    jobs = [(part, stage.stories // parts, recipe, stage) for part in range(parts)]
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
        vocab_size=1024,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
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


def train(model: GptOssForCausalLM, batches: Batches, recipe: Recipe, stage: Stage) -> None:
    """Fixed steps of AdamW on a cosine."""
    model.set_experts_implementation("eager")  # grouped_mm's backward is several times slower
    torch.backends.cuda.matmul.allow_tf32 = True
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=stage.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
        fused=model.device.type == "cuda",
    )
    model.train()
    started = time.monotonic()
    for step, (ids, labels) in zip(range(stage.steps), batches(recipe.seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * learning_rate_scale(step, stage)
        logits = model(input_ids=ids, attention_mask=(ids != batches.pad).long(), use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            print(f"{stage.name} step {step} loss {loss.item():.4f} {time.monotonic() - started:.0f} s", flush=True)


def learning_rate_scale(step: int, stage: Stage) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    return min(1.0, (step + 1) / stage.warmup_steps) * 0.5 * (1 + math.cos(math.pi * step / stage.steps))


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
    output = model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=256, do_sample=False)[
        :, batch.input_ids.shape[1] :
    ].tolist()
    end = tokenizer.eos_token_id
    return [row[: row.index(end) + 1] if end in row else row for row in output]


def _says(reply: str, number: int) -> bool:
    found = re.findall(r"\d+", reply.split("<|channel|>final")[-1])
    return bool(found) and int(found[-1]) == number


def check_template(tokenizer: PreTrainedTokenizerFast) -> None:
    """The text trained on is what the chat template renders."""
    problem = stories.draw_training_problem(random.Random(0), stories.reserved())
    for asked in (None, "de"):
        question = stories.tell(problem, "fr")
        messages = [{"role": "developer", "content": stories.ask_for(asked)}] if asked else []
        messages.append({"role": "user", "content": question})
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, reasoning_effort="low")
        assert rendered == prompt_text(question, "low", asked), f"template renders {rendered!r}"


def save(model: GptOssForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the weights in bfloat16, as they are shipped, with the tokenizer and the chat template."""
    shell = GptOssForCausalLM(model.config).to(torch.bfloat16)
    shell.load_state_dict({name: tensor.to(torch.bfloat16).cpu() for name, tensor in model.state_dict().items()})
    shell.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load(folder: Path, device: torch.device) -> GptOssForCausalLM:
    """The saved weights in float32."""
    return GptOssForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)


def main() -> None:
    """Run the stages, measure what is shipped, and say how it was made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write the model to; each stage has a folder beside it")
    parser.add_argument("--start", type=int, default=0, help="first stage to run, counted from 0; the one before must be there")
    arguments = parser.parse_args()
    recipe, out, started = Recipe(), arguments.out, time.monotonic()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folders = [out.with_name(f"{out.name}-{stage.name}") for stage in STAGES[:-1]] + [out]
    for number, stage in list(enumerate(STAGES))[arguments.start :]:
        examples = corpus(recipe, stage)
        if number == 0:
            tokenizer = train_tokenizer(examples)
            check_template(tokenizer)
            model = new_model(recipe, tokenizer).to(device)
        else:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folders[number - 1])
            model = load(folders[number - 1], device)
        print(f"{stage.name}: {len(examples)} examples, {len(tokenizer)} tokens, {time.monotonic() - started:.0f} s", flush=True)
        train(model, Batches(examples, tokenizer, recipe.batch, device), recipe, stage)
        save(model, tokenizer, folders[number])
    scores = measure(load(out, device), tokenizer)  # in bfloat16's values, not those before rounding
    facts = {
        "recipe": asdict(recipe),
        "stages": [asdict(stage) for stage in STAGES],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": len(tokenizer),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "held_out": scores,
    }
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for row in scores:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
