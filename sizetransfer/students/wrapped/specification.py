"""The student ``module`` as experiment files name it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator
from torch import nn

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import FieldInfo, Geometry, StudentSpec
from sizetransfer.registry.importing import imported, look_beside, module_of
from sizetransfer.students.wrapped.conventions import Layout, Prediction, Process, parse_inputs
from sizetransfer.students.wrapped.module import WrappedModule, wrap_module
from sizetransfer.students.wrapped.weights import load_weights

OWN = {"kind", "factory", "arguments", "files", "weights"}
"""Fields that are no argument of :func:`wrap_module`."""


class ModuleSpec(StudentSpec):
    """Any torch module, named by its import path; see the function ``wrap_module``.

    The specification names code, and building it runs this code: only open files of people whom you trust. The
    factory's module and what it imports take part in what a training is known by, and so do the weights, the files in
    ``files`` and those that ``arguments`` name. The factory is looked for on Python's path, then in the working
    directory and beside the experiment file.
    """

    geometries: ClassVar[tuple[Geometry, ...]] = ("lattice", "graph")
    names_code: ClassVar[bool] = True

    kind: Literal["module"] = "module"
    factory: str = Field(description="import path package.module:callable of the code that is run")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the factory")
    weights: Path | None = Field(None, description="file of its weights: .safetensors, or .pt with numbers alone")
    radius: int | None = Field(None, ge=0, description="receptive radius; none for a global model")
    inputs: str | None = Field(None, description="what the module is called with; by default that of the process")
    predicts: Prediction | None = Field(
        None, description="score, clean field, noise, v or preconditioned (EDM); by default that of the process"
    )
    process: Process = Field("ve", description="variance exploding, variance preserving, or EDM's preconditioning")
    timestep: str | None = Field(None, description="ddpm-linear, scaled-linear, cosine, or a .npy file of alpha-bar")
    scale: float | tuple[float, ...] | str = Field(
        1.0, description="units of the field in one of the model: a number, one a channel, unit, or [-1, 1]"
    )
    shift: float | tuple[float, ...] = Field(0.0, description="of the field that is zero in the model's units")
    data_range: tuple[float, float] | None = Field(None, description="smallest and largest datum, for [-1, 1]")
    sigma_data: float | None = Field(None, gt=0, description="deviation of the data in the model's preconditioning")
    sigma_range: tuple[float, float] | None = Field(None, description="noise levels of its training, in its units")
    layout: Layout = Field("channels-first", description="of the module's fields")
    channel_order: tuple[int, ...] | None = Field(None, description="channel of the field that each of the module's is")
    casts: bool = Field(False, description="the module answers in a precision of its own")
    translation_period: int = Field(1, ge=1, description="product of its strides; sizes are multiples of it")
    files: tuple[str, ...] = Field(
        (),
        description="further files that the factory reads; their content decides whether a training is done again",
    )

    @field_validator("inputs")
    @classmethod
    def _known_inputs(cls, text: str | None) -> str | None:
        if text is not None:
            parse_inputs(text)
        return text

    def look_beside(self, folder: Path) -> None:
        look_beside(self.factory, folder)

    def code(self) -> tuple[str, ...]:
        """Names of the modules whose code takes part, that of the factory among them."""
        look_beside(self.factory, Path.cwd())
        return tuple(dict.fromkeys([*super().code(), module_of(self.factory)]))

    def reads(self) -> tuple[Path, ...]:
        """The weights, the table of time steps, the files of ``files``, and those that strings in ``arguments`` name.

        Raises:
            SpecError: one of ``files`` does not exist.
        """
        texts = [*_strings(self.arguments), *([self.timestep] if self.timestep else [])]
        named = [path for path in map(Path, texts) if _is_file(path)]
        return tuple(dict.fromkeys([*super().reads(), *named, *map(_required_file, self.files)]))

    def build(self, field: FieldInfo) -> WrappedModule:
        built: object = imported(self.factory, what="factory", where="module, factory")(**self.arguments)
        if not isinstance(built, nn.Module):
            raise SpecError(
                "The factory builds no torch module.",
                where="module, factory",
                expected="a callable that returns a torch.nn.Module",
                got=f"{self.factory} returned {type(built).__name__}",
                fix="name a class or a function that builds the module",
            )
        notes = () if self.weights is None else load_weights(built, self.weights)
        options = {name: getattr(self, name) for name in type(self).model_fields if name not in OWN}
        return wrap_module(built, field=field, notes=notes, **options)


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
