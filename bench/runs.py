"""The run folders on this machine: what they are, how much room they take, and their removal.

Only a folder with a run.json of ours is ever removed; one that another effortbench is writing, or that a link points to, is not.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import RunFolderError
from bench.store import read_state

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class KeptRun:
    """One run folder."""

    folder: Path
    experiment: str
    started_at: str
    """UTC, ISO 8601; empty where the record is damaged."""
    state: str
    """A verdict, else `not judged`, `unfinished`, or `damaged`."""
    answers: int | None
    """As planned; None where a cell's number is not known yet."""
    size_bytes: int


def list_runs(root: Path) -> list[KeptRun]:
    """Every run folder directly inside `root`, newest first; a damaged one is listed as such. Empty where there is no such folder."""
    found = [_kept(path.parent) for path in root.glob("*/run.json") if not path.parent.name.startswith(".")]
    return sorted(found, key=lambda one: (one.started_at, one.folder.name), reverse=True)


def _kept(folder: Path) -> KeptRun:
    try:
        state = read_state(folder)
        counts = [cell["samples"] for cell in state["cells"]]
        answers = None if None in counts else sum(counts)
        return KeptRun(
            folder,
            str(state["experiment"]["name"]),
            str(state["environment"]["started_at"]),
            _state(folder, state),
            answers,
            size_of(folder),
        )
    except (RunFolderError, KeyError, TypeError):
        return KeptRun(folder, "unknown", "", "damaged", None, size_of(folder))


def _state(folder: Path, state: dict[str, Any]) -> str:
    if not state["finished"]:
        return "unfinished"
    try:
        return str(json.loads((folder / "verdict.json").read_text(encoding="utf-8"))["verdict"])
    except FileNotFoundError:
        return "not judged"
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"


def size_of(folder: Path) -> int:
    """Bytes of all files inside; links are not followed."""
    return sum(os.lstat(os.path.join(path, name)).st_size for path, _, names in os.walk(folder) for name in names)


def find_run(name: Path, root: Path) -> Path:
    """The run folder of this path, or of this name inside `root`. Raises RunFolderError where there is none that may be removed."""
    folder = next((path for path in (name, root / name) if (path / "run.json").is_file()), None)
    if folder is None:
        raise RunFolderError(f"{name} is not a run folder, and none in {root} is called so: nothing was removed")
    if folder.is_symlink():
        raise RunFolderError(f"{folder} is a link: remove {folder.resolve()}, or the link itself; nothing was removed")
    read_state(folder)
    return folder.absolute()


def remove_run(folder: Path) -> None:
    """Delete a run folder. Raises RunFolderError where it is being written, or cannot be deleted."""
    with _locked(folder):
        doomed = folder.with_name(f".removed-{folder.name}")  # nobody takes what is left after a crash for a run
        try:
            folder.rename(doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            raise RunFolderError(f"{folder} cannot be removed: {error.strerror or error}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock that a writer of the folder holds."""
    with (folder / ".lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunFolderError(f"{folder} is in use by another effortbench: it was not removed") from error
        yield
