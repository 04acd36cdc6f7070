"""Experiments and their runs: computed, measured further, opened, reported, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sizetransfer.api.kinds import chosen
from sizetransfer.contracts.events import OnEvent, ignore
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.runs.trials import Experiment

if TYPE_CHECKING:
    import pandas as pd

    from sizetransfer.runs import Run


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
    from sizetransfer import runs

    return runs.load(name_or_path, preset=preset, overrides=overrides or {})


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
    store: Path | str | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
    report: bool = True,
    on_event: OnEvent = ignore,
) -> Run:
    """Compute what is not there yet of an experiment, and write its report.

    Args:
        experiment: an experiment, or the name or path that :func:`load` takes.
        out: run directory; by default ``runs/<name>-<preset>``. It may show an earlier state of the experiment: what
            that shares with this one is not computed again.
        preset: as for :func:`load`; only with a name or path.
        overrides: as for :func:`load`; only with a name or path.
        device: ``auto``, or a torch device.
        executor: where trials run; ``sizetransfer list executors`` shows the choices.
        workers: trials at the same time, where the executor can.
        fresh: compute everything anew.
        store: where trainings are kept, to be shared between runs; by default inside the run directory.
        only: a part of the grid, for example ``{"teacher": ["medium-range"]}``.
        report: write figures and ``report.html``.
        on_event: is told what happens.

    Raises:
        SpecError: the experiment is wrong, or asks for a figure that there is not.
        RunError: the run directory belongs to another experiment, or cannot be written.
    """
    from sizetransfer import runs
    from sizetransfer.report import check_figures

    if not isinstance(experiment, Experiment):
        experiment = load(experiment, preset=preset, overrides=overrides)
    check_figures(experiment)
    finished = runs.run(
        experiment,
        default_directory(experiment) if out is None else out,
        device=device,
        executor=executor,
        workers=workers,
        fresh=fresh,
        store=store,
        only=only,
        on_event=on_event,
    )
    if report:
        write_report(finished)
    return finished


def measure_run(
    path: Path | str,
    measures: Sequence[Mapping[str, object] | str] = (),
    sizes: Sequence[int] = (),
    *,
    trust: bool = False,
    report: bool = True,
    on_event: OnEvent = ignore,
    **where: Any,
) -> Run:
    """Measure the trained students of a run further; nothing is trained, and the run shows the numbers from then on.

    Args:
        path: the run directory.
        measures: specifications of measures, or kinds; without any, those of the run.
        sizes: where they are taken; without any, at the sizes of the run.
        trust: the experiment may run the code that it names.
        report: write figures and ``report.html`` again.
        on_event: is told what happens.
        where: ``device``, ``executor``, ``workers``, ``store`` and ``only``, as for :func:`run`.

    Raises:
        SpecError: an unknown kind or a wrong field.
        RunError: the directory holds no run, or names code that is not trusted.
    """
    from sizetransfer import runs

    specs = [cast(MeasureSpec, chosen("measure", choice)) for choice in measures]
    finished = runs.measure_run(path, specs, sizes, trust=trust, on_event=on_event, **where)
    if report:
        write_report(finished)
    return finished


def default_directory(experiment: Experiment) -> Path:
    """``runs/<name>-<preset>`` below the working directory."""
    return Path("runs", "-".join(filter(None, [experiment.name, experiment.preset])))


def open_run(path: Path | str, *, trust: bool = False) -> Run:
    """Read a run directory back; no code that its experiment names is run unless it is trusted.

    Args:
        path: the run directory.
        trust: whether building its teachers and students may run code that its experiment names (``kind: module``).

    Raises:
        RunError: it is not one, or something in it is corrupted.
    """
    from sizetransfer import runs

    return runs.read_run(path, trust=trust)


def write_report(run: Run | Path | str) -> Path:
    """Write the figures and ``report.html`` of a run and return the path of the latter."""
    from sizetransfer import report

    return report.write_report(open_run(run) if isinstance(run, Path | str) else run)


def compare(first: Run | Path | str, second: Run | Path | str) -> pd.DataFrame:
    """Compare two runs number by number, with the differences in standard errors."""
    from sizetransfer.runs.compare import compare_runs

    return compare_runs(*(open_run(run) if isinstance(run, Path | str) else run for run in (first, second)))
