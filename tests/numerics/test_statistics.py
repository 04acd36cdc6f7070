"""Estimates against direct loops and closed forms; coverage and sizes of tests by simulation, with a stated budget."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tolerances import TOLERANCE

from sizetransfer.contracts.distributions import clopper_pearson
from sizetransfer.contracts.quantity import UNKNOWN, Quantity, Share
from sizetransfer.numerics.statistics import (
    derived,
    detectable_growth,
    equivalent,
    error_of_mean,
    holm,
    jackknife,
    jackknife_variance,
    jackknifed,
    left_out,
    mean,
    more_needed,
    over_seeds,
    p_outside,
    pooled,
    quotient,
    ratio,
    root_ratio,
    share,
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
    return root_ratio(a, generator.chisquare(4 * sites, n) / (4 * sites), fields=fields)


def assert_size(rejections, trials=TRIALS, alpha=ALPHA):
    """The rate of rejections is alpha, within the binomial error of the simulation."""
    low, high = stats.binom.ppf([BUDGET / 2, 1 - BUDGET / 2], trials, alpha)
    assert low <= rejections <= high, rejections / trials


# --- one set of fields

positive = st.floats(1e-3, 1e3)


def leave_one_out(a, c):
    """Jackknife standard error of sqrt(sum a / sum c), one loop per omission."""
    n = len(a)
    left_out = [math.sqrt(sum(a[:b] + a[b + 1 :]) / sum(c[:b] + c[b + 1 :])) for b in range(n)]
    centre = sum(left_out) / n
    return math.sqrt((n - 1) / n * sum((value - centre) ** 2 for value in left_out))


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=12))
def test_root_ratio_is_the_jackknife_of_the_formula(pairs):
    a, c = map(list, zip(*pairs, strict=True))
    found = root_ratio(torch.tensor(a), torch.tensor(c))
    assert found.value == pytest.approx(math.sqrt(sum(a) / sum(c)), rel=1e-12)
    assert found.error == pytest.approx(leave_one_out(a, c), rel=1e-6, abs=1e-9 * found.value)
    assert found.n == len(a)


def test_root_ratio_agrees_with_a_bootstrap(generator):
    n, resamples = 300, 3000
    c = torch.rand(n, generator=generator).exp()
    a = c * (0.2 + 0.1 * torch.rand(n, generator=generator))
    rows = torch.randint(n, (resamples, n), generator=generator)
    bootstrap = (a[rows].sum(1) / c[rows].sum(1)).sqrt().std().item()
    # a standard deviation over 3000 resamples is known to 1.3 %, and that over 300 draws to 4 %
    assert root_ratio(a, c).error == pytest.approx(bootstrap, rel=0.1)


signed = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(signed, positive), min_size=2, max_size=12))
def test_a_ratio_is_the_jackknife_of_the_formula(pairs):
    a, c = map(list, zip(*pairs, strict=True))
    found = ratio(torch.tensor(a), torch.tensor(c))
    n, total, below = len(a), math.fsum(a), math.fsum(c)
    left_out = [(total - a[b]) / (below - c[b]) for b in range(n)]
    variance = (n - 1) / n * math.fsum((one - math.fsum(left_out) / n) ** 2 for one in left_out)
    scale = max(map(abs, left_out)) + abs(found.value)
    assert found.value == pytest.approx(total / below, rel=1e-6, abs=1e-6 * scale)
    assert found.error == pytest.approx(math.sqrt(variance), rel=1e-4, abs=1e-5 * scale)
    assert found.n == n


def test_a_ratio_is_of_sums_and_keeps_its_sign():
    found = ratio(torch.tensor([-1.0, 9.0]), torch.tensor([1.0, 3.0]))
    assert found.value == 2.0  # the mean of ratios is 1, the root sqrt(2), the ratio of roots not a number
    assert found.error == 2.0  # left out: 3 and -1
    assert found.sums.numerators.tolist() == [-1.0, 9.0]
    assert found.sums.denominators.tolist() == [1.0, 3.0]
    assert ratio(torch.tensor([1.0, -3.0]), torch.tensor([1.0, 1.0])).value == -1.0


def test_a_ratio_of_nothing_has_no_value_and_of_one_draw_no_error():
    nothing = ratio(torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0]))
    assert math.isnan(nothing.value)
    one = ratio(torch.tensor([1.0]), torch.tensor([4.0]))
    assert (one.value, one.n) == (0.25, 1)
    assert math.isnan(one.error)
    # Without the second draw nothing is left to divide by.
    alone = ratio(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0]))
    assert alone.value == 1.0
    assert math.isnan(alone.error)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_ratio_with_a_draw_that_is_not_finite_keeps_no_sums(bad):
    for a, c in (([bad, 1.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, bad])):
        found = ratio(torch.tensor(a), torch.tensor(c))
        assert math.isnan(found.value)
        assert math.isnan(found.error)
        assert found.sums is None
        assert found.n == 2


def test_the_error_of_a_ratio_covers_the_truth_where_its_terms_are_paired(generator):
    repetitions, n = 400, 50
    exact = 1 + torch.rand(repetitions, n, generator=generator)
    made = 0.9 * exact + 0.1 * torch.randn(repetitions, n, generator=generator)
    founds = [ratio(a, c) for a, c in zip(made, exact, strict=True)]
    covered = fmean(abs(found.value - 0.9) < 2 * found.error for found in founds)
    assert 0.90 < covered < 0.98
    # As if the two sums were independent, the error would be several times as large.
    apart = [float((a.var() / n).sqrt() / c.mean()) for a, c in zip(made, exact, strict=True)]
    assert fmean(found.error for found in founds) < 0.5 * fmean(apart)


def test_standard_error_covers_the_truth(generator):
    repetitions, n = 400, 50
    squares = torch.randn(repetitions, n, generator=generator) ** 2
    references = 4 * (1 + torch.rand(repetitions, n, generator=generator))
    truth = math.sqrt(1 / 6)
    founds = [root_ratio(a, c) for a, c in zip(squares, references, strict=True)]
    covered = fmean(abs(found.value - truth) < 2 * found.error for found in founds)
    assert 0.90 < covered < 0.98


def test_pooling_precedes_the_root():
    found = root_ratio(torch.tensor([0.0, 8.0]), torch.tensor([1.0, 1.0]))
    assert found.value == 2.0  # the mean of the single ratios' roots would be sqrt(2)


@pytest.mark.parametrize("n", [1, 4])
def test_a_vanishing_reference_has_no_ratio(n):
    found = root_ratio(torch.ones(n), torch.zeros(n))
    assert math.isnan(found.value)
    assert math.isnan(found.error)
    assert found.n == n


def test_one_draw_has_no_standard_error():
    assert math.isnan(root_ratio(torch.tensor([4.0]), torch.tensor([1.0])).error)
    assert math.isnan(mean(torch.tensor([4.0])).error)
    assert mean(torch.tensor([4.0])).value == 4.0


def test_a_reference_that_rests_on_one_draw_has_no_standard_error():
    found = root_ratio(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.0, 3.0, 0.0]))
    assert found.value == 1.0
    assert math.isnan(found.error)


def test_an_exact_student_has_error_zero():
    found = root_ratio(torch.zeros(5), torch.ones(5))
    assert (found.value, found.error) == (0.0, 0.0)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12))
def test_mean_has_the_standard_error_of_the_mean(values):
    found = mean(torch.tensor(values))
    assert found.value == pytest.approx(fmean(values), abs=1e-11)
    assert found.error == pytest.approx(stdev(values) / math.sqrt(len(values)), abs=1e-10)
    assert found.n == len(values)


def test_single_precision_is_summed_in_double():
    values = torch.full((1000,), 0.1, dtype=torch.float32)
    single, rounding = float(values[0]), TOLERANCE["measure"][torch.float64]
    assert mean(values).value == pytest.approx(single, rel=rounding)
    ratio = root_ratio(values, torch.ones(1000, dtype=torch.float32))
    assert ratio.value == pytest.approx(math.sqrt(single), rel=rounding)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("n", [16, 64])
def test_limits_of_a_pooled_ratio_cover_the_truth(n, squared):
    """The rate of misses of both limits, for ratios of gamma variables, of which the truth is known."""
    generator = np.random.default_rng([9, n, squared])
    a, c = generator.gamma(32, size=(TRIALS, n)), generator.gamma(128, size=(TRIALS, n))
    found = [(root_ratio if squared else ratio)(*pair) for pair in zip(a, c, strict=True)]
    truth = 0.5 if squared else 0.25
    intervals = [one.interval(0.1) for one in found]
    missed = sum(not low <= truth <= high for low, high in intervals)
    # Approximate in 1/n, by a fifth of the rate at most.
    low, high = (stats.binom.ppf(q, TRIALS, rate) for q, rate in ((BUDGET / 2, 0.08), (1 - BUDGET / 2, 0.12)))
    assert low <= missed <= high


def test_limits_from_unpaired_sums_would_miss_the_budget():
    """The test above can fail: an error that leaves the pairing of numerator and denominator out is far too large."""
    generator = np.random.default_rng(10)
    c = generator.gamma(4, size=(TRIALS, 16))
    a = 0.25 * c + generator.normal(0, 0.05, c.shape)
    paired = [ratio(*pair) for pair in zip(a, c, strict=True)]
    apart = [derived(lambda x, y: x / y, mean(one), mean(other)) for one, other in zip(a, c, strict=True)]
    missed = [sum(not one.lower(0.05) <= 0.25 <= one.upper(0.05) for one in rows) for rows in (paired, apart)]
    budget = stats.binom.ppf(BUDGET / 2, TRIALS, 0.08)
    assert missed[0] >= budget > missed[1]


tables = st.lists(st.floats(-10, 10), min_size=2, max_size=9)


@given(tables, st.floats(-3, 3), st.floats(0.1, 3))
def test_a_mean_moves_and_scales_with_its_values(values, shift, scale):
    before, after = mean(values), mean([shift + scale * value for value in values])
    assert after.value == pytest.approx(shift + scale * before.value, abs=1e-12)
    assert after.error == pytest.approx(scale * before.error, abs=1e-12)


@given(tables)
def test_the_jackknife_of_a_mean_is_its_standard_error(values):
    draws = torch.tensor(values)
    found = jackknife(lambda rows: float(rows.mean()), draws)
    assert found.value == pytest.approx(mean(draws).value, abs=1e-12)
    assert found.error == pytest.approx(float(error_of_mean(draws)), abs=1e-12)
    assert found.error == pytest.approx(float(error_of_mean(draws.numpy())), abs=1e-12)
    assert found.n == len(values)


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=8), st.sampled_from([0.5, 1.0]), positive)
def test_a_pooled_ratio_does_not_depend_on_order_and_scales(pairs, exponent, scale):
    a, c = np.array(pairs).T
    one, turned = pooled(a, c, exponent=exponent), pooled(a[::-1], c[::-1], exponent=exponent)
    larger = pooled(scale * a, c, exponent=exponent)
    assert turned.value == pytest.approx(one.value, rel=1e-12)
    assert turned.error == pytest.approx(one.error, rel=1e-6, abs=1e-10 * one.value)
    assert larger.value == pytest.approx(scale**exponent * one.value, rel=1e-10)
    assert larger.error == pytest.approx(scale**exponent * one.error, rel=1e-6, abs=1e-10 * larger.value)


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=8))
def test_a_share_is_the_ratio_of_the_part_to_the_whole(pairs):
    part, rest = torch.tensor(pairs).T
    found, expected = share(part, part + rest), ratio(part, part + rest)
    assert 0 < found.value < 1
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert found.error == pytest.approx(expected.error, rel=1e-6, abs=1e-12)
    assert found.n == expected.n


def test_a_share_of_nothing_is_not_a_number():
    assert math.isnan(share(torch.zeros(3), torch.zeros(3)).value)


@pytest.mark.parametrize("parts", [2, 4])
def test_leaving_out_parts_of_the_fields_is_leaving_out_their_means(generator, parts):
    """The grouped jackknife of a mean is the standard error of the means of the parts."""
    values = torch.randn(24, generator=generator)
    means = values.reshape(parts, -1).mean(1)
    without = [values.reshape(parts, -1)[torch.arange(parts) != part].mean() for part in range(parts)]
    found = jackknifed(torch.stack([values.mean(), *without]), n=24)
    assert found.error == pytest.approx(float(error_of_mean(means)), rel=1e-12)
    assert found.n == 24


def test_the_jackknife_removes_the_bias_of_a_square():
    """The square of a mean is too large by the variance of the mean, which the correction takes off exactly."""
    values = torch.tensor([1.0, 4.0, 2.0, 8.0], dtype=torch.float64)
    whole, without = values.mean() ** 2, [((values.sum() - one) / 3) ** 2 for one in values]
    found = jackknifed(torch.stack([whole, *without]), corrected=True)
    assert found.value == pytest.approx(float(whole - values.var() / 4))
    assert found.error > 0
    assert jackknifed(torch.stack([whole, *without])).value == float(whole)


def test_nothing_left_out_is_no_error():
    assert math.isnan(jackknifed(torch.tensor([2.0])).error)
    assert math.isnan(jackknifed(torch.tensor([2.0, 2.0])).error)
    assert jackknife(lambda rows: float(rows.sum()), torch.tensor([[4.0]])).value == 4.0


def test_variances_of_columns_are_those_of_each(generator):
    table = torch.randn(7, 3, generator=generator)
    together = jackknife_variance(table)
    assert together.tolist() == pytest.approx([float(jackknife_variance(column)) for column in table.T])


def test_without_the_only_denominator_there_is_no_ratio():
    assert np.isnan(left_out(np.ones(2), np.array([0.0, 2.0]), 1.0)).all()
    assert np.isnan(left_out(np.ones(2), np.array([1.0, -3.0]), 0.5)).all()


# --- several sets of fields


@pytest.mark.parametrize("pooled", [ratio, root_ratio])
def test_tensors_and_arrays_have_the_same_ratio(generator, pooled):
    a, c = torch.rand(7, generator=generator), torch.rand(7, generator=generator)
    measured, number = pooled(a, c), pooled(a.numpy(), c.tolist())
    assert number.value == pytest.approx(measured.value, rel=1e-12)
    assert number.error == pytest.approx(measured.error, rel=1e-12)


def test_pairing_needs_a_name_and_cancels_what_is_common():
    generator = np.random.default_rng(1)
    a, c = generator.chisquare(2, 16), np.ones(16)
    same = [root_ratio(k * a, c, fields="seed 0") for k in (1, 2)]
    apart = [root_ratio(k * a, c) for k in (1, 2)]
    assert derived(log_ratio, *same).error == pytest.approx(0, abs=1e-12)
    assert derived(log_ratio, *apart).error > 0.1


def test_a_number_without_sums_counts_by_its_derivative():
    number = Quantity.estimated(0.2, 0.01, n=10)
    found = derived(np.log, number)
    assert found.error == pytest.approx(0.05, rel=1e-6)
    assert found.degrees == pytest.approx(9)


def test_welch_satterthwaite():
    found = Quantity.of_shares(0.0, (Share("", 1.0, 4), Share("", 2.0, 9)))
    assert found.degrees == pytest.approx(9 / (1 / 4 + 4 / 9))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_never_significant(bad):
    found = derived(log_ratio, Quantity.estimated(bad, 0.1, 8), Quantity.estimated(0.2, 0.1, 8))
    assert math.isnan(found.p_above(0))
    assert math.isnan(found.upper(ALPHA))


def test_one_field_gives_no_limit():
    found = derived(np.log, root_ratio([1.0], [2.0]))
    assert math.isnan(found.upper(ALPHA))
    assert math.isnan(found.p_above(-5))


def test_exact_numbers_are_compared_as_they_are():
    found = derived(log_ratio, Quantity(0.3), Quantity(0.2))
    assert found.kind == "exact"
    assert (found.p_above(0.1), found.p_above(1)) == (0, 1)


@COUNTS
@pytest.mark.parametrize("sites", [4, 64])
def test_size_of_the_test_for_growth_and_of_its_upper_limit(n, sites):
    """Errors that grow by exactly the allowed amount: called degrading, or stable, with probability alpha each."""
    generator = np.random.default_rng([2, n, sites])
    truth = math.log(1.1)
    found = [
        derived(log_ratio, errors(generator, n, scale=1.1, sites=sites), errors(generator, n, sites=sites))
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
        students = [root_ratio(common + generator.chisquare(32, n), c, fields="seed 0") for _ in range(2)]
        rejections += derived(log_ratio, *students).p_above(0) <= ALPHA
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
        rejections += over_seeds([derived(log_ratio, e, reference) for e in own]).p_above(0) <= ALPHA
    # Two kinds of degrees of freedom are combined approximately: no more than twice alpha, and a test still.
    assert rejections / TRIALS <= 2 * ALPHA
    assert rejections > 0


@COUNTS
def test_size_of_equivalence_at_the_edge_of_the_tolerance(n):
    generator = np.random.default_rng([5, n])
    found = [derived(lambda x: x, ratio(generator.normal(1.1, 0.05, n), np.ones(n)))
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
    ratio = derived(log_ratio, errors(generator, 16), errors(generator, 16))
    called = math.log(1 + detectable_growth(ratio, 0.1, ALPHA))
    assert Quantity.of_shares(called, ratio.shares).lower(ALPHA) == pytest.approx(math.log(1.1))


def test_more_fields_clear_a_threshold():
    ratio = Quantity.of_shares(0.05, (Share("", 0.04**2, 1e9),))
    factor = more_needed(ratio, 0.1, ALPHA)
    assert factor == pytest.approx((2.3263 * 0.04 / 0.05) ** 2, rel=1e-3)
    more = Quantity.of_shares(0.05, (Share("", 0.04**2 / factor, 1e9),))
    assert more.upper(ALPHA) == pytest.approx(0.1)
    assert more_needed(Quantity.of_shares(0.1, ratio.shares), 0.1, ALPHA) == math.inf


def test_an_upper_limit_of_clopper_and_pearson_covers():
    generator = np.random.default_rng(8)
    missed = sum(clopper_pearson(k, 50, 0.05)[1] < 0.1 for k in generator.binomial(50, 0.1, 2000).tolist())
    assert missed <= stats.binom.ppf(1 - BUDGET, 2000, 0.05)


def test_a_quotient_rests_on_the_fewer_fields():
    found = quotient(Quantity.estimated(1.0, 0.1, 32), Quantity.estimated(2.0, 0.1, 8))
    assert (found.value, found.n) == (0.5, 8)
    assert found.error == pytest.approx(math.hypot(0.1 / 2, 0.1 / 4), rel=1e-6)
    assert quotient(Quantity(1.0), Quantity(2.0)) == Quantity(0.5)
    assert quotient(Quantity(1.0), Quantity.estimated(2.0, 0.1, 8)).n == 8


def test_a_derived_number_can_be_derived_from_again():
    first = derived(np.square, Quantity.estimated(2.0, 0.1, 10))
    again = derived(np.sqrt, first)
    assert again.error == pytest.approx(0.1, rel=1e-6)
    assert again.degrees == pytest.approx(9)


def test_a_bound_stays_a_bound_and_a_missing_number_unknown():
    assert derived(np.square, Quantity(2.0, kind="certificate")).kind == "certificate"
    assert derived(np.log, Quantity(-1.0)) is UNKNOWN
    assert over_seeds([Quantity.estimated(1.0, 0.1, 4)]) is UNKNOWN


def test_a_ratio_of_negative_covariances_has_limits():
    """Neighbours of opposite sign: the denominators are negative."""
    found = derived(lambda x: x, ratio([-1.0, -1.1, -0.9, -1.0], [-1.0] * 4))
    assert found.value == pytest.approx(1.0)
    assert found.lower(ALPHA) < 1 < found.upper(ALPHA)


def test_numbers_of_tensors_with_gradients_are_numbers():
    """A measure may compute with gradients: its numbers are those without."""
    values = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    for function in (mean, lambda one: root_ratio(one, one + 1), lambda one: ratio(one, one + 1)):
        assert function(values) == function(values.detach())
