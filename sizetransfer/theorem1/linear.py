r"""Linear scores and the Gaussian laws that they make, in the basis of the field.

A learned score :math:`\hat s_v(x) = \beta_v - \hat A_v x` keeps Gaussian fields Gaussian. On a torus
:math:`\hat A_v` must be translation-invariant, with a number or a block between channels for each wave vector; on a
graph it is any matrix. A student of any make is recognised as such by probing: its responses to impulses are the
columns of :math:`\hat A_v`, and random fields at three noise levels tell whether there is nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Patch
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.bases import Basis, Waves
from sizetransfer.theorem1.distance import Normal
from sizetransfer.theorem1.fields import patch_components
from sizetransfer.theorem1.patches import GaussianLaw

FIELD_VALUES = 2**20
"""Numbers of the fields that a student is asked about at a time; bounds the memory."""


class NotLinearError(OracleError):
    """A student's score is not linear or, on a torus, not translation-invariant."""


@dataclass(frozen=True)
class LinearScore:
    """A score ``-A_v x + beta_v``, in a basis (:mod:`sizetransfer.numerics.bases`).

    Attributes:
        spectrum: from variances ``(V,)`` to the operators A_v, ``(V, *O)``: on a torus of one channel the eigenvalues
            a_k(v) on the grid of ``torch.fft.fftn``, ``(V, *S)``, real or complex.
        bias: from variances ``(V,)`` to the field beta_v, which broadcasts against ``(V, *F)``; none for zero.
    """

    spectrum: Callable[[Tensor], Tensor]
    bias: Callable[[Tensor], Tensor] | None = None

    def bias_modes(self, v: Tensor, basis: Basis) -> Tensor | None:
        """The bias at ``v`` as vectors of the basis, ``(V, *M)``."""
        if self.bias is None:
            return None
        return basis.to_modes(self.bias(v).expand(len(v), *basis.field_shape))


@dataclass(frozen=True)
class FieldLaw:
    """A Gaussian field.

    Attributes:
        spectrum: the operator of its covariance, ``*O``: on a torus of one channel, eigenvalues ``*S``.
        mean: its mean as a vector ``*M``: on a torus of one channel, its orthonormal Fourier transform ``*S``; none for
            zero.
        basis: of both; none for one channel on a torus.
    """

    spectrum: Tensor
    mean: Tensor | None = None
    basis: Basis | None = None

    @property
    def frame(self) -> Basis:
        """The basis, plane waves by default."""
        return self.basis or Waves(tuple(self.spectrum.shape))

    def patch(self, patch: Patch) -> GaussianLaw:
        """Mean and covariance of the field on a patch: sites with all their channels, or pairs of site and channel.

        Raises:
            OracleError: the patch leaves the lattice.
        """
        frame = self.frame
        components = patch_components(patch, frame.shape, frame.channels)
        covariance = frame.between(frame.rows(self.spectrum, components), components)
        if self.mean is None:
            return covariance.new_zeros(len(components)), covariance
        mean = frame.to_field(self.mean).flatten()
        return mean[[frame.place(component) for component in components]], covariance

    def site(self, site: tuple[int, ...]) -> Normal:
        """Law of one site of a field of one channel."""
        mean, covariance = self.patch([site])
        return Normal(float(mean), math.sqrt(float(covariance)))


def absolute_mean(mean: Tensor | None, std: Tensor) -> Tensor:
    r""":math:`E|N(\mu, s^2)| = s\sqrt{2/\pi}\,e^{-\mu^2/2s^2} + |\mu|\,\mathrm{erf}(|\mu|/(s\sqrt2))`."""
    if mean is None:
        return std * math.sqrt(2 / math.pi)
    ratio = mean.abs() / std.clamp_min(torch.finfo(std.dtype).tiny)
    return std * math.sqrt(2 / math.pi) * torch.exp(-0.5 * ratio**2) + mean.abs() * torch.erf(ratio / math.sqrt(2))


