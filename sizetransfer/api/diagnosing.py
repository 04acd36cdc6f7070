"""The diagnosis of a teacher and a student, or of data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, overload

from sizetransfer.api.kinds import called, chosen
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import StudentSpec, TeacherSpec

if TYPE_CHECKING:
    from torch import nn

    from sizetransfer.contracts.oracle import Teacher
    from sizetransfer.contracts.student import Student
    from sizetransfer.diagnosis import Prediction, PredictionSpec
    from sizetransfer.diagnosis.from_data import DataDiagnosis
    from sizetransfer.diagnosis.from_data.asked import Data
    from sizetransfer.diagnosis.joined import ModelOnData


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


@overload
def diagnose(
    *, model: Student | nn.Module | Mapping[str, object] | str, data: Data, **question: Any
) -> ModelOnData: ...


def diagnose(
    teacher: Teacher | Mapping[str, object] | str | None = None,
    student: Student | Mapping[str, object] | str | None = None,
    *,
    data: Data | None = None,
    model: Student | nn.Module | Mapping[str, object] | str | None = None,
    train: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
    **question: Any,
) -> Prediction | DataDiagnosis | ModelOnData:
    """Judge whether a local student of a teacher works on large sizes, before any grid of runs.

    Printing what is found reads like the command line; ``found.text(tables=True, explain=True)`` says all.

    Args:
        teacher: a teacher; or a specification: a kind, ``kind:preset``, or a mapping (also written as YAML).
            The name of a file of fields, or arrays, stand for ``data``.
        student: likewise, or none. A specification contributes its radius; a student that is passed as such counts as
            trained, at the smallest size, and its error is measured. Without any, radii are judged.
        data: in the place of a teacher, fields alone: see :func:`sizetransfer.diagnosis.from_data.asked.diagnose_data`.
        model: with data, a model that exists: a student, a torch module, its import path ``package:build``, or the
            specification of a student; see :func:`sizetransfer.api.models.diagnose_model_on_data`.
        train: train the specified student with so many steps, at the smallest size.
        device: ``auto``, or a torch device, for teachers that are specified; others stay where they are.
        dtype: ``float32`` or ``float64``, likewise; by default ``float32``, as in a run.
        question: fields of :class:`sizetransfer.diagnosis.PredictionSpec`: sizes, sigmas, epsilon, shares, patch, ...;
            with data, of :class:`sizetransfer.diagnosis.from_data.DataQuestion`, ``boundary`` and ``layout``; with a
            model also how it is called: ``weights``, ``predicts``, ``process``, ``scale``, ..., as for
            :func:`wrap_module`.

    Returns:
        A :class:`sizetransfer.diagnosis.Prediction`; from data, a
        :class:`sizetransfer.diagnosis.from_data.DataDiagnosis`; of a model on data, a
        :class:`sizetransfer.diagnosis.joined.ModelOnData`.

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

    if model is not None:
        return _diagnose_model(teacher, student, data, model, train, question)
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
        return _placed(cast(TeacherSpec, spec).build().frozen(), device, dtype), called(spec, teacher)
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
        return cast(StudentSpec, spec).build(teacher.field).to(teacher.anchor), called(spec, student)


def _diagnose_model(
    teacher: Any, student: object, data: Data | None, model: Any, train: int | None, question: dict[str, Any]
) -> ModelOnData:
    from sizetransfer.api.models import diagnose_model_on_data

    given = teacher if data is None else data
    if given is None or student is not None or (data is not None and teacher is not None):
        raise SpecError(
            "A model is diagnosed on data.",
            where="diagnose, model",
            expected="a model and data, without teacher and student",
            got="no data" if given is None else "a teacher or a student beside them",
            fix="pass data='fields.npy'; of a teacher, st.diagnose(teacher, wrap_module(...))",
        )
    steps: dict[str, Any] = {} if train is None else {"train": train}
    return diagnose_model_on_data(model, given, **steps, **question)


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
        student.fit(teacher.split("training"), asked.sizes_for(teacher, student.radius)[0], seed=asked.seed)


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
