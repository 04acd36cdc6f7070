"""The specification of an experiment: its grid of trials, what is measured, how it is judged and what is reported.

An experiment is teachers times students times seeds. A trial, one of each, is one training and its tasks: every measure
at every size. Training and tasks have keys that name everything that decides their numbers
(:mod:`sizetransfer.runs.keys`), so that what is finished is not computed again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.specs import (
    Family,
    KindSpec,
    Lookup,
    MeasureSpec,
    Spec,
    StudentSpec,
    TeacherSpec,
    TrainingSpec,
    did_you_mean,
)
from sizetransfer.registry import default_registry
from sizetransfer.verdict.spec import VerdictSpec


def _resolve_kinds(family: Family, value: object, info: ValidationInfo) -> object:
    """Turn a mapping of names to raw specifications into validated ones."""
    context = info.context or {}
    lookup: Lookup | None = context.get("lookup")
    field = "evaluation.measures" if family == "measure" else str(info.field_name)
    prefix = ".".join(filter(None, [context.get("where"), field]))
    if not isinstance(value, Mapping):
        return value
    return {name: _resolve_kind(family, item, f"{prefix}.{name}", lookup) for name, item in value.items()}


def _resolve_kind(family: Family, value: object, where: str, lookup: Lookup | None) -> object:
    if isinstance(value, KindSpec):
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        raise SpecError(
            f"A {family} needs a kind.",
            where=where,
            expected=f"a mapping with the field 'kind', for example {{kind: {default_registry().example(family)}}}",
            got=repr(value),
            fix=f"`sizetransfer list {family}s` shows the kinds",
        )
    if lookup is None:
        raise SpecError(
            "Kinds can only be resolved with the registry.",
            where=where,
            fix="read the experiment with sizetransfer.load or sizetransfer.experiment",
        )
    try:
        spec_class = lookup(family, value["kind"])
    except SpecError as error:
        error.where = error.where or f"{where}.kind"
        raise
    return spec_class.parse(value, where=where, lookup=lookup)


Teachers = Annotated[Mapping[str, SerializeAsAny[TeacherSpec]], Field(min_length=1)]
Students = Annotated[Mapping[str, SerializeAsAny[StudentSpec]], Field(min_length=1)]
Measures = Annotated[Mapping[str, SerializeAsAny[MeasureSpec]], Field(min_length=1)]


class EvaluationSpec(Spec):
    """What is measured of every trial.

    Attributes:
        sizes: lattice sizes of the evaluation, in increasing order; the training size is a good first one.
        sigma: noise level told to the student when it is compared with the clean score; ``None``: sigma_min.
        measures: measures by a name of the user's choice.
        restrict: sizes of single measures, by the same names, where they are not taken at every size.
        seed: names the random streams of the evaluation; the same fields test every student of a seed.
    """

    sizes: tuple[int, ...] = Field(min_length=1)
    sigma: float | None = Field(None, gt=0)
    measures: Measures
    restrict: Mapping[str, tuple[int, ...]] = {}
    seed: int = Field(0, ge=0)

    @field_validator("measures", mode="before")
    @classmethod
    def _resolve_measures(cls, value: object, info: ValidationInfo) -> object:
        return _resolve_kinds("measure", value, info)

    @model_validator(mode="after")
    def _known_restrictions(self) -> EvaluationSpec:
        for name, sizes in self.restrict.items():
            if name not in self.measures or not set(sizes) <= set(self.sizes):
                raise SpecError(
                    f"evaluation.restrict.{name} names a measure or a size that the evaluation does not have.",
                    where=f"evaluation.restrict.{name}",
                    expected=f"a measure of {', '.join(self.measures)} and sizes of {self.sizes}",
                    got=repr(sizes),
                    fix=did_you_mean(name, self.measures) or "add the size to evaluation.sizes",
                )
        return self

    def sizes_of(self, measure: str) -> tuple[int, ...]:
        """Sizes at which the named measure is taken."""
        return tuple(self.restrict.get(measure, self.sizes))


class PaperValue(Spec):
    """A number printed in the paper, to stand beside ours.

    Attributes:
        source: where it is printed.
        teacher, student: names in this experiment.
        size: evaluation size that it is compared at; ``None``: the largest.
        measure, part: which of our records it is compared with.
        value, standard_error: as printed, and so two fields of an experiment file; :attr:`quantity` has them together.
    """

    source: str
    teacher: str
    student: str
    size: int | None = None
    measure: str
    part: str
    value: float
    standard_error: float | None = None

    @property
    def quantity(self) -> Quantity:
        """The number with its standard error, NaN where none is printed."""
        return Quantity.estimated(self.value, math.nan if self.standard_error is None else self.standard_error)


class ReportSpec(Spec):
    """What the report shows.

    Attributes:
        figures: names of registered figures, in order (``sizetransfer list figures``); none: all that there are. After
            them come the figures of measures that name none of their own (``MeasureSpec.figures``).
        paper: the paper's numbers.
        notes: paragraphs on choices that the paper leaves open and on what a reader should not conclude.
    """

    figures: tuple[str, ...] = ()
    paper: tuple[PaperValue, ...] = ()
    notes: tuple[str, ...] = ()


class Experiment(Spec):
    """A grid of trials: every teacher with every student and every seed, trained and measured alike.

    Attributes:
        name, title, description: what the report calls it.
        preset: the preset of the experiment file that was taken, if any.
        teachers, students: specifications by the name that records and figures use.
        seeds: each seed decides a student's initial weights, its training batches and its evaluation fields.
        training, evaluation, verdict, report: see those classes.
        dtype: arithmetic of training and evaluation.
        allow_wrapped_radius: train students whose receptive field wraps around the training torus all the same.
        optional: names of teachers and students that are left out where no installed distribution has their kind.
        left_out: what was, with the reason: filled in when the experiment is loaded.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    title: str = ""
    description: str = ""
    preset: str | None = None
    teachers: Teachers
    students: Students
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    training: TrainingSpec
    evaluation: EvaluationSpec
    verdict: VerdictSpec = VerdictSpec()
    report: ReportSpec = ReportSpec()
    dtype: Literal["float32", "float64"] = "float32"
    allow_wrapped_radius: bool = False
    optional: tuple[str, ...] = ()
    left_out: Mapping[str, str] = {}

    @field_validator("teachers", "students", mode="before")
    @classmethod
    def _resolve(cls, value: object, info: ValidationInfo) -> object:
        return _resolve_kinds("teacher" if info.field_name == "teachers" else "student", value, info)

    def trials(self) -> tuple[Trial, ...]:
        """The grid, teachers outermost, seeds innermost."""
        return tuple(
            Trial(
                experiment=self.name,
                teacher_name=teacher_name,
                teacher=teacher,
                student_name=student_name,
                student=student,
                seed=seed,
                training=self.training,
                evaluation=self.evaluation,
                dtype=self.dtype,
                allow_wrapped_radius=self.allow_wrapped_radius,
            )
            for teacher_name, teacher in self.teachers.items()
            for student_name, student in self.students.items()
            for seed in self.seeds
        )


