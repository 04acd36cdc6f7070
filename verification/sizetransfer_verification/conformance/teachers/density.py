r"""Density, clean score and latent map of a teacher, held against each other.

The clean score is :math:`s_0 = \nabla\log p_0` (paper eq. (15)), so its Jacobian is symmetric; a change of variables
:math:`x = F(z)` of a standard normal z has :math:`\log p_0(x) = \log N(z) - \log|\det dx/dz|`; a Gaussian law of
covariance C has :math:`s_0 = -C^{-1}x` and :math:`\log p_0 = -\tfrac12 x\cdot C^{-1}x - \tfrac12\log\det 2\pi C`.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from sizetransfer.contracts.oracle import HasCovariance, HasDensity, HasLatent, Sample, Teacher
from sizetransfer.contracts.randomness import normal
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import teacher_check
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError
from sizetransfer_verification.conformance.subjects import TeacherSubject
from sizetransfer_verification.conformance.teachers.setting import (
    COVARIANCE,
    DENSITY,
    DENSITY_OR_ENERGY,
    EVEN,
    LATENT,
    ORACLES,
    PERIOD,
    ROUNDING,
    SCORE,
    Setting,
    converges,
    deterministic,
    difference,
    exact,
    few_variables,
    jacobian,
    live,
    log_density,
    score,
    setting,
    variables,
)

SMALL = CaseSpace(examples=4, largest=40, batches=(2, 1), noises=(1.0,))
ONE_FIELD = CaseSpace(examples=3, largest=40, batches=(1,), noises=(1.0, 0.3))


@teacher_check(
    "The clean score is the gradient of the log-density: central differences approach it with observed order two.",
    cause="a sign, a factor of two, a missing log-determinant, or single precision inside",
    needs=(DENSITY_OR_ENERGY, SCORE, exact("log_density", "energy", "score")),
    space=SMALL,
)
def score_is_the_gradient_of_the_log_density(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    teacher, sample = asked.teacher, asked.sample
    exact_score, scale = score(teacher, sample), teacher.field.sigma_data
    steps = [scale * 2.0**-power for power in range(4, 10)]
    errors, floors = torch.zeros(len(steps)).double(), torch.zeros(len(steps)).double()
    size = variables(sample) + float(log_density(teacher, sample).abs().max())
    for index in range(3):
        direction = live(sample, normal(sample.x.shape, generator=case.generator("direction", index), like=sample.x))
        slope = (exact_score * direction).flatten(1).sum(1)
        for place, step in enumerate(steps):
            forward, backward = (log_density(teacher, sample.with_x(sample.x + h * direction)) for h in (step, -step))
            found = (forward - backward) / (2 * step)
            errors[place] += (found - slope).square().sum()
            floors[place] += (ROUNDING * (size / step + float(slope.abs().max()))) ** 2
    what = "central differences of the log-density against the score"
    converges(evidence, errors.sqrt().tolist(), floors.sqrt().tolist(), 2.0, what, "the step")


@teacher_check(
    "The clean score's Jacobian is symmetric: the score is a gradient.",
    cause="a score written by hand with one neighbour too few, or a transposed channel matrix",
    needs=(SCORE, exact("score")),
    space=ONE_FIELD,
)
def score_jacobian_is_symmetric(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    few_variables(asked.sample, 150)
    matrix = jacobian(lambda x: score(asked.teacher, asked.sample.with_x(x)), asked.sample.x)
    evidence.close(matrix, matrix.T, "Jacobian of the clean score against its transpose", "derivative")


@teacher_check(
    "The clean score is differentiable where x requires it, and its derivative is that of its values.",
    cause="a detached result, torch.no_grad inside, or create_graph left out",
    needs=(SCORE, exact("score")),
    space=SMALL,
)
def score_is_differentiable(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    teacher, sample = asked.teacher, asked.sample
    with torch.enable_grad():
        x = sample.x.clone().requires_grad_()
        value = score(teacher, sample.with_x(x))
        evidence.holds(
            value.requires_grad, "score of an x that requires gradients", measured="detached", allowed="differentiable"
        )
        left = normal(x.shape, generator=case.generator("left"), like=x)
        (pulled,) = torch.autograd.grad((value * left).sum(), x)
    right = live(sample, normal(x.shape, generator=case.generator("right"), like=x))
    step = 1e-3 * teacher.field.sigma_data
    found = difference(lambda point: score(teacher, sample.with_x(point)), sample.x, right, step)
    scale = float((pulled.abs() * right.abs()).flatten(1).sum(1).max())
    what = "derivative of the clean score, automatic against differences"
    evidence.close(
        (pulled * right).flatten(1).sum(1), (found * left).flatten(1).sum(1), what, "second-derivative", scale=scale
    )


@teacher_check(
    "Translations by the declared period leave the law unchanged, the condition moving along.",
    cause="zero padding on a torus, a missing bond at the seam, or a period that belongs to one sublattice",
    needs=(PERIOD, ORACLES, deterministic("score", "smoothed_score", "posterior_mean", "posterior_covariance")),
    space=CaseSpace(examples=4, smallest=3, largest=70, batches=(2,), noises=(1.0, 0.3)),
)
def law_is_translation_invariant(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    period = asked.teacher.translation_period or 0
    if asked.sample.context.domain.shape[0] % period:
        raise NotApplicableError(f"Size {case.size} is no multiple of the declared period {period}.")
    for axis in range(asked.teacher.field.dim):
        steps = tuple(period * (direction == axis) for direction in range(asked.teacher.field.dim))
        shape = asked.sample.context.domain.shape
        site = tuple((a + step) % length for a, step, length in zip(asked.site, steps, shape, strict=True))
        rolled = Setting(
            asked.teacher, _rolled(asked.sample, steps), _rolled(asked.noisy, steps), asked.sigma, site
        ).answers()
        for name, answer in asked.answers().items():
            expected = answer if answer.ndim == 1 else _roll(answer, steps)
            evidence.close(rolled[name], expected, f"{name} of a field moved by {steps}", "value", factor=10)


def _roll(values: Tensor, steps: tuple[int, ...]) -> Tensor:
    return values.roll(steps, tuple(range(-len(steps), 0)))


def _rolled(sample: Sample, steps: tuple[int, ...]) -> Sample:
    context = sample.context
    condition = None if context.condition is None else _roll(context.condition, steps)
    mask = None if context.mask is None else _roll(context.mask, steps)
    labels = {name: _roll(label, steps) for name, label in sample.labels.items()}
    return Sample(_roll(sample.x, steps), type(context)(context.domain, condition, mask), labels)


@teacher_check(
    "The law of an even teacher does not know the sign of the field.",
    cause="a cubic term, a mean that is not zero, or even = True declared of another law",
    needs=(EVEN, ORACLES, deterministic("score", "smoothed_score", "posterior_mean", "posterior_covariance")),
    space=SMALL,
)
def law_is_even(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    clean, noisy = (sample.with_x(-sample.x) for sample in (asked.sample, asked.noisy))
    turned = Setting(asked.teacher, clean, noisy, asked.sigma, asked.site).answers()
    for name, answer in asked.answers().items():
        odd = name not in ("log_density", "energy", "posterior_covariance")
        evidence.close(turned[name], -answer if odd else answer, f"{name} of the field with the other sign", "value")


@teacher_check(
    "push_forward and pull_back undo each other and agree on log |det dx/dz|.",
    cause="the layers of the inverse in the wrong order, or the sign of its log-determinant",
    needs=(LATENT,),
    space=SMALL,
)
def latent_map_inverts(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    teacher = cast(HasLatent, asked.teacher)
    z = normal(asked.sample.x.shape, generator=case.generator("latent"), like=asked.sample.x)
    x, forward = teacher.push_forward(z)
    back, backward = teacher.pull_back(x)
    evidence.close(back, z, "pull_back(push_forward(z)) against z", "value")
    evidence.close(backward, forward, "log |det dx/dz| of pull_back against push_forward's", "value", scale=1.0)
    again, _ = teacher.push_forward(teacher.pull_back(asked.sample.x)[0])
    evidence.close(again, asked.sample.x, "push_forward(pull_back(x)) against x", "value")


@teacher_check(
    "log |det dx/dz| is that of the full Jacobian.",
    cause="a layer that leaves its log-determinant out, or sums it over one channel only",
    needs=(LATENT,),
    space=CaseSpace(examples=3, largest=16, batches=(1,)),
)
def latent_determinant_is_the_jacobians(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    few_variables(asked.sample, 64)
    teacher = cast(HasLatent, asked.teacher)
    z = normal(asked.sample.x.shape, generator=case.generator("latent"), like=asked.sample.x)
    found = torch.linalg.slogdet(jacobian(lambda point: teacher.push_forward(point)[0], z)).logabsdet
    evidence.close(teacher.push_forward(z)[1][0], found, "log |det dx/dz|", "derivative", scale=1.0)


@teacher_check(
    "The log-density is that of a standard normal latent field, less the log-determinant.",
    cause="the constant n log(2 pi) / 2, the sign of the log-determinant, or a latent field of another variance",
    needs=(LATENT, DENSITY),
    space=SMALL,
)
def log_density_is_the_latent_normal(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    z, log_det = cast(HasLatent, asked.teacher).pull_back(asked.sample.x)
    normal_density = -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)
    found = log_density(asked.teacher, asked.sample)
    evidence.close(found, normal_density - log_det, "log-density against the latent field's", "value", scale=1.0)


@teacher_check(
    "The covariance between sites is symmetric and positive, and density and score are those of its Gaussian.",
    cause="a transposed pair of axes, the precision in its place, or a factor in the density's constant",
    needs=(COVARIANCE,),
    space=SMALL,
)
def covariance_is_that_of_the_gaussian(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    few_variables(asked.sample, 150)
    matrix = covariance_matrix(asked.teacher, case.size, asked.sample)
    evidence.close(matrix, matrix.T, "covariance against its transpose", "value")
    smallest = float(torch.linalg.eigvalsh(matrix)[0])
    evidence.holds(smallest > 0, "covariance", measured=f"eigenvalue {smallest:.3g}", allowed="positive eigenvalues")
    x = asked.sample.x.flatten(1)
    solved = torch.linalg.solve(matrix, x.T).T
    oracles = asked.oracles()
    if "score" in oracles:
        evidence.close(oracles["score"]().flatten(1), -solved, "clean score against -C^-1 x", "derivative")
    if "smoothed_score" in oracles:
        noisy = matrix + asked.sigma[:, None, None] ** 2 * torch.eye(len(matrix), dtype=matrix.dtype)
        expected = torch.linalg.solve(noisy, asked.noisy.x.flatten(1)[..., None])[..., 0]
        evidence.close(
            oracles["smoothed_score"]().flatten(1), -expected, "smoothed score against -(C + v)^-1 x", "derivative"
        )
    if isinstance(asked.teacher, HasDensity):
        constant = 0.5 * float(torch.linalg.slogdet(2 * math.pi * matrix).logabsdet)
        expected = -0.5 * (x * solved).sum(1) - constant
        evidence.close(
            oracles["log_density"](), expected, "log-density against the Gaussian's", "derivative", scale=1.0
        )


def covariance_matrix(teacher: Teacher, size: int, sample: Sample) -> Tensor:
    """Clean covariance of all components, ``(C N, C N)``, on the processor."""
    block = cast(HasCovariance, teacher).covariance(size, torch.arange(sample.context.domain.sites))
    return block.reshape(variables(sample), -1)
