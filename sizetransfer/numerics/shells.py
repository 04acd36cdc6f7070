r"""Sums over the shells of distance around a site: tables of fields by distance, tails and effective ranges.

For sums :math:`a_d` over the shell at distance d, a mean over fields and reference sites,

- the tail :math:`T_R = \sum_{d>R} a_d` (paper eq. (5));
- the effective range :math:`R_\epsilon`, the smallest R with :math:`T_R \le \epsilon\, T_0`.

In a box some sites have no shell at the largest distances: tables are then *ragged*, and a missing shell adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Site
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.numerics.statistics import jackknife


def shell_sums(values: Float[Tensor, "batch *size"], domain: Domain, site: Site) -> Float[Tensor, "batch distances"]:
    """Sum ``values`` over the shells around ``site``: one column a Chebyshev distance, from zero to the largest."""
    distance = domain.distance(site).flatten().to(values.device)
    sums = values.new_zeros(values.shape[0], int(distance.max()) + 1)
    return sums.index_add(1, distance, values.flatten(1))


def shell_counts(domain: Domain, site: Site) -> Float[Tensor, "distances"]:
    """Number of sites on each shell around ``site``."""
    return torch.bincount(domain.distance(site).flatten()).double()


def padded(tables: Sequence[Tensor]) -> list[Tensor]:
    """Tables whose last axes differ in length, as long as the longest, with zeros for missing shells."""
    width = max(table.shape[-1] for table in tables)
    return [F.pad(table, (0, width - table.shape[-1])) for table in tables]


def mean_of_ragged(tables: Sequence[Tensor]) -> Tensor:
    """Mean of tables over reference sites, some of which have no shell at the largest distances."""
    return torch.stack(padded(tables)).mean(0)


@dataclass(frozen=True)
class ResponseProfile:
    """Absolute Jacobian rows summed over shells.

    Attributes:
        sums: mean over draws of the sum of ``|J_ij|`` over the shell at each distance, shape ``(D,)``.
    """

    sums: Float[Tensor, "distances"]

    def tails(self) -> Float[Tensor, "distances"]:
        """T_R for R from zero to the largest distance (paper eq. (5)); the last is zero."""
        beyond = self.sums.flip(0).cumsum(0).flip(0)
        return torch.cat([beyond[1:], beyond.new_zeros(1)])

    def effective_range(self, epsilon: float) -> int:
        """Smallest R with ``T_R <= epsilon * T_0``; zero where nothing responds beyond the site itself."""
        tails = self.tails()
        return int((tails <= epsilon * tails[0]).to(torch.int64).argmax())


def range_of(shells: Float[Tensor, "fields distances"], epsilon: float) -> float:
    """Effective range of the mean over fields."""
    return float(ResponseProfile(shells.mean(0)).effective_range(epsilon))


def effective_range(shells: Float[Tensor, "fields distances"], epsilon: float) -> Quantity:
    """Effective range of the mean over fields, with its jackknife standard error."""
    return jackknife(partial(range_of, epsilon=epsilon), shells)
