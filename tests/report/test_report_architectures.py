"""Experiments that compare architectures: optional students, verdicts within a kind, costs, and their figures."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import tiny_zoo
import yaml
from synthetic_run import DummyStudentSpec, SyntheticRun, make_experiment, make_run, record

from sizetransfer.contracts.errors import SpecError
from sizetransfer.drawing import Omitted, style
from sizetransfer.measures.locality import LocalitySpec
from sizetransfer.registry import Registry
from sizetransfer.report import tables
from sizetransfer.report.criteria import regime
from sizetransfer.report.data import gather
from sizetransfer.report.drawn import draw
from sizetransfer.report.page import render_page
from sizetransfer.runs.evidence import cells, verdicts
from sizetransfer.runs.loading import load
from sizetransfer.systems.flow.figure_architectures import group
from sizetransfer.systems.flow.figure_repair import first_break
from sizetransfer.verdict import VerdictSpec, describe

STUDENTS = ("cnn-4", "cnn-8", "other-4", "other-8")
RADII = {"cnn-4": 4, "cnn-8": 8, "other-4": 4, "other-8": 8}
ERRORS = {"cnn-4": 0.20, "cnn-8": 0.20, "other-4": 0.40, "other-8": 0.30}


class OtherSpec(DummyStudentSpec):
    kind: str = "other"


class BlindSpec(DummyStudentSpec):
    condition: str = "none"


# --- optional students ----------------------------------------------------------------------------------------


def write(tmp_path, **changes):
    path = tmp_path / "small.yaml"
    students = {"here": {"kind": "tiny-line", "radius": 1}, "away": {"kind": "message-passing", "depth": 2}}
    path.write_text(yaml.safe_dump({**tiny_zoo.EXPERIMENT, "students": students, **changes}))
    return path


def read(path, **options):
    return load(path, registry=tiny_zoo.registry(), **options)


def test_an_optional_student_that_is_not_installed_is_left_out_with_what_to_install(tmp_path):
    experiment = read(write(tmp_path, optional=["away"]))
    assert list(experiment.students) == ["here"]
    assert "pip install sizetransfer-graph" in experiment.left_out["away"]
    with pytest.raises(SpecError, match="sizetransfer-graph"):
        read(write(tmp_path))


def test_an_optional_teacher_that_is_not_installed_is_left_out(tmp_path):
    teachers = {**tiny_zoo.EXPERIMENT["teachers"], "gone": {"kind": "gone-away"}}
    path = write(tmp_path, teachers=teachers, optional=["gone", "away"])
    experiment = read(path)
    assert list(experiment.teachers) == list(tiny_zoo.EXPERIMENT["teachers"])
    assert set(experiment.left_out) == {"gone", "away"}
    assert "gone-away" in experiment.left_out["gone"]
    assert read(path, overrides={"teachers.gone": None}).left_out.keys() == {"away"}
    with pytest.raises(SpecError, match="gone-away"):
        read(write(tmp_path, teachers=teachers, optional=["away"]))


def test_what_is_left_of_an_experiment_must_be_a_grid(tmp_path):
    with pytest.raises(SpecError, match="teachers"):
        read(write(tmp_path, teachers={"gone": {"kind": "gone-away"}}, optional=["gone", "away"]))


def test_an_optional_student_that_is_there_stays(tmp_path):
    experiment = read(write(tmp_path, optional=["away"]), overrides={"students.away": {"kind": "tiny-line"}})
    assert set(experiment.students) == {"here", "away"}
    assert experiment.left_out == {}
    experiment = read(write(tmp_path, optional=["away", "here"]), overrides={"students.away": None})
    assert list(experiment.students) == ["here"]
    assert experiment.left_out == {}


@pytest.mark.parametrize(("optional", "message"), [(["awry"], "Did you mean 'away'"), ("away", "optional"), ([3], "3")])
def test_a_wrong_list_of_optional_students_is_refused(tmp_path, optional, message):
    with pytest.raises(SpecError, match=message):
        read(write(tmp_path, optional=optional))


def test_what_was_left_out_is_kept_by_the_saved_experiment(tmp_path):
    experiment = read(write(tmp_path, optional=["away"]))
    saved = tmp_path / "experiment.json"
    saved.write_text(experiment.model_dump_json())
    assert read(saved) == experiment


@pytest.mark.parametrize("preset", ["quick", "paper"])
@pytest.mark.parametrize("name", ["architectures", "repair"])
def test_the_experiments_load_without_any_plugin(name, preset):
    experiment = load(name, preset=preset, registry=Registry(find_plugins=list))
    assert set(experiment.left_out) <= set(experiment.optional)
    assert "cnn-8" in experiment.students


# --- verdicts within a kind -----------------------------------------------------------------------------------


REFERENCES = (
    *(("null", 0.9, 0.0), ("site_variance", 1.0, math.nan)),
    *(("correlation_length_squared", 1.0, math.nan),),
)


def make(tmp_path, *, compare="kind", teachers=("medium-range",), far=True):
    experiment = make_experiment(
        teachers=teachers, students=STUDENTS, seeds=(0, 1), sizes=(24, 64), verdict=VerdictSpec(compare=compare)
    )
    students = {name: OtherSpec() if name.startswith("other") else DummyStudentSpec() for name in STUDENTS}
    experiment = experiment.model_copy(update={"students": students})
    rows = []
    for trial in experiment.trials():
        name, seed = trial.student_name, trial.seed
        common = {"teacher": trial.teacher_name, "student": name, "radius": RADII[name], "seed": seed}
        rows += [record(**common, size=size, value=ERRORS[name] * (1 + 0.001 * seed)) for size in (24, 64)]
        for size in (24, 64):
            for part, value, level in (*REFERENCES, ("linear", ERRORS[name], 0.0), ("best", ERRORS[name], 0.0)):
                place = {"measure": "linear-references", "part": part, "coordinate": level, "standard_error": 0.0}
                rows.append(record(**common, size=size, value=value, **place))
        if far:
            rows.append(record(**common, size=64, measure="jacobian", part="far_error", value=4.0 / RADII[name]))
    entries = [
        {
            "teacher": trial.teacher_name,
            "student": trial.student_name,
            "step_seconds": 1e-3 * (1 + trial.seed) * (2 if trial.teacher_name == "medium-range" else 1),
            "training_sites": 100,
            "parameters": 12345,
        }
        for trial in experiment.trials()
    ]
    return SyntheticRun(tmp_path, experiment, pd.DataFrame(rows), manifest={"trials": entries})


def test_students_are_held_against_their_own_kind_or_against_all(tmp_path):
    larger = {}
    for compare in ("kind", "all"):
        run = make(tmp_path, compare=compare)
        found = cells(run.records, run.experiment)
        larger[compare] = {one.student: {each.name for each in one.trainings[0].larger} for one in found}
    assert larger["kind"] == {"cnn-4": {"cnn-8"}, "cnn-8": set(), "other-4": {"other-8"}, "other-8": set()}
    assert larger["all"]["other-4"] == {"cnn-8", "other-8"}
    assert "same kind" in describe(VerdictSpec(compare="kind"))
    assert "same kind" not in describe(VerdictSpec())


# --- costs ----------------------------------------------------------------------------------------------------


def test_costs_are_those_of_the_cheapest_teacher(tmp_path):
    data = gather(make(tmp_path, teachers=("medium-range", "short-range-simple")))
    costs = {cost.student: cost for cost in tables.costs(data)}
    assert set(costs) == set(STUDENTS)
    assert costs["cnn-4"].teacher == "short-range-simple"
    assert costs["cnn-4"].microseconds.value == pytest.approx(15)
    assert costs["cnn-4"].microseconds.standard_error == pytest.approx(5)
    assert tables.cost_rows(data)[0][1] == "12,345"
    page = render_page(data, [], [])
    assert "12,345" in page
    assert 'id="costs"' not in render_page(gather(make_run(tmp_path)), [], [])


def test_the_page_says_what_was_left_out(tmp_path):
    run = make(tmp_path)
    experiment = run.experiment.model_copy(update={"left_out": {"messages": "pip install something"}})
    page = render_page(gather(SyntheticRun(tmp_path, experiment, run.records)), [], [])
    assert "<b>messages</b>: pip install something" in page


# --- figures --------------------------------------------------------------------------------------------------


def drawn(name, run):
    with style.drawing():
        drawing = draw(name, gather(run))
        if not isinstance(drawing, Omitted):
            style.settle(drawing.figure)
    return drawing


def test_an_architecture_is_a_kind_that_looks_at_the_same_things(tmp_path):
    run = make(tmp_path)
    students = {**run.experiment.students, "cnn-8": BlindSpec()}
    run = SyntheticRun(tmp_path, run.experiment.model_copy(update={"students": students}), run.records)
    names = {architecture.name: architecture.students for architecture in group(gather(run))}
    assert names == {
        "dummy-student": ("cnn-4",),
        "dummy-student, no condition": ("cnn-8",),
        "other": ("other-4", "other-8"),
    }


def test_the_figure_has_a_line_for_each_student_and_a_word_for_each_architecture(tmp_path):
    figure = drawn("architectures", make(tmp_path)).figure
    above, below = figure.axes
    found = {one.get_label(): one.lines[0].get_ydata().tolist() for one in above.containers}
    assert found["other-8"] == pytest.approx([0.30015, 0.30015])
    assert set(found) == set(STUDENTS)
    words = {one.get_label() for one in below.containers}
    assert words == {"dummy-student: transfers", "other: radius-limited"}
    assert [text.get_text() for text in below.get_yticklabels()] == ["dummy-student", "other"]


def test_far_responses_stand_at_their_radius_and_costs_beside_them(tmp_path):
    figure = drawn("architecture-responses", make(tmp_path)).figure
    far, cost = figure.axes
    found = {one.get_label(): one.lines[0] for one in far.containers}
    assert found["cnn-4"].get_ydata().tolist() == pytest.approx([1.0])
    assert found["other-8"].get_ydata().tolist() == pytest.approx([0.5])
    assert round(found["other-8"].get_xdata()[0]) == 1
    assert [text.get_text() for text in far.get_xticklabels()] == ["4", "8"]
    assert {one.get_label(): one.patches[0].get_width() for one in cost.containers}["cnn-4"] == pytest.approx(30)
    assert len(drawn("architecture-responses", make(tmp_path, far=False)).figure.axes) == 1


def test_figures_without_their_numbers_are_left_out_with_a_reason(tmp_path):
    experiment = make(tmp_path).experiment
    other = pd.DataFrame([record(student="cnn-4", measure="jacobian", part="near_error")])
    run = SyntheticRun(tmp_path, experiment, other, manifest={})
    for name in ("architectures", "architecture-responses", "repair"):
        assert isinstance(drawn(name, run), Omitted)


def line(errors, spread=0.001, within=0.0):
    values = {"size": list(errors), "value": list(errors.values())}
    return pd.DataFrame({**values, "standard_error": spread, "within": within})


@pytest.mark.parametrize(
    ("errors", "spread", "expected"),
    [
        ({24: 0.2, 32: 0.21, 48: 0.23, 80: 0.5}, 0.001, 48),
        ({24: 0.2, 32: 0.21, 48: 0.23, 80: 0.5}, 0.02, 80),
        ({24: 0.2, 32: 0.19, 48: 0.1, 80: 0.2}, 0.001, None),
        ({16: 0.1, 24: 0.2, 32: 0.21}, 0.001, None),
        ({32: 0.2, 48: 0.9}, 0.001, None),
        ({24: 0.2, 48: 0.9}, math.nan, None),
    ],
)
def test_the_first_size_that_is_worse_beyond_growth_and_significance(errors, spread, expected):
    assert first_break(line(errors, spread), 24, VerdictSpec()) == expected


def test_seeds_that_agree_by_chance_make_no_break():
    """As in the verdicts: 0.3 more, with 0.02 or 0.1 over the fields of both sizes."""
    errors = {24: 0.2, 48: 0.5}
    assert [first_break(line(errors, 0.001, own), 24, VerdictSpec()) for own in (0.02, 0.1)] == [48, None]


def test_the_repair_has_the_least_error_of_a_radius_and_rings_where_it_breaks(tmp_path):
    run = make(tmp_path, teachers=("medium-range", "near-critical"))
    rows = []
    for sigma, error in ((0.05, 0.01), (4.0, 0.1)):
        for size in (24, 64):
            for seed in (0, 1):
                common = {"teacher": "near-critical", "student": "cnn-4", "measure": "locality", "size": size}
                common |= {"coordinate": sigma, "seed": seed}
                rows.append(record(**common, part="student_error", value=error * (size / 24 + 0.001 * seed)))
                rows.append(record(**common, part="locality_error", value=error / 2, standard_error=0.0))
    evaluation = run.experiment.evaluation
    measures = {**evaluation.measures, "locality": LocalitySpec()}
    experiment = run.experiment.model_copy(update={"evaluation": evaluation.model_copy(update={"measures": measures})})
    run = SyntheticRun(tmp_path, experiment, pd.concat([run.records, pd.DataFrame(rows)]))
    drawing = drawn("repair", run)
    clean, critical = drawing.figure.axes[:2]
    assert clean.get_title(loc="left") == "medium-range"
    assert critical.get_title(loc="left") == "near-critical, $\\sigma$ = 4"
    assert "breaks" not in {one.get_label() for one in clean.lines}
    rings = {one.get_xdata()[0] for one in critical.lines if one.get_label() == "breaks"}
    assert rings == {64}
    least = [one.get_ydata().tolist() for one in critical.lines if one.get_label() == "least, R = 4"]
    assert least == [pytest.approx([0.05, 0.05])]


def test_a_regime_of_one_student_is_its_verdict(tmp_path):
    run = make(tmp_path)
    found = {verdict.student: verdict for verdict in verdicts(run.records, run.experiment)}
    assert regime([found["other-4"], found["other-8"]]) == "radius-limited"
    assert regime([found["other-8"]]) == "transfers"
