"""Broken listeners: each a plausible bug, with the check that must catch it."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable

import torch

from sizetransfer.contracts.student import Student

LISTENERS: list[tuple[Callable, str]] = []
_PRECONDITION = Student.precondition


def caught_by(check: str) -> Callable[[Callable], Callable]:
    """Register a function with the id of the check that catches it."""

    def register(broken: Callable) -> Callable:
        LISTENERS.append((broken, f"listener/{check}"))
        return broken

    return register


@caught_by("takes-every-event")
def raises(event):
    raise ZeroDivisionError("inside a listener")


@caught_by("takes-every-event")
def exits(event):
    sys.exit(3)


@caught_by("takes-every-event")
def wants_a_loss(event):
    int(event.loss)


@caught_by("returns-quickly")
def slow(event):
    time.sleep(0.15)


@caught_by("changes-no-state")
def sets_the_default_dtype(event):
    torch.set_default_dtype(torch.float16)


@caught_by("changes-no-state")
def draws(event):
    torch.rand(3), random.random()


@caught_by("changes-no-state")
def goes_elsewhere(event):
    os.chdir("/")


@caught_by("changes-no-state")
def changes_the_event(event):
    object.__setattr__(event, "done", 1.0)


@caught_by("records-are-unchanged")
def replaces_the_preconditioning(event):
    Student.precondition = lambda self, network, x, sigma: -x


def mended() -> None:
    """Undo what the last one does."""
    Student.precondition = _PRECONDITION
