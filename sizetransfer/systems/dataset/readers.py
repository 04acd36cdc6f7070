"""Arrays in files, of which only what is asked for is read.

===========================  ==========================================================================================
suffix                       how it is read
===========================  ==========================================================================================
.npy                         mapped into memory
.npz                         stored members are mapped; compressed ones unpacked, up to ``LARGEST_UNPACKED`` bytes
.safetensors                 by slices
.zarr (folder or .zarr.zip)  by slices; the package zarr, of the extra ``data``
.h5, .hdf5, .hdf             by slices; the package h5py, of the extra ``data``
.traj, .xyz, .extxyz         displacements in a crystal (:mod:`.trajectories`), read whole; the package ase, of the
                             extra ``ase``
===========================  ==========================================================================================

No file is unpickled. Numbers of any byte order, integers and truth values are taken.
"""

from __future__ import annotations

import importlib
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizetransfer.contracts.errors import SpecError, described
from sizetransfer.systems.dataset.trajectories import displacements

LARGEST_UNPACKED = 2**30
"""Bytes of the largest compressed array that is unpacked into memory."""

_LIBRARIES = {"safetensors", "safetensors_rust", "zarr", "numcodecs", "ase"}

Take = Callable[[tuple[slice, ...]], Any]


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array in a file.

    Attributes:
        path: the file or folder.
        name: of the array in it; empty where it holds one without a name.
        shape: of the array.
        dtype: of its numbers, in words.
        take: reads a block of it.
        layout: its axes, where the kind of file says them.
        note: what was done to the numbers of the file, in words.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    take: Take
    layout: str = ""
    note: str = ""

    @property
    def label(self) -> str:
        """File and name, for messages."""
        return f"{self.path}, array {self.name!r}" if self.name else str(self.path)

    def read(self, index: tuple[slice, ...]) -> NDArray[np.float64]:
        """A block of the array, in double precision and the machine's byte order.

        Raises:
            SpecError: the file cannot be read there.
        """
        try:
            return np.asarray(self.take(index)).astype(np.float64)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise _damaged(self.path, error) from error

    def __deepcopy__(self, memo: dict[int, object]) -> StoredArray:
        return self  # a copy of a teacher reads the same file

    def __reduce__(self) -> tuple[object, ...]:
        return open_array, (self.path, self.name or None)


def open_array(path: Path, name: str | None = None) -> StoredArray:
    """Open an array of a file.

    Args:
        path: the file or folder.
        name: of the array, where the file has several.

    Raises:
        SpecError: there is no such file or array, its kind is not known, it is damaged, holds Python objects or numbers
            that are not real, or the package that reads it is not installed.
    """
    if not path.exists():
        raise SpecError(
            "A file of the data set does not exist.",
            where=str(path),
            expected="an existing file, relative to the working directory",
            got="nothing there",
            fix="correct the path",
        )
    reader = _reader(path)
    try:
        found = reader(path, name)
    except SpecError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, struct.error, RuntimeError) as error:
        raise _damaged(path, error) from error
    except Exception as error:  # the libraries have errors of their own
        if type(error).__module__.partition(".")[0] not in {
            "safetensors",
            "safetensors_rust",
            "zarr",
            "numcodecs",
            "ase",
        }:
            raise
        raise _damaged(path, error) from error
    if np.dtype(found.dtype if found.dtype != "bfloat16" else "float32").kind not in "biuf":
        raise SpecError(
            "The numbers of an array are not real.",
            where=found.label,
            expected="floating-point numbers, integers or truth values",
            got=found.dtype,
            fix="store real and imaginary parts as two channels" if "complex" in found.dtype else "store numbers",
        )
    return found


def _damaged(path: Path, error: Exception) -> SpecError:
    pickled = "pickle" in str(error).lower() or "object" in str(error).lower()
    return SpecError(
        "A file of the data set holds Python objects, which are not loaded." if pickled else "A file cannot be read.",
        where=str(path),
        expected="an array of numbers" if pickled else f"an intact {path.suffix} file",
        got=described(error),
        fix="store a plain array with numpy.save" if pickled else "write the file again",
    )


def _reader(path: Path) -> Callable[[Path, str | None], StoredArray]:
    for suffixes, reader in _READERS.items():
        if path.name.lower().endswith(suffixes):
            return reader
    known = ", ".join(SUFFIXES)
    raise SpecError(
        "The kind of a file of the data set is not known.",
        where=str(path),
        expected=f"a file that ends in {known}",
        got=path.suffix or "no suffix",
        fix="store the fields with numpy.save as .npy",
    )


def chosen(path: Path, name: str | None, arrays: Mapping[str, tuple[int, ...]]) -> str:
    """The name of the array that is meant: the one that was named, or the only one.

    Raises:
        SpecError: there is no such array, or there are several to choose from.
    """
    if name in arrays:
        return str(name)
    if name is None and len(arrays) == 1:
        return next(iter(arrays))
    listed = ", ".join(f"{one} {shape}" for one, shape in sorted(arrays.items())) or "no array"
    raise SpecError(
        "The file holds more than one array." if name is None and arrays else f"The file has no array {name!r}.",
        where=str(path),
        expected="array: with the name of one of its arrays",
        got=listed[:500],
        fix=f"write {{path: {path.name}, array: {min(arrays)}}}" if arrays else "store the fields in it",
    )


