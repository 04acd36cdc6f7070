"""The figures ``architectures`` and ``architecture-responses``: students of several kinds side by side.

Students of one kind that look at the same things are one architecture: a colour, with a shade and a marker for each
radius. Its regime on a teacher follows from the verdicts of its students
(:func:`sizetransfer.report.criteria.regime`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sizetransfer.drawing import Drawing, Omitted, style
from sizetransfer.report.criteria import regime
from sizetransfer.report.data import ReportData
from sizetransfer.report.tables import Cost, costs
from sizetransfer.runs.evidence import reach
from sizetransfer.verdict import Verdict

LARGEST_RESPONSE_ERROR = 1.5
"""Larger ones belong to teachers that hardly respond far: the caption names them."""
PALETTE = (*style.COLOURS[:5], *style.COLOURS[:4:-1])
"""Colours of architectures; the two blues are farthest apart."""
LineStyle = Literal["--", "-", "-.", ":"]
LINES: tuple[LineStyle, ...] = (":", "-.", "--", "-")
"""Lines of an architecture's students; the largest radius has the last one."""


@dataclass(frozen=True)
class Architecture:
    """Students of one kind, in order of their radius, with the colour and the line of each."""

    name: str
    students: tuple[str, ...]
    colours: Mapping[str, str]
    lines: Mapping[str, LineStyle]


def group(data: ReportData) -> list[Architecture]:
    """The architectures of a run, in the experiment's order.

    Students that see no condition stand for themselves: what they lack is not a radius.
    """
    groups: dict[str, list[str]] = {}
    for name, spec in data.experiment.students.items():
        if name in data.radii:
            blind = getattr(spec, "condition", "given") == "none"
            groups.setdefault(f"{spec.kind}, no condition" if blind else spec.kind, []).append(name)
    order = [(name, sorted(own, key=lambda student: reach(data.radii[student]))) for name, own in groups.items()]
    return [_styled(name, own, index) for index, (name, own) in enumerate(order)]


def _styled(name: str, students: Sequence[str], index: int) -> Architecture:
    colour, last = PALETTE[index % len(PALETTE)], len(students) - 1
    # Lighter for smaller radii; the largest has the colour itself.
    colours = {student: style.shade(colour, 0.6 * place / max(1, last)) for place, student in enumerate(students[:-1])}
    colours[students[-1]] = colour
    lines = {student: LINES[-1 - (last - place) % len(LINES)] for place, student in enumerate(students)}
    return Architecture(name, tuple(students), colours, lines)


# --- architectures --------------------------------------------------------------------------------------------


def architectures(data: ReportData) -> Drawing | Omitted:
    """Relative RMSE against L, a panel for each teacher, and the regime of every architecture below."""
    rows = data.errors()
    if rows.empty:
        return Omitted("architectures", "no record of the error of a score")
    teachers, groups = list(data.experiment.teachers), group(data)
    figure = style.new_figure(max(2.9 * len(teachers), 6.0) + 0.4, 3.7 + 0.3 * len(groups))
    grid = figure.subplots(
        2, len(teachers), squeeze=False, sharey="row", gridspec_kw={"height_ratios": [3.3, 0.3 * len(groups)]}
    )
    for axes, teacher in zip(grid[0], teachers, strict=True):
        style.size_axis(axes, rows["size"], words=data.words)
        style.mark_training_size(axes, data.training_size)
        _errors(axes, rows[rows["teacher"] == teacher], groups, data)
        axes.set_title(teacher, loc="left", fontweight="bold")
    grid[0][0].set_ylim(0, None)
    grid[0][0].set_ylabel(data.error_label())
    for axes, teacher in zip(grid[1], teachers, strict=True):
        _regimes(axes, [verdict for verdict in data.verdicts if verdict.teacher == teacher], groups)
    style.legend_below(figure, *_handles(data, groups))
    return Drawing(
        "architectures",
        "Size transfer of several architectures",
        "Above: error of the student's score against the size; a colour for each architecture, a line for each "
        f"radius.{data.dotted_training_size()}{data.noise_levels()} Below: what becomes of each "
        f"architecture by the rule of the verdicts. {data.error_bars()}",
        figure,
    )


def _errors(axes: Axes, rows: pd.DataFrame, groups: Sequence[Architecture], data: ReportData) -> None:
    markers = style.student_markers(list(data.radii))
    for architecture in groups:
        for student in architecture.students:
            line = rows[rows["student"] == student].sort_values("size")
            style.plot_estimates(
                axes,
                line["size"],
                line,
                color=architecture.colours[student],
                linestyle=architecture.lines[student],
                marker=markers[student],
                label=student,
            )


def _regimes(axes: Axes, verdicts: Sequence[Verdict], groups: Sequence[Architecture]) -> None:
    """A coloured word for each architecture, in a column."""
    found = {verdict.student: verdict for verdict in verdicts}
    for row, architecture in enumerate(groups):
        word = regime(found[student] for student in architecture.students)
        colour = style.VERDICT_COLOURS[word]
        axes.barh(row, 1.0, height=0.84, color=colour, label=f"{architecture.name}: {word}")
        axes.text(0.5, row, word, color="white", fontsize=8.5, fontweight="bold", ha="center", va="center")
    axes.plot([], [], color=style.GREY)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.set_yticks(range(len(groups)), [architecture.name for architecture in groups])
    axes.tick_params(length=0)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("regime")


def named(student: str, data: ReportData) -> str:
    """The student's own name, which says what it is, with its radius."""
    radius = data.radii[student]
    return f"{student} ({'global' if radius is None else f'R = {radius}'})"


