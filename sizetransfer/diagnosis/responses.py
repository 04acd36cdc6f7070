r"""The response of a teacher's score at one size and noise level, by shells of distance.

With :math:`J_{ij} = v^{-2}\,\mathrm{Cov}(X_{0i}, X_{0j}|x) - v^{-1}\delta_{ij}` (paper eq. (9)), from the best source
that the teacher has:

- a Gaussian law: J is the same for every x, one row tells all: **exact**;
- a known posterior: rows of (9) at noisy fields, an **estimate** over fields;
- posterior sampling (:mod:`sizetransfer.scores.posterior`), where it is asked for, or the teacher is known by an energy
  of local terms: the range of its clean score is that of the terms, by construction, and says nothing: an estimate;
- otherwise the *clean* score's Jacobian rows, an estimate over fields, labelled with sigma = 0.

Squares are summed with the site itself, absolute values without it for ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Graph, Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand, perturb
from sizetransfer.contracts.oracle import (
    Context,
    HasCovariance,
    HasDensity,
    HasEnergy,
    HasLatent,
    HasPosterior,
    HasScore,
    Sample,
    Teacher,
    draw_fields,
)
from sizetransfer.contracts.quantity import Kind, Quantity
from sizetransfer.contracts.randomness import stream
from sizetransfer.diagnosis.question import PredictionSpec
from sizetransfer.diagnosis.targets import Target
from sizetransfer.numerics.shells import mean_of_ragged, range_of, shell_sums
from sizetransfer.numerics.statistics import jackknife
from sizetransfer.scores.posterior import sample_posterior
from sizetransfer.scores.response import (
    jacobian_row,
    reference_sites,
    require_finite,
    teacher_score,
)

Source = Literal["gaussian", "posterior", "sampled", "clean"]


def source_of(teacher: Teacher, *, sample: bool) -> Source:
    """Where the response of this teacher comes from.

    Raises:
        OracleError: it knows neither a posterior nor a clean score, and its posterior cannot be sampled.
    """
    if isinstance(teacher, HasPosterior):
        return "gaussian" if isinstance(teacher, HasCovariance) else "posterior"
    if isinstance(teacher, HasEnergy) or (sample and isinstance(teacher, HasDensity | HasLatent)):
        return "sampled"
    if isinstance(teacher, HasScore) and not sample:
        return "clean"
    samples = teacher.independent_fields(1) is not None  # finitely many of a size, if any
    raise OracleError(
        "The teacher's response is not known.",
        where=type(teacher).__name__,
        expected="HasPosterior or HasScore; with posterior sampling HasDensity, HasEnergy or HasLatent",
        got="none of these" + (": it has samples alone" if samples else ""),
        fix="diagnose the samples: sizetransfer diagnose --data FILE, or diagnose(data=...)"
        if samples
        else "choose another teacher, or turn posterior sampling on or off",
    )


@dataclass(frozen=True)
class Response:
    """Jacobian rows summed over shells, for independent fields.

    Attributes:
        absolute: sums of ``|J_ij|`` over the shell at each distance, a mean over reference sites, ``(F, D)``.
        squared: sums of ``J_ij**2``, likewise.
        kind: ``exact`` where one row is every row, else ``estimate``.
        power: mean square of a component of the score on noisy fields, ``-J_ii``; none where it is not exact.
        target: the noisy fields with their scores, where posteriors were sampled.
    """

    absolute: Float[Tensor, "fields distances"]
    squared: Float[Tensor, "fields distances"]
    kind: Kind
    power: float | None = None
    target: Target | None = None

    @property
    def largest(self) -> int:
        """The largest distance."""
        return self.squared.shape[1] - 1

    def effective_range(self, epsilon: float) -> Quantity:
        """R_eps (paper eq. (5)), from the mean tails over fields."""
        return self._estimated(partial(range_of, epsilon=epsilon), self.absolute)

    def outside(self, radius: int | None) -> Quantity:
        """Share of the squared response outside ``radius``."""
        return self._estimated(partial(outside_share, radius=radius), self.squared)

    def outside_error(self, radius: int | None) -> Quantity:
        """Its square root: the relative error that it costs for white inputs."""
        return self._estimated(lambda table: outside_share(table, radius) ** 0.5, self.squared)

    def covering(self, share: float) -> Quantity:
        """Smallest radius within which that share of the squared response lies."""
        return self._estimated(partial(covering_radius, share=share), self.squared)

    def _estimated(self, statistic: Callable[[Tensor], float], table: Tensor) -> Quantity:
        if self.kind == "exact":
            return Quantity(statistic(table))
        return jackknife(statistic, table)


def outside_share(squared: Tensor, radius: int | None) -> float:
    """Share of the pooled squared response outside ``radius``; squares from samples may be below zero."""
    if radius is None:
        return 0.0
    pooled = squared.sum(0)
    return min(1.0, max(0.0, float(pooled[radius + 1 :].sum() / pooled.sum())))


def covering_radius(squared: Tensor, share: float) -> float:
    """Smallest radius within which ``share`` of the pooled squared response lies."""
    pooled = squared.sum(0)
    # What lies outside is summed from far to near, so that small shares keep their digits.
    beyond = pooled.flip(0).cumsum(0).flip(0)
    outside = torch.cat([beyond[1:], beyond.new_zeros(1)]) / beyond[0]
    return float((outside <= 1 - share).to(torch.int64).argmax())


def response(teacher: Teacher, size: int, sigma: float, spec: PredictionSpec) -> Response:
    """The response at one size and noise level; ``sigma`` 0 for the clean score."""
    source = source_of(teacher, sample=spec.sample)
    if source == "gaussian":
        return _gaussian(teacher, size, sigma)
    generator = stream(spec.seed, "prediction", size, repr(sigma))
    sample = draw_fields(teacher, spec.fields, size, generator=generator)
    sites = reference_sites(sample.context.domain, spec.sites)
    if source == "clean":
        return _clean(teacher, sample, sites)
    levels = sample.x.new_full((spec.fields,), sigma)
    x, _ = perturb(sample.x, levels, generator=generator)
    if source == "sampled":
        drawn = sample_posterior(teacher, x, levels, sample.context, generator=generator)
        found, score = drawn.responses(sites), drawn.score()
        target = Target(sample.with_x(x), sigma, score.value, score.standard_error)
        return Response(found.shells(), found.squared_shells(), "estimate", target=target)
    oracle = cast(HasPosterior, teacher)
    rows = [
        jacobian_from_covariance(oracle.posterior_covariance(x, levels, sample.context, site), levels, site)
        for site in sites
    ]
    return _tables(rows, sites, sample.context.domain, "estimate")


def jacobian_from_covariance(covariance: Tensor, sigma: Tensor, site: Site) -> Tensor:
    """Row ``v^-2 Cov - v^-1 delta`` at ``site`` from posterior covariances ``(B, C, C, *S)`` (paper eq. (9))."""
    v = sigma.double().square()
    rows = covariance.double() / expand(v, covariance).double() ** 2
    channels = torch.arange(covariance.shape[1])
    index: tuple[Any, ...] = (slice(None), channels, channels, *site)
    rows[index] -= (1 / v)[:, None]
    return rows


def _gaussian(teacher: Teacher, size: int, sigma: float) -> Response:
    domain, channels = teacher.domain(size), teacher.field.channels
    # All sites of a torus are alike; those of a graph are not.
    sites = [(site,) for site in range(domain.sites)] if isinstance(domain, Graph) else [(0,) * teacher.field.dim]
    x = torch.zeros(1, channels, *domain.shape, dtype=torch.float64)
    level, oracle, context = x.new_full((1,), sigma), cast(HasPosterior, teacher), Context(domain)
    rows = [
        jacobian_from_covariance(oracle.posterior_covariance(x, level, context, site), level, site) for site in sites
    ]
    power = -sum(
        float(row[(0, channel, channel, *site)])
        for row, site in zip(rows, sites, strict=True)
        for channel in range(channels)
    )
    return _tables(rows, sites, domain, "exact", power / (len(sites) * channels))


def _clean(teacher: Teacher, sample: Sample, sites: Sequence[Site]) -> Response:
    score = teacher_score(teacher, sample)
    rows = [
        torch.stack([jacobian_row(score, sample.x, site, channel) for channel in range(sample.x.shape[1])], 1)
        for site in sites
    ]
    return _tables(rows, sites, sample.context.domain, "estimate")


def _tables(
    rows: list[Tensor], sites: Sequence[Site], domain: Domain, kind: Kind, power: float | None = None
) -> Response:
    squares = [require_finite(row.double(), f"response at {domain.shape}").square().sum((1, 2)) for row in rows]
    squared = [shell_sums(square, domain, site) for square, site in zip(squares, sites, strict=True)]
    absolute = [shell_sums(square.sqrt(), domain, site) for square, site in zip(squares, sites, strict=True)]
    return Response(mean_of_ragged(absolute), mean_of_ragged(squared), kind, power)
