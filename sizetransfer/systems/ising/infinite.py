r"""The infinite square lattice: what is known in closed form (Onsager 1944)."""

from __future__ import annotations

import math

CRITICAL = 0.5 * math.log1p(math.sqrt(2))
"""Critical coupling, sinh(2 beta) = 1."""


def dual(beta: float) -> float:
    """Coupling of the dual lattice, ``sinh(2 beta) sinh(2 dual) = 1`` (Kramers and Wannier 1941)."""
    return 0.5 * math.asinh(1 / math.sinh(2 * beta))


def energy(beta: float) -> float:
    r"""Mean of :math:`s_is_j` over a bond, half of :math:`\coth2\beta\,[1 + \tfrac2\pi(2\tanh^22\beta - 1)K(\kappa)]`.

    K is the complete elliptic integral of the first kind, :math:`\kappa = 2\sinh2\beta/\cosh^22\beta` its modulus
    (Onsager 1944), by the arithmetic-geometric mean; at the critical coupling the bracket is one.
    """
    if beta == 0:
        return 0.0
    slope = 2 * math.tanh(2 * beta) ** 2 - 1
    complement = abs(slope)
    bracket = 1.0 if complement < 1e-15 else 1 + 2 / math.pi * slope * _elliptic(complement)
    return bracket / (2 * math.tanh(2 * beta))


def _elliptic(complement: float) -> float:
    """K from the complementary modulus: pi / 2 over the arithmetic-geometric mean of one and that."""
    a, b = 1.0, complement
    while abs(a - b) > 1e-15 * a:
        a, b = 0.5 * (a + b), math.sqrt(a * b)
    return 0.5 * math.pi / a


def correlation_length(beta: float) -> float:
    r"""Along an axis: :math:`1/2(\beta^* - \beta)` below the critical coupling, :math:`1/4(\beta - \beta^*)` above.

    The dual coupling is :math:`\beta^*`; above, it is the length of the connected correlation.
    """
    if beta <= 0:
        return 0.0
    apart = abs(2 * (dual(beta) - beta))
    if apart == 0:
        return math.inf
    return 1 / apart if beta < CRITICAL else 0.5 / apart
