"""Shell sums of responses that are known up to noise, without the noise floor of absolute values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Lattice, Site
from sizetransfer.numerics.shells import shell_counts, shell_sums


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
        torus = isinstance(self.domain, Lattice) and self.domain.periodic
        departures = self._shrinkage() if torus else None
        shells = []
        for own in self.rows:
            others = (total - own) / (self.rows.shape[0] - 1)
            directions = _directions(others if departures is None else self._shrunk(others, departures))
            shells.append(self._over_shells((own * directions).sum((2, 3))))
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

    def _shrunk(self, others: Tensor, shrinkage: Tensor) -> Tensor:
        """Rows drawn towards their mean over fields and even translations."""
        mean = self._over_translations(others).mean(0)
        return mean + shrinkage * (others - mean)

    def _shrinkage(self) -> Tensor:
        r"""How far one group's departures from the mean row are real, between zero and one, ``(B, P, 1, 1, *S)``.

        :math:`\tau^2/(\tau^2 + \nu^2/(G - 1))` with :math:`\tau^2` the mean product of the departures of different
        groups, :math:`\nu^2` the variance of an entry between groups; both pooled over even translations, entries of a
        block and all *other* fields: a field's own would make noise that agrees by chance look like signal.
        """
        groups, fields = self.rows.shape[:2]
        if fields == 1:
            return torch.zeros_like(self.rows[0, :, :, :1, :1])
        departures = self.rows - torch.stack([self._over_translations(own).mean(0) for own in self.rows])[:, None]
        crossed = (departures.sum(0).square() - departures.square().sum(0)) / (groups * (groups - 1))
        pooled = (self._over_translations(v.sum((2, 3), keepdim=True)) for v in (crossed, self.rows.var(0)))
        signal, noise = (((v.sum(0) - v) / (fields - 1)).clamp_min(0) for v in pooled)
        return signal / (signal + noise / (groups - 1)).clamp_min(torch.finfo(signal.dtype).tiny)

    def _over_translations(self, rows: Tensor) -> Tensor:
        """Mean over sites of the same sublattice, each row moved to the origin and back, field by field."""
        axes = tuple(range(3, 3 + len(self.domain.shape)))
        parities = [sum(site) % 2 for site in self.sites]
        means = {}
        for parity in set(parities):
            moved = [
                rows[:, p].roll([-a for a in site], axes) for p, site in enumerate(self.sites) if parities[p] == parity
            ]
            means[parity] = torch.stack(moved).mean(0)
        at_home = [means[parity].roll(site, axes) for site, parity in zip(self.sites, parities, strict=True)]
        return torch.stack(at_home, 1)


def _directions(rows: Tensor) -> Tensor:
    """Signs of entries; for blocks of several channels, ``(B, P, C, C, *S)``, their directions."""
    return rows / rows.square().sum((2, 3), keepdim=True).sqrt().clamp_min(torch.finfo(rows.dtype).tiny)


def _padded(values: Tensor, width: int) -> Tensor:
    return F.pad(values, (0, width - values.shape[-1]))
