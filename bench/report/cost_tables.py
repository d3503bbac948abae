"""What answers, training and evaluation cost -> tables: tokens, the Pareto set, training; and the keys of what was paid for."""

from __future__ import annotations

import itertools

from bench import records
from bench.pareto import DRAWS, ParetoPoint
from bench.records import Run, Training, TrainingPhase
from bench.report import words
from bench.report.cells import Cells
from bench.report.focus import Focus
from bench.report.tables import Column, Entry, Table, cell_entry, field_hints, level_entry, once, raw

TOKENS = ("prompt_tokens", "reasoning_tokens", "final_tokens", "output_tokens")
ONCE = "Each number was measured once and has no interval."
PHASE_NAMES = {"load": "load", "lora": "LoRA", "first_step": "first step", "steady": "steady steps", "save": "save"}


def tokens(focus: Focus, cells: Cells) -> Table | None:
    """Mean tokens an answer by arm and effort."""
    rows = []
    for arm, effort in itertools.product(focus.compared, focus.efforts):
        found = {metric: cells.overall(metric, arm, focus.suite, focus.split, effort) for metric in (*TOKENS, "latency_s")}
        if any(found.values()):
            name = Entry(arm, tone="chosen" if arm == focus.chosen else "")
            rows.append((name, Entry(effort), *(cell_entry(metric, cell) for metric, cell in found.items())))
    if not rows:
        return None
    hints = field_hints(records.Sample)
    columns = (
        Column("arm", numeric=False),
        Column("effort", numeric=False),
        Column("prompt"),
        Column("reasoning", hints.get("reasoning_tokens", "")),
        Column("final", hints.get("final_tokens", "")),
        Column("output", hints.get("output_tokens", "")),
        Column("latency, throughput mode", hints.get("latency_s", "")),
    )
    return Table(
        "tokens",
        "Mean tokens of an answer",
        columns,
        tuple(rows),
        f"{focus.place}; counted from token ids, not from text. Small print: 95 % interval, clustered by problem.",
    )


def pareto(focus: Focus, cells: Cells) -> Table | None:
    """Accuracy and cost of every arm at every effort on the focused data, and how surely no other beats it in both."""
    asked = (focus.suite, focus.split)
    costs = {cost: {(one.arm, one.effort): one for one in cells.pareto(cost, *asked)} for cost in ("output_tokens", "latency_s")}
    rows = []
    for arm, effort in itertools.product(focus.arms, focus.efforts):
        tokens, latency = (found.get((arm, effort)) for found in costs.values())
        if tokens is None:
            continue
        rows.append(
            (
                Entry(arm, tone="chosen" if arm == focus.chosen else ""),
                Entry(effort),
                level_entry("accuracy", tokens.accuracy, tokens.accuracy_ci, tokens.problems),
                level_entry("output_tokens", tokens.cost, tokens.cost_ci, tokens.problems),
                _member(tokens),
                level_entry("latency_s", latency.cost, latency.cost_ci, latency.problems) if latency else Entry(words.MISSING),
                _member(latency),
            )
        )
    if not rows:
        return None
    columns = (
        Column("arm", numeric=False),
        Column("effort", numeric=False),
        Column("accuracy"),
        Column("tokens"),
        Column("in the set by tokens", "Share of draws of the problems in which no other is as accurate and as cheap."),
        Column("latency, throughput mode", field_hints(records.Sample).get("latency_s", "")),
        Column("in the set by latency", "Share of draws of the problems in which no other is as accurate and as fast."),
    )
    note = (
        f"{focus.place}, the problems that all of them answered. Small print: 95 % intervals, clustered by problem. The Pareto set holds "
        f"what no other beats in both; small print: whether it does as measured. Draws: {DRAWS:,}, with replacement. Latency is of one "
        "pass an arm."
    )
    return Table("pareto", "Worth its cost: the Pareto set", columns, tuple(rows), note)


def _member(point: ParetoPoint | None) -> Entry:
    if point is None:
        return Entry(words.MISSING)
    return Entry(
        words.share(point.share, 0),
        raw(point.share),
        n=point.problems,
        small="as measured: yes" if point.is_member else "as measured: no",
        hint=f"of {DRAWS:,} draws of the problems, without interval",
    )


def training(run: Run) -> Table | None:
    """How each arm was trained and what it cost."""
    if not run.training:
        return None
    hints = field_hints(Training)
    columns = (
        Column("arm", numeric=False),
        Column("rank"),
        Column("steps"),
        Column(
            "layout",
            f"{hints.get('layout', '')} Small print: gradient checkpointing, and keys of the checkpoint that the load reported.",
            numeric=False,
        ),
        Column("trained", "Trainable parameters."),
        Column("loss", "First and last logged."),
        Column("held-out loss", hints.get("held_out_loss", "")),
        Column("supervised", hints.get("supervised_tokens", "")),
        Column("time", hints.get("wall_s", "")),
        Column("peak memory", hints.get("peak_rss_bytes", "")),
        Column("adapter"),
    )
    chosen = run.selection.chosen if run.selection else None
    rows = tuple(_training_row(item, item.arm == chosen) for item in run.training.values())
    note = words.listed(sorted({f"{item.method}, {item.optimizer or 'optimizer unknown'}" for item in run.training.values()}))
    shared = sorted({item.shared_run for item in run.training.values() if item.shared_run})
    note += f"; one training run served several step counts ({', '.join(shared)})" if shared else ""
    return Table("training", "How each arm was trained", columns, rows, f"{note}.", ONCE)


