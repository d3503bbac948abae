"""What was seen: frozen values that all data flows through, from the engine to the report.

A `Sample` is one answer. A `CellId` names the samples of one arm x suite x split x language x effort. A `Comparison` is two arms (or a
run and its baseline) on the same items; a `Verdict` is what a gate says of it. None means unknown or not applicable, never zero.
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from bench.experiment import Experiment

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["correct", "wrong", "no_answer", "truncated", "malformed", "error"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "no_answer", "truncated", "malformed", "error")
StopReason = Literal["stop", "length", "error"]
VerdictName = Literal["pass", "fail", "inconclusive", "invalid"]

SCHEMA = 1
EXIT_CODES: dict[VerdictName, int] = {"pass": 0, "fail": 1, "inconclusive": 3, "invalid": 4}
SEVERITY: tuple[VerdictName, ...] = ("pass", "inconclusive", "fail", "invalid")
"""From best to worst; the worst gate of a run is the run's verdict."""


_HALF_PAIR = re.compile("[\ud800-\udfff]")


class CellId(NamedTuple):
    """Names one cell; sorts by arm, suite, split, language, effort."""

    arm: str
    suite: str
    split: str
    language: str
    effort: str


class Record:
    """Frozen dataclass <-> one JSON object with exactly its field names."""

    def to_json(self) -> str:
        """One line, keys in field order. Half a surrogate pair, which no file can hold, becomes U+FFFD."""
        line: str = json.dumps(dataclasses.asdict(self), ensure_ascii=False)  # type: ignore[call-overload]
        return _HALF_PAIR.sub("\ufffd", line)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Raises TypeError on unknown or missing fields."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Sample(Record):
    """One answer of one arm to one item."""

    arm: str
    suite: str
    split: str
    language: str
    effort: str
    item_id: str
    """Shared by an item's translations: the cluster of every interval."""
    sample_index: int
    """0 .. samples_per_item - 1."""
    seed: int | None
    """Seed of this row's own generator; None under greedy decoding."""
    outcome: Outcome
    score: float | None
    """0 to 1; None only where outcome is `error`."""
    answer: str | None
    """What the scorer read in the final channel; None where it found nothing."""
    target: str
    prompt_tokens: int
    reasoning_tokens: int | None
    """Content tokens of the analysis channel, without Harmony's own tokens. None where nothing was generated."""
    final_tokens: int | None
    """Content tokens of the final channel."""
    output_tokens: int | None
    """All generated tokens, Harmony's own and the stop token included."""
    stop_reason: StopReason
    latency_s: float | None
    """Seconds from entering the engine to the last token, other rows running beside it (throughput mode)."""
    ttft_s: float | None
    """Seconds from entering the engine to the first token, other rows running beside it (throughput mode)."""
    asked_reasoning_language: str | None
    """Language code asked for in the prompt; None where nothing was asked."""
    reasoning_language: str | None
    """Language code of the analysis text; None where there is none or it cannot be told."""
    prompt_hash: str
    """Key into prompts.jsonl."""
    completion: str
    """Raw text with its special tokens."""
    error: str | None
    """Cause, where outcome is `error`."""
    final_language: str | None = None
    """Language code of the final text; None where there is none or it cannot be told, as in "Answer: 18", or was not recorded."""

    @property
    def cell(self) -> CellId:
        """The cell this sample belongs to."""
        return CellId(self.arm, self.suite, self.split, self.language, self.effort)


@dataclass(frozen=True, slots=True)
class LossPoint(Record):
    """Training loss logged at one optimizer step."""

    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class TrainingPhase(Record):
    """What one phase of a training run cost; None where the machine cannot tell, and in a phase that failed."""

    name: Literal["load", "lora", "first_step", "steady", "save"]
    """`first_step` holds compilation; `steady` all later steps; `save` the adapters' writing, without held-out loss and checkpoints."""
    wall_s: float | None
    steps: int = 0
    """Optimizer steps in it."""
    tokens: int | None = None
    """Input tokens of those steps, without padding. None outside of steps."""
    median_step_s: float | None = None
    """Median seconds of its optimizer steps."""
    peak_vram_bytes: int | None = None
    """Peak allocated by torch, reset when the phase began."""
    peak_reserved_bytes: int | None = None
    peak_process_bytes: int | None = None
    """Device memory of the process by NVML."""
    peak_device_bytes: int | None = None
    """Memory in use on the device by NVML, other processes included."""
    peak_rss_bytes: int | None = None
    energy_j: float | None = None
    """Energy of the device by NVML's counter."""

    @property
    def tokens_per_s(self) -> float | None:
        """Input tokens a second."""
        return self.tokens / self.wall_s if self.tokens is not None and self.wall_s else None


