r"""Hybrid (Hamiltonian) Monte Carlo for batches of independent chains, and what says whether they have mixed.

A chain targets a density :math:`\pi(x)`, known up to a constant, with the help of momenta :math:`p \sim N(0, I)`
(Duane et al. 1987; Neal 2011). One transition draws p anew, follows Hamilton's equations of

.. math:: H(x, p) = -\log\pi(x) + \tfrac12\|p\|^2

by n leapfrog steps of size :math:`\epsilon`, and accepts the end point with probability
:math:`\min(1, e^{-\Delta H})`: the step size makes a chain slow or fast, never wrong. n is uniform on
:math:`1, \ldots, 2\bar n - 1` with :math:`\bar n\epsilon` the path length, so that no mode returns to where it
started. The step size follows a target acceptance during warm-up (Robbins and Monro 1951) and is fixed afterwards.

What is reported, from draws of M chains of length n (Gelman et al. 2013; Vehtari et al. 2021):

- split :math:`\hat R = \sqrt{\widehat{\mathrm{var}}^+/W}`, chains cut in halves: one where they agree;
- integrated autocorrelation time :math:`\tau = 1 + 2\sum_t\rho_t`, with :math:`\rho_t` pooled over chains, so that a
  disagreement between chains counts as correlation, summed over Geyer's (1992) initial monotone sequence;
- effective sample size :math:`Mn/\tau`.

References:
    Duane, Kennedy, Pendleton, Roweth 1987, Hybrid Monte Carlo, Physics Letters B 195.
    Hoffman, Gelman 2014, The No-U-Turn sampler, https://arxiv.org/abs/1111.4246 (the first step size).
    Neal 2011, MCMC using Hamiltonian dynamics, https://arxiv.org/abs/1206.1901.
    Geyer 1992, Practical Markov chain Monte Carlo, Statistical Science 7.
    Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021, Rank-normalization, folding, and localization: an improved
    R-hat, https://arxiv.org/abs/1903.08008.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.gradients import density_and_score
from sizetransfer.contracts.randomness import integers, normal, uniform

LogDensity = Callable[[Tensor], Tensor]
"""Logarithm of a density up to a constant, ``(B, *shape)`` to ``(B,)``, each row by itself, differentiable."""

MOST_LEAPFROG_STEPS = 64


@dataclass(frozen=True)
class KnownGradient:
    """A target whose gradient is a formula: faster than differentiation, which is dear on small fields.

    Attributes:
        log_density: a state, ``(B, *shape)``, to its log-density, ``(B,)``.
        gradient: a state to the gradient of that, like the state.
    """

    log_density: LogDensity
    gradient: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """The log-density."""
        return self.log_density(x)


class NotMixedError(OracleError):
    """A chain has not mixed, so no number may be taken from it.

    Attributes:
        mixing: the diagnostics, where there are any.
    """

    mixing: Mixing | None = None


@dataclass(frozen=True)
class Chains:
    """Draws of independent chains after warm-up.

    Attributes:
        draws: states, shape ``(n, B, *shape)``.
        log_density: of the states, up to the target's constant, shape ``(n, B)``, double precision.
        acceptance: mean probability of acceptance of each chain, shape ``(B,)``.
        step: size of a leapfrog step.
        gradients: evaluations of the batched gradient along trajectories, warm-up included.
    """

    draws: Float[Tensor, "draws chains *shape"]
    log_density: Float[Tensor, "draws chains"]
    acceptance: Float[Tensor, "chains"]
    step: float
    gradients: int


@dataclass(frozen=True)
class _State:
    x: Tensor
    log_density: Tensor
    gradient: Tensor


def hybrid_monte_carlo(
    log_density: LogDensity,
    start: Float[Tensor, "chains *shape"],
    *,
    path_length: float,
    warmup: int,
    draws: int,
    generator: torch.Generator,
    step: float = 0.1,
    adapt: bool = True,
    target_acceptance: float = 0.8,
) -> Chains:
    """Run one chain from each row of ``start``; all share the step size and the numbers of leapfrog steps.

    Args:
        log_density: the target, up to a constant; a :class:`KnownGradient` is not differentiated.
        start: first states; spread them widely, or a failure to mix goes unnoticed.
        path_length: mean length of a trajectory, in units of the state: about pi/2 times the largest standard
            deviation of the target serves every direction.
        warmup: transitions that are thrown away.
        draws: transitions that are kept.
        generator: decides momenta, path lengths and acceptances.
        step: first step size.
        adapt: follow ``target_acceptance`` during warm-up; otherwise ``step`` is kept throughout.
        target_acceptance: mean probability of acceptance, over chains, that the warm-up aims at.

    Raises:
        OracleError: no draws are asked for, or the target is not finite at the start.
    """
    _check_draws(warmup, draws)
    state = _finite_start(_evaluate(log_density, start))
    schedule = _StepSize(_workable_step(log_density, state, step, generator) if adapt else step, target_acceptance)
    gradients, kept, densities, accepted = 1, [], [], []
    for index in range(warmup + draws):
        if index == warmup and adapt:
            schedule.settle()
        steps = _path_steps(path_length, schedule.step, generator)
        state, probability = _transition(log_density, state, schedule.step, steps, generator)
        gradients += steps
        if index >= warmup:
            kept.append(state.x)
            densities.append(state.log_density)
            accepted.append(probability)
        elif adapt:
            schedule.update(float(probability.mean()), settling=index >= warmup // 2)
    return Chains(torch.stack(kept), torch.stack(densities), torch.stack(accepted).mean(0), schedule.step, gradients)


def _check_draws(warmup: int, draws: int) -> None:
    """Refuse a chain of which nothing would be kept.

    Raises:
        OracleError: no draws.
    """
    if draws < 1 or warmup < 0:
        raise OracleError(
            "A chain without draws.",
            where="hybrid_monte_carlo(warmup=, draws=)",
            expected="warmup >= 0 and draws >= 1",
            got=f"warmup = {warmup}, draws = {draws}",
            fix="ask for at least one draw",
        )


def _finite_start(state: _State) -> _State:
    """The state that chains start from.

    Raises:
        OracleError: the target is not finite there.
    """
    if not (state.log_density.isfinite().all() and state.gradient.isfinite().all()):
        count = int((~state.log_density.isfinite()).sum())
        raise OracleError(
            "The target of a chain is not finite where the chain starts.",
            where="hybrid_monte_carlo(start=)",
            expected="a finite log-density and gradient at every start",
            got=f"{count} of {state.x.shape[0]} starts with another log-density",
            fix="start nearer to the bulk of the density, or mend the density",
        )
    return state


class _StepSize:
    """Robbins-Monro iteration for the logarithm of the step size, averaged over its second half."""

    def __init__(self, step: float, target: float) -> None:
        self.step = step
        self.target = target
        self.iterations = 0
        self.settled: list[float] = []

    def update(self, acceptance: float, *, settling: bool) -> None:
        self.iterations += 1
        self.step *= math.exp((acceptance - self.target) / self.iterations**0.6)
        if settling:
            self.settled.append(math.log(self.step))

    def settle(self) -> None:
        if self.settled:
            self.step = math.exp(math.fsum(self.settled) / len(self.settled))


def _workable_step(log_density: LogDensity, state: _State, step: float, generator: torch.Generator) -> float:
    """Double or halve the step size until the acceptance of single steps crosses one half, as Hoffman and Gelman do."""

    def acceptance(size: float) -> float:
        return float(_transition(log_density, state, size, 1, generator)[1].mean())

    grows = acceptance(step) > 0.5
    for _ in range(40):
        if (acceptance(step) > 0.5) != grows:
            break
        step = 2 * step if grows else step / 2
    return step


def _path_steps(path_length: float, step: float, generator: torch.Generator) -> int:
    """Leapfrog steps of one trajectory, uniform on ``1, ..., 2 n - 1`` with ``n * step`` the path length."""
    mean = min(max(1, round(path_length / step)), MOST_LEAPFROG_STEPS)
    return 1 + int(integers(2 * mean - 1, (), generator=generator, like=torch.empty(0, device="cpu")))


def _transition(
    log_density: LogDensity, state: _State, step: float, steps: int, generator: torch.Generator
) -> tuple[_State, Tensor]:
    """One trajectory and its Metropolis decision for every chain; return states and acceptance probabilities."""
    momentum = normal(state.x.shape, generator=generator, like=state.x)
    end, final_momentum = _leapfrog(log_density, state, momentum, step, steps)
    log_ratio = end.log_density - _kinetic(final_momentum) - state.log_density + _kinetic(momentum)
    log_ratio = torch.where(log_ratio.isnan(), -torch.inf, log_ratio)
    accept = _accept(log_ratio, generator)
    wide = accept.reshape(-1, *(1,) * (state.x.ndim - 1))
    chosen = _State(
        torch.where(wide, end.x, state.x),
        torch.where(accept, end.log_density, state.log_density),
        torch.where(wide, end.gradient, state.gradient),
    )
    return chosen, log_ratio.clamp_max(0).exp()


def _leapfrog(
    log_density: LogDensity, state: _State, momentum: Tensor, step: float, steps: int
) -> tuple[_State, Tensor]:
    momentum = momentum + 0.5 * step * state.gradient
    x = state.x
    for _ in range(steps - 1):
        x = x + step * momentum
        momentum = momentum + step * _gradient(log_density, x)
    state = _evaluate(log_density, x + step * momentum)
    return state, momentum + 0.5 * step * state.gradient


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * momentum.double().square().flatten(1).sum(1)


def _accept(log_ratio: Tensor, generator: torch.Generator) -> Bool[Tensor, "chains"]:
    """Metropolis: accept with probability ``min(1, exp(log_ratio))``."""
    unit = uniform(log_ratio.shape, generator=generator, like=log_ratio, dtype=torch.float64)
    return unit.log() < log_ratio


def _gradient(log_density: LogDensity, x: Tensor) -> Tensor:
    """The gradient alone: what is needed between the ends of a trajectory."""
    if isinstance(log_density, KnownGradient):
        with torch.no_grad():
            return log_density.gradient(x)
    return _evaluate(log_density, x).gradient


def _evaluate(log_density: LogDensity, x: Tensor) -> _State:
    if isinstance(log_density, KnownGradient):
        with torch.no_grad():
            return _State(x, log_density(x).double(), log_density.gradient(x))
    value, gradient = density_and_score(log_density, x.detach())
    return _State(x.detach(), value.double(), gradient)


# --- diagnostics ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixing:
    """Whether chains have mixed: the worst over the observables that were looked at.

    Attributes:
        acceptance: mean probability of acceptance.
        autocorrelation_time: largest integrated autocorrelation time, in transitions.
        effective: smallest effective sample size, over all chains of a target.
        r_hat: largest split R-hat.
        chains, draws: chains of a target, and draws of each.
    """

    acceptance: float
    autocorrelation_time: float
    effective: float
    r_hat: float
    chains: int
    draws: int

    def require(self, *, max_r_hat: float, min_effective: float, where: str) -> Self:
        """Return this if it meets the thresholds.

        Raises:
            NotMixedError: with the numbers.
        """
        if self.r_hat <= max_r_hat and self.effective >= min_effective:
            return self
        error = NotMixedError(
            "The chains have not mixed.",
            where=where,
            expected=f"split R-hat at most {max_r_hat:g} and an effective sample size of at least {min_effective:g}",
            got=f"split R-hat {self.r_hat:.4g}, effective sample size {self.effective:.4g} from {self.chains} chains "
            f"of {self.draws} draws, autocorrelation time {self.autocorrelation_time:.3g}, acceptance "
            f"{self.acceptance:.2f}",
            fix="use more warm-up and more draws; where chains sit in different wells no length helps",
        )
        error.mixing = self
        raise error


def mixing(values: Float[Tensor, "draws chains *observables"], acceptance: Tensor) -> Mixing:
    """Diagnose chains by observables of their draws (of one target, or of several along the last axes).

    Raises:
        OracleError: there are fewer than four draws or two chains to compare.
    """
    draws, chains = values.shape[:2]
    if draws < 4 or chains < 2:
        raise OracleError(
            "Chains can only be diagnosed by comparing several of some length.",
            where="mixing(values)",
            expected="at least 4 draws of at least 2 chains",
            got=f"{draws} draws of {chains} chains",
            fix="ask for more draws or more chains",
        )
    time = integrated_autocorrelation_time(values)
    return Mixing(
        acceptance=float(acceptance.mean()),
        autocorrelation_time=float(time.max()),
        effective=float(draws * chains / time.max()),
        r_hat=float(split_r_hat(values).max()),
        chains=chains,
        draws=draws,
    )


def split_r_hat(values: Float[Tensor, "draws chains *observables"]) -> Float[Tensor, "*observables"]:
    """Split R-hat of each observable (Gelman et al. 2013); infinite where chains do not move or are not finite."""
    values = values.double()
    half = values.shape[0] // 2
    halves = torch.cat([values[:half], values[-half:]], dim=1)
    within, between = halves.var(0).mean(0), halves.mean(0).var(0)
    ratio = ((half - 1) / half + between / within).sqrt()
    return torch.where(_moves(halves) & ratio.isfinite(), ratio, torch.inf)


def integrated_autocorrelation_time(
    values: Float[Tensor, "draws chains *observables"],
) -> Float[Tensor, "*observables"]:
    """Integrated autocorrelation time of each observable, in transitions; infinite where chains do not move."""
    values = values.double()
    draws, chains = values.shape[:2]
    spectrum = torch.fft.rfft(values - values.mean(0), n=2 * draws, dim=0)
    covariance = torch.fft.irfft(spectrum.abs().square(), n=2 * draws, dim=0)[:draws].mean(1) / (draws - 1)
    within = covariance[0]
    between = values.mean(0).var(0) if chains > 1 else torch.zeros_like(within)
    correlation = 1 - (within - covariance) / ((draws - 1) / draws * within + between)
    pairs = correlation[: draws // 2 * 2].unflatten(0, (-1, 2)).sum(1)
    positive = (pairs > 0).cumprod(0)
    time = 2 * (pairs.cummin(0).values * positive).sum(0) - 1
    # Antithetic chains may beat independent draws, but not by more than this (as in Stan).
    time = time.clamp_min(1 / math.log10(max(10, draws * chains)))
    return torch.where(_moves(values) & time.isfinite(), time, torch.inf)


def _moves(values: Tensor) -> Tensor:
    """Whether every chain takes more than one value, for each observable: a constant one knows nothing of mixing."""
    return (values.amax(0) > values.amin(0)).all(0)
