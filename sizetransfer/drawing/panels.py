"""Grids of panels of one size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sizetransfer.drawing import style


@dataclass(frozen=True)
class Panels:
    """A figure with a panel for each name.

    Attributes:
        figure: the whole.
        axes: by name.
        left: the left-most panel of each row, which carries the vertical label.
    """

    figure: Figure
    axes: Mapping[str, Axes]
    left: tuple[Axes, ...]


def panel_grid(names: Sequence[str], *, width: float, height: float, share_y: bool = False) -> Panels:
    """A grid with one panel for each name, three in a row.

    Args:
        names: of the panels.
        width, height: of one panel, in inches.
        share_y: whether all panels have one vertical scale.
    """
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = style.new_figure(max(width * columns, 4.6) + 0.4, height * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y)
    flat = list(grid.flat)
    for empty in flat[len(names) :]:
        empty.remove()
    return Panels(figure, dict(zip(names, flat, strict=False)), tuple(grid[:, 0]))
