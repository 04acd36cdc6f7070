r"""The second-moment correlation length of correlations on a torus.

With correlations :math:`G(r)`, their Fourier transform :math:`\hat G`, and the smallest momentum :math:`k_a = 2\pi/L_a`
of each axis a,

.. math:: \xi^2 = \frac1d\sum_a\frac{\hat G(0)/\hat G(k_a) - 1}{4\sin^2(\pi/L_a)}

(Cooper, Freedman, Preston 1982). For :math:`\hat G(k) \propto 1/(m^2 + \sum_a(2 - 2\cos k_a))` it is 1/m at every size.
At the critical point of the Ising model it grows with the torus: :math:`\xi/L \to 0.9050488` (Salas, Sokal 2000).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Lattice


def correlation_length(correlation: Float[Tensor, "*size"], domain: Domain) -> float:
    """Second-moment length, in lattice steps, of correlations with the site whose indices are zero.

    NaN where the domain is no torus, or the correlations have no positive transform at the smallest momenta.
    """
    if not (isinstance(domain, Lattice) and domain.periodic) or min(domain.shape) < 2:
        return math.nan
    total, squares = correlation.double().sum(), []
    for axis, length in enumerate(domain.shape):
        phases = (2 * math.pi / length * torch.arange(length, dtype=torch.float64, device=correlation.device)).cos()
        along = correlation.double().movedim(axis, -1)
        transform = (along * phases).sum()
        if not transform > 0:
            return math.nan
        squares.append(float(total / transform - 1) / (4 * math.sin(math.pi / length) ** 2))
    square = sum(squares) / len(squares)
    return math.sqrt(square) if square >= 0 else math.nan
