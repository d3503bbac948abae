"""The command line: the only place that prints and the only one that exits.

A verdict's exit code is 0 pass, 1 fail, 3 inconclusive, 4 invalid. Bad input is 2, an internal error 70, an interruption 130: a crash is
never a verdict.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from bench.errors import EffortbenchError, RunFolderError, UsageError
from bench.redaction import redact

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from bench.experiment import Experiment
    from bench.fabricate import Sizing
    from bench.records import Run, RunVerdict

INTERRUPTED = 130
INTERNAL_ERROR = 70
VERDICT_STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow", "invalid": "bold magenta"}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=(__doc__ or "").splitlines()[0])
baselines = typer.Typer(no_args_is_help=True, help="The committed runs that later ones are compared with.")
app.add_typer(baselines, name="baseline")
kept = typer.Typer(no_args_is_help=True, help="The run folders kept on this machine.")
app.add_typer(kept, name="runs")
console = Console()
errors = Console(stderr=True)

ExperimentName = Annotated[str, typer.Argument(help="Name of a shipped experiment, or the path of a YAML file.")]
RunPath = Annotated[Path, typer.Argument(help="A run folder.")]
Out = Annotated[Path | None, typer.Option(help="Run folder to write; default reports/runs/<experiment>-<time>.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with --out, or with the newest unfinished run of the experiment.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Ask only the first N items of each language.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in finetune.steps=[5].")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what the libraries print, instead of keeping it in logs/.")]
Baseline = Annotated[Path | None, typer.Option(help="Baseline or run folder of an earlier release, for gates against: baseline.")]
Waive = Annotated[
    list[str], typer.Option("--waive", metavar="GATE", help="Let this gate block nothing; its verdict stays. Needs --reason.")
]
Reason = Annotated[str | None, typer.Option(help="Why; kept on record.")]


@app.command()
def run(
    experiment: ExperimentName,
    out: Out = None,
    resume: Resume = False,
    limit: Limit = None,
    overrides: Overrides = [],  # noqa: B006  # typer copies it
    verbose: Verbose = False,
) -> None:
    """Fine-tune, evaluate and record; judge nothing."""
    done = _run(_load(experiment, overrides), out, resume, limit, verbose)
    console.print(f"recorded in [bold]{_shown(done.folder)}[/]")


@app.command()
def bench(
    experiment: ExperimentName,
    out: Out = None,
    resume: Resume = False,
    limit: Limit = None,
    overrides: Overrides = [],  # noqa: B006
    verbose: Verbose = False,
    baseline: Baseline = None,
    waive: Waive = [],  # noqa: B006
    reason: Reason = None,
) -> None:
    """Run, then judge, then report, whatever the verdict. The exit code is the gate's."""
    from bench.baseline import check_path
    from bench.gate import check_waivers
    from bench.plan import refuse_underpowered

    loaded = _load(experiment, overrides)
    check_waivers(waive, reason, loaded.gate_names)
    refuse_underpowered(loaded, limit)
    if baseline is not None:
        check_path(baseline)
    elif warning := _missing_baseline(loaded):
        errors.print(f"[bold yellow]warning:[/] {_escape(warning)}", soft_wrap=True, highlight=False)
    folder = _run(loaded, out, resume, limit, verbose).folder
    verdict = _gate(folder, baseline, waive, reason)
    page = _report(folder)
    console.print(f"report  [bold]{_shown(page)}[/]")
    raise typer.Exit(verdict.exit_code)


@app.command()
def gate(
    run_folder: RunPath,
    baseline: Baseline = None,
    waive: Waive = [],  # noqa: B006
    reason: Reason = None,
) -> None:
    """Judge a run by the gates of its experiment; writes verdict.json."""
    raise typer.Exit(_gate(run_folder, baseline, waive, reason).exit_code)


@baselines.command()
def promote(run_folder: RunPath, reason: Reason = None) -> None:
    """Make a judged run the one that later runs of its experiment on its hardware are compared with."""
    from bench.baseline import promote as promote_run
    from bench.store import load_run

    done = load_run(run_folder)
    folder = promote_run(done, reason)
    console.print(f"baseline [bold]{_escape(folder)}[/]: commit it, and gates against: baseline use it")


Root = Annotated[Path | None, typer.Option("--in", help="Folder that holds run folders; default reports/runs.")]


