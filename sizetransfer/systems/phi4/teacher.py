r"""The scalar field theory :math:`\phi^4` on periodic lattices of one to three dimensions.

.. math:: p(\phi) = \frac{e^{-S(\phi)}}{Z_L}, \qquad
    S(\phi) = \sum_x \Big[\frac{m^2}{2}\phi_x^2 + \frac{\lambda}{4}\phi_x^4\Big]
    + \frac12\sum_{\langle xy\rangle}(\phi_x - \phi_y)^2 ,

with ``mass2`` = :math:`m^2` and ``quartic`` = :math:`\lambda \ge 0`; every site owns one bond along each axis. The
single-site potential is a double well with minima :math:`\pm\sqrt{-m^2/\lambda}` where :math:`m^2 < 0`, convex where
:math:`m^2 \ge 0`; with :math:`\lambda = 0` the law is the Gaussian field of precision :math:`m^2` + lattice Laplacian.

What is exact: the energy S, which is the log-density up to :math:`-\log Z_L`, and the clean score :math:`-\nabla S`.
:math:`Z_L` is not known beyond one dimension, so the teacher has the capability ``HasEnergy`` and not ``HasDensity``.
Fields are drawn by hybrid Monte Carlo (declared ``monte_carlo``), each from a chain of its own that starts from white
noise and runs :data:`BURN_IN` autocorrelation times; how long these are is measured once for every size, and a size
at which chains do not agree is refused. The chains move in Fourier-accelerated coordinates (Batrouni et al. 1985), in
which the Hartree approximation of the theory is white, so that long waves are no slower than short ones. S is even, so
every draw gets a random sign: the two signs of a magnetised lattice need no tunnelling.

On small rings everything follows by quadrature: :func:`ring`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, Exactness, Sample, Teacher
from sizetransfer.contracts.randomness import normal, stream, uniform
from sizetransfer.contracts.specs import FieldInfo, TeacherSpec
from sizetransfer.numerics.chains import KnownGradient, Mixing, NotMixedError, hybrid_monte_carlo, mixing

BURN_IN = 10
"""Integrated autocorrelation times, of the slowest observable, before a chain's field is taken.

