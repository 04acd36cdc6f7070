r"""The weight of the clean score in :math:`f = W s_0(X_0) + (1 - W)(X_0 - x)/v`: a number, or a filter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sizetransfer.domain import Domain, Lattice, Site


@dataclass(frozen=True)
class Weights:
    """One symmetric matrix W for every field: a multiple of one, or diagonal in Fourier space; the same for channels.

    Attributes:
        gains: shape ``(B,)``, or ``(B, *modes)`` on the grid of ``torch.fft.rfftn``.
        size: shape ``*S`` of one channel.
    """

    gains: Tensor
    size: tuple[int, ...]

    def apply(self, values: Tensor, *, batch_axis: int) -> Tensor:
        """W times fields, whose last axes are ``*S`` and whose fields are numbered along ``batch_axis``."""
        gains = self.gains.to(values)
        if gains.ndim == 1:
            return values * gains.reshape(-1, *(1,) * (values.ndim - batch_axis - 1))
        dim = len(self.size)
        axes = tuple(range(values.ndim - dim, values.ndim))
        gains = gains.reshape(-1, *(1,) * (values.ndim - batch_axis - 1 - dim), *gains.shape[1:])
        filtered: Tensor = torch.fft.irfftn(torch.fft.rfftn(values, dim=axes) * gains, s=self.size, dim=axes)
        return filtered

    def complement(self) -> Weights:
        """1 - W."""
        return Weights(1 - self.gains, self.size)

    def row(self, site: Site) -> Tensor:
        """Row of W at a site, shape ``(B, *S)``."""
        delta = self.gains.new_zeros(self.gains.shape[0], *self.size)
        index: tuple[slice | int, ...] = (slice(None), *site)
        delta[index] = 1.0
        return self.apply(delta, batch_axis=0)


def best_weights(draws: Tensor, scores: Tensor, v: Tensor, domain: Domain) -> Weights:
    """Weights ``1 / (1 + v h)``, mode by mode on a torus, with ``-h`` the slope of the clean score against the field.

    Args:
        draws: clean fields, ``(n, B, K, C, *S)``, as deviations from the posterior mean of their field.
        scores: their clean scores, of the same shape; the slopes are pooled over all fields.
        v: variances of the noise, ``(B,)``.
        domain: where the fields live.
    """
    size = domain.shape
    if not (isinstance(domain, Lattice) and domain.periodic):
        slope = -(draws * scores).sum() / draws.square().sum()
        return Weights(1 / (1 + v * slope.clamp_min(0)), size)
    axes = tuple(range(draws.ndim - len(size), draws.ndim))
    fields, forces = torch.fft.rfftn(draws, dim=axes), torch.fft.rfftn(scores, dim=axes)
    slopes = -(fields.conj() * forces).real.flatten(0, 3).sum(0) / fields.abs().square().flatten(0, 3).sum(0)
    return Weights(1 / (1 + v.reshape(-1, *(1,) * len(size)) * slopes.clamp_min(0)), size)
