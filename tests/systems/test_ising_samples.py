"""Samples of Ising models: perfect ones and Swendsen–Wang chains against exact moments.

Statistical checks have fixed seeds; a right sampler fails any of them with probability below 1e-5.
"""

from __future__ import annotations

import pytest
import torch
from brute_ising import enumerate_spins

from sizetransfer.contracts.randomness import stream
from sizetransfer.systems.ising import CRITICAL, IsingModel, swendsen_wang, zero_field
from sizetransfer.systems.ising.clusters import clusters
from sizetransfer.systems.ising.perfect import TorusSampler, torus_sampler_cost
from sizetransfer.systems.ising.rows import rows_of

CPU = torch.device("cpu")
STANDARD_ERRORS = 5.0


def sampler(shape, beta):
    return TorusSampler(shape[0], rows_of(shape[1], beta, closed=True, device=CPU))


def deviation(values, expected):
    """Distance of a mean over draws from its expectation, in standard errors."""
    spread = values.std(0).clamp_min(1e-12) / len(values) ** 0.5
    return float(((values.mean(0) - expected) / spread).abs().max())


def chi_square(spins, exact):
    """Pearson's statistic over all configurations, less its mean, in units of its standard deviation."""
    sites = spins[0].numel()
    index = ((1 - spins.flatten(1)) / 2).long() @ (2 ** torch.arange(sites))
    counts = torch.bincount(index, minlength=2**sites).double()
    expected = exact.probabilities * len(spins)
    often = expected > 5
    statistic = float(((counts - expected)[often].square() / expected[often]).sum())
    freedom = int(often.sum())
    return (statistic - freedom) / (2 * freedom) ** 0.5


@pytest.mark.parametrize("beta", [0.3, CRITICAL, -0.3])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (3, 2)])
def test_every_configuration_has_its_probability(shape, beta):
    spins = sampler(shape, beta).draw(20000, stream(1))
    assert chi_square(spins, enumerate_spins(torch.zeros(shape), beta)) < 6


@pytest.mark.parametrize("boundary", ["torus", "cylinder", "open"])
def test_every_configuration_has_its_probability_in_a_field(boundary):
    h = 0.5 * torch.randn(3, 3, generator=stream("field"))
    spins = IsingModel(0.4, boundary).samples(h, 20000, generator=stream(2))
    assert chi_square(spins, enumerate_spins(h, 0.4, boundary)) < 6
    assert chi_square(spins, enumerate_spins(1.3 * h, 0.4, boundary)) > 6
    assert chi_square(spins, enumerate_spins(h, 0.47, boundary)) > 6


@pytest.mark.parametrize("size", [8, 10])
def test_perfect_samples_have_the_exact_correlations(size):
    spins = sampler((size, size), CRITICAL).draw(4000, stream(size))
    modes = torch.fft.fft2(spins).abs().square() / size**2
    correlations = torch.fft.ifft2(modes).real
    table = zero_field(CRITICAL, (size, size))
    assert deviation(correlations[:, :3, :3].flatten(1)[:, 1:], table.correlation[:3, :3].flatten()[1:]) < 5
    assert deviation(spins.mean((1, 2)).square(), table.susceptibility / size**2) < STANDARD_ERRORS
    assert deviation(spins, torch.zeros(size, size)) < STANDARD_ERRORS
    # The test tells couplings that differ by two percent apart.
    other = zero_field(0.98 * CRITICAL, (size, size))
    assert deviation(spins.mean((1, 2)).square(), other.susceptibility / size**2) > STANDARD_ERRORS


def test_draws_repeat_with_the_generator_and_not_without():
    one = sampler((6, 6), 0.4)
    first, second = one.draw(8, stream(5)), one.draw(8, stream(5))
    assert torch.equal(first, second)
    assert not torch.equal(first, one.draw(8, stream(6)))
    assert first.abs().eq(1).all()


def test_the_estimate_of_the_sampler_holds():
    for size in (8, 10, 12):
        kept = sampler((size, size), 0.4).table
        estimate = torus_sampler_cost((size, size)).memory
        assert 0.1 * estimate < 8 * kept.numel() < estimate


# --- clusters -----------------------------------------------------------------------------------------------------


def components(down, right):
    """Clusters by breadth-first search on one lattice."""
    height, width = down.shape
    names = -torch.ones(height, width, dtype=torch.int64)
    for start in range(height * width):
        if names[start // width, start % width] >= 0:
            continue
        stack = [(start // width, start % width)]
        while stack:
            i, j = stack.pop()
            if names[i, j] >= 0:
                continue
            names[i, j] = start
            around = [(down[i, j], i + 1, j), (down[i - 1, j], i - 1, j)]
            around += [(right[i, j], i, j + 1), (right[i, j - 1], i, j - 1)]
            stack += [(a % height, b % width) for closed, a, b in around if closed]
    return names


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_clusters_are_connected_components(share):
    down, right = (torch.rand(3, 7, 6, generator=stream("bonds", k)) < share for k in (0, 1))
    found = clusters(down, right)
    for b in range(3):
        assert torch.equal(found[b] - 42 * b, components(down[b], right[b]))


@pytest.mark.parametrize("boundary", ["torus", "cylinder", "open"])
def test_cluster_updates_leave_the_law_unchanged(boundary):
    beta, shape = 0.4, (3, 3)
    exact = enumerate_spins(torch.zeros(shape), beta, boundary)
    start = IsingModel(beta, boundary).samples(torch.zeros(shape), 20000, generator=stream(3))
    spins = swendsen_wang(start, beta, 3, boundary=boundary, generator=stream(4))
    assert chi_square(spins, exact) < 6
    assert chi_square(swendsen_wang(start, 1.2 * beta, 3, boundary=boundary, generator=stream(4)), exact) > 6


def test_cluster_chains_reach_the_exact_correlations():
    size, beta = 24, 0.95 * CRITICAL
    spins = torch.ones(256, size, size)
    spins = swendsen_wang(spins, beta, 60, generator=stream(7))
    table = zero_field(beta, (size, size))
    assert deviation(spins.mean((1, 2)).square(), table.susceptibility / size**2) < STANDARD_ERRORS
    energy = (spins * spins.roll(-1, 1)).mean((1, 2))
    assert deviation(energy, float(table.correlation[1, 0])) < STANDARD_ERRORS
