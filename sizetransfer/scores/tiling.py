r"""Scores of huge lattices in bounded memory: tile by tile, each with a halo as wide as the receptive radius.

For a student of radius r the score at a site depends on the ball :math:`B_r` alone (paper eq. (4)). So the score on a
tile is that of the student on the tile and r more sites on every side, cropped to the tile: whatever the student puts
outside the cut (the circular continuation of a torus, the zeros of a box) reaches r sites inwards, into the halo. On a
torus a cut goes around it; in an open box it ends at the walls, which the student must see. Condition and mask are cut
with the field, so the sublattice of a site stays its own wherever the tile begins. On a torus all tiles have one shape;
where the tile does not divide the lattice, the last one overlaps its neighbour.

Memory is that of a tile's activations and of the field itself. The score at a site is a sum of the same terms in tile
and whole, added in the order that the libraries choose by shape, processor and number of threads: the two agree to
rounding. Equal bits are promised for the same field, cut into the same tiles, alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.student import Student


@dataclass(frozen=True)
class _Cut:
    """One axis of one tile.

    Attributes:
        start, stop: the sites that the student sees; outside the lattice where the cut goes around a torus.
        first, last: the sites among them whose score is kept.
    """

    start: int
    stop: int
    first: int
    last: int

    def take(self, x: Tensor, axis: int) -> Tensor:
        """The seen sites of ``x`` along ``axis``."""
        length = x.shape[axis]
        if self.start >= 0 and self.stop <= length:
            return x.narrow(axis, self.start, self.stop - self.start)
        return x.index_select(axis, torch.arange(self.start, self.stop, device=x.device) % length)


class TiledStudent(Student):
    """A student evaluated tile by tile: made by :func:`tiled`, with the same field, radius and score."""

    def __init__(self, student: Student, tile: int, radius: int) -> None:
        super().__init__(student.field, radius=radius)
        self.student = student
        self.tile = tile
        self.halo = radius
        self.train(student.training)

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        """Score of ``x``, as the student's; gradients are those of all tiles and need the memory of all tiles."""
        lattice = _lattice(context)
        score = torch.empty_like(x)
        for cuts in itertools.product(*map(self._cuts, lattice.size, lattice.closed_axes)):
            tile = self.student(_take(x, cuts), sigma, _take_context(context, cuts, lattice))
            for axis, cut in enumerate(cuts, start=2):
                tile = tile.narrow(axis, cut.first - cut.start, cut.last - cut.first)
            kept = (slice(None), slice(None), *(slice(cut.first, cut.last) for cut in cuts))
            score[kept] = tile
        return score

    def _cuts(self, length: int, closed: bool) -> list[_Cut]:
        """The tiles along an axis of ``length`` sites; an axis no longer than a tile is left whole."""
        if length <= self.tile:
            return [_Cut(0, length, 0, length)]
        cuts = []
        for first in range(0, length, self.tile):
            begin = min(first, length - self.tile)
            start, stop = begin - self.halo, begin + self.tile + self.halo
            if not closed:
                start, stop = max(start, 0), min(stop, length)
            cuts.append(_Cut(start, stop, first, begin + self.tile))
        return cuts


def tiled(student: Student, tile: int) -> TiledStudent:
    """A student with the same score, evaluated on tiles of ``tile`` sites along each axis with halos of its radius.

    The student must be a rule of what it sees of field, condition, mask and boundary: it is given a cut as if that were
    a lattice of its own.

    Raises:
        SpecError: the student is global, so that no halo is wide enough, or the tile has no sites.

    Example:
        >>> import sizetransfer as st
        >>> teacher = st.teacher("flow", preset="short-range-simple")
        >>> tiled(st.student("cnn", teacher.field, blocks=1, width=4), 16).radius
        4
    """
    if student.radius is None:
        raise SpecError(
            "A global student cannot be evaluated on tiles.",
            where=f"tiled({type(student).__name__}, ...)",
            expected="a student with a finite radius",
            got="radius None",
            fix="evaluate it on the whole lattice, or take a local student",
        )
    if tile < 1:
        raise SpecError(
            "A tile has no sites.",
            where="tile",
            expected="at least one site along each axis",
            got=str(tile),
            fix=f"take some multiple of the radius {student.radius}: the work grows as (1 + 2 * radius / tile) ** dim",
        )
    return TiledStudent(student, tile, student.radius)


def _lattice(context: Context) -> Lattice:
    if not isinstance(context.domain, Lattice):
        raise SpecError(
            "Only fields on lattices can be cut into tiles.",
            where="Context.domain",
            expected="a Lattice",
            got=type(context.domain).__name__,
            fix="evaluate the student itself",
        )
    return context.domain


def _take(x: Tensor, cuts: Sequence[_Cut]) -> Tensor:
    for axis, cut in enumerate(cuts, start=2):
        x = cut.take(x, axis)
    return x.contiguous()


def _take_context(context: Context, cuts: Sequence[_Cut], lattice: Lattice) -> Context:
    return replace(
        context,
        domain=replace(lattice, size=tuple(cut.stop - cut.start for cut in cuts)),
        condition=None if context.condition is None else _take(context.condition, cuts),
        mask=None if context.mask is None else _take(context.mask, cuts),
    )
