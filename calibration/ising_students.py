r"""Students of the noisy Ising model, some right and some wrong, for which the verdict can be checked by long rollouts.

A student passes messages for as many steps as its radius (Bethe's equations for the spins given the noisy field),

.. math:: u_{i\to j} = \operatorname{artanh}(\tanh\beta'\,\tanh(x_i/v + \sum_{k\ne j} u_{k\to i})), \qquad
   \hat s_i = g\,\frac{\tanh(x_i/v + \sum_k u_{k\to i}) - x_i}{v},

with a coupling :math:`\beta'` and a gain g of its own.
"""

from __future__ import annotations

import torch

import sizetransfer as st
from sizetransfer.contracts.specs import FieldInfo

DIRECTIONS = ((0, 1), (0, -1), (1, 1), (1, -1))
"""Axis and step from a neighbour to the site."""


class MessageStudent(st.Student):
    """Bethe's equations, iterated ``radius`` times."""

    def __init__(self, radius: int, coupling: float, gain: float = 1.0) -> None:
        super().__init__(FieldInfo(dim=2, sigma_data=1.0), radius=radius)
        self.coupling, self.gain = coupling, gain

    def forward(self, x, sigma, context):
        v = sigma.to(x).square().reshape(-1, 1, 1, 1)
        field = x / v
        messages = [torch.zeros_like(x)] * 4
        for _ in range(self.radius):
            total = field + sum(messages)
            # What goes on in a direction came from behind: all but what came back from there.
            messages = [
                self._passed(total - messages[place ^ 1]).roll(step, 2 + axis)
                for place, (axis, step) in enumerate(DIRECTIONS)
            ]
        return self.gain * (torch.tanh(field + sum(messages)) - x) / v

    def _passed(self, cavity):
        return torch.atanh(torch.tanh(torch.tensor(self.coupling).to(cavity)) * torch.tanh(cavity))
