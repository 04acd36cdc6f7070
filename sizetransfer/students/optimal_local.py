r"""The best score of receptive radius r for a Gaussian field: what no training can beat.

.. math:: s_i(x) = -\big[(C+v)_{B_r(i)B_r(i)}^{-1}\,x_{B_r(i)}\big]_i, \qquad v = \sigma^2

the score of the ball's marginal, which is :math:`E[s_i(x)|x_{B_r(i)}]` and so the optimum of denoising score matching
among all functions of the ball (:mod:`sizetransfer.gaussian`). C is the covariance of a Gaussian teacher with the same
mass and coupling. One diagonalisation of the ball's covariance serves every noise level, without interpolation.

On a torus C depends on the lattice through what goes around it, of relative size :math:`e^{-mL}`. ``reference:
infinite`` takes C in infinite volume: one filter for all sizes, as a trained student has, and the optimum up to these
corrections. ``reference: lattice`` takes the C of every lattice it meets, the exact optimum there; it is then no rule
of what it sees alone. On a graph C is that of the graph, and the ball counts hops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.domain import Graph, Lattice, pad
from sizetransfer.errors import OracleError, SpecError
from sizetransfer.gaussian import BallMarginal, FourierModes, GraphModes, LatticeCouplings
from sizetransfer.oracle import Context
from sizetransfer.specs import FieldInfo, StudentSpec
from sizetransfer.student import Student

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class OptimalLocalSpec(LatticeCouplings, StudentSpec):
    """Best score of a given radius for a Gaussian field; its mass and coupling are those of the teacher."""

    kind: Literal["optimal-local"] = "optimal-local"
    radius: int = Field(4, ge=0, description="receptive radius r: Chebyshev on a torus, hops on a graph")
    reference: Literal["infinite", "lattice"] | int = Field(
        "infinite", description="size of the torus whose covariance is used: infinite, each lattice's own, or a number"
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "free-field": {"mass": 0.5},
        "near-critical": {"mass": 0.05},
        "harmonic-crystal": {"mass": 0.3, "springs": {}},
    }

    def build(self, field: FieldInfo) -> OptimalLocalStudent:
        if field.dim not in _CONVOLUTIONS:
            raise SpecError(
                "The best local score is there for one to three dimensions.",
                where="optimal-local, field.dim",
                expected="1, 2 or 3",
                got=str(field.dim),
                fix="choose a teacher of fewer dimensions",
            )
        if isinstance(self.reference, int) and self.reference < 2 * self.radius + 1:
            raise SpecError(
                "The ball does not fit on the reference torus.",
                where="reference",
                expected=f"at least 2 * radius + 1 = {2 * self.radius + 1}",
                got=str(self.reference),
                fix="raise reference, or use infinite",
            )
        self.bonds(field.dim, field.channels)
        return OptimalLocalStudent(self, field)

    def reference_shape(self, lattice: Lattice) -> tuple[int, ...]:
        """Size of the torus whose covariance serves on ``lattice``."""
        if self.reference == "lattice":
            return lattice.size
        size = self.reference_size(lattice.dim) if self.reference == "infinite" else self.reference
        return (max(size, 2 * self.radius + 1),) * lattice.dim


class OptimalLocalStudent(Student):
    """Best local score of a Gaussian field (see the module's formula); it has no weights."""

    def __init__(self, spec: OptimalLocalSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=spec.radius)
        self.spec = spec

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        if isinstance(context.domain, Graph):
            return graph_score(x, graph_balls(self.spec, context.domain, self.field.channels), sigma)
        if not isinstance(context.domain, Lattice) or not context.domain.periodic:
            raise OracleError(
                "The best local score is known on tori and on graphs.",
                where="OptimalLocalStudent, context.domain",
                expected="a periodic Lattice or a Graph",
                got=repr(context.domain),
                fix="use it with a Gaussian teacher",
            )
        shape = self.spec.reference_shape(context.domain)
        return lattice_stencil(self.spec, shape, self.field.channels).score(x, sigma)


@dataclass(frozen=True)
class Stencil:
    """The best filter of a torus.

    Attributes:
        marginal: law on the ball around the origin.
        places: where each site of the ball lies in the flattened cube of ``(2r+1) ** dim`` steps, shape ``(n,)``.
        radius: r.
    """

    marginal: BallMarginal
    places: Tensor
    radius: int

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Score of ``x``, of shape ``(B, C, *S)``, at noise levels of shape ``(B,)``."""
        batch, channels, *size = x.shape
        width, dim = 2 * self.radius + 1, len(size)
        rows = self.marginal.precision_rows(sigma.double().square()).to(x)
        weights = x.new_zeros(batch * channels, channels, width**dim)
        weights[:, :, self.places] = -rows.flatten(0, 1)
        # Every field has a noise level and so a filter of its own: one group of the convolution each.
        fields = pad(x, self.radius, periodic=True).flatten(0, 1)[None]
        kernel = weights.reshape(*weights.shape[:2], *(width,) * dim)
        return _CONVOLUTIONS[dim](fields, kernel, groups=batch).reshape(x.shape)


@lru_cache(maxsize=8)
def lattice_stencil(spec: OptimalLocalSpec, shape: tuple[int, ...], channels: int) -> Stencil:
    """The best filter for the covariance of the torus of ``shape``."""
    lattice = Lattice(shape)
    origin = (0,) * lattice.dim
    # Where the ball meets itself around the torus, each site is seen once.
    sites = lattice.ball(origin, spec.radius).flatten().nonzero().flatten()
    steps = lattice.displacement(origin).flatten(1)[:, sites] + spec.radius
    places = torch.zeros_like(sites)
    for axis in steps:
        places = places * (2 * spec.radius + 1) + axis
    with torch.inference_mode(False):
        return Stencil(BallMarginal(FourierModes(spec, shape, channels).covariance(sites), 0), places, spec.radius)


@lru_cache(maxsize=4)
def graph_balls(spec: OptimalLocalSpec, graph: Graph, channels: int) -> list[tuple[Tensor, BallMarginal]]:
    """The sites of every site's ball, and the law of the field on them."""
    with torch.inference_mode(False):
        covariance = GraphModes(spec, graph.laplacian, channels).covariance(torch.arange(graph.count))
        balls = [graph.ball((site,), spec.radius).nonzero().flatten() for site in range(graph.count)]
        return [
            (ball, BallMarginal(covariance[:, ball][..., ball], int((ball == site).nonzero())))
            for site, ball in enumerate(balls)
        ]


def graph_score(x: Tensor, balls: list[tuple[Tensor, BallMarginal]], sigma: Tensor) -> Tensor:
    """Best local score of ``x``, of shape ``(B, C, N)``, site by site."""
    v = sigma.double().square()
    scores = [
        torch.einsum("bijn,bjn->bi", marginal.precision_rows(v).to(x), x[..., ball.to(x.device)])
        for ball, marginal in balls
    ]
    return -torch.stack(scores, dim=2)
