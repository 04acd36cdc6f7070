"""The error of noisy scores: nothing for the exact score, its size for no score, and told by noise level."""

from __future__ import annotations

import pytest

import sizetransfer as st
from sizetransfer.contracts.student import Student
from sizetransfer.measures.smoothed_score import SmoothedScoreSpec

ROUNDING = 1e-12


class Scaled(Student):
    """The teacher's own score times a factor at each noise level."""

    def __init__(self, teacher, factors):
        super().__init__(teacher.field, radius=None)
        self.teacher, self.factors = teacher, factors

    def forward(self, x, sigma, context):
        return self.factors[float(sigma[0])] * self.teacher.smoothed_score(x, sigma, context)


@pytest.mark.parametrize(("kind", "size"), [("gaussian", 6), ("gaussian-graph", 24)])
def test_the_error_of_a_scaled_score_is_known(kind: str, size: int) -> None:
    teacher = st.teacher(kind).double()
    student = Scaled(teacher, {0.2: 1.0, 0.5: 0.0, 2.0: 1.25})
    spec = SmoothedScoreSpec(sigmas=(0.2, 0.5, 2.0), fields=5, batch=2)
    found = list(spec.measure(teacher, student, size, sigma=0.05, seed=0))
    assert [row.coordinate for row in found] == [0.2, 0.5, 2.0]
    assert {row.part for row in found} == {"relative_rmse"}
    for row, expected in zip(found, (0.0, 1.0, 0.25), strict=True):
        assert row.value == pytest.approx(expected, abs=ROUNDING)
        assert row.n == 5


def test_noise_is_added_to_the_field() -> None:
    """A student that gives the clean score is wrong by the difference of the two scores on noisy fields."""
    teacher = st.teacher("gaussian", mass=1.0).double()

    class Clean(Student):
        def forward(self, x, sigma, context):
            return teacher.smoothed_score(x, sigma * 0 + 1e-6, context)

    (row,) = SmoothedScoreSpec(sigmas=(1.0,), fields=64).measure(
        teacher, Clean(teacher.field, radius=None), 8, sigma=0.05, seed=0
    )
    spectrum = teacher.covariance_spectrum(8)
    power = (1 / (spectrum + 1)).mean()
    error = ((1 / spectrum - 1 / (spectrum + 1)).square() * (spectrum + 1)).mean()
    assert row.value == pytest.approx(float((error / power).sqrt()), abs=4 * row.standard_error)
    assert row.standard_error < 0.1 * row.value


def test_a_teacher_without_smoothed_scores_is_not_asked() -> None:
    assert not issubclass(type(st.teacher("phi4")), SmoothedScoreSpec.requires)
