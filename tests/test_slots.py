"""The slot engine against transformers' own generate at batch 1, token for token, in float32."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bench.engines import Engine, Row
from bench.engines.choose import choose_engine
from bench.engines.plain import GenerateEngine
from bench.engines.slots import SlotEngine
from bench.harmony import find_specials, render
from bench.models import EMBEDDED, load_checked, load_tokenizer

SLOTS = (1, 8, 32, 64)
NEVER = frozenset({64})
"""No token of the tiny vocabularies: every row runs to its limit."""
DEV = Path(__file__).parents[1] / "suites" / "stories" / "dev.jsonl"

TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**TINY),
    "qwen3": lambda: transformers.Qwen3Config(**TINY),
    "gpt-oss": lambda: transformers.GptOssConfig(**TINY, **EXPERTS, sliding_window=8),  # shorter than most prompts
    "gemma2": lambda: transformers.Gemma2Config(**TINY, sliding_window=8),  # soft-capped logits
    "deepseek-v3": lambda: transformers.DeepseekV3Config(  # values narrower than keys
        **{**TINY, "num_key_value_heads": 4},
        **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "moe_intermediate_size"), 16),
        **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
        **{"n_routed_experts": 4, "num_experts_per_tok": 2, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12},
    ),
}
BYPASSING: dict[str, Callable[[], Any]] = {
    "gpt-j (attention of its own)": lambda: transformers.GPTJConfig(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=256, rotary_dim=4
    ),
    "mamba (no attention)": lambda: transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2),
    "jamba (attention in some layers)": lambda: transformers.JambaConfig(
        **{**TINY, "num_hidden_layers": 4}, use_mamba_kernels=False, num_experts=4, attn_layer_period=2, attn_layer_offset=1
    ),
    "falcon-h1 (a state beside attention in every layer)": lambda: transformers.FalconH1Config(
        **TINY, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_state=8
    ),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def tiny(name: str) -> Any:
    """A random model whose logits are far apart, so that rounding decides nothing."""
    return randomized({**CONFIGS, **BYPASSING}[name]())


def randomized(config: Any) -> Any:
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, 0.3, generator=generator)
    return model


def tiny_rows(count: int, seed: int = 0, **changes: Any) -> list[Row]:
    draw = random.Random(seed)
    return [Row(tuple(draw.choices(range(64), k=draw.randint(1, 30))), draw.randint(1, 20), **changes) for _ in range(count)]


def tokens(engine: Engine, rows: Sequence[Row]) -> dict[int, tuple[int, ...]]:
    """Generated tokens by row; every row must come exactly once."""
    done = list(engine.generate(rows))
    assert sorted(generation.index for generation in done) == list(range(len(rows)))
    return {generation.index: generation.tokens for generation in done}


@contextmanager
def forwards(model: Any) -> Iterator[list[tuple[int, int]]]:
    """(rows, tokens a row) of every forward in the block."""
    seen: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(lambda _module, _args, named: seen.append(tuple(named["input_ids"].shape)), with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


@cache
def embedded(questions: int = 12) -> tuple[Any, frozenset[int], list[Row]]:
    """The shipped model, its stop tokens, and questions in several languages at three efforts."""
    tokenizer = load_tokenizer(EMBEDDED)
    asked = [json.loads(line)["question"] for line in DEV.read_text(encoding="utf-8").splitlines()[:questions]]
    limits = {"low": 16, "medium": 24, "high": 40}
    rows = []
    for number, question in enumerate(asked):
        effort = tuple(limits)[number % 3]
        messages = [{"role": "developer", "content": "reasoning language: German"}, {"role": "user", "content": question}]
        rows.append(Row(tuple(render(tokenizer, messages, effort)), limits[effort]))
    return load_checked(EMBEDDED, "float32").eval(), find_specials(tokenizer).stop_ids, rows


@cache
def embedded_reference() -> dict[int, tuple[int, ...]]:
    model, stop_ids, rows = embedded()
    return tokens(GenerateEngine(model, stop_ids), rows)


# --- exactness


@pytest.mark.slow
@pytest.mark.parametrize("slots", SLOTS)
def test_greedy_output_of_the_embedded_model_is_that_of_generate(slots: int) -> None:
    model, stop_ids, rows = embedded()
    assert tokens(SlotEngine(model, stop_ids, slots), rows) == embedded_reference()


@pytest.mark.slow
def test_greedy_output_of_the_embedded_model_does_not_depend_on_the_order() -> None:
    model, stop_ids, rows = embedded()
    order = random.Random(1).sample(range(len(rows)), len(rows))
    shuffled = tokens(SlotEngine(model, stop_ids, 8), [rows[index] for index in order])
    assert {order[place]: generated for place, generated in shuffled.items()} == embedded_reference()
    assert {len(generated) for generated in shuffled.values()} > {40}  # some ran to the limit, some stopped


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_output_of_other_architectures_is_that_of_generate(name: str) -> None:
    rows = tiny_rows(33)
    reference = tokens(GenerateEngine(tiny(name), NEVER), rows)
    assert [len(reference[index]) for index in range(33)] == [row.max_new_tokens for row in rows]
    for slots in SLOTS:
        assert tokens(SlotEngine(tiny(name), NEVER, slots), rows) == reference
    order = random.Random(1).sample(range(33), 33)
    shuffled = tokens(SlotEngine(tiny(name), NEVER, 8), [rows[index] for index in order])
    assert {order[place]: generated for place, generated in shuffled.items()} == reference


@pytest.mark.parametrize("experts", [False, True])
def test_an_unmerged_adapter_is_run_as_it_is(experts: bool) -> None:
    from peft import LoraConfig, get_peft_model

    reached = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]} if experts else {}
    config = LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], lora_dropout=0.0, **reached)
    base = randomized(CONFIGS["gpt-oss"]())
    rows = tiny_rows(12)
    plain = tokens(SlotEngine(base, NEVER, 8), rows)
    model = get_peft_model(base, config).eval()
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, 0, 0.3, generator=generator)
    adapted = tokens(SlotEngine(model, NEVER, 8), rows)
    assert adapted == tokens(GenerateEngine(model, NEVER), rows)
    assert adapted != plain


def test_an_answer_drawn_at_a_temperature_depends_on_its_own_seed_alone() -> None:
    rows = [Row(row.prompt, row.max_new_tokens, 1.0, seed=number) for number, row in enumerate(tiny_rows(24))]
    alone = tokens(SlotEngine(tiny("gpt-oss"), NEVER, 1), rows)
    assert tokens(SlotEngine(tiny("gpt-oss"), NEVER, 8), rows) == alone
    assert tokens(SlotEngine(tiny("gpt-oss"), NEVER, 64), rows[::-1]) == {23 - index: drawn for index, drawn in alone.items()}
    neighbours = [*tiny_rows(10, seed=5), rows[3], *tiny_rows(10, seed=6, temperature=2.0)]
    assert tokens(SlotEngine(tiny("gpt-oss"), NEVER, 8), neighbours)[10] == alone[3]
    others = [Row(row.prompt, row.max_new_tokens, 1.0, row.seed + 100) for row in rows]
    assert tokens(SlotEngine(tiny("gpt-oss"), NEVER, 8), others) != alone


def test_sampling_follows_the_models_probabilities() -> None:
    """400 first tokens at temperature 1, against the softmax of the model's own logits (chi-square, 0.1 % level)."""
    from scipy.stats import chisquare

    model, prompt = tiny("llama"), (5, 9, 11)
    with torch.inference_mode():
        chances = (model(torch.tensor([prompt])).logits[0, -1].double() / 4).softmax(-1).numpy()
    drawn = tokens(SlotEngine(model, NEVER, 64), [Row(prompt, 1, 4.0, seed) for seed in range(400)])
    counts = torch.bincount(torch.tensor([first for (first,) in drawn.values()]), minlength=64).numpy()
    common = chances * 400 >= 5
    observed = [*counts[common], counts[~common].sum()]
    expected = [*(chances[common] * 400), chances[~common].sum() * 400]
    assert common.sum() > 5
    assert chisquare(observed, expected).pvalue > 0.001


