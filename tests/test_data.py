"""Fine-tuning rows: read from anywhere, refused where they are no lessons, told in Harmony."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from bench.errors import DatasetError, ModelError
from bench.experiment import Dataset, Finetune
from bench.finetune.data import conversation, languages_of, lessons, load_rows, recipe_key, split_rows
from bench.harmony import PINNED_DATE, decoder, find_specials
from bench.models import EMBEDDED, load_tokenizer

ROW = {
    "reasoning_language": "German",
    "developer": "reasoning language: German",
    "user": "Anna hat 2 Äpfel.",
    "analysis": "Wir beginnen mit 2.",
    "final": "Die Antwort ist 2.",
    "messages": [
        {"role": "system", "content": "reasoning language: German", "thinking": None},
        {"role": "user", "content": "Anna hat 2 Äpfel.", "thinking": None},
        {"role": "assistant", "content": "Die Antwort ist 2.", "thinking": "Wir beginnen mit 2."},
    ],
}


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def refusal(dataset: str, **settings: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        load_rows(Dataset(id=dataset, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- reading


def test_a_suites_training_split_is_read() -> None:
    rows = load_rows(Dataset(id="stories/train"))
    assert len(rows) == 1000
    assert {"user", "analysis", "final", "reasoning_language"} <= rows[0].keys()


def test_only_the_wanted_reasoning_languages_are_kept_in_order() -> None:
    everything = load_rows(Dataset(id="stories/train"))
    some = load_rows(Dataset(id="stories/train", languages=["French", "German"]))
    assert some == [row for row in everything if row["reasoning_language"] in ("French", "German")]
    assert len(some) == 400


def test_an_unknown_reasoning_language_names_the_known_ones() -> None:
    message = refusal("stories/train", languages=["Klingon", "German"])
    assert "no reasoning_language Klingon: it has English, French, German, Italian, Spanish" in message


def test_jsonl_parquet_and_a_folder_of_both_hold_the_same_rows(tmp_path: Path) -> None:
    rows = [ROW | {"user": f"Frage {number}\u2028"} for number in range(3)]
    write(tmp_path / "a.jsonl", *rows)
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.jsonl", *rows[:1])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[1:]), tmp_path / "folder" / "b.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet", "folder"):
        assert load_rows(Dataset(id=str(tmp_path / name))) == rows


def test_blank_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"\n{json.dumps(ROW)}\n\n  \n{json.dumps(ROW)}", encoding="utf-8")
    assert load_rows(Dataset(id=str(tmp_path / "a.jsonl"))) == [ROW, ROW]


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.parquet", "folder.jsonl", "x" * 300 + ".jsonl"])
def test_a_missing_file_is_one_line(tmp_path: Path, name: str) -> None:
    assert name in refusal(str(tmp_path / name))


def test_a_folder_without_rows_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n", encoding="utf-8")
    assert "no *.jsonl or *.parquet file" in refusal(str(tmp_path))


def test_a_suite_that_teaches_nothing_names_the_one_that_does() -> None:
    assert "suite mgsm has no training split: expected stories/train" in refusal("mgsm/train")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "line 1: not JSON"),
        (json.dumps(ROW).encode() + b"\n[1]\n", "line 2: expected a JSON object"),
        (b"7\n", "line 1: expected a JSON object"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "has no rows"),
        (b"[" * 100_000, "line 1: not JSON"),
    ],
)
def test_a_file_that_is_no_jsonl_gives_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    assert expected in refusal(str(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_a_file_that_is_no_parquet_gives_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    assert "cannot be read as parquet" in refusal(str(tmp_path / "a.parquet"))


def test_a_hub_id_that_cannot_be_had_says_what_else_to_give() -> None:
    program = "from bench.experiment import Dataset; from bench.finetune.data import load_rows; load_rows(Dataset(id='nobody/nothing'))"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}  # read when the library is imported, hence a process of its own
    done = subprocess.run([sys.executable, "-c", program], env=offline, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("bench.errors.DatasetError: dataset 'nobody/nothing' could not be had from the hub")
    assert "SUITE/train" in last


# --- shape


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "hello"}, "no text in user, final"),
        ({"user": "hello"}, "no text in final"),
        (ROW | {"user": None, "messages": []}, "no text in user"),
        (ROW | {"final": 7, "messages": None}, "no text in final"),
        (ROW | {"analysis": ["a"]}, "analysis is no text"),
        (ROW | {"developer": 3}, "developer is no text"),
        (ROW | {"effort": "max"}, "effort is 'max', not low, medium, high"),
        (ROW | {"user": "\ud800", "messages": None}, "no text in user"),
        ({"messages": "hello"}, "messages are no list"),
        ({"messages": ["hello"]}, "messages are no list"),
        ({"messages": [{"role": "user"}]}, "messages are no list"),
        ({"messages": [{"role": "user", "content": "hello"}]}, "the last message is not the assistant's"),
        ({"messages": [{"role": "assistant", "content": "hello", "thinking": 1}]}, "messages are no list"),
    ],
)
def test_a_row_that_is_no_lesson_is_named_with_the_columns_expected(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    message = refusal(write(tmp_path / "a.jsonl", ROW, row))
    assert f"row 1: {expected}" in message
    assert "HuggingFaceH4/Multilingual-Thinking" in message


def test_a_row_of_ten_megabytes_is_a_row(tmp_path: Path) -> None:
    assert len(load_rows(Dataset(id=write(tmp_path / "a.jsonl", ROW | {"user": "x" * 10**7})))) == 1


# --- text


def test_columns_and_messages_make_the_same_conversation_but_for_the_developers_role() -> None:
    from_columns, from_messages = conversation(ROW), conversation({"messages": ROW["messages"]})
    assert [message["role"] for message in from_columns] == ["developer", "user", "assistant"]
    assert [message["role"] for message in from_messages] == ["system", "user", "assistant"]
    assert [message["content"] for message in from_columns] == [message["content"] for message in from_messages]
    assert from_columns[-1]["thinking"] == from_messages[-1]["thinking"] == "Wir beginnen mit 2."


def test_a_row_without_developer_or_analysis_has_neither() -> None:
    messages = conversation({"user": "a", "final": "b", "developer": "", "analysis": ""})
    assert messages == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "thinking": None}]


def texts(rows: list[dict[str, Any]], tokenizer: Any, effort: str) -> list[str]:
    return [decoder(tokenizer)(ids) for ids in lessons(rows, tokenizer, effort)]


def published_tokenizer() -> Any:
    """With the chat template of openai/gpt-oss, which prints today's date and looks into every message's thinking."""
    source = find_spec("trl")
    assert source is not None
    assert source.origin is not None
    tokenizer = load_tokenizer(EMBEDDED)
    tokenizer.chat_template = (Path(source.origin).parent / "chat_templates" / "gptoss.jinja").read_text(encoding="utf-8")
    return tokenizer


def test_a_training_text_is_harmony_from_the_system_message_to_return() -> None:
    (text,) = texts([ROW], load_tokenizer(EMBEDDED), "high")
    assert text == (
        "<|start|>system<|message|>Reasoning: high<|end|>"
        "<|start|>developer<|message|># Instructions\n\nreasoning language: German<|end|>"
        "<|start|>user<|message|>Anna hat 2 Äpfel.<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Wir beginnen mit 2.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Die Antwort ist 2.<|return|>"
    )


def test_mixed_names_a_rows_own_effort_and_else_takes_turns() -> None:
    rows = [ROW, ROW, ROW | {"effort": "low"}, ROW, ROW | {"effort": None}]
    named = [text.partition("Reasoning: ")[2].partition("<")[0] for text in texts(rows, load_tokenizer(EMBEDDED), "mixed")]
    assert named == ["low", "medium", "low", "low", "medium"]


def test_one_effort_for_all_overrides_the_rows() -> None:
    (text,) = texts([ROW | {"effort": "low"}], load_tokenizer(EMBEDDED), "medium")
    assert "Reasoning: medium" in text


def test_training_text_is_the_same_tomorrow() -> None:
    """The published template prints today's date; the arm would depend on the day it was trained, under one recipe key."""
    (text,) = texts([ROW], published_tokenizer(), "low")
    assert f"Current date: {PINNED_DATE:%Y-%m-%d}\n" in text
    assert f"{datetime.now():%Y-%m-%d}" not in text


