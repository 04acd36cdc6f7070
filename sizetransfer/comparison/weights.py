r"""Influence weights: how much the law of a patch at the end can feel a change of drift, site by site and earlier.

With :math:`u_v(x) = E[\varphi(X_{v_m, A}) | X_v = x]` along the exact reverse process (paper A.2), an influence
weight is any :math:`\omega_{A,i}(v, x) \ge \sup_{\varphi\in BL}|\partial_i u_v(x)|`. The paper assumes such weights
(Assumption 4); they follow from the posterior of the clean field, because the exact reverse kernel is
:math:`X_{v_m} | X_v = x, X_0 = y \sim N(y + (v_m/v)(x-y),\ v_m(1-v_m/v))`, whatever the prior:

.. math:: \partial_i u_v(x) = \tfrac{v_m}{v}\,1\{i\in A\}\,E[\partial_i\varphi|x]
   + \tfrac1v\,\mathrm{Cov}(\tilde\varphi(X_{0A}), X_{0i}|x),
   \qquad \mathrm{Lip}(\tilde\varphi)\le(1-v_m/v)\,\mathrm{Lip}(\varphi).

- **Gaussian fields** (spectrum c of the covariance on a torus), with churn :math:`\lambda` and
  :math:`\gamma = (1+\lambda^2)/2`: :math:`E[dX_{v_m}/dX_v]` is the kernel K of spectrum
  :math:`((c+v_m)/(c+v))^\gamma`, so :math:`\omega_{A,i} = (\sum_{a\in A}K(a-i)^2)^{1/2}`, exact. Given :math:`x`, the
  patch at the end is Gaussian with covariance M of spectrum :math:`(c+v_m)[1-((c+v_m)/(c+v))^{\lambda^2}]`; along the
  direction :math:`e` of :math:`g = (K(a-i))_a`, a test function with :math:`|\varphi|\le1` has mean slope at most
  :math:`\mathrm{erf}(1/(\sqrt2 s))`, :math:`s^{-2} = e\cdot M^{-1}e`, which multiplies the weight.
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
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.comparison.quantities import Quantity, check_variances
from sizetransfer.domain import Site
from sizetransfer.errors import OracleError

Patch = Sequence[Site]
"""Sites of a patch A, all different."""


def check_patch(patch: Patch, shape: Sequence[int]) -> None:
    """Refuse a patch that is empty, has a site twice, or leaves a lattice with these sites along its axes.

    Raises:
        OracleError: it does.
    """
    inside = [
        len(site) == len(shape) and all(0 <= a < length for a, length in zip(site, shape, strict=True))
        for site in patch
    ]
    if not inside or not all(inside) or len(set(map(tuple, patch))) < len(patch):
        raise OracleError(
            "The patch is not a set of sites of the lattice.",
            where="patch",
            expected=f"at least one site, each once, {len(shape)} coordinates below {tuple(shape)}",
            got=repr([tuple(site) for site in patch]),
            fix="pass for example [(0, 0), (0, 1)] on a two-dimensional lattice of size two or more",
        )


def check_spectrum(spectrum: Tensor) -> Float[Tensor, "*size"]:
    """Return the spectrum of a covariance in double precision.

    Raises:
        OracleError: it is not real, finite and positive, or not even, as that of a real field must be.
    """
    real = not spectrum.is_complex() and spectrum.ndim > 0 and bool((spectrum > 0).all())
    finite = real and bool(spectrum.isfinite().all())
    axes = tuple(range(spectrum.ndim))
    if not finite or not torch.allclose(spectrum, spectrum.flip(axes).roll((1,) * spectrum.ndim, axes), rtol=1e-6):
        raise OracleError(
            "The spectrum is not that of a covariance of a real field on a torus.",
            where="spectrum",
            expected="positive finite numbers c_k = c_-k on the grid of torch.fft.fftn, one for each site",
            got=f"shape {tuple(spectrum.shape)}, dtype {spectrum.dtype}",
            fix="pass GaussianTeacher.covariance_spectrum(size) of a teacher with one channel",
        )
    return spectrum.double()


def axes_of(spectrum: Tensor, dim: int) -> tuple[int, ...]:
    """The last ``dim`` axes: those of the lattice."""
    return tuple(range(spectrum.ndim - dim, spectrum.ndim))


def field_of(spectrum: Tensor, dim: int) -> Tensor:
    """Real part of the inverse Fourier transform over the last ``dim`` axes."""
    real: Tensor = torch.fft.ifftn(spectrum, dim=axes_of(spectrum, dim)).real
    return real


def patch_matrix(kernel: Float[Tensor, "*batch_and_size"], patch: Patch) -> Float[Tensor, "*batch n n"]:
    """Rows and columns of a circulant matrix at the sites of ``patch``; its first row is ``kernel``."""
    dim = len(patch[0])
    sites = torch.tensor([list(site) for site in patch], device=kernel.device)
    lags = sites[None, :] - sites[:, None]
    index = [lags[..., axis] % kernel.shape[kernel.ndim - dim + axis] for axis in range(dim)]
    at_lags: tuple[Any, ...] = (..., *index)
    return kernel[at_lags]


def contraction(spectrum: Tensor, v: Tensor, last: float | Tensor, churn: float) -> Tensor:
    r"""Spectrum of E[dX_last/dX_v] along the exact reverse process, ``((c + last)/(c + v))^gamma``, shape ``(V, *S)``.

    Args:
        spectrum: c_k, ``*S``.
        v: variances, ``(V,)``.
        last: variance that the process goes to: one for all, or one for each.
        churn: lambda.
    """
    return ((spectrum + _spread(last, spectrum)) / (spectrum + _spread(v, spectrum))) ** gamma(churn)


def residual(spectrum: Tensor, v: Tensor, last: float | Tensor, churn: float) -> Tensor:
    """Spectrum of Cov(X_last | X_v) along the exact reverse process, shape ``(V, *S)``; arguments as above."""
    end = spectrum + _spread(last, spectrum)
    return -end * torch.expm1(-(churn**2) * torch.log1p((_spread(v, spectrum) - _spread(last, spectrum)) / end))


def _spread(variance: float | Tensor, spectrum: Tensor) -> Tensor:
    """``variance`` with an axis of length one for each of the lattice's."""
    return torch.as_tensor(variance).to(spectrum).reshape(-1, *(1,) * spectrum.ndim)


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
    spectrum: Float[Tensor, "*size"],
    patch: Patch,
    v: Float[Tensor, "levels"],
    vm: float,
    *,
    churn: float = 1.0,
    bounded: bool = True,
) -> Float[Tensor, "levels *size"]:
    r"""Exact influence weights of a Gaussian field on a torus (see the module).

    Args:
        spectrum: c_k, eigenvalues of the covariance of the clean field.
        patch: the sites A.
        v: variances, each at least ``vm``.
        vm: variance at which the process stops.
        churn: lambda; 1 for the reverse SDE.
        bounded: use that test functions are at most one, which only lowers the weights.

    Raises:
        OracleError: the patch leaves the lattice.
    """
    check_patch(patch, spectrum.shape)
    dim = spectrum.ndim
    kernel = field_of(contraction(spectrum, v, vm, churn), dim)
    rows = torch.stack([kernel.roll(site, axes_of(kernel, dim)) for site in patch], dim=1)
    weights = rows.square().sum(1).sqrt()
    if not bounded or churn == 0:
        return weights
    return weights * _bounded_slope(spectrum, patch, v, vm, churn, rows, weights)


