"""The lattices that Ising models live on: tori, boxes, and cylinders, which are closed along their second axis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sizetransfer.domain import Domain, Lattice, Site
from sizetransfer.errors import OracleError
from sizetransfer.ising.model import Boundary


@dataclass(frozen=True)
class Cylinder(Lattice):
    """An open cylinder: ``size`` is its length and its circumference.

    To a student it is an open box, unless it asks for distances: padding knows nothing of the seam.
    """

    periodic: bool = False

    def displacement(self, site: Site) -> Tensor:
        around = Lattice(self.size, periodic=True).displacement(site)
        along = Lattice(self.size, periodic=False).displacement(site)
        return torch.stack([along[0], around[1]])

    def wall_distance(self) -> Tensor:
        """Steps from each site to the nearest row outside, shape ``*S``."""
        length = self.size[0]
        steps = torch.minimum(torch.arange(length) + 1, length - torch.arange(length))
        return steps[:, None].expand(self.size).clone()


def boundary_of(domain: Domain) -> Boundary:
    """Which boundary a domain has.

    Raises:
        OracleError: it is no square lattice.
    """
    if isinstance(domain, Cylinder):
        return "cylinder"
    if isinstance(domain, Lattice) and domain.dim == 2:
        return "torus" if domain.periodic else "open"
    raise OracleError(
        "Ising models are solved on square lattices.",
        where="context.domain",
        expected="a Lattice of two axes, or a Cylinder",
        got=repr(domain),
        fix="take the domain of the teacher ising",
    )
