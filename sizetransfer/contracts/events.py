"""What happens during a run, told to progress bars and trackers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

EventKind = Literal["started", "step", "trained", "measured", "finished", "reused", "failed"]


@dataclass(frozen=True)
class Event:
    """One thing that happened to one trial.

    Attributes:
        kind: ``started``; ``step`` (some training steps are done); ``trained`` (the weights are stored); ``measured``
            (one measure at one size has ended); ``finished``; ``reused`` (an earlier run had finished it); ``failed``.
        trial: key of the trial.
        label: teacher, student and seed, for people.
        done: share of the trial's work that is done, between 0 and 1.
        step: training steps done.
        loss: training loss at that step.
        detail: the measure and size, or the error.
    """

    kind: EventKind
    trial: str
    label: str
    done: float = 0.0
    step: int = 0
    loss: float = math.nan
    detail: str = ""


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing with an event."""