One is twice the decay time of a correlation that decays exponentially: the start is forgotten to ``e**-20``.
"""

DIAGNOSED_CHAINS, DIAGNOSED_WARMUP, DIAGNOSED_DRAWS = 16, 150, 300
MAX_R_HAT, MIN_EFFECTIVE = 1.05, 200.0
PATH_LENGTH = math.pi / 2

# The last transitions of a chain before its field is taken, and the least acceptance among them: with a fixed step size
# the leapfrog is unstable far out in a quartic potential, and a chain that began there would stay for ever.
LAST_TRANSITIONS, MIN_ACCEPTANCE = 20, 0.2

# The diagnosed chains, few and widely spread, tune a step that is stable for them. One of many thousands of chains
# would still get stuck on few sites, where a whole double well moves as one: samples take a smaller step from nearer
# starts.
SAFE_START, SAFE_STEP = 0.5, 0.7


class Phi4TeacherSpec(TeacherSpec):
    """Scalar field with a quartic potential: ``mass2/2 phi^2 + quartic/4 phi^4`` at each site, unit couplings."""

    kind: Literal["phi4"] = "phi4"
    dim: int = Field(2, ge=1, le=3, description="axes of the torus")
    mass2: float = Field(0.25, description="coefficient m^2 of phi^2 / 2; negative: a double well")
    quartic: float = Field(0.5, ge=0, description="coefficient lambda of phi^4 / 4; zero: a Gaussian field")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "symmetric": {"mass2": 0.25, "quartic": 0.5},
        "double-well": {"mass2": -0.7, "quartic": 1.0},
        "free": {"mass2": 0.25, "quartic": 0.0},
    }

    @model_validator(mode="after")
    def _normalisable(self) -> Phi4TeacherSpec:
        if self.quartic == 0 and self.mass2 <= 0:
            raise SpecError(
                "Without a quartic term the potential has to be convex: this density cannot be normalised.",
                where="mass2, quartic",
                expected="mass2 > 0 where quartic = 0",
                got=f"mass2 = {self.mass2:g}, quartic = {self.quartic:g}",
                fix="use a positive mass2, or a positive quartic for a double well",
            )
        return self

    def build(self) -> Phi4Teacher:
        return Phi4Teacher(self)


@dataclass(frozen=True)
class _Tuned:
    step: float
    burn_in: int
    mixing: Mixing


class Phi4Teacher(Teacher):
    """Scalar field theory with exact energy and clean score, sampled by hybrid Monte Carlo."""

    translation_period, even = 1, True
    draws_fields_apart = True

    def __init__(self, spec: Phi4TeacherSpec) -> None:
        mass = hartree_mass(spec)
        scale = math.sqrt(_lattice_mean_inverse(spec.dim, mass**2))
        super().__init__(FieldInfo(dim=spec.dim, sigma_data=max(round(scale, 2), 0.01)))
        self.spec = spec
        self.mass = mass
        self.usual_sizes = {2: (8, 12), 3: (4, 6)}.get(spec.dim)  # posteriors are sampled, which takes minutes beyond
        self.exactness = {"sample": Exactness("monte_carlo"), "energy": Exactness(), "score": Exactness()}
        self._tuned: dict[tuple[int, torch.dtype, torch.device], _Tuned] = {}

    def context(self, batch: int, size: int) -> Context:
        """The context of ``batch`` fields: the torus alone."""
        return Context(self.domain(size))

    def energy(self, sample: Sample) -> Float[Tensor, "batch"]:
        """The action S, minus the log-density up to the constant ``log Z``, shape ``(B,)``."""
        return self._action(sample.x)

    def _action(self, x: Tensor) -> Tensor:
        square = x.square()
        density = (0.5 * self.spec.mass2) * square + (0.25 * self.spec.quartic) * square.square()
        for axis in range(2, x.ndim):
            density = density + 0.5 * (x - x.roll(1, axis)).square()
        return density.flatten(1).sum(1)

    def score(self, sample: Sample) -> Float[Tensor, "batch channels *size"]:
        r"""Clean score :math:`-\nabla S`: lattice Laplacian of the field minus the potential's slope."""
        return self._force(sample.x)

    def _force(self, x: Tensor) -> Tensor:
        score = -(self.spec.mass2 + 2 * self.field.dim + self.spec.quartic * x.square()) * x
        for axis in range(2, x.ndim):
            score = score + x.roll(1, axis) + x.roll(-1, axis)
        return score

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        """Draw fields, each from a chain of its own.

        Raises:
            OracleError: the chains of this size have not mixed; with the numbers.
        """
        self.check_size(size)
        tuned = self._tune(size)
        chains = hybrid_monte_carlo(
            KnownGradient(self._log_density, self._gradient),
            SAFE_START * self._start(batch, size, generator),
            path_length=PATH_LENGTH,
            warmup=tuned.burn_in,
            draws=LAST_TRANSITIONS,
            generator=generator,
            step=SAFE_STEP * tuned.step,
            adapt=False,
        )
        self._require_motion(chains.acceptance, size)
        whitened = chains.draws[-1]
        heads = uniform((batch,), generator=generator, like=whitened) < 0.5
        sign = torch.where(heads, 1.0, -1.0).to(whitened)
        x = expand(sign, whitened) * self._colour(whitened)
        return Sample(x, self.context(batch, size))

    def diagnose(self, size: int) -> Mixing:
        """Mixing of the chains at this size: acceptance, autocorrelation time, effective samples, split R-hat.

        Raises:
            OracleError: the chains have not mixed.
        """
        self.check_size(size)
        return self._tune(size).mixing

    def _log_density(self, whitened: Tensor) -> Tensor:
        return -self._action(self._colour(whitened))

    def _gradient(self, whitened: Tensor) -> Tensor:
        """Gradient of the log-density of the whitened field: the colouring is symmetric."""
        return self._colour(self._force(self._colour(whitened)))

    def _colour(self, whitened: Tensor) -> Tensor:
        r"""Divide by :math:`\sqrt{\mu^2 + \hat k^2}` in Fourier space: white noise to the Hartree approximation."""
        axes = tuple(range(2, whitened.ndim))
        half = _hartree_scale(self.mass, self.field.dim, whitened.shape[-1], whitened.dtype, whitened.device)
        coloured: Tensor = torch.fft.irfftn(torch.fft.rfftn(whitened, dim=axes) * half, s=whitened.shape[2:], dim=axes)
        return coloured

    def _start(self, batch: int, size: int, generator: torch.Generator) -> Tensor:
        """White noise, cut off so that no chain starts where the leapfrog is unstable."""
        shape = (batch, 1, *(size,) * self.field.dim)
        return normal(shape, generator=generator, like=self.anchor).clamp(-2, 2)

    def _require_motion(self, acceptance: Tensor, size: int) -> None:
        if float(acceptance.min()) < MIN_ACCEPTANCE:
            raise NotMixedError(
                "A chain rejects nearly all of its proposals.",
                where=f"phi4 sample, size {size}",
                expected=f"an acceptance of {MIN_ACCEPTANCE} or more in each of {acceptance.numel()} chains",
                got=f"{float(acceptance.min()):.3g} over its last {LAST_TRANSITIONS} transitions",
                fix="draw with another seed, and report the parameters of the teacher",
            )

    def _tune(self, size: int) -> _Tuned:
        """Step size and autocorrelation time at this size, from chains of a stream that the size names."""
        key = (size, self.anchor.dtype, self.anchor.device)
        if key not in self._tuned:
            generator = stream(self.spec.seed, "phi4", size)
            chains = hybrid_monte_carlo(
                KnownGradient(self._log_density, self._gradient),
                self._start(DIAGNOSED_CHAINS, size, generator),
                path_length=PATH_LENGTH,
                warmup=DIAGNOSED_WARMUP,
                draws=DIAGNOSED_DRAWS,
                generator=generator,
            )
            report = mixing(
                _even_observables(self._colour(chains.draws.flatten(0, 1)), chains.log_density), chains.acceptance
            )
            report.require(max_r_hat=MAX_R_HAT, min_effective=MIN_EFFECTIVE, where=f"phi4 sample, size {size}")
            burn_in = math.ceil(BURN_IN * max(1.0, report.autocorrelation_time))
            self._tuned[key] = _Tuned(chains.step, burn_in, report)
        return self._tuned[key]


