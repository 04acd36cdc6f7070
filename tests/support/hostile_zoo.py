"""A plugin of teachers, students, a measure, executors and a listener, each of which misbehaves in the way it is told.

What misbehaves computes what its healthy model does besides, so that a number that changes shows.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tiny_zoo
import torch

from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import StudentSpec
from sizetransfer.registry.hooks import hookimpl

LISTENER = "HOSTILE_LISTENER"
STARTED = "HOSTILE_STARTED"


class Escape(BaseException):
    """Is not caught by ``except Exception``."""


class UnspeakableError(Exception):
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words for it")

    __repr__ = __str__


def _raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def _settings() -> None:
    """Change what torch has one of, and the global generators."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(3)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True, warn_only=True)


def _generators() -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.rand(7)


def _hang() -> None:
    if STARTED in os.environ:
        Path(os.environ[STARTED]).touch()
    time.sleep(600)


ACTS: dict[str, Callable[[], object]] = {
    "raise": _raises(ZeroDivisionError("on purpose")),
    "exit": lambda: sys.exit(0),
    "end the process": lambda: os._exit(0),
    "escape": _raises(Escape("past except Exception")),
    "raise the unspeakable": _raises(UnspeakableError()),
    "raise a long story": _raises(ValueError("x" * 10**6)),
    "raise half a character": _raises(ValueError("\ud800")),
    "print": lambda: sys.stdout.write("printed on purpose\n"),
    "change settings": _settings,
    "turn gradients off": lambda: torch.set_grad_enabled(False),
    "change the device": lambda: torch.set_default_device("meta"),
    "draw from generators": _generators,
    "make warnings errors": lambda: warnings.simplefilter("error"),
    "change the directory": lambda: os.chdir(tempfile.gettempdir()),
    "hang": _hang,
}


def act(does: str) -> None:
    if does in ACTS:
        ACTS[does]()


class HostileTeacher(tiny_zoo.ScoredWhite):
    def __init__(self, spec: Any, does: str) -> None:
        super().__init__(spec)
        self.does = does

    def sample(self, batch, size, *, generator):
        act(self.does)
        sample = super().sample(1 if self.does == "one field of many" else batch, size, generator=generator)
        if self.does == "another dtype":
            return sample.with_x(sample.x.half())
        if self.does == "nan":
            return sample.with_x(sample.x * torch.nan)
        return sample

    def score(self, sample):
        if self.does == "mutate the sample":
            sample.x.mul_(2)
        return super().score(sample)


class HostileTeacherSpec(tiny_zoo.TinyWhiteSpec):
    kind: Literal["hostile-teacher"] = "hostile-teacher"
    variance: float = 2.0
    does: str = ""
    building: bool = False

    def build(self):
        teacher = HostileTeacher(self, "" if self.building else self.does)
        if self.building:
            act(self.does)
        return teacher


class HostileStudent(tiny_zoo.Line):
    def __init__(self, field, does: str) -> None:
        super().__init__(field, 1)
        self.does = does
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, sigma, context):
        act(self.does)
        if self.does == "mutate the field":
            x.mul_(2)
        if self.does == "count in a buffer":
            self.calls += 1
        score = super().forward(x, sigma, context)
        if self.does == "read the whole field":
            return score + x.mean(-1, keepdim=True)
        changes = {"one row": lambda: score[:1], "another dtype": score.double, "nan": lambda: score * torch.nan}
        return changes[self.does]() if self.does in changes else score


class HostileStudentSpec(StudentSpec):
    kind: Literal["hostile-student"] = "hostile-student"
    does: str = ""
    building: bool = False

    def build(self, field):
        student = HostileStudent(field, "" if self.building else self.does)
        if self.building:
            act(self.does)
        return student


class HostileMeasureSpec(tiny_zoo.TinyErrorSpec):
    kind: Literal["hostile-measure"] = "hostile-measure"
    does: str = ""

    def measure(self, teacher, student, size, *, sigma, seed) -> Iterator[Any]:
        act(self.does)
        if self.does == "mutate weights":
            with torch.no_grad():
                student.convolution.weight.add_(1)
        if self.does == "train":
            student.train()
        if self.does == "nothing":
            return
        yield from super().measure(teacher, student, size, sigma=sigma, seed=seed)
        strange = {
            "raise half way": lambda: act("raise"),
            "negative error": lambda: Measurement("another_rmse", -5.0, 0.1, 4),
            "negative standard error": lambda: Measurement("another", 1.0, -0.1, 4),
            "negative count": lambda: Measurement("another", 1.0, 0.1, -4),
            "the same twice": lambda: Measurement("relative_rmse", 1.0, 0.1, 4),
            "half a character": lambda: Measurement("\ud800", 1.0, 0.1, 4),
            "a value without a repr": lambda: Measurement("another", UnspeakableError(), 0.1, 4),
            "no measurement": lambda: 5.0,
            "nan": lambda: Measurement("another", float("nan"), float("nan"), 4),
        }
        if self.does in strange:
            yield strange[self.does]()


class HostileExecutor:
    def __init__(self, workplace: Any, does: str) -> None:
        self.workplace, self.does = workplace, does

    def run(self, trials, on_event):
        for number, trial in enumerate(trials):
            if number == 1:
                act(self.does)
                if self.does == "give up":
                    return
                if self.does == "no result":
                    yield "finished"
            yield self.workplace.perform(trial, on_event)


@hookimpl
def register_teachers(register):
    register(HostileTeacherSpec)


@hookimpl
def register_students(register):
    register(HostileStudentSpec)


@hookimpl
def register_measures(register):
    register(HostileMeasureSpec)


@hookimpl
def register_executors(register):
    for does in ("raise", "exit", "escape", "give up", "no result", "change settings", "print"):
        name = f"hostile-{does.replace(' ', '-')}"
        register(name, lambda workplace, does=does: HostileExecutor(workplace, does))


@hookimpl
def on_event(event):
    act(os.environ.get(LISTENER, ""))
