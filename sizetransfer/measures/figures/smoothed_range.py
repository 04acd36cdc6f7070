r"""The figure ``smoothed-range``: effective range of the smoothed score against the noise level (paper eq. (5))."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

from sizetransfer.drawing import Drawing, Omitted, style

if TYPE_CHECKING:
    from sizetransfer.report.data import ReportData

KIND = "smoothed-response"


def smoothed_range(data: ReportData) -> Drawing | Omitted:
    """Range against sigma, a line for each teacher that begins at the clean score, beside the radii in question."""
    parts = _parts(data, r"range_(.+)")
    diagnosed = data.values(KIND, "r_hat")
    if not parts or diagnosed.empty:
        return Omitted("smoothed-range", "no record of a smoothed response")
    part = max(parts, key=lambda name: float(name.removeprefix("range_")))
    size = int(diagnosed["size"].max())
    levels = sorted(diagnosed["coordinate"].unique())
    positions = _positions(levels)
    figure = style.new_figure(6.4, 4.4)
    axes = figure.subplots()
    findings = []
    for index, (teacher, colour) in enumerate(style.teacher_colours(data.experiment.teachers).items()):
        line = _line(data, part, teacher, size, levels)
        beside = [place + 0.06 * index for place in positions]  # ranges are whole numbers: lines would hide each other
        style.plot_estimates(axes, beside, line, color=colour, marker="o", label=teacher)
        axes.plot(beside[:1], line["value"][:1], color=colour, marker="o", markerfacecolor="white", zorder=3)
        blank = [place for place, value in zip(beside, line["value"], strict=True) if math.isnan(value)]
        axes.plot(blank, [_BLANK] * len(blank), color=colour, marker="x", linestyle="none")
        reasons = _reasons(data, teacher, size, levels)
        findings.append(f"{teacher} {', '.join(map(_in_words, line['value'], reasons))}")
    _axes(axes, positions, levels)
    _draw_radii(axes, _radii(data), size)
    style.legend_below(figure, style.teacher_handles(data), _handles())
    return Drawing(
        "smoothed-range",
        "How far the smoothed score responds",
        _caption(part, size, levels, findings) + data.error_bars(),
        figure,
    )


def _caption(part: str, size: int, levels: list[float], findings: list[str]) -> str:
    percent = 100 * float(part.removeprefix("range_"))
    return (
        f"Smallest radius beyond which less than {percent:g} % of the score's response to other sites remains, "
        f"against the noise level, at L = {size}; a student of smaller radius is limited at that noise level. For the "
        f"clean score and at sigma = {', '.join(f'{level:g}' for level in levels)}: {'; '.join(findings)}. "
        "Open circles: the clean score; dotted: receptive radii; crosses at the bottom: levels without an answer. "
        f"On this torus no range exceeds L/2 = {size // 2} (shaded): one that reaches it may be longer. "
    )


_BLANK = 0.25
"""Height at which levels without an answer are marked."""


def _positions(levels: list[float]) -> list[float]:
    """Places along the axis: the clean score at zero, the lowest level at one, decades two apart."""
    return [0.0, *(1 + 2 * math.log10(level / levels[0]) for level in levels)]


def _line(data: ReportData, part: str, teacher: str, size: int, levels: list[float]) -> pd.DataFrame:
    """Values and errors of one teacher: the clean score's, then one for each level; NaN where there is none."""
    columns = ["value", "standard_error"]
    tables = {name: data.values(KIND, name) for name in (part, f"clean_{part}")}
    own = {name: table[(table["teacher"] == teacher) & (table["size"] == size)] for name, table in tables.items()}
    smoothed = own[part].drop_duplicates("coordinate").set_index("coordinate").reindex(levels)[columns]
    clean = own[f"clean_{part}"][columns].reset_index(drop=True).reindex([0])
    return pd.concat([clean, smoothed], ignore_index=True)


def _reasons(data: ReportData, teacher: str, size: int, levels: list[float]) -> list[str]:
    """Why there is no range, were there none: for the clean score, then for each level."""
    table = data.values(KIND, "mixed")
    own = table[(table["teacher"] == teacher) & (table["size"] == size)].drop_duplicates("coordinate")
    mixed = own.set_index("coordinate")["value"].reindex(levels)
    return ["unknown", *("lost in noise" if value == 1 else "not mixed" for value in mixed)]


def _in_words(value: float, reason: str) -> str:
    return f"none ({reason})" if math.isnan(value) else f"{value:g}"


def _handles() -> list[Line2D]:
    return [
        Line2D([], [], color=style.GREY, marker="o", label="smoothed score"),
        Line2D([], [], color=style.GREY, marker="o", markerfacecolor="white", linestyle="none", label="clean score"),
        Line2D([], [], color=style.GREY, linestyle=":", label="receptive radii"),
        Line2D([], [], color=style.GREY, marker="x", linestyle="none", label="no answer"),
    ]


def _parts(data: ReportData, pattern: str) -> list[str]:
    """Parts of the smoothed response whose whole name matches."""
    table = data.estimates
    own = table[table["measure"].isin(data.measures_of(KIND)[:1])]
    return [part for part in own["part"].unique() if re.fullmatch(pattern, part)]


def _radii(data: ReportData) -> list[int]:
    return sorted(int(part.removeprefix("outside_share_")) for part in _parts(data, r"outside_share_(\d+)"))


def _draw_radii(axes: Axes, radii: list[int], size: int) -> None:
    """Dotted lines at the radii, and a shade over the ranges that the torus cannot show."""
    top = max([size / 2 + 0.5, *(radius + 0.5 for radius in radii)])
    axes.set_ylim(0, top)
    axes.axhspan(size / 2, top, color=style.GREY, alpha=0.10, zorder=0)
    for radius in radii:
        axes.axhline(radius, color=style.GREY, linestyle=":", linewidth=1.4, zorder=1)
        axes.annotate(f"$R$ = {radius}", (1.01, radius), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)


def _axes(axes: Axes, positions: list[float], levels: list[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(positions))
    axes.xaxis.set_major_formatter(FixedFormatter(["clean", *(f"{level:g}" for level in levels)]))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.25, positions[-1] + 0.4)
    axes.set_xlabel(r"noise level $\sigma$")
    axes.set_ylabel(r"effective range $R_\epsilon(\sigma)$ (lattice steps)")
