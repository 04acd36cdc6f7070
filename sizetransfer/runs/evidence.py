r"""From a run's records to its verdicts: what :func:`sizetransfer.verdict.judge` is told of every teacher and student.

Measures say themselves what their numbers are for (:mod:`sizetransfer.contracts.parts`); no kind of measure is named
here.

- Errors: all parts that are relative errors of the score, of the clean one (in open boxes that of the bulk) and of the
  smoothed one at every noise level. Where several measures give an error at one level, the first counts.
- Losses: where no error of the score was measured of a teacher's student, as of data, parts that serve as losses.
- References and the law: parts that serve as such. Without references the null error of the clean score follows from
  the sizes of field and score, by Stein's identity

  .. math:: e_0^2 = 1 - 1 / (E x_i^2\,E s_i^2),

  which is never too small, so that nothing is called *not learned* for it; locality stays unknown.
- What is generated: parts that serve as a rollout; else as the student's own forecast; else as that of the linear
  reference.

Records are enough: nothing is built. Sums of fields, where they are stored, pair what shares fields; without them a
number stands with its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from sizetransfer.contracts.domain import SizeWords, size_words
from sizetransfer.contracts.parts import SERVICES, SOURCES, STATISTICS, Part
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.records import Sums, number_of
from sizetransfer.numerics.statistics import derived, pooled, quotient
from sizetransfer.runs.declarations import Declarations
from sizetransfer.runs.trials import Experiment
from sizetransfer.verdict import (
    CLEAN,
    CellEvidence,
    Consequence,
    DenoisingLosses,
    LargerStudent,
    LawChange,
    Reference,
    ScoreError,
    TrainingEvidence,
    Verdict,
    judge,
)

ROLLOUT, FORECAST, LINEAR, BEST = SOURCES

Place: TypeAlias = tuple[str, str, int, str, int, str, float | None]
"""Where a number stands: teacher, student, seed, measure, size, part, coordinate (none for NaN)."""


def radii(records: pd.DataFrame, experiment: Experiment) -> dict[str, int | None]:
    """Receptive radius of every student that left records, smallest first; ``None`` (global) last."""
    found: dict[str, int | None] = {}
    for student in experiment.students:
        own = [] if records.empty else list(records.loc[records["student"] == student, "radius"])
        if own:
            found[student] = None if pd.isna(own[0]) else int(own[0])
    return dict(sorted(found.items(), key=lambda item: reach(item[1])))


def reach(radius: int | None) -> float:
    """The radius as a number to order by: a global student sees farther than any other."""
    return math.inf if radius is None else float(radius)


def words_of(experiment: Experiment) -> SizeWords:
    """How the experiment's sizes and distances are called."""
    return size_words(teacher.geometry for teacher in experiment.teachers.values())


def verdicts(records: pd.DataFrame, experiment: Experiment, sums: Mapping[Place, Sums] | None = None) -> list[Verdict]:
    """Judge every student of every teacher by the experiment's thresholds.

    Args:
        records: rows of :class:`sizetransfer.contracts.records.Record`, of all seeds; may be incomplete or empty.
        experiment: names, sizes and thresholds.
        sums: numerators and denominators of the fields of a number, where they are known.

    Returns:
        One verdict for each teacher and student, teachers in the experiment's order, radii ascending; none if the
        experiment measures no error of the score, and no loss.
    """
    return [judge(cell, experiment.verdict) for cell in cells(records, experiment, sums)]


def verdicts_as_data(found: Sequence[Verdict], experiment: Experiment, records: int) -> dict[str, Any]:
    """Verdicts as JSON-compatible data: what they are, by which thresholds, and how many records they rest on."""
    return {
        "experiment": experiment.name,
        "rule": experiment.verdict.to_json(),
        "records": records,
        "verdicts": [verdict.to_json() for verdict in found],
    }


