r"""The Ising model seen through noise: spins with nearest-neighbour couplings whose smoothed score is known exactly.

.. math:: P(s) \propto \exp\Big(\beta\sum_{\langle ij\rangle}s_is_j\Big),\quad s_i = \pm1, \qquad
    s_v(x) = \frac{E[s|x] - x}v

on a periodic square lattice, a cylinder or an open box (paper eq. (20) to (22)). The clean law has no density, so there
is no clean score. Everything about noisy fields is exact to rounding (:mod:`sizetransfer.systems.ising`), up to 14 x 14
on a torus and about 20 across on a cylinder or in a box; larger ones are refused with what they would cost.

Samples are perfect up to 14 x 14 on a torus and 20 across otherwise. Beyond, each comes from a Swendsen–Wang chain of
its own that runs :data:`BURN_IN` autocorrelation times from a cold or a hot start; how long these are is measured once
for every size, and a size at which chains do not agree is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Lattice, Site
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context, Exactness, Sample, Teacher
from sizetransfer.contracts.randomness import stream, uniform
from sizetransfer.contracts.specs import FieldInfo, TeacherSpec
from sizetransfer.numerics.chains import Mixing, mixing
from sizetransfer.systems.ising import (
    Boundary,
    Cylinder,
    IsingCoupling,
    IsingModel,
    IsingPosterior,
    Limits,
    ZeroField,
    swendsen_wang,
    zero_field,
)
from sizetransfer.systems.ising.certificate import FerromagnetCertificate, ferromagnet_certificate
from sizetransfer.systems.ising.perfect import TorusSampler, torus_sampler_cost

BURN_IN = 10
"""Integrated autocorrelation times before a chain's spins are taken: of the energy or the squared magnetisation."""

DIAGNOSED_CHAINS, DIAGNOSED_WARMUP, DIAGNOSED_DRAWS = 16, 50, 300
MAX_R_HAT, MIN_EFFECTIVE = 1.05, 200.0
CIRCUMFERENCE = 8


class IsingTeacherSpec(IsingCoupling, TeacherSpec):
    """Ising model on a square lattice; the critical coupling where none is given."""

    kind: Literal["ising"] = "ising"
    boundary: Boundary = Field("torus", description="torus, cylinder (size is its length) or open box")
    circumference: int | None = Field(None, ge=2, description=f"of a cylinder; {CIRCUMFERENCE} where none is given")
    sampler: Literal["auto", "perfect", "swendsen-wang"] = Field(
        "auto", description="auto: perfect where it fits into the limits, else Swendsen-Wang"
    )
    memory: float = Field(4.0, gt=0, description="GiB that an exact call may take")
    seconds: float = Field(600.0, gt=0, description="seconds on one core that an exact call may take")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "critical": {"beta_over_critical": 1.0},
        "near-critical": {"beta_over_critical": 0.95},
        "disordered": {"beta_over_critical": 0.5},
    }

    @model_validator(mode="after")
    def _fits(self) -> IsingTeacherSpec:
        if self.circumference is not None and self.boundary != "cylinder":
            raise SpecError(
                "Only a cylinder has a circumference.",
                where="circumference",
                expected="boundary: cylinder",
                got=f"boundary: {self.boundary}, circumference: {self.circumference}",
                fix="leave it out, or make the boundary a cylinder",
            )
        if self.sampler == "swendsen-wang" and self.coupling < 0:
            raise SpecError(
                "Clusters are those of a ferromagnet.",
                where="sampler, beta",
                expected="beta >= 0 for swendsen-wang",
                got=f"beta = {self.coupling:g}",
                fix="use sampler: perfect, or a positive coupling",
            )
        return self

    @property
    def limits(self) -> Limits:
        """What an exact call may cost."""
        return Limits(self.memory, self.seconds)

    def build(self) -> IsingTeacher:
        return IsingTeacher(self)


@dataclass(frozen=True)
class _Tuned:
    burn_in: int
    mixing: Mixing


