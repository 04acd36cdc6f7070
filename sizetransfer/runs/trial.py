"""One trial: train what is not trained, measure what is not measured, and store each as soon as it is there."""

from __future__ import annotations

import csv
import io
import math
import re
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from safetensors.torch import save
from torch import Tensor

from sizetransfer.contracts.arithmetic import arithmetic
from sizetransfer.contracts.errors import ConformanceError, RunError, SizetransferError, described
from sizetransfer.contracts.events import Event, OnEvent
from sizetransfer.contracts.oracle import Teacher
from sizetransfer.contracts.randomness import seeded_initialisation
from sizetransfer.contracts.records import Measurement, Record
from sizetransfer.contracts.student import Student
from sizetransfer.runs.environment import fingerprint
from sizetransfer.runs.keys import require_same_code, specification_key
from sizetransfer.runs.promises import check_once, checked, hold_radius, watched, weights_unchanged
from sizetransfer.runs.storage import StorageError, storage_errors, to_bytes
from sizetransfer.runs.store import HISTORY, STUDENT_SPEC, STUDENT_WEIGHTS, TrainingDirectory
from sizetransfer.runs.trials import Task, Trial
from sizetransfer.scores.computing import build_student, build_teacher, evaluation_seed, take, train_student
from sizetransfer.scores.training import TrainingResult

TRAINING_SHARE = 0.8
"""Share of a trial's work that training is taken to be, for progress bars."""

SECONDS_BETWEEN_STEPS = 0.5
"""Training steps are told to progress bars no more often than this."""

_NO_MEMORY = re.compile(r"out of memory|(can't|cannot|could not|failed to|unable to) allocate|bad_alloc", re.IGNORECASE)
"""How torch and other libraries say that memory ran out."""

Status = Literal["finished", "reused", "failed"]


