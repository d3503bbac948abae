"""An lm-eval task file -> what a suite must know of it, from its YAML alone: nothing is imported, downloaded or run."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from bench.errors import SuiteError
from bench.experiment import YAML_ERRORS

MOST_VALUES = 100_000
"""Of a task file, its aliases written out: more is a bomb or a data set."""


@dataclass(frozen=True)
class TaskFile:
    """One task of lm-eval, its includes merged in."""

    path: Path
    name: str
    config: dict[str, Any]
    files: tuple[Path, ...]
    """All that makes the task what it is: its YAML and what that includes, the code it names, its local data."""

    @property
    def output_type(self) -> str:
        """What the model is asked for; lm-eval's own default where the file says nothing."""
        return str(self.config.get("output_type", "generate_until"))

    @property
    def filters(self) -> list[str]:
        """Names of its filters, the one that scores first; `none` is lm-eval's name where a task has no other."""
        listed = self.config.get("filter_list")
        named = [entry.get("name") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        return [str(name) for name in named if name] or ["none"]

    def fetched_metrics(self, known: Container[str]) -> list[str]:
        """Metrics whose code lm-eval would fetch from the hub and run: those marked so, and names beside the `known` ones of its own."""
        listed = self.config.get("metric_list")
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        if self.config.get("process_results"):  # then a metric is but a name of what that returns
            entries = []
        named = [entry for entry in entries if not isinstance(entry.get("metric"), _Function)]
        return [str(entry.get("metric")) for entry in named if entry.get("hf_evaluate") or str(entry.get("metric")) not in known]

    @property
    def has_local_data(self) -> bool:
        """Whether its rows are files on this machine, which its revision covers."""
        return bool(_local_data(self.config))

    @property
    def origin(self) -> str:
        """Where its rows come from, told apart from other data sets."""
        parts = [self.config.get(key) for key in ("dataset_path", "dataset_name", "dataset_kwargs", "custom_dataset")]
        return str([*parts, self.path if self.config.get("custom_dataset") else None])

    @property
    def revision(self) -> str:
        """Hash of its files and of lm-eval's version, 12 hex digits."""
        digest = hashlib.sha256(version("lm_eval").encode())
        for path in self.files:
            digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]


class _Function(str):
    """What stands after `!function`: module.function."""


class _Loader(yaml.SafeLoader):
    """Safe: `!function` stays a name."""


