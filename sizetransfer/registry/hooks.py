"""The hooks through which teachers, students, measures, figures, experiments, executors and commands come in.

A plugin is any installed distribution with an entry point in the group ``sizetransfer``::

    [project.entry-points.sizetransfer]
    my-student = "my_package.plugin"

The entry point names a module (or any object) with functions marked :data:`hookimpl`, each with the name of one
of the hooks below. It takes as many of the hook's arguments as it needs, by their names. What is built in comes in
through the same hooks.

Contract of every hook:

- Import what is heavy (torch, the module of the teacher itself) inside the function: the plugin's module is
  imported whenever plugins are listed, its functions are called when something of their sort is needed.
- A function may be called at most once in a process, except ``on_event``.
- Whatever a plugin raises is recorded with its distribution and shown by ``sizetransfer plugins``; other plugins
  and commands that do not need it go on.
- The first plugin to register a name keeps it; built-ins come first, then distributions in alphabetical order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pluggy

if TYPE_CHECKING:
    import click

    from sizetransfer.contracts.events import Event
    from sizetransfer.contracts.specs import MeasureSpec, StudentSpec, TeacherSpec
    from sizetransfer.drawing import Drawing, Omitted
    from sizetransfer.report.data import ReportData

PROJECT = "sizetransfer"
"""Name of the pluggy project and of the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook with the function's name."""

ExecutorFactory = Callable[..., Any]
"""Builds an executor; ``sizetransfer.runs.executors`` says with which arguments."""

FigureFunction: TypeAlias = "Callable[[ReportData], Drawing | Omitted]"
"""Draws a figure of a run, or says why there is none; ``ReportData`` is in ``sizetransfer.report``, what it gives in
``sizetransfer.drawing``."""


@hookspec
def register_teachers(register: Callable[[type[TeacherSpec]], None]) -> None:
    """Register teachers.

    Args:
        register: takes a concrete subclass of ``TeacherSpec`` whose field ``kind`` is a ``Literal`` with one value
            and that value as its default. The kind must be new.

    Example::

        @hookimpl
        def register_teachers(register):
            from my_package.teacher import MyTeacherSpec

            register(MyTeacherSpec)
    """


@hookspec
def register_students(register: Callable[[type[StudentSpec]], None]) -> None:
    """Register students.

    Args:
        register: takes a concrete subclass of ``StudentSpec``, with a ``kind`` as for teachers.
    """


@hookspec
def register_measures(register: Callable[[type[MeasureSpec]], None]) -> None:
    """Register measures.

    Args:
        register: takes a concrete subclass of ``MeasureSpec``, with a ``kind`` as for teachers.
    """


@hookspec
def register_figures(register: Callable[[str, FigureFunction], None]) -> None:
    """Register figures of the report.

    A measure whose parts have an axis gets a figure by its declaration alone (``sizetransfer.contracts.parts``);
    register one where that is not enough, and name it in the ``figures`` of the measure that it draws.

    Args:
        register: takes a new name, by which experiments ask for the figure and by which its files are called (letters,
            digits, ``.``, ``_`` and ``-``), and a function of a ``ReportData`` that returns a ``Drawing`` of that name,
            or ``Omitted`` with the reason why the run has nothing to draw. The first line of its docstring stands in
            ``sizetransfer list figures``.
    """


@hookspec
def register_experiments(register: Callable[[Path], None]) -> None:
    """Register experiment files.

    Args:
        register: takes the path of an existing YAML file; the experiment's name is the file's name without
            ``.yaml``, and must be new.
    """


@hookspec
def register_executors(register: Callable[[str, ExecutorFactory], None]) -> None:
    """Register ways to run the trials of an experiment.

    Args:
        register: takes a new name (``--executor NAME``) and a factory of executors. An executor decides where
            and in which order trials run, never what numbers they give.
    """


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to the command line.

    Args:
        cli: a group to which commands are added, by ``@cli.command()`` or ``cli.add_command``. It holds this
            plugin's commands alone; the names must be new.
    """


@hookspec
def on_event(event: Event) -> None:
    """Be told what happens during a run: trackers and progress displays live here.

    Called in the process that started the run, for every event of every trial, in the order in which they
    arrive. Plugins that listen are imported before the trials begin. It must return quickly, and can change nothing:
    torch's settings and the global random generators are put back.
    After the first exception the plugin is told nothing more; the run goes on.

    Args:
        event: what happened.
    """
