"""The run folder: plain files that jq, pandas and DuckDB read without us.

One process, the conductor, writes; a lock keeps a second one out. run.json is replaced atomically, sample files only grow, one line a
sample, flushed before anyone is told. A torn last line (the process was killed in the middle of it) is dropped on reading.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import operator
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from bench.errors import ExperimentError, RunFolderError
from bench.experiment import ADAPTER_WEIGHTS, Experiment, parse_experiment
from bench.phases import add_pass
from bench.records import (
    SCHEMA,
    Canary,
    Candidate,
    CellId,
    CellRecord,
    Comparison,
    Environment,
    Look,
    MemoryPass,
    Phase,
    Retry,
    Run,
    RunVerdict,
    Sample,
    Selection,
    TimingBlock,
    Training,
    Verdict,
)

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_FIELDS = [field.name for field in dataclasses.fields(Sample)]
FIELDS_OF_LATER_VERSIONS = {"final_language"}
"""Samples of an earlier version lack them; they are None then."""
NUMBERS_OR_NONE = ("seed", "score", "reasoning_tokens", "final_tokens", "output_tokens", "latency_s", "ttft_s")
"""Columns that are float64 in a data frame, NaN where a sample has None."""
LEFT_BY_A_START = {".lock", ".run.json.tmp"}
"""What a run that was killed before its first run.json leaves behind."""


def slug(name: str) -> str:
    """A name that is safe in a path. Different names get different slugs."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "x"
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def cell_file(cell: CellId) -> str:
    """Path of a cell's samples inside the run folder."""
    return f"cells/{slug(cell.arm)}/{slug(cell.suite)}@{slug(cell.split)}.{slug(cell.language)}.{cell.effort}.jsonl"


