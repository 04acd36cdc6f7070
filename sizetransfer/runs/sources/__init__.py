"""The digest of the code and data that decide a number.

A stored number is true as long as everything that it depends on is what it was. :func:`sources_of` names the modules
whose code takes part and follows their imports, as the texts of the modules say, without importing any of them:

>>> from sizetransfer.runs.sources import sources_of
>>> sources = sources_of(["sizetransfer.scores.training"])
>>> "sizetransfer.contracts.specs" in sources.modules, "sizetransfer.cli.console" in sources.modules
(True, False)

What is not seen: code that is made in other ways than by import statements and files on the path, by programs that are
called, or by the configuration of a library; and what :mod:`sizetransfer.runs.sources.live` says.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from sizetransfer.contracts.errors import SpecError
from sizetransfer.runs.sources.closure import Closure, strings
from sizetransfer.runs.sources.places import CORE, Place, find
from sizetransfer.runs.sources.reading import existing, files_read

__all__ = ["Sources", "files_read", "literal_files", "sources_of"]

_LARGE = 60
"""Installed packages with more modules than that are not looked through for names of files: it would take seconds."""

_contents: dict[Path, tuple[tuple[int, ...], str]] = {}


@dataclass(frozen=True)
class Sources:
    """The code and data that take part.

    Attributes:
        modules: SHA-256 of the content of each module.
        distributions: version of each installed distribution that is used, or the digest of its code.
        files: SHA-256 of the content of each file, by the name that the user wrote.
    """

    modules: Mapping[str, str] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of all contents, in whatever order they were found; a file's name does not count."""
        contents = [sorted(self.modules.items()), sorted(self.distributions.items()), sorted(self.files.values())]
        return hashlib.sha256(json.dumps(contents).encode()).hexdigest()

    def to_json(self) -> dict[str, dict[str, str]]:
        """As JSON, for the record of a run."""
        parts = {"modules": self.modules, "distributions": self.distributions, "files": self.files}
        return {name: dict(sorted(part.items())) for name, part in parts.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` wrote."""
        return cls(dict(data["modules"]), dict(data["distributions"]), dict(data["files"]))

    def changes(self, earlier: Sources) -> list[str]:
        """What is not as it was in ``earlier``, in words."""
        kept = set(self.files.values()) & set(earlier.files.values())
        now = {name: value for name, value in self.files.items() if value not in kept}
        before = {name: value for name, value in earlier.files.items() if value not in kept}
        return [
            *_changes(self.modules, earlier.modules, lambda name, *_: f"{name} was changed"),
            *_changes(self.distributions, earlier.distributions, _version_change),
            *_changes(now, before, lambda name, *_: f"the file {name} was changed"),
        ]


def _changes(now: Mapping[str, str], before: Mapping[str, str], say: Callable[[str, str, str], str]) -> Iterator[str]:
    for name in sorted({*now, *before}):
        if name not in before:
            yield f"{name} takes part now and did not before"
        elif name not in now:
            yield f"{name} took part before and does not now"
        elif now[name] != before[name]:
            yield say(name, before[name], now[name])


def _version_change(name: str, before: str, now: str) -> str:
    if before.startswith("code ") or now.startswith("code "):
        return f"{name} was changed"
    return f"{name} was {before} and is {now}"


def sources_of(roots: Iterable[str], *, files: Iterable[Path] = ()) -> Sources:
    """The code of some modules and everything that they import, and the content of files.

    Args:
        roots: names of modules; they need not be imported.
        files: files and folders whose content takes part.

    Raises:
        SpecError: a module or a file cannot be found or read.
        RunError: a module was changed after it was imported, so that its file does not say what runs.
    """
    closure = Closure(dict.fromkeys(roots))
    contents = {str(path): _content(Path(path)) for path in files}
    return Sources(closure.modules, closure.distributions, contents)


def literal_files(sources: Sources | Iterable[str]) -> set[Path]:
    """Files that string literals of the modules name, relative to the working directory or near the module.

    Near are the module's folder, the one above it, and folders in them that another literal names. A factory that
    loads ``"weights.safetensors"`` depends on that file. The core is left out: it reads no files. An installed
    distribution does not know the working directory, and is looked through for files near its modules.

    Args:
        sources: as :func:`sources_of` found them, or names of modules.
    """
    names = sources.modules if isinstance(sources, Sources) else Closure(sources).modules
    found: set[Path] = set()
    for place in _readable(names):
        beside = Path(str(place.file)).parent
        near = [beside, beside.parent]
        found |= existing(strings(place), near if place.installed else [Path(), *near])
    return found


def _readable(names: Iterable[str]) -> Iterator[Place]:
    """The modules with a file that belong neither to the core nor to a large library."""
    listed = sorted(names)
    modules = Counter(name.partition(".")[0] for name in listed)
    for place in map(find, listed):
        if place is None or place.file is None or place.top == CORE:
            continue
        if not place.installed or modules[place.top] <= _LARGE:
            yield place


def _content(path: Path) -> str:
    try:
        if not path.is_dir():
            return _file_content(path)
        inside = sorted(found for found in path.rglob("*") if found.is_file())
        listed = [f"{found.relative_to(path).as_posix()} {_file_content(found)}" for found in inside]
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()
    except OSError as error:
        raise SpecError(
            "A file whose content takes part cannot be read.",
            where=str(path),
            expected="a file or a folder",
            got=f"{type(error).__name__}: {error}",
            fix="correct the path, or put the file there",
        ) from error


def _file_content(path: Path) -> str:
    status = path.stat()
    state = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
    where = Path(os.path.realpath(path))
    known = _contents.get(where)
    if known is None or known[0] != state:
        with path.open("rb") as stream:
            known = _contents[where] = state, hashlib.file_digest(stream, "sha256").hexdigest()
    return known[1]
