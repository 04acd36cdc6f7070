r"""The weighted drift error, and influence weights, by sampling: for any teacher whose smoothed score is known.

*Drift error.* The learned process is the Euler–Maruyama rollout of the student between given levels
:math:`v_0 > v_1 > \dots`; between two of them its drift is the score at the last. In every step a trajectory stops
once, at a variance v drawn log-uniformly within the step, where

.. math:: \gamma\,v\ln\frac{v_n}{v_{n+1}}\sum_i\omega_{A,i}(v, \hat X_v)\,
   |\hat s_i(\hat X_{v_n}, v_n) - s_i(\hat X_v, v)|

is unbiased for the step's part of the integral in Theorem 1. Trajectories are independent: the standard error is
that of their mean. The sampler's own discretisation is part of the drift error, and nothing is left out.

*Initial error.* The rollout starts from N(0, vx), the exact process from the clean field X_0 plus that noise.
Along the segment between them, with t uniform,
:math:`\delta_{ini} \le E\sum_i\omega_{A,i}(v_x, X + tX_0)\,|X_{0i}|`.

Influence weights that the theorem is proven with keep the estimate honest up to sampling; where the weights are
themselves estimates (a posterior that is not known to be associated), so is everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Patch
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import (
    Context,
    HasPosterior,
    HasSmoothedScore,
    Sample,
    Teacher,
    draw_fields,
    in_arithmetic_of_teacher,
)
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.randomness import branch_of, fields_of, normal, uniform
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.gaussian import GaussianField
from sizetransfer.numerics.statistics import error_of_mean, mean
from sizetransfer.scores.response import require_finite
from sizetransfer.theorem1.fields import as_field, patch_components
from sizetransfer.theorem1.quantities import check_variances
from sizetransfer.theorem1.rollout import check_levels
from sizetransfer.theorem1.weights import covariance_weights, gamma, gaussian_weights

InfluenceWeights = Callable[[Tensor, Tensor, Context], Tensor]
"""Upper bounds on the influence of every component on the law of a patch at the end: from fields ``B C *S``,
variances ``(B,)`` and their context to weights that broadcast against the fields."""


@dataclass(frozen=True)
class GaussianInfluence:
    """Exact weights of a Gaussian field, the same for every x.

    Attributes:
        field: the clean field, or for one channel on a torus the spectrum of its covariance.
        patch: the sites A, or pairs of a site and a channel.
        vm: last variance.
        churn: lambda.
    """

    field: Tensor | GaussianField
    patch: Patch
    vm: float
    churn: float = 1.0

    def __call__(self, x: Tensor, v: Tensor, context: Context) -> Tensor:
        """Weights ``B C *S``."""
        weights = gaussian_weights(as_field(self.field), self.patch, v.double().cpu(), self.vm, churn=self.churn)
        return weights.reshape(len(v), *x.shape[1:]).to(x)


@dataclass(frozen=True)
class PosteriorInfluence:
    """Weights from the posterior covariance at x, for the reverse SDE: a certificate for associated posteriors.

    Attributes:
        oracle: the teacher, which must know its posterior covariance.
        patch: the sites A, with all their channels, or pairs of a site and a channel.
        vm: last variance.
    """

    oracle: HasPosterior
    patch: Patch
    vm: float

    def __call__(self, x: Tensor, v: Tensor, context: Context) -> Tensor:
        """Weights ``B C *S``."""
        covariance = torch.zeros_like(x)
        components = patch_components(self.patch, x.shape[2:], x.shape[1])
        for site in dict.fromkeys(component[1:] for component in components):
            rows = self.oracle.posterior_covariance(x, v.sqrt(), context, site)
            channels = [component[0] for component in components if component[1:] == site]
            covariance = covariance + rows[:, channels].abs().sum(1)
        return covariance_weights(covariance, indicator(self.patch, x), expand(v, x), self.vm)


def indicator(patch: Patch, x: Tensor) -> Float[Tensor, "channels *size"]:
    """One on the components of ``patch``, zero elsewhere, for fields like ``x``.

    Raises:
        OracleError: the patch leaves the lattice.
    """
    inside = torch.zeros_like(x[0])
    for component in patch_components(patch, x.shape[2:], x.shape[1]):
        inside[component] = 1
    return inside


def smoothed_oracle(teacher: Teacher) -> HasSmoothedScore:
    """The teacher, which must know its smoothed score.

    Raises:
        OracleError: it does not.
    """
    if not isinstance(teacher, HasSmoothedScore):
        raise OracleError(
            "The teacher does not know its smoothed score.",
            where=type(teacher).__name__,
            expected="the capability HasSmoothedScore",
            fix="use a teacher with a smoothed score, for example gaussian",
        )
    return teacher


@dataclass(frozen=True)
class RolloutErrors:
    """Estimates along learned rollouts, with standard errors.

    Attributes:
        drift: epsilon, the weighted drift error.
        initial: upper bound on delta_ini from coupled starting points.
        terminal: the fields at the end of the rollouts, ``B C *S``.
    """

    drift: Quantity
    initial: Quantity
    terminal: Tensor


@in_arithmetic_of_teacher
def rollout_errors(
    teacher: Teacher,
    student: Student,
    weights: InfluenceWeights,
    *,
    size: int,
    levels: Float[Tensor, "levels"],
    churn: float = 1.0,
    trajectories: int = 64,
    batch: int = 32,
    generator: torch.Generator,
) -> RolloutErrors:
    """Weighted drift error of a student's Euler–Maruyama rollouts from N(0, vx), and of their start.

    Args:
        teacher: knows its smoothed score.
        student: any student for its fields.
        weights: influence weights of the patch.
        size: sites along each axis.
        levels: variances of the steps, from vx down to vm.
        churn: lambda; the weights must be those of the same churn.
        trajectories: independent rollouts, at least two.
        batch: rollouts at a time; bounds the memory.
        generator: of all random numbers.

    Raises:
        OracleError: the teacher does not know its smoothed score, fewer than two trajectories are asked for, or the
            levels do not fall.
        NonFiniteError: a rollout leaves the numbers.
    """
    oracle = smoothed_oracle(teacher)
    _check_counts("trajectories", trajectories, batch)
    check_variances(float(levels[-1]), float(levels[0]))
    check_levels(levels, float(levels[-1]), float(levels[0]))
    drifts, starts, ends = [], [], []
    for own, count in _batches(trajectories, batch, generator):
        clean = draw_fields(teacher, count, size, generator=own)
        noise = normal(clean.x.shape, generator=own, like=clean.x)
        start = _live(noise * levels[0].sqrt().to(noise), clean.context)
        starts.append(_initial_errors(weights, start, clean, levels[0], own))
        drift, end = _drift_errors(oracle, student, weights, start, clean.context, levels, churn, own)
        drifts.append(drift)
        ends.append(end)
    terminal = require_finite(torch.cat(ends), f"rollouts of {type(student).__name__} at size {size}")
    return RolloutErrors(mean(torch.cat(drifts)), mean(torch.cat(starts)), terminal)


def _check_counts(name: str, count: int, batch: int) -> None:
    if count < 2 or batch < 1:
        raise OracleError(
            f"A standard error needs at least two {name}.",
            where=f"{name}, batch",
            expected=f"{name} >= 2 and batch >= 1",
            got=f"{name} = {count}, batch = {batch}",
            fix="raise them",
        )


def _batches(total: int, batch: int, generator: torch.Generator) -> Iterator[tuple[torch.Generator, int]]:
    """What the fields of every batch are drawn from, and how many there are."""
    whole = branch_of(generator, "trajectories")
    for first in range(0, total, batch):
        count = min(batch, total - first)
        yield fields_of(whole, first, count), count


def _live(x: Tensor, context: Context) -> Tensor:
    return x if context.mask is None else x * context.mask


def _initial_errors(
    weights: InfluenceWeights, start: Tensor, clean: Sample, vx: Tensor, generator: torch.Generator
) -> Tensor:
    """Cost of starting from ``start`` instead of ``start + X_0``, for every trajectory."""
    share = uniform((len(start),), generator=generator, like=start)
    between = start + expand(share, start) * clean.x
    at = weights(between, vx.to(start).expand(len(start)), clean.context)
    return (at * clean.x.abs()).flatten(1).sum(1)


def _drift_errors(
    oracle: HasSmoothedScore,
    student: Student,
    weights: InfluenceWeights,
    x: Tensor,
    context: Context,
    levels: Tensor,
    churn: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Weighted drift error of every trajectory from ``x``, and the fields at its end."""
    total, factor = x.new_zeros(len(x)), gamma(churn)
    for v, after in zip(levels[:-1].to(x), levels[1:].to(x), strict=True):
        with torch.no_grad():
            learned = student(x, v.sqrt().expand(len(x)), context)
        unit = uniform((len(x),), generator=generator, like=x)
        stop = (v * (after / v) ** unit).clamp(after, v)
        x = _advance(x, factor * learned, v - stop, churn, context, generator)
        error = (learned - oracle.smoothed_score(x, stop.sqrt(), context)).abs()
        weighted = (weights(x, stop, context) * error).flatten(1).sum(1)
        total = total + factor * torch.log(v / after) * stop * weighted
        x = _advance(x, factor * learned, stop - after, churn, context, generator)
    return total, x


