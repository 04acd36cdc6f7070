"""Which error the figures show of a teacher's students, and one word for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from sizetransfer.contracts.parts import Part, matches
from sizetransfer.runs.declarations import score_of
from sizetransfer.runs.trials import Experiment
from sizetransfer.verdict import Verdict, Word


@dataclass(frozen=True)
class Criterion:
    """An error of a score.

    Attributes:
        measure: the measure's name in the experiment.
        part: the name of the error.
        sigma: noise level of the smoothed score; NaN for the clean one.
    """

    measure: str
    part: str
    sigma: float = math.nan

    def __str__(self) -> str:
        """The score, with the noise level of a smoothed one."""
        return self.score if math.isnan(self.sigma) else f"{self.score} at σ = {self.sigma:g}"

    @property
    def score(self) -> str:
        """Which score: ``clean score`` or ``smoothed score``."""
        return score_of(self.sigma)

    @property
    def level(self) -> float:
        """The noise level; zero for the clean score."""
        return 0.0 if math.isnan(self.sigma) else self.sigma

    def rows(self, table: pd.DataFrame, teacher: str) -> pd.DataFrame:
        """Those of the estimates that hold this error of the teacher's students."""
        own = (table["measure"] == self.measure) & (table["part"] == self.part) & (table["teacher"] == teacher)
        return table[
            own & (table["coordinate"].isna() if math.isnan(self.sigma) else table["coordinate"] == self.sigma)
        ]


def criteria(table: pd.DataFrame, experiment: Experiment, teacher: str) -> list[Criterion]:
    """The errors of a teacher's students: the clean score's, else the smoothed score's at each noise level.

    They are what the measures declare as relative errors of the whole score (:mod:`sizetransfer.contracts.parts`);
    where several measures give one, the first of the experiment.

    Args:
        table: averages over seeds, of :func:`sizetransfer.numerics.averages.estimates`.
        experiment: names of measures.
        teacher: its name.
    """
    errors = list(_errors(experiment))
    own = table[table["teacher"] == teacher]
    for measure, pattern, part in errors:
        rows = own[own["measure"] == measure]
        for name in [one for one in rows["part"].unique() if matches(pattern, one)]:
            levels = sorted(rows[rows["part"] == name]["coordinate"].dropna().unique()) if part.has_coordinate else []
            return [Criterion(measure, name, float(level)) for level in levels] or [Criterion(measure, name)]
    # Nothing is there yet: what is missing is the first measure.
    return [Criterion(measure, name) for measure, name, _ in errors][:1]


def _errors(experiment: Experiment) -> list[tuple[str, str, Part]]:
    """Measure, name and description of every error of the whole score, those of the clean score first."""
    found = [
        (measure, name, part)
        for measure, spec in experiment.evaluation.measures.items()
        for name, part in spec.declarations().items()
        if part.judged and part.region == "whole"
    ]
    return sorted(found, key=lambda one: one[2].has_coordinate)


def regime(verdicts: Iterable[Verdict]) -> Word:
    """One word for a teacher, from the verdicts of its students in order of their radius.

    That of the largest radius, if it did not learn or degrades; ``radius-limited`` if any is, or a smaller radius
    degrades where the largest does not; ``undecided`` if any is, or did not learn; else ``transfers``.
    """
    words = [verdict.word for verdict in verdicts]
    if words[-1] in {"not learned", "degrades with size"}:
        return words[-1]
    if {"radius-limited", "degrades with size"} & set(words):
        return "radius-limited"
    return "undecided" if {"undecided", "not learned"} & set(words) else "transfers"
