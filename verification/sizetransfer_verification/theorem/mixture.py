r"""Reverse processes of finite-support priors, with learned scores that are no longer linear: solved by quadrature.

The prior lives on one site or two: each takes one of a few levels, with
:math:`P(a) \propto \prod_i p(a_i)\,e^{J a_1 a_2}`, :math:`J\ge0`. Every posterior of it is finite, so score, posterior
covariance and the exact reverse kernel are sums over atoms. Posteriors are associated (Fortuin, Kasteleyn, Ginibre), so
the influence weights
:math:`\tfrac{v_m}v 1\{i\in A\} + \tfrac1v(1-\tfrac{v_m}v)\sum_{a\in A}\mathrm{Cov}(X_{0a}, X_{0i}|x)` are
certificates. The patch A is the first site or both; of two, the distance is known from below, by projections, and the
start is exact. The learned score is the exact one, or that of a site which sees only itself, times
1 + g, plus a bias and a ripple, :math:`(b + r\sin 3x_i)/(1+v)`.

Laws are carried from step to step on uniform grids. The integrands are products of Gaussians, for which the trapezoidal
rule errs by :math:`e^{-2\pi^2(w/h)^2}`, w being their width and h the spacing. Absolute errors in the drift are
averaged over Gauss nodes of the noise, those of either sign by themselves, since the error changes its sign near zero
noise, and Gauss–Legendre nodes in time. Everything is computed at two resolutions; twice the difference is the stated
error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar, Literal

import numpy as np

from sizetransfer_verification.theorem.claim import Configuration
from sizetransfer_verification.theorem.line import Array, atom_masses, hat_masses, normal_density, signed_norm

NEGLIGIBLE = 1e-12
"""Probability of a grid point below which it is left out."""


@dataclass(frozen=True)
class MixtureConfiguration(Configuration):
    """A finite-support prior, a learned score and a sampler.

    Attributes:
        levels: values that a site takes, increasing.
        weights: their probabilities without coupling, up to a factor.
        sites: one or two.
        coupling: J.
        pair: whether the patch is both sites, else the first.
        vm: last variance.
        vx: first variance.
        sampler: kind of step.
        steps: their number, equally spaced in ln v.
        start: the learned process starts from the exact law of variance vx, or from N(0, vx).
        local: whether a site sees only itself.
        bias: b.
        gain: g.
        ripple: r.
    """

    family: ClassVar[str] = "mixture"

    levels: tuple[float, ...] = (-1.0, 1.0)
    weights: tuple[float, ...] = (1.0, 1.0)
    sites: int = 1
    coupling: float = 0.0
    pair: bool = False
    vm: float = 0.5
    vx: float = 2.0
    sampler: Literal["euler", "ancestral"] = "euler"
    steps: int = 1
    start: Literal["exact", "white"] = "exact"
    local: bool = False
    bias: float = 0.0
    gain: float = 0.0
    ripple: float = 0.0

    @cached_property
    def prior(self) -> Prior:
        """The prior."""
        pairs = list(itertools.product(range(len(self.levels)), repeat=self.sites))
        atoms = np.array([[self.levels[i] for i in pair] for pair in pairs])
        logs = np.array([sum(math.log(self.weights[i]) for i in pair) for pair in pairs])
        logs = logs + (self.coupling * atoms.prod(1) if self.sites == 2 else 0.0)
        return Prior(atoms, logs - np.logaddexp.reduce(logs))

    @cached_property
    def site_prior(self) -> Prior:
        """The law of one site alone."""
        values = np.array(self.levels)
        logs = [np.logaddexp.reduce(self.prior.logs[self.prior.atoms[:, 0] == value]) for value in values]
        return Prior(values[:, None], np.array(logs))

    @property
    def places(self) -> list[int]:
        """The patch."""
        return [0, 1] if self.pair else [0]

    @property
    def directions(self) -> list[Array]:
        """Unit vectors of all sites, within the patch, along which laws are compared."""
        if self.pair:
            return [np.array([1.0, 1.0]) / math.sqrt(2), np.array([1.0, -1.0]) / math.sqrt(2)]
        return [np.eye(self.sites)[0]]

    def exact_score(self, x: Array, v: float) -> Array:
        """Score of the noisy prior, ``(P, d)``."""
        score: Array = (self.prior.mean(x, v) - x) / v
        return score

    def local_score(self, x: Array, v: float) -> Array:
        """Score of every site's marginal."""
        columns = [self.site_prior.mean(x[:, [i]], v) for i in range(self.sites)]
        score: Array = (np.concatenate(columns, 1) - x) / v
        return score

    def learned_score(self, x: Array, v: float) -> Array:
        """The student's."""
        best = self.local_score(x, v) if self.local else self.exact_score(x, v)
        score: Array = (1 + self.gain) * best + (self.bias + self.ripple * np.sin(3 * x)) / (1 + v)
        return score

    def noise(self, v: float, after: float) -> tuple[float, float]:
        """Factor of the score and deviation of the noise of a step of the reverse SDE."""
        if self.sampler == "euler":
            return v - after, math.sqrt(v - after)
        added = (v - after) * after / v
        return v * (1 - math.sqrt(max(0.0, after - added) / v)), math.sqrt(added)

    def variances(self) -> list[float]:
        """Variances of the steps."""
        levels: list[float] = np.geomspace(self.vx, self.vm, self.steps + 1).tolist()
        return levels


