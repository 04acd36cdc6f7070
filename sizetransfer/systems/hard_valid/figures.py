r"""The figures ``bulk-and-boundary`` and ``far-to-near``: errors in open boxes, away from the walls and near them.

The relative RMSE of the clean score over the bulk of a box, the sites farther than a margin from every wall, says
whether a student's rule holds in a larger box; near the walls it also has to know them. The paper's claim of its figure
3 is tested in ``far-to-near``: teachers whose response is concentrated near the reference site have an error that is
stable across sizes, and those with a larger ratio of the far to the near response are harder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sizetransfer.drawing import Drawing, Omitted, style
from sizetransfer.report.data import ReportData

LARGEST_RESPONSE_ERROR = 1.5
"""Larger ones belong to teachers that hardly respond there: the caption names them."""
BOUNDARY: Mapping[str, Any] = {"linestyle": "--", "markerfacecolor": "white", "linewidth": 1.1}


# --- bulk-and-boundary ----------------------------------------------------------------------------------------


def bulk_and_boundary(data: ReportData) -> Drawing | Omitted:
    """Bulk and boundary errors against L, and the error at the largest L against the distance to the wall."""
    bulk, boundary = (data.values("clean-score", f"{part}_relative_rmse") for part in ("bulk", "boundary"))
    walls = data.values("clean-score", "wall_relative_rmse")
    if bulk.empty or boundary.empty or walls.empty:
        return Omitted("bulk-and-boundary", "no record of errors in the bulk and near the walls of an open box")
    walls = walls[walls["size"] == walls["size"].max()]
    teachers = list(data.experiment.teachers)
    figure = style.new_figure(max(3.1 * len(teachers), 6.0) + 0.4, 6.6)
    grid = figure.subplots(2, len(teachers), squeeze=False, sharey=True)
    for column, teacher in enumerate(teachers):
        above, below = grid[0][column], grid[1][column]
        above.set_title(teacher, loc="left", fontweight="bold")
        style.size_axis(above, boundary["size"])
        style.mark_training_size(above, data.experiment.training.size)
        _lines(above, boundary[boundary["teacher"] == teacher], data, teacher, "size", **BOUNDARY)
        _lines(above, bulk[bulk["teacher"] == teacher], data, teacher, "size")
        _lines(below, walls[walls["teacher"] == teacher], data, teacher, "coordinate")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        below.set_xlabel("distance to the wall (sites)")
    top = max(float((rows["value"] + rows["standard_error"].fillna(0)).max()) for rows in (bulk, boundary, walls))
    grid[0][0].set_ylim(0, 1.08 * top)
    for axes, words in zip(
        grid[:, 0], ("bulk and boundary", f"by distance, $L$ = {int(walls['size'].max())}"), strict=True
    ):
        axes.set_ylabel(f"relative RMSE, {words}")
    parts = [
        Line2D([], [], color=style.GREY, marker="o", label="bulk"),
        Line2D([], [], color=style.GREY, marker="o", label="boundary", **BOUNDARY),
    ]
    style.legend_below(figure, style.student_handles(data), parts)
    return Drawing(
        "bulk-and-boundary",
        "Away from the walls and near them",
        "Above: relative RMSE of the clean score on occupied sites of open boxes against the size, away from the walls "
        f"(solid) and near them (dashed).{_margins(data)} A box without bulk has no solid point."
        f"{data.dotted_training_size()} Below: the same error in the largest box, against the distance to the nearest "
        f"wall; one is the outermost layer, and the innermost layers have few sites. {data.error_bars()}",
        figure,
    )


def _margins(data: ReportData) -> str:
    """What counts as bulk, in a sentence."""
    margins = sorted({int(value) for value in data.values("clean-score", "margin")["value"]})
    if len(margins) == 1:
        return f" Sites of the bulk have at least {margins[0]} sites between them and every wall."
    return f" The margin of the bulk differs, from {margins[0]} to {margins[-1]} sites: read lines one by one."


def _lines(axes: Axes, rows: pd.DataFrame, data: ReportData, teacher: str, across: str, **appearance: Any) -> None:
    """One line for each student, in shades of the teacher's colour."""
    students = list(data.radii)
    colour = style.teacher_colours(data.experiment.teachers)[teacher]
    shades, markers = style.student_shades(students, colour), style.student_markers(students)
    for student in students:
        line = rows[rows["student"] == student].sort_values(across)
        if len(line):
            style.plot_estimates(
                axes, line[across], line, color=shades[student], marker=markers[student], label=student, **appearance
            )


