"""Reverse diffusion against exactly solvable processes: observed orders, moments, streams, masks and errors.

A mode of a Gaussian field has prior variance c and score :math:`-x/(c+v)`, on which every step is linear, so the
variance of the sampled mode obeys a recursion without noise. For a prior of two Gaussians the law of the sampler is
followed by quadrature. Both give the error of the discretisation alone, and its slope in the number of steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import NonFiniteError, SpecError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import NoiseSchedule
from sizetransfer.scores.sampling import (
    ORDERS,
    STEPS,
    SamplerSpec,
    Step,
    draw_noise,
    euler,
    generate,
    heun,
    rollout,
    sample,
)

SLOPE_TOLERANCE = 0.25
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
NOISE = NoiseSchedule(sigma_min=0.1, sigma_max=2.0)
MODES = torch.tensor([0.1, 0.5, 1.0, 4.0, 20.0], dtype=torch.float64)
RUNS = [("euler", 1.0), ("euler", 0.0), ("euler", 1.4), ("heun", 0.0), ("heun", 1.0), ("heun", 0.5)]
RUNS += [("ancestral", 1.0), ("ancestral", 0.0), ("ancestral", 0.6)]
over_runs = pytest.mark.parametrize(("method", "churn"), RUNS)
over_grids = pytest.mark.parametrize("grid", ["geometric", "power"])


def variances(steps: int, grid: str = "geometric") -> list[float]:
    return (SamplerSpec(steps=steps, grid=grid, noise=NOISE).sigmas() ** 2).tolist()


def slopes(errors: Sequence[float]) -> list[float]:
    """Observed orders from errors at doubled numbers of steps."""
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]


def has_order(errors: Sequence[float], order: int) -> bool:
    return all(abs(slope - order) <= SLOPE_TOLERANCE for slope in slopes(errors))


# --- broken steps: each has one wrong sigma -----------------------------------------------------------------------


def heun_at_one_sigma(score, x, v, v_next, churn, noise):
    """The second score is asked for at the noise level of the first."""
    return heun(lambda y, _: score(y, v), x, v, v_next, churn, noise)


def euler_with_differences_of_sigma(score, x, v, v_next, churn, noise):
    """The noise added is sigma - sigma' instead of the root of v - v'."""
    wrong = (math.sqrt(v) - math.sqrt(v_next)) / math.sqrt(v - v_next)
    return euler(score, x, v, v_next, churn, wrong * noise)


def ancestral_without_division(score, x, v, v_next, churn, noise):
    """The variance of the noise is (v - v') v' instead of (v - v') v' / v."""
    return x + (v - v_next) * score(x, v) + math.sqrt((v - v_next) * v_next) * noise


BROKEN: list[tuple[Step, float, int]] = [
    (heun_at_one_sigma, 0.0, 2),
    (heun_at_one_sigma, 1.0, 2),
    (euler_with_differences_of_sigma, 1.0, 1),
    (ancestral_without_division, 1.0, 1),
]
over_broken = pytest.mark.parametrize(("step", "churn", "order"), BROKEN)


# --- observed orders: Gaussian modes by recursion -----------------------------------------------------------------


def mode_variance(step: Step, churn: float, levels: Sequence[float], prior: Tensor = MODES) -> Tensor:
    """Variance of every mode at the last level, started from the exact law: the steps are linear in x and noise."""

    def score(x: Tensor, v: float) -> Tensor:
        return -x / (prior + v)

    variance, one, zero = prior + levels[0], torch.ones_like(prior), torch.zeros_like(prior)
    for v, v_next in itertools.pairwise(levels):
        kept = step(score, one, v, v_next, churn, zero)
        added = step(score, zero, v, v_next, churn, one)
        variance = kept**2 * variance + added**2
    return variance


def mode_errors(step: Step, churn: float, grid: str) -> list[list[float]]:
    """Errors of the variances for 64, 128 and 256 steps, one row a mode."""
    levels = [variances(steps, grid) for steps in (64, 128, 256)]
    errors = [(mode_variance(step, churn, own) - (MODES + own[-1])).abs() / MODES for own in levels]
    return torch.stack(errors, dim=1).tolist()


@over_grids
@over_runs
def test_observed_order_on_gaussian_modes(method, churn, grid):
    errors = mode_errors(STEPS[method], churn, grid)
    observed = [slopes(row) for row in errors]
    assert all(has_order(row, ORDERS[method]) for row in errors), observed


@over_broken
def test_wrong_sigma_loses_the_order_on_gaussian_modes(step, churn, order):
    assert not any(has_order(row, order) for row in mode_errors(step, churn, "geometric"))


@pytest.mark.parametrize(
    ("method", "churn", "kept", "added"),
    [
        ("euler", 1.0, lambda c, v, w: 1 - (v - w) / (c + v), lambda c, v, w: v - w),
        ("euler", 0.0, lambda c, v, w: 1 - (v - w) / (c + v) / 2, lambda c, v, w: 0 * c),
        ("ancestral", 1.0, lambda c, v, w: (c + w) / (c + v), lambda c, v, w: 0 * c + (v - w) * w / v),
        ("ancestral", 0.0, lambda c, v, w: (c + math.sqrt(v * w)) / (c + v), lambda c, v, w: 0 * c),
    ],
)
def test_recursion_by_hand(method, churn, kept, added):
    levels = variances(7)
    variance = MODES + levels[0]
    for v, w in itertools.pairwise(levels):
        variance = kept(MODES, v, w) ** 2 * variance + added(MODES, v, w)
    torch.testing.assert_close(mode_variance(STEPS[method], churn, levels), variance, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", ["euler", "ancestral"])
def test_one_step_has_the_exact_conditional_mean_of_any_prior(method):
    x, score = torch.tensor([0.3, -1.2]), torch.tensor([2.0, 0.7])
    mean = STEPS[method](lambda y, v: score, x, 1.7, 0.4, 1.0, torch.zeros(2))
    torch.testing.assert_close(mean, x + (1.7 - 0.4) * score)


@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0])
def test_ancestral_steps_are_exact_for_one_point(churn):
    point = torch.zeros(1, dtype=torch.float64)
    levels = variances(3)
    variance = mode_variance(STEPS["ancestral"], churn, levels, prior=point)
    assert variance.item() == pytest.approx(levels[-1], rel=1e-12)
    assert mode_variance(STEPS["euler"], churn, levels, prior=point).item() != pytest.approx(levels[-1], rel=0.1)


@pytest.mark.parametrize(("sigma_max", "better"), [(1.0, "euler"), (20.0, "ancestral")])
def test_ancestral_noise_is_the_better_one_only_far_above_the_data(sigma_max, better):
    """The percentages that the module's page quotes, for a free field of deviation 0.56."""
    prior = GaussianField(32, 32).spectrum
    noise = NoiseSchedule(sigma_min=0.05, sigma_max=sigma_max)
    levels = (SamplerSpec(steps=16, noise=noise).sigmas() ** 2).tolist()
    exact = (prior + levels[-1]).mean()
    errors = {
        method: ((mode_variance(step, 1.0, levels, prior).mean() - exact) / exact).item()
        for method, step in STEPS.items()
    }
    assert errors["ancestral"] < errors["heun"] < 0 < errors["euler"]
    assert (abs(errors["ancestral"]) < errors["euler"]) == (better == "ancestral")
    expected = {1.0: (0.09, -0.01, -0.14), 20.0: (0.50, -0.19, -0.33)}[sigma_max]
    assert tuple(round(errors[method], 2) for method in ("euler", "heun", "ancestral")) == expected


# --- observed orders: a prior of two Gaussians, by quadrature --------------------------------------------------------

CENTRE, WEIGHT, WIDTH = 1.0, 0.4, 0.6
LINE = torch.linspace(-11, 11, 1101, dtype=torch.float64)
SPACING = 22 / 1100
OBSERVABLES = torch.stack([LINE.cos(), LINE.square()])


def mixture_density(x: Tensor, v: float) -> Tensor:
    """0.4 N(-1, w² + v) + 0.6 N(1, w² + v)."""
    variance = WIDTH**2 + v
    terms = [torch.exp(-((x - centre) ** 2) / (2 * variance)) for centre in (-CENTRE, CENTRE)]
    return (WEIGHT * terms[0] + (1 - WEIGHT) * terms[1]) / math.sqrt(2 * math.pi * variance)


def mixture_score(x: Tensor, v: float) -> Tensor:
    variance = WIDTH**2 + v
    right = torch.sigmoid(2 * CENTRE * x / variance + math.log((1 - WEIGHT) / WEIGHT))
    return (CENTRE * (2 * right - 1) - x) / variance


def expectation(values: Tensor, v: float) -> Tensor:
    """E[f(X_v)] for f tabulated on the line: the trapezoidal rule is exact to rounding here."""
    return (values * mixture_density(LINE, v)).sum(-1) * SPACING


def interpolate(values: Tensor, x: Tensor) -> Tensor:
    """Cubic Lagrange interpolation of tables on the line."""
    position = ((x - LINE[0]) / SPACING).clamp(0, len(LINE) - 1)
    left = position.long().clamp(1, len(LINE) - 3)
    t = position - left
    weights = [-t * (t - 1) * (t - 2) / 6, (t + 1) * (t - 1) * (t - 2) / 2]
    weights += [-(t + 1) * t * (t - 2) / 2, (t + 1) * t * (t - 1) / 6]
    return sum(weight * values[:, left + offset] for weight, offset in zip(weights, (-1, 0, 1, 2), strict=True))


def normal_rule() -> tuple[Tensor, Tensor]:
    """Nodes and weights of the expectation over a standard normal number; the trapezoidal rule errs by 1e-11."""
    nodes = torch.linspace(-7, 7, 17, dtype=torch.float64)
    weights = torch.exp(-(nodes**2) / 2)
    return nodes, weights / weights.sum()


def mixture_errors(step: Step, churn: float) -> list[list[float]]:
    """|E f(sampled) - E f(X at the last level)| for 32 and 64 steps, by the backward recursion u_k(x) = E u_k+1."""
    nodes, weights = normal_rule() if churn > 0 else (torch.zeros(1), torch.ones(1))
    errors = []
    for count in (32, 64):
        levels, values = variances(count), OBSERVABLES
        for v, v_next in reversed(list(itertools.pairwise(levels))):
            moved = step(mixture_score, LINE.expand(len(nodes), -1), v, v_next, churn, nodes[:, None])
            values = torch.einsum("n,fnx->fx", weights, interpolate(values, moved))
        errors.append((expectation(values, levels[0]) - expectation(OBSERVABLES, levels[-1])).abs())
    return torch.stack(errors, dim=1).tolist()


@over_runs
def test_observed_order_on_a_nonlinear_score(method, churn):
    errors = mixture_errors(STEPS[method], churn)
    assert all(has_order(row, ORDERS[method]) for row in errors), [slopes(row) for row in errors]


@over_broken
def test_wrong_sigma_loses_the_order_on_a_nonlinear_score(step, churn, order):
    assert not any(has_order(row, order) for row in mixture_errors(step, churn))


# --- the sampler itself, on a Gaussian field -----------------------------------------------------------------------


class GaussianField:
    """A ring or torus with spectrum 1 / (mass² + e_k), its exact smoothed score and its exact law at any noise."""

    def __init__(self, *size: int, mass: float = 0.7) -> None:
        self.size = size
        axes = [2 - 2 * torch.cos(2 * math.pi * torch.arange(n) / n) for n in size]
        lattice_laplacian = sum(torch.meshgrid(*axes, indexing="ij"))
        self.spectrum = 1 / (mass**2 + lattice_laplacian)
        self.context = Context(Lattice(size))

    def filtered(self, x: Tensor, gain: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        half = gain[..., : self.size[-1] // 2 + 1].to(x.dtype)
        return torch.fft.irfftn(torch.fft.rfftn(x, dim=axes) * half, s=self.size, dim=axes)

    def score(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        gain = -1 / (self.spectrum + expand(sigma, x) ** 2)
        return self.filtered(x, gain)

    def at(self, sigma: float, white: Tensor) -> Tensor:
        """Fields of the exact law at noise ``sigma`` from white ones."""
        return self.filtered(white, (self.spectrum + sigma**2).sqrt())


@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("euler", 1), ("ancestral", 1)])
def test_probability_flow_converges_path_by_path(method, order, generator):
    """Without churn the exact flow of a mode is x sqrt((c + v') / (c + v)): no statistics are needed."""
    field = GaussianField(6, 4)
    white = torch.randn((3, 1, 6, 4), generator=generator)
    exact = field.at(NOISE.sigma_min, white)
    errors = []
    for steps in (32, 64, 128):
        sigmas = SamplerSpec(steps=steps, noise=NOISE).sigmas()
        start = field.at(NOISE.sigma_max, white)
        x = sample(field.score, start, sigmas, context=field.context, method=method, churn=0.0, generator=generator)
        errors.append((x - exact).norm().item())
    assert has_order(errors, order), slopes(errors)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["euler", "ancestral"])
def test_observed_order_of_sampled_variances(method):
    """On one long ring the mean square has a standard error far below the error of the discretisation.

    Its standard error, sqrt(2 mean (c + v')² / sites), is 0.0033 of the variance, and the errors are above 0.15. They
    must be those of the recursion within five standard errors; the slope is that of the recursion.
    """
    field = GaussianField(2**18, mass=0.9)
    exact = (field.spectrum + NOISE.sigma_min**2).mean()
    errors = []
    for steps in (8, 16):
        own = stream("order", method, steps)
        start = field.at(NOISE.sigma_max, draw_noise(torch.empty(1, 1, 2**18), [own]))
        sigmas = torch.tensor(variances(steps)).sqrt()
        x = sample(field.score, start, sigmas, context=field.context, method=method, generator=[own])
        errors.append(abs((x.square().mean() - exact) / exact).item())
    predicted = [
        abs((mode_variance(STEPS[method], 1.0, variances(steps), field.spectrum).mean() - exact) / exact).item()
        for steps in (8, 16)
    ]
    assert errors == pytest.approx(predicted, abs=5 * 0.0033)
    assert has_order(predicted, 1), (slopes(predicted), errors)


# --- grids -----------------------------------------------------------------------------------------------------------


@over_grids
def test_grid_runs_from_the_largest_to_the_smallest_noise(grid):
    sigmas = SamplerSpec(steps=10, grid=grid, noise=NOISE).sigmas()
    assert sigmas.shape == (11,)
    assert sigmas.dtype == torch.float64
    assert sigmas[0].item() == pytest.approx(NOISE.sigma_max, rel=1e-12)
    assert sigmas[-1].item() == pytest.approx(NOISE.sigma_min, rel=1e-12)
    steps = (sigmas.log() if grid == "geometric" else sigmas ** (1 / 7)).diff()
    torch.testing.assert_close(steps, steps[:1].expand(10))
    assert steps[0] < 0


# --- streams, contexts, dtypes ----------------------------------------------------------------------------------------


def drawn(batch: int, generator: torch.Generator | list[torch.Generator], **choices: object) -> Tensor:
    field = GaussianField(6, 4)
    spec = SamplerSpec(steps=4, noise=NOISE, **choices)
    return generate(field.score, spec, torch.zeros(batch, 1, 6, 4), context=field.context, generator=generator)


@pytest.mark.parametrize("method", STEPS)
def test_field_does_not_change_with_the_batch(method):
    alone, together = drawn(2, stream("a"), method=method), drawn(5, stream("a"), method=method)
    torch.testing.assert_close(alone, together[:2], rtol=0, atol=TOLERANCE[torch.float64])
    parts = [drawn(n, stream("a").fields(first, n), method=method) for first, n in ((0, 3), (3, 2))]
    torch.testing.assert_close(torch.cat(parts), together, rtol=0, atol=TOLERANCE[torch.float64])
    one_each = drawn(5, [stream("a").fields(row, 1) for row in range(5)], method=method)
    torch.testing.assert_close(one_each, together, rtol=0, atol=TOLERANCE[torch.float64])
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("method", STEPS)
def test_a_plain_generator_names_a_stream_for_each_field(method):
    together, shared = drawn(5, torch.Generator().manual_seed(1), method=method), torch.Generator().manual_seed(1)
    in_two = torch.cat([drawn(3, shared, method=method), drawn(2, shared, method=method)])
    torch.testing.assert_close(in_two, together, rtol=0, atol=TOLERANCE[torch.float64])
    assert not torch.allclose(together[0], together[1])


def test_one_stream_shared_by_all_fields_changes_them_with_the_batch():
    first, second = stream("a"), stream("a")
    assert not torch.allclose(drawn(2, [first] * 2), drawn(5, [second] * 5)[:2])


def test_same_generator_same_fields_and_other_generator_other_fields():
    assert torch.equal(drawn(2, stream("a")), drawn(2, stream("a")))
    assert not torch.equal(drawn(2, stream("a")), drawn(2, stream("b")))


def test_rollout_ends_with_the_sample_and_passes_every_level():
    field, start = GaussianField(5), torch.ones(2, 1, 5)
    sigmas = SamplerSpec(steps=6, noise=NOISE).sigmas()
    asked = []

    def score(x, sigma, context):
        assert sigma.shape == (2,)
        asked.append(sigma[0].item())
        return field.score(x, sigma, context)

    choices = {"context": field.context, "method": "euler"}
    states = list(rollout(score, start, sigmas, **choices, generator=stream("a")))
    last = sample(field.score, start, sigmas, **choices, generator=stream("a"))
    assert len(states) == 6
    assert torch.equal(states[-1], last)
    assert asked == pytest.approx(sigmas[:-1].tolist())
    assert torch.equal(start, torch.ones(2, 1, 5))


def test_score_sees_the_context_and_dead_sites_stay():
    mask = torch.tensor([True, True, False, True]).expand(3, 1, 4)
    condition = torch.arange(3.0).reshape(3, 1, 1).expand(3, 1, 4)
    context = Context(Lattice((4,)), condition=condition, mask=mask)
    like = torch.full((3, 1, 4), 7.0)

    def score(x, sigma, context):
        return (10 * context.condition - x) / expand(sigma, x) ** 2

    spec = SamplerSpec(method="ancestral", steps=8, noise=NoiseSchedule(sigma_min=1e-3, sigma_max=1.0))
    x = generate(score, spec, like, context=context, generator=stream("a"))
    assert torch.equal(x[..., 2], like[..., 2])
    live = x[mask].reshape(3, 3)
    torch.testing.assert_close(live, torch.tensor([0.0, 10.0, 20.0])[:, None].expand(3, 3), rtol=0, atol=6e-3)


@pytest.mark.parametrize("churn", [0.0, 1.0])
@pytest.mark.parametrize("method", STEPS)
def test_dead_sites_are_shown_as_they_are_at_every_evaluation_of_the_score(method, churn):
    """A score that sees them, and gives them one, must not find noise there in the middle of a step."""
    mask = torch.rand((2, 1, 6, 5), generator=stream("mask")) < 0.4
    context, seen = Context(Lattice((6, 5), periodic=False), mask=mask), []

    def score(x, sigma, context):
        seen.append(x[~mask])
        return 1 - x / (1 + expand(sigma, x) ** 2)

    spec = SamplerSpec(method=method, churn=churn, steps=4, noise=NOISE)
    x = generate(score, spec, torch.zeros(2, 1, 6, 5), context=context, generator=stream("a"), sigma_data=1.0)
    assert len(seen) == 4 * (2 if method == "heun" else 1)
    assert all((dead == 0).all() for dead in seen)
    assert (x[~mask] == 0).all()
    assert (x[mask] != 0).all()


def test_start_has_the_variance_of_noise_and_data():
    spec = SamplerSpec(steps=1, noise=NoiseSchedule(sigma_min=0.9999999, sigma_max=1.0), churn=0.0)
    like, context = torch.empty(1, 1, 200_000), Context(Lattice((200_000,)))
    for scale in (0.0, 2.0):
        x = generate(lambda x, *_: 0 * x, spec, like, context=context, generator=stream("a"), sigma_data=scale)
        assert x.square().mean().item() == pytest.approx(1 + scale**2, rel=5 * math.sqrt(2 / 200_000))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", STEPS)
def test_dtype_is_kept(method, dtype):
    field = GaussianField(6, 4)
    spec = SamplerSpec(steps=5, method=method, noise=NOISE, churn=0.0)
    start = field.at(2.0, torch.randn(2, 1, 6, 4, generator=stream("a")))
    runs = [
        sample(
            field.score,
            start.to(d),
            spec.sigmas(),
            context=field.context,
            method=method,
            churn=0.0,
            generator=stream("b"),
        )
        for d in (dtype, torch.float64)
    ]
    assert runs[0].dtype == dtype
    torch.testing.assert_close(runs[0].double(), runs[1], rtol=0, atol=TOLERANCE[dtype])


def test_no_graph_is_kept():
    weight = torch.ones((), requires_grad=True)
    context = Context(Lattice((3,)))
    sigmas = SamplerSpec(steps=2, noise=NOISE).sigmas()
    x = sample(lambda x, *_: -weight * x, torch.ones(1, 1, 3), sigmas, context=context, generator=stream("a"))
    assert not x.requires_grad


# --- errors -----------------------------------------------------------------------------------------------------------


def refused(**changes: object) -> None:
    arguments = {"sigmas": torch.tensor([1.0, 0.5]), "generator": stream("a"), "context": Context(Lattice((3,)))}
    sample(lambda x, *_: -x, torch.ones(2, 1, 3), **{**arguments, **changes})


@pytest.mark.parametrize(
    "levels",
    [[], [1.0], [0.5, 1.0], [1.0, 1.0], [1.0, 0.0], [1.0, -0.5], [-0.5, -1.0], [1.0, math.nan], [math.nan, 1.0]],
)
def test_levels_that_do_not_decrease_are_refused(levels):
    with pytest.raises(SpecError, match="must decrease"):
        refused(sigmas=torch.tensor(levels))


def test_wrong_number_of_streams_is_refused():
    with pytest.raises(SpecError, match="a random stream of its own"):
        refused(generator=[stream("a")] * 3)


@pytest.mark.parametrize("churn", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("method", STEPS)
def test_churn_that_is_no_size_of_a_noise_is_refused(method, churn):
    """A negative churn would put its drift in and its noise not."""
    with pytest.raises(SpecError, match="zero or more"):
        refused(method=method, churn=churn)


def test_context_of_other_fields_is_refused():
    with pytest.raises(SpecError, match=r"expected: shape \(batch, channels, 4\)"):
        refused(context=Context(Lattice((4,))))


def test_unknown_method_offers_the_nearest():
    with pytest.raises(SpecError, match="Did you mean 'euler'"):
        refused(method="eular")


def test_too_much_churn_for_an_ancestral_step_is_refused():
    largest = 1 / math.sqrt(0.75)
    refused(method="ancestral", churn=0.999 * largest)
    refused(method="euler", churn=1.001 * largest)
    with pytest.raises(SpecError, match=r"at most 1\.155"):
        refused(method="ancestral", churn=1.001 * largest)


@pytest.mark.parametrize(
    "field",
    [
        {"steps": 0},
        {"churn": -1.0},
        {"method": "sde"},
        {"grid": "linear"},
        {"rho": 0},
        {"churn": math.inf},
        {"rho": math.inf},
        {"noise": {"sigma_max": math.inf}},
    ],
)
def test_wrong_specification_is_refused(field):
    with pytest.raises(SpecError, match=next(iter(field))):
        SamplerSpec.parse(field)


@pytest.mark.parametrize("method", STEPS)
def test_state_that_is_not_finite_names_the_step(method):
    calls = []

    def score(x, sigma, context):
        calls.append(1)
        return x * (math.inf if len(calls) == (5 if method == "heun" else 3) else -1.0)

    sigmas = SamplerSpec(steps=6, noise=NOISE).sigmas()
    with pytest.raises(NonFiniteError, match="step 3 of 6"):
        sample(score, torch.ones(2, 1, 3), sigmas, context=Context(Lattice((3,))), method=method, generator=stream("a"))
