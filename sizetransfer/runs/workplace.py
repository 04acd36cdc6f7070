"""Where trials are computed, and how a trial crosses to another process and back.

Everything that crosses is JSON. A process that computes trials finds teachers, students and measures in its own
registry: the plugins that are installed, or what the function named by ``registry_source`` returns.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sizetransfer.contracts.errors import RunError, SizetransferError, SpecError
from sizetransfer.contracts.events import Event, OnEvent
from sizetransfer.contracts.specs import Family
from sizetransfer.registry import Registry, default_registry
from sizetransfer.runs.directory import RunDirectory
from sizetransfer.runs.keys import planned
from sizetransfer.runs.store import Store, TrainingDirectory
from sizetransfer.runs.trial import TrialResult, read_trial, run_trial, unexpected
from sizetransfer.runs.trials import Trial

if TYPE_CHECKING:
    from sizetransfer.contracts.specs import KindSpec


def registry_from(source: str | None) -> Registry:
    """The registry that ``module:function`` returns; without a source, that of the installed plugins.

    Raises:
        SpecError: there is no such function, or it returns something else.
    """
    if source is None:
        return default_registry()
    module, _, function = source.partition(":")
    try:
        registry = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, ValueError) as error:
        raise _no_registry(source, str(error)) from error
    if not isinstance(registry, Registry):
        raise _no_registry(source, f"a function that returns {type(registry).__name__}")
    return registry


def _no_registry(source: str, got: str) -> SpecError:
    return SpecError(
        "The registry cannot be found.",
        where=f"registry={source!r}",
        expected="'module:function', a function without arguments that returns a Registry",
        got=got,
        fix="give the name of a function in a module that every process can import",
    )


@dataclass(frozen=True)
class Workplace:
    """What an executor must know beside the trials.

    Attributes:
        path: the run directory.
        device: torch device of every trial.
        registry: finds teachers, students and measures in this process.
        registry_source: ``module:function`` by which another process gets the same registry; ``None``: the
            installed plugins.
        workers: how many trials to compute at a time; ``None``: the executor decides.
        store: where trainings and measurements are kept; ``None``: inside the run directory.
        plugins: the plugins that take part, as the environment variable ``SIZETRANSFER_PLUGINS`` names them; other
            processes import no others. ``None``: all that are installed.
    """

    path: Path
    device: str
    registry: Registry
    registry_source: str | None = None
    workers: int | None = None
    store: Path | None = None
    plugins: str | None = None

    @property
    def results(self) -> Store:
        """The store of results."""
        return RunDirectory(self.path).own_store if self.store is None else Store(self.store, shared=True)

    def versions(self, trial: Trial) -> dict[str, str]:
        """Versions of the distributions whose code takes part in the trial."""
        return self.registry.owner_versions(kinds_of(trial))

    def directory(self, trial: Trial) -> TrainingDirectory:
        """Where the trial's training is kept, with what was measured of it."""
        keys = trial.keys or planned(trial, self.device).keys
        return self.results.training(keys.training if keys else "")

    def perform(self, trial: Trial, on_event: OnEvent) -> TrialResult:
        """Compute the trial in this process; what goes wrong becomes a failed result, so that others can go on."""
        if trial.keys is None:
            trial = planned(trial, self.device)
        directory = self.directory(trial)
        try:
            return run_trial(trial, directory, device=self.device, versions=self.versions(trial), on_event=on_event)
        except SizetransferError as error:
            return failed(directory, trial, error, on_event)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, and must not stop other trials
            return failed(directory, trial, unexpected(error, trial.label, directory), on_event)

    def to_json(self) -> dict[str, Any]:
        """What another process needs to work in the same place."""
        store = None if self.store is None else str(self.store.resolve())
        place = {"path": str(self.path.resolve()), "device": self.device, "store": store}
        return {**place, "registry_source": self.registry_source, "plugins": self.plugins}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The workplace in this process."""
        source, store = data["registry_source"], data["store"]
        return cls(
            path=Path(data["path"]),
            device=data["device"],
            registry=registry_from(source),
            registry_source=source,
            store=None if store is None else Path(store),
            plugins=data["plugins"],
        )


def failed(directory: TrainingDirectory, trial: Trial, error: SizetransferError, on_event: OnEvent) -> TrialResult:
    """The result of a trial that stopped with ``error``, with what the store has of it; the event is sent."""
    on_event(Event("failed", directory.key, trial.label, detail=error.what))
    there = read_trial(trial, directory)
    if there is not None:
        return replace(there, status="failed", error=error)
    return TrialResult(directory.key, trial.label, "failed", error=error)


def kinds_of(trial: Trial) -> list[tuple[Family, str]]:
    """Everything registered that the trial uses."""
    measures = trial.evaluation.measures.values()
    return [
        ("teacher", trial.teacher.kind),
        ("student", trial.student.kind),
        *(("measure", kind) for kind in sorted({measure.kind for measure in measures})),
    ]


def parse_trial(data: Mapping[str, Any], registry: Registry) -> Trial:
    """The trial that ``trial.to_json()`` described, with the classes that ``registry`` knows."""
    families: tuple[Family, ...] = ("teacher", "student")
    specs: dict[str, KindSpec] = {
        family: registry.lookup(family, data[family]["kind"]).parse(data[family], where=family, lookup=registry.lookup)
        for family in families
    }
    return Trial.parse({**data, **specs}, lookup=registry.lookup)


def error_to_json(error: SizetransferError) -> dict[str, Any]:
    """The error as JSON."""
    fields = {name: getattr(error, name) for name in ("what", "where", "expected", "got", "fix")}
    return {"class": type(error).__name__, **fields}


def error_from_json(data: Mapping[str, Any]) -> SizetransferError:
    """The error that :func:`error_to_json` described; of a class that is not known here, a :class:`RunError`."""
    fields = dict(data)
    name = fields.pop("class")
    known = {cls.__name__: cls for cls in _descendants(SizetransferError)}
    return known.get(name, RunError)(fields.pop("what"), **fields)


def _descendants(cls: type[SizetransferError]) -> list[type[SizetransferError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in _descendants(child))]
