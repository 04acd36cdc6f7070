"""Whether the code that runs is the code in the file.

Python keeps what a module was when it was imported; its file may have been edited since. A digest of the file would
then be that of code that never ran. So a module that is loaded and whose file was touched after this process started is
compared with its file:

- with what the file held when it was last hashed here, unless the module has been reloaded since; comments do not
  count;
- the code of its functions, and of the methods of its classes, by qualified name; their defaults and the constants of
  module and classes where they are literals; and that every function of the file is there.

A loader of its own kind (an import hook that checks shapes, rewrites assertions, ...) compiles something else than the
file says, so of such modules only the first comparison is made: it looks at files alone. Wrapped functions are
unwrapped, and only code that was compiled from the module's own file is looked at, so neither a decorator nor a
function put in from elsewhere is taken for an edit. An edit of other expressions on the level of the module, made after
the import and before the first digest, is not seen.
"""

from __future__ import annotations

import ast
import importlib.machinery
import inspect
import os
import sys
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sizetransfer.contracts.errors import RunError
from sizetransfer.runs.sources.places import Place

_SIMPLE = (int, float, complex, str, bytes, bool, type(None), tuple)
_first: dict[str, tuple[object, bytes]] = {}


def require_unchanged(place: Place, source: bytes) -> None:
    """Refuse a module that was changed after it was imported.

    Args:
        place: the module.
        source: what its file holds now.

    Raises:
        RunError: what runs in this process is not what the file says.
    """
    module = sys.modules.get(place.name)
    if not isinstance(module, types.ModuleType) or not str(place.file).endswith(".py"):
        return
    spec, earlier = _first.get(place.name, (None, source))
    if spec is vars(module).get("__spec__") and earlier != source and _meaning(earlier) != _meaning(source):
        raise _changed(place, "its file")
    if _touched(str(place.file)) and type(vars(module).get("__loader__")) is importlib.machinery.SourceFileLoader:
        difference = next(_differences(module, place, source), None)
        if difference is not None:
            raise _changed(place, difference)
    _first[place.name] = vars(module).get("__spec__"), source


def _changed(place: Place, what: str) -> RunError:
    return RunError(
        f"{place.name} was changed after it was imported.",
        where=str(place.file),
        expected="the code that runs in this process, so that its numbers are told from it",
        got=f"another version of {what}",
        fix="restart the process, or importlib.reload the module and make its objects anew",
    )


def _meaning(source: bytes) -> str | bytes:
    try:
        return ast.dump(ast.parse(source))
    except (SyntaxError, ValueError):
        return source


