"""The tiling of a box into cubic blocks, in which ports and types are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sizetransfer.contracts.errors import OracleError


def require_blocks(shape: Sequence[int], side: int) -> None:
    """Refuse a box that blocks do not tile.

    Raises:
        OracleError: with the nearest sizes that they do.
    """
    wrong = [length for length in shape if length < side or length % side]
    if wrong:
        below, above = max(1, wrong[0] // side) * side, max(1, -(-wrong[0] // side)) * side
        raise OracleError(
            "Blocks do not tile the box.",
            where=f"box of {'x'.join(map(str, shape))} sites, blocks of {side}x{side}x{side}",
            expected=f"a multiple of {side} sites along each axis, at least {side}",
            got=str(wrong[0]),
            fix=f"use {below if below == above else f'{below} or {above}'}",
        )


def to_blocks(values: Tensor, side: int) -> Tensor:
    """Cut ``B *S`` into blocks: ``B n n n`` blocks of ``side ** 3`` sites each, in row-major order."""
    batch, *shape = values.shape
    counts = [length // side for length in shape]
    cut = values.reshape(batch, counts[0], side, counts[1], side, counts[2], side)
    return cut.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, *counts, side**3)


def from_blocks(blocks: Tensor, side: int) -> Tensor:
    """Put blocks together again: the inverse of :func:`to_blocks`."""
    batch, *counts, _ = blocks.shape
    cut = blocks.reshape(batch, *counts, side, side, side).permute(0, 1, 4, 2, 5, 3, 6)
    return cut.reshape(batch, *(count * side for count in counts))


def over_sites(values: Tensor, side: int) -> Tensor:
    """Give every site of a block the block's value: ``B n n n`` to ``B *S``."""
    return from_blocks(values[..., None].expand(*values.shape, side**3), side)


def block_parity(counts: Sequence[int]) -> Tensor:
    """Parity of the sum of a block's coordinates, 0 or 1, shape ``n n n``."""
    axes = [torch.arange(count) for count in counts]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0) % 2
