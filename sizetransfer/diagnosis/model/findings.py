r"""One model on given fields: what limits it, from its loss beside that of linear filters of growing radius.

With R the radius of the model (declared or measured; the whole lattice where it is global), :math:`L_R` the smallest
loss of the linear filters up to R and :math:`L_\infty` that of all that were fitted, on the same fields and noise:

- *not learned*: the model's loss is above :math:`L_R`: a filter that sees no more knows more;
- *radius-limited*: it is not, and :math:`L_R` is above :math:`L_\infty`;
- *learned*: neither. Differences are judged as relative squared errors of the score,
  :math:`(L - L_0)/(1 - L_\infty)`, against the square of a tolerance and three standard errors over fields.

A loss below every linear filter's is said: then the law is not Gaussian, and what a larger radius would be worth is
known of second order only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from sizetransfer.contracts.oracle import Sample
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.student import Student
from sizetransfer.diagnosis.model.losses import NoisyFields, as_sample, linear_losses, smallest
from sizetransfer.diagnosis.model.units import UnitReport, check_units
from sizetransfer.numerics.statistics import mean
from sizetransfer.scores.receptive import RadiusReport, measure_radius

Limit = Literal["learned", "radius-limited", "not learned", "not learned, and radius-limited", "too few fields"]

RADII = (0, 1, 2, 3, 4, 6, 8)
SIGNIFICANCE = 3.0


@dataclass(frozen=True)
class ModelLevel:
    """One model at one noise level.

    Attributes:
        sigma: noise level, in units of the field.
        loss: of the model, per component.
        linear: of the linear filters, by radius (infinite: the whole lattice).
        own_radius: the radius of the best filter that sees no more than the model.
        unlearned: squared error of the score beyond that filter, relative to the score.
        beyond: that of this filter beyond the best of all.
        limit: what limits the model.
    """

    sigma: float
    loss: Measurement
    linear: tuple[Measurement, ...]
    own_radius: float
    unlearned: Measurement
    beyond: Measurement
    limit: Limit


@dataclass(frozen=True)
class ModelFindings:
    """What given fields say of one model.

    Attributes:
        units: whether it is read in its own units; the rest is of the model as mended.
        radius: the measured receptive field.
        levels: what limits it, by noise level.
        size: sites along each axis of the fields.
        fields: independent fields.
        judged: of these, those that losses are means over.
        tolerance: relative error of the score that counts.
        seconds: time that it took.
        notes: what is known of the making of the model.
    """

    units: UnitReport
    radius: RadiusReport | None
    levels: tuple[ModelLevel, ...]
    size: tuple[int, ...]
    fields: int
    judged: int
    tolerance: float
    seconds: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "units": self.units.to_json(),
            "radius": None if self.radius is None else self.radius.to_json(),
            "levels": [level_json(level) for level in self.levels],
            "size": list(self.size),
            "fields": self.fields,
            "judged": self.judged,
            "tolerance": self.tolerance,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """The findings in words, with the table behind them."""
        lines = [f"Weights: {note}." for note in self.notes]
        lines += [self.units.text(), ""]
        if self.radius is not None:
            lines += [self.radius.text().split("\n\n")[0], ""]
        if self.units.findings and self.levels:
            lines.append("What follows is of the model as mended.")
        radii = [f"r={one.coordinate:g}" for one in self.levels[0].linear] if self.levels else []
        lines.append(f"{'sigma':>9} {'model':>9}  " + " ".join(f"{radius:>8}" for radius in radii))
        for level in self.levels:
            row = " ".join(f"{one.value:8.4g}" for one in level.linear)
            lines.append(f"{level.sigma:9.3g} {level.loss.value:9.4g}  {row}  {level.limit}{better(level)}")
        lines.append(
            f"{self.fields} fields of {' x '.join(map(str, self.size))}, losses of {self.judged}; {self.seconds:.0f} s."
        )
        return "\n".join(lines)


def diagnose_model(
    student: Student,
    fields: Sample | Tensor,
    sigmas: Sequence[float] | None = None,
    *,
    radii: Sequence[int] = RADII,
    judged: int = 64,
    tolerance: float = 0.1,
    seed: int = 0,
    structure: bool = True,
) -> ModelFindings:
    """Check the units of a model, measure its radius, and say whether the radius or the training limits it.

    Nothing is trained.

    Args:
        student: the model.
        fields: independent clean fields of one size, ``B C *S``, or a sample.
        sigmas: noise levels, in units of the field; by default 0.2 to 5 deviations of the fields.
        radii: of the linear filters; the whole lattice is added where it can be had.
        judged: fields that losses are means over; filters are fitted to all.
        tolerance: relative error of the score that counts.
        seed: names noise and probes.
        structure: also measure the receptive radius.

    Raises:
        SpecError: fields that cannot be used, or no noise level that the model knows.
        ConformanceError: the module fails.
    """
    started = time.perf_counter()
    units = check_units(student, fields, sigmas, judged=judged, seed=seed)
    sample = as_sample(fields, student.field)
    mended = units.mended.eval()
    levels = [level.sigma for level in units.levels]
    radius = measure_radius(mended, sigmas=(levels[0], levels[-1]), seed=seed) if structure else None
    reach = mended.radius if radius is None else radius.radius
    judged = min(judged, len(sample.x))
    own = losses_by_level(mended, NoisyFields(sample, seed), judged, radii, levels)
    found = [level_of(sigma, *pair, reach, tolerance) for sigma, pair in own.items()]
    return ModelFindings(
        units=units,
        radius=radius,
        levels=tuple(found),
        size=tuple(sample.x.shape[2:]),
        fields=len(sample.x),
        judged=judged,
        tolerance=tolerance,
        seconds=time.perf_counter() - started,
        notes=tuple(getattr(student, "notes", ())),
    )


def losses_by_level(
    student: Student, fields: NoisyFields, judged: int, radii: Sequence[int], sigmas: Sequence[float]
) -> dict[float, tuple[Tensor, Mapping[int | None, Tensor]]]:
    """Losses of a model and of linear filters by radius on the first ``judged`` fields, by noise level."""
    asked: list[int | None] = [radius for radius in radii if 2 * radius < min(fields.sample.x.shape[2:])]
    linear = linear_losses(fields, judged, [*asked, None], sigmas)
    few = fields.first(judged)
    return {sigma: (few.losses(student, sigma), linear[sigma]) for sigma in sigmas}


def within(linear: Mapping[int | None, Tensor], reach: int | None) -> Mapping[int | None, Tensor]:
    """Losses of the filters that see no more than a model of this radius; of all where there is none such."""
    return {r: each for r, each in linear.items() if reach is None or (r is not None and r <= reach)} or linear


def level_of(
    sigma: float, losses: Tensor, linear: Mapping[int | None, Tensor], reach: int | None, tolerance: float
) -> ModelLevel:
    """What limits a model at one noise level, from its losses and those of linear filters by radius."""
    own_radius, own = smallest(within(linear, reach))
    _, best = smallest(linear)
    score = 1 - float(best.mean())
    unlearned = Measurement.of("unlearned", mean((losses - own) / score))
    beyond = Measurement.of("beyond", mean((own - best) / score))
    return ModelLevel(
        sigma=sigma,
        loss=Measurement.of("loss", mean(losses), sigma),
        linear=tuple(
            Measurement.of("linear", mean(each), math.inf if r is None else float(r)) for r, each in linear.items()
        ),
        own_radius=math.inf if own_radius is None else float(own_radius),
        unlearned=unlearned,
        beyond=beyond,
        limit=_limit(unlearned, beyond, tolerance**2),
    )


def _limit(unlearned: Measurement, beyond: Measurement, allowed: float) -> Limit:
    above = [_above(one, allowed) for one in (unlearned, beyond)]
    if None in above:
        return "too few fields"
    if above == [True, True]:
        return "not learned, and radius-limited"
    return "not learned" if above[0] else "radius-limited" if above[1] else "learned"


def _above(one: Measurement, allowed: float) -> bool | None:
    """Whether a squared error is above what is allowed; none where its standard error leaves that open."""
    error = one.standard_error if math.isfinite(one.standard_error) else 0.0
    if one.value - SIGNIFICANCE * error > allowed:
        return True
    return None if one.value > allowed else False


def better(level: ModelLevel) -> str:
    """A word of a loss below that of every filter that sees no more."""
    better = level.unlearned.value < -SIGNIFICANCE * level.unlearned.standard_error
    return " (below every linear filter of its radius)" if better else ""


def level_json(level: ModelLevel) -> dict[str, Any]:
    """One level as plain data."""
    return {
        "sigma": level.sigma,
        "limit": level.limit,
        "own_radius": level.own_radius if math.isfinite(level.own_radius) else None,
        "loss": _number(level.loss),
        "unlearned": _number(level.unlearned),
        "beyond": _number(level.beyond),
        "linear": [
            {"radius": one.coordinate if math.isfinite(one.coordinate) else None, **_number(one)}
            for one in level.linear
        ],
    }


def _number(one: Measurement) -> dict[str, Any]:
    return {"value": one.value, "standard_error": one.standard_error, "n": one.n}
