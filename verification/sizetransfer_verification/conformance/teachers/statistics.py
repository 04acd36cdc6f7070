r"""Oracles of a teacher held against its sampler, by identities whose every side is a mean over independent draws.

With :math:`y = x/\sigma_d` and :math:`t = \sigma_d s(x)` in units of ``sigma_data``, for smooth f that grow slowly:

- Stein: :math:`E[t_j f(y_i) + \delta_{ij} f'(y_i)] = 0`; with f = 1 the mean score vanishes, with f = y it is
  :math:`E[x_i s_j] = -\delta_{ij}`;
- Fisher: :math:`E[(u\cdot s)^2 + u\cdot(\partial s/\partial x)u] = 0`;
- both hold for the noisy field with the smoothed score;
- :math:`E[(X_0 - E[X_0|x]) f(x)] = 0`, and the posterior covariance is that of the residual.

Each statistic is averaged over the pairs of sites that are apart by one displacement, with weights that tell the
sublattices, and the channels of the condition, apart. Its standard error comes from the draws. Samples of a chain
count as independent draws: a teacher of declared Monte Carlo samples gives every field a chain of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Graph, Lattice
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, HasCovariance, Sample
from sizetransfer.contracts.randomness import normal
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import teacher_check
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError
from sizetransfer_verification.conformance.subjects import TeacherSubject
from sizetransfer_verification.conformance.teachers.setting import (
    COVARIANCE,
    DENSITY,
    POSTERIOR,
    SCORE,
    SMOOTHED,
    Setting,
    at_site,
    deterministic,
    exact,
    live,
    log_density,
    score,
)

DRAWS = CaseSpace(batches=(2000,), largest=40, noises=(1.0,))
FEWER = CaseSpace(batches=(1000,), largest=40, noises=(1.0,))
MANY = CaseSpace(batches=(20000,), largest=1, noises=(1.0,))

Function = Callable[[Tensor], Tensor]
FUNCTIONS: dict[str, tuple[Function, Function]] = {
    "1": (torch.ones_like, torch.zeros_like),
    "y": (lambda y: y, torch.ones_like),
    "y^2": (lambda y: y**2, lambda y: 2 * y),
    "tanh y": (torch.tanh, lambda y: 1 - torch.tanh(y) ** 2),
    "sin 2y": (lambda y: torch.sin(2 * y), lambda y: 2 * torch.cos(2 * y)),
}
"""Test functions with their derivatives; y is the field in units of ``sigma_data``."""

PREDICTORS = ("1", "y", "tanh y")

CALLS = 8
"""Calls of the sampler that are compared: what one call's rows share shows in the differences between calls."""


def pairs(domain: Domain) -> list[tuple[Tensor, Tensor]]:
    """Flat indices i and j of near pairs of sites, by displacement; the first are i = j."""
    index = torch.arange(domain.sites).reshape(domain.shape)
    found = [(index.flatten(), index.flatten())]
    if isinstance(domain, Graph):
        sources, targets = domain.directed_edges
        return [*found, (sources, targets)]
    moves = [(-1, axis) for axis in range(index.ndim)] + [(1, 0), (-2, 0)]
    return found + [(index.flatten(), index.roll(step, axis).flatten()) for step, axis in moves]


def weights(context: Context, x: Tensor) -> Tensor:
    """Weights of sites, ``(B or 1, W, N)``: one, a sublattice's sign, the condition; zero where dead."""
    domain = context.domain
    if isinstance(domain, Lattice):
        sign = 2.0 * domain.parity().flatten() - 1
    else:
        sign = 1.0 - 2.0 * (torch.arange(domain.sites) % 2)
    found = torch.stack([torch.ones_like(sign), sign])[None].to(x)
    if context.condition is not None:
        condition = context.condition.to(x).flatten(2)
        found = torch.cat([found.expand(len(condition), -1, -1), condition], dim=1)
    return found if context.mask is None else found * context.mask.flatten(2).to(x)


