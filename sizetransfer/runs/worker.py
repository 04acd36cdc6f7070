"""A process that computes trials for :class:`~sizetransfer.runs.executors.LocalExecutor`.

It reads JSON lines from its standard input, first the workplace and then trials, and writes JSON lines to its
standard output: events, and after each trial its result. When its input closes, it ends at once, whatever it is
doing: the process that gave it work has gone, and a later run must not meet a second writer.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import warnings
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sizetransfer.contracts.events import Event

_LONGEST_DETAIL = 500


def main() -> None:
    """Compute trials until the standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that gives work decides what an interrupt means
    output = _private_output()
    lines: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, lines), daemon=True).start()

    from sizetransfer.runs.workplace import Workplace

    workplace = Workplace.from_json(lines.get())
    while True:
        _send(output, _compute(workplace, lines.get(), output))


def _compute(workplace: Any, data: dict[str, Any], output: IO[str]) -> dict[str, Any]:
    from sizetransfer.runs.workplace import error_to_json, parse_trial

    def tell(event: Event) -> None:
        fields = asdict(event)
        _send(output, {"event": {**fields, "detail": fields["detail"][:_LONGEST_DETAIL]}})

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        result = workplace.perform(parse_trial(data, workplace.registry), tell)
    return {
        "status": result.status,
        "error": None if result.error is None else error_to_json(result.error),
        "tasks": {
            one.task.key: {"status": one.status, "error": None if one.error is None else error_to_json(one.error)}
            for one in result.tasks
        },
        "warnings": [str(warning.message) for warning in caught],
    }


def _private_output() -> IO[str]:
    """Keep the standard output to ourselves: what plugins print goes to the standard error."""
    private = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return private


def _read(stream: IO[bytes], lines: queue.Queue[dict[str, Any]]) -> None:
    for line in stream:
        lines.put(json.loads(line))
    os._exit(0)


def _send(output: IO[str], message: dict[str, Any]) -> None:
    output.write(json.dumps(message) + "\n")
    output.flush()


if __name__ == "__main__":
    main()
