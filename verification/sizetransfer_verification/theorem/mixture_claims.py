"""Theorem 1 for finite-support priors with nonlinear students, and careless versions of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sizetransfer.contracts.quantity import Quantity
from sizetransfer_verification.theorem.claim import Claim, Comparison, halved
from sizetransfer_verification.theorem.mixture import COARSE, FINE, MixtureConfiguration, MixtureProcess

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    Strategy = Callable[[], SearchStrategy[MixtureConfiguration]]

PRIORS = (
    ((-1.0, 1.0), (1.0, 1.0)),
    ((-0.3, 0.3), (1.0, 1.0)),
    ((-1.0, 1.0), (3.0, 1.0)),
    ((-1.0, 0.0, 1.0), (1.0, 1.0, 1.0)),
    ((-0.2, 0.0, 0.5), (2.0, 1.0, 1.0)),
    ((-0.1, 0.1), (1.0, 4.0)),
    ((-0.5, 0.5), (1.0, 1.0)),
)
"""Levels and weights of a site."""


def configurations(sites: int, **narrowed: Sequence[Any]) -> Strategy:
    """Strategy of priors, students and samplers; of each number, the simplest value comes first.

    Args:
        sites: one or two.
        narrowed: values of single numbers instead of the usual ones.
    """

    def strategy() -> SearchStrategy[MixtureConfiguration]:
        from hypothesis import strategies as st

        choices: dict[str, Sequence[Any]] = {
            "prior": PRIORS,
            "coupling": (0.0, 1.0, 4.0, 20.0) if sites == 2 else (0.0,),
            "pair": (False, True) if sites == 2 else (False,),
            "vm": (0.5, 0.2) if sites == 2 else (0.5, 0.1, 0.02),
            "vx": (2.0, 1.0, 8.0),
            "steps": (1, 2, 3) if sites == 2 else (1, 2, 4, 8),
            "start": ("exact", "white"),
            "local": (False, True) if sites == 2 else (False,),
            "bias": (0.0, 0.1, 0.5, -0.1),
            "gain": (0.0, 0.1, 0.5, -0.1, -0.5),
            "ripple": (0.0, 0.1, 0.5),
            **narrowed,
        }
        return st.builds(_configuration, st.just(sites), **{name: st.sampled_from(of) for name, of in choices.items()})

    return strategy


def _configuration(
    sites: int, *, prior: tuple[Any, Any], pair: bool, start: Any, **numbers: Any
) -> MixtureConfiguration:
    # The initial error of two sites is a distance in the plane, which is not computed here.
    return MixtureConfiguration(*prior, sites=sites, pair=pair, start="exact" if pair else start, **numbers)


def _comparison(
    one: MixtureConfiguration, drift: Callable[[MixtureProcess], float], *, clean: bool = False, start: bool = True
) -> Comparison:
    """Truth and bound at two resolutions."""
    processes = [MixtureProcess(one, found[one.sites]) for found in (FINE, COARSE)]
    truth = halved(*(process.truth(clean=clean) for process in processes))
    total = halved(*((process.initial() if start else 0.0) + drift(process) for process in processes))
    # The rule for hat functions errs where a test function bends: by the fourth power of the spacing.
    truth = Quantity(truth.value, truth.error + 1e-6 * truth.value + 1e-9)
    return Comparison(truth, Quantity(min(2.0, total.value), total.error))


def _rollout(**options: Any) -> Callable[[MixtureConfiguration], Comparison]:
    shared = {name: options.pop(name) for name in ("clean", "start") if name in options}
    return lambda one: _comparison(one, lambda process: process.rollout_drift(**options), **shared)


def _stepwise(**options: Any) -> Callable[[MixtureConfiguration], Comparison]:
    shared = {name: options.pop(name) for name in ("clean", "start") if name in options}
    return lambda one: _comparison(one, lambda process: process.stepwise_drift(**options), **shared)


def mixture_claims() -> tuple[Claim[MixtureConfiguration], ...]:
    """The claims, true ones first."""
    site, pair = configurations(1), configurations(2)
    stepped = configurations(1, sampler=("euler", "ancestral"))
    statement = "(13) for Euler rollouts of a nonlinear student on a finite-support prior"
    return (
        Claim("mixture-site", f"{statement} of one site.", site, _rollout()),
        Claim("mixture-pair", f"{statement} of two coupled sites.", pair, _rollout(), examples=40),
        Claim("mixture-steps", "(13) in its discretised form, with optimally coupled steps.", stepped, _stepwise()),
        *_careless(site, stepped),
    )


def _careless(site: Strategy, stepped: Strategy) -> tuple[Claim[MixtureConfiguration], ...]:
    """Bounds with one ingredient wrong."""
    # Rollouts of few steps err by their steps, which hides the rest: these have nothing else that is wrong.
    plain: dict[str, Sequence[Any]] = {"gain": (0.0,), "ripple": (0.0,)}
    exact = {**plain, "bias": (0.0,)}
    from_white = configurations(1, start=("white",), **exact)
    locked = {"prior": PRIORS[-1:], "coupling": (16.0, 32.0), "vm": (0.2, 0.1), "vx": (1.0, 2.0), "steps": (4, 3)}
    alone: dict[str, Sequence[Any]] = {"start": ("exact",), "pair": (False,), "local": (False,)}
    pushed = configurations(2, bias=(2.0, 1.0), **locked, **alone, **plain)
    correlated = {"prior": PRIORS[:1], "coupling": (1.0, 4.0), "vx": (1.0, 2.0), "steps": (4, 3)}
    truncated = configurations(2, pair=(True,), local=(True,), **correlated, **exact)
    return (
        Claim(
            "mixture-pair/missing-weight",
            "Drift errors outside the patch cost nothing.",
            pushed,
            _rollout(weights="patch"),
            mistake="the weight of the other site is missing",
        ),
        Claim(
            "mixture-site/no-covariance",
            "A drift error fades as vm/v.",
            site,
            _rollout(weights="without covariance"),
            mistake="the posterior covariance is missing in the weight",
        ),
        Claim(
            "mixture-site/clean-law",
            "The learned law is near the clean law.",
            site,
            _rollout(clean=True),
            mistake="the wrong law",
        ),
        Claim(
            "mixture-site/no-start",
            "The initial law costs nothing.",
            from_white,
            _rollout(start=False),
            mistake="delta_ini is missing",
        ),
        Claim(
            "mixture-pair/truncation",
            "A score of one site is measured against the best of its kind.",
            truncated,
            _rollout(reference="local"),
            mistake="truncation is ignored",
        ),
        Claim(
            "mixture-steps/noise",
            "Only the means of steps matter.",
            stepped,
            _stepwise(noise=False),
            mistake="the cost of coupling unequal noises is missing",
        ),
    )
