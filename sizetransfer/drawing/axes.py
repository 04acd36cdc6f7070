"""What the axes that parts declare are called, and how they are drawn (:mod:`sizetransfer.contracts.parts`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from sizetransfer.contracts.domain import SizeWords
from sizetransfer.contracts.parts import Axis
from sizetransfer.drawing import style


@dataclass(frozen=True)
class AxisStyle:
    """How one axis is told and drawn.

    Attributes:
        title: of the columns of a table: ``noise level σ``.
        draw: sets scale, ticks and label of the horizontal axis, and returns where its coordinates stand.
    """

    title: str
    draw: Callable[[Axes, Sequence[float], SizeWords], Mapping[float, float]]


def _noise(axes: Axes, values: Sequence[float], words: SizeWords) -> Mapping[float, float]:
    """Logarithmic; the clean score, at zero, stands left of the lowest level."""
    positive = sorted({value for value in values if value > 0})
    places = {value: value for value in positive}
    if not positive or min(values) > 0:
        style.noise_axis(axes, positive or values)
        return places or {value: value for value in values}
    left = positive[0] * (positive[0] / positive[-1] if len(positive) > 1 else 0.3) ** 0.25 / 1.5
    axes.set_xscale("log")
    axes.set_xlabel(r"noise level $\sigma$")
    shown = style.apart(positive)
    axes.xaxis.set_major_locator(FixedLocator([left, *shown]))
    axes.xaxis.set_major_formatter(FixedFormatter(["clean", *(f"{value:.3g}" for value in shown)]))
    axes.xaxis.set_minor_locator(NullLocator())
    return {**places, 0.0: left}


def _size(axes: Axes, values: Sequence[float], words: SizeWords) -> Mapping[float, float]:
    style.size_axis(axes, [int(value) for value in values], words=words)
    return {value: value for value in values}


def _steps(title: str) -> Callable[[Axes, Sequence[float], SizeWords], Mapping[float, float]]:
    """Linear, with ticks at whole numbers."""

    def draw(axes: Axes, values: Sequence[float], words: SizeWords) -> Mapping[float, float]:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(title.format(steps=words.steps))
        return {value: value for value in values}

    return draw


def _numbers(title: str, scale: str) -> Callable[[Axes, Sequence[float], SizeWords], Mapping[float, float]]:
    def draw(axes: Axes, values: Sequence[float], words: SizeWords) -> Mapping[float, float]:
        axes.set_xscale(scale if min(values) > 0 else "linear")
        axes.set_xlabel(title)
        return {value: value for value in values}

    return draw


AXES: Mapping[Axis, AxisStyle] = {
    "size": AxisStyle("size", _size),
    "noise": AxisStyle("noise level σ", _noise),
    "radius": AxisStyle("radius", _steps("radius $R$ ({steps})")),
    "distance": AxisStyle("distance", _steps("distance ({steps})")),
    "coupling": AxisStyle("coupling", _numbers("coupling", "linear")),
    "class": AxisStyle("class", _steps("class")),
    "threshold": AxisStyle("threshold", _numbers("threshold", "log")),
}
"""All axes along which something can be drawn."""
