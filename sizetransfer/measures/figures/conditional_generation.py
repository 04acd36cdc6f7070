"""The figure ``conditional-generation``: generated against exact fields, class by class of sites and of pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sizetransfer.drawing import Drawing, Omitted, style
from sizetransfer.measures.figures.generation import STARTS

if TYPE_CHECKING:
    from sizetransfer.report.data import ReportData

KIND = "conditional-generation"
# Of exact fields, about 95 % lie within so many standard errors.
BAND = 2.0
_BAND_COLOURS = ("#E4E7E9", "#BCC3C8")  # of smaller sizes, and of the largest
_ROW_HEIGHT = 0.17  # inches
# Where a deviation exceeds so many units, the axis is logarithmic beyond it.
_LARGEST_LINEAR = 2.0


@dataclass(frozen=True)
class _Series:
    """What one set of markers shows."""

    student: str
    size: int
    label: str


def conditional_generation(data: ReportData) -> Drawing | Omitted:
    """Deviation of every observable of every class, a row of panels for each measure, a panel for each teacher."""
    measures = data.measures_of(KIND)
    table = _deviations(data, measures)
    if table.empty:
        return Omitted(KIND, "no record of generated fields by class of sites")
    shown = [name for name in measures if (table["measure"] == name).any()]
    teachers, rows, series = list(data.experiment.teachers), _rows(table), _series(table, data)
    height = _ROW_HEIGHT * len(rows) + 0.7
    figure = style.new_figure(2.6 * len(teachers) + 2.1, height * len(shown) + 0.7)
    # Small letters come out wider in a file than in the layout.
    figure.set_layout_engine("constrained", w_pad=0.12)
    grid = figure.subplots(len(shown), len(teachers), squeeze=False, sharex="row", sharey=True)
    for line, measure in zip(grid, shown, strict=True):
        for axes, teacher in zip(line, teachers, strict=True):
            own = table[(table["measure"] == measure) & (table["teacher"] == teacher)]
            _panel(axes, own, rows, series, style.teacher_colours(teachers)[teacher])
            axes.set_title(teacher, loc="left", fontweight="bold", fontsize=9.5)
            axes.set_xlabel("generated minus exact")
            _part_divisions(axes, rows)
        start = data.experiment.evaluation.measures[measure].start  # type: ignore[attr-defined]
        # The centred title is moved: unlike other texts, titles may be wider than their panel.
        line[0].set_title(f"{measure}: {STARTS[start]}", loc="center", x=0, y=1 + 0.3 / height, ha="left")
        _name_rows(line[0], rows)
    style.legend_below(figure, _series_handles(series), _band_handles(series, data.words.symbol))
    return Drawing(
        KIND,
        "Generated fields by class of sites",
        "Observables of generated fields minus those of exact fields with the same labels, in units of the exact field "
        "of the class: its deviation for the mean, its variance for variance and covariance, its fourth moment for the "
        f"fourth moment. Grey: {BAND:g} standard errors of the difference of two sets of exact fields; what is within "
        f"is not seen to differ. {data.error_bars()}",
        figure,
    )


def _deviations(data: ReportData, measures: Sequence[str]) -> pd.DataFrame:
    """Estimates of deviations with their division, class and observable, and the spread of the control."""
    table = data.estimates
    table = table[table["measure"].isin(measures) & table["part"].str.endswith("/deviation") & table["value"].notna()]
    names = table["part"].str.split("/", expand=True).reindex(columns=range(4))
    table = table.assign(division=names[0], name=names[1], observable=names[2])
    if table.empty:
        return table
    keys = ["teacher", "student", "size", "measure", "part"]
    return table.merge(_control_errors(data.run.records, keys), on=keys, how="left")


def _control_errors(records: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Standard error of the control's mean over seeds, from errors over fields: two seeds alone would tell little."""
    control = records[records["part"].str.endswith("/control")]
    control = control.assign(part=control["part"].str.replace("/control", "/deviation", regex=False))
    groups = control.groupby(keys, sort=False)["standard_error"]
    return groups.agg(lambda own: float(np.sqrt((own**2).sum()) / len(own))).rename("control").reset_index()


