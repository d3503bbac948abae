"""The stories: right answers, right grammar, the same problems in every language, and no split inside another."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from functools import cache
from typing import Any

import pytest

from bench.catalog import SUITES
from bench.embedded import stories, write_suite
from bench.embedded.stories import (
    LANGUAGES,
    PEOPLE,
    THINGS,
    Problem,
    Signature,
    draw_problem,
    draw_training_problem,
    reserved,
    splits,
    tell,
)

JUDGING = ("gate", "select", "dev")
SIGNS = {
    "en": {"+": "buys|finds|is given", "-": "gives away|loses|sells", "*": "times as many"},
    "de": {"+": "kauft|findet|bekommt", "-": "verschenkt|verliert|verkauft", "*": "mal so viele"},
    "fr": {"+": "achète|trouve|reçoit", "-": "donne|perd|vend", "*": "fois plus"},
    "es": {"+": "compra|encuentra|recibe", "-": "regala|pierde|vende", "*": "veces la cantidad"},
    "it": {"+": "compra|trova|riceve", "-": "regala|perde|vende", "*": "volte tant[ei] quant[ei]"},
}
ASKS = {"en": "How many", "de": "Wie viele", "fr": "Combien", "es": "¿Cuánt", "it": "Quant"}
MALE, FEMALE = "Tom", "Anna"


def read_story(text: str, code: str) -> Signature:
    """Start and operations, read from the words alone: an understanding of the text that shares nothing with its writer."""
    first, *events = [sentence for sentence in re.split(r"(?<=\.) ", text) if re.search(r"\d", sentence)]
    operations = []
    for event in events:
        (sign,) = (sign for sign, words in SIGNS[code].items() if re.search(rf"(?<!\w)({words})(?!\w)", event))
        (number,) = re.findall(r"\d+", event)
        operations.append((sign, int(number)))
    (start,) = re.findall(r"\d+", first)
    return int(start), tuple(operations)


def work_out(start: int, operations: list[str]) -> int:
    """The answer to a row's `start` and `operations`, by Python itself."""
    expression = str(start)
    for operation in operations:
        expression = f"({expression}){operation}"
    return int(eval(expression, {"__builtins__": {}}))  # only digits and + - * of our own files


@cache
def rows(split: str) -> list[dict[str, Any]]:
    lines = (SUITES / "stories" / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def code_of(name: str) -> str:
    return next(code for code, language in LANGUAGES.items() if language.name == name)


# --- splits


def test_splits_have_their_sizes() -> None:
    assert {split: len(problems) for split, problems in splits().items()} == {"gate": 250, "select": 60, "dev": 60, "train": 200}


def test_no_two_problems_of_any_splits_share_operands_and_operations() -> None:
    counts = Counter(problem.signature for problems in splits().values() for problem in problems)
    assert len(counts) == 570
    assert set(counts.values()) == {1}


def test_reserved_is_all_that_judges() -> None:
    assert reserved() == {problem.signature for split in JUDGING for problem in splits()[split]}
    assert len(reserved()) == 370


def test_no_problem_of_dev_select_or_gate_stands_in_the_training_file() -> None:
    judged = {read_story(row["question"], row["language"]) for split in JUDGING for row in rows(split)}
    taught = {read_story(row["user"], code_of(row["reasoning_language"])) for row in rows("train")}
    assert judged == reserved()
    assert taught == {problem.signature for problem in splits()["train"]}
    assert judged.isdisjoint(taught)


def test_a_forbidden_problem_is_never_drawn_for_training() -> None:
    freely = [draw_problem(random.Random(seed)).signature for seed in range(200)]
    forbidden = frozenset(freely)
    guarded = [draw_training_problem(random.Random(seed), forbidden).signature for seed in range(200)]
    assert forbidden.isdisjoint(guarded)


@pytest.mark.parametrize("stage", ["foundation", "low-effort"])
def test_pretraining_never_sees_a_problem_that_judges(stage: str) -> None:
    from bench.embedded import pretrain

    (found,) = (each for each in pretrain.STAGES if each.name == stage)
    for prompt, _ in pretrain.write_examples((0, 3000, pretrain.Recipe(), found)):
        question = prompt.partition("<|start|>user<|message|>")[2].partition("<|end|>")[0]
        code = next(code for code, words in ASKS.items() if words in question)
        assert read_story(question, code) not in reserved()


def test_pretraining_has_no_stage_that_is_not_tested() -> None:
    from bench.embedded import pretrain

    assert [stage.name for stage in pretrain.STAGES] == ["foundation", "low-effort"]


# --- files


@pytest.mark.parametrize("split", JUDGING)
def test_a_shipped_evaluation_file_is_what_the_generator_writes(split: str) -> None:
    made = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in write_suite.questions(split))
    assert (SUITES / "stories" / f"{split}.jsonl").read_bytes() == made.encode()


