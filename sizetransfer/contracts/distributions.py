r"""Quantiles that the standard library lacks: Student's t and the beta distribution.

Both follow from the regularised incomplete beta function

.. math:: I_x(a, b) = \frac{1}{B(a, b)} \int_0^x u^{a-1} (1-u)^{b-1} du,

evaluated by its continued fraction. Student's t with :math:`\nu` degrees of freedom has
:math:`P(T > t) = \tfrac12 I_{\nu / (\nu + t^2)}(\nu/2, 1/2)` for :math:`t \ge 0`.

References:
    Abramowitz and Stegun 1964, Handbook of Mathematical Functions, 26.5.8 (continued fraction) and 26.7.1 (t).
    Clopper and Pearson 1934, The use of confidence or fiducial limits, Biometrika 26.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

_TINY = 1e-300
_NORMAL = NormalDist()


def incomplete_beta(a: float, b: float, x: float) -> float:
    r"""The regularised incomplete beta function :math:`I_x(a, b)`.

    >>> round(incomplete_beta(2, 3, 0.5), 12)
    0.6875
    """
    if not 0 < x < 1:
        return min(max(x, 0.0), 1.0)
    # The continued fraction converges fast below the mean of the distribution; above it, its mirror image does.
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logarithm) / (a * _continued_fraction(a, b, x))


def _continued_fraction(a: float, b: float, x: float) -> float:
    """1 + d_1 / (1 + d_2 / (1 + ...)) with the coefficients of Abramowitz and Stegun 26.5.8, by Lentz's recursion."""
    value, upper, lower = 1.0, 1.0, 0.0
    for m in range(10_000):
        for coefficient in _coefficients(a, b, x, m):
            lower = 1 / _away_from_zero(1 + coefficient * lower)
            upper = _away_from_zero(1 + coefficient / upper)
            value *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return value


def _coefficients(a: float, b: float, x: float, m: int) -> tuple[float, float]:
    odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    even = (m + 1) * (b - m - 1) * x / ((a + 2 * m + 1) * (a + 2 * m + 2))
    return odd, even


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def student_tail(t: float, degrees: float) -> float:
    r"""The probability :math:`P(T > t)` of Student's t; of the normal law where ``degrees`` is infinite; NaN of NaN."""
    if math.isnan(t) or math.isnan(degrees):
        return math.nan
    if t < 0:
        return 1 - student_tail(-t, degrees)
    if math.isinf(degrees) or math.isinf(t):
        return _NORMAL.cdf(-t)
    return 0.5 * incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))


def student_quantile(alpha: float, degrees: float) -> float:
    """The t that is exceeded with probability ``alpha``, at most one half.

    Newton's steps on the tail, which is convex, from the normal quantile, which is smaller: they rise to the root
    and never pass it.

    >>> round(student_quantile(0.01, 7), 4)
    2.998
    """
    t = -_NORMAL.inv_cdf(alpha)
    if math.isnan(degrees) or math.isinf(degrees):
        return t if math.isinf(degrees) else math.nan
    for _ in range(200):
        step = (student_tail(t, degrees) - alpha) / _student_density(t, degrees)
        t += step
        if abs(step) <= 1e-13 * (1 + t):
            break
    return t


def _student_density(t: float, degrees: float) -> float:
    half = (degrees + 1) / 2
    logarithm = math.lgamma(half) - math.lgamma(degrees / 2) - half * math.log1p(t * t / degrees)
    return math.exp(logarithm) / math.sqrt(degrees * math.pi)


def clopper_pearson(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    r"""Exact one-sided limits of a probability, each at level ``alpha``.

    The upper limit is the p at which as few successes have probability ``alpha``:
    :math:`I_p(k + 1, n - k) = 1 - \alpha`; the lower one is where as many have: :math:`I_p(k, n - k + 1) = \alpha`.

    >>> [round(limit, 4) for limit in clopper_pearson(0, 250, 0.05)]
    [0.0, 0.0119]
    """
    rest = trials - successes
    lower = _root(lambda p: incomplete_beta(successes, rest + 1, p) - alpha) if successes else 0.0
    upper = _root(lambda p: incomplete_beta(successes + 1, rest, p) - (1 - alpha)) if rest else 1.0
    return lower, upper


def _root(rising: Callable[[float], float]) -> float:
    """The zero of a rising function on the unit interval, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
