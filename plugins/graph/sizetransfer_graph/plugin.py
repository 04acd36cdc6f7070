"""What this distribution adds: two students and an experiment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sizetransfer import hookimpl

if TYPE_CHECKING:
    from sizetransfer.contracts.specs import StudentSpec


@hookimpl
def register_students(register: Callable[[type[StudentSpec]], None]) -> None:
    """Register the students ``message-passing`` and ``equivariant``."""
    from sizetransfer_graph.specs import EquivariantSpec, MessagePassingSpec

    register(MessagePassingSpec)
    register(EquivariantSpec)


@hookimpl
def register_experiments(register: Callable[[Path], None]) -> None:
    """Register the experiment ``crystal``."""
    register(Path(__file__).with_name("crystal.yaml"))
