r"""Theorem 1 as a number (paper §2.2 and A.2, with the constant :math:`C_A = 1`).

.. math:: d_{BL}(\pi_A, \hat\pi_A) \le \min(2,\ \delta_{ini} + \epsilon),\qquad
   \epsilon = \gamma\int_{v_m}^{v_x}\sum_i E\big[\omega_{A,i}(v, \hat X_v)\,|\hat s_i - s_i|(\hat X_v, v)\big]\,dv,

with expectations along the *learned* process :math:`\hat X`, influence weights :math:`\omega`
(:mod:`~sizetransfer.comparison.weights`), :math:`\pi_A` the patch law of the clean field *with noise of variance
vm*, and :math:`\delta_{ini}` the distance between :math:`\pi_A` and what the exact reverse process makes of the
learned initial law. The clock is v = sigma^2; nothing depends on the schedule.

A sampler in steps has, by the same telescoping sum,

.. math:: \epsilon = \sum_n\sum_i \omega_{A,i}(v_{n+1})\;E\big|X'_i - X^*_i\big|,

where :math:`X^*` is one exact step from the same point with the same :math:`\xi`. For linear scores on a Gaussian
field, :math:`X'_i - X^*_i` is normal: its mean and the variance that the unequal transfers give it come from the
rollout, and the unequal noises add :math:`\mathrm{mean}_k(|n_k| - \sqrt{S_k})^2`, with n those of the sampler
(:mod:`~sizetransfer.comparison.rollout`) and S the spectrum of the exact step's covariance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.comparison.linear import FieldLaw, LinearScore, absolute_mean
from sizetransfer.comparison.patches import gaussian_distance
from sizetransfer.comparison.quantities import Enclosure, Quantity, check_variances, weakest
from sizetransfer.comparison.rollout import Rollout, Stepper, check_levels, law_of, log_levels
from sizetransfer.comparison.weights import (
    Patch,
    check_patch,
    check_spectrum,
    contraction,
    gamma,
    gaussian_budget,
    gaussian_weights,
    is_ferromagnetic,
    residual,
)

Sampler = Literal["continuous", "euler", "heun", "ancestral"]
ROUNDING = 64 * torch.finfo(torch.float64).eps
"""What rounding may change in a drift error, whose terms are differences of numbers of size one."""


@dataclass(frozen=True)
class Theorem1:
    """The bound of Theorem 1 for one patch, and the truth where it is known.

    Attributes:
        bound: on the bounded-Lipschitz distance between learned and exact law of the patch; at most two.
        initial: delta_ini, or an upper bound on it.
        drift: epsilon, the weighted error along the learned rollout.
        truth: the distance itself, where both laws are known.
        budget: integral of the summed weights over v, where known: the cost of an error of one everywhere.
        size_uniform: whether the budget is bounded uniformly in the size; none where that is not known.
        shape: sites of the lattice along its axes.
        patch: the sites A.
        vm: last variance.
        vx: first variance.
        churn: lambda.
        sampler: how the learned process is run.
    """

    bound: Quantity
    initial: Quantity
    drift: Quantity
    truth: Enclosure | None
    budget: Quantity | None
    size_uniform: bool | None
    shape: tuple[int, ...]
    patch: tuple[tuple[int, ...], ...]
    vm: float
    vx: float
    churn: float
    sampler: Sampler

    @property
    def holds(self) -> bool | None:
        """Whether the truth is below the bound; none where it is not known well enough to tell."""
        if self.truth is None or self.truth.lower <= self.bound.value < self.truth.upper:
            return None
        return self.truth.upper <= self.bound.value


def total_bound(initial: Quantity, drift: Quantity) -> Quantity:
    """Return ``min(2, initial + drift)``; numerical errors are added to it, standard errors kept beside it."""
    kind = weakest("certificate", initial.kind, drift.kind)
    numerical = sum(part.error for part in (initial, drift) if part.kind != "estimate")
    statistical = math.hypot(*(part.error for part in (initial, drift) if part.kind == "estimate"))
    return Quantity(min(2.0, initial.value + drift.value + numerical), kind, statistical)


def initial_distance(
    spectrum: Float[Tensor, "*size"], start: FieldLaw, patch: Patch, vm: float, vx: float, *, churn: float = 1.0
) -> Enclosure:
    """Enclosure of delta_ini for a Gaussian field: the exact reverse process from ``start`` against N(0, C + vm).

    For ``start`` = N(0, vx) and the reverse SDE the second law has spectrum ``(c+vm) - c (c+vm)^2 / (c+vx)^2``.
    """
    level = torch.tensor([vx], dtype=spectrum.dtype, device=spectrum.device)
    kernel = contraction(spectrum, level, vm, churn)[0]
    reached = FieldLaw(
        kernel.square() * start.spectrum + residual(spectrum, level, vm, churn)[0],
        None if start.mean is None else kernel * start.mean,
    )
    return gaussian_distance(reached.patch(patch), FieldLaw(spectrum + vm).patch(patch))


def continuous_drift(
    spectrum: Float[Tensor, "*size"], rollout: Rollout, patch: Patch, panels: int
) -> tuple[float, FieldLaw]:
    """Weighted drift error of a linear reverse process of a Gaussian field, and the law at its end."""
    total, factor = 0.0, gamma(rollout.churn)
    for passage in rollout.panels(panels):
        levels = passage.v.reshape(-1, *(1,) * spectrum.ndim)
        exact = 1 / (spectrum + levels)
        weights = gaussian_weights(spectrum, patch, passage.v, rollout.vm, churn=rollout.churn)
        error = _summed(weights, passage.mean_error(exact), passage.error_std(exact))
        total += factor * float(passage.dv @ error)
    return total, law_of(passage)


def _summed(weights: Tensor, mean: Tensor | None, std: Tensor) -> Tensor:
    """Sum over sites of weight times E|N(mean, std^2)|, shape ``(V,)``."""
    if mean is None:
        return weights.flatten(1).sum(1) * absolute_mean(None, std)
    spread = std.reshape(-1, *(1,) * (weights.ndim - 1))
    return (weights * absolute_mean(mean, spread)).flatten(1).sum(1)


def stepwise_drift(
    spectrum: Float[Tensor, "*size"], rollout: Rollout, patch: Patch, levels: Tensor, sampler: Stepper
) -> tuple[float, FieldLaw]:
    """Weighted error of a linear sampler in steps on a Gaussian field, and the law at its end."""
    total = 0.0
    weights = gaussian_weights(spectrum, patch, levels[1:], rollout.vm, churn=rollout.churn)
    means = contraction(spectrum, levels[:-1], levels[1:], rollout.churn)
    covariances = residual(spectrum, levels[:-1], levels[1:], rollout.churn)
    exact = zip(weights[:, None], means, covariances, strict=True)
    for step, (weight, mean, covariance) in zip(rollout.steps(levels, sampler), exact, strict=True):
        total += float(_summed(weight, *step.error(mean, covariance)))
    return total, step.end


def gaussian_theorem1(
    spectrum: Float[Tensor, "*size"],
    score: LinearScore,
    *,
    patch: Patch,
    vm: float,
    vx: float,
    churn: float = 1.0,
    start: FieldLaw | None = None,
    sampler: Sampler = "continuous",
    levels: Tensor | None = None,
    panels: int | None = None,
) -> Theorem1:
    """Theorem 1 for a Gaussian field and a linear score on a torus: nothing is sampled.

    Args:
        spectrum: c_k, eigenvalues of the covariance of the clean field on the grid of ``torch.fft.fftn``.
        score: the learned score.
        patch: the sites A.
        vm: last variance of the reverse process.
        vx: first variance.
        churn: lambda: 1 for the reverse SDE, 0 for the probability-flow ODE.
        start: law of the learned process at vx; N(0, vx) by default.
        sampler: the continuous process, or steps of that kind.
        levels: variances of the steps, from vx down to vm; 64 steps equally spaced in log by default.
        panels: quadrature panels of the continuous process; by default one for each factor of two.

    Returns:
        The bound is a certificate; ``truth`` is the exact distance between the two laws of the patch.

    Raises:
        OracleError: not ``0 < vm < vx``, a spectrum, patch, churn or levels that make no sense, or a score of
            another shape.
    """
    check_variances(vm, vx)
    spectrum = check_spectrum(spectrum)
    check_patch(patch, spectrum.shape)
    rollout = Rollout(score, start or FieldLaw(torch.full_like(spectrum, vx)), vm, vx, churn)
    if sampler == "continuous":
        count = panels or max(2, math.ceil(math.log2(vx / vm)))
        value, end = continuous_drift(spectrum, rollout, patch, count)
        coarse, _ = continuous_drift(spectrum, rollout, patch, (count + 1) // 2)
        drift = Quantity(value, "exact", abs(value - coarse) + ROUNDING)
    else:
        levels = log_levels(vm, vx, 64) if levels is None else levels.double()
        check_levels(levels, vm, vx)
        value, end = stepwise_drift(spectrum, rollout, patch, levels.to(spectrum.device), sampler)
        drift = Quantity(value, "exact", ROUNDING)
    enclosure = initial_distance(spectrum, rollout.start, patch, vm, vx, churn=churn)
    initial = Quantity(enclosure.upper, "certificate", enclosure.gap if len(patch) == 1 else 0.0)
    return Theorem1(
        bound=total_bound(initial, drift),
        initial=initial,
        drift=drift,
        truth=gaussian_distance(end.patch(patch), FieldLaw(spectrum + vm).patch(patch)),
        budget=patch_budget(spectrum, patch, vm, vx, churn),
        size_uniform=None,
        shape=tuple(spectrum.shape),
        patch=tuple(map(tuple, patch)),
        vm=vm,
        vx=vx,
        churn=churn,
        sampler=sampler,
    )


def patch_budget(spectrum: Tensor, patch: Patch, vm: float, vx: float, churn: float) -> Quantity | None:
    """Upper bound on the budget of a patch: that of a site for each; none where there is no closed form."""
    if not is_ferromagnetic(spectrum):
        return None
    return Quantity(len(patch) * gaussian_budget(spectrum, vm, vx, churn=churn).value, "certificate")
