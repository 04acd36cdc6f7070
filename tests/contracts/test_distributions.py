"""Distributions against scipy's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from sizetransfer.contracts.distributions import clopper_pearson, incomplete_beta, student_quantile, student_tail

DEGREES = st.floats(0.5, 1e4)


@given(st.floats(0.1, 200), st.floats(0.1, 200), st.floats(0, 1))
def test_incomplete_beta(a, b, x):
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), abs=1e-11)


@given(st.floats(-50, 50), DEGREES)
def test_student_tail(t, degrees):
    assert student_tail(t, degrees) == pytest.approx(stats.t.sf(t, degrees), rel=1e-9, abs=1e-12)


@given(st.floats(1e-6, 0.5), st.floats(1, 1e4))
def test_student_quantile(alpha, degrees):
    assert student_quantile(alpha, degrees) == pytest.approx(stats.t.isf(alpha, degrees), rel=1e-8, abs=1e-9)


def test_infinite_degrees_are_normal_and_unknown_ones_unknown():
    assert student_quantile(0.01, math.inf) == pytest.approx(stats.norm.isf(0.01))
    assert student_tail(1.5, math.inf) == pytest.approx(stats.norm.sf(1.5))
    assert student_tail(math.inf, 3) == 0
    assert math.isnan(student_quantile(0.01, math.nan))
    assert math.isnan(student_tail(math.nan, 3))


@pytest.mark.parametrize(("successes", "trials"), [(0, 250), (3, 17), (17, 17), (1, 2), (40, 400)])
def test_clopper_pearson(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(0.9, "exact")  # two-sided 90 %: each side 5 %
    assert clopper_pearson(successes, trials, 0.05) == pytest.approx((expected.low, expected.high), abs=1e-10)