@dataclass(frozen=True)
class Prior:
    """A finite law.

    Attributes:
        atoms: ``(K, d)``.
        logs: logarithms of their probabilities, ``(K,)``.
    """

    atoms: Array
    logs: Array

    def posterior(self, x: Array, v: float) -> Array:
        """Probabilities of the atoms given noisy values ``(P, d)``: ``(P, K)``."""
        logits = self.logs - (self.atoms**2).sum(1) / (2 * v) + x @ (self.atoms.T / v)
        logits -= logits.max(1, keepdims=True)
        weights = np.exp(logits, out=logits)
        weights /= weights.sum(1, keepdims=True)
        found: Array = weights
        return found

    def mean(self, x: Array, v: float) -> Array:
        """Posterior mean, ``(P, d)``."""
        mean: Array = self.posterior(x, v) @ self.atoms
        return mean

    def moments(self, x: Array, v: float, patch: list[int]) -> tuple[Array, Array]:
        """Posterior mean, and the sum over a patch of covariances with all sites, ``(P, d)`` each."""
        weights = self.posterior(x, v)
        mean: Array = weights @ self.atoms
        # About the middle of the atoms, so that little cancels.
        centred = self.atoms - self.atoms.mean(0)
        shifted = mean - self.atoms.mean(0)
        products = weights @ (centred[:, patch].sum(1, keepdims=True) * centred)
        return mean, products - shifted[:, patch].sum(1, keepdims=True) * shifted

    def noisy(self, y: Array, v: float, direction: Array) -> Array:
        """Density along a direction with noise of variance v, at ``(n,)``."""
        density: Array = normal_density(y[:, None], self.atoms @ direction, math.sqrt(v)) @ np.exp(self.logs)
        return density


def influence(covariance: Array, v: float, vm: float, patch: list[int]) -> Array:
    """Certified weights of all sites on the law of a patch, from its posterior covariances ``(P, d)``."""
    weights: Array = (1 - vm / v) / v * covariance
    weights[:, patch] += vm / v
    return weights


@dataclass(frozen=True)
class Resolution:
    """How finely to integrate.

    Attributes:
        width: narrowest Gaussian width of an integrand in units of the grid spacing.
        noise: Gauss nodes of either sign of the noise of a site.
        times: Gauss–Legendre nodes for each factor of two of the variance.
        line: points of the grid on which laws of the patch are compared.
    """

    width: float
    noise: int
    times: int
    line: int


FINE = {1: Resolution(4.0, 16, 5, 900), 2: Resolution(1.0, 4, 3, 900)}
COARSE = {1: Resolution(2.5, 10, 3, 600), 2: Resolution(0.85, 3, 2, 600)}
"""Resolutions by the number of sites; finer than smooth integrands need, for the sake of absolute values."""


