"""A linear filter of a given radius, the same at every site and, up to a factor, at every noise level."""

from typing import Literal

import torch
from pydantic import Field
from sizetransfer import FieldInfo, SpecError, Student, StudentSpec
from torch import nn

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class LinearFilterSpec(StudentSpec):
    """A local linear filter, on tori, on cylinders and in open boxes of one to three dimensions."""

    kind: Literal["linear-filter"] = "linear-filter"
    radius: int = Field(2, ge=0, description="Chebyshev radius of the filter")

    def build(self, field: FieldInfo) -> "LinearFilter":
        """Construct the student for such a field."""
        if field.geometry != "lattice" or field.dim not in CONVOLUTIONS:
            raise SpecError(
                "The filter is there for lattices of one to three dimensions.",
                where="linear-filter",
                got=f"a {field.geometry} of {field.dim} dimensions",
                fix="choose another teacher, or a student for graphs",
            )
        return LinearFilter(self, field)


class LinearFilter(Student):
    """Score of the noisy field by one convolution, preconditioned.

    `radius` is a promise: outside it the Jacobian is exactly zero.
    """

    ignores = frozenset({"condition", "walls"})

    def __init__(self, spec: LinearFilterSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=spec.radius)
        self.filter = CONVOLUTIONS[field.dim](
            field.channels,
            field.channels,
            kernel_size=2 * spec.radius + 1,
            bias=False,
        )
        # A network that returns zero is, preconditioned, the score of white noise: a good start.
        nn.init.zeros_(self.filter.weight)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, context: object) -> torch.Tensor:
        """Score like `x`, of shape (batch, channels, *size), at noise levels of shape (batch,)."""
        mask = 1 if context.mask is None else context.mask
        return mask * self.precondition(self.filtered, mask * x, sigma)

    def filtered(self, x: torch.Tensor) -> torch.Tensor:
        """The filter at every site: around closed axes, with zeros beyond walls."""
        return self.filter(self.pad(x, self.filter.kernel_size[0] // 2))
