"""Addresses by content: a training or a measurement is looked up by everything that decides its numbers.

- *Training key*: teacher, student, training specification, seed, dtype, kind of device, policy of the arithmetic, and
  the code and files that take part in building and training (:mod:`sizetransfer.runs.sources`).
- *Measurement key*: the training key, the measure, the size, the noise level, the seed of the evaluation, and the code
  of the measure.

Titles, notes, thresholds, figures, names in the grid, executors, workers, and the fields of measures that only bound
memory are in no key. Versions of torch and the processor are recorded, and said when results are used again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from sizetransfer.contracts.errors import RunError
from sizetransfer.runs.sources import Sources, literal_files, sources_of
from sizetransfer.runs.trials import Trial, TrialKeys
from sizetransfer.scores import computing

FORMAT = 2
"""Of the files of a result; a number stored in another format is never taken for one of this."""

KEY = r"[0-9a-f]{16}"
"""What a key looks like."""


def planned(trial: Trial, device: str, *, files: Iterable[Path] = (), measures: Iterable[str] | None = None) -> Trial:
    """The trial with its keys.

    Args:
        trial: names everything that decides its numbers but code and files.
        device: torch device of the computation; its kind counts.
        files: files that its teacher and student read when they are built.
        measures: names of the measures that its teacher can answer; by default all.
    """
    read = sorted({*files, *trial.teacher.reads(), *trial.student.reads()})
    code = sources_of(
        [*trial.teacher.code(), *trial.student.code(), computing.__name__],
        files=read,
    )
    training = _key({**_training_parts(trial, device), "code": code.digest})
    taken = trial.evaluation.measures if measures is None else list(measures)
    keys = TrialKeys(
        training=training,
        measurements={name: _measurement_keys(trial, name, training) for name in taken},
        sources=code.to_json(),
        files=tuple(map(str, read)),
    )
    return trial.model_copy(update={"keys": keys})


def require_same_code(trial: Trial, device: str) -> None:
    """Refuse to compute a planned trial with other code than that of the process that planned it.

    Raises:
        RunError: this process has other code; it names what differs.
    """
    if trial.keys is None:
        return
    here = planned(trial, device, files=map(Path, trial.keys.files), measures=trial.keys.measurements)
    if here.keys is not None and _within(trial.keys, here.keys):
        return
    changes = Sources.from_json(here.keys.sources).changes(Sources.from_json(trial.keys.sources)) if here.keys else []
    raise RunError(
        "The code is not that of the process that planned the trial.",
        where=trial.label,
        expected="the same sources, files and device in every process of a run",
        got="; ".join(changes) or "another measure, or another kind of device",
        fix="start the run again, and leave the sources alone while it is at work",
    )


def _within(asked: TrialKeys, known: TrialKeys) -> bool:
    """Whether the tasks that are asked for have the same keys here."""
    measurements = {name: dict(sizes) for name, sizes in known.measurements.items()}
    return asked.training == known.training and all(
        measurements[name].get(size) == key for name, sizes in asked.measurements.items() for size, key in sizes.items()
    )


def specification_key(trial: Trial, device: str) -> str:
    """Like the training key, without code and files: by it a training of earlier code is recognised."""
    return _key(_training_parts(trial, device))


def _training_parts(trial: Trial, device: str) -> dict[str, object]:
    training = trial.training.to_json()
    del training["checkpoint_every"]
    return {
        "format": FORMAT,
        "teacher": trial.teacher.to_json(),
        "student": trial.student.to_json(),
        "training": training,
        "seed": trial.seed,
        "dtype": trial.dtype,
        "device": torch.device(device).type,
        "policy": computing.POLICY,
    }


def _measurement_keys(trial: Trial, name: str, training: str) -> dict[int, str]:
    measure = trial.measure(name)
    specification = measure.to_json()
    for field in measure.without_effect:
        specification.pop(field, None)
    parts = {
        "training": training,
        "measure": specification,
        "sigma": trial.sigma,
        "evaluation_seed": trial.evaluation.seed,
        "code": sources_of(measure.code(), files={*measure.reads(), *literal_files(measure.code())}).digest,
    }
    return {size: _key({**parts, "size": size}) for size in dict.fromkeys(trial.evaluation.sizes_of(name))}


def _key(parts: Mapping[str, object]) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
