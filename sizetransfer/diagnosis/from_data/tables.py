r"""Second moments of stored fields: one table for each group of fields, which everything else is computed from.

A field's products :math:`x_j x_{j+d}^T`, averaged over its sites j, by displacement d: around the torus for periodic
fields; for a crop over the pairs that lie in it, without bias; for a box with walls as for the crop of its bulk. Where
sites are of several classes, by the class of j. Fields are divided, in their order in the file, into groups of
neighbours: folds and the jackknife leave out whole groups, so that samples of one chain are not on both sides. The file
is read twice, some rows at a time; the memory is that of the tables.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.stored import StoredFields
from sizetransfer.scores.references.moments import TorusMoments, default_margin

GROUPS = 64
"""At most so many groups of fields."""
FEWEST = 8
"""Fields below which nothing is estimated: there are four folds."""
_NUMBERS_AT_A_TIME = 2**22
_NUMBERS_OF_TABLES = 2**25
_REMOVED = 1e-8
"""Share of the variance per wave below which the mean mode was taken off the fields."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Second moments of the fields of one size, by group.

    Attributes:
        size: sites along each axis.
        count: fields.
        fields: name of the fields, by which numbers on them are paired.
        torus: whether displacements go around the lattice.
        removed: whether the mean of every field was taken off before: the waves of k = 0 say nothing then.
        means: of the field on sites of each class, ``(P, C)``, float64.
        products: ``(G, P, C, C, *T)``, by group, class and displacement, float64.
        shares: share of the fields in each group, ``(G,)``.
        labels: class of the sites of the table's torus, ``*T``.
    """

    size: int
    count: int
    fields: str
    torus: bool
    removed: bool
    means: Tensor
    products: Tensor
    shares: Tensor
    labels: Tensor

    @property
    def groups(self) -> int:
        """How many there are."""
        return len(self.shares)

    @property
    def channels(self) -> int:
        """Components of a site."""
        return int(self.products.shape[2])

    @property
    def dim(self) -> int:
        """Axes of the lattice."""
        return self.labels.ndim

    @property
    def variance(self) -> float:
        """Of a component of a site, a mean over channels and classes."""
        return float(self.site_variances.mean())

    @property
    def site_variances(self) -> Float[Tensor, "channels"]:
        """Of a site, by channel."""
        origin = self.products.flatten(4)[..., 0].diagonal(dim1=-2, dim2=-1)
        return (self.shares @ origin.mean(1)).clamp_min(0)

    def moments(self, kept: Sequence[int] | None = None) -> TorusMoments:
        """Moments of the fields of some groups; by default of all."""
        chosen = torch.arange(self.groups) if kept is None else torch.as_tensor(list(kept))
        weights = self.shares[chosen] / self.shares[chosen].sum()
        products = torch.einsum("g,g...->...", weights, self.products[chosen])
        if self.torus and len(products) == 1 and not self.removed:
            # The mean is that of these fields: the mean mode lost one degree of freedom.
            sites = math.prod(self.labels.shape)
            lost = products.flatten(3).sum(-1)[0] / (sites * max(1, self.count - 1))
            products = products + lost.reshape(1, *lost.shape, *(1,) * self.dim)
        nothing = products.new_zeros(0, 0)
        return TorusMoments(products, self.means, nothing, self.labels)

    def parts(self, count: int) -> list[list[int]]:
        """The groups in ``count`` runs of neighbours."""
        return [part.tolist() for part in torch.arange(self.groups).tensor_split(min(count, self.groups))]

    def without(self, part: Sequence[int]) -> list[int]:
        """The other groups."""
        return [group for group in range(self.groups) if group not in set(part)]


def tables_of(stored: StoredFields, size: int, labels: Int[Tensor, "*cell"] | None = None, *, reach: int) -> Tables:
    """Second moments of the fields of one size, in two passes over them.

    Args:
        stored: the fields.
        size: which of their sizes.
        labels: classes of the sites of a cell that repeats, ``(2,) * dim``; by default all sites are alike.
        reach: the largest radius that filters will be asked for; tables of a crop go twice as far.

    Raises:
        SpecError: too few fields, one that is not finite, or a channel that does not vary.
    """
    count, dim = stored.count(size), stored.dim
    require_fields(stored, size)
    cell = torch.zeros((2,) * dim, dtype=torch.int64) if labels is None else labels
    window = _Window(stored, size, cell, reach)
    means = _means(window)
    groups = _groups(window)
    found = torch.stack([_products(window, group, means) for group in groups])
    shares = torch.tensor([len(group) for group in groups], dtype=torch.float64) / count
    power = torch.einsum("g,g...->...", shares, found)
    _check_variance(power, stored, size)
    torus = stored.boundary == "periodic"
    removed = torus and bool(power.flatten(3).sum(-1).diagonal(dim1=1, dim2=2).mean() < _REMOVED * _variance(power))
    return Tables(size, count, f"data {size}", torus, removed, means, found, shares, window.table_labels)


def _variance(products: Tensor) -> Tensor:
    """Variance of a component of a site."""
    return products.flatten(3)[..., 0].diagonal(dim1=1, dim2=2).mean()


class _Window:
    """The sites that are looked at, their classes, and the tables that they give.

    Args:
        stored, size, cell, reach: as for :func:`tables_of`.
    """

    def __init__(self, stored: StoredFields, size: int, cell: Tensor, reach: int) -> None:
        self.stored, self.size = stored, size
        self.torus = stored.boundary == "periodic"
        margin = default_margin(Lattice((size,) * stored.dim, periodic=False)) if stored.boundary == "walls" else 0
        self.inside = slice(margin, size - margin)
        self.side = size - 2 * margin
        self.labels = _tiled(cell, margin, self.side, stored.dim)
        self.lags = min(2 * reach, self.side - 1)
        table = self.side if self.torus else 2 * self.lags + 2
        self.table_labels = _tiled(cell, margin, table, stored.dim)
        self.classes = int(cell.max()) + 1

    @property
    def axes(self) -> tuple[int, ...]:
        """Those of the sites, from the end."""
        return tuple(range(-self.stored.dim, 0))

    def chunks(self, rows: Sequence[int]) -> Iterator[Tensor]:
        """The fields of these rows, some at a time: ``(n, C, *side)``, float64."""
        together = max(1, _NUMBERS_AT_A_TIME // (self.stored.channels * self.size**self.stored.dim))
        for start in range(rows[0], rows[-1] + 1, together):
            end = min(start + together, rows[-1] + 1)
            x = self.stored.rows(self.size, slice(start, end)).double()
            _check_finite(x, start, self.size)
            window: tuple[Any, ...] = (..., *(self.inside,) * self.stored.dim)
            yield x[window]


def _tiled(cell: Tensor, start: int, length: int, dim: int) -> Tensor:
    index = torch.meshgrid(*[(start + torch.arange(length)) % 2] * dim, indexing="ij")
    return cell[index]


def _means(window: _Window) -> Float[Tensor, "classes channels"]:
    kinds = [window.labels == label for label in range(window.classes)]
    totals = torch.zeros(window.classes, window.stored.channels, dtype=torch.float64)
    count = window.stored.count(window.size)
    for x in window.chunks(range(count)):
        totals += torch.stack([x[..., kind].sum((0, 2)) for kind in kinds])
    return totals / (count * torch.tensor([[int(kind.sum())] for kind in kinds]))


def _groups(window: _Window) -> list[range]:
    """Runs of neighbouring rows, as many as the memory holds tables of."""
    numbers = window.classes * window.stored.channels**2 * window.table_labels.numel()
    count = window.stored.count(window.size)
    groups = min(count, GROUPS, max(FEWEST, _NUMBERS_OF_TABLES // numbers))
    edges = [count * place // groups for place in range(groups + 1)]
    return [range(start, end) for start, end in itertools.pairwise(edges)]


def _products(window: _Window, rows: range, means: Tensor) -> Float[Tensor, "classes channels channels *table"]:
    """Mean products of the fields of some rows."""
    shape = tuple(window.side if window.torus else window.side + window.lags + 1 for _ in window.axes)
    kinds = [window.labels == label for label in range(window.classes)]
    total: Tensor | None = None
    for x in window.chunks(rows):
        centred = x - means[window.labels].movedim(-1, 0)
        second = torch.fft.rfftn(centred, s=shape, dim=window.axes)
        first = [torch.fft.rfftn(centred * kind, s=shape, dim=window.axes).conj() for kind in kinds]
        sums = torch.stack([torch.einsum("bi...,bj...->ij...", one, second) for one in first])
        total = sums if total is None else total + sums
    if total is None:
        raise ValueError("a group without rows")
    table = torch.fft.irfftn(total / len(rows), s=shape, dim=window.axes)
    if window.torus:
        counts = torch.tensor([int(kind.sum()) for kind in kinds])
        mean: Tensor = table / counts.reshape(-1, 1, 1, *(1,) * len(shape))
        return mean
    return _shortened(table, _pairs(window, shape), window)


def _pairs(window: _Window, shape: tuple[int, ...]) -> Float[Tensor, "classes *padded"]:
    """How many pairs of a crop are a displacement apart, by the class of the first."""
    everywhere = torch.ones((window.side,) * len(shape), dtype=torch.float64)
    second = torch.fft.rfftn(everywhere, s=shape)
    kinds = [(window.labels == label).double() for label in range(window.classes)]
    return torch.stack([torch.fft.irfftn(torch.fft.rfftn(k, s=shape).conj() * second, s=shape) for k in kinds]).round()


def _shortened(table: Tensor, pairs: Tensor, window: _Window) -> Tensor:
    """A table of the padded crop as one on the small torus of the displacements that are needed."""
    length, side = window.table_labels.shape[0], table.shape[-1]
    steps = torch.arange(length)
    steps = torch.where(steps <= window.lags, steps, steps - length)
    far = steps.abs() > window.lags
    mean = table / pairs.clamp_min(1)[:, None, None]
    for axis in window.axes:
        mean = mean.index_select(axis, steps % side)
        mean = torch.where(far.reshape(-1, *(1,) * (-axis - 1)), 0.0, mean)
    return mean


# --- what cannot be estimated -----------------------------------------------------------------------------------------


def require_fields(stored: StoredFields, size: int) -> None:
    """Refuse fewer fields than anything can be estimated from.

    Raises:
        SpecError: with how many there must be.
    """
    count = stored.count(size)
    if count >= FEWEST:
        return
    what = "There is one field only." if count == 1 else "There are too few fields."
    cut = "; if it is a crop of something larger, say boundary: crop, and it is cut into blocks"
    raise SpecError(
        what,
        where=f"data, size {size}",
        expected=f"at least {FEWEST} independent fields; 64 of 32 x 32 tell the score's range to about 0.02",
        got=str(count),
        fix=f"add fields{cut if stored.boundary != 'crop' else ', or larger ones'}",
    )


def _check_finite(x: Tensor, first: int, size: int) -> None:
    wrong = ~x.isfinite().flatten(1).all(1)
    if bool(wrong.any()):
        row = first + int(wrong.nonzero()[0])
        raise SpecError(
            "A field is not finite.",
            where=f"data, size {size}, field {row}",
            expected="finite numbers",
            got=f"NaN or infinity in {int(wrong.sum())} of {len(x)} fields read together",
            fix="drop these fields, or mask what is missing",
        )


def _check_variance(products: Tensor, stored: StoredFields, size: int) -> None:
    origin = products.flatten(3)[..., 0].diagonal(dim1=1, dim2=2).mean(0)
    largest = float(origin.max())
    flat = [channel for channel, value in enumerate(origin.tolist()) if not value > 1e-12 * largest]
    if flat or not largest > 0:
        raise SpecError(
            "A channel does not vary.",
            where=f"data, size {size}, channel {flat[0] if flat else 0}",
            expected="numbers that differ from site to site and field to field",
            got="the same number everywhere",
            fix="leave the channel out, or give it as a condition",
        )
