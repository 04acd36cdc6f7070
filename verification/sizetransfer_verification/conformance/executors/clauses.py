"""The same records as the local executor's, whatever breaks, dies or is interrupted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from sizetransfer.contracts.events import Event
from sizetransfer.runs.opened import Run
from sizetransfer_verification import stage
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.check import executor_check
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError
from sizetransfer_verification.conformance.executors.subject import ExecutorSubject

LONG = 100
"""Steps of a training that is interrupted: a second of a slow student."""
STILL = 0.5
"""Seconds without a sign of life after which a trial has ended."""


def _same(evidence: Evidence, found: Run, expected: bytes, what: str) -> None:
    got, wanted = stage.records_of(found).splitlines(), expected.splitlines()
    counts = f"{len(got) - 1} records", f"{len(wanted) - 1}"
    evidence.holds(len(got) == len(wanted), f"how many {what}", measured=counts[0], allowed=counts[1])
    for line, right in zip(got, wanted, strict=True):
        evidence.holds(line == right, what, measured=line.decode(), allowed=right.decode(), source="the local executor")


def _one_failed(evidence: Evidence, found: Run, name: str) -> None:
    labels = [failure["label"] for failure in found.failures]
    expected = [f"ring / {name} / seed 0"]
    evidence.holds(labels == expected, "the trials that failed", measured=str(labels), allowed=str(expected))


def _beside_a_healthy_one(subject: ExecutorSubject, other: Mapping[str, object], name: str, place: str) -> Run:
    students = {name: other, "narrow": stage.HEALTHY["narrow"]}
    return stage.run_with(subject.factory, students, Path(place) / "run")


@executor_check(
    "The records are those of the local executor, to the last bit, and every trial has one result.",
    cause="a trial changed or seeded by the executor, one that is left out or told twice, another dtype in the worker",
    level="api",
)
def same_records_as_local(subject: ExecutorSubject, case: Case, evidence: Evidence) -> None:
    ended: list[str] = []
    with TemporaryDirectory() as place:

        def note(event: Event) -> None:
            ended.extend([event.label] if event.kind in ("finished", "failed", "reused") else [])

        found = stage.run_with(subject.factory, stage.HEALTHY, Path(place) / "run", on_event=note)
        failed = [f"{failure['label']}: {failure['error']}" for failure in found.failures]
        evidence.holds(not failed, "trials that failed", measured="; ".join(failed), allowed="none")
        _same(evidence, found, subject.expected, "records")
    expected = [f"ring / {name} / seed 0" for name in sorted(stage.HEALTHY)]
    evidence.holds(sorted(ended) == expected, "ends of trials that were told", measured=str(ended), allowed="each once")


@executor_check(
    "A trial that fails is a result like any other: the others go on.",
    cause="an exception of a trial that is raised by the executor, or one that is swallowed together with its result",
    level="api",
)
def a_failed_trial_is_a_result(subject: ExecutorSubject, case: Case, evidence: Evidence) -> None:
    with TemporaryDirectory() as place:
        found = _beside_a_healthy_one(subject, stage.student("raises"), "breaks", place)
        _one_failed(evidence, found, "breaks")
        _same(evidence, found, stage.only(subject.expected, "narrow"), "records of the other trials")


@executor_check(
    "A worker that dies takes its trial with it, which is told as failed; the others go on.",
    cause="waiting for an answer that will not come, an error of the worker that ends the run, a trial tried for ever",
)
def a_lost_worker_takes_one_trial(subject: ExecutorSubject, case: Case, evidence: Evidence) -> None:
    with TemporaryDirectory() as place:
        deadly = stage.student("deadly", runner=stage.this_process())
        found = _beside_a_healthy_one(subject, deadly, "deadly", place)
        if any(stage.IN_PROCESS in str(failure["error"]) for failure in found.failures):
            raise NotApplicableError("It computes trials in the process that runs: there is no worker to lose.")
        _one_failed(evidence, found, "deadly")
        _same(evidence, found, stage.only(subject.expected, "narrow"), "records of the other trials")


@executor_check(
    "An interrupted run stops: nothing of it goes on, and running again gives the records of a run in one go.",
    cause="KeyboardInterrupt that is swallowed, workers that outlive the run, results kept that were half done",
)
def an_interrupted_run_stops_and_goes_on(subject: ExecutorSubject, case: Case, evidence: Evidence) -> None:
    with TemporaryDirectory() as place:
        path, heartbeat = Path(place) / "run", Path(place) / "heartbeat"
        training = {**stage.EXPERIMENT["training"], "steps": LONG}
        slow = {"narrow": stage.student("slow", heartbeat=str(heartbeat))}

        def interrupt(event: Event) -> None:
            if event.kind in ("started", "step", "trained") and heartbeat.is_file():
                raise KeyboardInterrupt

        measured = "the run went on to its end"
        try:
            stage.run_with(subject.factory, slow, path, on_event=interrupt, training=training)
        except KeyboardInterrupt:
            measured = "KeyboardInterrupt"
        what = "an interrupt while an event is told"
        evidence.holds(measured == "KeyboardInterrupt", what, measured=measured, allowed="KeyboardInterrupt")
        before = heartbeat.stat().st_size
        time.sleep(STILL)
        beats = heartbeat.stat().st_size - before
        # One forward pass may have been under way when the worker was told to end.
        evidence.holds(beats <= 1, "signs of life after the interrupt", measured=str(beats), allowed="none")
        again = stage.run_with(subject.factory, slow, path, training=training)
        _same(evidence, again, stage.only(stage.reference("serial", LONG), "narrow"), "records of the run that goes on")
