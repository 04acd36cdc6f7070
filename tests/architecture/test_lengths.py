"""The code can be read: no file of the packages is longer than a chapter, no function longer than a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("sizetransfer", "verification", "plugins", "calibration", "benchmarks", "noxfile.py")
"""What the limits hold for; tests list cases, and are left out."""
LONGEST_FILE, LONGEST_FUNCTION = 500, 60
"""Lines that a file and a function stay below. The docstring of a function, which says its formula, shapes, units and
errors, is not counted among its lines; decorators, the signature, comments and functions inside it are."""


def sources() -> list[Path]:
    """Every Python file that the limits hold for."""
    places = [ROOT / place for place in PLACES]
    return sorted(file for place in places for file in ([place] if place.is_file() else place.rglob("*.py")))


def lengths(source: str) -> Iterator[tuple[str, int]]:
    """Every function with its lines, without those of its docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            said = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
            docstring = 0 if said is None else (said.end_lineno or 0) - said.lineno + 1
            yield node.name, (node.end_lineno or 0) - first + 1 - docstring


def too_long(source: str) -> list[str]:
    """What is too long in a source: the functions, and the file."""
    found = [f"{name}: {count} lines" for name, count in lengths(source) if count >= LONGEST_FUNCTION]
    lines = len(source.splitlines())
    return found + ([f"the file: {lines} lines"] if lines >= LONGEST_FILE else [])


def test_there_are_sources():
    assert len(sources()) > 300


@pytest.mark.parametrize("place", PLACES)
def test_files_and_functions_stay_short(place):
    own = [path for path in sources() if path.relative_to(ROOT).parts[0] == place]
    assert own
    found = {str(path.relative_to(ROOT)): too_long(path.read_text(encoding="utf-8")) for path in own}
    assert {path: what for path, what in found.items() if what} == {}


def function(lines: int, docstring: int = 0) -> str:
    said = ['    """' + "\n" * (docstring - 1) + '"""'] if docstring else []
    return "\n".join(["def long():", *said, *["    pass"] * (lines - 1)])


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (function(59), []),
        (function(60), ["long: 60 lines"]),
        (function(59, docstring=40), []),
        (function(60, docstring=40), ["long: 60 lines"]),
        ("@cache\n" + function(59), ["long: 60 lines"]),
        ("async " + function(60), ["long: 60 lines"]),
        ("class A:\n" + "\n".join(" " + line for line in function(60).splitlines()), ["long: 60 lines"]),
        ("x = 1\n" * 499, []),
        ("x = 1\n" * 500, ["the file: 500 lines"]),
    ],
)
def test_what_is_too_long_is_found(source, found):
    assert too_long(source) == found