@dataclass(frozen=True, slots=True)
class Training(Record):
    """How one arm was trained; stands in training/<arm>.json."""

    arm: str
    status: Literal["trained", "failed"]
    reason: str | None
    """Why it failed."""
    rank: int
    steps: int
    seed: int
    alpha: float
    method: str
    trainable_parameters: int | None
    trainable_by_kind: dict[str, int] = field(default_factory=dict)
    """Trainable parameters in `attention` and `experts`."""
    rows_kept: int | None = None
    rows_dropped: int | None = None
    supervised_tokens: dict[str, int] = field(default_factory=dict)
    """Tokens that carried loss, over all kept rows, by channel."""
    losses: list[dict[str, float]] = field(default_factory=list)
    """LossPoint objects in step order."""
    held_out_loss: float | None = None
    """Mean loss over the held-out rows after the last step; None too where memory did not suffice to measure it."""
    wall_s: float | None = None
    """Seconds of training up to this arm's last step, without loading."""
    peak_vram_bytes: int | None = None
    """Peak allocated on the device; None on a CPU."""
    peak_reserved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    """Peak resident memory of the training process."""
    adapter_bytes: int | None = None
    adapter_sha256: str | None = None
    optimizer: str | None = None
    """The optimizer that really ran: adamw_8bit, adamw_torch, adamw_torch_fused or adafactor."""
    key: str = ""
    """Hash of all that decides the adapter; the record is reused on resume only under the same key."""
    shared_run: str | None = None
    """Name of the longest arm of the same training run, where one run served several step counts."""
    languages: list[str] = field(default_factory=list)
    """Values of `reasoning_language` among the rows trained on, sorted; empty where the rows name none."""
    phases: list[dict[str, Any]] = field(default_factory=list)
    """TrainingPhase objects up to this arm's last step, each phase once, with `tokens_per_s`."""
    layout: str | None = None
    """How the base's experts lie in memory: float32, bfloat16, float16, mxfp4-packed, nf4-fused or nf4-per-expert."""
    load_report: dict[str, int] = field(default_factory=dict)
    """How many missing, unexpected and mismatched keys the base's loading reported."""
    gradient_checkpointing: str | None = None
    """`unsloth`, `plain` or `off`: what was asked of the trainer."""
    resumed_from: int | None = None
    """Step of the checkpoint that an interrupted training went on from."""


@dataclass(frozen=True, slots=True)
class CellRecord(Record):
    """What run.json says of a cell before its first sample is written."""

    arm: str
    suite: str
    split: str
    language: str
    effort: str
    key: str
    """Hash of all that can change a score."""
    samples: int | None
    """How many it will hold; None until its data are loaded."""
    file: str
    """Path inside the run folder."""

    @property
    def id(self) -> CellId:
        """The cell it describes."""
        return CellId(self.arm, self.suite, self.split, self.language, self.effort)


@dataclass(frozen=True, slots=True)
class Phase(Record):
    """Time and memory of one evaluation pass of one arm over one split, all languages and efforts together."""

    arm: str
    suite: str
    split: str
    wall_s: float
    model_s: float | None
    """Seconds in model calls and in choosing tokens by what they say."""
    output_tokens: int
    peak_vram_bytes: int | None
    peak_reserved_bytes: int | None
    peak_rss_bytes: int | None
    engine: str
    """What really ran: `slots`, or `generate` where the model's layers do not reach the slots."""
    slots: int
    """Rows side by side at most, when the pass ended: of the batch, where the engine is `generate`."""
    peak_process_bytes: int | None = None
    """Device memory of the process by NVML."""
    peak_device_bytes: int | None = None
    """Memory in use on the device by NVML, other processes included."""
    energy_j: float | None = None
    """Energy of the device during the pass by NVML's counter, other processes' work included."""
    correct: int | None = None
    """Answers of the pass that are right; None in records from before it was kept."""
    halvings: int | None = None
    """How often memory ran out, so that half the rows went on side by side; None in records from before it was kept."""

    @property
    def joules_per_correct(self) -> float | None:
        """Energy of the whole pass over its right answers; None without a counter, and where nothing was right."""
        return self.energy_j / self.correct if self.energy_j is not None and self.correct else None


