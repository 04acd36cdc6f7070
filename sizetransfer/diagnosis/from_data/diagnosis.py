"""From stored fields to a verdict, cheapest step first; each step says what it found, from how many, at what cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sizetransfer.contracts.arithmetic import arithmetic
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.stored import Boundary, StoredFields
from sizetransfer.diagnosis.from_data.classes import SiteClassesFound, find_classes
from sizetransfer.diagnosis.from_data.evidence import (
    RESOLVED,
    Changed,
    Known,
    RadiusFound,
    SmallestBox,
    radius_found,
    smallest_box,
)
from sizetransfer.diagnosis.from_data.fit import FittedLaw, Gain, fitted_law
from sizetransfer.diagnosis.from_data.laws import NAMES
from sizetransfer.diagnosis.from_data.question import RADII, DataQuestion
from sizetransfer.diagnosis.from_data.ranges import LARGEST_RADIUS, LevelRange, covariance_ranges, radii_of
from sizetransfer.diagnosis.from_data.steps import Step, StepLog
from sizetransfer.diagnosis.from_data.tables import Tables, require_fields, tables_of
from sizetransfer.numerics.averages import number
from sizetransfer.verdict import Verdict, describe

if TYPE_CHECKING:
    from sizetransfer.contracts.student import Student
    from sizetransfer.diagnosis.from_data.trained import NestedLoss, ResponseTail, SizeCheck


@dataclass(frozen=True)
class SizeFound:
    """What is known of one size.

    Attributes:
        size: sites along each axis.
        fields: how many there are; none: the law is forecast.
        sigma_needed: where the reverse process has to start; none where the law is not known.
        law: site variance, nearest covariance, S(0) and S(k_min) of the fitted precision on this torus; none where it
            says nothing of this size.
    """

    size: int
    fields: int | None
    sigma_needed: float | None
    law: Mapping[str, Quantity] | None = None


@dataclass(frozen=True)
class FittedFound:
    """The fitted precision of the training size.

    Attributes:
        range: of the couplings, in cells.
        period: sites of a cell along an axis.
        long_ranged: whether the likelihood still rises at the largest range that the box allows: the sign of a power
            law.
        capped: whether it still rises where the search ended by work: then the range is open.
        gains: by range, what it adds to the held-out log-likelihood of a field, with its error.
    """

    range: int
    period: int
    long_ranged: bool
    capped: bool
    gains: tuple[tuple[int, Quantity], ...]


@dataclass(frozen=True, eq=False)
class DataDiagnosis:
    """All that was found from stored fields.

    Attributes:
        data: what the data are called.
        boundary: what is beyond their last sites.
        dim: axes of the fields.
        channels: numbers of a site.
        question: what was asked.
        classes: sublattices.
        deviation: standard deviation of a site, to two digits.
        correlation_squared: squared correlation length, at the largest size of the data.
        training: the training size.
        sizes: all sizes.
        ranges: covariance ranges by noise level, at the training size.
        fitted: the precision.
        changes: how the law changes with the size.
        radii: verdict and consequence by radius.
        boxes: smallest training box that would do, by radius.
        steps: what it took.
        problems: what was asked for and could not be given.
        notes: what a reader should know.
        nested: losses of networks, where training was asked for.
        checks: what the largest network generates, likewise.
        tails: its response, likewise.
    """

    data: str
    boundary: Boundary
    dim: int
    channels: int
    question: DataQuestion
    classes: SiteClassesFound
    deviation: float
    correlation_squared: Quantity
    training: int
    sizes: tuple[SizeFound, ...]
    ranges: tuple[LevelRange, ...]
    fitted: FittedFound
    changes: tuple[Changed, ...]
    radii: tuple[RadiusFound, ...]
    boxes: tuple[SmallestBox, ...]
    steps: tuple[Step, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    nested: tuple[NestedLoss, ...] = ()
    checks: tuple[SizeCheck, ...] = ()
    tails: tuple[ResponseTail, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of the best filter of every radius."""
        return tuple(one.verdict for one in self.radii)

    @property
    def rule(self) -> str:
        """The rule of the verdict in words."""
        return describe(self.question.verdict)

    @property
    def seconds(self) -> float:
        """Processor time of all steps."""
        return math.fsum(step.seconds for step in self.steps)

    def text(self, *, tables: bool = False, explain: bool = False) -> str:
        """What the console shows.

        Args:
            tables: also the errors of every radius and the range of the precision.
            explain: also the rule.
        """
        from sizetransfer.diagnosis.from_data.text import text_of

        return text_of(self, tables=tables, explain=explain)

    def __str__(self) -> str:
        return self.text()

    def to_json(self) -> dict[str, Any]:
        """The same as data for JSON; every number with its standard error and count, and null for one not finite."""
        from sizetransfer.diagnosis.from_data.text import json_of

        return json_of(self)


