r"""Spins seen through Gaussian noise: :math:`x = s + \sqrt v\,\xi` on a square lattice.

The posterior of the spins is the Ising model in the field :math:`h = x/v` (paper eq. (21)), the score is
:math:`(E[s|x] - x)/v`, its response :math:`\mathrm{Cov}(s_i, s_j|x)/v^2 - \delta_{ij}/v` (eq. (22)), and

.. math:: \log p_v(x) = \log\frac{Z(x/v)}{Z(0)} - \frac{\|x\|^2 + N}{2v} - \frac N2\log2\pi v .

The best score of receptive radius r at site i is that of the ball's marginal: :math:`E[s_i | x_{B_r(i)}]` is the mean
in the field that is zero outside the ball. Its response is Cov(s_i, s_j) in that field inside the ball, and zero
outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Lattice, Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.systems.ising.lattices import boundary_of
from sizetransfer.systems.ising.limits import Limits
from sizetransfer.systems.ising.model import IsingModel


@dataclass(frozen=True)
class IsingPosterior:
    """Exact answers about noisy spins; fields have shape ``(B, 1, H, W)`` and noise levels ``(B,)``.

    Attributes:
        beta: coupling.
        domain: a torus, a :class:`~sizetransfer.systems.ising.lattices.Cylinder` or an open box.
        limits: of every call.

    Every method raises:
        OracleError: fields that do not fit the domain or are not finite, noise levels that are not positive, a site
            that is not there, or costs beyond the limits (:class:`~sizetransfer.systems.ising.limits.TooLargeError`).
    """

    beta: float
    domain: Domain
    limits: Limits

    @property
    def model(self) -> IsingModel:
        """The model whose field is x/v."""
        return IsingModel(self.beta, boundary_of(self.domain), self.limits)

    def mean(
        self, x: Float[Tensor, "batch 1 height width"], sigma: Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """E[s | x], like x and differentiable by it once."""
        return self.model.mean(self._field(x, sigma)).to(x)[:, None]

    def score(
        self, x: Float[Tensor, "batch 1 height width"], sigma: Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """The smoothed score, like x and differentiable by it once."""
        return _tweedie(x, self.model.mean(self._field(x, sigma))[:, None], sigma)

    def covariance(
        self, x: Float[Tensor, "batch 1 height width"], sigma: Float[Tensor, "batch"], site: Site
    ) -> Float[Tensor, "batch height width"]:
        """Cov(s at the site, s | x)."""
        self.domain.distance(site)  # refuses a site that is not there
        return self.model.covariance(self._field(x, sigma).detach(), site).to(x)

    def log_density(
        self, x: Float[Tensor, "batch 1 height width"], sigma: Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch"]:
        """Log-density of the noisy field."""
        h = self._field(x, sigma).detach()
        v, sites = sigma.double().square(), h[0].numel()
        free = self.model.moments(torch.zeros_like(h[:1])).log_partition
        gauss = (x.detach().double().square().flatten(1).sum(1) + sites) / (2 * v) + 0.5 * sites * (
            2 * math.pi * v
        ).log()
        return (self.model.moments(h).log_partition - free - gauss).to(x)

    def samples(
        self,
        x: Float[Tensor, "1 1 height width"],
        sigma: Float[Tensor, "1"],
        draws: int,
        *,
        generator: torch.Generator,
    ) -> Float[Tensor, "draws 1 height width"]:
        """Perfect samples of the posterior of one noisy field."""
        return self.model.samples(self._field(x, sigma).detach()[0], draws, generator=generator).to(x)[:, None]

    def local_mean(
        self,
        x: Float[Tensor, "batch 1 height width"],
        sigma: Float[Tensor, "batch"],
        radius: int,
        *,
        reference: int | None = None,
    ) -> Float[Tensor, "batch 1 height width"]:
        """E[s_i | x within a Chebyshev radius of i] for every site, like x and differentiable by it once.

        Args:
            x: noisy fields.
            sigma: noise levels.
            radius: of the ball.
            reference: side of the torus that stands for the domain's own law, which must be a torus; none: its own.
        """
        h = self._field(x, sigma)
        _check_radius(radius)
        if boundary_of(self.domain) == "torus":
            return self._local_on_torus(h, radius, reference).to(x)[:, None]
        return self._local_in_box(h, radius).to(x)[:, None]

    def local_mean_at(
        self,
        x: Float[Tensor, "batch 1 height width"],
        sigma: Float[Tensor, "batch"],
        site: Site,
        radius: int,
    ) -> Float[Tensor, "batch"]:
        """E[s_i | x within a Chebyshev radius of i] for one site i, at a fraction of the cost of all."""
        h = self._field(x, sigma).detach() * self._ball(site, radius).to(x.device)
        if boundary_of(self.domain) == "torus":
            return self.model.site_mean(h.roll([-step for step in site], (1, 2))).to(x)
        return self.model.mean(h)[:, site[0], site[1]].to(x)

    def local_covariance(
        self,
        x: Float[Tensor, "batch 1 height width"],
        sigma: Float[Tensor, "batch"],
        site: Site,
        radius: int,
    ) -> Float[Tensor, "batch height width"]:
        """Cov(s at the site, s | x within the radius of it) on the ball, zero outside."""
        inside = self._ball(site, radius).to(x.device)
        return (self.model.covariance(self._field(x, sigma).detach() * inside, site) * inside).to(x)

    def local_score(
        self,
        x: Float[Tensor, "batch 1 height width"],
        sigma: Float[Tensor, "batch"],
        radius: int,
        *,
        reference: int | None = None,
    ) -> Float[Tensor, "batch 1 height width"]:
        """The best score of a receptive radius, like x; arguments as for :meth:`local_mean`."""
        return _tweedie(x, self.local_mean(x.double(), sigma.double(), radius, reference=reference), sigma)

    def local_response(
        self,
        x: Float[Tensor, "batch 1 height width"],
        sigma: Float[Tensor, "batch"],
        site: Site,
        radius: int,
    ) -> Float[Tensor, "batch height width"]:
        """Row of the Jacobian of the best score of a radius, at a site: zero outside the ball."""
        v = sigma.double().square()[:, None, None]
        row = self.local_covariance(x.double(), sigma, site, radius) / v.square()
        row[:, site[0], site[1]] -= 1 / v[:, 0, 0]
        return row.to(x)

    def _ball(self, site: Site, radius: int) -> Tensor:
        _check_radius(radius)
        return self.domain.ball(site, radius)

    def _local_on_torus(self, h: Tensor, radius: int, reference: int | None) -> Tensor:
        batch, *size = h.shape
        torus = Lattice((reference, reference)) if reference is not None else Lattice(tuple(size))
        steps = torus.displacement((0, 0)).to(h.device)
        inside = steps.abs().amax(0) <= radius
        sources = [
            (torch.arange(length, device=h.device)[:, None, None] + step) % length
            for length, step in zip(size, steps, strict=True)
        ]
        # One field for each site, moved so that the site comes to (0, 0).
        moved = h[:, sources[0][:, None], sources[1][None]] * inside
        return self.model.site_mean(moved.flatten(0, 2)).reshape(batch, *size)

    def _local_in_box(self, h: Tensor, radius: int) -> Tensor:
        size = h.shape[1:]
        sites = torch.cartesian_prod(*(torch.arange(length) for length in size)).tolist()
        balls = torch.stack([self.domain.ball(tuple(site), radius) for site in sites]).to(h.device)
        means = self.model.mean((h[:, None] * balls).flatten(0, 1)).reshape(len(h), len(sites), -1)
        return means.diagonal(dim1=1, dim2=2).reshape(h.shape)

    def _field(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The field h = x/v, ``(B, H, W)`` in double precision."""
        if tuple(x.shape[1:]) != (1, *self.domain.shape):
            raise OracleError(
                "The field does not fit the Ising model.",
                where="x",
                expected=f"shape (batch, 1, {', '.join(map(str, self.domain.shape))})",
                got=f"shape {tuple(x.shape)}",
                fix="pass fields of one channel on the context's domain",
            )
        if not bool(x.isfinite().all()):
            raise OracleError(
                "The field is infinite or not a number somewhere.",
                where="x",
                expected="finite numbers",
                got=f"{int((~x.isfinite()).sum())} others",
                fix="look for what made it so: a diverging sampler, or a noise level of zero",
            )
        check_noise(sigma, len(x))
        return (x.double() / _levels(sigma))[:, 0]


