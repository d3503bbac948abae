"""Suites: found by name or folder, whole, and another suite as soon as a byte of them changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from bench.catalog import SUITES, Suite, find_suite, suite_names
from bench.errors import SuiteError

GOOD = "name: mine\ndefault_split: dev\nsplits: {dev: test}\nlanguages: {en: English, de: German}\n"


def make(folder: Path, text: str = GOOD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "suite.yaml").write_text(text, encoding="utf-8")
    return folder


def refusal(name: str | Path) -> str:
    with pytest.raises(SuiteError) as caught:
        find_suite(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- shipped


def test_the_shipped_suites_are_there() -> None:
    assert {"mgsm", "stories", "stories_plain"} <= set(suite_names())


@pytest.mark.parametrize("name", suite_names())
def test_a_shipped_suite_has_a_task_file_for_every_language_named_as_lm_eval_will_know_it(name: str) -> None:
    suite = find_suite(name)
    assert suite.name == name
    files = sorted(path.stem for path in suite.folder.glob("*.yaml") if path.name != "suite.yaml")
    assert files == sorted(map(suite.task, suite.languages))
    for code in suite.languages:
        lines = (suite.folder / f"{suite.task(code)}.yaml").read_text(encoding="utf-8")
        assert f"task: {suite.task(code)}" in lines.splitlines()
    assert (suite.folder / "README.md").is_file()


def test_only_stories_asks_for_a_reasoning_language_and_both_tell_the_same_problems() -> None:
    stories, plain = find_suite("stories"), find_suite("stories_plain")
    assert stories.asks_reasoning_language
    assert not plain.asks_reasoning_language
    assert plain.folders == [plain.folder, stories.folder]
    assert stories.splits == plain.splits
    assert stories.languages == plain.languages
    assert stories.revision != plain.revision


def test_stories_ask_in_the_questions_language_by_name() -> None:
    suite = find_suite("stories")
    for code, name in suite.languages.items():
        task = yaml.load((suite.folder / f"{suite.task(code)}.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        assert task["description"] == f"reasoning language: {name}"


# --- languages and splits


def test_all_languages_or_the_wanted_ones_in_the_suites_order() -> None:
    suite = find_suite("stories")
    assert suite.choose_languages("all") == ["en", "de", "fr", "es", "it"]
    assert suite.choose_languages(["it", "de"]) == ["de", "it"]


def test_an_unknown_language_or_split_names_the_known_ones() -> None:
    suite = find_suite("stories")
    with pytest.raises(SuiteError, match="suite stories has no language xx, yy: it has en, de, fr, es, it"):
        suite.choose_languages(["de", "xx", "yy"])
    with pytest.raises(SuiteError, match="suite stories has no split 'test': it has dev, select, gate"):
        suite.check_split("test")
    assert suite.check_split("gate") == "gate"


# --- folders


def test_a_suite_can_be_a_folder_anywhere(tmp_path: Path) -> None:
    suite = find_suite(str(make(tmp_path / "mine")))
    assert (suite.name, suite.task("de"), suite.folder) == ("mine", "mine_de", (tmp_path / "mine").resolve())


@pytest.mark.parametrize("name", ["nope", "nope/nope", "../stories", "/etc", "/etc/passwd", "x" * 5000, "a\0b", ""])
def test_an_unknown_suite_names_the_known_ones(name: str) -> None:
    message = refusal(name)
    assert "stories_plain" in message or "is not a suite" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "found nothing"),
        ("- a", "found a list"),
        ("a: [", "not valid YAML"),
        ("name: &x mine\ndefault_split: *x", "aliases"),
        ("name: mine\nname: mine", "stands twice"),
        ("name: mine", "default_split: Field required"),
        (GOOD + "folder: /etc\n", "folder"),
        (GOOD + "colour: red\n", "colour: Extra inputs are not permitted"),
        (GOOD.replace("default_split: dev", "default_split: test"), "default_split 'test' is not among splits (dev)"),
        (GOOD.replace("{dev: test}", "{}"), "splits"),
        (GOOD.replace("{dev: test}", "{../dev: test}"), "splits"),
        (GOOD.replace("{en: English, de: German}", "{}"), "languages"),
        (GOOD.replace("name: mine", "name: ../mine"), "name"),
        (GOOD.replace("name: mine", "name: other"), "its folder 'mine'"),
        (GOOD + "data_from: ../nowhere\n", "data_from names no folder"),
        (GOOD + "data_from: ../..\n", "data_from"),
        (GOOD + "data_from: /etc\n", "data_from"),
        (GOOD + "local_files: mine.tsv\n", "local_files"),
        (GOOD + "local_files: ../{language}.tsv\n", "local_files"),
    ],
)
def test_a_folder_whose_suite_yaml_is_wrong_gives_one_line(tmp_path: Path, text: str, expected: str) -> None:
    message = refusal(make(tmp_path / "mine", text))
    assert "is not a suite" in message
    assert expected in message


def test_a_binary_suite_yaml_gives_one_line(tmp_path: Path) -> None:
    (make(tmp_path / "mine") / "suite.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not a suite" in refusal(tmp_path / "mine")


# --- revision


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """stories and stories_plain, side by side, elsewhere."""
    for name in ("stories", "stories_plain"):
        shutil.copytree(SUITES / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_copy_elsewhere_has_the_same_revision(copied: Path) -> None:
    for name in ("stories", "stories_plain"):
        assert find_suite(str(copied / name)).revision == find_suite(name).revision


@pytest.mark.parametrize("name", ["stories_de.yaml", "common_yaml", "utils.py", "gate.jsonl", "suite.yaml"])
def test_any_byte_of_a_suite_makes_another_revision_also_of_the_suite_that_borrows_it(copied: Path, name: str) -> None:
    before = [find_suite(str(copied / suite)).revision for suite in ("stories", "stories_plain")]
    with (copied / "stories" / name).open("a", encoding="utf-8") as file:
        file.write("# \n")
    after = [find_suite(str(copied / suite)).revision for suite in ("stories", "stories_plain")]
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_renamed_or_added_file_makes_another_revision(copied: Path) -> None:
    revisions = {find_suite(str(copied / "stories")).revision}
    (copied / "stories" / "new.yaml").write_text("", encoding="utf-8")
    revisions.add(find_suite(str(copied / "stories")).revision)
    (copied / "stories" / "new.yaml").rename(copied / "stories" / "newer.yaml")
    revisions.add(find_suite(str(copied / "stories")).revision)
    assert len(revisions) == 3


def test_readmes_and_caches_do_not_count(copied: Path) -> None:
    before = find_suite(str(copied / "stories")).revision
    (copied / "stories" / "README.md").write_text("another", encoding="utf-8")
    (copied / "stories" / "__pycache__").mkdir()
    (copied / "stories" / "__pycache__" / "utils.cpython-311.pyc").write_bytes(b"x")
    assert find_suite(str(copied / "stories")).revision == before


# --- local data


@pytest.fixture
def mgsm(monkeypatch: pytest.MonkeyPatch) -> Suite:
    """The suite whose rows are not its own, where no data folder is announced."""
    monkeypatch.delenv("EFFORTBENCH_DATA", raising=False)
    return find_suite("mgsm")


def test_the_experiments_data_folder_comes_before_the_environments(mgsm: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mgsm.data_folder({}) is None
    shared, given = tmp_path / "shared", tmp_path / "given"
    (shared / "mgsm").mkdir(parents=True)
    given.mkdir()
    monkeypatch.setenv("EFFORTBENCH_DATA", str(shared))
    assert mgsm.data_folder({}) == shared / "mgsm"
    assert mgsm.data_folder({"mgsm": given}) == given
    assert mgsm.data_folder({"other": given}) == shared / "mgsm"
    assert mgsm.data_folder({"mgsm": tmp_path / "missing"}) is None


def test_the_revision_of_local_data_changes_with_any_byte(mgsm: Suite, tmp_path: Path) -> None:
    given = {"mgsm": tmp_path}
    assert mgsm.data_revision({}) is None
    empty = mgsm.data_revision(given)
    (tmp_path / mgsm.local_file("de")).write_text("Frage\t1\n", encoding="utf-8")
    one = mgsm.data_revision(given)
    (tmp_path / mgsm.local_file("de")).write_text("Frage\t2\n", encoding="utf-8")
    assert len({empty, one, mgsm.data_revision(given)}) == 3


def test_a_suite_with_rows_of_its_own_has_no_local_data(tmp_path: Path) -> None:
    assert find_suite("stories").data_revision({"stories": tmp_path}) is None


# --- code of a suite's folder


def write_coded(folder: Path, function: str, name: str = "mine", more: str = "") -> Path:
    """A suite whose one task names a function; elsewhere.py and beside.py leave a mark when they are run."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder.parent / "elsewhere.py", folder / "beside.py"):
        path.write_text(f"open({str(path) + '.ran'!r}, 'w').close()\ndef load(**_): ...\n", encoding="utf-8")
    (folder / "suite.yaml").write_text(f"name: {name}\ndefault_split: dev\nsplits: {{dev: test}}\nlanguages: {{en: English}}\n{more}")
    (folder / f"{name}_en.yaml").write_text(f"task: {name}_en\ncustom_dataset: !function {function}\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("function", ["ABOVE/elsewhere.load", "os.system", "nowhere.load"])
def test_a_suites_code_from_outside_its_folder_is_refused_and_not_run(tmp_path: Path, function: str) -> None:
    function = function.replace("ABOVE", str(tmp_path))
    folder = write_coded(tmp_path / "mine", function)
    with pytest.raises(SuiteError, match=rf"runs code from elsewhere \(!function {function}\).*evaluate.trusted") as caught:
        find_suite(str(folder))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.ran"))


def test_a_link_out_of_a_suites_folder_does_not_make_code_its_own(tmp_path: Path) -> None:
    folder = write_coded(tmp_path / "mine", "inside.load")
    (folder / "inside.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(SuiteError, match="runs code from elsewhere"):
        find_suite(str(folder))


def test_a_suites_code_from_outside_is_taken_when_it_is_trusted_and_changes_the_revision(tmp_path: Path) -> None:
    folder = write_coded(tmp_path / "mine", f"{tmp_path}/elsewhere.load")
    before = find_suite(str(folder), is_trusted=True).revision
    (tmp_path / "elsewhere.py").write_text("def load(**_): return {}\n", encoding="utf-8")
    assert find_suite(str(folder), is_trusted=True).revision != before


def test_a_suite_may_name_code_of_its_own_folder_and_of_the_one_it_borrows_from(tmp_path: Path) -> None:
    write_coded(tmp_path / "lender", "beside.load", name="lender")
    borrower = write_coded(tmp_path / "mine", f"{tmp_path}/lender/beside.load", more="data_from: ../lender\n")
    assert find_suite(str(write_coded(tmp_path / "own", "beside.load", name="own"))).name == "own"
    assert find_suite(str(borrower)).folders == [borrower, tmp_path / "lender"]