def _advance(
    x: Tensor, drift: Tensor, length: Tensor, churn: float, context: Context, generator: torch.Generator
) -> Tensor:
    """Move ``x`` with constant ``drift`` over clock times ``length`` of shape ``(B,)``."""
    noise = normal(x.shape, generator=generator, like=x)
    return _live(x + expand(length, x) * drift + churn * expand(length.sqrt(), x) * noise, context)


@dataclass(frozen=True)
class InfluenceTable:
    """Influence weights averaged over noisy fields, an estimate: one number a site, each with its standard error.

    Attributes:
        weights: means, shape ``C *S``.
        standard_errors: theirs, likewise.
    """

    weights: Float[Tensor, "channels *size"]
    standard_errors: Float[Tensor, "channels *size"]


@in_arithmetic_of_teacher
def influence_table(
    teacher: Teacher,
    *,
    patch: Patch,
    size: int,
    sigma: float,
    sigma_min: float,
    samples: int = 256,
    batch: int = 64,
    generator: torch.Generator,
) -> InfluenceTable:
    r"""Influence weights of the covariance form, averaged over noisy fields at ``sigma``, from samples alone.

    With :math:`m(x) = E[X_0|x] = x + v s_v(x)` (Tweedie), :math:`\mathrm{Cov}(X_{0a}, X_{0i}|x)` averages to
    :math:`E[(X_{0a} - m_a)(X_{0i} - m_i)]` over pairs of clean and noisy fields: no posterior is sampled. The sum over
    a has no absolute values: where posteriors are not associated, covariances of different signs cancel in it.

    Args:
        teacher: knows its smoothed score.
        patch: the sites A.
        size: sites along each axis.
        sigma: noise level at which the influence is felt.
        sigma_min: noise level at which the process stops.
        samples: independent fields, at least two.
        batch: fields at a time; bounds the memory.
        generator: of all random numbers.

    Raises:
        OracleError: the teacher does not know its smoothed score, not ``0 < sigma_min < sigma``, or fewer than two
            samples.
    """
    _check_counts("samples", samples, batch)
    oracle, vm, v = smoothed_oracle(teacher), sigma_min**2, sigma**2
    check_variances(vm, v)
    patch_components(patch, teacher.domain(size).shape, teacher.field.channels)
    found: list[Tensor] = []
    for own, count in _batches(samples, batch, generator):
        clean = draw_fields(teacher, count, size, generator=own)
        x = _live(clean.x + sigma * normal(clean.x.shape, generator=own, like=clean.x), clean.context)
        posterior_mean = x + v * oracle.smoothed_score(x, x.new_full((len(x),), sigma), clean.context)
        residual = clean.x - posterior_mean
        on_patch = residual * indicator(patch, x)
        covariance = on_patch.flatten(1).sum(1).reshape(-1, *(1,) * (x.ndim - 1)) * residual
        found.append(covariance_weights(covariance, indicator(patch, x), torch.as_tensor(v).to(x), vm))
    values = torch.cat(found)
    return InfluenceTable(values.mean(0), error_of_mean(values))
