r"""Whether a model is read in its own units: from its loss, and from identities that hold of every exact score.

At each noise level, with :math:`\mu` the mean of the fields and v the variance of the noise:

- Stein: :math:`-E[s\cdot(x-\mu)]/N = 1`; where the noise outweighs the data this is the high-noise limit
  :math:`s \to -(x-\mu)/v`;
- calibration: the regression of the denoising target on the score, :math:`-E[s\cdot\xi]/(\sigma E|s|^2) = 1`;
- the denoising loss, which no other score is below, beside that of linear filters on the same fields and noise.

The first two say that something is wrong, and the loss says what: the module is read by other conventions
(:mod:`.readings`: prediction, process, noise argument, scale, order of channels, the fields' mean as shift; no other
layout, and no exchanged axes of the lattice, of which the loss of an isotropic law says nothing), and one is named as
the fault where it takes away at least :data:`GAIN` of the score, as a relative error over all noise levels, at
:data:`SIGNIFICANCE` standard errors, and leaves less than a quarter of the squared error beyond the best linear filter,
of the model as declared and of the filter of one site, which some conventions make of an answer of zero. A model with
errors below that gain, whatever they are, is never accused of such a fault: no reading gains more than the error there
is (:mod:`.losses`). An offset of the time steps changes too little for that; it is named where the step of the smallest
loss agrees between noise levels, and differs from the declared one. The finer the table, the more sites that takes: a
step of a thousand needs some millions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sizetransfer.contracts.errors import ConformanceError, OracleError, SpecError
from sizetransfer.contracts.oracle import Sample
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.student import Student
from sizetransfer.diagnosis.model.losses import NoisyFields, as_sample, linear_losses, smallest
from sizetransfer.diagnosis.model.readings import (
    Reading,
    in_time,
    joint_readings,
    scaled,
    shifted,
    single_readings,
)
from sizetransfer.numerics.statistics import mean, ratio
from sizetransfer.students.wrapped import WrappedModule
from sizetransfer.students.wrapped.schedules import NearestTimestep

GAIN = 0.15
"""Relative error of the score that a reading must take away to be named."""

SIGNIFICANCE = 5.0
"""Standard errors of the mean over fields by which it must do so."""

LEFT = 0.25
"""Share of the squared error beyond the best linear filter that may be left."""

_SEARCH_SITES = 2**15
_RADII: tuple[int | None, ...] = (0, 1, 2, 4, None)
_FACTORS = torch.logspace(-1, 1, 21, 4.0, dtype=torch.float64).tolist()


@dataclass(frozen=True)
class LevelCheck:
    """What the model does at one noise level, as it is read.

    Attributes:
        sigma: in units of the field.
        loss: denoising loss per component; one for a score of zero.
        linear: that of the best linear filter.
        stein, calibration: one for an exact score.
    """

    sigma: float
    loss: Measurement
    linear: Measurement
    stein: Measurement
    calibration: Measurement


@dataclass(frozen=True)
class UnitFinding:
    """A fault of the units, and what mends it.

    Attributes:
        fault: ``scale``, ``shift``, ``prediction``, ``process``, ``noise level``, ``channels``, ``time step``, or
            several joined by ``and``.
        change: conventions that mend it, by name.
        factor: of the scale, where it is that; steps of a time table; else NaN.
        gain: relative error of the score that the mend takes away.
        standard_errors: of the squared gain, over fields.
        text: the finding in words.
    """

    fault: str
    change: dict[str, Any]
    factor: float
    gain: float
    standard_errors: float
    text: str


@dataclass(frozen=True)
class UnitReport:
    """Units of a model, checked.

    Attributes:
        levels: numbers at every noise level.
        findings: faults; none where nothing was found.
        outside: noise levels that the model's schedule does not reach.
        excess: relative error of the score beyond the best linear filter; zero where the model has the smaller loss.
        time_offset: steps from the declared ones to the smallest loss, of a model with a table of steps whose other
            conventions are right.
        readings: how many other readings were tried.
        fields: independent fields.
        seconds: time that it took.
        mended: the student read as the findings say; the student itself where there is none, or it cannot be.
    """

    levels: tuple[LevelCheck, ...]
    findings: tuple[UnitFinding, ...]
    outside: tuple[float, ...]
    excess: float
    time_offset: Measurement | None
    readings: int
    fields: int
    seconds: float
    mended: Student

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        rows = [{"sigma": level.sigma, **_numbers(level)} for level in self.levels]
        found = [{**asdict(one), "change": {key: str(new) for key, new in one.change.items()}} for one in self.findings]
        return {
            "levels": rows,
            "findings": found,
            "outside": list(self.outside),
            "excess": self.excess,
            "time_offset": None if self.time_offset is None else _number(self.time_offset),
            "readings": self.readings,
            "fields": self.fields,
            "seconds": self.seconds,
        }

    def text(self) -> str:
        """The findings, then the numbers."""
        lines = [finding.text for finding in self.findings] or [_healthy(self.excess)]
        lines += [f"Outside the model's schedule: sigma = {sigma:.4g}." for sigma in self.outside]
        lines.append(f"{'sigma':>9} {'loss':>9} {'linear':>9} {'Stein':>15} {'calibration':>15}")
        for level in self.levels:
            shown = [f"{one.value:.3f} ± {one.standard_error:.3f}" for one in (level.stein, level.calibration)]
            numbers = f"{level.sigma:9.3g} {level.loss.value:9.4g} {level.linear.value:9.4g}"
            lines.append(f"{numbers} {shown[0]:>15} {shown[1]:>15}")
        if self.time_offset is not None:
            offset = self.time_offset
            lines.append(
                f"Time steps: the smallest loss is {offset.value:.2f} ± {offset.standard_error:.2f} steps away."
            )
        lines.append(f"{self.fields} fields, {self.readings} other readings, {self.seconds:.1f} s.")
        return "\n".join(lines)


def check_units(
    student: Student,
    fields: Sample | Tensor,
    sigmas: Sequence[float] | None = None,
    *,
    judged: int = 64,
    seed: int = 0,
) -> UnitReport:
    """Find wrong units, predictions, processes, orders of channels and time steps of a model, and what mends them.

    Args:
        student: the model as it is read; of one that :func:`~sizetransfer.students.wrapped.wrap_module` made every
            convention is tried, of others the scale.
        fields: at least eight independent clean fields ``B C *S``, or a sample.
        sigmas: noise levels, in units of the field; by default 0.2 to 5 deviations of the fields, inside the model's
            schedule.
        judged: fields that the losses are means over; the linear filters are fitted to all.
        seed: names the noise.

    Raises:
        SpecError: fields that cannot be used, or no noise level that the model knows.
        ConformanceError: the module fails.
    """
    started = time.perf_counter()
    sample = as_sample(fields, student.field)
    student = student.eval()
    deviation = float(sample.x.double().std())
    inside, outside = _levels(student, sigmas, deviation)
    judged = min(judged, len(sample.x))
    whole = NoisyFields(sample, seed)
    by_radius = linear_losses(whole, judged, _RADII, inside)
    linear = {level: smallest(by)[1] for level, by in by_radius.items()}
    search = _Search(whole.first(judged), linear, inside)
    point = sum(float((by_radius[s][0] - linear[s]).mean() / (1 - linear[s].mean())) for s in inside) / len(inside)
    search.point = point
    own = Reading("", {}, student)
    levels = tuple(_level_check(search, own, sigma) for sigma in inside)
    coarse = _coarse(search, own, student, sample, deviation)
    offset = None if coarse is not None else _time_offset(search, student)
    fine = None if offset is None else _offset_finding(offset, student)
    findings = tuple(finding for finding in (coarse, fine) if finding is not None)
    return UnitReport(
        levels=levels,
        findings=findings,
        outside=outside,
        time_offset=None if offset is None else offset.value,
        excess=math.sqrt(max(0.0, float(search.beyond(own).mean()))),
        readings=search.tried,
        fields=judged,
        seconds=time.perf_counter() - started,
        mended=_mended(student, findings),
    )


def _levels(
    student: Student, sigmas: Sequence[float] | None, deviation: float
) -> tuple[list[float], tuple[float, ...]]:
    asked = list(sigmas) if sigmas is not None else [deviation * share for share in (0.2, 0.5, 1.0, 2.0, 5.0)]
    known = student.sigma_range if isinstance(student, WrappedModule) else None
    low, high = known or (0.0, math.inf)
    inside = [sigma for sigma in asked if low <= sigma <= high]
    if not inside:
        raise SpecError(
            "The model knows none of the noise levels.",
            where="check_units, sigmas",
            expected=f"levels between {low:.4g} and {high:.4g}, the model's schedule in units of the field",
            got=", ".join(f"{sigma:.4g}" for sigma in asked),
            fix="ask at other levels, or correct scale or timestep",
        )
    return inside, tuple(sigma for sigma in asked if sigma not in inside)


class _Search:
    """Losses of readings, kept, on the same fields and noise; NaN where a reading cannot be asked."""

    def __init__(self, fields: NoisyFields, linear: dict[float, Tensor], sigmas: Sequence[float]) -> None:
        self.fields, self.linear, self.sigmas = fields, linear, sigmas
        sites = fields.sample.x[0].numel()
        self.few = max(4, min(len(fields.sample.x), _SEARCH_SITES // sites))
        self.tried = 0
        self.point = math.inf  # squared error of the filter of one site beyond the best

    def beyond(self, reading: Reading, *, few: bool = False) -> Tensor:
        """Squared error of the score beyond the best linear filter, relative to that filter's, ``(B,)``."""
        fields = self.fields.first(self.few) if few else self.fields
        total = torch.zeros(len(fields.sample.x), dtype=torch.float64)
        for sigma in self.sigmas:
            linear = self.linear[sigma]
            total += (fields.losses(reading.score, sigma) - linear[: len(total)]) / (1 - float(linear.mean()))
        return total / len(self.sigmas)

    def rank(self, reading: Reading) -> float:
        """Mean of :meth:`beyond` on a few fields; infinite where the module cannot be read so."""
        self.tried += 1
        try:
            value = float(self.beyond(reading, few=True).mean())
        except (ConformanceError, OracleError):
            return math.inf
        return value if math.isfinite(value) else math.inf


