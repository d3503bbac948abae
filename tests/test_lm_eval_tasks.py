"""Any generate_until task of lm-eval as a suite: found by name or by file, asked unchanged, refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import FakeEngine, harmony

from bench.catalog import TaskSuite, find_suite
from bench.errors import EffortbenchError, SuiteError
from bench.experiment import Evaluate, parse_experiment, suite_name
from bench.lm import Ask, Listener, load_tasks, run_pass
from bench.models import EMBEDDED, load_tokenizer
from bench.records import CellId, Sample
from bench.runner import Plan, cell_key, preflight
from bench.store import cell_file
from bench.taskfile import shipped_folder

FILTERS = "utils.py"
CODE = (
    "def last(resps, docs):\n    return [[reply.split()[-1] if reply.split() else '[invalid]' for reply in replies] for replies in resps]\n"
)


def write_task(folder: Path, name: str = "sums", **changes: Any) -> Path:
    """A task over `What is i + i?` that names its data, an include and a function beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"question": f"What is {i} + {i}?", "answer": str(2 * i)}) for i in range(4)]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / FILTERS).write_text(CODE, encoding="utf-8")
    common = "output_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\ngeneration_kwargs: {until: []}\n"
    filters = "filter_list: [{name: last, filter: [{function: custom, filter_fn: !function utils.last}, {function: take_first}]}]\n"
    (folder / "common").write_text(common + filters + "metric_list: [{metric: exact_match}]\n", encoding="utf-8")
    task = {
        "include": "common",
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in task.items() if value is not None}), encoding="utf-8")
    return path


def evaluate(suite: str, **changes: Any) -> Evaluate:
    return Evaluate(**{"suites": [suite], "efforts": ["low", "high"], "max_new_tokens": {"low": 64, "high": 64}, **changes})


def experiment(suite: str) -> Any:
    asked = evaluate(suite).model_dump(mode="json")
    return parse_experiment(
        {"name": "tasks", "model": {"id": "embedded", "load_in_4bit": False, "dtype": "float32"}, "evaluate": asked}, "a test"
    )


def edited(path: Path, text: str) -> Path:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    return path


# --- asked


def test_a_task_file_is_asked_and_scored_as_it_stands(tmp_path: Path) -> None:
    suite = find_suite(str(write_task(tmp_path)))
    tokenizer = load_tokenizer(EMBEDDED)
    samples: list[Sample] = []
    plan: dict[CellId, int] = {}
    listener = Listener(plan.update, lambda *_: None, samples.append)
    replies = ["It is 0", "It is 2", "It is 5", "", "0", "2", "4", "It is 6"]
    engine = FakeEngine(tokenizer, [harmony("this is what I think about it", reply) for reply in replies])
    results = run_pass(Ask("base", suite, "test", ("en",), evaluate(suite.source)), engine, tokenizer, {}, listener)
    assert plan == {CellId("base", "sums", "test", "en", effort): 4 for effort in ("low", "high")}
    asked = {(sample.effort, sample.item_id): (sample.outcome, sample.answer) for sample in samples}
    assert asked["low", "1"] == ("correct", "2")
    assert asked["low", "2"] == ("wrong", "5")
    assert asked["low", "3"] == ("no_answer", None)
    assert asked["high", "3"] == ("correct", "6")
    scores = {name: metrics["exact_match,last"] for name, metrics in results["results"].items()}
    assert scores == {"sums@low": 0.5, "sums@high": 1.0}
    assert {sample.reasoning_language for sample in samples} == {None}


def test_a_tasks_own_repeats_give_way_to_samples_per_item(tmp_path: Path) -> None:
    suite = find_suite(str(write_task(tmp_path, repeats=3)))
    tokenizer = load_tokenizer(EMBEDDED)
    samples: list[Sample] = []
    listener = Listener(lambda _: None, lambda *_: None, samples.append)
    asked = evaluate(suite.source, samples_per_item=2, temperature=1.0, efforts=["low"])
    engine = FakeEngine(tokenizer, lambda *_: harmony(None, "2"))
    run_pass(Ask("base", suite, "test", ("en",), asked), engine, tokenizer, {}, listener)
    assert sorted((sample.item_id, sample.sample_index) for sample in samples) == [(str(i), index) for i in range(4) for index in (0, 1)]


