r"""The law of the continuous field X given ports and types: a conditional local flow on the occupied sites.

.. math:: X = F_{\rm flow} \circ G \circ F_{\rm pre}(z), \qquad z \sim N(0, I) \text{ on occupied sites}

(paper appendix B.1), with every layer updating the occupied sites of one checkerboard sublattice A from the other, B:

- affine coupling: :math:`x_A' = x_A\,e^{c\tanh(a/c)} + t`, where a and t come from a local network that sees
  :math:`x_B` and embeddings of ports and types; log-determinant :math:`\sum_A c\tanh(a/c)`;
- additive smoother: :math:`x_A' = x_A + g\,\phi(\bar x_B) + h(x_B)`, where
  :math:`\bar x_{B,i} = \sum_j w_{ij} x_j / \sum_j w_{ij}` runs over occupied j within a Euclidean cutoff,
  :math:`w \propto d^{-p}`, and h is an optional bounded local correction; log-determinant zero.

Empty sites keep a field of exactly zero. The rule knows the box only through its walls, beyond which there is nothing.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizetransfer.numerics.layers import ExactBuffer, SymmetricConvolution, power_law_kernel, sublattice
from sizetransfer.systems.hard_valid.directions import CODES
from sizetransfer.systems.hard_valid.validity import ValidState

SHIFTS = [(-c, c, -b, b, -a, a) for a, b, c in itertools.product((-1, 0, 1), repeat=3)]
"""Paddings that move a field by one step or none along each axis: site i takes the value of i + (a, b, c), or zero."""

# Sites of the other sublattice that a local network finds occupied among its 27, in a box of a third occupied.
_LIVE_INPUTS = 4


@dataclass(frozen=True, eq=False)
class Given:
    """Ports and types in the form in which the layers read them.

    Attributes:
        live: one on occupied sites and zero elsewhere, ``B 1 *S``.
        embedding: embeddings of ports and types, ``B E *S``.
        kernel: weights of the smoother, ``1 1 *K``.
    """

    live: Tensor
    embedding: Tensor
    kernel: Tensor

    @cached_property
    def inverse_weight(self) -> Tensor:
        """One over the weight of the occupied sites that the kernel sees, zero where there are none; ``B 1 *S``."""
        weight = convolve(self.live, self.kernel)
        return torch.where(weight > 0, 1 / weight.clamp_min(torch.finfo(weight.dtype).tiny), 0.0)

    def rows(self, index: slice) -> Given:
        """Some rows of the batch."""
        return Given(self.live[index], self.embedding[index], self.kernel)


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve every channel of ``B C *S`` with one even kernel ``1 1 *K``, zeros beyond the walls."""
    flat = x.flatten(0, 1)[:, None]
    result: Tensor = SymmetricConvolution.apply(flat, kernel, False)  # type: ignore[no-untyped-call]
    return result.reshape(x.shape)


