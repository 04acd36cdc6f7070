"""Limits, probabilities and kinds of a number against scipy's and by properties."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sizetransfer.contracts.quantity import UNKNOWN, Quantity, Share, weakest

VALUES, ERRORS, LEVELS = st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.floats(1e-4, 0.4)
COUNTS = st.integers(2, 500)


@given(VALUES, ERRORS, COUNTS, LEVELS)
def test_limits_are_student_ones(value, error, n, alpha):
    number = Quantity.estimated(value, error, n)
    margin = error * stats.t.isf(alpha, n - 1)
    assert number.margin(alpha) == pytest.approx(margin, rel=1e-7)
    assert number.interval(2 * alpha) == (number.lower(alpha), number.upper(alpha))
    assert (number.lower(alpha), number.upper(alpha)) == pytest.approx((value - margin, value + margin), rel=1e-7)


@given(VALUES, ERRORS, COUNTS, LEVELS)
def test_the_probability_at_a_limit_is_the_level(value, error, n, alpha):
    number = Quantity.estimated(value, error, n)
    assert number.p_above(number.lower(alpha)) == pytest.approx(alpha, rel=1e-6)
    assert number.p_below(number.upper(alpha)) == pytest.approx(alpha, rel=1e-6)
    assert number.p_above(value) == pytest.approx(0.5)


@given(VALUES, ERRORS, LEVELS)
def test_without_a_count_the_law_is_normal(value, error, alpha):
    number = Quantity.estimated(value, error)
    assert number.degrees == math.inf
    assert number.margin(alpha) == pytest.approx(error * stats.norm.isf(alpha), rel=1e-9)


@given(st.lists(st.tuples(ERRORS, st.integers(1, 50)), min_size=1, max_size=4))
def test_degrees_lie_between_those_of_the_shares_and_their_sum(groups):
    number = Quantity.of_shares(0.0, (Share("", error**2, degrees) for error, degrees in groups))
    each = [degrees for _, degrees in groups]
    assert min(each) * (1 - 1e-9) <= number.degrees <= sum(each) * (1 + 1e-9)
    assert number.error == pytest.approx(math.hypot(*(error for error, _ in groups)))
    assert number.variance == pytest.approx(number.error**2)


@pytest.mark.parametrize("kind", ["exact", "certificate"])
def test_limits_of_what_is_not_random_are_the_numerical_error_away(kind):
    number = Quantity(1.0, 0.25, kind)
    assert (number.lower(0.01), number.upper(0.3)) == (0.75, 1.25)
    assert (number.p_above(0.5), number.p_above(0.9), number.p_below(1.5)) == (0, 1, 0)
    assert number.variance == 0
    assert number.degrees == math.inf


def test_one_draw_has_no_limits():
    alone = Quantity.estimated(1.0, math.nan, 1)
    assert alone.known
    assert math.isnan(alone.degrees)
    assert math.isnan(alone.upper(0.01))
    assert math.isnan(alone.p_above(-100))


def test_what_is_unknown_is_never_significant():
    assert not UNKNOWN.known
    assert not Quantity(math.inf).known
    assert math.isnan(UNKNOWN.p_above(0))
    assert math.isnan(UNKNOWN.upper(0.01))


def test_a_sum_is_worth_its_weakest_term():
    assert weakest("exact", "certificate") == "certificate"
    assert weakest("certificate", "estimate", "exact") == "estimate"


def test_json_has_value_kind_and_error_and_null_for_what_is_not_finite():
    assert Quantity.estimated(0.5, math.nan, 4).to_json() == {"value": 0.5, "kind": "estimate", "error": None}
    assert Quantity(math.inf).to_json() == {"value": None, "kind": "exact", "error": 0.0}
    assert list(Quantity(1.0).to_json()) == ["value", "kind", "error"]


def test_a_number_does_not_change():
    with pytest.raises(FrozenInstanceError):
        Quantity(1.0).value = 2.0
