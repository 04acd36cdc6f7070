r"""Gaussian fields on graphs: irregular and off-lattice systems with everything exact at every noise level.

.. math:: X_0 \sim N(0, Q^{-1}), \qquad Q = (m^2 + \Lambda)\otimes K, \qquad \Lambda = D - A

with the graph's Laplacian (degrees minus adjacency) in the place of a lattice's; on the graph of a torus it is the
field of :mod:`sizetransfer.systems.gaussian.teacher`. With one channel for every dimension of the positions and no
coupling between them, the channels may be declared the components of one displacement vector: the harmonic crystal of
isotropic springs, whose law is unchanged when positions and displacements turn together. It is a kind of its own
because it has other sizes (numbers of sites), another domain and other fields of its specification. The graph is given
by its edges, by positions and a cutoff, or drawn: sites thrown one by one into a periodic box, one for each unit of
volume, where no earlier site is nearer than ``separation`` (random sequential addition), joined below the cutoff. That
rule is the same at every size. One dense diagonalisation for each size, with work of order N^3, then answers at every
noise level. On more than ``DENSE_SITES`` sites fields are drawn, and scores told, by linear systems along the edges
instead (:mod:`sizetransfer.systems.gaussian.graph_solver`), with work of order N; the other oracles diagonalise there
too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from sizetransfer.contracts.domain import Graph, edges_within, shorter_way
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context, Sample
from sizetransfer.contracts.randomness import stream, uniform
from sizetransfer.contracts.specs import FieldInfo, Geometry, TeacherSpec
from sizetransfer.numerics.couplings import Couplings
from sizetransfer.numerics.gaussian import GaussianField
from sizetransfer.systems.gaussian.graph_solver import GraphSolver
from sizetransfer.systems.gaussian.teacher import GaussianLaw, noise_variance

DENSE_SITES = 1024
REFERENCE_SITES = 256
ATTEMPTS_PER_SITE = 1000


class GaussianGraphTeacherSpec(Couplings, TeacherSpec):
    """Gaussian field on a graph: of given edges, of given positions, or of random positions at every size."""

    geometry: ClassVar[Geometry] = "graph"
    kind: Literal["gaussian-graph"] = "gaussian-graph"
    channels: int = Field(1, ge=1, description="components of a site")
    components: Literal["scalars", "vector"] = Field(
        "scalars", description="vector: the channels are a displacement in the space of the positions"
    )
    edges: tuple[tuple[int, int], ...] | None = Field(None, description="pairs of sites, counted from zero")
    sites: int | None = Field(None, ge=1, description="sites of the edge list; by default as many as it names")
    positions: tuple[tuple[float, ...], ...] | None = Field(None, description="coordinates of the sites")
    box: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="period of the given positions; none for an open space"
    )
    space: int = Field(2, ge=1, le=3, description="dimension of the space of random positions")
    cutoff: float = Field(
        1.6,
        gt=0,
        allow_inf_nan=False,
        description="sites nearer than this are joined; the unit of random positions is their mean spacing",
    )
    separation: float = Field(0.6, ge=0, le=0.7, description="least distance of random positions")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "disordered-plane": {"space": 2, "cutoff": 1.6, "mass": 0.5},
        "disordered-volume": {"space": 3, "cutoff": 1.5, "mass": 0.5},
        "harmonic-crystal": {"space": 3, "cutoff": 1.5, "mass": 0.5, "channels": 3, "components": "vector"},
    }

    @model_validator(mode="after")
    def _checked(self) -> GaussianGraphTeacherSpec:
        self.channel_matrix(self.channels)
        if self.edges is not None and self.positions is not None:
            raise SpecError(
                "A graph is given by its edges or by positions, not both.",
                where="edges, positions",
                expected="one of the two, or neither for random positions",
                got="both",
                fix="drop one of them",
            )
        for name, needed in (("sites", "edges"), ("box", "positions")):
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise SpecError(
                    f"{name!r} belongs to {needed!r}, which are not given.",
                    where=name,
                    expected=f"{name} together with {needed}",
                    got=f"{name} = {getattr(self, name)}",
                    fix=f"give {needed}, or drop {name}",
                )
        self._check_vector()
        return self

    def _check_vector(self) -> None:
        if self.components == "vector" and (self.edges is not None or self.coupling is not None):
            raise SpecError(
                "The channels are no displacements.",
                where="components, edges, coupling",
                expected="positions, and no coupling between the channels, which would single out directions",
                got="edges" if self.edges is not None else "a coupling",
                fix="give positions and no coupling, or set components: scalars",
            )
        # Compares the channels with the dimension of the space.
        self.field()

    def build(self) -> GaussianGraphTeacher:
        return GaussianGraphTeacher(self)

    def fixed_size(self) -> int | None:
        """Number of sites of a given graph; ``None`` where positions are drawn at any size."""
        if self.positions is not None:
            return len(self.positions)
        if self.edges is not None:
            return self.sites if self.sites is not None else 1 + max((max(edge) for edge in self.edges), default=1)
        return None

    def field(self) -> FieldInfo:
        """Where the field lives; its scale is known once the graph is."""
        space, periodic = self.space, True
        if self.positions is not None:
            space, periodic = len(self.positions[0]) if self.positions else 0, self.box is not None
        elif self.edges is not None:
            space, periodic = 1, False
        return FieldInfo(
            geometry="graph", dim=max(space, 1), channels=self.channels, components=self.components, periodic=periodic
        )

    def smallest_size(self) -> int:
        """Sites of the smallest random system, whose box holds the cutoff's ball."""
        return max(2, math.ceil((2 * self.cutoff) ** self.space))


