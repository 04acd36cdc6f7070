"""The Ising teacher: noisy spins against enumeration, samples of every kind, capabilities and refusals.

Statistical checks have fixed seeds; a right teacher fails any of them with probability below 1e-5.
"""

from __future__ import annotations

import math

import pytest
import torch
from brute_ising import enumerate_spins
from tolerances import assert_rounding

from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import (
    HasCovariance,
    HasDensity,
    HasEnergy,
    HasLatent,
    HasPosterior,
    HasScore,
    HasSmoothedScore,
)
from sizetransfer.contracts.randomness import stream
from sizetransfer.numerics.chains import NotMixedError
from sizetransfer.systems.ising import CRITICAL, Cylinder, TooLargeError, zero_field
from sizetransfer.systems.ising import teacher as ising
from sizetransfer.systems.ising.teacher import IsingTeacherSpec

BOUNDARIES = ("torus", "cylinder", "open")
SIGMA = torch.tensor([0.5, 2.0])


def build(dtype=torch.float64, **fields):
    return IsingTeacherSpec.parse({"kind": "ising", **fields}).build().to(dtype).frozen()


def noisy(teacher, size, sigma=SIGMA):
    sample = teacher.sample(len(sigma), size, generator=stream("clean", size))
    return perturb(sample.x, sigma.to(sample.x), generator=stream("noise", size))[0], sample.context


# --- noisy fields -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_noisy_fields_are_those_of_all_configurations(boundary):
    fields = {"circumference": 3} if boundary == "cylinder" else {}
    teacher = build(beta=0.4, boundary=boundary, **fields)
    x, context = noisy(teacher, 3)
    mean, score = teacher.posterior_mean(x, SIGMA, context), teacher.smoothed_score(x, SIGMA, context)
    row, log_density = (
        teacher.posterior_covariance(x, SIGMA, context, (1, 2)),
        teacher.smoothed_log_density(x, SIGMA, context),
    )
    assert row.shape == (2, 1, 1, 3, 3)
    for b, sigma in enumerate(SIGMA.tolist()):
        v = sigma**2
        exact = enumerate_spins(x[b, 0] / v, 0.4, boundary)
        assert float((mean[b, 0] - exact.mean).abs().max()) < 1e-13
        assert float((score[b, 0] - (exact.mean - x[b, 0]) / v).abs().max()) < 1e-12
        assert float((row[b, 0, 0] - exact.covariance[1, 2]).abs().max()) < 1e-13
        # The mixture of Gaussians itself.
        prior = enumerate_spins(torch.zeros(3, 3), 0.4, boundary)
        apart = (x[b, 0] - prior.spins).square().sum((1, 2))
        expected = (prior.probabilities.log() - apart / (2 * v)).logsumexp(0) - 4.5 * math.log(2 * math.pi * v)
        assert float(log_density[b]) == pytest.approx(float(expected), rel=1e-12)


def test_the_score_is_the_gradient_and_its_derivative_the_covariance():
    teacher = build(beta_over_critical=0.9)
    x, context = noisy(teacher, 4)
    x.requires_grad_()
    score = teacher.smoothed_score(x, SIGMA, context)
    (row,) = torch.autograd.grad(score[1, 0, 2, 1], x)
    expected = teacher.posterior_covariance(x, SIGMA, context, (2, 1))[1, 0, 0] / 16
    expected[2, 1] -= 0.25
    assert float((row[1, 0] - expected).abs().max()) < 1e-13
    assert not row[0].any()
    step = 1e-5
    unit = torch.zeros_like(x)
    unit[1, 0, 2, 1] = step
    up, down = (teacher.smoothed_log_density(x + sign * unit, SIGMA, context)[1] for sign in (1, -1))
    assert float((up - down) / (2 * step)) == pytest.approx(float(score.detach()[1, 0, 2, 1]), abs=1e-8)


def test_noise_that_is_almost_none_tells_the_spins():
    teacher = build()
    sample = teacher.sample(2, 6, generator=stream(0))
    sigma = torch.tensor([0.05, 0.01])
    x, _ = perturb(sample.x, sigma, generator=stream(1))
    assert_rounding(teacher.posterior_mean(x, sigma, sample.context), sample.x, "posterior")


