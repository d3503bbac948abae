"""The adapter to lm-eval: real tasks, filters and metrics; the model is real once, and a fake engine elsewhere."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEngine, harmony

from bench.answers import extract_number
from bench.catalog import find_suite
from bench.engines import Engine, Row
from bench.engines.slots import SlotEngine
from bench.errors import SuiteError
from bench.experiment import Evaluate
from bench.harmony import decoder, find_specials, parse, render
from bench.lm import Ask, Listener, SampleKey, load_tasks, run_pass
from bench.models import EMBEDDED, load_checked, load_tokenizer
from bench.records import CellId, Sample

DATA = os.environ.get("EFFORTBENCH_DATA")
LANGUAGES = ("en", "de", "fr", "es", "it")
EFFORTS = ("low", "medium", "high")
LIMITS = {"low": 48, "medium": 96, "high": 128}
DEV = Path(__file__).parents[1] / "suites" / "stories" / "dev.jsonl"

FIRST_TARGET = json.loads(DEV.read_text(encoding="utf-8").splitlines()[0])["target"]
RIGHT = harmony("17 * 2 = 34", f"The answer is {FIRST_TARGET}.")


@cache
def tokenizer() -> Any:
    return load_tokenizer(EMBEDDED)


class Pass:
    """One pass through lm-eval and what it told its listener."""

    def __init__(self, engine: Engine, done: dict[SampleKey, Sample] | None = None, **changes: Any):
        suite, split = changes.pop("suite", "stories"), changes.pop("split", "dev")
        languages, limit = changes.pop("languages", ("en",)), changes.pop("limit", 1)
        evaluate = Evaluate(**{"suites": [str(suite)], "efforts": ["medium"], "max_new_tokens": LIMITS, **changes})
        self.plan: dict[CellId, int] = {}
        self.prompts: dict[str, str] = {}
        self.samples: list[Sample] = []
        listener = Listener(self.plan.update, self.prompts.__setitem__, self.samples.append)
        ask = Ask("base", find_suite(str(suite)), split, languages, evaluate, limit)
        self.results = run_pass(ask, engine, tokenizer(), done or {}, listener)

    def by_key(self) -> dict[SampleKey, Sample]:
        return {key(sample): sample for sample in self.samples}


def key(sample: Sample) -> SampleKey:
    return sample.language, sample.effort, sample.item_id, sample.sample_index


def says(*replies: str) -> FakeEngine:
    return FakeEngine(tokenizer(), replies)


def dev_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in DEV.read_text(encoding="utf-8").splitlines()]


def write_suite(folder: Path, task: str = "", rows: int = 4, **suite: Any) -> Path:
    """A suite of one English task over questions `What is i + i?`, with extra task keys."""
    folder = folder / "sums"
    folder.mkdir()
    (folder / "data.jsonl").write_text(
        "".join(json.dumps({"question": f"What is {i} + {i}?", "target": str(2 * i)}) + "\n" for i in range(rows)), encoding="utf-8"
    )
    fields = {"name": "sums", "default_split": "test", "splits": {"test": "test"}, "languages": {"en": "English"}, **suite}
    (folder / "suite.yaml").write_text(json.dumps(fields), encoding="utf-8")
    common = f"""
        task: sums_en
        dataset_path: json
        dataset_kwargs: {{data_files: {{test: "{folder / "data.jsonl"}"}}}}
        test_split: test
        doc_to_text: "{{{{question}}}}"
        doc_to_target: "{{{{target}}}}"
    """
    lines = [line.strip() for line in common.strip().splitlines()]
    (folder / "sums_en.yaml").write_text("\n".join(lines) + "\n" + task, encoding="utf-8")
    return folder


GENERATE = "output_type: generate_until\ngeneration_kwargs: {until: []}\nmetric_list: [{metric: exact_match, ignore_case: true}]\n"


# --- with the real model


@pytest.mark.slow
def test_accuracy_of_base_equals_plain_transformers_item_by_item() -> None:
    """60 rows: what the harness records is what `generate` at batch 1, the Harmony parser and the extractor give."""
    import torch

    torch.set_num_threads(1)
    model = load_checked(EMBEDDED, "float32").eval()
    specials, decode = find_specials(tokenizer()), decoder(tokenizer())
    names = {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian"}
    expected = {}
    questions = [row for row in dev_rows() if row["item_id"] <= "stories-dev-003"]
    for row in questions:
        for effort in EFFORTS:
            messages = [
                {"role": "system", "content": f"reasoning language: {names[row['language']]}"},
                {"role": "user", "content": row["question"]},
            ]
            prompt = torch.tensor([render(tokenizer(), messages, effort)])
            output = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=LIMITS[effort],
                do_sample=False,
                eos_token_id=sorted(specials.stop_ids),
                pad_token_id=tokenizer().pad_token_id,
            )
            tokens = output[0, prompt.shape[1] :].tolist()
            reply = parse(tokens, specials, decode)
            answer = extract_number(reply.final or "", row["language"], whole=True) if reply.form == "complete" else None
            expected[row["language"], effort, row["item_id"], 0] = (decode(tokens), answer, float(answer == row["target"]))
    asked = Pass(SlotEngine(model, specials.stop_ids, 32), languages=LANGUAGES, efforts=list(EFFORTS), limit=4)
    assert len(expected) == 60
    assert {where: (sample.completion, sample.answer, sample.score) for where, sample in asked.by_key().items()} == expected
    assert 0 < sum(sample.score or 0 for sample in asked.samples) < 60


# --- one call, one plan, one aggregate


def test_all_languages_and_efforts_arrive_in_one_call() -> None:
    engine = FakeEngine(tokenizer(), lambda *_: RIGHT)
    asked = Pass(engine, languages=LANGUAGES, efforts=list(EFFORTS), limit=2)
    assert engine.calls == 1
    assert len(engine.asked) == len(asked.samples) == 2 * 5 * 3
    assert asked.plan == {CellId("base", "stories", "dev", code, effort): 2 for code in LANGUAGES for effort in EFFORTS}
    assert {row.max_new_tokens for row in engine.asked} == set(LIMITS.values())


def test_lm_evals_own_aggregate_is_the_mean_of_our_scores() -> None:
    targets = {row["question"]: row["target"] for row in dev_rows()}

    def sometimes(prompt: str, row: Row) -> str:
        question = re.findall(r"<\|start\|>user<\|message\|>(.*?)<\|end\|>", prompt)[-1]
        kind = len(prompt) % 4
        if kind == 0:
            return harmony("thinking", f"{targets[question]}")[:-10]  # cut before <|return|>
        return harmony(None, ["", f"{targets[question]}", "7777", "I do not know"][kind])

    asked = Pass(FakeEngine(tokenizer(), sometimes), languages=LANGUAGES, efforts=list(EFFORTS), limit=6)
    scores: dict[str, list[float]] = {}
    for sample in asked.samples:
        assert sample.score is not None
        scores.setdefault(f"stories_{sample.language}@{sample.effort}", []).append(sample.score)
    theirs = {name: metrics["exact_match,answer"] for name, metrics in asked.results["results"].items()}
    assert theirs == pytest.approx({name: sum(cell) / len(cell) for name, cell in scores.items()})
    assert 0 < sum(theirs.values()) < len(theirs)


def test_lm_evals_aggregate_of_a_resumed_pass_counts_what_was_already_done() -> None:
    targets = {row["question"]: row["target"] for row in dev_rows() if row["language"] == "en"}

    def right(prompt: str, row: Row) -> str:
        return harmony("so", targets[re.findall(r"user<\|message\|>(.*?)<\|end\|>", prompt)[-1]])

    whole = Pass(FakeEngine(tokenizer(), right), limit=6)
    half = dict(sorted(whole.by_key().items())[:3])
    resumed = Pass(FakeEngine(tokenizer(), lambda *_: harmony("so", "7777")), done=half, limit=6)
    assert len(resumed.samples) == 3
    assert resumed.results["results"]["stories_en@medium"]["exact_match,answer"] == 0.5


# --- outcomes

OUTCOMES = {
    # name: (reply, outcome, score, answer, stop_reason)
    "right": (RIGHT, "correct", 1.0, FIRST_TARGET, "stop"),
    "right without thinking": (harmony(None, f"It is {FIRST_TARGET}"), "correct", 1.0, FIRST_TARGET, "stop"),
    "wrong": (harmony("so", "The answer is 61."), "wrong", 0.0, "61", "stop"),
    "no number": (harmony("so", "I do not know."), "no_answer", 0.0, None, "stop"),
    "empty final": (harmony("so", ""), "no_answer", 0.0, None, "stop"),
    "never answers": (f"<|channel|>analysis<|message|>{FIRST_TARGET} and so on", "truncated", 0.0, None, "length"),
    "cut in the final, luckily": (
        f"<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final<|message|>{FIRST_TARGET}",
        "truncated",
        0.0,
        None,
        "length",
    ),
    "analysis and stop": (f"<|channel|>analysis<|message|>{FIRST_TARGET}<|return|>", "malformed", 0.0, None, "stop"),
    "no channel at all": (f"{FIRST_TARGET}<|return|>", "malformed", 0.0, None, "stop"),
    "unknown channel": (f"<|channel|>musing<|message|>{FIRST_TARGET}<|return|>", "malformed", 0.0, None, "stop"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_each_reply_has_one_outcome(name: str) -> None:
    reply, *expected = OUTCOMES[name]
    (sample,) = Pass(says(reply)).samples
    assert [sample.outcome, sample.score, sample.answer, sample.stop_reason] == expected
    assert sample.completion == reply
    assert sample.target == FIRST_TARGET


def test_a_limit_that_cuts_a_right_answer_makes_it_truncated() -> None:
    (sample,) = Pass(says(RIGHT), max_new_tokens={"medium": len(tokenizer()(RIGHT)["input_ids"]) - 1}).samples
    assert (sample.outcome, sample.score) == ("truncated", 0.0)


def test_tokens_are_counted_from_ids() -> None:
    (sample,) = Pass(says(RIGHT)).samples

    def count(text: str) -> int:
        return len(tokenizer()(text, add_special_tokens=False)["input_ids"])

    assert sample.reasoning_tokens == count("17 * 2 = 34")
    assert sample.final_tokens == count(f"The answer is {FIRST_TARGET}.")
    assert sample.output_tokens == count(RIGHT)
    assert (sample.latency_s, sample.ttft_s) == (0.25, 0.125)


def test_the_prompt_is_kept_once_and_counted() -> None:
    asked = Pass(says(RIGHT))
    (sample,) = asked.samples
    prompt = asked.prompts[sample.prompt_hash]
    assert prompt.endswith("<|end|><|start|>assistant")
    assert "Reasoning: medium" in prompt
    assert "reasoning language: English" in prompt
    assert sample.prompt_tokens == len(tokenizer()(prompt, add_special_tokens=False)["input_ids"])


# --- which language it reasons in


def test_reasoning_language_is_told_from_the_analysis_alone() -> None:
    german = harmony("Wir beginnen mit der Zahl und zählen alles zusammen, also ist das Ergebnis", "The answer is 60.")
    english = harmony("We start with the number and add all the others, so the result is this", "Die Antwort ist 60.")
    samples = Pass(says(german, english, harmony("60", "60"), harmony(None, "Die Antwort ist 60.")), languages=("de",), limit=4).samples
    languages = {sample.item_id: sample.reasoning_language for sample in samples}
    assert list(dict(sorted(languages.items())).values()) == ["de", "en", None, None]
    assert {sample.asked_reasoning_language for sample in samples} == {"de"}


def test_the_language_of_the_final_answer_is_told_from_the_final_channel_alone() -> None:
    thought = "We start with the number and add all the others, so the result is this"
    finals = ("Die Antwort auf die Frage lautet 60.", "The answer to the question is 60.", "60", "\\[\\boxed{\\text{60}}\\]")
    samples = Pass(says(*(harmony(thought, final) for final in finals)), languages=("de",), limit=4).samples
    languages = {sample.item_id: sample.final_language for sample in samples}
    assert list(dict(sorted(languages.items())).values()) == ["de", "en", None, None]


def test_a_suite_that_asks_no_language_records_none() -> None:
    (sample,) = Pass(says(RIGHT), suite="stories_plain", languages=("de",)).samples
    assert sample.asked_reasoning_language is None


# --- several samples, and going on


def echo(prompt: str, row: Row) -> str:
    """A reply that depends on the row's seed alone."""
    return harmony("so", str(row.seed % 97))


