"""From evidence to one word: the first of *not learned, degrades with size, radius-limited, transfers, undecided*."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from sizetransfer.verdict.evidence import CLEAN, CellEvidence
from sizetransfer.verdict.findings import Findings, findings, recipe
from sizetransfer.verdict.numbers import generated_numbers, headline, level_numbers, reach, size_numbers
from sizetransfer.verdict.outcome import Judgement, Verdict, Word, growth
from sizetransfer.verdict.questions import (
    Answer,
    Case,
    Doubt,
    bulk,
    degrades,
    generates,
    knows_text,
    limited,
    not_learned,
)
from sizetransfer.verdict.spec import VerdictSpec, percent


def judge(evidence: CellEvidence, rule: VerdictSpec | None = None) -> Verdict:
    """The verdict on one student of one teacher: each training's word, the word they share, and the recipe's.

    Args:
        evidence: all that is known of it.
        rule: the thresholds; the defaults where none are given.
    """
    rule = rule or VerdictSpec()
    found = [findings(evidence, training) for training in evidence.trainings]
    trainings = tuple(
        _judgement(Case(evidence, one, rule), training.seed)
        for one, training in zip(found, evidence.trainings, strict=True)
    )
    word, qualifiers, reason, remedies = _shared(evidence, trainings)
    return Verdict(
        teacher=evidence.teacher,
        student=evidence.student,
        radius=evidence.radius,
        training_size=evidence.training_size,
        region=evidence.region,
        word=word,
        label=f"{word} ({', '.join(qualifiers)})" if qualifiers else word,
        reason=reason,
        what_would_decide=remedies,
        trainings=trainings,
        recipe=_recipe(evidence, found, rule),
    )


# --- one claim ------------------------------------------------------------------------------------------------


def _judgement(case: Case, seed: int | None) -> Judgement:
    word, reason, doubts = _decide(case)
    return Judgement(
        claim=case.found.claim,
        replicates=case.found.replicates,
        word=word,
        qualifiers=tuple(_qualifiers(case, word)),
        reason=_sentence(reason),
        what_would_decide=tuple(dict.fromkeys(doubt.remedy for doubt in doubts)),
        seed=seed,
        reach=reach(case),
        levels=level_numbers(case),
        sizes=size_numbers(case),
        generated=generated_numbers(case),
        headline=headline(case),
    )


Decision = tuple[Word, str, Sequence[Doubt]]


def _decide(case: Case) -> Decision:
    """The first word that applies, why, and what is in doubt."""
    if not case.cell.has_bulk:
        return _undecided([Doubt("no site is far enough from every wall", "a larger box or a smaller radius")])
    learned = not_learned(case)
    if learned.holds == "yes":
        return "not learned", learned.because, ()
    if learned.holds == "unclear":
        return _undecided(learned.doubts, *_noticed(case))
    rises, local = degrades(case), limited(case)
    if rises.holds == "yes":
        return "degrades with size", _but(case, rises.because), ()
    if local.holds == "yes":
        return "radius-limited", _but(case, local.because), ()
    return _transfers(case, rises, local)


def _transfers(case: Case, rises: Answer, local: Answer) -> Decision:
    made, box = generates(case), bulk(case)
    doubts = [*rises.doubts, *local.doubts, *made.doubts, *_losses_alone(case, made), *box.doubts]
    if doubts or rises.holds != "no" or local.holds != "no" or box.holds != "yes":
        return _undecided(doubts)
    return "transfers", "; ".join((f"{_known(case)}, and {_stays(case)}", made.because, box.because)), ()


def _losses_alone(case: Case, made: Answer) -> Iterator[Doubt]:
    """Losses say nothing of what no linear filter gains: without what is generated they are no transfer."""
    if case.cell.from_data and made.holds == "no" and not made.doubts:
        text = f"what it generates at {case.at(max(case.sizes, default=case.cell.training_size))} is not known"
        yield Doubt(f"{text}, and losses alone do not tell", "generated fields against held-out ones of that size")


def _noticed(case: Case) -> Iterator[str]:
    """What a student shows of which it is open whether it learned."""
    for answer in (degrades(case), limited(case)):
        if answer.holds == "yes":
            yield answer.because


def _undecided(doubts: Sequence[Doubt], *noticed: str) -> Decision:
    texts = [doubt.text for doubt in doubts]
    shown = [*texts[:3], *([f"and {len(texts) - 3} more"] if len(texts) > 3 else []), *noticed]
    return "undecided", "; ".join(shown), doubts


def _known(case: Case) -> str:
    least = min(case.found.learning, key=lambda one: one.skill.value if one.skill.known else math.inf)
    return knows_text(case, least) if least.skill.known else f"its error is {least.error.value:.3g}"


def _but(case: Case, problem: str) -> str:
    return f"{_known(case)}, but {problem}"


def _stays(case: Case) -> str:
    """Where and how well the error stays: of the level that grows the most."""
    last = [one for one in case.found.staying if one.size == max(case.sizes)]
    most = max(last, key=lambda one: one.ratio.upper(case.rule.alpha))
    sizes = f"from {case.at(case.cell.training_size)} to {most.size}"
    if most.squares:
        shares = f"{percent(most.skill.value + most.lost.value)} and {percent(most.skill.value)}"
        lost = percent(most.lost.upper(case.rule.alpha))
        return f"this share stays, {shares}, {sizes} (at most {lost} is lost)"
    rise = most.as_ratio(most.ratio.value)
    before = most.error.value / rise
    errors = f"{before:.3g} and {most.error.value:.3g}, {sizes}"
    if most.ratio.upper(case.rule.alpha) >= most.on_scale(1 + case.rule.growth):
        least = percent(case.rule.exempt_skill)
        known = percent(most.skill.value)
        return f"its error stays tiny, {errors}: it knows {known} there, and above {least} no rise counts"
    limit = f"below {most.as_ratio(most.ratio.upper(case.rule.alpha)):.3g} at {case.confidence}"
    return f"its error stays, {errors} (ρ = {rise:.3g}, {limit})"


def _qualifiers(case: Case, word: Word) -> Iterator[str]:
    if case.cell.of_radius:
        yield "of the radius"
    if {one.sigma for one in case.found.learning} == {CLEAN} and word != "undecided":
        yield "clean score"
    last = [one for one in case.found.generated if one.local and one.size == max(case.sizes, default=0)]
    forecast = word == "transfers" and any(one.source == "second-order forecast" for one in last)
    if forecast or (case.cell.from_data and word not in {"undecided", "not learned"}):
        yield "to second order"
    if case.cell.from_data and word != "undecided":
        yield "from data"
    if word != "transfers":
        return
    if not last:
        yield "score only"
    if any(one.starts_short for one in last):
        yield "from the trained σ_max"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


# --- several trainings ----------------------------------------------------------------------------------------


def _missing(cell: CellEvidence) -> list[int]:
    present = {training.seed for training in cell.trainings}
    return [seed for seed in cell.seeds if seed not in present]


def _shared(cell: CellEvidence, trainings: Sequence[Judgement]) -> tuple[Word, list[str], str, tuple[str, ...]]:
    """The word that all trainings share, with every qualifier that any of them has."""
    gaps, words = _missing(cell), {one.word for one in trainings}
    if gaps or not trainings:
        names = f"seeds {', '.join(map(str, gaps))}" if gaps else "every training"
        return "undecided", [], f"Missing: {names}.", (f"the training of {names}",)
    remedies = tuple(dict.fromkeys(remedy for one in trainings for remedy in one.what_would_decide))
    if len(words) > 1:
        listed = ", ".join(f"{word} ({count})" for word, count in Counter(one.label for one in trainings).items())
        return "undecided", [], f"The trainings do not agree: {listed}.", remedies or ("more seeds",)
    qualifiers = dict.fromkeys(one for training in trainings for one in training.qualifiers)
    typical = max(trainings, key=growth)
    same = f"All {len(trainings)} trainings agree; seed {typical.seed}: " if len(trainings) > 1 else ""
    return typical.word, list(qualifiers), same + typical.reason, remedies


def _recipe(cell: CellEvidence, found: Sequence[Findings], rule: VerdictSpec) -> Judgement:
    """The claim of the recipe: nothing with fewer seeds than it takes, or with one missing."""
    gaps = _missing(cell)
    if len(found) < rule.seeds or gaps:
        few = f"the claim of a recipe takes {rule.seeds} trainings; there are {len(found)}"
        lacking = f"seeds {', '.join(map(str, gaps))} are missing" if gaps else few
        remedy = f"at least {rule.seeds} seeds, all of them measured"
        return Judgement("this recipe", len(found), "undecided", (), _sentence(lacking), (remedy,))
    return _judgement(Case(cell, recipe(cell, found), rule), None)
