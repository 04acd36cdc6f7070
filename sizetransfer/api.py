"""The short Python interface: teachers, students and measures by kind; experiments by name.

Everything here goes through the registry and the specifications, so that what it builds can be replayed from JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from sizetransfer.contracts.errors import SpecError, exit_refused
from sizetransfer.contracts.events import OnEvent, ignore
from sizetransfer.contracts.specs import Family, FieldInfo, KindSpec, MeasureSpec, StudentSpec, TeacherSpec
from sizetransfer.registry import default_registry
from sizetransfer.runs.trials import Experiment

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from sizetransfer.contracts.oracle import Sample, Teacher
    from sizetransfer.contracts.student import Student
    from sizetransfer.diagnosis import Prediction, PredictionSpec
    from sizetransfer.diagnosis.from_data import DataDiagnosis
    from sizetransfer.diagnosis.from_data.asked import Data
    from sizetransfer.diagnosis.model import ModelFindings
    from sizetransfer.runs import Run
    from sizetransfer.scores.receptive import RadiusReport


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
    spec = cast(TeacherSpec, _spec("teacher", kind, fields))
    with exit_refused(f"the teacher {kind!r}"):
        return spec.build()


def student(kind: str, field: FieldInfo, /, *, seed: int = 0, **fields: object) -> Student:
    """Build a student of a registered kind.

    Args:
        kind: for example ``"cnn"``; ``sizetransfer list students`` shows them.
        field: what it must know of the teacher's fields: ``teacher.field``.
        seed: names the random stream of its initial weights, the one that a trial with this seed uses.
        fields: fields of its specification, and ``preset``.

    Raises:
        SpecError: an unknown kind, preset or field, or a value that the field does not take; or no ``FieldInfo``.
    """
    from sizetransfer.contracts.randomness import seeded_initialisation

    if not isinstance(field, FieldInfo):
        raise SpecError(
            "A student is built for fields.",
            where="student(kind, field)",
            expected="a FieldInfo",
            got=type(field).__name__,
            fix="pass teacher.field",
        )
    spec = cast(StudentSpec, _spec("student", kind, fields))
    with exit_refused(f"the student {kind!r}"), seeded_initialisation(seed, "student"):
        return spec.build(field)


@overload
def diagnose(
    teacher: Teacher | Mapping[str, object] | str,
    student: Student | Mapping[str, object] | str | None = None,
    *,
    train: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
    **question: Any,
) -> Prediction: ...


@overload
def diagnose(*, data: Data, train: int | None = None, **question: Any) -> DataDiagnosis: ...


def diagnose(
    teacher: Teacher | Mapping[str, object] | str | None = None,
    student: Student | Mapping[str, object] | str | None = None,
    *,
    data: Data | None = None,
    train: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
    **question: Any,
) -> Prediction | DataDiagnosis:
    """Judge whether a local student of a teacher works on large sizes, before any grid of runs.

    Printing what is found reads like the command line; ``found.text(tables=True, explain=True)`` says all.

    Args:
        teacher: a teacher; or a specification: a kind, ``kind:preset``, or a mapping (also written as YAML).
            The name of a file of fields, or arrays, stand for ``data``.
        student: likewise, or none. A specification contributes its radius; a student that is passed as such counts as
            trained, at the smallest size, and its error is measured. Without any, radii are judged.
        data: in the place of a teacher, fields alone: see :func:`sizetransfer.diagnosis.from_data.asked.diagnose_data`.
        train: train the specified student with so many steps, at the smallest size.
        device: ``auto``, or a torch device, for teachers that are specified; others stay where they are.
        dtype: ``float32`` or ``float64``, likewise; by default ``float32``, as in a run.
        question: fields of :class:`sizetransfer.diagnosis.PredictionSpec`: sizes, sigmas, epsilon, shares, patch, ...;
            with data, of :class:`sizetransfer.diagnosis.from_data.DataQuestion`, and ``boundary``.

    Returns:
        A :class:`sizetransfer.diagnosis.Prediction`; from data, a
        :class:`sizetransfer.diagnosis.from_data.DataDiagnosis`.

    Raises:
        SpecError: an unknown kind, preset or field, a noise level that is not positive, or a patch outside the lattice.
        OracleError: the teacher knows neither its smoothed nor its clean response.
        RunError: there is no such device.

    Example:
        >>> found = diagnose({"kind": "gaussian", "dim": 1, "mass": 0.5}, "cnn", sizes=(16, 32), sigmas=(0.5,))
        >>> found.overall.verdict, found.overall.sufficient.kind
        ('transfers', 'exact')
        >>> print(found.verdict.label)
        transfers (of the radius)
    """
    from sizetransfer.contracts.student import Student as StudentModule
    from sizetransfer.diagnosis import PredictionSpec, predict
    from sizetransfer.diagnosis.from_data.asked import names_data

    if data is not None or teacher is None or names_data(teacher):
        return _diagnose_data(teacher, student, data, train, question)
    asked = PredictionSpec.parse(question, where="diagnose")
    examined, teacher_name = _teacher_for_diagnosis(teacher, device, dtype)
    ready, student_name = isinstance(student, StudentModule), "student"
    if student is not None and not isinstance(student, StudentModule):
        student, student_name = _student_for_diagnosis(examined, student, asked)
    if not ready and student is not None and not list(student.parameters()):
        _fit_for_diagnosis(examined, student, asked)
    if train is not None:
        _train_for_diagnosis(examined, student, asked, train)
        ready = True
    return predict(examined, student, asked, ready=ready, names=(teacher_name, student_name))


def _teacher_for_diagnosis(
    teacher: Teacher | Mapping[str, object] | str, device: str, dtype: str | None
) -> tuple[Teacher, str]:
    """The teacher, and what it is called.

    Raises:
        SpecError: a device or dtype for one that is there already.
    """
    from sizetransfer.contracts.oracle import Teacher as TeacherModule

    if not isinstance(teacher, TeacherModule):
        spec = chosen("teacher", teacher)
        return _placed(cast(TeacherSpec, spec).build().frozen(), device, dtype), _called(spec, teacher)
    if device != "auto" or dtype is not None:
        raise SpecError(
            "A teacher that is there already is computed as it is.",
            where="diagnose, device and dtype",
            expected="neither, for a teacher that is passed as an object",
            got=f"device = {device!r}, dtype = {dtype!r}",
            fix="move it before: teacher.to(device), teacher.double(); or pass its specification",
        )
    return teacher, "teacher"


def _student_for_diagnosis(
    teacher: Teacher, student: Mapping[str, object] | str, asked: PredictionSpec
) -> tuple[Student, str]:
    """The student that is specified, in the teacher's arithmetic, and what it is called."""
    from sizetransfer.contracts.arithmetic import arithmetic
    from sizetransfer.contracts.randomness import seeded_initialisation

    spec = chosen("student", student)
    with arithmetic(teacher.anchor.dtype, teacher.anchor.device), seeded_initialisation(asked.seed, "student"):
        return cast(StudentSpec, spec).build(teacher.field).to(teacher.anchor), _called(spec, student)


