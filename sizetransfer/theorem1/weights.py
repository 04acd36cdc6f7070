r"""Influence weights: how much the law of a patch at the end can feel a change of drift, site by site and earlier.

With :math:`u_v(x) = E[\varphi(X_{v_m, A}) | X_v = x]` along the exact reverse process (paper A.2), an influence
weight is any :math:`\omega_{A,i}(v, x) \ge \sup_{\varphi\in BL}|\partial_i u_v(x)|`. The paper assumes such weights
(Assumption 4); they follow from the posterior of the clean field, because the exact reverse kernel is
:math:`X_{v_m} | X_v = x, X_0 = y \sim N(y + (v_m/v)(x-y),\ v_m(1-v_m/v))`, whatever the prior:

.. math:: \partial_i u_v(x) = \tfrac{v_m}{v}\,1\{i\in A\}\,E[\partial_i\varphi|x]
   + \tfrac1v\,\mathrm{Cov}(\tilde\varphi(X_{0A}), X_{0i}|x),
   \qquad \mathrm{Lip}(\tilde\varphi)\le(1-v_m/v)\,\mathrm{Lip}(\varphi).

- **Gaussian fields** (covariance C, on a torus or a graph, of any number of channels; indices run over components),
  with churn :math:`\lambda` and :math:`\gamma = (1+\lambda^2)/2`: :math:`E[dX_{v_m}/dX_v]` is
  :math:`K = ((C+v_m)(C+v)^{-1})^\gamma`, so :math:`\omega_{A,i} = (\sum_{a\in A}K_{ai}^2)^{1/2}`, exact. Given
  :math:`x`, the patch at the end is Gaussian with covariance M, a block of
  :math:`(C+v_m)[1-((C+v_m)(C+v)^{-1})^{\lambda^2}]`; along the direction :math:`e` of :math:`g = (K_{ai})_a`, a test
  function with :math:`|\varphi|\le1` has mean slope at most :math:`\mathrm{erf}(1/(\sqrt2 s))`,
  :math:`s^{-2} = e\cdot M^{-1}e`, which multiplies the weight.
- **Associated posteriors** (Fortuin, Kasteleyn, Ginibre: ferromagnetic pair couplings, any single-site law):
  :math:`\omega_{A,i} \le \tfrac{v_m}v 1\{i\in A\} + \tfrac1v(1-\tfrac{v_m}v)
  \sum_{a\in A}\mathrm{Cov}(X_{0a},X_{0i}|x)`.
- **Ferromagnetic Ising models**, for all x at once: the covariance is at most the correlation
  :math:`G(a,i) = \langle s_as_i\rangle` without field (Ding, Song, Sun 2021, arXiv:2107.09243), or its Dobrushin
  bound :math:`(1 - \tanh\beta\,\mathrm{Adj})^{-1}`.

Budgets are :math:`\int_{v_m}^{v_x}\sum_i\omega_{A,i}\,dv`: what a drift error of size one everywhere can cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Patch
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.numerics.bases import Components, field_of
from sizetransfer.numerics.gaussian import GaussianField
from sizetransfer.theorem1.fields import as_field, components_of, patch_components
from sizetransfer.theorem1.quantities import check_variances


def contraction(spectrum: Tensor, v: Tensor, last: float | Tensor, churn: float) -> Tensor:
    r"""Eigenvalues of E[dX_last/dX_v] along the exact reverse process, ``((c + last)/(c + v))^gamma``, ``(V, *E)``.

    Args:
        spectrum: eigenvalues c of the covariance, ``*E``.
        v: variances, ``(V,)``.
        last: variance that the process goes to: one for all, or one for each.
        churn: lambda.
    """
    return ((spectrum + _spread(last, spectrum)) / (spectrum + _spread(v, spectrum))) ** gamma(churn)


def residual(spectrum: Tensor, v: Tensor, last: float | Tensor, churn: float) -> Tensor:
    """Eigenvalues of Cov(X_last | X_v) along the exact reverse process, ``(V, *E)``; arguments as above."""
    end = spectrum + _spread(last, spectrum)
    return -end * torch.expm1(-(churn**2) * torch.log1p((_spread(v, spectrum) - _spread(last, spectrum)) / end))


def _spread(variance: float | Tensor, spectrum: Tensor) -> Tensor:
    """``variance`` with an axis of length one for each of the eigenvalues'."""
    return torch.as_tensor(variance, dtype=spectrum.dtype, device=spectrum.device).reshape(-1, *(1,) * spectrum.ndim)


def gamma(churn: float) -> float:
    """Factor of the score in the drift, ``(1 + lambda^2) / 2``.

    Raises:
        OracleError: the churn is negative or not finite.
    """
    if not 0 <= churn < math.inf:
        raise OracleError(
            "The churn of a reverse process is not a finite number of zero or more.",
            where="churn",
            expected="0 (probability-flow ODE), 1 (reverse SDE) or any other finite number above zero",
            got=repr(churn),
            fix="pass the factor of the noise, lambda",
        )
    return 0.5 * (1 + churn**2)