def _training_row(item: Training, chosen: bool) -> tuple[Entry, ...]:
    name = Entry(item.arm, small="failed" if item.status == "failed" else "", tone="chosen" if chosen else "")
    kinds = {kind: number for kind, number in item.trainable_by_kind.items() if number}
    losses = [point.get("loss") for point in item.losses]
    channels = ", ".join(f"{channel}{words.NBSP}{number:,}" for channel, number in item.supervised_tokens.items())
    total = sum(item.supervised_tokens.values()) if item.supervised_tokens else None
    memory = item.peak_vram_bytes if item.peak_vram_bytes is not None else item.peak_rss_bytes
    kind = "VRAM" if item.peak_vram_bytes is not None else "host" if memory is not None else ""
    return (
        name,
        once(words.count(item.rank), item.rank, f"alpha{words.NBSP}{item.alpha:g}", is_count=True),
        once(words.count(item.steps), item.steps, is_count=True),
        Entry(item.layout or words.UNKNOWN, small=_loaded_words(item)),
        once(words.count(item.trainable_parameters), item.trainable_parameters, _kinds_words(kinds), is_count=True),
        once(words.first_to_last(losses), losses[-1] if losses else None),
        once(words.decimal(item.held_out_loss, 3), item.held_out_loss),
        once(words.count(total), total, channels, is_count=True),
        once(words.seconds(item.wall_s), item.wall_s),
        once(words.size(memory), memory, kind),
        once(words.size(item.adapter_bytes), item.adapter_bytes),
    )


def _loaded_words(item: Training) -> str:
    """Empty in records from before these were kept."""
    checkpointing = f"checkpointing {item.gradient_checkpointing}" if item.gradient_checkpointing else ""
    strange = ", ".join(f"{count:,}{words.NBSP}{kind}" for kind, count in item.load_report.items() if count)
    loaded = f"keys: {strange or 'all in place'}" if item.load_report else ""
    return "; ".join(filter(None, (checkpointing, loaded)))


def _kinds_words(kinds: dict[str, int]) -> str:
    """One kind is named, several also say how many parameters each has."""
    return ", ".join(kinds) if len(kinds) == 1 else ", ".join(f"{kind}{words.NBSP}{number:,}" for kind, number in kinds.items())


def training_phases(run: Run) -> Table | None:
    """Time, memory and energy of each phase of each arm's training; an arm that failed shows what it had reached."""
    gpu = run.environment.gpu is not None
    rows = []
    for training in run.training.values():
        for phase in training.phases:
            memory = ("peak_vram_bytes", "peak_reserved_bytes", "peak_process_bytes", "peak_device_bytes") if gpu else ()
            rows.append(
                (
                    Entry(training.arm, small="" if training.status == "trained" else "failed"),
                    Entry(training.method),
                    Entry(PHASE_NAMES.get(phase["name"], phase["name"])),
                    once(words.seconds(phase["wall_s"]), phase["wall_s"]),
                    once(words.seconds(phase["median_step_s"]) if phase["steps"] else words.MISSING, phase["median_step_s"]),
                    once(words.count(phase["tokens_per_s"]) if phase["steps"] else words.MISSING, phase["tokens_per_s"]),
                    *(once(words.size(phase[name]), phase[name]) for name in (*memory, "peak_rss_bytes")),
                    *([once(words.count(phase["energy_j"]), phase["energy_j"])] if gpu else []),
                )
            )
    if not rows:
        return None
    hints = field_hints(TrainingPhase)
    on_gpu = (
        Column("allocated", hints.get("peak_vram_bytes", "")),
        Column("reserved", hints.get("peak_reserved_bytes", "")),
        Column("process", hints.get("peak_process_bytes", "")),
        Column("device", hints.get("peak_device_bytes", "")),
    )
    columns = (
        Column("arm", numeric=False),
        Column("trainer", numeric=False),
        Column("phase", hints.get("name", ""), numeric=False),
        Column("time"),
        Column("step", hints.get("median_step_s", "")),
        Column("tokens a second", hints.get("tokens_per_s", "")),
        *(on_gpu if gpu else ()),
        Column("host memory", "Peak resident memory of the training process."),
        *([Column("energy, J", hints.get("energy_j", ""))] if gpu else []),
    )
    note = "Arms of one training run share its load, LoRA and first step. Peaks are the phase's own."
    return Table(
        "training-phases",
        "Training: time and memory of each phase",
        columns,
        tuple(rows),
        note,
        f"{ONCE} A step is the median of all steps of its phase.",
    )


def hashes(run: Run) -> Table | None:
    """The key of every cell: the hash of all that can change a score."""
    if not run.cells:
        return None
    rows = tuple(
        tuple(map(Entry, (cell.arm, f"{cell.suite}@{cell.split}", cell.language, cell.effort, str(cell.samples), cell.key)))
        for cell in run.cells
    )
    titles = ("arm", "data", "language", "effort", "answers", "key")
    columns = tuple(Column(title, numeric=title == "answers") for title in titles)
    note = "Same key: the same weights, adapter, template, decoding, suite, engine and dtype."
    return Table("cell-keys", "Cell keys", columns, rows, note)
