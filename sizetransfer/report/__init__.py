"""The report of a run: its page, its tables, and the figures that need to know no single measure.

A figure, whosever, takes a :class:`ReportData` and returns what :mod:`sizetransfer.drawing` has. All of it is imported
when first asked for, because it needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sizetransfer.contracts.lazy import names_of
from sizetransfer.registry.hooks import FigureFunction, hookimpl

if TYPE_CHECKING:
    from sizetransfer.report.data import ReportData
    from sizetransfer.report.drawn import check_figures
    from sizetransfer.report.page import write_report

__all__ = [
    "ReportData",
    "check_figures",
    "write_report",
]

_MODULES = {
    "data": ("ReportData",),
    "drawn": ("check_figures",),
    "page": ("write_report",),
}
__getattr__ = names_of(__name__, _MODULES)


@hookimpl
def register_figures(register: Callable[[str, FigureFunction], None]) -> None:
    """Register the figures of any experiment."""
    from sizetransfer.report.figures import BUILT_IN

    for name, function in BUILT_IN.items():
        register(name, function)
