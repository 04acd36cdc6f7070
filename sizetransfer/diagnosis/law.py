r"""Second moments of a law on a torus, exact or estimated, and what a filter of a radius makes of them in closed form.

A translation-invariant filter is :math:`\hat s_k = -a_k(v)\,x_k`. Against the score :math:`-(c_k + v)^{-1} x_k` of a
Gaussian field of spectrum c its relative error is

.. math:: e^2 = \frac{\sum_k \mathrm{tr}\,(a_k - b_k)\,(c_k + v)\,(a_k - b_k)^\dagger}{\sum_k \mathrm{tr}\,b_k},
   \qquad b_k = (c_k + v)^{-1},

and what it generates is that of :mod:`sizetransfer.scores.references.consequence`. For a Gaussian teacher all is exact.
For another law the same formulas with its estimated spectrum hold to second order; standard errors are then by the
jackknife over parts of the fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Graph, Lattice
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import Context, HasCovariance, Sample, Teacher, draw_fields
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import NoiseSchedule
from sizetransfer.diagnosis.question import PredictionSpec
from sizetransfer.numerics.statistics import jackknife_variance
from sizetransfer.scores.references import consequence, estimate_moments, exact_moments
from sizetransfer.scores.references.consequence import gain, generated_spectrum, spectrum
from sizetransfer.scores.references.filters import LinearFilter
from sizetransfer.scores.references.moments import GraphMoments, TorusMoments
from sizetransfer.verdict import LawChange

PARTS = 8
"""Parts of the fields that the jackknife leaves out in turn."""
RANGE = 10.0
"""The reverse process starts at a noise variance of so many times the largest eigenvalue of the covariance."""


@dataclass(frozen=True, eq=False)
class Law:
    """Second moments of the fields of one torus.

    Attributes:
        size: as for :meth:`sizetransfer.contracts.oracle.Teacher.sample`.
        versions: the moments of all fields, then those without each part of them; exact ones have no other version.
    """

    size: int
    versions: tuple[TorusMoments, ...]

    @property
    def exact(self) -> bool:
        """Whether nothing about it is estimated."""
        return len(self.versions) == 1

    @property
    def moments(self) -> TorusMoments:
        """Those of all fields."""
        return self.versions[0]

    @cached_property
    def spectrum(self) -> Float[Tensor, "waves channels channels"]:
        """Covariance of every wave."""
        return spectrum(self.moments)

    @cached_property
    def site_deviation(self) -> float:
        """Standard deviation of a site."""
        return math.sqrt(marginals(self.moments)[0])

    @cached_property
    def sigma_needed(self) -> float:
        """Noise level at which the reverse process has to start."""
        return math.sqrt(RANGE * float(torch.linalg.eigvalsh(self.spectrum).max()))

    @property
    def correlation_squared(self) -> Quantity:
        r"""Squared second-moment length, :math:`(S(0)/S(k_\mathrm{min}) - 1) / (4\sin^2(\pi/L))`."""
        scale = 4 * math.sin(math.pi / self.size) ** 2

        def squared(moments: TorusMoments) -> list[float]:
            _, _, zero, smallest = marginals(moments)
            return [(zero / smallest - 1) / scale]

        return estimated(squared, self)[0]


def exact_law(teacher: Teacher, size: int) -> Law | None:
    """The law of a Gaussian teacher on a torus; none for another one."""
    if not isinstance(teacher, HasCovariance) or not is_torus(teacher.domain(size)):
        return None
    moments = exact_moments(teacher, size)
    return Law(size, (_on_processor(moments),)) if isinstance(moments, TorusMoments) else None


def estimated_law(sample: Sample, size: int) -> Law | None:
    """The law of these fields, by the classes of their sites where those alternate; none where they fill no torus."""
    if not is_torus(sample.context.domain) or sample.context.mask is not None:
        return None
    count = len(sample.x)
    kept = [torch.arange(count), *(torch.arange(count)[torch.arange(count) % PARTS != part] for part in range(PARTS))]
    classes = _alternating(sample)
    found = [estimate_moments(_rows(sample, rows, classes), None) for rows in kept]
    return Law(size, tuple(one for one in found if isinstance(one, TorusMoments)))


def _alternating(sample: Sample) -> bool:
    """Whether the conditions are those of small cells that repeat, in all fields."""
    found = estimate_moments(sample, 0)
    return isinstance(found, TorusMoments) and found.alternate


def fields_of(teacher: Teacher, size: int, spec: PredictionSpec) -> Sample:
    """Independent fields from which filters and the law are estimated."""
    with torch.no_grad():
        return draw_fields(teacher, spec.reference_fields, size, generator=stream(spec.seed, "law", size))


def is_torus(domain: Domain) -> bool:
    """Whether every axis is closed."""
    return isinstance(domain, Lattice) and all(domain.closed_axes)


def _rows(sample: Sample, rows: Tensor, classes: bool) -> Sample:
    rows, condition = rows.to(sample.x.device), sample.context.condition
    kept = condition[rows] if classes and condition is not None else None
    return Sample(sample.x[rows], Context(sample.context.domain, condition=kept))


def _on_processor(moments: TorusMoments) -> TorusMoments:
    parts = (moments.products, moments.means, moments.values, moments.labels)
    return TorusMoments(*(part.cpu() for part in parts))


# --- numbers ----------------------------------------------------------------------------------------------------------


def estimated(function: Callable[..., Sequence[float]], *laws: Law) -> list[Quantity]:
    """Functions of the moments of some laws, with their standard errors: exact where all the laws are.

    Args:
        function: of as many :class:`TorusMoments` as there are laws.
        laws: independent of each other.
    """
    moments = [law.moments for law in laws]
    values = np.array(function(*moments), dtype=np.float64)
    if all(law.exact for law in laws):
        return [Quantity(float(value)) for value in values]
    variance = np.zeros_like(values)
    for place, law in enumerate(laws):
        left_out = law.versions[1:]
        found = np.array([function(*moments[:place], one, *moments[place + 1 :]) for one in left_out])
        if len(found):
            variance += jackknife_variance(found)
    errors = np.sqrt(variance)
    return [Quantity.estimated(float(value), float(error), PARTS) for value, error in zip(values, errors, strict=True)]


def marginals(moments: TorusMoments) -> tuple[float, float, float, float]:
    """Variance of a site, covariance of nearest neighbours, S(0) and S(k_min): means over channels and axes."""
    return consequence.marginals(spectrum(moments), moments.cells)


def ratios(found: Sequence[float], exact: Sequence[float]) -> list[float]:
    """Site variance, nearest covariance and S(0) over those that they should be."""
    return list(consequence.ratios(found[:3], exact[:3]))


def change(training: Law, larger: Law) -> LawChange:
    """How the law itself changes from the training size to a larger one."""
    found = estimated(lambda before, after: ratios(marginals(after), marginals(before)), training, larger)
    return LawChange(larger.size, *found)


Gain = Callable[[Tensor], Tensor]
"""Takes a noise variance to the factors a_k of every wave."""


def filter_error(linear: LinearFilter, law: Law, sigma: float) -> Quantity:
    """Relative error of a filter against the score of a Gaussian law, at one noise level."""
    v = torch.tensor(sigma**2, dtype=torch.float64)
    noisy = law.spectrum + v * torch.eye(law.spectrum.shape[-1], dtype=law.spectrum.dtype)
    exact = torch.linalg.inv(noisy)
    off = gain(linear, v, law.moments.cells).to(noisy) - exact
    wrong = (off @ noisy @ off.mH).diagonal(dim1=1, dim2=2).real.sum()
    return Quantity(math.sqrt(max(float(wrong / exact.diagonal(dim1=1, dim2=2).real.sum()), 0.0)))


def generated_ratios(fitted: TorusMoments, law: TorusMoments, radius: int | None, noise: NoiseSchedule) -> list[float]:
    """Generated over exact site variance, nearest covariance and S(0), of the best filter for the moments ``fitted``.

    Args:
        fitted: moments that the filter is the best one of.
        law: moments of the law, at the size that it runs on.
        radius: of the filter.
        noise: range of the reverse process.
    """
    linear = fitted.filter(radius)
    return ratios_of(lambda v: gain(linear, v, law.cells), law, noise)


def ratios_of(a: Gain, law: TorusMoments, noise: NoiseSchedule, step: float = consequence.STEP) -> list[float]:
    """The same for any linear score."""
    exact = spectrum(law)
    made = generated_spectrum(a, exact, noise, step=step)
    return ratios(consequence.marginals(made, law.cells), consequence.marginals(exact, law.cells))


# --- graphs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class GraphLaw:
    """Second moments of a Gaussian field on one graph, exact.

    Attributes:
        size: number of sites.
        moments: the moments.
    """

    size: int
    moments: GraphMoments

    @cached_property
    def marginals(self) -> tuple[float, float, float]:
        """Variance of a site, covariance along an edge and S(0): means over sites, edges and channels."""
        covariance = self.moments.covariance.diagonal(dim1=0, dim2=2).mean(-1)
        first, second = self.moments.graph.directed_edges
        nearest = float(covariance[first, second].mean()) if len(first) else 0.0
        return float(covariance.diagonal().mean()), nearest, float(covariance.sum() / len(covariance))

    @property
    def site_deviation(self) -> float:
        """Standard deviation of a site."""
        return math.sqrt(self.marginals[0])

    @cached_property
    def sigma_needed(self) -> float:
        """Noise level at which the reverse process has to start."""
        size = self.moments.covariance.shape[0] * self.moments.covariance.shape[1]
        return math.sqrt(RANGE * float(torch.linalg.eigvalsh(self.moments.covariance.reshape(size, size)).max()))

    def error(self, radius: int | None, sigma: float) -> Quantity:
        """Relative error of the best filter of so many hops on this graph."""
        whole = float(self.moments.filter(None).power(sigma**2).mean())
        share = 1 - float(self.moments.filter(radius).power(sigma**2).mean()) / whole
        return Quantity(math.sqrt(max(share, 0.0)))


def graph_law(teacher: Teacher, size: int) -> GraphLaw | None:
    """The law of a Gaussian teacher on a graph; none for another one, or where the graph is too large."""
    if not isinstance(teacher, HasCovariance) or not isinstance(teacher.domain(size), Graph):
        return None
    try:
        moments = exact_moments(teacher, size)
    except OracleError:
        return None
    if not isinstance(moments, GraphMoments):
        return None
    return GraphLaw(size, GraphMoments(moments.graph, moments.means.cpu(), moments.covariance.cpu()))


def graph_change(training: GraphLaw, larger: GraphLaw) -> LawChange:
    """How the law itself changes from one graph to another."""
    found = ratios(larger.marginals, training.marginals)
    return LawChange(larger.size, *(Quantity(one) for one in found))
