r"""What is known of a quantity computed from measured numbers: limits, tests, and what more data would tell.

A *number* :math:`x = (\sum_b a_b / \sum_b c_b)^p` rests on independent fields b: :math:`p = 1/2` for relative errors,
1 for ratios of averages. A quantity :math:`g(x_1, \dots, x_m)` gets its variance from the jackknife over fields:
numbers on the same fields lose the same field together (they are *paired*), other groups of fields are independent, so
that

.. math:: s^2 = \sum_\text{groups} \frac{n-1}{n} \sum_b (g_{(b)} - \bar g)^2,

with the degrees of freedom of Welch and Satterthwaite, :math:`\nu = s^4 / \sum s_\text{group}^4 / (n - 1)`. A number
that is known by its standard error alone contributes by its derivative. Limits are one-sided,
:math:`g \pm t_{\nu, \alpha} s`; exact numbers contribute nothing, and a quantity of exact numbers is compared as it is.

References:
    Efron and Stein 1981, The jackknife estimate of variance, Annals of Statistics 9.
    Satterthwaite 1946, An approximate distribution of estimates of variance components, Biometrics Bulletin 2.
    Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    Schuirmann 1987, A comparison of the two one-sided tests procedure, J. Pharmacokinetics and Biopharmaceutics 15.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sizetransfer.contracts.distributions import student_quantile, student_tail

Array: TypeAlias = npt.NDArray[np.float64]
Function: TypeAlias = Callable[..., Any]
"""A function of floats or of arrays of them, element by element."""


@dataclass(frozen=True)
class Number:
    r"""A measured, or exactly known, number.

    Attributes:
        value: the number; NaN or infinite where the measurement gave none.
        standard_error: its standard error; zero for an exact number, NaN where a single draw gives none.
        n: independent fields (or draws) that it rests on; ``None``: exact.
        sums: numerators and denominators of every field, where the number is made of such sums.
        exponent: of :math:`\sum a / \sum c`: 1/2 for relative errors, 1 for ratios of averages.
        fields: names the fields; numbers with the same name and count are paired. Empty: fields of its own.
    """

    value: float
    standard_error: float = 0.0
    n: int | None = None
    sums: tuple[Array, Array] | None = field(default=None, repr=False, compare=False)
    exponent: float = 0.5
    fields: str = ""

    @classmethod
    def of_sums(
        cls, numerators: Sequence[float], denominators: Sequence[float], *, fields: str = "", exponent: float = 0.5
    ) -> Number:
        """The number with these sums of its fields, and its jackknife standard error."""
        a, c = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
        bare = cls(_ratio(a.sum(), c.sum(), exponent), math.nan, len(a), (a, c), exponent, fields)
        error = quantity(lambda x: x, bare).standard_error
        return cls(bare.value, error, len(a), (a, c), exponent, fields)

    @property
    def known(self) -> bool:
        """Whether it is a finite number."""
        return math.isfinite(self.value)

    def left_out(self) -> Array:
        """The number without each of its fields in turn."""
        a, c = self.sums or (np.empty(0), np.empty(0))
        with np.errstate(all="ignore"):
            return np.asarray(_ratio(a.sum() - a, c.sum() - c, self.exponent), dtype=np.float64)


def _ratio(numerator: Any, denominator: Any, exponent: float) -> Any:
    with np.errstate(all="ignore"):
        ratio = np.where(np.asarray(denominator) > 0, numerator / np.asarray(denominator), np.nan)
        # Rounding may leave a sum without its only large term below zero.
        powered = np.maximum(ratio, 0.0) ** exponent if exponent != 1 else ratio
    return float(powered) if np.ndim(powered) == 0 else powered


@dataclass(frozen=True)
class Part:
    """A share of an estimate's variance that belongs to one group of fields."""

    fields: str
    variance: float
    degrees: float


