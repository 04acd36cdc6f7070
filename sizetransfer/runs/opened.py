"""A run read back from its directory: records, verdicts, trained students."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sizetransfer.contracts.arithmetic import arithmetic
from sizetransfer.contracts.errors import RunError, SpecError
from sizetransfer.contracts.records import Sums
from sizetransfer.contracts.specs import KindSpec, did_you_mean
from sizetransfer.registry import Registry, default_registry
from sizetransfer.runs.directory import EXPERIMENT, RunDirectory
from sizetransfer.runs.evidence import Place, place_of, sums_at, verdicts
from sizetransfer.runs.keys import KEY
from sizetransfer.runs.storage import from_bytes
from sizetransfer.runs.store import HISTORY, STUDENT_SPEC, Store, TrainingDirectory
from sizetransfer.runs.trial import fill
from sizetransfer.runs.trials import Experiment, Trial
from sizetransfer.scores.computing import build_student, build_teacher
from sizetransfer.scores.training import COLUMNS as TRAINING_COLUMNS
from sizetransfer.verdict import Verdict
from sizetransfer.verdict.spec import EARLIER

if TYPE_CHECKING:
    from sizetransfer.contracts.oracle import Teacher
    from sizetransfer.contracts.student import Student


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A run read from its directory.

    Attributes:
        path: the run directory.
        experiment: what it shows.
        manifest: versions, device, wall times, score calls, what was reused.
        records: one row for one number; the columns are the fields of :class:`~sizetransfer.contracts.records.Record`.
        failures: for each trial that failed ``{trial, label, error}``; for a measure that did, ``measure`` and ``size``
            besides.
        skipped: for each measure that a teacher could not answer ``{label, measure, reason}``.
        trust: whether code that the experiment names may be run.
    """

    path: Path
    experiment: Experiment
    manifest: dict[str, Any]
    records: pd.DataFrame
    failures: list[dict[str, Any]]
    skipped: list[dict[str, str]]
    registry: Registry
    trust: bool = False

    def __repr__(self) -> str:
        return (
            f"Run({str(self.path)!r}: {self.experiment.name}, {len(self.records)} records, "
            f"{len(self.failures)} failures)"
        )

    @property
    def report(self) -> Path | None:
        """The report, if it has been written."""
        path = self.path / "report.html"
        return path if path.is_file() else None

    @property
    def complete(self) -> bool:
        """Whether every trial is trained and every measure taken."""
        return bool(self.manifest["complete"])

    @property
    def reused(self) -> dict[str, Any]:
        """What the last run found in its store: trainings, measurements, their oldest and newest date."""
        return dict(self.manifest["reused"])

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """What the records mean, by the experiment's rule: the one result that console, report and JSON show."""
        return verdicts(self.records, self.experiment, self._sums)

    @property
    def store(self) -> Store:
        """Where its trainings are kept."""
        elsewhere = self.manifest["store"]
        return RunDirectory(self.path).own_store if elsewhere is None else Store(Path(elsewhere))

    @cached_property
    def _sums(self) -> dict[Place, Sums]:
        """Sums of the records' fields, as far as the store has them: those beside the very numbers of the records."""
        found: dict[Place, Sums] = {}
        values = {place_of(row): row["value"] for row in self.records.to_dict("records")}  # type: ignore[arg-type]
        for entry in self.manifest["trials"]:
            names = {name: entry[name] for name in ("teacher", "student", "seed")}
            with suppress(RunError):
                for rows, sums in _stored(self.store.training(entry["trial"])):
                    for measure in self.experiment.evaluation.measures:
                        own = [{**row, **names, "measure": measure} for row in rows]
                        same = [values.get(place_of(row)) == row["value"] for row in own]
                        pairs = [pair if known else None for pair, known in zip(sums, same, strict=False)]
                        found |= sums_at(own, pairs, {})
        return found

    @cached_property
    def _entries(self) -> dict[tuple[str, str, int], dict[str, Any]]:
        return {(entry["teacher"], entry["student"], entry["seed"]): entry for entry in self.manifest["trials"]}

    def teacher(self, name: str, *, device: str = "cpu") -> Teacher:
        """The teacher of this name, with the dtype of the run.

        Raises:
            RunError: the experiment has no such teacher, or building it runs code that nobody has trusted.
        """
        if name not in self.experiment.teachers:
            raise _unknown("teacher", name, self.experiment.teachers)
        trial = next(trial for trial in self.experiment.trials() if trial.teacher_name == name)
        self.require_trust(trial.teacher)
        with arithmetic(trial.dtype, "cpu"):
            return build_teacher(trial, device)

    def student(self, teacher_name: str, student_name: str, seed: int | None = None, *, device: str = "cpu") -> Student:
        """The trained student of one trial, in eval mode; its output is that of the student that was measured.

        Args:
            teacher_name: its name in the experiment.
            student_name: its name in the experiment.
            seed: one of the experiment's seeds; by default its first.
            device: where to put it.

        Raises:
            RunError: there is no such trial, it is not finished, its weights are damaged or those of another
                specification, or building it runs code that nobody has trusted.
        """
        trial, directory = self._finished(teacher_name, student_name, seed)
        _require_same_student(trial, directory)
        self.require_trust(trial.teacher, trial.student)
        with arithmetic(trial.dtype, "cpu"):
            student = fill(build_student(trial, build_teacher(trial)), directory)
        return student.to(device)

    def training(self, teacher_name: str, student_name: str, seed: int | None = None) -> pd.DataFrame:
        """The history of one trial's training: step, loss, gradient_norm, learning_rate.

        Raises:
            RunError: as for :meth:`student`.
        """
        _, directory = self._finished(teacher_name, student_name, seed)
        try:
            rows = csv.reader(directory.read(HISTORY).decode().splitlines())
            columns = next(rows)
            if TRAINING_COLUMNS[0] not in columns:
                raise KeyError(TRAINING_COLUMNS[0])
            history = pd.DataFrame([[float(value) for value in row] for row in rows], columns=columns)
            return history[list(TRAINING_COLUMNS)] if len(history) else history
        except (StopIteration, ValueError, KeyError, csv.Error) as error:
            raise RunError(
                f"{HISTORY} is damaged.",
                where=str(directory.path / HISTORY),
                expected=f"a table with the columns {', '.join(TRAINING_COLUMNS)}",
                got=" ".join(str(error).split())[:300] or "no line at all",
                fix="run the experiment again with --fresh",
            ) from error

    def _finished(self, teacher_name: str, student_name: str, seed: int | None) -> tuple[Trial, TrainingDirectory]:
        if teacher_name not in self.experiment.teachers:
            raise _unknown("teacher", teacher_name, self.experiment.teachers)
        if student_name not in self.experiment.students:
            raise _unknown("student", student_name, self.experiment.students)
        names = (teacher_name, student_name, self.experiment.seeds[0] if seed is None else seed)
        trials = {(one.teacher_name, one.student_name, one.seed): one for one in self.experiment.trials()}
        entry = self._entries.get(names)
        if entry is None or names not in trials:
            raise _unknown("seed", str(names[2]), map(str, self.experiment.seeds))
        directory = self.store.training(entry["trial"])
        body, damage = directory.inspect()
        if body is None or damage:
            raise RunError(
                "The training is damaged." if damage else "The trial is not finished.",
                where=str(directory.path),
                expected=f"the files of {entry['label']}",
                got=damage or entry["status"],
                fix="run the experiment again in this directory: what is finished and intact is kept",
            )
        return trials[names], directory

    def require_trust(self, *specs: KindSpec, trusted: bool = False) -> None:
        """Refuse to build what runs code that the experiment names, unless the run, or this call, is trusted.

        Raises:
            RunError: with the code.
        """
        named = [spec for spec in specs if spec.names_code]
        if named and not (self.trust or trusted):
            raise RunError(
                "The run's experiment names code, and building this runs it.",
                where=str(self.path / EXPERIMENT),
                expected="a run directory that you trust",
                got=f"kind {named[0].kind!r}: {', '.join(named[0].code()[-1:])}",
                fix="if you do: open_run(..., trust=True), or --trust on the command line",
            )


