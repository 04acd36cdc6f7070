"""Where trials run: in this process one after another, or in several processes.

An executor decides where and when trials run, never what numbers they give. It is made by a factory that takes a
:class:`~sizetransfer.runs.workplace.Workplace`; plugins register theirs with the hook ``register_executors``::

    class MyExecutor:
        def __init__(self, workplace): ...
        def run(self, trials, on_event):
            for trial in trials:
                yield self.workplace.perform(trial, on_event)

Another machine gets ``workplace.to_json()`` and ``trial.to_json()``; there, ``Workplace.from_json`` and
``parse_trial`` make them objects again, and what was computed is in the store of the workplace.

The processes of :class:`LocalExecutor` are fresh interpreters that speak JSON lines on their standard streams,
and not those of ``multiprocessing``: these would import the user's script a second time, and a script without the
``if __name__ == "__main__"`` guard would start its run again in every process.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from sizetransfer.contracts.errors import RunError
from sizetransfer.contracts.events import Event, OnEvent
from sizetransfer.registry.plugins import RESTRICTION
from sizetransfer.runs.storage import RunWarning
from sizetransfer.runs.trial import TaskResult, TrialResult, read_trial
from sizetransfer.runs.trials import Trial
from sizetransfer.runs.workplace import Workplace, error_from_json, failed


class Executor(Protocol):
    """Computes trials."""

    def run(self, trials: Sequence[Trial], on_event: OnEvent) -> Iterator[TrialResult]:
        """Compute ``trials``, the costliest first, and yield each result when it is there, in any order.

        A trial that fails is a result like any other. When the iterator is closed, nothing goes on.
        """
        ...


class SerialExecutor:
    """Computes trials in this process, one after another."""

    def __init__(self, workplace: Workplace) -> None:
        self.workplace = workplace

    def run(self, trials: Sequence[Trial], on_event: OnEvent) -> Iterator[TrialResult]:
        for trial in trials:
            yield self.workplace.perform(trial, on_event)


class LocalExecutor:
    """Computes trials in several processes of this machine.

    By default there are as many as there are processors, and one on an accelerator. A process that dies while it
    measures takes that one measurement with it: another process goes on with the rest of the trial. One that dies
    earlier takes the trial.
    """

    def __init__(self, workplace: Workplace) -> None:
        self.workplace = workplace

    def run(self, trials: Sequence[Trial], on_event: OnEvent) -> Iterator[TrialResult]:
        waiting = deque(trials)
        lost: dict[str, list[TaskResult]] = {}
        messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        workers: set[_Worker] = set()
        try:
            while waiting or workers:
                while waiting and len(workers) < self._workers(len(trials)):
                    workers.add(_Worker(self.workplace, waiting.popleft(), messages))
                worker, message = messages.get()
                if worker not in workers:
                    continue
                if message is None:
                    workers.remove(worker)
                    worker.join()
                    deadly = worker.deadly_task()
                    if deadly is None:
                        yield worker.lost(on_event)
                    else:
                        lost.setdefault(worker.key, []).append(deadly)
                        waiting.append(_without(worker.trial, deadly))
                elif "event" in message:
                    on_event(worker.heard(Event(**message["event"])))
                else:
                    result = _with(worker.result(message), lost.pop(worker.key, []))
                    if waiting:
                        worker.send(waiting.popleft())
                    else:
                        workers.remove(worker)
                        worker.stop()
                    yield result
        finally:
            for worker in workers:
                worker.stop()

    def _workers(self, trials: int) -> int:
        if self.workplace.workers is not None:
            return max(1, self.workplace.workers)
        return min(trials, available_processors()) if self.workplace.device == "cpu" else 1


def available_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Worker:
    """A process that computes one trial at a time.

    It ends as soon as its standard input closes, which happens when this process ends, however it ends.
    """

    def __init__(
        self, workplace: Workplace, trial: Trial, messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]]
    ) -> None:
        self.workplace = workplace
        self.trial = trial
        self._measured = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sizetransfer.runs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(workplace),
        )
        self._reader = threading.Thread(target=self._read, args=(messages,), daemon=True)
        self._reader.start()
        self._write(workplace.to_json())
        self.send(trial)

    def send(self, trial: Trial) -> None:
        """Give the process its next trial."""
        self.trial, self._measured = trial, 0
        self._write(trial.to_json())

    def heard(self, event: Event) -> Event:
        """Take note of how far the process is."""
        self._measured += event.kind == "measured"
        return event

    def result(self, message: dict[str, Any]) -> TrialResult:
        """The result that the process reports; what it has computed is read from the store."""
        for text in message["warnings"]:
            warnings.warn(text, RunWarning, stacklevel=2)
        directory = self.workplace.directory(self.trial)
        error = None if message["error"] is None else error_from_json(message["error"])
        found = read_trial(self.trial, directory)
        if found is None and error is None:
            error = RunError("The trial was finished, but its files are gone.", where=str(directory.path))
        if found is None:
            return TrialResult(directory.key, self.trial.label, "failed", error=error)
        tasks = tuple(_as_reported(found.tasks, self.trial, message["tasks"]))
        return replace(found, status=message["status"], tasks=tasks, error=error)

    @property
    def key(self) -> str:
        """Key of the trial at hand."""
        return self.workplace.directory(self.trial).key

    def deadly_task(self) -> TaskResult | None:
        """The measurement that the process was at when it died, as a failure; nothing if it was still training."""
        found = read_trial(self.trial, self.workplace.directory(self.trial))
        there = {result.task.key for result in found.tasks} if found is not None else set()
        # Those before it have ended: what failed of them is not in the store, and will be told when it fails again.
        left = [task for task in list(self.trial.tasks())[self._measured :] if task.key not in there]
        if found is None or not left:
            return None
        return TaskResult(left[0], "failed", error=self._death(f"{self.trial.label}: {left[0]}"))

    def lost(self, on_event: OnEvent) -> TrialResult:
        """The failure of the trial whose process has died."""
        return failed(self.workplace.directory(self.trial), self.trial, self._death(self.trial.label), on_event)

    def _death(self, where: str) -> RunError:
        code = self._process.returncode
        killed = code is not None and code < 0
        return RunError(
            "The process that computed this has died.",
            where=where,
            got=f"signal {-code}" if killed else f"exit code {code}; its last words are on the standard error",
            fix="what is finished is kept; if memory ran out: --workers 1, a smaller batch or smaller sizes; then run "
            "again",
        )

    def stop(self) -> None:
        """End the process at once; it has nothing to save that it has not saved."""
        self._process.kill()
        self.join()

    def join(self) -> None:
        """Wait until the process has ended."""
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def _read(self, messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                messages.put((self, json.loads(line)))
        messages.put((self, None))

    def _write(self, message: dict[str, Any]) -> None:
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # if the process has died, the reader says so
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()


def _as_reported(
    found: Iterable[TaskResult], trial: Trial, reported: Mapping[str, Mapping[str, Any]]
) -> Iterator[TaskResult]:
    """The tasks of a trial in their order: those in the store, and those that the process reports as failed."""
    there = {result.task.key: result for result in found}
    for task in trial.tasks():
        told = reported.get(task.key, {})
        if told.get("error") is not None:
            yield TaskResult(task, "failed", error=error_from_json(told["error"]))
        elif task.key in there:
            yield replace(there[task.key], status=told.get("status", "reused"))


def _without(trial: Trial, deadly: TaskResult) -> Trial:
    """The trial without a task that a process died of."""
    if trial.keys is None:
        return trial
    left = {
        name: {size: key for size, key in sizes.items() if key != deadly.task.key}
        for name, sizes in trial.keys.measurements.items()
    }
    return trial.model_copy(update={"keys": trial.keys.model_copy(update={"measurements": left})})


def _with(result: TrialResult, lost: list[TaskResult]) -> TrialResult:
    """The result of a trial together with the tasks that processes died of."""
    if not lost:
        return result
    status = "finished" if result.status == "reused" else result.status
    return replace(result, status=status, tasks=(*result.tasks, *lost))


def _environment(workplace: Workplace) -> dict[str, str]:
    """The environment of a worker: it imports from the same places, no plugin that takes no part, one thread."""
    device = workplace.device
    chosen = {} if workplace.plugins is None else {RESTRICTION: workplace.plugins}
    places = [str(Path(place).resolve()) for place in sys.path]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if device == "cpu" else {}
    return {**os.environ, **threads, **chosen, "PYTHONPATH": os.pathsep.join(places)}
