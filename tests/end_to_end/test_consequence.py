"""What a run generates is what its verdict weighs: from the measures, told of the training, to the reason."""

from __future__ import annotations

import math

import pytest
import torch

import sizetransfer as st
from sizetransfer.runs.evidence import verdicts

TRAINED = 1.0
SIZES = (16, 32)
ASKED = {
    "name": "consequence",
    "teachers": {"ring": {"kind": "gaussian", "dim": 1, "mass": 0.8}},
    "students": {"R=4": {"kind": "best-linear", "radius": 4, "fields": 256}},
    "seeds": [0],
    "training": {
        "size": SIZES[0],
        "steps": 0,
        "batch": 4,
        "objective": "denoising",
        "noise": {"sigma_min": 0.05, "sigma_max": TRAINED},
    },
    "evaluation": {
        "sizes": list(SIZES),
        "measures": {
            "smoothed-score": {"kind": "smoothed-score", "fields": 256, "sigmas": [0.5]},
            "linear-references": {"kind": "linear-references", "sigmas": [0.5], "radii": [4]},
            "generation": {"kind": "generation", "fields": 768, "batch": 768, "start": "needed"},
        },
    },
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("consequence") / "run"
    found = st.run(st.experiment(ASKED), out, device="cpu", executor="serial", report=False)
    assert not found.failures
    assert not found.skipped
    return found


def value(records, measure: str, size: int, part: str) -> float:
    rows = records[(records["measure"] == measure) & (records["size"] == size) & (records["part"] == part)]
    (found,) = rows["value"]
    return float(found)


def generated(verdict, of: str = "this model"):
    made = verdict.trainings[0].generated
    return {(one.size, one.name): one for one in made if one.of == of}


def test_measures_are_told_of_the_training(finished):
    records, needed = finished.records, math.sqrt(10) / 0.8
    for size in SIZES:
        assert value(records, "generation", size, "sigma_needed") == pytest.approx(needed, rel=1e-6)
        assert value(records, "generation", size, "sigma_start") == TRAINED < needed
        assert value(records, "generation", size, "start_exact") == 1
    references = records[records["measure"] == "linear-references"]
    forecast = references[references["part"].str.startswith("forecast_")]
    assert set(forecast["size"]) == {SIZES[1]}  # fitted at the training size, which is no forecast of itself


def test_the_consequence_is_that_of_the_rollouts_and_the_reason_says_so(finished):
    (verdict,) = finished.verdicts
    made = generated(verdict)
    assert {one.source for one in made.values()} == {"rollout"}
    for name, part in (("site variance", "site_variance"), ("nearest-neighbour covariance", "nearest_covariance")):
        rolled = value(finished.records, "generation", SIZES[1], f"{part}_ratio")
        assert made[SIZES[1], name].ratio == pytest.approx(rolled, rel=1e-9)
        assert f"{rolled:.3g} of the {name}" in verdict.reason
    forecast = value(finished.records, "linear-references", SIZES[1], "forecast_site_variance")
    assert made[SIZES[1], "site variance"].ratio != pytest.approx(forecast, rel=1e-4)
    assert f"at L = {SIZES[1]} (rollout)" in verdict.reason
    assert verdict.label == "transfers (from the trained σ_max)", verdict.reason


def test_rollouts_that_go_wrong_take_the_word_away(finished):
    """The verdict weighs these records and no others: a generated variance of half the law's is no transfer."""
    records = finished.records.copy()
    wrong = records["part"].eq("site_variance_ratio") & records["size"].eq(SIZES[1])
    assert wrong.sum() == 1
    records.loc[wrong, "value"] *= 0.5
    (verdict,) = verdicts(records, finished.experiment)
    assert verdict.word != "transfers"
    assert "of the site variance" in verdict.reason
    assert "rollout" in verdict.reason


def test_without_rollouts_the_forecast_stands_and_says_that_it_is_one(finished):
    records = finished.records[finished.records["measure"] != "generation"]
    (verdict,) = verdicts(records, finished.experiment)
    assert {one.source for one in generated(verdict).values()} == {"second-order forecast"}
    assert "to second order" in verdict.label
