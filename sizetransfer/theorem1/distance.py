r"""Bounded-Lipschitz distance between Gaussians on the line, enclosed to rounding.

Convention (paper A.2): :math:`d_{BL}(P, Q) = \sup\{\int\varphi\,d(P-Q) : |\varphi|\le 1,\ \mathrm{Lip}(\varphi)\le 1\}
\le 2`. Symbols: f = p - q, the difference of the densities; p the narrower one; :math:`z_1 < z_2` the zeros of f,
so f is negative, positive, negative.

*Lower side*: any test function. The optimal one is a trapezoid: -1, rising with slope one on :math:`[a, a+2]`, 1,
falling on :math:`[b-2, b]`, -1. *Upper side*: integrating by parts, for any w of bounded variation that vanishes
at infinity,

.. math:: \int\varphi f = \int\varphi\,(f - w') - \int\varphi' w \le \|f - w'\|_1 + \|w\|_1 .

The Karush-Kuhn-Tucker conditions join the two: :math:`w = \int_a^x f` on a ramp, zero elsewhere, and
:math:`\int_a^{a+2} f = \int_{b-2}^b f = 0`. The ramps never overlap: an interval of length two that holds all of
:math:`[z_1, z_2]` has a positive integral, because f integrates to zero and is negative outside. Equal widths leave
one ramp, centred on the midpoint.

Both sides are evaluated in closed form, with :math:`H(z) = z\Phi(z) + \phi(z)`, the integral of :math:`\Phi`; a root
that is only nearly found widens the gap and harms neither side.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from sizetransfer.contracts.errors import OracleError
from sizetransfer.theorem1.quantities import Enclosure

_EPSILON = sys.float_info.epsilon
_NEGLIGIBLE = 40.0
"""Standard deviations beyond which a normal density is zero in double precision."""


def _upper_tail(z: float) -> float:
    """1 - Phi(z), to relative precision for positive z."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def _integrated_cdf(z: float) -> float:
    """H(z) = z Phi(z) + phi(z)."""
    return z * _upper_tail(-z) + math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class Normal:
    """A normal law on the line.

    Args:
        mean: its mean.
        std: its standard deviation.

    Raises:
        OracleError: the mean is not finite or the deviation not finite and positive.
    """

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 < self.std < math.inf):
            raise OracleError(
                "A normal law needs a finite mean and a positive standard deviation.",
                where="Normal(mean, std)",
                expected="a finite mean and 0 < std < infinity",
                got=f"mean = {self.mean!r}, std = {self.std!r}",
                fix="pass standard deviations, not variances, and none that is zero",
            )

    def mass(self, left: float, right: float) -> float:
        """Probability of ``[left, right]``, without cancellation in either tail."""
        low, high = (left - self.mean) / self.std, (right - self.mean) / self.std
        if low > 0:
            return _upper_tail(low) - _upper_tail(high)
        return _upper_tail(-high) - _upper_tail(-low)

    def clipped(self, centre: float) -> float:
        """E clip(X - centre, -1, 1)."""
        shift = self.mean - centre
        low, high = (-abs(shift) - 1) / self.std, (1 - abs(shift)) / self.std
        return math.copysign(1 - self.std * (_integrated_cdf(high) - _integrated_cdf(low)), shift)

    def integrated_mass(self, left: float, right: float) -> float:
        r""":math:`\int_{left}^{right} P[left, x]\,dx`."""
        low, high = (left - self.mean) / self.std, (right - self.mean) / self.std
        if low > 0:
            tails = self.std * (_integrated_cdf(-low) - _integrated_cdf(-high))
            return (right - left) * _upper_tail(low) - tails
        heads = self.std * (_integrated_cdf(high) - _integrated_cdf(low))
        return heads - (right - left) * _upper_tail(-low)


@dataclass(frozen=True)
class TestFunction:
    """A trapezoid: -1, up to 1 around ``rise``, down to -1 around ``fall``; without a rise it starts at 1.

    Attributes:
        rise: centre of the rising ramp, of half-width one; minus infinity for none.
        fall: centre of the falling ramp; infinity for none.
    """

    __test__ = False  # no test class, whatever its name

    rise: float
    fall: float

    def __call__(self, x: float) -> float:
        """Value at ``x``."""
        return min(_clip(x - self.rise), _clip(self.fall - x))

    def expectation(self, law: Normal) -> float:
        """Expected value under ``law``, minus one; exact where the ramps do not overlap."""
        rising = law.clipped(self.rise) - 1 if math.isfinite(self.rise) else 0.0
        falling = -law.clipped(self.fall) - 1 if math.isfinite(self.fall) else 0.0
        return rising + falling


def _clip(value: float) -> float:
    return max(-1.0, min(1.0, value))


def _sign_changes(narrow: Normal, wide: Normal) -> tuple[float, float]:
    """Zeros of the density of ``narrow``, of mean zero, minus that of ``wide``; infinite where there is no mass."""
    d = -wide.mean
    ratio = (wide.std - narrow.std) / narrow.std
    curvature = ratio * (2 + ratio)
    constant = d * d + 2 * wide.std**2 * math.log1p(ratio)
    # Roots of curvature y^2 - 2 d y - constant = 0 for the position y, without cancellation.
    larger = d + math.copysign(math.sqrt(d * d + curvature * constant), d)
    roots = (larger / curvature if curvature else math.copysign(math.inf, d), -constant / larger)
    z1, z2 = sorted(roots)
    reach = _NEGLIGIBLE * wide.std + abs(d) + 2
    return (z1 if z1 > -reach else -math.inf, z2 if z2 < reach else math.inf)


