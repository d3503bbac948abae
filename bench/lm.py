"""The one adapter to lm-evaluation-harness: its tasks, filters and metrics; our prompts, engine and records.

Each effort is a clone of a task, so all languages and efforts of a suite arrive in one `generate_until` call. Chat messages travel through
lm-eval's strings as JSON. What those strings lose (token ids, channels, stop reason, timing) goes into the samples, each scored by its
task's own filters and metric the moment it ends. lm-eval itself is handed the final channel of complete answers, so its own aggregate
is the mean of our scores.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import evaluate.config
import lm_eval
import lm_eval.api.metrics  # fills the registry below
import lm_eval.utils
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import metric_registry
from lm_eval.tasks import TaskManager

from bench import harmony
from bench.catalog import Suite, TaskSuite, check_output_type
from bench.engines import Engine, Generation, Row
from bench.errors import SuiteError
from bench.experiment import Evaluate
from bench.languages import identify
from bench.records import CellId, Outcome, Sample
from bench.rows import INVALID
from bench.taskfile import TaskFile

evaluate.config.HF_EVALUATE_OFFLINE = True
"""Nor does a task's own code fetch a metric's."""
MEANS = ("mean", "nanmean")
"""Aggregations of lm-eval whose result is the mean of single answers' scores."""

FEWSHOT_SEED = 1234
"""lm-eval's own default; its evaluate() sets none, and would draw other examples in every run."""

SampleKey = tuple[str, str, str, int]
"""language, effort, item_id, sample_index."""


@dataclass(frozen=True)
class Ask:
    """What one arm is asked in one pass: a split of a suite, in some languages, at some efforts."""

    arm: str
    suite: Suite
    split: str
    languages: Sequence[str]
    evaluate: Evaluate
    limit: int | None = None
    """Items a language; None asks all."""


class Listener(NamedTuple):
    """Who hears what happens while a pass runs."""

    on_plan: Callable[[dict[CellId, int]], None]
    """Cells of the pass and how many samples each will hold."""
    on_prompt: Callable[[str, str], None]
    """(prompt_hash, text) before its samples."""
    on_sample: Callable[[Sample], None]


@dataclass(frozen=True)
class _Question:
    """One request of lm-eval, with where it belongs."""

    instance: Instance
    task: Any
    language: str
    effort: str
    item_id: str
    prompt: tuple[int, ...]
    prompt_hash: str
    until: tuple[str, ...]
    """The final text ends before the first of these."""


class Scored(NamedTuple):
    """What a task makes of a final answer."""

    answer: str | None
    score: float


def load_tasks(ask: Ask) -> dict[str, Any]:
    """lm-eval's tasks of the languages, set to the split, by language. Raises SuiteError where one cannot be used."""
    tasks = _load_one(ask.suite, ask.evaluate) if isinstance(ask.suite, TaskSuite) else _load_folder(ask)
    split = ask.suite.splits[ask.split]
    for task in tasks.values():
        name = task.config.task
        check_output_type(name, task.OUTPUT_TYPE)
        _check_metric(name, task)
        _choose_scorer(task, ask.evaluate.scorer.get(ask.suite.name))
        if split not in task.dataset:
            where = "its own file" if isinstance(ask.suite, TaskSuite) else "suite.yaml"
            raise SuiteError(f"task {name} has no split {split!r}, which {where} names: it has {', '.join(task.dataset)}")
        task.set_config("test_split", split)
    return tasks


def refuse_fetched_code(task: TaskFile) -> None:
    """Raise SuiteError where lm-eval would fetch a metric's code from the hub and run it."""
    fetched = task.fetched_metrics(metric_registry)
    if fetched:
        raise SuiteError(
            f"task {task.name}: {fetched[0]} is none of lm-eval's own metrics, and its code would be fetched from the hub and run: "
            "write it beside the task file and name it with !function, or let process_results compute it"
        )