def diagnose_fields(stored: StoredFields, question: DataQuestion | None = None, *, name: str = "data") -> DataDiagnosis:
    """Judge from stored fields whether local students, trained at their smallest size, work on larger ones.

    Args:
        stored: independent fields, at one size or several.
        question: radii, sizes, noise levels.
        name: what the data are called.

    Raises:
        SpecError: too few fields, fields that are not finite or do not vary, sizes that contradict the data.
    """
    return diagnosed(stored, question or DataQuestion(), name)[0]


def diagnosed(stored: StoredFields, question: DataQuestion, name: str) -> tuple[DataDiagnosis, Known]:
    """The same, with everything that any radius is judged by."""
    with arithmetic("float64", "cpu", generators=False):
        steps = _Diagnosis(stored, question, name)
        return steps.run(), steps.known


class _Diagnosis:
    """The steps in their order.

    Args:
        stored, question, name: as for :func:`diagnose_fields`.
    """

    def __init__(self, stored: StoredFields, question: DataQuestion, name: str) -> None:
        self.stored, self.question, self.name = stored, question, name
        self.training = stored.sizes()[0]
        self.log = StepLog()
        self.tables: dict[int, Tables] = {}
        self.fits: dict[int, FittedLaw] = {}
        self.ranges: dict[int, tuple[LevelRange, ...]] = {}
        self.known: Known

    def run(self) -> DataDiagnosis:
        """All of them."""
        stored, question = self.stored, self.question
        question.sizes_for(stored.sizes(), 1)
        require_fields(stored, self.training)
        with self.log.step("classes of sites", self.stored.count(self.training)):
            classes = find_classes(stored, self.training)
        period = 2 if classes.patterns else 1
        sizes = question.sizes_for(stored.sizes(), period)
        for size in stored.sizes():
            with self.log.step(
                f"covariance range at L = {size}", self.stored.count(size), needed=size == self.training
            ):
                self._measure(size, sizes, classes)
        present = tuple(size for size in sizes if size in self.tables or size not in stored.sizes())
        known = self.known = self._known(present)
        with self.log.step("forecast and verdict", self.stored.count(self.training)):
            found = tuple(radius_found(radius, known) for radius in self._radii())
            boxes = tuple(box for r in self._radii() if (box := smallest_box(r, known)) is not None)
        self._check_error(found)
        diagnosis = self._result(known, classes, found, boxes)
        return diagnosis if question.train is None else self._trained(diagnosis, known)

    def _trained(self, diagnosis: DataDiagnosis, known: Known) -> DataDiagnosis:
        """Nested radii, then sizes, then the response: a step that fails leaves what came before."""
        from sizetransfer.diagnosis.from_data import trained

        steps, seed = self.question.train or 0, self.question.seed
        students: dict[int, Student] = {}
        nested: list[trained.NestedLoss] = []
        checks: list[trained.SizeCheck] = []
        tails: list[trained.ResponseTail] = []
        with self.log.step("nested radii", self.stored.count(self.training), needed=False):
            parts = trained.split(self.stored, self.training)
            for radius in trained.trained_radii(self._radii(), self.training):
                students[radius] = trained.network(self.stored, known, parts, radius, steps, seed)
            nested += trained.nested_losses(students, known, parts, seed)
        if students:
            largest = students[max(students)]
            with (
                self.log.step("generation by size", self.stored.count(self.training), needed=False),
                arithmetic("float32"),
            ):
                checks += (trained.size_check(largest, known, size, seed) for size in known.laws)
            with self.log.step("response", self.stored.count(self.training), needed=False):
                sigma = float(f"{known.deviation / 2:.2g}")
                tails.append(trained.response_tail(largest, known, parts.evaluation, sigma, seed))
        return dataclasses.replace(
            diagnosis,
            nested=tuple(nested),
            checks=tuple(checks),
            tails=tuple(tails),
            steps=tuple(self.log.steps),
            problems=tuple(self.log.problems),
        )

    def _measure(self, size: int, sizes: Sequence[int], classes: SiteClassesFound) -> None:
        reach = max(LARGEST_RADIUS, *self._radii())
        tables = tables_of(self.stored, size, classes.labels if classes.patterns else None, reach=reach)
        first = self.tables.get(self.training, tables)
        levels = self.question.levels(float(f"{math.sqrt(first.variance):.2g}"))
        fit = fitted_law(tables, sizes)
        radii = self._radii()
        self.ranges[size] = covariance_ranges(tables, levels, radii_of(tables, radii), fit, asked=(0, *radii))
        self.tables[size], self.fits[size] = tables, fit

    def _radii(self) -> tuple[int, ...]:
        if self.question.radii is not None:
            return self.question.radii
        return tuple(radius for radius in RADII if 2 * radius + 1 <= self.training) or (1,)

    def _known(self, sizes: tuple[int, ...]) -> Known:
        deviation = math.sqrt(self.tables[self.training].variance)
        sigma_min = self.question.sigma_min or 0.05 * deviation
        return Known(self.name, self.tables, self.ranges, self.fits, sizes, sigma_min, self.question.verdict)

    def _check_error(self, found: Sequence[RadiusFound]) -> None:
        """Say how many fields the error that is asked for takes."""
        asked, count = self.question.error, self.stored.count(self.training)
        judged = {one.radius for one in found}
        errors = [one.score.error for level in self.ranges[self.training] for one in level.errors]
        worst = max((error for error in errors if math.isfinite(error)), default=math.nan)
        if asked is None or not judged or not worst > asked:
            return
        needed = math.ceil(count * (worst / asked) ** 2)
        error = SpecError(
            "There are too few fields for the error that is asked for.",
            where=f"data, size {self.training}",
            expected=f"about {needed} independent fields for a standard error of {asked:g}",
            got=f"{count} fields, and a standard error of {worst:.2g}",
            fix="add fields, or ask for a larger error",
        )
        self.log.problems.append(str(error))

    def _result(
        self, known: Known, classes: SiteClassesFound, found: tuple[RadiusFound, ...], boxes: tuple[SmallestBox, ...]
    ) -> DataDiagnosis:
        fit = self.fits[self.training]
        gains = tuple(
            (gain.range, Quantity.estimated(gain.value, gain.standard_error, fit.tables.count)) for gain in fit.gains
        )
        return DataDiagnosis(
            data=self.name,
            boundary=self.stored.boundary,
            dim=self.stored.dim,
            channels=self.stored.channels,
            question=self.question,
            classes=classes,
            deviation=known.deviation,
            correlation_squared=known.correlation_squared,
            training=self.training,
            sizes=tuple(self._size(size, known) for size in known.sizes),
            ranges=self.ranges[self.training],
            fitted=FittedFound(fit.range, fit.period, fit.long_ranged, fit.rising and fit.capped, gains),
            changes=known.changes,
            radii=found,
            boxes=boxes,
            steps=tuple(self.log.steps),
            problems=tuple(self.log.problems),
            notes=(*self.stored.read_as, *_notes(known, classes, fit)),
        )

    def _size(self, size: int, known: Known) -> SizeFound:
        count = self.tables[size].count if size in self.tables else None
        law = known.laws.get(size)
        if law is None:
            return SizeFound(size, count, None)
        return SizeFound(size, count, law.sigma_needed, dict(zip(NAMES, law.marginals, strict=True)))


