"""A run -> what its page is about: the chosen arm, the data that judge it, and the effort that matters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bench.catalog import language_names
from bench.experiment import EFFORTS, Gate
from bench.records import SEVERITY, Comparison, Run, Verdict, VerdictName


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs shown as one: an arm of each, and how the runs differ."""

    before: str
    """Name of the earlier run's arm in the joined run."""
    after: str
    runs: tuple[str, str]
    """What the two are called: run folders."""
    differences: tuple[tuple[str, str, str], ...]
    """(what, before, after) of all that may matter and is not the same."""


@dataclass(frozen=True, slots=True)
class Focus:
    """The choices every part of the report shares."""

    arms: tuple[str, ...]
    """Arms with samples, base first, then in the experiment's order."""
    chosen: str | None
    """The arm that was or would be gated; None where there is none, or several and no rule."""
    compared: tuple[str, ...]
    """Base and the chosen arm, those of them with samples on the focused data; all arms where nothing is chosen."""
    data: tuple[tuple[str, str], ...]
    """Every (suite, split) with samples, the focused one first."""
    efforts: tuple[str, ...]
    languages: tuple[str, ...]
    effort: str
    """The effort that is gated, or selected on, or the highest."""
    taught: frozenset[str] | None = None
    """Those of `languages` that the fine-tuning rows reason in; None where no record says."""
    pair: Pair | None = None
    """Set where two runs are compared."""
    reference: str = "base"
    """The arm that others are compared with."""

    @property
    def suite(self) -> str:
        """Suite of the focused data."""
        return self.data[0][0]

    @property
    def split(self) -> str:
        """Split of the focused data."""
        return self.data[0][1]

    @property
    def place(self) -> str:
        """The focused data as `suite@split`."""
        return f"{self.suite}@{self.split}"


def focus_on(run: Run, pair: Pair | None = None) -> Focus | None:
    """None where a run has no samples at all."""
    seen = run.samples[["arm", "suite", "split", "language", "effort"]].drop_duplicates()
    if seen.empty:
        return None
    order = [arm.name for arm in run.experiment.arms()]
    rank = {arm: position for position, arm in enumerate(order)}
    arms = tuple(sorted({str(arm) for arm in seen["arm"]}, key=lambda arm: (rank.get(arm, len(order)), arm)))
    data = _ordered_data(run, list(dict.fromkeys(zip(seen["suite"].astype(str), seen["split"].astype(str), strict=True))))
    here = seen[(seen["suite"] == data[0][0]) & (seen["split"] == data[0][1])]
    chosen, reference = (pair.after, pair.before) if pair else (chosen_arm(run), "base")
    with_samples = set(here["arm"].astype(str))
    compared = tuple(arm for arm in arms if arm in with_samples and (arm in (reference, chosen) or chosen is None))
    efforts = tuple(effort for effort in EFFORTS if effort in set(seen["effort"]))
    return Focus(
        arms=arms,
        chosen=chosen,
        compared=compared or arms,
        data=tuple(data),
        efforts=efforts,
        languages=tuple(sorted(here["language"].astype(str).unique())),
        effort=_main_effort(run, efforts),
        taught=_taught(run, here["language"].astype(str).unique()),
        pair=pair,
        reference=reference,
    )


def _taught(run: Run, languages: Iterable[str]) -> frozenset[str] | None:
    """Rows name a language in English or by its code."""
    rows = {name.casefold() for training in run.training.values() for name in training.languages}
    names = language_names()
    return frozenset(code for code in languages if {code.casefold(), names.get(code, code).casefold()} & rows) if rows else None


def chosen_arm(run: Run) -> str | None:
    """By the selection, else as gated, else the only arm beside base."""
    if run.selection is not None:
        return run.selection.chosen
    gated = [gate.arm for gate in run.verdict.gates if gate.arm] if run.verdict else []
    others = [arm.name for arm in run.experiment.arms() if arm.kind != "base"]
    return gated[0] if gated else others[0] if len(others) == 1 else None


def deciding_gate(run: Run) -> Verdict | None:
    """The worst required gate, and of equals the first: the one the verdict rests on. None without gates or before they are judged."""
    gates = [gate for gate in run.verdict.gates if gate.required] if run.verdict else []
    return max(gates, key=lambda gate: SEVERITY.index(gate.verdict), default=None)


def asked_gate(run: Run, verdict: Verdict) -> Gate | None:
    """The experiment's gate that a verdict answers."""
    return next((gate for gate in run.experiment.gates if gate.name == verdict.name), None)


def find_comparison(run: Run, focus: Focus, metric: str, effort: str | None = None, arm: str | None = None) -> Comparison | None:
    """The comparison with the reference on the focused data over all languages; None where there is none."""
    wanted = (arm or focus.chosen, focus.suite, focus.split, effort or focus.effort, metric)
    found = [c for c in run.comparisons if (c.arm, c.suite, c.split, c.effort, c.metric) == wanted and c.against == focus.reference]
    return max(found, key=lambda comparison: len(comparison.languages), default=None)


def verdict_name(run: Run) -> VerdictName | None:
    """None: there are no gates, or they were not judged."""
    return run.verdict.verdict if run.verdict and (run.verdict.gates or run.verdict.verdict == "invalid") else None


def _ordered_data(run: Run, data: list[tuple[str, str]]) -> list[tuple[str, str]]:
    first = [(block.suite, block.split) for block in (run.experiment.confirm, run.experiment.select) if block]
    return sorted(data, key=lambda place: (first.index(place) if place in first else len(first), place))


def _main_effort(run: Run, efforts: tuple[str, ...]) -> str:
    named = [gate.effort for gate in run.experiment.gates]
    named += [run.experiment.select.effort] if run.experiment.select else []
    return next((effort for effort in named if effort in efforts), efforts[-1] if efforts else EFFORTS[-1])
