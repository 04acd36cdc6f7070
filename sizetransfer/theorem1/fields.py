r"""Gaussian fields and linear operators on them, each in the basis in which they are cheapest.

The reverse process of a Gaussian field C with a linear score :math:`-\hat A_v x + \beta_v` needs few operations of
its matrices: products, :math:`A P A^\dagger`, functions of C, rows at the sites of a patch, and standard deviations
site by site. A :class:`Basis` gives them, and everything else in this package is written once for all of them:

- :class:`PlaneWaves`: one channel on a torus. Operators are circulant, a number for each wave vector;
- :class:`WaveBlocks`: several channels on a torus. Operators are a block of C x C numbers for each wave vector;
- :class:`Sites`: any domain, a graph above all. Operators are dense matrices between all components.

In a basis, an operator is a tensor ``(..., *O)`` and a vector ``(..., *M)``; leading axes are noise levels. Fields of
real space are ``(..., *F)``: ``*S`` for plane waves and ``C *S`` for the others.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Site
from sizetransfer.contracts.errors import OracleError

Patch = Sequence[Site | tuple[Site, int]]
"""Sites of a patch A, with all their channels; or pairs of a site and one channel of it. All different."""
LARGEST_DENSE = 1024
"""Components of the largest field that is treated as a dense matrix: beyond, one bound takes many minutes."""


def patch_components(patch: Patch, shape: Sequence[int], channels: int = 1) -> list[tuple[int, ...]]:
    """Components of a patch as indices ``(channel, *site)``.

    Args:
        patch: sites, or pairs of a site and a channel.
        shape: sites along each axis of the domain.
        channels: components of a site.

    Raises:
        OracleError: the patch is empty, has a component twice, or leaves the domain.
    """
    found: list[tuple[int, ...]] = []
    for entry in patch:
        paired = len(entry) == 2 and isinstance(entry[0], tuple | list)
        site, wanted = (entry[0], [entry[1]]) if paired else (entry, range(channels))
        found += [(channel, *cast(Site, site)) for channel in wanted]
    inside = all(_is_inside(component, (channels, *shape)) for component in found)
    if not found or not inside or len(set(found)) < len(found):
        raise OracleError(
            "The patch is not a set of sites of the lattice.",
            where="patch",
            expected=f"at least one site, each once, {len(shape)} coordinates below {tuple(shape)}; or pairs of a site "
            f"and a channel below {channels}",
            got=repr(list(patch)),
            fix=f"pass for example [{(0,) * len(shape)}], the site at the origin",
        )
    return found


def _is_inside(component: Sequence[object], limits: Sequence[int]) -> bool:
    return len(component) == len(limits) and all(
        isinstance(a, numbers.Integral) and 0 <= int(a) < length for a, length in zip(component, limits, strict=True)
    )


def check_spectrum(spectrum: Tensor) -> Float[Tensor, "*size"]:
    """Return the spectrum of a covariance in double precision.

    Raises:
        OracleError: it is not real, finite and positive, or not even, as that of a real field must be.
    """
    real = not spectrum.is_complex() and spectrum.ndim > 0 and bool((spectrum > 0).all())
    finite = real and bool(spectrum.isfinite().all())
    axes = tuple(range(spectrum.ndim))
    if not finite or not torch.allclose(spectrum, spectrum.flip(axes).roll((1,) * spectrum.ndim, axes), rtol=1e-6):
        raise OracleError(
            "The spectrum is not that of a covariance of a real field on a torus.",
            where="spectrum",
            expected="positive finite numbers c_k = c_-k on the grid of torch.fft.fftn, one for each site",
            got=f"shape {tuple(spectrum.shape)}, dtype {spectrum.dtype}",
            fix="pass GaussianTeacher.covariance_spectrum(size) of a teacher with one channel",
        )
    return spectrum.double()


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
        block: rows of the largest matrix that is multiplied: what rounding grows with.
    """

    shape: tuple[int, ...]
    channels: int
    field_shape: tuple[int, ...]
    block: int

    @abstractmethod
    def identity(self, like: Tensor) -> Tensor:
        """The identity as an operator ``*O``, real, with the type and the device of ``like``."""

    @abstractmethod
    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """The operator ``left right``."""

    @abstractmethod
    def adjoint(self, operator: Tensor) -> Tensor:
        """Conjugate transpose."""

    @abstractmethod
    def apply(self, operator: Tensor, vector: Tensor) -> Tensor:
        """The operator on a vector ``*M``."""

    @abstractmethod
    def to_modes(self, x: Tensor) -> Tensor:
        """Vectors ``(..., *M)`` of real fields ``(..., *F)``."""

    @abstractmethod
    def to_field(self, vector: Tensor) -> Tensor:
        """Real fields ``(..., *F)`` of vectors ``(..., *M)``."""

    @abstractmethod
    def deviation(self, covariance: Tensor) -> Tensor:
        """Standard deviations of the components under a covariance operator; broadcasts against ``(..., *F)``."""

    @abstractmethod
    def rows(self, operator: Tensor, components: Sequence[tuple[int, ...]]) -> Tensor:
        """Rows ``(..., n, *F)`` of a real symmetric operator at n components ``(channel, *site)``."""

    @abstractmethod
    def eigen(self, operator: Tensor) -> tuple[Tensor, Tensor | None]:
        """Eigenvalues of a Hermitian operator ``*O``, and eigenvectors where the basis is not made of them."""

    @abstractmethod
    def function(self, values: Tensor, vectors: Tensor | None) -> Tensor:
        """The operator with these eigenvalues, of leading axes as they come."""

    @abstractmethod
    def unmatched(self, noise: Tensor, root: Tensor) -> Tensor:
        r"""Covariance of :math:`n\xi - S^{1/2}U\xi` for the rotation U that brings the two noises closest.

        Args:
            noise: n, an operator, or one number.
            root: :math:`S^{1/2}`, Hermitian and non-negative.
        """

    @abstractmethod
    def representatives(self) -> list[tuple[int, ...]]:
        """Components of which every other is a translate."""

    @abstractmethod
    def from_columns(self, columns: Tensor) -> Tensor:
        """Operators ``(..., *O)`` from what they make of impulses at the representatives, ``(..., n, *F)``."""

    def congruence(self, operator: Tensor, covariance: Tensor) -> Tensor:
        """What the operator makes of a covariance, ``A P A^H``."""
        return self.product(self.product(operator, covariance), self.adjoint(operator))

    def between(self, rows: Tensor, components: Sequence[tuple[int, ...]]) -> Tensor:
        """Entries ``(..., n, n)`` of rows ``(..., n, *F)`` at the same components."""
        places = torch.tensor([self.place(component) for component in components], device=rows.device)
        return rows.flatten(rows.ndim - len(self.field_shape))[..., places]

    def place(self, component: Sequence[int]) -> int:
        """Index of a component in a flattened field."""
        flat = 0
        for index, length in zip(component, (self.channels, *self.shape), strict=True):
            flat = flat * length + index
        return flat


