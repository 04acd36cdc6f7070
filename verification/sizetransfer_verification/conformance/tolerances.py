r"""How far two numbers that should be equal may be apart.

A tolerance is relative to the largest number of the comparison, per dtype and per quantity:

- ``value``: the same function by another order of operations;
- ``derivative``: by automatic differentiation, or through one linear solve;
- ``second-derivative``: through two;
- ``quadrature``: a numerical integral, besides its own estimate of the error;
- ``precision``: float32 against float64.

Where the truth is a mean over draws, the tolerance is a number of standard errors: see :data:`ERROR_BUDGET`.
"""

from __future__ import annotations

from typing import Literal

Quantity = Literal["value", "derivative", "second-derivative", "quadrature", "precision"]

TOLERANCES: dict[str, dict[Quantity, float]] = {
    "float64": {
        "value": 1e-10,
        "derivative": 1e-8,
        "second-derivative": 1e-6,
        "quadrature": 1e-6,
        "precision": 5e-4,
    },
    "float32": {
        "value": 2e-5,
        "derivative": 2e-4,
        "second-derivative": 5e-3,
        "quadrature": 1e-3,
        "precision": 5e-4,
    },
}
"""Relative tolerances by dtype and quantity."""

ERROR_BUDGET = 1e-9
"""Probability with which one statistical comparison may call a right teacher wrong.

A report with a thousand such comparisons calls a right teacher wrong with probability 1e-6 at most, if the means are
normal; the number of comparisons is in the report.
"""

SMALLEST_COUNT = 500
"""Draws below which the mean of a heavy-tailed statistic is not taken as normal."""


def tolerance(dtype: str, quantity: Quantity) -> float:
    """The table's entry."""
    return TOLERANCES[dtype][quantity]
