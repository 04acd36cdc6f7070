"""The calibration's closed forms against dense algebra and known numbers, and a few of its cases."""

from __future__ import annotations

from dataclasses import replace

import ising
import numpy as np
import pytest
from cases import draw
from linear_students import BallFilter, Law, generated, ratios

import sizetransfer as st
from sizetransfer.verdict import WORDS, judge

ROWS = {  # mass, radius: site variance, nearest covariance and S(0) of the best of 64, generated over exact
    "m .5 R 2": (0.5, 2, (0.990, 0.971, 0.70)),
    "m .1 R 4": (0.1, 4, (0.938, 0.897, 0.245)),
    "m .03 R 4": (0.03, 4, (0.781, 0.70, 0.050)),
    "m .03 R 8": (0.03, 8, (0.838, 0.78, 0.15)),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_the_best_score_of_a_radius_generates(name):
    mass, radius, expected = ROWS[name]
    law = Law(2, 64, mass)
    found = ratios(BallFilter(law.covariance, radius), law, 3 * law.sigma_needed)
    assert list(found.values()) == pytest.approx(expected, abs=0.005)


def test_a_filter_fitted_at_half_the_size_looks_right_by_two_wrongs():
    law = Law(2, 64, 0.03)
    found = ratios(BallFilter(law.at(32).covariance, 4), law, 400.0)
    assert list(found.values()) == pytest.approx((1.015, 1.013, 0.106), abs=0.01)


def test_the_exact_score_generates_the_law():
    law = Law(1, 9, 0.4)
    whole = BallFilter(law.covariance, 4)
    assert generated(whole, law, 30.0) == pytest.approx(law.spectrum + 0.05**2, rel=1e-5)


def test_the_filter_is_that_of_dense_algebra():
    law, variance = Law(1, 16, 0.3), 0.7
    distance = np.arange(16)[:, None] - np.arange(16)
    noisy = law.covariance[distance % 16] + variance * np.eye(16)
    expected = np.linalg.solve(noisy[5:12, 5:12], np.eye(7)[3])
    assert BallFilter(law.covariance, 3).weights(variance) == pytest.approx(expected, abs=1e-12)
    power = np.linalg.inv(noisy)[0, 0]
    known = np.sqrt(1 - np.linalg.inv(noisy[5:12, 5:12])[3, 3] / power)
    assert BallFilter(law.covariance, 3).error_at_its_own(variance, power) == pytest.approx(known)


def test_training_ends_at_the_optimum():
    law = Law(1, 16, 0.3)
    errors = [abs(BallFilter(law.covariance, 3, time=t).weights(0.1) - BallFilter(law.covariance, 3).weights(0.1)).max()
              for t in (1, 10, 1000)]  # fmt: skip
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-12


def test_drawn_errors_are_those_of_the_population():
    case = replace(draw(3), fields=400)
    for one in case.evidence().trainings[0].errors:
        population = case.error(case.law.at(one.size), one.sigma**2)
        assert abs(one.error.value - population) < 5 * one.error.error


@pytest.mark.slow
def test_no_case_whose_generated_fields_are_known_and_wrong_is_a_transfer():
    cases = [case for case in map(draw, range(40)) if case.source != "none"]
    wrong = [case for case in cases if not case.transfers]
    assert len(wrong) > 10
    assert all(judge(case.evidence()).word != "transfers" for case in wrong)
    assert any(judge(case.evidence()).word == "transfers" for case in cases)


def test_a_forecast_is_near_the_closed_form_and_its_error_is_told():
    case = replace(draw(3), source="forecast", size=32)
    (made,) = case.evidence().trainings[0].consequences
    assert made.source == "second-order forecast"
    assert made.site_variance.error > 0
    assert abs(made.site_variance.value - case.ratios["site variance"]) < 5 * made.site_variance.error


@pytest.mark.slow
def test_cases_of_spins_are_drawn_measured_and_judged(monkeypatch):
    """The whole of the study on smaller tori, 4 x 4 to 6 x 6, where the exact posterior takes milliseconds."""
    monkeypatch.setattr(ising, "TRAINED", 4)
    monkeypatch.setattr(ising, "LARGER", 6)
    monkeypatch.setattr(ising, "TRUE", 128)
    rows = [ising.verdict_of(case) for case in (1, 3, 5)]
    assert {row["source"] for row in rows} == {"forecast", "none"}
    assert all(row["word"] in WORDS and row["truth"] in {"yes", "no", "near the limit"} for row in rows)
    assert not any(row["truth"] == "no" and row["word"] == "transfers" for row in rows)


def test_messages_with_the_right_coupling_are_nearly_exact():
    teacher = st.teacher("ising", beta_over_critical=0.5)
    errors = {}
    for name, student in {
        "right": ising.MessageStudent(2, teacher.spec.coupling),
        "no messages": ising.MessageStudent(2, 0.0),
        "wrong gain": ising.MessageStudent(2, teacher.spec.coupling, 0.8),
    }.items():
        x, exact, context = ising.targets(0.5, 6, 0.7)
        found = student(x, x.new_full((len(x),), 0.7), context)
        errors[name] = float((found - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    assert errors["right"] < 0.02
    assert errors["no messages"] > 0.1
    assert errors["wrong gain"] > 0.15
