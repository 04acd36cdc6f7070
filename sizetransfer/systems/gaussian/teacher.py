r"""Gaussian fields on a torus: teachers whose score is known exactly at every noise level and every size.

.. math:: X_0 \sim N(0, C), \qquad C = Q^{-1}, \qquad Q = (m^2 + \Lambda)\otimes K

with the lattice Laplacian :math:`\Lambda` and a positive-definite coupling K between channels, or with the dynamical
matrix of a harmonic crystal (:mod:`sizetransfer.numerics.couplings`). At noise variance :math:`v = \sigma^2`:

- density :math:`N(0, C + v)`, score :math:`s_v(x) = -(C+v)^{-1} x`;
- posterior of the clean field: mean :math:`C (C+v)^{-1} x`, covariance :math:`P = v\,C (C+v)^{-1}` for every x;
- response :math:`\partial s/\partial x = -(C+v)^{-1} = v^{-2} P - v^{-1}` (paper eq. (9)), of range about
  :math:`\min(1/m, \sigma)`, even where 1/m is larger than the lattice.

Everything is diagonal in Fourier space: one transform each way for an answer, at any size that fits into memory.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from sizetransfer.contracts.domain import Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import Context, Exactness, Sample, Teacher
from sizetransfer.contracts.randomness import normal
from sizetransfer.contracts.specs import FieldInfo, TeacherSpec
from sizetransfer.numerics.couplings import LatticeCouplings, precision_spectrum
from sizetransfer.numerics.gaussian import GaussianField

# The smallest torus, of two sites an axis, then has a million sites.
LARGEST_DIMENSION = 20


class GaussianLaw(Teacher):
    """A zero-mean Gaussian field with a known law; every oracle is exact to rounding."""

    even = True
    draws_fields_apart = True

    def __init__(self, field: FieldInfo) -> None:
        super().__init__(field)
        oracles = ("sample", "log_density", "score", "smoothed_score", "smoothed_log_density", "posterior_mean")
        self.exactness = {name: Exactness() for name in (*oracles, "posterior_covariance", "response", "covariance")}

    @abstractmethod
    def law(self, shape: tuple[int, ...]) -> GaussianField:
        """The law of fields with ``*S = shape``."""

    def context(self, batch: int, size: int) -> Context:
        """The context of fields of this size; it is the same for every field of a batch."""
        self.check_size(size)
        return Context(self.domain(size))

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        context = self.context(batch, size)
        shape = context.domain.shape
        white = normal((batch, self.field.channels, *shape), generator=generator, like=self.anchor)
        return Sample(self.law(shape).filter(white, torch.sqrt), context)

    def log_density(self, sample: Sample) -> Float[Tensor, "batch"]:
        r"""``-x.Q x / 2 + log det Q / 2 - n log(2 pi) / 2`` with n components in all, shape ``(B,)``."""
        return self._log_density(sample.x, sample.x.new_zeros(sample.x.shape[0]))

    def smoothed_log_density(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch"]:
        """Log-density of the noisy field, that of ``N(0, C + sigma^2)``, shape ``(B,)``.

        Raises:
            OracleError: a noise level is not positive, or the field does not fit the teacher.
        """
        return self._log_density(x, noise_variance(sigma, len(x)))

    def score(self, sample: Sample) -> Float[Tensor, "batch channels *size"]:
        """Clean score ``-Q x``, like ``sample.x``."""
        return self._law_of(sample.x).filter(sample.x, lambda c: -1 / c)

    def smoothed_score(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        """Score ``-(C + sigma^2)^-1 x`` of the noisy field, like ``x``.

        Raises:
            OracleError: a noise level is not positive, or the field does not fit the teacher.
        """
        law = self._law_of(x)
        v = law.expand(noise_variance(sigma, len(x)))
        return law.filter(x, lambda c: -1 / (c + v))

    def posterior_mean(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        """E[X_0 | x] = C (C + sigma^2)^-1 x, like ``x``; errors as for :meth:`smoothed_score`."""
        law = self._law_of(x)
        v = law.expand(noise_variance(sigma, len(x)))
        return law.filter(x, lambda c: c / (c + v))

    def posterior_covariance(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context, site: Site
    ) -> Float[Tensor, "batch channels channels *size"]:
        """Cov(X_0 at ``site``, X_0 | x): rows of ``sigma^2 C (C + sigma^2)^-1``, which do not depend on x.

        Raises:
            OracleError: a noise level is not positive, or the site is not on the lattice.
        """
        return self._row(context, site, noise_variance(sigma, len(x)), lambda c, v: c * v / (c + v))

    def covariance(self, size: int, sites: Tensor) -> Tensor:
        """Clean covariance between sites given by flat indices ``(n,)``: ``(C, n, C, n)``, float64.

        Raises:
            OracleError: an index is not that of a site.
        """
        domain = self.context(1, size).domain
        if sites.ndim != 1 or sites.is_floating_point() or bool(((sites < 0) | (sites >= domain.sites)).any()):
            raise OracleError(
                "A site is not on the domain.",
                where=f"{type(self).__name__}.covariance, sites",
                expected=f"flat indices of shape (n,), from 0 to {domain.sites - 1}",
                got=f"shape {tuple(sites.shape)}, {sites.flatten()[:8].tolist()}",
                fix="flatten coordinates in the order of the axes: (a, b) on an L x L torus is a * L + b",
            )
        return self.law(domain.shape).between(sites)

    def response(
        self, sigma: Float[Tensor, "batch"], context: Context, site: Site
    ) -> Float[Tensor, "batch channels channels *size"]:
        """Jacobian row of the smoothed score at ``site``: blocks of ``-(C + sigma^2)^-1`` (paper eq. (9)).

        Raises:
            OracleError: a noise level is not positive, or the site is not on the lattice.
        """
        return self._row(context, site, noise_variance(sigma, None), lambda c, v: -1 / (c + v))

    def _row(self, context: Context, site: Site, v: Tensor, gain: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Row at ``site`` of the matrix with eigenvalues ``gain(c, v)``: ``(B, C, C, *S)``."""
        law = self._law_of(v.new_zeros(1, self.field.channels, *context.domain.shape))
        context.domain.distance(site)  # refuses a site that is not there
        levels = law.expand(v)
        return law.row(site, lambda c: gain(c, levels), v)

    def _log_density(self, x: Tensor, v: Tensor) -> Tensor:
        law = self._law_of(x)
        levels = law.expand(v)
        whitened = law.filter(x, lambda c: 1 / (c + levels))
        constant = law.log_determinant(v) + x[0].numel() * math.log(2 * math.pi)
        return -0.5 * (x * whitened).flatten(1).sum(1) - 0.5 * constant.to(x)

    def _law_of(self, x: Tensor) -> GaussianField:
        if x.ndim < 3 or x.shape[1] != self.field.channels:
            raise OracleError(
                "The field does not fit the teacher.",
                where=f"{type(self).__name__}, x",
                expected=f"shape (batch, {self.field.channels}, *size)",
                got=f"shape {tuple(x.shape)}",
                fix="pass fields with the channels of teacher.field",
            )
        return self.law(tuple(x.shape[2:]))


