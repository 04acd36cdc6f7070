r"""Gaussian reverse processes by dense algebra: the truth, and every ingredient of Theorem 1, step by step.

A field N(0, C) on a small torus, :math:`C^{-1} = (m^2 + \Lambda)/\text{scale}`, and a learned score

.. math:: \hat s_v(x) = -(1 + g)\,[(C+v)^{-1}]_r\,x + \frac{b}{1+v},

with the kernel cut off outside radius r, a relative error g and a bias b. In the variance clock :math:`\tau = v_x - v`
and with :math:`\gamma = (1+\lambda^2)/2`, all processes are Gaussian, of mean :math:`\mu` and covariance P:

- continuous, :math:`\mu' = \gamma(\hat A\mu - \beta)`, :math:`P' = \gamma(\hat AP + P\hat A) - \lambda^2`: solved by an
  adaptive Runge–Kutta method in ln v;
- Euler and ancestral steps :math:`X' = TX + b + n\xi`.

The shipped :func:`~sizetransfer.theorem1.gaussian_theorem1` works in Fourier space with collocation; nothing but the
distance between two Gaussians is common to both. The ingredients are kept apart, so that a careless version of the
bound is a sum with one of them changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.theorem1 import Enclosure, FieldLaw, LinearScore, Theorem1, gaussian_distance, gaussian_theorem1
from sizetransfer_verification.theorem.claim import Configuration
from sizetransfer_verification.theorem.line import Array

Sampler = Literal["continuous", "euler", "ancestral"]
NODES = 8
"""Gauss–Legendre nodes for each factor of two of the variance."""


@dataclass(frozen=True)
class GaussianConfiguration(Configuration):
    """A Gaussian field, a learned linear score and a reverse process.

    Attributes:
        shape: sites along each axis of the torus.
        mass: m, the inverse correlation length.
        scale: of the covariance.
        patch: the sites A.
        vm: last variance.
        vx: first variance.
        churn: lambda.
        sampler: the continuous process, or steps of that kind.
        steps: their number, equally spaced in ln v.
        start: the learned process starts from the exact law of variance vx, or from N(0, vx).
        bias: b, added to the score.
        gain: g, the relative error of the score.
        radius: r, beyond which the kernel is cut off; none for the whole of it.
    """

    family: ClassVar[str] = "gaussian"

    shape: tuple[int, ...] = (3,)
    mass: float = 1.0
    scale: float = 1.0
    patch: tuple[tuple[int, ...], ...] = ((0,),)
    vm: float = 0.1
    vx: float = 1.0
    churn: float = 1.0
    sampler: Sampler = "euler"
    steps: int = 1
    start: Literal["exact", "white"] = "exact"
    bias: float = 0.0
    gain: float = 0.0
    radius: int | None = None

    @property
    def sites(self) -> int:
        """Number of sites."""
        return math.prod(self.shape)

    @cached_property
    def covariance(self) -> Array:
        """C, between all sites."""
        one = np.eye(self.sites).reshape(self.sites, *self.shape)
        precision = self.mass**2 * one
        for axis in range(1, len(self.shape) + 1):
            precision = precision + 2 * one - np.roll(one, 1, axis) - np.roll(one, -1, axis)
        covariance: Array = (self.scale * np.linalg.inv(precision.reshape(self.sites, self.sites))).astype(np.float64)
        return covariance

    @cached_property
    def _modes(self) -> tuple[Array, Array]:
        values, vectors = np.linalg.eigh(self.covariance)
        return values, vectors

    def function(self, values: Array) -> Array:
        """The function of C with these eigenvalues, in the order of :attr:`eigenvalues`."""
        vectors = self._modes[1]
        matrix: Array = (vectors * values) @ vectors.T
        return matrix

    @property
    def eigenvalues(self) -> Array:
        """Eigenvalues of C."""
        return self._modes[0]

    @cached_property
    def seen(self) -> Array:
        """One where the learned score of a site may look, between all sites."""
        if self.radius is None:
            return np.ones((self.sites, self.sites))
        lattice = Lattice(self.shape)
        rows = [lattice.ball(site, self.radius).flatten().numpy() for site in np.ndindex(*self.shape)]
        return np.stack(rows).astype(float)

    def exact(self, v: float) -> Array:
        """Matrix of the exact score, ``(C + v)^-1``."""
        return self.function(1 / (self.eigenvalues + v))

    def truncated(self, v: float) -> Array:
        """The same, cut off outside the radius."""
        return self.exact(v) * self.seen

    def learned(self, v: float) -> Array:
        """Matrix of the learned score."""
        return (1 + self.gain) * self.truncated(v)

    def bias_at(self, v: float) -> Array:
        """Bias of the learned score, the same at every site."""
        return np.full(self.sites, self.bias / (1 + v))

    @property
    def gamma(self) -> float:
        """Factor of the score in the drift."""
        return 0.5 * (1 + self.churn**2)

    def levels(self) -> Array:
        """Variances of the steps."""
        return np.geomspace(self.vx, self.vm, self.steps + 1)

    def places(self) -> list[int]:
        """The patch as indices of sites."""
        return [int(np.ravel_multi_index(site, self.shape)) for site in self.patch]

    def contraction(self, v: float, last: float, churn: float) -> Array:
        """Mean of an exact step, as a matrix."""
        c = self.eigenvalues
        return self.function(((c + last) / (c + v)) ** (0.5 * (1 + churn**2)))

    def residual(self, v: float, last: float, churn: float) -> Array:
        """Eigenvalues of the covariance of an exact step."""
        c = self.eigenvalues
        spread: Array = -(c + last) * np.expm1(churn**2 * np.log((c + last) / (c + v)))
        return spread

    def shipped(self) -> Theorem1:
        """Theorem 1 as :mod:`sizetransfer.theorem1` computes it."""
        spectrum = self._spectrum(self.covariance[0])
        start = spectrum + self.vx if self.start == "exact" else torch.full_like(spectrum, self.vx)
        score = LinearScore(
            lambda v: torch.stack([self._spectrum(self.learned(float(level))[0]) for level in v]),
            lambda v: torch.stack([torch.from_numpy(self.bias_at(float(level))).reshape(self.shape) for level in v]),
        )
        return gaussian_theorem1(
            spectrum,
            score,
            patch=self.patch,
            vm=self.vm,
            vx=self.vx,
            churn=self.churn,
            start=FieldLaw(start),
            sampler=self.sampler,
            levels=None if self.sampler == "continuous" else torch.from_numpy(self.levels()),
        )

    def _spectrum(self, row: Array) -> Tensor:
        return torch.from_numpy(np.fft.fftn(row.reshape(self.shape)).real.copy())


@dataclass(frozen=True)
class Errors:
    """Drift errors at one level or step, at every site: what a bound sums.

    Attributes:
        weight: length in clock time for the continuous process, else one.
        influence: weights, ``(N,)``.
        mean: mean of the error.
        transfer: variance of the error that comes from the drift.
        noise: variance of the error that comes from unequal noises.
    """

    weight: float
    influence: Array
    mean: Array
    transfer: Array
    noise: Array

    def cost(self) -> float:
        """Weighted sum of the mean absolute errors."""
        return self.weight * float(self.influence @ mean_absolute(self.mean, self.transfer + self.noise))


def mean_absolute(mean: Array, variance: Array) -> Array:
    """E|N(mean, variance)|."""
    std = np.sqrt(np.maximum(variance, 1e-300))
    gaussian = std * math.sqrt(2 / math.pi) * np.exp(-0.5 * (mean / std) ** 2)
    from scipy.special import erf

    value: Array = gaussian + np.abs(mean) * erf(np.abs(mean) / (std * math.sqrt(2)))
    return value


@dataclass(frozen=True)
class Process:
    """The learned process of a configuration, solved.

    Attributes:
        configuration: its numbers.
        reference: what the errors are measured against: the exact score, or the exact one cut off at the radius.
        churn: of the weights, the exact step and the length of a step; none for the configuration's own.
        on_learned_law: whether errors are averaged over the learned law, else over the exact one.
    """

    configuration: GaussianConfiguration
    reference: Literal["exact", "truncated"] = "exact"
    churn: float | None = None
    on_learned_law: bool = True

    @property
    def _churn(self) -> float:
        return self.configuration.churn if self.churn is None else self.churn

    def influence(self, v: float) -> Array:
        r"""Weights :math:`|K_{A,i}|\,\mathrm{erf}(1/(\sqrt2s))` of all sites at variance v (see the core's module)."""
        one, churn, places = self.configuration, self._churn, self.configuration.places()
        rows = one.contraction(v, one.vm, churn)[places]
        weights: Array = np.linalg.norm(rows, axis=0)
        if v <= one.vm or churn == 0:
            return weights
        covariance = one.function(one.residual(v, one.vm, churn))[np.ix_(places, places)]
        directions = rows / np.maximum(weights, 1e-300)
        precision = (directions * np.linalg.solve(covariance, directions)).sum(0)
        from scipy.special import erf

        bounded: Array = weights * erf(np.sqrt(0.5 * precision))
        return bounded

    @cached_property
    def _solved(self) -> tuple[list[Errors], Array, Array]:
        steps = self._passages() if self.configuration.sampler == "continuous" else self._steps()
        errors: list[Errors] = []
        for found, mean, covariance in steps:
            errors += [] if found is None else [found]
            end = mean, covariance
        return errors, *end

    @property
    def errors(self) -> list[Errors]:
        """Errors at every level or step."""
        return self._solved[0]

    def drift(self) -> float:
        """The weighted drift error, epsilon."""
        return sum(errors.cost() for errors in self.errors)

    def _start(self) -> tuple[Array, Array]:
        one = self.configuration
        noise = one.vx * np.eye(one.sites)
        return np.zeros(one.sites), noise + (one.covariance if one.start == "exact" else 0.0)

    def _law(self, v: float, mean: Array, covariance: Array) -> tuple[Array, Array]:
        one = self.configuration
        if self.on_learned_law:
            return mean, covariance
        return np.zeros(one.sites), one.covariance + v * np.eye(one.sites)

    def _passages(self) -> Iterator[tuple[Errors | None, Array, Array]]:
        one, size = self.configuration, self.configuration.sites
        panels = max(2, math.ceil(math.log2(one.vx / one.vm)))
        edges = np.linspace(math.log(one.vx), math.log(one.vm), panels + 1)
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        half = 0.5 * (edges[1] - edges[0])
        times = (edges[:-1, None] + half * (nodes + 1)).ravel()
        lengths = np.tile(-half * weights, panels) * np.exp(times)

        def slope(time: float, state: Array) -> Array:
            v = math.exp(time)
            a, mean, covariance = one.learned(v), state[:size], state[size:].reshape(size, size)
            grown = a @ covariance
            spread = one.gamma * (grown + grown.T) - one.churn**2 * np.eye(size)
            return v * np.concatenate([one.gamma * (a @ mean - one.bias_at(v)), spread.ravel()])

        mean, covariance = self._start()
        state = np.concatenate([mean, covariance.ravel()])
        span, where = (edges[0], edges[-1]), np.append(times, edges[-1])
        from scipy.integrate import solve_ivp

        solution = solve_ivp(slope, span, state, method="DOP853", t_eval=where, rtol=1e-10, atol=1e-13)
        factor = 0.5 * (1 + self._churn**2)
        for n, time in enumerate(times):
            v, mean, covariance = math.exp(time), solution.y[:size, n], solution.y[size:, n].reshape(size, size)
            found = self._drift_errors(v, factor * float(lengths[n]), *self._law(v, mean, covariance))
            yield found, mean, covariance
        yield None, solution.y[:size, -1], solution.y[size:, -1].reshape(size, size)

    def _drift_errors(self, v: float, weight: float, mean: Array, covariance: Array) -> Errors:
        one = self.configuration
        right = one.exact(v) if self.reference == "exact" else one.truncated(v)
        wrong = right - one.learned(v)
        transfer = np.einsum("ij,jk,ik->i", wrong, covariance, wrong)
        return Errors(weight, self.influence(v), wrong @ mean + one.bias_at(v), transfer, np.zeros(one.sites))

    def _steps(self) -> Iterator[tuple[Errors | None, Array, Array]]:
        one, levels = self.configuration, self.configuration.levels()
        mean, covariance = self._start()
        for v, after in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
            length, noise = _step_lengths(one, v, after)
            transfer, shift = np.eye(one.sites) - length * one.learned(v), length * one.bias_at(v)
            found = self._step_errors(v, after, transfer, shift, noise, *self._law(v, mean, covariance))
            mean = transfer @ mean + shift
            covariance = transfer @ covariance @ transfer.T + noise**2 * np.eye(one.sites)
            yield found, mean, covariance

    def _step_errors(
        self, v: float, after: float, transfer: Array, shift: Array, noise: float, mean: Array, covariance: Array
    ) -> Errors:
        one, churn = self.configuration, self._churn
        right = one.contraction(v, after, churn)
        if self.reference == "truncated":
            right = right + _step_lengths(one, v, after)[0] * (one.exact(v) - one.truncated(v))
        wrong = transfer - right
        apart = one.function((noise - np.sqrt(one.residual(v, after, churn))) ** 2)
        spread = np.einsum("ij,jk,ik->i", wrong, covariance, wrong)
        return Errors(1.0, self.influence(after), wrong @ mean + shift, spread, np.diag(apart))

    def truth(self, noise: float | None = None) -> Enclosure:
        """Distance of the learned law of the patch from that of the field with noise vm, or with another noise."""
        one, places = self.configuration, self.configuration.places()
        _, mean, covariance = self._solved
        level = one.vm if noise is None else noise
        right = one.covariance + level * np.eye(one.sites)
        return _distance((mean, covariance), (np.zeros(one.sites), right), places)

    def initial(self) -> Enclosure:
        """The initial error, delta_ini."""
        one, (mean, start) = self.configuration, self._start()
        if one.start == "exact":
            return Enclosure(0.0, 0.0)
        kernel = one.contraction(one.vx, one.vm, one.churn)
        reached = kernel @ start @ kernel.T + one.function(one.residual(one.vx, one.vm, one.churn))
        right = one.covariance + one.vm * np.eye(one.sites)
        return _distance((mean, reached), (mean, right), one.places())


def _step_lengths(one: GaussianConfiguration, v: float, after: float) -> tuple[float, float]:
    """Factor of the score, and deviation of the noise, of a step."""
    if one.sampler == "euler":
        return one.gamma * (v - after), one.churn * math.sqrt(v - after)
    added = one.churn**2 * (v - after) * after / v
    return v * (1 - math.sqrt(max(0.0, after - added) / v)), math.sqrt(added)


def _distance(first: tuple[Array, Array], second: tuple[Array, Array], places: list[int]) -> Enclosure:
    block = np.ix_(places, places)
    laws = [(torch.tensor(m[places]), torch.tensor(0.5 * (c + c.T)[block])) for m, c in (first, second)]
    return gaussian_distance(*laws)