class IsingTeacher(Teacher):
    """Ising model with exact oracles of noisy fields (see the module)."""

    translation_period: int | None = 1
    even = True
    usual_sizes = (6, 8, 10)
    draws_fields_apart = True

    def __init__(self, spec: IsingTeacherSpec) -> None:
        closed = Cylinder.closed if spec.boundary == "cylinder" else None
        super().__init__(FieldInfo(dim=2, periodic=spec.boundary == "torus", closed=closed, sigma_data=1.0))
        self.spec = spec
        if spec.boundary != "torus":
            self.translation_period = None
            self.usual_sizes = (16, 32, 64) if spec.boundary == "cylinder" else (8, 10, 12)
        oracles = ["smoothed_score", "smoothed_log_density", "posterior_mean", "posterior_covariance", "log_partition"]
        oracles += ["local_posterior_mean", "local_posterior_covariance"]
        self.exactness = {name: Exactness() for name in oracles}
        # The weaker of two samplers, one for small and one for large lattices; sample_exactness tells which.
        self.exactness["sample"] = Exactness("exact" if spec.sampler == "perfect" else "monte_carlo")
        self._samplers: dict[tuple[int, torch.device], TorusSampler] = {}
        self._tuned: dict[int, _Tuned] = {}

    @property
    def coupling(self) -> float:
        """The coupling of each bond."""
        return self.spec.coupling

    def domain(self, size: int) -> Domain:
        """The domain with ``size`` sites along each axis; on a cylinder, along its length."""
        if self.spec.boundary == "cylinder":
            return Cylinder((size, self.spec.circumference or CIRCUMFERENCE))
        return Lattice((size, size), periodic=self.spec.boundary == "torus")

    def context(self, batch: int, size: int) -> Context:
        """The context of ``batch`` fields: the domain alone."""
        return Context(self.domain(size))

    def check_reach(self, size: int, batch: int) -> None:
        """Refuse so many noisy fields of a size that are beyond the limits.

        Raises:
            TooLargeError: with the estimate.
        """
        height, width = self.domain(size).shape
        self._model.require((height, width), batch)

    # --- noisy fields ---------------------------------------------------------------------------------------------

    def certificate(self, size: int) -> FerromagnetCertificate | None:
        """Bounds that hold for every field (:mod:`.certificate`); none for an antiferromagnet.

        Raises:
            OracleError: neither the exact table nor Dobrushin's bound is within reach.
        """
        if not self.coupling >= 0:
            return None
        domain = self.domain(size)
        height, width = domain.shape
        down, around = domain.closed_axes if isinstance(domain, Lattice) else (True, True)
        return ferromagnet_certificate(self.coupling, (height, width), closed=(down, around))

    def posterior(self, domain: Domain) -> IsingPosterior:
        """The exact posterior on a domain, with more than the capabilities of a teacher: local scores and samples."""
        return IsingPosterior(self.spec.coupling, domain, self.spec.limits)

    def smoothed_score(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        """Score ``(E[s|x] - x)/v`` of the noisy field, like ``x``, and differentiable by it once.

        Raises:
            OracleError: a noise level is not positive, the field does not fit or is not finite.
            TooLargeError: the lattice is beyond the limits, with the estimate.
        """
        return self.posterior(context.domain).score(x, sigma)

    def smoothed_log_density(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch"]:
        """Log-density of the noisy field, shape ``(B,)``; errors as for :meth:`smoothed_score`."""
        return self.posterior(context.domain).log_density(x, sigma)

    def posterior_mean(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        """E[s | x], like ``x``; errors as for :meth:`smoothed_score`."""
        return self.posterior(context.domain).mean(x, sigma)

    def posterior_covariance(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context, site: Site
    ) -> Float[Tensor, "batch channels channels *size"]:
        """Cov(s at ``site``, s | x); errors as for :meth:`smoothed_score`, and a site that is not on the lattice."""
        return self.posterior(context.domain).covariance(x, sigma, site)[:, None, None]

    def local_posterior_mean(
        self,
        x: Float[Tensor, "batch channels *size"],
        sigma: Float[Tensor, "batch"],
        context: Context,
        site: Site,
        radius: int,
    ) -> Float[Tensor, "batch channels"]:
        """E[s at ``site`` | x within a radius of it]; errors as for :meth:`posterior_covariance`."""
        return self.posterior(context.domain).local_mean_at(x, sigma, site, radius)[:, None]

    def local_posterior_covariance(
        self,
        x: Float[Tensor, "batch channels *size"],
        sigma: Float[Tensor, "batch"],
        context: Context,
        site: Site,
        radius: int,
    ) -> Float[Tensor, "batch channels channels *size"]:
        """Cov(s at ``site``, s | x within a radius of it), zero outside; errors as for :meth:`posterior_covariance`."""
        return self.posterior(context.domain).local_covariance(x, sigma, site, radius)[:, None, None]

    # --- the clean law --------------------------------------------------------------------------------------------

    def zero_field(self, size: int) -> ZeroField:
        """The partition function and all correlations of the clean law on a torus, exactly at any size and coupling.

        Raises:
            OracleError: the boundary is open.
        """
        if self.spec.boundary != "torus":
            raise OracleError(
                "Correlations without field are tabulated on tori.",
                where="IsingTeacher.zero_field",
                expected="boundary: torus",
                got=f"boundary: {self.spec.boundary}",
                fix="posterior_covariance with x = 0 answers on cylinders and in boxes",
            )
        return zero_field(self.spec.coupling, (size, size), limits=self.spec.limits)

    def log_partition(self, size: int) -> float:
        """Logarithm of the partition function of the clean law; on a torus at any size.

        Raises:
            TooLargeError: beyond the limits, with the estimate.
        """
        self.check_size(size)
        if self.spec.boundary == "torus" and (self.spec.coupling >= 0 or size % 2 == 0):
            return self.zero_field(size).log_partition
        return float(self._model.moments(torch.zeros(1, *self.domain(size).shape)).log_partition)

    # --- samples --------------------------------------------------------------------------------------------------

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        """Draw independent configurations of spins +1 and -1.

        Raises:
            TooLargeError: perfect samples were asked for at a size beyond the limits.
            OracleError: the chains of this size have not mixed, with the numbers; or there are no clusters, in an
                antiferromagnet.
        """
        self.check_size(size)
        spins = (
            self._perfect(batch, size, generator) if self._is_perfect(size) else self._chains(batch, size, generator)
        )
        return Sample(spins.to(self.anchor)[:, None], self.context(batch, size))

    def sample_exactness(self, size: int) -> Exactness:
        """How samples of this size are drawn: perfectly, or by chains."""
        return Exactness("exact" if self._is_perfect(size) else "monte_carlo")

    def diagnose(self, size: int) -> Mixing:
        """Mixing of the cluster chains at this size.

        Raises:
            OracleError: the chains have not mixed.
        """
        self.check_size(size)
        return self._tune(size).mixing

    @property
    def _model(self) -> IsingModel:
        return IsingModel(self.spec.coupling, self.spec.boundary, self.spec.limits)

    def _is_perfect(self, size: int) -> bool:
        """Whether the sampler of this size is the perfect one."""
        if self.spec.sampler != "auto":
            return self.spec.sampler == "perfect"
        shape = self.domain(size).shape
        cost = torus_sampler_cost((size, size)) if self.spec.boundary == "torus" else self._model.cost(shape)  # type: ignore[arg-type]
        return cost.fits(self.spec.limits)

    def _perfect(self, batch: int, size: int, generator: torch.Generator) -> Tensor:
        shape, device = self.domain(size).shape, self.anchor.device
        if self.spec.boundary != "torus":
            free = torch.zeros(shape, dtype=torch.float64, device=device)
            return self._model.samples(free, batch, generator=generator)
        key = (size, device)
        if key not in self._samplers:
            torus_sampler_cost((size, size)).require(
                self.spec.limits,
                what=f"Perfect samples on a {size} x {size} torus",
                where="ising, sampler: perfect",
                instead="use sampler: auto, which takes cluster chains there",
            )
            with torch.inference_mode(False):
                self._samplers[key] = TorusSampler(size, self._model.rows(size, device))
        return self._samplers[key].draw(batch, generator)

    def _chains(self, batch: int, size: int, generator: torch.Generator) -> Tensor:
        self._require_clusters(size)
        spins = self._start(batch, size, generator)
        return self._run(spins, self._tune(size).burn_in, generator)

    def _run(self, spins: Tensor, sweeps: int, generator: torch.Generator) -> Tensor:
        return swendsen_wang(spins, self.spec.coupling, sweeps, boundary=self.spec.boundary, generator=generator)

    def _start(self, batch: int, size: int, generator: torch.Generator) -> Tensor:
        """A coin decides whether a chain starts cold, all spins up, or hot, with spins at random."""
        coin = uniform((batch, 1, 1), generator=generator, like=self.anchor, dtype=torch.float32)
        shape = (batch, *self.domain(size).shape)
        unit = uniform(shape, generator=generator, like=self.anchor, dtype=torch.float32)
        return torch.where((coin < 0.5) | (unit < 0.5), 1.0, -1.0).double()

    def _tune(self, size: int) -> _Tuned:
        """Autocorrelation time at this size, from chains of a stream that the size names."""
        if size not in self._tuned:
            self._require_clusters(size)
            generator = stream(self.spec.seed, "ising", size)
            spins = self._run(self._start(DIAGNOSED_CHAINS, size, generator), DIAGNOSED_WARMUP, generator)
            values = []
            for _ in range(DIAGNOSED_DRAWS):
                spins = self._run(spins, 1, generator)
                values.append(_observables(spins))
            report = mixing(torch.stack(values), torch.ones(DIAGNOSED_CHAINS))
            report.require(max_r_hat=MAX_R_HAT, min_effective=MIN_EFFECTIVE, where=f"ising sample, size {size}")
            burn_in = math.ceil(BURN_IN * max(1.0, report.autocorrelation_time))
            self._tuned[size] = _Tuned(burn_in, report)
        return self._tuned[size]

    def _require_clusters(self, size: int) -> None:
        if self.spec.coupling < 0:
            raise OracleError(
                "An antiferromagnet has no clusters, and this size is beyond perfect samples.",
                where=f"ising sample, size {size}",
                expected="beta >= 0, or a smaller lattice",
                got=f"beta = {self.spec.coupling:g}",
                fix="lower the size, or raise memory and seconds; where the size is even, turn every other spin of a "
                "ferromagnet's sample",
            )


def _observables(spins: Tensor) -> Tensor:
    """Bond energy down the rows and squared magnetisation of every chain, ``(B, 2)``."""
    energy = (spins * spins.roll(-1, 1)).mean((1, 2))
    return torch.stack([energy, spins.mean((1, 2)).square()], 1)
