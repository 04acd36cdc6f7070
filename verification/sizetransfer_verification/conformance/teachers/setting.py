"""What the checks of teachers share: needs, the fields that they ask about, derivatives and observed orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Site
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import (
    Exactness,
    HasCovariance,
    HasDensity,
    HasEnergy,
    HasLatent,
    HasPosterior,
    HasScore,
    HasSmoothedScore,
    Sample,
    Teacher,
)
from sizetransfer.contracts.randomness import normal
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.check import Need
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError, ViolationError
from sizetransfer_verification.conformance.subjects import TeacherSubject

TeacherNeed = Need[TeacherSubject]

POOL = 8
"""Fields drawn once for each size, on which the exact checks are made."""

DIFFERENCE_STEP = 1e-3
"""Step of five-point differences: their error, step**4, meets their rounding, 1e-16/step."""

ROUNDING = 100 * torch.finfo(torch.float64).eps
"""Relative error of one float64 oracle, taken generously."""


def _has(name: str, *protocols: type) -> TeacherNeed:
    return Need(name, lambda subject: isinstance(subject.example, protocols))


DENSITY = _has("a log-density (HasDensity)", HasDensity)
DENSITY_OR_ENERGY = _has("a log-density or an energy (HasDensity, HasEnergy)", HasDensity, HasEnergy)
SCORE = _has("a clean score (HasScore)", HasScore)
SMOOTHED = _has("a smoothed score (HasSmoothedScore)", HasSmoothedScore)
POSTERIOR = _has("posterior mean and covariance (HasPosterior)", HasPosterior)
LATENT = _has("a latent map (HasLatent)", HasLatent)
COVARIANCE = _has("its covariance (HasCovariance)", HasCovariance)
NOISE_ORACLE = _has("an oracle of noisy fields (HasSmoothedScore, HasPosterior)", HasSmoothedScore, HasPosterior)
ORACLES = _has(
    "an oracle (a capability of sizetransfer.contracts.oracle)",
    *(HasDensity, HasEnergy, HasScore, HasSmoothedScore, HasPosterior, HasLatent),
)
SPECIFICATION: TeacherNeed = Need("a specification", lambda subject: subject.spec is not None)
PERIOD: TeacherNeed = Need(
    "a declared translation_period", lambda subject: subject.example.translation_period is not None
)
EVEN: TeacherNeed = Need("even = True", lambda subject: subject.example.even)


def kind_of(teacher: Teacher, oracle: str) -> str:
    """The declared kind of exactness; what is not declared counts as exact."""
    return teacher.exactness.get(oracle, Exactness()).kind


def exact(*oracles: str) -> TeacherNeed:
    """The oracles, as far as the teacher has them, are declared exact."""
    return Need(
        f"exact {', '.join(oracles)} (Teacher.exactness)",
        lambda subject: all(kind_of(subject.example, oracle) == "exact" for oracle in oracles),
    )


def deterministic(*oracles: str) -> TeacherNeed:
    """The oracles are not declared Monte Carlo estimates."""
    return Need(
        f"{', '.join(oracles)} that are not declared monte_carlo (Teacher.exactness)",
        lambda subject: all(kind_of(subject.example, oracle) != "monte_carlo" for oracle in oracles),
    )


def epsilon(teacher: Teacher, oracle: str) -> float:
    """The declared absolute error of a quadrature, else zero."""
    return teacher.exactness.get(oracle, Exactness()).epsilon


def log_density(teacher: Teacher, sample: Sample) -> Tensor:
    """Log-density, up to a constant where only the energy is known, shape ``(B,)``."""
    if isinstance(teacher, HasDensity):
        value = cast(HasDensity, teacher).log_density(sample)
    else:
        value = -cast(HasEnergy, teacher).energy(sample)
    expected = (len(sample.x),)
    if tuple(value.shape) != expected:
        # Another shape would be broadcast by everything that follows.
        measured, allowed = str(tuple(value.shape)), str(expected)
        raise ViolationError("shape of the log-density", measured=measured, allowed=allowed, source="the contract")
    return value


def score(teacher: Teacher, sample: Sample) -> Tensor:
    """Clean score."""
    return cast(HasScore, teacher).score(sample)


@dataclass(frozen=True)
class Setting:
    """A teacher with fields, clean and noisy, of one case.

    Attributes:
        teacher: with the case's dtype and device.
        sample: clean fields.
        noisy: the same fields with noise.
        sigma: noise levels, shape ``(B,)``; they differ between the rows.
        site: a site of the domain.
    """

    teacher: Teacher
    sample: Sample
    noisy: Sample
    sigma: Tensor
    site: Site

    @property
    def v(self) -> Tensor:
        """Noise variances that multiply fields, ``(B, 1, ...)``."""
        return expand(self.sigma**2, self.noisy.x)

    def smoothed_score(self, x: Tensor | None = None, sigma: Tensor | None = None) -> Tensor:
        """Score of the noisy fields, or of others with the same context."""
        teacher = cast(HasSmoothedScore, self.teacher)
        x = self.noisy.x if x is None else x
        return teacher.smoothed_score(x, self.sigma if sigma is None else sigma, self.noisy.context)

    def posterior_mean(self) -> Tensor:
        """E[X_0 | x] of the noisy fields."""
        return cast(HasPosterior, self.teacher).posterior_mean(self.noisy.x, self.sigma, self.noisy.context)

    def posterior_covariance(self, site: Site | None = None) -> Tensor:
        """Cov(X_0 at the site, X_0 | x) of the noisy fields, ``(B, C, C, *S)``."""
        teacher, where = cast(HasPosterior, self.teacher), self.site if site is None else site
        return teacher.posterior_covariance(self.noisy.x, self.sigma, self.noisy.context, where)

    def covariance_matrix(self) -> Tensor:
        """Posterior covariance of the first field: ``(C N, C N)``, one call for each site."""
        shape = self.sample.x.shape[2:]
        sites = torch.cartesian_prod(*(torch.arange(length) for length in shape)).reshape(-1, len(shape)).tolist()
        rows = torch.stack([self.posterior_covariance(tuple(site))[0] for site in sites], dim=1)
        return rows.reshape(self.sample.x[0].numel(), -1)

    def answers(self) -> dict[str, Tensor]:
        """Every oracle that the teacher has, asked once."""
        return {name: call() for name, call in self.oracles().items()}

    def oracles(self) -> dict[str, Callable[[], Tensor]]:
        """Every oracle that the teacher has, by method name."""
        teacher, found = self.teacher, dict[str, Callable[[], Tensor]]()
        if isinstance(teacher, HasDensity):
            found["log_density"] = lambda: cast(HasDensity, teacher).log_density(self.sample)
        if isinstance(teacher, HasEnergy):
            found["energy"] = lambda: cast(HasEnergy, teacher).energy(self.sample)
        if isinstance(teacher, HasScore):
            found["score"] = lambda: cast(HasScore, teacher).score(self.sample)
        if isinstance(teacher, HasSmoothedScore):
            found["smoothed_score"] = self.smoothed_score
        if isinstance(teacher, HasPosterior):
            found["posterior_mean"] = self.posterior_mean
            found["posterior_covariance"] = self.posterior_covariance
        if isinstance(teacher, HasLatent):
            found["pull_back"] = lambda: cast(HasLatent, teacher).pull_back(self.sample.x)[0]
            found["push_forward"] = lambda: cast(HasLatent, teacher).push_forward(self.sample.x)[0]
        return found


def setting(subject: TeacherSubject, case: Case, *, teacher: Teacher | None = None) -> Setting:
    """Fields of a pool that is drawn once for each size, with the case's dtype, device and noise.

    Args:
        subject: the teacher under examination.
        case: its seed decides which fields of the pool are taken, the noise and the site.
        teacher: asked in the place of the subject's own.
    """
    teacher = subject.teacher(case) if teacher is None else teacher
    clean = rows(subject.draws(case, POOL), [(case.seed + row) % POOL for row in range(case.batch)])
    like = torch.zeros((), dtype=case.torch_dtype, device=case.device)
    # Every row has a noise level of its own, so that one level used for all is found out.
    factor = 1 + 0.25 * torch.arange(case.batch, dtype=torch.float64)
    sigma = case.noise * teacher.field.sigma_data * factor
    noise = live(clean, normal(clean.x.shape, generator=case.generator("noise"), like=clean.x))
    noisy = clean.with_x(clean.x + expand(sigma, clean.x) * noise)
    return Setting(teacher, moved(clean, like), moved(noisy, like), sigma.to(like), case.site(clean.context.domain))


def moved(sample: Sample, like: Tensor) -> Sample:
    """The sample with the dtype and on the device of ``like``, labels too."""
    labels = {name: label.to(like.device) for name, label in sample.labels.items()}
    return replace(sample.with_x(sample.x.to(like)), labels=labels)


def rows(sample: Sample, index: Sequence[int]) -> Sample:
    """Some rows of a sample, copied."""
    chosen = torch.tensor(list(index), device=sample.x.device)
    context = sample.context
    condition = None if context.condition is None else context.condition[chosen]
    mask = None if context.mask is None else context.mask[chosen]
    labels = {name: label[chosen] for name, label in sample.labels.items()}
    return Sample(sample.x[chosen], type(context)(context.domain, condition, mask), labels)


def live(sample: Sample, direction: Tensor) -> Tensor:
    """The direction, like ``sample.x``, without its components on dead sites, which are no coordinates of the law."""
    return direction if sample.context.mask is None else direction * sample.context.mask.to(direction)


def variables(sample: Sample) -> int:
    """Numbers in one field."""
    return sample.x[0].numel()


def at_site(values: Tensor, site: Site, axes: int) -> Tensor:
    """``values[:, ..., site]``: the numbers of one site, which stands behind so many other axes."""
    index: tuple[int | slice, ...] = (*[slice(None)] * axes, *site)
    return values[index]


def few_variables(sample: Sample, most: int) -> None:
    """Refuse fields of more numbers than a dense check can take.

    Raises:
        NotApplicableError: there are more.
    """
    if variables(sample) > most:
        raise NotApplicableError(f"The smallest field has {variables(sample)} numbers; this check takes {most}.")


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Derivative of an answer about one field by that field, ``(n, n)``: automatic, or by differences.

    Args:
        function: takes fields ``(B, C, *S)`` to answers of the same shape, row by row.
        x: one field, ``(1, C, *S)``.
    """
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        value = function(point)
        if value.requires_grad:
            numbers = value.flatten()
            gradients = [
                torch.autograd.grad(number, point, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
                for number in numbers
            ]
            return torch.stack(gradients).flatten(1)
    units = torch.eye(x.numel(), dtype=x.dtype, device=x.device).reshape(-1, *x.shape)
    return torch.stack([difference(function, x, unit).flatten() for unit in units], dim=1)


def difference(
    function: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, step: float = DIFFERENCE_STEP
) -> Tensor:
    """Derivative along a direction by five points: ``(8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h``."""

    def at(steps: float) -> Tensor:
        return function(x + steps * step * direction).detach()

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)


def converges(
    evidence: Evidence, errors: Sequence[float], floors: Sequence[float], order: float, what: str, parameter: str
) -> None:
    """Errors at a parameter that is halved again and again fall with that order, down to rounding.

    The order is taken between the last two errors that stand well above rounding; where less than two do, the errors
    are at rounding level and nothing more can be said.

    Args:
        evidence: takes the comparison.
        errors: at the halved parameters, largest parameter first.
        floors: rounding error of each.
        order: the least order, less a tenth for what is not yet asymptotic.
        what: the quantity.
        parameter: what is halved.
    """
    clear = [index for index in range(1, len(errors)) if not errors[index] <= 30 * floors[index]]
    if not clear:
        evidence.at_most(errors[-1], 30 * floors[-1], what, source="rounding in float64")
        return
    last = clear[-1]
    before, after = errors[last - 1], errors[last]
    observed = math.log2(before / after) if before > 0 and after > 0 else math.nan
    numbers = ", ".join(f"{error:.3g}" for error in errors)
    evidence.at_least(
        observed, 0.9 * order, f"{what}: observed order in {parameter} (errors {numbers})", source="Taylor's theorem"
    )
