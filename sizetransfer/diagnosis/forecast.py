"""The prediction for a teacher and a student: what is found at each size and noise level, and what it leads to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, cast

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import (
    HasCovariance,
    HasLocalPosterior,
    HasScore,
    HasSmoothedScore,
    Teacher,
    in_arithmetic_of_teacher,
)
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.student import Student
from sizetransfer.diagnosis.evidence import Candidate, Irreducible, Surroundings, verdict_of
from sizetransfer.diagnosis.irreducible import BestScores, ErrorSource, EstimatedErrors, error_source
from sizetransfer.diagnosis.law import GraphLaw
from sizetransfer.diagnosis.prediction import Forecast, Prediction, ResponseRow, SigmaNeeded, StudentError
from sizetransfer.diagnosis.question import PredictionRule, PredictionSpec, holds
from sizetransfer.diagnosis.responses import Source, response, source_of
from sizetransfer.diagnosis.targets import CLEAN_FIELDS, Target
from sizetransfer.diagnosis.theorem import light_cone, theorem_row
from sizetransfer.measures.clean_score import CleanScoreSpec
from sizetransfer.measures.locality import LocalitySpec
from sizetransfer.measures.smoothed_score import SmoothedScoreSpec
from sizetransfer.theorem1 import certificate_of
from sizetransfer.verdict import ScoreError, Verdict

Place = tuple[float, int]
"""A noise level and a size."""

MODEL_FIELDS = 32
"""At least so many fields measure a model of a Gaussian teacher: a score costs one call."""


@in_arithmetic_of_teacher
def predict(
    teacher: Teacher,
    student: Student | None = None,
    spec: PredictionSpec | None = None,
    *,
    ready: bool = False,
    names: tuple[str, str] = ("teacher", "student"),
) -> Prediction:
    """Predict whether a local student of a teacher works on large sizes.

    Args:
        teacher: what is to be learned; of one that has finitely many fields, held-out ones are drawn.
        student: contributes its radius and, if it is ready, its errors; none: the teacher is examined alone.
        spec: the question.
        ready: the student is trained. One without weights always counts as ready.
        names: what the two are called.

    Raises:
        SpecError: sizes or a patch that do not fit the teacher.
        OracleError: the teacher's response is not known.
    """
    spec = spec or PredictionSpec()
    teacher = teacher.split("held out")
    sizes = _checked_sizes(teacher, student, spec)
    radius = None if student is None else student.radius
    source = source_of(teacher, sample=spec.sample)
    ready = student is not None and (ready or not list(student.parameters()))
    sigmas = (0.0,) if source == "clean" else spec.sigmas
    best = {size: BestScores(teacher, size, radius) for size in sizes} if isinstance(teacher, HasCovariance) else {}
    rows, targets, sources = _responses(teacher, student, sizes, sigmas, spec, best)
    errors = _errors_at(sizes, teacher, student, spec, rows, targets) if student is not None and ready else ()
    # Posteriors that are known are solved once.
    solved = {place: one.target for place, one in sources.items() if isinstance(one, EstimatedErrors)}
    around = Surroundings(teacher, names[0], spec, sizes, source, {**solved, **targets})
    verdicts = _verdicts(student, names[1], around, sources, errors, ready=ready)
    forecasts = tuple(_forecast([row for row in rows if row.sigma == sigma], spec.rule) for sigma in sigmas)
    return Prediction(
        teacher=names[0],
        student=None if student is None else names[1],
        radius=radius,
        ready=ready,
        source=source,
        geometry=teacher.field.geometry,
        spec=spec,
        verdicts=verdicts,
        sigma_needed=tuple(SigmaNeeded(size, _sigma_needed(around, size)) for size in sizes),
        rows=rows,
        forecasts=forecasts,
        overall=_together(forecasts, None if student is None else verdicts[0]),
        theorem=tuple(theorem_row(teacher, student, best.get(size), size, spec, ready=ready) for size in sizes),
        errors=errors,
        cone=light_cone(teacher, sizes[-1], spec),
        notes=(
            *_notes(teacher, student, sizes, source, ready=ready),
            *_certified_radii(rows, spec),
            *_levels(rows, radius, spec),
        ),
    )


def _checked_sizes(teacher: Teacher, student: Student | None, spec: PredictionSpec) -> Sequence[int]:
    """The sizes that are asked about.

    Raises:
        SpecError: a student of other fields, or sizes, a patch or noise levels that do not fit the teacher.
    """
    _check_pair(teacher, student)
    sizes = spec.sizes_for(teacher, None if student is None else student.radius)
    for size in sizes:
        spec.patch_on(teacher.domain(size).shape)
    spec.noise_range(teacher)
    return sizes


def _verdicts(
    student: Student | None,
    name: str,
    around: Surroundings,
    sources: Mapping[Place, ErrorSource],
    errors: Sequence[StudentError],
    *,
    ready: bool,
) -> tuple[Verdict, ...]:
    teacher = around.teacher
    local = isinstance(teacher, HasLocalPosterior) and not isinstance(teacher, HasCovariance)
    known = partial(_irreducible, sources if local else {}, around)
    candidates = _candidates(teacher, student, name, known, errors, around.spec, ready=ready)
    return tuple(verdict_of(candidate, around) for candidate in candidates)


def _candidates(
    teacher: Teacher,
    student: Student | None,
    name: str,
    known: Callable[[int | None], Irreducible],
    errors: Sequence[StudentError],
    spec: PredictionSpec,
    *,
    ready: bool,
) -> list[Candidate]:
    """Whose verdicts are wanted: the student's, or those of the best scores of some radii."""
    if student is None:
        radii = spec.radii_for(teacher)
        return [Candidate(f"radius {radius}", radius, irreducible=known(radius)) for radius in radii]
    irreducible = known(student.radius)
    if not ready:
        return [Candidate(name, student.radius, irreducible=irreducible)]
    measured = tuple(
        ScoreError(
            0.0 if error.against == "clean" else error.sigma,
            error.size,
            Quantity.estimated(error.error.value, error.error.error, error.fields),
        )
        for error in errors
    )
    return [Candidate(name, student.radius, measured, student, irreducible)]


