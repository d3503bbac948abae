"""A gate's interval against its margin, as a small SVG drawn by hand: it must be seen at a glance, before any figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from markupsafe import Markup

from bench.experiment import Gate
from bench.records import Verdict
from bench.report import words

WIDTH, LEFT, RIGHT, LINE, HALF_TEXT = 400, 14, 386, 22, 52


class _Held(NamedTuple):
    """An interval and what it is held against, all in one unit."""

    low: float
    estimate: float
    high: float
    edge: float
    good_is_right: bool
    text: Callable[[float], str]


def _held(gate: Verdict, asked: Gate | None) -> _Held | None:
    """None where no interval is held against a plain margin."""
    if asked is None or asked.relative:
        return None
    ratio, ends = gate.evidence.get("ratio"), gate.evidence.get("ratio_ci")
    if asked.type == "max_ratio" and ratio is not None and ends is not None:
        return _Held(ends[0] - 1, ratio - 1, ends[1] - 1, asked.margin, False, _percent)
    if asked.type not in ("non_inferiority", "superiority") or gate.ci is None or gate.delta is None:
        return None
    more_is_better = words.metric_words(gate.metric).more_is_better
    return _Held(
        gate.ci[0], gate.delta, gate.ci[1], words.bar(asked), more_is_better, lambda value: words.change(gate.metric, value, unit=False)
    )


def _percent(value: float) -> str:
    return words.signed(f"{abs(100 * value):.1f}", value) + f"{words.NBSP}%"


def _rests_on(gate: Verdict) -> str:
    return words.plural(gate.clusters, "timing block" if "blocks" in gate.evidence else "problem")


def draw_strip(gate: Verdict, asked: Gate | None) -> Markup | str:
    """The margin as an edge, the forbidden side hatched, the interval as a bar; empty where none is held against a plain margin."""
    held = _held(gate, asked)
    if held is None or not all(words.known(value) for value in held[:4]):
        return ""
    edge = held.edge
    values = [*held[:4], 0.0]
    room = 0.12 * ((max(values) - min(values)) or 1.0)
    low, high = min(values) - room, max(values) + room

    def at(value: float) -> str:
        return f"{LEFT + (RIGHT - LEFT) * (value - low) / (high - low):.1f}"

    bad = (LEFT, float(at(edge))) if held.good_is_right else (float(at(edge)), RIGHT)
    low_text, estimate_text, high_text, edge_text = (held.text(value) for value in held[:4])
    label = f"interval {low_text} to {high_text}, estimate {estimate_text}, margin at {edge_text}"
    middle = min(max(float(at(edge)), LEFT + HALF_TEXT), RIGHT - HALF_TEXT)  # a label at the rim would be cut off
    anchors = [(f"{middle:.1f}", f"{edge_text} margin", "edge-text")]
    if abs(float(at(0.0)) - middle) > HALF_TEXT:
        anchors.append((at(0.0), "0", "zero-text"))
    texts = "".join(f'<text class="{name}" x="{x}" y="48">{text}</text>' for x, text, name in anchors)
    return Markup(
        f'<svg class="strip" viewBox="0 0 {WIDTH} 54" role="img" aria-label="{label}">'
        f"<title>{label}; {_rests_on(gate)}</title>"
        f'<rect class="bad" x="{bad[0]:.1f}" y="6" width="{max(0.0, bad[1] - bad[0]):.1f}" height="{2 * (LINE - 6)}"/>'
        f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{LINE}" y2="{LINE}"/>'
        f'<line class="zero" x1="{at(0.0)}" x2="{at(0.0)}" y1="10" y2="{LINE + 12}"/>'
        f'<line class="edge" x1="{at(edge)}" x2="{at(edge)}" y1="4" y2="{LINE + 16}"/>'
        f'<line class="interval" x1="{at(held.low)}" x2="{at(held.high)}" y1="{LINE}" y2="{LINE}"/>'
        f'<line class="cap" x1="{at(held.low)}" x2="{at(held.low)}" y1="{LINE - 6}" y2="{LINE + 6}"/>'
        f'<line class="cap" x1="{at(held.high)}" x2="{at(held.high)}" y1="{LINE - 6}" y2="{LINE + 6}"/>'
        f'<circle class="estimate" cx="{at(held.estimate)}" cy="{LINE}" r="5"/>'
        f"{texts}</svg>"
    )
