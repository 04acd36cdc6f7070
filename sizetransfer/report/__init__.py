"""Figures and the report of a run, the comparison of two runs, and the picture of a sample.

A figure takes a :class:`ReportData` and returns what :mod:`sizetransfer.drawing` has.
All of it is imported when first asked for, because it needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "ReportData": "data",
    "check_figures": "drawn",
    "write_report": "page",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@hookimpl
def register_figures(register: Callable[[str, FigureFunction], None]) -> None:
    """Register every built-in figure."""
    from sizetransfer.report.figures import BUILT_IN

    for name, function in BUILT_IN.items():
        register(name, function)
