r"""Held-out denoising loss of a student beside that of linear filters, on the same fields and the same noise.

.. math:: \ell(\sigma) = E\,\sigma^2\,\|s_\theta(x_0 + \sigma\xi, \sigma) + \xi/\sigma\|^2
    = E\,\|\hat x_0 - x_0\|^2/\sigma^2

with means over live components; :math:`\hat x_0 = x + \sigma^2 s_\theta` is the denoised field. It needs no exact
score, so it is what there is of data. The loss itself is mostly noise that no score can remove: what it says lies in
differences. For two scores on the same fields and noise the losses differ, in the mean, by :math:`\sigma^2` times the
difference of their squared errors; so ``excess``, over the best linear filter of the student's radius, is
:math:`\sigma^2 E\|s_\theta - \hat s\|^2` where that filter is the best score of its class, and negative where the
student beats it.

Filters are fitted to the teacher's training fields of the same size, or, where there are none, of the size of training,
and judged on the held-out ones, which are the same for all students, their noise too. What a radius is worth is the
least loss of any radius up to it: balls nest. On lattices with sides, only sites with ``margin`` sites between them and
every side count: in boxes with walls those of the bulk; in crops those from which neither the student nor any of the
filters sees beyond the crop.

Verdicts take these losses for the error of the score where none is known (:mod:`sizetransfer.verdict.losses`).
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

from sizetransfer.contracts.domain import Domain, Graph, Lattice
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand, perturb
from sizetransfer.contracts.oracle import Context, Teacher, draw_fields
from sizetransfer.contracts.parts import Part
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.randomness import batches, stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec, TrainingSpec
from sizetransfer.contracts.student import Student
from sizetransfer.measures.periodic_law import fingerprint
from sizetransfer.measures.smoothed_score import NoiseLevel
from sizetransfer.numerics.statistics import mean
from sizetransfer.scores.references import Sight, estimate_moments
from sizetransfer.scores.references.balls import steps_of
from sizetransfer.scores.references.filters import AnyFilter
from sizetransfer.scores.references.moments import WindowMoments, default_margin
from sizetransfer.scores.response import require_finite, student_score
from sizetransfer.scores.training import check_crop

LARGEST_BALL = 1024
"""Components of the largest ball that a filter is fitted to."""

WORSE = 0.1
"""Error of the score that the filter of a larger ball may have beside a smaller one's and still tell something."""

Loss = Float[Tensor, "batch"]


def _evidence(title: str, name: str) -> Part:
    return Part("evidence", title, "noise", "noise²", lower_is_better=True, serves=f"loss: {name}")