def test_the_shipped_training_file_is_what_the_generator_writes() -> None:
    made = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in write_suite.lessons())
    assert (SUITES / "stories" / "train.jsonl").read_bytes() == made.encode()


def test_the_same_seed_draws_the_same_problems_anew() -> None:
    before = splits()
    splits.cache_clear()
    assert splits() == before


@pytest.mark.parametrize("split", JUDGING)
def test_every_language_asks_the_same_items_with_the_same_targets(split: str) -> None:
    by_language = {code: {row["item_id"]: row["target"] for row in rows(split) if row["language"] == code} for code in LANGUAGES}
    assert len(by_language["en"]) == len(splits()[split])
    assert all(items == by_language["en"] for items in by_language.values())
    assert len(rows(split)) == len(splits()[split]) * len(LANGUAGES)


@pytest.mark.parametrize("split", JUDGING)
def test_answers_are_right(split: str) -> None:
    for row in rows(split):
        assert row["target"] == str(work_out(row["start"], row["operations"]))
        start, operations = read_story(row["question"], row["language"])
        assert (start, [f"{sign}{number}" for sign, number in operations]) == (row["start"], row["operations"])


def test_item_ids_are_shared_by_no_two_splits() -> None:
    ids = [{row["item_id"] for row in rows(split)} for split in JUDGING]
    assert len(set.union(*ids)) == sum(map(len, ids))


# --- lessons


def test_lessons_have_the_schema_of_multilingual_thinking_plus_effort() -> None:
    for row in rows("train"):
        assert list(row) == ["reasoning_language", "developer", "user", "analysis", "final", "messages", "effort"]
        system, user, assistant = row["messages"]
        assert system == {"role": "system", "content": row["developer"], "thinking": None}
        assert user == {"role": "user", "content": row["user"], "thinking": None}
        assert assistant == {"role": "assistant", "content": row["final"], "thinking": row["analysis"] or None}
        assert row["effort"] in ("low", "medium", "high")
        assert bool(row["analysis"]) == (row["effort"] != "low")


def test_lessons_teach_every_problem_in_every_language_and_ask_for_it() -> None:
    counts = Counter(row["reasoning_language"] for row in rows("train"))
    assert counts == dict.fromkeys((language.name for language in LANGUAGES.values()), 200)
    for row in rows("train"):
        assert row["developer"] == f"reasoning language: {row['reasoning_language']}"


def test_the_arithmetic_of_every_lesson_is_right_to_its_last_step() -> None:
    for row in rows("train"):
        start, operations = read_story(row["user"], code_of(row["reasoning_language"]))
        answer = work_out(start, [f"{sign}{number}" for sign, number in operations])
        assert re.findall(r"\d+", row["final"]) == [str(answer)]
        steps = re.findall(r"([-+*() \d]+) = (\d+)", row["analysis"])
        assert all(eval(left, {"__builtins__": {}}) == int(right) for left, right in steps), row["analysis"]
        if row["effort"] != "low":
            assert steps[-1][1] == str(answer)


@pytest.mark.parametrize("code", LANGUAGES)
def test_more_effort_thinks_in_more_and_smaller_steps(code: str) -> None:
    for problem in splits()["dev"]:
        thoughts = {effort: stories.think(problem, code, effort) for effort in ("low", "medium", "high")}
        assert thoughts["low"] == ""
        assert thoughts["medium"].count("=") < thoughts["high"].count("=")
        for left, right in re.findall(r"(\d+ [-+*] \d+) = (\d+)", thoughts["high"]):
            assert eval(left, {"__builtins__": {}}) == int(right)
        assert "*" not in thoughts["high"]


# --- problems


