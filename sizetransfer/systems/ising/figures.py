r"""The figures of critical spins, against the coupling of the teachers (the paper's figure 4) and against the size.

- ``ising-response``: shell response :math:`\sum_{d(0,j)=p}\partial s_0/\partial x_j` of the exact, the best local and
  the learned smoothed score at x = 0 and at noisy fields; the exact response beyond the radius; the correlation length
  of the posterior; and the error of the score, split into locality and training;
- ``ising-size``: susceptibility, correlations beyond the radius and the budget of Theorem 1 without field against L.

The coupling is that of the teacher's specification. Teachers that have none, or share one, stand in the order of the
experiment under their names.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from sizetransfer.drawing import Drawing, Omitted, style
from sizetransfer.measures.shell_response import ShellResponseSpec
from sizetransfer.report.data import ReportData
from sizetransfer.systems.ising import CRITICAL, IsingCoupling
from sizetransfer.systems.ising.zero_field_measure import ZeroFieldSpec

RESPONSE, ZERO_FIELD = "shell-response", "zero-field"
EXPONENT = 7 / 4
"""gamma/nu of the two-dimensional Ising model."""

Key = TypeVar("Key", float, str)

DECADES = 1e8
"""What a logarithmic axis of responses or errors spans at most: what is smaller matters to nobody."""

EXACT, LOCAL = "#222222", style.COLOURS[0]


@dataclass(frozen=True)
class CouplingAxis:
    """Where teachers stand along an axis.

    Attributes:
        places: of every teacher, ascending.
        coupled: whether the places are couplings in units of the critical one, or mere positions.
    """

    places: Mapping[str, float]
    coupled: bool

    @classmethod
    def of(cls, data: ReportData, teachers: Sequence[str]) -> CouplingAxis:
        """The axis of some teachers of an experiment."""
        specs: dict[str, object] = {name: data.experiment.teachers[name] for name in teachers}
        places = {name: spec.coupling / CRITICAL for name, spec in specs.items() if isinstance(spec, IsingCoupling)}
        if len(places) < len(specs) or len({round(place, 9) for place in places.values()}) < len(places):
            return cls({name: float(index) for index, name in enumerate(teachers)}, coupled=False)
        return cls(dict(sorted(places.items(), key=lambda item: item[1])), coupled=True)

    def name(self, teacher: str) -> str:
        """How a sentence calls the teacher."""
        return f"β/βc = {self.places[teacher]:g}" if self.coupled else teacher

    def draw(self, axes: Axes) -> None:
        """Ticks and label of the horizontal axis."""
        if self.coupled:
            axes.set_xlabel(r"$\beta/\beta_c$")
            return
        axes.set_xticks(list(self.places.values()), list(self.places), rotation=30, ha="right")
        axes.set_xlim(-0.5, len(self.places) - 0.5)

    def critical(self) -> list[str]:
        """Teachers at the critical coupling."""
        return [name for name, place in self.places.items() if self.coupled and abs(place - 1) < 1e-9]


# --- ising-response -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Responses:
    """The numbers of one lattice size.

    Attributes:
        data: the run.
        size: sites along an axis.
        axis: of the teachers that have any.
        sigmas: noise levels, ascending.
        students: with their radii, smallest first.
    """

    data: ReportData
    size: int
    axis: CouplingAxis
    sigmas: list[float]
    students: Mapping[str, int | None]

    @classmethod
    def of(cls, data: ReportData) -> _Responses | None:
        found = data.values(RESPONSE, "zero_shell_exact")
        if found.empty:
            return None
        size = int(found["size"].max())
        found = found[found["size"] == size]
        teachers = [name for name in data.experiment.teachers if name in set(found["teacher"])]
        students = {name: radius for name, radius in data.radii.items() if name in set(found["student"])}
        levels = sorted(found["coordinate"].unique())
        return cls(data, size, CouplingAxis.of(data, teachers), levels, students)

    def line(self, part: str, student: str, coordinate: float) -> pd.DataFrame:
        """Values and errors of one part, a row for each teacher in order; NaN where there is none."""
        rows = self.data.values(RESPONSE, part, size=self.size, student=student, coordinate=coordinate)
        own = rows.drop_duplicates("teacher").set_index("teacher").reindex(list(self.axis.places))
        if "student" not in part:
            own["standard_error"] = self._over_fields(part, student, coordinate)
        return own[["value", "standard_error"]].reset_index(drop=True)

    def _over_fields(self, part: str, student: str, coordinate: float) -> pd.Series:
        """Standard errors over the fields of all seeds, by teacher: where nothing is trained, seeds are but fields."""
        table = self.data.run.records
        own = table["measure"].isin(self.data.measures_of(RESPONSE)[:1])
        asked = own & (table["part"] == part) & (table["student"] == student)
        rows = table[asked & (table["size"] == self.size) & (table["coordinate"] == coordinate)]
        groups = rows["standard_error"].groupby(rows["teacher"])
        return groups.agg(lambda errors: math.sqrt(float((errors**2).sum())) / len(errors))

    def plot(self, axes: Axes, line: pd.DataFrame, **looks: object) -> None:
        if not self.axis.coupled:
            looks["linestyle"] = "none"  # names have no order that a line could follow
        if line["value"].notna().any():
            style.plot_estimates(axes, list(self.axis.places.values()), line, **looks)

    @property
    def first(self) -> str:
        """The student whose trials' exact numbers are drawn: all have the same."""
        return next(iter(self.students))

    @property
    def radius(self) -> int | None:
        """The smallest radius of the students."""
        return next((radius for radius in self.students.values() if radius is not None), None)

    @property
    def probe(self) -> int:
        """Distance of the shell."""
        spec = _spec(self.data, RESPONSE)
        return spec.probe if isinstance(spec, ShellResponseSpec) else ShellResponseSpec().probe

    def colours(self) -> dict[float, str]:
        """One colour for each noise level."""
        return _graded(self.sigmas)


