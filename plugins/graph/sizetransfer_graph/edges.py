r"""Who hears whom: the directed edges of a domain, with the vector from each site to its neighbour.

On a graph they are the graph's edges, in both directions. On a lattice they join all sites at Chebyshev distance one,
:math:`3^d - 1` of them, so that a layer of messages extends the support as a convolution of width three does, by one
step in the metric of receptive radii. On a torus of one or two sites an axis the same neighbour comes in from several
sides, as it does under circular padding. In an open box sites at the wall have fewer neighbours.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Graph, Lattice, shorter_way
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.specs import FieldInfo

EDGES_AT_A_TIME = 2**18
"""Messages, counted over the batch, that are in memory at a time where no gradient is wanted."""


@dataclass(frozen=True)
class Edges:
    """Directed edges of a domain.

    Attributes:
        index: sources above, targets below, as flat site numbers.
        vectors: displacements from target to source, one row for each kind of edge, in units of the positions.
        kind: row of ``vectors`` that belongs to each edge; none where every edge has a row of its own.
    """

    index: Int[Tensor, "2 edges"]
    vectors: Float[Tensor, "kinds dim"]
    kind: Int[Tensor, "edges"] | None = None

    def parts(self, batch: int) -> Iterator[tuple[Tensor, Tensor | slice]]:
        """The edges, in pieces small enough for the memory where no gradient is wanted.

        Args:
            batch: fields that send messages along each edge.

        Yields:
            Columns of ``index``, and what selects their rows from a table with a row for each kind.
        """
        count = self.index.shape[1]
        length = count if torch.is_grad_enabled() else max(1, EDGES_AT_A_TIME // max(1, batch))
        for start in range(0, count, length):
            piece = slice(start, start + length)
            yield self.index[:, piece], piece if self.kind is None else self.kind[piece]


def edges_of(domain: Domain, field: FieldInfo, *, like: Tensor, positions: bool) -> Edges:
    """The edges of a domain, kept for the next call for as long as the domain lives.

    Args:
        domain: the lattice or the graph.
        field: the fields that a student was built for.
        like: a tensor with the dtype and device.
        positions: whether a graph must have positions; else the vectors of one that has none are zero.

    Raises:
        OracleError: the domain is not of the field's geometry, a graph has positions in another space or none where
            they are needed, or a site has no neighbour.
    """
    _check(domain, field, positions=positions)
    if isinstance(domain, Lattice):
        return _lattice_edges(domain, like.dtype, like.device)
    return _graph_edges(cast(Graph, domain), field.dim, like)


def neighbours(field: FieldInfo) -> int:
    """Neighbours of a site in the bulk of a lattice of the field's dimension; sums over edges are scaled by them."""
    return int(3**field.dim) - 1


def _check(domain: Domain, field: FieldInfo, *, positions: bool) -> None:
    lattice = isinstance(domain, Lattice) and domain.closed_axes == field.closed_axes
    if not (lattice if field.geometry == "lattice" else isinstance(domain, Graph)):
        raise OracleError(
            "The domain is not of the sort that the student was built for.",
            where="Context.domain",
            expected=f"a {field.geometry} of dimension {field.dim}, closed axes {field.closed_axes}",
            got=f"{type(domain).__name__} of shape {domain.shape}",
            fix="pass the context of the teacher's sample, or build the student with teacher.field",
        )
    if isinstance(domain, Graph):
        _check_positions(domain, field, required=positions)


def _check_positions(graph: Graph, field: FieldInfo, *, required: bool) -> None:
    if graph.positions is None and required:
        raise OracleError(
            "Sites of this graph have no positions, and an equivariant student turns with them.",
            where="Context.domain, Graph(positions=...)",
            expected=f"positions of shape ({graph.count}, {field.dim})",
            got="none",
            fix="give the graph positions, or take the student message-passing",
        )
    if graph.positions is not None and graph.positions.shape[1] != field.dim:
        raise OracleError(
            "The positions lie in another space than the student was built for.",
            where="Context.domain, Graph(positions=...)",
            expected=f"{field.dim} coordinates, the field's dim",
            got=f"{graph.positions.shape[1]} coordinates",
            fix="build the student with teacher.field of this graph's teacher",
        )


_graphs: weakref.WeakKeyDictionary[Graph, dict[tuple[object, ...], Edges]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _graph_edges(graph: Graph, dim: int, like: Tensor) -> Edges:
    key = (like.dtype, like.device, dim)
    with _lock:
        kept = _graphs.setdefault(graph, {})
        if key not in kept:
            # Kept for later calls, so they must not be tensors of an inference mode that the first caller was in.
            with torch.inference_mode(False):
                kept[key] = _new_graph_edges(graph, dim, like)
        return kept[key]


def _new_graph_edges(graph: Graph, dim: int, like: Tensor) -> Edges:
    index = graph.directed_edges
    isolated = torch.bincount(index[1], minlength=graph.count) == 0
    if isolated.any():
        raise OracleError(
            "A site of the graph has no neighbour.",
            where="Context.domain, Graph(edges=...)",
            expected="an edge at every site",
            got=f"{int(isolated.sum())} isolated sites: {isolated.nonzero().flatten().tolist()[:8]}",
            fix="join it to others, raise the cutoff, or leave it out",
        )
    if graph.positions is None:
        vectors = torch.zeros(index.shape[1], dim, dtype=like.dtype)
    else:
        sources, targets = index
        vectors = shorter_way(graph.positions[sources] - graph.positions[targets], graph.box)
    return Edges(index.to(like.device), vectors.to(like))


@lru_cache(maxsize=2)
def _lattice_edges(lattice: Lattice, dtype: torch.dtype, device: torch.device) -> Edges:
    with torch.inference_mode(False):
        return _new_lattice_edges(lattice, dtype, device)


def _new_lattice_edges(lattice: Lattice, dtype: torch.dtype, device: torch.device) -> Edges:
    steps = [step for step in itertools.product((-1, 0, 1), repeat=lattice.dim) if any(step)]
    size = torch.tensor(lattice.size, device=device)
    targets = torch.arange(lattice.sites, device=device)
    coordinates = torch.stack(torch.unravel_index(targets, lattice.size), dim=1)
    strides = torch.tensor([_product(lattice.size[axis + 1 :]) for axis in range(lattice.dim)], device=device)
    closed = torch.tensor(lattice.closed_axes, device=device)
    pieces, kinds = [], []
    for kind, step in enumerate(steps):
        moved = coordinates + torch.tensor(step, device=device)
        there = (((moved >= 0) & (moved < size)) | closed).all(1)
        sources = ((moved % size) * strides).sum(1)
        pieces.append(torch.stack([sources[there], targets[there]]))
        kinds.append(torch.full_like(targets[there], kind))
    index = torch.cat(pieces, dim=1)
    if not index.shape[1]:
        raise OracleError(
            "The only site of the box has no neighbour.",
            where="Context.domain",
            expected="at least two sites",
            got=f"Lattice{lattice.size}",
            fix="take a larger lattice",
        )
    return Edges(index, torch.tensor(steps, dtype=dtype, device=device), torch.cat(kinds))


def _product(lengths: tuple[int, ...]) -> int:
    total = 1
    for length in lengths:
        total *= length
    return total