@kept.command("list")
def list_kept(root: Root = None) -> None:
    """List the run folders, newest first, with their size on disk."""
    from rich.table import Table

    from bench.report import words
    from bench.runner import RUNS
    from bench.runs import list_runs

    found = list_runs(root or RUNS)
    table = Table("run", "experiment", "started (UTC)", "state", "answers", "size")
    for one in found:
        state = f"[{VERDICT_STYLES.get(one.state, 'default')}]{_escape(one.state)}[/]"
        started = one.started_at[:16].replace("T", " ")
        table.add_row(
            *map(_escape, (one.folder.name, one.experiment, started)), state, words.count(one.answers), words.size(one.size_bytes)
        )
    console.print(table)
    total = sum(one.size_bytes for one in found)
    console.print(f"{words.plural(len(found), 'run')} in {_escape(root or RUNS)}, {words.size(total)}", soft_wrap=True, highlight=False)


@kept.command("remove")
def remove_kept(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or their names in --in.")],
    root: Root = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete run folders, adapters and all. Baselines and other folders are never touched."""
    from bench.report import words
    from bench.runner import RUNS
    from bench.runs import find_run, remove_run, size_of

    asked = [find_run(folder, root or RUNS) for folder in folders]
    for folder in asked:
        console.print(f"{_escape(_shown(folder))}, {words.size(size_of(folder))}", soft_wrap=True, highlight=False)
    if not yes:
        typer.confirm(f"delete {words.plural(len(asked), 'run')} for good?", abort=True)
    for folder in asked:
        remove_run(folder)
    console.print(f"deleted {words.plural(len(asked), 'run')}")


@app.command()
def report(run_folder: RunPath) -> None:
    """Write report/index.html, PNGs, summary.md and junit.xml from a run's records."""
    console.print(f"report  [bold]{_shown(_report(run_folder))}[/]")


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="Run folder, the earlier one.")],
    run_b: Annotated[Path, typer.Argument(help="Run folder, the later one.")],
    arm_a: Annotated[str | None, typer.Option(help="Arm of RUN_A; default: the one under test, or base.")] = None,
    arm_b: Annotated[str | None, typer.Option(help="Arm of RUN_B; default: the one under test, or base.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default reports/comparisons/<RUN_A>-<RUN_B>.")] = None,
) -> None:
    """Show two runs on one page, an arm of each, on the same questions; exit code 4 where they cannot be compared everywhere."""
    from bench.records import EXIT_CODES
    from bench.report import words, write_comparison
    from bench.store import load_run

    before, after = load_run(run_a), load_run(run_b)
    folder = out or Path("reports") / "comparisons" / f"{before.folder.resolve().name}-{after.folder.resolve().name}"
    page, found = write_comparison(before, after, folder, (arm_a, arm_b))
    for one in found:
        where = f"{one.arm} against {one.against}, {one.suite}@{one.split}, {one.effort} effort"
        interval = words.change_interval("accuracy", one.ci)
        said = f"{words.change('accuracy', one.delta)} (95 % interval {interval})" if one.delta is not None else one.invalid_because[0]
        console.print(f"{_escape(where)}: accuracy {_escape(said)}", soft_wrap=True, highlight=False)
    console.print(f"report  [bold]{_escape(_shown(page))}[/]", soft_wrap=True)
    is_compared = bool(found) and all(one.delta is not None for one in found)
    raise typer.Exit(0 if is_compared else EXIT_CODES["invalid"])


@app.command()
def history(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="[RUN...]", help="Judged run folders to set beside the baselines.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("reports") / "history",
) -> None:
    """Show accuracy, tokens, latency and memory of every release: the committed baselines, read from git, and given runs."""
    from bench.history import read_history
    from bench.report import write_history
    from bench.report.history import opening

    lines, problems = read_history(runs or [])
    for problem in problems:
        errors.print(f"[bold yellow]warning:[/] {_escape(problem)}", soft_wrap=True, highlight=False)
    page = write_history(lines, problems, out)
    console.print(_escape(opening(lines)), soft_wrap=True, highlight=False)
    console.print(f"report  [bold]{_escape(_shown(page))}[/]", soft_wrap=True)


