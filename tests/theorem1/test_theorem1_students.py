"""Theorem 1 for teachers and students: by sampling, by probing for linear scores, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import sizetransfer as st
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.bases import Waves
from sizetransfer.theorem1 import (
    FieldLaw,
    GaussianInfluence,
    LinearScore,
    NotLinearError,
    PosteriorInfluence,
    Rollout,
    gaussian_weights,
    influence_table,
    initial_distance,
    linear_score,
    log_levels,
    rollout_errors,
    theorem1_bound,
)

# --- By sampling --------------------------------------------------------------------------------------------------


class Tilted(Student):
    """A score of two neighbours, with a bias: ``0.1 - (x_i + 0.3 x_{i+1}) / (1 + v)``."""

    def __init__(self) -> None:
        super().__init__(st.FieldInfo(dim=1), radius=1)

    def forward(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        return 0.1 - (x + 0.3 * x.roll(-1, -1)) / (1 + expand(sigma, x) ** 2)


def interpolated_drift(spectrum: Tensor, score: LinearScore, levels: Tensor, churn: float) -> float:
    """Weighted drift error of Euler's rollout as a process in continuous time, by quadrature within each step."""
    nodes, quadrature = np.polynomial.legendre.leggauss(30)
    total, rollout = (
        0.0,
        Rollout(score, FieldLaw(torch.full_like(spectrum, levels[0])), *levels[[-1, 0]].tolist(), churn),
    )
    factor = (1 + churn**2) / 2
    a = score.spectrum(levels)
    bias = score.bias_modes(levels, Waves(spectrum.shape))
    for n, step in enumerate(rollout.steps(levels, "euler")):
        half = 0.5 * (step.v - step.after)
        for node, weight in zip(nodes, quadrature, strict=True):
            v = step.after + half * (1 + node)
            response = 1 / (spectrum + v)
            gone = factor * (step.v - v)
            wrong = response * (1 - gone * a[n]) - a[n]
            variance = wrong.abs() ** 2 * step.variance + churn**2 * (step.v - v) * response**2
            mean = (0 if step.mean is None else wrong * step.mean) + bias[n] * (1 + gone * response)
            std = variance.mean().sqrt()
            site = torch.fft.ifft(mean, norm="ortho").real
            size = std * math.sqrt(2 / math.pi) * torch.exp(-0.5 * (site / std) ** 2)
            size = size + site.abs() * torch.erf(site.abs() / (std * math.sqrt(2)))
            weights = gaussian_weights(spectrum, [(0,)], torch.tensor([v]), float(levels[-1]), churn=churn)[0]
            total += factor * half * weight * float((weights * size).sum())
    return total


@pytest.mark.parametrize("churn", [0.0, 1.0, 1.3])
def test_sampled_drift_errors_are_unbiased(churn):
    teacher, student, levels = st.teacher("gaussian", dim=1, mass=1.0).double(), Tilted(), log_levels(0.04, 16.0, 6)
    spectrum = teacher.covariance_spectrum(6)
    score = linear_score(student, teacher.context(1, 6), sigma=(0.2, 4.0))
    found = rollout_errors(
        teacher,
        student,
        GaussianInfluence(spectrum, [(0,)], 0.04, churn),
        size=6,
        levels=levels,
        churn=churn,
        trajectories=3000,
        batch=1500,
        generator=stream("rollouts", churn),
    )
    truth = interpolated_drift(spectrum, score, levels, churn)
    assert found.drift.kind == "estimate"
    assert found.drift.error < 0.02 * truth
    # Three standard normal numbers in all: one beyond four has a probability of about 2e-4.
    assert abs(found.drift.value - truth) < 4 * found.drift.error
    *_, step = Rollout(score, FieldLaw(torch.full_like(spectrum, 16.0)), 0.04, 16.0, churn).steps(levels, "euler")
    variance = float(step.end.spectrum.mean())
    # Six correlated sites; the variance of a squared normal number is twice its square.
    assert float(found.terminal.var()) == pytest.approx(variance, abs=4 * variance * math.sqrt(2 / 3000))


