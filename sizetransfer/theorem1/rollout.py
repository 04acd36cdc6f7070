r"""Reverse processes with linear scores, in closed form: continuous, or in the steps of a sampler.

With the operator :math:`a(v)` of the learned score, churn :math:`\lambda` and :math:`\gamma = (1+\lambda^2)/2`:

- continuous, :math:`dX = \gamma\hat s\,d\tau + \lambda\,dB`, :math:`\tau = v_x - v`. Mean and covariance obey
  :math:`\mu' = \gamma(a\mu - \beta)`, :math:`p' = \gamma(ap + pa^\dagger) - \lambda^2` (derivatives by v). On a torus
  of one channel all is diagonal: below a level t, with :math:`E(v) = \int_v^t a`,

  .. math:: \mu(v) = e^{-\gamma E(v)}\Big[\mu(t) + \gamma\int_v^t e^{\gamma E}\beta\Big],\qquad
     p(v) = e^{-2\gamma\mathrm{Re}E(v)}\Big[p(t) + \lambda^2\int_v^t e^{2\gamma\mathrm{Re}E}\Big];

  matrices of different levels do not commute, and the equations are solved by iteration instead;
- in steps, :math:`X' = T X + b + n\,\xi` with operators T and n, those of :mod:`sizetransfer.scores.sampling`. With
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

from sizetransfer.contracts.errors import OracleError
from sizetransfer.numerics.bases import Basis
from sizetransfer.theorem1.linear import FieldLaw, LinearScore
from sizetransfer.theorem1.quantities import check_variances
from sizetransfer.theorem1.weights import gamma

Stepper = Literal["euler", "heun", "ancestral"]
NODES = 12
"""Gauss–Legendre nodes of a panel."""
ITERATIONS = 200
"""Iterations on a panel, at most; scores of the size of the exact one take about twenty."""
SETTLED = 1e-10
"""Relative change of an iteration at which it may stop, once changes no longer fall."""
_EPSILON = torch.finfo(torch.float64).eps
Affine = tuple[Tensor, Tensor | None]
"""Operators of a linear score and the vectors of its bias."""


@dataclass(frozen=True)
class Passage:
    """The learned process at the nodes of a panel, in the basis of its field.

    Attributes:
        v: variances of the nodes, ``(V,)``.
        dv: their quadrature weights.
        score: operators A of the learned score, ``(V, *O)``.
        bias: its bias as vectors ``(V, *M)``, or none.
        variance: covariance operators P of the learned process, ``(V, *O)``.
        mean: its mean as vectors ``(V, *M)``, or none.
        basis: of all of them.
    """

    v: Float[Tensor, "levels"]
    dv: Float[Tensor, "levels"]
    score: Tensor
    bias: Tensor | None
    variance: Tensor
    mean: Tensor | None
    basis: Basis

    def mean_error(self, exact: Tensor) -> Tensor | None:
        """Mean field of learned minus exact score, ``(V, *F)``, the exact one being ``-exact x``."""
        error = None if self.mean is None else self.basis.apply(exact - self.score, self.mean)
        error = _sum(error, self.bias)
        return None if error is None else self.basis.to_field(error)

    def error_std(self, exact: Tensor) -> Tensor:
        """Standard deviation of learned minus exact score at every component, broadcasting against ``(V, *F)``."""
        return self.basis.deviation(self.basis.congruence(exact - self.score, self.variance))


@dataclass(frozen=True)
class Step:
    """One step ``X' = T X + b + n xi`` of a sampler, and the learned process before it, in the basis of its field.

    Attributes:
        v: variance before.
        after: variance after.
        transfer: the operator T.
        shift: the vector b, or none.
        noise: the operator n, or one number.
        variance: covariance operator before the step.
        mean: mean vector before the step, or none.
        basis: of all of them.
    """

    v: float
    after: float
    transfer: Tensor
    shift: Tensor | None
    noise: Tensor
    variance: Tensor
    mean: Tensor | None
    basis: Basis

    @property
    def end(self) -> FieldLaw:
        """Law of the field after the step."""
        basis, one = self.basis, self.basis.identity(self.variance)
        added = self.noise.square() * one if self.noise.ndim == 0 else basis.congruence(self.noise, one)
        mean = None if self.mean is None else basis.apply(self.transfer, self.mean)
        return FieldLaw(basis.congruence(self.transfer, self.variance) + added, _sum(mean, self.shift), basis)

    def error(self, contraction: Tensor, root: Tensor) -> tuple[Tensor | None, Tensor]:
        r"""Mean field and standard deviations of this step minus the exact one, from one point and noise.

        The exact step has mean ``contraction`` times the field, and ``root`` squared as its covariance. The law of xi
        is invariant under rotations: it may be turned to bring the two noises as close as they come.
        """
        basis, wrong = self.basis, self.transfer - contraction
        mean = _sum(None if self.mean is None else basis.apply(wrong, self.mean), self.shift)
        covariance = basis.congruence(wrong, self.variance) + basis.unmatched(self.noise, root)
        return None if mean is None else basis.to_field(mean), basis.deviation(covariance)


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return first if second is None else second
    return first + second


def _euler(
    basis: Basis, v: float, after: float, churn: float, before: Affine, _: Affine
) -> tuple[Tensor, Tensor | None, Tensor]:
    a, bias = before
    length = gamma(churn) * (v - after)
    transfer = basis.identity(a) - length * a
    return transfer, None if bias is None else length * bias, a.real.new_tensor(churn * math.sqrt(v - after))


def _heun(
    basis: Basis, v: float, after: float, churn: float, before: Affine, then: Affine
) -> tuple[Tensor, Tensor | None, Tensor]:
    (a, bias), (a_then, bias_then) = before, then
    one, half = basis.identity(a), 0.5 * gamma(churn) * (v - after)
    transfer = one - half * (a + basis.product(a_then, one - 2 * half * a))
    shift = None
    if bias is not None and bias_then is not None:
        shift = half * (bias + bias_then - 2 * half * basis.apply(a_then, bias))
    return transfer, shift, churn * math.sqrt(v - after) * (one - half * a_then)


def _ancestral(
    basis: Basis, v: float, after: float, churn: float, before: Affine, _: Affine
) -> tuple[Tensor, Tensor | None, Tensor]:
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
    transfer = basis.identity(a) - length * a
    return transfer, None if bias is None else length * bias, a.real.new_tensor(math.sqrt(added))


STEPPERS: Mapping[Stepper, Callable[..., tuple[Tensor, Tensor | None, Tensor]]] = {
    "euler": _euler,
    "heun": _heun,
    "ancestral": _ancestral,
}


@dataclass(frozen=True)
class Rollout:
    """A learned linear reverse process from variance vx to vm.

    Attributes:
        score: the learned score, in the basis of ``start``.
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
        """The continuous process at the nodes of ``count`` panels, downwards; last, by itself, at ``vm``.

        Raises:
            OracleError: a score of another shape, or one so large that the process does not settle on a panel.
        """
        half = 0.5 * math.log(self.vx / self.vm) / count
        device = self.start.spectrum.device
        _, weights, to_top = (t.to(device) for t in _collocation(NODES))
        variance, mean, basis = self.start.spectrum, self.start.mean, self.start.frame
        for v, dv in log_panels(self.vm, self.vx, count, device=device):
            a = self._spectrum(v)
            bias = self.score.bias_modes(v, basis)
            # Integrals from each node to the panel's top and, in the last row, over the whole panel.
            integrate = half * v * torch.cat([to_top, weights[None]])
            solve = self._commuting if basis.numbers else self._iterated
            p, m = solve(variance, mean, integrate, a, bias)
            yield Passage(v, dv, a, bias, p[:-1], None if m is None else m[:-1], basis)
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
                fix="return one operator for each variance, in the basis of the field: on a torus of one "
                "channel eigenvalues on the grid of torch.fft.fftn",
            )
        return a

    def _end(self, variance: Tensor, mean: Tensor | None) -> Passage:
        v = variance.real.new_full((1,), self.vm)
        law = variance[None], None if mean is None else mean[None]
        return Passage(v, 0 * v, 0 * variance[None], None, *law, self.start.frame)

    def _commuting(
        self, variance: Tensor, mean: Tensor | None, integrate: Tensor, a: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Variance and mean at the nodes and the bottom of a panel in closed form: for operators that commute."""
        exponent = _contract(integrate, a)
        growth, factor = 2 * gamma(self.churn) * exponent.real, gamma(self.churn)
        p = torch.exp(-growth) * (variance + self.churn**2 * _contract(integrate, torch.exp(growth[:-1])))
        if mean is None and bias is None:
            return p, None
        grown = 0.0 if bias is None else factor * _contract(integrate, torch.exp(factor * exponent[:-1]) * bias)
        return p, torch.exp(-factor * exponent) * ((0.0 if mean is None else mean) + grown)

    def _iterated(
        self, variance: Tensor, mean: Tensor | None, integrate: Tensor, a: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The same for operators that do not commute: the collocation equations, by Picard's iteration."""
        basis, factor = self.start.frame, gamma(self.churn)
        added = self.churn**2 * basis.identity(variance)

        def slope(p: Tensor) -> Tensor:
            grown = factor * basis.product(a, p)
            return grown + basis.adjoint(grown) - added

        p = _fixed_point(lambda p: variance - _contract(integrate, slope(p[:-1])), variance, integrate)
        if mean is None and bias is None:
            return p, None
        top = torch.zeros_like(variance[..., 0]) if mean is None else mean
        shift = 0.0 if bias is None else bias

        def moved(m: Tensor) -> Tensor:
            return top - factor * _contract(integrate, basis.apply(a, m[:-1]) - shift)

        return p, _fixed_point(moved, top, integrate)

    def steps(self, levels: Float[Tensor, "levels"], sampler: Stepper) -> Iterator[Step]:
        """The process in steps of a sampler.

        Args:
            levels: variances from ``vx`` down to ``vm``.
            sampler: the kind of step.

        Raises:
            OracleError: the levels do not fall from ``vx`` to ``vm``, or too much churn for ancestral steps.
        """
        check_levels(levels, self.vm, self.vx)
        basis, a = self.start.frame, self._spectrum(levels)
        bias = self.score.bias_modes(levels, basis)
        variance, mean = self.start.spectrum, self.start.mean
        for n in range(len(levels) - 1):
            v, after = float(levels[n]), float(levels[n + 1])
            scores = [(a[i], None if bias is None else bias[i]) for i in (n, n + 1)]
            step = Step(v, after, *STEPPERS[sampler](basis, v, after, self.churn, *scores), variance, mean, basis)
            yield step
            variance, mean = step.end.spectrum, step.end.mean


def log_panels(
    vm: float, vx: float, count: int, *, device: torch.device | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Nodes and weights, ``(V,)`` each, of Gauss's quadrature in ln v on ``count`` panels, from vx downwards."""
    half = 0.5 * math.log(vx / vm) / count
    nodes, weights, _ = (t.to(device) for t in _collocation(NODES))
    for panel in range(count):
        v = vx * torch.exp(half * (nodes - 1 - 2 * panel))
        yield v, half * v * weights


def law_of(end: Passage) -> FieldLaw:
    """The law at the end of a rollout."""
    return FieldLaw(end.variance[0], None if end.mean is None else end.mean[0], end.basis)


def _fixed_point(image: Callable[[Tensor], Tensor], top: Tensor, integrate: Tensor) -> Tensor:
    """The values at nodes and bottom that ``image`` maps to themselves, from those of the top of the panel.

    The k-th iteration changes them by ``(h a)^k / k!``, h the panel's length in ln v and a the largest ``v A_v``.
    """
    values, before = top.expand(len(integrate), *top.shape), math.inf
    for _ in range(ITERATIONS):
        then = image(values)
        change, scale = _largest(then - values), _largest(then[-1])
        values = then
        # What no longer falls is rounding.
        if change <= SETTLED * scale and (change <= _EPSILON * scale or change > 0.5 * before):
            return values
        before = change
    raise OracleError(
        "The learned process does not settle within a panel of the quadrature.",
        where="Rollout.panels",
        expected=f"convergence within {ITERATIONS} iterations",
        got=f"a last change of {change:.3g}",
        fix="take more panels, and check that the learned score is finite and of the size of the exact one",
    )


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


def _largest(values: Tensor) -> float:
    """The largest real or imaginary part: what tells rounding from convergence, faster than absolute values."""
    parts = torch.view_as_real(values) if values.is_complex() else values
    return float(torch.stack(parts.aminmax()).abs().max())


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
