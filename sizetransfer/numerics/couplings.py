r"""What couples a Gaussian field to itself: the precision of fields and of harmonic crystals.

A zero-mean Gaussian field :math:`X_0 \sim N(0, C)` has precision :math:`Q = C^{-1}`. On a torus of any dimension

.. math:: Q_k = P + \sum_r 4\sin^2(k\cdot r/2)\,\Phi_r,

one real symmetric matrix between channels for each wave vector k: P pins a site, :math:`\Phi_r` couples sites a step
r apart. On a graph with Laplacian :math:`\Lambda` the sum is replaced by :math:`\Lambda\,\Phi`.

- Fields (``coupling`` K, identity by default): :math:`P = m^2 K`, :math:`\Phi_r = K` for nearest neighbours, so
  :math:`Q = (m^2 + e)\otimes K`, :math:`e_k = \sum_a (2 - 2\cos k_a)`; correlation length 1/m in every channel.
- Harmonic crystals (``springs``): :math:`P = m^2 I`, :math:`\Phi_r = \gamma_\perp I + (\gamma_\parallel - \gamma_\perp)
  \hat r\hat r^T` for nearest neighbours and :math:`\gamma_\times\,\hat r\hat r^T` for diagonal ones: the dynamical
  matrix of a cubic crystal of unit masses with pinning m (Born and Huang 1954, *Dynamical Theory of Crystal Lattices*).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import Spec

Matrix = tuple[tuple[float, ...], ...]

# Sites of the torus that stands for infinite volume, at most; in more than three dimensions as in three.
LARGEST_REFERENCE = {1: 2**16, 2: 2**20, 3: 2**18}


class Springs(Spec):
    """Stiffness of the bonds of a cubic crystal, in units of the field's inverse variance."""

    longitudinal: float = Field(1.0, gt=0, allow_inf_nan=False, description="nearest neighbours, along the bond")
    transverse: float = Field(0.1, ge=0, allow_inf_nan=False, description="nearest neighbours, across the bond")
    diagonal: float = Field(0.5, ge=0, allow_inf_nan=False, description="diagonal neighbours, along the bond")


class Couplings(Spec):
    """What couples a Gaussian field to itself, whatever it lives on."""

    mass: float = Field(0.5, gt=0, allow_inf_nan=False, description="m; the correlation length is 1/m")
    coupling: Matrix | None = Field(
        None, description="K, symmetric positive definite, channels x channels; identity by default"
    )

    def channel_matrix(self, channels: int) -> Tensor:
        """The coupling K between channels, checked, shape ``(C, C)``, float64.

        Raises:
            SpecError: it is not a symmetric positive-definite matrix of that size.
        """
        if self.coupling is None:
            return torch.eye(channels, dtype=torch.float64, device="cpu")
        lengths = [len(row) for row in self.coupling]
        if lengths != [channels] * channels:
            raise _wrong_coupling(
                f"{channels} x {channels} numbers, one row a channel", f"{len(lengths)} rows of {lengths} numbers"
            )
        matrix = torch.tensor(self.coupling, dtype=torch.float64, device="cpu")
        if not matrix.isfinite().all() or not torch.equal(matrix, matrix.T):
            raise _wrong_coupling("a finite symmetric matrix", f"{matrix.tolist()}")
        smallest = float(torch.linalg.eigvalsh(matrix)[0])
        if smallest <= 0:
            raise _wrong_coupling("positive eigenvalues", f"the eigenvalue {smallest:.6g}")
        return matrix


def _wrong_coupling(expected: str, got: str) -> SpecError:
    return SpecError(
        "The coupling between channels is not positive definite.",
        where="coupling",
        expected=expected,
        got=got,
        fix="write K as A^T A + c I with c > 0, or leave it out for independent channels",
    )


