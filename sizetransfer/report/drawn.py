"""Draw registered figures by name: built-in ones, and those of plugins, whose failures are theirs alone."""

from __future__ import annotations

from sizetransfer.drawing import Drawing, Omitted
from sizetransfer.registry import Registry, default_registry
from sizetransfer.registry.plugins import describe
from sizetransfer.report.data import ReportData
from sizetransfer.runs.trials import Experiment


def draw(name: str, data: ReportData, *, registry: Registry | None = None) -> Drawing | Omitted:
    """Draw one figure; call it, and save the figure, inside :func:`sizetransfer.drawing.style.drawing`.

    What goes wrong in a plugin's figure is the reason why it is omitted.

    Raises:
        SpecError: there is no figure of that name.
    """
    entry = (registry or default_registry()).entry("figure", name)
    if entry.plugin.built_in:
        drawing: Drawing | Omitted = entry.value(data)
        return drawing
    try:
        found = entry.value(data)
    except (Exception, SystemExit) as error:
        return Omitted(name, f"{entry.distribution} {entry.version} failed to draw it: {describe(error)}")
    if isinstance(found, Drawing | Omitted) and found.name == name:
        return found
    return Omitted(name, f"{entry.distribution} {entry.version} drew {found!r}, which is no Drawing named {name!r}")


def known_figures(data: ReportData) -> tuple[str, ...]:
    """The figures that a report shows: those that the experiment names; all that there are where it names none."""
    return data.experiment.report.figures or tuple(default_registry().entries("figure"))


def check_figures(experiment: Experiment, registry: Registry | None = None) -> None:
    """Refuse an experiment that asks for a figure that there is not, before anything is computed.

    Raises:
        SpecError: with the nearest names, and whose they are.
    """
    (registry or default_registry()).require("figure", experiment.report.figures, where="report.figures")
