"""Code that a stranger's experiment names: it leaves a trace where it is imported and where it is called."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

TRACES = "STRANGER_TRACES"


def trace(name: str) -> None:
    if TRACES in os.environ:
        Path(os.environ[TRACES], name).touch()


trace("imported")


def network() -> nn.Module:
    trace("called")
    return nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
