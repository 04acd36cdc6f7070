"""Grids of trials: compute what the store does not have, and show it in a run directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sizetransfer.contracts.arithmetic import undisturbed
from sizetransfer.contracts.errors import RunError, SizetransferError, SpecError, described
from sizetransfer.contracts.events import Event, OnEvent, ignore
from sizetransfer.contracts.specs import did_you_mean
from sizetransfer.registry import Registry, Sort, default_registry
from sizetransfer.runs.directory import OWN_STORE, RunDirectory
from sizetransfer.runs.environment import choose_device
from sizetransfer.runs.ledger import Ledger
from sizetransfer.runs.opened import Run, read_run
from sizetransfer.runs.preflight import plan
from sizetransfer.runs.reuse import Found
from sizetransfer.runs.storage import StorageError
from sizetransfer.runs.trial import TrialResult, read_trial
from sizetransfer.runs.trials import Experiment, Trial
from sizetransfer.runs.workplace import Workplace, kinds_of, registry_from

if TYPE_CHECKING:
    from sizetransfer.runs.executors import Executor

Part = Mapping[str, Sequence[str]]
"""A part of the grid: names of teachers and students and seeds, by ``teacher``, ``student`` and ``seed``."""


def run(
    experiment: Experiment,
    out: Path | str | None = None,
    *,
    device: str = "auto",
    executor: str = "local",
    workers: int | None = None,
    fresh: bool = False,
    store: Path | str | None = None,
    only: Part | None = None,
    train: bool = True,
    on_event: OnEvent = ignore,
    registry: Registry | str | None = None,
) -> Run:
    """Compute what the store does not have of an experiment, and make the run directory show the experiment.

    Args:
        experiment: what to run.
        out: run directory; by default ``runs/<name>-<preset>``. It may show an earlier state of the experiment.
        device: ``auto``, or a torch device.
        executor: ``local`` (several processes), ``serial`` (this process), or one that a plugin has registered.
        workers: trials to compute at a time; ``None``: the executor decides.
        fresh: compute everything of the grid again.
        store: where trainings and measurements are kept; by default inside the run directory.
        only: the part of the grid to compute; the rest is shown as far as the store has it.
        train: whether trainings that are not there are done; otherwise they are left out.
        on_event: told of progress, in this process and thread.
        registry: a registry other than that of the installed plugins; for executors with other processes the
            name ``module:function`` of a function that returns it.

    Raises:
        SpecError: a student's receptive field wraps around the training torus; an unknown executor, kind or part.
        RunError: the directory belongs to something else, is in use, or cannot be written.
    """
    workplace = _workplace(experiment, out, device, executor, workers, store, registry)
    found = workplace.registry
    factory = found.executor(executor)
    found.listeners()
    chosen = _chosen(experiment, only or {})
    directory = RunDirectory(workplace.path)
    directory.check(experiment.to_json())
    if store is None:
        _check_store(directory)
    planned = plan(experiment.trials(), workplace.device)
    if not train:
        _require_trained([trial for trial in planned.trials if _belongs(trial, chosen)], workplace)

    def tell(event: Event) -> None:
        with undisturbed():  # a listener may change what it likes, and changes nothing of the run
            on_event(event)
            found.emit(event)

    with directory.claimed(experiment.to_json()):
        workplace.results.tidy()
        if fresh:
            again = [trial for trial in planned.trials if _belongs(trial, chosen)]
            _forget(directory, workplace, again, whole=not chosen)
        ledger = Ledger(experiment, workplace, directory, planned, {"executor": executor, "workers": workers})
        _run_trials(ledger, factory(workplace), chosen, tell, train=train)
    return read_run(workplace.path, registry=found, trust=True)


def _workplace(
    experiment: Experiment,
    out: Path | str | None,
    device: str,
    executor: str,
    workers: int | None,
    store: Path | str | None,
    registry: Registry | str | None,
) -> Workplace:
    """Where and with what a run is computed.

    Raises:
        RunError: no workers, or a registry that the executor's processes cannot get at.
    """
    found = registry_from(registry) if isinstance(registry, str) else registry or default_registry()
    path = _absolute(out if out is not None else default_directory(experiment))
    workplace = Workplace(
        path=path,
        device=choose_device(device),
        registry=found,
        registry_source=registry if isinstance(registry, str) else None,
        workers=workers,
        store=_elsewhere(store, path),
        plugins=_taking_part(experiment, executor, found),
    )
    _check_workers(workplace, executor)
    return workplace


def _absolute(path: Path | str) -> Path:
    """The path, whatever directory the code of a teacher or student goes to; links stay links."""
    return Path(path).absolute()


def default_directory(experiment: Experiment) -> Path:
    """``runs/<name>-<preset>``, the same every time, so that running again goes on."""
    return Path("runs") / "-".join(filter(None, [experiment.name, experiment.preset]))


def _run_trials(ledger: Ledger, executor: Executor, chosen: Part, on_event: OnEvent, *, train: bool) -> None:
    # Names do not enter the key: what one entry of the grid asks for, another one may share.
    asked = {key for key, trial in ledger.grid if _belongs(trial, chosen)}
    for key, trial in ledger.grid:
        if key not in ledger.results:
            _reuse(ledger, trial, on_event, whole=key in asked)
    ledger.write()
    trials = [trial for key, trial in ledger.unfinished().items() if key in asked and (train or ledger.trained(trial))]
    # The longest first, so that no processor is left alone with one at the end.
    costs = ledger.plan.costs
    trials.sort(key=lambda trial: -costs[trial.teacher_name, trial.student_name])
    if trials:
        _compute(ledger, executor, trials, on_event)


def _compute(ledger: Ledger, executor: Executor, trials: Sequence[Trial], on_event: OnEvent) -> None:
    with _executor_errors(), undisturbed():
        results = iter(executor.run(trials, on_event))
    try:
        while True:
            with _executor_errors(), undisturbed():
                result = next(results, None)
                if result is None:
                    break
                if not isinstance(result, TrialResult):
                    raise TypeError(f"a result that is no TrialResult but a {type(result).__name__}")
            ledger.add(result)
            if isinstance(result.error, StorageError):
                raise result.error
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            close()


@contextmanager
def _executor_errors() -> Iterator[None]:
    """Turn whatever an executor raises into an error that says so; what is finished is kept.

    Raises:
        RunError: with what it raised.
    """
    try:
        yield
    except (SizetransferError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plugin may raise anything
        raise RunError(
            "The executor stopped with an error.",
            where="executor.run",
            got=described(error),
            fix="what is finished is kept; run again, with --executor local or serial for example",
        ) from error


def _reuse(ledger: Ledger, trial: Trial, on_event: OnEvent, *, whole: bool) -> None:
    """Show what the store has of a trial; of one that is going to be computed, only if all of it is there."""
    result = read_trial(trial, ledger.workplace.directory(trial))
    if result is None:
        return
    complete = len(result.tasks) == len(list(trial.tasks()))
    if complete or not whole:
        ledger.results[result.key] = result
    if complete:
        on_event(Event("reused", result.key, trial.label, done=1.0, step=result.body["steps"]))


def _forget(directory: RunDirectory, workplace: Workplace, trials: Sequence[Trial], *, whole: bool) -> None:
    """Remove what is to be computed anew, and everything else that the run's own store holds if the grid is whole."""
    directory.forget()
    places = {place.path: place for place in map(workplace.directory, trials)}
    if whole and workplace.store is None:
        places |= {place.path: place for place in workplace.results}
    # In a shared store, what other experiments have measured of these trainings stays true, and stays.
    asked = None if workplace.store is None else {task.key for trial in trials for task in trial.tasks()}
    for place in places.values():
        if place.path.is_dir():
            with place.prepared():
                place.remove(asked)


