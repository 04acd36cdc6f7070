"""Throw-away plugins: real distributions, with metadata and a module, in a temporary directory on the path."""

from __future__ import annotations

import importlib.metadata
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_DISTRIBUTIONS = importlib.metadata.distributions

HEALTHY = """
from sizetransfer.registry.hooks import hookimpl

@hookimpl
def register_students(register):
    from typing import Literal
    from sizetransfer.contracts.specs import StudentSpec

    class ToySpec(StudentSpec):
        '''A toy student.'''
        kind: Literal["{kind}"] = "{kind}"

        def build(self, field):
            return ("toy", field)

    register(ToySpec)
"""


class PluginFactory:
    """Installs distributions into a directory that is first on ``sys.path``, and forgets their modules afterwards."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self._modules: list[str] = []
        self._monkeypatch = monkeypatch
        monkeypatch.delenv("SIZETRANSFER_PLUGINS", raising=False)
        monkeypatch.syspath_prepend(directory)
        monkeypatch.setattr(importlib.metadata, "distributions", self._distributions)

    @staticmethod
    def _distributions(**where: Any) -> Iterator[importlib.metadata.Distribution]:
        """The installed distributions, without the plugins of this repository that the environment may hold."""
        return (found for found in _DISTRIBUTIONS(**where) if not str(found.name).startswith("sizetransfer-"))

    def install(self, name: str, code: str, *, version: str = "1.2", entry_points: str | None = None) -> None:
        """Install a distribution with one entry point named ``main`` to a module with this code."""
        module = name.replace("-", "_")
        metadata = self.directory / f"{module}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(entry_points or f"[sizetransfer]\nmain = {module}\n")
        self.module(module, code)

    def healthy(self, name: str, kind: str) -> None:
        """Install a distribution with one healthy student."""
        self.install(name, HEALTHY.format(kind=kind))

    def module(self, name: str, code: str) -> None:
        """Write a module without a distribution."""
        (self.directory / f"{name}.py").write_text(textwrap.dedent(code))
        self._modules.append(name)
        self._monkeypatch.syspath_prepend(self.directory)

    def forget(self) -> None:
        """Forget the modules that were imported."""
        for name in self._modules:
            sys.modules.pop(name, None)