class LocalNetwork(nn.Module):
    r"""Conditioner: :math:`h = \tanh(W x + V e)`, then :math:`U h`; W and U are convolutions of width three.

    Both convolutions have few channels on one side, and are matrix products of all shifts of the field: several times
    faster, in double precision above all, than torch's convolutions in three dimensions.

    Args:
        random: source of the weights.
        channels: of the field x, C.
        outputs: of the network.
        width: of the hidden layer h.
        embedding: channels of the embedding e, which enters site by site.
        gain: factor of the outputs.
    """

    def __init__(
        self,
        random: np.random.Generator,
        *,
        channels: int,
        outputs: int,
        width: int,
        embedding: int,
        gain: float,
    ) -> None:
        super().__init__()
        self.gain = gain
        of_field = draw(random, (width, 27 * channels), _LIVE_INPUTS * channels)
        self.register_buffer("inner", torch.cat([of_field, draw(random, (width, embedding), embedding)], dim=1))
        self.register_buffer("outer", draw(random, (27 * outputs, width), 27 * width))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Field ``B C *S`` and embedding ``B E *S`` to ``B outputs *S``."""
        inputs = torch.cat([*(F.pad(x, shift) for shift in SHIFTS), embedding], dim=1)
        hidden = torch.tanh(self.get_buffer("inner") @ inputs.flatten(2))
        parts = (self.get_buffer("outer") @ hidden).reshape(len(x), 27, -1, *x.shape[2:]).unbind(1)
        shifted = [F.pad(part, shift) for part, shift in zip(parts, SHIFTS, strict=True)]
        return self.gain * torch.stack(shifted).sum(0)


def draw(random: np.random.Generator, shape: Sequence[int], fan_in: int) -> Tensor:
    """Uniform weights of variance ``1 / fan_in``, rounded to single precision."""
    bound = math.sqrt(3.0 / fan_in)
    return torch.from_numpy(random.uniform(-bound, bound, size=tuple(shape)).astype(np.float32))


class ConditionalLayer(nn.Module, ABC):
    """An invertible map of fields, given ports and types, with a known log-determinant."""

    @abstractmethod
    def forward(self, x: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        """Return the image and ``log |det|`` of the forward map on occupied sites at ``x``, shape ``(B,)``."""

    @abstractmethod
    def inverse(self, y: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        """Return the preimage ``x`` and ``log |det|`` of the *forward* map at ``x``, shape ``(B,)``."""


class ConditionalCoupling(ConditionalLayer):
    r"""Update the occupied sites of sublattice A by :math:`x_A' = x_A \exp(c\tanh(a/c)) + t`.

    Args:
        network: gives scale a and shift t, ``B 2C *S``.
        parity: sublattice A.
        clip: bound c on the log-scale.
    """

    def __init__(self, network: LocalNetwork, *, parity: int, clip: float) -> None:
        super().__init__()
        self.network = network
        self.parity = parity
        self.clip = clip

    def _scale_and_shift(self, x: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        scale, shift = self.network(x * sublattice(x, 1 - self.parity), given.embedding).chunk(2, dim=1)
        updated = sublattice(x, self.parity) * given.live
        return updated * self.clip * torch.tanh(scale / self.clip), updated * shift

    def forward(self, x: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale_and_shift(x, given)
        return x * scale.exp() + shift, scale.flatten(1).sum(1)

    def inverse(self, y: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale_and_shift(y, given)
        return (y - shift) * (-scale).exp(), scale.flatten(1).sum(1)


class OccupiedSmoother(ConditionalLayer):
    r"""Update the occupied sites of sublattice A by :math:`x_A' = x_A + g\,\phi(\bar x_B) + h(x_B)`.

    Args:
        parity: sublattice A.
        gain: g.
        nonlinear: whether :math:`\phi` is tanh, or the identity.
        correction: gives h before a tanh bounds it, ``B C *S``; or none.
    """

    def __init__(self, *, parity: int, gain: float, nonlinear: bool, correction: LocalNetwork | None) -> None:
        super().__init__()
        self.parity = parity
        self.gain = gain
        self.nonlinear = nonlinear
        self.correction = correction

    def _update(self, x: Tensor, given: Given) -> Tensor:
        others = x * sublattice(x, 1 - self.parity)
        mean = convolve(others, given.kernel) * given.inverse_weight
        update = self.gain * (torch.tanh(mean) if self.nonlinear else mean)
        if self.correction is not None:
            update = update + torch.tanh(self.correction(others, given.embedding))
        return update * sublattice(x, self.parity) * given.live

    def forward(self, x: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        return x + self._update(x, given), x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        return y - self._update(y, given), y.new_zeros(y.shape[0])


class FieldLaw(nn.Module):
    """The conditional flow: couplings, smoother, couplings (see the module's formula).

    Args:
        layers: in the order in which they act on the latent field.
        random: draws the embeddings.
        embedding: channels of the embeddings.
        count: number of types T.
        cutoff: Euclidean reach of the smoother, in lattice steps.
        power: its weights decay as ``distance ** -power``.
    """

    def __init__(
        self,
        layers: Sequence[ConditionalLayer],
        random: np.random.Generator,
        *,
        embedding: int,
        count: int,
        cutoff: int,
        power: float,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.register_buffer("of_ports", draw(random, (CODES, embedding), 2))
        self.register_buffer("of_types", draw(random, (count + 1, embedding), 2))
        self.kernel = ExactBuffer(power_law_kernel(cutoff, power, 3)[None, None])

    def given(self, state: ValidState) -> Given:
        """Ports and types as the layers read them, with the law's dtype and device."""
        kernel = self.kernel()
        codes, types = state.ports.codes.to(kernel.device), state.types.to(kernel.device)
        embedding = self.get_buffer("of_ports")[codes] + self.get_buffer("of_types")[types]
        return Given((codes != 0)[:, None].to(kernel), embedding.movedim(-1, 1).contiguous(), kernel)

    def forward(self, z: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        """Latent fields, zero on empty sites, to fields; with ``log |det dx/dz|`` on occupied sites, ``(B,)``."""
        total = z.new_zeros(z.shape[0])
        for layer in self.layers:
            z, log_det = layer(z, given)
            total = total + log_det
        return z, total

    def inverse(self, x: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        """Fields, zero on empty sites, to latent fields; with ``log |det dx/dz|`` on occupied sites, ``(B,)``."""
        total = x.new_zeros(x.shape[0])
        for layer in reversed(self.layers):
            if isinstance(layer, ConditionalLayer):
                x, log_det = layer.inverse(x, given)
                total = total + log_det
        return x, total


def latent_log_density(z: Tensor, live: Tensor) -> Tensor:
    """Log-density of a standard normal field on the occupied sites, ``(B,)``."""
    components = z.shape[1] * live.flatten(1).sum(1)
    return -0.5 * z.square().flatten(1).sum(1) - 0.5 * math.log(2 * math.pi) * components