def ising_response(data: ReportData) -> Drawing | Omitted:
    """Shell responses at x = 0 and at noisy fields, tails, correlation lengths and errors against the coupling."""
    found = _Responses.of(data)
    if found is None:
        return Omitted("ising-response", "no record of a shell response")
    count = len(found.sigmas)
    figure = style.new_figure(max(3.3 * count, 9.9), 9.4)
    grid = figure.add_gridspec(3, 3 * count)
    for index, sigma in enumerate(found.sigmas):
        for row, (prefix, where) in enumerate((("zero_", "at $x = 0$"), ("", "noisy fields"))):
            axes = figure.add_subplot(grid[row, 3 * index : 3 * index + 3])
            _shell_panel(axes, found, sigma, prefix)
            axes.set_title(rf"$\sigma$ = {sigma:g}, {where}", loc="left")
    bottom = [figure.add_subplot(grid[2, count * index : count * (index + 1)]) for index in range(3)]
    _tail_panel(bottom[0], found)
    _length_panel(bottom[1], found)
    _error_panel(bottom[2], found)
    for axes in figure.axes:
        found.axis.draw(axes)
    style.legend_below(figure, _score_handles(found), _level_handles(found))
    return Drawing(
        "ising-response", "Response of the smoothed score: exact, at best, learned", _response_caption(found), figure
    )


def _shell_panel(axes: Axes, found: _Responses, sigma: float, prefix: str) -> None:
    found.plot(axes, found.line(f"{prefix}shell_exact", found.first, sigma), color=EXACT, marker="o")
    looks = {"color": LOCAL, "marker": "s", "markerfacecolor": "white", "linestyle": "--"}
    drawn = set()
    for student, radius in found.students.items():
        if radius not in drawn:
            found.plot(axes, found.line(f"{prefix}shell_local", student, sigma), **looks)
            drawn.add(radius)
    for student, looks in _learned(found).items():
        found.plot(axes, found.line(f"{prefix}shell_student", student, sigma), **looks)
    axes.axhline(0, color=style.GREY, linewidth=0.8, zorder=1)
    axes.set_ylabel(f"shell response, distance {found.probe}")


