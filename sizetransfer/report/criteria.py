"""Which error the figures show of a teacher's students, and one word for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from sizetransfer.evidence import SCORES, measure_name
from sizetransfer.trials import Experiment
from sizetransfer.verdict import Verdict, Word


@dataclass(frozen=True)
class Criterion:
    """An error of a score.

    Attributes:
        measure: the measure's name in the experiment.
        kind: ``clean-score`` or ``smoothed-score``.
        sigma: noise level of the smoothed score; NaN for the clean one.
    """

    measure: str
    kind: str
    sigma: float = math.nan

    def __str__(self) -> str:
        """The score, with the noise level of a smoothed one."""
        return self.score if math.isnan(self.sigma) else f"{self.score} at σ = {self.sigma:g}"

    @property
    def score(self) -> str:
        """Which score: ``clean score`` or ``smoothed score``."""
        return SCORES[self.kind]

    @property
    def level(self) -> float:
        """The noise level; zero for the clean score."""
        return 0.0 if math.isnan(self.sigma) else self.sigma

    def rows(self, table: pd.DataFrame, teacher: str) -> pd.DataFrame:
        """Those of the estimates that hold this error of the teacher's students."""
        own = (table["measure"] == self.measure) & (table["part"] == "relative_rmse") & (table["teacher"] == teacher)
        return table[
            own & (table["coordinate"].isna() if math.isnan(self.sigma) else table["coordinate"] == self.sigma)
        ]


def criteria(table: pd.DataFrame, experiment: Experiment, teacher: str) -> list[Criterion]:
    """The errors of a teacher's students: the clean score's, else the smoothed score's at each noise level.

    Args:
        table: averages over seeds, of :func:`sizetransfer.averages.estimates`.
        experiment: names of measures.
        teacher: its name.
    """
    names = {kind: measure_name(experiment, kind) for kind in SCORES}
    taken = {kind: name for kind, name in names.items() if name is not None}
    rows = table[(table["teacher"] == teacher) & (table["part"] == "relative_rmse")]
    for kind, name in taken.items():
        own = rows[rows["measure"] == name]
        if len(own):
            levels = sorted(own["coordinate"].dropna().unique()) if kind == "smoothed-score" else []
            return [Criterion(name, kind, float(level)) for level in levels] or [Criterion(name, kind)]
    # Nothing is there yet: what is missing is the first measure.
    return [Criterion(name, kind) for kind, name in taken.items()][:1]


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
