"""Built-in teachers, registered through the same hooks as anybody's."""

from __future__ import annotations

from collections.abc import Callable

from sizetransfer.contracts.specs import TeacherSpec
from sizetransfer.registry.hooks import hookimpl


@hookimpl
def register_teachers(register: Callable[[type[TeacherSpec]], None]) -> None:
    """Register every built-in teacher."""
    from sizetransfer.systems.flow.teacher import FlowTeacherSpec
    from sizetransfer.systems.gaussian.graph import GaussianGraphTeacherSpec
    from sizetransfer.systems.gaussian.teacher import GaussianTeacherSpec
    from sizetransfer.systems.hard_valid import HardValidTeacherSpec
    from sizetransfer.systems.ising.teacher import IsingTeacherSpec
    from sizetransfer.systems.phi4.teacher import Phi4TeacherSpec

    register(FlowTeacherSpec)
    register(GaussianTeacherSpec)
    register(GaussianGraphTeacherSpec)
    register(HardValidTeacherSpec)
    register(IsingTeacherSpec)
    register(Phi4TeacherSpec)
