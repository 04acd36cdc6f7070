r"""Smoothed oracles against brute force: the posterior :math:`\propto p_0(x_0)\,e^{-|x - x_0|^2/2v}` on a grid.

The trapezoidal rule converges faster than any power of its spacing for analytic densities. Its coordinates are whitened
by the posterior that a Gaussian law with the samples' moments would have; the same rule on a grid moved by half a
spacing tells its error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sizetransfer.contracts.oracle import HasPosterior, HasSmoothedScore, Sample
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import teacher_check
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError
from sizetransfer_verification.conformance.subjects import TeacherSubject
from sizetransfer_verification.conformance.teachers.setting import (
    DENSITY,
    NOISE_ORACLE,
    Setting,
    at_site,
    deterministic,
    epsilon,
    few_variables,
    log_density,
    rows,
    setting,
)

NODES = {1: 401, 2: 81, 3: 35, 4: 21}
"""Nodes along each axis, by the number of axes; the grid spans :data:`REACH` of these standard deviations each way."""

REACH = 6.0
WHITENING_DRAWS = 2000


@dataclass(frozen=True)
class Moments:
    """Posterior moments of one field: mean ``(n,)`` and covariance ``(n, n)``."""

    mean: Tensor
    covariance: Tensor


@teacher_check(
    "On few sites, smoothed score, posterior mean and covariance are those of the density, integrated on a grid.",
    cause="an oracle of noisy fields derived for another law, another normalisation of the noise, or wrong sites",
    needs=(DENSITY, NOISE_ORACLE, deterministic("smoothed_score", "posterior_mean", "posterior_covariance")),
    space=CaseSpace(examples=2, batches=(1,), largest=1, noises=(1.0,)),
)
def noisy_oracles_agree_with_brute_force(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    few_variables(asked.sample, max(NODES))
    if asked.sample.labels:
        raise NotApplicableError("The law has discrete labels, over which the grid does not run.")
    x, v, scale = asked.noisy.x.flatten(), float(asked.sigma[0]) ** 2, asked.teacher.field.sigma_data
    found, other = (_posterior(asked, points) for points in _grids(subject, case, asked))
    error = float((found.mean - other.mean).abs().max())
    spread = float((found.covariance - other.covariance).abs().max())
    if max(error / scale, spread / scale**2) > 1e-4:
        raise NotApplicableError(f"{NODES[len(x)]} nodes an axis do not resolve the density (error {error:.2g}).")
    teacher, shape = asked.teacher, asked.noisy.x.shape[1:]
    if isinstance(teacher, HasSmoothedScore):
        slack = error + v * epsilon(teacher, "smoothed_score")
        got = x + v * asked.smoothed_score().flatten()
        evidence.close(got, found.mean, "x + v s_v(x) against the grid", "quadrature", scale=scale, slack=slack)
    if isinstance(teacher, HasPosterior):
        slack = error + epsilon(teacher, "posterior_mean")
        mean = asked.posterior_mean().flatten()
        evidence.close(mean, found.mean, "E[X_0 | x] against the grid", "quadrature", scale=scale, slack=slack)
        slack = spread + epsilon(teacher, "posterior_covariance")
        expected = at_site(found.covariance.reshape(*shape, *shape), asked.site, 1)
        got = asked.posterior_covariance()[0]
        evidence.close(got, expected, "Cov(X_0 | x) against the grid", "quadrature", scale=scale**2, slack=slack)


def _grids(subject: TeacherSubject, case: Case, asked: Setting) -> tuple[Tensor, Tensor]:
    """Points ``(M, n)`` of two grids about the posterior of the Gaussian law with the samples' moments."""
    draws, x = subject.draws(case, WHITENING_DRAWS).x.flatten(1), asked.noisy.x.flatten().cpu()
    axes, v = draws.shape[1], float(asked.sigma[0]) ** 2
    prior, one = torch.cov(draws.T).reshape(axes, axes), torch.eye(axes, dtype=draws.dtype)
    gain = torch.linalg.solve(prior + v * one, prior)
    centre = draws.mean(0) + gain.T @ (x - draws.mean(0))
    whitening = torch.linalg.cholesky(0.5 * v * (gain + gain.T))
    line = torch.linspace(-REACH, REACH, NODES[axes], dtype=draws.dtype)
    grid = torch.cartesian_prod(*[line] * axes).reshape(-1, axes)
    half = 0.5 * float(line[1] - line[0])
    first, second = (centre + points @ whitening.T for points in (grid, grid + half))
    return first.to(asked.noisy.x), second.to(asked.noisy.x)


def _posterior(asked: Setting, points: Tensor) -> Moments:
    x, v = asked.noisy.x, float(asked.sigma[0]) ** 2
    logarithms = []
    for block in torch.split(points, 50_000):
        fields = block.reshape(-1, *x.shape[1:])
        context = rows(asked.sample, [0] * len(fields)).context
        logarithms.append(log_density(asked.teacher, Sample(fields, context)))
    weights = torch.softmax(torch.cat(logarithms) - (points - x.flatten()).square().sum(1) / (2 * v), dim=0)
    mean = weights @ points
    centred = points - mean
    return Moments(mean, (centred * weights[:, None]).T @ centred)
