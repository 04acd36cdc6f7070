r"""Bases of a field's components, and linear operators in them: waves on a torus, sites on any domain.

An operator that commutes with translations of a torus is a number for each wave vector, or a C x C block between
channels: :class:`Waves`. Any other is a dense matrix between components: :class:`Sites`. Either way the operators are
matrices of ``block`` rows, one for each of the modes ``*M``, and their algebra is written once, in :class:`Basis`; a
basis adds how fields of real space are brought into it and back.

An operator is a tensor ``(..., *O)``, with ``O = M`` for numbers and ``O = M block block`` for matrices; a vector is
``(..., *M)`` or ``(..., *M, block)``, and so are eigenvalues. Leading axes are noise levels. Fields of real space are
``(..., *F)``: ``*S`` for waves of one channel and ``C *S`` otherwise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor

Components = Sequence[tuple[int, ...]]
"""Indices ``(channel, *site)``."""


def axes_of(spectrum: Tensor, dim: int) -> tuple[int, ...]:
    """The last ``dim`` axes: those of the lattice."""
    return tuple(range(spectrum.ndim - dim, spectrum.ndim))


def field_of(spectrum: Tensor, dim: int) -> Tensor:
    """Real part of the inverse Fourier transform over the last ``dim`` axes."""
    real: Tensor = torch.fft.ifftn(spectrum, dim=axes_of(spectrum, dim)).real
    return real


class Basis(ABC):
    """Where operators and fields are represented (see the module).

    Attributes:
        shape: sites along each axis, ``*S``.
        channels: components of a site.
        field_shape: ``*F``, shape of a field of real space.
        modes: ``*M``, of the matrices that an operator consists of.
        block: rows of each: what rounding grows with.
        numbers: whether an operator is numbers and no matrices; all operators commute then.
        multiplicity: how many real components each eigenvalue stands for, broadcasts against eigenvalues, float64.
    """

    shape: tuple[int, ...]
    channels: int
    field_shape: tuple[int, ...]
    modes: tuple[int, ...]
    block: int
    numbers: bool
    multiplicity: Tensor

    @abstractmethod
    def to_modes(self, x: Tensor) -> Tensor:
        """Vectors of real fields ``(..., *F)``; a unitary transformation, up to the weights ``multiplicity``."""

    @abstractmethod
    def to_field(self, vector: Tensor) -> Tensor:
        """Real fields ``(..., *F)`` of vectors."""

    @abstractmethod
    def deviation(self, covariance: Tensor) -> Tensor:
        """Standard deviations of the components under a covariance operator; broadcasts against ``(..., *F)``."""

    @abstractmethod
    def rows(self, operator: Tensor, components: Components) -> Tensor:
        """Rows ``(..., n, *F)`` of a real symmetric operator at n components ``(channel, *site)``."""

    @abstractmethod
    def representatives(self) -> list[tuple[int, ...]]:
        """Components of which every other is a translate."""

    @abstractmethod
    def from_columns(self, columns: Tensor) -> Tensor:
        """Operators ``(..., *O)`` from what they make of impulses at the representatives, ``(..., n, *F)``."""

    def identity(self, like: Tensor) -> Tensor:
        """The identity as an operator ``*O``, real, with the type and the device of ``like``."""
        if self.numbers:
            return torch.ones(self.modes, dtype=like.real.dtype, device=like.device)
        one = torch.eye(self.block, dtype=like.real.dtype, device=like.device)
        return one.expand(*self.modes, self.block, self.block)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """The operator ``left right``."""
        if self.numbers:
            return left * right
        if left.is_complex() != right.is_complex():
            left, right = left.to(torch.complex128), right.to(torch.complex128)
        return left @ right

    def adjoint(self, operator: Tensor) -> Tensor:
        """Conjugate transpose."""
        return operator.conj() if self.numbers else operator.mH

    def apply(self, operator: Tensor, vector: Tensor) -> Tensor:
        """The operator on a vector."""
        return operator * vector if self.numbers else self.product(operator, vector[..., None])[..., 0]

    def congruence(self, operator: Tensor, covariance: Tensor) -> Tensor:
        """What the operator makes of a covariance, ``A P A^H``."""
        if self.numbers:
            return operator.abs().square() * covariance
        return self.product(self.product(operator, covariance), self.adjoint(operator))

    def eigen(self, operator: Tensor) -> tuple[Tensor, Tensor | None]:
        """Eigenvalues of a Hermitian operator ``*O``, and eigenvectors where the basis is not made of them."""
        if self.numbers:
            return operator, None
        values, vectors = torch.linalg.eigh(operator)
        return values, vectors

    def function(self, values: Tensor, vectors: Tensor | None) -> Tensor:
        """The operator with these eigenvalues, of leading axes as they come."""
        if vectors is None:
            return values
        operator: Tensor = (vectors * values[..., None, :]) @ vectors.mH
        return operator

    def unmatched(self, noise: Tensor, root: Tensor) -> Tensor:
        r"""Covariance of :math:`n\xi - S^{1/2}U\xi` for the rotation U that brings the two noises closest.

        Args:
            noise: n, an operator, or one number.
            root: :math:`S^{1/2}`, Hermitian and non-negative.
        """
        if self.numbers:
            # The law of xi is invariant under rotations: its phase may be turned in every mode.
            return (noise.abs() - root).square()
        if noise.ndim == 0:
            # A multiple of the identity: both noises are functions of C, and no rotation brings them closer.
            rest = noise * self.identity(root) - root
        else:
            left, _, right = torch.linalg.svd(self.product(root, noise))
            rest = noise - self.product(root, left @ right)
        return self.product(rest, rest.mH)

    def between(self, rows: Tensor, components: Components) -> Tensor:
        """Entries ``(..., n, n)`` of rows ``(..., n, *F)`` at the same components."""
        places = torch.tensor([self.place(component) for component in components], device=rows.device)
        return rows.flatten(rows.ndim - len(self.field_shape))[..., places]

    def place(self, component: Sequence[int]) -> int:
        """Index of a component in a flattened field."""
        flat = 0
        for index, length in zip(component, (self.channels, *self.shape), strict=True):
            flat = flat * length + index
        return flat


class Waves(Basis):
    """Plane waves on a torus: operators are numbers for one channel, and blocks between channels for several.

    Args:
        shape: sites along each axis.
        channels: components of a site.
        half: keep one of the waves k and -k of a real field, on the grid of ``torch.fft.rfftn``; otherwise both, on
            that of ``torch.fft.fftn``.
        blocks: blocks for one channel too.
    """

    def __init__(self, shape: Sequence[int], channels: int = 1, *, half: bool = False, blocks: bool = False) -> None:
        self.shape, self.channels, self.half = tuple(shape), channels, half
        self.block, self.numbers = channels, channels == 1 and not blocks
        self.field_shape = self.shape if self.numbers else (channels, *self.shape)
        points = self.shape[-1] // 2 + 1 if half else self.shape[-1]
        self.modes = (*self.shape[:-1], points)
        waves = torch.arange(points, device="cpu")
        # A real field's amplitudes at k and -k are conjugate; half of them are kept, except where k = -k.
        paired = half & (waves != 0) & (2 * waves != self.shape[-1])
        counts = torch.where(paired, 2.0, 1.0).double().expand(self.modes)
        self.multiplicity = counts if self.numbers else counts[..., None]

    def to_modes(self, x: Tensor) -> Tensor:
        waves = self._transformed(x, "ortho")
        return waves if self.numbers else waves.movedim(-len(self.shape) - 1, -1)

    def to_field(self, vector: Tensor) -> Tensor:
        return self._of_waves(vector if self.numbers else vector.movedim(-1, -len(self.shape) - 1), "ortho")

    def deviation(self, covariance: Tensor) -> Tensor:
        own = covariance if self.numbers else covariance.diagonal(dim1=-2, dim2=-1).real
        axes = axes_of(covariance, len(self.shape)) if self.numbers else axes_of(own[..., 0], len(self.shape))
        mean = (own * self.multiplicity.to(own)).sum(axes) / math.prod(self.shape)
        return mean.clamp_min(0).sqrt().reshape(*mean.shape, *(1,) * len(self.shape))

    def rows(self, operator: Tensor, components: Components) -> Tensor:
        # A row of a symmetric matrix is its column: what it makes of an impulse.
        dim = len(self.shape)
        columns = operator[None] if self.numbers else operator.movedim((-1, -2), (0, -dim - 1))
        kernels = self._of_waves(columns, "backward")
        found = [kernels[c[0]].roll(c[1:], axes_of(kernels[0], dim)) for c in components]
        return torch.stack(found, dim=-len(self.field_shape) - 1)

    def representatives(self) -> list[tuple[int, ...]]:
        return [(channel, *(0,) * len(self.shape)) for channel in range(self.channels)]

    def from_columns(self, columns: Tensor) -> Tensor:
        dim = len(self.shape)
        waves = self._transformed(columns, "backward")
        return waves.squeeze(-dim - 1) if self.numbers else waves.movedim((-dim - 1, -dim - 2), (-2, -1))

    def seen_from(self, sites: Tensor) -> Tensor:
        """The site that is as far from the origin as site b from site a, ``(n, n)``, by flat indices ``(n,)``."""
        coordinates = torch.stack(torch.unravel_index(sites, self.shape))
        steps = coordinates[:, None, :] - coordinates[:, :, None]
        flat = torch.zeros_like(steps[0])
        for length, step in zip(self.shape, steps, strict=True):
            flat = flat * length + step % length
        return flat

    def _transformed(self, x: Tensor, norm: Literal["ortho", "backward"]) -> Tensor:
        transform = torch.fft.rfftn if self.half else torch.fft.fftn
        return cast(Tensor, transform(x, dim=axes_of(x, len(self.shape)), norm=norm))

    def _of_waves(self, waves: Tensor, norm: Literal["ortho", "backward"]) -> Tensor:
        axes = axes_of(waves, len(self.shape))
        if self.half:
            return cast(Tensor, torch.fft.irfftn(waves, s=self.shape, dim=axes, norm=norm))
        return cast(Tensor, torch.fft.ifftn(waves, dim=axes, norm=norm).real)


class Sites(Basis):
    """The components themselves, on any domain: operators are dense matrices; ``M`` is empty and a vector has C N rows.

    Args:
        shape: ``*S`` of the domain; ``(N,)`` of a graph.
        channels: components of a site.
    """

    modes = ()
    numbers = False

    def __init__(self, shape: Sequence[int], channels: int = 1) -> None:
        self.shape, self.channels = tuple(shape), channels
        self.field_shape = (channels, *self.shape)
        self.block = math.prod(self.field_shape)
        self.multiplicity = torch.ones(self.block, dtype=torch.float64, device="cpu")

    def to_modes(self, x: Tensor) -> Tensor:
        return x.flatten(x.ndim - len(self.field_shape))

    def to_field(self, vector: Tensor) -> Tensor:
        return vector.reshape(*vector.shape[:-1], *self.field_shape)

    def deviation(self, covariance: Tensor) -> Tensor:
        return self.to_field(covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt())

    def rows(self, operator: Tensor, components: Components) -> Tensor:
        places = torch.tensor([self.place(component) for component in components], device=operator.device)
        return self.to_field(operator[..., places, :])

    def representatives(self) -> list[tuple[int, ...]]:
        axes = [torch.arange(length) for length in self.field_shape]
        return [tuple(index.tolist()) for index in torch.cartesian_prod(*axes)]

    def from_columns(self, columns: Tensor) -> Tensor:
        return self.to_modes(columns).mT
