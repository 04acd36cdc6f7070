"""From records to words: the made-up records of the rule, what is missing, and a run of Gaussian fields end to end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import pytest
from synthetic_run import MEASURES, LinearReferencesSpec, make_experiment, record

import sizetransfer as st
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.parts import Part, generated, relative_error
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.registry import default_registry
from sizetransfer.runs.evidence import cells, place_of, sums_at, verdicts, verdicts_as_data
from sizetransfer.runs.opened import _without_earlier_thresholds, read_run
from sizetransfer.runs.trials import Experiment
from sizetransfer.verdict import VerdictSpec

EXACT = {"standard_error": 0.0, "n": 1}
REFERENCES = {"null": 0.6, "linear": 0.25, "best": 0.24}
LAW = {
    "site_variance": 1.0,
    "nearest_covariance": 0.5,
    "zero_mode": 10.0,
    "correlation_length_squared": 4.0,
    "sigma_needed": 1.0,
}
FORECAST = {f"forecast_{name}": 0.99 for name in ("site_variance", "nearest", "zero_mode", "smallest_wave")}


def rows(errors, *, student="R=4", radius=4, seed=0, error=0.005, references=REFERENCES, law=LAW, forecast=FORECAST):
    """Records of one training: errors by size, known to half a per cent; references and law at every size."""
    common = {"student": student, "radius": radius, "seed": seed, "train_size": min(errors), "n": 32}
    found = []
    for size, value in errors.items():
        found.append(record(**common, size=size, value=value, standard_error=error * value))
        parts = [(part, number, 0.0) for part, number in (references or {}).items()]
        parts += [(part, number, math.nan) for part, number in (law or {}).items()]
        parts += [(part, number, math.nan) for part, number in (forecast or {}).items()]
        for part, number, level in parts:
            where = {"measure": "linear-references", "part": part, "coordinate": level, "value": number}
            found.append(record(**{**common, **EXACT}, size=size, **where))
    return found


def judge(*tables, students=("R=4",), seeds=(0,), sizes=None, measured=("clean-score", "linear-references"), **more):
    records = pd.DataFrame([row for table in tables for row in table])
    train = more.pop("train_size", 32)
    specs = {"clean-score": st.measure("clean-score"), "linear-references": LinearReferencesSpec()}
    experiment = make_experiment(
        teachers=("medium-range",),
        students=students,
        seeds=seeds,
        sizes=sizes or tuple(sorted({int(size) for size in records["size"]})),
        train_size=train,
        measures={name: specs[name] for name in measured},
        **more,
    )
    return {one.student: one for one in verdicts(records, experiment)}


GOOD = {32: 0.26, 64: 0.262}
NULL = {"null": 0.6}
BARE = {"references": NULL, "law": None, "forecast": None}


def test_records_with_all_that_the_rule_asks_for_transfer_by_forecast():
    verdict = judge(rows(GOOD))["R=4"]
    assert verdict.label == "transfers (clean score, to second order)"
    assert verdict.shown.headline["linear"] == 0.25
    assert verdict.shown.reach == 2
    assert verdict.recipe.word == "undecided"


@pytest.mark.parametrize(
    ("errors", "error", "word", "reason"),
    [
        ({32: 0.2, 64: 0.2}, 2.5, "undecided", "not told from"),
        ({32: 0.2, 64: math.inf}, 0.005, "undecided", "no finite ratio"),
        ({24: 0.2, 26: 0.2}, 0.005, "undecided", "only 1.08 times"),
        ({24: 0.2, 48: 0.9, 64: 0.2}, 0.005, "degrades with size", "from 0.2 to 0.9"),
        ({32: 0.49, 64: 0.49}, 0.005, "not learned", "nothing is said about size"),
    ],
)
def test_made_up_records_have_the_words_of_the_rule(errors, error, word, reason):
    verdict = judge(rows(errors, error=error, **BARE), train_size=min(errors))["R=4"]
    assert verdict.word == word
    assert reason in verdict.reason or verdict.reason == ""
    assert (verdict.word != "undecided") or verdict.what_would_decide


def test_sizes_up_to_the_training_size_test_nothing():
    verdict = judge(rows({16: 0.26, 32: 0.26}), train_size=32)["R=4"]
    assert (verdict.word, math.isnan(verdict.shown.reach)) == ("undecided", True)


def test_a_tiny_rise_of_a_tiny_error_is_stable():
    verdict = judge(rows({32: 0.0100, 64: 0.0111}, **BARE))["R=4"]
    assert {one.standing for one in verdict.shown.sizes} == {"stable"}


def test_a_larger_student_that_is_missing_leaves_it_undecided():
    both = judge(rows(GOOD), rows(GOOD, student="R=8", radius=8), students=("R=4", "R=8"))
    assert {one.word for one in both.values()} == {"transfers"}
    alone = judge(rows(GOOD), students=("R=4", "R=8"))
    assert alone["R=4"].word == "undecided"
    assert any("R=8" in remedy for remedy in alone["R=4"].what_would_decide)
    partly = judge(rows(GOOD), rows({32: 0.26}, student="R=8", radius=8), students=("R=4", "R=8"))
    assert partly["R=4"].word == "undecided"


def test_a_larger_student_that_is_better_limits_the_radius_only_among_what_is_compared():
    tables = rows(GOOD), rows({32: 0.2, 64: 0.2}, student="R=8", radius=8)
    assert judge(*tables, students=("R=4", "R=8"))["R=4"].word == "radius-limited"


def test_one_student_alone_is_limited_by_its_references():
    verdict = judge(rows(GOOD, references={**REFERENCES, "best": 0.1}))["R=4"]
    assert verdict.word == "radius-limited"
    assert "radius 4 alone costs" in verdict.reason


def test_the_best_score_of_the_radius_limits_it_too():
    best = {f"best_of_radius_{name}": value for name, value in (("site_variance", 0.8), ("nearest", 0.7))}
    verdict = judge(rows(GOOD, forecast={**FORECAST, **best}))["R=4"]
    assert verdict.word == "radius-limited"
    assert "even the best score" in verdict.reason


def test_a_missing_seed_leaves_the_cell_undecided_and_seeds_that_differ_are_listed():
    seeds = [rows(GOOD, seed=seed) for seed in (0, 1, 2)]
    assert judge(*seeds, seeds=(0, 1, 2))["R=4"].recipe.word in {"transfers", "undecided"}
    assert judge(*seeds[:2], seeds=(0, 1, 2))["R=4"].word == "undecided"
    other = rows({32: 0.26, 64: 0.5}, seed=2)
    assert "do not agree" in judge(*seeds[:2], other, seeds=(0, 1, 2))["R=4"].reason


def test_a_law_that_changes_with_the_size_is_no_bulk():
    verdict = judge(rows(GOOD, law={**LAW, "correlation_length_squared": 400.0}))["R=4"]
    assert verdict.word == "transfers"  # the law itself is the same at both sizes
    changing = rows(GOOD, law={**LAW, "correlation_length_squared": 400.0})
    for row in changing:
        row["value"] = 40.0 if (row["part"], row["size"]) == ("zero_mode", 64) else row["value"]
    assert judge(changing)["R=4"].word == "undecided"


def test_a_trained_range_below_the_needed_one_is_said():
    verdict = judge(rows(GOOD, law={**LAW, "sigma_needed": 30.0}))["R=4"]
    assert "from the trained σ_max" in verdict.label


def test_without_references_the_null_follows_from_field_and_score():
    """null^2 = 1 - 1 / (1.25^2 1) = 0.36."""
    moments = [
        record(size=size, part=part, value=value, standard_error=0.0, n=1)
        for size in GOOD
        for part, value in (("field_std", 1.25), ("teacher_rms", 1.0))
    ]
    table = rows(GOOD, references=None, law=None, forecast=None)
    verdict = judge(table, moments, measured=("clean-score",))["R=4"]
    assert verdict.shown.headline["null"] == pytest.approx(0.6)
    assert verdict.word == "undecided"
    assert any("measure of linear references" in remedy for remedy in verdict.what_would_decide)


def test_sums_pair_students_of_one_seed_and_references_of_all():
    generator = np.random.default_rng(0)
    a, c = generator.chisquare(9, 32) / 9, np.ones(32)
    tables = rows(GOOD), rows(GOOD, student="R=8", radius=8)
    records = pd.DataFrame([row for table in tables for row in table])
    records["n"] = 32
    places = [row for row in records.to_dict("records") if row["part"] in {"relative_rmse", "linear"}]
    sums = sums_at(places, [(a * 0.07, c)] * len(places), {})
    assert len(sums) == len(places)
    experiment = make_experiment(
        teachers=("medium-range",),
        students=("R=4", "R=8"),
        seeds=(0,),
        sizes=(32, 64),
        train_size=32,
        measures={"clean-score": st.measure("clean-score"), "linear-references": LinearReferencesSpec()},
    )
    small, large = cells(records, experiment, sums)
    mine, theirs = small.trainings[0].errors[0].error, small.trainings[0].larger[0].errors[0].error
    assert mine.sums.fields == theirs.sums.fields != ""
    assert mine.sums.fields != small.trainings[0].errors[1].error.sums.fields
    shared = [cell.trainings[0].references[0].linear.sums.fields for cell in (small, large)]
    assert shared[0] == shared[1] != mine.sums.fields


@pytest.mark.parametrize("pair", [None, 3, "no", [[1.0]], [[1.0], [math.inf]], [[1.0, 2.0], [1.0]]])
def test_sums_of_strangers_are_left_out(pair):
    row = record()
    assert sums_at([row], [pair], {}) == {}
    assert place_of(row)[-1] is None


def test_records_that_are_empty_have_undecided_verdicts():
    experiment = make_experiment(teachers=("medium-range",))
    found = verdicts(pd.DataFrame(), experiment)
    assert {one.word for one in found} == {"undecided"}
    data = verdicts_as_data(found, experiment, 0)
    assert json.loads(json.dumps(data))["rule"]["alpha"] == 0.01


@pytest.mark.parametrize("name", ["significance", "improvement", "failure"])
def test_thresholds_of_before_are_refused_with_what_replaced_them(name):
    with pytest.raises(SpecError, match="instead of " + name):
        VerdictSpec.parse({name: 0.3})


# --- a run ------------------------------------------------------------------------------------------------------------

GAUSSIAN = {
    "name": "gaussian-verdicts",
    "teachers": {"field": {"kind": "gaussian", "dim": 1, "mass": 0.5}},
    "students": {"best": {"kind": "best-linear", "radius": 4}, "untrained": {"kind": "cnn", "blocks": 1, "width": 4}},
    "training": {"size": 24, "steps": 0, "noise": {"sigma_max": 20.0}},
    "evaluation": {
        "sizes": [24, 48],
        "measures": {
            "clean-score": {"kind": "clean-score", "fields": 16},
            "linear-references": {"kind": "linear-references", "fields": 16},
        },
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return st.run(st.experiment(GAUSSIAN), tmp_path_factory.mktemp("gaussian") / "run", report=False)


def test_a_run_of_gaussian_fields_has_its_words(run):
    found = {one.student: one for one in run.verdicts}
    assert found["best"].label == "transfers (clean score, to second order)"
    assert found["untrained"].word == "not learned"


def test_what_a_run_writes_is_what_it_says_when_read_back(run):
    written = json.loads((run.path / "verdicts.json").read_text())["verdicts"]
    again = read_run(run.path)
    assert written == json.loads(json.dumps([one.to_json() for one in again.verdicts]))


def test_a_run_judged_by_an_earlier_rule_is_read_and_judged_anew():
    data = st.experiment(GAUSSIAN).to_json()
    old = {
        **data,
        "verdict": {"significance": 3.0, "improvement": 0.1, "growth": 0.1, "failure": 0.5, "compare": "all"},
    }

    read = Experiment.parse(_without_earlier_thresholds(old), lookup=default_registry().lookup)
    assert read.verdict == VerdictSpec()


def test_fields_generated_given_labels_are_a_consequence():
    measure = default_registry().lookup("measure", "conditional-generation")()
    experiment = make_experiment(students=("R=4",), seeds=(0,), measures={**MEASURES, "given-labels": measure})
    parts = {"site_variance_ratio": 0.97, "nearest_covariance_ratio": 0.93, "sigma_start": 5.0, "sigma_needed": 5.0}
    made = [record(measure="given-labels", part=part, value=value, size=64) for part, value in parts.items()]
    cell = next(one for one in cells(pd.DataFrame(made), experiment) if one.teacher == "medium-range")
    (found,) = cell.trainings[0].consequences
    assert (found.source, found.site_variance.value, found.nearest.value) == ("rollout", 0.97, 0.93)


# --- measures of third parties ----------------------------------------------------------------------------------------


class StrangeErrorSpec(MeasureSpec):
    """An error of the score that nobody knows by its name, and a part of it by distance that is not judged."""

    kind: Literal["strange-error"] = "strange-error"
    parts: ClassVar[Mapping[str, Part]] = {
        "off": relative_error("error of the noisy score", "noise"),
        "off_clean": relative_error("error of the clean score"),
        "off_by_distance": relative_error("error by distance", "distance"),
        "nothing_known": Part("evidence", "null", "noise", "relative", serves="reference: null"),
        "radius_known": Part("evidence", "linear", "noise", "relative", serves="reference: linear"),
        "anything_known": Part("evidence", "best", "noise", "relative", serves="reference: best"),
        "how_long": Part("evidence", "length", unit="lattice steps²", serves="law: squared correlation length"),
        **generated("rollout", "the stranger"),
    }

    def measure(self, teacher, student, size, *, sigma, seed):
        raise AssertionError("nothing is measured here")


def strange(parts, *, measures=None, **more):
    """Verdict and cell of one student of records ``(measure, part, level, size, value)``."""
    records = [
        record(measure=measure, part=part, coordinate=level, size=size, train_size=32, value=value, n=32, **error)
        for measure, part, level, size, value, error in parts
    ]
    experiment = make_experiment(
        teachers=("medium-range",),
        students=("R=4",),
        seeds=(0,),
        sizes=(32, 64),
        train_size=32,
        measures=measures or {"mine": StrangeErrorSpec()},
        **more,
    )
    table = pd.DataFrame(records)
    (verdict,), (cell,) = verdicts(table, experiment), cells(table, experiment)
    return verdict, cell


def known(*values, error=0.0):
    return (*values, {"standard_error": error})


REFERENCE = [known("mine", f"{name}_known", 0.0, 32, value) for name, value in (("nothing", 0.6), ("radius", 0.25))]


def test_a_strangers_error_of_the_score_leads_to_a_verdict():
    errors = [known("mine", "off_clean", math.nan, size, 0.26, error=0.001) for size in (32, 64)]
    made = [known("mine", name, math.nan, 64, 0.99, error=0.001) for name in ("site variance", "nearest covariance")]
    best = [known("mine", "anything_known", 0.0, 32, 0.24), known("mine", "how_long", math.nan, 64, 4.0)]
    verdict, cell = strange([*errors, *made, *best, *REFERENCE])
    assert verdict.label == "transfers (clean score)"
    assert verdict.shown.headline["null"] == 0.6
    (consequence,) = cell.trainings[0].consequences
    assert (consequence.source, consequence.size, consequence.site_variance.value) == ("rollout", 64, 0.99)


def test_a_stranger_is_told_that_an_error_grows_noise_level_by_noise_level():
    errors = [
        known("mine", "off", level, size, value, error=0.001)
        for level, values in ((0.3, (0.2, 0.2)), (1.0, (0.2, 0.4)))
        for size, value in zip((32, 64), values, strict=True)
    ]
    nulls = [known("mine", "nothing_known", level, 32, 0.9) for level in (0.3, 1.0)]
    verdict, _ = strange(errors + nulls)
    assert verdict.word == "degrades with size"
    assert {level.sigma for level in verdict.shown.levels} == {0.3, 1.0}


def test_an_error_by_distance_is_no_error_of_the_whole_score():
    _, cell = strange([known("mine", "off_by_distance", 1.0, 32, 0.9), known("mine", "off", 0.3, 32, 0.2)])
    assert [(one.sigma, one.error.value) for one in cell.trainings[0].errors] == [(0.3, 0.2)]


def test_of_two_measures_of_one_error_the_first_of_the_experiment_counts():
    both = {"mine": StrangeErrorSpec(), "theirs": st.measure("smoothed-score")}
    errors = [
        known("theirs", "relative_rmse", 0.3, 32, 0.5),
        known("mine", "off", 0.3, 32, 0.2),
        known("theirs", "relative_rmse", 1.0, 32, 0.4),
    ]
    for measures, first in ((both, 0.2), (dict(reversed(both.items())), 0.5)):
        _, cell = strange(errors, measures=measures)
        assert {one.sigma: one.error.value for one in cell.trainings[0].errors} == {0.3: first, 1.0: 0.4}


def test_sums_give_a_number_as_it_was_made_of_them():
    """A stranger's relative error may be a plain ratio; then it is not the root of one."""
    table = pd.DataFrame([record(measure="mine", part="off", coordinate=0.3, size=32, train_size=32, value=0.25, n=2)])
    experiment = make_experiment(
        teachers=("medium-range",), students=("R=4",), seeds=(0,), train_size=32, measures={"mine": StrangeErrorSpec()}
    )
    for pair, value in ((((0.2, 0.3), (1.0, 1.0)), 0.25), (((0.0525, 0.0725), (1.0, 1.0)), 0.25)):
        sums = sums_at(table.to_dict("records"), [pair], {})
        (cell,) = cells(table, experiment, sums)
        assert cell.trainings[0].errors[0].error.value == pytest.approx(value)