@dataclass(frozen=True)
class TaskResult:
    """What became of one measure at one size.

    Attributes:
        task: what was to be measured.
        status: ``finished`` now, ``reused`` from an earlier run, or ``failed``.
        body: what is stored: rows, sums, seconds, score calls, when and where.
        error: why it failed.
    """

    task: Task
    status: Status
    body: Mapping[str, Any] = field(default_factory=dict)
    error: SizetransferError | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The columns of its records that do not depend on names."""
        return list(self.body.get("records", ()))


@dataclass(frozen=True)
class TrialResult:
    """What became of a trial.

    Attributes:
        key, label: the trial's training and its name.
        status: ``finished`` if anything was computed now, ``reused`` if all of it was there, or ``failed``.
        body: the content of ``training.json``: wall times, steps, score calls, device; empty if training failed.
        tasks: what became of its tasks, in their order.
        error: why the training failed.
    """

    key: str
    label: str
    status: Status
    body: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskResult, ...] = ()
    error: SizetransferError | None = None


def read_trial(trial: Trial, directory: TrainingDirectory, *, status: Status = "reused") -> TrialResult | None:
    """What the store has of a trial, or nothing if its training is not there."""
    body = directory.training()
    if body is None:
        return None
    found = ((task, directory.measurement(task.key)) for task in trial.tasks())
    tasks = tuple(TaskResult(task, status, content) for task, content in found if content is not None)
    return TrialResult(directory.key, trial.label, status, body, tasks)


def run_trial(
    trial: Trial, directory: TrainingDirectory, *, device: str, versions: Mapping[str, str], on_event: OnEvent
) -> TrialResult:
    """Do what is left of a trial, and leave everything in its directory.

    On a processor it runs in one thread, so that its numbers do not depend on how many trials run beside it.

    Args:
        trial: what to compute, with its keys.
        directory: its training's place in the store.
        device: torch device of training and evaluation.
        versions: versions of the distributions whose code takes part.
        on_event: told of progress.

    Raises:
        NonFiniteError: training met a loss or gradient that is not finite; its last checkpoint stays.
        ConformanceError: the teacher or the student does not keep a promise.
        StorageError: the directory cannot be written.
        RunError: another process is computing the trial, or this process has other code than the one that planned it.
    """
    with directory.prepared(), arithmetic(trial.dtype, device), seeded_initialisation(trial.seed, "trial"):
        require_same_code(trial, device)
        work = _Work(trial, directory, device, dict(versions), on_event)
        return work.do()


class _Work:
    """A trial in progress."""

    def __init__(
        self,
        trial: Trial,
        directory: TrainingDirectory,
        device: str,
        versions: dict[str, str],
        on_event: OnEvent,
    ) -> None:
        self.trial, self.directory, self.device, self.versions = trial, directory, device, versions
        self._on_event = on_event
        self._told = -math.inf

    def do(self) -> TrialResult:
        """Train if needed, take what is left to be measured, and tell what became of it."""
        body = self.directory.training()
        there = {task.key: self.directory.measurement(task.key) for task in self.trial.tasks()} if body else {}
        status: Status = "reused" if body and all(found is not None for found in there.values()) else "finished"
        tasks: list[TaskResult] = []
        if body is None or status == "finished":
            self._tell("started")
            teacher = build_teacher(self.trial, self.device)
            student = build_student(self.trial, teacher, self.device)
            if body is None:
                body = self._train(teacher, student)
                student = build_student(self.trial, teacher, self.device)
            else:
                self._tell("step", done=TRAINING_SHARE, step=body["steps"])
            # What is measured is what is stored, now as in any later run.
            tasks = self._measure(teacher.split("held out"), fill(student, self.directory), there)
        else:
            tasks = [TaskResult(task, "reused", there[task.key] or {}) for task in self.trial.tasks()]
        self._tell(status, done=1.0, step=body["steps"])
        return TrialResult(self.directory.key, self.trial.label, status, body, tuple(tasks))

    def _train(self, whole: Teacher, student: Student) -> dict[str, Any]:
        started, teacher = time.perf_counter(), whole.split("training")
        with watched(teacher, student), _checkpoint_errors(self.directory):
            spec, seed = self.trial.training, self.trial.seed
            check_once(teacher, student, spec.size, batch=spec.batch, sigma_range=_probed(self.trial), seed=seed)
            training = train_student(
                self.trial, teacher, student, checkpoint=self.directory.checkpoint, on_step=self._step
            )
            not_held = self._hold(whole, student)
        body = {
            "key": self.directory.key,
            "specification": specification_key(self.trial, self.device),
            "label": self.trial.label,
            "spec": _spec_of(self.trial),
            "versions": self.versions,
            "sources": dict(self.trial.keys.sources) if self.trial.keys else {},
            **self._circumstances(),
            "seconds": time.perf_counter() - started,
            "training_seconds": training.seconds,
            "step_seconds": training.step_seconds,
            "steps": training.steps,
            "training_sites": self.trial.training.batch * teacher.domain(self.trial.training.size).sites,
            "parameters": sum(parameter.numel() for parameter in student.parameters()),
            "radius": student.radius,
            "radius_not_held": not_held,
            "training_score_calls": training.score_calls,
        }
        self.directory.finish(body, _files(self.trial, student, training))
        self._tell("trained", done=TRAINING_SHARE, step=training.steps)
        return body

    def _hold(self, teacher: Teacher, student: Student) -> str | None:
        """Hold the student to its radius; where that cannot be done, say why, and lose nothing.

        Raises:
            ConformanceError: the student reads outside of it.
        """
        sizes = (self.trial.training.size, *(task.size for task in self.trial.tasks()))
        try:
            return hold_radius(teacher, student, sizes, sigmas=_probed(self.trial), seed=self.trial.seed)
        except ConformanceError:
            raise
        except Exception as error:  # a probe that fails must not take a training with it
            return f"the probe failed: {type(error).__name__}: {str(error)[:200]}"

    def _measure(
        self, teacher: Teacher, student: Student, there: Mapping[str, dict[str, Any] | None]
    ) -> list[TaskResult]:
        results: list[TaskResult] = []
        tasks = list(self.trial.tasks())
        for done, task in enumerate(tasks, start=1):
            found = there.get(task.key)
            result = self._take(task, teacher, student) if found is None else TaskResult(task, "reused", found)
            results.append(result)
            if result.error is None:  # another name of the same measure shares the result
                there = {**there, task.key: dict(result.body)}
            share = TRAINING_SHARE + (1 - TRAINING_SHARE) * done / len(tasks)
            detail = str(task) + (f" failed: {result.error.what}" if result.error else "")
            self._tell("measured", done=share, step=self.trial.training.steps, detail=detail)
        return results

    def _take(self, task: Task, teacher: Teacher, student: Student) -> TaskResult:
        """Take one measure at one size; what goes wrong is its failure alone."""
        try:
            return TaskResult(task, "finished", self._taken(task, teacher, student))
        except StorageError:
            raise
        except SizetransferError as error:
            return TaskResult(task, "failed", error=error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, and must not stop other measures
            return TaskResult(task, "failed", error=unexpected(error, f"{self.trial.label}: {task}", self.directory))

    def _taken(self, task: Task, teacher: Teacher, student: Student) -> dict[str, Any]:
        started = time.perf_counter()
        with watched(teacher, student) as watch, weights_unchanged(student), weights_unchanged(teacher):
            measured = take(self.trial, task.measure, task.size, teacher=teacher, student=student)
            numbers = checked(measured, measure=task.name, where=f"{self.trial.label}: {task}")
        body = {
            "measure": task.measure.to_json(),
            "size": task.size,
            "evaluation_seed": evaluation_seed(self.trial, task.size),
            **self._circumstances(),
            "seconds": time.perf_counter() - started,
            "score_calls": watch.score_calls,
            "records": [_row(self.trial, task, student, number) for number in numbers],
            "sums": [number.sums for number in numbers],
        }
        self.directory.store_measurement(task.key, body)
        return body

    def _circumstances(self) -> dict[str, Any]:
        return {"created": datetime.now(UTC).isoformat(timespec="seconds"), **fingerprint(self.device)}

    def _step(self, step: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN_STEPS and step < self.trial.training.steps:
            return
        self._told = now
        done = TRAINING_SHARE * step / max(1, self.trial.training.steps)
        self._tell("step", done=done, step=step, loss=loss)

    def _tell(self, kind: Any, **details: Any) -> None:
        self._on_event(Event(kind, self.directory.key, self.trial.label, **details))


def fill(student: Student, directory: TrainingDirectory) -> Student:
    """Put the trained weights into a student of the same specification, in eval mode and without gradients.

    Raises:
        RunError: the weights are damaged, or do not fit the student that the specification builds.
    """
    content = directory.read(STUDENT_WEIGHTS)
    try:
        student.load_state_dict(load_weights(content))
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise RunError(
            "The weights do not fit the student.",
            where=str(directory.path / STUDENT_WEIGHTS),
            expected="the weights of the student that its specification builds",
            got=" ".join(str(error).split())[:300],
            fix="run the experiment again in this directory: what is damaged is done again",
        ) from error
    return student.eval().requires_grad_(False)


def unexpected(error: BaseException, where: str, directory: TrainingDirectory) -> RunError:
    """An error that is not one of this library's, with the place of its traceback."""
    path = directory.note_traceback("".join(traceback.format_exception(error)))
    text = described(error)
    memory = isinstance(error, MemoryError) or bool(_NO_MEMORY.search(text))
    return RunError(
        "Memory ran out." if memory else "The code of a teacher, student or measure stopped with an error.",
        where=where,
        got=text,
        fix="lower the measure's batch, training.batch or the sizes; what is finished is kept"
        if memory
        else f"see the traceback in {path}; what is finished is kept",
    )


