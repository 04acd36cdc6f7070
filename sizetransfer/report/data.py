"""What the report is made from: a run, its averages over seeds, its verdicts, and names for the axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from sizetransfer.contracts.domain import SizeWords
from sizetransfer.contracts.records import Record
from sizetransfer.numerics.averages import estimates
from sizetransfer.report.criteria import Criterion, criteria
from sizetransfer.runs.declarations import Declarations
from sizetransfer.runs.evidence import radii, words_of
from sizetransfer.runs.trials import Experiment
from sizetransfer.verdict import Verdict


class RunLike(Protocol):
    """A run directory read back: what the report needs of it.

    Attributes:
        path: the run directory.
        experiment: the resolved experiment.
        manifest: versions, device, times and counts.
        records: rows of :class:`sizetransfer.contracts.records.Record`; may be incomplete or empty.
        verdicts: what the records mean.
        failures: ``trial``, ``label`` and ``error`` of every trial that failed, with ``measure`` and ``size`` of a
            measure that did.
        skipped: ``label``, ``measure`` and ``reason`` of every measure that a pair lacks the requirements for.
    """

    @property
    def path(self) -> Path: ...
    @property
    def experiment(self) -> Experiment: ...
    @property
    def manifest(self) -> Mapping[str, Any]: ...
    @property
    def records(self) -> pd.DataFrame: ...
    @property
    def verdicts(self) -> Sequence[Verdict]: ...
    @property
    def failures(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def skipped(self) -> Sequence[Mapping[str, Any]]: ...

    def training(self, teacher_name: str, student_name: str, seed: int) -> pd.DataFrame:
        """The history of one trial's training.

        Raises:
            RunError: it is not finished, or damaged.
        """
        ...


@dataclass(frozen=True)
class ReportData:
    """A run with everything derived from it that figures and tables share.

    Attributes:
        run: the run.
        estimates: averages over seeds (:func:`sizetransfer.numerics.averages.estimates`).
        radii: receptive radius of every student with records, ascending, ``None`` (global) last.
        verdicts: of every teacher and student; none where no error of the score was measured.
    """

    run: RunLike
    estimates: pd.DataFrame
    radii: Mapping[str, int | None]
    verdicts: Sequence[Verdict]

    @property
    def experiment(self) -> Experiment:
        """The resolved experiment."""
        return self.run.experiment

    @cached_property
    def declarations(self) -> Declarations:
        """What the experiment's measures say of their parts."""
        return Declarations(self.experiment)

    @property
    def largest_size(self) -> int:
        """The largest size at which scores are compared; of all sizes, where none are."""
        evaluation = self.experiment.evaluation
        sizes = [size for name in self.declarations.judged for size in evaluation.sizes_of(name)]
        return max(sizes or evaluation.sizes)

    @property
    def words(self) -> SizeWords:
        """How sizes and distances are called."""
        return words_of(self.experiment)

    @property
    def training_size(self) -> int | None:
        """The size that students were trained at, if they were."""
        training = self.experiment.training
        return training.size if training.steps else None

    def dotted_training_size(self) -> str:
        """What the dotted line of a figure is, in a sentence; nothing where nothing was trained."""
        return f" Dotted: the training size, {self.words.symbol} = {self.training_size}." if self.training_size else ""

    def criterion(self, teacher: str) -> Criterion | None:
        """The error of this teacher's students that figures show: the clean score's, else that of the least skill.

        Where no skill is known, it is the smoothed score's at the noise level of the largest error.
        """
        found = criteria(self.estimates, self.experiment, teacher)
        if len(found) < 2:
            return found[0] if found else None
        shown = [one.shown.headline for one in self.verdicts if one.teacher == teacher]
        skills = {row["sigma"]: row["skill"] for row in shown if not math.isnan(row["skill"])}
        least = min(skills, key=lambda sigma: skills[sigma], default=math.nan)
        largest = max(found, key=lambda one: float(one.rows(self.estimates, teacher)["value"].max()))
        return next((one for one in found if one.sigma == least), largest)

    def errors(self, **where: object) -> pd.DataFrame:
        """Estimates of the errors that the verdicts rest on, of every teacher, restricted to ``where``."""
        chosen = {teacher: self.criterion(teacher) for teacher in self.experiment.teachers}
        parts = [criterion.rows(self.estimates, teacher) for teacher, criterion in chosen.items() if criterion]
        rows = pd.concat(parts) if parts else self.estimates[:0]
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return rows[rows["value"].notna()]

    def error_label(self) -> str:
        """What these errors are: ``relative RMSE of the clean score``."""
        chosen = [self.criterion(teacher) for teacher in self.experiment.teachers]
        scores = {criterion.score for criterion in chosen if criterion}
        return f"relative RMSE of the {scores.pop() if len(scores) == 1 else 'score'}"

    def noise_levels(self) -> str:
        """At which noise the figures show errors of smoothed scores, in a sentence; nothing where they show none."""
        chosen = {teacher: self.criterion(teacher) for teacher in self.experiment.teachers}
        levels = [f"σ = {one.sigma:g} ({name})" for name, one in chosen.items() if one and not math.isnan(one.sigma)]
        if not levels:
            return ""
        return f" Errors of the smoothed score are those at the noise level of the least skill: {', '.join(levels)}."

    def measures_of(self, *kinds: str) -> tuple[str, ...]:
        """The experiment's own names of its measures of these kinds, in its order."""
        return tuple(name for name, spec in self.experiment.evaluation.measures.items() if spec.kind in kinds)

    def values(self, kind: str, part: str, **where: object) -> pd.DataFrame:
        """Estimates of one part of the first measure of this kind, as :meth:`rows`; for figures of that measure."""
        return self.rows(next(iter(self.measures_of(kind)), None), part, **where)

    def served(self, service: str, **where: object) -> pd.DataFrame:
        """Estimates of the part that serves as ``group: name``, as :meth:`rows`: of the first measure that has any.

        Args:
            service: of :data:`sizetransfer.contracts.parts.SERVICES`.
            where: values of columns.
        """
        found = (self.rows(measure, part, **where) for measure, part in self.declarations.serving_all(service))
        return next((rows for rows in found if len(rows)), self.estimates[:0])

    def rows(self, measure: str | None, part: str, **where: object) -> pd.DataFrame:
        """Estimates of one part of a measure, restricted to ``where``; values that are NaN left out.

        Args:
            measure: its name in the experiment; none has no rows.
            part: the part's name.
            where: values of columns.
        """
        table = self.estimates
        rows = table[(table["measure"] == measure) & (table["part"] == part)]
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return rows[rows["value"].notna()]

    def references(self, part: str, teacher: str) -> pd.DataFrame:
        """Estimates of a reference (``null``, ``linear``, ...) at the noise level of the errors that figures show."""
        criterion, found = self.criterion(teacher), self.declarations.serving(f"reference: {part}")
        if criterion is None or found is None:
            return self.estimates[:0]
        return self.rows(found[0], found[1], teacher=teacher, coordinate=criterion.level)

    def student_label(self, student: str) -> str:
        """``R = 4`` where that names one student, otherwise the student's own name with its radius."""
        if student not in self.radii:
            return student
        radius = self.radii[student]
        text = "global" if radius is None else f"R = {radius}"
        return text if list(self.radii.values()).count(radius) == 1 else f"{student} ({text})"

    def error_bars(self) -> str:
        """What the error bars of this run are, in a sentence."""
        sources = set(self.estimates["source"])
        if sources == {"seeds"}:
            most = int(self.estimates["seeds"].max())
            return f"Error bars: standard error of the mean over seeds ({most} seeds)."
        if sources == {"records"}:
            return "Error bars: standard error over evaluation fields, of one seed; they know nothing of other seeds."
        return (
            "Error bars: standard error of the mean over seeds; where a single seed was measured, its standard "
            "error over evaluation fields."
        )


def gather(run: RunLike) -> ReportData:
    """Average the records of a run."""
    records = run.records
    if records.empty:
        records = pd.DataFrame(columns=[field.name for field in fields(Record)])
    experiment = run.experiment
    return ReportData(run, estimates(records), radii(records, experiment), list(run.verdicts))
