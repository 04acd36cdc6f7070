"""What a user calls data: files, arrays, stored fields, or a teacher of stored fields by its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from torch import Tensor

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import TeacherSpec
from sizetransfer.contracts.stored import Boundary, StoredFields
from sizetransfer.diagnosis.from_data.diagnosis import DataDiagnosis, diagnose_fields
from sizetransfer.diagnosis.from_data.fields import Array, ArrayFields, several_fields_of
from sizetransfer.diagnosis.from_data.question import DataQuestion
from sizetransfer.registry import default_registry

FILES = (".npy", ".npz", ".safetensors", ".zarr", ".h5", ".hdf5", ".traj", ".xyz", ".extxyz")
"""Endings by which a name is known to be that of data."""

Path_ = str | Path
Data = Path_ | Array | Tensor | StoredFields | Mapping[str, object] | Sequence[Path_ | Array | Tensor]


def names_data(name: object) -> bool:
    """Whether what stands in the place of a teacher is data: a file, arrays or stored fields."""
    if isinstance(name, str):
        return name.endswith(FILES) and "{" not in name
    if isinstance(name, list | tuple):
        return bool(name) and all(names_data(one) for one in name)
    return isinstance(name, Path | np.ndarray | Tensor | StoredFields)


def diagnose_data(data: Data, *, boundary: Boundary | None = None, **question: object) -> DataDiagnosis:
    """Judge from data alone whether local students of some radii transfer to larger sizes.

    Args:
        data: a file, or several of different sizes; arrays of shape ``(n, channels, *size)``; stored fields; or the
            specification of a teacher of stored fields.
        boundary: of files and arrays: ``periodic`` (the default), ``walls`` or ``crop``.
        question: fields of :class:`sizetransfer.diagnosis.from_data.DataQuestion`.

    Raises:
        SpecError: unreadable files, unknown fields of the question, or fields that cannot be diagnosed.
    """
    asked = DataQuestion.parse(question, where="diagnose")
    return diagnose_fields(stored_of(data, boundary), asked, name=_name(data))


def stored_of(data: Data, boundary: Boundary | None = None) -> StoredFields:
    """The data as stored fields.

    Raises:
        SpecError: they are none.
    """
    if boundary not in {None, "periodic", "walls", "crop"}:
        raise SpecError(
            "There is no such boundary.",
            where="diagnose, boundary",
            expected="periodic, walls or crop",
            got=repr(boundary),
            fix="crop: a window of something larger; walls: a box whose edges are physical",
        )
    if isinstance(data, Mapping):
        return _teacher_of(data)
    if isinstance(data, StoredFields):
        return data
    several = [data] if isinstance(data, str | Path | np.ndarray | Tensor) else list(data)
    paths = [one for one in several if isinstance(one, str | Path)]
    if paths and len(paths) == len(several):
        return several_fields_of(paths, boundary or "periodic")
    arrays = [one for one in several if isinstance(one, np.ndarray | Tensor)]
    if not arrays or len(arrays) < len(several):
        raise SpecError(
            "These are no data.",
            where="diagnose, data",
            expected="a file, arrays of shape (n, channels, *size), or several of them, one for each size",
            got=", ".join(type(one).__name__ for one in several) or "nothing",
            fix="pass for example data='fields.npy'",
        )
    return ArrayFields(arrays, boundary or "periodic")


def _teacher_of(spec: Mapping[str, object]) -> StoredFields:
    lookup = default_registry().lookup
    kind = str(spec.get("kind"))
    teacher = cast(TeacherSpec, lookup("teacher", kind).parse(spec, where=kind, lookup=lookup)).build()
    if not isinstance(teacher, StoredFields):
        raise SpecError(
            "This teacher has no stored fields.",
            where=f"diagnose, data, kind {kind}",
            expected="a teacher with the capability StoredFields",
            got=type(teacher).__name__,
            fix="pass it as the teacher: what it knows is more than its fields",
        )
    return teacher


def _name(data: object) -> str:
    if isinstance(data, str | Path):
        return Path(data).name
    if isinstance(data, list | tuple) and all(isinstance(one, str | Path) for one in data):
        return ", ".join(Path(one).name for one in data)
    return str(data.get("kind", "data")) if isinstance(data, Mapping) else "data"