def gaussian_weights(
    field: Tensor | GaussianField,
    patch: Patch,
    v: Float[Tensor, "levels"],
    vm: float,
    *,
    churn: float = 1.0,
    bounded: bool = True,
) -> Tensor:
    r"""Exact influence weights of a Gaussian field (see the module).

    Args:
        field: a Gaussian field; a tensor ``*S`` stands for one channel on a torus with this spectrum of the covariance.
        patch: the sites A, with all their channels, or pairs of a site and a channel.
        v: variances, each at least ``vm``.
        vm: variance at which the process stops.
        churn: lambda; 1 for the reverse SDE.
        bounded: use that test functions are at most one, which only lowers the weights.

    Returns:
        ``(V, *S)`` for one channel on a torus, otherwise ``(V, C, *S)``.

    Raises:
        OracleError: the patch leaves the lattice.
    """
    field = as_field(field)
    components = components_of(field, patch)
    v = v.to(field.covariance.device)
    rows = field.rows(lambda c: contraction(c, v, vm, churn), components).flatten(2)
    weights = rows.square().sum(1).sqrt()
    if bounded and churn != 0:
        weights = weights * _bounded_slope(field, components, v, vm, churn, rows, weights)
    return weights.reshape(-1, *field.basis.field_shape)


def _bounded_slope(
    field: GaussianField, components: Components, v: Tensor, vm: float, churn: float, rows: Tensor, weights: Tensor
) -> Tensor:
    """Factor erf(1 / (s sqrt 2)) for the direction of every component's row, ``(V, n)``; one at v = vm."""
    noisy = v > vm
    factor = torch.ones_like(weights)
    if noisy.any():
        at_patch = field.rows(lambda c: residual(c, v[noisy], vm, churn), components)
        covariance = field.basis.between(at_patch, components)
        directions = rows[noisy] / weights[noisy].clamp_min(torch.finfo(weights.dtype).tiny)[:, None]
        precision = (directions * torch.linalg.solve(covariance, directions)).sum(1)
        factor[noisy] = torch.erf((0.5 * precision).sqrt())
    return factor


def gaussian_budget(field: Tensor | GaussianField, vm: float, vx: float, *, churn: float = 1.0) -> Quantity:
    r"""Budget of one component of a Gaussian field with non-negative correlations of its reverse process.

    .. math:: \gamma\int_{v_m}^{v_x}\Big(\frac{c_0+v_m}{c_0+v}\Big)^\gamma dv
       = (c_0+v_m)\ln\frac{c_0+v_x}{c_0+v_m}\quad\text{for }\lambda = 1,

    with :math:`1/c_0` the smallest row sum of the precision matrix Q: :math:`m^2` on a torus or graph of any size, and
    :math:`c_0` the eigenvalue of the uniform mode. For an M-matrix Q, :math:`K = h(Q)` with
    :math:`h(q) = ((1+v_mq)/(1+vq))^\gamma` completely monotone, so K is an average of :math:`e^{-tQ}\ge0`, and
    :math:`e^{-tQ}1 \le e^{-t/c_0}1`. It bounds the weights with and without the factor of bounded test functions; a
    patch of n components has at most n times as much.

    Args:
        field: as for :func:`gaussian_weights`.
        vm: last variance.
        vx: first variance.
        churn: lambda.

    Returns:
        ``exact`` for the weights with ``bounded=False`` where all row sums are equal, as on every translation-invariant
        field of one channel; otherwise a ``certificate``.

    Raises:
        OracleError: not ``0 < vm < vx``, or the precision matrix is no M-matrix of positive row sums, so that the
            closed form does not hold.
    """
    check_variances(vm, vx)
    sums = ferromagnetic_row_sums(as_field(field))
    if sums is None:
        raise OracleError(
            "The closed form of the budget needs a ferromagnetic precision matrix.",
            where="gaussian_budget(field, ...)",
            expected="no positive coupling between different components in the precision matrix, and positive row sums",
            got="a precision matrix with a positive off-diagonal entry, or a row sum that is not positive",
            fix="integrate gaussian_weights over v, as integrated_budget does",
        )
    c0 = 1 / float(sums.min())
    start, stop, power = c0 + vm, c0 + vx, gamma(churn)
    equal = bool(sums.max() - sums.min() <= 1e-9 * sums.max())
    if power == 1:
        value = start * math.log(stop / start)
    else:
        value = power * start * math.expm1((1 - power) * math.log(stop / start)) / (1 - power)
    return Quantity(value, kind="exact" if equal else "certificate")


