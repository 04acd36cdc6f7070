"""What the system ``hard-valid`` registers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sizetransfer import TeacherSpec, hookimpl
from sizetransfer.registry.hooks import FigureFunction


@hookimpl
def register_teachers(register: Callable[[type[TeacherSpec]], None]) -> None:
    """Register the teachers of the system."""
    from sizetransfer.systems.hard_valid.teacher import HardValidTeacherSpec

    register(HardValidTeacherSpec)


@hookimpl
def register_figures(register: Callable[[str, FigureFunction], None]) -> None:
    """Register the figures of the system."""
    from sizetransfer.systems.hard_valid.figures import bulk_and_boundary, far_to_near
    from sizetransfer.systems.hard_valid.pictures import hard_valid_sample

    register("bulk-and-boundary", bulk_and_boundary)
    register("far-to-near", far_to_near)
    register("hard-valid-sample", hard_valid_sample)


@hookimpl
def register_experiments(register: Callable[[Path], None]) -> None:
    """Register the experiment files of the system."""
    for path in sorted((Path(__file__).parent / "experiments").glob("*.yaml")):
        register(path)
