r"""Message passing with filters of the displacement, on the layers of torch-geometric.

.. math:: m_i = \frac{1}{\sqrt{3^d - 1}} \sum_{j \to i} (W h_j) \odot f(r_{ij}), \qquad
   g_i = (V h_i + m_i) \odot (1 + a(\sigma)) + b(\sigma), \qquad
   h_i \leftarrow h_i + U\,\bigl(P g_i \odot \mathrm{sigmoid}(Q g_i)\bigr)

Continuous filters f (Schütt et al. 2017, arXiv:1706.08566) see the distance, spread over Gaussians, and the direction
of an edge: the score does not change when all sites are moved, and does when they are turned. Without positions all
edges are alike. The noise level scales and shifts every channel; gates multiply what is heard by what is known of the
surroundings, as the score of a field with a Laplacian multiplies a site's value by the number of its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizetransfer.contracts.specs import FieldInfo
from sizetransfer_graph.edges import Edges
from sizetransfer_graph.libraries import GaussianSmearing
from sizetransfer_graph.network import GraphStudent, NeighbourSum

if TYPE_CHECKING:
    from sizetransfer_graph.specs import MessagePassingSpec


class _FilterConvolution(NeighbourSum):
    """Channels of the neighbours times a filter of the displacement, summed."""

    def __init__(self, field: FieldInfo, width: int, features: int) -> None:
        super().__init__(field)
        last = nn.Linear(width, width)
        # At first every neighbour counts alike, and aloud: small filters learn to listen late.
        nn.init.ones_(last.bias)
        self.filters = nn.Sequential(nn.Linear(features, width), nn.SiLU(), last)

    def forward(self, hidden: Tensor, edges: Edges, features: Tensor) -> Tensor:
        return self.summed(hidden, edges, filters=self.filters(features))

    def message(self, x_j: Tensor, filters: Tensor) -> Tensor:
        return x_j * filters


class _Layer(nn.Module):
    """Messages around a shortcut, modulated by the noise level."""

    def __init__(self, spec: MessagePassingSpec, field: FieldInfo) -> None:
        super().__init__()
        self.sent = nn.Linear(spec.width, spec.width, bias=False)
        self.kept = nn.Linear(spec.width, spec.width)
        self.convolution = _FilterConvolution(field, spec.width, spec.radial + field.dim)
        self.modulation = nn.Linear(spec.width, 2 * spec.width)
        self.gate = nn.Linear(spec.width, 2 * spec.width)
        self.update = nn.Linear(spec.width, spec.width)

    def forward(self, hidden: Tensor, noise: Tensor, edges: Edges, features: Tensor) -> Tensor:
        scale, shift = self.modulation(noise)[:, None].chunk(2, dim=-1)
        heard = self.kept(hidden) + self.convolution(self.sent(hidden), edges, features)
        update: Tensor = self.update(F.glu(self.gate(heard * (1 + scale) + shift)))
        return hidden + update


class MessagePassingStudent(GraphStudent):
    """Message passing of radius depth (see the module's formula)."""

    def __init__(self, spec: MessagePassingSpec, field: FieldInfo) -> None:
        super().__init__(spec, field, noise_width=spec.width, positions=False)
        self.distances = GaussianSmearing(0.0, spec.reach, spec.radial)
        self.input = nn.Linear(field.channels + self.conditions, spec.width)
        self.layers = nn.ModuleList(_Layer(spec, field) for _ in range(spec.depth))
        self.output = nn.Linear(spec.width, field.channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def network(self, sites: Tensor, noise: Tensor, edges: Edges) -> Tensor:
        features = self._features(edges.vectors)
        hidden = self.input(sites)
        for layer in self.layers:
            hidden = layer(hidden, noise, edges, features)
        result: Tensor = self.output(hidden)
        return result

    def _features(self, vectors: Tensor) -> Tensor:
        """Distance and direction of every kind of edge; the direction of no displacement is zero."""
        lengths = vectors.norm(dim=1, keepdim=True)
        directions = vectors / torch.where(lengths > 0, lengths, torch.ones_like(lengths))
        return torch.cat([self.distances(lengths), directions], dim=1)
