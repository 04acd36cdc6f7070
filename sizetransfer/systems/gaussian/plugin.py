"""What the system ``gaussian`` registers."""

from __future__ import annotations

from collections.abc import Callable

from sizetransfer import StudentSpec, TeacherSpec, hookimpl


@hookimpl
def register_teachers(register: Callable[[type[TeacherSpec]], None]) -> None:
    """Register the teachers of the system."""
    from sizetransfer.systems.gaussian.graph import GaussianGraphTeacherSpec
    from sizetransfer.systems.gaussian.teacher import GaussianTeacherSpec

    register(GaussianTeacherSpec)
    register(GaussianGraphTeacherSpec)


@hookimpl
def register_students(register: Callable[[type[StudentSpec]], None]) -> None:
    """Register the students of the system."""
    from sizetransfer.systems.gaussian.student import OptimalLocalSpec

    register(OptimalLocalSpec)
