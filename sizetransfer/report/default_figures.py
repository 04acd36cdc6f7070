"""A figure for every measure whose parts have an axis and that names no figure of its own, without a line of code.

One figure for a measure and an axis: a panel for each teacher and part, a line for each student, values with error bars
of one standard error against the axis, at the largest size at which the part was measured. Everything that is written
follows from what the measure declares of its parts (:mod:`sizetransfer.contracts.parts`).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sizetransfer.contracts.parts import Axis, Part
from sizetransfer.drawing import Drawing, style
from sizetransfer.drawing.axes import AXES
from sizetransfer.report.data import ReportData
from sizetransfer.report.profiles import profiles

MOST_PARTS = 6
"""Parts of one measure that one figure shows; further ones are in the tables alone."""
COLUMNS = 3


@dataclass(frozen=True)
class _Curve:
    """One part of a measure along its axis.

    Attributes:
        name: of the part.
        part: its description.
        rows: finite estimates, with the column ``place`` for the coordinate along the axis.
        text: a place for people.
    """

    name: str
    part: Part
    rows: pd.DataFrame
    text: Callable[[float], str]


def default_figures(data: ReportData) -> Iterator[Drawing]:
    """The figures of all measures that name none of their own, in the experiment's order.

    Call it, and save the figures, inside :func:`sizetransfer.drawing.style.drawing`.
    """
    taken: set[str] = set()
    for measure, spec in data.experiment.evaluation.measures.items():
        if spec.figures:
            continue
        curves = list(_curves(data, measure))
        for axis in AXES:
            own = [curve for curve in curves if curve.part.axis == axis]
            if own:
                name = _file_name(f"{measure}-by-{axis}", taken)
                yield _draw(data, measure, axis, own[:MOST_PARTS], name, left_out=max(0, len(own) - MOST_PARTS))


def _file_name(title: str, taken: set[str]) -> str:
    """The title as the name of a file, unlike those that are taken."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", title)
    name = next(one for one in (plain, *(f"{plain}-{count}" for count in range(2, 1000))) if one not in taken)
    taken.add(name)
    return name


def _curves(data: ReportData, measure: str) -> Iterator[_Curve]:
    """Parts with an axis and numbers at two places of it or more."""
    own = data.estimates[data.estimates["measure"] == measure]
    own = own[np.isfinite(own["value"])]
    for profile in profiles(data, measure, own):
        part, rows = profile.part, profile.rows
        if part is None or part.axis == "none":
            continue
        rows = rows.assign(place=rows["size" if part.axis == "size" else "coordinate"].astype(float))
        rows = rows[np.isfinite(rows["place"]) & ((rows["value"] > 0) | (not part.logarithmic))]
        if rows["place"].nunique() > 1:
            yield _Curve(profile.name, part, rows, profile.text)


def _draw(data: ReportData, measure: str, axis: Axis, curves: Sequence[_Curve], name: str, *, left_out: int) -> Drawing:
    teachers = [one for one in data.experiment.teachers if any((c.rows["teacher"] == one).any() for c in curves)]
    figure, panels = _panels(len(curves), len(teachers))
    sizes = set()
    for curve, own in zip(curves, panels, strict=True):
        for teacher, axes in zip(teachers, own, strict=True):
            rows = curve.rows[curve.rows["teacher"] == teacher]
            if axis != "size" and len(rows):
                rows = rows[rows["size"] == rows["size"].max()]
                sizes.add(int(rows["size"].max()))
            _panel(axes, data, curve, rows, teacher)
            axes.set_title(teacher, loc="left", fontweight="bold")
        own[0].set_ylabel(_value_label(curve))
        _limit(own[0], curve)
    style.legend_below(figure, style.student_handles(data))
    return Drawing(name, _title(measure, axis, curves), _caption(data, curves, sorted(sizes), left_out), figure)


def _panels(parts: int, teachers: int) -> tuple[Figure, list[list[Axes]]]:
    """A block of panels for each part, one panel a teacher, three in a row."""
    columns = min(teachers, COLUMNS)
    rows = -(-teachers // columns)
    figure = style.new_figure(max(3.5 * columns, 4.6) + 0.4, 2.9 * rows * parts + 0.6)
    grid = figure.subplots(rows * parts, columns, squeeze=False, sharey="row")
    blocks = [list(grid[block * rows : (block + 1) * rows].flat) for block in range(parts)]
    for block in blocks:
        for empty in block[teachers:]:
            empty.remove()
    return figure, [block[:teachers] for block in blocks]


def _panel(axes: Axes, data: ReportData, curve: _Curve, rows: pd.DataFrame, teacher: str) -> None:
    part = curve.part
    if part.logarithmic:
        axes.set_yscale("log")
    if rows.empty:
        axes.text(0.5, 0.5, "no numbers", transform=axes.transAxes, ha="center", color=style.GREY)
        return
    places = AXES[part.axis].draw(axes, sorted(rows["place"].unique()), data.words)
    looks: dict[str, Any] = {}
    if part.axis == "class":
        style.named_ticks(axes, {place: curve.text(place) for place in places})
        looks = {"linestyle": "none"}  # names have no order that a line could follow
    students = list(data.radii)
    shades = style.student_shades(students, style.teacher_colours(data.experiment.teachers)[teacher])
    markers = style.student_markers(students)
    for student in students:
        line = rows[rows["student"] == student].sort_values("place")
        if len(line):
            at = [places[place] for place in line["place"]]
            style.plot_estimates(axes, at, line, color=shades[student], marker=markers[student], label=student, **looks)


def _value_label(curve: _Curve) -> str:
    unit = f" ({curve.part.unit})" if curve.part.unit else ""
    return "\n".join(textwrap.wrap(f"{curve.part.label}{unit}", 30))


def _limit(axes: Axes, curve: _Curve) -> None:
    """Room around values that are all alike, which would be drawn in the units of their rounding."""
    low, high = float(curve.rows["value"].min()), float(curve.rows["value"].max())
    if not curve.part.logarithmic and high - low <= 1e-9 * abs(high):
        room = 0.5 * abs(high) or 1.0
        axes.set_ylim(low - room, high + room)


def _title(measure: str, axis: Axis, curves: Sequence[_Curve]) -> str:
    """The labels of the parts, unless they are too many."""
    labels = list(dict.fromkeys(curve.part.label for curve in curves))
    title = f"{measure}: {' and '.join(labels)}" if len(labels) < 3 else measure
    return f"{title[0].upper()}{title[1:]}, by {AXES[axis].title}"


def _caption(data: ReportData, curves: Sequence[_Curve], sizes: Sequence[int], left_out: int) -> str:
    names = [curve.name for curve in curves]
    at = f", at the largest size measured ({data.words.symbol} = {', '.join(map(str, sizes))})" if sizes else ""
    said = [
        f"{'Part' if len(names) == 1 else 'Parts'} {', '.join(names)}: one panel for each teacher, one line for each"
    ]
    said[0] += f" student{at}."
    for direction, words in ((True, "Lower"), (False, "Higher")):
        own = [curve.name for curve in curves if curve.part.lower_is_better is direction]
        said += [f"{words} is better" + ("." if len(own) == len(names) else f": {', '.join(own)}.")] if own else []
    exact = [curve.name for curve in curves if curve.part.known == "exact"]
    said += [f"Exact: {', '.join(exact)}."] if exact else []
    said += [f"{left_out} further parts are in the tables."] if left_out else []
    return " ".join([*said, data.error_bars()])
