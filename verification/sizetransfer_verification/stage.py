"""A small experiment on which executors and listeners are tried, with students that break, die or take their time.

The hooks below bring the students in; :func:`registry` is the one that worker processes find by its name.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from sizetransfer.contracts.errors import ConformanceError
from sizetransfer.contracts.events import Event, ignore
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo, StudentSpec
from sizetransfer.contracts.student import Student
from sizetransfer.registry import BUILT_IN_MODULES, Registry
from sizetransfer.registry.hooks import ExecutorFactory, hookimpl
from sizetransfer.registry.plugins import Plugin
from sizetransfer.runs.opened import Run
from sizetransfer.runs.runner import run
from sizetransfer.runs.trials import Experiment

Mode = Literal["healthy", "raises", "deadly", "slow"]
SOURCE = f"{__name__}:registry"
SUBJECT = "executor-under-examination"
IN_PROCESS = "This student ends the process that computes it, and that is the one that runs."
HEARTBEAT = 0.01
"""Seconds between the signs of life of a slow student."""

EXPERIMENT: Mapping[str, Any] = {
    "name": "conformance",
    "teachers": {"ring": {"kind": "gaussian", "dim": 1, "mass": 0.7}},
    "seeds": [0],
    "training": {"size": 6, "steps": 4, "batch": 2, "checkpoint_every": 2},
    "evaluation": {"sizes": [6, 8], "measures": {"error": {"kind": "clean-score", "fields": 4}}},
}

_FACTORIES: dict[str, ExecutorFactory] = {}


class LineStudent(Student):
    """One convolution on a ring, of radius 1 or more, which may be made to fail."""

    def __init__(self, spec: LineStudentSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=spec.radius)
        self.spec = spec
        self.convolution = nn.Conv1d(1, 1, 2 * spec.radius + 1)

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        _MODES[self.spec.mode](self.spec)
        return self.precondition(lambda scaled: self.convolution(self.pad(scaled, self.spec.radius)), x, sigma)


class LineStudentSpec(StudentSpec):
    """A small student for rings.

    Attributes:
        mode: what happens when it is asked: nothing, an exception, the end of the process, or a pause.
        runner: the process that runs the experiment, which is never ended.
        heartbeat: file to which a slow student writes whenever it is asked.
    """

    kind: Literal["conformance-line"] = "conformance-line"
    radius: int = 1
    mode: Mode = "healthy"
    runner: str = ""
    heartbeat: str = ""

    def build(self, field: FieldInfo) -> LineStudent:
        return LineStudent(self, field)


def this_process() -> str:
    """A name of this process, on this machine."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _raise(spec: LineStudentSpec) -> None:
    raise ZeroDivisionError("inside a student")


def _die(spec: LineStudentSpec) -> None:
    if spec.runner == this_process():
        raise ConformanceError(IN_PROCESS)
    os.kill(os.getpid(), signal.SIGKILL)


def _beat(spec: LineStudentSpec) -> None:
    with Path(spec.heartbeat).open("a", encoding="utf-8") as file:
        file.write(".")
    time.sleep(HEARTBEAT)


_MODES: Mapping[Mode, Callable[[LineStudentSpec], None]] = {
    "healthy": lambda spec: None,
    "raises": _raise,
    "deadly": _die,
    "slow": _beat,
}


@hookimpl
def register_students(register: Callable[[type[StudentSpec]], None]) -> None:
    """Register the student of the stage."""
    register(LineStudentSpec)


@hookimpl
def register_executors(register: Callable[[str, ExecutorFactory], None]) -> None:
    """Register the executor under examination, in the process that examines it."""
    for name, factory in _FACTORIES.items():
        register(name, factory)


def registry(plugins: Sequence[Plugin] = ()) -> Registry:
    """The built-ins and what stands above, with no plugins but those given."""
    return Registry(built_in=(*BUILT_IN_MODULES, __name__), find_plugins=lambda: list(plugins))


def student(mode: Mode = "healthy", **fields: object) -> dict[str, object]:
    """The specification of a student of the stage."""
    return {"kind": "conformance-line", "mode": mode, **fields}


HEALTHY = {"narrow": student(radius=1), "wide": student(radius=2)}


def experiment(students: Mapping[str, Mapping[str, object]], **changes: object) -> Experiment:
    """The experiment with these students."""
    return Experiment.parse({**EXPERIMENT, "students": students, **changes}, lookup=registry().lookup)


def run_with(
    factory: ExecutorFactory | str,
    students: Mapping[str, Mapping[str, object]],
    path: Path,
    *,
    on_event: Callable[[Event], None] = ignore,
    **changes: object,
) -> Run:
    """Run the experiment with a built-in executor, or one that a factory makes.

    Args:
        factory: of the executor, or the name of one that is built in.
        students: by name.
        path: run directory.
        on_event: told of events.
        changes: other fields of the experiment.
    """
    name = factory if isinstance(factory, str) else SUBJECT
    if not isinstance(factory, str):
        _FACTORIES[SUBJECT] = factory
    try:
        spec = experiment(students, **changes)
        return run(spec, path, executor=name, workers=2, registry=SOURCE, device="cpu", on_event=on_event)
    finally:
        _FACTORIES.pop(SUBJECT, None)


def records_of(found: Run) -> bytes:
    """The records of a run, as they stand in its directory."""
    return (found.path / "records.csv").read_bytes()


@cache
def reference(executor: str, steps: int = 4) -> bytes:
    """The records of two healthy students, ``narrow`` and ``wide``, computed once.

    Args:
        executor: a built-in one.
        steps: of training.
    """
    with TemporaryDirectory() as place:
        training = {**EXPERIMENT["training"], "steps": steps}
        return records_of(run_with(executor, HEALTHY, Path(place) / "run", training=training))


def only(records: bytes, name: str) -> bytes:
    """The records of one student, under the names of the columns."""
    head, *rows = records.splitlines(keepends=True)
    column = head.decode().split(",").index("student")
    return b"".join([head, *(row for row in rows if row.decode().split(",")[column] == name)])
