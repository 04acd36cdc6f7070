"""Ports, types and walls as the condition channels that students read; this is the only place that knows their order.

With T types, ``Context.condition`` has K = 9 + T channels:

======================  ==========================================================================================
channels                content
======================  ==========================================================================================
0                       one on occupied sites
1 to 6                  one where the port towards +x, -x, +y, -y, +z, -z is open
7 to 6 + T              one where the type is 1 to T
7 + T                   steps to the nearest place outside the box, at most ``wall_cap``, over ``wall_cap``
8 + T                   the sublattice: -1 where the sum of coordinates is even, 1 where it is odd
======================  ==========================================================================================

Distances beyond ``wall_cap`` look alike: a larger box shows a student nothing that a training box of ``2 * wall_cap``
sites a side has not shown. The sublattice is there because checkerboard layers tell the sublattices apart; a student
that cannot has an error floor that no radius removes. Empty sites have no port and type channel set.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sizetransfer.contracts.oracle import Context
from sizetransfer.systems.hard_valid.directions import port_bits
from sizetransfer.systems.hard_valid.validity import ValidState


def condition_channels(count: int) -> int:
    """K, for that number of types."""
    return 9 + count


def encode(state: ValidState, *, wall_cap: int, like: Tensor) -> Context:
    """What a student sees of ports and types, with the dtype and device of ``like``.

    Args:
        state: B configurations of ports and types.
        wall_cap: distance to the wall from which on all sites look alike, in lattice steps.
        like: a tensor with the dtype and device.

    Returns:
        The open box, the condition ``B K *S`` and the mask of occupied sites ``B 1 *S``.
    """
    domain, device = state.domain, like.device
    codes, types = state.ports.codes.to(device), state.types.to(device)
    occupied = (codes != 0)[:, None]
    one_hot = types[:, None] == torch.arange(1, state.count + 1, device=device).reshape(-1, 1, 1, 1)
    wall = (domain.wall_distance().clamp(max=wall_cap).double() / wall_cap).to(like)
    sign = (2 * domain.parity() - 1).to(like)
    of_box = torch.stack([wall, sign]).expand(len(codes), -1, -1, -1, -1)
    of_state = torch.cat([occupied, port_bits(codes), one_hot], dim=1).to(like)
    return Context(domain, torch.cat([of_state, of_box], dim=1), occupied)
