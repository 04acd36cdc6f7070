"""What the command line shows: progress with the time left, and tables. Importing this imports rich, no torch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Task as ProgressTask
from rich.table import Table
from rich.text import Text

from sizetransfer.events import Event

if TYPE_CHECKING:
    from sizetransfer.comparison import Quantity
    from sizetransfer.prediction import Prediction

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


def number(value: float, standard_error: float) -> str:
    """A value with two digits of its standard error, for example ``0.2634 ± 0.0029``."""
    if not standard_error > 0 or not math.isfinite(standard_error):
        return f"{value:.3g}"
    digits = max(0, 1 - math.floor(math.log10(standard_error)))
    if digits > 8:
        return f"{value:.1e} ± {standard_error:.1e}"
    return f"{value:.{digits}f} ± {standard_error:.{digits}f}"


def show_prediction(prediction: Prediction) -> None:
    """Print a prediction: responses, Theorem 1, the student's errors, the verdicts and the rule."""
    columns = [f"R({prediction.spec.epsilon:g})", *(f"covers {share:.4g}" for share in prediction.spec.shares)]
    head = [_symbol(prediction), "sigma", *columns, "share outside", "irreducible"]
    counted, certified = (any(getattr(row, name) is not None for row in prediction.rows) for name in _OPTIONAL)
    head += [*(["draws"] if counted else []), "sufficient", *(["certified"] if certified else []), "numbers"]
    rows = [
        (
            row.size,
            row.sigma or "clean",
            *(labelled(cell) for cell in (row.range, *row.covering.values(), row.outside_share, row.irreducible)),
            *([row.draws or "–"] if counted else []),
            labelled(row.sufficient),
            *([labelled(row.certified)] if certified else []),
            row.range.kind,
        )
        for row in prediction.rows
    ]
    pair = f"{prediction.teacher}, {prediction.student or 'no student'}"
    radius = "" if prediction.student is None else f", radius {prediction.radius or 'global'}"
    show_table(f"Response of the score: {pair}{radius}", head, rows)
    _show_theorem(prediction)
    _show_errors(prediction)
    _show_forecasts(prediction)


_OPTIONAL = ("draws", "certified")


def _symbol(prediction: Prediction) -> str:
    from sizetransfer.domain import size_words  # needs torch, which no help text does

    return size_words([prediction.geometry]).symbol


def labelled(quantity: Quantity | None, *, kind: bool = False) -> str:
    """A number with its standard error and, if asked for, what it is worth."""
    if quantity is None:
        return "–"
    text = number(quantity.value, quantity.error if quantity.kind == "estimate" else 0.0)
    return f"{text} ({quantity.kind})" if kind else text


def _show_theorem(prediction: Prediction) -> None:
    click.echo()
    if all(row.bound is None and row.budget is None for row in prediction.theorem):
        click.echo(f"Theorem 1: not available. {prediction.theorem[0].reason}.")
        return
    symbol = _symbol(prediction)
    head = (symbol, "of the", "bound", "truth", "budget", f"uniform in {symbol}")
    rows = []
    for row in prediction.theorem:
        truth = "–" if row.truth is None else f"{number(row.truth.upper, 0.0)} ({row.truth.kind})"
        uniform = {True: "yes", False: "no", None: "not known"}[row.size_uniform]
        budget = labelled(row.budget, kind=True)
        rows.append((row.size, row.subject or "–", labelled(row.bound, kind=True), truth, budget, uniform))
    first = prediction.theorem[0]
    show_table(f"Theorem 1 for the patch {[list(site) for site in first.patch]}", head, rows)
    for reason in dict.fromkeys(row.reason for row in prediction.theorem if row.reason):
        click.echo(f"({reason})")


def _show_errors(prediction: Prediction) -> None:
    if not prediction.errors:
        return
    click.echo()
    rows = [
        (
            row.size,
            f"{row.sigma:g}",
            row.against,
            *(labelled(q, kind=True) for q in (row.error, row.locality, row.training)),
        )
        for row in prediction.errors
    ]
    head = (_symbol(prediction), "sigma", "against", "relative error", "from locality", "from training")
    show_table("Error of the student", head, rows)


def _show_forecasts(prediction: Prediction) -> None:
    click.echo()
    overall = prediction.overall
    grows = {True: "grows", False: "does not grow", None: "is not known to grow"}
    if overall.verdict is None:
        click.echo(f"Verdict: none, {overall.reason}.")
    else:
        click.echo(f"Predicted verdict: {overall.verdict}: {overall.reason}.")
    click.echo(f"Smallest sufficient radius: {labelled(overall.sufficient, kind=True)}; with the size it", nl=False)
    click.echo(f" {grows[overall.sufficient_grows]}. The range R_eps {grows[overall.range_grows]}.")
    for note in prediction.notes:
        click.echo(note)
    click.echo(f"\n{prediction.rule}")
