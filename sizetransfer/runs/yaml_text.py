"""YAML and JSON text to data, with the line and the column of what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from sizetransfer.contracts.errors import SpecError


class _Loader(yaml.SafeLoader):
    """The safe loader, with two faults of YAML 1.1 mended: repeated keys pass silently, and 1e-3 is a string."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str, path: Path) -> object:
    """Parse YAML, safely.

    Raises:
        SpecError: the text is malformed or repeats a key.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = ", ".join(filter(None, [error.context, error.problem]))
        raise _malformed(path, line, column, problem, text) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        raise _malformed(path, line, column, error.reason, text) from None


def parse_json(text: str, path: Path) -> object:
    """Parse JSON.

    Raises:
        SpecError: the text is malformed.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _malformed(path, error.lineno, error.colno, error.msg, text) from None


def _malformed(path: Path, line: int, column: int, problem: str, text: str) -> SpecError:
    lines = text.splitlines()
    return SpecError(
        f"The experiment file is malformed: {problem}.",
        where=f"{path}, line {line}, column {column}",
        got=lines[line - 1].strip()[:80] if line <= len(lines) else "the end of the file",
        fix="correct that line",
    )