def test_names_of_data_that_are_no_paths_do_no_harm(tmp_path: Path) -> None:
    path = write_task(tmp_path, dataset_kwargs={"data_files": ["https://nowhere/" + "x" * 5000, "a/\0b"], "number": 3})
    assert find_suite(str(path)).name == "sums"


def test_a_given_folder_stands_in_for_the_hub(tmp_path: Path) -> None:
    path = write_task(tmp_path / "task", dataset_path="nobody/sums", dataset_name="main", dataset_kwargs=None)
    given = tmp_path / "given"
    given.mkdir()
    (given / "test.jsonl").write_text('{"question": "What is 9?", "answer": "9"}\n', encoding="utf-8")
    suite = find_suite(str(path))
    tasks = load_tasks(Ask("base", suite, "test", ("en",), evaluate(str(path), data={"sums": given})))
    assert [doc["question"] for doc in tasks["en"].test_docs()] == ["What is 9?"]
    before = suite.data_revision({"sums": given})
    (given / "test.jsonl").write_text('{"question": "What is 8?", "answer": "8"}\n', encoding="utf-8")
    assert suite.data_revision({}) is None
    assert suite.data_revision({"sums": given}) != before
    with pytest.raises(SuiteError, match=r"evaluate.data.sums names no folder"):
        suite.data_revision({"sums": tmp_path / "missing"})


