"""The commands about runs: run, measure, report, compare. Thin, and light to import like :mod:`sizetransfer.cli`."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sizetransfer.contracts.errors import SpecError

if TYPE_CHECKING:
    from sizetransfer.cli.console import RunProgress
    from sizetransfer.runs import Run
    from sizetransfer.verdict import Verdict

EXIT_RUN_FAILED, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 1, 3, 130

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")
run_directory = click.Path(exists=True, file_okay=False, path_type=Path)
trust = click.option("--trust", is_flag=True, help="Run code that the directory's experiment names (kind: module).")
_WHERE = (
    click.option("--device", default="auto", show_default=True, help="torch device."),
    click.option("--executor", default="local", show_default=True, help="Where the trials run."),
    click.option("--workers", type=click.IntRange(min=1), help="Trials at the same time."),
    click.option(
        "--only", multiple=True, metavar="AXIS=NAME", help="A part of the grid: teacher=NAME,student=NAME,seed=N."
    ),
    click.option(
        "--store",
        type=click.Path(file_okay=False, path_type=Path),
        help="Keep trainings here, to share them between runs.  [default: in the run directory]",
    ),
    click.option("--no-report", is_flag=True, help="Write no figures and no report.html."),
    as_json,
)


def _where(command: Any) -> Any:
    """Add the options that say where and what part of a grid is computed."""
    for option in reversed(_WHERE):
        command = option(command)
    return command


@click.command("run")
@click.argument("experiment")
@click.option("--preset", help="A preset of the experiment: quick (the default), paper, ...")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a field, e.g. training.steps=300."
)
@click.option("--out", type=click.Path(path_type=Path), help="Run directory.  [default: runs/EXPERIMENT-PRESET]")
@click.option("--resume/--fresh", default=True, help="Keep what is there (the default), or compute all anew.")
@_where
@click.pass_context
def run_command(
    ctx: click.Context,
    /,
    *,
    experiment: str,
    preset: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    resume: bool,
    **options: Any,
) -> None:
    """Run an experiment by name or file: train, measure, report.

    Only what is not there yet is computed: a run that was interrupted goes on, and one with another size, seed, measure
    or title takes what it can from before.
    """
    from sizetransfer import api

    loaded = api.load(experiment, preset=preset, overrides=parse_settings(settings))
    directory = out or api.default_directory(loaded)
    advice = "the same command" if resume else "the same command without --fresh"
    with _interruptible(ctx, directory, advice), _progress(len(loaded.trials()), options) as progress:
        run = api.run(loaded, directory, fresh=not resume, on_event=progress, **_arguments(options))
    _end(ctx, run, as_json=options["as_json"])


@click.command("measure")
@click.argument("directory", type=run_directory, metavar="RUN_DIR")
@click.option("--measure", "measures", multiple=True, metavar="SPEC", help="A kind, or '{kind: response, fields: 16}'.")
@click.option("--size", "sizes", multiple=True, type=click.IntRange(min=1), help="A size; repeat for more.")
@trust
@_where
@click.pass_context
def measure_command(
    ctx: click.Context,
    /,
    *,
    directory: Path,
    measures: tuple[str, ...],
    sizes: tuple[int, ...],
    trust: bool,
    **options: Any,
) -> None:
    """Measure the trained students of a run: another measure, another size, or both. Nothing is trained.

    A measure is taken at the sizes given, or at all of the run's; without a measure, all of the run's are taken at the
    sizes given. The run directory shows them from then on.
    """
    from sizetransfer import api

    trials = len(api.open_run(directory).experiment.trials())
    with _interruptible(ctx, directory, "the same command"), _progress(trials, options) as progress:
        arguments = _arguments(options)
        run = api.measure_run(directory, measures, sizes, trust=trust, on_event=progress, **arguments)
    _end(ctx, run, as_json=options["as_json"])


@click.command("report")
@click.argument("directories", nargs=-1, required=True, type=run_directory, metavar="RUN_DIR...")
@trust
def report_command(directories: tuple[Path, ...], trust: bool) -> None:
    """Write the figures and report.html of finished or unfinished runs again."""
    from sizetransfer import api

    for directory in directories:
        click.echo(api.write_report(api.open_run(directory, trust=trust)).resolve().as_uri())


@click.command("compare")
@click.argument("first", type=run_directory, metavar="RUN_DIR")
@click.argument("second", type=run_directory, metavar="RUN_DIR")
@as_json
def compare_command(first: Path, second: Path, as_json: bool) -> None:
    """Compare two runs number by number, with the differences in standard errors."""
    from sizetransfer import api
    from sizetransfer.cli.console import show_json, show_table

    table = api.compare(first, second)
    if as_json:
        show_json(table.to_dict(orient="records"))
    else:
        rows = [[f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row] for row in table.to_numpy(object)]
        show_table(f"{first} and {second}", [str(column) for column in table.columns], rows)


def parse_only(parts: Iterable[str]) -> dict[str, list[str]]:
    """The part of the grid that ``teacher=NAME,student=NAME`` names; an axis named twice takes either name.

    Raises:
        SpecError: a part without an equals sign.
    """
    found: dict[str, list[str]] = {}
    for part in (piece for text in parts for piece in text.split(",") if piece.strip()):
        axis, separator, name = (piece.strip() for piece in part.partition("="))
        if not separator or not axis or not name:
            raise SpecError(
                "A part of the grid is an axis and a name.",
                where=f"--only {part}",
                expected="teacher=NAME, student=NAME or seed=N, separated by commas",
                got=repr(part),
                fix="write for example --only teacher=medium-range,student=R=4",
            )
        found.setdefault(axis, []).append(name)
    return found


def parse_settings(settings: Iterable[str]) -> dict[str, object]:
    """Return the overrides written as ``key=value``, the values read as YAML.

    Names in a key may hold equals signs (``students.R=4.width=32``): the last one before a quote, a bracket or a space
    separates key and value. A value with one is quoted: ``name='"a=b"'``.

    Raises:
        SpecError: a setting without ``=``, or whose value is malformed.
    """
    import yaml

    overrides: dict[str, object] = {}
    for setting in settings:
        head = re.split(r"[\"'{\[\s]", setting.strip(), maxsplit=1)[0]
        key, separator, text = setting.strip().partition("=")
        if "=" in head:
            key = head.rpartition("=")[0]
            text = setting.strip()[len(key) + 1 :]
        if not separator or not key.strip():
            raise SpecError(
                "A setting needs a key and a value.",
                where=f"--set {setting}",
                expected="KEY=VALUE, for example training.steps=300",
                got=repr(setting),
                fix="write the dotted path of a field, an equals sign and the value",
            )
        try:
            overrides[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SpecError(
                "The value of a setting is not YAML.",
                where=f"--set {setting}",
                expected="a number, a word, a list such as [16, 32], or a mapping such as {kind: cnn, blocks: 3}",
                got=" ".join(str(error).split()),
                fix="quote the setting for the shell, and strings with special characters for YAML",
            ) from error
    return overrides


def show_run(run: Run, *, as_json: bool) -> None:
    """Print what was reused, the verdicts, what was skipped and what failed, and where the report lies."""
    from sizetransfer.cli.console import show_json

    if as_json:
        data = {"path": run.path, "report": run.report, "verdicts": [one.to_json() for one in run.verdicts]}
        show_json({**data, "failures": run.failures, "skipped": run.skipped, "reused": run.reused})
        return
    _show_reuse(run)
    for name, notes in run.manifest.get("notes", {}).items():
        for note in notes:
            click.echo(f"Teacher {name}: {note}", err=True)
    _show_verdicts(run)
    for name, reason in run.experiment.left_out.items():
        click.echo(f"Left out: {name}: {reason}", err=True)
    for item in run.skipped:
        click.echo(f"Skipped: {item['measure']} of {item['label']}: {item['reason']}", err=True)
    for item in run.failures:
        task = f", {item['measure']} at size {item['size']}" if "measure" in item else ""
        click.echo(f"Failed: {item['label']}{task}: {item['error']}", err=True)
    pending = [entry["label"] for entry in run.manifest.get("trials", ()) if entry["status"] == "pending"]
    if pending:
        click.echo(f"Not computed: {len(pending)} trials, among them {pending[0]}.", err=True)
    click.echo(f"Report: {Path(run.report).resolve().as_uri()}" if run.report else f"Run directory: {run.path}")


def _show_verdicts(run: Run) -> None:
    from sizetransfer.cli.console import show_table

    if not run.verdicts:
        click.echo("No verdict: no error of a student's score was measured.")
        return
    columns = ("teacher", "student", "radius", "error", "null", "linear", "best", "skill", "ρ", "reach", "recipe")
    rows = [
        (one.teacher, one.student, "global" if one.radius is None else one.radius, *_numbers(one), one.recipe.label)
        for one in run.verdicts
    ]
    words = [one.label for one in run.verdicts]
    title = "Relative error of the score at the training size, its growth with size, and verdict"
    show_table(title, (*columns, "verdict"), [(*row, word) for row, word in zip(rows, words, strict=True)])
    for one in run.verdicts:
        remedies = f" Would decide it: {'; '.join(one.what_would_decide)}." if one.what_would_decide else ""
        click.echo(f"{one.teacher} / {one.student}: {one.label}. {one.reason}{remedies}")


def _numbers(verdict: Verdict) -> list[str]:
    """The numbers of the claim that a table shows; a dash where there is none."""
    row = verdict.shown.headline
    values = [row.get(name, math.nan) for name in ("error", "null", "linear", "best", "skill", "ratio", "reach")]
    return ["–" if math.isnan(value) else f"{value:.3g}" for value in values]


def _show_reuse(run: Run) -> None:
    """Say how much was there before, how old it is, and where it was computed if elsewhere."""
    from sizetransfer.cli.console import age, counted

    reused = run.reused
    if reused.get("oldest"):
        parts = f"{counted(reused['trainings'], 'training')} and {counted(reused['measurements'], 'measurement')}"
        elsewhere = f", computed with {', '.join(reused['computed_with'])}" if reused["computed_with"] else ""
        click.echo(f"Reused: {parts}; the oldest is {age(reused['oldest'])} old{elsewhere}.", err=True)
    pending = {entry["trial"] for entry in run.manifest.get("trials", ()) if entry["status"] == "pending"}
    for item in run.manifest.get("renewed", ()):
        changes = item["changes"]
        more = f" and {len(changes) - 3} more changes" if len(changes) > 3 else ""
        done = "Not trained anew" if item["trial"] in pending else "Trained anew"
        click.echo(f"{done}: {item['label']}: {'; '.join(changes[:3])}{more}.", err=True)
    reasons = {
        entry["radius_not_held"]: entry for entry in run.manifest.get("trials", ()) if entry.get("radius_not_held")
    }
    for reason, entry in reasons.items():
        click.echo(f"The radius was not held, of {entry['label']} for one: {reason}", err=True)


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the Python interface for the common options."""
    taken = {name: value for name, value in options.items() if name not in {"only", "no_report", "as_json"}}
    return {**taken, "only": parse_only(options["only"]), "report": not options["no_report"]}


def _progress(trials: int, options: Mapping[str, Any]) -> RunProgress:
    from sizetransfer.cli.console import RunProgress

    return RunProgress(trials, quiet=options["as_json"])


@contextmanager
def _interruptible(ctx: click.Context, directory: Path, advice: str) -> Iterator[None]:
    try:
        with redirect_stdout(sys.stderr):  # what plugins print is no part of what the command prints
            yield
    except KeyboardInterrupt:
        click.echo(f"Interrupted. What is finished is kept in {directory}; {advice} goes on from there.", err=True)
        ctx.exit(EXIT_INTERRUPTED)


def _end(ctx: click.Context, run: Run, *, as_json: bool) -> None:
    show_run(run, as_json=as_json)
    if run.failures:
        ctx.exit(EXIT_SOME_FAILED if len(run.records) else EXIT_RUN_FAILED)
