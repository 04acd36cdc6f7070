"""The conformance suite: one list of checks, three faces.

- :func:`check_student`, :func:`check_teacher` and :func:`check_measure` return a :class:`~.report.Report`;
- :func:`parametrize_with_checks` makes every check a test of its own;
- ``sizetransfer verify plugin NAME`` and ``pytest --sizetransfer NAME`` run them from the command line.
"""

from __future__ import annotations

from sizetransfer_verification.conformance.api import (
    BoundCheck,
    check_measure,
    check_student,
    check_teacher,
    parametrize_with_checks,
    subjects_of,
)
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import (
    FAMILIES,
    Check,
    Family,
    Level,
    Need,
    checks,
    student_check,
    teacher_check,
)
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError, ViolationError
from sizetransfer_verification.conformance.executors.subject import ExecutorSubject
from sizetransfer_verification.conformance.listeners.subject import ListenerSubject
from sizetransfer_verification.conformance.measures.subject import MeasureSubject
from sizetransfer_verification.conformance.named import Inventory, inventory
from sizetransfer_verification.conformance.report import Outcome, Report
from sizetransfer_verification.conformance.runner import run_check, run_checks
from sizetransfer_verification.conformance.subject import Subject
from sizetransfer_verification.conformance.subjects import StudentSubject, TeacherSubject
from sizetransfer_verification.conformance.tolerances import ERROR_BUDGET, TOLERANCES

__all__ = [
    "ERROR_BUDGET",
    "FAMILIES",
    "TOLERANCES",
    "BoundCheck",
    "Case",
    "CaseSpace",
    "Check",
    "Evidence",
    "ExecutorSubject",
    "Family",
    "Inventory",
    "Level",
    "ListenerSubject",
    "MeasureSubject",
    "Need",
    "NotApplicableError",
    "Outcome",
    "Report",
    "StudentSubject",
    "Subject",
    "TeacherSubject",
    "ViolationError",
    "check_measure",
    "check_student",
    "check_teacher",
    "checks",
    "inventory",
    "parametrize_with_checks",
    "run_check",
    "run_checks",
    "student_check",
    "subjects_of",
    "teacher_check",
]
