r"""Swendsen–Wang cluster updates of the ferromagnetic Ising model without field, for batches of independent chains.

Every bond between equal spins is closed with probability :math:`1 - e^{-2\beta}`, and every cluster of sites that
closed bonds join gets a new sign (Swendsen and Wang 1987). The clusters of all chains are found together: each site
takes the smallest name among its neighbours and follows names to their own names, until nothing changes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sizetransfer.contracts.randomness import uniform
from sizetransfer.systems.ising.model import Boundary


def swendsen_wang(
    spins: Tensor, beta: float, sweeps: int, *, boundary: Boundary = "torus", generator: torch.Generator
) -> Tensor:
    """Spins after a number of cluster updates.

    Args:
        spins: chains ``(B, H, W)`` of +1 and -1.
        beta: coupling, not negative.
        sweeps: updates.
        boundary: what is joined to what.
        generator: of all random numbers.

    Returns:
        Spins of the same shape.
    """
    for _ in range(sweeps):
        spins = _update(spins, beta, boundary, generator)
    return spins


def _update(spins: Tensor, beta: float, boundary: Boundary, generator: torch.Generator) -> Tensor:
    batch, *shape = spins.shape
    unit = uniform((batch, 2, *shape), generator=generator, like=spins, dtype=torch.float64)
    closing = -math.expm1(-2 * beta)
    down = (spins == spins.roll(-1, 1)) & (unit[:, 0] < closing)
    right = (spins == spins.roll(-1, 2)) & (unit[:, 1] < closing)
    if boundary != "torus":
        down[:, -1] = False
    if boundary == "open":
        right[..., -1] = False
    names = clusters(down, right)
    signs = uniform(spins.shape, generator=generator, like=spins, dtype=torch.float32)
    flipped = (signs < 0.5).flatten()[names.flatten()].reshape(spins.shape)
    # A name is that of a site of the cluster, whose sign is a fair coin.
    return torch.where(flipped, 1.0, -1.0).to(spins)


def clusters(down: Tensor, right: Tensor) -> Tensor:
    """Names of the clusters of every site, ``(B, H, W)``: the smallest flat index of a site of the cluster.

    Args:
        down: whether the bond to the next row is closed, ``(B, H, W)``.
        right: whether that to the next column is.
    """
    names = torch.arange(down.numel(), device=down.device).reshape(down.shape)
    up, left = down.roll(1, 1), right.roll(1, 2)
    while True:
        least = names
        for closed, axis, step in ((down, 1, -1), (up, 1, 1), (right, 2, -1), (left, 2, 1)):
            least = torch.minimum(least, torch.where(closed, names.roll(step, axis), names))
        # The site that gave a cluster its name learns the smaller one too, so that names travel in jumps.
        flat = names.flatten().scatter_reduce(0, names.flatten(), least.flatten(), "amin")
        flat = torch.minimum(flat, least.flatten())
        flat = flat[flat]
        if torch.equal(flat, names.flatten()):
            return names
        names = flat.reshape(names.shape)
