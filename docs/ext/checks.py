"""Writes the list of checks into docs/conformance.md, and the kill matrix, while the documentation is built.

The list comes from the suite's own registry, so that it cannot differ from what is run.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

    from sizetransfer_verification.conformance import Check

PAGE = "conformance"
MATRIX = Path(__file__).parents[1] / "_static" / "kill-matrix.csv"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def insert(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the markers of the page; a warning where the verification is not installed."""
    if page != PAGE:
        return
    try:
        from sizetransfer_verification.conformance import FAMILIES, checks
    except ImportError:
        text = "the list of checks needs sizetransfer-verification: pip install ./verification"
        logging.getLogger(__name__).warning(text, location=page)
        return
    app.env.note_dependency(str(MATRIX))
    for family in FAMILIES:
        source[0] = source[0].replace(f"<!-- {family} checks -->", table(checks(family)))
        source[0] = source[0].replace(f"<!-- {family} kills -->", kills(family))


def table(checks: Sequence[Check[Any]]) -> str:
    """The checks as a Markdown table."""
    rows = [
        (f"`{check.id}`", check.level, "statistical" if check.statistical else "exact", check.clause, _needs(check))
        for check in checks
    ]
    return markdown(("check", "level", "sort", "clause", "needs"), rows)


def _needs(check: Check[Any]) -> str:
    return ", ".join(need.name for need in check.needs) or "–"


def kills(family: str) -> str:
    """The mutants of a family, each with the checks that kill it, from the matrix that `nox -s kill_matrix` writes."""
    with MATRIX.open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["family"] == family]
    killers = [", ".join(f"`{name}`" for name in row["killed by"].split()) for row in found]
    rows = [(row["mutant"], row["defect"], names) for row, names in zip(found, killers, strict=True)]
    return markdown(("mutant", "defect", "killed by"), rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars within cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