# --- numpy ------------------------------------------------------------------------------------------------------------


def _npy(path: Path, name: str | None) -> StoredArray:
    _nameless(path, name)
    with path.open("rb") as stream:
        np.lib.format.read_magic(stream)  # numpy.load takes what is none for a pickle
    return _mapped(path, "", np.load(path, mmap_mode="r", allow_pickle=False))


def _nameless(path: Path, name: str | None) -> None:
    if name is not None:
        chosen(path, name, {})


def _mapped(path: Path, name: str, array: NDArray[Any]) -> StoredArray:
    return StoredArray(path, name, tuple(array.shape), array.dtype.name, array.__getitem__)


def _npz(path: Path, name: str | None) -> StoredArray:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        shapes = {}
        for member, info in members.items():
            with archive.open(info) as stream:
                shapes[member] = _npy_header(stream)[0]
        member = chosen(path, name, shapes)
        info = members[member]
        if info.compress_type == zipfile.ZIP_STORED:
            return _mapped(path, member, _member(path, info))
        if info.file_size > LARGEST_UNPACKED:
            raise SpecError(
                "A compressed array is too large to be unpacked into memory.",
                where=f"{path}, array {member!r}",
                expected=f"at most {LARGEST_UNPACKED / 2**30:.3g} GiB",
                got=f"{info.file_size / 2**30:.3g} GiB",
                fix="store it with numpy.save, or with numpy.savez, which does not compress",
            )
        with archive.open(info) as stream:
            return _mapped(path, member, np.lib.format.read_array(stream, allow_pickle=False))


def _npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of the array that a stream holds, which is then at its numbers."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    return shape, fortran, dtype


def _member(path: Path, info: zipfile.ZipInfo) -> NDArray[Any]:
    """A member that is not compressed, mapped from its place in the archive."""
    with path.open("rb") as stream:
        stream.seek(info.header_offset)
        name, extra = struct.unpack("<26x2H", stream.read(30))
        stream.seek(info.header_offset + 30 + name + extra)
        shape, fortran, dtype = _npy_header(stream)
        return np.memmap(path, dtype, "r", stream.tell(), shape, "F" if fortran else "C")


# --- others -----------------------------------------------------------------------------------------------------------


def _safetensors(path: Path, name: str | None) -> StoredArray:
    from safetensors import safe_open

    file: Any = safe_open(path, framework="pt")
    slices = {one: file.get_slice(one) for one in file.keys()}  # noqa: SIM118
    member = chosen(path, name, {one: tuple(found.get_shape()) for one, found in slices.items()})
    found = slices[member]
    empty = found[tuple(slice(0, 0) for _ in found.get_shape())]
    dtype = str(empty.dtype).removeprefix("torch.")

    def take(index: tuple[slice, ...]) -> NDArray[Any]:
        array: NDArray[Any] = found[index].double().numpy()
        return array

    return StoredArray(path, member, tuple(found.get_shape()), dtype, take)


def _zarr(path: Path, name: str | None) -> StoredArray:
    found = _package("zarr", path).open(path, mode="r")
    arrays = {"": found} if hasattr(found, "dtype") else dict(found.arrays())
    return _lazy(path, name, arrays)


def _hdf5(path: Path, name: str | None) -> StoredArray:
    h5py = _package("h5py", path)
    arrays: dict[str, Any] = {}

    def note(place: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[place] = item

    h5py.File(path, "r").visititems(note)
    return _lazy(path, name, arrays)


def _lazy(path: Path, name: str | None, arrays: Mapping[str, Any]) -> StoredArray:
    member = chosen(path, name, {one: tuple(array.shape) for one, array in arrays.items()})
    array = arrays[member]
    return StoredArray(path, member, tuple(array.shape), np.dtype(array.dtype).name, array.__getitem__)


def _package(name: str, path: Path, extra: str = "data") -> Any:
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SpecError(
            f"The package {package} reads such files, and is not installed.",
            where=str(path),
            expected=f"the package {package}",
            got=described(error),
            fix=f'pip install "sizetransfer[{extra}]"',
        ) from error


def _trajectory(path: Path, name: str | None) -> StoredArray:
    _nameless(path, name)
    if path.stat().st_size > LARGEST_UNPACKED:
        raise SpecError(
            "A trajectory is too large to be read into memory.",
            where=str(path),
            expected=f"at most {LARGEST_UNPACKED / 2**30:.3g} GiB",
            got=f"{path.stat().st_size / 2**30:.3g} GiB",
            fix="store the displacements with numpy.save, which is mapped, as an array BDHWC",
        )
    found, note = displacements(path, _package("ase.io", path, "ase"))
    return StoredArray(path, "", tuple(found.shape), found.dtype.name, found.__getitem__, "BDHWC", note)


_READERS: Mapping[tuple[str, ...], Callable[[Path, str | None], StoredArray]] = {
    (".npy",): _npy,
    (".npz",): _npz,
    (".safetensors",): _safetensors,
    (".zarr", ".zarr.zip"): _zarr,
    (".h5", ".hdf5", ".hdf"): _hdf5,
    (".traj", ".xyz", ".extxyz"): _trajectory,
}

SUFFIXES = tuple(suffix for suffixes in _READERS for suffix in suffixes)
"""Endings of the files whose kind is known."""