class LatticeCouplings(Couplings):
    """What couples a Gaussian field on a torus: a mass and a matrix between channels, or a crystal's springs."""

    springs: Springs | None = Field(None, description="a harmonic crystal: one displacement channel for every axis")

    def bonds(self, dim: int, channels: int) -> tuple[Tensor, list[tuple[tuple[int, ...], Tensor]]]:
        """The pinning matrix P, and the steps r with their matrices Phi_r, all ``(C, C)`` in float64.

        Raises:
            SpecError: the coupling is not positive definite, or the springs do not fit the channels.
        """
        axes = torch.eye(dim, dtype=torch.float64, device="cpu")
        if self.springs is None:
            coupling = self.channel_matrix(channels)
            return self.mass**2 * coupling, [(_step(axis), coupling) for axis in axes]
        if channels != dim or self.coupling is not None:
            raise SpecError(
                "Springs couple displacements: one channel for every axis, and no other coupling.",
                where="springs, channels, coupling",
                expected=f"channels: {dim} and no coupling",
                got=f"channels: {channels}, coupling: {self.coupling}",
                fix="set channels to dim, or leave out the springs",
            )
        return self.mass**2 * axes, _crystal(self.springs, axes)

    def reference_size(self, dim: int) -> int:
        """Sites along each axis of a torus that stands for infinite volume.

        It is 30 correlation lengths wide, so that what goes around it is of relative size ``exp(-30)``, or as wide
        as ``LARGEST_REFERENCE`` allows.
        """
        # The root of a perfect power may come out a rounding below it.
        widest = max(2, int(LARGEST_REFERENCE.get(dim, LARGEST_REFERENCE[3]) ** (1 / dim) + 1e-9))
        stiffness = 1.0 if self.springs is None else self.springs.longitudinal + (dim - 1) * self.springs.diagonal
        return min(math.ceil(30 * math.sqrt(max(1.0, stiffness)) / self.mass) + 2, widest)


def _crystal(springs: Springs, axes: Tensor) -> list[tuple[tuple[int, ...], Tensor]]:
    along = springs.longitudinal - springs.transverse
    nearest = [(_step(axis), springs.transverse * axes + along * torch.outer(axis, axis)) for axis in axes]
    diagonals = [a + sign * b for a, b in itertools.combinations(axes, 2) for sign in (1, -1)]
    return nearest + [(_step(bond), springs.diagonal * torch.outer(bond, bond) / 2) for bond in diagonals]


def _step(vector: Tensor) -> tuple[int, ...]:
    return tuple(int(component) for component in vector)


def difference_spectrum(shape: Sequence[int], step: Sequence[int], *, half: bool = False) -> Tensor:
    """The numbers ``4 sin^2(k.r / 2) = 2 - 2 cos(k.r)`` on torch's FFT grid of ``shape``, float64.

    Args:
        shape: sites along each axis.
        step: r, in lattice steps.
        half: on the grid of ``rfftn``, half the last axis, instead of that of ``fftn``.
    """
    dim = len(shape)
    phase = torch.zeros((1,) * dim, dtype=torch.float64, device="cpu")
    for axis, (length, component) in enumerate(zip(shape, step, strict=True)):
        points = length // 2 + 1 if half and axis == dim - 1 else length
        wave = torch.arange(points, dtype=torch.float64, device="cpu") * (torch.pi * component / length)
        phase = phase + wave.reshape(*(1,) * axis, -1, *(1,) * (dim - axis - 1))
    return 4 * torch.sin(phase) ** 2


def precision_spectrum(couplings: LatticeCouplings, shape: Sequence[int], channels: int, *, half: bool) -> Tensor:
    """The matrices Q_k on torch's FFT grid of ``shape``: ``(C, C, *S)``, real, float64."""
    pinning, bonds = couplings.bonds(len(shape), channels)
    trailing = (1,) * len(shape)
    total = pinning.reshape(channels, channels, *trailing)
    for step, matrix in bonds:
        total = total + matrix.reshape(channels, channels, *trailing) * difference_spectrum(shape, step, half=half)
    return total
