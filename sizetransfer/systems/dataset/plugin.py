"""What the system ``dataset`` registers."""

from __future__ import annotations

from collections.abc import Callable

from sizetransfer import TeacherSpec, hookimpl


@hookimpl
def register_teachers(register: Callable[[type[TeacherSpec]], None]) -> None:
    """Register the teachers of the system."""
    from sizetransfer.systems.dataset.spec import DatasetTeacherSpec

    register(DatasetTeacherSpec)
