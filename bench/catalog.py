"""Suite name -> tasks, splits, languages and revision, without loading a task or its data.

A suite is a folder with suite.yaml, lm-eval task files `<suite>_<language>.yaml` and a README. Its revision is a hash of every file in
it (and in the folder it borrows data from), so that a changed prompt, filter or row is another suite.

Any generate_until task of lm-eval is a suite too: `lm-eval:gsm8k` by name, or the path of a task's YAML file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from bench.errors import ExperimentError, SuiteError
from bench.experiment import LM_EVAL, Evaluate, Name, parse_yaml, suite_name
from bench.taskfile import TaskFile, find_task, read_task

COMMIT = re.compile(r"^[0-9a-f]{40}$")
_PACKAGE = Path(__file__).parent
SUITES = _PACKAGE / "suites" if (_PACKAGE / "suites").is_dir() else _PACKAGE.parent / "suites"
"""Inside the wheel, or beside the package in a checkout."""


class Hub(BaseModel):
    """A data set on the hub, at one commit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    revision: Annotated[str, Field(pattern=COMMIT.pattern)]
    """Commit, 40 hex digits: a branch moves, and would make another data set of the same suite."""
    file: str
    """A language's file in it, as in `data/{code}.jsonl`."""
    codes: dict[str, str] = {}
    """Language -> what the file's name calls it, where that is not its own code."""

    def file_of(self, language: str) -> str:
        """Path of one language's file."""
        return self.file.replace("{code}", self.codes.get(language, language))


