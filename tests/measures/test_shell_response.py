"""Responses of exact, best local and learned scores, against enumeration of all spins and against the certificate."""

from __future__ import annotations

import math

import pytest
import torch
from brute_ising import enumerate_spins

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError, SizetransferError, SpecError
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import Context, HasLocalPosterior, draw_fields
from sizetransfer.contracts.randomness import batches, stream
from sizetransfer.measures.correlation_length import correlation_length
from sizetransfer.measures.shell_response import ShellResponseSpec
from sizetransfer.systems.ising import CRITICAL
from sizetransfer.systems.ising.certificate import ferromagnet_certificate

SIZE, SIGMAS, SITE = 4, (0.7, 1.5), (2, 2)


def ising(ratio=0.9, **fields):
    return st.teacher("ising", beta_over_critical=ratio, **fields).double().frozen()


def best_local(teacher, radius=1, ratio=0.9):
    return st.student(
        "optimal-local-ising", teacher.field, beta_over_critical=ratio, radius=radius, reference="lattice"
    )


def measured(teacher, student, size=SIZE, seed=0, **settings):
    spec = ShellResponseSpec.parse({"kind": "shell-response", "sigmas": SIGMAS, "probe": 2, "fields": 6, **settings})
    rows = list(spec.measure(teacher, student, size, sigma=0.1, seed=seed))
    table = {(row.part, row.coordinate): row for row in rows}
    assert len(table) == len(rows)
    return table


def fields_of(teacher, sigma, fields=6, seed=0):
    (drawn,) = batches(fields, 8, seed, "shell-response", SIZE, repr(sigma))
    count, generator = drawn
    sample = draw_fields(teacher, count, SIZE, generator=generator)
    return perturb(sample.x, sample.x.new_full((count,), sigma), generator=generator)[0][:, 0]


# --- the posterior given a ball ---------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", ["torus", "open", "cylinder"])
@pytest.mark.parametrize("site", [(0, 0), (1, 3)])
def test_the_posterior_given_a_ball_is_that_of_the_enumerated_spins(boundary, site):
    teacher = ising(boundary=boundary, **({"circumference": 4} if boundary == "cylinder" else {}))
    assert isinstance(teacher, HasLocalPosterior)
    domain, sigma = teacher.domain(SIZE), torch.tensor([0.8])
    x = torch.randn(1, 1, SIZE, SIZE, generator=stream("field", boundary))
    inside = domain.ball(site, 1)
    asked = (x, sigma, Context(domain), site, 1)
    exact = enumerate_spins(x[0, 0] / 0.64 * inside, teacher.coupling, boundary)
    assert float(teacher.local_posterior_mean(*asked)) == pytest.approx(float(exact.mean[site]), abs=1e-12)
    covariance = teacher.local_posterior_covariance(*asked)[0, 0, 0]
    torch.testing.assert_close(covariance, exact.covariance[site] * inside, rtol=0, atol=1e-12)
    # Another ball is another posterior.
    shifted = enumerate_spins(x[0, 0] / 0.64 * domain.ball((site[0] + 1, site[1]), 1), teacher.coupling, boundary)
    assert abs(float(shifted.mean[site] - exact.mean[site])) > 1e-3


def test_the_local_score_and_its_response_are_those_of_the_ball():
    teacher, sigma = ising(), torch.tensor([0.8, 1.3])
    x = torch.randn(2, 1, 5, 5, generator=stream("field"))
    posterior, v = teacher.posterior(Lattice((5, 5))), sigma.square()
    mean = posterior.local_mean_at(x, sigma, (1, 2), 1)
    score = posterior.local_score(x, sigma, 1)[:, 0, 1, 2]
    torch.testing.assert_close(score, (mean - x[:, 0, 1, 2]) / v, rtol=1e-12, atol=1e-12)
    row = posterior.local_covariance(x, sigma, (1, 2), 1) / v.square()[:, None, None]
    row[:, 1, 2] -= 1 / v
    torch.testing.assert_close(posterior.local_response(x, sigma, (1, 2), 1), row, rtol=1e-12, atol=1e-12)


def test_wrong_questions_about_a_ball_are_refused():
    teacher, x = ising(), torch.zeros(1, 1, 4, 4)
    context = Context(teacher.domain(4))
    for sigma, site, radius in ((0.0, (0, 0), 1), (1.0, (4, 0), 1), (math.nan, (0, 0), 1), (1.0, (0, 0), -1)):
        with pytest.raises(OracleError):
            teacher.local_posterior_mean(x, torch.tensor([sigma]), context, site, radius)
        with pytest.raises(OracleError):
            teacher.local_posterior_covariance(x, torch.tensor([sigma]), context, site, radius)


# --- the measure ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    teacher = ising()
    return measured(teacher, best_local(teacher), radii=(0,))


def test_numbers_in_double_precision_need_no_default(table):
    """1/0.49, rounded to single precision, is wrong in the eighth digit."""
    teacher = ising()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        found = measured(teacher, best_local(teacher).double(), radii=(0,))
    finally:
        torch.set_default_dtype(default)
    for key in (("zero_correlation_length", 0.7), ("zero_outside_share_0", 0.7)):
        assert found[key].value == pytest.approx(table[key].value, rel=1e-12)