class DenoisingLossSpec(MeasureSpec):
    """Held-out denoising loss, and its excess over linear filters on the same fields and noise; for any teacher.

    Parts, by noise level, in units of the noise's variance: ``loss``; ``null``, ``linear`` and ``best``, of the best
    linear filters of radius 0, of the student's radius and of any; and ``excess`` and ``excess_best``, of the loss over
    the latter two, field by field. Errors are over independent held-out fields. There is no ``linear`` of a radius that
    wraps around the fields, or whose ball has more than ``LARGEST_BALL`` components, and no ``best`` where no larger
    radius than the student's fits, or has too few fields to be fitted to: what is not there is missing, not zero.
    ``margin``, of lattices with sides: sites between those that count and every side.
    """

    kind: Literal["denoising-loss"] = "denoising-loss"
    takes_crops: ClassVar[bool] = True
    without_effect: ClassVar[frozenset[str]] = frozenset({"batch"})
    parts: ClassVar[Mapping[str, Part]] = {
        "loss": Part(
            "error of the denoiser", "denoising loss", "noise", "noise²", lower_is_better=True, serves="loss: student"
        ),
        "null": _evidence("denoising loss of the best filter of radius 0", "null"),
        "linear": _evidence("denoising loss of the best filter of the student's radius", "linear"),
        "best": _evidence("denoising loss of the best filter of any radius", "best"),
        "excess": Part(
            "error of the denoiser", "loss over that of the radius's filter", "noise", "noise²", lower_is_better=True
        ),
        "excess_best": Part(
            "error of the denoiser", "loss over that of any filter", "noise", "noise²", lower_is_better=True
        ),
        "margin": Part("control", "sites between those that count and the sides", unit="lattice steps", known="exact"),
    }
    sigmas: tuple[NoiseLevel, ...] = Field((0.1, 0.3, 1.0), min_length=1, description="noise levels")
    fields: int = Field(64, ge=2, description="independent held-out fields at each size; all levels share them")
    batch: int = Field(16, ge=1, description="fields evaluated at a time; bounds the memory")
    radii: tuple[NonNegativeInt, ...] = Field((1, 2, 4, 8), description="radii of filters beside 0 and the student's")
    reference_fields: int = Field(512, ge=0, description="training fields that filters are fitted to, if so many are")
    fitted: int | None = Field(None, ge=2, description="size of these where there are none of a size; none: training's")

    def for_training(self, training: TrainingSpec) -> MeasureSpec:
        """With the size of the training."""
        return self.model_copy(update={"fitted": self.fitted or training.size})

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
        margin = _margin(teacher.domain(size), student.radius, filters)
        if margin is not None:
            yield Measurement.of("margin", Quantity(float(margin)))
        compared = _Compared(student, filters, margin)
        for level in self.sigmas:
            parts = [
                compared.losses(teacher, size, level, batch, generator)
                for batch, generator in batches(self.fields, self.batch, seed, "denoising-loss", size)
            ]
            table = require_finite(torch.cat(parts, dim=1), f"denoising-loss at size {size}")
            yield from compared.measurements(table, level)

    def _filters(self, teacher: Teacher, student: Student, size: int) -> tuple[AnyFilter, ...]:
        """The filters that can be fitted, by growing radius, the whole domain last."""
        source = teacher.split("training")
        sizes = [size, *([self.fitted] if self.fitted is not None and self.fitted < size else [])]
        counts = {one: _count(source, one, self.reference_fields) for one in sizes}
        fitted = next((one for one in sizes if counts[one] >= 2), None)
        if fitted is None or (fitted != size and teacher.field.geometry == "graph"):
            return ()
        sight = Sight(condition="condition" not in student.ignores, mask="mask" not in student.ignores)
        own = () if student.radius is None else (student.radius,)
        radii = (0, *self.radii)
        return _fitted(_Question(fingerprint(source, fitted), fitted, counts[fitted], radii, own, sight, source))


def _count(source: Teacher, size: int, most: int) -> int:
    """Training fields of a size, ``most`` at most."""
    known = source.independent_fields(size)
    return most if known is None else min(most, known)


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
    radii, domain = _radii(question), teacher.domain(size)
    with torch.no_grad():
        sample = draw_fields(teacher, question.fields, size, generator=stream("denoising-loss", "references", size))
    found = []
    try:
        margin = max(radii) if teacher.field.crop else default_margin(domain)
        moments = estimate_moments(sample, max(radii), sight=question.sight, margin=margin)
        found = [moments.filter(radius) for radius in radii]
        if not isinstance(moments, WindowMoments):
            found.append(moments.filter(None))
    except OracleError:
        pass  # conditions or masks of which there is no filter
    return tuple(found)


