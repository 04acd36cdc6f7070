"""Shell sums of responses that are known up to noise, without the noise floor of absolute values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sizetransfer.domain import Domain, Lattice, Site
from sizetransfer.response import shell_counts, shell_sums


@dataclass(frozen=True)
class Responses:
    """Independent estimates of rows of the smoothed response.

    Attributes:
        rows: shape ``(G, B, P, C, C, *S)``: G independent groups of chains, P reference sites.
        sites: the reference sites.
        domain: where they live.
    """

    rows: Tensor
    sites: tuple[Site, ...]
    domain: Domain

    def shells(self) -> Float[Tensor, "batch distances"]:
        """Sums of ``|J_ij|`` over shells, a mean over sites: the estimate from below, without a noise floor."""
        total = self.rows.sum(0)
        shells = []
        for own in self.rows:
            signed = (own * self._directions(total - own)).sum((2, 3))
            shells.append(self._over_shells(signed))
        return torch.stack(shells).mean(0)

    def squared_shells(self) -> Float[Tensor, "batch distances"]:
        """Sums of ``J_ij**2`` over shells, a mean over sites, unbiased: products of different groups."""
        groups = self.rows.shape[0]
        products = self.rows.sum(0).square() - self.rows.square().sum(0)
        return self._over_shells(products.sum((2, 3)) / (groups * (groups - 1)))

    def counts(self) -> Float[Tensor, "distances"]:
        """Sites on each shell, a mean over reference sites."""
        counts = [shell_counts(self.domain, site) for site in self.sites]
        return torch.stack([_padded(count, max(map(len, counts))) for count in counts]).mean(0)

    def _over_shells(self, values: Tensor) -> Tensor:
        """Mean over sites of shell sums of ``(B, P, *S)``: shape ``(B, D)``."""
        sums = [shell_sums(values[:, p].double(), self.domain, site) for p, site in enumerate(self.sites)]
        width = max(table.shape[1] for table in sums)
        return torch.stack([_padded(table, width) for table in sums]).mean(0)

    def _directions(self, rows: Tensor) -> Tensor:
        """Signs of entries (for blocks, their directions), ``(B, P, C, C, *S)``, from rows of the other groups."""
        if isinstance(self.domain, Lattice) and self.domain.periodic:
            rows = self._mean_over_translations(rows)
        return rows / rows.square().sum((2, 3), keepdim=True).sqrt().clamp_min(torch.finfo(rows.dtype).tiny)

    def _mean_over_translations(self, rows: Tensor) -> Tensor:
        """Mean over fields and over sites of the same sublattice, each row moved to the origin and back."""
        axes = tuple(range(3, 3 + len(self.domain.shape)))
        parities = [sum(site) % 2 for site in self.sites]
        means = {}
        for parity in set(parities):
            moved = [
                rows[:, p].roll([-a for a in site], axes) for p, site in enumerate(self.sites) if parities[p] == parity
            ]
            means[parity] = torch.stack(moved).mean((0, 1))
        at_home = [
            means[parity].roll(site, [axis - 1 for axis in axes])
            for site, parity in zip(self.sites, parities, strict=True)
        ]
        return torch.stack(at_home)[None]


def _padded(values: Tensor, width: int) -> Tensor:
    return F.pad(values, (0, width - values.shape[-1]))
