"""Files that are either whole or not there: atomic writes, digests, and what a full or read-only disk means."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sizetransfer.errors import RunError

PARTIAL = ".partial"

_FIXES = {
    errno.ENOSPC: "free some space and run again: finished trials are kept; or choose another directory with --out",
    errno.EDQUOT: "free some of the quota and run again: finished trials are kept; or choose another --out",
    errno.EROFS: "choose a directory on a writable file system with --out",
    errno.EACCES: "choose a directory that you may write to with --out, or change its permissions",
    errno.EPERM: "choose a directory that you may write to with --out, or change its permissions",
    errno.EIO: "check the disk and run again: finished trials are kept; or choose another directory with --out",
    errno.EFBIG: "choose a file system that takes larger files with --out",
    errno.ENAMETOOLONG: "choose a shorter --out",
    errno.ENOTDIR: "choose an --out whose parents are directories",
    errno.EISDIR: "move the directory of that name away, or choose another --out",
}


class RunWarning(UserWarning):
    """Something in a run directory was found damaged and is done again."""


class StorageError(RunError):
    """The run directory cannot be written or read; the run stops, and finished trials are kept."""


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about ``path`` into a :class:`StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FIXES:
            raise
        raise StorageError(
            "The run directory cannot be used.",
            where=str(error.filename or path),
            got=f"{os.strerror(error.errno)} ({errno.errorcode[error.errno]})",
            fix=_FIXES[error.errno],
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file beside ``path``, flush it to the disk, then rename it.

    Raises:
        StorageError: the disk is full, read-only or forbidden; ``path`` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with storage_errors(path):
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)  # noqa: PTH105 - the system call itself, which tests interrupt
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def remove_partial_files(directory: Path) -> None:
    """Remove what interrupted writes, ours, of checkpoints and of the safetensors library, have left there."""
    with storage_errors(directory):
        for pattern in (f".*{PARTIAL}", "*.safetensors.tmp", ".tmp??????"):
            for path in directory.glob(pattern):
                path.unlink(missing_ok=True)


def to_bytes(data: object) -> bytes:
    """JSON in the order given, with a final newline."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def from_bytes(content: bytes) -> dict[str, Any] | None:
    """The JSON mapping in ``content``, or nothing if it holds none."""
    try:
        data = json.loads(content)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def digest(content: bytes) -> str:
    """SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sealed(body: dict[str, Any]) -> dict[str, Any]:
    """``body`` with a digest of itself, by which :func:`unsealed` recognises damage."""
    return {**body, "digest": digest(to_bytes(body))}


def unsealed(content: bytes) -> dict[str, Any] | None:
    """The body that was sealed in ``content``, or nothing if it is damaged."""
    data = from_bytes(content)
    if data is None:
        return None
    seal = data.pop("digest", None)
    return data if seal == digest(to_bytes(data)) else None
