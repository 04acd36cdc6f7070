r"""The best score of receptive radius r for an Ising model: what no training can beat.

.. math:: s_i(x) = \frac{E[s_i\,|\,x_{B_r(i)}] - x_i}v, \qquad v = \sigma^2

the score of the ball's marginal, and so the optimum of denoising score matching among all functions of the ball. The
mean is that of the Ising model in the field x/v inside the ball and none outside
(:mod:`sizetransfer.systems.ising.posterior`): one exact solution for every site and every field.

The law is that of a reference torus of a given side, for all sizes: one rule, as a trained student has, and the
optimum up to what goes around that torus. ``reference: auto`` takes a side of 8, or 2r + 2 where that is more; in an
open box and on a cylinder there is no such rule. ``reference: lattice`` takes the law of every lattice it meets, as far
as the solver reaches: the exact optimum there, and no rule of what it sees alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo, StudentSpec
from sizetransfer.contracts.student import Student
from sizetransfer.students.geometry import require_geometry
from sizetransfer.systems.ising import IsingCoupling, IsingPosterior, Limits

SMALLEST_REFERENCE = 8


class OptimalLocalIsingSpec(IsingCoupling, StudentSpec):
    """Best score of a given radius for an Ising model; its coupling is that of the teacher."""

    kind: Literal["optimal-local-ising"] = "optimal-local-ising"
    radius: int = Field(3, ge=0, description="receptive radius r, Chebyshev")
    reference: Literal["auto", "lattice"] | int = Field(
        "auto", description="side of the torus whose law is used: 8 or 2 radius + 2, each lattice's own, or a number"
    )
    memory: float = Field(4.0, gt=0, description="GiB that a call may take")
    seconds: float = Field(600.0, gt=0, description="seconds on one core that a call may take")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "critical": {"beta_over_critical": 1.0},
        "near-critical": {"beta_over_critical": 0.95},
        "disordered": {"beta_over_critical": 0.5},
    }

    def build(self, field: FieldInfo) -> OptimalLocalIsingStudent:
        require_geometry(self, field)
        if field.dim != 2 or field.channels != 1:
            raise SpecError(
                "The Ising model has one spin at each site of a square lattice.",
                where="optimal-local-ising, field.dim, field.channels",
                expected="two dimensions and one channel",
                got=f"{field.dim} and {field.channels}",
                fix="choose the teacher ising",
            )
        if isinstance(self.reference, int) and (self.reference < 2 * self.radius + 1 or not field.periodic):
            raise SpecError(
                "The ball does not fit on the reference torus, or the fields have walls.",
                where="reference",
                expected=f"at least 2 * radius + 1 = {2 * self.radius + 1}, and fields on a torus",
                got=f"{self.reference}, periodic = {field.periodic}",
                fix="raise reference, or use lattice",
            )
        return OptimalLocalIsingStudent(self, field)

    def reference_side(self, field: FieldInfo) -> int | None:
        """Side of the torus whose law serves for such fields; none: each lattice's own law."""
        if self.reference == "lattice" or (self.reference == "auto" and not field.periodic):
            return None
        return max(SMALLEST_REFERENCE, 2 * self.radius + 2) if self.reference == "auto" else self.reference


class OptimalLocalIsingStudent(Student):
    """Best local score of an Ising model (see the module's formula); it has no weights."""

    ignores = frozenset({"condition"})
    # Its derivative comes from the solver itself, once and for plain tensors.
    unsupported = frozenset({"compile", "func", "second derivatives"})

    def __init__(self, spec: OptimalLocalIsingSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=spec.radius)
        self.spec = spec
        self.reference = spec.reference_side(field)
        self.reads_domain = self.reference is None

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        """The score, like ``x``.

        Raises:
            OracleError: a mask, a field that does not fit the domain or is not finite, a noise level that is not
                positive; beyond the limits a ``TooLargeError`` with the estimate.
        """
        if context.mask is not None:
            raise OracleError(
                "The best local score is that of a field without dead sites.",
                where="best local score, context.mask",
                expected="no mask",
                got=f"a mask of shape {tuple(context.mask.shape)}",
                fix="use it with the teacher ising",
            )
        limits = Limits(self.spec.memory, self.spec.seconds)
        posterior = IsingPosterior(self.spec.coupling, context.domain, limits)
        return posterior.local_score(x, sigma, self.spec.radius, reference=self.reference)
