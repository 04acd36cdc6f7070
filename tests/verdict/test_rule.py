"""The words: made-up records, Gaussian rows, and for each condition a broken variant that changes the word."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from verdict_cases import (
    bare,
    close,
    errors,
    gaussian_row,
    good,
    good_training,
    larger_student,
    law,
    with_consequence,
    with_reference,
)

from sizetransfer.contracts.quantity import Quantity
from sizetransfer.verdict import CLEAN, LargerStudent, Reference, VerdictSpec, describe, judge

UNSURE = Quantity.estimated(0.2, 0.5, 8)

MADE_UP = {
    "errors of .20 ± .50": (bare({32: UNSURE, 64: UNSURE}), "undecided"),
    "infinite error": (bare({32: 0.2, 64: math.inf}), "undecided"),
    "larger student missing": (bare({32: 0.2, 64: 0.2}, larger=(LargerStudent("wide", 8),)), "undecided"),
    "sizes up to the training size": (
        replace(bare({32: 0.2}), trainings=(replace(bare({32: 0.2}).trainings[0], errors=errors({16: 0.2, 32: 0.2})),)),
        "undecided",
    ),
    "24 to 26": (bare({24: 0.2, 26: 0.2}), "undecided"),
    ".2, .9, .2": (bare({24: 0.2, 48: 0.9, 64: 0.2}), "degrades with size"),
    ".49 everywhere": (bare({32: 0.49, 64: 0.49}), "not learned"),
    ".0100 to .0111": (bare({32: close(0.01, 1e-4), 64: close(0.0111, 1e-4)}), "undecided"),
}


@pytest.mark.parametrize("name", MADE_UP)
def test_made_up_records(name):
    cell, word = MADE_UP[name]
    assert judge(cell).word == word


def test_a_missing_seed_leaves_the_recipe_undecided():
    cell = bare({32: 0.2, 64: 0.2})
    second = replace(bare({32: 0.2}, seed=1).trainings[0])
    found = judge(replace(cell, trainings=(*cell.trainings, second), seeds=(0, 1)))
    assert found.recipe.word == "undecided"
    assert found.recipe.reason == "The claim of a recipe takes 3 trainings; there are 2."


def test_an_error_of_zero_at_training_is_worded():
    """Its ratio to any other has limits that no float holds."""
    error = {32: Quantity(0.0), 64: Quantity.estimated(1e-6, 1e-4, 4)}
    found = judge(good_training(errors=errors(error)))
    assert found.word == "transfers"
    assert "its error stays tiny" in found.reason
    assert "ρ" not in found.reason
    risen = judge(good_training(errors=errors({32: Quantity(0.0), 64: Quantity.estimated(0.4, 0.01, 32)})))
    assert risen.word == "degrades with size"


def test_a_tiny_error_that_rises_is_stable():
    (size,) = judge(MADE_UP[".0100 to .0111"][0]).trainings[0].sizes
    assert size.standing == "stable"
    assert size.ratio_lower > 1.1
    (size,) = judge(bare({32: close(0.1, 1e-4), 64: close(0.111, 1e-4)})).trainings[0].sizes
    assert size.standing == "degrades"


def test_words_of_a_tiny_error_tell_what_is_known_and_not_that_a_rise_is_none():
    risen = judge(good_training(errors=errors({32: close(0.005, 1e-3), 64: close(0.0201, 1e-3)})))
    assert risen.word == "transfers"
    assert "its error stays tiny, 0.005 and 0.0201, from L = 32 to 64: it knows 99.9 % there" in risen.reason
    assert "ρ" in judge(good_training(errors=errors({32: close(0.02, 1e-3), 64: close(0.0201, 1e-3)}))).reason


GAUSSIAN = {
    "m .5 R 2": (gaussian_row(2, 0.990, 0.971, 0.70, 0.024), "transfers"),
    "m .1 R 4": (gaussian_row(4, 0.938, 0.897, 0.245, 0.032), "radius-limited"),
    "m .03 R 4": (gaussian_row(4, 0.781, 0.70, 0.050, 0.054), "radius-limited"),
    "m .03 R 8": (gaussian_row(8, 0.838, 0.78, 0.15, 0.026), "radius-limited"),
    "m .01 R 8": (gaussian_row(8, 0.49, 0.45, 0.14, 0.042), "radius-limited"),
}


@pytest.mark.parametrize("name", GAUSSIAN)
def test_gaussian_rows(name):
    cell, word = GAUSSIAN[name]
    assert judge(cell).word == word


def test_long_range_order_is_said_apart():
    made = judge(GAUSSIAN["m .5 R 2"][0]).trainings[0].generated
    (zero,) = (one for one in made if one.name == "S(0)" and one.of == "this model")
    assert (zero.judged, zero.standing, zero.ratio) == (False, "outside", 0.70)


# Everything that the rule asks of a student that transfers, broken once.
BROKEN = {
    "skill": (with_reference(null=Quantity(0.3)), "not learned"),
    "as good as the linear filter": (with_reference(linear=Quantity(0.15), best=Quantity(0.14)), "not learned"),
    "as good as the best score of its radius": (with_reference(irreducible=Quantity(0.05)), "not learned"),
    "stable": (good_training(errors=errors({32: 0.26, 64: 0.31})), "degrades with size"),
    "stable in between": (
        replace(good_training(errors=errors({32: 0.26, 48: 0.31, 64: 0.26})), sizes=(32, 48, 64)),
        "degrades with size",
    ),
    "locality": (with_reference(best=Quantity(0.2)), "radius-limited"),
    "larger student": (good_training(larger=(larger_student({32: 0.2, 64: 0.2}),)), "radius-limited"),
    "best of the radius": (good(best_of_radius=gaussian_row(4, 0.88, 1, 1, 0.1).best_of_radius), "radius-limited"),
    "nearest covariance of the best": (
        good(best_of_radius=gaussian_row(4, 1, 1.2, 1, 0.1).best_of_radius),
        "radius-limited",
    ),
    "null known": (with_reference(null=None), "undecided"),
    "null finite": (with_reference(null=Quantity(math.nan)), "undecided"),
    "references known": (with_reference(linear=None), "undecided"),
    "best reference known": (with_reference(best=None), "undecided"),
    "no error of the score": (good_training(errors=()), "undecided"),
    "error at the training size": (good_training(errors=errors({64: 0.26})), "undecided"),
    "a size that was asked for": (good(sizes=(32, 48, 64)), "undecided"),
    "certain enough": (good_training(errors=errors({32: close(0.26, 0.05), 64: close(0.26, 0.05)})), "undecided"),
    "more than one field": (
        good_training(errors=errors({32: 0.26, 64: Quantity.estimated(0.26, math.nan, 1)})),
        "undecided",
    ),
    "reach": (replace(good_training(errors=errors({32: 0.26, 40: 0.26})), sizes=(32, 40)), "undecided"),
    "site variance": (with_consequence(site_variance=Quantity(0.89)), "undecided"),
    "nearest covariance": (with_consequence(nearest=Quantity(1.11)), "undecided"),
    "marginals certain": (with_consequence(nearest=Quantity.estimated(0.98, 0.05, 32)), "undecided"),
    "marginals finite": (with_consequence(nearest=Quantity(math.nan)), "undecided"),
    "bulk": (good(correlation_squared=Quantity(8.1**2)), "undecided"),
    "bulk certain": (good(correlation_squared=Quantity.estimated(49.0, 14.0, 32)), "undecided"),
    "bulk known": (good(correlation_squared=None), "undecided"),
    "law local": (good(correlation_squared=None, law=law(nearest=0.85)), "undecided"),
    "law at the zero mode": (good(correlation_squared=None, law=law(zero_mode=1.3)), "undecided"),
    "law at the largest size": (good(correlation_squared=None, law=law(size=48)), "undecided"),
    "a bulk at all": (good(has_bulk=False), "undecided"),
}


def test_a_student_without_radius_is_held_against_the_exact_score():
    found = judge(replace(with_reference(irreducible=Quantity(0.0)), radius=None))
    assert found.word == "not learned"
    assert "where the exact score knows 100 %" in found.reason


def test_the_good_one_transfers():
    assert judge(good()).label == "transfers (clean score)"


@pytest.mark.parametrize("name", BROKEN)
def test_every_condition_counts(name):
    cell, word = BROKEN[name]
    found = judge(cell)
    assert found.word == word, found.reason
    assert found.reason.endswith(".")
    assert bool(found.what_would_decide) == (word == "undecided")


# What may be otherwise in a student that transfers, with the label that it gets.
ALLOWED = {
    "law instead of the correlation length": (good(correlation_squared=None, law=law()), "transfers (clean score)"),
    "global student": (replace(with_reference(best=None), radius=None), "transfers (clean score)"),
    "larger student is no better": (
        good_training(larger=(larger_student({32: 0.25, 64: 0.25}),)),
        "transfers (clean score)",
    ),
    "nothing generated": (good_training(consequences=()), "transfers (clean score, score only)"),
    "forecast": (with_consequence(source="second-order forecast"), "transfers (clean score, to second order)"),
    "start": (with_consequence(sigma_start=10.0), "transfers (clean score, from the trained σ_max)"),
    "of the radius": (good(of_radius=True), "transfers (of the radius, clean score)"),
    "noisy level beyond the data": (
        good_training(errors=(*good().trainings[0].errors, *errors({32: 0.9, 64: 5.0}, sigma=10.0))),
        "undecided",
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed(name):
    cell, label = ALLOWED[name]
    assert judge(cell).label == label
    if name == "noisy level beyond the data":
        assert judge(replace(cell, site_deviation=1.0)).word == "transfers"


# Errors of a trained student at 32 and 64, the linear reference of its radius, the best one, and the null.
TRAINED = {
    "medium range, R = 4": (4, (0.272, 0.272), 0.270, 0.13, 0.601, "radius-limited"),
    "medium range, R = 8": (8, (0.153, 0.153), 0.146, 0.13, 0.601, "transfers"),
    "stress, R = 4": (4, (0.57, 0.58), 0.56, 0.388, 0.97, "radius-limited"),
    "stress, R = 12, further trained": (12, (0.46, 1.03), 0.45, 0.388, 0.97, "degrades with size"),
    "stress, R = 12, as documented": (12, (0.563, 0.563), 0.45, 0.388, 0.97, "not learned"),
    "simple, R = 4": (4, (0.30, 0.30), 0.504, 0.50, 0.565, "transfers"),
    "medium range, 25 steps": (8, (0.45, 0.45), 0.146, 0.13, 0.601, "not learned"),
}


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_expected_of_trained_students(name):
    radius, (before, after), linear, best, null, word = TRAINED[name]
    reference = Reference(CLEAN, 32, close(null), close(linear, 0.002), close(best, 0.002))
    cell = good_training(errors=errors({32: before, 64: after}), references=(reference,))
    found = judge(replace(cell, radius=radius))
    assert found.word == word, found.reason


def test_a_filter_has_learned_by_construction():
    weak = with_reference(null=Quantity(0.3))
    assert judge(weak).word == "not learned"
    assert judge(replace(weak, of_radius=True)).word == "transfers"


def test_every_judged_level_counts():
    quiet = Reference(0.5, 32, null=Quantity(0.6), linear=Quantity(0.1), best=Quantity(0.1))
    training = good().trainings[0]

    def at(values):
        references = (*training.references, quiet)
        return judge(good_training(errors=(*training.errors, *errors(values, sigma=0.5)), references=references))

    assert at({32: 0.1, 64: 0.1}).label == "transfers"
    assert at({32: 0.1, 64: 0.2}).word == "degrades with size"
    assert at({32: 0.3, 64: 0.3}).word == "not learned"
    assert at({32: 0.1}).word == "undecided"


def test_few_steps_never_transfer():
    for relative in (0.001, 0.01, 0.1, 0.3):
        found = judge(bare({32: close(0.45, relative), 64: close(0.45, relative)}, null=0.6))
        assert found.word in {"not learned", "undecided"}
    assert judge(bare({32: 0.45, 64: 0.45})).word == "not learned"


def test_cells_share_a_word_and_recipes_need_three():
    training = good().trainings[0]
    three = good(trainings=tuple(replace(training, seed=seed, errors=errors({32: 0.26, 64: 0.262 + 1e-4 * seed}))
                                 for seed in range(3)))  # fmt: skip
    found = judge(three)
    assert (found.word, found.recipe.word, found.recipe.replicates) == ("transfers", "transfers", 3)
    assert found.reason.startswith("All 3 trainings agree; seed 2: ")
    worse = replace(training, seed=2, errors=errors({32: 0.26, 64: 0.4}))
    mixed = judge(replace(three, trainings=(*three.trainings[:2], worse)))
    assert mixed.word == "undecided"
    assert "degrades with size (clean score) (1)" in mixed.reason
    assert mixed.recipe.word == "undecided"  # the spread between seeds is too large for any claim
    missing = judge(replace(three, seeds=(0, 1, 2, 3)))
    assert (missing.word, missing.recipe.word) == ("undecided", "undecided")
    assert missing.reason == "Missing: seeds 3."


def test_reasons_are_sentences_with_their_numbers():
    reason = judge(good()).reason
    assert reason == (
        "It knows 81.2 % of the squared clean score where the best linear filter of radius 4 knows 82.6 %, and its "
        "error stays, 0.26 and 0.262, from L = 32 to 64 (ρ = 1.01, below 1.02 at 99 %); it generates 0.99 of the site "
        "variance and 0.98 of the nearest-neighbour covariance at L = 64 (closed form), and of long-range order 0.97 "
        "of S(0); the training box is the bulk (the correlation length, at most 3, is below 8)."
    )
    assert "rises from 0.26 to 0.31 from L = 32 to 64" in judge(BROKEN["stable"][0]).reason
    assert "radius 4 alone costs an error of 0.15" in judge(BROKEN["locality"][0]).reason
    assert "lowers the error of the clean score at L = 32 by 23.1 %" in judge(BROKEN["larger student"][0]).reason


def test_undecided_says_how_many_fields():
    found = judge(BROKEN["certain enough"][0])
    (size,) = found.trainings[0].sizes
    assert size.standing == "unresolved"
    assert size.detectable_growth == pytest.approx(1.1 * size.ratio_upper / size.ratio - 1)
    (remedy,) = [text for text in found.what_would_decide if "32 now" in text][-1:]
    fields = int(remedy.split()[1])
    enough = close(0.26, 0.05 * math.sqrt(32 / fields), fields)
    again = good_training(errors=errors({32: enough, 64: enough}))
    assert judge(again).trainings[0].sizes[0].standing == "stable"


def test_the_verdict_is_json():
    for cell, _ in [*MADE_UP.values(), *BROKEN.values()]:
        data = json.loads(json.dumps(judge(cell).to_json(), allow_nan=False))
        assert data["recipe"]["claim"] == "this recipe"
        assert data["trainings"][0]["label"]
        assert set(data["trainings"][0]["headline"]) >= {"skill", "null", "linear", "best", "irreducible", "reach"}


def test_the_rule_in_words_has_its_thresholds():
    text = describe(VerdictSpec(growth=0.25, locality=0.17, reach=3), symbol="N")
    for number in ("above 1.25", "above 0.17", "at least 3 times", "one-sided at 1 %", "N_train"):
        assert number in text
    assert len(text.splitlines()) == 7
    changed = describe(VerdictSpec(exempt_skill=0.95, learned_skill=0.07))
    assert "stays where its skill does, within 0.05" in changed
    assert "falls behind the filter by 0.07" in changed


def test_thresholds_decide():
    assert judge(good(), VerdictSpec(reach=3)).word == "undecided"
    assert judge(good(), VerdictSpec(locality=0.05)).word == "radius-limited"
    assert judge(good(), VerdictSpec(growth=0.005)).word == "undecided"
    assert judge(BROKEN["stable"][0], VerdictSpec(growth=0.3)).word == "transfers"


def test_levels_are_of_the_clean_score_by_name():
    assert CLEAN == 0
