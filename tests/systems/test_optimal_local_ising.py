"""The best local score of Ising models: against the marginal law of the ball, by enumeration, and as a student."""

from __future__ import annotations

import pytest
import torch
from brute_ising import enumerate_spins
from tolerances import assert_rounding

import sizetransfer as st
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import stream
from sizetransfer.systems.ising import TooLargeError

SIGMA = torch.tensor([0.7, 1.5])


def teacher_of(**fields):
    return st.teacher("ising", **{"beta_over_critical": 0.9, **fields}).double()


def student_of(teacher, radius, **fields):
    fields = {"beta_over_critical": 0.9, "reference": "lattice", **fields}
    return st.student("optimal-local-ising", teacher.field, radius=radius, **fields)


def noisy(teacher, size):
    sample = teacher.sample(2, size, generator=stream("clean", size))
    return perturb(sample.x, SIGMA, generator=stream("noise", size))[0], sample.context


@pytest.mark.parametrize("boundary", ["torus", "open"])
def test_it_is_the_score_of_the_balls_marginal(boundary):
    """E[s_i | x_B] from the law of the spins in the ball alone, summed over all others beforehand."""
    teacher = teacher_of(boundary=boundary)
    x, context = noisy(teacher, 4)
    found = student_of(teacher, 1)(x, SIGMA, context)
    prior = enumerate_spins(torch.zeros(4, 4), teacher.coupling, boundary)
    for site in ((0, 0), (1, 2), (3, 3)):
        ball = context.domain.ball(site, 1)
        for b, sigma in enumerate(SIGMA.tolist()):
            likelihood = -(x[b, 0] - prior.spins)[:, ball].square().sum(1) / (2 * sigma**2)
            weights = torch.softmax(prior.probabilities.log() + likelihood, 0)
            mean = weights @ prior.spins[(slice(None), *site)]
            expected = (mean - x[b, 0][site]) / sigma**2
            assert float(found[b, 0][site]) == pytest.approx(float(expected), abs=1e-12)


def test_the_whole_ball_gives_the_exact_score():
    for fields in ({}, {"boundary": "open"}, {"boundary": "cylinder", "circumference": 4}):
        teacher = teacher_of(**fields)
        x, context = noisy(teacher, 5)
        exact = teacher.smoothed_score(x, SIGMA, context)
        assert float((student_of(teacher, 5)(x, SIGMA, context) - exact).abs().max()) < 1e-12
        assert float((student_of(teacher, 1)(x, SIGMA, context) - exact).abs().max()) > 1e-3


@pytest.mark.parametrize("boundary", ["torus", "cylinder", "open"])
def test_its_jacobian_is_the_response_within_the_ball(boundary):
    teacher = teacher_of(boundary=boundary)
    x, context = noisy(teacher, 6)
    x.requires_grad_()
    (row,) = torch.autograd.grad(student_of(teacher, 1)(x, SIGMA, context)[1, 0, 2, 3], x)
    expected = teacher.posterior(context.domain).local_response(x.detach(), SIGMA, (2, 3), 1)
    assert float((row[1, 0] - expected[1]).abs().max()) < 1e-12
    assert not row[0].any()
    assert not row[1, 0][~context.domain.ball((2, 3), 1)].any()


def test_without_field_its_response_is_exact_within_the_ball():
    teacher = teacher_of()
    x, context = torch.zeros(1, 1, 6, 6), teacher.context(1, 6)
    sigma = SIGMA[:1]
    exact = teacher.posterior_covariance(x, sigma, context, (0, 0))[0, 0, 0] / float(sigma) ** 4
    exact[0, 0] -= 1 / float(sigma) ** 2
    local = teacher.posterior(context.domain).local_response(x, sigma, (0, 0), 2)[0]
    ball = context.domain.ball((0, 0), 2)
    assert float((local - exact)[ball].abs().max()) < 1e-13
    assert not local[~ball].any()


def test_it_beats_other_functions_of_the_ball():
    """Its denoising loss is below that of another coupling's best score, and above the exact score's."""
    teacher = teacher_of()
    sample = teacher.sample(1600, 4, generator=stream("many"))
    sigma = torch.full((1600,), 1.0)
    x, noise = perturb(sample.x, sigma, generator=stream("noises"))
    posterior = teacher.posterior(sample.context.domain)

    def loss(score):
        return (score + noise).square().mean((1, 2, 3))

    best, exact = loss(posterior.local_score(x, sigma, 1)), loss(posterior.score(x, sigma))
    other = loss(teacher_score_of_wrong_coupling(x, sigma, sample.context))
    for worse, better in ((other, best), (best, exact)):
        apart = worse - better
        assert float(apart.mean()) > 3 * float(apart.std()) / 40


def teacher_score_of_wrong_coupling(x, sigma, context):
    return teacher_of(beta_over_critical=0.3).posterior(context.domain).local_score(x, sigma, 1)


def test_one_reference_torus_serves_all_sizes():
    teacher = teacher_of()
    x, context = noisy(teacher, 6)
    own, fixed = student_of(teacher, 1), student_of(teacher, 1, reference=6)
    assert own.reads_domain
    assert not fixed.reads_domain
    assert_rounding(own(x, SIGMA, context), fixed(x, SIGMA, context), "posterior")
    # The same surroundings have the same score on a lattice that the solver itself does not reach.
    large = torch.zeros(2, 1, 16, 16)
    large[..., 4:10, 4:10] = x
    found = fixed(large, SIGMA, Context(teacher.domain(16)))
    assert_rounding(found[..., 5:9, 5:9], fixed(x, SIGMA, context)[..., 1:5, 1:5], "posterior")
    with pytest.raises(TooLargeError):
        own(large, SIGMA, Context(teacher.domain(16)))


def test_the_usual_reference_fits_the_ball():
    teacher = teacher_of()
    assert [student_of(teacher, r, reference="auto").reference for r in (1, 3, 4)] == [8, 8, 10]
    assert student_of(teacher_of(boundary="open"), 1, reference="auto").reads_domain
    x, context = noisy(teacher, 8)
    usual, own = student_of(teacher, 1, reference="auto"), student_of(teacher, 1)
    assert torch.equal(usual(x, SIGMA, context), own(x, SIGMA, context))


def test_rows_and_dtypes():
    teacher = teacher_of()
    x, context = noisy(teacher, 4)
    student = student_of(teacher, 1)
    together = student(x, SIGMA, context)
    assert_rounding(student(x[1:], SIGMA[1:], context), together[1:], "posterior")
    single = student(x.float(), SIGMA.float(), context)
    assert single.dtype == torch.float32
    assert float((single - together).abs().max()) < 1e-5


def test_refusals():
    teacher = teacher_of()
    x, context = noisy(teacher, 4)
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(OracleError, match="mask"):
        student_of(teacher, 1)(x, SIGMA, Context(context.domain, mask=mask))
    with pytest.raises(SpecError, match="reference"):
        student_of(teacher, 2, reference=4)
    with pytest.raises(SpecError, match="reference"):
        student_of(teacher_of(boundary="open"), 1, reference=6)
    with pytest.raises(SpecError, match="square lattice"):
        student_of(st.teacher("gaussian", dim=1, mass=1.0), 1)
    with pytest.raises(SpecError, match="twice"):
        student_of(teacher, 1, beta=0.4)
