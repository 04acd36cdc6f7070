r"""Oracles of noisy fields, held against each other.

At noise variance :math:`v = \sigma^2`:

- Tweedie: :math:`s_v(x) = (E[X_0|x] - x)/v` (paper eq. (7));
- response: :math:`\partial s_i/\partial x_j = v^{-2}\,\mathrm{Cov}(X_{0i}, X_{0j}|x) - v^{-1}\delta_{ij}` (eq. (9));
- semigroup: :math:`\partial_v p_v = \tfrac12\Delta p_v`, hence :math:`\partial_v s = \tfrac12\nabla(\nabla\cdot s +
  |s|^2) = \tfrac12\Delta s + (s\cdot\nabla)s`;
- limits: :math:`s_v \to s_0` linearly in v, and :math:`x + v s_v(x) = E[X_0|x]` forgets x like 1/v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Sample
from sizetransfer.contracts.randomness import normal
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import teacher_check
from sizetransfer_verification.conformance.evidence import Evidence
from sizetransfer_verification.conformance.subjects import TeacherSubject
from sizetransfer_verification.conformance.teachers.setting import (
    POSTERIOR,
    ROUNDING,
    SCORE,
    SMOOTHED,
    Setting,
    at_site,
    converges,
    deterministic,
    difference,
    epsilon,
    exact,
    few_variables,
    jacobian,
    rows,
    score,
    setting,
)

FIELDS = CaseSpace(examples=6, largest=70, dtypes=("float64", "float32"))
ONE_FIELD = CaseSpace(examples=4, largest=20, batches=(1,))


@teacher_check(
    "Tweedie: the smoothed score is (E[X_0 | x] - x) / v.",
    cause="a sign, sigma in the place of its square, or two oracles that were given different noise",
    needs=(SMOOTHED, POSTERIOR, deterministic("smoothed_score", "posterior_mean")),
    space=FIELDS,
)
def smoothed_score_is_tweedies(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    x, largest = asked.noisy.x, float(asked.v.max())
    slack = largest * epsilon(asked.teacher, "smoothed_score") + epsilon(asked.teacher, "posterior_mean")
    # Multiplied out, so that small noise loses no digits.
    found = x + asked.v * asked.smoothed_score()
    scale = float(x.abs().max())
    evidence.close(found, asked.posterior_mean(), "x + v s_v(x) against E[X_0 | x]", "value", scale=scale, slack=slack)


@teacher_check(
    "The response of the smoothed score is Cov / v^2 - 1 / v.",
    cause="a covariance without its factor v, at another noise, or of other sites; transposed channels",
    needs=(SMOOTHED, POSTERIOR, exact("smoothed_score", "posterior_covariance")),
    space=ONE_FIELD,
)
def response_is_the_posterior_covariance(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    few_variables(asked.noisy, 150)
    v, shape = float(asked.sigma[0]) ** 2, asked.noisy.x.shape[1:]
    matrix = scaled_jacobian(asked)
    matrix = v * (matrix + torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device))
    found = at_site(matrix.reshape(*shape, *shape), asked.site, 1)
    expected = asked.posterior_covariance()[0]
    what = f"v^2 ds/dx + v against Cov(X_0 at {asked.site}, X_0 | x)"
    evidence.close(found, expected, what, "derivative", scale=v)


def scaled_jacobian(asked: Setting) -> Tensor:
    """``v ds/dx`` of the first field, ``(n, n)``; where differences are taken, their step is a part of the noise."""
    sigma = asked.sigma[:1]
    x = asked.noisy.x[:1] / sigma
    return sigma * jacobian(lambda point: _one_by_one(asked, point * sigma), x)


def _one_by_one(asked: Setting, x: Tensor) -> Tensor:
    """Smoothed scores of fields in the context, and at the noise level, of the first one."""
    context = rows(asked.noisy, [0] * len(x)).context
    sigma = asked.sigma[:1].expand(len(x))
    return Setting(asked.teacher, asked.sample, Sample(x, context), sigma, asked.site).smoothed_score()


@teacher_check(
    "The Jacobian of the smoothed score is symmetric.",
    cause="a one-sided kernel, or an interpolation in the noise level that is not a gradient",
    needs=(SMOOTHED, exact("smoothed_score")),
    space=ONE_FIELD,
)
def smoothed_jacobian_is_symmetric(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    few_variables(asked.noisy, 150)
    matrix = scaled_jacobian(asked)
    evidence.close(matrix, matrix.T, "v ds/dx against its transpose", "derivative", scale=1.0)


@teacher_check(
    "The posterior covariance is symmetric and positive.",
    cause="channels of the two sites in the wrong order, or a covariance between other sites than asked",
    needs=(POSTERIOR, deterministic("posterior_covariance")),
    space=ONE_FIELD,
)
def posterior_covariance_is_one(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    few_variables(asked.noisy, 150)
    matrix, slack = asked.covariance_matrix(), 2 * epsilon(asked.teacher, "posterior_covariance")
    evidence.close(matrix, matrix.T, "posterior covariance against its transpose", "value", slack=slack)
    smallest, largest = torch.linalg.eigvalsh(0.5 * (matrix + matrix.T))[[0, -1]].tolist()
    limit = -1e-10 * largest - slack * len(matrix)
    evidence.at_least(
        smallest, limit, "smallest eigenvalue of the posterior covariance", source="a covariance, to rounding"
    )


@teacher_check(
    "The smoothed scores of all noise levels belong to one law: ds/dv = grad(div s + |s|^2) / 2.",
    cause="sigma taken for its square, or a table in sigma read at the wrong place",
    needs=(SMOOTHED, exact("smoothed_score")),
    space=CaseSpace(examples=4, largest=16, batches=(1,)),
)
def smoothed_score_solves_the_heat_equation(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    few_variables(asked.noisy, 64)
    x, sigma = asked.noisy.x, asked.sigma
    v = float(sigma[0]) ** 2
    # All in units of the noise: derivatives by sigma * d/dx, and by v * d/dv.
    values = asked.smoothed_score()
    in_time = difference(
        lambda clock: asked.smoothed_score(sigma=(v * clock).sqrt()),
        torch.ones_like(sigma),
        torch.ones_like(sigma),
        1e-2,
    )
    along = v * difference(lambda point: _one_by_one(asked, point), x, values, 1e-2 * v)
    units = torch.eye(x.numel(), dtype=x.dtype, device=x.device).reshape(-1, *x.shape[1:])
    step = 0.03
    total = -30.0 * x.numel() * values
    for steps, weight in ((1, 16.0), (-1, 16.0), (2, -1.0), (-2, -1.0)):
        points = x + steps * step * expand(sigma, x) * units
        total = total + weight * _one_by_one(asked, points).sum(0, keepdim=True)
    laplacian = total / (12 * step**2)
    scale = max(float(laplacian.abs().max()), float(along.abs().max()))
    evidence.close(in_time, 0.5 * laplacian + along, "v ds/dv", "second-derivative", scale=scale, factor=10)


@teacher_check(
    "As the noise vanishes, the smoothed score tends to the clean one, linearly in v.",
    cause="a smallest noise level inside the oracle, or another law behind one of the two scores",
    needs=(SMOOTHED, SCORE, exact("smoothed_score", "score")),
    space=CaseSpace(examples=2, largest=70, batches=(2,)),
)
def smoothed_score_meets_the_clean_score(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    x, scale = asked.sample.x, asked.teacher.field.sigma_data
    clean = score(asked.teacher, asked.sample)
    levels = [1e-3 * scale**2 * 2.0**-power for power in range(8)]
    errors = [
        float((asked.smoothed_score(x, torch.full_like(asked.sigma, v**0.5)) - clean).abs().max()) for v in levels
    ]
    size = float(x.abs().max())
    floors = [ROUNDING * (size / v + float(clean.abs().max())) for v in levels]
    converges(evidence, errors, floors, 1.0, "smoothed score against the clean score", "v")


@teacher_check(
    "As the noise grows, x + v s_v(x) = E[X_0 | x] forgets x like 1/v.",
    cause="a largest noise level inside the oracle, or a cancellation that loses the mean",
    needs=(SMOOTHED, exact("smoothed_score")),
    space=CaseSpace(examples=2, largest=70, batches=(2,)),
)
def strong_noise_forgets_the_field(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    scale = asked.teacher.field.sigma_data
    x = scale * normal(asked.sample.x.shape, generator=case.generator("field"), like=asked.sample.x)
    levels = [scale**2 * 2.0**power for power in range(18, 24)]
    errors = []
    for v in levels:
        sigma = torch.full_like(asked.sigma, v**0.5)
        means = [point + v * asked.smoothed_score(point, sigma) for point in (x, -x)]
        errors.append(float((means[0] - means[1]).abs().max()))
    floors = [ROUNDING * float(x.abs().max())] * len(levels)
    converges(evidence, errors, floors, 1.0, "E[X_0 | x] - E[X_0 | -x]", "1/v")
