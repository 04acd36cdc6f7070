"""Gaussian teachers on tori against dense linear algebra, and the laws of smoothed scores against differences."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from dense_gaussian import jacobian, lattice_precision, noisy_covariance
from tolerances import assert_rounding
from torch.distributions import MultivariateNormal

import sizetransfer as st
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import (
    Context,
    HasCovariance,
    HasDensity,
    HasPosterior,
    HasScore,
    HasSmoothedScore,
    Sample,
)
from sizetransfer.numerics.gaussian import GaussianField
from sizetransfer.systems.gaussian.teacher import GaussianTeacher, GaussianTeacherSpec

TOLERANCE = 1e-10
SIGNIFICANCE = 5.0
TWO = ((2.0, 0.5), (0.5, 1.0))
THREE = ((2.0, 0.5, -0.3), (0.5, 1.0, 0.2), (-0.3, 0.2, 1.5))
CASES = {
    "ring": ({"dim": 1, "mass": 0.5}, 7),
    "two-sites": ({"dim": 1, "mass": 0.5}, 2),
    "near-critical": ({"preset": "near-critical"}, 6),
    "plane": ({"dim": 2, "mass": 1.3}, 5),
    "plane-three-channels": ({"dim": 2, "channels": 3, "coupling": THREE}, 4),
    "volume-two-channels": ({"dim": 3, "channels": 2, "mass": 0.7, "coupling": TWO}, 3),
    "crystal-chain": ({"dim": 1, "springs": {"longitudinal": 2.0}}, 6),
    "crystal-plane": ({"preset": "harmonic-crystal"}, 5),
    "four-dimensions": ({"dim": 4, "mass": 0.8}, 3),
    "crystal-volume": ({"dim": 3, "channels": 3, "mass": 2.0, "springs": {"transverse": 0.3, "diagonal": 0.7}}, 3),
}
SIGMA = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)


def build(fields: dict) -> GaussianTeacher:
    return st.teacher("gaussian", **fields).double()


def dense(teacher: GaussianTeacher, size: int) -> torch.Tensor:
    spec = teacher.spec
    coupling = None if spec.springs else spec.channel_matrix(spec.channels)
    return lattice_precision(size, spec.dim, spec.mass, coupling=coupling, springs=spec.springs)


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    fields, size = request.param
    teacher = build(fields)
    return teacher, size, dense(teacher, size)


def fields_like(teacher: GaussianTeacher, size: int, batch: int, generator) -> torch.Tensor:
    return torch.randn(batch, teacher.field.channels, *(size,) * teacher.field.dim, generator=generator)


def largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max())


def test_scores_and_posterior_agree_with_dense_linear_algebra(case, generator):
    teacher, size, precision = case
    x = fields_like(teacher, size, len(SIGMA), generator)
    context = teacher.context(len(SIGMA), size)
    covariance = torch.linalg.inv(precision)
    clean = teacher.score(Sample(x, context))
    smoothed, mean = teacher.smoothed_score(x, SIGMA, context), teacher.posterior_mean(x, SIGMA, context)
    for row, sigma in enumerate(SIGMA.tolist()):
        flat = x[row].flatten()
        whitened = torch.linalg.solve(noisy_covariance(precision, sigma), flat)
        assert largest(clean[row].flatten() + precision @ flat) < TOLERANCE
        assert largest(smoothed[row].flatten() + whitened) < TOLERANCE
        assert largest(mean[row].flatten() - covariance @ whitened) < TOLERANCE


def test_rows_of_posterior_covariance_and_response_agree_with_dense_linear_algebra(case):
    teacher, size, precision = case
    context = teacher.context(1, size)
    site = tuple(range(1, teacher.field.dim + 1)) if size > 3 else (size - 1,) * teacher.field.dim
    place = int(torch.arange(context.domain.sites).reshape(context.domain.shape)[site])
    sites, channels = context.domain.sites, teacher.field.channels
    x = torch.zeros(len(SIGMA), channels, *context.domain.shape)
    posterior = teacher.posterior_covariance(x, SIGMA, context, site)
    response = teacher.response(SIGMA, context, site)
    covariance = torch.linalg.inv(precision)
    for row, sigma in enumerate(SIGMA.tolist()):
        inverse = torch.linalg.inv(noisy_covariance(precision, sigma))
        exact = covariance - covariance @ inverse @ covariance
        for channel in range(channels):
            at = channel * sites + place
            assert largest(posterior[row, channel].flatten() - exact[at]) < TOLERANCE
            assert largest(response[row, channel].flatten() + inverse[at]) < TOLERANCE


def test_densities_agree_with_dense_linear_algebra(case, generator):
    teacher, size, precision = case
    x = fields_like(teacher, size, len(SIGMA), generator)
    context = teacher.context(len(SIGMA), size)
    zero = torch.zeros(len(precision))
    clean = MultivariateNormal(zero, precision_matrix=precision).log_prob(x.flatten(1))
    noisy = [
        MultivariateNormal(zero, noisy_covariance(precision, sigma)).log_prob(x[row].flatten())
        for row, sigma in enumerate(SIGMA.tolist())
    ]
    assert largest(teacher.log_density(Sample(x, context)) - clean) < TOLERANCE * clean.abs().max()
    assert largest(teacher.smoothed_log_density(x, SIGMA, context) - torch.stack(noisy)) < TOLERANCE * 100


def test_covariance_between_sites_and_its_spectrum_agree_with_dense_linear_algebra(case):
    teacher, size, precision = case
    channels, shape = teacher.field.channels, (size,) * teacher.field.dim
    covariance = torch.linalg.inv(precision).reshape(channels, size**teacher.field.dim, channels, -1)
    sites = torch.tensor([1, 0, size**teacher.field.dim - 1])
    assert largest(teacher.covariance(size, sites) - covariance[:, sites][..., sites]) < TOLERANCE
    spectrum = teacher.covariance_spectrum(size)
    assert spectrum.dtype == torch.float64
    assert spectrum.shape == (shape if channels == 1 else (channels, channels, *shape))
    row = torch.fft.ifftn(spectrum.reshape(channels, channels, *shape), dim=tuple(range(2, 2 + len(shape))))
    assert largest(row.real.flatten(2) - covariance[:, 0]) < TOLERANCE
    assert largest(row.imag) < TOLERANCE


def test_the_spectrum_of_one_channel_is_the_formula():
    wave = 2 * math.pi * torch.arange(8) / 8
    laplacian = (2 - 2 * wave.cos())[:, None] + (2 - 2 * wave.cos())[None, :]
    assert largest(build({"mass": 0.3}).covariance_spectrum(8) - 1 / (0.09 + laplacian)) < 1e-12


def transposed(law: GaussianField) -> GaussianField:
    """Rotates channels the wrong way round."""
    return dataclasses.replace(law, rotation=law.rotation.T)


def halved(law: GaussianField) -> GaussianField:
    """Counts waves k and -k once, in the determinant."""
    basis = copy.copy(law.basis)
    basis.multiplicity = torch.ones_like(basis.multiplicity)
    return dataclasses.replace(law, basis=basis)


def mutant(teacher: GaussianTeacher, change: Callable[[GaussianField], GaussianField]) -> GaussianTeacher:
    """The teacher with another law."""

    class Mutant(GaussianTeacher):
        def law(self, shape: tuple[int, ...]) -> GaussianField:
            return change(super().law(shape))

    return Mutant(teacher.spec).double()


def test_a_transposed_rotation_of_channels_is_caught(generator):
    teacher = build(CASES["plane-three-channels"][0])
    precision = dense(teacher, 4)
    with pytest.raises(AssertionError):
        test_scores_and_posterior_agree_with_dense_linear_algebra(
            (mutant(teacher, transposed), 4, precision), generator
        )


def test_a_determinant_of_half_the_waves_is_caught(generator):
    teacher = build({})
    with pytest.raises(AssertionError):
        test_densities_agree_with_dense_linear_algebra((mutant(teacher, halved), 4, dense(teacher, 4)), generator)


def order(errors: list[float]) -> list[float]:
    """Observed orders of errors at steps that halve."""
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]


def test_scores_are_gradients_of_the_density_with_observed_order_two(case, generator):
    # The log-density is quadratic, and its central difference exact; the density itself has an error of order two.
    teacher, size, _ = case
    x = fields_like(teacher, size, 1, generator)
    direction = torch.randn(x.shape, generator=generator) / x[0].numel() ** 0.5
    context, sigma = teacher.context(1, size), torch.tensor([0.8])

    def density(step: float) -> float:
        moved, still = x + step * direction, x
        logs = [teacher.smoothed_log_density(at, sigma, context) for at in (moved, still)]
        return float((logs[0] - logs[1]).exp())

    score = teacher.smoothed_score(x, sigma, context)
    slope = float((score * direction).sum())
    bend = float((direction * teacher.smoothed_score(direction, sigma, context)).sum()) + slope**2
    steps = [0.05 / 2**k for k in range(4)]
    first = [abs((density(h) - density(-h)) / (2 * h) - slope) for h in steps]
    second = [abs((density(h) - 2 * density(0) + density(-h)) / h**2 - bend) for h in steps]
    assert all(abs(observed - 2) < 0.1 for observed in order(first)), first
    assert all(abs(observed - 2) < 0.1 for observed in order(second)), second


def tweedie(teacher, x, sigma, context) -> torch.Tensor:
    v = sigma.reshape(-1, *(1,) * (x.ndim - 1)) ** 2
    return (teacher.posterior_mean(x, sigma, context) - x) / v


def response_from_posterior(teacher, x, sigma, context, site, *, power: int = 2, delta: bool = True) -> torch.Tensor:
    """Paper eq. (9), with another power of v or without its second term where asked."""
    v = sigma.reshape(-1, *(1,) * (x.ndim)) ** 2
    row = teacher.posterior_covariance(x, sigma, context, site) / v**power
    if delta:
        for channel in range(x.shape[1]):
            row[(slice(None), channel, channel, *site)] -= 1 / sigma**2
    return row


def test_tweedie_and_equation_nine_hold_and_their_mutants_do_not(case, generator):
    teacher, size, _ = case
    x = fields_like(teacher, size, len(SIGMA), generator)
    context, site = teacher.context(len(SIGMA), size), (1,) * teacher.field.dim
    assert largest(tweedie(teacher, x, SIGMA, context) - teacher.smoothed_score(x, SIGMA, context)) < TOLERANCE
    response = teacher.response(SIGMA, context, site)
    assert largest(response_from_posterior(teacher, x, SIGMA, context, site) - response) < TOLERANCE
    for mutation in ({"power": 1}, {"power": 3}, {"delta": False}):
        assert largest(response_from_posterior(teacher, x, SIGMA, context, site, **mutation) - response) > 1e-2


@pytest.mark.parametrize("name", ["plane", "plane-three-channels", "crystal-plane"])
def test_samples_have_the_covariance_of_the_law(name, generator):
    # At most 48 * 49 / 2 entries at 5 standard errors: a false alarm in 1500 runs for each case.
    teacher, size = build(CASES[name][0]), 4
    draws = 20000
    x = teacher.sample(draws, size, generator=generator).x.flatten(1)
    covariance = torch.linalg.inv(dense(teacher, size))
    errors = ((torch.outer(covariance.diagonal(), covariance.diagonal()) + covariance**2) / draws).sqrt()
    deviations = ((x.T @ x / draws - covariance) / errors).abs()
    assert deviations.max() < SIGNIFICANCE
    assert (x.mean(0) / (covariance.diagonal() / draws).sqrt()).abs().max() < SIGNIFICANCE
    # The budget tells a field of another mass, five per cent apart.
    other = torch.linalg.inv(dense(build({**CASES[name][0], "mass": teacher.spec.mass * 1.05}), size))
    assert (((x.T @ x / draws - other) / errors).abs()).max() > SIGNIFICANCE


def decay_length(teacher: GaussianTeacher, sigma: float, size: int = 1024) -> float:
    """Length over which the response falls by e, one to two noise ranges away from the site."""
    row = teacher.response(torch.tensor([sigma]), teacher.context(1, size), (0,))[0, 0, 0].abs()
    near = max(1, round(min(sigma, 1 / teacher.spec.mass)))
    return near / float((row[near] / row[2 * near]).log())


def test_the_response_ranges_over_the_noise_or_the_correlation_length_whichever_is_shorter():
    critical = build({"dim": 1, "mass": 0.001})
    lengths = torch.tensor([decay_length(critical, sigma) for sigma in (2.0, 4.0, 8.0, 16.0)])
    assert ((lengths[1:] / lengths[:-1]).log2() - 1).abs().max() < 0.05
    for mass, sigma in ((0.001, 4.0), (0.5, 1.0), (0.5, 4.0), (0.5, 100.0), (0.1, 3.0)):
        exact = 1 / (2 * math.asinh(0.5 * math.sqrt(mass**2 + sigma**-2)))
        assert decay_length(build({"dim": 1, "mass": mass}), sigma) == pytest.approx(exact, rel=1e-6)
    assert decay_length(build({"dim": 1, "mass": 0.5}), 100.0) == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("mass", [0.05, 0.5, 3.0])
def test_the_scale_of_a_ring_is_its_closed_form(mass):
    assert build({"dim": 1, "mass": mass}).field.sigma_data ** 2 == pytest.approx(1 / (mass * math.sqrt(mass**2 + 4)))


def test_the_scale_is_that_of_a_component_where_channels_differ(generator):
    teacher = build(CASES["plane-three-channels"][0])
    rows = teacher.covariance(60, torch.tensor([0]))[:, 0, :, 0]
    assert teacher.field.sigma_data**2 == pytest.approx(float(rows.diagonal().mean()), rel=1e-9)


@pytest.mark.parametrize("preset", ["near-critical", "harmonic-crystal"])
def test_a_thousand_sites_a_side_take_seconds(preset, generator):
    teacher = st.teacher("gaussian", preset=preset)
    started = time.perf_counter()
    sample = teacher.sample(1, 1024, generator=generator)
    score = teacher.smoothed_score(sample.x, torch.ones(1, dtype=torch.float32), sample.context)
    assert score.isfinite().all()
    assert time.perf_counter() - started < 8


def test_single_precision_agrees_with_double(case, generator):
    teacher, size, _ = case
    x = fields_like(teacher, size, 3, generator)
    context = teacher.context(3, size)
    exact = teacher.smoothed_score(x, SIGMA, context)
    single = teacher.float()
    rough = single.smoothed_score(x.float(), SIGMA.float(), context)
    assert rough.dtype == torch.float32
    assert largest(rough - exact) < 1e-5 * largest(exact)
    assert single.sample(2, size, generator=generator).x.dtype == torch.float32
    assert single.log_density(Sample(x.float(), context)).dtype == torch.float32


def test_rows_alone_give_the_rows_of_a_batch(case, generator):
    teacher, size, _ = case
    x = fields_like(teacher, size, 3, generator)
    context = teacher.context(3, size)
    whole = teacher.smoothed_score(x, SIGMA, context)
    assert_rounding(teacher.smoothed_score(x[1:2], SIGMA[1:2], context), whole[1:2])


def test_the_jacobian_by_automatic_differentiation_is_the_response(generator):
    teacher = build({"preset": "harmonic-crystal"})
    with torch.inference_mode():
        teacher.sample(1, 6, generator=generator)
    x = torch.randn(1, 2, 6, 6, generator=generator, requires_grad=True)
    context, sigma = teacher.context(1, 6), torch.tensor([0.7])
    (row,) = torch.autograd.grad(teacher.smoothed_score(x, sigma, context)[0, 1, 2, 3], x)
    assert largest(row[0] - teacher.response(sigma, context, (2, 3))[0, 1]) < 1e-12


def test_every_oracle_is_there_and_declared_exact(case):
    teacher = case[0]
    for capability in (HasDensity, HasScore, HasSmoothedScore, HasPosterior, HasCovariance):
        assert isinstance(teacher, capability)
    assert all(exactness.kind == "exact" for exactness in teacher.exactness.values())
    assert {"sample", "log_density", "score", "smoothed_score", "posterior_covariance"} <= set(teacher.exactness)
    assert all(callable(getattr(teacher, name)) for name in teacher.exactness)


def test_samples_are_repeatable_and_their_scores_linear(case, generator):
    teacher, size, precision = case
    first, second = (teacher.sample(2, size, generator=torch.Generator().manual_seed(3)).x for _ in range(2))
    assert torch.equal(first, second)
    assert largest(first[0] - first[1]) > 0.1
    matrix = jacobian(lambda x: teacher.score(Sample(x, Context(teacher.domain(size)))), tuple(first.shape[1:]))
    assert largest(matrix + precision) < TOLERANCE


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mass": 0}, "mass"),
        ({"mass": -1.0}, "mass"),
        ({"mass": math.inf}, "mass"),
        ({"dim": 0}, "dim"),
        ({"dim": 21}, "dim"),
        ({"channels": 2, "coupling": [[1, 0.5], [0.4, 1]]}, "symmetric"),
        ({"channels": 2, "coupling": [[1, 2], [2, 1]]}, "the eigenvalue -1"),
        ({"channels": 2, "coupling": [[1, 0], [0, 0]]}, "the eigenvalue 0"),
        ({"channels": 2, "coupling": [[1, math.nan], [math.nan, 1]]}, "finite"),
        ({"channels": 2, "coupling": [[1]]}, "2 x 2 numbers"),
        ({"coupling": [[-1.0]]}, "positive eigenvalues"),
        ({"springs": {}}, "channels: 2"),
        ({"channels": 2, "springs": {}, "coupling": TWO}, "no coupling"),
        ({"channels": 2, "springs": {"longitudinal": 0}}, "springs.longitudinal"),
        ({"channels": 2, "springs": {"transverse": -0.1}}, "springs.transverse"),
        ({"preset": "free-feld"}, "Did you mean 'free-field'"),
    ],
)
def test_wrong_specifications_are_refused(fields, message):
    with pytest.raises(SpecError) as caught:
        st.teacher("gaussian", **fields)
    assert message in str(caught.value)


def test_wrong_questions_are_refused():
    teacher = build({})
    context, x = teacher.context(1, 4), torch.zeros(1, 1, 4, 4)
    for sigma in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(OracleError, match="noise level"):
            teacher.smoothed_score(x, torch.tensor([sigma]), context)
    for site in ((4, 0), (-1, 0), (0,)):
        with pytest.raises(OracleError, match="not on the lattice"):
            teacher.posterior_covariance(x, torch.ones(1), context, site)
    for sites in ([0, 16], [-1], [0.0], [[0]]):  # a torus would take 16 for 0
        with pytest.raises(OracleError, match="from 0 to 15"):
            teacher.covariance(4, torch.tensor(sites))
    with pytest.raises(OracleError, match="does not fit"):
        teacher.smoothed_score(torch.zeros(1, 2, 4, 4), torch.ones(1), context)
    with pytest.raises(OracleError, match="does not fit"):
        teacher.score(Sample(torch.zeros(1, 1, 4), context))
    with pytest.raises(OracleError, match="too small"):
        teacher.sample(1, 1, generator=torch.Generator())


# Torch would broadcast these levels, to more scores than fields or to one level for all. The tests' checks of shapes
# stop them at the oracles; in use, the oracles do.
QUESTIONS = """
import torch
import sizetransfer as st

teacher = st.teacher("gaussian", dim=1)
context, x = teacher.context(1, 4), torch.zeros(1, 1, 4)
answered = []
for sigma in (0.5, torch.tensor(0.5), torch.ones(2), torch.ones(1, 1), torch.ones(0)):
    for name in ("smoothed_score", "posterior_mean", "smoothed_log_density", "posterior_covariance"):
        site = [(0,)] if name == "posterior_covariance" else []
        try:
            getattr(teacher, name)(x, sigma, context, *site)
        except st.SizetransferError as error:
            if "one noise level for each field" in str(error):
                continue
        answered.append(f"{name} at {sigma}")
print(answered)
"""


def test_a_noise_level_that_is_not_one_for_each_field_is_refused():
    found = subprocess.run([sys.executable, "-c", QUESTIONS], capture_output=True, text=True, timeout=120, check=False)
    assert found.stdout.strip() == "[]", found.stdout + found.stderr


def test_presets_build_and_read_back():
    for preset in GaussianTeacherSpec.presets:
        spec = build({"preset": preset}).spec
        assert GaussianTeacherSpec.parse(spec.to_json()) == spec