def write_gsm8k(folder: Path) -> Path:
    """Two made-up problems in the shape of openai/gsm8k, and enough training rows for the task's five examples."""
    rows = [{"question": f"{i} apples and {i} more?", "answer": f"Together {i} + {i} = {2 * i}.\n#### {2 * i}"} for i in range(1, 9)]
    folder.mkdir()
    for split, part in (("train", rows[2:]), ("test", rows[:2])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    return folder


def ask_gsm8k(folder: Path, replies: list[str], **changes: Any) -> tuple[list[Sample], dict[str, Any]]:
    name = "lm-eval:gsm8k"
    tokenizer = load_tokenizer(EMBEDDED)
    samples: list[Sample] = []
    asked = evaluate(name, data={name: folder}, efforts=["low"], **changes)
    preflight(parse_experiment({**experiment(name).model_dump(mode="json"), "evaluate": asked.model_dump(mode="json")}, "a test"))
    engine = FakeEngine(tokenizer, [harmony("let us see", reply) for reply in replies])
    ask = Ask("base", find_suite(name), "test", ("en",), asked)
    results = run_pass(ask, engine, tokenizer, {}, Listener(lambda _: None, lambda *_: None, samples.append))
    return sorted(samples, key=lambda sample: sample.item_id), results["results"]["gsm8k@low"]


def test_gsm8k_by_name_is_asked_on_a_local_folder_and_scored_by_its_first_filter(tmp_path: Path) -> None:
    samples, results = ask_gsm8k(write_gsm8k(tmp_path / "gsm8k"), ["It is 2.\n#### 2", "The answer is 4."])
    assert [(sample.outcome, sample.answer) for sample in samples] == [("correct", "2"), ("no_answer", None)]
    assert results["exact_match,strict-match"] == 0.5


def test_a_scorer_names_another_filter_of_the_task(tmp_path: Path) -> None:
    replies = ["It is 2.\n#### 2", "The answer is 4."]
    samples, results = ask_gsm8k(write_gsm8k(tmp_path / "gsm8k"), replies, scorer={"lm-eval:gsm8k": "flexible-extract"})
    assert [sample.outcome for sample in samples] == ["correct", "correct"]
    assert results["exact_match,flexible-extract"] == 1.0


def test_an_unknown_scorer_is_refused_before_anything_runs() -> None:
    for name, known in (
        ("lm-eval:gsm8k", "strict-match, flexible-extract"),
        ("mgsm", "answer, simple-evals"),
        ("stories", "one of its own"),
    ):
        asked = {**evaluate(name).model_dump(mode="json"), "scorer": {name: "guess"}}
        with pytest.raises(SuiteError, match=rf"suite {name} has no scorer 'guess': it has {known}"):
            preflight(parse_experiment({**experiment(name).model_dump(mode="json"), "evaluate": asked}, "a test"))


def test_a_scorer_changes_the_key_of_its_suites_cells_and_of_no_others(tmp_path: Path) -> None:
    def keys(**scorer: str) -> dict[str, str]:
        asked = {**evaluate("mgsm").model_dump(mode="json"), "suites": ["mgsm", "stories"], "scorer": scorer}
        plan = Plan(parse_experiment({**experiment("mgsm").model_dump(mode="json"), "evaluate": asked}, "a test"), tmp_path, "x", {}, (), 1)
        return {name: cell_key(plan, find_suite(name), "low", None, None) for name in ("mgsm", "stories")}

    before, after = keys(), keys(mgsm="simple-evals")
    assert before["mgsm"] != after["mgsm"]
    assert before["stories"] == after["stories"]


# --- found


def test_a_shipped_task_is_found_by_name() -> None:
    suite = find_suite("lm-eval:gsm8k")
    assert isinstance(suite, TaskSuite)
    assert (suite.name, suite.source, suite.task("en")) == ("lm-eval:gsm8k", "lm-eval:gsm8k", "gsm8k")
    assert (suite.splits, suite.default_split, suite.languages) == ({"test": "test"}, "test", {"en": "English"})
    assert len(suite.revision) == 12
    assert cell_file(CellId("base", suite.name, "test", "en", "low")).startswith("cells/base/lm-eval-gsm8k-")


def test_finding_a_shipped_task_imports_no_lm_eval() -> None:
    script = "import sys\nfrom bench.catalog import find_suite\nfind_suite('lm-eval:gsm8k')\nprint('lm_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_a_file_is_called_by_its_name_and_its_language_is_its_own(tmp_path: Path) -> None:
    path = write_task(tmp_path, "summe", metadata={"language": "de"}, test_split=None, validation_split="dev")
    suite = find_suite(str(path))
    assert (suite.name, suite.languages, suite.splits) == (suite_name(str(path)), {"de": "de"}, {"test": "dev"})
    both = find_suite(str(write_task(tmp_path, validation_split="dev")))
    assert both.splits == {"test": "test", "validation": "dev"}
    assert evaluate(str(path)).suite_names == ["summe"]
    assert find_suite(suite.source) == suite


@pytest.mark.parametrize("name", ["sums.yaml", "common", FILTERS, "rows.jsonl", "helper.py"])
def test_whatever_the_task_is_made_of_changes_its_revision(tmp_path: Path, name: str) -> None:
    path = write_task(tmp_path)
    (tmp_path / "helper.py").write_text("", encoding="utf-8")
    before = find_suite(str(path)).revision
    assert find_suite(str(path)).revision == before
    edited(tmp_path / name, "\n")
    assert find_suite(str(path)).revision != before


def test_another_lm_eval_is_another_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = find_suite(str(write_task(tmp_path)))
    before = suite.revision
    monkeypatch.setattr("bench.taskfile.version", lambda _: "0.0.1")
    assert find_suite(suite.source).revision != before


def test_two_tasks_over_one_data_set_ask_the_same_problems(tmp_path: Path) -> None:
    shared = [find_suite(str(write_task(tmp_path, name))).origins for name in ("one", "two")]
    other = find_suite(str(write_task(tmp_path, "three", dataset_name="other"))).origins
    assert shared[0] == shared[1] != other


# --- refused

REFUSED = {
    "lm-eval:no_such_task": r"lm-eval .* has no task 'no_such_task'",
    "lm-eval:hellaswag": "task hellaswag is multiple_choice: a reasoning model answers after it has thought",
    "lm-eval:mmlu": "lm-eval:mmlu is a group of tasks",
    "lm-eval:humaneval": "task humaneval runs code that the model wrote",
    "lm-eval:../../x": "has no task",
    "missing.yaml": "missing.yaml is no lm-eval task: .*No such file",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked_is_one_line_and_a_usage_error_before_anything_runs(name: str) -> None:
    with pytest.raises(SuiteError, match=REFUSED[name]) as caught:
        preflight(experiment(name))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_code_from_elsewhere_is_not_run(tmp_path: Path) -> None:
    path = write_task(tmp_path / "task")
    for function in ("os.system", "..utils.last", "nowhere.last"):
        text = f"include: common\ntask: sums\ntest_split: test\nprocess_docs: !function {function}\n"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(SuiteError, match=rf"runs code from elsewhere \(!function {function}\)"):
            find_suite(str(path))
    stranger = write_task(tmp_path / "other", "stranger", include="../task/common")
    with pytest.raises(SuiteError, match=r"runs code from elsewhere \(!function utils.last\)"):
        find_suite(str(stranger))


def test_code_from_elsewhere_is_run_for_a_suite_that_is_trusted_by_name_and_is_part_of_its_revision(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("def last(docs):\n    return docs.select([len(docs) - 1])\n", encoding="utf-8")
    path = edited(write_task(tmp_path / "task"), f"process_docs: !function {tmp_path}/elsewhere.last\n")
    with pytest.raises(SuiteError, match="name the suite in evaluate.trusted"):
        preflight(experiment(str(path)))
    asked = experiment(str(path))
    trusting = asked.model_copy(update={"evaluate": asked.evaluate.model_copy(update={"trusted": ["sums"]})})
    before = preflight(trusting).suites["sums"].revision
    edited(tmp_path / "elsewhere.py", "# other\n")
    assert preflight(trusting).suites["sums"].revision != before


def test_who_trusts_a_suite_that_is_not_asked_made_a_slip() -> None:
    with pytest.raises(ValueError, match="trusted names sum, but evaluate.suites has"):
        Evaluate(suites=["stories"], max_new_tokens={"low": 1, "medium": 1, "high": 1}, trusted=["sum"])


MARKER = "open({0!r}, 'w').write('ran')\n"


@pytest.mark.parametrize(
    ("metric", "named"),
    [
        ("[{metric: exact_match, hf_evaluate: true}]", "exact_match"),
        ("[{metric: exact_match}, {metric: some/space}]", "some/space"),
        ("[{metric: EVIL, aggregation: mean, higher_is_better: true}]", "evil.py"),
    ],
)
def test_a_metric_whose_code_would_be_fetched_is_refused_and_not_run(tmp_path: Path, metric: str, named: str) -> None:
    """The name of one that lm-eval does not know may be a space of the hub, or a path: either would be run."""
    evil = tmp_path / "evil.py"
    evil.write_text(MARKER.format(str(tmp_path / "ran")), encoding="utf-8")
    path = write_task(tmp_path / "task")
    common = tmp_path / "task" / "common"
    common.write_text(
        common.read_text(encoding="utf-8").replace("[{metric: exact_match}]", metric.replace("EVIL", str(evil))), encoding="utf-8"
    )
    with pytest.raises(SuiteError, match=f"task sums: .*{named} is none of lm-eval's own metrics") as caught:
        preflight(experiment(str(path)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_data_set_that_is_a_script_is_not_run_even_where_the_task_trusts_it(tmp_path: Path) -> None:
    script = tmp_path / "loader.py"
    script.write_text(MARKER.format(str(tmp_path / "ran")) + "import datasets\n", encoding="utf-8")
    path = write_task(tmp_path, "scripted", dataset_path=str(script), dataset_kwargs={"trust_remote_code": True})
    with pytest.raises(SuiteError, match="scripted: its data .* cannot be loaded"):
        preflight(experiment(str(path)))
    assert not (tmp_path / "ran").exists()


def test_no_task_fetches_the_code_of_a_metric_while_it_runs() -> None:
    import evaluate as metrics

    with pytest.raises(ConnectionError, match="Offline mode"):
        metrics.utils.file_utils.get_from_cache("https://host.invalid/metric.py", cache_dir=".")


def test_code_that_lm_eval_ships_is_run(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    named = edited(path, "process_docs: !function lm_eval.tasks.hellaswag.utils.process_docs\n")
    assert find_suite(str(named)).name == "sums"
    included = write_task(tmp_path, "borrowed", include=str(shipped_folder() / "ifeval" / "ifeval.yaml"))
    assert find_suite(str(included)).splits == {"test": "test"}


LAUGHS = "task: a\ntest_split: test\na0: &a0 [lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
"""A billion of them."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list\n", "is no lm-eval task: expected keys"),
        ("task: [a, b]\n", "expected a `task:` with one name"),
        ("group: g\ntask: g\n", "expected a `task:` with one name"),
        ("task: a\nclass: !function os.path\n", "defined in Python"),
        ("task: a\n", "neither a test split nor a validation split"),
        ("task: a\ninclude: a.yaml\n", "includes itself"),
        ("task: a\ninclude: b.yaml\n", "No such file"),
        ("task: {\n", "is no lm-eval task"),
        ("task: !!python/object/apply:os.getcwd []\n", "is no lm-eval task"),
        ("!!int ", "is no lm-eval task"),
        ("task: a\nx: &x [*x]\n", "a block that contains itself"),
        (LAUGHS, "more than 100,000 values"),
        ("task: a\ntest_split: test\nmetadata: {language: [de]}\n", "cannot be a suite: languages"),
    ],
)
def test_a_file_that_is_no_task_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SuiteError, match=message) as caught:
        find_suite(str(path))
    assert "\n" not in str(caught.value)


def test_data_that_cannot_be_had_name_both_ways(tmp_path: Path) -> None:
    """Offline and without a copy; in a process of its own, because the libraries read the setting once."""
    script = f"""
from bench.runner import Plan, cell_key, preflight
from bench.errors import SuiteError
from bench.experiment import parse_experiment
try:
    preflight(parse_experiment({experiment("lm-eval:gsm8k").model_dump(mode="json")!r}, "a test"))
except SuiteError as error:
    print(error)
"""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=offline)
    lines = ran.stdout.strip().splitlines()
    assert lines, ran.stderr
    assert lines[-1].startswith("suite lm-eval:gsm8k: its data (openai/gsm8k) cannot be loaded: let the hub be reached")
    assert "evaluate.data.lm-eval:gsm8k" in lines[-1]


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("[{metric: bleu}]", "is scored by bleu over all answers together .aggregation bleu."),
        ("[{metric: chrf}, {metric: exact_match}]", "is scored by chrf over all answers together"),
        ("[{metric: exact_match, aggregation: median}]", r"is scored by exact_match .* .aggregation median."),
    ],
)
def test_a_corpus_level_metric_is_refused_with_the_reason_before_anything_runs(tmp_path: Path, metric: str, said: str) -> None:
    path = write_task(tmp_path)
    common = tmp_path / "common"
    common.write_text(common.read_text(encoding="utf-8").replace("[{metric: exact_match}]", metric), encoding="utf-8")
    with pytest.raises(SuiteError, match=f"task sums {said}") as caught:
        preflight(experiment(str(path)))
    assert "\n" not in str(caught.value)
    assert "whose aggregation is mean" in str(caught.value)


def test_a_corpus_level_metric_after_one_of_single_answers_does_no_harm(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    common = tmp_path / "common"
    both = "[{metric: exact_match}, {metric: bleu}]"
    common.write_text(common.read_text(encoding="utf-8").replace("[{metric: exact_match}]", both), encoding="utf-8")
    samples: list[Sample] = []
    tokenizer = load_tokenizer(EMBEDDED)
    engine = FakeEngine(tokenizer, lambda *_: harmony(None, "2"))
    listener = Listener(lambda _: None, lambda *_: None, samples.append)
    run_pass(Ask("base", find_suite(str(path)), "test", ("en",), evaluate(str(path))), engine, tokenizer, {}, listener)
    assert {sample.outcome for sample in samples} == {"correct", "wrong"}


def test_a_score_that_is_no_share_is_refused(tmp_path: Path) -> None:
    (tmp_path / "points.py").write_text("def points(doc, results):\n    return {'points': 70}\n", encoding="utf-8")
    path = edited(write_task(tmp_path), "process_results: !function points.points\nmetric_list: [{metric: points, aggregation: mean}]\n")
    tokenizer = load_tokenizer(EMBEDDED)
    engine = FakeEngine(tokenizer, lambda *_: harmony(None, "2"))
    ask = Ask("base", find_suite(str(path)), "test", ("en",), evaluate(str(path)))
    with pytest.raises(SuiteError, match="task sums@(low|high): its metric points gives an answer 70; expected a number from 0 to 1"):
        run_pass(ask, engine, tokenizer, {}, Listener(lambda _: None, lambda *_: None, lambda _: None))


def test_missing_local_data_are_a_usage_error(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(EffortbenchError, match=r"suite sums: its data \(json\) cannot be loaded"):
        preflight(experiment(str(path)))


def test_a_split_that_the_data_lack_is_found_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="suite sums: its data have no 'dev', which the task's file names"):
        preflight(experiment(str(write_task(tmp_path, validation_split="dev"))))