class PlaneWaves(Basis):
    """Circulant operators on a torus of one channel: eigenvalues on the grid of ``torch.fft.fftn``; ``O = M = F = S``.

    Args:
        shape: sites along each axis.
    """

    block = 1
    channels = 1

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = self.field_shape = tuple(shape)

    def identity(self, like: Tensor) -> Tensor:
        return torch.ones(self.shape, dtype=like.real.dtype, device=like.device)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        return left * right

    def adjoint(self, operator: Tensor) -> Tensor:
        return operator.conj()

    def apply(self, operator: Tensor, vector: Tensor) -> Tensor:
        return operator * vector

    def to_modes(self, x: Tensor) -> Tensor:
        vector: Tensor = torch.fft.fftn(x, dim=axes_of(x, len(self.shape)))
        return vector

    def to_field(self, vector: Tensor) -> Tensor:
        return field_of(vector, len(self.shape))

    def congruence(self, operator: Tensor, covariance: Tensor) -> Tensor:
        return operator.abs().square() * covariance

    def deviation(self, covariance: Tensor) -> Tensor:
        return covariance.mean(axes_of(covariance, len(self.shape)), keepdim=True).sqrt()

    def rows(self, operator: Tensor, components: Sequence[tuple[int, ...]]) -> Tensor:
        kernel = self.to_field(operator)
        dim = len(self.shape)
        return torch.stack([kernel.roll(c[1:], axes_of(kernel, dim)) for c in components], dim=-dim - 1)

    def eigen(self, operator: Tensor) -> tuple[Tensor, Tensor | None]:
        return operator, None

    def function(self, values: Tensor, vectors: Tensor | None) -> Tensor:
        return values

    def unmatched(self, noise: Tensor, root: Tensor) -> Tensor:
        # The law of xi is invariant under rotations: its phase may be turned in every mode.
        return (noise.abs() - root).square()

    def representatives(self) -> list[tuple[int, ...]]:
        return [(0, *(0,) * len(self.shape))]

    def from_columns(self, columns: Tensor) -> Tensor:
        return self.to_modes(columns.squeeze(-len(self.shape) - 1))


