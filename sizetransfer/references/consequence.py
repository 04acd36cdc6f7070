r"""What a linear score generates on a torus, in closed form.

A translation-invariant linear score is :math:`\hat s_k = -a_k(v)\,x_k` for every wave vector, and the reverse
stochastic differential equation in the variance clock takes the variance of a wave to

.. math:: \frac{dP_k}{d\ln v} = v\,(a_k P_k + P_k a_k^T - 1)

(between channels matrices; for one channel :math:`v(2 a_k P_k - 1)`), from :math:`P_k = c_k + v_{max}`, the exact noisy
field, or from a sampler's own start, down to :math:`v_{min}`. The exact score :math:`a_k = (c_k + v)^{-1}` keeps
:math:`P_k = c_k + v` on the way; at the end :math:`v_{min}` is taken off, so that the clean spectrum is c where the
score is right. Two scores of one radius, and two questions: the best of the lattice itself, and the one fitted on a
smaller lattice, as a student is, and run there.

The integral is by Runge and Kutta's fourth order in ln v.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.errors import OracleError
from sizetransfer.oracle import Teacher
from sizetransfer.references.filters import LinearFilter
from sizetransfer.references.moments import TorusMoments, exact_moments
from sizetransfer.specs import NoiseSchedule

STEP = 0.05
"""Largest step of the integral, in ln v."""


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
    law = spectrum(_torus(teacher, size))
    local = _torus(teacher, fitted or size).filter(radius)
    shape = teacher.domain(size).shape
    end = generated_spectrum(lambda v: gain(local, v, shape), law, noise, start=start)
    return Consequence(size, radius, fitted or size, marginals(end, shape), marginals(law, shape))


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


def spectrum(moments: TorusMoments) -> Float[Tensor, "waves channels channels"]:
    """The covariance of every wave, in the order of the flattened grid of ``torch.fft.fftn``: complex128.

    Raises:
        OracleError: sites are of several classes, so that the covariance mixes waves.
    """
    if len(moments.products) > 1:
        raise OracleError(
            "A law whose sites are of several classes has no spectrum.",
            where="consequence, moments",
            expected="one class of sites",
            got=str(len(moments.products)),
            fix="estimate the moments without the condition: Sight(condition=False)",
        )
    products = moments.products[0]
    waves: Tensor = torch.fft.fftn(products, dim=tuple(range(2, products.ndim))).flatten(2)
    return waves.permute(2, 0, 1)


def gain(linear: LinearFilter, v: Tensor, shape: tuple[int, ...]) -> Float[Tensor, "waves channels channels"]:
    """The factor ``a_k(v)`` of a filter, its kernel placed on a torus of any shape; as for :func:`spectrum`."""
    weights = linear.weights(v)[0]
    flat = torch.zeros_like(linear.steps[:, 0])
    for length, axis in zip(shape, linear.steps.T, strict=True):
        flat = flat * length + axis % length
    kernel = weights.new_zeros(*weights.shape[:2], math.prod(shape)).index_add(-1, flat, weights)
    waves: Tensor = torch.fft.fftn(torch.unflatten(kernel, -1, shape), dim=tuple(range(2, 2 + len(shape))))
    return -waves.conj().flatten(2).permute(2, 0, 1)


def generated_spectrum(
    a: Callable[[Tensor], Tensor],
    law: Float[Tensor, "waves channels channels"],
    noise: NoiseSchedule,
    *,
    start: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "waves channels channels"]:
    """Integrate the equation above from the largest noise to the smallest.

    Args:
        a: takes a noise variance, of shape ``()``, to the factors of the score.
        law: clean covariance of every wave.
        noise: range of the integral.
        start: takes the exact noisy spectrum at ``sigma_max`` to that of the start; by default it is exact.

    Returns:
        The covariance of every wave at ``sigma_min``, less that noise.
    """
    unit = torch.eye(law.shape[-1], dtype=law.dtype)
    top, bottom = 2 * math.log(noise.sigma_max), 2 * math.log(noise.sigma_min)
    steps = math.ceil((top - bottom) / STEP)
    h = (bottom - top) / steps
    P = law + math.exp(top) * unit
    P = P if start is None else start(P)

    def rate(t: float, factors: Tensor, P: Tensor) -> Tensor:
        return math.exp(t) * (factors @ P + P @ factors.mH - unit)

    now = a(torch.tensor(math.exp(top), dtype=torch.float64)).to(law.dtype)
    for step in range(steps):
        t = top + step * h
        middle, following = (a(torch.tensor(math.exp(t + d), dtype=torch.float64)).to(law.dtype) for d in (h / 2, h))
        k1 = rate(t, now, P)
        k2 = rate(t + h / 2, middle, P + h / 2 * k1)
        k3 = rate(t + h / 2, middle, P + h / 2 * k2)
        k4 = rate(t + h, following, P + h * k3)
        P, now = P + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), following
    return P - math.exp(bottom) * unit


def marginals(law: Tensor, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Variance of a site, covariance of nearest neighbours, S(0) and S(k_min): means over channels and axes."""
    trace = torch.unflatten(law.diagonal(dim1=1, dim2=2).real.mean(1), 0, shape)
    waves = torch.fft.ifftn(trace).real
    axes = [tuple(int(axis == other) for other in range(len(shape))) for axis in range(len(shape))]
    nearest = sum(float(waves[axis]) for axis in axes) / len(axes)
    smallest = sum(float(trace[axis]) for axis in axes) / len(axes)
    return float(waves.flatten()[0]), nearest, float(trace.flatten()[0]), smallest
