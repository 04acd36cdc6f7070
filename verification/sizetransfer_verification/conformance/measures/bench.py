"""Teachers and students on which measures are tried: one for every sort of field, and some that know next to nothing.

A teacher without capabilities is there so that a measure that asks for more than it declares is found out, one with
dead sites so that one that says nothing of them is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sizetransfer.api import teacher as named_teacher
from sizetransfer.contracts.domain import Graph
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, Sample, Teacher
from sizetransfer.contracts.randomness import normal, uniform
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.student import Student
from sizetransfer.students.cnn import CNNStudentSpec

SIZES = (8, 6, 4, 12, 16, 20, 40, 5)
"""Sizes that are tried, in this order."""


class WhiteNoise(Teacher):
    """Independent normal numbers on a ring, of which nothing is known but how to draw them.

    Args:
        masked: whether about a third of the sites are dead.
    """

    draws_fields_apart = True

    def __init__(self, *, masked: bool = False) -> None:
        super().__init__(FieldInfo(dim=1))
        self.masked = masked

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        """Draw fields; the first site is live."""
        self.check_size(size)
        x = normal((batch, 1, size), generator=generator, like=self.anchor)
        if not self.masked:
            return Sample(x, Context(self.domain(size)))
        live = uniform((batch, 1, size), generator=generator, like=self.anchor) < 2 / 3
        live[:, :, 0] = True
        return Sample(torch.where(live, x, 0), Context(self.domain(size), mask=live))


class ScoredWhiteNoise(WhiteNoise):
    """The same with its scores, of clean and of noisy fields."""

    def score(self, sample: Sample) -> Float[Tensor, "batch channels *size"]:
        """Score of clean fields; dead sites hold zeros and have none."""
        return -sample.x

    def smoothed_score(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        """Score of noisy fields."""
        score = -x / (1 + expand(sigma, x) ** 2)
        return score if context.mask is None else score * context.mask


class NeighbourStudent(Student):
    """A site and the sum of its neighbours on a graph: radius 1."""

    def __init__(self, field: FieldInfo) -> None:
        super().__init__(field, radius=1)
        self.weights = nn.Linear(2 * field.channels, field.channels)

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        live = 1 if context.mask is None else context.mask
        return live * self.precondition(lambda scaled: self._network(scaled, context), live * x, sigma)

    def _network(self, x: Tensor, context: Context) -> Tensor:
        assert isinstance(context.domain, Graph)  # noqa: S101
        sources, targets = context.domain.directed_edges.to(x.device)
        total = torch.zeros_like(x).index_add(2, targets, x[..., sources])
        result: Tensor = self.weights(torch.cat([x, total], dim=1).movedim(1, -1)).movedim(-1, 1)
        return result


def student_for(field: FieldInfo) -> Student:
    """A small local student for any field."""
    return NeighbourStudent(field) if field.geometry == "graph" else CNNStudentSpec(blocks=0, width=4).build(field)


@dataclass(frozen=True)
class Candidate:
    """A teacher that a measure may be tried on.

    Attributes:
        name: for notes.
        sort: of several teachers of a sort the first that the measure takes is enough.
        build: makes the teacher.
    """

    name: str
    sort: str
    build: Callable[[], Teacher]


CANDIDATES = (
    Candidate("white noise without oracles", "no oracle", WhiteNoise),
    Candidate("white noise with dead sites, without oracles", "no oracle, dead sites", lambda: WhiteNoise(masked=True)),
    Candidate("gaussian on a ring", "lattice", lambda: named_teacher("gaussian", dim=1, mass=0.7)),
    Candidate("gaussian", "lattice", lambda: named_teacher("gaussian", dim=2, mass=0.7)),
    Candidate("flow", "lattice", lambda: named_teacher("flow", preset="short-range-simple")),
    Candidate("phi4", "lattice", lambda: named_teacher("phi4", preset="symmetric")),
    Candidate("ising", "lattice", lambda: named_teacher("ising", preset="disordered")),
    Candidate("gaussian-graph", "graph", lambda: named_teacher("gaussian-graph")),
    Candidate("white noise with dead sites", "dead sites", lambda: ScoredWhiteNoise(masked=True)),
    Candidate("hard-valid", "dead sites", lambda: named_teacher("hard-valid", preset="local")),
)
"""Teachers that are tried, in this order."""
