"""An executor and a listener: they decide where and when, and change no number."""

import os
from pathlib import Path

from sizetransfer.runs.executors import SerialExecutor

NOTES = "COIN_TOSS_NOTES"
"""Environment variable with the file that the listener writes to."""


class OneByOne(SerialExecutor):
    """One trial after the other, in this process."""


def note(event) -> None:
    """Note what happens, a line an event."""
    if NOTES in os.environ:
        with Path(os.environ[NOTES]).open("a") as file:
            file.write(f"{event.kind} {event.label}\n")
