"""What the command line shows: progress with the time left, and tables. Importing this imports rich, no torch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Task as ProgressTask
from rich.table import Table
from rich.text import Text

from sizetransfer.contracts.events import Event

_ENDS = {"finished": "finished", "reused": "was finished before", "failed": "failed"}


class RunProgress:
    """Shows how far a run is: a bar with the time left on a terminal, otherwise a line for each trial that ends.

    The bar stands at the mean over all trials of the share of their work that is done.

    Args:
        trials: number of trials of the run.
        quiet: show nothing where there is no terminal.
    """

    def __init__(self, trials: int, *, quiet: bool = False) -> None:
        self._trials = trials
        self._quiet = quiet
        self._done: dict[str, float] = {}
        self._ended: set[str] = set()
        self._reused: set[str] = set()
        self._started = time.monotonic()
        console = Console(stderr=True)
        self._bar: Progress | None = None
        if console.is_terminal:
            share = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeLeft())
            self._bar = Progress(TextColumn("{task.description}"), *share, console=console)
            self._task = self._bar.add_task("preparing", total=trials, share=0.0)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def share(self) -> float:
        """Share of the work of all trials that is done, between 0 and 1."""
        return math.fsum(self._done.values()) / self._trials if self._trials else 1.0

    @property
    def share_of_new_work(self) -> float:
        """The same without the trials that an earlier run had finished: they say nothing of the time left."""
        trials = self._trials - len(self._reused)
        done = math.fsum(share for trial, share in self._done.items() if trial not in self._reused)
        return done / trials if trials else 1.0

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        ended = event.kind in _ENDS
        if event.kind == "reused":
            self._reused.add(event.trial)
        self._done[event.trial] = 1.0 if ended else max(event.done, self._done.get(event.trial, 0.0))
        new_end = ended and event.trial not in self._ended
        if new_end:
            self._ended.add(event.trial)
        if self._bar is not None:
            text = f"{len(self._ended)}/{self._trials} · {event.label}"
            completed, share = self.share * self._trials, self.share_of_new_work
            self._bar.update(self._task, completed=completed, description=text, share=share)
        if new_end:
            self._say(event)
        if event.kind == "measured" and "failed" in event.detail:
            self._write(f"{event.label}: {event.detail}")

    def _say(self, event: Event) -> None:
        line = f"[{len(self._ended)}/{self._trials}] {event.label}: {_ENDS[event.kind]}"
        line += f", {duration(time.monotonic() - self._started)} in all" if event.kind == "finished" else ""
        line += f": {event.detail.partition(chr(10))[0]}" if event.kind == "failed" and event.detail else ""
        self._write(line)

    def _write(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(Text(line))
        elif not self._quiet:
            click.echo(line, err=True)


class TimeLeft(ProgressColumn):
    """Time left at the mean pace so far; the pace of single trials varies too much for a moving estimate."""

    def render(self, task: ProgressTask) -> Text:
        elapsed, share = task.elapsed or 0.0, float(task.fields["share"])
        if share < 0.01 or elapsed < 2:
            return Text("time left: –", style="progress.remaining")
        return Text(f"time left: {duration(elapsed * (1 - share) / share)}", style="progress.remaining")


def duration(seconds: float) -> str:
    """A duration as people say it: ``8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(count: int, noun: str) -> str:
    """A number of things: ``1 training``, ``3 trainings``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def age(moment: str) -> str:
    """How long ago a moment in ISO format was, roughly: ``5 min``, ``3 h``, ``12 days``."""
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h" if seconds < 48 * 3600 else f"{round(seconds / 86400)} days"


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; where the output is no terminal, with as many columns as it needs."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000, soft_wrap=True)
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(Text(title, style="bold"))
    console.print(table)


def show_json(data: object) -> None:
    """Print data for a program to read; numbers that JSON lacks become null."""
    click.echo(json.dumps(finite(data), indent=2, ensure_ascii=False, default=str))


def finite(data: Any) -> Any:
    """The data with NaN and infinities replaced by None."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data
