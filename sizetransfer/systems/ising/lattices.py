"""The lattices that Ising models live on: tori, boxes, and cylinders, which are closed along their second axis."""

from __future__ import annotations

from dataclasses import dataclass

from sizetransfer.contracts.domain import Domain, Lattice
from sizetransfer.contracts.errors import OracleError
from sizetransfer.systems.ising.model import Boundary

AROUND = (False, True)
"""The axes of a cylinder that are closed: the second."""


@dataclass(frozen=True, eq=False)
class Cylinder(Lattice):
    """An open cylinder: ``size`` is its length and its circumference."""

    periodic: bool = False
    closed: tuple[bool, ...] | None = AROUND


def boundary_of(domain: Domain) -> Boundary:
    """Which boundary a domain has.

    Raises:
        OracleError: it is no square lattice.
    """
    known: dict[tuple[bool, ...], Boundary] = {(True, True): "torus", (False, False): "open", AROUND: "cylinder"}
    if isinstance(domain, Lattice) and domain.closed_axes in known:
        return known[domain.closed_axes]
    raise OracleError(
        "Ising models are solved on square lattices.",
        where="context.domain",
        expected="a Lattice of two axes, closed along both, none or the second",
        got=repr(domain),
        fix="take the domain of the teacher ising",
    )
