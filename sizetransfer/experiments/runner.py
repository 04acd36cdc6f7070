"""Grids of trials: run them, resume them, read them back."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors.torch import load as load_weights

from sizetransfer.errors import RunError, SpecError
from sizetransfer.events import Event, OnEvent, ignore
from sizetransfer.experiments.directory import STUDENT_SPEC, STUDENT_WEIGHTS, TRAINING, RunDirectory, TrialDirectory
from sizetransfer.experiments.environment import choose_device
from sizetransfer.experiments.ledger import DTYPES, Ledger
from sizetransfer.experiments.preflight import check_trials
from sizetransfer.experiments.storage import StorageError, from_bytes, storage_errors
from sizetransfer.experiments.trial import TrialResult, arithmetic, build_teacher, label_of
from sizetransfer.experiments.workplace import Workplace, registry_from
from sizetransfer.registry import Registry, default_registry
from sizetransfer.specs import FieldInfo, did_you_mean
from sizetransfer.trials import Experiment, Trial

if TYPE_CHECKING:
    from sizetransfer.experiments.executors import Executor
    from sizetransfer.oracle import Teacher
    from sizetransfer.student import Student


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A run read from its directory.

    Attributes:
        path: the run directory.
        experiment: what was run.
        manifest: versions, device, wall times, score calls.
        records: one row for one number; the columns are the fields of :class:`~sizetransfer.records.Record`.
        failures: for each trial that failed ``{trial, label, error}``.
        skipped: for each measure that a teacher could not answer ``{label, measure, reason}``.
    """

    path: Path
    experiment: Experiment
    manifest: dict[str, Any]
    records: pd.DataFrame
    failures: list[dict[str, str]]
    skipped: list[dict[str, str]]
    registry: Registry

    def __repr__(self) -> str:
        return (
            f"Run({str(self.path)!r}: {self.experiment.name}, {len(self.records)} records, "
            f"{len(self.failures)} failures)"
        )

    @property
    def report(self) -> Path | None:
        """The report, if it has been written."""
        path = self.path / "report.html"
        return path if path.is_file() else None

    @property
    def complete(self) -> bool:
        """Whether every trial is finished."""
        return bool(self.manifest["complete"])

    @cached_property
    def _trials(self) -> dict[tuple[str, str, int], dict[str, Any]]:
        return {(entry["teacher"], entry["student"], entry["seed"]): entry for entry in self.manifest["trials"]}

    def teacher(self, name: str, *, device: str = "cpu") -> Teacher:
        """The teacher of this name, with the dtype of the run.

        Raises:
            RunError: the experiment has no such teacher.
        """
        if name not in self.experiment.teachers:
            raise _unknown("teacher", name, self.experiment.teachers)
        trial = next(trial for trial in self.experiment.trials() if trial.teacher_name == name)
        with arithmetic(trial.dtype):
            return build_teacher(trial, device)

    def student(self, teacher_name: str, student_name: str, seed: int | None = None, *, device: str = "cpu") -> Student:
        """The trained student of one trial, in eval mode; its output is that of the student that was measured.

        Args:
            teacher_name: its name in the experiment.
            student_name: its name in the experiment.
            seed: one of the experiment's seeds; by default its first.
            device: where to put it.

        Raises:
            RunError: there is no such trial, it is not finished, or its weights are damaged.
        """
        directory = self._finished(teacher_name, student_name, seed)
        spec = from_bytes(directory.read(STUDENT_SPEC)) or {}
        spec_class = self.registry.lookup("student", spec["student"]["kind"])
        with torch.random.fork_rng(devices=[]), arithmetic(spec["dtype"]):
            student: Student = spec_class.parse(spec["student"], lookup=self.registry.lookup).build(  # type: ignore[attr-defined]
                FieldInfo.parse(spec["field"])
            )
        student = student.to(dtype=getattr(torch, spec["dtype"]))
        student.load_state_dict(load_weights(directory.read(STUDENT_WEIGHTS)))
        return student.to(device).eval().requires_grad_(False)

    def training(self, teacher_name: str, student_name: str, seed: int | None = None) -> pd.DataFrame:
        """The history of one trial's training: step, loss, gradient_norm, learning_rate.

        Raises:
            RunError: as for :meth:`student`.
        """
        directory = self._finished(teacher_name, student_name, seed)
        rows = csv.reader(directory.read(TRAINING).decode().splitlines())
        columns = next(rows)
        return pd.DataFrame([[float(value) for value in row] for row in rows], columns=columns)

    def _finished(self, teacher_name: str, student_name: str, seed: int | None) -> TrialDirectory:
        if teacher_name not in self.experiment.teachers:
            raise _unknown("teacher", teacher_name, self.experiment.teachers)
        if student_name not in self.experiment.students:
            raise _unknown("student", student_name, self.experiment.students)
        chosen = self.experiment.seeds[0] if seed is None else seed
        entry = self._trials.get((teacher_name, student_name, chosen))
        if entry is None:
            raise _unknown("seed", str(chosen), map(str, self.experiment.seeds))
        directory = RunDirectory(self.path).trial(entry["trial"])
        body, damage = directory.inspect()
        if body is None:
            raise RunError(
                "The trial is damaged." if damage else "The trial is not finished.",
                where=str(directory.path),
                expected=f"the files of {entry['label']}",
                got=damage or entry["status"],
                fix="run the experiment again in this directory: what is finished and intact is kept",
            )
        return directory


