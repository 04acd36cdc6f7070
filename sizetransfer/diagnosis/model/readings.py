"""Other conventions by which a module could be read, one change at a time or several.

A reading is the same module with other conventions. Whether it is the right one, its denoising loss tells.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.student import Student
from sizetransfer.diagnosis.model.losses import Score
from sizetransfer.students.wrapped import PREDICTIONS, WrappedModule
from sizetransfer.students.wrapped.conventions import FIELD_LIKE
from sizetransfer.students.wrapped.schedules import NAMED, NearestTimestep

NOISE_LIKE = ("sigma", "log_sigma", "noise_label", "variance", "timestep")
PROCESS = {"x": "ve", "unit_x": "vp", "scaled_x": "edm"}
MOST_CHANNELS = 4
"""Of more channels only exchanges of two are tried."""


@dataclass(frozen=True)
class Reading:
    """A module read by other conventions.

    Attributes:
        fault: what would be wrong with the declared ones: ``prediction``, ``process``, ``noise level``, ``channels``,
            ``scale``, ``time step``; several joined by ``and``.
        change: the conventions to be changed, by name.
        score: the module's, so read.
    """

    fault: str
    change: dict[str, Any]
    score: Score


def single_readings(student: Student) -> Iterator[Reading]:
    """Readings that differ in one convention."""
    if not isinstance(student, WrappedModule):
        return
    field, noise = quantities(student)
    for predicts in PREDICTIONS:
        if predicts != student.predicts:
            yield _reading(student, "prediction", predicts=predicts)
    for quantity in FIELD_LIKE if field else ():
        if quantity != field and not _same_input(student, str(field), quantity):
            yield _reading(student, "process", **_as_process(student, str(field), quantity))
    for name, timestep in _noise_arguments(student) if noise else ():
        if name != noise or timestep is not student.conventions["timestep"]:
            change = {
                "inputs": _inputs(student, {str(noise): name}),
                **({} if timestep is None else {"timestep": timestep}),
            }
            yield _reading(student, "noise level", **change)
    for order in _orders(student):
        yield _reading(student, "channels", channel_order=order)


def joint_readings(student: Student, deviation: float) -> Iterator[Reading]:
    """Every combination of prediction, process, noise argument and scale.

    Args:
        student: read as declared.
        deviation: of the data, in units of the field.
    """
    if not isinstance(student, WrappedModule):
        return
    field, noise = quantities(student)
    if field is None or noise is None:
        return
    scales: list[float | None] = [None, *([deviation] if abs(deviation / student.units.scale - 1) > 0.05 else [])]
    for predicts, quantity, (name, timestep), scale in itertools.product(
        PREDICTIONS, FIELD_LIKE, _noise_arguments(student), scales
    ):
        faults = {
            "prediction": predicts != student.predicts,
            "process": quantity != field,
            "noise level": name != noise or timestep is not student.conventions["timestep"],
            "scale": scale is not None,
        }
        if sum(faults.values()) < 2 or (quantity != field and _same_input(student, field, quantity)):
            continue
        change: dict[str, Any] = {"inputs": _inputs(student, {field: quantity, noise: name})}
        change |= {"predicts": predicts, "process": PROCESS[quantity]}
        change |= {"timestep": timestep} if timestep is not None else {}
        change |= {} if scale is None else _plainly(student, scale=scale)
        yield _reading(student, " and ".join(fault for fault, there in faults.items() if there), **change)


def scaled(student: Student, factor: float) -> Reading:
    """The reading with so many times the scale."""
    if isinstance(student, WrappedModule):
        return _reading(student, "scale", **_plainly(student, scale=factor * student.units.scale))

    def score(x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        answer: Tensor = student(x / factor, sigma / factor, context) / factor
        return answer

    return Reading("scale", {"scale": factor}, score)


def shifted(student: Student, mean: Tensor) -> Reading | None:
    """The reading of a model whose data had their mean taken away."""
    if not isinstance(student, WrappedModule):
        return None
    shift = tuple(float(value) for value in mean)
    return _reading(student, "shift", **_plainly(student, shift=shift))


def _plainly(student: WrappedModule, **change: Any) -> dict[str, Any]:
    """A change of the units; those that stand as a range of the data are written as numbers."""
    if student.conventions["data_range"] is None:
        return change
    return {"scale": student.units.scale, "shift": student.units.shift, "data_range": None, **change}


def in_time(student: Student, steps: int) -> Reading | None:
    """The reading whose time steps are so many later, if it has a table of steps."""
    if not isinstance(student, WrappedModule) or not isinstance(student.timestep, NearestTimestep):
        return None
    own = student.timestep
    return _reading(student, "time step", timestep=NearestTimestep(own.alphas_cumprod, own.offset + steps))


def quantities(student: WrappedModule) -> tuple[str | None, str | None]:
    """The field and the noise level that the module is told, by name; none where it is not told one."""
    names = [quantity for _, quantity in student.inputs]
    field = next((name for name in names if name in FIELD_LIKE), None)
    return field, next((name for name in names if name in NOISE_LIKE), None)


def _reading(student: WrappedModule, fault: str, **change: Any) -> Reading:
    return Reading(fault, change, student.read_as(**change))


def _as_process(student: WrappedModule, field: str, quantity: str) -> dict[str, Any]:
    return {
        "process": PROCESS[quantity],
        "inputs": _inputs(student, {field: quantity}),
        "predicts": student.predicts,
    }


def _inputs(student: WrappedModule, renamed: dict[str, str]) -> str:
    pairs = [(keyword, renamed.get(quantity, quantity)) for keyword, quantity in student.inputs]
    return ", ".join(f"{keyword}={quantity}" if keyword else quantity for keyword, quantity in pairs)


def _same_input(student: WrappedModule, first: str, second: str) -> bool:
    """Whether the second input is another name of the first, or of ``unit_x``, as for data of unit deviation."""
    unit = abs(student.scaled_deviation - 1) < 1e-3
    return unit and (second == "scaled_x" or {first, second} == {"unit_x", "scaled_x"})


def _noise_arguments(student: WrappedModule) -> Iterator[tuple[str, object]]:
    """Noise arguments, and the table of time steps that goes with one of a time."""
    own = student.conventions["timestep"]
    yield from ((name, own) for name in NOISE_LIKE[:-1])
    if student.timestep is not None:
        yield "timestep", own
    else:
        yield from (("timestep", name) for name in NAMED)


def _orders(student: WrappedModule) -> Iterator[tuple[int, ...]]:
    channels = student.field.channels
    own = student.channel_order or tuple(range(channels))
    if channels <= MOST_CHANNELS:
        yield from (order for order in itertools.permutations(range(channels)) if order != own)
        return
    for first, second in torch.combinations(torch.arange(channels)).tolist():
        swapped = list(own)
        swapped[first], swapped[second] = swapped[second], swapped[first]
        yield tuple(swapped)
