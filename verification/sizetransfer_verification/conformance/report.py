"""What came out of the checks, so that nobody has to believe it: counts, failures with their examples, reasons."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sizetransfer.contracts.errors import ConformanceError
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.tolerances import ERROR_BUDGET

Status = Literal["passed", "failed", "not applicable", "expected failure", "unexpected pass", "timed out"]
WRONG: tuple[Status, ...] = ("failed", "unexpected pass", "timed out")


@dataclass(frozen=True)
class Outcome:
    """What one check found.

    Attributes:
        id: the check.
        clause: what it tests.
        status: what came out.
        reason: why it failed, was not applicable or was expected to fail.
        measured: the value that failed.
        allowed: the tolerance or limit, with its source.
        cause: what usually causes the failure.
        example: the smallest failing example.
        examples: runs.
        comparisons: numbers or tensors compared.
        statistical: how many of these were means against standard errors.
        seconds: wall time.
    """

    id: str
    clause: str
    status: Status
    reason: str = ""
    measured: str = ""
    allowed: str = ""
    cause: str = ""
    example: Case | None = None
    examples: int = 0
    comparisons: int = 0
    statistical: int = 0
    seconds: float = 0.0

    @property
    def wrong(self) -> bool:
        """Whether the report fails by it."""
        return self.status in WRONG

    def __str__(self) -> str:
        lines = [f"{self.id}: {self.status}. {self.reason}".rstrip(), f"  clause:   {self.clause}"]
        lines += [f"  measured: {self.measured}", f"  allowed:  {self.allowed}"] if self.measured else []
        if self.wrong and self.example is not None:
            lines.append(f"  example:  {self.example.to_json()}")
        lines += [f"  usually:  {self.cause}"] if self.wrong and self.cause else []
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """All outcomes for one subject.

    Attributes:
        subject: what was checked.
        family: of which contract: ``teacher``, ``student``, ``measure``, ``executor`` or ``listener``.
        level: up to which level.
        checks_hash: hash of the list of checks.
        outcomes: one a check.
        notes: what the subject refused, for the reader.
    """

    subject: str
    family: str
    level: str
    checks_hash: str
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Number of outcomes by status."""
        return dict(Counter(outcome.status for outcome in self.outcomes))

    @property
    def comparisons(self) -> int:
        """Numbers or tensors compared, by all checks."""
        return sum(outcome.comparisons for outcome in self.outcomes)

    @property
    def error_budget(self) -> float:
        """Probability bound that statistics alone fail a right subject."""
        return ERROR_BUDGET * sum(outcome.statistical for outcome in self.outcomes)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the report fails; empty where it does not."""
        wrong = [str(outcome) for outcome in self.outcomes if outcome.wrong]
        ran = sum(outcome.comparisons for outcome in self.outcomes if outcome.status == "passed")
        if not ran and not wrong:
            wrong.append("No check compared a number: a report without numbers says nothing.")
        return tuple(wrong)

    @property
    def ok(self) -> bool:
        """Whether every check passed, was not applicable or failed as expected, and numbers were compared."""
        return not self.problems

    def summary(self) -> str:
        """One line: how many checks ran, and what came out."""
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.counts.items()))
        ran = sum(outcome.status != "not applicable" for outcome in self.outcomes)
        return (
            f"{self.subject}: {ran} of {len(self.outcomes)} checks ran ({counts}); {self.comparisons} comparisons, "
            f"error budget {self.error_budget:.1g}, level {self.level}, check list {self.checks_hash}"
        )

    def raise_if_failed(self) -> Report:
        """Return the report.

        Raises:
            ConformanceError: it is not :attr:`ok`.
        """
        if not self.ok:
            article = "an" if self.family[0] in "aeiou" else "a"
            raise ConformanceError(
                f"{self.subject} breaks the contract of {article} {self.family}.\n" + "\n".join(self.problems),
                where=self.subject,
                expected="every applicable check to pass",
                got=self.summary(),
                fix="the usual cause stands beside each failure; its example runs alone with `example=`",
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON-compatible data."""
        data = asdict(self)
        found = {"ok": self.ok, "counts": self.counts, "comparisons": self.comparisons, "summary": self.summary()}
        return {**data, **found}
