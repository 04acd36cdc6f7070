r"""The best score of a receptive radius for any Gaussian field, as a linear filter.

.. math:: s_i(x) = -\big[(C+v)_{B_r(i)B_r(i)}^{-1}\,x_{B_r(i)}\big]_i, \qquad v = \sigma^2

One diagonalisation of the ball's covariance serves every noise level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Graph, Lattice, pad
from sizetransfer.contracts.errors import OracleError
from sizetransfer.numerics.gaussian import BallMarginal
from sizetransfer.scores.references.balls import LARGEST_BALL

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
"""The convolution of a lattice of so many dimensions."""


@runtime_checkable
class BestFilter(Protocol):
    """The best score of a radius, as a linear filter."""

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Score of ``x``, of shape ``(B, C, *S)``, at noise levels of shape ``(B,)``."""
        ...

    def power(self, sigma: Tensor) -> Tensor:
        """Mean square of a component of the score on noisy fields, exactly: shape ``(B,)``, float64."""
        ...


def best_filter(domain: Domain, radius: int, covariance: Callable[[Tensor], Tensor]) -> BestFilter:
    """The best score of receptive ``radius`` for the Gaussian field with this covariance.

    Args:
        domain: a torus, on which the covariance is invariant under translations, or a graph.
        radius: Chebyshev on a torus, hops on a graph.
        covariance: takes n flat indices of sites to ``(C, n, C, n)``, float64.

    Raises:
        OracleError: another domain, or a ball of too many sites to be diagonalised.
    """
    if isinstance(domain, Graph):
        return _GraphFilter(domain, radius, covariance)
    return _LatticeFilter(torus_of(domain), radius, covariance)


def torus_of(domain: Domain) -> Lattice:
    """The domain, if it is a torus.

    Raises:
        OracleError: it is not.
    """
    if not isinstance(domain, Lattice) or not domain.periodic:
        raise OracleError(
            "The best local score is known on tori and on graphs.",
            where="best local score, context.domain",
            expected="a periodic Lattice or a Graph",
            got=repr(domain),
            fix="use it with a Gaussian teacher",
        )
    return domain


def _marginal(covariance: Tensor, centre: int) -> BallMarginal:
    unknowns = covariance.shape[0] * covariance.shape[1]
    if unknowns > LARGEST_BALL:
        raise OracleError(
            "The ball has too many sites for its covariance to be diagonalised.",
            where="best local score, radius",
            expected=f"at most {LARGEST_BALL} components in the ball",
            got=str(unknowns),
            fix="lower the radius",
        )
    return BallMarginal(covariance, centre)


class _LatticeFilter:
    """One filter for every site of a torus."""

    def __init__(self, lattice: Lattice, radius: int, covariance: Callable[[Tensor], Tensor]) -> None:
        origin = (0,) * lattice.dim
        # Where the ball meets itself around the torus, each site is seen once.
        sites = lattice.ball(origin, radius).flatten().nonzero().flatten()
        steps = lattice.displacement(origin).flatten(1)[:, sites] + radius
        places = torch.zeros_like(sites)
        for axis in steps:
            places = places * (2 * radius + 1) + axis
        self.radius = radius
        self.marginal = _marginal(covariance(sites), 0)
        # Where each site of the ball lies in the flattened cube of (2r + 1) ** dim steps.
        self.places = places

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        batch, channels, *size = x.shape
        width, dim = 2 * self.radius + 1, len(size)
        rows = self.marginal.precision_rows(sigma.double().square()).to(x)
        weights = x.new_zeros(batch * channels, channels, width**dim)
        weights[:, :, self.places.to(x.device)] = -rows.flatten(0, 1)
        # Every field has a noise level and so a filter of its own: one group of the convolution each.
        fields = pad(x, self.radius, periodic=True).flatten(0, 1)[None]
        kernel = weights.reshape(*weights.shape[:2], *(width,) * dim)
        return CONVOLUTIONS[dim](fields, kernel, groups=batch).reshape(x.shape)

    def power(self, sigma: Tensor) -> Tensor:
        return _power(self.marginal, sigma)


class _GraphFilter:
    """A filter of its own for every site of a graph."""

    def __init__(self, graph: Graph, radius: int, covariance: Callable[[Tensor], Tensor]) -> None:
        whole = covariance(torch.arange(graph.count))
        self.balls = [graph.ball((site,), radius).nonzero().flatten() for site in range(graph.count)]
        self.marginals = [
            _marginal(whole[:, ball][..., ball], int((ball == site).nonzero())) for site, ball in enumerate(self.balls)
        ]
        # Balls filled up to one length with site 0, which gets no weight.
        self.neighbours = torch.nn.utils.rnn.pad_sequence(self.balls, batch_first=True)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        # Many fields share a noise level where a student is probed; each level needs its rows once.
        v, level = torch.unique(sigma.double().square(), return_inverse=True)
        rows = [marginal.precision_rows(v) for marginal in self.marginals]
        width = max(len(ball) for ball in self.balls)
        padded = torch.stack([F.pad(row, (0, width - row.shape[-1])) for row in rows], dim=2).to(x)
        seen = x[..., self.neighbours.to(x.device)]
        return -torch.einsum("bisjn,bjsn->bis", padded[level], seen)

    def power(self, sigma: Tensor) -> Tensor:
        return torch.stack([_power(marginal, sigma) for marginal in self.marginals]).mean(0)


def _power(marginal: BallMarginal, sigma: Tensor) -> Tensor:
    """Mean over channels of ``[(C_BB + v)^-1]_ii``, the mean square of the marginal's score at the site."""
    rows = marginal.precision_rows(sigma.double().square())[..., marginal.centre]
    return rows.diagonal(dim1=1, dim2=2).mean(1)
