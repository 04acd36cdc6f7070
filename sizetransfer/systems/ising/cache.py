"""Tables kept on disk by what defines them; switched off unless a folder is named.

The folder is an argument or the environment variable ``SIZETRANSFER_CACHE``. A file's name is a hash of the table's
parameters; it is written under another name and then renamed, so that a reader never meets half a file. Its header
holds the parameters and a checksum of the numbers: a file that does not agree with itself or with the question is
computed again and replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

VARIABLE = "SIZETRANSFER_CACHE"
VERSION = 1
"""Of the algorithms; tables of another version are not read."""

Parameters = Mapping[str, str | int]


def cached(
    parameters: Parameters, compute: Callable[[], dict[str, Tensor]], *, folder: str | Path | None
) -> dict[str, Tensor]:
    """What ``compute`` returns, from disk where it is there.

    Args:
        parameters: all that the tables depend on.
        compute: makes the tables.
        folder: where they are kept; none: as the environment says, or nowhere.
    """
    folder = folder or os.environ.get(VARIABLE) or None
    if folder is None:
        return compute()
    key = json.dumps({"version": VERSION, **parameters}, sort_keys=True)
    path = Path(folder) / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    found = _read(path, key)
    if found is None:
        found = compute()
        _write(path, key, found)
    return found


def _checksum(tables: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tables):
        digest.update(name.encode())
        digest.update(tables[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    """The tables, or none where there are none that can be trusted."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tables = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError):
        return None
    return tables if header.get("key") == key and header.get("checksum") == _checksum(tables) else None


def _write(path: Path, key: str, tables: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: table.detach().cpu().contiguous() for name, table in tables.items()}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    os.close(handle)
    try:
        save_file(contiguous, temporary, metadata={"key": key, "checksum": _checksum(contiguous)})
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