def _probed(trial: Trial) -> tuple[float, float]:
    """Two noise levels at which the radius is held."""
    noise = trial.training.noise
    return noise.sigma_min, noise.sigma_max


def _spec_of(trial: Trial) -> dict[str, Any]:
    spec = trial.to_json()
    for name in ("keys", "evaluation", "experiment", "teacher_name", "student_name"):
        del spec[name]
    return spec


def _row(trial: Trial, task: Task, student: Student, one: Measurement) -> dict[str, Any]:
    """The columns of a record; those that are names in the grid are the run's own."""
    return Record(
        experiment=trial.experiment,
        teacher=trial.teacher_name,
        student=trial.student_name,
        radius=student.radius,
        seed=trial.seed,
        train_size=trial.training.size,
        size=task.size,
        sigma=trial.sigma,
        measure=task.name,
        part=one.part,
        coordinate=float(one.coordinate),
        value=float(one.value),
        standard_error=float(one.standard_error),
        n=int(one.n),
    ).row()


def _files(trial: Trial, student: Student, training: TrainingResult) -> dict[str, bytes]:
    spec = {
        "student": trial.student.to_json(),
        "field": student.field.to_json(),
        "radius": student.radius,
        "dtype": trial.dtype,
        "teacher": trial.teacher.to_json(),
        "seed": trial.seed,
    }
    return {
        STUDENT_WEIGHTS: save(_weights(student), metadata={"format": "pt"}),
        STUDENT_SPEC: to_bytes(spec),
        HISTORY: _table(training.history),
    }


def _weights(student: Student) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for name, value in student.state_dict().items():
        if not isinstance(value, Tensor):
            raise RunError(
                "The student keeps state that is not a tensor, which cannot be stored.",
                where=f"{type(student).__name__}.state_dict()[{name!r}]",
                expected="tensors only: parameters and buffers",
                got=type(value).__name__,
                fix="keep it as a buffer, or compute it from the specification",
            )
        # Tied weights share memory, which the file format does not allow.
        weights[name] = value.detach().to("cpu", copy=True).contiguous()
    return weights


def _table(rows: list[dict[str, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["step"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@contextmanager
def _checkpoint_errors(directory: TrainingDirectory) -> Iterator[None]:
    """The safetensors library reports the operating system's errors as text; make them its errors again."""
    with storage_errors(directory.path):
        try:
            yield
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), str(error), str(directory.checkpoint)) from error
