r"""Where a field lives: its sites, their distances, and the regions cut out by distance.

Definitions, for a site :math:`i` and an integer :math:`r \ge 0` (paper §2, eq. (4) and (5)):

- ball :math:`B_r(i) = \{j : d(i, j) \le r\}`, what a model of receptive radius :math:`r` sees;
- shell :math:`\{j : d(i, j) = r\}`, over which a response profile is summed;
- bulk of margin :math:`r`: the sites whose ball does not leave an open box (all sites of a torus).

A convolution of width three extends its support by one site in Chebyshev distance, so radii of lattice
students are Chebyshev radii. Graph distance (number of nearest-neighbour steps) and Euclidean distance are
there for message passing and for couplings that decay in space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sizetransfer.errors import OracleError

Site = tuple[int, ...]
Metric = Literal["chebyshev", "graph", "euclidean"]


class Domain(ABC):
    """The sites of a field and the distances between them."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape ``*S`` of one channel of a field."""

    @property
    @abstractmethod
    def sites(self) -> int:
        """Number of sites N."""

    @abstractmethod
    def distance(self, site: Site, metric: Metric = "chebyshev") -> Tensor:
        """Distances from ``site`` to every site, shape ``*S``."""

    @abstractmethod
    def bulk(self, margin: int) -> Tensor:
        """Mask ``*S`` of the sites from which a step count of ``margin`` never leaves the domain."""

    @abstractmethod
    def centre(self) -> Site:
        """A site as far from any boundary as there is one."""

    def ball(self, site: Site, radius: int, metric: Metric = "chebyshev") -> Tensor:
        """Mask ``*S`` of the sites within ``radius`` of ``site``."""
        return self.distance(site, metric) <= radius

    def shell(self, site: Site, radius: int, metric: Metric = "chebyshev") -> Tensor:
        """Mask ``*S`` of the sites at distance ``radius`` of ``site`` (for real distances: in ``(r-1, r]``)."""
        distance = self.distance(site, metric)
        return (distance <= radius) & (distance > radius - 1)


@dataclass(frozen=True)
class Lattice(Domain):
    """A hypercubic lattice of any dimension, periodic (a torus) or open (a box).

    Args:
        size: sites along each axis.
        periodic: whether opposite faces are glued together.

    Raises:
        OracleError: an axis has no sites, or there is no axis.

    Example:
        >>> Lattice((4, 4), periodic=True).shell((0, 0), 1).sum().item()
        8
        >>> Lattice((4, 4), periodic=False).shell((0, 0), 1).sum().item()
        3
    """

    size: tuple[int, ...]
    periodic: bool = True

    def __post_init__(self) -> None:
        if not self.size or any(length < 1 for length in self.size):
            raise OracleError(
                "A lattice needs at least one axis and at least one site along each.",
                where="Lattice(size=...)",
                expected="positive integers",
                got=repr(self.size),
                fix="pass for example Lattice((16, 16))",
            )

    @classmethod
    def cubic(cls, length: int, dim: int, *, periodic: bool) -> Lattice:
        """The lattice with ``length`` sites along each of ``dim`` axes."""
        return cls((length,) * dim, periodic)

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    @property
    def sites(self) -> int:
        return int(torch.tensor(self.size).prod())

    def centre(self) -> Site:
        return tuple(length // 2 for length in self.size)

    def displacement(self, site: Site) -> Tensor:
        """Signed steps from ``site`` to every site along each axis, shape ``(dim, *S)``.

        On a torus the shorter way round is taken; half way round counts as positive.
        """
        self._check(site)
        axes = []
        for length, origin in zip(self.size, site, strict=True):
            steps = torch.arange(length) - origin
            if self.periodic:
                steps = (steps + (length - 1) // 2) % length - (length - 1) // 2
            axes.append(steps)
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def distance(self, site: Site, metric: Metric = "chebyshev") -> Tensor:
        steps = self.displacement(site).abs()
        if metric == "chebyshev":
            return steps.amax(0)
        if metric == "graph":
            return steps.sum(0)
        return steps.double().square().sum(0).sqrt()

    def bulk(self, margin: int) -> Tensor:
        if self.periodic:
            return torch.ones(self.size, dtype=torch.bool)
        return self.wall_distance() > margin

    def wall_distance(self) -> Tensor:
        """Steps from each site to the nearest outside site, shape ``*S``: one next to a wall of a box."""
        axes = [torch.minimum(torch.arange(length) + 1, length - torch.arange(length)) for length in self.size]
        return torch.stack(torch.meshgrid(*axes, indexing="ij")).amin(0)

    def parity(self) -> Tensor:
        """Checkerboard sublattice of each site, 0 or 1, shape ``*S``: the sum of coordinates modulo two."""
        axes = [torch.arange(length) for length in self.size]
        return torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0) % 2

    def _check(self, site: Sequence[int]) -> None:
        inside = len(site) == self.dim and all(0 <= a < n for a, n in zip(site, self.size, strict=True))
        if not inside:
            raise OracleError(
                "The site is not on the lattice.",
                where=f"Lattice{self.size}",
                expected=f"{self.dim} coordinates below {self.size}",
                got=repr(tuple(site)),
                fix="pass one coordinate per axis, counted from zero",
            )


def pad(x: Tensor, width: int, *, periodic: bool) -> Tensor:
    """Extend every axis of ``B C *S`` by ``width`` on both sides.

    On a torus the field continues around it, as often as it takes; outside an open box it is zero.
    """
    dim = x.ndim - 2
    if not periodic:
        return F.pad(x, (width,) * (2 * dim))
    for axis in range(2, x.ndim):
        length = x.shape[axis]
        if width <= length:
            # Faster than torch's circular padding, forwards and backwards, by a factor of about two.
            x = torch.cat([x.narrow(axis, length - width, width), x, x.narrow(axis, 0, width)], dim=axis)
        else:
            x = x.index_select(axis, torch.arange(-width, length + width, device=x.device) % length)
    return x