# --- far-to-near ----------------------------------------------------------------------------------------------


def far_to_near(data: ReportData) -> Drawing | Omitted:
    """Bulk error and its change with the size against the teacher's far-to-near ratio, and response errors."""
    (ratios, size), errors = _ratios(data), data.values("clean-score", "bulk_relative_rmse")
    if not ratios or errors.empty:
        lacking = "of far and near responses" if not ratios else "of errors in the bulk of an open box"
        return Omitted("far-to-near", f"no record {lacking}")
    last = int(errors["size"].max())
    figure = style.new_figure(10.4, 4.2)
    panels = figure.subplots(1, 3)
    final = errors[errors["size"] == last]
    _against_ratio(panels[0], final, ratios, data)
    panels[0].set_ylim(0, None)
    panels[0].set_ylabel(f"bulk relative RMSE, $L$ = {last}")
    change = _change(panels[1], errors, ratios, data)
    responses = _response_errors(panels[2], data)
    style.legend_below(figure, style.teacher_handles(data), [*style.student_handles(data), *_response_handles()])
    return Drawing(
        "far-to-near",
        "Far responses and bulk errors",
        "Left: bulk error in the largest box against the teacher's far-to-near ratio, the root-mean-square response of "
        f"the exact score at a site to a far region over that to a near one, at L = {size}. {change} {responses} "
        f"{data.error_bars()}",
        figure,
    )


def _ratios(data: ReportData) -> tuple[dict[str, float], int]:
    """The far-to-near ratio of every teacher, by Jacobian rows or else by probes, and the size where it was measured.

    The fields are the same for all students of a seed: one student's record stands for all.
    """
    exact, probed = (data.values(kind, "far_to_near_teacher") for kind in ("jacobian", "response"))
    rows = probed if exact.empty else exact
    if rows.empty:
        return {}, 0
    rows = rows[rows["size"] == rows["size"].max()].drop_duplicates("teacher")
    return dict(zip(map(str, rows["teacher"]), map(float, rows["value"]), strict=True)), int(rows["size"].iloc[0])


def _change(axes: Axes, errors: pd.DataFrame, ratios: Mapping[str, float], data: ReportData) -> str:
    """How the bulk error changes with the size, where it was measured at two; returns what the caption says of it."""
    first, last = int(errors["size"].min()), int(errors["size"].max())
    if first == last:
        axes.set_axis_off()
        return f"No other box than that of L = {last} has a bulk error that a change could be taken from."
    _against_ratio(axes, _changes(errors, first, last), ratios, data)
    axes.axhline(0.0, color=style.GREY, linewidth=0.9, zorder=1)
    axes.set_ylabel(f"change of the bulk error, $L$ = {first} to {last} (%)")
    return (
        f"Middle: how much the bulk error changes from L = {first}, the smallest box with a bulk, to L = {last}; the "
        "errors of the two sizes are taken as independent."
    )


def _changes(errors: pd.DataFrame, first: int, last: int) -> pd.DataFrame:
    """Relative change in per cent from one size to another, by teacher and student, with its standard error."""
    keys = ["teacher", "student"]
    before, after = (errors[errors["size"] == size].set_index(keys) for size in (first, last))
    ratio = after["value"] / before["value"]
    spread = (after["standard_error"] / after["value"]) ** 2 + (before["standard_error"] / before["value"]) ** 2
    found = pd.DataFrame({"value": 100 * (ratio - 1), "standard_error": 100 * ratio * spread**0.5})
    return found.dropna(subset=["value"]).reset_index()