def _keep_name(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> _Function:
    return _Function(loader.construct_scalar(node))


_Loader.add_constructor("!function", _keep_name)


@cache
def shipped_folder() -> Path:
    """The folder of the tasks that lm-eval ships, found without importing it. Raises SuiteError where lm-eval is not installed."""
    found = find_spec("lm_eval")
    if found is None or found.origin is None:
        raise SuiteError("lm-eval is not installed: its tasks cannot be asked")
    return (Path(found.origin).parent / "tasks").resolve()


@cache
def find_task(name: str) -> Path:
    """The file of a task that lm-eval ships. Raises SuiteError where there is none, or the name is a group's.

    Folders that share the name's beginning are looked through first: reading all of lm-eval's 14,000 files takes seconds.
    """
    pattern = re.compile(rb"^(task|group):[ \t]*([\"']?)" + re.escape(name.encode()) + rb"\2[ \t]*(#.*)?\r?$", re.MULTILINE)
    groups = set()
    for folder in _folders_to_search(name):
        for path in sorted(folder.rglob("*.yaml")):
            found = pattern.search(path.read_bytes())
            if found and found[1] == b"task":
                return path
            if found:
                groups.add(path)
    if groups:
        raise SuiteError(f"lm-eval:{name} is a group of tasks: name its tasks one by one ({min(groups).name} lists them)")
    raise SuiteError(f"lm-eval {version('lm_eval')} has no task {name!r}: `lm-eval ls tasks` lists them; name a file by its path")


def _folders_to_search(name: str) -> Iterator[Path]:
    words = re.split(r"[^A-Za-z0-9]+", name)
    starts = {re.sub(r"[^a-z0-9]", "", "".join(words[:count]).lower()) for count in range(1, len(words) + 1)}
    likely = [path for path in shipped_folder().iterdir() if path.is_dir() and re.sub(r"[^a-z0-9]", "", path.name.lower()) in starts]
    yield from sorted(likely, key=lambda path: -len(path.name))
    yield shipped_folder()


def read_task(path: Path, beside: Sequence[Path] = (), *, is_trusted: bool = False) -> TaskFile:
    """Read a task's YAML. Raises SuiteError on what is no task, and on code that it names elsewhere, unless `is_trusted`.

    Its own folder, those `beside` it and lm-eval's are not elsewhere.
    """
    path = path.resolve()
    roots = (path.parent, *beside, shipped_folder())
    config, files, functions = _read(path, ())
    name = config.get("task")
    if not isinstance(name, str) or "group" in config:
        raise SuiteError(f"{path} is no lm-eval task: expected a `task:` with one name (a suite is named by its folder)")
    if "class" in config:
        raise SuiteError(f"task {name} is defined in Python, and says nothing of its splits: only tasks in YAML can be asked")
    code = [module for folder, function in functions if (module := _module_file(function, folder, path, None if is_trusted else roots))]
    if code and not path.is_relative_to(shipped_folder()):
        code += sorted(path.parent.glob("*.py"))
    return TaskFile(path, name, config, tuple(dict.fromkeys([*files, *code, *_local_data(config)])))


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], list[Path], list[tuple[Path, str]]]:
    """Its keys over those it includes, the files read, and the functions named, each with the folder of the file that names it."""
    if path in above:
        raise SuiteError(f"{path} includes itself")
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        if _count(config, {}) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values, its aliases written out")
    except (OSError, *YAML_ERRORS) as error:
        raise SuiteError(f"{path} is no lm-eval task: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise SuiteError(f"{path} is no lm-eval task: expected keys such as task, dataset_path, doc_to_text")
    files, functions = [path], [(path.parent, function) for function in _functions(config)]
    merged: dict[str, Any] = {}
    includes = config.pop("include", [])
    for include in includes if isinstance(includes, list) else [includes]:
        inner, more_files, more_functions = _read((path.parent / str(include)).resolve(), (*above, path))
        merged.update(inner)
        files += more_files
        functions += more_functions
    return {**merged, **config}, files, functions


def _count(value: Any, known: dict[int, int | None]) -> int:
    """Values in a tree as everyone who walks it meets them: an alias counts as often as it stands. Raises ValueError on an endless one."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = None
        known[id(value)] = 1 + sum(_count(inner, known) for inner in (value.values() if isinstance(value, dict) else value))
    found = known[id(value)]
    if found is None:
        raise ValueError("a block that contains itself")
    return found


def _functions(value: Any) -> Iterator[str]:
    if isinstance(value, _Function):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _functions(inner)


def _module_file(function: str, folder: Path, task: Path, roots: Sequence[Path] | None) -> Path | None:
    """File of the module, as lm-eval looks for it; None for one that it imports by its dotted name: lm-eval's own, or any without roots.

    Raises SuiteError on code outside the roots.
    """
    module = function.rpartition(".")[0]
    path = (folder / f"{module.replace('.', '/')}.py").resolve()
    if path.is_file() and (roots is None or any(path.is_relative_to(root) for root in roots)):
        return path
    if not path.is_file() and (roots is None or module.split(".")[0] == "lm_eval"):
        return None
    raise SuiteError(
        f"{task} runs code from elsewhere (!function {function}): only code beside the task file, or lm-eval's own, is run; "
        "once you have read it, name the suite in evaluate.trusted"
    )


def _local_data(config: dict[str, Any]) -> list[Path]:
    """Data files on this machine that the task names."""
    named = [*_texts(config.get("dataset_path")), *_texts(config.get("dataset_kwargs"))]
    paths = [Path(text) for text in named if os.sep in text and os.path.exists(text)]  # unlike Path.exists, no error on a name too long
    return [inner.resolve() for path in paths for inner in (sorted(path.rglob("*")) if path.is_dir() else [path]) if inner.is_file()]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
