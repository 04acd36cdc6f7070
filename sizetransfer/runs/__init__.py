"""Experiments and their runs: a grid of trials is read, computed, stored and read back.

:func:`~sizetransfer.runs.loading.load` reads an experiment, :func:`~sizetransfer.runs.runner.run`
runs it, :func:`~sizetransfer.runs.opened.read_run` reads a run back. They are imported when first asked for,
because they need torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sizetransfer.contracts.lazy import names_of
from sizetransfer.registry.hooks import ExecutorFactory, hookimpl

if TYPE_CHECKING:
    from sizetransfer.runs.executors import Executor
    from sizetransfer.runs.extending import measure_run
    from sizetransfer.runs.loading import load
    from sizetransfer.runs.opened import Run, read_run
    from sizetransfer.runs.runner import run
    from sizetransfer.runs.workplace import Workplace

__all__ = ["Run", "load", "measure_run", "read_run", "run"]

_MODULES = {
    "extending": ("measure_run",),
    "loading": ("load",),
    "opened": ("Run", "read_run"),
    "runner": ("run",),
}
__getattr__ = names_of(__name__, _MODULES)


@hookimpl
def register_executors(register: Callable[[str, ExecutorFactory], None]) -> None:
    """Register the executors that need nothing but this machine."""
    register("local", _local)
    register("serial", _serial)


def _local(workplace: Workplace) -> Executor:
    """Several processes of this machine."""
    from sizetransfer.runs.executors import LocalExecutor

    return LocalExecutor(workplace)


def _serial(workplace: Workplace) -> Executor:
    """This process, one trial after another."""
    from sizetransfer.runs.executors import SerialExecutor

    return SerialExecutor(workplace)
