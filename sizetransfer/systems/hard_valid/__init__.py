"""Hard-valid mixed teacher: exact local constraints, discrete types and a continuous field in open boxes.

Validity is a type: a :class:`ValidPorts` or a :class:`ValidState` exists only if it keeps every constraint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizetransfer.contracts.lazy import names_of

if TYPE_CHECKING:
    from sizetransfer.systems.hard_valid.directions import DIRECTIONS, opposite, port_bits
    from sizetransfer.systems.hard_valid.ports import PatternWeights, PortLaw, library
    from sizetransfer.systems.hard_valid.teacher import Draw, HardValidTeacher, HardValidTeacherSpec
    from sizetransfer.systems.hard_valid.validity import ValidPorts, ValidState, Violation, first_violation

__all__ = [
    "DIRECTIONS",
    "Draw",
    "HardValidTeacher",
    "HardValidTeacherSpec",
    "PatternWeights",
    "PortLaw",
    "ValidPorts",
    "ValidState",
    "Violation",
    "first_violation",
    "library",
    "opposite",
    "port_bits",
]

_MODULES = {
    "directions": (
        "DIRECTIONS",
        "opposite",
        "port_bits",
    ),
    "ports": (
        "PatternWeights",
        "PortLaw",
        "library",
    ),
    "teacher": (
        "Draw",
        "HardValidTeacher",
        "HardValidTeacherSpec",
    ),
    "validity": (
        "ValidPorts",
        "ValidState",
        "Violation",
        "first_violation",
    ),
}
__getattr__ = names_of(__name__, _MODULES)
