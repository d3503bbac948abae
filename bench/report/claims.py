"""Published claims about fine-tuning gpt-oss-20b, each beside what this run measured of the same thing, as a table.

A run answers where it trained a model of gpt-oss-20b's shape on a GPU, real weights or not; about any other model the claims say nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from bench.experiment import Finetune
from bench.records import Run, Training
from bench.report import words
from bench.report.cost_tables import ONCE
from bench.report.tables import Column, Entry, Table, once

Side = Mapping[str, list[str]]
"""Field of a training record -> the values it may have."""
ALIKE = ("rank", "steps", "seed", "layout", "trainable_by_kind")
"""Fields of a training record in which the two sides of a ratio may not differ."""
NOTE = (
    "The claims\u2019 authors measured other cards, releases and rivals: a row that does not match is no proof of a false claim. "
    "Of several arms that could answer, the one of the lowest rank does. A GiB is 1.074 GB."
)


@dataclass(frozen=True, slots=True)
class Claim:
    """One entry of claims.yaml, which explains its fields."""

    claim: str
    by: str
    under: str
    of: Side
    measure: Literal["peak_reserved_bytes", "median_step_s"]
    says: Literal["size", "less", "faster"]
    over: Side | None = None


def claims(run: Run) -> Table | None:
    """The claims that the run has a training run for; None where it can answer none of them."""
    shape, known = _published()
    trainings = sorted((one for one in run.training.values() if _is_about(one, shape)), key=lambda one: (one.rank, -one.steps))
    finetune = run.experiment.finetune
    if finetune is None:
        return None
    found = [(claim, _sides(claim, trainings)) for claim in known]
    rows = [
        (Entry(claim.claim, small=f"{claim.by}; {claim.under}"), _measured_entry(claim, *sides), _conditions(run, finetune, *sides))
        for claim, sides in found
        if any(sides)
    ]
    if all(_value(claim, *sides) is None for claim, sides in found):
        return None
    columns = (
        Column("claimed", "And by whom, under which conditions.", numeric=False),
        Column("measured here", "By this run\u2019s own training; unknown where it has one side of a ratio alone."),
        Column("conditions", numeric=False),
    )
    return Table("claims", "Published claims, and this run", columns, tuple(rows), NOTE, ONCE)


def _is_about(training: Training, shape: Mapping[str, int]) -> bool:
    """Trained on a GPU, with as many parameters a rank as LoRA has on the model that the claims are about."""
    counts = {kind: number for kind, number in training.trainable_by_kind.items() if number}
    return (
        training.status == "trained"
        and training.peak_reserved_bytes is not None
        and bool(counts)
        and all(number == shape.get(kind, 0) * training.rank for kind, number in counts.items())
    )


def _sides(claim: Claim, trainings: Iterable[Training]) -> tuple[Training | None, Training | None]:
    """Who answers, and for a ratio whom it is compared with; None where there is none."""
    ours = [one for one in trainings if _matches(one, claim.of)]
    others = [one for one in trainings if claim.over is not None and _matches(one, claim.over)]
    pairs = ((one, other) for one in ours for other in others if _kept(one) == _kept(other))
    return next(pairs, (next(iter(ours), None), None if ours else next(iter(others), None)))


def _matches(training: Training, side: Side) -> bool:
    return all(getattr(training, field) in values for field, values in side.items())


def _kept(training: Training) -> list[Any]:
    return [getattr(training, field) for field in ALIKE]


def _value(claim: Claim, ours: Training | None, other: Training | None) -> float | None:
    """Bytes, the share that is saved, or times as fast; None where a side of it is unknown."""
    one = _measure(claim, ours)
    if claim.over is None or one is None:
        return one
    against = _measure(claim, other)
    if not against:
        return None
    return 1 - one / against if claim.says == "less" else against / one


def _measure(claim: Claim, training: Training | None) -> float | None:
    if training is None:
        return None
    if claim.measure == "peak_reserved_bytes":
        return training.peak_reserved_bytes
    return next((phase["median_step_s"] for phase in training.phases if phase["name"] == "steady"), None)


def _measured_entry(claim: Claim, ours: Training | None, other: Training | None) -> Entry:
    value = _value(claim, ours, other)
    if value is None:
        missing = claim.of if ours is None else claim.over
        lacks = ", ".join(f"{field.replace('_', ' ')} {' or '.join(values)}" for field, values in (missing or {}).items())
        return Entry(words.UNKNOWN, small=f"no like arm with {lacks}" if ours is None or other is None else "")
    if claim.over is None:
        return once(words.size(value), value, f"{value / 1e9:.2f}{words.NBSP}GB")
    shown = words.size if claim.measure == "peak_reserved_bytes" else words.seconds
    both = " against ".join(shown(_measure(claim, side)) for side in (ours, other))
    if claim.says == "faster":
        return once(f"{words.decimal(value, 2)} times as fast", value, f"{both} a step")
    return once(f"{words.share(abs(value))} {'less' if value >= 0 else 'more'}", value, both)


def _conditions(run: Run, finetune: Finetune, ours: Training | None, other: Training | None) -> Entry:
    sides = [side for side in (ours, other) if side is not None]
    first = sides[0]
    checkpointing = " against ".join(dict.fromkeys(side.gradient_checkpointing or words.UNKNOWN for side in sides))
    rows = f"{finetune.batch_size} \u00d7 {finetune.gradient_accumulation} rows of at most {finetune.max_length:,} tokens a step"
    return Entry(
        f"{' against '.join(side.arm for side in sides)}: {first.layout or 'layout unknown'}, {finetune.targets}, r={first.rank}",
        small=f"{rows}, gradient checkpointing {checkpointing}, {run.environment.gpu or 'GPU unknown'}",
    )


@cache
def _published() -> tuple[dict[str, int], tuple[Claim, ...]]:
    """LoRA's parameters a rank on the model, by kind; and what is claimed."""
    read = yaml.safe_load((files("bench.report") / "claims.yaml").read_text(encoding="utf-8"))
    return read["shape"], tuple(Claim(**one) for one in read["claims"])
