"""The law of the ports, and validity as a type: everything that can be enumerated is.

Frequencies are held against exact probabilities by chi-square tests with fixed seeds; a right law fails each of them
with probability ``BUDGET`` at most.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.randomness import stream
from sizetransfer.systems.hard_valid import DIRECTIONS, PatternWeights, PortLaw, ValidPorts, first_violation, library
from sizetransfer.systems.hard_valid.blocks import from_blocks, to_blocks
from sizetransfer.systems.hard_valid.directions import neighbour, opposite, unit

BUDGET = 1e-4
WEIGHTS = PatternWeights(empty=0.3, edge=0.3, path=0.4)
PLUS_X, MINUS_X, PLUS_Y, MINUS_Y, PLUS_Z, MINUS_Z = (1 << bit for bit in range(6))


def edges(shape: tuple[int, int, int]) -> list[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """Neighbouring sites of a box with the direction of the second from the first."""
    found = []
    for site, direction in itertools.product(itertools.product(*map(range, shape)), (0, 2, 4)):
        other = tuple(a + step for a, step in zip(site, unit(direction), strict=True))
        if all(a < length for a, length in zip(other, shape, strict=True)):
            found.append((site, other, direction))
    return found


def all_matched(shape: tuple[int, int, int]) -> torch.Tensor:
    """The ports of every subset of the edges of a box, ``(2 ** edges, *shape)``: matched, and none faces out."""
    lines = edges(shape)
    chosen = (torch.arange(2 ** len(lines))[:, None] >> torch.arange(len(lines))) & 1
    ports = torch.zeros(len(chosen), *shape, dtype=torch.int64)
    for line, (site, other, direction) in enumerate(lines):
        ports[:, *site] += chosen[:, line] << direction
        ports[:, *other] += chosen[:, line] << opposite(direction)
    return ports


def degrees(ports: torch.Tensor) -> torch.Tensor:
    return sum((ports >> bit) & 1 for bit in range(6))


def products(side: int = 2) -> ValidPorts:
    """Every pair of patterns of the library in a box of two blocks."""
    patterns = library(side).patterns
    pairs = torch.cartesian_prod(torch.arange(len(patterns)), torch.arange(len(patterns)))
    return ValidPorts(from_blocks(patterns[pairs][:, None, None], side))


# --- library ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "edges_", "paths"), [(2, 12, 24), (3, 54, 171)])
def test_the_library_has_every_edge_and_every_path_once(side, edges_, paths):
    found = library(side)
    assert torch.bincount(found.classes).tolist() == [1, edges_, paths]
    assert len(found.patterns.unique(dim=0)) == 1 + edges_ + paths
    assert len(found.keys.unique()) == len(found.keys)
    ValidPorts(found.patterns.reshape(-1, side, side, side))
    occupied = (found.patterns != 0).sum(1)
    assert torch.equal(occupied, torch.tensor([0, 2, 3])[found.classes])


def test_the_library_is_that_of_all_matched_ports_with_at_most_two_connected_edges():
    ports = all_matched((2, 2, 2))
    few = degrees(ports).flatten(1).sum(1) <= 4
    ends = (degrees(ports) == 1).flatten(1).sum(1)
    # Two edges that do not touch have four ends, a path of two has two.
    expected = ports[few & (ends <= 2)].flatten(1).unique(dim=0)
    assert torch.equal(library(2).patterns.unique(dim=0), expected)


def test_blocks_are_cut_and_put_together_in_row_major_order():
    values = torch.arange(2 * 4 * 2 * 6).reshape(2, 4, 2, 6)
    blocks = to_blocks(values, 2)
    assert blocks.shape == (2, 2, 1, 3, 8)
    assert torch.equal(blocks[1, 1, 0, 2].reshape(2, 2, 2), values[1, 2:4, 0:2, 4:6])
    assert torch.equal(from_blocks(blocks, 2), values)


def test_neighbours_look_in_the_direction_that_they_are_named_by():
    values = 1 + torch.arange(24).reshape(1, 2, 3, 4)
    for site, other, direction in edges((2, 3, 4)):
        assert neighbour(values, direction)[0, *site] == values[0, *other]
        assert neighbour(values, opposite(direction))[0, *other] == values[0, *site]
        assert DIRECTIONS[direction] == "+" + "xyz"[direction // 2]
    assert neighbour(values, 0)[0, 1].abs().sum() == 0
    assert neighbour(values, 5)[0, :, :, 0].abs().sum() == 0


# --- probabilities ------------------------------------------------------------------------------------------------


def total_probability(law: PortLaw, ports: ValidPorts) -> float:
    return law.log_probability(ports).exp().sum().item()


def valid_cubes() -> ValidPorts:
    ports = all_matched((2, 2, 2))
    return ValidPorts(ports[(degrees(ports) <= 2).flatten(1).all(1)])


@pytest.mark.parametrize("weights", [WEIGHTS, PatternWeights(), PatternWeights(empty=0, edge=5, path=2)])
def test_probabilities_of_all_valid_configurations_sum_to_one(weights):
    law = PortLaw(2, weights)
    cubes = valid_cubes()
    assert len(cubes.codes) > 37
    assert total_probability(law, cubes) == pytest.approx(1, abs=1e-12)
    assert law.log_probability(cubes).isfinite().sum() == 37 - (weights.empty == 0)
    assert total_probability(law, products()) == pytest.approx(1, abs=1e-12)


def test_ports_across_a_block_boundary_are_valid_and_have_no_probability():
    ports = torch.zeros(1, 2, 2, 4, dtype=torch.int64)
    ports[0, 0, 0, 1], ports[0, 0, 0, 2] = PLUS_Z, MINUS_Z
    assert PortLaw(2, WEIGHTS).log_probability(ValidPorts(ports)).item() == -torch.inf


def test_probabilities_that_forget_how_many_patterns_share_a_class_are_caught():
    law = PortLaw(2, WEIGHTS)
    shares = torch.tensor([0.3, 0.3, 0.4])
    law.log_probabilities = (shares[law.library.classes] / len(law.library.classes)).log()
    assert abs(total_probability(law, valid_cubes()) - 1) > 0.1


def p_value(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Of Pearson's chi-square statistic; every expected count is above five in these tests."""
    expected = probabilities * counts.sum()
    assert expected.min() > 5
    statistic = ((counts - expected).square() / expected).sum().item()
    return float(chi2.sf(statistic, len(counts) - 1))


