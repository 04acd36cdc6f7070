r"""Exactly solved Ising models on square lattices.

Read in this order:

- :mod:`~sizetransfer.systems.ising.limits`: what a call may cost;
- :mod:`~sizetransfer.systems.ising.rows`, :mod:`~sizetransfer.systems.ising.torus`,
  :mod:`~sizetransfer.systems.ising.strips`: any field, by transfer matrices on tori and by vectors on open cylinders
  and in boxes;
- :mod:`~sizetransfer.systems.ising.model`: :class:`IsingModel`, which puts them together;
- :mod:`~sizetransfer.systems.ising.lattices`, :mod:`~sizetransfer.systems.ising.posterior`: spins seen through noise,
  and the best local score;
- :mod:`~sizetransfer.systems.ising.perfect`, :mod:`~sizetransfer.systems.ising.clusters`: samples;
- :mod:`~sizetransfer.systems.ising.pfaffian`, :mod:`~sizetransfer.systems.ising.cache`: :func:`zero_field`, tori of any
  size;
- :mod:`~sizetransfer.systems.ising.infinite`: closed forms of the infinite lattice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizetransfer.contracts.lazy import names_of

if TYPE_CHECKING:
    from sizetransfer.systems.ising.clusters import swendsen_wang
    from sizetransfer.systems.ising.coupling import IsingCoupling
    from sizetransfer.systems.ising.infinite import CRITICAL
    from sizetransfer.systems.ising.lattices import Cylinder
    from sizetransfer.systems.ising.limits import Cost, Limits, TooLargeError
    from sizetransfer.systems.ising.model import Boundary, IsingModel, Moments
    from sizetransfer.systems.ising.pfaffian import ZeroField, zero_field
    from sizetransfer.systems.ising.posterior import IsingPosterior

__all__ = [
    "CRITICAL",
    "Boundary",
    "Cost",
    "Cylinder",
    "IsingCoupling",
    "IsingModel",
    "IsingPosterior",
    "Limits",
    "Moments",
    "TooLargeError",
    "ZeroField",
    "swendsen_wang",
    "zero_field",
]

_MODULES = {
    "clusters": ("swendsen_wang",),
    "coupling": ("IsingCoupling",),
    "infinite": ("CRITICAL",),
    "lattices": ("Cylinder",),
    "limits": (
        "Cost",
        "Limits",
        "TooLargeError",
    ),
    "model": (
        "Boundary",
        "IsingModel",
        "Moments",
    ),
    "pfaffian": (
        "ZeroField",
        "zero_field",
    ),
    "posterior": ("IsingPosterior",),
}
__getattr__ = names_of(__name__, _MODULES)
