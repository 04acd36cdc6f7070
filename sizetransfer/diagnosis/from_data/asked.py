"""What a user calls data: files, arrays, stored fields, or a teacher of stored fields by its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from torch import Tensor

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import HasScore, HasSmoothedScore
from sizetransfer.contracts.specs import TeacherSpec
from sizetransfer.contracts.stored import Boundary, FileOfFields, ReadsFiles, StoredFields
from sizetransfer.diagnosis.from_data.diagnosis import DataDiagnosis, diagnose_fields
from sizetransfer.diagnosis.from_data.fields import Array, ArrayFields, Spread
from sizetransfer.diagnosis.from_data.question import DataQuestion
from sizetransfer.registry import default_registry

Data: TypeAlias = FileOfFields | Array | Tensor | StoredFields | Sequence[FileOfFields | Array | Tensor]
"""Also the specification of a teacher of stored fields: a mapping with its kind."""


def names_data(name: object) -> bool:
    """Whether what stands in the place of a teacher is data: a file, arrays, or stored fields without a score."""
    if isinstance(name, str):
        reader = _reader()
        return reader is not None and name.lower().endswith(reader.file_suffixes) and "{" not in name
    if isinstance(name, list | tuple):
        return bool(name) and all(names_data(one) for one in name)
    if isinstance(name, StoredFields):
        return not isinstance(name, HasScore | HasSmoothedScore)
    return isinstance(name, Path | np.ndarray | Tensor)


def diagnose_data(
    data: Data, *, boundary: Boundary | None = None, layout: str | None = None, **question: object
) -> DataDiagnosis:
    """Judge from data alone whether local students of some radii transfer to larger sizes.

    Args:
        data: a file, or several; arrays of shape ``(n, channels, *size)``, one for each size; stored fields; or the
            specification of a teacher of stored fields. A file may be a mapping of ``path``, ``array`` and ``layout``.
        boundary: of files and arrays: ``periodic`` (the default), ``walls`` or ``crop``.
        layout: of files, a letter an axis: B samples, C channels, and L, H W or D H W; by default recognised and said.
        question: fields of :class:`sizetransfer.diagnosis.from_data.DataQuestion`.

    Raises:
        SpecError: unreadable files, unknown fields of the question, or fields that cannot be diagnosed.
    """
    asked = DataQuestion.parse(question, where="diagnose")
    return diagnose_fields(limited(stored_of(data, boundary, layout), asked), asked, name=name_of(data))


def limited(stored: StoredFields, asked: DataQuestion) -> StoredFields:
    """As many of the fields as are asked for."""
    return stored if asked.fields is None else Spread(stored, asked.fields)


def stored_of(data: Data, boundary: Boundary | None = None, layout: str | None = None) -> StoredFields:
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
    if _is_teacher(data) or isinstance(data, StoredFields):
        _require_neither(boundary, layout)
        return data if isinstance(data, StoredFields) else _teacher_of(cast("Mapping[str, object]", data))
    several = list(data) if isinstance(data, list | tuple) else [data]
    if several and all(isinstance(one, str | Path | Mapping) for one in several):
        return _of_files(cast("Sequence[FileOfFields]", several), boundary or "periodic", layout)
    arrays = [one for one in several if isinstance(one, np.ndarray | Tensor)]
    if not arrays or len(arrays) < len(several):
        raise SpecError(
            "These are no data.",
            where="diagnose, data",
            expected="files, arrays of shape (n, channels, *size), one for each size, or stored fields",
            got=", ".join(type(one).__name__ for one in several) or "nothing",
            fix="pass for example data='fields.npy'",
        )
    _require_neither(None, layout)
    return ArrayFields(arrays, boundary or "periodic")


def _is_teacher(data: object) -> bool:
    return isinstance(data, Mapping) and "kind" in data


def _require_neither(boundary: str | None, layout: str | None) -> None:
    """Refuse what is said of files where there are none."""
    for name, value in (("boundary", boundary), ("layout", layout)):
        if value is not None:
            raise SpecError(
                f"The {name} is that of files.",
                where=f"diagnose, {name}",
                expected=f"no {name} beside data that have their own",
                got=value,
                fix="give arrays of shape (n, channels, *size)"
                if name == "layout"
                else "name it where the fields are made",
            )


def _reader() -> type[ReadsFiles] | None:
    """The kind of teachers that files can be given to, if there is one."""
    found = default_registry().first("teacher", lambda spec: isinstance(spec, ReadsFiles))
    return cast("type[ReadsFiles] | None", found)


def _of_files(files: Sequence[FileOfFields], boundary: Boundary, layout: str | None) -> StoredFields:
    reader = _reader()
    if reader is None:
        raise SpecError(
            "Nothing that is installed reads files of fields.",
            where="diagnose, data",
            expected="a kind of teacher that files can be given to",
            got="none",
            fix="pass arrays of shape (n, channels, *size)",
        )
    return reader.stored_fields(files, boundary=boundary, layout=layout)


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


def name_of(data: object) -> str:
    """What data are called: the names of their files, or the kind of their teacher."""
    if isinstance(data, str | Path):
        return Path(data).name
    if isinstance(data, list | tuple):
        names = list(dict.fromkeys(map(name_of, data)))
        return ", ".join(names)
    if isinstance(data, Mapping):
        return name_of(data["path"]) if "path" in data else str(data.get("kind", "data"))
    return "data"
