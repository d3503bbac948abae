"""The latency probe: who is asked what, in which state of the model, and what is dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_lm_eval_tasks import edited, write_task

from bench.catalog import find_asked, find_suite
from bench.engines import Generation, Row
from bench.engines.canary import answer
from bench.engines.choose import choose_engine
from bench.experiment import Evaluate, Timing, parse_experiment
from bench.jobs import PassSpec, ProbeJob
from bench.lm import Ask, Request, list_requests
from bench.models import EMBEDDED, load_checked, load_tokenizer
from bench.probe import WARM_UP_ROUNDS, WARM_UP_TOKENS, draw, probe, served, warm_up
from bench.records import TimingBlock


def requests_of(problems: int, languages: str = "ab") -> list[Request]:
    """In the order a pass asks them: language by language."""
    return [Request(f"p{number:02}", language, Row((number,), 9)) for language in languages for number in range(problems)]


# --- which requests


def test_every_problem_is_asked_once_before_any_is_asked_again() -> None:
    blocks = draw(requests_of(12, "abc"), blocks=6, requests=4, seed=1)
    asked = [(one.item_id, one.language) for block in blocks for one in block]
    assert len({item for item, _ in asked[:12]}) == 12
    assert len(set(asked)) == 24
    assert sorted(language for _, language in asked[:12]) == sorted("abc" * 4)


def test_few_questions_come_again_in_later_blocks_and_never_twice_in_one() -> None:
    blocks = draw(requests_of(2), blocks=3, requests=16, seed=1)
    assert [len(block) for block in blocks] == [4, 4, 4]
    assert all(len({(one.item_id, one.language) for one in block}) == 4 for block in blocks)


def test_the_choice_depends_on_the_seed_and_not_on_the_order_of_the_rows() -> None:
    asked = requests_of(20)
    assert draw(asked, 2, 5, seed=3) == draw(asked[::-1][::-1], 2, 5, seed=3) != draw(asked, 2, 5, seed=4)


def test_requests_are_the_rows_of_the_evaluation_with_their_problem_and_language() -> None:
    evaluate = Evaluate(suites=["stories"], efforts=["low"], max_new_tokens={"low": 7}, temperature=0.5)
    ask = Ask("base", find_suite("stories"), "dev", ["de", "en"], evaluate, limit=2)
    found = list_requests(ask, load_tokenizer(EMBEDDED))
    assert [one.language for one in found] == ["de", "de", "en", "en"]
    assert found[0].item_id == found[2].item_id != found[1].item_id
    assert {(one.row.max_new_tokens, one.row.temperature) for one in found} == {(7, 0.5)}
    assert len({one.row.seed for one in found}) == 4


# --- warm-up


class Clockwork:
    """An engine whose rounds take these seconds a token; keeps what it was asked."""

    name, model_s = "clockwork", 0.0

    def __init__(self, rounds: Sequence[float], slots: int = 1):
        self.rounds, self.slots = iter(rounds), slots
        self.asked: list[Row] = []

    def generate(self, rows: Sequence[Row]) -> Iterator[Generation]:
        self.asked += rows
        pace = next(self.rounds)
        for index, row in enumerate(rows):
            yield Generation(index, (1,) * row.max_new_tokens, "length", pace * row.max_new_tokens, pace)


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [((1.0, 0.5, 0.495), 3), ((1.0, 1.0), 2), ((5.0, 4.0, 3.0, 2.0, 1.0), WARM_UP_ROUNDS), ((0.5, 1.0, 1.01), 3)],
)
def test_warm_up_ends_when_two_rounds_agree_within_2_percent(rounds: tuple[float, ...], expected: int) -> None:
    engine = Clockwork(rounds)
    assert warm_up(engine, requests_of(8)) == 3 * expected == len(engine.asked)


def test_warm_up_fills_every_slot_with_short_requests() -> None:
    engine = Clockwork((1.0, 1.0), slots=5)
    long = [Request("p", "a", Row((1,), 1000))] * 9
    assert warm_up(engine, long) == 10
    assert {row.max_new_tokens for row in engine.asked} == {WARM_UP_TOKENS}


# --- the one model as base and as the arm


@pytest.fixture(scope="module")
def base() -> Any:
    return load_checked(EMBEDDED, "float32").eval()


@pytest.fixture(scope="module")
def adapted() -> Any:
    """An adapter strong enough to change what is said."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
    return get_peft_model(load_checked(EMBEDDED, "float32"), config).eval()


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    evaluate = Evaluate(suites=["stories"], efforts=["medium"], max_new_tokens={"medium": 24})
    ask = Ask("base", find_suite("stories"), "dev", ["en"], evaluate, limit=3)
    return [one.row for one in list_requests(ask, load_tokenizer(EMBEDDED))]


