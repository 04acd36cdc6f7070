"""An executor under examination."""

from __future__ import annotations

from typing import Literal

from sizetransfer.registry import default_registry
from sizetransfer.registry.hooks import ExecutorFactory
from sizetransfer_verification import stage
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.subjects import check_case


class ExecutorSubject:
    """An executor under examination.

    Attributes:
        name: for reports.
        factory: makes it from a workplace.
        compared_with: the built-in executor that gives the records to compare with: ``local``, of ``local`` itself
            ``serial``.
        family: ``executor``.
    """

    family: Literal["executor"] = "executor"

    def __init__(self, executor: str | ExecutorFactory, *, seed: int = 0, name: str | None = None) -> None:
        self.seed = seed
        self.factory = default_registry().executor(executor) if isinstance(executor, str) else executor
        called = executor if isinstance(executor, str) else str(getattr(executor, "__name__", executor))
        self.name: str = name or called
        self.compared_with = "serial" if executor == "local" else "local"

    def notes(self) -> tuple[str, ...]:
        return (f"records are compared with those of the executor {self.compared_with!r}",)

    def check_case(self, case: Case) -> None:
        """Refuse an example that no report shows.

        Raises:
            SpecError: it is not the one case that there is.
        """
        check_case(case, members=1, devices=("cpu",))

    def cases(self) -> tuple[Case, ...]:
        """The one case: a small experiment."""
        return (Case(seed=self.seed),)

    @property
    def expected(self) -> bytes:
        """The records of the two healthy students that are right."""
        return stage.reference(self.compared_with)
