"""How figures look: colours, markers, labels, and files that do not change from one drawing to the next.

Colours are those of Okabe and Ito (2008), told apart with every common colour vision; a teacher keeps its colour in
all figures of a report. A student's radius is a shade of it, light for small and dark for large, and a marker.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

from sizetransfer.contracts.domain import LATTICE_WORDS, SizeWords

if TYPE_CHECKING:
    from sizetransfer.report.data import ReportData

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B5B5B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "h", "<")
VERDICT_COLOURS: Mapping[str, str] = {
    "transfers": "#0B6E4F",
    "radius-limited": "#8A5A00",
    "not learned": "#5D3A9B",
    "degrades with size": "#A3242B",
    "undecided": "#55606B",
}
GREY = "#5B5B5B"
_LABEL_HEIGHT = 12.0  # points between the middles of two labels

_PARAMETERS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E6E8",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "figure.dpi": 100,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "sizetransfer",
    "mathtext.fontset": "dejavusans",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Within the block, figures are made in the report's style; matplotlib's own settings come back afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_PARAMETERS)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, with its own canvas and a layout that keeps labels apart."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def settle(figure: Figure) -> None:
    """Lay the figure out once and for all; each saving would do it again."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def to_bytes(figure: Figure, file_format: str) -> bytes:
    """The figure as ``png`` (150 dots an inch) or ``svg``, the same bytes for the same figure."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else {"Software": None}
    figure.savefig(buffer, format=file_format, dpi=150, metadata=metadata)
    return buffer.getvalue()


def teacher_colours(teachers: Iterable[str]) -> dict[str, str]:
    """One colour for each teacher, in order; they repeat after seven."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(teachers)}


def shade(colour: str, position: float) -> str:
    """The colour mixed with white (``position`` 0) or with black (1), itself in between."""
    towards, amount = (1.0, 0.55 * (0.6 - position) / 0.6) if position < 0.6 else (0.0, 0.45 * (position - 0.6) / 0.4)
    red, green, blue = ((1 - amount) * part + amount * towards for part in to_rgb(colour))
    return to_hex((red, green, blue))


def student_shades(students: Sequence[str], colour: str) -> dict[str, str]:
    """Shades of one colour for students in order of their radius; a single student gets the colour itself."""
    if len(students) == 1:
        return {students[0]: colour}
    return {name: shade(colour, index / (len(students) - 1)) for index, name in enumerate(students)}


def student_markers(students: Sequence[str]) -> dict[str, str]:
    """One marker for each student, in order."""
    return {name: MARKERS[index % len(MARKERS)] for index, name in enumerate(students)}


CHARACTER = 0.035
"""Width of a character of a tick's label, as a share of a panel's axis."""


def size_axis(axes: Axes, sizes: Iterable[int], *, margin: float = 1.08, words: SizeWords = LATTICE_WORDS) -> None:
    """Give the horizontal axis a logarithmic scale with a tick at every size, called by these words."""
    ticks = sorted(set(sizes))
    axes.set_xscale("log", base=2)
    _mark_all(axes, ticks)
    axes.set_xlim(ticks[0] / margin, ticks[-1] * margin)
    axes.set_xlabel(words.axis)


def noise_axis(axes: Axes, levels: Iterable[float]) -> None:
    """Give the horizontal axis a logarithmic scale with a tick at every noise level."""
    axes.set_xscale("log")
    _mark_all(axes, sorted(set(levels)))
    axes.set_xlabel(r"noise level $\sigma$")


def named_ticks(axes: Axes, names: Mapping[float, str]) -> None:
    """A tick with its name at each place of the horizontal axis; long names stand upright."""
    upright = max(map(len, names.values()), default=0) * len(names) * CHARACTER > 1
    axes.set_xticks(list(names), list(names.values()), rotation=90 if upright else 0)


def _mark_all(axes: Axes, ticks: Sequence[float]) -> None:
    shown = apart(ticks)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_major_formatter(FixedFormatter([_label(tick) for tick in shown]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def apart(ticks: Sequence[float]) -> list[float]:
    """Leave out ticks whose labels would touch the next larger one's on a logarithmic axis."""
    span = math.log(ticks[-1] / ticks[0]) or 1.0
    kept = [ticks[-1]]
    for tick in reversed(ticks[:-1]):
        if math.log(kept[-1] / tick) > CHARACTER * max(len(_label(kept[-1])), len(_label(tick))) * span:
            kept.append(tick)
    return kept[::-1]


def _label(tick: float) -> str:
    return f"{tick:.3g}" if tick < 1 else f"{tick:g}"


def mark_training_size(axes: Axes, size: int | None) -> None:
    """Draw a dotted line at the training size, if there is one; captions say what it is."""
    if size is not None:
        axes.axvline(size, color=GREY, linestyle=":", linewidth=1.2, zorder=1)


def plot_estimates(axes: Axes, x: Any, rows: pd.DataFrame, **style: Any) -> None:
    """Draw values with error bars of one standard error; a missing standard error draws none."""
    axes.errorbar(x, rows["value"], yerr=rows["standard_error"].fillna(0.0), capsize=2.5, elinewidth=1.1, **style)


def label_line_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write ``(x, y, text, colour)`` to the right of the lines' ends, moved up or down until none overlap.

    Call it when the limits of the axis are set.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    low, high = axes.get_ylim()
    points = 72 * figure.get_figheight() * axes.get_position().height
    gap = _LABEL_HEIGHT / points * (high - low)
    order = sorted(ends, key=lambda end: end[1])
    for (x, y, text, colour), place in zip(order, spread([end[1] for end in order], gap), strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(1.02, (place - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 4},
        )


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move ascending positions as little as need be, so that neighbours are at least ``gap`` apart.

    Example:
        >>> spread([0.0, 0.0, 5.0], 1.0)
        [-0.5, 0.5, 5.0]
    """
    clusters: list[tuple[float, int]] = []
    for position in positions:
        centre, count = position, 1
        while clusters and clusters[-1][0] + (clusters[-1][1] + count) * gap / 2 > centre:
            other, size = clusters.pop()
            centre, count = (other * size + centre * count) / (size + count), size + count
        clusters.append((centre, count))
    return [centre + (index - (count - 1) / 2) * gap for centre, count in clusters for index in range(count)]


def teacher_handles(data: ReportData) -> list[Line2D]:
    """Legend entries of the teachers' colours."""
    colours = teacher_colours(data.experiment.teachers)
    return [Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in colours.items()]


def student_handles(data: ReportData) -> list[Line2D]:
    """Legend entries of the students' markers and shades."""
    students = list(data.radii)
    shades, markers = student_shades(students, GREY), student_markers(students)
    return [
        Line2D([], [], color=shades[name], marker=markers[name], linestyle="none", label=data.student_label(name))
        for name in students
    ]


def legend_below(figure: Figure, *groups: Sequence[Line2D]) -> None:
    """Put one legend under the figure in which each group begins a line."""
    longest = max(len(str(handle.get_label())) for group in groups for handle in group) + 6
    fitting = max(1, int(11.5 * figure.get_figwidth()) // longest)
    columns = min(fitting, max(len(group) for group in groups))
    blank = Line2D([], [], linestyle="none", label=" ")
    lines = [group[start : start + columns] for group in groups for start in range(0, len(group), columns)]
    filled = [[*line, *[blank] * (columns - len(line))] for line in lines]
    by_column = [handle for column in zip(*filled, strict=True) for handle in column]
    figure.legend(handles=by_column, loc="outside lower center", ncols=columns)
