"""Code that a specification names by its import path ``package.module:name``: functions of a teacher, torch modules.

It is found on Python's path, then in the working directory, then where :func:`look_beside` was told to look: beside the
experiment file. Folders are added behind everything else on Python's path, and only where a package of the name lies in
them and nowhere before; one whose package cannot be imported is taken off again.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sizetransfer.contracts.errors import SpecError, described, exit_refused

_added: dict[str, str] = {}
"""Folders that were added, by the name of the package that lies in each."""


def module_of(path: str) -> str:
    """The module of an import path."""
    return path.partition(":")[0]


def look_beside(path: str, folder: Path) -> None:
    """Let Python find the package of an import path in a folder, behind everything else, if it finds none so far."""
    name = module_of(path).partition(".")[0]
    if not name.isidentifier() or name in sys.modules or importlib.machinery.PathFinder.find_spec(name) is not None:
        return
    place = str(folder.resolve())
    if place not in sys.path and importlib.machinery.PathFinder.find_spec(name, [place]) is not None:
        sys.path.append(place)
        _added[name] = place
        importlib.invalidate_caches()


def imported(path: str, *, what: str, where: str) -> Callable[..., Any]:
    """The callable ``package.module:name``; names may be dotted.

    Args:
        path: the import path.
        what: what it is called in errors, such as ``function``.
        where: the field that names it.

    Raises:
        SpecError: it cannot be imported, or is not callable.
    """
    look_beside(path, Path.cwd())
    try:
        target = _found(path, where)
    except (ImportError, AttributeError, ValueError) as error:
        _forget(path)
        raise SpecError(
            f"The {what} cannot be imported.",
            where=where,
            expected="package.module:name, on Python's path, in the working directory or beside the experiment file",
            got=f"{path} ({described(error)})",
            fix="install the package, change to its folder, or correct the path",
        ) from None
    except BaseException:
        _forget(path)
        raise
    if not callable(target):
        raise SpecError(
            f"What is named is no {what}.",
            where=where,
            expected="the import path of a callable, package.module:name",
            got=f"{path}, a {type(target).__name__}",
            fix="name a class or a function behind the colon",
        )
    return target  # type: ignore[no-any-return]


def _found(path: str, where: str) -> Any:
    module, _, attribute = path.partition(":")
    with exit_refused(where):
        target: Any = importlib.import_module(module)
    for part in filter(None, attribute.split(".")):
        target = getattr(target, part)
    return target


def _forget(path: str) -> None:
    """Take the folder of a package that cannot be imported off Python's path."""
    name = module_of(path).partition(".")[0]
    place = _added.pop(name, None)
    if place is not None and place in sys.path and place not in _added.values():
        sys.path.remove(place)