def _radii(question: _Question) -> list[int]:
    """Radii that fit: in a crop, up to a quarter or the student's; on a torus, those that do not wrap around it."""
    domain = question.teacher.domain(question.size)
    if isinstance(domain, Graph):
        return sorted({*question.radii, *question.own})
    lattice, channels = cast(Lattice, domain), question.teacher.field.channels
    most = max(*question.own, min(lattice.size) // 4) if lattice.crop else (min(lattice.size) - 1) // 2
    asked = sorted({*question.radii, *question.own})
    fits = [r for r in asked if r <= most and len(steps_of(lattice, r)) * channels <= LARGEST_BALL]
    return fits or [0]


def _margin(domain: Domain, radius: int | None, filters: Sequence[AnyFilter]) -> int | None:
    """Sites between those that count and every side: of the bulk of a box, of all that is seen in a crop; or none."""
    if not isinstance(domain, Lattice) or all(domain.closed_axes):
        return None
    seen = [one for one in (radius, *(one.radius for one in filters)) if one is not None]
    return max(seen) if domain.crop else default_margin(domain)


@dataclass(frozen=True, eq=False)
class _Compared:
    """A student and filters, by growing radius, on the same sites: with a margin, those so far from every side."""

    student: Student
    filters: Sequence[AnyFilter]
    margin: int | None

    def losses(
        self, teacher: Teacher, size: int, sigma: float, batch: int, generator: torch.Generator
    ) -> Float[Tensor, "scores batch"]:
        """Losses of every field: of the student, then of the filters."""
        sample = draw_fields(teacher, batch, size, generator=generator)
        levels = sample.x.new_full((len(sample.x),), sigma)
        x, noise = perturb(sample.x, levels, generator=generator)
        mask = sample.context.mask
        x = x if mask is None else torch.where(mask, x, sample.x)
        with torch.no_grad():
            scores = [student_score(self.student, sigma, sample.context)(x)]
            scores += [one.score(x, levels, sample.context) for one in self.filters]
        target = -noise / expand(levels, noise)
        counted = _counted(sample.context, self.margin)
        return torch.stack([_loss(score, target, sigma, counted) for score in scores])

    def measurements(self, table: Float[Tensor, "scores batch"], level: float) -> Iterator[Measurement]:
        """The student's loss, the filters', and the student's over theirs."""
        loss, own = table[0], self.student.radius
        yield Measurement.of("loss", mean(loss), level)
        rows = list(zip(table[1:], [one.radius for one in self.filters], strict=True))
        if not rows:
            return
        yield Measurement.of("null", mean(rows[0][0]), level)
        within = [row for row, radius in rows if own is None or (radius is not None and radius <= own)]
        known = [radius for _, radius in rows]
        if own is None or own in known:
            yield from _over(loss, within, "linear", "excess", level)
        larger = [row for row, radius in rows if own is not None and (radius is None or radius > own)]
        if own is None or any(_tells(row, within) for row in larger):
            yield from _over(loss, [row for row, _ in rows], "best", "excess_best", level)


def _tells(larger: Loss, within: Sequence[Loss]) -> bool:
    """Whether a larger ball's filter says what the ball is worth: far behind a smaller one's, it had too few fields."""
    least = min(float(row.mean()) for row in within)
    return float(larger.mean()) - least <= WORSE**2 * (1 - least)


def _over(loss: Loss, rows: Sequence[Loss], part: str, excess: str, level: float) -> Iterator[Measurement]:
    """The least loss of some filters, and the student's over it."""
    least = min(rows, key=lambda row: float(row.mean()))
    yield Measurement.of(part, mean(least), level)
    yield Measurement.of(excess, mean(loss - least), level)


def _counted(context: Context, margin: int | None) -> Tensor | None:
    """Live sites that are far enough from every side; none where all sites count."""
    if margin is None:
        return context.mask
    inside = context.domain.bulk(margin)[None, None]
    return inside if context.mask is None else context.mask & inside.to(context.mask.device)


def _loss(score: Tensor, target: Tensor, sigma: float, counted: Tensor | None) -> Loss:
    """Mean over the components that count of the fields that have any, float64."""
    squares = sigma**2 * (score - target).double().square()
    live = torch.ones_like(squares) if counted is None else counted.to(squares.device).expand_as(squares).double()
    live = live.flatten(1)
    counts = live.sum(1)
    return ((live * squares.flatten(1)).sum(1) / counts)[counts > 0]