def sha256_of(path: Path) -> str:
    """Of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole: a reader sees the old content or the new, never half of it. Raises RunFolderError."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            _sync(file)
        temporary.replace(path)
        sync_folder(path.parent)


def _sync(file: IO[Any]) -> None:
    """On the disk itself, so that a loss of power cannot take it back."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path, *, files: bool = False) -> None:
    """The names in a folder, and with `files` what stands in them, onto the disk itself."""
    for path in [*(folder.iterdir() if files else ()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if path != folder or error.errno != errno.EINVAL:  # some network file systems have no such thing for folders
                raise
        finally:
            os.close(handle)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill: it becomes `folder`, which may be there and empty, when the block ends well, and is gone otherwise."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk says into one clear line. Raises RunFolderError."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror or error}; what was recorded so far is kept") from error


class RunFolder:
    """A run folder open for writing. Use as a context manager; it holds the folder's lock."""

    def __init__(self, path: Path, experiment: Experiment, environment: Environment, command: str):
        self.path = path
        self.experiment = experiment
        self.environment = environment
        self.command = command
        self.finished = False
        self.cells: dict[CellId, CellRecord] = {}
        self.phases: list[Phase] = []
        self.failed_arms: dict[str, str] = {}
        self.selection: Selection | None = None
        self.comparisons: list[Comparison] = []
        self.suite_revisions: dict[str, str] = {}
        self.adapter_bytes: dict[str, int] = {}
        self.data_sources: dict[str, str] = {}
        self.looks: list[Look] = []
        self.timing: list[TimingBlock] = []
        self.memory: list[MemoryPass] = []
        self.canaries: list[Canary] = []
        self.retries: list[Retry] = []
        self._asked: set[CellId] = set()
        self._files: dict[CellId, TextIO] = {}
        self._prompts: set[str] = set()
        self._prompt_file: TextIO | None = None
        self._lock: TextIO | None = None
        self._goes_on = False

    @classmethod
    def create(cls, path: Path, experiment: Experiment, environment: Environment, command: str) -> RunFolder:
        """A new folder. Raises RunFolderError where one exists already."""
        _refuse_existing(path)
        folder = cls(path, experiment, environment, command)
        _make_folder(path)
        return folder

    @classmethod
    def reopen(cls, path: Path, experiment: Experiment, environment: Environment, command: str) -> RunFolder:
        """An existing folder, to go on with. Raises RunFolderError where it is none, or of another experiment."""
        folder = cls(path, experiment, environment, command)
        folder._goes_on = True
        folder._recall()
        return folder

    def _recall(self) -> None:
        """Take over what run.json says."""
        state = read_state(self.path)
        with _undamaged(self.path / "run.json"):
            found = state["experiment"]["name"]
            self.cells = {record.id: record for record in map(CellRecord.from_dict, state["cells"])}
            self.phases = [Phase.from_dict(phase) for phase in state["phases"]]
            self.looks = [Look.from_dict(look) for look in state.get("looks", [])]
            self.canaries = [Canary.from_dict(canary) for canary in state.get("canaries", [])]
            self.retries = [Retry.from_dict(retry) for retry in state.get("retries", [])]
        if found != self.experiment.name:
            raise RunFolderError(f"{self.path} holds experiment {found!r}, not {self.experiment.name!r}: pass another --out")

    def __enter__(self) -> RunFolder:
        with writing(self.path):
            self._lock = (self.path / ".lock").open("a+", encoding="utf-8")
        try:
            self._take_lock(self._lock)
            # only now is nobody else writing
            if self._goes_on:
                self._recall()
                self._prompts = {prompt_hash for prompt_hash, _ in _mend_prompts(self.path)}
            else:
                _refuse_existing(self.path)
            self.save()
            for stale in ("samples.parquet", "verdict.json"):  # they speak of a finished run
                (self.path / stale).unlink(missing_ok=True)
        except BaseException:
            self._lock.close()
            raise
        return self

    def _take_lock(self, lock: TextIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read(40).strip() or "another effortbench"
            raise RunFolderError(f"{self.path} is in use by {holder}: wait for it, or pass another --out") from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()}\n")
        lock.flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError) if kind else nullcontext():  # a full disk was told of already
            for file in [*self._files.values(), *([self._prompt_file] if self._prompt_file else [])]:
                file.close()
        self._files.clear()
        if self._lock:
            self._lock.close()

    def save(self) -> None:
        """Write run.json."""
        state = {
            "schema": SCHEMA,
            "finished": self.finished,
            "command": self.command,
            "experiment": self.experiment.model_dump(mode="json"),
            "environment": dataclasses.asdict(self.environment),
            "failed_arms": self.failed_arms,
            "suite_revisions": self.suite_revisions,
            "adapter_bytes": self.adapter_bytes,
            "data_sources": self.data_sources,
            "selection": dataclasses.asdict(self.selection) if self.selection else None,
            "cells": [dataclasses.asdict(record) for record in self.cells.values()],
            "phases": [dataclasses.asdict(phase) for phase in self.phases],
            "comparisons": [dataclasses.asdict(comparison) for comparison in self.comparisons],
            "looks": [dataclasses.asdict(look) for look in self.looks],
            "timing": [dataclasses.asdict(block) for block in self.timing],
            "memory": [dataclasses.asdict(measured) for measured in self.memory],
            "canaries": [dataclasses.asdict(canary) for canary in self.canaries],
            "retries": [dataclasses.asdict(retry) for retry in self.retries],
        }
        write_atomic(self.path / "run.json", json.dumps(state, ensure_ascii=False, indent=1) + "\n")

    def open_cells(self, records: list[CellRecord]) -> list[Sample]:
        """Announce cells that are about to be sampled; returns the samples already there under the same keys.

        Samples under another key are thrown away: they belong to another model, prompt or decoding.
        """
        kept: list[Sample] = []
        places = {(record.arm, record.suite, record.split) for record in records}
        for record in records:
            self._asked.add(record.id)
            path = self.path / record.file
            known = self.cells.get(record.id)
            if known and known.key == record.key:
                kept += _mend(path) if path.exists() else []
                continue
            path.unlink(missing_ok=True)
            self.cells[record.id] = record
        places -= {(sample.arm, sample.suite, sample.split) for sample in kept}
        self.phases = [phase for phase in self.phases if (phase.arm, phase.suite, phase.split) not in places]  # of answers thrown away
        self.save()
        return kept

    @property
    def asked(self) -> list[CellRecord]:
        """The cells opened since the folder was: what an earlier run asked beyond them is no part of this one."""
        return [record for cell, record in self.cells.items() if cell in self._asked]

    def forget_unasked(self) -> None:
        """Leave the cells that only an earlier run asked out of the record; their files stay."""
        self.cells = {record.id: record for record in self.asked}

    def are_complete(self, records: list[CellRecord], samples: list[Sample]) -> bool:
        """Whether every cell holds as many samples as it was planned to, and each sample's prompt is known."""
        held = Counter(sample.cell for sample in samples)
        are_whole = all(self.cells[record.id].samples == held[record.id] for record in records)
        return are_whole and all(sample.prompt_hash in self._prompts for sample in samples)

    def plan_cells(self, counts: Mapping[CellId, int]) -> None:
        """Note how many samples each cell will hold, once its data are loaded."""
        for cell, count in counts.items():
            self.cells[cell] = dataclasses.replace(self.cells[cell], samples=count)
        self.save()

    def add_phase(self, phase: Phase) -> None:
        """Note what a pass cost, or the part of it that an earlier start of the run had left."""
        self._sync_answers()
        self.phases = add_pass(self.phases, phase)
        self.save()

    def _sync_answers(self) -> None:
        """Before anything that says so is recorded: what a pass or the run has answered is on the disk."""
        opened = [*self._files.values(), *([self._prompt_file] if self._prompt_file else [])]
        with writing(self.path):
            for file in opened:
                _sync(file)
            for folder in {Path(file.name).parent for file in opened}:
                sync_folder(folder)

    def add_canary(self, canary: Canary) -> None:
        """Note how far two ways of asking differ; a check that is made again replaces the older one."""
        place = operator.attrgetter("arm", "suite", "split", "check")
        self.canaries = [*(known for known in self.canaries if place(known) != place(canary)), canary]
        self.save()

    def add_retry(self, retry: Retry) -> None:
        """Note that a process died and its work is begun once more."""
        self.retries.append(retry)
        self.save()

    def add_sample(self, sample: Sample) -> None:
        """Append one sample to its cell, flushed."""
        path = self.path / self.cells[sample.cell].file
        with writing(path):
            file = self._files.get(sample.cell)
            if file is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = self._files[sample.cell] = path.open("a", encoding="utf-8")
            file.write(sample.to_json() + "\n")
            file.flush()

    def add_prompt(self, prompt_hash: str, prompt: str) -> None:
        """Keep a prompt's text once."""
        if prompt_hash in self._prompts:
            return
        self._prompts.add(prompt_hash)
        path = self.path / "prompts.jsonl"
        with writing(path):
            if self._prompt_file is None:
                self._prompt_file = path.open("a", encoding="utf-8")
            self._prompt_file.write(json.dumps({"prompt_hash": prompt_hash, "prompt": prompt}, ensure_ascii=False) + "\n")
            self._prompt_file.flush()

    def save_training(self, training: Training) -> None:
        """Write training/<arm>.json."""
        write_atomic(self.path / "training" / f"{slug(training.arm)}.json", training.to_json() + "\n")

    def find_training(self, arm: str, key: str) -> Training | None:
        """A finished training of this arm under the same key, its adapter as it was saved; None where there is none."""
        training = read_training(self.path, arm)
        if training is None or training.status != "trained" or training.key != key:
            return None
        weights = self.adapter(arm) / ADAPTER_WEIGHTS
        return training if weights.is_file() and sha256_of(weights) == training.adapter_sha256 else None

    def adapter(self, arm: str) -> Path:
        """Where a trained arm's adapter lies."""
        return self.path / "adapters" / slug(arm)

    def checkpoints(self, run: str) -> Path:
        """Where a training run keeps what it can be gone on from."""
        return self.path / "checkpoints" / slug(run)

    def save_verdict(self, verdict: RunVerdict) -> None:
        """Write verdict.json."""
        write_verdict(self.path, verdict)

    def finish(self) -> None:
        """Mark the run finished and write samples.parquet."""
        self._sync_answers()
        path, temporary = self.path / "samples.parquet", self.path / ".samples.parquet.tmp"
        with writing(path):
            read_samples(self.path, list(self.cells.values())).to_parquet(temporary, index=False)
            with temporary.open("r+", encoding="utf-8") as file:
                _sync(file)
            temporary.replace(path)
        self.finished = True
        self.save()


