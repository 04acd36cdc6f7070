r"""What a student generates, forecast to second order from its own answers to exact noisy fields.

At noise levels from the training's largest to its smallest the student is asked for the score of exact noisy fields;
its best linear approximation there (:mod:`sizetransfer.scores.references.approximation`), with the classes of
alternating sites apart, takes the law's second moments through the reverse process
(:mod:`sizetransfer.scores.references.consequence`). Between the levels it is the exact linear score plus the difference
from it, multiplied by v and taken linearly in :math:`\ln v`. It starts from exact noisy fields at the training's
largest noise. For linear students of Gaussian fields it is what they generate; a wrong gain, a wrong range or a student
that did not learn at large noise are seen in it, which errors at noise levels up to the site deviation do not show. A
rollout, :mod:`sizetransfer.measures.generation`, is the generation itself and costs a hundred times as much.

Fields are left out in parts, of the law and of the student's answers together; values are corrected by that jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import Teacher, draw_fields
from sizetransfer.contracts.parts import Part, generated
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.randomness import batches, stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import Geometry, MeasureSpec, NoiseSchedule, TrainingSpec
from sizetransfer.contracts.student import Student
from sizetransfer.measures.periodic_law import EVERYTHING, LawQuestion, alternates, fingerprint, periodic_moments
from sizetransfer.numerics.statistics import jackknifed
from sizetransfer.scores.references.approximation import ResponseMoments
from sizetransfer.scores.references.cells import Cells
from sizetransfer.scores.references.consequence import COARSE_STEP, generated_spectrum, marginals, ratios, spectrum
from sizetransfer.scores.references.moments import TorusMoments
from sizetransfer.scores.response import require_finite, student_score

FORECAST = ("forecast_site_variance", "forecast_nearest", "forecast_zero_mode", "forecast_smallest_wave")
"""Generated over exact statistics, in the order of :func:`sizetransfer.scores.references.consequence.marginals`."""

SPACING = 0.7
"""Of the noise levels, in ln v, at most."""


class SecondOrderForecastSpec(MeasureSpec):
    """What the student generates by its best linear approximation, on tori whose sites are alike or alternate.

    Parts: generated over exact ``forecast_site_variance``, ``forecast_nearest``, ``forecast_zero_mode`` and
    ``forecast_smallest_wave``; ``remainder``, by noise level, the part of the student's score that is not linear.
    """

    kind: Literal["second-order-forecast"] = "second-order-forecast"
    geometries: ClassVar[tuple[Geometry, ...]] = ("lattice",)
    takes_masks: ClassVar[bool] = False
    without_effect: ClassVar[frozenset[str]] = frozenset({"batch"})
    parts: ClassVar[Mapping[str, Part]] = {
        **dict(zip(FORECAST, generated("forecast", "what the student generates, forecast,").values(), strict=True)),
        "remainder": Part("evidence", "part of the student's score that is not linear", "noise", "relative"),
    }
    fields: int = Field(32, ge=8, description="noisy fields at each level; a multiple of folds")
    law_fields: int = Field(256, ge=8, description="fields that the law is estimated from; Gaussian ones are known")
    folds: int = Field(8, ge=2, description="parts of the fields, left out in turn for the errors")
    batch: int = Field(8, ge=1, description="fields evaluated at a time; bounds the memory")
    noise: NoiseSchedule | None = Field(None, description="noise levels of the reverse process; none: training's")

    def draws(self) -> int:
        """Noisy fields, and fields that the law is estimated from; they may be the same ones."""
        return max(self.fields, self.law_fields)

    def for_training(self, training: TrainingSpec) -> MeasureSpec:
        """With the noise levels of the training."""
        return self.model_copy(update={"noise": self.noise or training.noise})

    def check(self, teacher: Teacher, size: int) -> None:
        """Refuse fields that have no second moments by cells."""
        question = self._law(teacher, size)
        alternating = False
        if question.torus:
            with torch.no_grad():
                alternating = alternates(draw_fields(teacher, 2, size, generator=stream("forecast", "check", size)))
        if not alternating:
            raise OracleError(
                "The forecast to second order is there for tori whose sites are alike, or alternate in small cells.",
                where=f"second-order-forecast, size {size}",
                expected="a torus without conditions, or with the same alternating ones in all fields",
                got=f"{type(teacher).__name__} on {teacher.domain(size)}",
                fix="generate fields: kind generation",
            )

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`."""
        laws = periodic_moments(self._law(teacher, size))
        if not laws:
            self.check(teacher, size)
        noise = self.noise or NoiseSchedule()
        levels = _levels(noise)
        parts = [self._answers(teacher, student, size, level, seed, laws[0].cells) for level in levels]
        radius = student.radius
        gains = [[one.gain(radius) for one in _with_and_without(answers)] for answers in parts]
        for level, answers, found in zip(levels, parts, gains, strict=True):
            left = [one.remainder(g) for one, g in zip(_with_and_without(answers), found, strict=True)]
            yield Measurement.of("remainder", _corrected(left, self.fields), level)
        rows = [
            _generated(law, levels, [one[version] for one in gains], noise)
            for version, law in enumerate(_with_and_without_law(laws, self.folds))
        ]
        for part, values in zip(FORECAST, zip(*rows, strict=True), strict=True):
            yield Measurement.of(part, _corrected(values, self.folds))

    def _law(self, teacher: Teacher, size: int) -> LawQuestion:
        return LawQuestion(fingerprint(teacher, size), size, self.law_fields, self.folds, 0, EVERYTHING, teacher)

    def _answers(
        self, teacher: Teacher, student: Student, size: int, level: float, seed: int, cells: Cells
    ) -> list[ResponseMoments]:
        """Moments of the student's answers in every part of the fields."""
        fields, scores = [], []
        for count, generator in batches(self.fields, self.batch, seed, "second-order-forecast", size, repr(level)):
            sample = draw_fields(teacher, count, size, generator=generator)
            x, _ = perturb(sample.x, sample.x.new_full((count,), level), generator=generator)
            with torch.no_grad():
                scores.append(student_score(student, level, sample.context)(x).cpu())
            fields.append(x.cpu())
        x, score = torch.cat(fields), require_finite(torch.cat(scores), f"second-order-forecast at size {size}")
        return [
            ResponseMoments.of(some, answer, cells)
            for some, answer in zip(x.chunk(self.folds), score.chunk(self.folds), strict=True)
        ]


