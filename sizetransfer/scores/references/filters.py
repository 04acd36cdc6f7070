r"""Linear filters: second moments of the field around a site, turned into scores at every noise level.

With the covariance C of the sites around the centre i, the shares :math:`D = \mathrm{diag}(p)` of live sites and noise
of variance v on those,

.. math:: \hat s_i(x) = -p_i\,[(C + vD)^{-1}(x - \mu)]_i .

One eigendecomposition of :math:`D^{-1/2}CD^{-1/2}` serves every v. For the whole torus the matrices are diagonal in
Fourier space, up to blocks between the sites of one period of the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Graph, Lattice, pad
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import Context
from sizetransfer.numerics.gaussian import BallMarginal
from sizetransfer.scores.references.balls import check_ball
from sizetransfer.scores.references.cells import Cells
from sizetransfer.scores.references.classes import site_labels

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@runtime_checkable
class Solver(Protocol):
    """Inverts the covariance of the sites that a filter sees."""

    def weights(self, v: Tensor) -> Float[Tensor, "levels channels channels sites"]:
        """Weights of the score at noise variances ``v`` of shape ``(V,)``: score's channel, field's channel, site."""
        ...

    def power(self, v: Tensor) -> Float[Tensor, "levels"]:
        """Mean square of a component of the filter's score, if the covariance is that of the field."""
        ...


class BallSolver:
    """The filter of a ball by one eigendecomposition.

    Args:
        covariance: of the sites of the ball, ``(C, n, C, n)``, float64.
        centre: place of the centre among them.
        live: share of live sites at each, shape ``(n,)``; none: all are.
    """

    def __init__(self, covariance: Tensor, centre: int, live: Tensor | None = None) -> None:
        channels, count = covariance.shape[:2]
        check_ball(channels * count)
        share = covariance.new_ones(count) if live is None else live
        never = (share == 0).to(share)  # sites that are never live get a variance, and no weight
        self.scale = (share + never).rsqrt()
        whitened = covariance * self.scale[:, None, None] * self.scale
        whitened = whitened + torch.diag(never.repeat(channels)).reshape(whitened.shape)
        self.marginal, self.centre, self.share = BallMarginal(whitened, centre), centre, float(share[centre])
        # A covariance of fewer fields than sites has eigenvalues that rounding may put at or below zero.
        smallest = torch.finfo(torch.float64).eps * float(self.marginal.values.abs().max())
        self.marginal.values = self.marginal.values.clamp_min(smallest)

    def weights(self, v: Tensor) -> Float[Tensor, "levels channels channels sites"]:
        """See :class:`Solver`."""
        rows = self.marginal.precision_rows(v.double().cpu())
        return -self.share * float(self.scale[self.centre]) * self.scale * rows

    def power(self, v: Tensor) -> Float[Tensor, "levels"]:
        """See :class:`Solver`."""
        return -self.share * self.weights(v)[..., self.centre].diagonal(dim1=1, dim2=2).mean(1)


class TorusSpectrum:
    """The covariance on a whole torus, in blocks: one for each wave vector of the lattice of cells.

    Args:
        products: covariance of a site of class c with the one a displacement away, ``(P, C, C, N)``, float64.
        cells: of the torus.
    """

    def __init__(self, products: Tensor, cells: Cells) -> None:
        self.cells, self.channels = cells, products.shape[1]
        check_ball(len(cells.sites) * self.channels)
        values, self.vectors = torch.linalg.eigh(cells.matrices(products))
        self.values = values.clamp_min(torch.finfo(torch.float64).eps * float(values.max()))


class TorusSolver:
    """The filter of the whole torus at a site of one class; its sites are in the order of ``flat``.

    Args:
        spectrum: of the covariance.
        label: the class.
        flat: flat index, on the torus, of each step of the filter.
    """

    def __init__(self, spectrum: TorusSpectrum, label: int, flat: Tensor) -> None:
        self.spectrum, self.flat = spectrum, flat
        self.origin = spectrum.cells.classes.index(label)

    def weights(self, v: Tensor) -> Float[Tensor, "levels channels channels sites"]:
        """See :class:`Solver`."""
        return torch.stack([self._weights(float(one)) for one in v])

    def _weights(self, v: float) -> Tensor:
        whole = self.spectrum
        rows = whole.vectors[:, self.origin * whole.channels : (self.origin + 1) * whole.channels]
        inverse = (rows / (whole.values + v)[:, None]) @ whole.vectors.mH  # wave, channel, (site, channel)
        weights: Tensor = -whole.cells.row(inverse, self.origin)[..., self.flat]
        return weights

    def power(self, v: Tensor) -> Float[Tensor, "levels"]:
        """See :class:`Solver`."""
        return -self.weights(v)[..., int((self.flat == 0).nonzero())].diagonal(dim1=1, dim2=2).mean(1)