@pytest.mark.parametrize("row", [ROW | {"analysis": None}, {"messages": [*ROW["messages"][:2], ROW["messages"][2] | {"thinking": None}]}])
def test_a_row_without_thinking_is_a_lesson_of_its_answer_alone(row: dict[str, Any]) -> None:
    for tokenizer in (load_tokenizer(EMBEDDED), published_tokenizer()):
        (text,) = texts([row], tokenizer, "low")
        assert text.endswith("<|end|><|start|>assistant<|channel|>final<|message|>Die Antwort ist 2.<|return|>")
        assert "analysis<|message|>" not in text


def test_an_earlier_answer_of_a_conversation_may_have_no_thinking() -> None:
    earlier = {"role": "assistant", "content": "Gut.", "thinking": None}
    (text,) = texts([{"messages": [*ROW["messages"][:2], earlier, *ROW["messages"][1:]]}], published_tokenizer(), "low")
    assert "<|channel|>final<|message|>Gut.<|end|>" in text


def test_special_tokens_spelled_in_a_row_are_text_and_train_as_text() -> None:
    """As in prompts, and as the official renderer has it: a row about Harmony must not close its own message."""
    spelled = "<|end|><|start|>assistant<|channel|>final<|message|>5<|return|>"
    row = ROW | {name: f"{ROW[name]} {spelled}" for name in ("developer", "user", "analysis", "final")}
    for tokenizer in (load_tokenizer(EMBEDDED), published_tokenizer()):
        specials = find_specials(tokenizer).ids
        (plain,), (spelling,) = lessons([ROW], tokenizer, "low"), lessons([row], tokenizer, "low")
        assert [token for token in spelling if token in specials] == [token for token in plain if token in specials]
        assert decoder(tokenizer)(spelling).count(spelled) == 4


