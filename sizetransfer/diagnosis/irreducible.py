r"""The best score of a radius, and the error that no training removes.

For a Gaussian field, exactly:

.. math:: g_r = [(C+v)^{-1}]_{ii} - [(C+v)_{BB}^{-1}]_{ii}

relative to the exact score, :math:`\sqrt{g_r / [(C+v)^{-1}]_{ii}}` (:mod:`sizetransfer.numerics.gaussian`).

For a teacher that knows the posterior of a site given a ball (Ising), as a mean over noisy fields:

.. math:: \sqrt{\frac{E\,(E[X_{0i}|x_B] - E[X_{0i}|x])^2}{E\,(E[X_{0i}|x] - x_i)^2}}
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand, perturb
from sizetransfer.contracts.oracle import (
    Context,
    HasCovariance,
    HasLocalPosterior,
    HasPosterior,
    Sample,
    Teacher,
    draw_fields,
)
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.student import Student
from sizetransfer.diagnosis.question import PredictionSpec
from sizetransfer.diagnosis.targets import Target
from sizetransfer.numerics.statistics import jackknife, root_ratio
from sizetransfer.scores.references.best_filter import BestFilter, best_filter
from sizetransfer.scores.response import reference_sites

# Components of the largest ball that is diagonalised without being asked: about two seconds.
LARGEST_BALL = 2048
ROUNDING = 256 * torch.finfo(torch.float64).eps
"""What rounding may leave of the relative squared error."""


class ErrorSource(Protocol):
    """Irreducible relative errors by radius at one size and noise level; none where they are not known."""

    def relative_error(self, radius: int | None) -> Quantity | None:
        """Of the best score of a radius; ``None`` is a global one."""
        ...

    def sufficient_radius(self, tolerance: float, largest: int) -> Quantity | None:
        """Smallest radius whose irreducible error is at most ``tolerance``, up to the domain's largest distance."""
        ...


class BestScores(Student):
    """The best score of each radius on the domain of one size; as a student, that of ``radius``.

    Args:
        teacher: a Gaussian law.
        size: as for :meth:`sizetransfer.contracts.oracle.Teacher.sample`.
        radius: receptive radius of the student.
    """

    def __init__(self, teacher: Teacher, size: int, radius: int | None) -> None:
        super().__init__(teacher.field, radius=radius)
        if not isinstance(teacher, HasCovariance):
            raise OracleError(
                "The best local score is known for Gaussian fields only.",
                where=type(teacher).__name__,
                expected="the capability HasCovariance",
                fix="choose a Gaussian teacher",
            )
        self.domain = teacher.domain(size)
        self._covariance = partial(teacher.covariance, size)
        self._filters: dict[int, BestFilter] = {}

    def filter(self, radius: int) -> BestFilter | None:
        """The filter of a radius; none where its ball is too large."""
        centre = (0,) * len(self.domain.shape)
        components = int(self.domain.ball(centre, radius).sum()) * self.field.channels
        if components > LARGEST_BALL:
            return None
        if radius not in self._filters:
            self._filters[radius] = best_filter(self.domain, radius, self._covariance)
        return self._filters[radius]

    def relative_error(self, radius: int | None, sigma: float, power: float) -> Quantity | None:
        """Irreducible relative error of a radius; ``power`` is the mean square of the exact score's components."""
        if radius is None:
            return Quantity(0.0)
        best = self.filter(radius)
        if best is None:
            return None
        share = 1 - float(best.power(torch.tensor([sigma], dtype=torch.float64))) / power
        # A difference of nearly equal numbers: where the ball holds all that matters, nothing but rounding is left.
        value = math.sqrt(share) if share > ROUNDING else 0.0
        return Quantity(value, ROUNDING / (2 * value) if value else math.sqrt(ROUNDING))

    def sufficient_radius(self, tolerance: float, sigma: float, power: float, largest: int) -> Quantity | None:
        """Smallest radius whose irreducible error is at most ``tolerance``; none where balls become too large."""
        for radius in range(largest + 1):
            error = self.relative_error(radius, sigma, power)
            if error is None:
                return None
            if error.value <= tolerance:
                return Quantity(float(radius))
        return Quantity(float(largest))

    def at(self, sigma: float, power: float) -> ErrorSource:
        """The errors at one noise level; ``power`` is the mean square of the exact score's components."""
        return _GaussianErrors(self, sigma, power)

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        """Score of the student's radius."""
        best = None if self.radius is None else self.filter(self.radius)
        if best is None:
            raise OracleError(
                "The ball of the radius is too large for the best score.",
                where=f"radius {self.radius}",
                expected=f"at most {LARGEST_BALL} components",
                fix="lower the radius",
            )
        return best.score(x, sigma)