def linear_score(
    student: Student, context: Context, *, sigma: tuple[float, float], basis: Basis | None = None
) -> LinearScore:
    """The linear score of a student, found by probing it with impulses.

    Args:
        student: any student; it is probed with one impulse for each channel at the origin of a torus, or at every
            component of a graph, and checked with random fields at both ends of the range and between.
        context: the context of one field.
        sigma: the smallest and the largest noise level that matter.
        basis: of the operators; by default plane waves, for one channel on a torus.

    Raises:
        NotLinearError: the student's score is not ``beta - A x`` with an A of the basis and, on a torus, a uniform
            beta.
    """
    basis = basis or Waves(context.domain.shape)
    probe = _Probe(student, context, basis)
    found = LinearScore(probe.operators, probe.bias)
    _check_linear(probe, found, torch.tensor([sigma[0], math.sqrt(sigma[0] * sigma[1]), sigma[1]], dtype=torch.float64))
    return found


@dataclass(frozen=True)
class _Probe:
    """A student asked about fields of a basis."""

    student: Student
    context: Context
    basis: Basis

    @property
    def _size(self) -> tuple[int, ...]:
        return (self.basis.channels, *self.basis.shape)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The score of fields ``(V, *F)`` in float64 or, if the student's weights are of another type, in theirs."""
        weights = next(self.student.parameters(), None)
        like = x if weights is None else weights
        fields = x.reshape(-1, *self._size).to(like)
        with torch.no_grad():
            score: Tensor = self.student(fields, sigma.to(like), self.context.to(fields))
        return score.reshape(x.shape).to(x)

    def _offset(self, v: Tensor) -> Tensor:
        return self.score(v.new_zeros(len(v), *self.basis.field_shape), v.sqrt())

    def bias(self, v: Tensor) -> Tensor:
        """The score of the zero field; on a torus its mean over sites, for a uniform one is all there is."""
        offset = self._offset(v)
        if len(self.basis.representatives()) == self.basis.channels * math.prod(self.basis.shape):
            return offset
        dim = len(self.basis.shape)
        return offset.mean(tuple(range(offset.ndim - dim, offset.ndim)), keepdim=True)

    def operators(self, v: Tensor) -> Tensor:
        """The operators A at variances ``v``, ``(V, *O)``."""
        basis = self.basis
        components = basis.representatives()
        impulses = v.new_zeros(len(components), math.prod(basis.field_shape))
        impulses[range(len(components)), [basis.place(component) for component in components]] = 1
        impulses = impulses.reshape(-1, *basis.field_shape)
        count = max(1, FIELD_VALUES // impulses.numel())
        columns = [self._columns(impulses, levels) for levels in torch.split(v, count)]
        return basis.from_columns(torch.cat(columns))

    def _columns(self, impulses: Tensor, v: Tensor) -> Tensor:
        """What A makes of the impulses at every level, ``(V, n, *F)``."""
        fields = impulses.expand(len(v), *impulses.shape)
        responses = self.score(fields.flatten(0, 1), v.sqrt().repeat_interleave(len(impulses)))
        return self._offset(v)[:, None] - responses.reshape(fields.shape)


def _check_linear(probe: _Probe, found: LinearScore, sigma: Tensor) -> None:
    basis, v = probe.basis, sigma**2
    like = torch.empty(0, dtype=torch.float64, device="cpu")
    x = normal((len(v), *basis.field_shape), generator=stream("probe of linearity"), like=like)
    x = x * (1 + sigma).reshape(-1, *(1,) * len(basis.field_shape))
    actual = probe.score(x, sigma)
    a = found.spectrum(v)
    product = basis.to_field(basis.apply(a, basis.to_modes(x)))
    expected = (0.0 if found.bias is None else found.bias(v)) - product
    weights = next(probe.student.parameters(), x)
    tolerance = 100 * torch.finfo(weights.dtype).eps * float(x.abs().max()) * float(a.abs().max())
    worst = float((actual - expected).abs().max())
    if not worst <= tolerance:
        raise NotLinearError(
            "The student's score is not linear, or on a torus not translation-invariant.",
            where=type(probe.student).__name__,
            expected="s(x) = beta - A x, on a torus with a translation-invariant A and a uniform beta, for the exact "
            "form of Theorem 1",
            got=f"a difference of {worst:.3g} from its response to impulses",
            fix='use method="monte-carlo"',
        )