SAMPLED: dict[str, Any] = {"samples_per_item": 3, "temperature": 1.0, "languages": ("en", "de"), "efforts": ["low", "high"], "limit": 2}


def test_samples_of_an_item_have_seeds_of_their_own() -> None:
    engine = FakeEngine(tokenizer(), echo)
    asked = Pass(engine, **SAMPLED)
    assert len(asked.samples) == 2 * 2 * 2 * 3
    assert len({sample.seed for sample in asked.samples}) == len(asked.samples)
    assert {row.temperature for row in engine.asked} == {1.0}
    assert sorted(sample.sample_index for sample in asked.samples) == sorted([0, 1, 2] * 8)
    assert set(asked.plan.values()) == {2 * 3}


def test_seeds_do_not_depend_on_what_else_is_asked_or_in_which_order() -> None:
    whole = Pass(FakeEngine(tokenizer(), echo), **SAMPLED).by_key()
    part = Pass(FakeEngine(tokenizer(), echo), **{**SAMPLED, "languages": ("de",), "efforts": ["high"]}).by_key()
    turned = Pass(FakeEngine(tokenizer(), echo), **{**SAMPLED, "languages": ("de", "en"), "efforts": ["high", "low"]}).by_key()
    assert part == {where: sample for where, sample in whole.items() if where[:2] == ("de", "high")}
    assert turned == whole