def noise_variance(sigma: object, batch: int | None) -> Tensor:
    """``sigma ** 2``, with ``sigma`` checked to be ``(batch,)``; ``None``: of any length."""
    if not isinstance(sigma, Tensor) or sigma.ndim != 1 or batch not in (None, len(sigma)):
        raise OracleError(
            "There must be one noise level for each field.",
            where="sigma",
            expected=f"a tensor of shape ({'n' if batch is None else batch},)",
            got=f"shape {tuple(sigma.shape)}" if isinstance(sigma, Tensor) else repr(sigma),
            fix="x.new_full((len(x),), 0.5) gives every field of x the same level",
        )
    if not bool((sigma > 0).all()) or not bool(sigma.isfinite().all()):
        raise OracleError(
            "A noise level is not positive.",
            where="sigma",
            expected="finite numbers above zero, one for each field",
            got=str(sigma.tolist()),
            fix="for the clean field ask for score and log_density, which need no noise level",
        )
    return sigma**2


class GaussianTeacherSpec(LatticeCouplings, TeacherSpec):
    """Gaussian field on a torus of any dimension, with everything exact at every noise level and size."""

    kind: Literal["gaussian"] = "gaussian"
    dim: int = Field(2, ge=1, le=LARGEST_DIMENSION, description="axes of the torus")
    channels: int = Field(1, ge=1, description="components of a site")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "free-field": {"dim": 2, "mass": 0.5},
        "near-critical": {"dim": 2, "mass": 0.05},
        "harmonic-crystal": {"dim": 2, "channels": 2, "mass": 0.3, "springs": {}},
    }

    @model_validator(mode="after")
    def _checked(self) -> GaussianTeacherSpec:
        self.bonds(self.dim, self.channels)
        return self

    def build(self) -> GaussianTeacher:
        return GaussianTeacher(self)


class GaussianTeacher(GaussianLaw):
    """Gaussian field on a torus (see the module's formulas)."""

    translation_period = 1

    def __init__(self, spec: GaussianTeacherSpec) -> None:
        components: Literal["scalars", "vector"] = "scalars" if spec.springs is None else "vector"
        super().__init__(FieldInfo(dim=spec.dim, channels=spec.channels, components=components, periodic=True))
        self.spec = spec
        self.field = self.field.model_copy(update={"sigma_data": self._scale()})

    def _scale(self) -> float:
        """Standard deviation of a component in infinite volume, as far as the reference size stands for it."""
        size = self.spec.reference_size(self.spec.dim)
        return _law(self.spec, (size,) * self.spec.dim).standard_deviation()

    def law(self, shape: tuple[int, ...]) -> GaussianField:
        if len(shape) != self.spec.dim or min(shape) < 2:
            raise OracleError(
                "The field does not fit the teacher.",
                where="GaussianTeacher, x",
                expected=f"{self.spec.dim} axes with at least 2 sites each",
                got=f"*size = {shape}",
                fix="pass fields on the teacher's domain",
            )
        return _law(self.spec, shape)

    def covariance_spectrum(self, size: int) -> Tensor:
        """Eigenvalues c_k of the covariance on the grid of ``torch.fft.fftn``, on a torus of ``size`` sites an axis.

        Returns:
            Real, float64, on the processor: ``(size,) * dim`` for one channel, otherwise blocks ``(C, C, *S)``.
        """
        self.check_size(size)
        channels = self.spec.channels
        precision = precision_spectrum(self.spec, (size,) * self.spec.dim, channels, half=False)
        if channels == 1:
            return 1 / precision[0, 0]
        blocks: Tensor = torch.linalg.inv(precision.movedim((0, 1), (-2, -1)))
        return blocks.movedim((-2, -1), (0, 1)).contiguous()


@lru_cache(maxsize=8)
def _law(spec: GaussianTeacherSpec, shape: tuple[int, ...]) -> GaussianField:
    # Kept for later calls, so they must not be tensors of an inference mode that the first caller was in.
    with torch.inference_mode(False):
        return GaussianField.coupled(spec, shape, spec.channels)
