r"""Relative errors of a model's score from its losses, relative to the best that is known of each size.

With the loss L of the model, :math:`L_r` of the linear filter of radius r and :math:`L_\infty` of the best of them, on
the same fields and noise, and with :math:`a = \max(0, L_\infty - L)` at the training size, what the model knows beyond
every linear filter,

.. math:: e^2 = \frac{L - L_\infty + a}{1 - L_\infty + a}

is the squared error of its score relative to the best score that is known; the same of a filter with :math:`L_r`. At a
larger size a is that of the training size: a model that loses its advantage there has an error there. Where a square is
not told from zero, by four standard errors s, :math:`\sqrt{\max(0, e^2) + s}` stands for the error, with the standard
error that its square has: an error of nothing is said to be as large as the fields leave open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.oracle import Context, Sample
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.stored import StoredFields
from sizetransfer.diagnosis.model.findings import within
from sizetransfer.diagnosis.model.losses import smallest
from sizetransfer.numerics.statistics import mean, root_ratio
from sizetransfer.verdict import Reference, ScoreError

NUMBERS = 2**22
"""Numbers of the fields of one size that filters are fitted to and losses are taken of."""
TOLD = 4.0
"""Standard errors above zero from which on the square of an error is told from it."""

ByRadius = Mapping[int | None, Tensor]


def sample_of(stored: StoredFields, size: int, field: FieldInfo) -> Sample:
    """Fields of one size, evenly spread over those that are stored, as many as the memory of a step holds."""
    count = stored.count(size)
    taken = min(count, max(64, NUMBERS // (stored.channels * size**stored.dim)))
    x = stored.rows(size, [place * count // taken for place in range(taken)]).float()
    return Sample(x, Context(Lattice((size,) * stored.dim, field.periodic, field.closed)))


@dataclass(frozen=True, eq=False)
class LevelLosses:
    """Losses at one noise level and size, by field.

    Attributes:
        model: of the model.
        linear: of the linear filters by radius; ``None``: the whole lattice.
        reach: receptive radius of the model; ``None``: global.
    """

    model: Tensor
    linear: ByRadius
    reach: int | None

    @property
    def best(self) -> Tensor:
        """Of the best filter there is."""
        return smallest(self.linear)[1]

    @property
    def own(self) -> Tensor:
        """Of the best filter that sees no more than the model."""
        return smallest(within(self.linear, self.reach))[1]

    @property
    def advantage(self) -> Quantity:
        """What the model knows beyond every filter; zero where that is nothing."""
        found = mean(self.best - self.model)
        return found if found.value > 0 else Quantity(0.0)


def references(levels: Mapping[float, LevelLosses], size: int) -> Iterator[Reference]:
    """The null, the filter of the model's radius and the best there is, relative to the best that is known."""
    for sigma, level in levels.items():
        null, own, best = (
            _error(level, each, level.advantage, size) for each in (level.linear[0], level.own, level.best)
        )
        yield Reference(sigma, size, null=null, linear=own, best=best)


def errors(
    levels: Mapping[float, LevelLosses], training: Mapping[float, LevelLosses], size: int
) -> Iterator[ScoreError]:
    """Of the model, at one size; with what it knew at the training size."""
    for sigma, level in levels.items():
        advantage = training[sigma].advantage
        yield ScoreError(sigma, size, _error(level, level.model, advantage, size))


def _error(level: LevelLosses, losses: Tensor, advantage: Quantity, size: int) -> Quantity:
    a = advantage.value
    excess, power = losses - level.best + a, 1 - level.best + a
    if not bool(torch.any(excess)):
        return Quantity(0.0)
    found = mean(excess / power.mean())
    if advantage.error == 0 and found.value > TOLD * found.error:
        return root_ratio(excess, power, fields=f"losses {size}")
    error = math.hypot(found.error, advantage.error / float(power.mean()))
    value = math.sqrt(max(found.value, 0.0) + (error if found.value <= TOLD * error else 0.0))
    return Quantity.estimated(value, error / (2 * value), len(losses))
