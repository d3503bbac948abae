"""Readers of what others wrote, on generated rubbish: each takes it, or refuses it in one line, and never raises anything else.

A few hundred inputs each by default, thousands in `tox -e faults`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fabricated import fabricate_run
from hostile import PIECES
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_store import sample

from bench.answers import extract_choice, extract_number, same_number
from bench.errors import EffortbenchError, ExperimentError, RunFolderError, SuiteError
from bench.experiment import load_experiment, parse_yaml
from bench.harmony import decoder, find_specials, parse
from bench.judging import judge_run
from bench.models import EMBEDDED, load_tokenizer
from bench.store import RunFolder, load_run, read_prompts, write_verdict
from bench.taskfile import read_task

INPUTS = [pytest.param(200, id="some"), pytest.param(5000, id="many", marks=pytest.mark.faults)]


def fuzz(inputs: int, strategy: st.SearchStrategy[object], check: Callable[..., None]) -> None:
    """Check so many inputs; the same ones every time, so that a failure is not lost."""
    bounded = settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    bounded(given(strategy)(check))()


def refuses_in_one_line(call: Callable[[], object], *kinds: type[EffortbenchError]) -> None:
    """Whatever else is raised goes through."""
    said = ""
    try:
        call()
    except kinds as error:
        said = str(error)
    assert "\n" not in said


YAML = (
    *"{}[]:#'\\\t\n\x00\x85\ufeff\ud800",
    *(": ", "- ", "\n  ", "\n    ", "? ", "| ", "> ", "&a ", "*a", "<<: ", "%YAML 1.1\n", "---\n", "...\n", '"'),
    *("!!int ", "!!python/object:os.system ", "!function ", "!!binary ", "!!set ", "!!timestamp "),
    *("name", "model", "evaluate", "task", "include", "1e999", "0x", "0o7", "1_000", ".inf", ".nan", "~", "null", "9" * 5000),
)
YAML_TEXTS = st.lists(st.sampled_from(YAML) | st.text(max_size=4), max_size=30).map("".join)


@pytest.mark.parametrize("inputs", INPUTS)
def test_any_yaml_is_a_mapping_or_refused(inputs: int) -> None:
    fuzz(inputs, YAML_TEXTS, lambda text: refuses_in_one_line(lambda: parse_yaml(text, "fuzz"), ExperimentError))


@pytest.mark.parametrize("inputs", INPUTS)
def test_any_file_is_an_experiment_or_refused(tmp_path: Path, inputs: int) -> None:
    shipped = (Path(__file__).parent.parent / "bench" / "experiments" / "embedded.yaml").read_bytes()

    def check(damage: list[tuple[int, bytes]]) -> None:
        (tmp_path / "fuzz.yaml").write_bytes(damaged(shipped, damage))
        refuses_in_one_line(lambda: load_experiment(str(tmp_path / "fuzz.yaml")), ExperimentError)

    fuzz(inputs, DAMAGE, check)


@pytest.mark.parametrize("inputs", INPUTS)
def test_any_task_file_is_a_task_or_refused(tmp_path: Path, inputs: int) -> None:
    def check(text: str) -> None:
        (tmp_path / "task.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
        refuses_in_one_line(lambda: read_task(tmp_path / "task.yaml"), SuiteError)

    fuzz(inputs, YAML_TEXTS | YAML_TEXTS.map("task: a\ntest_split: b\n{}".format), check)


DAMAGE = st.lists(
    st.tuples(st.integers(0, 10**9), st.binary(max_size=6) | st.sampled_from([b"null", b"-1", b"[]", b"{}", b'"', b"\n"])), max_size=4
)
"""Places, in any file's length, and what stands there instead."""


def damaged(data: bytes, damage: list[tuple[int, bytes]]) -> bytes:
    for place, put in damage:
        at = place % (len(data) + 1)
        data = data[:at] + put + data[at + place % 9 :]
    return data


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with samples, prompts, training records and a verdict."""
    run = fabricate_run(tmp_path_factory.mktemp("made"), None, select_problems=2, gate_problems=2)
    folder = tmp_path_factory.mktemp("recorded") / "run"
    with RunFolder.create(folder, run.experiment, run.environment, run.command) as writer:
        writer.phases, writer.selection, writer.comparisons = list(run.phases), run.selection, list(run.comparisons)
        cells = list(run.cells)[:3]
        writer.open_cells(cells)
        for number, cell in enumerate(cells * 2):
            writer.add_sample(sample(number, cell.id))
        writer.add_prompt("abc", "What is 2 + 2?")
        for training in run.training.values():
            writer.save_training(training)
    write_verdict(folder, judge_run(run))
    return folder


@pytest.mark.parametrize("inputs", INPUTS)
def test_any_damage_to_a_run_folder_is_read_over_or_refused(tmp_path: Path, recorded: Path, inputs: int) -> None:
    folder = Path(shutil.copytree(recorded, tmp_path / "run"))
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl"))
    assert {path.name for path in files} >= {"run.json", "prompts.jsonl", "verdict.json"}
    assert len(files) > 6
    whole = {path: path.read_bytes() for path in files}
    load_run(folder)

    def check(drawn: tuple[int, list[tuple[int, bytes]]]) -> None:
        path = files[drawn[0] % len(files)]
        path.write_bytes(damaged(whole[path], drawn[1]))
        refuses_in_one_line(lambda: (load_run(folder), list(read_prompts(folder))), RunFolderError)
        path.write_bytes(whole[path])

    fuzz(inputs, st.tuples(st.integers(0, 99), DAMAGE), check)


@pytest.mark.parametrize("inputs", INPUTS)
def test_any_tokens_are_a_reply(inputs: int) -> None:
    """Also those of the model's own vocabulary that no message may hold; no token is counted twice."""
    tokenizer = load_tokenizer(EMBEDDED)
    specials, decode = find_specials(tokenizer), decoder(tokenizer)
    named = st.sampled_from(sorted(tokenizer.all_special_ids + list(specials.stop_ids)))

    def check(tokens: list[int]) -> None:
        reply = parse(tokens, specials, decode)
        assert reply.output_tokens == len(tokens) >= reply.reasoning_tokens + reply.final_tokens

    fuzz(inputs, st.lists(named | st.integers(0, len(tokenizer) - 1), max_size=80), check)


@pytest.mark.parametrize("inputs", INPUTS)
def test_any_text_has_an_answer_or_none(inputs: int) -> None:
    def check(text: str) -> None:
        number = extract_number(text, "en")
        assert number is None or same_number(number, number)
        assert extract_choice(text, "de") in (None, *"ABCD")

    fuzz(inputs, st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=60).map("".join), check)
