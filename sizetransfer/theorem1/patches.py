r"""Enclosures of the bounded-Lipschitz distance between laws of a patch: Gaussian, or known by samples.

Between Gaussians :math:`P = N(\mu, \Sigma)` and :math:`Q = N(\mu', \Sigma')` of n > 1 dimensions:

- below, by projection: :math:`x \mapsto \varphi(u\cdot x)` is a test function for every unit vector u, and the
  projected distance is enclosed to rounding; the best of a few natural directions is taken;
- above, by the smallest of 2, a coupling, :math:`W_2 \le \|\Sigma^{1/2} - \Sigma'^{1/2}U\|_F` for *any* rotation U
  (the polar factor of :math:`\Sigma'^{1/2}\Sigma^{1/2}` gives the Bures distance, without cancellation), and
  :math:`\|p - q\|_1 \le \sqrt{2\,\mathrm{KL}}` (Pinsker), in both orders.

Between samples: below, a test function chosen on one half and evaluated on the other; above, on the line the exact
distance between the two empirical laws, which is biased upwards, and in more dimensions a pairing of the samples.
"""

from __future__ import annotations

import math
from bisect import insort

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.errors import OracleError
from sizetransfer.numerics.statistics import error_of_mean
from sizetransfer.theorem1.distance import Normal, TestFunction, bounded_lipschitz, optimal_test_function
from sizetransfer.theorem1.quantities import Enclosure

GaussianLaw = tuple[Tensor, Tensor]
"""Mean ``(n,)`` and covariance ``(n, n)`` of a Gaussian on a patch."""


def gaussian_distance(first: GaussianLaw, second: GaussianLaw) -> Enclosure:
    r"""Bounded-Lipschitz distance between two Gaussian laws of a patch.

    Args:
        first: mean ``(n,)`` and covariance ``(n, n)``, in float64.
        second: likewise.

    Returns:
        A certificate: to rounding for n = 1, from projections and couplings otherwise.

    Raises:
        OracleError: a covariance is not positive definite or the shapes differ.
    """
    for law in (first, second):
        _check_law(law, first[0].shape[0])
    if first[0].shape[0] == 1:
        one, other = (Normal(float(mean), math.sqrt(float(covariance))) for mean, covariance in (first, second))
        return bounded_lipschitz(one, other)
    lower = _projected(first, second, _best_direction(first, second)).lower
    upper = min(2.0, _coupling(first, second), _pinsker(first, second), _pinsker(second, first))
    return Enclosure(lower, max(lower, upper))


def _check_law(law: GaussianLaw, size: int) -> None:
    mean, covariance = law
    if mean.shape != (size,) or covariance.shape != (size, size) or not torch.linalg.cholesky_ex(covariance)[1] == 0:
        raise OracleError(
            "The law of a patch is no Gaussian with a density.",
            where="gaussian_distance(first, second)",
            expected=f"a mean of shape ({size},) and a positive definite covariance of shape ({size}, {size})",
            got=f"shapes {tuple(mean.shape)} and {tuple(covariance.shape)}",
            fix="check the patch, the variances and that no site occurs twice",
        )


def _projected(first: GaussianLaw, second: GaussianLaw, u: Tensor) -> Enclosure:
    return bounded_lipschitz(*(_project(law, u) for law in (first, second)))


def _project(law: GaussianLaw, u: Tensor) -> Normal:
    mean, covariance = law
    return Normal(float(u @ mean), math.sqrt(float(u @ covariance @ u)))


def _directions(first: GaussianLaw, second: GaussianLaw) -> Tensor:
    """Unit vectors along which the laws may differ most, as rows: axes, principal axes, the difference of means."""
    (mean, covariance), (other_mean, other) = first, second
    relative = torch.linalg.solve(covariance + other, mean - other_mean)
    factor = torch.linalg.cholesky(covariance)
    whitened = torch.linalg.solve_triangular(factor, other, upper=False)
    whitened = torch.linalg.solve_triangular(factor, whitened.T, upper=False)
    generalised = torch.linalg.solve_triangular(factor.T, torch.linalg.eigh(whitened)[1], upper=True)
    rows = [
        torch.eye(len(mean), dtype=mean.dtype, device=mean.device),
        torch.linalg.eigh(covariance - other)[1].T,
        generalised.T,
        torch.stack([mean - other_mean, relative]),
    ]
    candidates = torch.cat(rows)
    norms = torch.linalg.vector_norm(candidates, dim=1)
    unit: Tensor = candidates[norms > 0] / norms[norms > 0, None]
    return unit


