"""A gate's interval against its margin, as a small SVG drawn by hand: it must be seen at a glance, before any figure."""

from __future__ import annotations

from markupsafe import Markup

from bench.experiment import Gate
from bench.records import Verdict
from bench.report import words

WIDTH, LEFT, RIGHT, LINE = 400, 14, 386, 22


def draw_strip(gate: Verdict, asked: Gate | None) -> Markup | str:
    """The margin as an edge, the forbidden side hatched, the interval as a bar; empty where none is held against a plain margin."""
    if asked is not None and (asked.relative or asked.type not in ("non_inferiority", "superiority")):
        return ""
    if gate.ci is None or gate.delta is None or asked is None or not all(words.known(value) for value in (*gate.ci, gate.delta)):
        return ""
    edge = words.bar(asked)
    values = [*gate.ci, edge, 0.0]
    room = 0.12 * ((max(values) - min(values)) or 1.0)
    low, high = min(values) - room, max(values) + room

    def at(value: float) -> str:
        return f"{LEFT + (RIGHT - LEFT) * (value - low) / (high - low):.1f}"

    good_is_right = words.metric_words(gate.metric).more_is_better
    bad = (LEFT, float(at(edge))) if good_is_right else (float(at(edge)), RIGHT)
    label = (
        f"interval {words.change_interval(gate.metric, gate.ci)}, estimate {words.change(gate.metric, gate.delta)}, "
        f"margin at {words.change(gate.metric, edge)}"
    )
    edge_text = words.change(gate.metric, edge, unit=False)
    anchors = [(at(edge), f"{edge_text} margin", "edge-text")]
    if abs(float(at(0.0)) - float(at(edge))) > 52:
        anchors.append((at(0.0), "0", "zero-text"))
    texts = "".join(f'<text class="{name}" x="{x}" y="48">{text}</text>' for x, text, name in anchors)
    return Markup(
        f'<svg class="strip" viewBox="0 0 {WIDTH} 54" role="img" aria-label="{label}">'
        f'<rect class="bad" x="{bad[0]:.1f}" y="6" width="{max(0.0, bad[1] - bad[0]):.1f}" height="{2 * (LINE - 6)}"/>'
        f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{LINE}" y2="{LINE}"/>'
        f'<line class="zero" x1="{at(0.0)}" x2="{at(0.0)}" y1="10" y2="{LINE + 12}"/>'
        f'<line class="edge" x1="{at(edge)}" x2="{at(edge)}" y1="4" y2="{LINE + 16}"/>'
        f'<line class="interval" x1="{at(gate.ci[0])}" x2="{at(gate.ci[1])}" y1="{LINE}" y2="{LINE}"/>'
        f'<line class="cap" x1="{at(gate.ci[0])}" x2="{at(gate.ci[0])}" y1="{LINE - 6}" y2="{LINE + 6}"/>'
        f'<line class="cap" x1="{at(gate.ci[1])}" x2="{at(gate.ci[1])}" y1="{LINE - 6}" y2="{LINE + 6}"/>'
        f'<circle class="estimate" cx="{at(gate.delta)}" cy="{LINE}" r="5"/>'
        f"{texts}</svg>"
    )
