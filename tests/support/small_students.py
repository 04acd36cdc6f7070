"""Healthy students of radius 2 on lattices and of radius 1 on graphs, small and open to one-line defects."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sizetransfer.contracts.domain import Graph
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo, Geometry, StudentSpec
from sizetransfer.contracts.student import Student

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

TORUS = FieldInfo(dim=2, sigma_data=0.8)
RING = FieldInfo(dim=1, channels=2, sigma_data=0.8)
BOX = FieldInfo(dim=2, periodic=False, sigma_data=1.6)
CYLINDER = FieldInfo(dim=2, periodic=False, closed=(False, True), sigma_data=1.6)
VOLUME = FieldInfo(dim=3)
CONDITIONED = FieldInfo(dim=2, condition_channels=2)
GRAPH = FieldInfo(dim=2, periodic=True, geometry="graph")
LATTICES = (TORUS, RING, BOX, CONDITIONED, CYLINDER, VOLUME)


class SmallStudent(Student):
    """A score whose steps can be replaced one by one."""

    def __init__(self, field: FieldInfo, *, radius: int, width: int = 6) -> None:
        super().__init__(field, radius=radius)
        self.width = width
        self.embedding = nn.Linear(2, 2 * width)

    def forward(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        score = self.scaled_score(x, sigma, context)
        return score if context.mask is None else score * context.mask

    def scaled_score(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        return self.precondition(lambda scaled: self.network(scaled, sigma, context), x, sigma)

    def network(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        hidden = self.hidden(self.inputs(x, context), sigma, context)
        return self.output(self.activation(hidden), context)

    def inputs(self, x: Tensor, context: Context) -> Tensor:
        channels = [x if context.mask is None else x * context.mask]
        if context.condition is not None:
            channels.append(context.condition)
        if self.field.geometry == "lattice" and not self.field.periodic:
            channels.append(torch.ones_like(x[:, :1]))
        return torch.cat(channels, dim=1)

    def activation(self, hidden: Tensor) -> Tensor:
        return F.silu(hidden)

    def noise(self, sigma: Tensor) -> Tensor:
        phase = sigma.log() * math.pi / 4
        return self.embedding(torch.stack([phase.sin(), phase.cos()], dim=1))

    def modulated(self, hidden: Tensor, sigma: Tensor) -> Tensor:
        scale, shift = self.noise(sigma).chunk(2, dim=1)
        axes = (1,) * (hidden.ndim - 2)
        return hidden * (1 + scale.reshape(*scale.shape, *axes)) + shift.reshape(*shift.shape, *axes)


class SmallCNN(SmallStudent):
    """Two convolutions of width three: radius 2, on tori, on cylinders and in open boxes."""

    def __init__(self, field: FieldInfo, *, radius: int = 2, width: int = 6) -> None:
        super().__init__(field, radius=radius, width=width)
        walls = 0 if field.periodic else 1
        self.first = CONVOLUTIONS[field.dim](field.channels + field.condition_channels + walls, width, 3)
        self.second = CONVOLUTIONS[field.dim](width, field.channels, 3)

    def padded(self, x: Tensor) -> Tensor:
        return self.pad(x, 1)

    def hidden(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        return self.modulated(self.first(self.padded(x)), sigma)

    def output(self, hidden: Tensor, context: Context) -> Tensor:
        return self.second(self.padded(hidden))


class SmallGraphStudent(SmallStudent):
    """A site and the mean of its neighbours: radius 1, on graphs."""

    def __init__(self, field: FieldInfo, *, radius: int = 1, width: int = 6) -> None:
        super().__init__(field, radius=radius, width=width)
        self.first = nn.Conv1d(field.channels + field.condition_channels, width, 1)
        self.second = nn.Conv1d(2 * width, field.channels, 1)

    def hidden(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        return self.modulated(self.first(x), sigma)

    def output(self, hidden: Tensor, context: Context) -> Tensor:
        return self.second(torch.cat([hidden, self.neighbours(hidden, context.domain)], dim=1))

    def edges(self, graph: Graph) -> Tensor:
        return graph.directed_edges

    def neighbours(self, hidden: Tensor, graph: Graph) -> Tensor:
        """Mean over the neighbours of each site; ``(B, W, N)`` to the same."""
        sources, targets = self.edges(graph).to(hidden.device)
        counts = torch.bincount(targets, minlength=graph.count).clamp(min=1)
        total = torch.zeros_like(hidden).index_add(2, targets, hidden[..., sources])
        return total / counts


class SmallSpec(StudentSpec):
    """Specification of both."""

    geometries: ClassVar[tuple[Geometry, ...]] = ("lattice", "graph")

    kind: Literal["small"] = "small"
    width: int = Field(6, ge=1)

    def build(self, field: FieldInfo) -> Student:
        chosen = SmallGraphStudent if field.geometry == "graph" else SmallCNN
        return chosen(field, width=self.width)


def scale(student: Student, x: Tensor, sigma: Tensor) -> Tensor:
    """Standard deviation of the noisy field, shaped to divide ``x``."""
    return torch.sqrt(expand(sigma, x) ** 2 + student.field.sigma_data**2)
