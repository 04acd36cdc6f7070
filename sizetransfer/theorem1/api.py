"""Theorem 1 for a teacher and a student: exact where both are Gaussian and linear, by sampling otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Patch, Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import (
    Context,
    HasCovariance,
    HasCovarianceSpectrum,
    HasPosterior,
    Teacher,
    in_arithmetic_of_teacher,
)
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.gaussian import LARGEST_DENSE, GaussianField
from sizetransfer.theorem1.fields import patch_components
from sizetransfer.theorem1.linear import FieldLaw, NotLinearError, linear_score
from sizetransfer.theorem1.monte_carlo import GaussianInfluence, InfluenceWeights, PosteriorInfluence, rollout_errors
from sizetransfer.theorem1.rollout import log_levels
from sizetransfer.theorem1.theorem import (
    Sampler,
    Theorem1,
    gaussian_theorem1,
    initial_distance,
    patch_budget,
    total_bound,
)
from sizetransfer.theorem1.weights import ferromagnetic_row_sums

Method = Literal["auto", "exact", "monte-carlo"]


def gaussian_field(teacher: Teacher, size: int) -> GaussianField | None:
    """The law of a teacher as Theorem 1 needs it: in Fourier space on a torus, dense on a graph.

    Args:
        teacher: any teacher.
        size: as for :meth:`sizetransfer.contracts.oracle.Teacher.sample`.

    Returns:
        None for a teacher that is not Gaussian.

    Raises:
        OracleError: a teacher that is not on a torus and has more than ``LARGEST_DENSE`` components.
    """
    shape, channels = teacher.domain(size).shape, teacher.field.channels
    if isinstance(teacher, HasCovarianceSpectrum):
        spectrum = teacher.covariance_spectrum(size).to(teacher.anchor.device)
        return GaussianField.on_torus(spectrum) if channels == 1 else GaussianField.with_channels(spectrum)
    if not isinstance(teacher, HasCovariance):
        return None
    sites = math.prod(shape)
    if sites * channels > LARGEST_DENSE:
        raise OracleError(
            "The field has too many components for Theorem 1 with dense matrices.",
            where=f"{type(teacher).__name__}, size {size}",
            expected=f"at most {LARGEST_DENSE} components",
            got=f"{sites} sites of {channels} channels",
            fix="lower the size",
        )
    covariance = teacher.covariance(size, torch.arange(sites)).reshape(sites * channels, sites * channels)
    return GaussianField.between_sites(covariance.to(teacher.anchor.device), shape, channels)


@in_arithmetic_of_teacher
def theorem1_bound(
    teacher: Teacher,
    student: Student,
    *,
    size: int,
    patch: Patch,
    sigma_min: float,
    sigma_max: float,
    churn: float = 1.0,
    sampler: Sampler = "continuous",
    steps: int = 64,
    method: Method = "auto",
    weights: InfluenceWeights | None = None,
    trajectories: int = 64,
    batch: int = 32,
    generator: torch.Generator | None = None,
) -> Theorem1:
    r"""Bound the distance between the laws of a patch with which the exact and the learned reverse process end.

    ``method="exact"``: a Gaussian teacher, on a torus or a graph and of any number of channels, and a student whose
    score is linear and, on a torus, translation-invariant; the bound is a certificate and the truth is known. Graphs
    are treated with dense matrices, of at most ``LARGEST_DENSE`` rows. ``"monte-carlo"``: any teacher that knows its
    smoothed score; the learned process is the Euler rollout of ``steps`` steps, the bound an estimate. ``"auto"`` is
    exact where it can be.

    ``size_uniform`` is true where the budget has its closed form, which knows the size through the smallest row sum of
    the precision matrix alone, and this is the same at another size; none where that is not known.

    Args:
        teacher: the exact score.
        student: the learned one.
        size: sites along each axis; of a graph, its sites.
        patch: sites A whose joint law is compared, with all their channels; or pairs of a site and a channel.
        sigma_min: noise level at which the process stops; the patch law is that of the field with this noise.
        sigma_max: noise level at which it starts, from N(0, sigma_max^2).
        churn: lambda; 1 for the reverse SDE.
        sampler: how the learned process runs; Monte Carlo takes ``continuous`` and ``euler`` as the same.
        steps: of the sampler or rollout, equally spaced in log sigma.
        method: see above.
        weights: influence weights for Monte Carlo; by default the exact ones of a Gaussian field or, for churn 1,
            those of the posterior covariance.
        trajectories: independent rollouts, for Monte Carlo.
        batch: rollouts at a time.
        generator: of the random numbers of Monte Carlo.

    Raises:
        OracleError: not ``0 < sigma_min < sigma_max``, a patch outside the lattice, a student that is not linear
            where the exact method is asked for, or a teacher that lacks what the method needs.

    Example:
        >>> import sizetransfer as st
        >>> teacher = st.teacher("gaussian", dim=1, mass=1.0)
        >>> student = st.student("optimal-local", teacher.field, mass=1.0, radius=1)
        >>> result = theorem1_bound(teacher, student, size=16, patch=[(0,)], sigma_min=0.1, sigma_max=10.0)
        >>> result.bound.kind, result.holds
        ('certificate', True)
    """
    question = _Question(teacher, student, size, tuple(patch), sigma_min, sigma_max, churn, sampler, steps)
    question.check()
    found = None if method == "monte-carlo" else question.exact(required=method == "exact")
    if found is None:
        found = question.sampled(weights, trajectories, batch, generator)
    return replace(found, size_uniform=budget_is_uniform(teacher, size))


def budget_is_uniform(teacher: Teacher, size: int) -> bool | None:
    """Whether the closed form of the budget is the same at another size, twice or half as large.

    Returns:
        None where the teacher is not Gaussian, has no closed form or no other size, or where the two differ.
    """
    sums = _smallest_row_sum(teacher, size)
    other = next((n for n in (2 * size, size // 2) if _has_size(teacher, n)), None)
    beside = None if sums is None or other is None else _smallest_row_sum(teacher, other)
    if sums is None or beside is None:
        return None
    return True if math.isclose(sums, beside, rel_tol=1e-9) else None


def _has_size(teacher: Teacher, size: int) -> bool:
    on_torus = isinstance(teacher, HasCovarianceSpectrum)
    try:
        teacher.check_size(size)
        # Looking at another size should not cost more than the bound itself.
        return size > 1 and (on_torus or 2 * size * teacher.field.channels <= LARGEST_DENSE)
    except OracleError:
        return False


def _smallest_row_sum(teacher: Teacher, size: int) -> float | None:
    field = gaussian_field(teacher, size)
    sums = None if field is None else ferromagnetic_row_sums(field)
    return None if sums is None else float(sums.min())


@dataclass(frozen=True)
class _Question:
    """The arguments of :func:`theorem1_bound` that every method needs."""

    teacher: Teacher
    student: Student
    size: int
    patch: tuple[Site | tuple[Site, int], ...]
    sigma_min: float
    sigma_max: float
    churn: float
    sampler: Sampler
    steps: int

    @property
    def vm(self) -> float:
        return self.sigma_min**2

    @property
    def vx(self) -> float:
        return self.sigma_max**2

    def check(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise OracleError(
                "The noise range of a reverse process is empty or not positive.",
                where="sigma_min, sigma_max",
                expected="0 < sigma_min < sigma_max, both finite",
                got=f"sigma_min = {self.sigma_min!r}, sigma_max = {self.sigma_max!r}",
                fix="start at a noise level above the one at which the process stops, and stop above zero",
            )
        patch_components(self.patch, self.teacher.domain(self.size).shape, self.teacher.field.channels)

    def levels(self) -> Tensor:
        return log_levels(self.vm, self.vx, self.steps)

    def exact(self, *, required: bool) -> Theorem1 | None:
        """The exact form; none where it is neither possible nor required."""
        field, context = gaussian_field(self.teacher, self.size), Context(self.teacher.domain(self.size))
        if field is None and not required:
            return None
        if field is None:
            raise OracleError(
                "The exact form of Theorem 1 needs a Gaussian teacher.",
                where=type(self.teacher).__name__,
                expected="covariance_spectrum(size) on a torus, or the capability HasCovariance",
                got="neither",
                fix='use method="monte-carlo", or the teacher gaussian or gaussian-graph',
            )
        try:
            score = linear_score(self.student, context, sigma=(self.sigma_min, self.sigma_max), basis=field.basis)
        except NotLinearError:
            if required:
                raise
            return None
        return gaussian_theorem1(
            field,
            score,
            patch=self.patch,
            vm=self.vm,
            vx=self.vx,
            churn=self.churn,
            sampler=self.sampler,
            levels=None if self.sampler == "continuous" else self.levels(),
        )

    def sampled(
        self, weights: InfluenceWeights | None, trajectories: int, batch: int, generator: torch.Generator | None
    ) -> Theorem1:
        """The estimate from rollouts."""
        if generator is None or self.sampler not in {"continuous", "euler"}:
            raise OracleError(
                "Theorem 1 by sampling needs random numbers and Euler rollouts.",
                where="generator, sampler",
                expected='a torch.Generator, and sampler="continuous" or "euler"',
                got=f"generator = {generator!r}, sampler = {self.sampler!r}",
                fix="pass generator=torch.Generator().manual_seed(0), and leave the sampler alone",
            )
        field = gaussian_field(self.teacher, self.size)
        errors = rollout_errors(
            self.teacher,
            self.student,
            weights or self._weights(field),
            size=self.size,
            levels=self.levels(),
            churn=self.churn,
            trajectories=trajectories,
            batch=batch,
            generator=generator,
        )
        initial = errors.initial if field is None else self._initial(field)
        return Theorem1(
            bound=total_bound(initial, errors.drift),
            initial=initial,
            drift=errors.drift,
            truth=None,
            budget=None if field is None else patch_budget(field, self.patch, self.vm, self.vx, self.churn),
            size_uniform=None,
            shape=self.teacher.domain(self.size).shape,
            patch=self.patch,
            vm=self.vm,
            vx=self.vx,
            churn=self.churn,
            sampler="euler",
        )

    def _initial(self, field: GaussianField) -> Quantity:
        start = FieldLaw(self.vx * field.basis.identity(field.covariance), None, field.basis)
        distance = initial_distance(field, start, self.patch, self.vm, self.vx, churn=self.churn)
        return Quantity(distance.upper, kind="certificate")

    def _weights(self, field: GaussianField | None) -> InfluenceWeights:
        if field is not None:
            return GaussianInfluence(field, self.patch, self.vm, self.churn)
        if not isinstance(self.teacher, HasPosterior) or self.churn != 1:
            raise OracleError(
                "There are no influence weights for this teacher.",
                where=f"{type(self.teacher).__name__}, churn = {self.churn!r}",
                expected="a Gaussian field, or a known posterior covariance and churn 1",
                fix="pass weights, for example those of a convex field's quadratic part, or use churn 1",
            )
        return PosteriorInfluence(self.teacher, self.patch, self.vm)
