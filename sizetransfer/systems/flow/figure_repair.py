"""The figure ``repair``: which student mends what locality breaks, and at which size the mending ends."""

from __future__ import annotations

import math
from statistics import NormalDist

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sizetransfer.drawing import Drawing, Omitted, style
from sizetransfer.numerics.averages import Estimate
from sizetransfer.report.data import ReportData
from sizetransfer.systems.flow.figure_architectures import named
from sizetransfer.verdict import VerdictSpec


def repair(data: ReportData) -> Drawing | Omitted:
    """Error against L of every student, a panel for each teacher, and the field's deviation below."""
    clean = data.values("clean-score", "relative_rmse")
    if clean.empty:
        return Omitted("repair", "no record of the clean-score error")
    deviation = data.values("clean-score", "field_std")
    teachers = list(data.experiment.teachers)
    figure = style.new_figure(max(3.1 * len(teachers), 6.0) + 0.4, 5.6)
    grid = figure.subplots(2, len(teachers), squeeze=False, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    for column, teacher in enumerate(teachers):
        upper, lower = grid[0][column], grid[1][column]
        rows, noise = _best_errors(data, teacher)
        for axes in (upper, lower):
            style.size_axis(axes, clean["size"], words=data.words)
            style.mark_training_size(axes, data.training_size)
        upper.set_xlabel("")
        _errors(upper, rows, data)
        _irreducible(upper, teacher, noise, data)
        _deviations(lower, deviation[deviation["teacher"] == teacher])
        for axes in (upper, lower):
            axes.set_ylim(0, 1.05 * float(axes.get_ylim()[1]))
        upper.set_title(teacher if math.isnan(noise) else f"{teacher}, $\\sigma$ = {noise:g}", loc="left", fontsize=10)
    grid[0][0].set_ylabel("relative error of the score")
    grid[1][0].set_ylabel("field's deviation")
    style.legend_below(figure, _handles(data), _marks())
    return Drawing("repair", "What repairs a local student", _caption(data), figure)


def first_break(line: pd.DataFrame, train_size: int, rule: VerdictSpec) -> int | None:
    """The smallest size whose error exceeds that at the training size by the rule's growth, at the rule's level.

    Args:
        line: estimates of one student on one teacher, with ``size``, ``value``, ``standard_error`` and ``within``.
        train_size: where the comparison starts; a line without it has no break.
        rule: thresholds.
    """
    errors = {
        int(row["size"]): Estimate(row["value"], row["standard_error"], within=row["within"])
        for row in line.to_dict("records")
    }
    start = errors.get(train_size)
    if start is None:
        return None
    for size in sorted(size for size in errors if size > train_size):
        error = errors[size]
        if _lower_ratio(start, error, rule.alpha) > 1 + rule.growth:
            return size
    return None


def _lower_ratio(start: Estimate, error: Estimate, alpha: float) -> float:
    """The one-sided lower limit of the ratio of two errors, normal in its logarithm; NaN where there is none."""
    if not (start.value > 0 and error.value > 0):
        return math.nan
    spread = math.hypot(start.judged_error / start.value, error.judged_error / error.value)
    return error.value / start.value * math.exp(NormalDist().inv_cdf(alpha) * spread)


def _best_errors(data: ReportData, teacher: str) -> tuple[pd.DataFrame, float]:
    """Errors of the students: on noisy fields at the largest noise where that was measured, else on clean fields.

    Returns:
        The estimates, and the noise level; NaN for clean fields.
    """
    rows = data.values("locality", "student_error", teacher=teacher)
    if len(rows):
        noise = float(rows["coordinate"].max())
        return rows[rows["coordinate"] == noise], noise
    return data.values("clean-score", "relative_rmse", teacher=teacher), math.nan


def _errors(axes: Axes, rows: pd.DataFrame, data: ReportData) -> None:
    students = list(data.radii)
    markers, colours = style.student_markers(students), style.teacher_colours(students)
    for student in students:
        line = rows[rows["student"] == student].sort_values("size")
        colour = colours[student]
        style.plot_estimates(axes, line["size"], line, color=colour, marker=markers[student], label=student)
        size = first_break(line, data.experiment.training.size, data.experiment.verdict)
        if size is not None:
            value = line.loc[line["size"] == size, "value"]
            axes.plot(
                [size], value, marker="o", markersize=13, mfc="none", color=colour, linestyle="none", label="breaks"
            )


def _irreducible(axes: Axes, teacher: str, noise: float, data: ReportData) -> None:
    """Dashed: the least error of each local student's radius, in the student's colour."""
    rows = data.values("locality", "locality_error", teacher=teacher, coordinate=noise)
    colours = style.teacher_colours(list(data.radii))
    for student, radius in data.radii.items():
        line = rows[(rows["student"] == student) & (rows["value"] > 0)].sort_values("size")
        if radius is not None and len(line):
            axes.plot(line["size"], line["value"], color=colours[student], linestyle="--", label=f"least, R = {radius}")


def _deviations(axes: Axes, rows: pd.DataFrame) -> None:
    """The field's deviation is the same for all students of a seed: one of them is drawn."""
    for student in rows["student"].unique()[:1]:
        line = rows[rows["student"] == student].sort_values("size")
        style.plot_estimates(axes, line["size"], line, color="black", marker=".", label="deviation")


def _handles(data: ReportData) -> list[Line2D]:
    students = list(data.radii)
    markers, colours = style.student_markers(students), style.teacher_colours(students)
    return [Line2D([], [], color=colours[name], marker=markers[name], label=named(name, data)) for name in students]


def _marks() -> list[Line2D]:
    ring = {"marker": "o", "markersize": 11, "mfc": "none", "linestyle": "none"}
    return [
        Line2D([], [], color=style.GREY, label="breaks", **ring),  # type: ignore[arg-type]
        Line2D([], [], color=style.GREY, linestyle="--", label="least error of the radius, exact"),
    ]


def _caption(data: ReportData) -> str:
    rule, trained = data.experiment.verdict, f"{data.words.symbol} = {data.experiment.training.size}"
    return (
        "Above: error of the student's score against the size, on clean fields, or at the noise that the title "
        "names. Dashed: the least that a function of the student's radius can have there, where it is known. Ringed: "
        f"the smallest size at which the error exceeds that at the training size, {trained} "
        f"(dotted), by more than {100 * rule.growth:g} %, at a level of {100 * rule.alpha:g} %. Below: "
        "root mean square of the field; where it changes with the size, students meet inputs larger or smaller than "
        f"those that they were trained on. {data.error_bars()}"
    )
