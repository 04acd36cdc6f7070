r"""Small Ising models with exact posteriors by enumeration: the influence certificates, at drawn fields.

Weight :math:`e^{\beta\sum s_is_j}` over nearest neighbours of a torus, every site owning a bond along each axis, so
that a period of two has double bonds. Noise of variance v gives the posterior
:math:`P(s|x)\propto e^{\beta\sum s_is_j + x\cdot s/v}`: :math:`2^N` terms.

The truth that a certificate is held against is the supremum over test functions of the patch of
:math:`|\partial_i E[\varphi(X_{v_m,A})|X_v = x]|`: for one site by the bounded-Lipschitz norm of a density on the line,
for two from below, by test functions of one direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from sizetransfer.contracts.quantity import Quantity
from sizetransfer.theorem1 import covariance_weights, dobrushin_bound, ising_budget, ising_weights
from sizetransfer_verification.theorem.claim import Claim, Comparison, Configuration, numeric
from sizetransfer_verification.theorem.influence import mixture_influence
from sizetransfer_verification.theorem.line import Array

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

PANELS = 8
"""Panels, of eight Gauss–Legendre nodes each, of the integral over ln v."""


@dataclass(frozen=True)
class IsingConfiguration(Configuration):
    """A small Ising model, a noisy field and two variances.

    Attributes:
        shape: sites along each axis of the torus; its product is the length of ``x`` that counts.
        beta: coupling of each bond.
        pair: whether the patch is the first two sites, else the first.
        vm: last variance.
        ratio: variance at which the influence is felt, in units of ``vm``.
        x: the noisy field in units of its variance: the fields h = x/v that act on the spins, padded with more than
            enough.
    """

    family: ClassVar[str] = "ising"

    shape: tuple[int, ...] = (3,)
    beta: float = 0.5
    pair: bool = False
    vm: float = 0.1
    ratio: float = 2.0
    x: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)

    @property
    def sites(self) -> int:
        """Number of spins."""
        return math.prod(self.shape)

    @property
    def v(self) -> float:
        """Variance at which the influence is felt."""
        return self.vm * self.ratio

    @property
    def field(self) -> Array:
        """The fields h = x/v."""
        return np.array(self.x[: self.sites])

    @property
    def patch(self) -> list[tuple[int, ...]]:
        """The sites A."""
        return [tuple(map(int, np.unravel_index(n, self.shape))) for n in self.places]

    @property
    def places(self) -> list[int]:
        """The patch as indices of sites."""
        return [0, 1] if self.pair else [0]

    @cached_property
    def spins(self) -> Array:
        """All configurations, ``(2^N, N)``."""
        bits = np.arange(2**self.sites)[:, None] >> np.arange(self.sites)
        return (2 * (bits & 1) - 1).astype(np.float64)

    @cached_property
    def _bonds(self) -> Array:
        spins = self.spins.reshape(-1, *self.shape)
        energies: Array = sum(
            (spins * np.roll(spins, -1, axis)).reshape(len(spins), -1).sum(1) for axis in range(1, spins.ndim)
        )
        return energies

    def posterior(self, field: Array, beta: float | None = None) -> Array:
        """Probabilities of all configurations at fields h, ``(2^N,)``."""
        logits = (self.beta if beta is None else beta) * self._bonds + self.spins @ field
        weights = np.exp(logits - logits.max())
        found: Array = weights / weights.sum()
        return found

    def covariance(self, field: Array, beta: float | None = None) -> Array:
        """Covariances between all spins at fields h, ``(N, N)``."""
        weights = self.posterior(field, beta)
        apart = self.spins - weights @ self.spins
        found: Array = (weights[:, None] * apart).T @ apart
        return found

    def correlation(self, beta: float | None = None) -> Array:
        """G, without field."""
        return self.covariance(np.zeros(self.sites), beta)


def influence(one: IsingConfiguration, site: int) -> Quantity:
    """The most that a test function of the patch, along the best of a few directions, changes with one site."""
    weights = one.posterior(one.field)
    apart = one.spins[:, site] - float(weights @ one.spins[:, site])
    share, on_patch = one.vm / one.v, one.spins[:, one.places]
    end = on_patch * (1 - share) + share * one.v * one.field[one.places]
    std = math.sqrt(one.vm * (1 - share))
    directions = (
        [np.ones(1)] if not one.pair else [np.array(u) for u in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, -1.0))]
    )
    found = []
    for direction in directions:
        u = direction / np.linalg.norm(direction)
        shift = share * float(u[one.places.index(site)]) if site in one.places else 0.0
        means, inverse = np.unique(np.round(end @ u, 12), return_inverse=True)
        changes, grouped = (np.bincount(inverse, values).astype(float) for values in (weights * apart / one.v, weights))
        found.append(mixture_influence(means, changes, grouped, shift, std))
    return max(found, key=lambda quantity: quantity.value)


def _against(one: IsingConfiguration, claimed: Array) -> Comparison:
    """The site whose influence is largest in units of its claimed weight."""
    found = [Comparison(influence(one, site), numeric(float(claimed[site]))) for site in range(one.sites)]
    return max(found, key=lambda comparison: comparison.ratio)


def _posterior_weights(one: IsingConfiguration, covariance: Array | None = None, own: float = 1.0) -> Array:
    """The shipped certificate of associated posteriors, from given covariances of the patch with all sites."""
    rows = one.covariance(one.field)[one.places].sum(0) if covariance is None else covariance
    inside = torch.zeros(one.sites, dtype=torch.float64)
    inside[one.places] = own
    v = torch.tensor(one.v, dtype=torch.float64)
    weights: Array = covariance_weights(torch.from_numpy(rows), inside, v, one.vm).numpy()
    return weights


def _uniform_weights(one: IsingConfiguration, beta: float | None = None) -> Array:
    """The shipped certificate for all fields."""
    rows = one.correlation(beta)[one.places].reshape(-1, *one.shape)
    v = torch.tensor([one.v], dtype=torch.float64)
    weights: Array = ising_weights(torch.from_numpy(rows.copy()), one.patch, v, one.vm)[0].flatten().numpy()
    return weights


def _without_neighbours(one: IsingConfiguration) -> Comparison:
    rows = one.covariance(one.field)[one.places].sum(0)
    outside = [site for site in range(one.sites) if site not in one.places]
    rows[outside] = 0
    return _against(one, _posterior_weights(one, rows))


def _correlations(one: IsingConfiguration, upper: Array) -> Comparison:
    """The pair of spins whose covariance at the field, of either sign, is largest in units of what is claimed."""
    covariance = np.abs(one.covariance(one.field))
    worst = int(np.argmax(covariance / np.maximum(upper, 1e-300)))
    return Comparison(numeric(float(covariance.ravel()[worst])), numeric(float(upper.ravel()[worst])))


def _association(one: IsingConfiguration) -> Comparison:
    # The most negative covariance, on a scale on which equality is one.
    return Comparison(numeric(1 - float(one.covariance(one.field).min())), numeric(1.0))


def _dobrushin(one: IsingConfiguration) -> Comparison:
    upper = dobrushin_bound(one.beta, one.shape).correlation.flatten().numpy()
    exact = one.correlation()[0]
    worst = int(np.argmax(exact / upper))
    return Comparison(numeric(float(exact[worst])), numeric(float(upper[worst])))


def _budget(one: IsingConfiguration, susceptibility: float) -> Comparison:
    """Integral of the summed weights of associated posteriors, the field x being the same at all variances."""
    found = 0.0
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(math.log(one.vm), math.log(one.v), PANELS + 1)
    half = 0.5 * (edges[1] - edges[0])
    for time, weight in zip(
        (edges[:-1, None] + half * (nodes + 1)).ravel(), np.tile(half * weights, PANELS), strict=True
    ):
        v = math.exp(time)
        field = one.field * one.v / v
        rows = one.covariance(field)[one.places].sum()
        found += weight * v * ((1 - one.vm / v) / v * float(rows) + len(one.places) * one.vm / v)
    bound = ising_budget(susceptibility, one.vm, one.v, sites=len(one.places)).value
    return Comparison(numeric(found, 1e-9 * found), numeric(bound, 1e-9 * bound))


def configurations(*, antiferromagnet: bool = False, dobrushin: bool = False) -> SearchStrategy[IsingConfiguration]:
    """Strategy of models and fields; the simplest field is none."""
    from hypothesis import strategies as st

    betas = (0.1, 0.2, 0.24) if dobrushin else (0.5, 0.1, 0.2, 1.0, 2.0)
    return st.builds(
        IsingConfiguration,
        st.sampled_from(((3,), (4,)) if dobrushin else ((3,), (2,), (4,), (2, 2))),
        beta=st.sampled_from([-beta for beta in betas] if antiferromagnet else betas),
        pair=st.booleans(),
        vm=st.sampled_from((0.1, 0.01, 0.5)),
        ratio=st.sampled_from((2.0, 10.0, 100.0)),
        x=st.tuples(*[st.sampled_from((0.0, 0.1, -0.1, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0))] * 4),
    )


def ising_claims() -> tuple[Claim[IsingConfiguration], ...]:
    """The claims, true ones first."""

    def susceptibility(one: IsingConfiguration, beta: float | None = None) -> float:
        return float(one.correlation(beta)[0].sum())

    return (
        Claim(
            "ising-weights",
            "No test function of a patch changes faster with a site than the weight of the posterior covariance.",
            configurations,
            lambda one: _against(one, _posterior_weights(one)),
        ),
        Claim(
            "ising-association", "Spins are never negatively correlated, in any field.", configurations, _association
        ),
        Claim(
            "ising-all-fields",
            "Covariances in a field are at most the correlations without one.",
            configurations,
            lambda one: _correlations(one, one.correlation()),
        ),
        Claim(
            "ising-uniform-weights",
            "The weights of the correlations without field hold for every field.",
            configurations,
            lambda one: _against(one, _uniform_weights(one)),
        ),
        Claim(
            "ising-budget",
            "The weights of one field sum to at most the budget of the susceptibility.",
            configurations,
            lambda one: _budget(one, susceptibility(one)),
        ),
        Claim(
            "ising-dobrushin",
            "Correlations are at most their Dobrushin bound.",
            lambda: configurations(dobrushin=True),
            _dobrushin,
        ),
        *_careless(susceptibility),
    )


def _careless(susceptibility: Callable[..., float]) -> tuple[Claim[IsingConfiguration], ...]:
    return (
        Claim(
            "ising-weights/missing-weight",
            "Only the sites of the patch influence it.",
            configurations,
            _without_neighbours,
            mistake="the weights of all other sites are missing",
        ),
        Claim(
            "ising-weights/own-noise",
            "The noise of the patch itself has no influence.",
            configurations,
            lambda one: _against(one, _posterior_weights(one, own=0.0)),
            mistake="the term vm/v is missing",
        ),
        Claim(
            "ising-all-fields/temperature",
            "Covariances in a field are at most the correlations at half the coupling.",
            configurations,
            lambda one: _correlations(one, one.correlation(0.5 * one.beta)),
            mistake="correlations of another temperature",
        ),
        Claim(
            "ising-all-fields/sign",
            "Covariances of an antiferromagnet in a field are at most its correlations without one, signs aside.",
            lambda: configurations(antiferromagnet=True),
            lambda one: _correlations(one, np.abs(one.correlation())),
            mistake="the couplings are not ferromagnetic",
        ),
        Claim(
            "ising-uniform-weights/temperature",
            "The weights of the correlations at half the coupling hold for every field.",
            configurations,
            lambda one: _against(one, _uniform_weights(one, 0.5 * one.beta)),
            mistake="correlations of another temperature",
        ),
        Claim(
            "ising-budget/one-site",
            "A drift error costs what it does at its own site.",
            configurations,
            lambda one: _budget(one, 1.0),
            mistake="the susceptibility is that of independent spins",
        ),
    )
