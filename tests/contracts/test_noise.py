"""The noise process: its levels, its perturbation and its embedding, each against the formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.noise import draw_sigma, expand, fourier_features, perturb, sigma_grid
from sizetransfer.contracts.specs import NoiseSchedule

SCHEDULE = NoiseSchedule(sigma_min=0.05, sigma_max=1.0)
SIGNIFICANCE = 4.0  # standard errors; with fixed seeds a deviation beyond it is a defect


def test_log_sigma_is_uniform(generator):
    n = 20_000
    sigma = draw_sigma(SCHEDULE, n, generator=generator, like=torch.zeros(()))
    low, high = math.log(SCHEDULE.sigma_min), math.log(SCHEDULE.sigma_max)
    unit = (sigma.log() - low) / (high - low)
    assert unit.min() >= 0
    assert unit.max() <= 1
    for power in (1, 2, 3, 4):
        expected = 1 / (power + 1)
        error = math.sqrt((1 / (2 * power + 1) - expected**2) / n)
        assert abs(unit.pow(power).mean().item() - expected) < SIGNIFICANCE * error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drawn_levels_follow_the_generator_and_the_dtype(dtype):
    first, second, other = (
        draw_sigma(SCHEDULE, 5, generator=torch.Generator().manual_seed(seed), like=torch.zeros((), dtype=dtype))
        for seed in (3, 3, 4)
    )
    assert first.shape == (5,)
    assert first.dtype == dtype
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@given(st.integers(2, 40))
def test_grid_falls_in_equal_ratios_between_the_ends(levels):
    grid = sigma_grid(SCHEDULE, levels)
    assert grid.shape == (levels,)
    assert grid[0].item() == pytest.approx(SCHEDULE.sigma_max, rel=1e-14)
    assert grid[-1].item() == pytest.approx(SCHEDULE.sigma_min, rel=1e-14)
    ratio = (SCHEDULE.sigma_min / SCHEDULE.sigma_max) ** (1 / (levels - 1))
    torch.testing.assert_close(grid[1:] / grid[:-1], torch.full((levels - 1,), ratio), rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(3, 1, 4), (3, 2, 4, 5), (3, 1, 2, 3, 4)])
def test_expand_multiplies_every_row_by_its_own_level(shape):
    sigma = torch.tensor([0.1, 0.5, 2.0])
    product = expand(sigma, torch.ones(shape)) * torch.ones(shape)
    for row in range(3):
        assert (product[row] == sigma[row]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_perturbation_is_its_noise_times_sigma(generator, dtype):
    x = torch.linspace(-1, 1, 4 * 2 * 6 * 6, dtype=dtype).reshape(4, 2, 6, 6)
    sigma = torch.tensor([0.05, 0.2, 0.7, 1.0], dtype=dtype)
    noisy, xi = perturb(x, sigma, generator=generator)
    assert noisy.dtype == xi.dtype == dtype
    for row in range(4):
        assert torch.equal(noisy[row], x[row] + sigma[row] * xi[row])


def test_noise_is_standard_normal_and_independent(generator):
    n = 200_000
    _, xi = perturb(torch.zeros(n, 1, 2), torch.ones(n), generator=generator)
    left, right = xi[:, 0].T
    moments = {
        "mean": (left, 0, 1),
        "square": (left**2, 1, 2),
        "fourth": (left**4, 3, 96),
        "cross": (left * right, 0, 1),
    }
    for name, (values, expected, variance) in moments.items():
        assert abs(values.mean().item() - expected) < SIGNIFICANCE * math.sqrt(variance / n), name


@given(st.lists(st.floats(0.01, 50.0), min_size=1, max_size=4), st.integers(1, 6))
def test_fourier_features_are_the_sines_and_cosines_of_the_formula(levels, frequencies):
    features = fourier_features(torch.tensor(levels), frequencies)
    assert features.shape == (len(levels), 2 * frequencies)
    for row, sigma in enumerate(levels):
        phases = [2**k * math.pi * 0.25 * math.log(sigma) for k in range(frequencies)]
        expected = [*map(math.sin, phases), *map(math.cos, phases)]
        torch.testing.assert_close(features[row], torch.tensor(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0)])
def test_an_empty_schedule_is_refused(low, high):
    with pytest.raises(SpecError, match="schedule is empty") as caught:
        NoiseSchedule.parse({"sigma_min": low, "sigma_max": high})
    assert caught.value.got == f"sigma_min = {low}, sigma_max = {high}"
