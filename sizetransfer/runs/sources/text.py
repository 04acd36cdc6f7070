"""What the text of a module says about the code that it needs, read without running it."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

WHOLE = "*"
"""Stands for every module of the core, where a text uses the core in a way that cannot be told."""

_LONGEST_STRING = 255
_OPEN_NAMES = {"exec", "eval", "__import__", "__path__"}
_OPEN_ATTRIBUTES = {"import_module", "spec_from_file_location", "spec_from_loader", "exec_module", "load_module"}
_OPEN_ATTRIBUTES |= {"SourceFileLoader", "addsitedir", "__path__", "__import__"}
_OPEN_MODULES = {"runpy", "imp", "pkgutil", "zipimport"}
_OPEN_PARTS = {"path", "modules", "meta_path", "path_hooks"}
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One import: ``import module``, or ``from module import names`` with so many leading dots."""

    module: str
    names: tuple[str, ...] = ()
    level: int = 0


@dataclass(frozen=True)
class Text:
    """What one module says.

    Attributes:
        imports: wherever they stand, but not those for type checkers alone.
        core: names that it takes from the core package itself, :data:`WHOLE` where that cannot be told.
        open_ended: whether it imports what it does not spell out, or cannot be read.
        strings: its string literals that may name a file, with parts joined by ``/`` or commas put together.
        exports: of a package that imports its names when they are asked for: the submodule of each name.
    """

    imports: tuple[Import, ...] = ()
    core: frozenset[str] = frozenset()
    open_ended: bool = False
    strings: frozenset[str] = frozenset()
    exports: Mapping[str, str] = field(default_factory=dict)


def read(source: bytes, *, core: str, trusted: bool) -> Text:
    """Read a module's source.

    Args:
        source: in the encoding that it declares.
        core: name of the core package.
        trusted: whether it belongs to the core, which spells out its imports; strings are left out then.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape is its author's matter
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Text(open_ended=not trusted)
    statements = trusted and f"import {core}".encode() not in source
    found = _Found(core)
    for node in _nodes(tree, statements=statements):
        found.take(node)
    return Text(
        imports=tuple(dict.fromkeys(found.imports)),
        core=frozenset(found.core_names()),
        open_ended=found.open_ended and not trusted,
        strings=frozenset() if trusted else frozenset(found.strings),
        exports=_exports(tree) if trusted else {},
    )


def _nodes(tree: ast.AST, *, statements: bool) -> Iterator[ast.AST]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += _children(node, statements=statements)


def _children(node: ast.AST, *, statements: bool) -> list[ast.AST]:
    if isinstance(node, _Function) and any(_last(decorator) == "hookimpl" for decorator in node.decorator_list):
        # A hook registers or listens: what it registers is a root of its own, and no number depends on the hook.
        return list(node.decorator_list)
    if isinstance(node, ast.If) and _last(node.test) == "TYPE_CHECKING":
        return list(node.orelse)
    if isinstance(node, ast.If) and isinstance(node.test, ast.UnaryOp) and _last(node.test.operand) == "TYPE_CHECKING":
        return list(node.body)
    if statements:
        return [child for block in _BLOCKS for child in getattr(node, block, ()) if isinstance(child, ast.AST)]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return []
    return list(ast.iter_child_nodes(node))


def _last(node: ast.AST) -> str:
    if isinstance(node, ast.Call):
        return _last(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


class _Found:
    """Collects what the nodes of a module say."""

    def __init__(self, core: str) -> None:
        self.imports: list[Import] = []
        self.strings: set[str] = set()
        self.open_ended = False
        self._core = core
        self._aliases: set[str] = set()
        self._attributes: set[tuple[str, str]] = set()
        self._bare: set[str] = set()
        self._literal: set[int] = set()

    def take(self, node: ast.AST) -> None:
        handle = getattr(self, f"_{type(node).__name__.lower()}", None)
        if handle is not None:
            handle(node)

    def core_names(self) -> Iterator[str]:
        """What is taken from the core package through its names in this module."""
        for alias in self._aliases:
            yield from (attribute for name, attribute in self._attributes if name == alias)
            if alias in self._bare:
                yield WHOLE

    def _import(self, node: ast.Import) -> None:
        for name in node.names:
            self.imports.append(Import(name.name))
            self.open_ended |= name.name in _OPEN_MODULES
            whole_path = name.asname is None or "." not in name.name
            if name.name.partition(".")[0] == self._core and whole_path:
                self._aliases.add(name.asname or self._core)

    def _importfrom(self, node: ast.ImportFrom) -> None:
        names = tuple(name.name for name in node.names)
        self.imports.append(Import(node.module or "", names, node.level))
        builtin = node.module in ("builtins", "sys", "importlib", "importlib.util", "importlib.machinery")
        renamed = any(name.name in _OPEN_NAMES | _OPEN_ATTRIBUTES and name.asname for name in node.names)
        self.open_ended |= WHOLE in names or node.module in _OPEN_MODULES or (builtin and renamed)
        self.open_ended |= node.module == "sys" and bool(_OPEN_PARTS & set(names))
        self.open_ended |= node.module == "builtins" and bool(_OPEN_NAMES & set(names))

    def _call(self, node: ast.Call) -> None:
        if _last(node.func) in ("import_module", "__import__"):
            self._dynamic_import(node)
        parts = [item.value for item in node.args if isinstance(item, ast.Constant) and isinstance(item.value, str)]
        if len(parts) > 1:
            self._string(os.path.join(*parts))  # noqa: PTH118 - parts of a path, not a path yet

    def _dynamic_import(self, node: ast.Call) -> None:
        name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if isinstance(name, str) and name and not name.startswith("."):
            self.imports.append(Import(name))
            self._literal.add(id(node.func))

    def _attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name):
            self._attributes.add((node.value.id, node.attr))
            self.open_ended |= node.value.id == "sys" and node.attr in _OPEN_PARTS
            self.open_ended |= node.value.id == "builtins" and node.attr in _OPEN_NAMES
            self.open_ended |= node.value.id in _OPEN_NAMES
        self.open_ended |= node.attr in _OPEN_ATTRIBUTES and id(node) not in self._literal

    def _name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._bare.add(node.id)
        self.open_ended |= node.id in _OPEN_NAMES | _OPEN_ATTRIBUTES and id(node) not in self._literal

    def _constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._string(node.value)

    def _binop(self, node: ast.BinOp) -> None:
        parts: list[str] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp) and isinstance(left.op, ast.Div):
            if not (isinstance(left.right, ast.Constant) and isinstance(left.right.value, str)):
                break
            parts.insert(0, left.right.value)
            left = left.left
        if isinstance(left, ast.Call) and len(left.args) == 1 and isinstance(left.args[0], ast.Constant):
            parts.insert(0, str(left.args[0].value))
        if len(parts) > 1:
            self._string(os.path.join(*parts))  # noqa: PTH118 - parts of a path, not a path yet

    def _string(self, text: str) -> None:
        if 0 < len(text) <= _LONGEST_STRING and "\n" not in text and "\0" not in text:
            self.strings.add(text)


def _exports(tree: ast.Module) -> dict[str, str]:
    """The table ``_MODULES`` of a core package, submodules to their names (:mod:`sizetransfer.contracts.lazy`)."""
    exports: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and [_last(target) for target in node.targets] == ["_MODULES"]:
            for key, value in ast.literal_eval(node.value).items():
                exports.update(dict.fromkeys(value, key))
    return exports
