r"""What students on graphs share: features of sites in and out, the noise level, and the sum over neighbours.

A layer sends messages along every edge,

.. math:: m_i = \frac{1}{\sqrt{3^d - 1}} \sum_{j \to i} M\bigl(h_j, r_{ij}, w(|r_{ij}|)\bigr),

and does everything else at each site alone, so the radius is the number of layers: hops on a graph, steps of Chebyshev
distance on a lattice. The factor is the same for all sites and sizes; the sum lets a site know how many neighbours it
has, on which the score of a field with a Laplacian depends.

The batch is an axis of the features, ``B N F``: one list of edges serves all fields of it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import fourier_features
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.student import Student
from sizetransfer.students.conditions import condition_channels
from sizetransfer_graph.edges import Edges, edges_of, neighbours
from sizetransfer_graph.libraries import MessagePassing

if TYPE_CHECKING:
    from sizetransfer_graph.specs import GraphStudentSpec


class NeighbourSum(MessagePassing):  # type: ignore[misc]
    """Sum of messages over the edges of every site, scaled by one over the root of a lattice's neighbours.

    Subclasses define torch-geometric's ``message``: it takes ``x_j``, the features ``B E F`` of the sources, and rows
    of tables with one row for each kind of edge, and returns ``B E G``.
    """

    def __init__(self, field: FieldInfo) -> None:
        super().__init__(aggr="add", node_dim=-2)
        self.scale = 1 / math.sqrt(neighbours(field))

    def summed(self, hidden: Tensor, edges: Edges, **tables: Tensor) -> Tensor:
        """Sum over neighbours, ``B N F`` to ``B N G``; each table has a row for each kind of edge."""
        total: Tensor | None = None
        for index, rows in edges.parts(len(hidden)):
            chosen = {name: table[rows] for name, table in tables.items()}
            part: Tensor = self.propagate(index, x=hidden, **chosen)
            total = part if total is None else total + part
        if total is None:
            raise ValueError("there are no edges")
        return total * self.scale


class GraphStudent(Student):
    """A score network of layers of messages; subclasses say what happens between sites.

    Args:
        spec: depth and what is seen.
        field: the fields that it scores.
        noise_width: features of the noise level.
        positions: whether it needs the positions of a graph's sites.
    """

    def __init__(self, spec: GraphStudentSpec, field: FieldInfo, *, noise_width: int, positions: bool) -> None:
        super().__init__(field, radius=spec.depth)
        self.spec = spec
        self.needs_positions = positions
        self.conditions = field.condition_channels if spec.condition == "given" else 0
        self.ignores = frozenset() if spec.condition == "given" else frozenset({"condition"})
        self.embedding = nn.Sequential(nn.Linear(2 * spec.noise_frequencies, noise_width), nn.SiLU())

    @abstractmethod
    def network(self, sites: Tensor, noise: Tensor, edges: Edges) -> Tensor:
        """Map features ``B N (C + K)`` of the sites, and ``B W`` of the noise, to ``B N C``."""

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        self._check(x, context)
        edges = edges_of(context.domain, self.field, like=x, positions=self.needs_positions)
        noise = self.embedding(fourier_features(sigma, self.spec.noise_frequencies))
        score = self.precondition(lambda scaled: self._network(scaled, noise, edges, context), x, sigma)
        return score if context.mask is None else score * context.mask

    def _check(self, x: Tensor, context: Context) -> None:
        expected = (self.field.channels, *context.domain.shape)
        if tuple(x.shape[1:]) != expected:
            raise OracleError(
                "The field does not have the channels that the student was built for, or is not on its domain.",
                where=f"{self.spec.kind_name()}, x",
                expected=f"shape (batch, {', '.join(map(str, expected))}), {self.field.channels} channels",
                got=f"shape {tuple(x.shape)}",
                fix="pass fields and context of one sample, and build the student with teacher.field",
            )

    def _network(self, x: Tensor, noise: Tensor, edges: Edges, context: Context) -> Tensor:
        live = x if context.mask is None else x * context.mask
        inputs = torch.cat([live, *condition_channels(context, self.conditions, like=x)], dim=1)
        result = self.network(inputs.flatten(2).transpose(1, 2), noise, edges)
        return result.transpose(1, 2).reshape(x.shape)