def _even_observables(x: Tensor, log_density: Tensor) -> Tensor:
    """Action, squared magnetisation and mean square of every draw: ``(n, B, 3)``; none depends on the field's sign."""
    fields = x.double().reshape(*log_density.shape, -1)
    return torch.stack([log_density, fields.mean(2).square(), fields.square().mean(2)], dim=2)


def hartree_mass(spec: Phi4TeacherSpec) -> float:
    r"""Mass of the best Gaussian approximation, on a torus of 16 sites a side.

    .. math:: \mu^2 = m^2 + 3\lambda\langle\phi^2\rangle_\mu, \qquad
        \langle\phi^2\rangle_\mu = \frac1N\sum_k \frac1{\mu^2 + \sum_a (2 - 2\cos k_a)}

    It sets scales (path lengths, starts, the students' preconditioning) and no result. Found by bisection: the
    right-hand side falls with :math:`\mu`.
    """
    low, high = 1e-6, abs(spec.mass2) + 3 * spec.quartic + 10.0
    for _ in range(100):
        middle = math.sqrt(low * high)
        if middle < spec.mass2 + 3 * spec.quartic * _lattice_mean_inverse(spec.dim, middle):
            low = middle
        else:
            high = middle
    return math.sqrt(high)


def _lattice_mean_inverse(dim: int, mass2: float) -> float:
    return float((1 / (mass2 + laplacian_spectrum(dim, 16))).mean())


