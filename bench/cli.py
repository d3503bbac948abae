"""The command line: the only place that prints and the only one that exits.

A verdict's exit code is 0 pass, 1 fail, 3 inconclusive, 4 invalid. Bad input is 2, an internal error 70, an interruption 130: a crash is
never a verdict.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
import typer
from rich.console import Console

from bench.errors import EffortbenchError, RunFolderError

if TYPE_CHECKING:
    from bench.experiment import Experiment
    from bench.records import Run, RunVerdict

INTERRUPTED = 130
INTERNAL_ERROR = 70
VERDICT_STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow", "invalid": "bold magenta"}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=(__doc__ or "").splitlines()[0])
console = Console()
errors = Console(stderr=True)

ExperimentName = Annotated[str, typer.Argument(help="Name of a shipped experiment, or the path of a YAML file.")]
RunPath = Annotated[Path, typer.Argument(help="A run folder.")]
Out = Annotated[Path | None, typer.Option(help="Run folder to write; default reports/runs/<experiment>-<time>.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with --out, or with the newest unfinished run of the experiment.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Ask only the first N items of each language.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in finetune.steps=[5].")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what the libraries print, instead of keeping it in logs/.")]
Baseline = Annotated[Path | None, typer.Option(help="Run folder of an earlier release, for gates against: baseline.")]


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
    done = _run(experiment, out, resume, limit, overrides, verbose)
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
) -> None:
    """Run, then judge, then report, whatever the verdict. The exit code is the gate's."""
    folder = _run(experiment, out, resume, limit, overrides, verbose).folder
    verdict = _gate(folder, baseline)
    page = _report(folder)
    console.print(f"report  [bold]{_shown(page)}[/]")
    raise typer.Exit(verdict.exit_code)


@app.command()
def gate(run_folder: RunPath, baseline: Baseline = None) -> None:
    """Judge a run by the gates of its experiment; writes verdict.json."""
    raise typer.Exit(_gate(run_folder, baseline).exit_code)


@app.command()
def report(run_folder: RunPath) -> None:
    """Write report/index.html, PNGs, summary.md and junit.xml from a run's records."""
    console.print(f"report  [bold]{_shown(_report(run_folder))}[/]")


@app.command()
def suites() -> None:
    """List the suites, their splits, languages and revisions."""
    from rich.table import Table

    from bench.catalog import find_suite, suite_names

    table = Table("suite", "splits", "languages", "asks for reasoning language", "revision")
    for name in suite_names():
        suite = find_suite(name)
        asks = "yes" if suite.asks_reasoning_language else "no"
        table.add_row(name, " ".join(suite.splits), " ".join(suite.languages), asks, suite.revision)
    console.print(table)


@app.command()
def export(
    run_folder: RunPath,
    format: Annotated[Literal["parquet", "csv", "jsonl"], typer.Option(help="File format.")] = "parquet",
    out: Annotated[Path | None, typer.Option(help="File to write; default samples.<format> in the current folder.")] = None,
) -> None:
    """Write all samples of a run into one file."""
    from bench.store import load_run

    samples = load_run(run_folder).samples
    path = out or Path(f"samples.{format}")
    try:
        if format == "parquet":
            samples.to_parquet(path, index=False)
        elif format == "csv":
            samples.to_csv(path, index=False)
        else:
            samples.to_json(path, orient="records", lines=True, force_ascii=False)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror}; pass another --out") from error
    console.print(f"{len(samples):,} samples in [bold]{path}[/]")


def main() -> None:
    """Run the command line and exit."""
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        code = app(standalone_mode=False)
    except click.exceptions.Abort:
        return _interrupted()
    except KeyboardInterrupt:
        return _interrupted()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except EffortbenchError as error:
        errors.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True, highlight=False)
        return error.exit_code
    except Exception:
        errors.print_exception()
        return INTERNAL_ERROR
    return code if isinstance(code, int) else 0


def _interrupted() -> int:
    errors.print("\ninterrupted: the same command with [bold]--resume[/] goes on where it stopped")
    return INTERRUPTED


def _run(name: str, out: Path | None, resume: bool, limit: int | None, overrides: list[str], verbose: bool) -> Run:
    from bench.console import ConsoleProgress
    from bench.experiment import load_experiment
    from bench.runner import run_experiment

    experiment = load_experiment(name, overrides)
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


def _newest(experiment: Experiment) -> Path:
    from bench.runner import RUNS
    from bench.store import newest_unfinished

    found = newest_unfinished(RUNS, experiment.name)
    if found is None:
        raise RunFolderError(f"no unfinished run of {experiment.name!r} in {RUNS}: leave out --resume, or pass --out")
    return found


def _gate(folder: Path, baseline: Path | None) -> RunVerdict:
    from bench.runner import gate_run
    from bench.store import load_run, write_verdict

    verdict = gate_run(load_run(folder), load_run(baseline) if baseline else None)
    write_verdict(folder, verdict)
    _print_verdict(verdict)
    return verdict


def _print_verdict(verdict: RunVerdict) -> None:
    for judged in verdict.gates:
        reason = judged.reasons[0] if judged.reasons else ""
        console.print(f"[{VERDICT_STYLES[judged.verdict]}]{judged.verdict:12}[/] {judged.name}: {_escape(reason)}", soft_wrap=True)
    if not verdict.gates:
        console.print("the experiment has no gates: nothing was judged")
    console.print(f"verdict [{VERDICT_STYLES[verdict.verdict]}]{verdict.verdict.upper()}[/]")


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