def cells(
    records: pd.DataFrame, experiment: Experiment, sums: Mapping[Place, Sums] | None = None
) -> list[CellEvidence]:
    """The evidence on every student of every teacher; arguments and order are those of :func:`verdicts`."""
    declarations = Declarations(experiment)
    if not (declarations.judged or declarations.losses):
        return []
    known = radii(records, experiment)
    students = [*known, *(name for name in experiment.students if name not in known)]
    table = _Table(experiment, known, _rows(records), sums or {})
    return [_Cell(table, teacher, student).evidence() for teacher in experiment.teachers for student in students]


def sums_at(rows: Iterable[Mapping[str, Any]], sums: Iterable[object], names: Mapping[str, Any]) -> dict[Place, Sums]:
    """The sums that are usable, by place.

    Args:
        rows: columns of records.
        sums: of each row; anything but two equally long lists of finite numbers is left out.
        names: columns to be taken instead of the rows' own.
    """
    pairs = ((place_of({**row, **names}), _usable(pair)) for row, pair in zip(rows, sums, strict=False))
    return {place: pair for place, pair in pairs if pair is not None}


def place_of(row: Mapping[str, Any]) -> Place:
    """Where a record stands."""
    coordinate = float(row["coordinate"])
    names = str(row["teacher"]), str(row["student"]), int(row["seed"]), str(row["measure"])
    return (*names, int(row["size"]), str(row["part"]), None if math.isnan(coordinate) else coordinate)