class Suite(BaseModel):
    """One suite, as its suite.yaml says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    name: Name
    splits: Annotated[dict[Name, str], Field(min_length=1)]
    """Our split name -> the split of the lm-eval task."""
    default_split: str
    """Asked where an experiment neither selects nor confirms on this suite."""
    languages: Annotated[dict[Name, str], Field(min_length=1)]
    """Language code -> English name."""
    asks_reasoning_language: bool = False
    """Whether the prompt asks for reasoning in the question's language."""
    data_from: Annotated[str, Field(pattern=r"^\.\./[A-Za-z0-9_-]+$")] | None = None
    """Folder beside this one, as in `../stories`, whose files are part of the suite too."""
    local_files: Annotated[str, Field(pattern=r"^[^/]*\{language\}[^/]*$")] | None = None
    """Name of a language's file in a local data folder, as in `mgsm_{language}.tsv`; None where the suite holds its own rows."""

    local_formats: list[str] = []
    """Other endings that such a file may have."""
    options: list[str] = []
    """Names of settings that `evaluate.options` may give its loader."""
    hub: Hub | None = None
    """Where its rows come from when no local folder has them; None where the suite holds its own rows."""
    variants: dict[Name, Hub] = {}
    """Other data sets of the same shape, chosen by the option `variant`."""
    scorers: list[str] = []
    """Filters of its tasks that `evaluate.scorer` may name in place of the first."""
    items: int | None = None
    """Problems a language; None where the suite holds its own rows, which are counted."""
    licence: str = "Apache-2.0"
    """Of its rows; the package's own where the suite holds them."""
    _task_files: tuple[TaskFile, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        if self.folder.name != self.name:
            raise ValueError(f"it is named {self.name!r}, but its folder {self.folder.name!r}: they must be the same")
        if self.default_split not in self.splits:
            raise ValueError(f"default_split {self.default_split!r} is not among splits ({', '.join(self.splits)})")
        missing = [str(folder) for folder in self.folders if not folder.is_dir()]
        if missing:
            raise ValueError(f"data_from names no folder: {', '.join(missing)}")
        return self

    def local_file(self, language: str) -> str:
        """Name of one language's data file."""
        return (self.local_files or "").replace("{language}", language)

    def find_local(self, folder: Path, language: str) -> Path | None:
        """One language's data file in a folder, in any of its formats."""
        path = folder / self.local_file(language)
        return next((one for one in (path, *map(path.with_suffix, self.local_formats)) if one.is_file()), None)

    def check_options(self, options: Mapping[str, Mapping[str, object]]) -> None:
        """Raise SuiteError on an option that the suite lacks, and on a revision or variant that is none."""
        given = options.get(self.name, {})
        unknown = [name for name in given if name not in self.options]
        if unknown:
            raise SuiteError(f"suite {self.name} has no option {', '.join(unknown)}: it has {', '.join(self.options) or 'none'}")
        revision = given.get("revision")
        if revision is not None and not COMMIT.fullmatch(str(revision)):
            raise SuiteError(
                f"evaluate.options.{self.name}.revision must be a commit of 40 hex digits, found {revision!r}: a branch or tag moves"
            )
        self.find_hub(given)

    def check_scorer(self, scorers: Mapping[str, str]) -> None:
        """Raise SuiteError where `evaluate.scorer` names none of its filters."""
        name = scorers.get(self.name)
        if name is not None and name not in self.scorers:
            raise SuiteError(f"suite {self.name} has no scorer {name!r}: it has {', '.join(self.scorers) or 'one of its own alone'}")

    def find_hub(self, options: Mapping[str, object]) -> Hub | None:
        """The data set on the hub under these options. Raises SuiteError on an unknown variant."""
        name = options.get("variant")
        if name is not None and name not in self.variants:
            raise SuiteError(f"suite {self.name} has no variant {name!r}: it has {', '.join(self.variants) or 'none'}")
        hub = self.variants[str(name)] if name is not None else self.hub
        return hub.model_copy(update={"revision": str(options["revision"])}) if hub and "revision" in options else hub

    def data_source(self, given: Mapping[str, Path], options: Mapping[str, Mapping[str, object]]) -> str:
        """Where a run's rows come from, for its record: own, a local folder, or the hub at a commit."""
        hub = self.find_hub(options.get(self.name, {}))
        if hub is None:
            return "the suite's own rows"
        if (revision := self.data_revision(given)) is not None:
            return f"a local folder ({revision})"
        return f"{hub.id}@{hub.revision}"

    @property
    def data_name(self) -> str:
        """The folder of its data below EFFORTBENCH_DATA: its own name, or that of the suite it borrows from."""
        return Path(self.data_from).name if self.data_from else self.name

    def data_folder(self, given: Mapping[str, Path]) -> Path | None:
        """Where its rows lie: the experiment's folder, else EFFORTBENCH_DATA/<data_name>; None where neither is there."""
        shared = os.environ.get("EFFORTBENCH_DATA")
        folder = given.get(self.name) or (Path(shared) / self.data_name if shared else None)
        return folder if folder and folder.is_dir() else None

    def data_revision(self, given: Mapping[str, Path]) -> str | None:
        """Hash of the local data files, 12 hex digits; None where the rows are the suite's own or come from the hub."""
        folder = self.data_folder(given) if self.local_files else None
        if folder is None:
            return None
        digest = hashlib.sha256()
        for language in self.languages:
            path = self.find_local(folder, language)
            digest.update(path.read_bytes() if path else b"\0")
        return digest.hexdigest()[:12]

    def count_items(self, split: str, given: Mapping[str, Path]) -> int | None:
        """Problems of a split, seen in the suite's own rows or its local data; None where neither is there."""
        own = [folder / f"{self.splits[split]}.jsonl" for folder in self.folders]
        found = next((path for path in own if path.is_file()), None)
        if found is not None:
            try:
                return len({str(json.loads(line)["item_id"]) for line in found.read_text(encoding="utf-8").splitlines()})
            except (ValueError, KeyError, TypeError):  # rows of another shape: only its own loader can tell
                return None
        lines = (".tsv", ".jsonl")  # a row a line; a field of a .csv may go over several
        folder = self.data_folder(given) if self.local_files and self.local_files.endswith(lines) and len(self.splits) == 1 else None
        paths = [folder / self.local_file(language) for language in self.languages] if folder else []
        local = next((path for path in paths if path.is_file()), None)
        return len([line for line in local.read_text(encoding="utf-8").split("\n") if line.strip()]) if local else None

    def describe_items(self) -> str:
        """Problems a language in each split, for people."""
        counts = {split: self.items or self.count_items(split, {}) for split in self.splits}
        return ", ".join(f"{split} {count:,}" if count else f"{split} unknown" for split, count in counts.items())

    @property
    def source(self) -> str:
        """What `find_suite` finds it by, in any process."""
        return str(self.folder)

    @property
    def origins(self) -> set[str]:
        """Where its rows come from: suites that share one ask the same problems."""
        return {str(folder) for folder in self.folders}

    @property
    def folders(self) -> list[Path]:
        """Everything that makes the suite what it is."""
        return [self.folder] + ([(self.folder / self.data_from).resolve()] if self.data_from else [])

    @property
    def task_files(self) -> tuple[TaskFile, ...]:
        """Its tasks as their files say, where it is none of the shipped suites."""
        return self._task_files

    @cached_property
    def revision(self) -> str:
        """Hash of all its files and of trusted code from elsewhere, 12 hex digits. READMEs and caches do not count."""
        digest = hashlib.sha256()
        code = {path for task in self._task_files for path in task.files if not any(path.is_relative_to(own) for own in self.folders)}
        for path in sorted(code):
            digest.update(path.read_bytes())
        for folder in self.folders:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.suffix not in (".md", ".pyc"):
                    digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
                    digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    def task(self, language: str) -> str:
        """Name of the lm-eval task of one language."""
        return f"{self.name}_{language}"

    def choose_languages(self, wanted: str | Sequence[str]) -> list[str]:
        """`all`, or the wanted codes in the suite's order. Raises SuiteError on one it lacks."""
        if wanted == "all":
            return list(self.languages)
        unknown = [code for code in wanted if code not in self.languages]
        if unknown:
            raise SuiteError(f"suite {self.name} has no language {', '.join(unknown)}: it has {', '.join(self.languages)}")
        return [code for code in self.languages if code in wanted]

    def check_split(self, split: str) -> str:
        """The split's name. Raises SuiteError where the suite lacks it."""
        if split not in self.splits:
            raise SuiteError(f"suite {self.name} has no split {split!r}: it has {', '.join(self.splits)}")
        return split


class TaskSuite(Suite):
    """One task of lm-eval, unchanged: shipped with it, or a YAML file. One language."""

    name: Annotated[str, Field(pattern=r"^(lm-eval:)?[A-Za-z0-9][A-Za-z0-9._/+-]{0,127}$")]
    definition: TaskFile

    @model_validator(mode="after")
    def _consistent(self) -> TaskSuite:
        return self

    def data_folder(self, given: Mapping[str, Path]) -> Path | None:
        """The experiment's folder for it, in any layout `datasets.load_dataset` reads; None leaves the data set to the task."""
        folder = given.get(self.name)
        if folder is not None and not folder.is_dir():
            raise SuiteError(f"evaluate.data.{self.name} names no folder: {folder}")
        return folder

    def data_revision(self, given: Mapping[str, Path]) -> str | None:
        """Hash of the given folder's files; None where the task says itself where its rows are."""
        folder = self.data_folder(given)
        if folder is None:
            return None
        digest = hashlib.sha256()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    def data_source(self, given: Mapping[str, Path], options: Mapping[str, Mapping[str, object]]) -> str:
        """Where its rows come from; `unpinned` where the hub may serve others tomorrow."""
        config = self.definition.config
        if (revision := self.data_revision(given)) is not None:
            return f"a local folder ({revision})"
        if config.get("custom_dataset"):
            return "the task's own code"
        if self.definition.has_local_data:
            return "local files, in the suite's revision"
        pinned = options.get(self.name, {}).get("revision") or (config.get("dataset_kwargs") or {}).get("revision")
        return f"{config.get('dataset_path')}@{pinned}" if pinned else f"{config.get('dataset_path')}, unpinned"

    @property
    def source(self) -> str:
        """Its name in lm-eval, or its file."""
        return self.name if self.name.startswith(LM_EVAL) else str(self.definition.path)

    @property
    def origins(self) -> set[str]:
        """The data set it reads."""
        return {self.definition.origin}

    @cached_property
    def revision(self) -> str:
        """Hash of the task's YAML, its includes, code and local data, and of lm-eval's version, 12 hex digits."""
        return self.definition.revision

    def task(self, language: str) -> str:
        """Name of the task."""
        return self.definition.name


def check_output_type(task: str, output_type: str) -> None:
    """Raise SuiteError where a task asks for likelihoods."""
    if output_type != "generate_until":
        raise SuiteError(
            f"task {task} is {output_type}: a reasoning model answers after it has thought, so only generate_until "
            "tasks can be asked at an effort"
        )


def suite_names() -> list[str]:
    """Names of the shipped suites."""
    return sorted(path.parent.name for path in SUITES.glob("*/suite.yaml"))


@cache
def language_names() -> dict[str, str]:
    """English name of every language of the shipped suites, by code."""
    return {code: name for suite in suite_names() for code, name in find_suite(suite).languages.items()}


def find_asked(name: str, evaluate: Evaluate) -> Suite:
    """`find_suite` for an experiment, which may trust a suite's code."""
    return find_suite(name, is_trusted=suite_name(name) in evaluate.trusted)


def find_suite(name: str, *, is_trusted: bool = False) -> Suite:
    """A shipped suite, the folder of one, a task of lm-eval or the YAML file of one. Raises SuiteError.

    Code that its task files name outside its folders, those it borrows from and lm-eval's is refused unless `is_trusted`.
    """
    if name.startswith(LM_EVAL):
        return _task_suite(name, find_task(name.removeprefix(LM_EVAL)), is_trusted)
    if Path(name).suffix in (".yaml", ".yml"):
        return _task_suite(suite_name(name), Path(name), is_trusted)
    folder = SUITES / name if name in suite_names() else Path(name)
    path = folder / "suite.yaml"
    try:
        suite = Suite(folder=folder.resolve(), **parse_yaml(path.read_text(encoding="utf-8"), "suite.yaml"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SuiteError(
            f"no suite {name!r}: expected one of {', '.join(suite_names())}, a suite's folder, lm-eval:TASK or a task's .yaml file"
        ) from error
    except ValidationError as error:
        raise SuiteError(f"{path} is not a suite: {_problems(error)}") from error
    except (OSError, ValueError, TypeError, RuntimeError, ExperimentError) as error:
        raise SuiteError(f"{path} is not a suite: {' '.join(str(error).split())}") from error
    if suite.folder.parent != SUITES.resolve():
        files = [suite.folder / f"{suite.task(language)}.yaml" for language in suite.languages]
        suite._task_files = tuple(read_task(file, suite.folders, is_trusted=is_trusted) for file in files if file.is_file())
    return suite


def _task_suite(name: str, path: Path, is_trusted: bool) -> TaskSuite:
    """A task file as a suite: `test` is the task's own test split, or its validation split where it has no other."""
    definition = read_task(path, is_trusted=is_trusted)
    check_output_type(definition.name, definition.output_type)
    if definition.config.get("unsafe_code"):
        raise SuiteError(f"task {definition.name} runs code that the model wrote: such tasks are not asked")
    named = [definition.config.get(key) for key in ("test_split", "validation_split")]
    found = [split for split in named if split]
    if not found:
        raise SuiteError(f"task {definition.name} has neither a test split nor a validation split: there is nothing to ask")
    splits = {"test": found[0]} | ({"validation": found[1]} if len(set(found)) > 1 else {})
    metadata = definition.config.get("metadata")
    language = str(metadata.get("language", "en") if isinstance(metadata, dict) else "en")
    try:
        return TaskSuite(
            folder=definition.path.parent,
            name=name,
            splits=splits,
            default_split="test",
            languages={language: "English" if language == "en" else language},
            definition=definition,
            options=["revision"],
            scorers=definition.filters,
            licence="see the data set's own card",
        )
    except ValidationError as error:
        raise SuiteError(f"{path} cannot be a suite: {_problems(error)}") from error


def _problems(error: ValidationError) -> str:
    """The first problems, on one line."""
    problems = [f"{'.'.join(map(str, problem['loc'])) or 'suite'}: {problem['msg']}" for problem in error.errors()]
    return " ".join("; ".join(problems[:3]).split())
