"""The part of a trial that decides its numbers: how its teacher and student are built, trained and measured.

What is stored, told and judged is elsewhere: an edit there leaves the keys of finished results as they are
(:mod:`sizetransfer.runs.keys`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sizetransfer.contracts.arithmetic import undisturbed
from sizetransfer.contracts.oracle import Teacher
from sizetransfer.contracts.randomness import seeded_initialisation, stream_seed
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.scores.training import TrainingResult, train

if TYPE_CHECKING:
    from sizetransfer.runs.trials import Trial

POLICY = "one thread on a processor; single-precision products in full precision; gradients on"
"""How numbers are computed beyond what the specification says; another policy is another key."""


def build_teacher(trial: Trial, device: str = "cpu") -> Teacher:
    """The trial's teacher, without gradients of its parameters."""
    with undisturbed(generators=False):
        return trial.teacher.build().to(dtype=getattr(torch, trial.dtype), device=device).frozen()


def build_student(trial: Trial, teacher: Teacher, device: str = "cpu") -> Student:
    """The trial's student with its initial weights, which the trial's seed decides."""
    with undisturbed(generators=False), seeded_initialisation(trial.seed, "student"):
        student = trial.student.build(teacher.field)
    return student.to(dtype=getattr(torch, trial.dtype), device=device)


def train_student(
    trial: Trial, teacher: Teacher, student: Student, *, checkpoint: Path, on_step: Callable[[int, float], None]
) -> TrainingResult:
    """Train the trial's student, which ends in eval mode and without gradients of its weights."""
    result = train(teacher, student, trial.training, seed=trial.seed, checkpoint=checkpoint, on_step=on_step)
    student.eval().requires_grad_(False)
    return result


def evaluation_seed(trial: Trial, size: int) -> int:
    """Seed of the evaluation at one size: the same for every student of a trial seed, so that fields are shared."""
    return stream_seed("evaluation", trial.evaluation.seed, trial.seed, size)


def take(trial: Trial, measure: MeasureSpec, size: int, *, teacher: Teacher, student: Student) -> Iterable[Measurement]:
    """Take one measure of the trained student at one size."""
    return measure.measure(teacher, student, size, sigma=trial.sigma, seed=evaluation_seed(trial, size))
