r"""Exactly solved Ising models on square lattices.

Read in this order:

- :mod:`~sizetransfer.ising.limits`: what a call may cost;
- :mod:`~sizetransfer.ising.rows`, :mod:`~sizetransfer.ising.torus`, :mod:`~sizetransfer.ising.strips`: any field, by
  transfer matrices on tori and by vectors on open cylinders and in boxes;
- :mod:`~sizetransfer.ising.model`: :class:`IsingModel`, which puts them together;
- :mod:`~sizetransfer.ising.lattices`, :mod:`~sizetransfer.ising.posterior`: spins seen through noise, and the best
  local score;
- :mod:`~sizetransfer.ising.perfect`, :mod:`~sizetransfer.ising.clusters`: samples;
- :mod:`~sizetransfer.ising.pfaffian`, :mod:`~sizetransfer.ising.cache`: :func:`zero_field`, tori of any size;
- :mod:`~sizetransfer.ising.infinite`: closed forms of the infinite lattice.
"""

from sizetransfer.ising.clusters import swendsen_wang
from sizetransfer.ising.coupling import IsingCoupling
from sizetransfer.ising.infinite import CRITICAL
from sizetransfer.ising.lattices import Cylinder
from sizetransfer.ising.limits import Cost, Limits, TooLargeError
from sizetransfer.ising.model import Boundary, IsingModel, Moments
from sizetransfer.ising.pfaffian import ZeroField, zero_field
from sizetransfer.ising.posterior import IsingPosterior

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
