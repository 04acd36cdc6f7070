r"""Ising models on tori in any field: exact moments by sweeps of transfer matrices, in blocks of columns.

With rows r = 0, ..., H - 1, the diagonal weights :math:`D_r = \exp(\beta\sum_c s_cs_{c+1} + h_r\cdot s)` of a row and
the bonds V between rows (:mod:`sizetransfer.systems.ising.rows`),

.. math:: F_0 = D_0, \quad F_r = D_r V F_{r-1}, \qquad B_{H-1} = V, \quad B_{r-1} = V D_r B_r, \qquad
    P(\text{row } r = a, \text{row } 0 = b) = F_r(a, b)\,B_r(a, b) / Z .

One forward and one backward sweep give all means and the covariances of all sites of row 0 with every other site;
those of another row follow by translation. The columns b are independent: blocks of them keep the memory at
:math:`O(H\,2^W m)` for m columns, and the time is :math:`O(H\,W\,4^W)`.

What is summed is positive: joint probabilities :math:`p_{\pm\pm}` of two spins keep their digits, and so does
:math:`\mathrm{Cov}(s_i, s_j) = 4(p_{++}p_{--} - p_{+-}p_{-+})` where strong fields make it small.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sizetransfer.systems.ising.limits import Cost, row_states
from sizetransfer.systems.ising.rows import Rows

WORKSPACE = 2**24
"""Bytes that the kept forward sweep of a block takes: what a processor's cache nearly holds."""

PROPAGATOR = 2**25
"""Bytes of the largest propagator that is kept of rows without field."""


@dataclass(frozen=True)
class Tables:
    """Joint probabilities of the spins of every row with those of row 0.

    Attributes:
        joint: ``(B, H, 2W, 2W)``: spin c of row r up (index c) or down (W + c), by spin c' of row 0; or
            ``(B, H, 2W, 1)`` where row 0 was not asked for.
        log_partition: log Z, ``(B,)``.
    """

    joint: Tensor
    log_partition: Tensor

    @property
    def mean(self) -> Tensor:
        """Means of all spins, ``(B, H, W)``."""
        width = self.joint.shape[2] // 2
        # One column, or the sum over both values of one spin of row 0.
        single = self.joint[..., 0] if self.joint.shape[3] == 1 else self.joint[..., 0] + self.joint[..., width]
        return single[..., :width] - single[..., width:]

    @property
    def covariance(self) -> Tensor:
        """Covariances of the spins of row 0 with all others, ``(B, W, H, W)``."""
        return covariance_of(self.joint).movedim(3, 1)


def covariance_of(joint: Tensor) -> Tensor:
    """``4 (p++ p-- - p+- p-+)`` from tables ``(..., 2n, 2m)`` of joint probabilities: ``(..., n, m)``."""
    (up_up, up_down), (down_up, down_down) = (half.chunk(2, dim=-1) for half in joint.chunk(2, dim=-2))
    return 4 * (up_up * down_down - up_down * down_up)


def torus_cost(shape: tuple[int, int], batch: int, *, sweeps: float = 2.0) -> Cost:
    """Estimate for ``batch`` fields."""
    height, width = shape
    states = row_states(width)
    operations = sweeps * batch * height * states**2 * (24 + 2.5 * width)
    columns = min(states, max(1.0, WORKSPACE / (8 * height * states)))
    held = 8 * states * (columns * (height + 4) + 4 * width) + 8 * batch * height * (states + 4 * width**2)
    return Cost(held, operations)