def _irreducible(sources: Mapping[Place, ErrorSource], around: Surroundings, radius: int | None) -> Irreducible:
    """Errors of the best score of a radius at the levels that are judged, where local posteriors tell them."""
    if radius is None or holds(around.teacher, around.training, radius):
        return {}
    judged = {place: source.relative_error(radius) for place, source in sources.items() if place[0] in around.levels}
    fields = around.spec.fields
    return {place: Quantity.estimated(one.value, one.error, fields) for place, one in judged.items() if one is not None}


def _sigma_needed(around: Surroundings, size: int) -> Quantity | None:
    law = around.laws[size]
    if law is None:
        return None
    exact = isinstance(law, GraphLaw) or law.exact
    return Quantity(law.sigma_needed, 0.0 if exact else math.nan, "exact" if exact else "estimate")


def _check_pair(teacher: Teacher, student: Student | None) -> None:
    if student is None:
        return
    wanted, found = (
        f"a {f.geometry} of {f.dim} dimensions, {f.channels} channels" for f in (teacher.field, student.field)
    )
    if wanted == found:
        return
    raise SpecError(
        "The student scores other fields than the teacher's.",
        where="student.field",
        expected=wanted,
        got=found,
        fix="build the student with teacher.field",
    )


def _responses(
    teacher: Teacher,
    student: Student | None,
    sizes: Sequence[int],
    sigmas: Sequence[float],
    spec: PredictionSpec,
    best: Mapping[int, BestScores],
) -> tuple[tuple[ResponseRow, ...], dict[Place, Target], dict[Place, ErrorSource]]:
    """The rows of all sizes and noise levels, with fields and irreducible errors where there are some."""
    found = [_response_row(teacher, student, size, sigma, spec, best.get(size)) for size in sizes for sigma in sigmas]
    rows = tuple(row for row, _, _ in found)
    targets = {(row.sigma, row.size): target for row, target, _ in found if target is not None}
    sources = {(row.sigma, row.size): source for row, _, source in found if source is not None}
    return rows, targets, sources


def _response_row(
    teacher: Teacher, student: Student | None, size: int, sigma: float, spec: PredictionSpec, best: BestScores | None
) -> tuple[ResponseRow, Target | None, ErrorSource | None]:
    found = response(teacher, size, sigma, spec)
    outside = error = irreducible = None
    # For white inputs the error is the square root of the share.
    sufficient = found.covering(1 - spec.rule.tolerance**2)
    if student is not None:
        outside, error = found.outside(student.radius), found.outside_error(student.radius)
    errors = error_source(teacher, best, size, sigma, found.power, spec)
    if errors is not None:
        sufficient = errors.sufficient_radius(spec.rule.tolerance, found.largest) or sufficient
        if student is not None:
            irreducible = errors.relative_error(student.radius)
    certificate = certificate_of(teacher, size) if sigma > 0 else None
    row = ResponseRow(
        size=size,
        sigma=sigma,
        range=found.effective_range(spec.epsilon),
        largest=found.largest,
        covering={share: found.covering(share) for share in spec.shares},
        outside_share=outside,
        irreducible=irreducible,
        locality_error=irreducible or error,
        sufficient=sufficient,
        draws=errors.count if isinstance(errors, EstimatedErrors) and irreducible is not None else None,
        certified=None if certificate is None else certificate.sufficient_radius(sigma, spec.rule.tolerance),
    )
    return row, found.target, errors


