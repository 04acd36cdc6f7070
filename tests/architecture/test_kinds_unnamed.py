"""Report, verdicts and runs know no measure, teacher, student or experiment by its name: what they need is declared."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

import sizetransfer
from sizetransfer.registry import Registry

ROOT = Path(sizetransfer.__file__).parent
WATCHED = ("report", "verdict", "runs", "contracts/parts.py")

OTHER_MEANINGS = {
    ("report/tables.py", "locality"),  # a column of the verdict: what a radius costs
    ("verdict/numbers.py", "locality"),
    ("contracts/parts.py", "response"),  # a role
    ("runs/promises/answers.py", "module"),  # an attribute of torch's wrappers
}
"""Words that are also kinds."""


def names() -> set[str]:
    found = Registry(find_plugins=list)
    kinds = {kind for family in ("teacher", "student", "measure") for kind in found.kinds(family)}
    return kinds | set(found.experiments())


def strings(path: Path) -> list[str]:
    """Texts of the strings of a module that are no docstrings."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    texts = [token.string.lstrip("rbfuRBFU") for token in tokens if token.type == tokenize.STRING]
    return [text.strip("\"'") for text in texts if not text.startswith('"""')]


def named(path: Path, known: set[str]) -> set[str]:
    """Kinds that a module names: a string that is one, or holds a hyphenated one or ``kind: one``."""
    found = set()
    for text in strings(path):
        for name in known:
            whole = re.escape(name)
            inside = "-" in name and re.search(rf"(?<![\w-]){whole}(?![\w-])", text)
            if text == name or inside or re.search(rf"kind['\"]?: ['\"]?{whole}\b", text):
                found.add(name)
    return found


def watched() -> list[str]:
    paths = [
        path for name in WATCHED for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
    ]
    return sorted(str(path.relative_to(ROOT)) for path in paths)


@pytest.fixture(scope="module")
def known() -> set[str]:
    return names()


@pytest.mark.parametrize("module", watched())
def test_no_kind_is_named(module, known):
    found = {name for name in named(ROOT / module, known) if (module, name) not in OTHER_MEANINGS}
    assert found == set()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('x = "clean-score"', {"clean-score"}),
        ('"""Of the clean-score."""', set()),
        ('x = f"the measure clean-score of {y}"', {"clean-score"}),
        ('x = "jacobian"', {"jacobian"}),
        ('x = "the jacobian"', set()),
        ('x = "give {kind: jacobian}"', {"jacobian"}),
        ('x = "a-clean-score"', set()),
        ("x = 'radius-limited'", set()),
    ],
)
def test_the_search_finds_what_it_should(tmp_path, code, expected):
    path = tmp_path / "module.py"
    path.write_text(code + "\n")
    assert named(path, {"clean-score", "jacobian"}) == expected
