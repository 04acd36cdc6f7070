r"""Linear students of Gaussian fields on a torus, with everything that they generate in closed form.

The law has spectrum :math:`S(k) = 1 / (m^2 + \sum_a 4 \sin^2(k_a / 2))`, and, where the mean of a field fluctuates
with variance :math:`\kappa^2`, also :math:`\kappa^2 L^d` at k = 0: an order that no ball sees and that grows with the
size. At noise variance v its score is :math:`-x_k / (S(k) + v)`. A
student is :math:`\hat s_k = -a_k(v)\,x_k`; its reverse process has spectrum

.. math:: \frac{dP_k}{d\ln v} = v\,(2 a_k(v) P_k - 1), \qquad P_k(v_\text{max}) = S(k) + v_\text{max}.

The best filter of a ball B is :math:`-(C_{BB} + v)^{-1} e_i`; a student that was trained for a time t by gradient
descent from zero has of it the share :math:`1 - e^{-\lambda t}` along each eigenvector of :math:`C_{BB} + v`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Law:
    """A Gaussian field of some mass on a torus of some size and dimension; ``mean``: variance of its mean mode."""

    dimension: int
    size: int
    mass: float
    mean: float = 0.0

    @cached_property
    def laplacian(self):
        """Its eigenvalues, shape ``(*S,)``."""
        axis = 4 * np.sin(np.pi * np.arange(self.size) / self.size) ** 2
        return sum(np.meshgrid(*[axis] * self.dimension, indexing="ij"))

    @cached_property
    def spectrum(self):
        spectrum = 1 / (self.mass**2 + self.laplacian)
        spectrum.flat[0] += self.mean * spectrum.size
        return spectrum

    @cached_property
    def covariance(self):
        """By displacement, shape ``(*S,)``."""
        return np.fft.ifftn(self.spectrum).real

    @cached_property
    def cosine(self):
        """Weight of each mode in the covariance of nearest neighbours, averaged over axes."""
        return 1 - self.laplacian / (2 * self.dimension)

    def at(self, size):
        return replace(self, size=size)

    def estimated(self, spectrum):
        """The same law with a spectrum estimated from fields."""
        law = replace(self)
        law.__dict__["spectrum"] = np.maximum(spectrum, 1e-12)
        return law

    def statistics(self, spectrum):
        """Site variance, nearest covariance and S(0) of fields with this spectrum."""
        return {
            "site variance": spectrum.mean(),
            "nearest-neighbour covariance": (self.cosine * spectrum).mean(),
            "S(0)": spectrum.flat[0],
        }

    @property
    def correlation_squared(self):
        """(S(0) / S(k_min) - 1) / (4 sin^2(pi / L))."""
        return float((self.spectrum.flat[0] / self.spectrum.flat[1] - 1) / self.laplacian.flat[1])

    @property
    def sigma_needed(self):
        """Ten times the largest eigenvalue, as a variance."""
        return float(np.sqrt(10 * self.spectrum.max()))


def ball(dimension, radius):
    """Displacements within the Chebyshev radius; the centre's position in the list."""
    sites = np.array(list(itertools.product(range(-radius, radius + 1), repeat=dimension)))
    return sites, len(sites) // 2


@dataclass(frozen=True)
class BallFilter:
    """The best filter of a ball for a given covariance by displacement, with its defects.

    Attributes:
        covariance: of the fields that it was fitted to, shape ``(*S,)``.
        radius: of the ball.
        time: of gradient descent, in units in which the largest noise-free eigenvalue is one; ``None``: the optimum.
        gain: factor of the filter.
        kept: radius that the filter is cut to afterwards; ``None``: all of the ball.
    """

    covariance: np.ndarray
    radius: int
    time: float | None = None
    gain: float = 1.0
    kept: int | None = None

    @cached_property
    def modes(self):
        sites, centre = ball(self.covariance.ndim, self.radius)
        difference = (sites[:, None] - sites[None]) % self.covariance.shape[0]
        values, vectors = np.linalg.eigh(self.covariance[tuple(np.moveaxis(difference, -1, 0))])
        return sites, vectors, np.maximum(values, 0), vectors[centre]

    def weights(self, variance):
        """-w at each displacement of the ball."""
        sites, vectors, values, row = self.modes
        shrunk = 1 / (values + variance)
        if self.time is not None:
            # Preconditioned as a network is: in units of the site variance of its input.
            shrunk *= 1 - np.exp(-(values + variance) / (values.mean() + variance) * self.time)
        weights = self.gain * vectors @ (shrunk * row)
        return weights if self.kept is None else np.where(abs(sites).max(axis=1) <= self.kept, weights, 0)

    def response(self, variance, size):
        """a_k(v) on a torus of this size, shape ``(*S,)``."""
        kernel = np.zeros((size,) * self.covariance.ndim)
        np.add.at(kernel, tuple((self.modes[0] % size).T), self.weights(variance))
        return np.fft.fftn(kernel).real

    def error_at_its_own(self, variance, score_power):
        """Relative error of the best score of the ball: sqrt(1 - ((C_BB + v)^-1)_ii / E s_i^2)."""
        _, _, values, row = self.modes
        return float(np.sqrt(max(0.0, 1 - (row**2 / (values + variance)).sum() / score_power)))


def generated(student, law, sigma_start, *, sigma_end=0.05, steps=120):
    """The spectrum of the reverse process at the end, shape ``(*S,)``, by Runge and Kutta's fourth order in ln v."""
    grid = np.linspace(2 * np.log(sigma_start), 2 * np.log(sigma_end), 2 * steps + 1)
    step = grid[2] - grid[0]
    spectrum = law.spectrum + np.exp(grid[0])
    late = student.response(np.exp(grid[0]), law.size)
    for i in range(0, 2 * steps, 2):
        v = np.exp(grid[i : i + 3])
        early, middle, late = late, student.response(v[1], law.size), student.response(v[2], law.size)
        k1 = v[0] * (2 * early * spectrum - 1)
        k2 = v[1] * (2 * middle * (spectrum + step / 2 * k1) - 1)
        k3 = v[1] * (2 * middle * (spectrum + step / 2 * k2) - 1)
        k4 = v[2] * (2 * late * (spectrum + step * k3) - 1)
        spectrum = np.maximum(spectrum + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4), 0)
    return spectrum


def ratios(student, law, sigma_start, **how):
    """Generated over exact statistics at the end of the reverse process, by name."""
    sigma_end = how.get("sigma_end", 0.05)
    made = law.statistics(generated(student, law, sigma_start, **how))
    exact = law.statistics(law.spectrum + sigma_end**2)
    return {name: float(made[name] / exact[name]) for name in made}
