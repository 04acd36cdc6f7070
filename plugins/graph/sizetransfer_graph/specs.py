"""Specifications of the students on graphs; torch-geometric and e3nn are imported by ``build`` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import FieldInfo, Geometry, StudentSpec
from sizetransfer.students.geometry import require_geometry

if TYPE_CHECKING:
    from sizetransfer_graph.equivariant import EquivariantStudent
    from sizetransfer_graph.message_passing import MessagePassingStudent

LARGEST_DIMENSION = 3


class GraphStudentSpec(StudentSpec):
    """What students on graphs have in common."""

    geometries: ClassVar[tuple[Geometry, ...]] = ("lattice", "graph")

    depth: int = Field(3, ge=1, description="layers of messages; the receptive radius is depth")
    condition: Literal["given", "none"] = Field(
        "given", description="whether the context's condition channels (the sublattice, say) are seen"
    )
    noise_frequencies: int = Field(6, ge=1, description="octaves of the noise embedding")
    radial: int = Field(8, ge=2, description="Gaussians that tell distances apart, evenly between zero and reach")
    reach: float = Field(
        2.0, gt=0, allow_inf_nan=False, description="distance up to which they do, in units of the positions"
    )

    def check(self, field: FieldInfo) -> None:
        """Refuse fields that no student on a graph takes.

        Raises:
            SpecError: fields on something else, or of more than three dimensions.
        """
        require_geometry(self, field)
        if field.dim > LARGEST_DIMENSION:
            raise SpecError(
                "Students on graphs are there for one to three dimensions.",
                where=f"{self.kind_name()}, field.dim",
                expected="1, 2 or 3",
                got=str(field.dim),
                fix="choose a teacher of fewer dimensions",
            )


class MessagePassingSpec(GraphStudentSpec):
    """Message passing of radius depth, in hops on graphs and in Chebyshev steps on lattices (torch-geometric)."""

    kind: Literal["message-passing"] = "message-passing"
    width: int = Field(32, ge=1, description="hidden channels")

    def build(self, field: FieldInfo) -> MessagePassingStudent:
        self.check(field)
        from sizetransfer_graph.message_passing import MessagePassingStudent

        return MessagePassingStudent(self, field)


class EquivariantSpec(GraphStudentSpec):
    """E(3)-equivariant message passing of radius depth, whose vectors turn with the positions (e3nn)."""

    kind: Literal["equivariant"] = "equivariant"
    width: int = Field(16, ge=1, description="hidden scalars, and as many hidden vectors")
    irreps: str | None = Field(
        None, description="hidden features in e3nn's notation instead, for example 16x0e + 8x1o + 4x2e"
    )
    harmonics: int = Field(2, ge=1, le=4, description="largest degree of the spherical harmonics of an edge")

    def build(self, field: FieldInfo) -> EquivariantStudent:
        self.check(field)
        from sizetransfer_graph.equivariant import EquivariantStudent, hidden_irreps

        return EquivariantStudent(self, field, hidden_irreps(self, field))

    def hidden(self) -> str:
        """The hidden features in e3nn's notation."""
        return self.irreps if self.irreps is not None else f"{self.width}x0e + {self.width}x1o"
