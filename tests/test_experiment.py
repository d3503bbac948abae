"""What a user may ask, and the one line that answers what cannot be asked."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from bench.errors import ExperimentError
from bench.experiment import (
    SHIPPED,
    Evaluate,
    Experiment,
    Finetune,
    Model,
    Select,
    load_experiment,
    parse_experiment,
    parse_yaml,
    shipped_experiments,
)

SMALL: dict[str, Any] = {
    "name": "small",
    "model": {"id": "embedded", "load_in_4bit": False, "dtype": "float32"},
    "finetune": {"dataset": {"id": "stories/train"}, "ranks": [8, 16], "steps": [40]},
    "evaluate": {"suites": ["stories"], "max_new_tokens": {"low": 48, "medium": 160, "high": 256}},
    "select": {"suite": "stories", "split": "select", "effort": "medium"},
    "confirm": {"suite": "stories", "split": "gate"},
    "gates": [{"name": "accuracy", "metric": "accuracy", "effort": "high", "margin": 0.05}],
}
DELETED = type("Absent", (), {"__repr__": lambda self: "absent"})()


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """SMALL with dotted keys set, or taken out."""
    data = copy.deepcopy(SMALL)
    for key, value in changes.items():
        *parents, last = key.split(".")
        block: Any = data
        for parent in parents:
            block = block[int(parent)] if isinstance(block, list) else block[parent]
        if value is DELETED:
            del block[last]
        else:
            block[last] = value
    return data


def refusal(data: Any) -> str:
    """The message of the error that parsing raises."""
    with pytest.raises(ExperimentError) as caught:
        parse_experiment(data, "small.yaml")
    return str(caught.value)


def is_accepted_or_refused_in_one_line(call: Callable[[], object]) -> bool:
    """Whatever else is raised goes through."""
    try:
        call()
    except ExperimentError as error:
        return "\n" not in str(error)
    return True


def yaml_refusal(text: str) -> str:
    with pytest.raises(ExperimentError) as caught:
        parse_yaml(text, "small.yaml")
    return str(caught.value)


def set_refusal(*overrides: str) -> str:
    with pytest.raises(ExperimentError) as caught:
        load_experiment("embedded", overrides)
    return str(caught.value)


BAD_VALUES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"color": "red"}, ("color: unknown key",)),
    ({"finetune.rank": 8}, ("finetune.rank: unknown key",)),
    ({"evaluate.efforts": ["low", "turbo"]}, ("evaluate.efforts.1", "'low', 'medium' or 'high'", "found 'turbo'")),
    ({"finetune.effort": "max"}, ("finetune.effort", "'mixed'", "found 'max'")),
    ({"evaluate.max_new_tokens": {"turbo": 3}}, ("evaluate.max_new_tokens.turbo", "found 'turbo'")),
    ({"finetune.ranks": [0]}, ("finetune.ranks.0", "greater than or equal to 1", "found '0'")),
    ({"finetune.ranks": [8, -8]}, ("finetune.ranks.1", "greater than or equal to 1", "found '-8'")),
    ({"finetune.ranks": 8}, ("finetune.ranks", "valid list", "found '8'")),
    ({"finetune.ranks": [8.5]}, ("finetune.ranks.0", "integer", "found '8.5'")),
    ({"finetune.ranks": [8, 8]}, ("finetune.ranks", "must differ", "[8, 8]")),
    ({"finetune.ranks": [10**6]}, ("finetune.ranks.0", "1024")),
    ({"finetune.steps": []}, ("finetune.steps", "at least 1 item", "found '[]'")),
    ({"finetune.steps": [0]}, ("finetune.steps.0", "greater than or equal to 1")),
    ({"finetune.steps": [10, 10]}, ("finetune.steps", "must differ")),
    ({"finetune.seeds": [1, 1]}, ("finetune.seeds", "must differ")),
    ({"finetune.steps": list(range(1, 1000))}, ("finetune", "1,998 arms", "1,000")),
    ({"finetune.alpha": "2x"}, ("finetune.alpha", "`2r` for twice the rank", "found '2x'")),
    ({"finetune.alpha": 0}, ("finetune.alpha", "above 0", "found '0'")),
    ({"finetune.alpha": "0r"}, ("finetune.alpha", "above 0", "found '0r'")),
    ({"finetune.alpha": float("inf")}, ("finetune.alpha", "found 'inf'")),
    ({"finetune.method": "magic"}, ("finetune.method", "'unsloth'", "found 'magic'")),
    ({"finetune.method": ["trl", "magic"]}, ("finetune.method", "'trl'", "found 'magic'")),
    ({"finetune.method": ["trl", "trl"]}, ("finetune.method", "must differ")),
    ({"finetune.method": "trl", "model.load_in_4bit": True}, ("method trl needs model.load_in_4bit: false",)),
    ({"finetune.steps": ["epochs"]}, ("finetune.steps.0", "found 'epochs'")),
    ({"finetune.steps": ["0epochs"]}, ("finetune.steps.0",)),
    ({"finetune.gradient_checkpointing": "sometimes"}, ("finetune.gradient_checkpointing", "'unsloth'")),
    ({"finetune.checkpoint_steps": 0}, ("finetune.checkpoint_steps", "greater than or equal to 1")),
    ({"finetune.train_on": ["commentary"]}, ("finetune.train_on.0", "'analysis' or 'final'")),
    ({"finetune.dataset": DELETED}, ("finetune.dataset", "required")),
    ({"finetune.learning_rate": float("nan")}, ("finetune.learning_rate", "finite")),
    ({"name": DELETED}, ("name", "required")),
    ({"model": DELETED}, ("model", "required")),
    ({"model.dtype": "int8"}, ("model.dtype", "found 'int8'")),
    ({"model.id": ""}, ("model.id", "at least 1 character")),
    ({"evaluate.suites": []}, ("evaluate.suites", "at least 1 item")),
    ({"evaluate.suites": ["stories", "stories"]}, ("evaluate", "must differ", "stories")),
    ({"evaluate.suites": ["stories", "elsewhere/stories"]}, ("evaluate", "different names", "stories, stories")),
    ({"evaluate.languages": []}, ("evaluate.languages", "at least 1 item")),
    ({"evaluate.languages": ["de", "de"]}, ("evaluate.languages", "must differ")),
    ({"evaluate.efforts": ["low", "low"]}, ("evaluate.efforts", "must differ")),
    ({"evaluate.efforts": []}, ("evaluate.efforts", "at least 1 item")),
    ({"evaluate.max_new_tokens": {"low": 5}}, ("evaluate", "no limit for effort medium, high")),
    ({"evaluate.max_new_tokens.low": 0}, ("evaluate.max_new_tokens.low", "greater than or equal to 1")),
    ({"evaluate.temperature": float("inf")}, ("evaluate.temperature", "finite")),
    ({"evaluate.temperature": -1}, ("evaluate.temperature", "greater than or equal to 0")),
    ({"evaluate.samples_per_item": 4}, ("evaluate", "samples_per_item > 1 needs temperature > 0")),
    ({"evaluate.data": {"mgsm": "somewhere"}}, ("evaluate", "data names mgsm", "stories")),
    ({"gates.0.margin": DELETED}, ("gates.0.margin", "required")),
    ({"gates.0.margin": 0}, ("gates.0", "margin > 0")),
    ({"gates.0.margin": 1}, ("gates.0", "margin of 1 decides nothing", "accuracy lies between 0 and 1")),
    ({"gates.0.margin": 2.0, "gates.0.type": "superiority"}, ("gates.0", "margin of 2 decides nothing")),
    ({"gates.0.margin": -0.1}, ("gates.0.margin", "greater than or equal to 0")),
    ({"gates.0.margin": float("inf")}, ("gates.0.margin", "finite")),
    ({"gates.0.metric": "beauty"}, ("gates.0.metric", "'accuracy'", "found 'beauty'")),
    ({"gates": [SMALL["gates"][0], SMALL["gates"][0]]}, ("gate names must differ", "accuracy, accuracy")),
    ({"confirm": DELETED}, ("gates need a `confirm` block",)),
    ({"confirm.split": "select"}, ("select and confirm name the same problems",)),
    ({"confirm.suite": "mgsm"}, ("suite 'mgsm' is not among evaluate.suites (stories)",)),
    ({"select": DELETED}, ("2 arms and no `select` block",)),
    ({"finetune": DELETED, "select": DELETED}, ("gates need an arm to judge",)),
    ({"evaluate.efforts": ["medium"]}, ("effort 'high' is not among evaluate.efforts (medium)",)),
    ({"evaluate.efforts": ["high"]}, ("effort 'medium' is not among evaluate.efforts (high)",)),
    ({"adapters": [{"name": "base", "path": "x"}]}, ("arm names must differ", "base, r8-s40, r16-s40, base")),
    ({"adapters": [{"name": "r8-s40", "path": "x"}]}, ("arm names must differ",)),
]


@pytest.mark.parametrize(("changes", "expected"), BAD_VALUES, ids=[str(list(changes.items()))[:60] for changes, _ in BAD_VALUES])
def test_a_bad_value_gives_one_line_that_says_where_what_was_found_and_what_was_expected(
    changes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    message = refusal(changed(changes))
    assert message.startswith("small.yaml: ")
    assert "\n" not in message
    assert all(part in message for part in expected), message


@pytest.mark.parametrize("name", ["../escape", "/etc", "a/b", "..", ".hidden", "", "a b", "x" * 65, "a\n", "ä", "a\0b", 7])
def test_a_name_that_is_no_safe_file_name_is_refused(name: object) -> None:
    for changes in ({"name": name}, {"adapters": [{"name": name, "path": "x"}]}, {"gates.0.name": name}):
        assert "name" in refusal(changed(changes))


def test_several_mistakes_are_all_named() -> None:
    message = refusal(changed({"finetune.ranks": [0], "gates.0.metric": "beauty", "color": "red"}))
    assert all(part in message for part in ("finetune.ranks.0", "gates.0.metric", "color: unknown key"))


def test_a_thousand_mistakes_are_counted_not_listed() -> None:
    message = refusal(SMALL | {f"key{number}": 1 for number in range(1000)})
    assert "995 problems more" in message
    assert len(message) < 400


def test_a_value_of_a_megabyte_is_shown_in_eighty_characters() -> None:
    assert len(refusal(changed({"finetune.method": "m" * 10**6}))) < 200


# --- text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b\n", "expected a mapping with name, model, evaluate, ...; found a list"),
        ("just words", "found text"),
        ("", "found nothing"),
        ("a: [1", "not valid YAML"),
        ("a: 1\na: 2\n", "key 'a' stands twice"),
        ("a: {b: 1, b: 2}\n", "key 'b' stands twice"),
        ("a: &x [1]\nb: *x\n", "aliases (*name) are not accepted"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "aliases"),
        ("a: !!python/object/apply:os.system [id]\n", "not valid YAML"),
        ("a: !!int ''\n", "not valid YAML"),
        ("a: !!bool perhaps\n", "not valid YAML"),
        ("a: !!timestamp soon\n", "not valid YAML"),
        ("a: 2025-99-99\n", "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("? [a]\n: 1\n", "not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
        ("[" * 3000, "nested deeper than 20 levels"),
        ("{a: " * 3000, "nested deeper than 20 levels"),
        ("- " * 3000, "nested deeper than 20 levels"),
    ],
    ids=lambda value: value[:24],
)
def test_text_that_is_no_plain_mapping_gives_one_line(text: str, expected: str) -> None:
    message = yaml_refusal(text)
    assert expected in message
    assert "\n" not in message


def test_a_billion_laughs_cost_nothing() -> None:
    names = "abcdefghi"
    text = 'a: &a ["ha", "ha"]\n' + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip(names, names[1:], strict=False))
    assert "aliases" in yaml_refusal(text)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00name", b"\x80\x81", b"name: \xff"])
def test_a_binary_file_is_no_experiment(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(content)
    with pytest.raises(ExperimentError, match="cannot be read, expected a YAML file in UTF-8"):
        load_experiment(str(path))


def test_a_folder_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="cannot be read"):
        load_experiment(str(tmp_path))


@pytest.mark.parametrize("name", ["nope", "nope.yaml", "../bench/nope", "n" * 5000])
def test_a_missing_experiment_names_the_shipped_ones(name: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(name)
    assert "embedded" in str(caught.value) or "cannot be read" in str(caught.value)


# --- overrides


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("finetune.steps=[5]", "finetune.steps", [5]),
        ("finetune.ranks=[4, 32]", "finetune.ranks", [4, 32]),
        ("evaluate.languages=[de]", "evaluate.languages", ["de"]),
        ("evaluate.languages=all", "evaluate.languages", "all"),
        ("model.revision=null", "model.revision", None),
        ("model.revision=", "model.revision", None),
        ("model.id=org/name=x", "model.id", "org/name=x"),
        ("finetune.learning_rate=1e-3", "finetune.learning_rate", 1e-3),
        ("finetune.alpha=1.5r", "finetune.alpha", "1.5r"),
        ("evaluate.data.stories=/data", "evaluate.data", {"stories": Path("/data")}),
        ("evaluate.max_new_tokens.high=99", "evaluate.max_new_tokens", {"low": 48, "medium": 160, "high": 99}),
        ("select.subject_to={accuracy_drop: 0.1}", "select.subject_to.accuracy_drop", 0.1),
    ],
)
def test_an_override_sets_one_key(override: str, key: str, value: Any) -> None:
    found: Any = load_experiment("embedded", [override])
    for part in key.split("."):
        found = getattr(found, part)
    if isinstance(value, dict):
        assert value.items() <= found.items() or override.startswith("evaluate.max_new_tokens")
        assert found[list(value)[-1]] == value[list(value)[-1]]
    else:
        assert found == value


def test_overrides_apply_in_order_and_can_take_a_block_out() -> None:
    overrides = ["gates=[]", "select=null", "confirm=null", "finetune=null", "evaluate.slots=2", "evaluate.slots=3"]
    experiment = load_experiment("embedded", overrides)
    assert experiment.evaluate.slots == 3
    assert [arm.name for arm in experiment.arms()] == ["base"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("finetune.steps", "expected key=value"),
        ("=5", "expected key=value"),
        ("finetune..steps=[5]", "expected key=value"),
        (".=1", "expected key=value"),
        ("name.first=x", "'name' is text, not a block"),
        ("gates.0.margin=1", "'gates' is a list, not a block with keys; set it as a whole"),
        ("finetune.steps=[5", "--set finetune.steps: not valid YAML"),
        ("finetune.steps=*x", "aliases"),
        ("finetune.ranks=&x [*x]", "aliases"),
        ("finetune.steps=[]", "finetune.steps"),
        ("finetune.step=[5]", "finetune.step: unknown key"),
        ("new.block.key=1", "new: unknown key"),
        ("finetune.ranks=[0x" + "f" * 6000 + "]", "too large to show"),
        ("evaluate.temperature=0x" + "f" * 6000, "too large to show"),
        ("finetune.alpha=0x" + "f" * 6000, "too large to show"),
    ],
    ids=lambda value: value[:24],
)
def test_a_bad_override_gives_one_line(override: str, expected: str) -> None:
    message = set_refusal(override)
    assert expected in message
    assert "\n" not in message
    assert len(message) < 7000


def test_an_override_cannot_smuggle_a_second_key_in() -> None:
    assert "model.id" in set_refusal("model.id=x\nname: other")


# --- good experiments


@pytest.mark.parametrize("name", shipped_experiments())
def test_a_shipped_experiment_loads_and_is_named_as_its_file(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name
    assert load_experiment(str(SHIPPED / f"{name}.yaml")) == experiment


def test_the_embedded_experiment_is_shipped() -> None:
    assert "embedded" in shipped_experiments()


@pytest.mark.parametrize("name", shipped_experiments())
def test_a_resolved_experiment_survives_its_own_record(name: str) -> None:
    experiment = load_experiment(name)
    assert parse_experiment(experiment.model_dump(mode="json"), "run.json") == experiment
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


def test_the_defaults_of_finetuning_are_the_published_quick_start() -> None:
    finetune = parse_experiment(changed({"finetune": {"dataset": {"id": "x"}}, "select": DELETED}), "small.yaml").finetune
    assert finetune is not None
    assert (finetune.batch_size, finetune.gradient_accumulation, finetune.learning_rate) == (1, 4, 2e-4)
    assert (finetune.optimizer, finetune.weight_decay, finetune.warmup_steps) == ("adamw_8bit", 0.01, 5)
    assert (finetune.seeds, finetune.lora_alpha(8), finetune.schedule) == ([3407], 16, "linear")
    assert finetune.schedule_needs_last_step


def arm_names(**changes: Any) -> list[str]:
    return [arm.name for arm in parse_experiment(changed({key.replace("__", "."): value for key, value in changes.items()}), "x").arms()]


def test_arms_are_named_by_rank_and_steps_base_first() -> None:
    assert arm_names(finetune__ranks=[8, 16], finetune__steps=[40, 80]) == ["base", "r8-s40", "r8-s80", "r16-s40", "r16-s80"]


def test_arms_of_several_seeds_carry_the_seed() -> None:
    assert arm_names(finetune__ranks=[16], finetune__steps=[80], finetune__seeds=[1, 2]) == ["base", "r16-s80-seed1", "r16-s80-seed2"]


def test_arms_of_several_methods_carry_the_method_and_those_of_passes_their_number() -> None:
    names = arm_names(finetune__ranks=[8], finetune__steps=[5, "epoch", "2epochs"], finetune__method=["unsloth", "trl"])
    assert names[1:] == ["r8-s5-unsloth", "r8-s5-trl", "r8-epoch-unsloth", "r8-epoch-trl", "r8-2epochs-unsloth", "r8-2epochs-trl"]
    assert arm_names(finetune__ranks=[8], finetune__method="trl") == ["base", "r8-s40"]


@pytest.mark.parametrize(
    ("steps", "rows", "expected"), [(30, 10, 30), ("epoch", 8, 1), ("epoch", 9, 2), ("3epochs", 9, 6), ("12epochs", 8, 12)]
)
def test_passes_over_the_rows_are_counted_in_optimizer_steps(steps: int | str, rows: int, expected: int) -> None:
    finetune = parse_experiment(changed({"finetune.batch_size": 2, "finetune.gradient_accumulation": 4}), "x").finetune
    assert finetune is not None
    assert finetune.count_steps(steps, rows) == expected


def test_a_finished_adapter_keeps_its_name() -> None:
    adapters = [{"name": "ours-v3.1", "path": "adapters/v3"}]
    assert arm_names(adapters=adapters)[-1] == "ours-v3.1"
    assert arm_names(adapters=adapters, finetune=DELETED, select=DELETED) == ["base", "ours-v3.1"]


@pytest.mark.parametrize(("alpha", "rank", "expected"), [(16, 8, 16), ("2r", 8, 16), ("2r", 64, 128), ("1.5r", 8, 12), ("rslora", 64, 16)])
def test_alpha_is_a_number_a_multiple_of_the_rank_or_rslora(alpha: Any, rank: int, expected: float) -> None:
    finetune = parse_experiment(changed({"finetune.alpha": alpha}), "small.yaml").finetune
    assert finetune is not None
    assert finetune.lora_alpha(rank) == expected


# --- anything at all

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.builds(int, st.just("f" * 5000), st.just(16))
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=8)
KEYS = [
    *SMALL,
    *(f"{block}.{key}" for block in ("model", "finetune", "evaluate", "select", "confirm") for key in SMALL[block]),
    "finetune.alpha",
    "finetune.seeds",
    "evaluate.data",
    "evaluate.languages",
    "gates.0.margin",
    "adapters",
]


@settings(max_examples=300, deadline=None)
@given(st.text())
@example("\ud800")
@example("a: \ud800")
@example('a: "\\ud800"')
@example("<<: {a: 1}")
@example("<<: [1]")
@example("!!set {a}")
@example("!!binary x")
@example("=: 1")
@example("1:1: 1")
def test_any_text_is_a_mapping_or_an_experiment_error(text: str) -> None:
    assert is_accepted_or_refused_in_one_line(lambda: parse_yaml(text, "fuzz"))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KEYS), ANYTHING)
@example("evaluate.data", {"\ud800": 1})
@example("name", "\ud800")
@example("model", {"\ud800": "\ud800"})
def test_any_value_anywhere_is_accepted_or_an_experiment_error(key: str, value: Any) -> None:
    assert is_accepted_or_refused_in_one_line(lambda: parse_experiment(changed({key: value}), "fuzz"))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(SCALARS, ANYTHING, max_size=4))
def test_any_mapping_is_an_experiment_error(data: dict[Any, Any]) -> None:
    with pytest.raises(ExperimentError):
        parse_experiment(data, "fuzz")


@settings(max_examples=80, deadline=None)
@given(st.text() | st.builds("{}={}".format, st.sampled_from(KEYS), st.text()))
def test_any_override_is_accepted_or_an_experiment_error(override: str) -> None:
    assert is_accepted_or_refused_in_one_line(lambda: load_experiment("embedded", [override]))


@settings(max_examples=50, deadline=None)
@given(ANYTHING)
def test_what_yaml_wrote_is_read_back_or_refused(value: Any) -> None:
    try:
        text = yaml.safe_dump({"key": value})
    except (yaml.YAMLError, ValueError):
        return
    try:
        found = parse_yaml(text, "fuzz")
    except ExperimentError:
        return
    assert list(found) == ["key"]


def test_gpt_oss_20b_trains_once_a_rank_for_all_its_step_counts_and_chooses_on_another_suite_than_it_judges_on() -> None:
    experiment = load_experiment("gpt-oss-20b")
    assert len(experiment.arms()) == 1 + 5 * 4
    assert experiment.finetune is not None
    assert not experiment.finetune.schedule_needs_last_step
    assert experiment.select is not None
    assert experiment.confirm is not None
    assert experiment.select.suite != experiment.confirm.suite


def test_gpt_oss_20b_has_the_published_grid_budgets_and_decoding() -> None:
    experiment = load_experiment("gpt-oss-20b")
    finetune, evaluate = experiment.finetune, experiment.evaluate
    assert finetune is not None
    assert (finetune.ranks, finetune.steps, finetune.seeds) == ([8, 16, 32, 64, 128], [5, 30, 60, "epoch"], [3407])
    assert (finetune.batch_size, finetune.gradient_accumulation, finetune.learning_rate, finetune.max_length) == (1, 4, 2e-4, 1024)
    assert (finetune.optimizer, finetune.weight_decay, finetune.warmup_steps, finetune.alpha) == ("adamw_8bit", 0.01, 5, 16)
    assert (finetune.targets, finetune.train_on, finetune.gradient_checkpointing) == ("attention+experts", ["analysis", "final"], "unsloth")
    assert evaluate.max_new_tokens == {"low": 2048, "medium": 8192, "high": 32768}
    assert (evaluate.temperature, evaluate.samples_per_item) == (1.0, 2)
    assert (experiment.model.load_in_4bit, experiment.model.dtype) == (True, "bfloat16")


def test_quick_test_is_one_arm_of_five_steps_in_short_answers() -> None:
    experiment = load_experiment("quick-test")
    assert [arm.name for arm in experiment.arms()] == ["base", "r8-s5"]
    assert set(experiment.evaluate.max_new_tokens.values()) == {256}


# --- the page that lists the keys


def documented_defaults() -> dict[str, dict[str, str]]:
    """Heading of each table -> key -> the default that the page tells."""
    tables: dict[str, dict[str, str]] = {}
    for section in (Path(__file__).parents[1] / "docs" / "experiment-file.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        rows = [row.split(" | ") for row in section.split("\n") if row.startswith("| `")]
        tables[section.split("\n")[0].strip("`")] = {key: cells[1] for cells in rows for key in re.findall(r"`([a-z0-9_]+)`", cells[0])}
    return tables


def default_of(block: type[BaseModel], key: str) -> str:
    field = block.model_fields[key]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    plain = value.model_dump(exclude_defaults=True) if isinstance(value, BaseModel) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=200).removesuffix("\n...\n").strip()


@pytest.mark.parametrize(
    ("heading", "block"),
    [("The file", Experiment), ("model", Model), ("finetune", Finetune), ("evaluate", Evaluate), ("select", Select)],
)
def test_every_key_is_documented_with_its_default(heading: str, block: type[BaseModel]) -> None:
    assert documented_defaults()[heading] == {key: default_of(block, key) for key in block.model_fields}
