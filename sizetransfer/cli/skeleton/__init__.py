"""A new plugin: a complete distribution with one student that keeps its contract from the start."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from sizetransfer.contracts.errors import SpecError
from sizetransfer.registry import default_registry

TEMPLATE = Path(__file__).parent / "template"


def write_plugin(distribution: str, directory: Path, *, kind: str | None = None) -> list[Path]:
    """Write the skeleton of a plugin.

    Args:
        distribution: name of the distribution, for example ``my-students``; the package has underscores instead.
        directory: where to put it; it may exist if it is empty.
        kind: kind of its student; by default the name of the distribution.

    Returns:
        The files that were written.

    Raises:
        SpecError: a name that no distribution or kind can have, a kind that is taken, or a directory with files.
    """
    kind = distribution if kind is None else kind
    values = {
        "distribution": distribution,
        "package": _identifier(distribution, "the distribution").lower(),
        "kind": kind,
        "key": _identifier(kind, "the kind"),
        "title": "".join(part.capitalize() for part in _identifier(kind, "the kind").split("_")),
    }
    _require_new_kind(kind)
    _require_empty(directory)
    return [_render(source, directory, values) for source in sorted(TEMPLATE.rglob("*.j2"))]


def _render(source: Path, directory: Path, values: dict[str, str]) -> Path:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    parts = [values["package"] if part == "package" else part for part in source.relative_to(TEMPLATE).parts]
    target = directory.joinpath(*parts).with_suffix("")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(environment.from_string(source.read_text(encoding="utf-8")).render(values), encoding="utf-8")
    return target


def _identifier(name: str, what: str) -> str:
    """The name with underscores for hyphens."""
    found = name.replace("-", "_")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*", found) or keyword.iskeyword(found):
        raise SpecError(
            f"{what.capitalize()} cannot have this name.",
            where="new-plugin",
            expected="letters, digits and single hyphens, starting with a letter, such as my-students",
            got=repr(name),
            fix="choose another name",
        )
    return found


def _require_new_kind(kind: str) -> None:
    entry = default_registry().kinds("student").get(kind)
    if entry is not None:
        raise SpecError(
            f"There is a student {kind!r} already.",
            where="new-plugin, kind",
            expected="a kind that no installed distribution registers",
            got=f"{kind!r}, of {entry.distribution} {entry.version}",
            fix="choose another with --kind",
        )


def _require_empty(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise SpecError(
            "There is something in the way.",
            where=str(directory),
            expected="no directory, or an empty one",
            got="a file" if directory.is_file() else f"{len(list(directory.iterdir()))} entries",
            fix="choose another with --directory",
        )