def _coarse(search: _Search, own: Reading, student: Student, sample: Sample, deviation: float) -> UnitFinding | None:
    """The one reading of single changes, or of several, that mends the model."""
    candidates = [*single_readings(student), _best_scale(search, student)]
    average = sample.x.double().mean((0, *range(2, sample.x.ndim)))
    if float(average.abs().max()) > 0.1 * deviation and (moved := shifted(student, average)) is not None:
        candidates.append(moved)
    before = search.beyond(own)
    best = _best(search, candidates)
    left = float(search.beyond(best).mean()) if best is not None else math.inf
    if min(left, float(before.mean())) > GAIN**2:
        joint = _best(search, _joint(search, student, deviation))
        if joint is not None and float(search.beyond(joint).mean()) < left - GAIN**2:
            best = joint
    return None if best is None else _judged(search, before, best, student, deviation)


def _best(search: _Search, candidates: Sequence[Reading]) -> Reading | None:
    """The candidate of the smallest loss that the module can be read by."""
    ranked = sorted((search.rank(reading), place) for place, reading in enumerate(candidates))
    return candidates[ranked[0][1]] if ranked and math.isfinite(ranked[0][0]) else None


def _joint(search: _Search, student: Student, deviation: float) -> list[Reading]:
    """The readings of several changes that are best at the lowest and the highest level, and their best scales."""
    ends = _Search(search.fields, search.linear, [search.sigmas[0], search.sigmas[-1]])
    ends.few = min(4, ends.few)
    ranked = sorted(
        ((ends.rank(reading), place, reading) for place, reading in enumerate(joint_readings(student, deviation)))
    )
    search.tried += ends.tried
    return [reading for _, _, reading in ranked[:8]]


