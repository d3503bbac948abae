"""A run -> what the first screen says: the verdict in a sentence, the numbers that matter, what was run on what."""

from __future__ import annotations

from dataclasses import dataclass

from bench.gate import NOT_TESTED
from bench.records import Comparison, Run, Verdict, VerdictName
from bench.report import words
from bench.report.cells import Cells
from bench.report.focus import Focus, asked_gate, deciding_gate, find_comparison, verdict_name
from bench.report.strip import draw_strip
from bench.report.tables import direction


@dataclass(frozen=True, slots=True)
class Tile:
    """One number that matters."""

    title: str
    number: str
    unit: str
    detail: str
    small: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class GateLine:
    """One gate on the first screen."""

    name: str
    verdict: VerdictName
    word: str
    sentence: str
    strip: str
    """SVG of the interval against the margin; empty where there is no interval."""


@dataclass(frozen=True, slots=True)
class Headline:
    """The first screen."""

    verdict: VerdictName | None
    word: str
    sentence: str
    second: str
    """The chosen arm and what it was chosen from."""
    gates: tuple[GateLine, ...]
    tiles: tuple[Tile, ...]
    facts: tuple[tuple[str, str], ...]
    """(what, value) pairs: what was run on what."""


def headline(run: Run, focus: Focus | None, cells: Cells) -> Headline:
    """Everything the first screen shows."""
    name = verdict_name(run)
    gates = run.verdict.gates if run.verdict else ()
    return Headline(
        verdict=name,
        word=words.VERDICTS[name] if name else "COMPARED" if focus and focus.pair else "NO VERDICT",
        sentence=pair_sentence(run, focus) if focus and focus.pair else verdict_sentence(run),
        second=" ".join(part for part in (_count_sentence(run), _chosen_sentence(run, focus)) if part),
        gates=tuple(_gate_line(run, gate) for gate in gates),
        tiles=(*_score_tiles(run, focus, cells), memory_tile(run, focus)),
        facts=facts(run, focus),
    )


def verdict_sentence(run: Run) -> str:
    """The verdict in one sentence, with its interval and margin."""
    gate = deciding_gate(run)
    if gate is not None:
        return gate_sentence(run, gate)
    if run.verdict is not None and run.verdict.verdict == "invalid":
        return "No gate could be judged."
    if not run.experiment.gates:
        return "This experiment has no gates: it measures, and judges nothing."
    return "The gates were not judged." if run.finished else "The run is not finished, so its gates were not judged."


def pair_sentence(run: Run, focus: Focus) -> str:
    """What the later run's arm changed, where two runs are compared and nothing is judged."""
    found = find_comparison(run, focus, "accuracy")
    if found is None or found.delta is None:
        return f"The two runs cannot be compared: {'; '.join(found.invalid_because) if found else 'they share no data'}."
    interval = f"95{words.NBSP}% interval {words.change_interval('accuracy', found.ci)}"
    change = words.change("accuracy", found.delta)
    return (
        f"{focus.chosen} changes accuracy at {focus.effort} effort by {change} against {focus.reference} ({interval}); nothing is judged."
    )


def gate_sentence(run: Run, gate: Verdict) -> str:
    """What one gate says, in words a release manager can act on, and whether it was waived."""
    waived = f" Waived: {gate.waived}" if gate.waived is not None else ""
    report_only = "" if gate.required else " Not required: the verdict does not rest on it."
    return f"{_finding(run, gate)}{report_only}{waived}"


def _finding(run: Run, gate: Verdict) -> str:
    metric = words.metric_words(gate.metric)
    asked = asked_gate(run, gate)
    subject = f"{words.gated_metric(gate)} at {gate.effort} effort"
    if gate.verdict == "invalid" or gate.delta is None:
        return f"No comparison of {subject} was made: {words.spoken('; '.join(gate.reasons)) or 'the reason was not recorded'}."
    if (
        NOT_TESTED in gate.flags
        or gate.type not in ("non_inferiority", "superiority")
        or (asked is not None and (asked.relative or asked.fail_on != "margin"))
    ):
        return f"{gate.arm}, {subject if gate.clusters else metric.name}: {words.spoken('; '.join(gate.reasons))}."
    against = "base" if gate.against == "base" else "the committed baseline"
    interval = f"95{words.NBSP}% interval {words.change_interval(gate.metric, gate.ci)}"
    consequence = _consequence(gate, asked.type if asked else "non_inferiority", metric.more_is_better)
    return f"{gate.arm} changes {subject} by {words.change(gate.metric, gate.delta)} against {against} ({interval}): {consequence}."


