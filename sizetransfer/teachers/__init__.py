"""Built-in teachers, registered through the same hooks as anybody's."""

from __future__ import annotations

from collections.abc import Callable

from sizetransfer.hooks import hookimpl
from sizetransfer.specs import TeacherSpec


@hookimpl
def register_teachers(register: Callable[[type[TeacherSpec]], None]) -> None:
    """Register every built-in teacher."""
    from sizetransfer.teachers.flow import FlowTeacherSpec
    from sizetransfer.teachers.gaussian import GaussianTeacherSpec
    from sizetransfer.teachers.gaussian_graph import GaussianGraphTeacherSpec
    from sizetransfer.teachers.hard_valid import HardValidTeacherSpec
    from sizetransfer.teachers.ising import IsingTeacherSpec
    from sizetransfer.teachers.phi4 import Phi4TeacherSpec

    register(FlowTeacherSpec)
    register(GaussianTeacherSpec)
    register(GaussianGraphTeacherSpec)
    register(HardValidTeacherSpec)
    register(IsingTeacherSpec)
    register(Phi4TeacherSpec)
