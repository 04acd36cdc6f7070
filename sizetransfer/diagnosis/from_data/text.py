"""A diagnosis from data as text and as data: the verdict, then why; tables and the rule on demand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sizetransfer.contracts.quantity import Quantity
from sizetransfer.diagnosis.from_data.evidence import Made, RadiusFound
from sizetransfer.diagnosis.from_data.laws import NAMES
from sizetransfer.diagnosis.from_data.ranges import Range
from sizetransfer.diagnosis.text import table
from sizetransfer.numerics.averages import number

if TYPE_CHECKING:
    from sizetransfer.diagnosis.from_data.diagnosis import DataDiagnosis


def body_of(found: DataDiagnosis, *, tables: bool = False) -> str:
    """All but the cost and the rule."""
    parts = [_head(found), *(_verdict(one) for one in found.radii), _ranges(found), _generated(found), _law(found)]
    parts += [_nested(found), _checks(found), _tails(found)]
    if tables:
        parts += [_errors(found), _gains(found)]
    return "\n\n".join(filter(None, [*parts, "\n".join(found.notes)]))


def text_of(found: DataDiagnosis, *, tables: bool = False, explain: bool = False) -> str:
    """The diagnosis in words and numbers.

    Args:
        found: what was found.
        tables: also the errors of every radius and the range of the precision.
        explain: also the rule.
    """
    parts = [body_of(found, tables=tables), _steps(found)]
    if explain:
        parts.append(found.rule)
    more = {"--tables (tables=True)": tables, "--explain (explain=True)": explain}
    hidden = [name for name, shown in more.items() if not shown]
    return "\n\n".join([*filter(None, parts), *([f"More: {' and '.join(hidden)}."] if hidden else [])])


def _head(found: DataDiagnosis) -> str:
    several = "; ".join(f"{one.fields} fields of L = {one.size}" for one in found.sizes if one.fields is not None)
    axes = f"{found.dim} {'axis' if found.dim == 1 else 'axes'}"
    channels = f"{found.channels} {'channel' if found.channels == 1 else 'channels'}"
    length = f"correlation length {_length(found.correlation_squared, found.question.verdict.alpha)}"
    sizes = ", ".join(str(one.size) for one in found.sizes[1:]) or "no other size"
    student = f"the best linear filter of its radius, fitted at L = {found.training}, asked at {sizes}"
    return "\n".join(
        [
            f"{found.data}: {several}; {axes}, {channels}, {found.boundary}; {found.classes.name}.",
            f"Site deviation {found.deviation:g}; {length}. The student is {student}.",
        ]
    )


def _length(squared: Quantity, alpha: float) -> str:
    if not squared.known:
        return "not known"
    upper = squared.upper(alpha)
    value, limit = (math.sqrt(max(one, 0.0)) if math.isfinite(one) else one for one in (squared.value, upper))
    return f"{value:.3g}, at most {limit:.3g} at {100 * (1 - alpha):g} %"


def _verdict(one: RadiusFound) -> str:
    verdict = one.verdict
    lines = [f"radius {one.radius}: {verdict.label}", f"  why: {verdict.reason}"]
    if verdict.word == "undecided" and verdict.what_would_decide:
        lines.append(f"  what would decide it: {'; '.join(verdict.what_would_decide)}")
    return "\n".join(lines)


def _shown(one: Quantity) -> str:
    rounding = one.error < 1e-6 * abs(one.value)
    return number(one.value, 0.0 if rounding else one.error)


def _range(one: Range, largest: int) -> str:
    if not one.reached:
        return f"none to {largest}"
    if one.value < 1:
        return "at most 1"
    return number(one.value, one.standard_error) if math.isfinite(one.standard_error) else f"{one.value:.2g}"


def _ranges(found: DataDiagnosis) -> str:
    largest = found.ranges[0].errors[-1].radius
    radii = [one.radius for one in found.radii if one.radius <= largest]
    head = ("sigma", "score r_10", "denoiser r_10", *(f"{name} R={r}" for r in radii for name in ("e", "d")), "best")
    rows = []
    for level in found.ranges:
        errors = [_shown(value) for r in radii for value in (level.at(r).score, level.at(r).denoiser)]
        rows.append(
            (f"{level.sigma:g}", _range(level.score, largest), _range(level.denoiser, largest), *errors, level.best)
        )
    title = (
        "Covariance range: smallest radius whose error is below 0.1, of the score (e) and of the denoiser (d); "
        "the score is blind to what matters in generation at large sigma"
    )
    return table(title, head, rows)


def _generated(found: DataDiagnosis) -> str:
    rows = [_made(one, found) for radius in found.radii for one in radius.made]
    head = ("L", "R", "whose filter", *NAMES)
    title = "Generated over exact (second-order forecast, from the noise that each size needs)"
    return table(title, head, rows) if rows else ""


def _made(one: Made, found: DataDiagnosis) -> tuple[object, ...]:
    whose = "your model" if one.fitted == found.training else f"best of L = {one.size}"
    return (one.size, one.radius, whose, *(_shown(one.ratios[name]) for name in NAMES))


def _law(found: DataDiagnosis) -> str:
    starts = ", ".join(
        f"{one.sigma_needed:.3g} at L = {one.size}" if one.sigma_needed is not None else f"not known at L = {one.size}"
        for one in found.sizes
    )
    lines = [f"The reverse process has to start at sigma_max: {starts}."]
    for change in found.changes:
        said = ", ".join(f"{name} {_shown(value)}" for name, value in list(change.ratios.items())[:3])
        source = "measured" if change.measured else "forecast"
        lines.append(f"The law itself, L = {change.size} over L = {found.training}: {said} ({source}).")
    for box in found.boxes:
        what = f"radius {box.radius} on L = {box.size}"
        if box.box is None:
            lines.append(f"No training box up to that size would do for {what}: {box.limited_by} stands against it.")
        else:
            lines.append(f"The smallest training box that would do for {what}: {box.box} (by {box.limited_by}).")
    return "\n".join([*lines, *_bulk(found)])


def _bulk(found: DataDiagnosis) -> Iterator[str]:
    """Where the verdict asks for a larger box than the fitted law does."""
    upper = found.correlation_squared.upper(found.question.verdict.alpha)
    needed = math.ceil(4 * math.sqrt(upper)) if 0 < upper < math.inf else 0
    if any(box.box is not None and box.box < needed for box in found.boxes):
        yield (
            f"These boxes are by the law as it was fitted; that a box is the bulk is known from L = {needed} on, "
            "four times the upper limit of the correlation length, or from fields of two sizes that agree."
        )


def _nested(found: DataDiagnosis) -> str:
    head = ("sigma", "R", "loss", "above its linear filter", "above the largest network")
    rows = [
        (f"{one.sigma:g}", one.radius, *map(_shown, (one.loss, one.above_linear, one.above_largest)))
        for one in found.nested
    ]
    title = f"Networks of nested radii, {found.question.train} steps, early stopped: held-out denoising loss, paired"
    return table(title, head, rows) if rows else ""


def _checks(found: DataDiagnosis) -> str:
    rows = [
        (one.size, one.radius, "data" if one.measured else "forecast", *(_shown(one.ratios[name]) for name in NAMES))
        for one in found.checks
    ]
    head = ("L", "R", "against", *NAMES)
    return table("Fields generated by the largest network, over the law", head, rows) if rows else ""


def _tails(found: DataDiagnosis) -> str:
    return "\n".join(
        f"Response of the network of radius {one.radius} at sigma {one.sigma:g}: beyond its radius "
        f"{one.beyond_exponential:.2g} of it by an exponential tail, {one.beyond_power:.2g} by a power law."
        for one in found.tails
    )


def _errors(found: DataDiagnosis) -> str:
    head = ("sigma", "radius", "score e_r", "denoiser d_r")
    rows = [
        (f"{level.sigma:g}", one.radius, _shown(one.score), _shown(one.denoiser))
        for level in found.ranges
        for one in level.errors
    ]
    return table("Errors of the best linear filters, held out", head, rows)


def _gains(found: DataDiagnosis) -> str:
    fitted = found.fitted
    unit = "sites" if fitted.period == 1 else f"cells of {fitted.period} sites"
    rows = [(reach, _shown(gain)) for reach, gain in fitted.gains]
    title = f"Fitted precision: range {fitted.range} {unit}; held-out log-likelihood of a field above the range before"
    return table(title, ("range", "gain"), rows)


def _steps(found: DataDiagnosis) -> str:
    said = "; ".join(f"{step.name} {step.seconds:.1f} s ({step.fields} fields)" for step in found.steps)
    failed = [f"Not done: {step.name}. {step.failed}" for step in found.steps if step.failed]
    return "\n".join([f"Processor time: {said}; {found.seconds:.1f} s in all.", *failed])


# --- as data ----------------------------------------------------------------------------------------------------------


def json_of(found: DataDiagnosis) -> dict[str, Any]:
    """The diagnosis as data for JSON."""
    special = {"question", "radii", "classes"}
    data = {one.name: plain(getattr(found, one.name)) for one in dataclasses.fields(found) if one.name not in special}
    radii = [
        {"radius": one.radius, "verdict": one.verdict.to_json(), "generated": plain(one.made)} for one in found.radii
    ]
    classes = {"patterns": plain(found.classes.patterns), "name": found.classes.name, "tested": found.classes.tested}
    return {**data, "radii": radii, "classes": classes, "question": found.question.to_json(), "rule": found.rule}


def plain(value: Any) -> Any:
    """Numbers, records and lists as data; null for a number that is not finite."""
    if isinstance(value, Quantity):
        return {"value": _finite(value.value), "standard_error": _finite(value.error), "n": value.n}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = (one for one in dataclasses.fields(value) if one.repr)
        return {one.name: plain(getattr(value, one.name)) for one in shown}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return _finite(value)
    return [plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def problems_of(found: DataDiagnosis) -> Iterator[str]:
    """What was asked for and could not be given."""
    yield from found.problems
