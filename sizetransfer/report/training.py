"""Training histories read back from a run directory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sizetransfer.contracts.errors import RunError
from sizetransfer.report.data import RunLike

_POINTS = 200


@dataclass(frozen=True)
class TrainingCurve:
    """The smoothed training loss of one trial: ``loss`` at ``steps``, both of the same length."""

    teacher: str
    student: str
    seed: int
    steps: np.ndarray
    loss: np.ndarray


def training_curves(run: RunLike) -> list[TrainingCurve]:
    """Curves of the trials whose training is finished and intact; the report names what is missing."""
    curves = []
    for trial in run.experiment.trials():
        names = (trial.teacher_name, trial.student_name, trial.seed)
        try:
            history = run.training(*names)
        except RunError:
            continue
        if len(history):
            curves.append(_smoothed(history, *names))
    return curves


def _smoothed(history: pd.DataFrame, teacher: str, student: str, seed: int) -> TrainingCurve:
    """Running median over a fiftieth of the history, thinned for drawing."""
    window = max(1, len(history) // 50)
    loss = history["loss"].rolling(window, min_periods=1).median().to_numpy(dtype=float)
    every = max(1, len(history) // _POINTS)
    return TrainingCurve(teacher, student, seed, history["step"].to_numpy(dtype=float)[::every], loss[::every])
