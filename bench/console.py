"""Progress for people: bars with an ETA on a terminal, one line a phase elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.runner import Progress


class ConsoleProgress(Progress):
    """The runner's `Progress`, shown with rich. Use as a context manager."""

    def __init__(self, console: Console):
        self.console = console
        self._bars = rich_progress.Progress(
            SpinnerColumn(),
            TextColumn("{task.description:11}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._title = ""
        self._started = 0.0

    def __enter__(self) -> ConsoleProgress:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def begin(self, title: str, total: int | None) -> None:
        """A new phase."""
        self._title, self._started = title, time.monotonic()
        self._task = self._bars.add_task(title, total=total)

    def set_total(self, total: int) -> None:
        """What the phase will come to."""
        assert self._task is not None, "set_total before begin"
        self._bars.update(self._task, total=total)

    def advance(self, count: int = 1) -> None:
        """So much more is done."""
        assert self._task is not None, "advance before begin"
        self._bars.advance(self._task, count)

    def end(self, summary: str) -> None:
        """The phase is over: its bar gives way to one line."""
        assert self._task is not None, "end before begin"
        self._bars.remove_task(self._task)
        self.console.print(f"{self._title:11} {escape(summary)} in {_duration(time.monotonic() - self._started)}", highlight=False)

    def warn(self, message: str) -> None:
        """Something the user should see now."""
        self.console.print(f"[bold yellow]warning:[/] {escape(message)}", soft_wrap=True, highlight=False)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
