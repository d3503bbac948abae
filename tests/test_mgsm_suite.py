"""The mgsm suite through lm-eval's own task manager and evaluator, on the local data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import SuiteError

SUITE = Path(__file__).parents[1] / "suites" / "mgsm"
DATA = os.environ.get("EFFORTBENCH_DATA")
LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
QUESTIONS = "Ann has 40 eggs and buys 2. How many?\t42\nA car costs 2125. What is it worth?\t2,125\n"

needs_data = pytest.mark.skipif(DATA is None, reason="EFFORTBENCH_DATA is unset: no MGSM to read")


def manager(folder: Path | None = None) -> Any:
    from lm_eval.tasks import TaskManager

    metadata: Any = {"data": {"mgsm": str(folder)}} if folder else None
    return TaskManager(include_path=str(SUITE), include_defaults=False, metadata=metadata)


def task(language: str, folder: Path | None = None) -> Any:
    return manager(folder).load([f"mgsm_{language}"])["tasks"][f"mgsm_{language}"]


def scored(language: str, replies: list[str], folder: Path, filter_name: str = "answer") -> list[dict[str, Any]]:
    """lm-eval's samples of one filter where the model answers `replies` in order."""
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM

    class FakeLM(LM):
        def generate_until(self, requests: list[Any], **_kwargs: Any) -> list[str]:
            return replies

        def loglikelihood(self, requests: list[Any], **_kwargs: Any) -> Any:
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    name = f"mgsm_{language}"
    result = simple_evaluate(FakeLM(), tasks=[name], task_manager=manager(folder), bootstrap_iters=0, log_samples=True)
    samples: list[dict[str, Any]] = [sample for sample in result["samples"][name] if sample["filter"] == filter_name]
    return sorted(samples, key=lambda sample: sample["doc_id"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two problems in every language."""
    for language in LANGUAGES:
        (tmp_path / f"mgsm_{language}.tsv").write_text(QUESTIONS, encoding="utf-8")
    return tmp_path


def test_the_suite_file_names_every_task() -> None:
    suite = yaml.safe_load((SUITE / "suite.yaml").read_text(encoding="utf-8"))
    assert suite["name"] == "mgsm"
    assert suite["splits"] == {"test": "test"}
    assert suite["default_split"] in suite["splits"]
    assert tuple(suite["languages"]) == LANGUAGES
    assert sorted(manager().all_tasks) == [f"mgsm_{language}" for language in LANGUAGES]


@needs_data
def test_local_data_has_250_problems_shared_by_languages() -> None:
    loaded = {language: list(task(language).test_docs()) for language in ("bn", "de", "en", "es", "fr", "ja", "ru", "zh")}
    for docs in loaded.values():
        assert [doc["item_id"] for doc in docs] == [f"mgsm-{row}" for row in range(250)]
        assert [doc["target"] for doc in docs] == [doc["target"] for doc in loaded["en"]]
    assert {"2125", "114200", "276000", "5600"} <= {doc["target"] for doc in loaded["en"]}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_prompt_is_instruction_and_question(language: str, folder: Path) -> None:
    loaded = task(language, folder)
    doc = loaded.test_docs()[0]
    instruction, question = loaded.doc_to_text(doc).split("\n\n")
    assert question == doc["question"]
    assert len(instruction) > 40
    assert loaded.config.generation_kwargs == {"do_sample": False, "until": []}


def test_a_reply_that_follows_the_prompt_is_read_in_every_language(folder: Path) -> None:
    import re

    from bench.answers import extract_number

    for language in LANGUAGES:
        instruction = task(language, folder).doc_to_text({"question": ""})
        marker = re.search(r"[\"“「](\w[\w\u0900-\u0e7f]* ?[:：])", instruction)
        assert marker, language
        assert extract_number(f"40 + 2 = 42\n{marker[1]} 42\n\n7", language, whole=True) == "42"


@pytest.mark.parametrize(
    ("language", "replies", "scores"),
    [
        ("bn", ["৪০ + ২ = ৪২\nউত্তর: ৪২", "উত্তর: ২,১২৫"], [1, 1]),
        ("th", ["คำตอบ: ๔๒", "คำตอบ: ๒๑๒๕ บาท"], [1, 1]),
        ("te", ["సమాధానం: ౪౨", "సమాధానం: 2125"], [1, 1]),
        ("ja", ["答え：４２", "答え：2125ドル"], [1, 1]),
        ("zh", ["答案：42", "答案：二千一百二十五"], [1, 1]),
        ("de", ["**Antwort:** 42 Eier", "Antwort: 2.125 Dollar"], [1, 1]),
        ("fr", ["Réponse : 42", "Réponse : 2\u202f125 $"], [1, 1]),
        ("es", ["Respuesta: 41", "Respuesta: 2,125"], [0, 1]),
        ("sw", ["Jibu: 42", "Sijui."], [1, 0]),
    ],
)
def test_answers_are_scored_by_lm_eval(language: str, replies: list[str], scores: list[int], folder: Path) -> None:
    assert [sample["exact_match"] for sample in scored(language, replies, folder)] == scores


# Each line was worked out by hand from openai/simple-evals, mgsm_eval.py at commit 0637982, parse_answer and score_mgsm.
SIMPLE_EVALS = [
    ("en", "6 * 7 = 42\nAnswer: 42", "42"),
    ("en", "Answer: $2,125", "2125"),
    ("en", "Answer: 42.00", "42"),
    ("en", "Answer: 42.", "42"),
    ("en", "Answer: 42.50", "42.5"),
    ("en", "Answer: -42", "42"),
    ("en", "Answer: 42 of 100", "100"),
    ("en", "Answer: 7. Answer: 42", "42"),
    ("en", "The Answer is 42", "42"),
    ("en", "answer: 42", "[invalid]"),
    ("en", "42", "[invalid]"),
    ("en", "Answer: none", "[invalid]"),
    ("de", "Antwort: 2.125", "2.125"),
    ("de", "Antwort: 2.100", "2.1"),
    ("de", "Answer: 42", "[invalid]"),
    ("fr", "Réponse : 114 200", "200"),
    ("bn", "উত্তর: ৪২", "৪২"),
    ("ja", "答え：4２", "4２"),
    ("zh", "答案：42", "42"),
    ("te", "సమాధానం: 42", "42"),
    ("th", "คำตอบ: 42", "42"),
    ("sw", "Jibu: 42", "42"),
    ("ru", "Ответ: 42", "42"),
    ("es", "Respuesta: 42", "42"),
]


@pytest.mark.parametrize(("language", "reply", "read"), SIMPLE_EVALS)
def test_the_simple_evals_scorer_reads_as_the_published_one_does(language: str, reply: str, read: str, folder: Path) -> None:
    sample = scored(language, [reply, reply], folder, "simple-evals")[0]
    assert sample["filtered_resps"] == [read]
    assert sample["exact_match"] == (read == "42")


def test_no_answer_is_told_from_a_wrong_one(folder: Path) -> None:
    samples = scored("en", ["I do not know.", "Answer: 7"], folder)
    assert [sample["filtered_resps"] for sample in samples] == [["[invalid]"], ["7"]]


def test_a_language_missing_from_the_given_folder_names_both_ways(folder: Path) -> None:
    (folder / "mgsm_sw.tsv").unlink()
    assert len(task("de", folder).test_docs()) == 2
    with pytest.raises(SuiteError, match=r"no mgsm_sw.tsv in .*evaluate.data.mgsm.*hub"):
        task("sw", folder)


def test_no_data_at_all_names_both_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("EFFORTBENCH_DATA", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SuiteError, match=r"no mgsm_th.tsv: .*evaluate.data.mgsm, or EFFORTBENCH_DATA.*on the hub"):
        task("th")


@pytest.mark.parametrize("line", ["no tab at all", "question\tno number", "\t42"])
def test_a_broken_row_is_named(line: str, folder: Path) -> None:
    (folder / "mgsm_en.tsv").write_text(f"{QUESTIONS}{line}\n", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"mgsm_en.tsv, line 3: expected question<TAB>answer"):
        task("en", folder)