def radius(
    model: Student | nn.Module | Mapping[str, object] | str,
    *,
    field: FieldInfo | None = None,
    sizes: Sequence[int] = (),
    sigmas: Sequence[float] | None = None,
    moved: bool = True,
    seed: int = 0,
    **conventions: object,
) -> RadiusReport:
    """Measure from where a model's score reads; no teacher and no training is needed.

    Args:
        model: a student, a torch module, its import path ``package:Net``, or a specification of a student.
        field: what it scores; by default one channel on a torus of two dimensions.
        sizes: lattices; by default an even and an odd size, doubled until the score reads no axis whole.
        sigmas: noise levels; by default 0.1, 1 and 10, within the model's schedule.
        moved: move the weights a little before, so that layers that begin at zero hide nothing.
        seed: names fields, sites and moves.
        conventions: of a module: ``inputs``, ``process``, ``timestep``, ``layout``, ... as for :func:`wrap_module`.

    Raises:
        SpecError: a model that cannot be built, or runs on none of the sizes.

    Example:
        >>> from torch import nn
        >>> net = nn.Conv1d(1, 1, 5, padding=2, padding_mode="circular")
        >>> found = radius(net, field=FieldInfo(dim=1), inputs="x")
        >>> found.radius, found.faults
        (2, ())
    """
    from sizetransfer.scores.receptive import measure_radius

    student = as_student(model, field or FieldInfo(dim=2), **conventions)
    levels = _levels_within(student) if sigmas is None else tuple(sigmas)
    return measure_radius(student, sizes, levels, name=_name_of(model), moved=moved, seed=seed)


