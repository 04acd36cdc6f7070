r"""The paper's student: a purely local convolutional score model of exactly known receptive radius.

One input projection, B residual blocks of two convolutions, one output projection, all of width three: each
convolution extends the support by one site in Chebyshev distance, so the radius is

.. math:: R = 2B + 2

(paper §4.1). Nothing couples far sites: there is no normalisation over space or batch, and the noise level enters
by a scale and a shift per channel.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sizetransfer.domain import pad
from sizetransfer.errors import SpecError
from sizetransfer.noise import fourier_features
from sizetransfer.oracle import Context
from sizetransfer.specs import FieldInfo, StudentSpec
from sizetransfer.student import Student
from sizetransfer.students.conditions import condition_channels
from sizetransfer.students.geometry import require_geometry

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class CNNStudentSpec(StudentSpec):
    """Local convolutional network of radius 2 * blocks + 2, on tori and in open boxes of one to three dimensions."""

    kind: Literal["cnn"] = "cnn"
    blocks: int = Field(2, ge=0, description="residual blocks B; the receptive radius is 2B + 2")
    width: int = Field(64, ge=1, description="hidden channels")
    condition: Literal["given", "none"] = Field(
        "given", description="whether the context's condition channels (the sublattice, say) are seen"
    )
    noise_frequencies: int = Field(6, ge=1, description="octaves of the noise embedding")

    def build(self, field: FieldInfo) -> CNNStudent:
        require_geometry(self, field)
        if field.dim not in _CONVOLUTIONS:
            raise SpecError(
                "The network is there for one to three dimensions.",
                where="cnn, field.dim",
                expected="1, 2 or 3",
                got=str(field.dim),
                fix="choose a teacher of fewer dimensions",
            )
        return CNNStudent(self, field)


class _Convolution(nn.Module):
    """A convolution of width three on a torus (circular) or in an open box (zero outside)."""

    def __init__(self, dim: int, inputs: int, outputs: int, *, periodic: bool) -> None:
        super().__init__()
        self.periodic = periodic
        self.linear: nn.Module = _CONVOLUTIONS[dim](inputs, outputs, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(pad(x, 1, periodic=self.periodic))
        return result


class _ResidualBlock(nn.Module):
    """Two convolutions around a shortcut, modulated channel by channel by the noise level."""

    def __init__(self, dim: int, width: int, features: int, *, periodic: bool) -> None:
        super().__init__()
        self.first = _Convolution(dim, width, width, periodic=periodic)
        self.second = _Convolution(dim, width, width, periodic=periodic)
        self.modulation = nn.Linear(features, 2 * width)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        scale, shift = self.modulation(noise).chunk(2, dim=1)
        hidden = self.first(F.silu(x))
        hidden = hidden * (1 + _expand(scale, x)) + _expand(shift, x)
        update: Tensor = self.second(F.silu(hidden))
        return x + update


def _expand(values: Tensor, like: Tensor) -> Tensor:
    """Give ``(B, C)`` trailing axes of length one so that it multiplies ``like`` of shape ``B C *S``."""
    return values.reshape(*values.shape, *(1,) * (like.ndim - 2))


class CNNStudent(Student):
    """Local convolutional score network with exact radius 2B + 2 (see the module's formula)."""

    def __init__(self, spec: CNNStudentSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=2 * spec.blocks + 2)
        self.spec = spec
        self.conditions = field.condition_channels if spec.condition == "given" else 0
        self.ignores = frozenset() if spec.condition == "given" else frozenset({"condition"})
        # Inside an open box a channel of ones, zero outside, lets the network see how far the walls are.
        walls = 0 if field.periodic else 1
        features = 2 * spec.noise_frequencies
        self.embedding = nn.Sequential(nn.Linear(features, spec.width), nn.SiLU())
        self.input = _Convolution(
            field.dim, field.channels + self.conditions + walls, spec.width, periodic=field.periodic
        )
        self.blocks = nn.ModuleList(
            _ResidualBlock(field.dim, spec.width, spec.width, periodic=field.periodic) for _ in range(spec.blocks)
        )
        self.output = _Convolution(field.dim, spec.width, field.channels, periodic=field.periodic)
        nn.init.zeros_(self.output.linear.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.output.linear.bias)  # type: ignore[arg-type]

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        noise = self.embedding(fourier_features(sigma, self.spec.noise_frequencies))
        score = self.precondition(lambda scaled: self._network(scaled, noise, context), x, sigma)
        return score if context.mask is None else score * context.mask

    def _network(self, x: Tensor, noise: Tensor, context: Context) -> Tensor:
        hidden: Tensor = self.input(self._inputs(x, context))
        for block in self.blocks:
            hidden = block(hidden, noise)
        result: Tensor = self.output(F.silu(hidden))
        return result

    def _inputs(self, x: Tensor, context: Context) -> Tensor:
        channels = [x if context.mask is None else x * context.mask]
        channels += condition_channels(context, self.conditions, like=x)
        if not self.field.periodic:
            channels.append(torch.ones_like(x[:, :1]))
        return torch.cat(channels, dim=1)