def brute_rows(x, sigma, coupling, *, radius=None):
    inside = Lattice((SIZE, SIZE)).ball(SITE, 2 if radius is None else radius)
    rows = []
    for field in x:
        row = enumerate_spins(field / sigma**2 * inside, coupling).covariance[SITE] / sigma**4 * inside
        row[SITE] -= 1 / sigma**2
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(("prefix", "name", "radius"), [("", "exact", None), ("", "local", 1), ("zero_", "local", 1)])
def test_responses_are_those_of_the_enumerated_spins(table, sigma, prefix, name, radius):
    x = torch.zeros(1, SIZE, SIZE) if prefix else fields_of(ising(), sigma)
    rows, distance = brute_rows(x, sigma, ising().coupling, radius=radius), Lattice((SIZE, SIZE)).distance(SITE)
    for part, values in (("shell", rows), ("shell_absolute", rows.abs())):
        expected = values[:, distance == 2].sum(1)
        found = table[f"{prefix}{part}_{name}", sigma]
        assert found.value == pytest.approx(float(expected.mean()), abs=1e-10)
        if not prefix:
            assert found.standard_error == pytest.approx(float(expected.std() / math.sqrt(len(x))), abs=1e-10)
    for radius in (0, 1):
        tail = rows.abs()[:, distance > radius].sum(1).mean()
        found = table[f"{prefix}tail_{name}_{sigma:g}", float(radius)].value
        assert found == pytest.approx(float(tail), abs=1e-10)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_errors_and_shares_are_those_of_the_enumerated_spins(table, sigma):
    x, coupling = fields_of(ising(), sigma), ising().coupling
    whole, ball = torch.ones(SIZE, SIZE), Lattice((SIZE, SIZE)).ball(SITE, 1)
    exact, local = (
        torch.stack([(enumerate_spins(f / sigma**2 * seen, coupling).mean[SITE] - f[SITE]) / sigma**2 for f in x])
        for seen in (whole, ball)
    )
    expected = ((local - exact).square().sum() / exact.square().sum()).sqrt()
    assert table["local_error_1", sigma].value == pytest.approx(float(expected), abs=1e-10)
    assert table["student_error", sigma].value == pytest.approx(float(expected), abs=1e-10)
    rows = brute_rows(x, sigma, coupling)
    outside = rows[:, Lattice((SIZE, SIZE)).distance(SITE) > 1].square().sum() / rows.square().sum()
    assert table["outside_share_1", sigma].value == pytest.approx(float(outside), abs=1e-10)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_best_local_student_has_learned_all_that_its_radius_allows(table, sigma):
    assert table["training_error", sigma].value < 1e-7
    for prefix in ("", "zero_"):
        local, student = (table[f"{prefix}shell_{name}", sigma].value for name in ("local", "student"))
        assert student == pytest.approx(local, abs=1e-10)


def test_at_zero_field_no_draw_takes_part(table):
    zero = [row for (part, _), row in table.items() if part.startswith("zero_")]
    assert {row.n for row in zero} == {1}
    assert {row.standard_error for row in zero} == {0.0}
    assert {row.n for (part, _), row in table.items() if not part.startswith("zero_")} == {6}


def test_errors_of_locality_and_of_training_add_up_in_squares():
    teacher = ising()
    found = measured(teacher, best_local(teacher, ratio=0.3), fields=600, sigmas=(1.5,), batch=100, radii=(0,))
    squares = {part: found[part, 1.5].value ** 2 for part in ("student_error", "local_error_1", "training_error")}
    error = sum(2 * found[part, 1.5].value * found[part, 1.5].standard_error for part in squares)
    assert squares["training_error"] > 0.1 * squares["student_error"]
    assert found["local_error_0", 1.5].value > 1.05 * found["local_error_1", 1.5].value
    # Twice the sum of the three errors is at least two standard errors of the difference.
    assert abs(squares["student_error"] - squares["local_error_1"] - squares["training_error"]) < 2 * error


def test_a_student_that_listens_to_nothing_has_no_response_and_the_whole_error():
    teacher = ising()
    found = measured(teacher, st.student("cnn", teacher.field, blocks=0, width=1))
    for sigma in SIGMAS:
        assert found["shell_student", sigma].value == 0
        assert found["zero_shell_student", sigma].value == 0
        assert found["student_error", sigma].value == pytest.approx(found["training_error", sigma].value, rel=1e-12)
        assert found["local_error_2", sigma].value == 0  # R = 2 sees the whole 4 x 4 torus
        assert found["shell_local", sigma].value == found["shell_exact", sigma].value


def test_exact_numbers_do_not_depend_on_the_student_and_repeat(table):
    teacher = ising()
    other = measured(teacher, st.student("cnn", teacher.field, blocks=0, width=1), radii=(0,))
    assert all(other[key] == row for key, row in table.items() if "exact" in key[0])
    assert measured(teacher, best_local(teacher), radii=(0,)) == table
    assert measured(teacher, best_local(teacher), seed=1)["shell_exact", 0.7] != table["shell_exact", 0.7]


