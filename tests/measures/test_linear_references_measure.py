"""The measure linear-references: exact for Gaussian fields, shared by all students, honest about the law elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

import sizetransfer as st
from sizetransfer.contracts.specs import NoiseSchedule, TrainingSpec
from sizetransfer.contracts.student import Student
from sizetransfer.measures import linear_references as measured
from sizetransfer.measures.linear_references import LinearReferencesSpec
from sizetransfer.measures.periodic_law import LawQuestion

TRAINING = TrainingSpec(size=16, noise=NoiseSchedule(sigma_max=50.0))


def take(teacher, student, size, *, seed=0, **fields):
    spec = LinearReferencesSpec(**fields).for_training(TRAINING)
    found = spec.measure(teacher, student, size, sigma=0.05, seed=seed)
    return {(one.part, None if math.isnan(one.coordinate) else one.coordinate): one for one in found}


def student(teacher, radius):
    return st.student("best-linear", teacher.field, radius=radius)


def test_numbers_of_gaussian_fields_are_exact():
    teacher = st.teacher("gaussian", dim=1, mass=0.5)
    found = take(teacher, student(teacher, 2), 32, sigmas=(0.5,))
    assert {one.standard_error for one in found.values()} == {0.0}
    assert found["correlation_length_squared", None].value == pytest.approx(4.0)
    assert found["zero_mode", None].value == pytest.approx(4.0)
    assert found["sigma_needed", None].value == pytest.approx(math.sqrt(40.0))
    # The clean score reaches nearest neighbours alone.
    assert found["linear", 0.0].value == found["best", 0.0].value == 0
    assert 0 < found["irreducible", 0.5].value == found["linear", 0.5].value < found["null", 0.5].value
    covariance = teacher.covariance(32, torch.arange(32))[0, :, 0].double()
    power = float(torch.linalg.inv(covariance)[0, 0])
    assert found["null", 0.0].value == pytest.approx(math.sqrt(1 - 1 / (float(covariance[0, 0]) * power)))


def test_the_best_of_the_radius_and_the_forecast_are_those_of_the_closed_form():
    """Mass 0.1, R = 4: the best of 64 generates 0.938 and 0.897, fitted at 32 it generates 0.955 and 0.923."""
    teacher = st.teacher("gaussian", dim=2, mass=0.1)
    spec = LinearReferencesSpec(fitted=32, noise=NoiseSchedule(sigma_max=50.0))
    found = {one.part: one.value for one in spec.measure(teacher, student(teacher, 4), 64, sigma=0.05, seed=0)}
    assert found["best_of_radius_site_variance"] == pytest.approx(0.938, abs=1e-3)
    assert found["best_of_radius_nearest"] == pytest.approx(0.897, abs=1e-3)
    assert found["forecast_site_variance"] == pytest.approx(0.955, abs=1e-3)
    assert found["forecast_nearest"] == pytest.approx(0.923, abs=1e-3)


def test_seeds_do_not_enter_and_students_share_the_work(monkeypatch):
    teacher = st.teacher("flow", preset="short-range-simple")
    first = take(teacher, student(teacher, 1), 8, fields=16, radii=(1, 2))
    monkeypatch.setattr(measured, "linear_references", None)  # nothing is computed again
    again = take(
        st.teacher("flow", preset="short-range-simple"), student(teacher, 2), 8, fields=16, radii=(1, 2), seed=9
    )
    assert first["null", 0.0].sums == again["null", 0.0].sums
    assert len(first["linear", 0.0].sums[0]) == 16
    assert again["linear", 0.0].value <= first["linear", 0.0].value


def test_estimates_of_the_law_are_near_the_exact_ones(monkeypatch):
    teacher = st.teacher("gaussian", dim=1, mass=0.5)
    exact = take(teacher, student(teacher, 1), 32)
    for question in (measured._Question, LawQuestion):
        monkeypatch.setattr(question, "exact", property(lambda question: False))
    found = take(teacher, student(teacher, 1), 32, fields=255)
    names = ["site_variance", "nearest_covariance", "zero_mode", "correlation_length_squared"]
    for key in [(name, None) for name in names] + [("null", 0.0), ("best_of_radius_site_variance", None)]:
        assert abs(found[key].value - exact[key].value) < 5 * found[key].standard_error, key


def test_what_the_training_sets_enters_the_specification():
    spec = LinearReferencesSpec().for_training(TRAINING)
    assert (spec.fitted, spec.noise) == (16, TRAINING.noise)
    assert LinearReferencesSpec(fitted=8).for_training(TRAINING).fitted == 8


class Zero(Student):
    """A student of any radius that sees all there is, and says nothing."""

    def forward(self, x, sigma, context):
        return torch.zeros_like(x)


def boxes(monkeypatch, radius, *, fields=64, **settings):
    """References of a student of this radius in open boxes, where balls of radius 1 alone are small enough."""
    monkeypatch.setattr(measured, "LARGEST_BALL", 27)
    teacher = st.teacher("hard-valid", preset="medium", width=4)
    return take(teacher, Zero(teacher.field, radius=radius), 6, fields=fields, margin=1, **settings)


def test_in_an_open_box_what_no_ball_was_fitted_for_is_missing(monkeypatch):
    found = boxes(monkeypatch, 2, radii=(1,))
    assert {"null", "site_variance"} <= {part for part, _ in found}
    assert not {"linear", "best"} & {part for part, _ in found}


def test_in_an_open_box_there_is_no_best_without_a_larger_ball_than_the_students(monkeypatch):
    alone, beside = boxes(monkeypatch, 1, radii=(1,)), boxes(monkeypatch, 0, radii=(1,))
    assert ("linear", 0.0) in alone
    assert ("best", 0.0) not in alone
    assert beside["best", 0.0].value == alone["linear", 0.0].value < beside["linear", 0.0].value


def test_a_filter_for_each_value_of_the_channels_that_are_named(monkeypatch):
    settings = {"fields": 256, "radii": (1,)}
    seen, unseen = (boxes(monkeypatch, 1, conditions=channels, **settings) for channels in ((12,), ()))
    assert seen["linear", 0.0].value < unseen["linear", 0.0].value


def test_a_larger_ball_with_too_few_fields_tells_nothing():
    """Eight fields of 36 sites determine a filter of 9 sites, and not one of 25: locality is not known, not free."""
    teacher = st.teacher("hard-valid", preset="local")
    few = take(teacher, student(teacher, 1), 6, fields=8, radii=(2,), margin=2, conditions=())
    assert ("linear", 0.0) in few
    assert ("best", 0.0) not in few
    one, other = (measured.Measurement("e", value, 0.0, 1) for value in (0.5, 0.505))
    assert measured._tells(other, one)
    assert not measured._tells(measured.Measurement("e", 0.52, 0.0, 1), one)