def test_another_seed_of_the_experiment_draws_other_samples() -> None:
    seeds = [{sample.seed for sample in Pass(FakeEngine(tokenizer(), echo), seed=seed, **SAMPLED).samples} for seed in (1, 2)]
    assert seeds[0].isdisjoint(seeds[1])


def test_greedy_samples_have_no_seed() -> None:
    assert Pass(says(RIGHT)).samples[0].seed is None


def test_samples_already_done_are_not_asked_again() -> None:
    whole = Pass(FakeEngine(tokenizer(), echo), **SAMPLED).by_key()
    done = {where: sample for number, (where, sample) in enumerate(sorted(whole.items())) if number % 2}
    engine = FakeEngine(tokenizer(), echo)
    rest = Pass(engine, done=done, **SAMPLED)
    assert len(engine.asked) == len(whole) - len(done)
    assert done | rest.by_key() == whole
    assert sum(rest.plan.values()) == len(whole)


# --- other people's tasks


def test_until_cuts_the_final_text_only(tmp_path: Path) -> None:
    task = GENERATE.replace("until: []", 'until: ["STOP", "\\n\\n"]')
    replies = ["0\n\nbut STOP", "2STOP3", "4", "STOP"]
    asked = Pass(
        says(*[harmony("one\n\ntwo STOP three", reply) for reply in replies]), suite=write_suite(tmp_path, task), split="test", limit=4
    )
    samples = sorted(asked.samples, key=lambda sample: sample.item_id)
    assert [sample.outcome for sample in samples] == ["correct", "correct", "correct", "no_answer"]
    assert [sample.answer for sample in samples] == ["0", "2", "4", None]
    assert asked.results["results"]["sums_en@medium"]["exact_match,none"] == 0.75


