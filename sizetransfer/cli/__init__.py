"""The command ``sizetransfer``: a thin layer over :mod:`sizetransfer.api`.

Whatever is heavy is imported inside the commands, so that ``sizetransfer --help`` answers at once. Exit codes:
0 success, 1 a run failed, 2 wrong usage or specification, 3 some trials of a run failed and the others finished,
130 interrupted.
"""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from sizetransfer.cli.diagnose_data import data_options, show_diagnosis_of_data, take_data
from sizetransfer.cli.model_commands import radius_command
from sizetransfer.cli.run_commands import (
    EXIT_INTERRUPTED,
    EXIT_RUN_FAILED,
    as_json,
    compare_command,
    measure_command,
    report_command,
    run_command,
)
from sizetransfer.cli.skeleton.command import new_plugin
from sizetransfer.contracts.errors import OracleError, PluginError, SizetransferError, SpecError
from sizetransfer.registry import ELSEWHERE, FAMILIES, SORTS, Entry, Sort, default_registry
from sizetransfer.registry.plugins import core_version, describe

if TYPE_CHECKING:
    from sizetransfer.contracts.specs import KindSpec
    from sizetransfer.diagnosis import Prediction

EXIT_USAGE = 2


class Commands(click.Group):
    """The built-in commands, and those of plugins, which are imported only when they are listed or called."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; errors that users can act on end it without a traceback."""
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except SizetransferError as error:
                click.echo(f"Error: {error}", err=True)
                ctx.exit(EXIT_USAGE if isinstance(error, SpecError | PluginError) else EXIT_RUN_FAILED)
            except KeyboardInterrupt:
                click.echo("Interrupted.", err=True)
                ctx.exit(EXIT_INTERRUPTED)
            except SystemExit as error:
                if ctx.invoked_subcommand not in self.commands:
                    raise  # a plugin's command ends as it likes
                click.echo(f"Error: code that the command needed ended it: {describe(error)}", err=True)
                ctx.exit(EXIT_RUN_FAILED)
            except Exception as error:
                name = ctx.invoked_subcommand
                if name is not None and name not in self.commands:
                    owner = self.plugin_commands()[name].plugin.record.owner
                    error.add_note(f"The command {name!r} belongs to {owner}.")
                raise

    def plugin_commands(self) -> dict[str, Entry]:
        """Commands of plugins by name."""
        return default_registry().commands(reserved=self.commands)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *sorted(self.plugin_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in self.plugin_commands():
            command = cast(click.Command, self.plugin_commands()[cmd_name].value)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one fails with the nearest names and the plugins that may have held it."""
        if args[0].startswith("-") or self.get_command(ctx, args[0]) is not None:
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=3)
        lines = [f"No such command {args[0]!r}."]
        lines += [f"Did you mean {' or '.join(map(repr, near))}?"] if near else []
        elsewhere = ELSEWHERE.get(("command", args[0]))
        lines += [f"It comes with {elsewhere}: pip install {elsewhere}."] if elsewhere else []
        lines += [f"A broken plugin may have held it: {record}" for record in default_registry().trouble()]
        raise click.UsageError(" ".join(lines), ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the built-in commands, those of plugins with their owners, and the plugins that are broken."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(200)) for name, command in self.commands.items()])
        rows = [
            (name, f"{entry.value.get_short_help_str(200)} ({entry.distribution})")
            for name, entry in sorted(self.plugin_commands().items())
        ]
        if rows:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(rows)
        broken = sorted({record.distribution for record in default_registry().trouble()})
        if broken:
            with formatter.section("Broken plugins"):
                formatter.write_text(f"{', '.join(broken)} (`sizetransfer plugins` says why)")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"Warning: {message}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(core_version())
def cli() -> None:
    """Measure whether a local score model, trained on small lattices, works on large ones.

    Start with: sizetransfer run quickstart
    """


for command in (run_command, measure_command, report_command, compare_command, radius_command, new_plugin):
    cli.add_command(command)


@cli.command("list")
@click.argument("what", required=False, type=click.Choice([f"{sort}s" for sort in SORTS]))
@as_json
def list_command(what: str | None, as_json: bool) -> None:
    """List teachers, students, measures, experiments and executors, with the distributions they come from."""
    from sizetransfer.cli.console import show_json, show_table

    sorts = [sort for sort in SORTS if what in (None, f"{sort}s")]
    rows = {f"{sort}s": [_row(sort, entry) for entry in default_registry().entries(sort).values()] for sort in sorts}
    if as_json:
        show_json(rows)
        return
    for position, (title, entries) in enumerate(rows.items()):
        cells = [[row["name"], _joined(row), f"{row['distribution']} {row['version']}"] for row in entries]
        if position:
            click.echo()
        show_table(title, ("name", "", "from"), cells)


def _row(sort: Sort, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"name": entry.name, "distribution": entry.distribution, "version": entry.version}
    if sort == "experiment":
        return {**row, **_experiment_header(entry.value)}
    from sizetransfer.runs.schema import first_line

    presets = {"presets": list(entry.value.presets)} if sort in FAMILIES and entry.value.presets else {}
    return {**row, "description": first_line(entry.value), **presets}


def _experiment_header(path: Path) -> dict[str, Any]:
    """Title and presets of an experiment file, or what is wrong with it."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {"description": data.get("title", ""), "presets": list(data.get("presets") or {}), "path": path}
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        return {"description": f"unreadable: {' '.join(str(error).split())}", "presets": [], "path": path}


def _joined(row: Mapping[str, Any]) -> str:
    presets = f"presets: {', '.join(row['presets'])}" if row.get("presets") else ""
    return " — ".join(filter(None, [row["description"], presets]))


@cli.command("show")
@click.argument("name")
@click.option("--preset", help="Resolve with this preset.")
@as_json
def show_command(name: str, preset: str | None, as_json: bool) -> None:
    """Show the fields of a kind, the numbers that a measure gives, or an experiment resolved to the last field."""
    registry = default_registry()
    kinds = [entry for family in FAMILIES for entry in registry.entries(family).values() if entry.name == name]
    for entry in kinds:
        _show_kind(entry, preset, as_json=as_json)
    if not kinds:
        _known_or_fail(name)
        _show_experiment(name, preset, as_json=as_json)


def _known_or_fail(name: str) -> None:
    """Refuse a name that is neither a kind nor an experiment nor a path, with the nearest of all names."""
    from sizetransfer.contracts.specs import did_you_mean

    registry = default_registry()
    if name in registry.experiments() or Path(name).suffix or Path(name).exists():
        return
    sorts: tuple[Sort, ...] = (*FAMILIES, "experiment")
    known = {found: entry for sort in sorts for found, entry in registry.entries(sort).items()}
    raise SpecError(
        f"There is no kind and no experiment {name!r}.",
        expected=f"one of {', '.join(f'{found} ({entry.distribution})' for found, entry in known.items())}",
        got=repr(name),
        fix=did_you_mean(name, known) or "`sizetransfer list` shows them all",
    )


def _show_kind(entry: Entry, preset: str | None, *, as_json: bool) -> None:
    from sizetransfer.cli.console import show_json, show_table
    from sizetransfer.contracts.specs import MeasureSpec
    from sizetransfer.runs.schema import describe_fields, describe_parts, first_line

    spec_class: type[KindSpec] = entry.value
    rows = list(describe_fields(spec_class))
    if preset is not None:
        _apply_preset(spec_class, preset, rows)
    description = {"kind": entry.name, "distribution": entry.distribution, "version": entry.version}
    presets = {name: dict(fields) for name, fields in spec_class.presets.items()}
    parts = list(describe_parts(spec_class, preset)) if issubclass(spec_class, MeasureSpec) else []
    if as_json:
        declared = {"parts": parts} if issubclass(spec_class, MeasureSpec) else {}
        show_json({**description, "fields": rows, **declared, "presets": presets, "aliases": dict(spec_class.aliases)})
        return
    click.echo(f"{entry.name}: {first_line(spec_class)}\nfrom {entry.distribution} {entry.version}\n")
    cells = [[r["name"], r["type"], "required" if r["required"] else r["default"], r["description"]] for r in rows]
    show_table("Fields", ("field", "type", f"in {preset}" if preset else "default", ""), cells)
    if presets:
        click.echo()
        cells = [[key, ", ".join(f"{field}: {value}" for field, value in p.items())] for key, p in presets.items()]
        show_table("Presets", ("preset", "fields"), cells)
    if parts:
        click.echo()
        columns = ("label", "axis", "unit", "role", "known", "better")
        heads = ("part", "what", "along", "unit", "role", "", "better")
        show_table("Parts", heads, [[part["name"], *_told(part, columns)] for part in parts])
    for alias, target in spec_class.aliases.items():
        click.echo(f"{alias} is another name of {target}")


def _told(part: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """What is declared of a part; a dash for what there is none of."""
    return ["–" if part[column] in ("", "none") else str(part[column]) for column in columns]


def _apply_preset(spec_class: type[KindSpec], preset: str, rows: list[dict[str, Any]]) -> None:
    """Replace the defaults of the rows by the values of a preset."""
    values = spec_class.parse({"kind": spec_class.kind_name(), "preset": preset}).to_json()
    for row in rows:
        value: Any = values
        for step in row["name"].split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        row.update(default=value, required=False)


def _show_experiment(name: str, preset: str | None, *, as_json: bool) -> None:
    import yaml

    from sizetransfer import api
    from sizetransfer.cli.console import show_json

    data = api.load(name, preset=preset).to_json()
    if as_json:
        show_json(data)
    else:
        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110), nl=False)


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers separated by commas or spaces."""

    def __init__(self, number: type[int | float]) -> None:
        self.number = number
        self.name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Read them."""
        try:
            return tuple(self.number(text) for text in str(value).replace(",", " ").split())
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as {'16,32' if self.number is int else '0.1,1'}.")


