"""The figures of critical spins: what is drawn where, for records made up and for a run of the experiment itself."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from synthetic_run import DummyTeacherSpec, SyntheticRun, make_experiment, record

import sizetransfer as st
from sizetransfer.drawing import Omitted, style
from sizetransfer.measures.shell_response import ShellResponseSpec
from sizetransfer.report.data import gather
from sizetransfer.report.drawn import draw
from sizetransfer.runs.loading import load
from sizetransfer.systems.ising import CRITICAL
from sizetransfer.systems.ising.figures import CouplingAxis
from sizetransfer.systems.ising.teacher import IsingTeacherSpec
from sizetransfer.systems.ising.zero_field_measure import ZeroFieldSpec

# In no order, and with names that say nothing of the coupling.
COUPLINGS = {"hot": 0.5, "critical": 1.0, "warm": 0.9}
SIGMAS, SIZES = (0.5, 2.0), (8, 16, 32)
BASE = {"exact": 3.0, "local": 2.0, "student": 1.0}


def responses(teacher, ratio, student="R=4", scale=1.0):
    common = {"teacher": teacher, "measure": "shells", "size": 10, "student": student, "radius": int(student[2:])}
    for sigma in SIGMAS:
        for prefix, amount in (("zero_", 100.0), ("", 1.0)):
            for name, base in BASE.items():
                value = (base + ratio) * amount * (scale if name == "student" else 1.0)
                error = {"standard_error": 0.0 if prefix else 0.1, "n": 1 if prefix else 8}
                yield record(**common, part=f"{prefix}shell_{name}", coordinate=sigma, value=value, **error)
            for radius in range(5):
                part = f"{prefix}tail_exact_{sigma:g}"
                yield record(**common, part=part, coordinate=float(radius), value=amount * ratio * 0.1**radius)
            part = f"{prefix}correlation_length"
            yield record(**common, part=part, coordinate=sigma, value=ratio * (5.0 if prefix else sigma))
        yield record(**common, part="student_error", coordinate=sigma, value=0.2)
        yield record(**common, part="local_error_4", coordinate=sigma, value=0.02)


def zero_field(teacher, ratio):
    for size in SIZES:
        common = {"teacher": teacher, "measure": "clean", "size": size, "radius": 4, "standard_error": 0.0, "n": 1}
        value = 3 * size**1.75 if ratio == 1 else 2.0
        yield record(**common, part="susceptibility", value=value)
        yield record(**common, part="budget", value=10 * value)
        for radius in (2.0, 4.0):
            yield record(**common, part="outside", coordinate=radius, value=value / radius if size > 8 else 0.0)


def run_with(path, rows, teachers=None, students=("R=4",)):
    experiment = make_experiment(teachers=tuple(teachers or COUPLINGS), students=students, sizes=SIZES)
    measures = {"clean": ZeroFieldSpec(sigma_min=0.3, sigma_max=3.0), "shells": ShellResponseSpec(probe=2)}
    specs = teachers or {name: IsingTeacherSpec(beta=ratio * CRITICAL) for name, ratio in COUPLINGS.items()}
    evaluation = experiment.evaluation.model_copy(update={"measures": measures})
    experiment = experiment.model_copy(update={"evaluation": evaluation, "teachers": specs})
    return gather(SyntheticRun(path, experiment, pd.DataFrame(rows)))


def drawn(name, data):
    with style.drawing():
        return draw(name, data)


def curves(axes):
    """Ordinates of the lines with error bars, in the order in which they were drawn."""
    return [[round(float(y), 9) for y in container[0].get_ydata()] for container in axes.containers]


def all_responses(**options):
    return [row for teacher, ratio in COUPLINGS.items() for row in responses(teacher, ratio, **options)]


# --- responses ----------------------------------------------------------------------------------------------------


def test_teachers_stand_at_their_couplings(tmp_path):
    axis = CouplingAxis.of(run_with(tmp_path, all_responses()), list(COUPLINGS))
    assert list(axis.places) == ["hot", "warm", "critical"]
    assert list(axis.places.values()) == pytest.approx([0.5, 0.9, 1.0])
    assert axis.critical() == ["critical"]


def test_shells_exact_at_best_and_learned(tmp_path):
    drawing = drawn("ising-response", run_with(tmp_path, all_responses()))
    axes = drawing.figure.axes
    assert len(axes) == 2 * len(SIGMAS) + 3
    titles = [ax.get_title(loc="left") for ax in axes[:4]]
    assert [("0.5" in t, "x = 0" in t) for t in titles] == [(True, True), (True, False), (False, True), (False, False)]
    for panel, amount in zip(axes[:4], (100, 1, 100, 1), strict=True):
        assert curves(panel) == [[round((base + c) * amount, 9) for c in (0.5, 0.9, 1.0)] for base in BASE.values()]
        assert panel.containers[0][0].get_xdata() == pytest.approx([0.5, 0.9, 1.0])
        assert "distance 2" in panel.get_ylabel()
    bars = axes[1].containers[0][2][0].get_segments()
    assert [float(bar[1, 1] - bar[0, 1]) for bar in bars] == pytest.approx([0.2] * 3)


def test_errors_of_what_is_not_trained_are_those_over_the_fields_of_all_seeds(tmp_path):
    # Two seeds that agree by chance: their distance says little of forty fields.
    rows = [{**row, "seed": seed} for row in all_responses() for seed in (0, 1)]
    exact, _, learned = drawn("ising-response", run_with(tmp_path, rows)).figure.axes[1].containers

    def lengths(container):
        return [float(bar[1, 1] - bar[0, 1]) for bar in container[2][0].get_segments()]

    assert lengths(exact) == pytest.approx([0.2 / math.sqrt(2)] * 3)
    assert lengths(learned) == pytest.approx([0.0] * 3)


def test_tails_lengths_and_errors(tmp_path):
    drawing = drawn("ising-response", run_with(tmp_path, all_responses()))
    tails, lengths, errors = drawing.figure.axes[-3:]
    couplings = (0.5, 0.9, 1.0)
    assert curves(tails) == [[pytest.approx(a * c * 1e-4) for c in couplings] for a in (100, 1)] * len(SIGMAS)
    assert curves(lengths) == [[round(c * s, 9) for c in couplings] for s in (*SIGMAS, 5.0)]
    assert [line.get_ydata()[0] for line in lengths.lines if line.get_linestyle() == ":"] == [4]
    assert curves(errors) == [[0.2] * 3, [0.02] * 3] * len(SIGMAS)


def test_the_caption_has_the_numbers_of_the_last_coupling_and_tells_exact_from_estimated(tmp_path):
    caption = drawn("ising-response", run_with(tmp_path, all_responses())).caption
    assert "At β/βc = 1: at x = 0, σ = 0.5: 400 exactly, 300 at best, 200 learned" in caption
    assert "at noisy fields, σ = 2: 4 ± 0.1 exactly, 3 ± 0.1 at best, 2 ± 0.1 learned" in caption
    assert "exact at each field, and means over fields are estimates" in caption
    assert "distance 2" in caption
    assert "Error bars" in caption


def test_every_student_has_a_line_of_its_own(tmp_path):
    rows = all_responses() + all_responses(student="R=8", scale=2.0)
    drawing = drawn("ising-response", run_with(tmp_path, rows, students=("R=4", "R=8")))
    panel = drawing.figure.axes[1]
    assert "2 ± 0.1 learned by R = 4" in drawing.caption
    assert "4 ± 0.1 learned by R = 8" in drawing.caption
    students = [[round((1 + c) * scale, 9) for c in (0.5, 0.9, 1.0)] for scale in (1, 2)]
    assert curves(panel)[-2:] == students


def test_no_student_is_left_out_for_want_of_markers(tmp_path):
    students = tuple(f"R={radius}" for radius in range(1, len(style.MARKERS) + 1))
    rows = [row for student in students for row in all_responses(student=student)]
    drawing = drawn("ising-response", run_with(tmp_path, rows, students=students))
    shells, errors = drawing.figure.axes[0], drawing.figure.axes[-1]
    assert len(curves(shells)) == 1 + 2 * len(students)
    assert len(curves(errors)) >= len(SIGMAS) * len(students)
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert sum(label.startswith("learned") for label in labels) == len(students)


def test_teachers_without_a_coupling_stand_under_their_names(tmp_path):
    teachers = {name: DummyTeacherSpec(seed=index) for index, name in enumerate(("b", "a"))}
    rows = [row for name in teachers for row in responses(name, 1.0)]
    drawing = drawn("ising-response", run_with(tmp_path, rows, teachers=teachers))
    assert [tick.get_text() for tick in drawing.figure.axes[0].get_xticklabels()] == ["b", "a"]
    assert {line.get_linestyle() for line in drawing.figure.axes[0].lines if line.get_marker() == "o"} == {"None"}
    assert "At a: at x = 0" in drawing.caption
    # So do teachers of one coupling, which would lie on each other.
    twins = {"torus": IsingTeacherSpec(), "box": IsingTeacherSpec(boundary="open")}
    assert not CouplingAxis.of(run_with(tmp_path, rows, teachers=twins), list(twins)).coupled


def test_a_radius_that_sees_everything_leaves_an_empty_tail_that_says_so(tmp_path):
    rows = [row for row in all_responses() if "tail" not in row["part"] or row["coordinate"] < 4]
    tails = drawn("ising-response", run_with(tmp_path, rows)).figure.axes[-3]
    assert [text.get_text() for text in tails.texts] == ["every site is within reach"]


def test_teachers_without_a_best_local_score_are_drawn_without_it(tmp_path):
    rows = [row for row in all_responses() if "local" not in row["part"]]
    drawing = drawn("ising-response", run_with(tmp_path, rows))
    assert len(curves(drawing.figure.axes[0])) == 2
    assert "at best" not in drawing.caption


# --- sizes --------------------------------------------------------------------------------------------------------


def all_zero_fields():
    return [row for teacher, ratio in COUPLINGS.items() for row in zero_field(teacher, ratio)]


def test_susceptibility_tails_and_budgets_against_the_size(tmp_path):
    drawing = drawn("ising-size", run_with(tmp_path, all_zero_fields()))
    susceptibility, tails, budget = drawing.figure.axes
    hot, warm, critical, guide = (list(map(float, line.get_ydata())) for line in susceptibility.lines)
    assert hot == warm == [2.0] * 3
    assert critical == pytest.approx([3 * size**1.75 for size in SIZES])
    assert math.log(guide[-1] / guide[0]) / math.log(4) == pytest.approx(1.75)
    assert [list(map(float, line.get_xdata())) for line in tails.lines[:1]] == [[16.0, 32.0]]  # zero at L = 8
    assert list(map(float, tails.lines[0].get_ydata())) == [0.5, 0.5]  # beyond the radius 4 of the student
    assert list(map(float, budget.lines[0].get_ydata())) == [20.0] * 3
    caption = drawing.caption
    assert "L = 16 and 32 is β/βc = 0.5: 0.000; β/βc = 0.9: 0.000; β/βc = 1: 1.750" in caption
    assert "certificate" in caption
    assert "between σ = 0.3 and 3" in caption


def test_without_the_critical_coupling_there_is_no_guide(tmp_path):
    rows = [row for row in all_zero_fields() if row["teacher"] != "critical"]
    drawing = drawn("ising-size", run_with(tmp_path, rows))
    assert len(drawing.figure.axes[0].lines) == 2
    assert "7/4" not in drawing.caption


def test_antiferromagnets_have_no_panel_of_budgets(tmp_path):
    rows = [{**row, "value": math.nan} if row["part"] == "budget" else row for row in all_zero_fields()]
    drawing = drawn("ising-size", run_with(tmp_path, rows))
    assert len(drawing.figure.axes) == 2
    assert "Theorem 1" not in drawing.caption


def test_runs_without_these_measures_have_no_such_figures(tmp_path):
    data = run_with(tmp_path, [record(teacher="hot")])
    for name in ("ising-response", "ising-size"):
        with style.drawing():
            assert isinstance(draw(name, data), Omitted)
    one_size = [row for row in all_zero_fields() if row["size"] == 8]
    with style.drawing():
        assert isinstance(draw("ising-size", run_with(tmp_path, one_size)), Omitted)


# --- the experiment -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_the_experiment_sweeps_to_the_critical_coupling_and_no_radius_wraps(preset):
    experiment = load("figure4", preset=preset)
    couplings = [spec.coupling / CRITICAL for spec in experiment.teachers.values()]
    assert couplings == pytest.approx([0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
    radii = [spec.build(experiment.trials()[0].teacher.build().field).radius for spec in experiment.students.values()]
    assert radii == [4]
    assert experiment.training.size > 2 * max(radii)
    shells = next(m for m in experiment.evaluation.measures.values() if m.kind == "shell-response")
    assert shells.probe == 3
    noise = experiment.training.noise
    assert noise.sigma_min < min(shells.sigmas) <= max(shells.sigmas) < noise.sigma_max
    assert {8, 64} <= set(experiment.evaluation.sizes)


def test_a_small_run_of_the_experiment_ends_with_both_figures(tmp_path):
    small = {
        "seeds": [0],
        "teachers": {
            "ising-0.50": {"kind": "ising", "beta_over_critical": 0.5},
            "ising-1.00": {"kind": "ising", "beta_over_critical": 1.0},
            **dict.fromkeys(("ising-0.70", "ising-0.80", "ising-0.90", "ising-0.95")),
        },
        "students": {"R=4": {"width": 2}},
        "training": {"size": 10, "steps": 2, "batch": 2},
        "evaluation": {
            "sizes": [6, 8],
            "measures": {
                "shell-response": {"fields": 2, "probe": 2, "sigmas": [1.0], "radii": [1]},
                "smoothed-score": {"fields": 2, "sigmas": [1.0]},
                "linear-references": {"fields": 8, "sigmas": [1.0]},
            },
            "restrict": {"shell-response": [6], "smoothed-score": [6, 8], "linear-references": [6]},
        },
    }
    run = st.run(load("figure4", preset="quick", overrides=small), out=tmp_path / "run", executor="serial")
    records = run.records
    shells = records[(records["part"] == "zero_shell_exact")].set_index("teacher")["value"]
    assert shells["ising-1.00"] > 3 * shells["ising-0.50"]
    assert not run.skipped
    for name in ("ising-response", "ising-size"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").stat().st_size > 10_000
    text = (tmp_path / "run" / "report.html").read_text()
    assert "every site is within reach" not in text
    assert "β/βc = 1" in text