def frequencies(law: PortLaw, shape: tuple[int, int, int], batch: int) -> torch.Tensor:
    """How often each pair of patterns stands in the first two blocks along z, or each pattern in one block."""
    ports = law.sample(batch, shape, generator=stream("tests", "ports", batch))
    index = law.library.find(to_blocks(ports.codes, law.side)).flatten(1)
    many = len(law.library.classes)
    joint = index[:, 0] if index.shape[1] == 1 else index[:, 0] * many + index[:, 1]
    return torch.bincount(joint, minlength=many ** index.shape[1])


def test_frequencies_of_patterns_are_their_probabilities():
    law = PortLaw(2, WEIGHTS)
    exact = law.log_probabilities.exp()
    assert p_value(frequencies(law, (2, 2, 2), 20_000), exact) > BUDGET
    pairs = torch.outer(exact, exact).flatten()
    assert p_value(frequencies(law, (2, 2, 4), 60_000), pairs) > BUDGET


def test_a_sampler_with_other_weights_or_dependent_blocks_is_caught():
    law, other = PortLaw(2, WEIGHTS), PortLaw(2, PatternWeights(empty=0.33, edge=0.3, path=0.37))
    assert p_value(frequencies(other, (2, 2, 2), 20_000), law.log_probabilities.exp()) < BUDGET
    same = frequencies(law, (2, 2, 2), 60_000)
    dependent = torch.diag(same).flatten()
    exact = law.log_probabilities.exp()
    assert p_value(dependent, torch.outer(exact, exact).flatten()) < BUDGET


@pytest.mark.parametrize("side", [2, 3])
def test_the_occupied_fraction_is_that_of_the_samples(side):
    law = PortLaw(side, PatternWeights())
    occupied = law.sample(400, (2 * side,) * 3, generator=stream("tests", "fraction")).occupied.double()
    means = occupied.flatten(1).mean(1)
    shares = (law.library.patterns != 0).double().mean(1)
    expected = float((law.log_probabilities.exp() * shares).sum())
    assert abs(means.mean() - expected) < 4 * means.std() / 20
    assert expected == pytest.approx({2: 0.3125, 3: 2.5 / 27}[side])


def test_a_class_without_weight_is_never_drawn():
    law = PortLaw(2, PatternWeights(empty=0, edge=1, path=0))
    counts = frequencies(law, (2, 2, 2), 5000)
    assert counts[law.library.classes != 1].sum() == 0
    with pytest.raises(SpecError, match="weight"):
        PatternWeights(empty=0, edge=0, path=0)


@pytest.mark.parametrize(("shape", "fix"), [((3, 4, 4), "use 2 or 4"), ((4, 4, 1), "use 2"), ((4, 0, 4), "use 2")])
def test_a_box_that_blocks_do_not_tile_is_refused(shape, fix):
    with pytest.raises(OracleError, match="tile") as caught:
        PortLaw(2, WEIGHTS).sample(1, shape, generator=stream(0))
    assert caught.value.fix == fix


