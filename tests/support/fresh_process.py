"""The command line in a process of its own, forked from one that has imported torch and none of this package.

The process that forks is our own, not that of ``multiprocessing``, which all tests of a worker share.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SLOW = ["torch", "torch.func", "pandas", "pyarrow.parquet", "safetensors.torch", "pydantic", "rich.progress"]


class Forker:
    """Makes processes that have torch in memory and no module of this package."""

    def __init__(self) -> None:
        places = os.pathsep.join([str(Path(place).resolve()) for place in sys.path])
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": places},
        )

        atexit.register(self.close)

    def close(self) -> None:
        """End the process that forks."""
        self._process.communicate()

    def run(self, **task: Any) -> int:
        """Exit code of a process that does the task."""
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@functools.cache
def context() -> Forker:
    """The forker of this process; it ends with it."""
    return Forker()


def command(processes: Forker, arguments: list[str], folder: Path, *paths: Path) -> tuple[int, str]:
    """Exit code and output of ``sizetransfer ARGUMENTS`` in a folder, with ``paths`` first on the path."""
    output = folder / ".output"
    code = processes.run(
        arguments=arguments,
        folder=str(folder),
        paths=[*map(str, paths)],
        output=str(output),
        environment={**os.environ},
    )
    return code, output.read_text()


def _serve() -> None:
    for name in SLOW:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _command(**json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _command(arguments: list[str], folder: str, paths: list[str], output: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    stream = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.dont_write_bytecode = True  # two edits within a second are told apart
    sys.path[:0] = [*paths, folder]
    importlib.invalidate_caches()
    assert not [name for name in sys.modules if name.partition(".")[0] == "sizetransfer"], "not fresh"
    sys.argv = ["sizetransfer", *arguments]
    code: Any = 0
    try:
        importlib.import_module("sizetransfer.cli").main()
    except SystemExit as ended:
        code = ended.code
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve()
