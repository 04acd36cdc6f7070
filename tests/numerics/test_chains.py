"""Hybrid Monte Carlo against known moments and known autocorrelations, and the broken chains that the checks catch.

Statistical checks have fixed seeds; a correct chain would fail any one of them with probability ``BUDGET`` at most.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.randomness import stream
from sizetransfer.numerics import chains
from sizetransfer.numerics.chains import (
    NotMixedError,
    hybrid_monte_carlo,
    integrated_autocorrelation_time,
    mixing,
    split_r_hat,
)

BUDGET = 1e-4


def run(log_density, start, **changes):
    settings = {"path_length": math.pi / 2, "warmup": 100, "draws": 200, "generator": stream("chains"), **changes}
    return hybrid_monte_carlo(log_density, start, **settings)


def standard_scores(values, exact):
    """Deviations of means over draws and chains in standard errors from the spread of independent chains."""
    means = values.mean(0)
    return (means.mean(0) - exact) / (means.std(0) / math.sqrt(means.shape[0]))


def bound(count):
    """Largest of ``count`` standard scores; the spread of 128 chains is known to 6 %, which the factor allows for."""
    return 1.15 * NormalDist().inv_cdf(1 - BUDGET / (2 * count))


def white_start(*shape):
    return torch.randn(128, *shape, generator=stream("starts"))


# --- moments ------------------------------------------------------------------------------------------------------

PRECISION = torch.tensor([[2.0, 0.9, 0.0], [0.9, 1.5, -0.4], [0.0, -0.4, 4.0]], dtype=torch.float64)


def gaussian(x):
    return -0.5 * torch.einsum("bi,ij,bj->b", x - 1, PRECISION.to(x), x - 1)


def gaussian_scores(**changes):
    x = run(gaussian, white_start(3), **changes).draws
    covariance = torch.linalg.inv(PRECISION)
    upper = torch.triu_indices(3, 3)
    products = ((x - 1)[..., :, None] * (x - 1)[..., None, :])[..., upper[0], upper[1]]
    return torch.cat([standard_scores(x, 1.0), standard_scores(products, covariance[upper[0], upper[1]])])


def test_moments_of_a_gaussian():
    assert gaussian_scores().abs().max() < bound(9)


def test_without_metropolis_a_large_step_is_wrong(monkeypatch):
    fixed = {"step": 0.8, "adapt": False}
    assert gaussian_scores(**fixed).abs().max() < bound(9)
    monkeypatch.setattr(chains, "_accept", lambda log_ratio, generator: torch.ones_like(log_ratio, dtype=torch.bool))
    assert gaussian_scores(**fixed).abs().max() > 3 * bound(9)


def quartic(x):
    return -0.25 * x.pow(4).sum(1)


def logistic(x):
    return (-x - 2 * torch.nn.functional.softplus(-x)).sum(1)


# The moments of exp(-x^4/4): 4^(p/4) Gamma((p+1)/4) / Gamma(1/4); of the logistic law: pi^2/3 and 7 pi^4/15.
NON_GAUSSIAN = {
    "quartic": (quartic, {p: 4 ** (p / 4) * math.gamma((p + 1) / 4) / math.gamma(0.25) for p in (2, 4, 6)}),
    "logistic": (logistic, {2: math.pi**2 / 3, 4: 7 * math.pi**4 / 15}),
}


@pytest.mark.parametrize("name", NON_GAUSSIAN)
def test_moments_beyond_gaussians(name):
    log_density, moments = NON_GAUSSIAN[name]
    x = run(log_density, white_start(2), path_length=2.5).draws
    values = torch.cat([x] + [x.pow(p) for p in moments], dim=2)
    exact = torch.tensor([0.0, 0.0] + [value for value in moments.values() for _ in range(2)])
    assert standard_scores(values, exact).abs().max() < bound(exact.numel())


def test_single_precision_runs_and_agrees():
    single = run(gaussian, white_start(3).float()).draws
    assert single.dtype == torch.float32
    assert standard_scores(single.double(), 1.0).abs().max() < bound(3)


# --- mechanics ----------------------------------------------------------------------------------------------------


def test_the_warm_up_finds_the_target_acceptance_from_far_away():
    for step in (1e-3, 30.0):
        found = run(gaussian, white_start(3), step=step, target_acceptance=0.7)
        assert abs(float(found.acceptance.mean()) - 0.7) < 0.07
    assert run(gaussian, white_start(3), step=0.31, adapt=False).step == 0.31


def test_leapfrog_errors_are_of_second_order():
    start = chains._evaluate(quartic, white_start(2))
    momentum = torch.randn(128, 2, generator=stream("momenta"))

    def energy_error(steps):
        end, last = chains._leapfrog(quartic, start, momentum, 0.4 / steps, steps)
        change = chains._kinetic(last) - end.log_density - chains._kinetic(momentum) + start.log_density
        return float(change.abs().mean())

    order = math.log2(energy_error(8) / energy_error(16))
    assert abs(order - 2) < 0.1


def test_leapfrog_returns_when_the_momentum_is_turned():
    start = chains._evaluate(quartic, white_start(2))
    momentum = torch.randn(128, 2, generator=stream("momenta"))
    end, last = chains._leapfrog(quartic, start, momentum, 0.1, 7)
    back, first = chains._leapfrog(quartic, end, -last, 0.1, 7)
    torch.testing.assert_close(back.x, start.x, rtol=0, atol=1e-13)
    torch.testing.assert_close(first, -momentum, rtol=0, atol=1e-13)


def test_a_known_gradient_gives_the_chains_of_differentiation():
    known = chains.KnownGradient(quartic, lambda x: -x.pow(3))
    torch.testing.assert_close(run(known, white_start(3)).draws, run(quartic, white_start(3)).draws, rtol=0, atol=1e-9)
    wrong = chains.KnownGradient(quartic, torch.zeros_like)
    differs = (run(wrong, white_start(3)).draws - run(quartic, white_start(3)).draws).abs().max()
    assert float(differs) > 1e-3


def test_the_same_generator_gives_the_same_chains():
    torch.testing.assert_close(run(gaussian, white_start(3)).draws, run(gaussian, white_start(3)).draws, rtol=0, atol=0)


def test_a_trajectory_that_leaves_the_numbers_is_rejected():
    chain = run(quartic, white_start(2), step=40.0, adapt=False, draws=5, warmup=0)
    assert chain.draws.isfinite().all()
    assert float(chain.acceptance.max()) < 1e-6


@pytest.mark.parametrize("changes", [{"draws": 0}, {"warmup": -1}])
def test_empty_chains_are_refused(changes):
    with pytest.raises(OracleError, match="at least one draw"):
        run(gaussian, white_start(3), **changes)


def test_a_target_that_is_not_finite_at_the_start_is_refused():
    with pytest.raises(OracleError, match="128 of 128 starts"):
        run(lambda x: x.sum(1).clamp(1, 2).log() / 0 * 0, white_start(3))


# --- diagnostics --------------------------------------------------------------------------------------------------


def autoregression(coefficient, draws, count):
    """Stationary chains of autocorrelation ``coefficient ** t``; their time is ``(1 + a) / (1 - a)``."""
    noise = torch.randn(draws, count, generator=stream("autoregression"))
    values = [noise[0]]
    for innovation in noise[1:]:
        values.append(coefficient * values[-1] + math.sqrt(1 - coefficient**2) * innovation)
    return torch.stack(values)


@pytest.mark.parametrize("coefficient", [-0.5, 0.0, 0.5, 0.9])
def test_autocorrelation_time_of_an_autoregression(coefficient):
    exact = (1 + coefficient) / (1 - coefficient)
    found = float(integrated_autocorrelation_time(autoregression(coefficient, 20_000, 16)))
    # Sokal's variance of a windowed estimate, 2 (2 W + 1) / n tau^2, for a window of some six times tau.
    error = math.sqrt(2 * (12 * max(1, exact) + 1) / (20_000 * 16)) * exact
    assert abs(found - exact) < 5 * error


def test_chains_of_different_means_are_correlated_for_ever():
    apart = autoregression(0.5, 1000, 4) + torch.arange(4.0)
    assert float(integrated_autocorrelation_time(apart)) > 300
    assert float(split_r_hat(apart)) > 1.3
    assert float(split_r_hat(autoregression(0.5, 1000, 4))) < 1.02


def test_r_hat_sees_a_drift_that_all_chains_share():
    assert float(split_r_hat(autoregression(0.5, 1000, 4) + torch.linspace(0, 3, 1000)[:, None])) > 1.2


def test_chains_that_do_not_move_have_not_mixed():
    values = torch.randn(50, 4, 2, generator=stream("values"))
    values[:, 1, 1] = 0.3
    assert split_r_hat(values).isinf().tolist() == [False, True]
    report = mixing(values, torch.full((4,), 0.8))
    assert report.effective == 0
    with pytest.raises(NotMixedError, match=r"(?s)split R-hat inf.*acceptance 0.80") as refusal:
        report.require(max_r_hat=1.1, min_effective=10.0, where="here")
    assert refusal.value.mixing is report


def test_a_chain_too_short_is_refused():
    with pytest.raises(OracleError, match="3 draws of 4 chains"):
        mixing(torch.randn(3, 4, 1), torch.ones(4))
    with pytest.raises(OracleError, match="50 draws of 1 chains"):
        mixing(torch.randn(50, 1, 1), torch.ones(1))
    short = run(gaussian, 30 * white_start(3)[:4], draws=8, warmup=0, path_length=0.1, step=0.05, adapt=False)
    with pytest.raises(NotMixedError):
        mixing(short.draws, short.acceptance).require(max_r_hat=1.1, min_effective=20.0, where="here")