class TrialKeys(Spec):
    """Addresses of a trial's results, and the code that they stand for.

    Attributes:
        training: key of the training.
        measurements: keys of the tasks that the trial can do, by measure and size.
        sources: code and data that the training depends on (``sizetransfer.runs.sources.Sources`` as JSON).
        files: files that the trial's parts read.
    """

    training: str
    measurements: Mapping[str, Mapping[int, str]]
    sources: Mapping[str, Any]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One measure of a trial at one size.

    Attributes:
        name: the experiment's name of the measure.
        measure: what is measured.
        size: where.
        key: address of the result.
    """

    name: str
    measure: MeasureSpec
    size: int
    key: str

    def __str__(self) -> str:
        """The task's name for people."""
        return f"{self.name} at size {self.size}"


class Trial(Spec):
    """One teacher, one student, one seed: the unit of work.

    Attributes:
        keys: set by a run; without them a trial is a specification that nobody has planned yet.
    """

    experiment: str
    teacher_name: str
    teacher: SerializeAsAny[TeacherSpec]
    student_name: str
    student: SerializeAsAny[StudentSpec]
    seed: int = Field(ge=0)
    training: TrainingSpec
    evaluation: EvaluationSpec
    dtype: Literal["float32", "float64"] = "float32"
    allow_wrapped_radius: bool = False
    keys: TrialKeys | None = None

    @property
    def label(self) -> str:
        """The trial's name for people."""
        return f"{self.teacher_name} / {self.student_name} / seed {self.seed}"

    @property
    def sigma(self) -> float:
        """The low noise level at which the student is asked for its score."""
        return self.evaluation.sigma or self.training.noise.sigma_min

    def measure(self, name: str) -> MeasureSpec:
        """The named measure, as it is taken of this trial's training."""
        return self.evaluation.measures[name].for_training(self.training)

    def tasks(self) -> Iterator[Task]:
        """What is to be measured, in the order of the experiment; only a planned trial has tasks."""
        known = self.keys.measurements if self.keys is not None else {}
        for name, sizes in known.items():
            for size, key in sizes.items():
                yield Task(name, self.measure(name), size, key)
