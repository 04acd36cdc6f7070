"""The questions of the verdict: was it learned, does it stay, what does locality cost, what is generated, is it bulk.

Each answer is *yes* (established), *no* (excluded) or *unclear*, and an unclear one says what is in doubt and what
would settle it. Only tests speak: what is missing, or is not a finite number, is never a yes or a no.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sizetransfer.contracts.quantity import Quantity
from sizetransfer.numerics.statistics import detectable_growth, equivalent, holm, more_needed, p_outside
from sizetransfer.verdict.evidence import CellEvidence
from sizetransfer.verdict.findings import Findings
from sizetransfer.verdict.items import Advantage, Cost, Generated, Learning, Staying
from sizetransfer.verdict.outcome import Holds
from sizetransfer.verdict.spec import VerdictSpec, percent


@dataclass(frozen=True)
class Doubt:
    """What is not settled, and what would settle it."""

    text: str
    remedy: str


@dataclass(frozen=True)
class Answer:
    """Whether something holds, why, and what leaves it open."""

    holds: Holds
    because: str = ""
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True)
class Case:
    """The quantities of one claim, of which student, and the thresholds."""

    cell: CellEvidence
    found: Findings
    rule: VerdictSpec

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes above the training size."""
        return self.cell.larger_sizes

    def at(self, size: int) -> str:
        """A size as it is written."""
        return f"{self.cell.symbol} = {size}"

    @property
    def confidence(self) -> str:
        """Of a one-sided limit."""
        return percent(1 - self.rule.alpha)

    @property
    def filter_name(self) -> str:
        """What the student is held against, when that is linear."""
        radius = self.cell.radius
        return "the best linear filter" + (" of the whole lattice" if radius is None else f" of radius {radius}")

    def more(self, estimate: Quantity, threshold: float) -> str:
        """How many fields or seeds would settle on which side of a threshold the estimate is."""
        unit = "fields" if self.found.claim == "this model" else "seeds"
        if not math.isfinite(estimate.margin(self.rule.alpha)):
            return f"more than one of the independent {unit}"
        factor = more_needed(estimate, threshold, self.rule.alpha)
        if factor > 1000:
            return f"no affordable number of {unit}, as long as it is so near the threshold: other sizes, or more steps"
        return f"about {math.ceil(factor * self.found.replicates)} {unit} ({self.found.replicates} now)"


def level_name(sigma: float) -> str:
    """Which score an error is of."""
    return "clean score" if sigma == 0 else f"score at σ = {sigma:g}"


def exempt(case: Case, one: Staying) -> bool:
    """Whether the error stays so small that a relative rise of it is no degradation.

    By losses a student may be better than linear, with an error that is not known: then its skill has to stay, too.
    """
    alpha, least = case.rule.alpha, case.rule.exempt_skill
    stays = not one.squares or one.lost.upper(alpha) < 1 - least
    return stays and one.skill.lower(alpha) > least


def stable(case: Case, one: Staying) -> bool:
    """Whether the error stays: the upper limit of its ratio is below the allowed growth, or it is exempt."""
    return one.ratio.upper(case.rule.alpha) < one.on_scale(1 + case.rule.growth) or (
        one.ratio.known and exempt(case, one)
    )


def _established(tests: Mapping[str, float], alpha: float) -> set[str]:
    """Names of the tests that speak: by Holm; comparisons of exact numbers, with p of 0 or 1, are facts beside them."""
    random = {name: p for name, p in tests.items() if p not in {0, 1}}
    return holm(random, alpha) | {name for name, p in tests.items() if p == 0}


# --- was it learned? ------------------------------------------------------------------------------------------


def not_learned(case: Case) -> Answer:
    """Whether too little was learned at the training size."""
    levels = {one.sigma: one for one in case.found.learning}
    if not levels:
        return Answer("unclear", doubts=(Doubt("no error of the score was measured", "a measure of the score error"),))
    if case.cell.of_radius:
        return Answer("no", "the best filter of the radius has learned by construction")
    tests = {name: p for one in levels.values() for name, p in _too_little(case, one)}
    rejected = _established(tests, case.rule.alpha)
    for one in sorted(levels.values(), key=_least_skill):
        for name, because in ((f"excess {one.sigma}", _excess_text), (f"skill {one.sigma}", _skill_text)):
            if name in rejected:
                return Answer("yes", because(case, one))
    doubts = tuple(doubt for one in levels.values() for doubt in _learning_doubts(case, one))
    return Answer("unclear" if doubts else "no", doubts=doubts)