def ferromagnetic_row_sums(field: GaussianField) -> Tensor | None:
    """Sums of the rows of the precision matrix, one for each component that no other is a translate of.

    Returns:
        None if an entry between different components is positive beyond rounding, or a sum is not positive.
    """
    components = field.basis.representatives()
    rows = field.rows(lambda c: 1 / c, components).flatten(1)
    own = torch.tensor([field.basis.place(component) for component in components], device=rows.device)
    diagonal = rows.gather(1, own[:, None])
    others = rows.scatter(1, own[:, None], 0.0)
    sums = rows.sum(1)
    return sums if bool((others <= _ROUNDING * diagonal).all()) and bool((sums > 0).all()) else None


_ROUNDING = 1e-12
"""Share of a diagonal entry of the precision matrix that rounding may leave elsewhere."""


def covariance_weights(
    covariance: Float[Tensor, "*batch_and_size"], inside: Float[Tensor, "*size"], v: Tensor, vm: float
) -> Tensor:
    r"""Weights from posterior covariances: :math:`\frac{v_m}{v}1\{i\in A\} + \frac1v(1-\frac{v_m}{v})\Sigma_i`.

    A certificate where the posterior is associated; otherwise an estimate, since test functions other than
    coordinates may then covary more.

    Args:
        covariance: Sum over a in A of ``|Cov(X_0a, X_0i | x)|`` for every site i.
        inside: one on the patch, zero elsewhere; it broadcasts against ``covariance``.
        v: variances that broadcast against both.
        vm: variance at which the process stops.
    """
    return vm / v * inside + (1 - vm / v) / v * covariance


def ising_weights(
    correlation: Float[Tensor, "patch *size"], patch: Patch, v: Float[Tensor, "levels"], vm: float
) -> Float[Tensor, "levels *size"]:
    """Certificate for ferromagnetic Ising models, for every x at once.

    Args:
        correlation: G(a, i) without field, or an upper bound on it, for every site a of the patch.
        patch: the sites A.
        v: variances.
        vm: variance at which the process stops.

    Raises:
        OracleError: the patch leaves the lattice.
    """
    shape = correlation.shape[1:]
    inside = correlation.new_zeros(shape)
    for _, *site in patch_components(patch, shape):
        inside[tuple(site)] = 1
    levels = v.reshape(-1, *(1,) * len(shape))
    return covariance_weights(correlation.sum(0), inside, levels, vm)


def ising_budget(susceptibility: float, vm: float, vx: float, *, sites: int = 1) -> Quantity:
    r"""Budget of :func:`ising_weights`.

    .. math:: |A|\{v_m\ln(v_x/v_m) + \chi_L[\ln(v_x/v_m) - 1 + v_m/v_x]\},\qquad \chi_L = \sum_j G(0,j).

    It is uniform in the size exactly when the susceptibility is bounded: above the critical temperature.

    Raises:
        OracleError: not ``0 < vm < vx``.
    """
    check_variances(vm, vx)
    span = math.log(vx / vm)
    return Quantity(sites * (vm * span + susceptibility * (span - 1 + vm / vx)), kind="certificate")


@dataclass(frozen=True)
class DobrushinBound:
    """Bound on the correlations of a ferromagnetic Ising model, uniform in the size.

    Attributes:
        correlation: upper bound on G(0, i), shape ``*S``.
        susceptibility: its sum, ``1 / (1 - 2 d tanh(beta))`` for periods above two.
    """

    correlation: Float[Tensor, "*size"]
    susceptibility: float


def dobrushin_bound(beta: float, size: Sequence[int]) -> DobrushinBound:
    r"""Correlations at most :math:`(1-\tanh\beta\,\mathrm{Adj})^{-1}` on a torus of nearest neighbours.

    Args:
        beta: coupling of each bond (each site owns a bond along every axis).
        size: sites along each axis.

    Raises:
        OracleError: :math:`2d\tanh\beta\ge1`, where the criterion says nothing.
    """
    strength = math.tanh(beta)
    if not 0 <= 2 * len(size) * strength < 1:
        raise OracleError(
            "Dobrushin's criterion does not hold.",
            where="dobrushin_bound(beta, size)",
            expected=f"beta >= 0 and 2 d tanh(beta) < 1: beta below {math.atanh(1 / (2 * len(size))):.6g}",
            got=f"beta = {beta!r}",
            fix="pass exact correlations to ising_weights and their sum to ising_budget",
        )
    spectrum = torch.ones(tuple(size), dtype=torch.float64)
    for axis, length in enumerate(size):
        wave = 2 * math.pi * torch.arange(length, dtype=torch.float64) / length
        spectrum = spectrum - 2 * strength * wave.cos().reshape(-1, *(1,) * (len(size) - axis - 1))
    return DobrushinBound(field_of(1 / spectrum, len(size)), float(1 / spectrum.flatten()[0]))
