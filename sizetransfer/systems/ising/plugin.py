"""What the system ``ising`` registers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sizetransfer import MeasureSpec, StudentSpec, TeacherSpec, hookimpl
from sizetransfer.registry.hooks import FigureFunction


@hookimpl
def register_teachers(register: Callable[[type[TeacherSpec]], None]) -> None:
    """Register the teachers of the system."""
    from sizetransfer.systems.ising.teacher import IsingTeacherSpec

    register(IsingTeacherSpec)


@hookimpl
def register_students(register: Callable[[type[StudentSpec]], None]) -> None:
    """Register the students of the system."""
    from sizetransfer.systems.ising.student import OptimalLocalIsingSpec

    register(OptimalLocalIsingSpec)


@hookimpl
def register_measures(register: Callable[[type[MeasureSpec]], None]) -> None:
    """Register the measures of the system."""
    from sizetransfer.systems.ising.zero_field_measure import ZeroFieldSpec

    register(ZeroFieldSpec)


@hookimpl
def register_figures(register: Callable[[str, FigureFunction], None]) -> None:
    """Register the figures of the system."""
    from sizetransfer.systems.ising.figures import ising_response, ising_size

    register("ising-response", ising_response)
    register("ising-size", ising_size)


@hookimpl
def register_experiments(register: Callable[[Path], None]) -> None:
    """Register the experiment files of the system."""
    for path in sorted((Path(__file__).parent / "experiments").glob("*.yaml")):
        register(path)
