r"""The best score of a radius for a Gaussian field, and the error that no training removes.

.. math:: g_r = [(C+v)^{-1}]_{ii} - [(C+v)_{BB}^{-1}]_{ii}

relative to the exact score, :math:`\sqrt{g_r / [(C+v)^{-1}]_{ii}}` (:mod:`sizetransfer.gaussian`).
"""

from __future__ import annotations

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.comparison import Quantity
from sizetransfer.errors import OracleError
from sizetransfer.oracle import Context, HasCovariance, Teacher
from sizetransfer.student import Student
from sizetransfer.students.optimal_local import BestFilter, best_filter

# Components of the largest ball that is diagonalised without being asked: about two seconds.
LARGEST_BALL = 2048
ROUNDING = 256 * torch.finfo(torch.float64).eps
"""What rounding may leave of the relative squared error."""


class BestScores(Student):
    """The best score of each radius on the domain of one size; as a student, that of ``radius``.

    Args:
        teacher: a Gaussian law.
        size: as for :meth:`sizetransfer.oracle.Teacher.sample`.
        radius: receptive radius of the student.
    """

    def __init__(self, teacher: Teacher, size: int, radius: int | None) -> None:
        super().__init__(teacher.field, radius=radius)
        if not isinstance(teacher, HasCovariance):
            raise OracleError(
                "The best local score is known for Gaussian fields only.",
                where=type(teacher).__name__,
                expected="the capability HasCovariance",
                fix="choose a Gaussian teacher",
            )
        self.domain = teacher.domain(size)
        self._covariance = partial(teacher.covariance, size)
        self._filters: dict[int, BestFilter] = {}

    def filter(self, radius: int) -> BestFilter | None:
        """The filter of a radius; none where its ball is too large."""
        centre = (0,) * len(self.domain.shape)
        components = int(self.domain.ball(centre, radius).sum()) * self.field.channels
        if components > LARGEST_BALL:
            return None
        if radius not in self._filters:
            self._filters[radius] = best_filter(self.domain, radius, self._covariance)
        return self._filters[radius]

    def relative_error(self, radius: int | None, sigma: float, power: float) -> Quantity | None:
        """Irreducible relative error of a radius; ``power`` is the mean square of the exact score's components."""
        if radius is None:
            return Quantity(0.0, "exact")
        best = self.filter(radius)
        if best is None:
            return None
        share = 1 - float(best.power(torch.tensor([sigma], dtype=torch.float64))) / power
        # A difference of nearly equal numbers: where the ball holds all that matters, nothing but rounding is left.
        value = math.sqrt(share) if share > ROUNDING else 0.0
        return Quantity(value, "exact", ROUNDING / (2 * value) if value else math.sqrt(ROUNDING))

    def sufficient_radius(self, tolerance: float, sigma: float, power: float, largest: int) -> Quantity | None:
        """Smallest radius whose irreducible error is at most ``tolerance``; none where balls become too large."""
        for radius in range(largest + 1):
            error = self.relative_error(radius, sigma, power)
            if error is None:
                return None
            if error.value <= tolerance:
                return Quantity(float(radius), "exact")
        return Quantity(float(largest), "exact")

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        """Score of the student's radius."""
        best = None if self.radius is None else self.filter(self.radius)
        if best is None:
            raise OracleError(
                "The ball of the radius is too large for the best score.",
                where=f"radius {self.radius}",
                expected=f"at most {LARGEST_BALL} components",
                fix="lower the radius",
            )
        return best.score(x, sigma)
