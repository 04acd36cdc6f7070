"""Files that code reads: those opened while it runs, and those that its string literals name."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sizetransfer.runs.sources.places import SITES

_CODE = re.compile(r"\.(py|pyw|pyc|pyi|pyd|dll|dylib|so(\.\d+)*)$")
_SYSTEM = tuple(
    f"/{name}/" for name in ("proc", "dev", "sys", "usr/share/zoneinfo", "usr/share/locale", "usr/lib/locale")
)
_SETTINGS = ("/etc/localtime", "/etc/timezone", "/etc/locale")
_STANDARD = tuple({os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib")})


@dataclass
class _Opened:
    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)


class _Blocks(threading.local):
    """The blocks that this thread is in."""

    def __init__(self) -> None:
        self.open: list[_Opened] = []


_blocks = _Blocks()
_installed = threading.Lock()
_state = {"installed": False}


@contextlib.contextmanager
def files_read() -> Iterator[set[Path]]:
    """Record the files that this thread opens for reading within the block.

    The set is filled when the block ends. Left out are code, what belongs to Python and to installed distributions, the
    system's own files, and what the block itself wrote. Only Python's own functions are seen: a library that opens
    files by itself (safetensors, HDF5) is not, nor are other threads and processes; for those see
    :func:`sizetransfer.runs.sources.literal_files`.
    """
    _install()
    opened, found = _Opened(), set[Path]()
    _blocks.open.append(opened)
    try:
        yield found
    finally:
        _blocks.open.remove(opened)
        found.update(Path(path) for path in opened.read - opened.written if _counts(path))


def _install() -> None:
    with _installed:
        if not _state["installed"]:
            sys.addaudithook(_heard)
            _state["installed"] = True


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _blocks.open:
        with contextlib.suppress(Exception):  # an audit hook that raises would break the call that it hears of
            _note(*arguments)


def _note(path: Any, mode: str | None, flags: int) -> None:
    if isinstance(path, int):
        return
    access = flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
    writes = access != os.O_RDONLY if mode is None else bool(set("wax+") & set(mode))
    full = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - relative to the directory of this moment
    for opened in _blocks.open:
        (opened.written if writes else opened.read).add(full)


def _counts(path: str) -> bool:
    parts = Path(path).parts
    if _CODE.search(path) or "__pycache__" in parts or any(site in parts for site in SITES):
        return False
    real = os.path.realpath(path)
    return not path.startswith(_SYSTEM + _SETTINGS) and not real.startswith(_STANDARD) and Path(path).is_file()


def existing(strings: Iterable[str], folders: Iterable[Path]) -> set[Path]:
    """The files that strings name, absolute or relative to one of the folders, or to a folder there that one names."""
    texts = [text for text in strings if text.strip("./")]
    places = list(folders)
    inside = [path for text in texts for folder in places if _is_data_folder(path := folder / text)]
    return {path for text in texts for folder in (*places, *inside) if _is_file(path := folder / text)}


def _is_data_folder(path: Path) -> bool:
    try:
        return path.is_dir() and not (path / "__init__.py").exists()
    except (OSError, ValueError):
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file() and not _CODE.search(path.name)
    except (OSError, ValueError):
        return False