def _notes(known: Known, classes: SiteClassesFound, fit: FittedLaw) -> Iterator[str]:
    """What a reader should know of how the numbers came about."""
    yield "Ranges and forecasts are of second order: a short range here says nothing of what is not Gaussian."
    least = f"{100 * RESOLVED:g} %"
    yield f"Errors of the score below {least} of that of no score are not told from zero, and count as that much."
    yield _tail(fit)
    if fit.tables.removed:
        yield "The mean was taken off every field: k = 0 is left out of the fit, and S(0) is an extrapolation."
    if not classes.tested:
        yield "A torus of odd size has no sublattices of period two: none were looked for."
    if not fit.tables.torus:
        yield "The law is that of the bulk; forecasts are for tori, on which a model runs with circular padding."
    length = math.sqrt(max(known.correlation_squared.value, 0.0))
    if not known.bulk:
        share = f"{known.rule.correlation_share:g} of the box, {known.rule.correlation_share * known.training:g}"
        yield (
            f"The correlation length, {length:.3g}, exceeds {share}: the training box is not the bulk. A forecast "
            "takes S(k) to be the same at every size, and its errors are those of the fit alone: near a critical point "
            "that is not Gaussian the law itself changes, by more than these errors. No verdict rests on it."
        )


def _tail(fit: FittedLaw) -> str:
    """Whether the precision ends, how surely, and what would decide it."""
    if fit.long_ranged:
        return (
            f"The likelihood still rises in the longer half of the ranges that the box allows, up to {fit.longest}: "
            "a power law, or couplings that reach further. "
            "The spectrum at new small k is not determined by this box: nothing is forecast at sizes without fields."
        )
    if fit.rising:
        return (
            f"The likelihood still rises at {fit.longest}, where the search for the range of the precision ended: by "
            "work, not by the data. Whether the precision is short- or long-ranged is open, so that nothing is "
            "forecast; fields of the larger size would decide it."
        )
    last = fit.gains[-1] if fit.gains else None
    seen = "" if last is None else f"; range {last.range} changes the log-likelihood of a field by {_gain(last)}"
    return (
        f"The precision was found to end at range {fit.range}{seen}. A weak tail hides in few fields: "
        "one that falls as a power law is shown by some hundred, not by tens."
    )


def _gain(gain: Gain) -> str:
    error = gain.standard_error
    return number(gain.value, error) if math.isfinite(error) else f"{gain.value:.2g}"
