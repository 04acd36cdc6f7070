"""Runs that are killed anywhere: the same command again ends with the same files, and nothing is left over."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import adversary_zoo
import pytest
from adversary_zoo import NOISES, remains
from filelock import FileLock

PARTS = 12
"""Into how many tests the long form cuts the events, so that they can run side by side."""


class Killer:
    """Runs in processes that have torch in memory and have never used it."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        lazy = ["torch._dynamo", "pyarrow.parquet", "safetensors.torch", "sizetransfer.report"]
        modules = [f"sizetransfer.runs.{name}" for name in ("executors", "runner", "trial")]
        self.context.set_forkserver_preload([*lazy, *modules])

    def at_event(self, out: Path, noise: str, executor: str, at: int) -> list[str] | None:
        """Kill a run right before its ``at``-th event; if it has none, the events that it had."""
        counted = out.with_name(f"{out.name}.counted")
        data = adversary_zoo.experiment(noise).to_json()
        process = self._start(adversary_zoo.run_until_event, str(out), data, executor, at, str(counted))
        process.join()
        if process.exitcode == -signal.SIGKILL:
            return None
        assert process.exitcode == 0
        return counted.read_text().splitlines()

    def after(self, seconds: float, out: Path, noise: str, executor: str, *, worker: bool = False) -> float | None:
        """Kill a run, or its worker, after some time; if it has finished before, the time that it took."""
        ready = self.context.Event()
        data = adversary_zoo.experiment(noise).to_json()
        process = self._start(adversary_zoo.run_when_told, str(out), data, executor, ready)
        ready.wait()
        began = time.monotonic()
        process.join(seconds)
        spent = time.monotonic() - began
        for pid in children(process.pid) if worker else [process.pid]:
            if process.exitcode is None:
                os.kill(pid, signal.SIGKILL)
        process.join()
        assert process.exitcode in ({0} if worker else {0, -signal.SIGKILL})
        return spent if process.exitcode == 0 else None

    def _start(self, target: Any, *arguments: Any) -> Any:
        process = self.context.Process(target=target, args=arguments)
        process.start()
        return process


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:  # the run has ended before the moment that was drawn
        return []


@pytest.fixture(scope="module")
def killer() -> Killer:
    return Killer()


class Reference:
    """Uninterrupted runs, made when they are asked for: what each leaves, its events, the time that it takes."""

    def __init__(self, folder: Path, killer: Killer) -> None:
        self.folder, self.killer = folder, killer
        self._known: dict[tuple[str, str], tuple[dict[str, str], list[str], float]] = {}

    def __call__(self, noise: str, executor: str = "serial") -> tuple[dict[str, str], list[str], float]:
        if (noise, executor) not in self._known:
            out = self.folder / f"{noise}-{executor}"
            began = time.monotonic()
            events = self.killer.at_event(out, noise, executor, 0)
            assert events is not None
            self._known[noise, executor] = (remains(out), events, time.monotonic() - began)
        return self._known[noise, executor]


@pytest.fixture(scope="module")
def reference(tmp_path_factory, killer) -> Reference:
    return Reference(tmp_path_factory.mktemp("reference"), killer)


def again(out: Path, noise: str) -> None:
    """Give the command again, in this process."""
    adversary_zoo.run_and_report(str(out), adversary_zoo.experiment(noise).to_json())


def check(out: Path, noise: str, reference: Reference, where: str) -> None:
    expected, *_ = reference(noise)
    found = remains(out)
    assert set(found) == set(expected), f"other files after a kill {where}"
    assert found == expected, f"other content after a kill {where}"
    for lock in out.rglob(".lock"):
        with FileLock(lock, timeout=0.0):
            pass


def kill_at(killer: Killer, reference: Reference, folder: Path, noise: str, executor: str, at: int) -> None:
    _, events, _ = reference(noise, executor)
    out = folder / f"{noise}-{executor}-{at}"
    assert killer.at_event(out, noise, executor, at) is None
    again(out, noise)
    check(out, noise, reference, f"of a {executor} run with noise {noise!r} before event {at}: {events[at - 1]}")


def kill_at_random(
    killer: Killer, reference: Reference, folder: Path, noise: str, executor: str, seed: int, *, worker: bool = False
) -> bool:
    """Kill once or twice; whether the run died at all."""
    *_, seconds = reference(noise, executor)
    draw = random.Random(f"{noise} {executor} {seed}")
    out = folder / f"{noise}-{executor}-random-{seed}"
    died = False
    for _ in range(draw.choice([1, 2])):
        died |= killer.after(draw.uniform(0, seconds), out, noise, executor, worker=worker) is None
    again(out, noise)
    check(out, noise, reference, f"at a random moment ({executor}, {noise}, seed {seed})")
    return died


def test_a_run_has_events_of_every_kind_and_its_students_draw(reference):
    files, events, _ = reference("none")
    kinds = {event.split()[0] for event in events}
    assert {"open", "fsync", "os.rename", "os.remove", "os.mkdir", "save", "saved"} <= kinds
    written = " ".join(events)
    for name in ("checkpoint.safetensors.tmp", "student.safetensors", "figures/", "report.html", "experiment.json"):
        assert name in written, name
    (weights,) = (name for name in files if name.endswith("student.safetensors"))
    assert not any(name.endswith((".partial", ".tmp", "checkpoint.safetensors")) for name in files)
    noisy = [next(d for f, d in reference(noise)[0].items() if f.endswith(".safetensors")) for noise in NOISES.values()]
    assert files[weights] == noisy[0]
    assert len(set(noisy)) == 3


@pytest.mark.parametrize(("noise", "count"), [("none", 3), ("dropout", 4), ("generators", 4)])
def test_killed_before_an_event_of_the_file_system(killer, reference, tmp_path, noise, count):
    _, events, _ = reference(noise)
    offset = sorted(NOISES.values()).index(noise)
    places = range(1 + offset, len(events) + 1, len(events) // count)
    for at in places:
        kill_at(killer, reference, tmp_path, noise, "serial", at)


@pytest.mark.parametrize("noise", ["dropout", "generators"])
def test_killed_at_a_random_moment(killer, reference, tmp_path, noise):
    kill_at_random(killer, reference, tmp_path, noise, "serial", seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("worker", [False, True], ids=["parent", "worker"])
def test_killed_with_worker_processes(killer, reference, tmp_path, worker):
    kill_at_random(killer, reference, tmp_path, "dropout", "local", seed=2 + worker, worker=worker)


@pytest.mark.adversary
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(("noise", "executor"), [*itertools.product(NOISES.values(), ["serial"]), ("dropout", "local")])
def test_killed_before_every_event_of_the_file_system(killer, reference, tmp_path, noise, executor, part):
    _, events, _ = reference(noise, executor)
    for at in range(1 + part, len(events) + 1, PARTS):
        kill_at(killer, reference, tmp_path, noise, executor, at)


@pytest.mark.adversary
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(10))
def test_killed_at_a_hundred_random_moments(killer, reference, tmp_path, part):
    deaths = 0
    for seed in range(10 * part, 10 * part + 10):
        executor, worker = [("serial", False), ("serial", False), ("local", False), ("local", True)][seed % 4]
        noise = list(NOISES.values())[seed % 3]
        deaths += kill_at_random(killer, reference, tmp_path, noise, executor, seed, worker=worker)
    assert deaths > 3