def _chosen(experiment: Experiment, only: Part) -> Part:
    """The part of the grid to compute, checked.

    Raises:
        SpecError: the grid has no such axis or entry.
    """
    known = {
        "teacher": list(experiment.teachers),
        "student": list(experiment.students),
        "seed": [str(seed) for seed in experiment.seeds],
    }
    for axis, names in only.items():
        wrong = [name for name in names if name not in known.get(axis, ())]
        if axis not in known or wrong:
            asked, there = (wrong[0], known[axis]) if axis in known else (axis, list(known))
            raise SpecError(
                f"The grid has no {axis if axis in known else 'axis'} {asked!r}.",
                where="only",
                expected=f"one of {', '.join(there)}",
                got=repr(asked),
                fix=did_you_mean(asked, there) or "choose one of those above",
            )
    return only


def _belongs(trial: Trial, chosen: Part) -> bool:
    own = {"teacher": trial.teacher_name, "student": trial.student_name, "seed": str(trial.seed)}
    return all(own[axis] in names for axis, names in chosen.items())


def _require_trained(trials: Sequence[Trial], workplace: Workplace) -> None:
    """Refuse to show a run of which nothing is trained by the code and on the kind of device that there are now.

    Raises:
        RunError: with what has changed since the training.
    """
    found = Found.in_store(workplace.results)
    keyed = {trial.keys.training: trial for trial in trials if trial.keys is not None}
    if not keyed or any(key in found.trainings for key in keyed):
        return
    changes = [change for item in found.renewed(keyed, workplace.device) for change in item["changes"]]
    raise RunError(
        "Nothing that is asked for is trained; nothing was changed.",
        where=str(workplace.results.root),
        expected="a finished training of the same specification, code, files and kind of device",
        got="; ".join(dict.fromkeys(changes[:5])) or f"{len(found.trainings)} trainings of others",
        fix="train with `sizetransfer run`, or measure with the code and the --device of the training",
    )


def _taking_part(experiment: Experiment, executor: str, registry: Registry) -> str:
    """The plugins that other processes need, as ``SIZETRANSFER_PLUGINS`` names them."""
    kinds: dict[tuple[Sort, str], None] = dict.fromkeys(kind for one in experiment.trials() for kind in kinds_of(one))
    return ",".join(registry.owners([*kinds, ("executor", executor)]))


def _elsewhere(store: Path | str | None, path: Path) -> Path | None:
    """The store that was given, unless it is the run directory's own."""
    if store is None or Path(store).resolve() == (path / OWN_STORE).resolve():
        return None
    return _absolute(store)


def _check_store(directory: RunDirectory) -> None:
    """Refuse to leave, unasked, the store that results are in, and to write there because a file says so.

    Raises:
        RunError: the directory shows results of another store than its own.
    """
    there = directory.elsewhere()
    if there is not None:
        raise RunError(
            "The results that the directory shows are in another store.",
            where=str(directory.path),
            expected="the store that they are in, or another one that you want",
            got="no store",
            fix=f"give --store {there} to go on there, or --store {directory.path / OWN_STORE} to begin anew",
        )


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
