"""The command line in a process of its own, forked from one that has imported torch and none of this package."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

SLOW = ["torch", "torch.func", "pandas", "pyarrow.parquet", "safetensors.torch", "pydantic", "rich.progress"]


def context() -> Any:
    """Makes processes that have torch in memory and no module of this package."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(SLOW)
    return made


def command(processes: Any, arguments: list[str], folder: Path, *paths: Path) -> tuple[int, str]:
    """Exit code and output of ``sizetransfer ARGUMENTS`` in a folder, with ``paths`` first on the path."""
    output = folder / ".output"
    process = processes.Process(target=_command, args=(arguments, str(folder), [*map(str, paths)], str(output)))
    process.start()
    process.join()
    return process.exitcode, output.read_text()


def _command(arguments: list[str], folder: str, paths: list[str], output: str) -> None:
    os.chdir(folder)
    stream = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.dont_write_bytecode = True  # two edits within a second are told apart
    sys.path[:0] = [*paths, folder]
    importlib.invalidate_caches()
    assert not [name for name in sys.modules if name.partition(".")[0] == "sizetransfer"], "not fresh"
    sys.argv = ["sizetransfer", *arguments]
    importlib.import_module("sizetransfer.cli").main()
