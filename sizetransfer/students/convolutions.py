"""Local layers that convolutional students share: what acts on a neighbourhood, by the same rule at every size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizetransfer.contracts.domain import pad
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.noise import fourier_features
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.students.conditions import condition_channels

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def require_dimension(kind: str, field: FieldInfo) -> None:
    """Refuse a field of more than three dimensions.

    Raises:
        SpecError: torch has no convolution for it.
    """
    if field.dim not in CONVOLUTIONS:
        raise SpecError(
            f"The student {kind!r} is there for one to three dimensions.",
            where=f"student of kind {kind!r}, field.dim",
            expected=f"one of {', '.join(map(str, CONVOLUTIONS))}",
            got=str(field.dim),
            fix="choose a teacher of fewer dimensions",
        )


class Convolution(nn.Module):
    """A convolution of width three on the field's lattice: circular along its closed axes, with zeros beyond walls."""

    def __init__(self, field: FieldInfo, inputs: int, outputs: int) -> None:
        super().__init__()
        self.closed = field.closed_axes
        self.linear: nn.Module = CONVOLUTIONS[field.dim](inputs, outputs, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(pad(x, 1, periodic=self.closed))
        return result

    def zero(self) -> Convolution:
        """Set weights and bias to zero and return the layer: the output layer of a preconditioned student."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        return self


class ResidualBlock(nn.Module):
    """Two convolutions around a shortcut, modulated channel by channel by the noise level; reach two."""

    def __init__(self, field: FieldInfo, width: int) -> None:
        super().__init__()
        self.first = Convolution(field, width, width)
        self.second = Convolution(field, width, width)
        self.modulation = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        scale, shift = self.modulation(noise).chunk(2, dim=1)
        hidden = self.first(F.silu(x))
        hidden = hidden * (1 + trailing(scale, x)) + trailing(shift, x)
        update: Tensor = self.second(F.silu(hidden))
        return x + update


class NoiseEmbedding(nn.Module):
    """The noise level as ``features`` numbers for every field of the batch."""

    def __init__(self, frequencies: int, features: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.network = nn.Sequential(nn.Linear(2 * frequencies, features), nn.SiLU())

    def forward(self, sigma: Tensor) -> Tensor:
        result: Tensor = self.network(fourier_features(sigma, self.frequencies))
        return result


def trailing(values: Tensor, like: Tensor) -> Tensor:
    """Give ``(B, C)`` trailing axes of length one so that it multiplies ``like`` of shape ``B C *S``."""
    return values.reshape(*values.shape, *(1,) * (like.ndim - 2))


def input_channels(field: FieldInfo, conditions: int) -> int:
    """How many channels :func:`inputs` gives."""
    return field.channels + conditions + (not field.periodic)


def inputs(x: Tensor, context: Context, field: FieldInfo, conditions: int) -> Tensor:
    """The field on live sites, the condition and, where there are walls, a channel of ones that ends at them."""
    channels: Sequence[Tensor] = [
        x if context.mask is None else x * context.mask,
        *condition_channels(context, conditions, like=x),
        *([] if field.periodic else [torch.ones_like(x[:, :1])]),
    ]
    return torch.cat(list(channels), dim=1)