def _best_scale(search: _Search, student: Student) -> Reading:
    """The scale of the smallest loss: the best of a grid, then thirds of its neighbourhood."""
    ranks = [search.rank(scaled(student, factor)) for factor in _FACTORS]
    best = min(range(len(ranks)), key=ranks.__getitem__)
    low = math.log(_FACTORS[max(0, best - 1)])
    high = math.log(_FACTORS[min(len(_FACTORS) - 1, best + 1)])
    return scaled(student, math.exp(_minimum(lambda x: search.rank(scaled(student, math.exp(x))), low, high)))


def _minimum(function: Callable[[float], float], low: float, high: float, steps: int = 12) -> float:
    """Golden section."""
    share = (math.sqrt(5) - 1) / 2
    inner = [high - share * (high - low), low + share * (high - low)]
    values = [function(x) for x in inner]
    for _ in range(steps):
        if values[0] < values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - share * (high - low)
            values[0] = function(inner[0])
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + share * (high - low)
            values[1] = function(inner[1])
    return inner[values.index(min(values))]


def _judged(search: _Search, before: Tensor, best: Reading, student: Student, deviation: float) -> UnitFinding | None:
    """The reading as a finding, if it takes away enough of the error."""
    after = search.beyond(best)
    gained = Measurement.of("gain", mean(before - after))
    size, left = gained.value, max(0.0, float(after.mean()))
    standard_errors = size / gained.standard_error if gained.standard_error > 0 else math.inf
    enough = size > GAIN**2 and standard_errors > SIGNIFICANCE
    if not enough or left > LEFT * min(max(float(before.mean()), size), search.point):
        return None
    return _finding(best, math.sqrt(size), standard_errors, student, deviation)