def _check_metric(name: str, task: Any) -> None:
    """Raise SuiteError where the first metric is no mean of single answers' scores: a cell's score is one, and so is its interval."""
    metric, aggregation = next(iter(task.aggregation().items()), (None, None))
    how = getattr(aggregation, "__name__", str(aggregation))
    if how not in MEANS:
        raise SuiteError(
            f"task {name} is scored by {metric} over all answers together (aggregation {how}): an answer has no score of its own, so "
            "nothing can be compared problem by problem. Choose a task, or put first a metric, whose aggregation is mean"
        )


def _choose_scorer(task: Any, scorer: str | None) -> None:
    """Put the named filter first: the first one scores. Raises SuiteError where the task has none of that name."""
    if scorer is None:
        return
    names = [ensemble.name for ensemble in task._filters]
    if scorer not in names:
        raise SuiteError(f"task {task.config.task} has no filter {scorer!r}, which evaluate.scorer names: it has {', '.join(names)}")
    task._filters = sorted(task._filters, key=lambda ensemble: ensemble.name != scorer)


def _load_folder(ask: Ask) -> dict[str, Any]:
    """The tasks of a suite's folder, by language."""
    data = {name: str(path) for name, path in ask.evaluate.data.items()}
    if ask.suite.name in data:  # its loader may be that of the suite it borrows from
        data[ask.suite.data_name] = data[ask.suite.name]
    manager = TaskManager(
        include_path=[str(ask.suite.folder)],
        include_defaults=False,
        metadata={"data": data, **ask.evaluate.options.get(ask.suite.name, {})},
    )
    names = {ask.suite.task(language): language for language in ask.languages}
    files = {name: ask.suite.folder / f"{name}.yaml" for name in names}
    missing = [name for name, path in files.items() if name not in manager.all_tasks or not path.is_file()]
    if missing:
        raise SuiteError(f"{ask.suite.folder} has no task {', '.join(missing)}: expected a file {missing[0]}.yaml")
    for task in ask.suite.task_files:
        refuse_fetched_code(task)
    # by their files, which were looked at: another file of the folder could hold a task of the same name
    return {names[name]: task for name, task in manager.load([str(path) for path in files.values()])["tasks"].items()}


def _load_one(suite: TaskSuite, evaluate: Evaluate) -> dict[str, Any]:
    """The task of a suite that is one; lm-eval reads its file alone and looks through no folder. Raises SuiteError."""
    definition, data = suite.definition, suite.data_folder(evaluate.data)
    refuse_fetched_code(definition)
    # the adapter makes samples_per_item itself: lm-eval's repeats share an item
    config: dict[str, Any] = {"include": str(definition.path), "task": definition.name, "repeats": 1}
    revision = evaluate.options.get(suite.name, {}).get("revision")
    if revision is not None and data is None:
        config["dataset_kwargs"] = {**(definition.config.get("dataset_kwargs") or {}), "revision": revision}
    if data is not None:
        config["dataset_path"] = str(data.resolve())
        if not (data / "README.md").is_file():  # the card that would say which of its files are which configuration
            config["dataset_name"] = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.yaml"
        path.write_text(json.dumps(config), encoding="utf-8")
        try:
            tasks = TaskManager(include_defaults=False).load(str(path))["tasks"]
        except ImportError as error:
            raise SuiteError(f"suite {suite.name} needs what is not installed: {_short(error)}") from error
        except KeyError as error:
            raise SuiteError(f"suite {suite.name}: its data have no {error}, which the task's file names") from error
        except Exception as error:  # a task is other people's code and data: whatever it raises, it cannot be asked
            raise SuiteError(_why_not_loaded(suite, error)) from error
    (language,) = suite.languages
    return {language: tasks[definition.name]}


