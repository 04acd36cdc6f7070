r"""The clean law of ferromagnetic spins at any size: what its correlations leave to a radius, and to Theorem 1.

With the correlations :math:`G(0, j) = \langle s_0s_j\rangle` of the spins without field, which are exact on tori of any
size (:func:`sizetransfer.systems.ising.zero_field`):

- susceptibility :math:`\chi_L = \sum_jG(0, j)`, bounded in L below :math:`\beta_c` and growing like :math:`L^{7/4}` at
  it;
- the correlations beyond a radius, :math:`\sum_{d(0,j)>R}G(0, j)`: divided by :math:`v^2`, the response tail at x = 0
  and its largest value over all x;
- their second-moment length (:mod:`sizetransfer.measures.correlation_length`);
- certificates (:mod:`sizetransfer.systems.ising.certificate`): the budget of Theorem 1, what a score error of one
  everywhere can cost a site; at every noise level, a bound on the error of the best score of the student's radius, and
  the smallest radius whose error is certified to be small.

Nothing here depends on the student but the radius. Tables are kept within the process, for students and seeds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast

from pydantic import Field, NonNegativeInt, model_validator

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Teacher
from sizetransfer.contracts.parts import Part
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.measures.correlation_length import correlation_length
from sizetransfer.measures.smoothed_score import NoiseLevel
from sizetransfer.systems.ising import ZeroField
from sizetransfer.systems.ising.certificate import FerromagnetCertificate, HasSpinCoupling


class ZeroFieldSpec(MeasureSpec):
    r"""Susceptibility, tails, correlation length and budget of spins without field (paper §5, Theorem 1).

    Parts: ``susceptibility``; ``outside`` by radius, for each of ``radii`` and the student's: the correlations beyond
    it; ``correlation_length``; and certificates: ``budget`` between ``sigma_min`` and ``sigma_max``; by noise level,
    ``locality_bound``: on the relative error of the best score of the student's radius, and ``certified_radius``: the
    smallest whose best score is within ``tolerance`` of the exact one (or the one that sees the whole torus). All are
    exact or certified: n = 1, and the standard error is zero. Antiferromagnets have no certificates: their budget is
    NaN.
    """

    kind: Literal["zero-field"] = "zero-field"
    requires: ClassVar[tuple[type, ...]] = (HasSpinCoupling,)
    figures: ClassVar[tuple[str, ...]] = ("ising-size",)
    parts: ClassVar[Mapping[str, Part]] = {
        "susceptibility": Part("evidence", "susceptibility", "size", "spin²", "exact", logarithmic=True),
        "correlation_length": Part("evidence", "second-moment correlation length", "size", "lattice steps", "exact"),
        "outside": Part("evidence", "correlations beyond a radius", "radius", "spin²", "exact", logarithmic=True),
        "budget": Part("evidence", "budget of Theorem 1", "size", "", "exact", logarithmic=True),
        "certified_radius": Part("evidence", "certified radius", "noise", "lattice steps", "exact"),
        "locality_bound": Part("evidence", "bound on the irreducible error", "noise", "relative", "exact"),
    }
    radii: tuple[NonNegativeInt, ...] = Field((), description="further radii beyond which correlations are summed")
    sigma_min: float = Field(0.05, gt=0, allow_inf_nan=False, description="noise at which the reverse process stops")
    sigma_max: float = Field(10.0, gt=0, allow_inf_nan=False, description="noise at which it starts")

    sigmas: tuple[NoiseLevel, ...] = Field((0.5, 1.0, 2.0), description="noise levels of the certified radii")
    tolerance: float = Field(0.1, gt=0, description="relative error that a certified radius may have")

    @model_validator(mode="after")
    def _ordered(self) -> ZeroFieldSpec:
        if self.sigma_min >= self.sigma_max:
            raise SpecError(
                "The budget has no noise levels to run over.",
                where="zero-field, sigma_min, sigma_max",
                expected="sigma_min < sigma_max",
                got=f"sigma_min = {self.sigma_min:g}, sigma_max = {self.sigma_max:g}",
                fix="raise sigma_max or lower sigma_min",
            )
        return self

    def lacking(self, teacher: Teacher) -> list[str]:
        """What keeps the teacher from being measured: tables without field are those of tori."""
        torus = teacher.field.geometry == "lattice" and teacher.field.periodic
        return super().lacking(teacher) or ([] if torus else ["a torus (its lattice has walls)"])

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`."""
        spins = cast(HasSpinCoupling, teacher)
        table = _table(_Question(type(teacher), spins.coupling, size, spins))
        yield _exact("susceptibility", table.susceptibility)
        yield _exact("correlation_length", correlation_length(table.correlation, teacher.domain(size)))
        for radius in sorted({*self.radii, *([] if student.radius is None else [student.radius])}):
            yield _exact("outside", table.outside(radius), float(radius))
        if spins.coupling < 0:
            yield Measurement("budget", math.nan, math.nan, 0)
            return
        certificate = FerromagnetCertificate(spins.coupling, table.correlation, "exact")
        yield _exact("budget", certificate.budget(self.sigma_min**2, self.sigma_max**2).value)
        for level in self.sigmas:
            yield _exact("certified_radius", certificate.sufficient_radius(level, self.tolerance).value, level)
            if student.radius is not None:
                yield _exact("locality_bound", certificate.locality_error(student.radius, level).value, level)


@dataclass(frozen=True)
class _Question:
    """What a table depends on, and who answers."""

    kind: type
    coupling: float
    size: int
    teacher: HasSpinCoupling = field(compare=False)


@functools.lru_cache(maxsize=128)
def _table(question: _Question) -> ZeroField:
    return question.teacher.zero_field(question.size)


def _exact(part: str, value: float, coordinate: float = math.nan) -> Measurement:
    """A number that no draw went into."""
    return Measurement(part, value, 0.0, 1, coordinate)
