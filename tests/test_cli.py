"""The command line: exit codes that a pipeline trusts, one line for what is wrong, and nothing half-written."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from busy import allowed_s, slowdown
from fabricated import ACCURACY, fabricate_environment, fabricate_experiment, fabricate_run, fabricate_samples
from test_store import plain, write_run

from bench import cli
from bench.experiment import parse_experiment
from bench.models import EMBEDDED, expert_layout, load_checked
from bench.records import EXIT_CODES, CellId, CellRecord, Sample, Selection, VerdictName
from bench.store import RunFolder, cell_file, load_run

BASE_ONLY = ["--set", "finetune=null", "--set", "select=null", "--set", "confirm=null", "--set", "gates=[]"]


def effortbench(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


class Answer:
    """What a command said and how it ended."""

    def __init__(self, code: object, out: str, err: str):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["effortbench", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Answer(ended.value.code, *capsys.readouterr())

    return run


def assert_one_line(answer: Answer | subprocess.CompletedProcess[str], *expected: str) -> None:
    """Exit code 2, one line on standard error, none on standard output."""
    if isinstance(answer, subprocess.CompletedProcess):
        answer = Answer(answer.returncode, answer.stdout, answer.stderr)
    assert answer.code == 2, answer.err
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1, answer.err
    assert "Traceback" not in answer.err
    assert all(part in answer.err for part in expected), answer.err


# --- in a process of its own


@pytest.mark.parametrize("command", [["effortbench"], [sys.executable, "-m", "bench"]], ids=["effortbench", "python -m bench"])
def test_help_works_and_needs_no_heavy_library(command: list[str], tmp_path: Path) -> None:
    if command == ["effortbench"]:
        command = [str(Path(sys.executable).with_name("effortbench"))]
    for library in ("torch", "transformers", "matplotlib", "lm_eval", "pandas", "scipy"):
        (tmp_path / f"{library}.py").write_text("raise SystemExit('imported ' + __name__)", encoding="utf-8")
    done = subprocess.run(
        [*command, "--help"], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("run", "bench", "gate", "report", "suites", "export"):
        assert name in done.stdout


def test_no_command_shows_help_and_is_a_usage_error(tmp_path: Path) -> None:
    done = effortbench(cwd=tmp_path)
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_experiment_in_a_real_process(tmp_path: Path) -> None:
    assert_one_line(effortbench("run", "nope", cwd=tmp_path), "no experiment 'nope'", "embedded")
    assert list(tmp_path.iterdir()) == []


def test_a_pickled_model_in_a_real_process(tmp_path: Path) -> None:
    model = Path(shutil.copytree(EMBEDDED, tmp_path / "model"))
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    done = effortbench("bench", "embedded", "--out", "run", "--set", "model.id=./model", cwd=tmp_path)
    assert_one_line(done, "no *.safetensors file", "refused")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


BROKEN = """
import os, sys
from bench import cli
from bench.errors import UsageError

@cli.app.command()
def broken():
    raise (UsageError if "--help-me" in os.environ["KIND"] else RuntimeError)(f"refused [bold]{os.environ['HF_TOKEN']}")