def _why_not_loaded(suite: TaskSuite, error: Exception) -> str:
    where = suite.definition.config.get("dataset_path") or "which its own code fetches"
    return (
        f"suite {suite.name}: its data ({where}) cannot be loaded: let the hub be reached (HF_HUB_OFFLINE unset), or give a folder "
        f"with the data set's files (evaluate.data.{suite.name}) ({_short(error)})"
    )


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def run_pass(ask: Ask, engine: Engine, tokenizer: Any, done: Mapping[SampleKey, Sample], listener: Listener) -> dict[str, Any]:
    """Ask everything once through lm-eval and return its results; samples already `done` are not asked again."""
    return _evaluate(EffortLM(ask, engine, tokenizer, done, listener))


def _evaluate(lm: EffortLM) -> dict[str, Any]:
    with _templates_compiled_once():
        results: dict[str, Any] = lm_eval.evaluate(
            lm=lm,
            task_dict={"tasks": lm.tasks},
            limit=lm.ask.limit,
            bootstrap_iters=0,
            log_samples=False,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
        )
    return results


@contextmanager
def _templates_compiled_once() -> Iterator[None]:
    """lm-eval compiles a task's templates anew for every document, at every effort: a quarter of all time outside the model."""
    environment = lm_eval.utils.env
    environment.from_string = lru_cache(maxsize=256)(environment.from_string)
    try:
        yield
    finally:
        del environment.from_string  # the method of its class again


class _Mute:
    """An engine that answers nothing."""

    name, slots, model_s, halvings = "mute", 1, 0.0, 0

    def generate(self, rows: Sequence[Row]) -> Iterator[Generation]:
        return iter(())


def pick_rows(ask: Ask, tokenizer: Any, count: int, max_new_tokens: int) -> list[Row]:
    """A seeded choice of the pass's rows, greedy, the same for every arm: of the first `count` items, in all languages and efforts."""
    asked = list_requests(replace(ask, limit=min(count, ask.limit or count)), tokenizer)
    prompts = {request.row.prompt: request.row for request in asked}  # further samples of an item are the same question
    chosen = random.Random(ask.evaluate.seed).sample(list(prompts.values()), min(count, len(prompts)))
    return [Row(row.prompt, min(max_new_tokens, row.max_new_tokens)) for row in chosen]


class Request(NamedTuple):
    """A row as an engine gets it, and whose it is."""

    item_id: str
    language: str
    row: Row


def list_requests(ask: Ask, tokenizer: Any) -> list[Request]:
    """All that a pass would ask, in its order; nothing is generated."""
    lm = EffortLM(ask, _Mute(), tokenizer, {}, Listener(lambda _: None, lambda *_: None, lambda _: None))
    _evaluate(lm)
    return lm.requests


