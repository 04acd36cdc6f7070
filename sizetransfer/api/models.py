"""Models that exist: from where they read, whether their units are right, what limits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from sizetransfer.api.kinds import chosen
from sizetransfer.contracts.errors import SpecError, exit_refused
from sizetransfer.contracts.specs import FieldInfo, StudentSpec
from sizetransfer.registry import default_registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sizetransfer.contracts.oracle import Sample
    from sizetransfer.contracts.stored import Boundary
    from sizetransfer.contracts.student import Student
    from sizetransfer.diagnosis.from_data.asked import Data
    from sizetransfer.diagnosis.joined import ModelOnData
    from sizetransfer.diagnosis.model import ModelFindings
    from sizetransfer.scores.receptive import RadiusReport


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


def diagnose_model_on_data(
    model: Student | nn.Module | Mapping[str, object] | str,
    data: Data,
    *,
    boundary: Boundary | None = None,
    layout: str | None = None,
    **options: Any,
) -> ModelOnData:
    """Judge a model that exists on one's own data: :func:`sizetransfer.diagnose` with a model and data.

    Args:
        model: a student, a torch module, its import path ``package:build``, or a specification of a student.
        data, boundary, layout: as for :func:`sizetransfer.diagnosis.from_data.asked.diagnose_data`.
        options: fields of :class:`sizetransfer.diagnosis.from_data.DataQuestion`, and conventions of a module as for
            :func:`wrap_module`, with ``model_layout`` for its layout; ``weights`` and ``arguments`` of an import path.

    Raises:
        SpecError: data or a model that cannot be used, or an option that is neither.
    """
    from sizetransfer.diagnosis.from_data import DataQuestion
    from sizetransfer.diagnosis.from_data.asked import limited, name_of, stored_of
    from sizetransfer.diagnosis.joined import diagnose_model_on_data as found_of

    asked = {name: options.pop(name) for name in list(options) if name in DataQuestion.model_fields}
    question = DataQuestion.parse(asked, where="diagnose")
    stored = limited(stored_of(data, boundary, layout), question)
    conventions = {"layout" if name == "model_layout" else name: value for name, value in options.items()}
    _require_conventions(model, conventions)

    def build(field: FieldInfo) -> Student:
        return as_student(model, field, **conventions)

    return found_of(build, stored, question, model=_name_of(model), name=name_of(data))


def _require_conventions(model: object, conventions: Mapping[str, object]) -> None:
    """Refuse names that a module has no convention of, before anything is read."""
    from torch import nn

    from sizetransfer.contracts.specs import did_you_mean
    from sizetransfer.students.wrapped import ModuleSpec

    own = {"kind", "factory", "files"} | ({"weights", "arguments"} if isinstance(model, nn.Module) else set())
    known = [name for name in ModuleSpec.model_fields if name not in own]
    for name in conventions:
        if name not in known:
            raise SpecError(
                "There is no such option.",
                where=f"diagnose, {name}",
                expected=f"a field of the question, or one of {', '.join(known)}",
                got=name,
                fix=did_you_mean(name, known) or "leave it out; weights are loaded where the model is an import path",
            )


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
