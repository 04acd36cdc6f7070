"""What figures are made with, by whomever: colours, axes, panels, and what drawing one gives.

It knows neither runs nor measures: a figure stands beside the measure or in the system that it draws, and is registered
from there (``register_figures`` in :mod:`sizetransfer.registry.hooks`).
"""

from sizetransfer.drawing.outcome import Drawing, Omitted
from sizetransfer.drawing.style import new_figure

__all__ = ["Drawing", "Omitted", "new_figure"]