def _tail_panel(axes: Axes, found: _Responses) -> None:
    radius = found.radius
    axes.set_title("exact response out of reach", loc="left")
    axes.set_ylabel(f"$T_R$ at $R$ = {radius}")
    lines = [
        (found.line(f"{prefix}tail_exact_{sigma:g}", found.first, float(radius)), colour, prefix)
        for sigma, colour in found.colours().items()
        for prefix in ("zero_", "")
        if radius is not None
    ]
    seen = [one for one in lines if (one[0]["value"] > 0).any()]
    for line, colour, prefix in seen:
        found.plot(axes, _positive(line), color=colour, **_fields_look(prefix))
    if seen:
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(axes.get_ylim()[0], axes.get_ylim()[1] / DECADES))
    else:
        axes.text(0.5, 0.5, "every site is within reach", transform=axes.transAxes, ha="center", color=style.GREY)


def _positive(line: pd.DataFrame) -> pd.DataFrame:
    """What a logarithmic axis can show: positive values, and error bars that end above zero."""
    kept = line.where(line["value"] > 0)
    return kept.assign(standard_error=kept["standard_error"].clip(upper=0.9 * kept["value"]))


def _length_panel(axes: Axes, found: _Responses) -> None:
    axes.set_title("reach of the posterior", loc="left")
    axes.set_ylabel(r"correlation length $\xi$ (lattice steps)")
    for sigma, colour in found.colours().items():
        found.plot(axes, found.line("correlation_length", found.first, sigma), color=colour, **_fields_look(""))
    # Without field the posterior is the clean law at every noise level.
    line = found.line("zero_correlation_length", found.first, found.sigmas[0])
    found.plot(axes, line, color=EXACT, **_fields_look("zero_"))
    for radius in {radius for radius in found.students.values() if radius is not None}:
        axes.axhline(radius, color=style.GREY, linestyle=":", linewidth=1.4, zorder=1)
        axes.annotate(f"$R$ = {radius}", (0.03, radius), xycoords=("axes fraction", "data"), va="bottom")
    axes.set_ylim(bottom=0)


def _error_panel(axes: Axes, found: _Responses) -> None:
    axes.set_title("error at noisy fields", loc="left")
    axes.set_ylabel("relative RMSE of the score")
    lines = []
    for sigma, colour in found.colours().items():
        for student, looks in _learned(found).items():
            lines.append((found.line("student_error", student, sigma), {**looks, "color": colour}))
            best = {"color": colour, "marker": "s", "markerfacecolor": "white", "linestyle": "--"}
            lines.append((found.line(f"local_error_{found.students[student]}", student, sigma), best))
    for line, looks in lines:
        found.plot(axes, _positive(line), **looks)
    if any((line["value"] > 0).any() for line, _ in lines):
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(axes.get_ylim()[0], axes.get_ylim()[1] / DECADES))


def _fields_look(prefix: str) -> dict[str, object]:
    """Open diamonds and dashes for x = 0, dots for noisy fields."""
    if prefix:
        return {"marker": "D", "markerfacecolor": "white", "linestyle": "--"}
    return {"marker": "o"}


def _learned(found: _Responses) -> dict[str, dict[str, str]]:
    """Colour and marker of what each student learned; circles and squares are the exact and the best score."""
    shades = style.student_shades(list(found.students), style.COLOURS[1])
    markers = itertools.cycle(style.MARKERS[2:])
    return {student: {"color": colour, "marker": next(markers)} for student, colour in shades.items()}


def _score_handles(found: _Responses) -> list[Line2D]:
    handles = [
        Line2D([], [], color=EXACT, marker="o", label="exact"),
        Line2D([], [], color=LOCAL, marker="s", markerfacecolor="white", linestyle="--", label="best at $R$"),
    ]
    for student, looks in _learned(found).items():
        label = f"learned, {found.data.student_label(student)}"
        handles.append(Line2D([], [], color=looks["color"], marker=looks["marker"], label=label))
    return handles


def _level_handles(found: _Responses) -> list[Line2D]:
    levels = [Line2D([], [], color=c, linewidth=3, label=rf"$\sigma$ = {s:g}") for s, c in found.colours().items()]
    still = Line2D([], [], color=style.GREY, label="$x = 0$", marker="D", markerfacecolor="white", linestyle="--")
    return [*levels, still, Line2D([], [], color=style.GREY, marker="o", label="noisy fields")]


