r"""The paper's student: a purely local convolutional score model of exactly known receptive radius.

One input projection, B residual blocks of two convolutions, one output projection, all of width three: each
convolution extends the support by one site in Chebyshev distance, so the radius is

.. math:: R = 2B + 2

(paper §4.1). Nothing couples far sites: there is no normalisation over space or batch, and the noise level enters
by a scale and a shift per channel.

``centred`` is a control, not local: the mean over all sites is taken off the field before anything else, so that a mean
that grows with the lattice never meets the network.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

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
)
from sizetransfer.students.geometry import require_geometry


class CNNStudentSpec(StudentSpec):
    """Local convolutional network of radius 2 * blocks + 2, on tori and in open boxes of one to three dimensions."""

    kind: Literal["cnn"] = "cnn"
    blocks: int = Field(2, ge=0, description="residual blocks B; the receptive radius is 2B + 2")
    width: int = Field(64, ge=1, description="hidden channels")
    condition: Literal["given", "none"] = Field(
        "given", description="whether the context's condition channels (the sublattice, say) are seen"
    )
    noise_frequencies: int = Field(6, ge=1, description="octaves of the noise embedding")
    centred: bool = Field(False, description="whether the mean over all sites is taken off first; the radius is global")

    def build(self, field: FieldInfo) -> CNNStudent:
        require_geometry(self, field)
        require_dimension(self.kind, field)
        return CNNStudent(self, field)


class CNNStudent(Student):
    """Local convolutional score network with exact radius 2B + 2, or centred and global (see the module's formula)."""

    def __init__(self, spec: CNNStudentSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=None if spec.centred else 2 * spec.blocks + 2)
        self.spec = spec
        self.conditions = field.condition_channels if spec.condition == "given" else 0
        self.ignores = frozenset() if spec.condition == "given" else frozenset({"condition"})
        # Without blocks nothing is modulated by the noise, which then enters by the preconditioning alone.
        self.embedding = NoiseEmbedding(spec.noise_frequencies, spec.width) if spec.blocks else nn.Identity()
        self.input = Convolution(field, input_channels(field, self.conditions), spec.width)
        self.blocks = nn.ModuleList(ResidualBlock(field, spec.width) for _ in range(spec.blocks))
        self.output = Convolution(field, spec.width, field.channels).zero()

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        noise = self.embedding(sigma)
        field = centred(x, context) if self.spec.centred else x
        score = self.precondition(lambda scaled: self._network(scaled, noise, context), field, sigma)
        return score if context.mask is None else score * context.mask

    def _network(self, x: Tensor, noise: Tensor, context: Context) -> Tensor:
        hidden: Tensor = self.input(inputs(x, context, self.field, self.conditions))
        for block in self.blocks:
            hidden = block(hidden, noise)
        result: Tensor = self.output(F.silu(hidden))
        return result


def centred(x: Float[Tensor, "batch channels *size"], context: Context) -> Float[Tensor, "batch channels *size"]:
    """The field without its mean over live sites, channel by channel."""
    sites = tuple(range(2, x.ndim))
    if context.mask is None:
        return x - x.mean(sites, keepdim=True)
    live = context.mask.to(x)
    return x - (live * x).sum(sites, keepdim=True) / live.sum(sites, keepdim=True).clamp_min(1)
