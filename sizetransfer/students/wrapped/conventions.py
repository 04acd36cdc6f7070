"""Names of predictions, processes and inputs, and the formulas of :mod:`sizetransfer.students.wrapped` as code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import FieldInfo, did_you_mean

Prediction = Literal["score", "clean", "noise", "v", "preconditioned"]
Process = Literal["ve", "vp", "edm"]
Layout = Literal["channels-first", "channels-last", "no-channels"]

PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
PROCESSES: tuple[Process, ...] = get_args(Process)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
INPUTS = {"ve": "x, sigma", "vp": "unit_x, timestep", "edm": "scaled_x, noise_label"}
USUAL = {"ve": "score", "vp": "noise", "edm": "preconditioned"}
FIELD_LIKE = ("x", "scaled_x", "unit_x")
QUANTITIES = (
    *FIELD_LIKE,
    "sigma",
    "log_sigma",
    "noise_label",
    "variance",
    "timestep",
    "condition",
    "mask",
)


def score_of(
    predicts: Prediction, output: Tensor, u: Tensor, level: Tensor, factor: Tensor | float, sigma_data: float
) -> Tensor:
    """Score in the model's units (see the table of predictions).

    Args:
        predicts: what the output is.
        output: the module's, like the field.
        u: noisy field of variance-exploding noise, in the model's units.
        level: its noise level, broadcastable to u.
        factor: what u was multiplied with before the module saw it.
        sigma_data: the deviation of the model's preconditioning; one where the process has none.
    """
    if predicts == "score":
        return output * factor
    if predicts == "clean":
        return (output - u) / level**2
    if predicts == "noise":
        return -output / level
    total = level**2 + sigma_data**2
    sign = 1.0 if predicts == "preconditioned" else -1.0
    return -u / total + sign * output * sigma_data / (level * total.sqrt())


@dataclass(frozen=True)
class Units:
    """The model's units: ``u = (x - shift) / scale``.

    Attributes:
        scale: units of the field in one unit of the model.
        shift: for every channel, or one for all.
    """

    scale: float = 1.0
    shift: tuple[float, ...] = (0.0,)

    @property
    def trivial(self) -> bool:
        """Whether they are the field's."""
        return self.scale == 1.0 and not any(self.shift)

    def of_model(self, x: Tensor) -> Tensor:
        """Fields ``B C *S`` in the model's units."""
        if self.trivial:
            return x
        shift = x.new_tensor(self.shift).reshape(-1, *(1,) * (x.ndim - 2))
        return (x - shift) / self.scale


Scale = float | Sequence[float] | str


def units_of(
    scale: Scale, shift: float | Sequence[float], data_range: Sequence[float] | None, field: FieldInfo
) -> Units:
    """The units that ``scale``, ``shift`` and ``data_range`` name.

    Raises:
        SpecError: a scale that is not positive, one that differs between channels, or a range that is none.
    """
    shifts = tuple(map(float, shift)) if isinstance(shift, Sequence) else (float(shift),)
    if scale in ((-1, 1), [-1, 1]) or (isinstance(scale, str) and scale.replace(" ", "") == "[-1,1]"):
        return _of_range(data_range)
    if data_range is not None:
        raise _wrong("data_range", "none, unless scale is '[-1, 1]'", str(tuple(data_range)), "say scale: '[-1, 1]'")
    if len(shifts) not in {1, field.channels}:
        raise _wrong("shift", f"one number, or {field.channels}", str(shifts), "give one for every channel")
    return Units(_scale(scale, field), shifts)


def _scale(scale: Scale, field: FieldInfo) -> float:
    if scale == "unit":
        return field.sigma_data
    if isinstance(scale, str):
        raise _wrong("scale", "a number, numbers, 'unit' or '[-1, 1]'", repr(scale), "correct the word")
    values = tuple(map(float, scale)) if isinstance(scale, Sequence) else (float(scale),)
    if len(values) not in {1, field.channels} or not all(0 < value < float("inf") for value in values):
        raise _wrong("scale", f"a positive number, or {field.channels}", str(values), "give one for every channel")
    if max(values) > (1 + 1e-6) * min(values):
        raise _wrong(
            "scale",
            "the same number for every channel: one noise level of the field is several of the model otherwise",
            str(values),
            "divide the fields by these numbers before, and ask in the units of the model",
        )
    return values[0]


def _of_range(data_range: Sequence[float] | None) -> Units:
    if data_range is None or len(data_range) != 2 or not data_range[0] < data_range[1]:
        raise _wrong(
            "data_range",
            "the smallest and the largest number of the data, which became -1 and 1",
            "none" if data_range is None else str(tuple(data_range)),
            "say data_range: [low, high]",
        )
    low, high = map(float, data_range)
    return Units((high - low) / 2, ((high + low) / 2,))


def _wrong(where: str, expected: str, got: str, fix: str) -> SpecError:
    return SpecError("The model's units are not known.", where=f"module, {where}", expected=expected, got=got, fix=fix)


def parse_inputs(text: str) -> tuple[tuple[str, str], ...]:
    """Read ``"x, noise=sigma"`` as pairs of a keyword, empty for a positional argument, and a quantity.

    Raises:
        SpecError: an unknown quantity, or a positional argument behind a keyword.
    """
    pairs = []
    for part in text.split(","):
        name, separator, quantity = (piece.strip() for piece in part.partition("="))
        pairs.append((name, quantity) if separator else ("", name))
    wrong = [quantity for _, quantity in pairs if quantity not in QUANTITIES]
    late = any(not name and pairs[index - 1][0] for index, (name, _) in enumerate(pairs) if index)
    if wrong or late:
        raise SpecError(
            f"There is no input {wrong[0]!r}." if wrong else "A positional argument stands behind a keyword.",
            where=f"inputs {text!r}",
            expected=f"a list of {', '.join(QUANTITIES)}, each alone or as keyword=quantity",
            got=text,
            fix=(did_you_mean(wrong[0], QUANTITIES) if wrong else "") or "put positional arguments first",
        )
    return tuple(pairs)


def known(sort: str, name: str, names: Sequence[str]) -> str:
    """The name, if it is one of the names.

    Raises:
        SpecError: it is not.
    """
    if name in names:
        return name
    raise SpecError(
        f"There is no {sort} {name!r}.",
        where=sort,
        expected=f"one of {', '.join(names)}",
        got=repr(name),
        fix=did_you_mean(name, names) or "convert the module's input or output to one of these",
    )


def known_prediction(predicts: str) -> Prediction:
    """See :func:`known`."""
    return cast(Prediction, known("prediction", predicts, PREDICTIONS))


def input_factor(quantity: str, level: Tensor, sigma_data: float) -> Tensor | float:
    """What u is multiplied with to be that quantity."""
    if quantity == "unit_x":
        return torch.rsqrt(1 + level**2)
    if quantity == "scaled_x":
        return torch.rsqrt(level**2 + sigma_data**2)
    return 1.0
