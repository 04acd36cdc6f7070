"""``sizetransfer verify symbolic``: prove the identities and print the table. Importing this imports click alone."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from sizetransfer.contracts.errors import SpecError

if TYPE_CHECKING:
    from sizetransfer_verification.symbolic.proof import Identity, Proof, Result


@click.command("symbolic")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")
@click.pass_context
def symbolic(context: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Prove the identities exactly, and refute their negative controls.

    NAMES are identities; without any, all of them. Exit code 1 if a proof fails or a wrong version is not refuted.
    """
    from sizetransfer.cli.console import show_json
    from sizetransfer_verification.symbolic import identities

    started = time.perf_counter()
    results = prove(select(identities(), names))
    if as_json:
        show_json(to_json(results))
    else:
        show(results, time.perf_counter() - started)
    if not all(result.passed for result in results):
        context.exit(1)


def select(found: Sequence[Identity], names: Sequence[str]) -> list[Identity]:
    """The identities of these names, or all.

    Raises:
        SpecError: there is no identity of a name.
    """
    by_name = {identity.name: identity for identity in found}
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=3)
            raise SpecError(
                f"There is no identity {name!r}.",
                expected=f"one of {', '.join(by_name)}",
                got=repr(name),
                fix=f"did you mean {' or '.join(near)}?" if near else "`sizetransfer verify symbolic` names them all",
            )
    return [by_name[name] for name in dict.fromkeys(names)] or list(found)


def prove(chosen: Sequence[Identity]) -> list[Result]:
    """Check identities one after the other, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    from sizetransfer_verification.symbolic.proof import check

    console = Console(stderr=True)
    steps = track(chosen, "proving", console=console, transient=True, disable=not console.is_terminal)
    return [check(identity) for identity in steps]


def show(results: Sequence[Result], seconds: float) -> None:
    """Print a line for each identity, what failed and how, and the count."""
    from sizetransfer.cli.console import show_table

    columns = ("identity", "verdict", "equations", "controls refuted", "seconds", "source")
    show_table("Identities", columns, [_row(result) for result in results])
    for result in results:
        for line in problems(result):
            click.echo(line, err=True)
    passed = sum(result.passed for result in results)
    controls = sum(len(result.controls) for result in results)
    left = sum(len(result.not_refuted) for result in results)
    click.echo(
        f"\n{passed} of {len(results)} identities proven; "
        f"{controls - left} of {controls} negative controls refuted; {seconds:.1f} s"
    )


def _row(result: Result) -> tuple[str, ...]:
    refuted = f"{len(result.controls) - len(result.not_refuted)}/{len(result.controls)}"
    verdict = "proven" if result.proof.proven else "failed"
    numbers = (str(result.proof.equations), refuted, f"{result.seconds:.2f}")
    return result.identity.name, verdict, *numbers, result.identity.source


def problems(result: Result) -> list[str]:
    """What is wrong with a result, a line each; nothing if it passed."""
    name, proof = result.identity.name, result.proof
    lines = [f"{name}: {control}: not refuted; the prover would let this error pass" for control in result.not_refuted]
    if proof.refuted:
        lines.append(f"{name}: does not hold at {proof.failing}: {proof.remainder} is not zero")
    elif not proof.proven:
        lines.append(f"{name}: nothing was decided; a prover without equations proves nothing")
    if not result.controls:
        lines.append(f"{name}: has no negative control, so that nothing shows that its prover can fail")
    return lines


def to_json(results: Sequence[Result]) -> dict[str, Any]:
    """All of the results as plain data."""
    return {"passed": all(result.passed for result in results), "identities": [_plain(result) for result in results]}


def _plain(result: Result) -> dict[str, Any]:
    identity = result.identity
    statements = {control.name: control.statement for control in identity.negative_controls}
    controls = [
        {"name": name, "statement": statements[name], "refuted": proof.refuted, **_evidence(proof)}
        for name, proof in result.controls.items()
    ]
    return {
        "name": identity.name,
        "title": identity.title,
        "statement": identity.statement,
        "assumptions": list(identity.assumptions),
        "source": identity.source,
        "passed": result.passed,
        "proven": result.proof.proven,
        **_evidence(result.proof),
        "negative_controls": controls,
        "seconds": result.seconds,
    }


def _evidence(proof: Proof) -> dict[str, Any]:
    return {"equations": proof.equations, "failing": proof.failing, "remainder": proof.remainder}
