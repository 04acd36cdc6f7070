"""The figure of a prediction: the response range against the noise, and the light cone of influence weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sizetransfer.contracts.domain import size_words
from sizetransfer.diagnosis import Prediction, ResponseRow
from sizetransfer.drawing import style
from sizetransfer.runs.storage import storage_errors, write_atomically

_DECADES = 6
"""Weights smaller than the largest by more decades than this have the palest colour."""


def write_prediction(prediction: Prediction, directory: Path) -> list[Path]:
    """Write ``prediction.json``, ``prediction.svg`` and ``prediction.png`` and return their paths.

    Raises:
        StorageError: the directory cannot be written.
    """
    with style.drawing():
        figure = draw_prediction(prediction)
        style.settle(figure)
        files = {f"prediction.{suffix}": style.to_bytes(figure, suffix) for suffix in ("svg", "png")}
    text = json.dumps(prediction.to_json(), indent=2, ensure_ascii=False) + "\n"
    files = {"prediction.json": text.encode(), **files}
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(directory / name, content)
    return [directory / name for name in files]


def draw_prediction(prediction: Prediction) -> Figure:
    """Draw the ranges on the left and, where weights are known, the light cone on the right.

    Call it inside :func:`sizetransfer.drawing.style.drawing`.
    """
    panels = 1 if prediction.cone is None else 2
    figure = style.new_figure(5.2 * panels, 4.4)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    handles = _ranges(axes[0], prediction)
    style.legend_below(figure, *handles)
    if prediction.cone is not None:
        _light_cone(axes[1], prediction)
    return figure


def _ranges(axes: Axes, prediction: Prediction) -> list[list[Line2D]]:
    """Range and sufficient radius against sigma, or against the size for the clean score, which has one noise level.

    Curves of different sizes often coincide: those of small sizes are broad and pale, those of large ones narrow and
    dark on top of them, so that all remain visible.

    Returns:
        Handles of the legend below the figure: what is drawn. Sizes, where there are several, have one of their own.
    """
    clean = prediction.source == "clean"
    series = _series(prediction)
    shades = {what: style.student_shades(list(series), colour) for what, (colour, _, _) in _LOOKS.items()}
    widths = np.linspace(1.4 + 2.2 * (len(series) - 1), 1.4, len(series))
    for (label, rows), width in zip(series.items(), widths, strict=True):
        places = [row.size if clean else row.sigma for row in rows]
        for what, (_, marker, line) in _LOOKS.items():
            look = {"color": shades[what][label], "linewidth": width, "markersize": 4 + width, "linestyle": line}
            _line(axes, places, rows, what, {**look, "marker": marker})
    if prediction.radius is not None:
        axes.axhline(prediction.radius, color="black", linewidth=1.0, linestyle=":", zorder=1)
        axes.annotate(
            f"student, $R = {prediction.radius}$",
            (0.01, prediction.radius),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
        )
    if clean:
        style.size_axis(axes, [row.size for row in prediction.rows], words=size_words([prediction.geometry]))
    else:
        style.noise_axis(axes, [row.sigma for row in prediction.rows])
    axes.set_ylim(bottom=-0.3)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"distance ({size_words([prediction.geometry]).steps})")
    axes.set_title(_title(prediction), loc="left")
    quantities = [
        Line2D(
            [],
            [],
            color=style.COLOURS[0],
            marker="o",
            label=rf"range $R_\epsilon$, $\epsilon = {prediction.spec.epsilon:g}$",
        ),
        Line2D([], [], color=style.COLOURS[1], marker="s", label="smallest sufficient radius"),
    ]
    greys = style.student_shades(list(series), style.GREY)
    sizes = [
        Line2D([], [], color=greys[name], linewidth=width, label=name)
        for name, width in zip(series, widths, strict=True)
    ]
    if len(series) > 1:
        axes.legend(handles=sizes, loc="best")
    return [quantities]


_LOOKS: dict[str, tuple[str, str, str]] = {
    "range": (style.COLOURS[0], "o", "-"),
    "sufficient": (style.COLOURS[1], "s", "-"),
}


def _series(prediction: Prediction) -> dict[str, list[ResponseRow]]:
    if prediction.source == "clean":
        return {"clean score": list(prediction.rows)}
    sizes = sorted({row.size for row in prediction.rows})
    letter = size_words([prediction.geometry]).symbol
    return {f"${letter} = {size}$": [row for row in prediction.rows if row.size == size] for size in sizes}


def _line(axes: Axes, places: list[float], rows: list[ResponseRow], what: str, look: dict[str, Any]) -> None:
    values = [getattr(row, what) for row in rows]
    errors = [value.error if value.kind == "estimate" and math.isfinite(value.error) else 0.0 for value in values]
    heights = [value.value for value in values]
    axes.errorbar(places, heights, yerr=errors, capsize=2.5, **look)


def _title(prediction: Prediction) -> str:
    """The pair and its verdict, whose label says whether a model or the best filter of its radius was judged."""
    if prediction.verdict is None:
        return prediction.teacher
    return f"{prediction.teacher}, {prediction.student}\n{prediction.verdict.label}"


def _light_cone(axes: Axes, prediction: Prediction) -> None:
    """Influence weights over distance from the patch and noise level."""
    cone = prediction.cone
    if cone is None:
        return
    weights = np.array(cone.weights)
    top = float(weights.max())
    distances = np.arange(weights.shape[1])
    mesh = axes.pcolormesh(
        distances,
        cone.sigmas,
        np.clip(weights, top * 10.0**-_DECADES, None),
        norm=LogNorm(top * 10.0**-_DECADES, top),
        cmap="YlGnBu",
        shading="nearest",
        rasterized=True,
    )
    levels = [10.0**-power for power in range(4, 0, -1) if weights.min() < 10.0**-power < top]
    if levels:
        axes.contour(distances, cone.sigmas, weights, levels=levels, colors="black", linewidths=0.6)
    if prediction.radius is not None and prediction.radius <= distances[-1]:
        axes.axvline(prediction.radius, color="black", linewidth=1.0, linestyle=":")
        axes.annotate(
            f"$R = {prediction.radius}$",
            (prediction.radius, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
        )
    # Beyond the last weight that has a colour there is nothing to see.
    visible = np.flatnonzero((weights > top * 10.0**-_DECADES).any(0))
    reach = max(int(visible[-1]), prediction.radius or 0) + 1
    axes.set_xlim(-0.5, min(reach, int(distances[-1])) + 0.5)
    figure = axes.get_figure(root=True)
    if figure is not None:
        bar = figure.colorbar(mesh, ax=axes, label=rf"largest influence weight $\omega$ ({cone.kind})", extend="min")
        bar.ax.hlines(levels, 0, 1, colors="black", linewidth=0.6)
    axes.set_yscale("log")
    axes.grid(visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"distance from the patch ({size_words([prediction.geometry]).steps})")
    axes.set_ylabel(r"noise level $\sigma$")
    axes.set_title(f"What the patch can feel, ${size_words([prediction.geometry]).symbol} = {cone.size}$", loc="left")