def test_dtypes_follow_the_field():
    teacher = build(torch.float32)
    x, context = noisy(teacher, 4)
    assert x.dtype == torch.float32
    score = teacher.smoothed_score(x, SIGMA.float(), context)
    exact = teacher.smoothed_score(x.double(), SIGMA.double(), context)
    assert score.dtype == torch.float32
    assert float((score - exact).abs().max()) < 1e-5


def test_posterior_samples_have_the_posterior_mean():
    teacher = build(beta_over_critical=0.95)
    x, context = noisy(teacher, 4)
    posterior = teacher.posterior(context.domain)
    spins = posterior.samples(x[1:], SIGMA[1:], 4000, generator=stream(3))[:, 0]
    mean = posterior.mean(x[1:], SIGMA[1:])[0, 0]
    error = (1 - mean.square()).sqrt() / 4000**0.5
    assert float(((spins.mean(0) - mean) / error).abs().max()) < 5


# --- samples ------------------------------------------------------------------------------------------------------


def test_samples_are_spins_with_the_exact_correlations():
    teacher = build(beta_over_critical=0.9)
    spins = teacher.sample(3000, 8, generator=stream(5)).x[:, 0]
    assert bool((spins.abs() == 1).all())
    table = zero_field(teacher.coupling, (8, 8))
    square = spins.mean((1, 2)).square()
    assert abs(float(square.mean()) - table.susceptibility / 64) < 5 * float(square.std()) / 3000**0.5
    assert teacher.sample_exactness(8).kind == "exact"


def test_large_samples_come_from_cluster_chains():
    teacher = build(beta_over_critical=0.9)
    assert teacher.sample_exactness(20).kind == "monte_carlo"
    assert teacher.exactness["sample"].kind == "monte_carlo"
    spins = teacher.sample(200, 20, generator=stream(6)).x[:, 0]
    table = zero_field(teacher.coupling, (20, 20))
    square = spins.mean((1, 2)).square()
    assert abs(float(square.mean()) - table.susceptibility / 400) < 5 * float(square.std()) / 200**0.5
    report = teacher.diagnose(20)
    assert 1 <= report.autocorrelation_time < 20
    assert report.r_hat < 1.05


def test_the_two_samplers_agree():
    clusters, perfect = (build(sampler=sampler) for sampler in ("swendsen-wang", "perfect"))
    assert perfect.exactness["sample"].kind == "exact"
    values = [t.sample(1000, 6, generator=stream(7)).x.mean((1, 2, 3)).square() for t in (clusters, perfect)]
    error = (sum(float(v.var()) for v in values) / 1000) ** 0.5
    assert abs(float(values[0].mean() - values[1].mean())) < 5 * error


def test_chains_that_have_not_mixed_give_no_sample(monkeypatch):
    monkeypatch.setattr(ising, "DIAGNOSED_WARMUP", 0)
    monkeypatch.setattr(ising, "DIAGNOSED_DRAWS", 8)
    with pytest.raises(NotMixedError, match="size 20"):
        build().sample(1, 20, generator=stream(0))


def test_an_antiferromagnet_has_perfect_samples_and_no_clusters():
    teacher = build(beta=-0.4)
    spins = teacher.sample(2000, 4, generator=stream(8)).x[:, 0]
    assert float((spins * spins.roll(-1, 1)).mean()) < -0.3
    with pytest.raises(OracleError, match="antiferromagnet"):
        teacher.sample(1, 20, generator=stream(8))


def test_cylinders_know_what_goes_around_them():
    teacher = build(boundary="cylinder", circumference=6)
    sample = teacher.sample(2, 10, generator=stream(9))
    domain = sample.context.domain
    assert sample.x.shape == (2, 1, 10, 6)
    assert domain == Cylinder((10, 6))
    assert int(domain.distance((0, 0))[0, 5]) == 1
    assert int(domain.distance((0, 0))[9, 0]) == 9
    assert domain.bulk(2)[:, 0].tolist() == [False] * 2 + [True] * 6 + [False] * 2
    assert not teacher.field.periodic
    assert teacher.translation_period is None


# --- the law ------------------------------------------------------------------------------------------------------