# --- validity -----------------------------------------------------------------------------------------------------


@given(side=st.sampled_from([2, 3]), counts=st.tuples(*[st.integers(1, 3)] * 3), seed=st.integers(0, 999))
def test_every_sample_is_valid(side, counts, seed):
    shape = tuple(side * count for count in counts)
    ports = PortLaw(side, PatternWeights()).sample(3, shape, generator=stream(seed))
    assert first_violation(ports.codes) is None
    for site, other, direction in edges(shape):
        there = ports.codes[:, *site] >> direction & 1
        assert torch.equal(there, ports.codes[:, *other] >> opposite(direction) & 1)


@given(code=st.integers(0, 63), site=st.tuples(*[st.integers(0, 3)] * 3), seed=st.integers(0, 99))
def test_a_changed_port_state_is_always_found_at_the_site_or_beside_it(code, site, seed):
    """On a matched configuration one other state breaks a pair or looks out: a full check, independent of the code."""
    ports = PortLaw(2, PatternWeights()).sample(2, (4, 4, 4), generator=stream(seed)).codes.clone()
    changed = code != ports[1, *site]
    ports[1, *site] = code
    violation = first_violation(ports)
    assert (violation is not None) == bool(changed)
    if violation is not None:
        assert violation.row == 1
        assert site in (violation.site, violation.neighbour)


def configuration(**states: int) -> torch.Tensor:
    """Ports of a 2x2x2 box by site, ``s011=...``."""
    ports = torch.zeros(1, 2, 2, 2, dtype=torch.int64)
    for name, code in states.items():
        ports[0, *(int(digit) for digit in name[1:])] = code
    return ports


BROKEN = {
    "no partner": (configuration(s000=PLUS_X), "unmatched", (0, 0, 0), (1, 0, 0)),
    "partner looks elsewhere": (configuration(s000=PLUS_X, s100=PLUS_Y), "unmatched", (0, 0, 0), (1, 0, 0)),
    "only the far site": (configuration(s011=MINUS_Y), "unmatched", (0, 0, 1), (0, 1, 1)),
    "out of the front": (configuration(s000=MINUS_Z), "faces out", (0, 0, 0), (0, 0, -1)),
    "out of the back": (configuration(s010=PLUS_Y), "faces out", (0, 1, 0), (0, 2, 0)),
    "three edges": (
        configuration(s000=PLUS_X | PLUS_Y | PLUS_Z, s100=MINUS_X, s010=MINUS_Y, s001=MINUS_Z),
        "degree",
        (0, 0, 0),
        None,
    ),
    "no port state": (configuration(s110=64), "no port state", (1, 1, 0), None),
    "negative": (configuration(s001=-1), "no port state", (0, 0, 1), None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_hand_made_violations_are_named(name):
    ports, kind, site, other = BROKEN[name]
    violation = first_violation(ports)
    if name == "negative":
        # Its neighbours see the ports of -1, and the first of them comes first.
        assert violation.kind == "unmatched"
        assert violation.neighbour == site
        return
    assert (violation.kind, violation.site, violation.neighbour, violation.row) == (kind, site, other, 0)
    with pytest.raises(OracleError, match=kind) as caught:
        ValidPorts(ports)
    assert str(site) in caught.value.where
    assert other is None or str(other) in caught.value.where


def test_the_first_row_and_the_first_site_are_named():
    good = PortLaw(2, PatternWeights()).sample(1, (2, 2, 2), generator=stream(1)).codes
    late, early = configuration(s101=PLUS_Y, s010=PLUS_X), configuration(s000=PLUS_X)
    violation = first_violation(torch.cat([good, late, early]))
    assert (violation.row, violation.site) == (1, (0, 1, 0))
    assert str(replace(violation, row=7)).startswith("unmatched at site (0, 1, 0) towards (1, 1, 0) of row 7")


def test_closed_loops_are_valid_and_not_of_the_library():
    square = configuration(s000=PLUS_X | PLUS_Y, s100=MINUS_X | PLUS_Y, s110=MINUS_X | MINUS_Y, s010=PLUS_X | MINUS_Y)
    assert PortLaw(2, WEIGHTS).log_probability(ValidPorts(square)).item() == -torch.inf


@pytest.mark.parametrize("ports", [torch.zeros(2, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 2, 2)])
def test_other_shapes_and_dtypes_are_refused(ports):
    with pytest.raises(OracleError, match="integers on the sites"):
        ValidPorts(ports)
