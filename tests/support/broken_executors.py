"""Broken executors: each a plausible bug, with the check that must catch it."""

from __future__ import annotations

import queue
from collections.abc import Callable

from sizetransfer.contracts.events import Event
from sizetransfer.runs.executors import LocalExecutor, SerialExecutor, _Worker

EXECUTORS: list[tuple[type, str]] = []
LEFT: list[_Worker] = []


def caught_by(check: str) -> Callable[[type], type]:
    """Register a class with the id of the check that catches it."""

    def register(broken: type) -> type:
        EXECUTORS.append((broken, f"executor/{check}"))
        return broken

    return register


@caught_by("same-records-as-local")
class OtherSeeds(SerialExecutor):
    """Every trial gets a seed of its own."""

    def run(self, trials, on_event):
        for number, trial in enumerate(trials):
            yield self.workplace.perform(trial.model_copy(update={"seed": 10 + number, "keys": None}), on_event)


@caught_by("same-records-as-local")
class LeavesOneOut(SerialExecutor):
    """The last trial is never computed."""

    def run(self, trials, on_event):
        yield from super().run(trials[:-1], on_event)


@caught_by("a-failed-trial-is-a-result")
class StopsAtAFailure(SerialExecutor):
    """A failed trial ends the run."""

    def run(self, trials, on_event):
        for result in super().run(trials, on_event):
            if result.error is not None:
                raise result.error
            yield result


@caught_by("a-lost-worker-takes-one-trial")
class StopsAtALostWorker(LocalExecutor):
    """What the system says of a dead worker is raised."""

    def run(self, trials, on_event):
        for result in super().run(trials, on_event):
            if result.error is not None and "died" in result.error.what:
                raise BrokenPipeError("the worker has gone")
            yield result


@caught_by("an-interrupted-run-stops-and-goes-on")
class SwallowsTheInterrupt(SerialExecutor):
    """What a listener raises is ignored, an interrupt too."""

    def run(self, trials, on_event):
        def tell(event):
            try:
                on_event(event)
            except BaseException:
                return

        yield from super().run(trials, tell)


@caught_by("an-interrupted-run-stops-and-goes-on")
class LeavesItsWorkers(LocalExecutor):
    """Nobody ends the processes when the run ends."""

    def run(self, trials, on_event):
        for trial in trials:
            yield self._computed(trial, on_event)

    def _computed(self, trial, on_event):
        messages = queue.Queue()
        worker = _Worker(self.workplace, trial, messages)
        LEFT.append(worker)
        while "event" in (message := messages.get()[1]):
            on_event(Event(**message["event"]))
        return worker.result(message)


def end_those_left() -> None:
    """End the processes that the last one leaves."""
    while LEFT:
        LEFT.pop().stop()
