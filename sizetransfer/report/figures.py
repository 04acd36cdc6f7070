r"""The figures of any experiment, by name: any teachers, students, measures, sizes and seeds.

- ``regimes``: relative RMSE :math:`e` of the clean score (paper eq. (16)), or of the smoothed one where a teacher has
  no clean score, against the size L, a panel for each teacher, with its verdict;
- ``size-sweep``: the same of all teachers in one panel, and the far-response error (paper eq. (17)) against L: the
  paper's figure 1;
- ``radius-sweep``: :math:`e` at the largest L, and near and far response errors, against the receptive radius R: the
  paper's figure 2;
- ``training``: training loss against steps.

Which numbers these are is what measures declare of their parts (:mod:`sizetransfer.contracts.parts`). Figures of single
measures stand beside them (:mod:`sizetransfer.measures.figures`), those of single experiments in their systems. A
figure whose numbers the run does not have is :class:`~sizetransfer.drawing.Omitted`, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sizetransfer.drawing import Drawing, Omitted, style
from sizetransfer.drawing.panels import panel_grid
from sizetransfer.registry.hooks import FigureFunction
from sizetransfer.report.criteria import regime
from sizetransfer.report.data import ReportData
from sizetransfer.report.training import training_curves
from sizetransfer.runs.trials import PaperValue

LARGEST_RESPONSE_ERROR = 3.0
NO_ERROR = "no record of the error of a score"


# --- regimes --------------------------------------------------------------------------------------------------


def regimes(data: ReportData) -> Drawing | Omitted:
    """Relative RMSE against L, one panel for each teacher, labelled with its verdict."""
    rows = data.errors()
    if rows.empty:
        return Omitted("regimes", NO_ERROR)
    panels = panel_grid(list(data.experiment.teachers), width=3.5, height=3.6, share_y=True)
    nulls = [value for teacher in data.experiment.teachers for value in data.references("null", teacher)["value"]]
    highest = float((rows["value"] + rows["standard_error"].fillna(0)).max())
    top = 1.08 * max([highest, *nulls])
    for teacher, axes in panels.axes.items():
        style.size_axis(axes, rows["size"], words=data.words)
        axes.set_ylim(0, top)
        style.mark_training_size(axes, data.training_size)
        _reference_lines(axes, data, teacher)
        _lines_against_size(axes, rows[rows["teacher"] == teacher], data, teacher, label_ends=True)
        _title_with_verdict(axes, teacher, data)
    panels.left[0].set_ylabel(data.error_label())
    return Drawing(
        "regimes",
        "Three regimes of size transfer",
        f"Error of the student's score against the size {data.words.symbol} ({data.words.counts}), for each receptive "
        "radius R. Flat lines that lie on each other may transfer. Flat lines apart: the radius limits the student. "
        "Rising lines: it degrades with size. Lines near the null have learned nothing."
        f"{_reference_caption(data)}{data.dotted_training_size()}{data.noise_levels()} {data.error_bars()}",
        panels.figure,
    )


def _reference_lines(axes: Axes, data: ReportData, teacher: str) -> None:
    """Thin lines: the null, and the linear reference of every student's radius, in the student's shade."""
    students = list(data.radii)
    shades = style.student_shades(students, style.teacher_colours(data.experiment.teachers)[teacher])
    nulls, linear = data.references("null", teacher), data.references("linear", teacher)
    for student in students:
        own = linear[linear["student"] == student].sort_values("size")
        if len(own):
            label = f"linear reference, {student}"
            axes.plot(own["size"], own["value"], color=shades[student], linestyle="--", linewidth=0.8, label=label)
    for student in nulls["student"].unique()[:1]:
        own = nulls[nulls["student"] == student].sort_values("size")
        axes.plot(own["size"], own["value"], color=style.GREY, linestyle="-.", linewidth=0.8, label="null")


def _reference_caption(data: ReportData) -> str:
    if all(data.references("null", teacher).empty for teacher in data.experiment.teachers):
        return ""
    return " Thin: the best filter of radius 0 (the null, grey) and of the student's radius (dashed)."


def _title_with_verdict(axes: Axes, teacher: str, data: ReportData) -> None:
    word = regime(verdict for verdict in data.verdicts if verdict.teacher == teacher)
    criterion = data.criterion(teacher)
    noise = "" if criterion is None or math.isnan(criterion.sigma) else f", $\\sigma$ = {criterion.sigma:g}"
    axes.set_title(f"{teacher}{noise}", loc="left", fontweight="bold", pad=26)
    axes.text(
        0.015,
        1.03,
        word,
        transform=axes.transAxes,
        color="white",
        fontsize=9,
        fontweight="bold",
        va="bottom",
        bbox={"boxstyle": "round,pad=0.3", "facecolor": style.VERDICT_COLOURS[word], "edgecolor": "none"},
    )


# --- size-sweep -----------------------------------------------------------------------------------------------


def size_sweep(data: ReportData) -> Drawing | Omitted:
    """Relative RMSE against L of every teacher and student; beside it the far-response error."""
    rows = data.errors()
    if rows.empty:
        return Omitted("size-sweep", NO_ERROR)
    far, beyond = _comparable(data.served("response: far"))
    panels = panel_grid(["error", "far response"] if len(far) else ["error"], width=4.6, height=4.1)
    for name, numbers, label in (
        ("error", rows, data.error_label()),
        ("far response", far, "relative far-response error"),
    ):
        if name in panels.axes:
            axes = panels.axes[name]
            style.size_axis(axes, rows["size"], words=data.words)
            style.mark_training_size(axes, data.training_size)
            for teacher in data.experiment.teachers:
                _lines_against_size(axes, numbers[numbers["teacher"] == teacher], data, teacher)
            axes.set_ylim(0, _top(axes))
            axes.set_ylabel(label)
    if len(far):
        _mark_one(panels.axes["far response"])
    style.legend_below(panels.figure, style.teacher_handles(data), style.student_handles(data))
    second = (
        " Right: error of the student's response to a far probe, relative to the teacher's (paper eq. (17)); "
        "1 (dashed) is what a student that does not respond gets, as it must wholly outside its radius."
        if len(far)
        else ""
    )
    return Drawing(
        "size-sweep",
        "Error against size",
        f"{'Left: error' if len(far) else 'Error'} of the student's score against the size {data.words.symbol} "
        f"({data.words.counts}). The error of a student that transfers stays.{data.dotted_training_size()}"
        f"{data.noise_levels()}{second}{beyond} {data.error_bars()}",
        panels.figure,
    )


def _lines_against_size(
    axes: Axes, rows: pd.DataFrame, data: ReportData, teacher: str, *, label_ends: bool = False
) -> None:
    colour = style.teacher_colours(data.experiment.teachers)[teacher]
    students = list(data.radii)
    shades, markers = style.student_shades(students, colour), style.student_markers(students)
    ends = []
    for student in students:
        line = rows[rows["student"] == student].sort_values("size")
        if len(line):
            style.plot_estimates(
                axes, line["size"], line, color=shades[student], marker=markers[student], label=f"{teacher} {student}"
            )
            last = line.iloc[-1]
            ends.append((float(last["size"]), float(last["value"]), data.student_label(student), shades[student]))
    if label_ends and ends:
        style.label_line_ends(axes, ends)


# --- radius-sweep ---------------------------------------------------------------------------------------------


def radius_sweep(data: ReportData) -> Drawing | Omitted:
    """Relative RMSE at the largest L against R with the paper's values; beside it near and far response errors."""
    rows = data.errors(size=data.largest_size)
    if rows.empty:
        return Omitted("radius-sweep", f"{NO_ERROR} at {data.words.symbol} = {data.largest_size}")
    near, far, response_size = _responses(data)
    far, beyond = _comparable(far)
    near, _ = _comparable(near)
    panels = panel_grid(["error", "far response"] if len(far) else ["error"], width=4.6, height=4.1)
    axes = panels.axes["error"]
    _lines_against_radius(axes, rows, data)
    paper = _paper_points(axes, data, _clean_errors(data), data.largest_size)
    symbol = data.words.symbol
    axes.set_ylabel(f"{data.error_label()}, ${symbol}$ = {data.largest_size}")
    extra = []
    if len(far):
        axes = panels.axes["far response"]
        _lines_against_radius(axes, far, data)
        _lines_against_radius(axes, near, data, linestyle="--", markerfacecolor="white", linewidth=1.1)
        place = (str(far["measure"].iloc[0]), str(far["part"].iloc[0]))
        paper += _paper_points(axes, data, dict.fromkeys(data.experiment.teachers, place), response_size)
        _mark_one(axes)
        axes.set_ylabel(f"relative response error, ${symbol}$ = {response_size}")
        extra = [Line2D([], [], color=style.GREY, linestyle="-", marker="o", label="far response")]
        extra += [Line2D([], [], color=style.GREY, linestyle="--", marker="o", mfc="white", label="near response")]
    if paper:
        extra += [
            Line2D([], [], color=style.GREY, linestyle="none", marker="D", mfc="white", label="the paper's value")
        ]
    for axes in panels.axes.values():
        _radius_axis(axes, data)
        axes.set_ylim(0, _top(axes))
    style.legend_below(panels.figure, style.teacher_handles(data), extra)
    caption = _radius_caption(paper=bool(paper), far=bool(len(far)))
    return Drawing(
        "radius-sweep",
        "Error against receptive radius",
        f"{caption}{data.noise_levels()}{beyond} {data.error_bars()}",
        panels.figure,
    )


