"""What drawing a figure gives: the figure with its words, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure with its title and its caption: what to see, and what the error bars are."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Omitted:
    """A figure that this run has no numbers for."""

    name: str
    reason: str
