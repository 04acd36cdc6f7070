"""Responses against brute force: whole Jacobians, observed orders, Frobenius norms, shells, tails and ranges."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tolerances import assert_rounding
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context, Sample, Teacher
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.shells import ResponseProfile, effective_range, mean_of_ragged, shell_counts, shell_sums
from sizetransfer.scores.response import (
    Region,
    jacobian_row,
    reference_sites,
    student_score,
    teacher_score,
)
from sizetransfer.systems.flow.teacher import FlowTeacherSpec


def curved(x: Tensor) -> Tensor:
    """A map of two channels that mixes neighbours and channels, with every derivative."""
    mixed = x + 0.3 * x.flip(1) ** 2
    return torch.tanh(mixed + 0.5 * mixed.roll(1, -1)) + 0.2 * x**3


def finite_difference(score, x: Tensor, direction: Tensor, site: tuple[int, ...], amplitude: float) -> Tensor:
    """Central difference of the score at ``site`` along ``direction`` (like ``x``), with step ``amplitude``."""
    at_site: tuple[slice | int, ...] = (slice(None), slice(None), *site)
    with torch.no_grad():
        forwards = score(x + amplitude * direction)[at_site]
        backwards = score(x - amplitude * direction)[at_site]
    return (forwards - backwards) / (2 * amplitude)


def random_field(batch: int = 2, channels: int = 2, size: tuple[int, ...] = (3, 4)) -> Tensor:
    return torch.randn(batch, channels, *size, generator=stream("tests", "response", *size))


# --- Jacobian rows and finite differences -------------------------------------------------------------------------


@pytest.mark.parametrize(("site", "channel"), [((0, 0), 0), ((2, 1), 0), ((1, 3), 1)])
def test_a_jacobian_row_is_a_row_of_the_whole_jacobian(site, channel):
    x = random_field()
    row = jacobian_row(curved, x, site, channel)
    for b, field in enumerate(x):
        whole = torch.autograd.functional.jacobian(lambda f: curved(f[None])[0], field)
        assert_rounding(row[b], whole[(channel, *site)])


def test_a_jacobian_row_of_a_teacher_is_a_column_of_its_score():
    teacher = FlowTeacherSpec.parse({"preset": "medium-range"}).build().double()
    fields = teacher.sample(1, 4, generator=stream(0))
    score = teacher_score(teacher, fields)
    whole = torch.autograd.functional.jacobian(score, fields.x.requires_grad_())[0, 0, :, :, 0, 0]
    assert_rounding(jacobian_row(score, fields.x, (1, 2))[0, 0], whole[1, 2])


def test_rows_leave_the_field_alone_and_work_without_gradients():
    x = random_field()
    before = x.clone()
    with torch.no_grad():
        row = jacobian_row(curved, x, (1, 1))
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert not row.requires_grad
    assert row.any()


def test_a_site_that_hears_nothing_has_a_row_of_zeros():
    weight = torch.ones((), requires_grad=True)
    x = random_field()
    assert torch.equal(jacobian_row(lambda _: weight * torch.ones_like(x), x, (0, 0)), torch.zeros_like(x))


def observed_order(difference) -> float:
    """Slope of the error of ``difference(h)`` against the Jacobian, in the step, both in logarithms."""
    x = random_field()
    direction = torch.randn(x.shape, generator=stream("tests", "directions"))
    rows = torch.stack([jacobian_row(curved, x, (1, 2), channel) for channel in (0, 1)], 1)
    exact = (rows * direction[:, None]).flatten(2).sum(2)
    steps = torch.logspace(-3, -1.5, 6)
    errors = torch.stack([(difference(x, direction, h.item()) - exact).norm() for h in steps])
    centred = steps.log() - steps.log().mean()
    return ((centred * errors.log()).sum() / centred.square().sum()).item()


def one_sided(x: Tensor, direction: Tensor, step: float) -> Tensor:
    return ((curved(x + step * direction) - curved(x)) / step)[:, :, 1, 2]


def test_finite_differences_are_of_second_order():
    assert 1.9 < observed_order(lambda x, u, h: finite_difference(curved, x, u, (1, 2), h)) < 2.1


def test_one_sided_differences_are_caught():
    assert observed_order(one_sided) < 1.2


def test_random_signs_average_to_the_squared_frobenius_norm_over_the_region():
    x = random_field(1, 2, (6, 6))
    lattice, site = Lattice((6, 6)), (2, 3)
    mask = Region(nearest=1, farthest=2).mask(lattice, site).to(x)
    rows = torch.stack([jacobian_row(curved, x, site, channel) for channel in (0, 1)], 1)
    frobenius = (rows * mask).square().sum().item()
    n = 4000
    signs = 1.0 - 2.0 * torch.randint(0, 2, (n, 2, 6, 6), generator=stream("tests", "signs"))
    squares = finite_difference(curved, x.expand(n, -1, -1, -1), mask * signs, site, 1e-4).square().sum(1)
    error = squares.std().item() / math.sqrt(n)
    assert error < 0.05 * frobenius
    assert abs(squares.mean().item() - frobenius) < 4 * error
    # The region matters, and a uniform shift is another number.
    assert abs(squares.mean().item() - rows.square().sum().item()) > 4 * error
    shift = finite_difference(curved, x, mask.expand_as(x), site, 1e-4).square().sum().item()
    assert abs(shift - frobenius) > 4 * error


# --- scores as functions of the field -----------------------------------------------------------------------------


class _Mute(Teacher):
    """A teacher that knows nothing but how to draw."""

    def sample(self, batch, size, *, generator):
        return Sample(torch.zeros(batch, 1, size), Context(self.domain(size)))


def test_a_teacher_without_a_score_is_refused_by_name():
    mute = _Mute(FieldInfo(dim=1))
    with pytest.raises(OracleError, match="no clean score") as caught:
        teacher_score(mute, mute.sample(1, 4, generator=stream(0)))
    assert caught.value.where == "_Mute"


class _Told(Student):
    """Returns what it is told: the noise level times the condition."""

    def forward(self, x, sigma, context):
        return sigma[:, None, None] * context.condition + 0 * x


def test_a_student_is_asked_at_one_noise_level_in_the_context():
    student = _Told(FieldInfo(dim=1, condition_channels=1), radius=0)
    condition = torch.arange(8.0).reshape(2, 1, 4)
    x = torch.zeros(2, 1, 4, dtype=torch.float32)
    score = student_score(student, 0.25, Context(Lattice((4,)), condition))(x)
    assert score.dtype == torch.float32
    assert torch.equal(score, (0.25 * condition).float())


# --- regions, shells, tails, ranges -------------------------------------------------------------------------------

LATTICES = [Lattice((5,)), Lattice((4, 6)), Lattice((4, 5), periodic=False), Lattice((3, 2, 4))]
over_lattices = pytest.mark.parametrize("lattice", LATTICES, ids=str)


def chebyshev(lattice: Lattice, a: tuple[int, ...], b: tuple[int, ...]) -> int:
    steps = [abs(p - q) for p, q in zip(a, b, strict=True)]
    if lattice.periodic:
        steps = [min(step, length - step) for step, length in zip(steps, lattice.size, strict=True)]
    return max(steps)


@over_lattices
def test_shell_sums_and_counts_against_brute_force(lattice):
    values = torch.randn(3, *lattice.shape, generator=stream("tests", "shells"))
    sites = list(itertools.product(*map(range, lattice.size)))
    for site in (sites[0], sites[len(sites) // 2], sites[-1]):
        distances = [chebyshev(lattice, site, other) for other in sites]
        sums = torch.zeros(3, max(distances) + 1)
        counts = torch.zeros(max(distances) + 1)
        for other, distance in zip(sites, distances, strict=True):
            sums[:, distance] += values[(slice(None), *other)]
            counts[distance] += 1
        torch.testing.assert_close(shell_sums(values, lattice, site), sums, rtol=1e-12, atol=1e-12)
        assert torch.equal(shell_counts(lattice, site), counts)


@over_lattices
def test_a_region_holds_the_sites_of_its_distances(lattice):
    site = lattice.centre()
    sites = list(itertools.product(*map(range, lattice.size)))
    farthest = max(chebyshev(lattice, site, other) for other in sites)
    for nearest in range(farthest + 1):
        mask = Region(nearest=nearest, farthest=nearest + 1).mask(lattice, site)
        expected = [chebyshev(lattice, site, other) in (nearest, nearest + 1) for other in sites]
        assert mask.flatten().tolist() == expected


@pytest.mark.parametrize(("nearest", "farthest"), [(3, 8), (2, 1)])
def test_an_empty_region_is_refused(nearest, farthest):
    with pytest.raises(SpecError, match="region is empty") as caught:
        Region(nearest=nearest, farthest=farthest).mask(Lattice((4, 4)), (0, 0))
    assert f"nearest: {nearest}, farthest: {farthest}" in caught.value.where
    assert "nearest at most 2" in caught.value.expected


def test_tails_and_ranges_by_hand():
    profile = ResponseProfile(torch.tensor([10.0, 6.0, 3.0, 0.0, 1.0]))
    assert profile.tails().tolist() == [10.0, 4.0, 1.0, 1.0, 0.0]
    # T_R <= epsilon T_0 with T_0 = 10, the site itself not counted; equality is enough.
    ranges = {1.0: 0, 0.5: 1, 0.4: 1, 0.39: 2, 0.1: 2, 0.09: 4, 0.0: 4}
    assert {epsilon: profile.effective_range(epsilon) for epsilon in ranges} == ranges


def test_a_site_that_hears_only_itself_has_range_zero():
    profile = ResponseProfile(torch.tensor([2.0, 0.0, 0.0]))
    assert profile.tails().tolist() == [0.0, 0.0, 0.0]
    assert profile.effective_range(0.01) == 0


def test_a_missing_shell_adds_nothing_to_a_mean():
    tables = [torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[5.0, 6.0]])]
    assert mean_of_ragged(tables).tolist() == [[3.0, 4.0, 1.5]]


def test_the_range_of_fields_is_that_of_their_mean_and_errs_where_they_differ():
    alike = torch.tensor([[1.0, 1.0, 0.0]] * 4)
    assert (effective_range(alike, 0.1).value, effective_range(alike, 0.1).error) == (1.0, 0.0)
    apart = torch.cat([alike, torch.tensor([[1.0, 1.0, 4.0]])])
    found = effective_range(apart, 0.1)
    assert (found.value, found.n) == (2.0, 5)
    assert found.error == pytest.approx(math.sqrt(4 / 5 * (4 * 0.2**2 + 0.8**2)))


# --- reference sites ----------------------------------------------------------------------------------------------


@over_lattices
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_reference_sites_alternate_between_the_sublattices(lattice, count):
    sites = reference_sites(lattice, count)
    assert len(set(sites)) == len(sites) == count
    parity = lattice.parity()
    assert [int(parity[site] != parity[sites[0]]) for site in sites] == [index % 2 for index in range(count)]


@pytest.mark.parametrize(("size", "periodic", "margin"), [((3, 3), True, 0), ((5,), False, 1), ((4, 4), True, 2)])
def test_every_site_of_the_bulk_can_be_a_reference_site(size, periodic, margin):
    lattice = Lattice(size, periodic)
    available = int(lattice.bulk(margin).sum())
    sites = reference_sites(lattice, available, margin)
    assert len(set(sites)) == available
    assert all(lattice.bulk(margin)[site] for site in sites)
    with pytest.raises(SpecError, match="not enough reference sites") as caught:
        reference_sites(lattice, available + 1, margin)
    assert caught.value.expected == f"at most {available}"


def test_reference_sites_spread_over_the_lattice():
    rows = [site[0] for site in reference_sites(Lattice((16, 16)), 8)]
    assert sorted(set(rows)) == [0, 4, 8, 12]
