"""Posterior sampling in latent or field coordinates, refused where the chains have not mixed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, HasDensity, HasEnergy, HasLatent, HasScore, Sample, Teacher
from sizetransfer.contracts.randomness import normal, repeated_rows
from sizetransfer.contracts.specs import Spec
from sizetransfer.numerics.chains import LogDensity, hybrid_monte_carlo, mixing
from sizetransfer.scores.posterior.estimates import Posterior, lacks

PATH_LENGTH = math.pi / 2  # both coordinates have posterior standard deviations of at most one

Coordinates = Literal["latent", "field"]


class PosteriorSpec(Spec):
    """How a posterior is sampled, and when its chains count as mixed.

    The observables that are diagnosed: log-posterior, spatial mean and mean square of each field, and single sites.
    """

    chains: int = Field(8, ge=4, multiple_of=2, description="independent chains for every noisy field")
    warmup: int = Field(100, ge=20, description="transitions thrown away, in which the step size is found")
    draws: int = Field(200, ge=20, description="draws kept of every chain")
    coordinates: Coordinates | None = Field(None, description="null: latent where sigma >= sigma_data, else field")
    max_r_hat: float = Field(1.1, gt=1, description="largest split R-hat of chains that count as mixed")
    min_effective: float = Field(100, gt=0, description="smallest effective sample size, over the chains of a field")


def sample_posterior(
    teacher: Teacher,
    x: Float[Tensor, "batch channels *size"],
    sigma: Tensor,
    context: Context,
    spec: PosteriorSpec | None = None,
    *,
    generator: torch.Generator,
) -> Posterior:
    """Sample the clean field given the noisy one, for every row of ``x``.

    Args:
        teacher: knows its density, its energy, or a map from standard normal fields.
        x: noisy fields.
        sigma: their noise levels, above zero, shape ``(B,)``.
        context: their context.
        spec: numbers of chains and draws, coordinates, thresholds of mixing.
        generator: decides the chains.

    Raises:
        OracleError: the teacher has none of these capabilities, sigma is not positive, or the chains have not mixed;
            then with split R-hat and effective sample size.
    """
    spec = spec or PosteriorSpec()
    _check(x, sigma, context)
    chosen = spec.coordinates or _better_coordinates(teacher, sigma)
    repeated = _Repeated(teacher, x, sigma, context, spec.chains)
    generator = repeated_rows(generator, spec.chains)
    start = _white_posterior(repeated, generator)
    if chosen == "latent":
        target, to_field, start = _latent_target(repeated, start)
    else:
        target, to_field, start = _field_target(repeated, start)
    chains = hybrid_monte_carlo(
        target, start, path_length=PATH_LENGTH, warmup=spec.warmup, draws=spec.draws, generator=generator
    )
    draws, scores = _fields_and_scores(repeated, chains.draws, to_field)
    split = (spec.draws, x.shape[0], spec.chains)
    draws = draws.reshape(*split, *x.shape[1:])
    observables = _observables(draws, chains.log_density.reshape(split))
    report = mixing(observables, chains.acceptance).require(
        max_r_hat=spec.max_r_hat,
        min_effective=spec.min_effective,
        where=f"posterior of {type(teacher).__name__} at sigma = {float(sigma.max()):g}, in {chosen} coordinates",
    )
    scores = None if scores is None else scores.reshape(draws.shape)
    return Posterior(teacher, x, sigma, context, draws, scores, report, chains.gradients)


def _check(x: Tensor, sigma: Tensor, context: Context) -> None:
    if not (sigma.shape == x.shape[:1] and bool((sigma > 0).all()) and bool(sigma.isfinite().all())):
        raise OracleError(
            "A posterior needs one positive noise level for each field.",
            where="sample_posterior(sigma=)",
            expected=f"a tensor of {x.shape[0]} numbers above zero",
            got=f"shape {tuple(sigma.shape)}, smallest {float(sigma.min()):g}",
            fix="at sigma = 0 ask the teacher for its clean score instead",
        )
    if context.mask is not None or not bool(x.isfinite().all()):
        raise OracleError(
            "Only complete and finite fields have a posterior here.",
            where="sample_posterior(x=, context=)",
            expected="finite fields that live on every site",
            got="a mask" if context.mask is not None else "numbers that are not finite",
            fix="pass fields without dead sites",
        )


def _better_coordinates(teacher: Teacher, sigma: Tensor) -> Coordinates:
    """The better conditioned ones: the two condition numbers cross near the typical scale of the field."""
    if not isinstance(teacher, HasDensity | HasEnergy):
        return "latent"
    return "latent" if isinstance(teacher, HasLatent) and bool(sigma.min() >= teacher.field.sigma_data) else "field"


class _Repeated:
    """A teacher with noisy fields, each repeated for all of its chains: rows ``b * chains + k``."""

    def __init__(self, teacher: Teacher, x: Tensor, sigma: Tensor, context: Context, chains: int) -> None:
        self.teacher = teacher
        self.x = x.repeat_interleave(chains, 0)
        self.sigma = expand(sigma.repeat_interleave(chains, 0).to(x), x)
        condition = context.condition
        self.context = replace(
            context.to(x), condition=None if condition is None else condition.to(x).repeat_interleave(chains, 0)
        )

    def sample(self, fields: Tensor) -> Sample:
        return Sample(fields, self.context)

    def log_likelihood(self, fields: Tensor) -> Tensor:
        return -0.5 * ((self.x - fields) / self.sigma).square().flatten(1).sum(1)


def _white_posterior(repeated: _Repeated, generator: torch.Generator) -> Tensor:
    """Starts: draws of the posterior that a white Gaussian prior of variance ``sigma_data**2`` would have."""
    variance, v = repeated.teacher.field.sigma_data**2, repeated.sigma.square()
    noise = normal(repeated.x.shape, generator=generator, like=repeated.x).clamp(-3, 3)
    return repeated.x * variance / (variance + v) + noise * (variance * v / (variance + v)).sqrt()


def _latent_target(repeated: _Repeated, start: Tensor) -> tuple[LogDensity, LogDensity, Tensor]:
    teacher = repeated.teacher
    if not isinstance(teacher, HasLatent):
        raise lacks(teacher, "HasLatent", "use field coordinates")
    flow: HasLatent = teacher

    def to_field(z: Tensor) -> Tensor:
        return flow.push_forward(z)[0]

    def target(z: Tensor) -> Tensor:
        return repeated.log_likelihood(to_field(z)) - 0.5 * z.square().flatten(1).sum(1)

    with torch.no_grad():
        return target, to_field, flow.pull_back(start)[0]


def _field_target(repeated: _Repeated, start: Tensor) -> tuple[LogDensity, LogDensity, Tensor]:
    log_prior = _log_prior(repeated.teacher)

    def to_field(u: Tensor) -> Tensor:
        return repeated.x + repeated.sigma * u

    def target(u: Tensor) -> Tensor:
        return log_prior(repeated.sample(to_field(u))) - 0.5 * u.square().flatten(1).sum(1)

    return target, to_field, (start - repeated.x) / repeated.sigma


def _log_prior(teacher: Teacher) -> Callable[[Sample], Tensor]:
    if isinstance(teacher, HasDensity):
        return teacher.log_density
    if isinstance(teacher, HasEnergy):
        energy: HasEnergy = teacher
        return lambda sample: -energy.energy(sample)
    raise lacks(teacher, "HasDensity or HasEnergy", "choose a teacher with a density")


def _fields_and_scores(repeated: _Repeated, states: Tensor, to_field: LogDensity) -> tuple[Tensor, Tensor | None]:
    teacher = repeated.teacher
    with torch.no_grad():
        fields = torch.stack([to_field(state) for state in states])
    if not isinstance(teacher, HasScore):
        return fields, None
    return fields, torch.stack([teacher.score(repeated.sample(field)) for field in fields])


def _observables(draws: Tensor, log_density: Tensor) -> Tensor:
    """What is diagnosed, shape ``(n, K, B, O)``: log-posterior, mean, mean square, and four single sites."""
    fields = draws.double().flatten(3)
    single = fields[..., torch.linspace(0, fields.shape[-1] - 1, 4).round().long()]
    summaries = torch.stack([log_density, fields.mean(3), fields.square().mean(3)], dim=3)
    return torch.cat([summaries, single], dim=3).transpose(1, 2)
