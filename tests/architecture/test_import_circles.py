"""No module imports another that imports it, at the top or within functions; names that only annotate do not count."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "sizetransfer": ROOT / "sizetransfer",
    "sizetransfer_verification": ROOT / "verification" / "sizetransfer_verification",
    "sizetransfer_graph": ROOT / "plugins" / "graph" / "sizetransfer_graph",
}


def sources(package: str) -> dict[str, str]:
    """Text of every module, by name."""
    folder = PACKAGES[package]
    paths = {path.relative_to(folder).with_suffix("").parts: path for path in folder.rglob("*.py")}
    return {".".join((package, *parts)).removesuffix(".__init__"): path.read_text() for parts, path in paths.items()}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        yield from imported(node)


def arrows(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """The modules that each one imports; a name of a module stands for the module."""

    def home(name: str) -> str:
        return name if name in modules else name.rpartition(".")[0]

    return {
        name: {home(one) for one in imported(ast.parse(text))} & modules.keys() - {name}
        for name, text in modules.items()
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_no_imports_go_round(package) -> None:
    graph = arrows(sources(package))
    assert any(graph.values())
    graphlib.TopologicalSorter(graph).prepare()


def test_a_circle_is_found() -> None:
    modules = {"a.b": "def f():\n    from a.c import g", "a.c": "from a import b"}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(arrows(modules)).prepare()
    annotation = modules | {"a.c": "if TYPE_CHECKING:\n    from a import b"}
    graphlib.TopologicalSorter(arrows(annotation)).prepare()
