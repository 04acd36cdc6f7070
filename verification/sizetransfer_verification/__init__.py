"""Verification for sizetransfer: symbolic proofs, a conformance suite, and property tests of Theorem 1.

Names are imported when they are first used, so that a part works where the library of another is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizetransfer.contracts.lazy import names_of

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

_MODULES = {
    "conformance": (
        *("Case", "Check", "Outcome", "Report"),
        *("check_measure", "check_student", "check_teacher", "checks", "parametrize_with_checks"),
    ),
    "symbolic": ("identities",),
    "theorem": ("claims", "search"),
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
__getattr__ = names_of(__name__, _MODULES)