@functools.lru_cache(maxsize=32)
def _hartree_scale(
    mass: float, dim: int, size: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "*half"]:
    """Standard deviations of the modes in the Hartree approximation, on the grid of ``torch.fft.rfftn``."""
    spectrum = mass**2 + laplacian_spectrum(dim, size)
    return spectrum[..., : size // 2 + 1].rsqrt().to(device, dtype)


@functools.cache
def laplacian_spectrum(dim: int, size: int) -> Float[Tensor, "*size"]:
    """Eigenvalues ``sum_a (2 - 2 cos k_a)`` of minus the lattice Laplacian on the grid of ``torch.fft.fftn``."""
    axis = 2 - 2 * torch.cos(2 * math.pi * torch.arange(size, dtype=torch.float64) / size)
    spectrum = torch.zeros((), dtype=torch.float64)
    for _ in range(dim):
        spectrum = spectrum[..., None] + axis
    return spectrum


# --- rings ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RingMoments:
    """Exact moments on a ring of L sites.

    Attributes:
        log_partition: log Z, of the observations' weights too.
        mean, second, fourth: moments of every site, shape ``(L,)``.
        covariance: of all pairs of sites, shape ``(L, L)``.
    """

    log_partition: float
    mean: Float[Tensor, "sites"]
    second: Float[Tensor, "sites"]
    fourth: Float[Tensor, "sites"]
    covariance: Float[Tensor, "sites sites"]


def ring(
    spec: Phi4TeacherSpec,
    size: int,
    *,
    observed: Float[Tensor, "sites"] | None = None,
    sigma: float = 1.0,
    nodes: int = 241,
) -> RingMoments:
    r"""Moments in one dimension by the transfer matrix on a grid of field values, double precision.

    .. math:: Z = \operatorname{tr}\prod_i D_i K, \qquad K(a, b) = e^{-(a - b)^2/2}, \qquad
        D_i(a) = h\, e^{-m^2 a^2/2 - \lambda a^4/4 - (a - x_i)^2/2\sigma^2}

    The trapezoidal rule converges faster than any power of its spacing h for such analytic integrands; half the
    nodes tell its error.

    Args:
        spec: the theory; its ``dim`` is ignored.
        size: sites of the ring; two sites share two bonds.
        observed: a noisy field x, which makes these the posterior moments of the clean field; none: the prior.
        sigma: noise of the observation.
        nodes: grid points.

    Raises:
        OracleError: fewer than two sites, observations that do not fit or are not finite, a noise that is not positive,
            or a grid too coarse for the narrowest factor of the integrand.
    """
    _check_ring(size, observed, sigma)
    grid = torch.linspace(-1, 1, nodes, dtype=torch.float64) * _reach(spec, observed)
    spacing = float(grid[1] - grid[0])
    _check_spacing(spec, spacing, nodes, sigma if observed is not None else math.inf)
    log_weight = (-0.5 * spec.mass2 * grid**2 - 0.25 * spec.quartic * grid**4 + math.log(spacing)).expand(size, -1)
    if observed is not None:
        log_weight = log_weight - (grid - observed.double()[:, None]).square() / (2 * sigma**2)
    top = log_weight.amax(1, keepdim=True)
    hop = torch.exp(-0.5 * (grid[:, None] - grid[None]).square())
    matrices = (log_weight - top).exp()[:, :, None] * hop
    product, shift = _products(matrices)
    partition = product.trace()
    # Site i's own weight stands first in the product that starts at i.
    marginal = torch.stack([_products(matrices.roll(-i, 0))[0].diagonal() for i in range(size)])
    marginal = marginal / marginal.sum(1, keepdim=True)
    mean, second, fourth = (marginal @ grid**power for power in (1, 2, 4))
    return RingMoments(
        log_partition=float(partition.log() + shift + top.sum()),
        mean=mean,
        second=second,
        fourth=fourth,
        covariance=_ring_covariance(matrices, grid, mean, second),
    )


def _check_ring(size: int, observed: Tensor | None, sigma: float) -> None:
    fits = observed is None or (observed.shape == (size,) and bool(observed.isfinite().all()))
    if size < 2 or not fits or not 0 < sigma < math.inf:
        shape = None if observed is None else tuple(observed.shape)
        raise OracleError(
            "There is no such ring.",
            where="ring(size=, observed=, sigma=)",
            expected="at least two sites, one finite observation for each, and sigma above zero",
            got=f"size = {size}, observations of shape {shape}, sigma = {sigma:g}",
            fix="pass a field of shape (size,) and its noise level",
        )


def _check_spacing(spec: Phi4TeacherSpec, spacing: float, nodes: int, sigma: float) -> None:
    """Refuse a grid on which the trapezoidal rule has not converged: for a width s it errs by e**-(2 pi^2 s^2/h^2)."""
    width = min(1.0, sigma, 1 / math.sqrt(2 * abs(spec.mass2)) if spec.mass2 else math.inf)
    if spacing > 0.8 * width:
        raise OracleError(
            "The grid of the quadrature is too coarse.",
            where=f"ring(nodes={nodes})",
            expected=f"a spacing of at most {0.8 * width:.3g}, 0.8 of the narrowest factor's width",
            got=f"{spacing:.3g}",
            fix=f"use at least {math.ceil((nodes - 1) * spacing / (0.8 * width)) + 1} nodes",
        )


def _reach(spec: Phi4TeacherSpec, observed: Tensor | None) -> float:
    """Half the width of the grid: the single-site weight is below e**-40 of its largest value outside."""
    farthest = 0.0 if observed is None else float(observed.abs().max())
    if spec.mass2 <= 0:
        return farthest + math.sqrt(-spec.mass2 / spec.quartic + math.sqrt(160 / spec.quartic))
    quadratic = math.sqrt(80 / spec.mass2)
    return farthest + (quadratic if spec.quartic == 0 else min(quadratic, (160 / spec.quartic) ** 0.25))


def _products(matrices: Tensor) -> tuple[Tensor, float]:
    """Product of matrices in order, scaled to unit size, and the logarithm of the scale."""
    product, shift = matrices[0], 0.0
    for matrix in matrices[1:]:
        product = product @ matrix
        scale = product.abs().max()
        product, shift = product / scale, shift + float(scale.log())
    return product, shift


def _ring_covariance(matrices: Tensor, grid: Tensor, mean: Tensor, second: Tensor) -> Tensor:
    size = matrices.shape[0]
    products = torch.diag(second)
    for i in range(size):
        for j in range(i + 1, size):
            there, _ = _products(matrices[i:j])
            back, _ = _products(torch.cat([matrices[j:], matrices[:i]]))
            joint = there * back.T
            products[i, j] = products[j, i] = (grid[:, None] * joint * grid[None]).sum() / joint.sum()
    return products - mean[:, None] * mean[None]