class Matrices(Basis):
    """Operators that are matrices, one or one for each wave vector."""

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        if left.is_complex() != right.is_complex():
            left, right = left.to(torch.complex128), right.to(torch.complex128)
        return left @ right

    def adjoint(self, operator: Tensor) -> Tensor:
        return operator.mH

    def apply(self, operator: Tensor, vector: Tensor) -> Tensor:
        return self.product(operator, vector[..., None])[..., 0]

    def eigen(self, operator: Tensor) -> tuple[Tensor, Tensor | None]:
        values, vectors = torch.linalg.eigh(operator)
        return values, vectors

    def function(self, values: Tensor, vectors: Tensor | None) -> Tensor:
        columns = cast(Tensor, vectors)
        operator: Tensor = (columns * values[..., None, :]) @ columns.mH
        return operator

    def unmatched(self, noise: Tensor, root: Tensor) -> Tensor:
        if noise.ndim == 0:
            # A multiple of the identity: both noises are functions of C, and no rotation brings them closer.
            rest = noise * self.identity(root) - root
        else:
            left, _, right = torch.linalg.svd(self.product(root, noise))
            rest = noise - self.product(root, left @ right)
        return self.product(rest, rest.mH)


class WaveBlocks(Matrices):
    """Translation-invariant operators between channels on a torus: ``O = *S C C``, ``M = *S C``, ``F = C *S``.

    Args:
        shape: sites along each axis.
        channels: components of a site.
    """

    def __init__(self, shape: Sequence[int], channels: int) -> None:
        self.shape, self.channels, self.block = tuple(shape), channels, channels
        self.field_shape = (channels, *self.shape)

    def identity(self, like: Tensor) -> Tensor:
        one = torch.eye(self.channels, dtype=like.real.dtype, device=like.device)
        return one.expand(*self.shape, self.channels, self.channels)

    def to_modes(self, x: Tensor) -> Tensor:
        dim = len(self.shape)
        vector: Tensor = torch.fft.fftn(x, dim=axes_of(x, dim)).movedim(-dim - 1, -1)
        return vector

    def to_field(self, vector: Tensor) -> Tensor:
        dim = len(self.shape)
        return field_of(vector.movedim(-1, -dim - 1), dim)

    def deviation(self, covariance: Tensor) -> Tensor:
        own = covariance.diagonal(dim1=-2, dim2=-1).real
        mean = own.mean(tuple(range(own.ndim - 1 - len(self.shape), own.ndim - 1)))
        return mean.clamp_min(0).sqrt().reshape(*mean.shape, *(1,) * len(self.shape))

    def rows(self, operator: Tensor, components: Sequence[tuple[int, ...]]) -> Tensor:
        # A row of a symmetric matrix is its column: what it makes of an impulse.
        columns = self.to_field(operator.movedim(-1, 0))
        dim = len(self.shape)
        found = [columns[c[0]].roll(c[1:], axes_of(columns[0], dim)) for c in components]
        return torch.stack(found, dim=-dim - 2)

    def representatives(self) -> list[tuple[int, ...]]:
        return [(channel, *(0,) * len(self.shape)) for channel in range(self.channels)]

    def from_columns(self, columns: Tensor) -> Tensor:
        return self.to_modes(columns).movedim(-len(self.shape) - 2, -1)


class Sites(Matrices):
    """Dense matrices between all components of any domain: ``O = n n``, ``M = n``, ``F = C *S``, n = C N.

    Args:
        shape: ``*S`` of the domain; ``(N,)`` of a graph.
        channels: components of a site.
    """

    def __init__(self, shape: Sequence[int], channels: int) -> None:
        self.shape, self.channels = tuple(shape), channels
        self.field_shape = (channels, *self.shape)
        self.block = math.prod(self.field_shape)

    def identity(self, like: Tensor) -> Tensor:
        return torch.eye(self.block, dtype=like.dtype, device=like.device)

    def to_modes(self, x: Tensor) -> Tensor:
        return x.flatten(x.ndim - len(self.field_shape))

    def to_field(self, vector: Tensor) -> Tensor:
        return vector.reshape(*vector.shape[:-1], *self.field_shape)

    def deviation(self, covariance: Tensor) -> Tensor:
        return self.to_field(covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt())

    def rows(self, operator: Tensor, components: Sequence[tuple[int, ...]]) -> Tensor:
        places = torch.tensor([self.place(component) for component in components], device=operator.device)
        return self.to_field(operator[..., places, :])

    def representatives(self) -> list[tuple[int, ...]]:
        axes = [torch.arange(length) for length in self.field_shape]
        return [tuple(index.tolist()) for index in torch.cartesian_prod(*axes)]

    def from_columns(self, columns: Tensor) -> Tensor:
        return self.to_modes(columns).mT


