"""Where a suite's rows come from: a local folder, else the hub at a pinned commit; offline without either, one error names both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bench.catalog import find_suite, suite_names
from bench.errors import SuiteError
from bench.experiment import Evaluate, Experiment, parse_experiment
from bench.lm import Ask, load_tasks
from bench.rows import download
from bench.runner import _check_data, cell_key, preflight

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FROM_HUB = [name for name in suite_names() if find_suite(name).hub]


def experiment(suite: str, **changes: Any) -> Experiment:
    asked = {"suites": [suite], "efforts": ["low"], "max_new_tokens": {"low": 8}, **changes}
    model = {"id": "embedded", "load_in_4bit": False, "dtype": "float32"}
    return parse_experiment({"name": "rows", "model": model, "evaluate": asked}, "a test")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No local data, no hub, and an empty cache, whose folder this is."""
    from huggingface_hub import constants

    monkeypatch.delenv("EFFORTBENCH_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put_in_cache(cache: Path, name: str, language: str, revision: str, text: str) -> None:
    """As a download leaves it."""
    hub = find_suite(name).hub
    assert hub is not None
    path = cache / f"datasets--{hub.id.replace('/', '--')}" / "snapshots" / revision / hub.file_of(language)
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


def test_five_suites_take_their_rows_from_the_hub() -> None:
    assert FROM_HUB == ["belebele", "mgsm", "mgsm_native_cot", "mmlu_prox", "mmmlu"]


@pytest.mark.parametrize("name", FROM_HUB)
def test_every_hub_is_pinned_to_a_commit_that_the_readme_names(name: str) -> None:
    suite = find_suite(name)
    readme = (suite.folder / "README.md").read_text(encoding="utf-8")
    for hub in [suite.hub, *suite.variants.values()]:
        assert hub is not None
        assert re.fullmatch("[0-9a-f]{40}", hub.revision)
        assert hub.revision in readme or suite.data_from  # it refers to the suite it borrows from
    assert suite.items
    assert f"{suite.items:,} a language" in readme or suite.data_from
    assert suite.licence.partition(" at its")[0] in readme or suite.data_from


def test_both_prompt_styles_of_mgsm_read_the_same_data() -> None:
    mgsm, native = find_suite("mgsm"), find_suite("mgsm_native_cot")
    assert (native.hub, native.items, native.licence, native.languages) == (mgsm.hub, mgsm.items, mgsm.licence, mgsm.languages)
    assert native.data_name == "mgsm"


@pytest.mark.parametrize("name", FROM_HUB)
def test_offline_without_data_one_error_names_both_ways_before_anything_runs(name: str, offline: Path) -> None:
    language = next(iter(find_suite(name).languages))
    with pytest.raises(SuiteError) as caught:
        preflight(experiment(name, languages=[language]))
    message = str(caught.value)
    assert "\n" not in message
    for way in (f"evaluate.data.{name}", "EFFORTBENCH_DATA", "hub"):
        assert way in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", FROM_HUB)
def test_the_loader_itself_names_both_ways_too(name: str, offline: Path) -> None:
    suite = find_suite(name)
    language = next(iter(suite.languages))
    with pytest.raises(SuiteError, match=r"evaluate\.data\..*EFFORTBENCH_DATA.*be reached on the hub"):
        load_tasks(Ask("base", suite, "test", (language,), experiment(name).evaluate))


def test_a_download_of_the_pinned_commit_serves_offline_and_one_of_another_does_not(offline: Path) -> None:
    suite = find_suite("belebele")
    assert suite.hub is not None
    asked = experiment("belebele", languages=["de"])
    put_in_cache(offline, "belebele", "de", COMMIT, "{}")
    with pytest.raises(SuiteError, match="evaluate.data.belebele"):
        _check_data(suite, ["de"], asked)
    put_in_cache(offline, "belebele", "de", suite.hub.revision, "{}")
    _check_data(suite, ["de"], asked)
    assert download(suite, "de", {}).parts[-3] == suite.hub.revision
    assert download(suite, "de", {"revision": COMMIT}).parts[-3] == COMMIT


def test_a_downloaded_mgsm_with_other_answers_is_refused(offline: Path) -> None:
    suite = find_suite("mgsm")
    assert suite.hub is not None
    put_in_cache(offline, "mgsm", "de", suite.hub.revision, "Eine Frage?\t1\n")
    with pytest.raises(SuiteError, match="has other answers than the 250 published"):
        load_tasks(Ask("base", suite, "test", ("de",), experiment("mgsm").evaluate))


# --- revision, variant, and what the record says


@pytest.mark.parametrize("revision", ["main", "v1.0", "0123abc", COMMIT.upper(), ""])
def test_a_revision_that_is_no_commit_is_refused(revision: str) -> None:
    with pytest.raises(SuiteError, match="must be a commit of 40 hex digits"):
        preflight(experiment("mmmlu", options={"mmmlu": {"revision": revision}}))


def test_a_variant_is_another_data_set_and_an_unknown_one_is_refused() -> None:
    suite = find_suite("mmlu_prox")
    assert suite.hub is not None
    lite = suite.find_hub({"variant": "lite"})
    assert lite is not None
    assert (lite.id, lite.file_of("de")) == ("li-lab/MMLU-ProX-Lite", "de/test-00000-of-00001.parquet")
    assert lite.revision != suite.hub.revision
    with pytest.raises(SuiteError, match="suite mmlu_prox has no variant 'heavy': it has lite"):
        preflight(experiment("mmlu_prox", options={"mmlu_prox": {"variant": "heavy"}}))


def test_the_source_of_the_rows_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EFFORTBENCH_DATA", raising=False)
    mmmlu = find_suite("mmmlu")
    assert mmmlu.hub is not None
    assert mmmlu.data_source({}, {}) == f"openai/MMMLU@{mmmlu.hub.revision}"
    assert mmmlu.data_source({}, {"mmmlu": {"revision": COMMIT}}) == f"openai/MMMLU@{COMMIT}"
    assert mmmlu.data_source({"mmmlu": tmp_path}, {}) == f"a local folder ({mmmlu.data_revision({'mmmlu': tmp_path})})"
    assert find_suite("stories").data_source({}, {}) == "the suite's own rows"
    gsm8k = find_suite("lm-eval:gsm8k")
    assert gsm8k.data_source({}, {}) == "openai/gsm8k, unpinned"
    assert gsm8k.data_source({}, {"lm-eval:gsm8k": {"revision": COMMIT}}) == f"openai/gsm8k@{COMMIT}"


def test_another_commit_is_another_cell(tmp_path: Path) -> None:
    import dataclasses

    from bench.runner import Plan

    suite = find_suite("mmmlu")

    def key(asked: Experiment) -> str:
        plan = Plan(asked, tmp_path, "base", {"mmmlu": suite}, (), 1)
        return cell_key(dataclasses.replace(plan), suite, "low", None, None)

    assert key(experiment("mmmlu")) != key(experiment("mmmlu", options={"mmmlu": {"revision": COMMIT}}))


def test_data_and_options_of_mgsm_reach_the_borrowed_loader(tmp_path: Path) -> None:
    (tmp_path / "mgsm_de.tsv").write_text("Zwei und zwei?\t4\n", encoding="utf-8")
    asked = Evaluate(suites=["mgsm_native_cot"], efforts=["low"], max_new_tokens={"low": 8}, data={"mgsm_native_cot": tmp_path})
    task = load_tasks(Ask("base", find_suite("mgsm_native_cot"), "test", ("de",), asked))["de"]
    (doc,) = task.test_docs()
    assert task.doc_to_text(doc) == "Frage: Zwei und zwei?\nSchritt-für-Schritt-Antwort:"
