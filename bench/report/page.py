"""Headline, tables, figures and pairs -> one self-contained HTML page.

Every value passes through jinja's autoescape; only our own SVG and static files are marked safe. A Content-Security-Policy allows
the page's own scripts by their hashes and nothing from the network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import jinja2
import yaml
from markupsafe import Markup

from bench.records import Run
from bench.report import change_tables, cost_tables, evidence_tables, gate_tables, score_tables, words
from bench.report.answers import Answers
from bench.report.cells import Cells
from bench.report.claims import claims
from bench.report.figures import Figure
from bench.report.flips import Flips, find_flips
from bench.report.focus import Focus
from bench.report.headline import headline
from bench.report.latency import latency
from bench.report.notices import notices
from bench.report.passes import energy, phases
from bench.report.tables import Table

NOT_COVERED = (
    "Another training run: the interval is about this checkpoint. Whether the recipe is better needs several training seeds.",
    "Other prompts, system messages, chat templates or token limits than the ones used here.",
    "Other languages and other kinds of questions: the languages and suites are fixed choices, not samples of all there are.",
    "Other engines, precisions or quantizations, which can change an answer.",
    "Looking at many numbers at once: only the gates were fixed before the run, all else on this page is descriptive.",
)


NO_CANARY = (
    "Unknown: no canary was asked again within this run. How much the same model, asked the same questions twice, differs from itself by "
    "batch, kernel or machine is not measured here; `effortbench compare` of two runs of base shows it."
)
CHECKS = {
    "batch": "side by side against one by one",
    "repeat": "asked twice",
    "merge": "adapter beside the weights against merged",
}


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page; left out where it holds nothing."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    small_tables: tuple[Table, ...] = ()
    """Shown side by side."""
    folded: tuple[Table, ...] = ()
    """Closed until asked for."""


def render_page(run: Run, focus: Focus | None, cells: Cells, figures: Mapping[str, Figure], answers: Answers | None = None) -> str:
    """The whole page as one string."""
    flips = find_flips(run, focus) if focus else None
    experiment_yaml = words.harmless(experiment_text(run), 200_000)
    scripts = [_asset("page.js"), *([_asset("answers.js")] if answers else [])]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            run=run,
            focus=focus,
            name=words.harmless(run.experiment.name, 200),
            style=Markup(_asset("style.css")),
            scripts=[Markup(script) for script in scripts],
            policy=_policy(scripts, loads_beside=bool(answers and answers.beside)),
            answers=answers,
            headline=headline(run, focus, cells),
            notices=[words.harmless(notice, 600) for notice in notices(run, focus, cells)],
            sections=sections(run, focus, cells, figures),
            flips=_flip_groups(flips),
            experiment_yaml=experiment_yaml,
            experiment_href="data:application/yaml;base64," + base64.b64encode(experiment_yaml.encode()).decode(),
            environment=_environment_rows(run),
            command=words.harmless(_to_reproduce(run), 2000),
            noise_floor=noise_floor(run),
            not_covered=NOT_COVERED,
            cell_keys=cost_tables.hashes(run),
        )
    )


def render_history(sentence: str, method: str, problems: list[str], lines: Iterable[object]) -> str:
    """The page over releases as one string; `lines` are bench.report.history's parts."""
    script = _asset("page.js")
    return (
        _environment()
        .get_template("history.html.jinja")
        .render(
            style=Markup(_asset("style.css")),
            script=Markup(script),
            policy=_policy([script]),
            sentence=sentence,
            method=method,
            problems=problems,
            lines=lines,
        )
    )


def sections(run: Run, focus: Focus | None, cells: Cells, figures: Mapping[str, Figure]) -> list[Section]:
    """The page's parts in order, without the empty ones."""
    if focus is None:
        made = [
            _section("gates", "Gates", (), [gate_tables.gates(run), gate_tables.failed_arms(run)], folded=[evidence_tables.evidence(run)])
        ]
        return [section for section in made if section]
    return [section for section in _sections(run, focus, cells, figures) if section]


def _sections(run: Run, focus: Focus, cells: Cells, figures: Mapping[str, Figure]) -> Iterable[Section | None]:
    def drawn(*names: str) -> tuple[Figure, ...]:
        return tuple(figures[name] for name in names if name in figures)

    elsewhere = [name for name in figures if name.startswith(("accuracy-by-effort-", "accuracy-by-tokens-"))]
    yield _section(
        "gates",
        "Gates and changes" if run.verdict and run.verdict.gates else "Changes",
        (),
        [gate_tables.gates(run), change_tables.changes_by_effort(run, focus), change_tables.differences(focus)],
        folded=[evidence_tables.evidence(run), *evidence_tables.guarded_languages(run)],
    )
    yield _section(
        "accuracy",
        "Accuracy",
        drawn("accuracy-by-effort", "accuracy-by-tokens", "accuracy-by-latency"),
        [
            score_tables.by_effort(focus, cells, "accuracy", "Accuracy by arm and effort"),
            cost_tables.pareto(focus, cells),
            score_tables.repeats(run, focus),
        ],
    )
    yield _section(
        "languages",
        "Languages",
        drawn("language-map", "accuracy-by-language", "reasoning-language", "against-published"),
        [
            change_tables.by_training(run, focus),
            change_tables.changes_by_language(focus, cells, "accuracy", "Change of accuracy by language"),
            score_tables.by_effort(
                focus, cells, "reasoning_language_fidelity", "Reasoning in the asked language, by arm and effort", focus.data[:1]
            ),
        ],
        folded=[
            score_tables.by_language(focus, cells, "accuracy", "accuracy-by-language-table", "Accuracy by language, all values"),
            score_tables.by_language(
                focus, cells, "reasoning_language_fidelity", "fidelity-by-language", "Reasoning in the asked language, all values"
            ),
            score_tables.final_languages(run, focus, cells),
        ],
    )
    yield _section(
        "cost",
        "Tokens and outcomes",
        drawn("token-distribution", "outcomes"),
        [latency(run), cost_tables.tokens(focus, cells), score_tables.outcomes(run, focus, cells)],
    )
    yield _section(
        "selection",
        "Selection",
        drawn("grid-map", *elsewhere),
        [gate_tables.selection(run), gate_tables.failed_arms(run)],
        gate_tables.grid(run, focus, cells),
    )
    yield _section(
        "training",
        "Training",
        drawn("training-loss", "training-memory", "phase-costs"),
        [cost_tables.training(run), cost_tables.training_phases(run), claims(run), phases(run), energy(run, focus)],
    )


