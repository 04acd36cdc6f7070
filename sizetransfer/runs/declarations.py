"""What the measures of an experiment declare of their parts: which are errors that are judged, which serve a verdict.

Nothing here names a kind of measure; all of it is read from ``MeasureSpec.parts``
(:mod:`sizetransfer.contracts.parts`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, cached_property

from sizetransfer.contracts.parts import Part
from sizetransfer.runs.trials import Experiment


class Declarations:
    """The declarations of the measures of one experiment, by its own names of them."""

    def __init__(self, experiment: Experiment) -> None:
        self._measures = experiment.evaluation.measures
        self.part = cache(self._part)
        self.profile = cache(self._profile)

    def _part(self, measure: str, name: str) -> Part | None:
        """What is declared of a part of a measure; nothing of one that the experiment does not have."""
        spec = self._measures.get(measure)
        return None if spec is None else spec.declared(name)

    def _profile(self, measure: str, name: str) -> tuple[str, str]:
        """The profile over classes that a part belongs to, and its class; the part's own name where it holds none."""
        spec = self._measures.get(measure)
        return (name, "") if spec is None else spec.profile_of(name)

    @cached_property
    def judged(self) -> tuple[str, ...]:
        """Names of the measures that give errors which verdicts rest on, in the experiment's order."""
        return tuple(
            name for name, spec in self._measures.items() if any(part.judged for part in spec.declarations().values())
        )

    @cached_property
    def losses(self) -> tuple[str, ...]:
        """Name of the measure whose denoising losses stand in for errors where there are none; nothing without one."""
        source = self.source("loss")
        return () if source is None else (source,)

    def serving_all(self, service: str) -> Iterator[tuple[str, str]]:
        """Measure and part of everything that serves as ``group: name``, in the experiment's order."""
        for measure, spec in self._measures.items():
            yield from ((measure, name) for name, part in spec.declarations().items() if part.serves == service)

    def serving(self, service: str) -> tuple[str, str] | None:
        """Measure and part that serve a verdict as ``group: name``; nothing where there is none.

        All of a group comes from one measure, the first of the experiment that serves any of it, because its numbers
        belong together.
        """
        source = self.source(service.partition(":")[0])
        return next((place for place in self.serving_all(service) if place[0] == source), None)

    def source(self, group: str) -> str | None:
        """The measure that serves a group."""
        return next(
            (
                name
                for name, spec in self._measures.items()
                if any(part.serves.partition(":")[0] == group for part in spec.declarations().values())
            ),
            None,
        )


def score_of(level: float) -> str:
    """Which score an error at a noise level is of: NaN and zero are the clean one."""
    return "clean score" if math.isnan(level) or level == 0 else "smoothed score"
