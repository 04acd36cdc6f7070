"""Built-in students, registered through the same hooks as anybody's."""

from __future__ import annotations

from collections.abc import Callable

from sizetransfer.contracts.specs import StudentSpec
from sizetransfer.registry.hooks import hookimpl


@hookimpl
def register_students(register: Callable[[type[StudentSpec]], None]) -> None:
    """Register every built-in student."""
    from sizetransfer.students.best_linear import BestLinearSpec
    from sizetransfer.students.cnn import CNNStudentSpec
    from sizetransfer.students.sliding_attention import SlidingAttentionSpec
    from sizetransfer.students.spectral import SpectralStudentSpec
    from sizetransfer.students.unet import UNetStudentSpec
    from sizetransfer.students.wrapped import ModuleSpec

    register(BestLinearSpec)
    register(CNNStudentSpec)
    register(SlidingAttentionSpec)
    register(SpectralStudentSpec)
    register(UNetStudentSpec)
    register(ModuleSpec)
