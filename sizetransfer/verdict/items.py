"""The quantities that the rule tests, one kind each: what was learned, what stays, what locality costs, and the rest.

A ratio of errors f is kept as its logarithm. Where the errors themselves are known as squares alone, which noise may
take below zero (:mod:`sizetransfer.verdict.losses`), it is kept as :math:`f^2 - 1`, over a denominator that is no
smaller than a share of what is at stake.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from sizetransfer.contracts.quantity import UNKNOWN, Quantity
from sizetransfer.verdict.evidence import Source


@dataclass(frozen=True)
class Item:
    """Estimates under some labels: where seeds agree in the labels, their estimates have a mean."""

    labels: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Ratio(Item):
    """An item with a ratio of errors.

    Attributes:
        squares: whether ratios are kept as those of squares, less one; else as logarithms.
    """

    squares: bool

    def on_scale(self, factor: float) -> float:
        """Where a ratio of errors stands among the ratios of this item."""
        return factor**2 - 1 if self.squares else math.log(factor)

    def as_ratio(self, value: float) -> float:
        """The ratio of errors that a number of this item stands for; a square below zero is none."""
        return math.sqrt(max(1 + value, 0.0)) if self.squares else math.exp(min(value, 700.0))


@dataclass(frozen=True)
class Learning(Ratio):
    """What was learned at one noise level of the training size; unknown where a number is missing.

    Attributes:
        sigma: noise level.
        error, null, linear, best, irreducible: relative errors.
        skill: of the student.
        excess_error, excess_skill: over the reference: of the ratio f of errors its logarithm, or
            :math:`1 - 1/f^2` where squares are kept, and in skill.
    """

    labels: ClassVar[tuple[str, ...]] = ("squares", "sigma")
    sigma: float
    error: Quantity
    null: Quantity
    linear: Quantity
    best: Quantity
    irreducible: Quantity
    skill: Quantity
    excess_error: Quantity
    excess_skill: Quantity

    @property
    def reference(self) -> Quantity:
        """What the student is held against: the irreducible error where known, else the linear one."""
        return self.irreducible if self.irreducible.known else self.linear

    def excess_on_scale(self, share: float) -> float:
        """Where the excess stands if the reference's error is smaller by this share of the student's."""
        return 1 - (1 - share) ** 2 if self.squares else -math.log1p(-share)


@dataclass(frozen=True)
class Staying(Ratio):
    """The error at one noise level and larger size: itself, its ratio to that of the training size, the skill there.

    Attributes:
        sigma, size: where.
        error: relative error.
        ratio: of the errors, on the item's scale.
        skill: there.
        lost: skill that is lost from the training size; unknown where it takes no part.
    """

    labels: ClassVar[tuple[str, ...]] = ("squares", "sigma", "size")
    sigma: float
    size: int
    error: Quantity
    ratio: Quantity
    skill: Quantity
    lost: Quantity = UNKNOWN


@dataclass(frozen=True)
class Cost(Item):
    """The squared error that locality costs at one noise level and size, and whether that is exact."""

    labels: ClassVar[tuple[str, ...]] = ("sigma", "size", "exact")
    sigma: float
    size: int
    squared: Quantity
    exact: bool


@dataclass(frozen=True)
class Advantage(Ratio):
    """A student of larger radius at one noise level and size: its error over the student's, and the gain in skill."""

    labels: ClassVar[tuple[str, ...]] = ("squares", "student", "radius", "sigma", "size")
    student: str
    radius: int | None
    sigma: float
    size: int
    error: Quantity
    ratio: Quantity
    gain: Quantity


@dataclass(frozen=True)
class Generated(Item):
    """A ratio of generated to exact statistics at one size."""

    labels: ClassVar[tuple[str, ...]] = ("name", "size", "source", "local", "starts_short")
    name: str
    size: int
    source: Source
    ratio: Quantity
    local: bool
    starts_short: bool


@dataclass(frozen=True)
class Law(Item):
    """A ratio of the law's own statistic at a larger size to that at the training size."""

    labels: ClassVar[tuple[str, ...]] = ("name", "size")
    name: str
    size: int
    ratio: Quantity