@app.command()
def power(
    experiment: ExperimentName,
    pilot: Annotated[Path | None, typer.Option(help="Run folder to take the spread of differences from.")] = None,
    items: Annotated[int | None, typer.Option(min=2, help="Problems a language; default: as many as the suite's split has.")] = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Say what the gates can tell before anything is run; exit code 3 where one is under-powered."""
    from bench.plan import describe, describe_cost, plan_costs, plan_gates
    from bench.records import EXIT_CODES
    from bench.store import load_run

    asked, run = _load(experiment, overrides), load_run(pilot) if pilot else None
    plans = plan_gates(asked, run, items)
    for source in dict.fromkeys(plan.spread.source for plan in plans):
        console.print(f"spread: {_escape(source)}", soft_wrap=True, highlight=False)
    for plan in plans:
        console.print(f"[bold]{_escape(plan.gate.name)}[/]: {_escape(describe(plan))}", soft_wrap=True, highlight=False)
    for cost in plan_costs(asked, run, items, plans) if run else []:
        console.print(f"cost: {_escape(describe_cost(cost))}", soft_wrap=True, highlight=False)
    for plan in plans:
        if plan.problem is not None:
            answer = "refused" if plan.is_refused else "allowed"
            console.print(f"[bold yellow]{answer}[/] {_escape(plan.problem)}", soft_wrap=True, highlight=False)
    raise typer.Exit(EXIT_CODES["inconclusive"] if any(plan.is_refused for plan in plans) else 0)


@app.command()
def suites() -> None:
    """List the suites: problems a language, languages, licence, where the rows come from, and revision."""
    from rich.table import Column, Table

    from bench.catalog import find_suite, suite_names

    titles = ("problems a language", "languages", "licence", "data", "reasoning language", "revision")
    table = Table(Column("suite", no_wrap=True), *(Column(title, overflow="fold") for title in titles), show_lines=True)
    for name in suite_names():
        suite = find_suite(name)
        asks = "asked for" if suite.asks_reasoning_language else "not asked for"
        data = f"{suite.hub.id}\n@{suite.hub.revision[:12]}" if suite.hub else "own rows"
        table.add_row(name, suite.describe_items(), " ".join(suite.languages), suite.licence, data, asks, suite.revision)
    console.print(table)


@app.command()
def fabricate(
    shape: Annotated[Literal["gpt-oss-20b", "gpt-oss-120b", "tiny"], typer.Option(help="Whose layers, widths and experts.")],
    format: Annotated[Literal["bf16", "mxfp4", "bnb-4bit"], typer.Option(help="Layout of the weights.")] = "bf16",
    out: Annotated[Path | None, typer.Option(help="Folder to write, called as the model is on the hub.")] = None,
    in_memory: Annotated[
        bool, typer.Option("--in-memory", help="Write nothing: build the bf16 model, run it, and say what it took.")
    ] = False,
    vocabulary: Annotated[
        Path | None, typer.Option(help="o200k_base.tiktoken; default: EFFORTBENCH_DATA/o200k where it is there, else bytes.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random weights.")] = 3407,
) -> None:
    """Make a model of true size with random weights, to size a card and to try a pipeline before downloading anything."""
    from bench.fabricate import fabricate as write
    from bench.fabricate import find_vocabulary, size_up

    if in_memory == (out is not None) or (in_memory and format != "bf16"):
        raise UsageError("give either --out FOLDER, or --in-memory with --format bf16")
    if out is None:
        _print_sizing(shape, size_up(shape, seed=seed))
        return
    made = write(shape, format, out, seed=seed, vocabulary=vocabulary or find_vocabulary(shape))
    words = "the true vocabulary" if made.has_true_vocabulary else "text spelled in bytes, for the true vocabulary was not at hand"
    console.print(
        f"[bold]{_escape(made.folder)}[/]: {made.weights_bytes / 1e9:.2f} GB of random weights in {made.wall_s:.0f} s, {words}",
        soft_wrap=True,
        highlight=False,
    )


def _print_sizing(shape: str, sizing: Sizing) -> None:
    peak = "unknown without a GPU" if sizing.peak_vram_bytes is None else f"{sizing.peak_vram_bytes / 2**30:.2f} GiB"
    weights = f"{sizing.parameters:,} parameters, {sizing.weights_bytes / 2**30:.2f} GiB of weights, built in {sizing.build_s:.1f} s"
    speed = f"a prompt of 1,024 tokens in {sizing.prefill_s:.2f} s, then {sizing.decode_tokens_per_s:.1f} tokens/s"
    where = f"{shape} in bf16 on {_escape(sizing.device)}"
    console.print(f"{where}: {weights}; {speed}; peak VRAM {peak}", soft_wrap=True, highlight=False)


_LABELS = {"samples": {"timing_mode": "throughput"}}
"""Columns that a table of people has besides: latency_s and ttft_s of an answer are taken while others run beside it."""


@app.command()
def export(
    run_folder: RunPath,
    format: Annotated[Literal["parquet", "csv", "jsonl"], typer.Option(help="File format.")] = "parquet",
    out: Annotated[Path | None, typer.Option(help="File to write; default <records>.<format> in the current folder.")] = None,
    records: Annotated[
        Literal["samples", "timing", "memory", "phases", "costs"],
        typer.Option(
            help="samples: one row an answer; timing: a request of the latency probe; memory, phases: what passes cost; costs: cells."
        ),
    ] = "samples",
) -> None:
    """Write a run's samples, or other records of it, into one file."""
    from bench.costs import cell_costs
    from bench.store import load_run

    run = load_run(run_folder)
    found = run.samples if records == "samples" else cell_costs(run) if records == "costs" else run.frame(records)
    path = out or Path(f"{records}.{format}")
    try:
        if format == "parquet":
            found.to_parquet(path, index=False)
        elif format == "csv":
            found.assign(**_LABELS.get(records, {})).to_csv(path, index=False)
        else:
            path.write_text("".join(_lines(found)), encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror or error}; pass another --out") from error
    console.print(f"{len(found):,} {'samples' if records == 'samples' else f'rows of {records}'} in [bold]{path}[/]")


@app.command()
def save(
    run_folder: RunPath,
    arm: Annotated[str, typer.Argument(help="Name of an arm with an adapter.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not be there yet.")],
    format: Annotated[Literal["adapter", "merged-16bit", "mxfp4", "gguf"], typer.Option(help="What to write.")] = "adapter",
    base: Annotated[Path | None, typer.Option(help="The base model in 16 bits, where the run's own is quantized.")] = None,
) -> None:
    """Write an arm's adapter, or its model merged and verified, with a model card of the run's measurements."""
    from bench.saving import save_arm
    from bench.store import load_run

    agreement = save_arm(load_run(run_folder), arm, format, out, base)
    console.print(f"{format} of {_escape(arm)} in [bold]{_escape(_shown(out))}[/]", soft_wrap=True)
    if agreement is not None:
        console.print(
            f"read back by transformers: {agreement.equal} of {agreement.prompts} greedy continuations equal those of base + adapter, "
            f"{agreement.near_ties} part at a near tie (at most {agreement.largest_gap:.2f} nats); "
            f"base alone differs in {agreement.unlike_base}",
            soft_wrap=True,
            highlight=False,
        )


def _lines(samples: pd.DataFrame) -> Iterator[str]:
    """One JSON object a sample, as in the run folder: None where a cell is empty, counts as whole numbers, all digits of a float."""
    whole = ("seed", "reasoning_tokens", "final_tokens", "output_tokens")
    for row in samples.to_dict("records"):
        values: dict[str, Any] = {str(name): None if value is None or value != value else value for name, value in row.items()}
        values |= {name: int(values[name]) for name in whole if values.get(name) is not None}
        yield json.dumps(values, ensure_ascii=False) + "\n"


def main() -> None:
    """Run the command line and exit."""
    code = _exit_code()
    if code == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # taking a process with torch in it apart takes seconds, and nothing is left to be saved
    sys.exit(code)


def _exit_code() -> int:
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except typer.TyperException as error:  # the command line itself is wrong
        if message := " ".join(error.format_message().split()):  # empty where help was asked for, and is printed
            _print_error(f"{message} (effortbench --help says more)")
        return UsageError.exit_code
    except EffortbenchError as error:
        _print_error(str(error))
        return error.exit_code
    except Exception:
        errors.print(_escape(redact(traceback.format_exc(), os.environ)), soft_wrap=True, highlight=False)
        return INTERNAL_ERROR
    if code == INTERRUPTED:  # typer's word for a KeyboardInterrupt
        return _interrupted()
    return code if isinstance(code, int) else 0


def _print_error(message: str) -> None:
    errors.print(f"[bold red]error:[/] {_escape(redact(message, os.environ))}", soft_wrap=True, highlight=False)


def _interrupted() -> int:
    goes_on = sys.argv[1:2] in (["run"], ["bench"])
    hint = ": the same command with [bold]--resume[/] goes on where it stopped" if goes_on else ""
    errors.print(f"\ninterrupted{hint}")
    return INTERRUPTED


def _load(name: str, overrides: list[str]) -> Experiment:
    from bench.experiment import load_experiment

    return load_experiment(name, overrides)


def _run(experiment: Experiment, out: Path | None, resume: bool, limit: int | None, verbose: bool) -> Run:
    from bench.console import ConsoleProgress
    from bench.runner import run_experiment

    if resume and out is None:
        out = _newest(experiment)
    with ConsoleProgress(console) as progress:
        return run_experiment(
            experiment,
            out,
            progress=progress,
            command=shlex.join(["effortbench", *sys.argv[1:]]),
            resume=resume,
            limit=limit,
            verbose=verbose,
        )


def _missing_baseline(experiment: Experiment) -> str | None:
    """What is wrong before hours are spent: a gate needs a baseline of this hardware, and none was committed. None where all is well."""
    from bench.baseline import no_baseline_yet
    from bench.meter import read_environment

    needy = [gate for gate in experiment.gates if gate.against == "baseline" and gate.needs_baseline]
    if not needy:
        return None
    missing = no_baseline_yet(experiment.name, read_environment(Path(__file__).parent).hardware)
    return f"gate {needy[0].name} will be invalid: {missing}" if missing else None


def _newest(experiment: Experiment) -> Path:
    from bench.runner import RUNS
    from bench.store import newest_unfinished

    found = newest_unfinished(RUNS, experiment.name)
    if found is None:
        raise RunFolderError(f"no unfinished run of {experiment.name!r} in {RUNS}: leave out --resume, or pass --out")
    return found


def _gate(folder: Path, baseline: Path | None, waived: list[str], reason: str | None) -> RunVerdict:
    from bench.baseline import find_baseline
    from bench.gate import check_waivers, waive
    from bench.judging import judge_run
    from bench.store import load_run, write_verdict

    done = load_run(folder)
    check_waivers(waived, reason, done.experiment.gate_names)
    is_asked = any(gate.against == "baseline" for gate in done.experiment.gates)
    found = find_baseline(done, baseline) if is_asked or baseline is not None else None
    if baseline is not None and not is_asked:
        errors.print("[bold yellow]warning:[/] --baseline is not used: no gate of this experiment is against: baseline", soft_wrap=True)
    verdict = waive(judge_run(done, found), waived, reason)
    write_verdict(folder, verdict)
    _print_verdict(verdict)
    return verdict


def _print_verdict(verdict: RunVerdict) -> None:
    if verdict.gates:
        console.print(_verdict_table(verdict))
    for judged in verdict.gates:
        reason = judged.reasons[0] if judged.reasons else ""
        name = judged.name if judged.required else f"{judged.name} (not required)"
        console.print(f"[{VERDICT_STYLES[judged.verdict]}]{judged.verdict:12}[/] {name}: {_escape(reason)}", soft_wrap=True)
        if judged.waived is not None:
            console.print(f"[bold]{'waived':12}[/] {judged.name}: {_escape(judged.waived)}", soft_wrap=True)
    if not verdict.gates:
        console.print("the experiment has no gates: nothing was judged")
    waived = ", ".join(judged.name for judged in verdict.gates if judged.waived is not None)
    ending = f" (exit code {verdict.exit_code}, waived: {waived})" if waived else ""
    console.print(f"verdict [{VERDICT_STYLES[verdict.verdict]}]{verdict.verdict.upper()}[/]{ending}", soft_wrap=True)


def _verdict_table(verdict: RunVerdict) -> Table:
    """What each gate saw, a line each; its reason needs a line of its own."""
    from rich.table import Table

    from bench.report import words

    table = Table("gate", "verdict", "before", "after", "change (95 % interval)", box=None, pad_edge=False)
    for judged in verdict.gates:
        change = words.change(judged.metric, judged.delta) if judged.delta is not None else words.MISSING
        if judged.ci is not None:  # timing blocks and memory have none
            change += f" ({words.change_interval(judged.metric, judged.ci)})"
        levels = (words.level(judged.metric, value) if words.known(value) else words.MISSING for value in (judged.before, judged.after))
        style = VERDICT_STYLES[judged.verdict]
        table.add_row(_escape(judged.name), f"[{style}]{judged.verdict}[/]", *map(_escape, levels), _escape(change))
    return table


def _report(folder: Path) -> Path:
    from bench.report import write_report
    from bench.store import load_run

    return write_report(load_run(folder))


def _shown(path: Path) -> str:
    """Relative to the current folder where it lies inside."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _escape(text: Any) -> str:
    from rich.markup import escape

    return escape(str(text))