@dataclass(frozen=True)
class Estimate:
    """A quantity with what each group of fields contributes to its variance.

    Attributes:
        value: the quantity; NaN where it is not known.
        parts: contributions to its variance; none: exact.
    """

    value: float
    parts: tuple[Part, ...] = ()

    @property
    def variance(self) -> float:
        """Of the estimate."""
        return math.fsum(part.variance for part in self.parts)

    @property
    def standard_error(self) -> float:
        """Of the estimate; zero for an exact quantity."""
        return math.sqrt(self.variance)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the standard error (Welch and Satterthwaite)."""
        spread = math.fsum(part.variance**2 / part.degrees for part in self.parts)
        return self.variance**2 / spread if spread > 0 else (math.inf if spread == 0 else math.nan)

    @property
    def known(self) -> bool:
        """Whether it is a finite number; its standard error may be unknown still."""
        return math.isfinite(self.value)

    @property
    def exact(self) -> bool:
        """Whether nothing about it is random."""
        return self.variance == 0

    def margin(self, alpha: float) -> float:
        """Distance from the value to each one-sided limit at level ``alpha``."""
        return 0.0 if self.exact else student_quantile(alpha, self.degrees) * self.standard_error

    def lower(self, alpha: float) -> float:
        """One-sided lower limit."""
        return self.value - self.margin(alpha)

    def upper(self, alpha: float) -> float:
        """One-sided upper limit."""
        return self.value + self.margin(alpha)

    def p_above(self, threshold: float) -> float:
        """Probability of an estimate as large as this, where the truth is at the threshold; NaN where unknown."""
        return _p(self.value - threshold, self)

    def p_below(self, threshold: float) -> float:
        """Probability of an estimate as small as this, where the truth is at the threshold; NaN where unknown."""
        return _p(threshold - self.value, self)


UNKNOWN = Estimate(math.nan)
"""What is known of a quantity when a number is missing."""


def _p(excess: float, estimate: Estimate) -> float:
    if estimate.exact:
        return math.nan if math.isnan(excess) else float(not excess > 0)
    return student_tail(excess / estimate.standard_error, estimate.degrees)


def quantity(function: Function, *numbers: Number) -> Estimate:
    """A quantity of numbers with its jackknife variance; :data:`UNKNOWN` where a number or the quantity is.

    Args:
        function: of as many arguments as there are numbers; takes arrays too, element by element.
        numbers: what it is computed from.
    """
    with np.errstate(all="ignore"):
        value = float(function(*(number.value for number in numbers)))
        if not (math.isfinite(value) and all(number.known for number in numbers)):
            return UNKNOWN
        parts = [_part(function, numbers, indices) for indices in _groups(numbers)]
    return Estimate(value, tuple(part for part in parts if part.variance != 0))


def _groups(numbers: Sequence[Number]) -> Iterable[list[int]]:
    """Positions of the numbers that share their fields; exact ones are in no group."""
    groups: dict[object, list[int]] = defaultdict(list)
    for index, number in enumerate(numbers):
        if number.n is not None:
            paired = number.sums is not None and number.fields
            groups[(number.fields, number.n) if paired else index].append(index)
    return groups.values()


def _part(function: Function, numbers: Sequence[Number], group: Sequence[int]) -> Part:
    first = numbers[group[0]]
    n = first.n or 0
    variance = _jackknife(function, numbers, group, n) if first.sums else _linear(function, numbers, group[0])
    # Without a second field there is no error; a NaN keeps every test from speaking.
    return Part(first.fields, variance if n > 1 else math.nan, max(n - 1, 1))


def _jackknife(function: Function, numbers: Sequence[Number], group: Sequence[int], n: int) -> float:
    values = [number.left_out() if index in group else number.value for index, number in enumerate(numbers)]
    found = np.broadcast_to(function(*values), (n,))
    return float((n - 1) / n * np.square(found - found.mean()).sum())


def _linear(function: Function, numbers: Sequence[Number], index: int) -> float:
    """The squared derivative times the squared standard error."""
    number = numbers[index]
    step = 1e-4 * min(number.standard_error, abs(number.value) or math.inf)
    if step == 0:
        return 0.0 if number.standard_error == 0 else math.nan

    def at(value: float) -> float:
        return float(function(*(value if i == index else other.value for i, other in enumerate(numbers))))

    slope = (at(number.value + step) - at(number.value - step)) / (2 * step)
    return (slope * number.standard_error) ** 2


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over seeds: its variance is the spread between seeds, and what fields that all of them share add.

    Seeds draw their own fields, so the spread holds the errors of these; an error that all seeds have in common, that
    of a reference measured once, does not show in it.
    """
    count = len(estimates)
    if count < 2 or not all(math.isfinite(estimate.value) for estimate in estimates):
        return UNKNOWN
    values = np.array([estimate.value for estimate in estimates])
    spread = Part("", float(values.var(ddof=1)) / count, count - 1)
    return Estimate(float(values.mean()), (spread, *_common(estimates)))


def _common(estimates: Sequence[Estimate]) -> list[Part]:
    """The named groups of fields that every estimate rests on, with the largest of their contributions."""
    named = [{part.fields: part for part in estimate.parts if part.fields} for estimate in estimates]
    shared = set(named[0]).intersection(*named[1:])
    return [max((parts[name] for parts in named), key=lambda part: part.variance) for name in sorted(shared)]


def holm(p_values: Mapping[str, float], alpha: float) -> set[str]:
    r"""Names of the hypotheses that Holm's step-down rejects: with k left, the smallest p must be at most α/k.

    The probability of any false rejection is at most ``alpha``, whatever the dependence. A p-value that is NaN is
    never rejected, and counts.

    >>> sorted(holm({"a": 0.001, "b": 0.006, "c": 0.2}, 0.01))
    ['a']
    """
    rejected: set[str] = set()
    ordered = sorted(p_values.items(), key=lambda item: (math.isnan(item[1]), item[1]))
    for left, (name, p) in zip(range(len(ordered), 0, -1), ordered, strict=True):
        if not p <= alpha / left:
            break
        rejected.add(name)
    return rejected


def equivalent(ratio: Estimate, tolerance: float, alpha: float) -> bool:
    """Whether a ratio is within ``1 ± tolerance``: both one-sided tests reject the outside (Schuirmann 1987)."""
    return ratio.lower(alpha) >= 1 - tolerance and ratio.upper(alpha) <= 1 + tolerance


def p_outside(ratio: Estimate, tolerance: float) -> float:
    """The p-value that a ratio is outside ``1 ± tolerance``, on whichever side; both sides count."""
    sides = ratio.p_above(1 + tolerance), ratio.p_below(1 - tolerance)
    return math.nan if math.isnan(sum(sides)) else min(1.0, 2 * min(sides))


def detectable_growth(ratio: Estimate, growth: float, alpha: float) -> float:
    """The smallest growth that this measurement could have called: a ratio so far above has its lower limit there.

    Args:
        ratio: the logarithm of the ratio of errors.
        growth: the growth that is allowed.
        alpha: level of the test.
    """
    return (1 + growth) * math.exp(min(ratio.margin(alpha), 700.0)) - 1


def more_needed(estimate: Estimate, threshold: float, alpha: float) -> float:
    """By which factor the fields must grow until the limit of the estimate, staying where it is, clears the threshold.

    Standard errors fall as the root of the number of fields; one where the limit does already.
    """
    distance = abs(estimate.value - threshold)
    if not distance > 0 or not math.isfinite(estimate.margin(alpha)):
        return math.inf
    return max(1.0, (estimate.margin(alpha) / distance) ** 2)
