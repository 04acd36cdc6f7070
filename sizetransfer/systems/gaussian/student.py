r"""The best score of receptive radius r for a Gaussian field: what no training can beat.

.. math:: s_i(x) = -\big[(C+v)_{B_r(i)B_r(i)}^{-1}\,x_{B_r(i)}\big]_i, \qquad v = \sigma^2

the score of the ball's marginal, which is :math:`E[s_i(x)|x_{B_r(i)}]` and so the optimum of denoising score matching
among all functions of the ball (:mod:`sizetransfer.numerics.gaussian`). C is the covariance of a Gaussian teacher with
the same mass and coupling. One diagonalisation of the ball's covariance serves every noise level, without
interpolation.

On a torus C depends on the lattice through what goes around it, of relative size :math:`e^{-mL}`. ``reference:
infinite`` takes C in infinite volume: one filter for all sizes, as a trained student has, and the optimum up to these
corrections. ``reference: lattice`` takes the C of every lattice it meets, the exact optimum there; it is then no rule
of what it sees alone. On a graph C is that of the graph, and the ball counts hops.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.domain import Graph, Lattice
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo, Geometry, StudentSpec
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.couplings import LatticeCouplings
from sizetransfer.numerics.gaussian import GaussianField
from sizetransfer.scores.references.best_filter import CONVOLUTIONS, BestFilter, best_filter, torus_of


class OptimalLocalSpec(LatticeCouplings, StudentSpec):
    """Best score of a given radius for a Gaussian field; its mass and coupling are those of the teacher."""

    geometries: ClassVar[tuple[Geometry, ...]] = ("lattice", "graph")

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
        if field.geometry == "graph":
            self._check_graph(field)
            return OptimalLocalStudent(self, field)
        if field.dim not in CONVOLUTIONS:
            raise SpecError(
                "The best local score is there for one to three dimensions.",
                where="optimal-local, field.dim",
                expected="1, 2 or 3",
                got=str(field.dim),
                fix="choose a teacher of fewer dimensions",
            )
        if not field.periodic:
            raise SpecError(
                "The best local score is not known in an open box.",
                where="optimal-local, field.periodic",
                expected="a torus or a graph",
                got="an open box",
                fix="choose a Gaussian teacher",
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

    def _check_graph(self, field: FieldInfo) -> None:
        if self.springs is not None:
            raise SpecError(
                "Springs couple sites of a lattice.",
                where="optimal-local, springs",
                expected="a mass and a coupling between channels, as the teacher gaussian-graph has",
                got="springs, for a field on a graph",
                fix="leave out the springs (and presets that have them)",
            )
        self.channel_matrix(field.channels)

    def reference_shape(self, lattice: Lattice) -> tuple[int, ...]:
        """Size of the torus whose covariance serves on ``lattice``."""
        if self.reference == "lattice":
            return lattice.size
        size = self.reference_size(lattice.dim) if self.reference == "infinite" else self.reference
        return (max(size, 2 * self.radius + 1),) * lattice.dim


class OptimalLocalStudent(Student):
    """Best local score of a Gaussian field (see the module's formula); it has no weights."""

    ignores = frozenset({"condition"})
    # Each noise level gets its filter once, so the shapes within depend on the values of sigma.
    unsupported = frozenset({"func"})

    def __init__(self, spec: OptimalLocalSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=spec.radius)
        self.spec = spec
        self.reads_domain = field.geometry == "graph" or spec.reference == "lattice"

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        if context.mask is not None:
            raise OracleError(
                "The best local score is that of a field without dead sites.",
                where="best local score, context.mask",
                expected="no mask",
                got=f"a mask of shape {tuple(context.mask.shape)}",
                fix="use it with a Gaussian teacher",
            )
        if isinstance(context.domain, Graph):
            return _graph_filter(self.spec, context.domain, self.field.channels).score(x, sigma)
        lattice = torus_of(context.domain)
        return _lattice_filter(self.spec, self.spec.reference_shape(lattice), self.field.channels).score(x, sigma)


@lru_cache(maxsize=8)
def _lattice_filter(spec: OptimalLocalSpec, shape: tuple[int, ...], channels: int) -> BestFilter:
    # Kept for later calls, so they must not be tensors of an inference mode that the first caller was in.
    with torch.inference_mode(False):
        return best_filter(Lattice(shape), spec.radius, GaussianField.coupled(spec, shape, channels).between)


@lru_cache(maxsize=4)
def _graph_filter(spec: OptimalLocalSpec, graph: Graph, channels: int) -> BestFilter:
    with torch.inference_mode(False):
        return best_filter(graph, spec.radius, GaussianField.on_graph(spec, graph.laplacian, channels).between)
