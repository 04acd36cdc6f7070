"""A number between two sides, and the range of noise that Theorem 1 is about."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.quantity import Kind


@dataclass(frozen=True)
class Enclosure:
    """Two sides of a number that is not known in closed form.

    It is no :class:`~sizetransfer.contracts.quantity.Quantity`: its sides are bounds of one number, not a value with an
    error, and only the lower one of an estimate is random.

    Attributes:
        lower: the number is at least this.
        upper: the number is at most this.
        kind: ``certificate`` where both sides are proven, ``estimate`` where they come from samples.
        standard_error: of the lower side of an estimate.
    """

    lower: float
    upper: float
    kind: Kind = "certificate"
    standard_error: float = 0.0

    @property
    def gap(self) -> float:
        """Width of the enclosure."""
        return self.upper - self.lower


def check_variances(vm: float, vx: float) -> None:
    """Refuse a range of the variance clock that no reverse process runs through.

    Raises:
        OracleError: not ``0 < vm < vx < infinity``.
    """
    if not 0 < vm < vx < math.inf:
        raise OracleError(
            "The noise range of a reverse process is empty or not positive.",
            where="last and first variance, vm and vx",
            expected="0 < vm < vx, both finite: sigma_min = sqrt(vm) below sigma_max = sqrt(vx)",
            got=f"vm = {vm!r}, vx = {vx!r}",
            fix="start at a noise level above the one at which the process stops, and stop above zero",
        )