def test_running_totals_stay_positive_and_events_fit_their_operations() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        problem = draw_problem(rng)
        assert min(problem.values) >= 1
        assert len(problem.operations) in (3, 4, 5)
        assert all(event in stories.EVENTS[sign] for event, (sign, _) in zip(problem.events, problem.operations, strict=True))


# --- grammar

FORMS = {
    # Spanish: how many agrees with the thing
    ("es", "question"): {"f": "¿Cuántas {things} tiene {who} ahora?", "m": "¿Cuántos {things} tiene {who} ahora?"},
    # Italian: so do `how many`, `other` and `as many`
    ("it", "question"): {"f": "Quante {things} ha {who} adesso?", "m": "Quanti {things} ha {who} adesso?"},
    ("it", "buys"): {"f": "{who} ne compra altre 7.", "m": "{who} ne compra altri 7."},
    ("it", "finds"): {"f": "{who} ne trova altre 7.", "m": "{who} ne trova altri 7."},
    ("it", "receives"): {"f": "{who} ne riceve altre 7.", "m": "{who} ne riceve altri 7."},
    ("it", "multiplies"): {
        "f": "Poi {who} ne ha 7 volte tante quante prima.",
        "m": "Poi {who} ne ha 7 volte tanti quanti prima.",
    },
}
GENDERS = {
    "fr": dict(zip(THINGS, "fmfmmfff", strict=True)),
    "es": dict(zip(THINGS, "fmfmmfff", strict=True)),
    "it": dict(zip(THINGS, "fmfmfffm", strict=True)),
}
PLURALS = {
    "en": "apples books coins stamps pencils marbles cards flowers",
    "de": "Äpfel Bücher Münzen Briefmarken Bleistifte Murmeln Karten Blumen",
    "fr": "pommes livres pièces timbres crayons billes cartes fleurs",
    "es": "manzanas libros monedas sellos lápices canicas tarjetas flores",
    "it": "mele libri monete francobolli matite biglie carte fiori",
}


def story(code: str, thing: str, event: str, who: str = MALE) -> list[str]:
    """The start, one event with 7, and the question, as sentences."""
    sign = next(sign for sign, events in stories.EVENTS.items() if event in events)
    told = tell(Problem(who, thing, 12, ((sign, 7),), (event,)), code)
    first, middle, last = re.split(r"(?<=\.) ", told)
    return [first, middle, last]


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize(("code", "what"), FORMS, ids="-".join)
def test_words_agree_with_the_gender_of_the_thing(code: str, what: str, thing: str) -> None:
    expected = FORMS[code, what][GENDERS[code][thing]].format(who=MALE, things=LANGUAGES[code].things[thing][0])
    sentences = story(code, thing, "gives" if what == "question" else what)
    assert sentences[2 if what == "question" else 1] == expected


@pytest.mark.parametrize("who", PEOPLE)
def test_french_asks_elle_of_women_and_il_of_men(who: str) -> None:
    pronoun = "elle" if who in ("Anna", "Mia", "Lena", "Eva") else "il"
    assert story("fr", "apples", "buys", who)[2] == f"Combien de pommes {who} a-t-{pronoun} maintenant ?"


@pytest.mark.parametrize("code", LANGUAGES)
def test_things_are_plurals_and_every_event_is_a_whole_sentence(code: str) -> None:
    assert [LANGUAGES[code].things[thing][0] for thing in THINGS] == PLURALS[code].split()
    for events in stories.EVENTS.values():
        for event in events:
            for who in (MALE, FEMALE):
                told = " ".join(story(code, "books", event, who))
                assert not re.search(r"[{}]|  ", told)
                assert told.count(who) == 3
                assert told.endswith(" ?" if code == "fr" else "?")


def test_french_and_italian_say_of_what_in_every_event() -> None:
    for code, particle in (("fr", "en"), ("it", "ne")):
        for events in stories.EVENTS.values():
            for event in events:
                assert f" {particle} " in story(code, "books", event)[1]


def test_nothing_elides_wrongly_in_french() -> None:
    for who in PEOPLE:
        for thing in THINGS:
            for event in ("buys", "multiplies", "gives"):
                told = " ".join(story("fr", thing, event, who))
                assert not re.search(r"\b(de|que|le|la) [aeiouhéè]", told), told