def _best_direction(first: GaussianLaw, second: GaussianLaw) -> Tensor:
    rows: list[Tensor] = list(_directions(first, second))
    return max(rows, key=lambda u: _projected(first, second, u).lower)


def _square_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


def _coupling(first: GaussianLaw, second: GaussianLaw) -> float:
    """Root mean square distance of two coupled vectors: the 2-Wasserstein (Bures) distance, to rounding."""
    roots = [_square_root(covariance) for _, covariance in (first, second)]
    left, _, right = torch.linalg.svd(roots[1] @ roots[0])
    squared = (roots[0] - roots[1] @ (left @ right)).square().sum() + (first[0] - second[0]).square().sum()
    rounding = 64 * torch.finfo(squared.dtype).eps * float(sum(root.norm() for root in roots))
    return math.sqrt(float(squared)) + rounding


def _pinsker(first: GaussianLaw, second: GaussianLaw) -> float:
    """Return sqrt(2 KL(first, second)); the eigenvalues enter as differences from one, so close laws keep digits."""
    factor = torch.linalg.cholesky(second[1])
    scaled = torch.linalg.solve_triangular(factor, first[1] - second[1], upper=False)
    scaled = torch.linalg.solve_triangular(factor, scaled.T, upper=False)
    excess = torch.linalg.eigvalsh(0.5 * (scaled + scaled.T)).clamp_min(-1 + 1e-300)
    shift = torch.linalg.solve_triangular(factor, (first[0] - second[0])[:, None], upper=False)
    divergence = (excess - torch.log1p(excess)).sum() + shift.square().sum()
    rounding = 64 * torch.finfo(excess.dtype).eps * float(excess.abs().sum())
    return math.sqrt(max(0.0, float(divergence)) + rounding)


def empirical_distance(first: Tensor, second: Tensor) -> Enclosure:
    """Bounded-Lipschitz distance between two laws known by independent samples: an estimate.

    The lower side has no bias below the best projection that Gaussian fits suggest; its standard error is in the
    result. The upper side is that of the empirical laws: for few samples, mostly their scatter.

    Args:
        first: independent samples ``(m, n)`` of one law, one a row, columns the sites of the patch.
        second: samples ``(k, n)`` of the other; as many as of the first if n > 1.

    Raises:
        OracleError: fewer than four samples, samples that are not finite, or shapes that do not fit.
    """
    _check_samples(first, second)
    lower, standard_error = _held_out(first.double(), second.double())
    if first.shape[1] == 1:
        upper = empirical_line_distance(first[:, 0], second[:, 0])
    else:
        upper = _paired(first.double(), second.double())
    return Enclosure(max(0.0, min(lower, upper)), upper, "estimate", standard_error)


def _check_samples(first: Tensor, second: Tensor) -> None:
    fits = first.ndim == second.ndim == 2 and first.shape[1] == second.shape[1] > 0
    enough = fits and min(len(first), len(second)) >= 4 and (first.shape[1] == 1 or len(first) == len(second))
    if not (enough and first.isfinite().all() and second.isfinite().all()):
        raise OracleError(
            "The samples of two patch laws cannot be compared.",
            where="empirical_distance(first, second)",
            expected="finite samples (m, n) and (k, n) of the same n sites, at least four each; m = k if n > 1",
            got=f"shapes {tuple(first.shape)} and {tuple(second.shape)}",
            fix="pass independent samples as rows and the sites of the patch as columns",
        )


