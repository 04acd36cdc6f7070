"""Arrays as stored fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.stored import Boundary, StoredFields
from sizetransfer.numerics.blocks import block_side, blocks_in

Array: TypeAlias = npt.NDArray[Any]


class ArrayFields:
    """Arrays of shape ``(n, channels, *size)``, one for each size; numpy arrays may be memory-mapped.

    Args:
        arrays: the fields, or one array of them.
        boundary: what is beyond their last sites. Crops with few fields are cut into square blocks, and crops of
            unequal axes too.

    Raises:
        SpecError: an array that is not of that shape, unequal axes, sizes or channels that contradict each other.
    """

    read_as: tuple[str, ...] = ()

    def __init__(self, arrays: Sequence[Array | Tensor] | Array | Tensor, boundary: Boundary = "periodic") -> None:
        several = [arrays] if isinstance(arrays, np.ndarray | Tensor) else list(arrays)
        _check(several, boundary)
        self.boundary: Boundary = boundary
        self.dim = several[0].ndim - 2
        self.channels = int(several[0].shape[1])
        sides = {_side(array, boundary): array for array in several}
        self._arrays: Mapping[int, Array | Tensor] = dict(sorted(sides.items()))
        if len(sides) < len(several):
            raise SpecError(
                "Two sets of fields have the same size.",
                where="data",
                expected="one array for each size",
                got=f"{len(several)} arrays of sizes {sorted(_side(array, boundary) for array in several)}",
                fix="join fields of one size into one array",
            )

    def sizes(self) -> tuple[int, ...]:
        """Sites along each axis, ascending."""
        return tuple(self._arrays)

    def count(self, size: int) -> int:
        """How many fields, or blocks, there are of a size."""
        array = self._arrays[size]
        return int(array.shape[0]) * _blocks(array, size)

    def rows(self, size: int, indices: Sequence[int] | slice) -> Tensor:
        """Some fields of a size: ``(n, channels, *size)``."""
        array = self._arrays[size]
        if _blocks(array, size) == 1 and tuple(array.shape[2:]) == (size,) * self.dim:
            return _tensor(array[indices])
        wanted = range(*indices.indices(self.count(size))) if isinstance(indices, slice) else indices
        return torch.stack([_tensor(self._block(array, size, index)) for index in wanted])

    def _block(self, array: Array | Tensor, size: int, index: int) -> Array | Tensor:
        """One block; neighbours have neighbouring numbers."""
        row, place = divmod(index, _blocks(array, size))
        corner = np.unravel_index(place, [length // size for length in array.shape[2:]])
        window: tuple[Any, ...] = tuple(slice(int(a) * size, (int(a) + 1) * size) for a in corner)
        found: Array | Tensor = array[(row, slice(None), *window)]
        return found


def _tensor(array: Array | Tensor) -> Tensor:
    if isinstance(array, Tensor):
        return array
    own = np.result_type(array.dtype.newbyteorder("="), np.float32)
    return torch.from_numpy(np.array(array, dtype=own))  # a copy: a mapped file cannot be written to


def _blocks(array: Array | Tensor, side: int) -> int:
    """Blocks of one field."""
    return blocks_in(array.shape[2:], side)


def _side(array: Array | Tensor, boundary: Boundary) -> int:
    """The side of the fields, or of the blocks that they are cut into."""
    lengths = [int(length) for length in array.shape[2:]]
    return block_side(int(array.shape[0]), lengths) if boundary == "crop" else min(lengths)


def _check(arrays: Sequence[Array | Tensor], boundary: Boundary) -> None:
    if not arrays or any(array.ndim < 3 or not array.shape[0] for array in arrays):
        raise SpecError(
            "These are no fields.",
            where="data",
            expected="arrays of shape (n, channels, *size)",
            got=", ".join(str(tuple(array.shape)) for array in arrays) or "nothing",
            fix="give scalar fields of shape (n, L, L) an axis of one channel: x[:, None]",
        )
    shapes = [tuple(array.shape[2:]) for array in arrays]
    if len({(len(shape), array.shape[1]) for shape, array in zip(shapes, arrays, strict=True)}) > 1:
        raise SpecError(
            "The sizes contradict each other.",
            where="data",
            expected="the same axes and channels in every file",
            got=", ".join(str(tuple(array.shape)) for array in arrays),
            fix="diagnose different systems apart",
        )
    unequal = [shape for shape in shapes if len(set(shape)) > 1]
    if unequal and boundary != "crop":
        raise SpecError(
            "The axes are not alike.",
            where=f"data, boundary {boundary}",
            expected="as many sites along each axis",
            got=str(unequal[0]),
            fix="say boundary: crop, where the fields are windows of something larger",
        )


class Spread:
    """Some of many stored fields, evenly spread over them.

    Args:
        stored: all of them.
        fields: at most so many of each size.
    """

    def __init__(self, stored: StoredFields, fields: int) -> None:
        self.stored, self.fields = stored, fields
        self.boundary, self.dim, self.channels = stored.boundary, stored.dim, stored.channels
        self.read_as = stored.read_as

    def sizes(self) -> tuple[int, ...]:
        """Sites along each axis, ascending."""
        return self.stored.sizes()

    def count(self, size: int) -> int:
        """How many fields of a size are taken."""
        return min(self.fields, self.stored.count(size))

    def rows(self, size: int, indices: Sequence[int] | slice) -> Tensor:
        """Some of those that are taken: ``(n, channels, *size)``."""
        there, taken = self.stored.count(size), self.count(size)
        wanted = range(*indices.indices(taken)) if isinstance(indices, slice) else indices
        return self.stored.rows(size, [index * there // taken for index in wanted])
