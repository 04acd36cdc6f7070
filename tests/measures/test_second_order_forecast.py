"""A student's own forecast: exact for linear students, and refused where it is not there."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import Context, draw_fields
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.contracts.specs import FieldInfo, NoiseSchedule, TrainingSpec
from sizetransfer.measures.second_order_forecast import FORECAST, SecondOrderForecastSpec, _levels
from sizetransfer.scores.references import estimate_moments, exact_moments
from sizetransfer.scores.references.approximation import ResponseMoments
from sizetransfer.scores.references.cells import Cells
from sizetransfer.scores.references.consequence import (
    consequence,
    gain,
    generated_spectrum,
    marginals,
    ratios,
    spectrum,
)

NOISE = NoiseSchedule(sigma_min=0.05, sigma_max=20.0)


class Scaled(st.Student):
    """Another student's score times a factor, and a cube."""

    def __init__(self, student: st.Student, factor: float = 1.0, cube: float = 0.0) -> None:
        super().__init__(student.field, radius=student.radius)
        self.student, self.factor, self.cube = student, factor, cube

    def forward(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        return self.factor * self.student(x, sigma, context) - self.cube * x**3


def take(teacher, student, size, **fields):
    found = SecondOrderForecastSpec(noise=NOISE, **fields).measure(teacher, student, size, sigma=0.05, seed=0)
    return {(one.part, None if math.isnan(one.coordinate) else one.coordinate): one for one in found}


def best(teacher, radius):
    return st.student("optimal-local", teacher.field, mass=0.5, radius=radius, reference="lattice").double()


@pytest.mark.parametrize("radius", [1, 3])
def test_a_linear_student_of_a_gaussian_field_generates_what_is_forecast(radius):
    teacher = st.teacher("gaussian", dim=1, mass=0.5).double()
    found, known = take(teacher, best(teacher, radius), 24), consequence(teacher, 24, radius, noise=NOISE)
    expected = (known.variance, known.nearest, known.zero_mode, known.smallest_wave)
    for part, value in zip(FORECAST, expected, strict=True):
        assert found[part, None].value == pytest.approx(value, rel=3e-3)
        assert found[part, None].standard_error < 1e-6  # nothing about it is estimated
    assert all(found["remainder", level].value < 1e-4 for level in _levels(NOISE))


@pytest.mark.parametrize("factor", [0.9, 1.15])
def test_a_wrong_gain_is_seen_in_what_is_generated(factor):
    teacher = st.teacher("gaussian", dim=1, mass=0.5).double()
    found, moments = take(teacher, Scaled(best(teacher, 3), factor), 24), exact_moments(teacher, 24)
    linear, law, cells = moments.filter(3), spectrum(moments), moments.cells
    made = generated_spectrum(lambda v: factor * gain(linear, v, cells), law, NOISE)
    wanted = ratios(marginals(made, cells), marginals(law, cells))
    assert abs(wanted[0] - 1) > 0.08
    assert found["forecast_site_variance", None].value == pytest.approx(wanted[0], rel=5e-3)
    assert found["forecast_nearest", None].value == pytest.approx(wanted[1], rel=5e-3)


def test_a_cube_of_a_gaussian_field_is_thrice_its_variance_times_the_field():
    """Stein: E[x^3 x] = 3 E[x^2]^2 for each site; a cube of the field at a site has no other linear part."""
    field = normal((4096, 1, 8), generator=stream(3), like=torch.zeros(1, dtype=torch.float64))
    cells = Cells(torch.zeros(8, dtype=torch.int64))
    found = ResponseMoments.of(field, -(field**3), cells)
    g = found.gain(1)
    assert float(g.real.mean()) == pytest.approx(3.0, abs=5 * math.sqrt(96 / 4096 / 8))
    assert found.remainder(g) == pytest.approx(math.sqrt(1 - 9 / 15), abs=0.02)  # E x^6 = 15


@pytest.mark.parametrize("radius", [1, 2, None])
def test_alternating_classes_have_filters_of_their_own(radius):
    teacher = st.teacher("flow", preset="medium-range").double()
    sample = draw_fields(teacher, 32, 8, generator=stream(5))
    moments = estimate_moments(sample, None)
    linear = moments.filter(radius)
    score = linear.score(sample.x, torch.zeros(32), sample.context)
    found = ResponseMoments.of(sample.x, score, moments.cells)
    g = found.gain(radius)
    torch.testing.assert_close(g, gain(linear, torch.tensor(0.0), moments.cells), rtol=1e-6, atol=1e-6)
    assert found.remainder(g) < 1e-5
    assert float((g - found.gain(0)).abs().max()) > 0.1


def test_the_student_of_the_flow_is_forecast_with_an_error():
    teacher = st.teacher("flow", preset="short-range-simple")
    found = take(teacher, st.student("cnn", teacher.field, blocks=0, width=4).float(), 8, law_fields=64)
    assert 0 < found["forecast_site_variance", None].standard_error < 0.5
    assert found["forecast_site_variance", None].n == 8


def test_levels_are_those_of_the_training():
    training = TrainingSpec(size=8, noise=NoiseSchedule(sigma_min=0.1, sigma_max=2.0))
    spec = SecondOrderForecastSpec().for_training(training)
    levels = _levels(spec.noise)
    assert (levels[0], levels[-1]) == (pytest.approx(0.1), pytest.approx(2.0))
    assert max(2 * math.log(b / a) for a, b in itertools.pairwise(levels)) <= 0.7
    assert SecondOrderForecastSpec(noise=NOISE).for_training(training).noise == NOISE


class Striped(st.Teacher):
    """White noise with a random condition at every site of every field."""

    def __init__(self) -> None:
        super().__init__(FieldInfo(dim=1, channels=1, condition_channels=1))

    def domain(self, size: int) -> Lattice:
        return Lattice((size,))

    def sample(self, batch, size, *, generator):
        x = normal((batch, 1, size), generator=generator, like=torch.zeros(1))
        condition = normal((batch, 1, size), generator=generator, like=x)
        return st.Sample(x, Context(self.domain(size), condition=condition))


def test_what_has_no_cells_is_refused_before_training():
    with pytest.raises(OracleError, match="alike, or alternate"):
        SecondOrderForecastSpec().check(Striped(), 8)
    SecondOrderForecastSpec().check(st.teacher("flow", preset="medium-range"), 8)
    hard = st.teacher("hard-valid", preset="local")
    with pytest.raises(OracleError, match="kind generation"):
        SecondOrderForecastSpec().check(hard, 6)
