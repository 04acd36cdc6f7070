r"""Statistics of a law from its fields: site variance, nearest covariance, S(0) and correlation length.

On a torus, with the power :math:`S(k)` of a field's waves, a mean over channels,

.. math:: \xi^2 = \frac{S(0)/S(k_{\min}) - 1}{4\sin^2(\pi/L)} .

On open, masked or graph domains, with the covariance C(r) of pairs of live sites of the bulk, at most a quarter of the
box (on a graph: half its diameter) apart,

.. math:: \xi^2 = \frac{\sum_r r^2\,C(r)}{2d\sum_r C(r)}, \qquad S(0) = \sum_r C(r) .

An estimate may be negative. Standard errors are by jackknife over fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Graph, Lattice
from sizetransfer.contracts.oracle import Sample
from sizetransfer.contracts.records import Measurement
from sizetransfer.numerics.statistics import jackknifed
from sizetransfer.scores.references.moments import default_margin


def law_statistics(sample: Sample, *, dimension: int, margin: int | None = None) -> tuple[Measurement, ...]:
    """Site variance, covariance of nearest neighbours, S(0) and squared correlation length of independent fields.

    Args:
        sample: the fields.
        dimension: d of the formula.
        margin: of the bulk of an open box; by default :func:`sizetransfer.scores.references.moments.default_margin`.
    """
    domain = sample.context.domain
    closed = isinstance(domain, Lattice) and all(domain.closed_axes) and sample.context.mask is None
    return tuple(_of_waves(sample) if closed else _of_pairs(_pairs(sample, margin), dimension))


def _centred(x: Tensor, live: Tensor) -> Tensor:
    """The field less the mean of each channel over live sites; zero elsewhere."""
    axes = (0, *range(2, x.ndim))
    mean = (x * live).sum(axes, keepdim=True) / live.expand_as(x).sum(axes, keepdim=True).clamp_min(1)
    return (x - mean) * live


# --- tori -------------------------------------------------------------------------------------------------------------


def _of_waves(sample: Sample) -> Iterator[Measurement]:
    lattice = cast(Lattice, sample.context.domain)
    x = _centred(sample.x.double().cpu(), torch.ones(1, dtype=torch.float64))
    axes = tuple(range(2, x.ndim))
    power = (torch.fft.fftn(x, dim=axes).abs().square() / lattice.sites).mean(1)
    steps = [tuple(int(axis == other) for other in range(lattice.dim)) for axis in range(lattice.dim)]
    nearest = torch.stack([(x * x.roll(1, axis)).flatten(1).mean(1) for axis in axes]).mean(0)
    smallest = torch.stack([power[(slice(None), *step)] for step in steps]).mean(0)
    zero = power[(slice(None), *(0,) * lattice.dim)]
    for part, values in (
        ("site_variance", x.square().flatten(1).mean(1)),
        ("nearest_covariance", nearest),
        ("zero_mode", zero),
    ):
        yield _estimate(part, _mean, values[:, None])
    scale = 4 * math.sin(math.pi / min(lattice.shape)) ** 2
    yield _estimate("correlation_length_squared", partial(_from_waves, scale=scale), torch.stack([zero, smallest], 1))


def _mean(sums: Tensor, count: int) -> Tensor:
    return sums[..., 0] / count


def _from_waves(sums: Tensor, count: int, scale: float) -> Tensor:
    return (sums[..., 0] / sums[..., 1] - 1) / scale


def _estimate(part: str, function: Callable[[Tensor, int], Tensor], rows: Float[Tensor, "n k"]) -> Measurement:
    """A function of the sums over fields, with its jackknife error."""
    n, total = len(rows), rows.sum(0)
    estimates = torch.cat([function(total, n).reshape(1), function(total - rows, n - 1)])
    return Measurement.of(part, jackknifed(estimates))


# --- elsewhere --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairs:
    """Sums over pairs of sites of every field.

    Attributes:
        products, counts: sums of products and of pairs by displacement, ``(n, k)``; on a graph, by distance.
        weight: how many displacements each stands for.
        squared: squared length of each.
    """

    products: Tensor
    counts: Tensor
    weight: Tensor
    squared: Tensor


def _of_pairs(pairs: _Pairs, dimension: int) -> Iterator[Measurement]:
    k = pairs.products.shape[1]
    rows = torch.cat([pairs.products, pairs.counts], 1)

    def covariance(sums: Tensor) -> Tensor:
        return sums[..., :k] / sums[..., k:].clamp_min(1)

    def of(mask: Tensor) -> Callable[[Tensor, int], Tensor]:
        share = mask * pairs.weight
        return lambda sums, _: (covariance(sums) * share).sum(-1) / share.sum()

    def total(sums: Tensor, _: int) -> Tensor:
        return (covariance(sums) * pairs.weight).sum(-1)

    def length(sums: Tensor, count: int) -> Tensor:
        return (covariance(sums) * pairs.weight * pairs.squared).sum(-1) / (2 * dimension * total(sums, count))

    yield _estimate("site_variance", of(pairs.squared == 0), rows)
    yield _estimate("nearest_covariance", of(pairs.squared == 1), rows)
    yield _estimate("zero_mode", total, rows)
    yield _estimate("correlation_length_squared", length, rows)


def _pairs(sample: Sample, margin: int | None) -> _Pairs:
    domain, x = sample.context.domain, sample.x.double().cpu()
    counted = domain.bulk(default_margin(domain) if margin is None else margin).cpu()
    mask = sample.context.mask
    live = (counted if mask is None else counted & mask.cpu()).double().expand(len(x), 1, *domain.shape)
    x = _centred(x, live)
    if isinstance(domain, Graph):
        return _graph_pairs(x, live, domain)
    return _lattice_pairs(x, live, cast(Lattice, domain))


def _lattice_pairs(x: Tensor, live: Tensor, lattice: Lattice) -> _Pairs:
    axes = tuple(range(2, x.ndim))
    sizes = tuple(n if closed else 2 * n for n, closed in zip(lattice.size, lattice.closed_axes, strict=True))

    def together(field: Tensor) -> Tensor:
        waves = torch.fft.rfftn(field, s=sizes, dim=axes)
        sums: Tensor = torch.fft.irfftn(waves.abs().square(), s=sizes, dim=axes)
        return sums.mean(1).flatten(1)

    grids = torch.meshgrid(*[torch.fft.fftfreq(n, 1 / n).round() for n in sizes], indexing="ij")
    offsets = torch.stack([grid.flatten() for grid in grids], 1)
    kept = (offsets.abs() <= max(1, min(lattice.size) // 4)).all(1)
    squared = offsets[kept].square().sum(1).double()
    return _Pairs(together(x)[:, kept], together(live)[:, kept].round(), torch.ones_like(squared), squared)


def _graph_pairs(x: Tensor, live: Tensor, graph: Graph) -> _Pairs:
    hops = torch.stack([graph.distance((site,)) for site in range(graph.count)]).cpu()
    # Sites out of reach of each other have no distance.
    reached = hops[(hops < graph.count) & (hops >= 0)]
    shells = [hops == distance for distance in range(int(reached.max()) // 2 + 1)]
    products = [torch.einsum("bci,ij,bcj->b", x, shell.double(), x) / x.shape[1] for shell in shells]
    counts = [torch.einsum("bci,ij,bcj->b", live, shell.double(), live) for shell in shells]
    weight = torch.stack([shell.double().sum(1).mean() for shell in shells])
    squared = torch.arange(len(shells), dtype=torch.float64).square()
    return _Pairs(torch.stack(products, 1), torch.stack(counts, 1), weight, squared)
