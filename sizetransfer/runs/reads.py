"""Files that the code of teachers and students has opened in this process.

A loader may remember what it has read: it opens its file for the first student and not for the next one, nor in the
next run of the same process. So files are kept by the code that opened them, and one that has changed since is refused,
because nobody can tell what the code remembers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from sizetransfer.contracts.errors import RunError
from sizetransfer.contracts.specs import KindSpec

_opened: dict[tuple[str, ...], dict[Path, str]] = {}


def note_opened(spec: KindSpec, files: Iterable[Path]) -> None:
    """Note the files that building a specification has opened.

    Those that the specification itself names, or that lie in a folder that it names, are its own, and not those of
    others with the same code.

    Raises:
        RunError: a file that the same code had read before, and did not read again, has changed.
    """
    opened, named = set(files), {path.absolute() for path in spec.reads()}
    known = _opened.setdefault(spec.code(), {})
    for path in [path for path in known if path not in opened and known[path] != _digest(path)]:
        before = known.pop(path)
        raise RunError(
            "A file was changed after it was read, and the code that read it may remember what was there.",
            where=str(path),
            expected=f"the content that was read (SHA-256 {before[:12]}...)",
            got="other content",
            fix="run again in a new process",
        )
    known.update(
        {path: _digest(path) for path in opened if named.isdisjoint([path.absolute(), *path.absolute().parents])}
    )


def opened_by(spec: KindSpec) -> set[Path]:
    """The files that the code of a specification has opened in this process, but for those that others name."""
    return set(_opened.get(spec.code(), ()))


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""
