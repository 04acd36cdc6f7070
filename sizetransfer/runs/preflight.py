"""What can be known before anything is trained: what cannot work, what a trial will cost, and the keys of results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch.nn.parameter import is_lazy

from sizetransfer.contracts.arithmetic import arithmetic
from sizetransfer.contracts.errors import PluginError, SizetransferError, SpecError, described
from sizetransfer.contracts.oracle import Teacher
from sizetransfer.contracts.randomness import seeded_initialisation, stream
from sizetransfer.contracts.specs import KindSpec, MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.runs.keys import planned
from sizetransfer.runs.memory import available_memory, check_memory
from sizetransfer.runs.reads import note_opened, opened_by
from sizetransfer.runs.sources import files_read, literal_files
from sizetransfer.runs.trials import Trial
from sizetransfer.scores.computing import build_student, build_teacher
from sizetransfer.scores.training import check_crop


@dataclass(frozen=True)
class Plan:
    """The trials of a grid with their keys.

    Attributes:
        trials: in the order of the grid.
        costs: estimated cost of a trial by names of teacher and student: parameters times sites times fields times
            steps.
        skipped: why a measure cannot be taken of a teacher, by names of teacher and measure.
        notes: what teachers found where they were not told, by name.
    """

    trials: tuple[Trial, ...]
    costs: dict[tuple[str, str], float]
    skipped: dict[tuple[str, str], str]
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def plan(trials: Sequence[Trial], device: str = "cpu") -> Plan:
    """Build every teacher, and every student for it, once; refuse what cannot work, and give every trial its keys.

    Raises:
        SpecError: a student's receptive field wraps around the training torus; a measure cannot be taken of a student
            or at a size, or does not fit into memory there.
        OracleError: a teacher is not defined at a size, or a measure asks for more than it can compute there.
        PluginError: a teacher or student cannot be built.
    """
    costs: dict[tuple[str, str], float] = {}
    files: dict[tuple[str, str], set[Path]] = {}
    skipped: dict[tuple[str, str], str] = {}
    notes: dict[str, tuple[str, ...]] = {}
    built: dict[str, _Built] = {}
    for trial in trials:
        pair = (trial.teacher_name, trial.student_name)
        if pair in costs:
            continue
        with arithmetic(trial.dtype, "cpu"), seeded_initialisation("preflight", *pair):
            if trial.teacher_name not in built:
                # Trials come teacher by teacher: one teacher is in memory at a time.
                built = {trial.teacher_name: _build_teacher(trial)}
                skipped |= built[trial.teacher_name].skipped
                notes[trial.teacher_name] = built[trial.teacher_name].teacher.notes
            files[pair], costs[pair] = _check_student(trial, built[trial.teacher_name], device)
    for trial in trials:
        files[trial.teacher_name, trial.student_name] |= opened_by(trial.teacher) | opened_by(trial.student)
    keyed = tuple(_keyed(trial, device, files[trial.teacher_name, trial.student_name], skipped) for trial in trials)
    return Plan(keyed, costs, skipped, notes)


def check_radius(trial: Trial, student: Student) -> None:
    """Refuse a student whose receptive field, 2R + 1 sites wide, does not fit on the training torus.

    On such a torus the student sees sites twice and learns what is not so on larger ones.

    Raises:
        SpecError: with the sizes, and the way to force it.
    """
    size, radius = trial.training.size, student.radius
    torus = student.field.geometry == "lattice" and student.field.periodic
    if radius is None or not torus or trial.allow_wrapped_radius or 2 * radius + 1 <= size:
        return
    raise SpecError(
        "The student's receptive field wraps around the training torus.",
        where=f"students.{trial.student_name} with teachers.{trial.teacher_name}, training.size",
        expected=f"2 R + 1 = {2 * radius + 1} <= training.size, for the radius R = {radius}",
        got=f"training.size = {size}",
        fix=f"train at size {2 * radius + 1} or more, take a smaller radius, or force it with "
        "allow_wrapped_radius: true (--set allow_wrapped_radius=true)",
    )


@dataclass(frozen=True)
class _Built:
    """A teacher that has been built, what it reads, and what cannot be measured of it."""

    teacher: Teacher
    files: set[Path]
    skipped: dict[tuple[str, str], str]


def _build_teacher(trial: Trial) -> _Built:
    with _plugin_errors(trial), files_read() as files:
        teacher = build_teacher(trial)
        for size in (trial.training.size, *trial.evaluation.sizes):
            teacher.check_size(size)
    with _plugin_errors(trial):
        note_opened(trial.teacher, files)
        return _Built(teacher, files | _named(trial.teacher), dict(_check_measures(trial, teacher)))


def _check_measures(trial: Trial, teacher: Teacher) -> Iterator[tuple[tuple[str, str], str]]:
    """The measures that cannot be taken of the teacher, with the reason; sizes of the others are checked."""
    for name in trial.evaluation.measures:
        measure = trial.measure(name)
        lacking = measure.lacking(teacher) or _masked(measure, teacher, trial.training.size)
        if lacking:
            yield (trial.teacher_name, name), f"the teacher {trial.teacher_name!r} lacks {', '.join(lacking)}"
        for size in trial.evaluation.sizes_of(name) if not lacking else ():
            measure.check(teacher, size)
            _check_fields(measure, teacher, size, f"evaluation.measures.{name}")


def _check_fields(measure: MeasureSpec, teacher: Teacher, size: int, where: str) -> None:
    """Refuse a measure of more independent fields than the teacher holds out."""
    there = teacher.split("held out").independent_fields(size)
    # What it takes may depend on the fields: none are looked at where there are too few in any case.
    asked = measure.draws() if there is None or measure.draws() > there else measure.draws_of(teacher, size)
    if there is not None and asked > there:
        raise SpecError(
            "A measure asks for more independent fields than there are.",
            where=f"{where}, size {size}",
            expected=f"at most {there} held-out fields of this size",
            got=str(asked),
            fix="lower the measure's fields, hold out a larger share, or give more data",
        )


def _check_student(trial: Trial, built: _Built, device: str) -> tuple[set[Path], float]:
    with _plugin_errors(trial), files_read() as files:
        student = build_student(trial, built.teacher)
        check_radius(trial, student)
        check_crop(built.teacher, student, trial.training.size)
    taken = [name for name in trial.evaluation.measures if (trial.teacher_name, name) not in built.skipped]
    with _plugin_errors(trial):
        note_opened(trial.student, files)
        for name in taken:
            trial.measure(name).check_student(student)
        check_memory(trial, built.teacher, student, taken, available=available_memory(device))
        return built.files | files | _named(trial.student), _cost(trial, student)


def _named(spec: KindSpec) -> set[Path]:
    return {*spec.reads(), *literal_files(spec.code())}


def _masked(measure: MeasureSpec, teacher: Teacher, size: int) -> list[str]:
    """What a measure of whole fields lacks of a teacher whose fields have dead sites."""
    if measure.takes_masks:
        return []
    sample = teacher.sample(1, size, generator=stream("preflight", "mask"))
    return [] if sample.context.mask is None else ["fields without dead sites"]


def _keyed(trial: Trial, device: str, files: Iterable[Path], skipped: dict[tuple[str, str], str]) -> Trial:
    taken = [name for name in trial.evaluation.measures if (trial.teacher_name, name) not in skipped]
    return planned(trial, device, files=files, measures=taken)


@contextmanager
def _plugin_errors(trial: Trial) -> Iterator[None]:
    """Turn whatever a plugin raises into an error that names the trial."""
    try:
        yield
    except (SizetransferError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plugin may raise anything
        raise _cannot_build(trial, error) from error


def _cannot_build(trial: Trial, error: BaseException) -> PluginError:
    return PluginError(
        "A teacher, a student or a measure cannot be prepared.",
        where=f"{trial.label}: kinds {trial.teacher.kind!r} and {trial.student.kind!r}",
        got=described(error),
        fix="change its fields, or mend the distribution that it comes from (`sizetransfer plugins`)",
    )


def _cost(trial: Trial, student: Student) -> float:
    parameters = sum(parameter.numel() for parameter in student.parameters() if not bool(is_lazy(parameter)))
    sites = trial.training.size ** (student.field.dim if student.field.geometry == "lattice" else 1)
    return float(parameters * sites * trial.training.batch * trial.training.steps)
