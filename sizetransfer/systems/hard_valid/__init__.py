"""Hard-valid mixed teacher: exact local constraints, discrete types and a continuous field in open boxes.

Validity is a type: a :class:`ValidPorts` or a :class:`ValidState` exists only if it keeps every constraint.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
