"""The scalar field theory against Gaussian fields, transfer quadrature on rings and direct quadrature on two sites.

Statistical checks have fixed seeds; a correct teacher would fail any one of them with probability ``BUDGET`` at most.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch

import sizetransfer as st
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context, HasDensity, HasEnergy, HasScore, Sample
from sizetransfer.contracts.randomness import stream
from sizetransfer.numerics.chains import NotMixedError
from sizetransfer.systems.phi4 import teacher as phi4
from sizetransfer.systems.phi4.teacher import Phi4TeacherSpec, ring

BUDGET = 1e-4
ZOO = {
    "free": {"preset": "free"},
    "symmetric": {"preset": "symmetric"},
    "double-well": {"preset": "double-well"},
    "strong": {"mass2": -1.0, "quartic": 4.0},
}
over_the_zoo = pytest.mark.parametrize("name", ZOO)


def spec(name, **changes):
    return Phi4TeacherSpec.parse({"kind": "phi4", **ZOO[name], **changes})


def build(name, dtype=torch.float64, **changes):
    return spec(name, **changes).build().to(dtype).frozen()


def fields(teacher, size, batch=3):
    x = torch.randn(batch, 1, *(size,) * teacher.field.dim, generator=stream("fields", size))
    return Sample(x, teacher.context(batch, size))


def precision(mass2, size, dim):
    """Dense precision of the Gaussian field, site by site."""
    ring_laplacian = 2 * torch.eye(size) - torch.eye(size).roll(1, 0) - torch.eye(size).roll(-1, 0)
    total = mass2 * torch.eye(size**dim)
    for axis in range(dim):
        factors = [ring_laplacian if a == axis else torch.eye(size) for a in range(dim)]
        term = factors[0]
        for factor in factors[1:]:
            term = torch.kron(term, factor)
        total = total + term
    return total


# --- energy and score ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_without_quartic_term_the_field_is_gaussian(dim, size):
    teacher = build("free", dim=dim)
    sample = fields(teacher, size)
    Q = precision(0.25, size, dim)
    flat = sample.x.flatten(1)
    torch.testing.assert_close(teacher.energy(sample), 0.5 * torch.einsum("bi,ij,bj->b", flat, Q, flat))
    torch.testing.assert_close(teacher.score(sample).flatten(1), -flat @ Q)


@over_the_zoo
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_score_is_the_gradient_of_the_energy(name, dim):
    teacher = build(name, dim=dim)
    sample = fields(teacher, 4)
    x = sample.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(teacher.energy(sample.with_x(x)).sum(), x)
    torch.testing.assert_close(teacher.score(sample), -gradient)


@over_the_zoo
@pytest.mark.parametrize(("dim", "size"), [(1, 5), (2, 4), (2, 3), (3, 3)])
def test_chains_follow_the_gradient_of_their_target(name, dim, size):
    teacher = build(name, dim=dim)
    whitened = torch.randn(3, 1, *(size,) * dim, generator=stream("whitened")).requires_grad_()
    (expected,) = torch.autograd.grad(teacher._log_density(whitened).sum(), whitened)
    torch.testing.assert_close(teacher._gradient(whitened), expected)


def test_the_potential_is_the_documented_one():
    teacher = build("double-well", dim=1)
    constant = torch.tensor([0.3, math.sqrt(0.7)])[:, None, None].expand(2, 1, 5)
    sample = Sample(constant, teacher.context(2, 5))
    expected = [5 * (-0.35 * 0.3**2 + 0.25 * 0.3**4), 5 * (-(0.7**2) / 4)]
    torch.testing.assert_close(teacher.energy(sample), torch.tensor(expected))
    torch.testing.assert_close(teacher.score(sample)[1], torch.zeros(1, 5), rtol=0, atol=1e-14)


def test_capabilities_promise_no_normalised_density():
    teacher = build("symmetric")
    assert isinstance(teacher, HasEnergy)
    assert isinstance(teacher, HasScore)
    assert not isinstance(teacher, HasDensity)
    assert teacher.exactness["sample"].kind == "monte_carlo"
    assert teacher.exactness["score"].kind == "exact"


# --- quadrature ---------------------------------------------------------------------------------------------------


@over_the_zoo
@pytest.mark.parametrize("size", [2, 3, 8])
def test_quadrature_has_converged(name, size):
    fine, coarse = ring(spec(name), size), ring(spec(name), size, nodes=121)
    assert abs(fine.log_partition - coarse.log_partition) < 1e-11
    for moment in ("second", "fourth", "covariance"):
        torch.testing.assert_close(getattr(fine, moment), getattr(coarse, moment), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("size", [2, 5])
def test_quadrature_of_the_free_ring_is_dense_linear_algebra(size):
    exact = ring(spec("free"), size)
    Q = precision(0.25, size, 1)
    covariance = torch.linalg.inv(Q)
    torch.testing.assert_close(exact.covariance, covariance, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(exact.fourth, 3 * covariance.diagonal().square(), rtol=1e-11, atol=1e-11)
    assert math.isclose(
        exact.log_partition, 0.5 * (size * math.log(2 * math.pi) - float(torch.logdet(Q))), abs_tol=1e-11
    )


def test_quadrature_of_the_observed_free_ring_is_dense_linear_algebra():
    x = torch.tensor([0.4, -1.7, 2.2, 0.1])
    posterior = ring(spec("free"), 4, observed=x, sigma=0.6)
    covariance = torch.linalg.inv(precision(0.25, 4, 1) + torch.eye(4) / 0.36)
    torch.testing.assert_close(posterior.mean, covariance @ x / 0.36, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(posterior.covariance, covariance, rtol=1e-11, atol=1e-11)


def test_quadrature_of_two_sites_is_a_double_integral():
    theory = spec("double-well")
    grid = torch.linspace(-5, 5, 401)
    a, b = torch.meshgrid(grid, grid, indexing="ij")
    pairs = Sample(torch.stack([a.flatten(), b.flatten()], 1)[:, None], Context(build("double-well", dim=1).domain(2)))
    weight = (-build("double-well", dim=1).energy(pairs)).exp().reshape(a.shape)
    exact = ring(theory, 2)
    assert math.isclose(exact.log_partition, math.log(float(weight.sum()) * 0.025**2), abs_tol=1e-10)
    assert math.isclose(float(exact.covariance[0, 1]), float((a * b * weight).sum() / weight.sum()), abs_tol=1e-10)
    assert math.isclose(float(exact.fourth[0]), float((a**4 * weight).sum() / weight.sum()), abs_tol=1e-10)


def test_a_grid_too_coarse_is_refused_not_wrong():
    x = torch.tensor([0.4, -1.7, 2.2, 0.1])
    with pytest.raises(OracleError, match=r"at least [0-9]+ nodes"):
        ring(spec("free"), 4, observed=x, sigma=0.01)
    with pytest.raises(OracleError, match="too coarse"):
        ring(Phi4TeacherSpec(dim=1, mass2=1e-4, quartic=0.0), 4)
    fine = ring(spec("free"), 4, observed=x, sigma=0.1, nodes=601)
    covariance = torch.linalg.inv(precision(0.25, 4, 1) + torch.eye(4) / 0.01)
    torch.testing.assert_close(fine.covariance, covariance, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "changes",
    [{"size": 1}, {"observed": torch.zeros(3)}, {"observed": torch.full((4,), torch.nan)}, {"sigma": 0.0}],
)
def test_rings_that_do_not_exist_are_refused(changes):
    with pytest.raises(OracleError, match="no such ring"):
        ring(spec("free"), **{"size": 4, **changes})


# --- samples ------------------------------------------------------------------------------------------------------


def ring_scores(teacher, size, batch=4000):
    """Standard scores of site moments and of all correlations, each an average over the ring."""
    x = teacher.sample(batch, size, generator=stream("samples", size)).x[:, 0]
    exact = ring(teacher.spec, size)
    values = [x.mean(1), x.square().mean(1), x.pow(4).mean(1)]
    values += [(x * x.roll(-d, 1)).mean(1) for d in range(1, size // 2 + 1)]
    expected = [0.0, float(exact.second[0]), float(exact.fourth[0]), *exact.covariance[0, 1 : size // 2 + 1].tolist()]
    table = torch.stack(values, 1)
    return (table.mean(0) - torch.tensor(expected)) / (table.std(0) / math.sqrt(batch))


def bound(count):
    return NormalDist().inv_cdf(1 - BUDGET / (2 * count))


@over_the_zoo
def test_samples_have_the_moments_of_the_ring(name):
    scores = ring_scores(build(name, dim=1), 6)
    assert scores.abs().max() < bound(scores.numel())


def test_a_chain_that_stops_at_its_start_is_caught(monkeypatch):
    teacher = build("double-well", dim=1)
    teacher.diagnose(6)
    monkeypatch.setattr(
        "sizetransfer.numerics.chains._accept", lambda log_ratio, generator: torch.zeros_like(log_ratio).bool()
    )
    scores = ring_scores(teacher, 6)
    assert scores.abs().max() > 3 * bound(scores.numel())


def test_free_samples_in_two_dimensions():
    x = build("free").sample(2000, 4, generator=stream("free")).x.flatten(1)
    exact = torch.linalg.inv(precision(0.25, 4, 2))
    products = x[:, :1] * x
    scores = (products.mean(0) - exact[0]) / (products.std(0) / math.sqrt(2000))
    assert scores.abs().max() < bound(16)


def test_single_precision_samples_and_repeats():
    teacher = build("symmetric", torch.float32, dim=1)
    first, again = (teacher.sample(4, 6, generator=stream("repeat")).x for _ in range(2))
    assert first.dtype == torch.float32
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    fresh = build("symmetric", torch.float32, dim=1).sample(4, 6, generator=stream("repeat")).x
    torch.testing.assert_close(first, fresh, rtol=0, atol=0)


def test_the_reported_mixing():
    report = build("symmetric", dim=1).diagnose(6)
    assert 0.7 < report.acceptance < 0.95
    assert report.r_hat < phi4.MAX_R_HAT
    assert report.effective > phi4.MIN_EFFECTIVE


# --- refusals -----------------------------------------------------------------------------------------------------


def test_frozen_kinks_are_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr(phi4, "DIAGNOSED_WARMUP", 60)
    monkeypatch.setattr(phi4, "DIAGNOSED_DRAWS", 60)
    frozen = Phi4TeacherSpec(dim=1, mass2=-6.0, quartic=1.0).build()
    with pytest.raises(NotMixedError, match=r"(?s)phi4 sample, size 12.*at most 1\.05.*split R-hat [2-9]"):
        frozen.sample(2, 12, generator=stream("frozen"))


def test_a_chain_that_rejects_everything_is_refused(monkeypatch):
    teacher = build("symmetric", dim=1)
    teacher.diagnose(6)
    (key,) = teacher._tuned
    monkeypatch.setitem(teacher._tuned, key, phi4._Tuned(50.0, 10, teacher.diagnose(6)))
    with pytest.raises(NotMixedError, match="rejects nearly all"):
        teacher.sample(2, 6, generator=stream("stuck"))


@pytest.mark.parametrize("mass2", [0.0, -1.0])
def test_without_a_quartic_term_the_mass_must_be_positive(mass2):
    with pytest.raises(SpecError, match="mass2 > 0 where quartic = 0"):
        st.teacher("phi4", mass2=mass2, quartic=0.0)


def test_bad_fields_are_refused():
    with pytest.raises(SpecError, match="quartic"):
        st.teacher("phi4", quartic=-0.1)
    with pytest.raises(SpecError, match="dim"):
        st.teacher("phi4", dim=4)
    with pytest.raises(OracleError, match="too small"):
        build("symmetric").sample(1, 1, generator=stream("small"))
