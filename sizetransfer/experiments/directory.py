"""The run directory: what is in it, who may write to it, and which of it can be trusted.

    experiment.json                the resolved experiment; a directory belongs to one experiment only
    manifest.json                  versions, device, seeds, and for every trial its state, wall time and score calls
    records.parquet, records.csv   every number measured so far
    trials/<key>/                  student.safetensors, student.json, training.csv, records.json, result.json

``result.json`` is written last and holds the SHA-256 digests of the other files of its trial. A trial is finished
when the digests fit; where they do not, the damage is named and the trial is done again.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from sizetransfer.errors import RunError
from sizetransfer.experiments.storage import (
    PARTIAL,
    RunWarning,
    digest,
    from_bytes,
    remove_partial_files,
    sealed,
    storage_errors,
    to_bytes,
    unsealed,
    write_atomically,
)

if TYPE_CHECKING:
    from pandas import DataFrame

LOCK = ".lock"
FORMAT = 1
STUDENT_WEIGHTS = "student.safetensors"
STUDENT_SPEC = "student.json"
TRAINING = "training.csv"
RECORDS = "records.json"
RESULT = "result.json"
TRACEBACK = "error.txt"
CHECKPOINT = "checkpoint.safetensors"
_TRIAL_FILES = (RESULT, RECORDS, TRAINING, STUDENT_SPEC, STUDENT_WEIGHTS, TRACEBACK, CHECKPOINT)
_RUN_FILES = ("manifest.json", "records.parquet", "records.csv", "report.html")
_SHOWN_DIFFERENCES = 8


class TrialDirectory:
    """The files of one trial."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def key(self) -> str:
        """Key of the trial."""
        return self.path.name

    @property
    def checkpoint(self) -> Path:
        """Where training keeps its checkpoint until the trial is finished."""
        return self.path / CHECKPOINT

    @contextmanager
    def prepared(self, timeout: float = 60.0) -> Iterator[None]:
        """Within the block, the directory exists, holds no half-written files and has no other writer.

        The wait gives the processes of a run that was killed a moment ago the time to die.

        Raises:
            RunError: another process is computing this trial.
        """
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path, timeout, "Another process is computing this trial."):
            remove_partial_files(self.path)
            yield

    def finish(self, body: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Write ``files`` and, last of all, ``result.json`` with their digests; then drop the checkpoint."""
        for name, content in files.items():
            write_atomically(self.path / name, content)
        digests = {name: digest(content) for name, content in files.items()}
        write_atomically(self.path / RESULT, to_bytes(sealed({"format": FORMAT, **body, "digests": digests})))
        with storage_errors(self.path):
            self.checkpoint.unlink(missing_ok=True)
            (self.path / TRACEBACK).unlink(missing_ok=True)

    def inspect(self) -> tuple[dict[str, Any] | None, str | None]:
        """Return the content of ``result.json`` if the trial is finished and intact, and the damage if it is not."""
        content = self._read(RESULT)
        if content is None:
            return None, None
        body = unsealed(content)
        if body is None or body.get("format") != FORMAT:
            return None, f"{RESULT} is damaged"
        for name, expected in body["digests"].items():
            found = self._read(name)
            if found is None:
                return None, f"{name} is missing"
            if digest(found) != expected:
                return None, f"{name} is damaged"
        return body, None

    def recover(self, label: str) -> dict[str, Any] | None:
        """Like :meth:`inspect`, but warn of damage by name and clear the way for computing the trial again."""
        body, damage = self.inspect()
        if damage is not None:
            warnings.warn(
                f"{damage} in {self.path} ({label}): it is not what the run had written. The trial is done again.",
                RunWarning,
                stacklevel=2,
            )
            with storage_errors(self.path):
                (self.path / RESULT).unlink(missing_ok=True)
        return body

    def rows(self) -> list[dict[str, Any]]:
        """The measured rows of a finished trial."""
        content = from_bytes(self.read(RECORDS))
        return [] if content is None else list(content["records"])

    def remove(self) -> None:
        """Remove the files that runs make, and the directory if nothing else is in it."""
        with storage_errors(self.path):
            for name in (*_TRIAL_FILES, LOCK):
                (self.path / name).unlink(missing_ok=True)
            remove_partial_files(self.path)
            if not any(self.path.iterdir()):
                self.path.rmdir()

    def read(self, name: str) -> bytes:
        """The content of one of the files; empty if it is missing."""
        return self._read(name) or b""

    def _read(self, name: str) -> bytes | None:
        path = self.path / name
        with storage_errors(path):
            return path.read_bytes() if path.is_file() else None


class RunDirectory:
    """One experiment's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def trial(self, key: str) -> TrialDirectory:
        """The directory of the trial with this key."""
        return TrialDirectory(self.path / "trials" / key)

    def check(self, experiment: Mapping[str, Any]) -> None:
        """Refuse a directory that does not belong to ``experiment``; nothing is changed.

        Raises:
            RunError: the directory holds something else, or another experiment.
        """
        with storage_errors(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise _foreign(self.path, "a file")
            present = sorted(entry.name for entry in self.path.iterdir()) if self.path.is_dir() else []
        foreign = [name for name in present if name != LOCK and not (name[0] == "." and name.endswith(PARTIAL))]
        if "experiment.json" in present:
            self._check_same(experiment)
        elif foreign:
            raise _foreign(self.path, f"{len(foreign)} entries, among them {foreign[0]!r}, but no experiment.json")

    @contextmanager
    def claimed(self, experiment: Mapping[str, Any], *, fresh: bool) -> Iterator[None]:
        """Within the block, the directory belongs to ``experiment`` and to this run alone.

        Args:
            experiment: the resolved experiment.
            fresh: forget what earlier runs of the same experiment have computed.

        Raises:
            RunError: another run is at work in it, or it does not belong to ``experiment``.
        """
        self.check(experiment)
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path, 0.0, "Another run is at work in this directory."):
            self.check(experiment)
            remove_partial_files(self.path)
            if fresh:
                self._forget()
            if not (self.path / "experiment.json").exists():
                write_atomically(self.path / "experiment.json", to_bytes(dict(experiment)))
            yield

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace ``manifest.json``."""
        write_atomically(self.path / "manifest.json", to_bytes(dict(manifest)))

    def write_records(self, records: DataFrame) -> None:
        """Replace ``records.parquet`` and ``records.csv``."""
        table = BytesIO()
        records.to_parquet(table, index=False)
        write_atomically(self.path / "records.parquet", table.getvalue())
        write_atomically(self.path / "records.csv", records.to_csv(index=False, lineterminator="\n").encode())

    def read(self, name: str) -> dict[str, Any]:
        """The JSON mapping in one of the run's files.

        Raises:
            RunError: the directory is no run directory, or the file is damaged.
        """
        path = self.path / name
        with storage_errors(path):
            content = path.read_bytes() if path.is_file() else None
        if content is None:
            raise RunError(
                "This is not a run directory.",
                where=str(self.path),
                expected=f"a directory with the file {name}, as `sizetransfer run` writes it",
                got="no such file" if self.path.is_dir() else "no such directory",
                fix="give the directory that `sizetransfer run` was told as --out",
            )
        data = from_bytes(content)
        if data is None:
            raise RunError(
                f"{name} is damaged.",
                where=str(path),
                expected="a JSON mapping, as the run had written it",
                got=f"{len(content)} bytes that are none",
                fix="restore the file, or run the experiment again with another --out",
            )
        return data

    def _check_same(self, experiment: Mapping[str, Any]) -> None:
        different = differences(self.read("experiment.json"), experiment)
        if not different:
            return
        shown = [f"{path}: {there} there, {here} here" for path, there, here in different[:_SHOWN_DIFFERENCES]]
        if len(different) > len(shown):
            shown.append(f"and {len(different) - len(shown)} more")
        raise RunError(
            "The directory holds a run of another experiment; nothing was changed.",
            where=str(self.path),
            expected="the same experiment in every field: a run directory is not extended or altered",
            got="; ".join(shown),
            fix="choose another directory with --out",
        )

    def _forget(self) -> None:
        trials = self.path / "trials"
        for path in trials.iterdir() if trials.is_dir() else ():
            if path.is_dir() and re.fullmatch("[0-9a-f]{16}", path.name):
                TrialDirectory(path).remove()
        with storage_errors(self.path):
            for name in _RUN_FILES:
                (self.path / name).unlink(missing_ok=True)


def differences(there: object, here: object, path: str = "") -> list[tuple[str, str, str]]:
    """Dotted paths at which two JSON values differ, each with both values as text."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        names = [*there, *(name for name in here if name not in there)]
        found = [
            item
            for name in names
            for item in differences(there.get(name, _ABSENT), here.get(name, _ABSENT), f"{path}.{name}".lstrip("."))
        ]
        # The order of a mapping is the order of the grid, and so of the records.
        return found or ([] if list(there) == list(here) else [(path, str(list(there)), str(list(here)))])
    return [] if there == here else [(path, _text(there), _text(here))]


_ABSENT = object()


def _text(value: object) -> str:
    text = "nothing" if value is _ABSENT else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _foreign(path: Path, got: str) -> RunError:
    return RunError(
        "The directory is in use for something else; nothing was changed.",
        where=str(path),
        expected="a new or empty directory, or one that `sizetransfer run` has made",
        got=got,
        fix="choose another directory with --out",
    )


@contextmanager
def _locked(path: Path, timeout: float, problem: str) -> Iterator[None]:
    lock = FileLock(path / LOCK, timeout=timeout)
    try:
        with storage_errors(path):
            lock.acquire()
    except Timeout:
        raise RunError(
            problem,
            where=str(path),
            expected="one process at a time",
            got="a lock that is held",
            fix="wait until it has finished, stop it, or choose another directory with --out",
        ) from None
    except NotImplementedError:
        raise RunError(
            "The file system does not support locks, so that two runs could write to one directory.",
            where=str(path),
            fix="choose a directory on a local file system with --out",
        ) from None
    try:
        yield
    finally:
        lock.release()