# --- radii and ranges over sizes ------------------------------------------------------------------------------


def _forecast(rows: Sequence[ResponseRow], rule: PredictionRule) -> Forecast:
    """How radii and ranges go at one noise level; ``rows`` by ascending size."""
    last, before = rows[-1], rows[-2] if len(rows) > 1 else None
    growth = None if before is None else _growth(before.sufficient, last.sufficient, rule)
    widening = None if before is None else _growth(before.range, last.range, rule)
    return Forecast(
        sigma=last.sigma,
        locality_error=last.locality_error,
        sufficient=last.sufficient,
        range_grows=_KNOWN.get(widening),
        sufficient_grows=_KNOWN.get(growth),
    )


Holds = Literal["yes", "unclear", "no"]
_KNOWN: Mapping[Holds | None, bool] = {"yes": True, "no": False}


def _growth(before: Quantity, after: Quantity, rule: PredictionRule) -> Holds:
    """Whether a radius rises with the size by more than one step and more than the rule's share."""
    rise = after.value - before.value
    if not rise > max(1.0, rule.growth * before.value):
        return "no"
    return _significant(rise, math.hypot(before.error, after.error), rule)


def _significant(effect: float, standard_error: float, rule: PredictionRule) -> Holds:
    # A standard error that is not known makes nothing significant.
    return "yes" if effect > rule.significance * standard_error else "unclear"


def _together(forecasts: Sequence[Forecast], verdict: Verdict | None) -> Forecast:
    """The largest error from locality and the largest radius of all noise levels, with the verdict."""
    errors = [forecast.locality_error for forecast in forecasts if forecast.locality_error is not None]
    return Forecast(
        sigma=None,
        locality_error=max(errors, key=lambda quantity: quantity.value, default=None),
        sufficient=max((forecast.sufficient for forecast in forecasts), key=lambda quantity: quantity.value),
        range_grows=_any(forecast.range_grows for forecast in forecasts),
        sufficient_grows=_any(forecast.sufficient_grows for forecast in forecasts),
        verdict=None if verdict is None else verdict.word,
        reason="no student was given" if verdict is None else verdict.reason,
    )


def _any(values: Iterable[bool | None]) -> bool | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return any(known) if any(known) or len(known) == len(found) else None


# --- a student that is ready ----------------------------------------------------------------------------------


def _errors_at(
    sizes: Sequence[int],
    teacher: Teacher,
    student: Student,
    spec: PredictionSpec,
    rows: Sequence[ResponseRow],
    targets: Mapping[Place, Target],
) -> tuple[StudentError, ...]:
    return tuple(error for size in sizes for error in _errors(teacher, student, size, spec, rows, targets))


def _errors(
    teacher: Teacher,
    student: Student,
    size: int,
    spec: PredictionSpec,
    rows: Sequence[ResponseRow],
    targets: Mapping[Place, Target],
) -> list[StudentError]:
    student.eval()
    own = [row for row in rows if row.size == size]
    if isinstance(teacher, HasCovariance) and isinstance(teacher, HasSmoothedScore):
        return _split_errors(teacher, student, own, spec)
    if targets:
        return [_sampled_error(student, targets[row.sigma, size], row) for row in own]
    if not isinstance(teacher, HasScore):
        return _smoothed_errors(teacher, student, own, spec)
    fields = max(CLEAN_FIELDS, spec.fields)
    found = CleanScoreSpec(fields=fields).measure(teacher, student, size, sigma=spec.sigma_min, seed=spec.seed)
    (error,) = (m for m in found if m.part == "relative_rmse")
    return [StudentError(size, spec.sigma_min, "clean", error.quantity, None, None, fields)]


def _sampled_error(student: Student, target: Target, row: ResponseRow) -> StudentError:
    error = target.error_of(student)
    return StudentError(row.size, row.sigma, "smoothed", error, row.irreducible, None, len(target.sample.x))