def read_run(path: Path | str, *, registry: Registry | None = None, trust: bool = False) -> Run:
    """Read a run back, whether it is complete or not; nothing is changed, and no code that it names is run.

    Args:
        path: the run directory.
        registry: finds kinds; by default that of this process.
        trust: whether building its teachers and students may run code that its experiment names.

    Raises:
        RunError: the directory holds no run, or a damaged one.
    """
    found = registry or default_registry()
    directory = RunDirectory(Path(path))
    data, manifest, records = directory.read(EXPERIMENT), directory.manifest(), directory.records()
    try:
        experiment = Experiment.parse(_without_earlier_thresholds(data), lookup=found.lookup)
    except SpecError as error:
        error.where = f"{directory.path / EXPERIMENT}: {error.where}"
        raise
    return Run(
        path=directory.path,
        experiment=experiment,
        manifest=manifest,
        records=records,
        failures=manifest["failures"],
        skipped=manifest["skipped"],
        registry=found,
        trust=trust,
    )


def _stored(directory: TrainingDirectory) -> Iterator[tuple[list[dict[str, Any]], list[object]]]:
    """Records and sums of every measurement of a training that is there and intact."""
    for key in sorted(directory.measured()):
        if re.fullmatch(KEY, key):
            body, _ = directory.inspect_measurement(key)
            if body is not None:
                yield body["records"], body["sums"]


def _without_earlier_thresholds(data: Mapping[str, Any]) -> dict[str, Any]:
    """A run's experiment without the thresholds of an earlier rule: they decide no number, and judge nothing now."""
    rule = data.get("verdict")
    if not isinstance(rule, Mapping):
        return dict(data)
    return {**data, "verdict": {name: value for name, value in rule.items() if name not in EARLIER}}


def _require_same_student(trial: Trial, directory: TrainingDirectory) -> None:
    """Refuse weights of another student than the experiment's.

    Raises:
        RunError: the specification beside the weights is not that of the experiment.
    """
    stored = from_bytes(directory.read(STUDENT_SPEC)) or {}
    wanted = {"student": trial.student.to_json(), "teacher": trial.teacher.to_json(), "seed": trial.seed}
    different = [name for name, value in wanted.items() if stored.get(name) != value]
    if different:
        raise RunError(
            "The weights are those of another specification.",
            where=str(directory.path / STUDENT_SPEC),
            expected=f"{different[0]}: {wanted[different[0]]}"[:300],
            got=str(stored.get(different[0]))[:300],
            fix="run the experiment again in this directory",
        )


def _unknown(what: str, name: str, known: Iterable[str]) -> RunError:
    names = list(known)
    return RunError(
        f"The run has no {what} {name!r}.",
        expected=f"one of {', '.join(names)}",
        got=repr(name),
        fix=did_you_mean(name, names) or "choose one of those above",
    )
