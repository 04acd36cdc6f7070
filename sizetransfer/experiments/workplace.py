"""Where trials are computed, and how a trial crosses to another process and back.

Everything that crosses is JSON. A process that computes trials finds teachers, students and measures in its own
registry: the plugins that are installed, or what the function named by ``registry_source`` returns.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sizetransfer.errors import RunError, SizetransferError, SpecError
from sizetransfer.events import Event, OnEvent
from sizetransfer.experiments.directory import TRACEBACK, RunDirectory, TrialDirectory
from sizetransfer.experiments.trial import TrialResult, label_of, run_trial
from sizetransfer.registry import Registry, default_registry
from sizetransfer.specs import Family
from sizetransfer.trials import Trial

if TYPE_CHECKING:
    from sizetransfer.specs import KindSpec


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
    """

    path: Path
    device: str
    registry: Registry
    registry_source: str | None = None
    workers: int | None = None

    def versions(self, trial: Trial) -> dict[str, str]:
        """Versions of the distributions whose code takes part in the trial."""
        return self.registry.owner_versions(kinds_of(trial))

    def directory(self, trial: Trial) -> TrialDirectory:
        """Where the trial is kept."""
        return RunDirectory(self.path).trial(trial.key(self.versions(trial)))

    def perform(self, trial: Trial, on_event: OnEvent) -> TrialResult:
        """Compute the trial in this process; what goes wrong becomes a failed result, so that others can go on."""
        directory = self.directory(trial)
        try:
            return run_trial(trial, directory, device=self.device, versions=self.versions(trial), on_event=on_event)
        except SizetransferError as error:
            return failed(directory.key, trial, error, on_event)
        except Exception as error:  # a plugin may raise anything, and must not stop other trials
            return failed(directory.key, trial, _unexpected(error, trial, directory), on_event)

    def to_json(self) -> dict[str, Any]:
        """What another process needs to work in the same place."""
        return {"path": str(self.path.resolve()), "device": self.device, "registry_source": self.registry_source}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The workplace in this process."""
        source = data["registry_source"]
        return cls(Path(data["path"]), data["device"], registry_from(source), source)


def failed(key: str, trial: Trial, error: SizetransferError, on_event: OnEvent) -> TrialResult:
    """The result of a trial that stopped with ``error``; the event is sent."""
    label = label_of(trial)
    on_event(Event("failed", key, label, detail=error.what))
    return TrialResult(key, label, "failed", error=error)


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


def _unexpected(error: Exception, trial: Trial, directory: TrialDirectory) -> RunError:
    path = directory.path / TRACEBACK
    with suppress(OSError):
        path.write_text("".join(traceback.format_exception(error)))
    return RunError(
        "The trial stopped with an error that is not one of this library's.",
        where=label_of(trial),
        got=f"{type(error).__name__}: {error}",
        fix=f"see the traceback in {path}; if memory ran out, lower training.batch or the evaluation's sizes",
    )
