r"""How far rounding takes two computations of one number apart: the one table of the suite, by quantity and dtype.

Bits are equal where operation and shapes are the same. For other shapes, batches, tiles or layouts, and on another
processor, the libraries choose other kernels: they add the same terms in another order and take exponentials by other
polynomials. Then two results differ by

.. math:: N\, \epsilon \max|\text{value}|

with N the units of the table and :math:`\epsilon` the spacing of the dtype at one. Rounding errors of a sum of n terms
grow like :math:`\sqrt n\,\epsilon\sum|\text{term}|`, and terms of either sign add up to some
:math:`\sum|\text{term}| / \sqrt n`: together :math:`n\,\epsilon` of the sum. A value that is small by cancellation has
no relative accuracy of its own, so the scale is the largest value.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}

_UNITS = {
    # A few operations at each site, one exponential or sine among them, each by another vector kernel: rounded
    # correctly to one unit, or to two for the special functions.
    "elementwise": 8,
    # A student's score or a row of its Jacobian. The longest sum of the suite's students has 27 neighbours x 32
    # channels = 864 terms; its rounding hides that of the shorter ones around it.
    "score": 1024,
}

TOLERANCE = {quantity: {dtype: units * EPSILON[dtype] for dtype in EPSILON} for quantity, units in _UNITS.items()}
"""Share of the largest value that rounding may take."""


def assert_rounding(actual: Tensor, expected: Tensor, quantity: str = "score", *, times: int = 1) -> None:
    """Assert that two computations of one quantity differ by no more than their rounding.

    Args:
        actual, expected: of one dtype.
        quantity: the line of the table.
        times: how many such computations follow each other, each on the result of the one before.
    """
    allowed = times * TOLERANCE[quantity][expected.dtype] * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=allowed)


def inverse_rounding(matrix: Tensor) -> float:
    r"""What rounding may change in an entry of the inverse: :math:`\epsilon\,\kappa(M)\,\|M^{-1}\|`.

    The condition number :math:`\kappa` is how much the inverse is changed by a relative change of the matrix, and
    rounding is a change by :math:`\epsilon`.
    """
    inverse = torch.linalg.matrix_norm(torch.linalg.inv(matrix), 2)
    return float(EPSILON[matrix.dtype] * torch.linalg.cond(matrix) * inverse)
