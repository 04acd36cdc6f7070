"""More of a finished run: other measures and other sizes of the students that it has trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.runs.opened import Run, read_run
from sizetransfer.runs.runner import run
from sizetransfer.runs.trials import Experiment


def measure_run(
    path: Path | str, measures: Sequence[MeasureSpec], sizes: Sequence[int], *, trust: bool = False, **where: Any
) -> Run:
    """Take measures of the trained students of a run; nothing is trained.

    Args:
        path: the run directory, which shows the new numbers beside the old ones from then on.
        measures: what to measure; none: what the run measures.
        sizes: where; none: at the sizes of the run.
        trust: whether building teachers and students may run code that the run's experiment names.
        where: ``device, executor, workers, only, store, on_event, registry`` of
            :func:`~sizetransfer.runs.runner.run`.

    Raises:
        SpecError: neither a measure nor a size is given.
        RunError: the directory holds no run, or names code that nobody has trusted.
    """
    there = read_run(path, registry=where.get("registry") if not isinstance(where.get("registry"), str) else None)
    there.require_trust(*there.experiment.teachers.values(), *there.experiment.students.values(), trusted=trust)
    if where.get("device", "auto") == "auto":  # that of the training; on another kind of device, nothing is trained
        where = {**where, "device": there.manifest["device"]}
    return run(extended(there.experiment, measures, sizes), path, train=False, **where)


def extended(experiment: Experiment, measures: Sequence[MeasureSpec], sizes: Sequence[int]) -> Experiment:
    """The experiment with measures taken at sizes, and everything that it has as it is.

    Raises:
        SpecError: neither a measure nor a size is given.
    """
    if not measures and not sizes:
        raise SpecError(
            "Nothing is to be measured.",
            where="measure",
            expected="a measure, a size, or both",
            got="neither",
            fix="give --measure '{kind: ...}', --size 96, or both; `sizetransfer list measures` shows the kinds",
        )
    evaluation = experiment.evaluation
    named = dict(evaluation.measures)
    taken = {name: evaluation.sizes_of(name) for name in named}
    asked = [_name(named, measure) for measure in measures] or list(named)
    for name in asked:
        taken[name] = tuple(sorted({*taken.get(name, ()), *(sizes or evaluation.sizes)}))
    every = tuple(sorted({*evaluation.sizes, *sizes}))
    restrict = {name: where for name, where in taken.items() if where != every}
    changes = {"sizes": every, "measures": named, "restrict": restrict}
    return experiment.model_copy(update={"evaluation": evaluation.model_copy(update=changes)})


def _name(named: dict[str, MeasureSpec], measure: MeasureSpec) -> str:
    """The name under which the measure is there, or is put there: its kind, with a number if that is taken."""
    for name, known in named.items():
        if known == measure:
            return name
    free = (f"{measure.kind}{suffix}" for suffix in ("", *(f"-{number}" for number in range(2, len(named) + 3))))
    name = next(name for name in free if name not in named)
    named[name] = measure
    return name
