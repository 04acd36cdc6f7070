r"""The law of the types M given the ports S: a block model under a finite-depth flow of permutations.

In every block a theme k is drawn evenly among K, and every occupied site i takes a base type from the logits of its own
ports and of the theme,

.. math:: P(m_b | S) = \frac1K \sum_k \prod_{i \in b} \operatorname{softmax}\bigl(a_{S_i} + c_k\bigr)_{m_i} .

Layer :math:`\ell` of the flow permutes the labels of each block, :math:`m_i \leftarrow \pi(m_i)`, by a permutation
:math:`\pi` that is a function of the ports of the block, of those of its six neighbours and of the block's parity in
the tiling (paper appendix B.1). Given S the flow is a bijection of the types with an explicit inverse, so

.. math:: \log P(M|S) = \sum_b \log P\bigl((F_S^{-1} M)_b\,\big|\,S\bigr)

is exact, and a type depends on no ports further than ``2 * side - 1`` sites away.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from sizetransfer.contracts.randomness import integers, uniform
from sizetransfer.systems.hard_valid.blocks import block_parity, over_sites, to_blocks
from sizetransfer.systems.hard_valid.directions import CODES, neighbour
from sizetransfer.systems.hard_valid.validity import ValidPorts, ValidState

LARGEST_COUNT = 6
"""Types have up to 6! = 720 permutations, which are tabled."""


class TypeFlow:
    """Permutations of the labels of blocks, chosen by the ports nearby (see the module's description).

    Args:
        random: draws the rule, as integers.
        side: sites along each axis of a block.
        count: number of types T.
        depth: layers.
    """

    def __init__(self, random: np.random.Generator, *, side: int, count: int, depth: int) -> None:
        self.side = side
        self.depth = depth
        permutations = torch.tensor(list(itertools.permutations(range(1, count + 1))))
        self.permutations = torch.cat([torch.zeros_like(permutations[:, :1]), permutations], dim=1)
        self.inverses = self.permutations.argsort(dim=1)
        many = len(permutations)
        # What a site adds to the key: of each of the six blocks around, then of the block itself.
        self.motifs = torch.from_numpy(random.integers(0, many, size=(depth, 7, CODES)))
        self.motifs[..., 0] = 0
        self.parities = torch.from_numpy(random.integers(0, many, size=(depth, 2)))

    def keys(self, ports: ValidPorts, layer: int) -> Tensor:
        """Index of the permutation of every site's block in a layer, integers of shape ``B *S``."""
        many, codes = len(self.permutations), to_blocks(ports.codes, self.side)
        motifs, parities = self.motifs[layer].to(codes.device), self.parities[layer].to(codes.device)
        key = motifs[6][codes].sum(-1) + parities[block_parity(codes.shape[1:4]).to(codes.device)]
        for direction in range(6):
            key = key + neighbour(motifs[direction][codes].sum(-1), direction)
        return over_sites(key % many, self.side)

    def forward(self, ports: ValidPorts, types: Tensor) -> Tensor:
        """Base types to types, integers ``B *S``."""
        for layer in range(self.depth):
            types = self.permutations.to(types.device)[self.keys(ports, layer), types]
        return types

    def inverse(self, ports: ValidPorts, types: Tensor) -> Tensor:
        """Types to base types, integers ``B *S``."""
        for layer in reversed(range(self.depth)):
            types = self.inverses.to(types.device)[self.keys(ports, layer), types]
        return types


class TypeLaw:
    """Types given ports (see the module's formulas).

    Args:
        random: draws logits and permutations.
        side: sites along each axis of a block.
        count: number of types T.
        themes: number of themes K.
        motif_strength: standard deviation of the logits of a port state.
        theme_strength: standard deviation of the logits of a theme.
        depth: layers of the flow.

    Attributes:
        flow: from base types to types.
        table: log-probability of each base type given theme and port state, float64 of shape ``(K, 64, T + 1)``.
    """

    def __init__(
        self,
        random: np.random.Generator,
        *,
        side: int,
        count: int,
        themes: int,
        motif_strength: float,
        theme_strength: float,
        depth: int,
    ) -> None:
        self.side, self.count, self.themes = side, count, themes
        motif = motif_strength * _spread(random, (1, CODES, count))
        theme = theme_strength * _spread(random, (themes, 1, count))
        self.table = torch.full((themes, CODES, count + 1), -torch.inf, dtype=torch.float64)
        self.table[:, 1:, 1:] = torch.log_softmax(motif + theme, dim=-1)[:, 1:]
        self.table[:, 0, 0] = 0
        self.flow = TypeFlow(random, side=side, count=count, depth=depth)

    def sample(self, ports: ValidPorts, *, generator: torch.Generator) -> ValidState:
        """Draw types for every configuration of ports."""
        types = self.flow.forward(ports, self._sample_base(ports, generator))
        return ValidState(ports, types, self.count)

    def _sample_base(self, ports: ValidPorts, generator: torch.Generator) -> Tensor:
        codes, device = ports.codes, ports.codes.device
        batch, *shape = codes.shape
        counts = [length // self.side for length in shape]
        theme = integers(self.themes, (batch, *counts), generator=generator, like=codes)
        draws = uniform(codes.shape, generator=generator, like=codes, dtype=torch.float64)
        cumulative = self.table.exp().cumsum(-1)
        # The last entry is one to rounding; the type is the number of entries that a draw below one has passed.
        thresholds = cumulative[..., :-1].to(device)
        rows = over_sites(theme, self.side) * CODES + codes
        return (draws[..., None] >= thresholds.flatten(0, 1)[rows]).sum(-1)

    def log_probability(self, state: ValidState) -> Tensor:
        """Logarithm of the probability of the types given the ports, float64 of shape ``(B,)``."""
        base = self.flow.inverse(state.ports, state.types)
        table = self.table.flatten(1).to(base.device)
        entry = to_blocks(state.ports.codes * (self.count + 1) + base, self.side)
        given_theme = torch.stack([row[entry].sum(-1) for row in table])
        return (torch.logsumexp(given_theme, dim=0) - math.log(self.themes)).flatten(1).sum(1)


def _spread(random: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers of unit variance, rounded to single precision, in float64."""
    draws = random.uniform(-math.sqrt(3), math.sqrt(3), size=shape).astype(np.float32)
    return torch.from_numpy(draws).double()
