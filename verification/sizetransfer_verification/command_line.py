"""``sizetransfer verify``: thin, and nothing heavy is imported before a command runs."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from sizetransfer.contracts.errors import SpecError

if TYPE_CHECKING:
    from rich.text import Text

    from sizetransfer_verification.conformance import Inventory, Outcome, Report

_STYLES = {"passed": "green", "failed": "red", "timed out": "red", "unexpected pass": "red"}


class Verifications(click.Group):
    """The commands; those of other modules are imported when they are listed or called."""

    homes = MappingProxyType({"symbolic": "symbolic.command", "theorem": "theorem_command"})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.homes])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.homes:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"sizetransfer_verification.{self.homes[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=Verifications)
def verify() -> None:
    """Prove the identities, search for violations of Theorem 1, check what plugins register against its contracts."""


@verify.command("checks")
@click.option("--level", default="full", show_default=True, type=click.Choice(["api", "core", "full"]))
def list_checks(level: str) -> None:
    """List every check with the clause that it tests."""
    from sizetransfer.cli.console import show_table
    from sizetransfer_verification.conformance import FAMILIES, checks

    rows = [
        (check.id, check.level, "statistical" if check.statistical else "exact", check.clause)
        for family in FAMILIES
        for check in checks(family, level)  # type: ignore[arg-type]
    ]
    show_table("Checks", ("check", "level", "sort", "clause"), rows)


@verify.command("plugin")
@click.argument("names", nargs=-1, required=True)
@click.option("--level", default="core", show_default=True, type=click.Choice(["api", "core", "full"]))
@click.option("--check", "only", multiple=True, metavar="ID", help="Run this check alone (again for more).")
@click.option(
    "--expect-failure", "expected", multiple=True, metavar="ID=REASON", help="A check that is known to fail, and why."
)
@click.option("--example", metavar="JSON", help="Run on this example alone, as a report showed it.")
@click.option("--seed", default=0, show_default=True, help="Names the random streams.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds for each check.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")
@click.pass_context
def plugin(
    context: click.Context,
    names: tuple[str, ...],
    level: str,
    only: tuple[str, ...],
    expected: tuple[str, ...],
    example: str | None,
    seed: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Check what plugins register: teachers, students, measures, executors, listeners.

    NAMES are kinds (cnn, flow:medium-range, '{kind: gaussian, mass: 0.3}'), executors, or distributions, which stand
    for all that they register; a name that is several of these stands for all of them. What there is no contract for is
    said. Exit code 1 if a contract is broken, or something cannot be built.
    """
    from sizetransfer.cli.console import show_json
    from sizetransfer_verification.conformance import Case, inventory, run_checks

    case = None if example is None else Case.parse(example)
    failures = dict(_expected_failure(text) for text in expected)
    found = [inventory(name) for name in names]
    reports = []
    for one in found:
        if not as_json:
            click.echo(f"{one.listing}\n")
        for subject in one.subjects:
            chosen = _of_family(subject.family, only)
            if only and not chosen:
                continue
            subject.seed = seed
            report = run_checks(
                subject,
                level=level,  # type: ignore[arg-type]
                only=chosen,
                expected_failures={name: failures[name] for name in _of_family(subject.family, tuple(failures))},
                example=case,
                timeout=timeout,
            )
            reports.append(report)
            if not as_json:
                show_report(report)
        if not as_json:
            show_rest(one)
    if as_json:
        show_json({"reports": [report.to_json() for report in reports], "names": [one.to_json() for one in found]})
    if not all(report.ok for report in reports) or any(one.broken for one in found):
        context.exit(1)


def _of_family(family: str, ids: tuple[str, ...]) -> tuple[str, ...]:
    """The checks of a family; an id of no family stays, so that it is refused by name."""
    from sizetransfer_verification.conformance import FAMILIES

    return tuple(name for name in ids if name.partition("/")[0] not in set(FAMILIES) - {family})


def _expected_failure(text: str) -> tuple[str, str]:
    name, separator, reason = text.partition("=")
    if not separator or not reason.strip():
        raise SpecError(
            "An expected failure needs a reason.",
            where="--expect-failure",
            expected="ID=REASON",
            got=text,
            fix="say why the check fails",
        )
    return name, reason


def show_report(report: Report) -> None:
    """Print a report: a line for each check, then the failures, then the count."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000, soft_wrap=True)
    whole = [Column(name, no_wrap=True) for name in ("check", "outcome", "examples", "comparisons", "seconds")]
    table = Table(*whole, "", box=None, pad_edge=False)
    for outcome in report.outcomes:
        table.add_row(*_cells(outcome))
    console.print(Text(f"{report.family} {report.subject}", style="bold"))
    console.print(table)
    for note in report.notes:
        console.print(Text(f"Note: {note}"))
    for problem in report.problems:
        console.print(Text(f"\n{problem}"))
    verdict, style = ("OK", "green") if report.ok else ("BROKEN", "red")
    console.print(Text(f"\n{verdict}  {report.summary()}\n", style=style))


def show_rest(found: Inventory) -> None:
    """Print what was not checked, with the reasons, and what could not be."""
    for what, reason in found.unchecked:
        click.echo(f"Not checked: {what}: {reason}.")
    for what, error in found.broken:
        click.echo(f"BROKEN  {what}: {error}")


def _cells(outcome: Outcome) -> tuple[Text, ...]:
    from rich.text import Text

    status = Text(outcome.status, style=_STYLES.get(outcome.status, "yellow"))
    reason = outcome.reason if outcome.status in {"not applicable", "expected failure"} else ""
    numbers = (Text(str(outcome.examples)), Text(str(outcome.comparisons)), Text(f"{outcome.seconds:.2f}"))
    return Text(outcome.id), status, *numbers, Text(reason)