def _handles(data: ReportData, groups: Sequence[Architecture]) -> list[list[Line2D]]:
    markers = style.student_markers(list(data.radii))
    return [
        [
            Line2D(
                [],
                [],
                color=architecture.colours[student],
                linestyle=architecture.lines[student],
                marker=markers[student],
                label=named(student, data),
            )
            for architecture in groups
            for student in architecture.students
        ]
    ]


# --- architecture-responses -----------------------------------------------------------------------------------


def architecture_responses(data: ReportData) -> Drawing | Omitted:
    """Far-response error against R, a panel for each teacher that responds far, and what a step cost."""
    far = _far(data)
    spent = costs(data)
    if far.empty and not spent:
        return Omitted("architecture-responses", "no record of a far response and of a cost")
    shown = far[far["value"] <= LARGEST_RESPONSE_ERROR]
    teachers = [teacher for teacher in data.experiment.teachers if (shown["teacher"] == teacher).any()]
    groups = group(data)
    columns = len(teachers) + bool(spent)
    figure = style.new_figure(max(2.7 * columns, 5.0) + 0.4, 4.3)
    panels = list(figure.subplots(1, columns, squeeze=False)[0])
    top = max([1.0, *shown["value"]]) * 1.15
    for axes, teacher in zip(panels, teachers, strict=False):
        _responses(axes, shown[shown["teacher"] == teacher], groups, data)
        axes.set_ylim(0, top)
        axes.set_title(teacher, loc="left", fontweight="bold")
    if teachers:
        panels[0].set_ylabel(f"relative far-response error, ${data.words.symbol}$ = {int(shown['size'].max())}")
    if spent:
        _costs(panels[-1], spent, groups)
    style.legend_below(figure, *_handles(data, groups))
    return Drawing(
        "architecture-responses",
        "Far responses, and what they cost",
        f"{_responses_caption(far, shown)}{_costs_caption(spent)} {data.error_bars()}",
        figure,
    )


def _far(data: ReportData) -> pd.DataFrame:
    """Far-response errors at the largest size at which they were measured."""
    far = data.served("response: far")
    largest: pd.DataFrame = far[far["size"] == far["size"].max()]
    return largest


def _responses(axes: Axes, rows: pd.DataFrame, groups: Sequence[Architecture], data: ReportData) -> None:
    places = _places(data)
    width = 0.6 / max(1, len(groups))
    for index, architecture in enumerate(groups):
        own = [student for student in architecture.students if (rows["student"] == student).any()]
        line = rows.set_index("student").loc[own]
        x = [places[data.radii[student]] + (index - (len(groups) - 1) / 2) * width for student in own]
        colour = architecture.colours[architecture.students[-1]]
        axes.plot(x, line["value"], color=colour, linewidth=1.0, label=architecture.name)
        for student, place in zip(own, x, strict=True):
            style.plot_estimates(
                axes,
                [place],
                line.loc[[student]],
                color=architecture.colours[student],
                marker=style.student_markers(list(data.radii))[student],
                label=student,
            )
    axes.axhline(1.0, color=style.GREY, linestyle=(0, (6, 4)), linewidth=0.9, zorder=1)
    axes.set_xticks(list(places.values()), ["global" if radius is None else str(radius) for radius in places])
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xlabel(f"receptive radius $R$ ({data.words.steps})")


def _places(data: ReportData) -> dict[int | None, int]:
    """Where each radius stands on the axis: one after the other, global last."""
    return {radius: place for place, radius in enumerate(dict.fromkeys(data.radii.values()))}


def _costs(axes: Axes, spent: Sequence[Cost], groups: Sequence[Architecture]) -> None:
    colours = {student: own.colours[student] for own in groups for student in own.students}
    order = [student for architecture in groups for student in architecture.students]
    found = {cost.student: cost for cost in spent}
    shown = [found[student] for student in order if student in found]
    most = max(cost.microseconds.value for cost in shown)
    for row, cost in enumerate(shown):
        axes.barh(row, cost.microseconds.value, color=colours[cost.student], label=cost.student)
        text = f" {cost.microseconds.value:.3g}; {cost.parameters / 1000:.0f} k"
        axes.text(cost.microseconds.value, row, text, va="center", fontsize=8.5)
    axes.plot([], [], color=style.GREY)
    axes.set_yticks(range(len(shown)), [cost.student for cost in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.5 * most)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("µs a site and step; parameters", fontsize=9)
    axes.set_title("cost", loc="left", fontweight="bold")


def _responses_caption(far: pd.DataFrame, shown: pd.DataFrame) -> str:
    if far.empty:
        return ""
    left = [f"{row['student']} on {row['teacher']}" for row in far.drop(shown.index).to_dict("records")]
    beyond = f" Above {LARGEST_RESPONSE_ERROR:g} and not shown: {', '.join(left)}." if left else ""
    return (
        "Error of the student's response to the far region, relative to the teacher's (paper eq. (17)), against the "
        f"receptive radius; 1 (dashed) is what a student that does not respond gets.{beyond}"
    )


def _costs_caption(spent: Sequence[Cost]) -> str:
    if not spent:
        return ""
    teachers = ", ".join(dict.fromkeys(cost.teacher for cost in spent))
    return (
        " Bars: cost of a training step for each site of the batch (processor time, or wall time on an accelerator), "
        f"drawing and scoring the fields of {teachers} included; beside them the parameters."
    )
