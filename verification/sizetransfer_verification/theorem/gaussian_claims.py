"""Theorem 1 for Gaussian fields with linear students, and careless versions of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from sizetransfer.contracts.quantity import Quantity
from sizetransfer.theorem1 import Enclosure, gaussian_weights
from sizetransfer_verification.theorem.claim import Claim, Comparison, Configuration, numeric
from sizetransfer_verification.theorem.gaussian import Errors, GaussianConfiguration, Process, Sampler
from sizetransfer_verification.theorem.influence import mixture_influence

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    Strategy = Callable[[], SearchStrategy[GaussianConfiguration]]

SHAPES = ((3,), (2,), (4,), (6,), (9,), (2, 2), (3, 3))
"""Lattices."""


def configurations(*samplers: Sampler, **narrowed: Sequence[Any]) -> Strategy:
    """Strategy of reverse processes; of each number, the simplest value comes first.

    Args:
        samplers: the kinds of process.
        narrowed: values of single numbers instead of the usual ones.
    """

    def strategy() -> SearchStrategy[GaussianConfiguration]:
        from hypothesis import strategies as st

        choices: dict[str, Sequence[Any]] = {
            "shape": SHAPES,
            "mass": (1.0, 3.0, 0.5, 0.2),
            "scale": (1.0, 0.1, 0.01, 0.001, 3.0),
            "pair": (False, True),
            "vm": (0.1, 0.5, 0.01, 0.001),
            "vx": (1.0, 4.0, 10.0, 100.0),
            "churn": (1.0, 0.0, 0.5, 1.5),
            "sampler": samplers,
            "steps": (1, 2, 4, 16),
            "start": ("exact", "white"),
            "bias": (0.0, 0.001, 0.01, 0.1, 1.0, -0.01, -0.1),
            "gain": (0.0, 0.01, 0.1, 0.5, -0.1, -0.5),
            "radius": (None, 0, 1, 2),
            **narrowed,
        }
        return st.builds(_configuration, **{name: st.sampled_from(of) for name, of in choices.items()})

    return strategy


def _configuration(
    *, shape: tuple[int, ...], pair: bool, sampler: Sampler, churn: float, steps: int, **numbers: object
) -> GaussianConfiguration:
    origin = (0,) * len(shape)
    patch = (origin, (*origin[:-1], 1)) if pair else (origin,)
    # More churn than one may ask an ancestral step for more noise than there is after it.
    churn = min(churn, 1.0) if sampler == "ancestral" else churn
    steps = 1 if sampler == "continuous" else steps
    return GaussianConfiguration(
        shape,
        patch=patch,
        sampler=sampler,
        churn=churn,
        steps=steps,
        **numbers,  # type: ignore[arg-type]
    )


def _at_least(process: Process, noise: float | None = None) -> Quantity:
    """The truth from below; a distance changes by no more than mean and deviation of the patch."""
    # The Runge-Kutta method keeps ten digits of these.
    scale = math.sqrt(float(process.configuration.covariance[0, 0]) + process.configuration.vm)
    return numeric(process.truth(noise).lower, 1e-9 * scale)


def _total(initial: Enclosure, drift: float) -> Quantity:
    # The quadrature over v and the Runge-Kutta method keep nine digits of the drift error.
    total = initial.upper + drift
    return Quantity(min(2.0, total), 1e-8 * drift + 1e-12)


def shipped(one: GaussianConfiguration) -> Comparison:
    """The bound of :func:`sizetransfer.theorem1.gaussian_theorem1`, against the truth by dense algebra."""
    found = one.shipped().bound
    return Comparison(_at_least(Process(one)), Quantity(found.value, found.error + 1e-12, found.kind))


def dense(one: GaussianConfiguration) -> Comparison:
    """The bound by dense algebra."""
    process = Process(one)
    return Comparison(_at_least(process), _total(process.initial(), process.drift()))


def _with_errors(
    change: Callable[[GaussianConfiguration, Errors], Errors],
) -> Callable[[GaussianConfiguration], Comparison]:
    """The bound with the errors of every step changed."""

    def compare(one: GaussianConfiguration) -> Comparison:
        process = Process(one)
        drift = sum(change(one, errors).cost() for errors in process.errors)
        return Comparison(_at_least(process), _total(process.initial(), drift))

    return compare


def _of_process(**options: object) -> Callable[[GaussianConfiguration], Comparison]:
    """The bound with the drift error of another process."""

    def compare(one: GaussianConfiguration) -> Comparison:
        process = Process(one)
        careless = replace(process, **options)  # type: ignore[arg-type]
        return Comparison(_at_least(process), _total(process.initial(), careless.drift()))

    return compare


def _patch_only(one: GaussianConfiguration, errors: Errors) -> Errors:
    inside = np.zeros(one.sites)
    inside[one.places()] = 1
    return replace(errors, influence=errors.influence * inside)


def _half_the_noise(_: GaussianConfiguration, errors: Errors) -> Errors:
    return replace(errors, noise=errors.noise / 4)


def _mean_only(_: GaussianConfiguration, errors: Errors) -> Errors:
    nothing = np.zeros_like(errors.mean)
    return replace(errors, transfer=nothing, noise=nothing)


def _clean_law(one: GaussianConfiguration) -> Comparison:
    process = Process(one)
    return Comparison(_at_least(process, noise=0.0), _total(process.initial(), process.drift()))


def _without_start(one: GaussianConfiguration) -> Comparison:
    process = Process(one)
    return Comparison(_at_least(process), _total(Enclosure(0.0, 0.0), process.drift()))


@dataclass(frozen=True)
class GaussianInfluenceConfiguration(Configuration):
    """A Gaussian field, a patch and two variances.

    Attributes:
        field: the field and its patch; what concerns a learned process is ignored.
        v: variance at which the influence is felt, above that at which the process stops.
    """

    family: ClassVar[str] = "gaussian-influence"

    shape: tuple[int, ...] = (3,)
    mass: float = 1.0
    scale: float = 1.0
    pair: bool = False
    vm: float = 0.1
    ratio: float = 2.0
    churn: float = 1.0

    @property
    def v(self) -> float:
        """Variance at which the influence is felt."""
        return self.vm * self.ratio

    @property
    def field(self) -> GaussianConfiguration:
        """The field and its patch."""
        origin = (0,) * len(self.shape)
        patch = (origin, (*origin[:-1], 1)) if self.pair else (origin,)
        return GaussianConfiguration(self.shape, self.mass, self.scale, patch, self.vm, self.v, self.churn)


def influence_configurations() -> SearchStrategy[GaussianInfluenceConfiguration]:
    """Strategy of fields and variances."""
    from hypothesis import strategies as st

    return st.builds(
        GaussianInfluenceConfiguration,
        st.sampled_from(SHAPES),
        mass=st.sampled_from((1.0, 3.0, 0.5, 0.2)),
        scale=st.sampled_from((1.0, 0.1, 0.01, 3.0, 10.0)),
        pair=st.booleans(),
        vm=st.sampled_from((0.1, 0.5, 0.01, 2.0)),
        ratio=st.sampled_from((2.0, 1.2, 10.0, 100.0)),
        churn=st.sampled_from((1.0, 0.5, 1.5)),
    )


def _influence(
    one: GaussianInfluenceConfiguration, weights: Callable[[GaussianInfluenceConfiguration], np.ndarray]
) -> Comparison:
    """The most that a test function of the patch, constant across some direction, changes with one site."""
    field, claimed = one.field, weights(one)
    places = field.places()
    rows = field.contraction(one.v, one.vm, one.churn)[places]
    covariance = field.function(field.residual(one.v, one.vm, one.churn))[np.ix_(places, places)]
    found = []
    for site, shift in enumerate(rows.T):
        # The direction in which the mean of the patch moves, and the whitened one, which no test function can beat.
        for direction in (shift, np.linalg.solve(covariance, shift)):
            u = direction / np.linalg.norm(direction)
            std = math.sqrt(float(u @ covariance @ u))
            norm = mixture_influence(np.zeros(1), np.zeros(1), np.ones(1), float(u @ shift), std)
            found.append(Comparison(norm, numeric(float(claimed[site]))))
    return max(found, key=lambda comparison: comparison.ratio)


def _shipped_weights(one: GaussianInfluenceConfiguration) -> np.ndarray:
    spectrum = one.field._spectrum(one.field.covariance[0])
    v = torch.tensor([one.v], dtype=torch.float64)
    return gaussian_weights(spectrum, one.field.patch, v, one.vm, churn=one.churn)[0].flatten().numpy()


def _reverse_sde_weights(one: GaussianInfluenceConfiguration) -> np.ndarray:
    """The weights without churn in them."""
    return _shipped_weights(replace(one, churn=1.0))


def gaussian_claims() -> tuple[Claim[GaussianConfiguration] | Claim[GaussianInfluenceConfiguration], ...]:
    """The claims, true ones first."""
    steps, continuous = configurations("euler", "ancestral"), configurations("continuous")
    return (
        Claim("gaussian-continuous", "(13) for the continuous process, as the core computes it.", continuous, shipped),
        Claim("gaussian-steps", "(13) for Euler and ancestral steps, as the core computes it.", steps, shipped),
        Claim(
            "gaussian-weights",
            "No test function of a patch changes faster with a site than its exact weight.",
            influence_configurations,
            lambda one: _influence(one, _shipped_weights),
        ),
        *_wrong_sums(steps, continuous),
        *_wrong_laws(),
        *_wrong_processes(continuous),
        Claim(
            "gaussian-weights/churn",
            "The weights of the reverse SDE serve for any churn.",
            influence_configurations,
            lambda one: _influence(one, _reverse_sde_weights),
            mistake="the power (1 + lambda^2)/2 is missing in the weights",
        ),
    )


def _wrong_sums(steps: Strategy, continuous: Strategy) -> tuple[Claim[GaussianConfiguration], ...]:
    """Bounds that sum the right errors in a wrong way."""
    # With nothing else that is wrong: other errors, which the bound counts in full, would hide the mistake.
    pushed = configurations("euler", "ancestral", bias=(1.0, 0.1, 0.01), gain=(0.0,), start=("exact",), steps=(16, 4))
    return (
        Claim(
            "gaussian-continuous/missing-weight",
            "Drift errors outside the patch cost nothing.",
            continuous,
            _with_errors(_patch_only),
            mistake="the weights of all other sites are missing",
        ),
        Claim(
            "gaussian-steps/missing-weight",
            "Errors of a step outside the patch cost nothing.",
            pushed,
            _with_errors(_patch_only),
            mistake="the weights of all other sites are missing",
        ),
        Claim(
            "gaussian-steps/half-the-noise",
            "Unequal noises cost half of what they do.",
            steps,
            _with_errors(_half_the_noise),
            mistake="half the noise",
        ),
        Claim(
            "gaussian-continuous/signed",
            "Errors of both signs cancel in the mean.",
            continuous,
            _with_errors(_mean_only),
            mistake="the absolute value of the error is taken after its mean",
        ),
    )


def _wrong_laws() -> tuple[Claim[GaussianConfiguration], ...]:
    """Bounds for another law at the start or at the end."""
    both = configurations("euler", "ancestral", "continuous")
    return (
        Claim(
            "gaussian/clean-law", "The learned law is near the clean law.", both, _clean_law, mistake="the wrong law"
        ),
        Claim(
            "gaussian/no-start",
            "The initial law costs nothing.",
            both,
            _without_start,
            mistake="delta_ini is missing",
        ),
    )


def _wrong_processes(continuous: Strategy) -> tuple[Claim[GaussianConfiguration], ...]:
    """Bounds whose errors are those of another process: another reference, another churn, another law on the way."""
    local: dict[str, Sequence[Any]] = {"radius": (0, 1, 2), "gain": (0.0,), "bias": (0.0,), "start": ("exact",)}
    return (
        Claim(
            "gaussian-continuous/truncation",
            "A score is measured against the exact one cut off at its radius.",
            configurations("continuous", **local),
            _of_process(reference="truncated"),
            mistake="truncation is ignored",
        ),
        Claim(
            "gaussian-steps/truncation",
            "A step is measured against one with the exact score cut off at its radius.",
            configurations("euler", "ancestral", **local),
            _of_process(reference="truncated"),
            mistake="truncation is ignored",
        ),
        Claim(
            "gaussian-continuous/churn",
            "Any churn costs what the reverse SDE does.",
            continuous,
            _of_process(churn=1.0),
            mistake="the factor (1 + lambda^2)/2 is missing, in the drift and in the weights",
        ),
        Claim(
            "gaussian-continuous/exact-law",
            "Errors are averaged over noisy samples of the exact law, as in training.",
            continuous,
            _of_process(on_learned_law=False),
            mistake="errors along the exact process instead of the learned one",
        ),
    )
