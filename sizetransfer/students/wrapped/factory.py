"""The callable that an import path names, on Python's path or beside the working directory."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sizetransfer.contracts.errors import SpecError


def look_beside(path: str, folder: Path) -> None:
    """Let Python find the factory's package in a folder, behind everything else, if it finds none so far."""
    name = path.partition(":")[0].partition(".")[0]
    if not name.isidentifier() or name in sys.modules or importlib.machinery.PathFinder.find_spec(name) is not None:
        return
    place = str(folder.resolve())
    if place not in sys.path and importlib.machinery.PathFinder.find_spec(name, [place]) is not None:
        sys.path.append(place)
        importlib.invalidate_caches()


def imported(path: str) -> Callable[..., object]:
    """The callable ``package.module:attribute``.

    Raises:
        SpecError: it cannot be imported, or is not callable.
    """
    name, _, attribute = path.partition(":")
    look_beside(path, Path.cwd())
    try:
        target: Any = importlib.import_module(name)
        for part in filter(None, attribute.split(".")):
            target = getattr(target, part)
    except (ImportError, AttributeError, ValueError, SystemExit) as error:
        raise SpecError(
            "The factory cannot be imported.",
            where="module, factory",
            expected="package.module:callable, on Python's path or in the working directory",
            got=f"{path} ({type(error).__name__}: {error})",
            fix="install the package, change to its folder, or correct the path",
        ) from None
    if not callable(target):
        raise SpecError(
            "The factory is not callable.",
            where="module, factory",
            expected="package.module:callable",
            got=f"{path}, {type(target).__name__}",
            fix="name a class or a function behind the colon",
        )
    return target  # type: ignore[no-any-return]