def test_the_response_without_field_grows_towards_the_critical_coupling():
    found = []
    for ratio in (0.5, 0.7, 0.8, 0.9, 0.95, 1.0):
        teacher = ising(ratio)
        student = st.student("cnn", teacher.field, blocks=0, width=1)
        found.append(measured(teacher, student, 8, fields=2, probe=3, sigmas=(1.0,)))
    for part in ("zero_shell_exact", "zero_correlation_length"):
        values = [table[part, 1.0].value for table in found]
        assert values == sorted(values)
        assert values[-1] > 5 * values[0]


def test_without_field_no_radius_is_to_blame_inside_the_ball():
    teacher, x = ising(1.0), torch.zeros(1, 1, 8, 8)
    asked = (x, torch.ones(1), Context(teacher.domain(8)), (4, 4))
    exact, local = teacher.posterior_covariance(*asked), teacher.local_posterior_covariance(*asked, 3)
    inside = teacher.domain(8).ball((4, 4), 3)
    torch.testing.assert_close(local[..., inside], exact[..., inside], rtol=1e-10, atol=0)
    x = torch.randn(1, 1, 8, 8, generator=stream("field"))
    exact, local = (
        f(x, *asked[1:], *r)
        for f, r in ((teacher.posterior_covariance, ()), (teacher.local_posterior_covariance, (3,)))
    )
    assert float((local - exact)[..., inside].abs().max()) > 1e-3  # a field outside makes the difference


@pytest.mark.parametrize("ratio", [0.7, 1.0])
def test_tails_are_at_most_the_certificate_which_x_zero_meets(ratio):
    teacher = ising(ratio)
    certificate = ferromagnet_certificate(teacher.coupling, (6, 6))
    found = measured(teacher, best_local(teacher, 1, ratio), 6, sigmas=(0.5, 3.0))
    for sigma in (0.5, 3.0):
        for radius in (0, 1, 2):
            bound = certificate.response_tail(radius, sigma).value
            assert found[f"tail_exact_{sigma:g}", float(radius)].value < bound
            assert found[f"zero_tail_exact_{sigma:g}", float(radius)].value == pytest.approx(bound, rel=1e-10)
    # A certificate of weaker couplings bounds nothing: the check above can fail.
    weaker = ferromagnet_certificate(0.5 * CRITICAL, (6, 6)).response_tail(1, 3.0).value
    assert found["zero_tail_exact_3", 1.0].value > weaker


def test_gaussian_fields_are_measured_without_a_best_local_score():
    teacher = st.teacher("gaussian", dim=2, mass=0.5, channels=2).double().frozen()
    found = measured(teacher, st.student("cnn", teacher.field, blocks=0, width=1), 8)
    assert not any("local" in part or "training" in part for part, _ in found)
    # The posterior of spectrum c v/(c + v) with c = 1/(m^2 + e) is a field of mass m^2 + 1/v.
    assert found["correlation_length", 1.5].value == pytest.approx(1 / math.sqrt(0.25 + 1 / 2.25), rel=1e-8)
    assert found["shell_exact", 1.5].value == pytest.approx(found["zero_shell_exact", 1.5].value, rel=1e-8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"evaluation.restrict.shell-response": [16]}, "16 x 16 torus would cost more"),
        ({"evaluation.restrict.smoothed-score": [64]}, "64 x 64 torus would cost more"),
        ({"evaluation.measures.shell-response.probe": 6}, "as far away as the probe"),
        ({"evaluation.measures.shell-response.sigmas": [1.0, 0.0]}, "greater than 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_trained(tmp_path, change, words):
    with pytest.raises(SizetransferError, match=words):
        st.run(st.load("figure4", preset="quick", overrides=change), out=tmp_path / "run", executor="serial")
    assert not list(tmp_path.glob("run/trials/*"))


def test_a_probe_beyond_the_lattice_is_refused():
    teacher = ising()
    with pytest.raises(SpecError, match="at most 2"):
        measured(teacher, best_local(teacher), probe=3)


# --- the correlation length -------------------------------------------------------------------------------------


def test_the_length_of_a_free_field_is_one_over_its_mass_at_every_size():
    for mass, size in ((0.3, 8), (1.0, 5)):
        k = 2 * math.pi * torch.arange(size) / size
        laplacian = 4 - 2 * k.cos()[:, None] - 2 * k.cos()
        correlation = torch.fft.ifft2(1 / (mass**2 + laplacian)).real
        assert correlation_length(correlation, Lattice((size, size))) == pytest.approx(1 / mass, rel=1e-10)
        # It depends on where the correlations begin.
        assert correlation_length(correlation.roll(1, 0), Lattice((size, size))) != pytest.approx(1 / mass)


def test_no_length_where_there_is_no_torus_or_no_order():
    assert math.isnan(correlation_length(torch.ones(4, 4), Lattice((4, 4), periodic=False)))
    assert math.isnan(correlation_length(torch.ones(4, 4), Lattice((4, 4))))  # nothing decays
