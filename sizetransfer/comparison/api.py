"""Theorem 1 for a teacher and a student: exact where both are Gaussian and linear, by sampling otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from sizetransfer.comparison.linear import FieldLaw, NotLinearError, linear_score
from sizetransfer.comparison.monte_carlo import GaussianInfluence, InfluenceWeights, PosteriorInfluence, rollout_errors
from sizetransfer.comparison.quantities import Quantity
from sizetransfer.comparison.rollout import log_levels
from sizetransfer.comparison.theorem import (
    Sampler,
    Theorem1,
    gaussian_theorem1,
    initial_distance,
    patch_budget,
    total_bound,
)
from sizetransfer.comparison.weights import Patch, check_patch, check_spectrum
from sizetransfer.errors import OracleError
from sizetransfer.oracle import Context, HasPosterior, Teacher
from sizetransfer.student import Student

Method = Literal["auto", "exact", "monte-carlo"]


@runtime_checkable
class HasCovarianceSpectrum(Protocol):
    """A Gaussian field on a torus."""

    def covariance_spectrum(self, size: int) -> Tensor:
        """Eigenvalues of the covariance on the grid of ``torch.fft.fftn``, real and positive."""
        ...


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

    ``method="exact"``: a Gaussian teacher of one channel on a torus, and a student whose score is linear and
    translation-invariant; the bound is a certificate and the truth is known. ``"monte-carlo"``: any teacher that
    knows its smoothed score; the learned process is the Euler rollout of ``steps`` steps, the bound an estimate.
    ``"auto"`` is exact where it can be.

    Args:
        teacher: the exact score.
        student: the learned one.
        size: sites along each axis.
        patch: sites A whose joint law is compared, with all their channels.
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
    question = _Question(teacher, student, size, tuple(map(tuple, patch)), sigma_min, sigma_max, churn, sampler, steps)
    question.check()
    found = None if method == "monte-carlo" else question.exact(required=method == "exact")
    if found is None:
        found = question.sampled(weights, trajectories, batch, generator)
    # The uniform mode of a finite-range Gaussian field has one variance, 1/m^2, at every size.
    return replace(found, size_uniform=None if found.budget is None else True)


@dataclass(frozen=True)
class _Question:
    """The arguments of :func:`theorem1_bound` that every method needs."""

    teacher: Teacher
    student: Student
    size: int
    patch: tuple[tuple[int, ...], ...]
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
        check_patch(self.patch, self.teacher.domain(self.size).shape)

    def spectrum(self) -> Tensor | None:
        """Spectrum of a Gaussian teacher of one channel; none for other teachers."""
        teacher = self.teacher
        if not isinstance(teacher, HasCovarianceSpectrum) or teacher.field.channels != 1:
            return None
        return check_spectrum(teacher.covariance_spectrum(self.size))

    def levels(self) -> Tensor:
        return log_levels(self.vm, self.vx, self.steps)

    def exact(self, *, required: bool) -> Theorem1 | None:
        """The exact form; none where it is neither possible nor required."""
        spectrum, context = self.spectrum(), Context(self.teacher.domain(self.size))
        if spectrum is None and not required:
            return None
        if spectrum is None:
            raise OracleError(
                "The exact form of Theorem 1 needs a Gaussian teacher.",
                where=type(self.teacher).__name__,
                expected="covariance_spectrum(size) and one channel",
                got=f"{self.teacher.field.channels} channels, capabilities of {type(self.teacher).__name__}",
                fix='use method="monte-carlo", or the teacher gaussian with channels=1',
            )
        try:
            score = linear_score(self.student, context, sigma=(self.sigma_min, self.sigma_max))
        except NotLinearError:
            if required:
                raise
            return None
        return gaussian_theorem1(
            spectrum,
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
        spectrum = self.spectrum()
        errors = rollout_errors(
            self.teacher,
            self.student,
            weights or self._weights(spectrum),
            size=self.size,
            levels=self.levels(),
            churn=self.churn,
            trajectories=trajectories,
            batch=batch,
            generator=generator,
        )
        initial = errors.initial if spectrum is None else self._initial(spectrum)
        return Theorem1(
            bound=total_bound(initial, errors.drift),
            initial=initial,
            drift=errors.drift,
            truth=None,
            budget=None if spectrum is None else patch_budget(spectrum, self.patch, self.vm, self.vx, self.churn),
            size_uniform=None,
            shape=self.teacher.domain(self.size).shape,
            patch=self.patch,
            vm=self.vm,
            vx=self.vx,
            churn=self.churn,
            sampler="euler",
        )

    def _initial(self, spectrum: Tensor) -> Quantity:
        start = FieldLaw(torch.full_like(spectrum, self.vx))
        distance = initial_distance(spectrum, start, self.patch, self.vm, self.vx, churn=self.churn)
        return Quantity(distance.upper, "certificate")

    def _weights(self, spectrum: Tensor | None) -> InfluenceWeights:
        if spectrum is not None:
            return GaussianInfluence(spectrum, self.patch, self.vm, self.churn)
        if not isinstance(self.teacher, HasPosterior) or self.churn != 1:
            raise OracleError(
                "There are no influence weights for this teacher.",
                where=f"{type(self.teacher).__name__}, churn = {self.churn!r}",
                expected="a Gaussian field of one channel, or a known posterior covariance and churn 1",
                fix="pass weights, for example those of a convex field's quadratic part, or use churn 1",
            )
        return PosteriorInfluence(self.teacher, self.patch, self.vm)
