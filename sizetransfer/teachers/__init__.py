"""General teachers, of no system of their own; registered through the same hooks as anybody's."""

from __future__ import annotations

from collections.abc import Callable

from sizetransfer.contracts.specs import TeacherSpec
from sizetransfer.registry.hooks import hookimpl


@hookimpl
def register_teachers(register: Callable[[type[TeacherSpec]], None]) -> None:
    """Register the teachers that are made of somebody's functions."""
    from sizetransfer.teachers.by_path import FunctionsSpec

    register(FunctionsSpec)
