"""Posterior estimates against closed forms: rings by quadrature, Gaussian fields and linear flows by dense algebra.

Statistical checks have fixed seeds; a correct estimator would fail any one with probability ``BUDGET`` at most. All
standard errors come from ``CHAINS`` independent chains, so a standard score follows Student's law; the quantile of the
normal law is widened for that.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from statistics import NormalDist

import pytest
import torch
from tolerances import rounding

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import Context, Teacher
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.numerics.chains import NotMixedError
from sizetransfer.numerics.shells import ResponseProfile
from sizetransfer.scores.posterior import (
    EstimatedField,
    Posterior,
    PosteriorSpec,
    Responses,
    sample_posterior,
    sampling,
)
from sizetransfer.scores.posterior.weights import best_weights
from sizetransfer.scores.response import reference_sites
from sizetransfer.systems.flow.teacher import FlowTeacherSpec
from sizetransfer.systems.gaussian.teacher import GaussianTeacherSpec
from sizetransfer.systems.phi4.teacher import Phi4TeacherSpec, ring

BUDGET = 1e-4
CHAINS = 48
SPEC = PosteriorSpec(chains=CHAINS, warmup=40, draws=30, max_r_hat=1.2)  # R-hat of 15 draws is that large
RING = Phi4TeacherSpec(dim=1, mass2=-1.0, quartic=1.0)
LINEAR = {"pre_flow_depth": 0, "flow_depth": 0, "smoother_depth": 3, "cutoff": 2, "nonlinear": False, "gain": 0.8}
IDENTITY = {"pre_flow_depth": 1, "flow_depth": 1, "smoother_depth": 1, "gain": 0.0, "coupling_gain": 0.0, "width": 1}


def bound(count):
    normal = NormalDist().inv_cdf(1 - BUDGET / (2 * count))
    return normal * (1 + (normal**2 + 1) / (4 * (CHAINS - 1))) * 1.05  # Student's quantile, to first order


def agrees(estimate, exact):
    scores = (estimate.value - exact) / estimate.standard_error
    return float(scores.abs().max()) < bound(scores.numel())


def build(teacher_spec):
    return teacher_spec.build().to(torch.float64).frozen()


def noisy(teacher, size, sigma, batch=2):
    sample = teacher.sample(batch, size, generator=stream("fields", size))
    levels = torch.full((batch,), sigma)
    x, _ = perturb(sample.x, levels, generator=stream("noise", size))
    return x, levels, sample.context


def solve(teacher, size, sigma, **changes):
    x, levels, context = noisy(teacher, size, sigma)
    spec = SPEC.model_copy(update=changes)
    return sample_posterior(teacher, x, levels, context, spec, generator=stream("posterior"))


# --- non-Gaussian rings -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[0.3, 1.0, 3.0])
def ring_case(request):
    """The posterior of a ring of six double wells at three noise levels, and its exact moments."""
    found = solve(build(RING), 6, request.param)
    exact = [ring(RING, 6, observed=x[0], sigma=request.param) for x in found.x]
    return found, torch.stack([e.mean for e in exact])[:, None], torch.stack([e.covariance for e in exact])


def test_posterior_mean_and_covariance_of_rings(ring_case):
    found, mean, covariance = ring_case
    assert agrees(found.mean(), mean)
    assert agrees(found.covariance((2,)), covariance[:, 2][:, None, None])


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.4, None])
def test_tweedie_and_the_target_score_identity(ring_case, weight):
    found, mean, _ = ring_case
    v = float(found.sigma[0]) ** 2
    assert agrees(found.score(weight), (mean - found.x) / v)


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.4, None])
def test_the_response_is_the_posterior_covariance(ring_case, weight):
    found, _, covariance = ring_case
    v = float(found.sigma[0]) ** 2
    exact = covariance / v**2 - torch.eye(6) / v
    assert agrees(found.response_row((4,), weight), exact[:, 4][:, None, None])
    rows = found.responses([(0,), (4,), (1,)], weight).rows[:, :, :, 0, 0]
    pooled = EstimatedField(rows.mean(0), rows.std(0) / math.sqrt(rows.shape[0]))
    assert float(((pooled.value - exact[:, [0, 4, 1]]) / pooled.standard_error).abs().max()) < 1.2 * bound(36)


def test_the_best_weight_has_the_least_error(ring_case):
    found, _, _ = ring_case
    errors = {weight: float(found.score(weight).standard_error.mean()) for weight in (None, 0.0, 1.0)}
    assert errors[None] < 1.1 * min(errors[0.0], errors[1.0])


def test_a_wrong_likelihood_is_caught():
    x, levels, context = noisy(build(RING), 6, 1.0)
    exact = torch.stack([ring(RING, 6, observed=row[0], sigma=1.0).mean for row in x])[:, None]
    wrong = sample_posterior(build(RING), x, 1.2 * levels, context, SPEC, generator=stream("posterior"))
    assert not agrees(wrong.mean(), exact)


def test_chains_without_metropolis_are_caught(monkeypatch):
    x, levels, context = noisy(build(RING), 6, 0.3)
    exact = torch.stack([torch.diag(ring(RING, 6, observed=row[0], sigma=0.3).covariance) for row in x])

    def largest_score():
        found = sample_posterior(build(RING), x, levels, context, SPEC, generator=stream("posterior"))
        estimates = [found.covariance((i,)) for i in range(6)]
        variance = torch.stack([estimate.value[:, 0, 0, i] for i, estimate in enumerate(estimates)], 1)
        error = torch.stack([estimate.standard_error[:, 0, 0, i] for i, estimate in enumerate(estimates)], 1)
        return float(((variance - exact) / error).abs().max())

    monkeypatch.setattr("sizetransfer.numerics.chains._StepSize.settle", lambda self: setattr(self, "step", 1.0))
    assert largest_score() < bound(12)
    monkeypatch.setattr(
        "sizetransfer.numerics.chains._accept", lambda log_ratio, generator: torch.ones_like(log_ratio).bool()
    )
    assert largest_score() > 1.5 * bound(12)


# --- flows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coordinates", ["latent", "field"])
def test_a_flow_without_gains_is_white(coordinates):
    found = solve(build(FlowTeacherSpec(**IDENTITY)), 4, 0.7, coordinates=coordinates)
    shrinkage = 1 / 1.49
    assert agrees(found.mean(), shrinkage * found.x)
    exact = torch.zeros(2, 1, 1, 4, 4)
    exact[..., 1, 3] = 0.49 * shrinkage
    assert agrees(found.covariance((1, 3)), exact)


def test_for_a_gaussian_field_the_filter_leaves_no_noise():
    teacher = build(Phi4TeacherSpec(dim=2, mass2=0.5, quartic=0.0))
    found = solve(teacher, 4, 0.7)
    k = math.pi * torch.arange(4) / 2
    spectrum = 0.5 + 4 - 2 * (k.cos()[:, None] + k.cos()[None])
    response = -torch.fft.ifft2(1 / (1 / spectrum + 0.49)).real
    rows = found.responses([(0, 0), (1, 2)]).rows
    torch.testing.assert_close(rows[:, :, 0, 0, 0], response.expand(*rows.shape[:2], 4, 4), rtol=0, atol=1e-12)
    torch.testing.assert_close(rows[:, :, 1, 0, 0].roll((-1, -2), (2, 3)), rows[:, :, 0, 0, 0], rtol=0, atol=1e-12)
    assert found.response_row((0, 0), 0.0).standard_error.mean() > 0.02
    assert found.score().standard_error.max() < 1e-12


def test_for_a_white_teacher_the_best_weight_leaves_no_error():
    found = solve(build(FlowTeacherSpec(**IDENTITY)), 4, 0.7)
    exact_weight = 1 / 1.49
    assert float(found.score(exact_weight).standard_error.max()) < rounding(found.x)
    torch.testing.assert_close(found.score(exact_weight).value, -found.x / 1.49)


@pytest.mark.parametrize(("sigma", "coordinates"), [(0.3, "field"), (0.8, "latent"), (2.0, "field"), (2.0, "latent")])
def test_linear_flows_are_dense_linear_algebra(sigma, coordinates):
    teacher = build(FlowTeacherSpec(**LINEAR))
    images, _ = teacher.push_forward(torch.eye(16).reshape(16, 1, 4, 4))
    prior = images.flatten(1).T @ images.flatten(1)
    v = sigma**2
    gain = prior @ torch.linalg.inv(prior + v * torch.eye(16))
    found = solve(teacher, 4, sigma, coordinates=coordinates)
    assert agrees(found.mean(), (found.x.flatten(1) @ gain.T).reshape(found.x.shape))
    assert agrees(found.covariance((1, 2)), (v * gain)[6].reshape(1, 1, 1, 4, 4))
    response = -torch.linalg.inv(prior + v * torch.eye(16))
    for weight in (0.0, 0.4):
        assert agrees(found.response_row((1, 2), weight), response[6].reshape(1, 1, 1, 4, 4))
    # The law is invariant under even translations only, and the filter knows that: nothing is left of the noise.
    rows = found.responses([(1, 2), (2, 2)]).rows[:, :, :, 0, 0].flatten(3)
    torch.testing.assert_close(rows, response[[6, 10]].expand_as(rows), rtol=0, atol=1e-11)
    torch.testing.assert_close(found.score().value.flatten(1), found.x.flatten(1) @ response, rtol=0, atol=1e-11)


# --- weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(4, 6), (3, 4), (6,)])
def test_the_filter_is_a_symmetric_matrix(size):
    """Of plain Fourier modes where a side is odd; else it mixes sublattices, and moves with even translations only."""
    draws, scores = (torch.randn(5, 2, 4, 1, *size, generator=stream(name, *size)) for name in ("draws", "scores"))
    domain = Lattice(size)
    weights = best_weights(draws, scores, torch.full((2,), 0.3), domain)
    matrix = torch.stack([weights.row(site)[1].flatten() for site in product(*map(range, size))])
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    values = torch.randn(3, 2, *size, generator=stream("values"))
    expected = (values.flatten(2) @ matrix).reshape(values.shape)
    torch.testing.assert_close(weights.apply(values, batch_axis=1), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.complement().apply(values, batch_axis=1), values - expected, rtol=0, atol=1e-12)
    knows_sublattices = all(length % 2 == 0 for length in size)
    one_step = weights.apply(values.roll(1, -1), batch_axis=1).roll(-1, -1)
    assert bool((one_step - expected).abs().max() > 1e-3) == knows_sublattices
    two_steps = weights.apply(values.roll(2, -1), batch_axis=1).roll(-2, -1)
    torch.testing.assert_close(two_steps, expected, rtol=0, atol=1e-12)


def test_fields_of_different_noise_have_weights_of_their_own():
    draws, scores = (torch.randn(6, 2, 4, 1, 4, generator=stream(name)) for name in ("draws", "scores"))
    both = best_weights(draws, scores, torch.tensor([0.3, 2.0]), Lattice((4,))).gains
    for field, v in enumerate((0.3, 2.0)):
        alone = best_weights(draws[:, [field]], scores[:, [field]], torch.tensor([v]), Lattice((4,))).gains
        torch.testing.assert_close(both[[field]], alone)


def test_an_open_box_has_one_number():
    draws, scores = (torch.randn(9, 1, 4, 1, 5, generator=stream(name)) for name in ("draws", "scores"))
    (weight,) = best_weights(draws, -draws / 0.5, torch.tensor([2.0]), Lattice((5,), periodic=False)).gains
    assert math.isclose(float(weight), 0.5 / 2.5)
    assert best_weights(draws, scores, torch.tensor([2.0]), Lattice((5,), periodic=False)).gains.shape == (1,)


def test_a_group_of_chains_takes_its_weights_from_the_others(ring_case):
    found, _, _ = ring_case
    spoiled = found.scores.clone()
    spoiled[:, :, 2:4] += torch.randn(spoiled[:, :, 2:4].shape, generator=stream("spoiled"))
    other = replace(found, scores=spoiled)
    _, weights = found._regressand(None, held_out=[2, 3])
    torch.testing.assert_close(other._regressand(None, held_out=[2, 3])[1].gains, weights.gains, rtol=0, atol=0)
    rows, others = (case.responses([(0,)]).rows for case in (found, other))
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        regress = Posterior._regressand
        patch.setattr(
            Posterior, "_regressand", lambda self, w, held_out=(): seen.append(held_out) or regress(self, w, held_out)
        )
        found.responses([(0,)])
    assert seen == [[k, k + 1] for k in range(0, CHAINS, 2)]
    assert bool((rows[1] != others[1]).any())


def test_a_site_outside_the_lattice_is_refused(ring_case):
    found, _, _ = ring_case
    for ask in (found.covariance, found.response_row, lambda site: found.responses([(0,), site])):
        for site in ((6,), (-1,), (0, 0)):
            with pytest.raises(OracleError, match="site"):
                ask(site)


def test_both_coordinates_agree_for_a_nonlinear_flow():
    teacher = build(FlowTeacherSpec(pre_flow_depth=0, flow_depth=1, smoother_depth=1, coupling_gain=0.6, width=2))
    one, other = (solve(teacher, 4, 0.8, coordinates=c).score() for c in ("latent", "field"))
    error = (one.standard_error**2 + other.standard_error**2).sqrt()
    assert float(((one.value - other.value) / error).abs().max()) < bound(32)


def test_the_default_coordinates_follow_the_noise():
    teacher = build(FlowTeacherSpec(**LINEAR))
    assert sampling._better_coordinates(teacher, torch.tensor([0.2])) == "field"
    assert sampling._better_coordinates(teacher, torch.tensor([3.0])) == "latent"
    assert sampling._better_coordinates(build(RING), torch.tensor([3.0])) == "field"


def test_single_precision_runs():
    teacher = RING.build().frozen()
    sample = teacher.sample(2, 6, generator=stream("fields"))
    levels = torch.ones(2, dtype=torch.float32)
    x, _ = perturb(sample.x, levels, generator=stream("noise"))
    found = sample_posterior(teacher, x, levels, sample.context, SPEC, generator=stream("posterior"))
    assert found.draws.dtype == torch.float32
    exact = torch.stack([ring(RING, 6, observed=row[0], sigma=1.0).mean for row in x])[:, None]
    assert agrees(found.mean(), exact)


# --- tails and ranges ---------------------------------------------------------------------------------------------


def synthetic(rows, noise, groups=4, batch=2):
    """Noisy copies of known rows at every site of a torus: ``rows`` of shape ``*S`` are those of the origin."""
    domain = Lattice(tuple(rows.shape))
    sites = tuple(reference_sites(domain, domain.sites))
    axes = tuple(range(rows.ndim))
    exact = torch.stack([rows.roll(site, axes) for site in sites])[None, None, :, None, None]
    shape = (groups, batch, len(sites), 1, 1, *rows.shape)
    return Responses(exact + noise * torch.randn(shape, generator=stream("noise")), sites, domain)


def decaying(size=8):
    distance = Lattice((size, size)).distance((0, 0), "euclidean")
    signs = 1.0 - 2.0 * (Lattice((size, size)).parity() == 0)
    return signs * torch.exp(-1.5 * distance)


def exact_shells(rows):
    distance = Lattice(tuple(rows.shape)).distance((0,) * rows.ndim)
    return torch.stack([rows.abs()[distance == d].sum() for d in range(int(distance.max()) + 1)])


def test_tails_have_no_noise_floor_where_absolute_values_do():
    rows, noise = decaying(), 0.05
    found = synthetic(rows, noise)
    exact = exact_shells(rows)
    naive = torch.stack([found._over_shells(group.abs().sum((2, 3))).mean(0) for group in found.rows]).mean(0)
    assert float(naive[4]) > 10 * float(exact[4])
    error = noise * found.counts().sqrt() / math.sqrt(found.rows[:, :, :, 0, 0, 0, 0].numel())
    scores = (found.shells().mean(0) - exact) / error
    assert float(scores.max()) < bound(5)
    assert float(scores.abs()[:3].max()) < bound(3)


def test_without_noise_both_bounds_hold_and_squares_are_exact():
    rows = decaying()
    found, exact = synthetic(rows, 0.0), exact_shells(rows)
    torch.testing.assert_close(found.shells(), exact.expand(2, -1))
    upper = (found.counts() * found.squared_shells()).sqrt()
    assert bool((upper >= exact - 1e-12).all())
    assert ResponseProfile(found.shells().mean(0)).effective_range(0.05) == ResponseProfile(exact).effective_range(0.05)


def test_noise_hides_no_tail_of_a_gaussian_field_and_adds_none():
    """Tweedie's estimate has all the noise of the chains; the truth is that of the ring's spectrum."""
    size, sigma = 24, 1.0
    teacher = build(GaussianTeacherSpec(dim=1, mass=0.7))
    x, levels, context = noisy(teacher, size, sigma, batch=16)
    spec = PosteriorSpec(chains=8, warmup=40, draws=60, max_r_hat=1.3, min_effective=30)
    posterior = sample_posterior(teacher, x, levels, context, spec, generator=stream("posterior"))
    found = posterior.responses(reference_sites(context.domain, size), 0.0)
    k = 2 * math.pi * torch.arange(size) / size
    exact = exact_shells(torch.fft.ifft(1 / (1 / (0.49 + 2 - 2 * k.cos()) + sigma**2)).real)
    shells = found.shells()
    tails = shells[:, 6:].sum(1)
    naive = torch.stack([found._over_shells(group.abs().sum((2, 3))).mean(0) for group in found.rows]).mean(0)
    assert float(naive[6:].sum()) > 20 * float(exact[6:].sum())
    assert ResponseProfile(naive).effective_range(0.2) > 3 * ResponseProfile(exact).effective_range(0.2)
    # 5.6: Student's quantile of fifteen degrees of freedom at half the budget.
    assert float((tails.mean() - exact[6:].sum()).abs()) < 5.6 * float(tails.std()) / 4
    assert float(tails.std()) / 4 < 0.03 * float(naive[6:].sum())
    assert ResponseProfile(shells.mean(0)).effective_range(0.2) == ResponseProfile(exact).effective_range(0.2)


def test_noise_that_agrees_by_chance_is_no_signal():
    """Rows that vanish: a sum over shells has mean zero, over repetitions, however few groups, fields and sites."""
    domain = Lattice((8,))
    sites = tuple(reference_sites(domain, 8))
    generator = stream("chance")
    sums = torch.stack(
        [
            Responses(torch.randn(2, 2, 8, 1, 1, 8, generator=generator), sites, domain).shells().mean(0).sum()
            for _ in range(300)
        ]
    )
    assert float(sums.mean().abs()) < bound(1) * float(sums.std()) / math.sqrt(300)


def test_signs_that_change_from_field_to_field_are_seen_where_noise_allows():
    """Rows of random signs: their mean over fields is nearly zero, their absolute values are one."""
    signs = torch.randn(1, 8, 32, 1, 1, 32, generator=stream("signs")).sign()
    domain = Lattice((32,))
    sites = tuple(reference_sites(domain, 32))
    noise = torch.randn(4, 8, 32, 1, 1, 32, generator=stream("noise"))
    counts = Responses(signs, sites, domain).counts()
    clear, lost = (Responses(signs + size * noise, sites, domain).shells().mean(0) / counts for size in (0.1, 100.0))
    torch.testing.assert_close(clear, torch.ones(17), rtol=0, atol=0.02)
    error = 100.0 / (counts * 8 * 32 * 4).sqrt()
    assert float((lost / error).abs().max()) < bound(17)


def test_squares_are_unbiased_where_plain_squares_are_not():
    noise = 0.5
    found = synthetic(torch.zeros(8, 8), noise, batch=4)
    plain = torch.stack([found._over_shells(group.square().sum((2, 3))).mean(0) for group in found.rows]).mean(0)
    torch.testing.assert_close(plain, noise**2 * found.counts(), rtol=0.1, atol=0)
    squares = found.squared_shells().mean(0)
    pairs = 4 * 3 / 2
    error = noise**2 * (found.counts() / (4 * 64 * pairs)).sqrt()
    assert float((squares / error).abs().max()) < bound(5)


def test_blocks_of_several_channels_count_by_their_frobenius_norm():
    block = torch.tensor([[1.0, 2.0], [0.0, -2.0]])
    rows = torch.zeros(3, 1, 2, 2, 2, 4)
    for index, site in enumerate((0, 1)):
        rows[:, :, index, :, :, (site + 1) % 4] = block
    found = Responses(rows, ((0,), (1,)), Lattice((4,)))
    torch.testing.assert_close(found.shells(), torch.tensor([[0.0, 3.0, 0.0]]))
    torch.testing.assert_close(found.squared_shells(), torch.tensor([[0.0, 9.0, 0.0]]))


def test_open_boxes_have_rows_of_their_own():
    rows = torch.zeros(2, 1, 2, 1, 1, 5)
    rows[:, :, 0, 0, 0, 1], rows[:, :, 1, 0, 0, 2] = 0.5, -0.25
    found = Responses(rows, ((0,), (3,)), Lattice((5,), periodic=False))
    torch.testing.assert_close(found.shells(), torch.tensor([[0.0, 0.375, 0.0, 0.0, 0.0]]))


# --- refusals -----------------------------------------------------------------------------------------------------


def test_two_wells_that_no_chain_leaves_are_refused():
    """At x = 0 a deep double well has a posterior of two modes: chains stay in one each, and disagree."""
    teacher = build(Phi4TeacherSpec(dim=1, mass2=-12.0, quartic=1.0))
    short = PosteriorSpec(warmup=40, draws=40)
    with pytest.raises(NotMixedError, match=r"(?s)posterior of Phi4Teacher at sigma = 3.*split R-hat") as refusal:
        sample_posterior(
            teacher, torch.zeros(1, 1, 2), torch.tensor([3.0]), teacher.context(1, 2), short, generator=stream("wells")
        )
    assert refusal.value.mixing.r_hat > 2


def test_chains_too_short_are_refused():
    with pytest.raises(NotMixedError, match="effective sample size of at least 10000"):
        solve(build(RING), 6, 1.0, draws=20, chains=4, min_effective=1e4)


class Silent(Teacher):
    """Knows nothing but its fields."""

    def __init__(self):
        super().__init__(FieldInfo(dim=1))

    def sample(self, batch, size, *, generator):
        raise AssertionError


def test_teachers_without_a_density_are_refused():
    context = Context(Lattice((4,)))
    for coordinates, missing in ((None, "HasLatent"), ("field", "HasDensity or HasEnergy")):
        spec = PosteriorSpec(coordinates=coordinates)
        with pytest.raises(OracleError, match=missing):
            sample_posterior(Silent(), torch.zeros(1, 1, 4), torch.ones(1), context, spec, generator=stream("nothing"))


@pytest.mark.parametrize("sigma", [torch.zeros(2), torch.ones(3), torch.tensor([1.0, torch.inf])])
def test_noise_levels_must_be_positive_and_fit(sigma):
    teacher = build(RING)
    with pytest.raises(OracleError, match="one positive noise level"):
        sample_posterior(teacher, torch.zeros(2, 1, 4), sigma, teacher.context(2, 4), generator=stream("bad"))


def test_fields_that_are_not_finite_are_refused():
    teacher = build(RING)
    x = torch.full((1, 1, 4), torch.nan)
    with pytest.raises(OracleError, match="not finite"):
        sample_posterior(teacher, x, torch.ones(1), teacher.context(1, 4), generator=stream("bad"))


def test_a_weight_needs_clean_scores(ring_case):
    found, _, _ = ring_case
    scoreless = replace(found, scores=None)
    with pytest.raises(OracleError, match="no clean scores"):
        scoreless.score(0.5)
    torch.testing.assert_close(scoreless.score().value, found.score(0.0).value)
