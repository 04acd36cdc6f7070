"""Where generated fields start, their ratios to exact ones, and the control in the student's place."""

from __future__ import annotations

import math

import pytest
import torch

import sizetransfer as st
from sizetransfer.contracts.specs import NoiseSchedule, TrainingSpec
from sizetransfer.contracts.student import Student
from sizetransfer.measures.exact_law import ExactLaw
from sizetransfer.measures.generation import GenerationSpec
from sizetransfer.measures.marginal_ratios import RATIOS
from sizetransfer.scores.sampling import SamplerSpec
from sizetransfer.systems.flow.teacher import FlowTeacherSpec
from sizetransfer.systems.gaussian.teacher import GaussianTeacherSpec

# Four ratios of two starts: a chance failure has a probability below 1e-3.
SIGNIFICANCE = 4.0
SIZE = 16


class Exact(Student):
    """The exact smoothed score, which refuses noise outside a range."""

    def __init__(self, teacher, noise=None) -> None:
        super().__init__(teacher.field, radius=None)
        self.teacher, self.noise = teacher, noise

    def forward(self, x, sigma, context):
        if self.noise is not None and not bool(
            ((sigma >= self.noise.sigma_min) & (sigma <= self.noise.sigma_max)).all()
        ):
            raise ValueError(f"asked at {sigma.tolist()}")
        return self.teacher.smoothed_score(x, sigma, context)


def make_teacher():
    return GaussianTeacherSpec(dim=2, mass=0.5).build().double()


def measured(spec, teacher, student, seed=1):
    return {row.part: row for row in spec.measure(teacher, student, SIZE, sigma=0.05, seed=seed)}


def deviations(parts):
    return {name: abs(parts[name].value - 1) / parts[name].standard_error for name in RATIOS}


@pytest.mark.parametrize("trained", [None, 1.0, 1000.0])
def test_a_right_model_is_right_from_the_start_that_is_chosen_and_the_control_is_the_student(trained):
    teacher = make_teacher()
    noise = None if trained is None else NoiseSchedule(sigma_max=trained)
    parts = measured(GenerationSpec(fields=256, batch=128, trained=noise), teacher, Exact(teacher, noise))
    needed = math.sqrt(10 * float(teacher.covariance_spectrum(SIZE).max()))
    assert parts["sigma_needed"].value == pytest.approx(needed)
    assert parts["sigma_start"].value == pytest.approx(min(needed, trained or math.inf))
    assert parts["start_exact"].value == (trained == 1.0)
    assert parts["control_exact"].value == 1
    assert max(deviations(parts).values()) < SIGNIFICANCE
    for name in RATIOS:
        one, control = parts[name], parts[f"control_{name}"]
        assert one.value == pytest.approx(control.value, rel=1e-9)
        above, below = one.sums
        assert sum(above) / sum(below) == pytest.approx(one.value)
        assert len(above) == one.n == 256


def test_white_noise_at_the_datas_deviation_makes_a_right_model_wrong():
    teacher = make_teacher()
    parts = measured(GenerationSpec(fields=256, batch=128, start="matched"), teacher, Exact(teacher))
    assert deviations(parts)["site_variance_ratio"] > 10
    assert parts["control_site_variance_ratio"].value == pytest.approx(parts["site_variance_ratio"].value)


def test_a_student_outside_its_range_would_be_noticed():
    teacher, noise = make_teacher(), NoiseSchedule(sigma_max=1.0)
    with pytest.raises(ValueError, match="asked at"):
        measured(GenerationSpec(fields=2, sampler=SamplerSpec(steps=2)), teacher, Exact(teacher, noise))


def test_the_training_sets_the_range():
    training = TrainingSpec(size=8, noise=NoiseSchedule(sigma_max=3.0))
    assert GenerationSpec().for_training(training).trained == training.noise


def test_the_same_fields_whatever_the_batch_from_exact_fields_of_an_unknown_spectrum():
    teacher = FlowTeacherSpec(smoother_depth=1, cutoff=2).build().double().frozen()

    class White(Student):
        def forward(self, x, sigma, context):
            return -x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    student = White(teacher.field, radius=0)
    specs = [GenerationSpec(fields=6, batch=b, sampler=SamplerSpec(steps=3), trained=NoiseSchedule()) for b in (2, 6)]
    one, other = ({row.part: row for row in spec.measure(teacher, student, 8, sigma=0.05, seed=1)} for spec in specs)
    assert one.keys() == other.keys()
    assert one["control_exact"].value == 0
    for part, row in one.items():
        assert row.value == pytest.approx(other[part].value, rel=1e-8, abs=1e-10), part


def test_the_estimated_need_is_near_the_exact_one_and_not_below():
    teacher = make_teacher()
    law = ExactLaw(teacher, SIZE, seed=1, batch=16)
    exact = law.needed
    estimated = ExactLaw(teacher, SIZE, seed=1, batch=16)
    estimated.__dict__["moments"] = None
    assert 0.8 * exact < estimated.needed < 2 * exact
    torch.testing.assert_close(law.marginals[2], teacher.covariance_spectrum(SIZE)[0, 0])


def test_an_exact_control_that_would_take_hours_gives_way_to_the_linear_one():
    """One noisy field of 8 x 8 spins is solved in a blink, the ten thousands of a reverse process are not."""
    teacher = st.teacher("ising", beta_over_critical=0.5, seconds=20.0)
    assert ExactLaw(teacher, 8, seed=0, batch=8).control.exact
    assert not ExactLaw(teacher, 8, seed=0, batch=8, scores=64 * 192).control.exact
