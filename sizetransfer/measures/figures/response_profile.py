r"""The figure ``response-profile``: :math:`|\partial s_i/\partial x_j|` against the distance of i and j."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sizetransfer.drawing import Drawing, Omitted, style
from sizetransfer.drawing.panels import panel_grid

if TYPE_CHECKING:
    from sizetransfer.report.data import ReportData

KIND = "jacobian"


def response_profile(data: ReportData) -> Drawing | Omitted:
    """Size of the response against distance, teacher and students, one panel for each teacher."""
    students, teachers = data.values(KIND, "profile_student"), data.values(KIND, "profile_teacher")
    if teachers.empty:
        return Omitted("response-profile", "no record of a response profile")
    size = int(teachers["size"].max())
    students, teachers = students[students["size"] == size], teachers[teachers["size"] == size]
    panels = panel_grid(list(data.experiment.teachers), width=3.5, height=3.8, share_y=True)
    for teacher, axes in panels.axes.items():
        axes.set_title(teacher, loc="left", fontweight="bold")
        axes.set_yscale("log")
        _profile_panel(axes, teachers[teachers["teacher"] == teacher], students[students["teacher"] == teacher], data)
    everything = pd.concat([teachers, students])
    _limit_profile(panels.left[0], everything["value"])
    for axes in panels.axes.values():
        axes.set_xlim(-0.5, float(everything["coordinate"].max()) + 0.5)
    panels.left[0].set_ylabel(r"size of the response $|\partial s_i / \partial x_j|$")
    marks, shades = style.student_markers(list(data.radii)), style.student_shades(list(data.radii), style.COLOURS[0])
    handles = [Line2D([], [], color="black", label="teacher (exact)")]
    handles += [
        Line2D([], [], color=shades[name], marker=marks[name], linestyle="-", label=data.student_label(name))
        for name in data.radii
    ]
    style.legend_below(panels.figure, handles)
    return Drawing(
        "response-profile",
        "How far the score responds",
        "Response of the score at site i to the field at site j, against their distance, at "
        f"{data.words.symbol} = {size}: the exact score (black) and the students (shades). Vertical lines: receptive "
        "radii, beyond which a student's response is exactly zero and not drawn. What the black line keeps beyond a "
        f"vertical line is out of that student's reach. {data.error_bars()}",
        panels.figure,
    )


def _profile_panel(axes: Axes, teacher: pd.DataFrame, students: pd.DataFrame, data: ReportData) -> None:
    names = list(data.radii)
    shades, markers = style.student_shades(names, style.COLOURS[0]), style.student_markers(names)
    for name in names:
        radius = data.radii[name]
        if radius is not None:
            axes.axvline(radius, color=shades[name], linestyle=":", linewidth=1.1, zorder=1)
        line = students[(students["student"] == name) & (students["value"] > 0)].sort_values("coordinate")
        if len(line):
            appearance = {"marker": markers[name], "markersize": 4, "linewidth": 1.1, "label": name, "zorder": 4}
            style.plot_estimates(axes, line["coordinate"], line, color=shades[name], **appearance)
    # The teacher's profile is recorded with every student, of the same fields: one of them is drawn.
    for name in teacher["student"].unique()[:1]:
        line = teacher[(teacher["student"] == name) & (teacher["value"] > 0)].sort_values("coordinate")
        style.plot_estimates(axes, line["coordinate"], line, color="black", linewidth=2.4, label="teacher", zorder=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    graph = data.words.symbol == "N"
    axes.set_xlabel(f"{'distance' if graph else 'Chebyshev distance'} $d(i, j)$ ({data.words.steps})")


def _limit_profile(axes: Axes, values: pd.Series[float]) -> None:
    """Seven decades at most below the largest response: what lies lower is rounding in float32."""
    positive = np.asarray(values[values > 0], dtype=float)
    if positive.size:
        axes.set_ylim(max(positive.min() / 2, positive.max() * 1e-7), positive.max() * 2)
