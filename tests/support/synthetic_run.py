"""A run that was never computed: plausible records of three teachers and three radii, for tests of what reads runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from sizetransfer.contracts.errors import RunError
from sizetransfer.contracts.records import Record
from sizetransfer.contracts.specs import Geometry, MeasureSpec, StudentSpec, TeacherSpec, TrainingSpec
from sizetransfer.registry import default_registry
from sizetransfer.runs.evidence import verdicts
from sizetransfer.runs.trials import EvaluationSpec, Experiment, PaperValue, ReportSpec
from sizetransfer.verdict import Verdict, VerdictSpec

TEACHERS = ("short-range-simple", "medium-range", "long-range-stress")
RADII = {"R=4": 4, "R=8": 8, "R=12": 12}
# The paper's table 3 for the three radii, and how much of it the error grows from the training size.
ERRORS = {
    "short-range-simple": ((0.176, 0.172, 0.170), 0.0),
    "medium-range": ((0.265, 0.163, 0.141), 0.0),
    "long-range-stress": ((0.677, 0.654, 0.661), 0.3),
}
RANGES = {"short-range-simple": 0.4, "medium-range": 2.0, "long-range-stress": 6.0}


class DummyTeacherSpec(TeacherSpec):
    kind: Literal["dummy-teacher"] = "dummy-teacher"

    def build(self):
        raise AssertionError("synthetic runs build nothing")


class DummyStudentSpec(StudentSpec):
    kind: Literal["dummy-student"] = "dummy-student"
    blocks: int = 1

    def build(self, field):
        raise AssertionError("synthetic runs build nothing")


class _DummyMeasure(MeasureSpec):
    """Declares the parts of the built-in measure of its kind, and measures nothing."""

    @classmethod
    def __pydantic_init_subclass__(cls, **keywords: Any) -> None:
        own = default_registry().lookup("measure", cls.kind_name())
        cls.parts, cls.figures = own.parts, own.figures
        super().__pydantic_init_subclass__(**keywords)

    def measure(self, teacher, student, size, *, sigma, seed):
        raise AssertionError("synthetic runs measure nothing")


class CleanScoreSpec(_DummyMeasure):
    kind: Literal["clean-score"] = "clean-score"


class ResponseSpec(_DummyMeasure):
    kind: Literal["response"] = "response"


class JacobianSpec(_DummyMeasure):
    kind: Literal["jacobian"] = "jacobian"


class LinearReferencesSpec(_DummyMeasure):
    kind: Literal["linear-references"] = "linear-references"


class SmoothedScoreSpec(_DummyMeasure):
    kind: Literal["smoothed-score"] = "smoothed-score"


class SmoothedResponseSpec(_DummyMeasure):
    kind: Literal["smoothed-response"] = "smoothed-response"


class DummyGraphSpec(DummyTeacherSpec):
    geometry: ClassVar[Geometry] = "graph"


MEASURES = {
    "clean-score": CleanScoreSpec(),
    "response": ResponseSpec(),
    "jacobian": JacobianSpec(),
    "linear-references": LinearReferencesSpec(),
}


@dataclass(frozen=True)
class SyntheticRun:
    path: Path
    experiment: Experiment
    records: pd.DataFrame
    manifest: Mapping[str, Any] = field(default_factory=lambda: {"device": "cpu", "versions": {"torch": "2"}})
    failures: Sequence[Mapping[str, Any]] = ()
    skipped: Sequence[Mapping[str, Any]] = ()
    report: Path | None = None
    reused: Mapping[str, Any] = field(default_factory=lambda: {"trainings": 0, "measurements": 0})
    histories: dict[tuple[str, str, int], pd.DataFrame] = field(default_factory=dict)

    @property
    def verdicts(self) -> list[Verdict]:
        return verdicts(self.records, self.experiment)

    def training(self, teacher_name: str, student_name: str, seed: int) -> pd.DataFrame:
        try:
            return self.histories[teacher_name, student_name, seed]
        except KeyError:
            raise RunError("The trial is not finished.") from None


def make_experiment(
    *,
    teachers: Sequence[str] = TEACHERS,
    students: Sequence[str] = tuple(RADII),
    seeds: Sequence[int] = (0, 1, 2),
    sizes: Sequence[int] = (24, 64),
    train_size: int = 24,
    report: ReportSpec | None = None,
    verdict: VerdictSpec | None = None,
    title: str = "A synthetic run",
    measures: Mapping[str, MeasureSpec] = MEASURES,
    steps: int = 1500,
    teacher_spec: type[TeacherSpec] = DummyTeacherSpec,
) -> Experiment:
    return Experiment(
        name="synthetic",
        title=title,
        preset="quick",
        teachers={name: teacher_spec(seed=index) for index, name in enumerate(teachers)},
        students={name: DummyStudentSpec(blocks=index) for index, name in enumerate(students)},
        seeds=tuple(seeds),
        training=TrainingSpec(size=train_size, steps=steps),
        evaluation=EvaluationSpec(sizes=tuple(sizes), measures=measures),
        report=report or ReportSpec(),
        verdict=verdict or VerdictSpec(),
    )


def paper_table() -> tuple[PaperValue, ...]:
    errors = (0.0029, 0.0003, 0.0011)
    return tuple(
        PaperValue(
            source="table 3",
            teacher="medium-range",
            student=student,
            measure="clean-score",
            part="relative_rmse",
            value=value,
            standard_error=error,
        )
        for student, value, error in zip(RADII, (0.265, 0.163, 0.141), errors, strict=True)
    )


def record(**changes: Any) -> dict[str, Any]:
    """One row: the clean-score error 0.2 ± 0.001 of R=4 at L = 24, with ``changes``."""
    fields = {
        "experiment": "synthetic",
        "teacher": "medium-range",
        "student": "R=4",
        "radius": 4,
        "seed": 0,
        "train_size": 24,
        "size": 24,
        "sigma": 0.05,
        "measure": "clean-score",
        "part": "relative_rmse",
        "coordinate": math.nan,
        "value": 0.2,
        "standard_error": 0.001,
        "n": 8,
    }
    return Record(**(fields | changes)).row()


def make_records(experiment: Experiment, radii: Mapping[str, int | None] = RADII) -> pd.DataFrame:
    """Records of every trial, of every part that the figures and tables read."""
    generator = np.random.default_rng(0)
    rows = []
    for trial in experiment.trials():
        for size in trial.evaluation.sizes:
            common = {
                "teacher": trial.teacher_name,
                "student": trial.student_name,
                "radius": radii[trial.student_name],
                "seed": trial.seed,
                "train_size": trial.training.size,
                "size": size,
            }
            for measure, part, coordinate, value, error in _numbers(trial, size, radii, generator):
                row = {"measure": measure, "part": part, "coordinate": coordinate, "value": value}
                rows.append(record(**common, **row, standard_error=error))
    return pd.DataFrame(rows)


def _numbers(trial: Any, size: int, radii: Mapping[str, int | None], generator: Any) -> Iterator[tuple[Any, ...]]:
    names = sorted(RADII, key=lambda name: RADII[name])
    radius = radii[trial.student_name]
    place = names.index(trial.student_name) if trial.student_name in names else 0
    errors, growth = ERRORS.get(trial.teacher_name, ((0.3, 0.25, 0.2), 0.0))
    scale = RANGES.get(trial.teacher_name, 3.0)
    progress = math.log(size / 24) / math.log(64 / 24)
    noise = 1 + 0.004 * generator.standard_normal()
    error = errors[place] * (1 - growth * (1 - progress)) * noise
    yield "clean-score", "relative_rmse", math.nan, error, 0.004 * error
    yield "clean-score", "field_std", math.nan, 1.1 * noise, 0.01
    for part, value in (("near_error", 0.8 * error), ("far_error", min(1.05, 3.2 * error * noise))):
        yield "response", part, math.nan, value, 0.03 * value
    seen = math.inf if radius is None else radius
    yield "jacobian", "outside_share", math.nan, math.exp(-2 * min(seen, 50) / scale), 0.001
    if "linear-references" in trial.evaluation.measures:
        yield from _references(trial.teacher_name, errors, place)
    for distance in range(17):
        exact = math.exp(-distance / scale) + (2e-3 if trial.teacher_name == "long-range-stress" else 0.0)
        learned = 0.9 * exact * noise if distance <= seen else 0.0
        yield "jacobian", "profile_teacher", float(distance), exact, 0.05 * exact
        yield "jacobian", "profile_student", float(distance), learned, 0.08 * learned


def _references(teacher: str, errors: tuple[float, ...], place: int) -> Iterator[tuple[Any, ...]]:
    """Students are as good as their filters; a forecast that is right, and a box that is the bulk, but for stress."""
    stress = teacher == "long-range-stress"
    linear = errors[place] * (0.7 if stress else 1.0)
    for part, value in (
        ("null", 0.97 if stress else 0.6),
        ("linear", linear),
        ("best", min(errors) * 0.7 if stress else min(errors)),
    ):
        yield "linear-references", part, 0.0, value, 0.0
    law = {"site_variance": 1.0, "nearest_covariance": 0.4, "zero_mode": 5.0, "sigma_needed": 1.0}
    length = {"correlation_length_squared": 400.0 if stress else 4.0}
    forecast = {"forecast_site_variance": 0.99, "forecast_nearest": 0.98}
    for part, value in {**law, **length, **forecast}.items():
        yield "linear-references", part, math.nan, value, 0.0


def make_run(path: Path, **choices: Any) -> SyntheticRun:
    radii = choices.pop("radii", RADII)
    experiment = make_experiment(**choices)
    return SyntheticRun(path, experiment, make_records(experiment, radii))
