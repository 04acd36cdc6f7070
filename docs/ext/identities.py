"""Writes the list of proven identities into docs/identities.md while the documentation is built.

The list comes from :func:`sizetransfer_verification.symbolic.families`, so that it cannot differ from what is proven.
Nothing is proven here: the command ``sizetransfer verify symbolic`` and the tests do that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

    from sizetransfer_verification.symbolic import Identity

PAGE, MARKER = "identities", "<!-- identities -->"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def insert(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the marker of the page by the list; a warning where the verification is not installed."""
    if page != PAGE:
        return
    try:
        from sizetransfer_verification import symbolic
    except ImportError:
        logging.getLogger(__name__).warning(
            "the list of identities needs sizetransfer-verification: pip install ./verification", location=page
        )
        return
    for module in Path(symbolic.__file__).parent.glob("*.py"):
        app.env.note_dependency(str(module))
    source[0] = source[0].replace(MARKER, render(symbolic.families()))


def render(families: Mapping[str, Sequence[Identity]]) -> str:
    """The identities as Markdown with formulas between dollars."""
    blocks = []
    for title, identities in families.items():
        blocks += [f"## {title}", *map(_section, identities)]
    return "\n\n".join(blocks)


def _section(identity: Identity) -> str:
    controls = [f"- {control.name}: ${control.statement}$" for control in identity.negative_controls]
    return "\n\n".join(
        [
            f"### {identity.title}",
            f"$$\n{identity.statement}\n$$",
            f"`{identity.name}`; {identity.source}. Assumes {'; '.join(identity.assumptions)}.",
            "Refuted:",
            "\n".join(controls),
        ]
    )
