"""Arrays and files as stored fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.stored import Boundary, StoredFields

BLOCKS = 64
"""A crop of few fields is cut into at least so many blocks, where they stay large enough."""
SMALLEST_BLOCK = 16
FEW = 16
"""Fewer fields than these are cut."""

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
    return int(np.prod([length // side for length in array.shape[2:]]))


def _side(array: Array | Tensor, boundary: Boundary) -> int:
    """The side of the fields, or of the blocks that they are cut into."""
    shortest = int(min(array.shape[2:]))
    if boundary != "crop":
        return shortest
    side = shortest
    while int(array.shape[0]) < FEW and int(array.shape[0]) * _blocks(array, side) < BLOCKS and side > SMALLEST_BLOCK:
        side -= 1
    return side - side % 2 if side > SMALLEST_BLOCK else side


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


def fields_of(path: str | Path, boundary: Boundary = "periodic") -> ArrayFields:
    """The fields of a ``.npy`` file, memory-mapped: of shape ``(n, channels, *size)``, or ``(n, *size)`` in two axes.

    Raises:
        SpecError: there is no such file, or it holds no array of numbers.
    """
    return several_fields_of([path], boundary)


def several_fields_of(paths: Sequence[str | Path], boundary: Boundary = "periodic") -> ArrayFields:
    """The same of several files, one for each size."""
    return ArrayFields([_with_channels(_loaded(Path(path))) for path in paths], boundary)


def _loaded(path: Path) -> Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SpecError(
            "The file cannot be read as fields.",
            where=f"data {str(path)!r}",
            expected="a .npy file with an array of numbers",
            got=f"{type(error).__name__}: {error}",
            fix="write it with numpy.save",
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise SpecError(
            "The file holds no array of real numbers.",
            where=f"data {str(path)!r}",
            expected="a .npy file with an array of numbers",
            got=f"dtype {getattr(array, 'dtype', 'none')}",
            fix="write real and imaginary parts as two channels",
        )
    return array


def _with_channels(array: Array) -> Array:
    """Three axes are fields of one channel in two dimensions."""
    return array[:, None] if array.ndim == 3 else array


def is_stored(data: object) -> bool:
    """Whether these are fields already."""
    return isinstance(data, StoredFields)
