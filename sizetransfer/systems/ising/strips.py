r"""Ising models on open cylinders and open boxes in any field: vectors instead of matrices.

Where the first row is not joined to the last, a sweep needs one vector of :math:`2^W` states:

.. math:: F_0 = D_0, \quad F_r = D_r V F_{r-1}, \qquad B_{H-1} = 1, \quad B_{r-1} = V D_r B_r, \qquad
    P(\text{row } r = a) = F_r(a)\,B_r(a)/Z .

Rows are rings on a cylinder and open chains in a box. Time and memory are :math:`O(H\,W\,2^W)`: long cylinders test
size transfer in arbitrary fields. Covariances with one site take two vectors, for its spin up and down, so that they
keep their digits as on a torus (:mod:`sizetransfer.systems.ising.torus`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sizetransfer.systems.ising.limits import Cost, row_states
from sizetransfer.systems.ising.rows import Rows
from sizetransfer.systems.ising.torus import Tables, rescaled

WORKSPACE = 2**27
"""Bytes of the sweeps that are kept at a time."""


def strip_cost(shape: tuple[int, int], batch: int, *, columns: int = 1) -> Cost:
    """Estimate for ``batch`` fields and vectors for ``columns`` spins."""
    height, width = shape
    states = row_states(width)
    operations = batch * height * states * (2 + 2 * columns) * (24 + 2.5 * width)
    return Cost(8 * states * (4 * height + 8 * columns + 4 * width), operations)


def strip_tables(h: Tensor, rows: Rows, site: tuple[int, int] | None = None) -> Tables:
    """Joint probabilities in fields ``h`` of shape ``(B, H, W)``, float64 or complex128.

    Args:
        h: fields.
        rows: the states of a row, with the coupling.
        site: whose joint probabilities with all other spins are asked for; none: means alone.

    Returns:
        ``joint`` of shape ``(B, H, 2W, 2)`` for the site up and down, or ``(B, H, 2W, 1)``.
    """
    together = max(1, WORKSPACE // (8 * 3 * h.shape[1] * rows.states))
    found = [_tables(h[first : first + together], rows, site) for first in range(0, len(h), together)]
    return Tables(torch.cat([each.joint for each in found]), torch.cat([each.log_partition for each in found]))


def _tables(h: Tensor, rows: Rows, site: tuple[int, int] | None) -> Tables:
    weights, logs = rows.weights(h)
    height = h.shape[1]
    forward, log = forward_vectors(weights, rows)
    backward = backward_vectors(weights, rows)
    left = rows.indicators.to(weights.dtype)
    if site is None:
        both = (forward * backward)[..., None]
    else:
        row, column = site
        split = left[[column, rows.width + column]].T
        both = torch.stack(_split(weights, forward, backward, rows, row, split), 1)
    joint = left @ both
    sums = joint.sum(3)
    normaliser = sums[:, :, 0] + sums[:, :, rows.width]
    # The last forward vector sums to Z.
    log_partition = forward[:, -1].sum(1).log() + log + logs.sum(1) + (height - 1) * rows.log_scale
    return Tables(joint / normaliser[..., None, None], log_partition)


def forward_vectors(weights: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """F_r for every row, ``(B, H, S)``, each with a largest entry of one; logarithm of the scale of the last."""
    x, log = weights[:, 0], torch.zeros(len(weights), dtype=torch.float64, device=weights.device)
    found = [x]
    for r in range(1, weights.shape[1]):
        x, log = rescaled(weights[:, r] * rows.bonds(x[..., None])[..., 0], log)
        found.append(x)
    return torch.stack(found, 1), log


def backward_vectors(weights: Tensor, rows: Rows) -> Tensor:
    """B_r for every row, ``(B, H, S)``, each with a largest entry of one."""
    x, log = torch.ones_like(weights[:, 0]), torch.zeros(len(weights), dtype=torch.float64, device=weights.device)
    found = [x]
    for r in range(weights.shape[1] - 1, 0, -1):
        x, log = rescaled(rows.bonds((weights[:, r] * x)[..., None])[..., 0], log)
        found.append(x)
    return torch.stack(found[::-1], 1)


def _split(weights: Tensor, forward: Tensor, backward: Tensor, rows: Rows, row: int, split: Tensor) -> list[Tensor]:
    """``P(row r = a)`` up to a factor for each r, split by what row ``row`` is: every entry ``(B, S, 2)``."""
    height = weights.shape[1]
    log = torch.zeros(len(weights), dtype=torch.float64, device=weights.device)
    found: list[Tensor] = [(forward[:, row] * backward[:, row])[..., None] * split] * height
    down = forward[:, row, :, None] * split
    for r in range(row + 1, height):
        down, log = rescaled(weights[:, r, :, None] * rows.bonds(down), log)
        found[r] = down * backward[:, r, :, None]
    up = (weights[:, row] * backward[:, row])[..., None] * split
    for r in range(row - 1, -1, -1):
        up, log = rescaled(rows.bonds(up), log)
        found[r] = forward[:, r, :, None] * up
        up = weights[:, r, :, None] * up
    return found
