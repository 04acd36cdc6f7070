"""Every valid configuration of a box of two blocks, 2 x 2 x 4 sites: their probabilities sum to one.

A configuration is a valid one of either block and a set of bonds across. The 12 082 896 of them are looked at in
pieces: without a bond across all pairs of blocks are; with one, no block may be one of the library, whatever the other.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from sizetransfer.systems.hard_valid import PatternWeights, PortLaw, ValidPorts, first_violation
from sizetransfer.systems.hard_valid.directions import port_bits, unit

PLUS_Z, MINUS_Z = 4, 5  # directions
VALID = 12_082_896


def valid_cubes() -> Tensor:
    """All valid ports of 2 x 2 x 2 sites, from the subsets of the twelve edges."""
    lines = [
        (site, direction)
        for site in itertools.product(range(2), repeat=3)
        for direction in (0, 2, 4)
        if site[direction // 2] == 0
    ]
    ports = torch.zeros(2 ** len(lines), 2, 2, 2, dtype=torch.int64)
    chosen = (torch.arange(len(ports))[:, None] >> torch.arange(len(lines))) & 1
    for line, (site, direction) in enumerate(lines):
        other = tuple(a + step for a, step in zip(site, unit(direction), strict=True))
        ports[:, *site] += chosen[:, line] << direction
        ports[:, *other] += chosen[:, line] << (direction ^ 1)
    return ports[(port_bits(ports).sum(1) <= 2).flatten(1).all(1)]


def halves(cubes: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
    """The valid lower and upper blocks of a box with bonds ``across`` (2 x 2 of zeros and ones) between them."""
    degrees = port_bits(cubes).sum(1)
    lower, upper = cubes.clone(), cubes.clone()
    lower[..., 1] += across << PLUS_Z
    upper[..., 0] += across << MINUS_Z
    fits = [(degrees[..., layer] + across <= 2).flatten(1).all(1) for layer in (1, 0)]
    return lower[fits[0]], upper[fits[1]]


@pytest.fixture(scope="module")
def cubes() -> Tensor:
    return valid_cubes()


def test_all_valid_configurations_of_two_blocks_have_probability_one_together(cubes):
    law, total, count = PortLaw(2, PatternWeights()), 0.0, 0
    for bonds in itertools.product((0, 1), repeat=4):
        across = torch.tensor(bonds).reshape(2, 2)
        lower, upper = halves(cubes, across)
        count += len(lower) * len(upper)
        if any(bonds):
            known = [law.library.find(half.flatten(1)) >= 0 for half in (lower, upper)]
            assert not torch.cat(known).any()
            other = lower[: min(len(lower), len(upper))], upper[: min(len(lower), len(upper))]
            box = torch.cat(other, dim=3)
            assert first_violation(box) is None
            assert (law.log_probability(ValidPorts(box)) == -torch.inf).all()
            continue
        for piece in lower.split(64):
            pairs = torch.cartesian_prod(torch.arange(len(piece)), torch.arange(len(upper)))
            index = law.library.find(torch.stack([piece[pairs[:, 0]].flatten(1), upper[pairs[:, 1]].flatten(1)], 1))
            known = (index >= 0).all(1)
            total += law.log_probabilities[index[known]].sum(1).exp().sum().item()
    assert count == VALID
    assert total == pytest.approx(1, abs=1e-12)


def test_a_law_that_gives_bonds_across_some_probability_is_caught(cubes):
    """The same search, of a library that knows a block by its own bonds alone, finds what must not be there."""
    law = PortLaw(2, PatternWeights())
    lower, _ = halves(cubes, torch.tensor([[1, 0], [0, 0]]))
    inside = lower.clone()
    inside[:, 0, 0, 1] &= ~(1 << PLUS_Z)
    assert (law.library.find(inside.flatten(1)) >= 0).any()
