r"""A U-Net-like student: the field at several scales, and its mean.

Level l works on the field of block averages over :math:`2^l` sites along each axis, as in Kadanoff's block spins.
How each layer behaves when L grows:

- *convolutions* act by the same rule at every site of their level; a coarse site always stands for :math:`2^{dl}`
  fine ones;
- *averaging* and *repeating* have a fixed factor, two for each level: the number of levels does not grow with L, and
  the coarsest lattice grows as :math:`L/2^{levels}`;
- the *mean token* at the coarsest level, :math:`\bar h = N^{-1}\sum_i h_i`, passed through a perceptron and added to
  every site, is an average: its size does not grow with L, but what was learned of its fluctuations, of variance
  :math:`\chi/N`, was learned at one size.

The radius is declared as ``None``: with the mean token every site sees every other. Translations by the coarsest block,
:math:`2^{levels}` steps, move the score with the field; smaller ones do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo, StudentSpec
from sizetransfer.contracts.student import Student
from sizetransfer.students.convolutions import (
    Convolution,
    NoiseEmbedding,
    ResidualBlock,
    input_channels,
    inputs,
    require_dimension,
    trailing,
)
from sizetransfer.students.geometry import require_geometry

_POOLING = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class UNetStudentSpec(StudentSpec):
    """Multi-scale network of block averages with a mean token, on tori and in open boxes of one to three dimensions."""

    kind: Literal["unet"] = "unet"
    levels: int = Field(2, ge=1, description="coarser lattices; sizes must be multiples of 2 ** levels")
    blocks: int = Field(1, ge=1, description="residual blocks on the way down and on the way up, at each level")
    width: int = Field(32, ge=1, description="hidden channels, at every level")
    mean_token: bool = Field(True, description="whether the mean over all sites is seen")
    condition: Literal["given", "none"] = Field(
        "given", description="whether the context's condition channels (the sublattice, say) are seen"
    )
    noise_frequencies: int = Field(6, ge=1, description="octaves of the noise embedding")

    def build(self, field: FieldInfo) -> UNetStudent:
        require_geometry(self, field)
        require_dimension(self.kind, field)
        return UNetStudent(self, field)


class UNetStudent(Student):
    """Multi-scale score network (see the module's description).

    Raises:
        OracleError: from ``forward``, for a size that the coarsest block does not divide.
    """

    def __init__(self, spec: UNetStudentSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=None)
        self.spec = spec
        self.translation_period = 2**spec.levels
        self.conditions = field.condition_channels if spec.condition == "given" else 0
        self.ignores = frozenset() if spec.condition == "given" else frozenset({"condition"})
        self.embedding = NoiseEmbedding(spec.noise_frequencies, spec.width)
        self.input = Convolution(field, input_channels(field, self.conditions), spec.width)
        self.down = nn.ModuleList(_Stage(spec, field) for _ in range(spec.levels))
        self.bottom = _Stage(spec, field)
        self.token = _MeanToken(spec.width) if spec.mean_token else None
        self.up = nn.ModuleList(_Stage(spec, field) for _ in range(spec.levels))
        self.output = Convolution(field, spec.width, field.channels).zero()

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        self._check(x.shape[2:])
        noise = self.embedding(sigma)
        score = self.precondition(lambda scaled: self._network(scaled, noise, context), x, sigma)
        return score if context.mask is None else score * context.mask

    def _network(self, x: Tensor, noise: Tensor, context: Context) -> Tensor:
        hidden: Tensor = self.input(inputs(x, context, self.field, self.conditions))
        finer = []
        for stage in self.down:
            finer.append(stage(hidden, noise))
            hidden = _POOLING[self.field.dim](finer[-1], 2)
        hidden = self.bottom(hidden, noise)
        if self.token is not None:
            hidden = hidden + self.token(hidden)
        for stage in self.up:
            hidden = stage(finer.pop() + repeat(hidden), noise)
        result: Tensor = self.output(F.silu(hidden))
        return result

    def _check(self, shape: Sequence[int]) -> None:
        block = 2**self.spec.levels
        if any(length % block for length in shape):
            raise OracleError(
                "The coarsest block does not divide the lattice.",
                where="unet, levels",
                expected=f"multiples of {block} sites along each axis, for {self.spec.levels} levels",
                got="x".join(map(str, shape)),
                fix="choose other sizes, or fewer levels",
            )


class _Stage(nn.Module):
    """The residual blocks of one level, on one way."""

    def __init__(self, spec: UNetStudentSpec, field: FieldInfo) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(field, spec.width) for _ in range(spec.blocks))

    def forward(self, hidden: Tensor, noise: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = block(hidden, noise)
        return hidden


class _MeanToken(nn.Module):
    """The mean over all sites through a perceptron: the same number of channels for every site."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.perceptron = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, hidden: Tensor) -> Tensor:
        return trailing(self.perceptron(hidden.flatten(2).mean(2)), hidden)


def repeat(coarse: Tensor) -> Tensor:
    """Give each site of ``B W *S`` to the two finer sites along each axis that it stands for."""
    for axis in range(2, coarse.ndim):
        coarse = torch.repeat_interleave(coarse, 2, dim=axis)
    return coarse
