r"""The smoothed score of any teacher with a density, and its response, by sampling the posterior.

Given a noisy field :math:`x = X_0 + \sigma\xi`, :math:`v = \sigma^2`, the posterior of the clean field is
:math:`p(x_0|x) \propto p_0(x_0)\, e^{-\|x - x_0\|^2/2v}`. Chains (:mod:`sizetransfer.chains`) sample it in one of two
coordinates, which give the same law:

- ``latent``: :math:`x_0 = F(z)` with a standard normal prior for z, where the teacher is such an image;
  well-conditioned where the noise is large;
- ``field``: :math:`x_0 = x + \sigma u` with the teacher's log-density or energy; well-conditioned where it is small.

With posterior means and covariances, every quantity of the smoothed score follows. For any weight w

.. math:: f = w\, s_0(X_0) + (1 - w)\,\frac{X_0 - x}{v}, \qquad s_v(x) = E[f | x], \qquad
    \frac{\partial s_{v,i}}{\partial x_j} = \frac1v\operatorname{Cov}(f_i, X_{0j} | x) - \frac{1 - w}v\,\delta_{ij} .

w = 0 is Tweedie's formula and equation (9) of the paper, w = 1 the target-score identity (De Bortoli et al. 2024) and
its derivative. Their errors fall at opposite ends of the noise, and for a white Gaussian of variance c the weight
:math:`w = c/(c + v)` makes f constant; here :math:`c = 1/E[s_0^2]`, per component. Integrating by parts once more,
with the Hessian :math:`H = \nabla s_0` of the clean log-density,

.. math:: \frac{\partial s_{v,i}}{\partial x_j} = \operatorname{Cov}(f_i, f_j | x) + w^2\, E[H_{ij}(X_0) | x]
    - \frac{(1 - w)^2}v\,\delta_{ij} ,

whose error is smaller still, because f hardly varies and H is local; Hessians are taken of a few draws only.

Standard errors come from the spread of independent chains. Covariances do too: the products of the deviations minus
those of *different* chains' means are unbiased, whatever the autocorrelation. An absolute value is not: that of a
response which is zero has the mean of its own noise, and a tail sums thousands of them. Two estimates without that
floor enclose a shell's sum :math:`\sum_j |J_{ij}|` in expectation:

- from below, :math:`\sum_j \eta_{ij} J_{ij}` with signs :math:`\eta` from other chains (independent: where
  J is zero the mean is zero, where a sign is wrong it is too small); on a torus the signs are those of the mean over
  fields and even translations, which are known better than any single entry;
- from above, :math:`(n \sum_j J_{ij}^2)^{1/2}` (Cauchy and Schwarz, n sites on the shell), squares from products of
  different chains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.chains import LogDensity, Mixing, hybrid_monte_carlo, mixing
from sizetransfer.domain import Domain, Lattice, Site
from sizetransfer.errors import OracleError
from sizetransfer.noise import expand
from sizetransfer.oracle import Context, HasDensity, HasEnergy, HasLatent, HasScore, Sample, Teacher
from sizetransfer.randomness import normal
from sizetransfer.response import shell_counts, shell_sums
from sizetransfer.specs import Spec

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


@dataclass(frozen=True)
class Estimate:
    """Estimated tensors with their standard errors, of the same shape."""

    value: Tensor
    standard_error: Tensor


@dataclass(frozen=True)
class Posterior:
    """Draws of the clean field given noisy ones, from chains that have mixed.

    Attributes:
        teacher: whose posterior it is.
        x: noisy fields, shape ``(B, C, *S)``.
        sigma: their noise levels, shape ``(B,)``.
        context: their context.
        draws: clean fields, shape ``(n, B, K, C, *S)`` for K chains of n draws each.
        scores: clean scores of the draws, of the same shape, or none where the teacher knows none.
        mixing: diagnostics, the worst over fields and observables.
        gradients: batched gradients that the chains took.
    """

    teacher: Teacher
    x: Float[Tensor, "batch channels *size"]
    sigma: Float[Tensor, "batch"]
    context: Context
    draws: Tensor
    scores: Tensor | None
    mixing: Mixing
    gradients: int

    def mean(self) -> Estimate:
        """E[X_0 | x], like ``x``."""
        return _over_chains(self.draws.double().mean(0))

    def score(self, weight: float | None = None) -> Estimate:
        """Smoothed score E[f | x], like ``x``; ``weight`` 0 is Tweedie's formula (paper eq. (7)).

        Args:
            weight: of the clean score in f; ``None`` takes the one of least noise.
        """
        return _over_chains(self._regressand(weight)[0].mean(0))

    def covariance(self, site: Site) -> Estimate:
        """Cov(X_0 at ``site``, X_0 | x), unbiased, shape ``(B, C, C, *S)``; jackknife over chains."""
        draws = _centred(self.draws)
        at_site = _at_sites(draws, [site])[..., 0]
        return _jackknife_covariance(at_site, draws, self.x.shape)

    def response_row(self, site: Site, weight: float | None = None) -> Estimate:
        r"""Row of the smoothed response, :math:`\partial s_{c,i}/\partial x_{c',j}`, shape ``(B, C, C, *S)``.

        Args:
            site: reference site i.
            weight: of the clean score in f; 0 is equation (9) of the paper, ``None`` takes the one of least noise.
        """
        f, weights = self._regressand(weight)
        at_site = _at_sites(_centred(f), [site])[..., 0]
        covariance = _jackknife_covariance(at_site, _centred(self.draws), self.x.shape)
        v = expand(self.sigma.double().square(), covariance.value)
        row = covariance.value / v
        channels = torch.arange(self.x.shape[1])
        blocks = row[_index(site)]  # a view of the block of the site with itself
        blocks[:, channels, channels] -= ((1 - weights) / self.sigma.double().square())[:, None]
        return Estimate(row, covariance.standard_error / v)

    def responses(self, sites: Sequence[Site], weight: float | None = None, *, hessians: int = 1) -> Responses:
        """Rows of the smoothed response at many sites, from groups of two chains each, by the covariance of f with f.

        Args:
            sites: reference sites.
            weight: of the clean score in f; ``None`` takes the one of least noise.
            hessians: draws of every group whose Hessian rows are averaged.
        """
        f, weights = self._regressand(weight)
        f, w = _centred(f), weights.reshape(-1, *(1,) * (self.x.ndim + 1))
        v = self.sigma.double().square()
        groups = []
        for first in range(0, f.shape[2], 2):
            pair = slice(first, first + 2)
            rows = _cross_covariance(_at_sites(f[:, :, pair], sites), f[:, :, pair]).movedim(2, 1)
            rows = rows.reshape(*rows.shape[:-1], *self.x.shape[2:])
            if bool((weights > 0).any()):
                rows = rows + w.square() * self._hessian_rows(sites, pair, hessians)
            for index, site in enumerate(sites):
                own = rows[:, index][_index(site)]  # a view: (B, C, C)
                own.diagonal(dim1=1, dim2=2).sub_(((1 - weights).square() / v)[:, None])
            groups.append(rows.to(self.draws.dtype))
        return Responses(torch.stack(groups), tuple(sites), self.context.domain)

    def _hessian_rows(self, sites: Sequence[Site], chains: slice, count: int) -> Tensor:
        """Means of rows of the clean score's Jacobian over ``count`` draws of these chains, ``(B, P, C, C, *S)``."""
        if not isinstance(self.teacher, HasScore):
            raise _lacks(self.teacher, "HasScore", "ask for the weight 0")
        teacher: HasScore = self.teacher
        chosen = torch.linspace(0, self.draws.shape[0] - 1, count).round().long()
        own = self.draws[:, :, chains]
        parts = []
        for index, draw in enumerate(chosen.tolist()):
            with torch.enable_grad():
                x = own[draw, :, index % own.shape[2]].detach().requires_grad_()
                score = teacher.score(Sample(x, self.context.to(x)))
                rows = [
                    torch.autograd.grad(score[:, channel][_index(site)].sum(), x, retain_graph=True)[0].double()
                    for site in sites
                    for channel in range(x.shape[1])
                ]
            parts.append(torch.stack(rows, 1).reshape(x.shape[0], len(sites), x.shape[1], *x.shape[1:]))
        return torch.stack(parts).mean(0)

    def _regressand(self, weight: float | None) -> tuple[Tensor, Tensor]:
        """The draws of f, like the draws in double precision, and its weight for every field, ``(B,)``."""
        draws, v = self.draws.double(), self.sigma.double().square()
        trailing = (1, -1, *(1,) * (draws.ndim - 2))
        tweedie = (draws - self.x.double()[:, None]) / v.reshape(trailing)
        if self.scores is None:
            if weight:
                raise OracleError(
                    "The posterior has no clean scores.",
                    where=f"weight = {weight:g}",
                    expected="weight = 0 for a teacher without the capability HasScore",
                    got=repr(weight),
                    fix="leave the weight out",
                )
            return tweedie, torch.zeros_like(v)
        scores = self.scores.double()
        weights = 1 / (1 + v * scores.square().mean()) if weight is None else torch.full_like(v, weight)
        w = weights.reshape(trailing)
        return w * scores + (1 - w) * tweedie, weights


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
        raise _lacks(teacher, "HasLatent", "use field coordinates")
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
    raise _lacks(teacher, "HasDensity or HasEnergy", "choose a teacher with a density")