def _levels(sigma: Tensor) -> Tensor:
    return sigma.double().square()[:, None, None, None]


def _tweedie(x: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """The score ``(E[s | x] - x) / v``, like x."""
    return ((mean - x.double()) / _levels(sigma)).to(x)


def _check_radius(radius: int) -> None:
    if radius < 0:
        raise OracleError(
            "There is no ball of a negative radius.",
            where="radius",
            expected="lattice steps, zero or more",
            got=repr(radius),
            fix="radius 0 sees the site alone",
        )


def check_noise(sigma: object, batch: int) -> None:
    """Refuse noise levels that are not one positive number for each field.

    Raises:
        OracleError: with what they are.
    """
    shaped = isinstance(sigma, Tensor) and tuple(sigma.shape) == (batch,)
    if isinstance(sigma, Tensor) and shaped and bool((sigma > 0).all()) and bool(sigma.isfinite().all()):
        return
    raise OracleError(
        "There must be one positive noise level for each field.",
        where="sigma",
        expected=f"a tensor of shape ({batch},) with finite numbers above zero",
        got=repr(sigma) if not shaped else str(sigma.tolist() if isinstance(sigma, Tensor) else sigma),
        fix="x.new_full((len(x),), 0.5) gives every field the same level; without noise the spins are known",
    )
