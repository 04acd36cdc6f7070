"""Figures of open boxes: what is drawn from which record, what is left out, and what the captions say."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from synthetic_run import SyntheticRun, make_experiment, record

from sizetransfer.drawing import Omitted, style
from sizetransfer.report.data import gather
from sizetransfer.report.drawn import draw

TEACHERS = ("local", "wide")
RADII = {"R=4": 4, "R=8": 8}
RATIOS = {"local": 0.01, "wide": 0.9}
SIZES = (12, 16, 24)
BULK = {("local", "R=4"): 0.2, ("local", "R=8"): 0.19, ("wide", "R=4"): 0.5, ("wide", "R=8"): 0.3}


def rows(**changes) -> list[dict]:
    found = []
    for (teacher, student), error in BULK.items():
        common = {"teacher": teacher, "student": student, "radius": RADII[student], "train_size": 12}
        for size in SIZES:
            grown = error * (1 + 0.1 * (size == 24))
            parts = {"relative_rmse": grown, "bulk_relative_rmse": grown, "boundary_relative_rmse": 1.2 * grown}
            parts |= {"margin": changes.get("margin", 4)}
            found += [record(**common, size=size, part=part, value=value) for part, value in parts.items()]
            for wall in range(1, size // 2 + 1):
                part = {"part": "wall_relative_rmse", "coordinate": float(wall), "value": grown + 0.1 / wall}
                found.append(record(**common, size=size, **part))
        for part, value in (
            ("far_to_near_teacher", RATIOS[teacher]),
            ("near_error", 0.3),
            ("far_error", 0.8 if teacher == "wide" else changes.get("far", 1.0)),
        ):
            found.append(record(**common, size=24, measure="response", part=part, value=value))
    return found


def drawn(name: str, tmp_path, records: list[dict], **choices):
    experiment = make_experiment(
        teachers=TEACHERS, students=tuple(RADII), seeds=(0,), sizes=SIZES, train_size=12, **choices
    )
    with style.drawing():
        return draw(name, gather(SyntheticRun(tmp_path, experiment, pd.DataFrame(records))))


def curves(axes) -> dict[str, list[tuple[list[float], list[float], str]]]:
    """Coordinates and style of every labelled line."""
    found: dict = {}
    for container in axes.containers:
        line = container.lines[0]
        entry = (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())), line.get_linestyle())
        found.setdefault(container.get_label(), []).append(entry)
    return found


def test_bulk_is_solid_and_boundary_dashed_in_a_panel_for_each_teacher(tmp_path):
    drawing = drawn("bulk-and-boundary", tmp_path, rows())
    above = curves(drawing.figure.axes[1])
    for student in RADII:
        error = BULK["wide", student]
        values = {look: y for _, y, look in above[student]}
        assert values["-"] == pytest.approx([error, error, 1.1 * error])
        assert values["--"] == pytest.approx([1.2 * error, 1.2 * error, 1.32 * error])
    below = curves(drawing.figure.axes[3])
    x, y, _ = below["R=4"][0]
    assert x == list(range(1, 13))
    assert y == pytest.approx([0.55 + 0.1 / wall for wall in range(1, 13)])
    assert "at least 4 sites between them and every wall" in drawing.caption
    assert "L = 12" in drawing.caption


def test_a_box_without_bulk_has_no_solid_point(tmp_path):
    records = [
        {**row, "value": math.nan} if row["part"] == "bulk_relative_rmse" and row["size"] == 12 else row
        for row in rows()
    ]
    drawing = drawn("bulk-and-boundary", tmp_path, records)
    solid = next(entry for entry in curves(drawing.figure.axes[0])["R=4"] if entry[2] == "-")
    assert solid[0] == [16.0, 24.0]
    second = drawn("far-to-near", tmp_path, records)
    assert "from L = 16, the smallest box with a bulk, to L = 24" in second.caption


def test_margins_that_differ_are_told(tmp_path):
    mixed = [{**row, "value": 2} if row["part"] == "margin" and row["student"] == "R=4" else row for row in rows()]
    assert "differs, from 2 to 4 sites" in drawn("bulk-and-boundary", tmp_path, mixed).caption


def test_errors_stand_at_the_ratio_of_their_teacher(tmp_path):
    drawing = drawn("far-to-near", tmp_path, rows())
    left, middle, right = drawing.figure.axes
    for (teacher, student), error in BULK.items():
        assert curves(left)[f"{teacher} {student}"][0][:2] == ([RATIOS[teacher]], [pytest.approx(1.1 * error)])
        assert curves(middle)[f"{teacher} {student}"][0][1] == [pytest.approx(10.0)]
    assert curves(right)["wide far_error"][0][:2] == ([pytest.approx(0.1), pytest.approx(1.1)], [0.8, 0.8])
    assert curves(right)["wide near_error"][0][2] == "--"


def test_exact_ratios_come_before_probed_ones(tmp_path):
    probed = [row for row in rows() if row["part"] == "far_to_near_teacher"]
    exact = [{**row, "measure": "jacobian", "value": 2 * row["value"]} for row in probed]
    left = drawn("far-to-near", tmp_path, rows() + exact).figure.axes[0]
    assert curves(left)["wide R=4"][0][0] == [1.8]


def test_large_response_errors_are_named_instead_of_drawn(tmp_path):
    drawing = drawn("far-to-near", tmp_path, rows(far=3.0))
    assert "Above 1.5 and not shown: far, R=4 on local; far, R=8 on local." in drawing.caption
    assert "local far_error" not in curves(drawing.figure.axes[2])
    assert "not shown" not in drawn("far-to-near", tmp_path, rows()).caption


def test_what_was_not_measured_has_no_panel_and_no_words(tmp_path):
    records = [row for row in rows() if row["part"] != "bulk_relative_rmse" or row["size"] == 24]
    drawing = drawn("far-to-near", tmp_path, records)
    assert [axes.axison for axes in drawing.figure.axes] == [True, False, True]
    assert not curves(drawing.figure.axes[1])
    assert "Middle" not in drawing.caption
    assert "No other box than that of L = 24" in drawing.caption
    assert "far region at L = 24" in drawing.caption
    silent = [row for row in rows() if row["part"] not in ("near_error", "far_error")]
    drawing = drawn("far-to-near", tmp_path, silent)
    assert [axes.axison for axes in drawing.figure.axes] == [True, True, False]
    assert "Right" not in drawing.caption


def test_figures_without_their_numbers_are_left_out_with_the_reason(tmp_path):
    whole = [row for row in rows() if row["part"] == "relative_rmse"]
    assert isinstance(drawn("bulk-and-boundary", tmp_path, whole), Omitted)
    assert "far and near responses" in drawn("far-to-near", tmp_path, whole).reason
    responses = [row for row in rows() if row["measure"] == "response"]
    assert "bulk" in drawn("far-to-near", tmp_path, responses).reason
