"""Fields of files as they are stored: all of a set, in their order, read some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.stored import Boundary
from sizetransfer.numerics.blocks import block_side
from sizetransfer.systems.dataset.contents import Fields
from sizetransfer.systems.dataset.splitting import Region

Numbers = NDArray[np.float64]


class FileFields:
    """Regions of opened files, in the order of the files; crops of few fields are cut into blocks.

    Args:
        files: that were opened.
        regions: parts of their samples that have no site in common.
        boundary: what is beyond their last sites.
        read_as: how the files were read where nobody said it.
        units: turns numbers ``(n, C, *S)`` of the files into those that are asked for.

    Raises:
        SpecError: the fields have masks or conditions, which nobody who asks for plain fields would know of.
    """

    def __init__(
        self,
        files: Sequence[Fields],
        regions: Iterable[Region],
        boundary: Boundary,
        read_as: Sequence[str] = (),
        units: Callable[[Numbers], Numbers] | None = None,
    ) -> None:
        for file in files:
            _require_plain(file)
        self.files, self.boundary, self.read_as, self._units = tuple(files), boundary, tuple(read_as), units
        self.dim, self.channels = files[0].numbers.layout.dim, files[0].numbers.channels
        ordered = sorted(regions, key=lambda region: (region.file, region.row, region.low))
        self._fields = _by_size(ordered, boundary)

    def sizes(self) -> tuple[int, ...]:
        """Sites along each axis, ascending."""
        return tuple(self._fields)

    def count(self, size: int) -> int:
        """How many fields, or blocks, there are of a size."""
        return len(self._fields[size])

    def rows(self, size: int, indices: Sequence[int] | slice) -> Tensor:
        """Some fields of a size: ``(n, channels, *size)``, float64; rows that follow each other are read together."""
        fields = self._fields[size]
        chosen = fields[indices] if isinstance(indices, slice) else [fields[index] for index in indices]
        return torch.from_numpy(np.concatenate([self._read(first, count) for first, count in _runs(chosen)]))

    def _read(self, first: Region, count: int) -> Numbers:
        numbers = self.files[first.file].numbers
        found = numbers.windows(slice(first.row, first.row + count), first.low, first.high)
        return found if self._units is None else self._units(found)


def _by_size(regions: Sequence[Region], boundary: Boundary) -> Mapping[int, list[Region]]:
    """Fields by their side, ascending."""
    shapes: dict[tuple[int, ...], list[Region]] = {}
    for region in regions:
        shapes.setdefault(region.size, []).append(region)
    fields: dict[int, list[Region]] = {}
    for shape, own in shapes.items():
        side = block_side(len(own), shape) if boundary == "crop" else shape[0]
        fields.setdefault(side, []).extend(tile for region in own for tile in region.tiles(side))
    return dict(sorted(fields.items()))


def _runs(regions: Iterable[Region]) -> Iterator[tuple[Region, int]]:
    """The same window of samples that follow each other: the first of them, and how many."""
    first: Region | None = None
    count = 0
    for region in regions:
        if first is not None and region == Region(first.file, first.row + count, first.low, first.size):
            count += 1
            continue
        if first is not None:
            yield first, count
        first, count = region, 1
    if first is not None:
        yield first, count


def _require_plain(file: Fields) -> None:
    for name, there in (("mask", file.mask), ("condition", file.condition)):
        if there is not None:
            raise SpecError(
                f"Fields with a {name} are not diagnosed from data alone.",
                where=f"{file.numbers.stored.label}, {name}",
                expected="fields whose sites are all alive, and nothing beside them",
                got=f"a {name}, {there.stored.label}",
                fix="cut windows without dead sites and say boundary: crop"
                if name == "mask"
                else f"leave the {name} out, for the law over all of its values",
            )