@dataclass(frozen=True, eq=False)
class LinearFilter:
    """The best linear score of a radius on lattices of any size.

    Attributes:
        radius: Chebyshev; none: the whole torus that it was fitted on.
        steps: sites that it sees, as steps from the centre, ``(n, dim)``.
        values: conditions that have a filter of their own, ``(P, K)``, float64.
        means: of the field on sites of each, and of any other, ``(P + 1, C)``, float64.
        solvers: one for each condition, and one more where other conditions share a filter.
        sees_mask: whether the score is zero at dead centres.
    """

    radius: int | None
    steps: Tensor
    values: Tensor
    means: Tensor
    solvers: tuple[Solver, ...]
    sees_mask: bool = True

    def score(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """Score of ``x``, of shape ``(B, C, *S)``, at noise levels of shape ``(B,)``; zero is the clean field.

        Raises:
            OracleError: a site has a condition that no filter was fitted to.
        """
        labels = self._labels(x, context)
        centred = x - self.means.to(x)[labels].movedim(-1, 1)
        centred = centred if context.mask is None else centred * context.mask
        v, level = torch.unique(sigma.double().square(), return_inverse=True)
        score = torch.empty_like(x)
        for place, value in enumerate(v):
            rows = (level == place).nonzero().flatten()
            found = self._respond(centred[rows], self.weights(value), context)
            score = score.index_copy(0, rows, _chosen(found, labels[rows]))
        return score * context.mask if self.sees_mask and context.mask is not None else score

    def weights(self, v: Tensor) -> Float[Tensor, "classes channels channels sites"]:
        """Weights of every class at one noise variance, float64 on the processor."""
        return torch.stack([solver.weights(v.reshape(1))[0] for solver in self.solvers])

    def power(self, v: float) -> Float[Tensor, "classes"]:
        """Mean square of a component of the score in every class: ``p^2 [(C + v D)^-1]_ii``."""
        level = torch.tensor([v], dtype=torch.float64)
        return torch.cat([solver.power(level) for solver in self.solvers])

    def _labels(self, x: Tensor, context: Context) -> Tensor:
        labels = site_labels(context, self.values, len(x)).to(x.device)
        if int(labels.max()) >= len(self.solvers):
            raise OracleError(
                "A site has a condition that was not among the fields of the linear reference.",
                where="linear reference, context.condition",
                expected=f"one of {self.values.tolist()}",
                fix="fit it to fields with this condition",
            )
        return labels

    def _respond(self, x: Tensor, weights: Tensor, context: Context) -> Tensor:
        """Response of the filter of every class at every site: ``(B, P, C, *S)``."""
        respond = _around_torus if self.radius is None else _within_radius
        return torch.unflatten(respond(x, weights.to(x), self.steps, context), 1, weights.shape[:2])


def _chosen(found: Tensor, labels: Tensor) -> Tensor:
    """The response of the class of each site: ``(B, C, *S)``."""
    if found.shape[1] == 1:
        return found[:, 0]
    index = labels[:, None, None].expand(-1, 1, found.shape[2], *labels.shape[1:])
    return found.gather(1, index)[:, 0]


def _within_radius(x: Tensor, weights: Tensor, steps: Tensor, context: Context) -> Tensor:
    """A convolution, whose Jacobian outside the radius is exactly zero."""
    dim, radius = steps.shape[1], int(steps.abs().max())
    flat = torch.zeros_like(steps[:, 0])
    for axis in steps.T:
        flat = flat * (2 * radius + 1) + axis + radius
    kernel = weights.new_zeros(*weights.shape[:-1], (2 * radius + 1) ** dim)
    kernel[..., flat.to(x.device)] = weights
    lattice = context.domain
    closed = lattice.closed_axes if isinstance(lattice, Lattice) else (True,) * dim
    shaped = torch.unflatten(kernel.flatten(0, 1), -1, (2 * radius + 1,) * dim)
    response: Tensor = _CONVOLUTIONS[dim](pad(x, radius, periodic=closed), shaped)
    return response


def _around_torus(x: Tensor, weights: Tensor, steps: Tensor, context: Context) -> Tensor:
    """The same on a torus, by Fourier transforms."""
    size, axes = x.shape[2:], tuple(range(-steps.shape[1], 0))
    flat = torch.zeros_like(steps[:, 0])
    for length, axis in zip(size, steps.T, strict=True):
        flat = flat * length + axis % length
    kernel = weights.new_zeros(*weights.shape[:-1], x[0, 0].numel()).index_add(-1, flat.to(x.device), weights)
    waves = torch.fft.rfftn(torch.unflatten(kernel.flatten(0, 1), -1, size), dim=axes).conj()
    product = torch.einsum("oi...,bi...->bo...", waves, torch.fft.rfftn(x, dim=axes))
    response: Tensor = torch.fft.irfftn(product, s=size, dim=axes)
    return response


@dataclass(frozen=True, eq=False)
class GraphFilter:
    """The best linear score of so many hops on one graph: a filter for every site.

    Attributes:
        radius: hops; none: the whole graph.
        balls: flat indices of the sites that each site sees.
        means: of the field at every site, ``(N, C)``, float64.
        solvers: one for each site.
    """

    radius: int | None
    balls: tuple[Tensor, ...]
    means: Tensor
    solvers: tuple[BallSolver, ...]

    def score(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """Score of ``x``, of shape ``(B, C, N)``, at noise levels of shape ``(B,)``; zero is the clean field.

        Raises:
            OracleError: the graph has another number of sites.
        """
        if not isinstance(context.domain, Graph) or context.domain.count != len(self.balls):
            raise OracleError(
                "A linear reference on a graph knows that graph alone.",
                where="linear reference, context.domain",
                expected=f"the graph of {len(self.balls)} sites that it was fitted on",
                got=repr(context.domain),
                fix="fit one at this size",
            )
        v, level = torch.unique(sigma.double().square(), return_inverse=True)
        centred = x - self.means.to(x).T
        columns = [
            torch.einsum("bijn,bjn->bi", solver.weights(v).to(x)[level], centred[..., ball.to(x.device)])
            for solver, ball in zip(self.solvers, self.balls, strict=True)
        ]
        return torch.stack(columns, dim=-1)

    def power(self, v: float) -> Float[Tensor, "classes"]:
        """Mean square of a component of the score at every site: ``[(C + v)^-1]_ii``."""
        level = torch.tensor([v], dtype=torch.float64)
        return torch.cat([solver.power(level) for solver in self.solvers])


AnyFilter = LinearFilter | GraphFilter
