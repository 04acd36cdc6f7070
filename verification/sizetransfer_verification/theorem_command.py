"""``sizetransfer verify theorem``: outside the subpackage, whose import loads torch, so that help comes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sizetransfer_verification.theorem import Search


@click.command("theorem")
@click.argument("names", nargs=-1, metavar="[CLAIM]...")
@click.option("--examples", type=click.IntRange(min=1), help="Configurations for each claim; by default 40 to 100.")
@click.option("--seed", default=0, show_default=True, help="Of the search.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")
@click.pass_context
def theorem(context: click.Context, names: tuple[str, ...], examples: int | None, seed: int, as_json: bool) -> None:
    """Search for processes that violate Theorem 1.

    True claims must stand, and careless versions of them must be refuted. CLAIM is the name of one claim or the
    beginning of several (gaussian, mixture, ising); by default all are searched. Exit code 1 if a claim does not do as
    it should.
    """
    from sizetransfer.cli.console import show_json
    from sizetransfer_verification.theorem import claims, search
    from sizetransfer_verification.theorem.search import named

    every = claims()
    for name in names:
        if not any(claim.name.startswith(name) for claim in every):
            named(name)
    chosen = [claim for claim in every if not names or claim.name.startswith(names)]
    found = []
    for claim in chosen:
        found.append(search(claim, examples=examples, seed=seed))
        if not as_json:
            click.echo(_line(found[-1]))
    wrong = [one for one in found if not one.as_expected]
    if as_json:
        show_json([one.to_json() for one in found])
    else:
        click.echo(_summary(found))
    if wrong:
        context.exit(1)


def _line(found: Search) -> str:
    """One line for a claim that stands, a few for one that is refuted."""
    mark = "ok   " if found.as_expected else "WRONG"
    if not found.refuted and found.claim.careless:
        return f"{mark} {found.claim.name} ({found.claim.mistake}): not refuted in {found.examples} configurations"
    if not found.refuted:
        quantiles = ", ".join(f"{100 * q:g} %: {value:.3g}" for q, value in found.quantiles.items())
        said = f"{found.examples} configurations, 0 violations; bound/truth at quantiles {quantiles or '-'}"
        return f"{mark} {found.claim.name}: {said}"
    smallest, comparison = found.smallest, found.comparison
    if smallest is None or comparison is None:
        return f"{mark} {found.claim.name}: refuted"
    why = f" ({found.claim.mistake})" if found.claim.mistake else ""
    said = f"refuted, {found.violations} violations in {found.examples} configurations; the smallest"
    values = f"truth {comparison.truth.value:.6g} > bound {comparison.bound.value:.6g}"
    return f"{mark} {found.claim.name}{why}: {said}, {values}:\n      {smallest.to_json()}"


def _summary(found: list[Search]) -> str:
    """The counts, and why a careless version may stand."""
    stand, fall = ([one for one in found if one.claim.careless is careless] for careless in (False, True))
    short = [one for one in fall if not one.refuted and one.asked < one.claim.examples]
    hint = " Those that stand were searched with fewer examples than they need; leave --examples out." if short else ""
    return (
        f"\n{len(stand)} claims: {sum(one.examples for one in stand)} configurations searched, "
        f"{sum(one.violations for one in stand)} violations. {len(fall)} careless versions: "
        f"{sum(one.refuted for one in fall)} refuted.{hint}"
    )