def _finding(reading: Reading, gain: float, errors: float, student: Student, deviation: float) -> UnitFinding:
    factor = math.nan
    change = reading.change
    if reading.fault == "scale":
        own = student.units.scale if isinstance(student, WrappedModule) else 1.0
        factor = float(change["scale"]) / own
    words = _in_words(reading, student, deviation)
    text = (
        f"Wrong {reading.fault}: {words}. Mend: {_said(change)}. "
        f"It takes {gain:.3g} of the score away as error ({errors:.0f} standard errors)."
    )
    return UnitFinding(reading.fault, change, factor, gain, errors, text)


def _in_words(reading: Reading, student: Student, deviation: float) -> str:
    change = reading.change
    if reading.fault == "scale":
        scale = float(change["scale"])
        near = abs(scale / deviation - 1) < 0.05
        known = " (the deviation of these fields: the model's data were scaled to one)" if near else ""
        return f"the model's unit is {scale:.3g} units of the field{known}"
    declared = student.conventions if isinstance(student, WrappedModule) else {}
    effective = {**declared, "predicts": getattr(student, "predicts", None), "inputs": _inputs_of(student)}
    differing = {name: value for name, value in change.items() if str(effective.get(name)) != str(value)}
    return "; ".join(f"{name} is read as {effective.get(name)}, and {value} fits" for name, value in differing.items())


def _inputs_of(student: Student) -> str:
    pairs = student.inputs if isinstance(student, WrappedModule) else ()
    return ", ".join(f"{name}={quantity}" if name else quantity for name, quantity in pairs)


def _said(change: dict[str, Any]) -> str:
    shown = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in change.items()
        if value is not None
    }
    return ", ".join(f"{name}: {value}" for name, value in shown.items())


def _healthy(excess: float) -> str:
    return (
        "Units, prediction and noise levels: no other reading that was tried is better."
        if excess < GAIN
        else f"The score is off by {excess:.2g} beyond the best linear filter, and no other reading that was tried "
        "mends it: the model is not trained enough, or not on such fields."
    )


# --- time steps -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Offset:
    """Steps to the smallest loss, with standard error, and whether the noise levels agree on it."""

    value: Measurement
    agree: bool


def _time_offset(search: _Search, student: Student) -> _Offset | None:
    """The offset of the steps at which the loss is smallest, if it is one at every level.

    At each level the vertex of the parabola through the losses of one step earlier, none and one later, by jackknife
    over the fields; then their weighted mean, and the scatter around it.
    """
    readings = [reading for step in (-1, 0, 1) if (reading := in_time(student, step)) is not None]
    if not isinstance(student, WrappedModule) or len(readings) < 3:
        return None
    vertices = [_vertex(search, readings, sigma) for sigma in _table_levels(student, search)]
    known = [(value, error) for value, error in vertices if math.isfinite(value) and 0 < error < math.inf]
    search.tried += 2
    if len(known) < 2:
        return None
    weights = [1 / error**2 for _, error in known]
    value = sum(weight * v for weight, (v, _) in zip(weights, known, strict=True)) / sum(weights)
    scatter = sum(weight * (v - value) ** 2 for weight, (v, _) in zip(weights, known, strict=True))
    freedom = len(known) - 1
    found = Measurement("time_offset", value, 1 / math.sqrt(sum(weights)), len(search.fields.sample.x))
    return _Offset(found, scatter < freedom + 3 * math.sqrt(2 * freedom))