@dataclass(frozen=True)
class _GaussianErrors:
    best: BestScores
    sigma: float
    power: float

    def relative_error(self, radius: int | None) -> Quantity | None:
        return self.best.relative_error(radius, self.sigma, self.power)

    def sufficient_radius(self, tolerance: float, largest: int) -> Quantity | None:
        return self.best.sufficient_radius(tolerance, self.sigma, self.power, largest)


SITES = 200
"""Sites of a small domain, divided by its own, that stand for each one asked for: small ones are cheap."""


class EstimatedErrors:
    """Irreducible errors of a teacher that knows local posteriors, from noisy fields and reference sites.

    Args:
        teacher: with the capabilities ``HasPosterior`` and ``HasLocalPosterior``.
        size: as for :meth:`sizetransfer.contracts.oracle.Teacher.sample`.
        sigma: noise level.
        spec: numbers of fields and sites, and the seed.
    """

    def __init__(self, teacher: Teacher, size: int, sigma: float, spec: PredictionSpec) -> None:
        generator = stream(spec.seed, "irreducible", size, repr(sigma))
        sample = draw_fields(teacher, spec.fields, size, generator=generator)
        self.levels = sample.x.new_full((spec.fields,), sigma)
        self.x, _ = perturb(sample.x, self.levels, generator=generator)
        self.teacher, self.context = teacher, sample.context
        domain = sample.context.domain
        several = spec.sites * max(1, SITES // domain.sites)
        self.sites = reference_sites(domain, min(several, domain.sites))
        self.mean = cast(HasPosterior, teacher).posterior_mean(self.x, self.levels, sample.context)
        self._squares: dict[int, Tensor] = {}
        self._power = self._over_sites([_at(self.mean - self.x, site) for site in self.sites])

    @property
    def target(self) -> Target:
        """The same noisy fields with their exact score."""
        score = (self.mean - self.x) / expand(self.levels.square(), self.x)
        return Target(Sample(self.x, self.context), float(self.levels[0]), score)

    @property
    def count(self) -> int:
        """Pairs of a noisy field and a site that the numbers rest on; errors count the fields alone."""
        return len(self.x) * len(self.sites)

    def relative_error(self, radius: int | None) -> Quantity | None:
        """Irreducible relative error of a radius."""
        if radius is None:
            return Quantity(0.0)
        return root_ratio(self._squared(radius), self._power)

    def sufficient_radius(self, tolerance: float, largest: int) -> Quantity | None:
        """Smallest radius whose estimated error is at most ``tolerance``."""
        table = [self._power]
        for radius in range(largest + 1):
            table.append(self._squared(radius))
            error = root_ratio(table[-1], self._power)
            # Left-out fields may need a larger radius than all together.
            if error.value + 3 * error.error <= tolerance:
                break

        def smallest(rows: Tensor) -> float:
            power, *squared = rows.sum(0)
            enough = [float(value) <= tolerance**2 * float(power) for value in squared]
            return float(enough.index(True) if True in enough else len(enough))

        return jackknife(smallest, torch.stack(table, dim=1))

    def _squared(self, radius: int) -> Float[Tensor, "fields"]:
        """Squared error of the posterior mean given the ball, a mean over sites."""
        if radius not in self._squares:
            self._squares[radius] = self._over_sites([self._gap(site, radius) for site in self.sites])
        return self._squares[radius]

    def _gap(self, site: Site, radius: int) -> Float[Tensor, "fields channels"]:
        exact = _at(self.mean, site)
        if radius >= int(self.context.domain.distance(site).max()):
            return torch.zeros_like(exact)  # the ball is everything
        oracle = cast(HasLocalPosterior, self.teacher)
        return oracle.local_posterior_mean(self.x, self.levels, self.context, site, radius) - exact

    def _over_sites(self, values: list[Tensor]) -> Float[Tensor, "fields"]:
        return torch.stack(values).double().square().mean((0, 2))


def _at(fields: Tensor, site: Site) -> Float[Tensor, "fields channels"]:
    index: tuple[Any, ...] = (..., *site)
    return fields[index]


def error_source(
    teacher: Teacher, best: BestScores | None, size: int, sigma: float, power: float | None, spec: PredictionSpec
) -> ErrorSource | None:
    """The best that the teacher knows of irreducible errors: exact, estimated, or nothing."""
    if best is not None and power is not None:
        return best.at(sigma, power)
    known = isinstance(teacher, HasPosterior) and isinstance(teacher, HasLocalPosterior)
    return EstimatedErrors(teacher, size, sigma, spec) if known and sigma > 0 else None
