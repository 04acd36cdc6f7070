"""Classes of the sites of a configuration, and of pairs of neighbours, that local statistics are taken over.

An occupied site is on a path of bonds, and its motif is its place there, up to the symmetries of the cube:

===============  ========================================================================================
motif            site
===============  ========================================================================================
``single-bond``  an end of a path of a single bond
``path-end``     an end of a longer path
``straight``     inside a path, with opposite ports
``bent``         inside a path, with ports at a right angle
===============  ========================================================================================

Occupied nearest neighbours are ``bonded`` where their ports match, and ``nonbonded`` where they only touch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sizetransfer.contracts.oracle import Division, SiteClasses
from sizetransfer.systems.hard_valid.directions import neighbour, port_bits
from sizetransfer.systems.hard_valid.validity import ValidState

MOTIFS = ("single-bond", "path-end", "straight", "bent")


def site_classes(state: ValidState) -> SiteClasses:
    """Sites by ``motif`` and by ``type``, and pairs of occupied neighbours, ``bonded`` or ``nonbonded``."""
    names = tuple(str(kind) for kind in range(1, state.count + 1))
    divisions = {"motif": Division(MOTIFS, motifs(state.ports.codes)), "type": Division(names, state.types - 1)}
    return SiteClasses(divisions, neighbours(state.ports.codes))


def motifs(codes: Tensor) -> Tensor:
    """Index into :data:`MOTIFS` of every occupied site and -1 on empty ones, for port states ``B *S``."""
    bits = port_bits(codes)
    degree = bits.sum(1)
    around = torch.stack([bits[:, direction] * neighbour(degree, direction) for direction in range(6)], dim=1)
    straight = (bits[:, 0::2] & bits[:, 1::2]).any(1)
    motif = torch.where(straight, MOTIFS.index("straight"), MOTIFS.index("bent"))
    motif = torch.where(degree == 1, (around == 2).any(1).long(), motif)
    return torch.where(degree > 0, motif, -1)


def neighbours(codes: Tensor) -> dict[str, Tensor]:
    """Pairs of occupied nearest neighbours by class: row and the two flat indices, int64 ``(3, n)``."""
    bits, sites = port_bits(codes), torch.arange(codes[0].numel(), device=codes.device)
    index = sites.reshape(codes.shape[1:]).expand_as(codes)
    row = torch.arange(len(codes), device=codes.device).reshape(-1, 1, 1, 1).expand_as(codes)
    found: dict[str, list[Tensor]] = {"bonded": [], "nonbonded": []}
    for direction in (0, 2, 4):
        pairs = torch.stack([row, index, neighbour(index, direction)])
        touching, port = (codes != 0) & (neighbour(codes, direction) != 0), bits[:, direction]
        found["bonded"].append(pairs[:, touching & port])
        found["nonbonded"].append(pairs[:, touching & ~port])
    return {name: torch.cat(pairs, dim=1) for name, pairs in found.items()}
