"""Distances, influence weights and budgets against linear programs, brute force and dense linear algebra."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch
from gaussian_cases import free_field
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.randomness import stream
from sizetransfer.theorem1 import (
    Normal,
    TestFunction,
    bounded_lipschitz,
    dobrushin_bound,
    empirical_distance,
    empirical_line_distance,
    gaussian_budget,
    gaussian_distance,
    gaussian_weights,
    ising_budget,
    ising_weights,
    optimal_test_function,
)

SCREEN = 1e-12  # certified gaps: a few units of rounding, magnified at most a thousandfold by narrow laws


def random_laws(count: int, *, low: float = 0.05, high: float = 20.0) -> list[tuple[Normal, Normal]]:
    """Pairs of normal laws: near and far, of equal, nearly equal and different widths."""
    draw = random.Random(20260611)
    pairs = []
    for _ in range(count):
        std = low * (high / low) ** draw.random()
        wider = std * (1 + draw.choice((0, 1)) * 10 ** draw.uniform(-15, 1))
        means = [draw.gauss(0, 1) * 10 ** draw.uniform(-6, 1) for _ in range(2)]
        pairs.append((Normal(means[0], std), Normal(means[1], wider)))
    return pairs


def program(positions: np.ndarray, masses: np.ndarray) -> float:
    """Bounded-Lipschitz norm of signed masses on the line, as a linear program over test functions."""
    gaps, n = np.diff(positions), len(positions)
    slopes = sparse.diags([np.ones(n - 1), -np.ones(n - 1)], [1, 0], shape=(n - 1, n))
    constraints = sparse.vstack([slopes, -slopes])
    found = linprog(-masses, A_ub=constraints, b_ub=np.concatenate([gaps, gaps]), bounds=(-1, 1), method="highs")
    return -found.fun


# --- Normal laws on the line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("std", "distance"), [(1.0, 0.5), (0.1, 3.0), (5.0, 1e-3), (0.3, 1e-6), (2.0, 40.0)])
def test_equal_widths_have_the_closed_form(std, distance):
    def integrated(z: float) -> float:
        return z * 0.5 * math.erfc(-z / math.sqrt(2)) + math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    half = distance / 2
    closed = 2 * (std * (integrated((half + 1) / std) - integrated((half - 1) / std)) - 1)
    enclosure = bounded_lipschitz(Normal(1.0, std), Normal(1.0 + distance, std))
    assert enclosure.lower - 1e-13 <= closed <= enclosure.upper + 1e-13
    assert enclosure.gap < 1e-12


def test_the_two_sides_meet_to_rounding():
    for first, second in random_laws(2000):
        enclosure = bounded_lipschitz(first, second)
        assert 0 <= enclosure.lower <= enclosure.upper <= 2
        assert enclosure.gap <= SCREEN * (1 + second.std), (first, second)
        assert enclosure.kind == "certificate"


@pytest.mark.parametrize("pair", random_laws(8, low=0.3, high=3.0), ids=str)
def test_a_linear_program_on_a_grid_agrees(pair):
    low, high = (f(law.mean + sign * 8 * law.std for law in pair) for f, sign in ((min, -1), (max, 1)))
    grid = np.linspace(low - 1, high + 1, 1201)
    width = grid[1] - grid[0]
    masses = np.array([pair[0].mass(x - width / 2, x + width / 2) for x in grid])
    masses -= [pair[1].mass(x - width / 2, x + width / 2) for x in grid]
    enclosure = bounded_lipschitz(*pair)
    # Masses are moved by at most half a cell, to second order where densities are smooth.
    assert program(grid, masses) == pytest.approx(enclosure.lower, abs=width**2)


def test_distance_is_a_metric_and_knows_no_order():
    laws = [law for pair in random_laws(4) for law in pair]
    for a, b, c in itertools.permutations(laws, 3):
        assert bounded_lipschitz(a, b).lower == pytest.approx(bounded_lipschitz(b, a).lower, abs=SCREEN)
        through = bounded_lipschitz(a, b).upper + bounded_lipschitz(b, c).upper
        assert bounded_lipschitz(a, c).lower <= through


def test_other_test_functions_separate_less():
    for first, second in random_laws(200, low=0.3, high=3.0):
        best, enclosure = optimal_test_function(first, second), bounded_lipschitz(first, second)
        for shift in (-0.2, 0.2):
            other = TestFunction(best.rise + shift, best.fall + 2 * shift)
            assert abs(other.expectation(first) - other.expectation(second)) <= enclosure.upper + 1e-12


def test_the_expectation_of_a_test_function_is_its_integral():
    law, test = Normal(0.3, 0.8), TestFunction(-1.5, 1.1)
    x = np.linspace(-8, 8, 200001)
    density = np.exp(-((x - law.mean) ** 2) / (2 * law.std**2)) / (law.std * math.sqrt(2 * math.pi))
    values = np.array([test(point) for point in x])
    assert test.expectation(law) + 1 == pytest.approx(float(np.sum(values * density)) * (x[1] - x[0]), abs=1e-8)


def test_equal_laws_have_distance_zero_and_no_test_function():
    assert bounded_lipschitz(Normal(1.0, 2.0), Normal(1.0, 2.0)).upper == 0
    with pytest.raises(OracleError, match="separating"):
        optimal_test_function(Normal(1.0, 2.0), Normal(1.0, 2.0))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (0.0, -1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_laws_without_a_density_are_refused(mean, std):
    with pytest.raises(OracleError, match="positive standard deviation"):
        Normal(mean, std)


# --- Patches and samples ------------------------------------------------------------------------------------------


def random_covariance(n: int, *labels: int | str) -> Tensor:
    factor = torch.randn(n, n, generator=stream("covariance", *labels))
    return factor @ factor.T + 0.1 * torch.eye(n)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0])
def test_patches_are_enclosed(n, size):
    law = torch.zeros(n), random_covariance(n, n)
    other = size * torch.ones(n), law[1] + size * random_covariance(n, "more", n)
    enclosure = gaussian_distance(law, other)
    assert 0 < enclosure.lower <= enclosure.upper <= 2
    assert enclosure.upper < 4 * enclosure.lower
    for seed in range(20):
        u = torch.nn.functional.normalize(torch.randn(n, generator=stream(seed)), dim=0)
        one, two = (Normal(float(u @ m), math.sqrt(float(u @ c @ u))) for m, c in (law, other))
        assert bounded_lipschitz(one, two).lower <= enclosure.upper


def test_a_shift_along_one_axis_is_enclosed_to_rounding_below():
    law = torch.zeros(2), torch.eye(2)
    enclosure = gaussian_distance(law, (torch.tensor([0.5, 0.0]), torch.eye(2)))
    # Along the other axis the laws are equal and independent: the distance is that on the line.
    assert enclosure.lower == pytest.approx(bounded_lipschitz(Normal(0.0, 1.0), Normal(0.5, 1.0)).lower, abs=1e-12)
    assert gaussian_distance(law, law).upper < 1e-6


@pytest.mark.parametrize("bad", [torch.zeros(2, 2), -torch.eye(2), torch.eye(3)])
def test_patch_laws_without_density_are_refused(bad):
    with pytest.raises(OracleError, match="patch"):
        gaussian_distance((torch.zeros(2), torch.eye(2)), (torch.zeros(2), bad))


@pytest.mark.parametrize("spread", [0.2, 1.0, 8.0])
def test_the_empirical_distance_is_that_of_the_linear_program(spread):
    first = torch.randn(31, generator=stream("first")) * spread
    second = 0.7 * torch.randn(40, generator=stream("second")) * spread + 0.4
    points, order = torch.cat([first, second]).sort()
    masses = torch.cat([torch.full((31,), 1 / 31), torch.full((40,), -1 / 40)])[order]
    assert empirical_line_distance(first, second) == pytest.approx(program(points.numpy(), masses.numpy()), abs=1e-10)


def test_samples_estimate_the_distance_within_their_error():
    truth = bounded_lipschitz(Normal(0.0, 1.0), Normal(0.5, 1.5))
    for seed in range(5):
        first = torch.randn(2000, 1, generator=stream(seed, "a"))
        second = 0.5 + 1.5 * torch.randn(2000, 1, generator=stream(seed, "b"))
        found = empirical_distance(first, second)
        assert found.kind == "estimate"
        # Ten standard normal numbers in all: one beyond four has a probability of about 6e-4.
        assert abs(found.lower - truth.lower) < 4 * found.standard_error
        assert found.upper > truth.lower - 4 * found.standard_error


def test_samples_of_patches_are_enclosed():
    first, second = (torch.randn(4000, 2, generator=stream(s)) for s in "ab")
    shift = torch.tensor([0.6, 0.0])
    truth = gaussian_distance((torch.zeros(2), torch.eye(2)), (shift, torch.eye(2)))
    found = empirical_distance(first, second + shift)
    assert found.lower - 4 * found.standard_error <= truth.upper
    assert truth.lower <= found.upper


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (torch.zeros(3, 1), torch.zeros(9, 1)),
        (torch.zeros(9, 1), torch.zeros(9, 2)),
        (torch.zeros(9, 2), torch.zeros(8, 2)),
        (torch.full((9, 1), math.nan), torch.zeros(9, 1)),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(first, second):
    with pytest.raises(OracleError, match="samples"):
        empirical_distance(first, second)


# --- Influence weights --------------------------------------------------------------------------------------------


def dense(spectrum: Tensor) -> Tensor:
    """The circulant matrix of a real even spectrum, sites in row-major order."""
    identity = torch.eye(spectrum.numel()).reshape(-1, *spectrum.shape)
    axes = list(range(1, spectrum.ndim + 1))
    return torch.fft.ifftn(spectrum * torch.fft.fftn(identity, dim=axes), dim=axes).real.flatten(1)


def matrix_power(matrix: Tensor, power: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values**power) @ vectors.T


@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize(("dim", "patch"), [(1, [(2,)]), (1, [(0,), (3,)]), (2, [(1, 2), (2, 2)])])
def test_gaussian_weights_are_those_of_dense_matrices(churn, dim, patch):
    size, vm, v = 6 if dim == 1 else 4, 0.2, 1.7
    covariance = dense(free_field(size, dim, 0.7))
    identity = torch.eye(len(covariance))
    kernel = matrix_power(
        (covariance + vm * identity) @ torch.linalg.inv(covariance + v * identity), (1 + churn**2) / 2
    )
    residual = covariance + vm * identity - kernel @ (covariance + v * identity) @ kernel
    sites = [int(np.ravel_multi_index(site, (size,) * dim)) for site in patch]
    rows, spread = kernel[sites], residual[sites][:, sites]
    expected = rows.square().sum(0).sqrt()
    weights = gaussian_weights(free_field(size, dim, 0.7), patch, torch.tensor([v]), vm, churn=churn, bounded=False)
    torch.testing.assert_close(weights.flatten(), expected, rtol=1e-11, atol=1e-13)
    if churn:
        direction = rows / expected
        inverse_variance = (direction * torch.linalg.solve(spread, direction)).sum(0)
        expected = expected * torch.erf((inverse_variance / 2).sqrt())
    bounded = gaussian_weights(free_field(size, dim, 0.7), patch, torch.tensor([v]), vm, churn=churn)
    torch.testing.assert_close(bounded.flatten(), expected, rtol=1e-10, atol=1e-13)


def test_at_the_last_variance_only_the_patch_counts():
    weights = gaussian_weights(free_field(6, 2, 0.7), [(1, 2), (3, 3)], torch.tensor([0.2]), 0.2)[0]
    expected = torch.zeros(6, 6)
    expected[1, 2] = expected[3, 3] = 1
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.6, 0.8), (0.6, -0.8)])
def test_no_clipped_linear_function_is_felt_more_than_the_weights_say(direction):
    spectrum, patch, vm, v = free_field(8, 1, 0.7), [(0,), (1,)], 0.1, 0.9
    weights = gaussian_weights(spectrum, patch, torch.tensor([v]), vm)[0]
    covariance, identity = dense(spectrum), torch.eye(8)
    kernel = (covariance + vm * identity) @ torch.linalg.inv(covariance + v * identity)
    residual = covariance + vm * identity - kernel @ (covariance + v * identity) @ kernel
    u = torch.zeros(8)
    u[:2] = torch.tensor(direction)
    # phi = clip(u.x) around the posterior mean has mean slope u times P(|u.(X - E X)| < 1).
    felt = (kernel @ u).abs() * torch.erf(1 / (2 * u @ residual @ u).sqrt())
    assert (felt <= weights + 1e-12).all()
    assert (felt > 0.5 * weights).any()


@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0, 1.5])
def test_the_budget_is_the_integral_of_the_weights(churn):
    spectrum, vm, vx = free_field(8, 2, 0.5), 0.05, 40.0
    nodes, weights = np.polynomial.legendre.leggauss(60)
    half = 0.5 * math.log(vx / vm)
    v = torch.from_numpy(vm * np.exp(half * (nodes + 1)))
    measure = half * v * torch.from_numpy(weights) * (1 + churn**2) / 2
    total = {
        bounded: float(measure @ gaussian_weights(spectrum, [(0, 0)], v, vm, churn=churn, bounded=bounded).sum((1, 2)))
        for bounded in (False, True)
    }
    budget = gaussian_budget(spectrum, vm, vx, churn=churn)
    assert budget.kind == "exact"
    assert total[False] == pytest.approx(budget.value, rel=1e-12)
    assert total[True] <= budget.value * (1 + 1e-12)
    if churn == 1:
        assert budget.value == pytest.approx((4 + vm) * math.log((4 + vx) / (4 + vm)), rel=1e-14)


def test_the_budget_needs_a_ferromagnet():
    alternating = 1 / (1 + 0.4 * torch.cos(2 * math.pi * torch.arange(8) / 8))
    assert gaussian_weights(alternating, [(0,)], torch.tensor([1.0]), 0.1).isfinite().all()
    with pytest.raises(OracleError, match="ferromagnetic"):
        gaussian_budget(alternating, 0.1, 10.0)


# --- Ising models -------------------------------------------------------------------------------------------------


def ising_covariance(beta: float, size: int, field: Tensor) -> Tensor:
    """Covariance of all spins of a periodic square in a field, by enumeration."""
    count = size * size
    spins = 2.0 * ((torch.arange(2**count)[:, None] >> torch.arange(count)) & 1) - 1
    grid = spins.reshape(-1, size, size)
    energy = beta * sum((grid * grid.roll(1, axis)).sum((1, 2)) for axis in (1, 2)) + spins @ field
    probability = torch.softmax(energy, 0)
    mean = probability @ spins
    return (spins * probability[:, None]).T @ spins - torch.outer(mean, mean)


@pytest.mark.parametrize("beta", [0.1, 0.24])
def test_correlations_without_field_bound_every_posterior_and_dobrushin_bounds_them(beta):
    correlation = ising_covariance(beta, 3, torch.zeros(9))[0]
    for seed in range(5):
        field = 2 * torch.randn(9, generator=stream("field", seed))
        assert (ising_covariance(beta, 3, field)[0] <= correlation + 1e-12).all()
    bound = dobrushin_bound(beta, (3, 3))
    assert (bound.correlation.flatten() >= correlation - 1e-12).all()
    assert bound.susceptibility == pytest.approx(1 / (1 - 4 * math.tanh(beta)))
    assert float(bound.correlation.sum()) == pytest.approx(bound.susceptibility)


def test_the_ising_budget_is_the_integral_of_its_weights():
    correlation = ising_covariance(0.3, 3, torch.zeros(9)).reshape(9, 3, 3)[[0, 4]]
    vm, vx = 0.1, 30.0
    nodes, weights = np.polynomial.legendre.leggauss(40)
    half = 0.5 * math.log(vx / vm)
    v = torch.from_numpy(vm * np.exp(half * (nodes + 1)))
    total = half * v * torch.from_numpy(weights) @ ising_weights(correlation, [(0, 0), (1, 1)], v, vm).sum((1, 2))
    budget = ising_budget(float(correlation[0].sum()), vm, vx, sites=2)
    assert float(total) == pytest.approx(budget.value, rel=1e-12)
    assert budget.kind == "certificate"


def test_dobrushin_refuses_where_it_says_nothing():
    with pytest.raises(OracleError, match="criterion"):
        dobrushin_bound(0.26, (4, 4))


# --- Bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [[], [(6, 0)], [(0,)], [(0, 0), (0, 0)], [(0, -1)]])
def test_patches_off_the_lattice_are_refused(patch):
    with pytest.raises(OracleError, match="patch"):
        gaussian_weights(free_field(6, 2, 0.7), patch, torch.tensor([1.0]), 0.1)


@pytest.mark.parametrize(("vm", "vx"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.1, math.inf)])
def test_empty_noise_ranges_are_refused(vm, vx):
    for budget in (lambda: gaussian_budget(free_field(6, 1, 0.7), vm, vx), lambda: ising_budget(2.0, vm, vx)):
        with pytest.raises(OracleError, match="noise range"):
            budget()


@pytest.mark.parametrize("churn", [-0.1, math.inf, math.nan])
def test_churn_that_is_no_factor_of_noise_is_refused(churn):
    with pytest.raises(OracleError, match="churn"):
        gaussian_budget(free_field(6, 1, 0.7), 0.1, 1.0, churn=churn)
