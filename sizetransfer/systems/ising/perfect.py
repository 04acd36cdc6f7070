r"""Independent, perfect samples of Ising models: rows drawn one after another from their exact conditional laws.

On a torus, row 0 is drawn from its exact law, and then, with B_r of :mod:`sizetransfer.systems.ising.torus`,

.. math:: P(\text{row } r = a\,|\,\text{row } r-1 = c, \text{row } 0 = b) \propto V(c, a)\,D_r(a)\,B_r(a, b).

In a given field only the columns b that were drawn are needed. Without field the columns of one state out of each class
under rotations, reflections and the sign serve all draws: :class:`TorusSampler` keeps them, and moves every draw by a
random element of that group. On cylinders and in boxes B_r does not depend on row 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sizetransfer.contracts.randomness import branch_of, fields_of, integers, uniform
from sizetransfer.systems.ising.limits import Cost, row_states
from sizetransfer.systems.ising.rows import Rows
from sizetransfer.systems.ising.strips import backward_vectors
from sizetransfer.systems.ising.torus import first_row_weights, rescaled

DRAWN_TOGETHER = 2**22
"""Numbers of one table of conditional probabilities, states times draws."""


def _draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """One index for each row of weights ``(n, S)``: ``(n,)``."""
    sums = weights.cumsum(1)
    unit = uniform((len(weights), 1), generator=generator, like=sums, dtype=torch.float64)
    # Within [0, 1) times the total, and right of every entry that is zero.
    index = torch.searchsorted(sums, unit * sums[:, -1:], right=True)
    return index[:, 0].clamp_max(weights.shape[1] - 1)


def _draw_shared(weights: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """``draws`` indices from one row of weights ``(S,)``."""
    sums = weights.cumsum(0)
    unit = uniform((draws,), generator=generator, like=sums, dtype=torch.float64)
    return torch.searchsorted(sums, unit * sums[-1], right=True).clamp_max(len(weights) - 1)


def _spins(states: Tensor, rows: Rows) -> Tensor:
    """Spins of states ``(n, H)``: ``(n, H, W)``."""
    return rows.spins.T[states]


def _parts(draws: int, rows: Rows, generator: torch.Generator) -> Iterator[tuple[slice, torch.Generator]]:
    """Draws that are made together, and what they are made from."""
    together, own = max(1, DRAWN_TOGETHER // rows.states), branch_of(generator, "rows")
    for start in range(0, draws, together):
        stop = min(start + together, draws)
        yield slice(start, stop), fields_of(own, start, stop - start)


# --- any field ------------------------------------------------------------------------------------------------


def torus_samples(h: Tensor, rows: Rows, draws: int, generator: torch.Generator) -> Tensor:
    """Spins in one field ``(H, W)`` on a torus: ``(draws, H, W)``."""
    weights = rows.weights(h[None])[0][0]
    first = _draw_shared(first_row_weights(h[None], rows)[0], draws, generator)
    found = torch.empty(draws, len(h), dtype=torch.int64, device=h.device)
    for part, own in _parts(draws, rows, generator):
        starts, column = torch.unique(first[part], return_inverse=True)
        found[part] = _rows_after(first[part], column, _backward_columns(weights, rows, starts), rows, own)
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
    for part, own in _parts(draws, rows, generator):
        states = [_draw_shared(table[0], part.stop - part.start, own)]
        for conditional in table[1:]:
            states.append(_draw(conditional * rows.bonds_to(states[-1]), own))
        found[part] = torch.stack(states, 1)
    return _spins(found, rows)


# --- tori without field ---------------------------------------------------------------------------------------


def torus_sampler_cost(shape: tuple[int, int]) -> Cost:
    """Estimate of what :class:`TorusSampler` keeps, and of the time to make it."""
    height, width = shape
    states = row_states(width)
    classes = states / (4 * width) + 2 * states**0.5
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
        for part, own in _parts(draws, self.rows, generator):
            column = _draw_shared(self.shares, part.stop - part.start, own)
            states = _rows_after(self.classes[column], column, self.table, self.rows, own)
            found.append(self._moved(_spins(states, self.rows), own))
        return torch.cat(found)

    def _moved(self, spins: Tensor, generator: torch.Generator) -> Tensor:
        """Every draw turned, reflected and given a sign at random."""
        width = self.rows.width
        element = integers(4 * width, (len(spins),), generator=generator, like=spins)
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
