"""The figure of generated fields by class of sites, on a run whose numbers are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic_run import SyntheticRun, make_experiment, record

from sizetransfer.drawing import Omitted, style
from sizetransfer.measures.conditional_generation import ConditionalGenerationSpec
from sizetransfer.report.data import gather
from sizetransfer.report.drawn import draw

TEACHERS = ("local", "wide")
CLASSES = [("motif", "bent", "mean", 1), ("motif", "path-end", "mean", 0), ("motif", "path-end", "variance", 0)]
CLASSES += [("pairs", "bonded", "covariance", 0)]
# Divisions as they come, classes by their index, observables as they come.
ROWS = ["motif path-end: mean", "motif path-end: variance", "motif bent: mean", "bonded pairs: covariance"]
PLACES = [2, 0, 1, 3]
DEVIATIONS = [0.1, -0.2, 0.3, -0.4]


def make(tmp_path, *, students=("R=4",), sizes=(8, 16), largest=0.0, measures=("generation", "exact-start")):
    experiment = make_experiment(teachers=TEACHERS, students=students, seeds=(0, 1), sizes=sizes, train_size=8)
    specs = {
        "generation": ConditionalGenerationSpec(start="matched"),
        "exact-start": ConditionalGenerationSpec(start="exact"),
    }
    evaluation = experiment.evaluation.model_copy(update={"measures": {name: specs[name] for name in measures}})
    experiment = experiment.model_copy(update={"evaluation": evaluation})
    rows = []
    for measure, teacher, student, seed, size in (
        (m, t, s, seed, size) for m in measures for t in TEACHERS for s in students for seed in (0, 1) for size in sizes
    ):
        common = {"measure": measure, "teacher": teacher, "student": student, "seed": seed, "size": size}
        common["radius"] = int(student.removeprefix("R="))
        for (division, name, observable, index), deviation in zip(CLASSES, DEVIATIONS, strict=True):
            part, scale = f"{division}/{name}/{observable}", 8 / size
            value = scale * (deviation + largest) * (1 + 0.1 * (2 * seed - 1))
            rows.append(record(**common, part=f"{part}/deviation", coordinate=index, value=value))
            error = 0.03 if seed else 0.04
            rows.append(
                record(**common, part=f"{part}/control", coordinate=index, value=9.0, standard_error=scale * error)
            )
        rows.append(record(**common, part="observable_mae", value=0.8 / size))
    return SyntheticRun(tmp_path, experiment, pd.DataFrame(rows))


def drawn(run):
    with style.drawing():
        return draw("conditional-generation", gather(run))


def markers(axes):
    """Values by the label of the series, in the order of the rows from the top."""
    found = {}
    for container in axes.containers:
        if hasattr(container, "has_xerr"):
            line = container.lines[0]
            order = np.argsort(line.get_ydata())
            found[container.get_label()] = np.asarray(line.get_xdata(), dtype=float)[order]
    return found


def test_every_measure_has_a_row_and_every_teacher_a_column(tmp_path):
    drawing = drawn(make(tmp_path))
    axes = drawing.figure.axes
    assert len(axes) == 4
    assert [one.get_title(loc="left") for one in axes] == [*TEACHERS, *TEACHERS]
    assert axes[0].get_title() == "generation: from white noise of matched variance"
    assert axes[2].get_title() == "exact-start: from exact fields with noise"
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ROWS
    assert "same labels" in drawing.caption
    assert "(2 seeds)" in drawing.caption


def test_deviations_are_the_means_over_seeds_of_each_size(tmp_path):
    for axes in drawn(make(tmp_path)).figure.axes:
        expected = np.array(DEVIATIONS)[np.argsort(PLACES)]
        found = markers(axes)
        assert list(found) == ["L = 8", "L = 16"]
        np.testing.assert_allclose(found["L = 8"], expected)
        np.testing.assert_allclose(found["L = 16"], expected / 2)


def test_bands_are_two_errors_of_the_control_at_each_size(tmp_path):
    axes = drawn(make(tmp_path)).figure.axes[0]
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    half = 2 * np.hypot(0.03, 0.04) / 2
    np.testing.assert_allclose(bars, [(-half, 2 * half)] * 4 + [(-half / 2, half)] * 4)


def test_several_students_are_compared_at_the_largest_size(tmp_path):
    axes = drawn(make(tmp_path, students=("R=4", "R=8"))).figure.axes[0]
    found = markers(axes)
    assert list(found) == ["R = 4, L = 16", "R = 8, L = 16"]
    assert len(axes.patches) == 4  # the exact fields of a size are the same for every student
    np.testing.assert_allclose(found["R = 4, L = 16"], np.array(DEVIATIONS)[np.argsort(PLACES)] / 2)


@pytest.mark.parametrize(("largest", "scale"), [(0.0, "linear"), (40.0, "symlog")])
def test_large_deviations_are_on_a_logarithmic_axis(tmp_path, largest, scale):
    assert {axes.get_xscale() for axes in drawn(make(tmp_path, largest=largest)).figure.axes} == {scale}


def test_errors_of_all_classes_against_the_size_are_in_the_figure_generation(tmp_path):
    with style.drawing():
        drawing = draw("generation", gather(make(tmp_path)))
    assert len(drawing.figure.axes) == 2
    assert "by class of sites" in drawing.caption


def test_without_classes_it_is_omitted(tmp_path):
    run = make(tmp_path, measures=("generation",))
    other = SyntheticRun(run.path, run.experiment, run.records[run.records["part"] == "observable_mae"])
    nothing = drawn(other)
    assert isinstance(nothing, Omitted)
    assert "by class of sites" in nothing.reason
    for empty in (run.records[:0], pd.DataFrame()):
        assert isinstance(drawn(SyntheticRun(run.path, run.experiment, empty)), Omitted)
