"""Published figures of a suite, where a run asked the same suite of the same model; elsewhere there is nothing to lay beside it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from bench.experiment import EFFORTS
from bench.records import Run
from bench.report.focus import Focus


@dataclass(frozen=True, slots=True)
class Published:
    """What others measured, by language and effort."""

    suite: str
    metric: str
    model: str
    """Part of the ids of the models it is about."""
    source: str
    differs: str
    """Why ours need not be the same."""
    values: dict[tuple[str, str], float]
    """A fraction by (language, effort)."""


def find_published(run: Run, focus: Focus) -> Published | None:
    """Of the focused suite and the run's base model; None where nothing comparable was published."""
    found = _all().get(focus.suite)
    if found is None or found.model not in run.experiment.model.id.lower() or focus.reference != "base" or "base" not in focus.arms:
        return None
    return found if any((language, effort) in found.values for language in focus.languages for effort in focus.efforts) else None


@cache
def _all() -> dict[str, Published]:
    folder = files("bench.report") / "published"
    read = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in folder.iterdir() if path.name.endswith(".yaml")]
    return {one["suite"]: _published(one) for one in read}


def _published(one: dict[str, str | dict[str, list[float]]]) -> Published:
    values = one["values"]
    assert isinstance(values, dict)
    shares = {(language, effort): percent / 100 for language, row in values.items() for effort, percent in zip(EFFORTS, row, strict=True)}
    suite, metric, model, source, differs = (str(one[key]) for key in ("suite", "metric", "model", "source", "differs"))
    return Published(suite, metric, model, source, differs, shares)
