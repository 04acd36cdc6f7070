"""Figures and tables that follow from declarations, and what goes wrong in the figures of plugins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pandas as pd
import pytest
from synthetic_run import SyntheticRun, make_experiment, record

from sizetransfer.contracts.parts import Part
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.drawing import Drawing, Omitted, style
from sizetransfer.drawing.axes import AXES
from sizetransfer.registry import Registry
from sizetransfer.registry.plugins import Plugin, PluginRecord
from sizetransfer.report.data import gather
from sizetransfer.report.default_figures import default_figures
from sizetransfer.report.drawn import draw
from sizetransfer.report.profiles import profile_tables


class PaletteSpec(MeasureSpec):
    """A part for every axis."""

    kind: Literal["palette"] = "palette"
    parts: ClassVar[Mapping[str, Part]] = {
        **{f"by_{axis}": Part("evidence", f"a number by {axis}", axis, "field") for axis in AXES},
        "steep": Part("evidence", "a steep number", "radius", logarithmic=True, lower_is_better=True),
        "plain": Part("evidence", "a plain number"),
    }

    def measure(self, teacher, student, size, *, sigma, seed):
        raise AssertionError("nothing is measured here")


class DrawnSpec(PaletteSpec):
    kind: Literal["drawn"] = "drawn"
    figures: ClassVar[tuple[str, ...]] = ("regimes",)


def run_of(path, *rows, measures=None, teachers=("one",), students=("R=4", "R=8")):
    experiment = make_experiment(
        teachers=teachers, students=students, seeds=(0,), measures=measures or {"colours": PaletteSpec()}
    )
    common: dict[str, Any] = {"teacher": teachers[0], "measure": "colours", "student": students[0]}
    return gather(SyntheticRun(path, experiment, pd.DataFrame([record(**{**common, **row}) for row in rows])))


def row(part, coordinate, value, **more):
    return {"part": part, "coordinate": coordinate, "value": value, "standard_error": 0.1, **more}


@pytest.fixture
def drawn():
    with style.drawing():
        yield lambda data: {one.name: one for one in default_figures(data)}


@pytest.mark.parametrize("axis", sorted(set(AXES) - {"size"}))
def test_values_are_drawn_against_their_axis(drawn, tmp_path, axis):
    rows = [row(f"by_{axis}", place, 10 * place) for place in (2.0, 1.0)]
    figure = drawn(run_of(tmp_path, *rows))[f"colours-by-{axis}"]
    (axes,) = figure.figure.axes
    (line,) = axes.containers
    assert list(line[0].get_xdata()) == [1, 2]
    assert list(line[0].get_ydata()) == [10, 20]
    assert axes.get_xscale() == ("log" if axis in ("noise", "threshold") else "linear")
    assert axes.get_ylabel().replace("\n", " ") == f"a number by {axis} (field)"
    bars = line[2][0].get_segments()
    assert bars[0][1][1] - bars[0][0][1] == pytest.approx(0.2)


def test_a_part_whose_axis_is_the_size_is_drawn_against_the_size_of_its_records(drawn, tmp_path):
    rows = [row("by_size", math.nan, size / 10, size=size) for size in (24, 64)]
    (axes,) = drawn(run_of(tmp_path, *rows))["colours-by-size"].figure.axes
    assert list(axes.containers[0][0].get_xdata()) == [24, 64]
    assert axes.get_xscale() == "log"


def test_the_clean_score_stands_left_of_the_noise_levels(drawn, tmp_path):
    (axes,) = drawn(run_of(tmp_path, *(row("by_noise", s, 1.0) for s in (0.0, 0.5, 2.0))))[
        "colours-by-noise"
    ].figure.axes
    left, *rest = axes.containers[0][0].get_xdata()
    assert 0 < left < 0.5
    assert rest == [0.5, 2.0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["clean", "0.5", "2"]


def test_a_panel_for_each_teacher_and_part_a_line_for_each_student_at_the_largest_size(drawn, tmp_path):
    teachers = tuple("abcd")
    rows = [
        row(part, float(radius), 1.0 + size, teacher=teacher, student=student, size=size)
        for part in ("by_radius", "steep")
        for radius in (1, 2)
        for teacher in teachers
        for student in ("R=4", "R=8")
        for size in (24, 64)
    ]
    figure = drawn(run_of(tmp_path, *rows, teachers=teachers))["colours-by-radius"]
    panels = figure.figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == [*teachers, *teachers]
    for axes in panels:
        assert [line.get_label() for line in axes.containers] == ["R=4", "R=8"]
        assert all(list(line[0].get_ydata()) == [65, 65] for line in axes.containers)
    assert [axes.get_yscale() for axes in panels] == ["linear"] * 4 + ["log"] * 4
    assert "at the largest size measured (L = 64). Lower is better: steep. Error bars" in figure.caption


def test_what_has_no_axis_or_one_place_or_no_finite_value_is_not_drawn(drawn, tmp_path):
    rows = [row("plain", math.nan, 1.0), row("by_radius", 1.0, 1.0), row("steep", 1.0, -1.0), row("steep", 2.0, 0.0)]
    rows += [row("by_distance", place, math.inf) for place in (1.0, 2.0)]
    assert drawn(run_of(tmp_path, *rows)) == {}


def test_a_measure_that_names_a_figure_of_its_own_gets_no_other(drawn, tmp_path):
    rows = [row("by_radius", place, 1.0) for place in (1.0, 2.0)]
    assert drawn(run_of(tmp_path, *rows, measures={"colours": DrawnSpec()})) == {}


def test_values_that_are_all_alike_are_drawn_with_room_around_them(drawn, tmp_path):
    for value, limits in ((0.0, (-1, 1)), (4.0, (2, 6))):
        data = run_of(tmp_path, *(row("by_radius", place, value, standard_error=0.0) for place in (1.0, 2.0)))
        (axes,) = drawn(data)["colours-by-radius"].figure.axes
        assert axes.get_ylim() == limits


def test_a_title_names_one_part_or_two(drawn, tmp_path):
    rows = [row(part, place, 1.0) for part in ("by_radius", "steep") for place in (1.0, 2.0)]
    assert drawn(run_of(tmp_path, *rows))["colours-by-radius"].title == (
        "Colours: a number by radius and a steep number, by radius"
    )


def test_names_of_measures_become_names_of_files(drawn, tmp_path):
    names = ("a/b", "a b")
    rows = [row("by_radius", place, 1.0, measure=name) for place in (1.0, 2.0) for name in names]
    found = drawn(run_of(tmp_path, *rows, measures={name: PaletteSpec() for name in names}))
    assert list(found) == ["a-b-by-radius", "a-b-by-radius-2"]


def test_the_table_of_a_profile_by_hand(tmp_path):
    rows = [row("by_noise", 0.0, 1.0), row("by_noise", 0.5, 2.0), row("by_noise", 0.5, 3.0, student="R=8", radius=8)]
    rows += [row("by_noise", 0.5, 4.0, size=64), row("unheard_of", 1.0, 5.0)]
    table, undeclared = profile_tables(run_of(tmp_path, *rows))
    assert (table.part, table.axis, table.label) == ("by_noise", "noise level σ", "a number by noise (field)")
    assert table.coordinates == ["clean", "0.5"]
    assert table.rows == [
        ("one", "R = 4", 24, "1", ["1.00 ± 0.10", "2.00 ± 0.10"]),
        ("one", "R = 4", 64, "1", ["–", "4.00 ± 0.10"]),
        ("one", "R = 8", 24, "1", ["–", "3.00 ± 0.10"]),
    ]
    assert (undeclared.part, undeclared.axis, undeclared.label) == ("unheard_of", "coordinate", "")


class ClassesSpec(MeasureSpec):
    """A number for each class, declared beforehand or named by the parts."""

    kind: Literal["classes"] = "classes"
    parts: ClassVar[Mapping[str, Part]] = {
        "mean": Part("evidence", "a mean", "class", classes=("corner", "edge", "inside")),
        "*/{class}/mean": Part("evidence", "a mean of a class", "class"),
    }

    def measure(self, teacher, student, size, *, sigma, seed):
        raise AssertionError("nothing is measured here")


def classes(tmp_path, *rows):
    return run_of(tmp_path, *rows, measures={"colours": ClassesSpec()}, students=("R=4",))


ROWS_OF_CLASSES = {
    "mean": [row("mean", 0.0, 1.0), row("mean", 2.0, 2.0)],
    "sites/{class}/mean": [row("sites/inside/mean", 2.0, 2.0), row("sites/corner/mean", 0.0, 1.0)],
}


@pytest.mark.parametrize("name", ROWS_OF_CLASSES)
def test_classes_have_their_names_in_tables_and_figures(drawn, tmp_path, name):
    data = classes(tmp_path, *ROWS_OF_CLASSES[name])
    (table,) = profile_tables(data)
    assert (table.part, table.axis, table.coordinates) == (name, "class", ["corner", "inside"])
    assert [values for *_, values in table.rows] == [["1.00 ± 0.10", "2.00 ± 0.10"]]
    (axes,) = drawn(data)["colours-by-class"].figure.axes
    ticks = dict(zip(axes.get_xticks(), [one.get_text() for one in axes.get_xticklabels()], strict=True))
    assert ticks == {0.0: "corner", 2.0: "inside"}
    (line,) = axes.containers
    assert list(line.lines[0].get_ydata()) == [1.0, 2.0]


def test_divisions_of_sites_are_profiles_of_their_own(tmp_path):
    data = classes(
        tmp_path, row("sites/a/mean", 0.0, 1.0), row("pairs/a/mean", 0.0, 2.0), row("pairs/b/mean", 1.0, 3.0)
    )
    found = {table.part: table.coordinates for table in profile_tables(data)}
    assert found == {"sites/{class}/mean": ["a"], "pairs/{class}/mean": ["a", "b"]}


def test_a_class_without_a_name_keeps_its_number(tmp_path):
    (table,) = profile_tables(classes(tmp_path, row("mean", 1.0, 1.0), row("mean", 3.0, 1.0)))
    assert table.coordinates == ["edge", "3"]


# --- figures of plugins -----------------------------------------------------------------------------------------------


def broken(data):
    raise ZeroDivisionError("by a plugin")


def leaving(data):
    raise SystemExit(3)


def misnamed(data):
    return Drawing("another", "A title", "A caption", style.new_figure(1, 1))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (broken, "painter 1.2 failed to draw it: ZeroDivisionError: by a plugin"),
        (leaving, "painter 1.2 failed to draw it: SystemExit: 3"),
        (misnamed, "which is no Drawing named 'bars'"),
        (len, "painter 1.2 failed to draw it: TypeError"),
        (lambda data: None, "painter 1.2 drew None"),
        (lambda data: Omitted("bars", "nothing there"), "nothing there"),
    ],
)
def test_what_goes_wrong_in_a_plugins_figure_is_why_it_is_not_drawn(tmp_path, function, reason):
    found = Registry(built_in=(), find_plugins=list)
    plugin = found_plugin()
    found._add("figure", "bars", function, plugin)
    omitted = draw("bars", run_of(tmp_path), registry=found)
    assert isinstance(omitted, Omitted)
    assert reason in omitted.reason


def found_plugin():
    return Plugin(PluginRecord("painter", "1.2", "main", "painter"))
