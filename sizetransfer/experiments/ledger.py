"""What is known of every trial of a run, and the files that tell it: the manifest and the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from sizetransfer.experiments.directory import RunDirectory
from sizetransfer.experiments.environment import describe
from sizetransfer.experiments.trial import TrialResult, label_of
from sizetransfer.experiments.workplace import Workplace, kinds_of
from sizetransfer.records import Record
from sizetransfer.trials import Experiment, Trial

COLUMNS = tuple(field.name for field in fields(Record))
DTYPES = {
    "radius": "Int64",
    **dict.fromkeys(("seed", "train_size", "size", "n"), "int64"),
    **dict.fromkeys(("sigma", "coordinate", "value", "standard_error"), "float64"),
    **dict.fromkeys(("experiment", "teacher", "student", "measure", "part"), "str"),
}


class Ledger:
    """What is known of every trial, and the files that tell it."""

    def __init__(
        self, experiment: Experiment, workplace: Workplace, directory: RunDirectory, details: Mapping[str, Any]
    ) -> None:
        self.workplace = workplace
        self.directory = directory
        self.results: dict[str, TrialResult] = {}
        # Names do not enter the key: entries of the grid with equal specifications are one trial.
        self.grid = [(workplace.directory(trial).key, trial) for trial in experiment.trials()]
        self._fixed = {
            "format": 1,
            "experiment": experiment.name,
            "preset": experiment.preset,
            "seeds": list(experiment.seeds),
            "evaluation_seed": experiment.evaluation.seed,
            "dtype": experiment.dtype,
            "plugins": self._plugins(),
            **describe(workplace.device),
            **details,
            "started": _now(),
        }

    def unfinished(self) -> list[Trial]:
        """One trial for every key that has no result."""
        unique: dict[str, Trial] = {}
        for key, trial in self.grid:
            if key not in self.results:
                unique.setdefault(key, trial)
        return list(unique.values())

    def add(self, result: TrialResult) -> None:
        """Take a result and write it down."""
        self.results[result.key] = result
        self.write()

    def write(self) -> None:
        """Write the manifest and the records as far as they go."""
        self.directory.write_records(frame(self._rows()))
        self.directory.write_manifest(self._manifest())

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        for key, trial in self.grid:
            names = {
                "experiment": trial.experiment,
                "teacher": trial.teacher_name,
                "student": trial.student_name,
            }
            yield from ({**row, **names} for row in (self.results[key].rows if key in self.results else ()))

    def _manifest(self) -> dict[str, Any]:
        entries = [self._entry(key, trial) for key, trial in self.grid]
        failures = [
            {"trial": key, "label": label_of(trial), "error": str(self.results[key].error)}
            for key, trial in self.grid
            if key in self.results and self.results[key].error is not None
        ]
        skipped = [
            {**item, "label": label_of(trial)}
            for key, trial in self.grid
            if key in self.results
            for item in self.results[key].body.get("skipped", ())
        ]
        complete = all(entry["status"] in {"finished", "reused"} for entry in entries)
        written = {"written": _now(), "complete": complete}
        return {**self._fixed, **written, "trials": entries, "failures": failures, "skipped": skipped}

    def _entry(self, key: str, trial: Trial) -> dict[str, Any]:
        result = self.results.get(key)
        taken = [
            *("device", "seconds", "training_seconds", "step_seconds", "steps", "parameters", "training_sites"),
            *("training_score_calls", "evaluation_score_calls"),
        ]
        body = result.body if result is not None else {}
        return {
            "trial": key,
            "label": label_of(trial),
            "teacher": trial.teacher_name,
            "student": trial.student_name,
            "seed": trial.seed,
            "status": "pending" if result is None else result.status,
            **{name: body[name] for name in taken if name in body},
        }

    def _plugins(self) -> dict[str, str]:
        kinds = [kind for _, trial in self.grid for kind in kinds_of(trial)]
        return self.workplace.registry.owner_versions(dict.fromkeys(kinds))


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The records as a table with the columns of :class:`~sizetransfer.records.Record`."""
    table = pd.DataFrame([[row[name] for name in COLUMNS] for row in rows], columns=list(COLUMNS))
    return table.astype(DTYPES)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
