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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sizetransfer.contracts.boundaries import axes_closed, wrong_axes
from sizetransfer.contracts.errors import OracleError

Site = tuple[int, ...]
Patch = Sequence[Site | tuple[Site, int]]
"""Sites of a patch A, with all their channels; or pairs of a site and one channel of it. All different."""
Metric = Literal["chebyshev", "graph", "euclidean"]


@dataclass(frozen=True)
class SizeWords:
    """How sizes and distances are called.

    Attributes:
        symbol: the letter of a size.
        counts: what a size is the number of.
        steps: what a distance is the number of.
    """

    symbol: str
    counts: str
    steps: str

    @property
    def axis(self) -> str:
        """Label of an axis of sizes."""
        return {
            "L": "lattice size $L$ (sites along an axis)",
            "N": "size of the graph $N$ (sites)",
        }.get(self.symbol, f"size ({self.counts})")


LATTICE_WORDS = SizeWords("L", "sites along an axis", "lattice steps")
GRAPH_WORDS = SizeWords("N", "sites", "hops")
MIXED_WORDS = SizeWords("size", "sites along an axis of a lattice, or of a graph", "lattice steps, or hops")


def size_words(geometries: Iterable[str]) -> SizeWords:
    """The words for fields of these geometries (``FieldInfo.geometry``).

    Example:
        >>> size_words(["graph"]).symbol
        'N'
    """
    found = set(geometries)
    return MIXED_WORDS if len(found) > 1 else GRAPH_WORDS if found == {"graph"} else LATTICE_WORDS


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

    def counted(self, radius: int | None) -> Tensor | None:
        """Mask ``*S`` of the sites that count for a score of this receptive radius, or none where all do.

        Not all do in a crop alone, where what lies within a site's radius may be unknown.
        """
        return None

    def ball(self, site: Site, radius: int, metric: Metric = "chebyshev") -> Tensor:
        """Mask ``*S`` of the sites within ``radius`` of ``site``."""
        return self.distance(site, metric) <= radius

    def shell(self, site: Site, radius: int, metric: Metric = "chebyshev") -> Tensor:
        """Mask ``*S`` of the sites at distance ``radius`` of ``site`` (for real distances: in ``(r-1, r]``)."""
        distance = self.distance(site, metric)
        return (distance <= radius) & (distance > radius - 1)


