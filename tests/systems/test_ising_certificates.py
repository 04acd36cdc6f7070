"""Certificates of ferromagnets: against exact posteriors over random fields, and against the best local score."""

from __future__ import annotations

import math

import pytest
import torch

import sizetransfer as st
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.randomness import stream
from sizetransfer.systems.ising import CRITICAL, IsingModel, Limits
from sizetransfer.systems.ising.certificate import ferromagnet_certificate
from sizetransfer.theorem1 import PosteriorInfluence, covariance_weights, influence_table, rollout_errors

RATIOS = (0.3, 0.7, 0.95, 1.0, 1.3)


def random_fields(size, count=6):
    """Fields of many strengths and kinds: white, one sign, one strong site."""
    white = torch.randn(count, size, size, generator=stream("fields"))
    strengths = torch.tensor([0.03, 0.3, 1.0, 3.0]).repeat(count)[: 2 * count, None, None]
    both = strengths * torch.cat([white, white.abs()])
    spike = torch.zeros(1, size, size)
    spike[0, 1, 1] = 20.0
    return torch.cat([both, spike, torch.zeros(1, size, size)])


@pytest.mark.parametrize("ratio", RATIOS)
def test_covariances_in_every_field_are_between_zero_and_the_certificate(ratio):
    beta, h = ratio * CRITICAL, random_fields(6)
    certificate = ferromagnet_certificate(beta, (6, 6))
    for site in ((0, 0), (2, 3)):
        covariance = IsingModel(beta).covariance(h, site)
        assert float(covariance.min()) > -1e-13
        assert bool((covariance <= certificate.covariance(site) + 1e-12).all())
        # Without field the bound is met, so that nothing smaller would do.
        assert float((covariance[-1] - certificate.covariance(site)).abs().max()) < 1e-12


def test_a_certificate_of_another_temperature_is_broken():
    covariance = IsingModel(0.4).covariance(random_fields(6), (0, 0))
    assert bool((covariance > ferromagnet_certificate(0.39, (6, 6)).correlation + 1e-4).any())


def test_antiferromagnets_break_what_is_refused_for_them():
    covariance = IsingModel(-0.4).covariance(random_fields(4), (0, 0))
    assert float(covariance.min()) < -0.1
    with pytest.raises(OracleError, match="PosteriorInfluence"):
        ferromagnet_certificate(-0.4, (4, 4))


@pytest.mark.parametrize("boundary", ["cylinder", "open"])
def test_the_torus_bounds_what_lacks_some_of_its_bonds(boundary):
    certificate = ferromagnet_certificate(0.5, (5, 4))
    for site in ((0, 0), (2, 1)):
        covariance = IsingModel(0.5, boundary).covariance(torch.zeros(1, 5, 4), site)[0]
        assert bool((covariance <= certificate.covariance(site) + 1e-13).all())


def test_dobrushin_serves_every_size_at_high_temperature():
    beta = 0.2
    bound, exact = (ferromagnet_certificate(beta, (12, 12), method=m) for m in ("dobrushin", "exact"))
    assert bound.source == "dobrushin"
    assert bool((exact.correlation <= bound.correlation + 1e-13).all())
    assert ferromagnet_certificate(beta, (12, 12), limits=Limits(seconds=1e-9)).source == "dobrushin"
    with pytest.raises(OracleError, match="Dobrushin"):
        ferromagnet_certificate(0.3, (12, 12), limits=Limits(seconds=1e-9))


@pytest.mark.parametrize("ratio", [0.7, 1.0])
def test_weights_bound_those_of_every_posterior(ratio):
    beta, vm, v, patch = ratio * CRITICAL, 0.05, 0.8, [(0, 0), (1, 2)]
    certificate, h = ferromagnet_certificate(beta, (6, 6)), random_fields(6)
    covariance = sum(IsingModel(beta).covariance(h, site) for site in patch)
    inside = torch.zeros(6, 6)
    for site in patch:
        inside[site] = 1
    level = torch.tensor(v)
    exact = covariance_weights(covariance, inside, level, vm)
    bound = certificate.weights(patch, torch.tensor([v]), vm)[0]
    assert bool((exact <= bound + 1e-12).all())
    assert bool((exact[:-1] < bound - 1e-3).any())


