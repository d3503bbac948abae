"""What the user asks: one YAML file is one experiment.

`load_experiment` turns a shipped name or a path, plus `--set` overrides, into a validated `Experiment`. Unknown keys are errors, and
the resolved experiment is stored with every run. Defaults of the fine-tuning block are the published quick start for gpt-oss-20b.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from bench.errors import ExperimentError

EFFORTS = ("low", "medium", "high")
Metric = Literal[
    "accuracy",
    "reasoning_language_fidelity",
    "truncation",
    "empty_analysis",
    "output_tokens",
    "reasoning_tokens",
    "latency_s",
    "ttft_s",
]
METRICS: tuple[Metric, ...] = get_args(Metric)
SHARES = ("accuracy", "reasoning_language_fidelity", "truncation", "empty_analysis")
"""Metrics between 0 and 1."""
SECONDS = ("latency_s", "ttft_s", "inter_token_s")
VRAM = "vram"
"""Name of the gate that `vram` makes."""
ADAPTER_CONFIG, ADAPTER_WEIGHTS = ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What PEFT writes of a LoRA."""
SHIPPED = Path(__file__).parent / "experiments"
LM_EVAL = "lm-eval:"
"""Before the name of a task of lm-eval, where a suite is asked for."""
MOST_ARMS = 1000
"""A larger grid is a slip of the keyboard."""
MOST_ALPHA = 1e6
DEEPEST = 20
"""Levels of nesting; an experiment has four."""
_ALPHA = re.compile(r"(?P<number>[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?)(?P<by_rank>r?)|rslora")
_SHOWN_PROBLEMS = 5
_SHOWN_CHARACTERS = 80
YAML_ERRORS = (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError, OverflowError)
"""What PyYAML raises on bad text: its own error, and whatever its scalar constructors trip over, as in `!!int ''`."""

