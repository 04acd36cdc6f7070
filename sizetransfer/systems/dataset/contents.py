"""Files of fields, opened and held against each other: what is in them, without their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sizetransfer.contracts.errors import SpecError
from sizetransfer.systems.dataset.layouts import Layout, described, named, recognised
from sizetransfer.systems.dataset.readers import StoredArray, open_array

if TYPE_CHECKING:
    from sizetransfer.systems.dataset.spec import ArraySpec, DatasetTeacherSpec, FileSpec

Size = tuple[int, ...]


@dataclass(frozen=True)
class Numbers:
    """An array with its layout.

    Attributes:
        stored: the array.
        layout: its axes.
        note: how the layout was found, where it was not said.
    """

    stored: StoredArray
    layout: Layout
    note: str = ""

    @property
    def rows(self) -> int | None:
        """Samples; none where it is one without an axis for it."""
        return self.layout.rows(self.stored.shape)

    @property
    def channels(self) -> int:
        """Numbers of a site."""
        return self.layout.channels(self.stored.shape)

    @property
    def size(self) -> Size:
        """Sites along each axis."""
        return self.layout.size(self.stored.shape)

    def window(self, row: int, low: Sequence[int], high: Sequence[int]) -> NDArray[np.float64]:
        """Sites ``low <= i < high`` of a sample, ``(C, *S)``; the only one, where there is one for all."""
        row = row if self.rows is not None else 0
        window: NDArray[np.float64] = self.windows(slice(row, row + 1), low, high)[0]
        return window

    def windows(self, rows: slice, low: Sequence[int], high: Sequence[int]) -> NDArray[np.float64]:
        """The same of several samples, ``(n, C, *S)``."""
        found = self.stored.read(self.layout.index(rows, low, high))
        # In one order, whatever that of the file: sums by another one differ in their rounding.
        windows: NDArray[np.float64] = np.ascontiguousarray(self.layout.windows(found), dtype=np.float64)
        return windows


@dataclass(frozen=True)
class Fields:
    """A file of fields, with what stands beside them.

    Attributes:
        numbers: the fields.
        condition, mask: arrays of the same sites, or none.
        held_out: whether all of it is held out.
    """

    numbers: Numbers
    condition: Numbers | None
    mask: Numbers | None
    held_out: bool

    @property
    def count(self) -> int:
        """Samples."""
        return self.numbers.rows or 1

    def live(self, row: int, low: Sequence[int], high: Sequence[int]) -> NDArray[np.bool_] | None:
        """Live sites of a window, ``(1, *S)``."""
        return None if self.mask is None else self.mask.window(row, low, high) != 0


def opened(spec: DatasetTeacherSpec) -> tuple[Fields, ...]:
    """Open all files of a data set.

    Raises:
        SpecError: see :meth:`.spec.DatasetTeacherSpec.build`.
    """
    files = [(file, False) for file in spec.files] + [(file, True) for file in spec.held_out_files]
    found = tuple(_fields(spec, file, held_out) for file, held_out in files)
    _check_twice(files)
    for one in found[1:]:
        _check_alike(found[0], one)
    return found


def how_read(files: Sequence[Fields]) -> tuple[str, ...]:
    """How the arrays were read where nobody said it."""
    return tuple(one.numbers.note for one in files if one.numbers.note)


def _fields(spec: DatasetTeacherSpec, file: FileSpec, held_out: bool) -> Fields:
    numbers = _numbers(file, spec, file.layout or spec.layout, spec.dim, spec.channels)
    _check_domain(spec, numbers)
    condition = None if file.condition is None else _beside(file.condition, spec, numbers, None)
    mask = None if file.mask is None else _beside(file.mask, spec, numbers, 1)
    return Fields(numbers, condition, mask, held_out)


def _numbers(
    file: ArraySpec, spec: DatasetTeacherSpec, layout: str | None, dim: int | None, channels: int | None
) -> Numbers:
    stored = open_array(file.path, file.array)
    if layout is None and stored.layout:
        known = named(stored.layout, stored.label)
        note = f"{stored.label}: {described(known, stored.shape)} (layout {known.text}); {stored.note}"
        return Numbers(stored, known, note)
    if layout is None:
        found = recognised(stored.shape, stored.label, dim=dim, channels=channels, cubic=spec.boundary != "crop")
        return Numbers(
            stored, found, f"{stored.label}: {described(found, stored.shape)} (layout {found.text}, by shape)"
        )
    said = named(layout, f"layout of {stored.label}")
    if len(said.text) != len(stored.shape) or 0 in stored.shape:
        raise SpecError(
            "The layout does not fit the array.",
            where=stored.label,
            expected=f"{len(said.text)} axes {' '.join(said.text)}, none of them empty",
            got=f"shape {stored.shape}",
            fix="correct layout:, a letter an axis",
        )
    return Numbers(stored, said)


def _check_domain(spec: DatasetTeacherSpec, numbers: Numbers) -> None:
    size, dim = numbers.size, numbers.layout.dim
    problem = None
    if spec.boundary != "crop" and len(set(size)) > 1:
        problem = "the same number of sites along each axis", f"{size} sites", "cut crops: boundary: crop"
    elif spec.dim not in {None, dim}:
        problem = f"fields of {spec.dim} axes", f"{dim} axes, layout {numbers.layout.text}", "correct dim or layout"
    elif spec.channels not in {None, numbers.channels}:
        problem = f"{spec.channels} channels", f"{numbers.channels} channels", "correct channels or layout"
    elif min(size) < 2:
        problem = "at least 2 sites along each axis", f"{size} sites", "correct layout"
    if problem is not None:
        raise SpecError(
            "The sizes of an array contradict the domain.",
            where=numbers.stored.label,
            expected=problem[0],
            got=problem[1],
            fix=problem[2],
        )


def _beside(file: ArraySpec, spec: DatasetTeacherSpec, fields: Numbers, channels: int | None) -> Numbers:
    """A condition or a mask of the same sites; without a layout, one that fits the fields is taken."""
    stored = open_array(file.path, file.array)
    sites = fields.layout.sites
    said = [file.layout.upper()] if file.layout else ["B" + sites, "BC" + sites, "B" + sites + "C", sites, "C" + sites]
    texts = [text for text in said if len(text) == len(stored.shape)]
    fits = [one for one in (named(text, stored.label) for text in texts) if _is_beside(one, stored, fields, channels)]
    if len(fits) != 1:
        raise SpecError(
            "More than one layout fits an array beside the fields." if fits else "An array does not fit its fields.",
            where=stored.label,
            expected=f"{fields.rows or 1} samples, or one for all, on {fields.size} sites"
            + (" with one channel" if channels else ""),
            got=f"shape {stored.shape}" + (f", as {' or '.join(one.text for one in fits)}" if fits else ""),
            fix="write its layout: a letter an axis",
        )
    return Numbers(stored, fits[0])


def _is_beside(layout: Layout, stored: StoredArray, fields: Numbers, channels: int | None) -> bool:
    rows, size = layout.rows(stored.shape), layout.size(stored.shape)
    count = layout.channels(stored.shape)
    return rows in {None, fields.rows or 1} and size == fields.size and channels in {None, count}


def _check_twice(files: Sequence[tuple[FileSpec, bool]]) -> None:
    seen: set[tuple[str, str | None]] = set()
    for file, _ in files:
        place = str(file.path.resolve()), file.array
        if place in seen:
            raise SpecError(
                "An array is given twice, so that a field would stand on both sides of the split.",
                where=str(file.path),
                expected="each array once, in files or in held_out_files",
                got="the same array again",
                fix="leave one of them out",
            )
        seen.add(place)


def _check_alike(first: Fields, other: Fields) -> None:
    for what, mine, its in _compared(first, other):
        if mine != its:
            raise SpecError(
                "Two files of a data set are not alike.",
                where=other.numbers.stored.label,
                expected=f"{what}: {mine}, as in {first.numbers.stored.label}",
                got=str(its),
                fix="give such files to teachers of their own, or correct their layout",
            )


def _compared(first: Fields, other: Fields) -> Iterator[tuple[str, object, object]]:
    yield "axes of the lattice", first.numbers.layout.dim, other.numbers.layout.dim
    yield "channels", first.numbers.channels, other.numbers.channels
    yield "condition channels", _channels(first.condition), _channels(other.condition)
    yield "a mask", first.mask is not None, other.mask is not None


def _channels(numbers: Numbers | None) -> int:
    return 0 if numbers is None else numbers.channels