def _held_out(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Difference of the means of a test function on samples that did not choose it, and its standard error."""
    laws = (_fit(first[::2]), _fit(second[::2]))
    u = _best_direction(*laws)
    projections = [_project(law, u) for law in laws]
    if projections[0] == projections[1]:
        return 0.0, 0.0
    test = optimal_test_function(*projections)
    values = [_evaluate(test, samples[1::2] @ u) for samples in (first, second)]
    sign = 1.0 if projections[0].std <= projections[1].std else -1.0
    standard_error = math.hypot(*(float(error_of_mean(v)) for v in values))
    return sign * float(values[0].mean() - values[1].mean()), standard_error


def _fit(samples: Tensor) -> GaussianLaw:
    centred = samples - samples.mean(0)
    covariance = centred.T @ centred / len(samples)
    floor = 1e-12 * covariance.diagonal().mean().clamp_min(1e-300)
    return samples.mean(0), covariance + floor * torch.eye(len(covariance), dtype=samples.dtype, device=samples.device)


def _evaluate(test: TestFunction, x: Tensor) -> Tensor:
    return torch.minimum((x - test.rise).clamp(-1, 1), (test.fall - x).clamp(-1, 1))


def _paired(first: Tensor, second: Tensor) -> float:
    """Mean of min(distance, 2) after pairing both samples in the order of their most different projection."""
    u = _best_direction(_fit(first), _fit(second))
    ordered = [samples[(samples @ u).argsort()] for samples in (first, second)]
    return float(torch.linalg.vector_norm(ordered[0] - ordered[1], dim=1).clamp_max(2).mean())


def empirical_line_distance(first: Float[Tensor, "m"], second: Float[Tensor, "k"]) -> float:
    r"""Exact bounded-Lipschitz distance between two empirical laws on the line.

    The dual, :math:`\min_w \sum_i |\mu_i - (w_i - w_{i-1})| + \sum_i h_i|w_i|` for signed masses :math:`\mu_i` at
    gaps :math:`h_i`, by dynamic programming: the cost as a function of :math:`w_i` is convex, piecewise linear, of
    slopes between -1 and 1, and is kept as the list of its kinks.

    Args:
        first: samples of one law.
        second: samples of the other.
    """
    first, second = first.double(), second.double()
    points = torch.cat([first, second])
    masses = torch.cat([torch.full_like(s, sign / len(s)) for s, sign in ((first, 1.0), (second, -1.0))])
    order = points.argsort()
    gaps = points[order].diff().tolist()
    cost = _Cost()
    for mass, gap in zip(masses[order].tolist(), [*gaps, 0.0], strict=True):
        cost.carry(mass)
        cost.pay(gap)
    return cost.at_zero()


class _Cost:
    """A convex piecewise linear function of slopes -1 to 1: kinks ``(position - offset, change of slope)``."""

    def __init__(self) -> None:
        self.kinks: list[tuple[float, float]] = [(0.0, 2.0)]
        self.offset = 0.0
        self.constant = 0.0  # the function is constant - w to the left of every kink

    def carry(self, mass: float) -> None:
        """Add ``mass`` to w: nothing, or a slope of one, is gained by not carrying part of it."""
        self.offset += mass
        self.constant += mass

    def pay(self, gap: float) -> None:
        """Add ``gap * |w|`` and cut the slopes at -1 and 1, where it is cheaper to give w up."""
        insort(self.kinks, (-self.offset, 2 * gap))
        self.constant -= self._trim(0, gap)
        self._trim(-1, gap)

    def _trim(self, end: int, slope: float) -> float:
        """Remove a total change of ``slope`` from one end; return the moment of what was removed."""
        moment = 0.0
        while slope > 0 and self.kinks:
            position, change = self.kinks[end]
            removed = min(slope, change)
            moment += removed * (position + self.offset)
            slope -= removed
            if removed < change:
                self.kinks[end] = (position, change - removed)
            else:
                del self.kinks[end]
        return moment

    def at_zero(self) -> float:
        """Value at w = 0."""
        positions = ((position + self.offset, change) for position, change in self.kinks)
        return self.constant + sum(-position * change for position, change in positions if position < 0)