class GaussianGraphTeacher(GaussianLaw):
    """Gaussian field on a graph (see the module's formulas); ``size`` is the number of sites, and ``*S = (N,)``."""

    draws_fields_apart = True

    def __init__(self, spec: GaussianGraphTeacherSpec) -> None:
        super().__init__(spec.field())
        self.spec = spec
        fixed = spec.fixed_size()
        size = max(REFERENCE_SITES, spec.smallest_size()) if fixed is None else fixed
        self.field = self.field.model_copy(update={"sigma_data": self.law((size,)).standard_deviation()})

    def check_size(self, size: int) -> None:
        fixed, smallest = self.spec.fixed_size(), self.spec.smallest_size()
        if (size < smallest) if fixed is None else (size != fixed):
            raise OracleError(
                "The teacher has no graph of this size.",
                where="GaussianGraphTeacher, size",
                expected=f"at least {smallest} sites" if fixed is None else f"{fixed}, the sites of the given graph",
                got=str(size),
                fix="change the size; it counts sites",
            )

    def domain(self, size: int) -> Graph:
        """The graph of ``size`` sites, with positions unless edges were given.

        Raises:
            OracleError: there is none of that size, or it is empty, not connected or malformed.
        """
        self.check_size(size)
        return _graph(self.spec, size)

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        if size <= DENSE_SITES:
            return super().sample(batch, size, generator=generator)
        context = self.context(batch, size)
        return Sample(_graph_solver(self.spec, size).sample(batch, generator=generator, like=self.anchor), context)

    def score(self, sample: Sample) -> Float[Tensor, "batch channels *size"]:
        solver = self._solver(sample.x)
        return super().score(sample) if solver is None else solver.score(sample.x)

    def smoothed_score(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        solver = self._solver(x)
        if solver is None:
            return super().smoothed_score(x, sigma, context)
        return solver.smoothed_score(x, noise_variance(sigma, len(x)))

    def _solver(self, x: Tensor) -> GraphSolver | None:
        """What answers for large fields; nothing for small ones, and for those that do not fit."""
        if x.ndim != 3 or x.shape[1] != self.field.channels or x.shape[2] <= DENSE_SITES:
            return None
        self.check_size(x.shape[2])
        return _graph_solver(self.spec, x.shape[2])

    def law(self, shape: tuple[int, ...]) -> GaussianField:
        if len(shape) != 1:
            raise OracleError(
                "The field does not fit the teacher.",
                where="GaussianGraphTeacher, x",
                expected="*size = (N,)",
                got=f"*size = {shape}",
                fix="pass fields on the teacher's domain",
            )
        self.check_size(shape[0])
        return _graph_law(self.spec, shape[0])


@lru_cache(maxsize=8)
def _graph(spec: GaussianGraphTeacherSpec, size: int) -> Graph:
    with torch.inference_mode(False):
        return _new_graph(spec, size)


def _new_graph(spec: GaussianGraphTeacherSpec, size: int) -> Graph:
    if spec.edges is not None:
        return Graph(size, torch.tensor(spec.edges, dtype=torch.int64, device="cpu").reshape(-1, 2))
    if spec.positions is not None:
        return _joined(_given_positions(spec.positions), spec.cutoff, spec.box)
    generator = stream(spec.seed, "positions", size)
    positions = separated_positions(size, spec.space, spec.separation, generator=generator)
    return _joined(positions, spec.cutoff, size ** (1 / spec.space))


def _joined(positions: Tensor, cutoff: float, box: float | None) -> Graph:
    if box is not None and 2 * cutoff > box:
        raise OracleError(
            "The cutoff reaches around the periodic box.",
            where="cutoff, box",
            expected=f"cutoff at most half the box, {box / 2:.6g}",
            got=f"{cutoff}",
            fix="lower the cutoff or take a larger system",
        )
    return Graph(len(positions), edges_within(positions, cutoff, box), positions, box)


def _given_positions(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    if not rows:
        raise OracleError(
            "The graph is empty.",
            where="positions",
            expected="one row of coordinates for every site",
            got="no rows",
            fix="give positions, or leave them out for random ones",
        )
    dimensions = {len(row) for row in rows}
    finite = all(math.isfinite(value) for row in rows for value in row)
    if len(dimensions) != 1 or 0 in dimensions or not finite:
        raise OracleError(
            "The positions are not points of one space.",
            where="positions",
            expected="finite coordinates, equally many in every row",
            got=f"rows with {sorted(dimensions)} coordinates" if finite else "coordinates that are not finite",
            fix="give one row of numbers for every site",
        )
    return torch.tensor(rows, dtype=torch.float64, device="cpu")


def separated_positions(count: int, space: int, separation: float, *, generator: torch.Generator) -> Tensor:
    """Random sequential addition of ``count`` points to a periodic box of that volume: ``(N, space)``, float64.

    Args:
        count: points, one for each unit of volume.
        space: dimension of the space.
        separation: least distance between two points, in units of their mean spacing.
        generator: draws the points.

    Raises:
        OracleError: the box is full before all points are in it.
    """
    box = count ** (1 / space)
    positions = torch.empty(count, space, dtype=torch.float64, device="cpu")
    placed = 0
    for _ in range(ATTEMPTS_PER_SITE):
        for point in uniform((count, space), generator=generator, like=positions) * box:
            distances = shorter_way(positions[:placed] - point, box).square().sum(1)
            if not (distances < separation**2).any():
                positions[placed] = point
                placed += 1
            if placed == count:
                return positions
    raise OracleError(
        "The box is full before all sites are in it.",
        where="separation",
        expected=f"{count} sites at least {separation} apart in {space} dimensions",
        got=f"{placed} sites",
        fix="lower the separation",
    )


@lru_cache(maxsize=8)
def _graph_law(spec: GaussianGraphTeacherSpec, size: int) -> GaussianField:
    # Kept for later calls, so they must not be tensors of an inference mode that the first caller was in.
    with torch.inference_mode(False):
        return GaussianField.on_graph(spec, _graph(spec, size).laplacian, spec.channels)


@lru_cache(maxsize=8)
def _graph_solver(spec: GaussianGraphTeacherSpec, size: int) -> GraphSolver:
    with torch.inference_mode(False):
        return GraphSolver(spec, _graph(spec, size), spec.channels)
