"""Numbers and untrusted text -> words for people.

A fraction becomes a percentage, a difference of fractions becomes points, and None or NaN becomes `unknown`, never 0. Text of
models and users is made safe to read here (controls, bidi overrides, size); escaping for HTML, XML and Markdown happens where it
is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.comparison import DESCRIBED, TRAITS
from bench.experiment import Gate
from bench.records import Verdict, VerdictName

UNKNOWN = "unknown"
MINUS = "\u2212"
NBSP = "\u00a0"
MISSING = "\u2013"
"""Stands in a table cell where a number does not apply or is unknown."""


@dataclass(frozen=True, slots=True)
class MetricWords:
    """How one metric is spoken of."""

    name: str
    unit: Literal["share", "tokens", "seconds", "bytes"]
    more_is_better: bool


_NAMES = {
    "accuracy": "accuracy",
    "reasoning_language_fidelity": "reasoning in the asked language",
    "truncation": "truncated answers",
    "empty_analysis": "empty analysis",
    "output_tokens": "output tokens",
    "reasoning_tokens": "reasoning tokens",
    "latency_s": "latency",
    "ttft_s": "time to first token",
}
_UNITS: dict[str, Literal["share", "tokens", "seconds"]] = {"points": "share", "tokens": "tokens", "s": "seconds"}

METRICS = {
    metric: MetricWords(_NAMES.get(metric, metric.replace("_", " ")), _UNITS[trait.unit], trait.more_is_better)
    for metric, trait in (TRAITS | DESCRIBED).items()
}

METRICS["inter_token_s"] = MetricWords("time between tokens", "seconds", False)
METRICS["peak_vram_bytes"] = MetricWords("peak VRAM", "bytes", False)

VERDICTS: dict[VerdictName, str] = {"pass": "PASS", "fail": "FAIL", "inconclusive": "INCONCLUSIVE", "invalid": "INVALID"}

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")


def metric_words(metric: str) -> MetricWords:
    """Words of a metric; one of an unknown name is shown under that name, as a share."""
    return METRICS.get(metric, MetricWords(metric.replace("_", " "), "share", True))


_IDENTIFIERS = re.compile("|".join(sorted((name for name in METRICS if "_" in name), key=len, reverse=True)))


def spoken(text: str) -> str:
    """A gate's sentence with metrics called by their names for people."""
    return _IDENTIFIERS.sub(lambda found: METRICS[found.group()].name, text)


def answers_metric(metric: str) -> str:
    """What a metric of the run's answers is called: their seconds are taken while other rows run beside them, unlike the probe's."""
    words = metric_words(metric)
    return f"{words.name}, throughput mode" if words.unit == "seconds" else words.name


def gated_metric(gate: Verdict) -> str:
    """What a gate's metric is called: a ratio of seconds is taken from the latency probe, anything else from the answers."""
    return metric_words(gate.metric).name if gate.type == "max_ratio" else answers_metric(gate.metric)


def known(value: float | None) -> bool:
    """Whether there is a number: neither None nor NaN nor infinite."""
    return value is not None and math.isfinite(value)


def signed(text: str, value: float) -> str:
    """Text of abs(value) with a typographic sign; none where the text shows a zero."""
    if not text.strip("0.,"):
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def share(value: float | None, digits: int = 1) -> str:
    """0.972 -> `97.2 %`."""
    return f"{100 * value:.{digits}f}{NBSP}%" if value is not None and known(value) else UNKNOWN


def count(value: float | None) -> str:
    """12345 -> `12,345`."""
    return f"{value:,.0f}" if value is not None and known(value) else UNKNOWN


def decimal(value: float | None, digits: int = 1) -> str:
    """84.86 -> `84.9`."""
    return f"{value:,.{digits}f}" if value is not None and known(value) else UNKNOWN


def first_to_last(values: Sequence[float | None]) -> str:
    """`2.14 → 0.25`, the ends of a series; unknown where there is none."""
    return f"{decimal(values[0], 2)} \u2192 {decimal(values[-1], 2)}" if values else UNKNOWN


def seconds(value: float | None) -> str:
    """0.0312 -> `31 ms`, 2.3 -> `2.30 s`, 75 -> `75 s`, 600 -> `10.0 min`."""
    if value is None or not known(value):
        return UNKNOWN
    if value < 1:
        return f"{1000 * value:.0f}{NBSP}ms"
    if value < 10:
        return f"{value:.2f}{NBSP}s"
    if value < 120:
        return f"{value:.1f}{NBSP}s"
    return f"{value / 60:.1f}{NBSP}min" if value < 7200 else f"{value / 3600:.1f}{NBSP}h"


