r"""How much of a student's error is locality and how much is training, for Gaussian teachers.

Among all functions of the ball of radius r the best score is that of the ball's marginal, and on noisy fields its mean
squared error per component is the irreducible gap

.. math:: g_r = [(C+v)^{-1}]_{ii} - [(C+v)_{BB}^{-1}]_{ii}, \qquad v = \sigma^2

(:mod:`sizetransfer.numerics.gaussian`). It is a conditional expectation, so for a student :math:`\hat s` of radius r
the squared error splits without a mixed term:

.. math:: E\,|\hat s - s|^2 = g_r + E\,|\hat s - s^{(r)}|^2 .

The gap is exact; the second term, what training left, is an average over noisy fields. On an irregular graph all are
means over its sites.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Graph
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import Context, HasCovariance, HasSmoothedScore, Sample, Teacher, draw_fields
from sizetransfer.contracts.parts import Part
from sizetransfer.contracts.randomness import batches
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.statistics import jackknife, root_ratio
from sizetransfer.scores.references.best_filter import BestFilter, best_filter
from sizetransfer.scores.response import require_finite, student_score


class LocalitySpec(MeasureSpec):
    """Irreducible error of a receptive radius, and the split of a student's error, for Gaussian teachers.

    Parts by radius, exact, at the evaluation's noise level: ``gap``, the mean squared error per component of the best
    score; ``relative_gap``, its root over the root mean square of the exact score. Parts by noise level, relative to
    the exact score in the same way: ``student_error``, the error against the smoothed score on noisy fields;
    ``locality_error``, the irreducible part (exact; zero for a global student); ``training_error``, the rest, against
    the best score of the student's radius; and ``locality_share``, the irreducible share of the squared error.
    """

    kind: Literal["locality"] = "locality"
    requires: ClassVar[tuple[type, ...]] = (HasCovariance, HasSmoothedScore)
    without_effect: ClassVar[frozenset[str]] = frozenset({"batch"})
    parts: ClassVar[Mapping[str, Part]] = {
        "gap": Part(
            "evidence", "irreducible squared error of a radius", "radius", "1/field²", "exact", logarithmic=True
        ),
        "relative_gap": Part(
            "evidence", "irreducible error of a radius", "radius", "relative", "exact", logarithmic=True
        ),
        "student_error": Part("evidence", "error of the student", "noise", "relative", lower_is_better=True),
        "locality_error": Part("evidence", "irreducible error of its radius", "noise", "relative", "exact"),
        "training_error": Part("evidence", "what training left", "noise", "relative", lower_is_better=True),
        "locality_share": Part("evidence", "irreducible share of the squared error", "noise", "share"),
    }
    radii: tuple[int, ...] = Field((0, 1, 2, 3, 4), description="radii whose irreducible error is wanted")
    sigmas: tuple[float, ...] = Field((), description="noise levels of the split; by default the evaluation's")
    fields: int = Field(16, ge=2, description="independent noisy fields")
    batch: int = Field(8, ge=1, description="fields evaluated at a time; bounds the memory")

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`."""
        law = cast(HasCovariance, teacher)
        domain = teacher.domain(size)
        best = partial(best_filter, domain, covariance=partial(law.covariance, size))
        power = _power(teacher, domain, sigma)
        for radius in self.radii:
            gap = _gap(best(radius), power, sigma)
            yield _exact("gap", gap, float(radius))
            yield _exact("relative_gap", (gap / power) ** 0.5, float(radius))
        local = None if student.radius is None else best(student.radius)
        for level in self.sigmas or (sigma,):
            errors = [
                _errors(teacher, student, local, draw_fields(teacher, count, size, generator=own), level, own)
                for count, own in batches(self.fields, self.batch, seed, "locality", size, repr(level))
            ]
            squares = require_finite(torch.cat(errors, dim=1), f"locality at size {size}")
            power = _power(teacher, domain, level)
            yield from _split(squares, 0.0 if local is None else _gap(local, power, level), power, level)


def _exact(part: str, value: float, coordinate: float) -> Measurement:
    """A number that no draw went into."""
    return Measurement(part, value, 0.0, 1, coordinate)


def _gap(best: BestFilter, power: float, sigma: float) -> float:
    # Where the ball holds everything that matters, rounding may leave a difference below zero.
    return max(power - float(best.power(torch.tensor([sigma], dtype=torch.float64))), 0.0)


def _power(teacher: Teacher, domain: Domain, sigma: float) -> float:
    """Mean square of a component of the exact score on noisy fields: the mean of ``[(C + v)^-1]_ii``, in float64.

    The score of a unit impulse at i is minus the row i of that matrix.
    """
    oracle = cast(HasSmoothedScore, teacher)
    sites = range(domain.sites) if isinstance(domain, Graph) else [0]
    total, channels = 0.0, teacher.field.channels
    for site in sites:
        places = [channel * domain.sites + site for channel in range(channels)]
        impulses = teacher.anchor.new_zeros(channels, channels * domain.sites, dtype=torch.float64)
        impulses[range(channels), places] = 1
        x = impulses.reshape(channels, channels, *domain.shape)
        level = x.new_full((channels,), sigma)
        rows = oracle.smoothed_score(x, level, Context(domain)).reshape(impulses.shape)
        total -= float(rows[range(channels), places].mean())
    return total / len(sites)


def _errors(
    teacher: Teacher,
    student: Student,
    local: BestFilter | None,
    sample: Sample,
    sigma: float,
    generator: torch.Generator,
) -> Float[Tensor, "2 batch"]:
    """Mean squares over components of the student's error and of its distance from the best score of its radius."""
    levels = sample.x.new_full((len(sample.x),), sigma)
    x, _ = perturb(sample.x, levels, generator=generator)
    with torch.no_grad():
        exact = cast(HasSmoothedScore, teacher).smoothed_score(x, levels, sample.context)
        learned = student_score(student, sigma, sample.context)(x)
        best = exact if local is None else local.score(x, levels)
    return torch.stack([(learned - target).double().square().flatten(1).mean(1) for target in (exact, best)])


def _split(squares: Tensor, gap: float, power: float, sigma: float) -> Iterable[Measurement]:
    error, training = squares
    scale = torch.full_like(error, power)
    yield Measurement.of("student_error", root_ratio(error, scale), sigma)
    yield _exact("locality_error", (gap / power) ** 0.5, sigma)
    yield Measurement.of("training_error", root_ratio(training, scale), sigma)
    yield Measurement.of("locality_share", jackknife(partial(_share, gap), training), sigma)


def _share(gap: float, training: Tensor) -> float:
    whole = gap + float(training.mean())
    return gap / whole if whole > 0 else math.nan
