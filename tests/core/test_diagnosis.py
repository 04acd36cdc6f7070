"""The verdict: each outcome, its boundaries, missing numbers, and rules that are broken on purpose."""

from __future__ import annotations

import dataclasses
import math

import pandas as pd
import pytest
from synthetic_run import RADII, make_experiment, make_records, record

from sizetransfer import diagnosis
from sizetransfer.averages import Estimate, estimates, in_standard_errors
from sizetransfer.diagnosis import describe_rule, verdicts
from sizetransfer.trials import VerdictRule

RULE = VerdictRule(significance=3.0, improvement=0.125, growth=0.125, failure=0.5)
# Numbers that binary fractions represent, so that a threshold can be met exactly.
SMALL_ERROR = 2.0**-10


def one_teacher(
    errors, *, before=None, standard_error=SMALL_ERROR, seeds=(0,), shares=None, radii=RADII, sizes=(24, 64)
):
    """Records of one teacher: ``errors`` at the largest size by student, ``before`` at others (default: the same)."""
    rows = []
    for student, error in errors.items():
        common = {"student": student, "radius": radii[student]}
        for seed in seeds:
            for size in sizes:
                value = error if size == sizes[-1] else (before or errors)[student]
                if value is not None:
                    rows.append(record(**common, seed=seed, size=size, value=value, standard_error=standard_error))
            if shares:
                share = {"measure": "jacobian", "part": "outside_share", "value": shares[student]}
                rows.append(record(**common, seed=seed, size=sizes[-1], **share))
    return pd.DataFrame(rows)


def judge(records, *, students=tuple(RADII), rule=RULE, sizes=(24, 64), train_size=24, seeds=(0,)):
    experiment = make_experiment(
        teachers=("medium-range",), students=students, seeds=seeds, sizes=sizes, train_size=train_size, verdict=rule
    )
    return {verdict.student: verdict for verdict in verdicts(records, experiment)}


def names(found):
    return [verdict.verdict for verdict in found.values()]


FLAT = {"R=4": 0.25, "R=8": 0.25, "R=12": 0.25}


def test_flat_in_size_and_radius_transfers():
    assert names(judge(one_teacher(FLAT))) == ["transfers"] * 3


def test_an_error_that_a_larger_radius_lowers_is_limited_by_the_radius():
    assert names(judge(one_teacher({"R=4": 0.25, "R=8": 0.125, "R=12": 0.125}))) == [
        "radius-limited",
        "transfers",
        "transfers",
    ]


def test_an_error_that_no_radius_brings_below_the_limit_fails():
    found = judge(one_teacher({"R=4": 0.75, "R=8": 0.625, "R=12": 0.6875}))
    assert names(found) == ["fails"] * 3
    assert "0.625" in found["R=4"].reason


def test_one_radius_below_the_limit_saves_the_smaller_ones_from_failing_but_not_the_larger():
    assert names(judge(one_teacher({"R=4": 0.75, "R=8": 0.25, "R=12": 0.75}))) == [
        "radius-limited",
        "transfers",
        "fails",
    ]


def test_an_error_that_rises_with_the_size_fails_though_it_is_small():
    found = judge(one_teacher({"R=4": 0.25}, before={"R=4": 0.125}), students=("R=4",))
    assert names(found) == ["fails"]
    assert found["R=4"].growth == pytest.approx(1.0)
    assert (found["R=4"].baseline_size, found["R=4"].size) == (24, 64)


def test_an_error_that_falls_with_the_size_transfers():
    assert names(judge(one_teacher({"R=4": 0.125}, before={"R=4": 0.25}), students=("R=4",))) == ["transfers"]


@pytest.mark.parametrize(("after", "expected"), [(0.28125, "transfers"), (0.28125 + 2**-6, "fails")])
def test_growth_must_exceed_its_threshold(after, expected):
    found = judge(one_teacher({"R=4": after}, before={"R=4": 0.25}), students=("R=4",))
    assert names(found) == [expected]


