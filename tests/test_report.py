"""Claims about the report: what it says, that it escapes what it quotes, and that a real browser opens it without complaint."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from chromium import Browser
from fabricated import fabricate_experiment, fabricate_run, fabricate_zero_run

from bench.comparison import compare
from bench.experiment import parse_experiment
from bench.gate import waive
from bench.judging import judge_run
from bench.phases import phase_records
from bench.records import Retry, Run, RunVerdict, TrainingPhase, VerdictName
from bench.report import score_tables, words, write_report
from bench.report.cells import Cells
from bench.report.cost_tables import training, training_phases
from bench.report.flips import channels
from bench.report.focus import focus_on
from bench.report.junit import render_junit

VERDICTS: tuple[VerdictName, ...] = ("pass", "fail", "inconclusive", "invalid")
VOID = {"meta", "link", "br", "hr", "img", "input", "path", "use", "rect", "line", "circle"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202eevil\x00\ud800 [x](javascript:alert(3)) | `@all` &amp;"


Reports = Callable[[VerdictName | None], Path]


@functools.cache
def made_up(verdict: VerdictName | None) -> Run:
    return fabricate_run(Path("nowhere"), verdict, select_problems=20, gate_problems=120, truncated=0.001)


def written(run: Run, folder: Path) -> str:
    """Write the report of a run into a folder of its own; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_report(dataclasses.replace(run, folder=folder)).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """Folder of a run with this verdict, its report written once; not to be changed."""

    @functools.cache
    def folder_of(verdict: VerdictName | None) -> Path:
        folder = tmp_path_factory.mktemp(verdict or "none")
        written(made_up(verdict), folder)
        return folder

    return folder_of