def _offset_finding(offset: _Offset, student: Student) -> UnitFinding | None:
    own = student.timestep if isinstance(student, WrappedModule) else None
    value, error = offset.value.value, offset.value.standard_error
    steps = round(value)
    near = abs(value - steps) <= SIGNIFICANCE * error + 0.1
    if not isinstance(own, NearestTimestep) or not offset.agree or not near:
        return None
    if steps == 0 or abs(value) < SIGNIFICANCE * error:
        return None
    text = (
        f"Wrong time step: the loss is smallest {value:.2f} ± {error:.2f} steps from the declared ones, at every noise "
        f"level alike. Mend: move the table by {steps} step{'s' if abs(steps) > 1 else ''}."
    )
    change = {"timestep": NearestTimestep(own.alphas_cumprod, own.offset + steps)}
    return UnitFinding("time step", change, float(steps), math.nan, abs(value) / error, text)


def _table_levels(student: WrappedModule, search: _Search) -> list[float]:
    """Noise levels of the table, in units of the field, over the range of the search, not at its ends."""
    own = student.timestep
    table = own.levels * student.units.scale if isinstance(own, NearestTimestep) else torch.zeros(0)
    low, high = search.sigmas[0], search.sigmas[-1]
    wanted = torch.logspace(math.log10(low), math.log10(high), 8, dtype=torch.float64)
    places = sorted(set((wanted[:, None] / table).log().abs().argmin(1).tolist()))
    return [float(table[place]) for place in places if 1 < place < len(table) - 2]


def _vertex(search: _Search, readings: Sequence[Reading], sigma: float) -> tuple[float, float]:
    before, none, after = (search.fields.losses(reading.score, sigma) for reading in readings)
    slope, curvature = (after - before) / 2, after + before - 2 * none
    if not float(curvature.mean()) > 0:
        return math.nan, math.nan
    found = Measurement.of("step", ratio(-slope, curvature))
    return found.value, found.standard_error


# --- numbers ----------------------------------------------------------------------------------------------------------


def _level_check(search: _Search, reading: Reading, sigma: float) -> LevelCheck:
    noisy, target = search.fields.at(sigma)
    centred = noisy.x - search.fields.sample.x.mean((0, *range(2, noisy.x.ndim)), keepdim=True)
    with torch.no_grad():
        step = max(1, 2**18 // noisy.x[0].numel())
        parts = [noisy.rows(slice(start, start + step)) for start in range(0, len(noisy.x), step)]
        score = torch.cat([reading.score(p.x, p.x.new_full((len(p.x),), sigma), p.context) for p in parts])
    products = [(score * other).flatten(1).double().mean(1).cpu() for other in (-centred, target, score)]
    live = 1.0 if noisy.context.mask is None else float(noisy.context.mask.double().mean())
    return LevelCheck(
        sigma=sigma,
        loss=Measurement.of("loss", mean(search.fields.losses(reading.score, sigma)), sigma),
        linear=Measurement.of("linear", mean(search.linear[sigma]), sigma),
        stein=Measurement.of("stein", mean(products[0] / live), sigma),
        calibration=Measurement.of("calibration", ratio(products[1], products[2]), sigma),
    )


def _numbers(level: LevelCheck) -> dict[str, Any]:
    named = {"loss": level.loss, "linear": level.linear, "stein": level.stein, "calibration": level.calibration}
    return {name: _number(one) for name, one in named.items()}


def _number(one: Measurement) -> dict[str, Any]:
    return {"value": one.value, "standard_error": one.standard_error, "n": one.n}


def _mended(student: Student, findings: Sequence[UnitFinding]) -> Student:
    if not isinstance(student, WrappedModule):
        return student
    for finding in findings:
        student = student.read_as(**finding.change)
    return student