@pytest.mark.parametrize(("better", "expected"), [(0.21875, "transfers"), (0.21875 - 2**-6, "radius-limited")])
def test_improvement_must_exceed_its_threshold(better, expected):
    found = judge(one_teacher({"R=4": 0.25, "R=8": better}), students=("R=4", "R=8"))
    assert found["R=4"].verdict == expected


@pytest.mark.parametrize(("error", "expected"), [(0.5, "transfers"), (0.5 + 2**-6, "fails")])
def test_failure_must_exceed_its_threshold(error, expected):
    assert names(judge(one_teacher({"R=4": error}), students=("R=4",))) == [expected]


@pytest.mark.parametrize(
    ("errors", "before", "word"),
    [
        ({"R=4": 0.5}, {"R=4": 0.25}, "changes"),
        ({"R=4": 0.25, "R=8": 0.125}, None, "lowers"),
        ({"R=4": 0.75}, None, "exceeds"),
    ],
    ids=["growth", "improvement", "failure"],
)
def test_a_threshold_crossed_within_the_standard_errors_is_undecided(errors, before, word):
    found = judge(one_teacher(errors, before=before, standard_error=0.25), students=tuple(errors))
    assert found["R=4"].verdict == "undecided"
    assert word in found["R=4"].reason
    assert "3 are needed" in found["R=4"].reason


def test_significance_counts_combined_standard_errors():
    """A difference of 0.25 with errors of 1/16 each is 2.83 combined standard errors: 3 are not reached, 2.8 are."""
    records = one_teacher({"R=4": 0.5, "R=8": 0.25}, standard_error=0.0625)
    for significance, expected in ((3.0, "undecided"), (2.8, "radius-limited")):
        rule = RULE.model_copy(update={"significance": significance})
        assert judge(records, students=("R=4", "R=8"), rule=rule)["R=4"].verdict == expected


def test_seeds_that_agree_by_chance_do_not_make_a_difference_significant(monkeypatch):
    """Seeds without spread, errors of 1/8 over fields: 0.25 is 2 combined standard errors, not infinitely many."""
    errors = {"R=4": 0.5, "R=8": 0.25}
    records = one_teacher(errors, standard_error=0.125, seeds=(0, 1))
    assert judge(records, students=tuple(errors))["R=4"].verdict == "undecided"
    assert judge(one_teacher(errors, seeds=(0, 1)), students=tuple(errors))["R=4"].verdict == "radius-limited"
    monkeypatch.setattr(Estimate, "judged_error", property(lambda estimate: estimate.standard_error))
    assert judge(records, students=tuple(errors))["R=4"].verdict == "radius-limited"


def test_an_established_claim_stands_beside_a_doubt():
    """The growth of R=4 is doubtful, but that R=8 is better is not."""
    rows = one_teacher({"R=4": 0.375, "R=8": 0.125}, before={"R=4": 0.25, "R=8": 0.125})
    rows.loc[(rows["student"] == "R=4") & (rows["size"] == 24), "standard_error"] = 0.125
    assert judge(rows, students=("R=4", "R=8"))["R=4"].verdict == "radius-limited"


def test_a_number_that_is_not_finite_is_undecided():
    found = judge(one_teacher({"R=4": math.nan, "R=8": 0.25, "R=12": 0.25}))
    assert names(found) == ["undecided", "transfers", "transfers"]
    assert "not a finite number" in found["R=4"].reason


def test_one_seed_that_is_not_finite_spoils_the_mean():
    rows = one_teacher({"R=4": 0.25}, seeds=(0, 1, 2))
    rows.loc[(rows["seed"] == 1) & (rows["size"] == 64), "value"] = math.nan
    assert names(judge(rows, students=("R=4",), seeds=(0, 1, 2))) == ["undecided"]


def test_missing_records_are_undecided_and_say_so():
    found = judge(one_teacher({"R=8": 0.25, "R=12": 0.25}))
    assert list(found) == ["R=8", "R=12", "R=4"]
    assert found["R=4"].verdict == "undecided"
    assert "not measured" in found["R=4"].reason
    assert names(judge(pd.DataFrame())) == ["undecided"] * 3


