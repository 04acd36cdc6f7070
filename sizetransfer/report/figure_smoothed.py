r"""The figure ``smoothed-range``: effective range of the smoothed score against the noise level (paper eq. (5))."""

from __future__ import annotations

import math
import re

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from sizetransfer.diagnosis import measure_name
from sizetransfer.report import style
from sizetransfer.report.data import ReportData
from sizetransfer.report.drawing import Drawing, Omitted


def smoothed_range(data: ReportData) -> Drawing | Omitted:
    """Range against sigma, a line for each teacher, beside the clean score's range and the radii in question."""
    parts = _parts(data, r"range_(.+)")
    if not parts:
        return Omitted("smoothed-range", "no record of a smoothed response")
    part = max(parts, key=lambda name: float(name.removeprefix("range_")))
    rows = data.values("smoothed-response", part)
    clean = data.values("smoothed-response", f"clean_{part}")
    figure = style.new_figure(6.4, 4.4)
    axes = figure.subplots()
    levels = sorted(data.values("smoothed-response", "r_hat")["coordinate"].unique())
    size = int(clean["size"].max())
    for index, (teacher, colour) in enumerate(style.teacher_colours(data.experiment.teachers).items()):
        own = rows[(rows["teacher"] == teacher) & (rows["size"] == size)].drop_duplicates("coordinate")
        line = own.set_index("coordinate").reindex(levels)  # a level without a range breaks the line
        beside = [level * 1.03**index for level in levels]  # ranges are whole numbers: lines would hide each other
        style.plot_estimates(axes, beside, line, color=colour, marker="o", label=teacher)
        for value in clean[(clean["teacher"] == teacher) & (clean["size"] == size)]["value"].unique():
            axes.axhline(value, color=colour, linestyle="--", linewidth=1.1, zorder=1)
    _axes(axes, levels, _radii(data), size)
    handles = [
        Line2D([], [], color=style.GREY, marker="o", label="smoothed score"),
        Line2D([], [], color=style.GREY, linestyle="--", label="clean score"),
        Line2D([], [], color=style.GREY, linestyle=":", label="receptive radii"),
    ]
    style.legend_below(figure, style.teacher_handles(data), handles)
    epsilon = float(part.removeprefix("range_"))
    return Drawing(
        "smoothed-range",
        "How far the smoothed score responds",
        f"Smallest radius beyond which less than {100 * epsilon:g} % of the score's response to other sites remains, "
        f"against the noise level, at L = {size}. A student of smaller radius is limited at that noise level. Dashed: "
        "the clean score; dotted: receptive radii. Levels at which the chains had not mixed, or noise hid the tail, "
        f"are left out. On a torus no range exceeds L/2 = {size // 2}. {data.error_bars()}",
        figure,
    )


def _parts(data: ReportData, pattern: str) -> list[str]:
    """Parts of the smoothed response whose whole name matches."""
    table = data.estimates
    own = table[table["measure"] == measure_name(data.experiment, "smoothed-response")]
    return [part for part in own["part"].unique() if re.fullmatch(pattern, part)]


def _radii(data: ReportData) -> list[int]:
    return sorted(int(part.removeprefix("outside_share_")) for part in _parts(data, r"outside_share_(\d+)"))


def _axes(axes: Axes, levels: list[float], radii: list[int], size: int) -> None:
    for radius in radii:
        if radius <= size // 2:
            axes.axhline(radius, color=style.GREY, linestyle=":", linewidth=1.2, zorder=0)
            axes.annotate(
                f"$R$ = {radius}", (1.01, radius), xycoords=("axes fraction", "data"), va="center", fontsize=8.5
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(levels))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if levels:
        margin = math.sqrt(levels[-1] / levels[0]) ** 0.1 if len(levels) > 1 else 2.0
        axes.set_xlim(levels[0] / margin, levels[-1] * margin)
    axes.set_ylim(0, max(axes.get_ylim()[1], size / 2 * 1.05))
    axes.set_xlabel(r"noise level $\sigma$")
    axes.set_ylabel(r"effective range $R_\epsilon(\sigma)$ (lattice steps)")