def run(
    experiment: Experiment,
    out: Path | str | None = None,
    *,
    device: str = "auto",
    executor: str = "local",
    workers: int | None = None,
    fresh: bool = False,
    on_event: OnEvent = ignore,
    registry: Registry | str | None = None,
) -> Run:
    """Run every trial of an experiment, or what is left of them, and write the run directory.

    Args:
        experiment: what to run.
        out: run directory; by default ``runs/<name>-<preset>``. What an earlier run of the same experiment has
            finished there is kept.
        device: ``auto``, or a torch device.
        executor: ``local`` (several processes), ``serial`` (this process), or one that a plugin has registered.
        workers: trials to compute at a time; ``None``: the executor decides.
        fresh: compute everything again.
        on_event: told of progress, in this process and thread.
        registry: a registry other than that of the installed plugins; for executors with other processes the
            name ``module:function`` of a function that returns it.

    Raises:
        SpecError: a student's receptive field wraps around the training torus; an unknown executor or kind.
        RunError: the directory belongs to something else, is in use, or cannot be written.
    """
    found = registry_from(registry) if isinstance(registry, str) else registry or default_registry()
    workplace = Workplace(
        path=Path(out) if out is not None else default_directory(experiment),
        device=choose_device(device),
        registry=found,
        registry_source=registry if isinstance(registry, str) else None,
        workers=workers,
    )
    _check_workers(workplace, executor)
    factory = found.executor(executor)
    costs = check_trials(experiment.trials())

    def tell(event: Event) -> None:
        on_event(event)
        found.emit(event)

    directory = RunDirectory(workplace.path)
    with directory.claimed(experiment.to_json(), fresh=fresh):
        ledger = Ledger(experiment, workplace, directory, {"executor": executor, "workers": workers})
        _run_trials(ledger, factory(workplace), costs, tell)
    return open_run(workplace.path, registry=found)


def open_run(path: Path | str, *, registry: Registry | None = None) -> Run:
    """Read a run back, whether it is complete or not; nothing is changed.

    Raises:
        RunError: the directory holds no run, or a damaged one.
    """
    found = registry or default_registry()
    directory = RunDirectory(Path(path))
    try:
        experiment = Experiment.parse(directory.read("experiment.json"), lookup=found.lookup)
    except SpecError as error:
        error.where = f"{directory.path / 'experiment.json'}: {error.where}"
        raise
    manifest = directory.read("manifest.json")
    return Run(
        path=directory.path,
        experiment=experiment,
        manifest=manifest,
        records=_read_records(directory),
        failures=manifest["failures"],
        skipped=manifest["skipped"],
        registry=found,
    )


def default_directory(experiment: Experiment) -> Path:
    """``runs/<name>-<preset>``, the same every time, so that running again goes on."""
    return Path("runs") / "-".join(filter(None, [experiment.name, experiment.preset]))


def _run_trials(ledger: Ledger, executor: Executor, costs: Mapping[tuple[str, str], float], on_event: OnEvent) -> None:
    for key, trial in ledger.grid:
        if key not in ledger.results:
            _reuse(ledger, trial, on_event)
    ledger.write()
    trials = ledger.unfinished()
    # The longest first, so that no processor is left alone with one at the end.
    trials.sort(key=lambda trial: -costs[trial.teacher_name, trial.student_name])
    if not trials:
        return
    results = executor.run(trials, on_event)
    try:
        for result in results:
            ledger.add(result)
            if isinstance(result.error, StorageError):
                raise result.error
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            close()


def _reuse(ledger: Ledger, trial: Trial, on_event: OnEvent) -> None:
    directory = ledger.workplace.directory(trial)
    label = label_of(trial)
    body = directory.recover(label)
    if body is not None:
        ledger.results[directory.key] = TrialResult(directory.key, label, "reused", body, tuple(directory.rows()))
        on_event(Event("reused", directory.key, label, done=1.0, step=body["steps"]))


def _read_records(directory: RunDirectory) -> pd.DataFrame:
    path = directory.path / "records.parquet"
    with storage_errors(path):
        content = path.read_bytes() if path.is_file() else b""
    try:
        table = pd.read_parquet(BytesIO(content))
    except (ValueError, OSError) as error:
        raise RunError(
            "The records cannot be read.",
            where=str(path),
            got=str(error) if content else "no such file, or an empty one",
            fix="run the experiment again in this directory: the records are put together from the finished trials",
        ) from error
    return table.astype(DTYPES)


def _check_workers(workplace: Workplace, executor: str) -> None:
    if workplace.workers is not None and workplace.workers < 1:
        raise RunError("There must be a worker.", where="workers", expected="1 or more", got=str(workplace.workers))
    own = workplace.registry_source is None and workplace.registry is not default_registry()
    if own and executor != "serial":
        raise RunError(
            "Other processes cannot get at this registry.",
            where=f"run(registry=..., executor={executor!r})",
            expected="the name 'module:function' of a function that returns the registry",
            got="a Registry object",
            fix="give that name, or use executor='serial'",
        )


def _unknown(what: str, name: str, known: Iterable[str]) -> RunError:
    names = list(known)
    return RunError(
        f"The run has no {what} {name!r}.",
        expected=f"one of {', '.join(names)}",
        got=repr(name),
        fix=did_you_mean(name, names) or "choose one of those above",
    )
