"""One trial from specification to records: build, train, measure, store."""

from __future__ import annotations

import csv
import io
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from sizetransfer.arithmetic import arithmetic as arithmetic  # noqa: PLC0414 - others import it from here
from sizetransfer.errors import RunError, SizetransferError
from sizetransfer.events import Event, OnEvent, ignore
from sizetransfer.experiments.directory import (
    RECORDS,
    STUDENT_SPEC,
    STUDENT_WEIGHTS,
    TRAINING,
    TrialDirectory,
)
from sizetransfer.experiments.storage import storage_errors, to_bytes
from sizetransfer.oracle import Teacher
from sizetransfer.randomness import seeded_initialisation, stream_seed
from sizetransfer.records import Record
from sizetransfer.student import Student
from sizetransfer.training import TrainingResult, train
from sizetransfer.trials import Trial

TRAINING_SHARE = 0.8
"""Share of a trial's work that training is taken to be, for progress bars."""

SECONDS_BETWEEN_STEPS = 0.5
"""Training steps are told to progress bars no more often than this."""


@dataclass(frozen=True)
class TrialResult:
    """What became of a trial.

    Attributes:
        key, label: the trial.
        status: ``finished`` now, ``reused`` from an earlier run, or ``failed``.
        body: the content of ``result.json``: wall times, steps, score calls, skipped measures, device.
        rows: the columns of its records, in the order in which they were measured.
        error: why it failed.
    """

    key: str
    label: str
    status: Literal["finished", "reused", "failed"]
    body: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()
    error: SizetransferError | None = None


def label_of(trial: Trial) -> str:
    """The trial's name for people."""
    return f"{trial.teacher_name} / {trial.student_name} / seed {trial.seed}"


def run_trial(
    trial: Trial,
    directory: TrialDirectory,
    *,
    device: str = "cpu",
    versions: Mapping[str, str] | None = None,
    on_event: OnEvent = ignore,
) -> TrialResult:
    """Compute a trial, or read it if it is finished, and leave everything in its directory.

    On a processor it runs in one thread, so that its numbers do not depend on how many trials run beside it.

    Args:
        trial: what to compute.
        directory: the trial's place, named by its key.
        device: torch device of training and evaluation.
        versions: versions of the distributions whose code takes part.
        on_event: told of progress.

    Raises:
        NonFiniteError: training met a loss or gradient that is not finite; its last checkpoint stays.
        StorageError: the directory cannot be written.
        RunError: another process is computing the trial.
    """
    label = label_of(trial)
    with directory.prepared(), arithmetic(trial.dtype, device), seeded_initialisation(trial.seed, "trial"):
        body = directory.recover(label)
        if body is None:
            body = _compute(trial, directory, device, dict(versions or {}), on_event)
            status: Literal["finished", "reused"] = "finished"
        else:
            status = "reused"
        rows = tuple(directory.rows())
    on_event(Event(status, directory.key, label, done=1.0, step=body["steps"]))
    return TrialResult(directory.key, label, status, body, rows)


def _compute(
    trial: Trial, directory: TrialDirectory, device: str, versions: dict[str, str], on_event: OnEvent
) -> dict[str, Any]:
    key, label = directory.key, label_of(trial)
    on_event(Event("started", key, label))
    started = time.perf_counter()
    teacher = build_teacher(trial, device)
    student = build_student(trial, teacher, device)
    with _checkpoint_errors(directory):
        training = train(
            teacher,
            student,
            trial.training,
            seed=trial.seed,
            checkpoint=directory.checkpoint,
            on_step=_step_reporter(trial, key, on_event),
        )
    student.eval().requires_grad_(False)
    with _counted_scores(teacher) as calls:
        records, skipped = _measure(trial, teacher, student, key, on_event)
    body = {
        "trial": key,
        "label": label,
        "spec": trial.to_json(),
        "versions": versions,
        "device": device,
        "seconds": time.perf_counter() - started,
        "training_seconds": training.seconds,
        "step_seconds": training.step_seconds,
        "steps": training.steps,
        "training_sites": trial.training.batch * teacher.domain(trial.training.size).sites,
        "parameters": sum(parameter.numel() for parameter in student.parameters()),
        "training_score_calls": training.score_calls,
        "evaluation_score_calls": calls[0],
        "skipped": skipped,
    }
    directory.finish(body, _files(trial, student, training, records))
    return body


