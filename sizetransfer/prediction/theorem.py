"""Theorem 1 by patch and size, and the light cone: influence weights over distance and noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from sizetransfer.comparison import (
    Enclosure,
    HasCovarianceSpectrum,
    Kind,
    NotLinearError,
    Quantity,
    Theorem1,
    covariance_weights,
    gaussian_budget,
    gaussian_weights,
    theorem1_bound,
)
from sizetransfer.comparison.monte_carlo import indicator
from sizetransfer.comparison.weights import is_ferromagnetic
from sizetransfer.domain import Site
from sizetransfer.noise import expand
from sizetransfer.oracle import Context, HasCovariance, HasPosterior, Teacher
from sizetransfer.prediction.irreducible import BestScores
from sizetransfer.prediction.question import PredictionSpec
from sizetransfer.randomness import stream
from sizetransfer.student import Student

LEVELS = 49
"""Noise levels of the light cone."""


@dataclass(frozen=True)
class TheoremRow:
    """Theorem 1 at one size, or why it is not there.

    Attributes:
        size: sites along each axis.
        patch: the sites A.
        subject: whose score the bound is for: ``student``, or ``best score of radius R``, what a perfect training
            would reach.
        bound, initial, drift, truth, budget, size_uniform: see :class:`sizetransfer.comparison.Theorem1`.
        reason: why numbers are missing, and what stands in for them.
    """

    size: int
    patch: tuple[Site, ...]
    subject: str | None = None
    bound: Quantity | None = None
    initial: Quantity | None = None
    drift: Quantity | None = None
    truth: Enclosure | None = None
    budget: Quantity | None = None
    size_uniform: bool | None = None
    reason: str = ""


@dataclass(frozen=True)
class LightCone:
    """Influence weights of a patch over distance and noise level.

    Attributes:
        size: sites along each axis.
        sigmas: noise levels, ascending.
        weights: the largest weight at each distance from the patch, one row for each noise level.
        kind: ``exact`` weights of a Gaussian field, or an ``estimate`` from posterior covariances.
    """

    size: int
    sigmas: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    kind: Kind


def theorem_row(
    teacher: Teacher,
    student: Student | None,
    best: BestScores | None,
    size: int,
    spec: PredictionSpec,
    *,
    ready: bool,
) -> TheoremRow:
    """Theorem 1 at one size: exact where it can be, otherwise with the reason.

    Args:
        teacher: the exact score.
        student: or none: then only the budget is known.
        best: the best scores at this size, where they are known; they stand in for a student that is not ready.
        size: sites along each axis.
        spec: patch and noise range.
        ready: the student's score means something: it is trained, or has no weights.
    """
    domain = teacher.domain(size)
    patch = spec.patch_on(domain.shape)
    if not isinstance(teacher, HasCovarianceSpectrum) or teacher.field.channels != 1:
        reason = "Theorem 1 is exact for Gaussian fields of one channel on a torus; this teacher is not one"
        return TheoremRow(size, patch, reason=reason)
    if student is None:
        return _budget_alone(teacher, size, patch, spec, "no student was given")
    low, high = spec.noise_range(teacher)
    if ready:
        try:
            found = theorem1_bound(
                teacher, student, size=size, patch=patch, sigma_min=low, sigma_max=high, method="exact"
            )
        except NotLinearError:
            return _row(_sampled(teacher, student, size, patch, spec), "student", _NOT_LINEAR)
        return _row(found, "student", "")
    if best is None or student.radius is None or best.filter(student.radius) is None:
        reason = "the student is not trained, and no best score of its radius is at hand"
        return _budget_alone(teacher, size, patch, spec, reason)
    found = theorem1_bound(teacher, best, size=size, patch=patch, sigma_min=low, sigma_max=high, method="exact")
    return _row(found, f"best score of radius {student.radius}", "the student is not trained")


_NOT_LINEAR = "the student is not linear: the drift error is an estimate from its rollouts, and the truth is not known"


def _sampled(teacher: Teacher, student: Student, size: int, patch: tuple[Site, ...], spec: PredictionSpec) -> Theorem1:
    low, high = spec.noise_range(teacher)
    return theorem1_bound(
        teacher,
        student,
        size=size,
        patch=patch,
        sigma_min=low,
        sigma_max=high,
        method="monte-carlo",
        steps=32,
        trajectories=32,
        generator=stream(spec.seed, "theorem 1", size),
    )


def _row(found: Theorem1, subject: str, reason: str) -> TheoremRow:
    return TheoremRow(
        size=found.shape[0],
        patch=found.patch,
        subject=subject,
        bound=found.bound,
        initial=found.initial,
        drift=found.drift,
        truth=found.truth,
        budget=found.budget,
        size_uniform=found.size_uniform,
        reason=reason,
    )


def _budget_alone(
    teacher: HasCovarianceSpectrum, size: int, patch: tuple[Site, ...], spec: PredictionSpec, reason: str
) -> TheoremRow:
    low, high = spec.noise_range(cast(Teacher, teacher))
    spectrum = teacher.covariance_spectrum(size)
    if not is_ferromagnetic(spectrum):
        return TheoremRow(size, patch, reason=reason)
    budget = Quantity(len(patch) * gaussian_budget(spectrum, low**2, high**2).value, "certificate")
    # The uniform mode of a field of finite-range couplings has one variance, 1/m^2, at every size.
    return TheoremRow(size, patch, budget=budget, size_uniform=True, reason=reason)


def light_cone(teacher: Teacher, size: int, spec: PredictionSpec) -> LightCone | None:
    """Influence weights between the noise levels of the reverse process; none for a teacher that is not Gaussian."""
    domain = teacher.domain(size)
    patch = spec.patch_on(domain.shape)
    low, high = spec.noise_range(teacher)
    sigmas = torch.logspace(math.log10(low), math.log10(high), LEVELS, dtype=torch.float64)
    if isinstance(teacher, HasCovarianceSpectrum) and teacher.field.channels == 1:
        weights, kind = gaussian_weights(teacher.covariance_spectrum(size), patch, sigmas**2, low**2), "exact"
    elif isinstance(teacher, HasCovariance) and isinstance(teacher, HasPosterior):
        weights, kind = _from_covariance(teacher, size, patch, sigmas, low), "estimate"
    else:
        return None
    distance = torch.stack([domain.distance(site) for site in patch]).amin(0).flatten()
    table = weights.new_zeros(LEVELS, int(distance.max()) + 1)
    table.scatter_reduce_(1, distance.expand(LEVELS, -1), weights.flatten(1), "amax")
    return LightCone(size, tuple(sigmas.tolist()), tuple(map(tuple, table.tolist())), cast(Kind, kind))


def _from_covariance(teacher: HasPosterior, size: int, patch: Sequence[Site], sigmas: Tensor, low: float) -> Tensor:
    """Covariance form of the weights of a Gaussian law, whose posterior is the same for every x, ``(V, *S)``."""
    law = cast(Teacher, teacher)
    domain = law.domain(size)
    x = sigmas.new_zeros(len(sigmas), law.field.channels, *domain.shape)
    rows = [teacher.posterior_covariance(x, sigmas, Context(domain), tuple(site)) for site in patch]
    covariance = torch.stack([row.abs().sum(1) for row in rows]).sum(0)
    weights = covariance_weights(covariance, indicator(patch, x), expand(sigmas**2, x), low**2)
    return weights.amax(1)
