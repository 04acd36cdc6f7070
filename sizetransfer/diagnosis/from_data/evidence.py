"""What a verdict from data rests on, for the best filter of a radius: held-out errors, forecast, change of the law."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.specs import NoiseSchedule
from sizetransfer.diagnosis.from_data.fit import FittedLaw
from sizetransfer.diagnosis.from_data.laws import (
    NAMES,
    SizeLaw,
    change,
    correlation_squared,
    generated,
    numbers,
    score_errors,
)
from sizetransfer.diagnosis.from_data.ranges import LevelRange, held_out_errors
from sizetransfer.diagnosis.from_data.tables import Tables
from sizetransfer.verdict import (
    CellEvidence,
    Consequence,
    LawChange,
    Reference,
    ScoreError,
    TrainingEvidence,
    Verdict,
    VerdictSpec,
    judge,
)

INDEPENDENT = 1e-3
"""Error of the score below which a filter of one site is as good as any."""

RESOLVED = 0.01
"""Share of the null error that an error of the score counts as at least: below, none is told from zero."""


@dataclass(frozen=True)
class Changed:
    """How the law itself differs at a size from that at the training size.

    Attributes:
        size: the larger size.
        measured: by fields of both sizes; else by the fitted precision.
        ratios: by name, of the larger over the training size.
    """

    size: int
    measured: bool
    ratios: Mapping[str, Quantity]


@dataclass(frozen=True)
class Made:
    """What the best filter of a radius generates at a size, over what it should.

    Attributes:
        size: where it runs.
        radius: of the filter.
        fitted: size of the fields that it is the best filter of: that of training ("your model"), or ``size``.
        ratios: by name: site variance, nearest covariance, S(0) and S(k_min), always all four.
        sigma_start: noise level that the reverse process starts from.
    """

    size: int
    radius: int
    fitted: int
    ratios: Mapping[str, Quantity]
    sigma_start: float


@dataclass(frozen=True, eq=False)
class Known:
    """Everything that is known before a radius is judged.

    Attributes:
        name: what the data are called.
        tables: second moments by size of the data.
        ranges: covariance ranges by size of the data, by noise level.
        fits: fitted laws by size of the data.
        sizes: of the data and those asked for, ascending.
        sigma_min: where reverse diffusion stops.
        rule: thresholds of the verdict.
    """

    name: str
    tables: Mapping[int, Tables]
    ranges: Mapping[int, tuple[LevelRange, ...]]
    fits: Mapping[int, FittedLaw]
    sizes: tuple[int, ...]
    sigma_min: float
    rule: VerdictSpec

    @property
    def training(self) -> int:
        """The training size."""
        return self.sizes[0]

    @property
    def deviation(self) -> float:
        """Site deviation of the fields of training, to two digits."""
        return float(f"{math.sqrt(self.tables[self.training].variance):.2g}")

    @property
    def judged(self) -> tuple[float, ...]:
        """Noise levels whose errors are judged."""
        levels = [level.sigma for level in self.ranges[self.training]]
        return tuple(sigma for sigma in levels if sigma <= self.deviation * 1.01)

    @cached_property
    def laws(self) -> dict[int, SizeLaw]:
        """By size, where they are known: measured, or forecast from a precision that is short-ranged."""
        found = {}
        for size in self.sizes:
            fit = self.fits.get(size)
            if fit is not None:
                found[size] = SizeLaw(size, fit, measured=True)
            elif self.fits[self.training].reaches(size):
                found[size] = SizeLaw(size, self.fits[self.training], measured=False)
        return found

    @cached_property
    def changes(self) -> tuple[Changed, ...]:
        """How the law changes with the size."""
        first = self.laws[self.training]
        found = []
        for size, law in self.laws.items():
            if size > self.training:
                ratios = numbers(change, first, law, names=[_named(first), _named(law)])
                found.append(Changed(size, law.measured, dict(zip(NAMES, ratios, strict=True))))
        return tuple(found)

    @cached_property
    def correlation_squared(self) -> Quantity:
        """Squared correlation length at the largest size of the data."""
        return correlation_squared(self.tables[max(self.tables)])

    @property
    def bulk(self) -> bool:
        """Whether the correlation length leaves it open that the training box is the bulk."""
        length = math.sqrt(max(self.correlation_squared.value, 0.0))
        return not length > self.rule.correlation_share * self.training

    def judges(self, size: int) -> bool:
        """Whether a verdict takes what is said of a size.

        A forecast takes S(k) to be the same at every size, and its errors leave out that the law itself may change: in
        a box that is not the bulk it does by more than these errors, and only fields of that size tell.
        """
        return size in self.laws and (self.laws[size].measured or self.bulk)

    def made(self, radius: int, size: int, *, best: bool) -> Made:
        """What "your model", or the best filter of the size itself, generates."""
        law = self.laws[size]
        source = law if best else self.laws[self.training]
        noise = NoiseSchedule(sigma_min=self.sigma_min, sigma_max=max(law.sigma_needed, 1.01 * self.sigma_min))
        box = source.versions if best else source.box
        ratios = numbers(generated(radius, noise), box, law, names=[_named(source), _named(law)])
        fitted = size if best else self.training
        return Made(size, radius, fitted, dict(zip(NAMES, ratios, strict=True)), law.sigma_needed)


def _named(law: SizeLaw) -> str:
    return law.fit.tables.fields


@dataclass(frozen=True)
class RadiusFound:
    """What was found of one radius.

    Attributes:
        radius: receptive radius.
        verdict: of the best filter of this radius.
        made: what it generates at larger sizes, and what the best filter of that size does.
    """

    radius: int
    verdict: Verdict
    made: tuple[Made, ...]


def radius_found(radius: int, known: Known) -> RadiusFound:
    """Judge the best filter of one radius."""
    if 2 * radius + 1 > known.training:
        return RadiusFound(radius, _unjudged(radius, known), ())
    made = tuple(
        known.made(radius, size, best=best) for size in known.laws if size > known.training for best in (False, True)
    )
    verdict = judge(_cell(radius, known, [one for one in made if known.judges(one.size)]), known.rule)
    return RadiusFound(radius, with_remedies(verdict, known), made)


def _unjudged(radius: int, known: Known) -> Verdict:
    cell = dataclasses.replace(_cell(radius, known, ()), trainings=())
    text = f"The ball of radius {radius} holds the lattice of training, L = {known.training}: that settles nothing."
    remedy = f"fields of at least {2 * radius + 2} sites along each axis"
    return dataclasses.replace(judge(cell, known.rule), reason=text, what_would_decide=(remedy,))


def with_remedies(verdict: Verdict, known: Known) -> Verdict:
    """An undecided word where the law at a size is not known says why, and asks for fields of that size."""
    fit = known.fits[known.training]
    unknown = [size for size in known.sizes if size not in known.laws]
    if verdict.word != "undecided":
        return verdict
    # What is generated here is a forecast from fields: more fields make it better.
    asked = tuple(one.replace("generated fields", "fields") for one in verdict.what_would_decide)
    verdict = dataclasses.replace(verdict, what_would_decide=asked)
    supposed = [size for size in known.laws if not known.judges(size)]
    if unknown:
        said = f"{fit.silent(unknown[0])}: the spectrum at new small k is not determined by this box"
    elif supposed:
        said = f"the training box is not the bulk: its forecast of L = {supposed[0]} is no evidence"
    else:
        return verdict
    unknown += supposed
    reason = f"{verdict.reason.rstrip('.')}; {said}."
    remedies = (f"fields of L = {', '.join(map(str, unknown))}", *verdict.what_would_decide)
    return dataclasses.replace(verdict, reason=reason, what_would_decide=tuple(dict.fromkeys(remedies)))


def _cell(radius: int, known: Known, made: Sequence[Made]) -> CellEvidence:
    training = TrainingEvidence(
        0,
        tuple(_errors(radius, known)),
        tuple(_references(radius, known)),
        (),
        tuple(consequence_of(one) for one in made if one.fitted == known.training),
        fields=known.tables[known.training].count,
    )
    return CellEvidence(
        teacher=known.name,
        student=f"radius {radius}",
        radius=radius,
        training_size=known.training,
        sizes=known.sizes,
        trainings=(training,),
        site_deviation=known.deviation,
        best_of_radius=tuple(consequence_of(one) for one in made if one.fitted != known.training),
        # A forecast has the same S(0) at every size by construction: it does not say that the box is the bulk.
        law=tuple(law_of(one) for one in known.changes if one.measured),
        correlation_squared=known.correlation_squared,
        of_radius=True,
    )


def consequence_of(made: Made) -> Consequence:
    """What is generated, as a verdict takes it."""
    variance, nearest, zero, smallest = (made.ratios[name] for name in NAMES)
    long_range = {"S(0)": zero, "S(k_min)": smallest}
    return Consequence(made.size, "second-order forecast", variance, nearest, long_range, None, made.sigma_start)


def law_of(one: Changed) -> LawChange:
    """How the law changes, as a verdict takes it."""
    return LawChange(one.size, *(one.ratios[name] for name in NAMES[:3]))


def _references(radius: int, known: Known) -> Iterator[Reference]:
    """At the training size: of radius 0 and of the radius, relative to the best filter that there is."""
    for level in known.ranges[known.training]:
        linear = level.at(radius).score
        yield Reference(level.sigma, known.training, null=_null(level), linear=linear, best=Quantity(0.0))


def _errors(radius: int, known: Known) -> Iterator[ScoreError]:
    """Held out where there are fields of the larger sizes; else both sizes by the fitted precision."""
    measured = [size for size in known.sizes[1:] if size in known.tables]
    forecast = [size for size in known.sizes[1:] if size not in known.tables and size in known.laws]
    if measured or not forecast:
        yield from _held_out(radius, known, measured)
    for size in [known.training, *forecast] if forecast and not measured else forecast:
        first, law = known.laws[known.training], known.laws[size]
        found = numbers(score_errors(radius, known.judged), first.box, law, names=[_named(first), _named(law)])
        levels = {level.sigma: level for level in known.ranges[known.training]}
        for sigma, one in zip(known.judged, found, strict=True):
            yield ScoreError(sigma, size, _resolved(one, levels[sigma]))


def _held_out(radius: int, known: Known, sizes: Sequence[int]) -> Iterator[ScoreError]:
    for level in known.ranges[known.training]:
        yield ScoreError(level.sigma, known.training, _resolved(level.at(radius).score, level))
    linear = known.tables[known.training].moments().filter(radius)
    for size in sizes:
        tables, levels = known.tables[size], known.ranges[size]
        losses = held_out_errors(tables, linear, [level.sigma for level in levels])
        for level, loss in zip(levels, losses, strict=True):
            yield ScoreError(level.sigma, size, _resolved(level.relative(tables, loss), level))


def _resolved(error: Quantity, level: LevelRange) -> Quantity:
    """The error, or :data:`RESOLVED` of the null error where it is less.

    No such error is told from zero, and its ratio to another says nothing: the share of the squared score that is known
    is above 0.9999 either way.
    """
    least = RESOLVED * _null(level).value
    return error if error.value > least else Quantity(least)


def _null(level: LevelRange) -> Quantity:
    """The error of radius 0; that of sites which are independent to second order is not told from zero."""
    found = level.at(0).score
    return found if found.value > INDEPENDENT else Quantity(INDEPENDENT)


# --- the smallest box -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SmallestBox:
    """The smallest training box that would do for a size, to second order.

    Attributes:
        radius: of the student.
        size: that it shall run on.
        box: sites along each axis; none where no box up to that size does.
        law: by which part of the condition: the law itself, or the marginals that are generated.
    """

    radius: int
    size: int
    box: int | None
    limited_by: str


def smallest_box(radius: int, known: Known) -> SmallestBox | None:
    """Smallest box whose law is that of the largest size, and whose filter generates it, within the tolerance."""
    size = known.sizes[-1]
    law = known.laws.get(size)
    if law is None or 2 * radius + 1 > size:
        return None
    fit, noise = law.fit, NoiseSchedule(sigma_min=known.sigma_min, sigma_max=law.sigma_needed)
    limited = "the radius"
    for box in _boxes(radius, size, fit.period):
        moments = fit.precision.moments(box)
        off = [abs(one - 1) for one in change(moments, law.versions[0])[:3]]
        made = [abs(one - 1) for one in generated(radius, noise)(moments, law.versions[0])[:2]]
        if max(off) <= known.rule.equivalence and max(made) <= known.rule.equivalence:
            return SmallestBox(radius, size, box, limited)
        limited = "the law itself" if max(off) > known.rule.equivalence else "what is generated"
    return SmallestBox(radius, size, None, limited)


def _boxes(radius: int, size: int, period: int) -> list[int]:
    """Boxes that are tried, in steps of about a fifth."""
    found, box = [], 2 * radius + 2
    while box <= size:
        found.append(box - box % period)
        box = max(box + 2, math.ceil(1.2 * box))
    return sorted(set(found) - {0})