def _corrected(values: Sequence[float], n: int) -> Quantity:
    """From the value of all parts and those without each."""
    return jackknifed(torch.tensor(values, dtype=torch.float64), corrected=True, n=n)


def _levels(noise: NoiseSchedule) -> list[float]:
    """From the smallest to the largest."""
    low, high = math.log(noise.sigma_min), math.log(noise.sigma_max)
    count = max(1, math.ceil(2 * (high - low) / SPACING))
    return [math.exp(low + (high - low) * place / count) for place in range(count + 1)]


def _with_and_without(parts: Sequence[ResponseMoments]) -> Iterator[ResponseMoments]:
    """Of all parts, then without each of them."""
    yield ResponseMoments.mean(parts)
    for place in range(len(parts)):
        yield ResponseMoments.mean([part for other, part in enumerate(parts) if other != place])


def _with_and_without_law(laws: Sequence[TorusMoments], folds: int) -> list[TorusMoments]:
    """Of all fields, then without each part of them; exact moments are the same without any."""
    if len(laws) == 1:
        return [laws[0]] * (folds + 1)
    products = torch.stack([law.products for law in laws]).mean(0)
    return [TorusMoments(products, laws[0].means, laws[0].values, laws[0].labels), *laws]


def _generated(
    law: TorusMoments, levels: Sequence[float], gains: Sequence[Tensor], noise: NoiseSchedule
) -> tuple[float, ...]:
    """Generated over exact marginals."""
    exact = spectrum(law)
    end = generated_spectrum(_interpolated(exact, levels, gains), exact, noise, step=COARSE_STEP)
    return ratios(marginals(end, law.cells), marginals(exact, law.cells))


def _interpolated(exact: Tensor, levels: Sequence[float], gains: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    unit = torch.eye(exact.shape[-1], dtype=exact.dtype)

    def linear(v: float) -> Tensor:
        inverse: Tensor = torch.linalg.inv(exact + v * unit)
        return inverse

    nodes = [2 * math.log(level) for level in levels]
    differences = [level**2 * (gain - linear(level**2)) for level, gain in zip(levels, gains, strict=True)]

    def factors(v: Tensor) -> Tensor:
        t = math.log(float(v))
        place = min(max(sum(node <= t for node in nodes) - 1, 0), len(nodes) - 2)
        share = (t - nodes[place]) / (nodes[place + 1] - nodes[place])
        between = (1 - share) * differences[place] + share * differences[place + 1]
        return linear(float(v)) + between / float(v)

    return factors