def test_partition_functions():
    assert build(beta_over_critical=0.5).log_partition(4) == pytest.approx(11.930156221120, abs=1e-11)
    for boundary in ("cylinder", "open"):
        fields = {"circumference": 3} if boundary == "cylinder" else {}
        exact = enumerate_spins(torch.zeros(3, 3), 0.4, boundary)
        assert build(beta=0.4, boundary=boundary, **fields).log_partition(3) == pytest.approx(
            float(exact.log_partition), rel=1e-13
        )
    assert build(beta=-0.4).log_partition(3) == pytest.approx(
        float(enumerate_spins(torch.zeros(3, 3), -0.4).log_partition), rel=1e-13
    )


def test_zero_field_tables_reach_far():
    assert build(beta_over_critical=0.5).zero_field(48).susceptibility == pytest.approx(3.3311519570, abs=1e-9)
    with pytest.raises(OracleError, match="torus"):
        build(boundary="open").zero_field(8)


def test_capabilities():
    teacher = build()
    has = [p for p in (HasSmoothedScore, HasPosterior) if isinstance(teacher, p)]
    lacks = [p for p in (HasDensity, HasEnergy, HasScore, HasLatent, HasCovariance) if isinstance(teacher, p)]
    assert len(has) == 2
    assert not lacks
    assert teacher.translation_period == 1
    assert teacher.even


def test_a_coupling_is_written_in_two_ways():
    assert build(beta=CRITICAL).coupling == build(beta_over_critical=1.0).coupling == build().coupling
    spec = IsingTeacherSpec.parse({"kind": "ising", "beta_over_critical": 0.8})
    assert IsingTeacherSpec.model_validate_json(spec.model_dump_json()) == spec
    assert build(preset="near-critical").coupling == pytest.approx(0.95 * CRITICAL)
    with pytest.raises(SpecError, match="twice"):
        build(beta=0.4, beta_over_critical=0.9)
    with pytest.raises(SpecError):
        build(beta=math.nan)


# --- refusals -----------------------------------------------------------------------------------------------------


def ask(teacher, x=None, sigma=None, site=(0, 0), size=4):
    x = torch.zeros(1, 1, size, size) if x is None else x
    sigma = torch.ones(len(x)) if sigma is None else sigma
    return teacher.posterior_covariance(x, sigma, teacher.context(1, size), site)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"sigma": torch.zeros(1)}, "above zero"),
        ({"sigma": torch.tensor([-1.0])}, "above zero"),
        ({"sigma": torch.tensor([math.nan])}, "above zero"),
        ({"x": torch.full((1, 1, 4, 4), math.inf)}, "finite"),
        ({"x": torch.zeros(1, 2, 4, 4)}, "shape"),
        ({"x": torch.zeros(1, 1, 4, 5)}, "shape"),
        ({"site": (4, 0)}, "coordinates"),
        ({"site": (0,)}, "coordinates"),
    ],
)
def test_impossible_questions_are_refused(question, words):
    with pytest.raises(OracleError, match=words):
        ask(build(), **question)


def test_noise_levels_are_one_for_each_field():
    posterior = build().posterior(build().domain(4))
    for sigma in (torch.ones(2), torch.tensor(1.0), 0.5):
        with pytest.raises(OracleError, match="one positive noise level for each field"):
            posterior.mean(torch.zeros(1, 1, 4, 4), sigma)


def test_sizes_beyond_the_solver_are_refused_with_the_limit_and_the_alternative():
    for call in (
        lambda: ask(build(), size=16),
        lambda: build().smoothed_score(torch.zeros(1, 1, 16, 16), torch.ones(1), build().context(1, 16)),
        lambda: build(sampler="perfect").sample(1, 16, generator=stream(0)),
    ):
        with pytest.raises(TooLargeError) as caught:
            call()
        assert "16 x 16" in str(caught.value)
        assert "GiB" in str(caught.value)
        assert "raise the limits" in str(caught.value)
    with pytest.raises(OracleError, match="at least 2"):
        build().sample(1, 1, generator=stream(0))
    tight = build(seconds=1e-4)
    with pytest.raises(TooLargeError):
        ask(tight, size=6)


@pytest.mark.parametrize(
    "fields", [{"circumference": 6}, {"sampler": "swendsen-wang", "beta": -0.1}, {"boundary": "moebius"}]
)
def test_impossible_specifications_are_refused(fields):
    with pytest.raises(SpecError):
        build(**fields)
