"""Checks: plain functions, registered with the clause of the contract that they test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import did_you_mean
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.evidence import Evidence

if TYPE_CHECKING:
    from sizetransfer_verification.conformance.executors.subject import ExecutorSubject
    from sizetransfer_verification.conformance.listeners.subject import ListenerSubject
    from sizetransfer_verification.conformance.measures.subject import MeasureSubject
    from sizetransfer_verification.conformance.subjects import StudentSubject, TeacherSubject

Family = Literal["teacher", "student", "measure", "executor", "listener"]
FAMILIES: tuple[Family, ...] = get_args(Family)
"""What there is a contract for: ``sizetransfer_verification.conformance.<family>s`` holds its checks."""

Level = Literal["api", "core", "full"]
LEVELS: tuple[Level, ...] = ("api", "core", "full")

AnySubject = TypeVar(
    "AnySubject", "StudentSubject", "TeacherSubject", "MeasureSubject", "ExecutorSubject", "ListenerSubject"
)


@dataclass(frozen=True)
class Need(Generic[AnySubject]):
    """A capability without which a check says nothing.

    Attributes:
        name: what must be declared.
        holds: whether a subject declares it.
    """

    name: str
    holds: Callable[[AnySubject], bool]


@dataclass(frozen=True)
class Check(Generic[AnySubject]):
    """One clause of a contract, as a function that compares.

    Attributes:
        id: ``family/what-holds``.
        clause: the sentence of the contract that is tested.
        cause: what usually breaks it.
        level: the lowest level that contains it.
        statistical: whether it compares means with standard errors.
        needs: capabilities, else the check is not applicable.
        space: the cases on which it is run; a statistical check runs on one.
        function: takes subject, case and evidence; raises :class:`~.evidence.ViolationError` or lets the plugin's own
            exception through.
    """

    id: str
    family: Family
    clause: str
    cause: str
    level: Level
    statistical: bool
    needs: tuple[Need[AnySubject], ...]
    space: CaseSpace
    function: Callable[[AnySubject, Case, Evidence], None]


LAW: Need[TeacherSubject] = Need(
    "draws of the law itself (a sampler)", lambda subject: getattr(subject.example, "draws_its_law", True)
)
"""What every statistical check of a teacher needs: functions without a sampler are only asked about points."""

_CHECKS: dict[Family, dict[str, Check[Any]]] = {family: {} for family in FAMILIES}

Function = Callable[[AnySubject, Case, Evidence], None]


def student_check(
    clause: str,
    *,
    cause: str,
    level: Level = "core",
    needs: tuple[Need[StudentSubject], ...] = (),
    space: CaseSpace | None = None,
) -> Callable[[Function[StudentSubject]], Check[StudentSubject]]:
    """Register a function as a check of students; its id is ``student/`` and its name with hyphens."""
    return lambda function: _registered("student", function, clause, cause, level, needs, space)


def teacher_check(
    clause: str,
    *,
    cause: str,
    level: Level = "core",
    statistical: bool = False,
    needs: tuple[Need[TeacherSubject], ...] = (),
    space: CaseSpace | None = None,
) -> Callable[[Function[TeacherSubject]], Check[TeacherSubject]]:
    """Register a function as a check of teachers; its id is ``teacher/`` and its name with hyphens."""
    needs = (*needs, LAW) if statistical else needs
    return lambda function: _registered("teacher", function, clause, cause, level, needs, space, statistical)


def measure_check(
    clause: str, *, cause: str, level: Level = "core", needs: tuple[Need[MeasureSubject], ...] = ()
) -> Callable[[Function[MeasureSubject]], Check[MeasureSubject]]:
    """Register a function as a check of measures; its id is ``measure/`` and its name with hyphens."""
    return lambda function: _registered("measure", function, clause, cause, level, needs)


def executor_check(
    clause: str, *, cause: str, level: Level = "core"
) -> Callable[[Function[ExecutorSubject]], Check[ExecutorSubject]]:
    """Register a function as a check of executors; its id is ``executor/`` and its name with hyphens."""
    return lambda function: _registered("executor", function, clause, cause, level, ())


def listener_check(
    clause: str, *, cause: str, level: Level = "core"
) -> Callable[[Function[ListenerSubject]], Check[ListenerSubject]]:
    """Register a function as a check of listeners; its id is ``listener/`` and its name with hyphens."""
    return lambda function: _registered("listener", function, clause, cause, level, ())


def _registered(
    family: Family,
    function: Callable[[Any, Case, Evidence], None],
    clause: str,
    cause: str,
    level: Level,
    needs: tuple[Need[Any], ...],
    space: CaseSpace | None = None,
    statistical: bool = False,
) -> Check[Any]:
    name = f"{family}/{function.__name__.replace('_', '-')}"
    check: Check[Any] = Check(name, family, clause, cause, level, statistical, needs, space or CaseSpace(), function)
    return _CHECKS[family].setdefault(name, check)


def repeated(check: Check[Any], space: CaseSpace) -> Check[Any]:
    """Register a check once more at level ``full``, on more cases; its id ends in ``-at-length``."""
    longer = replace(check, id=f"{check.id}-at-length", level="full", space=space)
    return _CHECKS[check.family].setdefault(longer.id, longer)


def checks(family: Family, level: Level = "full", only: tuple[str, ...] = ()) -> tuple[Check[Any], ...]:
    """The checks of a family up to a level, in the order in which they are written.

    Args:
        family: one of :data:`FAMILIES`.
        level: ``api`` (seconds), ``core`` (a minute) or ``full``.
        only: ids to keep; all if empty.

    Raises:
        SpecError: an unknown level or id.
    """
    # They register their checks; a family that is not asked for is not imported.
    import_module(f"sizetransfer_verification.conformance.{family}s")

    if level not in LEVELS:
        raise SpecError("Unknown level.", where="level", expected=f"one of {', '.join(LEVELS)}", got=repr(level))
    known = dict(_CHECKS[family])
    for name in only:
        if name not in known:
            raise SpecError(
                f"There is no check {name!r}.",
                where=f"checks of a {family}",
                expected=f"one of {', '.join(known)}",
                got=name,
                fix=did_you_mean(name, known) or "`sizetransfer verify checks` lists them",
            )
    reached = LEVELS[: LEVELS.index(level) + 1]
    return tuple(check for check in known.values() if (check.id in only if only else check.level in reached))


def list_hash(chosen: tuple[Check[Any], ...]) -> str:
    """A hash of what the checks say they test: two reports with the same hash come from the same list."""
    text = "\n".join(f"{check.id}|{check.level}|{check.clause}" for check in chosen)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
