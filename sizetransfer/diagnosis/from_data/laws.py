r"""The law at every size, measured or forecast, and numbers of it with errors that are paired.

Where there are fields of a size, its law is the one fitted to them; elsewhere it is that of the training size, with its
spectrum at the waves of the new lattice. Numbers of one fit are functions of its versions, of all fields and without
each part of them; two numbers of the same fit lose the same part together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.quantity import FieldSums, Quantity
from sizetransfer.contracts.specs import NoiseSchedule
from sizetransfer.diagnosis.from_data.fit import FittedLaw
from sizetransfer.diagnosis.from_data.tables import Tables
from sizetransfer.diagnosis.law import RANGE
from sizetransfer.numerics.statistics import derived, ratio
from sizetransfer.scores.references import consequence
from sizetransfer.scores.references.cells import Cells
from sizetransfer.scores.references.consequence import COARSE_STEP, gain, spectrum
from sizetransfer.scores.references.filters import LinearFilter
from sizetransfer.scores.references.moments import TorusMoments, flat_index

NAMES = ("site variance", "nearest", "S(0)", "S(k_min)")
"""In the order of :func:`sizetransfer.scores.references.consequence.marginals`."""
INFINITE = 4
"""The torus that stands for the plane around a crop has so many times its sides."""

Function = Callable[..., Sequence[float]]


@dataclass(frozen=True, eq=False)
class SizeLaw:
    """The law at one size.

    Attributes:
        size: sites along each axis.
        fit: what it is taken from.
        measured: whether that are fields of this size.
    """

    size: int
    fit: FittedLaw
    measured: bool

    @cached_property
    def versions(self) -> tuple[TorusMoments, ...]:
        """Second moments on a torus of this size: of all fields, then without each part of them."""
        return tuple(one.moments(self.size) for one in self.fit.versions)

    @cached_property
    def box(self) -> tuple[TorusMoments, ...]:
        """Second moments that a student trained on these fields meets: those of the plane, for crops."""
        if self.fit.tables.torus:
            return self.versions
        return tuple(one.moments(INFINITE * self.size) for one in self.fit.versions)

    @cached_property
    def sigma_needed(self) -> float:
        """Noise level at which the reverse process has to start."""
        return math.sqrt(RANGE * float(torch.linalg.eigvalsh(spectrum(self.versions[0])).max()))

    @cached_property
    def marginals(self) -> list[Quantity]:
        """The four of :data:`NAMES`."""
        return numbers(marginals, self, names=[self.fit.tables.fields])


def numbers(function: Function, *laws: Sequence[TorusMoments] | SizeLaw, names: Sequence[str]) -> list[Quantity]:
    """Functions of moments with jackknife errors; laws of one fit lose their parts together.

    Args:
        function: of as many moments as there are laws.
        laws: the laws.
        names: of the fields that each law rests on.
    """
    versions = [law.versions if isinstance(law, SizeLaw) else law for law in laws]
    value = np.array(function(*(one[0] for one in versions)), dtype=np.float64)
    groups = list(dict.fromkeys(names))
    parts = [_left_out(function, versions, [name == group for name in names]) for group in groups]
    return [_number(float(value[place]), [left[:, place] for left in parts], groups) for place in range(len(value))]


def _left_out(function: Function, versions: Sequence[Sequence[TorusMoments]], own: Sequence[bool]) -> np.ndarray:
    count = min(len(one) for one, belongs in zip(versions, own, strict=True) if belongs)
    rows = []
    for place in range(1, count):
        chosen = [one[place] if belongs else one[0] for one, belongs in zip(versions, own, strict=True)]
        rows.append(function(*chosen))
    return np.array(rows, dtype=np.float64)


def _number(value: float, parts: Sequence[np.ndarray], groups: Sequence[str]) -> Quantity:
    variance = math.fsum((len(left) - 1) / len(left) * float(np.square(left - left.mean()).sum()) for left in parts)
    count = min(len(left) for left in parts)
    if len(parts) > 1:
        return Quantity.estimated(value, math.sqrt(variance), count)
    left = parts[0]
    # Sums whose ratio without one part is the value without it, so that numbers of one fit are paired.
    numerators, denominators = left.mean() - left * (1 - 1 / count), np.full(count, 1 / count)
    sums = FieldSums(numerators, denominators, 1.0, f"{groups[0]} parts")
    return Quantity(value, math.sqrt(variance), "estimate", count, sums)


# --- functions of moments ---------------------------------------------------------------------------------------------


def marginals(law: TorusMoments) -> tuple[float, float, float, float]:
    """Site variance, nearest covariance, S(0) and S(k_min)."""
    return consequence.marginals(spectrum(law), law.cells)


def change(before: TorusMoments, after: TorusMoments) -> list[float]:
    """How the law itself changes: the four, at the larger over those at the smaller size."""
    return list(consequence.ratios(marginals(after), marginals(before)))


def generated(radius: int, noise: NoiseSchedule) -> Function:
    """What the best filter of the first law generates on the second one, over what it should: the four ratios."""

    def ratios(fitted: TorusMoments, law: TorusMoments) -> list[float]:
        linear, exact = _filter(fitted, radius), spectrum(law)
        if exact.shape[1] == 1:
            made = single_spectrum(linear, exact[:, 0, 0].real, law, noise).to(exact)[:, None, None]
        else:
            made = matrix_spectrum(linear, exact, law, noise)
        return list(consequence.ratios(consequence.marginals(made, law.cells), consequence.marginals(exact, law.cells)))

    return ratios


def single_spectrum(
    linear: LinearFilter, clean: Float[Tensor, "waves"], law: TorusMoments, noise: NoiseSchedule
) -> Float[Tensor, "waves"]:
    """The same as :func:`.consequence.generated_spectrum` where all waves are numbers: several times as fast.

    Args:
        linear: a filter of sites that are alike.
        clean: spectrum of the law.
        law: names the torus.
        noise: range of the integral.
    """
    shape = tuple(law.labels.shape)
    top, bottom = 2 * math.log(noise.sigma_max), 2 * math.log(noise.sigma_min)
    steps = math.ceil((top - bottom) / COARSE_STEP)
    h = (bottom - top) / steps
    levels = torch.exp(top + h / 2 * torch.arange(2 * steps + 1, dtype=torch.float64))
    weights = linear.solvers[0].weights(levels)[:, 0, 0]
    flat = flat_index(linear.steps, shape)
    half = torch.fft.rfftn(torch.unflatten(clean, 0, shape)).shape
    power = torch.unflatten(clean, 0, shape)[..., : half[-1]] + levels[0]

    def factors(place: int) -> Tensor:
        kernel = weights.new_zeros(law.labels.numel()).index_add(0, flat, weights[place])
        waves: Tensor = -2 * levels[place] * torch.fft.rfftn(torch.unflatten(kernel, 0, shape)).real
        return waves

    now = factors(0)
    for place in range(0, 2 * steps, 2):
        v, middle, after = (float(one) for one in levels[place : place + 3])
        half_way, following = factors(place + 1), factors(place + 2)
        k1 = now * power - v
        k2 = half_way * (power + h / 2 * k1) - middle
        k3 = half_way * (power + h / 2 * k2) - middle
        k4 = following * (power + h * k3) - after
        power, now = power + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), following
    found: Tensor = torch.fft.fftn(torch.fft.irfftn(power - levels[-1], s=shape)).real
    return found.flatten()


def matrix_spectrum(
    linear: LinearFilter, clean: Float[Tensor, "waves m m"], law: TorusMoments, noise: NoiseSchedule
) -> Float[Tensor, "waves m m"]:
    """The same where the waves are matrices: of every wave and its opposite one, which are conjugate, one.

    Args:
        linear: a filter of one class, or one for every class of the cells.
        clean: spectrum of the law.
        law: names the torus.
        noise: range of the integral.
    """
    grid, size = law.cells.grid, clean.shape[-1]
    half = torch.unflatten(clean.permute(1, 2, 0), -1, grid)[..., : grid[-1] // 2 + 1].flatten(2).contiguous()
    unit = torch.eye(size, dtype=clean.dtype)[..., None]
    top, bottom = 2 * math.log(noise.sigma_max), 2 * math.log(noise.sigma_min)
    steps = math.ceil((top - bottom) / COARSE_STEP)
    h = (bottom - top) / steps
    levels = torch.exp(top + h / 2 * torch.arange(2 * steps + 1, dtype=torch.float64))
    factors = _Factors(linear, law.cells, levels)

    def rate(place: int, scaled: Tensor, power: Tensor) -> Tensor:
        # Waves are last in memory: products of many small matrices, one column at a time.
        product = torch.stack([scaled[:, j, None] * power[j] for j in range(size)]).sum(0)
        return product + product.transpose(0, 1).conj() - levels[place] * unit

    power, now = half + levels[0] * unit, factors(0)
    for place in range(0, 2 * steps, 2):
        half_way, following = factors(place + 1), factors(place + 2)
        k1 = rate(place, now, power)
        k2 = rate(place + 1, half_way, power + h / 2 * k1)
        k3 = rate(place + 1, half_way, power + h / 2 * k2)
        k4 = rate(place + 2, following, power + h * k3)
        power, now = power + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), following
    axes = tuple(range(2, 2 + len(grid)))
    waves = torch.unflatten(power - levels[-1] * unit, -1, (*grid[:-1], -1))
    found: Tensor = torch.fft.fftn(torch.fft.irfftn(waves, s=grid, dim=axes), dim=axes)
    return found.flatten(2).permute(2, 0, 1)


class _Factors:
    """The factors v a(v) of a filter at half of the waves, by the place of v, ``(m, m, half)``.

    Args:
        linear: the filter.
        cells: of the torus.
        levels: noise variances v.
    """

    def __init__(self, linear: LinearFilter, cells: Cells, levels: Tensor) -> None:
        self.cells, self.levels = cells, levels
        self.weights = torch.stack([solver.weights(levels) for solver in linear.solvers], 1)
        period, sites = cells.period, torch.tensor(cells.sites)
        ends = sites[:, None] + linear.steps
        inside = flat_index(ends % period, (period,) * ends.shape[-1])
        cell = flat_index(ends.div(period, rounding_mode="floor"), cells.grid)
        self.places = inside * math.prod(cells.grid) + cell

    def __call__(self, place: int) -> Float[Tensor, "m m half"]:
        weights, grid, count = self.weights[place], self.cells.grid, len(self.cells.sites)
        table = weights.new_zeros(count, *weights.shape[1:3], count * math.prod(grid))
        for site, label in enumerate(self.cells.classes):
            table[site].index_add_(-1, self.places[site], weights[label if len(weights) > 1 else 0])
        blocks = torch.unflatten(table, -1, (count, *grid))
        waves = torch.fft.rfftn(blocks, dim=tuple(range(4, blocks.ndim))).flatten(4).transpose(2, 3)
        found: Tensor = -self.levels[place] * waves.flatten(0, 1).flatten(1, 2)
        return found


def score_errors(radius: int, sigmas: Sequence[float]) -> Function:
    """Relative errors of the best filter of the first law for the score of the second, by noise level."""

    def errors(fitted: TorusMoments, law: TorusMoments) -> list[float]:
        linear, clean = _filter(fitted, radius), spectrum(law)
        return [_error(linear, clean, law, sigma) for sigma in sigmas]

    return errors


def _error(linear: LinearFilter, clean: Tensor, law: TorusMoments, sigma: float) -> float:
    v = torch.tensor(sigma**2, dtype=torch.float64)
    noisy = clean + v * torch.eye(clean.shape[-1], dtype=clean.dtype)
    exact = torch.linalg.inv(noisy)
    off = gain(linear, v, law.cells).to(noisy) - exact
    wrong = (off @ noisy @ off.mH).diagonal(dim1=1, dim2=2).real.sum()
    return math.sqrt(max(float(wrong / exact.diagonal(dim1=1, dim2=2).real.sum()), 0.0))


@lru_cache(maxsize=32)
def _filter(fitted: TorusMoments, radius: int) -> LinearFilter:
    return fitted.filter(radius)


# --- correlation length -----------------------------------------------------------------------------------------------


def correlation_squared(tables: Tables) -> Quantity:
    r"""Squared second-moment correlation length of the fields, without a fit.

    Around a torus :math:`(S(0)/S(k_\mathrm{min}) - 1) / (4\sin^2(\pi/L))`; of a crop :math:`\sum r^2 C / (2d \sum C)`
    over displacements up to a quarter of it.
    It is not known where the mean was taken off every field, and S(0) with it.
    """
    if tables.removed:
        return Quantity(math.nan)
    above, below = (_torus_sums if tables.torus else _pair_sums)(tables)
    shares = tables.shares
    first, second = (ratio(tables.shares * one, shares, fields=tables.fields) for one in (above, below))
    found = derived(lambda a, b: a / b, first, second)
    return Quantity.estimated(found.value, found.error, tables.groups)


def _torus_sums(tables: Tables) -> tuple[Tensor, Tensor]:
    covariance = tables.products.mean(1).diagonal(dim1=1, dim2=2).mean(-1)
    waves = torch.fft.fftn(covariance, dim=tuple(range(1, covariance.ndim))).real
    steps = [tuple(int(axis == other) for other in range(tables.dim)) for axis in range(tables.dim)]
    smallest = torch.stack([waves[(slice(None), *step)] for step in steps]).mean(0)
    zero = waves.flatten(1)[:, 0] * tables.count / max(1, tables.count - 1)
    scale = 4 * math.sin(math.pi / tables.size) ** 2
    return (zero - smallest) / scale, smallest


def _pair_sums(tables: Tables) -> tuple[Tensor, Tensor]:
    covariance = tables.products.mean(1).diagonal(dim1=1, dim2=2).mean(-1)
    length = tables.labels.shape[0]
    steps = torch.fft.fftfreq(length, 1 / length).round()
    grid = torch.stack(torch.meshgrid(*[steps] * tables.dim, indexing="ij"))
    near = (grid.abs() <= max(1, tables.size // 4)).all(0)
    squared = grid.square().sum(0).double()
    return (covariance * near * squared).flatten(1).sum(1) / (2 * tables.dim), (covariance * near).flatten(1).sum(1)