@dataclass(frozen=True, slots=True)
class Canary(Record):
    """A few rows of an arm asked greedily in two ways before its first pass: what differs is noise, not the arm."""

    arm: str
    suite: str
    split: str
    check: Literal["batch", "repeat", "merge"]
    """Side by side against one by one; twice side by side; adapter beside the weights against merged into them."""
    engine: str
    slots: int
    precision: str
    """Type of the weights: float32, bfloat16, float16 or 4-bit."""
    rows: int
    tokens: int
    differing: int
    """Rows whose tokens are not all the same. In float32 only such as part over two tokens that tie; others fail the arm."""
    first_token: int | None
    """Lowest number, from 0, of a token that differs; None where none does."""
    max_gap: float | None
    """Largest difference of log-probabilities, in nats, of the two tokens where a row's answers part; None where none part, or
    where one of two answers ends and the other goes on."""


@dataclass(frozen=True, slots=True)
class Comparison(Record):
    """Two sets of samples on the same items, in one metric, at one effort. Intervals are 95 % two-sided, clustered by item.

    `delta` is after minus before in the metric's unit; whether more is better is the gate's business.
    """

    arm: str
    against: str
    suite: str
    split: str
    effort: str
    metric: str
    before: float | None
    """Mean over items of the item's mean over languages and samples."""
    before_ci: tuple[float, float] | None
    after: float | None
    after_ci: tuple[float, float] | None
    delta: float | None
    ci: tuple[float, float] | None
    se: float | None
    clusters: int
    """Distinct item_ids."""
    rows: int
    """Pairs of samples' means: items x languages."""
    languages: tuple[str, ...]
    samples_per_item: int
    worst: float | None = None
    """Delta if every unscored answer (truncated, malformed, no_answer) of `after` were wrong and of `before` right; accuracy only."""
    best: float | None = None
    gained: int | None = None
    """Pairs wrong before and right after; accuracy with one sample an item only."""
    lost: int | None = None
    invalid_because: tuple[str, ...] = ()
    """Why no comparison was made; empty where one was."""
    worst_ci: tuple[float, float] | None = None
    """Interval of `worst`."""
    best_ci: tuple[float, float] | None = None
    excluded: int = 0
    """Pairs of samples left out because one side has no value (an infrastructure error); at most 0.5 % of a side. `worst` and `best`
    count such an answer as wrong or right."""
    before_se: float | None = None
    after_se: float | None = None
    swing: float | None = None
    """Typical size of a problem's change, as in `stats.swing`; 0 where none changed. Shares only."""
    within: float | None = None
    """Variance of a problem's difference from one sample to the next: more samples buy it down. None with one sample an item, or where
    samples are missing."""
    between: float | None = None
    """Variance of the problems' true differences: only more problems buy it down."""
    design_effect: float | None = None
    """Variance of `delta` over what it would be if every item x language were a problem of its own. None where all differ by the same."""
    ratio: float | None = None
    """Geometric mean of after / before over items (its logarithm averaged over languages first); tokens and seconds only."""
    ratio_ci: tuple[float, float] | None = None
    robust_ratio: float | None = None
    """Hodges-Lehmann ratio over items. None above 2,000 items."""
    total_ratio: float | None = None
    """Sum after over sum before: what the bill changes by."""
    without_ratio: int = 0
    """Items x languages left out of the three ratios because a side has no value above zero."""
    outcomes: dict[str, list[float]] = field(default_factory=dict)
    """Share of each outcome among all rows, before and after; accuracy only."""


@dataclass(frozen=True, slots=True)
class Verdict(Record):
    """What one gate says."""

    name: str
    arm: str | None
    against: str
    suite: str
    split: str
    effort: str
    metric: str
    before: float | None
    after: float | None
    delta: float | None
    ci: tuple[float, float] | None
    margin: float
    clusters: int
    verdict: VerdictName
    flags: tuple[str, ...] = ()
    """regression_detected, improvement_detected."""
    reasons: tuple[str, ...] = ()
    """Sentences for people: the first says what was shown."""
    waived: str | None = None
    """Why somebody lets a release through all the same; the verdict stays. None: not waived."""
    type: str = "non_inferiority"
    """As in the experiment, and `vram`."""
    required: bool = True
    """Whether it has a part in the run's verdict."""
    tested_after: str | None = None
    """The gate that had to pass first."""
    margin_reason: str | None = None
    """Why the margin is what it is, as the experiment says."""
    evidence: dict[str, Any] = field(default_factory=dict)
    """Further numbers behind the verdict, by name; docs/gates.md lists them. A name that is not there is unknown or does not apply."""


