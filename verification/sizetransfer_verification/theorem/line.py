r"""The bounded-Lipschitz norm on the line, for densities known on a grid.

.. math:: \|f\|_{BL} = \sup\Big\{\int\varphi f : |\varphi|\le1,\ \mathrm{Lip}(\varphi)\le1\Big\}.

Test functions that are linear between the points of a grid are test functions, so the largest value over them is a
lower bound; over a fine grid it falls short by the square of the spacing. It is found by dynamic programming over the
value of :math:`\varphi` at each point: the best value so far, as a function of :math:`\varphi(y_j)`, is concave and
piecewise linear; a step to the next point widens its plateau by the gap on both sides, and a mass tilts it. Nothing
here is shared with :mod:`sizetransfer.theorem1`, which solves the dual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sizetransfer.contracts.quantity import Quantity
from sizetransfer_verification.theorem.claim import halved

Array = NDArray[np.float64]


class _Kinks:
    """Kinks on one side of a plateau, nearest last: places as seen from the other side, and changes of slope."""

    def __init__(self) -> None:
        self._stack: list[tuple[float, float]] = []
        self._offset = 0.0

    def recede(self, gap: float) -> None:
        """Move all kinks away from the plateau."""
        self._offset += gap

    def push(self, place: float, weight: float) -> None:
        """Add the nearest kink."""
        self._stack.append((place - self._offset, weight))

    def take(self, weight: float) -> Iterator[tuple[float, float]]:
        """Remove a total change of slope, nearest first; beyond the last kink there is the wall, at one."""
        while weight > 0:
            if not self._stack:
                yield 1.0, weight
                return
            place, available = self._stack.pop()
            taken = min(weight, available)
            if taken < available:
                self._stack.append((place, available - taken))
            yield min(1.0, place + self._offset), taken
            weight -= taken


def signed_norm(points: Array, masses: Array) -> float:
    r"""Bounded-Lipschitz norm of signed masses :math:`\mu_j` at ordered points: the largest
    :math:`\sum_j\varphi(y_j)\mu_j`.

    Args:
        points: increasing, ``(n,)``.
        masses: ``(n,)``.

    Example:
        >>> round(signed_norm(np.array([0.0, 0.5]), np.array([1.0, -1.0])), 12)
        0.5
    """  # noqa: D205
    above, below, value = _Kinks(), _Kinks(), 0.0
    gaps = np.diff(points, prepend=points[0])
    for gap, mass in zip(gaps.tolist(), masses.tolist(), strict=True):
        above.recede(gap)
        below.recede(gap)
        source, sink = (above, below) if mass > 0 else (below, above)
        for place, weight in source.take(abs(mass)):
            value += place * weight
            sink.push(-place, weight)
    return value


def hat_masses(density: Array, spacing: float) -> Array:
    """Integrals of a density against the hat functions of a uniform grid; exact for cubics between the points."""
    padded = np.pad(density, 1)
    masses: Array = spacing * (padded[:-2] + 10 * padded[1:-1] + padded[2:]) / 12
    return masses


def density_norm(density: Callable[[Array], Array], low: float, high: float, points: int) -> Quantity:
    """Norm of a signed density that vanishes outside ``[low, high]``, with the change on halving as its error."""
    found = []
    for count in (points, points // 2):
        grid = np.linspace(low, high, count)
        found.append(signed_norm(grid, hat_masses(density(grid), float(grid[1] - grid[0]))))
    fine = halved(*found)
    # The rule for hat functions errs where a test function bends: by the fourth power of the spacing.
    return Quantity(fine.value, fine.error + 1e-7 * fine.value)


def atom_masses(grid: Array, atoms: Array, weights: Array) -> Array:
    """Integrals of point masses against the hat functions of a uniform grid that covers them."""
    place = (atoms - grid[0]) / (grid[1] - grid[0])
    left = np.clip(np.floor(place).astype(int), 0, len(grid) - 2)
    share = place - left
    masses = np.zeros(len(grid))
    np.add.at(masses, left, weights * (1 - share))
    np.add.at(masses, left + 1, weights * share)
    return masses


def normal_density(y: Array, mean: Array | float, std: float) -> Array:
    """Density of N(mean, std^2); arguments broadcast."""
    density: Array = np.exp(-0.5 * ((y - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    return density
