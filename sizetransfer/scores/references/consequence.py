r"""What a linear score generates on a torus, in closed form.

A translation-invariant linear score is :math:`\hat s_k = -a_k(v)\,x_k` for every wave vector, and the reverse
stochastic differential equation in the variance clock takes the variance of a wave to

.. math:: \frac{dP_k}{d\ln v} = v\,(a_k P_k + P_k a_k^T - 1)

(between channels, and between the sites of a cell where sites are of several classes, matrices; for one channel of
sites that are alike :math:`v(2 a_k P_k - 1)`), from :math:`P_k = c_k + v_{max}`, the exact noisy
field, or from a sampler's own start, down to :math:`v_{min}`. The exact score :math:`a_k = (c_k + v)^{-1}` keeps
:math:`P_k = c_k + v` on the way; at the end :math:`v_{min}` is taken off, so that the clean spectrum is c where the
score is right. Two scores of one radius, and two questions: the best of the lattice itself, and the one fitted on a
smaller lattice, as a student is, and run there.

The integral is by Runge and Kutta's fourth order in ln v.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import Teacher
from sizetransfer.contracts.specs import NoiseSchedule
from sizetransfer.scores.references.cells import Cells
from sizetransfer.scores.references.filters import LinearFilter
from sizetransfer.scores.references.moments import TorusMoments, exact_moments

STEP = 0.05
"""Largest step of the integral, in ln v."""
COARSE_STEP = 0.2
"""The same where the moments are estimated; it changes ratios by less than 1e-4."""
UNCORRELATED = 0.05
"""Below this share of the site variance, errors of the covariance of neighbours are relative to that variance."""


@dataclass(frozen=True)
class Consequence:
    """Second moments of generated fields and of the law, and with them their ratios.

    Attributes:
        size: sites along each axis.
        radius: of the score; none: the whole lattice.
        fitted: size of the lattice whose best score it is.
        generated, exact: variance of a site, covariance of nearest neighbours, S(0) and S(k_min), in this order; means
            over channels and axes.
    """

    size: int
    radius: int | None
    fitted: int
    generated: tuple[float, float, float, float]
    exact: tuple[float, float, float, float]

    @property
    def variance(self) -> float:
        """Generated over exact variance of a site."""
        return self.generated[0] / self.exact[0]

    @property
    def nearest(self) -> float:
        """Generated over exact covariance of nearest neighbours."""
        return self.generated[1] / self.exact[1]

    @property
    def zero_mode(self) -> float:
        """Generated over exact S(0)."""
        return self.generated[2] / self.exact[2]

    @property
    def smallest_wave(self) -> float:
        """Generated over exact S(k_min)."""
        return self.generated[3] / self.exact[3]


def consequence(
    teacher: Teacher,
    size: int,
    radius: int | None,
    *,
    noise: NoiseSchedule,
    fitted: int | None = None,
    start: Callable[[Tensor], Tensor] | None = None,
) -> Consequence:
    """What the best score of a radius of a Gaussian teacher generates.

    Args:
        teacher: knows its covariance.
        size: of the generated lattice.
        radius: of the score; none: the whole lattice.
        noise: range of the integral.
        fitted: size of the lattice whose best score it is; by default ``size``.
        start: takes the exact noisy spectrum at ``sigma_max`` to that of the start; by default it is exact.

    Raises:
        OracleError: the teacher does not know its covariance, or does not live on a torus.
    """
    moments = _torus(teacher, size)
    law, cells = spectrum(moments), moments.cells
    local = _torus(teacher, fitted or size).filter(radius)
    end = generated_spectrum(lambda v: gain(local, v, cells), law, noise, start=start)
    return Consequence(size, radius, fitted or size, marginals(end, cells), marginals(law, cells))


def _torus(teacher: Teacher, size: int) -> TorusMoments:
    moments = exact_moments(teacher, size)
    if not isinstance(moments, TorusMoments):
        raise OracleError(
            "What a linear score generates has a closed form on a torus.",
            where="consequence, teacher",
            expected="a teacher on a torus",
            got=type(teacher).__name__,
            fix="generate fields and measure them",
        )
    return moments


def spectrum(moments: TorusMoments) -> Float[Tensor, "waves m m"]:
    """The covariance of every wave as :meth:`.Cells.matrices` orders it: complex128."""
    return moments.cells.matrices(moments.products.flatten(3))


def gain(linear: LinearFilter, v: Tensor, cells: Cells) -> Float[Tensor, "waves m m"]:
    """The factor ``a(v)`` of a filter of one class or of those of the cells, on a torus of any size; as above."""
    weights = linear.weights(v)
    flat = torch.zeros_like(linear.steps[:, 0])
    for length, axis in zip(cells.shape, linear.steps.T, strict=True):
        flat = flat * length + axis % length
    kernel = weights.new_zeros(*weights.shape[:3], math.prod(cells.shape)).index_add(-1, flat, weights)
    return -cells.matrices(kernel)


def generated_spectrum(
    a: Callable[[Tensor], Tensor],
    law: Float[Tensor, "waves m m"],
    noise: NoiseSchedule,
    *,
    start: Callable[[Tensor], Tensor] | None = None,
    step: float = STEP,
) -> Float[Tensor, "waves m m"]:
    """Integrate the equation above from the largest noise to the smallest.

    Args:
        a: takes a noise variance, of shape ``()``, to the factors of the score.
        law: clean covariance of every wave.
        noise: range of the integral.
        start: takes the exact noisy spectrum at ``sigma_max`` to that of the start; by default it is exact.
        step: the largest, in ln v.

    Returns:
        The covariance of every wave at ``sigma_min``, less that noise.
    """
    unit = torch.eye(law.shape[-1], dtype=law.dtype)
    top, bottom = 2 * math.log(noise.sigma_max), 2 * math.log(noise.sigma_min)
    steps = math.ceil((top - bottom) / step)
    h = (bottom - top) / steps
    P = law + math.exp(top) * unit
    P = P if start is None else start(P)

    def rate(t: float, factors: Tensor, P: Tensor) -> Tensor:
        half = factors @ P  # P is Hermitian
        return math.exp(t) * (half + half.mH - unit)

    now = a(torch.tensor(math.exp(top), dtype=torch.float64)).to(law.dtype)
    for index in range(steps):
        t = top + index * h
        middle, following = (a(torch.tensor(math.exp(t + d), dtype=torch.float64)).to(law.dtype) for d in (h / 2, h))
        k1 = rate(t, now, P)
        k2 = rate(t + h / 2, middle, P + h / 2 * k1)
        k3 = rate(t + h / 2, middle, P + h / 2 * k2)
        k4 = rate(t + h, following, P + h * k3)
        P, now = P + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), following
    return P - math.exp(bottom) * unit


def marginals(law: Tensor, cells: Cells) -> tuple[float, float, float, float]:
    """Variance of a site, covariance of nearest neighbours, S(0) and S(k_min): means over sites, channels and axes."""
    covariance = cells.mean_table(law).diagonal(dim1=0, dim2=1).mean(-1)
    waves = torch.fft.fftn(covariance).real
    axes = [tuple(int(axis == other) for other in range(waves.ndim)) for axis in range(waves.ndim)]
    nearest, smallest = (sum(float(table[axis]) for axis in axes) / len(axes) for table in (covariance, waves))
    return float(covariance.flatten()[0]), nearest, float(waves.flatten()[0]), smallest


def ratios(found: Sequence[float], exact: Sequence[float]) -> tuple[float, ...]:
    """Marginals over those that they should be.

    Where neighbours are nearly uncorrelated, the ratio of their covariances is ``1 + (found - exact) / variance``.
    """
    uncorrelated = abs(exact[1]) < UNCORRELATED * exact[0]
    nearest = 1 + (found[1] - exact[1]) / exact[0] if uncorrelated else found[1] / exact[1]
    others = [one / other for one, other in zip(found[2:], exact[2:], strict=True)]
    return (found[0] / exact[0], nearest, *others)