def _usable(pair: object) -> Sums | None:
    try:
        table = np.asarray(pair, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if table.ndim != 2 or len(table) != 2 or not np.isfinite(table).all():
        return None
    numerators, denominators = (tuple(row) for row in table.tolist())
    return numerators, denominators


# --- rows -------------------------------------------------------------------------------------------------------------

_Row: TypeAlias = Mapping[str, Any]
_Rows: TypeAlias = dict[tuple[str, str], dict[Place, _Row]]


def _rows(records: pd.DataFrame) -> _Rows:
    """Rows by teacher and student, and by place; one that comes twice counts once."""
    found: _Rows = {}
    for row in [] if records.empty else records.to_dict("records"):
        plain = {str(name): value for name, value in row.items()}
        place = place_of(plain)
        found.setdefault((place[0], place[1]), {}).setdefault(place, plain)
    return found


@dataclass(frozen=True, eq=False)
class _Table:
    """All rows of a run, with what they are of."""

    experiment: Experiment
    radii: Mapping[str, int | None]
    rows: _Rows
    sums: Mapping[Place, Sums]
    owners: dict[str, Mapping[float, str]] = field(default_factory=dict)

    @cached_property
    def declarations(self) -> Declarations:
        """What the experiment's measures say of their parts."""
        return Declarations(self.experiment)

    def errors(self, teacher: str, student: str) -> Iterator[tuple[Place, Part]]:
        """Places of a student's errors that are judged; of each noise level, those of the first measure that has it."""
        for place, part in self._judged(teacher, student):
            if self._owners(teacher)[_level(place)] == place[3]:
                yield place, part

    def _judged(self, teacher: str, student: str) -> Iterator[tuple[Place, Part]]:
        for place in self.rows.get((teacher, student), {}):
            part = self.declarations.part(place[3], place[5])
            if part is not None and part.judged:
                yield place, part

    def _owners(self, teacher: str) -> Mapping[float, str]:
        """The measure that counts at each noise level of a teacher: the first of the experiment that has records."""
        if teacher not in self.owners:
            places = [place for one, name in self.rows if one == teacher for place, _ in self._judged(teacher, name)]
            order = {name: index for index, name in enumerate(reversed(self.declarations.judged))}
            places.sort(key=lambda place: order[place[3]])
            self.owners[teacher] = {_level(place): place[3] for place in places}
        return self.owners[teacher]

    def number(self, place: Place, *, fields: str = "", exponent: float = 0.5) -> Quantity | None:
        """The number at a place; numbers with the same ``fields`` were measured on the same fields."""
        row = self.rows.get(place[:2], {}).get(place)
        if row is None:
            return None
        pair = self.sums.get(place)
        if pair is not None and len(pair[0]) == int(row["n"]):
            return pooled(*pair, fields=fields, exponent=_exponent(pair, float(row["value"]), exponent))
        return number_of(float(row["value"]), float(row["standard_error"]), int(row["n"]))


def _level(place: Place) -> float:
    """The noise level of an error."""
    return CLEAN if place[6] is None else place[6]


def _exponent(pair: Sums, value: float, usual: float) -> float:
    """The exponent by which sums give their number: the usual one, unless the number is that of the other.

    A third party's relative error may be a mean of ratios rather than the root of one.
    """
    below = math.fsum(pair[1])
    ratio = math.fsum(pair[0]) / below if below > 0 else math.nan
    if not ratio > 0 or math.isclose(ratio**usual, value, rel_tol=1e-9):
        return usual
    other = 1.5 - usual
    return other if math.isclose(ratio**other, value, rel_tol=1e-9) else usual


# --- one student of one teacher ---------------------------------------------------------------------------------------


class _Cell:
    """The evidence on one student of one teacher."""

    def __init__(self, table: _Table, teacher: str, student: str) -> None:
        self.table, self.teacher, self.student = table, teacher, student
        self.experiment, self.size = table.experiment, table.experiment.training.size
        self.own = table.rows.get((teacher, student), {})
        self.seeds = [seed for seed in dict.fromkeys(self.experiment.seeds) if any(p[2] == seed for p in self.own)]
        bulk = [place for place, part in table.errors(teacher, student) if part.region == "bulk"]
        self.in_bulk = {place[3] for place in bulk}
        self.region: Literal["whole", "bulk"] = "bulk" if bulk else "whole"
        self.has_bulk = all(int(self.own[place]["n"]) > 0 for place in bulk if place[4] == self.size)

    def evidence(self) -> CellEvidence:
        first = self.seeds[0] if self.seeds else None
        return CellEvidence(
            teacher=self.teacher,
            student=self.student,
            radius=self.table.radii.get(self.student),
            training_size=self.size,
            sizes=self._sizes(),
            trainings=tuple(self._training(seed) for seed in self.seeds),
            seeds=tuple(dict.fromkeys(self.experiment.seeds)),
            site_deviation=None if first is None else self._site_deviation(first),
            best_of_radius=() if first is None else tuple(self._made(first, BEST)),
            law=() if first is None else tuple(self._law(first)),
            correlation_squared=None if first is None else self._correlation(first),
            has_bulk=self.has_bulk,
            region=self.region,
            symbol=words_of(self.experiment).symbol,
        )

    # --- errors and references

    def _sizes(self) -> tuple[int, ...]:
        """Sizes that errors were asked for at, by the measures that the teacher can answer."""
        asked, losses = self.table.declarations.judged, self.table.declarations.losses
        taken = self._with_records(asked) or self._with_records(losses) or asked or losses
        return tuple(sorted({size for name in taken for size in self.experiment.evaluation.sizes_of(name)}))

    def _with_records(self, measures: Sequence[str]) -> Sequence[str]:
        return [name for name in measures if any(place[3] == name for place in self.own)]

    def _training(self, seed: int) -> TrainingEvidence:
        errors = tuple(self._errors(self.student, seed))
        references = tuple(self._references(seed, errors))
        larger, made = tuple(self._larger(seed)), tuple(self._consequences(seed))
        return TrainingEvidence(seed, errors, references, larger, made, tuple(self._losses(self.student, seed)))

    def _errors(self, student: str, seed: int) -> Iterator[ScoreError]:
        """Errors of a student, this one or another, named by their fields: those of one seed share them."""
        for place, part in self.table.errors(self.teacher, student):
            _, _, whose, measure, size, _, level = place
            if whose == seed and part.region == ("bulk" if measure in self.in_bulk else "whole"):
                number = self.table.number(place, fields=self._fields(seed, measure, size, level))
                if number is not None:
                    yield ScoreError(_level(place), size, number)

    def _losses(self, student: str, seed: int) -> Iterator[DenoisingLosses]:
        """Losses of a student, this one or another, and of filters: those of one seed, size and level are paired."""
        services = {name: self._at(seed, f"loss: {name}", 0, student=student) for name in SERVICES["loss"]}
        own = services["student"]
        rows = self.table.rows.get((self.teacher, student), {})
        for place in rows if own else ():
            if own and (place[2], place[3], place[5]) == (seed, own[3], own[5]) and place[6] is not None:
                yield DenoisingLosses(place[6], place[4], **self._losses_at(services, place))

    def _losses_at(self, services: Mapping[str, Place | None], place: Place) -> dict[str, Quantity | None]:
        size, level = place[4], place[6]
        shared = self._fields(place[2], place[3], size, level)
        places = {name: None if one is None else (*one[:4], size, one[5], level) for name, one in services.items()}
        return {name: self._number(one, fields=shared, exponent=1.0) for name, one in places.items()}

    def _fields(self, seed: int, measure: str, size: int, level: float | None) -> str:
        return f"{self.teacher}, {measure}, seed {seed}, size {size}, level {level}"

    def _at(
        self, seed: int, service: str, size: int, level: float | None = None, student: str | None = None
    ) -> Place | None:
        """Where the number of a student, of this one by default, stands that serves as ``group: name``."""
        found = self.table.declarations.serving(service)
        whose = self.student if student is None else student
        return None if found is None else (self.teacher, whose, seed, found[0], size, found[1], level)

    def _number(self, place: Place | None, **how: Any) -> Quantity | None:
        return None if place is None else self.table.number(place, **how)

    def _references(self, seed: int, errors: Sequence[ScoreError]) -> Iterator[Reference]:
        for sigma, size in dict.fromkeys((one.sigma, one.size) for one in errors):
            # All trainings are held against the same fields.
            shared = f"{self.teacher}, references, size {size}, level {sigma}"
            found = {
                part: self._number(self._at(seed, f"reference: {part}", size, sigma), fields=shared)
                for part in ("null", "linear", "best", "irreducible")
            }
            if found["null"] is None and sigma == CLEAN:
                found["null"] = self._null(seed, size)
            if any(found.values()):
                yield Reference(sigma, size, **found)

    def _null(self, seed: int, size: int) -> Quantity | None:
        """The null error of the clean score by Stein's identity, where no reference was measured."""
        shared = self._fields(seed, self.table.declarations.source("field") or "", size, None)
        services = ("field: deviation", "field: score")
        deviation, score = (self._number(self._at(seed, one, size), fields=shared) for one in services)
        if self.region != "whole" or deviation is None or score is None:
            return None
        with np.errstate(all="ignore"):
            found = derived(lambda x, s: np.sqrt(1 - 1 / np.square(x * s)), deviation, score)
        return Quantity.estimated(found.value, found.error, deviation.n) if found.known and found.value > 0 else None

    def _larger(self, seed: int) -> Iterator[LargerStudent]:
        """Students of larger radius; one that left no records may be larger, and is missing."""
        students, known = self.experiment.students, self.table.radii
        own = reach(known.get(self.student))
        for name, spec in students.items():
            alike = self.experiment.verdict.compare == "all" or spec.kind == students[self.student].kind
            if name != self.student and alike and (reach(known[name]) if name in known else math.inf) > own:
                errors, losses = tuple(self._errors(name, seed)), tuple(self._losses(name, seed))
                yield LargerStudent(name, known.get(name), errors, losses)

    # --- the law

    def _site_deviation(self, seed: int) -> float | None:
        variance = self._number(self._at(seed, "law: site variance", self.size))
        if variance is not None and variance.value > 0:
            return math.sqrt(variance.value)
        found = self._number(self._at(seed, "field: deviation", self.size))
        return found.value if found is not None and found.known else self._deviation_of_losses(seed)

    def _deviation_of_losses(self, seed: int) -> float | None:
        r"""By the loss of the best filter of radius 0, :math:`\ell_0 = c/(c + v)` for the site variance c."""
        levels = [one for one in self._losses(self.student, seed) if one.size == self.size and one.null is not None]
        first = min(levels, key=lambda one: one.sigma, default=None)
        null = math.nan if first is None or first.null is None else first.null.value
        return first.sigma * math.sqrt(null / (1 - null)) if first is not None and 0 < null < 1 else None

    def _sizes_of(self, group: str) -> list[int]:
        name = self.table.declarations.source(group)
        return sorted({place[4] for place in self.own if place[3] == name}) if name else []

    def _correlation(self, seed: int) -> Quantity | None:
        """At the largest size of exact fields that there is."""
        service = "law: squared correlation length"
        found = [self._number(self._at(seed, service, size)) for size in reversed(self._sizes_of("law"))]
        return next((one for one in found if one is not None and one.known), None)

    def _law(self, seed: int) -> Iterator[LawChange]:
        services = ("law: site variance", "law: nearest covariance", "law: zero mode")
        before = [self._number(self._at(seed, one, self.size)) for one in services]
        for size in self._sizes_of("law"):
            after = [self._number(self._at(seed, one, size)) for one in services]
            pairs = [(large, small) for large, small in zip(after, before, strict=True) if large and small]
            if size > self.size and len(pairs) == len(services):
                yield LawChange(size, *(quotient(large, small) for large, small in pairs))

    # --- what is generated

    def _consequences(self, seed: int) -> Iterator[Consequence]:
        """Of generated fields, else the student's own forecast, else that of the linear reference, size by size."""
        rollouts, own, linear = (list(self._made(seed, source)) for source in (ROLLOUT, FORECAST, LINEAR))
        found = {one.size: one for source in (linear, own, rollouts) for one in source}
        yield from found.values()

    def _made(self, seed: int, source: str) -> Iterator[Consequence]:
        """What one source says is generated, size by size; a forecast of a student begins beyond its training size."""
        for size in self._sizes_of(source):
            found = [self._ratio(seed, size, source, name) for name in STATISTICS]
            variance, nearest = found[:2]
            if variance is None or nearest is None or (size <= self.size and source == FORECAST):
                continue
            start, needed = self._levels(seed, size, source)
            yield Consequence(
                size,
                self._words(source, variance),
                variance,
                nearest,
                _present({"S(0)": found[2], "S(k_min)": found[3]}),
                sigma_start=start,
                sigma_needed=needed,
            )

    def _ratio(self, seed: int, size: int, source: str, name: str) -> Quantity | None:
        """Generated over exact; rollouts share their fields."""
        shared = f"{self.teacher}, generation, seed {seed}, size {size}" if source == ROLLOUT else ""
        place = self._at(seed, f"{source}: {name}", size)
        return self._number(place, fields=shared, exponent=1.0 if source == ROLLOUT else 0.5)

    def _words(self, source: str, variance: Quantity) -> Literal["rollout", "second-order forecast", "closed form"]:
        if source == ROLLOUT:
            return "rollout"
        return "closed form" if source == BEST and variance.n is None else "second-order forecast"

    def _levels(self, seed: int, size: int, source: str) -> tuple[float | None, float | None]:
        """Noise at the start of the reverse process, and that which the size needs; none for a closed form."""
        if source == ROLLOUT:
            start, needed = (
                self._number(self._at(seed, f"{source}: {name}", size))
                for name in ("noise at the start", "noise needed")
            )
            return None if start is None else start.value, None if needed is None else needed.value
        if source == BEST:
            return None, None
        needed = self._number(self._at(seed, "law: noise needed", size))
        known = needed is not None and needed.known
        return self.experiment.training.noise.sigma_max, needed.value if needed is not None and known else None


def _present(numbers: Mapping[str, Quantity | None]) -> dict[str, Quantity]:
    return {name: number for name, number in numbers.items() if number is not None}
