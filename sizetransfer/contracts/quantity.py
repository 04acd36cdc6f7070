r"""One number with its error: what it is worth, what it rests on, and the limits that follow.

The kinds:

- ``exact``: equal to what it names, up to a numerical error;
- ``certificate``: a proven bound, up to rounding;
- ``estimate``: from samples, with a standard error, or resting on a premise that nobody has proven.

Limits of an estimate g with standard error s are one-sided, :math:`g \pm t_{\nu, \alpha} s` with Student's t. Where
several groups of independent fields share the variance, :math:`s^2 = \sum_k s_k^2`, the degrees of freedom are those of
Welch and Satterthwaite, :math:`\nu = s^4 / \sum_k (s_k^4 / \nu_k)`; else :math:`\nu = n - 1`. Limits of the other
kinds are a numerical error away.

Estimates are made by :mod:`sizetransfer.numerics.statistics`.

References:
    Satterthwaite 1946, An approximate distribution of estimates of variance components, Biometrics Bulletin 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sizetransfer.contracts.distributions import student_quantile, student_tail

Kind = Literal["exact", "certificate", "estimate"]

_ORDER: tuple[Kind, ...] = ("exact", "certificate", "estimate")

Array: TypeAlias = npt.NDArray[np.float64]


def weakest(*kinds: Kind) -> Kind:
    """Return the least trustworthy of ``kinds``: what a sum of such numbers is."""
    return max(kinds, key=_ORDER.index)


@dataclass(frozen=True, eq=False)
class FieldSums:
    r"""The sums over independent fields that a pooled ratio :math:`(\sum_b a_b / \sum_b c_b)^p` is made of.

    They are kept so that numbers on the same fields can be paired.

    Attributes:
        numerators, denominators: a and c, one for every field.
        exponent: p, 1/2 for relative errors, 1 for ratios of averages.
        fields: names the fields; numbers with the same name and count are paired. Empty: fields of its own.
    """

    numerators: Array
    denominators: Array
    exponent: float = 1.0
    fields: str = ""


@dataclass(frozen=True)
class Share:
    """What one group of independent fields contributes to the variance of an estimate.

    Attributes:
        fields: names the group; empty where no other estimate rests on it.
        variance: the contribution.
        degrees: its degrees of freedom.
    """

    fields: str
    variance: float
    degrees: float


@dataclass(frozen=True)
class Quantity:
    """A number with its error.

    Attributes:
        value: the number; NaN or infinite where there is none.
        error: of an estimate its standard error, NaN where that is not known; otherwise the numerical error.
        kind: exact, certificate or estimate.
        n: independent fields, draws or seeds that an estimate rests on; ``None`` where that is not one count.
        sums: of an estimate that is a pooled ratio.
        shares: of an estimate from several groups of fields.

    Example:
        >>> Quantity(0.5), Quantity.estimated(0.26, 0.01, n=32).upper(0.01) < 0.285
        (Quantity(value=0.5, error=0.0, kind='exact', n=None), True)
    """

    value: float
    error: float = 0.0
    kind: Kind = "exact"
    n: int | None = None
    sums: FieldSums | None = field(default=None, repr=False, compare=False)
    shares: tuple[Share, ...] = field(default=(), repr=False)

    @classmethod
    def estimated(cls, value: float, error: float, n: int | None = None) -> Quantity:
        """An estimate from ``n`` independent fields with its standard error."""
        return cls(value, error, "estimate", n)

    @classmethod
    def of_shares(cls, value: float, shares: Iterable[Share], kind: Kind = "estimate") -> Quantity:
        """A number whose variance is shared by independent groups of fields."""
        shares = tuple(shares)
        return cls(value, math.sqrt(math.fsum(share.variance for share in shares)), kind, shares=shares)

    @property
    def known(self) -> bool:
        """Whether it is a finite number; its standard error may be unknown still."""
        return math.isfinite(self.value)

    @property
    def variance(self) -> float:
        """Of the estimate; zero where nothing about the number is random."""
        if self.shares:
            return math.fsum(share.variance for share in self.shares)
        return self.error**2 if self.kind == "estimate" else 0.0

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the standard error: infinite where it is known, NaN of a single draw."""
        if self.shares:
            spread = math.fsum(share.variance**2 / share.degrees for share in self.shares)
            return self.variance**2 / spread if spread > 0 else (math.inf if spread == 0 else math.nan)
        if self.kind != "estimate" or self.n is None:
            return math.inf
        return float(self.n - 1) if self.n > 1 else math.nan

    def margin(self, alpha: float) -> float:
        """Distance from the value to each one-sided limit at level ``alpha``."""
        if self.kind != "estimate":
            return self.error
        return 0.0 if self.error == 0 else student_quantile(alpha, self.degrees) * self.error

    def lower(self, alpha: float) -> float:
        """One-sided lower limit."""
        return self.value - self.margin(alpha)

    def upper(self, alpha: float) -> float:
        """One-sided upper limit."""
        return self.value + self.margin(alpha)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Two-sided limits: outside is the truth with probability ``alpha``."""
        return self.lower(alpha / 2), self.upper(alpha / 2)

    def p_above(self, threshold: float) -> float:
        """Probability of a number as large as this, where the truth is at the threshold; NaN where unknown."""
        return self._tail(self.value - threshold)

    def p_below(self, threshold: float) -> float:
        """Probability of a number as small as this, where the truth is at the threshold; NaN where unknown."""
        return self._tail(threshold - self.value)

    def _tail(self, excess: float) -> float:
        if self.kind == "estimate" and self.error != 0:
            return student_tail(excess / self.error, self.degrees)
        return math.nan if math.isnan(excess) else float(not excess > self.error)

    def to_json(self) -> dict[str, object]:
        """Value, kind and error as data for JSON; null for a number that is not finite."""
        return {"value": _finite(self.value), "kind": self.kind, "error": _finite(self.error)}


UNKNOWN = Quantity(math.nan)
"""What is known of a number that is missing."""


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
