"""Two runs -> one that the page can show: an arm of each, called `A: <arm>` and `B: <arm>`, compared on the questions both answered.

Nothing is judged. Where base was asked in both runs it comes along: it shows how much two runs differ without another fine-tune.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from bench.comparison import compare
from bench.errors import UsageError
from bench.experiment import METRICS
from bench.records import CellRecord, Comparison, Phase, Run, Training
from bench.report.focus import Pair, chosen_arm

BASE = "base"
ArmRecord = TypeVar("ArmRecord", CellRecord, Phase, Training)


def join_runs(before: Run, after: Run, folder: Path, arms: tuple[str | None, str | None] = (None, None)) -> tuple[Run, Pair]:
    """Both as one run that lies in `folder`, and which of its arms are which. None: the arm under test, or base.

    Raises UsageError where a run has no samples of the arm.
    """
    sides = {"A": (before, _arm(before, arms[0])), "B": (after, _arm(after, arms[1]))}
    frames = {letter: _frames(letter, run, arm) for letter, (run, arm) in sides.items()}
    comparisons = _compared(frames["A"][sides["A"][1]], frames["B"][sides["B"][1]])
    if BASE in frames["A"] and BASE in frames["B"] and (sides["A"][1], sides["B"][1]) != (BASE, BASE):
        comparisons += _compared(frames["A"][BASE], frames["B"][BASE])
    names = list(dict.fromkeys(run.experiment.name for run in (before, after)))
    joined = Run(
        folder=folder,
        experiment=after.experiment.model_copy(update={"name": " and ".join(names), "gates": [], "select": None}),
        environment=after.environment,
        finished=before.finished and after.finished,
        failed_arms={_name(letter, arm): why for letter, (run, _) in sides.items() for arm, why in run.failed_arms.items()},
        selection=None,
        cells=tuple(_renamed(letter, cell) for letter, (run, _) in sides.items() for cell in run.cells if cell.arm in frames[letter]),
        phases=tuple(_renamed(letter, phase) for letter, (run, _) in sides.items() for phase in run.phases if phase.arm in frames[letter]),
        training={
            _name(letter, arm): dataclasses.replace(_renamed(letter, training), shared_run=None)
            for letter, (run, _) in sides.items()
            for arm, training in run.training.items()
            if arm in frames[letter]
        },
        comparisons=tuple(comparisons),
        verdict=None,
        samples=pd.concat([frame for made in frames.values() for frame in made.values()], ignore_index=True),
        command=f"effortbench compare {before.folder} {after.folder}",
        suite_revisions=after.suite_revisions,
    )
    runs = (before.folder.resolve().name, after.folder.resolve().name)
    return joined, Pair(_name("A", sides["A"][1]), _name("B", sides["B"][1]), runs, tuple(differences(before, after)))


def prompt_lines(runs: tuple[Run, Run]) -> Iterator[str]:
    """Lines of both runs' prompts.jsonl, each prompt once where both asked it; a run without the file has none."""
    seen = set()
    for run in runs:
        path = run.folder / "prompts.jsonl"
        if not path.exists():
            continue
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.endswith("\n") and (key := hash(line)) not in seen:
                    seen.add(key)
                    yield line


def differences(before: Run, after: Run) -> list[tuple[str, str, str]]:
    """(what, before, after) of every setting, suite revision and part of the environment that is not the same."""
    sides = [dict(_facts(run)) for run in (before, after)]
    found = []
    for what in dict.fromkeys([*sides[0], *sides[1]]):
        earlier, later = (side.get(what) for side in sides)
        if earlier != later:
            found.append((what, _shown(earlier), _shown(later)))
    return found


def _facts(run: Run) -> Iterator[tuple[str, Any]]:
    for block in ("model", "finetune", "evaluate"):
        value = getattr(run.experiment, block)
        yield from _flat(block, value.model_dump(mode="json") if value else None)
    yield from _flat("suite revision", run.suite_revisions)
    yield from _flat("environment", dataclasses.asdict(run.environment))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(f"{name}.{key}", part)
    else:
        yield name, value


def _shown(value: Any) -> str:
    return "\u2013" if value is None else str(value)


def _arm(run: Run, asked: str | None) -> str:
    has = set(run.samples["arm"].astype(str).unique())
    chosen = chosen_arm(run)
    arm = asked or (chosen if chosen in has else BASE)
    if arm not in has:
        raise UsageError(f"{run.folder} has no answers of arm {arm!r}: it has {', '.join(sorted(has)) or 'none at all'}")
    return str(arm)


def _name(letter: str, arm: str) -> str:
    return f"{letter}: {arm}"


def _renamed(letter: str, record: ArmRecord) -> ArmRecord:
    return dataclasses.replace(record, arm=_name(letter, record.arm))


def _frames(letter: str, run: Run, arm: str) -> dict[str, pd.DataFrame]:
    """The arm's samples, and base's where there are any, under their new names."""
    wanted = {arm, BASE} & set(run.samples["arm"].astype(str).unique())
    return {name: run.samples[run.samples["arm"] == name].assign(arm=_name(letter, name)) for name in sorted(wanted)}


def _compared(before: pd.DataFrame, after: pd.DataFrame) -> list[Comparison]:
    """In every place that both were asked; a metric that was not measured is left out, accuracy never is."""
    keys = ["suite", "split", "effort"]
    places = before[keys].drop_duplicates().merge(after[keys].drop_duplicates())
    found = []
    for suite, split, effort in places.itertuples(index=False):
        made = [compare(before, after, suite=str(suite), split=str(split), effort=str(effort), metric=metric) for metric in METRICS]
        found += [one for one in made if one.delta is not None or one.metric == "accuracy"]
    return found
