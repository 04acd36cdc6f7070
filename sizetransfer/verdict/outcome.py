"""What a verdict says, as data: one word, its reason, what would decide it, and every number that it rests on.

Numbers here are flat, a value and the limits of the rule's level beside each other, because they are the columns of
tables and of ``verdicts.json``; :mod:`sizetransfer.verdict.findings` has them as quantities with their errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

Word: TypeAlias = Literal["not learned", "degrades with size", "radius-limited", "transfers", "undecided"]
WORDS: tuple[Word, ...] = ("not learned", "degrades with size", "radius-limited", "transfers", "undecided")
"""In their order: the first that applies."""

Claim: TypeAlias = Literal["this model", "this recipe"]
Holds: TypeAlias = Literal["yes", "no", "unclear"]
"""Whether something is established, excluded, or neither."""


@dataclass(frozen=True)
class LevelNumbers:
    """The numbers at one noise level of the training size; NaN where unknown.

    Attributes:
        sigma: noise level; zero: the clean score.
        error, error_lower, error_upper: relative error with its limits.
        null: that of the best filter of radius 0.
        skill, skill_lower, skill_upper: share of the squared score known beyond that filter.
        linear, best, irreducible: errors of the references.
        linear_skill: skill of the reference that the student is held against.
        locality: error that locality costs; exact, or to second order.
        locality_exact: which.
        training: error that training adds to that of the reference, at least.
    """

    sigma: float
    error: float
    error_lower: float
    error_upper: float
    null: float
    skill: float
    skill_lower: float
    skill_upper: float
    linear: float
    best: float
    irreducible: float
    linear_skill: float
    locality: float
    locality_exact: bool
    training: float


@dataclass(frozen=True)
class SizeNumbers:
    """The numbers at one noise level of a larger size; NaN where unknown.

    Attributes:
        sigma, size: where.
        error: relative error there.
        ratio, ratio_lower, ratio_upper: the error relative to that at the training size, with its limits.
        detectable_growth: smallest growth that could have been called.
        skill: there.
        standing: whether the error stays.
    """

    sigma: float
    size: int
    error: float
    ratio: float
    ratio_lower: float
    ratio_upper: float
    detectable_growth: float
    skill: float
    standing: Literal["stable", "degrades", "unresolved", "missing"]


@dataclass(frozen=True)
class GeneratedNumbers:
    """A ratio of generated to exact statistics with its limits, or of the law's own at this to the training size.

    Attributes:
        of: whose score generates; or the law itself, which no score takes part in.
        name, size, source: what, where, and how it is known.
        ratio, lower, upper: the ratio with its limits.
        judged: a local marginal; long-range order is said alone.
        standing: whether it is within the tolerance.
    """

    of: Literal["this model", "the best of the radius", "the law itself"]
    name: str
    size: int
    source: str
    ratio: float
    lower: float
    upper: float
    judged: bool
    standing: Literal["equivalent", "outside", "unresolved"]


@dataclass(frozen=True)
class Judgement:
    """The word of one claim.

    Attributes:
        claim: of this model (fields are the replicates), or of this recipe (seeds are).
        replicates: how many fields or seeds.
        word: the word.
        qualifiers: what it rests on, such as ``to second order`` or ``score only``.
        reason: why, in a sentence with its numbers.
        what_would_decide: of an undecided one: seeds, fields, sizes, steps.
        seed: of which training; ``None`` for a recipe.
        reach: largest stable size over the training size; NaN where there is none.
        levels, sizes, generated: the numbers.
        headline: the numbers of the report's table: those of the level of the least skill, and of the largest growth.
    """

    claim: Claim
    replicates: int
    word: Word
    qualifiers: tuple[str, ...]
    reason: str
    what_would_decide: tuple[str, ...] = ()
    seed: int | None = None
    reach: float = math.nan
    levels: tuple[LevelNumbers, ...] = ()
    sizes: tuple[SizeNumbers, ...] = ()
    generated: tuple[GeneratedNumbers, ...] = ()
    headline: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The word with its qualifiers."""
        return f"{self.word} ({', '.join(self.qualifiers)})" if self.qualifiers else self.word


@dataclass(frozen=True)
class Verdict:
    """What became of one student of one teacher.

    Attributes:
        teacher, student, radius, training_size, region: whose verdict it is.
        word: the word that its trainings share; undecided where they do not.
        label: the word with its qualifiers.
        reason: why, in a sentence with its numbers.
        what_would_decide: of an undecided one.
        trainings: of each training, the claim of this model.
        recipe: over seeds.
    """

    teacher: str
    student: str
    radius: int | None
    training_size: int
    region: str
    word: Word
    label: str
    reason: str
    what_would_decide: tuple[str, ...]
    trainings: tuple[Judgement, ...]
    recipe: Judgement

    @property
    def shown(self) -> Judgement:
        """The claim whose numbers a table shows: the recipe's where it has them, else of the training that grows most.

        Without a training it is the recipe's, which then has no numbers.
        """
        if self.recipe.headline or not self.trainings:
            return self.recipe
        return max(self.trainings, key=growth)

    def to_json(self) -> dict[str, Any]:
        """The verdict as data for JSON; null for a number that is not finite."""
        data: dict[str, Any] = _plain(asdict(self))
        for name, judgement in (("recipe", self.recipe), *enumerate(self.trainings)):
            place = data["recipe"] if name == "recipe" else data["trainings"][name]
            place["label"] = judgement.label
        return data


def growth(judgement: Judgement) -> float:
    """The largest ratio of errors, by which trainings are ordered; one that is not known comes first."""
    ratio = judgement.headline.get("ratio", math.nan)
    return -math.inf if math.isnan(ratio) else ratio


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