def _least_skill(one: Learning) -> float:
    return one.skill.value if one.skill.known else math.inf


def _too_little(case: Case, one: Learning) -> Iterator[tuple[str, float]]:
    rule = case.rule
    yield f"skill {one.sigma}", one.skill.p_below(rule.skill)
    if one.reference.known:
        # Both have to be exceeded, so that the larger p-value is that of their conjunction.
        pair = (
            one.excess_error.p_above(one.excess_on_scale(rule.learned_error)),
            one.excess_skill.p_above(rule.learned_skill),
        )
        yield f"excess {one.sigma}", math.nan if math.isnan(sum(pair)) else max(pair)


def _knows(one: Learning) -> str:
    what = "what linear filters gain of the" if one.squares else "the squared"
    return f"it knows {percent(max(one.skill.value, 0.0))} of {what} {level_name(one.sigma)}"


def reference_name(case: Case, one: Learning) -> str:
    """What the student is held against."""
    if not one.irreducible.known:
        return case.filter_name
    return "the exact score" if case.cell.radius is None else f"the best score of radius {case.cell.radius}"


def reference_skill(one: Learning) -> float:
    """Skill of what the student is held against; NaN where unknown."""
    return 1 - (one.reference.value / one.null.value) ** 2 if one.null.value > 0 else math.nan


def knows_text(case: Case, one: Learning) -> str:
    """The share of the squared score that is known, beside that of the reference."""
    if not one.reference.known:
        return _knows(one)
    return f"{_knows(one)} where {reference_name(case, one)} knows {percent(max(reference_skill(one), 0.0))}"


def _excess_text(case: Case, one: Learning) -> str:
    place = case.at(case.cell.training_size)
    errors = f"{_at_least(one)}{one.error.value:.3g} against {one.reference.value:.3g} at {place}"
    return f"{knows_text(case, one)}: an error of {errors}, so nothing is said about size"


def _at_least(one: Learning) -> str:
    """Losses bound an error from below, to second order."""
    return "at least " if one.squares else ""


def _skill_text(case: Case, one: Learning) -> str:
    rule, place = case.rule, case.at(case.cell.training_size)
    limit = f"below {percent(one.skill.upper(rule.alpha))} at {case.confidence}; {percent(rule.skill)} are asked for"
    errors = f"an error of {_at_least(one)}{one.error.value:.3g} where a filter of radius 0 has {one.null.value:.3g}"
    return f"{knows_text(case, one)} ({limit}): {errors} at {place}, so nothing is said about size"


def _learning_doubts(case: Case, one: Learning) -> Iterator[Doubt]:
    rule, name, place = case.rule, level_name(one.sigma), case.at(case.cell.training_size)
    if not one.error.known and one.squares:
        text = f"what linear filters of this and of larger radii reach for the {name} at {place} is not known"
        yield Doubt(text, f"their held-out losses at {place}: training fields of this size, of crops larger ones")
        return
    if not one.error.known:
        yield Doubt(f"the error of the {name} at {place} is missing or not a number", f"this error at {place}")
        return
    if not one.skill.known:
        yield Doubt(
            f"what a filter of radius 0 does for the {name} is not known",
            "the null error from the same fields: a measure of linear references",
        )
    elif not one.skill.lower(rule.alpha) >= rule.skill:
        text = f"a skill of {one.skill.value:.3g} for the {name} is not told from {rule.skill:g} at {case.confidence}"
        yield Doubt(text, f"{case.more(one.skill, rule.skill)}, or more training steps")
    if one.reference.known and not _as_good(case, one):
        text = f"whether it reaches {reference_name(case, one)} for the {name} is open"
        errors = f"{one.error.value:.3g} against {one.reference.value:.3g}"
        yield Doubt(f"{text} ({errors})", f"{case.more(one.excess_skill, rule.learned_skill)}, or more training steps")


def _as_good(case: Case, one: Learning) -> bool:
    alpha = case.rule.alpha
    return (
        one.excess_error.upper(alpha) <= one.excess_on_scale(case.rule.learned_error)
        or one.excess_skill.upper(alpha) <= case.rule.learned_skill
    )


# --- does it stay? --------------------------------------------------------------------------------------------