def size(value: float | None) -> str:
    """Bytes -> `1.35 GiB`, `480 KiB`."""
    if value is None or not known(value):
        return UNKNOWN
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f}{NBSP}{unit}"
        value /= 1024
    return f"{value:.2f}{NBSP}GiB"


def level(metric: str, value: float | None) -> str:
    """A metric's value with its unit."""
    words = metric_words(metric)
    if words.unit == "share":
        return share(value)
    if words.unit == "bytes":
        return size(value)
    return seconds(value) if words.unit == "seconds" else decimal(value)


def change(metric: str, value: float | None, unit: bool = True) -> str:
    """A difference of two values of a metric: `−1.2 points`, `+3.1 tokens`, `+12 ms` (seconds always carry their unit)."""
    if value is None or not known(value):
        return UNKNOWN
    words = metric_words(metric)
    if words.unit == "seconds":
        small = abs(value) < 1
        return signed(f"{1000 * abs(value):.0f}" if small else f"{abs(value):.1f}", value) + NBSP + ("ms" if small else "s")
    if words.unit == "bytes":
        return signed(size(abs(value)), value)
    text = f"{abs(100 * value if words.unit == 'share' else value):,.1f}"
    name = "points" if words.unit == "share" else "tokens"
    return signed(text, value) + (f"{NBSP}{name}" if unit else "")


def size_of(metric: str, value: float) -> str:
    """A margin without sign: `5 points`."""
    words = metric_words(metric)
    if words.unit == "bytes":
        return size(value)
    amount = 100 * value if words.unit == "share" else value
    name = {"share": "point" if amount == 1 else "points", "tokens": "tokens", "seconds": "s"}[words.unit]
    return f"{amount:.6g}{NBSP}{name}"


def change_interval(metric: str, ci: tuple[float, float] | None) -> str:
    """`−2.9 to +0.5`, or `unknown`."""
    if ci is None or not (known(ci[0]) and known(ci[1])):
        return UNKNOWN
    return f"{change(metric, ci[0], unit=False)}{NBSP}to{NBSP}{change(metric, ci[1], unit=False)}"


def level_interval(metric: str, low: float | None, high: float | None) -> str:
    """`95.1 to 98.8`, in the unit of the level beside it; `unknown` where either end is."""
    if low is None or high is None or not (known(low) and known(high)):
        return UNKNOWN
    unit = metric_words(metric).unit
    if unit == "seconds":
        return f"{seconds(max(low, 0.0))}{NBSP}to{NBSP}{seconds(high)}"
    scale = 100 if unit == "share" else 1
    return NBSP.join([f"{max(scale * low, 0.0):,.1f}", "to", f"{scale * high:,.1f}"])


def bar(gate: Gate) -> float:
    """The value of delta that the interval must lie on the good side of."""
    towards_better = 1 if metric_words(gate.metric).more_is_better else -1
    return towards_better * (gate.margin if gate.type == "superiority" else -gate.margin)


def margin_of(gate: Gate | None, metric: str, margin: float) -> str:
    """A gate's margin in the unit it is meant in: `5 points`, `10 %`, `1 % of base's level`. `gate` None: a plain one."""
    if gate is None or (gate.type != "max_ratio" and not gate.relative):
        return size_of(metric, margin)
    return f"{100 * margin:.6g}{NBSP}%" + (
        f" of {gate.against if gate.against == 'base' else 'the baseline'}\u2019s level" if gate.relative else ""
    )


def question(gate: Gate) -> str:
    """What a gate asks, in words: `a loss of 5 points must be ruled out`."""
    margin = margin_of(gate, gate.metric, gate.margin)
    if gate.type == "max_ratio":
        return f"a rise of {margin} must be ruled out, as the geometric mean ratio"
    if gate.type == "language_guard":
        return f"no language may be shown to have a {'loss' if metric_words(gate.metric).more_is_better else 'rise'} of more than {margin}"
    if gate.type == "superiority":
        wanted = "gain" if metric_words(gate.metric).more_is_better else "saving"
        return f"a {wanted} of more than {margin} must be shown"
    harm = "loss" if metric_words(gate.metric).more_is_better else "rise"
    return f"a {harm} of {margin} must be ruled out"


def plural(number: int, noun: str) -> str:
    """`1 problem`, `250 problems`."""
    return f"{number:,}{NBSP}{noun}{'' if number == 1 else 's'}"


def listed(names: list[str] | tuple[str, ...]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def harmless(text: str, limit: int = 4000) -> str:
    """Untrusted text, readable as it is stored: controls and bidi overrides become visible, and long text is cut and says so."""
    shown = _CONTROLS.sub(lambda match: f"\u27e8U+{ord(match.group()):04X}\u27e9", text[:limit])
    left = len(text) - limit
    return f"{shown} \u2026 ({left:,} more characters)" if left > 0 else shown