def _section(
    name: str,
    title: str,
    figures: tuple[Figure, ...],
    made: Iterable[Table | None],
    small: Iterable[Table] = (),
    folded: Iterable[Table | None] = (),
) -> Section | None:
    kept, kept_small, kept_folded = (tuple(table for table in group if table) for group in (made, small, folded))
    if not (figures or kept or kept_small or kept_folded):
        return None
    return Section(name, title, figures, kept, kept_small, kept_folded)


def _flip_groups(flips: tuple[Flips, Flips] | None) -> list[tuple[str, str, Flips]]:
    if flips is None:
        return []
    lost, gained = flips
    return [("Right to wrong", "lost", lost), ("Wrong to right", "gained", gained)]


def noise_floor(run: Run) -> str:
    """How far a few rows of every arm differ between two ways of asking them, in words."""
    if not run.canaries:
        return NO_CANARY
    parts = []
    for check, meaning in CHECKS.items():
        made = [canary for canary in run.canaries if canary.check == check]
        if not made:
            continue
        differing, rows = (sum(getattr(canary, name) for canary in made) for name in ("differing", "rows"))
        said = f"{meaning}: {differing} of {words.plural(rows, 'row')} differ"
        gaps = [canary.max_gap for canary in made if canary.max_gap is not None]
        if gaps:
            first = min(canary.first_token for canary in made if canary.first_token is not None)
            said += f", from token {first + 1} on, where the two tokens are up to {max(gaps):.2g} nats apart"
        parts.append(said)
    arms, kinds = {canary.arm for canary in run.canaries}, sorted({canary.precision for canary in run.canaries})
    head = f"A few rows of {words.plural(len(arms), 'arm')}, greedy, {' and '.join(kinds)}. "
    exact = " In float32 rows may part only over two tokens that tie; any other fails the arm." if "float32" in kinds else ""
    return head + "; ".join(parts).capitalize() + "." + exact


def experiment_text(run: Run) -> str:
    """The resolved experiment as YAML, ready to be run again."""
    data = run.experiment.model_dump(mode="json", exclude_none=True)
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100))


def _to_reproduce(run: Run) -> str:
    """The commit, where it is on record, and what was typed."""
    commit = run.environment.git_commit
    return f"git checkout {commit}\n{run.command}" if commit and not (run.command.startswith("effortbench compare")) else run.command


def _environment_rows(run: Run) -> list[tuple[str, str]]:
    environment = run.environment
    seeds = [("evaluation seed", str(run.experiment.evaluate.seed))]
    if run.experiment.finetune:
        seeds.append(("training seeds", ", ".join(str(seed) for seed in run.experiment.finetune.seeds)))
    rows = [
        ("started", environment.started_at),
        ("platform", environment.platform),
        ("processor", f"{environment.cpu}, {words.plural(environment.cpu_count, 'core')}"),
        ("torch threads", words.count(environment.torch_threads)),
        ("memory", words.size(environment.memory_bytes)),
        ("GPU", f"{environment.gpu}, {words.size(environment.gpu_memory_bytes)}" if environment.gpu else "none"),
        *([("driver", environment.driver or words.UNKNOWN)] if environment.gpu else []),
        *([("CUDA", environment.cuda or words.UNKNOWN)] if environment.gpu else []),
        ("Python", environment.python),
        *((f"data of {name}", source) for name, source in run.data_sources.items()),
        *((f"hash of {name}", revision) for name, revision in run.suite_revisions.items()),
        *((f"scorer of {name}", scorer) for name, scorer in run.experiment.evaluate.scorer.items()),
        ("commit", environment.git_commit or words.UNKNOWN),
        ("uncommitted changes", {True: "yes", False: "no", None: words.UNKNOWN}[environment.git_dirty]),
        *seeds,
        *sorted(environment.packages.items()),
    ]
    return [(words.harmless(name, 100), words.harmless(value, 300)) for name, value in rows]


@cache
def _asset(name: str) -> str:
    return (files("bench.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["harmless"] = words.harmless
    return environment


def _finalize(value: object) -> object:
    """Every text that a template prints, but for our own markup, is made harmless before it is escaped."""
    return words.harmless(value, 1_000_000) if isinstance(value, str) and not isinstance(value, Markup) else value


def _policy(scripts: Iterable[str], loads_beside: bool = False) -> str:
    """Content-Security-Policy: these scripts, what they load beside the page, and inline styles; nothing else."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join([f"'sha256-{digest}'" for digest in digests] + (["'strict-dynamic'"] if loads_beside else []))
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
