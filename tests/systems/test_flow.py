"""Laws of finite-depth local flows, over a zoo: the four presets and variants of them.

Each law is a function of a teacher, and each has a broken teacher that it must catch. Statistical laws have fixed
seeds and a common error budget: with probability ``BUDGET`` at most, a correct teacher would fail any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from flow_zoo import ZOO, build, sample, spec
from tolerances import TOLERANCE
from torch import Tensor

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import HasDensity, HasScore, Sample
from sizetransfer.contracts.randomness import stream
from sizetransfer.systems.flow.teacher import FlowTeacher

# Relative errors that rounding explains, by dtype.
INVERSE_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
LOG_DET_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}
SCORE_TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5}
BUDGET = 1e-3

NONLINEAR = [name for name in ZOO if name not in ("linear Gaussian", "zero depth")]
over_the_zoo = pytest.mark.parametrize("name", ZOO)


def relative(error: Tensor, reference: Tensor) -> float:
    return (error.norm() / reference.norm()).item()


# --- inverse and log-determinant ----------------------------------------------------------------------------------


def inverse_error(teacher: FlowTeacher, size: int) -> float:
    fields = sample(teacher, size)
    latent, _ = teacher.pull_back(fields.x)
    again, _ = teacher.push_forward(latent)
    back, _ = teacher.pull_back(teacher.push_forward(fields.x)[0])
    return max(relative(again - fields.x, fields.x), relative(back - fields.x, fields.x))


@over_the_zoo
@pytest.mark.parametrize("size", [4, 8, 16])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_pulling_back_undoes_pushing_forward(name, size, dtype):
    assert inverse_error(build(name, dtype), size) < INVERSE_TOLERANCE[dtype]


def log_det_error(teacher: FlowTeacher, size: int) -> float:
    latent, back = teacher.pull_back(sample(teacher, size).x)
    _, forward = teacher.push_forward(latent)
    jacobians = [torch.autograd.functional.jacobian(lambda z: teacher.push_forward(z[None])[0], row) for row in latent]
    exact = torch.stack([torch.linalg.slogdet(j.reshape(size**2, size**2)).logabsdet for j in jacobians])
    return max(((log_det - exact).abs() / exact.abs().clamp_min(1.0)).max().item() for log_det in (back, forward))


@over_the_zoo
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_log_determinant_is_that_of_the_full_jacobian(name, dtype):
    assert log_det_error(build(name, dtype), 4) < LOG_DET_TOLERANCE[dtype]


class WithoutMeanModeDeterminant(FlowTeacher):
    """Forgets log(1 + kappa)."""

    def pull_back(self, x):
        z, log_det = super().pull_back(x)
        return z, log_det - math.log1p(self.layers[-1].amplitude(x.shape[2:]))


class InAnotherOrder(FlowTeacher):
    """Undoes the layers in the order in which they were done."""

    def pull_back(self, x):
        for layer in self.layers:
            x, _ = layer.inverse(x)
        return x, x.new_zeros(len(x))


def test_a_wrong_determinant_and_a_wrong_order_are_caught():
    forgetful = WithoutMeanModeDeterminant(spec("long-range-stress")).double()
    assert inverse_error(forgetful, 4) < 1e-12
    assert log_det_error(forgetful, 4) > 0.1
    assert inverse_error(InAnotherOrder(spec("medium-range")).double(), 4) > 1e-3


# --- density and score --------------------------------------------------------------------------------------------


@over_the_zoo
def test_the_density_is_the_change_of_variables_from_a_standard_normal(name):
    teacher = build(name)
    fields = sample(teacher, 4)
    latent, log_det = teacher.pull_back(fields.x)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(latent).flatten(1).sum(1)
    torch.testing.assert_close(teacher.log_density(fields), normal - log_det, rtol=1e-12, atol=1e-12)
    assert isinstance(teacher, HasDensity)
    assert isinstance(teacher, HasScore)


def evidence(teacher: FlowTeacher, draws: int = 3000) -> tuple[float, float]:
    """Integral of the density on the smallest torus by importance sampling, with its standard error.

    Fields are drawn from a Gaussian of a somewhat larger covariance; any Gaussian gives the same mean.
    """
    covariance = 1.3 * torch.cov(sample(teacher, 2, 500, "covariance").x.flatten(1).T)
    proposal = torch.distributions.MultivariateNormal(torch.zeros(4), covariance)
    unit = torch.randn(draws, 4, generator=stream("tests", "evidence"))
    x = unit @ proposal.scale_tril.T
    fields = Sample(x.reshape(draws, 1, 2, 2), teacher.context(draws, 2))
    weights = (teacher.log_density(fields) - proposal.log_prob(x)).exp()
    return weights.mean().item(), weights.std().item() / math.sqrt(draws)


@pytest.mark.parametrize("name", ["short-range-structured", "long-range-stress", "strong couplings", "steep mean mode"])
def test_the_density_integrates_to_one(name):
    integral, error = evidence(build(name))
    assert error < 0.05
    assert abs(integral - 1) < z_score(4) * error


def test_a_density_that_does_not_integrate_to_one_is_caught():
    integral, error = evidence(WithoutMeanModeDeterminant(spec("steep mean mode")).double())
    assert abs(integral - 1) > z_score(4) * error


def observed_order(teacher: FlowTeacher, size: int = 6) -> float:
    """Slope of the error of central differences of the density against the score, in the step, both in logarithms."""
    fields = sample(teacher, size, 8, "order")
    score = teacher.score(fields)
    direction = torch.randn(fields.x.shape, generator=stream("tests", "directions"))
    slope = (score * direction).flatten(1).sum(1)
    steps = torch.logspace(-2.2, -1.2, 6)

    def difference(step: Tensor) -> Tensor:
        ends = [teacher.log_density(fields.with_x(fields.x + sign * step * direction)) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * step)

    errors = torch.stack([(difference(step) - slope).norm() for step in steps])
    centred = steps.log() - steps.log().mean()
    return ((centred * errors.log()).sum() / centred.square().sum()).item()


@pytest.mark.parametrize("name", NONLINEAR)
def test_the_score_is_the_gradient_of_the_density_to_second_order_in_the_step(name):
    assert 1.8 < observed_order(build(name)) < 2.2


@pytest.mark.parametrize("name", ["linear Gaussian", "zero depth"])
def test_the_score_of_a_gaussian_is_minus_its_precision_times_the_field(name):
    teacher = build(name)
    fields = sample(teacher, 6)
    jacobian = torch.autograd.functional.jacobian(lambda z: teacher.push_forward(z)[0], torch.zeros(1, 1, 6, 6))
    jacobian = jacobian.reshape(36, 36)
    expected = -torch.linalg.solve(jacobian @ jacobian.T, fields.x.reshape(2, 36).T).T.reshape(fields.x.shape)
    torch.testing.assert_close(teacher.score(fields), expected, rtol=1e-10, atol=1e-10)


class Louder(FlowTeacher):
    """A score that is five per cent too large."""

    def score(self, sample):
        return 1.05 * super().score(sample)


class Rotational(FlowTeacher):
    """A score field with a curl."""

    def score(self, sample):
        return super().score(sample) + 1e-6 * sample.x.roll(1, -1)


def test_a_wrong_score_has_no_order():
    assert observed_order(Louder(spec("medium-range")).double()) < 0.5


def asymmetry(teacher: FlowTeacher, size: int = 4) -> float:
    fields = sample(teacher, size, 1)
    jacobian = torch.autograd.functional.jacobian(lambda x: teacher.score(fields.with_x(x)), fields.x)
    jacobian = jacobian.reshape(size**2, size**2)
    return relative(jacobian - jacobian.T, jacobian)


@over_the_zoo
def test_the_jacobian_of_the_score_is_symmetric(name):
    assert asymmetry(build(name)) < TOLERANCE["score"][torch.float64]


def test_a_score_with_a_curl_is_caught():
    assert asymmetry(Rotational(spec("short-range-simple")).double()) > 1e-8


def test_the_score_is_differentiable_where_asked_and_leaves_no_graph_elsewhere():
    teacher = build("medium-range")
    fields = sample(teacher, 4)
    before = fields.x.clone()
    assert not teacher.score(fields).requires_grad
    with torch.no_grad():
        assert not teacher.score(fields).requires_grad
        assert not teacher.score(fields.with_x(fields.x.clone().requires_grad_())).requires_grad
    assert teacher.score(fields.with_x(fields.x.clone().requires_grad_())).requires_grad
    assert torch.equal(fields.x, before)
    assert fields.x.grad is None
    assert all(parameter.grad is None for parameter in teacher.parameters())


@over_the_zoo
def test_single_and_double_precision_agree(name):
    double, single = build(name), build(name, torch.float32)
    fields = sample(double, 8)
    score = single.score(fields.with_x(fields.x.float()))
    assert score.dtype == torch.float32
    assert relative(score.double() - double.score(fields), double.score(fields)) < SCORE_TOLERANCE[torch.float32]


# --- sampler and score belong together ----------------------------------------------------------------------------

STEIN_ZOO = ["short-range-simple", "short-range-structured", "medium-range", "long-range-stress", "linear smoother"]
STEPS = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 3)]
STEIN_NUMBERS = 2 * (1 + len(STEPS))


def z_score(comparisons: int) -> float:
    """Two-sided quantile at which ``comparisons`` comparisons together keep to the budget (Bonferroni)."""
    return NormalDist().inv_cdf(1 - BUDGET / (2 * comparisons))


def stein_deviations(sampler: Callable[[int], Sample], score: Callable[[Sample], Tensor], batches: int = 4) -> Tensor:
    """Deviations from E[s] = 0 and E[x s^T] = -I for each sublattice, in standard errors over fields."""
    rows = []
    for batch in range(batches):
        fields = sampler(batch)
        s, x = score(fields), fields.x
        products = [-s] + [s * x.roll(step, (2, 3)) + (step == (0, 0)) for step in STEPS]
        even = (fields.context.condition > 0).to(x)
        rows += [torch.stack([(p * part).mean((1, 2, 3)) for p in products for part in (even, 1 - even)], 1)]
    values = torch.cat(rows)
    return values.mean(0).abs() / (values.std(0) / math.sqrt(len(values)))


def stein(teacher: FlowTeacher, other: FlowTeacher | None = None) -> float:
    """Largest deviation, with fields of ``teacher`` and the score of ``other``."""
    return stein_deviations(lambda batch: sample(teacher, 6, 250, batch), (other or teacher).score).max().item()


@pytest.mark.parametrize("name", STEIN_ZOO)
def test_stein_identities_hold_within_their_monte_carlo_error(name):
    assert stein(build(name)) < z_score(len(STEIN_ZOO) * STEIN_NUMBERS)


def test_a_louder_score_and_a_sampler_with_another_gain_are_caught():
    threshold = z_score(len(STEIN_ZOO) * STEIN_NUMBERS)
    assert stein(Louder(spec("short-range-simple")).double()) > threshold
    assert stein(build("medium-range"), spec("medium-range", gain=1.0).build().double()) > threshold


# --- one rule at every size ---------------------------------------------------------------------------------------

# Narrow conditioners keep large tori cheap; the range of the dependence does not know the width.
FAMILIES = {
    "short-range-simple": {},
    "short-range-structured": {},
    "medium-range": {"width": 4},
    "long-range-stress": {"width": 4, "smoother_depth": 1},
}


def dependency_range(teacher: FlowTeacher) -> int:
    """Chebyshev radius beyond which the score cannot depend on the field: there and back through all layers."""
    of_spec = teacher.spec
    return 2 * (4 * (of_spec.pre_flow_depth + of_spec.flow_depth) + of_spec.smoother_depth * of_spec.cutoff)


def change_on_a_larger_torus(teacher: FlowTeacher, window: int, offset: tuple[int, int]) -> float:
    """Relative change of the score at a site when the torus grows, ``window`` sites around it being kept."""
    centre = max(window, dependency_range(teacher))
    size = 2 * centre + 2
    small, large = sample(teacher, size, 1, "small"), sample(teacher, size + 8, 1, "large")
    kept = slice(centre - window, centre + window + 1)
    moved = tuple(slice(kept.start + step, kept.stop + step) for step in offset)
    large.x[:, :, *moved] = small.x[:, :, kept, kept]
    before = teacher.score(small)[..., centre, centre]
    after = teacher.score(large)[..., centre + offset[0], centre + offset[1]]
    return ((after - before).abs() / before.abs()).item()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_patch_does_not_know_the_size_of_its_torus(name):
    teacher = spec(name, **FAMILIES[name], mean_mode=None).build().double()
    window = dependency_range(teacher)
    assert change_on_a_larger_torus(teacher, window, (2, 4)) < SCORE_TOLERANCE[torch.float64]
    assert change_on_a_larger_torus(teacher, window, (3, 5)) < SCORE_TOLERANCE[torch.float64]
    # Controls: another sublattice, and a window smaller than the range of the dependence.
    assert change_on_a_larger_torus(teacher, window, (2, 3)) > 1e-6
    assert change_on_a_larger_torus(teacher, 1, (2, 4)) > 1e-6


def test_the_mean_mode_knows_the_size_of_its_torus():
    teacher = spec("long-range-stress", **FAMILIES["long-range-stress"]).build().double()
    assert change_on_a_larger_torus(teacher, dependency_range(teacher), (2, 4)) > 1e-4


@pytest.mark.parametrize("size", [4, 16, 64])
def test_the_mean_of_the_field_carries_the_mean_mode(size):
    teacher = spec("zero depth", mean_mode={"strength": 4.0, "exponent": 1.0, "reference_size": 16}).build().double()
    amplitude = 4.0 * size / 16
    fields = sample(teacher, size)
    _, log_det = teacher.pull_back(fields.x)
    torch.testing.assert_close(log_det, torch.full((2,), math.log1p(amplitude)))
    # The covariance is 1 + ((1 + kappa)^2 - 1) P with the projection P on constants, so the precision is as follows.
    mean = fields.x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(teacher.score(fields), -(fields.x - mean) - mean / (1 + amplitude) ** 2)


@pytest.mark.parametrize("name", [name for name in ZOO if name != "zero depth"])
def test_even_translations_leave_the_law_unchanged_and_odd_ones_do_not(name):
    teacher = build(name)
    fields = sample(teacher, 6)
    density, score = teacher.log_density(fields), teacher.score(fields)
    for step, invariant in (((2, 0), True), ((1, 1), True), ((3, -1), True), ((1, 0), False), ((2, 3), False)):
        moved = fields.with_x(fields.x.roll(step, (2, 3)))
        change = relative(teacher.score(moved).roll((-step[0], -step[1]), (2, 3)) - score, score)
        density_change = relative(teacher.log_density(moved) - density, density)
        if invariant:
            assert change < 1e-12
            assert density_change < 1e-12
        else:
            assert change > 1e-4
            assert density_change > 1e-6


def test_white_noise_is_invariant_under_every_translation():
    teacher = build("zero depth")
    fields = sample(teacher, 6)
    assert torch.equal(teacher.score(fields), -fields.x)


@over_the_zoo
@pytest.mark.parametrize("size", [-2, 0, 1, 3, 7])
def test_a_torus_without_a_checkerboard_is_refused(name, size):
    teacher = build(name)
    with pytest.raises(OracleError, match="checkerboard") as caught:
        teacher.sample(1, size, generator=stream(0))
    assert caught.value.got == str(size)
    assert caught.value.fix == f"use {max(2, size + 1) if size > 0 else 2}"
    if size > 0:
        with pytest.raises(OracleError, match="checkerboard"):
            teacher.score(Sample(torch.ones(1, 1, size, size), teacher.context(1, size)))


def test_the_stein_law_takes_any_noise_level_of_a_gaussian():
    """The law itself on a case in closed form: white fields of variance 1 + v, and a variance that is wrong."""
    teacher = build("zero depth")
    sigma = torch.full((250,), 0.7)

    def noisy(batch: int) -> Sample:
        fields = sample(teacher, 6, 250, batch)
        noise = torch.randn(fields.x.shape, generator=stream("tests", "noise", batch))
        return replace(fields, x=fields.x + expand(sigma, fields.x) * noise)

    threshold = z_score(STEIN_NUMBERS)
    assert stein_deviations(noisy, lambda fields: -fields.x / 1.49).max() < threshold
    assert stein_deviations(noisy, lambda fields: -fields.x / 1.4).max() > threshold
