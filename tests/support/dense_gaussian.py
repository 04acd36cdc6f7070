"""Gaussian fields by dense linear algebra in real space: bonds are added one by one, and matrices inverted whole.

Components are ordered as ``x.flatten()`` of one field of shape ``(C, *S)``.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Lattice


def lattice_precision(size: int, dim: int, mass: float, *, coupling: Tensor | None = None, springs=None) -> Tensor:
    """Precision of the field on the torus: pinning of every site, and the energy of every bond."""
    lattice = Lattice.cubic(size, dim, periodic=True)
    axes = torch.eye(dim, dtype=torch.int64)
    coupling = torch.eye(dim if springs else 1) if coupling is None else coupling
    bonds = [(axis, coupling) for axis in axes]
    if springs:
        along, across = springs.longitudinal, springs.transverse
        bonds = [(axis, torch.diag(torch.where(axis == 1, along, across))) for axis in axes]
        for a, b in itertools.combinations(axes, 2):
            for step in (a + b, a - b):
                unit = step / 2**0.5
                bonds.append((step, springs.diagonal * torch.outer(unit, unit)))
    pinning = mass**2 * coupling
    precision = torch.kron(pinning, torch.eye(lattice.sites))
    blocks = precision.reshape(len(pinning), lattice.sites, len(pinning), lattice.sites)
    index = torch.arange(lattice.sites).reshape(lattice.shape)
    for site in itertools.product(range(size), repeat=dim):
        for step, matrix in bonds:
            add_bond(blocks, index[site], index[tuple((torch.tensor(site) + step) % size)], matrix)
    return precision


def graph_precision(count: int, edges, mass: float, coupling: Tensor) -> Tensor:
    """Precision of the field on a graph."""
    precision = mass**2 * torch.kron(coupling, torch.eye(count))
    blocks = precision.reshape(len(coupling), count, len(coupling), count)
    for first, second in edges:
        add_bond(blocks, int(first), int(second), coupling)
    return precision


def add_bond(blocks: Tensor, i: int, j: int, matrix: Tensor) -> None:
    """Add the energy ``(x_i - x_j).M (x_i - x_j) / 2``."""
    for first, second, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
        blocks[:, first, :, second] += sign * matrix


def noisy_covariance(precision: Tensor, sigma: float) -> Tensor:
    """C + sigma^2."""
    return torch.linalg.inv(precision) + sigma**2 * torch.eye(len(precision))


def best_local(noisy: Tensor, balls: list[Tensor], channels: int) -> Tensor:
    """The matrix of the best score: row i of ``-(C_BB + v)^-1`` at the sites of the ball of i, zero elsewhere.

    Args:
        noisy: C + v.
        balls: flat indices of every site's ball.
        channels: C.
    """
    sites = len(balls)
    matrix = torch.zeros_like(noisy)
    for site, ball in enumerate(balls):
        inside = torch.cat([channel * sites + ball for channel in range(channels)])
        inverse = torch.linalg.inv(noisy[inside][:, inside])
        for channel in range(channels):
            row = channel * sites + site
            matrix[row, inside] = -inverse[int((inside == row).nonzero())]
    return matrix


def jacobian(score, shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear score of one field of shape ``(C, *S)``: column j is its value at unit vector j."""
    number = int(torch.tensor(shape).prod())
    columns = [score(unit.reshape(1, *shape)).flatten() for unit in torch.eye(number)]
    return torch.stack(columns, dim=1)
