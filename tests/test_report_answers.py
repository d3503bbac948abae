"""Claims about the browser of answers: it finds, filters and pairs them, shows hostile text as text, and stays quick with many."""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chromium import Browser
from fabricated import fabricate_run

from bench.records import Run
from bench.report import answers, write_report
from bench.report.answers import pack_answers, read_prompts, shortened
from bench.report.focus import focus_on

HOSTILE = "<script>window.hit=1</script></script><img src=x onerror=window.hit=2>\u202eevil\x00 [x](javascript:window.hit=3) &amp; ' \" "
PROMPT = "<|start|>system<|message|>Reasoning: high<|end|><|start|>user<|message|>{question}<|end|><|start|>assistant"


@functools.cache
def made_up() -> Run:
    return fabricate_run(Path("nowhere"), "fail", select_problems=4, gate_problems=40)


def with_prompts(run: Run, folder: Path, question: Callable[[str], str]) -> Run:
    lines = [
        json.dumps({"prompt_hash": name, "prompt": PROMPT.format(question=question(name))}) for name in run.samples["prompt_hash"].unique()
    ]
    folder.mkdir(exist_ok=True)
    (folder / "prompts.jsonl").write_text("\n".join(lines) + '\n{"prompt_hash": "torn', encoding="utf-8")
    return dataclasses.replace(run, folder=folder)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = with_prompts(made_up(), tmp_path_factory.mktemp("run"), lambda name: f"Question {name}?")
    return write_report(run)


def unpacked(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def flips(run: Run, arm: str = "r16-s200") -> tuple[int, int]:
    """(right to wrong, wrong to right) on stories@gate over all efforts, counted another way than the page does."""
    here = run.samples[run.samples["split"] == "gate"].set_index(["arm", "language", "effort", "item_id"])["score"]
    difference = here.loc[arm] - here.loc["base"]
    return int((difference < 0).sum()), int((difference > 0).sum())


# What the page carries ----------------------------------------------------------------------------------------------------------


def test_every_answer_is_carried_with_its_text_and_its_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "BLOCK_CHARS", 5_000)  # several blocks
    run = with_prompts(made_up(), tmp_path, lambda name: name)
    focus = focus_on(run)
    assert focus is not None
    packed = pack_answers(run, focus)
    index = unpacked(packed.index)
    assert len(packed.blocks) > 3
    assert packed.beside == {}
    names, asked, made = index["names"], index["questions"], index["samples"]
    blocks = [unpacked(block) for block in packed.blocks]
    assert index["starts"] == np.cumsum([0, *(len(block["texts"]) for block in blocks)])[:-1].tolist()
    texts = [text for block in blocks for text in block["texts"]]
    prompts = [block["prompts"][prompt] for block in blocks for prompt in block["prompt"]]
    shown = {
        (names["arm"][arm], *(names[key][asked[key][question]] for key in ("place", "language", "effort", "item"))): (text, prompt)
        for arm, question, text, prompt in zip(made["arm"], made["question"], texts, prompts, strict=True)
    }
    assert len(shown) == len(run.samples)
    for row in run.samples.sample(50, random_state=1).itertuples():
        text, prompt = shown[row.arm, f"{row.suite}@{row.split}", row.language, row.effort, row.item_id]
        assert text == row.completion
        assert prompt == PROMPT.format(question=row.prompt_hash)


