"""What is known of every trial of a run, and the files that tell it: the manifest, the records and the verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from sizetransfer.contracts.records import Sums
from sizetransfer.runs.directory import RunDirectory
from sizetransfer.runs.environment import describe
from sizetransfer.runs.evidence import Place, sums_at, verdicts, verdicts_as_data
from sizetransfer.runs.formats import COLUMNS, DTYPES
from sizetransfer.runs.preflight import Plan
from sizetransfer.runs.reuse import Found
from sizetransfer.runs.trial import TaskResult, TrialResult
from sizetransfer.runs.trials import Experiment, Trial
from sizetransfer.runs.workplace import Workplace, kinds_of

_TAKEN = (
    *("device", "training_seconds", "step_seconds", "steps", "parameters", "training_sites"),
    *("training_score_calls", "created", "torch", "processor", "radius_not_held"),
)


class Ledger:
    """What is known of every trial, and the files that tell it."""

    def __init__(
        self,
        experiment: Experiment,
        workplace: Workplace,
        directory: RunDirectory,
        plan: Plan,
        details: Mapping[str, Any],
    ) -> None:
        self.experiment = experiment
        self.workplace = workplace
        self.directory = directory
        self.plan = plan
        self.results: dict[str, TrialResult] = {}
        # Names do not enter the key: entries of the grid with equal specifications are one trial.
        self.grid = [(trial.keys.training, trial) for trial in plan.trials if trial.keys is not None]
        self._found = Found.in_store(workplace.results)
        self._fixed = {
            "format": 2,
            "experiment": experiment.name,
            "preset": experiment.preset,
            "seeds": list(experiment.seeds),
            "evaluation_seed": experiment.evaluation.seed,
            "dtype": experiment.dtype,
            "store": self._store(),
            "plugins": self._plugins(),
            **describe(workplace.device),
            **details,
            "renewed": self._found.renewed(dict(self.grid), workplace.device),
            "other_trainings": self._found.others(key for key, _ in self.grid),
            "started": _now(),
        }

    def unfinished(self) -> dict[str, Trial]:
        """One trial for every key that has no result."""
        unique: dict[str, Trial] = {}
        for key, trial in self.grid:
            if key not in self.results:
                unique.setdefault(key, trial)
        return unique

    def trained(self, trial: Trial) -> bool:
        """Whether the store has the trial's training."""
        return self.workplace.directory(trial).header() is not None

    def add(self, result: TrialResult) -> None:
        """Take a result and write it down."""
        self.results[result.key] = result
        self.write()

    def write(self) -> None:
        """Write the records, the verdicts and the manifest as far as they go."""
        records = frame(self._rows())
        self.directory.write_records(records)
        found = verdicts(records, self.experiment, self._sums())
        self.directory.write_verdicts(verdicts_as_data(found, self.experiment, len(records)))
        self.directory.write_manifest(self._manifest())

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        for key, trial in self.grid:
            names = {
                "experiment": trial.experiment,
                "teacher": trial.teacher_name,
                "student": trial.student_name,
            }
            for result in self._tasks(key):
                yield from ({**row, **names, "measure": result.task.name} for row in result.rows)

    def _sums(self) -> dict[Place, Sums]:
        found: dict[Place, Sums] = {}
        for key, trial in self.grid:
            names = {"teacher": trial.teacher_name, "student": trial.student_name}
            for result in self._tasks(key):
                found |= sums_at(result.rows, result.body.get("sums", ()), {**names, "measure": result.task.name})
        return found

    def _tasks(self, key: str) -> tuple[TaskResult, ...]:
        return self.results[key].tasks if key in self.results else ()

    def _manifest(self) -> dict[str, Any]:
        entries = [self._entry(key, trial) for key, trial in self.grid]
        failures = list(self._failures())
        complete = all(
            entry["status"] in {"finished", "reused"} and entry["measurements"]["done"] == entry["measurements"]["of"]
            for entry in entries
        )
        return {
            **self._fixed,
            "written": _now(),
            "complete": complete,
            "reused": self._found.reused(self.results.values(), self.workplace.device),
            "trials": entries,
            "failures": failures,
            "skipped": list(self._skipped()),
            "notes": {name: list(notes) for name, notes in self.plan.notes.items() if notes},
        }

    def _failures(self) -> Iterator[dict[str, Any]]:
        for key, trial in self.grid:
            result = self.results.get(key)
            if result is None:
                continue
            if result.error is not None:
                yield {"trial": key, "label": trial.label, "error": str(result.error)}
            for one in result.tasks:
                if one.error is not None:
                    where = {"measure": one.task.name, "size": one.task.size}
                    yield {"trial": key, "label": trial.label, **where, "error": str(one.error)}

    def _skipped(self) -> Iterator[dict[str, str]]:
        for _, trial in self.grid:
            for (teacher, measure), reason in self.plan.skipped.items():
                if teacher == trial.teacher_name:
                    yield {"label": trial.label, "measure": measure, "reason": reason}

    def _entry(self, key: str, trial: Trial) -> dict[str, Any]:
        result = self.results.get(key)
        body = result.body if result is not None else {}
        entry = {
            "trial": key,
            "label": trial.label,
            "teacher": trial.teacher_name,
            "student": trial.student_name,
            "seed": trial.seed,
            "status": "pending" if result is None else result.status,
            **{name: body[name] for name in _TAKEN if name in body},
        }
        done = [one for one in result.tasks if one.error is None] if result is not None else []
        if body:
            entry["seconds"] = body["seconds"] + sum(one.body.get("seconds", 0.0) for one in done)
            entry["evaluation_score_calls"] = sum(one.body.get("score_calls", 0) for one in done)
        tasks = len(list(trial.tasks()))
        return {**entry, "measurements": {"done": len(done), "of": tasks}}

    def _store(self) -> str | None:
        return None if self.workplace.store is None else str(self.workplace.store.resolve())

    def _plugins(self) -> dict[str, str]:
        kinds = [kind for _, trial in self.grid for kind in kinds_of(trial)]
        return self.workplace.registry.owner_versions(dict.fromkeys(kinds))


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The records as a table with the columns of :class:`~sizetransfer.contracts.records.Record`."""
    table = pd.DataFrame([[row[name] for name in COLUMNS] for row in rows], columns=list(COLUMNS))
    return table.astype(DTYPES)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