def _against_ratio(axes: Axes, rows: pd.DataFrame, ratios: Mapping[str, float], data: ReportData) -> None:
    """A point for each teacher and student; the students of a teacher stand on one vertical line."""
    students = list(data.radii)
    markers = style.student_markers(students)
    for teacher, colour in style.teacher_colours(data.experiment.teachers).items():
        shades = style.student_shades(students, colour)
        own = rows[rows["teacher"] == teacher].set_index("student")
        for student in students:
            if student in own.index and teacher in ratios:
                style.plot_estimates(
                    axes,
                    [ratios[teacher]],
                    own.loc[[student]],
                    color=shades[student],
                    marker=markers[student],
                    linestyle="none",
                    label=f"{teacher} {student}",
                )
    axes.set_xscale("log")
    axes.set_xlabel("far-to-near ratio of the teacher")


def _response_errors(axes: Axes, data: ReportData) -> str:
    """Near and far response errors of every student in the largest box; returns what the caption says of them."""
    tables = {part: data.served(f"response: {part}") for part in ("far", "near")}
    sizes = [int(rows["size"].max()) for rows in tables.values() if len(rows)]
    if not sizes:
        axes.set_axis_off()
        return "Response errors were not measured."
    left: list[str] = []
    largest = max(sizes)
    for (part, table), appearance in zip(tables.items(), ({}, BOUNDARY), strict=True):
        rows = table[table["size"] == largest]
        large = rows[rows["value"] > LARGEST_RESPONSE_ERROR]
        left += [f"{part}, {row['student']} on {row['teacher']}" for row in large.to_dict("records")]
        _response_lines(axes, rows.drop(large.index), data, part, **appearance)
    axes.axhline(1.0, color=style.GREY, linestyle=(0, (6, 4)), linewidth=0.9, zorder=1)
    radii = list(data.radii.values())
    alike = len(set(radii)) < len(radii)
    names = [name if alike else "global" if radius is None else str(radius) for name, radius in data.radii.items()]
    axes.set_xticks(range(len(names)), names, rotation=30 if alike else 0)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(0, max(1.1, 1.02 * float(axes.get_ylim()[1])))
    axes.set_xlabel("student" if alike else "receptive radius $R$ (lattice steps)")
    axes.set_ylabel(f"relative response error, $L$ = {largest}")
    beyond = f" Above {LARGEST_RESPONSE_ERROR:g} and not shown: {'; '.join(left)}." if left else ""
    return (
        f"Right: error of the student's response to the near and to the far region at L = {largest}, relative to the "
        f"teacher's (paper eq. (17)); 1 (dashed) is what a student that does not respond gets.{beyond}"
    )


def _response_lines(axes: Axes, rows: pd.DataFrame, data: ReportData, part: str, **appearance: Any) -> None:
    """One line for each teacher and kind of student, teachers a little apart."""
    kinds = {name: spec.kind for name, spec in data.experiment.students.items()}
    students, colours = list(data.radii), style.teacher_colours(data.experiment.teachers)
    for index, (teacher, colour) in enumerate(colours.items()):
        own = rows[rows["teacher"] == teacher].set_index("student")
        shift = 0.4 * ((index + 0.5) / len(colours) - 0.5)
        for kind in dict.fromkeys(kinds[name] for name in students):
            family = [name for name in students if name in own.index and kinds[name] == kind]
            if family:
                places = [students.index(name) + shift for name in family]
                label = f"{teacher} {part}_error"
                style.plot_estimates(axes, places, own.loc[family], color=colour, marker="o", label=label, **appearance)


def _response_handles() -> list[Line2D]:
    return [
        Line2D([], [], color=style.GREY, marker="o", label="far response"),
        Line2D([], [], color=style.GREY, marker="o", label="near response", **BOUNDARY),
    ]
