"""Which axes of a lattice are closed: all of a torus, none of a box, some of a cylinder."""

from __future__ import annotations


def axes_closed(periodic: bool, closed: tuple[bool, ...] | None, dim: int) -> tuple[bool, ...]:
    """For each of ``dim`` axes, whether its two faces are glued together."""
    return (periodic,) * dim if closed is None else closed


def wrong_axes(periodic: bool, closed: tuple[bool, ...] | None, dim: int) -> str | None:
    """What ``closed`` should be, or none where it fits."""
    if closed is None or (len(closed) == dim and len(set(closed)) == 2 and not periodic):
        return None
    return f"{dim} truth values, some true and some false, with periodic: false"
