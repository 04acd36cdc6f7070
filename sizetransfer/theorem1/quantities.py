"""Numbers that say how far they can be trusted.

- ``exact``: equal to what it names, up to the stated numerical error;
- ``certificate``: a proven bound, up to rounding;
- ``estimate``: from samples, with a standard error, or resting on a premise that nobody has proven.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from sizetransfer.contracts.errors import OracleError

Kind = Literal["exact", "certificate", "estimate"]

_ORDER: tuple[Kind, ...] = ("exact", "certificate", "estimate")


def weakest(*kinds: Kind) -> Kind:
    """Return the least trustworthy of ``kinds``: what a sum of such numbers is."""
    return max(kinds, key=_ORDER.index)


@dataclass(frozen=True)
class Quantity:
    """A number with its trust.

    Attributes:
        value: the number.
        kind: exact, certificate or estimate.
        error: of an estimate its standard error, otherwise the estimated numerical error.
    """

    value: float
    kind: Kind
    error: float = 0.0


@dataclass(frozen=True)
class Enclosure:
    """Two sides of a number that is not known in closed form.

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