def build_teacher(trial: Trial, device: str = "cpu") -> Teacher:
    """The trial's teacher, without gradients of its parameters."""
    return trial.teacher.build().to(dtype=getattr(torch, trial.dtype), device=device).frozen()


def build_student(trial: Trial, teacher: Teacher, device: str = "cpu") -> Student:
    """The trial's student with its initial weights, which the trial's seed decides."""
    with seeded_initialisation(trial.seed, "student"):
        student = trial.student.build(teacher.field)
    return student.to(dtype=getattr(torch, trial.dtype), device=device)


def evaluation_seed(trial: Trial, size: int) -> int:
    """Seed of the evaluation at one size: the same for every student of a trial seed, so that fields are shared."""
    return stream_seed("evaluation", trial.evaluation.seed, trial.seed, size)


def _step_reporter(trial: Trial, key: str, on_event: OnEvent) -> Callable[[int, float], None]:
    last = -math.inf

    def report(step: int, loss: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_STEPS and step < trial.training.steps:
            return
        last = now
        done = TRAINING_SHARE * step / max(1, trial.training.steps)
        on_event(Event("step", key, label_of(trial), done=done, step=step, loss=loss))

    return report


def _measure(
    trial: Trial, teacher: Teacher, student: Student, key: str, on_event: OnEvent
) -> tuple[list[Record], list[dict[str, str]]]:
    records: list[Record] = []
    skipped: list[dict[str, str]] = []
    evaluation = trial.evaluation
    done, total = 0, sum(len(evaluation.sizes_of(name)) for name in evaluation.measures)
    for name, measure in evaluation.measures.items():
        lacking = measure.lacking(teacher)
        if lacking:
            reason = f"the teacher {trial.teacher_name!r} lacks {', '.join(lacking)}"
            skipped.append({"label": label_of(trial), "measure": name, "reason": reason})
            done += len(evaluation.sizes_of(name))
            continue
        for size in evaluation.sizes_of(name):
            records += _take(trial, name, size, teacher=teacher, student=student)
            done += 1
            share = TRAINING_SHARE + (1 - TRAINING_SHARE) * done / total
            detail = f"{name} at size {size}"
            on_event(Event("measured", key, label_of(trial), done=share, step=trial.training.steps, detail=detail))
    return records, skipped


def _take(trial: Trial, name: str, size: int, *, teacher: Teacher, student: Student) -> Iterator[Record]:
    measure = trial.evaluation.measures[name]
    sigma = trial.evaluation.sigma or trial.training.noise.sigma_min
    for one in measure.measure(teacher, student, size, sigma=sigma, seed=evaluation_seed(trial, size)):
        yield Record(
            experiment=trial.experiment,
            teacher=trial.teacher_name,
            student=trial.student_name,
            radius=student.radius,
            seed=trial.seed,
            train_size=trial.training.size,
            size=size,
            sigma=sigma,
            measure=name,
            part=one.part,
            coordinate=float(one.coordinate),
            value=float(one.value),
            standard_error=float(one.standard_error),
            n=int(one.n),
        )


def _files(trial: Trial, student: Student, training: TrainingResult, records: list[Record]) -> dict[str, bytes]:
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
        TRAINING: _table(training.history),
        RECORDS: to_bytes({"records": [record.row() for record in records]}),
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
def _checkpoint_errors(directory: TrialDirectory) -> Iterator[None]:
    """The safetensors library reports the operating system's errors as text; make them its errors again."""
    with storage_errors(directory.path):
        try:
            yield
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), str(error), str(directory.checkpoint)) from error


@contextmanager
def _counted_scores(teacher: Teacher) -> Iterator[list[int]]:
    """Count the fields whose score the teacher is asked for within the block."""
    calls = [0]

    def counted(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: Any, **keywords: Any) -> Tensor:
            result = method(*arguments, **keywords)
            calls[0] += len(result)
            return result

        return call

    names = [name for name in ("score", "smoothed_score") if callable(getattr(teacher, name, None))]
    for name in names:
        object.__setattr__(teacher, name, counted(getattr(teacher, name)))
    try:
        yield calls
    finally:
        for name in names:
            object.__delattr__(teacher, name)
