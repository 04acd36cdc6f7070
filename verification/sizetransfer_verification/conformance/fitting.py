r"""What a student is fitted to before it is examined: correlated fields on any domain, as a run fits it to a teacher's.

.. math:: x_i \propto n_i + \frac{w}{\bar k} \sum_{j \sim i} n_j + m(c_i)

White noise n and a share of that of the neighbours, :math:`\bar k` their mean number: correlations reach two steps, and
their inverse, which a linear score is made of, any distance. Other channels mix in, and conditions shift the mean, so
that whatever a student may fit there is something to be found.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sizetransfer.contracts.arithmetic import arithmetic
from sizetransfer.contracts.domain import Domain, Graph, Lattice
from sizetransfer.contracts.oracle import Context, Sample, Teacher
from sizetransfer.contracts.randomness import branch_of, integers, normal
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.student import Student

SIZES = {1: 16, 2: 8, 3: 4}
"""Sites along each axis that a student is fitted at, by dimension, where its radius does not need more."""
GRAPH_SITES = 40
NEIGHBOURS, CHANNELS, CONDITION = 0.9, 0.3, 0.5
"""Shares of the neighbours, of the other channels and of a condition."""


class ReferenceFields(Teacher):
    """Moving averages of noise, by the module's formula, on any domain that a field may live on."""

    draws_fields_apart = True

    def __init__(self, field: FieldInfo, domain: Domain) -> None:
        super().__init__(field)
        self._domain = domain

    def domain(self, size: int) -> Domain:
        return self._domain

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        shape = batch, self.field.channels, *self._domain.shape
        noise = normal(shape, generator=branch_of(generator, "noise"), like=self.anchor)
        x = noise + NEIGHBOURS * _mean_of_neighbours(noise, self._domain) + CHANNELS * noise.roll(1, 1)
        condition = self._condition(batch, generator)
        if condition is not None:
            x = x + CONDITION * (2 * condition - 1).sum(1, keepdim=True)
        return Sample(self.field.sigma_data * x, Context(self._domain, condition))

    def _condition(self, batch: int, generator: torch.Generator) -> Tensor | None:
        if not self.field.condition_channels:
            return None
        shape = batch, self.field.condition_channels, *self._domain.shape
        return integers(2, shape, generator=branch_of(generator, "condition"), like=self.anchor).to(self.anchor)


def _mean_of_neighbours(x: Tensor, domain: Domain) -> Tensor:
    """Sum over the neighbours of each site, divided by their mean number; none are behind a wall."""
    if isinstance(domain, Graph):
        sources, targets = domain.directed_edges
        return torch.zeros_like(x).index_add(2, targets, x[..., sources]) * domain.count / max(1, len(targets))
    closed = domain.closed_axes if isinstance(domain, Lattice) else (True,) * len(domain.shape)
    total = torch.zeros_like(x)
    for axis, is_closed in enumerate(closed, start=2):
        for step in (1, -1):
            moved = x.roll(step, axis)
            if not is_closed:
                moved.narrow(axis, 0 if step == 1 else x.shape[axis] - 1, 1).zero_()
            total += moved
    return total / (2 * len(closed))


def size_to_fit(student: Student) -> int:
    """Sites along each axis, or of the graph, on which the student's ball does not meet itself."""
    if student.field.geometry == "graph":
        return GRAPH_SITES
    least = 2 * student.radius + 2 if isinstance(student.radius, int) else 0
    period = student.translation_period
    return period * -(-max(least, SIZES.get(student.field.dim, 4)) // period)


def fit_as_a_run_does(student: Student, field: FieldInfo, domain: Domain, *, seed: int) -> None:
    """Fit a student that has no weights with gradients, by its own method, in float64."""
    with arithmetic(torch.float64, torch.device("cpu")):
        teacher = ReferenceFields(field, domain).double().frozen()
        student.double().fit(teacher, size_to_fit(student), seed=seed)
        student.eval()
