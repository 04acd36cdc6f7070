"""A student learns, and what it learned has the limit that every score has at high noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sizetransfer.api import teacher as named_teacher
from sizetransfer.contracts.noise import expand, perturb
from sizetransfer.contracts.oracle import Context, HasSmoothedScore, Teacher
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import FieldInfo, NoiseSchedule, TrainingSpec
from sizetransfer.contracts.student import Student
from sizetransfer.scores.training import train
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import student_check
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError
from sizetransfer_verification.conformance.students.setting import PARAMETERS, answer, on_torus
from sizetransfer_verification.conformance.subjects import StudentSubject

STEPS, BATCH, RATE = 100, 16, 1e-2
SIZES = {1: 16, 2: 8, 3: 4}
"""Sites along each axis of the training torus, by dimension."""
GRAPH_SITES = 24
NOISE = (0.1, 2.0)
"""Range of noise levels in training, in units of sigma_data."""

FALL = 0.8
"""Share of the untrained student's error, root mean square, that short training may leave."""
SMALL_ERROR = 0.1
"""Relative error of a student that has nothing to learn any more."""
HIGH_NOISE_ERROR = 0.5
"""Relative error of the score that short training may leave at the largest noise level."""
LARGEST_SCORE = 4.0
"""Root mean square of sigma times the score far above the noise levels of training; the exact one tends to one."""


@dataclass(frozen=True)
class Course:
    """A student before and after a short training on an exactly known Gaussian field."""

    teacher: Teacher
    size: int
    untrained: Student
    trained: Student

    def question(self, noise: float) -> tuple[Tensor, Tensor, Context]:
        """Noisy fields at ``noise`` times sigma_data."""
        sample = self.teacher.sample(64, self.size, generator=stream("conformance", "course", "fields"))
        sigma = torch.full((len(sample.x),), noise * self.teacher.field.sigma_data).to(sample.x)
        x, _ = perturb(sample.x, sigma, generator=stream("conformance", "course", "noise", str(noise)))
        return x, sigma, sample.context

    def error(self, student: Student, noise: float) -> float:
        """Root mean square of the score's error over that of the exact score."""
        if not isinstance(self.teacher, HasSmoothedScore):
            raise NotApplicableError("The reference teacher does not know its score.")
        x, sigma, context = self.question(noise)
        exact = self.teacher.smoothed_score(x, sigma, context)
        return float(((answer(student, x, sigma, context) - exact).square().mean() / exact.square().mean()).sqrt())


def _course_field(subject: StudentSubject) -> dict[int, Teacher]:
    """One lattice, of the fewest dimensions, and one graph: the members that are trained, with their teachers."""
    found: dict[int, Teacher] = {}
    tori = [member for member in range(len(subject.fields)) if on_torus(subject, Case(member=member))]
    for member in sorted(tori, key=lambda member: subject.fields[member].dim)[:1]:
        if subject.fields[member].dim in SIZES:
            found[member] = named_teacher("gaussian", dim=subject.fields[member].dim, mass=0.5)
    for member, field in enumerate(subject.fields):
        if field.geometry == "graph":
            found.setdefault(member, named_teacher("gaussian-graph"))
            break
    return found


def course(subject: StudentSubject, case: Case) -> Course:
    """Train the student of the case's member, once.

    Raises:
        NotApplicableError: its field has no Gaussian teacher here, or another field is trained in its place.
    """
    key = "course", case.member
    if key not in subject.kept:
        teachers = _course_field(subject)
        if case.member not in teachers:
            raise NotApplicableError("Students are trained on one torus and on one graph; this field is neither.")
        subject.kept[key] = _taught(subject, teachers[case.member].frozen())
    found: Course = subject.kept[key]
    return found


def _taught(subject: StudentSubject, teacher: Teacher) -> Course:
    field: FieldInfo = teacher.field
    untrained, student = (subject.build(field).to(teacher.anchor) for _ in range(2))
    size = GRAPH_SITES if field.geometry == "graph" else SIZES[field.dim]
    schedule = NoiseSchedule(sigma_min=NOISE[0] * field.sigma_data, sigma_max=NOISE[1] * field.sigma_data)
    spec = TrainingSpec(size=size, steps=STEPS, batch=BATCH, learning_rate=RATE, noise=schedule)
    train(teacher, student, spec, seed=subject.seed)
    return Course(teacher, size, untrained, student.eval())


@student_check(
    f"It learns: {STEPS} steps of training on a small Gaussian field bring the error of the exact score down.",
    cause="a dead or saturated output, a sign, a scale that makes steps vanish, parameters that no optimiser sees",
    needs=(PARAMETERS,),
    space=CaseSpace(examples=1, batches=(1,), largest=130, noises=(1.0,)),
)
def learns(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    taught = course(subject, case)
    levels = (NOISE[0], math.sqrt(NOISE[0] * NOISE[1]), NOISE[1])
    before, after = (
        math.sqrt(sum(taught.error(student, noise) ** 2 for noise in levels) / len(levels))
        for student in (taught.untrained, taught.trained)
    )
    limit = max(FALL * before, SMALL_ERROR)
    what = f"relative error of the score after {STEPS} steps (before: {before:.3g})"
    evidence.at_most(after, limit, what, source=f"{FALL} of the untrained error, or {SMALL_ERROR}")


@student_check(
    "At high noise the trained score nears the exact one, and far above sigma times the score stays bounded.",
    cause="no preconditioning, so that inputs grow with the noise; a wrong sign or power of sigma in it",
    needs=(PARAMETERS,),
    space=CaseSpace(examples=1, batches=(1,), largest=130, noises=(1.0,)),
)
def high_noise_limit(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    taught = course(subject, case)
    error = taught.error(taught.trained, NOISE[1])
    what = f"relative error of the score at the largest noise of training, {NOISE[1]:g} sigma_data"
    evidence.at_most(error, HIGH_NOISE_ERROR, what, source="the limit -x/sigma^2 of every score")
    x, sigma, context = taught.question(10 * NOISE[1])
    scaled = answer(taught.trained, x, sigma, context) * expand(sigma, x)
    found = float(scaled.square().mean().sqrt())
    what = "root mean square of sigma times the score at ten times that noise"
    evidence.at_most(found, LARGEST_SCORE, what, source="the exact one tends to one")