Effort = Literal["low", "medium", "high"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Count = Annotated[int, Field(ge=1, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1)]
Method = Literal["unsloth", "trl"]
Steps = Count | Annotated[str, StringConstraints(pattern=r"^epoch$|^[1-9][0-9]{0,3}epochs$")]
"""Optimizer steps, or whole passes over the rows: `epoch`, `2epochs`."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Strict(BaseModel):
    """A block of the experiment file: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _distinct(values: Any) -> Any:
    if isinstance(values, list) and len(set(values)) != len(values):
        raise ValueError(f"values must differ, found {_show(values)}")
    return values


class Model(Strict):
    """The model under test."""

    id: str = Field(min_length=1)
    """A hub id, a folder, or `embedded` for the model shipped with the package."""
    revision: str | None = None
    """Commit of the hub repository; None takes the one already in the local cache."""
    load_in_4bit: bool = True
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"


class Dataset(Strict):
    """Rows to fine-tune on, in the schema of HuggingFaceH4/Multilingual-Thinking."""

    id: str = Field(min_length=1)
    """A hub id, a folder or .jsonl/.parquet file, or `SUITE/train` for a suite's own training split."""
    revision: str | None = None
    languages: list[str] | None = None
    """Keep rows with these values of `reasoning_language`; None keeps all."""


class Finetune(Strict):
    """How arms are trained: the grid is ranks x steps x seeds (x methods, where several are listed), all else is shared."""

    method: Method | Annotated[list[Method], Field(min_length=1)] = "unsloth"
    """`trl` is plain TRL + PEFT, the yardstick: same rows, targets, seed and masking, 16-bit checkpoints alone. A list trains both."""
    dataset: Dataset
    ranks: list[Annotated[int, Field(ge=1, le=1024)]] = Field(default=[8], min_length=1)
    steps: list[Steps] = Field(default=[30], min_length=1)
    """Optimizer steps of each arm; `epoch` and `2epochs` are whole passes over the rows."""
    seeds: list[Seed] = Field(default=[3407], min_length=1)
    targets: Literal["attention", "attention+experts"] = "attention+experts"
    train_on: list[Literal["analysis", "final"]] = Field(default=["analysis", "final"], min_length=1)
    """Channels whose tokens carry loss."""
    effort: Literal["low", "medium", "high", "mixed"] = "medium"
    """Effort named in the training prompt; `mixed` cycles through all three."""
    alpha: float | str = 16.0
    """LoRA alpha: a number, `2r` for twice the rank, or `rslora`."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 5
    batch_size: Count = 1
    gradient_accumulation: Count = 4
    optimizer: Literal["adamw_8bit", "adamw_torch", "adafactor"] = "adamw_8bit"
    """On a machine without a GPU adamw_8bit becomes adamw_torch_fused; the record says what ran."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_length: Count = 1024
    """Tokens of one training row; longer rows are cut, and rows left without a token that carries loss are dropped and counted."""
    gradient_checkpointing: bool | Literal["unsloth"] = "unsloth"
    """`unsloth` offloads to host memory, and is plain in rows below 512 tokens and under method trl; true is plain, false is off."""
    checkpoint_steps: Count | None = 50
    """After so many steps all that an interrupted run needs to go on is written; null writes nothing. It changes no adapter."""
    held_out_rows: Annotated[int, Field(ge=0)] = 32
    """Rows kept from training to measure held-out loss on."""

    _values_differ = field_validator("method", "ranks", "steps", "seeds", "train_on")(_distinct)

    @field_validator("method", mode="before")
    @classmethod
    def _is_method(cls, method: Any) -> Any:
        strange = [name for name in (method if isinstance(method, list) else [method]) if name not in get_args(Method)]
        if strange:
            raise ValueError(f"expected 'unsloth', 'trl' or a list of both; found {_show(strange[0])}")
        return method

    @field_validator("alpha", mode="before")
    @classmethod
    def _is_alpha(cls, alpha: Any) -> float | str:
        match = _ALPHA.fullmatch(_text(alpha))
        if match is None or (match["number"] and not 0 < float(match["number"]) <= MOST_ALPHA):
            raise ValueError(f"expected a number above 0, `2r` for twice the rank, or `rslora`; found {_show(alpha)}")
        return match[0] if match["by_rank"] or not match["number"] else float(match[0])

    @model_validator(mode="after")
    def _is_small(self) -> Finetune:
        arms = len(self.methods) * len(self.ranks) * len(self.steps) * len(self.seeds)
        if arms > MOST_ARMS:
            raise ValueError(f"ranks x steps x seeds are {arms:,} arms, at most {MOST_ARMS:,} can be run: shorten the lists")
        return self

    @property
    def methods(self) -> list[Method]:
        """The trainers that the grid is trained with."""
        return self.method if isinstance(self.method, list) else [self.method]

    @property
    def schedule_needs_last_step(self) -> bool:
        """Whether the learning rate at a step depends on how many steps there will be."""
        return self.schedule != "constant_with_warmup"

    def count_steps(self, steps: int | str, rows: int) -> int:
        """Optimizer steps: as they stand, or as many as so many passes over `rows` rows take."""
        if isinstance(steps, int):
            return steps
        return int(steps.removesuffix("s").removesuffix("epoch") or 1) * -(-rows // (self.batch_size * self.gradient_accumulation))

    def lora_alpha(self, rank: int) -> float:
        """Alpha of an arm; under `rslora` the scale is alpha / sqrt(rank) and alpha stays 16."""
        if self.alpha == "rslora":
            return 16.0
        if isinstance(self.alpha, str):
            return float(self.alpha[:-1]) * rank
        return float(self.alpha)


class Adapter(Strict):
    """A finished adapter to evaluate without training."""

    name: Name
    path: Path
    selected_on: list[Annotated[str, StringConstraints(pattern=r"^.+@[^@]+$")]] = []
    """SUITE@SPLIT of the data whose scores chose it, its early stopping included; it is not judged on these."""


class Evaluate(Strict):
    """What every arm is asked, and how it decodes."""

    suites: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """Names of shipped suites, folders, lm-eval:TASK, or task files (.yaml); elsewhere a suite is called as `suite_name` says."""
    languages: Literal["all"] | Annotated[list[str], Field(min_length=1)] = "all"
    efforts: list[Effort] = Field(default=["low", "medium", "high"], min_length=1)
    max_new_tokens: dict[Effort, Count]
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    samples_per_item: Annotated[int, Field(ge=1, le=1024)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1234
    slots: Annotated[int, Field(ge=1, le=4096)] = 64
    """Rows generated side by side."""
    data: dict[str, Path] = Field(default_factory=dict)
    """Local folder of a suite's data, by suite name; overrides EFFORTBENCH_DATA/<suite>."""

    options: dict[str, dict[str, int | str]] = Field(default_factory=dict)
    """Settings of a suite's own, by suite name, such as mmmlu's `subset`; its README lists them."""
    scorer: dict[str, str] = Field(default_factory=dict)
    """Filter that scores a suite, by suite name, such as mgsm's `simple-evals`; without it the first of its task."""
    trusted: list[str] = []
    """Suites, by name, whose task files may run code from outside their folders; without it such a suite is refused."""

    _values_differ = field_validator("suites", "languages", "efforts")(_distinct)

    @model_validator(mode="after")
    def _consistent(self) -> Evaluate:
        missing = [effort for effort in self.efforts if effort not in self.max_new_tokens]
        if missing:
            raise ValueError(f"max_new_tokens has no limit for effort {', '.join(missing)}")
        if self.samples_per_item > 1 and self.temperature == 0:
            raise ValueError("samples_per_item > 1 needs temperature > 0: greedy samples of one item are all the same")
        names = self.suite_names
        if len(set(names)) != len(names):
            raise ValueError(f"suites must have different names, found {', '.join(names)}")
        for block, named in (("data", self.data), ("options", self.options), ("scorer", self.scorer), ("trusted", self.trusted)):
            strange = [name for name in named if name not in names]
            if strange:
                raise ValueError(f"{block} names {', '.join(strange)}, but evaluate.suites has {', '.join(names)}")
        return self

    @property
    def suite_names(self) -> list[str]:
        """What the suites are called in records."""
        return [suite_name(suite) for suite in self.suites]


class SubjectTo(Strict):
    """What the chosen arm may not do on the selection data."""

    accuracy_drop: Share | None = None
    """Largest allowed loss of accuracy against base, at the selection's effort."""


class Select(Strict):
    """Which arm is taken to the gate: the best `metric` among those within `subject_to`; ties go to the cheaper arm."""

    suite: str
    split: str
    effort: Effort
    metric: Metric = "accuracy"
    subject_to: SubjectTo = SubjectTo()


class Confirm(Strict):
    """The data that judge the chosen arm; they must not be the selection's."""

    suite: str
    split: str


class Gate(Strict):
    """One pass/fail question asked of a comparison."""

    name: Name
    metric: Metric | Literal["inter_token_s"]
    effort: Effort
    type: Literal["non_inferiority", "superiority", "max_ratio", "language_guard"] = "non_inferiority"
    """`max_ratio`: the geometric mean of after / before must stay below 1 + margin (tokens and seconds). `language_guard`: no single
    language may be shown to lose more than the margin (Holm over the languages); it can fail, and rules nothing out."""
    against: Literal["base", "baseline"] = "base"
    """`base`: the chosen arm against the untouched model. `baseline`: it against the committed record of an earlier release."""
    margin: Annotated[float, Field(ge=0)]
    """In the metric's own unit. Non-inferiority: a loss this large must be ruled out. Superiority: a gain this large must be shown."""
    relative: bool = False
    """Whether the margin is a share of the reference's own level: 0.01 keeps 99 % of it."""
    fail_on: Literal["margin", "any_regression"] = "margin"
    """Of non-inferiority. `any_regression`: a loss that is shown fails, however small; an arm at half the margin then often does."""
    reason: str | None = None
    """Why the margin is what it is; kept in verdict.json."""
    after: Name | None = None
    """An earlier gate that must pass before this one may: the order in which gates are tested is fixed by it."""
    required: bool = True
    """Whether the run's verdict depends on it; otherwise it is told and decides nothing."""
    needs_baseline: bool = True
    """With `against: baseline`, where none was committed for this hardware: true makes the verdict invalid, false leaves the gate out."""
    min_clusters: Annotated[int, Field(ge=2)] = 100
    """Fewest problems an interval is trusted with."""
    min_blocks: Annotated[int, Field(ge=2)] = 6
    """Fewest timing blocks a ratio of seconds is trusted with."""
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 1
    """Requests side by side at which a ratio of seconds is judged: 1, or the one that `timing` states."""
    planned_sd: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of the problems' differences in a pilot, in the metric's unit (max_ratio: of the log ratio). Power is
    planned with it; None leaves that to `effortbench power`."""
    min_planned_power: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Least chance that an unchanged arm passes."""
    allow_underpowered: bool = False
    """Accept this gate though an unchanged arm is likely to end inconclusive."""

    @model_validator(mode="after")
    def _has_margin(self) -> Gate:
        if (self.metric in SHARES or self.relative) and self.margin >= 1:
            what = "a relative margin is a share" if self.relative else f"{self.metric} lies between 0 and 1 (0.02 is 2 points)"
            raise ValueError(f"a margin of {self.margin:g} decides nothing: {what}")
        if self.type != "superiority" and self.margin == 0:
            raise ValueError(f"a {self.type} gate needs margin > 0: no sample can rule out a loss of zero")
        return self

    @model_validator(mode="after")
    def _fits_its_type(self) -> Gate:
        if self.type == "max_ratio" and self.metric in SHARES:
            raise ValueError(f"max_ratio compares tokens or seconds, and {self.metric} is a share: use non_inferiority")
        if self.type == "language_guard" and self.metric not in SHARES:
            raise ValueError(f"a language_guard looks at a share ({', '.join(SHARES)}), not at {self.metric}")
        if self.relative and self.type not in ("non_inferiority", "superiority"):
            raise ValueError(f"relative belongs to non_inferiority and superiority: a {self.type} gate has no use for it")
        if self.fail_on != "margin" and self.type != "non_inferiority":
            raise ValueError(f"fail_on belongs to non_inferiority: a {self.type} gate has no use for it")
        if self.after == self.name:
            raise ValueError(f"gate {self.name} cannot come after itself")
        if self.metric == "inter_token_s" and self.type != "max_ratio":
            raise ValueError(f"inter_token_s is measured by the probe alone: a {self.type} gate has no value of it, use max_ratio")
        if self.concurrency != 1 and not self.needs_blocks:
            raise ValueError("concurrency belongs to a max_ratio of seconds: all else is read from the answers")
        return self

    @property
    def needs_blocks(self) -> bool:
        """Whether it is judged on timing blocks: seconds of one session say nothing about the next."""
        return self.type == "max_ratio" and self.metric in SECONDS


class Vram(Strict):
    """The gate on memory, named `vram`: the arm's highest peak on the device against the reference's."""

    relative: Share = 0.02
    """Allowed rise, as a share of the reference's peak."""
    absolute_mib: Annotated[float, Field(ge=0)] = 256.0
    """Allowed rise in MiB, on top of the relative one."""
    limit_mib: Annotated[float, Field(gt=0)] | None = None
    """What the arm may use at most, reserved memory included; None takes the whole card."""
    repeats: Count = 3
    """Measurements of each arm, in a process of its own each; a spread larger than the allowed rise is invalid. 1 takes the evaluation."""
    items: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Problems of the confirmation data asked in each such process, in every language, at every effort."""
    required: bool = True
    """As of a gate."""


class Timing(Strict):
    """The latency probe: base and the chosen arm answer the same requests in turn (ABBA), in one process, after they were evaluated."""

    effort: Effort | None = None
    """None takes the last of `evaluate.efforts`."""
    blocks: Annotated[int, Field(ge=2, le=100)] = 6
    """Units of the interval: in each both arms are timed, base first in one and last in the next."""
    requests: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Questions of the confirmation data (else of what was asked first) that a block asks of each arm, one at a time and then side by
    side. Every block asks others."""
    concurrency: Annotated[int, Field(ge=2, le=4096)] = 8
    """Requests side by side, beside the measurement of each alone."""
    adapter: Literal["beside", "merged"] = "beside"
    """How the arm is served: the adapter switched on beside the weights, or merged into them for its turn (16 and 32 bits alone)."""

    @model_validator(mode="after")
    def _fills_its_slots(self) -> Timing:
        if self.requests < self.concurrency:
            raise ValueError(f"{self.requests} requests a block never run {self.concurrency} side by side: ask at least that many")
        return self


class Extension(Strict):
    """One declared second look: an inconclusive run is asked for more samples once, and judged on all of them."""

    samples: Annotated[int, Field(ge=1, le=1024)]
    """Further samples of every item, of base and the chosen arm, at the efforts that are gated."""


class Arm(Strict):
    """One model to evaluate: the base, a trained adapter, or a finished one."""

    name: str
    kind: Literal["base", "trained", "finished"]
    rank: int | None = None
    steps: Steps | None = None
    seed: int | None = None
    method: Method | None = None
    adapter: Path | None = None
    """Folder of a finished adapter; a trained arm's is in its run folder."""


class Experiment(Strict):
    """The whole file."""

    name: Name
    model: Model
    finetune: Finetune | None = None
    adapters: list[Adapter] = []
    evaluate: Evaluate
    select: Select | None = None
    confirm: Confirm | None = None
    gates: list[Gate] = []
    vram: Vram | None = None
    timing: Timing | None = None
    extension: Extension | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        names = [arm.name for arm in self.arms()]
        if len(set(names)) != len(names):
            raise ValueError(f"arm names must differ, found {', '.join(names)}")
        if self.finetune and "trl" in self.finetune.methods and self.model.load_in_4bit:
            raise ValueError(
                "method trl needs model.load_in_4bit: false: bitsandbytes leaves gpt-oss's experts in 16 bits, so plain TRL has no equal "
                "of Unsloth's 4-bit training"
            )
        gates = [gate.name for gate in self.gates]
        if len(set(gates)) != len(gates):
            raise ValueError(f"gate names must differ, found {', '.join(gates)}")
        if self.gates and self.confirm is None:
            raise ValueError("gates need a `confirm` block: the suite and split they are judged on")
        if self.gates and len(names) < 2:
            raise ValueError("gates need an arm to judge: add a `finetune` block or `adapters`")
        if self.gates and self.select is None and len(names) > 2:
            raise ValueError(f"{len(names) - 1} arms and no `select` block: say how the gated arm is chosen")
        if self.select and self.confirm and (self.select.suite, self.select.split) == (self.confirm.suite, self.confirm.split):
            raise ValueError("select and confirm name the same problems: an arm must not be judged on the data that chose it")
        for block in (self.select, self.confirm):
            if block and block.suite not in self.evaluate.suite_names:
                raise ValueError(f"suite {block.suite!r} is not among evaluate.suites ({', '.join(self.evaluate.suite_names)})")
        asked = [self.select.effort] if self.select else []
        for effort in asked + [gate.effort for gate in self.gates]:
            if effort not in self.evaluate.efforts:
                raise ValueError(f"effort {effort!r} is not among evaluate.efforts ({', '.join(self.evaluate.efforts)})")
        return self

    @model_validator(mode="after")
    def _gates_fit_together(self) -> Experiment:
        gates = {gate.name: gate for gate in self.gates}
        earlier: set[str] = set()
        for gate in self.gates:
            if gate.after is not None and gate.after not in earlier:
                raise ValueError(f"gate {gate.name} comes after {gate.after!r}: expected a gate that stands before it in the list")
            if gate.required and gate.needs_blocks and (self.timing is None or self.timing.blocks < gate.min_blocks):
                raise ValueError(
                    f"gate {gate.name} needs {gate.min_blocks} timing blocks: add `timing: {{blocks: {gate.min_blocks}}}`, "
                    "or report it alone with required: false"
                )
            if gate.needs_blocks and gate.against == "baseline":
                raise ValueError(f"gate {gate.name} compares seconds with another session's: use against: base")
            if gate.needs_blocks and self.timing is not None and self.timed_effort != gate.effort:
                raise ValueError(f"gate {gate.name} asks for {gate.effort} effort, timing measures {self.timed_effort}")
            if gate.needs_blocks and self.timing is not None and gate.concurrency not in (1, self.timing.concurrency):
                raise ValueError(
                    f"gate {gate.name} asks for concurrency {gate.concurrency}, timing measures 1 and {self.timing.concurrency}"
                )
            earlier.add(gate.name)
        if self.vram is not None and VRAM in gates:
            raise ValueError(f"the name {VRAM!r} is taken by the `vram` block")
        if self.gates and not any(gate.required for gate in self.gates):
            raise ValueError("no gate is required: the verdict would rest on nothing")
        self._check_selection_data()
        self._check_vram_and_timing()
        self._check_extension()
        return self

    def _check_selection_data(self) -> None:
        for adapter in self.adapters:
            if self.gates and self.confirm and f"{self.confirm.suite}@{self.confirm.split}" in adapter.selected_on:
                raise ValueError(
                    f"adapter {adapter.name} was selected on {self.confirm.suite}@{self.confirm.split}: "
                    "an arm must not be judged on the data that chose it"
                )

    def _check_vram_and_timing(self) -> None:
        if self.vram is not None and not self.gates:
            raise ValueError("vram needs `gates`: it is measured of the arm that they judge")
        if self.timing is not None and self.timed_effort not in self.evaluate.efforts:
            raise ValueError(f"effort {self.timed_effort!r} is not among evaluate.efforts ({', '.join(self.evaluate.efforts)})")
        if self.timing is not None and self.timing.adapter == "merged" and self.model.load_in_4bit:
            raise ValueError("timing.adapter: merged needs model.load_in_4bit: false: merging would round the 4-bit weights again")

    def _check_extension(self) -> None:
        if self.extension is None:
            return
        if not self.gates:
            raise ValueError("extension needs `gates`: it answers an inconclusive verdict")
        if self.evaluate.temperature == 0:
            raise ValueError("extension needs temperature > 0: greedy samples of one item are all the same")
        if not self.extended_efforts:
            raise ValueError("extension needs a gate on answers: timing blocks are not extended")
        if any(gate.against == "baseline" for gate in self.gates):
            raise ValueError("extension and a gate against the baseline do not go together: a committed baseline cannot be asked again")

    @property
    def extended_efforts(self) -> list[Effort]:
        """Those that an extension asks again: a gate on answers asks for them; timing blocks make their own."""
        asked = {gate.effort for gate in self.gates if not gate.needs_blocks}
        return [effort for effort in self.evaluate.efforts if effort in asked]

    @property
    def timed_effort(self) -> Effort:
        """The effort of the latency probe, where there is one."""
        return (self.timing.effort if self.timing else None) or self.evaluate.efforts[-1]

    @property
    def gate_names(self) -> list[str]:
        """Of all that is judged, in the order of the verdicts."""
        return [gate.name for gate in self.gates] + ([VRAM] if self.vram else [])

    def arms(self) -> list[Arm]:
        """Base first, then the grid by rank, steps, seed and method, then finished adapters."""
        arms = [Arm(name="base", kind="base")]
        if self.finetune:
            grid = itertools.product(self.finetune.ranks, self.finetune.steps, self.finetune.seeds, self.finetune.methods)
            for rank, steps, seed, method in grid:
                name = f"r{rank}-s{steps}" if isinstance(steps, int) else f"r{rank}-{steps}"
                name += f"-seed{seed}" if len(self.finetune.seeds) > 1 else ""
                name += f"-{method}" if len(self.finetune.methods) > 1 else ""
                arms.append(Arm(name=name, kind="trained", rank=rank, steps=steps, seed=seed, method=method))
        arms += [Arm(name=adapter.name, kind="finished", adapter=adapter.path) for adapter in self.adapters]
        return arms


def suite_name(suite: str) -> str:
    """What a suite is called in records: lm-eval:TASK as it stands, else the name of its folder, or of its file without the ending."""
    if suite.startswith(LM_EVAL):
        return suite
    return Path(suite).stem if Path(suite).suffix in (".yaml", ".yml") else Path(suite).name


def shipped_experiments() -> list[str]:
    """Names of the experiments that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_experiment(name_or_path: str, overrides: Iterable[str] = ()) -> Experiment:
    """Read a shipped experiment or a YAML file and apply `a.b=value` overrides. Raises ExperimentError."""
    path = SHIPPED / f"{name_or_path}.yaml" if name_or_path in shipped_experiments() else Path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ExperimentError(
            f"no experiment {name_or_path!r}: expected one of {', '.join(shipped_experiments())} or the path of a YAML file"
        ) from error
    except (OSError, ValueError) as error:
        raise ExperimentError(f"experiment {name_or_path!r} cannot be read, expected a YAML file in UTF-8: {error}") from error
    data = parse_yaml(text, str(path))
    for override in overrides:
        _apply(data, override)
    return parse_experiment(data, str(path))


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """A YAML mapping without aliases (an experiment needs none, and nested ones can exhaust memory). Raises ExperimentError."""
    data = _parse_value(text, source)
    if not isinstance(data, dict):
        raise ExperimentError(f"{source}: expected a mapping with name, model, evaluate, ...; found {_kind(data)}")
    return data


def _parse_value(text: str, source: str) -> Any:
    try:
        _refuse_costly(text, source)
        return yaml.load(text, Loader=_Loader)
    except YAML_ERRORS as error:
        raise ExperimentError(f"{source}: not valid YAML: {_one_line(str(error))}") from error


def _refuse_costly(text: str, source: str) -> None:
    """Raise ExperimentError on what would take PyYAML hours or all memory, before it is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ExperimentError(f"{source}: YAML aliases (*name) are not accepted; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ExperimentError(f"{source}: blocks nested deeper than {DEEPEST} levels")


class _Loader(yaml.SafeLoader):
    """Safe, and a key that stands twice is an error: the first of the two would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"]
        twice = next((key for key, count in Counter(keys).items() if count > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} stands twice in one block", node.start_mark)
        return super().construct_mapping(node, deep)


def parse_experiment(data: dict[str, Any], source: str) -> Experiment:
    """Validate a mapping. Raises ExperimentError naming the keys that are wrong, on one line."""
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        problems = list(dict.fromkeys(_describe(dict(problem)) for problem in error.errors(include_url=False)))
    if len(problems) > _SHOWN_PROBLEMS:
        problems[_SHOWN_PROBLEMS:] = [f"and {len(problems) - _SHOWN_PROBLEMS} problems more"]
    raise ExperimentError(f"{source}: {'; '.join(problems)}")


def _describe(problem: dict[str, Any]) -> str:
    where = _one_line(".".join(str(part) for part in problem["loc"] if not _is_union_branch(part))) or "experiment"
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    message = re.sub(r"^Value error, ", "", problem["msg"])
    found = "" if problem["type"] in ("missing", "value_error") else f" (found {_show(problem['input'])})"
    return f"{where}: {_one_line(message)}{found}"


def _is_union_branch(part: object) -> bool:
    return isinstance(part, str) and ("[" in part or part in ("float", "str"))


def _show(value: object) -> str:
    """A value as one short line."""
    text = _text(value)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")


def _text(value: object) -> str:
    try:
        return str(value)
    except (ValueError, RecursionError):  # an int of more than 4300 digits, or blocks nested too deep
        return f"{_kind(value)} too large to show"


def _kind(value: object) -> str:
    kinds = {"NoneType": "nothing", "str": "text", "list": "a list", "dict": "a block"}
    return kinds.get(type(value).__name__, type(value).__name__)


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def _apply(data: dict[str, Any], override: str) -> None:
    """Set one dotted key in place; the value is read as YAML, so `[8, 16]` is a list and `null` is None."""
    key, separator, value = override.partition("=")
    *parents, last = key.split(".")
    if not separator or not all([*parents, last]):
        raise ExperimentError(f"--set {override!r}: expected key=value, as in --set finetune.steps=[5]")
    block = data
    for parent in parents:
        block = block.setdefault(parent, {})
        if not isinstance(block, dict):
            raise ExperimentError(f"--set {override!r}: {parent!r} is {_kind(block)}, not a block with keys; set it as a whole")
    block[last] = _parse_value(value, f"--set {key}")
