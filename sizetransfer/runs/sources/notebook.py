"""Code without a file: a notebook or an interactive session, as far as Python kept its text."""

from __future__ import annotations

import inspect
import linecache
import sys
import types
from collections.abc import Iterator
from typing import Any

from sizetransfer.runs.sources.places import sha256, unreadable


def digest() -> str:
    """Digest of the texts that the functions and classes of ``__main__`` were defined in.

    Raises:
        SpecError: Python has not kept the text of one.
    """
    return sha256("\n".join(sorted({text for value in _defined() for text in _texts(value)})).encode())


def imports() -> Iterator[str]:
    """Modules that ``__main__`` has, and those that its functions and classes come from."""
    for value in list(vars(sys.modules["__main__"]).values()):
        name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str) and name in sys.modules and name != "__main__":
            yield name


def _defined() -> list[Any]:
    values = list(vars(sys.modules["__main__"]).values())
    kinds = (type, types.FunctionType)
    return [value for value in values if isinstance(value, kinds) and value.__module__ == "__main__"]


def _texts(value: Any) -> Iterator[str]:
    functions = [value] if isinstance(value, types.FunctionType) else [*_methods(value)]
    if not functions:
        yield _source(value)
    for function in functions:
        text = "".join(linecache.getlines(function.__code__.co_filename))
        if not text:
            raise unreadable("__main__", f"{value.__qualname__} was defined where its text was not kept")
        yield text


def _methods(cls: type) -> Iterator[types.FunctionType]:
    for value in vars(cls).values():
        inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if isinstance(inner, types.FunctionType) and inner.__module__ == "__main__":
            yield inspect.unwrap(inner)


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError) as error:
        raise unreadable("__main__", f"{value.__qualname__} was defined where its text was not kept") from error
