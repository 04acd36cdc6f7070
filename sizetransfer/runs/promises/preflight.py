"""One sample and one answer before a training is paid for."""

from __future__ import annotations

import torch
from torch import Tensor

from sizetransfer.contracts.oracle import HasScore, Sample, Teacher
from sizetransfer.contracts.randomness import seeded_initialisation, stream
from sizetransfer.contracts.student import Student
from sizetransfer.runs.promises.answers import Place, count_of, require_finite
from sizetransfer.runs.promises.watch import watched
from sizetransfer.runs.promises.weights import Weights


def check_once(
    teacher: Teacher, student: Student, size: int, *, batch: int, sigma_range: tuple[float, float], seed: int
) -> None:
    """Draw, and score, one batch of fields, and ask the student about them in both of its modes.

    A wrong shape is found in the time of a training step. The student is left as it was, its buffers with it; random
    numbers that it draws come from a stream of their own.

    Args:
        teacher: what will be trained on.
        student: on its device and with its dtype.
        size: sites along each axis.
        batch: fields per training step.
        sigma_range: smallest and largest noise level; those of the batch lie between them.
        seed: names the streams.

    Raises:
        ConformanceError: a promise of teacher or student is broken.
        OracleError: the teacher is not defined at that size.
    """
    teacher.check_size(size)
    kept = Weights(student)
    try:
        with watched(teacher, student), torch.inference_mode(False), torch.enable_grad():
            sample = teacher.sample(batch, size, generator=stream(seed, "preflight"))
            if isinstance(teacher, HasScore):
                teacher.score(sample)
            _answer_in_both_modes(student, sample, sigma_range, seed)
    finally:
        kept.put_back()


def _answer_in_both_modes(student: Student, sample: Sample, sigma_range: tuple[float, float], seed: int) -> None:
    sigma = _levels(sample.x, sigma_range)
    for training in (False, True):
        with seeded_initialisation(seed, "preflight"):
            answer = student.train(training)(sample.x, sigma, sample.context)
        fields = count_of(len(sample.x), sample.x.shape[2:])
        require_finite(answer, Place(student, "forward", fields), "a score")


def _levels(x: Tensor, sigma_range: tuple[float, float]) -> Tensor:
    low, high = torch.tensor(sigma_range, dtype=torch.float64).log()
    return torch.lerp(low, high, torch.linspace(0, 1, len(x), dtype=torch.float64)).exp().to(x)
