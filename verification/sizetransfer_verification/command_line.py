"""``sizetransfer verify``: thin, and nothing heavy is imported before a command runs."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from sizetransfer.errors import SpecError

if TYPE_CHECKING:
    from rich.text import Text

    from sizetransfer_verification.conformance import Outcome, Report

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
    """Prove the identities, search for violations of Theorem 1, check teachers and students against their contracts."""


@verify.command("checks")
@click.option("--level", default="full", show_default=True, type=click.Choice(["api", "core", "full"]))
def list_checks(level: str) -> None:
    """List every check with the clause that it tests."""
    from sizetransfer.console import show_table
    from sizetransfer_verification.conformance import checks

    rows = [
        (check.id, check.level, "statistical" if check.statistical else "exact", check.clause)
        for family in ("teacher", "student")
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
    """Check teachers and students.

    NAMES are kinds (cnn, flow:medium-range, '{kind: gaussian, mass: 0.3}') or distributions, which stand for all that
    they register. Exit code 1 if a contract is broken.
    """
    from sizetransfer.console import show_json
    from sizetransfer_verification.conformance import Case, run_checks, subjects_of

    case = None if example is None else Case.parse(example)
    failures = dict(_expected_failure(text) for text in expected)
    reports = []
    for name in names:
        for subject in subjects_of(name):
            subject.seed = seed
            report = run_checks(
                subject,
                level=level,  # type: ignore[arg-type]
                only=only,
                expected_failures=failures,
                example=case,
                timeout=timeout,
            )
            reports.append(report)
            if not as_json:
                show_report(report)
    if as_json:
        show_json([report.to_json() for report in reports])
    if not all(report.ok for report in reports):
        context.exit(1)


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


def _cells(outcome: Outcome) -> tuple[Text, ...]:
    from rich.text import Text

    status = Text(outcome.status, style=_STYLES.get(outcome.status, "yellow"))
    reason = outcome.reason if outcome.status in {"not applicable", "expected failure"} else ""
    numbers = (Text(str(outcome.examples)), Text(str(outcome.comparisons)), Text(f"{outcome.seconds:.2f}"))
    return Text(outcome.id), status, *numbers, Text(reason)
