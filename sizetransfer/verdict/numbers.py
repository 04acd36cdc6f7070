"""The numbers of a claim as a report's table needs them: plain floats, NaN where unknown."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from sizetransfer.numerics.statistics import equivalent, p_outside
from sizetransfer.verdict.items import Generated, Law, Learning, Staying
from sizetransfer.verdict.outcome import GeneratedNumbers, LevelNumbers, SizeNumbers
from sizetransfer.verdict.questions import Case, growth_told, reference_skill, root, stable


def reach(case: Case) -> float:
    """L* over the training size: L* is the largest size such that the error stays at every size up to it."""
    reached = math.nan
    for size in case.sizes:
        if not all(stable(case, one) for one in case.found.staying if one.size == size):
            break
        reached = size / case.cell.training_size
    return reached


def level_numbers(case: Case) -> tuple[LevelNumbers, ...]:
    """Numbers at the training size, by noise level."""
    return tuple(_level(case, one) for one in case.found.learning)


def _level(case: Case, one: Learning) -> LevelNumbers:
    alpha, size = case.rule.alpha, case.cell.training_size
    costs = [cost for cost in case.found.costs if (cost.sigma, cost.size) == (one.sigma, size)]
    return LevelNumbers(
        sigma=one.sigma,
        error=one.error.value,
        error_lower=one.error.lower(alpha),
        error_upper=one.error.upper(alpha),
        null=one.null.value,
        skill=one.skill.value,
        skill_lower=one.skill.lower(alpha),
        skill_upper=one.skill.upper(alpha),
        linear=one.linear.value,
        best=one.best.value,
        irreducible=one.irreducible.value,
        linear_skill=reference_skill(one),
        locality=root(costs[0].squared.value) if costs else math.nan,
        locality_exact=bool(costs) and costs[0].exact,
        training=root(one.error.value**2 - one.reference.value**2),
    )


def size_numbers(case: Case) -> tuple[SizeNumbers, ...]:
    """Numbers at larger sizes, by noise level."""
    return tuple(_size(case, one) for one in case.found.staying)


def _size(case: Case, one: Staying) -> SizeNumbers:
    rule, ratio = case.rule, one.ratio
    return SizeNumbers(
        sigma=one.sigma,
        size=one.size,
        error=one.error.value,
        ratio=one.as_ratio(ratio.value),
        ratio_lower=one.as_ratio(ratio.lower(rule.alpha)),
        ratio_upper=one.as_ratio(ratio.upper(rule.alpha)),
        detectable_growth=growth_told(rule, one),
        skill=one.skill.value,
        standing=_standing(case, one),
    )


def _standing(case: Case, one: Staying) -> Literal["stable", "degrades", "unresolved", "missing"]:
    rule = case.rule
    if not one.ratio.known:
        return "missing"
    if stable(case, one):
        return "stable"
    rises = one.ratio.lower(rule.alpha) > one.on_scale(1 + rule.growth)
    tiny = one.skill.known and not one.skill.upper(rule.alpha) < rule.exempt_skill
    tiny = tiny or (one.squares and not one.lost.lower(rule.alpha) > rule.learned_skill)
    return "degrades" if rises and not tiny else "unresolved"


def generated_numbers(case: Case) -> tuple[GeneratedNumbers, ...]:
    """What is generated, by this model and by the best score of its radius, and how the law itself changes."""
    found = case.found
    return (
        *(_ratio(case, "this model", one, one.source, judged=one.local) for one in found.generated),
        *(_ratio(case, "the best of the radius", one, one.source, judged=one.local) for one in found.best_of_radius),
        *(_ratio(case, "the law itself", one, "", judged=True) for one in found.law),
    )


_Whose: TypeAlias = Literal["this model", "the best of the radius", "the law itself"]


def _ratio(case: Case, of: _Whose, one: Generated | Law, source: str, *, judged: bool) -> GeneratedNumbers:
    rule = case.rule
    within = equivalent(one.ratio, rule.equivalence, rule.alpha)
    outside = p_outside(one.ratio, rule.equivalence) <= rule.alpha
    return GeneratedNumbers(
        of=of,
        name=one.name,
        size=one.size,
        source=source,
        ratio=one.ratio.value,
        lower=one.ratio.lower(rule.alpha),
        upper=one.ratio.upper(rule.alpha),
        judged=judged,
        standing="equivalent" if within else "outside" if outside else "unresolved",
    )


def headline(case: Case) -> dict[str, float]:
    """One row of the report's table: the level of the least skill, and the largest ratio at the largest size."""
    levels, sizes = level_numbers(case), size_numbers(case)
    least = min(levels, key=lambda one: _or(one.skill, math.inf), default=None)
    names = ("sigma", "error", "null", "skill", "linear", "best", "irreducible", "locality", "training")
    row = {name: getattr(least, name, math.nan) for name in names}
    last = [one for one in sizes if one.size == max(case.sizes, default=0)]
    most = max(last, key=lambda one: _or(one.ratio, -math.inf), default=None)
    for name in ("size", "ratio", "ratio_lower", "ratio_upper", "detectable_growth"):
        row[name] = float(getattr(most, name, math.nan))
    row["reach"] = reach(case)
    row["correlation_length"] = root(case.found.correlation_squared.value)
    row["correlation_upper"] = root(case.found.correlation_squared.upper(case.rule.alpha))
    return row


def _or(value: float, instead: float) -> float:
    return instead if math.isnan(value) else value
