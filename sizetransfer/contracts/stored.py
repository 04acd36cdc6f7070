"""Fields that are stored, not drawn: what a diagnosis from data asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

Boundary: TypeAlias = Literal["periodic", "walls", "crop"]
"""``periodic``: a torus; ``walls``: a box with walls; ``crop``: a window of a larger field, its edges are no walls."""


@runtime_checkable
class StoredFields(Protocol):
    """Independent fields at one size or several, read in parts, so that they may be larger than the memory."""

    @property
    def boundary(self) -> Boundary:
        """What is beyond the last site."""
        ...

    @property
    def dim(self) -> int:
        """Axes of the lattice."""
        ...

    @property
    def channels(self) -> int:
        """Components of a site."""
        ...

    def sizes(self) -> tuple[int, ...]:
        """Sites along each axis, ascending."""
        ...

    def count(self, size: int) -> int:
        """How many fields there are of a size."""
        ...

    def rows(self, size: int, indices: Sequence[int] | slice) -> Tensor:
        """Some fields of a size, in their order in the file: ``(n, channels, *size)``, in their own units."""
        ...
