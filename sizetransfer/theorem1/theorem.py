r"""Theorem 1 as a number (paper §2.2 and A.2, with the constant :math:`C_A = 1`).

.. math:: d_{BL}(\pi_A, \hat\pi_A) \le \min(2,\ \delta_{ini} + \epsilon),\qquad
   \epsilon = \gamma\int_{v_m}^{v_x}\sum_i E\big[\omega_{A,i}(v, \hat X_v)\,|\hat s_i - s_i|(\hat X_v, v)\big]\,dv,

with expectations along the *learned* process :math:`\hat X`, influence weights :math:`\omega`
(:mod:`~sizetransfer.theorem1.weights`), :math:`\pi_A` the patch law of the clean field *with noise of variance
vm*, and :math:`\delta_{ini}` the distance between :math:`\pi_A` and what the exact reverse process makes of the
learned initial law. The clock is v = sigma^2; nothing depends on the schedule.

A sampler in steps has, by the same telescoping sum,

.. math:: \epsilon = \sum_n\sum_i \omega_{A,i}(v_{n+1})\;E\big|X'_i - X^*_i\big|,

where :math:`X^*` is one exact step from the same point with the same :math:`\xi`. For linear scores on a Gaussian
field, :math:`X'_i - X^*_i` is normal: its mean and the variance that the unequal transfers give it come from the
rollout, and the unequal noises add :math:`[(n - S^{1/2}U)(n - S^{1/2}U)^\dagger]_{ii}`, with n that of the sampler
(:mod:`~sizetransfer.theorem1.rollout`), S the exact step's covariance and U the rotation that brings the two
closest: the polar factor of :math:`S^{1/2}n`. On a torus of one channel this is
:math:`\mathrm{mean}_k(|n_k| - \sqrt{S_k})^2`. Sums over i run over all components, sites and channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Patch, Site
from sizetransfer.contracts.quantity import Quantity, weakest
from sizetransfer.numerics.gaussian import GaussianField
from sizetransfer.theorem1.fields import as_field, components_of
from sizetransfer.theorem1.linear import FieldLaw, LinearScore, absolute_mean
from sizetransfer.theorem1.patches import gaussian_distance
from sizetransfer.theorem1.quantities import Enclosure, check_variances
from sizetransfer.theorem1.rollout import Rollout, Stepper, check_levels, law_of, log_levels, log_panels
from sizetransfer.theorem1.weights import (
    contraction,
    ferromagnetic_row_sums,
    gamma,
    gaussian_budget,
    gaussian_weights,
    residual,
)

Sampler = Literal["continuous", "euler", "heun", "ancestral"]
ROUNDING = 64 * torch.finfo(torch.float64).eps
"""What rounding may change in a drift error, whose terms are differences of numbers of size one; for each row of the
matrices that are multiplied."""


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
        patch: the sites A, or pairs of a site and a channel.
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
    patch: tuple[Site | tuple[Site, int], ...]
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
    return Quantity(min(2.0, initial.value + drift.value + numerical), statistical, kind)


def initial_distance(
    field: Tensor | GaussianField, start: FieldLaw, patch: Patch, vm: float, vx: float, *, churn: float = 1.0
) -> Enclosure:
    """Enclosure of delta_ini for a Gaussian field: the exact reverse process from ``start`` against N(0, C + vm).

    For ``start`` = N(0, vx) and the reverse SDE the second law has eigenvalues ``(c+vm) - c (c+vm)^2 / (c+vx)^2``.
    """
    field = as_field(field)
    level = torch.tensor([vx], dtype=torch.float64, device=field.covariance.device)
    kernel = field.function(lambda c: contraction(c, level, vm, churn))[0]
    added = field.function(lambda c: residual(c, level, vm, churn))[0]
    mean = None if start.mean is None else field.basis.apply(kernel, start.mean)
    reached = FieldLaw(field.basis.congruence(kernel, start.spectrum) + added, mean, field.basis)
    return gaussian_distance(reached.patch(patch), noisy_law(field, vm).patch(patch))


def noisy_law(field: GaussianField, v: float) -> FieldLaw:
    """The law of the field with noise of variance ``v``."""
    return FieldLaw(field.covariance + v * field.basis.identity(field.covariance), None, field.basis)


def continuous_drift(field: GaussianField, rollout: Rollout, patch: Patch, panels: int) -> tuple[float, FieldLaw]:
    """Weighted drift error of a linear reverse process of a Gaussian field, and the law at its end."""
    total, factor = 0.0, gamma(rollout.churn)
    for passage in rollout.panels(panels):
        exact = field.function(lambda c, v=passage.v: 1 / (c + v.reshape(-1, *(1,) * c.ndim)))  # type: ignore[misc]
        weights = gaussian_weights(field, patch, passage.v, rollout.vm, churn=rollout.churn)
        error = _summed(weights, passage.mean_error(exact), passage.error_std(exact))
        total += factor * float(passage.dv @ error)
    return total, law_of(passage)


def _summed(weights: Tensor, mean: Tensor | None, std: Tensor) -> Tensor:
    """Sum over components of weight times E|N(mean, std^2)|, shape ``(V,)``."""
    return (weights * absolute_mean(mean, std)).flatten(1).sum(1)


def stepwise_drift(
    field: GaussianField, rollout: Rollout, patch: Patch, levels: Tensor, sampler: Stepper
) -> tuple[float, FieldLaw]:
    """Weighted error of a linear sampler in steps on a Gaussian field, and the law at its end."""
    total, churn = 0.0, rollout.churn
    weights = gaussian_weights(field, patch, levels[1:], rollout.vm, churn=churn)
    for n, step in enumerate(rollout.steps(levels, sampler)):
        before, after = levels[n : n + 1], levels[n + 1 : n + 2]
        mean = field.function(lambda c, v=before, to=after: contraction(c, v, to, churn))[0]  # type: ignore[misc]
        root = field.function(lambda c, v=before, to=after: residual(c, v, to, churn).sqrt())[0]  # type: ignore[misc]
        error, std = step.error(mean, root)
        total += float(_summed(weights[n : n + 1], None if error is None else error[None], std[None]))
    return total, step.end


def gaussian_theorem1(
    field: Tensor | GaussianField,
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
    """Theorem 1 for a Gaussian field and a linear score: nothing is sampled.

    Args:
        field: the clean field; a tensor ``*S`` stands for one channel on a torus, with these eigenvalues c_k of the
            covariance on the grid of ``torch.fft.fftn``.
        score: the learned score, in the basis of the field.
        patch: the sites A, with all their channels, or pairs of a site and a channel.
        vm: last variance of the reverse process.
        vx: first variance.
        churn: lambda: 1 for the reverse SDE, 0 for the probability-flow ODE.
        start: law of the learned process at vx; N(0, vx) by default.
        sampler: the continuous process, or steps of that kind.
        levels: variances of the steps, from vx down to vm; 64 steps equally spaced in log by default.
        panels: quadrature panels of the continuous process; by default one for each factor of two.

    Returns:
        The bound is a certificate; ``truth`` is the exact distance between the two laws of the patch; ``size_uniform``
        is none, since one size does not tell.

    Raises:
        OracleError: not ``0 < vm < vx``, a spectrum, patch, churn or levels that make no sense, or a score of
            another shape.
    """
    check_variances(vm, vx)
    field = as_field(field)
    basis = field.basis
    components = components_of(field, patch)
    start = start or FieldLaw(vx * basis.identity(field.covariance), None, basis)
    rollout = Rollout(score, start, vm, vx, churn)
    if sampler == "continuous":
        drift, end = _drift_of_process(field, rollout, patch, panels or default_panels(vm, vx))
    else:
        levels = log_levels(vm, vx, 64) if levels is None else levels
        drift, end = _drift_of_steps(field, rollout, patch, levels, sampler)
    enclosure = initial_distance(field, start, patch, vm, vx, churn=churn)
    initial = Quantity(enclosure.upper, enclosure.gap if len(components) == 1 else 0.0, "certificate")
    return Theorem1(
        bound=total_bound(initial, drift),
        initial=initial,
        drift=drift,
        truth=gaussian_distance(end.patch(patch), noisy_law(field, vm).patch(patch)),
        budget=patch_budget(field, patch, vm, vx, churn),
        size_uniform=None,
        shape=basis.shape,
        patch=tuple(patch),
        vm=vm,
        vx=vx,
        churn=churn,
        sampler=sampler,
    )


def _drift_of_process(field: GaussianField, rollout: Rollout, patch: Patch, panels: int) -> tuple[Quantity, FieldLaw]:
    """Drift of the continuous process, with what half as many panels change of it, and the law at the end."""
    value, end = continuous_drift(field, rollout, patch, panels)
    coarse, _ = continuous_drift(field, rollout, patch, (panels + 1) // 2)
    return Quantity(value, abs(value - coarse) + ROUNDING * field.basis.block), end


def _drift_of_steps(
    field: GaussianField, rollout: Rollout, patch: Patch, levels: Tensor, sampler: Stepper
) -> tuple[Quantity, FieldLaw]:
    """Drift of the steps of a sampler, and the law at the end.

    Raises:
        OracleError: levels that do not fall from vx to vm.
    """
    levels = levels.double()
    check_levels(levels, rollout.vm, rollout.vx)
    value, end = stepwise_drift(field, rollout, patch, levels.to(field.covariance.device), sampler)
    return Quantity(value, ROUNDING * field.basis.block), end


def default_panels(vm: float, vx: float) -> int:
    """Quadrature panels between two variances: one for each factor of two, and at least two."""
    return max(2, math.ceil(math.log2(vx / vm)))


def patch_budget(field: GaussianField, patch: Patch, vm: float, vx: float, churn: float) -> Quantity:
    """Budget of a patch: in closed form, that of a component for each, or else integrated over the noise levels.

    Returns:
        A ``certificate`` for ferromagnetic couplings, uniform in the size where the couplings are. Otherwise the
        budget itself, ``exact`` up to the stated error of its quadrature.
    """
    if ferromagnetic_row_sums(field) is not None:
        count = len(components_of(field, patch))
        return Quantity(count * gaussian_budget(field, vm, vx, churn=churn).value, kind="certificate")
    return integrated_budget(field, patch, vm, vx, churn=churn)


def integrated_budget(
    field: Tensor | GaussianField, patch: Patch, vm: float, vx: float, *, churn: float = 1.0
) -> Quantity:
    r"""Budget :math:`\gamma\int_{v_m}^{v_x}\sum_i\omega_{A,i}\,dv` of the exact weights, by quadrature.

    Args:
        field: as for :func:`gaussian_theorem1`.
        patch: likewise.
        vm: last variance.
        vx: first variance.
        churn: lambda.

    Returns:
        ``exact``, with the difference from half as many panels as its error.

    Raises:
        OracleError: not ``0 < vm < vx``, or a field, patch or churn that makes no sense.
    """
    check_variances(vm, vx)
    field, count = as_field(field), default_panels(vm, vx)
    fine, coarse = (
        sum(
            float(dv.to(v) @ gaussian_weights(field, patch, v, vm, churn=churn).flatten(1).sum(1))
            for v, dv in log_panels(vm, vx, panels)
        )
        for panels in (count, (count + 1) // 2)
    )
    factor = gamma(churn)
    return Quantity(factor * fine, factor * abs(fine - coarse) + ROUNDING * factor * fine)