def degrades(case: Case) -> Answer:
    """Whether the error rises at some larger size; excluded where it stays at every one, and they reach far enough."""
    staying = {f"{one.sigma} {one.size}": one for one in case.found.staying}
    rejected = _established({name: _p_rise(case, one) for name, one in staying.items()}, case.rule.alpha)
    rising = [staying[name] for name in staying if name in rejected]
    if rising:
        return Answer("yes", _rise_text(case, min(rising, key=lambda one: (one.size, -one.ratio.value))))
    doubts = (*_reach_doubts(case), *(doubt for one in staying.values() for doubt in _staying_doubts(case, one)))
    return Answer("unclear" if doubts else "no", doubts=tuple(doubts))


def _p_rise(case: Case, one: Staying) -> float:
    rise = one.ratio.p_above(one.on_scale(1 + case.rule.growth))
    rise = max(rise, one.lost.p_above(case.rule.learned_skill)) if one.squares else rise
    return max(rise, one.skill.p_below(case.rule.exempt_skill)) if one.skill.known else rise


def _rise_text(case: Case, one: Staying) -> str:
    if one.squares:
        return _loss_text(case, one)
    ratio, lower = one.as_ratio(one.ratio.value), one.as_ratio(one.ratio.lower(case.rule.alpha))
    before = one.error.value / ratio
    change = f"rises from {before:.3g} to {one.error.value:.3g} from {case.at(case.cell.training_size)} to {one.size}"
    return (
        f"the error of its {level_name(one.sigma)} {change} (ρ = {ratio:.3g}, above {lower:.3g} at {case.confidence})"
    )


def _loss_text(case: Case, one: Staying) -> str:
    before, after = percent(one.skill.value + one.lost.value), percent(one.skill.value)
    change = f"falls from {before} to {after} from {case.at(case.cell.training_size)} to {one.size}"
    lower = f"by more than {percent(one.lost.lower(case.rule.alpha))} at {case.confidence}"
    return f"what it knows of what linear filters gain of its {level_name(one.sigma)} {change} ({lower})"


def _reach_doubts(case: Case) -> Iterator[Doubt]:
    trained, needed = case.cell.training_size, math.ceil(case.rule.reach * case.cell.training_size - 1e-9)
    if not case.sizes:
        yield Doubt(f"nothing was measured above the training size {trained}", f"errors at {case.at(needed)} or larger")
    elif max(case.sizes) < needed:
        text = f"the largest size, {max(case.sizes)}, is only {max(case.sizes) / trained:.3g} times the training size"
        yield Doubt(text, f"errors at {case.at(needed)} or larger")


def _staying_doubts(case: Case, one: Staying) -> Iterator[Doubt]:
    if stable(case, one):
        return
    if not one.ratio.known:
        text = (
            f"the error of the {level_name(one.sigma)} at {case.at(one.size)} has no finite ratio to that of training"
        )
        yield Doubt(text, f"this error at {case.at(case.cell.training_size)} and {one.size}")
        return
    rule = case.rule
    if one.squares and one.skill.upper(rule.alpha) > rule.exempt_skill:
        yield _lost_doubt(case, one)
        return
    called = growth_told(rule, one)
    ratio = f"the ratio of the errors at {case.at(one.size)} is {one.as_ratio(one.ratio.value):.3g}"
    lower, upper = (f"{one.as_ratio(limit(rule.alpha)):.3g}" for limit in (one.ratio.lower, one.ratio.upper))
    limits = f"between {lower} and {upper} at {case.confidence}"
    text = f"{ratio}, {limits}, where a growth of {percent(called)} could have been called"
    text = text if math.isfinite(called) else f"{ratio}, without a standard error"
    yield Doubt(text, case.more(one.ratio, one.on_scale(1 + rule.growth)))


def _lost_doubt(case: Case, one: Staying) -> Doubt:
    """Of a student that knows all that linear filters gain, or more."""
    allowed, alpha = 1 - case.rule.exempt_skill, case.rule.alpha
    lower, upper = (100 * limit for limit in (one.lost.lower(alpha), one.lost.upper(alpha)))
    what = f"of what linear filters gain of the {level_name(one.sigma)}, between {lower:.3g} and {upper:.3g} %"
    text = f"{what} is lost at {case.at(one.size)}, where {percent(allowed)} may be"
    return Doubt(text, case.more(one.lost, allowed))


def growth_told(rule: VerdictSpec, one: Staying) -> float:
    """The smallest growth that could have been called; NaN where the ratio is not known."""
    if not one.ratio.known:
        return math.nan
    if one.squares:
        return one.as_ratio(one.on_scale(1 + rule.growth) + one.ratio.margin(rule.alpha)) - 1
    return detectable_growth(one.ratio, rule.growth, rule.alpha)


# --- what does locality cost? ---------------------------------------------------------------------------------


