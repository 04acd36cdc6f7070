r"""Error of a student's score of noisy fields against the exact one, noise level by noise level.

.. math:: e_L(\sigma) = \sqrt{\frac{E\,\|s_\theta(x_\sigma, \sigma) - s_\sigma(x_\sigma)\|^2}
   {E\,\|s_\sigma(x_\sigma)\|^2}}, \qquad x_\sigma = x_0 + \sigma\xi,\quad x_0 \sim p_L

It is the error of what the student was trained for, with no floor: a perfect student has none. The clean score's error
(paper eq. (16), :mod:`sizetransfer.measures.clean_score`) is its limit of small noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import HasReach, HasSmoothedScore, Sample, Teacher, draw_fields
from sizetransfer.contracts.parts import Part, relative_error
from sizetransfer.contracts.randomness import batches
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.statistics import root_ratio
from sizetransfer.scores.response import require_finite, student_score

NoiseLevel = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SmoothedScoreSpec(MeasureSpec):
    """Relative root-mean-square error of the score of noisy fields, for teachers that know it exactly.

    Part ``relative_rmse``, with the noise level as coordinate. Errors are over independent fields.
    """

    kind: Literal["smoothed-score"] = "smoothed-score"
    requires: ClassVar[tuple[type, ...]] = (HasSmoothedScore,)
    without_effect: ClassVar[frozenset[str]] = frozenset({"batch"})
    parts: ClassVar[Mapping[str, Part]] = {
        "relative_rmse": relative_error("relative RMSE of the smoothed score", "noise"),
    }
    sigmas: tuple[NoiseLevel, ...] = Field((0.1, 0.3, 1.0), min_length=1, description="noise levels")
    fields: int = Field(16, ge=2, description="independent fields at each size and noise level")
    batch: int = Field(8, ge=1, description="fields evaluated at a time; bounds the memory")

    def check(self, teacher: Teacher, size: int) -> None:
        """Refuse sizes beyond the teacher's oracles."""
        if isinstance(teacher, HasReach):
            teacher.check_reach(size, min(self.batch, self.fields))

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`."""
        for level in self.sigmas:
            squared = [
                _squared(teacher, student, draw_fields(teacher, batch, size, generator=generator), level, generator)
                for batch, generator in batches(self.fields, self.batch, seed, "smoothed-score", size, repr(level))
            ]
            error, score = require_finite(torch.cat(squared, dim=1), f"smoothed-score at size {size}")
            yield Measurement.of("relative_rmse", root_ratio(error, score), level)


def _squared(
    teacher: Teacher, student: Student, sample: Sample, sigma: float, generator: torch.Generator
) -> Float[Tensor, "2 batch"]:
    """Mean squares over live components of the error and of the exact score, for each field."""
    levels = sample.x.new_full((len(sample.x),), sigma)
    x, _ = perturb(sample.x, levels, generator=generator)
    mask = sample.context.mask
    if mask is not None:
        x = torch.where(mask, x, sample.x)
    with torch.no_grad():
        exact = cast(HasSmoothedScore, teacher).smoothed_score(x, levels, sample.context)
        estimate = student_score(student, sigma, sample.context)(x)
    live = torch.ones_like(x) if mask is None else mask.expand_as(x)
    counts = live.flatten(1).sum(1)
    return torch.stack([(live * v.square()).flatten(1).sum(1) / counts for v in (estimate - exact, exact)])
