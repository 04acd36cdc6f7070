"""Laws of the rule for any evidence: what can never be called a transfer, and what more certainty cannot undo."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_cases import good, law

from sizetransfer.contracts.quantity import Quantity
from sizetransfer.verdict import (
    CLEAN,
    WORDS,
    CellEvidence,
    Consequence,
    LargerStudent,
    Reference,
    ScoreError,
    TrainingEvidence,
    VerdictSpec,
    judge,
)

SIZES = (32, 48, 64)
BAD = st.sampled_from([math.nan, math.inf, -math.inf, -0.2])


@st.composite
def numbers(draw, low, high):
    value = draw(st.floats(low, high))
    return Quantity.estimated(
        value, value * draw(st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.3])), draw(st.integers(2, 100))
    )


ERROR, RATIO = numbers(0.0, 0.7), numbers(0.8, 1.2)


@st.composite
def anything(draw):
    """Any evidence: complete or not, certain or not, near every threshold."""
    size = draw(st.sampled_from((16, 32)))
    levels = draw(st.sampled_from([(CLEAN,), (CLEAN, 0.5)]))
    optional = st.one_of(st.none(), ERROR)
    references = tuple(
        Reference(sigma, size, draw(st.one_of(st.none(), numbers(0.3, 1.0))), draw(optional), draw(optional),
                  draw(st.one_of(st.none(), numbers(0, 0.2))))
        for sigma in levels
    )  # fmt: skip
    measured = (size, *draw(st.lists(st.sampled_from(SIZES), unique=True)))
    errors = tuple(ScoreError(sigma, at, draw(ERROR)) for sigma in levels for at in dict.fromkeys(measured))
    made = Consequence(64, draw(st.sampled_from(["closed form", "second-order forecast"])), draw(RATIO), draw(RATIO))
    larger = (LargerStudent("wide", 8, tuple(replace(one, error=draw(ERROR)) for one in errors)),)
    training = TrainingEvidence(
        0, errors, references, draw(st.sampled_from([(), larger])), draw(st.sampled_from([(), (made,)]))
    )
    return CellEvidence(
        "teacher",
        "student",
        draw(st.sampled_from([None, 4])),
        size,
        (size, 64),
        (training,),
        best_of_radius=draw(st.sampled_from([(), (made,)])),
        correlation_squared=draw(st.one_of(st.none(), numbers(0, 144))),
        law=draw(st.sampled_from([(), law(), law(variance=1.3)])),
    )


@st.composite
def plausible(draw):
    """A student that transfers, with every number moved a little, and one or none of them by more."""
    sure = draw(st.sampled_from([0.0, 0.001, 0.01, 0.03]))
    far = draw(st.integers(-3, 9))  # which number moves by more

    def near(value, position):
        moved = value * draw(st.floats(0.7, 1.4)) if position == far else value * draw(st.floats(0.99, 1.01))
        return Quantity.estimated(moved, sure * moved, 32)

    references = (
        Reference(CLEAN, 32, null=near(0.6, 0), linear=near(0.25, 1), best=near(0.25, 2), irreducible=near(0.06, 9))
        if far == 9
        else Reference(CLEAN, 32, null=near(0.6, 0), linear=near(0.25, 1), best=near(0.24, 2)),
    )
    errors = tuple(ScoreError(CLEAN, size, near(0.25, position)) for position, size in ((3, 32), (4, 64)))
    made = (Consequence(64, "closed form", near(1.0, 5), near(1.0, 6)),)
    larger = (LargerStudent("wide", 8, tuple(ScoreError(CLEAN, size, near(0.25, 7)) for size in (32, 64))),)
    return replace(
        good(),
        trainings=(TrainingEvidence(0, errors, references, draw(st.sampled_from([(), larger])), made),),
        correlation_squared=near(36.0, 8),
    )


def cells():
    return st.one_of(anything(), plausible(), plausible())


def rescaled(cell, factor):
    """The same numbers with other standard errors."""

    def walk(item):
        if isinstance(item, Quantity):
            return replace(item, error=item.error * factor)
        if isinstance(item, tuple):
            return tuple(walk(part) for part in item)
        if isinstance(item, dict):
            return {key: walk(value) for key, value in item.items()}
        if hasattr(item, "__dataclass_fields__"):
            return replace(item, **{name: walk(getattr(item, name)) for name in item.__dataclass_fields__})
        return item

    return walk(cell)


def with_errors(cell, change):
    training = cell.trainings[0]
    return replace(cell, trainings=(replace(training, errors=tuple(map(change, training.errors))),))


def test_the_evidence_leads_to_every_word():
    seen = set()

    @settings(max_examples=400, database=None)
    @given(cells())
    def look(cell):
        seen.add(judge(cell).word)

    look()
    assert seen == set(WORDS)


@given(cells())
def test_every_evidence_has_one_word_and_a_reason(cell):
    found = judge(cell)
    assert found.word in WORDS
    assert found.reason.endswith(".")
    assert bool(found.what_would_decide) == (found.word == "undecided")
    found.to_json()


@given(cells(), st.sampled_from([0.0, 0.1, 0.5, 0.9]))
def test_more_certainty_keeps_every_claim(cell, factor):
    """A word other than undecided is not taken back by smaller standard errors, but for one that comes before it."""
    before, after = judge(cell).word, judge(rescaled(cell, factor)).word
    if before == "transfers":
        assert after == "transfers"
    elif before != "undecided":
        assert WORDS.index(after) <= WORDS.index(before)
        assert after not in {"transfers", "undecided"}


@given(cells(), st.sampled_from([1.1, 2.0, 10.0]))
def test_less_certainty_makes_no_transfer(cell, factor):
    if judge(cell).word != "transfers":
        assert judge(rescaled(cell, factor)).word != "transfers"


@given(cells(), st.data())
def test_an_error_that_is_no_number_never_transfers(cell, data):
    errors = cell.trainings[0].errors
    if not errors:
        return
    broken = data.draw(st.sampled_from(errors))
    bad = replace(broken.error, value=data.draw(BAD))
    assert judge(with_errors(cell, lambda one: replace(one, error=bad) if one is broken else one)).word != "transfers"


@given(cells())
def test_errors_without_standard_errors_never_transfer(cell):
    def unsure(one):
        return replace(one, error=replace(one.error, error=math.nan))

    assert judge(with_errors(cell, unsure)).word == "undecided"


@given(cells(), st.sampled_from([4, 8, 15]), ERROR)
def test_sizes_below_the_training_size_never_count(cell, size, error):
    training = cell.trainings[0]
    extra = (*training.errors, ScoreError(CLEAN, size, error))
    found = judge(replace(cell, sizes=(*cell.sizes, size), trainings=(replace(training, errors=extra),)))
    assert found.word == judge(cell).word


@given(st.floats(1.0, 3.0), st.floats(1.0, 3.0))
@settings(max_examples=50)
def test_a_larger_error_at_the_larger_size_is_no_better(low, high):
    """Once the error rises too much it degrades, and a still larger one does too."""
    low, high = min(low, high), max(low, high)

    def word(growth):
        change = {32: 0.26, 64: 0.26 * growth}
        return judge(
            with_errors(good(), lambda one: replace(one, error=Quantity.estimated(change[one.size], 1e-3, 32)))
        ).word

    order = ["transfers", "undecided", "degrades with size"]
    assert order.index(word(low)) <= order.index(word(high))


@given(cells(), st.floats(0.02, 0.3))
def test_a_stricter_tolerance_makes_no_transfer(cell, tolerance):
    strict, loose = (VerdictSpec(equivalence=value, growth=value) for value in (tolerance, 1.5 * tolerance))
    if judge(cell, loose).word != "transfers":
        assert judge(cell, strict).word != "transfers"


@given(cells(), st.permutations([0, 1, 2]))
def test_the_order_of_trainings_changes_nothing(cell, order):
    training = cell.trainings[0]
    seeds = [replace(training, seed=seed) for seed in range(3)]
    one, other = (judge(replace(cell, trainings=tuple(trainings))) for trainings in (seeds, [seeds[i] for i in order]))
    assert (one.word, one.recipe.word) == (other.word, other.recipe.word)