def _rows(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Division, class and observable of every row, in the order in which they were recorded."""
    columns = ["division", "name", "observable"]
    first = table.drop_duplicates(columns)
    order = {division: index for index, division in enumerate(dict.fromkeys(first["division"]))}
    first = first.assign(order=first["division"].map(order)).sort_values(["order", "coordinate"], kind="stable")
    return [(str(division), str(name), str(observable)) for division, name, observable in first[columns].to_numpy()]


def _series(table: pd.DataFrame, data: ReportData) -> list[_Series]:
    """The sizes of a single student; of several, each at the largest size."""
    students = [student for student in data.radii if (table["student"] == student).any()]
    sizes = sorted({int(size) for size in table["size"]})
    symbol = data.words.symbol
    if len(students) == 1:
        return [_Series(students[0], size, f"{symbol} = {size}") for size in sizes]
    return [_Series(one, sizes[-1], f"{data.student_label(one)}, {symbol} = {sizes[-1]}") for one in students]


def _panel(
    axes: Axes, table: pd.DataFrame, rows: list[tuple[str, str, str]], series: list[_Series], colour: str
) -> None:
    """Markers of every series a little below each other, on the bands of their controls."""
    places = {row: place for place, row in enumerate(rows)}
    shades, markers = _looks(series, colour)
    for index, one in enumerate(series):
        own = table[(table["student"] == one.student) & (table["size"] == one.size)]
        here = np.array([places[row] for row in zip(own["division"], own["name"], own["observable"], strict=True)])
        if one.size not in {other.size for other in series[:index]}:
            width = BAND * own["control"].to_numpy()
            band = _BAND_COLOURS[one.size == series[-1].size]
            axes.barh(here, 2 * width, left=-width, height=0.86, color=band, zorder=0.5, linewidth=0)
        shift = 0.5 * ((index + 0.5) / len(series) - 0.5)
        appearance: dict[str, Any] = {"fmt": markers[index], "color": shades[index], "markersize": 3.6}
        errors = own["standard_error"].fillna(0.0)
        axes.errorbar(own["value"], here + shift, xerr=errors, label=one.label, elinewidth=1.0, **appearance)
    if float(table["value"].abs().max()) > _LARGEST_LINEAR:
        axes.set_xscale("symlog", linthresh=_LARGEST_LINEAR)
    axes.axvline(0, color=style.GREY, linewidth=0.9, zorder=0.8)
    axes.grid(visible=False, axis="y")


def _looks(series: list[_Series], colour: str) -> tuple[list[str], list[str]]:
    """Shades, light for the first and dark for the last, and markers."""
    names = [one.label for one in series]
    return list(style.student_shades(names, colour).values()), list(style.student_markers(names).values())


def _name_rows(axes: Axes, rows: list[tuple[str, str, str]]) -> None:
    names = [f"{name} {division}" if division == "pairs" else f"{division} {name}" for division, name, _ in rows]
    words = [
        f"{name}: {observable}".replace("fourth_moment", "4th moment")
        for name, (*_, observable) in zip(names, rows, strict=True)
    ]
    axes.set_yticks(range(len(rows)), words, fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)


def _part_divisions(axes: Axes, rows: list[tuple[str, str, str]]) -> None:
    for place, (row, following) in enumerate(itertools.pairwise(rows)):
        if row[0] != following[0]:
            axes.axhline(place + 0.5, color=style.GREY, linewidth=0.8)


def _series_handles(series: list[_Series]) -> list[Line2D]:
    shades, markers = _looks(series, style.GREY)
    return [
        Line2D([], [], color=shade, marker=marker, linestyle="none", label=one.label)
        for one, shade, marker in zip(series, shades, markers, strict=True)
    ]


def _band_handles(series: list[_Series], symbol: str) -> list[Line2D]:
    sizes = sorted({one.size for one in series})
    return [
        Line2D([], [], color=_BAND_COLOURS[size == sizes[-1]], linewidth=7, label=f"exact fields, {symbol} = {size}")
        for size in dict.fromkeys((sizes[0], sizes[-1]))
    ]
