"""Runs checks: draws cases with hypothesis, isolates what a plugin raises, ends what takes too long."""

from __future__ import annotations

import math
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import did_you_mean
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.check import Check, Level, checks, list_hash
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError, ViolationError
from sizetransfer_verification.conformance.report import Outcome, Report
from sizetransfer_verification.conformance.subject import Listed, Subject
from sizetransfer_verification.conformance.subjects import StudentSubject, TeacherSubject
from sizetransfer_verification.requirements import require

DEFAULT_TIMEOUT = 120.0
"""Seconds that one check may take."""


RINGS_AGAIN = 1.0
"""Seconds after which an alarm that was lost (what is raised in a destructor is ignored) rings again."""


class TimedOut(BaseException):
    """The time of a check is over. No ``Exception``: neither a plugin nor hypothesis may swallow it."""


def run_checks(
    subject: Subject,
    *,
    level: Level = "core",
    only: tuple[str, ...] = (),
    expected_failures: Mapping[str, str] | None = None,
    example: Case | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Report:
    """Run the checks of a subject's family.

    Args:
        subject: what is checked.
        level: ``api``, ``core`` or ``full``.
        only: ids of single checks.
        expected_failures: id of a check that is known to fail, and why; if it passes, the report fails.
        example: run the checks on this case alone, instead of drawn ones.
        timeout: seconds for each check.

    Raises:
        SpecError: an unknown level or id, a timeout that is not positive, or an example of another subject.
        PluginError: hypothesis or scipy is not installed.
    """
    require_libraries()
    if not timeout > 0:
        raise SpecError(
            "The timeout is not positive.",
            where="timeout",
            expected="seconds above zero",
            got=f"{timeout:g}",
            fix=f"leave it out ({DEFAULT_TIMEOUT:g} s)",
        )
    if example is not None:
        subject.check_case(example)
    chosen = checks(subject.family, level, only)
    expected = dict(expected_failures or {})
    known = {check.id for check in checks(subject.family)}
    for name in expected:
        if name not in known:
            raise SpecError(
                f"A check that does not exist is expected to fail: {name!r}.",
                where="expected_failures",
                expected="ids of checks",
                got=name,
                fix=did_you_mean(name, known) or "`sizetransfer verify checks` lists them",
            )
    outcomes = []
    for check in chosen:
        outcome = run_check(check, subject, example=example, timeout=timeout)
        outcomes.append(_as_expected(outcome, expected[check.id]) if check.id in expected else outcome)
    return Report(subject.name, subject.family, level, list_hash(chosen), tuple(outcomes), subject.notes())


def require_libraries() -> None:
    """Refuse to run checks without the libraries that they need.

    Raises:
        PluginError: hypothesis or scipy is not installed.
    """
    require("hypothesis", "The conformance suite")
    require("scipy", "The conformance suite")


def _as_expected(outcome: Outcome, reason: str) -> Outcome:
    if outcome.status == "failed":
        return replace(outcome, status="expected failure", reason=f"expected: {reason}; {outcome.reason}")
    if outcome.status == "passed":
        reason = f"The check passes, though it is declared to fail ({reason}): drop it from the expected failures."
        return replace(outcome, status="unexpected pass", reason=reason, cause="the defect was mended")
    return outcome


def run_check(
    check: Check[Any], subject: Subject, *, example: Case | None = None, timeout: float = DEFAULT_TIMEOUT
) -> Outcome:
    """Run one check and say what came out; nothing but ``KeyboardInterrupt`` escapes."""
    started = time.monotonic()
    run = _Run(check, subject)
    try:
        with _time_limit(timeout) as alarm, _one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.alarm = alarm
            outcome = run.outcome(example)
        # The alarm may ring where hypothesis, or a library beneath it, turns what is raised into an error of its own.
        if alarm.is_set():
            raise TimedOut
    except TimedOut:
        reason = f"It took longer than {timeout:g} s."
        cause = "a loop over sites, a dense matrix, or a chain that does not end; raise the timeout if it is right"
        outcome = run.result("timed out", reason=reason, cause=cause, example=run.case)
    return replace(outcome, seconds=time.monotonic() - started)


class _Run:
    """One check on one subject, with what was compared so far."""

    def __init__(self, check: Check[Any], subject: Subject) -> None:
        self.check, self.subject = check, subject
        self.evidence = Evidence()
        self.case: Case | None = None
        self.runs = 0
        self.reasons: list[str] = []
        self.alarm = threading.Event()

    def outcome(self, example: Case | None) -> Outcome:
        try:
            for need in self.check.needs:
                if not need.holds(self.subject):
                    return self.result("not applicable", reason=f"It needs: {need.name}.")
            if example is not None:
                self.once(example)
            else:
                self.search()
        except NotApplicableError as reason:
            return self.result("not applicable", reason=str(reason))
        except Exception as error:
            return self.broken(error)
        if self.reasons and not self.evidence.comparisons:
            return self.result("not applicable", reason=self.reasons[0])
        if not self.evidence.comparisons:
            return self.failed("The check compared nothing.", measured="0 comparisons", allowed="at least 1")
        return self.result("passed")

    def search(self) -> None:
        """Run on drawn cases; leave the smallest failing one in ``case``."""
        subject = self.subject
        if isinstance(subject, Listed):
            for case in subject.cases():
                self.once(case)
            return None
        if not isinstance(subject, TeacherSubject | StudentSubject):
            raise TypeError(f"{type(subject).__name__} has no cases")
        if self.check.statistical:
            return self.once(subject.statistical_case(self.check.space))
        return self.drawn(subject)

    def drawn(self, subject: TeacherSubject | StudentSubject) -> None:
        """Run on cases that hypothesis draws."""
        from hypothesis import HealthCheck, Phase, Verbosity, given, settings

        space = self.check.space
        sizes = subject.sizes(space)
        # Each member gets its share: the simplest case of every field is always among them.
        members = [index for index, of_member in enumerate(sizes) if of_member]
        examples = math.ceil(space.examples / max(1, len(members)))
        quiet = settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
        )
        for member in members:
            alone = [of_member if index == member else () for index, of_member in enumerate(sizes)]
            quiet(given(space.strategy(alone, subject.devices))(self.once))()

    def once(self, case: Case) -> None:
        if self.alarm.is_set():
            raise TimedOut
        self.case = case
        self.runs += 1
        try:
            self.check.function(self.subject, case, self.evidence)
        except NotApplicableError as reason:
            # It says nothing on this case; it may on another, of another field.
            self.reasons.append(str(reason))
            self.runs -= 1

    def broken(self, error: Exception) -> Outcome:
        # hypothesis wraps what did not fail again on the same case.
        grouped = isinstance(error, ExceptionGroup)
        first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        again = " It did not fail a second time: the subject remembers earlier calls, or is random." if grouped else ""
        if isinstance(first, ViolationError):
            allowed = f"{first.allowed} ({first.source})"
            return self.failed(f"{first.what}.{again}", measured=first.measured, allowed=allowed)
        raised = f"It raised {type(first).__name__}: {first}{again}"
        return self.failed(raised, measured=_place(first), allowed="an answer")

    def failed(self, reason: str, *, measured: str, allowed: str) -> Outcome:
        return self.result(
            "failed", reason=reason, measured=measured, allowed=allowed, cause=self.check.cause, example=self.case
        )

    def result(self, status: Any, **fields: Any) -> Outcome:
        fields |= {"comparisons": self.evidence.comparisons, "statistical": self.evidence.statistical}
        return Outcome(self.check.id, self.check.clause, status, examples=self.runs, **fields)


