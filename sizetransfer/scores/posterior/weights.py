r"""The weight of the clean score in :math:`f = W s_0(X_0) + (1 - W)(X_0 - x)/v`: a number, or a filter.

f is :math:`T + W S` with :math:`T = (X_0 - x)/v` and the posterior's own score :math:`S = s_0 - T`, whose mean is zero:
a control variate. Its best coefficient is that of a regression, :math:`W = -\operatorname{Cov}(T, S)
\operatorname{Cov}(S, S)^{-1}`, which integration by parts turns into :math:`(1 + v\,E[-H])^{-1}`, a symmetric matrix.
On a torus it is sought among the matrices that commute with *even* translations, as the laws of checkerboard flows do:
blocks of two that mix the modes k and :math:`k + (\pi, \ldots, \pi)`. Where a side is odd there are no sublattices, and
W is a plain filter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Lattice, Site


@dataclass(frozen=True)
class Weights:
    """One symmetric matrix W for every field, the same for channels: a multiple of one, or blocks in Fourier space.

    Attributes:
        gains: shape ``(B,)``, or ``(B, *S, s)`` on the grid of ``torch.fft.fftn``: mode k of ``W y`` is
            ``gains[k, 0] * y[k]``, plus ``gains[k, 1] * y[k + (pi, ..., pi)]`` where s is two.
        size: shape ``*S`` of one channel.
    """

    gains: Tensor
    size: tuple[int, ...]

    def apply(self, values: Tensor, *, batch_axis: int) -> Tensor:
        """W times fields, whose last axes are ``*S`` and whose fields are numbered along ``batch_axis``."""
        between = (1,) * (values.ndim - batch_axis - 1 - len(self.size))
        if self.gains.ndim == 1:
            return values * self.gains.to(values).reshape(-1, *between, *(1,) * len(self.size))
        gains = self.gains.to(device=values.device, dtype=torch.promote_types(values.dtype, torch.complex64))
        gains = gains.reshape(-1, *between, *gains.shape[1:])
        axes = tuple(range(values.ndim - len(self.size), values.ndim))
        product = (gains * _modes(values, self.size, gains.shape[-1])).sum(-1)
        result: Tensor = torch.fft.ifftn(product, dim=axes).real
        return result

    def complement(self) -> Weights:
        """1 - W."""
        if self.gains.ndim == 1:
            return Weights(1 - self.gains, self.size)
        one = torch.zeros_like(self.gains)
        one[..., 0] = 1
        return Weights(one - self.gains, self.size)

    def row(self, site: Site) -> Tensor:
        """Row of W at a site, shape ``(B, *S)``."""
        delta = torch.zeros(self.gains.shape[0], *self.size, dtype=torch.float64, device=self.gains.device)
        index: tuple[slice | int, ...] = (slice(None), *site)
        delta[index] = 1.0
        return self.apply(delta, batch_axis=0)

    def vanish(self) -> bool:
        """Whether W is zero, so that no clean score is needed."""
        return not bool(self.gains.any())


def best_weights(draws: Tensor, scores: Tensor, v: Tensor, domain: Domain) -> Weights:
    """Weights of least variance, by regression pooled over the fields of one noise level.

    Args:
        draws: clean fields, ``(n, B, K, C, *S)``, as deviations from the posterior mean of their field.
        scores: their clean scores, likewise, of the same shape.
        v: variances of the noise, ``(B,)``.
        domain: where the fields live.
    """
    shape = domain.shape
    tweedie = draws / v.reshape(1, -1, *(1,) * (draws.ndim - 2))
    own = scores - tweedie
    torus = isinstance(domain, Lattice) and domain.periodic
    blocks = 2 if all(length % 2 == 0 for length in shape) else 1
    gains: list[Tensor] = [torch.empty(0)] * len(v)
    for level in sorted(set(v.tolist())):
        fields = (v == level).nonzero().flatten().tolist()
        a, b = tweedie[:, fields], own[:, fields]
        slope = _filter(a, b, shape, blocks) if torus else -(a * b).sum() / b.square().sum()
        for field in fields:
            gains[field] = slope
    return Weights(torch.stack(gains), shape)


def _filter(tweedie: Tensor, own: Tensor, size: tuple[int, ...], blocks: int) -> Tensor:
    """First rows of the blocks of ``-Cov(T, S) Cov(S, S)^-1``, made Hermitian: shape ``(*S, s)``."""
    t, s = (_modes(values, size, blocks).flatten(0, 3).movedim(0, -1) for values in (tweedie, own))
    slope = -(t @ s.mH) @ torch.linalg.inv(s @ s.mH)
    hermitian: Tensor = 0.5 * (slope + slope.mH)
    return hermitian[..., 0, :]


def _modes(values: Tensor, size: tuple[int, ...], blocks: int) -> Tensor:
    """Fourier modes of fields, ``(..., *S, s)``: those at k and, where s is two, those at k + (pi, ..., pi)."""
    axes = tuple(range(values.ndim - len(size), values.ndim))
    signs = (1 - 2 * Lattice(size).parity()).to(values)
    modes = [torch.fft.fftn(part, dim=axes) for part in (values, values * signs)[:blocks]]
    return torch.stack(modes, -1)
