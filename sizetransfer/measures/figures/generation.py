"""The figure ``generation``: local observables of generated fields against the lattice size (paper table 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sizetransfer.drawing import Drawing, Omitted, style

if TYPE_CHECKING:
    from sizetransfer.report.data import ReportData

KINDS = ("generation", "conditional-generation")
PART = "observable_mae"
CONTROL = f"{PART}_control"
BEST_SCORE = f"control_{PART}"
"""Of fields that the best known score generates in the student's place."""
STARTS: Mapping[str, str] = {
    "needed": "from the noise that the size needs, or that was trained",
    "matched": "from white noise of matched variance",
    "noise": "from white noise",
    "exact": "from exact fields with noise",
}
PAPER_OFFSET = 1.05


def generation(data: ReportData) -> Drawing | Omitted:
    """Error of the local observables against L, a panel for each measure of generated fields."""
    rows = {name: data.rows(name, PART) for name in data.measures_of(*KINDS)}
    rows = {name: own for name, own in rows.items() if len(own)}
    if not rows:
        return Omitted("generation", "no record of generated fields")
    figure = style.new_figure(max(4.2 * len(rows), 4.6) + 0.4, 4.4)
    panels = dict(zip(rows, figure.subplots(1, len(rows), squeeze=False, sharey=True)[0], strict=True))
    paper = False
    for name, axes in panels.items():
        style.size_axis(axes, rows[name]["size"], margin=1.25, words=data.words)
        axes.set_yscale("log")
        style.mark_training_size(axes, data.training_size)
        _errors(axes, rows[name], data.rows(name, CONTROL), data)
        _best_scores(axes, data.rows(name, BEST_SCORE), data)
        paper |= _paper(axes, name, data)
        axes.set_title(_title(data, name), loc="left", fontsize=9)
    next(iter(panels.values())).set_ylabel("mean absolute error of local observables")
    style.legend_below(figure, style.teacher_handles(data), _handles(data, paper=paper))
    return Drawing(
        "generation",
        "Generated fields against exact ones",
        "Mean absolute error over mean, variance, fourth moment and neighbour correlations of generated fields"
        f"{_of_classes(data)}, each in units of the exact field, against the size.{data.dotted_training_size()} "
        "Dashed: the same number between two sets of exact fields; an error from a white start that is no larger is "
        "not the student's. Dotted: the same of fields that the best known score generates from the same start; an "
        "error that is no larger is the sampler's or the start's. From exact fields with noise, only the learned drift "
        f"can fail.{' Open diamonds, a little to the right: the paper.' if paper else ''} "
        f"{_levels(data)}{data.error_bars()}",
        figure,
    )


def _of_classes(data: ReportData) -> str:
    kinds = {data.experiment.evaluation.measures[name].kind for name in data.measures_of(*KINDS)}
    return " by class of sites" if kinds == {"conditional-generation"} else ""


def _title(data: ReportData, measure: str) -> str:
    """The measure's name, how its reverse process starts, and at which noise."""
    spec = data.experiment.evaluation.measures[measure]
    if spec.start == "needed":  # type: ignore[attr-defined]
        return f"{measure}: {STARTS['needed']}"
    return f"{measure}: {STARTS[spec.start]}, " + rf"$\sigma$ = {spec.sampler.noise.sigma_max:g}"  # type: ignore[attr-defined]


def _errors(axes: Axes, rows: pd.DataFrame, control: pd.DataFrame, data: ReportData) -> None:
    """A line for each teacher and student; dashed, without markers, what two sets of exact fields differ by."""
    students = list(data.radii)
    markers = style.student_markers(students)
    for teacher, colour in style.teacher_colours(data.experiment.teachers).items():
        shades = style.student_shades(students, colour)
        for student in students:
            line = _of(rows, teacher, student)
            label = f"{teacher} {student}"
            style.plot_estimates(axes, line["size"], line, color=shades[student], marker=markers[student], label=label)
        for student in students[:1]:  # the exact fields of a seed are the same for every student
            line = _of(control, teacher, student)
            axes.plot(
                line["size"], line["value"], color=colour, linestyle="--", linewidth=1.0, label=f"{teacher} exact"
            )


def _best_scores(axes: Axes, rows: pd.DataFrame, data: ReportData) -> None:
    """A dotted line for each teacher: what the best known score generates; it is the same for every student."""
    for teacher, colour in style.teacher_colours(data.experiment.teachers).items():
        for student in list(data.radii)[:1]:
            line = _of(rows, teacher, student)
            label = f"{teacher} best known score"
            axes.plot(line["size"], line["value"], color=colour, linestyle=":", linewidth=1.2, label=label)


def _levels(data: ReportData) -> str:
    """The noise that each process starts from, and that which the size needs, for every measure and teacher."""
    told = []
    for measure in data.measures_of(*KINDS):
        pair = [data.rows(measure, part) for part in ("sigma_start", "sigma_needed")]
        for teacher in data.experiment.teachers:
            levels = [rows[rows["teacher"] == teacher].groupby("size")["value"].mean() for rows in pair]
            values = [f"{start:.3g} ({needed:.3g})" for start, needed in zip(*levels, strict=False)]
            told += [f"{measure}, {teacher} {', '.join(values)}"] if values else []
    return f"Noise at the start, and (needed), by size: {'; '.join(told)}. " if told else ""


def _of(rows: pd.DataFrame, teacher: str, student: str) -> pd.DataFrame:
    return rows[(rows["teacher"] == teacher) & (rows["student"] == student)].sort_values("size")


def _paper(axes: Axes, measure: str, data: ReportData) -> bool:
    """Draw the paper's values as open diamonds beside ours; whether there are any."""
    colours = style.teacher_colours(data.experiment.teachers)
    values = [
        value
        for value in data.experiment.report.paper
        if (value.measure, value.part) == (measure, PART) and value.teacher in colours and value.student in data.radii
    ]
    largest = max(data.experiment.evaluation.sizes)
    for value in values:
        size = largest if value.size is None else value.size
        appearance: dict[str, Any] = {"marker": "D", "markerfacecolor": "white", "markersize": 6, "linestyle": "none"}
        error = [value.standard_error or 0.0]
        colour = colours[value.teacher]
        axes.errorbar([size * PAPER_OFFSET], [value.value], yerr=error, color=colour, label="paper", **appearance)
    return bool(values)


def _handles(data: ReportData, *, paper: bool) -> list[Line2D]:
    handles = [*style.student_handles(data), Line2D([], [], color=style.GREY, linestyle="--", label="exact fields")]
    handles.append(Line2D([], [], color=style.GREY, linestyle=":", label="best known score"))
    if paper:
        diamond = Line2D([], [], color=style.GREY, linestyle="none", marker="D", mfc="white", label="the paper's value")
        handles.append(diamond)
    return handles
