"""What can be known to go wrong before anything is trained, and what each trial will cost."""

from __future__ import annotations

from collections.abc import Sequence

from sizetransfer.errors import PluginError, SizetransferError, SpecError
from sizetransfer.experiments.trial import arithmetic, build_student, build_teacher, label_of
from sizetransfer.oracle import Teacher
from sizetransfer.student import Student
from sizetransfer.trials import Trial


def check_trials(trials: Sequence[Trial]) -> dict[tuple[str, str], float]:
    """Build every teacher, and every student for it, once, and refuse what cannot work.

    Returns:
        The estimated cost of a trial by names of teacher and student: parameters times sites times fields times steps.

    Raises:
        SpecError: a student's receptive field wraps around the training torus.
        OracleError: a teacher is not defined at a size, or a measure asks for more than it can compute there.
        PluginError: a teacher or student cannot be built.
    """
    costs: dict[tuple[str, str], float] = {}
    teachers: dict[str, Teacher] = {}
    for trial in trials:
        pair = (trial.teacher_name, trial.student_name)
        if pair in costs:
            continue
        try:
            with arithmetic(trial.dtype):
                if trial.teacher_name not in teachers:
                    # Trials come teacher by teacher: one teacher is in memory at a time.
                    teachers = {trial.teacher_name: _checked_teacher(trial)}
                student = build_student(trial, teachers[trial.teacher_name])
        except SizetransferError:
            raise
        except Exception as error:  # a plugin may raise anything
            raise _cannot_build(trial, error) from error
        check_radius(trial, student)
        costs[pair] = _cost(trial, student)
    return costs


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


def _checked_teacher(trial: Trial) -> Teacher:
    teacher = build_teacher(trial)
    for size in (trial.training.size, *trial.evaluation.sizes):
        teacher.check_size(size)
    for name, measure in trial.evaluation.measures.items():
        if not measure.lacking(teacher):
            for size in trial.evaluation.sizes_of(name):
                measure.check(teacher, size)
    return teacher


def _cannot_build(trial: Trial, error: Exception) -> PluginError:
    return PluginError(
        "A teacher or a student cannot be built.",
        where=f"{label_of(trial)}: kinds {trial.teacher.kind!r} and {trial.student.kind!r}",
        got=f"{type(error).__name__}: {error}",
        fix="change its fields, or mend the distribution that it comes from (`sizetransfer plugins`)",
    )


def _cost(trial: Trial, student: Student) -> float:
    parameters = sum(parameter.numel() for parameter in student.parameters())
    sites = trial.training.size ** (student.field.dim if student.field.geometry == "lattice" else 1)
    return float(parameters * sites * trial.training.batch * trial.training.steps)
