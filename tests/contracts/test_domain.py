"""Distances against brute force: over all periodic images, and by breadth-first search over neighbours."""

from __future__ import annotations

import itertools
import math
from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sizetransfer.contracts.domain import Lattice, pad
from sizetransfer.contracts.errors import OracleError
from sizetransfer.systems.ising import Cylinder

LENGTHS = {1: 9, 2: 6, 3: 4}
NORMS = {
    "chebyshev": lambda steps: max(map(abs, steps)),
    "graph": lambda steps: sum(map(abs, steps)),
    "euclidean": lambda steps: math.hypot(*steps),
}


@st.composite
def lattices_and_sites(draw):
    dim = draw(st.integers(1, 3))
    size = tuple(draw(st.lists(st.integers(1, LENGTHS[dim]), min_size=dim, max_size=dim)))
    site = tuple(draw(st.integers(0, length - 1)) for length in size)
    return Lattice(size, periodic=draw(st.booleans())), site


def sites_of(lattice):
    return itertools.product(*map(range, lattice.size))


def distance_over_images(lattice, site, other, metric):
    shifts = (-1, 0, 1) if lattice.periodic else (0,)
    images = itertools.product(*[[b + shift * n for shift in shifts] for b, n in zip(other, lattice.size, strict=True)])
    return min(NORMS[metric]([b - a for a, b in zip(site, image, strict=True)]) for image in images)


def steps_by_search(lattice, site, moves):
    """Smallest number of moves from ``site`` to every site that can be reached."""
    found = {site: 0}
    queue = deque([site])
    while queue:
        here = queue.popleft()
        for move in moves:
            there = tuple(a + b for a, b in zip(here, move, strict=True))
            if lattice.periodic:
                there = tuple(a % n for a, n in zip(there, lattice.size, strict=True))
            inside = all(0 <= a < n for a, n in zip(there, lattice.size, strict=True))
            if inside and there not in found:
                found[there] = found[here] + 1
                queue.append(there)
    return found


@pytest.mark.parametrize("metric", sorted(NORMS))
@given(lattices_and_sites())
def test_distance_is_the_smallest_over_all_images(metric, case):
    lattice, site = case
    distance = lattice.distance(site, metric)
    assert distance.shape == lattice.shape
    for other in sites_of(lattice):
        assert distance[other].item() == pytest.approx(distance_over_images(lattice, site, other, metric), abs=1e-12)


@pytest.mark.parametrize("metric", ["chebyshev", "graph"])
@given(lattices_and_sites())
def test_distance_counts_moves(metric, case):
    lattice, site = case
    moves = [move for move in itertools.product((-1, 0, 1), repeat=lattice.dim) if any(move)]
    if metric == "graph":
        moves = [move for move in moves if sum(map(abs, move)) == 1]
    distance = lattice.distance(site, metric)
    found = steps_by_search(lattice, site, moves)
    assert {other: int(distance[other]) for other in sites_of(lattice)} == found


@given(lattices_and_sites())
def test_displacement_leads_to_the_site_by_the_shorter_way(case):
    lattice, site = case
    displacement = lattice.displacement(site)
    assert displacement.shape == (lattice.dim, *lattice.shape)
    for other in sites_of(lattice):
        for axis, length in enumerate(lattice.size):
            step = int(displacement[(axis, *other)])
            if lattice.periodic:
                assert (site[axis] + step) % length == other[axis]
                assert -length < 2 * step <= length
            else:
                assert site[axis] + step == other[axis]


@pytest.mark.parametrize("metric", sorted(NORMS))
@given(lattices_and_sites())
def test_shells_partition_the_lattice_and_add_up_to_balls(metric, case):
    lattice, site = case
    last = math.ceil(lattice.distance(site, metric).max().item())
    shells = torch.stack([lattice.shell(site, radius, metric) for radius in range(last + 1)])
    assert (shells.sum(0) == 1).all()
    for radius in range(last + 1):
        assert torch.equal(shells[: radius + 1].any(0), lattice.ball(site, radius, metric))
    assert lattice.ball(site, 0, metric).sum() == 1
    assert lattice.ball(site, 0, metric)[site]