def test_a_larger_radius_without_a_number_leaves_it_open_whether_the_radius_limits():
    rows = one_teacher(FLAT)
    found = judge(rows[(rows["student"] != "R=12") | (rows["size"] == 24)])
    assert names(found) == ["undecided", "undecided", "undecided"]
    assert "R = 12 has no error at L = 64" in found["R=4"].reason


def test_a_single_size_does_not_test_transfer():
    found = judge(one_teacher({"R=4": 0.25}, sizes=(64,)), students=("R=4",), sizes=(64,))
    assert names(found) == ["undecided"]
    assert "not tested" in found["R=4"].reason


def test_without_the_training_size_growth_counts_from_the_smallest():
    found = judge(one_teacher({"R=4": 0.25}, before={"R=4": 0.125}, sizes=(32, 64)), students=("R=4",), sizes=(32, 64))
    assert (found["R=4"].verdict, found["R=4"].baseline_size) == ("fails", 32)


def test_the_training_size_is_the_baseline_though_smaller_ones_were_measured():
    rows = one_teacher({"R=4": 0.25}, sizes=(16, 24, 64), before={"R=4": 0.25})
    rows.loc[rows["size"] == 16, "value"] = 0.0625
    found = judge(rows, students=("R=4",), sizes=(16, 24, 64))
    assert (found["R=4"].verdict, found["R=4"].baseline_size) == ("transfers", 24)


def test_a_missing_standard_error_is_undecided():
    found = judge(one_teacher({"R=4": 0.25}, standard_error=math.nan), students=("R=4",))
    assert names(found) == ["undecided"]
    assert "standard error" in found["R=4"].reason


def test_a_global_student_is_larger_than_every_radius():
    radii = {"R=4": 4, "global": None}
    rows = one_teacher({"R=4": 0.25, "global": 0.125}, radii=radii)
    found = judge(rows, students=("global", "R=4"))
    assert list(found) == ["R=4", "global"]
    assert names(found) == ["radius-limited", "transfers"]
    assert found["global"].radius is None


def test_one_seed_uses_the_records_standard_error_and_several_their_spread():
    rows = one_teacher({"R=4": 0.25}, seeds=(0, 1, 2), standard_error=0.125)
    rows.loc[rows["seed"] == 0, "value"] = 0.25 - 0.03
    rows.loc[rows["seed"] == 2, "value"] = 0.25 + 0.03
    several = estimates(rows).iloc[0]
    assert several["value"] == pytest.approx(0.25)
    assert several["standard_error"] == pytest.approx(0.03 / math.sqrt(3))
    assert several["within"] == pytest.approx(0.125 / math.sqrt(3))
    assert (several["seeds"], several["n"], several["source"]) == (3, 24, "seeds")
    one = estimates(rows[rows["seed"] == 0]).iloc[0]
    assert (one["standard_error"], one["seeds"], one["source"]) == (0.125, 1, "records")


def test_a_number_that_was_measured_twice_makes_no_second_seed():
    """``sigmas: [1, 1]`` measures the same fields again: two equal numbers, whose spread says nothing."""
    rows = [record(part="student_error", coordinate=1.0, standard_error=0.05, n=8)] * 2
    found = estimates(pd.DataFrame(rows)).iloc[0]
    assert (found["seeds"], found["n"], found["standard_error"], found["source"]) == (1, 8, 0.05, "records")


def test_estimates_keep_teachers_sizes_and_coordinates_apart():
    experiment = make_experiment()
    table = estimates(make_records(experiment))
    assert not table.duplicated(["teacher", "student", "size", "measure", "part", "coordinate"]).any()
    assert set(table["seeds"]) == {3}
    profile = table[(table["part"] == "profile_teacher") & (table["teacher"] == "medium-range")]
    assert set(profile["coordinate"]) == set(map(float, range(17)))


def test_the_papers_table_gives_the_papers_three_regimes():
    experiment = make_experiment(verdict=VerdictRule())
    found = {
        (verdict.teacher, verdict.student): verdict.verdict
        for verdict in verdicts(make_records(experiment), experiment)
    }
    assert {found["short-range-simple", student] for student in RADII} == {"transfers"}
    assert {found["long-range-stress", student] for student in RADII} == {"fails"}
    assert [found["medium-range", student] for student in RADII] == ["radius-limited", "radius-limited", "transfers"]


