r"""Whether the sites of stored fields are alike, or of sublattices that alternate.

With the sign :math:`\chi_u(i) = (-1)^{u\cdot i}` of a sublattice pattern (u = (1, 1): checkerboard; (1, 0): every
other row), the means over a field of :math:`\chi_u(i)\,x_i` and :math:`\chi_u(i)\,x_i x_{i+q}`, for q = 0 and one and
two steps along each axis, vanish where translations by one site leave the law as it is. Each is tested over fields, by
Student's t and Holm's step-down; a pattern counts if it is also larger than a share of the variance. A filter that does
not know the sublattice of its centre would else be held for the best there is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sizetransfer.contracts.distributions import student_tail
from sizetransfer.contracts.stored import StoredFields
from sizetransfer.numerics.statistics import holm

ALPHA = 0.01
LEAST = 0.01
"""Share of the variance, or of the deviation, below which a difference between classes does not count."""
FIELDS = 512
"""At most so many fields are looked at."""
_NUMBERS_AT_A_TIME = 2**20
_TINY = 1e-300
"""Stands for the variance of a channel that does not vary, which is refused afterwards."""

Pattern = tuple[int, ...]


@dataclass(frozen=True)
class SiteClassesFound:
    """What is known of the classes of sites.

    Attributes:
        patterns: the patterns that were found, as steps of the period-two pattern along each axis.
        labels: class of every site of a cell, ``(2,) * dim``; zero everywhere where sites are alike.
        largest: the largest difference relative to the variance (for means: to the deviation), of any pattern.
        fields: how many were looked at.
        tested: whether there was anything to test: a torus of odd size has no such classes.
    """

    patterns: tuple[Pattern, ...]
    labels: Int[Tensor, "*cell"]
    largest: float
    fields: int
    tested: bool

    @property
    def count(self) -> int:
        """Classes."""
        return int(self.labels.max()) + 1

    @property
    def name(self) -> str:
        """How they are called."""
        if not self.patterns:
            return "sites are alike"
        if self.patterns == ((1,) * self.labels.ndim,):
            return "a checkerboard of two sublattices"
        axes = sorted({axis for pattern in self.patterns for axis, step in enumerate(pattern) if step})
        return f"{self.count} sublattices of period 2 along the axes {', '.join(map(str, axes))}"


def find_classes(stored: StoredFields, size: int) -> SiteClassesFound:
    """Look for sublattices in the fields of one size."""
    dim, side = stored.dim, size - size % 2
    torus = stored.boundary == "periodic"
    count = min(stored.count(size), FIELDS)
    if torus and size % 2:
        return SiteClassesFound((), torch.zeros((2,) * dim, dtype=torch.int64), 0.0, 0, tested=False)
    patterns = [one for one in itertools.product((0, 1), repeat=dim) if any(one)]
    signs = torch.stack([_sign(pattern, side) for pattern in patterns])
    within: tuple[Any, ...] = (..., *(slice(side),) * dim)
    mean = _mean(stored, size, count)
    rows = [_statistics(x[within] - mean, signs, torus=torus) for x in _chunks(stored, size, count)]
    table = torch.cat([row for row, _ in rows])
    power = torch.cat([square for _, square in rows]).mean(0)  # by channel
    scale = torch.cat([power.sqrt(), power.repeat((table.shape[2] - len(power)) // len(power))]).clamp_min(_TINY)
    tests, effects = {}, {}
    value, error = table.mean(0), table.std(0) / math.sqrt(count)
    for place, column in itertools.product(range(len(patterns)), range(table.shape[2])):
        effect, spread = abs(float(value[place, column])), float(error[place, column])
        name = f"{place} {column}"
        effects[name] = effect / float(scale[column])
        tests[name] = 2 * student_tail(effect / spread, count - 1) if spread > 0 else float(effect == 0)
    found = {int(name.split()[0]) for name in holm(tests, ALPHA) if effects[name] > LEAST}
    chosen = tuple(patterns[place] for place in sorted(found))
    return SiteClassesFound(chosen, _labels(chosen, dim), max(effects.values()), count, tested=True)


def _mean(stored: StoredFields, size: int, count: int) -> Tensor:
    """Of each channel, like a field."""
    axes = tuple(range(2, stored.dim + 2))
    sums = [x.mean(axes).sum(0) for x in _chunks(stored, size, count)]
    return torch.stack(sums).sum(0).reshape(-1, *(1,) * stored.dim) / count


def _chunks(stored: StoredFields, size: int, count: int) -> Iterator[Tensor]:
    together = max(1, _NUMBERS_AT_A_TIME // (stored.channels * size**stored.dim))
    parts = (range(start, min(start + together, count)) for start in range(0, count, together))
    return (stored.rows(size, slice(part.start, part.stop)).double() for part in parts)


def _sign(pattern: Pattern, side: int) -> Float[Tensor, "*size"]:
    grid = torch.meshgrid(*[torch.arange(side)] * len(pattern), indexing="ij")
    parity = sum(axis * step for axis, step in zip(grid, pattern, strict=True))
    return 1.0 - 2.0 * (torch.as_tensor(parity) % 2).double()


def _statistics(x: Tensor, signs: Tensor, *, torus: bool) -> tuple[Tensor, Tensor]:
    """Signed means of the field and of its products by field, pattern and quantity; and mean squares by channel."""
    axes = tuple(range(2, x.ndim))
    quantities = [x, x * x]
    for axis, step in itertools.product(axes, (1, 2)):
        product = x * x.roll(-step, axis)
        if not torus:
            # Pairs across the edge are none; sites are left out in twos, so that the patterns stay balanced.
            product = product.narrow(axis, 0, x.shape[axis] - 2)
        quantities.append(product)
    columns = []
    for one in quantities:
        sign = signs[(slice(None), *(slice(n) for n in one.shape[2:]))]
        columns.append(torch.einsum("bcn,pn->bpc", one.flatten(2), sign.flatten(1)) / one[0, 0].numel())
    return torch.cat(columns, dim=2), quantities[1].flatten(2).mean(2)


def _labels(patterns: tuple[Pattern, ...], dim: int) -> Tensor:
    """Sites of a cell that no pattern tells apart are of one class."""
    labels = torch.zeros((2,) * dim, dtype=torch.int64)
    kinds: dict[tuple[int, ...], int] = {}
    for site in itertools.product((0, 1), repeat=dim):
        parities = tuple(sum(a * b for a, b in zip(site, pattern, strict=True)) % 2 for pattern in patterns)
        labels[site] = kinds.setdefault(parities, len(kinds))
    return labels
