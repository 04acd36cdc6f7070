r"""A spectral student: local convolutions, and filters of every range that are functions of the wave number.

A Fourier layer multiplies each channel by a function of the wave number :math:`k`, not of the index of a mode, so that
it is the same filter on the infinite lattice at every L. The functions are Yukawa kernels of fixed ranges
:math:`\ell_j = 2^j`, and the mean, with coefficients that depend on the noise level:

.. math:: g_c(k) = \sum_j a_{cj}(\sigma)\,\frac{\ell_j^{-2}}{e_k + \ell_j^{-2}} + a_{c\infty}(\sigma)\,\delta_{k0},
   \qquad e_k = \sum_a (2 - 2\cos k_a).

In space the j-th kernel decays as :math:`e^{-r/\ell_j}` and sums to one. How each layer behaves when L grows:

- *convolutions* act by the same rule at every site;
- *Yukawa filters* tend to their kernels on the infinite lattice, with corrections of order :math:`e^{-L/\ell_j}`; a
  kernel longer than the training lattice was seen as its periodic image alone, and there the answer on a larger one is
  an extrapolation;
- the *mean* is an average over all sites: its size does not grow with L.

The optimal score of a Gaussian field of mass m is one such filter. Beyond walls the field is continued by its mirror
images (no flux through them). The radius is ``None``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo, StudentSpec
from sizetransfer.contracts.student import Student
from sizetransfer.students.convolutions import (
    CONVOLUTIONS,
    Convolution,
    NoiseEmbedding,
    ResidualBlock,
    input_channels,
    inputs,
    require_dimension,
)
from sizetransfer.students.geometry import require_geometry


class SpectralStudentSpec(StudentSpec):
    """Local convolutions with Yukawa filters of all ranges, on tori and in open boxes of one to three dimensions."""

    kind: Literal["spectral"] = "spectral"
    blocks: int = Field(2, ge=1, description="residual blocks, each followed by a Fourier layer")
    width: int = Field(32, ge=1, description="hidden channels")
    ranges: int = Field(6, ge=1, description="Yukawa kernels, of ranges 1, 2, 4, ... lattice steps")
    mean: bool = Field(True, description="whether the Fourier layers see the mean over all sites")
    condition: Literal["given", "none"] = Field(
        "given", description="whether the context's condition channels (the sublattice, say) are seen"
    )
    noise_frequencies: int = Field(6, ge=1, description="octaves of the noise embedding")

    def build(self, field: FieldInfo) -> SpectralStudent:
        require_geometry(self, field)
        require_dimension(self.kind, field)
        return SpectralStudent(self, field)


class SpectralStudent(Student):
    """Score network of local convolutions and Yukawa filters (see the module's formula)."""

    def __init__(self, spec: SpectralStudentSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=None)
        self.spec = spec
        self.conditions = field.condition_channels if spec.condition == "given" else 0
        self.ignores = frozenset() if spec.condition == "given" else frozenset({"condition"})
        self.embedding = NoiseEmbedding(spec.noise_frequencies, spec.width)
        self.input = Convolution(field, input_channels(field, self.conditions), spec.width)
        self.blocks = nn.ModuleList(ResidualBlock(field, spec.width) for _ in range(spec.blocks))
        self.filters = nn.ModuleList(YukawaLayer(spec, field) for _ in range(spec.blocks))
        self.output = Convolution(field, spec.width, field.channels).zero()

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        noise = self.embedding(sigma)
        score = self.precondition(lambda scaled: self._network(scaled, noise, context), x, sigma)
        return score if context.mask is None else score * context.mask

    def _network(self, x: Tensor, noise: Tensor, context: Context) -> Tensor:
        hidden: Tensor = self.input(inputs(x, context, self.field, self.conditions))
        for block, filtered in zip(self.blocks, self.filters, strict=True):
            hidden = block(hidden, noise)
            hidden = hidden + filtered(hidden, noise)
        result: Tensor = self.output(F.silu(hidden))
        return result


class YukawaLayer(nn.Module):
    """One filter for each channel, its coefficients from the noise level, then a mixing of channels on each site."""

    def __init__(self, spec: SpectralStudentSpec, field: FieldInfo) -> None:
        super().__init__()
        self.walls = [axis for axis, closed in enumerate(field.closed_axes, start=2) if not closed]
        self.width = spec.width
        self.mean, self.ranges = spec.mean, spec.ranges
        self.coefficients = nn.Linear(spec.width, spec.width * (spec.ranges + spec.mean))
        self.mixing: nn.Module = CONVOLUTIONS[field.dim](spec.width, spec.width, kernel_size=1)

    def forward(self, hidden: Tensor, noise: Tensor) -> Tensor:
        """Map ``B W *S`` to ``B W *S``."""
        shape = hidden.shape[2:]
        axes = tuple(range(2, hidden.ndim))
        field = mirrored(hidden, self.walls)
        coefficients = self.coefficients(noise).reshape(len(noise), self.width, -1)
        bank = yukawa_bank(field.shape[2:], self.ranges, mean=self.mean, like=hidden)
        gain = torch.tensordot(coefficients, bank, dims=1)
        filtered = torch.fft.irfftn(torch.fft.rfftn(field, dim=axes) * gain, s=field.shape[2:], dim=axes)
        result: Tensor = self.mixing(filtered[(..., *(slice(length) for length in shape))])
        return result


def yukawa_bank(shape: Sequence[int], ranges: int, *, mean: bool, like: Tensor) -> Tensor:
    r"""Spectra :math:`\ell_j^{-2}/(e_k + \ell_j^{-2})`, and of the mean, on the grid of ``torch.fft.rfftn``.

    Returns:
        Shape ``(ranges + mean, *K)`` with the dtype and device of ``like``.
    """
    options = {"dtype": like.dtype, "device": like.device}
    waves = [torch.fft.fftfreq(length, **options) for length in shape[:-1]]
    waves.append(torch.fft.rfftfreq(shape[-1], **options))
    energy = sum((2 - 2 * torch.cos(2 * math.pi * k)) for k in torch.meshgrid(*waves, indexing="ij"))
    energy = torch.as_tensor(energy, **options)  # type: ignore[arg-type]
    masses = [4.0**-power for power in range(ranges)]
    spectra = [mass / (energy + mass) for mass in masses]
    if mean:
        # The constant mode alone: its energy is zero exactly.
        spectra.append((energy == 0).to(like))
    return torch.stack(spectra)


def mirrored(field: Tensor, axes: Iterable[int]) -> Tensor:
    """Continue ``B W *S`` by its mirror image along these axes: twice as many sites, on a torus."""
    for axis in axes:
        field = torch.cat([field, field.flip(axis)], dim=axis)
    return field