def _lacks(teacher: Teacher, capability: str, fix: str) -> OracleError:
    return OracleError(
        "The teacher lacks what its posterior is sampled with.",
        where=type(teacher).__name__,
        expected=f"the capability {capability}",
        fix=fix,
    )


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


# --- covariances ----------------------------------------------------------------------------------------------


def _over_chains(means: Tensor) -> Estimate:
    """Mean over chains of chain means ``(B, K, ...)``, with the standard error of that mean."""
    return Estimate(means.mean(1), means.std(1) / math.sqrt(means.shape[1]))


def _centred(draws: Tensor) -> Tensor:
    """Deviations from the mean of all draws of a field: the covariance stays, its rounding shrinks."""
    draws = draws.double()
    return draws - draws.mean((0, 2), keepdim=True)


def _index(site: Site) -> tuple[EllipsisType | int, ...]:
    return (..., *site)


def _at_sites(draws: Tensor, sites: Sequence[Site]) -> Tensor:
    """Values at sites, ``(n, B, K, C, P)``."""
    return draws[(..., *torch.tensor(sites).T)]


def _cross_covariance(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased covariance of ``(n, B, K, C, P)`` and ``(n, B, K, C, *S)`` from K chains: ``(B, C, P, C, N)``.

    Mean of products minus the mean of products of different chains' means.
    """
    b = b.flatten(4)
    chains = a.shape[2]
    products = torch.einsum("nbkcp,nbkdq->bcpdq", a, b) / (a.shape[0] * chains)
    own_a, own_b = a.mean(0), b.mean(0)
    same = torch.einsum("bkcp,bkdq->bcpdq", own_a, own_b)
    crossed = torch.einsum("bcp,bdq->bcpdq", own_a.sum(1), own_b.sum(1)) - same
    return products - crossed / (chains * (chains - 1))


def _jackknife_covariance(at_site: Tensor, draws: Tensor, shape: torch.Size) -> Estimate:
    """Covariance of one site with all, ``(B, C, C, *S)``, and its standard error from leaving out each chain."""
    chains = at_site.shape[2]

    def estimate(kept: list[int]) -> Tensor:
        covariance = _cross_covariance(at_site[:, :, kept, :, None], draws[:, :, kept])
        return covariance.reshape(shape[0], shape[1], *shape[1:])

    everything = list(range(chains))
    left_out = torch.stack([estimate(everything[:k] + everything[k + 1 :]) for k in everything])
    error = ((chains - 1) * (left_out - left_out.mean(0)).square().mean(0)).sqrt()
    return Estimate(estimate(everything), error)


# --- profiles, tails, ranges ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Responses:
    """Independent estimates of rows of the smoothed response.

    Attributes:
        rows: shape ``(G, B, P, C, C, *S)``: G independent groups of chains, P reference sites.
        sites: the reference sites.
        domain: where they live.
    """

    rows: Tensor
    sites: tuple[Site, ...]
    domain: Domain

    def shells(self) -> Float[Tensor, "batch distances"]:
        """Sums of ``|J_ij|`` over shells, a mean over sites: the estimate from below, without a noise floor."""
        total = self.rows.sum(0)
        shells = []
        for own in self.rows:
            signed = (own * self._directions(total - own)).sum((2, 3))
            shells.append(self._over_shells(signed))
        return torch.stack(shells).mean(0)

    def squared_shells(self) -> Float[Tensor, "batch distances"]:
        """Sums of ``J_ij**2`` over shells, a mean over sites, unbiased: products of different groups."""
        groups = self.rows.shape[0]
        products = self.rows.sum(0).square() - self.rows.square().sum(0)
        return self._over_shells(products.sum((2, 3)) / (groups * (groups - 1)))

    def counts(self) -> Float[Tensor, "distances"]:
        """Sites on each shell, a mean over reference sites."""
        counts = [shell_counts(self.domain, site) for site in self.sites]
        return torch.stack([_padded(count, max(map(len, counts))) for count in counts]).mean(0)

    def _over_shells(self, values: Tensor) -> Tensor:
        """Mean over sites of shell sums of ``(B, P, *S)``: shape ``(B, D)``."""
        sums = [shell_sums(values[:, p].double(), self.domain, site) for p, site in enumerate(self.sites)]
        width = max(table.shape[1] for table in sums)
        return torch.stack([_padded(table, width) for table in sums]).mean(0)

    def _directions(self, rows: Tensor) -> Tensor:
        """Signs of entries (for blocks, their directions), ``(B, P, C, C, *S)``, from rows of the other groups."""
        if isinstance(self.domain, Lattice) and self.domain.periodic:
            rows = self._mean_over_translations(rows)
        return rows / rows.square().sum((2, 3), keepdim=True).sqrt().clamp_min(torch.finfo(rows.dtype).tiny)

    def _mean_over_translations(self, rows: Tensor) -> Tensor:
        """Mean over fields and over sites of the same sublattice, each row moved to the origin and back."""
        axes = tuple(range(3, 3 + len(self.domain.shape)))
        parities = [sum(site) % 2 for site in self.sites]
        means = {}
        for parity in set(parities):
            moved = [
                rows[:, p].roll([-a for a in site], axes) for p, site in enumerate(self.sites) if parities[p] == parity
            ]
            means[parity] = torch.stack(moved).mean((0, 1))
        at_home = [
            means[parity].roll(site, [axis - 1 for axis in axes])
            for site, parity in zip(self.sites, parities, strict=True)
        ]
        return torch.stack(at_home)[None]


def _padded(values: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[-1]))
