"""The steps of a diagnosis: what each one took, and what could not be answered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sizetransfer.contracts.errors import SizetransferError


@dataclass(frozen=True)
class Step:
    """One step of a diagnosis.

    Attributes:
        name: what was asked.
        fields: how many independent fields answer it.
        seconds: processor time.
        failed: why there is no answer; empty where there is one.
    """

    name: str
    fields: int
    seconds: float
    failed: str = ""


class StepLog:
    """The steps that were taken, in their order.

    Attributes:
        steps: all of them.
        problems: why steps that were not needed failed, and what else was asked for and could not be given.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.problems: list[str] = []

    @contextmanager
    def step(self, name: str, fields: int, *, needed: bool = True) -> Iterator[None]:
        """Time what is done within; where it is not needed, an error of ours is a problem, and nothing else is lost."""
        started, failed = time.process_time(), ""
        try:
            yield
        except SizetransferError as error:
            if needed:
                raise
            failed = str(error)
            self.problems.append(failed)
        self.steps.append(Step(name, fields, time.process_time() - started, failed))