def _smoothed_errors(
    teacher: Teacher, student: Student, rows: Sequence[ResponseRow], spec: PredictionSpec
) -> list[StudentError]:
    if not isinstance(teacher, HasSmoothedScore):
        return []
    measure = SmoothedScoreSpec(sigmas=spec.sigmas, fields=max(2, spec.fields // 2))
    found = measure.measure(teacher, student, rows[0].size, sigma=spec.sigma_min, seed=spec.seed)
    errors = {m.coordinate: m.quantity for m in found}
    return [
        StudentError(row.size, row.sigma, "smoothed", errors[row.sigma], row.irreducible, None, measure.fields)
        for row in rows
    ]


def _split_errors(
    teacher: Teacher, student: Student, rows: Sequence[ResponseRow], spec: PredictionSpec
) -> list[StudentError]:
    fields = max(MODEL_FIELDS, spec.fields)
    measure = LocalitySpec(radii=(), sigmas=spec.sigmas, fields=fields)
    parts = {
        (m.part, m.coordinate): m.quantity
        for m in measure.measure(teacher, student, rows[0].size, sigma=spec.sigma_min, seed=spec.seed)
    }
    return [
        StudentError(
            size=row.size,
            sigma=row.sigma,
            against="smoothed",
            error=parts["student_error", row.sigma],
            locality=row.irreducible or Quantity(parts["locality_error", row.sigma].value),
            training=parts["training_error", row.sigma],
            fields=fields,
        )
        for row in rows
    ]


def _notes(
    teacher: Teacher, student: Student | None, sizes: Sequence[int], source: Source, *, ready: bool
) -> list[str]:
    notes = {
        "gaussian": "Responses are exact: those of a Gaussian field do not depend on x.",
        "posterior": "Responses are averages over noisy fields, from the known posterior covariance.",
        "sampled": "Responses are from sampled posteriors; ranges are estimated from below.",
        "clean": "The teacher knows its clean score only: responses are those of the clean score, and say nothing of "
        "larger noise. Posterior sampling gives the smoothed ones (slow).",
    }
    found = [notes[source]]
    if len(sizes) == 1:
        found.append("With one size, nothing can be said of growth with the size.")
    if student is not None and student.radius is not None:
        # A torus of L sites has no site farther than L/2: there, ranges stop growing for another reason.
        torus = teacher.field.geometry == "lattice" and teacher.field.periodic
        small = [size for size in sizes if torus and 2 * student.radius + 1 > size]
        if small:
            found.append(f"The ball of radius {student.radius} reaches around the lattices of sizes {small}.")
    if student is not None and not ready:
        found.append("The student is only specified: it contributes its radius; training comes on top.")
    return found


def _certified_radii(rows: Sequence[ResponseRow], spec: PredictionSpec) -> list[str]:
    """For ferromagnetic spins: at which noise levels which radius is certified to suffice, for the best score."""
    last = [row for row in rows if row.size == rows[-1].size and row.certified is not None]
    if not last:
        return []
    levels = ", ".join(f"{cast(Quantity, row.certified).value:g} at sigma {row.sigma:g}" for row in last)
    share = f"{100 * spec.rule.tolerance:g} %"
    means = f"certified, by correlations without field, to be within {share} of the exact one"
    return [f"At L = {last[0].size}, the best score of these radii is {means}: {levels}."]


def _levels(rows: Sequence[ResponseRow], radius: int | None, spec: PredictionSpec) -> list[str]:
    """Where irreducible errors are estimated: at which noise levels the radius suffices, and how that is known."""
    last = [row for row in rows if row.size == rows[-1].size and row.irreducible is not None and row.draws is not None]
    if not last or radius is None:
        return []
    groups: dict[str, list[str]] = {}
    for row in last:
        groups.setdefault(_standing(row, radius, spec.rule), []).append(f"{row.sigma:g}")
    said = "; ".join(f"{standing} at sigma {', '.join(levels)}" for standing, levels in groups.items())
    rests = f"{last[0].draws} pairs of a noisy field and a site ({spec.fields} fields)"
    return [f"At L = {last[0].size}, radius {radius} {said}. Irreducible errors are estimates from {rests}."]


def _standing(row: ResponseRow, radius: int, rule: PredictionRule) -> str:
    """What is known of a radius at one noise level, a certificate before an estimate."""
    if row.certified is not None and row.certified.value <= radius:
        return "suffices for certain (certificate)"
    error = cast(Quantity, row.irreducible)
    if _significant(abs(error.value - rule.tolerance), error.error, rule) == "unclear":
        return "is within the standard errors of the tolerance (estimate)"
    return "suffices (estimate)" if error.value <= rule.tolerance else "does not suffice (estimate)"
