r"""Held-out denoising loss of a student beside that of linear filters, on the same fields and the same noise.

.. math:: \ell(\sigma) = E\,\sigma^2\,\|s_\theta(x_0 + \sigma\xi, \sigma) + \xi/\sigma\|^2
    = E\,\|\hat x_0 - x_0\|^2/\sigma^2

with means over live components; :math:`\hat x_0 = x + \sigma^2 s_\theta` is the denoised field. It needs no exact
score, so it is what there is of data. The loss itself is mostly noise that no score can remove: what it says lies in
differences. For two scores on the same fields and noise the losses differ, in the mean, by :math:`\sigma^2` times the
difference of their squared errors; so ``excess``, over the best linear filter of the student's radius, is
:math:`\sigma^2 E\|s_\theta - \hat s\|^2` where that filter is the best score of its class, and negative where the
student beats it.

Filters are fitted to the teacher's training fields of the same size and judged on the held-out ones, which are the same
for all students, their noise too. What a radius is worth is the least loss of any radius up to it: balls nest. In boxes
with walls a filter of the bulk is none of the sites near the walls, and at sizes of which there are no training fields
there is none either: then there is the loss alone. In a crop, sites whose radius leaves it do not count.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt
from torch import Tensor

from sizetransfer.contracts.domain import Graph, Lattice
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand, perturb
from sizetransfer.contracts.oracle import Context, Teacher, draw_fields
from sizetransfer.contracts.parts import Part
from sizetransfer.contracts.randomness import batches, stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.measures.periodic_law import fingerprint
from sizetransfer.measures.smoothed_score import NoiseLevel
from sizetransfer.numerics.statistics import mean
from sizetransfer.scores.references import Sight, estimate_moments
from sizetransfer.scores.references.balls import steps_of
from sizetransfer.scores.references.filters import AnyFilter
from sizetransfer.scores.references.moments import WindowMoments
from sizetransfer.scores.response import require_finite, student_score
from sizetransfer.scores.training import check_crop

LARGEST_BALL = 1024
"""Components of the largest ball that a filter is fitted to."""

Loss = Float[Tensor, "batch"]


def _evidence(title: str) -> Part:
    return Part("evidence", title, "noise", "noise²", lower_is_better=True)


class DenoisingLossSpec(MeasureSpec):
    """Held-out denoising loss, and its excess over linear filters on the same fields and noise; for any teacher.

    Parts, by noise level, in units of the noise's variance: ``loss``; ``null``, ``linear`` and ``best``, of the best
    linear filters of radius 0, of the student's radius and of any; and ``excess`` and ``excess_best``, of the loss over
    the latter two, field by field. Errors are over independent held-out fields.
    """

    kind: Literal["denoising-loss"] = "denoising-loss"
    takes_crops: ClassVar[bool] = True
    without_effect: ClassVar[frozenset[str]] = frozenset({"batch"})
    parts: ClassVar[Mapping[str, Part]] = {
        "loss": Part("error of the denoiser", "denoising loss", "noise", "noise²", lower_is_better=True),
        "null": _evidence("denoising loss of the best filter of radius 0"),
        "linear": _evidence("denoising loss of the best filter of the student's radius"),
        "best": _evidence("denoising loss of the best filter of any radius"),
        "excess": Part(
            "error of the denoiser", "loss over that of the radius's filter", "noise", "noise²", lower_is_better=True
        ),
        "excess_best": Part(
            "error of the denoiser", "loss over that of any filter", "noise", "noise²", lower_is_better=True
        ),
    }
    sigmas: tuple[NoiseLevel, ...] = Field((0.1, 0.3, 1.0), min_length=1, description="noise levels")
    fields: int = Field(64, ge=2, description="independent held-out fields at each size; all levels share them")
    batch: int = Field(16, ge=1, description="fields evaluated at a time; bounds the memory")
    radii: tuple[NonNegativeInt, ...] = Field((1, 2, 4, 8), description="radii of filters beside 0 and the student's")
    reference_fields: int = Field(512, ge=0, description="training fields that filters are fitted to, if so many are")

    def check_student(self, student: Student) -> None:
        """Refuse a student without a radius where the fields are crops."""
        if student.field.crop and student.radius is None:
            Lattice((2,) * student.field.dim, periodic=False, crop=True).counted(None)

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`."""
        check_crop(teacher, student, size)
        filters = self._filters(teacher, student, size)
        for level in self.sigmas:
            parts = [
                _losses(teacher, student, filters, size, level, batch, generator)
                for batch, generator in batches(self.fields, self.batch, seed, "denoising-loss", size)
            ]
            table = require_finite(torch.cat(parts, dim=1), f"denoising-loss at size {size}")
            yield from _compared(table, [one.radius for one in filters], student.radius, level)

    def _filters(self, teacher: Teacher, student: Student, size: int) -> tuple[AnyFilter, ...]:
        """The filters that can be fitted at this size, by growing radius, the whole domain last."""
        source = teacher.split("training")
        known = source.independent_fields(size)
        count = self.reference_fields if known is None else min(self.reference_fields, known)
        sight = Sight(condition="condition" not in student.ignores, mask="mask" not in student.ignores)
        domain = teacher.domain(size)
        walls = isinstance(domain, Lattice) and not domain.crop and not all(domain.closed_axes)
        if count < 2 or walls:
            return ()
        own = () if student.radius is None else (student.radius,)
        question = _Question(fingerprint(source, size), size, count, (0, *self.radii), own, sight, source)
        return _fitted(question)