def html_in(folder: Path) -> str:
    return (folder / "report" / "index.html").read_text(encoding="utf-8")


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Page(HTMLParser):
    """Text, ids, attributes and open tags of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.tags if attribute in attrs]


# What it says -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", VERDICTS)
def test_verdict_is_told_by_word_and_by_shape(verdict: VerdictName, reports: Reports) -> None:
    run, html = made_up(verdict), html_in(reports(verdict))
    assert run.verdict is not None
    assert run.verdict.verdict == verdict
    assert words.VERDICTS[verdict] in Page(html).texts
    icon = re.search(r'<svg class="icon".*?</svg>', html[html.index('<section class="hero') :], re.DOTALL)
    assert icon is not None
    shapes = {"pass": "<circle", "fail": "M21 5h22", "inconclusive": "M32 3l29", "invalid": "M32 5l29"}
    assert [name for name, shape in shapes.items() if shape in icon.group()] == [verdict]


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive"])
def test_sentence_names_arm_change_interval_and_margin(verdict: VerdictName, reports: Reports) -> None:
    run = made_up(verdict)
    assert run.verdict is not None
    page, gate = Page(html_in(reports(verdict))), run.verdict.gates[0]
    for part in (
        str(gate.arm),
        words.change("accuracy", gate.delta),
        words.change_interval("accuracy", gate.ci),
        "5\u00a0points",
    ):
        assert part.replace("\u00a0", " ") in page.text


def test_run_without_gates_says_so(reports: Reports) -> None:
    page = Page(html_in(reports(None)))
    assert "NO VERDICT" in page.texts
    assert "no gates" in page.text
    assert ElementTree.parse(reports(None) / "junit.xml").findall(".//testcase") == []


def test_unjudged_gates_are_not_a_pass(tmp_path: Path) -> None:
    page = Page(written(dataclasses.replace(made_up("pass"), verdict=None, finished=False), tmp_path))
    assert "NO VERDICT" in page.texts
    assert "not finished" in page.text
    assert "PASS" not in page.texts


def test_model_that_scores_nothing_reads_sensibly(tmp_path: Path) -> None:
    page = Page(written(fabricate_zero_run(tmp_path), tmp_path))
    assert "Only the base model was run." in page.text
    assert "on mgsm@test was answered correctly" in page.text
    assert re.search(r"cut at the token limit in \d+ of 24 cells \(most: \d\d\.\d.%, base, mgsm@test, \w\w, high effort\)", page.text)
    assert "nan" not in page.text.lower().split()


def test_unknown_memory_is_unknown_and_not_zero(tmp_path: Path) -> None:
    run = made_up("pass")
    phases = tuple(dataclasses.replace(phase, peak_rss_bytes=None) for phase in run.phases)
    html = written(dataclasses.replace(run, phases=phases, training={}), tmp_path)
    tile = re.search(r'<div class="tile ">\s*<h2>Peak host memory.*?</div>', html, re.S)
    assert tile is not None
    assert re.search(r'class="number"[^>]*>unknown<', tile.group())
    assert not re.search(r"\b0\s*(B|MiB|GiB)", Page(tile.group()).text)


def test_device_memory_leads_where_there_is_a_device(tmp_path: Path) -> None:
    page = Page(written(fabricate_run(tmp_path, "pass", 20, 120, gpu=True), tmp_path))
    assert "Peak VRAM" in page.texts
    assert "15.10" in page.text


def test_loss_that_no_gate_sees_is_told_beside_the_verdict(reports: Reports) -> None:
    page = Page(html_in(reports("pass")))
    assert re.search(r"Accuracy at low effort fell by \d+\.\d points .* and no gate looks at it", page.text)


def test_truncation_above_two_percent_is_told(tmp_path: Path) -> None:
    page = Page(written(fabricate_run(tmp_path, None, 20, 60, truncated=0.05), tmp_path))
    assert "cut at the token limit" in page.text
    assert "% truncated" in page.text


def test_truncation_in_one_language_alone_is_told_in_the_summary(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, None, 20, 60, truncated=0.0)
    written(run, tmp_path)
    assert "cut at the token limit" not in (tmp_path / "summary.md").read_text(encoding="utf-8")
    of_cell = (run.samples["arm"] == "base") & (run.samples["split"] == "gate") & (run.samples["effort"] == "high")
    here = run.samples.index[of_cell & (run.samples["language"] == "fr")][:2]
    assert len(here) / of_cell.sum() < 0.02
    samples = run.samples.copy()
    samples.loc[here, ["outcome", "score"]] = ["truncated", 0.0]
    written(dataclasses.replace(run, samples=samples), tmp_path)
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8").replace("\\", "").replace("\u200b", "")
    assert re.search(r"cut at the token limit in 1 of \d+ cells .*base, stories@gate, fr, high effort", summary)


def test_answers_cut_in_the_analysis_and_in_the_final_channel_are_told_apart(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, None, 20, 60, truncated=0.05)
    cut = run.samples["outcome"] == "truncated"
    in_final = cut & (run.samples["language"] == "de")
    assert in_final.any()
    samples = run.samples.assign(final_tokens=run.samples["final_tokens"].mask(in_final, 3).mask(cut & ~in_final, 0))
    focus = focus_on(run)
    assert focus is not None
    table = score_tables.outcomes(dataclasses.replace(run, samples=samples), focus, Cells(samples))
    assert table is not None
    column = [each.title for each in table.columns].index("truncated")
    here = samples[(samples["suite"] == focus.suite) & (samples["split"] == focus.split)]
    seen = []
    for row in table.rows:
        answers = here[(here["arm"] == row[0].text) & (here["effort"] == row[1].text)]
        was_cut, is_german = answers["outcome"] == "truncated", answers["language"] == "de"
        analysis, final = (words.share(float((was_cut & where).mean())) for where in (~is_german, is_german))
        seen.append(was_cut.any())
        assert row[column].small.endswith(f"{analysis} in analysis, {final} in final" if was_cut.any() else "")
    assert any(seen)


def test_final_answers_in_another_language_are_told_and_unknown_ones_apart(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, None, 20, 60)
    samples = run.samples.assign(final_language=run.samples["language"].astype(object))
    samples.loc[samples["language"] == "de", "final_language"] = "en"
    samples.loc[samples["language"] == "fr", "final_language"] = None
    samples.loc[(samples["language"] == "es") & (samples.index % 2 == 0), "final_language"] = None
    focus = focus_on(run)
    assert focus is not None
    table = score_tables.final_languages(dataclasses.replace(run, samples=samples), focus, Cells(samples))
    assert table is not None
    shown = {row[0].text: row[2] for row in table.rows}
    assert (shown["en"].text, shown["en"].small) == (words.share(1.0), "")
    assert shown["de"].text == words.share(0.0)
    assert (shown["fr"].text, shown["fr"].small) == ("unknown", f"{words.share(1.0)} unknown")
    assert shown["es"].text == words.share(1.0)
    assert "unknown" in shown["es"].small
    page = Page(written(dataclasses.replace(run, samples=samples), tmp_path))
    assert "final-language" in page.values("id")


def test_effort_without_effect_and_lost_thoughts_are_told(tmp_path: Path, reports: Reports) -> None:
    assert "Effort does not show" not in Page(html_in(reports("pass"))).text
    run = fabricate_run(tmp_path, None, 20, 60)
    is_mute = (run.samples["arm"] != "base") & (run.samples["effort"] == "high")
    samples = run.samples.assign(
        reasoning_tokens=run.samples["reasoning_tokens"].mask(is_mute, 0), output_tokens=run.samples["output_tokens"].mask(is_mute, 12)
    )
    sides = [samples[samples["arm"] == arm] for arm in ("base", "r16-s200")]
    made = compare(*sides, suite="stories", split="gate", effort="high", metric="empty_analysis")
    run = dataclasses.replace(run, samples=samples, comparisons=(made,))
    page = Page(written(run, tmp_path)).text
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    for text in (page, summary):
        assert re.search(r"Effort does not show in tokens: r\S+ writes 12.0 output tokens an answer at high effort", text.replace("\\", ""))
        assert "the same in" in text
        assert "thinks less often than base: its analysis channel is empty in 100.0" in text


def test_repeated_samples_have_a_table_of_their_own(tmp_path: Path, reports: Reports) -> None:
    assert "repeats" not in Page(html_in(reports("pass"))).values("id")
    run = fabricate_run(tmp_path, None, 20, 60)
    again = run.samples.assign(sample_index=1, answer="0", score=0.0, outcome="wrong")
    evaluate = run.experiment.evaluate.model_copy(update={"samples_per_item": 2, "temperature": 1.0})
    experiment = run.experiment.model_copy(update={"evaluate": evaluate})
    page = Page(written(dataclasses.replace(run, experiment=experiment, samples=pd.concat([run.samples, again])), tmp_path))
    assert "repeats" in page.values("id")
    assert "pass@2" in page.text


def test_languages_of_the_fine_tuning_rows_are_told_from_others(tmp_path: Path, reports: Reports) -> None:
    assert "not trained" not in Page(html_in(reports("pass"))).text
    run = fabricate_run(tmp_path, None, 20, 60)
    training = {arm: dataclasses.replace(one, languages=["German", "fr", "Klingon"]) for arm, one in run.training.items()}
    run = dataclasses.replace(run, training=training)
    focus = focus_on(run)
    assert focus is not None
    assert focus.taught == {"de", "fr"}
    text = Page(written(run, tmp_path)).text
    for language, mark in (("de", "trained"), ("en", "not trained"), ("es", "not trained"), ("fr", "trained")):
        assert re.search(rf"\b{language} {mark}\b", text), language


def test_trained_languages_and_others_have_changes_of_their_own(tmp_path: Path, reports: Reports) -> None:
    assert "by-training-table" not in Page(html_in(reports("pass"))).values("id")
    run = fabricate_run(tmp_path, None, 20, 60)
    training = {arm: dataclasses.replace(one, languages=["German", "French"]) for arm, one in run.training.items()}
    frame = run.samples
    lost = (frame["arm"] == "r16-s200") & (frame["split"] == "gate") & frame["language"].isin(["en", "es", "it"])
    samples = frame.assign(score=frame["score"].mask(lost, 0.0), outcome=frame["outcome"].mask(lost, "wrong"))
    run = dataclasses.replace(run, training=training, samples=samples)
    page = Page(written(run, tmp_path))
    assert "by-training-table" in page.values("id")
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8").replace("\\", "")
    pattern = r"Accuracy at medium effort: (.*?) in the languages trained on (.*?); (.*?) in the languages not trained on (.*?)\.\n"
    said = re.search(pattern, summary)
    assert said is not None, summary
    assert (said[2], said[4]) == ("(de, fr)", "(en, es, it)")
    trained, others = (float(re.sub(r"[^0-9.-]", "", text.split("(")[0].replace("\u2212", "-"))) for text in (said[1], said[3]))
    assert trained > -10
    assert others < -50
    every = {arm: dataclasses.replace(one, languages=["de", "en", "es", "fr", "it"]) for arm, one in training.items()}
    everywhere = dataclasses.replace(run, training=every)
    assert "by-training-table" not in Page(written(everywhere, tmp_path)).values("id")


def test_data_and_scorer_are_named_and_what_is_not_pinned_is_told(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, None, 20, 60)
    evaluate = run.experiment.evaluate.model_copy(update={"scorer": {"stories": "simple-evals"}})
    sources = {"stories": "openai/MMMLU@325a01d", "lm-eval:gsm8k": "openai/gsm8k, unpinned"}
    experiment = run.experiment.model_copy(update={"evaluate": evaluate})
    run = dataclasses.replace(run, experiment=experiment, data_sources=sources)
    page = Page(written(run, tmp_path)).text
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8").replace("\\", "")
    assert "openai/MMMLU@325a01d" in page
    for text in (page, summary):
        assert "Answers of stories are scored by its filter simple-evals" in text
        assert "The data of lm-eval:gsm8k come from the hub at no named commit" in text


def test_failed_arms_are_listed_with_their_reason(reports: Reports) -> None:
    page = Page(html_in(reports("invalid")))
    assert "failed-arms" in page.values("id")
    assert "loss is not a number at step 112" in page.text


def test_a_process_that_was_tried_again_is_told(tmp_path: Path) -> None:
    run = dataclasses.replace(made_up("pass"), retries=(Retry("evaluate-base", "the process was ended by SIGSEGV"),))
    page = written(run, tmp_path)
    for text in (Page(page).text, (tmp_path / "summary.md").read_text(encoding="utf-8")):
        assert "The process evaluate-base ended before its work did and was begun once more: the process was ended by SIGSEGV" in text


def test_every_arm_tried_stands_in_the_selection(reports: Reports) -> None:
    html = html_in(reports("pass"))
    table = re.search(r'<table id="selection-table">.*?</table>', html, re.S)
    assert table is not None
    text = Page(table.group()).text
    assert all(arm in text for arm in ("r8-s40", "r8-s200", "r16-s40", "r16-s200"))
    assert text.count("chosen") == 1


def test_run_without_any_sample_still_gets_a_page(tmp_path: Path) -> None:
    run = made_up("invalid")
    page = Page(written(dataclasses.replace(run, samples=run.samples.iloc[:0], comparisons=(), cells=(), phases=()), tmp_path))
    assert "INVALID" in page.texts
    assert not list((tmp_path / "report").glob("*.png"))


def test_one_broken_sample_does_not_break_the_report(tmp_path: Path) -> None:
    run = made_up("pass")
    samples = run.samples.copy()
    empty = {"outcome": "error", "score": None, "answer": None, "output_tokens": None, "reasoning_tokens": None, "completion": ""}
    for column, value in empty.items():
        samples[column] = samples[column].astype(object)
        samples.loc[samples.index[0], column] = value
    page = Page(written(dataclasses.replace(run, samples=samples), tmp_path))
    assert "1 answer ended in a fault of the machinery" in page.text


# What it is ---------------------------------------------------------------------------------------------------------------------


def test_page_is_whole_and_loads_nothing(reports: Reports) -> None:
    folder = reports("pass")
    html = html_in(folder)
    page = Page(html)
    assert page.open == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = page.values("href") + page.values("xlink:href") + page.values("src")
    assert all(target.startswith(("#", "data:")) or (folder / "report" / target).is_file() for target in targets)
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)
    assert not re.search(r"https?://|url\((?!#)|@import", html)
    assert "default-src 'none'" in page.values("content")[0]


def test_every_figure_has_a_picture_beside_it_and_words_instead_of_it(reports: Reports) -> None:
    page = Page(html_in(reports("pass")))
    figures = {name.removeprefix("figure-") for name in page.values("id") if re.fullmatch(r"figure-[a-z].*", name)}
    pictures = {path.stem for path in (reports("pass") / "report").glob("*.png")}
    assert {"accuracy-by-effort", "accuracy-by-tokens", "accuracy-by-language", "training-loss", "outcomes"} <= pictures
    assert pictures <= figures
    drawings = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("role") == "img"]
    assert all(len(str(attrs["aria-label"])) > 20 for attrs in drawings)


def test_equal_runs_give_equal_files(tmp_path: Path, reports: Reports) -> None:
    written(made_up("pass"), tmp_path)
    assert files_in(tmp_path) == files_in(reports("pass"))


def test_failed_rendering_leaves_the_old_report_alone(tmp_path: Path, reports: Reports) -> None:
    shutil.copytree(reports("pass"), tmp_path, dirs_exist_ok=True)
    run = made_up("pass")
    with pytest.raises(KeyError):
        written(dataclasses.replace(run, samples=run.samples.drop(columns="completion")), tmp_path)
    assert files_in(tmp_path) == files_in(reports("pass"))


def test_pictures_of_an_earlier_report_do_not_stay(tmp_path: Path, reports: Reports) -> None:
    shutil.copytree(reports("pass"), tmp_path, dirs_exist_ok=True)
    written(fabricate_zero_run(tmp_path), tmp_path)
    assert not (tmp_path / "report" / "training-loss.png").exists()


def test_report_needs_neither_torch_nor_matplotlib_to_be_imported() -> None:
    code = "import sys, bench.report; sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parent.parent).returncode == 0


def test_a_page_over_a_hundred_thousand_samples_stays_small_but_for_the_answers_it_carries(tmp_path: Path) -> None:
    run = made_up("pass")
    times = -(-100_000 // len(run.samples))
    parts = [run.samples.assign(item_id=run.samples["item_id"] + f"/{copy}") for copy in range(times)]
    run = dataclasses.replace(run, samples=pd.concat(parts, ignore_index=True))
    html = written(run, tmp_path)
    carried = sum(map(len, re.findall(r'<script type="application/gzip".*?</script>', html, re.DOTALL)))
    assert len(html) - carried < 2_000_000
    assert carried < 100 * len(run.samples)


# What it quotes -----------------------------------------------------------------------------------------------------------------


def hostile_run() -> Run:
    """A run in which every text that a model or a user can write is an attack."""
    run = made_up("invalid")
    good = made_up("pass")
    assert run.verdict is not None
    samples = good.samples.copy()
    for column in ("completion", "answer", "target"):
        samples[column] = pd.Series(HOSTILE, index=samples.index, dtype=object)
    evidence = {"by_language": {HOSTILE: {"delta": 0.1, "se": 0.1, "holm_p": 1.0}}, "selected_on": HOSTILE, HOSTILE: HOSTILE}
    gates = tuple(dataclasses.replace(gate, name=HOSTILE, reasons=(HOSTILE,), evidence=evidence) for gate in run.verdict.gates)
    return dataclasses.replace(
        good,
        samples=samples,
        failed_arms={HOSTILE: HOSTILE},
        experiment=good.experiment.model_copy(update={"name": HOSTILE}),
        environment=dataclasses.replace(good.environment, cpu=HOSTILE, packages={HOSTILE: HOSTILE}, started_at=HOSTILE),
        verdict=RunVerdict("invalid", 4, gates),
        command=HOSTILE,
        retries=(Retry(HOSTILE, HOSTILE),),
    )


def test_hostile_text_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    html = written(hostile_run(), tmp_path)
    page = Page(html)
    assert page.open == []
    assert all(attrs == {} or attrs["type"] == "application/gzip" for tag, attrs in page.tags if tag == "script")
    assert not [attrs for tag, attrs in page.tags if tag == "img" or any(name.startswith("on") for name in attrs)]
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in html
    assert "\u27e8U+202E\u27e9evil\u27e8U+0000\u27e9" in page.text


def test_hostile_text_stays_text_in_markdown_and_xml(tmp_path: Path) -> None:
    written(hostile_run(), tmp_path)
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<|(?<!\\)\]\(java|@all", summary)
    case = ElementTree.parse(tmp_path / "junit.xml").find(".//testcase")
    assert case is not None
    assert case.attrib["name"].startswith("<script>alert(1)</script>")


def test_a_megabyte_of_completion_is_cut_and_says_so(tmp_path: Path) -> None:
    run = made_up("fail")
    long = "<|channel|>analysis<|message|>" + "x" * 1_000_000
    samples = run.samples.assign(completion=pd.Series(long, index=run.samples.index, dtype=object))
    html = written(dataclasses.replace(run, samples=samples), tmp_path)
    assert "more characters)" in html
    assert len(html) < 1_500_000


def test_changed_answers_stand_side_by_side_with_their_question(tmp_path: Path) -> None:
    run = made_up("fail")
    record = {"messages": [{"role": "user", "content": "How many <b>apples</b>?"}]}
    lines = [json.dumps(record | {"prompt_hash": name}) for name in run.samples["prompt_hash"].unique()]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines) + '\n{"prompt_hash": "torn', encoding="utf-8")
    page = Page(written(run, tmp_path))
    assert "How many <b>apples</b>?" in page.text
    assert page.text.count("expected") == sum(
        min(10, int(total)) for total in re.findall(r"(?:Right to wrong|Wrong to right) (\d+)", page.text)
    )


def test_channels_are_read_from_raw_text_and_malformed_text_is_shown_raw() -> None:
    reply = "<|channel|>analysis<|message|>2 + 2 = 4<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>"
    assert channels(reply) == (("analysis", "2 + 2 = 4"), ("final", "4"))
    assert channels("<|channel|>analysis<|message|>cut sho") == (("analysis", "cut sho"),)
    assert channels("no channels") == (("raw", "no channels"),)
    assert channels("") == (("raw", "(nothing was generated)"),)


# Numbers in words ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_no_number_is_unknown_in_every_unit(value: float | None) -> None:
    shown = {words.share(value), words.count(value), words.decimal(value), words.seconds(value), words.size(value)}
    assert shown | {words.change("accuracy", value), words.level("latency_s", value)} == {"unknown"}


def test_numbers_carry_typographic_signs_and_units() -> None:
    assert words.share(0.972) == "97.2\u00a0%"
    assert words.change("accuracy", -0.012) == "\u22121.2\u00a0points"
    assert words.change("output_tokens", 3.14) == "+3.1\u00a0tokens"
    assert words.change("latency_s", 0.0124) == "+12\u00a0ms"
    assert words.change("accuracy", -0.0001) == "0.0\u00a0points"
    assert words.size(1.5 * 2**30) == "1.50\u00a0GiB"
    assert words.seconds(600) == "10.0\u00a0min"


# Files beside the page ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "child", "kind"),
    [("fail", "failure", "fail"), ("inconclusive", "failure", "inconclusive"), ("invalid", "error", "invalid")],
)
def test_junit_tells_fail_inconclusive_and_invalid_apart(verdict: VerdictName, child: str, kind: str, reports: Reports) -> None:
    run = made_up(verdict)
    assert run.verdict is not None
    suite = ElementTree.parse(reports(verdict) / "junit.xml").getroot()[0]
    assert suite.attrib["tests"] == str(len(run.verdict.gates))
    found = suite.find(f"testcase[@name='accuracy']/{child}")
    assert found is not None
    assert found.attrib["type"] == kind
    assert found.text == "\n".join(run.verdict.gates[0].reasons)


def test_a_waiver_is_told_on_the_page_in_markdown_and_in_junit(tmp_path: Path) -> None:
    run = made_up("fail")
    assert run.verdict is not None
    waived = waive(run.verdict, ["accuracy"], "agreed with <b>@owner</b>")
    write_report(dataclasses.replace(run, folder=tmp_path, verdict=waived))
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.attrib["failures"], suite.attrib["errors"], suite.attrib["skipped"]) == ("0", "0", "1")
    skipped = suite.find("testcase[@name='accuracy']/skipped")
    assert skipped is not None
    assert skipped.attrib["message"] == "waived, the verdict stays fail: agreed with <b>@owner</b>"
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert f"{words.VERDICTS['fail']}, waived" in summary
    assert "its verdict stays fail: agreed with" in summary
    assert "<b>" not in summary
    assert "@owner" not in summary
    assert words.VERDICTS["fail"] in summary.splitlines()[0]
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Waived: agreed with &lt;b&gt;@owner&lt;/b&gt;" in page


def test_junit_says_what_the_gate_said() -> None:
    """The message is the verdict and its first reason, word for word as in verdict.json."""
    run = made_up("fail")
    assert run.verdict is not None
    failure = ElementTree.fromstring(render_junit(run)).find("testsuite/testcase[@name='accuracy']/failure")
    assert failure is not None
    assert failure.attrib["message"] == f"fail: {run.verdict.gates[0].reasons[0]}"


EVERY_KIND = [
    {"name": "accuracy", "metric": "accuracy", "effort": "high", "margin": 0.05},
    {"name": "relative", "metric": "accuracy", "effort": "high", "margin": 0.04, "relative": True},
    {"name": "medium", "metric": "accuracy", "effort": "medium", "margin": 0.05, "after": "relative"},
    {"name": "languages", "metric": "accuracy", "effort": "high", "type": "language_guard", "margin": 0.08},
    {"name": "tokens", "metric": "output_tokens", "effort": "high", "type": "max_ratio", "margin": 0.10},
    {"name": "latency", "metric": "latency_s", "effort": "high", "type": "max_ratio", "margin": 0.10, "required": False},
]


def test_every_kind_of_gate_has_its_place_on_the_page_in_markdown_and_in_junit(tmp_path: Path) -> None:
    asked = parse_experiment(fabricate_experiment().model_dump(mode="json") | {"gates": EVERY_KIND, "vram": {"repeats": 1}}, "a test")
    made = dataclasses.replace(fabricate_run(tmp_path, "fail", select_problems=10, gpu=True), experiment=asked)
    run = dataclasses.replace(made, verdict=judge_run(made))
    assert run.verdict is not None
    assert {gate.name: gate.verdict for gate in run.verdict.gates} == {
        "accuracy": "fail", "relative": "fail", "medium": "inconclusive", "languages": "pass", "tokens": "pass", "latency": "invalid",
        "vram": "pass",
    }  # fmt: skip
    write_report(run)
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot()[0].findall("testcase")
    children = [[child.tag for child in case] for case in cases]
    assert [case.attrib["name"] for case in cases] == [gate.name for gate in run.verdict.gates]
    assert children == [["failure"], ["failure"], ["failure"], ["system-out"], ["system-out"], ["skipped"], ["system-out"]]
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "INVALID, not required" in summary
    assert "INCONCLUSIVE, not tested" in summary
    assert "4\u00a0% of base\u2019s level" in summary
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for words_of in ("geometric mean ratio", "timing blocks are too few", "peak memory stays within", "no language may be shown", "13.40"):
        assert words_of in page, words_of
    assert "no gate looks at it" in page  # at low effort


def test_junit_of_a_pass_has_no_failures(reports: Reports) -> None:
    suite = ElementTree.parse(reports("pass") / "junit.xml").getroot()[0]
    assert (suite.attrib["failures"], suite.attrib["errors"], suite.attrib["tests"]) == ("0", "0", "2")


@pytest.mark.parametrize("verdict", VERDICTS)
def test_summary_has_the_verdict_a_table_and_one_picture(verdict: VerdictName, reports: Reports) -> None:
    folder = reports(verdict)
    summary = (folder / "summary.md").read_text(encoding="utf-8")
    assert words.VERDICTS[verdict] in summary.splitlines()[0]
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", summary)
    assert len(pictures) == 1
    assert (folder / pictures[0]).is_file()
    for table in re.findall(r"(?:^\|.*\n)+", summary, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


# In a real browser --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [False, True])
def test_browser_opens_the_page_without_errors_requests_or_overflow(
    browser: Browser, attack: bool, tmp_path: Path, reports: Reports
) -> None:
    folder = tmp_path if attack else reports("pass")
    if attack:
        written(hostile_run(), folder)
    page = folder / "report" / "index.html"
    for width in (390, 1280):
        browser.open(page, width, dark=width == 390)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate("document.querySelectorAll('#verdict').length") == 1
        assert browser.complaints() == []
        assert browser.requests() == [page.as_uri()]


def test_table_sorts_and_copies_in_a_browser(browser: Browser, reports: Reports) -> None:
    browser.open(reports("pass") / "report" / "index.html", 1280)
    column = "[...document.querySelectorAll('#selection-table tbody tr')].map(row => Number(row.cells[2].dataset.raw))"
    click = "document.querySelectorAll('#selection-table th button')[2].click()"
    browser.evaluate(click)
    rising = browser.evaluate(column)
    browser.evaluate(click)
    assert rising == sorted(rising)
    assert browser.evaluate(column) == rising[::-1]
    browser.evaluate("navigator.clipboard.writeText = async text => { window.copied = text }")
    browser.evaluate("document.querySelector('#selection button[data-copy=csv]').click()")
    beside = ("", ", 95 % from", ", 95 % to", ", problems")
    numbers = [f'"{name}{part}"' for name in ("reasoning in the asked language", "accuracy", "accuracy lost") for part in beside]
    assert browser.evaluate("window.copied.split('\\n')[0]") == ",".join(['"arm"', *numbers, '"taken"', '"why not"'])
    browser.evaluate("document.querySelector('#selection button[data-copy=md]').click()")
    assert browser.evaluate("window.copied.split('\\n')[1]") == f"| --- |{' ---: |' * 9} --- | --- |"
    assert browser.complaints() == []


def test_experiment_file_downloads_as_it_was_run(browser: Browser, reports: Reports) -> None:
    browser.open(reports("pass") / "report" / "index.html", 1280)
    address = browser.evaluate("document.querySelector('a[download]').href")
    text = base64.b64decode(address.partition("base64,")[2]).decode()
    assert "name: embedded" in text
    assert "margin: 0.05" in text


def test_each_phase_of_a_training_has_its_cost_and_a_failed_arm_what_it_reached(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, select_problems=20, gate_problems=120, gpu=True)
    segments = [TrainingPhase("load", 12.5, peak_vram_bytes=2**34), TrainingPhase("steady", None, steps=3, peak_vram_bytes=2**36)]
    trained = next(iter(run.training.values()))
    failed = dataclasses.replace(trained, status="failed", phases=phase_records(segments))
    phased = dataclasses.replace(run, training={trained.arm: failed})
    table = training_phases(phased)
    assert table is not None
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert [row[2].text for row in table.rows] == ["load", "steady steps"]
    titles = [column.title for column in table.columns]
    assert [row[titles.index("allocated")].text for row in table.rows] == ["16.00\u00a0GiB", "64.00\u00a0GiB"]
    assert [row[titles.index("step")].text for row in table.rows] == [words.MISSING, words.UNKNOWN]
    assert {row[0].small for row in table.rows} == {"failed"}
    assert 'id="training-phases"' in written(phased, tmp_path / "page")
    assert training_phases(run) is None


def test_the_training_table_tells_how_the_base_lay_in_memory_and_what_did_not_fit(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, select_problems=20, gate_problems=120, gpu=True)
    one, other, *_ = run.training.values()
    strange = dataclasses.replace(one, load_report={"missing": 0, "unexpected": 3, "mismatched": 0})
    old = dataclasses.replace(other, layout=None, load_report={}, gradient_checkpointing=None)
    table = training(dataclasses.replace(run, training={**run.training, one.arm: strange, other.arm: old}))
    assert table is not None
    at = [column.title for column in table.columns].index("layout")
    shown = [(row[at].text, row[at].small) for row in table.rows]
    assert shown[0] == ("nf4-per-expert", "checkpointing unsloth; keys: 3\u00a0unexpected")
    assert shown[1] == (words.UNKNOWN, "")
    assert shown[2] == ("nf4-per-expert", "checkpointing unsloth; keys: all in place")


def test_dark_and_print_styles_are_of_their_own(browser: Browser, reports: Reports) -> None:
    page = reports("pass") / "report" / "index.html"
    colour = "getComputedStyle(document.body).backgroundColor"
    browser.open(page, 1280)
    light = browser.evaluate(colour)
    browser.open(page, 1280, dark=True)
    dark = browser.evaluate(colour)
    assert light != dark
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 100
    browser.page.emulate_media(media="print", color_scheme="dark")
    assert browser.evaluate(colour) == "rgb(255, 255, 255)"
    for hidden in ("nav", ".copy", "#answers"):
        assert browser.evaluate(f"getComputedStyle(document.querySelector({hidden!r})).display") == "none"
    for shown in ("#verdict", "#flips", "#provenance", "figure svg"):
        assert browser.evaluate(f"getComputedStyle(document.querySelector({shown!r})).display") != "none"
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("[...document.querySelectorAll('details.flip')].every((one) => one.open)")
    browser.page.emulate_media(media="screen")


def test_keyboard_reaches_what_a_mouse_reaches(browser: Browser, reports: Reports) -> None:
    browser.open(reports("pass") / "report" / "index.html", 1280)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(400):
        browser.press("Tab")
        seen.add(browser.evaluate("(({id, className, tagName, name}) => id || name || className || tagName)(document.activeElement)"))
        if {"answers-list", "answers-detail"} <= seen:
            break
    assert {"sort", "scroll", "arm", "search", "answers-list", "answers-detail"} <= seen
    browser.evaluate("document.querySelector('#selection-table .sort').focus()")
    browser.press("Enter")
    assert browser.evaluate("document.querySelector('#selection-table th').getAttribute('aria-sort')") == "ascending"


def test_levels_carry_their_interval_and_number_of_problems(reports: Reports) -> None:
    html = html_in(reports("pass"))
    gates = re.search(r'<table id="gates-table">.*?</table>', html, re.DOTALL)
    assert gates is not None
    assert len(re.findall(r'title="95 % interval [^"]*; 120\u00a0problems"', gates.group())) == 6  # before, after and change, two gates
    selection = re.search(r'<table id="selection-table">.*?</table>', html, re.DOTALL)
    assert selection is not None
    assert len(re.findall(r'title="95 % interval [^"]*; 20\u00a0problems"', selection.group())) == 12  # three numbers of four arms
    assert '>stories@gate</span><span class="small">120\u00a0problems</span>' in html


def test_provenance_says_how_to_get_there_and_what_is_not_known(reports: Reports) -> None:
    page = Page(html_in(reports("pass"))).text
    assert "git checkout 0f3c9a1be2d47765c1b2f7f2bb1d4bb0a7be9f10 effortbench bench embedded" in page
    assert re.search(r"Noise floor Unknown: no canary was asked again", page)
