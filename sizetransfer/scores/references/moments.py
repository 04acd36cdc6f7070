"""Means and covariances of a field around its sites, estimated from fields or exact, and the filters that they give.

================================================  =====================================================================
fields                                            estimate
================================================  =====================================================================
torus, one condition or a periodic one, no mask   averages over fields and all sites of a class, by Fourier transforms
other lattices, masks, conditions of any pattern  averages over fields and the sites of a class in the bulk
graph                                             averages over fields: every site is a class
================================================  =====================================================================

Fields beyond the walls of an open box, and at dead sites, are zero. The bulk are the sites with at least ``margin``
sites between them and every wall.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Graph, Lattice
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import HasCovariance, Sample, Teacher
from sizetransfer.scores.references.balls import centre_of, neighbours, steps_of
from sizetransfer.scores.references.cells import Cells
from sizetransfer.scores.references.classes import Sight, class_steps, condition_values, site_labels
from sizetransfer.scores.references.filters import (
    AnyFilter,
    BallSolver,
    GraphFilter,
    LinearFilter,
    TorusSolver,
    TorusSpectrum,
)

MARGIN = 4
"""Sites between the bulk of an open box and its walls, or a quarter of the box where that is less."""

LARGEST_CELL = 64
"""Components of the largest cell of classes that alternate."""

_SITES_PER_COMPONENT = 10
_NUMBERS_AT_A_TIME = 2**24


@runtime_checkable
class Moments(Protocol):
    """Second moments of a field around its sites."""

    def filter(self, radius: int | None) -> AnyFilter:
        """The best linear filter of a radius; none: of the whole domain.

        Raises:
            OracleError: the ball is too large, or was not estimated.
        """
        ...


def default_margin(domain: Domain) -> int:
    """``MARGIN``, or a quarter of the box where that is less."""
    return min(MARGIN, min(domain.shape) // 4)


def estimate_moments(
    sample: Sample, radius: int | None, *, sight: Sight | None = None, margin: int | None = None
) -> Moments:
    """Estimate the moments that filters of at most this radius need.

    Args:
        sample: independent fields on one domain.
        radius: the largest that is needed; none: the whole domain. On a torus and on a graph any other may be asked
            for.
        sight: what filters see beside the field; by default all there is.
        margin: of the bulk of an open box; by default ``default_margin``.

    Raises:
        OracleError: the whole of an open box is asked for, or the ball is too large.
    """
    sight, domain = sight or Sight(), sample.context.domain
    if isinstance(domain, Graph):
        return _graph_moments(sample)
    lattice = cast(Lattice, domain)
    unknowns = sample.x.shape[1] * len(steps_of(lattice, max(lattice.size) if radius is None else radius))
    margin = default_margin(domain) if margin is None else margin
    values = condition_values(sample, sight, _SITES_PER_COMPONENT * unknowns, domain.bulk(margin))
    labels = site_labels(sample.context, values, len(sample.x)).to(sample.x.device)
    regular = sample.context.mask is None and all(lattice.closed_axes) and bool((labels == labels[:1]).all())
    if regular and int(labels.max()) < max(1, len(values)) and class_steps(labels[0].cpu()) is not None:
        return _torus_moments(sample, values, labels[0].cpu())
    if radius is None:
        raise OracleError(
            "The linear reference of the whole lattice is there for tori whose sites are alike, or alternate.",
            where="linear reference, radius",
            expected="a radius",
            got="none, for fields with walls, dead sites or conditions without a period",
            fix="give a radius",
        )
    return _window_moments(sample, values, labels, steps_of(lattice, radius), margin, sight)


def exact_moments(teacher: Teacher, size: int) -> Moments:
    """The moments of a Gaussian teacher, exact to rounding.

    Raises:
        OracleError: the teacher does not know its covariance, or lives in an open box.
    """
    domain = teacher.domain(size)
    if not isinstance(teacher, HasCovariance) or not (isinstance(domain, Graph) or domain.bulk(domain.sites).all()):
        raise OracleError(
            "Exact moments are those of Gaussian fields on a torus or a graph.",
            where="linear reference, teacher",
            expected="a teacher with the capability HasCovariance",
            got=type(teacher).__name__,
            fix="estimate them from fields",
        )
    sites = torch.arange(domain.sites)
    if isinstance(domain, Graph):
        covariance = teacher.covariance(size, sites)
        return GraphMoments(domain, covariance.new_zeros(domain.count, len(covariance)), covariance)
    # The row of the origin, without the whole matrix.
    parts = [teacher.covariance(size, torch.cat([sites[:1], part]))[:, 0, :, 1:] for part in torch.split(sites, 256)]
    row = torch.cat(parts, dim=-1)
    labels = torch.zeros(domain.shape, dtype=torch.int64)
    products = row.reshape(1, *row.shape[:2], *domain.shape)
    return TorusMoments(products, products.new_zeros(1, len(row)), products.new_zeros(0, 0), labels)


# --- tori -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TorusMoments:
    """Moments on a torus whose classes are alike, or alternate.

    Attributes:
        products: covariance of a site of a class with the one a displacement away, ``(P, C, C, *S)``, float64.
        means: of the field on sites of each class, ``(P, C)``, float64.
        values: conditions of the classes, ``(P, K)``; of shape ``(0, 0)`` where all sites are alike.
        labels: class of every site, ``*S``.
    """

    products: Tensor
    means: Tensor
    values: Tensor
    labels: Tensor

    @cached_property
    def cells(self) -> Cells:
        """The torus, cut into cells of alternating classes."""
        return Cells(self.labels)

    @property
    def alternate(self) -> bool:
        """Whether the classes repeat in cells that are small enough for matrices of their sites."""
        try:
            return len(self.cells.sites) * self.products.shape[1] <= LARGEST_CELL
        except OracleError:
            return False

    def filter(self, radius: int | None) -> LinearFilter:
        """See :class:`Moments`."""
        lattice = Lattice(tuple(self.labels.shape))
        steps = steps_of(lattice, max(lattice.size) if radius is None else radius)
        whole = len(steps) == lattice.sites
        solvers = self._whole(steps) if whole else [self._ball(steps, label) for label in range(len(self.products))]
        return LinearFilter(radius, steps, self.values, self.means, tuple(solvers))

    def ball_covariance(self, steps: Tensor, label: int) -> Float[Tensor, "channels n channels n"]:
        """Covariance of the sites at some steps from a site of a class."""
        there = flat_index(steps, self.labels.shape)
        classes = cast(Tensor, class_steps(self.labels))[label].flatten()[there]
        apart = flat_index(steps[None] - steps[:, None], self.labels.shape)
        return self.products.flatten(3)[classes[:, None], :, :, apart].permute(2, 0, 3, 1)

    def _ball(self, steps: Tensor, label: int) -> BallSolver:
        return BallSolver(self.ball_covariance(steps, label), centre_of(steps))

    def _whole(self, steps: Tensor) -> list[TorusSolver]:
        spectrum = TorusSpectrum(self.products.flatten(3), self.cells)
        flat = flat_index(steps, self.labels.shape)
        return [TorusSolver(spectrum, label, flat) for label in range(len(self.products))]


def flat_index(steps: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Flat index of displacements ``(..., dim)`` on a torus."""
    flat = torch.zeros_like(steps[..., 0])
    for axis, length in enumerate(shape):
        flat = flat * length + steps[..., axis] % length
    return flat