@given(lattices_and_sites(), st.integers(0, 4))
def test_bulk_sites_have_their_whole_ball_inside(case, margin):
    lattice, _ = case
    bulk = lattice.bulk(margin)
    assert bulk.shape == lattice.shape
    assert bulk.dtype == torch.bool
    for site in sites_of(lattice):
        fits = all(margin <= a < n - margin for a, n in zip(site, lattice.size, strict=True))
        assert bool(bulk[site]) == (lattice.periodic or fits)


@given(lattices_and_sites())
def test_wall_distance_is_the_first_margin_that_leaves_the_box(case):
    lattice, _ = case
    wall = lattice.wall_distance()
    for site in sites_of(lattice):
        nearest = min(min(a + 1, n - a) for a, n in zip(site, lattice.size, strict=True))
        assert int(wall[site]) == nearest


@given(lattices_and_sites())
def test_no_site_is_deeper_in_a_box_than_its_centre(case):
    lattice, _ = case
    wall = lattice.wall_distance()
    assert wall[lattice.centre()] == wall.max()


@given(lattices_and_sites())
def test_parity_alternates_between_neighbours(case):
    lattice, _ = case
    parity = lattice.parity()
    assert parity[(0,) * lattice.dim] == 0
    for axis in range(lattice.dim):
        assert (parity.diff(dim=axis).abs() == 1).all()
        if lattice.periodic and lattice.size[axis] % 2 == 0:
            assert (parity + parity.roll(1, axis) == 1).all()


@given(lattices_and_sites())
def test_site_count_is_the_volume(case):
    lattice, _ = case
    assert lattice.sites == math.prod(lattice.size) == lattice.parity().numel()


def test_cubic_has_equal_axes():
    assert Lattice.cubic(5, 3, periodic=False) == Lattice((5, 5, 5), periodic=False)
    assert Lattice.cubic(5, 3, periodic=False) != Lattice.cubic(5, 3, periodic=True)


@pytest.mark.parametrize("size", [(), (0,), (4, 0), (3, -1)])
def test_empty_lattices_are_refused(size):
    with pytest.raises(OracleError, match="at least one site") as caught:
        Lattice(size)
    assert repr(size) in str(caught.value)


@pytest.mark.parametrize("site", [(4, 0), (0, 3), (-1, 0), (0,), (0, 0, 0)])
def test_sites_off_the_lattice_are_refused(site):
    with pytest.raises(OracleError, match="not on the lattice") as caught:
        Lattice((4, 3)).distance(site)
    assert repr(site) in str(caught.value)


@pytest.mark.parametrize("periodic", [True, False])
@given(lattices_and_sites(), st.integers(0, 7))
def test_padding_continues_the_torus_and_is_zero_outside_a_box(periodic, case, width):
    lattice, _ = case
    x = 1 + torch.arange(2.0 * lattice.sites).reshape(2, 1, *lattice.size)
    padded = pad(x, width, periodic=periodic)
    assert padded.shape == (2, 1, *(n + 2 * width for n in lattice.size))
    for place in itertools.product(*[range(n + 2 * width) for n in lattice.size]):
        origin = tuple(a - width for a in place)
        inside = all(0 <= a < n for a, n in zip(origin, lattice.size, strict=True))
        wrapped = tuple(a % n for a, n in zip(origin, lattice.size, strict=True))
        expected = x[(0, 0, *wrapped)] if inside or periodic else 0.0
        assert padded[(0, 0, *place)] == expected


def test_lattices_are_the_same_by_sites_and_closed_axes():
    cylinder = Lattice((6, 4), periodic=False, closed=(False, True))
    assert cylinder == Cylinder((6, 4))
    assert hash(cylinder) == hash(Cylinder((6, 4)))
    assert Cylinder((6, 4)) == cylinder
    assert len({Lattice((6, 4)), Lattice((6, 4), periodic=False), Cylinder((6, 4)), cylinder, Cylinder((4, 6))}) == 4
    assert cylinder != (6, 4)
