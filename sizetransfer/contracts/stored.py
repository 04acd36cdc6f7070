"""Fields that are stored, not drawn: what a diagnosis from data asks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

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

    @property
    def read_as(self) -> tuple[str, ...]:
        """How files were read where nobody said it, in words."""
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


FileOfFields: TypeAlias = str | Path | Mapping[str, object]
"""A path; or a mapping of it, the name of the array in the file, its layout."""


@runtime_checkable
class ReadsFiles(Protocol):
    """The specification of a teacher that files of fields can be given to; the class itself satisfies it.

    Attributes:
        file_suffixes: endings of the files that it reads.
    """

    file_suffixes: ClassVar[tuple[str, ...]]

    @classmethod
    def stored_fields(
        cls, files: Sequence[FileOfFields], *, boundary: Boundary, layout: str | None = None
    ) -> StoredFields:
        """The fields of some files, all of them, without dividing them into training and held-out ones.

        Args:
            files: of one size or several.
            boundary: what is beyond the last site.
            layout: a letter an axis; none: recognised, and said by ``read_as``.

        Raises:
            SpecError: a file is missing, damaged, ambiguous or contradicts another.
        """
        ...
