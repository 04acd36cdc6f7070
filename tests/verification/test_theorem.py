"""Theorem 1 under search: true claims stand, careless ones fall, and what both rest on is right."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.optimize import linprog

from sizetransfer.contracts.errors import SpecError
from sizetransfer.theorem1 import Normal, bounded_lipschitz, empirical_line_distance
from sizetransfer_verification.theorem import (
    GaussianConfiguration,
    IsingConfiguration,
    MixtureConfiguration,
    claims,
    read_configuration,
    search,
)
from sizetransfer_verification.theorem import gaussian as gaussian_module
from sizetransfer_verification.theorem.claim import halved
from sizetransfer_verification.theorem.gaussian import Process
from sizetransfer_verification.theorem.ising import influence
from sizetransfer_verification.theorem.line import atom_masses, density_norm, normal_density, signed_norm
from sizetransfer_verification.theorem.mixture import COARSE, FINE, MixtureProcess, Resolution, half_normal_nodes
from sizetransfer_verification.theorem_command import theorem

TRUE = [claim for claim in claims() if not claim.careless]
CARELESS = [claim for claim in claims() if claim.careless]
EXAMPLES = {"mixture-pair": 12, "gaussian-continuous": 40}


# --- Claims -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", TRUE, ids=lambda claim: claim.name)
def test_true_claims_stand(claim):
    found = search(claim, examples=EXAMPLES.get(claim.name, 50))
    assert not found.refuted, (found.smallest, found.comparison)
    assert found.examples >= min(10, claim.examples)
    assert found.quantiles[0.05] < 1.5, "some configurations come close to the bound"


@pytest.mark.parametrize("claim", CARELESS, ids=lambda claim: claim.name)
def test_careless_claims_are_refuted_by_a_configuration_that_replays(claim):
    found = search(claim)
    assert found.refuted, found.quantiles
    assert 1 <= found.violations <= found.examples
    again = claim.compare(read_configuration(found.smallest.to_json()))
    assert again == found.comparison
    assert again.refuted


def test_every_kind_of_mistake_is_among_them():
    names = " ".join(claim.name for claim in CARELESS)
    for mistake in ("missing-weight", "half-the-noise", "clean-law", "no-start", "truncation"):
        assert mistake in names


@pytest.mark.parametrize("name", ["gaussian-steps", "gaussian-continuous"])
def test_a_defect_of_the_shipped_bound_is_found(monkeypatch, name):
    whole = gaussian_module.gaussian_theorem1

    def halved(*arguments, **options):
        found = whole(*arguments, **options)
        return dataclasses.replace(found, bound=dataclasses.replace(found.bound, value=found.bound.value / 2))

    monkeypatch.setattr(gaussian_module, "gaussian_theorem1", halved)
    assert search(name).refuted


def test_claims_stand_whatever_the_default_dtype():
    # The tests' default is float64; a number that passes through the default dtype loses its digits elsewhere.
    torch.set_default_dtype(torch.float32)
    try:
        found = search("gaussian-continuous", examples=20)
        white = GaussianConfiguration((3, 3), 1.0, 1e-3, ((0, 0),), 1e-3, 4.0, 0.0, "continuous", start="white")
        one = found.claim.compare(white)
    finally:
        torch.set_default_dtype(torch.float64)
    assert not found.refuted
    assert one.ratio == pytest.approx(1.0, abs=1e-4)


def test_a_violation_is_shrunk_to_the_simplest_numbers():
    smallest = search("gaussian-steps/half-the-noise", seed=3).smallest
    assert smallest == GaussianConfiguration()


def test_the_same_seed_finds_the_same():
    first, second, other = (search("ising-weights", examples=20, seed=seed).ratios for seed in (1, 1, 2))
    assert first == second != other


# --- Configurations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "configuration",
    [
        GaussianConfiguration(shape=(2, 2), patch=((0, 0), (0, 1)), radius=1),
        MixtureConfiguration(),
        IsingConfiguration(),
    ],
    ids=lambda configuration: configuration.family,
)
def test_configurations_are_read_back(configuration):
    assert read_configuration(configuration.to_json()) == configuration


@pytest.mark.parametrize("text", ["{", "[]", '{"family": "none"}', '{"family": "ising", "spin": 1}'])
def test_texts_that_are_no_configuration_are_refused(text):
    with pytest.raises(SpecError, match="cannot be read"):
        read_configuration(text)


def test_unknown_claims_and_empty_searches_are_refused():
    with pytest.raises(SpecError, match="gaussian-steps"):
        search("gausian-steps")
    with pytest.raises(SpecError, match="needs an example"):
        search("gaussian-steps", examples=0)


# --- The line -----------------------------------------------------------------------------------------------------


def test_the_norm_is_the_linear_programs(generator):
    for _ in range(5):
        points = torch.rand(12, generator=generator).mul(6).sort().values.numpy()
        masses = torch.randn(12, generator=generator).numpy()
        gaps = np.diff(points)
        slopes = np.diff(np.eye(12), axis=0)
        rows, limits = np.concatenate([slopes, -slopes]), np.concatenate([gaps, gaps])
        found = linprog(-masses, A_ub=rows, b_ub=limits, bounds=(-1, 1))
        assert signed_norm(points, masses) == pytest.approx(-found.fun, abs=1e-10)


def test_the_norm_is_the_distance_of_samples(generator):
    first, second = (torch.randn(40, generator=generator) for _ in range(2))
    points = torch.cat([first, second])
    order = points.argsort()
    masses = torch.cat([torch.full((40,), 1 / 40), torch.full((40,), -1 / 40)])[order]
    expected = empirical_line_distance(first, second)
    assert signed_norm(points[order].numpy(), masses.numpy()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.3), (0.4, 1.0), (2.5, 0.2), (1e-3, 1.0)])
def test_the_norm_of_a_density_is_the_distance_of_gaussians(mean, std):
    expected = bounded_lipschitz(Normal(0.0, 1.0), Normal(mean, std))
    found = density_norm(lambda y: normal_density(y, 0.0, 1.0) - normal_density(y, mean, std), -9, 11, 1500)
    assert found.value <= expected.upper * (1 + 1e-7)
    assert found.value == pytest.approx(expected.lower, rel=1e-3)


def test_hats_keep_mass_and_mean_of_atoms():
    grid = np.linspace(-1, 1, 11)
    masses = atom_masses(grid, np.array([0.13, -0.77, 1.0]), np.array([0.2, 0.5, 0.3]))
    assert masses.sum() == pytest.approx(1)
    assert masses @ grid == pytest.approx(0.2 * 0.13 - 0.5 * 0.77 + 0.3)


@pytest.mark.parametrize("count", [3, 8, 24])
def test_half_normal_nodes_integrate_powers(count):
    nodes, weights = half_normal_nodes(count)
    for power, moment in enumerate([1, math.sqrt(2 / math.pi), 1, 2 * math.sqrt(2 / math.pi), 3]):
        assert weights @ nodes**power == pytest.approx(moment, rel=1e-9)


# --- Processes ----------------------------------------------------------------------------------------------------

STUDENTS = [
    {"bias": 0.3},
    {"radius": 1, "shape": (6,), "patch": ((0,), (1,))},
    {"gain": 0.2, "start": "white", "churn": 0.5},
    {"shape": (3, 3), "patch": ((0, 0),), "radius": 0, "bias": -0.1},
]


@pytest.mark.parametrize("numbers", STUDENTS)
@pytest.mark.parametrize("sampler", ["euler", "ancestral", "continuous"])
def test_dense_algebra_gives_the_bound_and_the_truth_of_the_core(sampler, numbers):
    one = GaussianConfiguration(**{"sampler": sampler, "steps": 3, "vx": 4.0, **numbers})
    process, shipped = Process(one), one.shipped()
    assert process.drift() == pytest.approx(shipped.drift.value, rel=1e-7)
    assert process.initial().upper == pytest.approx(shipped.initial.value, abs=1e-9)
    assert process.truth().lower == pytest.approx(shipped.truth.lower, abs=1e-9)


@pytest.mark.parametrize("sampler", ["euler", "ancestral"])
@pytest.mark.parametrize("numbers", [{"bias": 0.4}, {"gain": 0.3, "start": "white"}])
def test_a_prior_of_one_atom_is_a_gaussian_of_no_width(sampler, numbers):
    # So little noise at the end that test functions of at most one are no restriction.
    shared = {"sampler": sampler, "steps": 3, "vm": 0.02, "vx": 3.0, **numbers}
    mixture = MixtureProcess(MixtureConfiguration(levels=(0.0,), weights=(1.0,), **shared), FINE[1])
    field = Process(GaussianConfiguration(shape=(1,), mass=1.0, scale=1e-12, **shared))
    assert mixture.truth() == pytest.approx(field.truth().lower, rel=1e-4, abs=1e-6)
    # One atom leaves no posterior: each step is Gaussian, and its transport the mean absolute difference.
    assert mixture.stepwise_drift() == pytest.approx(field.drift(), rel=2e-3)


@pytest.mark.parametrize("sites", [1, 2])
@pytest.mark.parametrize("numbers", [{"ripple": 0.3}, {"vm": 0.2, "weights": (3.0, 1.0)}])
def test_the_stated_error_covers_what_remains(sites, numbers):
    one = MixtureConfiguration(sites=sites, coupling=1.0 if sites == 2 else 0.0, vx=1.0, steps=2, **numbers)
    finest = Resolution(9.0, 24, 8, 1800) if sites == 1 else Resolution(1.6, 6, 5, 1800)
    best, fine, coarse = (MixtureProcess(one, resolution) for resolution in (finest, FINE[sites], COARSE[sites]))
    for number in ("truth", "rollout_drift") + (("stepwise_drift",) if sites == 1 else ()):
        right, found, rough = (getattr(process, number)() for process in (best, fine, coarse))
        stated = halved(found, rough).error + 1e-6 * found + 1e-9
        assert abs(found - right) <= stated
        assert stated < 0.2 * found


def test_a_rollout_of_the_right_score_comes_closer_with_more_steps():
    truths = [MixtureProcess(MixtureConfiguration(steps=steps), FINE[1]).truth() for steps in (4, 16)]
    assert truths[1] < truths[0] / 3


def test_posterior_moments_are_sums_over_atoms():
    prior = MixtureConfiguration(levels=(-1.0, 0.5), weights=(2.0, 1.0), sites=2, coupling=0.7).prior
    x, v = np.array([[0.3, -0.2], [4.0, -3.0]]), 0.4
    mean, covariance = prior.moments(x, v, [0])
    for row, point in enumerate(x):
        weights = np.exp(prior.logs - ((point - prior.atoms) ** 2).sum(1) / (2 * v))
        weights /= weights.sum()
        expected = weights @ prior.atoms
        assert mean[row] == pytest.approx(expected)
        product = (weights[:, None] * (prior.atoms - expected)).T @ (prior.atoms - expected)
        assert covariance[row] == pytest.approx(product[0], abs=1e-14)


@pytest.mark.parametrize("site", [0, 1])
def test_the_influence_is_attained_by_a_test_function_and_exceeded_by_none(site):
    one = IsingConfiguration(beta=0.7, ratio=4.0, vm=0.05, x=(0.3, -0.5, 0.2, 0.0))
    share, std = one.vm / one.v, math.sqrt(one.vm * (1 - one.vm / one.v))
    y = np.linspace(-3, 3, 4001)

    def expectation(function, field):
        weights = one.posterior(field)
        means = one.spins[:, 0] * (1 - share) + share * one.v * field[0]
        return float((normal_density(y, means[:, None], std) @ function(y)) @ weights) * (y[1] - y[0])

    step = 1e-4 / one.v
    largest = influence(one, site).value
    slopes = []
    for function in (lambda y: np.clip(y, -1, 1), np.tanh, np.sin, lambda y: np.clip(y - 0.5, -1, 1)):
        shift = step * np.eye(3)[site]
        slopes.append((expectation(function, one.field + shift) - expectation(function, one.field - shift)) / 2e-4)
    assert max(slopes) <= largest * (1 + 1e-6)
    assert max(slopes) == pytest.approx(largest, rel=1e-3)


# --- The command --------------------------------------------------------------------------------------------------


def test_the_command_prints_counts_quantiles_and_refutations():
    result = CliRunner().invoke(theorem, ["gaussian-steps", "--examples", "60"])
    assert result.exit_code == 0, result.output
    assert "0 violations" in result.output
    assert "bound/truth" in result.output
    assert "half the noise" in result.output
    assert '"family": "gaussian"' in result.output


def test_the_command_writes_json():
    result = CliRunner().invoke(theorem, ["ising-budget", "--json"])
    assert result.exit_code == 0, result.output
    stands, falls = json.loads(result.output)
    assert (stands["violations"], stands["smallest"]) == (0, None)
    assert falls["truth"] > falls["bound"]


def test_the_command_fails_where_a_careless_claim_stands():
    result = CliRunner().invoke(theorem, ["ising-all-fields/sign", "--examples", "1"])
    assert result.exit_code == 1
    assert "WRONG" in result.output
    assert "leave --examples out" in result.output


def test_the_command_names_unknown_claims():
    result = CliRunner().invoke(theorem, ["gauss-steps"])
    assert isinstance(result.exception, SpecError)


def test_an_unknown_claim_beside_a_known_one_is_named():
    result = CliRunner().invoke(theorem, ["ising-budget", "gauss-steps"])
    assert isinstance(result.exception, SpecError)
    assert "gauss-steps" in str(result.exception)
