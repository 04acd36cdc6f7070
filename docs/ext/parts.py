"""Writes the columns of the records, and the parts of every built-in measure, into docs/api/records.md.

Both come from the code while the documentation is built, so that they cannot differ from what a run records.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from checks import markdown

from sizetransfer.contracts.records import Record
from sizetransfer.registry import Registry
from sizetransfer.runs.schema import attribute_descriptions, describe_parts, first_line

if TYPE_CHECKING:
    from sphinx.application import Sphinx

    from sizetransfer.contracts.specs import MeasureSpec

PAGE, COLUMNS, PARTS = "api/records", "<!-- columns -->", "<!-- parts -->"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def insert(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the markers of the page."""
    if page == PAGE:
        source[0] = source[0].replace(COLUMNS, columns()).replace(PARTS, "\n\n".join(measures()))


def columns() -> str:
    """The columns of the records as a Markdown table."""
    written = attribute_descriptions(Record)
    rows = [(f"`{field.name}`", str(field.type), written[field.name]) for field in dataclasses.fields(Record)]
    return markdown(("column", "type", ""), rows)


def measures() -> Iterator[str]:
    """A heading, a sentence and a table of the parts for each built-in measure."""
    for kind, entry in Registry(find_plugins=list).kinds("measure").items():
        yield f"### `{kind}`\n\n{first_line(entry.spec_class)}\n\n{parts(entry.spec_class)}"


def parts(spec_class: type[MeasureSpec]) -> str:
    """What a measure declares of its parts as a Markdown table."""
    rows = [(f"`{part['name']}`", *_told(part)) for part in describe_parts(spec_class)]
    return markdown(("part", "what", "coordinate", "unit", "role", "", "better"), rows)


def _told(part: dict[str, Any]) -> tuple[str, ...]:
    axis = "" if part["axis"] in ("none", "size") else part["axis"]
    found = part["label"], axis, part["unit"], part["role"], part["known"], part["better"]
    return tuple(one or "–" for one in found)
