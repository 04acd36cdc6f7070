"""Square blocks of one large field, for statistics that take many small ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS = 64
"""A crop of few fields is cut into at least so many blocks, where they stay large enough."""
SMALLEST_BLOCK = 16
FEW = 16
"""Fewer fields than these are cut."""


def block_side(fields: int, lengths: Sequence[int]) -> int:
    """Side of the blocks that some crops are cut into: the largest of which there are enough.

    Args:
        fields: how many there are.
        lengths: sites along each axis of every field.

    >>> block_side(1, (128, 128)), block_side(100, (32, 32))
    (16, 32)
    """
    side = min(lengths)
    while fields < FEW and fields * blocks_in(lengths, side) < BLOCKS and side > SMALLEST_BLOCK:
        side -= 1
    return side - side % 2 if side > SMALLEST_BLOCK else side


def blocks_in(lengths: Sequence[int], side: int) -> int:
    """How many blocks of a side fit into one field, side by side."""
    return math.prod(length // side for length in lengths)