def _consequence(gate: Verdict, kind: str, more_is_better: bool) -> str:
    margin = words.size_of(gate.metric, gate.margin)
    if kind == "superiority":
        gain = "gain" if more_is_better else "saving"
        return {
            "pass": f"a {gain} of more than {margin} is shown",
            "fail": f"a {gain} of {margin} is ruled out",
        }.get(gate.verdict, f"too few problems to tell whether the {gain} exceeds {margin}")
    harm = "loss" if more_is_better else "rise"
    return {
        "pass": f"a {harm} of {margin} is ruled out",
        "fail": f"a {harm} of more than {margin} is shown",
    }.get(gate.verdict, f"too few problems to rule out a {harm} of {margin}")


def _gate_line(run: Run, gate: Verdict) -> GateLine:
    return GateLine(
        gate.name, gate.verdict, words.VERDICTS[gate.verdict], gate_sentence(run, gate), draw_strip(gate, asked_gate(run, gate))
    )


def _count_sentence(run: Run) -> str:
    gates = run.verdict.gates if run.verdict else ()
    passed = sum(gate.verdict == "pass" for gate in gates)
    return f"{passed} of {words.plural(len(gates), 'gate')} pass{'es' if passed == 1 else ''}." if len(gates) > 1 else ""


def _chosen_sentence(run: Run, focus: Focus | None) -> str:
    if focus is not None and focus.pair is not None:
        return f"A is {focus.pair.runs[0]}, B is {focus.pair.runs[1]}."
    tried = len(run.experiment.arms()) - 1
    failed = f", {len(run.failed_arms)} failed" if run.failed_arms else ""
    if tried == 0:
        return "Only the base model was run."
    if run.selection is not None and run.selection.chosen:
        return f"Chosen arm: {run.selection.chosen}, out of {tried} tried{failed}."
    if run.selection is not None:
        return f"No arm was chosen: none of {tried} tried was eligible{failed}."
    if focus is not None and focus.chosen:
        return f"Arm under test: {focus.chosen}{failed}."
    return f"{words.plural(tried, 'arm')} beside base, and no rule that chooses among them{failed}."


def _score_tiles(run: Run, focus: Focus | None, cells: Cells) -> tuple[Tile, ...]:
    if focus is None:
        return (
            Tile("Accuracy", words.UNKNOWN, "", "no samples were recorded", ""),
            Tile("Tokens", words.UNKNOWN, "", "no samples were recorded", ""),
        )
    if focus.chosen is None:
        tiles = {"accuracy": f"Accuracy of {focus.compared[0]}", "output_tokens": "Tokens of an answer"}
        return tuple(_level_tile(focus, cells, metric, title) for metric, title in tiles.items())
    return _change_tile(run, focus, "accuracy", "Accuracy change"), _change_tile(run, focus, "output_tokens", "Token change")


def _level_tile(focus: Focus, cells: Cells, metric: str, title: str) -> Tile:
    cell = cells.overall(metric, focus.compared[0], focus.suite, focus.split, focus.effort)
    if cell is None:
        return Tile(title, words.UNKNOWN, "", f"not measured at {focus.effort} effort", "")
    number, _, unit = words.level(metric, cell.mean).partition(words.NBSP)
    interval = f"95{words.NBSP}% interval {words.level_interval(metric, cell.low, cell.high)}"
    small = f"{interval}; {words.plural(cell.clusters, 'problem')} \u00d7 {words.plural(len(focus.languages), 'language')}"
    return Tile(title, number, unit or "tokens", f"{focus.compared[0]}, {focus.effort} effort", small)