def _radius_caption(*, paper: bool, far: bool) -> str:
    caption = (
        f"{'Left: error' if far else 'Error'} of the student's score at the largest size against the receptive radius "
        "R. It falls where the radius limits the student, and is flat where the radius suffices or cannot help."
    )
    if far:
        caption += (
            " Right: error of the response to a near and to a far probe, relative to the teacher's (paper eq. (17)); "
            "1 (dashed) is what a student that does not respond gets: by construction so for a probe wholly outside "
            "its radius."
        )
    if paper:
        caption += " Open diamonds, a little to the right: the paper's values with its standard errors."
    return caption


def _comparable(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Leave out relative errors so large that the teacher's own response must be close to none, and say so."""
    beyond = rows[rows["value"] > LARGEST_RESPONSE_ERROR]
    if beyond.empty:
        return rows, ""
    names = ", ".join(dict.fromkeys(map(str, beyond["teacher"])))
    return rows.drop(beyond.index), (
        f" Not shown: response errors above {LARGEST_RESPONSE_ERROR:g} ({names}), where the teacher's own response "
        "is too small to be compared with."
    )


def _top(axes: Axes) -> float:
    """The upper limit that leaves some room above the highest marker."""
    return 1.02 * float(axes.get_ylim()[1])


def _responses(data: ReportData) -> tuple[pd.DataFrame, pd.DataFrame, int | None]:
    """Near and far response errors at the largest size at which the far one was measured."""
    far = data.served("response: far")
    size = None if far.empty else int(far["size"].max())
    return data.served("response: near", size=size), far[far["size"] == size], size


def _position(data: ReportData, student: str) -> float:
    """Where a student stands on the radius axis; global ones to the right of all radii."""
    radius = data.radii[student]
    finite = [value for value in data.radii.values() if value is not None]
    return float(radius) if radius is not None else 1.25 * max(finite, default=4)


def _radius_axis(axes: Axes, data: ReportData) -> None:
    places = {_position(data, student): radius for student, radius in data.radii.items()}
    axes.set_xticks(list(places), ["global" if radius is None else str(radius) for radius in places.values()])
    margin = 0.1 * (max(places) - min(places)) or 1.0
    axes.set_xlim(min(places) - margin, max(places) + margin)
    axes.set_xlabel(f"receptive radius $R$ ({data.words.steps})")


def _lines_against_radius(axes: Axes, rows: pd.DataFrame, data: ReportData, **appearance: Any) -> None:
    """One line for each teacher and kind of student."""
    kinds = {name: spec.kind for name, spec in data.experiment.students.items()}
    for teacher, colour in style.teacher_colours(data.experiment.teachers).items():
        own = rows[rows["teacher"] == teacher].set_index("student")
        for kind in dict.fromkeys(kinds.values()):
            family = [name for name in data.radii if name in own.index and kinds[name] == kind]
            if family:
                x = [_position(data, name) for name in family]
                line = own.loc[family]
                style.plot_estimates(axes, x, line, color=colour, marker="o", label=f"{teacher} {kind}", **appearance)


def _clean_errors(data: ReportData) -> dict[str, tuple[str, str] | None]:
    """Measure and part of the clean score's error, of every teacher of which it is shown."""
    shown = {teacher: data.criterion(teacher) for teacher in data.experiment.teachers}
    return {
        teacher: (one.measure, one.part) if one is not None and math.isnan(one.sigma) else None
        for teacher, one in shown.items()
    }


def _paper_points(
    axes: Axes, data: ReportData, quantity: Mapping[str, tuple[str, str] | None], size: int | None
) -> list[PaperValue]:
    """Draw the paper's values of one quantity as open diamonds beside ours, and return them.

    Args:
        quantity: measure and part of the quantity, by teacher.
    """
    colours = style.teacher_colours(data.experiment.teachers)
    places = [_position(data, student) for student in data.radii]
    offset = 0.025 * (max(places) - min(places)) or 0.1
    drawn = []
    for value in data.experiment.report.paper:
        same = quantity.get(value.teacher) == (value.measure, value.part)
        there = value.teacher in colours and value.student in data.radii and value.size in (None, size)
        if same and there:
            drawn.append(value)
            axes.errorbar(
                [_position(data, value.student) + offset],
                [value.value],
                yerr=[value.standard_error or 0.0],
                color=colours[value.teacher],
                marker="D",
                markerfacecolor="white",
                markersize=6,
                linestyle="none",
                capsize=2.5,
                elinewidth=1.1,
                label="paper",
            )
    return drawn


def _mark_one(axes: Axes) -> None:
    axes.axhline(1.0, color=style.GREY, linestyle=(0, (6, 4)), linewidth=0.9, zorder=1)


# --- training -------------------------------------------------------------------------------------------------


def training(data: ReportData) -> Drawing | Omitted:
    """Training loss against steps, one panel for each teacher."""
    curves = training_curves(data.run)
    if not curves:
        return Omitted("training", "the run keeps no training histories")
    panels = panel_grid(list(data.experiment.teachers), width=3.5, height=3.4, share_y=True)
    names = list(data.experiment.students)
    for teacher, axes in panels.axes.items():
        shades = style.student_shades(names, style.teacher_colours(data.experiment.teachers)[teacher])
        for curve in curves:
            if curve.teacher == teacher:
                axes.plot(curve.steps, curve.loss, color=shades[curve.student], linewidth=1.0, label=curve.student)
        axes.set_title(teacher, loc="left", fontweight="bold")
        axes.set_xlabel("training step")
    if all((curve.loss > 0).all() for curve in curves):
        panels.left[0].set_yscale("log")
    panels.left[0].set_ylabel("training loss (running median)")
    shades = style.student_shades(names, style.GREY)
    handles = [Line2D([], [], color=colour, label=data.student_label(name)) for name, colour in shades.items()]
    style.legend_below(panels.figure, handles)
    return Drawing(
        "training",
        "Training",
        f"Loss of the objective {data.experiment.training.objective!r} against training steps, running median, one "
        "line for each student and seed. The loss has a "
        "floor that the noise sets: differences between students that matter for the score may be too small to see "
        "here.",
        panels.figure,
    )


BUILT_IN: Mapping[str, FigureFunction] = {
    "regimes": regimes,
    "size-sweep": size_sweep,
    "radius-sweep": radius_sweep,
    "training": training,
}
"""The figures of this package, which register as anybody's do."""
