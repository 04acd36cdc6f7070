"""How a class of broken students becomes a mutant."""

from __future__ import annotations

from collections.abc import Callable

from mutant import Mutant
from small_students import TORUS, SmallCNN, SmallGraphStudent, SmallStudent

from sizetransfer.contracts.specs import FieldInfo
from sizetransfer_verification.conformance import StudentSubject

FOUND: list[Mutant] = []


def defect(text: str, *killers: str, field: FieldInfo = TORUS) -> Callable[[type[SmallStudent]], type[SmallStudent]]:
    """Register a class as the mutant of the healthy class that it derives from."""

    def register(broken: type[SmallStudent]) -> type[SmallStudent]:
        healthy = SmallGraphStudent if issubclass(broken, SmallGraphStudent) else SmallCNN
        name = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in broken.__name__)[1:]
        FOUND.append(
            Mutant(
                name=name,
                defect=text,
                killers=tuple(f"student/{killer}" for killer in killers),
                subject=lambda: StudentSubject(broken, fields=(field,), name=name),
                healthy=lambda: StudentSubject(healthy, fields=(field,), name=healthy.__name__),
            )
        )
        return broken

    return register
