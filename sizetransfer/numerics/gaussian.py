r"""The Gaussian law, on tori and on graphs: everything is a function of the covariance's eigenvalues.

A zero-mean Gaussian field :math:`X_0 \sim N(0, C)` is the image of independent numbers under

.. math:: C = W\,\mathrm{diag}(c)\,W^\dagger, \qquad f(C) = W\,\mathrm{diag}(f(c))\,W^\dagger,

and adding noise of variance v makes its variances c + v. Samples are :math:`C^{1/2}\xi`, the clean score
:math:`-C^{-1}x`, the smoothed score and its response :math:`-(C+v)^{-1}`, the posterior's mean :math:`C(C+v)^{-1}x` and
covariance :math:`v\,C(C+v)^{-1}`: one :meth:`GaussianField.filter` or :meth:`GaussianField.row` with another gain. All
is exact to rounding. W is three steps, each left out where it is the identity:

1. a basis of the components (:mod:`sizetransfer.numerics.bases`): plane waves on a torus, sites on any other domain;
2. a rotation between channels, where all are coupled alike (:math:`Q = P \otimes K`, K's eigenvectors);
3. eigenvectors in the basis: between channels for each wave vector, of a graph's Laplacian, or of a dense covariance.

The precisions Q are those of :mod:`sizetransfer.numerics.couplings`.

The best score that sees only the ball B of a site is the score of the ball's marginal, :math:`N(0, (C + v)_{BB})`:

.. math:: E[s_i(x)\,|\,x_B] = -[(C+v)_{BB}^{-1}\,x_B]_i

It is *not* the exact kernel cut off at the ball. Its mean squared error is :math:`[(C+v)^{-1}]_{ii} -
[(C+v)_{BB}^{-1}]_{ii}`, the irreducible error of the ball.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.numerics.bases import Basis, Components, Sites, Waves
from sizetransfer.numerics.couplings import Couplings, LatticeCouplings, difference_spectrum, precision_spectrum

Gain = Callable[[Tensor], Tensor]
"""From eigenvalues of C to those of a function of it, with leading axes of noise levels."""
LARGEST_DENSE = 1024
"""Components of the largest field that is treated as a dense matrix: beyond, one bound takes many minutes."""


@dataclass(frozen=True)
class GaussianField:
    """A zero-mean Gaussian field (see the module).

    Attributes:
        basis: where its operators are represented; of one channel where channels are rotated apart.
        eigenvalues: of C, in double precision, in the order of the basis; with an axis for the channels in front where
            the basis has one channel and the field several.
        vectors: eigenvectors in the basis, ``*M block block``; none where the basis is made of them.
        rotation: orthonormal combinations of channels that are independent, as columns ``(C, C)``; none where the
            basis has the channels.
        given: the operator C as it was given, for one that was.
    """

    basis: Basis
    eigenvalues: Tensor
    vectors: Tensor | None = None
    rotation: Tensor | None = None
    given: Tensor | None = None

    @classmethod
    def coupled(cls, couplings: LatticeCouplings, shape: Sequence[int], channels: int) -> GaussianField:
        """The field on the torus of ``shape`` with these couplings, by half the plane waves."""
        if couplings.springs is not None:
            matrices = precision_spectrum(couplings, shape, channels, half=True).movedim((0, 1), (-2, -1))
            values, vectors = torch.linalg.eigh(matrices)
            return cls(Waves(shape, channels, half=True, blocks=True), 1 / values, vectors)
        # All matrices are multiples of one coupling: its eigenvectors serve every wave vector.
        strengths, rotation = torch.linalg.eigh(couplings.channel_matrix(channels))
        steps = torch.eye(len(shape), dtype=torch.int64).tolist()
        laplacian = sum(difference_spectrum(shape, step, half=True) for step in steps)
        precisions = strengths.reshape(-1, *(1,) * len(shape)) * (couplings.mass**2 + laplacian)
        return cls(Waves(shape, half=True), 1 / precisions, rotation=rotation if channels > 1 else None)

    @classmethod
    def on_graph(cls, couplings: Couplings, laplacian: Float[Tensor, "n n"], channels: int) -> GaussianField:
        """The field on a graph with these couplings, ``Q = (m^2 + L) K``.

        Args:
            couplings: mass m and coupling K.
            laplacian: L, float64; it is diagonalised once, with work of order N^3.
            channels: components of a site, C.
        """
        strengths, rotation = torch.linalg.eigh(couplings.channel_matrix(channels))
        values, vectors = torch.linalg.eigh(laplacian)
        # The smallest eigenvalue is zero, and rounding may put it below.
        variances = 1 / (strengths[:, None] * (couplings.mass**2 + values.clamp_min(0)))
        return cls(Sites((len(laplacian),)), variances, vectors, rotation)

    @classmethod
    def on_torus(cls, spectrum: Tensor) -> GaussianField:
        """The field of one channel with this spectrum ``*S`` on the grid of ``torch.fft.fftn``.

        Raises:
            OracleError: it is not the spectrum of a real field.
        """
        return cls(Waves(tuple(spectrum.shape)), check_spectrum(spectrum))

    @classmethod
    def with_channels(cls, blocks: Tensor) -> GaussianField:
        """The field of several channels on a torus with these Fourier blocks of its covariance, ``C C *S``.

        Raises:
            OracleError: the blocks are not those of a real field.
        """
        axes = tuple(range(2, blocks.ndim))
        mirrored = blocks.flip(axes).roll((1,) * len(axes), axes) if axes else blocks
        real = bool(torch.allclose(blocks, mirrored.conj(), rtol=1e-6))
        basis = Waves(tuple(blocks.shape[2:]), len(blocks), blocks=True)
        matrices = blocks.movedim((0, 1), (-2, -1)).to(torch.complex128 if blocks.is_complex() else torch.float64)
        return cls._of_operator(basis, matrices, fits=real, shape=tuple(blocks.shape))

    @classmethod
    def between_sites(cls, covariance: Tensor, shape: Sequence[int], channels: int = 1) -> GaussianField:
        """The field with this covariance ``(n, n)`` between all components, channel by channel.

        Raises:
            OracleError: the matrix is not the positive definite covariance of such a field, or has more than
                ``LARGEST_DENSE`` rows.
        """
        basis = Sites(shape, channels)
        fits = tuple(covariance.shape) == (basis.block, basis.block)
        if fits and basis.block > LARGEST_DENSE:
            raise OracleError(
                "The field has too many components for dense matrices.",
                where="GaussianField.between_sites",
                expected=f"at most {LARGEST_DENSE} components",
                got=str(basis.block),
                fix="lower the size, or choose a field on a torus, which is treated in Fourier space",
            )
        real = fits and not covariance.is_complex()
        return cls._of_operator(basis, covariance.double(), fits=real, shape=tuple(covariance.shape))

    @classmethod
    def _of_operator(cls, basis: Basis, operator: Tensor, *, fits: bool, shape: tuple[int, ...]) -> GaussianField:
        if fits and bool(operator.isfinite().all()) and torch.allclose(operator, operator.mH, rtol=1e-6):
            values, vectors = basis.eigen(operator)
            if bool((values > 0).all()):
                return cls(basis, values, vectors, given=operator)
        raise OracleError(
            "The matrix is not the covariance of a real Gaussian field.",
            where="GaussianField",
            expected="a finite, symmetric, positive definite matrix between components, or such blocks (C, C, *S) on "
            "the grid of torch.fft.fftn, those of -k conjugate to those of k",
            got=f"shape {shape}",
            fix="pass what the teacher gives: covariance_spectrum(size) on a torus, covariance(size, sites) on a graph",
        )

    @property
    def covariance(self) -> Tensor:
        """The operator C, ``*O``; one for each independent combination of channels where they are rotated apart."""
        return self.function(lambda c: c) if self.given is None else self.given

    def function(self, gain: Gain) -> Tensor:
        """The operator f(C), as :attr:`covariance`; ``gain`` may add leading axes of noise levels."""
        return self.basis.function(gain(self.eigenvalues), self.vectors)

    def rows(self, gain: Gain, components: Components) -> Tensor:
        """Rows ``(..., n, *F)`` of f(C) at n components of the basis."""
        return self.basis.rows(self.function(gain), components)

    def filter(self, x: Float[Tensor, "fields channels *size"], gain: Gain) -> Float[Tensor, "batch channels *size"]:
        """Apply f(C) to real fields.

        Args:
            x: fields, of any type and device; or one, for as many results as the gain has levels.
            gain: takes the eigenvalues to factors; what differs by field is brought along by :meth:`expand`.
        """
        return self._from_modes(self._to_modes(x) * gain(self.eigenvalues.to(x)))

    def row(self, site: Site, gain: Gain, like: Tensor) -> Float[Tensor, "batch channels channels *size"]:
        """Row of f(C) at a site, with the type and device of ``like``; f by field as for :meth:`filter`."""
        channels = self._channels
        impulses = like.new_zeros(channels, channels, *self.basis.shape)
        for channel in range(channels):
            impulses[(channel, channel, *site)] = 1
        return torch.stack([self.filter(impulse[None], gain) for impulse in impulses], 1)

    def expand(self, values: Tensor) -> Tensor:
        """Give ``(B,)`` trailing axes of length one so that it multiplies vectors of the basis."""
        return values.reshape(-1, *(1,) * (self.basis.multiplicity.ndim + (self.basis.channels == 1)))

    def standard_deviation(self) -> float:
        """Root of the mean clean variance of a component."""
        counts = self.basis.multiplicity
        fields = self.eigenvalues.numel() // counts.numel()
        return math.sqrt(float((self.eigenvalues * counts).sum() / (fields * counts.sum())))

    def log_determinant(self, v: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """``log det(C + v)``, shape ``(B,)`` for noise variances ``v`` of that shape, in float64."""
        noisy = self.eigenvalues.to(v.device) + self.expand(v.double())
        return (noisy.log() * self.basis.multiplicity.to(v.device)).flatten(1).sum(1)

    def between(self, sites: Tensor) -> Tensor:
        """Clean covariance between n sites, given by flat indices of shape ``(n,)``: ``(C, n, C, n)``, float64.

        Indices are those of the flattened sites; they are not checked.
        """
        sites = sites.cpu()
        if isinstance(self.basis, Waves):
            return self._origin_row[:, :, self.basis.seen_from(sites)].permute(0, 2, 1, 3)
        channels = torch.arange(self.basis.channels, device="cpu")
        places = (channels[:, None] * math.prod(self.basis.shape) + sites).flatten()
        # A dense basis has eigenvectors.
        rows = self.basis.identity(self.eigenvalues)[places] if self.vectors is None else self.vectors[places]
        entries = (rows * self.eigenvalues[..., None, :]) @ rows.mT
        if self.rotation is None:
            return entries.reshape(len(channels), len(sites), len(channels), len(sites))
        block: Tensor = torch.einsum("ik,jk,kab->iajb", self.rotation, self.rotation, entries)
        return block

    @property
    def _channels(self) -> int:
        return self.basis.channels if self.rotation is None else len(self.rotation)

    @cached_property
    def _origin_row(self) -> Tensor:
        """Covariance of the site at the origin with every site: ``(C, C, N)``."""
        origin = (0,) * len(self.basis.shape)
        return self.row(origin, lambda c: c, self.eigenvalues)[0].flatten(2)

    def _to_modes(self, x: Tensor) -> Tensor:
        """Amplitudes of fields, by the steps of the module."""
        fields = x.shape[:2] if self.basis.channels == 1 else x.shape[:1]
        a = self.basis.to_modes(x.reshape(*fields, *self.basis.field_shape))
        if self.rotation is not None:
            a = torch.einsum("ij,bi...->bj...", self.rotation.to(a), a)
        return a if self.vectors is None else _turned(a, self.vectors.to(a).conj())

    def _from_modes(self, a: Tensor) -> Tensor:
        """The inverse."""
        if self.rotation is not None:
            a = torch.einsum("ij,bj...->bi...", self.rotation.to(a), a)
        if self.vectors is not None:
            a = _turned(a, self.vectors.to(a).mT)
        x = self.basis.to_field(a)
        return x.reshape(len(x), self._channels, *self.basis.shape)


def _turned(a: Tensor, matrices: Tensor) -> Tensor:
    """Row vectors ``(..., *M, block)`` times matrices ``(*M, block, block)``."""
    turned: Tensor = a @ matrices if matrices.ndim == 2 else torch.einsum("...i,...ij->...j", a, matrices)
    return turned


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