@dataclass(frozen=True)
class Lattice(Domain):
    """A hypercubic lattice of any dimension: periodic (a torus), open (a box), or closed along some axes (a cylinder).

    Args:
        size: sites along each axis.
        periodic: whether all opposite faces are glued together.
        closed: the axes that are, where they are some and not all; ``periodic`` is false then.
        crop: an open box cut out of a larger field: what lies beyond its sides is not known.

    Raises:
        OracleError: an axis has no sites, there is no axis, or ``closed`` or ``crop`` does not fit.

    Example:
        >>> Lattice((4, 4), periodic=True).shell((0, 0), 1).sum().item()
        8
        >>> Lattice((4, 4), periodic=False).shell((0, 0), 1).sum().item()
        3
    """

    size: tuple[int, ...]
    periodic: bool = True
    closed: tuple[bool, ...] | None = None
    crop: bool = False

    def __post_init__(self) -> None:
        problem = wrong_axes(self.periodic, self.closed, len(self.size))
        if self.crop and any(self.closed_axes):
            raise OracleError(
                "A crop has open sides along every axis.",
                where=f"Lattice({self.size}, crop=True)",
                expected="periodic = False, and no closed axes",
                got=f"closed = {self.closed}, periodic = {self.periodic}",
                fix="leave crop out where the field is whole",
            )
        if problem is not None:
            raise OracleError(
                "The closed axes do not fit the lattice.",
                where=f"Lattice({self.size}, closed=...)",
                expected=problem,
                got=f"closed = {self.closed}, periodic = {self.periodic}",
                fix="leave closed out where all axes are alike, and set periodic",
            )
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

    def __eq__(self, other: object) -> bool:
        """Whether the other is a lattice of the same sites and closed axes, by whatever name."""
        if not isinstance(other, Lattice):
            return NotImplemented
        return (self.size, self.closed_axes, self.crop) == (other.size, other.closed_axes, other.crop)

    def __hash__(self) -> int:
        return hash((self.size, self.closed_axes, self.crop))

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.size)

    @property
    def closed_axes(self) -> tuple[bool, ...]:
        """For each axis, whether its two faces are glued together."""
        return axes_closed(self.periodic, self.closed, self.dim)

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

        Along a closed axis the shorter way round is taken; half way round counts as positive.
        """
        self._check(site)
        axes = []
        for length, origin, closed in zip(self.size, site, self.closed_axes, strict=True):
            steps = torch.arange(length) - origin
            if closed:
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

    def counted(self, radius: int | None) -> Tensor | None:
        """See :meth:`Domain.counted`.

        Raises:
            OracleError: a score without a radius, for which no site of a crop counts.
        """
        if not self.crop:
            return None
        if radius is None:
            raise OracleError(
                "A score without a radius sees beyond the sides of every crop, where the field is not known.",
                where=f"Lattice({self.size}, crop=True)",
                expected="a student with a receptive radius",
                got="a global student",
                fix="take a student with a radius, or fields whose boundary is periodic or walls",
            )
        return self.bulk(radius)

    def wall_distance(self) -> Tensor:
        """Steps from each site to the nearest outside site, shape ``*S``: one next to a wall.

        A torus has none: the steps are those of the box that it is cut open to.
        """
        steps = [torch.minimum(torch.arange(length) + 1, length - torch.arange(length)) for length in self.size]
        axes = torch.stack(torch.meshgrid(*steps, indexing="ij"))
        walls = [axis for axis, closed in enumerate(self.closed_axes) if not closed]
        return axes[walls or slice(None)].amin(0)

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


@dataclass(frozen=True, eq=False)
class Graph(Domain):
    """Sites joined by undirected edges: an irregular or off-lattice system; fields on it have ``*S = (N,)``.

    Distances count hops along edges, and so do the radii of graph students: ``chebyshev``, the metric of receptive
    radii, and ``graph`` are the same here. A graph has no walls, so its bulk is all of it.

    Args:
        count: number of sites N.
        edges: pairs of sites, integers of shape ``(E, 2)``, each pair once and in either order.
        positions: coordinates of the sites, shape ``(N, D)``, or none.
        box: period of every coordinate, or none for an open space.

    Raises:
        OracleError: no sites or edges, an edge that leaves the graph, joins a site to itself or comes twice, a site
            that no edges lead to, or positions that do not fit.

    Example:
        >>> Graph(4, torch.tensor([[0, 1], [1, 2], [2, 3]])).distance((0,)).tolist()
        [0, 1, 2, 3]
    """

    count: int
    edges: Tensor
    positions: Tensor | None = None
    box: float | None = None

    def __post_init__(self) -> None:
        _check_edges(self.count, self.edges)
        positions = self.positions
        if positions is not None and (positions.ndim != 2 or len(positions) != self.count):
            raise OracleError(
                "The positions do not fit the graph.",
                where="Graph(positions=...)",
                expected=f"shape ({self.count}, D)",
                got=f"shape {tuple(positions.shape)}",
                fix="give one row of coordinates for every site",
            )
        hops = self.distance((0,))
        if (hops < 0).any():
            far = (hops < 0).nonzero().flatten().tolist()
            raise OracleError(
                "The graph is not connected.",
                where="Graph(edges=...)",
                expected="a path of edges between any two sites",
                got=f"{len(far)} of {self.count} sites that no path joins to site 0: {far[:8]}",
                fix="add edges, raise the cutoff, or treat the components as graphs of their own",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count,)

    @property
    def sites(self) -> int:
        return self.count

    @cached_property
    def directed_edges(self) -> Tensor:
        """Both directions of every edge, integers of shape ``(2, 2E)``: sources above, targets below."""
        return torch.cat([self.edges, self.edges.flip(1)]).T.contiguous()

    @cached_property
    def laplacian(self) -> Tensor:
        """Degrees on the diagonal, -1 at the edges: shape ``(N, N)``, float64."""
        sources, targets = self.directed_edges
        adjacency = torch.zeros(self.count, self.count, dtype=torch.float64, device=sources.device)
        adjacency[sources, targets] = 1
        return torch.diag(adjacency.sum(1)) - adjacency

    def displacement(self, site: Site) -> Tensor:
        """Vectors from ``site`` to every site, shape ``(D, N)``; the shorter way round in a periodic box.

        Raises:
            OracleError: the graph has no positions.
        """
        self._check(site)
        if self.positions is None:
            raise OracleError(
                "Sites of this graph have no positions.",
                where="Graph, metric 'euclidean'",
                expected="Graph(positions=...)",
                fix="measure in hops, with the metric 'graph', or give positions",
            )
        return shorter_way(self.positions - self.positions[site[0]], self.box).T

    def distance(self, site: Site, metric: Metric = "chebyshev") -> Tensor:
        self._check(site)
        if metric == "euclidean":
            return self.displacement(site).double().square().sum(0).sqrt()
        sources, targets = self.directed_edges
        hops = torch.full((self.count,), -1, dtype=torch.int64, device=sources.device)
        hops[site[0]] = 0
        for step in range(self.count):
            reached = targets[hops[sources] == step]
            fresh = reached[hops[reached] < 0]
            if not len(fresh):
                break
            hops[fresh] = step + 1
        return hops

    def bulk(self, margin: int) -> Tensor:
        return torch.ones(self.count, dtype=torch.bool)

    def centre(self) -> Site:
        if self.positions is None or self.box is not None:
            return (0,)
        return (int((self.positions - self.positions.mean(0)).square().sum(1).argmin()),)

    def _check(self, site: Sequence[int]) -> None:
        if len(site) != 1 or not 0 <= site[0] < self.count:
            raise OracleError(
                "The site is not in the graph.",
                where=f"Graph of {self.count} sites",
                expected=f"one number below {self.count}",
                got=repr(tuple(site)),
                fix="pass (i,) with i counted from zero",
            )


def _check_edges(count: int, edges: Tensor) -> None:
    shaped = edges.ndim == 2 and edges.shape[1] == 2 and not edges.is_floating_point()
    if count < 1 or not shaped or (not len(edges) and count > 1):
        raise OracleError(
            "The graph is empty.",
            where="Graph(count=..., edges=...)",
            expected="at least one site, and integers of shape (E, 2) that join all sites",
            got=f"{count} sites, edges of shape {tuple(edges.shape)} and type {edges.dtype}",
            fix="add edges, or raise the cutoff",
        )
    key = edges.amin(1) * count + edges.amax(1) if len(edges) else edges.new_zeros(0)
    order = key.argsort(stable=True)
    repeated = torch.zeros_like(key, dtype=torch.bool)
    repeated[order[1:]] = key[order[1:]] == key[order[:-1]]
    wrong = {
        "leaves the graph": ((edges < 0) | (edges >= count)).any(1),
        "joins a site to itself": edges[:, 0] == edges[:, 1],
        "comes more than once": repeated,
    }
    for problem, where in wrong.items():
        if where.any():
            index = int(where.nonzero()[0])
            raise OracleError(
                f"An edge {problem}.",
                where=f"edges[{index}] of a graph of {count} sites",
                expected="pairs of different sites, each pair once",
                got=str(edges[index].tolist()),
                fix="drop or change this edge",
            )


def shorter_way(vectors: Tensor, box: float | None) -> Tensor:
    """Displacements in a periodic box (``None``: in open space), each the shorter way round."""
    return vectors if box is None else vectors - box * (vectors / box).round()


def edges_within(positions: Tensor, cutoff: float, box: float | None = None) -> Tensor:
    """Pairs of sites closer than ``cutoff``, integers of shape ``(E, 2)``, the smaller index first.

    Args:
        positions: shape ``(N, D)``.
        cutoff: Euclidean distance, in units of the positions.
        box: period of every coordinate, or none for an open space.
    """
    rows = []
    for start in range(0, len(positions), 256):
        block = positions[start : start + 256]
        near = shorter_way(block[:, None] - positions, box).square().sum(2) < cutoff**2
        rows.append(near.nonzero() + torch.tensor([start, 0], device=positions.device))
    pairs = torch.cat(rows)
    return pairs[pairs[:, 0] < pairs[:, 1]]


def pad(x: Tensor, width: int, *, periodic: bool | Sequence[bool]) -> Tensor:
    """Extend every axis of ``B C *S`` by ``width`` on both sides.

    Along a closed axis the field continues around it, as often as it takes; beyond an open end it is zero.

    Args:
        x: the field.
        width: sites on each side.
        periodic: whether the axes are closed, all alike or one by one.
    """
    dim = x.ndim - 2
    closed = (periodic,) * dim if isinstance(periodic, bool) else tuple(periodic)
    if not any(closed):
        return F.pad(x, (width,) * (2 * dim))
    for axis, around in enumerate(closed, start=2):
        length = x.shape[axis]
        if not around:
            x = F.pad(x, (*(0, 0) * (x.ndim - 1 - axis), width, width))
        elif width <= length:
            # Faster than torch's circular padding, forwards and backwards, by a factor of about two.
            x = torch.cat([x.narrow(axis, length - width, width), x, x.narrow(axis, 0, width)], dim=axis)
        else:
            x = x.index_select(axis, torch.arange(-width, length + width, device=x.device) % length)
    return x