@dataclass(frozen=True)
class _Question:
    """Which filters; equal questions are answered once in a process."""

    fingerprint: str
    size: int
    fields: int
    radii: tuple[int, ...]
    own: tuple[int, ...]
    sight: Sight
    teacher: Teacher = field(compare=False)


@functools.lru_cache(maxsize=32)
def _fitted(question: _Question) -> tuple[AnyFilter, ...]:
    teacher, size = question.teacher, question.size
    radii = _radii(question)
    with torch.no_grad():
        sample = draw_fields(teacher, question.fields, size, generator=stream("denoising-loss", "references", size))
    crop = teacher.field.crop
    margin = max(radii) if crop else None
    found = []
    try:
        moments = estimate_moments(sample, max(radii), sight=question.sight, margin=margin)
        found = [moments.filter(radius) for radius in radii]
        if not crop and not isinstance(moments, WindowMoments):
            found.append(moments.filter(None))
    except OracleError:
        pass  # conditions or masks of which there is no filter
    return tuple(found)


def _radii(question: _Question) -> list[int]:
    """Radii that fit: in a crop none beyond the student's, whose sites alone count; on a torus none that wraps."""
    domain = question.teacher.domain(question.size)
    if isinstance(domain, Graph):
        return sorted({*question.radii, *question.own})
    lattice, channels = cast(Lattice, domain), question.teacher.field.channels
    most = question.own[0] if lattice.crop else (min(lattice.size) - 1) // 2
    asked = sorted({*question.radii, *question.own})
    fits = [r for r in asked if r <= most and len(steps_of(lattice, r)) * channels <= LARGEST_BALL]
    return fits or [0]


def _losses(
    teacher: Teacher,
    student: Student,
    filters: Sequence[AnyFilter],
    size: int,
    sigma: float,
    batch: int,
    generator: torch.Generator,
) -> Float[Tensor, "scores batch"]:
    """Losses of every field: of the student, then of the filters."""
    sample = draw_fields(teacher, batch, size, generator=generator)
    levels = sample.x.new_full((len(sample.x),), sigma)
    x, noise = perturb(sample.x, levels, generator=generator)
    mask = sample.context.mask
    x = x if mask is None else torch.where(mask, x, sample.x)
    with torch.no_grad():
        scores = [student_score(student, sigma, sample.context)(x)]
        scores += [one.score(x, levels, sample.context) for one in filters]
    target = -noise / expand(levels, noise)
    return torch.stack([_loss(score, target, sigma, sample.context, student.radius) for score in scores])


def _loss(score: Tensor, target: Tensor, sigma: float, context: Context, radius: int | None) -> Loss:
    """Mean over the components that count of the fields that have any, float64."""
    counted = context.counted(radius)
    squares = sigma**2 * (score - target).double().square()
    live = torch.ones_like(squares) if counted is None else counted.to(squares.device).expand_as(squares).double()
    live = live.flatten(1)
    counts = live.sum(1)
    return ((live * squares.flatten(1)).sum(1) / counts)[counts > 0]


def _compared(
    table: Float[Tensor, "scores batch"], radii: Sequence[int | None], own: int | None, level: float
) -> Iterator[Measurement]:
    """The student's loss, the filters', and the student's over theirs."""
    loss, linear = table[0], list(table[1:])
    yield Measurement.of("loss", mean(loss), level)
    if not linear:
        return
    pairs = zip(linear, radii, strict=True)
    within = [row for row, radius in pairs if own is None or (radius is not None and radius <= own)]
    least, best = (min(rows, key=lambda row: float(row.mean())) for rows in (within, linear))
    yield Measurement.of("null", mean(linear[0]), level)
    yield Measurement.of("linear", mean(least), level)
    yield Measurement.of("best", mean(best), level)
    yield Measurement.of("excess", mean(loss - least), level)
    yield Measurement.of("excess_best", mean(loss - best), level)
