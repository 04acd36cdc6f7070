"""Broken teachers and students: each a plausible bug, with the check that must catch it."""

from collections.abc import Callable
from dataclasses import dataclass

from sizetransfer_verification.conformance import Subject


@dataclass(frozen=True)
class Mutant:
    """A subject with one defect.

    Attributes:
        name: short, with hyphens.
        defect: what is wrong, in one sentence.
        killers: ids of the checks that catch it; the first is the one that is meant to.
        subject: builds the broken subject.
        healthy: builds the same subject without the defect, which must pass the first killer.
    """

    name: str
    defect: str
    killers: tuple[str, ...]
    subject: Callable[[], Subject]
    healthy: Callable[[], Subject]
