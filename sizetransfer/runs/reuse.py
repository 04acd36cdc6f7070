"""What a run finds in its store: how much of it, how old, computed where, and what earlier code had made instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sizetransfer.runs.environment import fingerprint
from sizetransfer.runs.keys import specification_key
from sizetransfer.runs.sources import Sources
from sizetransfer.runs.store import Store
from sizetransfer.runs.trial import TaskResult, TrialResult
from sizetransfer.runs.trials import Trial


@dataclass(frozen=True)
class Found:
    """The trainings of a store when a run begins.

    Attributes:
        trainings: the content of ``training.json`` by key, the oldest first.
        measurements: keys of what was measured of them.
    """

    trainings: Mapping[str, Mapping[str, Any]]
    measurements: frozenset[str]

    @classmethod
    def in_store(cls, store: Store) -> Found:
        """Look into the store."""
        headers = [header for place in store for header in [place.header()] if header is not None]
        measured = frozenset(key for place in store for key in place.measured())
        in_order = sorted(headers, key=lambda header: str(header["created"]))
        return cls({header["key"]: header for header in in_order}, measured)

    def others(self, keys: Iterable[str]) -> int:
        """Trainings that are none of these."""
        return len(set(self.trainings) - set(keys))

    def renewed(self, trials: Mapping[str, Trial], device: str) -> list[dict[str, Any]]:
        """The trials that must be trained anew because code or files have changed, with what has changed."""
        earlier = {body["specification"]: body for key, body in self.trainings.items() if key not in trials}
        found = []
        for key, trial in trials.items():
            body = earlier.get(specification_key(trial, device))
            if body is not None and key not in self.trainings and trial.keys is not None:
                now = Sources.from_json(trial.keys.sources)
                changes = now.changes(Sources.from_json(body["sources"]))
                found.append({"trial": key, "label": trial.label, "changes": changes})
        return found

    def reused(self, results: Iterable[TrialResult], device: str) -> dict[str, Any]:
        """How many results were there before, how old they are, and what they were computed with where it differs."""
        known = list(results)
        trainings = [result.body for result in known if result.body and result.body == self.trainings.get(result.key)]
        tasks = [task.body for result in known for task in result.tasks if self._there(task)]
        dates = sorted(str(body["created"]) for body in (*trainings, *tasks))
        return {
            "trainings": len(trainings),
            "measurements": len(tasks),
            "oldest": dates[0] if dates else None,
            "newest": dates[-1] if dates else None,
            "computed_with": _differing((*trainings, *tasks), fingerprint(device)),
        }

    def _there(self, task: TaskResult) -> bool:
        return task.status == "reused" and task.task.key in self.measurements


def _differing(bodies: Iterable[Mapping[str, Any]], here: Mapping[str, str]) -> list[str]:
    """Versions and processors of results that are not those of this process."""
    return sorted(
        {f"{name} {body[name]}" for body in bodies for name in here if body.get(name, here[name]) != here[name]}
    )
