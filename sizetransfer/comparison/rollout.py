r"""Reverse processes with linear scores, in closed form: continuous, or in the steps of a sampler.

With eigenvalues :math:`a_k(v)` of the learned score, churn :math:`\lambda` and :math:`\gamma = (1+\lambda^2)/2`:

- continuous, :math:`dX = \gamma\hat s\,d\tau + \lambda\,dB`, :math:`\tau = v_x - v`. Mean and variance of mode k obey
  :math:`\mu' = \gamma(a\mu - \beta)`, :math:`p' = 2\gamma\,\mathrm{Re}(a)\,p - \lambda^2` (derivatives by v), that is,
  below a level t, with :math:`E(v) = \int_v^t a`,

  .. math:: \mu(v) = e^{-\gamma E(v)}\Big[\mu(t) + \gamma\int_v^t e^{\gamma E}\beta\Big],\qquad
     p(v) = e^{-2\gamma\mathrm{Re}E(v)}\Big[p(t) + \lambda^2\int_v^t e^{2\gamma\mathrm{Re}E}\Big];

- in steps, :math:`X' = T X + b + n\,\xi` with spectra T and n, those of :mod:`sizetransfer.sampling`. With
  :math:`D = v - v'`, a and :math:`a'` before and after: Euler :math:`T = 1 - \gamma D a`, :math:`n = \lambda\sqrt D`;
  ancestral :math:`T = 1 - \ell a`, :math:`\ell = v(1-\sqrt{(v'-\eta)/v})`, :math:`n = \sqrt\eta`,
  :math:`\eta = \lambda^2Dv'/v`; Heun :math:`T = 1 - \tfrac{\gamma D}2[a + a'(1-\gamma D a)]`,
  :math:`n = \lambda\sqrt D(1-\tfrac{\gamma D}2a')`.

The integrals are taken panel by panel in ln v by Gauss–Legendre collocation: spectrally accurate for scores that
are smooth in v.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.comparison.linear import FieldLaw, LinearScore
from sizetransfer.comparison.quantities import check_variances
from sizetransfer.comparison.weights import field_of, gamma
from sizetransfer.errors import OracleError

Stepper = Literal["euler", "heun", "ancestral"]
NODES = 12
"""Gauss–Legendre nodes of a panel."""
Affine = tuple[Tensor, Tensor | None]
"""Eigenvalues of a linear score and the Fourier transform of its bias."""


@dataclass(frozen=True)
class Passage:
    """The learned process at the nodes of a panel.

    Attributes:
        v: variances of the nodes, ``(V,)``.
        dv: their quadrature weights.
        score: eigenvalues a of the learned score, ``(V, *S)``.
        bias: Fourier transform of its bias, or none.
        variance: p of the learned process, ``(V, *S)``.
        mean: Fourier transform of its mean, or none.
    """

    v: Float[Tensor, "levels"]
    dv: Float[Tensor, "levels"]
    score: Tensor
    bias: Tensor | None
    variance: Float[Tensor, "levels *size"]
    mean: Tensor | None

    def mean_error(self, exact: Tensor) -> Tensor | None:
        """Mean field of learned minus exact score, ``(V, *S)``, the exact one being of eigenvalues ``-exact``."""
        error = None if self.mean is None else (exact - self.score) * self.mean
        if self.bias is not None:
            error = self.bias if error is None else error + self.bias
        return None if error is None else field_of(error, self.score.ndim - 1)

    def error_std(self, exact: Tensor) -> Tensor:
        """Standard deviation of learned minus exact score at a site, ``(V,)``."""
        return ((exact - self.score).abs().square() * self.variance).flatten(1).mean(1).sqrt()


@dataclass(frozen=True)
class Step:
    """One step ``X' = T X + b + n xi`` of a sampler, and the learned process before it, in Fourier space.

    Attributes:
        v: variance before.
        after: variance after.
        transfer: T, eigenvalues.
        shift: b, Fourier transform, or none.
        noise: n, eigenvalues or one number for all.
        variance: of the modes before the step.
        mean: Fourier transform of the mean before the step, or none.
    """

    v: float
    after: float
    transfer: Tensor
    shift: Tensor | None
    noise: Tensor
    variance: Tensor
    mean: Tensor | None

    @property
    def end(self) -> FieldLaw:
        """Law of the field after the step."""
        variance = self.transfer.abs().square() * self.variance + self.noise.abs().square()
        return FieldLaw(variance, _sum(None if self.mean is None else self.transfer * self.mean, self.shift))

    def error(self, contraction: Tensor, covariance: Tensor) -> tuple[Tensor | None, Tensor]:
        r"""Mean field and standard deviation at a site of this step minus the exact one, from one point and noise.

        The exact step has mean ``contraction`` times the field, and ``covariance``. The law of xi is invariant under
        rotations, so its phase in every mode may be turned to bring the two noises as close as they come.
        """
        wrong = self.transfer - contraction
        mean = _sum(None if self.mean is None else wrong * self.mean, self.shift)
        noise = self.noise.abs() - covariance.sqrt()
        std = (wrong.abs().square() * self.variance + noise.square()).mean().sqrt()
        return None if mean is None else field_of(mean, self.variance.ndim), std


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return first if second is None else second
    return first + second


def _euler(v: float, after: float, churn: float, before: Affine, _: Affine) -> tuple[Tensor, Tensor | None, Tensor]:
    a, bias = before
    length = gamma(churn) * (v - after)
    return 1 - length * a, None if bias is None else length * bias, a.real.new_tensor(churn * math.sqrt(v - after))


def _heun(v: float, after: float, churn: float, before: Affine, then: Affine) -> tuple[Tensor, Tensor | None, Tensor]:
    (a, bias), (a_then, bias_then) = before, then
    half = 0.5 * gamma(churn) * (v - after)
    transfer = 1 - half * (a + a_then * (1 - 2 * half * a))
    shift = None if bias is None or bias_then is None else half * (bias + bias_then - 2 * half * a_then * bias)
    return transfer, shift, churn * math.sqrt(v - after) * (1 - half * a_then)


def _ancestral(v: float, after: float, churn: float, before: Affine, _: Affine) -> tuple[Tensor, Tensor | None, Tensor]:
    a, bias = before
    added = churn**2 * (v - after) * after / v
    if added > after * (1 + 1e-9):
        raise OracleError(
            "The churn is too large for ancestral steps of this length.",
            where="churn",
            expected=f"at most {math.sqrt(v / (v - after)):.4g} for a step from v = {v:.4g} to {after:.4g}",
            got=repr(churn),
            fix="lower the churn, take more steps, or use Euler steps",
        )
    length = v * (1 - math.sqrt(max(0.0, after - added) / v))
    return 1 - length * a, None if bias is None else length * bias, a.real.new_tensor(math.sqrt(added))


STEPPERS: Mapping[Stepper, Callable[..., tuple[Tensor, Tensor | None, Tensor]]] = {
    "euler": _euler,
    "heun": _heun,
    "ancestral": _ancestral,
}


@dataclass(frozen=True)
class Rollout:
    """A learned linear reverse process from variance vx to vm.

    Attributes:
        score: the learned score.
        start: law of the field at vx.
        vm: last variance.
        vx: first variance.
        churn: lambda.
    """

    score: LinearScore
    start: FieldLaw
    vm: float
    vx: float
    churn: float = 1.0

    def __post_init__(self) -> None:
        check_variances(self.vm, self.vx)
        gamma(self.churn)

    def panels(self, count: int) -> Iterator[Passage]:
        """The continuous process at the nodes of ``count`` panels, downwards; last, by itself, at ``vm``."""
        half = 0.5 * math.log(self.vx / self.vm) / count
        nodes, weights, to_top = (t.to(self.start.spectrum.device) for t in _collocation(NODES))
        variance, mean = self.start.spectrum, self.start.mean
        for panel in range(count):
            v = self.vx * torch.exp(half * (nodes - 1 - 2 * panel))
            a = self._spectrum(v)
            bias = self.score.bias_spectrum(v, a)
            # Integrals from each node to the panel's top and, in the last row, over the whole panel.
            integrate = half * v * torch.cat([to_top, weights[None]])
            exponent = _contract(integrate, a)
            p = self._variance(variance, exponent, integrate)
            m = self._mean(mean, exponent, integrate, bias)
            yield Passage(v, half * v * weights, a, bias, p[:-1], None if m is None else m[:-1])
            variance, mean = p[-1], None if m is None else m[-1]
        yield self._end(variance, mean)

    def _spectrum(self, v: Tensor) -> Tensor:
        a, shape = self.score.spectrum(v), self.start.spectrum.shape
        if a.shape != (len(v), *shape):
            raise OracleError(
                "The learned score does not fit the field.",
                where="LinearScore.spectrum",
                expected=f"shape {(len(v), *shape)} for {len(v)} variances",
                got=f"shape {tuple(a.shape)}",
                fix="return one set of eigenvalues for each variance, on the grid of the teacher's spectrum",
            )
        return a

    def _end(self, variance: Tensor, mean: Tensor | None) -> Passage:
        v = variance.new_full((1,), self.vm)
        return Passage(v, 0 * v, 0 * variance[None], None, variance[None], None if mean is None else mean[None])

    def _variance(self, top: Tensor, exponent: Tensor, integrate: Tensor) -> Tensor:
        growth = 2 * gamma(self.churn) * exponent.real
        return torch.exp(-growth) * (top + self.churn**2 * _contract(integrate, torch.exp(growth[:-1])))

    def _mean(self, top: Tensor | None, exponent: Tensor, integrate: Tensor, bias: Tensor | None) -> Tensor | None:
        if top is None and bias is None:
            return None
        factor = gamma(self.churn)
        grown = 0.0 if bias is None else factor * _contract(integrate, torch.exp(factor * exponent[:-1]) * bias)
        return torch.exp(-factor * exponent) * ((0.0 if top is None else top) + grown)

    def steps(self, levels: Float[Tensor, "levels"], sampler: Stepper) -> Iterator[Step]:
        """The process in steps of a sampler.

        Args:
            levels: variances from ``vx`` down to ``vm``.
            sampler: the kind of step.

        Raises:
            OracleError: the levels do not fall from ``vx`` to ``vm``, or too much churn for ancestral steps.
        """
        check_levels(levels, self.vm, self.vx)
        a = self._spectrum(levels)
        bias = self.score.bias_spectrum(levels, a)
        variance, mean = self.start.spectrum, self.start.mean
        for n in range(len(levels) - 1):
            v, after = float(levels[n]), float(levels[n + 1])
            scores = [(a[i], None if bias is None else bias[i]) for i in (n, n + 1)]
            step = Step(v, after, *STEPPERS[sampler](v, after, self.churn, *scores), variance, mean)
            yield step
            variance, mean = step.end.spectrum, step.end.mean


def law_of(end: Passage) -> FieldLaw:
    """The law at the end of a rollout."""
    return FieldLaw(end.variance[0], None if end.mean is None else end.mean[0])


def check_levels(levels: Tensor, vm: float, vx: float) -> None:
    """Refuse variances that do not fall from ``vx`` to ``vm``.

    Raises:
        OracleError: they do not.
    """
    falls = levels.ndim == 1 and len(levels) >= 2 and bool((levels.diff() < 0).all())
    if not falls or not math.isclose(float(levels[0]), vx) or not math.isclose(float(levels[-1]), vm):
        raise OracleError(
            "The levels of a reverse process do not fall from its first variance to its last.",
            where="levels",
            expected=f"decreasing variances from vx = {vx!r} to vm = {vm!r}",
            got=repr(levels.tolist() if levels.numel() < 10 else tuple(levels.shape)),
            fix="pass squares of sigma_grid(schedule, levels), or leave it to log_levels(vm, vx, count)",
        )


def log_levels(vm: float, vx: float, steps: int) -> Float[Tensor, "levels"]:
    """Variances of ``steps`` steps from ``vx`` down to ``vm``, equally spaced in log; both ends exact.

    Raises:
        OracleError: not ``0 < vm < vx``, or no step.
    """
    check_variances(vm, vx)
    if steps < 1:
        raise OracleError(
            "A reverse process needs at least one step.",
            where="steps",
            expected="an integer of one or more",
            got=repr(steps),
            fix="pass the number of steps of the sampler",
        )
    levels = torch.linspace(math.log(vx), math.log(vm), steps + 1, dtype=torch.float64).exp()
    levels[0], levels[-1] = vx, vm
    return levels


def _contract(matrix: Tensor, values: Tensor) -> Tensor:
    """Sum over the first axis of ``values`` with each row of ``matrix``."""
    contracted: Tensor = torch.tensordot(matrix.to(values.dtype), values, dims=1)
    return contracted


@lru_cache(maxsize=4)
def _collocation(order: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss–Legendre nodes and weights, and the matrix that integrates an interpolant from each node to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    to_coefficients = np.linalg.inv(np.polynomial.legendre.legvander(nodes, order - 1))
    antiderivative = np.polynomial.legendre.legint(to_coefficients, axis=0)
    at_nodes = np.polynomial.legendre.legval(nodes, antiderivative)
    to_top = np.polynomial.legendre.legval(np.ones(1), antiderivative).T - at_nodes.T
    with torch.inference_mode(False):
        return torch.from_numpy(nodes), torch.from_numpy(weights), torch.from_numpy(to_top)
