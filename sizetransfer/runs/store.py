"""The store of results: trainings, and what was measured of each, at addresses that name their content.

    <root>/<training key>/training.json                 what the training was and cost; written last, with digests
                          student.safetensors, student.json, training.csv
                          checkpoint.safetensors         while it trains
                          measurements/<key>.json        the numbers of one measure at one size, with their sums
                          error.txt                      traceback of the last unexpected error

Every file carries a digest of itself, or its digest stands in ``training.json``. What does not fit is named and done
again; it is never used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sizetransfer.contracts.errors import RunError
from sizetransfer.runs.formats import MEASUREMENT, fits
from sizetransfer.runs.formats import TRAINING as TRAINING_SHAPE
from sizetransfer.runs.keys import FORMAT, KEY
from sizetransfer.runs.storage import (
    digest,
    locked,
    make_directory,
    remove_partial_files,
    require_inside,
    sealed,
    storage_errors,
    to_bytes,
    unsealed,
    warn_of_damage,
    write_atomically,
)

TRAINING = "training.json"
STUDENT_WEIGHTS = "student.safetensors"
STUDENT_SPEC = "student.json"
HISTORY = "training.csv"
CHECKPOINT = "checkpoint.safetensors"
TRACEBACK = "error.txt"
MEASUREMENTS = "measurements"
PATIENCE = 60.0
"""Seconds that the processes of a killed run have to die."""
_FILES = (TRAINING, STUDENT_WEIGHTS, STUDENT_SPEC, HISTORY, CHECKPOINT, TRACEBACK)


class TrainingDirectory:
    """One training and its measurements.

    Args:
        root: the store.
        key: the training's key.
        patience: seconds to wait for another process that computes the training; negative: as long as it takes.
        within: the directory that nothing is written outside of; by default the store.

    Raises:
        RunError: the key does not look like one, so that it cannot name a directory of the store.
    """

    def __init__(self, root: Path, key: str, *, patience: float = PATIENCE, within: Path | None = None) -> None:
        if not re.fullmatch(KEY, key):
            raise RunError(
                "This is no key of a training.",
                where=str(root),
                expected="16 hexadecimal digits",
                got=repr(key[:80]),
                fix="run the experiment again in this directory: the manifest is written anew",
            )
        self.within = within or root
        self.key = key
        self.patience = patience
        self.path = root / key

    @property
    def checkpoint(self) -> Path:
        """Where training keeps its checkpoint until it is finished."""
        return self.path / CHECKPOINT

    @contextmanager
    def prepared(self, timeout: float | None = None) -> Iterator[None]:
        """Within the block, the directory exists, holds no half-written files and has no other writer.

        The wait, of :attr:`patience` seconds if ``timeout`` does not say otherwise, gives the processes of a run that
        was killed a moment ago the time to die, and those of another run on a shared store the time to finish.

        Raises:
            RunError: another process is computing this training, or a link leads out of the directory.
        """
        make_directory(self.path, within=self.within)
        wait = self.patience if timeout is None else timeout
        with locked(self.path, wait, "Another process is computing this trial."):
            self.tidy()
            yield

    def tidy(self) -> None:
        """Remove half-written files, and the checkpoint and the traceback of a finished training."""
        for folder in (self.path, self.path / MEASUREMENTS):
            if folder.is_dir():
                remove_partial_files(folder, within=self.within)
        if (self.path / TRAINING).is_file():
            self._drop(CHECKPOINT)
            self._drop(TRACEBACK)

    def finish(self, body: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Write ``files`` and, last of all, ``training.json`` with their digests; then drop the checkpoint."""
        for name, content in files.items():
            write_atomically(self.path / name, content)
        digests = {name: digest(content) for name, content in files.items()}
        write_atomically(self.path / TRAINING, to_bytes(sealed({"format": FORMAT, **body, "digests": digests})))
        self._drop(CHECKPOINT)
        self._drop(TRACEBACK)

    def training(self) -> dict[str, Any] | None:
        """The content of ``training.json`` if the training is finished and all of its files are intact.

        What is damaged is named in a warning, and the way is cleared for doing it again.
        """
        body, damage = self.inspect()
        if damage is not None:
            self._warn(damage, f"{body['label']}: the training" if body else "the training")
            self._drop(TRAINING)
            return None
        return body

    def inspect(self) -> tuple[dict[str, Any] | None, str | None]:
        """Return the content of ``training.json``, if it is there and intact, and what is damaged; changes nothing."""
        body = self.header()
        if body is None:
            return None, f"{TRAINING} is damaged" if (self.path / TRAINING).is_file() else None
        for name, expected in body["digests"].items():
            found = self._read(name)
            if found is None:
                return body, f"{name} is missing"
            if digest(found) != expected:
                return body, f"{name} is damaged"
        return body, None

    def header(self) -> dict[str, Any] | None:
        """The content of ``training.json``, if it is intact; the other files are not looked at."""
        body = unsealed(self._read(TRAINING) or b"")
        ours = body is not None and (body.get("format"), body.get("key")) == (FORMAT, self.key)
        return body if ours and fits(body, TRAINING_SHAPE) else None

    def measured(self) -> set[str]:
        """Keys of the measurements that are there."""
        with storage_errors(self.path):
            return {path.stem for path in (self.path / MEASUREMENTS).glob("*.json")}

    def store_measurement(self, key: str, body: Mapping[str, Any]) -> None:
        """Write what one measure gave at one size."""
        make_directory(self.path / MEASUREMENTS, within=self.within)
        content = to_bytes(sealed({"format": FORMAT, "key": key, "training": self.key, **body}), indent=None)
        write_atomically(self._measurement_path(key), content)

    def measurement(self, key: str) -> dict[str, Any] | None:
        """What one measure gave at one size, if it is there and intact; damage is named in a warning."""
        body, damage = self.inspect_measurement(key)
        if damage is not None:
            self._warn(damage, "the measurement")
            self._drop(f"{MEASUREMENTS}/{key}.json")
        return body

    def inspect_measurement(self, key: str) -> tuple[dict[str, Any] | None, str | None]:
        """Return the content of a measurement's file, if it is there and intact, and the damage; changes nothing."""
        name = f"{MEASUREMENTS}/{key}.json"
        content = self._read(name)
        if content is None:
            return None, None
        body = unsealed(content)
        parts = (FORMAT, key, self.key)
        ours = body is not None and (body.get("format"), body.get("key"), body.get("training")) == parts
        return (body, None) if ours and fits(body, MEASUREMENT) else (None, f"{name} is damaged")

    def remove(self, measurements: Collection[str] | None = None) -> None:
        """Remove the files that runs make but the lock, which somebody may be waiting for.

        Args:
            measurements: keys of the measurements that go; by default all.
        """
        self.tidy()
        with storage_errors(self.path):
            for path in (self.path / MEASUREMENTS).glob("*.json"):
                if re.fullmatch(KEY, path.stem) and (measurements is None or path.stem in measurements):
                    path.unlink()
            for name in _FILES:
                self._drop(name)

    def read(self, name: str) -> bytes:
        """The content of one of the files; empty if it is missing."""
        return self._read(name) or b""

    def note_traceback(self, text: str) -> Path:
        """Keep the traceback of an unexpected error, where that is possible, and return its place."""
        path = self.path / TRACEBACK
        with suppress(OSError, RunError):
            write_atomically(path, text.encode(errors="backslashreplace"))
        return path

    def _measurement_path(self, key: str) -> Path:
        return self.path / MEASUREMENTS / f"{key}.json"

    def _read(self, name: str) -> bytes | None:
        path = self.path / name
        with storage_errors(path):
            return path.read_bytes() if path.is_file() else None

    def _drop(self, name: str) -> None:
        path = self.path / name
        if path.is_symlink() or path.exists():
            require_inside(path.parent, self.within)
            with storage_errors(path):
                path.unlink(missing_ok=True)

    def _warn(self, damage: str, what: str) -> None:
        text = f"{damage} in {self.path} ({what}): it is not what the run had written. It is done again."
        warn_of_damage(text)