@cli.command("diagnose")
@click.option("--teacher", help="A kind, kind:preset, or a mapping: '{kind: gaussian, mass: 0.3}'; or --data.")
@data_options
@click.option("--student", help="Likewise; without training it contributes its radius.")
@click.option("--size", "sizes", multiple=True, type=Numbers(int), help="Sites along an axis: 16,32,64.")
@click.option("--sigma", "sigmas", multiple=True, type=Numbers(float), help="Noise levels: 0.1,1.")
@click.option("--radius", "radii", multiple=True, type=Numbers(int), help="Radii to judge without a student: 2,4.")
@click.option("--epsilon", type=float, help="Threshold of the response range.  [default: 0.01]")
@click.option("--share", "shares", multiple=True, type=Numbers(float), help="Shares to cover.  [default: 0.95,0.99]")
@click.option("--patch", multiple=True, type=Numbers(int), help="A site of Theorem 1's patch: 0,1. Repeat for more.")
@click.option("--sigma-min", type=float, help="Where reverse diffusion stops.  [default: 0.05]")
@click.option(
    "--sigma-max",
    type=float,
    help="Where it starts.  [default: what each size needs; of Theorem 1, 10 times the scale of the data]",
)
@click.option("--tolerance", type=float, help="Error that locality alone may cost.  [default: 0.1]")
@click.option("--growth", type=float, help="Relative rise with the size that is allowed.  [default: 0.1]")
@click.option("--significance", type=float, help="Standard errors of a growing radius, in tables.  [default: 3]")
@click.option("--fields", type=int, help="Noisy fields of a mean [default: 8]; with --data, of each size [all].")
@click.option("--reference-fields", type=int, help="Fields that filters and laws are fitted to.  [default: 256]")
@click.option("--train", type=click.IntRange(min=1), help="Train the student with so many steps at the smallest size.")
@click.option("--sample", is_flag=True, help="Sample posteriors where the teacher does not know them (slow).")
@click.option("--device", default="auto", show_default=True, help="torch device.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Of the arithmetic.  [default: float32]")
@click.option("--tables", is_flag=True, help="Show responses, Theorem 1 and errors at every size and noise level.")
@click.option("--explain", is_flag=True, help="Show the rule, and where the numbers come from.")
@click.option("--seed", type=click.IntRange(min=0), help="Names the random streams.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write the figure and JSON here.")
@as_json
def diagnose_command(
    *,
    teacher: str | None,
    student: str | None,
    train: int | None,
    device: str,
    dtype: str | None,
    tables: bool,
    explain: bool,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Judge whether a local student works on large sizes, by the rule of a run, before any training.

    The student is the best filter of its radius, fitted at the smallest size; with --train it is trained and measured.
    The verdict comes first, then why; every number is exact, a certificate or an estimate.
    """
    from sizetransfer import api

    try:
        given = take_data(options)
        question = diagnosis_question(options)
        if given["data"]:
            given.update(teacher=teacher, student=student, train=train, out=out)
            show_diagnosis_of_data(given, question, tables=tables, explain=explain, as_json=as_json)
            return
        found = api.diagnose(cast(str, teacher), student, train=train, device=device, dtype=dtype, **question)
    except OracleError as error:
        # The teacher or the student cannot answer what was asked: the question is at fault, as a wrong field is.
        raise SpecError(error.what, where=error.where, expected=error.expected, got=error.got, fix=error.fix) from error
    _show_prediction(found, None if as_json else found.text(tables=tables, explain=explain), out)


def _show_prediction(found: Prediction, text: str | None, out: Path | None) -> None:
    """Print a prediction, as JSON where there is no text, and write its files if a directory is given."""
    from sizetransfer.cli.console import show_json

    files: list[Path] = []
    if out is not None:  # drawing takes seconds to import
        from sizetransfer.diagnosis.figure import write_prediction

        files = write_prediction(found, out)
    if text is None:
        show_json(found.to_json())
        return
    click.echo(text)
    for path in files:
        click.echo(f"Written: {path}")


def diagnosis_question(options: Mapping[str, Any]) -> dict[str, object]:
    """The fields of a prediction's specification that the options name; those that were left out keep defaults."""
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    lists: dict[str, object] = {name: sum(given[name], ()) for name in _LISTS if name in given}
    thresholds = {name: given.pop(name) for name in ("tolerance", "growth", "significance") if name in given}
    judged = {own: thresholds[name] for name, own in _OF_VERDICT.items() if name in thresholds}
    rules = {"rule": thresholds, "verdict": judged}
    return {**given, **lists, **{name: rule for name, rule in rules.items() if rule}}


_LISTS = ("sizes", "sigmas", "shares", "radii")
_OF_VERDICT = {"tolerance": "locality", "growth": "growth"}
"""Thresholds of the tables that the verdict has too, under its own names."""


@cli.command("plugins")
@as_json
def plugins_command(as_json: bool) -> None:
    """Show the installed plugins: what each provides, and what is wrong with those that are broken."""
    from sizetransfer.cli.console import show_json, show_table

    registry = default_registry()
    registry.commands(reserved=cli.commands)
    records = registry.plugins()
    if as_json:
        show_json([dataclasses.asdict(record) for record in records])
        return
    if not records:
        click.echo("No plugins are installed.")
        return
    rows = [(f"{r.distribution} {r.version}", r.entry_point, r.status, ", ".join(r.provides) or "–") for r in records]
    show_table("plugins", ("distribution", "entry point", "status", "provides"), rows)
    for record in records:
        if record.status == "broken":
            click.echo(f"\n{record.owner} failed to {record.phase}:\n  {record.error}\n  fix: {record.fix}")


@cli.command("schema")
def schema_command() -> None:
    """Print the JSON schema of experiment files, with every registered kind."""
    from sizetransfer.cli.console import show_json
    from sizetransfer.runs.schema import experiment_file_schema

    registry = default_registry()
    show_json(
        experiment_file_schema(
            {family: [entry.spec_class for entry in registry.kinds(family).values()] for family in FAMILIES}
        )
    )


main: Callable[..., Any] = cli