def load_run(path: str | Path) -> Run:
    """Read a run folder back. Raises RunFolderError where it is none."""
    folder = Path(path)
    state = read_state(folder)
    with _undamaged(folder / "run.json"):
        experiment = parse_experiment(state["experiment"], str(folder / "run.json"))
        cells = tuple(CellRecord.from_dict(cell) for cell in state["cells"])
        trainings = {arm.name: read_training(folder, arm.name) for arm in experiment.arms() if arm.kind == "trained"}
        return Run(
            folder=folder,
            experiment=experiment,
            environment=Environment.from_dict(state["environment"]),
            finished=state["finished"],
            failed_arms=state["failed_arms"],
            selection=_selection(state["selection"]),
            cells=cells,
            phases=tuple(Phase.from_dict(phase) for phase in state["phases"]),
            training={arm: training for arm, training in trainings.items() if training},
            comparisons=tuple(Comparison.from_dict(_tuples(comparison)) for comparison in state["comparisons"]),
            verdict=read_verdict(folder),
            samples=read_samples(folder, list(cells)),
            command=state["command"],
            suite_revisions=state.get("suite_revisions", {}),
            adapter_bytes=state.get("adapter_bytes", {}),
            data_sources=state.get("data_sources", {}),
            looks=tuple(Look.from_dict(look) for look in state.get("looks", [])),
            timing=tuple(TimingBlock.from_dict(block) for block in state.get("timing", [])),
            memory=tuple(MemoryPass.from_dict(measured) for measured in state.get("memory", [])),
            canaries=tuple(Canary.from_dict(canary) for canary in state.get("canaries", [])),
            retries=tuple(Retry.from_dict(retry) for retry in state.get("retries", [])),
        )