def _response_caption(found: _Responses) -> str:
    last = list(found.axis.places)[-1]
    levels = ", ".join(f"{sigma:g}" for sigma in found.sigmas)
    return (
        f"Rows of the response of the smoothed score at L = {found.size}, summed with their signs over the sites at "
        f"Chebyshev distance {found.probe}, at σ = {levels}: exactly (eq. (22)), of the best score of the student's "
        "radius, and as learned. Top: x = 0, for ferromagnets the field of the largest response. Middle: noisy "
        "fields of the teacher, which are what a diffusion model meets. Where exact and best local responses agree, "
        "the radius hides nothing, and what the student lacks it did not learn. "
        f"At {found.axis.name(last)}: {_findings(found)}. "
        f"Bottom left: the exact response beyond the radius, T_R (eq. (5)). Bottom middle: second-moment correlation "
        "length of the posterior covariances, at x = 0 that of the clean law, and the radius. Bottom right: error of "
        "the student's score (filled) and of the best score of its radius (open), which is what locality costs; "
        "what is not drawn is zero or lies below the axis. "
        "Responses are exact at each field, and means over fields are estimates; at x = 0 nothing is averaged but the "
        "students of several seeds. Error bars where nothing is trained: standard error over the fields of all seeds; "
        "of what is learned: " + found.data.error_bars().removeprefix("Error bars: ")
    )


def _findings(found: _Responses) -> str:
    """Exact, best local and learned shell responses of the last teacher, for every noise level."""
    sentences = []
    for prefix, where in (("zero_", "at x = 0"), ("", "at noisy fields")):
        for sigma in found.sigmas:
            numbers = [f"{_last(found, f'{prefix}shell_exact', found.first, sigma)} exactly"]
            for student in found.students:
                local = _last(found, f"{prefix}shell_local", student, sigma)
                numbers += [f"{local} at best"] if local else []
                learned = _last(found, f"{prefix}shell_student", student, sigma)
                numbers.append(f"{learned} learned{_by(found, student)}")
            sentences.append(f"{where}, σ = {sigma:g}: {', '.join(numbers)}")
    return "; ".join(sentences)


def _by(found: _Responses, student: str) -> str:
    """Which student, where there are several."""
    return f" by {found.data.student_label(student)}" if len(found.students) > 1 else ""


def _last(found: _Responses, part: str, student: str, sigma: float) -> str:
    row = found.line(part, student, sigma).iloc[-1]
    value, error = float(row["value"]), float(row["standard_error"])
    if math.isnan(value):
        return ""
    return f"{value:.3g} ± {error:.1g}" if error > 0 else f"{value:.3g}"


# --- ising-size ---------------------------------------------------------------------------------------------------


def ising_size(data: ReportData) -> Drawing | Omitted:
    """Susceptibility, correlations beyond the radius and Theorem 1's budget against L, a line for each teacher."""
    susceptibility = data.values(ZERO_FIELD, "susceptibility")
    if susceptibility["size"].nunique() < 2:
        return Omitted("ising-size", "no record of spins without field at two sizes")
    teachers = [name for name in data.experiment.teachers if name in set(susceptibility["teacher"])]
    axis = CouplingAxis.of(data, teachers)
    outside = data.values(ZERO_FIELD, "outside")
    radius = min([one for one in data.radii.values() if one is not None] or [outside["coordinate"].min()])
    outside = outside[(outside["coordinate"] == radius) & (outside["value"] > 0)]
    budget = data.values(ZERO_FIELD, "budget")
    panels = [
        (susceptibility, r"susceptibility $\chi_L$"),
        (outside, rf"$\sum_{{d(0,j)>{radius:g}}}\langle s_0 s_j\rangle$"),
        (budget, "budget of Theorem 1"),
    ]
    panels = [(rows, label) for rows, label in panels if not rows.empty]
    figure = style.new_figure(3.4 * len(panels) + 0.2, 4.2)
    colours = _graded(list(axis.places))
    for axes, (rows, label) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        _size_panel(axes, rows, axis, colours)
        axes.set_ylabel(label)
    handles = [Line2D([], [], color=c, marker="o", label=axis.name(t)) for t, c in colours.items()]
    guide = [Line2D([], [], color=EXACT, linestyle="--", label="slope 7/4")] if axis.critical() else []
    style.legend_below(figure, [*handles, *guide])
    caption = _size_caption(data, axis, susceptibility, budget, radius)
    return Drawing("ising-size", "Spins without field, size by size", caption, figure)