@dataclass(frozen=True, slots=True)
class RunVerdict(Record):
    """The run's verdict: the worst of its required gates."""

    verdict: VerdictName
    exit_code: int
    """That of the worst required gate that is not waived."""
    gates: tuple[Verdict, ...]
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Environment(Record):
    """Where a run happened. Hostnames, user names and paths are left out on purpose."""

    platform: str
    python: str
    cpu: str
    cpu_count: int
    torch_threads: int | None
    memory_bytes: int
    gpu: str | None
    gpu_memory_bytes: int | None
    driver: str | None
    cuda: str | None
    packages: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    started_at: str
    """UTC, ISO 8601."""

    @property
    def hardware(self) -> str:
        """Folder-safe name of the hardware class, as in `cpu` or `nvidia-h100-80gb-hbm3`."""
        return "-".join(self.gpu.lower().split()) if self.gpu else "cpu"


@dataclass(frozen=True, slots=True)
class Candidate(Record):
    """One arm as the selection saw it, on the selection data only."""

    arm: str
    value: float | None
    """The selection metric. None where the arm failed."""
    accuracy: float | None
    accuracy_drop: float | None
    """Base minus arm; negative where the arm is better."""
    eligible: bool
    reason: str | None
    """Why it is not eligible."""


@dataclass(frozen=True, slots=True)
class Selection(Record):
    """Which arm goes to the gate, and what else was tried."""

    chosen: str | None
    """None where no arm is eligible; the run is then `invalid`."""
    suite: str
    split: str
    effort: str
    metric: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Look(Record):
    """One judgement of a run whose experiment declares an extension; made before more samples are asked for."""

    samples_per_item: int
    verdict: VerdictName
    gates: dict[str, VerdictName]
    """By name."""
    cells: str
    """Hash of the keys of the cells that were looked at: a look at other answers is no look at these."""


@dataclass(frozen=True, slots=True)
class TimingBlock(Record):
    """One arm's requests in one block of the latency probe, at one concurrency. Lists hold one value a request, in the same order."""

    block: int
    """0 .. blocks - 1; both arms are timed in each on the same requests, in an order that alternates."""
    arm: str
    effort: str
    concurrency: int
    """Requests side by side; 1 is each alone."""
    engine: str
    adapter: Literal["beside", "merged"]
    """How the arm's adapter was served; base had none: its own layers, and weights without it."""
    warm_up: int
    """Requests asked before the first block, and dropped."""
    wall_s: float
    """From the first request to the last token."""
    energy_j: float | None
    """Energy of the device meanwhile by NVML's counter, other processes' work included."""
    items: list[str]
    """item_id of each request."""
    languages: list[str]
    prompt_tokens: list[int]
    output_tokens: list[int]
    """All generated tokens. Both arms stop where they like, within the same limit: answers need not be of one length."""
    ttft_s: list[float | None]
    """Seconds from the request to its first token; None where it could not be answered."""
    latency_s: list[float | None]
    """Seconds from the request to its last token (end to end); None as above."""

    @property
    def inter_token_s(self) -> list[float | None]:
        """Mean seconds from a token to the next, a request; None where there was one token alone."""
        spent = zip(self.latency_s, self.ttft_s, self.output_tokens, strict=True)
        return [
            (latency - ttft) / (tokens - 1) if latency is not None and ttft is not None and tokens > 1 else None
            for latency, ttft, tokens in spent
        ]


@dataclass(frozen=True, slots=True)
class MemoryPass(Record):
    """An arm's peak memory in a process of its own, asked a part of the confirmation data; None where the machine cannot tell."""

    repeat: int
    """0 .. repeats - 1."""
    arm: str
    rows: int
    peak_vram_bytes: int | None
    peak_reserved_bytes: int | None