def stein(x: Tensor, given: Tensor, context: Context, scale: float) -> Tensor:
    """The statistics ``t_j f(y_i) + delta_ij f'(y_i)`` of every draw, averaged over sites: ``(B, k)``.

    Args:
        x: fields, ``(B, C, *S)``.
        given: their scores.
        context: says which sites are near and which are alike.
        scale: unit of the field.
    """
    y, t = (x / scale).flatten(2), (given * scale).flatten(2)
    weight = weights(context, x)
    alive = torch.ones_like(weight[:, :1]) if context.mask is None else context.mask.flatten(2).to(x)
    same = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    columns = []
    for i, j in pairs(context.domain):
        here = weight[:, :, i] * alive[:, :, j] / len(i)
        for value, slope in FUNCTIONS.values():
            total = torch.einsum("bwn,bcn,bdn->bwcd", here.expand(len(x), -1, -1), value(y)[:, :, i], t[:, :, j])
            if torch.equal(i, j):
                total = total + torch.einsum("bwn,bcn,cd->bwcd", here.expand(len(x), -1, -1), slope(y)[:, :, i], same)
            columns.append(total.flatten(1))
    return torch.cat(columns, dim=1)


@teacher_check(
    "Stein: the clean score is that of the law that is sampled, E[s_j f(x_i)] = -delta_ij E[f'(x_i)].",
    cause="a sampler of another temperature, a score of another sublattice, or a truncated tail",
    statistical=True,
    needs=(SCORE, deterministic("score")),
    space=DRAWS,
)
def samples_follow_the_score(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    sample = subject.draws(case, case.batch)
    teacher = subject.example
    columns = stein(sample.x, score(teacher, sample), sample.context, teacher.field.sigma_data)
    evidence.zero_mean(columns, "E[s_j f(x_i)] + delta_ij E[f'(x_i)]")


@teacher_check(
    "Stein with ten times the draws: the clean score is that of the law that is sampled.",
    cause="a sampler of nearly the right temperature, or chains that have not forgotten where they started",
    level="full",
    statistical=True,
    needs=(SCORE, deterministic("score")),
    space=CaseSpace(batches=(20000,), largest=40, noises=(1.0,)),
)
def samples_follow_the_score_closely(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    generator, teacher = case.generator("more draws"), subject.example
    columns = []
    for _ in range(max(1, case.batch // 1000)):
        sample = teacher.sample(1000, case.size, generator=generator)
        columns.append(stein(sample.x, score(teacher, sample), sample.context, teacher.field.sigma_data))
    evidence.zero_mean(torch.cat(columns), "E[s_j f(x_i)] + delta_ij E[f'(x_i)]")


@teacher_check(
    "Fisher: the score of the samples fluctuates as much as it responds, E[(u.s)^2] = -E[u.(ds/dx)u].",
    cause="a score of the right mean but of another temperature, or a response without its non-linear part",
    statistical=True,
    needs=(SCORE, exact("score")),
    space=FEWER,
)
def score_fluctuates_as_it_responds(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    sample, teacher = subject.draws(case, case.batch), subject.example
    scale, domain = teacher.field.sigma_data, sample.context.domain
    with torch.enable_grad():
        x = sample.x.clone().requires_grad_()
        value = score(teacher, sample.with_x(x))
        columns = []
        noise = normal(x.shape[1:], generator=case.generator("direction"), like=sample.x)
        pattern = weights(Context(domain), sample.x)[0].reshape(2, 1, *domain.shape).expand(2, *x.shape[1:])
        for direction in (pattern[0], pattern[1], noise):
            (response,) = torch.autograd.grad((value * direction).sum(), x, retain_graph=True)
            squared = (value.detach() * direction).flatten(1).sum(1) ** 2
            columns.append((squared + (response * direction).flatten(1).sum(1)) * scale**2 / domain.sites)
    evidence.zero_mean(torch.stack(columns, dim=1), "E[(u.s)^2 + u.(ds/dx)u]")


def noisy_setting(subject: TeacherSubject, case: Case, noise: float) -> Setting:
    """All draws of a case with noise of that strength, in units of ``sigma_data``."""
    sample, teacher = subject.draws(case, case.batch), subject.example
    sigma = torch.full((case.batch,), noise * teacher.field.sigma_data, dtype=sample.x.dtype)
    white = normal(sample.x.shape, generator=case.generator("noise", str(noise)), like=sample.x)
    noisy = sample.with_x(sample.x + expand(sigma, sample.x) * live(sample, white))
    return Setting(teacher, sample, noisy, sigma, case.site(sample.context.domain))


@teacher_check(
    "Stein for noisy fields: the smoothed score is that of sample plus noise.",
    cause="the score at sigma instead of sigma^2, at another noise level, or of another law than the sampler's",
    statistical=True,
    needs=(SMOOTHED, deterministic("smoothed_score")),
    space=DRAWS,
)
def noisy_samples_follow_the_smoothed_score(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    for noise in (1.0, 0.3):
        asked = noisy_setting(subject, case, noise)
        scale = subject.example.field.sigma_data * math.hypot(1.0, noise)
        columns = stein(asked.noisy.x, asked.smoothed_score(), asked.noisy.context, scale)
        evidence.zero_mean(columns, f"E[s_j f(x_i)] + delta_ij E[f'(x_i)] at noise {noise:g} sigma_data")


@teacher_check(
    "The posterior mean predicts the clean field: E[(X_0 - E[X_0 | x]) f(x)] = 0.",
    cause="the mean of another law or noise level, or a condition that is not used",
    statistical=True,
    needs=(POSTERIOR, deterministic("posterior_mean")),
    space=DRAWS,
)
def posterior_mean_predicts_the_clean_field(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    scale = subject.example.field.sigma_data
    for noise in (0.3, 1.0, 5.0):
        asked = noisy_setting(subject, case, noise)
        residual = ((asked.sample.x - asked.posterior_mean()) / scale).flatten(2)
        y = (asked.noisy.x / (scale * math.hypot(1.0, noise))).flatten(2)
        weight = weights(asked.noisy.context, y).expand(len(y), -1, -1)
        columns = [
            torch.einsum(
                "bwn,bcn,bdn->bwcd", weight[:, :, i] / len(i), FUNCTIONS[name][0](y)[:, :, i], residual[:, :, j]
            )
            for i, j in pairs(asked.noisy.context.domain)
            for name in PREDICTORS
        ]
        what = f"E[(X_0 - E[X_0 | x])_j f(x_i)] at noise {noise:g} sigma_data"
        evidence.zero_mean(torch.cat([column.flatten(1) for column in columns], dim=1), what)


@teacher_check(
    "The posterior covariance is that of the clean field about its posterior mean.",
    cause="a factor v too many or too few, other sites, or a covariance that ignores the noisy field",
    statistical=True,
    needs=(POSTERIOR, deterministic("posterior_mean", "posterior_covariance")),
    space=DRAWS,
)
def posterior_covariance_is_that_of_the_residual(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked, scale = noisy_setting(subject, case, 1.0), subject.example.field.sigma_data
    residual = (asked.sample.x - asked.posterior_mean()) / scale
    here = at_site(residual, asked.site, 2)
    product = torch.einsum("bc,bd...->bcd...", here, residual)
    apart = (product - asked.posterior_covariance() / scale**2).flatten(1)
    # Weighted with a function of x too: right on average is not right for every x.
    seen = torch.tanh(at_site(asked.noisy.x, asked.site, 2)[:, 0] / scale) ** 2
    columns = torch.cat([apart, apart * seen[:, None]], dim=1)
    evidence.zero_mean(columns, f"E[residual residual^T] - E[Cov(X_0 at {asked.site}, X_0 | x)]")


@teacher_check(
    "The covariance between sites is that of the samples.",
    cause="the covariance of another size, or of noisy fields",
    statistical=True,
    needs=(COVARIANCE,),
    space=DRAWS,
)
def covariance_is_that_of_the_samples(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    sample, teacher = subject.draws(case, case.batch), subject.example
    if not isinstance(teacher, HasCovariance):
        return
    x, sites = sample.x.flatten(2), sample.context.domain.sites
    flat = int(torch.randint(sites, (1,), generator=case.generator("site")))
    expected = teacher.covariance(case.size, torch.arange(sites))[:, flat]
    columns = torch.einsum("bc,bdn->bcdn", x[:, :, flat], x) - expected
    evidence.zero_mean(columns.flatten(1), f"covariance of site {flat} with every site")


@teacher_check(
    "The rows of a batch are independent draws of one law, and so are two calls.",
    cause="a draw shared by the batch (one global offset), antithetic pairs, or a chain whose states become the rows",
    statistical=True,
    space=CaseSpace(batches=(512,), largest=40),
)
def rows_are_independent(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    teacher, generator = subject.example, case.generator("calls")
    samples = [teacher.sample(case.batch, case.size, generator=generator) for _ in range(CALLS)]
    weight = weights(Context(samples[0].context.domain), samples[0].x)
    fields = [(sample.x / teacher.field.sigma_data).flatten(2) for sample in samples]
    x = torch.cat(fields)
    # Four rows a draw: what all rows of one law share drops out of the differences.
    a, c, b, d = x[: len(x) // 4 * 4].reshape(-1, 4, *x.shape[1:]).unbind(1)
    neighbours = [((a - b) * (c - d)).mean(2), ((a - d) * (c - b)).mean(2)]
    evidence.zero_mean(torch.cat(neighbours, dim=1), "correlation of neighbouring rows")
    moments = [torch.einsum("ebn,rcn->rbc", weight, y**power).flatten(1) for y in fields for power in (1, 2)]
    first = torch.cat(moments[:2] * (CALLS - 1), dim=1)
    evidence.zero_mean(torch.cat(moments[2:], dim=1) - first, "moments of one call less those of another")


@teacher_check(
    "The density integrates to one.",
    cause="a log-determinant left out, a mean mode's included twice, or the constant n log(2 pi) / 2",
    statistical=True,
    needs=(DENSITY, exact("log_density")),
    space=MANY,
)
def density_integrates_to_one(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    teacher, draws = subject.example, subject.draws(case, 2000)
    if draws.labels:
        raise NotApplicableError("The law has discrete labels: the integral over the field alone need not be one.")
    points, log_proposal = _student_points(draws.x.flatten(1), case)
    index = [0] * len(points)
    context = draws.context.rows(slice(0, 1))
    expanded = Context(
        context.domain,
        None if context.condition is None else context.condition[index],
        None if context.mask is None else context.mask[index],
    )
    fields = Sample(points.reshape(-1, *draws.x.shape[1:]), expanded)
    ratio = (log_density(teacher, fields) - log_proposal).exp()
    effective = float(ratio.sum() ** 2 / ratio.square().sum()) / len(ratio)
    if effective < 0.1:
        raise NotApplicableError(f"Importance weights are too heavy: {effective:.1%} of the draws are effective.")
    evidence.zero_mean(ratio[:, None] - 1, "integral of the density less one")


def _student_points(draws: Tensor, case: Case, freedom: int = 8) -> tuple[Tensor, Tensor]:
    """Points of a multivariate Student law with the draws' mean and covariance, and their log-densities."""
    axes = draws.shape[1]
    factor = torch.linalg.cholesky(torch.cov(draws.T).reshape(axes, axes))
    like = draws[:0]
    white = normal((case.batch, axes), generator=case.generator("points"), like=like)
    chi = normal((case.batch, freedom), generator=case.generator("lengths"), like=like).square().sum(1)
    unit = white * (freedom / chi).sqrt()[:, None]
    points = draws.mean(0) + unit @ factor.T
    constant = math.lgamma((freedom + axes) / 2) - math.lgamma(freedom / 2) - 0.5 * axes * math.log(freedom * math.pi)
    logarithm = constant - 0.5 * (freedom + axes) * torch.log1p(unit.square().sum(1) / freedom)
    return points, logarithm - factor.diagonal().log().sum()