def torus_tables(h: Tensor, rows: Rows, *, with_first_row: bool) -> Tables:
    """Joint probabilities in fields ``h`` of shape ``(B, H, W)``, float64 or complex128.

    Args:
        h: fields.
        rows: the states of a row, with the coupling.
        with_first_row: also the joint ones with the spins of row 0, not means alone.
    """
    batch, height, _ = h.shape
    columns = max(1, min(rows.states, WORKSPACE // (8 * height * rows.states)))
    together = max(1, WORKSPACE // (8 * height * rows.states * columns))
    found = [_tables(h[first : first + together], rows, columns, with_first_row) for first in range(0, batch, together)]
    return Tables(torch.cat([each.joint for each in found]), torch.cat([each.log_partition for each in found]))


def _tables(h: Tensor, rows: Rows, columns: int, with_first_row: bool) -> Tables:
    weights, logs = rows.weights(h)
    right = rows.indicators.T if with_first_row else rows.indicators.new_ones(rows.states, 1)
    right = right.to(weights.dtype)
    blocks = _blocks(rows.states, columns)
    total = functools.reduce(operator.add, (_sweep(weights, rows, block, right[block]) for block in blocks))
    sums = total.values.reshape(*total.values.shape[:2], 2, -1, total.values.shape[3])[..., 0, :].sum(2)
    width = rows.width
    normaliser = sums[..., 0] if not with_first_row else sums[..., 0] + sums[..., width]
    log_partition = normaliser[:, 0].log() + total.logs[:, 0] + logs.sum(1) + h.shape[1] * rows.log_scale
    return Tables(total.values / normaliser[..., None, None], log_partition)


def _blocks(states: int, columns: int) -> Iterator[slice]:
    for first in range(0, states, columns):
        yield slice(first, min(first + columns, states))


@dataclass(frozen=True)
class _Scaled:
    """``values`` ``(B, H, ...)`` times the exponentials of ``logs`` ``(B, H)``."""

    values: Tensor
    logs: Tensor

    def __add__(self, other: _Scaled) -> _Scaled:
        logs = torch.maximum(self.logs, other.logs)
        mine, theirs = (each.values * (each.logs - logs).exp()[..., None, None] for each in (self, other))
        return _Scaled(mine + theirs, logs)


def _sweep(weights: Tensor, rows: Rows, block: slice, right: Tensor) -> _Scaled:
    """The parts of ``U (F_r * B_r) right`` that belong to a block of columns, for every row r."""
    forward, forward_logs = _forward(weights, rows, block)
    height = weights.shape[1]
    left = rows.indicators.to(weights.dtype)
    x, log = _first_bonds(weights, rows, block), forward_logs.new_zeros(len(weights))
    values, logs = [], []
    for r in range(height - 1, 0, -1):
        values.append((left @ (forward[r - 1] * x)) @ right)
        logs.append(forward_logs[r - 1] + log)
        x, log = rescaled(rows.bonds(weights[:, r, :, None] * x), log)
    states = torch.arange(block.start, block.stop, device=x.device)
    diagonal = weights[:, 0, block] * x[:, states, states - block.start]
    values.append((left[:, block] * diagonal[:, None]) @ right)
    logs.append(log)
    return _Scaled(torch.stack(values[::-1], 1), torch.stack(logs[::-1], 1))


def _forward(weights: Tensor, rows: Rows, block: slice) -> tuple[Tensor, Tensor]:
    """F_1, ..., F_{H-1} on a block of columns: ``(H - 1, B, S, m)``, and the logarithms of their scales."""
    batch, height, states = weights.shape
    kept = weights.new_empty(max(0, height - 1), batch, states, block.stop - block.start)
    logs = []
    x = _first_bonds(weights, rows, block) * weights[:, 0, None, block]
    log = torch.zeros(batch, dtype=torch.float64, device=weights.device)
    for r in range(1, height):
        x, log = rescaled((x if r == 1 else rows.bonds(x)) * weights[:, r, :, None], log)
        kept[r - 1] = x
        logs.append(log)
    return kept, torch.stack(logs) if logs else log[None]


def _first_bonds(weights: Tensor, rows: Rows, block: slice) -> Tensor:
    """Columns of V, ``(B, S, m)``."""
    columns = rows.bonds_to(torch.arange(block.start, block.stop, device=weights.device)).T
    return columns.to(weights.dtype).expand(len(weights), -1, -1)


def rescaled(x: Tensor, log: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` ``(B, ...)`` with its largest number made one, and the new logarithms of the scales, ``(B,)``."""
    flat = x.reshape(len(x), -1)
    top = flat.real.amax(1) if not x.is_complex() else flat.real.abs().amax(1)
    top = top.clamp_min(torch.finfo(torch.float64).tiny)
    return x / top.reshape(-1, *(1,) * (x.ndim - 1)), log + top.log()


def first_row_weights(h: Tensor, rows: Rows) -> Tensor:
    """Probabilities of the states of row 0, ``(B, S)``; rows without field in all ``h`` are summed once for all."""
    first, last = _free_rows(h)
    if first < last and 8 * rows.states**2 <= PROPAGATOR:
        return _around_free_rows(h, rows, first, last)
    return swept_first_row_weights(h, rows)


def _free_rows(h: Tensor) -> tuple[int, int]:
    """The longest run of rows without field, row 0 not among them: the first, and the one after the last."""
    longest, first = (0, 0), 1
    for r, busy in enumerate([*(h[:, 1:] != 0).any(2).any(0).tolist(), True], start=1):
        if busy:
            longest, first = max(longest, (first, r), key=lambda run: run[1] - run[0]), r + 1
    return longest


def _around_free_rows(h: Tensor, rows: Rows, first: int, last: int) -> Tensor:
    """The same by what rows ``first`` to ``last - 1`` sum to, continued to row 0 on either side."""
    together = max(1, WORKSPACE // (8 * 4 * rows.states**2))
    found = []
    for start in range(0, len(h), together):
        part, _ = rows.weights(h[start : start + together])
        x, log = _propagator(rows, last - first).expand(len(part), -1, -1), part.new_zeros(len(part))
        for r in range(first - 1, 0, -1):
            x, log = rescaled(rows.bonds(part[:, r, :, None] * x), log)
        x = x.transpose(1, 2)
        for r in range(last, h.shape[1]):
            x, log = rescaled(rows.bonds(part[:, r, :, None] * x), log)
        values = part[:, 0] * x.diagonal(dim1=1, dim2=2)
        found.append(values / values.sum(1, keepdim=True))
    return torch.cat(found)


@functools.lru_cache(maxsize=8)
def _propagator(rows: Rows, count: int) -> Tensor:
    """``V (D V)^count`` of rows without field, its largest entry one: ``(S, S)``."""
    weights, _ = rows.weights(torch.zeros(1, 1, rows.width, dtype=torch.float64, device=rows.device))
    x = _first_bonds(weights[:, 0], rows, slice(0, rows.states))
    for _ in range(count):
        x, _ = rescaled(rows.bonds(weights[:, 0, :, None] * x), weights.new_zeros(1))
    return x[0]


def swept_first_row_weights(h: Tensor, rows: Rows) -> Tensor:
    """The same by a sweep over all rows, in blocks of columns."""
    height = h.shape[1]
    columns = max(1, min(rows.states, WORKSPACE // (8 * 4 * rows.states)))
    together = max(1, WORKSPACE // (8 * 4 * rows.states * columns))
    found = []
    for first in range(0, len(h), together):
        part, _ = rows.weights(h[first : first + together])
        values, logs = [], []
        for block in _blocks(rows.states, columns):
            # B_0 by the backward recursion, which needs nothing kept.
            x, log = _first_bonds(part, rows, block), torch.zeros(len(part), dtype=torch.float64, device=h.device)
            for r in range(height - 1, 0, -1):
                x, log = rescaled(rows.bonds(part[:, r, :, None] * x), log)
            states = torch.arange(block.start, block.stop, device=h.device)
            values.append(part[:, 0, block] * x[:, states, states - block.start])
            logs.append(log[:, None].expand(-1, len(states)))
        log = torch.cat(logs, 1)
        scaled = torch.cat(values, 1) * (log - log.amax(1, keepdim=True)).exp()
        found.append(scaled / scaled.sum(1, keepdim=True))
    return torch.cat(found)
