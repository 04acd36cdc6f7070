"""The sites that a filter sees around its centre, as steps from it."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError

LARGEST_BALL = 8192
"""Components of the largest ball whose covariance is diagonalised: half a gigabyte, and minutes."""


def steps_of(lattice: Lattice, radius: int) -> Int[Tensor, "sites dim"]:
    """The steps of Chebyshev length at most ``radius``, the centre among them; around a torus each site once."""
    axes = []
    for length, closed in zip(lattice.size, lattice.closed_axes, strict=True):
        lowest, highest = ((length - 1) // 2, length // 2) if closed else (radius, radius)
        axes.append(torch.arange(-min(radius, lowest), min(radius, highest) + 1))
    return torch.cartesian_prod(*axes).reshape(-1, lattice.dim)


def centre_of(steps: Tensor) -> int:
    """Place of the centre among the steps."""
    return int((steps == 0).all(1).nonzero())


def neighbours(lattice: Lattice, steps: Tensor) -> Int[Tensor, "sites ball"]:
    """Flat index of the site at every step from every site; the number of sites stands for a place outside the box."""
    sites = torch.stack(torch.unravel_index(torch.arange(lattice.sites), lattice.shape), dim=1)
    places = sites[:, None] + steps
    flat, outside = torch.zeros(places.shape[:2], dtype=torch.int64), torch.zeros(places.shape[:2], dtype=torch.bool)
    for axis, (length, closed) in enumerate(zip(lattice.size, lattice.closed_axes, strict=True)):
        place = places[..., axis]
        outside |= ((place < 0) | (place >= length)) & (not closed)
        flat = flat * length + place % length
    return torch.where(outside, lattice.sites, flat)


def check_ball(components: int) -> None:
    """Refuse a ball whose covariance is too large to be diagonalised.

    Raises:
        OracleError: with the limit.
    """
    if components > LARGEST_BALL:
        raise OracleError(
            "The ball has too many sites for its covariance to be diagonalised.",
            where="linear reference, radius",
            expected=f"at most {LARGEST_BALL} components in the ball",
            got=str(components),
            fix="lower the radius, or ask for the whole torus",
        )