def test_sampled_starts_bound_the_exact_one():
    teacher = st.teacher("gaussian", dim=1, mass=1.0).double()
    spectrum, vm, vx = teacher.covariance_spectrum(6), 0.04, 16.0
    found = rollout_errors(
        teacher,
        Tilted(),
        PosteriorInfluence(teacher, [(0,)], vm),
        size=6,
        levels=log_levels(vm, vx, 2),
        trajectories=2000,
        batch=2000,
        generator=stream("starts"),
    ).initial
    weights = gaussian_weights(spectrum, [(0,)], torch.tensor([vx]), vm, bounded=False)
    expected = float(weights.sum()) * math.sqrt(2 / math.pi * float(spectrum.mean()))
    assert abs(found.value - expected) < 4 * found.error
    start = FieldLaw(torch.full_like(spectrum, vx))
    assert initial_distance(spectrum, start, [(0,)], vm, vx).upper < found.value


def test_the_covariance_form_of_a_gaussian_site_is_its_exact_weight():
    teacher = st.teacher("gaussian", dim=2, mass=0.6).double()
    x, v = torch.randn(3, 1, 5, 5, generator=stream("x")), torch.tensor([0.1, 0.5, 9.0])
    found = PosteriorInfluence(teacher, [(1, 2)], 0.1)(x, v, teacher.context(3, 5))
    expected = gaussian_weights(teacher.covariance_spectrum(5), [(1, 2)], v, 0.1, bounded=False)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-11, atol=1e-13)


def test_an_influence_table_from_samples_agrees_with_the_exact_one():
    teacher = st.teacher("gaussian", dim=2, mass=0.8).double()
    options = {"patch": [(1, 2)], "size": 5, "sigma": 1.2, "samples": 6000, "batch": 2000}
    table = influence_table(teacher, sigma_min=0.3, generator=stream("table"), **options)
    exact_weights = gaussian_weights(
        teacher.covariance_spectrum(5), [(1, 2)], torch.tensor([1.44]), 0.09, bounded=False
    )[0]
    deviations = (table.weights[0] - exact_weights) / table.standard_errors[0]
    # Twenty-five standard normal numbers: one beyond 4.2 has a probability of about 7e-4.
    assert deviations.abs().max() < 4.2
    assert table.standard_errors.max() < 0.05 * exact_weights.max()
    wrong = influence_table(teacher, sigma_min=0.9, generator=stream("table"), **options)
    assert ((wrong.weights[0] - exact_weights) / wrong.standard_errors[0]).abs().max() > 4.2


def test_the_bound_by_sampling_is_near_that_of_many_steps():
    teacher = st.teacher("gaussian", dim=1, mass=1.0).double()
    options = {"size": 6, "patch": [(0,)], "sigma_min": 0.2, "sigma_max": 4.0}
    certain = theorem1_bound(teacher, Tilted(), **options)
    sampled = theorem1_bound(
        teacher,
        Tilted(),
        method="monte-carlo",
        steps=200,
        trajectories=200,
        batch=200,
        generator=stream("b"),
        **options,
    )
    assert (certain.bound.kind, sampled.bound.kind) == ("certificate", "estimate")
    assert certain.holds
    assert sampled.truth is None
    assert sampled.bound.value == pytest.approx(certain.bound.value, abs=4 * sampled.bound.error, rel=0.1)


def test_single_precision_gives_the_same_estimate():
    options = {"size": 6, "patch": [(0,)], "sigma_min": 0.2, "sigma_max": 4.0, "steps": 10, "method": "monte-carlo"}
    bounds = []
    for dtype in (torch.float32, torch.float64):
        teacher = st.teacher("gaussian", dim=1, mass=1.0).to(dtype)
        found = theorem1_bound(teacher, Tilted(), trajectories=400, batch=400, generator=stream("f"), **options).bound
        bounds.append((found.value, found.error))
    assert abs(bounds[0][0] - bounds[1][0]) < 4 * math.hypot(bounds[0][1], bounds[1][1])


# --- Students and bad input ---------------------------------------------------------------------------------------


class Curved(Tilted):
    def forward(self, x, sigma, context):
        return super().forward(x, sigma, context) + 1e-6 * x.tanh()


class Uneven(Tilted):
    def forward(self, x, sigma, context):
        return super().forward(x, sigma, context) * (1 + 1e-6 * torch.arange(x.shape[-1]))