@dataclass(frozen=True)
class Step:
    """A step of the learned process, and its law before it.

    Attributes:
        v: variance before.
        after: variance after.
        x: points, ``(P, d)``.
        probability: their probabilities, ``(P,)``.
    """

    v: float
    after: float
    x: Array
    probability: Array

    def without_tails(self) -> Step:
        """The step without points that together hold a millionth of the probability at most."""
        keep = self.probability > 1e-6 / len(self.probability)
        return Step(self.v, self.after, self.x[keep], self.probability[keep])


@dataclass(frozen=True)
class MixtureProcess:
    """The learned process of a configuration at one resolution."""

    configuration: MixtureConfiguration
    resolution: Resolution

    @cached_property
    def steps(self) -> list[Step]:
        """All steps."""
        one, found = self.configuration, []
        levels = one.variances()
        grid = self._first_grid()
        for n, (v, after) in enumerate(itertools.pairwise(levels)):
            keep = grid[1] > NEGLIGIBLE
            found.append(Step(v, after, grid[0][keep], grid[1][keep] / grid[1][keep].sum()))
            if n + 2 < len(levels):
                grid = self._carried(found[-1], levels[n + 2])
        return found

    def _first_grid(self) -> tuple[Array, Array]:
        """Points and probabilities of the law at vx."""
        one, levels = self.configuration, self.configuration.variances()
        atoms, logs = (
            (one.prior.atoms, one.prior.logs) if one.start == "exact" else (np.zeros((1, one.sites)), np.zeros(1))
        )
        std = math.sqrt(one.vx)
        low, high = atoms.min() - 7.5 * std, atoms.max() + 7.5 * std
        axis = self._axis(low, high, std, levels[0], levels[1])
        columns = [normal_density(axis[:, None], atoms[:, i], std) for i in range(one.sites)]
        return self._product(axis, columns, np.exp(logs))

    def _axis(self, low: float, high: float, std: float, v: float, after: float) -> Array:
        """A uniform grid fit for a law of width ``std`` and the step from ``v`` to ``after``."""
        one = self.configuration
        length, noise = one.noise(v, after)
        line = np.linspace(low, high, 400)
        steepest = 1.0
        for first in [line] if one.sites == 1 else [np.full_like(line, level) for level in one.levels]:
            x = np.stack([line, first], 1)[:, : one.sites]
            moved = x[:, 0] + length * one.learned_score(x, v)[:, 0]
            steepest = max(steepest, float(np.abs(np.gradient(moved, line)).max()))
        width = 1 / math.sqrt(1 / std**2 + (steepest / noise) ** 2)
        return np.linspace(low, high, math.ceil((high - low) * self.resolution.width / width) + 2)

    def _product(self, axis: Array, columns: list[Array], weights: Array) -> tuple[Array, Array]:
        """Points and probabilities of the mixture of products of ``columns[i][:, k]`` with these weights."""
        spacing = float(axis[1] - axis[0])
        if len(columns) == 1:
            return axis[:, None], spacing * columns[0] @ weights
        density = (columns[0] * weights) @ columns[1].T
        points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        return points, spacing**2 * density.ravel()

    def moved(self, step: Step) -> tuple[Array, float]:
        """Means after a step, ``(P, d)``, and the deviation of its noise."""
        length, noise = self.configuration.noise(step.v, step.after)
        return step.x + length * self.configuration.learned_score(step.x, step.v), noise

    def _carried(self, step: Step, then: float) -> tuple[Array, Array]:
        """The law after a step, on a grid fit for the next step."""
        mean, noise = self.moved(step)
        low, high = mean.min() - 7.5 * noise, mean.max() + 7.5 * noise
        axis = self._axis(float(low), float(high), noise, step.after, then)
        columns = [normal_density(axis[:, None], mean[:, i], noise) for i in range(mean.shape[1])]
        return self._product(axis, columns, step.probability)

    def final(self, y: Array, direction: Array) -> Array:
        """Density along a direction at the end."""
        step = self.steps[-1]
        mean, noise = self.moved(step)
        density: Array = normal_density(y[:, None], mean @ direction, noise) @ step.probability
        return density

    def reached(self, y: Array) -> Array:
        """Density of the first site when the exact process starts from the learned initial law."""
        one, first = self.configuration, self.steps[0]
        share = one.vm / one.vx
        weights = one.prior.posterior(first.x, one.vx) * first.probability[:, None]
        means = one.prior.atoms[:, 0] * (1 - share) + share * first.x[:, :1]
        std = math.sqrt(one.vm * (1 - share))
        density: Array = normal_density(y[:, None], means.ravel(), std) @ weights.ravel()
        return density

    def _line(self, direction: Array) -> Array:
        """Points on which laws of the patch are compared."""
        step = self.steps[-1]
        mean, noise = self.moved(step)
        std = max(noise, math.sqrt(self.configuration.vm))
        places = np.concatenate([mean @ direction, self.configuration.prior.atoms @ direction])
        return np.linspace(places.min() - 7 * std, places.max() + 7 * std, self.resolution.line)

    def truth(self, *, clean: bool = False) -> float:
        """Distance of the learned law of the patch from that of the noisy prior, or of the clean one."""
        return max(self._distance(direction, clean) for direction in self.configuration.directions)

    def _distance(self, direction: Array, clean: bool) -> float:
        one, y = self.configuration, self._line(direction)
        masses = hat_masses(self.final(y, direction), float(y[1] - y[0]))
        if clean:
            masses = masses - atom_masses(y, one.prior.atoms @ direction, np.exp(one.prior.logs))
        else:
            masses = masses - hat_masses(one.prior.noisy(y, one.vm, direction), float(y[1] - y[0]))
        return signed_norm(y, masses)

    def initial(self) -> float:
        """delta_ini."""
        one, direction = self.configuration, self.configuration.directions[0]
        if one.start == "exact":
            return 0.0
        y = self._line(direction)
        apart = self.reached(y) - one.prior.noisy(y, one.vm, direction)
        return signed_norm(y, hat_masses(apart, float(y[1] - y[0])))

    def rollout_drift(self, *, weights: str = "all", reference: str = "exact") -> float:
        """Weighted drift error of Euler steps seen as a process with a drift that is constant in each step.

        Args:
            weights: of ``all`` sites, of the ``patch`` alone, or those ``without covariance``.
            reference: the ``exact`` score, or the ``local`` one of each site alone.
        """
        one, total = self.configuration, 0.0
        for step in map(Step.without_tails, self.steps):
            learned = one.learned_score(step.x, step.v)
            for u, length in self._times(step):
                x, probability = self._noisy(step, learned, step.v - u)
                mean, covariance = one.prior.moments(x, u, one.places)
                right = (mean - x) / u if reference == "exact" else one.local_score(x, u)
                error = np.abs(np.tile(learned, (len(x) // len(learned), 1)) - right)
                by_site = self._weights(covariance, u, weights) * error
                total += length * float(probability @ by_site.sum(1))
        return total

    def _weights(self, covariance: Array, u: float, kind: str) -> Array:
        one = self.configuration
        found = influence(covariance, u, one.vm, one.places)
        if kind == "without covariance":
            return influence(np.zeros_like(covariance), u, one.vm, one.places)
        if kind == "patch":
            found[:, len(one.places) :] = 0
        return found

    def _times(self, step: Step) -> Iterator[tuple[float, float]]:
        """Variances within a step and their weights, panel by panel of a factor of two.

        In each panel the variable is t, ``u = v - t^2``: the noise grows as a square root from its start.
        """
        nodes, weights = np.polynomial.legendre.leggauss(self.resolution.times)
        panels = max(1, math.ceil(math.log2(step.v / step.after)))
        edges = np.sqrt(step.v - np.geomspace(step.v, step.after, panels + 1).clip(max=step.v))
        for low, high in itertools.pairwise(edges.tolist()):
            for t, weight in zip(0.5 * (low + high + (high - low) * nodes), 0.5 * (high - low) * weights, strict=True):
                yield step.v - t**2, 2 * t * weight

    def _noisy(self, step: Step, learned: Array, length: float) -> tuple[Array, Array]:
        """The learned law after part of a step: points, the noise outermost, and probabilities."""
        nodes, weights = half_normal_nodes(self.resolution.noise)
        nodes, weights = np.concatenate([-nodes, nodes]), 0.5 * np.concatenate([weights, weights])
        sites = step.x.shape[1]
        noise = np.array(list(itertools.product(nodes, repeat=sites)))
        share = np.array([math.prod(pair) for pair in itertools.product(weights, repeat=sites)])
        moved = step.x + length * learned
        x = moved[None] + math.sqrt(length) * noise[:, None]
        return x.reshape(-1, sites), (share[:, None] * step.probability).ravel()

    def stepwise_drift(self, *, noise: bool = True, covariance: bool = True) -> float:
        """Weighted error of steps of one site: the distance, in the mean, of a step's law from the exact one's.

        Args:
            noise: else only the distance of the means is counted.
            covariance: else the weights have none.
        """
        one, total = self.configuration, 0.0
        for step in self.steps:
            mean, std = self.moved(step)
            exact_std = math.sqrt(step.after * (step.v - step.after) / step.v)
            share = step.after / step.v
            weights = one.prior.posterior(step.x, step.v)
            means = one.prior.atoms[:, 0] * (1 - share) + share * step.x
            if noise:
                distance = _transport(mean[:, 0], std, means, weights, exact_std)
            else:
                distance = np.abs(mean[:, 0] - (weights * means).sum(1))
            total += self._largest_weight(step.after, covariance) * float(step.probability @ distance)
        return total

    def _largest_weight(self, v: float, covariance: bool) -> float:
        """The largest influence weight of the one site, over all x: between its levels, where its posterior is wide."""
        one = self.configuration
        if not covariance:
            return one.vm / v
        x = np.linspace(one.levels[0], one.levels[-1], 2001)[:, None]
        # Outside the outer levels too: unequal weights move the widest posterior there.
        far = 4 * v * np.ptp(np.log(one.weights)) / max(1e-9, one.levels[-1] - one.levels[0])
        x = np.concatenate([x, np.linspace(one.levels[0] - far - 1, one.levels[-1] + far + 1, 4001)[:, None]])
        return float(influence(one.prior.moments(x, v, [0])[1], v, one.vm, [0]).max())


@lru_cache(maxsize=8)
def half_normal_nodes(count: int) -> tuple[Array, Array]:
    """Gauss nodes and weights for the law of the absolute value of a standard normal number.

    By Stieltjes' procedure on a fine quadrature, and Golub and Welsch's eigenvalues.
    """
    x, weights = np.polynomial.legendre.leggauss(300)
    x, weights = 5 * (x + 1), 5 * weights
    weights = weights * 2 * normal_density(x, 0.0, 1.0)
    before, now = np.zeros_like(x), np.ones_like(x)
    norm_before, diagonal, off = 1.0, [], []
    for n in range(count):
        norm = float(weights @ now**2)
        diagonal.append(float(weights @ (x * now**2)) / norm)
        off.append(norm / norm_before if n else 0.0)
        before, now, norm_before = now, (x - diagonal[-1]) * now - off[-1] * before, norm
    jacobi = np.diag(diagonal) + np.diag(np.sqrt(off[1:]), 1) + np.diag(np.sqrt(off[1:]), -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    return nodes, vectors[0] ** 2


def _transport(mean: Array, std: float, means: Array, weights: Array, exact_std: float) -> Array:
    """Integral of the difference of the distribution functions of N(mean, std^2) and a mixture, ``(P,)``."""
    widest = max(std, exact_std)
    low = np.minimum(mean, means.min(1)) - 7 * widest
    high = np.maximum(mean, means.max(1)) + 7 * widest
    y = low + (high - low) * np.linspace(0, 1, 400)[:, None]
    from scipy.special import ndtr

    exact = sum(weights[:, k] * ndtr((y - means[:, k]) / exact_std) for k in range(means.shape[1]))
    gap: Array = np.abs(ndtr((y - mean) / std) - exact)
    distance: Array = np.trapezoid(gap, axis=0) * (high - low) / 399
    return distance
