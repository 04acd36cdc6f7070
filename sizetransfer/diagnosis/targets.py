"""Noisy fields with their exact scores, or scores from sampled posteriors, and the errors of other scores on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from sizetransfer.contracts.noise import expand, perturb
from sizetransfer.contracts.oracle import Context, HasPosterior, HasScore, Sample, Teacher, draw_fields
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.randomness import stream
from sizetransfer.diagnosis.question import PredictionSpec
from sizetransfer.numerics.statistics import root_ratio
from sizetransfer.scores.references.errors import squared_errors

CLEAN_FIELDS = 64
"""At least so many fields are taken where a score costs one call: a clean one."""

Score = Callable[[Tensor, Tensor, Context], Tensor]
"""Takes fields, noise levels and context to a score."""


@dataclass(frozen=True, eq=False)
class Target:
    """Fields at one noise level and size with the score that others are compared with, a tensor with its errors.

    Attributes:
        sample: the fields, noisy where ``sigma`` is not zero.
        sigma: noise level; zero for the clean score.
        score: like ``sample.x``.
        standard_error: of a score from sampled posteriors; none for an exact one.
    """

    sample: Sample
    sigma: float
    score: Tensor
    standard_error: Tensor | None = None

    def error_of(self, score: Score) -> Quantity:
        """Relative error of a score, with the sums of every field; what the target's own noise adds is taken off."""
        x, context = self.sample.x, self.sample.context
        with torch.no_grad():
            found = score(x, x.new_full((len(x),), self.sigma), context.to(x))
        squares = squared_errors(found.to(self.score), self.score, context)
        if self.standard_error is not None:
            squares = squares - squared_errors(self.standard_error, 0 * self.standard_error, context)[0]
        name = f"fields at {context.domain.shape}, sigma {self.sigma:g}"
        return root_ratio(squares[0].tolist(), squares[1].tolist(), fields=name)


def clean_target(teacher: Teacher, size: int, spec: PredictionSpec) -> Target:
    """Clean fields and the clean score."""
    generator = stream(spec.seed, "prediction, clean score", size)
    with torch.no_grad():
        sample = draw_fields(teacher, max(CLEAN_FIELDS, spec.fields), size, generator=generator)
    parts = [sample.rows(slice(start, start + CLEAN_FIELDS)) for start in range(0, len(sample.x), CLEAN_FIELDS)]
    score = torch.cat([cast(HasScore, teacher).score(part).detach() for part in parts])
    return Target(sample, 0.0, score)


def posterior_target(teacher: Teacher, size: int, sigma: float, spec: PredictionSpec) -> Target:
    """Noisy fields and the score of the known posterior, ``(E[X_0|x] - x) / v`` (paper eq. (7))."""
    generator = stream(spec.seed, "prediction, score", size, repr(sigma))
    with torch.no_grad():
        sample = draw_fields(teacher, spec.fields, size, generator=generator)
        levels = sample.x.new_full((spec.fields,), sigma)
        x, _ = perturb(sample.x, levels, generator=generator)
        mean = cast(HasPosterior, teacher).posterior_mean(x, levels, sample.context)
    return Target(sample.with_x(x), sigma, (mean - x) / expand(levels.square(), x))
