"""What a computation may cost: its memory and time are estimated before it starts, and refused beyond a limit."""

from __future__ import annotations

from dataclasses import dataclass

from sizetransfer.contracts.errors import OracleError

NOMINAL_RATE = 4e9
"""Floating-point operations a second that one processor core is taken to do in the sweeps; a faster one waits less."""


class TooLargeError(OracleError):
    """An exact computation would take more memory or time than its limits allow."""


LARGEST_ROW = 400
"""Spins of a row beyond which all rows are taken to be equally long: squares of their states stay finite numbers."""


def row_states(width: int) -> float:
    """Number of states of a row of spins."""
    return 2.0 ** min(width, LARGEST_ROW)


@dataclass(frozen=True)
class Limits:
    """The most that one call may cost.

    Attributes:
        memory: gibibytes.
        seconds: on one processor core of the nominal rate.
    """

    memory: float = 4.0
    seconds: float = 600.0


@dataclass(frozen=True)
class Cost:
    """An estimate.

    Attributes:
        memory: bytes held at the same time.
        operations: floating-point operations.
    """

    memory: float
    operations: float

    @property
    def gibibytes(self) -> float:
        """Memory in gibibytes."""
        return self.memory / 2**30

    @property
    def seconds(self) -> float:
        """Time on one core of the nominal rate."""
        return self.operations / NOMINAL_RATE

    def fits(self, limits: Limits) -> bool:
        """Whether the limits allow it."""
        return self.gibibytes <= limits.memory and self.seconds <= limits.seconds

    def require(self, limits: Limits, *, what: str, where: str, instead: str) -> None:
        """Refuse what the limits do not allow.

        Args:
            what: is to be computed.
            where: the call.
            instead: the alternative that the message names.

        Raises:
            TooLargeError: with the estimate.
        """
        if not self.fits(limits):
            raise TooLargeError(
                f"{what} would cost more than is allowed.",
                where=where,
                expected=f"at most {limits.memory:g} GiB and {limits.seconds:g} s",
                got=f"an estimate of {self.gibibytes:.3g} GiB and {self.seconds:.3g} s on one core",
                fix=f"{instead}; or raise the limits (memory, seconds)",
            )
