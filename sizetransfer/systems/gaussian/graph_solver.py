r"""Gaussian fields on large graphs: the same law without a table of all pairs of sites.

With :math:`P = m^2 + \Lambda`, the incidence matrix B of the edges (:math:`\Lambda = B B^T`) and the coupling K between
channels, the precision is :math:`Q = P \otimes K`. For independent standard normal :math:`\xi` on sites and
:math:`\eta` on edges,

.. math:: X_0 = P^{-1}(m\,\xi + B\,\eta) \otimes K^{-1/2}

has covariance :math:`P^{-1} P P^{-1} \otimes K^{-1} = Q^{-1}`: an exact draw for one linear system (Papandreou and
Yuille 2010, *Gaussian sampling by local perturbations*). Scores need a product and, at noise variance v, one more
system for every eigenvalue k of K: :math:`(C + v)^{-1} = k P\,(1 + v k P)^{-1}`. Conjugate gradients solve them to
rounding, in a number of steps that depends on m and the degrees alone; time and memory are linear in the edges.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Graph
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.randomness import normal
from sizetransfer.numerics.couplings import Couplings

# Relative residual of a solution, and the most steps that are taken for it; tens or hundreds are.
RESIDUAL = 1e-13
LARGEST_STEPS = 20_000


class GraphSolver:
    """Draws and scores of a Gaussian field on a graph by linear systems; everything is computed in float64.

    Args:
        couplings: mass m and coupling K.
        graph: the sites and edges.
        channels: components of a site, C.
    """

    def __init__(self, couplings: Couplings, graph: Graph, channels: int) -> None:
        self.mass, self.graph, self.channels = couplings.mass, graph, channels
        self.strengths, self.rotation = torch.linalg.eigh(couplings.channel_matrix(channels))
        self.degrees = torch.bincount(graph.edges.flatten(), minlength=graph.count).double()

    def sample(self, batch: int, *, generator: torch.Generator, like: Tensor) -> Tensor:
        """Independent fields ``(B, C, N)`` with the dtype and device of ``like``."""
        shape, exact = (batch, self.channels), torch.zeros((), dtype=torch.float64, device=like.device)
        sites = normal((*shape, self.graph.count), generator=generator, like=exact)
        edges = normal((*shape, len(self.graph.edges)), generator=generator, like=exact)
        return self.colour(sites, edges).to(like)

    def colour(self, sites: Tensor, edges: Tensor) -> Tensor:
        """The linear map from standard normal numbers ``(B, C, N)`` and ``(B, C, E)`` to fields ``(B, C, N)``."""
        heads, tails = self.graph.edges.to(edges.device).T
        charges = self.mass * sites
        charges = charges.index_add(2, heads, edges).index_add(2, tails, -edges)
        solution = solve(
            charges, self._precision, torch.zeros_like(charges[..., :1]), torch.ones_like(charges[..., :1])
        )
        return self._rotate_back(solution * self._per_channel(solution).rsqrt())

    def score(self, x: Tensor) -> Tensor:
        """Clean score ``-Q x``, like ``x``."""
        modes = self._rotate(x.double())
        return -self._rotate_back(self._per_channel(modes) * self._precision(modes)).to(x)

    def smoothed_score(self, x: Tensor, v: Tensor) -> Tensor:
        """Score ``-(C + v)^-1 x`` of the noisy field, like ``x``, for noise variances ``(B,)``."""
        modes = self._rotate(x.double())
        strengths = self._per_channel(modes)
        factor = v.double()[:, None, None] * strengths
        solution = _solution(modes, self, factor)
        return -self._rotate_back(strengths * self._precision(solution)).to(x)

    def _precision(self, x: Tensor) -> Tensor:
        """``(m^2 + L) x``, along the edges."""
        sources, targets = self.graph.directed_edges.to(x.device)
        degrees = self.degrees.to(x.device)
        heard = torch.zeros_like(x).index_add(2, targets, x[..., sources])
        return (self.mass**2 + degrees) * x - heard

    def _per_channel(self, like: Tensor) -> Tensor:
        strengths: Tensor = self.strengths.to(like)
        return strengths[None, :, None]

    def _rotate(self, x: Tensor) -> Tensor:
        rotated: Tensor = torch.einsum("ij,bin->bjn", self.rotation.to(x), x)
        return rotated

    def _rotate_back(self, x: Tensor) -> Tensor:
        rotated: Tensor = torch.einsum("ij,bjn->bin", self.rotation.to(x), x)
        return rotated


class _Solution(torch.autograd.Function):
    """``(1 + factor P)^-1 y``; the matrix is symmetric, so its gradient is a solution of the same system."""

    @staticmethod
    def forward(ctx: Any, charges: Tensor, solver: GraphSolver, factor: Tensor) -> Tensor:
        ctx.solver, ctx.factor = solver, factor
        return solve(charges, solver._precision, torch.ones_like(factor), factor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _solution(gradients[0], ctx.solver, ctx.factor), None, None


def _solution(charges: Tensor, solver: GraphSolver, factor: Tensor) -> Tensor:
    solution: Tensor = _Solution.apply(charges, solver, factor)  # type: ignore[no-untyped-call]
    return solution


def solve(charges: Tensor, precision: Any, constant: Tensor, factor: Tensor) -> Tensor:
    """Solve ``(constant + factor P) y = charges`` by conjugate gradients, each ``(b, c)`` a system of its own.

    Args:
        charges: shape ``(B, C, N)``, float64.
        precision: applies P.
        constant, factor: broadcast against the charges; not negative, and not both zero.

    Raises:
        OracleError: the systems are not solved to rounding.
    """
    target = RESIDUAL**2 * _dot(charges, charges)
    solution, residual, direction = torch.zeros_like(charges), charges.clone(), charges.clone()
    power = _dot(residual, residual)
    for _ in range(LARGEST_STEPS):
        if bool((power <= target).all()):
            return solution
        image = constant * direction + factor * precision(direction)
        # A system that is solved already stays where it is.
        step = torch.where(power > target, power / _dot(direction, image).clamp_min(torch.finfo(power.dtype).tiny), 0.0)
        solution = solution + step * direction
        residual = residual - step * image
        power, before = _dot(residual, residual), power
        direction = residual + power / before.clamp_min(torch.finfo(power.dtype).tiny) * direction
    raise OracleError(
        "A linear system on the graph is not solved to rounding.",
        where="GaussianGraphTeacher, on a large graph",
        expected=f"a relative residual of {RESIDUAL}",
        got=f"{float((power / target.clamp_min(1e-300)).max().sqrt()) * RESIDUAL:.3g} after {LARGEST_STEPS} steps",
        fix="raise the mass",
    )


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(2, keepdim=True)