def diagnose_model(
    model: Student | nn.Module | Mapping[str, object] | str,
    fields: Tensor | Sample,
    *,
    field: FieldInfo | None = None,
    sigmas: Sequence[float] | None = None,
    judged: int = 64,
    tolerance: float = 0.1,
    seed: int = 0,
    **conventions: object,
) -> ModelFindings:
    """Say of a model that exists, on fields that are given, whether its units are right and what limits it.

    Args:
        model: a student, a torch module, its import path ``package:build``, or a specification of a student.
        fields: independent clean fields ``B C *S`` of one size, or a sample.
        field: what it scores; by default what the fields tell, on a torus, with their deviation.
        sigmas: noise levels, in units of the field; by default 0.2 to 5 deviations.
        judged: fields that losses are means over; linear filters are fitted to all.
        tolerance: relative error of the score that counts.
        seed: names noise and probes.
        conventions: of a module: ``weights`` of an import path, ``predicts``, ``process``, ``scale``, ... as for
            :func:`wrap_module`.

    Raises:
        SpecError: a model that cannot be built, or fields that cannot be used.
        ConformanceError: the module fails.
    """
    from sizetransfer.contracts.oracle import Sample
    from sizetransfer.diagnosis.model import diagnose_model as found_of

    if field is None:
        x = fields.x if isinstance(fields, Sample) else fields
        deviation = float(x.double().std())
        field = FieldInfo(dim=x.ndim - 2, channels=x.shape[1], sigma_data=deviation if deviation > 0 else 1.0)
    student = as_student(model, field, **conventions)
    return found_of(student, fields, sigmas, judged=judged, tolerance=tolerance, seed=seed)


def as_student(
    model: Student | nn.Module | Mapping[str, object] | str, field: FieldInfo, **conventions: Any
) -> Student:
    """A student of a module, of its import path ``package:build``, or of a specification.

    Raises:
        SpecError: it cannot be built, or conventions are given of what has its own.
    """
    from torch import nn

    from sizetransfer.contracts.student import Student as StudentModule
    from sizetransfer.students.wrapped import wrap_module

    if isinstance(model, str) and _importable(model):
        model = {"kind": "module", "factory": model, **conventions}
    elif conventions and (isinstance(model, StudentModule) or not isinstance(model, nn.Module)):
        raise SpecError(
            "The model has conventions of its own.",
            where="model",
            expected="a torch module or an import path",
            got=f"{_name_of(model)}, with {', '.join(conventions)}",
            fix="leave them out, or name them in its specification",
        )
    if isinstance(model, StudentModule):
        return model
    if isinstance(model, nn.Module):
        return wrap_module(model, field=field, **conventions)
    spec = cast(StudentSpec, chosen("student", model))
    with exit_refused(_name_of(model)):
        return spec.build(field)


def _importable(path: str) -> bool:
    """Whether a text is an import path, and no mapping and no kind with a preset."""
    name = path.partition(":")[0]
    return ":" in path and not set("{} \n") & set(path) and name not in default_registry().kinds("student")


def _levels_within(student: Student) -> tuple[float, ...]:
    known = getattr(student, "sigma_range", None)
    usual = (0.1, 1.0, 10.0)
    if known is None or all(known[0] <= sigma <= known[1] for sigma in usual):
        return usual
    low, high = known
    return (low, (low * high) ** 0.5, high)


def _name_of(model: object) -> str:
    if isinstance(model, str):
        return model
    return str(model.get("kind", "model")) if isinstance(model, Mapping) else type(model).__name__


