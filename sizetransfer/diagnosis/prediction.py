"""What is predicted for a teacher and a student, as data: the verdict, and the numbers at each size and noise level."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from sizetransfer.contracts.domain import size_words
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.diagnosis.question import PredictionSpec, describe_prediction_rule
from sizetransfer.diagnosis.responses import Source
from sizetransfer.diagnosis.text import text_of
from sizetransfer.diagnosis.theorem import LightCone, TheoremRow
from sizetransfer.verdict import Verdict, Word, describe


@dataclass(frozen=True)
class ResponseRow:
    """The response at one size and noise level.

    Attributes:
        size: sites along each axis.
        sigma: noise level; zero for the clean score, which stands in where the smoothed one is not known.
        range: R_eps (paper eq. (5)).
        largest: the largest distance on the lattice.
        covering: smallest radius that covers each share of the squared response, by share.
        outside_share: share of the squared response outside the student's radius; none without a student.
        irreducible: relative error of the best score of that radius; none where it is not known.
        draws: pairs of a field and a site that ``irreducible`` is a mean over; none where it is exact or not known.
        certified: radius that is certified to suffice, for every field; none where there are no certificates.
        locality_error: ``irreducible``, or the square root of ``outside_share``.
        sufficient: smallest sufficient radius.
    """

    size: int
    sigma: float
    range: Quantity
    largest: int
    covering: Mapping[float, Quantity]
    outside_share: Quantity | None
    irreducible: Quantity | None
    locality_error: Quantity | None
    sufficient: Quantity
    draws: int | None = None
    certified: Quantity | None = None


@dataclass(frozen=True)
class StudentError:
    """Error of a student that is ready, relative to the exact score.

    Attributes:
        size: sites along each axis.
        sigma: noise level at which the student is asked.
        against: ``smoothed`` score on noisy fields, or ``clean`` score on clean ones.
        error: relative root-mean-square error.
        locality: its irreducible part; none where it is not known.
        training: the rest, against the best score of the radius: squares add up.
        fields: independent fields that the error is from.
    """

    size: int
    sigma: float
    against: Literal["smoothed", "clean"]
    error: Quantity
    locality: Quantity | None
    training: Quantity | None
    fields: int = 0


@dataclass(frozen=True)
class SigmaNeeded:
    """Where the reverse process has to start at one size: a variance of ten times the largest eigenvalue.

    Attributes:
        size: sites along each axis.
        sigma: the noise level; none where second moments are not known.
    """

    size: int
    sigma: Quantity | None


@dataclass(frozen=True)
class Forecast:
    """What the numbers at one noise level, or all together, lead to.

    Attributes:
        sigma: noise level; zero for the clean score, none for all levels together.
        locality_error: error from locality at the largest size; none without a student.
        sufficient: smallest sufficient radius at the largest size.
        range_grows: whether R_eps rises between the two largest sizes; none with one size, or where that is unclear.
        sufficient_grows: whether the sufficient radius does: then no fixed radius stays within the tolerance.
        verdict: the word of the student's verdict, for all levels together; none without a student.
        reason: why, with the numbers.
    """

    sigma: float | None
    locality_error: Quantity | None
    sufficient: Quantity
    range_grows: bool | None
    sufficient_grows: bool | None
    verdict: Word | None = None
    reason: str = ""


@dataclass(frozen=True)
class Prediction:
    """All that is predicted for a teacher and a student.

    Attributes:
        teacher, student: what they are called.
        radius: the student's receptive radius; none for a global student, or without one.
        ready: whether the student's own score was examined: it is trained, or has no weights.
        source: where responses come from (:mod:`sizetransfer.diagnosis.responses`).
        geometry: what sizes and distances count: sites along an axis and steps of a lattice, sites and hops of a graph.
        spec: the question.
        verdicts: the verdict on the student; without one, on the best filter of each radius asked for.
        sigma_needed: where the reverse process has to start, by size.
        rows: by size, then noise level.
        forecasts: one for each noise level.
        overall: for all noise levels together, with the student's verdict.
        theorem: Theorem 1, one row for each size.
        errors: of the student, if it is ready.
        cone: influence weights at the largest size; none where they are not known.
        notes: what a reader should know of how the numbers came about.
    """

    teacher: str
    student: str | None
    radius: int | None
    ready: bool
    source: Source
    geometry: Literal["lattice", "graph"]
    spec: PredictionSpec
    verdicts: tuple[Verdict, ...]
    sigma_needed: tuple[SigmaNeeded, ...]
    rows: tuple[ResponseRow, ...]
    forecasts: tuple[Forecast, ...]
    overall: Forecast
    theorem: tuple[TheoremRow, ...]
    errors: tuple[StudentError, ...]
    cone: LightCone | None
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict | None:
        """The student's verdict; none without a student."""
        return None if self.student is None else self.verdicts[0]

    @property
    def symbol(self) -> str:
        """How sizes are called."""
        return size_words([self.geometry]).symbol

    @property
    def rule(self) -> str:
        """The rule of the verdict, and what the tables' thresholds decide, in words."""
        return f"{describe(self.spec.verdict, symbol=self.symbol)}\n{describe_prediction_rule(self.spec.rule)}"

    def text(self, *, tables: bool = False, explain: bool = False) -> str:
        """What the console shows: the verdict, then why.

        Args:
            tables: also responses, Theorem 1 and errors at every size and noise level.
            explain: also the rule, and where the numbers come from.
        """
        return text_of(self, tables=tables, explain=explain)

    def __str__(self) -> str:
        return self.text()

    def to_json(self) -> dict[str, Any]:
        """The same as data for JSON; every number with its kind and its error, and null for one that is not finite."""
        special = ("spec", "verdicts")
        data = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in special
        }
        verdicts = [verdict.to_json() for verdict in self.verdicts]
        return {
            "verdicts": verdicts,
            **cast(dict[str, Any], _plain(data)),
            "spec": self.spec.to_json(),
            "rule": self.rule,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Quantity):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such numbers
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