class EffortLM(LM):
    """lm-eval's model: asks an engine, keeps a sample of every answer."""

    tokenizer_name = "harmony"

    def __init__(self, ask: Ask, engine: Engine, tokenizer: Any, done: Mapping[SampleKey, Sample], listener: Listener):
        super().__init__()
        self.ask, self.engine, self.tokenizer, self.done, self.listener = ask, engine, tokenizer, done, listener
        self.specials = harmony.find_specials(tokenizer)
        self.decode = harmony.decoder(tokenizer)
        self.tasks: dict[str, Any] = {}
        self.requests: list[Request] = []
        """What the engine was given last."""
        self._places: dict[str, tuple[str, str]] = {}
        for language, task in load_tasks(ask).items():
            for effort in ask.evaluate.efforts:
                name = f"{task.config.task}@{effort}"
                self.tasks[name] = _at_effort(task, name, effort)
                self._places[name] = (language, effort)

    def apply_chat_template(self, chat_history: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        """The conversation as JSON; it becomes token ids in `generate_until`, where the effort is known."""
        return json.dumps(chat_history, ensure_ascii=False)

    def loglikelihood(self, requests: Any) -> Any:
        """Refused: the likelihood of a choice says nothing about an answer given after thinking."""
        raise SuiteError("loglikelihood requests cannot be asked of a reasoning model: choose a generate_until task")

    loglikelihood_rolling = loglikelihood

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The final text of each request's first sample; empty where there is no complete final answer."""
        questions = [self._question(instance) for instance in requests]
        _refuse_twins(questions)
        samples = range(self.ask.evaluate.samples_per_item)
        self._announce(questions)
        finals = [self._final(question) for question in questions]
        asked = [(i, index) for i, question in enumerate(questions) for index in samples if self._key(question, index) not in self.done]
        rows = [self._row(questions[i], index) for i, index in asked]
        self.requests = [Request(questions[i].item_id, questions[i].language, row) for (i, _), row in zip(asked, rows, strict=True)]
        for generation in self.engine.generate(rows):
            i, sample_index = asked[generation.index]
            reply = harmony.parse(generation.tokens, self.specials, self.decode)
            if sample_index == 0 and generation.error is None:
                finals[i] = complete_final(reply, questions[i].until)
            self.listener.on_sample(self._sample(questions[i], sample_index, rows[generation.index], generation, reply))
        return finals

    def _question(self, instance: Instance) -> _Question:
        context, arguments = instance.args
        language, effort = self._places[instance.task_name]
        prompt = tuple(harmony.render(self.tokenizer, json.loads(context), arguments["reasoning_effort"]))
        text = self.decode(prompt)
        prompt_hash = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.listener.on_prompt(prompt_hash, text)
        item_id = str(instance.doc.get("item_id", instance.doc_id))
        task, until = self.tasks[instance.task_name], _stop_strings(arguments.get("until"))
        return _Question(instance, task, language, effort, item_id, prompt, prompt_hash, until)

    def _announce(self, questions: Sequence[_Question]) -> None:
        counts: dict[CellId, int] = {}
        for question in questions:
            cell = CellId(self.ask.arm, self.ask.suite.name, self.ask.split, question.language, question.effort)
            counts[cell] = counts.get(cell, 0) + self.ask.evaluate.samples_per_item
        self.listener.on_plan(counts)

    def _key(self, question: _Question, sample_index: int) -> SampleKey:
        return question.language, question.effort, question.item_id, sample_index

    def _final(self, question: _Question) -> str:
        """Final text of a first sample that an earlier run already made."""
        sample = self.done.get(self._key(question, 0))
        if sample is None or sample.outcome not in ("correct", "wrong"):
            return ""
        ids = self.tokenizer(sample.completion, add_special_tokens=False)["input_ids"]
        return complete_final(harmony.parse(ids, self.specials, self.decode), question.until)

    def _row(self, question: _Question, sample_index: int) -> Row:
        evaluate = self.ask.evaluate
        return Row(
            prompt=question.prompt,
            max_new_tokens=evaluate.max_new_tokens[question.effort],  # type: ignore[index]
            temperature=evaluate.temperature,
            seed=row_seed(evaluate.seed, self.ask.suite.name, question.language, question.effort, question.item_id, sample_index),
        )

    def _sample(self, question: _Question, sample_index: int, row: Row, generation: Generation, reply: harmony.Reply) -> Sample:
        scored = score_final(question.task, question.instance, complete_final(reply, question.until))
        outcome = judge_reply(reply, scored) if generation.error is None else "error"
        asks_language = self.ask.suite.asks_reasoning_language
        return Sample(
            arm=self.ask.arm,
            suite=self.ask.suite.name,
            split=self.ask.split,
            language=question.language,
            effort=question.effort,
            item_id=question.item_id,
            sample_index=sample_index,
            seed=row.seed if row.temperature > 0 else None,
            outcome=outcome,
            score=None if outcome == "error" else scored.score if outcome in ("correct", "wrong") else 0.0,
            answer=None if outcome == "error" else scored.answer,
            target=str(question.task.doc_to_target(question.instance.doc)),
            prompt_tokens=len(question.prompt),
            reasoning_tokens=reply.reasoning_tokens,
            final_tokens=reply.final_tokens,
            output_tokens=reply.output_tokens,
            stop_reason=generation.stop_reason,
            latency_s=None if generation.latency_s is None else round(generation.latency_s, 6),
            ttft_s=None if generation.ttft_s is None else round(generation.ttft_s, 6),
            asked_reasoning_language=question.language if asks_language else None,
            reasoning_language=identify(reply.analysis, {*self.ask.suite.languages, "en"}),
            prompt_hash=question.prompt_hash,
            completion=self.decode(generation.tokens),
            error=generation.error,
            final_language=identify(reply.final, {*self.ask.suite.languages, "en"}),
        )


def complete_final(reply: harmony.Reply, until: Sequence[str] = ()) -> str:
    """The final text of a complete reply, up to the first of `until`; empty otherwise, so that half an answer is never scored as one."""
    final = reply.final or "" if reply.form == "complete" else ""
    for stop in until:
        final = final.partition(stop)[0]
    return final


def _stop_strings(until: str | Sequence[str] | None) -> tuple[str, ...]:
    """As a task may write them: one, several or none."""
    return tuple(stop for stop in ([until] if isinstance(until, str) else until or ()) if stop)


def judge_reply(reply: harmony.Reply, scored: Scored) -> Outcome:
    """The one outcome of a reply. Anything but a full score is `wrong`; partial scores keep their value."""
    if reply.form.startswith("truncated"):
        return "truncated"
    if reply.form == "malformed":
        return "malformed"
    if scored.answer is None:
        return "no_answer"
    return "correct" if scored.score == 1 else "wrong"


def score_final(task: Any, instance: Instance, final: str) -> Scored:
    """Run a task's first filter and first metric over one final text, as lm-eval would."""
    single = replace(instance, resps=[final], filtered_resps={})
    ensemble = task._filters[0]
    ensemble.apply([single])
    answer = single.filtered_resps[ensemble.name]
    metrics = task.process_results(instance.doc, [answer])
    text = answer if isinstance(answer, str) else str(answer)
    found = final.strip() != "" and text not in (INVALID, "")
    return Scored(text if found else None, _score(task, metrics) if found else 0.0)


def _score(task: Any, metrics: Mapping[str, Any]) -> float:
    """Of the first metric. Raises SuiteError where it is no share: a mean of anything else is not told from a good or a bad score."""
    name, value = next(iter(metrics.items()))
    if not isinstance(value, int | float | np.number | np.bool_) or not 0 <= value <= 1:
        raise SuiteError(f"task {task.config.task}: its metric {name} gives an answer {value!r:.60}; expected a number from 0 to 1")
    return float(value)


def _refuse_twins(questions: Sequence[_Question]) -> None:
    """Raise SuiteError where two items of a language share an id: one would stand for both."""
    asked = Counter((question.language, question.effort, question.item_id) for question in questions)
    twins = [f"{item_id} ({language})" for (language, _, item_id), count in asked.items() if count > 1]
    if twins:
        raise SuiteError(f"item_id {twins[0]} is that of several rows: it must name one problem, and be shared by its translations alone")


def row_seed(*parts: object) -> int:
    """Seed of one sample, below 2**32: the same wherever and beside whatever it is drawn."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:4])


def _at_effort(task: Any, name: str, effort: str) -> Any:
    """A clone of a task, at one effort; every clone draws the same few-shot examples, in every run."""
    twin = copy.copy(task)
    if hasattr(task, "sampler"):
        twin.sampler = copy.copy(task.sampler)
        twin.set_fewshot_seed(FEWSHOT_SEED)
    twin._config = copy.copy(task.config)
    twin.set_config("task", name)
    twin.set_config("generation_kwargs", {**task.config.generation_kwargs, "reasoning_effort": effort})
    return twin
