"""The three faces of the list of checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack

from sizetransfer.contracts.errors import ConformanceError, SpecError
from sizetransfer.contracts.oracle import Teacher
from sizetransfer.contracts.specs import FieldInfo, MeasureSpec, StudentSpec, TeacherSpec
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.check import Check, Level, checks, list_hash
from sizetransfer_verification.conformance.measures.subject import MeasureLike, MeasureSubject
from sizetransfer_verification.conformance.named import inventory, require_whole
from sizetransfer_verification.conformance.report import Report
from sizetransfer_verification.conformance.runner import require_libraries, run_check, run_checks
from sizetransfer_verification.conformance.subject import Subject
from sizetransfer_verification.conformance.subjects import StudentLike, StudentSubject, TeacherLike, TeacherSubject

Function = TypeVar("Function", bound=Callable[..., object])


class Options(TypedDict, total=False):
    """What is run of the checks, by name; all may be left out.

    Attributes:
        level: ``api`` (seconds), ``core`` (a minute; the default) or ``full``.
        only: ids of single checks.
        expected_failures: id of a check that is known to fail, and why; if it passes, the report fails.
        example: run on this case alone: the one that a report showed.
        timeout: seconds for each check.
    """

    level: Level
    only: tuple[str, ...]
    expected_failures: Mapping[str, str] | None
    example: Case | None
    timeout: float


def check_student(
    student: StudentLike,
    *,
    fields: Sequence[FieldInfo] | None = None,
    seed: int = 0,
    **options: Unpack[Options],
) -> Report:
    """Check a student against the contract of students.

    Args:
        student: a kind, ``kind:preset``, a specification, or a function that builds one for a ``FieldInfo``.
        fields: the fields to build it for; by default tori, open boxes and a graph, those left out that it refuses.
        seed: names the random streams.
        options: see :class:`Options`.

    Raises:
        SpecError: an unknown kind, level or check.
        ConformanceError: what was given builds no student. A broken contract does not raise; see
            :meth:`Report.raise_if_failed`.
    """
    return run_checks(StudentSubject(student, fields=fields, seed=seed), **options)


def check_teacher(
    teacher: TeacherLike,
    *,
    seed: int = 0,
    **options: Unpack[Options],
) -> Report:
    """Check a teacher against the contract of teachers.

    Args:
        teacher: a kind, ``kind:preset``, a specification, a teacher, or a function that builds one.
        seed: names the random streams.
        options: see :class:`Options`.

    Raises:
        SpecError: an unknown kind, level or check.
        ConformanceError: what was given builds no teacher, or it accepts no size.
    """
    return run_checks(TeacherSubject(teacher, seed=seed), **options)


def check_measure(
    measure: MeasureLike,
    *,
    seed: int = 0,
    **options: Unpack[Options],
) -> Report:
    """Check a measure against the contract of measures, on small teachers and students of every sort that it takes.

    Args:
        measure: a kind, ``kind:preset`` or a specification; small numbers of fields keep the checks short.
        seed: names the random streams.
        options: see :class:`Options`.

    Raises:
        SpecError: an unknown kind, level or check.
    """
    return run_checks(MeasureSubject(measure, seed=seed), **options)


@dataclass(frozen=True)
class BoundCheck:
    """A check with its subject: call it to run it."""

    check: Check[Any]
    subject: Subject

    @property
    def id(self) -> str:
        """``subject-family/what-holds``."""
        return f"{self.subject.name}-{self.check.id}"

    def __call__(self) -> None:
        """Run the check as a test.

        Raises:
            ConformanceError: it failed.
            PluginError: hypothesis or scipy is not installed.
            pytest.skip.Exception: it is not applicable.
        """
        import pytest

        require_libraries()
        outcome = run_check(self.check, self.subject)
        if outcome.status == "not applicable":
            pytest.skip(outcome.reason)
        report = Report(self.subject.name, self.subject.family, self.check.level, list_hash((self.check,)), (outcome,))
        report.raise_if_failed()


def parametrize_with_checks(
    subjects: Iterable[TeacherLike | StudentLike | MeasureLike | Subject],
    *,
    level: Level = "core",
    expected_failures: Mapping[str, str] | None = None,
) -> Callable[[Function], Function]:
    """Decorate a test function of one argument, ``check``, so that every check of every subject is a test.

    Args:
        subjects: kinds, specifications, teachers, or subjects such as :class:`StudentSubject`.
        level: ``api``, ``core`` or ``full``.
        expected_failures: id of a check that is known to fail, and why: a strict ``xfail``.

    Raises:
        SpecError: a name that no teacher or student has, or an unknown check.

    Example::

        @parametrize_with_checks(["cnn", {"kind": "flow", "preset": "medium-range"}])
        def test_contract(check):
            check()
    """
    import pytest

    expected = dict(expected_failures or {})
    parameters = []
    for given in subjects:
        for subject in [given] if isinstance(given, Subject) else subjects_of(given):
            for check in checks(subject.family, level):
                bound = BoundCheck(check, subject)
                reason = expected.get(check.id)
                marks = (pytest.mark.xfail(reason=reason, raises=ConformanceError, strict=True),) if reason else ()
                parameters.append(pytest.param(bound, id=bound.id, marks=marks))
    unknown = set(expected) - {parameter.values[0].check.id for parameter in parameters}  # type: ignore[union-attr]
    if unknown:
        raise SpecError(
            "A check that is not run is expected to fail.",
            where="parametrize_with_checks, expected_failures",
            expected="ids of the checks of these subjects at this level",
            got=", ".join(sorted(unknown)),
            fix="`sizetransfer verify checks` lists them",
        )
    return pytest.mark.parametrize("check", parameters)


def subjects_of(given: TeacherLike | StudentLike | MeasureLike) -> list[Subject]:
    """The subjects that a name, a specification or an object stands for; see :func:`~.named.inventory` for names.

    Raises:
        SpecError: nothing has that name, or the text is no mapping.
        PluginError: something that the name stands for cannot be imported or built.
    """
    if isinstance(given, Teacher | TeacherSpec):
        return [TeacherSubject(given)]
    if isinstance(given, StudentSpec):
        return [StudentSubject(given)]
    if isinstance(given, MeasureSpec):
        return [MeasureSubject(given)]
    if callable(given):
        raise SpecError(
            "A function may build a teacher or a student.",
            where="subjects",
            expected="TeacherSubject(function) or StudentSubject(function)",
            got=repr(given),
            fix="say which",
        )
    return list(require_whole(inventory(given)))
