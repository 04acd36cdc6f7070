"""Theorem 1 by patch and size, and the light cone: influence weights over distance and noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sizetransfer.contracts.domain import Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import Teacher
from sizetransfer.contracts.quantity import Kind, Quantity
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.student import Student
from sizetransfer.diagnosis.irreducible import BestScores
from sizetransfer.diagnosis.question import PredictionSpec
from sizetransfer.numerics.gaussian import GaussianField
from sizetransfer.theorem1 import (
    Enclosure,
    NotLinearError,
    Theorem1,
    budget_is_uniform,
    certificate_of,
    gaussian_field,
    gaussian_weights,
    patch_budget,
    theorem1_bound,
)

LEVELS = 49
"""Noise levels of the light cone."""
ROLLOUTS = 32
"""Independent rollouts of a student that is not linear."""
ROLLOUT_STEPS = 32
"""Euler steps of each."""


@dataclass(frozen=True)
class TheoremRow:
    """Theorem 1 at one size, or why it is not there.

    Attributes:
        size: sites along each axis.
        patch: the sites A.
        subject: whose score the bound is for: ``student``, or ``best score of radius R``, what a perfect training
            would reach.
        bound, initial, drift, truth, budget, size_uniform: see :class:`sizetransfer.theorem1.Theorem1`.
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
        kind: ``exact``, or ``certificate`` where they are bounds that hold for every field.
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
    patch = spec.patch_on(teacher.domain(size).shape)
    field, reason = _field(teacher, size)
    if field is None:
        return _certified(teacher, size, patch, spec) or TheoremRow(size, patch, reason=reason)
    if student is None:
        return _budget_alone(teacher, field, size, patch, spec, "no student was given")
    low, high = spec.noise_range(teacher)
    if ready:
        try:
            found = theorem1_bound(
                teacher, student, size=size, patch=patch, sigma_min=low, sigma_max=high, method="exact"
            )
        except NotLinearError:
            return _row(_sampled(teacher, student, size, patch, spec), size, patch, "student", _NOT_LINEAR)
        return _row(found, size, patch, "student", "")
    if best is None or student.radius is None or best.filter(student.radius) is None:
        reason = "the student is not trained, and no best score of its radius is at hand"
        return _budget_alone(teacher, field, size, patch, spec, reason)
    found = theorem1_bound(teacher, best, size=size, patch=patch, sigma_min=low, sigma_max=high, method="exact")
    return _row(found, size, patch, f"best score of radius {student.radius}", "the student is not trained")


def _certified(teacher: Teacher, size: int, patch: tuple[Site, ...], spec: PredictionSpec) -> TheoremRow | None:
    """The budget that holds for every field, for ferromagnetic spins; none for other teachers."""
    certificate = certificate_of(teacher, size)
    if certificate is None:
        return None
    low, high = spec.noise_range(teacher)
    budget = certificate.budget(low**2, high**2, sites=len(patch))
    return TheoremRow(size, patch, budget=budget, size_uniform=certificate.size_uniform, reason=_SPINS)


def _field(teacher: Teacher, size: int) -> tuple[GaussianField | None, str]:
    """The teacher's law where it is Gaussian, or the reason why it is not there."""
    try:
        field = gaussian_field(teacher, size)
    except OracleError as error:
        return None, f"{error.what.rstrip('.')}: {error.got}, {error.expected}"
    reason = (
        "Theorem 1 is exact for Gaussian fields; this teacher is not one, and no certified weights are known for it"
    )
    return field, "" if field is not None else reason


_NOT_GAUSSIAN = "Theorem 1 is exact for Gaussian fields; for this teacher no certified influence weights are known"
_SPINS = (
    "for spins the budget is a certificate for every field; drift errors take rollouts: theorem1_bound with "
    'method="monte-carlo"'
)
_NOT_LINEAR = (
    f"the student is not linear: the drift error is an estimate from {ROLLOUTS} rollouts of {ROLLOUT_STEPS} Euler "
    "steps, whose discretisation it contains, and the truth is not known"
)


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
        steps=ROLLOUT_STEPS,
        trajectories=ROLLOUTS,
        generator=stream(spec.seed, "theorem 1", size),
    )


def _row(found: Theorem1, size: int, patch: tuple[Site, ...], subject: str, reason: str) -> TheoremRow:
    return TheoremRow(
        size=size,
        patch=patch,
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
    teacher: Teacher, field: GaussianField, size: int, patch: tuple[Site, ...], spec: PredictionSpec, reason: str
) -> TheoremRow:
    low, high = spec.noise_range(teacher)
    budget = patch_budget(field, patch, low**2, high**2, 1.0)
    return TheoremRow(size, patch, budget=budget, size_uniform=budget_is_uniform(teacher, size), reason=reason)


def light_cone(teacher: Teacher, size: int, spec: PredictionSpec) -> LightCone | None:
    """Influence weights between the noise levels of the reverse process; none where they are not known.

    They are exact for Gaussian fields, and bounds that hold for every field for ferromagnetic spins.
    """
    domain = teacher.domain(size)
    patch = spec.patch_on(domain.shape)
    low, high = spec.noise_range(teacher)
    field, _ = _field(teacher, size)
    certificate = certificate_of(teacher, size) if field is None else None
    sigmas = torch.logspace(math.log10(low), math.log10(high), LEVELS, dtype=torch.float64)
    if field is not None:
        weights = gaussian_weights(field, patch, sigmas**2, low**2)
    elif certificate is not None:
        weights = certificate.weights(patch, sigmas**2, low**2)
    else:
        return None
    weights = weights.cpu().reshape(LEVELS, -1, domain.sites).amax(1)
    distance = torch.stack([domain.distance(site) for site in patch]).amin(0).flatten()
    kind: Kind = "exact" if certificate is None else "certificate"
    table = weights.new_zeros(LEVELS, int(distance.max()) + 1)
    table.scatter_reduce_(1, distance.expand(LEVELS, -1), weights, "amax")
    return LightCone(size, tuple(sigmas.tolist()), tuple(map(tuple, table.tolist())), kind)