@dataclass(frozen=True)
class GaussianField:
    """A zero-mean Gaussian field that knows its covariance.

    Attributes:
        basis: where its operators are represented.
        covariance: the operator C, ``*O``, in double precision.
    """

    basis: Basis
    covariance: Tensor

    @classmethod
    def on_torus(cls, spectrum: Tensor) -> GaussianField:
        """The field of one channel with this spectrum ``*S`` on the grid of ``torch.fft.fftn``.

        Raises:
            OracleError: it is not the spectrum of a real field.
        """
        return cls(PlaneWaves(tuple(spectrum.shape)), check_spectrum(spectrum))

    @classmethod
    def with_channels(cls, blocks: Float[Tensor, "channels channels *size"]) -> GaussianField:
        """The field of several channels on a torus with these Fourier blocks of its covariance, ``C C *S``.

        Raises:
            OracleError: the blocks are not those of a real field.
        """
        shape, channels = tuple(blocks.shape[2:]), len(blocks)
        field = cls(WaveBlocks(shape, channels), blocks.movedim((0, 1), (-2, -1)).to(_double(blocks)))
        axes = tuple(range(2, blocks.ndim))
        mirrored = blocks.flip(axes).roll((1,) * len(axes), axes) if axes else blocks
        _check_positive(field, bool(torch.allclose(blocks, mirrored.conj(), rtol=1e-6)), tuple(blocks.shape))
        return field

    @classmethod
    def between_sites(cls, covariance: Float[Tensor, "n n"], shape: Sequence[int], channels: int = 1) -> GaussianField:
        """The field with this covariance between all components, channel by channel.

        Raises:
            OracleError: the matrix is not the positive definite covariance of such a field, or has more than
                ``LARGEST_DENSE`` rows.
        """
        basis = Sites(shape, channels)
        if tuple(covariance.shape) == (basis.block, basis.block) and basis.block > LARGEST_DENSE:
            raise OracleError(
                "The field has too many components for Theorem 1 with dense matrices.",
                where="GaussianField.between_sites",
                expected=f"at most {LARGEST_DENSE} components",
                got=str(basis.block),
                fix="lower the size, or choose a field on a torus, which is treated in Fourier space",
            )
        fits = tuple(covariance.shape) == (basis.block, basis.block) and not covariance.is_complex()
        field = cls(basis, covariance.double())
        _check_positive(field, fits, tuple(covariance.shape))
        return field

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor | None]:
        return self.basis.eigen(self.covariance)

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of C, in the order of the basis."""
        return self._eigen[0]

    def function(self, gain: Callable[[Tensor], Tensor]) -> Tensor:
        """The operator f(C); ``gain`` takes eigenvalues to their images, with leading axes of noise levels."""
        values, vectors = self._eigen
        return self.basis.function(gain(values), vectors)

    def rows(self, gain: Callable[[Tensor], Tensor], components: Sequence[tuple[int, ...]]) -> Tensor:
        """Rows ``(..., n, *F)`` of f(C) at n components."""
        return self.basis.rows(self.function(gain), components)

    def components(self, patch: Patch) -> list[tuple[int, ...]]:
        """Components ``(channel, *site)`` of a patch; :func:`patch_components` says what is refused."""
        return patch_components(patch, self.basis.shape, self.basis.channels)


def as_field(field: Tensor | GaussianField) -> GaussianField:
    """A field; a spectrum stands for the field of one channel on a torus."""
    return field if isinstance(field, GaussianField) else GaussianField.on_torus(field)


def _double(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _check_positive(field: GaussianField, fits: bool, shape: tuple[int, ...]) -> None:
    covariance: Any = field.covariance
    hermitian = fits and bool(covariance.isfinite().all()) and torch.allclose(covariance, covariance.mH, rtol=1e-6)
    if not hermitian or not bool((field.eigenvalues > 0).all()):
        raise OracleError(
            "The matrix is not the covariance of a real Gaussian field.",
            where="GaussianField",
            expected="a finite, symmetric, positive definite matrix between components, or such blocks (C, C, *S) on "
            "the grid of torch.fft.fftn, those of -k conjugate to those of k",
            got=f"shape {shape}",
            fix="pass what the teacher gives: covariance_spectrum(size) on a torus, covariance(size, sites) on a graph",
        )
