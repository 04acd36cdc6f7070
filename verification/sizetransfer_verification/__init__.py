"""Verification for sizetransfer: symbolic proofs, a conformance suite, and property tests of Theorem 1.

Names are imported when they are first used, so that a part works where the library of another is missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sizetransfer_verification.conformance import (
        Case,
        Check,
        Outcome,
        Report,
        check_measure,
        check_student,
        check_teacher,
        checks,
        parametrize_with_checks,
    )
    from sizetransfer_verification.symbolic import identities
    from sizetransfer_verification.theorem import claims, search

_HOMES = {
    "Case": "conformance",
    "Check": "conformance",
    "Outcome": "conformance",
    "Report": "conformance",
    "check_measure": "conformance",
    "check_student": "conformance",
    "check_teacher": "conformance",
    "checks": "conformance",
    "parametrize_with_checks": "conformance",
    "identities": "symbolic",
    "claims": "theorem",
    "search": "theorem",
}

__all__ = [  # noqa: PLE0604, RUF100
    "Case",
    "Check",
    "Outcome",
    "Report",
    "check_measure",
    "check_student",
    "check_teacher",
    "checks",
    "claims",
    "identities",
    "parametrize_with_checks",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