def test_the_page_allows_its_two_scripts_by_hash_and_no_other(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    allowed = policy.group(1).replace("&#39;", "'")
    assert set(re.findall(r"'sha256-([^']+)'", allowed)) == hashes
    assert len(hashes) == 2
    assert allowed.startswith("default-src 'none'; script-src 'sha256-")
    assert "strict-dynamic" not in allowed


def test_the_order_of_samples_does_not_matter(tmp_path: Path) -> None:
    run = made_up()
    focus = focus_on(run)
    assert focus is not None
    shuffled = dataclasses.replace(run, samples=run.samples.sample(frac=1, random_state=3))
    ours, theirs = (unpacked(pack_answers(one, focus).index) for one in (run, shuffled))
    for index in (ours, theirs):
        index["samples"]["answer"] = [index["answers"][code] if code >= 0 else None for code in index["samples"]["answer"]]
        index["questions"]["target"] = [index["targets"][code] for code in index["questions"]["target"]]
    for key in ("names", "questions", "starts"):
        assert ours[key] == theirs[key]
    assert {**ours["samples"], "tongue": 0} == {**theirs["samples"], "tongue": 0}


def test_long_texts_are_cut_in_the_middle_and_say_so() -> None:
    text = "a" * 600_000 + "b" * 400_000
    cut = shortened(text, 900)
    assert cut.startswith("a" * 600 + " \u2026 (999,100 characters left out)")
    assert cut.endswith(" " + "b" * 300)
    assert shortened("short", 900) == "short"


def test_prompts_that_cannot_be_read_are_missing_and_no_error(tmp_path: Path) -> None:
    assert read_prompts(tmp_path / "none.jsonl") == {}
    lines = ['{"prompt_hash": "a", "prompt": "A"}', "[1]", '{"prompt_hash": 3}', "[" * 100_000, "\xff", '{"prompt_hash": "b"']
    (tmp_path / "p.jsonl").write_text("\n".join(lines), encoding="latin-1")
    assert read_prompts(tmp_path / "p.jsonl") == {"a": "A"}


# In a real browser --------------------------------------------------------------------------------------------------------------


def opened(browser: Browser, page: Path, width: int = 1280) -> None:
    browser.open(page, width)
    browser.wait("document.getElementById('answers').dataset.ready === 'yes' && !!document.querySelector('#answers-detail .reply')")


def choose(browser: Browser, name: str, value: str) -> str:
    """Set a filter as a user does; the status line after it."""
    browser.evaluate(
        f"(() => {{ const field = document.getElementById('answers-form').elements[{name!r}];"
        "const option = field.options && [...field.options].find((one) => one.text === VALUE);"
        "if (option) option.selected = true; else field.value = VALUE;"
        "field.dispatchEvent(new Event('input', {bubbles: true})); })()".replace("VALUE", json.dumps(value))
    )
    browser.evaluate("new Promise((done) => setTimeout(done, 400))")
    return str(browser.evaluate("document.getElementById('answers-status').textContent"))


def test_flips_come_first_and_are_counted_right(browser: Browser, page: Path) -> None:
    opened(browser, page)
    lost, gained = flips(made_up())
    assert lost > 20
    assert gained > 3
    status = browser.evaluate("document.getElementById('answers-status').textContent")
    assert status == f"600 of 1,500 answers: {lost} right → wrong, {gained} wrong → right, these first"
    kinds = browser.evaluate("[...document.querySelectorAll('.answer .kind')].map((one) => one.textContent)")
    assert set(kinds) == {"right → wrong"}
    outcomes = browser.evaluate("[...document.querySelectorAll('#answers-detail .outcome')].map((one) => one.textContent)")
    assert outcomes[0] == "correct"
    assert outcomes[1] != "correct"
    question = browser.evaluate("document.querySelector('#answers-detail .question').textContent")
    assert re.match(r"Question stories-gate-de-low-\d+\?", question)
    assert browser.complaints() == []


def test_filters_and_search_leave_what_they_say(browser: Browser, page: Path) -> None:
    opened(browser, page)
    samples = made_up().samples
    gate = samples[(samples["split"] == "gate") & (samples["arm"] == "r16-s200")]
    assert choose(browser, "effort", "high").startswith("200 of ")
    assert choose(browser, "language", "fr").startswith("40 of ")
    here = gate[(gate["effort"] == "high") & (gate["language"] == "fr")]
    assert choose(browser, "outcome", "wrong").startswith(f"{(here['outcome'] == 'wrong').sum()} of ")
    browser.evaluate("document.getElementById('answers-form').reset()")
    assert choose(browser, "change", "right → wrong").startswith(f"{flips(made_up())[0]} of ")
    browser.evaluate("document.getElementById('answers-form').reset()")
    assert choose(browser, "search", "GATE-0007").startswith("15 of ")
    assert choose(browser, "search", "Question stories-gate-it-high-0007").startswith("0 of ")
    assert browser.evaluate("document.getElementById('answers-detail').textContent") == "No answer fits."
    browser.evaluate("document.getElementById('answers-form').elements.texts.checked = true")
    assert choose(browser, "search", "question stories-gate-it-high-0007").startswith("1 of ")
    assert browser.complaints() == []


def test_keyboard_walks_the_list_and_reaches_the_answer(browser: Browser, page: Path) -> None:
    opened(browser, page)
    browser.evaluate("document.getElementById('answers-list').focus()")
    active = "document.getElementById('answers-list').getAttribute('aria-activedescendant')"
    browser.press("ArrowDown")
    assert browser.evaluate(active) == "answer-1"
    browser.press("End")
    browser.wait("document.getElementById('answer-599')?.getAttribute('aria-selected') === 'true'")
    assert browser.evaluate(active) == "answer-599"
    browser.press("Enter")
    assert browser.evaluate("document.activeElement.id") == "answers-detail"


def test_hostile_answers_are_shown_and_never_obeyed(browser: Browser, tmp_path: Path) -> None:
    run = with_prompts(made_up(), tmp_path, lambda name: HOSTILE)
    samples = run.samples.copy()
    samples["completion"] = pd.Series(f"<|channel|>final<|message|>{HOSTILE}<|return|>", index=samples.index, dtype=object)
    for column in ("answer", "target", "reasoning_language"):
        samples[column] = pd.Series(HOSTILE, index=samples.index, dtype=object)
    samples["item_id"] = samples["item_id"] + HOSTILE
    html = write_report(dataclasses.replace(run, samples=samples))
    opened(browser, html)
    assert browser.evaluate("window.hit ?? 0") == 0
    assert browser.evaluate("document.querySelectorAll('#answers img, #answers script, #answers a').length") == 0
    text = browser.evaluate("document.getElementById('answers').textContent")
    assert text.count("<script>window.hit=1</script></script><img src=x onerror=window.hit=2>⟨U+202E⟩evil⟨U+0") > 20
    assert "\u202e" not in text
    assert browser.complaints() == []
    assert browser.requests() == [html.as_uri()]


def test_a_megabyte_in_one_line_is_cut_and_shown(browser: Browser, tmp_path: Path) -> None:
    run = dataclasses.replace(made_up(), folder=tmp_path)
    long = "<|channel|>analysis<|message|>" + "x" * 1_000_000 + "<|end|><|start|>assistant<|channel|>final<|message|>The end.<|return|>"
    samples = run.samples.assign(completion=pd.Series(long, index=run.samples.index, dtype=object))
    html = write_report(dataclasses.replace(run, samples=samples))
    opened(browser, html, 390)
    shown = browser.evaluate("[...document.querySelectorAll('#answers-detail .reply')].map((one) => one.textContent)")
    assert len(shown) == 2
    assert all("characters left out" in text and text.endswith("finalThe end.") for text in shown)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390


def test_texts_beside_the_page_are_loaded_when_looked_at(
    browser: Browser,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "BLOCK_CHARS", 20_000)
    monkeypatch.setattr(answers, "INLINE_CHARS", 0)
    run = with_prompts(made_up(), tmp_path, lambda name: f"Question {name}?")
    html = write_report(run)
    assert "'strict-dynamic'" in unescape(html.read_text(encoding="utf-8"))
    files = sorted((tmp_path / "report" / "answers").glob("*.js"))
    assert len(files) > 3
    opened(browser, html)
    assert len(browser.requests()) == 2  # the page, and the one file whose answer is shown
    assert browser.evaluate("document.querySelector('#answers-detail .question').textContent").startswith("Question stories-gate-")
    assert browser.complaints() == []
    for file in files:
        file.unlink()
    browser.open(html, 1280)
    browser.wait("document.getElementById('answers-detail').textContent.includes('.js is missing: keep the folder answers/')")
    monkeypatch.undo()
    write_report(run)
    assert not list((tmp_path / "report" / "answers").glob("*.js"))


def test_a_hundred_thousand_answers_are_paged_and_only_those_in_sight_are_drawn(browser: Browser, tmp_path: Path) -> None:
    run = made_up()
    copies = 100_000 // 600 + 1
    gate = run.samples[(run.samples["split"] == "gate") & (run.samples["arm"] == "r16-s200")]
    many = pd.concat([gate.assign(item_id=gate["item_id"] + f"/{copy}") for copy in range(copies)], ignore_index=True)
    html = write_report(dataclasses.replace(run, folder=tmp_path, samples=many, comparisons=(), verdict=None))
    opened(browser, html)
    assert browser.evaluate("document.getElementById('answers-page').textContent") == "Page 1 of 11"
    for _ in range(3):
        browser.evaluate("document.getElementById('answers-list').scrollTop += 100000; new Promise((done) => setTimeout(done, 100))")
        assert 5 < browser.evaluate("document.querySelectorAll('.answer').length") < 60
    browser.evaluate("document.getElementById('answers-on').click()")
    browser.wait("document.getElementById('answers-page').textContent === 'Page 2 of 11'")
    assert browser.evaluate("document.querySelector('.answer').getAttribute('aria-posinset')") == "10001"
    assert browser.complaints() == []
