r"""Estimates from independent fields: means, pooled ratios and shares, the jackknife, and tests of what follows.

A *pooled ratio* :math:`x = (\sum_b a_b / \sum_b c_b)^p` rests on independent fields b: :math:`p = 1/2` for relative
errors, squared errors over squared references pooled before the root is taken, so that fields with a small reference do
not dominate; 1 for ratios of averages and for shares. From the values :math:`g_{(b)}` without each field the jackknife
has

.. math:: s^2 = \frac{n-1}{n} \sum_b (g_{(b)} - \bar g)^2, \qquad
    g_\text{corrected} = n\,g - (n-1)\,\bar g ,

the latter without the bias of order 1/n. Where parts of the fields are left out in turn, n is the number of parts.

A number *derived* from several, :math:`g(x_1, \dots, x_m)`, loses the same field of all that rest on it together (they
are *paired*); other groups of fields are independent, so that their variances add up. A number that is known by its
standard error alone contributes by its derivative; exact numbers contribute nothing, and one derived from exact numbers
is compared as it is. Limits and degrees of freedom are those of :class:`~sizetransfer.contracts.quantity.Quantity`,
distributions those of :mod:`sizetransfer.contracts.distributions`.

Functions take tensors or arrays, and compute in double precision.

References:
    Efron and Stein 1981, The jackknife estimate of variance, Annals of Statistics 9.
    Quenouille 1956, Notes on bias in estimation, Biometrika 43.
    Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    Schuirmann 1987, A comparison of the two one-sided tests procedure, J. Pharmacokinetics and Biopharmaceutics 15.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from sizetransfer.contracts.quantity import UNKNOWN, Array, FieldSums, Quantity, Share, weakest

if TYPE_CHECKING:
    from torch import Tensor

    Values: TypeAlias = Tensor | npt.ArrayLike
    """One number for every field; computed with by torch where it is a tensor."""

AnyArray = TypeVar("AnyArray", "Tensor", Array)
Function: TypeAlias = Callable[..., Any]
"""A function of floats or of arrays of them, element by element."""


# --- one set of fields ------------------------------------------------------------------------------------------------


def mean(values: Values) -> Quantity:
    """Mean of independent values of shape ``(n,)``, with the standard error of the mean.

    >>> mean([1.0, 2.0, 3.0]).n
    3
    """
    x = _double(values)
    n = len(x)
    error = float(error_of_mean(x)) if n > 1 else math.nan
    sums = FieldSums(_plain(x), np.ones(n))
    return Quantity(float(x.mean()), error, "estimate", n, sums)


def error_of_mean(values: AnyArray, axis: int = 0) -> AnyArray:
    """Standard error of the mean over an axis: the deviation, with n - 1, over the root of n."""
    any_values: Any = values
    deviation = any_values.std(axis) if _is_tensor(values) else any_values.std(axis, ddof=1)
    found: AnyArray = deviation / math.sqrt(values.shape[axis])
    return found


def root_ratio(numerators: Values, denominators: Values, *, fields: str = "") -> Quantity:
    r"""The ratio :math:`\sqrt{\sum_b a_b / \sum_b c_b}` over independent fields b, with its jackknife standard error.

    Relative errors are such ratios.

    Args:
        numerators: squared errors a, shape ``(n,)``.
        denominators: squared references c, shape ``(n,)``; where they sum to zero the value is NaN.
        fields: names the fields, for pairing.

    >>> root_ratio([0.0, 8.0], [1.0, 1.0]).value  # the mean of the single roots is 1.41
    2.0
    """
    return pooled(numerators, denominators, exponent=0.5, fields=fields)


def ratio(numerators: Values, denominators: Values, *, fields: str = "") -> Quantity:
    r"""The ratio :math:`\sum_b a_b / \sum_b c_b` over independent fields b, with its jackknife standard error.

    Args:
        numerators: a, shape ``(n,)``; where one is not finite the value is NaN, and no sums are kept.
        denominators: c, shape ``(n,)``; where they sum to zero the value is NaN.
        fields: names the fields, for pairing.
    """
    a, c = _double(numerators), _double(denominators)
    if not np.isfinite([_plain(a), _plain(c)]).all():
        return Quantity.estimated(math.nan, math.nan, len(a))
    return pooled(a, c, exponent=1.0, fields=fields)


def pooled(numerators: Values, denominators: Values, *, exponent: float, fields: str = "") -> Quantity:
    """The pooled ratio of this exponent, with its jackknife standard error; see :func:`ratio`, :func:`root_ratio`."""
    a, c = _double(numerators), _double(denominators)
    n, sums = len(a), FieldSums(_plain(a), _plain(c), exponent, fields)
    below = float(c.sum())
    if not (below != 0 if exponent == 1 else below > 0):
        return Quantity(math.nan, math.nan, "estimate", n, sums)
    with np.errstate(all="ignore"):
        value = float(_power(a.sum() / c.sum(), exponent))
        variance = float(jackknife_variance(left_out(a, c, exponent))) if n > 1 else math.nan
    return Quantity(value, math.sqrt(variance), "estimate", n, sums)


def left_out(numerators: AnyArray, denominators: AnyArray, exponent: float) -> AnyArray:
    """The pooled ratio without each of its fields in turn; NaN where no denominator would be left."""
    below: Any = denominators.sum() - denominators
    defined = (below != 0).all() if exponent == 1 else (below > 0).all()
    with np.errstate(all="ignore"):
        found: AnyArray = _power((numerators.sum() - numerators) / below, exponent)
        return found if bool(defined) else found * math.nan


def _power(ratios: Any, exponent: float) -> Any:
    # Rounding may leave a sum without its only large term below zero.
    return ratios if exponent == 1 else ratios.clip(0) ** exponent


def share(part: Tensor, whole: Tensor) -> Quantity:
    """The share of a whole that a part has, pooled over fields, with its jackknife standard error.

    Args:
        part, whole: sums of every field, shape ``(n,)``; where the whole sums to zero the value is NaN.
    """
    import torch

    return jackknife(_pooled_share, torch.stack([part, whole], 1))


def _pooled_share(parts: Tensor) -> float:
    part, whole = parts.sum(0)
    return float(part / whole)


# --- the jackknife ----------------------------------------------------------------------------------------------------


def jackknife(estimator: Callable[[Tensor], float], draws: Tensor) -> Quantity:
    """An estimate from independent draws, stacked along the first axis, with its jackknife standard error."""
    import torch

    n = len(draws)
    without = [estimator(torch.cat([draws[:i], draws[i + 1 :]])) for i in range(n)] if n > 1 else []
    return jackknifed(torch.tensor([estimator(draws), *without], dtype=torch.float64), n=n)


def jackknifed(estimates: AnyArray, *, corrected: bool = False, n: int | None = None) -> Quantity:
    """An estimate with its jackknife standard error; without one where nothing was left out.

    Args:
        estimates: from all fields, then without each field, or each part of the fields, in turn; ``(1 + parts,)``.
        corrected: take the bias of order 1/n off the value.
        n: count that the estimate rests on; by default the number of parts.
    """
    value, without = float(estimates[0]), estimates[1:]
    count = len(without)
    error = math.sqrt(float(jackknife_variance(without))) if count > 1 else math.nan
    if corrected:
        value = float(count * value - (count - 1) * without.mean())
    return Quantity.estimated(value, error, count if n is None else n)


def jackknife_variance(without: AnyArray) -> AnyArray:
    """The jackknife variance from estimates without each field in turn, which the first axis counts."""
    count = len(without)
    found: AnyArray = (count - 1) / count * ((without - without.mean(0)) ** 2).sum(0)
    return found


def _is_tensor(values: object) -> bool:
    return hasattr(values, "detach")


def _double(values: Values) -> Any:
    any_values: Any = values
    return any_values.detach().double() if _is_tensor(values) else np.asarray(values, dtype=np.float64)


def _plain(values: Any) -> Array:
    return np.array(values.detach().cpu().numpy() if _is_tensor(values) else values, dtype=np.float64)


# --- several sets of fields -------------------------------------------------------------------------------------------


def derived(function: Function, *numbers: Quantity) -> Quantity:
    """What follows from numbers, with its jackknife variance; :data:`UNKNOWN` where a number or the result is.

    Args:
        function: of as many arguments as there are numbers; takes arrays too, element by element.
        numbers: what it is computed from.

    Example:
        >>> found = derived(lambda a, b: a / b, Quantity.estimated(2.0, 0.1, n=16), Quantity(4.0))
        >>> found.value, round(found.error, 3), found.degrees
        (0.5, 0.025, 15.0)
    """
    with np.errstate(all="ignore"):
        value = float(function(*(number.value for number in numbers)))
        if not (math.isfinite(value) and all(number.known for number in numbers)):
            return UNKNOWN
        shares = [_share(function, numbers, indices) for indices in _groups(numbers)]
    kind = weakest(*(number.kind for number in numbers))
    return Quantity.of_shares(value, (share for share in shares if share.variance != 0), kind)


def _groups(numbers: Sequence[Quantity]) -> Iterable[list[int]]:
    """Positions of the estimates that share their fields; other numbers are in no group."""
    groups: dict[object, list[int]] = defaultdict(list)
    for index, number in enumerate(numbers):
        if number.kind == "estimate":
            name = "" if number.sums is None else number.sums.fields
            groups[(name, number.n) if name else index].append(index)
    return groups.values()


def _share(function: Function, numbers: Sequence[Quantity], group: Sequence[int]) -> Share:
    first = numbers[group[0]]
    if first.sums is None:
        # Of a single draw there is no error; a NaN keeps every test from speaking.
        alone = math.isnan(first.degrees)
        return Share("", math.nan if alone else _linear(function, numbers, group[0]), 1 if alone else first.degrees)
    n = len(first.sums.numerators)
    variance = _paired(function, numbers, group, n) if n > 1 else math.nan
    return Share(first.sums.fields, variance, max(n - 1, 1))


def _paired(function: Function, numbers: Sequence[Quantity], group: Sequence[int], n: int) -> float:
    values = [_without(number) if index in group else number.value for index, number in enumerate(numbers)]
    return float(jackknife_variance(np.broadcast_to(function(*values), (n,))))


def _without(number: Quantity) -> Array:
    sums = number.sums or FieldSums(np.empty(0), np.empty(0))
    return left_out(sums.numerators, sums.denominators, sums.exponent)


def _linear(function: Function, numbers: Sequence[Quantity], index: int) -> float:
    """The squared derivative times the squared standard error."""
    number = numbers[index]
    step = 1e-4 * min(number.error, abs(number.value) or math.inf)
    if step == 0:
        return 0.0 if number.error == 0 else math.nan

    def at(value: float) -> float:
        return float(function(*(value if i == index else other.value for i, other in enumerate(numbers))))

    slope = (at(number.value + step) - at(number.value - step)) / (2 * step)
    return (slope * number.error) ** 2


def quotient(one: Quantity, other: Quantity) -> Quantity:
    """The ratio of two independent numbers, which rests on the fewer of their fields."""
    found = derived(lambda a, b: a / b, one, other)
    counts = [number.n for number in (one, other) if number.n is not None]
    return Quantity.estimated(found.value, found.error, min(counts)) if counts else Quantity(found.value)


def over_seeds(estimates: Sequence[Quantity]) -> Quantity:
    """The mean over seeds: its variance is the spread between seeds, and what fields that all of them share add.

    Seeds draw their own fields, so the spread holds the errors of these; an error that all seeds have in common, that
    of a reference measured once, does not show in it.
    """
    count = len(estimates)
    if count < 2 or not all(estimate.known for estimate in estimates):
        return UNKNOWN
    values = np.array([estimate.value for estimate in estimates])
    spread = Share("", float(values.var(ddof=1)) / count, count - 1)
    return Quantity.of_shares(float(values.mean()), (spread, *_common(estimates)))


def _common(estimates: Sequence[Quantity]) -> list[Share]:
    """The named groups of fields that every estimate rests on, with the largest of their contributions."""
    named = [{share.fields: share for share in estimate.shares if share.fields} for estimate in estimates]
    shared = set(named[0]).intersection(*named[1:])
    return [max((shares[name] for shares in named), key=lambda share: share.variance) for name in sorted(shared)]


# --- tests ------------------------------------------------------------------------------------------------------------


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


def equivalent(ratio: Quantity, tolerance: float, alpha: float) -> bool:
    """Whether a ratio is within ``1 ± tolerance``: both one-sided tests reject the outside (Schuirmann 1987)."""
    return ratio.lower(alpha) >= 1 - tolerance and ratio.upper(alpha) <= 1 + tolerance


def p_outside(ratio: Quantity, tolerance: float) -> float:
    """The p-value that a ratio is outside ``1 ± tolerance``, on whichever side; both sides count."""
    sides = ratio.p_above(1 + tolerance), ratio.p_below(1 - tolerance)
    return math.nan if math.isnan(sum(sides)) else min(1.0, 2 * min(sides))


def detectable_growth(ratio: Quantity, growth: float, alpha: float) -> float:
    """The smallest growth that this measurement could have called: a ratio so far above has its lower limit there.

    Args:
        ratio: the logarithm of the ratio of errors.
        growth: the growth that is allowed.
        alpha: level of the test.
    """
    return (1 + growth) * math.exp(min(ratio.margin(alpha), 700.0)) - 1


def more_needed(estimate: Quantity, threshold: float, alpha: float) -> float:
    """By which factor the fields must grow until the limit of the estimate, staying where it is, clears the threshold.

    Standard errors fall as the root of the number of fields; one where the limit does already.
    """
    distance = abs(estimate.value - threshold)
    if not distance > 0 or not math.isfinite(estimate.margin(alpha)):
        return math.inf
    return max(1.0, (estimate.margin(alpha) / distance) ** 2)