def limited(case: Case) -> Answer:
    """Whether the radius is too small: by the references, by larger students, by the best score of the radius."""
    if case.cell.radius is None:
        return Answer("no", "a global student has no cost of locality")
    texts: dict[str, str] = {}
    tests: dict[str, float] = {}
    for name, p, text in _costs_of_locality(case):
        tests[name], texts[name] = p, text
    rejected = _established(tests, case.rule.alpha)
    for name, text in texts.items():
        if name in rejected:
            return Answer("yes", text)
    doubts = tuple(_locality_doubts(case))
    return Answer("unclear" if doubts else "no", doubts=doubts)


def _costs_of_locality(case: Case) -> Iterator[tuple[str, float, str]]:
    rule = case.rule
    for cost in sorted(case.found.costs, key=lambda one: -one.squared.value):
        yield f"cost {cost.sigma} {cost.size}", cost.squared.p_above(rule.locality**2), _cost_text(case, cost)
    for one in case.found.advantages:
        pair = one.ratio.p_below(one.on_scale(1 - rule.better_error)), one.gain.p_above(rule.better_skill)
        p = math.nan if math.isnan(sum(pair)) else max(pair)
        yield f"student {one.student} {one.sigma} {one.size}", p, _better_text(case, one)
    for made in _local(case.found.best_of_radius):
        p = p_outside(made.ratio, rule.equivalence)
        yield f"best {made.name} {made.size}", p, _best_text(case, made)


def root(squared: float) -> float:
    """The error of this square; a negative one, from noise, is none; NaN stays."""
    return squared if math.isnan(squared) else math.sqrt(max(squared, 0.0))


def _cost_text(case: Case, cost: Cost) -> str:
    how = "exactly" if cost.exact else "to second order"
    error = root(cost.squared.value)
    place = f"the {level_name(cost.sigma)} at {case.at(cost.size)}"
    return (
        f"radius {case.cell.radius} alone costs an error of {error:.3g} of {place} ({how}; {case.rule.locality:g} may)"
    )


def _better_text(case: Case, one: Advantage) -> str:
    radius = "global" if one.radius is None else f"radius {one.radius}"
    lowers = f"lowers the error of the {level_name(one.sigma)} at {case.at(one.size)} by"
    return f"the student {one.student} ({radius}) {lowers} {percent(1 - one.as_ratio(min(one.ratio.value, 0.0)))}"


def _best_text(case: Case, made: Generated) -> str:
    share = case.rule.equivalence
    tolerance = f"{1 - share:g} to {1 + share:g} may be"
    return f"even the best score of radius {case.cell.radius} generates {generated_text(case, made)}; {tolerance}"


def generated_text(case: Case, made: Generated) -> str:
    """What is generated, with its size and source."""
    return f"{made.ratio.value:.3g} of the {made.name} at {case.at(made.size)} ({made.source})"


def _locality_doubts(case: Case) -> Iterator[Doubt]:
    rule, known = case.rule, {one.sigma for one in case.found.costs if one.size == case.cell.training_size}
    for one in case.found.learning:
        if one.sigma not in known:
            text = f"what locality costs the {level_name(one.sigma)} is not known"
            radius = case.cell.radius
            references = f"the linear references of radius {radius} and of the whole lattice at the training size"
            # Before training they were asked for: what they lacked were fields.
            source = "more reference fields" if case.cell.of_radius else "a measure of linear references"
            source = "larger radii in the measure of losses" if case.cell.from_data else source
            yield Doubt(text, f"{references}: {source}")
    for cost in case.found.costs:
        if not cost.squared.upper(rule.alpha) <= rule.locality**2:
            text = f"{_cost_text(case, cost)}, and is not told from {rule.locality:g}"
            yield Doubt(text, f"the references from {case.more(cost.squared, rule.locality**2)}")
    yield from (doubt for one in case.found.advantages for doubt in _advantage_doubts(case, one))
    for made in _local(case.found.best_of_radius):
        yield from _generated_doubts(case, made, "the best score of the radius")


def _advantage_doubts(case: Case, one: Advantage) -> Iterator[Doubt]:
    rule, place = case.rule, f"{level_name(one.sigma)} at {case.at(one.size)}"
    edge = one.on_scale(1 - rule.better_error)
    worse = one.ratio.lower(rule.alpha) >= edge
    if worse or one.gain.upper(rule.alpha) <= rule.better_skill:
        return
    if not one.ratio.known or not one.gain.known:
        yield Doubt(f"the student {one.student} has no error for the {place}", f"the student {one.student} there")
        return
    text = f"whether {one.student}, of larger radius, is better by more than {percent(rule.better_error)} is open"
    yield Doubt(f"{text} ({place})", case.more(one.ratio, edge))


