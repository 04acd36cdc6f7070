"""Students that draw random numbers, and runs of them that die at any event of the file system."""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tiny_zoo
import torch
from torch import nn

from sizetransfer.contracts.specs import StudentSpec
from sizetransfer.registry import Registry
from sizetransfer.registry.hooks import hookimpl
from sizetransfer.runs.trials import Experiment

EXPERIMENT = {
    **tiny_zoo.EXPERIMENT,
    "seeds": [0],
    "report": {"figures": ["training"]},
}
"""One trial with one figure."""

NOISES = {"plain": "none", "dropout": "dropout", "generators": "generators"}
CHANGING = {"manifest.json", "training.json", "report.html", ".lock"}
"""Files whose content tells times."""


class Noisy(tiny_zoo.Line):
    """Learns with dropout, or with numbers from the global generators of torch, Python and numpy."""

    def __init__(self, field, noise: str) -> None:
        super().__init__(field, 1)
        self.noise = noise
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, sigma, context):
        score = super().forward(x, sigma, context)
        if self.noise == "dropout":
            return self.dropout(score)
        if self.noise == "generators" and self.training:
            return score * (torch.rand(()) + random.random() + float(np.random.rand()))  # noqa: NPY002
        return score


class NoisySpec(StudentSpec):
    kind: Literal["tiny-noisy"] = "tiny-noisy"
    noise: str = "none"

    def build(self, field):
        return Noisy(field, self.noise)


@hookimpl
def register_students(register):
    register(NoisySpec)


def registry() -> Registry:
    """The tiny zoo with these students."""
    return Registry(built_in=("tiny_zoo", "adversary_zoo", "sizetransfer.runs"), find_plugins=list)


def experiment(noise: str = "none", **changes: object) -> Experiment:
    """One trial of a student with this noise."""
    students = {"student": {"kind": "tiny-noisy", "noise": noise}}
    return Experiment.parse({**EXPERIMENT, "students": students, **changes}, lookup=registry().lookup)


def run_and_report(out: str, data: dict[str, Any], executor: str = "serial") -> None:
    """What ``sizetransfer run`` does."""
    from sizetransfer.report import write_report
    from sizetransfer.runs.runner import run

    spec = Experiment.parse(data, lookup=registry().lookup)
    write_report(run(spec, out, executor=executor, registry="adversary_zoo:registry", device="cpu", workers=1))


def run_until_event(out: str, data: dict[str, Any], executor: str, at: int, counted: str) -> None:
    """Run in this process, which dies right before the ``at``-th event of the file system below ``out``."""
    events = Events(Path(out), at)
    events.watch()
    run_and_report(out, data, executor)
    Path(counted).write_text("\n".join(events.seen))


def run_when_told(out: str, data: dict[str, Any], executor: str, ready: Any) -> None:
    """Say that all imports are done, then run."""
    for name in ("runs.runner", "runs.executors", "report"):
        importlib.import_module(f"sizetransfer.{name}")
    torch.zeros(2, requires_grad=True).sum().backward()
    ready.set()
    run_and_report(out, data, executor)


class Events:
    """What a process does to the files below a directory, in order.

    Opening for writing, renaming, removing, making a directory and flushing to the disk count, and the writing of
    checkpoints, which the safetensors library does by itself. At a flush, and after a checkpoint was written, the
    process dies with half of the file on the disk.
    """

    def __init__(self, root: Path, at: int) -> None:
        self.root, self.at = str(root), at
        self.seen: list[str] = []

    def watch(self) -> None:
        """Watch this process from here on."""
        import sizetransfer.scores.training

        synchronise, save = os.fsync, sizetransfer.scores.training.save_file

        def fsync(descriptor: int) -> None:
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            self.tick("fsync", path, lambda: tear(path))
            synchronise(descriptor)

        def save_file(tensors: Any, path: Any, **keywords: Any) -> None:
            self.tick("save", path)
            save(tensors, path, **keywords)
            self.tick("saved", path, lambda: tear(path))

        os.fsync = fsync
        sizetransfer.scores.training.save_file = save_file
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.tick(event, path)
        elif event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}:
            self.tick(event, arguments[0])

    def tick(self, what: str, path: object, before_death: Callable[[], None] = lambda: None) -> None:
        if not isinstance(path, str | os.PathLike) or not Path(path).is_relative_to(self.root):
            return
        self.seen.append(f"{what} {Path(path).relative_to(self.root)}")
        if len(self.seen) == self.at:
            before_death()
            os.kill(os.getpid(), signal.SIGKILL)


def tear(path: str | os.PathLike[str]) -> None:
    """Leave half of a file."""
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])


def remains(out: Path) -> dict[str, str]:
    """Every file of a run directory, with its digest where the content is the same in every run."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() or path.is_symlink()):
        stable = path.name not in CHANGING and path.parent.name != "measurements"
        found[str(path.relative_to(out))] = hashlib.sha256(path.read_bytes()).hexdigest() if stable else ""
    return found