@pytest.mark.parametrize(
    ("error", "share", "verdict", "agrees"),
    [
        (0.25, 0.03125, "radius-limited", True),  # without it: sqrt(1/16 - 1/32) = 0.177, 29 % less
        (0.25, 0.0001, "radius-limited", False),
        (0.125, 0.0001, "transfers", True),
        (0.125, 0.0078125, "transfers", False),
    ],
)
def test_the_response_outside_the_radius_agrees_or_not(error, share, verdict, agrees):
    rows = one_teacher({"R=4": error, "R=8": 0.125}, shares={"R=4": share, "R=8": 0.0})
    found = judge(rows, students=("R=4", "R=8"))["R=4"]
    assert (found.verdict, found.agrees) == (verdict, agrees)
    assert found.outside_share == Estimate(share, 0.001, within=0.001)


def test_no_response_beyond_the_radius_says_nothing_of_a_failure():
    rows = one_teacher({"R=4": 0.75}, shares={"R=4": 0.0})
    found = judge(rows, students=("R=4",))["R=4"]
    assert (found.verdict, found.agrees) == ("fails", None)
    assert judge(one_teacher({"R=4": 0.75}), students=("R=4",))["R=4"].outside_share is None


def test_the_rule_in_words_has_its_thresholds():
    text = describe_rule(VerdictRule(significance=2.5, improvement=0.07, growth=0.3, failure=0.6))
    for number in ("2.5 combined", "7 %", "30 %", "0.6"):
        assert number in text
    for name in ("transfers", "radius-limited", "fails", "undecided"):
        assert sum(line.startswith(f"{name}: ") for line in text.split("\n")) == 1


def test_differences_in_standard_errors_by_hand():
    assert Estimate(0.5, 0.03).standard_errors_from(Estimate(0.25, 0.04)) == pytest.approx(5.0)
    assert in_standard_errors(0.0, 0.0) == 0.0
    assert in_standard_errors(-0.1, 0.0) == -math.inf
    assert math.isnan(in_standard_errors(0.1, math.nan))


def _no_significance(effect, threshold, difference, rule, text):
    return diagnosis._Claim("yes" if effect > threshold else "no", text)


def _no_threshold(effect, threshold, difference, rule, text):
    return diagnosis._Claim("yes" if difference > rule.significance else "no", text)


def _inclusive(effect, threshold, difference, rule, text):
    return diagnosis._Claim("yes" if effect >= threshold and difference > rule.significance else "no", text)


@pytest.mark.parametrize(
    ("broken", "errors", "standard_error"),
    [
        (_no_significance, {"R=4": 0.25, "R=8": 0.125}, 0.25),
        (_no_threshold, {"R=4": 0.25, "R=8": 0.24}, SMALL_ERROR),
        (_inclusive, {"R=4": 0.25, "R=8": 0.21875}, SMALL_ERROR),
    ],
    ids=["no significance", "no threshold", "inclusive threshold"],
)
def test_a_broken_rule_gives_another_verdict(monkeypatch, broken, errors, standard_error):
    records = one_teacher(errors, standard_error=standard_error)
    right = judge(records, students=tuple(errors))["R=4"].verdict
    monkeypatch.setattr(diagnosis._Claim, "of", staticmethod(broken))
    assert judge(records, students=tuple(errors))["R=4"].verdict == "radius-limited" != right


def test_a_rule_that_looks_at_smaller_radii_too_gives_another_verdict(monkeypatch):
    records = one_teacher({"R=4": 0.125, "R=8": 0.25, "R=12": 0.25})
    assert names(judge(records)) == ["transfers"] * 3
    monkeypatch.setattr(diagnosis._Case, "larger", lambda case: [name for name in case.radii if name != case.student])
    assert judge(records)["R=8"].verdict == "radius-limited"


def test_verdicts_are_values():
    verdict = next(iter(judge(one_teacher(FLAT)).values()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict.verdict = "fails"