def test_a_linear_student_is_recognised_in_either_precision():
    teacher = st.teacher("gaussian", dim=1, mass=1.0)
    context = teacher.context(1, 7)
    found = linear_score(Tilted(), context, sigma=(0.1, 5.0))
    v = torch.tensor([0.5, 2.0])
    wave = 2 * math.pi * torch.arange(7) / 7
    expected = (1 + 0.3 * torch.exp(1j * wave)) / (1 + v[:, None])
    torch.testing.assert_close(found.spectrum(v), expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found.bias_modes(v, Waves((7,)))[:, 0].real, torch.full((2,), 0.1 * math.sqrt(7)))
    student = st.student("cnn", teacher.field, blocks=1).float()  # its last layer is zero: -x / t^2
    spectrum = linear_score(student, context, sigma=(0.1, 5.0)).spectrum(v)
    torch.testing.assert_close(
        spectrum.real, (1 / (v + teacher.field.sigma_data**2))[:, None].expand(2, 7), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("make", [Curved, Uneven])
def test_a_student_without_a_linear_kernel_is_refused_or_sampled(make):
    teacher = st.teacher("gaussian", dim=1, mass=1.0).double()
    options = {"size": 6, "patch": [(0,)], "sigma_min": 0.2, "sigma_max": 4.0, "steps": 4}
    with pytest.raises(NotLinearError, match="linear"):
        theorem1_bound(teacher, make(), method="exact", **options)
    with pytest.raises(OracleError, match="random numbers"):
        theorem1_bound(teacher, make(), **options)
    assert theorem1_bound(teacher, make(), generator=stream("s"), **options).bound.kind == "estimate"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma_min": 0.0}, "noise range"),
        ({"sigma_min": -0.1}, "noise range"),
        ({"sigma_min": 4.0}, "noise range"),
        ({"patch": [(6,)]}, "patch"),
        ({"patch": [(0, 0)]}, "patch"),
        ({"churn": -1.0}, "churn"),
        ({"sampler": "euler", "steps": 0}, "step"),
        ({"sampler": "ancestral", "steps": 1, "churn": 1.5}, "churn"),
        ({"method": "monte-carlo", "sampler": "heun", "generator": stream("s")}, "Euler"),
        ({"method": "monte-carlo", "generator": stream("s"), "trajectories": 1}, "trajectories"),
    ],
)
def test_questions_without_an_answer_are_refused(change, message):
    teacher = st.teacher("gaussian", dim=1, mass=1.0).double()
    options = {"size": 6, "patch": [(0,)], "sigma_min": 0.2, "sigma_max": 4.0} | change
    with pytest.raises(OracleError, match=message):
        theorem1_bound(teacher, Tilted(), **options)


def test_teachers_that_know_too_little_are_refused():
    flow = st.teacher("flow").double()
    student = st.student("cnn", flow.field, blocks=1)
    options = {"size": 6, "patch": [(0, 0)], "sigma_min": 0.2, "sigma_max": 4.0, "generator": stream("s")}
    with pytest.raises(OracleError, match="Gaussian teacher"):
        theorem1_bound(flow, student, method="exact", **options)
    with pytest.raises(OracleError, match="influence weights"):
        theorem1_bound(flow, student, **options)
    with pytest.raises(OracleError, match="smoothed score"):
        theorem1_bound(flow, student, weights=lambda x, v, context: x.new_ones(()), **options)


@pytest.mark.parametrize("levels", [[1.0, 4.0], [4.0, 1.0, 2.0, 0.5], [4.0, 0.0]])
def test_rollouts_down_no_ladder_are_refused(levels):
    teacher = st.teacher("gaussian", dim=1).double()
    with pytest.raises(OracleError, match=r"noise range|levels"):
        rollout_errors(
            teacher,
            Tilted(),
            GaussianInfluence(teacher.covariance_spectrum(6), [(0,)], 0.5),
            size=6,
            levels=torch.tensor(levels),
            generator=stream("l"),
        )


def test_a_table_of_one_sample_has_no_error_and_is_refused():
    teacher = st.teacher("gaussian", dim=1).double()
    options = {"size": 6, "sigma": 1.0, "sigma_min": 0.1, "generator": stream("one")}
    with pytest.raises(OracleError, match="two samples"):
        influence_table(teacher, patch=[(0,)], samples=1, **options)