def _bounded_slope(
    spectrum: Tensor, patch: Patch, v: Tensor, vm: float, churn: float, rows: Tensor, weights: Tensor
) -> Tensor:
    """Factor erf(1 / (s sqrt 2)) for the direction of every site's row, shape ``(V, *S)``; one at v = vm."""
    noisy = v > vm
    factor = torch.ones_like(weights)
    if noisy.any():
        covariance = patch_matrix(field_of(residual(spectrum, v[noisy], vm, churn), spectrum.ndim), patch)
        directions = (rows[noisy] / weights[noisy].clamp_min(torch.finfo(weights.dtype).tiny)[:, None]).flatten(2)
        precision = (directions * torch.linalg.solve(covariance, directions)).sum(1)
        factor[noisy] = torch.erf((0.5 * precision).sqrt()).reshape(weights[noisy].shape)
    return factor


def gaussian_budget(spectrum: Float[Tensor, "*size"], vm: float, vx: float, *, churn: float = 1.0) -> Quantity:
    r"""Budget of one site of a Gaussian field with non-negative correlations of its reverse process.

    .. math:: \gamma\int_{v_m}^{v_x}\Big(\frac{c_0+v_m}{c_0+v}\Big)^\gamma dv
       = (c_0+v_m)\ln\frac{c_0+v_x}{c_0+v_m}\quad\text{for }\lambda = 1,

    with :math:`c_0` the eigenvalue of the uniform mode, :math:`1/m^2` at every size. It bounds the weights with and
    without the factor of bounded test functions; a patch of n sites has at most n times as much.

    Returns:
        ``exact`` for the weights with ``bounded=False``.

    Raises:
        OracleError: not ``0 < vm < vx``, or the covariance is not the inverse of an M-matrix, so that a kernel may
            have negative entries and the closed form does not hold.
    """
    check_variances(vm, vx)
    if not is_ferromagnetic(spectrum):
        raise OracleError(
            "The closed form of the budget needs a ferromagnetic precision matrix.",
            where="gaussian_budget(spectrum, ...)",
            expected="no positive coupling between different sites in the precision matrix",
            got="a precision matrix with a positive off-diagonal entry",
            fix="integrate gaussian_weights over v instead",
        )
    c0 = float(spectrum.flatten()[0])
    start, stop, power = c0 + vm, c0 + vx, gamma(churn)
    if power == 1:
        return Quantity(start * math.log(stop / start), "exact")
    value = power * start * math.expm1((1 - power) * math.log(stop / start)) / (1 - power)
    return Quantity(value, "exact")


def is_ferromagnetic(spectrum: Float[Tensor, "*size"]) -> bool:
    """Whether the precision matrix has no positive off-diagonal entry, to rounding; then all kernels are positive."""
    precision = field_of(1 / spectrum, spectrum.ndim).flatten()
    return bool((precision[1:] <= 1e-12 * precision[0]).all())


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
    check_patch(patch, shape)
    inside = correlation.new_zeros(shape)
    for site in patch:
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
    return Quantity(sites * (vm * span + susceptibility * (span - 1 + vm / vx)), "certificate")


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