def _torus_moments(sample: Sample, values: Tensor, labels: Tensor) -> TorusMoments:
    x, places = sample.x.double(), labels.to(sample.x.device)
    classes = int(labels.max()) + 1
    means = torch.stack([x[..., places == label].mean((0, 2)) for label in range(classes)])
    centred = x - means[places].movedim(-1, 0)
    products = correlations(centred, centred, labels)
    return TorusMoments(products.cpu(), means.cpu(), values, labels)


def correlations(first: Tensor, second: Tensor, labels: Tensor) -> Float[Tensor, "classes channels channels *size"]:
    """Means over fields and sites j of every class of ``first_j second_(j + d)``, by class and displacement d."""
    places, axes = labels.to(first.device), tuple(range(-labels.ndim, 0))
    kinds = [places == label for label in range(int(labels.max()) + 1)]
    return torch.stack([_correlations(first * kind, second, axes) / (len(first) * int(kind.sum())) for kind in kinds])


def _correlations(first: Tensor, second: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sums over fields and sites j of ``first_j second_(j + d)``, ``(C, C, *S)``."""
    waves = torch.fft.rfftn(first, dim=axes).conj(), torch.fft.rfftn(second, dim=axes)
    sums: Tensor = torch.fft.irfftn(torch.einsum("bi...,bj...->ij...", *waves), s=first.shape[2:], dim=axes)
    return sums


# --- other lattices ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class WindowMoments:
    """Moments around the sites of the bulk of a lattice, by class.

    Attributes:
        covariances: of the sites at the steps from a centre, ``(P or P + 1, C, n, C, n)``, float64.
        live: share of live sites at every step, ``(P or P + 1, n)``.
        means: of the field on sites of every class and of any other, ``(P + 1, C)``.
        values: conditions of the classes, ``(P, K)``.
        steps: the steps, ``(n, dim)``.
        sees_mask: whether centres are live ones alone.
    """

    covariances: Tensor
    live: Tensor
    means: Tensor
    values: Tensor
    steps: Tensor
    sees_mask: Tensor

    def filter(self, radius: int | None) -> LinearFilter:
        """See :class:`Moments`."""
        largest = int(self.steps.abs().max())
        if radius is None or radius > largest:
            raise OracleError(
                "The moments do not reach so far.",
                where="linear reference, radius",
                expected=f"at most {largest}",
                got=str(radius),
                fix="estimate them for a larger radius",
            )
        kept = (self.steps.abs().amax(1) <= radius).nonzero().flatten()
        steps = self.steps[kept]
        solvers = [
            BallSolver(covariance[:, kept][..., kept], centre_of(steps), live[kept])
            for covariance, live in zip(self.covariances, self.live, strict=True)
        ]
        return LinearFilter(radius, steps, self.values, self.means, tuple(solvers), bool(self.sees_mask))


def _window_moments(
    sample: Sample, values: Tensor, labels: Tensor, steps: Tensor, margin: int, sight: Sight
) -> WindowMoments:
    x, mask = sample.x.double(), sample.context.mask
    live = torch.ones_like(x[:, 0], dtype=torch.bool) if mask is None else mask[:, 0].expand_as(x[:, 0])
    means = _class_means(x, labels, live, len(values))
    centred = (x - means[labels].movedim(-1, 1)) * live[:, None]
    centres = sample.context.domain.bulk(margin).to(x.device) & (live if sight.mask else torch.ones_like(live))
    table = neighbours(cast(Lattice, sample.context.domain), steps).to(x.device)
    kinds = [labels == place for place in range(len(values))]
    if not len(values) or bool((labels == len(values)).any()):
        kinds.append(torch.ones_like(live))  # sites of rare conditions: the filter of any site
    found = [_moments_of(centred, live, (kind & centres).flatten(1).nonzero(), table) for kind in kinds]
    covariances, shares = (torch.stack(parts).cpu() for parts in zip(*found, strict=True))
    return WindowMoments(covariances, shares, means.cpu(), values, steps, torch.tensor(sight.mask))


def _class_means(x: Tensor, labels: Tensor, live: Tensor, classes: int) -> Float[Tensor, "classes channels"]:
    """Means over the live sites of every class and of no class; zero where there are none."""
    rows = x.movedim(1, -1)
    kinds = [live & (labels == place) for place in range(classes + 1)]
    return torch.stack([rows[kind].sum(0) / max(1, int(kind.sum())) for kind in kinds])


def _moments_of(x: Tensor, live: Tensor, centres: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Mean products ``(C, n, C, n)`` of, and share ``(n,)`` of live sites in, the windows around some centres."""
    if not len(centres):
        raise OracleError(
            "There is no centre to estimate a linear reference from.",
            where="linear reference, margin",
            expected="live sites in the bulk",
            fix="lower the margin, take a larger box or more fields",
        )
    count, channels = table.shape[1], x.shape[1]
    total, share = x.new_zeros(channels * count, channels * count), x.new_zeros(count)
    for rows, seen in _windows(x, live, centres, table):
        total += rows.T @ rows
        share += seen.sum(0)
    shape = (channels, count, channels, count)
    return (total / len(centres)).reshape(shape), share / len(centres)


def _windows(x: Tensor, live: Tensor, centres: Tensor, table: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The field ``(m, C n)`` and the live sites ``(m, n)`` of the windows around centres, some at a time."""
    fields = torch.nn.functional.pad(x.flatten(2), (0, 1))
    alive = torch.nn.functional.pad(live.flatten(1).to(x), (0, 1))
    together = max(1, _NUMBERS_AT_A_TIME // (x.shape[1] * table.shape[1]))
    for some in torch.split(centres, together):
        rows, places = some[:, :1], table[some[:, 1]]
        yield fields.transpose(1, 2)[rows, places].transpose(1, 2).flatten(1), alive[rows, places]


# --- graphs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class GraphMoments:
    """Moments on one graph.

    Attributes:
        graph: the sites and their edges.
        means: at every site, ``(N, C)``, float64.
        covariance: between all sites, ``(C, N, C, N)``, float64.
    """

    graph: Graph
    means: Tensor
    covariance: Tensor

    def filter(self, radius: int | None) -> GraphFilter:
        """See :class:`Moments`."""
        balls = [
            torch.arange(self.graph.count) if radius is None else self.graph.ball((site,), radius).nonzero().flatten()
            for site in range(self.graph.count)
        ]
        solvers = [
            BallSolver(self.covariance[:, ball][..., ball], int((ball == site).nonzero()))
            for site, ball in enumerate(balls)
        ]
        return GraphFilter(radius, tuple(balls), self.means, tuple(solvers))


def _graph_moments(sample: Sample) -> GraphMoments:
    if sample.context.mask is not None or sample.context.condition is not None:
        raise OracleError(
            "Linear references on a graph are there for fields without conditions and dead sites.",
            where="linear reference, context",
            expected="neither a condition nor a mask",
            fix="take a teacher without them",
        )
    x = sample.x.double().cpu()
    means = x.mean(0)
    rows = (x - means).flatten(1)
    covariance = rows.T @ rows / len(rows)
    return GraphMoments(cast(Graph, sample.context.domain), means.T, covariance.reshape(*x.shape[1:], *x.shape[1:]))
