r"""What others than the student reach: linear references, the law's own statistics, and what a radius generates.

Every number is of the teacher and the student's radius alone; the student's weights take no part, and fields are named
by the specification's own seed, so that all trainings are held against the same numbers. At each noise level
(:mod:`sizetransfer.scores.references`), relative errors of

- ``null``: the best filter of radius 0; ``linear``: of the student's radius; ``best``: the least of any radius up to
  the whole lattice: cross-fitted, with the sums of every field, or exact for Gaussian fields. In open boxes, where a
  ball of many components takes many fields, there is no ``linear`` of a radius with more than ``LARGEST_BALL``, and no
  ``best`` where no ball larger than the student's was measured: what is not there is missing, not small;
- ``irreducible``: the best score of the radius, linear or not, where the teacher knows it.

Of the law: site variance, nearest-neighbour covariance, :math:`S(0)`, and the squared correlation length, on a torus

.. math:: \xi^2 = \frac{S(0)/S(k_{\min}) - 1}{4\sin^2(\pi/L)},

elsewhere :math:`\sum_r r^2C(r) / (2d\sum_r C(r))` over pairs of the bulk at most a quarter of the box apart. Of crops
these are all there is: the score of a field that goes on beyond the sides is not known there.

On tori whose sites are alike or alternate, what a linear score generates
(:mod:`sizetransfer.scores.references.consequence`), in closed form for Gaussian fields, else to second order: by the
best filter of the radius *of this size*, from the noise that this size needs, :math:`\sigma_{\max}^2 = 10 \max_k S(k)`;
and as a forecast by the filter fitted at the training size and run here, from exact noisy fields at the training's
largest noise.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Graph, Lattice
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import (
    HasCovariance,
    HasLocalPosterior,
    HasPosterior,
    HasReach,
    HasScore,
    HasSmoothedScore,
    Sample,
    Teacher,
    draw_fields,
)
from sizetransfer.contracts.parts import Part, generated
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec, NoiseSchedule, TrainingSpec
from sizetransfer.contracts.student import Student
from sizetransfer.measures.law_statistics import law_statistics
from sizetransfer.measures.periodic_law import EVERYTHING, LawQuestion, fingerprint, periodic_moments
from sizetransfer.measures.smoothed_score import NoiseLevel
from sizetransfer.numerics.statistics import jackknifed, root_ratio
from sizetransfer.scores.references import Sight, exact_moments, linear_references
from sizetransfer.scores.references.balls import steps_of
from sizetransfer.scores.references.consequence import (
    COARSE_STEP,
    STEP,
    gain,
    generated_spectrum,
    marginals,
    ratios,
    spectrum,
)
from sizetransfer.scores.references.moments import GraphMoments, TorusMoments
from sizetransfer.scores.response import reference_sites

GENERATED = ("site_variance", "nearest", "zero_mode", "smallest_wave")
"""Statistics of generated over exact fields, in the order of :func:`.consequence.marginals`."""

ENOUGH = 10.0
"""The largest noise variance that a size needs, in units of the law's largest eigenvalue."""

WORSE = 0.1
"""An error, in quadrature, that a filter of a larger ball may have beside a smaller one's and still tell something."""

LARGEST_BALL = 1024
"""Components of the largest ball of a radius that no student has, and of any in an open box."""

LARGEST_GRAPH, WHOLE_GRAPH = 1024, 192
"""Sites of the largest graphs that get references, and the reference of the whole graph."""

POSTERIOR_FIELDS, POSTERIOR_SITES = 32, 4
"""Fields and sites that an irreducible error is estimated from."""


def _reference(name: str, title: str) -> Part:
    return Part("evidence", f"error of {title}", "noise", "relative", lower_is_better=True, serves=f"reference: {name}")


def _of_the_law_part(name: str, unit: str) -> Part:
    return Part("evidence", name, unit=unit, serves=f"law: {name}")


def _named(prefix: str, parts: Mapping[str, Part]) -> dict[str, Part]:
    return {f"{prefix}_{name}": part for name, part in zip(GENERATED, parts.values(), strict=True)}


