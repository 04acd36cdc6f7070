"""The page of the documentation on records says what is recorded."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest

from sizetransfer.contracts.records import Record
from sizetransfer.registry import Registry

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def extension():
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(DOCS / "ext"))
    yield importlib.import_module("parts")
    sys.path.remove(str(DOCS / "ext"))


@pytest.fixture(scope="module")
def page(extension):
    source = [(DOCS / f"{extension.PAGE}.md").read_text(encoding="utf-8")]
    extension.insert(None, extension.PAGE, source)
    return source[0]


def cells(page, name):
    """The cells of the row that begins with a name, in each table that has it."""
    lines = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize("column", [field.name for field in dataclasses.fields(Record)])
def test_every_column_is_described(page, column):
    (row,) = [row for row in cells(page, column) if len(row) == 3]
    assert row[1] == Record.__annotations__[column].replace("|", "\\|")
    assert row[2]


@pytest.mark.parametrize("kind", Registry(find_plugins=list).kinds("measure"))
def test_every_part_of_every_measure_is_listed(page, kind):
    (section,) = [one for one in page.split("\n### ") if one.startswith(f"`{kind}`\n")]
    for name, part in Registry(find_plugins=list).lookup("measure", kind).parts.items():
        assert [row[1:5] for row in cells(section, name)] == [
            [part.label, part.axis if part.has_coordinate else "–", part.unit or "–", part.role]
        ]


def test_other_pages_are_left_alone(extension):
    source = [extension.PARTS]
    extension.insert(None, "index", source)
    assert source == [extension.PARTS]