def _place(error: Exception) -> str:
    """Where an exception comes from: the last line outside torch, which says more than one inside."""
    frames = traceback.extract_tb(error.__traceback__)
    torch_itself = str(Path(torch.__file__).parent)
    ours = [frame for frame in frames if not frame.filename.startswith(torch_itself)] or list(frames)
    if not ours:
        return type(error).__name__
    return f"{type(error).__name__} in {ours[-1].name}, {Path(ours[-1].filename).name} line {ours[-1].lineno}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch in the block: cases are so small that threads cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _time_limit(seconds: float) -> Iterator[threading.Event]:
    """Raise :class:`TimedOut` in the block after that time; only in the main thread of systems with alarms.

    Yields:
        an event, set when the time is over.
    """
    rung = threading.Event()
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield rung
        return

    def ring(signum: int, frame: FrameType | None) -> None:
        rung.set()
        raise TimedOut

    before = signal.signal(signal.SIGALRM, ring)
    remaining, _ = signal.getitimer(signal.ITIMER_REAL)
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, min(seconds, remaining) if remaining else seconds, RINGS_AGAIN)
    try:
        yield rung
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if remaining:
            # An alarm set by someone else (pytest-timeout) goes on where it was.
            signal.setitimer(signal.ITIMER_REAL, max(remaining - (time.monotonic() - started), 1e-3))