# --- ends


def test_a_stop_token_ends_a_row_and_is_kept() -> None:
    rows = [Row(row.prompt, 24) for row in tiny_rows(20)]
    free = tokens(GenerateEngine(tiny("llama"), NEVER), rows)
    stop = frozenset({free[0][3], free[7][10]})
    done = {generation.index: generation for generation in SlotEngine(tiny("llama"), stop, 8).generate(rows)}
    assert {generation.stop_reason for generation in done.values()} == {"stop", "length"}
    for index, generation in done.items():
        cut = next((number for number, token in enumerate(free[index], 1) if token in stop), None)
        assert generation.tokens == free[index][:cut]
        assert generation.stop_reason == ("length" if cut is None else "stop")
    assert {generation.index: generation.stop_reason for generation in GenerateEngine(tiny("llama"), stop).generate(rows)} == {
        index: generation.stop_reason for index, generation in done.items()
    }


def test_a_stop_token_on_the_last_allowed_place_is_a_stop() -> None:
    (free,) = SlotEngine(tiny("llama"), NEVER, 1).generate([Row((1, 2, 3), 5)])
    last = free.tokens.index(free.tokens[4]) + 1  # the token's first appearance
    (done,) = SlotEngine(tiny("llama"), frozenset({free.tokens[4]}), 1).generate([Row((1, 2, 3), last)])
    assert (done.stop_reason, len(done.tokens)) == ("stop", last)


