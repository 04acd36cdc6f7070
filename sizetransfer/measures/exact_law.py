r"""What is known of a teacher's fields of one size beside a student's: their largest wave, their moments, their score.

White noise of variance :math:`\sigma^2` stands for noisy fields where it hides every wave. The noise that a size needs
is

.. math:: \sigma_{\mathrm{needed}}^2 = 10\,\max_k S(k) ,

with :math:`\max_k S(k)` the largest eigenvalue of the clean fields' covariance: exact for Gaussian fields on a torus,
else the largest structure factor :math:`S(k) = E|\sum_j x_j e^{ikj}|^2 / n` of ``FIELDS`` exact fields, over the n live
sites. This second moment is about zero, where white noise is centred, so that a mean is hidden too; the largest of many
estimates is too large rather than too small. A mean mode of variance :math:`\kappa^2` has the eigenvalue
:math:`L^d\kappa^2`, so that the noise needed grows as :math:`L^{d/2}`. A wave that is left out of the start then
misses at most 1/121 of its variance at the end.

The best known score is the exact smoothed score where the teacher has it within its reach; else the best linear filter
(:mod:`sizetransfer.scores.references`), fitted to the same ``FIELDS`` fields: of the whole torus, or, in boxes and
where sites are dead, of the radius ``RADIUS``, without conditions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import (
    HasCovariance,
    HasReach,
    HasSmoothedScore,
    Sample,
    Teacher,
    draw_fields,
    joined,
)
from sizetransfer.contracts.randomness import batches
from sizetransfer.scores.references import Sight, estimate_moments, exact_moments
from sizetransfer.scores.references.consequence import spectrum
from sizetransfer.scores.references.moments import TorusMoments
from sizetransfer.scores.sampling import Score

FIELDS = 64
"""Exact fields that an unknown spectrum, or a linear filter, is estimated from."""
RADIUS = {1: 4, 2: 4, 3: 2}
"""Of the linear filter where there is none of the whole lattice, by dimension."""
NEEDED = 10.0
"""Variance of the noise that hides a wave, in units of the wave's variance."""


@dataclass(frozen=True)
class ControlScore:
    """The score that takes the student's place.

    Attributes:
        score: of field, noise levels and context.
        exact: whether it is the exact smoothed score; else it is a linear filter.
    """

    score: Score
    exact: bool


class ExactLaw:
    """A teacher's fields of one size.

    Args:
        teacher: on a lattice.
        size: sites along each axis.
        seed: names the stream of the fields that estimates rest on; no other fields are drawn from it.
        batch: fields drawn at a time.
        scores: how many fields a control is asked for the score of; an exact score that is too dear is none.
    """

    def __init__(self, teacher: Teacher, size: int, *, seed: int, batch: int, scores: int = 1) -> None:
        self.teacher, self.size, self.seed, self.batch, self.scores = teacher, size, seed, batch, scores

    @property
    def sites(self) -> int:
        """Sites of the lattice."""
        return self.teacher.domain(self.size).sites

    @functools.cached_property
    def fields(self) -> Sample:
        """Exact fields that estimates rest on."""
        parts = batches(FIELDS, self.batch, self.seed, "generation, law", self.size)
        return joined([draw_fields(self.teacher, count, self.size, generator=own) for count, own in parts])

    @functools.cached_property
    def moments(self) -> TorusMoments | None:
        """The exact covariance of a Gaussian field on a torus."""
        domain = self.teacher.domain(self.size)
        if not isinstance(self.teacher, HasCovariance) or not isinstance(domain, Lattice):
            return None
        found = exact_moments(self.teacher, self.size) if all(domain.closed_axes) else None
        return found if isinstance(found, TorusMoments) else None

    @functools.cached_property
    def needed(self) -> float:
        """Standard deviation of the noise that hides every wave."""
        if self.moments is not None:
            largest = float(torch.linalg.eigvalsh(spectrum(self.moments)).max())
        else:
            largest = float(_structure_factors(self.fields).max())
        return math.sqrt(NEEDED * largest)

    @property
    def centred(self) -> bool:
        """Whether the fields are known to have mean zero."""
        return self.teacher.even or isinstance(self.teacher, HasCovariance)

    @functools.cached_property
    def marginals(self) -> Float[Tensor, "4"] | None:
        """Variance of a site, covariance of neighbours, S(0) and S(k_min) of the clean field, where they are known."""
        if self.moments is None:
            return None
        covariance = self.moments.products[0].diagonal(dim1=0, dim2=1).mean(-1).double()
        waves, steps = torch.fft.fftn(covariance).real, _unit_steps(covariance.ndim)
        values = [covariance.flatten()[0], _mean_at(covariance, steps), waves.flatten()[0], _mean_at(waves, steps)]
        return torch.stack(values)

    @functools.cached_property
    def control(self) -> ControlScore | None:
        """The best known score; none where even a linear filter cannot be fitted."""
        if isinstance(self.teacher, HasSmoothedScore) and self._within_reach():
            return ControlScore(self.teacher.smoothed_score, exact=True)
        for radius, sight in self._filters():
            try:
                fitted = estimate_moments(self.fields, radius, sight=sight).filter(radius)
            except OracleError:
                continue
            return ControlScore(fitted.score, exact=False)
        return None

    def _within_reach(self) -> bool:
        if isinstance(self.teacher, HasReach):
            try:
                self.teacher.check_reach(self.size, self.scores)  # whatever the batch, the same control
            except OracleError:
                return False
        return True

    def _filters(self) -> Iterator[tuple[int | None, Sight]]:
        """Radius and sight of linear filters, the best first."""
        if whole_torus(self.fields):
            yield from ((None, Sight()), (None, Sight(condition=False)))
        yield RADIUS.get(self.teacher.field.dim, 1), Sight(condition=False)


def whole_torus(fields: Sample) -> bool:
    """Whether the fields live on all sites of a torus, so that waves are their normal modes."""
    domain = fields.context.domain
    return isinstance(domain, Lattice) and all(domain.closed_axes) and fields.context.mask is None


def smallest_wave(x: Float[Tensor, "batch channels *size"]) -> Float[Tensor, "batch channels"]:
    """Mean of ``|x_k|^2 / n`` over the smallest wave vectors, one along each axis."""
    factors = (_waves(x) / x[0, 0].numel()).movedim((0, 1), (-2, -1))
    return torch.stack([factors[step] for step in _unit_steps(x.ndim - 2)]).mean(0)


def _structure_factors(fields: Sample) -> Float[Tensor, "channels *size"]:
    """Second moments of every wave about zero, over the live sites."""
    mask, x = fields.context.mask, fields.x.double()
    live = torch.ones_like(x[:, :1]) if mask is None else mask.to(x)
    count = live.flatten(1).sum(1).clamp_min(1).reshape(-1, *[1] * (x.ndim - 1))
    return (_waves(x * live) / count).mean(0)


def _waves(x: Tensor) -> Tensor:
    """``|x_k|^2`` of every wave."""
    waves: Tensor = torch.fft.fftn(x.double(), dim=tuple(range(2, x.ndim)))
    return waves.abs().square()


def _unit_steps(dim: int) -> list[tuple[int, ...]]:
    return [tuple(int(axis == other) for other in range(dim)) for axis in range(dim)]


def _mean_at(values: Tensor, places: list[tuple[int, ...]]) -> Tensor:
    return torch.stack([values[place] for place in places]).mean()
