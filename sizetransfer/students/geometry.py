"""The refusal of fields that live on what a student is not made for."""

from __future__ import annotations

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import FieldInfo, StudentSpec
from sizetransfer.registry import default_registry


def require_geometry(spec: StudentSpec, field: FieldInfo) -> None:
    """Refuse a field on a lattice or on a graph that students of this kind do not take.

    Raises:
        SpecError: names the registered students that do.
    """
    if field.geometry in spec.geometries:
        return
    kinds = default_registry().kinds("student")
    fitting = [kind for kind, entry in kinds.items() if field.geometry in getattr(entry.spec_class, "geometries", ())]
    raise SpecError(
        f"The student {spec.kind_name()!r} does not take fields on a {field.geometry}.",
        where=f"student of kind {spec.kind_name()!r}, field.geometry",
        expected=" or ".join(spec.geometries),
        got=field.geometry,
        fix=f"students that take fields on a {field.geometry}: {', '.join(fitting) or 'none that is installed'}; "
        f"or take a teacher on a {spec.geometries[0]}",
    )
