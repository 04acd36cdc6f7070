r"""Gaussian fields with local couplings: their normal modes, in which every noise level is a number per mode.

A zero-mean Gaussian field :math:`X_0 \sim N(0, C)` has precision :math:`Q = C^{-1}`. On a torus of any dimension

.. math:: Q_k = P + \sum_r 4\sin^2(k\cdot r/2)\,\Phi_r,

one real symmetric matrix between channels for each wave vector k: P pins a site, :math:`\Phi_r` couples sites a step
r apart. On a graph with Laplacian :math:`\Lambda` the sum is replaced by :math:`\Lambda\,\Phi`.

- Fields (``coupling`` K, identity by default): :math:`P = m^2 K`, :math:`\Phi_r = K` for nearest neighbours, so
  :math:`Q = (m^2 + e)\otimes K`, :math:`e_k = \sum_a (2 - 2\cos k_a)`; correlation length 1/m in every channel.
- Harmonic crystals (``springs``): :math:`P = m^2 I`, :math:`\Phi_r = \gamma_\perp I + (\gamma_\parallel - \gamma_\perp)
  \hat r\hat r^T` for nearest neighbours and :math:`\gamma_\times\,\hat r\hat r^T` for diagonal ones: the dynamical
  matrix of a cubic crystal of unit masses with pinning m (Born and Huang 1954, *Dynamical Theory of Crystal Lattices*).

In normal modes (Fourier modes or eigenvectors of the Laplacian, then eigenvectors between channels) C is diagonal,
with variances c; adding noise of variance v makes them c + v. All is exact to rounding.

The best score that sees only the ball B of a site is the score of the ball's marginal, :math:`N(0, (C + v)_{BB})`:

.. math:: E[s_i(x)\,|\,x_B] = -[(C+v)_{BB}^{-1}\,x_B]_i

It is *not* the exact kernel cut off at the ball. Its mean squared error is :math:`[(C+v)^{-1}]_{ii} -
[(C+v)_{BB}^{-1}]_{ii}`, the irreducible error of the ball.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

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


class NormalModes(ABC):
    """An orthonormal change of variables that makes the components of a Gaussian field independent.

    Attributes:
        variances: clean variance c of every mode, shape ``(C, *M)``, float64.
        multiplicity: how many real modes each stands for, shape ``(*M)``, float64.
    """

    variances: Tensor
    multiplicity: Tensor

    @abstractmethod
    def to_modes(self, x: Tensor) -> Tensor:
        """Amplitudes ``(B, C, *M)`` of the field ``x`` of shape ``(B, C, *S)``."""

    @abstractmethod
    def from_modes(self, amplitudes: Tensor) -> Tensor:
        """The field ``(B, C, *S)`` with these amplitudes."""

    def filter(self, x: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
        """Multiply every mode of ``x`` of shape ``(B, C, *S)`` by a function of its variance.

        Args:
            x: fields.
            gain: takes the variances, ``(C, *M)``, to factors that broadcast against ``(B, C, *M)``.
        """
        return self.from_modes(self.to_modes(x) * gain(self.variances.to(x)))

    def expand(self, values: Tensor) -> Tensor:
        """Give ``(B,)`` trailing axes of length one so that it multiplies ``(B, C, *M)``."""
        return values.reshape(-1, *(1,) * self.variances.ndim)

    def standard_deviation(self) -> float:
        """Root of the mean clean variance of a component."""
        total = (self.variances * self.multiplicity).sum() / (len(self.variances) * self.multiplicity.sum())
        return math.sqrt(float(total))

    @abstractmethod
    def covariance(self, sites: Tensor) -> Tensor:
        """Clean covariance between n sites, given by flat indices of shape ``(n,)``: ``(C, n, C, n)``, float64.

        Indices are those of the flattened sites; they are not checked.
        """

    def log_determinant(self, v: Tensor) -> Tensor:
        """``log det(C + v)``, shape ``(B,)`` for noise variances ``v`` of that shape, in float64."""
        noisy = self.variances.to(v.device) + self.expand(v.double())
        return (noisy.log() * self.multiplicity.to(v.device)).flatten(1).sum(1)


class FourierModes(NormalModes):
    """Plane waves on the torus of ``shape``, rotated into eigenvectors between channels."""

    def __init__(self, couplings: LatticeCouplings, shape: Sequence[int], channels: int) -> None:
        self.shape = tuple(shape)
        self.axes = tuple(range(2, 2 + len(self.shape)))
        if couplings.springs is None:
            # All matrices are multiples of one coupling: its eigenvectors serve every wave vector.
            strengths, vectors = torch.linalg.eigh(couplings.channel_matrix(channels))
            steps = torch.eye(len(self.shape), dtype=torch.int64).tolist()
            laplacian = sum(difference_spectrum(self.shape, step, half=True) for step in steps)
            trailing = (1,) * len(self.shape)
            precisions = strengths.reshape(-1, *trailing) * (couplings.mass**2 + laplacian)
            vectors = vectors.reshape(channels, channels, *trailing)
        else:
            matrices = precision_spectrum(couplings, self.shape, channels, half=True)
            values, columns = torch.linalg.eigh(matrices.permute(*self.axes, 0, 1))
            precisions, vectors = values.movedim(-1, 0), columns.movedim((-2, -1), (0, 1))
        self.variances = (1 / precisions).contiguous()
        self.vectors = vectors.contiguous()
        # A real field's amplitudes at k and -k are conjugate; only one of the two is kept, except where k = -k.
        waves = torch.arange(self.shape[-1] // 2 + 1, device="cpu")
        single = (waves == 0) | (2 * waves == self.shape[-1])
        self.multiplicity = torch.where(single, 1.0, 2.0).double().expand(self.variances.shape[1:])

    def to_modes(self, x: Tensor) -> Tensor:
        waves: Tensor = torch.fft.rfftn(x, dim=self.axes, norm="ortho")
        if x.shape[1] == 1:
            return waves
        rotated: Tensor = torch.einsum("ij...,bi...->bj...", self.vectors.to(waves), waves)
        return rotated

    def from_modes(self, amplitudes: Tensor) -> Tensor:
        if amplitudes.shape[1] > 1:
            amplitudes = torch.einsum("ij...,bj...->bi...", self.vectors.to(amplitudes), amplitudes)
        x: Tensor = torch.fft.irfftn(amplitudes, s=self.shape, dim=self.axes, norm="ortho")
        return x

    def covariance(self, sites: Tensor) -> Tensor:
        coordinates = torch.stack(torch.unravel_index(sites.cpu(), self.shape))
        steps = coordinates[:, None, :] - coordinates[:, :, None]
        flat = torch.zeros_like(steps[0])
        for length, step in zip(self.shape, steps, strict=True):
            flat = flat * length + step % length
        return self._origin_row[:, :, flat].permute(0, 2, 1, 3)

    @cached_property
    def _origin_row(self) -> Tensor:
        """Covariance of the site at the origin with every site: ``(C, C, N)``."""
        channels = len(self.variances)
        impulses = torch.zeros(channels, channels, *self.shape, dtype=torch.float64, device="cpu")
        impulses.flatten(2)[range(channels), range(channels), 0] = 1
        return self.filter(impulses, lambda c: c).flatten(2)


class GraphModes(NormalModes):
    """Eigenvectors of a graph's Laplacian, rotated into eigenvectors between channels: ``Q = (m^2 + L) K``.

    Args:
        couplings: mass m and coupling K.
        laplacian: shape ``(N, N)``, float64; it is diagonalised once, with work of order N^3.
        channels: components of a site, C.
    """

    def __init__(self, couplings: Couplings, laplacian: Tensor, channels: int) -> None:
        strengths, self.rotation = torch.linalg.eigh(couplings.channel_matrix(channels))
        values, self.vectors = torch.linalg.eigh(laplacian)
        # The smallest eigenvalue is zero, and rounding may put it below.
        self.variances = 1 / (strengths[:, None] * (couplings.mass**2 + values.clamp_min(0)))
        self.multiplicity = torch.ones_like(values)

    def to_modes(self, x: Tensor) -> Tensor:
        rotated: Tensor = torch.einsum("ij,bin->bjn", self.rotation.to(x), x)
        amplitudes: Tensor = rotated @ self.vectors.to(x)
        return amplitudes

    def from_modes(self, amplitudes: Tensor) -> Tensor:
        field: Tensor = torch.einsum("ij,bjn->bin", self.rotation.to(amplitudes), amplitudes)
        x: Tensor = field @ self.vectors.to(amplitudes).T
        return x

    def covariance(self, sites: Tensor) -> Tensor:
        rows = self.vectors[sites.cpu()]
        between = (rows * self.variances[:, None]) @ rows.T
        block: Tensor = torch.einsum("ik,jk,kab->iajb", self.rotation, self.rotation, between)
        return block


class BallMarginal:
    """The law of a Gaussian field on the ball of one site, at any noise level.

    Args:
        covariance: clean covariance within the ball, ``(C, n, C, n)``, float64; diagonalised once.
        centre: place of the site among the n.
    """

    def __init__(self, covariance: Tensor, centre: int) -> None:
        self.channels, self.count = covariance.shape[:2]
        self.values, self.vectors = torch.linalg.eigh(covariance.flatten(2).flatten(0, 1))
        self.centre = centre
        self.rows = self.vectors.reshape(self.channels, self.count, -1)[:, centre]

    def precision_rows(self, v: Tensor) -> Tensor:
        """Rows of ``(C_BB + v)^-1`` at the site, for noise variances ``v`` of shape ``(B,)``: ``(B, C, C, n)``."""
        noisy = self.values + v.to(self.values)[:, None]
        rows: Tensor = (self.rows / noisy[:, None]) @ self.vectors.T
        return rows.reshape(*rows.shape[:2], self.channels, self.count)
