"""Files that are either whole or not there: atomic writes, seals, locks, links, and what a full disk means."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sizetransfer.contracts.errors import RunError

PARTIAL = ".partial"
LOCK = ".lock"

_FIXES = {
    errno.ENOSPC: "free some space and run again: what is finished is kept; or choose another directory with --out",
    errno.EDQUOT: "free some of the quota and run again: what is finished is kept; or choose another --out",
    errno.EROFS: "choose a directory on a writable file system with --out",
    errno.EACCES: "choose a directory that you may write to with --out, or change its permissions",
    errno.EPERM: "choose a directory that you may write to with --out, or change its permissions",
    errno.EIO: "check the disk and run again: what is finished is kept; or choose another directory with --out",
    errno.EFBIG: "choose a file system that takes larger files with --out",
    errno.ENAMETOOLONG: "choose a shorter --out",
    errno.ENOTDIR: "choose an --out whose parents are directories",
    errno.EISDIR: "move the directory of that name away, or choose another --out",
    errno.EEXIST: "move what has that name away, or choose another --out",
    errno.ELOOP: "remove the link that leads to itself, or choose another --out",
}


class RunWarning(UserWarning):
    """Something in a run directory was found damaged and is done again."""


def warn_of_damage(text: str) -> None:
    """Tell the user that something is not what a run had written."""
    warnings.warn(text, RunWarning, stacklevel=3)


class StorageError(RunError):
    """The run directory cannot be written or read; the run stops, and what is finished is kept."""


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
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as stream:  # "x" follows no link
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)  # noqa: PTH105 - the system call itself, which tests interrupt
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def remove_partial_files(directory: Path, *, within: Path) -> None:
    """Remove what interrupted writes, ours, of checkpoints and of the safetensors library, have left there.

    Raises:
        RunError: a link leads out of ``within``.
    """
    require_inside(directory, within)
    with storage_errors(directory):
        for pattern in (f".*{PARTIAL}", "*.safetensors.tmp", ".tmp??????"):
            for path in directory.glob(pattern):
                path.unlink(missing_ok=True)


def make_directory(path: Path, *, within: Path) -> None:
    """Make ``path`` and its parents, unless a link on the way leads out of ``within``.

    Raises:
        RunError: one does; nothing is written through it.
        StorageError: the directory cannot be made.
    """
    require_inside(path, within)
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def require_inside(path: Path, within: Path) -> None:
    """Refuse a path that a link leads out of ``within``.

    Raises:
        RunError: with the place that it leads to.
    """
    with storage_errors(path):
        root, target = (Path(os.path.realpath(place)) for place in (within, path))  # which bears links to themselves
    if not target.is_relative_to(root):
        raise RunError(
            "A link leads out of the directory; nothing is written through it.",
            where=str(path),
            expected=f"a place inside {within}",
            got=str(target),
            fix="remove the link, or choose another directory with --out or --store",
        )


@contextmanager
def locked(path: Path, timeout: float, problem: str) -> Iterator[None]:
    """Within the block, no other process has the lock of the directory ``path``.

    Raises:
        RunError: another process keeps it beyond ``timeout`` seconds, or the file system has no locks.
    """
    if (path / LOCK).is_symlink():
        require_inside(path / LOCK, path)
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


def to_bytes(data: object, *, indent: int | None = 2) -> bytes:
    """JSON in the order given, with a final newline; half a character, which no text file can hold, becomes ``?``."""
    return (json.dumps(data, indent=indent, ensure_ascii=False) + "\n").encode(errors="replace")


def from_bytes(content: bytes) -> dict[str, Any] | None:
    """The JSON mapping in ``content``, or nothing if it holds none."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
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
    try:
        json.dumps(data, ensure_ascii=False).encode()  # strict: no run writes half a character
        return data if seal == digest(to_bytes(data)) else None
    except (RecursionError, UnicodeEncodeError):
        return None
