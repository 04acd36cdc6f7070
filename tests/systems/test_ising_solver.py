"""Ising models in any field: transfer matrices against the enumeration of all configurations."""

from __future__ import annotations

import math

import pytest
import torch
from brute_ising import enumerate_spins
from tolerances import TOLERANCE, assert_rounding

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.randomness import stream
from sizetransfer.systems.ising import CRITICAL, IsingModel, Limits, TooLargeError, torus
from sizetransfer.systems.ising.rows import Rows

BOUNDARIES = ("torus", "cylinder", "open")
SHAPES = ((4, 4), (3, 4), (4, 3), (2, 2), (2, 3), (5, 2))
BETAS = (0.0, 0.5 * CRITICAL, CRITICAL, 1.5, -0.4)
EXACT = 1e-12  # relative to the largest number; sums of 2^16 terms
SAME = TOLERANCE["posterior"][torch.float64]


def fields(shape, batch=2, scale=1.0, label=0):
    return scale * torch.randn(batch, *shape, generator=stream("ising", *shape, label))


def close(found, expected, tolerance=EXACT):
    assert float((found - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


def test_conventions():
    moments = IsingModel(0.5 * CRITICAL).moments(torch.zeros(1, 4, 4))
    susceptibility = IsingModel(0.5 * CRITICAL).covariance(torch.zeros(1, 4, 4), (0, 0)).sum()
    assert abs(float(moments.log_partition) - 11.930156221120) < 5e-13 * 12
    assert abs(float(susceptibility) - 3.217477030963) < 1e-12


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_moments_are_those_of_all_configurations(boundary, shape):
    for beta in BETAS:
        model, h = IsingModel(beta, boundary), fields(shape)
        moments, site = model.moments(h), (shape[0] - 1, 1)
        covariance = model.covariance(h, site)
        for b in range(len(h)):
            exact = enumerate_spins(h[b], beta, boundary)
            close(moments.log_partition[b], exact.log_partition)
            close(moments.mean[b], exact.mean)
            close(covariance[b], exact.covariance[site])


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_rows_of_covariances_are_in_their_places(boundary):
    model, h = IsingModel(0.4, boundary), fields((4, 3))
    for row in range(4):
        found = model.covariance_rows(h, row)
        for c in range(3):
            close(found[0, c], enumerate_spins(h[0], 0.4, boundary).covariance[row, c])


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_strong_fields_keep_digits(boundary):
    """Covariances of spins that strong fields hold are tiny, and known to as many digits as others."""
    h = 13 + fields((3, 3))
    found = IsingModel(0.4, boundary).covariance(h, (1, 1))[0]
    exact = enumerate_spins(h[0], 0.4, boundary)
    # By probabilities that two spins are down, which enumeration adds up without cancellation.
    down = (exact.spins < 0).double()
    first = down[:, 1, 1]
    joint = torch.einsum("s,s,sij->ij", exact.probabilities, first, down)
    product = (exact.probabilities @ first) * torch.einsum("s,sij->ij", exact.probabilities, down)
    assert float(exact.mean.min()) > 1 - 1e-10
    neighbours = [(0, 1), (1, 0), (1, 2), (2, 1), (1, 1)]
    for site in neighbours:
        assert float(found[site]) == pytest.approx(4 * float(joint[site] - product[site]), rel=1e-9)


@pytest.mark.parametrize("size", [8, 10])
def test_rows_and_columns_have_the_same_rights(size):
    """The transposed field is another problem for the solver, and has the transposed answer."""
    h, model = fields((size, size), batch=1), IsingModel(CRITICAL)
    covariance, turned = model.covariance(h, (2, 5)), model.covariance(h.mT, (5, 2))
    assert float((covariance - turned.mT).abs().max() / covariance.abs().max()) < EXACT
    # Digit by digit: covariances here span four orders of magnitude and more.
    assert float((turned.mT / covariance - 1).abs().max()) < 1e-10
    close(model.moments(h.mT).log_partition, model.moments(h).log_partition, SAME)


def test_extreme_fields_leave_no_nan():
    h = 1e4 * fields((4, 4))
    moments = IsingModel(CRITICAL).moments(h)
    assert_rounding(moments.mean, h.sign(), "posterior")
    assert float((moments.log_partition - h.abs().sum((1, 2))).abs().max()) < 50


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_blocks_do_not_matter(boundary, monkeypatch):
    h, model = fields((5, 6), batch=3), IsingModel(CRITICAL, boundary)
    whole = model.moments(h), model.covariance_rows(h, 2), model.site_mean(h)
    monkeypatch.setattr(torus, "WORKSPACE", 8 * 5 * 64 * 7)  # seven columns, one field
    parts = model.moments(h), model.covariance_rows(h, 2), model.site_mean(h)
    close(parts[0].mean, whole[0].mean, SAME)
    close(parts[0].log_partition, whole[0].log_partition, SAME)
    close(parts[1], whole[1], SAME)
    close(parts[2], whole[2], SAME)


@pytest.mark.parametrize("free", [(1, 2), (1, 7), (3, 4), (2, 5), (4, 7), (5, 5), (6, 7)])
@pytest.mark.parametrize("beta", [CRITICAL, -0.3])
def test_rows_without_field_are_summed_once_for_all(free, beta):
    h = fields((7, 5), batch=3)
    h[:, slice(*free)] = 0
    h[1, 2], h[2, 4] = 0, 400.0  # a row that is free in one field alone, and one that is held
    rows = IsingModel(beta).rows(5, h.device)
    assert_close = torch.testing.assert_close
    found, swept = torus.first_row_weights(h, rows), torus.swept_first_row_weights(h, rows)
    assert_close(found, swept, rtol=1e-11, atol=1e-300)
    first, last = torus._free_rows(h)
    assert not h[:, first:last].any()
    # A propagator over one row too many is another law.
    wrong = torus._around_free_rows(h, rows, 1, 3)
    assert ((wrong - swept).abs().max() > 1e-3) == bool(h[:, 1:3].any())


def test_means_are_derivatives_of_the_partition_function():
    model, h, step = IsingModel(0.4), fields((4, 4), batch=1), 1e-4
    unit = torch.zeros_like(h)
    unit[0, 1, 2] = step
    up, down = (model.moments(h + sign * unit) for sign in (1, -1))
    assert float((up.log_partition - down.log_partition) / (2 * step)) == pytest.approx(
        float(model.moments(h).mean[0, 1, 2]), abs=1e-7
    )
    close((up.mean - down.mean)[0] / (2 * step), model.covariance(h, (1, 2))[0], 1e-7)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_derivatives_are_covariances(boundary):
    model, h = IsingModel(0.4, boundary), fields((3, 4)).requires_grad_()
    weights = fields((3, 4), label=1)
    (found,) = torch.autograd.grad((model.mean(h) * weights).sum(), h)
    (row,) = torch.autograd.grad(model.site_mean(h)[1], h)
    for b in range(2):
        exact = enumerate_spins(h[b].detach(), 0.4, boundary)
        close(found[b], torch.einsum("ij,ijkl->kl", weights[b], exact.covariance))
    close(row[1], exact.covariance[0, 0])
    assert not row[0].any()
    close(model.site_mean(h.detach()), model.moments(h.detach()).mean[:, 0, 0], SAME)


def test_single_precision_fields_are_solved_in_double():
    h = fields((4, 4))
    close(IsingModel(0.4).moments(h.float()).mean, IsingModel(0.4).moments(h.float().double()).mean, SAME)


def test_a_cylinder_is_a_torus_with_a_seam_of_free_rows():
    """On a torus with a very strong field along one row, the rest is a cylinder between walls of fixed spins."""
    h = fields((5, 4), batch=1)
    walled = h.clone()
    walled[:, 0] = 200.0
    inside = h[:, 1:].clone()
    inside[:, 0] += 0.4
    inside[:, -1] += 0.4
    found = IsingModel(0.4).moments(walled).mean[:, 1:]
    close(found, IsingModel(0.4, "cylinder").moments(inside).mean)


def test_wrong_solvers_are_caught(monkeypatch):
    h = fields((4, 4), batch=1)
    exact = enumerate_spins(h[0], 0.4)
    right = Rows.bonds
    monkeypatch.setattr(Rows, "bonds", lambda self, x: right(self, x) ** 1.001)
    assert float((IsingModel(0.4).moments(h).mean[0] - exact.mean).abs().max()) > 1e-6
    monkeypatch.setattr(Rows, "bonds", right)
    assert float((IsingModel(0.4, "cylinder").moments(h).mean[0] - exact.mean).abs().max()) > 1e-3


# --- refusals -----------------------------------------------------------------------------------------------------


def test_lattices_beyond_the_limits_are_refused_with_the_estimate():
    with pytest.raises(TooLargeError) as caught:
        IsingModel(0.4).moments(torch.zeros(1, 16, 16))
    message = str(caught.value)
    assert "16 x 16 torus" in message
    assert "GiB" in message
    assert "zero_field" in message
    assert "limits" in message
    small = IsingModel(0.4, limits=Limits(seconds=1e-6))
    with pytest.raises(TooLargeError):
        small.moments(torch.zeros(1, 4, 4))
    assert IsingModel(0.4, limits=Limits(seconds=10)).moments(torch.zeros(1, 4, 4)).mean.abs().max() < 1e-14


def test_estimates_grow_as_they_should():
    small, large = (IsingModel(0.4).cost((n, n)) for n in (8, 12))
    assert 300 < large.operations / small.operations < 1000
    assert large.gibibytes < 0.1
    assert IsingModel(0.4, "cylinder").cost((64, 16)).seconds < 2


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: IsingModel(0.4).moments(torch.full((1, 3, 3), math.nan)), "finite"),
        (lambda: IsingModel(0.4).moments(torch.zeros(3, 3)), "shape"),
        (lambda: IsingModel(0.4).covariance(torch.zeros(1, 3, 3), (3, 0)), "below"),
        (lambda: IsingModel(0.4).covariance(torch.zeros(1, 3, 3), (0, -1)), "below"),
        (lambda: IsingModel(0.4).covariance_rows(torch.zeros(1, 3, 3), 3), "below"),
        (lambda: IsingModel(60.0).moments(torch.zeros(1, 3, 3)), "beta"),
        (lambda: IsingModel(math.nan).moments(torch.zeros(1, 3, 3)), "beta"),
    ],
)
def test_impossible_questions_are_refused(call, name):
    with pytest.raises(OracleError, match=name):
        call()
