r"""Linear scores and Gaussian fields on a torus, in Fourier space.

A learned score :math:`\hat s_v(x) = \beta_v - \hat A_v x` with a circulant :math:`\hat A_v` keeps Gaussian fields
Gaussian. A student of any make is recognised as such by probing: its response to an impulse is a column of
:math:`\hat A_v`, and random fields at three noise levels tell whether there is nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.comparison.distance import Normal
from sizetransfer.comparison.patches import GaussianLaw
from sizetransfer.comparison.weights import Patch, axes_of, field_of, patch_matrix
from sizetransfer.errors import OracleError
from sizetransfer.oracle import Context
from sizetransfer.student import Student


class NotLinearError(OracleError):
    """A student's score is not linear and translation-invariant."""


@dataclass(frozen=True)
class LinearScore:
    """A score ``-A_v x + beta_v`` on a torus.

    Attributes:
        spectrum: from variances ``(V,)`` to the eigenvalues a_k(v) of A_v on the grid of ``torch.fft.fftn``,
            ``(V, *S)``, real or complex.
        bias: from variances ``(V,)`` to the field beta_v, ``(V, *S)``; none for zero.
    """

    spectrum: Callable[[Tensor], Tensor]
    bias: Callable[[Tensor], Tensor] | None = None

    def bias_spectrum(self, v: Tensor, like: Tensor) -> Tensor | None:
        """Fourier transform of the bias at ``v``, shaped like the eigenvalues ``like``."""
        if self.bias is None:
            return None
        field = self.bias(v).expand(like.shape)
        transformed: Tensor = torch.fft.fftn(field, dim=axes_of(field, like.ndim - 1))
        return transformed


@dataclass(frozen=True)
class FieldLaw:
    """A Gaussian field with a circulant covariance.

    Attributes:
        spectrum: eigenvalues of the covariance, ``*S``.
        mean: Fourier transform of the mean, ``*S``; none for zero.
    """

    spectrum: Float[Tensor, "*size"]
    mean: Tensor | None = None

    def patch(self, patch: Patch) -> GaussianLaw:
        """Mean and covariance of the field on a patch."""
        dim = self.spectrum.ndim
        covariance = patch_matrix(field_of(self.spectrum, dim), patch)
        if self.mean is None:
            return covariance.new_zeros(len(patch)), covariance
        mean = field_of(self.mean, dim)
        return torch.stack([mean[tuple(site)] for site in patch]), covariance

    def site(self, site: tuple[int, ...]) -> Normal:
        """Law of one site."""
        mean, covariance = self.patch([site])
        return Normal(float(mean), math.sqrt(float(covariance)))


def absolute_mean(mean: Tensor | None, std: Tensor) -> Tensor:
    r""":math:`E|N(\mu, s^2)| = s\sqrt{2/\pi}\,e^{-\mu^2/2s^2} + |\mu|\,\mathrm{erf}(|\mu|/(s\sqrt2))`."""
    if mean is None:
        return std * math.sqrt(2 / math.pi)
    ratio = mean.abs() / std.clamp_min(torch.finfo(std.dtype).tiny)
    return std * math.sqrt(2 / math.pi) * torch.exp(-0.5 * ratio**2) + mean.abs() * torch.erf(ratio / math.sqrt(2))


def linear_score(student: Student, context: Context, *, sigma: tuple[float, float]) -> LinearScore:
    """The linear score of a student of one channel on a torus, found by probing it with an impulse.

    Args:
        student: any student; it is probed at the origin, and checked with random fields at both ends of the range.
        context: the context of one field.
        sigma: the smallest and the largest noise level that matter.

    Raises:
        NotLinearError: the student's score is not ``beta - A x`` with a circulant A and a uniform beta.
    """
    shape = context.domain.shape
    found = LinearScore(
        lambda v: _probe(student, context, v)[0],
        lambda v: _probe(student, context, v)[1].reshape(-1, *(1,) * len(shape)),
    )
    _check_linear(student, context, found, torch.tensor([sigma[0], math.sqrt(sigma[0] * sigma[1]), sigma[1]]).double())
    return found


def _score(student: Student, context: Context, x: Tensor, sigma: Tensor) -> Tensor:
    """The student's score of fields ``(V, *S)`` in float64 or, if its weights are of another type, in theirs."""
    weights = next(student.parameters(), None)
    like = x if weights is None else weights
    fields = x[:, None].to(like)
    with torch.no_grad():
        score: Tensor = student(fields, sigma.to(like), context.to(fields))
    return score[:, 0].to(x)


def _probe(student: Student, context: Context, v: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of A and uniform bias at variances ``v``."""
    shape = context.domain.shape
    impulse = torch.zeros(len(v), *shape, dtype=v.dtype, device=v.device)
    offset = _score(student, context, impulse, v.sqrt())
    impulse.flatten(1)[:, 0] = 1
    kernel = offset - _score(student, context, impulse, v.sqrt())
    return torch.fft.fftn(kernel, dim=axes_of(kernel, len(shape))), offset.flatten(1).mean(1)


def _check_linear(student: Student, context: Context, found: LinearScore, sigma: Tensor) -> None:
    shape = context.domain.shape
    v = sigma**2
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(v), *shape, generator=generator, dtype=torch.float64)
    x = x * (1 + sigma).reshape(-1, *(1,) * len(shape))
    actual = _score(student, context, x, sigma)
    a = found.spectrum(v)
    product = field_of(a * torch.fft.fftn(x, dim=axes_of(x, len(shape))), len(shape))
    expected = (0.0 if found.bias is None else found.bias(v)) - product
    weights = next(student.parameters(), x)
    tolerance = 100 * torch.finfo(weights.dtype).eps * float(x.abs().max()) * float(a.abs().max())
    worst = float((actual - expected).abs().max())
    if not worst <= tolerance:
        raise NotLinearError(
            "The student's score is not linear and translation-invariant.",
            where=type(student).__name__,
            expected="s(x) = beta - A x with a circulant A, for the exact form of Theorem 1",
            got=f"a difference of {worst:.3g} from its response to an impulse",
            fix='use method="monte-carlo"',
        )
