r"""How far rounding takes two computations of one number apart: the one table of the suite, by quantity and dtype.

Equal bits are a promise for the same operation on the same shapes: repetition, resumption, another process. Sums,
products and quotients of two numbers, and square roots, are correctly rounded, so they have the same bits everywhere.
For other shapes, batches, tiles or layouts, and on another processor, the libraries choose other kernels: they add the
same terms in another order and take exponentials by other polynomials. Two such results differ by

.. math:: N\, \epsilon \max|\text{value}|

at most, with N the units of the table and :math:`\epsilon` the spacing of the dtype at one. The rounding of a sum of n
terms grows like :math:`\sqrt n\,\epsilon\sum|\text{term}|`, and terms of either sign add up to some
:math:`\sum|\text{term}| / \sqrt n`: together :math:`n\,\epsilon` of the sum. A value that is small by cancellation has
no relative accuracy of its own, so the scale is the largest value.

Where something is compared with an independent calculation that has errors of its own (a finite difference, a
quadrature, an iteration), the tolerance is that of the calculation and stands beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}

_UNITS = {
    # A student's score, or a row of its Jacobian. The longest sum of the suite's students has 27 neighbours x 32
    # channels = 864 terms; its rounding hides that of the shorter ones before and after it.
    "score": 1024,
    # What transfer matrices say of spins in a field, on up to 8 rows of 8: eight butterflies a row, each one product
    # and one sum of positive terms, forwards and backwards; a mean is the ratio of two such sums.
    "posterior": 512,
    # The log-density of a field: a sum over up to 18 x 18 x 18 = 5832 sites, most of one sign, so that n terms cost
    # sqrt(n) = 76 units; each term comes out of two convolutions of some 300 terms.
    "density": 512,
    # A number that a measure makes of fields: sums of squares over up to 1024 sites and fields, all of one sign (32
    # units), of scores; a ratio of two of them and its root.
    "measure": 1024,
}

TOLERANCE = {quantity: {dtype: units * EPSILON[dtype] for dtype in EPSILON} for quantity, units in _UNITS.items()}
"""Share of the largest value that rounding may take."""


def rounding(value: Tensor, quantity: str = "score") -> float:
    """What rounding may change in ``value``, of that quantity."""
    return TOLERANCE[quantity][value.dtype] * value.abs().max().item()


def assert_rounding(actual: Tensor, expected: Tensor, quantity: str = "score", *, condition: float = 1.0) -> None:
    """Assert that two computations of one quantity differ by no more than their rounding.

    Args:
        actual, expected: of one dtype.
        quantity: the line of the table.
        condition: how many such computations follow each other, each on the result of the one before; or how much
            larger numbers were before they cancelled.
    """
    torch.testing.assert_close(actual, expected, rtol=0, atol=condition * rounding(expected, quantity))


def inverse_rounding(matrix: Tensor) -> float:
    r"""What rounding may change in an entry of the inverse: :math:`\epsilon\,\kappa(M)\,\|M^{-1}\|`.

    The condition number :math:`\kappa` is how much the inverse is changed by a relative change of the matrix, and
    rounding is a change by :math:`\epsilon`.
    """
    inverse = torch.linalg.matrix_norm(torch.linalg.inv(matrix), 2)
    return float(EPSILON[matrix.dtype] * torch.linalg.cond(matrix) * inverse)