class Store:
    """All trainings below one directory.

    Args:
        root: that directory.
        shared: whether several runs may be at work in it at once, so that one waits for what another computes.
        within: the directory that nothing is written outside of, for a store that is part of one; by default the store.
    """

    def __init__(self, root: Path, *, shared: bool = False, within: Path | None = None) -> None:
        self.root = root
        self.patience = -1.0 if shared else PATIENCE
        self.within = within or root

    def training(self, key: str) -> TrainingDirectory:
        """The place of the training with this key."""
        return TrainingDirectory(self.root, key, patience=self.patience, within=self.within)

    def __iter__(self) -> Iterator[TrainingDirectory]:
        """Every training that is there, finished or not, in the order of the keys."""
        with storage_errors(self.root):
            entries = sorted(self.root.iterdir()) if self.root.is_dir() else []
        for path in entries:
            if path.is_dir() and not path.is_symlink() and re.fullmatch(KEY, path.name):
                yield self.training(path.name)

    def tidy(self) -> None:
        """Remove what killed runs have left behind, but for what a process is at work on.

        Raises:
            RunError: a link leads out of the directory that the store is part of.
        """
        require_inside(self.root, self.within)
        for training in self:
            with suppress(RunError), locked(training.path, 0.0, "at work"):
                training.tidy()