def _balanced(narrow: Normal, wide: Normal, left: float, right: float) -> float:
    """The x, by bisection, at which both laws give ``[x - 1, x + 1]`` the same mass.

    At ``left`` the narrow law must have the smaller mass and at ``right`` the larger; ``left > right`` is allowed.
    """
    for _ in range(80):
        middle = 0.5 * (left + right)
        if middle in {left, right}:
            break
        if narrow.mass(middle - 1, middle + 1) < wide.mass(middle - 1, middle + 1):
            left = middle
        else:
            right = middle
    return 0.5 * (left + right)


def optimal_test_function(first: Normal, second: Normal) -> TestFunction:
    """Return the trapezoid that separates two different normal laws best; larger under the narrower one.

    Raises:
        OracleError: the laws are equal.
    """
    if first == second:
        raise OracleError(
            "Equal laws have no separating test function.",
            where="optimal_test_function(first, second)",
            expected="two different normal laws",
            got=repr(first),
            fix="their distance is zero; any test function attains it",
        )
    narrow, wide = _centred(first, second)
    test, shift = _separating(narrow, wide), min(first, second, key=lambda law: law.std).mean
    return TestFunction(test.rise + shift, test.fall + shift)


def _centred(first: Normal, second: Normal) -> tuple[Normal, Normal]:
    """The narrower law and the wider one, moved so that the narrower has mean zero."""
    narrow, wide = sorted((first, second), key=lambda law: law.std)
    return Normal(0.0, narrow.std), Normal(wide.mean - narrow.mean, wide.std)


def _separating(narrow: Normal, wide: Normal) -> TestFunction:
    z1, z2 = _sign_changes(narrow, wide)
    return TestFunction(
        rise=_balanced(narrow, wide, z1 - 1, z1 + 1) if math.isfinite(z1) else -math.inf,
        fall=_balanced(narrow, wide, z2 + 1, z2 - 1) if math.isfinite(z2) else math.inf,
    )


def _dual_value(narrow: Normal, wide: Normal, test: TestFunction) -> float:
    """Upper side, ``|f - w'|_1 + |w|_1``, for the w that belongs to the ramps of ``test``."""
    zeros = [z for z in _sign_changes(narrow, wide) if math.isfinite(z)]
    ramps = [(centre - 1, centre + 1) for centre in (test.rise, test.fall) if math.isfinite(centre)]
    value = sum(_ramp_cost(narrow, wide, left, right, zeros) for left, right in ramps)
    edges = [-math.inf, *(edge for ramp in ramps for edge in ramp), math.inf]
    for left, right in zip(edges[::2], edges[1::2], strict=True):
        value += _absolute_mass(narrow, wide, left, right, zeros)
    return value


def _pieces(left: float, right: float, zeros: Sequence[float]) -> list[tuple[float, float]]:
    """``[left, right]`` cut where f changes sign."""
    cuts = [left, *(z for z in zeros if left < z < right), right]
    return list(itertools.pairwise(cuts))


def _absolute_mass(narrow: Normal, wide: Normal, left: float, right: float, zeros: Sequence[float]) -> float:
    """Integral of ``|f|``; ``right < left``, of overlapping ramps, counts what they overlap once more."""
    left, right = min(left, right), max(left, right)
    return sum(abs(narrow.mass(*piece) - wide.mass(*piece)) for piece in _pieces(left, right, zeros))


def _ramp_cost(narrow: Normal, wide: Normal, left: float, right: float, zeros: Sequence[float]) -> float:
    """Integral of ``|w|`` over a ramp, plus the jump of w back to zero at its end."""
    cost, w = 0.0, 0.0
    for piece in _pieces(left, right, zeros):
        width = piece[1] - piece[0]
        end = w + narrow.mass(*piece) - wide.mass(*piece)
        integral = w * width + narrow.integrated_mass(*piece) - wide.integrated_mass(*piece)
        # w is monotone here; where its ends differ in sign, the smaller lobe is at most this large.
        lobe = width * min(abs(w), abs(end)) if w * end < 0 else 0.0
        cost += abs(integral) + 2 * lobe
        w = end
    return cost + abs(w)


def bounded_lipschitz(first: Normal, second: Normal) -> Enclosure:
    r"""Bounded-Lipschitz distance between two normal laws, enclosed to rounding.

    Equal widths s at distance d have
    :math:`d_{BL} = 2\{s[H((d/2+1)/s) - H((d/2-1)/s)] - 1\}`; see the module for the general case.

    Args:
        first: one law.
        second: the other.

    Returns:
        A certificate whose gap is a few units of rounding of ``1 + std``.

    Example:
        >>> enclosure = bounded_lipschitz(Normal(0.0, 1.0), Normal(0.5, 1.5))
        >>> f"{enclosure.lower:.6f} {enclosure.gap < 1e-13}"
        '0.403449 True'
    """
    narrow, wide = _centred(first, second)
    if narrow == wide:
        return Enclosure(0.0, 0.0)
    test = _separating(narrow, wide)
    # A dozen terms of size one or of one deviation, each to an ulp or two; the position of a point relative to
    # the wider law is known to an ulp of the distance.
    rounding = _EPSILON * (24 * (1 + wide.std) + 4 * abs(wide.mean) / wide.std)
    lower = test.expectation(narrow) - test.expectation(wide) - rounding
    return Enclosure(max(0.0, lower), min(2.0, _dual_value(narrow, wide, test) + rounding))
