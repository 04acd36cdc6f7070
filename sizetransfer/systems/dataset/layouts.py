"""Layouts: which axis of an array is which, named by a letter an axis, and recognised where one reading alone fits.

``B`` is the axis of the samples and ``C`` that of the channels; either may be missing, for one sample or one channel.
The others are the axes of the lattice, ``L``, ``H W`` or ``D H W`` (or ``X``, ``X Y``, ``X Y Z``), in whatever order
they are stored: the fields have them in this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sizetransfer.contracts.errors import SpecError

SITES = ("L", "HW", "DHW", "X", "XY", "XYZ")
"""Letters of the axes of a lattice."""

MOST_CHANNELS = 8
"""An axis is recognised as that of the channels if it is no longer than this, and shorter than those of the lattice."""


@dataclass(frozen=True)
class Layout:
    """The axes of an array, in its own order.

    Attributes:
        text: a letter an axis.
    """

    text: str

    @property
    def sites(self) -> str:
        """Letters of the axes of the lattice, in the order of a field's axes."""
        letters = set(self.text) - {"B", "C"}
        return next(known for known in SITES if set(known) == letters)

    @property
    def dim(self) -> int:
        """Axes of the lattice."""
        return len(self.sites)

    def lengths(self, shape: Sequence[int]) -> dict[str, int]:
        """Length of every axis by its letter."""
        return dict(zip(self.text, shape, strict=True))

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Sites along each axis of the fields."""
        lengths = self.lengths(shape)
        return tuple(lengths[letter] for letter in self.sites)

    def rows(self, shape: Sequence[int]) -> int | None:
        """Number of samples; none where the array is of one sample without an axis for it."""
        return self.lengths(shape).get("B")

    def channels(self, shape: Sequence[int]) -> int:
        """Numbers of a site."""
        return self.lengths(shape).get("C", 1)

    def index(self, rows: slice, low: Sequence[int], high: Sequence[int]) -> tuple[slice, ...]:
        """What of the array holds a window of some samples: sites ``low <= i < high``."""
        parts = {"B": rows, "C": slice(None)}
        parts |= {letter: slice(a, b) for letter, a, b in zip(self.sites, low, high, strict=True)}
        return tuple(parts[letter] for letter in self.text)

    def windows(self, found: NDArray[np.generic]) -> NDArray[np.generic]:
        """What was read, as ``(n, C, *S)``."""
        array, text = found, self.text
        for letter in "CB":
            if letter not in text:
                array, text = array[None], letter + text
        return array.transpose([text.index(letter) for letter in "BC" + self.sites])


def named(text: str, where: str) -> Layout:
    """The layout that a user wrote.

    Raises:
        SpecError: it is none.
    """
    letters = text.upper()
    sites = set(letters) - {"B", "C"}
    if len(set(letters)) < len(letters) or sites not in [set(known) for known in SITES]:
        raise SpecError(
            "That is no layout.",
            where=where,
            expected=f"a letter an axis: B (samples), C (channels), and one of {', '.join(SITES)} in any order",
            got=repr(text),
            fix="write for example BHW, BHWC or BCHW",
        )
    return Layout(letters)


def candidates(shape: Sequence[int], *, dim: int | None, channels: int | None, cubic: bool) -> Iterator[Layout]:
    """Layouts that fit a shape.

    Args:
        shape: of the array.
        dim: axes of the lattice, if they are known.
        channels: numbers of a site, if they are known.
        cubic: whether all axes of the lattice must have one length.
    """
    for sites in SITES[:3]:
        for text in ("B" + sites, "B" + sites + "C", "BC" + sites, sites, sites + "C", "C" + sites):
            if len(text) == len(shape) and _fits(Layout(text), shape, dim, channels, cubic):
                yield Layout(text)


def _fits(layout: Layout, shape: Sequence[int], dim: int | None, channels: int | None, cubic: bool) -> bool:
    if dim is None and layout.dim == 1 and "C" in layout.text:
        return False  # nothing tells channels on a chain from a lattice of two unequal sides
    size, count = layout.size(shape), layout.channels(shape)
    wanted = count <= MOST_CHANNELS and count < min(size) if channels is None else count == channels
    return dim in {None, layout.dim} and wanted and min(size) > 1 and (not cubic or len(set(size)) == 1)


def recognised(
    shape: Sequence[int], where: str, *, dim: int | None = None, channels: int | None = None, cubic: bool = True
) -> Layout:
    """The one layout that fits a shape; arguments as for :func:`candidates`.

    Raises:
        SpecError: no layout fits, or more than one; it lists them.
    """
    found = list(candidates(shape, dim=dim, channels=channels, cubic=cubic))
    # An axis of length one is that of one sample or of one channel: the fields are the same.
    readings = {tuple(letter for letter, n in zip(one.text, shape, strict=True) if n > 1) for one in found}
    if len(readings) == 1:
        return found[0]
    listed = "; ".join(f"{one.text} ({described(one, shape)})" for one in found)
    raise SpecError(
        "More than one layout fits the array." if found else "No layout fits the array.",
        where=where,
        expected="one reading of its axes" + ("" if found else f" as {_wanted(dim, channels, cubic)}"),
        got=f"shape {tuple(shape)}" + (f": {listed}" if found else ""),
        fix=f"write layout: {found[0].text}, or another" if found else "write layout: with a letter an axis, as BHWC",
    )


def described(layout: Layout, shape: Sequence[int]) -> str:
    """What an array of this layout holds, in words."""
    rows, channels = layout.rows(shape) or 1, layout.channels(shape)
    sites = " x ".join(map(str, layout.size(shape)))
    return f"{_count(rows, 'field')} of {_count(channels, 'channel')} on {sites} sites"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _wanted(dim: int | None, channels: int | None, cubic: bool) -> str:
    parts = [
        f"{_count(channels, 'channel')}" if channels else f"at most {MOST_CHANNELS} channels",
        f"{_count(dim, 'axis').replace('axiss', 'axes')} of a lattice" if dim else "one to three axes of a lattice",
    ]
    return " and ".join(parts) + (", all of one length" if cubic else "")