def test_the_budget_is_the_integral_of_the_weights():
    certificate, vm, vx = ferromagnet_certificate(0.4, (6, 6)), 0.01, 25.0
    nodes = torch.linspace(math.log(vm), math.log(vx), 4001)
    sums = certificate.weights([(2, 2)], nodes.exp(), vm).sum((1, 2)) * nodes.exp()
    assert float(torch.trapezoid(sums, nodes)) == pytest.approx(certificate.budget(vm, vx).value, rel=1e-5)
    assert certificate.budget(vm, vx, sites=3).value == pytest.approx(3 * certificate.budget(vm, vx).value, rel=1e-14)


def test_budgets_are_uniform_in_the_size_below_the_critical_coupling_alone():
    def growth(ratio):
        sizes = [ferromagnet_certificate(ratio * CRITICAL, (n, n)) for n in (16, 32)]
        assert sizes[0].size_uniform == (ratio < 1)
        return math.log2(sizes[1].budget(0.01, 100.0).value / sizes[0].budget(0.01, 100.0).value)

    assert growth(0.7) < 0.01
    assert growth(1.0) == pytest.approx(1.75, abs=0.02)


@pytest.mark.parametrize("ratio", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_the_best_local_score_is_as_good_as_certified(ratio, sigma):
    teacher = st.teacher("ising", beta_over_critical=ratio).double()
    sample = teacher.sample(16, 6, generator=stream("fields", str(ratio)))
    level = torch.full((16,), sigma)
    x, _ = perturb(sample.x, level, generator=stream("noise", str(sigma)))
    posterior, certificate = teacher.posterior(sample.context.domain), ferromagnet_certificate(teacher.coupling, (6, 6))
    exact = posterior.score(x, level)
    for radius in (0, 1, 2):
        local = posterior.local_score(x, level, radius)
        found = float((local - exact).square().mean().sqrt() / exact.square().mean().sqrt())
        # The bound is on the mean over fields; sixteen fields of 36 sites stay within a tenth of it.
        assert found < 1.1 * certificate.locality_error(radius, sigma).value
        tail = sum(
            float(row.abs()[sample.context.domain.distance((0, 0)) > radius].sum())
            for row in [teacher.posterior_covariance(x, level, sample.context, (0, 0))[0, 0, 0] / sigma**4]
        )
        assert tail <= certificate.response_tail(radius, sigma).value
    assert certificate.locality_error(3, sigma).value == 0


@pytest.mark.parametrize(("boundary", "size"), [("open", 5), ("cylinder", 7)])
@pytest.mark.parametrize("method", ["exact", "dobrushin"])
def test_open_ends_are_as_far_apart_as_the_student_sees_them(boundary, size, method):
    """A torus joins the ends of a box, and would call what lies beyond half its length known."""
    options = {"circumference": 4} if boundary == "cylinder" else {}
    ratio = 0.5 if method == "dobrushin" else 0.95
    teacher = st.teacher("ising", beta_over_critical=ratio, boundary=boundary, **options).double()
    domain, sigma = teacher.domain(size), 2.0
    certificate = ferromagnet_certificate(teacher.coupling, domain.shape, closed=domain.closed_axes, method=method)
    x, level = torch.zeros(1, 1, *domain.shape), torch.tensor([sigma])
    for site in ((0, 0), domain.centre(), (size - 1, 3)):
        row = teacher.posterior_covariance(x, level, teacher.context(1, size), site)[0, 0, 0]
        for radius in range(size):
            beyond = float(row[domain.distance(site) > radius].sum()) / sigma**4
            assert beyond <= certificate.response_tail(radius, sigma).value
    assert certificate.locality_error(size - 2, sigma).value > 0 == certificate.locality_error(size - 1, sigma).value
    assert certificate.sufficient_radius(0.1, 1e-9).value == size - 1


def test_sufficient_radii():
    certificate = ferromagnet_certificate(0.5 * CRITICAL, (24, 24))
    radii = [certificate.sufficient_radius(sigma).value for sigma in (0.2, 0.5, 1.0, 2.0, 5.0)]
    assert radii == sorted(radii, reverse=True)
    assert radii[-1] == 0
    radius = int(certificate.sufficient_radius(1.0).value)
    assert certificate.locality_error(radius, 1.0).value <= 0.1 < certificate.locality_error(radius - 1, 1.0).value
    assert ferromagnet_certificate(CRITICAL, (24, 24)).sufficient_radius(0.5).value == 12
    for sigma in (0.0, -1.0, math.nan):
        with pytest.raises(OracleError, match="sigma"):
            certificate.sufficient_radius(sigma)


def test_the_weights_serve_theorem_1():
    """Rollouts of a local student, weighted by the certificate and by posteriors at the fields themselves."""
    teacher = st.teacher("ising", beta_over_critical=0.7).double()
    student = st.student("optimal-local-ising", teacher.field, beta_over_critical=0.7, radius=1)
    certificate, patch, levels = (
        ferromagnet_certificate(teacher.coupling, (4, 4)),
        [(0, 0)],
        torch.tensor([4.0, 1.0, 0.3]),
    )
    found = [
        rollout_errors(
            teacher, student, weights, size=4, levels=levels, trajectories=16, generator=stream("rollouts")
        ).drift
        for weights in (certificate.influence(patch, 0.3), PosteriorInfluence(teacher, patch, 0.3))
    ]
    assert 0 < found[1].value < found[0].value
    table = influence_table(
        teacher, patch=patch, size=4, sigma=1.0, sigma_min=0.3**0.5, samples=64, generator=stream("table")
    )
    bound = certificate.weights(patch, torch.tensor([1.0]), 0.3)[0]
    assert bool((table.weights[0] - 5 * table.standard_errors[0] <= bound).all())


# --- diagnose -----------------------------------------------------------------------------------------------------


def predicted(**teacher):
    return st.diagnose({"kind": "ising", **teacher}, sizes=(4, 6), sigmas=(0.5, 5.0), patch=((0, 0), (0, 1)))


def test_diagnose_gives_certified_budgets_weights_and_radii():
    found = predicted(beta_over_critical=0.5)
    certificate = ferromagnet_certificate(0.5 * CRITICAL, (6, 6))
    row = found.theorem[-1]
    assert row.budget == certificate.budget(0.05**2, 10.0**2, sites=2)
    assert row.size_uniform
    assert found.cone is not None
    assert found.cone.kind == "certificate"
    # The largest weight at the patch itself, at the lowest level: one site with its neighbour in the patch.
    assert found.cone.weights[0][0] == pytest.approx(1.0)
    radii = [f"{certificate.sufficient_radius(sigma).value:g} at sigma {sigma:g}" for sigma in (0.5, 5.0)]
    assert ", ".join(radii) in found.notes[-1]
    assert not predicted(beta_over_critical=1.0).theorem[-1].size_uniform


def test_diagnose_certifies_nothing_of_antiferromagnets():
    found = predicted(beta=-0.2)
    assert found.theorem[-1].budget is None
    assert found.cone is None
    assert "certified" not in found.notes[-1]


def test_diagnose_asks_only_what_the_solver_reaches():
    from sizetransfer.diagnosis import PredictionSpec

    for fields in ({}, {"boundary": "cylinder"}, {"boundary": "open"}):
        teacher = st.teacher("ising", **fields)
        for size in PredictionSpec().sizes_for(teacher):
            assert IsingModel(0.4, teacher.spec.boundary).cost(teacher.domain(size).shape, 8).seconds < 10
