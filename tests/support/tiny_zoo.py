"""Teachers, students and a measure small enough to run whole experiments in a moment, and ways to die in the middle."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, HasScore, Sample, Teacher
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import FieldInfo, MeasureSpec, StudentSpec, TeacherSpec
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.statistics import root_ratio
from sizetransfer.registry import Registry
from sizetransfer.registry.hooks import hookimpl
from sizetransfer.runs.trials import Experiment

EXPERIMENT = {
    "name": "tiny",
    "teachers": {"white": {"kind": "tiny-white", "variance": 2.0}},
    "students": {"narrow": {"kind": "tiny-line", "radius": 1}},
    "seeds": [0, 1],
    "training": {"size": 6, "steps": 5, "batch": 2, "checkpoint_every": 2, "ema_half_life": 2.0},
    "evaluation": {"sizes": [6, 8], "measures": {"error": {"kind": "tiny-error"}}},
}


class Countdown:
    """Kills this process, as the operating system would, at the n-th time that something happens."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}

    def tick(self, what: str) -> None:
        self.left[what] = self.left.get(what, 0) - 1
        if self.left[what] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


COUNTDOWN = Countdown()


class White(Teacher):
    """Independent Gaussians in one dimension."""

    def __init__(self, spec: TinyWhiteSpec) -> None:
        super().__init__(FieldInfo(dim=1, periodic=True, sigma_data=spec.variance**0.5))
        self.spec = spec
        self.samples = 0

    def sample(self, batch, size, *, generator):
        COUNTDOWN.tick("sample")
        self.samples += 1
        time.sleep(self.spec.seconds)
        if self.spec.seconds:
            Path(os.environ["TINY_PIDS"], str(os.getpid())).touch()
        x = normal((batch, 1, size), generator=generator, like=self.anchor) * self.spec.variance**0.5
        if self.spec.poisoned_after is not None and self.samples > self.spec.poisoned_after:
            x = x * torch.nan
        return Sample(x, Context(self.domain(size)))


class ScoredWhite(White):
    def score(self, sample):
        return -sample.x / self.spec.variance


class TinyWhiteSpec(TeacherSpec):
    kind: Literal["tiny-white"] = "tiny-white"
    variance: float = 1.0
    scored: bool = True
    poisoned_after: int | None = None
    seconds: float = 0.0

    def build(self):
        return ScoredWhite(self) if self.scored else White(self)


class Line(Student):
    """One circular convolution."""

    def __init__(self, field: FieldInfo, radius: int) -> None:
        super().__init__(field, radius=radius)
        self.convolution = nn.Conv1d(1, 1, 2 * radius + 1, padding=radius, padding_mode="circular")

    def forward(self, x, sigma, context):
        return self.precondition(self.convolution, x, sigma)


class Doomed(Line):
    def forward(self, x, sigma, context):
        os.kill(os.getpid(), signal.SIGKILL)
        return x


class TinyLineSpec(StudentSpec):
    kind: Literal["tiny-line"] = "tiny-line"
    radius: int = 1
    deadly: bool = False

    def build(self, field):
        return (Doomed if self.deadly else Line)(field, self.radius)


class TinyErrorSpec(MeasureSpec):
    """Relative error of the student's score."""

    requires = (HasScore,)
    without_effect = frozenset({"batch"})
    kind: Literal["tiny-error"] = "tiny-error"
    fields: int = 4
    batch: int = 4
    breaks_at: int | None = None
    dies_at: int | None = None

    def measure(self, teacher, student, size, *, sigma, seed):
        if size == self.breaks_at:
            raise ZeroDivisionError("by a plugin")
        if size == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        sample = teacher.sample(self.fields, size, generator=stream(seed, "fields"))
        exact = teacher.score(sample)
        level = torch.full((self.fields,), sigma, dtype=exact.dtype)
        error = student(sample.x, level, sample.context) - exact
        yield Measurement.of("relative_rmse", root_ratio(error.square().sum((1, 2)), exact.square().sum((1, 2))))
        yield Measurement.of(
            "noise", root_ratio(expand(level, error).square().sum((1, 2)), exact.square().sum((1, 2))), 1.0
        )


@hookimpl
def register_teachers(register):
    register(TinyWhiteSpec)


@hookimpl
def register_students(register):
    register(TinyLineSpec)


@hookimpl
def register_measures(register):
    register(TinyErrorSpec)


def registry() -> Registry:
    """The zoo and the built-in executors, without whatever else is installed."""
    return Registry(built_in=("tiny_zoo", "sizetransfer.runs"), find_plugins=list)


def experiment(**changes: object) -> Experiment:
    """The small experiment with other fields."""
    return Experiment.parse({**EXPERIMENT, **changes}, lookup=registry().lookup)


def run_until(out: str, data: dict, what: str, count: int) -> None:
    """Run in this process, which dies at the ``count``-th ``what``: sample, replace (a rename) or measured."""
    from sizetransfer.runs.runner import run

    replace = os.replace

    def deadly(source, target):
        COUNTDOWN.tick("replace")
        replace(source, target)

    os.replace = deadly
    COUNTDOWN.left[what] = count
    spec = Experiment.parse(data, lookup=registry().lookup)
    run(spec, out, executor="serial", registry=registry(), device="cpu", on_event=lambda e: COUNTDOWN.tick(e.kind))


def run_locally(out: str, data: dict) -> None:
    """Run with worker processes."""
    from sizetransfer.runs.runner import run

    spec = Experiment.parse(data, lookup=registry().lookup)
    run(spec, out, executor="local", registry="tiny_zoo:registry", device="cpu")
