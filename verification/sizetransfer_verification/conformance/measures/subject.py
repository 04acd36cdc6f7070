"""A measure under examination, on teachers of several sorts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import torch

from sizetransfer.api import chosen
from sizetransfer.contracts.errors import ConformanceError, SizetransferError
from sizetransfer.contracts.oracle import Teacher
from sizetransfer.contracts.randomness import seeded_initialisation, stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.measures.bench import CANDIDATES, SIZES, Candidate, student_for
from sizetransfer_verification.conformance.subjects import check_case, stir

MeasureLike = MeasureSpec | Mapping[str, object] | str
NOISE = 0.1
"""Noise level at which students are asked, in units of sigma_data."""


@dataclass(frozen=True)
class Pair:
    """A teacher that the measure says it takes, and a size that it says it takes there."""

    candidate: Candidate
    size: int


class MeasureSubject:
    """A measure under examination.

    Attributes:
        name: for reports.
        spec: its specification.
        refused: the teachers that it does not take, with its reason.
        refused_late: those of which it says so only when it is taken, with the size and the reason.
        family: ``measure``.
    """

    family: Literal["measure"] = "measure"

    def __init__(
        self, measure: MeasureLike, *, teachers: Sequence[Candidate] = (), seed: int = 0, name: str | None = None
    ) -> None:
        self.seed = seed
        self.spec = measure if isinstance(measure, MeasureSpec) else cast(MeasureSpec, chosen("measure", measure))
        self.name = name or (measure if isinstance(measure, str) else self.spec.kind)
        self.candidates = (*teachers, *CANDIDATES)
        self.refused: dict[str, str] = {}
        self.refused_late: dict[str, str] = {}
        self._found: dict[tuple[Pair, int], list[Measurement]] = {}

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """The teachers and sizes on which the measure is examined: one of every sort that it takes."""
        return tuple(self._taken())

    def notes(self) -> tuple[str, ...]:
        tried = [f"{pair.candidate.name} (size {pair.size})" for pair in self.pairs]
        taken = {pair.candidate.name for pair in self.pairs}
        refused = [f"not taken of {name}: {reason}" for name, reason in self.refused.items() if name not in taken]
        return (f"taken of {', '.join(tried) or 'no teacher'}", *refused)

    def check_case(self, case: Case) -> None:
        """Refuse an example that this measure cannot be run on.

        Raises:
            SpecError: there is no such pair.
        """
        check_case(case, members=len(self.pairs), devices=("cpu",))

    def cases(self) -> tuple[Case, ...]:
        """One for each pair."""
        if not self.pairs:
            raise ConformanceError(
                "The measure takes none of the teachers that are tried.",
                where=self.name,
                expected=f"one of {', '.join(candidate.name for candidate in self.candidates)}",
                got="; ".join(f"{name}: {reason}" for name, reason in self.refused.items()),
                fix="register a small teacher that it takes in the same distribution, or pass teachers=",
            )
        return tuple(Case(member, pair.size, seed=self.seed) for member, pair in enumerate(self.pairs))

    def teacher(self, case: Case) -> Teacher:
        """The teacher of a case, built anew."""
        return built(self.pairs[case.member].candidate)

    def student(self, case: Case, *, label: str = "student") -> Student:
        """A small student for the fields of a case, built anew, its weights decided by the label."""
        return small_student(self.teacher(case), self.seed, label)

    def take(self, case: Case, teacher: Teacher, student: Student, *, seed: int) -> Iterable[Measurement]:
        """What the measure returns."""
        return self._take(teacher, student, self.pairs[case.member].size, seed)

    def numbers(self, case: Case, *, seed: int = 1) -> list[Measurement]:
        """What the measure returns of a case; computed once for each evaluation seed."""
        return self._numbers(self.pairs[case.member], seed)

    def _take(self, teacher: Teacher, student: Student, size: int, seed: int) -> Iterable[Measurement]:
        return self.spec.measure(teacher, student, size, sigma=NOISE * teacher.field.sigma_data, seed=seed)

    def _numbers(self, pair: Pair, seed: int) -> list[Measurement]:
        if (pair, seed) not in self._found:
            teacher = built(pair.candidate)
            student = small_student(teacher, self.seed, "student")
            self._found[pair, seed] = list(self._take(teacher, student, pair.size, seed))
        return self._found[pair, seed]

    def _taken(self) -> Iterator[Pair]:
        sorts: set[str] = set()
        for candidate in self.candidates:
            if candidate.sort in sorts:
                continue
            size = self._size(candidate)
            if size is not None:
                sorts.add(candidate.sort)
                yield Pair(candidate, size)

    def _size(self, candidate: Candidate) -> int | None:
        """The first size at which the measure can be taken of the teacher; the reason is kept where there is none."""
        teacher = built(candidate)
        student = small_student(teacher, self.seed, "student")
        for size in SIZES:
            try:
                teacher.check_size(size)
            except SizetransferError:
                continue
            try:
                reason = refusal(self.spec, teacher, student, size)
                if reason is None:
                    self._numbers(Pair(candidate, size), 1)
                    return size
            except SizetransferError as error:
                reason = error.what
                self.refused_late.setdefault(f"{candidate.name}, size {size}", reason)
            except Exception:
                # A check will meet it again, and report it.
                return size
            self.refused.setdefault(candidate.name, reason)
        return None


def built(candidate: Candidate) -> Teacher:
    """The candidate in float64.

    Raises:
        ConformanceError: it cannot be built.
    """
    try:
        return candidate.build().double().frozen()
    except Exception as error:
        raise ConformanceError(
            "A teacher that the measure is tried on cannot be built.",
            where=candidate.name,
            expected="a teacher",
            got=f"{type(error).__name__}: {error}",
            fix="check the teacher first: sizetransfer verify plugin",
        ) from error


def small_student(teacher: Teacher, seed: int, label: str) -> Student:
    """A small student with random weights, as a run would hand it over: in eval mode, without gradients."""
    with seeded_initialisation("conformance", seed, label):
        student = student_for(teacher.field)
    stir(student, stream("conformance", seed, "stir", label))
    return student.double().eval().requires_grad_(False)


def refusal(spec: MeasureSpec, teacher: Teacher, student: Student, size: int) -> str | None:
    """Why the measure says, before a run, that it cannot be taken; nothing where it can."""
    lacking = spec.lacking(teacher)
    if lacking:
        return f"it lacks {', '.join(lacking)}"
    generator = torch.Generator().manual_seed(0)
    if not spec.takes_masks and teacher.sample(1, size, generator=generator).context.mask is not None:
        return "it has dead sites"
    try:
        spec.check(teacher, size)
        spec.check_student(student)
    except SizetransferError as error:
        return error.what
    return None
