"""Suite name -> tasks, splits, languages and revision, without loading a task or its data.

A suite is a folder with suite.yaml, lm-eval task files `<suite>_<language>.yaml` and a README. Its revision is a hash of every file in
it (and in the folder it borrows data from), so that a changed prompt, filter or row is another suite.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.errors import ExperimentError, SuiteError
from bench.experiment import Name, parse_yaml

_PACKAGE = Path(__file__).parent
SUITES = _PACKAGE / "suites" if (_PACKAGE / "suites").is_dir() else _PACKAGE.parent / "suites"
"""Inside the wheel, or beside the package in a checkout."""


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

    def data_folder(self, given: Mapping[str, Path]) -> Path | None:
        """Where its rows lie: the experiment's folder, else EFFORTBENCH_DATA/<suite>; None where neither is there."""
        shared = os.environ.get("EFFORTBENCH_DATA")
        folder = given.get(self.name) or (Path(shared) / self.name if shared else None)
        return folder if folder and folder.is_dir() else None

    def data_revision(self, given: Mapping[str, Path]) -> str | None:
        """Hash of the local data files, 12 hex digits; None where the rows are the suite's own or come from the hub."""
        folder = self.data_folder(given) if self.local_files else None
        if folder is None:
            return None
        digest = hashlib.sha256()
        for language in self.languages:
            path = folder / self.local_file(language)
            digest.update(path.read_bytes() if path.is_file() else b"\0")
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
        folder = self.data_folder(given) if self.local_files and len(self.splits) == 1 else None
        paths = [folder / self.local_file(language) for language in self.languages] if folder else []
        local = next((path for path in paths if path.is_file()), None)
        return len([line for line in local.read_text(encoding="utf-8").split("\n") if line.strip()]) if local else None

    @property
    def folders(self) -> list[Path]:
        """Everything that makes the suite what it is."""
        return [self.folder] + ([(self.folder / self.data_from).resolve()] if self.data_from else [])

    @cached_property
    def revision(self) -> str:
        """Hash of all its files, 12 hex digits. READMEs and caches do not count."""
        digest = hashlib.sha256()
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


def suite_names() -> list[str]:
    """Names of the shipped suites."""
    return sorted(path.parent.name for path in SUITES.glob("*/suite.yaml"))


def find_suite(name: str) -> Suite:
    """A shipped suite, or the folder of one. Raises SuiteError."""
    folder = SUITES / name if name in suite_names() else Path(name)
    path = folder / "suite.yaml"
    try:
        return Suite(folder=folder.resolve(), **parse_yaml(path.read_text(encoding="utf-8"), "suite.yaml"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SuiteError(f"no suite {name!r}: expected one of {', '.join(suite_names())}, or a folder with a suite.yaml") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, problem['loc'])) or 'suite'}: {problem['msg']}" for problem in error.errors()]
        raise SuiteError(f"{path} is not a suite: {' '.join('; '.join(problems[:3]).split())}") from error
    except (OSError, ValueError, TypeError, RuntimeError, ExperimentError) as error:
        raise SuiteError(f"{path} is not a suite: {' '.join(str(error).split())}") from error
