"""The measure of smoothed responses against a Gaussian field, whose smoothed score is linear and known."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from synthetic_run import SyntheticRun, make_experiment, record

import sizetransfer as st
from sizetransfer.drawing import Omitted, style
from sizetransfer.measures.smoothed_response import SmoothedResponseSpec
from sizetransfer.numerics.shells import ResponseProfile
from sizetransfer.report.data import gather
from sizetransfer.report.drawn import draw

SIZE, SIGMAS = 16, (0.3, 1.0)
POSTERIOR = {"chains": 8, "warmup": 40, "draws": 60, "max_r_hat": 1.2, "min_effective": 40}


def spec(**changes):
    settings = {
        "sigmas": SIGMAS,
        "fields": 3,
        "sites": 16,
        "radii": (2,),
        "epsilons": (0.2, 0.05),
        "posterior": POSTERIOR,
        **changes,
    }
    return SmoothedResponseSpec.parse({"kind": "smoothed-response", **settings})


def measure(**changes):
    teacher = st.teacher("gaussian", dim=1, mass=0.5).double().frozen()
    student = st.student("cnn", teacher.field, blocks=0, width=1)
    return {(m.part, m.coordinate): m for m in spec(**changes).measure(teacher, student, SIZE, sigma=0.1, seed=0)}


@pytest.fixture(scope="module")
def found():
    return measure()


def exact_shells(sigma):
    """Shell sums of ``|(C + v)^-1|`` on the ring, from its spectrum."""
    k = 2 * math.pi * torch.arange(SIZE) / SIZE
    row = torch.fft.ifft(1 / (1 / (0.25 + 2 - 2 * k.cos()) + sigma**2)).real.abs()
    return torch.stack([row[0], *(2 * row[1 : SIZE // 2]), row[SIZE // 2]])


@pytest.mark.parametrize("sigma", SIGMAS)
def test_ranges_and_totals_of_a_gaussian_field(found, sigma):
    shells = exact_shells(sigma)
    assert math.isclose(found["total", sigma].value, float(shells[1:].sum()), rel_tol=1e-9)
    for epsilon in (0.2, 0.05):
        assert found[f"range_{epsilon}", sigma].value == ResponseProfile(shells).effective_range(epsilon)
    share = shells.square() / torch.tensor([1.0, *[2.0] * 7, 1.0])
    assert math.isclose(found["outside_share_2", sigma].value, float(share[3:].sum() / share.sum()), rel_tol=1e-9)


def test_the_range_of_a_gaussian_field_is_the_smaller_of_correlation_length_and_noise():
    r"""On a line the response decays as exp(-a d) with 2 cosh a = 2 + m^2 + 1/v: a is about max(m, 1/sigma)."""
    teacher = st.teacher("gaussian", dim=1, mass=0.5).double().frozen()
    student = st.student("cnn", teacher.field, blocks=0, width=1)
    levels = (0.3, 1.0, 5.0)
    measured = spec(sigmas=levels, sites=4, posterior={**POSTERIOR, "max_r_hat": 1.5, "min_effective": 10})
    rows = measured.measure(teacher, student, 32, sigma=0.1, seed=0)
    ranges = {m.coordinate: m.value for m in rows if m.part == "range_0.05"}
    expected = {v: math.ceil(math.log(20) / math.acosh(1 + (0.25 + v**-2) / 2)) for v in levels}
    assert ranges == expected
    assert list(expected.values()) == [2, 3, 6]


@pytest.mark.parametrize("sigma", SIGMAS)
def test_profiles_lie_at_the_exact_one(found, sigma):
    exact = exact_shells(sigma) / torch.tensor([1.0, *[2.0] * 7, 1.0])
    for distance in range(3):
        for part in ("profile", "profile_rms"):
            estimate = found[f"{part}_{sigma:g}", float(distance)]
            assert math.isclose(estimate.value, float(exact[distance]), rel_tol=1e-9)


def clean(found, part):
    (value,) = [m.value for (name, _), m in found.items() if name == part]
    return value


def test_the_clean_range_and_the_diagnostics(found):
    assert clean(found, "clean_range_0.2") == clean(found, "clean_range_0.05") == 1
    assert math.isclose(clean(found, "clean_total"), 2.0, rel_tol=1e-9)  # two neighbours, unit couplings
    for sigma in SIGMAS:
        assert found["mixed", sigma].value == 1
        assert found["r_hat", sigma].value < 1.2
        assert found["effective", sigma].value > 40
        assert 0.6 < found["acceptance", sigma].value < 1


def test_a_level_that_has_not_mixed_has_no_range_but_its_diagnostics():
    refused = measure(sigmas=(1.0,), posterior={**POSTERIOR, "min_effective": 1e6})
    assert math.isnan(refused["range_0.05", 1.0].value)
    assert refused["range_0.05", 1.0].n == 0
    assert refused["mixed", 1.0].value == 0
    assert refused["effective", 1.0].value < 1e4
    assert ("total", 1.0) not in refused


def test_a_tail_lost_in_noise_has_no_range():
    noisy = spec(epsilons=(1e-3,))
    shells = torch.tensor([[1.0, 1.0, 0.01], [1.0, 1.0, -0.02], [1.0, 1.0, 0.03]])
    (estimate,) = noisy._ranges(shells, "range", 1.0)
    assert math.isnan(estimate.value)
    (estimate,) = noisy._ranges(shells * torch.tensor([1.0, 1.0, 0.0]), "range", 1.0)
    assert estimate.value == 1
    (estimate,) = noisy._ranges(torch.tensor([[1.0, 1.0, 0.4], [1.0, 1.0, 0.5], [1.0, 1.0, 0.6]]), "range", 1.0)
    assert estimate.value == 2
    (estimate,) = noisy._ranges(torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3), "clean_range", math.nan)
    assert estimate.value == 0


# --- figure -------------------------------------------------------------------------------------------------------


class Measure(SmoothedResponseSpec):
    """The kind alone matters to the report."""


def run_with(path, rows):
    experiment = make_experiment(teachers=("a", "b"), students=("R=4",), sizes=(24,))
    evaluation = experiment.evaluation.model_copy(update={"measures": {"smooth": Measure()}})
    experiment = experiment.model_copy(update={"evaluation": evaluation})
    return gather(SyntheticRun(path, experiment, pd.DataFrame([record(measure="smooth", **row) for row in rows])))


@pytest.mark.parametrize(("mixed", "reason"), [(0.0, "not mixed"), (1.0, "lost in noise")])
def test_the_figure_draws_a_line_for_each_teacher_that_begins_at_its_clean_range(tmp_path, mixed, reason):
    rows = []
    for teacher, ranges in (("a", (2.0, 4.0)), ("b", (6.0, math.nan))):
        rows += [
            {"teacher": teacher, "part": "range_0.05", "coordinate": sigma, "value": value}
            for sigma, value in zip((0.1, 1.0), ranges, strict=True)
        ]
        rows += [{"teacher": teacher, "part": "r_hat", "coordinate": sigma, "value": 1.0} for sigma in (0.1, 1.0)]
        rows += [{"teacher": teacher, "part": "mixed", "coordinate": sigma, "value": mixed} for sigma in (0.1, 1.0)]
        rows += [{"teacher": teacher, "part": "range_0.01", "coordinate": 0.1, "value": 9.0}]
        rows += [{"teacher": teacher, "part": "clean_range_0.05", "value": ranges[0] + 1}]
        rows += [{"teacher": teacher, "part": "outside_share_4", "coordinate": 0.1, "value": 0.1}]
    with style.drawing():
        drawing = draw("smoothed-range", run_with(tmp_path, rows))
        (axes,) = drawing.figure.axes
    drawn = {container.get_label(): str(container[0].get_ydata().tolist()) for container in axes.containers}
    assert drawn == {"a": "[3.0, 2.0, 4.0]", "b": "[7.0, 6.0, nan]"}
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [4.0]
    assert [len(line.get_xdata()) for line in axes.lines if line.get_marker() == "x"] == [0, 1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["clean", "0.1", "1"]
    assert "5 %" in drawing.caption
    assert f"at sigma = 0.1, 1: a 3, 2, 4; b 7, 6, none ({reason})." in drawing.caption


@pytest.mark.parametrize("radius", [4, 12])
def test_every_radius_is_in_the_picture_also_beyond_half_the_lattice(tmp_path, radius):
    rows = [{"teacher": "a", "part": part, "value": 2.0} for part in ("clean_range_0.05",)]
    rows += [{"teacher": "a", "part": part, "coordinate": 0.1, "value": 2.0} for part in ("range_0.05", "r_hat")]
    rows += [{"teacher": "a", "part": f"outside_share_{radius}", "coordinate": 0.1, "value": 0.1}]
    with style.drawing():
        (axes,) = draw("smoothed-range", run_with(tmp_path, rows)).figure.axes
    assert axes.get_ylim()[1] > radius
    assert [text.get_text() for text in axes.texts] == [f"$R$ = {radius}"]


def test_a_run_without_any_answer_says_so(tmp_path):
    rows = [{"teacher": "a", "part": "clean_range_0.05", "value": 2.0}]
    parts = {"range_0.05": math.nan, "r_hat": 3.0, "mixed": 0.0}
    rows += [{"teacher": "a", "part": part, "coordinate": 0.1, "value": value} for part, value in parts.items()]
    with style.drawing():
        drawing = draw("smoothed-range", run_with(tmp_path, rows))
    assert "at sigma = 0.1: a 2, none (not mixed); b none (unknown), none (not mixed)." in drawing.caption


def test_a_run_without_the_measure_has_no_figure(tmp_path):
    with style.drawing():
        assert isinstance(draw("smoothed-range", run_with(tmp_path, [{"part": "other"}])), Omitted)
