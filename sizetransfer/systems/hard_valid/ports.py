r"""The law of the port states S: blocks of paths, drawn without rejection and valid by construction.

The box is tiled into cubic blocks. Every block independently takes a pattern from a finite library: the empty one, the
single edges and the two-edge paths that stay inside it; in a block of 2x2x2 sites 1 + 12 + 24 patterns. A class c
(empty, edge, path) has probability :math:`w_c`, shared evenly by its :math:`n_c` patterns (paper appendix B.1):

.. math:: \log P(S) = \sum_{\text{blocks } b} \log\frac{w_{c(b)}}{n_{c(b)}},

and minus infinity where a block shows no pattern of the library.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.randomness import uniform
from sizetransfer.contracts.specs import Spec
from sizetransfer.systems.hard_valid.blocks import from_blocks, require_blocks, to_blocks
from sizetransfer.systems.hard_valid.directions import opposite, unit
from sizetransfer.systems.hard_valid.validity import ValidPorts

CLASSES = ("empty", "edge", "path")


class PatternWeights(Spec):
    """Relative weights of the classes of patterns; within a class all patterns are equally likely."""

    empty: float = Field(0.1, ge=0, allow_inf_nan=False, description="blocks without a port")
    edge: float = Field(0.2, ge=0, allow_inf_nan=False, description="blocks with one edge: two sites")
    path: float = Field(0.7, ge=0, allow_inf_nan=False, description="blocks with a path of two edges: three sites")

    @model_validator(mode="after")
    def _some_weight(self) -> PatternWeights:
        if not self.empty + self.edge + self.path > 0:
            raise SpecError(
                "No class of patterns has any weight.",
                where="weights",
                expected="a positive weight of at least one class",
                got=str(self.to_json()),
                fix="raise one of them",
            )
        return self


@dataclass(frozen=True, eq=False)
class Library:
    """The patterns of one block.

    Attributes:
        side: sites along each axis of the block.
        patterns: port states, int64 of shape ``(P, side ** 3)``.
        classes: index into :data:`CLASSES`, int64 of shape ``(P,)``.
        keys: a hash of each pattern, int64 of shape ``(P,)``, ascending: patterns are sorted by it.
        factors: the hash is the sum of port states times these, int64 of shape ``(side ** 3,)``.
    """

    side: int
    patterns: Tensor
    classes: Tensor
    keys: Tensor
    factors: Tensor

    def find(self, blocks: Tensor) -> Tensor:
        """Index of the pattern that each block ``... side**3`` shows, -1 where it is none of the library."""
        keys, patterns = self.keys.to(blocks.device), self.patterns.to(blocks.device)
        hashes = (blocks * self.factors.to(blocks.device)).sum(-1)
        index = torch.searchsorted(keys, hashes).clamp(max=len(keys) - 1)
        return torch.where((patterns[index] == blocks).all(-1), index, -1)


@lru_cache(maxsize=8)
def library(side: int) -> Library:
    """All patterns of a block of ``side ** 3`` sites: empty, single edges and two-edge paths inside it."""
    sites = list(itertools.product(range(side), repeat=3))
    edges = []
    for site, direction in itertools.product(sites, (0, 2, 4)):
        other = tuple(a + step for a, step in zip(site, unit(direction), strict=True))
        if max(other) < side:
            edges.append(((site, direction), (other, opposite(direction))))
    paths = [
        (*first, *second)
        for first, second in itertools.combinations(edges, 2)
        if {site for site, _ in first} & {site for site, _ in second}
    ]
    members: list[tuple[Sequence[tuple[tuple[int, ...], int]], int]] = [((), 0)]
    members += [(edge, 1) for edge in edges] + [(path, 2) for path in paths]
    patterns = torch.zeros(len(members), *(side,) * 3, dtype=torch.int64)
    for pattern, (ports, _) in zip(patterns, members, strict=True):
        for site, direction in ports:
            pattern[site] += 1 << direction
    patterns = patterns.flatten(1)
    # The odd factor spreads the port states over the 64 bits of an integer; equality is compared beside the hash.
    factors = torch.tensor([pow(0x9E3779B97F4A7C15, 1 + site, 1 << 61) for site in range(side**3)])
    order = (patterns * factors).sum(-1).argsort()
    keys = (patterns * factors).sum(-1)[order]
    return Library(side, patterns[order], torch.tensor([kind for _, kind in members])[order], keys, factors)


class PortLaw:
    """Independent patterns of a finite library in the blocks of a box (see the module's formula).

    Attributes:
        side: sites along each axis of a block.
        log_probabilities: of the patterns of the library, float64 of shape ``(P,)``.
    """

    def __init__(self, side: int, weights: PatternWeights) -> None:
        self.side = side
        self.library = library(side)
        shares = torch.tensor([weights.empty, weights.edge, weights.path], dtype=torch.float64)
        shares = shares / shares.sum() / torch.bincount(self.library.classes, minlength=3)
        self.log_probabilities = shares[self.library.classes].log()

    def sample(self, batch: int, shape: Sequence[int], *, generator: torch.Generator) -> ValidPorts:
        """Draw ``batch`` port configurations on a box, on the generator's device.

        Raises:
            OracleError: blocks do not tile the box.
        """
        require_blocks(shape, self.side)
        cumulative = self.log_probabilities.exp().cumsum(0)
        cumulative = (cumulative / cumulative[-1]).to(generator.device)
        counts = [length // self.side for length in shape]
        draws = uniform((batch, *counts), generator=generator, like=cumulative)
        index = torch.searchsorted(cumulative, draws, right=True)
        return ValidPorts(from_blocks(self.library.patterns.to(index.device)[index], self.side))

    def log_probability(self, ports: ValidPorts) -> Tensor:
        """Logarithm of the probability of each configuration, float64 of shape ``(B,)``.

        Raises:
            OracleError: blocks do not tile the box.
        """
        require_blocks(ports.domain.shape, self.side)
        index = self.library.find(to_blocks(ports.codes, self.side))
        table = torch.cat([self.log_probabilities, torch.tensor([-torch.inf], dtype=torch.float64)])
        return table.to(index.device)[index].flatten(1).sum(1)
