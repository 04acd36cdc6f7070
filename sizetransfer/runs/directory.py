"""The run directory: a view on the store that shows one experiment.

    experiment.json                the resolved experiment that the directory shows
    manifest.json                  versions, device, seeds, and for every trial its state, wall time and score calls
    records.parquet, records.csv   every number of the view
    verdicts.json                  what the numbers mean, by the experiment's rule
    report.html, figures/          the page
    trainings/                     the store (:mod:`sizetransfer.runs.store`), unless the run has another one

All of it but the store can be written anew at any time. Files that are read back hold a digest of themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizetransfer.contracts.errors import RunError
from sizetransfer.runs.formats import COLUMNS, DTYPES, fits
from sizetransfer.runs.formats import MANIFEST as MANIFEST_SHAPE
from sizetransfer.runs.storage import (
    LOCK,
    PARTIAL,
    digest,
    locked,
    make_directory,
    remove_partial_files,
    sealed,
    storage_errors,
    to_bytes,
    unsealed,
    warn_of_damage,
    write_atomically,
)
from sizetransfer.runs.store import Store

if TYPE_CHECKING:
    import pandas as pd

EXPERIMENT, MANIFEST, RECORDS, VERDICTS = "experiment.json", "manifest.json", "records.parquet", "verdicts.json"
OWN_STORE, FIGURES = "trainings", "figures"
_VIEW = (MANIFEST, RECORDS, "records.csv", VERDICTS, "report.html")
_SEAL = re.compile(rb"sha256:[0-9a-f]{64}")
_SEAL_NAME = b"sizetransfer.digest"
_NO_SEAL = {_SEAL_NAME: b"sha256:" + 64 * b"0"}


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def own_store(self) -> Store:
        """The store inside the directory."""
        return Store(self.path / OWN_STORE, within=self.path)

    def elsewhere(self) -> str | None:
        """The store outside the directory that its results are in, by its manifest; nothing if they are inside."""
        manifest = unsealed(self._read(MANIFEST) or b"") or {}
        store = manifest.get("store")
        return store if isinstance(store, str) else None

    def check(self, experiment: Mapping[str, Any]) -> None:
        """Refuse a directory that holds something else than runs of this experiment; nothing is changed.

        Raises:
            RunError: it holds something else, or a run of an experiment of another name.
        """
        with storage_errors(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise _foreign(self.path, "a file")
            present = sorted(entry.name for entry in self.path.iterdir()) if self.path.is_dir() else []
        foreign = [name for name in present if name != LOCK and not (name[0] == "." and name.endswith(PARTIAL))]
        if EXPERIMENT not in present and MANIFEST not in present and foreign:
            raise _foreign(self.path, f"{len(foreign)} entries, among them {foreign[0]!r}, but no {EXPERIMENT}")
        if foreign:
            self._check_name(str(experiment["name"]))

    @contextmanager
    def claimed(self, experiment: Mapping[str, Any]) -> Iterator[None]:
        """Within the block, the directory shows ``experiment`` and belongs to this run alone.

        Raises:
            RunError: another run is at work in it, it holds something else, or a link leads out of it.
        """
        self.check(experiment)
        make_directory(self.path, within=self.path)
        with locked(self.path, 0.0, "Another run is at work in this directory."):
            self.check(experiment)
            self._tidy()
            content = to_bytes(sealed(dict(experiment)))
            if self._read(EXPERIMENT) != content:
                self._announce(EXPERIMENT, content)
                write_atomically(self.path / EXPERIMENT, content)
            yield

    def forget(self) -> None:
        """Remove the view: what the store holds stays."""
        with storage_errors(self.path):
            for name in _VIEW:
                (self.path / name).unlink(missing_ok=True)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace ``manifest.json``, last of all: it names the files that it belongs to."""
        digests = {name: [digest(self._read(name) or b"")] for name in (EXPERIMENT, RECORDS)}
        write_atomically(self.path / MANIFEST, to_bytes(sealed({**manifest, "digests": digests})))

    def write_verdicts(self, verdicts: Mapping[str, Any]) -> None:
        """Replace ``verdicts.json``."""
        write_atomically(self.path / VERDICTS, to_bytes(sealed(dict(verdicts))))

    def write_records(self, records: pd.DataFrame) -> None:
        """Replace ``records.parquet``, which holds its digest, and ``records.csv``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(records, preserve_index=False)
        content = BytesIO()
        pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **_NO_SEAL}), content)
        whole = _seal(content.getvalue())
        self._announce(RECORDS, whole)
        write_atomically(self.path / RECORDS, whole)
        write_atomically(self.path / "records.csv", records.to_csv(index=False, lineterminator="\n").encode())

    def records(self) -> pd.DataFrame:
        """The table of records.

        Raises:
            RunError: it is missing or damaged; a single changed bit is found.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        content = self._read(RECORDS)
        if not content or content != _seal(content):
            got = f"{len(content)} bytes that do not fit the digest among them" if content else "no such file"
            raise self._damaged(RECORDS, "the table that the run had written", got)
        try:
            records: pd.DataFrame = pq.read_table(BytesIO(content)).to_pandas()
            return records[list(COLUMNS)].astype(DTYPES)
        except (pa.ArrowException, KeyError, ValueError, TypeError, OSError) as error:
            raise self._damaged(RECORDS, "a table of records", " ".join(str(error).split())[:300]) from error

    def manifest(self) -> dict[str, Any]:
        """The manifest, if it and the files that it names belong together.

        Raises:
            RunError: one of them is damaged, missing or of another run.
        """
        data = self.read(MANIFEST)
        if not fits(data, MANIFEST_SHAPE):
            raise self._damaged(MANIFEST, "what a run writes", "fields that are missing or of another type")
        for name in (EXPERIMENT, RECORDS):
            if digest(self._read(name) or b"") not in data["digests"].get(name, ()):
                expected, got = f"the one that {MANIFEST} names", "a file that is damaged, missing or of another run"
                raise self._damaged(name, expected, got)
        return data

    def _announce(self, name: str, content: bytes) -> None:
        """Let the manifest name what a file is about to hold too, so that a run that stops now can be read."""
        data = unsealed(self._read(MANIFEST) or b"")
        if data is not None and fits(data, MANIFEST_SHAPE):
            data["digests"][name] = [*data["digests"].get(name, ())[-1:], digest(content)]
            write_atomically(self.path / MANIFEST, to_bytes(sealed(data)))

    def _damaged(self, name: str, expected: str, got: str) -> RunError:
        return RunError(
            f"{name} is damaged.",
            where=str(self.path / name),
            expected=expected,
            got=got,
            fix="run the experiment again in this directory: all but what is stored is written anew",
        )

    def read(self, name: str) -> dict[str, Any]:
        """The JSON mapping in one of the run's files.

        Raises:
            RunError: the directory is no run directory, or the file is damaged.
        """
        content = self._read(name)
        if content is None:
            raise RunError(
                "This is not a run directory.",
                where=str(self.path),
                expected=f"a directory with the file {name}, as `sizetransfer run` writes it",
                got="no such file" if self.path.is_dir() else "no such directory",
                fix="give the directory that `sizetransfer run` was told as --out",
            )
        data = unsealed(content)
        if data is None:
            raise RunError(
                f"{name} is damaged.",
                where=str(self.path / name),
                expected="a JSON mapping with its digest, as the run had written it",
                got=f"{len(content)} bytes that are not what was written, or of an earlier version of sizetransfer",
                fix="run the experiment again in this directory: what is stored is kept; or restore the file",
            )
        return data

    def _check_name(self, name: str) -> None:
        """Whether the directory shows an experiment of this name, by whichever of its files is intact."""
        found: dict[str, str] = {}
        for file, field in ((EXPERIMENT, "name"), (MANIFEST, "experiment")):
            data = unsealed(self._read(file) or b"")
            if data is not None and isinstance(data.get(field), str):
                found[file] = data[field]
        if not found:
            raise _foreign(self.path, f"a file {EXPERIMENT} that this version has not written, or that is damaged")
        there = next(iter(found.values()))
        if there != name:
            raise RunError(
                "The directory holds a run of another experiment; nothing was changed.",
                where=str(self.path),
                expected=f"a run of {name!r}: a directory shows runs of one name, with any fields",
                got=f"a run of {there!r}",
                fix="choose another directory with --out",
            )
        if EXPERIMENT not in found:
            warn_of_damage(f"{EXPERIMENT} is damaged or missing in {self.path}: it is written anew.")

    def _tidy(self) -> None:
        """Remove what killed runs have left behind."""
        for folder in (self.path, self.path / FIGURES):
            if folder.is_dir():
                remove_partial_files(folder, within=self.path)

    def _read(self, name: str) -> bytes | None:
        path = self.path / name
        with storage_errors(path):
            return path.read_bytes() if path.is_file() else None


def _seal(content: bytes) -> bytes:
    """A Parquet file with its digest, taken with zeros in the digest's place; nothing if it has no such place."""
    blank, places = _SEAL.subn(_NO_SEAL[_SEAL_NAME], content)
    if places != 1:
        return b""
    return blank.replace(_NO_SEAL[_SEAL_NAME], b"sha256:" + digest(blank).encode())


def _foreign(path: Path, got: str) -> RunError:
    return RunError(
        "The directory is in use for something else; nothing was changed.",
        where=str(path),
        expected="a new or empty directory, or one that `sizetransfer run` has made",
        got=got,
        fix="choose another directory with --out",
    )