def test_a_few_shot_task_with_a_description_is_a_conversation(tmp_path: Path) -> None:
    task = GENERATE + "description: Answer with a number.\nnum_fewshot: 2\nfewshot_split: test\n"
    asked = Pass(says(*[harmony("so", str(2 * i)) for i in range(6)]), suite=write_suite(tmp_path, task, rows=6), split="test", limit=6)
    assert {sample.outcome for sample in asked.samples} == {"correct"}
    for sample in asked.samples:
        prompt = asked.prompts[sample.prompt_hash]
        assert "<|start|>developer<|message|># Instructions\n\nAnswer with a number.<|end|>" in prompt
        shots = re.findall(
            r"user<\|message\|>What is (\d) \+ \d\?<\|end\|><\|start\|>assistant<\|channel\|>final<\|message\|>(\d+)<\|end\|>", prompt
        )
        assert len(shots) == 2
        assert all(int(total) == 2 * int(number) for number, total in shots)
        assert sample.item_id not in [number for number, _ in shots]  # the question itself is no example


def test_few_shot_examples_are_the_same_in_every_run_and_at_every_effort(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, GENERATE + "num_fewshot: 2\nfewshot_split: test\n", rows=12)

    def prompts(*efforts: str) -> dict[str, dict[str, str]]:
        asked = Pass(FakeEngine(tokenizer(), echo), suite=suite, split="test", efforts=list(efforts), limit=12)
        texts: dict[str, dict[str, str]] = {effort: {} for effort in efforts}
        for sample in asked.samples:
            texts[sample.effort][sample.item_id] = asked.prompts[sample.prompt_hash].replace(f"Reasoning: {sample.effort}", "")
        return texts

    both, again = prompts("low", "high"), prompts("high")
    assert both["low"] == both["high"] == again["high"]


