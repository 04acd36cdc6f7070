"""A listener answers every event, quickly, leaves the process as it was and the records of a run as they are."""

from __future__ import annotations

import copy
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from sizetransfer.contracts.events import Event
from sizetransfer.registry.plugins import settings_kept
from sizetransfer.runs.runner import run
from sizetransfer_verification import stage
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.check import listener_check
from sizetransfer_verification.conformance.evidence import Evidence
from sizetransfer_verification.conformance.listeners.subject import EVENTS, ListenerSubject

SLOW = 0.1
"""Seconds of the median event that are too long: a run tells of several events a second."""

STATE: dict[str, Callable[[], Any]] = {
    "torch's default dtype": torch.get_default_dtype,
    "torch's default device": torch.get_default_device,
    "torch's grad mode": torch.is_grad_enabled,
    "torch's number of threads": torch.get_num_threads,
    "torch's precision of products": torch.get_float32_matmul_precision,
    "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "torch's global generator": lambda: torch.default_generator.get_state().tolist(),
    "Python's global generator": random.getstate,
    "numpy's global generator": lambda: repr(np.random.get_state(legacy=False)),  # noqa: NPY002
    "the working directory": Path.cwd,
    "the environment": lambda: dict(os.environ),
}
"""What of the process a listener leaves alone."""


@listener_check(
    "Every event is taken, of every kind: nothing is raised, and nothing exits.",
    cause="a loss that is NaN, a text that is empty, a service that cannot be reached, sys.exit",
    level="api",
)
def takes_every_event(subject: ListenerSubject, case: Case, evidence: Evidence) -> None:
    for event in EVENTS:
        with settings_kept(), _surroundings_kept():
            found = _raised(partial(subject.tell, event))
        evidence.holds(found == "", f"event {event.kind!r}", measured=found, allowed="no exception")


@listener_check(
    "It returns quickly: the run waits for it.",
    cause="a request over the network, or a figure drawn, for every event",
    level="api",
)
def returns_quickly(subject: ListenerSubject, case: Case, evidence: Evidence) -> None:
    seconds = []
    for event in EVENTS:
        started = time.perf_counter()
        with settings_kept(), _surroundings_kept():
            _raised(partial(subject.tell, event))
        seconds.append(time.perf_counter() - started)
    evidence.at_most(statistics.median(seconds), SLOW, "seconds of the median event", source="several events a second")


@listener_check(
    "It changes nothing of the process: settings, global generators, working directory, environment, the event itself.",
    cause="a random name for a run, a default dtype, os.chdir, an environment variable for a tracker",
    level="api",
)
def changes_no_state(subject: ListenerSubject, case: Case, evidence: Evidence) -> None:
    for event in EVENTS:
        given, before = copy.copy(event), {name: read() for name, read in STATE.items()}
        with settings_kept(), _surroundings_kept():
            _raised(partial(subject.tell, given))
            after = {name: read() for name, read in STATE.items()}
        for name, value in before.items():
            what = f"{name} after the event {event.kind!r}"
            evidence.holds(after[name] == value, what, measured=str(after[name])[:100], allowed=str(value)[:100])
        what = f"the event {event.kind!r} after it was told"
        evidence.holds(repr(given) == repr(event), what, measured=repr(given), allowed=repr(event))


@listener_check(
    "The records of a run are the same, to the last bit, with and without it, and it is told of every event.",
    cause="a function of torch or of the toolkit that is replaced, a file of the run directory that is written",
)
def records_are_unchanged(subject: ListenerSubject, case: Case, evidence: Evidence) -> None:
    told: list[Event] = []
    heard: list[Event] = []
    expected = stage.only(stage.reference("serial"), "narrow")
    with TemporaryDirectory() as place, _surroundings_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(place) / "run"
        spec = stage.experiment({"narrow": stage.HEALTHY["narrow"]})
        registry = stage.registry([subject.plugin(heard.append)])
        run(spec, path, executor="serial", registry=registry, device="cpu", on_event=told.append)
        found = (path / "records.csv").read_bytes()
    evidence.holds(found == expected, "records", measured=found.decode()[:300], allowed=expected.decode()[:300])
    raised = [record.error for record in registry.trouble()]
    # One that raises is told nothing more; that it raises is for another check.
    complete = bool(raised) or heard == told
    evidence.holds(complete, "events that it is told", measured=str(len(heard)), allowed=str(len(told)))


def _raised(act: Callable[[], None]) -> str:
    """What the call raises, SystemExit too; empty where it raises nothing."""
    try:
        act()
    except KeyboardInterrupt:
        raise
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@contextmanager
def _surroundings_kept() -> Iterator[None]:
    """Within the block directory and environment may change; afterwards they are as before."""
    directory, environment = Path.cwd(), dict(os.environ)
    try:
        yield
    finally:
        if Path.cwd() != directory:
            os.chdir(directory)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
