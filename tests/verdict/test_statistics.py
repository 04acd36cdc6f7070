"""Limits and tests: formulas by hand, sizes of the tests by simulation with fixed seeds and a stated budget."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sizetransfer.contracts.distributions import clopper_pearson
from sizetransfer.contracts.records import root_ratio
from sizetransfer.verdict.statistics import (
    Estimate,
    Number,
    Part,
    detectable_growth,
    equivalent,
    holm,
    more_needed,
    over_seeds,
    p_outside,
    quantity,
)

ALPHA = 0.01
TRIALS = 2000
BUDGET = 1e-4  # probability that a simulation of a test of the right size fails, each

COUNTS = pytest.mark.parametrize("n", [8, 16, 64])


def log_ratio(later, earlier):
    return np.log(later) - np.log(earlier)


def errors(generator, n, *, scale=1.0, sites=64, fields=""):
    """A relative error with the sums of n fields: squares of a Gaussian error over the given number of sites."""
    a = scale**2 * generator.chisquare(sites, n) / sites
    return Number.of_sums(a, generator.chisquare(4 * sites, n) / (4 * sites), fields=fields)


def assert_size(rejections, trials=TRIALS, alpha=ALPHA):
    """The rate of rejections is alpha, within the binomial error of the simulation."""
    low, high = stats.binom.ppf([BUDGET / 2, 1 - BUDGET / 2], trials, alpha)
    assert low <= rejections <= high, rejections / trials


def test_the_error_is_the_records_one(generator):
    import torch

    a, c = torch.rand(7, generator=generator), torch.rand(7, generator=generator)
    measured, number = root_ratio(a, c, "error"), Number.of_sums(a.tolist(), c.tolist())
    assert number.value == pytest.approx(measured.value, rel=1e-12)
    assert number.standard_error == pytest.approx(measured.standard_error, rel=1e-12)


def test_pairing_needs_a_name_and_cancels_what_is_common():
    generator = np.random.default_rng(1)
    a, c = generator.chisquare(2, 16), np.ones(16)
    same = [Number.of_sums(k * a, c, fields="seed 0") for k in (1, 2)]
    apart = [Number.of_sums(k * a, c) for k in (1, 2)]
    assert quantity(log_ratio, *same).standard_error == pytest.approx(0, abs=1e-12)
    assert quantity(log_ratio, *apart).standard_error > 0.1


def test_a_number_without_sums_counts_by_its_derivative():
    number = Number(0.2, 0.01, n=10)
    found = quantity(np.log, number)
    assert found.standard_error == pytest.approx(0.05, rel=1e-6)
    assert found.degrees == pytest.approx(9)


def test_welch_satterthwaite():
    found = Estimate(0.0, (Part("", 1.0, 4), Part("", 2.0, 9)))
    assert found.degrees == pytest.approx(9 / (1 / 4 + 4 / 9))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_never_significant(bad):
    found = quantity(log_ratio, Number(bad, 0.1, 8), Number(0.2, 0.1, 8))
    assert math.isnan(found.p_above(0))
    assert math.isnan(found.upper(ALPHA))


def test_one_field_gives_no_limit():
    found = quantity(np.log, Number.of_sums([1.0], [2.0]))
    assert math.isnan(found.upper(ALPHA))
    assert math.isnan(found.p_above(-5))


def test_exact_numbers_are_compared_as_they_are():
    found = quantity(log_ratio, Number(0.3), Number(0.2))
    assert found.exact
    assert (found.p_above(0.1), found.p_above(1)) == (0, 1)


@COUNTS
@pytest.mark.parametrize("sites", [4, 64])
def test_size_of_the_test_for_growth_and_of_its_upper_limit(n, sites):
    """Errors that grow by exactly the allowed amount: called degrading, or stable, with probability alpha each."""
    generator = np.random.default_rng([2, n, sites])
    truth = math.log(1.1)
    found = [
        quantity(log_ratio, errors(generator, n, scale=1.1, sites=sites), errors(generator, n, sites=sites))
        for _ in range(TRIALS)
    ]
    assert_size(sum(one.lower(ALPHA) > truth for one in found))
    assert_size(sum(one.upper(ALPHA) < truth for one in found))


@COUNTS
def test_size_of_the_paired_test(n):
    generator = np.random.default_rng([3, n])
    rejections = 0
    for _ in range(TRIALS):
        common, c = generator.chisquare(64, n), generator.chisquare(256, n)
        students = [Number.of_sums(common + generator.chisquare(32, n), c, fields="seed 0") for _ in range(2)]
        rejections += quantity(log_ratio, *students).p_above(0) <= ALPHA
    assert_size(rejections)


@pytest.mark.parametrize("seeds", [3, 5])
def test_size_over_seeds_with_a_common_reference(seeds):
    """Three seeds, a reference that all share: its error is not lost in the mean."""
    generator = np.random.default_rng([4, seeds])
    rejections = 0
    for _ in range(TRIALS):
        reference = errors(generator, 32, fields="reference")
        scales = np.exp(generator.normal(0, 0.01, seeds))
        own = [errors(generator, 64, scale=scale, fields=f"seed {i}") for i, scale in enumerate(scales)]
        rejections += over_seeds([quantity(log_ratio, e, reference) for e in own]).p_above(0) <= ALPHA
    # Two kinds of degrees of freedom are combined approximately: no more than twice alpha, and a test still.
    assert rejections / TRIALS <= 2 * ALPHA
    assert rejections > 0


@COUNTS
def test_size_of_equivalence_at_the_edge_of_the_tolerance(n):
    generator = np.random.default_rng([5, n])
    found = [quantity(lambda x: x, Number.of_sums(generator.normal(1.1, 0.05, n), np.ones(n), exponent=1))
             for _ in range(TRIALS)]  # fmt: skip
    assert_size(sum(equivalent(one, 0.1, ALPHA) for one in found))
    assert_size(sum(p_outside(one, 0.1) <= 2 * ALPHA for one in found))


def test_holm_keeps_the_familywise_error():
    generator = np.random.default_rng(6)
    p = generator.uniform(size=(TRIALS, 5))
    rejections = sum(bool(holm(dict(zip("abcde", row, strict=True)), 0.05)) for row in p)
    assert_size(rejections, alpha=1 - 0.99**5)


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1) | st.just(math.nan)), st.floats(0.001, 0.2))
def test_holm_is_between_bonferroni_and_none(p_values, alpha):
    rejected = holm(p_values, alpha)
    assert {name for name, p in p_values.items() if p <= alpha / len(p_values)} <= rejected
    assert rejected <= {name for name, p in p_values.items() if p <= alpha}


def test_detectable_growth_is_where_the_lower_limit_reaches_the_allowed_one():
    generator = np.random.default_rng(7)
    ratio = quantity(log_ratio, errors(generator, 16), errors(generator, 16))
    called = math.log(1 + detectable_growth(ratio, 0.1, ALPHA))
    assert Estimate(called, ratio.parts).lower(ALPHA) == pytest.approx(math.log(1.1))


def test_more_fields_clear_a_threshold():
    ratio = Estimate(0.05, (Part("", 0.04**2, 1e9),))
    factor = more_needed(ratio, 0.1, ALPHA)
    assert factor == pytest.approx((2.3263 * 0.04 / 0.05) ** 2, rel=1e-3)
    more = Estimate(0.05, (Part("", 0.04**2 / factor, 1e9),))
    assert more.upper(ALPHA) == pytest.approx(0.1)
    assert more_needed(Estimate(0.1, ratio.parts), 0.1, ALPHA) == math.inf


def test_an_upper_limit_of_clopper_and_pearson_covers():
    generator = np.random.default_rng(8)
    missed = sum(clopper_pearson(k, 50, 0.05)[1] < 0.1 for k in generator.binomial(50, 0.1, 2000).tolist())
    assert missed <= stats.binom.ppf(1 - BUDGET, 2000, 0.05)