def _size_panel(axes: Axes, rows: pd.DataFrame, axis: CouplingAxis, colours: Mapping[str, str]) -> None:
    style.size_axis(axes, rows["size"])
    axes.set_yscale("log")
    for teacher, colour in colours.items():
        line = _by_size(rows, teacher)
        axes.plot(line.index, line, color=colour, marker="o", markersize=4)
    for teacher in axis.critical():
        line = _by_size(rows, teacher)
        if len(line) > 1:
            # Tails begin at sizes just above the radius, and reach the exponent later.
            ends = [max(float(line.index[0]), float(line.index[-1]) / 4), float(line.index[-1])]
            guide = [1.25 * float(line.iloc[-1]) * (size / ends[-1]) ** EXPONENT for size in ends]
            axes.plot(ends, guide, color=EXACT, linestyle="--", linewidth=1.2, zorder=1)


def _by_size(rows: pd.DataFrame, teacher: str) -> pd.Series:
    own = rows[rows["teacher"] == teacher].drop_duplicates("size").sort_values("size")
    return own.set_index("size")["value"]


def _exponent(rows: pd.DataFrame, teacher: str) -> float:
    """Slope between the two largest sizes in logarithms; NaN where there are none."""
    line = _by_size(rows, teacher)
    if len(line) < 2 or not (line > 0).all():
        return math.nan
    sizes, values = line.index.to_numpy(dtype=float), line.to_numpy(dtype=float)
    # Adding zero turns a rounded minus zero into zero.
    return round(math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2]), 6) + 0.0


def _size_caption(
    data: ReportData, axis: CouplingAxis, susceptibility: pd.DataFrame, budget: pd.DataFrame, radius: float
) -> str:
    sizes = sorted(susceptibility["size"].unique())[-2:]
    slopes = "; ".join(f"{axis.name(teacher)}: {_exponent(susceptibility, teacher):.3f}" for teacher in axis.places)
    guide = "; the dashed line has the slope 7/4 of the critical coupling" if axis.critical() else ""
    spec = _spec(data, ZERO_FIELD)
    levels = f" between σ = {spec.sigma_min:g} and {spec.sigma_max:g}" if isinstance(spec, ZeroFieldSpec) else ""
    bound = (
        ""
        if budget.empty
        else (
            f" Right: what a score error of one everywhere{levels} can cost a site, by Theorem 1: a certificate, "
            "linear in the susceptibility, and so uniform in the size where that stays bounded: below βc"
            f" ({_budgets(axis, budget)})."
        )
    )
    return (
        f"Spins without field, exactly. Left: susceptibility, whose exponent between L = {sizes[0]} and {sizes[-1]} is "
        f"{slopes}{guide}. Middle: the correlations beyond R = {radius:g}, which over v² are the response tail at "
        f"x = 0, and for ferromagnets the largest of any field.{bound} Correlations are exact at every size; nothing "
        "here is estimated, and there are no error bars."
    )


def _budgets(axis: CouplingAxis, budget: pd.DataFrame) -> str:
    ends = {teacher: _by_size(budget, teacher) for teacher in axis.places}
    return "; ".join(
        f"{axis.name(teacher)}: {line.iloc[0]:.3g} at L = {line.index[0]}, {line.iloc[-1]:.3g} at {line.index[-1]}"
        for teacher, line in ends.items()
        if len(line)
    )


# --- both ---------------------------------------------------------------------------------------------------------


def _spec(data: ReportData, kind: str) -> object:
    """The measure of that kind, as the experiment has it."""
    return next((data.experiment.evaluation.measures[name] for name in data.measures_of(kind)), None)


def _graded(keys: Sequence[Key]) -> dict[Key, str]:
    """Colours from light to dark."""
    scale = mpl.colormaps["viridis_r"]
    return {key: to_hex(scale(0.15 + 0.8 * index / max(1, len(keys) - 1))) for index, key in enumerate(keys)}
