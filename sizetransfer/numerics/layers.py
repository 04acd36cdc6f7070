r"""Invertible layers of finite-depth local flows, for tori and open boxes of one to three dimensions.

Every layer updates one checkerboard sublattice A from the other, B, so that its inverse is as explicit as itself
and its Jacobian is triangular (Dinh et al. 2017; paper §3 and appendix B):

- affine coupling: :math:`x_A' = x_A\, e^{a(x_B)} + t(x_B)`, log-determinant :math:`\sum_A a`;
- additive smoother: :math:`x_A' = x_A + g\,\phi(\sum_B w_{AB} x_B)`, log-determinant zero;
- mean mode: :math:`x' = x + \kappa\,\bar x\,\mathbf 1`, log-determinant :math:`\log(1 + \kappa)`.

Weights are drawn by numpy's PCG64 from a seed, as uniform numbers of single precision: the same bits on every
machine, and the same rule in float32 and in float64. Kernels are formulas: they are computed in double precision and
rounded to that of the layer, whichever it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizetransfer.contracts.domain import Lattice, pad
from sizetransfer.contracts.errors import OracleError

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class SymmetricConvolution(torch.autograd.Function):
    """Convolve ``B 1 *S`` with one even kernel, ``1 1 *K``, on a torus or in a box.

    The map is symmetric, so its backward pass is itself: many times faster than the transposed convolution with a
    wide kernel, and differentiable as often as one likes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, periodic: bool) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.periodic = periodic
        padded = pad(x, kernel.shape[-1] // 2, periodic=periodic)
        return _CONVOLUTIONS[kernel.ndim - 2](padded, kernel)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (kernel,) = ctx.saved_tensors
        return _convolve_symmetric(gradients[0], kernel, ctx.periodic), None, None


def _convolve_symmetric(x: Tensor, kernel: Tensor, periodic: bool) -> Tensor:
    result: Tensor = SymmetricConvolution.apply(x, kernel, periodic)  # type: ignore[no-untyped-call]
    return result


def sublattice(x: Tensor, parity: int) -> Tensor:
    """One where the sum of coordinates has this parity, else zero; shape ``1 1 *S``, like ``x`` otherwise."""
    return (Lattice(tuple(x.shape[2:])).parity() == parity).to(x)[None, None]


class ExactBuffer(nn.Module):
    """A buffer whose value is known in double precision: in every dtype it is that value, rounded once.

    A module that has been in float32 and goes to float64 has its numbers to double precision.

    Args:
        value: float64.
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self._exact = value
        self.register_buffer("value", value.float(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.value = self._exact.to(self.get_buffer("value"))
        return self

    def forward(self) -> Tensor:
        """The value, with the module's dtype and device."""
        return self.get_buffer("value")


class Layer(nn.Module, ABC):
    """An invertible map of fields with a known log-determinant."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and ``log |det|`` of the forward map's Jacobian at ``x``, shape ``(B,)``."""

    @abstractmethod
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the preimage ``x`` and ``log |det|`` of the *forward* map's Jacobian at ``x``, shape ``(B,)``."""


class Conditioner(nn.Module):
    """Two convolutions of width three with a tanh between them: ``B C *S`` to scale and shift, ``B 2C *S``."""

    def __init__(
        self, random: np.random.Generator, *, dim: int, channels: int, width: int, gain: float, periodic: bool
    ) -> None:
        super().__init__()
        self.periodic = periodic
        self.gain = gain
        self.register_buffer("inner", _draw(random, width, channels, dim))
        self.register_buffer("outer", _draw(random, 2 * channels, width, dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inner, outer = self.get_buffer("inner"), self.get_buffer("outer")
        convolution = _CONVOLUTIONS[inner.ndim - 2]
        if self.periodic:  # around a torus one padding of the narrow input serves both convolutions
            result = convolution(torch.tanh(convolution(pad(x, 2, periodic=True), inner)), outer)
        else:
            result = convolution(torch.tanh(convolution(x, inner, padding=1)), outer, padding=1)
        scale, shift = (self.gain * result).chunk(2, dim=1)
        return scale, shift


def _draw(random: np.random.Generator, outputs: int, inputs: int, dim: int) -> Tensor:
    """Uniform weights of variance ``1 / fan_in``, rounded to single precision."""
    shape = (outputs, inputs, *(3,) * dim)
    bound = math.sqrt(3.0 / (inputs * 3**dim))
    return torch.from_numpy(random.uniform(-bound, bound, size=shape).astype(np.float32))


class AffineCoupling(Layer):
    r"""Update sublattice A by :math:`x_A' = x_A \exp(c\tanh(a(x_B)/c)) + t(x_B)`.

    Args:
        random: source of the conditioner's weights.
        parity: sublattice A.
        clip: bound c on the log-scale.
        dim, channels, width, gain, periodic: see :class:`Conditioner`.
    """

    def __init__(
        self,
        random: np.random.Generator,
        *,
        parity: int,
        clip: float,
        dim: int,
        channels: int,
        width: int,
        gain: float,
        periodic: bool,
    ) -> None:
        super().__init__()
        self.parity = parity
        self.clip = clip
        self.conditioner = Conditioner(random, dim=dim, channels=channels, width=width, gain=gain, periodic=periodic)

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self.conditioner(x * sublattice(x, 1 - self.parity))
        updated = sublattice(x, self.parity)
        return updated * self.clip * torch.tanh(scale / self.clip), updated * shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale_and_shift(x)
        return x * scale.exp() + shift, scale.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale_and_shift(y)
        return (y - shift) * (-scale).exp(), scale.flatten(1).sum(1)


class AdditiveSmoother(Layer):
    r"""Update sublattice A by :math:`x_A' = x_A + g\,\phi\big(\sum_B w_{AB} x_B\big)`.

    The weights :math:`w \propto d^{-p}` run over sites of B within Euclidean distance ``cutoff`` and sum to one;
    :math:`\phi` is tanh, or the identity for the linear smoother. The same kernel acts on every channel.
    """

    def __init__(
        self, *, parity: int, cutoff: int, power: float, gain: float, nonlinear: bool, dim: int, periodic: bool
    ) -> None:
        super().__init__()
        self.parity = parity
        self.gain = gain
        self.nonlinear = nonlinear
        self.periodic = periodic
        self.kernel = ExactBuffer(power_law_kernel(cutoff, power, dim))

    def _update(self, x: Tensor) -> Tensor:
        kernel = self.kernel()
        others = (x * sublattice(x, 1 - self.parity)).flatten(0, 1)[:, None]
        smoothed = _convolve_symmetric(others, kernel[None, None], self.periodic).reshape(x.shape)
        response = torch.tanh(smoothed) if self.nonlinear else smoothed
        return self.gain * response * sublattice(x, self.parity)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + self._update(x), x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y - self._update(y), y.new_zeros(y.shape[0])


def power_law_kernel(cutoff: int, power: float, dim: int) -> Tensor:
    """Weights ``d**-power`` on the other sublattice within Euclidean distance ``cutoff``, summing to one; float64."""
    box = Lattice.cubic(2 * cutoff + 1, dim, periodic=False)
    centre = box.centre()
    distance = box.distance(centre, "euclidean")
    inside = (distance <= cutoff) & (box.distance(centre, "graph") % 2 == 1)
    weights = torch.where(inside, distance.clamp_min(1.0) ** -power, 0.0)
    return weights / weights.sum()


class MeanMode(Layer):
    r"""Add a multiple of the lattice mean: :math:`x' = x + \kappa_L\,\bar x\,\mathbf 1`.

    :math:`\kappa_L = \kappa\,(L/L_0)^\gamma`. With :math:`\kappa_L` of order one the mode would be invisible in a
    relative error, which then decays like :math:`N^{-1/2}`; growing like the side of the lattice in two dimensions
    makes it a genuine obstacle to transfer.

    Args:
        strength: :math:`\kappa`, at the reference size.
        exponent: :math:`\gamma`.
        reference_size: :math:`L_0`, in sites.
    """

    def __init__(self, *, strength: float, exponent: float, reference_size: int) -> None:
        super().__init__()
        self.strength = strength
        self.exponent = exponent
        self.reference_size = reference_size

    def amplitude(self, size: Sequence[int]) -> float:
        """The strength on a lattice of this size (its geometric mean length, if the axes differ).

        Raises:
            OracleError: the map would not be invertible, or would turn the mean's sign.
        """
        length: float = math.prod(size) ** (1 / len(size))
        amplitude: float = self.strength * (length / self.reference_size) ** self.exponent
        if amplitude <= -1:
            raise OracleError(
                "The mean mode is not invertible on this lattice.",
                where=f"mean_mode, lattice {tuple(size)}",
                expected="strength * (size / reference_size) ** exponent above -1",
                got=f"{amplitude:.6g}",
                fix="use a positive strength",
            )
        return amplitude

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        amplitude = self.amplitude(x.shape[2:])
        return x + amplitude * _spatial_mean(x), self._log_det(x, amplitude)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        amplitude = self.amplitude(y.shape[2:])
        return y - amplitude / (1 + amplitude) * _spatial_mean(y), self._log_det(y, amplitude)

    def _log_det(self, x: Tensor, amplitude: float) -> Tensor:
        return x.new_full((x.shape[0],), x.shape[1] * math.log1p(amplitude))


def _spatial_mean(x: Tensor) -> Tensor:
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