def _local(made: Iterable[Generated]) -> Iterator[Generated]:
    return (one for one in made if one.local)


# --- what does it generate? -----------------------------------------------------------------------------------


def generates(case: Case) -> Answer:
    """Whether local marginals are those of the law at every size where they are known; ``no``: they are not known."""
    made = list(_local(case.found.generated))
    if not any(one.size == max(case.sizes, default=0) for one in made):
        doubts = tuple(doubt for one in made for doubt in _generated_doubts(case, one, "this model"))
        return Answer("unclear" if doubts else "no", "what it generates there is not known", doubts)
    doubts = tuple(doubt for one in made for doubt in _generated_doubts(case, one, "this model"))
    last = [one for one in made if one.size == max(case.sizes)]
    shares = " and ".join(f"{one.ratio.value:.3g} of the {one.name}" for one in last)
    text = f"it generates {shares} at {case.at(last[0].size)} ({last[0].source}){_long_range(case)}"
    return Answer("unclear" if doubts else "yes", text, doubts)


def _long_range(case: Case) -> str:
    """Long-range order at the largest size, which is said but not judged."""
    found = [one for one in case.found.generated if not one.local and one.size == max(case.sizes)]
    known = [f"{one.ratio.value:.3g} of {one.name}" for one in found if one.ratio.known]
    return f", and of long-range order {' and '.join(known)}" if known else ""


def _generated_doubts(case: Case, made: Generated, whose: str) -> Iterator[Doubt]:
    rule = case.rule
    if equivalent(made.ratio, rule.equivalence, rule.alpha):
        return
    text = f"{whose} generates {generated_text(case, made)}"
    if p_outside(made.ratio, rule.equivalence) <= rule.alpha:
        remedy = "no more of the same data: errors above the site deviation, or the training, are to be looked at"
        yield Doubt(f"{text}, outside the tolerance, though its score stays", remedy)
    elif not made.ratio.known:
        yield Doubt(f"the {made.name} that {whose} generates is not a number", "generated fields again")
    else:
        edge = 1 + math.copysign(rule.equivalence, made.ratio.value - 1)
        yield Doubt(f"{text}, not told from the tolerance of {rule.equivalence:g}", _more_generated(case, made, edge))


def _more_generated(case: Case, made: Generated, edge: float) -> str:
    factor = more_needed(made.ratio, edge, case.rule.alpha)
    return f"about {math.ceil(factor)} times as many generated fields" if factor < 1000 else "a better score"


# --- is the training box the bulk? ----------------------------------------------------------------------------


def bulk(case: Case) -> Answer:
    """Whether the training box is the bulk: by the correlation length, or by the law itself at both sizes."""
    rule, allowed = case.rule, case.rule.correlation_share * case.cell.training_size
    upper = root(case.found.correlation_squared.upper(rule.alpha))
    if upper <= allowed:
        text = f"the correlation length, at most {upper:.3g}, is below {allowed:g}"
        return Answer("yes", f"the training box is the bulk ({text})")
    largest = max(case.sizes, default=0)
    law = [one for one in case.found.law if one.size == largest]
    if law and all(equivalent(one.ratio, rule.equivalence, rule.alpha) for one in law):
        return Answer("yes", f"the training box is the bulk (its law is that of {case.at(largest)})")
    return Answer("unclear", doubts=(_bulk_doubt(case, upper, allowed),))


def _bulk_doubt(case: Case, upper: float, allowed: float) -> Doubt:
    needed = "the correlation length of exact fields, or the law's own marginals and S(0) at both sizes"
    if math.isfinite(upper):
        size = math.ceil(upper / case.rule.correlation_share)
        text = f"the training box is not known to be the bulk: the correlation length, up to {upper:.3g}, exceeds"
        return Doubt(f"{text} {allowed:g}", f"training at {case.at(size)} or larger, or more exact fields")
    changed = [one for one in case.found.law if not equivalent(one.ratio, case.rule.equivalence, case.rule.alpha)]
    if changed:
        most = max(changed, key=lambda one: abs(one.ratio.value - 1))
        law = f"the law's own {most.name} at {case.at(most.size)} is {most.ratio.value:.3g} of that at training"
        return Doubt(f"the training box is not the bulk: {law}", "training at a larger size")
    return Doubt("whether the training box is the bulk is not known", needed)
