r"""Any torch module as a student: a public diffusion backbone is evaluated without a fork.

A module maps a noisy field and its noise level to one of three predictions, each of which is a score
(:math:`v=\sigma^2`):

- ``score``: :math:`s` itself;
- ``clean``: :math:`\hat x_0 \approx E[X_0|x]`, so that :math:`s = (\hat x_0 - x)/v` (Tweedie, paper eq. (7));
- ``noise``: :math:`\hat\epsilon \approx E[\xi|x]` with :math:`x = x_0 + \sigma\xi`, so that
  :math:`s = -\hat\epsilon/\sigma`.

What the module is called with is a list of quantities, ``"x, sigma"`` by default, each by position or, as in
``"sample=unit_x, timestep=timestep"``, by name:

========================  ==============================================================================
``x``                     the noisy field, variance exploding
``scaled_x``              :math:`x/\sqrt{\sigma^2+\sigma_d^2}`, unit variance at every noise level
``unit_x``                :math:`x/\sqrt{1+\sigma^2}`, the input of a variance-preserving model
``sigma``, ``log_sigma``  the noise level, its natural logarithm
``noise_label``           :math:`\tfrac14\log\sigma` (Karras et al. 2022, arXiv:2206.00364)
``variance``              :math:`\sigma^2`
``timestep``              what the function ``timestep`` makes of the noise level
``condition``, ``mask``   what the context holds
========================  ==============================================================================
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn

from sizetransfer.contracts.errors import ConformanceError, SizetransferError, SpecError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo, Geometry, StudentSpec, did_you_mean
from sizetransfer.contracts.student import Student

Prediction = Literal["score", "clean", "noise"]
Timestep = Callable[[Tensor], Tensor]

QUANTITIES = (
    "x",
    "scaled_x",
    "unit_x",
    "sigma",
    "log_sigma",
    "noise_label",
    "variance",
    "timestep",
    "condition",
    "mask",
)


def wrap_module(
    module: nn.Module,
    *,
    field: FieldInfo,
    radius: int | None = None,
    inputs: str = "x, sigma",
    predicts: Prediction | str = "score",
    timestep: Timestep | None = None,
    translation_period: int = 1,
) -> WrappedModule:
    """Make a student of a torch module.

    Args:
        module: maps fields of shape ``B C *S`` and noise levels of shape ``(B,)`` to a tensor like the field, or to an
            object whose attribute ``sample``, or whose first item, is one.
        field: the fields that it scores: ``teacher.field``.
        radius: Chebyshev receptive radius, a promise that the conformance suite measures; ``None`` for a global model.
        inputs: what it is called with, as the module of this function lists it.
        predicts: ``score``, ``clean`` or ``noise``.
        timestep: makes a time step of shape ``(B,)`` of noise levels of shape ``(B,)``, where ``inputs`` names one; for
            a model with discrete steps, :func:`nearest_timestep`.
        translation_period: product of its strides or poolings: it takes multiples of so many sites along each axis.

    Raises:
        SpecError: an unknown input or prediction.
        ConformanceError: from ``forward``, where the module fails or returns no tensor like the field.

    Example:
        >>> from torch import nn
        >>> class Denoiser(nn.Module):
        ...     def forward(self, x, sigma):
        ...         return x / (1 + sigma.reshape(-1, 1, 1) ** 2)
        >>> student = wrap_module(Denoiser(), field=FieldInfo(dim=1), radius=0, predicts="clean")
    """
    return WrappedModule(
        module,
        field=field,
        radius=radius,
        inputs=inputs,
        predicts=predicts,
        timestep=timestep,
        translation_period=translation_period,
    )


class WrappedModule(Student):
    """A torch module as a score model (see the module's formulas)."""

    def __init__(
        self,
        module: nn.Module,
        *,
        field: FieldInfo,
        radius: int | None,
        inputs: str,
        predicts: Prediction | str,
        timestep: Timestep | None,
        translation_period: int,
    ) -> None:
        super().__init__(field, radius=radius)
        self.module = module
        self.inputs = parse_inputs(inputs)
        self.predicts = _known_prediction(predicts)
        self.timestep = timestep
        self.translation_period = translation_period
        unseen = {"condition", "mask"} - {quantity for _, quantity in self.inputs}
        self.ignores = frozenset(unseen)
        if timestep is None and any(quantity == "timestep" for _, quantity in self.inputs):
            raise SpecError(
                "The module is called with a time step, and nothing says which.",
                where="wrap_module, timestep",
                expected="a function from noise levels to time steps",
                got="none",
                fix="pass timestep=nearest_timestep(alphas_cumprod), or a function of your own",
            )

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        predicted = self._predicted(x, sigma, context)
        level = expand(sigma, x)
        if self.predicts == "clean":
            predicted = (predicted - x) / level**2
        elif self.predicts == "noise":
            predicted = -predicted / level
        return predicted if context.mask is None else predicted * context.mask

    def _predicted(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        values = [(name, self._quantity(quantity, x, sigma, context)) for name, quantity in self.inputs]
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
        return self._checked(_first_tensor(output), x, type(output).__name__)

    def _quantity(self, name: str, x: Tensor, sigma: Tensor, context: Context) -> Tensor | None:
        level = expand(sigma, x)
        made: Mapping[str, Callable[[], Tensor | None]] = {
            "x": lambda: x,
            "scaled_x": lambda: x / torch.sqrt(level**2 + self.field.sigma_data**2),
            "unit_x": lambda: x / torch.sqrt(1 + level**2),
            "sigma": lambda: sigma,
            "log_sigma": sigma.log,
            "noise_label": lambda: sigma.log() / 4,
            "variance": lambda: sigma**2,
            "timestep": lambda: self.timestep(sigma) if self.timestep is not None else None,
            "condition": lambda: context.condition,
            "mask": lambda: context.mask,
        }
        return made[name]()

    def _checked(self, output: Tensor | None, x: Tensor, found: str) -> Tensor:
        if output is None:
            raise self._broken("The wrapped module returns no tensor.", f"a tensor {_shape(x)}", found)
        if output.shape != x.shape:
            raise self._broken("The wrapped module's output is not like the field.", _shape(x), _shape(output))
        if output.dtype != x.dtype:
            raise self._broken("The wrapped module's output has another dtype.", str(x.dtype), str(output.dtype))
        return output

    def _broken(self, what: str, expected: str, got: str) -> ConformanceError:
        return ConformanceError(
            what,
            where=f"wrap_module({type(self.module).__name__})",
            expected=expected,
            got=got,
            fix="say with inputs= what the module takes, and with predicts= what it returns; or wrap it once more",
        )


class ModuleSpec(StudentSpec):
    """Any torch module, named by its import path; see the function ``wrap_module``.

    The specification names code, and building it runs this code: only open files of people whom you trust. The
    factory's module and what it imports take part in what a training is known by, and so do the files in ``files`` and
    those that ``arguments`` name.
    """

    geometries: ClassVar[tuple[Geometry, ...]] = ("lattice", "graph")
    names_code: ClassVar[bool] = True

    kind: Literal["module"] = "module"
    factory: str = Field(description="import path package.module:callable of the code that is run")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the factory")
    radius: int | None = Field(None, ge=0, description="receptive radius; none for a global model")
    inputs: str = Field("x, sigma", description="what the module is called with")
    predicts: Prediction = Field("score", description="score, clean field or noise")
    translation_period: int = Field(1, ge=1, description="product of its strides; sizes are multiples of it")
    files: tuple[str, ...] = Field(
        (),
        description="further files that the factory reads; their content decides whether a training is done again",
    )

    @field_validator("inputs")
    @classmethod
    def _known_inputs(cls, text: str) -> str:
        parse_inputs(text)
        return text

    def code(self) -> tuple[str, ...]:
        """Names of the modules whose code takes part, that of the factory among them."""
        return tuple(dict.fromkeys([*super().code(), self.factory.partition(":")[0]]))

    def reads(self) -> tuple[Path, ...]:
        """The files of ``files``, and those that strings in ``arguments`` name.

        Raises:
            SpecError: one of ``files`` does not exist.
        """
        named = [path for path in map(Path, _strings(self.arguments)) if _is_file(path)]
        return tuple(dict.fromkeys([*super().reads(), *named, *map(_required_file, self.files)]))

    def build(self, field: FieldInfo) -> WrappedModule:
        built: object = _imported(self.factory)(**self.arguments)
        if not isinstance(built, nn.Module):
            raise SpecError(
                "The factory builds no torch module.",
                where="module, factory",
                expected="a callable that returns a torch.nn.Module",
                got=f"{self.factory} returned {type(built).__name__}",
                fix="name a class or a function that builds the module",
            )
        return wrap_module(
            built,
            field=field,
            radius=self.radius,
            inputs=self.inputs,
            predicts=self.predicts,
            translation_period=self.translation_period,
        )


def _strings(value: object) -> Iterator[str]:
    """Every string in JSON-like data, however deep."""
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _strings(item)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that no file system takes for a name
        return False


def _required_file(name: str) -> Path:
    if not Path(name).exists():
        raise SpecError(
            "A file that the factory reads does not exist.",
            where="module, files",
            expected="existing files, relative to the working directory",
            got=name,
            fix="correct the path, or leave it out",
        )
    return Path(name)


def nearest_timestep(alphas_cumprod: Tensor) -> Timestep:
    r"""Time steps of a variance-preserving model with discrete steps.

    Step t has the noise level :math:`\sigma_t = \sqrt{(1-\bar\alpha_t)/\bar\alpha_t}` of
    :math:`x_t/\sqrt{\bar\alpha_t} = x_0 + \sigma_t\xi`.

    Args:
        alphas_cumprod: :math:`\bar\alpha_t`, shape ``(T,)``.

    Returns:
        A function from noise levels of shape ``(B,)`` to the nearest steps in the logarithm, integers ``(B,)``.
    """
    levels = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().log()

    def timestep(sigma: Tensor) -> Tensor:
        return (sigma.log()[:, None] - levels.to(sigma)).abs().argmin(1)

    return timestep


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


def _known_prediction(predicts: str) -> Prediction:
    known: tuple[Prediction, ...] = ("score", "clean", "noise")
    for prediction in known:
        if predicts == prediction:
            return prediction
    raise SpecError(
        f"There is no prediction {predicts!r}.",
        where="predicts",
        expected=f"one of {', '.join(known)}",
        got=repr(predicts),
        fix=did_you_mean(predicts, known) or "convert the module's output to one of these",
    )


def _imported(path: str) -> Callable[..., object]:
    name, _, attribute = path.partition(":")
    try:
        target: Any = importlib.import_module(name)
        for part in filter(None, attribute.split(".")):
            target = getattr(target, part)
    except (ImportError, AttributeError, ValueError, SystemExit) as error:
        raise SpecError(
            "The factory cannot be imported.",
            where="module, factory",
            expected="package.module:callable",
            got=f"{path} ({type(error).__name__}: {error})",
            fix="install the package, or correct the path",
        ) from None
    if not callable(target):
        raise SpecError(
            "The factory is not callable.",
            where="module, factory",
            expected="package.module:callable",
            got=f"{path}, {type(target).__name__}",
            fix="name a class or a function behind the colon",
        )
    return target  # type: ignore[no-any-return]


def _first_tensor(output: object) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    sample = getattr(output, "sample", None)
    if isinstance(sample, Tensor):
        return sample
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def _shape(value: Tensor | None) -> str:
    return "none" if value is None else f"of shape {tuple(value.shape)}"
