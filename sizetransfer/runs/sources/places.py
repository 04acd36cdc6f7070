"""Where the code of a module lies: found as the import system finds it, without importing anything.

A module that is loaded is told from what is loaded, so that a path that has changed since does not matter.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
import sys
import sysconfig
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizetransfer.contracts.errors import SpecError

CORE = "sizetransfer"
EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)
SITES = ("site-packages", "dist-packages")
_USUAL = (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter, importlib.machinery.PathFinder)
_STANDARD = tuple({os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib")})


@dataclass(frozen=True)
class Place:
    """Where a module's code lies.

    Attributes:
        name: the module.
        file: its file, which may lie in a zip archive; none of a namespace package.
        folders: where its submodules are, if it is a package.
        loader: what the import system loads it with.
    """

    name: str
    file: str | None
    folders: tuple[str, ...] = ()
    loader: Any = None

    @property
    def top(self) -> str:
        """The top-level package or module."""
        return self.name.partition(".")[0]

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.folders else self.name.rpartition(".")[0]

    @property
    def anywhere(self) -> str:
        """Its file, or of a namespace package one of its folders."""
        return self.file or self.folders[0]

    @property
    def standard(self) -> bool:
        """Whether it belongs to Python."""
        if self.file is None and not self.folders:
            return True
        # Not resolved, a link would hide where a shared standard library lies.
        return not self.installed and os.path.realpath(self.anywhere).startswith(_STANDARD)

    @property
    def installed(self) -> bool:
        """Whether it lies among the installed distributions, and not where somebody works on it."""
        return any(part in SITES for part in Path(self.anywhere).parts)


def find(name: str) -> Place | None:
    """Where a module lies; nothing if there is no such module."""
    loaded = sys.modules.get(name)
    if isinstance(loaded, types.ModuleType):
        return _of_loaded(name, loaded)
    parent = name.rpartition(".")[0]
    if not all(name.split(".")):
        return None
    if not parent:
        return _of_spec(name, _search(name, None))
    package = find(parent)
    if package is None or not package.folders:
        return None
    return _of_spec(name, _search(name, list(package.folders)))


def _of_loaded(name: str, module: types.ModuleType) -> Place | None:
    content = vars(module)
    spec, file = content.get("__spec__"), content.get("__file__")
    folders = content.get("__path__") or ()
    if file is None and not folders and getattr(spec, "origin", None) not in ("built-in", "frozen"):
        return None
    return Place(name, None if file is None else str(file), tuple(map(str, folders)), content.get("__loader__"))


def _of_spec(name: str, spec: importlib.machinery.ModuleSpec | None) -> Place | None:
    if spec is None:
        return None
    folders = tuple(map(str, spec.submodule_search_locations or ()))
    file = spec.origin if spec.has_location else None
    if file is None and not folders and spec.origin not in ("built-in", "frozen"):
        return None
    return Place(name, file, folders, spec.loader)


def _search(name: str, folders: list[str] | None) -> importlib.machinery.ModuleSpec | None:
    builtin = importlib.machinery.BuiltinImporter.find_spec(name) if folders is None else None
    found = builtin or importlib.machinery.PathFinder.find_spec(name, folders)
    if found is not None:
        return found
    others = (finder for finder in sys.meta_path if finder not in _USUAL and hasattr(finder, "find_spec"))
    return next(filter(None, (_ask(finder, name, folders) for finder in others)), None)


def _ask(finder: Any, name: str, folders: list[str] | None) -> importlib.machinery.ModuleSpec | None:
    try:
        spec: importlib.machinery.ModuleSpec | None = finder.find_spec(name, folders)
    except Exception:
        return None
    return spec


def content(place: Place) -> bytes:
    """The bytes of a module's file, of a zip archive's member too.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        if place.file is not None and not Path(place.file).is_file() and hasattr(place.loader, "get_data"):
            return bytes(place.loader.get_data(place.file))
        return Path(str(place.file)).read_bytes()
    except OSError as error:
        raise unreadable(place.name, str(error)) from error


def unreadable(name: str, got: str) -> SpecError:
    """The error of a module whose code cannot be told."""
    return SpecError(
        f"The code of the module {name!r} cannot be told.",
        where=name,
        expected="a module in a file, so that a change of its code is seen",
        got=got,
        fix="put the class or function into a module of its own, on the path, and name that one",
    )


def files_below(folder: str) -> Iterator[tuple[str, str]]:
    """Dotted names and paths of the modules in a folder and all folders below, in order."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        for name in sorted(names):
            stem = module_stem(name)
            if stem is not None:
                inside = Path(parent).relative_to(folder).parts
                yield ".".join([*inside, *([] if stem == "__init__" else [stem])]), str(Path(parent, name))


def module_stem(name: str) -> str | None:
    """The module that a file of this name is, if it is one."""
    suffix = next((end for end in (".py", ".pyw", *EXTENSIONS) if name.endswith(end)), None)
    return None if suffix is None else name.removesuffix(suffix)


def archive_of(path: str) -> Path | None:
    """The zip archive that a path leads into, if it does."""
    return next((parent for parent in Path(path).parents if parent.is_file()), None)


def sha256(data: bytes) -> str:
    """The SHA-256 of some bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