class LinearReferencesSpec(MeasureSpec):
    """What a filter of radius 0, of the student's radius and of the whole lattice reach, and what they generate.

    Parts, by noise level (zero: the clean score): ``null``, ``linear``, ``best``, ``irreducible``, as far as they are
    known. Of the law:
    ``site_variance``, ``nearest_covariance``, ``zero_mode``, ``correlation_length_squared``, ``sigma_needed``.
    Generated over exact, on tori whose sites are alike or alternate: ``best_of_radius_O`` by the best filter of the
    radius of this size, ``forecast_O`` by that of the training size, for O in ``site_variance, nearest, zero_mode,
    smallest_wave``.
    Nothing depends on the student but its radius and what it looks at; the numbers of Gaussian fields are exact.
    """

    kind: Literal["linear-references"] = "linear-references"
    takes_crops: ClassVar[bool] = True
    parts: ClassVar[Mapping[str, Part]] = {
        "null": _reference("null", "the best filter of radius 0"),
        "linear": _reference("linear", "the best filter of the student's radius"),
        "best": _reference("best", "the best filter of any radius"),
        "irreducible": _reference("irreducible", "the best score of the student's radius"),
        "site_variance": _of_the_law_part("site variance", "field²"),
        "nearest_covariance": _of_the_law_part("nearest covariance", "field²"),
        "zero_mode": _of_the_law_part("zero mode", "field²"),
        "correlation_length_squared": _of_the_law_part("squared correlation length", "lattice steps²"),
        "sigma_needed": _of_the_law_part("noise needed", "field"),
        **_named("best_of_radius", generated("best of radius", "what the best filter of the radius generates")),
        **_named("forecast", generated("linear forecast", "what the filter of the training size generates")),
    }
    sigmas: tuple[NoiseLevel, ...] = Field((), description="noise levels of smoothed scores, beside the clean score")
    radii: tuple[int, ...] = Field((4, 8, 12), description="radii that the best reference is taken from")
    fields: int = Field(512, ge=8, description="independent fields at each size")
    folds: int = Field(4, ge=2, description="parts of the fields: a filter is judged on one, fitted to the others")
    conditions: tuple[NonNegativeInt, ...] | None = Field(
        None, description="channels of the condition that tell filters apart; none: all that there are"
    )
    margin: int | None = Field(None, ge=0, description="of the bulk of an open box; none: 4, at most a quarter")
    seed: int = Field(0, ge=0, description="names the fields, which all trainings share")
    fitted: int | None = Field(None, ge=2, description="size at which the forecast is fitted; none: training's")
    noise: NoiseSchedule | None = Field(None, description="noise levels that the forecast runs over; none: training's")

    def for_training(self, training: TrainingSpec) -> MeasureSpec:
        """With the size and the noise levels of the training."""
        return self.model_copy(
            update={"fitted": self.fitted or training.size, "noise": self.noise or training.noise},
        )

    def check(self, teacher: Teacher, size: int) -> None:
        """Refuse sizes beyond the teacher's oracles, and too few held-out fields of the size of training."""
        self._check_fitted(teacher, size)
        if self.sigmas and isinstance(teacher, HasReach):
            teacher.check_reach(size, min(64, self.fields))

    def _check_fitted(self, teacher: Teacher, size: int) -> None:
        """The forecast takes fields of the size of training, too."""
        fitted, held_out = self.fitted, teacher.split("held out")
        there = None if fitted is None or fitted >= size else held_out.independent_fields(fitted)
        if there is not None and there < self.fields and all(teacher.field.closed_axes):
            raise OracleError(
                "The forecast of the linear reference takes fields of the size of training.",
                where=f"linear-references, size {fitted}",
                expected=f"at most {there} held-out fields of this size",
                got=str(self.fields),
                fix="lower the measure's fields, hold out a larger share, or give more data",
            )

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`."""
        radii = self._radii(teacher, student, size)
        every = True if self.conditions is None else self.conditions
        question = _Question(self, fingerprint(teacher, size), size, radii, Sight(condition=every), teacher)
        sight = Sight(condition="condition" not in student.ignores and every, mask="mask" not in student.ignores)
        yield from _references(question, student.radius, sight)
        yield from _irreducible(self, teacher, student.radius, size)
        yield from _law(question)
        yield from _generated(replace(question, sight=sight), student.radius)

    def _radii(self, teacher: Teacher, student: Student, size: int) -> tuple[int, ...]:
        """Radii of the references: zero, the student's, and those of the specification that are not too large."""
        domain, own = teacher.domain(size), [] if student.radius is None else [student.radius]
        affordable = [radius for radius in own if _solvable(teacher, domain, radius)]
        kept = [radius for radius in self.radii if isinstance(domain, Graph) or _fits(teacher, domain, radius)]
        return tuple(sorted({0, *affordable, *kept}))


def _solvable(teacher: Teacher, domain: Domain, radius: int) -> bool:
    """Whether the filter of a student's own radius can be estimated: in an open box its ball may be too large."""
    closed = isinstance(domain, Graph) or all(cast(Lattice, domain).closed_axes)
    return closed or _fits(teacher, domain, radius)


def _fits(teacher: Teacher, domain: object, radius: int) -> bool:
    lattice = cast(Lattice, domain)
    wraps = any(closed and 2 * radius + 1 > n for closed, n in zip(lattice.closed_axes, lattice.size, strict=True))
    return not wraps and len(steps_of(lattice, radius)) * teacher.field.channels <= LARGEST_BALL


@dataclass(frozen=True)
class _Question:
    """What the numbers of a teacher depend on, and who answers; equal questions are answered once in a process."""

    spec: LinearReferencesSpec
    fingerprint: str
    size: int
    radii: tuple[int, ...]
    sight: Sight
    teacher: Teacher = field(compare=False)

    @property
    def torus(self) -> bool:
        """Whether the fields live on a torus."""
        return self.law.torus

    @property
    def exact(self) -> bool:
        """Whether second moments are known exactly, and decide everything."""
        graph = self.teacher.field.geometry == "graph"
        return isinstance(self.teacher, HasCovariance) and (self.torus or graph)

    @property
    def levels(self) -> tuple[float, ...]:
        """Noise levels at which the teacher knows its score: none of a crop, which does not hold all that it needs."""
        if self.teacher.field.crop:
            return ()
        clean = [0.0] if isinstance(self.teacher, HasScore) else []
        return (*clean, *(self.spec.sigmas if isinstance(self.teacher, HasSmoothedScore) else ()))

    @property
    def law(self) -> LawQuestion:
        """What the law depends on."""
        spec = self.spec
        return LawQuestion(self.fingerprint, self.size, spec.fields, spec.folds, spec.seed, self.sight, self.teacher)

    def at(self, size: int) -> _Question:
        """The same at another size."""
        return self if size == self.size else replace(self, size=size, fingerprint=fingerprint(self.teacher, size))

    def draw(self) -> Sample:
        """The fields."""
        return self.law.draw()


# --- errors of references ---------------------------------------------------------------------------------------------


def _references(question: _Question, radius: int | None, sight: Sight) -> Iterator[Measurement]:
    domain = question.teacher.domain(question.size)
    if not question.levels or (isinstance(domain, Graph) and domain.sites > LARGEST_GRAPH):
        return
    table = _errors(replace(question, sight=sight))
    widest = table if sight == question.sight else _errors(question)
    for level in question.levels:
        own = {one: number for (sigma, one), number in table.items() if sigma == level}
        every = {one: number for (sigma, one), number in widest.items() if sigma == level}
        yield replace(own[0], part="null", coordinate=level)
        # Balls nest: a radius is worth the least error of any radius up to it.
        within = [number for one, number in own.items() if radius is None or (one is not None and one <= radius)]
        if radius is None or radius in own:
            yield replace(min(within, key=_value), part="linear", coordinate=level)
        least = min(within, key=_value)
        larger = [number for one, number in every.items() if radius is not None and (one is None or one > radius)]
        if radius is None or any(_tells(number, least) for number in larger):
            yield replace(min([*within, *every.values()], key=_value), part="best", coordinate=level)
        if question.exact:  # of Gaussian fields no score of the radius is better than the linear one
            yield replace(min(within, key=_value), part="irreducible", coordinate=level)


def _tells(larger: Measurement, least: Measurement) -> bool:
    """Whether a larger ball's filter says what the ball is worth: far behind a smaller one's, it had too few fields."""
    return larger.value**2 <= least.value**2 + WORSE**2


def _value(number: Measurement) -> float:
    return number.value


_Table = dict[tuple[float, int | None], Measurement]


@functools.lru_cache(maxsize=64)
def _errors(question: _Question) -> _Table:
    """Errors by noise level and radius; none is the whole lattice."""
    return _exact_errors(question) if question.exact else _estimated_errors(question)


def _estimated_errors(question: _Question) -> _Table:
    spec, domain = question.spec, question.teacher.domain(question.size)
    found = linear_references(
        question.teacher,
        question.size,
        radii=question.radii,
        whole=not isinstance(domain, Graph) or domain.sites <= WHOLE_GRAPH,
        sigmas=question.levels,
        fields=spec.fields,
        folds=spec.folds,
        seed=spec.seed,
        sight=question.sight,
        margin=spec.margin,
    )
    return {(one.sigma, one.radius): one.error for one in found if one.against == "score"}


def _exact_errors(question: _Question) -> _Table:
    """By ``1 - [(C + v)_BB^-1]_ii / [(C + v)^-1]_ii``, means over sites."""
    moments = exact_moments(question.teacher, question.size)
    filters = {radius: moments.filter(radius) for radius in question.radii}
    table: _Table = {}
    for level in question.levels:
        whole = _whole_power(moments, level**2)
        for radius, best in filters.items():
            share = 1 - float(best.power(level**2).mean()) / whole
            # A difference of nearly equal numbers: where the ball holds all that matters, rounding is left.
            rounding = 256 * torch.finfo(torch.float64).eps
            table[level, radius] = _exact("error", math.sqrt(share) if share > rounding else 0.0)
        table[level, None] = _exact("error", 0.0)
    return table


def _whole_power(moments: object, v: float) -> float:
    if isinstance(moments, GraphMoments):
        covariance = moments.covariance.flatten(2).flatten(0, 1)
        return float(torch.linalg.inv(covariance + v * torch.eye(len(covariance)).to(covariance)).diagonal().mean())
    return float((1 / (torch.linalg.eigvalsh(spectrum(cast(TorusMoments, moments))) + v)).mean())


def _exact(part: str, value: float, coordinate: float = math.nan) -> Measurement:
    """A number that no draw went into."""
    return Measurement.of(part, Quantity(value), coordinate)


def _irreducible(spec: LinearReferencesSpec, teacher: Teacher, radius: int | None, size: int) -> Iterator[Measurement]:
    """The error of the best score of the radius, at the training size, where the teacher knows posteriors of balls."""
    known = isinstance(teacher, HasPosterior) and isinstance(teacher, HasLocalPosterior)
    if isinstance(teacher, HasCovariance) or not known or radius is None or size != spec.fitted:
        return
    for level in spec.sigmas:
        yield _posterior_error(spec, teacher, radius, size, level)


def _posterior_error(spec: LinearReferencesSpec, teacher: Teacher, radius: int, size: int, level: float) -> Measurement:
    generator = stream(spec.seed, "linear references", "irreducible", size, repr(level))
    sample = draw_fields(teacher, min(spec.fields, POSTERIOR_FIELDS), size, generator=generator)
    levels = sample.x.new_full((len(sample.x),), level)
    x, _ = perturb(sample.x, levels, generator=generator)
    domain = sample.context.domain
    mean = cast(HasPosterior, teacher).posterior_mean(x, levels, sample.context)
    gaps, powers = [], []
    for site in reference_sites(domain, min(POSTERIOR_SITES, domain.sites)):
        here: tuple[Any, ...] = (..., *site)
        exact = mean[here]
        powers.append(exact - x[here])
        whole = radius >= int(domain.distance(site).max())
        local = cast(HasLocalPosterior, teacher).local_posterior_mean
        gaps.append(0 * exact if whole else local(x, levels, sample.context, site, radius) - exact)
    squares = [torch.stack(values).double().square().mean((0, 2)) for values in (gaps, powers)]
    return Measurement.of("irreducible", root_ratio(squares[0], squares[1]), level)


# --- the law ----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _law_numbers(question: _Question) -> tuple[Measurement, ...]:
    if not (question.exact and question.torus):
        margin = question.spec.margin
        domain = question.teacher.domain(question.size)
        if isinstance(domain, Graph) and domain.sites > LARGEST_GRAPH:
            return ()
        return law_statistics(question.draw(), dimension=question.teacher.field.dim, margin=margin)
    moments = _moments(question)[0]
    variance, nearest, zero, smallest = marginals(spectrum(moments), moments.cells)
    length = (zero / smallest - 1) / (4 * math.sin(math.pi / min(moments.cells.shape)) ** 2)
    values = {"site_variance": variance, "nearest_covariance": nearest, "zero_mode": zero}
    return tuple(_exact(part, value) for part, value in {**values, "correlation_length_squared": length}.items())


def _law(question: _Question) -> Iterator[Measurement]:
    yield from _law_numbers(_of_the_law(question))
    if _periodic(question):
        yield Measurement.of(
            "sigma_needed", _over_folds([_needed(law) for law in _laws(_of_the_law(question))], question)
        )


def _of_the_law(question: _Question) -> _Question:
    """The same question without what the law does not depend on."""
    return replace(question, radii=(0,), sight=EVERYTHING)


def _needed(law: Tensor) -> float:
    return math.sqrt(ENOUGH * float(torch.linalg.eigvalsh(law).max()))


def _draws(question: _Question) -> int:
    return 1 if question.exact else question.spec.folds


# --- what is generated ------------------------------------------------------------------------------------------------


def _moments(question: _Question) -> tuple[TorusMoments, ...]:
    return periodic_moments(question.law) if question.torus else ()


def _periodic(question: _Question) -> bool:
    return bool(_moments(_of_the_law(question)))


@functools.lru_cache(maxsize=16)
def _laws(question: _Question) -> tuple[Tensor, ...]:
    return tuple(spectrum(one) for one in _moments(question))


def _generated(question: _Question, radius: int | None) -> Iterator[Measurement]:
    spec, law, sight = question.spec, _of_the_law(question), question.sight
    if spec.noise is None or spec.fitted is None or not _periodic(question):
        return
    if not _periodic(replace(question, radii=(0,))) or not _periodic(question.at(spec.fitted)):
        return
    if radius is not None:
        needed = max(_needed(one) for one in _laws(law))
        wide = NoiseSchedule(sigma_min=spec.noise.sigma_min, sigma_max=max(needed, spec.noise.sigma_max))
        yield from _ratios("best_of_radius", question, _ratio_rows(law, sight, law.size, radius, wide))
    if question.size > spec.fitted and _fits_fitted(question, radius):
        yield from _ratios("forecast", question, _ratio_rows(law, sight, spec.fitted, radius, spec.noise))


def _fits_fitted(question: _Question, radius: int | None) -> bool:
    """Whether the kernel of the training size fits on the larger lattice, which it does unless it wraps there."""
    size = min(question.teacher.domain(question.spec.fitted or question.size).shape)
    return radius is None or 2 * radius + 1 <= size


@functools.lru_cache(maxsize=64)
def _ratio_rows(
    law: _Question, sight: Sight, fitted: int, radius: int | None, noise: NoiseSchedule
) -> tuple[tuple[float, ...], ...]:
    """Generated over exact statistics, for each of the estimates of the moments."""
    rows, seen, step = [], replace(law.at(fitted), sight=sight), STEP if law.exact else COARSE_STEP
    for exact, here, there in zip(_laws(law), _moments(law), _moments(seen), strict=True):
        cells, local = here.cells, there.filter(radius)
        end = generated_spectrum(lambda v, local=local, cells=cells: gain(local, v, cells), exact, noise, step=step)  # type: ignore[misc]
        rows.append(ratios(marginals(end, cells), marginals(exact, cells)))
    return tuple(rows)


def _ratios(prefix: str, question: _Question, rows: Sequence[Sequence[float]]) -> Iterator[Measurement]:
    for name, values in zip(GENERATED, zip(*rows, strict=True), strict=True):
        yield Measurement.of(f"{prefix}_{name}", _over_folds(values, question))


def _over_folds(values: Sequence[float], question: _Question) -> Quantity:
    """Mean, and standard error by the jackknife that leaves out a part of the fields; exact where there is one."""
    table: Float[Tensor, "folds"] = torch.tensor(values, dtype=torch.float64)
    if len(table) == 1:
        return Quantity(float(table))
    return jackknifed(torch.cat([table.mean().reshape(1), table]), n=_draws(question))
