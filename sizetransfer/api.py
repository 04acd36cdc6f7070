"""The short Python interface: teachers, students and measures by kind; experiments by name.

Everything here goes through the registry and the specifications, so that what it builds can be replayed from JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sizetransfer.events import OnEvent, ignore
from sizetransfer.registry import default_registry
from sizetransfer.specs import Experiment, Family, FieldInfo, KindSpec, MeasureSpec, StudentSpec, TeacherSpec

if TYPE_CHECKING:
    import pandas as pd

    from sizetransfer.experiments import Run
    from sizetransfer.oracle import Teacher
    from sizetransfer.student import Student


def teacher(kind: str, /, **fields: object) -> Teacher:
    """Build a teacher of a registered kind.

    Args:
        kind: for example ``"flow"``; ``sizetransfer list teachers`` shows them.
        fields: fields of its specification, and ``preset``; ``seed`` decides its random weights.

    Raises:
        SpecError: an unknown kind, preset or field, or a value that the field does not take.

    Example:
        >>> teacher("flow", preset="short-range-simple").field.dim
        2
    """
    return cast(TeacherSpec, _spec("teacher", kind, fields)).build()


def student(kind: str, field: FieldInfo, /, *, seed: int = 0, **fields: object) -> Student:
    """Build a student of a registered kind.

    Args:
        kind: for example ``"cnn"``; ``sizetransfer list students`` shows them.
        field: what it must know of the teacher's fields: ``teacher.field``.
        seed: names the random stream of its initial weights, the one that a trial with this seed uses.
        fields: fields of its specification, and ``preset``.

    Raises:
        SpecError: an unknown kind, preset or field, or a value that the field does not take.
    """
    from sizetransfer.randomness import seeded_initialisation

    spec = cast(StudentSpec, _spec("student", kind, fields))
    with seeded_initialisation(seed, "student"):
        return spec.build(field)


def measure(kind: str, /, **fields: object) -> MeasureSpec:
    """Return a measure of a registered kind; its method ``measure`` measures.

    Raises:
        SpecError: an unknown kind, preset or field, or a value that the field does not take.
    """
    return cast(MeasureSpec, _spec("measure", kind, fields))


def _spec(family: Family, kind: str, fields: Mapping[str, object]) -> KindSpec:
    lookup = default_registry().lookup
    return lookup(family, kind).parse({"kind": kind, **fields}, where=kind, lookup=lookup)


def experiment(data: Mapping[str, object]) -> Experiment:
    """Return an experiment written as a mapping, with the fields of an experiment file.

    Raises:
        SpecError: with the path of every wrong field.
    """
    return Experiment.parse(data, lookup=default_registry().lookup)


def load(
    name_or_path: str | Path, *, preset: str | None = None, overrides: Mapping[str, object] | None = None
) -> Experiment:
    """Read a registered experiment by name, or an experiment file by path.

    Args:
        name_or_path: for example ``"figure2"`` or ``"my/experiment.yaml"``.
        preset: one of the file's presets; by default ``quick`` where the file has it.
        overrides: values by dotted path, for example ``{"training.steps": 100}``.

    Raises:
        SpecError: no such experiment or preset, malformed YAML, or wrong fields.
    """
    from sizetransfer import experiments

    return experiments.load(name_or_path, preset=preset, overrides=overrides or {})


def run(
    experiment: Experiment | str | Path,
    out: Path | str | None = None,
    *,
    preset: str | None = None,
    overrides: Mapping[str, object] | None = None,
    device: str = "auto",
    executor: str = "local",
    workers: int | None = None,
    fresh: bool = False,
    report: bool = True,
    on_event: OnEvent = ignore,
) -> Run:
    """Run an experiment, or finish one that was interrupted, and write its report.

    Args:
        experiment: an experiment, or the name or path that :func:`load` takes.
        out: run directory; by default ``runs/<name>-<preset>``. Finished trials in it are not computed again.
        preset: as for :func:`load`; only with a name or path.
        overrides: as for :func:`load`; only with a name or path.
        device: ``auto``, or a torch device.
        executor: where trials run; ``sizetransfer list executors`` shows the choices.
        workers: trials at the same time, where the executor can.
        fresh: compute everything anew.
        report: write figures and ``report.html``.
        on_event: is told what happens.

    Raises:
        SpecError: the experiment is wrong.
        RunError: the run directory belongs to another experiment, or cannot be written.
    """
    from sizetransfer import experiments

    if not isinstance(experiment, Experiment):
        experiment = load(experiment, preset=preset, overrides=overrides)
    finished = experiments.run(
        experiment,
        default_directory(experiment) if out is None else out,
        device=device,
        executor=executor,
        workers=workers,
        fresh=fresh,
        on_event=on_event,
    )
    if report:
        write_report(finished)
    return finished


def default_directory(experiment: Experiment) -> Path:
    """``runs/<name>-<preset>`` below the working directory."""
    return Path("runs", "-".join(filter(None, [experiment.name, experiment.preset])))


def open_run(path: Path | str) -> Run:
    """Read a run directory back.

    Raises:
        RunError: it is not one, or something in it is corrupted.
    """
    from sizetransfer import experiments

    return experiments.open_run(path)


def write_report(run: Run | Path | str) -> Path:
    """Write the figures and ``report.html`` of a run and return the path of the latter."""
    from sizetransfer import report

    return report.write_report(open_run(run) if isinstance(run, Path | str) else run)


def compare(first: Run | Path | str, second: Run | Path | str) -> pd.DataFrame:
    """Compare two runs number by number, with the differences in standard errors."""
    from sizetransfer import report

    runs = [open_run(run) if isinstance(run, Path | str) else run for run in (first, second)]
    return report.compare_runs(*runs)