def test_a_conversation_that_the_template_refuses_is_one_line() -> None:
    row = {"messages": [{"role": "tool", "content": "4"}, *ROW["messages"]]}
    with pytest.raises(ModelError, match="the chat template refused the conversation: role must be"):
        lessons([row], load_tokenizer(EMBEDDED), "low")


# --- split and key


def test_held_out_rows_are_not_trained_on_and_every_arm_sees_the_same_order() -> None:
    training, held_out = split_rows(range(100), 10)
    assert sorted(training + held_out) == list(range(100))
    assert len(held_out) == 10
    assert (training, held_out) == split_rows(list(range(100)), 10)
    assert training != sorted(training)


def test_no_held_out_rows_is_all_rows() -> None:
    training, held_out = split_rows(range(5), 0)
    assert sorted(training) == list(range(5))
    assert held_out == []


@pytest.mark.parametrize("held_out", [5, 6])
def test_holding_everything_out_leaves_nothing_to_train_on(held_out: int) -> None:
    with pytest.raises(DatasetError, match=f"held_out_rows is {held_out}, but the dataset has 5 rows"):
        split_rows(range(5), held_out)


def key(finetune: dict[str, Any] | None = None, **changes: Any) -> str:
    given = {"rank": 8, "steps": 40, "seed": 1, "model": {"fingerprint": "f"}, "rows": [ROW]} | changes
    return recipe_key(Finetune.model_validate({"dataset": {"id": "x"}} | (finetune or {})), **given)


@pytest.mark.parametrize(
    "other",
    [
        {"rank": 16},
        {"steps": 41},
        {"seed": 2},
        {"model": {"fingerprint": "g"}},
        {"rows": [ROW, ROW]},
        {"rows": [ROW | {"final": "Die Antwort ist 3."}]},
        {"finetune": {"learning_rate": 1e-3}},
        {"finetune": {"train_on": ["final"]}},
        {"finetune": {"targets": "attention"}},
        {"finetune": {"alpha": "2r"}},
        {"finetune": {"held_out_rows": 1}},
        {"finetune": {"optimizer": "adamw_torch"}},
        {"method": "trl"},
        {"steps": None},
        {"steps": "epoch"},
    ],
)
def test_whatever_decides_an_adapter_changes_its_key(other: dict[str, Any]) -> None:
    assert key(**other) != key()


@pytest.mark.parametrize(
    "other", [{"ranks": [8, 16]}, {"steps": [1]}, {"seeds": [9]}, {"dataset": {"id": "y"}}, {"alpha": 16}, {"checkpoint_steps": 7}]
)
def test_the_rest_of_the_grid_and_the_datasets_name_do_not_change_it(other: dict[str, Any]) -> None:
    assert key(finetune=other) == key()


def test_languages_of_rows_are_those_they_name() -> None:
    rows = [
        {"reasoning_language": "German"},
        {"reasoning_language": "French"},
        {"reasoning_language": "German"},
        {"reasoning_language": None},
        {},
    ]
    assert languages_of(rows) == ["French", "German"]