def _change_tile(run: Run, focus: Focus, metric: str, title: str) -> Tile:
    found = find_comparison(run, focus, metric)
    title = f"{title}, {focus.effort} effort"
    if found is None or found.delta is None:
        reasons = "; ".join(found.invalid_because) if found else f"no comparison of {focus.chosen} with {focus.reference} on {focus.place}"
        return Tile(title, words.UNKNOWN, "", reasons, "")
    number, _, unit = words.change(metric, found.delta).partition(words.NBSP)
    relative = ""
    if metric != "accuracy" and found.before:
        percent = 100 * found.delta / found.before
        relative = f" ({words.signed(f'{abs(percent):.0f}', percent)}{words.NBSP}%)"
    detail = f"{words.level(metric, found.before)} \u2192 {words.level(metric, found.after)}{relative}"
    small = f"95{words.NBSP}% interval {words.change_interval(metric, found.ci)}; {_data_words(found)}"
    return Tile(title, number, unit, detail, small, direction(metric, found.ci))


def _data_words(found: Comparison) -> str:
    return f"{words.plural(found.clusters, 'problem')} \u00d7 {words.plural(len(found.languages), 'language')}"


def memory_tile(run: Run, focus: Focus | None) -> Tile:
    """Peak VRAM, or peak host memory where there is no GPU; a peak nobody measured is unknown."""
    gpu = run.environment.gpu is not None
    kind, unit = ("Peak VRAM", "of the device") if gpu else ("Peak host memory", "no GPU")
    arms = (focus.chosen, focus.reference) if focus and focus.chosen else None
    evaluating = _peak([p.peak_vram_bytes if gpu else p.peak_rss_bytes for p in run.phases if arms is None or p.arm in arms])
    trained = [item for arm, item in run.training.items() if arms is None or arm in arms]
    training = _peak([item.peak_vram_bytes if gpu else item.peak_rss_bytes for item in trained])
    number, _, amount = words.size(_peak([evaluating, training] if trained else [evaluating])).partition(words.NBSP)
    parts = [f"training {words.size(training)}"] if trained else []
    detail = ", ".join([*parts, f"evaluating {words.size(evaluating)}"])
    total = run.environment.gpu_memory_bytes if gpu else run.environment.memory_bytes
    small = f"{unit}'s {words.size(total)}" if gpu else f"{unit}; the machine has {words.size(total)}"
    small += "; measured once, without interval" if number != words.UNKNOWN else ""
    return Tile(kind, number, amount, detail, small)


def _peak(values: list[int | None]) -> int | None:
    """None where any part is unknown: a maximum over the known ones could be too small."""
    measured = [value for value in values if value is not None]
    return max(measured) if measured and len(measured) == len(values) else None


def facts(run: Run, focus: Focus | None) -> tuple[tuple[str, str], ...]:
    """What was run on what."""
    experiment, environment = run.experiment, run.environment
    model = experiment.model
    precision = "4-bit" if model.load_in_4bit else model.dtype
    revision = f", revision {model.revision[:12]}" if model.revision else ""
    finetune = experiment.finetune
    rows = [("Model", f"{model.id}, {precision}{revision}")]
    if finetune:
        grid = f"ranks {', '.join(map(str, finetune.ranks))} \u00d7 steps {', '.join(map(str, finetune.steps))}"
        seeds = f", {words.plural(len(finetune.seeds), 'training seed')}"
        rows.append(("Fine-tuning", f"{' and '.join(finetune.methods)} on {finetune.dataset.id}; {grid}{seeds}"))
    if experiment.adapters:
        rows.append(("Adapters", words.listed([adapter.name for adapter in experiment.adapters])))
    if focus is not None:
        places = ", ".join(f"{suite}@{split}" for suite, split in focus.data)
        asked = f"{places}; {', '.join(focus.languages)}; {', '.join(focus.efforts)} effort"
        rows.append(("Questions", f"{asked}; {len(run.samples):,} answers"))
    machine = environment.gpu or f"{environment.cpu}, {words.plural(environment.cpu_count, 'core')}, no GPU"
    rows.append(("Machine", machine))
    packages = [name for name in ("torch", "unsloth", "transformers", "lm-eval") if name in environment.packages]
    shown = [f"{name} {environment.packages[name]}" for name in packages]
    rows.append(("Software", ", ".join([f"Python {environment.python}", *shown])))
    commit = environment.git_commit[:10] if environment.git_commit else words.UNKNOWN
    dirty = {True: ", with uncommitted changes", False: "", None: ", cleanliness unknown"}[environment.git_dirty]
    rows.append(("Commit", f"{commit}{dirty}"))
    return tuple(rows)
