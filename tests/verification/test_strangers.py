"""Functions of strangers: wrapped with exactly what they can do, checked, and refused by name where they are wrong."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sizetransfer import oracle_from_functions
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import (
    Context,
    HasDensity,
    HasEnergy,
    HasPosterior,
    HasScore,
    HasSmoothedScore,
    Sample,
)
from sizetransfer.contracts.randomness import stream
from sizetransfer_verification import check_teacher

VARIANCE = 2.25
PAGE = Path(__file__).parents[2] / "docs" / "strangers.md"


def numpy_functions():
    """White noise of variance 2.25, written with numpy."""

    def sample(batch, size, rng):
        return 1.5 * rng.standard_normal((batch, 1, size, size))

    def posterior_covariance(x, sigma, site):
        answer = np.zeros((len(x), 1, 1, *x.shape[2:]), x.dtype)
        answer[(slice(None), 0, 0, *site)] = VARIANCE * sigma**2 / (VARIANCE + sigma**2)
        return answer

    def wide(sigma):
        return sigma[:, None, None, None]

    return {
        "score": lambda x: -np.asarray(x) / VARIANCE,
        "log_density": lambda x: np.sum(
            -0.5 * np.asarray(x) ** 2 / VARIANCE - 0.5 * np.log(2 * np.pi * VARIANCE), (1, 2, 3)
        ),
        "sample": sample,
        "smoothed_score": lambda x, sigma: -np.asarray(x) / (VARIANCE + wide(np.asarray(sigma)) ** 2),
        "posterior_mean": lambda x, sigma: np.asarray(x) * VARIANCE / (VARIANCE + wide(np.asarray(sigma)) ** 2),
        "posterior_covariance": posterior_covariance,
    }


def torch_functions():
    """The same, written with torch."""

    def sample(batch, size, generator):
        return 1.5 * torch.randn(batch, 1, size, size, generator=generator, dtype=torch.float64)

    def posterior_covariance(x, sigma, site):
        answer = x.new_zeros(len(x), 1, 1, *x.shape[2:])
        answer[(slice(None), 0, 0, *site)] = VARIANCE * sigma**2 / (VARIANCE + sigma**2)
        return answer

    def noisy(sigma):
        return VARIANCE + sigma[:, None, None, None] ** 2

    constant = 0.5 * np.log(2 * np.pi * VARIANCE)
    return {
        "score": lambda x: -x / VARIANCE,
        "log_density": lambda x: (-0.5 * x**2 / VARIANCE - constant).sum((1, 2, 3)),
        "sample": sample,
        "smoothed_score": lambda x, sigma: -x / noisy(sigma),
        "posterior_mean": lambda x, sigma: x * VARIANCE / noisy(sigma),
        "posterior_covariance": posterior_covariance,
    }


@pytest.mark.parametrize("functions", [numpy_functions, torch_functions], ids=["numpy", "torch"])
def test_a_whole_oracle_passes_every_check(functions):
    teacher = oracle_from_functions(**functions(), sigma_data=1.5, even=True, translation_period=1)
    library = functions.__name__.removesuffix("_functions")
    assert set(teacher.libraries.values()) == {library}
    report = check_teacher(teacher).raise_if_failed()
    assert report.counts["passed"] >= 28


def test_numpy_functions_may_use_the_operators_of_both_libraries():
    teacher = oracle_from_functions(score=lambda x: -x)
    assert teacher.libraries["score"] == "torch"
    assert oracle_from_functions(score=lambda x: -np.sinh(x)).libraries["score"] == "numpy"


CAPABILITIES = {
    "score": HasScore,
    "log_density": HasDensity,
    "smoothed_score": HasSmoothedScore,
    "posterior": HasPosterior,
}


def test_capabilities_are_exactly_those_that_were_given():
    functions = torch_functions()
    for count in range(1, 4):
        for names in itertools.combinations(CAPABILITIES, count):
            given = {n: f for n, f in functions.items() if n in names or n.removesuffix("_mean") in names}
            if "posterior" in names:
                given["posterior_covariance"] = functions["posterior_covariance"]
            teacher = oracle_from_functions(**given)
            assert {name for name, protocol in CAPABILITIES.items() if isinstance(teacher, protocol)} == set(names)
            assert not isinstance(teacher, HasEnergy)
    alone = oracle_from_functions(posterior_mean=functions["posterior_mean"])
    assert not isinstance(alone, HasPosterior)
    energy = oracle_from_functions(log_density=functions["log_density"], normalised=False)
    assert isinstance(energy, HasEnergy)
    assert not isinstance(energy, HasDensity)


def test_a_score_alone_gets_the_checks_that_apply():
    report = check_teacher(oracle_from_functions(score=lambda x: -np.tanh(x))).raise_if_failed()
    status = {outcome.id: outcome.status for outcome in report.outcomes}
    assert status["teacher/score-jacobian-is-symmetric"] == "passed"
    for statistical in ("samples-follow-the-score", "score-fluctuates-as-it-responds", "rows-are-independent"):
        assert status[f"teacher/{statistical}"] == "not applicable"
    assert not any(outcome.statistical for outcome in report.outcomes)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_wrong_score_is_caught_without_a_sampler(library):
    roll = {"numpy": np.roll, "torch": torch.roll}[library]

    def crooked(x):
        return -x - 0.3 * roll(x, 1, -1)

    report = check_teacher(oracle_from_functions(score=crooked))
    assert [outcome.id for outcome in report.outcomes if outcome.wrong] == ["teacher/score-jacobian-is-symmetric"]


def test_a_sampler_of_another_temperature_is_caught():
    functions = numpy_functions()
    functions["sample"] = lambda batch, size, seed: np.random.default_rng(seed).standard_normal((batch, 1, size, size))
    report = check_teacher(oracle_from_functions(score=functions["score"], sample=functions["sample"]))
    wrong = [outcome.id for outcome in report.outcomes if outcome.wrong]
    assert "teacher/samples-follow-the-score" in wrong


def test_the_scale_is_measured_from_samples_or_points():
    functions = numpy_functions()
    assert oracle_from_functions(sample=functions["sample"]).field.sigma_data == pytest.approx(1.5, rel=0.1)
    narrow = oracle_from_functions(
        score=functions["score"], points=lambda batch, size, rng: 0.2 * rng.standard_normal((batch, 1, size, size))
    )
    assert narrow.field.sigma_data == pytest.approx(0.2, rel=0.1)
    assert not narrow.draws_its_law
    with pytest.raises(OracleError, match="do not vary"):
        oracle_from_functions(sample=lambda batch, size, seed: np.ones((batch, 1, size, size)))
    white = oracle_from_functions(score=functions["score"], sigma_data=3.0)
    drawn = white.sample(50, 8, generator=stream("scale")).x
    assert float(drawn.std()) == pytest.approx(3.0, rel=0.1)


def test_draws_repeat_with_the_generator():
    for functions in (numpy_functions(), torch_functions()):
        teacher = oracle_from_functions(sample=functions["sample"])
        first, again, other = (teacher.sample(3, 4, generator=stream(name)).x for name in ("a", "a", "b"))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_derivatives_of_numpy_functions_are_those_of_torch(generator):
    context = Context(Lattice((3, 3)))
    gradients = []
    for function in (lambda x: np.sin(x) * np.roll(x, 1, -1), lambda x: torch.sin(x) * torch.roll(x, 1, -1)):
        teacher = oracle_from_functions(score=function)
        x = torch.randn(2, 1, 3, 3, generator=generator.manual_seed(3), requires_grad=True)
        weight = torch.arange(18.0).reshape(2, 1, 3, 3)
        answer = teacher.score(Sample(x, context))
        gradients.append(torch.autograd.grad((answer * weight).sum(), x)[0])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"score": lambda x: x[:, 0]}, "score has the wrong shape"),
        ({"log_density": lambda x: x}, "log_density has the wrong shape"),
        ({"score": lambda x: [1.0]}, "score is no array of real numbers"),
        ({"score": lambda x: np.ones(x.shape, int)}, "score is no array of real numbers"),
        ({"score": lambda x: 1j * x}, "score is no array of real numbers"),
        ({"score": lambda x: x * np.nan}, "score is not finite"),
        ({"score": lambda x: x / 0.0}, "score is not finite"),
        ({"score": lambda x, y: x}, "score failed"),
        ({"smoothed_score": lambda x, sigma: sigma}, "smoothed_score has the wrong shape"),
        ({"sample": lambda batch, size, seed: np.zeros((batch, size))}, "sample has the wrong shape"),
        ({"posterior_covariance": lambda x, sigma, site: x}, "posterior_covariance has the wrong shape"),
    ],
)
def test_wrong_answers_are_named_when_the_function_is_wrapped(functions, message):
    with pytest.raises(OracleError, match=message):
        oracle_from_functions(**functions)


def test_what_is_no_function_is_refused():
    with pytest.raises(SpecError, match="no function"):
        oracle_from_functions(score=np.ones(3))
    with pytest.raises(SpecError, match="nothing to check"):
        oracle_from_functions(points=lambda batch, size, seed: np.zeros((batch, 1, size, size)))
    with pytest.raises(SpecError, match="takes no randomness"):
        oracle_from_functions(sample=lambda batch, size: np.zeros((batch, 1, size, size)))


def test_sizes_and_noise_levels_are_refused_by_name():
    teacher = oracle_from_functions(**torch_functions(), sizes=(4, 6))
    with pytest.raises(OracleError, match="not defined at this size"):
        teacher.sample(1, 5, generator=stream("size"))
    x = teacher.sample(2, 6, generator=stream("size")).x
    with pytest.raises(OracleError, match="not positive"):
        teacher.smoothed_score(x, torch.tensor([1.0, 0.0]), Context(teacher.domain(6)))


@pytest.mark.parametrize(("dim", "channels"), [(1, 2), (3, 1)])
def test_other_dimensions_and_channels(dim, channels):
    teacher = oracle_from_functions(score=lambda x: -np.tanh(x), dim=dim, channels=channels, periodic=False)
    assert check_teacher(teacher, level="api").ok
    assert teacher.sample(2, 4, generator=stream("shape")).x.shape == (2, channels, *(4,) * dim)


def test_the_example_of_the_documentation_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, PAGE.name, "exec"), {})
    assert "failed" not in capsys.readouterr().out
