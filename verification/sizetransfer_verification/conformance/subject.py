"""What the runner asks of a subject, whatever it is an example of."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.check import Family


@runtime_checkable
class Subject(Protocol):
    """Something under examination.

    Attributes:
        name: for reports.
        seed: names the random streams.
    """

    name: str
    seed: int

    @property
    def family(self) -> Family:
        """Of which contract."""
        ...

    def notes(self) -> tuple[str, ...]:
        """What the subject refused, for the reader."""
        ...

    def check_case(self, case: Case) -> None:
        """Refuse an example that this subject cannot be run on.

        Raises:
            SpecError: there is no such case.
        """
        ...


@runtime_checkable
class Listed(Subject, Protocol):
    """A subject with few cases, all of which are run; of others, cases are drawn."""

    def cases(self) -> tuple[Case, ...]:
        """Every case."""
        ...
