"""What the system ``flow`` registers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sizetransfer import TeacherSpec, hookimpl
from sizetransfer.registry.hooks import FigureFunction


@hookimpl
def register_teachers(register: Callable[[type[TeacherSpec]], None]) -> None:
    """Register the teachers of the system."""
    from sizetransfer.systems.flow.teacher import FlowTeacherSpec

    register(FlowTeacherSpec)


@hookimpl
def register_figures(register: Callable[[str, FigureFunction], None]) -> None:
    """Register the figures of the system."""
    from sizetransfer.systems.flow.figure_architectures import architecture_responses, architectures
    from sizetransfer.systems.flow.figure_repair import repair

    register("architectures", architectures)
    register("architecture-responses", architecture_responses)
    register("repair", repair)


@hookimpl
def register_experiments(register: Callable[[Path], None]) -> None:
    """Register the experiment files of the system."""
    for path in sorted((Path(__file__).parent / "experiments").glob("*.yaml")):
        register(path)