def read_samples(folder: Path, cells: list[CellRecord]) -> pd.DataFrame:
    """All samples of the cells, one row each, sorted by cell, item and sample index."""
    import pandas as pd
    import pyarrow

    parquet = folder / "samples.parquet"
    files = [folder / cell_file(cell.id) for cell in cells if (folder / cell_file(cell.id)).exists()]
    if parquet.exists() and all(file.stat().st_mtime <= parquet.stat().st_mtime for file in files):
        try:
            return _typed(pd.read_parquet(parquet))
        except (OSError, pyarrow.ArrowException) as error:
            raise RunFolderError(f"{parquet} is damaged ({error}): delete it, the samples stand in cells/ too") from error
    frames = [pd.DataFrame.from_records(rows, columns=SAMPLE_FIELDS) for file in files if (rows := _read_sample_rows(file))]
    if not frames:
        return _typed(pd.DataFrame(columns=SAMPLE_FIELDS))
    samples = pd.concat([frame.astype(object) for frame in frames], ignore_index=True)
    order = ["arm", "suite", "split", "language", "effort", "item_id", "sample_index"]
    return _typed(samples.infer_objects()).sort_values(order, ignore_index=True)


def _typed(samples: pd.DataFrame) -> pd.DataFrame:
    """The same column types wherever the rows come from, and however many of their values are None."""
    types = dict.fromkeys(NUMBERS_OR_NONE, "float64") | dict.fromkeys(("sample_index", "prompt_tokens"), "int64")
    samples = samples.assign(**dict.fromkeys(FIELDS_OF_LATER_VERSIONS - set(samples.columns)))
    try:
        return samples.astype(types)
    except (TypeError, ValueError) as error:
        raise RunFolderError(f"a sample's number is none ({error}): the files in cells/ are damaged; delete them and --resume") from error


def read_prompts(folder: Path) -> Iterator[tuple[str, str]]:
    """(prompt_hash, text) of every prompt asked."""
    path = folder / "prompts.jsonl"
    for number, row in enumerate(_read_lines(path) if path.exists() else [], 1):
        if row.keys() != {"prompt_hash", "prompt"}:
            raise _damaged_line(path, number, "expected prompt_hash and prompt")
        yield row["prompt_hash"], row["prompt"]


def read_training(folder: Path, arm: str) -> Training | None:
    """The record of one arm's training; None where it has none yet."""
    path = folder / "training" / f"{slug(arm)}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}): delete it and --resume") from error
    with _undamaged(path):
        return Training.from_dict(data)


