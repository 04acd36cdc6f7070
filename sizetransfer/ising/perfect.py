r"""Independent, perfect samples of Ising models: rows drawn one after another from their exact conditional laws.

On a torus, row 0 is drawn from its exact law, and then, with B_r of :mod:`sizetransfer.ising.torus`,

.. math:: P(\text{row } r = a\,|\,\text{row } r-1 = c, \text{row } 0 = b) \propto V(c, a)\,D_r(a)\,B_r(a, b).

In a given field only the columns b that were drawn are needed. Without field the columns of one state out of each class
under rotations, reflections and the sign serve all draws: :class:`TorusSampler` keeps them, and moves every draw by a
random element of that group. On cylinders and in boxes B_r does not depend on row 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sizetransfer.ising.limits import Cost
from sizetransfer.ising.rows import Rows
from sizetransfer.ising.strips import backward_vectors
from sizetransfer.ising.torus import first_row_weights, rescaled

DRAWN_TOGETHER = 2**22
"""Numbers of one table of conditional probabilities, states times draws."""


def _draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """One index for each row of weights ``(n, S)``: ``(n,)``."""
    sums = weights.cumsum(1)
    unit = torch.rand(len(weights), 1, generator=generator, device=generator.device, dtype=torch.float64)
    # Within [0, 1) times the total, and right of every entry that is zero.
    index = torch.searchsorted(sums, unit.to(sums.device) * sums[:, -1:], right=True)
    return index[:, 0].clamp_max(weights.shape[1] - 1)


def _draw_shared(weights: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """``draws`` indices from one row of weights ``(S,)``."""
    sums = weights.cumsum(0)
    unit = torch.rand(draws, generator=generator, device=generator.device, dtype=torch.float64).to(sums.device)
    return torch.searchsorted(sums, unit * sums[-1], right=True).clamp_max(len(weights) - 1)


def _spins(states: Tensor, rows: Rows) -> Tensor:
    """Spins of states ``(n, H)``: ``(n, H, W)``."""
    return rows.spins.T[states]


def _chunk(rows: Rows) -> int:
    return max(1, DRAWN_TOGETHER // rows.states)


# --- any field ------------------------------------------------------------------------------------------------


def torus_samples(h: Tensor, rows: Rows, draws: int, generator: torch.Generator) -> Tensor:
    """Spins in one field ``(H, W)`` on a torus: ``(draws, H, W)``."""
    weights = rows.weights(h[None])[0][0]
    first = _draw_shared(first_row_weights(h[None], rows)[0], draws, generator)
    found = torch.empty(draws, len(h), dtype=torch.int64, device=h.device)
    for part in torch.split(torch.arange(draws, device=h.device), _chunk(rows)):
        starts, column = torch.unique(first[part], return_inverse=True)
        found[part] = _rows_after(first[part], column, _backward_columns(weights, rows, starts), rows, generator)
    return _spins(found, rows)


def _backward_columns(weights: Tensor, rows: Rows, columns: Tensor) -> Tensor:
    """``D_r(a) B_r(a, b)`` for r = 1, ..., H - 1 and the columns b: ``(H - 1, n, S)``."""
    x = rows.bonds_to(columns).T[None]
    log = x.new_zeros(1)
    found = []
    for r in range(len(weights) - 1, 0, -1):
        weighted = weights[r][:, None] * x
        found.append(weighted[0].T.contiguous())
        x, log = rescaled(rows.bonds(weighted), log)
    return torch.stack(found[::-1])


def _rows_after(first: Tensor, column: Tensor, table: Tensor, rows: Rows, generator: torch.Generator) -> Tensor:
    """States of all rows ``(n, H)``, given row 0 and the column of the table that belongs to it."""
    states = [first]
    for conditional in table:
        states.append(_draw(conditional[column] * rows.bonds_to(states[-1]), generator))
    return torch.stack(states, 1)


def strip_samples(h: Tensor, rows: Rows, draws: int, generator: torch.Generator) -> Tensor:
    """Spins in one field ``(H, W)`` on a cylinder or in a box: ``(draws, H, W)``."""
    weights = rows.weights(h[None])[0]
    table = (weights * backward_vectors(weights, rows))[0]
    found = torch.empty(draws, len(h), dtype=torch.int64, device=h.device)
    for part in torch.split(torch.arange(draws, device=h.device), _chunk(rows)):
        states = [_draw_shared(table[0], len(part), generator)]
        for conditional in table[1:]:
            states.append(_draw(conditional * rows.bonds_to(states[-1]), generator))
        found[part] = torch.stack(states, 1)
    return _spins(found, rows)


# --- tori without field ---------------------------------------------------------------------------------------


def torus_sampler_cost(shape: tuple[int, int]) -> Cost:
    """Estimate of what :class:`TorusSampler` keeps, and of the time to make it."""
    height, width = shape
    states = 2.0**width
    classes = states / (4 * width) + 2.0 ** (width / 2 + 1)
    return Cost(8 * states * (classes * (height + 2) + 6 * width), height * states * classes * (24 + 2.5 * width))


class TorusSampler:
    """Perfect samples on a torus without field; see the module.

    Args:
        height: rows.
        rows: the states of a row, with the coupling.
    """

    def __init__(self, height: int, rows: Rows) -> None:
        self.rows = rows
        names = _representatives(rows)
        self.classes, sizes = torch.unique(names, return_counts=True)
        weights = rows.weights(torch.zeros(1, height, rows.width, dtype=torch.float64, device=rows.device))[0][0]
        self.table = _backward_columns(weights, rows, self.classes)
        # Row 1 with all that follows it, and the bonds that join it to row 0; all columns have one scale.
        closed = (self.table[0] * rows.bonds_to(self.classes)).sum(1)
        self.shares = weights[0][self.classes] * closed * sizes

    def draw(self, draws: int, generator: torch.Generator) -> Tensor:
        """Spins ``(draws, H, W)``, float64."""
        found = []
        for part in torch.split(torch.arange(draws), _chunk(self.rows)):
            column = _draw_shared(self.shares, len(part), generator)
            states = _rows_after(self.classes[column], column, self.table, self.rows, generator)
            found.append(self._moved(_spins(states, self.rows), generator))
        return torch.cat(found)

    def _moved(self, spins: Tensor, generator: torch.Generator) -> Tensor:
        """Every draw turned, reflected and given a sign at random."""
        width = self.rows.width
        element = torch.randint(4 * width, (len(spins),), generator=generator, device=generator.device)
        element = element.to(spins.device)
        step, reflect, sign = element % width, element // width % 2, 1.0 - 2.0 * (element // (2 * width)).double()
        place = torch.arange(width, device=spins.device)[None]
        place = (torch.where(reflect[:, None] == 1, -place, place) + step[:, None]) % width
        moved = spins.gather(2, place[:, None].expand(-1, spins.shape[1], -1))
        return moved * sign[:, None, None]


def _representatives(rows: Rows) -> Tensor:
    """The smallest state of the class of every state under rotations, reflections and the sign, ``(S,)``."""
    powers = 2 ** torch.arange(rows.width - 1, -1, -1, device=rows.device)
    bits = ((1 - rows.spins) / 2).long()
    smallest = torch.full((rows.states,), rows.states, dtype=torch.int64, device=rows.device)
    for turned in (bits, bits.flip(0)):
        for step in range(rows.width):
            name = (powers[:, None] * turned.roll(step, 0)).sum(0)
            smallest = torch.minimum(smallest, torch.minimum(name, rows.states - 1 - name))
    return smallest
