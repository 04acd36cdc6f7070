r"""How far the best linear score and denoiser look, from the covariance of the fields: held out, without drawing noise.

The best linear denoiser of the ball B of radius r has the weights :math:`w = (C_{BB} + v)^{-1} C_{Bi}`,
:math:`v = \sigma^2`, from one diagonalisation for all v. On a field that it was not fitted to, of covariance
:math:`C_f`, its error is exact over the noise,

.. math:: m_r = (w - \delta)^T C_f\,(w - \delta) + v\,|w|^2 ,

around a torus :math:`\tfrac1N\sum_k |w_k - 1|^2 S_f(k) + v|w|^2`. Filters are fitted to the fields of three folds of
four, with the best of some ridges :math:`v \to v + \lambda`, and judged on the fourth. Balls nest: what a radius is
worth is the least error of any radius up to it. With :math:`m_*` the least error of all filters, the whole torus (by
the fitted precision) among them, and :math:`c_0` the variance of a site,

.. math:: e_r^2 = \frac{m_r - m_*}{v - m_*}, \qquad d_r^2 = \frac{m_r - m_*}{c_0 - m_*}

are the relative squared errors of the score and of the denoiser. Errors are by the jackknife over fields, with the
filters as they are. All is of second order: a network may do better with what a filter does not see.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.quantity import FieldSums, Quantity
from sizetransfer.diagnosis.from_data.fit import FOLDS, FittedLaw
from sizetransfer.diagnosis.from_data.tables import Tables
from sizetransfer.numerics.statistics import root_ratio
from sizetransfer.scores.references.balls import steps_of
from sizetransfer.scores.references.classes import class_steps
from sizetransfer.scores.references.filters import LinearFilter
from sizetransfer.scores.references.moments import flat_index

RIDGES = (0.0, 0.01, 0.03, 0.1)
"""Ridges that are tried, in units of the noise variance."""
THRESHOLD = 0.1
"""The range is where the error falls below this."""
LARGEST_BALL = 640
"""Components of the largest ball that is fitted without being asked for."""
LARGEST_RADIUS = 12

Array = np.ndarray


@dataclass(frozen=True)
class RadiusError:
    """What the best linear filter of a radius reaches at one noise level.

    Attributes:
        radius: of the ball.
        score, denoiser: relative errors e_r and d_r.
    """

    radius: int
    score: Quantity
    denoiser: Quantity


@dataclass(frozen=True)
class Range:
    """The smallest radius at which an error is below the threshold, interpolated.

    Attributes:
        value: the radius; infinite where none up to the largest reaches the threshold.
        standard_error: of the jackknife over fields; NaN where some part of the fields has no such radius.
        n: groups of fields.
    """

    value: float
    standard_error: float
    n: int

    @property
    def reached(self) -> bool:
        """Whether a radius that was tried is enough."""
        return math.isfinite(self.value)


@dataclass(frozen=True)
class LevelRange:
    """The covariance range at one noise level.

    Attributes:
        sigma: noise level.
        errors: by radius, ascending.
        score, denoiser: smallest radius whose error is below the threshold.
        best: what the best filter is: a radius, or the whole torus by the fitted precision.
        least: its errors, by group.
    """

    sigma: float
    errors: tuple[RadiusError, ...]
    score: Range
    denoiser: Range
    best: str
    least: tuple[float, ...] = field(repr=False)

    def relative(self, tables: Tables, losses: Tensor) -> Quantity:
        """Relative score error of a filter with these errors on the groups of the same fields."""
        least = torch.tensor(self.least, dtype=torch.float64)
        excess, power = tables.shares * (losses - least), tables.shares * (self.sigma**2 - least)
        return root_ratio(excess, power, fields=tables.fields)

    def at(self, radius: int) -> RadiusError:
        """Of one radius, or of the largest below it that was fitted."""
        return max((one for one in self.errors if one.radius <= radius), key=lambda one: one.radius)


def radii_of(tables: Tables, asked: Sequence[int]) -> tuple[int, ...]:
    """Radii whose filters are fitted: all up to those that balls of a moderate number of components allow.

    Args:
        tables: the fields.
        asked: radii that must be among them, as far as the lattice holds their balls.
    """
    lags = tables.labels.shape[0]
    widest = (lags - 1) // 2 if tables.torus else (lags - 2) // 4
    lattice = Lattice((4 * LARGEST_RADIUS + 3,) * tables.dim)
    usual = [r for r in range(LARGEST_RADIUS + 1) if tables.channels * len(steps_of(lattice, r)) <= LARGEST_BALL]
    return tuple(sorted(r for r in {*usual, *asked} if r <= widest))


def covariance_ranges(
    tables: Tables,
    sigmas: Sequence[float],
    radii: Sequence[int],
    law: FittedLaw | None,
    *,
    asked: Sequence[int] | None = None,
) -> tuple[LevelRange, ...]:
    """The errors of all radii at every noise level, and the ranges that follow.

    Args:
        tables: the fields.
        sigmas: noise levels.
        radii: ascending, from zero.
        law: fitted to these fields; it gives the filter of the whole torus, with the range of its couplings.
        asked: radii whose errors are wanted however small they are; by default all. Others are left out once two
            radii in a row are, for score and denoiser at every level, within a tenth of the threshold of the best.
    """
    losses, fitted = _losses(tables, sigmas, radii, law, set(radii if asked is None else asked))
    variances = _variances(tables)
    return tuple(_level(tables, sigma, fitted, losses[:, place], variances) for place, sigma in enumerate(sigmas))


def held_out_errors(tables: Tables, linear: LinearFilter, sigmas: Sequence[float]) -> Float[Tensor, "levels groups"]:
    r"""Errors :math:`m` of one filter on the fields of every group, exact over the noise."""
    v = torch.tensor([sigma**2 for sigma in sigmas], dtype=torch.float64)
    return _judged(tables, linear, v, v, list(range(tables.groups)))


# --- losses -----------------------------------------------------------------------------------------------------------


def _losses(
    tables: Tables, sigmas: Sequence[float], radii: Sequence[int], law: FittedLaw | None, asked: set[int]
) -> tuple[Float[Tensor, "filters levels groups"], list[int]]:
    """Held-out errors of every radius, by its best way of fitting, and of the whole torus where there is a law."""
    folds = _Folds(tables, sigmas, law)
    whole = [folds.losses(None)] if law is not None and tables.torus else []
    found: list[Tensor] = []
    fitted: list[int] = []
    for radius in radii:
        if radius in asked or not whole or not folds.settled([*found[-2:], *whole], len(found)):
            found.append(folds.losses(radius))
            fitted.append(radius)
    return torch.stack([*found, *whole]), fitted


class _Folds:
    """Filters fitted to the fields of the other folds.

    Args:
        tables, sigmas, law: as for :func:`covariance_ranges`.
    """

    def __init__(self, tables: Tables, sigmas: Sequence[float], law: FittedLaw | None) -> None:
        self.tables, self.parts = tables, tables.parts(FOLDS)
        self.v = torch.tensor([sigma**2 for sigma in sigmas], dtype=torch.float64)
        self.moments = [tables.moments(tables.without(part)) for part in self.parts]
        side = tables.size * (1 if tables.torus else 4)
        self.laws = [None if law is None else law.folds[fold].moments(side) for fold in range(len(self.parts))]

    def losses(self, radius: int | None) -> Float[Tensor, "levels groups"]:
        """Held-out errors of a radius, or of the whole torus, by the best way of fitting at every level."""
        found = torch.full((len(RIDGES) + 1, len(self.v), self.tables.groups), torch.inf, dtype=torch.float64)
        for part, moments, law in zip(self.parts, self.moments, self.laws, strict=True):
            if radius is not None:
                ridged = torch.cat([self.v * (1 + ridge) for ridge in RIDGES])
                judged = _judged(self.tables, moments.filter(radius), self.v.repeat(len(RIDGES)), ridged, part)
                found[:-1, :, part] = torch.unflatten(judged, 0, (len(RIDGES), len(self.v)))
            if law is not None:
                found[-1, :, part] = _judged(self.tables, law.filter(radius), self.v, self.v, part)
        chosen = torch.nan_to_num(found @ self.tables.shares, nan=torch.inf).argmin(0)
        return found.gather(0, chosen[None, :, None].expand(1, -1, self.tables.groups))[0]

    def settled(self, found: Sequence[Tensor], count: int) -> bool:
        """Whether the last two radii, of so many, are within a tenth of the threshold of the best there is."""
        totals = torch.stack([one @ self.tables.shares for one in found])
        least = totals.min(0).values
        scale = torch.minimum(self.v, _variances(self.tables) @ self.tables.shares) - least
        return count > 1 and bool((totals[:2] - least <= (0.1 * THRESHOLD) ** 2 * scale).all())


def _judged(tables: Tables, linear: LinearFilter, v: Tensor, ridged: Tensor, groups: Sequence[int]) -> Tensor:
    """Errors of a filter at noise v, fitted to be best at ``ridged``: by level and group."""
    classes, products = len(tables.products[0]), tables.products[torch.as_tensor(list(groups))]
    total = torch.zeros(len(v), len(groups), dtype=torch.float64)
    centre = int((linear.steps == 0).all(1).nonzero())
    for label in range(classes):
        solver = linear.solvers[label if len(linear.solvers) > 1 else 0]
        off = ridged[:, None, None, None] * solver.weights(ridged)  # w - delta
        weights = off.clone()
        weights[..., centre] += torch.eye(tables.channels, dtype=torch.float64)
        noise = v * weights.square().sum((1, 2, 3))
        total += noise[:, None] + _quadratic(off, linear.steps, label, tables.labels, products)
    return total / (classes * tables.channels)


def _quadratic(
    off: Float[Tensor, "levels rows channels sites"], steps: Tensor, label: int, labels: Tensor, products: Tensor
) -> Float[Tensor, "levels groups"]:
    """The sum of ``off_d C_f(d, d') off_d'``, with the covariances of every group around a site of a class."""
    shape, axes = tuple(labels.shape), tuple(range(-labels.ndim, 0))
    placed = off.new_zeros(*off.shape[:3], labels.numel()).index_add(-1, flat_index(steps, shape), off)
    placed = torch.unflatten(placed, -1, shape)
    second = torch.fft.rfftn(placed, dim=axes)
    there = cast(Tensor, class_steps(labels))[label]
    total = off.new_zeros(len(off), len(products))
    for other in range(products.shape[1]):
        first = torch.fft.rfftn(placed * (there == other), dim=axes).conj()
        kernel = torch.fft.irfftn(torch.einsum("lri...,lrj...->lij...", first, second), s=shape, dim=axes)
        total += kernel.flatten(1) @ products[:, other].flatten(1).T
    return total


def _variances(tables: Tables) -> Float[Tensor, "groups"]:
    """Variance of a component of a site in every group."""
    origin = tables.products.flatten(4)[..., 0]
    return origin.diagonal(dim1=-2, dim2=-1).mean((1, 2))


# --- errors and ranges ------------------------------------------------------------------------------------------------


def _level(tables: Tables, sigma: float, radii: Sequence[int], losses: Tensor, variances: Tensor) -> LevelRange:
    """Losses ``(filters, groups)``, the whole torus last where it is there."""
    totals = losses @ tables.shares
    running = _running_minimum(totals[: len(radii)])
    best = int(totals.argmin())
    sums = _Sums(
        (tables.shares * losses[running]).numpy(),
        (tables.shares * losses[best]).numpy(),
        (tables.shares * sigma**2).numpy(),
        (tables.shares * variances).numpy(),
        tables.fields,
    )
    errors = tuple(
        RadiusError(radius, sums.number(place, sums.noise), sums.number(place, sums.variance))
        for place, radius in enumerate(radii)
    )
    name = f"radius {radii[best]}" if best < len(radii) else "the whole torus"
    score, denoiser = (sums.range(radii, scale) for scale in (sums.noise, sums.variance))
    return LevelRange(sigma, errors, score, denoiser, name, tuple(losses[best].tolist()))


def _running_minimum(totals: Tensor) -> list[int]:
    """Place of the least total up to each."""
    found: list[int] = []
    for place, total in enumerate(totals.tolist()):
        found.append(place if not found or total < float(totals[found[-1]]) else found[-1])
    return found


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums of every group: m by radius, the least m, v and c_0."""

    losses: Array
    best: Array
    noise: Array
    variance: Array
    fields: str

    def number(self, place: int, scale: Array) -> Quantity:
        """The relative error of one radius."""
        excess = self.losses[place] - self.best
        if not np.any(excess):
            return Quantity(0.0, 0.0, "estimate", len(excess), FieldSums(excess, scale - self.best, 0.5, self.fields))
        return root_ratio(excess, scale - self.best, fields=self.fields)

    def range(self, radii: Sequence[int], scale: Array) -> Range:
        """Smallest radius below the threshold, with its jackknife error."""
        excess, power = self.losses - self.best, scale - self.best
        value = crossing(radii, excess.sum(1) / power.sum())
        count = len(power)
        left = [crossing(radii, (excess.sum(1) - excess[:, g]) / (power.sum() - power[g])) for g in range(count)]
        spread = np.array(left) - np.mean(left) if all(map(math.isfinite, left)) else np.full(count, np.nan)
        return Range(value, float(np.sqrt((count - 1) / count * np.square(spread).sum())), count)


def crossing(radii: Sequence[int], squared: Array, threshold: float = THRESHOLD) -> float:
    """Radius at which an error that falls with the radius crosses the threshold, linear in its logarithm.

    >>> round(crossing((0, 1, 2), np.array([1.0, 0.04, 0.0004])), 2)
    1.3
    """
    errors = np.sqrt(np.maximum(squared, 1e-12))
    below = np.nonzero(errors < threshold)[0]
    if not len(below):
        return math.inf
    place = int(below[0])
    if place == 0:
        return float(radii[0])
    first, second = math.log(errors[place - 1]), math.log(errors[place])
    share = (first - math.log(threshold)) / (first - second)
    return radii[place - 1] + share * (radii[place] - radii[place - 1])
