"""Names of a package that are imported when they are first asked for, because what they are in is heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def names_of(package: str, modules: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The function ``__getattr__`` of a package (PEP 562) whose names are in modules of its own.

    Write the table under the name ``_MODULES``, and ``__getattr__ = names_of(__name__, _MODULES)`` below it: from the
    table :mod:`sizetransfer.runs.sources` knows which module a name leads to.

    Args:
        package: its ``__name__``.
        modules: names by the module of the package that has them.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get
