"""The law of the types given the ports: probabilities by enumeration, the flow of permutations, frequencies.

A right law fails each chi-square test with probability ``BUDGET`` at most.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.randomness import stream
from sizetransfer.systems.hard_valid import PatternWeights, PortLaw, ValidPorts, ValidState, library
from sizetransfer.systems.hard_valid.blocks import over_sites, to_blocks
from sizetransfer.systems.hard_valid.labels import TypeLaw

BUDGET = 1e-4


def law(
    count: int = 4, *, seed: int = 0, side: int = 2, depth: int = 2, themes: int = 3, strength: float = 1.0
) -> TypeLaw:
    return TypeLaw(
        np.random.Generator(np.random.PCG64(seed)),
        side=side,
        count=count,
        themes=themes,
        motif_strength=strength,
        theme_strength=strength,
        depth=depth,
    )


def ports(shape: tuple[int, int, int] = (4, 4, 4), batch: int = 3, seed: int = 0) -> ValidPorts:
    return PortLaw(2, PatternWeights()).sample(batch, shape, generator=stream("tests", seed))


def all_types(codes: torch.Tensor, count: int) -> torch.Tensor:
    """Every assignment of types to the occupied sites of one configuration ``*S``: ``(n, *S)``."""
    occupied = (codes != 0).nonzero()
    rows = list(itertools.product(range(1, count + 1), repeat=len(occupied)))
    types = torch.zeros(len(rows), *codes.shape, dtype=torch.int64)
    if len(occupied):
        types[:, *occupied.T] = torch.tensor(rows)
    return types


def assigned(codes: torch.Tensor, count: int) -> ValidState:
    types = all_types(codes, count)
    return ValidState(ValidPorts(codes.expand_as(types).contiguous()), types, count)


# --- probabilities ------------------------------------------------------------------------------------------------


def largest_defect(of: TypeLaw) -> float:
    """Largest distance from one of the total probability of the types of a block, over all patterns."""
    patterns = library(2).patterns.reshape(-1, 2, 2, 2)
    totals = [of.log_probability(assigned(codes, of.count)).exp().sum() - 1 for codes in patterns]
    return torch.stack(totals).abs().max().item()


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("depth", [0, 2])
def test_probabilities_of_the_types_of_a_block_sum_to_one(count, depth):
    assert largest_defect(law(count, depth=depth)) < 1e-12


def test_probabilities_of_the_types_of_two_blocks_sum_to_one():
    codes = ports((2, 2, 4), batch=20).codes
    occupied = (codes != 0).flatten(1).sum(1)
    row = codes[int(occupied.argmax())]
    assert law(3).log_probability(assigned(row, 3)).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_a_table_that_is_not_normalised_and_a_flow_that_is_no_bijection_are_caught():
    unnormalised = law()
    unnormalised.table = unnormalised.table + 0.01
    assert largest_defect(unnormalised) > 0.01
    merging = law()
    merging.flow.inverses[:, 2] = merging.flow.inverses[:, 1]
    assert largest_defect(merging) > 0.01


def test_the_theme_ties_the_types_of_a_block_together():
    codes = library(2).patterns[library(2).classes == 1][0].reshape(2, 2, 2)

    def mutual_information(of: TypeLaw) -> float:
        joint = of.log_probability(assigned(codes, 4)).exp().reshape(4, 4)
        independent = torch.outer(joint.sum(1), joint.sum(0))
        return (joint * (joint / independent).log()).sum().item()

    assert mutual_information(law()) > 1e-3
    assert abs(mutual_information(law(themes=1))) < 1e-12


def p_value(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    expected = probabilities * counts.sum()
    assert expected.min() > 5
    statistic = ((counts - expected).square() / expected).sum().item()
    return float(chi2.sf(statistic, len(counts) - 1))


def frequencies(of: TypeLaw, codes: torch.Tensor, draws: int) -> torch.Tensor:
    """How often each assignment of :func:`all_types` is drawn."""
    types = of.sample(ValidPorts(codes.expand(draws, -1, -1, -1).contiguous()), generator=stream("tests", draws)).types
    place = torch.zeros(draws, dtype=torch.int64)
    for site in (codes != 0).nonzero().tolist():
        place = place * of.count + types[:, *site] - 1
    many = int((codes != 0).sum())
    return torch.bincount(place, minlength=of.count**many)


def paths() -> torch.Tensor:
    return library(2).patterns[library(2).classes == 2].reshape(-1, 2, 2, 2)


@pytest.mark.parametrize("pattern", [0, 11, 23])
def test_frequencies_of_types_are_their_probabilities(pattern):
    of, codes = law(3, strength=0.6), paths()[pattern]
    exact = of.log_probability(assigned(codes, 3)).exp()
    assert p_value(frequencies(of, codes, 20_000), exact) > BUDGET


def test_a_sampler_without_its_flow_or_without_themes_is_caught():
    codes = paths()[11]
    exact = law(3).log_probability(assigned(codes, 3)).exp()
    without = law(3)
    without.flow.depth = 0
    assert p_value(frequencies(without, codes, 20_000), exact) < BUDGET
    averaged = law(3)
    averaged.table = averaged.table.exp().mean(0, keepdim=True).log().expand(3, -1, -1)
    assert p_value(frequencies(averaged, codes, 20_000), exact) < BUDGET


# --- flow ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "depth"), [(1, 2), (3, 1), (4, 2), (5, 4)])
def test_the_flow_has_an_exact_inverse_and_keeps_empty_sites(count, depth):
    of, where = law(count, depth=depth), ports()
    types = torch.where(where.occupied, torch.randint(1, count + 1, where.codes.shape, generator=stream(3)), 0)
    moved = of.flow.forward(where, types)
    assert torch.equal(of.flow.inverse(where, moved), types)
    assert torch.equal(of.flow.forward(where, of.flow.inverse(where, types)), types)
    ValidState(where, moved, count)
    assert count == 1 or not torch.equal(moved, types)


def test_layers_undone_in_the_order_in_which_they_were_done_are_caught():
    of, where = law(), ports()
    types = torch.where(where.occupied, torch.randint(1, 5, where.codes.shape, generator=stream(3)), 0)
    moved = of.flow.forward(where, types)
    for layer in range(of.flow.depth):
        moved = of.flow.inverses[of.flow.keys(where, layer), moved]
    assert not torch.equal(moved, types)


def test_a_layer_permutes_the_labels_of_a_block_and_does_not_tell_its_sites_apart():
    of, where = law(), ports()
    for layer in range(2):
        keys = to_blocks(of.flow.keys(where, layer), 2)
        assert torch.equal(keys, keys[..., :1].expand_as(keys))
        assert len(keys.unique()) > 5


def test_permutations_know_the_ports_of_the_six_blocks_around_the_parity_and_no_more():
    of = law()
    empty = torch.zeros(1, 10, 10, 10, dtype=torch.int64)
    keys = to_blocks(of.flow.keys(ValidPorts(empty), 0), 2)[0, ..., 0]
    # Without ports the parity of the block alone decides.
    parity = torch.stack(torch.meshgrid(*[torch.arange(5)] * 3, indexing="ij")).sum(0) % 2
    assert torch.equal(keys, of.flow.parities[0][parity])
    assert of.flow.parities[0][0] != of.flow.parities[0][1]
    found = set()
    for direction in (0, 2, 4):
        near = empty.clone()
        near[0, 4, 4, 4] = 1 << direction
        near[0, 4 + (direction == 0), 4 + (direction == 2), 4 + (direction == 4)] = 2 << direction
        changed = to_blocks(of.flow.keys(ValidPorts(near), 0), 2)[0, ..., 0] != keys
        found |= {tuple(block) for block in changed.nonzero().tolist()}
    assert found == {(2, 2, 2), (1, 2, 2), (3, 2, 2), (2, 1, 2), (2, 3, 2), (2, 2, 1), (2, 2, 3)}


def test_permutations_of_far_blocks_do_not_know_a_change_of_ports():
    of, wide = law(), ports((2, 2, 12), batch=1).codes
    other = wide.clone()
    other[..., :2] = paths()[3]
    assert not torch.equal(other, wide)
    keys = [of.flow.keys(ValidPorts(codes), 0)[0, 0, 0] for codes in (wide, other)]
    assert torch.equal(keys[0][4:], keys[1][4:])
    assert not torch.equal(keys[0][:4], keys[1][:4])


def test_themes_and_blocks_are_spread_over_their_sites():
    values = torch.arange(2 * 2 * 1 * 3).reshape(2, 2, 1, 3)
    spread = over_sites(values, 2)
    assert spread.shape == (2, 4, 2, 6)
    assert torch.equal(spread[1, 2:4, 0:2, 4:6], torch.full((2, 2, 2), int(values[1, 1, 0, 2])))


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "occupied", "kind"), [(1, False, "type on empty"), (0, True, "no type"), (5, True, "no type")]
)
def test_types_that_do_not_fit_their_sites_are_named(type_, occupied, kind):
    where = ports()
    types = law().sample(where, generator=stream(1)).types
    site = tuple((where.occupied[2] == occupied).nonzero()[4].tolist())
    types[2, *site] = type_
    with pytest.raises(OracleError, match=kind) as caught:
        ValidState(where, types, 4)
    assert str(site) in caught.value.where
    assert "row 2" in caught.value.where
    assert caught.value.got == f"type {type_}"


def test_types_of_another_shape_or_dtype_are_refused():
    where = ports()
    for types in (where.codes[:1], where.codes.double()):
        with pytest.raises(OracleError, match="integers on the sites"):
            ValidState(where, types, 4)
