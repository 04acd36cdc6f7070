"""Training histories read back from a run directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sizetransfer.report.data import RunLike
from sizetransfer.specs import KindSpec

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
    """Curves of the trials whose ``training.csv`` and ``student.json`` are there and belong to this experiment.

    A trial's directory is named by a hash; the specifications in ``student.json`` say which trial it is. Trials
    without a usable history are left out: the report names what is missing from the records.
    """
    curves = []
    for path in sorted((run.path / "trials").glob("*/training.csv")):
        trial = _read_json(path.with_name("student.json"))
        teacher = _name_of(trial.get("teacher"), run.experiment.teachers)
        student = _name_of(trial.get("student"), run.experiment.students)
        history = _read_history(path)
        if teacher and student and len(history):
            curves.append(_smoothed(history, teacher, student, int(trial.get("seed", 0))))
    return curves


def _smoothed(history: pd.DataFrame, teacher: str, student: str, seed: int) -> TrainingCurve:
    """Running median over a fiftieth of the history, thinned for drawing."""
    window = max(1, len(history) // 50)
    loss = history["loss"].rolling(window, min_periods=1).median().to_numpy(dtype=float)
    every = max(1, len(history) // _POINTS)
    return TrainingCurve(teacher, student, seed, history["step"].to_numpy(dtype=float)[::every], loss[::every])


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _read_history(path: Path) -> pd.DataFrame:
    try:
        history = pd.read_csv(path)
    except (OSError, ValueError):
        return pd.DataFrame()
    return history if {"step", "loss"} <= set(history.columns) else pd.DataFrame()


def _name_of(data: object, specs: Mapping[str, KindSpec]) -> str | None:
    return next((name for name, spec in specs.items() if spec.to_json() == data), None)
