"""A student: one hidden layer on the sites within a radius, the same at every site."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from sizetransfer import FieldInfo, SpecError, Student, StudentSpec


class CoinReaderSpec(StudentSpec):
    """One hidden layer, on rings and on chains with ends."""

    kind: Literal["coin-reader"] = "coin-reader"
    radius: int = Field(1, ge=0, description="sites to each side that it sees")
    width: int = Field(8, ge=1, description="hidden features")

    def build(self, field: FieldInfo) -> "CoinReader":
        """Construct the student for such a field."""
        if field.geometry != "lattice" or field.dim != 1:
            raise SpecError(
                "The reader reads rings and chains.",
                where="coin-reader",
                got=f"a {field.geometry} of {field.dim} dimensions",
                fix="choose a teacher of one dimension",
            )
        return CoinReader(self, field)


class CoinReader(Student):
    """Score of the noisy field, preconditioned."""

    ignores = frozenset({"condition", "walls"})

    def __init__(self, spec: CoinReaderSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=spec.radius)
        self.first = nn.Conv1d(field.channels, spec.width, 2 * spec.radius + 1)
        self.last = nn.Conv1d(spec.width, field.channels, 1)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, context: object) -> torch.Tensor:
        """Score like `x`, of shape (batch, channels, sites), at noise levels of shape (batch,)."""
        mask = 1 if context.mask is None else context.mask
        return mask * self.precondition(self.network, mask * x, sigma)

    def network(self, x: torch.Tensor) -> torch.Tensor:
        """The network on the field, which goes on around a ring."""
        return self.last(F.silu(self.first(self.pad(x, self.radius))))