def test_a_task_scored_by_likelihood_is_refused(tmp_path: Path) -> None:
    suite = find_suite(str(write_suite(tmp_path, "output_type: multiple_choice\ndoc_to_choice: ['0', '1']\n")))
    evaluate = Evaluate(suites=["sums"], efforts=["low"], max_new_tokens={"low": 8})
    with pytest.raises(SuiteError, match=r"sums_en is multiple_choice: a reasoning model answers after it has thought"):
        load_tasks(Ask("base", suite, "test", ("en",), evaluate))


def test_a_split_that_the_data_lack_is_named(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, GENERATE, splits={"test": "test", "hard": "harder"})
    with pytest.raises(SuiteError, match="sums_en has no split 'harder', which suite.yaml names: it has test"):
        Pass(says(), suite=suite, split="hard")


def test_two_rows_of_one_item_id_are_refused(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, GENERATE)
    twice = json.dumps({"question": "What is 1 + 1?", "target": "2", "item_id": "one"}) + "\n"
    (suite / "data.jsonl").write_text(twice * 2, encoding="utf-8")
    with pytest.raises(SuiteError, match=r"item_id one \(en\) is that of several rows"):
        Pass(says(RIGHT, RIGHT), suite=suite, split="test", limit=2)


def test_a_language_without_a_task_file_is_named(tmp_path: Path) -> None:
    suite = find_suite(str(write_suite(tmp_path, GENERATE, languages={"en": "English", "sv": "Swedish"})))
    evaluate = Evaluate(suites=["sums"], efforts=["low"], max_new_tokens={"low": 8})
    with pytest.raises(SuiteError, match="no task sums_sv: expected a file sums_sv.yaml"):
        load_tasks(Ask("base", suite, "test", ("en", "sv"), evaluate))


@pytest.mark.skipif(DATA is None, reason="EFFORTBENCH_DATA is unset: no MGSM to read")
def test_native_digits_score_on_mgsm() -> None:
    """The first answer of MGSM is 18, the second 3; neither the answer's digits nor the language change the score."""
    replies = {"bn": ("উত্তর: ১৮", "উত্তর: ৪"), "ja": ("答え：１８", "答え：三"), "de": ("Antwort: 18 Dollar", "Antwort: unbekannt")}
    engine = FakeEngine(tokenizer(), [harmony("so", text) for texts in replies.values() for text in texts])
    asked = Pass(engine, suite="mgsm", split="test", languages=tuple(replies), limit=2)
    outcomes = {code: [asked.by_key()[code, "medium", f"mgsm-{item}", 0].outcome for item in (0, 1)] for code in replies}
    assert outcomes == {"bn": ["correct", "wrong"], "ja": ["correct", "correct"], "de": ["correct", "no_answer"]}
    assert {sample.target for sample in asked.samples} == {"18", "3"}


def test_lm_eval_is_given_back_its_templates_as_they_were() -> None:
    import lm_eval.utils

    before = vars(lm_eval.utils.env).copy()
    with pytest.raises(SuiteError):
        Pass(says(RIGHT), languages=("en",), scorer={"stories": "no-such-filter"})
    Pass(says(RIGHT))
    assert vars(lm_eval.utils.env) == before