def _started() -> float:
    """When this process started; where the system does not say, a day ago."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - up + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.time() - 86400


_STARTED = _started() - 2  # clocks of file systems are not exact


def _touched(file: str) -> bool:
    try:
        status = Path(file).stat()
    except OSError:
        return False
    return max(status.st_mtime, status.st_ctime) > _STARTED


def _differences(module: types.ModuleType, place: Place, source: bytes) -> Iterator[str]:
    try:
        tree = ast.parse(source)
        compiled = compile(source, str(place.file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        yield "its file, which is no valid Python now"
        return
    on_disk: dict[str, list[object]] = {}
    for code in _codes(compiled):
        on_disk.setdefault(code.co_qualname, []).append(_substance(code))
    for owner in (vars(module), *map(vars, _classes(module))):
        for function in _functions(owner, str(place.file)):
            name = function.__code__.co_qualname
            if _substance(function.__code__) not in on_disk.get(name, ()):
                yield f"the function {name}"
    yield from _literal_differences(vars(module), tree.body, set(_reassigned(tree)))


def _classes(module: types.ModuleType) -> Iterator[type]:
    waiting: list[Any] = list(vars(module).values())
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, type) and value.__module__ == module.__name__ and id(value) not in seen:
            seen.add(id(value))
            waiting += vars(value).values()
            yield value


def _functions(owner: Mapping[str, Any], file: str) -> Iterator[types.FunctionType]:
    for value in list(owner.values()):
        parts = [value.fget, value.fset, value.fdel] if isinstance(value, property) else [value]
        for part in parts:
            function = _function(part)
            if function is not None and os.path.realpath(function.__code__.co_filename) == os.path.realpath(file):
                yield function


def _function(value: object) -> types.FunctionType | None:
    inner = getattr(value, "__func__", value) if isinstance(value, staticmethod | classmethod) else value
    if not callable(inner) or isinstance(inner, type):
        return None
    try:
        unwrapped = inspect.unwrap(inner)
    except Exception:
        return None
    return unwrapped if isinstance(unwrapped, types.FunctionType) else None


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)


def _substance(code: types.CodeType) -> object:
    """What a code does, without the lines that it stands on."""
    constants = tuple(map(_value, code.co_consts))
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount, code.co_flags)
    return code.co_code, constants, names, counts


def _value(item: object) -> object:
    """A constant so that equal ones compare equal: -0.0 is not 0.0, nan is nan, and a set has no order.

    The same set read from a cache of bytecode and compiled from its source may print its members in different orders.
    """
    if isinstance(item, types.CodeType):
        return _substance(item)
    if isinstance(item, tuple):
        return tuple, tuple(map(_value, item))
    if isinstance(item, frozenset):
        return frozenset, frozenset(map(_value, item))
    return type(item), repr(item)


def _reassigned(tree: ast.Module) -> Iterator[str]:
    """Names that the module itself sets anew while it runs, counters for example; their values say nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from node.names
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield node.attr


def _literal_differences(
    live: Mapping[str, Any], body: list[ast.stmt], reassigned: set[str], path: str = ""
) -> Iterator[str]:
    """Constants, defaults and functions of a module or class that are not what the file says."""
    stored = [name for node in body for name in _stored(node)]
    for node in body:
        if isinstance(node, ast.ClassDef) and isinstance(live.get(node.name), type) and stored.count(node.name) == 1:
            yield from _literal_differences(vars(live[node.name]), node.body, reassigned, f"{path}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and stored.count(node.name) == 1:
            yield from _function_differences(live, node, path)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for name in _constants(node):
                once = stored.count(name) == 1 and name not in reassigned
                if once and name in live and _differ(node.value, live[name]):
                    yield f"the constant {path}{name}"


def _constants(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """Names that are given the value of the statement as a whole; ``a, b = 1, 2`` gives each a part of it."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _stored(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    return [item.id for item in ast.walk(node) if isinstance(item, ast.Name) and not isinstance(item.ctx, ast.Load)]


def _function_differences(
    live: Mapping[str, Any], node: ast.FunctionDef | ast.AsyncFunctionDef, path: str
) -> Iterator[str]:
    mangled = f"_{path.split('.')[-2].lstrip('_')}{node.name}" if path else node.name
    if node.name not in live and mangled not in live:
        yield f"the function {path}{node.name}"
    function = _function(live.get(node.name))
    if function is None or function.__name__ != node.name:
        return
    keywords = function.__kwdefaults__ or {}
    pairs = list(zip(reversed(node.args.defaults), reversed(function.__defaults__ or ()), strict=False))
    pairs += [
        (default, keywords[argument.arg])
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        if default is not None and argument.arg in keywords
    ]
    if any(_differ(default, value) for default, value in pairs):
        yield f"the defaults of {path}{node.name}"


def _differ(expression: ast.expr | None, value: object) -> bool:
    """Whether an expression of the file is a literal, and the value that runs is another literal."""
    if expression is None or not isinstance(value, _SIMPLE):
        return False
    try:
        literal = ast.literal_eval(expression)
    except (ValueError, SyntaxError, TypeError):
        return False
    return isinstance(literal, _SIMPLE) and _value(literal) != _value(value)
