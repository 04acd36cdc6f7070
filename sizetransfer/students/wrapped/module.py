"""The student that wraps a torch module, by the conventions of :mod:`sizetransfer.students.wrapped`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sizetransfer.contracts.errors import ConformanceError, SizetransferError, SpecError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.student import Student
from sizetransfer.students.wrapped.conventions import (
    FIELD_LIKE,
    INPUTS,
    LAYOUTS,
    PROCESSES,
    USUAL,
    Layout,
    Prediction,
    Process,
    Scale,
    input_factor,
    known,
    known_prediction,
    parse_inputs,
    score_of,
    units_of,
)
from sizetransfer.students.wrapped.schedules import Timestep, as_timestep, outside


def wrap_module(
    module: nn.Module,
    *,
    field: FieldInfo,
    radius: int | None = None,
    inputs: str | None = None,
    predicts: Prediction | str | None = None,
    process: Process | str = "ve",
    timestep: object = None,
    scale: Scale = 1.0,
    shift: float | Sequence[float] = 0.0,
    data_range: Sequence[float] | None = None,
    sigma_data: float | None = None,
    sigma_range: Sequence[float] | None = None,
    layout: Layout | str = "channels-first",
    channel_order: Sequence[int] | None = None,
    casts: bool = False,
    translation_period: int = 1,
    notes: Sequence[str] = (),
) -> WrappedModule:
    """Make a student of a torch module.

    A module whose weights have another precision than the field is called in that of its weights, and its answer is
    turned into that of the field.

    Args:
        module: maps fields of shape ``B C *S`` and noise levels of shape ``(B,)`` to a tensor like the field, or to an
            object whose attribute ``sample`` or ``mean``, or whose first item, is one.
        field: the fields that it scores: ``teacher.field``.
        radius: Chebyshev receptive radius, a promise that the conformance suite measures; ``None`` for a global model.
        inputs: what it is called with, as the package of this function lists it; by default that of the process.
        predicts: ``score``, ``clean``, ``noise``, ``v`` or ``preconditioned``; by default that of the process.
        process: ``ve``, ``vp`` or ``edm``.
        timestep: makes a time step of shape ``(B,)`` of noise levels of shape ``(B,)``, where ``inputs`` names one: a
            function, or a table of alpha-bar, its name or its file (see :func:`nearest_timestep`).
        scale: units of the field that became one unit of the model's data: a number, one a channel, ``unit`` or
            ``[-1, 1]``.
        shift: of the field that became zero, a number or one a channel.
        data_range: smallest and largest number of the data, for ``[-1, 1]``.
        sigma_data: deviation of the data, in the model's units, in its preconditioning; by default what ``scale`` makes
            of ``field.sigma_data``.
        sigma_range: noise levels, in the model's units, that it was trained on; others are refused.
        layout: ``channels-first``; ``channels-last`` of a module of ``B *S C``; ``no-channels`` of one of ``B *S``.
        channel_order: for every channel of the module the channel of the field that it is.
        casts: the module answers in a precision of its own, which is turned into that of the field.
        translation_period: product of its strides or poolings: it takes multiples of so many sites along each axis.
        notes: what is known of its making, to be shown with it.

    Raises:
        SpecError: an unknown name of a convention, units or time steps that are none.
        ConformanceError: from ``forward``, where the module fails or returns no tensor like the field.
        OracleError: from ``forward``, at a noise level outside its schedule.

    Example:
        >>> from torch import nn
        >>> class Denoiser(nn.Module):
        ...     def forward(self, x, sigma):
        ...         return x / (1 + sigma.reshape(-1, 1, 1) ** 2)
        >>> student = wrap_module(Denoiser(), field=FieldInfo(dim=1), radius=0, predicts="clean")
    """
    conventions = {name: value for name, value in locals().items() if name not in {"module", "field"}}
    return WrappedModule(module, field, conventions)


class WrappedModule(Student):
    """A torch module as a score model (see the package's formulas).

    Attributes:
        conventions: the arguments of :func:`wrap_module`.
        units: of the model.
        notes: what is known of its making.
    """

    def __init__(self, module: nn.Module, field: FieldInfo, conventions: Mapping[str, Any]) -> None:
        super().__init__(field, radius=conventions["radius"])
        asked = dict(conventions)
        process = known("process", asked["process"], PROCESSES)
        self.module = module
        self.conventions = asked
        self.inputs = parse_inputs(INPUTS[process] if asked["inputs"] is None else asked["inputs"])
        self.predicts = known_prediction(USUAL[process] if asked["predicts"] is None else asked["predicts"])
        self.timestep: Timestep | None = as_timestep(asked["timestep"])
        self.units = units_of(asked["scale"], asked["shift"], asked["data_range"], field)
        self.layout = cast(Layout, known("layout", asked["layout"], LAYOUTS))
        self.channel_order = _order(asked["channel_order"], field)
        self.casts = bool(asked["casts"])
        self.translation_period = asked["translation_period"]
        self.notes = tuple(asked["notes"])
        own = asked["sigma_data"] or field.sigma_data / self.units.scale
        self.scaled_deviation: float = own  # of the quantity scaled_x
        self.sigma_data: float = own if process == "edm" else 1.0  # of the predictions v and preconditioned
        unseen = {"condition", "mask"} - {quantity for _, quantity in self.inputs}
        self.ignores = frozenset(unseen)
        self._require_conventions()

    def _require_conventions(self) -> None:
        if self.timestep is None and any(quantity == "timestep" for _, quantity in self.inputs):
            raise SpecError(
                "The module is called with a time step, and nothing says which.",
                where="wrap_module, timestep",
                expected="a function from noise levels to time steps, a table of alpha-bar, its name or its file",
                got="none",
                fix="pass timestep='ddpm-linear', the alphas_cumprod of its scheduler, or a function of your own",
            )
        if self.layout == "no-channels" and self.field.channels > 1:
            raise SpecError(
                "A module without channels takes one.",
                where="wrap_module, layout",
                expected="channels-first or channels-last",
                got=f"no-channels, for fields of {self.field.channels} channels",
                fix="say which layout it takes",
            )

    @property
    def sigma_range(self) -> tuple[float, float] | None:
        """Smallest and largest noise level that the model was trained at, in units of the field, where that is told."""
        own = self.conventions["sigma_range"] or getattr(self.timestep, "sigma_range", None)
        return None if own is None else (float(own[0]) * self.units.scale, float(own[1]) * self.units.scale)

    def read_as(self, **conventions: object) -> WrappedModule:
        """The same module with other conventions."""
        other = WrappedModule(self.module, self.field, {**self.conventions, **conventions})
        return other.train(self.training)

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        u, own = self.units.of_model(x), sigma if self.units.scale == 1 else sigma / self.units.scale
        if context.mask is not None and not self.units.trivial:
            u = u * context.mask
        self._require_level(own)
        level = expand(own, u)
        output = self._predicted(u, own, context)
        factors = [input_factor(quantity, level, self.scaled_deviation) for _, quantity in self.inputs]
        places = [place for place, (_, quantity) in enumerate(self.inputs) if quantity in FIELD_LIKE]
        factor = factors[places[0]] if places else 1.0
        score = score_of(self.predicts, output, u, level, factor if self._rescales else 1.0, self.sigma_data)
        score = score if self.units.scale == 1 else score / self.units.scale
        return score if context.mask is None else score * context.mask

    @property
    def _rescales(self) -> bool:
        """Whether a predicted score is that of what the module sees, and not of the variance-exploding field."""
        return bool(self.conventions["process"] != "ve")

    def _require_level(self, sigma: Tensor) -> None:
        allowed = self.conventions["sigma_range"]
        if allowed is None or torch.compiler.is_compiling():
            return
        low, high = (float(level) for level in allowed)
        if bool((sigma < low * (1 - 1e-6)).any() | (sigma > high * (1 + 1e-6)).any()):
            raise outside(sigma, (low, high))

    def _predicted(self, u: Tensor, sigma: Tensor, context: Context) -> Tensor:
        values = [(name, self._given(quantity, u, sigma, context)) for name, quantity in self.inputs]
        positional = [value for name, value in values if not name]
        named = {name: value for name, value in values if name}
        try:
            output: object = self.module(*positional, **named)
        except SizetransferError:
            raise
        except Exception as error:
            shapes = ", ".join(
                f"{quantity} {_shape(value)}" for (_, quantity), (_, value) in zip(self.inputs, values, strict=True)
            )
            raise self._broken(
                f"The wrapped module failed: {type(error).__name__}: {error}", "a prediction", f"called with {shapes}"
            ) from error
        return self._checked(_first_tensor(output), u, type(output).__name__)

    def _given(self, name: str, u: Tensor, sigma: Tensor, context: Context) -> Tensor | None:
        """A quantity in the module's layout and precision."""
        value = self._quantity(name, u, sigma, context)
        if value is None:
            return None
        if name in FIELD_LIKE:
            value = self._in_layout(value if self.channel_order is None else value[:, list(self.channel_order)])
        elif name in {"condition", "mask"}:
            value = self._in_layout(value)
        return value.to(self._precision(u)) if value.is_floating_point() else value

    def _precision(self, u: Tensor) -> torch.dtype:
        """That of the module's weights; of the field where it has none, or several."""
        own = {weight.dtype for weight in self.module.parameters() if weight.is_floating_point()}
        return own.pop() if len(own) == 1 else u.dtype

    def _in_layout(self, value: Tensor) -> Tensor:
        if self.layout == "channels-first":
            return value
        return value[:, 0] if self.layout == "no-channels" else value.movedim(1, -1)

    def _out_of_layout(self, value: Tensor) -> Tensor:
        if self.layout == "channels-first":
            return value
        return value[:, None] if self.layout == "no-channels" else value.movedim(-1, 1)

    def _quantity(self, name: str, u: Tensor, sigma: Tensor, context: Context) -> Tensor | None:
        if name in FIELD_LIKE:
            return u * input_factor(name, expand(sigma, u), self.scaled_deviation) if name != "x" else u
        made: Mapping[str, Callable[[], Tensor | None]] = {
            "sigma": lambda: sigma,
            "log_sigma": sigma.log,
            "noise_label": lambda: sigma.log() / 4,
            "variance": lambda: sigma**2,
            "timestep": lambda: self.timestep(sigma) if self.timestep is not None else None,
            "condition": lambda: context.condition,
            "mask": lambda: context.mask,
        }
        return made[name]()

    def _checked(self, output: Tensor | None, u: Tensor, found: str) -> Tensor:
        if output is None:
            raise self._broken("The wrapped module returns no tensor.", f"a tensor {_shape(u)}", found)
        expected = self._in_layout(u)
        if output.shape != expected.shape:
            raise self._broken(
                "The wrapped module's output is not like the field.",
                _shape(expected),
                _shape(output),
                _layout(output, u),
            )
        if output.dtype != self._precision(u) and not self.casts:
            raise self._broken(
                "The wrapped module's output has another dtype.",
                str(self._precision(u)),
                str(output.dtype),
                "say casts: true if it computes in a precision of its own",
            )
        output = self._out_of_layout(output).to(u.dtype)
        return output if self.channel_order is None else output[:, _inverse(self.channel_order)]

    def _broken(self, what: str, expected: str, got: str, fix: str = "") -> ConformanceError:
        usual = "say with inputs= what the module takes, and with predicts= what it returns; or wrap it once more"
        return ConformanceError(
            what, where=f"wrap_module({type(self.module).__name__})", expected=expected, got=got, fix=fix or usual
        )


def _order(order: Sequence[int] | None, field: FieldInfo) -> tuple[int, ...] | None:
    if order is None:
        return None
    if sorted(order) != list(range(field.channels)):
        raise SpecError(
            "The order of the channels is none.",
            where="wrap_module, channel_order",
            expected=f"each of 0 to {field.channels - 1} once",
            got=str(list(order)),
            fix="give for every channel of the module the channel of the field",
        )
    return tuple(order)


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=lambda place: order[place])


def _layout(output: Tensor, u: Tensor) -> str:
    """How to mend an answer in another layout."""
    if output.shape == u.movedim(1, -1).shape:
        return "say layout: channels-last"
    return "say layout: no-channels" if output.shape == u[:, 0].shape else ""


def _first_tensor(output: object) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    for name in ("sample", "mean"):
        inside = getattr(output, name, None)
        if isinstance(inside, Tensor):
            return inside
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def _shape(value: Tensor | None) -> str:
    return "none" if value is None else f"of shape {tuple(value.shape)}"