def _diagnose_data(
    teacher: Any, student: object, data: Data | None, train: int | None, question: dict[str, Any]
) -> DataDiagnosis:
    from sizetransfer.diagnosis.from_data.asked import diagnose_data

    if student is not None or (data is None) == (teacher is None):
        raise SpecError(
            "A diagnosis is of a teacher, or of data alone.",
            where="diagnose, teacher, student and data",
            expected="a teacher, with or without a student; or data without either",
            got=", ".join(
                name for name, one in (("teacher", teacher), ("student", student), ("data", data)) if one is not None
            )
            or "neither",
            fix="pass data='fields.npy' and radius instead of a student",
        )
    steps: dict[str, Any] = {} if train is None else {"train": train}
    return diagnose_data(teacher if data is None else data, **steps, **question)


def _placed(teacher: Teacher, device: str, dtype: str | None) -> Teacher:
    """The teacher on a device and in a dtype, as in a run."""
    import torch

    from sizetransfer.runs.environment import choose_device

    if dtype not in {None, "float32", "float64"}:
        raise SpecError(
            "There is no such arithmetic.",
            where="diagnose, dtype",
            expected="float32 or float64",
            got=repr(dtype),
            fix="leave dtype out for float32",
        )
    return teacher.to(device=choose_device(device), dtype=getattr(torch, dtype or "float32"))


def _fit_for_diagnosis(teacher: Teacher, student: Student, asked: PredictionSpec) -> None:
    from sizetransfer.contracts.arithmetic import arithmetic

    with arithmetic(teacher.anchor.dtype, teacher.anchor.device):
        student.fit(teacher, asked.sizes_for(teacher, student.radius)[0], seed=asked.seed)


def _train_for_diagnosis(teacher: Teacher, student: Student | None, asked: PredictionSpec, steps: int) -> None:
    from sizetransfer.contracts.specs import TrainingSpec
    from sizetransfer.scores.training import train

    if student is None or steps < 1:
        raise SpecError(
            "There is nothing to train.",
            where="diagnose, train",
            expected="a student, and at least one step",
            got=f"{'no student' if student is None else 'a student'}, {steps} steps",
            fix="name a student, or leave train out",
        )
    low, high = asked.noise_range(teacher)
    data = {
        "size": asked.sizes_for(teacher, student.radius)[0],
        "steps": steps,
        "noise": {"sigma_min": low, "sigma_max": high},
    }
    train(teacher, student, TrainingSpec.parse(data, where="train"), seed=asked.seed)
    student.eval()


def chosen(family: Family, choice: Mapping[str, object] | str) -> KindSpec:
    """Return the specification that ``kind``, ``kind:preset`` or a mapping (or one written as YAML) names.

    Raises:
        SpecError: malformed YAML, an unknown kind, preset or field.
    """
    data = _mapping_of(family, choice) if isinstance(choice, str) else choice
    kind = data.get("kind")
    if not isinstance(kind, str):
        raise SpecError(
            f"A {family} needs a kind.",
            where=family,
            expected="kind, kind:preset, or a mapping such as {kind: gaussian, mass: 0.3}",
            got=repr(choice),
            fix=f"`sizetransfer list {family}s` shows the kinds",
        )
    return _spec(family, kind, {name: value for name, value in data.items() if name != "kind"})


def _called(spec: KindSpec, choice: Mapping[str, object] | str) -> str:
    """What a specification is called: its kind, with the preset where it was chosen by one."""
    preset = (_mapping_of("teacher", choice) if isinstance(choice, str) else choice).get("preset")
    return f"{spec.kind_name()}:{preset}" if isinstance(preset, str) else spec.kind_name()


def _mapping_of(family: Family, text: str) -> Mapping[str, object]:
    import yaml

    if not any(mark in text for mark in "{}[]\n") and ": " not in text:
        kind, separator, preset = text.partition(":")
        return {"kind": kind.strip(), **({"preset": preset.strip()} if separator else {})}
    try:
        data = yaml.safe_load(text)
        problem = "" if isinstance(data, Mapping) else f"a {type(data).__name__}"
    except yaml.YAMLError as error:
        data, problem = None, " ".join(str(error).split())
    if problem:
        raise SpecError(
            f"The {family} is neither a kind nor a mapping.",
            where=f"{family} {text!r}",
            expected="kind, kind:preset, or a mapping such as {kind: gaussian, mass: 0.3}",
            got=problem,
            fix="check the brackets, and quote the mapping for the shell",
        )
    return cast("Mapping[str, object]", data)


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
