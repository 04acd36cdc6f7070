"""The six directions of the cubic lattice, and what the sites of a box see along them.

A port state is an integer between 0 and 63; bit d is set where the port in direction d is open. The directions come in
opposite pairs, so that the opposite of d is ``d ^ 1``.
"""

from __future__ import annotations

import torch
from torch import Tensor

DIRECTIONS = ("+x", "-x", "+y", "-y", "+z", "-z")
"""Bit d of a port state is the port in direction ``DIRECTIONS[d]``; x, y and z are the axes 0, 1 and 2 of a box."""

CODES = 64
"""Number of port states, valid or not."""


def opposite(direction: int) -> int:
    """The direction that looks back."""
    return direction ^ 1


def unit(direction: int) -> tuple[int, int, int]:
    """The step to the neighbour in a direction."""
    steps = [0, 0, 0]
    steps[direction // 2] = 1 - 2 * (direction % 2)
    return steps[0], steps[1], steps[2]


def port_bits(ports: Tensor) -> Tensor:
    """Which ports are open: integers ``B *S`` to booleans ``B 6 *S``."""
    shifts = torch.arange(6, device=ports.device).reshape(6, 1, 1, 1)
    return ((ports[:, None] >> shifts) & 1).bool()


def neighbour(values: Tensor, direction: int) -> Tensor:
    """What the neighbour of every site in a direction has, ``... *S``; zero beyond the walls."""
    axis = values.ndim - 3 + direction // 2
    length = values.shape[axis]
    beyond = torch.zeros_like(values.narrow(axis, 0, 1))
    if direction % 2 == 0:
        return torch.cat([values.narrow(axis, 1, length - 1), beyond], dim=axis)
    return torch.cat([beyond, values.narrow(axis, 0, length - 1)], dim=axis)
