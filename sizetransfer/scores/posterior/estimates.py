"""What draws of the posterior say: means, covariances, the smoothed score and its response, with standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, HasScore, Sample, Teacher
from sizetransfer.numerics.chains import Mixing
from sizetransfer.numerics.statistics import error_of_mean, jackknife_variance
from sizetransfer.scores.posterior.responses import Responses
from sizetransfer.scores.posterior.weights import Weights, best_weights


@dataclass(frozen=True)
class EstimatedField:
    """An estimated tensor with its standard errors, of the same shape.

    It is no :class:`~sizetransfer.contracts.quantity.Quantity`, which is one number: limits and tests of whole fields
    would say nothing, and errors of neighbouring entries are not independent.
    """

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

    def mean(self) -> EstimatedField:
        """E[X_0 | x], like ``x``."""
        return _over_chains(self.draws.double().mean(0))

    def score(self, weight: float | None = None) -> EstimatedField:
        """Smoothed score E[f | x], like ``x``; ``weight`` 0 is Tweedie's formula (paper eq. (7)).

        Args:
            weight: of the clean score in f; ``None`` takes the one of least noise.
        """
        return _over_chains(self._regressand(weight)[0].mean(0))

    def covariance(self, site: Site) -> EstimatedField:
        """Cov(X_0 at ``site``, X_0 | x), unbiased, shape ``(B, C, C, *S)``; jackknife over chains.

        Raises:
            OracleError: the site is not on the domain.
        """
        self._check_sites([site])
        draws = _centred(self.draws)
        at_site = _at_sites(draws, [site])[..., 0]
        return _jackknife_covariance(at_site, draws, self.x.shape)

    def response_row(self, site: Site, weight: float | None = None) -> EstimatedField:
        r"""Row of the smoothed response, :math:`\partial s_{c,i}/\partial x_{c',j}`, shape ``(B, C, C, *S)``.

        Args:
            site: reference site i.
            weight: of the clean score in f; 0 is equation (9) of the paper, ``None`` takes the one of least noise.

        Raises:
            OracleError: the site is not on the domain, or a weight asks for clean scores that the teacher lacks.
        """
        self._check_sites([site])
        f, weights = self._regressand(weight)
        at_site = _at_sites(_centred(f), [site])[..., 0]
        covariance = _jackknife_covariance(at_site, _centred(self.draws), self.x.shape)
        v = expand(self.sigma.double().square(), covariance.value)
        rest = self._on_channels(weights.complement().row(site))
        return EstimatedField((covariance.value - rest) / v, covariance.standard_error / v)

    def responses(self, sites: Sequence[Site], weight: float | None = None, *, hessians: int = 1) -> Responses:
        """Rows of the smoothed response at many sites, from groups of two chains each, by the covariance of f with f.

        The weight that a group uses is found from the draws of the others, so that its rows are unbiased.

        Args:
            sites: reference sites.
            weight: of the clean score in f; ``None`` takes the one of least noise.
            hessians: draws of every group whose Hessian rows are averaged.

        Raises:
            OracleError: a site is not on the domain, or a weight asks for clean scores that the teacher lacks.
        """
        self._check_sites(sites)
        groups = []
        for first in range(0, self.draws.shape[2], 2):
            pair = [first, first + 1]
            f, weights = self._regressand(weight, held_out=pair)
            f = _centred(f[:, :, pair])
            rows = _cross_covariance(_at_sites(f, sites), f).movedim(2, 1)
            rows = rows.reshape(self.x.shape[0], len(sites), *self.x.shape[1:2], *self.x.shape[1:])
            rows = rows - self._constant_rows(weights.complement(), sites)
            if not weights.vanish():
                rows = rows + self._hessian_rows(weights, sites, pair, hessians)
            groups.append(rows.to(self.draws.dtype))
        return Responses(torch.stack(groups), tuple(sites), self.context.domain)

    def _constant_rows(self, rest: Weights, sites: Sequence[Site]) -> Tensor:
        """Rows of ``(1 - W)**2 / v``, shape ``(B, P, C, C, *S)``."""
        rows = torch.stack([rest.apply(rest.row(site), batch_axis=0) for site in sites], 1)
        return self._on_channels(rows) / expand(self.sigma.double().square(), rows[:, :, None, None])

    def _hessian_rows(self, weights: Weights, sites: Sequence[Site], chains: list[int], count: int) -> Tensor:
        """Rows of ``W H W``, a mean over ``count`` draws of these chains, shape ``(B, P, C, C, *S)``."""
        if not isinstance(self.teacher, HasScore):
            raise lacks(self.teacher, "HasScore", "ask for the weight 0")
        teacher: HasScore = self.teacher
        chosen = ((torch.arange(count) + 0.5) / count * self.draws.shape[0]).long()
        own = self.draws[:, :, chains]
        parts = []
        for index, draw in enumerate(chosen.tolist()):
            with torch.enable_grad():
                x = own[draw, :, index % own.shape[2]].detach().requires_grad_()
                score = weights.apply(teacher.score(Sample(x, self.context.to(x))), batch_axis=0)
                entries = _at_sites(score, sites).sum(0).T.flatten()  # site by site, channel by channel
                rows = [torch.autograd.grad(entry, x, retain_graph=True)[0].double() for entry in entries]
            parts.append(torch.stack(rows, 1).reshape(x.shape[0], len(sites), x.shape[1], *x.shape[1:]))
        return weights.apply(torch.stack(parts).mean(0), batch_axis=0)

    def _on_channels(self, rows: Tensor) -> Tensor:
        """Rows ``(..., *S)`` that act on every channel alike, as blocks ``(..., C, C, *S)``."""
        dim, channels = self.x.ndim - 2, self.x.shape[1]
        one = torch.eye(channels, dtype=rows.dtype, device=rows.device).reshape(channels, channels, *(1,) * dim)
        return rows.reshape(*rows.shape[: rows.ndim - dim], 1, 1, *rows.shape[rows.ndim - dim :]) * one

    def _regressand(self, weight: float | None, held_out: Sequence[int] = ()) -> tuple[Tensor, Weights]:
        """The draws of f, like the draws in double precision, and the weights of the clean score in it.

        Args:
            weight: see :meth:`score`.
            held_out: chains that the best weights must not know of.
        """
        draws, v = self.draws.double(), self.sigma.double().square()
        size = tuple(self.x.shape[2:])
        tweedie = (draws - self.x.double()[:, None]) / v.reshape(1, -1, *(1,) * (draws.ndim - 2))
        if self.scores is None:
            if weight:
                raise OracleError(
                    "The posterior has no clean scores.",
                    where=f"weight = {weight:g}",
                    expected="weight = 0 for a teacher without the capability HasScore",
                    got=repr(weight),
                    fix="leave the weight out",
                )
            return tweedie, Weights(torch.zeros_like(v), size)
        scores = self.scores.double()
        if weight is None:
            kept = [chain for chain in range(draws.shape[2]) if chain not in held_out]
            weights = best_weights(_centred(draws[:, :, kept]), _centred(scores[:, :, kept]), v, self.context.domain)
        else:
            weights = Weights(torch.full_like(v, weight), size)
        return tweedie + weights.apply(scores - tweedie, batch_axis=1), weights

    def _check_sites(self, sites: Sequence[Site]) -> None:
        """Refuse sites that are not on the domain."""
        for site in sites:
            self.context.domain.distance(site)


def _over_chains(means: Tensor) -> EstimatedField:
    """Mean over chains of chain means ``(B, K, ...)``, with the standard error of that mean."""
    return EstimatedField(means.mean(1), error_of_mean(means, 1))


def _centred(draws: Tensor) -> Tensor:
    """Deviations from the mean of all draws of a field: the covariance stays, its rounding shrinks."""
    draws = draws.double()
    return draws - draws.mean((0, 2), keepdim=True)


def _at_sites(draws: Tensor, sites: Sequence[Site]) -> Tensor:
    """Values ``(..., *S)`` at sites, ``(..., P)``."""
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


def _jackknife_covariance(at_site: Tensor, draws: Tensor, shape: torch.Size) -> EstimatedField:
    """Covariance of one site with all, ``(B, C, C, *S)``, and its standard error from leaving out each chain."""
    chains = at_site.shape[2]

    def estimate(kept: list[int]) -> Tensor:
        covariance = _cross_covariance(at_site[:, :, kept, :, None], draws[:, :, kept])
        return covariance.reshape(shape[0], shape[1], *shape[1:])

    everything = list(range(chains))
    left_out = torch.stack([estimate(everything[:k] + everything[k + 1 :]) for k in everything])
    return EstimatedField(estimate(everything), jackknife_variance(left_out).sqrt())


def lacks(teacher: Teacher, capability: str, fix: str) -> OracleError:
    """The error of a teacher that lacks a capability."""
    return OracleError(
        "The teacher lacks what its posterior is sampled with.",
        where=type(teacher).__name__,
        expected=f"the capability {capability}",
        fix=fix,
    )
