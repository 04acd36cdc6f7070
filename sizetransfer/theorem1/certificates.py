"""What a teacher may certify for every noisy field at once, as a capability.

The Ising teacher does (:mod:`sizetransfer.systems.ising.certificate`); so may anybody's.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.oracle import Teacher
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.theorem1.fields import Patch


class Certificate(Protocol):
    """Bounds that hold for all fields of one size."""

    @property
    def size_uniform(self) -> bool:
        """Whether the budget stays bounded as the size grows."""
        ...

    def weights(self, patch: Patch, v: Float[Tensor, "levels"], vm: float) -> Float[Tensor, "levels *size"]:
        """Influence weights of a patch at variances ``v``."""
        ...

    def budget(self, vm: float, vx: float, *, sites: int = 1) -> Quantity:
        """What a drift error of one everywhere between two variances can cost a patch of so many sites."""
        ...

    def sufficient_radius(self, sigma: float, tolerance: float = 0.1) -> Quantity:
        """Smallest radius whose best score is certified to have at most that relative error."""
        ...


@runtime_checkable
class HasCertificate(Protocol):
    """Knows bounds that hold for every field."""

    def certificate(self, size: int) -> Certificate | None:
        """The certificate of one size; none where its parameters allow none."""
        ...


def certificate_of(teacher: Teacher, size: int) -> Certificate | None:
    """The certificate of a teacher at one size; none for a teacher that has none.

    Raises:
        OracleError: it is out of reach.
    """
    return teacher.certificate(size) if isinstance(teacher, HasCertificate) else None