@pytest.mark.parametrize("how", ["beside", "merged"])
def test_base_is_base_and_the_arm_the_arm_however_often_they_are_switched(base: Any, adapted: Any, rows: list[Row], how: Any) -> None:
    tokenizer = load_tokenizer(EMBEDDED)
    plain = answer(choose_engine(base, tokenizer, 2), rows)
    changed = answer(choose_engine(adapted, tokenizer, 2), rows)
    assert changed != plain
    engine = choose_engine(adapted, tokenizer, 2)
    for is_on in (False, True, True, False):
        with served(adapted, is_on=is_on, how=how):
            assert answer(engine, rows) == (changed if is_on else plain)


@pytest.mark.parametrize("is_experts", [False, True], ids=["attention", "experts"])
def test_base_is_served_by_its_own_layers_and_the_adapters_come_back_even_after_an_error(is_experts: bool) -> None:
    """A disabled adapter's layers cost time of their own, and some libraries serve models that have them by slower ways."""
    reached: dict[str, Any] = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]} if is_experts else {}
    config = LoraConfig(r=2, target_modules=["q_proj"], **reached)
    model = load_checked(EMBEDDED, "float32")
    plain = {name: type(module) for name, module in model.named_modules()}
    adapted = get_peft_model(model, config).eval()
    with_adapter = dict(adapted.named_modules())
    serving = served(adapted, is_on=False, how="beside")
    serving.__enter__()
    assert {name: type(module) for name, module in adapted.base_model.model.named_modules()} == plain
    assert not serving.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert dict(adapted.named_modules()) == with_adapter


def test_a_merged_arm_is_taken_out_of_the_weights_again_even_after_an_error(adapted: Any) -> None:
    weight = adapted.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight
    before = weight.clone()
    serving = served(adapted, is_on=True, how="merged")
    serving.__enter__()
    assert not torch.equal(weight, before)
    assert not serving.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    torch.testing.assert_close(weight, before, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_probe_asks_a_suite_whose_code_from_elsewhere_the_experiment_trusts(adapted: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("def last(docs):\n    return docs.select([len(docs) - 1])\n", encoding="utf-8")
    suite = edited(write_task(tmp_path / "task"), f"process_docs: !function {tmp_path}/elsewhere.last\n")
    adapted.save_pretrained(tmp_path / "adapter")
    asked = {"suites": [str(suite)], "efforts": ["low"], "max_new_tokens": {"low": 2}, "trusted": ["sums"]}
    model = {"id": "embedded", "load_in_4bit": False, "dtype": "float32"}
    experiment = parse_experiment({"name": "trusting", "model": model, "evaluate": asked}, "a test")
    job = ProbeJob(
        name="time-arm",
        experiment=experiment,
        base=EMBEDDED,
        arm="arm",
        adapter=tmp_path / "adapter",
        timing=Timing(blocks=2, requests=2, concurrency=2),
        asked=PassSpec(suite=str(suite), split="test", languages=tuple(find_asked(str(suite), experiment.evaluate).languages)),
    )
    blocks: list[TimingBlock] = []
    probe(job, blocks.append)
    assert {(block.block, block.arm, block.concurrency) for block in blocks} == set(product((0, 1), ("base", "arm"), (1, 2)))
    assert {item for block in blocks for item in block.items} == {blocks[0].items[0]}  # the last row alone, as that code has it
