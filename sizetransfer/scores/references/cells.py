r"""Fields on a torus whose sites alternate between classes, in Fourier space.

The torus is cut into cells of :math:`p^d` sites, p the least number of steps that moves every class onto itself. A
table :math:`T_c(d)` by the class of a site and the displacement from it, a covariance or the weights of a filter, is
then a matrix between the sites a, b and the channels of a cell for every wave q of the lattice of cells,

.. math:: T_{ab}(q) = \sum_R T_{c(a)}(R + b - a)\,e^{-iqR} ,

and products of tables are products of these matrices. With one class a cell is a site.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sizetransfer.contracts.errors import OracleError


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a torus.

    Attributes:
        labels: class of every site, ``*S``.
    """

    labels: Int[Tensor, "*size"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sites along each axis."""
        return tuple(self.labels.shape)

    @cached_property
    def period(self) -> int:
        """Sites of a cell along each axis.

        Raises:
            OracleError: the classes do not repeat along the axes.
        """
        axes = range(self.labels.ndim)
        for period in range(1, max(self.shape) + 1):
            if any(length % period for length in self.shape):
                continue
            if all(torch.equal(self.labels.roll(period, axis), self.labels) for axis in axes):
                return period
        raise OracleError(
            "The classes of sites do not repeat along the axes of the torus.",
            where="linear reference of the whole torus",
            expected="axes that are all multiples of one period",
            got=f"a torus of {self.shape}",
            fix="ask for a radius, or take a torus with equal axes",
        )

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return tuple(length // self.period for length in self.shape)

    @cached_property
    def sites(self) -> tuple[tuple[int, ...], ...]:
        """The sites of the first cell."""
        return tuple(itertools.product(range(self.period), repeat=self.labels.ndim))

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """Class of each of them."""
        return tuple(int(self.labels[site]) for site in self.sites)

    def places(self, first: tuple[int, ...], second: tuple[int, ...]) -> Int[Tensor, "cells"]:
        """Flat indices of the displacements from one site of the first cell to the other one of every cell."""
        flat = torch.zeros(1, dtype=torch.int64)
        for length, cells, a, b in zip(self.shape, self.grid, first, second, strict=True):
            steps = (torch.arange(cells) * self.period + b - a) % length
            flat = (flat[:, None] * length + steps).flatten()
        return flat

    @cached_property
    def _places(self) -> Int[Tensor, "cell cell cells"]:
        return torch.stack([torch.stack([self.places(a, b) for b in self.sites]) for a in self.sites])

    def matrices(self, table: Float[Tensor, "classes rows columns sites"]) -> Float[Tensor, "waves m n"]:
        """The matrices T(q), complex128, with rows and columns in the order (site of the cell, channel).

        Args:
            table: by class and flat displacement; a single class stands for all of them.
        """
        own = torch.tensor(self.classes) if len(table) > 1 else torch.zeros(len(self.sites), dtype=torch.int64)
        blocks = table[own[:, None, None], :, :, self._places]  # site, site, cell, row, column
        blocks = torch.unflatten(blocks.permute(0, 3, 1, 4, 2), -1, self.grid)
        blocks = blocks.flatten(0, 1).flatten(1, 2)
        waves: Tensor = torch.fft.fftn(blocks, dim=tuple(range(2, blocks.ndim)))
        return waves.flatten(2).permute(2, 0, 1)

    def row(self, matrix: Float[Tensor, "waves rows n"], site: int) -> Float[Tensor, "rows columns sites"]:
        """The table of one site of the cell, by its place in ``sites``, from its rows of the matrices."""
        grid = tuple(range(2, 2 + len(self.grid)))
        waves = torch.unflatten(matrix.permute(1, 2, 0), -1, self.grid)
        blocks = torch.unflatten(torch.fft.ifftn(waves, dim=grid).real.flatten(2), 1, (len(self.sites), -1))
        found = blocks.new_zeros(blocks.shape[0], blocks.shape[2], self.labels.numel())
        for block, there in zip(blocks.unbind(1), self._places[site], strict=True):
            found[..., there] = block
        return found

    def mean_table(self, matrices: Float[Tensor, "waves m m"]) -> Float[Tensor, "rows columns *size"]:
        """The table of some matrices, a mean over the sites of a cell."""
        rows = torch.unflatten(matrices, 1, (len(self.sites), -1)).unbind(1)
        table = torch.stack([self.row(matrix, site) for site, matrix in enumerate(rows)]).mean(0)
        return torch.unflatten(table, -1, self.shape)