@dataclass(frozen=True, slots=True)
class Retry(Record):
    """A process that died or hung, so that what was left of its work was begun once more."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, read back. `samples` has one row a sample and exactly the fields of `Sample` as columns."""

    folder: Path
    experiment: Experiment
    environment: Environment
    finished: bool
    failed_arms: dict[str, str]
    """Arm name -> reason."""
    selection: Selection | None
    cells: tuple[CellRecord, ...]
    phases: tuple[Phase, ...]
    training: dict[str, Training]
    """By arm name, in the grid's order."""
    comparisons: tuple[Comparison, ...]
    """Every arm against base, per suite, split, effort and metric, on the same items."""
    verdict: RunVerdict | None
    samples: pd.DataFrame
    command: str
    """What the user typed, for the page's `reproduce` line."""
    suite_revisions: dict[str, str] = field(default_factory=dict)
    """Suite name -> hash of its files and its local data. Empty in runs recorded before it was kept."""
    adapter_bytes: dict[str, int] = field(default_factory=dict)
    """Arm name -> size on disk of the weights of the adapter it was evaluated with."""
    data_sources: dict[str, str] = field(default_factory=dict)
    """Suite name -> where its rows came from: its own, a local folder, or the hub at a commit (`unpinned` where at none)."""
    looks: tuple[Look, ...] = ()
    """Judgements made while the run was going; empty without an `extension`."""
    timing: tuple[TimingBlock, ...] = ()
    """The latency probe of an experiment with `timing`, in the order it ran."""
    memory: tuple[MemoryPass, ...] = ()
    """Peaks measured again for the gate `vram`, in the order they were."""
    canaries: tuple[Canary, ...] = ()
    """Rows asked in two ways, by arm and check. Empty in runs recorded before they were asked."""
    retries: tuple[Retry, ...] = ()
    """Processes that died or hung and were begun once more, in that order."""

    def frame(self, what: Literal["comparisons", "gates", "cells", "phases", "training", "timing", "memory"]) -> pd.DataFrame:
        """These records as a data frame, one row each and their fields as columns; `samples` is one already.

        `phases` has `joules_per_correct` besides; `timing` has one row a request of the latency probe, with `inter_token_s`.
        """
        import pandas as pd

        kinds: dict[str, tuple[type, Iterable[Any]]] = {
            "comparisons": (Comparison, self.comparisons),
            "gates": (Verdict, self.verdict.gates if self.verdict else ()),
            "cells": (CellRecord, self.cells),
            "phases": (Phase, self.phases),
            "training": (Training, self.training.values()),
            "memory": (MemoryPass, self.memory),
        }
        if what == "timing":
            return self._requests()
        if what not in kinds:
            raise ValueError(f"unknown records {what!r}; expected one of {', '.join([*kinds, 'timing'])}")
        kind, found = kinds[what]
        if what == "phases":
            names = [part.name for part in dataclasses.fields(kind)] + ["joules_per_correct"]
            return pd.DataFrame([[getattr(one, name) for name in names] for one in found], columns=names)
        return pd.DataFrame([dataclasses.asdict(one) for one in found], columns=[part.name for part in dataclasses.fields(kind)])

    def _requests(self) -> pd.DataFrame:
        """The probe's requests in the order they were asked; a block's own numbers stand in each of its rows."""
        import pandas as pd

        lists = ("items", "languages", "prompt_tokens", "output_tokens", "ttft_s", "inter_token_s", "latency_s")
        alone = [part.name for part in dataclasses.fields(TimingBlock) if part.name not in lists]
        rows = [
            [*(getattr(block, name) for name in alone), *values]
            for block in self.timing
            for values in zip(*(getattr(block, name) for name in lists), strict=True)
        ]
        return pd.DataFrame(rows, columns=[*alone, "item_id", "language", *lists[2:]])

    def _repr_html_(self) -> str:
        """What a notebook shows: verdict, gates, and accuracy and tokens of every arm against base."""
        said = self.verdict.verdict.upper() if self.verdict and self.verdict.gates else "NO VERDICT"
        ended = "" if self.finished else ", not finished"
        head = f"{self.experiment.name}: {said}{ended}; {len(self.samples):,} answers, {self.environment.started_at}"
        columns = ("arm", "suite", "split", "effort", "metric", "before", "after", "delta", "ci", "clusters")
        gates = (
            [{"gate": gate.name, "verdict": gate.verdict} | _picked(gate, columns) for gate in self.verdict.gates] if self.verdict else []
        )
        changes = [_picked(one, columns) for one in self.comparisons if one.metric in ("accuracy", "output_tokens")]
        return f"<p><b>{html.escape(head)}</b></p>{_html_table(gates)}{_html_table(changes)}"


def _picked(record: Verdict | Comparison, columns: tuple[str, ...]) -> dict[str, Any]:
    return {column: getattr(record, column) for column in columns}


def _html_table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    lines = [rows[0].keys(), *(map(_shown, row.values()) for row in rows)]
    cells = ["".join(f"<td>{html.escape(str(value))}</td>" for value in line) for line in lines]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(map(_shown, value))
    return "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class Baseline:
    """An earlier run's scores on its confirmation data: base and the gated arm, without questions and answers."""

    experiment: str
    hardware: str
    suite: str
    split: str
    suite_revision: str
    arm: str
    """The arm that was released; later ones are compared with it."""
    decoding: dict[str, Any]
    """Limits, temperature, samples and seed, as in `evaluate`."""
    cells: tuple[CellRecord, ...]
    environment: Environment
    samples: pd.DataFrame
    reason: str | None = None
    """Why it replaced an older one."""
    promoted_at: str | None = None
    """UTC, ISO 8601; None where a run folder serves as the baseline."""
    phases: tuple[Phase, ...] = ()
    """Time and memory of the arm's and base's passes; empty in baselines made before they were kept."""
