"""The thresholds of the verdict, and the rule in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import Spec

EARLIER: Mapping[str, str] = {
    "significance": "alpha, the level of every test",
    "improvement": "better_error and better_skill, the advantage of a larger radius, and locality",
    "failure": "skill, below which nothing was learned",
}
"""Thresholds of an earlier rule, with what took their place."""


class VerdictSpec(Spec):
    """Thresholds of the verdict; :func:`describe` says the rule with them.

    Attributes:
        alpha: level of every test, one-sided.
        growth: relative rise of the error, from the training size, that is still called stable.
        exempt_skill: skill above which a relative rise of a tiny error is no degradation.
        skill: skill below which nothing was learned.
        learned_error, learned_skill: excess over the reference of the radius, relative to the error and in skill, that
            is too much where both are exceeded.
        locality: error that locality alone may cost.
        better_error, better_skill: advantage of a larger radius, relative to the error and in skill, that makes a
            student radius-limited where both are exceeded.
        reach: largest stable size in units of the training size that is called a transfer.
        equivalence: tolerance of generated over exact local marginals.
        correlation_share: share of the training size up to which a correlation length makes the training box the bulk.
        seeds: trainings that the claim of a recipe needs.
        compare: the larger radii that a student is held against: ``all`` of the experiment, or those of students of the
            same ``kind`` alone, where students differ in more than the radius.
    """

    alpha: float = Field(0.01, gt=0, lt=0.5)
    growth: float = Field(0.1, gt=0, allow_inf_nan=False)
    exempt_skill: float = Field(0.99, gt=0, le=1)
    skill: float = Field(0.5, ge=0, lt=1)
    learned_error: float = Field(0.1, ge=0, lt=1)
    learned_skill: float = Field(0.03, ge=0, lt=1)
    locality: float = Field(0.1, gt=0, lt=1)
    better_error: float = Field(0.1, ge=0, lt=1)
    better_skill: float = Field(0.01, ge=0, lt=1)
    reach: float = Field(1.5, gt=1, allow_inf_nan=False)
    equivalence: float = Field(0.1, gt=0, lt=1)
    correlation_share: float = Field(0.25, gt=0, le=1)
    seeds: int = Field(3, ge=2)
    compare: Literal["all", "kind"] = "all"

    @model_validator(mode="before")
    @classmethod
    def _no_earlier_thresholds(cls, data: Any, info: ValidationInfo) -> Any:
        old = [name for name in EARLIER if isinstance(data, Mapping) and name in data]
        if not old:
            return data
        raise SpecError(
            "The verdict has other thresholds now.",
            where=".".join(filter(None, [(info.context or {}).get("where"), "verdict", old[0]])),
            expected=f"one of {', '.join(cls.model_fields)}",
            got=", ".join(old),
            fix="; ".join(f"instead of {name} set {EARLIER[name]}" for name in old),
        )


def describe(rule: VerdictSpec, *, symbol: str = "L") -> str:
    """The rule in words, with its thresholds; one paragraph a line.

    Args:
        rule: the thresholds.
        symbol: how sizes are called.
    """
    among = " and the same kind" if rule.compare == "kind" else ""
    level, tolerance = percent(rule.alpha), percent(rule.equivalence)
    return f"""\
e is the relative error of the score and e_0 that of the best filter of radius 0; the skill, 1 - (e / e_0)^2, is the \
share of the squared score that is known beyond that filter. Judged are the clean score and the noise levels up to \
the site deviation of the data. Every test is one-sided at {level}: over independent fields for the claim of one \
model, over at least {rule.seeds} seeds for that of a recipe; where several tests could make a claim, Holm's \
step-down keeps {level} for all of them. The first word that applies:
not learned: at the training size, e exceeds that of the best linear filter of its radius (the irreducible error, \
where it is known; the filter of the whole lattice for a global student) by more than {percent(rule.learned_error)} \
of e and {rule.learned_skill:g} of skill; or the skill is below {rule.skill:g}. Nothing is said about size.
degrades with size: at some larger size, e({symbol}) / e({symbol}_train) is above {1 + rule.growth:g}; a rise of a \
tiny error is none while the skill stays above {rule.exempt_skill:g}.
radius-limited: what locality costs, the root of e_R^2 - e_best^2 of the references, is above {rule.locality:g} at \
some judged noise level; or a student of larger radius{among} is better by more than \
{percent(rule.better_error)} of e and {rule.better_skill:g} of skill; or the best score of the radius at {symbol} \
generates a site variance or a nearest-neighbour covariance that is off by more than {tolerance}.
transfers: each of these is excluded, not merely not shown: e({symbol}) / e({symbol}_train) is below \
{1 + rule.growth:g} at every larger size, and the largest is at least {rule.reach:g} times the training size; the \
generated site variance and nearest-neighbour covariance are within {tolerance} there; and the training box is the \
bulk: the correlation length, with its upper limit, is at most {rule.correlation_share:g} {symbol}_train, or the \
law's own local marginals and S(0) agree within {tolerance} between the sizes. "To second order": what is generated \
is a forecast. "Score only": it is not known. "From the trained sigma_max": the reverse process started below the \
noise level that the size needs.
from data: where no error of the score is known, held-out denoising losses stand in for it, on the same fields and \
noise as those of linear filters, the best of which is taken for the exact score. To second order, e^2 is the loss \
over that of the best filter, relative to what that filter knows, and the skill the share of what it gains over \
radius 0; a student that is better than linear stays where its skill does, within {1 - rule.exempt_skill:.2g}, and \
degrades where it falls behind the filter by {rule.learned_skill:g}. So "radius-limited", "degrades" and "transfers" \
are said "to second order", and "transfers" only where what is generated is known.
undecided: all else, with what would decide it. Trainings that do not share a word leave their cell undecided."""


def percent(share: float) -> str:
    """A share as it is read: 0.1 is 10 %."""
    return f"{100 * share:.3g} %"