sys.argv = ["effortbench", "broken"]
cli.main()
"""


@pytest.mark.parametrize(("kind", "code"), [("a bug", 70), ("--help-me", 2)])
def test_an_error_of_any_kind_tells_no_key(kind: str, code: int) -> None:
    environment = {**os.environ, "HF_TOKEN": "hf_FakeTokenOfATest", "KIND": kind}
    done = subprocess.run([sys.executable, "-c", BROKEN], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "refused [bold][HF_TOKEN]" in done.stderr
    assert "FakeTokenOfATest" not in done.stderr
    assert ("Traceback (most recent call last)" in done.stderr) is (code == 70)


def samples_in(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("cells/**/*.jsonl"))


@pytest.mark.slow
def test_ctrl_c_ends_a_real_run_within_two_seconds_and_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = ["run", "embedded", "--out", "run", *BASE_ONLY, "--set", "evaluate.languages=[en]", "--set", "evaluate.slots=1"]
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        give_up = time.monotonic() + 120
        while samples_in(tmp_path / "run") < 3 and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.02)
        busy = slowdown()
        interrupted = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        took = time.monotonic() - interrupted
    assert process.returncode == 130, out + err
    assert took < allowed_s(2, busy)
    assert "--resume" in err
    assert "Traceback" not in err
    run = load_run(tmp_path / "run")
    kept = len(run.samples)
    assert not run.finished
    assert kept >= 3
    with RunFolder.reopen(run.folder, run.experiment, run.environment, run.command) as folder:
        assert len(folder.open_cells(list(run.cells))) == kept


# --- bad input


def pickled() -> str:
    model = Path(shutil.copytree(EMBEDDED, "pickled"))
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    return "pickled"


def mute() -> str:
    """A model whose tokenizer is not Harmony's."""
    model = Path(shutil.copytree(EMBEDDED, "mute"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (model / name).read_text(encoding="utf-8")
        (model / name).write_text(text.replace("<|channel|>", "<|chanel|>"), encoding="utf-8")
    return "mute"


BAD_RUNS: list[tuple[list[str], tuple[str, ...]]] = [
    (["nope"], ("no experiment 'nope'", "embedded")),
    (["nope.yaml"], ("no experiment 'nope.yaml'",)),
    (["embedded", "--set", "finetune.rank=8"], ("finetune.rank: unknown key",)),
    (["embedded", "--set", "finetune.ranks=[0]"], ("finetune.ranks.0", "greater than or equal to 1")),
    (["embedded", "--set", "finetune.steps=[]"], ("finetune.steps", "at least 1")),
    (["embedded", "--set", "evaluate.efforts=[turbo]"], ("found 'turbo'",)),
    (["embedded", "--set", "nonsense"], ("expected key=value",)),
    (["embedded", "--set", "evaluate.suites=[nope]", *BASE_ONLY], ("no suite 'nope'", "stories")),
    (["embedded", "--set", "evaluate.languages=[xx]"], ("suite stories has no language xx", "en, de, fr, es, it")),
    (["embedded", "--set", "confirm.split=test"], ("suite stories has no split 'test'", "dev, select, gate")),
    (
        ["embedded", "--set", "evaluate.suites=[stories,stories_plain]", "--set", "confirm={suite: stories_plain, split: select}"],
        ("same problems",),
    ),
    (["embedded", "--set", "model.id=./nowhere"], ("no model './nowhere'", "expected `embedded`, a folder, or a hub id")),
    (["embedded", "--set", "finetune.dataset.id=missing.jsonl"], ("no dataset missing.jsonl",)),
    (["embedded", "--set", "finetune.dataset.languages=[Latin]"], ("no reasoning_language Latin",)),
    (["embedded", "--set", "finetune.held_out_rows=5000"], ("held_out_rows is 5000", "nothing would be left")),
    (["embedded", "--set", "adapters=[{name: ours, path: nowhere}]"], ("adapter nowhere: no adapter_config.json",)),
    (["embedded", "--limit", "0"], ("--limit", "greater than or equal to 1")),
    (["embedded", "--limit", "many"], ("--limit",)),
    (["embedded", "--nope"], ("No such option: --nope",)),
    (["embedded", "--resume"], ("no unfinished run of 'embedded'", "leave out --resume, or pass --out")),
    ([], ("Missing argument",)),
]


@pytest.mark.parametrize(("arguments", "expected"), BAD_RUNS, ids=[" ".join(arguments)[:50] for arguments, _ in BAD_RUNS])
@pytest.mark.parametrize("command", ["run", "bench"])
def test_what_cannot_be_run_is_one_line_exit_2_and_nothing_written(
    call: Any, tmp_path: Path, command: str, arguments: list[str], expected: tuple[str, ...]
) -> None:
    assert_one_line(call(command, *arguments), *expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("make", "expected"), [(pickled, "no *.safetensors file"), (mute, "no special token <|channel|>")])
def test_a_model_that_cannot_be_used_is_found_out_before_anything_is_trained(call: Any, tmp_path: Path, make: Any, expected: str) -> None:
    folder = make()
    assert_one_line(call("run", "embedded", "--out", "run", "--set", f"model.id=./{folder}"), expected)
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_mgsm_without_data_and_without_the_hub_says_where_they_could_be(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EFFORTBENCH_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer = call("run", "embedded", *BASE_ONLY, "--set", "evaluate.suites=[mgsm]")
    assert_one_line(answer, "suite mgsm: no mgsm_bn.tsv", "EFFORTBENCH_DATA", "evaluate.data.mgsm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arm", "form", "expected"),
    [
        ("base", "adapter", ("no arm 'base' with an adapter", "r16-s200")),
        ("r16-s200", "adapter", ("no adapter_config.json",)),
        ("r16-s200", "gguf", ("gguf is not written here", "llama.cpp")),
        ("r16-s200", "mxfp4", ("mxfp4 is not written here", "llm-compressor")),
        ("r16-s200", "int8", ("--format", "merged-16bit")),
    ],
)
def test_what_cannot_be_saved_is_one_line_exit_2(call: Any, tmp_path: Path, arm: str, form: str, expected: tuple[str, ...]) -> None:
    with RunFolder.create(tmp_path / "run", fabricate_experiment(), fabricate_environment(), ""):
        pass
    assert_one_line(call("save", "run", arm, "--format", form, "--out", "saved"), *expected)
    assert not (tmp_path / "saved").exists()


def test_a_base_that_is_not_there_is_one_line_exit_2(call: Any, tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", fabricate_experiment(), fabricate_environment(), ""):
        pass
    adapter = tmp_path / "run" / "adapters" / "r16-s200"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    (adapter / "adapter_model.safetensors").touch()
    answer = call("save", "run", "r16-s200", "--format", "merged-16bit", "--out", "saved", "--base", "nowhere")
    assert_one_line(answer, "nowhere: no config.json; expected the folder of a transformers model")
    assert not (tmp_path / "saved").exists()


def test_fabricate_writes_a_model_that_loads(call: Any, tmp_path: Path) -> None:
    answer = call("fabricate", "--shape", "tiny", "--format", "mxfp4", "--out", "model")
    assert (answer.code or 0, "of random weights" in answer.out, "text spelled in bytes" in answer.out) == (0, True, True)
    assert expert_layout(load_checked(tmp_path / "model", "bfloat16")) == "bfloat16"


def test_a_missing_option_with_choices_is_one_line_exit_2(call: Any) -> None:
    """Typer lists the choices one a line."""
    assert_one_line(call("fabricate"), "Missing option '--shape'", "gpt-oss-120b, tiny")


@pytest.mark.parametrize(
    "options",
    [(), ("--out", "model", "--in-memory"), ("--in-memory", "--format", "mxfp4")],
    ids=["neither folder nor memory", "both", "in memory in another layout than bf16"],
)
def test_fabricate_without_one_way_to_go_is_one_line_exit_2(call: Any, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert_one_line(call("fabricate", "--shape", "tiny", *options), "give either --out FOLDER, or --in-memory with --format bf16")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_touched_without_resume(call: Any, tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", fabricate_experiment(), fabricate_environment(), ""):
        pass
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert_one_line(call("run", "embedded", *BASE_ONLY, "--out", "run"), "exists already: pass --resume")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_run_of_another_experiment_is_not_gone_on_with(call: Any, tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", fabricate_experiment(name="other"), fabricate_environment(), ""):
        pass
    answer = call("run", "embedded", *BASE_ONLY, "--out", "run", "--resume")
    assert_one_line(answer, "holds experiment 'other', not 'embedded'")
    assert (tmp_path / "run" / "run.json").exists()


def test_a_folder_of_other_things_is_not_gone_on_with(call: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work", encoding="utf-8")
    assert_one_line(call("run", "embedded", *BASE_ONLY, "--out", "run", "--resume"), "is no run folder: pass another --out")
    assert (tmp_path / "run" / "thesis.tex").read_text(encoding="utf-8") == "years of work"


@pytest.mark.parametrize("command", ["gate", "report", "export"])
@pytest.mark.parametrize("what", ["nothing", "an empty folder", "a file", "a damaged run"])
def test_a_folder_that_is_no_run_is_one_line(call: Any, tmp_path: Path, command: str, what: str) -> None:
    path = tmp_path / "run"
    if what == "a file":
        path.write_text("", encoding="utf-8")
    elif what != "nothing":
        path.mkdir()
    if what == "a damaged run":
        (path / "run.json").write_text('{"schema": 1', encoding="utf-8")
    assert_one_line(call(command, "run"), "run.json is damaged" if what == "a damaged run" else "is not a run folder")


def test_an_unknown_command_is_one_line(call: Any) -> None:
    assert_one_line(call("judge"), "No such command 'judge'", "--help")


def test_markup_in_what_the_user_gave_is_shown_not_obeyed(call: Any) -> None:
    assert_one_line(call("run", "[red]nope[/red]"), "'[red]nope[/red]'")


# --- what works


def test_suites_lists_every_suite(call: Any) -> None:
    answer = call("suites")
    assert answer.code == 0
    for name in ("stories", "stories_plain", "mgsm"):
        assert name in answer.out


def test_suites_tells_item_counts_licence_and_pinned_data(tmp_path: Path) -> None:
    done = effortbench("suites", cwd=tmp_path, COLUMNS="200")
    assert done.returncode == 0
    rows = {name: block for block in done.stdout.split("├") for name in ("belebele", "mmlu_prox", "stories ") if f"│ {name}" in block}
    for text in ("test 900", "CC BY-SA 4.0", "facebook/belebele", "@7899cdfa4e1e"):
        assert text in rows["belebele"]
    for text in ("test 11,759", "MIT", "li-lab/MMLU-ProX"):
        assert text in rows["mmlu_prox"]
    for text in ("dev 60", "Apache-2.0", "own rows"):
        assert text in rows["stories "]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small made-up run in its folder, not judged."""
    run = fabricate_run(tmp_path_factory.mktemp("recorded") / "run", select_problems=2, gate_problems=2)
    write_run(dataclasses.replace(run, verdict=None), run.folder)
    return run.folder


def record_finalists(
    path: Path, accuracy: tuple[float, float, float], chosen: str | None = "r16-s200", against: str = "base", year: int = 2026
) -> None:
    """A run that has come as far as the gate: base and the chosen arm on 250 problems at high effort."""
    data = fabricate_experiment().model_dump(mode="json")
    data["gates"] += [{**data["gates"][0], "name": "drift", "against": against}] if against != "base" else []
    data["evaluate"]["efforts"] = ["medium", "high"]
    environment = dataclasses.replace(fabricate_environment(), started_at=f"{year}-01-15T09:30:00+00:00")
    selection = Selection(chosen, "stories", "select", "medium", "reasoning_language_fidelity", ())
    samples = fabricate_samples(("base", "r16-s200"), "stories", "gate", 250, {"base": ACCURACY["base"], "r16-s200": accuracy})
    samples = samples[samples["effort"] != "low"]
    with RunFolder.create(path, parse_experiment(data, "a test"), environment, "effortbench run embedded") as folder:
        cells = sorted({CellId(*cell) for cell in samples[list(CellId._fields)].itertuples(index=False)})
        folder.open_cells([CellRecord(*cell, key="key", samples=250, file=cell_file(cell)) for cell in cells])
        for row in plain(samples):
            folder.add_sample(Sample.from_dict(row))
        folder.selection = selection
        folder.suite_revisions = {"stories": "abc"}
        folder.finish()


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_export_writes_all_samples_in_three_formats(call: Any, recorded: Path, form: str) -> None:
    samples = load_run(recorded).samples
    for options, name in (([], f"samples.{form}"), (["--out", "mine"], "mine")):
        answer = call("export", str(recorded), "--format", form, *options)
        assert answer.code == 0
        assert f"{len(samples):,} samples in {name}" in answer.out
        if form == "parquet":
            pd.testing.assert_frame_equal(pd.read_parquet(name), samples)
        elif form == "csv":
            assert len(pd.read_csv(name)) == len(samples)
            assert list(pd.read_csv(name).columns) == [*samples.columns, "timing_mode"]
            assert set(pd.read_csv(name)["timing_mode"]) == {"throughput"}
        else:
            lines = Path(name).read_text(encoding="utf-8").split("\n")[:-1]
            assert [json.loads(line) for line in lines] == plain(samples)


HEAVY = {"torch", "transformers", "unsloth", "trl", "peft", "datasets", "lm_eval"}


@pytest.mark.parametrize("command", [["suites"], ["power", "embedded"], ["gate"], ["report"], ["export"], ["history"], ["runs", "list"]])
def test_commands_that_need_no_model_load_no_library_of_models(recorded: Path, tmp_path: Path, command: list[str]) -> None:
    run = shutil.copytree(recorded, tmp_path / "judged")
    arguments = [*command, *([str(run)] if command[0] in ("gate", "report", "export", "history") else [])]
    script = f"""
import sys
from bench.cli import main
sys.argv = ["effortbench", *{arguments!r}]
try:
    main()
finally:
    print("loaded", *sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.stderr.splitlines()[-1] == "loaded", ran.stderr
    assert "Traceback" not in ran.stderr


def test_export_writes_what_passes_and_cells_cost(call: Any, recorded: Path) -> None:
    run = load_run(recorded)
    for records, rows in (("phases", len(run.phases)), ("costs", len(run.cells)), ("timing", 0), ("memory", 0)):
        answer = call("export", str(recorded), "--format", "csv", "--records", records)
        assert (answer.code, f"{rows} rows of {records} in {records}.csv" in answer.out) == (0, True)
        assert len(pd.read_csv(f"{records}.csv")) == rows
    assert pd.read_csv("phases.csv")["joules_per_correct"].isna().all()
    assert pd.read_csv("costs.csv")["energy_j"].isna().all()


def test_an_exported_line_is_a_line_of_the_run_folder(call: Any, recorded: Path) -> None:
    call("export", str(recorded), "--format", "jsonl")
    exported = set(Path("samples.jsonl").read_text(encoding="utf-8").split("\n"))
    held = {line for path in recorded.glob("cells/*/*.jsonl") for line in path.read_text(encoding="utf-8").split("\n")}
    assert exported == held


def test_export_into_a_missing_folder_or_an_unknown_format_is_one_line(call: Any, recorded: Path) -> None:
    for form in ("parquet", "csv", "jsonl"):
        assert_one_line(call("export", str(recorded), "--format", form, "--out", "no/where"), "no/where cannot be written")
    assert_one_line(call("export", str(recorded), "--format", "xlsx"), "--format", "parquet")


@pytest.mark.parametrize(
    ("verdict", "accuracy"), [("pass", 0.98), ("fail", 0.86), ("inconclusive", 0.938), ("invalid", 0.98)], ids=lambda value: str(value)
)
def test_the_gates_verdict_is_the_exit_code(call: Any, tmp_path: Path, verdict: VerdictName, accuracy: float) -> None:
    record_finalists(tmp_path / "run", (0.2, 0.7, accuracy), chosen=None if verdict == "invalid" else "r16-s200")
    answer = call("gate", "run")
    assert answer.code == EXIT_CODES[verdict], answer.out
    written = json.loads((tmp_path / "run" / "verdict.json").read_text(encoding="utf-8"))
    assert (written["verdict"], written["exit_code"]) == (verdict, EXIT_CODES[verdict])
    assert f"verdict {verdict.upper()}" in answer.out
    assert list(written) == ["schema", "verdict", "exit_code", "gates"]


def test_the_console_has_a_table_of_what_each_gate_saw(call: Any, tmp_path: Path) -> None:
    record_finalists(tmp_path / "run", (0.2, 0.7, 0.98), against="baseline")
    head, accuracy, fidelity, drift, *_ = (" ".join(line.split()) for line in call("gate", "run").out.splitlines())
    assert head == "gate verdict before after change (95 % interval)"
    numbers = r"9\d\.\d\s?% 9\d\.\d\s?% \u2212\d\.\d points \(\u2212\d\.\d to [\u2212+]\d\.\d\)"
    assert re.fullmatch(f"accuracy pass {numbers}", accuracy), accuracy
    assert fidelity.startswith("reasons-in-language pass ")
    assert drift == "drift invalid \u2013 \u2013 \u2013"


def test_a_baseline_that_is_no_run_is_a_usage_error_not_a_verdict(call: Any, recorded: Path, tmp_path: Path) -> None:
    assert_one_line(call("gate", str(recorded), "--baseline", str(tmp_path / "nowhere")), "is neither a baseline nor a run folder")
    assert not (recorded / "verdict.json").exists()


def test_a_waived_gate_lets_a_release_through_and_stays_a_fail(call: Any, tmp_path: Path) -> None:
    record_finalists(tmp_path / "run", (0.2, 0.7, 0.86))
    answer = call("gate", "run", "--waive", "accuracy", "--reason", "agreed with [red]the owner[/red]")
    assert answer.code == 0
    assert "fail         accuracy: a loss of more than 5 points" in answer.out
    assert "waived       accuracy: agreed with [red]the owner[/red]" in answer.out
    assert "verdict FAIL (exit code 0, waived: accuracy)" in answer.out
    written = json.loads((tmp_path / "run" / "verdict.json").read_text(encoding="utf-8"))
    assert (written["verdict"], written["exit_code"]) == ("fail", 0)
    assert [gate["waived"] for gate in written["gates"]] == ["agreed with [red]the owner[/red]", None]
    assert call("report", "run").code == 0
    assert "Gate accuracy is waived, its verdict stays fail: agreed" in (tmp_path / "run" / "summary.md").read_text(encoding="utf-8")
    assert call("gate", "run").code == EXIT_CODES["fail"], "a waiver holds for one judgement"


@pytest.mark.parametrize("command", [("gate", "run"), ("bench", "embedded")])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--waive", "accuracy"], "--waive accuracy needs a reason"),
        (["--waive", "acuracy", "--reason", "so"], "--waive acuracy: no such gate; the experiment has accuracy, reasons-in-language"),
        (["--reason", "so"], "name the gate with --waive"),
    ],
)
def test_a_waiver_that_names_nothing_is_one_line(
    call: Any, recorded: Path, command: tuple[str, str], options: list[str], expected: str
) -> None:
    what = str(recorded) if command[0] == "gate" else command[1]
    assert_one_line(call(command[0], what, *options), expected)
    assert not (recorded / "verdict.json").exists()


def test_bench_checks_the_baselines_path_before_it_trains(call: Any, tmp_path: Path) -> None:
    assert_one_line(call("bench", "embedded", "--baseline", "nowhere"), "neither a baseline nor a run folder")
    assert list(tmp_path.iterdir()) == []


def test_a_promoted_run_judges_the_next_one(call: Any, tmp_path: Path) -> None:
    record_finalists(tmp_path / "old", (0.2, 0.7, 0.98), against="baseline", year=2025)
    record_finalists(tmp_path / "new", (0.2, 0.7, 0.86), against="baseline")
    assert_one_line(call("baseline", "promote", "old"), "has not been judged")
    judged = call("gate", "old")
    assert judged.code == EXIT_CODES["invalid"]
    assert "no baseline for embedded on cpu" in judged.out
    promoted = call("baseline", "promote", "old")
    assert (promoted.code, "reports/baselines/embedded/cpu" in promoted.out) == (0, True)
    assert_one_line(call("baseline", "promote", "old"), "say with --reason TEXT why it is replaced")
    for options in ([], ["--baseline", "reports/baselines/embedded/cpu"], ["--baseline", "old"]):
        answer = call("gate", "new", *options)
        assert answer.code == EXIT_CODES["fail"]
        assert "fail         drift: a loss of more than 5 points" in answer.out
    assert "the baseline is this very run" in call("gate", "old").out


def test_a_baseline_that_no_gate_asks_for_is_told(call: Any, tmp_path: Path) -> None:
    record_finalists(tmp_path / "run", (0.2, 0.7, 0.98))
    answer = call("gate", "run", "--baseline", "run")
    assert (answer.code, "--baseline is not used" in answer.err) == (0, True)


@pytest.mark.parametrize(("command", "goes_on"), [("bench", True), ("run", True), ("gate", False), ("report", False), ("export", False)])
def test_only_what_can_be_gone_on_with_says_so_when_interrupted(
    call: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, goes_on: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["effortbench", command, "x"])
    assert cli._interrupted() == 130
    assert ("--resume" in capsys.readouterr().err) == goes_on