def test_no_rows_give_no_generations() -> None:
    assert list(SlotEngine(tiny("llama"), NEVER, 4).generate([])) == []


def test_times_are_those_of_the_row() -> None:
    engine = SlotEngine(tiny("llama"), NEVER, 2)
    for generation in engine.generate(tiny_rows(6)):
        assert 0 < generation.ttft_s <= generation.latency_s
    assert engine.model_s > 0


# --- scheduling


def test_the_longest_limit_enters_first() -> None:
    rows = [Row((1, 2, 3), limit) for limit in (5, 20, 1, 12)]
    assert [generation.index for generation in SlotEngine(tiny("llama"), NEVER, 1).generate(rows)] == [1, 3, 0, 2]


def test_finished_rows_come_before_the_others_have_ended() -> None:
    rows = [Row((1, 2, 3), 20), Row((1, 2, 3), 2)]
    with forwards(tiny("llama")) as seen:
        assert next(SlotEngine(tiny("llama"), NEVER, 2).generate(rows)).index == 1
    assert len(seen) == 2


def test_no_step_is_spent_on_a_row_that_has_ended() -> None:
    rows = tiny_rows(40)
    with forwards(tiny("llama")) as seen:
        tokens(SlotEngine(tiny("llama"), NEVER, 8), rows)
    assert sum(width for width, _ in seen) == sum(row.max_new_tokens for row in rows)
    assert max(width for width, _ in seen) == 8


def test_a_prefill_is_bounded_but_a_longer_prompt_is_served() -> None:
    rows = [Row(tuple(range(1, 1 + length)), 3) for length in (5, 60, 12, 40, 7, 31, 9)]
    with forwards(tiny("llama")) as seen:
        generated = tokens(SlotEngine(tiny("llama"), NEVER, 8, prefill_tokens=36), rows)
    assert generated == tokens(GenerateEngine(tiny("llama"), NEVER), rows)
    assert all(width == 1 or width * length <= 36 for width, length in seen if length > 1)
    assert any(width > 1 for width, length in seen if length > 1)


# --- models that cannot be served, and what is left behind


@pytest.mark.parametrize("name", BYPASSING)
def test_a_model_that_bypasses_the_slots_is_generated_by_transformers(name: str) -> None:
    engine = choose_engine(tiny(name), load_tokenizer(EMBEDDED), slots=8)
    assert engine.name == "generate"
    (done,) = engine.generate([Row((1, 5, 9), 4)])
    assert 1 <= len(done.tokens) <= 4


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_that_reaches_them_gets_the_slots(name: str) -> None:
    engine = choose_engine(tiny(name), load_tokenizer(EMBEDDED), slots=8)
    assert (engine.name, engine.slots, engine.model_s) == ("slots", 8, 0.0)


def implementations(model: Any) -> tuple[str, str]:
    return model.config._attn_implementation, model.config._experts_implementation


def test_the_model_is_given_back_as_it_was() -> None:
    model = tiny("gpt-oss")
    before = implementations(model)
    rows = tiny_rows(5)
    reference = tokens(GenerateEngine(model, NEVER), rows)
    abandoned = SlotEngine(model, NEVER, 2).generate(rows)
    next(abandoned)
    assert implementations(model) != before
    abandoned.close()
    assert implementations(model) == before
    assert tokens(GenerateEngine(model, NEVER), rows) == reference


def test_the_model_is_given_back_after_an_error() -> None:
    model = tiny("gpt-oss")
    before = implementations(model)

    def fail(_module: Any, _args: Any, named: Any) -> None:
        if named["input_ids"].shape[1] == 1:
            raise MemoryError("at the first step")

    hook = model.register_forward_pre_hook(fail, with_kwargs=True)
    with pytest.raises(MemoryError):
        list(SlotEngine(model, NEVER, 2).generate([Row((1, 2, 3), 5)]))
    hook.remove()
    assert implementations(model) == before