def write_verdict(folder: Path, verdict: RunVerdict) -> None:
    """Write verdict.json, keys in the order of the contract."""
    data = dataclasses.asdict(verdict)
    ordered = {"schema": data.pop("schema"), **data}
    write_atomic(folder / "verdict.json", json.dumps(ordered, ensure_ascii=False, indent=1) + "\n")


def read_verdict(folder: Path) -> RunVerdict | None:
    """What verdict.json says; None where the run has not been judged."""
    path = folder / "verdict.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}): delete it and judge again") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise RunFolderError(f"{path} has schema {schema}, this effortbench reads {SCHEMA}: delete it and judge again")
    with _undamaged(path):
        return RunVerdict(gates=tuple(Verdict.from_dict(_tuples(gate)) for gate in data.pop("gates")), **data)


def newest_unfinished(parent: Path, experiment: str) -> Path | None:
    """The youngest run folder of an experiment that was not finished; damaged and foreign ones are passed over."""
    found = []
    for path in parent.glob("*/run.json"):
        with suppress(RunFolderError), _undamaged(path):
            state = read_state(path.parent)
            if state["experiment"]["name"] == experiment and not state["finished"]:
                found.append((str(state["environment"]["started_at"]), path.parent))
    return max(found)[1] if found else None


def _refuse_existing(path: Path) -> None:
    if (path / "run.json").exists():
        raise RunFolderError(f"{path} exists already: pass --resume to continue it, or another --out")
    if path.exists() and (not path.is_dir() or {entry.name for entry in path.iterdir()} - LEFT_BY_A_START):
        raise RunFolderError(f"{path} exists already and is no run folder: pass another --out")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be made: {error.strerror}; pass another --out") from error


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """Turn a record without its fields into one clear line."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ExperimentError) as error:
        raise RunFolderError(f"{path} is damaged, or from another effortbench: {type(error).__name__} {error}") from error


def read_state(folder: Path) -> dict[str, Any]:
    """run.json as it stands. Raises RunFolderError where there is none, or it is damaged or of another schema."""
    try:
        state: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunFolderError(f"{folder} is not a run folder: it has no run.json") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{folder / 'run.json'} is damaged: {error}") from error
    schema = state.get("schema") if isinstance(state, dict) else None
    if schema != SCHEMA:
        raise RunFolderError(f"{folder / 'run.json'} has schema {schema}, this effortbench reads {SCHEMA}")
    return state


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON objects, one a line; a torn last line is dropped, anything else that is no JSON object is an error."""
    *lines, _torn = path.read_bytes().split(b"\n")  # no newline after the last: the writer was stopped there
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise _damaged_line(path, number, str(error)) from error
        if not isinstance(row, dict):
            raise _damaged_line(path, number, "no JSON object")
        rows.append(row)
    return rows


def _read_sample_rows(path: Path) -> list[dict[str, Any]]:
    rows, fields = _read_lines(path), set(SAMPLE_FIELDS)
    for number, row in enumerate(rows, 1):
        if not row.keys() <= fields or not fields - row.keys() <= FIELDS_OF_LATER_VERSIONS:
            raise _damaged_line(path, number, f"fields missing or unknown: {', '.join(sorted(row.keys() ^ fields))[:80]}")
    return rows


def _damaged_line(path: Path, number: int, what: str) -> RunFolderError:
    return RunFolderError(f"{path}, line {number} is damaged ({what}): delete the file and --resume")


def _mend(path: Path) -> list[Sample]:
    """The whole samples of a cell; a torn last line is cut off the file, so that appending goes on cleanly."""
    samples = [Sample.from_dict(row) for row in _read_sample_rows(path)]
    _cut_torn_line(path)
    return samples


def _mend_prompts(folder: Path) -> list[tuple[str, str]]:
    prompts = list(read_prompts(folder))
    if (folder / "prompts.jsonl").exists():
        _cut_torn_line(folder / "prompts.jsonl")
    return prompts


def _cut_torn_line(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with writing(path), path.open("r+b") as file:
            file.truncate(whole)


def _selection(data: dict[str, Any] | None) -> Selection | None:
    if data is None:
        return None
    candidates = tuple(Candidate.from_dict(candidate) for candidate in data["candidates"])
    return Selection(**{**data, "candidates": candidates})


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples; the records' sequences are tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
